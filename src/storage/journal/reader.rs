//! From the bytes of segments back to records, or to the damage in them. Pure: it touches no file.
//!
//! A sector is valid, all zero (never written) or damaged; nothing else is known about it. A crash can only leave one
//! thing behind that is not whole: the last group of the last segment, of which some sectors were written and the others
//! are still zero. It was never acknowledged, so it is cut. Everything else that is not whole is damage.

use std::collections::BTreeMap;

use super::error::{Damage, DamagedPart, OpenError};
use super::sector::{
    DamagedSector, FIRST_OF_COMMIT, FIRST_SECTOR, Group, GroupSector, Header, LAST_OF_COMMIT, Seal, Seed, Slots,
    VERSION,
};
use crate::codec;
use crate::museum::{self, Bug};
use crate::paxos::{AcceptorRecord, SlotRange};
use crate::storage::disk::SECTOR_BYTES;

/// Reads segments one after the other.
#[derive(Debug)]
pub(super) struct Reader {
    owner: u64,
    /// The number of the segment before, 0 if there is none.
    segment_before: u32,
    /// That segment is not sealed.
    is_open_before: bool,
    /// The number of the group to come.
    next_group: u64,
    /// The slots of the last group.
    slots_before: Slots,
    /// The payload of a commit whose last group is still to come, if there is one.
    open_commit: Option<Vec<u8>>,
    torn: bool,
    records: Vec<AcceptorRecord>,
}

/// A segment's bytes, and what is known before reading them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub file: &'a str,
    /// Its number, by its name.
    pub number: u32,
    pub bytes: &'a [u8],
    /// No segment follows.
    pub is_last: bool,
}

/// What was found in a segment beside the records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// The sectors up to the end of the last whole group.
    pub used: usize,
    pub is_sealed: bool,
}

/// What was found in all of them.
#[derive(Debug)]
pub(super) struct Read {
    pub records: Vec<AcceptorRecord>,
    pub next_group: u64,
    pub slots_before: Slots,
    /// The end of the last commit was missing.
    pub is_cut: bool,
}

impl Reader {
    pub(super) fn new(owner: u64) -> Reader {
        Reader {
            owner,
            segment_before: 0,
            is_open_before: false,
            next_group: 1,
            slots_before: None,
            open_commit: None,
            torn: false,
            records: Vec::new(),
        }
    }

    /// Reads the next segment.
    pub(super) fn segment(&mut self, segment: Segment<'_>) -> Result<Found, OpenError> {
        let header = header(self.owner, segment)?;
        let file = segment.file.to_string();
        if header.follows > self.segment_before {
            return Err(OpenError::MissingSegment { file: super::file_name(header.follows), before: file });
        }
        if header.follows < self.segment_before {
            return Err(OpenError::Surplus { file: super::file_name(self.segment_before), next: file });
        }
        if header.first_group != self.next_group {
            let (found, expected) = (header.first_group, self.next_group);
            return Err(OpenError::Gap { file, found, expected });
        }
        let seed = Seed::new(self.owner, segment.number);
        let sectors: Vec<GroupSector> =
            body(segment.bytes).chunks_exact(SECTOR_BYTES).map(|sector| Group::read(sector, seed)).collect();
        let seal = match Seal::read(&segment.bytes[SECTOR_BYTES..2 * SECTOR_BYTES], seed) {
            Ok(seal) => seal,
            Err(DamagedSector) => {
                let what = Lost { slots: None, complete: false };
                return Err(damage(segment.file, 1, DamagedPart::Seal, what));
            }
        };
        let used = self.groups(segment, &sectors)?;
        self.tail(segment, &sectors[used..], used, seal)?;
        if used > 0 && self.is_open_before {
            // It was sealed before this one took its first group.
            let what = Lost { slots: None, complete: false };
            return Err(damage(&super::file_name(self.segment_before), 1, DamagedPart::Seal, what));
        }
        self.is_open_before = seal.is_none();
        self.segment_before = segment.number;
        Ok(Found { used: FIRST_SECTOR + used, is_sealed: seal.is_some() })
    }

    /// The seal of the segment read last.
    pub(super) fn seal(&self) -> Seal {
        Seal { last_group: self.next_group - 1, slots: self.slots_before }
    }

    /// What all segments held.
    pub(super) fn finish(self) -> Read {
        let is_cut = self.torn || self.open_commit.is_some();
        Read { records: self.records, next_group: self.next_group, slots_before: self.slots_before, is_cut }
    }

    /// Takes the whole groups from the beginning; says how many sectors they are.
    fn groups(&mut self, segment: Segment<'_>, sectors: &[GroupSector]) -> Result<usize, OpenError> {
        let mut used = 0;
        while let Some(group) = whole_group(&sectors[used..], self.next_group) {
            let start = (FIRST_SECTOR + used) * SECTOR_BYTES;
            let bytes = &segment.bytes[start..start + group.sectors() * SECTOR_BYTES];
            if let Err(cause) = self.group(group, bytes) {
                return Err(OpenError::Unreadable { file: segment.file.to_string(), offset: start as u64, cause });
            }
            used += group.sectors();
        }
        Ok(used)
    }

    fn group(&mut self, group: Group, sectors: &[u8]) -> Result<(), String> {
        let mut payload = match self.open_commit.take() {
            // A commit that a crash had cut short: its end is never to come.
            _ if group.flags & FIRST_OF_COMMIT != 0 => Vec::new(),
            Some(payload) => payload,
            None => return Err("a group goes on with a commit that never began".to_string()),
        };
        group.payload(sectors, &mut payload);
        if group.flags & LAST_OF_COMMIT == 0 {
            self.open_commit = Some(payload);
        } else {
            records(&payload, &mut self.records)?;
        }
        self.next_group += 1;
        self.slots_before = group.slots;
        Ok(())
    }

    /// Judges what comes behind the whole groups.
    fn tail(
        &mut self,
        segment: Segment<'_>,
        tail: &[GroupSector],
        used: usize,
        seal: Option<Seal>,
    ) -> Result<(), OpenError> {
        let is_whole = seal.is_none_or(|seal| seal.last_group + 1 == self.next_group);
        let is_clean = tail.iter().all(|sector| *sector == GroupSector::Zero);
        if is_clean && is_whole {
            return Ok(());
        }
        if segment.is_last && seal.is_none() && is_torn(tail, self.next_group) {
            self.torn = true;
            return Ok(());
        }
        let bad = tail
            .iter()
            .position(|sector| *sector == GroupSector::Damaged)
            .or_else(|| tail.iter().position(|sector| *sector == GroupSector::Zero))
            .unwrap_or(0);
        let what = lost(tail, self.next_group, seal);
        Err(damage(segment.file, FIRST_SECTOR + used + bad, DamagedPart::Groups, what))
    }
}

/// The sectors that hold groups.
fn body(bytes: &[u8]) -> &[u8] {
    &bytes[FIRST_SECTOR * SECTOR_BYTES..]
}

/// The header of a segment whose file is what it says.
pub(super) fn header(owner: u64, segment: Segment<'_>) -> Result<Header, OpenError> {
    let Segment { file, number, bytes, .. } = segment;
    let file = file.to_string();
    let found = bytes.len() as u64;
    if bytes.len() < FIRST_SECTOR * SECTOR_BYTES {
        return Err(OpenError::Length { file, found, expected: (FIRST_SECTOR * SECTOR_BYTES) as u64 });
    }
    let Ok(header) = Header::read(&bytes[..SECTOR_BYTES]) else {
        let seed = Seed::new(owner, number);
        let sectors: Vec<GroupSector> =
            body(bytes).chunks_exact(SECTOR_BYTES).map(|sector| Group::read(sector, seed)).collect();
        return Err(damage(&file, 0, DamagedPart::Header, held(&sectors)));
    };
    if header.version != VERSION {
        return Err(OpenError::Version { file, found: header.version, known: VERSION });
    }
    if header.owner != owner {
        return Err(OpenError::Foreign { file, found: header.owner, expected: owner });
    }
    if header.segment != number {
        return Err(OpenError::Misnamed { file, segment: header.segment });
    }
    if header.bytes != found {
        return Err(OpenError::Length { file, found, expected: header.bytes });
    }
    Ok(header)
}

/// The group that begins here, if it has this number and every sector of it is there.
fn whole_group(sectors: &[GroupSector], number: u64) -> Option<Group> {
    let Some(GroupSector::Valid { index: 0, group }) = sectors.first() else { return None };
    let its = sectors.get(..group.sectors())?;
    let is_whole = its
        .iter()
        .enumerate()
        .all(|(index, sector)| *sector == GroupSector::Valid { index: index as u32, group: *group });
    (is_whole && group.number == number && group.length > 0).then_some(*group)
}

/// Whether these sectors are what a crash in the middle of writing the group `number` leaves: some of its sectors, each
/// in its place, and nothing else but zeros.
fn is_torn(tail: &[GroupSector], number: u64) -> bool {
    let mut torn: Option<Group> = None;
    if museum::is(Bug::B15) {
        return true;
    }
    for (place, sector) in tail.iter().enumerate() {
        match sector {
            GroupSector::Zero => {}
            GroupSector::Damaged => return false,
            GroupSector::Valid { index, group } => {
                let is_its = group.number == number && *index as usize == place && place < group.sectors();
                if !is_its || group.sectors() > tail.len() || *torn.get_or_insert(*group) != *group {
                    return false;
                }
            }
        }
    }
    torn.is_some()
}

/// Which slots are concerned.
#[derive(Clone, Copy, Debug)]
struct Lost {
    slots: Slots,
    complete: bool,
}

impl Lost {
    fn add(&mut self, slots: Slots) {
        self.slots = hull(self.slots, slots);
    }
}

/// The lowest to the highest slot of both.
pub(super) fn hull(one: Slots, other: Slots) -> Slots {
    match (one, other) {
        (Some(a), Some(b)) => Some(SlotRange { first: a.first.min(b.first), last: a.last.max(b.last) }),
        (a, b) => a.or(b),
    }
}

/// What the neighbours of damaged sectors tell about them. Each sector knows the slots of its own group and of the one
/// before; a seal knows those of the last.
fn lost(tail: &[GroupSector], next_group: u64, seal: Option<Seal>) -> Lost {
    let mut known: BTreeMap<u64, Slots> = BTreeMap::new();
    let mut present: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    let mut end = None;
    for (place, sector) in tail.iter().enumerate() {
        if let GroupSector::Valid { index, group } = sector {
            known.insert(group.number, group.slots);
            known.entry(group.number.wrapping_sub(1)).or_insert(group.slots_before);
            present.entry(group.number).or_insert((0, group.sectors())).0 += 1;
            let last_place = (place + group.sectors()).saturating_sub(*index as usize + 1);
            end = end.max(Some((group.number, last_place)));
        }
    }
    let behind = end.map_or(0, |(_, place)| place + 1);
    let damaged_behind = tail.iter().skip(behind).any(|sector| *sector == GroupSector::Damaged);
    let mut last = end.map(|(number, _)| number);
    let mut lost = Lost { slots: None, complete: !damaged_behind };
    if let Some(seal) = seal {
        known.insert(seal.last_group, seal.slots);
        last = last.max(Some(seal.last_group));
        lost.complete = true;
    }
    // No more groups than sectors: a number that says otherwise is not to be believed.
    let groups = last.map_or(0, |last| (last + 1).saturating_sub(next_group)).min(tail.len() as u64);
    for number in next_group..next_group + groups {
        match known.get(&number) {
            _ if present.get(&number).is_some_and(|(there, all)| there == all) => {}
            Some(slots) => lost.add(*slots),
            None => lost.complete = false,
        }
    }
    lost
}

/// The slots of all groups of a segment.
fn held(sectors: &[GroupSector]) -> Lost {
    let mut held = Lost { slots: None, complete: false };
    for sector in sectors {
        if let GroupSector::Valid { group, .. } = sector {
            held.add(group.slots);
        }
    }
    held
}

fn damage(file: &str, sector: usize, part: DamagedPart, lost: Lost) -> OpenError {
    OpenError::Damaged(Damage {
        file: file.to_string(),
        offset: (sector * SECTOR_BYTES) as u64,
        part,
        slots: lost.slots,
        slots_complete: lost.complete,
    })
}

/// Cuts the payload of a commit into its records.
fn records(mut payload: &[u8], records: &mut Vec<AcceptorRecord>) -> Result<(), String> {
    while !payload.is_empty() {
        let record = payload.split_first_chunk::<4>().and_then(|(length, rest)| {
            let length = u32::from_le_bytes(*length) as usize;
            rest.split_at_checked(length)
        });
        let Some((record, rest)) = record else { return Err("a record ends behind its commit".to_string()) };
        records.push(codec::decode(record).map_err(|error| error.to_string())?);
        payload = rest;
    }
    Ok(())
}
