//! The acceptor: the memory of the protocol.
//!
//! An acceptor keeps two promises. It takes part in nothing below the ballot that it has `promised`; and it tells every
//! later proposer what it has `accepted`. Everything that Paxos guarantees follows from a majority keeping both, so both
//! are records: they are durable before a word of them leaves, and a new life begins by replaying them (Paxos Made
//! Simple, sections 2.2 and 2.3).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::{Ballot, Entry, Life, Message, Part, Refused, Slot, SlotRange, Value};
use crate::museum::{self, Bug};
use crate::role::{Input, Output, Role, Server, Servers, Timed};

/// The values of one part of a PROMISE take about this many bytes at most, unless a single one is larger.
pub const PROMISE_PART_BYTES: usize = 1 << 20;

/// What an acceptor must never forget.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AcceptorRecord {
    /// It promised this ballot.
    Promised(Ballot),
    /// It accepted this value in this slot at this ballot, which it thereby promised too.
    Accepted(Entry),
}

/// A step of an acceptor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AcceptorFact {
    /// It promised.
    Promised {
        /// To the ballot's owner.
        to: Server,
        /// The ballot.
        ballot: Ballot,
        /// The first slot of interest.
        from: Slot,
        /// The slots reported as accepted, with their ballots.
        accepted: Vec<(Slot, Ballot)>,
    },
    /// It refused.
    Nacked {
        /// The sender of the request.
        to: Server,
        /// The ballot refused.
        ballot: Ballot,
        /// What was refused.
        refused: Refused,
        /// The ballot that it is bound to.
        promised: Ballot,
    },
    /// It accepted.
    Accepted {
        /// The ballot's owner, whose learner counts.
        to: Server,
        /// The ballot.
        ballot: Ballot,
        /// The slot.
        slot: Slot,
        /// The value.
        value: Value,
    },
}

/// An acceptor needs no time-outs: it only answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AcceptorTimer {}

impl Timed for AcceptorTimer {
    fn delay_ms(&self) -> RangeInclusive<u64> {
        match *self {}
    }
}

/// Nothing is asked of an acceptor but by message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AcceptorRequest {}

/// An acceptor tells its own server nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AcceptorOutcome {}

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
    /// This life's share of answer numbers.
    life: Life,
    /// How many promises this life has given.
    answers: u64,
    /// The values of one part of a promise take about so many bytes at most; at least 1.
    part_bytes: usize,
}

impl Acceptor {
    /// An acceptor that knows nothing yet; [`Role::replay`] gives it its memory back.
    pub fn new(life: Life) -> Acceptor {
        Acceptor {
            promised: Ballot::ZERO,
            accepted: BTreeMap::new(),
            truncated_below: Slot(1),
            damaged: Vec::new(),
            life,
            answers: 0,
            part_bytes: PROMISE_PART_BYTES,
        }
    }

    /// The same with smaller parts: a simulation of a few commands meets promises in parts as well.
    pub fn with_part_bytes(self, part_bytes: usize) -> Acceptor {
        Acceptor { part_bytes, ..self }
    }

    /// The ballot that it is bound to.
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// What it has accepted.
    pub fn accepted(&self) -> &BTreeMap<Slot, (Ballot, Value)> {
        &self.accepted
    }

    /// PREPARE: promise the ballot unless a higher one is promised, and report every accepted value from `from` on. An
    /// equal ballot is a resend: answered again, since the first answer may be lost.
    fn handle_prepare(&mut self, sender: Server, ballot: Ballot, from: Slot, out: &mut Output<Self>) {
        if ballot < self.promised {
            return self.refuse(sender, ballot, Refused::Prepare(from), out);
        }
        assert!(ballot >= self.promised, "promises never fall");
        if ballot > self.promised {
            if museum::is(Bug::PromiseClears) {
                self.accepted.clear();
            }
            self.promised = ballot;
            if !museum::is(Bug::B02) {
                out.persist(AcceptorRecord::Promised(ballot));
            }
        }
        out.fact(|| AcceptorFact::Promised {
            to: sender,
            ballot,
            from,
            accepted: self.accepted.range(from..).map(|(slot, (ballot, _))| (*slot, *ballot)).collect(),
        });
        self.promise(sender, ballot, from, out);
    }

    /// Sends the answer in as many parts as frames need, all cut from the state of this moment.
    fn promise(&mut self, to: Server, ballot: Ballot, from: Slot, out: &mut Output<Self>) {
        let told = if museum::is(Bug::PromiseWithoutValue) { 0 } else { usize::MAX };
        let accepted = self.accepted.range(from..).take(told).map(|(slot, (ballot, value))| Entry {
            slot: *slot,
            ballot: if museum::is(Bug::B06) { self.promised } else { *ballot },
            value: value.clone(),
        });
        let parts = cut(accepted, self.part_bytes);
        self.answers += 1;
        let answer = self.life.number(self.answers);
        let count = parts.len() as u32;
        for (index, accepted) in parts.into_iter().enumerate() {
            let part = Part { answer, index: index as u32, count };
            let damaged = self.damaged.clone();
            let truncated_below = self.truncated_below;
            out.send(Servers::only(to), Message::Promise { ballot, part, truncated_below, accepted, damaged });
        }
    }

    /// ACCEPT: accept unless a higher ballot is promised. The ballot is tested first: a stale proposer must hear of its
    /// rival even about slots that are long forgotten.
    fn handle_accept(
        &mut self,
        sender: Server,
        ballot: Ballot,
        first: Slot,
        values: Vec<Value>,
        out: &mut Output<Self>,
    ) {
        let is_equal_refused = museum::is(Bug::EqualBallotRefused) && ballot == self.promised;
        if (ballot < self.promised && !museum::is(Bug::AcceptBelowPromise)) || is_equal_refused {
            return self.refuse(sender, ballot, Refused::Accept(first), out);
        }
        let below = self.truncated_below;
        if first < below {
            out.send(Servers::only(sender), Message::Truncated { ballot, slot: first, below });
        }
        let mut accepted: Option<SlotRange> = None;
        for (slot, value) in (first.0..).map(Slot).zip(values).filter(|(slot, _)| *slot >= below) {
            self.accept(ballot, slot, value, out);
            accepted = Some(SlotRange { first: accepted.map_or(slot, |slots| slots.first), last: slot });
        }
        if let Some(slots) = accepted {
            out.send(Servers::only(ballot.server), Message::Accepted { ballot, slots });
        }
    }

    /// Accepts one value; what was accepted already is only said again.
    fn accept(&mut self, ballot: Ballot, slot: Slot, value: Value, out: &mut Output<Self>) {
        out.fact(|| AcceptorFact::Accepted { to: ballot.server, ballot, slot, value: value.clone() });
        match self.accepted.get(&slot) {
            Some((held, before)) if *held == ballot => {
                assert!(*before == value, "ballot {ballot} carries two values for {slot:?}: {before:?} and {value:?}");
            }
            _ => {
                // Accepting binds like promising: whoever accepted at b takes no part below b.
                assert!(ballot >= self.promised || museum::is(Bug::AcceptBelowPromise), "promises never fall");
                self.promised = if museum::is(Bug::B05) { self.promised } else { ballot };
                if museum::is(Bug::AcceptedIsCleared) {
                    self.accepted.retain(|other, _| *other >= slot);
                }
                self.accepted.insert(slot, (ballot, value.clone()));
                if !museum::is(Bug::B02A) {
                    out.persist(AcceptorRecord::Accepted(Entry { slot, ballot, value }));
                }
            }
        }
    }

    /// READ: how far may a value have been chosen? A damaged slot may have been accepted here, so it counts.
    fn handle_read(&self, sender: Server, id: u64, out: &mut Output<Self>) {
        let accepted = self.accepted.keys().next_back().copied().unwrap_or_default();
        let damaged = self.damaged.iter().map(|range| range.last).max().unwrap_or_default();
        let slot = accepted.max(damaged).max(self.truncated_below.previous());
        out.send(Servers::only(sender), Message::ReadAnswer { id, slot });
    }

    /// A refusal is always said: silence would cost the proposer a time-out to learn the same.
    fn refuse(&self, to: Server, ballot: Ballot, refused: Refused, out: &mut Output<Self>) {
        let promised = self.promised;
        out.fact(|| AcceptorFact::Nacked { to, ballot, refused, promised });
        out.send(Servers::only(to), Message::Nack { ballot, refused, promised });
    }
}

/// Cuts entries into parts of about so many bytes; at least one part, perhaps empty.
fn cut(entries: impl Iterator<Item = Entry>, part_bytes: usize) -> Vec<Vec<Entry>> {
    let mut parts = vec![Vec::new()];
    let mut room = part_bytes;
    for entry in entries {
        let size = 24 + entry.value.size();
        let last = parts.len() - 1;
        if size > room && !parts[last].is_empty() {
            parts.push(vec![entry]);
            room = part_bytes.saturating_sub(size);
        } else {
            parts[last].push(entry);
            room = room.saturating_sub(size);
        }
    }
    parts
}

impl Role for Acceptor {
    type Message = Message;
    type Record = AcceptorRecord;
    type Timer = AcceptorTimer;
    type Request = AcceptorRequest;
    type Outcome = AcceptorOutcome;
    type Fact = AcceptorFact;

    fn replay(&mut self, record: AcceptorRecord) {
        let ballot = match record {
            AcceptorRecord::Promised(ballot) => ballot,
            AcceptorRecord::Accepted(Entry { slot, ballot, value }) => {
                self.accepted.insert(slot, (ballot, value));
                ballot
            }
        };
        assert!(ballot >= self.promised, "the journal says {} was promised before {ballot}", self.promised);
        self.promised = ballot;
    }

    fn step(&mut self, input: Input<Self>, out: &mut Output<Self>) {
        match input {
            Input::Start => {}
            Input::Message { from: sender, message } => match message {
                Message::Prepare { ballot, from } => self.handle_prepare(sender, ballot, from, out),
                Message::Accept { ballot, first, values } => self.handle_accept(sender, ballot, first, values, out),
                Message::Read { id } => self.handle_read(sender, id, out),
                // Not for an acceptor; see Message::heard_by.
                Message::Promise { .. }
                | Message::Nack { .. }
                | Message::Truncated { .. }
                | Message::Accepted { .. }
                | Message::Chosen { .. }
                | Message::Beat { .. }
                | Message::CatchUp { .. }
                | Message::Entries { .. }
                | Message::ReadAnswer { .. }
                | Message::Fill { .. }
                | Message::Forward { .. }
                | Message::Refused { .. }
                | Message::Heartbeat { .. }
                | Message::HeartbeatAnswer { .. }
                | Message::Relay { .. }
                | Message::PreVote { .. }
                | Message::PreVoteAnswer { .. } => {}
            },
            Input::Timeout(timer) => match timer {},
            Input::Request(request) => match request {},
        }
    }
}
