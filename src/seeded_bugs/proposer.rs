//! Proposers that misinterpret what they receive, or do not send what they should.

use super::Bug;
use super::wrapper::Wrapped;
use crate::paxos::{Message, Proposer, ProposerRecord, ProposerTimer, ProposerTraceEvent, Slot, Value};
use crate::role::{Action, Input, Output, ServerId, ServerSet};

impl Wrapped for Proposer {
    fn hears(&self, bug: Bug, mut input: Input<Self>, _out: &mut Output<Self>) -> Vec<Input<Self>> {
        match &mut input {
            Input::Message { message: Message::Promise { ballot, page }, .. } => {
                match bug {
                    Bug::StalePromisesCount => *ballot = self.active_ballot().unwrap_or(*ballot),
                    Bug::FirstPageIsWhole => page.end = None,
                    Bug::ForgottenIsFree => page.truncated_below = Slot(0),
                    Bug::OwnValueAlways => page.accepted.clear(),
                    _ => {}
                }
                vec![input]
            }
            Input::Message { message: Message::Nack { .. }, .. }
                if bug == Bug::NackedLeaderGoesOn && self.leads().is_some() =>
            {
                Vec::new()
            }
            Input::Timeout(ProposerTimer::HeartbeatTick) if bug == Bug::UnansweredLeaderGoesOn => {
                let answers = self.leads().into_iter().flat_map(|ballot| {
                    let message = Message::HeartbeatReply { ballot };
                    (1..=ServerId::MAX)
                        .map(move |from| Input::Message { from: ServerId(from), message: message.clone() })
                });
                answers.chain([input]).collect()
            }
            _ => vec![input],
        }
    }

    fn remembers(bug: Bug, records: &mut Vec<ProposerRecord>) {
        if bug == Bug::RestartReusesBallots {
            // No round is reserved.
            records.fill(ProposerRecord::RoundsReserved(1));
        }
    }

    fn says(&self, bug: Bug, actions: &mut Vec<Action<Self>>) {
        match bug {
            Bug::NobodyTriesAgain => actions.retain(|action| !matches!(action, Action::Arm(_))),
            Bug::HolesStayOpen => *actions = std::mem::take(actions).into_iter().flat_map(without_noops).collect(),
            _ => {}
        }
        for action in actions {
            let Action::Send { to, message } = action else { continue };
            match message {
                Message::Prepare { from, .. } if bug == Bug::AcceptBelowFrom => *from = from.next(),
                Message::Prepare { ballot, .. } | Message::Accept { ballot, .. } if bug == Bug::LeavesItselfOut => {
                    *to = to.without(ServerSet::only(ballot.server));
                }
                _ => {}
            }
        }
    }
}

/// The same action without proposals of no-ops: the rest of an ACCEPT is sent slot by slot.
fn without_noops(action: Action<Proposer>) -> Vec<Action<Proposer>> {
    match action {
        Action::Trace(ProposerTraceEvent::Proposed { value: Value::Noop, .. }) => Vec::new(),
        Action::Send { to, message: Message::Accept { ballot, first, values } } => {
            let values = first.to(Slot::LAST).zip(values).filter(|(_, value)| *value != Value::Noop);
            let accept = |(first, value)| Message::Accept { ballot, first, values: vec![value] };
            values.map(|one| Action::Send { to, message: accept(one) }).collect()
        }
        other => vec![other],
    }
}
