//! A restore that was interrupted: on a folder that it has made, or has still to make, no server starts.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use super::dir_storage::{LOCK_FILE, above};
use super::error::DataDirError;
use crate::role::ServerId;
use crate::storage::disk::name_in_making;

/// The folder in which a restore makes others before it gives them their names beside it.
pub(in crate::storage) const RESTORE_FOLDER: &str = ".restore";
/// The mark in it that all of them are whole.
pub(in crate::storage) const COMPLETE_FILE: &str = "complete";

/// The name that a restore gives to the folder of a server.
pub(in crate::storage) fn folder_name(server: ServerId) -> String {
    format!("server-{}", server.0)
}

/// A restore gives the folders their names one by one. Between the first and the last some are there and some are not,
/// and an empty one must not be taken for that of a new server.
pub(super) fn refuse_unfinished(path: &Path, server: ServerId) -> Result<(), DataDirError> {
    // The folder may not exist yet; the one above it is known by the name or by what the name leads to.
    let real = fs::canonicalize(path).ok();
    for path in [Some(path), real.as_deref()].into_iter().flatten() {
        let restore = above(path).join(RESTORE_FOLDER);
        if path.file_name().is_some_and(|name| *name == *folder_name(server)) && may_be_of_a_restore(&restore) {
            return Err(DataDirError::Unfinished { path: path.to_path_buf(), restore });
        }
    }
    Ok(())
}

/// Whether a restore has put something into a folder of this name, or nobody can tell: a server that starts beside half
/// a restore would take the folders that are missing for new ones.
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
pub(in crate::storage) fn is_of_a_restore(path: &Path) -> bool {
    let is_hidden = |name: &OsStr| name.to_str().is_some_and(|name| name.starts_with('.'));
    let is_ours = |name: &OsStr| is_name_of_a_restore(name) || is_hidden(name);
    fs::read_dir(path).is_ok_and(|entries| entries.flatten().all(|entry| is_ours(&entry.file_name())))
}
