//! Malformed journals with correct checksums, for tests and fuzzing: bytes with a valid checksum are not trusted
//! either.

use std::collections::BTreeMap;

use super::file_name;
use super::record::{PromiseFloor, encode};
use super::sector::{
    AcceptedRange, FIRST_OF_COMMIT, GroupHeader, Header, LAST_OF_COMMIT, Seal, Seed, SegmentBase, VERSION,
};
use crate::choices::Choices;
use crate::paxos::{AcceptorRecord, Ballot, Slot, SlotRange};
use crate::role::ServerId;
use crate::storage::disk::SECTOR_BYTES;

/// The storage id in the malformed journals.
pub const OWNER: u64 = 0x5eed;

/// The files of a journal that is well formed unless the choices say otherwise.
pub fn forge(source: &mut Choices<'_>) -> BTreeMap<String, Vec<u8>> {
    let mut image = BTreeMap::new();
    let mut before = GroupTotals { group: 1, slots: None };
    let count = 1 + u32::from(source.below(3));
    for number in 1..=count {
        let segment = segment(source, number, number == count, &mut before);
        image.insert(file_name(source.twist(number.into()) as u32 % 1_000), segment);
    }
    image
}

/// The state after the groups written so far.
struct GroupTotals {
    /// The number of the next group.
    group: u64,
    slots: AcceptedRange,
}

fn segment(source: &mut Choices<'_>, number: u32, is_last: bool, before: &mut GroupTotals) -> Vec<u8> {
    let sectors = 4 + usize::from(source.below(5));
    let base = SegmentBase {
        oldest: source.twist(1) as u32,
        oldest_group: source.twist(1),
        bound: PromiseFloor {
            promised: Ballot { round: source.twist(0), server: ServerId(0) },
            below: Slot(source.twist(1)),
        },
    };
    let header = Header {
        version: source.twist(VERSION.into()) as u32,
        segment: source.twist(number.into()) as u32,
        follows: source.twist(u64::from(number) - 1) as u32,
        bytes: source.twist((sectors * SECTOR_BYTES) as u64),
        owner: source.twist(OWNER),
        first_group: source.twist(before.group),
        slots_before: slots(source, before.slots),
        base,
    };
    let seed = Seed::new(OWNER, number);
    let mut groups = Vec::new();
    while groups.len() + 2 * SECTOR_BYTES < sectors * SECTOR_BYTES {
        match source.below(8) {
            0 => break,
            1 => groups.resize(groups.len() + SECTOR_BYTES, 0),
            2 => groups.resize(groups.len() + SECTOR_BYTES, 0xa5),
            _ => group(source, seed, before, &mut groups),
        }
    }
    let seal = match source.twist(u64::from(!is_last)) {
        0 => [0; SECTOR_BYTES],
        _ => Seal { last_group: source.twist(before.group.wrapping_sub(1)), slots: slots(source, before.slots) }
            .write(seed),
    };
    let mut bytes = [&header.write()[..], &seal, &groups].concat();
    bytes.resize(sectors * SECTOR_BYTES, 0);
    bytes
}

/// Appends a group, of which some sectors may be missing.
fn group(source: &mut Choices<'_>, seed: Seed, before: &mut GroupTotals, groups: &mut Vec<u8>) {
    let mut payload = Vec::new();
    let mut of_records = None;
    match source.below(4) {
        0 => payload.extend_from_slice(source.bytes()),
        _ => {
            let records: Vec<AcceptorRecord> = (0..1 + source.below(3)).map(|_| source.record()).collect();
            of_records = encode(&records, 1, &mut payload);
        }
    }
    payload.resize(payload.len().max(1), 0);
    let group = GroupHeader {
        number: source.twist(before.group),
        length: source.twist(payload.len() as u64) as u32,
        flags: source.twist(u64::from(FIRST_OF_COMMIT | LAST_OF_COMMIT)) as u32,
        slots: slots(source, of_records),
        slots_before: slots(source, before.slots),
    };
    let start = groups.len();
    group.write(&payload, seed, 2 + start / SECTOR_BYTES, groups);
    let lost = usize::from(source.below(16));
    if lost < 4 && lost * SECTOR_BYTES < groups.len() - start && source.below(2) == 1 {
        let at = start + lost * SECTOR_BYTES;
        groups[at..at + SECTOR_BYTES].fill(if source.below(2) == 0 { 0 } else { 0x5a });
    }
    *before = GroupTotals { group: group.number.wrapping_add(1), slots: group.slots };
}

fn slots(source: &mut Choices<'_>, right: AcceptedRange) -> AcceptedRange {
    match source.twist(0) {
        0 => right,
        first => Some(SlotRange { first: Slot(first), last: Slot(source.twist(first).max(first)) }),
    }
}
