//! Keys, values and versions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::command::Op;

/// What a key holds. A deleted key keeps its version, as a tombstone: a version is never used twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Versioned {
    /// The value; None if deleted.
    #[serde(with = "serde_bytes")]
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

    /// What a change would do now.
    pub fn foresee(&self, op: &Op) -> Written {
        let before = self.entries.get(op.key());
        let version = before.map_or(0, |entry| entry.version);
        match op {
            Op::Put { if_version: Some(wanted), .. } if *wanted != version => Written::Mismatch { version },
            Op::Delete { .. } if before.is_none_or(|entry| entry.value.is_none()) => Written::NotFound { version },
            Op::Put { .. } | Op::Delete { .. } => Written::Done { version: version + 1 },
        }
    }

    /// Applies one change.
    pub fn apply(&mut self, op: &Op) -> Written {
        let written = self.foresee(op);
        if let Written::Done { version } = written {
            let value = match op {
                Op::Put { value, .. } => Some(value.clone()),
                Op::Delete { .. } => None,
            };
            self.insert(op.key().to_vec(), Versioned { value, version });
        }
        written
    }

    /// All keys and what they hold, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Vec<u8>, &Versioned)> {
        self.entries.iter()
    }

    /// Sets what a key holds.
    pub(super) fn insert(&mut self, key: Vec<u8>, entry: Versioned) {
        if let Some(before) = self.entries.get(&key) {
            self.digest = self.digest.wrapping_sub(fingerprint(&key, before));
        }
        self.digest = self.digest.wrapping_add(fingerprint(&key, &entry));
        self.entries.insert(key, entry);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Op {
        Op::Put { key: key.into(), value: value.into(), if_version: None }
    }

    fn put_if(key: &str, value: &str, version: u64) -> Op {
        Op::Put { key: key.into(), value: value.into(), if_version: Some(version) }
    }

    fn delete(key: &str) -> Op {
        Op::Delete { key: key.into() }
    }

    fn versioned(value: Option<&str>, version: u64) -> Versioned {
        Versioned { value: value.map(Into::into), version }
    }

    #[test]
    fn each_applied_write_raises_the_version_by_one() {
        let mut store = Store::default();
        assert_eq!(store.apply(&put("k", "a")), Written::Done { version: 1 });
        assert_eq!(store.apply(&put("k", "a")), Written::Done { version: 2 });
        assert_eq!(store.apply(&delete("k")), Written::Done { version: 3 });
        assert_eq!(store.apply(&put("k", "b")), Written::Done { version: 4 });
        assert_eq!(store.get(b"k"), Some(&versioned(Some("b"), 4)));
    }

    #[test]
    fn a_deleted_key_keeps_its_version_and_can_not_be_deleted_again() {
        let mut store = Store::default();
        store.apply(&put("k", "a"));
        store.apply(&delete("k"));
        assert_eq!(store.get(b"k"), Some(&versioned(None, 2)));
        let digest = store.digest();
        assert_eq!(store.apply(&delete("k")), Written::NotFound { version: 2 });
        assert_eq!((store.get(b"k"), store.digest()), (Some(&versioned(None, 2)), digest));
    }

    #[test]
    fn a_delete_of_a_missing_key_changes_nothing() {
        let mut store = Store::default();
        assert_eq!(store.apply(&delete("k")), Written::NotFound { version: 0 });
        assert_eq!(store, Store::default());
    }

    #[test]
    fn a_put_with_a_version_needs_exactly_that_version() {
        let mut store = Store::default();
        assert_eq!(store.apply(&put_if("k", "a", 1)), Written::Mismatch { version: 0 });
        assert!(store.is_empty());
        assert_eq!(store.apply(&put_if("k", "a", 0)), Written::Done { version: 1 });
        assert_eq!(store.apply(&put_if("k", "b", 0)), Written::Mismatch { version: 1 });
        assert_eq!(store.apply(&put_if("k", "b", 1)), Written::Done { version: 2 });
        store.apply(&delete("k"));
        // The tombstone's version counts: the key is not new.
        assert_eq!(store.apply(&put_if("k", "c", 0)), Written::Mismatch { version: 3 });
        assert_eq!(store.apply(&put_if("k", "c", 3)), Written::Done { version: 4 });
    }

    #[test]
    fn the_digest_does_not_depend_on_the_way_to_the_state() {
        let (mut one, mut other) = (Store::default(), Store::default());
        for op in [put("a", "1"), put("b", "2"), put("a", "3")] {
            one.apply(&op);
        }
        for op in [put("b", "2"), put("a", "x"), put("a", "3")] {
            other.apply(&op);
        }
        assert_eq!((one.digest(), &one), (other.digest(), &other));
    }

    #[test]
    fn the_digest_tells_states_apart() {
        let digest = |ops: &[Op]| {
            let mut store = Store::default();
            for op in ops {
                store.apply(op);
            }
            store.digest()
        };
        let states = [
            digest(&[]),
            digest(&[put("a", "")]),
            digest(&[put("", "a")]),
            digest(&[put("a", "bc")]),
            digest(&[put("ab", "c")]),
            digest(&[put("a", ""), put("a", "")]),
            digest(&[put("a", ""), delete("a")]),
            digest(&[put("a", ""), put("b", "")]),
        ];
        let distinct: std::collections::BTreeSet<u64> = states.into_iter().collect();
        assert_eq!(distinct.len(), states.len());
    }
}
