//! The promises of phase 1: they are collected here, and they determine the safe value of each slot.
//!
//! This is the heart of Paxos (*Paxos Made Simple*, section 2.2, P2c). In a slot that any acceptor of a quorum has
//! accepted, the proposer must propose the value of the highest ballot among them. The slot is free only where a whole
//! quorum reports "nothing accepted here".
//!
//! One promise is for all slots, and its report may be larger than any message. So the report comes in pages, which the
//! proposer requests one after the other. What is in flight never grows with what was accepted. A slot is *settled* as
//! soon as a quorum has answered for it, whatever is still missing of others, and the proposer may propose in it. Slots
//! beyond the received pages are unknown, not free. Pages of one ballot may be from different moments, because after
//! the promise the acceptor accepts nothing below that ballot. Pages of two ballots are never combined.

use std::collections::BTreeMap;

use super::{Ballot, Entry, Page, Quorums, Slot, SlotRange, Value, rules};
use crate::role::{ServerId, ServerSet};

/// A page that has not arrived after this many ticks of 100 ms is requested again, and from all acceptors.
const PAGE_TICKS: u64 = 2;

/// The answer of one acceptor so far: pages from the ballot's first slot on, without a gap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct PromiseReply {
    /// The first slot not covered yet; `None` if all slots are covered.
    to: Option<Slot>,
    corrupt: Vec<SlotRange>,
    /// The tick when the next page was requested; `None` if it was not.
    asked_at: Option<u64>,
}

impl PromiseReply {
    fn is_late(&self, now: u64) -> bool {
        self.asked_at.is_some_and(|at| now - at >= PAGE_TICKS)
    }
}

/// The promises for one ballot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Promises {
    /// The ballot's first slot.
    from: Slot,
    by_acceptor: BTreeMap<ServerId, PromiseReply>,
    /// All slots below are chosen: an acceptor has forgotten them.
    truncated_below: Slot,
    /// The acceptors whose pages are requested; they are enough to settle every slot.
    asked: ServerSet,
    /// The safe values that were not taken yet: for each slot the value of the highest ballot reported.
    adopted: BTreeMap<Slot, (Ballot, Value)>,
    /// Size of these values, in bytes.
    bytes: usize,
    /// While this many bytes wait to be proposed, only pages that settle the next slot are requested.
    ahead_bytes: usize,
}

impl Promises {
    /// For a ballot that was prepared from this slot on; at most about `ahead_bytes` are read ahead.
    pub(super) fn new(from: Slot, ahead_bytes: usize) -> Promises {
        Promises {
            ahead_bytes,
            from,
            by_acceptor: BTreeMap::new(),
            truncated_below: Slot(1),
            asked: ServerSet::NONE,
            adopted: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Takes a page if it is the acceptor's next one; returns whether it is. What the page reports of slots below
    /// `next` is no longer needed.
    pub(super) fn add(&mut self, acceptor: ServerId, page: Page, next: Slot, quorums: &Quorums) -> bool {
        let Page { from, end: to, truncated_below, accepted, corrupt } = page;
        self.truncated_below = self.truncated_below.max(truncated_below);
        let expected = self.by_acceptor.get(&acceptor).map_or(Some(self.from), |answer| answer.to);
        if expected != Some(from) || to.is_some_and(|to| to <= from) {
            return false;
        }
        let is_covered = |slot: Slot| slot >= from && to.is_none_or(|to| slot < to);
        for Entry { slot, ballot, value } in accepted.into_iter().filter(|entry| is_covered(entry.slot)) {
            // Where the acceptor's disk has lost something, it may have accepted another value later. So its value does
            // not count, and the other acceptors must settle the slot.
            if slot >= next && !corrupt.iter().any(|range| range.contains(slot)) {
                self.adopt(slot, ballot, value);
            }
        }
        let answer = self.by_acceptor.entry(acceptor).or_default();
        (answer.to, answer.asked_at) = (to, None);
        answer.corrupt.retain(|range| range.last >= next);
        answer.corrupt.extend(corrupt);
        if !quorums.is_phase1_quorum(self.asked) {
            self.asked.insert(acceptor);
        }
        true
    }

    fn adopt(&mut self, slot: Slot, ballot: Ballot, value: Value) {
        let held = self.adopted.get(&slot).map(|(held, _)| *held);
        // PMS P2c: of the values reported for one slot, only that of the highest ballot can be chosen, so it replaces
        // the others.
        if held.is_none_or(|held| rules::overrules(ballot, held)) {
            self.bytes += value.size();
            if let Some((_, before)) = self.adopted.insert(slot, (ballot, value)) {
                self.bytes -= before.size();
            }
        }
    }

    /// The acceptors that have promised.
    pub(super) fn promised(&self) -> ServerSet {
        self.by_acceptor.keys().copied().collect()
    }

    /// All slots below are chosen: an acceptor that has promised has forgotten them.
    pub(super) fn truncated_below(&self) -> Slot {
        self.truncated_below
    }

    /// The acceptors that have definitely answered for this slot. "Corrupt" is no such answer, and a missing page is
    /// none either.
    pub(super) fn settle(&self, slot: Slot) -> ServerSet {
        let has_answered = |answer: &PromiseReply| answer.to.is_none_or(|to| slot < to);
        let knows = |answer: &PromiseReply| !answer.corrupt.iter().any(|range| range.contains(slot));
        let settle = self.by_acceptor.iter().filter(|(_, answer)| has_answered(answer) && knows(answer));
        settle.map(|(acceptor, _)| *acceptor).collect()
    }

    /// The acceptors that have answered for all slots, and definitely for those from `first` to `last`.
    pub(super) fn settle_all(&self, first: Slot, last: Slot) -> ServerSet {
        let knows =
            |answer: &PromiseReply| !answer.corrupt.iter().any(|range| range.last >= first && range.first <= last);
        let whole = self.by_acceptor.iter().filter(|(_, answer)| answer.to.is_none() && knows(answer));
        whole.map(|(acceptor, _)| *acceptor).collect()
    }

    /// Bytes of the values that wait to be proposed.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The last slot with a safe value that was not taken.
    pub(super) fn last(&self) -> Option<Slot> {
        self.adopted.keys().next_back().copied()
    }

    /// The safe value of the slot, as far as promises have reported one and it was not taken.
    pub(super) fn reported(&self, slot: Slot) -> Option<&(Ballot, Value)> {
        self.adopted.get(&slot)
    }

    /// Takes the safe value of the slot; `None` if none was reported. Call it only for a slot that a quorum settles.
    pub(super) fn take(&mut self, slot: Slot) -> Option<(Ballot, Value)> {
        let adopted = self.adopted.remove(&slot)?;
        self.bytes -= adopted.1.size();
        Some(adopted)
    }

    /// Drops the values of the slots below, which are chosen.
    pub(super) fn drop_below(&mut self, below: Slot) {
        while let Some(first) = self.adopted.first_entry().filter(|first| *first.key() < below) {
            self.bytes -= first.remove().1.size();
        }
    }

    /// The pages to request at this tick: each with its acceptor and first slot, which is not below `next`. One page of
    /// an acceptor is in flight at a time. An acceptor that is ahead of the others waits until there is room; one that
    /// is needed to settle the next slot does not wait.
    pub(super) fn ask(&mut self, now: u64, next: Slot, quorums: &Quorums) -> Vec<(ServerId, Slot)> {
        self.ask_more(now, next, quorums);
        let (asked, has_room) = (self.asked, self.bytes < self.ahead_bytes);
        let mut pages = Vec::new();
        for (acceptor, answer) in self.by_acceptor.iter_mut().filter(|(acceptor, _)| asked.contains(**acceptor)) {
            if let Some(to) = answer.to
                && (answer.is_late(now) || answer.asked_at.is_none() && (has_room || to <= next))
            {
                let from = to.max(next);
                (answer.to, answer.asked_at) = (Some(from), Some(now));
                pages.push((*acceptor, from));
            }
        }
        pages
    }

    /// Selects the acceptors whose pages are requested: the first that make a quorum, or all if one of them is late.
    /// Acceptors with corrupt slots that must be settled are joined by others.
    fn ask_more(&mut self, now: u64, next: Slot, quorums: &Quorums) {
        let asked = self.asked;
        if self.by_acceptor.iter().any(|(acceptor, answer)| asked.contains(*acceptor) && answer.is_late(now)) {
            self.asked = self.promised();
        }
        let knows = |answer: &PromiseReply| answer.corrupt.iter().all(|range| range.last < next);
        let of_help = self.by_acceptor.iter().filter(|(_, answer)| knows(answer));
        let helpful: ServerSet = of_help.map(|(acceptor, _)| *acceptor).collect();
        for acceptor in helpful.without(self.asked).iter() {
            if quorums.is_phase1_quorum(self.asked.and(helpful)) {
                return;
            }
            self.asked.insert(acceptor);
        }
    }
}
