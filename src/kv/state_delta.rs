//! The state as data: the changes since the last checkpoint, and the chunks of a whole state.
//!
//! A checkpoint is written from the *changes*, so its cost depends on the writes and not on the size of the store. Each
//! write adds its change to a list, and a checkpoint takes the list: the learner searches for nothing. Changes that were
//! taken for a failed checkpoint count as changed again.
//!
//! A state that was loaded from chunks is already on the disk: the server has written the chunks as they came. Only if
//! that failed, the whole state is taken.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Kv;
use super::command::KEY_MAX_BYTES;
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
    /// A key is longer than the limit.
    #[error("a key has {0} bytes, and the limit is {KEY_MAX_BYTES}")]
    KeyLength(usize),
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
    for piece in &pieces {
        match piece {
            StateEntry::Key { entry, .. } if entry.version > VERSION_MAX => {
                return Err(PartError::Version(entry.version));
            }
            StateEntry::Key { key, .. } if key.len() > KEY_MAX_BYTES => return Err(PartError::KeyLength(key.len())),
            _ => {}
        }
    }
    Ok(pieces)
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

/// What the pieces of a delta are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeltaScope {
    /// The changes since the last checkpoint.
    #[default]
    Changes,
    /// The changes since the snapshot with this digest, which replaces all that was written before.
    SinceSnapshot {
        /// The digest of the snapshot.
        digest: u64,
    },
    /// The whole state, which replaces all that was written before.
    Whole,
}

/// What a checkpoint must write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StateDelta {
    /// What the pieces are.
    pub scope: DeltaScope,
    /// Entries that are new or different. Of several for one key, the last is the newest.
    pub pieces: Arc<Vec<StateEntry>>,
    /// Sessions that were removed.
    pub ended: Vec<u64>,
}

impl StateDelta {
    pub(super) fn whole(store: &Store, sessions: &Sessions, history: u64) -> StateDelta {
        let key = |(key, entry): (&[u8], &VersionedValue)| StateEntry::Key { key: key.to_vec(), entry: entry.clone() };
        let history = (history != 0).then_some(StateEntry::History(history));
        let pieces = store.entries().map(key).chain(sessions.all().map(session)).chain(history).collect();
        StateDelta { scope: DeltaScope::Whole, pieces: Arc::new(pieces), ended: Vec::new() }
    }
}

fn session((id, session): (u64, &SessionEntry)) -> StateEntry {
    StateEntry::Session { id, session: session.clone() }
}

/// Changes of a state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct ChangeList {
    scope: DeltaScope,
    /// The changed keys, in the order of their changes.
    keys: Arc<Vec<StateEntry>>,
    /// Size of these keys and their values, in bytes.
    bytes: u64,
    /// The changed sessions.
    sessions: BTreeSet<u64>,
    history: bool,
}

/// The list of changed keys may hold this number of outdated changes, and the same number as there are keys.
const OUTDATED_MAX: usize = 100_000;
/// Size of the outdated changes that the list may hold, in bytes, besides the size of the store.
const OUTDATED_MAX_BYTES: u64 = 64 << 20;
/// Maximum number of changed sessions, ended ones included; beyond it the whole state is written.
const CHANGED_SESSIONS_MAX: usize = 100_000;

impl ChangeList {
    /// From now on the whole state is to be written: single changes are of no use any more.
    fn become_whole(&mut self) {
        *self = ChangeList { scope: DeltaScope::Whole, ..ChangeList::default() };
    }

    fn add_sessions(&mut self, ids: impl IntoIterator<Item = u64>) {
        self.sessions.extend(ids);
        if self.sessions.len() > CHANGED_SESSIONS_MAX {
            self.become_whole();
        }
    }

    /// Removes all changes of a key but the last.
    fn remove_outdated(&mut self) {
        let keys = Arc::make_mut(&mut self.keys);
        keys.reverse();
        keys.sort_by(|one, other| key_of(one).cmp(&key_of(other)));
        keys.dedup_by(|older, newer| key_of(older) == key_of(newer));
        keys.shrink_to_fit();
        self.bytes = keys.iter().map(|piece| piece.size() as u64).sum();
    }
}

fn key_of(piece: &StateEntry) -> Option<&[u8]> {
    if let StateEntry::Key { key, .. } = piece { Some(key) } else { None }
}

/// The changes since the last checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct DirtyState {
    since: ChangeList,
    /// Changes taken by a checkpoint that is not known to be durable yet.
    taken: Option<ChangeList>,
}

impl DirtyState {
    /// A chunk of a snapshot was loaded; the digest of the state is now this one.
    pub(super) fn loaded(&mut self, digest: u64) {
        self.since.scope = DeltaScope::SinceSnapshot { digest };
    }

    /// Adds the change of a key. If checkpoints are late, the list stays in proportion to the store.
    pub(super) fn key(&mut self, key: Vec<u8>, entry: VersionedValue, store: &Store) {
        let since = &mut self.since;
        if since.scope == DeltaScope::Whole {
            return;
        }
        let piece = StateEntry::Key { key, entry };
        since.bytes += piece.size() as u64;
        Arc::make_mut(&mut since.keys).push(piece);
        let has_many = since.keys.len() > 2 * store.len() + OUTDATED_MAX;
        if has_many || since.bytes > 2 * store.bytes() + OUTDATED_MAX_BYTES + 24 * store.len() as u64 {
            since.remove_outdated();
        }
    }

    pub(super) fn session(&mut self, id: u64) {
        if self.since.scope != DeltaScope::Whole {
            self.since.add_sessions([id]);
        }
    }

    pub(super) fn history(&mut self) {
        self.since.history = true;
    }

    /// Takes the changes for a checkpoint.
    pub(super) fn take(&mut self, store: &Store, sessions: &Sessions, history: u64) -> StateDelta {
        assert!(self.taken.is_none(), "one checkpoint at a time");
        let mut taken = std::mem::take(&mut self.since);
        if taken.scope == DeltaScope::Whole {
            self.taken = Some(taken);
            return StateDelta::whole(store, sessions, history);
        }
        let changed_sessions = taken.sessions.iter().filter_map(|id| Some(session((*id, sessions.get(*id)?))));
        let history = taken.history.then_some(StateEntry::History(history));
        Arc::make_mut(&mut taken.keys).extend(changed_sessions.chain(history));
        let ended = taken.sessions.iter().copied().filter(|id| sessions.get(*id).is_none()).collect();
        let delta = StateDelta { scope: taken.scope, pieces: taken.keys.clone(), ended };
        self.taken = Some(taken);
        delta
    }

    /// The changes taken are durable.
    pub(super) fn saved(&mut self) {
        self.taken = None;
    }

    /// The changes taken were not written: they count as changed again.
    pub(super) fn failed(&mut self) {
        let Some(ChangeList { scope, keys, sessions, history, .. }) = self.taken.take() else { return };
        let since = &mut self.since;
        if scope != DeltaScope::Changes {
            // The disk does not have the state from which the changes lead on.
            since.become_whole();
        }
        if since.scope == DeltaScope::Whole {
            return;
        }
        let mut keys = Arc::unwrap_or_clone(keys);
        keys.retain(|piece| key_of(piece).is_some());
        keys.append(Arc::make_mut(&mut since.keys));
        since.keys = Arc::new(keys);
        since.remove_outdated();
        since.history |= history;
        since.add_sessions(sessions);
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
            if changes.scope == DeltaScope::Whole {
                self.0 = Kv::default();
            }
            self.0.put_pieces(changes.pieces.to_vec());
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
            assert!(changes.scope == DeltaScope::Changes && changes.pieces.len() <= 10, "{changes:?}");
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
    fn state_loaded_from_chunks_is_equal_and_taken_as_a_whole_only_after_a_failure() {
        let mut kv = Kv::default();
        apply(&mut kv, 1, open(7));
        (1..=9).for_each(|n| apply(&mut kv, 1 + n, put(1, 7, n, &format!("k{n}"))));
        let mut loaded = Kv::empty_like(&kv);
        for pieces in kv.whole().pieces.chunks(2) {
            loaded.load_chunk(&encode_chunk(&pieces.to_vec())).unwrap();
        }
        assert_eq!((loaded.digest(), loaded.store(), loaded.sessions()), (kv.digest(), kv.store(), kv.sessions()));
        let digest = loaded.digest();
        apply(&mut loaded, 11, put(1, 7, 10, "k1"));
        let names = |delta: &StateDelta| -> Vec<Vec<u8>> {
            delta.pieces.iter().filter_map(|piece| key_of(piece).map(<[u8]>::to_vec)).collect()
        };
        // The chunks are on the disk, so only the later change is taken.
        let first = loaded.take_delta();
        assert_eq!((first.scope, names(&first)), (DeltaScope::SinceSnapshot { digest }, vec![b"k1".to_vec()]));
        // They are not.
        loaded.delta_failed();
        for _ in 0..2 {
            assert_eq!(loaded.take_delta(), loaded.whole());
            loaded.delta_failed();
        }
        assert_eq!(loaded.take_delta().scope, DeltaScope::Whole);
        loaded.delta_saved();
        apply(&mut loaded, 12, put(1, 7, 11, "k2"));
        let next = loaded.take_delta();
        assert_eq!((next.scope, names(&next)), (DeltaScope::Changes, vec![b"k2".to_vec()]));
        assert!(loaded.load_chunk(b"\x07no part").is_err());
    }

    #[test]
    fn failed_changes_are_taken_again_with_the_newer_ones_and_each_key_once() {
        let mut kv = Kv::default();
        apply(&mut kv, 1, open(7));
        (1..=3).for_each(|n| apply(&mut kv, 1 + n, put(1, 7, n, "k")));
        kv.take_delta();
        apply(&mut kv, 5, put(1, 7, 4, "k"));
        apply(&mut kv, 6, put(1, 7, 5, "other"));
        kv.delta_failed();
        let changes = kv.take_delta();
        assert_eq!(changes.pieces.iter().filter(|piece| key_of(piece).is_some()).count(), 2, "{changes:?}");
        let mut written = Written::default();
        written.write(&changes);
        assert_eq!((written.0.digest(), written.0.store()), (kv.digest(), kv.store()));
    }

    #[test]
    fn result_of_an_earlier_checkpoint_changes_nothing_of_a_loaded_state() {
        let mut kv = Kv::default();
        apply(&mut kv, 1, open(7));
        let mut loaded = Kv::empty_like(&kv);
        loaded.load_chunk(&encode_chunk(&kv.whole().pieces)).unwrap();
        let scope = DeltaScope::SinceSnapshot { digest: kv.digest() };
        // The checkpoint was one of the state before.
        loaded.delta_failed();
        loaded.delta_saved();
        assert_eq!(loaded.take_delta().scope, scope);
    }

    #[test]
    fn list_of_changes_stays_in_proportion_to_the_store() {
        let mut kv = Kv::default();
        apply(&mut kv, 1, open(7));
        let mut most = 0;
        for n in 1..=3 * OUTDATED_MAX as u64 {
            let op = Op::Put { key: vec![b'k', (n % 3) as u8], value: vec![n as u8].into(), if_version: None };
            let label = String::new();
            apply(&mut kv, 1 + n, KvCommand::Write { session: 1, nonce: 7, sequence: n, first_open: n, label, op });
            most = most.max(kv.changed.since.keys.len());
        }
        assert!(most <= OUTDATED_MAX + 7, "{most} changes of 3 keys");
        // The newest change of each key is in the list.
        let mut written = Written(Kv::default());
        written.write(&kv.take_delta());
        assert_eq!(written.0.store(), kv.store());
    }

    #[test]
    fn list_of_changed_sessions_is_bounded_and_then_the_whole_state_is_taken() {
        let mut kv = Kv::with_sessions_at_most(2);
        let count = CHANGED_SESSIONS_MAX as u64;
        let mut most = 0;
        for slot in 1..=count + 10 {
            apply(&mut kv, slot, open(slot.into()));
            most = most.max(kv.changed.since.sessions.len());
        }
        assert_eq!(most, CHANGED_SESSIONS_MAX);
        let session = kv.sessions().opened_by((count + 10).into()).unwrap();
        apply(&mut kv, count + 11, put(session, (count + 10).into(), 1, "k"));
        let since = &kv.changed.since;
        assert!(since.sessions.is_empty() && since.keys.is_empty(), "single changes are of no use");
        assert_eq!(kv.take_delta(), kv.whole());
        // Also if both halves are within the limit.
        let mut changed = DirtyState::default();
        (0..count).for_each(|id| changed.session(id));
        changed.take(&Store::default(), &Sessions::at_most(2), 0);
        changed.session(count);
        changed.failed();
        assert_eq!((changed.since.scope, changed.since.sessions.len()), (DeltaScope::Whole, 0));
    }

    #[test]
    fn chunk_with_a_key_above_the_limit_is_refused() {
        for (length, fits) in [(0, true), (KEY_MAX_BYTES, true), (KEY_MAX_BYTES + 1, false)] {
            let entry = VersionedValue { value: None, version: 1 };
            let part = encode_chunk(&vec![StateEntry::Key { key: vec![b'k'; length], entry }]);
            assert_eq!(decode_part(&part).is_ok(), fits, "{length}");
        }
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
