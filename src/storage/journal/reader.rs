//! From the bytes of segments back to records, or to the damage in them. Pure: it touches no file.
//!
//! A sector is valid, all zero (never written) or damaged; nothing else is known about it. A crash can only leave one
//! thing behind that is not whole: the last group of the last segment, of which some sectors were written and the
//! others are still zero. It was never acknowledged, so it is cut. Everything else that is not whole is damage.

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
    /// The number of the segment before, 0 if there is none.
    segment_before: u32,
    /// That segment is not sealed.
    is_open_before: bool,
    /// The number of the group to come.
    next_group: u64,
    /// The slots of the last group.
    slots_before: AcceptedRange,
    /// The payload of a commit whose last group is still to come, if there is one.
    open_commit: Option<Vec<u8>>,
    /// Groups that go on with a commit go on with one of which a part is damaged.
    skips: bool,
    torn: bool,
    records: Vec<R>,
    damage: Vec<Corruption>,
    /// In the last segment something was lost before these records: only those behind tell what was promised.
    unknown_until: Option<usize>,
}

/// A segment's bytes, and what is known before reading them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub file: &'a str,
    /// Its number, by its name.
    pub number: u32,
    pub bytes: &'a [u8],
    /// The header of the segment that follows, if it can be read.
    pub next: Option<Header>,
    /// No segment follows.
    pub is_last: bool,
}

/// What was found in a segment beside the records.
#[derive(Clone, Debug)]
pub(super) struct SegmentContents {
    /// The sectors up to the end of the last whole group.
    pub used: usize,
    pub is_sealed: bool,
    /// Those of them that are damaged.
    pub damaged: Vec<usize>,
    /// All slots of which its groups accept values, damaged ones included.
    pub slots: AcceptedRange,
    /// Its first group goes on with a commit of the segment before.
    pub continues: bool,
}

/// What was found in all of them.
#[derive(Debug)]
pub(super) struct JournalContents<R> {
    pub records: Vec<R>,
    pub next_group: u64,
    pub slots_before: AcceptedRange,
    /// The end of the last commit was missing.
    pub is_cut: bool,
    /// What can no longer be read, all of it named.
    pub damage: Vec<Corruption>,
}

impl<R: Record> JournalReader<R> {
    /// A reader of a journal whose last segment says this of it.
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
            damage: Vec::new(),
            unknown_until: None,
        }
    }

    /// Reads the next segment.
    pub(super) fn segment(&mut self, segment: Segment<'_>) -> Result<SegmentContents, OpenError> {
        let is_oldest = segment.number == self.base.oldest && self.base.oldest > 1;
        let header = match header(self.owner, segment) {
            // All that it says stands elsewhere too.
            Err(OpenError::Corrupt(damage)) if !segment.is_last => {
                self.damage.push(Corruption { slots: None, slots_complete: true, ..damage });
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
                let damage = damage(segment.file, 1, CorruptRegion::Seal, what);
                if told.is_none() {
                    return Err(OpenError::Corrupt(damage));
                }
                self.damage.push(damage);
                (told, true)
            }
        };
        let walked = self.groups(segment, &sectors, seal)?;
        if walked.used > 0 && self.is_open_before {
            // It was sealed before this one took its first group.
            let what = LostSlots { slots: None, complete: false };
            let file = super::file_name(self.segment_before);
            return Err(OpenError::Corrupt(damage(&file, 1, CorruptRegion::Seal, what)));
        }
        self.is_open_before = !is_sealed;
        self.segment_before = segment.number;
        let GroupScan { used, damaged, slots, continues } = walked;
        // One without a group is in the middle of a commit if what comes behind it is.
        let continues = continues || used == 0 && (self.open_commit.is_some() || self.skips);
        let damaged = damaged.into_iter().map(|at| FIRST_SECTOR + at).collect();
        Ok(SegmentContents { used: FIRST_SECTOR + used, is_sealed, damaged, slots, continues })
    }

    /// The seal of the segment read last.
    pub(super) fn seal(&self) -> Seal {
        Seal { last_group: self.next_group - 1, slots: self.slots_before }
    }

    /// What all segments held. The promise must be known: to the record that was lost, what comes later is bound too.
    pub(super) fn finish(mut self) -> Result<JournalContents<R>, OpenError> {
        let is_known_since = |at: usize| PromiseFloor::by(&self.records[at..]).promised > Ballot::ZERO;
        let promise_is_known = self.unknown_until.is_none_or(is_known_since);
        if !promise_is_known && let Some(damage) = self.damage.pop() {
            return Err(OpenError::PromiseLost(damage));
        }
        let others = PromiseFloor::by(&self.records);
        self.records.extend(R::restate(self.base.bound, others));
        let is_cut = self.torn || self.open_commit.is_some();
        let JournalReader { records, next_group, slots_before, damage, .. } = self;
        Ok(JournalContents { records, next_group, slots_before, is_cut, damage })
    }

    /// Takes the groups of a segment, and judges what is none.
    fn groups(
        &mut self,
        segment: Segment<'_>,
        sectors: &[GroupSector],
        seal: Option<Seal>,
    ) -> Result<GroupScan, OpenError> {
        let mut walked = GroupScan { used: 0, damaged: Vec::new(), slots: None, continues: false };
        loop {
            let used = walked.used;
            if let Some(group) = whole_group(&sectors[used..], self.next_group) {
                walked.continues |= used == 0 && group.flags & FIRST_OF_COMMIT == 0;
                let start = (FIRST_SECTOR + used) * SECTOR_BYTES;
                let bytes = &segment.bytes[start..start + group.sectors() * SECTOR_BYTES];
                if let Err(cause) = self.group(group, bytes, segment.is_last) {
                    return Err(OpenError::Unreadable { file: segment.file.to_string(), offset: start as u64, cause });
                }
                walked.slots = union(walked.slots, group.slots);
                walked.used += group.sectors();
                continue;
            }
            let tail = &sectors[used..];
            let is_end = seal.is_none_or(|seal| seal.last_group + 1 == self.next_group);
            if is_end && tail.iter().all(|sector| *sector == GroupSector::Zero) {
                return Ok(walked);
            }
            if segment.is_last && seal.is_none() && rules::was_never_said(is_torn(tail, self.next_group)) {
                self.torn = true;
                return Ok(walked);
            }
            if !self.skip_damage(segment, tail, seal, is_end, &mut walked)? {
                return Ok(walked);
            }
        }
    }

    /// Takes note of damage and goes on behind it, if all that is lost is named. False if nothing is behind it.
    fn skip_damage(
        &mut self,
        segment: Segment<'_>,
        tail: &[GroupSector],
        seal: Option<Seal>,
        is_end: bool,
        walked: &mut GroupScan,
    ) -> Result<bool, OpenError> {
        let bad = tail.iter().position(|sector| *sector == GroupSector::Damaged);
        let bad = bad.or_else(|| tail.iter().position(|sector| *sector == GroupSector::Zero)).unwrap_or(0);
        let place = FIRST_SECTOR + walked.used + bad;
        if is_end && seal.is_some() {
            // Behind the last group: nothing was ever there.
            self.damage.push(damage(
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
        let damage = damage(segment.file, place, CorruptRegion::Groups, lost);
        // In the last segment nobody knows where the groups end.
        if !lost.complete || (behind.is_none() && seal.is_none()) {
            return Err(OpenError::Corrupt(damage));
        }
        if !self.lose(lost.slots, segment.is_last) {
            return Err(OpenError::Lost(damage));
        }
        self.damage.push(damage);
        self.skips = true;
        walked.slots = union(walked.slots, lost.slots);
        let skipped = behind.map_or(tail.len(), |(at, _)| at);
        let is_bad = |at: &usize| tail[*at] == GroupSector::Damaged;
        walked.damaged.extend((0..skipped).filter(is_bad).map(|at| walked.used + at));
        match (behind, seal) {
            (Some((at, group)), _) => {
                walked.used += at;
                (self.next_group, self.slots_before) = (group.number, group.slots_before);
                Ok(true)
            }
            (None, Some(seal)) => {
                walked.used += tail.len();
                (self.next_group, self.slots_before) = (seal.last_group + 1, seal.slots);
                Ok(false)
            }
            (None, None) => Ok(false),
        }
    }

    /// What was recorded of these slots is lost. False if no other server can say it again.
    fn lose(&mut self, slots: AcceptedRange, is_last: bool) -> bool {
        let record = slots.map(R::damaged);
        let is_known_elsewhere = !matches!(record, Some(None));
        self.records.extend(record.flatten());
        self.unknown_until = is_last.then_some(self.records.len()).or(self.unknown_until);
        is_known_elsewhere
    }

    fn group(&mut self, group: GroupHeader, sectors: &[u8], is_last: bool) -> Result<(), String> {
        let is_first = group.flags & FIRST_OF_COMMIT != 0;
        if self.skips && !is_first && self.open_commit.is_none() {
            // The rest of a commit of which a part is lost: it says nothing any more.
            // What it promised stands in the header of the segment after its end, if there is one.
            if !self.lose(group.slots, is_last) {
                return Err("a group goes on with a commit of which a part is damaged".to_string());
            }
            (self.next_group, self.slots_before) = (group.number + 1, group.slots);
            return Ok(());
        }
        self.skips = false;
        let mut payload = match self.open_commit.take() {
            // A commit that a crash had cut short: its end is never to come.
            _ if is_first => Vec::new(),
            Some(payload) => payload,
            None => return Err("a group goes on with a commit that never began".to_string()),
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

/// What was found among the groups of a segment.
struct GroupScan {
    /// Sectors up to the end of the last whole group.
    used: usize,
    /// Those of them that are damaged.
    damaged: Vec<usize>,
    slots: AcceptedRange,
    continues: bool,
}

/// The first whole group behind damage, and where it begins.
fn next_group_behind(tail: &[GroupSector], number: u64) -> Option<(usize, GroupHeader)> {
    (1..tail.len()).find_map(|at| {
        let GroupSector::Valid { index: 0, group } = tail[at] else { return None };
        let is_later = group.number > number;
        whole_group(&tail[at..], group.number).filter(|_| is_later).map(|group| (at, group))
    })
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
        let sectors = GroupHeader::read_all(bytes, Seed::new(owner, number));
        return Err(OpenError::Corrupt(damage(&file, 0, CorruptRegion::Header, held(&sectors))));
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
        let cause = format!("the segments before it would be {} to {}", header.base.oldest, header.follows);
        return Err(OpenError::Unreadable { file, offset: 0, cause });
    }
    Ok(header)
}

/// The group that begins here, if it has this number and every sector of it is there.
fn whole_group(sectors: &[GroupSector], number: u64) -> Option<GroupHeader> {
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
    let mut torn: Option<GroupHeader> = None;
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
struct LostSlots {
    slots: AcceptedRange,
    complete: bool,
}

impl LostSlots {
    fn add(&mut self, slots: AcceptedRange) {
        self.slots = union(self.slots, slots);
    }
}

/// What the neighbours of damaged sectors tell about the groups from `next_group` to the one that is found behind them,
/// or to the last one of the segment. Each sector knows the slots of its own group and of the one before; a seal knows
/// those of the last.
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
    // No more groups than sectors: a number that says otherwise is not to be believed.
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

fn damage(file: &str, sector: usize, part: CorruptRegion, lost: LostSlots) -> Corruption {
    Corruption {
        file: file.to_string(),
        offset: (sector * SECTOR_BYTES) as u64,
        part,
        slots: lost.slots,
        slots_complete: lost.complete,
    }
}
