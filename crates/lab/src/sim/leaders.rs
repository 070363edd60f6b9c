//! The oracle of leaders: checks how a leader reacts to refusals and missing replies.
//!
//! Two leaders at once are no violation, because the acceptors know the higher ballot. But a leader must not go on
//! after a refusal, without heartbeat replies, or with the same command in two open slots.

use std::collections::{BTreeMap, BTreeSet};

use super::coverage::{Coverage, CoveragePoint};
use super::invariant::Violation;
use paxos_kv::paxos::{Ballot, CommandId, Message, Proposer, ProposerTraceEvent, Slot, StepDownReason, Value};
use paxos_kv::role::{Action, Input, ServerId, ServerSet};

/// Maximum number of heartbeats that a leader sends without replies from a majority in between. Its own limit is 10
/// ticks, plus one heartbeat at the start.
const UNANSWERED_MAX: u64 = 12;
/// The window of a simulated leader in slots, small enough that a crowd of some hundred clients fills it.
pub(super) const WINDOW: u64 = 128;

/// The tenure of one proposer.
#[derive(Clone, Debug)]
struct Tenure {
    ballot: Ballot,
    /// Number of heartbeats sent.
    heartbeats: u64,
    /// The value of `beats` when each server's last reply arrived.
    answers: BTreeMap<ServerId, u64>,
    /// It received a NACK in an earlier turn.
    refused: bool,
    /// It received a NACK in the current turn.
    being_refused: bool,
}

/// The tenures of running leaders, and the slots of their proposals.
#[derive(Clone, Debug, Default)]
pub struct LeaderOracle {
    tenures: BTreeMap<ServerId, Tenure>,
    /// The slot in which a ballot last proposed a command, unless a promise required that value.
    slots: BTreeMap<(Ballot, CommandId), Slot>,
    /// The slots in which a ballot has proposed.
    proposed: BTreeSet<(Ballot, Slot)>,
    /// Commands that a running proposer has forwarded.
    forwarded: BTreeSet<(ServerId, CommandId)>,
    /// The last server that became leader.
    last: Option<ServerId>,
}

impl LeaderOracle {
    /// Records the inputs with which a proposer's turn begins.
    pub fn observe_inputs<'a>(
        &mut self,
        server: ServerId,
        inputs: impl Iterator<Item = &'a Input<Proposer>>,
        coverage: &mut Coverage,
    ) {
        if let Some(tenure) = self.tenures.get_mut(&server) {
            tenure.refused |= std::mem::take(&mut tenure.being_refused);
        }
        for input in inputs {
            let Input::Message { from, message } = input else { continue };
            match (message, self.tenures.get_mut(&server)) {
                (Message::LeaderHint { .. }, _) => coverage.reach(CoveragePoint::LeaderHintReceived),
                (Message::PreVoteReply { hears: true, .. }, _) => coverage.reach(CoveragePoint::PreVoteRefused),
                (Message::Nack { ballot, .. }, Some(tenure)) if *ballot == tenure.ballot => tenure.being_refused = true,
                (Message::HeartbeatReply { ballot }, Some(tenure)) if *ballot == tenure.ballot => {
                    tenure.answers.insert(*from, tenure.heartbeats);
                }
                _ => {}
            }
        }
    }

    /// Checks a proposer's actions, and returns a violation if there is one. `is_open` says whether a slot is neither
    /// chosen nor applied at this server.
    pub fn check_actions(
        &mut self,
        server: ServerId,
        actions: &[Action<Proposer>],
        is_chosen: impl Fn(ServerSet) -> bool,
        is_open: impl Fn(Slot) -> bool,
        coverage: &mut Coverage,
    ) -> Option<Violation> {
        let mut broken = None;
        for action in actions {
            broken = broken.or(match action {
                Action::Trace(fact) => self.check_trace_event(server, fact, &is_open, coverage),
                Action::Send { message, .. } => self.check_message(server, message, &is_chosen, coverage),
                Action::Arm(_) | Action::Notify(_) => None,
            });
        }
        broken
    }

    fn check_trace_event(
        &mut self,
        server: ServerId,
        event: &ProposerTraceEvent,
        is_open: impl Fn(Slot) -> bool,
        coverage: &mut Coverage,
    ) -> Option<Violation> {
        match event {
            ProposerTraceEvent::Led { ballot, .. } => {
                if self.last.replace(server).is_some_and(|last| last != server) {
                    coverage.reach(CoveragePoint::LeaderChanged);
                }
                let tenure = Tenure {
                    ballot: *ballot,
                    heartbeats: 0,
                    answers: BTreeMap::new(),
                    refused: false,
                    being_refused: false,
                };
                self.tenures.insert(server, tenure);
                None
            }
            ProposerTraceEvent::SteppedDown { open, why, .. } => {
                self.tenures.remove(&server);
                if *open > 0 {
                    coverage.reach(CoveragePoint::DeposedWithSlotsInFlight);
                }
                if *open as u64 >= WINDOW {
                    coverage.reach(CoveragePoint::DeposedWithFullWindow);
                }
                coverage.reach(match why {
                    StepDownReason::Nacked(_) => CoveragePoint::LeaderRefused,
                    StepDownReason::HigherBallot(_) => CoveragePoint::LeaderSawLaterLeader,
                    StepDownReason::NoHeartbeatReplies => CoveragePoint::LeaderWithoutReplies,
                    StepDownReason::Stalled => CoveragePoint::LeaderStalled,
                    StepDownReason::LearnerDown | StepDownReason::Truncated(_) => CoveragePoint::LearnerCrashed,
                });
                None
            }
            ProposerTraceEvent::Proposed { slot, ballot, value: Value::Command(command), adopted: None, .. } => {
                let before = self.slots.insert((*ballot, command.id), *slot);
                let twice = before.filter(|before| before != slot && is_open(*before))?;
                let what =
                    format!("{ballot} proposed {:?} in slot {slot} while it was in flight in slot {twice}", command.id);
                Some(Violation { invariant: 33, what })
            }
            ProposerTraceEvent::Forwarded { command, .. } => {
                let first = self.forwarded.insert((server, command.id));
                coverage.reach(if first { CoveragePoint::Forwarded } else { CoveragePoint::ForwardedAgain });
                None
            }
            _ => None,
        }
    }

    fn check_message(
        &mut self,
        server: ServerId,
        message: &Message,
        is_chosen: impl Fn(ServerSet) -> bool,
        coverage: &mut Coverage,
    ) -> Option<Violation> {
        let ballot = match message {
            Message::ForwardRefused { .. } => {
                coverage.reach(CoveragePoint::ForwardRefused);
                return None;
            }
            Message::Accept { ballot, first, values } => {
                if !self.proposed.insert((*ballot, *first)) {
                    coverage.reach(CoveragePoint::Resent);
                }
                if values.len() > 1 {
                    coverage.reach(CoveragePoint::BatchOfSeveral);
                }
                ballot
            }
            Message::Heartbeat { ballot } => ballot,
            _ => return None,
        };
        let tenure = self.tenures.get_mut(&server).filter(|tenure| tenure.ballot == *ballot)?;
        if tenure.refused {
            let what = format!("{server} still leads at {ballot} although it was refused");
            return Some(Violation { invariant: 34, what });
        }
        let beats = tenure.heartbeats + 1;
        if !matches!(message, Message::Heartbeat { .. }) {
            return None;
        }
        tenure.heartbeats = beats;
        let fresh = |at: u64| beats - at <= UNANSWERED_MAX;
        let answered = tenure.answers.iter().filter(|(_, at)| fresh(**at)).map(|(from, _)| *from).chain([server]);
        if fresh(0) || is_chosen(answered.collect()) {
            return None;
        }
        let what =
            format!("{server} still leads at {ballot} although no majority replied to {UNANSWERED_MAX} heartbeats");
        Some(Violation { invariant: 35, what })
    }

    /// Whether this incarnation of a proposer has forwarded the command.
    pub fn has_forwarded(&self, server: ServerId, id: CommandId) -> bool {
        self.forwarded.contains(&(server, id))
    }

    /// A server's learner has applied a command, so its proposer drops it.
    pub fn applied(&mut self, server: ServerId, id: CommandId) {
        self.forwarded.remove(&(server, id));
    }

    /// A proposer has crashed.
    pub fn role_crashed(&mut self, server: ServerId) {
        self.tenures.remove(&server);
        self.forwarded.retain(|(forwarder, _)| *forwarder != server);
    }
}
