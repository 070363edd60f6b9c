//! Removing segments on a disk that has no room for another one.
//!
//! Usually a segment goes when the next one is begun: the header of the new one says which is the oldest that is
//! needed. On a full disk no new one can be begun, so the header of the last segment is written again in its place.
//! That is one sector, which a disk writes whole or not at all, and it takes no room. What was promised and forgotten
//! stands in it, so it stands for the removed files as the header of a new segment would.

use super::record::{PromiseFloor, Record};
use super::sector::{Header, SegmentBase, VERSION};
use super::segment_set::{LastSegment, SegmentSet};
use super::{ActiveSegment, Journal, JournalError, OpenError, SegmentInfo, failed, fatal, file_name, oldest_needed};
use crate::paxos::Slot;
use crate::storage::disk::{Files, StableFile, remove_if_present};
use crate::storage::rules;

impl<F: Files, R: Record> Journal<F, R> {
    /// How many segments there are in which no slot is needed.
    pub fn unneeded(&self) -> usize {
        if self.has_failed { 0 } else { oldest_needed(&self.row, self.forgotten) }
    }

    /// Removes the segments in which no slot is needed. After an error the journal is done for.
    pub(super) fn shed_unneeded(&mut self) -> Result<(), JournalError> {
        let oldest = self.unneeded();
        if oldest == 0 {
            return Ok(());
        }
        let bound = self.bound.and(PromiseFloor { below: self.forgotten, ..PromiseFloor::NONE });
        let header = Header { base: base_of(&self.row[oldest], bound), ..self.active.header };
        let ActiveSegment { file, number, .. } = &self.active;
        let written = file.write_at(0, &header.write()).and_then(|()| file.sync_data());
        // Nobody knows which of the two headers the disk holds after an error.
        self.has_failed |= written.is_err();
        written.map_err(fatal("write", *number))?;
        self.active.header = header;
        // The headers of later segments say it again.
        self.bound = bound;
        for kept in self.row.drain(..oldest) {
            rules::end_segment(&self.files, &file_name(kept.number), &mut self.spare, super::SPARE);
        }
        Ok(())
    }
}

impl<R: Record> SegmentSet<R> {
    /// The same for a journal that is being opened, whose role is bound to this, and that has no room for its new
    /// segment. All slots below `forgotten` are in a durable checkpoint. Says below which slot all are forgotten now:
    /// segments that are gone must not be taken for such in which nothing was accepted.
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
        // The last segment may be the copy that an interrupted opening has made, and was durable before it had its
        // name.
        let (copied, last) = self.replaced.iter().partition(|replaced| **replaced != number);
        self.replaced = last;
        let copied: Vec<u32> = copied;
        if oldest == 0 && self.unneeded.is_empty() && copied.is_empty() {
            return Ok(bound.below);
        }
        if oldest > 0 {
            self.rewrite_header(files, owner, number, base_of(&row[oldest], then))?;
        } else {
            // A process that died may have rewritten it, and what can be read need not be durable.
            let name = file_name(number);
            let file = files.open(&name).map_err(failed("open", name.clone()))?;
            file.sync_data().map_err(failed("sync", name))?;
        }
        // The last segment may have been given its name by a process that died before that was durable.
        files.sync_folder().map_err(failed("sync", "the folder".to_string()))?;
        let gone = self.kept.drain(..oldest).map(|kept| kept.number);
        for number in gone.chain(self.unneeded.drain(..)).chain(copied) {
            remove_if_present(files, &file_name(number)).map_err(failed("remove", file_name(number)))?;
        }
        Ok(if oldest > 0 { then.below } else { bound.below })
    }

    /// Gives the last segment, which has this number, a header that names another oldest one.
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
