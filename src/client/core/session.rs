//! What a client must remember so that each of its writes is applied exactly once.
//!
//! A session is opened through the log, and is the slot where that happened and the nonce that opened it. Every write
//! says both and has a number in the session, and every resend of a write says the same: whoever meets the second copy
//! in the log answers with what the first one came to. A write goes to a second session only if it is certain that the
//! first session has not applied it and never will.

use std::collections::BTreeSet;

use crate::kv::SEQUENCE_WINDOW;

/// Draws a nonce: 128 bits that nobody can guess, and no two clients draw the same. Only a simulated client's can be
/// repeated.
pub type Nonces = Box<dyn FnMut() -> u128 + Send>;

/// A client's session, or the wish for one.
pub struct ClientSession {
    /// The slot of its OPEN, once a server has said that this was applied.
    open: Option<u64>,
    /// What the OPEN says, in every resend, and then every write: two copies of an OPEN open one session.
    nonce: u128,
    /// The number of the last write; 0 before the first.
    last: u64,
    /// The numbers of the writes that it still asks for.
    asked: BTreeSet<u64>,
    nonces: Nonces,
}

/// How a write is named in the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AssignedWrite {
    /// The session.
    pub session: u64,
    /// What opened it.
    pub nonce: u128,
    /// The write's number in it, from 1.
    pub sequence: u64,
    /// The client no longer asks for any write below this number.
    pub first_open: u64,
}

impl std::fmt::Debug for AssignedWrite {
    /// Without the nonce, which nobody may see.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{} first_open={}", self.session, self.sequence, self.first_open)
    }
}

impl ClientSession {
    /// No session yet.
    pub fn new(mut nonces: Nonces) -> ClientSession {
        ClientSession { open: None, nonce: nonces(), last: 0, asked: BTreeSet::new(), nonces }
    }

    /// What an OPEN has to say; None if the session is open.
    pub fn is_opening(&self) -> Option<u128> {
        self.open.is_none().then_some(self.nonce)
    }

    /// What anybody can guess: the session's slot and the number of its last write.
    pub(crate) fn public(&self) -> Option<(u64, u64)> {
        Some((self.open?, self.last))
    }

    /// A server has said that the OPEN with this nonce was applied.
    pub fn opened(&mut self, nonce: u128, session: u64) {
        if self.nonce == nonce {
            self.open = Some(session);
            self.last = 0;
            self.asked.clear();
        }
    }

    /// Names another write beside those that are still asked for; None without a session, or while the oldest of them
    /// is so far behind that the servers would not take this one.
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

    /// The client no longer asks for a write of the session with this nonce, whatever came of it: if it turns up after
    /// a later one, it is superseded.
    pub fn end_write(&mut self, nonce: u128, sequence: u64) {
        if self.nonce == nonce {
            self.asked.remove(&sequence);
        }
    }

    /// The servers take no more writes of the session with this nonce: the next write needs a new one.
    pub fn ended(&mut self, nonce: u128) {
        if self.nonce == nonce {
            self.open = None;
            self.asked.clear();
            self.nonce = (self.nonces)();
        }
    }

    /// Whatever the session is, it is of no more use.
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

    /// The servers say that the session has ended.
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
    fn one_nonce_until_the_session_has_ended_and_then_another() {
        let mut session = session();
        assert_eq!(session.begin_write(), None);
        let nonce = session.is_opening().unwrap();
        assert_eq!(session.is_opening(), Some(nonce));
        open(&mut session, 7);
        assert_eq!(session.is_opening(), None);
        assert_eq!(session.begin_write().map(|id| id.nonce), Some(nonce));
        // Neither the beginning nor the end of another session means anything here, whatever its number was.
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
    fn writes_side_by_side_keep_the_oldest_one_open_and_stay_within_the_span() {
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
        // The end of a write of another session means nothing here.
        session.end_write(nonce + 1, 3);
        assert_eq!(named(&mut session), None);
        end(&mut session);
        open(&mut session, 8);
        assert_eq!(named(&mut session), Some((1, 1)));
    }
}
