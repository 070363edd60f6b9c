//! Interrupted restores: no server starts on a directory that such a restore has made, or has yet to make.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use super::dir_storage::{LOCK_FILE, above};
use super::error::DataDirError;
use crate::role::ServerId;
use crate::storage::disk::name_in_making;

/// The directory in which a restore prepares the data directories before it renames them.
pub(in crate::storage) const RESTORE_DIR: &str = ".restore";
/// The file in it that marks all of them as whole.
pub(in crate::storage) const COMPLETE_FILE: &str = "complete";

/// The name that a restore gives to the data directory of a server.
pub(in crate::storage) fn dir_name(server: ServerId) -> String {
    format!("server-{}", server.0)
}

/// Refuses a data directory beside an unfinished restore. A restore renames its directories one by one. In between,
/// some exist and some do not, and a missing one must not be taken for that of a new server.
pub(super) fn refuse_unfinished(path: &Path, server: ServerId) -> Result<(), DataDirError> {
    // The directory may not exist yet; its parent is found by the given path and by the path that links lead to.
    let real = fs::canonicalize(path).ok();
    for path in [Some(path), real.as_deref()].into_iter().flatten() {
        let restore = above(path).join(RESTORE_DIR);
        if path.file_name().is_some_and(|name| *name == *dir_name(server)) && may_be_of_a_restore(&restore) {
            return Err(DataDirError::Unfinished { path: path.to_path_buf(), restore });
        }
    }
    Ok(())
}

/// Whether this directory was written by a restore, or cannot be read. A server that starts beside half a restore would
/// take the missing directories for new ones.
fn may_be_of_a_restore(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(entries) => {
            let ours = entries.map(|entry| entry.map_or(true, |entry| is_name_of_a_restore(&entry.file_name())));
            let ours: Vec<bool> = ours.collect();
            // An empty one was only just made.
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

/// Whether this is a restore's working directory that holds nothing else. Names that begin with a dot are ignored: file
/// systems and desktops put them everywhere.
pub(in crate::storage) fn is_of_a_restore(path: &Path) -> bool {
    let is_hidden = |name: &OsStr| name.to_str().is_some_and(|name| name.starts_with('.'));
    let is_ours = |name: &OsStr| is_name_of_a_restore(name) || is_hidden(name);
    fs::read_dir(path).is_ok_and(|entries| entries.flatten().all(|entry| is_ours(&entry.file_name())))
}
