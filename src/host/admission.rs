//! Whether a server takes part in anything at all.
//!
//! What an acceptor has promised is on its disk and nowhere else. A server whose data folder was lost comes back with a new
//! one, like a server that was never there, and must not vote with it: it has forgotten what it is bound to. Those who know
//! the old folder refuse the new one; but those who never met the server while it had the old one cannot tell. So a server
//! with a new folder says nothing and hears nothing until enough of the others have remembered that folder: so many that
//! never again will as many take another one for its first. [`Quorums::witnesses`](crate::paxos::Quorums::witnesses) says
//! how many, and why.
//!
//! A server whose state was found to be wrong does not take part either, and never again in this life.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::museum::{self, Bug};
use crate::net::{Newcomer, WhyNotApplied};
use crate::role::{Server, Servers};

/// How a server stands to the others. Any thread may ask.
#[derive(Debug)]
pub struct Admission {
    takes_part: AtomicBool,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Its folder is new: these know it, and so many must.
    New { known_to: Servers, needed: usize },
    /// It takes part.
    Member,
    /// Its state is wrong.
    Fenced,
}

impl Admission {
    /// A server that takes part.
    pub fn member() -> Admission {
        Admission { takes_part: AtomicBool::new(true), state: Mutex::new(State::Member) }
    }

    /// A server with a new folder, which so many others must know; it takes part at once if that is nobody.
    pub fn newcomer(needed: usize) -> Admission {
        let state = State::New { known_to: Servers::NONE, needed };
        Admission { takes_part: AtomicBool::new(museum::is(Bug::NewDiskVotes)), state: Mutex::new(state) }
    }

    /// Whether it may say and hear anything.
    pub fn takes_part(&self) -> bool {
        self.takes_part.load(Ordering::Acquire)
    }

    /// Another server has said that it knows this one's folder. Once enough have, `remember` must write that down; if it
    /// does, the server takes part from now on. True if that has just begun.
    pub fn is_known_to<E>(&self, peer: Server, remember: impl FnOnce() -> Result<(), E>) -> Result<bool, E> {
        let mut state = self.state();
        let State::New { known_to, needed } = &mut *state else { return Ok(false) };
        known_to.insert(peer);
        if known_to.len() < *needed {
            return Ok(false);
        }
        remember()?;
        *state = State::Member;
        self.takes_part.store(true, Ordering::Release);
        Ok(true)
    }

    /// Its state is not that of the others.
    pub fn fence(&self) {
        *self.state() = State::Fenced;
        self.takes_part.store(false, Ordering::Release);
    }

    /// Why it answers no client; None if it does.
    pub fn refusal(&self) -> Option<WhyNotApplied> {
        if self.takes_part() {
            return None;
        }
        match *self.state() {
            State::New { .. } => Some(WhyNotApplied::Newcomer),
            State::Member => None,
            State::Fenced => Some(WhyNotApplied::Fenced),
        }
    }

    /// What it waits for if its folder is new.
    pub fn newness(&self) -> Option<Newcomer> {
        match *self.state() {
            State::New { known_to, needed } => Some(Newcomer { known_to, needed: needed as u8 }),
            State::Member | State::Fenced => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known_to(admission: &Admission, server: u8, can_write: bool) -> Result<bool, &'static str> {
        admission.is_known_to(Server(server), || if can_write { Ok(()) } else { Err("full") })
    }

    #[test]
    fn who_is_new_takes_part_once_enough_know_it_and_that_is_written_down() {
        let admission = Admission::newcomer(2);
        assert_eq!((admission.takes_part(), admission.refusal()), (false, Some(WhyNotApplied::Newcomer)));
        assert_eq!(known_to(&admission, 4, true), Ok(false));
        assert_eq!(known_to(&admission, 4, true), Ok(false), "one server, though it says so twice");
        assert_eq!(known_to(&admission, 5, false), Err("full"));
        assert!(!admission.takes_part(), "what is not written down is forgotten by the next life");
        let known = [4, 5].map(Server).into_iter().collect();
        assert_eq!(admission.newness(), Some(Newcomer { known_to: known, needed: 2 }));
        assert_eq!(known_to(&admission, 5, true), Ok(true));
        assert_eq!((admission.takes_part(), admission.refusal(), admission.newness()), (true, None, None));
        assert_eq!(known_to(&admission, 3, true), Ok(false), "it is no news any more");
    }

    #[test]
    fn who_is_wrong_takes_no_part_whoever_knows_it() {
        let admission = Admission::member();
        admission.fence();
        assert_eq!(known_to(&admission, 1, true), Ok(false));
        assert_eq!((admission.takes_part(), admission.refusal()), (false, Some(WhyNotApplied::Fenced)));
    }
}
