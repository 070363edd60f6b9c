//! The state as data: the changes since the last checkpoint, and the chunks of a whole state.
//!
//! A checkpoint is written from the *changes*, so its cost depends on the writes and not on the size of the store.
//! Changes that were taken for a failed checkpoint count as changed again. A state that was loaded from elsewhere has
//! changed as a whole.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Kv;
use super::sessions::{SessionEntry, Sessions};
use super::store::{Store, VersionedValue};
use crate::codec::{self, CodecError};
use crate::paxos::StateMachine;

/// The highest version that a chunk may hold: no key was ever written more often, and the next write needs a version
/// too.
const VERSION_MAX: u64 = 1 << 62;

/// Why bytes are no chunk of a state.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// The bytes cannot be decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A key's version is above the limit.
    #[error("a key has version {0}, which is above the limit")]
    Version(u64),
}

/// One entry of a state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StateEntry {
    /// A key, a tombstone included.
    Key {
        /// The key.
        #[serde(with = "serde_bytes")]
        key: Vec<u8>,
        /// Its value and version.
        entry: VersionedValue,
    },
    /// A session.
    Session {
        /// Its name.
        id: u64,
        /// Its entry in the table.
        session: SessionEntry,
    },
    /// The history of the state.
    History(u64),
}

impl StateEntry {
    /// Approximate size of the entry, in bytes.
    pub fn size(&self) -> usize {
        match self {
            StateEntry::Key { key, entry } => 24 + key.len() + entry.value.as_ref().map_or(0, |value| value.len()),
            StateEntry::Session { session, .. } => 48 + session.size(),
            StateEntry::History(_) => 16,
        }
    }
}

/// Encodes a chunk of a state.
pub fn encode_chunk(pieces: &Vec<StateEntry>) -> Vec<u8> {
    codec::encode(pieces)
}

/// Decodes the pieces of a chunk, which is not trusted.
pub fn decode_part(part: &[u8]) -> Result<Vec<StateEntry>, PartError> {
    let pieces: Vec<StateEntry> = codec::decode(part)?;
    let version = |piece: &StateEntry| if let StateEntry::Key { entry, .. } = piece { entry.version } else { 0 };
    match pieces.iter().map(version).find(|version| *version > VERSION_MAX) {
        Some(version) => Err(PartError::Version(version)),
        None => Ok(pieces),
    }
}

/// A chunk without its sessions, for a client: their nonces would let it write as their owners. Returned with the
/// digest of what was left out, so that the whole can be checked.
pub fn without_sessions(part: &[u8]) -> Result<(Vec<u8>, u64), PartError> {
    let is_key = |piece: &StateEntry| matches!(piece, StateEntry::Key { .. });
    let (keys, others): (Vec<_>, Vec<_>) = decode_part(part)?.into_iter().partition(is_key);
    let mut left_out = Kv::default();
    left_out.put_pieces(others);
    Ok((encode_chunk(&keys), StateMachine::digest(&left_out)))
}

/// The changes that a checkpoint must write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StateDelta {
    /// The pieces are the whole state: earlier contents must be deleted.
    pub is_whole: bool,
    /// Entries that are new or different.
    pub pieces: Vec<StateEntry>,
    /// Sessions that were removed.
    pub ended: Vec<u64>,
}

/// The names of changed entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct DirtyKeys {
    /// Each key once: the store marks the keys that are listed here.
    keys: Vec<Vec<u8>>,
    sessions: BTreeSet<u64>,
    history: bool,
    is_whole: bool,
}

/// The changes since the last checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct DirtyState {
    since: DirtyKeys,
    /// Changes taken by a checkpoint that is not known to be durable yet.
    taken: DirtyKeys,
}

impl DirtyState {
    /// A state of which no checkpoint was ever written.
    pub(super) fn everything() -> DirtyState {
        DirtyState { since: DirtyKeys { is_whole: true, ..DirtyKeys::default() }, taken: DirtyKeys::default() }
    }

    /// Adds a changed key that is not listed yet. It is also listed when the whole state is to be written: the store
    /// has marked it as listed.
    pub(super) fn key(&mut self, key: Vec<u8>) {
        self.since.keys.push(key);
    }

    pub(super) fn session(&mut self, id: u64) {
        if !self.since.is_whole {
            self.since.sessions.insert(id);
        }
    }

    pub(super) fn history(&mut self) {
        self.since.history = true;
    }

    /// Takes the changes for a checkpoint.
    pub(super) fn take(&mut self, store: &mut Store, sessions: &Sessions, history: u64) -> StateDelta {
        assert!(self.taken == DirtyKeys::default(), "one checkpoint at a time");
        self.taken = std::mem::take(&mut self.since);
        let DirtyKeys { keys, sessions: ids, history: is_new_history, is_whole } = &self.taken;
        let key = |key: &[u8], entry: &VersionedValue| StateEntry::Key { key: key.to_vec(), entry: entry.clone() };
        let session = |(id, session): (u64, &SessionEntry)| StateEntry::Session { id, session: session.clone() };
        if *is_whole {
            for name in keys {
                store.list(name, false);
            }
            let all_keys = store.entries().map(|(name, entry)| key(name, entry));
            let history = (history != 0).then_some(StateEntry::History(history));
            let pieces = all_keys.chain(sessions.all().map(session)).chain(history).collect();
            return StateDelta { is_whole: true, pieces, ended: Vec::new() };
        }
        let changed_keys = keys.iter().filter_map(|name| store.list(name, false).map(|(_, entry)| key(name, entry)));
        let changed_sessions = ids.iter().filter_map(|id| Some(session((*id, sessions.get(*id)?))));
        let history = is_new_history.then_some(StateEntry::History(history));
        let pieces = changed_keys.chain(changed_sessions).chain(history).collect();
        let ended = ids.iter().copied().filter(|id| sessions.get(*id).is_none()).collect();
        StateDelta { is_whole: false, pieces, ended }
    }

    /// The changes taken are durable.
    pub(super) fn saved(&mut self) {
        self.taken = DirtyKeys::default();
    }

    /// The changes taken were not written: they count as changed again.
    pub(super) fn failed(&mut self, store: &mut Store) {
        let DirtyKeys { keys, sessions, history, is_whole } = std::mem::take(&mut self.taken);
        for key in keys {
            if store.list(&key, true).is_some_and(|(was_listed, _)| !was_listed) {
                self.since.keys.push(key);
            }
        }
        self.since.sessions.extend(sessions);
        self.since.history |= history;
        self.since.is_whole |= is_whole;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kv, KvCommand, Op};
    use super::*;
    use crate::paxos::{Slot, StateMachine, Value};

    fn apply(kv: &mut Kv, slot: u64, command: KvCommand) {
        kv.apply(Slot(slot), &Value::Command(command.to_paxos()));
    }

    fn open(nonce: u128) -> KvCommand {
        KvCommand::Open { nonce, label: String::new() }
    }

    fn put(session: u64, nonce: u128, sequence: u64, key: &str) -> KvCommand {
        let op = Op::Put { key: key.into(), value: vec![1; sequence as usize].into(), if_version: None };
        KvCommand::Write { session, nonce, sequence, first_open: 1, label: String::new(), op }
    }

    /// A state on disk: what checkpoints have written.
    #[derive(Default)]
    struct Written(Kv);

    impl Written {
        fn write(&mut self, changes: &StateDelta) {
            if changes.is_whole {
                self.0 = Kv::default();
            }
            self.0.put_pieces(changes.pieces.clone());
            changes.ended.iter().for_each(|id| self.0.end_session(*id));
        }
    }

    #[test]
    fn deltas_make_the_whole_state() {
        let (mut kv, mut written) = (Kv::with_sessions_at_most(2), Written(Kv::with_sessions_at_most(2)));
        let mut slot = 0;
        let mut next = |kv: &mut Kv, command| {
            slot += 1;
            apply(kv, slot, command);
        };
        for round in 0..20 {
            next(&mut kv, open(round));
            let session = kv.sessions().opened_by(round).unwrap();
            for n in 1..=3 {
                next(&mut kv, put(session, round, n, &format!("k{}", (round as u64 + n) % 7)));
            }
            let changes = kv.take_delta();
            assert!(!changes.is_whole && changes.pieces.len() <= 10, "{changes:?}");
            if round % 3 == 0 {
                // The disk was full: the next checkpoint writes these changes too.
                kv.delta_failed();
                continue;
            }
            kv.delta_saved();
            written.write(&changes);
            let state = |kv: &Kv| (kv.digest(), kv.store().clone(), kv.history());
            assert_eq!(state(&written.0), state(&kv), "round {round}");
        }
    }

    #[test]
    fn state_loaded_from_chunks_is_equal_and_changed_as_a_whole() {
        let mut kv = Kv::default();
        apply(&mut kv, 1, open(7));
        (1..=9).for_each(|n| apply(&mut kv, 1 + n, put(1, 7, n, &format!("k{n}"))));
        let mut from_nothing = Kv::empty_like(&kv);
        let whole = from_nothing.take_delta();
        assert!(whole.is_whole && whole.pieces.is_empty());
        from_nothing.delta_failed();
        assert!(from_nothing.take_delta().is_whole, "none of it was ever written");
        let mut loaded = Kv::empty_like(&kv);
        kv.changed_all();
        let whole = kv.take_delta();
        for pieces in whole.pieces.chunks(2) {
            loaded.load_chunk(&encode_chunk(&pieces.to_vec())).unwrap();
        }
        assert_eq!((loaded.digest(), loaded.store(), loaded.sessions()), (kv.digest(), kv.store(), kv.sessions()));
        // Changes before and after the first whole checkpoint are written too.
        apply(&mut loaded, 11, put(1, 7, 10, "k1"));
        assert!(loaded.take_delta().is_whole);
        loaded.delta_saved();
        apply(&mut loaded, 12, put(1, 7, 11, "k1"));
        let changed: Vec<StateEntry> = loaded.take_delta().pieces;
        assert!(
            changed.iter().any(|piece| matches!(piece, StateEntry::Key { key, .. } if key == b"k1")),
            "{changed:?}"
        );
        assert!(loaded.load_chunk(b"\x07no part").is_err());
    }

    #[test]
    fn chunk_with_a_version_above_the_limit_is_refused() {
        for (version, fits) in [(1, true), (VERSION_MAX, true), (VERSION_MAX + 1, false), (u64::MAX, false)] {
            let entry = VersionedValue { value: Some(vec![1].into()), version };
            let part = encode_chunk(&vec![StateEntry::Key { key: b"k".to_vec(), entry }]);
            let mut kv = Kv::default();
            assert_eq!(kv.load_chunk(&part).is_ok(), fits, "{version}");
            // A loaded chunk can be written to.
            apply(&mut kv, 1, open(7));
            apply(&mut kv, 2, put(1, 7, 1, "k"));
        }
    }
}
