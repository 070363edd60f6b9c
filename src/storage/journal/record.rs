//! What the journal needs to know about its records.

use super::sector::AcceptedRange;
use crate::paxos::{Ballot, Slot, SlotRange};

/// A kind of record. A journal keeps one kind, and numbers its records from 1, starting with the oldest that is still
/// present.
pub trait Record: Sized {
    /// Appends the bytes of the record, which has this number.
    fn encode(&self, number: u64, bytes: &mut Vec<u8>);

    /// Decodes the record of this number. The error is the end of a sentence.
    fn decode(bytes: &[u8], number: u64) -> Result<Self, String>;

    /// The slot that is lost if the record of this number is corrupt.
    fn slot(&self, number: u64) -> Option<Slot>;

    /// What the record binds its role to.
    fn bound(&self) -> PromiseFloor;

    /// A record that marks these slots as lost. None if no other server has their values.
    fn corrupt(slots: SlotRange) -> Option<Self>;

    /// Records for what the removed files bound the role to and the other records do not.
    fn restate(removed: PromiseFloor, others: PromiseFloor) -> Vec<Self>;
}

/// What a role is bound to. The header of a segment holds it for all earlier segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromiseFloor {
    /// The role accepts nothing below this ballot.
    pub promised: Ballot,
    /// All slots below are truncated.
    pub below: Slot,
}

impl PromiseFloor {
    /// Bound to nothing.
    pub const NONE: PromiseFloor = PromiseFloor { promised: Ballot::ZERO, below: Slot(1) };

    pub(super) fn and(self, other: PromiseFloor) -> PromiseFloor {
        PromiseFloor { promised: self.promised.max(other.promised), below: self.below.max(other.below) }
    }

    /// The floor of all these records.
    pub(super) fn by<R: Record>(records: &[R]) -> PromiseFloor {
        records.iter().map(R::bound).fold(PromiseFloor::NONE, PromiseFloor::and)
    }
}

/// The smallest range that covers both.
pub(super) fn union(one: AcceptedRange, other: AcceptedRange) -> AcceptedRange {
    match (one, other) {
        (Some(a), Some(b)) => Some(SlotRange { first: a.first.min(b.first), last: a.last.max(b.last) }),
        (a, b) => a.or(b),
    }
}

/// Appends the records to `payload`, each after its length, and returns their slots. The first record has number
/// `first`.
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

/// Splits the payload of a commit into its records, and appends them to `records`.
pub(super) fn decode<R: Record>(mut payload: &[u8], records: &mut Vec<R>) -> Result<(), String> {
    while !payload.is_empty() {
        let record = payload.split_first_chunk::<4>().and_then(|(length, rest)| {
            let length = u32::from_le_bytes(*length) as usize;
            rest.split_at_checked(length)
        });
        let Some((record, rest)) = record else { return Err("a record ends after the end of its commit".to_string()) };
        records.push(R::decode(record, records.len() as u64 + 1)?);
        payload = rest;
    }
    Ok(())
}
