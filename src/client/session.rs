//! What a client must remember so that each of its writes is applied exactly once.
//!
//! A session is opened through the log and named by the slot where that happened. Every write has a number in it, and
//! every resend of a write says the same session and number: whoever meets the second copy in the log answers with what
//! the first one came to. A write is never sent under a second number or in a second session, whatever becomes of it.

use std::collections::BTreeSet;

use crate::kv::SPAN;
use crate::random::Random;

/// A client's session, or the wish for one.
#[derive(Debug)]
pub struct Session {
    /// The name, once a server has said that the OPEN was applied.
    open: Option<u64>,
    /// What the OPEN says, in every resend, until the session is open: two copies of it open one session.
    nonce: u64,
    /// The number of the last write; 0 before the first.
    last: u64,
    /// The numbers of the writes that it still asks for.
    asked: BTreeSet<u64>,
    random: Random,
}

/// How a write is named in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteId {
    /// The session.
    pub session: u64,
    /// The write's number in it, from 1.
    pub sequence: u64,
    /// The client no longer asks for any write below this number.
    pub first_open: u64,
}

impl Session {
    /// No session yet. Nonces are drawn from `random`: two clients must never draw the same.
    pub fn new(mut random: Random) -> Session {
        Session { open: None, nonce: random.next(), last: 0, asked: BTreeSet::new(), random }
    }

    /// What an OPEN has to say; None if the session is open.
    pub fn wanted(&self) -> Option<u64> {
        self.open.is_none().then_some(self.nonce)
    }

    /// The session's name, if it is open.
    pub fn name(&self) -> Option<u64> {
        self.open
    }

    /// A server has said that the OPEN was applied.
    pub fn opened(&mut self, session: u64) {
        self.open = Some(session);
        self.last = 0;
        self.asked.clear();
    }

    /// Names the next write; None without a session. For a client that asks for one write at a time: it no longer asks for
    /// any before, so one whose outcome was never learnt cannot be applied after this one is.
    pub fn next_write(&mut self) -> Option<WriteId> {
        self.asked.clear();
        self.begin_write()
    }

    /// Names another write beside those that are still asked for; None without a session, or while the oldest of them is
    /// so far behind that the servers would not take this one.
    pub fn begin_write(&mut self) -> Option<WriteId> {
        let session = self.open?;
        let sequence = self.last + 1;
        let first_open = self.asked.first().copied().unwrap_or(sequence);
        if sequence - first_open >= SPAN {
            return None;
        }
        self.last = sequence;
        self.asked.insert(sequence);
        Some(WriteId { session, sequence, first_open })
    }

    /// The client no longer asks for a write, whatever came of it: if it turns up after a later one, it is superseded.
    pub fn end_write(&mut self, session: u64, sequence: u64) {
        if self.open == Some(session) {
            self.asked.remove(&sequence);
        }
    }

    /// The servers have forgotten the session: the next write needs a new one.
    pub fn expired(&mut self) {
        self.open = None;
        self.asked.clear();
        self.nonce = self.random.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_nonce_until_the_session_is_open_and_another_after_it_has_expired() {
        let mut session = Session::new(Random::new(1, 1));
        assert_eq!(session.next_write(), None);
        let nonce = session.wanted().unwrap();
        assert_eq!(session.wanted(), Some(nonce));
        session.opened(7);
        assert_eq!((session.wanted(), session.name()), (None, Some(7)));
        session.expired();
        assert_ne!(session.wanted(), Some(nonce));
        assert_ne!(session.wanted(), None);
        assert_eq!(session.next_write(), None);
    }

    #[test]
    fn writes_are_numbered_from_one_in_each_session() {
        let mut session = Session::new(Random::new(1, 1));
        session.opened(7);
        assert_eq!(session.next_write(), Some(WriteId { session: 7, sequence: 1, first_open: 1 }));
        assert_eq!(session.next_write(), Some(WriteId { session: 7, sequence: 2, first_open: 2 }));
        session.expired();
        session.opened(90);
        assert_eq!(session.next_write(), Some(WriteId { session: 90, sequence: 1, first_open: 1 }));
    }

    #[test]
    fn writes_side_by_side_keep_the_oldest_one_open_and_stay_within_the_span() {
        let mut session = Session::new(Random::new(1, 1));
        assert_eq!(session.begin_write(), None);
        session.opened(7);
        let named = |session: &mut Session| session.begin_write().map(|id| (id.sequence, id.first_open));
        for sequence in 1..=SPAN {
            assert_eq!(named(&mut session), Some((sequence, 1)));
        }
        assert_eq!(named(&mut session), None, "the first is still open");
        session.end_write(7, 2);
        assert_eq!(named(&mut session), None);
        session.end_write(7, 1);
        assert_eq!(named(&mut session), Some((SPAN + 1, 3)));
        assert_eq!(named(&mut session), Some((SPAN + 2, 3)));
        assert_eq!(named(&mut session), None);
        // The end of a write of another session means nothing here.
        session.end_write(6, 3);
        assert_eq!(named(&mut session), None);
        // Who asks for one at a time has given up all before.
        assert_eq!(session.next_write().map(|id| (id.sequence, id.first_open)), Some((SPAN + 3, SPAN + 3)));
        session.expired();
        session.opened(8);
        assert_eq!(named(&mut session), Some((1, 1)));
    }
}
