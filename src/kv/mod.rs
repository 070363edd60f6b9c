//! The replicated state machine: a key-value store whose writes are applied exactly once.
//!
//! Pure like the protocol: the state of [`Kv`] after a slot is a function of the log up to that slot.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod bytes;
mod command;
mod rules;
mod sessions;
mod state_delta;
mod store;
mod transaction;

pub use bytes::Bytes;
pub use command::{
    KEY_MAX_BYTES, KvCommand, LABEL_MAX_BYTES, NoCommand, Op, SEQUENCE_MAX, SEQUENCE_WINDOW, VALUE_MAX_BYTES,
};
pub use sessions::{Named, SESSIONS_MAX, SavedResult, SessionEntry, SessionLookup, Sessions};
pub use state_delta::{DeltaScope, PartError, StateDelta, StateEntry, decode_part, encode_chunk, without_sessions};
pub use store::{Store, VersionedValue, WriteResult, key_rank};
pub use transaction::PredictedResult;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::paxos::{CommandId, Slot, StateMachine, Value};
use state_delta::DirtyState;

/// The store and its sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kv {
    store: Store,
    sessions: Sessions,
    history: u64,
    changed: DirtyState,
}

/// The result of applying a slot's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ApplyResult {
    /// A no-op: the slot was a filled hole.
    Noop,
    /// A session was opened, or existed already.
    Opened {
        /// The slot that names the session.
        session: u64,
        /// The history that the session belongs to.
        history: u64,
    },
    /// A write was applied here, for the first time.
    Applied(SavedResult),
    /// The write was applied before, with this result.
    Duplicate(SavedResult),
    /// The client no longer asks for this write: not applied, now or later.
    Superseded,
    /// The session is unknown, or was evicted: not applied here.
    Expired,
    /// The bytes are no command: not applied, on any server.
    Unreadable,
}

/// A read of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadQuery {
    /// The key.
    pub key: Vec<u8>,
}

impl Kv {
    /// An empty store with at most `most` sessions, so that a simulation with few clients also fills the table. All
    /// servers of a cluster must have the same limit.
    pub fn with_sessions_at_most(most: usize) -> Kv {
        Kv { sessions: Sessions::at_most(most), ..Kv::default() }
    }

    /// An empty state with the same limits, to load a snapshot into.
    pub fn empty_like(other: &Kv) -> Kv {
        Kv::with_sessions_at_most(other.sessions.most())
    }

    /// Loads a piece of a saved state.
    pub fn put_piece(&mut self, piece: StateEntry) {
        match piece {
            StateEntry::Key { key, entry } => self.store.insert(&key, entry),
            StateEntry::Session { id, session } => self.sessions.insert(id, session),
            StateEntry::History(history) => self.history = history,
        }
    }

    /// Loads pieces of a saved state.
    pub fn put_pieces(&mut self, pieces: Vec<StateEntry>) {
        pieces.into_iter().for_each(|piece| self.put_piece(piece));
    }

    /// The whole state, for a checkpoint of it. Keys are in the order of [`key_rank`].
    pub fn whole(&self) -> StateDelta {
        StateDelta::whole(&self.store, &self.sessions, self.history)
    }

    #[cfg(test)]
    pub(crate) fn end_session(&mut self, id: u64) {
        self.sessions.remove(id);
    }

    /// The keys.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The history of this state; 0 before the first session.
    ///
    /// It is a hash of the slot and the nonce of the first OPEN that was applied. So all servers have the same one
    /// without exchanging it, and a cluster that starts over has another. It has half as many bits as the nonce, so it
    /// does not reveal the nonce.
    pub fn history(&self) -> u64 {
        self.history
    }

    /// Starts a new history with this state, as a restore from a backup does.
    pub fn begin_history(&mut self, history: u64) {
        self.history = history;
        self.changed.history();
    }

    fn apply_command(&mut self, slot: Slot, command: KvCommand) -> ApplyResult {
        let Kv { store, sessions, history, changed } = self;
        match command {
            KvCommand::Open { nonce, .. } => {
                if *history == 0 {
                    *history = first_of(slot, nonce);
                    changed.history();
                }
                let (session, evicted) = sessions.open(slot, nonce);
                changed.session(session);
                evicted.into_iter().for_each(|evicted| changed.session(evicted));
                ApplyResult::Opened { session, history: *history }
            }
            KvCommand::Write { session, nonce, sequence, first_open, op, .. } => {
                changed.session(session);
                let named = Named::of((session, nonce), (sequence, first_open), &op);
                let apply = || {
                    let (written, change) = store.apply(op);
                    change.into_iter().for_each(|(key, entry)| changed.key(key, entry, store));
                    written
                };
                match sessions.write(slot, &named, apply) {
                    SessionLookup::Expired => ApplyResult::Expired,
                    SessionLookup::Superseded => ApplyResult::Superseded,
                    SessionLookup::Known(saved) => ApplyResult::Duplicate(saved),
                    SessionLookup::New(saved) => ApplyResult::Applied(saved),
                }
            }
        }
    }
}

impl StateMachine for Kv {
    type Outcome = ApplyResult;
    type Query = ReadQuery;
    type Answer = VersionedValue;
    type Changes = StateDelta;

    fn apply(&mut self, slot: Slot, value: &Value) -> ApplyResult {
        match value {
            Value::Noop => ApplyResult::Noop,
            Value::Command(command) => match KvCommand::from_paxos(command) {
                Ok(command) => self.apply_command(slot, command),
                Err(_) => ApplyResult::Unreadable,
            },
        }
    }

    fn query(&self, query: &ReadQuery) -> VersionedValue {
        self.store.get(&query.key).cloned().unwrap_or(VersionedValue { value: None, version: 0 })
    }

    fn digest(&self) -> u64 {
        let history = if self.history == 0 { 0 } else { xxh3_64(&self.history.to_le_bytes()) };
        self.store.digest().wrapping_add(self.sessions.digest()).wrapping_add(history)
    }

    fn size(&self) -> u64 {
        self.store.bytes()
    }

    fn empty(&self) -> Kv {
        Kv::empty_like(self)
    }

    fn take_delta(&mut self) -> StateDelta {
        self.changed.take(&self.store, &self.sessions, self.history)
    }

    fn delta_saved(&mut self) {
        self.changed.saved();
    }

    fn delta_failed(&mut self) {
        self.changed.failed();
    }

    fn load_chunk(&mut self, part: &[u8]) -> Result<(), String> {
        self.put_pieces(decode_part(part).map_err(|error| error.to_string())?);
        self.changed.loaded(self.digest());
        Ok(())
    }

    fn result_of(&self, id: CommandId) -> Option<ApplyResult> {
        match id {
            // An OPEN: no session is 0.
            CommandId { session: 0, nonce, .. } => {
                self.sessions.opened_by(nonce).map(|session| ApplyResult::Opened { session, history: self.history })
            }
            CommandId { session, nonce, sequence } => {
                self.sessions.saved(session, nonce, sequence).map(ApplyResult::Duplicate)
            }
        }
    }
}

/// The history that starts with the opening of this session.
fn first_of(slot: Slot, nonce: u128) -> u64 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&slot.0.to_le_bytes());
    bytes[8..].copy_from_slice(&nonce.to_le_bytes());
    // 0 means that there is none yet.
    xxh3_64(&bytes).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(command: KvCommand) -> Value {
        Value::Command(command.to_paxos())
    }

    fn put(sequence: u64, value: &str) -> KvCommand {
        let op = Op::Put { key: b"k".to_vec(), value: value.as_bytes().into(), if_version: None };
        KvCommand::Write { session: 1, nonce: 7, sequence, first_open: 1, label: String::new(), op }
    }

    #[test]
    fn result_is_found_by_command_id_alone() {
        let mut kv = Kv::default();
        assert_eq!(kv.result_of(CommandId::opening(7)), None);
        kv.apply(Slot(1), &command(KvCommand::Open { nonce: 7, label: String::new() }));
        let ApplyResult::Applied(saved) = kv.apply(Slot(2), &command(put(1, "a"))) else {
            panic!("a first write is applied")
        };
        assert_eq!(
            kv.result_of(CommandId::opening(7)),
            Some(ApplyResult::Opened { session: 1, history: kv.history() })
        );
        assert_eq!(kv.result_of(CommandId::new(1, 7, 1)), Some(ApplyResult::Duplicate(saved)));
        let unknown = [(0, 8, 0), (1, 7, 2), (2, 7, 1), (1, 8, 1)];
        for (session, nonce, sequence) in unknown {
            assert_eq!(kv.result_of(CommandId::new(session, nonce, sequence)), None);
        }
    }

    #[test]
    fn history_is_named_by_its_first_session_only() {
        let open = |nonce| command(KvCommand::Open { nonce, label: String::new() });
        let mut kv = Kv::with_sessions_at_most(1);
        kv.apply(Slot(1), &Value::Noop);
        kv.apply(Slot(2), &command(put(1, "other")));
        assert_eq!(kv.history(), 0);
        kv.apply(Slot(3), &open(7));
        let history = kv.history();
        assert_ne!(history, 0);
        for slot in 4..9 {
            kv.apply(Slot(slot), &open(slot.into()));
        }
        assert_eq!(kv.history(), history, "that session is dropped, and the history continues");
        for (slot, nonce) in [(3, 8), (2, 7)] {
            let mut other = Kv::default();
            other.apply(Slot(slot), &open(nonce));
            assert_ne!(other.history(), history, "opened in slot {slot} with nonce {nonce}");
        }
    }

    #[test]
    fn digest_covers_store_and_sessions() {
        let mut kv = Kv::default();
        let mut seen = std::collections::BTreeSet::from([kv.digest()]);
        for (slot, next) in (1..).zip([KvCommand::Open { nonce: 7, label: String::new() }, put(1, "a"), put(2, "b")]) {
            kv.apply(Slot(slot), &command(next));
            assert!(seen.insert(kv.digest()), "slot {slot} changed nothing of the digest");
        }
        // The same sequence number with another value.
        let mut other = Kv::default();
        for (slot, next) in (1..).zip([KvCommand::Open { nonce: 7, label: String::new() }, put(1, "a"), put(2, "c")]) {
            other.apply(Slot(slot), &command(next));
        }
        assert_ne!(other.store().digest(), kv.store().digest());
        assert_ne!(other.sessions().digest(), kv.sessions().digest());
        assert_ne!(other.digest(), kv.digest());
    }

    #[test]
    fn empty_state_keeps_the_limits_of_its_template() {
        let kv = Kv::with_sessions_at_most(2);
        assert_eq!(kv.empty().sessions().most(), 2);
    }
}
