//! The session of a client: what it stores so that each of its writes is applied exactly once.
//!
//! A session is opened through the log. The slot of its OPEN and the nonce in it identify the session. Every write
//! carries both and a sequence in the session, and every resend repeats all three. A server that applies the log and
//! finds a second copy answers with the result of the first. A write moves to a second session only if the first
//! session certainly has not applied it and never will.

use std::collections::BTreeSet;

use crate::kv::SEQUENCE_WINDOW;

/// Draws a nonce of 128 bits that is not guessable and differs between clients. Only the nonces of simulated clients
/// are repeatable.
pub type Nonces = Box<dyn FnMut() -> u128 + Send>;

/// A client's session, open or still to be opened.
pub struct ClientSession {
    /// The slot of its OPEN, once a server has reported that the OPEN was applied.
    open: Option<u64>,
    /// The nonce of the OPEN and all its resends, and of every write. Two copies of an OPEN open one session.
    nonce: u128,
    /// The last sequence; 0 before the first.
    last: u64,
    /// The sequences of the writes that have not ended.
    asked: BTreeSet<u64>,
    nonces: Nonces,
}

/// The identity of a write in the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AssignedWrite {
    /// The session: the slot of its OPEN.
    pub session: u64,
    /// The nonce that opened the session.
    pub nonce: u128,
    /// The write's number in the session, from 1.
    pub sequence: u64,
    /// The lowest sequence that the client may still ask for.
    pub first_open: u64,
}

impl std::fmt::Debug for AssignedWrite {
    /// Omits the nonce, which is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{} first_open={}", self.session, self.sequence, self.first_open)
    }
}

impl ClientSession {
    /// A client without a session.
    pub fn new(mut nonces: Nonces) -> ClientSession {
        ClientSession { open: None, nonce: nonces(), last: 0, asked: BTreeSet::new(), nonces }
    }

    /// The nonce for the OPEN; None if the session is open.
    pub fn is_opening(&self) -> Option<u128> {
        self.open.is_none().then_some(self.nonce)
    }

    /// The parts that are no secret: the session's slot and its last sequence.
    pub fn public(&self) -> Option<(u64, u64)> {
        Some((self.open?, self.last))
    }

    /// Notes that the OPEN with this nonce was applied.
    pub fn opened(&mut self, nonce: u128, session: u64) {
        if self.nonce == nonce {
            self.open = Some(session);
            self.last = 0;
            self.asked.clear();
        }
    }

    /// Assigns the next sequence to a write. None without a session, or while the oldest unfinished write is
    /// [`SEQUENCE_WINDOW`] sequences behind, because the servers would not accept the new one.
    pub fn begin_write(&mut self) -> Option<AssignedWrite> {
        let (session, nonce) = (self.open?, self.nonce);
        let sequence = self.last + 1;
        let first_open = self.asked.first().copied().unwrap_or(sequence);
        if sequence - first_open >= SEQUENCE_WINDOW {
            return None;
        }
        self.last = sequence;
        self.asked.insert(sequence);
        Some(AssignedWrite { session, nonce, sequence, first_open })
    }

    /// Notes that the client no longer asks for this write, whatever its result. A copy that reaches the log after a
    /// later write is superseded.
    pub fn end_write(&mut self, nonce: u128, sequence: u64) {
        if self.nonce == nonce {
            self.asked.remove(&sequence);
        }
    }

    /// Notes that the servers take no more writes of the session with this nonce: the next write needs a new session.
    pub fn ended(&mut self, nonce: u128) {
        if self.nonce == nonce {
            self.open = None;
            self.asked.clear();
            self.nonce = (self.nonces)();
        }
    }

    /// Drops the current session, open or not.
    pub(super) fn drop_any(&mut self) {
        self.ended(self.nonce);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> ClientSession {
        let mut last = 0;
        ClientSession::new(Box::new(move || {
            last += 10;
            last
        }))
    }

    fn open(session: &mut ClientSession, slot: u64) {
        session.opened(session.nonce, slot);
    }

    /// Ends the session, as the servers would.
    fn end(session: &mut ClientSession) {
        session.ended(session.nonce);
    }

    /// A write that ends before the next one begins.
    fn named(session: &mut ClientSession) -> Option<(u64, u64, u64)> {
        let id = session.begin_write()?;
        session.end_write(id.nonce, id.sequence);
        Some((id.session, id.sequence, id.first_open))
    }

    #[test]
    fn nonce_changes_only_when_the_session_ends() {
        let mut session = session();
        assert_eq!(session.begin_write(), None);
        let nonce = session.is_opening().unwrap();
        assert_eq!(session.is_opening(), Some(nonce));
        open(&mut session, 7);
        assert_eq!(session.is_opening(), None);
        assert_eq!(session.begin_write().map(|id| id.nonce), Some(nonce));
        // Messages about another session must have no effect, even if its slot is the same.
        session.opened(nonce + 1, 8);
        assert_eq!(session.begin_write().map(|id| id.session), Some(7));
        session.ended(nonce + 1);
        assert_eq!(session.is_opening(), None);
        session.ended(nonce);
        assert_ne!(session.is_opening(), Some(nonce));
        assert_ne!(session.is_opening(), None);
        assert_eq!(session.begin_write(), None);
    }

    #[test]
    fn writes_are_numbered_from_one_in_each_session() {
        let mut session = session();
        open(&mut session, 7);
        assert_eq!((named(&mut session), named(&mut session)), (Some((7, 1, 1)), Some((7, 2, 2))));
        end(&mut session);
        open(&mut session, 90);
        assert_eq!(named(&mut session), Some((90, 1, 1)));
    }

    #[test]
    fn concurrent_writes_stay_within_the_sequence_window() {
        let mut session = session();
        assert_eq!(session.begin_write(), None);
        open(&mut session, 7);
        let nonce = session.nonce;
        let named = |session: &mut ClientSession| session.begin_write().map(|id| (id.sequence, id.first_open));
        for sequence in 1..=SEQUENCE_WINDOW {
            assert_eq!(named(&mut session), Some((sequence, 1)));
        }
        assert_eq!(named(&mut session), None, "the first is still open");
        session.end_write(nonce, 2);
        assert_eq!(named(&mut session), None);
        session.end_write(nonce, 1);
        assert_eq!(named(&mut session), Some((SEQUENCE_WINDOW + 1, 3)));
        assert_eq!(named(&mut session), Some((SEQUENCE_WINDOW + 2, 3)));
        assert_eq!(named(&mut session), None);
        // The end of another session's write has no effect.
        session.end_write(nonce + 1, 3);
        assert_eq!(named(&mut session), None);
        end(&mut session);
        open(&mut session, 8);
        assert_eq!(named(&mut session), Some((1, 1)));
    }
}
