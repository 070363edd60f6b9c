//! Why a checkpoint cannot be read or written.

use std::io;

use thiserror::Error;

use super::run::FORMAT;
use crate::storage::disk::is_full;
use crate::storage::identity::short_disk;

/// Why a checkpoint cannot be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A disk operation failed.
    #[error("cannot {action} {file} of the directory checkpoint: {cause}")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The file.
        file: String,
        /// The reason.
        cause: String,
    },
    /// The disk is full. What was written before is still there.
    #[error("the disk has no space for the checkpoint ({cause})")]
    Full {
        /// The reason.
        cause: String,
    },
    /// A file is corrupt or missing.
    #[error("{file} of the directory checkpoint is {why}")]
    Corrupt {
        /// The file.
        file: String,
        /// What is wrong with the file.
        why: String,
    },
    /// The file of another server.
    #[error(
        "{file} of the directory checkpoint belongs to disk {} and this is disk {}: it was copied",
        short_disk(*.found), short_disk(*.expected)
    )]
    Foreign {
        /// The file.
        file: String,
        /// The storage id in the file.
        found: u64,
        /// The storage id of this data directory.
        expected: u64,
    },
    /// The state is readable, but was found to differ from the other servers' state.
    #[error(
        "the state in the directory checkpoint diverged: after slot {slot} it differs from the state of the other \
         servers. Move the directory checkpoint away and start the server again: it then fetches the state from them"
    )]
    Fenced {
        /// The first slot after which it is known to differ.
        slot: String,
    },
    /// A file of another format version.
    #[error(
        "{file} of the directory checkpoint has format {found}, and this program reads format {FORMAT}: use the \
         program that wrote it"
    )]
    Format {
        /// The file.
        file: String,
        /// The format version of the file.
        found: u32,
    },
}

impl CheckpointError {
    pub(super) fn corrupt(file: &str, why: impl Into<String>) -> CheckpointError {
        CheckpointError::Corrupt { file: file.to_string(), why: why.into() }
    }
}

/// The meaning of an error of a disk operation on this file.
pub(super) fn refused(action: &'static str, file: &str) -> impl FnOnce(io::Error) -> CheckpointError {
    move |error| match is_full(&error) {
        true => CheckpointError::Full { cause: error.to_string() },
        false => CheckpointError::Io { action, file: file.to_string(), cause: error.to_string() },
    }
}
