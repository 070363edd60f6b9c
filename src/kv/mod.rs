//! The replicated state machine: a key-value store whose writes are applied exactly once.
//!
//! Pure like the protocol: what [`Kv`] holds after a slot is a function of the log up to that slot.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod command;
mod session;
mod store;

pub use command::{Command, KEY_MAX_BYTES, LABEL_MAX_BYTES, Op, SPAN, VALUE_MAX_BYTES};
pub use session::{Lookup, SESSIONS_MAX, Saved, Sessions};
pub use store::{Store, Versioned, Written};

use crate::paxos::{Slot, StateMachine, Value};

/// The store and its sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kv {
    store: Store,
    sessions: Sessions,
}

/// What a slot's value came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// An empty store whose table holds so many sessions: a simulation of a few clients meets a full one as well.
    pub fn with_sessions_at_most(most: usize) -> Kv {
        Kv { sessions: Sessions::at_most(most), ..Kv::default() }
    }

    /// The keys.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    fn apply_command(&mut self, slot: Slot, command: &Command) -> Outcome {
        match command {
            Command::Open { nonce, .. } => Outcome::Opened { session: self.sessions.open(slot, *nonce) },
            Command::Write { session, sequence, first_open, op, .. } => {
                match self.sessions.look_up(slot, *session, *sequence, *first_open) {
                    Lookup::Expired => Outcome::Expired,
                    Lookup::Superseded => Outcome::Superseded,
                    Lookup::Known(saved) => Outcome::Duplicate(saved),
                    Lookup::New => {
                        let written = self.store.apply(op);
                        self.sessions.save(slot, *session, *sequence, written);
                        Outcome::Applied(Saved { slot, written })
                    }
                }
            }
        }
    }
}

impl StateMachine for Kv {
    type Outcome = Outcome;
    type Query = Get;
    type Answer = Versioned;

    fn apply(&mut self, slot: Slot, value: &Value) -> Outcome {
        match value {
            Value::Noop => Outcome::Noop,
            Value::Command(command) => match Command::from_paxos(command) {
                Ok(command) => self.apply_command(slot, &command),
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
}
