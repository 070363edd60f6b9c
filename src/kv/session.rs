//! The exactly-once table: what each client's writes came to, so that a resend is answered and not applied again.
//!
//! The table is part of the replicated state: every server keeps the same one, and forgets the same sessions at the same
//! slot. (Ongaro, Consensus: Bridging Theory and Practice, section 6.3.)

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::command::SPAN;
use super::store::Written;
use crate::museum::{self, Bug};
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
    /// It was new, and is applied.
    New(Saved),
}

/// All that is known of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Session {
    nonce: u64,
    /// The highest `first_open` seen; at least 1.
    first_open: u64,
    /// Outcomes of writes not below `first_open`, by their numbers, in order: at most [`SPAN`].
    saved: Vec<(u64, Saved)>,
    /// Where the last write of the session, or its OPEN, was applied.
    last: Slot,
}

impl Session {
    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        24 + 32 * self.saved.len()
    }

    /// Where a write stands among the saved ones, or where it would.
    fn place(&self, sequence: u64) -> Result<usize, usize> {
        self.saved.binary_search_by_key(&sequence, |(sequence, _)| *sequence)
    }

    fn saved(&self, sequence: u64) -> Option<Saved> {
        self.place(sequence).ok().map(|at| self.saved[at].1)
    }

    /// Forgets the outcomes that nobody asks for any more.
    fn drop_superseded(&mut self) -> impl Iterator<Item = (u64, Saved)> {
        let first = self.place(self.first_open).unwrap_or_else(|first| first);
        self.saved.drain(..first)
    }
}

/// All sessions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sessions {
    /// The table holds at most so many.
    most: usize,
    sessions: BTreeMap<u64, Session>,
    by_nonce: BTreeMap<u64, u64>,
    /// The order-free sum of the fingerprints of all sessions.
    digest: u64,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions::at_most(SESSIONS_MAX)
    }
}

impl Sessions {
    /// An empty table for so many sessions: the same number on every server, or their logs mean different things.
    pub fn at_most(most: usize) -> Sessions {
        Sessions { most, sessions: BTreeMap::new(), by_nonce: BTreeMap::new(), digest: 0 }
    }

    /// The table holds at most so many.
    pub fn most(&self) -> usize {
        self.most
    }

    /// A session, if it is known.
    pub fn get(&self, id: u64) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// What a write came to, if its session still remembers it.
    pub fn saved(&self, session: u64, sequence: u64) -> Option<Saved> {
        self.sessions.get(&session)?.saved(sequence)
    }

    /// All sessions and their names, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = (u64, &Session)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// Sets all that is known of a session.
    pub(super) fn insert(&mut self, id: u64, session: Session) {
        self.remove(id);
        self.digest = self.digest.wrapping_add(fingerprint(id, &session));
        self.by_nonce.insert(session.nonce, id);
        self.sessions.insert(id, session);
    }

    /// Forgets a session.
    pub(super) fn remove(&mut self, id: u64) {
        if let Some(session) = self.sessions.remove(&id) {
            self.digest = self.digest.wrapping_sub(fingerprint(id, &session));
            // The same client may have opened another one since.
            if self.opened_by(session.nonce) == Some(id) {
                self.by_nonce.remove(&session.nonce);
            }
        }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether there is a session of this name.
    pub fn knows(&self, session: u64) -> bool {
        self.sessions.contains_key(&session)
    }

    /// The session that an OPEN with this nonce has opened.
    pub fn opened_by(&self, nonce: u64) -> Option<u64> {
        self.by_nonce.get(&nonce).copied()
    }

    /// A fingerprint of all sessions.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Opens a session at this slot; the second OPEN with a nonce finds the first one's session. Gives its name, and the
    /// name of the session that had to go for it.
    pub fn open(&mut self, slot: Slot, nonce: u64) -> (u64, Option<u64>) {
        if let Some(id) = self.by_nonce.get(&nonce).copied() {
            if let Some(session) = self.sessions.get_mut(&id) {
                self.digest = self.digest.wrapping_sub(of_head(id, session));
                session.last = slot;
                self.digest = self.digest.wrapping_add(of_head(id, session));
            }
            return (id, None);
        }
        let evicted = if self.sessions.len() >= self.most { self.evict() } else { None };
        self.insert(slot.0, Session { nonce, first_open: 1, saved: Vec::new(), last: slot });
        (slot.0, evicted)
    }

    /// A write: what is known of it, or what it does now and what is remembered of that. A risen `first_open` drops what
    /// the client no longer asks for.
    pub fn write(
        &mut self,
        slot: Slot,
        id: u64,
        sequence: u64,
        first_open: u64,
        write: impl FnOnce() -> Written,
    ) -> Lookup {
        let Some(session) = self.sessions.get_mut(&id) else { return Lookup::Expired };
        // A span that no client may use: met in the log it must not grow the table.
        if sequence < session.first_open || first_open > sequence || sequence - first_open >= SPAN {
            return Lookup::Superseded;
        }
        let mut digest = self.digest.wrapping_sub(of_head(id, session));
        session.last = slot;
        session.first_open = session.first_open.max(first_open);
        digest = digest.wrapping_add(of_head(id, session));
        let dropped = session.drop_superseded().map(|(sequence, saved)| of_saved(id, sequence, saved));
        digest = digest.wrapping_sub(dropped.fold(0, u64::wrapping_add));
        let place = session.place(sequence);
        let known = place.ok().map(|at| session.saved[at].1).filter(|_| !museum::is(Bug::B21));
        let lookup = known.map_or_else(|| Lookup::New(Saved { slot, written: write() }), Lookup::Known);
        if let Lookup::New(saved) = lookup {
            let before = place.map_or(0, |at| of_saved(id, sequence, session.saved.remove(at).1));
            session.saved.insert(place.unwrap_or_else(|at| at), (sequence, saved));
            digest = digest.wrapping_sub(before).wrapping_add(of_saved(id, sequence, saved));
        }
        self.digest = digest;
        lookup
    }

    /// What is known of a write, for those who only ask: None if it is new.
    pub fn peek(&self, session: u64, sequence: u64, first_open: u64) -> Option<Lookup> {
        let Some(known) = self.sessions.get(&session) else { return Some(Lookup::Expired) };
        if sequence < known.first_open || first_open > sequence || sequence - first_open >= SPAN {
            return Some(Lookup::Superseded);
        }
        known.saved(sequence).map(Lookup::Known)
    }

    /// Remembers what a write came to that was committed under this number. Two writes of one session may come in either
    /// order, and the table is the same afterwards.
    pub fn settle(&mut self, at: Slot, id: u64, sequence: u64, first_open: u64, written: Written) {
        let Some(mut session) = self.sessions.get(&id).cloned() else { return };
        session.last = session.last.max(at);
        session.first_open = session.first_open.max(first_open);
        let saved = (sequence, Saved { slot: at, written });
        match session.place(sequence) {
            Ok(place) => session.saved[place] = saved,
            Err(place) => session.saved.insert(place, saved),
        }
        drop(session.drop_superseded());
        self.insert(id, session);
    }

    /// Opens a session in the place of another one, if it is told which.
    pub fn open_for(&mut self, at: Slot, nonce: u64, evict: Option<u64>) -> u64 {
        if let Some(evicted) = evict {
            self.remove(evicted);
        }
        self.insert(at.0, Session { nonce, first_open: 1, saved: Vec::new(), last: at });
        at.0
    }

    /// The session that has been quiet for longest.
    pub fn oldest(&self) -> Option<u64> {
        self.sessions.iter().min_by_key(|(_, session)| session.last).map(|(id, _)| *id)
    }

    /// Forgets the session that has been quiet for longest: the same one on every server. It is looked for among all of
    /// them, which only an OPEN to a full table has to wait for.
    fn evict(&mut self) -> Option<u64> {
        let oldest = self.sessions.iter().min_by_key(|(_, session)| session.last).map(|(id, _)| *id);
        let first_hashed = || museum::first_of_a_hash_map(self.sessions.keys().copied());
        let id = if museum::is(Bug::B32) { first_hashed() } else { oldest }?;
        self.remove(id);
        Some(id)
    }
}

/// A session's share of the digest: a sum, so that a write changes it without a look at what else the session remembers.
fn fingerprint(id: u64, session: &Session) -> u64 {
    let saved = session.saved.iter().map(|(sequence, saved)| of_saved(id, *sequence, *saved));
    saved.fold(of_head(id, session), u64::wrapping_add)
}

fn of_head(id: u64, session: &Session) -> u64 {
    hash(id, [session.nonce, session.first_open, session.last.0, HEAD])
}

fn of_saved(id: u64, sequence: u64, saved: Saved) -> u64 {
    let (kind, version) = match saved.written {
        Written::Done { version } => (0, version),
        Written::NotFound { version } => (1, version),
        Written::Mismatch { version } => (2, version),
    };
    hash(id, [sequence, saved.slot.0, version, kind])
}

/// Where a saved outcome has its kind.
const HEAD: u64 = u64::MAX;

fn hash(seed: u64, numbers: [u64; 4]) -> u64 {
    let mut bytes = [0; 32];
    for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    xxh3_64_with_seed(&bytes, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Written = Written::Done { version: 1 };

    fn write(sessions: &mut Sessions, slot: u64, session: u64, sequence: u64, first_open: u64) -> Lookup {
        sessions.write(Slot(slot), session, sequence, first_open, || DONE)
    }

    fn new(slot: u64) -> Lookup {
        Lookup::New(Saved { slot: Slot(slot), written: DONE })
    }

    fn known(slot: u64) -> Lookup {
        Lookup::Known(Saved { slot: Slot(slot), written: DONE })
    }

    #[test]
    fn an_open_sent_again_finds_its_session() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.open(Slot(5), 77), (5, None));
        assert_eq!(sessions.open(Slot(6), 78), (6, None));
        assert_eq!(sessions.open(Slot(9), 77), (5, None));
        assert_eq!((sessions.len(), sessions.opened_by(77), sessions.opened_by(79)), (2, Some(5), None));
    }

    #[test]
    fn a_write_sent_again_is_answered_with_its_first_slot() {
        let mut sessions = Sessions::default();
        sessions.open(Slot(1), 7);
        assert_eq!(write(&mut sessions, 2, 1, 1, 1), new(2));
        assert_eq!(write(&mut sessions, 3, 1, 1, 1), known(2));
        assert_eq!(write(&mut sessions, 4, 1, 2, 1), new(4));
        assert_eq!(write(&mut sessions, 5, 1, 1, 1), known(2));
    }

    #[test]
    fn a_session_that_nobody_opened_is_expired() {
        let mut sessions = Sessions::default();
        sessions.open(Slot(1), 7);
        let before = sessions.clone();
        assert_eq!(write(&mut sessions, 2, 9, 1, 1), Lookup::Expired);
        assert_eq!(write(&mut sessions, 3, 0, 1, 1), Lookup::Expired);
        assert_eq!(sessions, before);
    }

    #[test]
    fn what_the_client_no_longer_asks_for_is_superseded_applied_or_not() {
        let mut sessions = Sessions::default();
        sessions.open(Slot(1), 7);
        write(&mut sessions, 2, 1, 1, 1);
        assert_eq!(write(&mut sessions, 3, 1, 5, 3), new(3));
        assert_eq!(write(&mut sessions, 4, 1, 1, 1), Lookup::Superseded);
        assert_eq!(write(&mut sessions, 5, 1, 2, 1), Lookup::Superseded);
        // 3 and 4 are still open, whatever the message says of first_open; a lower one does not lower the session's.
        assert_eq!(write(&mut sessions, 6, 1, 4, 1), new(6));
        assert_eq!(write(&mut sessions, 7, 1, 2, 2), Lookup::Superseded);
        assert_eq!(write(&mut sessions, 8, 1, 5, 1), known(3));
    }

    #[test]
    fn only_a_risen_first_open_drops_results() {
        let mut sessions = Sessions::default();
        sessions.open(Slot(1), 7);
        for sequence in 1..=SPAN {
            assert_eq!(write(&mut sessions, 1 + sequence, 1, sequence, 1), new(1 + sequence));
        }
        for sequence in 1..=SPAN {
            assert_eq!(write(&mut sessions, 100 + sequence, 1, sequence, 1), known(1 + sequence));
        }
        assert_eq!(write(&mut sessions, 200, 1, SPAN + 1, 3), new(200));
        assert_eq!(write(&mut sessions, 201, 1, 2, 1), Lookup::Superseded);
        assert_eq!(write(&mut sessions, 202, 1, 3, 3), known(4));
    }

    #[test]
    fn a_sequence_beyond_the_span_or_below_its_own_first_open_never_grows_the_table() {
        let mut sessions = Sessions::default();
        sessions.open(Slot(1), 7);
        let before = sessions.clone();
        assert_eq!(write(&mut sessions, 2, 1, SPAN + 1, 1), Lookup::Superseded);
        assert_eq!(write(&mut sessions, 3, 1, 4, 5), Lookup::Superseded);
        assert_eq!(write(&mut sessions, 4, 1, u64::MAX, 1), Lookup::Superseded);
        assert_eq!(sessions, before);
        assert_eq!(write(&mut sessions, 5, 1, SPAN, 1), new(5));
    }

    #[test]
    fn the_session_that_was_quiet_for_longest_goes() {
        let mut sessions = Sessions::default();
        let max = SESSIONS_MAX as u64;
        for slot in 1..=max {
            sessions.open(Slot(slot), 10_000 + slot);
        }
        // Session 1 speaks again, and so does 2, by a resent OPEN.
        write(&mut sessions, max + 1, 1, 1, 1);
        sessions.open(Slot(max + 2), 10_002);
        sessions.open(Slot(max + 3), 5);
        sessions.open(Slot(max + 4), 6);
        assert_eq!(sessions.len(), SESSIONS_MAX);
        assert_eq!(write(&mut sessions, max + 5, 3, 1, 1), Lookup::Expired);
        assert_eq!(write(&mut sessions, max + 6, 4, 1, 1), Lookup::Expired);
        assert_eq!(write(&mut sessions, max + 7, 1, 1, 1), known(max + 1));
        assert_eq!(write(&mut sessions, max + 8, 2, 1, 1), new(max + 8));
        assert_eq!(write(&mut sessions, max + 9, 5, 1, 1), new(max + 9));
        // A forgotten client that opens again begins a new session.
        assert_eq!(sessions.open(Slot(max + 10), 10_003).0, max + 10);
        assert_eq!(sessions.len(), SESSIONS_MAX);
    }

    #[test]
    fn who_only_asks_hears_what_a_write_would_have_heard() {
        let mut sessions = Sessions::default();
        sessions.open(Slot(1), 7);
        write(&mut sessions, 2, 1, 5, 3);
        for (session, sequence, first_open) in
            [(1, 5, 3), (1, 5, 5), (1, 2, 1), (1, 4, 5), (1, 3, 3), (1, SPAN + 2, 3), (1, SPAN + 3, 3), (2, 1, 1)]
        {
            let asked = sessions.peek(session, sequence, first_open);
            let wrote = write(&mut sessions.clone(), 9, session, sequence, first_open);
            let is_new = matches!(wrote, Lookup::New(_));
            assert_eq!(asked, (!is_new).then_some(wrote), "{session}-{sequence}, first open {first_open}");
        }
        let saved = sessions.saved(1, 5).map(|saved| saved.slot);
        assert_eq!((saved, sessions.saved(1, 6), sessions.saved(2, 5)), (Some(Slot(2)), None, None));
        assert!(!sessions.is_empty() && Sessions::default().is_empty());
    }

    #[test]
    fn the_digest_knows_what_each_write_came_to() {
        let with = |written, slot| {
            let mut sessions = Sessions::default();
            sessions.open(Slot(1), 7);
            // The last slot of the session is the same, so that only what was saved differs.
            sessions.write(Slot(slot), 1, 1, 1, || written);
            sessions.write(Slot(9), 1, 2, 1, || DONE);
            sessions.digest()
        };
        let all = [
            with(DONE, 2),
            with(DONE, 3),
            with(Written::Done { version: 2 }, 2),
            with(Written::NotFound { version: 1 }, 2),
            with(Written::Mismatch { version: 1 }, 2),
        ];
        let different: std::collections::BTreeSet<u64> = all.into_iter().collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn a_session_that_goes_takes_no_other_ones_nonce_with_it() {
        let mut sessions = Sessions::at_most(1);
        sessions.open(Slot(1), 7);
        // A copy that is brought up to date takes what is new before it drops what is gone.
        let mut copy = sessions.clone();
        sessions.open(Slot(2), 8);
        sessions.open(Slot(3), 7);
        copy.insert(3, sessions.get(3).unwrap().clone());
        copy.remove(1);
        assert_eq!((copy.opened_by(7), &copy), (Some(3), &sessions));
    }

    #[test]
    fn equal_tables_have_equal_digests_and_others_do_not() {
        let mut sessions = Sessions::default();
        let mut seen = std::collections::BTreeSet::from([sessions.digest()]);
        sessions.open(Slot(1), 7);
        assert!(seen.insert(sessions.digest()));
        let opened = sessions.clone();
        for (slot, sequence, first_open) in [(2, 1, 1), (3, 2, 1), (4, 2, 1), (5, 3, 2)] {
            write(&mut sessions, slot, 1, sequence, first_open);
            assert!(seen.insert(sessions.digest()), "slot {slot} changed the table and not its digest");
        }
        let mut again = opened;
        for (slot, sequence, first_open) in [(2, 1, 1), (3, 2, 1), (4, 2, 1), (5, 3, 2)] {
            write(&mut again, slot, 1, sequence, first_open);
        }
        assert_eq!((again.digest(), &again), (sessions.digest(), &sessions));
    }
}
