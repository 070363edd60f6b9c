//! The exactly-once table: the results of each client's writes, so that a retry is answered and not applied again.
//!
//! The table is part of the replicated state: every server has the same one, and evicts the same sessions at the same
//! slot. (Ongaro, Consensus: Bridging Theory and Practice, section 6.3.)
//!
//! A session is the slot where it was opened *and* the nonce that opened it. The slot alone is a small number that any
//! client can guess, and that names another session in the cluster's next history. The nonce alone would let a late
//! copy of an OPEN bring back an evicted session without its results. A write with a wrong nonce changes nothing.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::command::{Op, SEQUENCE_WINDOW};
use super::rules;
use super::store::WriteResult;
use crate::paxos::Slot;

/// Maximum number of sessions in the table; beyond it the session that has been quiet for longest is evicted.
pub const SESSIONS_MAX: usize = 4_096;

/// The result of a write, and its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SavedResult {
    /// The slot where it was applied first.
    pub slot: Slot,
    /// Its effect there.
    pub written: WriteResult,
}

/// The name of a write, and a hash of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// The slot where its session was opened.
    pub session: u64,
    /// The nonce that opened the session.
    pub nonce: u128,
    /// The write's number in the session.
    pub sequence: u64,
    /// The client knows the outcome of every write below this number.
    pub first_open: u64,
    /// The write's [`Op::fingerprint`].
    pub what: u64,
}

impl Named {
    /// The name of a write with this operation.
    pub fn of((session, nonce): (u64, u128), (sequence, first_open): (u64, u64), op: &Op) -> Named {
        Named { session, nonce, sequence, first_open, what: op.fingerprint() }
    }
}

/// The state of a write in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionLookup {
    /// No session has this name and nonce. Or another write was applied under this name, by a client with the same
    /// nonce (a copied machine).
    Expired,
    /// The client no longer asks for this write.
    Superseded,
    /// The write was applied before.
    Known(SavedResult),
    /// The write was new, and is applied.
    New(SavedResult),
}

/// A write that was applied, as its session keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct SavedWrite {
    sequence: u64,
    what: u64,
    saved: SavedResult,
}

/// The whole entry of a session.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionEntry {
    nonce: u128,
    /// The highest `first_open` seen; at least 1.
    first_open: u64,
    /// Writes not below `first_open`, in the order of their numbers: at most [`SEQUENCE_WINDOW`].
    saved: Vec<SavedWrite>,
    /// The slot of the session's last write, or of its OPEN.
    last: Slot,
    /// Whether one of its writes was ever applied.
    has_written: bool,
}

impl Debug for SessionEntry {
    /// Leaves out the nonce, which must stay secret.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let SessionEntry { nonce: _, first_open, saved, last, has_written } = self;
        write!(f, "session first_open={first_open} last={last} has_written={has_written} {saved:?}")
    }
}

impl SessionEntry {
    fn new(nonce: u128, at: Slot) -> SessionEntry {
        SessionEntry { nonce, first_open: 1, saved: Vec::new(), last: at, has_written: false }
    }

    /// Approximate size of the entry, in bytes.
    pub fn size(&self) -> usize {
        40 + 40 * self.saved.len()
    }

    /// The position of a write among the saved ones, or where it would be inserted.
    fn position(&self, sequence: u64) -> Result<usize, usize> {
        self.saved.binary_search_by_key(&sequence, |one| one.sequence)
    }

    fn saved_result(&self, sequence: u64) -> Option<&SavedWrite> {
        self.position(sequence).ok().map(|at| &self.saved[at])
    }

    /// The state of a write; None if it is new.
    fn look_up(&self, write: &Named) -> Option<SessionLookup> {
        let Named { session: _, nonce, sequence, first_open, what } = *write;
        if !rules::is_the_session(self.nonce, nonce) {
            return Some(SessionLookup::Expired);
        }
        // No client may use such a number. Met in the log, it must not grow the table.
        if sequence < self.first_open || first_open > sequence || sequence - first_open >= SEQUENCE_WINDOW {
            return Some(SessionLookup::Superseded);
        }
        let known = rules::applied_before(self.saved_result(sequence))?;
        Some(if known.what == what { SessionLookup::Known(known.saved) } else { SessionLookup::Expired })
    }

    /// Drops the results that the client no longer asks for.
    fn drop_superseded(&mut self) -> impl Iterator<Item = SavedWrite> {
        let first = self.position(self.first_open).unwrap_or_else(|first| first);
        self.saved.drain(..first)
    }
}

/// The table of sessions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sessions {
    /// Maximum number of sessions.
    most: usize,
    sessions: BTreeMap<u64, SessionEntry>,
    by_nonce: BTreeMap<u128, u64>,
    /// The sum of the fingerprints of all sessions, independent of their order.
    digest: u64,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions::at_most(SESSIONS_MAX)
    }
}

impl Sessions {
    /// An empty table for at most `most` sessions. All servers must have the same limit, or the same log gives them
    /// different states.
    pub fn at_most(most: usize) -> Sessions {
        Sessions { most, sessions: BTreeMap::new(), by_nonce: BTreeMap::new(), digest: 0 }
    }

    /// Maximum number of sessions.
    pub fn most(&self) -> usize {
        self.most
    }

    /// A session, if it is in the table.
    pub fn get(&self, id: u64) -> Option<&SessionEntry> {
        self.sessions.get(&id)
    }

    /// The result of a write, if its session still keeps it.
    pub fn saved(&self, session: u64, nonce: u128, sequence: u64) -> Option<SavedResult> {
        let known = self.sessions.get(&session).filter(|known| known.nonce == nonce)?;
        known.saved_result(sequence).map(|one| one.saved)
    }

    /// All sessions and their names, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = (u64, &SessionEntry)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// Sets the entry of a session.
    pub(super) fn insert(&mut self, id: u64, session: SessionEntry) {
        self.remove(id);
        self.digest = self.digest.wrapping_add(fingerprint(id, &session));
        self.by_nonce.insert(session.nonce, id);
        self.sessions.insert(id, session);
    }

    /// Removes a session.
    pub(super) fn remove(&mut self, id: u64) {
        if let Some(session) = self.sessions.remove(&id) {
            self.digest = self.digest.wrapping_sub(fingerprint(id, &session));
            // The same client may have opened another session since.
            if self.opened_by(session.nonce) == Some(id) {
                self.by_nonce.remove(&session.nonce);
            }
        }
    }

    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether there is a session of this name.
    pub fn contains(&self, session: u64) -> bool {
        self.sessions.contains_key(&session)
    }

    /// The session that an OPEN with this nonce has opened.
    pub fn opened_by(&self, nonce: u128) -> Option<u64> {
        self.by_nonce.get(&nonce).copied()
    }

    /// A fingerprint of all sessions.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Opens a session at this slot; a second OPEN with the same nonce finds the first one's session. Returns its name,
    /// and that of the session evicted for it.
    pub fn open(&mut self, slot: Slot, nonce: u128) -> (u64, Option<u64>) {
        if let Some(id) = self.by_nonce.get(&nonce).copied() {
            if let Some(session) = self.sessions.get_mut(&id) {
                self.digest = self.digest.wrapping_sub(of_head(id, session));
                session.last = slot;
                self.digest = self.digest.wrapping_add(of_head(id, session));
            }
            return (id, None);
        }
        let evicted = if self.sessions.len() >= self.most { self.drop_oldest() } else { None };
        self.insert(slot.0, SessionEntry::new(nonce, slot));
        (slot.0, evicted)
    }

    /// Looks up a write, and applies it if it is new. A higher `first_open` drops the results that the client no longer
    /// asks for.
    pub fn write(&mut self, slot: Slot, write: &Named, apply: impl FnOnce() -> WriteResult) -> SessionLookup {
        let id = write.session;
        let Some(session) = self.sessions.get_mut(&id) else { return SessionLookup::Expired };
        let known = session.look_up(write);
        // A client that may not write must not change the session either.
        if let Some(refused @ (SessionLookup::Expired | SessionLookup::Superseded)) = known {
            return refused;
        }
        let mut digest = self.digest.wrapping_sub(of_head(id, session));
        session.last = slot;
        session.first_open = session.first_open.max(write.first_open);
        session.has_written = true;
        digest = digest.wrapping_add(of_head(id, session));
        let dropped = session.drop_superseded().map(|one| of_saved(id, &one));
        digest = digest.wrapping_sub(dropped.fold(0, u64::wrapping_add));
        let lookup = known.unwrap_or_else(|| SessionLookup::New(SavedResult { slot, written: apply() }));
        if let SessionLookup::New(saved) = lookup {
            let new = SavedWrite { sequence: write.sequence, what: write.what, saved };
            let place = session.position(write.sequence);
            let before = place.map_or(0, |at| of_saved(id, &session.saved.remove(at)));
            session.saved.insert(place.unwrap_or_else(|at| at), new);
            digest = digest.wrapping_sub(before).wrapping_add(of_saved(id, &new));
        }
        self.digest = digest;
        lookup
    }

    /// The state of a write, without applying it: None if it is new.
    pub fn lookup(&self, write: &Named) -> Option<SessionLookup> {
        self.sessions.get(&write.session).map_or(Some(SessionLookup::Expired), |session| session.look_up(write))
    }

    /// Records the result of a write that was committed under this name. Two writes of one session may be recorded in
    /// either order, with the same table afterwards.
    pub fn record_result(&mut self, at: Slot, write: &Named, written: WriteResult) {
        let known = self.sessions.get(&write.session).filter(|session| session.nonce == write.nonce);
        let Some(mut session) = known.cloned() else { return };
        session.last = session.last.max(at);
        session.first_open = session.first_open.max(write.first_open);
        session.has_written = true;
        let new = SavedWrite { sequence: write.sequence, what: write.what, saved: SavedResult { slot: at, written } };
        match session.position(write.sequence) {
            Ok(place) => session.saved[place] = new,
            Err(place) => session.saved.insert(place, new),
        }
        drop(session.drop_superseded());
        self.insert(write.session, session);
    }

    /// Opens a session, and removes the session `evict` for it, if there is one.
    pub fn open_for(&mut self, at: Slot, nonce: u128, evict: Option<u64>) -> u64 {
        if let Some(evicted) = evict {
            self.remove(evicted);
        }
        self.insert(at.0, SessionEntry::new(nonce, at));
        at.0
    }

    /// The session to evict when the table is full. It is the quietest of those that have written, or of those that
    /// never have if they are more than a quarter of the table. So a flood of new sessions evicts each other and at
    /// most a quarter of the sessions that write. A session that was just opened has time for its first write, also
    /// where all others have written.
    pub fn stalest(&self) -> Option<u64> {
        let idle = self.sessions.values().filter(|session| !session.has_written).count();
        let have_written = idle <= self.most.div_ceil(4);
        let key = |session: &SessionEntry| (session.has_written != have_written, session.last);
        self.sessions.iter().min_by_key(|(_, session)| key(session)).map(|(id, _)| *id)
    }

    /// Evicts a session: the same one on every server. The search visits all sessions, but only an OPEN at a full table
    /// needs it.
    fn drop_oldest(&mut self) -> Option<u64> {
        let id = rules::session_to_forget(self.stalest(), self.sessions.keys().copied())?;
        self.remove(id);
        Some(id)
    }
}

/// A session's share of the digest. It is a sum, so that a write updates it without reading the other results of the
/// session.
fn fingerprint(id: u64, session: &SessionEntry) -> u64 {
    session.saved.iter().map(|one| of_saved(id, one)).fold(of_head(id, session), u64::wrapping_add)
}

fn of_head(id: u64, session: &SessionEntry) -> u64 {
    let SessionEntry { nonce, first_open, last, has_written, saved: _ } = session;
    let kind = HEAD - u64::from(*has_written);
    hash(id, [*nonce as u64, (nonce >> 64) as u64, *first_open, last.0, kind])
}

fn of_saved(id: u64, SavedWrite { sequence, what, saved }: &SavedWrite) -> u64 {
    let (kind, version) = match saved.written {
        WriteResult::Done { version } => (0, version),
        WriteResult::NotFound { version } => (1, version),
        WriteResult::Mismatch { version } => (2, version),
    };
    hash(id, [*sequence, *what, saved.slot.0, version, kind])
}

/// Marks the hash of a session's head, in the field where a saved result has its kind.
const HEAD: u64 = u64::MAX;

fn hash(seed: u64, numbers: [u64; 5]) -> u64 {
    let mut bytes = [0; 40];
    for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    xxh3_64_with_seed(&bytes, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: WriteResult = WriteResult::Done { version: 1 };

    /// A write of a session that was opened with this nonce; each number has another fingerprint.
    fn named(nonce: u128, session: u64, sequence: u64, first_open: u64) -> Named {
        Named { session, nonce, sequence, first_open, what: sequence.wrapping_add(1_000) }
    }

    /// A write of a session that was opened with nonce 7.
    fn write(sessions: &mut Sessions, slot: u64, session: u64, sequence: u64, first_open: u64) -> SessionLookup {
        sessions.write(Slot(slot), &named(7, session, sequence, first_open), || DONE)
    }

    fn new(slot: u64) -> SessionLookup {
        SessionLookup::New(SavedResult { slot: Slot(slot), written: DONE })
    }

    fn known(slot: u64) -> SessionLookup {
        SessionLookup::Known(SavedResult { slot: Slot(slot), written: DONE })
    }

    #[test]
    fn resent_open_finds_its_session() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.open(Slot(5), 77), (5, None));
        assert_eq!(sessions.open(Slot(6), 78), (6, None));
        assert_eq!(sessions.open(Slot(9), 77), (5, None));
        assert_eq!((sessions.len(), sessions.opened_by(77), sessions.opened_by(79)), (2, Some(5), None));
    }

    #[test]
    fn resent_write_gets_its_first_slot() {
        let mut sessions = Sessions::default();
        sessions.open(Slot(1), 7);
        assert_eq!(write(&mut sessions, 2, 1, 1, 1), new(2));
        assert_eq!(write(&mut sessions, 3, 1, 1, 1), known(2));
        assert_eq!(write(&mut sessions, 4, 1, 2, 1), new(4));
        assert_eq!(write(&mut sessions, 5, 1, 1, 1), known(2));
    }

    #[test]
    fn session_that_was_never_opened_is_expired() {
        let mut sessions = Sessions::default();
        sessions.open(Slot(1), 7);
        let before = sessions.clone();
        assert_eq!(write(&mut sessions, 2, 9, 1, 1), SessionLookup::Expired);
        assert_eq!(write(&mut sessions, 3, 0, 1, 1), SessionLookup::Expired);
        assert_eq!(sessions, before);
    }

    #[test]
    fn sequence_below_first_open_is_superseded_applied_or_not() {
        let mut sessions = Sessions::default();
        sessions.open(Slot(1), 7);
        write(&mut sessions, 2, 1, 1, 1);
        assert_eq!(write(&mut sessions, 3, 1, 5, 3), new(3));
        assert_eq!(write(&mut sessions, 4, 1, 1, 1), SessionLookup::Superseded);
        assert_eq!(write(&mut sessions, 5, 1, 2, 1), SessionLookup::Superseded);
        // 3 and 4 are still open, whatever first_open the message has; a lower one does not lower the session's.
        assert_eq!(write(&mut sessions, 6, 1, 4, 1), new(6));
        assert_eq!(write(&mut sessions, 7, 1, 2, 2), SessionLookup::Superseded);
        assert_eq!(write(&mut sessions, 8, 1, 5, 1), known(3));
    }

    #[test]
    fn only_a_higher_first_open_drops_results() {
        let mut sessions = Sessions::default();
        sessions.open(Slot(1), 7);
        for sequence in 1..=SEQUENCE_WINDOW {
            assert_eq!(write(&mut sessions, 1 + sequence, 1, sequence, 1), new(1 + sequence));
        }
        for sequence in 1..=SEQUENCE_WINDOW {
            assert_eq!(write(&mut sessions, 100 + sequence, 1, sequence, 1), known(1 + sequence));
        }
        assert_eq!(write(&mut sessions, 200, 1, SEQUENCE_WINDOW + 1, 3), new(200));
        assert_eq!(write(&mut sessions, 201, 1, 2, 1), SessionLookup::Superseded);
        assert_eq!(write(&mut sessions, 202, 1, 3, 3), known(4));
    }

    #[test]
    fn sequence_outside_the_window_never_grows_the_table() {
        let mut sessions = Sessions::default();
        sessions.open(Slot(1), 7);
        let before = sessions.clone();
        assert_eq!(write(&mut sessions, 2, 1, SEQUENCE_WINDOW + 1, 1), SessionLookup::Superseded);
        assert_eq!(write(&mut sessions, 3, 1, 4, 5), SessionLookup::Superseded);
        assert_eq!(write(&mut sessions, 4, 1, u64::MAX, 1), SessionLookup::Superseded);
        assert_eq!(sessions, before);
        assert_eq!(write(&mut sessions, 5, 1, SEQUENCE_WINDOW, 1), new(5));
    }

    fn write_as(sessions: &mut Sessions, nonce: u128, slot: u64, session: u64, sequence: u64) -> SessionLookup {
        sessions.write(Slot(slot), &named(nonce, session, sequence, 1), || DONE)
    }

    /// A table of `count` sessions, each of which has written; session n was opened in slot n with nonce n.
    fn of_writers(count: u64) -> Sessions {
        let mut sessions = Sessions::at_most(count as usize);
        for session in 1..=count {
            sessions.open(Slot(session), session.into());
            let slot = 1_000 + session;
            assert_eq!(write_as(&mut sessions, session.into(), slot, session, 1), new(slot));
        }
        sessions
    }

    #[test]
    fn least_recently_active_session_is_dropped() {
        let mut sessions = of_writers(8);
        // Session 1 is active again, and so is 2, by a repeated OPEN.
        write_as(&mut sessions, 1, 1_100, 1, 1);
        sessions.open(Slot(1_101), 2);
        assert_eq!(
            (sessions.open(Slot(2_000), 5_000), sessions.open(Slot(2_001), 5_001)),
            ((2_000, Some(3)), (2_001, Some(4)))
        );
        assert_eq!(write_as(&mut sessions, 3, 2_002, 3, 1), SessionLookup::Expired);
        assert_eq!(write_as(&mut sessions, 1, 2_003, 1, 1), known(1_001));
        // An evicted client that opens again starts a new session.
        assert_eq!(sessions.open(Slot(2_004), 3).0, 2_004);
        assert_eq!(sessions.len(), 8);
    }

    #[test]
    fn endless_opens_drop_a_quarter_of_the_writing_sessions_and_one_more() {
        let mut sessions = of_writers(16);
        for slot in 2_000..5_000 {
            sessions.open(Slot(slot), slot.into());
        }
        let left = (1..=16).filter(|session| sessions.contains(*session)).collect::<Vec<_>>();
        assert_eq!(left, (6..=16).collect::<Vec<_>>(), "the least active were dropped: a quarter, and one more");
    }

    #[test]
    fn clients_that_open_sessions_together_in_a_full_table_all_write() {
        let mut sessions = of_writers(16);
        for round in 0..10 {
            let slots = 2_000 + round * 10..2_004 + round * 10;
            slots.clone().for_each(|slot| assert_eq!(sessions.open(Slot(slot), slot.into()).0, slot));
            for session in slots {
                let slot = session + 5;
                assert_eq!(write_as(&mut sessions, session.into(), slot, session, 1), new(slot), "session {session}");
            }
        }
    }

    #[test]
    fn a_write_with_a_foreign_nonce_changes_nothing() {
        let mut sessions = Sessions::default();
        sessions.open(Slot(1), 7);
        write(&mut sessions, 2, 1, 1, 1);
        let before = sessions.clone();
        for (sequence, first_open) in
            [(1, 1), (2, 1), (2, 2), (SEQUENCE_WINDOW, 1), (1 << 62, 1 << 62), (u64::MAX, u64::MAX)]
        {
            let foreign = named(8, 1, sequence, first_open);
            assert_eq!(sessions.write(Slot(9), &foreign, || panic!("it is applied")), SessionLookup::Expired);
            sessions.record_result(Slot(9), &foreign, DONE);
            assert_eq!((sessions.lookup(&foreign), &sessions), (Some(SessionLookup::Expired), &before), "{sequence}");
        }
        assert_eq!(write(&mut sessions, 10, 1, 2, 1), new(10), "the owner continues");
    }

    #[test]
    fn different_write_under_a_used_id_does_not_get_its_result() {
        let mut sessions = Sessions::default();
        sessions.open(Slot(1), 7);
        write(&mut sessions, 2, 1, 1, 1);
        let before = sessions.clone();
        let other = Named { what: 5, ..named(7, 1, 1, 1) };
        assert_eq!(sessions.write(Slot(3), &other, || panic!("it is applied")), SessionLookup::Expired);
        assert_eq!((sessions.lookup(&other), sessions), (Some(SessionLookup::Expired), before));
    }

    #[test]
    fn lookup_returns_what_a_write_would_have_returned() {
        let mut sessions = Sessions::default();
        sessions.open(Slot(1), 7);
        write(&mut sessions, 2, 1, 5, 3);
        for (session, sequence, first_open) in [
            (1, 5, 3),
            (1, 5, 5),
            (1, 2, 1),
            (1, 4, 5),
            (1, 3, 3),
            (1, SEQUENCE_WINDOW + 2, 3),
            (1, SEQUENCE_WINDOW + 3, 3),
            (2, 1, 1),
        ] {
            let asked = sessions.lookup(&named(7, session, sequence, first_open));
            let wrote = write(&mut sessions.clone(), 9, session, sequence, first_open);
            let is_new = matches!(wrote, SessionLookup::New(_));
            assert_eq!(asked, (!is_new).then_some(wrote), "{session}-{sequence}, first open {first_open}");
        }
        let saved = sessions.saved(1, 7, 5).map(|saved| saved.slot);
        assert_eq!((saved, sessions.saved(1, 7, 6), sessions.saved(2, 7, 5)), (Some(Slot(2)), None, None));
        assert_eq!(sessions.saved(1, 8, 5), None, "that is another client's");
        assert!(!sessions.is_empty() && Sessions::default().is_empty());
    }

    #[test]
    fn digest_covers_the_result_of_each_write() {
        let with = |written, slot| {
            let mut sessions = Sessions::default();
            sessions.open(Slot(1), 7);
            // The session's last slot is the same, so that only the saved results differ.
            sessions.write(Slot(slot), &named(7, 1, 1, 1), || written);
            sessions.write(Slot(9), &named(7, 1, 2, 1), || DONE);
            sessions.digest()
        };
        let all = [
            with(DONE, 2),
            with(DONE, 3),
            with(WriteResult::Done { version: 2 }, 2),
            with(WriteResult::NotFound { version: 1 }, 2),
            with(WriteResult::Mismatch { version: 1 }, 2),
        ];
        let different: std::collections::BTreeSet<u64> = all.into_iter().collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn dropped_session_keeps_the_nonces_of_others() {
        let mut sessions = Sessions::at_most(1);
        sessions.open(Slot(1), 7);
        // A copy that is updated takes what is new before it drops what was removed.
        let mut copy = sessions.clone();
        sessions.open(Slot(2), 8);
        sessions.open(Slot(3), 7);
        copy.insert(3, sessions.get(3).unwrap().clone());
        copy.remove(1);
        assert_eq!((copy.opened_by(7), &copy), (Some(3), &sessions));
    }

    #[test]
    fn equal_tables_have_equal_digests_and_different_ones_do_not() {
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
