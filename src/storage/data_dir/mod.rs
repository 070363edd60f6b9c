//! The data directory of one server.
//!
//! ```text
//! lock            held by the process that uses the directory
//! identity.toml   which server the directory belongs to
//! journal/        the acceptor's stable storage; under two-phase commit the participant's
//! rounds          the proposer's
//! coordinator/    instead of rounds under two-phase commit: the coordinator's
//! checkpoint/     the learner's: the state after some slot
//! ```

mod dir_storage;
mod error;
#[cfg(test)]
mod tests;
mod unfinished;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

pub use dir_storage::{DirPart, DirStorage, RealDir};
use dir_storage::{LOCK_FILE, failed, hold};
pub(super) use dir_storage::{create_dir_durably, lock, sync_names};
pub use error::DataDirError;
use unfinished::refuse_unfinished;
pub(super) use unfinished::{COMPLETE_FILE, RESTORE_DIR, dir_name, is_of_a_restore};

use super::admission::{Claim, RecordedPeer};
use super::ballot_store::{BallotStore, ROUNDS_FILE};
use super::disk::{Files, RealFiles, name_in_making};
use super::identity::{Admitted, DirIdentity, IDENTITY_FILE, IdentityError, Owner};
use super::journal::{Journal, JournalOptions, LeftFree, OpenError, Record, RecoveredJournal};
use crate::paxos::Slot;
use crate::protocol::Family;
use crate::role::ServerId;

/// The root of a file system may hold this directory, and may be a data directory.
const LOST_AND_FOUND: &str = "lost+found";

/// The data directory of one server, used by one process. Any thread may use it.
#[derive(Debug)]
pub struct DataDir<P: DirStorage = RealDir> {
    dir: P,
    identity: DirIdentity<P::Files>,
    incarnation: u32,
}

impl DataDir {
    /// Opens the directory of a server, or creates it (readable for this user alone), and starts an incarnation on it.
    pub fn open(path: &Path, owner: Owner<'_>) -> Result<DataDir, DataDirError> {
        refuse_unfinished(path, owner.server)?;
        create_dir_durably(path).map_err(failed("create the directory", path))?;
        let dir = RealDir::hold(path)?;
        let denied = |source| DataDirError::Identity { path: path.to_path_buf(), source };
        let identity = match DirIdentity::read(dir.files.clone(), owner).map_err(denied)? {
            Some(identity) => identity,
            None => {
                refuse_foreign_files(path, &dir.files)?;
                DirIdentity::create(dir.files.clone(), owner, new_storage_id()?, now()).map_err(denied)?
            }
        };
        DataDir::begin(dir, identity)
    }

    /// Checks whether a server could start on the directory: it is this server's and not in use, or it can be created.
    /// Changes nothing.
    pub fn check(path: &Path, owner: Owner<'_>, family: Family) -> Result<(), DataDirError> {
        let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
        if !there.is_dir() {
            return Err(failed("create the directory", path)(io::ErrorKind::NotADirectory.into()));
        }
        access(there, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| failed("write to", there)(error.into()))?;
        refuse_unfinished(path, owner.server)?;
        if there != path {
            return Ok(());
        }
        let name = path.join(LOCK_FILE);
        match File::open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => hold(&opened.map_err(failed("read", &name))?, path)?,
        }
        let files = RealFiles::open(path).map_err(failed("open the directory", path))?;
        let identity = DirIdentity::look(files.clone(), owner);
        let denied = |source| DataDirError::Identity { path: path.to_path_buf(), source };
        match identity.map_err(denied)? {
            Some(_) => check_side(path, family),
            None => refuse_foreign_files(path, &files),
        }
    }

    /// Creates a directory on which no server starts before [`finish`](DataDir::finish).
    pub fn make_unfinished(path: &Path, owner: Owner<'_>) -> Result<DataDir, DataDirError> {
        create_dir_durably(path).map_err(failed("create the directory", path))?;
        let dir = RealDir::hold(path)?;
        refuse_foreign_files(path, &dir.files)?;
        let made = DirIdentity::create_unfinished(dir.files.clone(), owner, new_storage_id()?, now());
        let identity = made.map_err(|source| DataDirError::Identity { path: path.to_path_buf(), source })?;
        DataDir::begin(dir, identity)
    }

    /// Marks a directory created by [`make_unfinished`](DataDir::make_unfinished) as whole.
    pub fn finish(path: &Path) -> Result<(), DataDirError> {
        let (identity, _lock) = DataDir::read_identity(path)?;
        identity.finish().map_err(|source| DataDirError::Identity { path: path.to_path_buf(), source })
    }

    /// The identity of a directory on which no server runs, and the lock that keeps one from starting.
    pub fn read_identity(path: &Path) -> Result<(DirIdentity<RealFiles>, File), DataDirError> {
        let files = RealFiles::open(path).map_err(failed("open the directory", path))?;
        let denied = |source| DataDirError::Identity { path: path.to_path_buf(), source };
        // Read before locking, so that no lock file is created in a directory that is not a data directory.
        if DirIdentity::read_any(files.clone()).map_err(denied)?.is_none() {
            return Err(DataDirError::NoIdentity { path: path.to_path_buf() });
        }
        let lock = lock(path)?;
        match DirIdentity::read_any(files).map_err(denied)? {
            Some(identity) => Ok((identity, lock)),
            None => Err(DataDirError::NoIdentity { path: path.to_path_buf() }),
        }
    }

    /// Reserves the directory for one family of protocols; an error if it holds data of the other. A new directory
    /// accepts either.
    pub fn claim_protocol(&self, family: Family) -> Result<(), DataDirError> {
        check_side(&self.dir.path, family)?;
        match family {
            Family::Paxos => Ok(()),
            Family::TwoPhaseCommit => self.dir.part(DirPart::Coordinator).map(drop),
        }
    }

    /// The proposer's file.
    pub fn rounds_path(&self) -> PathBuf {
        self.dir.path.join(ROUNDS_FILE)
    }

    /// The directory of the acceptor's journal.
    pub fn journal_path(&self) -> PathBuf {
        self.dir.path.join(DirPart::Journal.name())
    }
}

/// An open journal and its recovered records.
pub type OpenedJournal<F, R> = (Journal<F, R>, RecoveredJournal<R>);

impl<P: DirStorage> DataDir<P> {
    /// Starts an incarnation of a process on a directory that is this server's.
    pub fn begin(dir: P, identity: DirIdentity<P::Files>) -> Result<DataDir<P>, DataDirError> {
        let started = identity.begin_incarnation();
        let incarnation =
            started.map_err(|source| DataDirError::Identity { path: dir.path().to_path_buf(), source })?;
        Ok(DataDir { dir, identity, incarnation })
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The directory that holds the files.
    pub fn dir(&self) -> &P {
        &self.dir
    }

    /// The identity of the directory.
    pub fn identity(&self) -> &DirIdentity<P::Files> {
        &self.identity
    }

    /// The number of this incarnation: 1 for the first process on this directory; no number is used twice.
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// Durably takes a number for an incarnation of a role: 1 for the first; no number is used twice.
    pub fn next_role_incarnation(&self) -> Result<u32, DataDirError> {
        self.identity.next_role_incarnation().map_err(self.denied())
    }

    /// The random number that distinguishes this directory from every other one of the same server number.
    pub fn storage_id(&self) -> u64 {
        self.identity.storage_id()
    }

    /// Whether the server is active: enough peers have recorded this directory.
    pub fn is_active(&self) -> bool {
        self.identity.is_active()
    }

    /// Durably records that the server is active from now on.
    pub fn set_active(&self) -> Result<(), DataDirError> {
        self.identity.set_active().map_err(self.denied())
    }

    /// The record of a peer, if this server ever met it.
    pub fn recorded_peer(&self, server: ServerId) -> Option<RecordedPeer> {
        self.identity.recorded_peer(server)
    }

    /// Decides on the claim of a caller; a changed record is durable before this returns. An error if the caller is not
    /// the recorded peer.
    pub fn admit(&self, claim: &Claim) -> Result<Admitted, DataDirError> {
        self.identity.admit(claim).map_err(self.denied())
    }

    /// Durably records the directory of a peer whose server is active. Used by a restore, which makes both directories.
    pub fn bind_peer(&self, server: ServerId, storage: u64) -> Result<(), DataDirError> {
        self.identity.bind_peer(server, storage).map_err(self.denied())
    }

    /// The files of the learner's checkpoint. A missing checkpoint is no error: the state can be fetched from other
    /// servers.
    pub fn checkpoint_files(&self) -> Result<P::Files, DataDirError> {
        self.dir.part(DirPart::Checkpoint)
    }

    /// Opens the journal of an acceptor or a participant; an error if the directory had one and it is missing. Each
    /// incarnation of the role opens it again, after the previous one has dropped it.
    pub fn open_journal<R: Record>(&self, segment_bytes: u64) -> Result<OpenedJournal<P::Files, R>, DataDirError> {
        self.open_journal_beside(segment_bytes, None, LeftFree::default())
    }

    /// Like [`open_journal`](DataDir::open_journal), for a journal with a checkpoint. `forgotten` is the first slot
    /// that the durable checkpoint does not hold, if there is one; `left_free` is the space left to others.
    pub fn open_journal_beside<R: Record>(
        &self,
        segment_bytes: u64,
        forgotten: Option<Slot>,
        left_free: LeftFree,
    ) -> Result<OpenedJournal<P::Files, R>, DataDirError> {
        let must_exist = self.identity.has_journal();
        if must_exist && !self.dir.has(DirPart::Journal) {
            return Err(self.refused()(OpenError::Missing));
        }
        let files = self.dir.part(DirPart::Journal)?;
        let options = JournalOptions { segment_bytes, owner: self.storage_id(), must_exist, forgotten, left_free };
        let (journal, recovered) = Journal::open(files, options).map_err(self.refused())?;
        self.identity.set_has_journal(true).map_err(self.denied())?;
        Ok((journal, recovered))
    }

    /// Opens the coordinator's journal; an error if the directory had one and it is missing.
    pub fn open_coordinator<R: Record>(&self, segment_bytes: u64) -> Result<OpenedJournal<P::Files, R>, DataDirError> {
        let files = self.dir.part(DirPart::Coordinator)?;
        // A coordinator keeps its records in a journal; the flag of the proposer's file says whether there was one.
        let options = JournalOptions::alone(segment_bytes, self.storage_id(), self.identity.has_rounds());
        let (journal, recovered) = Journal::open(files, options).map_err(self.refused())?;
        self.identity.set_has_rounds().map_err(self.denied())?;
        Ok((journal, recovered))
    }

    /// Opens the proposer's file of reserved rounds; an error if the directory had one and it is missing.
    pub fn open_rounds(&self) -> Result<BallotStore<P::Files>, DataDirError> {
        let opened = BallotStore::open(self.dir.top().clone(), self.storage_id(), self.identity.has_rounds());
        let rounds = opened.map_err(|source| DataDirError::Rounds { path: self.path().to_path_buf(), source })?;
        self.identity.set_has_rounds().map_err(self.denied())?;
        Ok(rounds)
    }

    /// Discards the acceptor's stable storage. **Unsafe by intent**: an acceptor that restarts without its promises
    /// breaks Paxos, and this demonstrates it. The journal must not be open.
    pub fn discard_journal(&self) -> Result<(), DataDirError> {
        self.identity.set_has_journal(false).map_err(self.denied())?;
        self.dir.discard(DirPart::Journal)
    }

    fn refused(&self) -> impl FnOnce(OpenError) -> DataDirError + use<P> {
        let path = self.path().to_path_buf();
        move |source| DataDirError::Journal { path, source: Box::new(source) }
    }

    fn denied(&self) -> impl FnOnce(IdentityError) -> DataDirError + use<P> {
        let path = self.path().to_path_buf();
        move |source| DataDirError::Identity { path, source }
    }
}

fn new_storage_id() -> Result<u64, DataDirError> {
    getrandom::u64().map_err(|error| DataDirError::Random(error.to_string()))
}

/// The current time, for people.
fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// An error if the directory holds data of the other family of protocols.
fn check_side(path: &Path, family: Family) -> Result<(), DataDirError> {
    let has = |name: &str| path.join(name).exists();
    let found = if has(DirPart::Coordinator.name()) {
        Family::TwoPhaseCommit
    } else if has(DirPart::Journal.name()) || has(ROUNDS_FILE) {
        Family::Paxos
    } else {
        // A new directory accepts either family.
        family
    };
    if found == family { Ok(()) } else { Err(DataDirError::OtherProtocol { path: path.to_path_buf(), other: found }) }
}

/// A directory without an identity must be empty. It may hold the remains of an interrupted first start, and what a
/// file system keeps at its root.
fn refuse_foreign_files(path: &Path, files: &RealFiles) -> Result<(), DataDirError> {
    let names = files.list().map_err(failed("list", path))?;
    let making = name_in_making(IDENTITY_FILE);
    let stranger = names.into_iter().find(|name| ![LOCK_FILE, LOST_AND_FOUND, &making].contains(&name.as_str()));
    match stranger {
        Some(holds) => Err(DataDirError::NotADataDir { path: path.to_path_buf(), holds }),
        None => Ok(()),
    }
}
