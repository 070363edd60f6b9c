//! Bytes read as a series of choices. After the end of the bytes, every choice is the simplest one.

use crate::paxos::{AcceptorRecord, Ballot, Command, CommandId, Entry, Slot, SlotRange, Value};
use crate::role::ServerId;

/// The choices left.
pub struct Choices<'a> {
    left: &'a [u8],
    /// Whether [`Choices::twist`] has changed a number.
    has_twisted: bool,
}

impl<'a> Choices<'a> {
    pub fn new(bytes: &'a [u8]) -> Choices<'a> {
        Choices { left: bytes, has_twisted: false }
    }

    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.left.split_first() else { return 0 };
        self.left = rest;
        *first
    }

    pub fn below(&mut self, count: u8) -> u8 {
        self.byte() % count
    }

    /// A number, small more often than huge.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            255 => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
            small => small.into(),
        }
    }

    /// Usually the right number, sometimes another.
    pub fn twist(&mut self, right: u64) -> u64 {
        let number = match self.byte() {
            near @ 224..=239 => right.wrapping_add(near.into()).wrapping_sub(232),
            240..=255 => self.number(),
            _ => right,
        };
        self.has_twisted |= number != right;
        number
    }

    /// Whether [`Choices::twist`] has changed a number.
    pub fn has_twisted(&self) -> bool {
        self.has_twisted
    }

    /// The next bytes; the first byte is their number.
    pub fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.left.len());
        let (bytes, rest) = self.left.split_at(length);
        self.left = rest;
        bytes
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.left)
    }

    pub fn ballot(&mut self) -> Ballot {
        Ballot { round: self.number() & Ballot::LAST_ROUND, server: ServerId(self.below(5)) }
    }

    /// Any valid slot.
    pub fn slot(&mut self) -> Slot {
        Slot(self.number() & Slot::LAST.0)
    }

    pub fn value(&mut self) -> Value {
        match self.byte() {
            0 => Value::Noop,
            length => {
                // At most a few sectors long.
                let payload = vec![length; usize::from(length) * 8].into();
                Value::Command(Command { id: CommandId::new(self.number(), 0, self.number()), payload })
            }
        }
    }

    /// An acceptor record of any kind and with any content.
    pub fn record(&mut self) -> AcceptorRecord {
        let kind = self.below(8);
        let mut entry = || Entry { slot: self.slot(), ballot: self.ballot(), value: self.value() };
        match kind {
            0..=2 => AcceptorRecord::Accepted(entry()),
            3 => AcceptorRecord::Repaired(entry()),
            4 => AcceptorRecord::Truncated(self.slot()),
            5 => {
                let first = self.slot();
                AcceptorRecord::Corrupt(SlotRange { first, last: first.plus(self.number()).min(Slot::LAST) })
            }
            _ => AcceptorRecord::Promised(self.ballot()),
        }
    }
}
