//! Restore: makes the data directories of a new cluster from a backup, in steps that may be interrupted anywhere.
//!
//! ```text
//! DIR/.restore/server-1 ...    made and synced, each marked as unfinished
//! DIR/.restore/complete        written last: from here on all of them are whole
//! DIR/server-1 ...             moved from there one by one, by a rename
//! DIR/.restore                 removed: now a server starts
//! ```
//!
//! A server does not start on `DIR/server-1` while `DIR/.restore` exists. Some directories may have their names by
//! then, and the others would look new and empty. A directory copied out of `.restore` by hand is still marked as
//! unfinished. When run again, a restore continues if `complete` was written, and starts from the beginning if not.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::backup::BackupHeader;
use super::checkpoint::{Checkpoint, CheckpointMeta, CheckpointOptions};
use super::data_dir::{
    COMPLETE_FILE, DataDir, DataDirError, RESTORE_DIR, create_dir_durably, dir_name, is_of_a_restore, lock, sync_names,
};
use super::disk::{RealFiles, read_if_present, replace, step};
use super::identity::IDENTITY_FILE;
use crate::cluster::Cluster;
use crate::kv::{Kv, StateDelta};
use crate::paxos::{AcceptorRecord, StateMachine};
use crate::role::{ServerId, StableStore};

/// The name of [`RESTORE_DIR`] once nothing in it is needed.
const RESTORE_DONE_DIR: &str = ".restore.done";

/// A restore: which state becomes which cluster, and where.
pub struct Restore<'a> {
    /// The header of the backup.
    pub title: &'a BackupHeader,
    /// The new cluster.
    pub cluster: &'a Cluster,
    /// Where the data directories are made.
    pub data: &'a Path,
    /// The length of a journal segment, in bytes.
    pub segment_bytes: u64,
}

impl Restore<'_> {
    /// Makes the data directories with this state, or continues an interrupted attempt.
    pub fn run(&self, mut state: Kv) -> Result<(), String> {
        let making = self.data.join(RESTORE_DIR);
        if making.exists() && !is_of_a_restore(&making) {
            return Err(format!("{} holds files that no restore made: move it away", making.display()));
        }
        let done = self.data.join(RESTORE_DONE_DIR);
        remove_tree(&done).map_err(failed("remove", &done))?;
        if !making.exists() {
            self.check_targets()?;
        }
        create_dir_durably(&making).map_err(failed("create the directory", &making))?;
        let _lock = lock(&making).map_err(|error| match error {
            DataDirError::InUse { .. } => format!("another restore is running in {}", making.display()),
            error => error.to_string(),
        })?;
        let files = RealFiles::open(&making).map_err(failed("open the directory", &making))?;
        let what = self.describe(&state);
        let complete = read_if_present(&files, COMPLETE_FILE).map_err(failed("read", &making))?;
        match complete {
            Some(of) if of == what.as_bytes() => {}
            Some(of) => {
                return Err(format!(
                    "{} belongs to another restore that did not finish: {}. Run that restore again, or remove this \
                     directory and the server-N directories next to it",
                    making.display(),
                    String::from_utf8_lossy(&of).trim_end()
                ));
            }
            None => {
                self.check_targets()?;
                self.make_all(&making, &mut state)?;
                sync_tree(&making).map_err(failed("sync", &making))?;
                replace(&files, COMPLETE_FILE, what.as_bytes()).map_err(failed("write to", &making))?;
            }
        }
        for server in self.cluster.servers().iter() {
            self.give_its_name(&making, server)?;
        }
        step().and_then(|()| fs::rename(&making, &done)).map_err(failed("rename", &making))?;
        sync_names(self.data).map_err(failed("sync", self.data))?;
        remove_tree(&done).map_err(failed("remove", &done))
    }

    /// The source and the target, as text that differs between two restores.
    fn describe(&self, state: &Kv) -> String {
        let (BackupHeader { cluster, slot, .. }, store) = (self.title, state.store().digest());
        let (name, servers) = (&self.cluster.name, self.cluster.servers().numbers());
        format!("cluster \"{name}\" with servers {servers}, from slot {slot} of cluster \"{cluster}\" ({store:016x})\n")
    }

    fn target(&self, server: ServerId) -> PathBuf {
        self.data.join(dir_name(server))
    }

    /// Each target must be missing or an empty directory on the same disk, so that a rename can replace it.
    fn check_targets(&self) -> Result<(), String> {
        let device = |path: &Path| fs::symlink_metadata(path).map(|found| found.dev()).ok();
        for server in self.cluster.servers().iter() {
            let path = self.target(server);
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            let is_empty = found.is_dir() && fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none());
            if !is_empty {
                return Err(format!("{} is not empty: choose another directory, or move it away", path.display()));
            }
            if device(&path) != device(self.data) {
                return Err(format!(
                    "{} is on a disk of its own, so a directory made elsewhere cannot be renamed to it. Restore to \
                     another directory, and copy its server-{} there",
                    path.display(),
                    server.0
                ));
            }
        }
        Ok(())
    }

    /// Makes all data directories; the remains of an earlier attempt are removed.
    fn make_all(&self, making: &Path, state: &mut Kv) -> Result<(), String> {
        // From here on the history is a new one, and no client may take it for the old one.
        let history = getrandom::u64().map_err(|error| {
            format!(
                "the operating system returned no random number: \
                                                                {error}"
            )
        })?;
        state.begin_history(history.max(1));
        let changes = state.whole();
        let mark = CheckpointMeta { slot: self.title.slot, digest: state.digest() };
        let mut data_dirs = Vec::new();
        for server in self.cluster.servers().iter() {
            let path = making.join(dir_name(server));
            remove_tree(&path).map_err(failed("remove", &path))?;
            data_dirs.push((server, self.make(&path, server, mark, &changes)?));
        }
        // The new servers record each other's storage ids, so that no other directory is admitted in place of one of
        // these.
        for (server, data_dir) in &data_dirs {
            for (other, theirs) in data_dirs.iter().filter(|(other, _)| other != server) {
                data_dir.bind_peer(*other, theirs.storage_id()).map_err(|error| error.to_string())?;
            }
            data_dir.set_active().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn make(
        &self,
        path: &Path,
        server: ServerId,
        mark: CheckpointMeta,
        changes: &StateDelta,
    ) -> Result<DataDir, String> {
        let data_dir = DataDir::make_unfinished(path, self.cluster.owner(server)).map_err(|error| error.to_string())?;
        let failed = |error: &dyn std::fmt::Display| format!("data directory {}: {error}", path.display());
        let files = data_dir.checkpoint_files().map_err(|error| failed(&error))?;
        let opened = Checkpoint::open(files, CheckpointOptions::usual(data_dir.storage_id()), Kv::default());
        let (mut checkpoint, _) = opened.map_err(|error| failed(&error))?;
        checkpoint.write(mark, changes).map_err(|error| failed(&error))?;
        // The journal truncates the log below the state, so the state must be durable first.
        let (mut journal, _) = data_dir.open_journal(self.segment_bytes).map_err(|error| failed(&error))?;
        journal.commit(&[AcceptorRecord::Truncated(mark.slot.next())]).map_err(|error| failed(&error))?;
        data_dir.open_rounds().map_err(|error| failed(&error))?;
        Ok(data_dir)
    }

    /// Moves a whole directory to its target, unless an earlier attempt did.
    fn give_its_name(&self, making: &Path, server: ServerId) -> Result<(), String> {
        let (from, to) = (making.join(dir_name(server)), self.target(server));
        if !from.exists() {
            let is_there = to.join(IDENTITY_FILE).exists();
            let missing = || format!("{} is missing, and it is not in {} either", to.display(), making.display());
            return if is_there { Ok(()) } else { Err(missing()) };
        }
        DataDir::finish(&from).map_err(|error| error.to_string())?;
        step().and_then(|()| fs::rename(&from, &to)).map_err(failed("rename", &from))?;
        sync_names(self.data).and_then(|()| sync_names(making)).map_err(failed("sync", self.data))
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> String + use<> {
    let path = path.to_path_buf();
    move |error| {
        format!(
            "cannot {action} {}: {error}. Check the disk space and the permissions, then run the restore \
                          again",
            path.display()
        )
    }
}

/// Makes all files of a directory durable, and their names.
fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { sync_tree(&entry.path())? } else { File::open(entry.path())?.sync_all()? }
    }
    sync_names(path)
}

/// Removes a directory and everything in it; succeeds if there is none.
fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        } else {
            step().and_then(|()| fs::remove_file(entry.path()))?;
        }
    }
    step().and_then(|()| fs::remove_dir(path))
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
