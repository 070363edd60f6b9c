//! The facts of a table: whether the statements of an exercise hold now, and whether a guarantee is broken.

use paxos_kv::kv::WriteResult;
use paxos_kv::paxos::{Slot, Value};
use paxos_kv::role::{ServerId, ServerSet};

use super::message::{text, value_text};
use super::predicate::{Fact, SlotName, Told};
use super::table::Table;
use super::votes::{Ballots, Cell};
use crate::sim::client_history::{ClientRecord, ObservedResult, RequestedOperation};

/// One of two values that are chosen in one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenSide {
    /// The value.
    pub value: String,
    /// The ballot at which it is chosen.
    pub ballot: paxos_kv::paxos::Ballot,
    /// The acceptors that have accepted it.
    pub quorum: ServerSet,
}

/// A guarantee that is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The number of the rule in `docs/rules.md`.
    pub rule: u8,
    /// What happened.
    pub sentence: String,
    /// The two values, if two are chosen.
    pub sides: Vec<ChosenSide>,
    /// The server in both quorums that forgot its vote in between, and the step.
    pub forgot: Option<(ServerId, usize)>,
    /// The file that carries out the rule.
    pub file: &'static str,
}

impl Table {
    /// The slot with this name.
    pub fn slot(&self, name: SlotName) -> Slot {
        match name {
            SlotName::First(more) => Slot(self.first.0 + more),
            SlotName::Number(number) => Slot(number),
        }
    }

    /// Whether a statement holds now.
    pub fn holds(&self, fact: &Fact, ballots: &Ballots) -> bool {
        match fact {
            Fact::Chosen(slot, value) => {
                let chosen = ballots.chosen(self.slot(*slot));
                chosen.iter().any(|(one, ..)| value.as_ref().is_none_or(|value| is(one, value)))
            }
            Fact::Accepted(slot, value, comparison, count) => {
                let rows = ballots.rows(self.slot(*slot));
                let of_value = rows.iter().filter(|row| row.value.as_ref().is_some_and(|one| is(one, value)));
                comparison.holds(of_value.map(|row| row.count(Cell::Accepted)).max().unwrap_or(0), *count)
            }
            Fact::Proposed(slot, value, server) => ballots.proposed.iter().any(|((of, ballot), proposed)| {
                *of == self.slot(*slot) && ballot.server == *server && is(proposed, value)
            }),
            Fact::MayBeChosen(slot, value) => ballots.may_be_chosen(self.slot(*slot), |one| is(one, value)),
            Fact::Bound(server, slot, value) => {
                let process = self.sim.servers[usize::from(server.0) - 1].process.as_ref();
                let proposer = process.and_then(|process| process.proposer.as_ref());
                let reported = proposer.and_then(|proposer| proposer.role().reported(self.slot(*slot)));
                reported.is_some_and(|(_, one)| is(one, value))
            }
            Fact::Reported(server, slot, comparison, count) => {
                let heard = self.heard.iter().filter(|promise| promise.to == *server);
                let entries = heard.flat_map(|promise| &promise.accepted);
                let of_slot = entries.filter(|entry| entry.slot == self.slot(*slot));
                let values: std::collections::BTreeSet<String> =
                    of_slot.map(|entry| value_text(&entry.value)).collect();
                comparison.holds(values.len(), *count)
            }
            Fact::Known(slot) => {
                let slot = self.slot(*slot);
                self.cluster().iter().any(|server| self.applied(server).is_some_and(|applied| applied >= slot))
            }
            Fact::Told(client, told) => self.results(*client).any(|record| told_of(record) == Some(*told)),
            Fact::Read(client, value) => self.results(*client).any(
                |record| matches!(&record.result, ObservedResult::Read(_, Some(bytes), _) if text(bytes) == *value),
            ),
            Fact::Promised(server, comparison, ballot) => comparison.holds(self.acceptor(*server).0, *ballot),
            Fact::RoleIs(server, role, is_up) => self.sim.is_role_up(*server, *role) == *is_up,
            Fact::ServerIs(server, is_up) => self.sim.is_up(*server) == *is_up,
            Fact::DownCount(role, comparison, count) => {
                let down = self.cluster().iter().filter(|server| !self.sim.is_role_up(*server, *role)).count();
                comparison.holds(down, *count)
            }
            Fact::Leader(server) => {
                let process = self.sim.servers[usize::from(server.0) - 1].process.as_ref();
                let proposer = process.and_then(|process| process.proposer.as_ref());
                proposer.is_some_and(|proposer| proposer.role().leads().is_some())
            }
            Fact::Locked(key, comparison, count) => comparison
                .holds(self.cluster().iter().filter(|server| self.locks(*server).contains(key)).count(), *count),
            Fact::Applied(server, comparison, slot) => {
                comparison.holds(self.applied(*server).unwrap_or_default(), self.slot(*slot))
            }
            Fact::Snapshot(server) => self.snapshots.contains(server),
            Fact::Crashed(server, role, point) => {
                self.crashed.iter().any(|(one, of, at)| (one, of, *at) == (server, role, point.as_str()))
            }
            Fact::Version(key, comparison, count) => {
                let learners = self.sim.servers.iter().filter_map(|server| server.process.as_ref()?.learner.as_ref());
                let versions =
                    learners.filter_map(|one| Some(one.role().machine().store().get(key.as_bytes())?.version));
                comparison.holds(versions.max().unwrap_or(0) as usize, *count)
            }
            Fact::Blocked(server) => {
                let process = self.sim.servers[usize::from(server.0) - 1].process.as_ref();
                let participant = process.and_then(|process| process.participant.as_ref());
                participant.is_some_and(|one| one.role().in_doubt().any(|transaction| transaction.is_blocked))
            }
            // Only a game knows the choices.
            Fact::Endless => false,
            Fact::Equal => {
                let states: Vec<_> = self.sim.servers.iter().filter_map(|server| server.applied()).collect();
                states.windows(2).all(|pair| pair[0] == pair[1])
            }
            Fact::Rounds(server, comparison, count) => {
                let before = self.rounds_before.get(server).copied().unwrap_or(0);
                let own = ballots.prepared.keys().filter(|ballot| ballot.server == *server && ballot.round > before);
                comparison.holds(own.count(), *count)
            }
            Fact::Refused(server, comparison, count) => {
                comparison.holds(self.refusals.get(server).copied().unwrap_or(0), *count)
            }
            Fact::Broken => self.broken(ballots).is_some(),
            Fact::Steps(comparison, count) => comparison.holds(self.steps, *count),
        }
    }

    /// The keys that a participant of two-phase commit holds locked.
    pub fn locks(&self, server: ServerId) -> Vec<String> {
        let process = self.sim.servers[usize::from(server.0) - 1].process.as_ref();
        let participant = process.and_then(|process| process.participant.as_ref());
        let in_doubt = participant.into_iter().flat_map(|one| one.role().in_doubt().collect::<Vec<_>>());
        in_doubt.filter_map(|transaction| transaction.key.map(|key| text(&key))).collect()
    }

    /// The requests of a client, in order.
    pub fn results(&self, client: usize) -> impl Iterator<Item = &ClientRecord> {
        self.sim.sim_env.history.operations().iter().filter(move |record| record.client == client)
    }

    /// The guarantee that is broken now, if one is. That two values are chosen comes first: it explains the others.
    pub fn broken(&self, ballots: &Ballots) -> Option<Break> {
        for slot in ballots.slots(self.first) {
            let chosen = ballots.chosen(slot);
            let [(one, at, quorum), (other, later, other_quorum), ..] = chosen.as_slice() else { continue };
            let both = quorum.and(*other_quorum);
            let side = |value: &Value, ballot, quorum| ChosenSide { value: value_text(value), ballot, quorum };
            let (forgot, file) = match self.forgot.iter().rev().find(|(server, _)| both.contains(*server)) {
                Some(found) => (Some(*found), "src/paxos/acceptor.rs"),
                None => (None, "src/paxos/quorum.rs"),
            };
            return Some(Break {
                rule: if forgot.is_some() { 6 } else { 4 },
                sentence: format!(
                    "Two values are chosen in slot {slot}: {} at {at} and {} at {later}.",
                    value_text(one),
                    value_text(other)
                ),
                sides: vec![side(one, *at, *quorum), side(other, *later, *other_quorum)],
                forgot,
                file,
            });
        }
        if let Some(violation) = self.sim.sim_env.oracle.violation() {
            return Some(Break {
                // The rule that the invariant belongs to: exactly once, reads, or agreement.
                rule: match violation.invariant {
                    15 => 7,
                    16 | 19 => 9,
                    _ => 5,
                },
                sentence: format!("A guarantee is broken: {}.", violation.what),
                sides: Vec::new(),
                forgot: None,
                file: "docs/rules.md",
            });
        }
        // A search, and of a few operations only: it is needed where a result may be wrong.
        let is_read = |record: &ClientRecord| matches!(record.result, ObservedResult::Read(..));
        let operations = self.sim.sim_env.history.operations();
        if operations.iter().any(is_read) && self.sim.sim_env.history.check_search().is_err() {
            return Some(Break {
                rule: 9,
                sentence: self.stale_read(),
                sides: Vec::new(),
                forgot: None,
                file: "src/paxos/learner/quorum_reads.rs",
            });
        }
        None
    }

    fn stale_read(&self) -> String {
        let is_read = |record: &&ClientRecord| matches!(record.result, ObservedResult::Read(..));
        let Some(read) = self.sim.sim_env.history.operations().iter().rfind(is_read) else { return String::new() };
        let RequestedOperation::Get { key } = &read.what else { return String::new() };
        let value = match &read.result {
            ObservedResult::Read(_, Some(value), _) => text(value),
            _ => "nothing".to_string(),
        };
        format!(
            "c{} has read {value} from {}, but another client had been told before that a later write was done.",
            read.client + 1,
            text(key)
        )
    }
}

/// Whether a value is shown by this word.
fn is(value: &Value, word: &str) -> bool {
    value_text(value) == word
}

/// What a client was told, if its request has ended.
pub fn told_of(record: &ClientRecord) -> Option<Told> {
    match &record.result {
        ObservedResult::Wrote(_, WriteResult::Done { .. }) => Some(Told::Ok),
        ObservedResult::Refused => Some(Told::NotApplied),
        ObservedResult::Unknown if record.ended.is_some() => Some(Told::Unknown),
        _ => None,
    }
}
