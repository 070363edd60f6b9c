//! Phase 1 from the proposer's side: gather promises, then find out what they bind it to.
//!
//! This is the heart of Paxos (*Paxos Made Simple*, section 2.2, P2c): in each slot that any acceptor of a quorum has
//! accepted, the proposer must propose the value of the highest ballot among them. Only where a whole quorum says
//! "nothing accepted here" is the slot free.
//!
//! One promise is for all slots, and its answer may be larger than any message. So it comes in pages, which the
//! proposer asks for one after the other: what is under way never grows with what was accepted. A slot is *settled* as
//! soon as a quorum has answered for that slot, whatever is still to come of others, and the proposer may propose in
//! it. Slots beyond the pages that were heard are unknown, and not free. Pages of one ballot may be of different
//! moments: after the promise nothing below the ballot is accepted there any more. Pages of two ballots are never put
//! together.

use std::collections::BTreeMap;

use super::{Ballot, Entry, Page, Quorums, Slot, SlotRange, Value, rules};
use crate::role::{ServerId, ServerSet};

/// A page that has not come after so many ticks (of 100 ms) is asked for again, and of all acceptors.
const PAGE_TICKS: u64 = 2;

/// What one acceptor has answered so far: pages from the ballot's first slot on, without a gap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct PromiseReply {
    /// The first slot that it has not spoken of; None if it has spoken of all.
    to: Option<Slot>,
    damaged: Vec<SlotRange>,
    /// The tick when the page behind was asked for; None if it was not.
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
    /// All slots below were chosen: an acceptor has forgotten them.
    truncated_below: Slot,
    /// The acceptors whose pages are enough, and are asked for.
    asked: ServerSet,
    /// What the pages bind to and was not taken, with the highest ballot heard for each slot.
    adopted: BTreeMap<Slot, (Ballot, Value)>,
    /// Of the values in it.
    bytes: usize,
    /// No more pages are asked for while so many bytes wait to be proposed, but those that settle the next slot.
    ahead_bytes: usize,
}

impl Promises {
    /// Those for a ballot that was prepared from this slot on, which read so many bytes ahead.
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

    /// Takes a page, if it is the one that comes next of this acceptor; true if it is. What it says of slots below
    /// `next` is of no use any more.
    pub(super) fn add(&mut self, acceptor: ServerId, page: Page, next: Slot, quorums: &Quorums) -> bool {
        let Page { from, to, truncated_below, accepted, damaged } = page;
        self.truncated_below = self.truncated_below.max(truncated_below);
        let expected = self.by_acceptor.get(&acceptor).map_or(Some(self.from), |answer| answer.to);
        if expected != Some(from) || to.is_some_and(|to| to <= from) {
            return false;
        }
        let is_covered = |slot: Slot| slot >= from && to.is_none_or(|to| slot < to);
        for Entry { slot, ballot, value } in accepted.into_iter().filter(|entry| is_covered(entry.slot)) {
            // Where its disk has lost something it may have accepted another value later: the others say what is bound
            // there.
            if slot >= next && !damaged.iter().any(|range| range.contains(slot)) {
                self.adopt(slot, ballot, value);
            }
        }
        let answer = self.by_acceptor.entry(acceptor).or_default();
        (answer.to, answer.asked_at) = (to, None);
        answer.damaged.retain(|range| range.last >= next);
        answer.damaged.extend(damaged);
        if !quorums.is_prepared(self.asked) {
            self.asked.insert(acceptor);
        }
        true
    }

    fn adopt(&mut self, slot: Slot, ballot: Ballot, value: Value) {
        let held = self.adopted.get(&slot).map(|(held, _)| *held);
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

    /// All slots below were chosen: an acceptor that has promised has forgotten them.
    pub(super) fn truncated_below(&self) -> Slot {
        self.truncated_below
    }

    /// The acceptors that have answered for this slot for certain. "Damaged" is no such answer, and silence neither.
    pub(super) fn settle(&self, slot: Slot) -> ServerSet {
        let has_answered = |answer: &PromiseReply| answer.to.is_none_or(|to| slot < to);
        let knows = |answer: &PromiseReply| !answer.damaged.iter().any(|range| range.contains(slot));
        let settle = self.by_acceptor.iter().filter(|(_, answer)| has_answered(answer) && knows(answer));
        settle.map(|(acceptor, _)| *acceptor).collect()
    }

    /// The acceptors that have answered for all slots, and for certain for those from `first` to `last`.
    pub(super) fn settle_all(&self, first: Slot, last: Slot) -> ServerSet {
        let knows =
            |answer: &PromiseReply| !answer.damaged.iter().any(|range| range.last >= first && range.first <= last);
        let whole = self.by_acceptor.iter().filter(|(_, answer)| answer.to.is_none() && knows(answer));
        whole.map(|(acceptor, _)| *acceptor).collect()
    }

    /// Bytes of the values that wait to be proposed.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The last slot that was heard to be bound, and was not taken.
    pub(super) fn last(&self) -> Option<Slot> {
        self.adopted.keys().next_back().copied()
    }

    /// Takes out what the slot is bound to; None if nothing. Ask only for a slot that a quorum settles.
    pub(super) fn take(&mut self, slot: Slot) -> Option<(Ballot, Value)> {
        let adopted = self.adopted.remove(&slot)?;
        self.bytes -= adopted.1.size();
        Some(adopted)
    }

    /// The slots below are chosen: they are of no interest any more.
    pub(super) fn drop_below(&mut self, below: Slot) {
        while let Some(first) = self.adopted.first_entry().filter(|first| *first.key() < below) {
            self.bytes -= first.remove().1.size();
        }
    }

    /// The pages to be asked for at this tick, each of whom and from which slot on: of slots below `next` none is. One
    /// page of an acceptor is under way at a time. Who is ahead of the others waits until there is room; who is needed
    /// to settle the next slot does not.
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

    /// The first that make a quorum are asked for pages; all, if one of those is late; and others in the place of those
    /// that cannot read what is to be settled.
    fn ask_more(&mut self, now: u64, next: Slot, quorums: &Quorums) {
        let asked = self.asked;
        if self.by_acceptor.iter().any(|(acceptor, answer)| asked.contains(*acceptor) && answer.is_late(now)) {
            self.asked = self.promised();
        }
        let knows = |answer: &PromiseReply| answer.damaged.iter().all(|range| range.last < next);
        let of_help = self.by_acceptor.iter().filter(|(_, answer)| knows(answer));
        let helpful: ServerSet = of_help.map(|(acceptor, _)| *acceptor).collect();
        for acceptor in helpful.without(self.asked).iter() {
            if quorums.is_prepared(self.asked.and(helpful)) {
                return;
            }
            self.asked.insert(acceptor);
        }
    }
}
