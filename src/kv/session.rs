//! The exactly-once table: what each client's writes came to, so that a resend is answered and not applied again.
//!
//! The table is part of the replicated state: every server keeps the same one, and forgets the same sessions at the same
//! slot. (Ongaro, Consensus: Bridging Theory and Practice, section 6.3.)

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::command::SPAN;
use super::store::Written;
use crate::paxos::Slot;

/// The table holds at most so many sessions; the one that has been quiet for longest goes.
pub const SESSIONS_MAX: usize = 4_096;

/// What a write came to, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Saved {
    /// The slot where it was applied first.
    pub slot: Slot,
    /// What it did there.
    pub written: Written,
}

/// What the table says of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// No such session, or no longer.
    Expired,
    /// The client has said that it no longer asks for this one.
    Superseded,
    /// It was applied before.
    Known(Saved),
    /// It is new: apply it.
    New,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Session {
    nonce: u64,
    /// The highest `first_open` seen; at least 1.
    first_open: u64,
    /// Outcomes of writes not below `first_open`: at most [`SPAN`].
    saved: BTreeMap<u64, Saved>,
    /// Where the last write of the session, or its OPEN, was applied.
    last: Slot,
}

/// All sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sessions {
    sessions: BTreeMap<u64, Session>,
    by_nonce: BTreeMap<u64, u64>,
    /// The sessions by their `last`: the first is the next to go.
    by_age: BTreeMap<Slot, u64>,
    digest: u64,
}

impl Sessions {
    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The session that an OPEN with this nonce has opened.
    pub fn opened_by(&self, nonce: u64) -> Option<u64> {
        self.by_nonce.get(&nonce).copied()
    }

    /// A fingerprint of all sessions.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Opens a session at this slot; the second OPEN with a nonce finds the first one's session.
    pub fn open(&mut self, slot: Slot, nonce: u64) -> u64 {
        if let Some(session) = self.by_nonce.get(&nonce) {
            let session = *session;
            self.change(session, slot, |_| {});
            return session;
        }
        if self.sessions.len() >= SESSIONS_MAX {
            self.evict();
        }
        let session = Session { nonce, first_open: 1, saved: BTreeMap::new(), last: slot };
        self.digest = self.digest.wrapping_add(fingerprint(slot.0, &session));
        self.by_nonce.insert(nonce, slot.0);
        self.by_age.insert(slot, slot.0);
        self.sessions.insert(slot.0, session);
        slot.0
    }

    /// What is known of a write; a risen `first_open` drops what the client no longer asks for.
    pub fn look_up(&mut self, slot: Slot, session: u64, sequence: u64, first_open: u64) -> Lookup {
        let Some(known) = self.sessions.get(&session) else { return Lookup::Expired };
        let lowest = known.first_open.max(first_open);
        // A span that no client may use: met in the log it must not grow the table.
        if sequence < known.first_open || first_open > sequence || sequence - first_open >= SPAN {
            return Lookup::Superseded;
        }
        self.change(session, slot, |session| {
            session.first_open = lowest;
            session.saved = session.saved.split_off(&lowest);
        });
        let saved = self.sessions.get(&session).and_then(|session| session.saved.get(&sequence));
        saved.map_or(Lookup::New, |saved| Lookup::Known(*saved))
    }

    /// Remembers what a new write came to.
    pub fn save(&mut self, slot: Slot, session: u64, sequence: u64, written: Written) {
        self.change(session, slot, |session| {
            session.saved.insert(sequence, Saved { slot, written });
        });
    }

    /// Changes a session, keeping age and digest right.
    fn change(&mut self, id: u64, slot: Slot, change: impl FnOnce(&mut Session)) {
        if let Some(session) = self.sessions.get_mut(&id) {
            self.digest = self.digest.wrapping_sub(fingerprint(id, session));
            self.by_age.remove(&session.last);
            session.last = slot;
            self.by_age.insert(slot, id);
            change(session);
            self.digest = self.digest.wrapping_add(fingerprint(id, session));
        }
    }

    /// Forgets the session that has been quiet for longest: the same one on every server.
    fn evict(&mut self) {
        if let Some((_, id)) = self.by_age.pop_first()
            && let Some(session) = self.sessions.remove(&id)
        {
            self.digest = self.digest.wrapping_sub(fingerprint(id, &session));
            self.by_nonce.remove(&session.nonce);
        }
    }
}

fn fingerprint(id: u64, session: &Session) -> u64 {
    let mut hash = Xxh3::with_seed(id);
    for number in [session.nonce, session.first_open, session.last.0] {
        hash.update(&number.to_le_bytes());
    }
    for (sequence, saved) in &session.saved {
        let (kind, version) = match saved.written {
            Written::Done { version } => (0, version),
            Written::NotFound { version } => (1, version),
            Written::Mismatch { version } => (2, version),
        };
        for number in [*sequence, saved.slot.0, kind, version] {
            hash.update(&number.to_le_bytes());
        }
    }
    hash.digest()
}
