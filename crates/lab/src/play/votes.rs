//! The vote table: for each slot and ballot, which acceptors have accepted, which still may, and which never will.
//!
//! It is computed from the disks, and from no learner. It says why a proposer is bound: a value that can yet be chosen
//! at a ballot must be proposed at every higher one (Lamport, *Paxos Made Simple*, 2001, section 2.2, P2b).

use std::collections::{BTreeMap, BTreeSet};

use paxos_kv::paxos::{Ballot, Quorums, Slot, Value};
use paxos_kv::role::{ServerId, ServerSet};

use super::message::value_text;
use super::story::listed;

/// What the table is computed from.
#[derive(Clone, Debug)]
pub struct Ballots {
    /// The quorums of the cluster.
    pub quorums: Quorums,
    /// Every vote that was ever durable, whether or not its disk still holds it.
    pub votes: BTreeMap<(Slot, Ballot), (Value, ServerSet)>,
    /// Every proposal.
    pub proposed: BTreeMap<(Slot, Ballot), Value>,
    /// Every ballot, with its first slot.
    pub prepared: BTreeMap<Ballot, Slot>,
    /// What each acceptor has promised, on its disk.
    pub promised: BTreeMap<ServerId, Ballot>,
}

/// What an acceptor can do for a ballot in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// It has accepted.
    Accepted,
    /// Its promise allows it to accept.
    May,
    /// It has promised a higher ballot.
    Never,
}

/// What can become of a ballot in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// A quorum has accepted.
    Chosen,
    /// A quorum has accepted or may.
    May,
    /// No quorum is left.
    Never,
    /// A quorum is left, but nothing is proposed at this ballot yet.
    Open,
}

/// One ballot in one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoteRow {
    /// The ballot.
    pub ballot: Ballot,
    /// The value that is proposed at it, if any.
    pub value: Option<Value>,
    /// The acceptors, in order.
    pub cells: Vec<Cell>,
    /// What can become of it.
    pub state: RowState,
}

impl VoteRow {
    /// Number of acceptors of this kind.
    pub fn count(&self, kind: Cell) -> usize {
        self.cells.iter().filter(|cell| **cell == kind).count()
    }
}

impl Ballots {
    /// The slots of interest: from `first` on, every one in which something was proposed or accepted.
    pub fn slots(&self, first: Slot) -> Vec<Slot> {
        let proposed = self.proposed.keys().map(|(slot, _)| *slot);
        let voted = self.votes.keys().map(|(slot, _)| *slot);
        let mut slots: BTreeSet<Slot> = proposed.chain(voted).filter(|slot| *slot >= first).collect();
        if slots.is_empty() {
            slots.insert(first);
        }
        slots.into_iter().collect()
    }

    /// The rows of a slot, the highest ballot first. A ballot without a proposal is shown only while one may follow.
    pub fn rows(&self, slot: Slot) -> Vec<VoteRow> {
        let proposed = self.proposed.keys().filter(|(of, _)| *of == slot).map(|(_, ballot)| *ballot);
        let voted = self.votes.keys().filter(|(of, _)| *of == slot).map(|(_, ballot)| *ballot);
        let prepared = self.prepared.iter().filter(|(_, from)| **from <= slot).map(|(ballot, _)| *ballot);
        let named: BTreeSet<Ballot> = proposed.chain(voted).collect();
        let newer = prepared.filter(|ballot| named.last().is_none_or(|last| ballot > last));
        let all: BTreeSet<Ballot> = named.iter().copied().chain(newer).collect();
        let rows = all.into_iter().rev().map(|ballot| self.row(slot, ballot));
        rows.filter(|row| row.value.is_some() || row.state == RowState::Open).collect()
    }

    fn row(&self, slot: Slot, ballot: Ballot) -> VoteRow {
        let votes = self.votes.get(&(slot, ballot));
        let accepted = votes.map_or(ServerSet::NONE, |(_, servers)| *servers);
        let value = self.proposed.get(&(slot, ballot)).or(votes.map(|(value, _)| value)).cloned();
        let cell = |server: ServerId| {
            if accepted.contains(server) {
                Cell::Accepted
            } else if self.promised.get(&server).is_none_or(|promised| *promised <= ballot) {
                Cell::May
            } else {
                Cell::Never
            }
        };
        let cells: Vec<Cell> = self.quorums.servers().iter().map(cell).collect();
        let left = self.quorums.servers().iter().zip(&cells).filter(|(_, cell)| **cell != Cell::Never);
        let left: ServerSet = left.map(|(server, _)| server).collect();
        let state = if self.quorums.is_phase2_quorum(accepted) {
            RowState::Chosen
        } else if !self.quorums.is_phase2_quorum(left) {
            RowState::Never
        } else if value.is_none() {
            RowState::Open
        } else {
            RowState::May
        };
        VoteRow { ballot, value, cells, state }
    }

    /// The values chosen in a slot, each with the lowest ballot at which a quorum has accepted it, and that quorum.
    pub fn chosen(&self, slot: Slot) -> Vec<(&Value, Ballot, ServerSet)> {
        let mut found: Vec<(&Value, Ballot, ServerSet)> = Vec::new();
        for ((_, ballot), (value, servers)) in
            self.votes.range((slot, Ballot::ZERO)..).take_while(|((of, _), _)| *of == slot)
        {
            if self.quorums.is_phase2_quorum(*servers) && found.iter().all(|(other, ..)| *other != value) {
                found.push((value, *ballot, *servers));
            }
        }
        found
    }

    /// Whether a value can yet be chosen in a slot at a ballot that has proposed it, or is chosen.
    pub fn may_be_chosen(&self, slot: Slot, is_meant: impl Fn(&Value) -> bool) -> bool {
        let is_alive = |row: &VoteRow| matches!(row.state, RowState::Chosen | RowState::May);
        self.rows(slot).iter().any(|row| is_alive(row) && row.value.as_ref().is_some_and(&is_meant))
    }

    /// What a row says.
    pub fn row_sentence(&self, row: &VoteRow) -> String {
        let ballot = row.ballot;
        match (&row.value, row.state) {
            (None, _) => format!("Nothing is proposed at {ballot} yet."),
            (Some(value), RowState::Chosen) => format!("{} is chosen at {ballot}.", value_text(value)),
            (Some(value), RowState::Never) => format!("{} can never be chosen at {ballot}.", value_text(value)),
            (Some(value), _) => format!("{} can yet be chosen at {ballot}.", value_text(value)),
        }
    }

    /// What a slot says: the reason why a proposer is bound, or free.
    pub fn slot_sentence(&self, slot: Slot) -> String {
        let chosen = self.chosen(slot);
        match chosen.as_slice() {
            [] => {}
            [(value, ballot, quorum)] => {
                return format!("{} is chosen: {} have accepted it at {ballot}.", value_text(value), listed(*quorum));
            }
            [(one, ..), (other, ..), ..] => {
                return format!(
                    "Two values are chosen: {} and {}. That must never happen.",
                    value_text(one),
                    value_text(other)
                );
            }
        }
        let rows = self.rows(slot);
        let Some(row) = rows.iter().find(|row| row.state == RowState::May) else {
            return if rows.iter().any(|row| row.value.is_some()) {
                "No proposal of this slot can be chosen any more: the next ballot that a quorum promises is free to \
                 propose any value, unless a promise reports one."
                    .to_string()
            } else {
                "Nothing is proposed in this slot yet.".to_string()
            };
        };
        let value = row.value.as_ref().map_or(String::new(), value_text);
        let named = |kind| -> String {
            let servers = self.quorums.servers().iter().zip(&row.cells).filter(|(_, cell)| **cell == kind);
            listed(servers.map(|(server, _)| server).collect())
        };
        let (accepted, may) = (row.count(Cell::Accepted), row.count(Cell::May));
        let who = match (accepted, may) {
            (0, _) => format!("None has accepted {value} at {}, but {} still may", row.ballot, named(Cell::May)),
            (_, 0) => format!("{} have accepted {value} at {}", named(Cell::Accepted), row.ballot),
            _ => format!(
                "{} accepted {value} at {}, and {} still may",
                named(Cell::Accepted),
                row.ballot,
                named(Cell::May)
            ),
        };
        format!(
            "{who}, so {value} can yet be chosen. While that is so, no proposer may propose anything else above {}. \
             Acceptors that promise a higher ballot before they accept {value} can end it.",
            row.ballot
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot(text: &str) -> Ballot {
        text.parse().unwrap()
    }

    /// Slot 1 of five servers: these votes at 1.1, and these promises.
    fn ballots(votes: &[u8], promised: &[(u8, &str)]) -> Ballots {
        let slot = Slot(1);
        let voters: ServerSet = votes.iter().copied().map(ServerId).collect();
        Ballots {
            quorums: Quorums::majority(ServerSet::first(5)),
            votes: [((slot, ballot("1.1")), (Value::Noop, voters))].into_iter().filter(|_| !votes.is_empty()).collect(),
            proposed: [((slot, ballot("1.1")), Value::Noop)].into(),
            prepared: [(ballot("1.1"), slot), (ballot("2.3"), slot)].into(),
            promised: promised.iter().map(|(server, text)| (ServerId(*server), ballot(text))).collect(),
        }
    }

    fn state_of(ballots: &Ballots) -> RowState {
        ballots.rows(Slot(1)).into_iter().find(|row| row.ballot == ballot("1.1")).unwrap().state
    }

    #[test]
    fn ballot_is_alive_while_a_quorum_has_accepted_or_may() {
        assert_eq!(state_of(&ballots(&[1, 2], &[(3, "2.3"), (4, "2.3")])), RowState::May);
        assert_eq!(state_of(&ballots(&[1, 2], &[(3, "2.3"), (4, "2.3"), (5, "2.3")])), RowState::Never);
        assert_eq!(state_of(&ballots(&[1, 2, 3], &[(3, "2.3"), (4, "2.3"), (5, "2.3")])), RowState::Chosen);
        assert_eq!(state_of(&ballots(&[], &[])), RowState::May);
        assert_eq!(state_of(&ballots(&[], &[(1, "1.1"), (2, "1.1"), (3, "2.3"), (4, "2.3")])), RowState::May);
    }

    #[test]
    fn ballot_without_a_proposal_is_shown_while_one_may_follow() {
        let rows = ballots(&[1, 2], &[(3, "2.3")]).rows(Slot(1));
        assert_eq!((rows[0].ballot, rows[0].state), (ballot("2.3"), RowState::Open));
        let overtaken = [(1, "3.4"), (2, "3.4"), (3, "3.4")];
        assert_eq!(ballots(&[4, 5], &overtaken).rows(Slot(1)).len(), 1, "2.3 can propose nothing any more");
    }

    #[test]
    fn two_chosen_values_are_both_named() {
        let mut ballots = ballots(&[1, 2, 3], &[]);
        let other = Value::Command(paxos_kv::paxos::Command {
            id: paxos_kv::paxos::CommandId::new(1, 1, 1),
            payload: [].as_slice().into(),
        });
        ballots.votes.insert((Slot(1), ballot("2.3")), (Value::Noop, ServerSet::first(5)));
        assert_eq!(ballots.chosen(Slot(1)).len(), 1, "the same value at a later ballot is no other value");
        ballots.votes.insert((Slot(1), ballot("3.4")), (other, ServerSet::first(3)));
        assert_eq!(ballots.chosen(Slot(1)).len(), 2);
        assert!(ballots.slot_sentence(Slot(1)).starts_with("Two values are chosen"));
    }
}
