//! Merges: adjacent runs become one, so that their number and their bytes stay in proportion to the state.
//!
//! When all runs but the oldest have as many bytes together as the oldest, all of them are merged. Each byte of a
//! checkpoint is then written at most three times: in its run, and at most twice the bytes of the runs in the merge,
//! whatever the store holds and however long its values are. (To keep long values out of merges would take a second
//! kind of file and a collector of its garbage; the bound does not depend on it.) In between, if there are too many
//! runs, the newest of them are merged with each other.
//!
//! A merge needs room for its result beside the runs. If there are too many runs and no room for the merge that is
//! due, as many of the newest are merged as have room: so their number falls also on a disk that is almost full.
//!
//! A merge is done a piece at a time, by the thread that writes checkpoints, while it has no other job. It holds one
//! block of each run in memory. Checkpoints that are written meanwhile add runs behind those of the merge.

use super::entry::Place;
use super::error::{CheckpointError, refused};
use super::merge::Merge;
use super::run::{Seal, Span};
use super::writer::RunWriter;
use super::{Checkpoint, GROWTH_MAX_BYTES};
use crate::paxos::PartToken;
use crate::storage::disk::{Files, remove_if_present};

/// Runs of fewer bytes than this are not yet merged.
pub const MERGE_MIN_BYTES: u64 = 4 << 20;
/// The result of a merge, until it is whole.
pub(super) const NEW_FILE: &str = "merge.new";
/// From this number of runs on, the newest of them are merged with each other.
const RUNS_BEFORE_MERGE: usize = 48;

/// A merge that is being done.
#[derive(Debug)]
pub(super) struct MergeInProgress<F: Files> {
    pub(super) span: Span,
    from: Merge<F::File>,
    to: RunWriter<F>,
}

impl<F: Files> Checkpoint<F> {
    /// Whether a merge is in progress or due.
    pub fn has_work(&self) -> bool {
        self.merge.is_some() || (!self.waits_for_room && self.due_merge().is_some())
    }

    /// The number of the oldest run that is to be merged with all newer ones, if a merge is due.
    fn due_merge(&self) -> Option<usize> {
        let (oldest, newer) = (self.runs.first()?.length, self.bytes_from(1));
        if newer >= oldest.max(self.options.merge_bytes) {
            return Some(0);
        }
        (self.runs.len() >= RUNS_BEFORE_MERGE).then(|| self.oldest_of_the_newest(u64::MAX))
    }

    /// The number of the oldest run of those that are merged when there are too many, with this number of bytes free.
    fn oldest_of_the_newest(&self, free: u64) -> usize {
        let mut from = self.runs.len() - RUNS_BEFORE_MERGE / 2;
        // As many older ones as keep the lengths of the runs falling: so each byte is merged seldom.
        let may_grow = |from: usize| {
            from > 1 && self.runs[from - 1].length <= self.bytes_from(from) && self.needed_for_merge(from - 1) <= free
        };
        while may_grow(from) {
            from -= 1;
        }
        while from + 2 < self.runs.len() && self.needed_for_merge(from) > free {
            from += 1;
        }
        from
    }

    fn bytes_from(&self, from: usize) -> u64 {
        self.runs[from..].iter().map(|run| run.length).sum()
    }

    /// Free bytes without which a merge of the runs from this one on does not begin.
    fn needed_for_merge(&self, from: usize) -> u64 {
        self.bytes_from(from) + self.largest_checkpoint()
    }

    /// Does a piece of the merge that is due. A full disk ends the merge with an error and changes nothing else; the
    /// next checkpoint begins it again.
    pub fn merge_some(&mut self) -> Result<(), CheckpointError> {
        let done = self.merge_a_piece();
        if done.is_err() {
            self.drop_merge();
            self.waits_for_room = true;
        }
        done
    }

    fn merge_a_piece(&mut self) -> Result<(), CheckpointError> {
        let mut merge = match self.merge.take() {
            Some(merge) => merge,
            None => match self.due_merge() {
                Some(from) => self.begin_merge(from)?,
                None => return Ok(()),
            },
        };
        let writes = merge.to.writes();
        while merge.to.writes() == writes {
            match merge.from.next()? {
                // Nothing older is left of which the session could be a part.
                Some(entry) if entry.is_end() && merge.span.first == 1 => {}
                Some(entry) => merge.to.push(entry).map_err(refused("write", NEW_FILE))?,
                None => {
                    let run = merge.to.finish(merge.span).map_err(refused("write", NEW_FILE))?;
                    self.add(run);
                    return Ok(());
                }
            }
        }
        self.merge = Some(merge);
        Ok(())
    }

    fn begin_merge(&self, due: usize) -> Result<MergeInProgress<F>, CheckpointError> {
        let free = self.files.free_bytes().map_err(refused("merge into", NEW_FILE))?;
        let has_room = self.needed_for_merge(due) <= free;
        let has_many = self.runs.len() >= RUNS_BEFORE_MERGE;
        let from = if !has_room && has_many { self.oldest_of_the_newest(free) } else { due };
        let needed = self.needed_for_merge(from);
        if free < needed {
            let cause = format!("its files can be merged when {needed} bytes are free; {free} are");
            return Err(CheckpointError::Full { cause });
        }
        let runs = &self.runs[from..];
        let seal = Seal { owner: self.options.owner, mark: self.mark() };
        let to = RunWriter::create(&self.files, NEW_FILE, seal, self.options.part_bytes);
        let from = Merge::new(runs, Place::from(&PartToken::first()))?;
        let span = Span { first: runs.first().map_or(1, |run| run.span.first), last: self.last_number() };
        Ok(MergeInProgress { span, from, to: to.map_err(refused("write", NEW_FILE))? })
    }

    pub(super) fn drop_merge(&mut self) {
        self.merge = None;
        // Freeing the disk space matters more than why the removal fails.
        remove_if_present(&self.files, NEW_FILE).unwrap_or_default();
    }

    /// Length of the largest run of one checkpoint, in bytes.
    fn largest_checkpoint(&self) -> u64 {
        let of_one = self.runs.iter().filter(|run| run.span.first == run.span.last);
        of_one.map(|run| run.length).max().unwrap_or_default()
    }

    /// Disk space that the next checkpoints and the next merge may need, in bytes.
    pub fn growth_bytes(&self) -> u64 {
        let Some(oldest) = self.runs.first() else { return 0 };
        let used: u64 = self.runs.iter().map(|run| run.length).sum();
        let before_merge = oldest.length + oldest.length.max(self.options.merge_bytes) + 2 * self.largest_checkpoint();
        (2 * before_merge).saturating_sub(used).min(GROWTH_MAX_BYTES)
    }
}
