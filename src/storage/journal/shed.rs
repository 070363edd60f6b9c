//! Removing unneeded segments on a disk that has no space for another one.
//!
//! Usually segments are removed when the next one starts: the new header names the oldest that is needed. On a full
//! disk no segment can be started, so the header of the last one is rewritten in place. That is one sector, which a
//! disk writes whole or not at all, and it needs no new space. The header holds the promised ballot and the truncation
//! point, so it replaces the removed files like the header of a new segment.

use super::record::{PromiseFloor, Record};
use super::sector::{Header, SegmentBase, VERSION};
use super::segment_set::{LastSegment, SegmentSet};
use super::{ActiveSegment, Journal, JournalError, OpenError, SegmentInfo, failed, fatal, file_name, oldest_needed};
use crate::paxos::Slot;
use crate::storage::disk::{Files, StableFile, remove_if_present};
use crate::storage::rules;

impl<F: Files, R: Record> Journal<F, R> {
    /// Number of segments in which no slot is needed.
    pub fn unneeded(&self) -> usize {
        if self.has_failed { 0 } else { oldest_needed(&self.row, self.forgotten) }
    }

    /// Removes the segments in which no slot is needed. After an error the journal accepts no more records.
    pub(super) fn shed_unneeded(&mut self) -> Result<(), JournalError> {
        let oldest = self.unneeded();
        if oldest == 0 {
            return Ok(());
        }
        let bound = self.bound.and(PromiseFloor { below: self.forgotten, ..PromiseFloor::NONE });
        let header = Header { base: base_of(&self.row[oldest], bound), ..self.active.header };
        let ActiveSegment { file, number, .. } = &self.active;
        let written = file.write_at(0, &header.write()).and_then(|()| file.sync_data());
        // After an error it is unknown which of the two headers the disk holds.
        self.has_failed |= written.is_err();
        written.map_err(fatal("write", *number))?;
        self.active.header = header;
        // The headers of later segments repeat it.
        self.bound = bound;
        for kept in self.row.drain(..oldest) {
            rules::end_segment(&self.files, &file_name(kept.number), &mut self.spare, super::SPARE);
        }
        Ok(())
    }
}

impl<R: Record> SegmentSet<R> {
    /// The same for a journal that is being opened and has no space for its new segment. `bound` is the role's promise
    /// floor; all slots below `forgotten` are in a durable checkpoint. Returns the new truncation point: without it, a
    /// removed segment would look like one in which nothing was accepted.
    pub(super) fn shed_unneeded<F: Files>(
        &mut self,
        files: &F,
        owner: u64,
        bound: PromiseFloor,
        forgotten: Slot,
    ) -> Result<Slot, OpenError> {
        let Some(&number) = self.numbers.last() else { return Ok(bound.below) };
        let LastSegment { first_group, slots, continues, .. } = self.last;
        let mut row = self.kept.clone();
        row.push_back(SegmentInfo { number, first_group, slots, continues });
        let then = bound.and(PromiseFloor { below: forgotten, ..PromiseFloor::NONE });
        let oldest = oldest_needed(&row, forgotten);
        // The last segment may be a copy made by an interrupted opening. A copy is durable before it has its name.
        let (copied, last) = self.replaced.iter().partition(|replaced| **replaced != number);
        self.replaced = last;
        let copied: Vec<u32> = copied;
        if oldest == 0 && self.unneeded.is_empty() && copied.is_empty() {
            return Ok(bound.below);
        }
        if oldest > 0 {
            self.rewrite_header(files, owner, number, base_of(&row[oldest], then))?;
        } else {
            // A crashed process may have rewritten the header, and what is readable need not be durable.
            let name = file_name(number);
            let file = files.open(&name).map_err(failed("open", name.clone()))?;
            file.sync_data().map_err(failed("sync", name))?;
        }
        // A process may have crashed after naming the last segment and before that name was durable.
        files.sync_dir().map_err(failed("sync", "the directory".to_string()))?;
        let gone = self.kept.drain(..oldest).map(|kept| kept.number);
        for number in gone.chain(self.unneeded.drain(..)).chain(copied) {
            remove_if_present(files, &file_name(number)).map_err(failed("remove", file_name(number)))?;
        }
        Ok(if oldest > 0 { then.below } else { bound.below })
    }

    /// Rewrites the header of the last segment, which has this number, with another oldest segment.
    fn rewrite_header<F: Files>(&self, files: &F, owner: u64, number: u32, base: SegmentBase) -> Result<(), OpenError> {
        let LastSegment { follows, first_group, slots_before, segment_bytes: bytes, .. } = self.last;
        let header =
            Header { version: VERSION, segment: number, follows, bytes, owner, first_group, slots_before, base };
        let name = file_name(number);
        let file = files.open(&name).map_err(failed("open", name.clone()))?;
        file.write_at(0, &header.write()).map_err(failed("write", name.clone()))?;
        file.sync_data().map_err(failed("sync", name))
    }
}

fn base_of(oldest: &SegmentInfo, bound: PromiseFloor) -> SegmentBase {
    SegmentBase { oldest: oldest.number, oldest_group: oldest.first_group, bound }
}
