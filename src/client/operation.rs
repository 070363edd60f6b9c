//! An operation on one key, and its result.

use std::time::Duration;

use super::outcome::{ClientError, GetResponse, WriteResponse};
use crate::role::ServerSet;

/// An operation on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets a value.
    Put {
        /// The key, as bytes.
        key: Vec<u8>,
        /// The new value, as bytes.
        value: Vec<u8>,
        /// The version that the key must have for the write; any if None.
        if_version: Option<u64>,
    },
    /// Reads a value.
    Get {
        /// The key, as bytes.
        key: Vec<u8>,
    },
    /// Removes a value.
    Delete {
        /// The key, as bytes.
        key: Vec<u8>,
    },
}

impl Operation {
    /// The operation's key.
    pub fn key(&self) -> &[u8] {
        match self {
            Operation::Put { key, .. } | Operation::Get { key } | Operation::Delete { key } => key,
        }
    }
}

/// The result of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationResult {
    /// The result of a write.
    Wrote(WriteResponse),
    /// The result of a read.
    Read(GetResponse),
}

/// An operation that has ended.
#[derive(Debug)]
pub struct CompletedOperation {
    /// The result, or why there is none.
    pub end: Result<OperationResult, ClientError>,
    /// Time from beginning to end.
    pub took: Duration,
    /// The acceptors whose votes chose a write's slot; empty for a read, and if the replying server learned from
    /// another one that the slot is chosen.
    pub accepted_by: ServerSet,
}
