//! The acceptor: the memory of the protocol.
//!
//! An acceptor obeys two rules. It takes part in nothing below the ballot that it has `promised`, and it reports what
//! it has `accepted` to every later proposer, or that it has forgotten it because it was chosen. Everything that Paxos
//! guarantees follows from a majority that obeys both. So the promise and the accepted values are durable before any
//! message reports them, and a new incarnation begins by replaying them (Paxos Made Simple, PMS, sections 2.2 and 2.3).
//!
//! `Output::persist` only lists a record. `role::turn` makes all records of a batch durable before it sends anything,
//! so also a second PREPARE in the same batch is answered after the first promise is on disk.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::message::ENTRY_OVERHEAD_BYTES;
use super::{Ballot, Entry, Message, NackedRequest, Page, Slot, SlotRange, Value, rules};
use crate::role::{Input, Output, Role, RoleKind, ServerId, ServerSet, TimerSpec};

/// Maximum size of the values in one page of a PROMISE, in bytes; a single larger value gets a page of its own.
pub const PAGE_BYTES: usize = 1 << 20;
/// Maximum number of corrupt ranges in one page, so that a page fits into one message.
const PAGE_CORRUPT_MAX: usize = 1_024;

/// A durable record of an acceptor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AcceptorRecord {
    /// The acceptor promised this ballot.
    Promised(Ballot),
    /// The acceptor accepted this value in this slot at this ballot, which also promises the ballot.
    Accepted(Entry),
    /// The acceptor has forgotten all slots below this one: they are chosen, and the durable checkpoint of its own
    /// server has them.
    Truncated(Slot),
    /// The acceptor stored this value in an unreadable slot. A learner reported it as chosen, at this ballot.
    Repaired(Entry),
    /// What the acceptor accepted in these slots is unreadable. Never written: the journal produces it during recovery.
    /// A promise in an unreadable record is not lost: later records and the file headers repeat it (`docs/storage.md`).
    Corrupt(SlotRange),
}

/// A step of an acceptor, for the log files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AcceptorTraceEvent {
    /// The acceptor promised a ballot.
    Promised {
        /// The sender of the PREPARE, which is the ballot's owner.
        to: ServerId,
        /// The ballot; the acceptor takes part in nothing below it any more.
        ballot: Ballot,
        /// The first slot asked about.
        from: Slot,
        /// The last slot that the answer covers; `None` if it covers all later slots.
        last: Option<Slot>,
        /// The slots reported as accepted, with their ballots.
        accepted: Vec<(Slot, Ballot)>,
    },
    /// The acceptor refused a request.
    Nacked {
        /// The sender of the request.
        to: ServerId,
        /// The refused ballot.
        ballot: Ballot,
        /// The refused request and its first slot.
        refused: NackedRequest,
        /// The higher ballot that the acceptor has promised.
        promised: Ballot,
    },
    /// The acceptor accepted a value.
    Accepted {
        /// The ballot's owner, whose learner counts the votes.
        to: ServerId,
        /// The ballot of the ACCEPT.
        ballot: Ballot,
        /// The slot, one of those in the ACCEPT.
        slot: Slot,
        /// The value; at this ballot no other one is ever accepted in the slot.
        value: Value,
    },
    /// The acceptor has forgotten the slots below this one.
    Truncated {
        /// The first slot that the acceptor still knows.
        below: Slot,
    },
    /// What the acceptor accepted in these slots is unreadable.
    Corrupt {
        /// A run of corrupt slots.
        slots: SlotRange,
    },
    /// A corrupt slot is repaired: it holds the value that was chosen in it.
    Repaired {
        /// The slot, which was corrupt until now.
        slot: Slot,
        /// A ballot at which the value was chosen.
        ballot: Ballot,
    },
}

/// The time-outs of an acceptor: none, because it only answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AcceptorTimer {}

impl TimerSpec for AcceptorTimer {
    fn delay_ms(&self) -> RangeInclusive<u64> {
        match *self {}
    }
}

/// A request from the server to its acceptor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AcceptorRequest {
    /// The server's own checkpoint durably holds every slot below this one, so the acceptor may forget them.
    Truncate {
        /// The first slot to keep.
        below: Slot,
    },
    /// The values chosen in slots that are unreadable here.
    Repair {
        /// Chosen entries, each with a ballot at which it was chosen.
        entries: Vec<Entry>,
    },
}

/// A notification from the acceptor to its server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AcceptorNotification {
    /// These slots are unreadable; the acceptor needs the values chosen in them.
    Corrupt {
        /// All slots that are unreadable now; ranges may overlap.
        slots: Vec<SlotRange>,
    },
}

/// The acceptor of one server. See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acceptor {
    /// The acceptor takes part in nothing below this ballot. It is one ballot for all slots, and it never falls.
    promised: Ballot,
    /// The value that was accepted or repaired last in each slot. Only a repaired value, which is known to be chosen,
    /// may have a ballot above `promised`. If the slot is also among the corrupt ones, a later value is unreadable, and
    /// proposers ignore this one (`promises.rs`).
    accepted: BTreeMap<Slot, (Ballot, Value)>,
    /// All slots below are chosen, applied and durable on this server, and their values are forgotten here. At least 1.
    truncated_below: Slot,
    /// Slots whose accepted value is unreadable.
    corrupt: Vec<SlotRange>,
    /// Maximum size of the values in one page of a PROMISE, in bytes; at least 1.
    page_bytes: usize,
}

impl Acceptor {
    /// An acceptor without any promise or accepted value; [`Role::replay`] restores both from the records.
    #[expect(clippy::new_without_default, reason = "an acceptor without stable storage must not be made by accident")]
    pub fn new() -> Acceptor {
        Acceptor {
            promised: Ballot::ZERO,
            accepted: BTreeMap::new(),
            truncated_below: Slot(1),
            corrupt: Vec::new(),
            page_bytes: PAGE_BYTES,
        }
    }

    /// Sets the page size. With small pages, even a short simulation has promises of many pages.
    pub fn with_page_bytes(self, page_bytes: usize) -> Acceptor {
        Acceptor { page_bytes, ..self }
    }

    /// Ends recovery, after all records are replayed. `durable` is the last slot in the server's checkpoint. If the
    /// acceptor has forgotten later slots, a newer checkpoint was lost. Slots that are neither in the checkpoint nor
    /// among the accepted values become corrupt: to report "nothing accepted" for them would be false. For example, an
    /// acceptor that has forgotten the slots below 3 and finds no checkpoint has the corrupt slots 1 and 2.
    pub fn finish_recovery(mut self, durable: Slot) -> Acceptor {
        let (first, end) = (durable.next(), self.truncated_below);
        if first < end {
            self.truncated_below = first;
            self.corrupt.push(SlotRange { first, last: end.previous() });
            // A slot that was accepted anew after the loss is readable.
            let held: Vec<Slot> = self.accepted.range(first..end).map(|(slot, _)| *slot).collect();
            held.into_iter().for_each(|slot| remove_slot(&mut self.corrupt, slot));
        }
        self.accepted = self.accepted.split_off(&self.truncated_below);
        self
    }

    /// The ballot that the acceptor has promised; `Ballot::ZERO` if it has promised none.
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// The accepted values by slot, each with its ballot.
    pub fn accepted(&self) -> &BTreeMap<Slot, (Ballot, Value)> {
        &self.accepted
    }

    /// The acceptor has forgotten all slots below this one; at least 1.
    pub fn truncated_below(&self) -> Slot {
        self.truncated_below
    }

    /// The slots whose accepted value is unreadable; ranges may overlap.
    pub fn corrupt(&self) -> &[SlotRange] {
        &self.corrupt
    }

    /// PREPARE: promises the ballot unless a higher one is promised, and reports what was accepted from `from` on. An
    /// equal ballot gets an answer again: the first answer may be lost, or the owner requests the next page.
    fn handle_prepare(&mut self, sender: ServerId, ballot: Ballot, from: Slot, out: &mut Output<Self>) {
        // The promise never falls. A lower ballot gets a NACK that names the higher one.
        if !rules::may_promise(ballot, self.promised) {
            return self.refuse(sender, ballot, NackedRequest::Prepare(from), out);
        }
        // Only a new promise needs a disk write. Its record is durable before the PROMISE leaves; otherwise a crash
        // could erase a promise that the proposer already counts.
        if ballot > self.promised {
            self.promised = ballot;
            out.persist(AcceptorRecord::Promised(ballot));
        }
        // PMS P2c: the proposer must learn of every value that may be chosen below its ballot. So the answer reports
        // accepted values whether or not they are known to be chosen. A later page may be read after other ACCEPTs:
        // since the promise, the acceptor has accepted nothing below this ballot.
        let page = self.page(from);
        out.emit_step(|| AcceptorTraceEvent::Promised {
            to: sender,
            ballot,
            from,
            last: page.end.map(Slot::previous),
            accepted: page.accepted.iter().map(|entry| (entry.slot, entry.ballot)).collect(),
        });
        out.send(ServerSet::only(sender), Message::Promise { ballot, page });
    }

    /// The acceptor's report on the slots from `from` on, as much as one message carries. The page says nothing about
    /// later slots: the proposer must not take them for empty.
    fn page(&self, from: Slot) -> Page {
        let (mut accepted, mut room, mut to) = (Vec::new(), self.page_bytes, None);
        for (slot, (ballot, value)) in self.accepted.range(from..) {
            let size = ENTRY_OVERHEAD_BYTES + value.size();
            if size > room && !accepted.is_empty() {
                to = Some(*slot);
                break;
            }
            room = room.saturating_sub(size);
            accepted.push(Entry { slot: *slot, ballot: *ballot, value: value.clone() });
        }
        let mut corrupt: Vec<SlotRange> = self.corrupt.iter().copied().filter(|range| range.last >= from).collect();
        corrupt.sort_by_key(|range| (range.first, range.last));
        // Too many corrupt ranges: the page ends before the next one, but it covers at least one slot, so that the
        // proposer's next request makes progress.
        if let Some(next) = corrupt.get(PAGE_CORRUPT_MAX).map(|range| range.first.max(from.next()))
            && to.is_none_or(|to| next < to)
        {
            to = Some(next);
            accepted.retain(|entry| entry.slot < next);
        }
        if let Some(to) = to {
            corrupt.retain(|range| range.first < to);
            corrupt.iter_mut().for_each(|range| range.last = range.last.min(to.previous()));
        }
        Page { from, end: to, truncated_below: self.truncated_below, accepted, corrupt }
    }

    /// ACCEPT: accepts one value in each slot, and votes. An ACCEPT that begins in forgotten slots and ends in known
    /// ones gets two answers, TRUNCATED and ACCEPTED.
    fn handle_accept(
        &mut self,
        sender: ServerId,
        ballot: Ballot,
        first: Slot,
        values: Vec<Value>,
        out: &mut Output<Self>,
    ) {
        // PMS P1a: accept unless a higher ballot is promised. This test comes first, because a stale proposer must
        // learn of its rival even if the slots were forgotten long ago.
        if !rules::may_accept(ballot, self.promised) {
            return self.refuse(sender, ballot, NackedRequest::Accept(first), out);
        }
        // Forgotten slots are chosen, so they need no more votes. The proposer is told, because its ballot may be older
        // than the one that chose them.
        let below = self.truncated_below;
        if first < below {
            out.send(ServerSet::only(sender), Message::Truncated { ballot, slot: first, below });
        }
        let mut voted: Option<SlotRange> = None;
        for (slot, value) in first.to(Slot::LAST).zip(values).filter(|(slot, _)| *slot >= below) {
            self.accept(ballot, slot, value, out);
            voted = Some(SlotRange { first: voted.map_or(slot, |slots| slots.first), last: slot });
        }
        // The vote goes to the learner of the ballot's owner, which counts it. It leaves after its records are durable:
        // a vote that a crash could undo may already have completed a majority.
        if let Some(slots) = voted {
            out.send(ServerSet::only(ballot.server), Message::Accepted { ballot, slots });
        }
    }

    /// Accepts one value. A value that is already accepted at this ballot needs no new record; the caller then only
    /// repeats the vote.
    fn accept(&mut self, ballot: Ballot, slot: Slot, value: Value, out: &mut Output<Self>) {
        out.emit_step(|| AcceptorTraceEvent::Accepted { to: ballot.server, ballot, slot, value: value.clone() });
        match self.accepted.get(&slot) {
            Some((held_ballot, held)) if *held_ballot == ballot => {
                // One ballot carries one value per slot. Two values mean that a proposer used one ballot for two
                // proposals.
                assert!(*held == value, "ballot {ballot} carries two values for {slot:?}: {held:?} and {value:?}");
            }
            _ => {
                // If the slot was corrupt, its unreadable value has no higher ballot, so the new value replaces it. If
                // it was repaired at a higher ballot, this acceptor did not vote at that ballot, so no majority relies
                // on it.
                remove_slot(&mut self.corrupt, slot);
                // Accepting at b also promises b: afterwards the acceptor takes part in nothing below b.
                self.promised = rules::promised_by_accepting(ballot, self.promised);
                self.accepted.insert(slot, (ballot, value.clone()));
                out.persist(AcceptorRecord::Accepted(Entry { slot, ballot, value }));
            }
        }
    }

    /// Forgets all slots below `below`, which the server's own checkpoint holds. From now on answers name the first
    /// slot that is still known (van Renesse and Altinbuken, Paxos Made Moderately Complex, section 4.2). A forgotten
    /// slot need not be repaired. For the other corrupt slots the acceptor asks again, because no learner may have
    /// known their values before.
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
        // In replay, a record may name a lower slot than the one before it, if a checkpoint was lost in between. Values
        // accepted after the loss must stay, so the cut is at `below` and not at `truncated_below`.
        self.accepted = self.accepted.split_off(&below);
        self.forget_corrupt_slot();
    }

    /// Drops the corrupt slots that are forgotten anyway.
    fn forget_corrupt_slot(&mut self) {
        let first = self.truncated_below;
        self.corrupt.retain(|range| range.last >= first);
        self.corrupt.iter_mut().for_each(|range| range.first = range.first.max(first));
    }

    /// Repairs corrupt slots with the values chosen in them. This is safe whatever the unreadable value was. If its
    /// ballot was lower than the one at which the value was chosen, no proposer that hears of both would adopt it (PMS
    /// P2c). If its ballot was higher, it was the same value (PMS P2b).
    fn repair(&mut self, entries: Vec<Entry>, out: &mut Output<Self>) {
        for Entry { slot, ballot, value } in entries {
            if self.corrupt.iter().any(|range| range.contains(slot)) {
                out.persist(AcceptorRecord::Repaired(Entry { slot, ballot, value: value.clone() }));
                self.store(slot, ballot, value);
                out.emit_step(|| AcceptorTraceEvent::Repaired { slot, ballot });
            }
        }
    }

    /// Puts a chosen value in the place of an unreadable one. This is no vote, so it makes no promise.
    fn store(&mut self, slot: Slot, ballot: Ballot, value: Value) {
        remove_slot(&mut self.corrupt, slot);
        if self.accepted.get(&slot).is_none_or(|(held_ballot, _)| *held_ballot < ballot) {
            self.accepted.insert(slot, (ballot, value));
        }
    }

    fn request_repair(&self, out: &mut Output<Self>) {
        if !self.corrupt.is_empty() {
            out.notify(AcceptorNotification::Corrupt { slots: self.corrupt.clone() });
        }
    }

    /// READ: answers with the highest slot in which a value may have been chosen. Corrupt and forgotten slots count
    /// too.
    fn handle_read(&self, sender: ServerId, id: u128, out: &mut Output<Self>) {
        let last_accepted = self.accepted.keys().next_back().copied().unwrap_or_default();
        let last_corrupt = self.corrupt.iter().map(|range| range.last).max().unwrap_or_default();
        let slot = last_accepted.max(last_corrupt).max(self.truncated_below.previous());
        out.send(ServerSet::only(sender), Message::ReadReply { id, slot });
    }

    /// Refuses with a NACK. Without it, the proposer would need a time-out to find out.
    fn refuse(&self, to: ServerId, ballot: Ballot, refused: NackedRequest, out: &mut Output<Self>) {
        let promised = self.promised;
        out.emit_step(|| AcceptorTraceEvent::Nacked { to, ballot, refused, promised });
        out.send(ServerSet::only(to), Message::Nack { ballot, refused, promised });
    }
}

/// Removes one slot from ranges of slots.
fn remove_slot(ranges: &mut Vec<SlotRange>, slot: Slot) {
    let Some(at) = ranges.iter().position(|range| range.contains(slot)) else { return };
    let SlotRange { first, last } = ranges.remove(at);
    if slot < last {
        ranges.insert(at, SlotRange { first: slot.next(), last });
    }
    if first < slot {
        ranges.insert(at, SlotRange { first, last: slot.previous() });
    }
    // Ranges may overlap, because the journal reports each unreadable group by itself.
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
                // A slot below `truncated_below` appears here only if the checkpoint that held it was lost: see
                // `finish_recovery`.
                self.accepted.insert(slot, (ballot, value));
                remove_slot(&mut self.corrupt, slot);
                ballot
            }
            AcceptorRecord::Truncated(below) => return self.drop_below(below),
            AcceptorRecord::Repaired(Entry { slot, ballot, value }) => return self.store(slot, ballot, value),
            AcceptorRecord::Corrupt(range) => {
                self.corrupt.push(range);
                return self.forget_corrupt_slot();
            }
        };
        assert!(
            ballot >= self.promised,
            "the journal has the promise {} before the lower ballot {ballot}",
            self.promised
        );
        self.promised = ballot;
    }

    fn step(&mut self, input: Input<Self>, out: &mut Output<Self>) {
        match input {
            Input::Start => {
                if self.truncated_below > Slot(1) {
                    out.emit_step(|| AcceptorTraceEvent::Truncated { below: self.truncated_below });
                }
                for slots in &self.corrupt {
                    out.emit_step(|| AcceptorTraceEvent::Corrupt { slots: *slots });
                }
                self.request_repair(out);
            }
            Input::Message { from: sender, message } => match message {
                Message::Prepare { ballot, from } => self.handle_prepare(sender, ballot, from, out),
                Message::Accept { ballot, first, values } => self.handle_accept(sender, ballot, first, values, out),
                Message::Read { id } => self.handle_read(sender, id, out),
                other => debug_assert!(!other.is_for(RoleKind::Acceptor), "the acceptor does not handle {other:?}"),
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
        acceptor.finish_recovery(Slot(checkpoint))
    }

    #[test]
    fn forgotten_slots_are_corrupt_if_their_checkpoint_is_lost() {
        let records = [accepted(1, OLD), accepted(2, OLD), accepted(3, OLD), AcceptorRecord::Truncated(Slot(3))];
        let whole = acceptor(&records, 2);
        assert_eq!((whole.truncated_below(), whole.corrupt()), (Slot(3), [].as_slice()));
        let lost = acceptor(&records, 0);
        assert_eq!(lost.truncated_below(), Slot(1));
        assert_eq!(lost.corrupt(), [SlotRange { first: Slot(1), last: Slot(2) }]);
        assert_eq!(lost.accepted().keys().copied().collect::<Vec<_>>(), [Slot(3)]);
    }

    #[test]
    fn values_accepted_after_a_lost_checkpoint_are_readable() {
        let records = [accepted(2, OLD), AcceptorRecord::Truncated(Slot(3)), accepted(2, NEW)];
        let again = acceptor(&records, 0);
        assert_eq!(again.corrupt(), [SlotRange { first: Slot(1), last: Slot(1) }]);
        assert_eq!(again.accepted().get(&Slot(2)), Some(&(NEW, Value::Noop)));
        // The checkpoint for the slots below 5 was lost; the next incarnation truncated below 2.
        let records = [
            accepted(2, OLD),
            AcceptorRecord::Truncated(Slot(5)),
            accepted(3, NEW),
            AcceptorRecord::Truncated(Slot(2)),
            accepted(4, NEW),
        ];
        let later = acceptor(&records, 1);
        assert_eq!(later.accepted().keys().copied().collect::<Vec<_>>(), [Slot(3), Slot(4)]);
        assert_eq!(later.corrupt(), [SlotRange { first: Slot(2), last: Slot(2) }]);
        // If a checkpoint holds slot 2, the value accepted in it is forgotten, and no slot is corrupt.
        let records = [accepted(2, OLD), AcceptorRecord::Truncated(Slot(3)), accepted(2, NEW)];
        let covered = acceptor(&records, 2);
        assert_eq!((covered.truncated_below(), covered.accepted().len()), (Slot(3), 0));
    }
}
