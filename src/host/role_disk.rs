//! The roles' disks in a server: what is done when one of them runs full.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::config::Sizes;
use crate::kv::VALUE_MAX_BYTES;
use crate::paxos::ProposerRecord;
use crate::role::{NoRecord, NoStableStore, StableStore};
use crate::storage::disk::Files;
use crate::storage::journal::{LeftFree, Record};
use crate::storage::{BallotStore, Journal, JournalError};

/// One group has values of at most so many bytes, and then whatever comes next.
const GROUP_MAX_BYTES: usize = 2 << 20;
/// What comes next: the largest value, its key, and what the records of a whole group have beside their values.
const LAST_OF_GROUP_BYTES: usize = VALUE_MAX_BYTES + (256 << 10);
/// A full disk is asked so often whether there is room again.
pub const ROOM_RETRY: Duration = Duration::from_secs(1);

/// The disk of a role in a server. It may run full, and have room again later.
pub trait RoleDisk<Record>: StableStore<Record> {
    /// One group may have values of so many bytes, and then whatever comes next.
    fn group_max_bytes(&self) -> usize {
        GROUP_MAX_BYTES
    }

    /// Whether new values can be taken, however full the disk becomes meanwhile.
    fn has_room(&self) -> bool {
        true
    }

    /// Looks whether there is room again.
    fn retry_space(&mut self) {}

    /// Whether something was forgotten since this was asked last, and more still could be: slots that were open when
    /// others were asked for room may be in the next checkpoint.
    fn could_shed_more(&mut self) -> bool {
        false
    }

    /// Whether a commit failed for want of room, and for nothing else: then the disk holds what it held before, and a
    /// later life may go on with it.
    fn is_full(_error: &Self::Error) -> bool {
        false
    }
}

impl RoleDisk<NoRecord> for NoStableStore {}

impl<F: Files> RoleDisk<ProposerRecord> for BallotStore<F> {}

/// A journal as the disk of a role. It has room while the next segment stands ready.
#[derive(Debug)]
pub struct RoleJournal<F: Files, R> {
    journal: Journal<F, R>,
    sizes: Sizes,
    /// Something was forgotten since somebody looked.
    has_forgotten: bool,
    /// How much room the next checkpoint may need, in bytes.
    growth: Arc<AtomicU64>,
}

/// What is not for the journal's next file. A checkpoint may grow by so much, and a life that begins copies the last
/// file.
pub fn left_free(sizes: &Sizes, growth: u64) -> LeftFree {
    LeftFree { always: sizes.left_free_bytes, to_grow: growth.max(sizes.segment_bytes) }
}

impl<F: Files, R: Record> RoleJournal<F, R> {
    /// A journal that has been opened.
    pub fn new(journal: Journal<F, R>, sizes: &Sizes, growth: Arc<AtomicU64>) -> RoleJournal<F, R> {
        RoleJournal { journal, sizes: *sizes, has_forgotten: false, growth }
    }

    /// How many of its files it could do without.
    pub fn unneeded(&self) -> usize {
        self.journal.unneeded()
    }

    /// The checkpoint may have grown since.
    fn leave_free(&mut self) {
        self.journal.leave_free(left_free(&self.sizes, self.growth.load(Ordering::Relaxed)));
    }
}

impl<F: Files, R: Record> RoleDisk<R> for RoleJournal<F, R> {
    /// What the journal promises while it has room, it promises for half a segment.
    fn group_max_bytes(&self) -> usize {
        let half = (self.sizes.segment_bytes / 2) as usize;
        // Short segments are for tests: there a large value has no promise.
        half.saturating_sub(LAST_OF_GROUP_BYTES).max(half / 4).min(GROUP_MAX_BYTES)
    }

    fn has_room(&self) -> bool {
        self.journal.has_space()
    }

    fn retry_space(&mut self) {
        self.leave_free();
        // No reason to stop: the next time may be better. If the disk has failed, the next commit says so.
        let _ = self.journal.retry_space();
    }

    fn could_shed_more(&mut self) -> bool {
        std::mem::take(&mut self.has_forgotten) && self.journal.needed() > 1
    }

    fn is_full(error: &JournalError) -> bool {
        matches!(error, JournalError::Full { .. })
    }
}

impl<F: Files, R: Record> StableStore<R> for RoleJournal<F, R> {
    type Error = JournalError;

    fn commit(&mut self, records: &[R]) -> Result<(), JournalError> {
        self.leave_free();
        let before = self.journal.forgotten();
        let done = self.journal.commit(records);
        self.has_forgotten |= self.journal.forgotten() > before;
        done
    }
}
