//! A connection as the core sees it: which replies have arrived, and which are still expected.

use std::collections::BTreeSet;

use super::outcome::seconds;
use super::wire::{ConnectionState, NoReply};
use crate::role::ServerId;
use crate::time::Time;

/// Maximum number of unrequested replies on a connection; beyond that it is closed.
const UNREQUESTED_MAX: usize = 16;
/// Maximum number of replies to requests that were given up. A server that owes more of them, though it answers others,
/// has lost them.
const GIVEN_UP_MAX: usize = 256;

/// The server at the other end of a connection.
#[derive(Debug)]
pub(super) struct ServerConnection {
    pub(super) server: ServerId,
    /// When the connection was begun.
    started: Time,
    /// The history of the server's data, as far as the server has reported or shown it; 0 if unknown.
    history: u64,
    /// When the last reply arrived.
    received: Option<Time>,
    /// Numbers of tries that were given up: a late reply to one of them is expected.
    given_up: BTreeSet<u64>,
    /// Number of unrequested replies.
    unrequested: usize,
}

impl ServerConnection {
    pub(super) fn new(server: ServerId, now: Time) -> ServerConnection {
        ServerConnection { server, started: now, history: 0, received: None, given_up: BTreeSet::new(), unrequested: 0 }
    }

    /// Notes that replies have arrived.
    pub(super) fn hears(&mut self, now: Time) {
        self.received = Some(now);
    }

    /// Whether a reply has arrived after `moment`.
    pub(super) fn has_answered_since(&self, moment: Time) -> bool {
        self.received.is_some_and(|heard| heard > moment)
    }

    /// The history of the server's data; 0 if the server has neither reported nor shown one.
    pub(super) fn history(&self) -> u64 {
        self.history
    }

    /// Notes the history that the server has reported or shown. A server without data may get a history later.
    pub(super) fn set_history(&mut self, history: u64) {
        if self.history == 0 {
            self.history = history;
        }
    }

    /// Stops waiting for the reply to this request; false if too many were given up on this connection.
    pub(super) fn give_up(&mut self, number: u64) -> bool {
        self.given_up.len() < GIVEN_UP_MAX && self.given_up.insert(number)
    }

    /// Whether this is the late reply to a request that was given up. Each request has at most one reply.
    pub(super) fn takes_late(&mut self, number: u64) -> bool {
        self.given_up.remove(&number)
    }

    /// Counts an unrequested reply; an error if there were too many.
    pub(super) fn count_unrequested(&mut self) -> Result<(), NoReply> {
        self.unrequested += 1;
        if self.unrequested > UNREQUESTED_MAX {
            let what = format!("more than {UNREQUESTED_MAX} replies to requests that were not made");
            return Err(NoReply::Malformed { length: 0, what });
        }
        Ok(())
    }

    /// Why a try timed out on a connection in this state.
    pub(super) fn late(&self, stage: ConnectionState, now: Time) -> NoReply {
        let waited = seconds(now.since(self.started));
        NoReply::Unreachable {
            why: match stage {
                ConnectionState::Connecting => format!("no connection within {waited}"),
                ConnectionState::ShakingHands | ConnectionState::Ready { .. } => {
                    format!("no reply to the handshake within {waited}")
                }
            },
        }
    }
}
