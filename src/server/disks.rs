//! The roles' disks in a server: the stores of the data folder, as the supervisor opens them for each life.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::paxos::{AcceptorRecord, ProposerRecord};
use crate::role::Disk;
use crate::storage::disk::RealFiles;
use crate::storage::{DataFolder, FolderError, Journal, JournalError, Rounds};

/// The acceptor's journal, and whether it has room for another value.
pub struct AcceptorJournal {
    journal: Journal<RealFiles>,
    has_room: Arc<AtomicBool>,
}

impl AcceptorJournal {
    /// Opens the journal of a data folder; gives what it remembers.
    pub fn open(
        folder: &DataFolder,
        segment_bytes: u64,
    ) -> Result<(AcceptorJournal, Vec<AcceptorRecord>), FolderError> {
        let (journal, recovered) = folder.open_journal(segment_bytes)?;
        let has_room = Arc::new(AtomicBool::new(journal.has_room()));
        Ok((AcceptorJournal { journal, has_room }, recovered.records))
    }

    /// True while the next segment stands ready: then any value can be accepted without asking the disk for space.
    pub fn has_room(&self) -> Arc<AtomicBool> {
        self.has_room.clone()
    }
}

impl Disk<AcceptorRecord> for AcceptorJournal {
    type Error = JournalError;

    fn commit(&mut self, records: &[AcceptorRecord]) -> Result<(), JournalError> {
        self.journal.commit(records)?;
        if !self.journal.has_room() {
            // A full disk is no reason to stop: values are shed, promises go on, and each of them asks again.
            let _ = self.journal.try_make_room();
        }
        self.has_room.store(self.journal.has_room(), Ordering::Relaxed);
        Ok(())
    }
}

/// Opens the proposer's file; gives what it remembers.
pub fn open_rounds(folder: &DataFolder) -> Result<(Rounds<RealFiles>, ProposerRecord), FolderError> {
    let rounds = folder.open_rounds()?;
    let record = rounds.record();
    Ok((rounds, record))
}
