//! The journal reader: turns the bytes of segments back into records, or reports what is corrupt. Pure: it touches no
//! file.
//!
//! A sector is valid, all zero (never written) or corrupt; nothing else is known about it. A crash can leave only one
//! incomplete thing: the last group of the last segment, with some sectors written and the others still zero. It was
//! never acknowledged, so it is cut. Everything else that is incomplete is corruption.

use std::collections::BTreeMap;

use super::error::{CorruptRegion, Corruption, OpenError};
use super::record::{PromiseFloor, Record, decode, union};
use super::sector::{
    AcceptedRange, CorruptSector, FIRST_OF_COMMIT, FIRST_SECTOR, GroupHeader, GroupSector, Header, LAST_OF_COMMIT,
    Seal, Seed, SegmentBase, VERSION,
};
use crate::paxos::Ballot;
use crate::storage::disk::SECTOR_BYTES;
use crate::storage::rules;

/// Reads segments one after the other.
#[derive(Debug)]
pub(super) struct JournalReader<R> {
    owner: u64,
    base: SegmentBase,
    /// The number of the previous segment, 0 if there is none.
    segment_before: u32,
    /// That segment is not sealed.
    is_open_before: bool,
    /// The number of the next group.
    next_group: u64,
    /// The slots of the last group.
    slots_before: AcceptedRange,
    /// The payload of a commit whose last group was not read yet, if there is one.
    open_commit: Option<Vec<u8>>,
    /// Groups that continue a commit belong to a commit that is partly corrupt.
    skips: bool,
    torn: bool,
    records: Vec<R>,
    corruption: Vec<Corruption>,
    /// Set if something was lost in the last segment: only the records from this index on show what was promised.
    unknown_until: Option<usize>,
}

/// A segment's bytes, and what is known before reading them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub file: &'a str,
    /// Its number, from its name.
    pub number: u32,
    pub bytes: &'a [u8],
    /// The header of the next segment, if it can be read.
    pub next: Option<Header>,
    /// This is the last segment.
    pub is_last: bool,
}

/// What a segment held besides records.
#[derive(Clone, Debug)]
pub(super) struct SegmentContents {
    /// The sectors up to the end of the last whole group.
    pub used: usize,
    pub is_sealed: bool,
    /// The corrupt ones among them.
    pub corrupt: Vec<usize>,
    /// All slots of values accepted in its groups, corrupt groups included.
    pub slots: AcceptedRange,
    /// Its first group continues a commit of the previous segment.
    pub continues: bool,
}

/// The contents of all segments.
#[derive(Debug)]
pub(super) struct JournalContents<R> {
    pub records: Vec<R>,
    pub next_group: u64,
    pub slots_before: AcceptedRange,
    /// The end of the last commit was missing.
    pub is_cut: bool,
    /// The unreadable places; every slot that they affect is known.
    pub corruption: Vec<Corruption>,
}

impl<R: Record> JournalReader<R> {
    /// A reader of a journal whose last segment has this base in its header.
    pub(super) fn new(owner: u64, base: SegmentBase) -> JournalReader<R> {
        JournalReader {
            owner,
            base,
            segment_before: 0,
            is_open_before: false,
            next_group: base.oldest_group,
            slots_before: None,
            open_commit: None,
            skips: false,
            torn: false,
            records: Vec::new(),
            corruption: Vec::new(),
            unknown_until: None,
        }
    }

    /// Reads the next segment.
    pub(super) fn segment(&mut self, segment: Segment<'_>) -> Result<SegmentContents, OpenError> {
        let is_oldest = segment.number == self.base.oldest && self.base.oldest > 1;
        let header = match header(self.owner, segment) {
            // Everything in this header is also known from other sectors.
            Err(OpenError::Corrupt(corruption)) if !segment.is_last => {
                self.corruption.push(Corruption { slots: None, slots_complete: true, ..corruption });
                None
            }
            header => Some(header?),
        };
        let file = segment.file.to_string();
        if let Some(header) = header {
            if header.follows > self.segment_before && !is_oldest {
                return Err(OpenError::MissingSegment { file: super::file_name(header.follows), before: file });
            }
            if header.follows < self.segment_before {
                return Err(OpenError::UnexpectedSegment { file: super::file_name(self.segment_before), next: file });
            }
            if header.first_group != self.next_group {
                let (found, expected) = (header.first_group, self.next_group);
                return Err(OpenError::Gap { file, found, expected });
            }
        }
        let seed = Seed::new(self.owner, segment.number);
        let sectors = GroupHeader::read_all(segment.bytes, seed);
        let told =
            segment.next.map(|next| Seal { last_group: next.first_group.saturating_sub(1), slots: next.slots_before });
        let (seal, is_sealed) = match Seal::read(&segment.bytes[SECTOR_BYTES..2 * SECTOR_BYTES], seed) {
            Ok(seal) => (seal.or(told), seal.is_some()),
            Err(CorruptSector) => {
                let what = LostSlots { slots: None, complete: told.is_some() };
                let corruption = corruption(segment.file, 1, CorruptRegion::Seal, what);
                if told.is_none() {
                    return Err(OpenError::Corrupt(corruption));
                }
                self.corruption.push(corruption);
                (told, true)
            }
        };
        let scan = self.groups(segment, &sectors, seal)?;
        if scan.used > 0 && self.is_open_before {
            // The previous segment must have been sealed before this one took its first group.
            let what = LostSlots { slots: None, complete: false };
            let file = super::file_name(self.segment_before);
            return Err(OpenError::Corrupt(corruption(&file, 1, CorruptRegion::Seal, what)));
        }
        self.is_open_before = !is_sealed;
        self.segment_before = segment.number;
        let GroupScan { used, corrupt, slots, continues } = scan;
        // A segment without a group is in the middle of a commit if the next group continues one.
        let continues = continues || used == 0 && (self.open_commit.is_some() || self.skips);
        let corrupt = corrupt.into_iter().map(|at| FIRST_SECTOR + at).collect();
        Ok(SegmentContents { used: FIRST_SECTOR + used, is_sealed, corrupt, slots, continues })
    }

    /// The seal of the segment read last.
    pub(super) fn seal(&self) -> Seal {
        Seal { last_group: self.next_group - 1, slots: self.slots_before }
    }

    /// The contents of all segments. An error if the last promise is lost. A later promise covers it: it binds the role
    /// at least as much as the lost record.
    pub(super) fn finish(mut self) -> Result<JournalContents<R>, OpenError> {
        let is_known_since = |at: usize| PromiseFloor::by(&self.records[at..]).promised > Ballot::ZERO;
        let promise_is_known = self.unknown_until.is_none_or(is_known_since);
        if !promise_is_known && let Some(corruption) = self.corruption.pop() {
            return Err(OpenError::PromiseLost(corruption));
        }
        let others = PromiseFloor::by(&self.records);
        self.records.extend(R::restate(self.base.bound, others));
        let is_cut = self.torn || self.open_commit.is_some();
        let JournalReader { records, next_group, slots_before, corruption, .. } = self;
        Ok(JournalContents { records, next_group, slots_before, is_cut, corruption })
    }

    /// Takes the groups of a segment, and decides whether the rest is unused, torn or corrupt.
    fn groups(
        &mut self,
        segment: Segment<'_>,
        sectors: &[GroupSector],
        seal: Option<Seal>,
    ) -> Result<GroupScan, OpenError> {
        let mut scan = GroupScan { used: 0, corrupt: Vec::new(), slots: None, continues: false };
        loop {
            let used = scan.used;
            if let Some(group) = whole_group(&sectors[used..], self.next_group) {
                scan.continues |= used == 0 && group.flags & FIRST_OF_COMMIT == 0;
                let start = (FIRST_SECTOR + used) * SECTOR_BYTES;
                let bytes = &segment.bytes[start..start + group.sectors() * SECTOR_BYTES];
                if let Err(cause) = self.group(group, bytes, segment.is_last) {
                    return Err(OpenError::Unreadable { file: segment.file.to_string(), offset: start as u64, cause });
                }
                scan.slots = union(scan.slots, group.slots);
                scan.used += group.sectors();
                continue;
            }
            let tail = &sectors[used..];
            let is_end = seal.is_none_or(|seal| seal.last_group + 1 == self.next_group);
            if is_end && tail.iter().all(|sector| *sector == GroupSector::Zero) {
                return Ok(scan);
            }
            if segment.is_last && seal.is_none() && rules::was_never_said(is_torn(tail, self.next_group)) {
                self.torn = true;
                return Ok(scan);
            }
            if !self.skip_corrupt_sectors(segment, tail, seal, is_end, &mut scan)? {
                return Ok(scan);
            }
        }
    }

    /// Records a corrupt place and continues after it, if all that is lost is known. False if nothing follows it.
    fn skip_corrupt_sectors(
        &mut self,
        segment: Segment<'_>,
        tail: &[GroupSector],
        seal: Option<Seal>,
        is_end: bool,
        scan: &mut GroupScan,
    ) -> Result<bool, OpenError> {
        let bad = tail.iter().position(|sector| *sector == GroupSector::Corrupt);
        let bad = bad.or_else(|| tail.iter().position(|sector| *sector == GroupSector::Zero)).unwrap_or(0);
        let place = FIRST_SECTOR + scan.used + bad;
        if is_end && seal.is_some() {
            // This place is after the last group, so it never held anything.
            self.corruption.push(corruption(
                segment.file,
                place,
                CorruptRegion::Groups,
                LostSlots { slots: None, complete: true },
            ));
            return Ok(false);
        }
        let behind = next_group_behind(tail, self.next_group);
        let mut lost = lost(&tail[..behind.map_or(tail.len(), |(at, _)| at)], self.next_group, seal, behind);
        if self.open_commit.take().is_some() {
            lost.add(self.slots_before);
        }
        let corruption = corruption(segment.file, place, CorruptRegion::Groups, lost);
        // In the last segment, without a seal, the end of the groups is unknown.
        if !lost.complete || (behind.is_none() && seal.is_none()) {
            return Err(OpenError::Corrupt(corruption));
        }
        if !self.lose(lost.slots, segment.is_last) {
            return Err(OpenError::Lost(corruption));
        }
        self.corruption.push(corruption);
        self.skips = true;
        scan.slots = union(scan.slots, lost.slots);
        let skipped = behind.map_or(tail.len(), |(at, _)| at);
        let is_bad = |at: &usize| tail[*at] == GroupSector::Corrupt;
        scan.corrupt.extend((0..skipped).filter(is_bad).map(|at| scan.used + at));
        match (behind, seal) {
            (Some((at, group)), _) => {
                scan.used += at;
                (self.next_group, self.slots_before) = (group.number, group.slots_before);
                Ok(true)
            }
            (None, Some(seal)) => {
                scan.used += tail.len();
                (self.next_group, self.slots_before) = (seal.last_group + 1, seal.slots);
                Ok(false)
            }
            (None, None) => Ok(false),
        }
    }

    /// Records that the values of these slots are lost. False if no other server has them.
    fn lose(&mut self, slots: AcceptedRange, is_last: bool) -> bool {
        let record = slots.map(R::corrupt);
        let is_known_elsewhere = !matches!(record, Some(None));
        self.records.extend(record.flatten());
        self.unknown_until = is_last.then_some(self.records.len()).or(self.unknown_until);
        is_known_elsewhere
    }

    fn group(&mut self, group: GroupHeader, sectors: &[u8], is_last: bool) -> Result<(), String> {
        let is_first = group.flags & FIRST_OF_COMMIT != 0;
        if self.skips && !is_first && self.open_commit.is_none() {
            // This is the rest of a commit that is partly lost, so it cannot be decoded. Its promises are also in the
            // header of the segment after its end, if there is one.
            if !self.lose(group.slots, is_last) {
                return Err("a group continues a commit that is partly corrupt".to_string());
            }
            (self.next_group, self.slots_before) = (group.number + 1, group.slots);
            return Ok(());
        }
        self.skips = false;
        let mut payload = match self.open_commit.take() {
            // A crash cut the open commit short: its end was never written.
            _ if is_first => Vec::new(),
            Some(payload) => payload,
            None => return Err("a group continues a commit that never began".to_string()),
        };
        group.payload(sectors, &mut payload);
        if group.flags & LAST_OF_COMMIT == 0 {
            self.open_commit = Some(payload);
        } else {
            decode(&payload, &mut self.records)?;
        }
        self.next_group += 1;
        self.slots_before = group.slots;
        Ok(())
    }
}

/// The result of reading the groups of a segment.
struct GroupScan {
    /// Sectors up to the end of the last whole group.
    used: usize,
    /// The corrupt ones among them.
    corrupt: Vec<usize>,
    slots: AcceptedRange,
    continues: bool,
}

/// The first whole group after a corrupt place, and its first sector.
fn next_group_behind(tail: &[GroupSector], number: u64) -> Option<(usize, GroupHeader)> {
    (1..tail.len()).find_map(|at| {
        let GroupSector::Valid { index: 0, group } = tail[at] else { return None };
        let is_later = group.number > number;
        whole_group(&tail[at..], group.number).filter(|_| is_later).map(|group| (at, group))
    })
}

/// The header of a segment, checked against its file's name, length and owner.
pub(super) fn header(owner: u64, segment: Segment<'_>) -> Result<Header, OpenError> {
    let Segment { file, number, bytes, .. } = segment;
    let file = file.to_string();
    let found = bytes.len() as u64;
    if bytes.len() < FIRST_SECTOR * SECTOR_BYTES {
        return Err(OpenError::Length { file, found, expected: (FIRST_SECTOR * SECTOR_BYTES) as u64 });
    }
    let Ok(header) = Header::read(&bytes[..SECTOR_BYTES]) else {
        let sectors = GroupHeader::read_all(bytes, Seed::new(owner, number));
        return Err(OpenError::Corrupt(corruption(&file, 0, CorruptRegion::Header, held(&sectors))));
    };
    if header.version != VERSION {
        return Err(OpenError::Version { file, found: header.version, known: VERSION });
    }
    if header.owner != owner {
        return Err(OpenError::WrongStorage { file, found: header.owner, expected: owner });
    }
    if header.segment != number {
        return Err(OpenError::Misnamed { file, segment: header.segment });
    }
    if header.bytes != found {
        return Err(OpenError::Length { file, found, expected: header.bytes });
    }
    if header.follows >= number || header.base.oldest > number {
        let cause =
            format!("its header names segments {} to {} as the earlier ones", header.base.oldest, header.follows);
        return Err(OpenError::Unreadable { file, offset: 0, cause });
    }
    Ok(header)
}

/// The group that begins here, if it has this number and all its sectors are present.
fn whole_group(sectors: &[GroupSector], number: u64) -> Option<GroupHeader> {
    let Some(GroupSector::Valid { index: 0, group }) = sectors.first() else { return None };
    let its = sectors.get(..group.sectors())?;
    let is_whole = its
        .iter()
        .enumerate()
        .all(|(index, sector)| *sector == GroupSector::Valid { index: index as u32, group: *group });
    (is_whole && group.number == number && group.length > 0).then_some(*group)
}

/// Whether these sectors are what a crash during the write of group `number` leaves: some of its sectors, each in its
/// place, and otherwise only zeros.
fn is_torn(tail: &[GroupSector], number: u64) -> bool {
    let mut torn: Option<GroupHeader> = None;
    for (place, sector) in tail.iter().enumerate() {
        match sector {
            GroupSector::Zero => {}
            GroupSector::Corrupt => return false,
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

/// The slots affected, and whether they are all known.
#[derive(Clone, Copy, Debug)]
struct LostSlots {
    slots: AcceptedRange,
    complete: bool,
}

impl LostSlots {
    fn add(&mut self, slots: AcceptedRange) {
        self.slots = union(self.slots, slots);
    }
}

/// The slots of the lost groups: from `next_group` to the group found after the corrupt sectors, or to the last group
/// of the segment. The neighbors of the lost sectors tell them. Each sector names the slots of its own group and of the
/// previous one; a seal names those of the last group.
fn lost(
    lost_sectors: &[GroupSector],
    next_group: u64,
    seal: Option<Seal>,
    behind: Option<(usize, GroupHeader)>,
) -> LostSlots {
    let mut known: BTreeMap<u64, AcceptedRange> = BTreeMap::new();
    for sector in lost_sectors {
        if let GroupSector::Valid { group, .. } = sector {
            known.insert(group.number, group.slots);
            known.entry(group.number.wrapping_sub(1)).or_insert(group.slots_before);
        }
    }
    let end = match (behind, seal) {
        (Some((_, group)), _) => {
            known.insert(group.number - 1, group.slots_before);
            group.number
        }
        (None, Some(seal)) => {
            known.insert(seal.last_group, seal.slots);
            seal.last_group + 1
        }
        (None, None) => known.keys().next_back().map_or(next_group, |last| last.saturating_add(1)),
    };
    let mut lost = LostSlots { slots: None, complete: behind.is_some() || seal.is_some() };
    // There are at most as many groups as sectors, so a higher number is corrupt.
    let most = next_group.saturating_add(lost_sectors.len() as u64);
    lost.complete &= end <= most;
    for number in next_group..end.min(most) {
        match known.get(&number) {
            Some(slots) => lost.add(*slots),
            None => lost.complete = false,
        }
    }
    lost
}

/// The slots of all groups of a segment.
fn held(sectors: &[GroupSector]) -> LostSlots {
    let mut held = LostSlots { slots: None, complete: false };
    for sector in sectors {
        if let GroupSector::Valid { group, .. } = sector {
            held.add(group.slots);
        }
    }
    held
}

fn corruption(file: &str, sector: usize, part: CorruptRegion, lost: LostSlots) -> Corruption {
    Corruption {
        file: file.to_string(),
        offset: (sector * SECTOR_BYTES) as u64,
        part,
        slots: lost.slots,
        slots_complete: lost.complete,
    }
}
