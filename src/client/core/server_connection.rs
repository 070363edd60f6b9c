//! A connection as the core sees it: what has come over it, and what is still owed.

use std::collections::BTreeSet;

use super::outcome::seconds;
use super::wire::{ConnectionState, NoReply};
use crate::host::Time;
use crate::role::ServerId;

/// A server that sends more replies than this to questions that nobody asked is not listened to any longer.
const UNREQUESTED_MAX: usize = 16;
/// A server that owes more replies than this, though it answers others, has lost them.
const GIVEN_UP_MAX: usize = 256;

/// The server at the other end of a connection.
#[derive(Debug)]
pub(super) struct ServerConnection {
    pub(super) server: ServerId,
    /// Since when there is the connection.
    begun: Time,
    /// The history that its data are of, as far as it has said or shown; 0 if it has not.
    history: u64,
    /// When the last reply came.
    received: Option<Time>,
    /// Requests that nobody waits for any longer: a reply to one of them is late, and no surprise.
    given_up: BTreeSet<u64>,
    /// Replies to questions that nobody asked.
    unrequested: usize,
}

impl ServerConnection {
    pub(super) fn new(server: ServerId, now: Time) -> ServerConnection {
        ServerConnection { server, begun: now, history: 0, received: None, given_up: BTreeSet::new(), unrequested: 0 }
    }

    /// Replies have come.
    pub(super) fn hears(&mut self, now: Time) {
        self.received = Some(now);
    }

    /// Whether a reply has come after that moment.
    pub(super) fn has_answered_since(&self, moment: Time) -> bool {
        self.received.is_some_and(|heard| heard > moment)
    }

    /// The history that its data are of; 0 if it has neither said nor shown one.
    pub(super) fn history(&self) -> u64 {
        self.history
    }

    /// It has said or shown that its data are of this history. Data that were empty may be of one later.
    pub(super) fn set_history(&mut self, history: u64) {
        if self.history == 0 {
            self.history = history;
        }
    }

    /// Nobody waits any longer for the reply to this request; false if that has happened too often.
    pub(super) fn give_up(&mut self, number: u64) -> bool {
        self.given_up.len() < GIVEN_UP_MAX && self.given_up.insert(number)
    }

    /// Whether a reply is to a request that nobody waits for any longer. There is one reply to each.
    pub(super) fn takes_late(&mut self, number: u64) -> bool {
        self.given_up.remove(&number)
    }

    /// Counts a reply to a question that was not asked; an error if there were too many.
    pub(super) fn count_unrequested(&mut self) -> Result<(), NoReply> {
        self.unrequested += 1;
        if self.unrequested > UNREQUESTED_MAX {
            let what = format!("more than {UNREQUESTED_MAX} replies to questions that were not asked");
            return Err(NoReply::Malformed { length: 0, what });
        }
        Ok(())
    }

    /// Why a try brought nothing whose time is up on a connection that is only at this stage.
    pub(super) fn late(&self, stage: ConnectionState, now: Time) -> NoReply {
        let waited = seconds(now.since(self.begun));
        NoReply::Unreachable {
            why: match stage {
                ConnectionState::Connecting => format!("no connection within {waited}"),
                ConnectionState::ShakingHands | ConnectionState::Ready { .. } => {
                    format!("no answer to the handshake within {waited}")
                }
            },
        }
    }
}
