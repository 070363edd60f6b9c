//! The data folder of one server.
//!
//! ```text
//! lock            held by the process that uses the folder
//! identity.toml   whose folder it is
//! journal/        the acceptor's stable storage; under two-phase commit the participant's
//! rounds          the proposer's
//! coordinator/    under two-phase commit, in its place: the coordinator's
//! checkpoint/     the learner's: the state after some slot
//! ```

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FlockOperation, access, flock};
use thiserror::Error;

use super::admission::{Claim, Known};
use super::disk::{Files, RealFiles, is_full, is_short_of_files, name_in_making, step};
use super::identity::{Admitted, IDENTITY_FILE, Identity, IdentityError, Owner};
use super::journal::{Journal, OpenError, Options, Record, Recovered};
use super::rounds::{ROUNDS_FILE, Rounds, RoundsError};
use crate::protocol::Family;
use crate::role::Server;

const LOCK_FILE: &str = "lock";
const JOURNAL_FOLDER: &str = "journal";
const COORDINATOR_FOLDER: &str = "coordinator";
const CHECKPOINT_FOLDER: &str = "checkpoint";
/// A journal that is on its way out.
const DISCARDED_FOLDER: &str = "journal.discarded";

/// The root of a file system may hold it, and may be a data folder.
const LOST_AND_FOUND: &str = "lost+found";

/// Why a data folder cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The disk refused.
    #[error("cannot {doing} {path}: {source}. Name a folder that this user may write to (--data)")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("data folder {path} is in use by another server. Stop that one, or name another folder (--data)")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// There are files in it, and no identity.
    #[error(
        "{path} holds {holds} and no {IDENTITY_FILE}: it is no data folder, or it lost its identity. Name an empty \
         folder, or put the file back"
    )]
    NotADataFolder {
        /// The folder.
        path: PathBuf,
        /// One of the files in it.
        holds: String,
    },
    /// A restore that was interrupted has made it, or has still to make it.
    #[error(
        "{path} is of a restore that did not finish: {restore} is there. Run the restore again, it goes on where it was. To \
         give it up, remove {restore} and the folders beside it"
    )]
    Unfinished {
        /// The folder.
        path: PathBuf,
        /// Where the restore makes its folders.
        restore: PathBuf,
    },
    /// There is no identity where one was expected.
    #[error("{path} holds no {IDENTITY_FILE}: it is no data folder. Name the folder that --data names")]
    NoIdentity {
        /// The folder.
        path: PathBuf,
    },
    /// No random number for the storage id.
    #[error("the system gives no random number for the storage id: {0}")]
    Random(String),
    /// Its identity says no.
    #[error("data folder {path}: {source}")]
    Identity {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: IdentityError,
    },
    /// Its journal cannot be opened.
    #[error("data folder {path}: {source}")]
    Journal {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: Box<OpenError>,
    },
    /// It is that of another protocol.
    #[error(
        "data folder {path} holds what servers under {other} remember, and no other protocol can read that: its data would \
         seem to be lost. Start this server with the protocol that it had, or name another folder (--data)"
    )]
    OtherSide {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        other: Family,
    },
    /// Its file of spent rounds cannot be opened.
    #[error("data folder {path}: {source}")]
    Rounds {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: RoundsError,
    },
}

impl FolderError {
    /// The disk has no room, or no more files may be opened. Nothing else is wrong, and later there may be some.
    pub fn is_full(&self) -> bool {
        match self {
            FolderError::Journal { source, .. } => match &**source {
                OpenError::Full { .. } => true,
                OpenError::Io { source, .. } => is_short_of_files(source),
                _ => false,
            },
            FolderError::Identity { source, .. } => source.is_full(),
            FolderError::Rounds { source, .. } => source.is_full(),
            FolderError::Io { source, .. } => is_full(source),
            _ => false,
        }
    }

    /// The disk has refused to read or to write.
    pub fn is_io(&self) -> bool {
        match self {
            FolderError::Io { .. } => true,
            FolderError::Journal { source, .. } => matches!(**source, OpenError::Io { .. }),
            FolderError::Identity { source, .. } => {
                matches!(source, IdentityError::Io { .. } | IdentityError::Failed)
            }
            FolderError::Rounds { source, .. } => matches!(source, RoundsError::Io { .. } | RoundsError::Failed),
            _ => false,
        }
    }

    /// What another server is told: not where this one has its folder.
    pub fn reason(&self) -> String {
        match self {
            FolderError::Identity { source, .. } => source.to_string(),
            other => other.to_string(),
        }
    }

    /// Writing the identity has failed in a way after which nobody knows what is on the disk: the process must stop.
    pub fn is_fatal(&self) -> bool {
        let FolderError::Identity { source, .. } = self else { return false };
        matches!(source, IdentityError::Failed | IdentityError::Io { .. }) && !source.is_full()
    }
}

/// Where the files of a data folder are. A handle, as [`Files`] is.
pub trait Place {
    /// Its files.
    type Files: Files;

    /// Where it is, for sentences.
    fn path(&self) -> &Path;

    /// The files of the folder itself.
    fn top(&self) -> &Self::Files;

    /// The files of a part of it, which is made if it is not there.
    fn part(&self, part: Part) -> Result<Self::Files, FolderError>;

    /// Whether a part of it is there.
    fn has(&self, part: Part) -> bool;

    /// Removes a part of it, whole or not at all.
    fn discard(&self, part: Part) -> Result<(), FolderError>;
}

/// A folder in a data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The acceptor's journal, or the participant's.
    Journal,
    /// The coordinator's journal.
    Coordinator,
    /// The learner's checkpoint.
    Checkpoint,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Journal => JOURNAL_FOLDER,
            Part::Coordinator => COORDINATOR_FOLDER,
            Part::Checkpoint => CHECKPOINT_FOLDER,
        }
    }
}

/// A folder of the operating system, held by this process for as long as the value lives.
#[derive(Debug)]
pub struct RealPlace {
    path: PathBuf,
    files: RealFiles,
    /// The lock ends with this file.
    _lock: File,
}

impl RealPlace {
    fn hold(path: &Path) -> Result<RealPlace, FolderError> {
        let lock = lock(path)?;
        let files = RealFiles::open(path).map_err(failed("open the folder", path))?;
        Ok(RealPlace { path: path.to_path_buf(), files, _lock: lock })
    }

    fn finish_discarding(&self) -> Result<(), FolderError> {
        let path = self.path.join(DISCARDED_FOLDER);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(failed("remove", &path)),
        }
    }
}

impl Place for RealPlace {
    type Files = RealFiles;

    fn path(&self) -> &Path {
        &self.path
    }

    fn top(&self) -> &RealFiles {
        &self.files
    }

    fn part(&self, part: Part) -> Result<RealFiles, FolderError> {
        self.finish_discarding()?;
        let path = self.path.join(part.name());
        make_folder(&path).map_err(failed("make the folder", &path))?;
        RealFiles::open(&path).map_err(failed("open the folder", &path))
    }

    fn has(&self, part: Part) -> bool {
        self.path.join(part.name()).exists()
    }

    fn discard(&self, part: Part) -> Result<(), FolderError> {
        self.finish_discarding()?;
        let (from, to) = (self.path.join(part.name()), self.path.join(DISCARDED_FOLDER));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(failed("rename", &from))?,
        }
        self.files.sync_folder().map_err(failed("sync", &self.path))?;
        self.finish_discarding()
    }
}

/// The data folder of one server, in use by one process. Any thread may use it.
#[derive(Debug)]
pub struct DataFolder<P: Place = RealPlace> {
    place: P,
    identity: Identity<P::Files>,
    life: u32,
}

impl DataFolder {
    /// Opens the folder of a server, or makes it (readable for this user alone), and begins a life on it.
    pub fn open(path: &Path, owner: Owner<'_>) -> Result<DataFolder, FolderError> {
        refuse_unfinished(path, owner.server)?;
        make_folder(path).map_err(failed("make the folder", path))?;
        let place = RealPlace::hold(path)?;
        let denied = |source| FolderError::Identity { path: path.to_path_buf(), source };
        let identity = match Identity::read(place.files.clone(), owner).map_err(denied)? {
            Some(identity) => identity,
            None => {
                refuse_strangers(path, &place.files)?;
                Identity::create(place.files.clone(), owner, new_storage_id()?, now()).map_err(denied)?
            }
        };
        DataFolder::begin(place, identity)
    }

    /// Looks whether a start could begin on the folder: it is this server's and nobody uses it, or it can be made. Changes
    /// nothing.
    pub fn check(path: &Path, owner: Owner<'_>, family: Family) -> Result<(), FolderError> {
        let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
        if !there.is_dir() {
            return Err(failed("make the folder", path)(io::ErrorKind::NotADirectory.into()));
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
        let files = RealFiles::open(path).map_err(failed("open the folder", path))?;
        let identity = Identity::look(files.clone(), owner);
        let denied = |source| FolderError::Identity { path: path.to_path_buf(), source };
        match identity.map_err(denied)? {
            Some(_) => check_side(path, family),
            None => refuse_strangers(path, &files),
        }
    }

    /// Makes a folder on which no server starts before [`finish`](DataFolder::finish).
    pub fn make_unfinished(path: &Path, owner: Owner<'_>) -> Result<DataFolder, FolderError> {
        make_folder(path).map_err(failed("make the folder", path))?;
        let place = RealPlace::hold(path)?;
        refuse_strangers(path, &place.files)?;
        let made = Identity::create_unfinished(place.files.clone(), owner, new_storage_id()?, now());
        let identity = made.map_err(|source| FolderError::Identity { path: path.to_path_buf(), source })?;
        DataFolder::begin(place, identity)
    }

    /// A folder that was made unfinished is whole.
    pub fn finish(path: &Path) -> Result<(), FolderError> {
        let (identity, _lock) = DataFolder::read_identity(path)?;
        identity.finish().map_err(|source| FolderError::Identity { path: path.to_path_buf(), source })
    }

    /// The identity of a folder on which no server runs, and the lock that keeps one from starting.
    pub fn read_identity(path: &Path) -> Result<(Identity<RealFiles>, File), FolderError> {
        let files = RealFiles::open(path).map_err(failed("open the folder", path))?;
        let denied = |source| FolderError::Identity { path: path.to_path_buf(), source };
        // Before the lock: what is no data folder gets no file of that name.
        if Identity::read_any(files.clone()).map_err(denied)?.is_none() {
            return Err(FolderError::NoIdentity { path: path.to_path_buf() });
        }
        let lock = lock(path)?;
        match Identity::read_any(files).map_err(denied)? {
            Some(identity) => Ok((identity, lock)),
            None => Err(FolderError::NoIdentity { path: path.to_path_buf() }),
        }
    }

    /// What is in the folder belongs to one family of protocols: an error if it is the other one. A new folder takes the
    /// side that it is asked for.
    pub fn take_side(&self, family: Family) -> Result<(), FolderError> {
        check_side(&self.place.path, family)?;
        match family {
            Family::Paxos => Ok(()),
            Family::TwoPhaseCommit => self.place.part(Part::Coordinator).map(drop),
        }
    }

    /// The proposer's file.
    pub fn rounds_path(&self) -> PathBuf {
        self.place.path.join(ROUNDS_FILE)
    }

    /// The folder of the acceptor's journal.
    pub fn journal_path(&self) -> PathBuf {
        self.place.path.join(JOURNAL_FOLDER)
    }
}

/// A journal that was opened, with what it remembers.
pub type OpenedJournal<F, R> = (Journal<F, R>, Recovered<R>);

impl<P: Place> DataFolder<P> {
    /// A process begins on a folder that is this server's.
    pub fn begin(place: P, identity: Identity<P::Files>) -> Result<DataFolder<P>, FolderError> {
        let begun = identity.begin_life();
        let life = begun.map_err(|source| FolderError::Identity { path: place.path().to_path_buf(), source })?;
        Ok(DataFolder { place, identity, life })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Where its files are.
    pub fn place(&self) -> &P {
        &self.place
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity<P::Files> {
        &self.identity
    }

    /// The number of this life: 1 for the first process on this folder, and no number twice.
    pub fn life(&self) -> u32 {
        self.life
    }

    /// Durably takes a number for a role that begins a life of its own: 1 for the first, and no number twice.
    pub fn begin_role_life(&self) -> Result<u32, FolderError> {
        self.identity.begin_role_life().map_err(self.denied())
    }

    /// The random number that tells this folder from any other that ever had its server's number.
    pub fn storage_id(&self) -> u64 {
        self.identity.storage_id()
    }

    /// Whether the server may take part: enough of the others know this folder.
    pub fn takes_part(&self) -> bool {
        self.identity.takes_part()
    }

    /// Remembers durably that the server takes part from now on.
    pub fn set_takes_part(&self) -> Result<(), FolderError> {
        self.identity.set_takes_part().map_err(self.denied())
    }

    /// What is remembered of a peer's folder, if it was ever met.
    pub fn known_peer(&self, server: Server) -> Option<Known> {
        self.identity.known_peer(server)
    }

    /// Judges the claim of a caller, and remembers durably what must be; an error if it is not the peer that is known.
    pub fn admit(&self, claim: &Claim) -> Result<Admitted, FolderError> {
        self.identity.admit(claim).map_err(self.denied())
    }

    /// Remembers durably the folder of a peer whose server takes part. For whoever makes both folders.
    pub fn bind_peer(&self, server: Server, storage: u64) -> Result<(), FolderError> {
        self.identity.bind_peer(server, storage).map_err(self.denied())
    }

    /// The files of the learner's checkpoint. It can be made again from other servers, so nobody misses it.
    pub fn checkpoint_files(&self) -> Result<P::Files, FolderError> {
        self.place.part(Part::Checkpoint)
    }

    /// Opens the journal of an acceptor or a participant; a folder that has had one must have it still. Each life of the
    /// role opens it anew, after the life before has dropped it.
    pub fn open_journal<R: Record>(&self, segment_bytes: u64) -> Result<OpenedJournal<P::Files, R>, FolderError> {
        let must_exist = self.identity.has_journal();
        if must_exist && !self.place.has(Part::Journal) {
            return Err(self.refused()(OpenError::Missing));
        }
        let files = self.place.part(Part::Journal)?;
        let options = Options { segment_bytes, owner: self.storage_id(), must_exist };
        let (journal, recovered) = Journal::open(files, options).map_err(self.refused())?;
        self.identity.set_has_journal(true).map_err(self.denied())?;
        Ok((journal, recovered))
    }

    /// Opens the coordinator's journal; a folder that has had one must have it still.
    pub fn open_coordinator<R: Record>(&self, segment_bytes: u64) -> Result<OpenedJournal<P::Files, R>, FolderError> {
        let files = self.place.part(Part::Coordinator)?;
        // What a proposer remembers in its file, a coordinator remembers in its journal.
        let options = Options { segment_bytes, owner: self.storage_id(), must_exist: self.identity.has_rounds() };
        let (journal, recovered) = Journal::open(files, options).map_err(self.refused())?;
        self.identity.set_has_rounds().map_err(self.denied())?;
        Ok((journal, recovered))
    }

    /// Opens the proposer's file of spent rounds; a folder that has had one must have it still.
    pub fn open_rounds(&self) -> Result<Rounds<P::Files>, FolderError> {
        let opened = Rounds::open(self.place.top().clone(), self.storage_id(), self.identity.has_rounds());
        let rounds = opened.map_err(|source| FolderError::Rounds { path: self.path().to_path_buf(), source })?;
        self.identity.set_has_rounds().map_err(self.denied())?;
        Ok(rounds)
    }

    /// Makes the acceptor forget everything. **Unsafe by intent**: an acceptor that comes back without its memory breaks
    /// Paxos, and this is how to show it. The journal must not be open.
    pub fn discard_journal(&self) -> Result<(), FolderError> {
        self.identity.set_has_journal(false).map_err(self.denied())?;
        self.place.discard(Part::Journal)
    }

    fn refused(&self) -> impl FnOnce(OpenError) -> FolderError + use<P> {
        let path = self.path().to_path_buf();
        move |source| FolderError::Journal { path, source: Box::new(source) }
    }

    fn denied(&self) -> impl FnOnce(IdentityError) -> FolderError + use<P> {
        let path = self.path().to_path_buf();
        move |source| FolderError::Identity { path, source }
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError + use<> {
    let path = path.to_path_buf();
    move |source| FolderError::Io { doing, path, source }
}

/// Makes a folder for this user alone, with the folders above it, and makes each new name durable.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = above(path);
    make_folder(above)?;
    match step().and_then(|()| DirBuilder::new().mode(0o700).create(path)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    sync_names(above)
}

/// Makes the names in a folder durable.
pub(super) fn sync_names(folder: &Path) -> io::Result<()> {
    step()?;
    File::open(folder)?.sync_all()
}

/// The folder in which a restore makes others before it gives them their names beside it.
pub(super) const RESTORE_FOLDER: &str = ".restore";
/// The mark in it that all of them are whole.
pub(super) const COMPLETE_FILE: &str = "complete";

/// The name that a restore gives to the folder of a server.
pub(super) fn folder_name(server: Server) -> String {
    format!("server-{}", server.0)
}

/// A restore gives the folders their names one by one. Between the first and the last some are there and some are not, and
/// an empty one must not be taken for that of a new server.
fn refuse_unfinished(path: &Path, server: Server) -> Result<(), FolderError> {
    // The folder may not exist yet; the one above it is known by the name or by what the name leads to.
    let real = fs::canonicalize(path).ok();
    for path in [Some(path), real.as_deref()].into_iter().flatten() {
        let restore = above(path).join(RESTORE_FOLDER);
        if path.file_name().is_some_and(|name| *name == *folder_name(server)) && may_be_of_a_restore(&restore) {
            return Err(FolderError::Unfinished { path: path.to_path_buf(), restore });
        }
    }
    Ok(())
}

/// Whether a restore has put something into a folder of this name, or nobody can tell: a server that starts beside half a
/// restore would take the folders that are missing for new ones.
fn may_be_of_a_restore(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(entries) => {
            let ours = entries.map(|entry| entry.map_or(true, |entry| is_name_of_a_restore(&entry.file_name())));
            let ours: Vec<bool> = ours.collect();
            // One that is empty has only just been made.
            ours.is_empty() || ours.contains(&true)
        }
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

fn is_name_of_a_restore(name: &OsStr) -> bool {
    let is_ours = |name: &str| {
        [LOCK_FILE, COMPLETE_FILE].contains(&name)
            || name == name_in_making(COMPLETE_FILE)
            || name.starts_with("server-")
    };
    name.to_str().is_some_and(is_ours)
}

/// Whether a folder is one in which a restore makes others, and holds nothing that anybody else would miss: what file
/// systems and desktops put everywhere begins with a dot.
pub(super) fn is_of_a_restore(path: &Path) -> bool {
    let is_hidden = |name: &OsStr| name.to_str().is_some_and(|name| name.starts_with('.'));
    let is_ours = |name: &OsStr| is_name_of_a_restore(name) || is_hidden(name);
    fs::read_dir(path).is_ok_and(|entries| entries.flatten().all(|entry| is_ours(&entry.file_name())))
}

/// The folder that holds this one.
pub(super) fn above(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if above != Path::new("") => above,
        _ => Path::new("."),
    }
}

fn new_storage_id() -> Result<u64, FolderError> {
    getrandom::u64().map_err(|error| FolderError::Random(error.to_string()))
}

/// For people.
fn now() -> String {
    jiff::Timestamp::now().to_string()
}

pub(super) fn lock(path: &Path) -> Result<File, FolderError> {
    let name = path.join(LOCK_FILE);
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&name);
    let file = opened.map_err(failed("write to", &name))?;
    hold(&file, path)?;
    Ok(file)
}

/// Locks the file that says that somebody uses a folder; free again when it is closed.
fn hold(file: &File, path: &Path) -> Result<(), FolderError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(FolderError::InUse { path: path.to_path_buf() }),
        Err(error) => Err(failed("lock", &path.join(LOCK_FILE))(error.into())),
    }
}

/// What is in a folder belongs to one family of protocols: an error if it is another one.
fn check_side(path: &Path, family: Family) -> Result<(), FolderError> {
    let has = |name: &str| path.join(name).exists();
    let found = if has(Part::Coordinator.name()) {
        Family::TwoPhaseCommit
    } else if has(Part::Journal.name()) || has(ROUNDS_FILE) {
        Family::Paxos
    } else {
        // It is new, and takes either.
        family
    };
    if found == family { Ok(()) } else { Err(FolderError::OtherSide { path: path.to_path_buf(), other: found }) }
}

/// A folder without an identity must be empty, but for what a first start that was interrupted leaves, and for what each
/// file system keeps at its root.
fn refuse_strangers(path: &Path, files: &RealFiles) -> Result<(), FolderError> {
    let names = files.list().map_err(failed("list", path))?;
    let making = name_in_making(IDENTITY_FILE);
    let stranger = names.into_iter().find(|name| ![LOCK_FILE, LOST_AND_FOUND, &making].contains(&name.as_str()));
    match stranger {
        Some(holds) => Err(FolderError::NotADataFolder { path: path.to_path_buf(), holds }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::paxos::{AcceptorRecord, Ballot, ProposerRecord, Quorums};
    use crate::role::{Disk, Servers};

    const SEGMENT_BYTES: u64 = 256 << 10;
    const SERVER: Server = Server(2);

    fn place() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data").join("server-2");
        (root, path)
    }

    fn owner(cluster: &str, server: Server) -> Owner<'_> {
        Owner { cluster, quorums: Quorums::majority(Servers::first(5)), server }
    }

    fn open(path: &Path) -> DataFolder {
        DataFolder::open(path, owner("lab", SERVER)).unwrap()
    }

    fn promise(round: u64) -> AcceptorRecord {
        AcceptorRecord::Promised(Ballot { round, server: Server(1) })
    }

    #[test]
    fn a_new_folder_is_private_and_its_lives_are_counted() {
        let (_root, path) = place();
        let folder = open(&path);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let storage = folder.storage_id();
        assert_eq!((folder.life(), folder.begin_role_life().unwrap()), (1, 1));
        folder.bind_peer(Server(4), 9).unwrap();
        drop(folder);
        let folder = open(&path);
        assert_eq!(
            (folder.life(), folder.storage_id(), folder.known_peer(Server(4)).unwrap().storage),
            (2, storage, 9)
        );
    }

    #[test]
    fn two_folders_never_have_one_storage_id() {
        let (_root, one) = place();
        let (_other_root, other) = place();
        assert_ne!(open(&one).storage_id(), open(&other).storage_id());
    }

    #[test]
    fn a_second_server_on_the_folder_is_refused_until_the_first_is_gone() {
        let (_root, path) = place();
        let first = open(&path);
        let error = DataFolder::open(&path, owner("lab", SERVER)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("data folder {} is in use by another server", path.display())), "{error}");
        drop(first);
        open(&path);
    }

    #[test]
    fn the_folder_of_another_cluster_or_server_is_refused_and_left_alone() {
        let (_root, path) = place();
        drop(open(&path));
        let before = fs::read(path.join(IDENTITY_FILE)).unwrap();
        for (cluster, server) in [("home", SERVER), ("lab", Server(3))] {
            let error = DataFolder::open(&path, owner(cluster, server)).unwrap_err();
            assert!(matches!(error, FolderError::Identity { .. }), "{error}");
            assert!(error.to_string().contains("it belongs to"), "{error}");
        }
        assert_eq!(fs::read(path.join(IDENTITY_FILE)).unwrap(), before);
    }

    #[test]
    fn a_folder_of_other_things_is_refused() {
        let (root, path) = place();
        fs::write(root.path().join("photo.jpg"), "x").unwrap();
        let error = DataFolder::open(root.path(), owner("lab", SERVER)).unwrap_err();
        assert!(matches!(&error, FolderError::NotADataFolder { holds, .. } if holds == "photo.jpg"), "{error}");
        drop(open(&path).open_journal::<AcceptorRecord>(SEGMENT_BYTES).unwrap());
        fs::remove_file(path.join(IDENTITY_FILE)).unwrap();
        let error = DataFolder::open(&path, owner("lab", SERVER)).unwrap_err();
        assert!(matches!(error, FolderError::NotADataFolder { .. }), "{error}");
    }

    #[test]
    fn the_root_of_a_file_system_can_be_a_data_folder() {
        let (_root, path) = place();
        fs::create_dir_all(path.join("lost+found")).unwrap();
        check(&path).unwrap();
        drop(open(&path));
        open(&path);
    }

    fn check(path: &Path) -> Result<(), String> {
        DataFolder::check(path, owner("lab", SERVER), Family::Paxos).map_err(|error| error.to_string())
    }

    /// All that is below a folder, and when it was changed.
    fn image(path: &Path) -> Vec<(PathBuf, std::time::SystemTime)> {
        let below = |entry: io::Result<fs::DirEntry>| {
            let path = entry.unwrap().path();
            let below = if path.is_dir() { image(&path) } else { Vec::new() };
            below.into_iter().chain([(path.clone(), fs::metadata(&path).unwrap().modified().unwrap())])
        };
        let mut all: Vec<_> = fs::read_dir(path).unwrap().flat_map(below).collect();
        all.sort();
        all
    }

    #[test]
    fn a_check_says_what_a_start_would_say_and_changes_nothing() {
        let (root, path) = place();
        check(&path).unwrap();
        assert!(image(root.path()).is_empty(), "nothing was made");
        let folder = open(&path);
        drop(folder.open_journal::<AcceptorRecord>(SEGMENT_BYTES).unwrap());
        let before = image(root.path());
        assert!(check(&path).unwrap_err().contains("in use by another server"));
        drop(folder);
        check(&path).unwrap();
        let says =
            |cluster, server, family| DataFolder::check(&path, owner(cluster, server), family).unwrap_err().to_string();
        assert!(says("home", SERVER, Family::Paxos).contains("belongs to cluster"));
        assert!(says("lab", Server(3), Family::Paxos).contains("belongs to server"));
        assert!(says("lab", SERVER, Family::TwoPhaseCommit).contains("Paxos"));
        let file = path.join(IDENTITY_FILE);
        for place in [&file, &file.join("data")] {
            assert!(check(place).unwrap_err().starts_with("cannot make the folder"));
        }
        assert!(check(&path.join(JOURNAL_FOLDER)).unwrap_err().contains("no data folder"));
        assert_eq!(image(root.path()), before);
        open(&path);
    }

    #[test]
    fn a_place_that_cannot_be_a_folder_is_refused_in_one_sentence() {
        let (root, _) = place();
        let path = root.path().join("file");
        fs::write(&path, "").unwrap();
        for path in [path.clone(), path.join("data")] {
            let error = DataFolder::open(&path, owner("lab", SERVER)).unwrap_err();
            assert!(matches!(error, FolderError::Io { .. }), "{error}");
            assert!(error.to_string().starts_with("cannot make the folder"), "{error}");
        }
    }

    #[test]
    fn journal_and_rounds_come_back() {
        let (_root, path) = place();
        let folder = open(&path);
        let (mut journal, recovered) = folder.open_journal(SEGMENT_BYTES).unwrap();
        assert!(recovered.records.is_empty());
        journal.commit(&[promise(7)]).unwrap();
        folder.open_rounds().unwrap().commit(&[ProposerRecord::Spent(1_024)]).unwrap();
        drop((journal, folder));
        let folder = open(&path);
        let (_journal, recovered) = folder.open_journal::<AcceptorRecord>(SEGMENT_BYTES).unwrap();
        assert_eq!((recovered.records, recovered.segment), (vec![promise(7)], 2));
        assert_eq!(folder.open_rounds().unwrap().record(), ProposerRecord::Spent(1_024));
    }

    #[test]
    fn a_server_that_lost_its_memory_is_refused_and_never_starts_afresh() {
        let (_root, path) = place();
        let folder = open(&path);
        folder.open_journal(SEGMENT_BYTES).unwrap().0.commit(&[promise(7)]).unwrap();
        drop(folder.open_rounds().unwrap());
        for file in fs::read_dir(folder.journal_path()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        let is_missing = |folder: &DataFolder| {
            let error = folder.open_journal::<AcceptorRecord>(SEGMENT_BYTES).unwrap_err();
            matches!(error, FolderError::Journal { source, .. } if matches!(*source, OpenError::Missing))
        };
        assert!(is_missing(&folder), "an empty folder");
        fs::remove_dir(folder.journal_path()).unwrap();
        drop(folder);
        let folder = open(&path);
        assert!(is_missing(&folder), "no folder");
        fs::remove_file(folder.rounds_path()).unwrap();
        let error = folder.open_rounds().unwrap_err();
        assert!(matches!(error, FolderError::Rounds { source: RoundsError::Missing, .. }), "{error}");
    }

    #[test]
    fn a_journal_may_be_discarded_by_name_only() {
        let (_root, path) = place();
        let folder = open(&path);
        folder.open_journal(SEGMENT_BYTES).unwrap().0.commit(&[promise(7)]).unwrap();
        folder.discard_journal().unwrap();
        let (mut journal, recovered) = folder.open_journal(SEGMENT_BYTES).unwrap();
        assert!(recovered.records.is_empty());
        journal.commit(&[promise(8)]).unwrap();
        drop(journal);
        // A crash in the middle of discarding it, once the identity has let it go.
        folder.identity.set_has_journal(false).unwrap();
        fs::rename(folder.journal_path(), path.join(DISCARDED_FOLDER)).unwrap();
        let (_journal, recovered) = folder.open_journal::<AcceptorRecord>(SEGMENT_BYTES).unwrap();
        assert!(recovered.records.is_empty());
        assert!(!path.join(DISCARDED_FOLDER).exists());
    }
}
