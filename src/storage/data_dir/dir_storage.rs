//! The storage of a data directory: for a real server, a directory of the operating system, locked for one process.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::error::DataDirError;
use crate::storage::disk::{Files, RealFiles, step};

/// The file that a process locks.
pub(super) const LOCK_FILE: &str = "lock";
/// A journal that is being removed.
pub(super) const DISCARDED_DIR: &str = "journal.discarded";

/// The storage of a data directory. A handle, as [`Files`] is.
pub trait DirStorage {
    /// The type of its files.
    type Files: Files;

    /// The path, for messages.
    fn path(&self) -> &Path;

    /// The files of the directory itself.
    fn top(&self) -> &Self::Files;

    /// The files of a part, which is created if it is missing.
    fn part(&self, part: DirPart) -> Result<Self::Files, DataDirError>;

    /// Whether a part exists.
    fn has(&self, part: DirPart) -> bool;

    /// Removes a part, whole or not at all.
    fn discard(&self, part: DirPart) -> Result<(), DataDirError>;
}

/// A subdirectory of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirPart {
    /// The acceptor's journal, or the participant's.
    Journal,
    /// The coordinator's journal.
    Coordinator,
    /// The learner's checkpoint.
    Checkpoint,
}

impl DirPart {
    /// The name of the subdirectory.
    pub(super) fn name(self) -> &'static str {
        match self {
            DirPart::Journal => "journal",
            DirPart::Coordinator => "coordinator",
            DirPart::Checkpoint => "checkpoint",
        }
    }
}

/// A directory of the operating system, locked by this process until the value is dropped.
#[derive(Debug)]
pub struct RealDir {
    pub(super) path: PathBuf,
    pub(super) files: RealFiles,
    /// Closing this file releases the lock.
    _lock: File,
}

impl RealDir {
    pub(super) fn hold(path: &Path) -> Result<RealDir, DataDirError> {
        let lock = lock(path)?;
        let files = RealFiles::open(path).map_err(failed("open the directory", path))?;
        Ok(RealDir { path: path.to_path_buf(), files, _lock: lock })
    }

    fn finish_discarding(&self) -> Result<(), DataDirError> {
        let path = self.path.join(DISCARDED_DIR);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(failed("remove", &path)),
        }
    }
}

impl DirStorage for RealDir {
    type Files = RealFiles;

    fn path(&self) -> &Path {
        &self.path
    }

    fn top(&self) -> &RealFiles {
        &self.files
    }

    fn part(&self, part: DirPart) -> Result<RealFiles, DataDirError> {
        self.finish_discarding()?;
        let path = self.path.join(part.name());
        create_dir_durably(&path).map_err(failed("create the directory", &path))?;
        RealFiles::open(&path).map_err(failed("open the directory", &path))
    }

    fn has(&self, part: DirPart) -> bool {
        self.path.join(part.name()).exists()
    }

    fn discard(&self, part: DirPart) -> Result<(), DataDirError> {
        self.finish_discarding()?;
        let (from, to) = (self.path.join(part.name()), self.path.join(DISCARDED_DIR));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(failed("rename", &from))?,
        }
        self.files.sync_dir().map_err(failed("sync", &self.path))?;
        self.finish_discarding()
    }
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError + use<> {
    let path = path.to_path_buf();
    move |source| DataDirError::Io { action, path, source }
}

/// Creates a directory for this user alone, with its missing parents, and makes each new name durable.
pub(in crate::storage) fn create_dir_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = above(path);
    create_dir_durably(above)?;
    match step().and_then(|()| DirBuilder::new().mode(0o700).create(path)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    sync_names(above)
}

/// Makes the names in a directory durable.
pub(in crate::storage) fn sync_names(dir: &Path) -> io::Result<()> {
    step()?;
    File::open(dir)?.sync_all()
}

/// The parent directory.
pub(super) fn above(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if above != Path::new("") => above,
        _ => Path::new("."),
    }
}

/// Locks a directory for this process, until the file is closed.
pub(in crate::storage) fn lock(path: &Path) -> Result<File, DataDirError> {
    let name = path.join(LOCK_FILE);
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&name);
    let file = opened.map_err(failed("write to", &name))?;
    hold(&file, path)?;
    Ok(file)
}

/// Takes an exclusive lock on the lock file of a directory; closing the file releases it.
pub(super) fn hold(file: &File, path: &Path) -> Result<(), DataDirError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DataDirError::InUse { path: path.to_path_buf() }),
        Err(error) => Err(failed("lock", &path.join(LOCK_FILE))(error.into())),
    }
}
