//! The replicated state machine: a key-value store whose writes are applied exactly once.
//!
//! Pure like the protocol: what [`Kv`] holds after a slot is a function of the log up to that slot.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod command;
mod image;
mod session;
mod store;
mod transaction;

pub use command::{Command, KEY_MAX_BYTES, LABEL_MAX_BYTES, Op, SPAN, VALUE_MAX_BYTES};
pub use image::{Changes, Piece, decode_part, encode_part, without_sessions};
pub use session::{Lookup, SESSIONS_MAX, Saved, Session, Sessions};
pub use store::{Store, Versioned, Written};
pub use transaction::Foreseen;

use serde::{Deserialize, Serialize};

use crate::paxos::{CommandId, Slot, StateMachine, Value};
use image::Changed;

/// The store and its sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kv {
    store: Store,
    sessions: Sessions,
    changed: Changed,
}

/// What a slot's value came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// A hole was filled.
    Noop,
    /// A session was opened, or found again.
    Opened {
        /// Its name.
        session: u64,
    },
    /// A write was applied here, for the first time.
    Applied(Saved),
    /// The write was applied before; this is what it came to then, and where.
    Duplicate(Saved),
    /// The client no longer asks for this write: not applied, now or ever.
    Superseded,
    /// The session is not known, or no longer: not applied here.
    Expired,
    /// The bytes are no command: not applied, on any server.
    Unreadable,
}

/// A question to the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Get {
    /// The key.
    pub key: Vec<u8>,
}

impl Kv {
    /// An empty store whose table holds so many sessions: a simulation of a few clients meets a full one as well. All
    /// servers of a cluster must have the same limit.
    pub fn with_sessions_at_most(most: usize) -> Kv {
        Kv { sessions: Sessions::at_most(most), ..Kv::default() }
    }

    /// A state with the same limits, of which nothing was ever written down.
    pub fn empty_like(other: &Kv) -> Kv {
        Kv { changed: Changed::everything(), ..Kv::with_sessions_at_most(other.sessions.most()) }
    }

    /// Takes pieces of a state that was written down.
    pub fn put_pieces(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            match piece {
                Piece::Key { key, entry } => self.store.insert(&key, entry),
                Piece::Session { id, session } => self.sessions.insert(id, session),
            }
        }
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn end_session(&mut self, id: u64) {
        self.sessions.remove(id);
    }

    #[cfg(test)]
    fn changed_all(&mut self) {
        self.changed = Changed::everything();
    }

    /// The keys.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    fn apply_command(&mut self, slot: Slot, command: Command) -> Outcome {
        let Kv { store, sessions, changed } = self;
        match command {
            Command::Open { nonce, .. } => {
                let (session, evicted) = sessions.open(slot, nonce);
                changed.session(session);
                evicted.into_iter().for_each(|evicted| changed.session(evicted));
                Outcome::Opened { session }
            }
            Command::Write { session, sequence, first_open, op, .. } => {
                changed.session(session);
                let write = || {
                    let (written, newly_changed) = store.apply(op);
                    newly_changed.into_iter().for_each(|key| changed.key(key));
                    written
                };
                match sessions.write(slot, session, sequence, first_open, write) {
                    Lookup::Expired => Outcome::Expired,
                    Lookup::Superseded => Outcome::Superseded,
                    Lookup::Known(saved) => Outcome::Duplicate(saved),
                    Lookup::New(saved) => Outcome::Applied(saved),
                }
            }
        }
    }
}

impl StateMachine for Kv {
    type Outcome = Outcome;
    type Query = Get;
    type Answer = Versioned;
    type Changes = Changes;

    fn apply(&mut self, slot: Slot, value: &Value) -> Outcome {
        match value {
            Value::Noop => Outcome::Noop,
            Value::Command(command) => match Command::from_paxos(command) {
                Ok(command) => self.apply_command(slot, command),
                Err(_) => Outcome::Unreadable,
            },
        }
    }

    fn query(&self, query: &Get) -> Versioned {
        self.store.get(&query.key).cloned().unwrap_or(Versioned { value: None, version: 0 })
    }

    fn digest(&self) -> u64 {
        self.store.digest().wrapping_add(self.sessions.digest())
    }

    fn empty(&self) -> Kv {
        Kv::empty_like(self)
    }

    fn take_changes(&mut self) -> Changes {
        self.changed.take(&mut self.store, &self.sessions)
    }

    fn changes_kept(&mut self) {
        self.changed.kept();
    }

    fn changes_lost(&mut self) {
        self.changed.lost(&mut self.store);
    }

    fn load(&mut self, part: &[u8]) -> Result<(), String> {
        self.put_pieces(decode_part(part).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn recall(&self, id: CommandId) -> Option<Outcome> {
        match id {
            // An OPEN: no session is 0.
            CommandId(0, nonce) => self.sessions.opened_by(nonce).map(|session| Outcome::Opened { session }),
            CommandId(session, sequence) => self.sessions.saved(session, sequence).map(Outcome::Duplicate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(command: Command) -> Value {
        Value::Command(command.to_paxos())
    }

    fn put(sequence: u64, value: &str) -> Command {
        let op = Op::Put { key: b"k".to_vec(), value: value.into(), if_version: None };
        Command::Write { session: 1, sequence, first_open: 1, label: String::new(), op }
    }

    #[test]
    fn a_command_of_which_only_the_id_is_known_is_recalled() {
        let mut kv = Kv::default();
        assert_eq!(kv.recall(CommandId(0, 7)), None);
        kv.apply(Slot(1), &command(Command::Open { nonce: 7, label: String::new() }));
        let Outcome::Applied(saved) = kv.apply(Slot(2), &command(put(1, "a"))) else {
            panic!("a first write is applied")
        };
        assert_eq!(kv.recall(CommandId(0, 7)), Some(Outcome::Opened { session: 1 }));
        assert_eq!(kv.recall(CommandId(1, 1)), Some(Outcome::Duplicate(saved)));
        for unknown in [CommandId(0, 8), CommandId(1, 2), CommandId(2, 1)] {
            assert_eq!(kv.recall(unknown), None);
        }
    }

    #[test]
    fn the_digest_knows_store_and_sessions() {
        let mut kv = Kv::default();
        let mut seen = std::collections::BTreeSet::from([kv.digest()]);
        for (slot, next) in (1..).zip([Command::Open { nonce: 7, label: String::new() }, put(1, "a"), put(2, "b")]) {
            kv.apply(Slot(slot), &command(next));
            assert!(seen.insert(kv.digest()), "slot {slot} changed nothing of the digest");
        }
        // The same number with another value: only the store differs.
        let mut other = Kv::default();
        for (slot, next) in (1..).zip([Command::Open { nonce: 7, label: String::new() }, put(1, "a"), put(2, "c")]) {
            other.apply(Slot(slot), &command(next));
        }
        assert_eq!(other.sessions().digest(), kv.sessions().digest());
        assert_ne!(other.digest(), kv.digest());
    }

    #[test]
    fn an_empty_state_has_the_limits_of_the_one_that_it_is_made_of() {
        let kv = Kv::with_sessions_at_most(2);
        assert_eq!(kv.empty().sessions().most(), 2);
        assert!(kv.empty().take_changes().is_whole, "nothing of it was ever written down");
    }
}
