//! What a client must remember so that each of its writes is applied exactly once.
//!
//! A session is opened through the log and named by the slot where that happened. Every write has a number in it, and
//! every resend of a write says the same session and number: whoever meets the second copy in the log answers with what
//! the first one came to. A write is never sent under a second number or in a second session, whatever becomes of it.

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
        Session { open: None, nonce: random.next(), last: 0, random }
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
    }

    /// Names the next write; None without a session. The client asks for one write at a time, so it no longer asks for
    /// any before: one whose outcome was never learnt cannot be applied after this one is.
    pub fn next_write(&mut self) -> Option<WriteId> {
        let session = self.open?;
        self.last += 1;
        Some(WriteId { session, sequence: self.last, first_open: self.last })
    }

    /// The servers have forgotten the session: the next write needs a new one.
    pub fn expired(&mut self) {
        self.open = None;
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
}
