//! What a server holds is bounded, whatever others do: looked at after every turn of a role.

use super::keeper::PARTS_MAX;
use super::nature::Nature;
use super::server::SimServer;
use crate::net::PEER_FRAME_MAX_BYTES;
use crate::paxos::{HARD_FACTOR, LEARNER_WINDOW};

/// What a mailbox takes beyond its limit: words that must not be lost because others fill it.
const RESERVED: usize = 8;
/// A keeper's own jobs: a checkpoint at a time, and what a life begins with.
const OWN_JOBS: usize = 4;

impl SimServer {
    /// Whether all that it holds is within its limits.
    pub fn check_bounds(&self, nature: &mut Nature) {
        let (me, Some(process)) = (self.me, &self.process) else { return };
        let mut within = |what: &str, has: u64, most: u64| {
            nature.ghost.require(24, has <= most, || format!("{me} holds {has} {what}, and the limit is {most}"));
        };
        let mailbox = (self.limits.mailbox + RESERVED) as u64;
        if let Some(living) = &process.proposer {
            within("inputs of its proposer", living.waiting() as u64, mailbox);
        }
        if let Some(living) = &process.acceptor {
            within("inputs of its acceptor", living.waiting() as u64, mailbox);
        }
        if let Some(living) = &process.learner {
            within("inputs of its learner", living.waiting() as u64, mailbox);
            within("bytes in its log", living.role.log_bytes(), HARD_FACTOR * self.retention.keep_bytes);
            within("slots that are not applied", living.role.open_slots() as u64, LEARNER_WINDOW);
            let sessions = living.role.machine().sessions().len() as u64;
            within("sessions", sessions, self.limits.sessions as u64);
        }
        if let Some(keeper) = &process.keeper {
            within("jobs of its keeper", keeper.waiting() as u64, (PARTS_MAX + OWN_JOBS) as u64);
        }
    }

    /// Whether a frame is one that its receiver takes.
    pub fn check_frame(&self, nature: &mut Nature, bytes: usize) {
        let me = self.me;
        nature.ghost.require(24, bytes <= PEER_FRAME_MAX_BYTES, || format!("{me} sends a frame of {bytes} bytes"));
    }
}
