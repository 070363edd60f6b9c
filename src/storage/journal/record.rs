//! What the journal must know of the records that it keeps.

use super::sector::AcceptedRange;
use crate::paxos::{Ballot, Slot, SlotRange};

/// A kind of record. A journal keeps one kind, and numbers its records from 1: those that are still there.
pub trait Record: Sized {
    /// Appends the bytes of the record, which has this number.
    fn encode(&self, number: u64, bytes: &mut Vec<u8>);

    /// The record of this number, from its bytes. The error is the end of a sentence.
    fn decode(bytes: &[u8], number: u64) -> Result<Self, String>;

    /// The slot that is damaged where the record of this number is.
    fn slot(&self, number: u64) -> Option<Slot>;

    /// What it binds its role to.
    fn bound(&self) -> PromiseFloor;

    /// Stands for what was recorded of these slots and can no longer be read. None if no other server can say it again.
    fn damaged(slots: SlotRange) -> Option<Self>;

    /// The removed files have bound the role to something: says again what the other records do not say.
    fn restate(removed: PromiseFloor, others: PromiseFloor) -> Vec<Self>;
}

/// What a role is bound to, as the header of a segment says it of all segments before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromiseFloor {
    /// It takes part in nothing below this ballot.
    pub promised: Ballot,
    /// It has forgotten all slots below.
    pub below: Slot,
}

impl PromiseFloor {
    /// To nothing.
    pub const NONE: PromiseFloor = PromiseFloor { promised: Ballot::ZERO, below: Slot(1) };

    pub(super) fn and(self, other: PromiseFloor) -> PromiseFloor {
        PromiseFloor { promised: self.promised.max(other.promised), below: self.below.max(other.below) }
    }

    /// By all of these records.
    pub(super) fn by<R: Record>(records: &[R]) -> PromiseFloor {
        records.iter().map(R::bound).fold(PromiseFloor::NONE, PromiseFloor::and)
    }
}

/// The lowest to the highest slot of both.
pub(super) fn union(one: AcceptedRange, other: AcceptedRange) -> AcceptedRange {
    match (one, other) {
        (Some(a), Some(b)) => Some(SlotRange { first: a.first.min(b.first), last: a.last.max(b.last) }),
        (a, b) => a.or(b),
    }
}

/// The records as bytes, each behind its length, and the slots that they are of. The first of them has this number.
pub(super) fn encode<R: Record>(records: &[R], first: u64, payload: &mut Vec<u8>) -> AcceptedRange {
    let mut slots = None;
    for (number, record) in (first..).zip(records) {
        let start = payload.len();
        payload.extend_from_slice(&[0; 4]);
        record.encode(number, payload);
        let length = (payload.len() - start - 4) as u32;
        payload[start..start + 4].copy_from_slice(&length.to_le_bytes());
        slots = union(slots, record.slot(number).map(|slot| SlotRange { first: slot, last: slot }));
    }
    slots
}

/// Cuts the payload of a commit into its records, and adds them to those before.
pub(super) fn decode<R: Record>(mut payload: &[u8], records: &mut Vec<R>) -> Result<(), String> {
    while !payload.is_empty() {
        let record = payload.split_first_chunk::<4>().and_then(|(length, rest)| {
            let length = u32::from_le_bytes(*length) as usize;
            rest.split_at_checked(length)
        });
        let Some((record, rest)) = record else { return Err("a record ends behind its commit".to_string()) };
        records.push(R::decode(record, records.len() as u64 + 1)?);
        payload = rest;
    }
    Ok(())
}
