//! Errors of a data directory.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::protocol::Family;
use crate::storage::ballot_store::BallotStoreError;
use crate::storage::disk::{is_full, is_short_of_files};
use crate::storage::identity::{IDENTITY_FILE, IdentityError};
use crate::storage::journal::OpenError;

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// A disk operation failed.
    #[error("cannot {action} {path}: {source}. Choose a directory that this user may write to (--data)")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Another process uses it.
    #[error(
        "data directory {path} is in use by another process. Stop that server, or choose another directory with \
             --data"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds files and no identity.
    #[error(
        "{path} holds {holds} and no {IDENTITY_FILE}: it is not a data directory, or the file is lost. Choose an empty \
         directory, or put the file back"
    )]
    NotADataDir {
        /// The directory.
        path: PathBuf,
        /// One of its files.
        holds: String,
    },
    /// An interrupted restore has made the directory, or has yet to make it.
    #[error(
        "{path} belongs to a restore that did not finish: {restore} exists. Run the restore again; it continues where \
         it stopped. To cancel it, remove {restore} and the server-N directories next to it"
    )]
    Unfinished {
        /// The directory.
        path: PathBuf,
        /// Where the restore prepares its directories.
        restore: PathBuf,
    },
    /// The directory holds no identity, and one was expected.
    #[error(
        "{path} holds no {IDENTITY_FILE}: it is not a data directory. Give the directory that the server uses as \
             --data"
    )]
    NoIdentity {
        /// The directory.
        path: PathBuf,
    },
    /// The system gave no random number for the storage id.
    #[error("the operating system returned no random number for the storage id: {0}")]
    Random(String),
    /// The identity cannot be read or written, or forbids the use.
    #[error("data directory {path}: {source}")]
    Identity {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: IdentityError,
    },
    /// The journal cannot be opened.
    #[error("data directory {path}: {source}")]
    Journal {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: Box<OpenError>,
    },
    /// The directory holds data of another family of protocols.
    #[error(
        "data directory {path} holds data written under {other}, which no other protocol can read. Start this server \
         with its earlier protocol, or choose another directory (--data)"
    )]
    OtherProtocol {
        /// The directory.
        path: PathBuf,
        /// The family that its data belong to.
        other: Family,
    },
    /// The file of reserved rounds cannot be opened.
    #[error("data directory {path}: {source}")]
    Rounds {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: BallotStoreError,
    },
}

impl DataDirError {
    /// Whether the only problem is a full disk or the limit on open files; a later attempt may succeed.
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

    /// Whether the disk failed to read or write.
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

    /// The reason for another server, without the path of this directory.
    pub fn reason(&self) -> String {
        match self {
            DataDirError::Identity { source, .. } => source.to_string(),
            other => other.to_string(),
        }
    }

    /// Whether writing the identity failed and the contents of the disk are unknown: the process must stop.
    pub fn is_fatal(&self) -> bool {
        let DataDirError::Identity { source, .. } = self else { return false };
        matches!(source, IdentityError::AlreadyFailed | IdentityError::Io { .. }) && !source.is_full()
    }
}
