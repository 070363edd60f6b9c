//! The acceptor: the memory of the protocol.
//!
//! An acceptor keeps two promises. It takes part in nothing below the ballot that it has `promised`; and it tells every
//! later proposer what it has `accepted`. Everything that Paxos guarantees follows from a majority keeping both, so
//! both are records: they are durable before a word of them leaves, and a new life begins by replaying them (Paxos Made
//! Simple, sections 2.2 and 2.3).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::{Ballot, Entry, Message, NackedRequest, Page, Slot, SlotRange, Value, rules};
use crate::role::{Input, Output, Role, RoleKind, ServerId, ServerSet, TimerSpec};

/// The values of one page of a PROMISE take about this many bytes at most, unless a single one is larger.
pub const PAGE_BYTES: usize = 1 << 20;
/// One page names at most so many runs of damaged slots.
const PAGE_DAMAGED_MAX: usize = 1_024;

/// What an acceptor must never forget.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AcceptorRecord {
    /// It promised this ballot.
    Promised(Ballot),
    /// It accepted this value in this slot at this ballot, which it thereby promised too.
    Accepted(Entry),
    /// It has forgotten all slots below this one: they are chosen, and in the durable checkpoint of its own server.
    Truncated(Slot),
    /// A slot that it could not read any more holds this value, which was chosen at this ballot.
    Repaired(Entry),
    /// What it accepted in these slots cannot be read any more. Never written: the disk says so when it is read.
    Corrupt(SlotRange),
}

/// A step of an acceptor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AcceptorTraceEvent {
    /// It promised.
    Promised {
        /// To the ballot's owner.
        to: ServerId,
        /// The ballot.
        ballot: Ballot,
        /// The first slot of interest.
        from: Slot,
        /// The last slot that the answer speaks of; None if it speaks of all.
        last: Option<Slot>,
        /// The slots reported as accepted, with their ballots.
        accepted: Vec<(Slot, Ballot)>,
    },
    /// It refused.
    Nacked {
        /// The sender of the request.
        to: ServerId,
        /// The ballot refused.
        ballot: Ballot,
        /// What was refused.
        refused: NackedRequest,
        /// The ballot that it is bound to.
        promised: Ballot,
    },
    /// It accepted.
    Accepted {
        /// The ballot's owner, whose learner counts.
        to: ServerId,
        /// The ballot.
        ballot: Ballot,
        /// The slot.
        slot: Slot,
        /// The value.
        value: Value,
    },
    /// It has forgotten the slots below this one.
    Truncated {
        /// The first slot that it still knows.
        below: Slot,
    },
    /// It cannot read what it accepted in these slots.
    Corrupt {
        /// The slots.
        slots: SlotRange,
    },
    /// It holds again what it could not read.
    Repaired {
        /// The slot.
        slot: Slot,
        /// A ballot at which it was chosen.
        ballot: Ballot,
    },
}

/// An acceptor needs no time-outs: it only answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AcceptorTimer {}

impl TimerSpec for AcceptorTimer {
    fn delay_ms(&self) -> RangeInclusive<u64> {
        match *self {}
    }
}

/// What a server asks of its acceptor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AcceptorRequest {
    /// The server's own checkpoint holds every slot below this one, durably: they may be forgotten.
    Truncate {
        /// The first slot to keep.
        below: Slot,
    },
    /// What was chosen in slots that cannot be read any more.
    Repair {
        /// The slots, each with a ballot at which it was chosen.
        entries: Vec<Entry>,
    },
}

/// What an acceptor tells its server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AcceptorNotification {
    /// It cannot read these slots any more, and would like to know what was chosen in them.
    Corrupt {
        /// The slots.
        slots: Vec<SlotRange>,
    },
}

/// The acceptor of one server. See the head of its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acceptor {
    /// It takes part in nothing below this ballot. One ballot for all slots; never falls.
    promised: Ballot,
    /// The highest-ballot value accepted in each slot; each ballot is at most `promised`.
    accepted: BTreeMap<Slot, (Ballot, Value)>,
    /// All slots below are chosen, applied and durable on this server, and their values forgotten here. At least 1.
    truncated_below: Slot,
    /// Slots whose accepted value cannot be read.
    damaged: Vec<SlotRange>,
    /// The values of one page of a promise take about so many bytes at most; at least 1.
    page_bytes: usize,
}

impl Acceptor {
    /// An acceptor that knows nothing yet; [`Role::replay`] gives it its memory back.
    #[expect(clippy::new_without_default, reason = "an acceptor with no memory is nothing to be had by accident")]
    pub fn new() -> Acceptor {
        Acceptor {
            promised: Ballot::ZERO,
            accepted: BTreeMap::new(),
            truncated_below: Slot(1),
            damaged: Vec::new(),
            page_bytes: PAGE_BYTES,
        }
    }

    /// The same with smaller pages: a simulation of a few commands meets promises of many pages as well.
    pub fn with_page_bytes(self, page_bytes: usize) -> Acceptor {
        Acceptor { page_bytes, ..self }
    }

    /// The same, whose memory is complete, on a server whose durable checkpoint holds every slot up to this one. If it
    /// has forgotten more, that checkpoint was lost: what is in neither is damaged, for it is not true that nothing was
    /// accepted there, and not true either that somebody who asks this server can have it.
    pub fn with_checkpoint(mut self, durable: Slot) -> Acceptor {
        let (first, end) = (durable.next(), self.truncated_below);
        if first < end {
            self.truncated_below = first;
            self.damaged.push(SlotRange { first, last: end.previous() });
            let held: Vec<Slot> = self.accepted.range(first..end).map(|(slot, _)| *slot).collect();
            held.into_iter().for_each(|slot| remove_slot(&mut self.damaged, slot));
        }
        self.accepted = self.accepted.split_off(&self.truncated_below);
        self
    }

    /// The ballot that it is bound to.
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// What it has accepted.
    pub fn accepted(&self) -> &BTreeMap<Slot, (Ballot, Value)> {
        &self.accepted
    }

    /// All slots below are forgotten; at least 1.
    pub fn truncated_below(&self) -> Slot {
        self.truncated_below
    }

    /// Slots that it cannot read.
    pub fn damaged(&self) -> &[SlotRange] {
        &self.damaged
    }

    /// PREPARE: promise the ballot unless a higher one is promised, and report what was accepted from `from` on. An
    /// equal ballot is answered again: the first answer may be lost, or its owner asks for the next page.
    fn handle_prepare(&mut self, sender: ServerId, ballot: Ballot, from: Slot, out: &mut Output<Self>) {
        if !rules::may_promise(ballot, self.promised) {
            return self.refuse(sender, ballot, NackedRequest::Prepare(from), out);
        }
        assert!(ballot >= self.promised, "promises never fall");
        if ballot > self.promised {
            self.promised = ballot;
            out.persist(AcceptorRecord::Promised(ballot));
        }
        let page = self.page(from);
        out.emit_step(|| AcceptorTraceEvent::Promised {
            to: sender,
            ballot,
            from,
            last: page.to.map(Slot::previous),
            accepted: page.accepted.iter().map(|entry| (entry.slot, entry.ballot)).collect(),
        });
        out.send(ServerSet::only(sender), Message::Promise { ballot, page });
    }

    /// What there is to say of the slots from `from` on, as far as one message carries it. Beyond the page nothing is
    /// said: its reader must not take that for "nothing accepted".
    fn page(&self, from: Slot) -> Page {
        let (mut accepted, mut room, mut to) = (Vec::new(), self.page_bytes, None);
        for (slot, (ballot, value)) in self.accepted.range(from..) {
            let size = 24 + value.size();
            if size > room && !accepted.is_empty() {
                to = Some(*slot);
                break;
            }
            room = room.saturating_sub(size);
            accepted.push(Entry { slot: *slot, ballot: *ballot, value: value.clone() });
        }
        let mut damaged: Vec<SlotRange> = self.damaged.iter().copied().filter(|range| range.last >= from).collect();
        damaged.sort_by_key(|range| (range.first, range.last));
        if let Some(next) = damaged.get(PAGE_DAMAGED_MAX).map(|range| range.first.max(from.next()))
            && to.is_none_or(|to| next < to)
        {
            to = Some(next);
            accepted.retain(|entry| entry.slot < next);
        }
        if let Some(to) = to {
            damaged.retain(|range| range.first < to);
            damaged.iter_mut().for_each(|range| range.last = range.last.min(to.previous()));
        }
        Page { from, to, truncated_below: self.truncated_below, accepted, damaged }
    }

    /// ACCEPT: accept unless a higher ballot is promised. The ballot is tested first: a stale proposer must hear of its
    /// rival even about slots that are long forgotten.
    fn handle_accept(
        &mut self,
        sender: ServerId,
        ballot: Ballot,
        first: Slot,
        values: Vec<Value>,
        out: &mut Output<Self>,
    ) {
        if !rules::may_accept(ballot, self.promised) {
            return self.refuse(sender, ballot, NackedRequest::Accept(first), out);
        }
        let below = self.truncated_below;
        if first < below {
            out.send(ServerSet::only(sender), Message::Truncated { ballot, slot: first, below });
        }
        let mut accepted: Option<SlotRange> = None;
        for (slot, value) in first.to(Slot::LAST).zip(values).filter(|(slot, _)| *slot >= below) {
            self.accept(ballot, slot, value, out);
            accepted = Some(SlotRange { first: accepted.map_or(slot, |slots| slots.first), last: slot });
        }
        if let Some(slots) = accepted {
            out.send(ServerSet::only(ballot.server), Message::Accepted { ballot, slots });
        }
    }

    /// Accepts one value; what was accepted already is only said again.
    fn accept(&mut self, ballot: Ballot, slot: Slot, value: Value, out: &mut Output<Self>) {
        out.emit_step(|| AcceptorTraceEvent::Accepted { to: ballot.server, ballot, slot, value: value.clone() });
        match self.accepted.get(&slot) {
            Some((held, before)) if *held == ballot => {
                assert!(*before == value, "ballot {ballot} carries two values for {slot:?}: {before:?} and {value:?}");
            }
            _ => {
                // Whatever the disk has lost of this slot was accepted below: this is what counts from now on.
                remove_slot(&mut self.damaged, slot);
                // Accepting binds like promising: whoever accepted at b takes no part below b.
                assert!(rules::may_accept(ballot, self.promised), "promises never fall");
                self.promised = rules::promised_by_accepting(ballot, self.promised);
                self.accepted.insert(slot, (ballot, value.clone()));
                out.persist(AcceptorRecord::Accepted(Entry { slot, ballot, value }));
            }
        }
    }

    /// The own checkpoint holds every slot below: forget them, and say from now on where what is known begins (van
    /// Renesse and Altinbuken, Paxos Made Moderately Complex, section 4.2). A slot that could not be read no longer
    /// matters then; about the others the learner is asked.
    fn truncate(&mut self, below: Slot, out: &mut Output<Self>) {
        if below > self.truncated_below {
            self.drop_below(below);
            out.persist(AcceptorRecord::Truncated(below));
            out.emit_step(|| AcceptorTraceEvent::Truncated { below });
        }
        self.request_repair(out);
    }

    fn drop_below(&mut self, below: Slot) {
        self.truncated_below = self.truncated_below.max(below);
        // A record may say less than one before it: between the two a checkpoint was lost, and what was accepted since
        // stays.
        self.accepted = self.accepted.split_off(&below);
        self.forget_damage();
    }

    /// That a slot cannot be read does not matter once it is forgotten.
    fn forget_damage(&mut self) {
        let first = self.truncated_below;
        self.damaged.retain(|range| range.last >= first);
        self.damaged.iter_mut().for_each(|range| range.first = range.first.max(first));
    }

    /// What was chosen in slots that cannot be read. To hold a chosen value at a ballot at which it was chosen is right
    /// whatever was accepted here: a lower ballot is overruled, and a higher one carries the same value (P2b).
    fn repair(&mut self, entries: Vec<Entry>, out: &mut Output<Self>) {
        for Entry { slot, ballot, value } in entries {
            if self.damaged.iter().any(|range| range.contains(slot)) {
                out.persist(AcceptorRecord::Repaired(Entry { slot, ballot, value: value.clone() }));
                self.store(slot, ballot, value);
                out.emit_step(|| AcceptorTraceEvent::Repaired { slot, ballot });
            }
        }
    }

    /// Holds a chosen value in place of what cannot be read. The promise stays what it is.
    fn store(&mut self, slot: Slot, ballot: Ballot, value: Value) {
        remove_slot(&mut self.damaged, slot);
        if self.accepted.get(&slot).is_none_or(|(before, _)| *before < ballot) {
            self.accepted.insert(slot, (ballot, value));
        }
    }

    fn request_repair(&self, out: &mut Output<Self>) {
        if !self.damaged.is_empty() {
            out.notify(AcceptorNotification::Corrupt { slots: self.damaged.clone() });
        }
    }

    /// READ: how far may a value have been chosen? A damaged slot may have been accepted here, so it counts.
    fn handle_read(&self, sender: ServerId, id: u128, out: &mut Output<Self>) {
        let accepted = self.accepted.keys().next_back().copied().unwrap_or_default();
        let damaged = self.damaged.iter().map(|range| range.last).max().unwrap_or_default();
        let slot = accepted.max(damaged).max(self.truncated_below.previous());
        out.send(ServerSet::only(sender), Message::ReadReply { id, slot });
    }

    /// A refusal is always said: silence would cost the proposer a time-out to learn the same.
    fn refuse(&self, to: ServerId, ballot: Ballot, refused: NackedRequest, out: &mut Output<Self>) {
        let promised = self.promised;
        out.emit_step(|| AcceptorTraceEvent::Nacked { to, ballot, refused, promised });
        out.send(ServerSet::only(to), Message::Nack { ballot, refused, promised });
    }
}

/// Takes one slot out of some runs.
fn remove_slot(ranges: &mut Vec<SlotRange>, slot: Slot) {
    let Some(at) = ranges.iter().position(|range| range.contains(slot)) else { return };
    let SlotRange { first, last } = ranges.remove(at);
    if slot < last {
        ranges.insert(at, SlotRange { first: slot.next(), last });
    }
    if first < slot {
        ranges.insert(at, SlotRange { first, last: slot.previous() });
    }
    // Runs that overlap all lose it.
    remove_slot(ranges, slot);
}

impl Role for Acceptor {
    type Message = Message;
    type Record = AcceptorRecord;
    type Timer = AcceptorTimer;
    type Request = AcceptorRequest;
    type Notification = AcceptorNotification;
    type TraceEvent = AcceptorTraceEvent;

    fn replay(&mut self, record: AcceptorRecord) {
        let ballot = match record {
            AcceptorRecord::Promised(ballot) => ballot,
            AcceptorRecord::Accepted(Entry { slot, ballot, value }) => {
                // Below what is forgotten only if a checkpoint was lost since: see `with_checkpoint`.
                self.accepted.insert(slot, (ballot, value));
                remove_slot(&mut self.damaged, slot);
                ballot
            }
            AcceptorRecord::Truncated(below) => return self.drop_below(below),
            AcceptorRecord::Repaired(Entry { slot, ballot, value }) => return self.store(slot, ballot, value),
            AcceptorRecord::Corrupt(range) => {
                self.damaged.push(range);
                return self.forget_damage();
            }
        };
        assert!(ballot >= self.promised, "the journal says {} was promised before {ballot}", self.promised);
        self.promised = ballot;
    }

    fn step(&mut self, input: Input<Self>, out: &mut Output<Self>) {
        match input {
            Input::Start => {
                if self.truncated_below > Slot(1) {
                    out.emit_step(|| AcceptorTraceEvent::Truncated { below: self.truncated_below });
                }
                for slots in &self.damaged {
                    out.emit_step(|| AcceptorTraceEvent::Corrupt { slots: *slots });
                }
                self.request_repair(out);
            }
            Input::Message { from: sender, message } => match message {
                Message::Prepare { ballot, from } => self.handle_prepare(sender, ballot, from, out),
                Message::Accept { ballot, first, values } => self.handle_accept(sender, ballot, first, values, out),
                Message::Read { id } => self.handle_read(sender, id, out),
                other => debug_assert!(!other.is_for(RoleKind::Acceptor), "nobody takes {other:?}"),
            },
            Input::Timeout(timer) => match timer {},
            Input::Request(AcceptorRequest::Truncate { below }) => self.truncate(below, out),
            Input::Request(AcceptorRequest::Repair { entries }) => self.repair(entries, out),
        }
    }
}

#[cfg(test)]
#[path = "acceptor_memory_tests.rs"]
mod memory_tests;

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Ballot = Ballot { round: 1, server: ServerId(1) };
    const NEW: Ballot = Ballot { round: 2, server: ServerId(2) };

    fn accepted(slot: u64, ballot: Ballot) -> AcceptorRecord {
        AcceptorRecord::Accepted(Entry { slot: Slot(slot), ballot, value: Value::Noop })
    }

    fn acceptor(records: &[AcceptorRecord], checkpoint: u64) -> Acceptor {
        let mut acceptor = Acceptor::new();
        records.iter().for_each(|record| acceptor.replay(record.clone()));
        acceptor.with_checkpoint(Slot(checkpoint))
    }

    #[test]
    fn what_was_forgotten_for_a_checkpoint_that_is_lost_is_damaged() {
        let records = [accepted(1, OLD), accepted(2, OLD), accepted(3, OLD), AcceptorRecord::Truncated(Slot(3))];
        let whole = acceptor(&records, 2);
        assert_eq!((whole.truncated_below(), whole.damaged()), (Slot(3), [].as_slice()));
        let lost = acceptor(&records, 0);
        assert_eq!(lost.truncated_below(), Slot(1));
        assert_eq!(lost.damaged(), [SlotRange { first: Slot(1), last: Slot(2) }]);
        assert_eq!(lost.accepted().keys().copied().collect::<Vec<_>>(), [Slot(3)]);
    }

    #[test]
    fn what_was_accepted_since_the_checkpoint_was_lost_is_known() {
        let records = [accepted(2, OLD), AcceptorRecord::Truncated(Slot(3)), accepted(2, NEW)];
        let again = acceptor(&records, 0);
        assert_eq!(again.damaged(), [SlotRange { first: Slot(1), last: Slot(1) }]);
        assert_eq!(again.accepted().get(&Slot(2)), Some(&(NEW, Value::Noop)));
        // The next life said what its own checkpoint held, which was less.
        let records = [
            accepted(2, OLD),
            AcceptorRecord::Truncated(Slot(5)),
            accepted(3, NEW),
            AcceptorRecord::Truncated(Slot(2)),
            accepted(4, NEW),
        ];
        let later = acceptor(&records, 1);
        assert_eq!(later.accepted().keys().copied().collect::<Vec<_>>(), [Slot(3), Slot(4)]);
        assert_eq!(later.damaged(), [SlotRange { first: Slot(2), last: Slot(2) }]);
        let records = [accepted(2, OLD), AcceptorRecord::Truncated(Slot(3)), accepted(2, NEW)];
        // A checkpoint that has come back holds it too.
        let covered = acceptor(&records, 2);
        assert_eq!((covered.truncated_below(), covered.accepted().len()), (Slot(3), 0));
    }
}
