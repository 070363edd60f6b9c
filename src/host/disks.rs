//! The roles' disks in a server: what is done when one of them runs full.

use std::time::Duration;

use super::config::Sizes;
use crate::kv::VALUE_MAX_BYTES;
use crate::paxos::ProposerRecord;
use crate::role::{Disk, NoDisk, NoRecord};
use crate::storage::disk::Files;
use crate::storage::journal::Record;
use crate::storage::{Journal, JournalError, Rounds};

/// One group has values of at most so many bytes, and then whatever comes next.
const GROUP_MAX_BYTES: usize = 4 << 20;
/// What comes next: the largest value, its key, and what the records of a whole group have beside their values.
const LAST_OF_GROUP_BYTES: usize = VALUE_MAX_BYTES + (256 << 10);
/// A full disk is asked so often whether there is room again.
pub const ROOM_RETRY: Duration = Duration::from_secs(1);

/// The disk of a role in a server. It may run full, and have room again later.
pub trait RoleDisk<Record>: Disk<Record> {
    /// One group may have values of so many bytes, and then whatever comes next.
    fn group_max_bytes(&self) -> usize {
        GROUP_MAX_BYTES
    }

    /// Whether new values can be taken, however full the disk becomes meanwhile.
    fn has_room(&self) -> bool {
        true
    }

    /// Looks whether there is room again.
    fn ask_for_room(&mut self) {}

    /// Whether a commit failed for want of room, and for nothing else: then the disk holds what it held before, and a later
    /// life may go on with it.
    fn is_full(_error: &Self::Error) -> bool {
        false
    }
}

impl RoleDisk<NoRecord> for NoDisk {}

impl<F: Files> RoleDisk<ProposerRecord> for Rounds<F> {}

/// A journal as the disk of a role. It has room while the next segment stands ready.
#[derive(Debug)]
pub struct RoleJournal<F: Files, R> {
    journal: Journal<F, R>,
    segment_bytes: u64,
    left_free_bytes: u64,
}

impl<F: Files, R: Record> RoleJournal<F, R> {
    /// A journal that has been opened.
    pub fn new(journal: Journal<F, R>, sizes: &Sizes) -> RoleJournal<F, R> {
        let Sizes { segment_bytes, left_free_bytes, .. } = *sizes;
        RoleJournal { journal, segment_bytes, left_free_bytes }
    }

    /// Whether the next segment fits beside what others need. To find out by filling the disk would take their last space.
    fn may_fit(&self) -> bool {
        self.journal.free_bytes().is_ok_and(|free| free >= self.segment_bytes + self.left_free_bytes)
    }
}

impl<F: Files, R: Record> RoleDisk<R> for RoleJournal<F, R> {
    /// What the journal promises while it has room, it promises for half a segment.
    fn group_max_bytes(&self) -> usize {
        let half = (self.segment_bytes / 2) as usize;
        // Short segments are for tests: there a large value has no promise.
        half.saturating_sub(LAST_OF_GROUP_BYTES).max(half / 4).min(GROUP_MAX_BYTES)
    }

    fn has_room(&self) -> bool {
        self.journal.has_room()
    }

    fn ask_for_room(&mut self) {
        if self.may_fit() {
            // No reason to stop: the next time may be better.
            let _ = self.journal.try_make_room();
        }
    }

    fn is_full(error: &JournalError) -> bool {
        matches!(error, JournalError::Full { .. })
    }
}

impl<F: Files, R: Record> Disk<R> for RoleJournal<F, R> {
    type Error = JournalError;

    fn commit(&mut self, records: &[R]) -> Result<(), JournalError> {
        self.journal.commit(records)
    }
}
