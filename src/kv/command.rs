//! The commands of the store, as the log holds them.

use std::fmt::{self, Debug, Formatter};

use serde::{Deserialize, Serialize};

use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use super::bytes::{self, Bytes};
use crate::codec::{self, CodecError};
use crate::paxos;

/// The longest key, in bytes.
pub const KEY_MAX_BYTES: usize = 4 << 10;
/// The longest value, in bytes.
pub const VALUE_MAX_BYTES: usize = 1 << 20;
/// The longest label, in bytes.
pub const LABEL_MAX_BYTES: usize = 48;
/// The last sequence number of a session. No client reaches it; the limit keeps a client from using up all numbers by
/// naming a very high one.
pub const SEQUENCE_MAX: u64 = 1 << 62;
/// Maximum number of sequence numbers that a client has open at a time.
pub const SEQUENCE_WINDOW: u64 = 64;

/// Maximum size of a command without label, key and value, in bytes.
const HEAD_MAX_BYTES: usize = 64;

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Op {
    /// Sets the value.
    Put {
        /// The key.
        #[serde(serialize_with = "serde_bytes::serialize", deserialize_with = "bytes::copied")]
        key: Vec<u8>,
        /// The value.
        value: Bytes,
        /// Only if the key is at this version; a key that was never written is at version 0.
        if_version: Option<u64>,
    },
    /// Removes the value.
    Delete {
        /// The key.
        #[serde(serialize_with = "serde_bytes::serialize", deserialize_with = "bytes::copied")]
        key: Vec<u8>,
    },
}

impl Op {
    /// The key that the operation changes.
    pub fn key(&self) -> &[u8] {
        match self {
            Op::Put { key, .. } | Op::Delete { key } => key,
        }
    }

    /// Size of key and value, in bytes.
    fn size(&self) -> usize {
        match self {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { key } => key.len(),
        }
    }

    /// Whether key and value are within their limits.
    pub fn is_within_limits(&self) -> bool {
        let value = match self {
            Op::Put { value, .. } => value.len(),
            Op::Delete { .. } => 0,
        };
        self.key().len() <= KEY_MAX_BYTES && value <= VALUE_MAX_BYTES
    }

    /// A hash that distinguishes two writes with the same name.
    pub fn fingerprint(&self) -> u64 {
        let (kind, version, value) = match self {
            Op::Put { value, if_version: None, .. } => (0, 0, &value[..]),
            Op::Put { value, if_version: Some(version), .. } => (1, *version, &value[..]),
            Op::Delete { .. } => (2, 0, &[][..]),
        };
        let mut hash = Xxh3::with_seed(kind);
        hash.update(&version.to_le_bytes());
        hash.update(&(self.key().len() as u64).to_le_bytes());
        hash.update(self.key());
        hash.update(value);
        hash.digest()
    }
}

/// A command of the log. Two commands are the same if [`KvCommand::id`] is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum KvCommand {
    /// Opens a session, which is named by the slot where the command is applied and by the nonce.
    Open {
        /// Random number of the client; a retry has the same one.
        nonce: u128,
        /// For people: the client and its request, as in `c1-5`.
        label: String,
    },
    /// A write within a session.
    Write {
        /// The slot where the session was opened.
        session: u64,
        /// The nonce that opened the session. It proves that the write is its owner's, and of this history.
        nonce: u128,
        /// The write's number in the session, counted from 1.
        sequence: u64,
        /// The client knows the outcome of every write below this one; at most `sequence`.
        first_open: u64,
        /// For people: the client and its request.
        label: String,
        /// The change.
        op: Op,
    },
}

/// The fields of a command that are not in its id.
#[derive(Serialize, Deserialize)]
enum Body<Label, Op> {
    Open { label: Label },
    Write { first_open: u64, label: Label, op: Op },
}

/// Why a value of the log is no command.
#[derive(Debug, Error)]
pub enum NoCommand {
    /// The bytes cannot be decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The bytes do not belong to a command with this id.
    #[error("the command id {0:?} does not match the command")]
    Name(paxos::CommandId),
}

impl KvCommand {
    /// The command's id. No session is 0, so session 0 marks an OPEN, which its nonce names.
    pub fn id(&self) -> paxos::CommandId {
        match self {
            KvCommand::Open { nonce, .. } => paxos::CommandId::opening(*nonce),
            KvCommand::Write { session, nonce, sequence, .. } => paxos::CommandId::new(*session, *nonce, *sequence),
        }
    }

    /// Size of its key and value, in bytes.
    fn size(&self) -> usize {
        match self {
            KvCommand::Open { .. } => 0,
            KvCommand::Write { op, .. } => op.size(),
        }
    }

    /// For people: the client and its request.
    pub fn label(&self) -> &str {
        match self {
            KvCommand::Open { label, .. } | KvCommand::Write { label, .. } => label,
        }
    }

    /// Whether the log may hold it: its sizes are within the limits, and its session may use the sequence number.
    pub fn is_well_formed(&self) -> bool {
        let labelled = self.label().len() <= LABEL_MAX_BYTES;
        match self {
            KvCommand::Open { .. } => labelled,
            KvCommand::Write { session, sequence, first_open, op, .. } => {
                labelled
                    && *session > 0
                    && *first_open > 0
                    && first_open <= sequence
                    && *sequence <= SEQUENCE_MAX
                    && sequence - first_open < SEQUENCE_WINDOW
                    && op.is_within_limits()
            }
        }
    }

    /// The command as Paxos sees it: an id and bytes.
    pub fn to_paxos(&self) -> paxos::Command {
        let mut bytes = Vec::with_capacity(self.label().len() + self.size() + HEAD_MAX_BYTES);
        let body = match self {
            KvCommand::Open { label, .. } => Body::Open { label },
            KvCommand::Write { first_open, label, op, .. } => Body::Write { first_open: *first_open, label, op },
        };
        codec::encode_into(&body, &mut bytes);
        paxos::Command { id: self.id(), payload: bytes.into() }
    }

    /// The command in a value of the log.
    pub fn from_paxos(command: &paxos::Command) -> Result<KvCommand, NoCommand> {
        let paxos::CommandId { session, nonce, sequence } = command.id;
        match (codec::decode(&command.payload)?, session, sequence) {
            (Body::Open { label }, 0, 0) => Ok(KvCommand::Open { nonce, label }),
            (Body::Write { first_open, label, op }, 1.., _) => {
                Ok(KvCommand::Write { session, nonce, sequence, first_open, label, op })
            }
            _ => Err(NoCommand::Name(command.id)),
        }
    }
}

impl Debug for KvCommand {
    /// Leaves out the nonce, which must stay secret.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            KvCommand::Open { label, .. } => write!(f, "{:?} open ({label})", self.id()),
            KvCommand::Write { first_open, label, op, .. } => {
                write!(f, "{:?} first_open={first_open} ({label}) {op:?}", self.id())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(session: u64, sequence: u64, first_open: u64, op: Op) -> KvCommand {
        KvCommand::Write { session, nonce: 9, sequence, first_open, label: String::new(), op }
    }

    fn put(key: usize, value: usize) -> Op {
        Op::Put { key: vec![b'k'; key], value: vec![b'v'; value].into(), if_version: None }
    }

    #[test]
    fn key_and_value_may_be_as_long_as_their_limits_and_no_longer() {
        for (key, value, fits) in [
            (0, 0, true),
            (KEY_MAX_BYTES, VALUE_MAX_BYTES, true),
            (KEY_MAX_BYTES + 1, 0, false),
            (1, VALUE_MAX_BYTES + 1, false),
        ] {
            assert_eq!(put(key, value).is_within_limits(), fits, "{key} and {value} bytes");
            assert_eq!(write(1, 1, 1, put(key, value)).is_well_formed(), fits, "{key} and {value} bytes");
        }
        assert!(Op::Delete { key: vec![b'k'; KEY_MAX_BYTES] }.is_within_limits());
        assert!(!Op::Delete { key: vec![b'k'; KEY_MAX_BYTES + 1] }.is_within_limits());
    }

    #[test]
    fn sequence_is_valid_from_first_open_to_the_end_of_the_window() {
        for (session, sequence, first_open, fits) in [
            (1, 1, 1, true),
            (0, 1, 1, false),
            (1, 1, 0, false),
            (1, 0, 0, false),
            (1, 4, 5, false),
            (7, SEQUENCE_WINDOW, 1, true),
            (7, SEQUENCE_WINDOW + 1, 1, false),
            (7, 100 + SEQUENCE_WINDOW - 1, 100, true),
            (7, 100 + SEQUENCE_WINDOW, 100, false),
            (7, SEQUENCE_MAX, SEQUENCE_MAX, true),
            (7, SEQUENCE_MAX + 1, SEQUENCE_MAX, false),
            (7, u64::MAX, u64::MAX, false),
        ] {
            let command = write(session, sequence, first_open, put(1, 1));
            assert_eq!(command.is_well_formed(), fits, "{session}-{sequence}, first open {first_open}");
        }
    }

    #[test]
    fn a_label_is_kept_and_has_its_limit() {
        for (length, fits) in [(0, true), (LABEL_MAX_BYTES, true), (LABEL_MAX_BYTES + 1, false)] {
            let label = "l".repeat(length);
            let open = KvCommand::Open { nonce: 0, label: label.clone() };
            assert_eq!((open.label(), open.is_well_formed()), (label.as_str(), fits));
            let write = KvCommand::Write {
                session: 1,
                nonce: 9,
                sequence: 1,
                first_open: 1,
                label: label.clone(),
                op: put(1, 1),
            };
            assert_eq!((write.label(), write.is_well_formed()), (label.as_str(), fits));
        }
    }
}
