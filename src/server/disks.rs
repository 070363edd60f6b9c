//! The roles' disks in a server: the stores of the data folder, as each life opens them, and what is done when one of
//! them runs full.

use std::path::PathBuf;
use std::time::Duration;

use super::clock;
use super::lives::Unborn;
use crate::host::Time;
use crate::kv::VALUE_MAX_BYTES;
use crate::paxos::{AcceptorRecord, ProposerRecord};
use crate::role::{Disk, NoDisk, NoRecord};
use crate::storage::disk::RealFiles;
use crate::storage::records::{Kind, Records};
use crate::storage::{DataFolder, FolderError, Journal, JournalError, Recovered, Rounds};
use crate::two_phase_commit::{CoordinatorRecord, ParticipantRecord};

/// One group has values of at most so many bytes, and then whatever comes next.
const GROUP_MAX_BYTES: usize = 4 << 20;
/// What comes next: the largest value, its key, and what the records of a whole group have beside their values.
const LAST_OF_GROUP_BYTES: usize = VALUE_MAX_BYTES + (256 << 10);
/// A full disk is asked so often whether there is room again.
const ROOM_RETRY: Duration = Duration::from_secs(1);
/// So much is left free for others when the next segment is made: the small files of the data folder, and the lines.
const LEFT_FREE_BYTES: u64 = 1 << 20;

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

    /// When [`RoleDisk::ask_for_room`] is to be called next; None while there is room.
    fn next_ask(&self) -> Option<Time> {
        None
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

impl RoleDisk<ProposerRecord> for Rounds<RealFiles> {}

/// The acceptor's journal. It has room while the next segment stands ready.
pub struct AcceptorJournal {
    journal: Journal<RealFiles>,
    folder: PathBuf,
    segment_bytes: u64,
    next_ask: Option<Time>,
    /// Each commit takes so much longer.
    slowed_by: Option<Duration>,
}

impl AcceptorJournal {
    /// Opens the journal of a data folder; gives what it remembers.
    pub fn open(folder: &DataFolder, segment_bytes: u64) -> Result<(AcceptorJournal, Recovered), FolderError> {
        let (journal, recovered) = folder.open_journal(segment_bytes)?;
        Ok((AcceptorJournal::new(journal, folder.journal_path(), segment_bytes), recovered))
    }

    fn new(journal: Journal<RealFiles>, folder: PathBuf, segment_bytes: u64) -> AcceptorJournal {
        let mut journal = AcceptorJournal { journal, folder, segment_bytes, next_ask: None, slowed_by: None };
        journal.look();
        journal
    }

    /// The same, as if on a disk that takes so much longer for each commit.
    pub fn slowed_by(self, time: Option<Duration>) -> AcceptorJournal {
        AcceptorJournal { slowed_by: time, ..self }
    }

    /// Plans to ask for room if there is none.
    fn look(&mut self) {
        let next = || clock::now() + ROOM_RETRY;
        self.next_ask = if self.journal.has_room() { None } else { Some(self.next_ask.unwrap_or_else(next)) };
    }

    /// Whether the next segment fits beside what others need. To find out by filling the disk would take their last space.
    fn may_fit(&self) -> bool {
        let free = rustix::fs::statvfs(&self.folder).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        free.is_ok_and(|free| free >= self.segment_bytes + LEFT_FREE_BYTES)
    }
}

impl RoleDisk<AcceptorRecord> for AcceptorJournal {
    /// What the journal promises while it has room, it promises for half a segment.
    fn group_max_bytes(&self) -> usize {
        let half = (self.segment_bytes / 2) as usize;
        // Short segments are for tests: there a large value has no promise.
        half.saturating_sub(LAST_OF_GROUP_BYTES).max(half / 4).min(GROUP_MAX_BYTES)
    }

    fn has_room(&self) -> bool {
        self.journal.has_room()
    }

    fn next_ask(&self) -> Option<Time> {
        self.next_ask
    }

    fn ask_for_room(&mut self) {
        self.next_ask = None;
        if self.may_fit() {
            // No reason to stop: the next time may be better.
            let _ = self.journal.try_make_room();
        }
        self.look();
    }

    fn is_full(error: &JournalError) -> bool {
        matches!(error, JournalError::Full { .. })
    }
}

impl Disk<AcceptorRecord> for AcceptorJournal {
    type Error = JournalError;

    fn commit(&mut self, records: &[AcceptorRecord]) -> Result<(), JournalError> {
        self.journal.commit(records)?;
        self.slowed_by.into_iter().for_each(std::thread::sleep);
        self.look();
        Ok(())
    }
}

/// The log of a participant: a journal as an acceptor's, with other records in it.
pub type ParticipantLog = Records<AcceptorJournal, ParticipantRecord>;
/// The log of a coordinator.
pub type CoordinatorLog = Records<AcceptorJournal, CoordinatorRecord>;

impl ParticipantLog {
    /// Opens the log of a data folder; gives what it holds.
    pub fn open_participants(
        folder: &DataFolder,
        segment_bytes: u64,
    ) -> Result<(ParticipantLog, Vec<ParticipantRecord>), Unborn> {
        let (journal, recovered) = AcceptorJournal::open(folder, segment_bytes)?;
        opened(journal, recovered, "participant")
    }
}

impl CoordinatorLog {
    /// Opens the log of a data folder; gives what it holds.
    pub fn open_coordinators(
        folder: &DataFolder,
        segment_bytes: u64,
    ) -> Result<(CoordinatorLog, Vec<CoordinatorRecord>), Unborn> {
        let (journal, recovered) = folder.open_coordinator(segment_bytes)?;
        opened(AcceptorJournal::new(journal, folder.coordinator_path(), segment_bytes), recovered, "coordinator")
    }
}

fn opened<R: Kind>(
    journal: AcceptorJournal,
    recovered: Recovered,
    whose: &str,
) -> Result<(Records<AcceptorJournal, R>, Vec<R>), Unborn> {
    let broken = |error| Unborn::Broken(format!("the journal of the {whose} cannot be used: {error}"));
    Records::new(journal, recovered.records).map_err(broken)
}

impl<R: Kind> RoleDisk<R> for Records<AcceptorJournal, R> {
    fn group_max_bytes(&self) -> usize {
        self.journal().group_max_bytes()
    }

    fn has_room(&self) -> bool {
        self.journal().has_room()
    }

    fn next_ask(&self) -> Option<Time> {
        self.journal().next_ask()
    }

    fn ask_for_room(&mut self) {
        self.journal_mut().ask_for_room();
    }
}

/// Opens the proposer's file; gives what it remembers.
pub fn open_rounds(folder: &DataFolder) -> Result<(Rounds<RealFiles>, ProposerRecord), FolderError> {
    let rounds = folder.open_rounds()?;
    let record = rounds.record();
    Ok((rounds, record))
}
