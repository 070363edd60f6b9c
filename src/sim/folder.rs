//! The data folder of a simulated server: the files of [`DataFolder`](crate::storage::DataFolder), on disks in memory.

use super::nature::{Micros, SECOND};
use crate::paxos::{AcceptorRecord, ProposerRecord};
use crate::role::Disk;
use crate::storage::disk::{Failure, Files, MemoryFiles, name_in_making};
use crate::storage::identity::{IDENTITY_FILE, Identity, IdentityError, Owner};
use crate::storage::journal::{Journal, OpenError, Options};
use crate::storage::records::{Records, RecordsError};
use crate::storage::{JournalError, Recovered, Rounds, RoundsError};
use crate::two_phase_commit::{CoordinatorRecord, ParticipantRecord};

/// The name of every simulated cluster.
pub(super) const CLUSTER: &str = "sim";
/// When every folder was made.
const CREATED: &str = "2026-01-01T00:00:00Z";

/// What outlives a process.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    /// The folder itself: identity and rounds.
    pub top: MemoryFiles,
    /// Its folder `journal`.
    pub journal: MemoryFiles,
    /// Its folder `checkpoint`.
    pub checkpoint: MemoryFiles,
    /// Its folder `coordinator`.
    pub coordinator: MemoryFiles,
}

/// Which part of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Identity and rounds.
    Top,
    /// The acceptor's.
    Journal,
    /// The learner's.
    Checkpoint,
    /// The coordinator's.
    Coordinator,
}

/// Why a server does not start.
#[derive(Debug)]
pub enum Refusal {
    /// The disk refused, for now.
    Disk(String),
    /// The disk has no room for what is needed.
    NoRoom(String),
    /// What is on it must not be used.
    Damaged(String),
}

/// A full disk is asked so often whether there is room again.
pub(super) const ROOM_RETRY: Micros = SECOND;

/// The acceptor's journal, as the real server keeps it: it has room while the next segment stands ready.
pub struct AcceptorDisk {
    journal: Journal<MemoryFiles>,
    next_ask: Micros,
}

impl AcceptorDisk {
    /// Whether new values can be taken; a full disk is asked again now and then.
    pub fn has_room(&mut self, now: Micros) -> bool {
        if !self.journal.has_room() && now >= self.next_ask {
            self.next_ask = now + ROOM_RETRY;
            // No reason to stop: the next time may be better.
            let _ = self.journal.try_make_room();
        }
        self.journal.has_room()
    }
}

impl Disk<AcceptorRecord> for AcceptorDisk {
    type Error = JournalError;

    fn commit(&mut self, records: &[AcceptorRecord]) -> Result<(), JournalError> {
        self.journal.commit(records)
    }
}

/// Where a participant's records are.
pub type ParticipantDisk = Records<AcceptorDisk, ParticipantRecord>;
/// Where a coordinator's records are.
pub type CoordinatorDisk = Records<AcceptorDisk, CoordinatorRecord>;

/// A journal with what it remembers, whether a torn tail was cut, and whether anything else was lost.
pub type OpenedJournal = (AcceptorDisk, Vec<AcceptorRecord>, bool, bool);

impl Folder {
    /// The identity in the folder, or a new one with this storage id if the folder is empty.
    pub fn identity(&self, owner: Owner<'_>, storage: u64) -> Result<Identity<MemoryFiles>, Refusal> {
        match Identity::read(self.top.clone(), owner)? {
            Some(identity) => Ok(identity),
            None => {
                let names = self.top.list().map_err(|error| Refusal::Disk(error.to_string()))?;
                if let Some(stranger) = names.into_iter().find(|name| *name != name_in_making(IDENTITY_FILE)) {
                    return Err(Refusal::Damaged(format!("there is {stranger} and no {IDENTITY_FILE}")));
                }
                Ok(Identity::create(self.top.clone(), owner, storage, CREATED.to_string())?)
            }
        }
    }

    /// The acceptor's journal; a folder that has had one must have it still.
    pub fn open_journal(&self, identity: &Identity<MemoryFiles>, segment_bytes: u64) -> Result<OpenedJournal, Refusal> {
        let options = Options { segment_bytes, owner: identity.storage_id(), must_exist: identity.has_journal() };
        let (journal, recovered) = Journal::open(self.journal.clone(), options)?;
        identity.set_has_journal(true)?;
        let Recovered { records, torn_tail_cut, damage, .. } = recovered;
        Ok((AcceptorDisk { journal, next_ask: 0 }, records, torn_tail_cut, !damage.is_empty()))
    }

    /// The participant's log; a folder that has had one must have it still. With its records, and whether a torn tail was
    /// cut.
    pub fn open_participant(
        &self,
        identity: &Identity<MemoryFiles>,
        segment_bytes: u64,
    ) -> Result<(ParticipantDisk, Vec<ParticipantRecord>, bool), Refusal> {
        let (journal, records, is_cut, _) = self.open_journal(identity, segment_bytes)?;
        let (disk, records) = Records::new(journal, records)?;
        Ok((disk, records, is_cut))
    }

    /// The coordinator's log; a folder that has had one must have it still.
    pub fn open_coordinator(
        &self,
        identity: &Identity<MemoryFiles>,
        segment_bytes: u64,
    ) -> Result<(CoordinatorDisk, Vec<CoordinatorRecord>), Refusal> {
        let options = Options { segment_bytes, owner: identity.storage_id(), must_exist: identity.has_rounds() };
        let (journal, recovered) = Journal::open(self.coordinator.clone(), options)?;
        identity.set_has_rounds()?;
        Ok(Records::new(AcceptorDisk { journal, next_ask: 0 }, recovered.records)?)
    }

    /// The proposer's file of spent rounds; a folder that has had one must have it still.
    pub fn open_rounds(
        &self,
        identity: &Identity<MemoryFiles>,
    ) -> Result<(Rounds<MemoryFiles>, ProposerRecord), Refusal> {
        let rounds = Rounds::open(self.top.clone(), identity.storage_id(), identity.has_rounds())?;
        identity.set_has_rounds()?;
        let record = rounds.record();
        Ok((rounds, record))
    }

    /// The process is gone; the machine runs on.
    pub fn restart(&self) {
        self.all().for_each(MemoryFiles::restart);
    }

    /// The machine has lost its power.
    pub fn power_cut(&self, seed: u64) {
        self.top.power_cut(seed);
        self.journal.power_cut(seed.rotate_left(32));
        self.checkpoint.power_cut(seed.rotate_left(16));
        self.coordinator.power_cut(seed.rotate_left(48));
    }

    /// All its parts.
    pub fn all(&self) -> impl Iterator<Item = &MemoryFiles> {
        [&self.top, &self.journal, &self.checkpoint, &self.coordinator].into_iter()
    }

    /// Lets an operation of one part fail.
    pub fn fail(&self, part: Part, operation: u64, failure: Failure) {
        let files = match part {
            Part::Top => &self.top,
            Part::Journal => &self.journal,
            Part::Checkpoint => &self.checkpoint,
            Part::Coordinator => &self.coordinator,
        };
        files.fail(operation, failure);
    }

    /// Whether a read has failed since this was asked last.
    pub fn has_failed_to_read(&self) -> bool {
        self.all().fold(false, |failed, files| failed | files.has_failed_to_read())
    }

    /// Whether the machine has stopped in one of its operations.
    pub fn has_stopped(&self) -> bool {
        self.all().any(MemoryFiles::has_stopped)
    }
}

impl From<IdentityError> for Refusal {
    fn from(error: IdentityError) -> Refusal {
        match error {
            _ if error.is_full() => Refusal::NoRoom(error.to_string()),
            IdentityError::Io { .. } | IdentityError::Failed => Refusal::Disk(error.to_string()),
            _ => Refusal::Damaged(error.to_string()),
        }
    }
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Refusal {
        match error {
            OpenError::Io { .. } => Refusal::Disk(error.to_string()),
            OpenError::Full { .. } => Refusal::NoRoom(error.to_string()),
            _ => Refusal::Damaged(error.to_string()),
        }
    }
}

impl From<RecordsError> for Refusal {
    fn from(error: RecordsError) -> Refusal {
        Refusal::Damaged(error.to_string())
    }
}

impl From<RoundsError> for Refusal {
    fn from(error: RoundsError) -> Refusal {
        match error {
            _ if error.is_full() => Refusal::NoRoom(error.to_string()),
            RoundsError::Io { .. } | RoundsError::Failed => Refusal::Disk(error.to_string()),
            _ => Refusal::Damaged(error.to_string()),
        }
    }
}
