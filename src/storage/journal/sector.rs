//! The journal's bytes on disk.
//!
//! A segment is a file of fixed length, cut into sectors of 512 bytes. All numbers are little endian, and every sector
//! starts with the crc32c of its other 508 bytes. The checksum of all sectors but the header is seeded with the
//! segment's number and its owner. Those of a group's sectors are also seeded with their place in the segment. So a
//! sector from another server, another segment or another place is never valid here.
//!
//! ```text
//! sector 0  header  at  4 magic "PaxosJnl"  12 version, 4  16 segment, 4  20 segment before, 4  24 file length, 8
//!                      32 owner, 8   40 first group, 8   48 slots of the group before it, 16
//!                      64 oldest segment needed, 4   68 server and 72 round promised, 4 and 8   80 truncated below, 8
//!                      88 first group of the oldest segment, 8
//! sector 1  seal    at  4 magic "PaxosEnd"   12 last group, 8   20 its slots, 16       (all zero: the segment is open)
//! sector 2+ group   at  4 index, 4    8 payload bytes of the group, 4   12 flags, 4   16 group, 8
//!                      24 slots, 16   40 slots of the group before, 16   56 payload, 456
//! ```
//!
//! A *group* is what one write and one sync make durable: adjacent sectors, numbered by index. A commit is one group,
//! or several if it is larger than a segment; the flags mark its first and its last. Its payload is a sequence of
//! records, each after its length (4 bytes). A group's slots are the lowest and the highest of its records (1 and 0 if
//! it has none). Neighboring sectors repeat them, so that they are known when sectors are corrupt.

use super::record::PromiseFloor;
use crate::paxos::{Ballot, Slot, SlotRange};
use crate::role::ServerId;
use crate::storage::disk::SECTOR_BYTES;

/// The version of this layout.
pub(super) const VERSION: u32 = 4;
/// Payload bytes of one sector.
pub(super) const PAYLOAD_BYTES: usize = SECTOR_BYTES - PAYLOAD_AT;
/// The first sector of a segment that holds groups.
pub(super) const FIRST_SECTOR: usize = 2;
/// Flag: the group is the first of its commit.
pub(super) const FIRST_OF_COMMIT: u32 = 1;
/// Flag: the group is the last of its commit.
pub(super) const LAST_OF_COMMIT: u32 = 2;

/// The highest group number that is valid; groups are numbered from 1, and no journal reaches this one.
const GROUP_MAX: u64 = u64::MAX >> 8;

const PAYLOAD_AT: usize = 56;
const HEADER_MAGIC: &[u8; 8] = b"PaxosJnl";
const SEAL_MAGIC: &[u8; 8] = b"PaxosEnd";

/// A sector's bytes.
pub(super) type Sector = [u8; SECTOR_BYTES];
/// The range from the lowest to the highest slot of a group's accepted values; None if it only holds promises.
pub(super) type AcceptedRange = Option<SlotRange>;

/// The seed of a segment's checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seed(u32);

impl Seed {
    pub(super) fn new(owner: u64, segment: u32) -> Seed {
        Seed(crc32c::crc32c_append(crc32c::crc32c(&owner.to_le_bytes()), &segment.to_le_bytes()))
    }

    /// The seed of the sector at index `place` in the segment.
    pub(super) fn at(self, place: usize) -> Seed {
        Seed(crc32c::crc32c_append(self.0, &(place as u32).to_le_bytes()))
    }

    /// The seed of the header, which is read before anything is known.
    pub(super) const HEADER: Seed = Seed(0);

    fn checksum(self, sector: &[u8]) -> u32 {
        crc32c::crc32c_append(self.0, &sector[4..SECTOR_BYTES])
    }

    /// Writes the checksum of a sector whose other bytes are final.
    pub(super) fn close(self, sector: &mut [u8]) {
        let sum = self.checksum(sector);
        sector[..4].copy_from_slice(&sum.to_le_bytes());
    }

    fn holds(self, sector: &[u8]) -> bool {
        number::<4>(sector, 0) == u64::from(self.checksum(sector))
    }
}

/// The first sector of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub version: u32,
    pub segment: u32,
    /// The previous segment, 0 if there is none. Segments numbered in between were replaced by this one.
    pub follows: u32,
    /// Length of the file, in bytes.
    pub bytes: u64,
    /// The storage id of the server.
    pub owner: u64,
    pub first_group: u64,
    /// The slots of the group before the first.
    pub slots_before: AcceptedRange,
    /// The state of the journal when the segment was made.
    pub base: SegmentBase,
}

/// What is known when a segment is made, so that earlier segments may be corrupt or missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentBase {
    /// The oldest segment that is needed; older segments were removed on purpose.
    pub oldest: u32,
    /// The first group in that segment.
    pub oldest_group: u64,
    /// What the role was bound to.
    pub bound: PromiseFloor,
}

impl Header {
    pub(super) fn write(&self) -> Sector {
        let mut sector = [0; SECTOR_BYTES];
        sector[4..12].copy_from_slice(HEADER_MAGIC);
        put(&mut sector, 12, &self.version.to_le_bytes());
        put(&mut sector, 16, &self.segment.to_le_bytes());
        put(&mut sector, 20, &self.follows.to_le_bytes());
        put(&mut sector, 24, &self.bytes.to_le_bytes());
        put(&mut sector, 32, &self.owner.to_le_bytes());
        put(&mut sector, 40, &self.first_group.to_le_bytes());
        put_slots(&mut sector, 48, self.slots_before);
        put(&mut sector, 64, &self.base.oldest.to_le_bytes());
        put(&mut sector, 68, &u32::from(self.base.bound.promised.server.0).to_le_bytes());
        put(&mut sector, 72, &self.base.bound.promised.round.to_le_bytes());
        put(&mut sector, 80, &self.base.bound.below.0.to_le_bytes());
        put(&mut sector, 88, &self.base.oldest_group.to_le_bytes());
        Seed::HEADER.close(&mut sector);
        sector
    }

    /// The header, or an error if the sector is corrupt or never was a header.
    pub(super) fn read(sector: &[u8]) -> Result<Header, CorruptSector> {
        if !Seed::HEADER.holds(sector) || sector[4..12] != *HEADER_MAGIC {
            return Err(CorruptSector);
        }
        let header = Header {
            version: number::<4>(sector, 12) as u32,
            segment: number::<4>(sector, 16) as u32,
            follows: number::<4>(sector, 20) as u32,
            bytes: number::<8>(sector, 24),
            owner: number::<8>(sector, 32),
            first_group: number::<8>(sector, 40),
            slots_before: slots(sector, 48),
            base: SegmentBase {
                oldest: number::<4>(sector, 64) as u32,
                oldest_group: number::<8>(sector, 88),
                bound: PromiseFloor {
                    promised: Ballot { round: number::<8>(sector, 72), server: ServerId(sector[68]) },
                    below: Slot(number::<8>(sector, 80)),
                },
            },
        };
        let is_sane = is_group(header.first_group) && is_group(header.base.oldest_group);
        if is_sane { Ok(header) } else { Err(CorruptSector) }
    }
}

/// The second sector of a segment, written once there is a next segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    pub last_group: u64,
    /// The slots of that group.
    pub slots: AcceptedRange,
}

impl Seal {
    pub(super) fn write(&self, seed: Seed) -> Sector {
        let mut sector = [0; SECTOR_BYTES];
        sector[4..12].copy_from_slice(SEAL_MAGIC);
        put(&mut sector, 12, &self.last_group.to_le_bytes());
        put_slots(&mut sector, 20, self.slots);
        seed.close(&mut sector);
        sector
    }

    /// The seal, None if the segment is open, or an error if the sector is corrupt.
    pub(super) fn read(sector: &[u8], seed: Seed) -> Result<Option<Seal>, CorruptSector> {
        if is_zero(sector) {
            return Ok(None);
        }
        if !seed.holds(sector) || sector[4..12] != *SEAL_MAGIC {
            return Err(CorruptSector);
        }
        let seal = Seal { last_group: number::<8>(sector, 12), slots: slots(sector, 20) };
        if seal.last_group <= GROUP_MAX { Ok(Some(seal)) } else { Err(CorruptSector) }
    }
}

/// The sector holds something that was never written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CorruptSector;

/// The fields that every sector of a group repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupHeader {
    pub number: u64,
    /// Payload bytes, at least 1.
    pub length: u32,
    pub flags: u32,
    pub slots: AcceptedRange,
    pub slots_before: AcceptedRange,
}

/// One of a segment's sectors for groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupSector {
    Valid { index: u32, group: GroupHeader },
    Zero,
    Corrupt,
}

impl GroupHeader {
    /// Number of sectors for a payload of this length.
    pub(super) fn sectors_of(length: usize) -> usize {
        length.div_ceil(PAYLOAD_BYTES)
    }

    pub(super) fn sectors(&self) -> usize {
        GroupHeader::sectors_of(self.length as usize)
    }

    /// Appends the group's sectors; the first of them goes to this place in the segment.
    pub(super) fn write(&self, payload: &[u8], seed: Seed, place: usize, sectors: &mut Vec<u8>) {
        for (index, part) in payload.chunks(PAYLOAD_BYTES).enumerate() {
            let start = sectors.len();
            sectors.resize(start + PAYLOAD_AT, 0);
            let sector = &mut sectors[start..];
            put(sector, 4, &(index as u32).to_le_bytes());
            put(sector, 8, &self.length.to_le_bytes());
            put(sector, 12, &self.flags.to_le_bytes());
            put(sector, 16, &self.number.to_le_bytes());
            put_slots(sector, 24, self.slots);
            put_slots(sector, 40, self.slots_before);
            sectors.extend_from_slice(part);
            sectors.resize(start + SECTOR_BYTES, 0);
            seed.at(place + index).close(&mut sectors[start..]);
        }
    }

    /// All sectors of a segment after its header and seal.
    pub(super) fn read_all(segment: &[u8], seed: Seed) -> Vec<GroupSector> {
        let sectors = segment.chunks_exact(SECTOR_BYTES).enumerate().skip(FIRST_SECTOR);
        sectors.map(|(place, sector)| GroupHeader::read(sector, seed.at(place))).collect()
    }

    fn read(sector: &[u8], seed: Seed) -> GroupSector {
        if is_zero(sector) {
            return GroupSector::Zero;
        }
        if !seed.holds(sector) {
            return GroupSector::Corrupt;
        }
        let group = GroupHeader {
            number: number::<8>(sector, 16),
            length: number::<4>(sector, 8) as u32,
            flags: number::<4>(sector, 12) as u32,
            slots: slots(sector, 24),
            slots_before: slots(sector, 40),
        };
        if !is_group(group.number) {
            return GroupSector::Corrupt;
        }
        GroupSector::Valid { index: number::<4>(sector, 4) as u32, group }
    }

    /// Appends the payload bytes in these sectors of the group.
    pub(super) fn payload(&self, sectors: &[u8], payload: &mut Vec<u8>) {
        let mut left = self.length as usize;
        for sector in sectors.chunks_exact(SECTOR_BYTES) {
            let here = left.min(PAYLOAD_BYTES);
            payload.extend_from_slice(&sector[PAYLOAD_AT..PAYLOAD_AT + here]);
            left -= here;
        }
    }
}

fn is_group(number: u64) -> bool {
    (1..=GROUP_MAX).contains(&number)
}

/// Whether nothing was ever written there.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    // In blocks, so that the compiler can test many bytes at once and still stop early.
    bytes.chunks(SECTOR_BYTES).all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
}

fn put(sector: &mut [u8], at: usize, bytes: &[u8]) {
    sector[at..at + bytes.len()].copy_from_slice(bytes);
}

fn number<const BYTES: usize>(sector: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..BYTES].copy_from_slice(&sector[at..at + BYTES]);
    u64::from_le_bytes(bytes)
}

fn put_slots(sector: &mut [u8], at: usize, slots: AcceptedRange) {
    let (first, last) = slots.map_or((1, 0), |range| (range.first.0, range.last.0));
    put(sector, at, &first.to_le_bytes());
    put(sector, at + 8, &last.to_le_bytes());
}

fn slots(sector: &[u8], at: usize) -> AcceptedRange {
    let (first, last) = (number::<8>(sector, at), number::<8>(sector, at + 8));
    (first <= last).then_some(SlotRange { first: Slot(first), last: Slot(last) })
}
