//! Keys, values and versions.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

use super::bytes::Bytes;
use super::command::Op;

/// A key's value and version. A deleted key keeps its version as a tombstone: no version is used twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VersionedValue {
    /// The value; None if deleted.
    pub value: Option<Bytes>,
    /// Number of writes applied to the key; 0 if it was never written.
    pub version: u64,
}

/// The effect of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WriteResult {
    /// The write was done; the key is now at this version.
    Done {
        /// The new version.
        version: u64,
    },
    /// The key to delete has no value: nothing changed.
    NotFound {
        /// The version, unchanged.
        version: u64,
    },
    /// The key was not at the version that the write requires: nothing changed.
    Mismatch {
        /// The version found.
        version: u64,
    },
}

/// A key's entry.
#[derive(Clone, Debug)]
struct KeyEntry {
    entry: VersionedValue,
    /// The entry's share of the digest, kept so that a change need not read the old value again.
    fingerprint: u64,
}

impl PartialEq for KeyEntry {
    fn eq(&self, other: &KeyEntry) -> bool {
        self.entry == other.entry
    }
}

impl Eq for KeyEntry {}

impl Hash for KeyEntry {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.entry.hash(hasher);
    }
}

/// The map key of a store key. Its hash comes first: a search makes a dozen comparisons, and comparing two numbers
/// costs less than fetching a key from memory. Keys with equal hashes are still in order, so chosen keys cannot make a
/// search long. A short key is stored next to its hash.
type HashedKey = (u64, SmallVec<[u8; 16]>);

/// The keys of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    entries: BTreeMap<HashedKey, KeyEntry>,
    /// The sum of a hash of each entry, independent of their order.
    digest: u64,
    /// Size of all keys and values, in bytes.
    bytes: u64,
}

impl Store {
    /// A key's value and version, a tombstone included; None if the key was never written.
    pub fn get(&self, key: &[u8]) -> Option<&VersionedValue> {
        self.entries.get(&hash_key(key)).map(|held| &held.entry)
    }

    /// Size of all keys and values, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of keys ever written, tombstones included.
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

    /// The effect that an operation would have now.
    pub fn foresee(&self, op: &Op) -> WriteResult {
        let before = self.get(op.key());
        let version = before.map_or(0, |entry| entry.version);
        match op {
            Op::Put { if_version: Some(wanted), .. } if *wanted != version => WriteResult::Mismatch { version },
            Op::Delete { .. } if before.is_none_or(|entry| entry.value.is_none()) => WriteResult::NotFound { version },
            Op::Put { .. } | Op::Delete { .. } => WriteResult::Done { version: version + 1 },
        }
    }

    /// Applies one operation. If the key has changed, returns it with its new entry, for the next checkpoint.
    pub fn apply(&mut self, op: Op) -> (WriteResult, Option<(Vec<u8>, VersionedValue)>) {
        let (key, value, wanted) = match op {
            Op::Put { key, value, if_version } => (key, Some(value), if_version),
            Op::Delete { key } => (key, None, None),
        };
        let hashed_key = hash_key(&key);
        let Some(held) = self.entries.get_mut(&hashed_key) else {
            if wanted.is_some_and(|wanted| wanted != 0) {
                return (WriteResult::Mismatch { version: 0 }, None);
            }
            if value.is_none() {
                return (WriteResult::NotFound { version: 0 }, None);
            }
            let entry = VersionedValue { value, version: 1 };
            self.put(hashed_key, entry.clone());
            return (WriteResult::Done { version: 1 }, Some((key, entry)));
        };
        let version = held.entry.version;
        if wanted.is_some_and(|wanted| wanted != version) {
            return (WriteResult::Mismatch { version }, None);
        }
        if value.is_none() && held.entry.value.is_none() {
            return (WriteResult::NotFound { version }, None);
        }
        let before = std::mem::replace(&mut held.entry, VersionedValue { value, version: version + 1 });
        self.bytes = self.bytes - size_of_value(&before) + size_of_value(&held.entry);
        let before = std::mem::replace(&mut held.fingerprint, fingerprint(&key, &held.entry));
        self.digest = self.digest.wrapping_sub(before).wrapping_add(held.fingerprint);
        let changed = (key, held.entry.clone());
        (WriteResult::Done { version: version + 1 }, Some(changed))
    }

    /// All keys and their entries, in the order of [`key_rank`].
    pub(super) fn entries(&self) -> impl Iterator<Item = (&[u8], &VersionedValue)> {
        self.entries.iter().map(|((_, key), held)| (key.as_slice(), &held.entry))
    }

    /// Sets a key's entry.
    pub(super) fn insert(&mut self, key: &[u8], entry: VersionedValue) {
        self.put(hash_key(key), entry);
    }

    fn put(&mut self, hashed_key: HashedKey, entry: VersionedValue) {
        let fingerprint = fingerprint(&hashed_key.1, &entry);
        let key_bytes = hashed_key.1.len() as u64;
        self.bytes += key_bytes + size_of_value(&entry);
        let before = self.entries.insert(hashed_key, KeyEntry { entry, fingerprint });
        self.bytes -= before.as_ref().map_or(0, |before| key_bytes + size_of_value(&before.entry));
        let gone = before.map_or(0, |before| before.fingerprint);
        self.digest = self.digest.wrapping_sub(gone).wrapping_add(fingerprint);
    }
}

fn size_of_value(entry: &VersionedValue) -> u64 {
    entry.value.as_ref().map_or(0, |value| value.len() as u64)
}

fn hash_key(key: &[u8]) -> HashedKey {
    (key_rank(key), SmallVec::from_slice(key))
}

/// The rank of a key: a hash of it. The store and the files of a checkpoint hold the keys in the order of their ranks,
/// and keys of equal rank in the order of their bytes. The empty key is the first of all.
pub fn key_rank(key: &[u8]) -> u64 {
    if key.is_empty() { 0 } else { xxh3_64(key) }
}

/// Entries up to this length, in bytes, are hashed as one block: several times as fast as piece by piece.
const BLOCK_BYTES: usize = 240;

/// A hash of one entry; lengths keep `ab`+`c` apart from `a`+`bc`.
fn fingerprint(key: &[u8], entry: &VersionedValue) -> u64 {
    let length = (key.len() as u64).to_le_bytes();
    let value = entry.value.as_deref().unwrap_or_default();
    let pieces = [&length[..], key, &[u8::from(entry.value.is_some())], value];
    let mut block = [0; BLOCK_BYTES];
    let mut used = 0;
    for piece in pieces {
        let Some(hashed_key) = block.get_mut(used..used + piece.len()) else {
            let mut hash = Xxh3::with_seed(entry.version);
            pieces.iter().for_each(|piece| hash.update(piece));
            return hash.digest();
        };
        hashed_key.copy_from_slice(piece);
        used += piece.len();
    }
    xxh3_64_with_seed(&block[..used], entry.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Op {
        Op::Put { key: key.into(), value: value.as_bytes().into(), if_version: None }
    }

    fn put_if(key: &str, value: &str, version: u64) -> Op {
        Op::Put { key: key.into(), value: value.as_bytes().into(), if_version: Some(version) }
    }

    fn delete(key: &str) -> Op {
        Op::Delete { key: key.into() }
    }

    fn write(store: &mut Store, op: Op) -> WriteResult {
        store.apply(op).0
    }

    fn versioned(value: Option<&str>, version: u64) -> VersionedValue {
        VersionedValue { value: value.map(|value| value.as_bytes().to_vec().into()), version }
    }

    #[test]
    fn predicted_write_result_is_what_happens() {
        let mut store = Store::default();
        for op in [
            delete("k"),
            put_if("k", "a", 1),
            put_if("k", "a", 0),
            put_if("k", "b", 0),
            put_if("k", "b", 1),
            delete("k"),
            delete("k"),
            put("k", "c"),
            put("other", "d"),
        ] {
            let foreseen = store.foresee(&op);
            assert_eq!(foreseen, write(&mut store, op.clone()), "{op:?}");
        }
        assert_eq!((store.len(), store.is_empty(), Store::default().is_empty()), (2, false, true));
        let mut other = store.clone();
        write(&mut other, put("k", "e"));
        assert_ne!(store, other);
    }

    #[test]
    fn each_applied_write_raises_the_version_by_one() {
        let mut store = Store::default();
        assert_eq!(write(&mut store, put("k", "a")), WriteResult::Done { version: 1 });
        assert_eq!(write(&mut store, put("k", "a")), WriteResult::Done { version: 2 });
        assert_eq!(write(&mut store, delete("k")), WriteResult::Done { version: 3 });
        assert_eq!(write(&mut store, put("k", "b")), WriteResult::Done { version: 4 });
        assert_eq!(store.get(b"k"), Some(&versioned(Some("b"), 4)));
    }

    #[test]
    fn deleted_key_keeps_its_version_and_cannot_be_deleted_again() {
        let mut store = Store::default();
        write(&mut store, put("k", "a"));
        write(&mut store, delete("k"));
        assert_eq!(store.get(b"k"), Some(&versioned(None, 2)));
        let digest = store.digest();
        assert_eq!(write(&mut store, delete("k")), WriteResult::NotFound { version: 2 });
        assert_eq!((store.get(b"k"), store.digest()), (Some(&versioned(None, 2)), digest));
    }

    #[test]
    fn a_delete_of_a_missing_key_changes_nothing() {
        let mut store = Store::default();
        assert_eq!(write(&mut store, delete("k")), WriteResult::NotFound { version: 0 });
        assert_eq!(store, Store::default());
    }

    #[test]
    fn a_put_with_a_version_needs_exactly_that_version() {
        let mut store = Store::default();
        assert_eq!(write(&mut store, put_if("k", "a", 1)), WriteResult::Mismatch { version: 0 });
        assert!(store.is_empty());
        assert_eq!(write(&mut store, put_if("k", "a", 0)), WriteResult::Done { version: 1 });
        assert_eq!(write(&mut store, put_if("k", "b", 0)), WriteResult::Mismatch { version: 1 });
        assert_eq!(write(&mut store, put_if("k", "b", 1)), WriteResult::Done { version: 2 });
        write(&mut store, delete("k"));
        // The tombstone's version counts: the key is not new.
        assert_eq!(write(&mut store, put_if("k", "c", 0)), WriteResult::Mismatch { version: 3 });
        assert_eq!(write(&mut store, put_if("k", "c", 3)), WriteResult::Done { version: 4 });
    }

    #[test]
    fn digest_does_not_depend_on_the_history_of_the_state() {
        let (mut one, mut other) = (Store::default(), Store::default());
        for op in [put("a", "1"), put("b", "2"), put("a", "3")] {
            write(&mut one, op);
        }
        for op in [put("b", "2"), put("a", "x"), put("a", "3")] {
            write(&mut other, op);
        }
        assert_eq!((one.digest(), &one), (other.digest(), &other));
    }

    #[test]
    fn different_states_have_different_digests() {
        let digest = |ops: &[Op]| {
            let mut store = Store::default();
            for op in ops {
                write(&mut store, op.clone());
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

    #[test]
    fn store_counts_the_bytes_of_its_keys_and_values() {
        let mut store = Store::default();
        let ops =
            [put("a", "123"), put("bc", "12"), put("a", "1"), Op::Delete { key: b"bc".to_vec() }, put("bc", "1234")];
        let bytes = ops.map(|op| {
            store.apply(op);
            store.bytes()
        });
        assert_eq!(bytes, [4, 8, 6, 4, 8]);
        store.insert(b"a", versioned(Some("12345"), 9));
        store.insert(b"d", versioned(None, 1));
        assert_eq!(store.bytes(), 13);
    }

    #[test]
    fn digest_is_the_same_in_one_block_and_in_pieces() {
        for length in [0, 1, BLOCK_BYTES - 12, BLOCK_BYTES - 11, BLOCK_BYTES, 5_000] {
            let value = vec![7; length];
            let entry = VersionedValue { value: Some(value.clone().into()), version: 3 };
            let bytes = [&2u64.to_le_bytes()[..], b"ab", &[1], &value].concat();
            let mut pieces = Xxh3::with_seed(3);
            pieces.update(&bytes);
            assert_eq!(fingerprint(b"ab", &entry), pieces.digest(), "{length}");
        }
    }

    #[test]
    fn every_change_is_returned_with_its_new_entry() {
        let mut store = Store::default();
        let told = |store: &mut Store, op| store.apply(op).1;
        let changed = |value, version| Some((b"k".to_vec(), versioned(value, version)));
        assert_eq!(told(&mut store, delete("k")), None);
        assert_eq!(told(&mut store, put("k", "a")), changed(Some("a"), 1));
        assert_eq!(told(&mut store, put("k", "b")), changed(Some("b"), 2));
        assert_eq!(told(&mut store, put_if("k", "c", 1)), None, "that was no change");
        assert_eq!(told(&mut store, delete("k")), changed(None, 3));
        assert_eq!(told(&mut store, delete("k")), None);
    }

    #[test]
    fn entries_are_in_the_order_of_their_ranks_and_the_empty_key_is_the_first() {
        let mut store = Store::default();
        for n in 0..100 {
            write(&mut store, put(&format!("k{n}"), "v"));
        }
        write(&mut store, put("", "v"));
        let keys: Vec<&[u8]> = store.entries().map(|(key, _)| key).collect();
        assert_eq!((keys.len(), keys[0]), (101, &b""[..]));
        assert!(keys.is_sorted_by_key(|key| (key_rank(key), *key)));
        assert!(!keys.is_sorted(), "the order of the bytes is another one");
    }
}
