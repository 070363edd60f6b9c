//! Keys, values and versions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::command::Op;

/// What a key holds. A deleted key keeps its version, as a tombstone: a version is never used twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Versioned {
    /// The value; None if deleted.
    pub value: Option<Vec<u8>>,
    /// How many writes were applied to the key; 0 if it was never written.
    pub version: u64,
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Written {
    /// Done; the key is now at this version.
    Done {
        /// The new version.
        version: u64,
    },
    /// There was nothing to delete: nothing changed.
    NotFound {
        /// The version, unchanged.
        version: u64,
    },
    /// The key was at another version than the write wanted: nothing changed.
    Mismatch {
        /// The version found.
        version: u64,
    },
}

/// The keys of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    entries: BTreeMap<Vec<u8>, Versioned>,
    /// The order-free sum of a hash of each entry.
    digest: u64,
}

impl Store {
    /// What a key holds, a tombstone included; None if it was never written.
    pub fn get(&self, key: &[u8]) -> Option<&Versioned> {
        self.entries.get(key)
    }

    /// How many keys were ever written, tombstones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no key was ever written.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A fingerprint of all entries.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Applies one change.
    pub fn apply(&mut self, op: &Op) -> Written {
        let before = self.entries.get(op.key());
        let version = before.map_or(0, |entry| entry.version);
        let value = match op {
            Op::Put { if_version: Some(wanted), .. } if *wanted != version => return Written::Mismatch { version },
            Op::Put { value, .. } => Some(value.clone()),
            Op::Delete { .. } if before.is_none_or(|entry| entry.value.is_none()) => {
                return Written::NotFound { version };
            }
            Op::Delete { .. } => None,
        };
        self.insert(op.key(), Versioned { value, version: version + 1 });
        Written::Done { version: version + 1 }
    }

    fn insert(&mut self, key: &[u8], entry: Versioned) {
        if let Some(before) = self.entries.get(key) {
            self.digest = self.digest.wrapping_sub(fingerprint(key, before));
        }
        self.digest = self.digest.wrapping_add(fingerprint(key, &entry));
        self.entries.insert(key.to_vec(), entry);
    }
}

/// A hash of one entry; lengths keep `ab`+`c` apart from `a`+`bc`.
fn fingerprint(key: &[u8], entry: &Versioned) -> u64 {
    let mut hash = Xxh3::with_seed(entry.version);
    hash.update(&(key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(&[u8::from(entry.value.is_some())]);
    hash.update(entry.value.as_deref().unwrap_or_default());
    hash.digest()
}
