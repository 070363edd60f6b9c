//! The data directory of a simulated server: the files of [`DataDir`](paxos_kv::storage::DataDir), on disks in memory.

use std::path::Path;

use super::env::Micros;
use paxos_kv::host::RecoveryError;
use paxos_kv::storage::DataDirError;
use paxos_kv::storage::data_dir::{self, DirStorage};
use paxos_kv::storage::disk::{Files, InjectedFailure, MemoryFiles, name_in_making};
use paxos_kv::storage::identity::{DirIdentity, IDENTITY_FILE, IdentityError, Owner};

/// The name of every simulated cluster.
pub(super) const CLUSTER: &str = "sim";
/// The creation time of every data directory.
const CREATED: &str = "2026-01-01T00:00:00Z";

/// The files that survive the end of a process.
#[derive(Clone, Debug, Default)]
pub struct SimDataDir {
    /// The directory itself: identity and rounds.
    pub top: MemoryFiles,
    /// Its directory `journal`.
    pub journal: MemoryFiles,
    /// Its directory `checkpoint`.
    pub checkpoint: MemoryFiles,
    /// Its directory `coordinator`.
    pub coordinator: MemoryFiles,
}

/// A part of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimDirPart {
    /// The directory itself: identity and rounds.
    Top,
    /// The journal of the acceptor or participant.
    Journal,
    /// The checkpoint of the learner.
    Checkpoint,
    /// The records of the coordinator.
    Coordinator,
}

/// Why a server or a role does not start.
#[derive(Debug)]
pub enum StartRefusal {
    /// A disk operation failed; a later start may succeed.
    Disk(String),
    /// The disk has too little room; a later start may succeed.
    NoSpace(String),
    /// The data on the disk must not be used.
    Corrupt(String),
}

/// Time between two attempts to start on a full disk.
pub(super) const SPACE_RETRY: Micros = paxos_kv::host::role_disk::SPACE_RETRY.as_micros() as Micros;

impl DirStorage for SimDataDir {
    type Files = MemoryFiles;

    fn path(&self) -> &Path {
        Path::new("simulated")
    }

    fn top(&self) -> &MemoryFiles {
        &self.top
    }

    fn part(&self, part: data_dir::DirPart) -> Result<MemoryFiles, DataDirError> {
        Ok(self.files_of(part).clone())
    }

    fn has(&self, _part: data_dir::DirPart) -> bool {
        // An absent part is an empty one, which its reader notices.
        true
    }

    fn discard(&self, part: data_dir::DirPart) -> Result<(), DataDirError> {
        let files = self.files_of(part);
        let discarded = files.list().and_then(|names| names.iter().try_for_each(|name| files.remove(name)));
        let path = self.path().to_path_buf();
        discarded.map_err(|source| DataDirError::Io { action: "empty", path, source })
    }
}

impl SimDataDir {
    /// The identity in the directory, or a new one with this storage id if the directory is empty.
    pub fn identity(&self, owner: Owner<'_>, storage: u64) -> Result<DirIdentity<MemoryFiles>, StartRefusal> {
        match DirIdentity::read(self.top.clone(), owner)? {
            Some(identity) => Ok(identity),
            None => {
                let names = self.top.list().map_err(|error| StartRefusal::Disk(error.to_string()))?;
                if let Some(stranger) = names.into_iter().find(|name| *name != name_in_making(IDENTITY_FILE)) {
                    return Err(StartRefusal::Corrupt(format!("the directory has {stranger} but no {IDENTITY_FILE}")));
                }
                Ok(DirIdentity::create(self.top.clone(), owner, storage, CREATED.to_string())?)
            }
        }
    }

    /// A copy of all files on a disk of its own.
    pub fn fork(&self) -> SimDataDir {
        let [top, journal, checkpoint, coordinator] =
            [&self.top, &self.journal, &self.checkpoint, &self.coordinator].map(MemoryFiles::fork);
        SimDataDir { top, journal, checkpoint, coordinator }
    }

    fn files_of(&self, part: data_dir::DirPart) -> &MemoryFiles {
        match part {
            data_dir::DirPart::Journal => &self.journal,
            data_dir::DirPart::Coordinator => &self.coordinator,
            data_dir::DirPart::Checkpoint => &self.checkpoint,
        }
    }

    /// The process has ended, but the machine runs on.
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

    /// All parts.
    pub fn all(&self) -> impl Iterator<Item = &MemoryFiles> {
        [&self.top, &self.journal, &self.checkpoint, &self.coordinator].into_iter()
    }

    /// Puts all parts on one disk with this number of bytes left; None lifts the limit.
    pub fn limit_space(&self, bytes: Option<u64>) {
        let parts: Vec<&MemoryFiles> = self.all().collect();
        let used: u64 = self.all().map(MemoryFiles::used_bytes).sum();
        MemoryFiles::share_disk(&parts, bytes.map(|bytes| used + bytes));
    }

    /// Lets an operation of one part fail.
    pub fn fail(&self, part: SimDirPart, operation: u64, failure: InjectedFailure) {
        let files = match part {
            SimDirPart::Top => &self.top,
            SimDirPart::Journal => &self.journal,
            SimDirPart::Checkpoint => &self.checkpoint,
            SimDirPart::Coordinator => &self.coordinator,
        };
        files.fail(operation, failure);
    }

    /// Whether a read has failed since the last call.
    pub fn has_failed_to_read(&self) -> bool {
        self.all().fold(false, |failed, files| failed | files.has_failed_to_read())
    }

    /// The names of the files that make the checkpoint.
    pub fn checkpoint_files(&self) -> Vec<String> {
        self.checkpoint.image().into_keys().filter(|name| name.ends_with(".run")).collect()
    }

    /// Whether an operation has failed since the process started, other than for lack of room.
    pub fn has_failed(&self) -> bool {
        self.all().any(MemoryFiles::has_failed)
    }

    /// Whether the machine has stopped in one of its operations.
    pub fn has_stopped(&self) -> bool {
        self.all().any(MemoryFiles::has_stopped)
    }
}

impl From<IdentityError> for StartRefusal {
    fn from(error: IdentityError) -> StartRefusal {
        match error {
            _ if error.is_full() => StartRefusal::NoSpace(error.to_string()),
            IdentityError::Io { .. } | IdentityError::AlreadyFailed => StartRefusal::Disk(error.to_string()),
            _ => StartRefusal::Corrupt(error.to_string()),
        }
    }
}

impl From<DataDirError> for StartRefusal {
    fn from(error: DataDirError) -> StartRefusal {
        RecoveryError::from(error).into()
    }
}

impl From<RecoveryError> for StartRefusal {
    fn from(unborn: RecoveryError) -> StartRefusal {
        match unborn {
            RecoveryError::NoSpace(why) => StartRefusal::NoSpace(why),
            RecoveryError::Failed(why) => StartRefusal::Disk(why),
            RecoveryError::Broken(why) => StartRefusal::Corrupt(why),
        }
    }
}
