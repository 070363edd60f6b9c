//! Phase 1 from the proposer's side: gather promises, then find out what they bind it to.
//!
//! This is the heart of Paxos (Paxos Made Simple, section 2.2, P2c): in each slot that any acceptor of a quorum has
//! accepted, the proposer must propose the value of the highest ballot among them. Only where a whole quorum says
//! "nothing accepted here" is the slot free.

use std::collections::BTreeMap;

use super::{Ballot, Entry, Part, Quorums, Slot, SlotRange, Value, rules};
use crate::role::{Server, Servers};

/// The answer of one acceptor, perhaps not yet whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Promise {
    answer: u128,
    count: u32,
    parts: BTreeMap<u32, Vec<Entry>>,
    truncated_below: Slot,
    damaged: Vec<SlotRange>,
}

/// The promises for one ballot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Promises {
    by_acceptor: BTreeMap<Server, Promise>,
}

/// What a quorum of promises binds a proposer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    /// The acceptors whose whole answers it rests on.
    pub quorum: Servers,
    /// The first slot to propose in: all below are chosen, and applied here or forgotten by an acceptor.
    pub first: Slot,
    /// The last slot that must be proposed in; just before `first` if there is none. Those behind it are free.
    pub last: Slot,
    /// In each of these slots this value, and the ballot at which it was accepted.
    pub adopted: BTreeMap<Slot, (Ballot, Value)>,
}

impl Promises {
    /// Takes one part of an acceptor's answer. Parts of two answers are never mixed: a newer answer replaces an older.
    pub(super) fn add(
        &mut self,
        acceptor: Server,
        part: Part,
        accepted: Vec<Entry>,
        truncated_below: Slot,
        damaged: Vec<SlotRange>,
    ) {
        let Part { answer, index, count } = part;
        let new = || Promise { answer, count, parts: BTreeMap::new(), truncated_below, damaged };
        let promise = match self.by_acceptor.get_mut(&acceptor) {
            Some(promise) if promise.answer > answer => return,
            Some(promise) if promise.answer == answer => promise,
            _ => {
                self.by_acceptor.insert(acceptor, new());
                match self.by_acceptor.get_mut(&acceptor) {
                    Some(promise) => promise,
                    None => unreachable!("it was inserted a line ago"),
                }
            }
        };
        if index < promise.count {
            promise.parts.insert(index, accepted);
        }
    }

    /// The acceptors whose answer is whole.
    fn complete(&self) -> Servers {
        let is_whole = |promise: &Promise| promise.parts.len() as u32 == promise.count;
        let whole = self.by_acceptor.iter().filter(|(_, promise)| is_whole(promise));
        whole.map(|(acceptor, _)| *acceptor).collect()
    }

    /// What the promises bind the proposer to in all slots from `from` to `fill` and in those reported beyond, or None
    /// while there is no quorum of definite answers for one of them or for the `own` slots behind.
    pub(super) fn bound(&self, quorums: &Quorums, from: Slot, fill: Option<Slot>, own: u64) -> Option<Bound> {
        let quorum = self.complete();
        if !quorums.is_prepared(quorum) {
            return None;
        }
        let answers = || quorum.iter().filter_map(|acceptor| self.by_acceptor.get(&acceptor));
        let forgotten = answers().map(|promise| promise.truncated_below).max().unwrap_or(from);
        let first = forgotten.max(from);
        let mut adopted: BTreeMap<Slot, (Ballot, Value)> = BTreeMap::new();
        let reported = answers().flat_map(|promise| promise.parts.values().flatten());
        for Entry { slot, ballot, value } in reported.filter(|entry| entry.slot >= first) {
            match adopted.get(slot) {
                Some((held, _)) if !rules::overrules(*ballot, *held) => {}
                _ => {
                    adopted.insert(*slot, (*ballot, value.clone()));
                }
            }
        }
        let last = adopted.keys().next_back().copied().max(fill).unwrap_or_default().max(first.previous());
        let definite = self.is_definite(quorums, quorum, first, last.plus(own));
        definite.then_some(Bound { quorum, first, last, adopted })
    }

    /// Whether for each of these slots a quorum knows for certain what it has accepted. "Damaged" is no such answer.
    fn is_definite(&self, quorums: &Quorums, complete: Servers, first: Slot, last: Slot) -> bool {
        let damaged = |acceptor: Server| self.by_acceptor.get(&acceptor).into_iter().flat_map(|one| &one.damaged);
        let knows = |acceptor: Server, slot| !damaged(acceptor).any(|range| range.contains(slot));
        // Who knows what changes only where a damaged run begins or is over.
        let edges = complete.iter().flat_map(damaged).flat_map(|range| [range.first, range.last.next()]);
        let mut slots = edges.chain([first]).filter(|slot| first <= *slot && *slot <= last);
        slots.all(|slot| quorums.is_prepared(complete.iter().filter(|acceptor| knows(*acceptor, slot)).collect()))
    }
}
