//! Learners that treat values as chosen or durable too early, never catch up, or answer reads too early.

use super::Bug;
use super::wrapper::Wrapped;
use crate::kv::Kv;
use crate::paxos::{
    Ballot, Learner, LearnerNotification, LearnerRequest, LearnerTimer, Message, Slot, SlotRange, StateMachine,
};
use crate::role::{Action, Input, Output};

/// With the bug that adds up votes of different ballots, number of later rounds for which a vote counts too.
const LATER_ROUNDS: u64 = 8;

impl Wrapped for Learner<Kv> {
    fn hears(&self, bug: Bug, mut input: Input<Self>, out: &mut Output<Self>) -> Vec<Input<Self>> {
        let mut more = Vec::new();
        match &mut input {
            Input::Message { from, message: Message::Accept { ballot, first, values } }
                if bug == Bug::LearnFromAccept && !values.is_empty() =>
            {
                let slots = SlotRange { first: *first, last: first.plus(values.len() as u64 - 1) };
                more.push(Input::Message { from: *from, message: Message::Chosen { ballot: *ballot, slots } });
            }
            Input::Message { from, message: Message::Accepted { ballot, slots } }
                if bug == Bug::VotesOfAllBallotsCount =>
            {
                more.extend((1..=LATER_ROUNDS).map(|later| {
                    let ballot = Ballot { round: ballot.round + later, server: ballot.server };
                    Input::Message { from: *from, message: Message::Accepted { ballot, slots: *slots } }
                }));
            }
            // The read joins the round in flight. That round is restarted with the new read, and replies to the old
            // round count.
            Input::Request(LearnerRequest::Read { .. }) if bug == Bug::OldReadAnswersCount => {
                more.extend(self.round().map(|id| Input::Timeout(LearnerTimer::Read { id })));
            }
            Input::Message { message: Message::ReadReply { id, .. }, .. } if bug == Bug::OldReadAnswersCount => {
                *id = self.round().unwrap_or(*id);
            }
            Input::Request(LearnerRequest::Read { token, query }) if bug == Bug::ReadsAnsweredLocally => {
                let (slot, answer) = (self.applied(), self.machine().query(query));
                out.notify(LearnerNotification::Answer { token: *token, slot, answer });
                return more;
            }
            _ => {}
        }
        more.insert(0, input);
        more
    }

    fn says(&self, bug: Bug, actions: &mut Vec<Action<Self>>) {
        match bug {
            Bug::NoCatchUp => {
                actions.retain(|action| !matches!(action, Action::Send { message: Message::CatchUp { .. }, .. }));
            }
            Bug::LogCutBeforeCheckpoint => {
                *actions = std::mem::take(actions).into_iter().flat_map(called_durable).collect()
            }
            _ => {}
        }
    }
}

/// Reports a checkpoint as durable as soon as its writing begins.
fn called_durable(action: Action<Learner<Kv>>) -> impl Iterator<Item = Action<Learner<Kv>>> {
    let begun: Option<Slot> = match &action {
        Action::Notify(LearnerNotification::Checkpoint { slot, .. }) => Some(*slot),
        _ => None,
    };
    let durable = begun.map(|slot| Action::Notify(LearnerNotification::Durable { slot }));
    std::iter::once(action).chain(durable)
}
