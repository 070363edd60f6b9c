//! What the ghost knows of leaders.
//!
//! Two leaders at once are no violation: the acceptors know the higher ballot. What a leader must not do is to go on
//! when it could know better: refused, unanswered, or with the same command in two places.

use std::collections::{BTreeMap, BTreeSet};

use super::coverage::{Coverage, Mark};
use super::invariant::Violation;
use crate::paxos::{Ballot, CommandId, Message, Proposer, ProposerTraceEvent, Slot, StepDownReason, Value};
use crate::role::{Action, Input, ServerId, ServerSet};

/// A leader sends at most so many heartbeats without a majority's answers in between. (Its own limit is 10 pulses; a
/// heartbeat at the beginning comes on top.)
const UNANSWERED_MAX: u64 = 12;
/// The window of a simulated leader: a crowd of some hundred clients fills it.
pub(super) const WINDOW: u64 = 128;

/// One proposer's reign.
#[derive(Clone, Debug)]
struct Tenure {
    ballot: Ballot,
    /// Heartbeats sent.
    beats: u64,
    /// How many had been sent when each server's last answer was heard.
    answers: BTreeMap<ServerId, u64>,
    /// It was refused in a turn that is over.
    refused: bool,
    /// It was refused in the turn under way.
    being_refused: bool,
}

/// The reigns of living leaders, and what was last proposed where.
#[derive(Clone, Debug, Default)]
pub struct LeaderOracle {
    reigns: BTreeMap<ServerId, Tenure>,
    /// In which slot a ballot proposed a command, of all that it was not bound to.
    slots: BTreeMap<(Ballot, CommandId), Slot>,
    /// The slots that a ballot has proposed in.
    proposed: BTreeSet<(Ballot, Slot)>,
    /// Commands that a living proposer has handed over.
    forwarded: BTreeSet<(ServerId, CommandId)>,
    /// The last leader.
    last: Option<ServerId>,
}

impl LeaderOracle {
    /// A proposer's turn begins with these inputs.
    pub fn hears<'a>(
        &mut self,
        server: ServerId,
        inputs: impl Iterator<Item = &'a Input<Proposer>>,
        marks: &mut Coverage,
    ) {
        if let Some(reign) = self.reigns.get_mut(&server) {
            reign.refused |= std::mem::take(&mut reign.being_refused);
        }
        for input in inputs {
            let Input::Message { from, message } = input else { continue };
            match (message, self.reigns.get_mut(&server)) {
                (Message::Relay { .. }, _) => marks.reach(Mark::Relayed),
                (Message::PreVoteAnswer { hears: true, .. }, _) => marks.reach(Mark::PreVoteRefused),
                (Message::Nack { ballot, .. }, Some(reign)) if *ballot == reign.ballot => reign.being_refused = true,
                (Message::HeartbeatAnswer { ballot }, Some(reign)) if *ballot == reign.ballot => {
                    reign.answers.insert(*from, reign.beats);
                }
                _ => {}
            }
        }
    }

    /// What a proposer says; `is_open` if a slot is neither chosen nor applied there. The rule that it breaks, if any.
    pub fn says(
        &mut self,
        server: ServerId,
        actions: &[Action<Proposer>],
        is_chosen: impl Fn(ServerSet) -> bool,
        is_open: impl Fn(Slot) -> bool,
        marks: &mut Coverage,
    ) -> Option<Violation> {
        let mut broken = None;
        for action in actions {
            broken = broken.or(match action {
                Action::Fact(fact) => self.fact(server, fact, &is_open, marks),
                Action::Send { message, .. } => self.message(server, message, &is_chosen, marks),
                Action::Arm(_) | Action::Outcome(_) => None,
            });
        }
        broken
    }

    fn fact(
        &mut self,
        server: ServerId,
        fact: &ProposerTraceEvent,
        is_open: impl Fn(Slot) -> bool,
        marks: &mut Coverage,
    ) -> Option<Violation> {
        match fact {
            ProposerTraceEvent::Led { ballot, .. } => {
                if self.last.replace(server).is_some_and(|last| last != server) {
                    marks.reach(Mark::LeaderChanged);
                }
                let reign = Tenure {
                    ballot: *ballot,
                    beats: 0,
                    answers: BTreeMap::new(),
                    refused: false,
                    being_refused: false,
                };
                self.reigns.insert(server, reign);
                None
            }
            ProposerTraceEvent::SteppedDown { open, why, .. } => {
                self.reigns.remove(&server);
                if *open > 0 {
                    marks.reach(Mark::DeposedWithOpenSlots);
                }
                if *open as u64 >= WINDOW {
                    marks.reach(Mark::DeposedWithFullWindow);
                }
                marks.reach(match why {
                    StepDownReason::Nacked(_) => Mark::LeaderRefused,
                    StepDownReason::Rival(_) => Mark::LeaderHeardRival,
                    StepDownReason::Unheard => Mark::LeaderUnheard,
                    StepDownReason::Stalled => Mark::LeaderStalled,
                    StepDownReason::LearnerDown | StepDownReason::Below(_) => Mark::LearnerCrashed,
                });
                None
            }
            ProposerTraceEvent::Proposed { slot, ballot, value: Value::Command(command), adopted: None, .. } => {
                let before = self.slots.insert((*ballot, command.id), *slot);
                let twice = before.filter(|before| before != slot && is_open(*before))?;
                let what =
                    format!("{ballot} proposes {:?} in slot {slot}, and has it open in slot {twice}", command.id);
                Some(Violation { invariant: 33, what })
            }
            ProposerTraceEvent::Forwarded { command, .. } => {
                let first = self.forwarded.insert((server, command.id));
                marks.reach(if first { Mark::Forwarded } else { Mark::ForwardedAgain });
                None
            }
            _ => None,
        }
    }

    fn message(
        &mut self,
        server: ServerId,
        message: &Message,
        is_chosen: impl Fn(ServerSet) -> bool,
        marks: &mut Coverage,
    ) -> Option<Violation> {
        let ballot = match message {
            Message::Refused { .. } => {
                marks.reach(Mark::ForwardRefused);
                return None;
            }
            Message::Accept { ballot, first, values } => {
                if !self.proposed.insert((*ballot, *first)) {
                    marks.reach(Mark::Resent);
                }
                if values.len() > 1 {
                    marks.reach(Mark::GroupOfMany);
                }
                ballot
            }
            Message::Heartbeat { ballot } => ballot,
            _ => return None,
        };
        let reign = self.reigns.get_mut(&server).filter(|reign| reign.ballot == *ballot)?;
        if reign.refused {
            let what = format!("{server} leads on at {ballot}, though it was refused");
            return Some(Violation { invariant: 34, what });
        }
        let beats = reign.beats + 1;
        if !matches!(message, Message::Heartbeat { .. }) {
            return None;
        }
        reign.beats = beats;
        let fresh = |at: u64| beats - at <= UNANSWERED_MAX;
        let answered = reign.answers.iter().filter(|(_, at)| fresh(**at)).map(|(from, _)| *from).chain([server]);
        if fresh(0) || is_chosen(answered.collect()) {
            return None;
        }
        let what = format!("{server} leads on at {ballot}, and no majority has answered {UNANSWERED_MAX} heartbeats");
        Some(Violation { invariant: 35, what })
    }

    /// Whether a command was handed over by this life of a proposer.
    pub fn has_forwarded(&self, server: ServerId, id: CommandId) -> bool {
        self.forwarded.contains(&(server, id))
    }

    /// A server's learner has applied a command: its proposer forgets it.
    pub fn applied(&mut self, server: ServerId, id: CommandId) {
        self.forwarded.remove(&(server, id));
    }

    /// A proposer has died.
    pub fn died(&mut self, server: ServerId) {
        self.reigns.remove(&server);
        self.forwarded.retain(|(forwarder, _)| *forwarder != server);
    }
}
