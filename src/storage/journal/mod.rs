//! The journal: the stable storage of a role that persists records, above all of the acceptor.
//!
//! The records, all of one kind ([`Record`]), are appended to a sequence of *segments*. These are files of fixed length
//! that are filled with zeros and synced before use, and never used again. So a commit changes nothing but the bytes
//! that it writes: one write, one sync. Module `sector` describes the bytes, and `reader` checks them.
//!
//! Three rules make the sequence of files as trustworthy as the bytes in them:
//!
//! * A file is complete before it has its name: it is prepared as `spare`, and becomes a segment by a rename.
//! * A segment names its predecessor and the oldest segment that is needed. A full segment is sealed before its
//!   successor takes a record. So a file that is missing at the beginning, in the middle or at the end is detected.
//! * A process that starts copies the last segment into a new one and continues there. What was written last may be
//!   readable without being durable, because its sync never happened or failed. Once copied and synced, it is durable.
//!
//! A segment is needed as long as it holds a record of a slot that the role has not truncated. The header of a new
//! segment names the oldest needed segment, the highest promised ballot and the truncation point; older segments are
//! removed. The header replaces what the removed files recorded.
//!
//! The next segment is prepared as soon as the last one is taken, so a full disk is detected one segment ahead:
//! [`Journal::has_space`]. Before the journal asks a full disk for space, it removes segments that it does not need:
//! see `shed`.

mod error;
#[cfg(any(test, fuzzing, feature = "test-support"))]
#[doc(hidden)]
pub mod malformed;
mod reader;
mod record;
mod sector;
mod segment_set;
mod shed;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;

pub use error::{CorruptRegion, Corruption, JournalError, OpenError};
pub use record::{PromiseFloor, Record};
use record::{encode, union};
use sector::{
    AcceptedRange, FIRST_OF_COMMIT, FIRST_SECTOR, GroupHeader, Header, LAST_OF_COMMIT, PAYLOAD_BYTES, Seal, Seed,
    SegmentBase, VERSION,
};
use segment_set::{LastSegment, SegmentSet};

use super::disk::{Files, SECTOR_BYTES, StableFile, is_full, is_short_of_files, remove_if_present};
use super::rules;
use crate::paxos::Slot;
use crate::role::StableStore;

/// The default length of a segment, in bytes.
pub const SEGMENT_BYTES: u64 = 16 << 20;

/// Maximum length of the very first segment, in bytes. At a first start, five servers on one disk wait while their
/// segments are filled with zeros.
const FIRST_SEGMENT_BYTES: u64 = 1 << 20;
/// The shortest segment, in bytes.
const LEAST_BYTES: u64 = 2_048;
/// If a start finds no space for a whole segment, one of this fraction (1/64) is enough for promises.
const PROMISES_PART: u64 = 64;
/// The file that becomes the next segment.
const SPARE: &str = "spare";
/// That file while it is being written.
const SPARE_IN_MAKING: &str = "spare.new";
/// Number of segments (the next one not counted) that a journal may have even where a checkpoint could then not grow.
/// Most checkpoints do not grow, so the journal can continue with these.
pub const FEW_SEGMENTS: usize = 2;
/// Buffers larger than this, in bytes, are shrunk after a large commit.
const KEPT_BUFFER_BYTES: usize = 4 << 20;

/// How a journal is opened.
#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    /// Length of a new segment: a multiple of 512, from 2,048 bytes to 1 GiB. It never shrinks: a journal that has
    /// longer segments continues with their length.
    pub segment_bytes: u64,
    /// The storage id of the server. Segments with any other are refused.
    pub owner: u64,
    /// There was a journal before: refuse to start with an empty one.
    pub must_exist: bool,
    /// All slots below are in a durable checkpoint, whatever the journal records. A checkpoint may have been lost, and
    /// then the journal holds the values accepted since. None if the journal has no checkpoint.
    pub forgotten: Option<Slot>,
    /// Disk space that preparing the next segment leaves to others; see [`leave_free`](Journal::leave_free).
    pub left_free: LeftFree,
}

/// Disk space that the next segment must not use, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeftFree {
    /// For other small files, always.
    pub always: u64,
    /// For a growing checkpoint and for the copy made at a start; counted once the journal has more than
    /// [`FEW_SEGMENTS`]. Before there is a checkpoint no segment can be removed, so a journal that used up this space
    /// would wait forever.
    pub to_grow: u64,
}

impl JournalOptions {
    /// A journal alone on its disk, without a checkpoint.
    pub fn alone(segment_bytes: u64, owner: u64, must_exist: bool) -> JournalOptions {
        JournalOptions { segment_bytes, owner, must_exist, forgotten: None, left_free: LeftFree::default() }
    }
}

/// The contents of a journal when it was opened.
#[derive(Debug)]
pub struct RecoveredJournal<R> {
    /// Every record whose commit had returned, in order, and perhaps those of the next commit.
    pub records: Vec<R>,
    /// The number of the segment that this opening started: larger than that of any earlier opening.
    pub segment: u32,
    /// A crash had cut the last commit short; it was never acknowledged, and is dropped.
    pub torn_tail_cut: bool,
    /// The parts that are unreadable. The records mark the affected slots as corrupt.
    pub corruption: Vec<Corruption>,
}

/// A journal. See the [module](self).
///
/// After an error the journal accepts no more records: what the disk holds is unknown until a new process reads it.
#[derive(Debug)]
pub struct Journal<F: Files, R> {
    files: F,
    owner: u64,
    segment_bytes: u64,
    active: ActiveSegment<F::File>,
    /// The next segment, ready for use.
    spare: Option<F::File>,
    next_group: u64,
    next_record: u64,
    /// The slots of the last group.
    slots_before: AcceptedRange,
    /// The existing segments, the active one last.
    row: VecDeque<SegmentInfo>,
    /// The promise floor of all records written.
    bound: PromiseFloor,
    /// All slots below are in a durable checkpoint: from the options at opening, and from later records, those being
    /// written included. Lower than the slot in `bound` if that checkpoint was lost.
    forgotten: Slot,
    left_free: LeftFree,
    has_failed: bool,
    /// The records of a commit as bytes; kept between commits.
    payload: Vec<u8>,
    /// The sectors of a group; kept between groups.
    sectors: Vec<u8>,
    kind: PhantomData<R>,
}

/// A segment, and why it may be needed.
#[derive(Clone, Copy, Debug)]
struct SegmentInfo {
    number: u32,
    first_group: u64,
    /// The slots of the values accepted in it.
    slots: AcceptedRange,
    /// The segment begins in the middle of a commit.
    continues: bool,
}

/// Index of the oldest segment that is needed once all slots below this one are truncated.
fn oldest_needed(row: &VecDeque<SegmentInfo>, below: Slot) -> usize {
    if below <= Slot(1) {
        return 0;
    }
    let is_needed = |kept: &SegmentInfo| kept.slots.is_some_and(|slots| slots.last >= below);
    let last = row.len().saturating_sub(1);
    let mut oldest = row.iter().position(is_needed).unwrap_or(last).min(last);
    // A commit is kept or removed as a whole.
    while oldest > 0 && row[oldest].continues {
        oldest -= 1;
    }
    oldest
}

/// The segment that takes the next group.
#[derive(Debug)]
struct ActiveSegment<File> {
    number: u32,
    file: File,
    header: Header,
    seed: Seed,
    /// The first sector that was never written.
    next: usize,
    /// Number of sectors in the segment.
    sectors: usize,
}

impl<File> ActiveSegment<File> {
    fn free(&self) -> usize {
        self.sectors - self.next
    }
}

fn sectors_of(bytes: u64) -> usize {
    (bytes / SECTOR_BYTES as u64) as usize
}

/// The name of a segment's file.
fn file_name(segment: u32) -> String {
    format!("{segment:010}.journal")
}

/// The number of a segment, from the name of its file.
fn segment_number(name: &str) -> Option<u32> {
    let number = name.strip_suffix(".journal")?.parse().ok()?;
    (number > 0 && number < u32::MAX && file_name(number) == name).then_some(number)
}

impl<F: Files, R: Record> Journal<F, R> {
    /// Reads the journal in this directory and starts a new segment with a copy of the last one's records. The new
    /// segment is short if there is no space for a whole one. Opening may be interrupted at any moment: the journal on
    /// disk always holds the same records.
    pub fn open(files: F, options: JournalOptions) -> Result<(Journal<F, R>, RecoveredJournal<R>), OpenError> {
        let bytes = options.segment_bytes;
        let is_fit = bytes.is_multiple_of(SECTOR_BYTES as u64) && (LEAST_BYTES..=1 << 30).contains(&bytes);
        assert!(is_fit, "a segment of {bytes} bytes is too small, too large, or not a whole number of sectors");
        let mut row = SegmentSet::read(&files, options)?;
        row.seal_last_but_one(&files, options.owner)?;

        let segment_bytes = row.last.segment_bytes.max(options.segment_bytes);
        let mut length = if row.numbers.is_empty() { segment_bytes.min(FIRST_SEGMENT_BYTES) } else { segment_bytes };
        let mut bound = PromiseFloor::by(&row.records);
        let forgotten = options.forgotten.unwrap_or(bound.below);
        let spare = ready_spare(&files, length)?;
        let had_space = spare.is_some();
        let file = match spare {
            Some(spare) => spare,
            None => {
                // The disk may be full of segments that are no longer needed.
                bound.below = row.shed_unneeded(&files, options.owner, bound, forgotten)?;
                match new_spare(&files, length) {
                    Err(OpenError::Full { bytes }) => {
                        length = short_length(&row.last, bytes).ok_or(OpenError::Full { bytes })?;
                        new_spare(&files, length)?
                    }
                    made => made?,
                }
            }
        };
        let number = row.numbers.last().map_or(1, |last| last + 1);
        let mut kept = row.kept;
        let (first_group, slots, continues) = (row.last.first_group, row.last.slots, row.last.continues);
        kept.push_back(SegmentInfo { number, first_group, slots, continues });
        let oldest = oldest_needed(&kept, bound.below.min(forgotten));
        let removed: Vec<u32> = kept.drain(..oldest).map(|kept| kept.number).chain(row.unneeded).collect();
        let base = SegmentBase { oldest: kept[0].number, oldest_group: kept[0].first_group, bound };
        let seed = Seed::new(options.owner, number);
        let header = Header {
            version: VERSION,
            segment: number,
            follows: row.last.follows,
            bytes: length,
            owner: options.owner,
            first_group: row.last.first_group,
            slots_before: row.last.slots_before,
            base,
        };
        let next = begin(&files, &file, header, row.last.bytes, &row.last.corrupt, seed)?;
        // The original may be removed only now, when the copy and its name are durable.
        let gone: Vec<u32> = row.replaced.into_iter().chain(removed).collect();
        for number in &gone {
            remove_if_present(&files, &file_name(*number)).map_err(failed("remove", file_name(*number)))?;
        }
        if !gone.is_empty() {
            files.sync_dir().map_err(failed("sync", "the directory".to_string()))?;
        }

        let next_record = row.records.len() as u64 + 1;
        let recovered = RecoveredJournal {
            records: row.records,
            segment: number,
            torn_tail_cut: row.is_cut,
            corruption: row.corruption,
        };
        let sectors = sectors_of(length);
        let mut journal = Journal {
            files,
            owner: options.owner,
            segment_bytes,
            active: ActiveSegment { number, file, header, seed, next, sectors },
            spare: None,
            next_group: row.next_group,
            next_record,
            slots_before: row.slots_before,
            row: kept,
            bound,
            forgotten,
            left_free: options.left_free,
            has_failed: false,
            payload: Vec::new(),
            sectors: Vec::new(),
            kind: PhantomData,
        };
        // Without a next segment the journal still works; it only has no space (see has_space).
        if had_space {
            // Removing the replaced file freed this space, so it belongs to the journal.
            journal.spare = make_spare(&journal.files, journal.segment_bytes).ok();
        }
        journal.retry_space().unwrap_or_default();
        Ok((journal, recovered))
    }

    /// Whether values may be accepted. While this is true, the next commit of up to half a segment succeeds however
    /// full the disk is. (At the default length that is about 7 MiB of records.) The other half remains for promises.
    /// False once the next segment could not be made: then the server refuses new values, continues to promise, and
    /// calls [`retry_space`](Journal::retry_space) now and then.
    ///
    /// Also true for a failed journal: the next commit returns the error, which a role that waited for space would
    /// never receive.
    pub fn has_space(&self) -> bool {
        self.spare.is_some() || self.has_failed
    }

    /// Tries again to prepare the next segment, if there is none. If there is no space for it, segments that are no
    /// longer needed are removed. A full disk does not stop the journal; after any other error the next commit fails.
    pub fn retry_space(&mut self) -> Result<(), JournalError> {
        if self.has_failed {
            return Err(JournalError::AlreadyFailed);
        }
        if self.spare.is_some() {
            return Ok(());
        }
        let mut made = self.next_spare();
        if made.is_err() && self.unneeded() > 0 {
            self.shed_unneeded()?;
            made = self.next_spare();
        }
        self.spare = Some(made.map_err(|source| JournalError::Full { bytes: self.segment_bytes, source })?);
        Ok(())
    }

    /// From now on the next segment is prepared only if this much space stays free.
    pub fn leave_free(&mut self, left_free: LeftFree) {
        self.left_free = left_free;
    }

    /// Prepares the next segment, if it fits beside the space left to others. Trying by filling the disk would take
    /// their last space.
    fn next_spare(&self) -> io::Result<F::File> {
        let LeftFree { always, to_grow } = self.left_free;
        let left = if self.row.len() > FEW_SEGMENTS { always.saturating_add(to_grow) } else { always };
        if left > 0 && self.files.free_bytes()? < self.segment_bytes.saturating_add(left) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        make_spare(&self.files, self.segment_bytes)
    }

    /// All slots below are truncated, or about to be.
    pub fn forgotten(&self) -> Slot {
        self.forgotten
    }

    /// Number of segments that are needed, the active one included.
    pub fn needed(&self) -> usize {
        self.row.len() - self.unneeded()
    }

    /// The number of the segment that takes the next record.
    pub fn segment(&self) -> u32 {
        self.active.number
    }

    fn append(&mut self, records: &[R]) -> Result<(), JournalError> {
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        let slots = encode(records, self.next_record, &mut payload);
        self.next_record += records.len() as u64;
        let begun_in = self.active.number;
        let mut done = 0;
        while done < payload.len() {
            let left = payload.len() - done;
            let is_fresh = self.active.next == FIRST_SECTOR;
            if GroupHeader::sectors_of(left) > self.active.free() && !is_fresh {
                self.move_on()?;
            }
            // Only a commit larger than a whole segment is split.
            let now = left.min(self.active.free() * PAYLOAD_BYTES);
            let first = if done == 0 { FIRST_OF_COMMIT } else { 0 };
            if let Some(kept) = self.row.back_mut() {
                kept.continues |= done > 0 && self.active.next == FIRST_SECTOR;
                kept.slots = union(kept.slots, slots);
            }
            let last = if now == left { LAST_OF_COMMIT } else { 0 };
            self.write_group(&payload[done..done + now], first | last, slots)?;
            done += now;
        }
        payload.shrink_to(KEPT_BUFFER_BYTES);
        self.payload = payload;
        let has_forgotten = self.spare.is_none() && self.unneeded() > 0;
        if self.active.number != begun_in || has_forgotten {
            self.retry_space().unwrap_or_default();
        }
        Ok(())
    }

    /// The hot path: one write, one sync.
    fn write_group(&mut self, payload: &[u8], flags: u32, slots: AcceptedRange) -> Result<(), JournalError> {
        let length = payload.len() as u32;
        let group = GroupHeader { number: self.next_group, length, flags, slots, slots_before: self.slots_before };
        self.sectors.clear();
        group.write(payload, self.active.seed, self.active.next, &mut self.sectors);
        let offset = (self.active.next * SECTOR_BYTES) as u64;
        let file = &self.active.file;
        file.write_at(offset, &self.sectors).map_err(fatal("write", self.active.number))?;
        rules::sync(file).map_err(fatal("sync", self.active.number))?;
        self.active.next += group.sectors();
        self.next_group += 1;
        self.slots_before = slots;
        self.sectors.shrink_to(KEPT_BUFFER_BYTES);
        Ok(())
    }

    /// Makes the spare the active segment. Its name is durable before the old segment is sealed, and the old segment is
    /// sealed before the new one takes a record. Segments that are no longer needed are removed.
    fn move_on(&mut self) -> Result<(), JournalError> {
        self.retry_space()?;
        let Some(file) = self.spare.take() else { return Err(JournalError::AlreadyFailed) };
        let old = &self.active;
        let number = old.number + 1;
        let oldest = self.row[oldest_needed(&self.row, self.bound.below.min(self.forgotten))];
        let base = SegmentBase { oldest: oldest.number, oldest_group: oldest.first_group, bound: self.bound };
        let header = Header {
            version: VERSION,
            segment: number,
            follows: old.number,
            bytes: self.segment_bytes,
            owner: self.owner,
            first_group: self.next_group,
            slots_before: self.slots_before,
            base,
        };
        file.write_at(0, &header.write()).map_err(fatal("write", number))?;
        file.sync_data().map_err(fatal("sync", number))?;
        self.files.rename(SPARE, &file_name(number)).map_err(fatal("name", number))?;
        rules::sync_name(&self.files).map_err(fatal("name", number))?;
        let seal = Seal { last_group: self.next_group - 1, slots: self.slots_before };
        old.file.write_at(SECTOR_BYTES as u64, &seal.write(old.seed)).map_err(fatal("seal", old.number))?;
        old.file.sync_data().map_err(fatal("seal", old.number))?;
        let seed = Seed::new(self.owner, number);
        let sectors = sectors_of(self.segment_bytes);
        self.active = ActiveSegment { number, file, header, seed, next: FIRST_SECTOR, sectors };
        let first_group = self.next_group;
        self.row.push_back(SegmentInfo { number, first_group, slots: None, continues: false });
        while self.row.front().is_some_and(|kept| kept.number < oldest.number) {
            let Some(kept) = self.row.pop_front() else { break };
            rules::end_segment(&self.files, &file_name(kept.number), &mut self.spare, SPARE);
        }
        Ok(())
    }
}

impl<F: Files, R: Record> StableStore<R> for Journal<F, R> {
    type Error = JournalError;

    fn commit(&mut self, records: &[R]) -> Result<(), JournalError> {
        if self.has_failed {
            return Err(JournalError::AlreadyFailed);
        }
        let bound = PromiseFloor::by(records);
        // Slots are truncated only after a durable checkpoint holds them. So segments may be removed before the
        // truncation is recorded: a full disk may have no space to record it.
        self.forgotten = self.forgotten.max(bound.below);
        let done = self.append(records);
        self.has_failed |= done.is_err();
        self.bound = self.bound.and(bound);
        done
    }
}

/// Writes the start of this incarnation's first segment into the spare, and renames the spare to that segment. Returns
/// the first free sector. `sectors` is a copy of the last segment, which the new one replaces; empty if there is none.
/// Corrupt sectors must stay corrupt: a new checksum would make them valid.
fn begin<F: Files>(
    files: &F,
    spare: &F::File,
    header: Header,
    mut sectors: Vec<u8>,
    corrupt: &[usize],
    seed: Seed,
) -> Result<usize, OpenError> {
    let name = file_name(header.segment);
    let head = FIRST_SECTOR * SECTOR_BYTES;
    sectors.resize(sectors.len().max(head), 0);
    sectors[..SECTOR_BYTES].copy_from_slice(&header.write());
    for (at, sector) in sectors.chunks_exact_mut(SECTOR_BYTES).enumerate().skip(FIRST_SECTOR) {
        if sector::is_zero(sector) {
            continue;
        }
        seed.at(at).close(sector);
        if corrupt.contains(&at) {
            sector[0] ^= 0xff;
        }
    }
    spare.write_at(0, &sectors).map_err(failed("write", name.clone()))?;
    spare.sync_data().map_err(failed("sync", name.clone()))?;
    files.rename(SPARE, &name).map_err(failed("name", name.clone()))?;
    files.sync_dir().map_err(failed("name", name))?;
    Ok(sectors.len() / SECTOR_BYTES)
}

/// The spare of an earlier incarnation, if it has the right length and holds only zeros. Any other spare is removed.
fn ready_spare<F: Files>(files: &F, bytes: u64) -> Result<Option<F::File>, OpenError> {
    let failed_spare = |action| failed(action, SPARE.to_string());
    let old = super::disk::read_if_present(files, SPARE).map_err(failed_spare("read"))?;
    match old {
        Some(old) if old.len() as u64 == bytes && sector::is_zero(&old) => {
            files.open(SPARE).map(Some).map_err(failed_spare("open"))
        }
        _ => {
            remove_if_present(files, SPARE).map_err(failed_spare("remove"))?;
            Ok(None)
        }
    }
}

/// Length of a short segment to replace the last one when there is no space for one of `bytes` bytes. A server without
/// space for the next segment accepts no values. So the last segment usually holds few of them, and has space for
/// promises for a long time. None if the short length would not be smaller.
fn short_length(last: &LastSegment, bytes: u64) -> Option<u64> {
    let room = (bytes / PROMISES_PART).next_multiple_of(SECTOR_BYTES as u64).max(LEAST_BYTES);
    Some(last.bytes.len() as u64 + room).filter(|length| *length < bytes)
}

/// Makes a new spare for a journal that is being opened. Testing for space by filling the disk would take the space of
/// others.
fn new_spare<F: Files>(files: &F, bytes: u64) -> Result<F::File, OpenError> {
    remove_if_present(files, SPARE_IN_MAKING).map_err(failed("remove", SPARE_IN_MAKING.to_string()))?;
    if files.free_bytes().is_ok_and(|free| free < bytes) {
        return Err(OpenError::Full { bytes });
    }
    make_spare(files, bytes).map_err(|source| match is_full(&source) && !is_short_of_files(&source) {
        true => OpenError::Full { bytes },
        false => failed("make", SPARE.to_string())(source),
    })
}

/// Prepares the next segment. The file gets the name `spare` only when it is complete, zeroed and synced.
fn make_spare<F: Files>(files: &F, bytes: u64) -> io::Result<F::File> {
    remove_if_present(files, SPARE_IN_MAKING)?;
    let made = files.create_zeroed(SPARE_IN_MAKING, bytes).and_then(|file| {
        files.rename(SPARE_IN_MAKING, SPARE)?;
        Ok(file)
    });
    if made.is_err() {
        // Freeing the disk space matters more than why the removal fails.
        remove_if_present(files, SPARE_IN_MAKING).unwrap_or_default();
    }
    made
}

fn failed(action: &'static str, file: String) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { action, file, source }
}

fn fatal(action: &'static str, segment: u32) -> impl FnOnce(io::Error) -> JournalError {
    move |source| JournalError::Io { action, file: file_name(segment), source }
}
