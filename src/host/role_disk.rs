//! The disks of the roles in a server, and what happens when one of them is full.

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

/// Maximum bytes of the values in one batch, before its last item.
const GROUP_MAX_BYTES: usize = 2 << 20;
/// Maximum bytes of the last item: the largest value, its key, and everything in a batch's records except the values.
const LAST_OF_GROUP_BYTES: usize = VALUE_MAX_BYTES + (256 << 10);
/// Period of the checks of a full disk for free space.
pub const SPACE_RETRY: Duration = Duration::from_secs(1);

/// The disk of a role in a server. It may become full, and have room again later.
pub trait RoleDisk<Record>: StableStore<Record> {
    /// Maximum bytes of the values in one batch, before its last item.
    fn group_max_bytes(&self) -> usize {
        GROUP_MAX_BYTES
    }

    /// Whether the disk can take new values, even if it becomes full meanwhile.
    fn has_space(&self) -> bool {
        true
    }

    /// Checks for free space again.
    fn retry_space(&mut self) {}

    /// Whether records were truncated since the last call, and more could be. The next checkpoint may hold slots that
    /// were still in flight when this role last requested room.
    fn could_shed_more(&mut self) -> bool {
        false
    }

    /// Whether a commit failed only for lack of room. Then the disk holds what it held before, and a later incarnation
    /// may continue with it.
    fn is_full(_error: &Self::Error) -> bool {
        false
    }
}

impl RoleDisk<NoRecord> for NoStableStore {}

impl<F: Files> RoleDisk<ProposerRecord> for BallotStore<F> {}

/// A journal as the disk of a role. It has room while the next segment is allocated.
#[derive(Debug)]
pub struct RoleJournal<F: Files, R> {
    journal: Journal<F, R>,
    sizes: Sizes,
    /// Records were truncated since the last call of `could_shed_more`.
    has_forgotten: bool,
    /// The disk space that the next checkpoint may need, in bytes.
    growth: Arc<AtomicU64>,
}

/// The disk space that the journal leaves free when it allocates a segment. A checkpoint may grow by `growth` bytes,
/// and a new incarnation copies the last segment.
pub fn left_free(sizes: &Sizes, growth: u64) -> LeftFree {
    LeftFree { always: sizes.left_free_bytes, to_grow: growth.max(sizes.segment_bytes) }
}

impl<F: Files, R: Record> RoleJournal<F, R> {
    /// Wraps a journal that has been opened.
    pub fn new(journal: Journal<F, R>, sizes: &Sizes, growth: Arc<AtomicU64>) -> RoleJournal<F, R> {
        RoleJournal { journal, sizes: *sizes, has_forgotten: false, growth }
    }

    /// Number of the journal's files that are no longer needed.
    pub fn unneeded(&self) -> usize {
        self.journal.unneeded()
    }

    /// Updates the reserve, since the checkpoint may have grown.
    fn leave_free(&mut self) {
        self.journal.leave_free(left_free(&self.sizes, self.growth.load(Ordering::Relaxed)));
    }
}

impl<F: Files, R: Record> RoleDisk<R> for RoleJournal<F, R> {
    /// While the journal has room, it guarantees half a segment.
    fn group_max_bytes(&self) -> usize {
        let half = (self.sizes.segment_bytes / 2) as usize;
        // Short segments are for tests: with them, a large value has no guarantee.
        half.saturating_sub(LAST_OF_GROUP_BYTES).max(half / 4).min(GROUP_MAX_BYTES)
    }

    fn has_space(&self) -> bool {
        self.journal.has_space()
    }

    fn retry_space(&mut self) {
        self.leave_free();
        // An error is no reason to stop: the next check may succeed. If the disk has failed, the next commit reports
        // it.
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
