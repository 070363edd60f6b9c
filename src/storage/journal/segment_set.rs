//! The segments that a new incarnation finds: which exist, which are needed, and what they hold.

use std::collections::VecDeque;

use super::reader::{self, JournalReader, Segment};
use super::record::Record;
use super::sector::{AcceptedRange, Header, Seal, Seed, SegmentBase};
use super::{
    Corruption, JournalOptions, OpenError, SPARE, SPARE_IN_MAKING, SegmentInfo, failed, file_name, segment_number,
};
use crate::storage::disk::{Files, SECTOR_BYTES, StableFile};
use crate::storage::rules;

/// The segments that a new incarnation finds.
pub(super) struct SegmentSet<R> {
    /// The existing segments, in order.
    pub(super) numbers: Vec<u32>,
    /// The segments that the new one replaces: the last, and those that an interrupted opening left.
    pub(super) replaced: Vec<u32>,
    /// Segments that the last segment's header declares unneeded: an interrupted process left them.
    pub(super) unneeded: Vec<u32>,
    /// The other segments, without the last.
    pub(super) kept: VecDeque<SegmentInfo>,
    pub(super) last: LastSegment,
    /// The last segment but one, and its seal.
    pub(super) last_but_one: Option<(u32, Seal)>,
    pub(super) records: Vec<R>,
    pub(super) next_group: u64,
    pub(super) slots_before: AcceptedRange,
    pub(super) is_cut: bool,
    pub(super) corruption: Vec<Corruption>,
}

/// The last segment.
pub(super) struct LastSegment {
    pub(super) follows: u32,
    pub(super) first_group: u64,
    /// The slots of the group before its first.
    pub(super) slots_before: AcceptedRange,
    /// Length of its file, in bytes; 0 if there is none.
    pub(super) segment_bytes: u64,
    /// Its sectors up to the end of its last whole group.
    pub(super) bytes: Vec<u8>,
    /// The corrupt ones among them.
    pub(super) corrupt: Vec<usize>,
    /// The slots of the values accepted in it.
    pub(super) slots: AcceptedRange,
    /// The segment begins in the middle of a commit.
    pub(super) continues: bool,
}

/// The predecessor of a new journal's first segment.
const NOTHING: LastSegment = LastSegment {
    follows: 0,
    first_group: 1,
    slots_before: None,
    segment_bytes: 0,
    bytes: Vec::new(),
    corrupt: Vec::new(),
    slots: None,
    continues: false,
};

impl<R: Record> SegmentSet<R> {
    /// Reads everything and changes nothing.
    pub(super) fn read<F: Files>(files: &F, options: JournalOptions) -> Result<SegmentSet<R>, OpenError> {
        let numbers = segments(files)?;
        let mut row = SegmentSet {
            replaced: Vec::new(),
            unneeded: Vec::new(),
            kept: VecDeque::new(),
            last: NOTHING,
            last_but_one: None,
            records: Vec::new(),
            next_group: 1,
            slots_before: None,
            is_cut: false,
            corruption: Vec::new(),
            numbers,
        };
        let Some(&last) = row.numbers.last() else {
            return if options.must_exist { Err(OpenError::Missing) } else { Ok(row) };
        };
        let file = file_name(last);
        let mut bytes = files.read(&file).map_err(failed("read", file.clone()))?;
        let segment = Segment { file: &file, number: last, bytes: &bytes, next: None, is_last: true };
        let header = reader::header(options.owner, segment)?;
        let SegmentBase { oldest, .. } = header.base;
        // The last segment names its predecessor; it has replaced the segments in between.
        row.replaced = row.numbers.iter().copied().filter(|number| *number > header.follows).collect();
        row.unneeded = row.numbers.iter().copied().filter(|number| *number < oldest && *number < last).collect();
        let needed = oldest..=header.follows;
        let needed: Vec<u32> = row.numbers.iter().copied().filter(|number| needed.contains(number)).collect();
        if oldest <= header.follows && needed.first() != Some(&oldest) {
            return Err(OpenError::MissingSegment { file: file_name(oldest), before: file });
        }

        let mut reader = JournalReader::new(options.owner, header.base);
        let mut before = None;
        let read = |number: u32| files.read(&file_name(number)).map_err(failed("read", file_name(number)));
        let mut following = needed.first().copied().map(read).transpose()?;
        for (at, number) in needed.iter().copied().enumerate() {
            let (file, bytes) = (file_name(number), following.take().unwrap_or_default());
            following = needed.get(at + 1).copied().map(read).transpose()?;
            let next = match (needed.get(at + 1), &following) {
                (Some(next), Some(bytes)) => header_of(options.owner, *next, bytes),
                _ => Some(header),
            };
            let first_group = reader.seal().last_group + 1;
            let found = reader.segment(Segment { file: &file, number, bytes: &bytes, next, is_last: false })?;
            row.kept.push_back(SegmentInfo { number, first_group, slots: found.slots, continues: found.continues });
            before = Some((number, reader.seal())).filter(|_| rules::must_seal_again(found.is_sealed));
        }
        let found = reader.segment(segment)?;
        if found.is_sealed {
            return Err(OpenError::EndMissing { file });
        }
        bytes.truncate(found.used * SECTOR_BYTES);
        let Header { follows, first_group, slots_before, bytes: segment_bytes, .. } = header;
        let reader::SegmentContents { corrupt, slots, continues, .. } = found;
        row.last = LastSegment { follows, first_group, slots_before, segment_bytes, bytes, corrupt, slots, continues };
        row.last_but_one = before;
        let read = reader.finish()?;
        row.records = read.records;
        row.next_group = read.next_group;
        row.slots_before = read.slots_before;
        row.is_cut = read.is_cut;
        row.corruption = read.corruption;
        Ok(row)
    }

    /// Seals a segment that a crash left open, between naming its successor and sealing it. An existing seal is written
    /// once more. The previous process may have stopped because its sync failed, and then the seal is readable but not
    /// durable.
    pub(super) fn seal_last_but_one<F: Files>(&self, files: &F, owner: u64) -> Result<(), OpenError> {
        let Some((number, seal)) = self.last_but_one else { return Ok(()) };
        let name = file_name(number);
        // A seal promises that another segment follows, so that segment's name must be durable first.
        files.sync_dir().map_err(failed("sync", "the directory".to_string()))?;
        let file = files.open(&name).map_err(failed("open", name.clone()))?;
        let sector = seal.write(Seed::new(owner, number));
        file.write_at(SECTOR_BYTES as u64, &sector).map_err(failed("seal", name.clone()))?;
        file.sync_data().map_err(failed("seal", name))
    }
}

/// The header of a segment that is not the last one, if it can be read.
fn header_of(owner: u64, number: u32, bytes: &[u8]) -> Option<Header> {
    reader::header(owner, Segment { file: &file_name(number), number, bytes, next: None, is_last: false }).ok()
}

/// The numbers of the segments in the directory, sorted. A file that does not belong to the journal is an error.
pub(super) fn segments<F: Files>(files: &F) -> Result<Vec<u32>, OpenError> {
    let names = files.list().map_err(failed("list", "the directory".to_string()))?;
    let mut numbers = Vec::new();
    for name in names {
        match segment_number(&name) {
            Some(number) => numbers.push(number),
            None if name == SPARE || name == SPARE_IN_MAKING => {}
            None => return Err(OpenError::UnknownFile { file: name }),
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}
