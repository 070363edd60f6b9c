//! Why a data folder cannot be used.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::protocol::Family;
use crate::storage::ballot_store::BallotStoreError;
use crate::storage::disk::{is_full, is_short_of_files};
use crate::storage::identity::{IDENTITY_FILE, IdentityError};
use crate::storage::journal::OpenError;

/// Why a data folder cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataDirError {
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
    OtherProtocol {
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
        source: BallotStoreError,
    },
}

impl DataDirError {
    /// The disk has no room, or no more files may be opened. Nothing else is wrong, and later there may be some.
    pub fn is_full(&self) -> bool {
        match self {
            DataDirError::Journal { source, .. } => match &**source {
                OpenError::Full { .. } => true,
                OpenError::Io { source, .. } => is_short_of_files(source),
                _ => false,
            },
            DataDirError::Identity { source, .. } => source.is_full(),
            DataDirError::Rounds { source, .. } => source.is_full(),
            DataDirError::Io { source, .. } => is_full(source),
            _ => false,
        }
    }

    /// The disk has refused to read or to write.
    pub fn is_io(&self) -> bool {
        match self {
            DataDirError::Io { .. } => true,
            DataDirError::Journal { source, .. } => matches!(**source, OpenError::Io { .. }),
            DataDirError::Identity { source, .. } => {
                matches!(source, IdentityError::Io { .. } | IdentityError::AlreadyFailed)
            }
            DataDirError::Rounds { source, .. } => {
                matches!(source, BallotStoreError::Io { .. } | BallotStoreError::Failed)
            }
            _ => false,
        }
    }

    /// What another server is told: not where this one has its folder.
    pub fn reason(&self) -> String {
        match self {
            DataDirError::Identity { source, .. } => source.to_string(),
            other => other.to_string(),
        }
    }

    /// Writing the identity has failed in a way after which nobody knows what is on the disk: the process must stop.
    pub fn is_fatal(&self) -> bool {
        let DataDirError::Identity { source, .. } = self else { return false };
        matches!(source, IdentityError::AlreadyFailed | IdentityError::Io { .. }) && !source.is_full()
    }
}
