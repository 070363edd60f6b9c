//! Paxos, and nothing else: no clock, socket, file, thread or randomness in this room.
//!
//! (essay)
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod acceptor;
mod ballot;
mod learner;
mod message;
mod policy;
mod promises;
mod proposer;
mod quorum;
mod reads;

use std::fmt::Debug;
use std::hash::Hash;

pub use acceptor::{Acceptor, AcceptorFact, AcceptorOutcome, AcceptorRecord, AcceptorRequest, AcceptorTimer};
pub use ballot::{Ballot, Slot};
pub use learner::{Learner, LearnerFact, LearnerOutcome, LearnerRequest, LearnerTimer};
pub use message::{Command, CommandId, Entry, Message, Part, Refused, RoleName, SlotRange, Value};
pub use policy::Policy;
pub use proposer::{
    NotApplied, Proposer, ProposerFact, ProposerOutcome, ProposerRecord, ProposerRequest, ProposerTimer, RetryReason,
};
pub use quorum::Quorums;

/// Numbers the lives of a role on one data folder: no two lives of one role ever have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life(pub u32);

impl Life {
    /// Lives are numbered below this.
    pub const END: u32 = 1 << 24;

    /// The n-th number of this life: no other life of the role has it. There are 2^40 of them, years of the busiest life.
    pub fn number(self, n: u64) -> u64 {
        assert!(self.0 < Life::END && n >> 40 == 0, "life {} has run out of numbers", self.0);
        u64::from(self.0) << 40 | n
    }
}

/// What the log is for: a deterministic machine that applies one value after the other (Schneider 1990).
pub trait StateMachine: Clone + Debug + Eq + Hash {
    /// What applying a value says.
    type Outcome: Clone + Debug + Eq + Hash;
    /// A question that changes nothing.
    type Query: Clone + Debug + Eq + Hash;
    /// Its answer.
    type Answer: Clone + Debug + Eq + Hash;

    /// Applies the value of the next slot.
    fn apply(&mut self, slot: Slot, value: &Value) -> Self::Outcome;

    /// Answers from the state as it is.
    fn query(&self, query: &Self::Query) -> Self::Answer;

    /// A fingerprint of the state: equal states have equal digests.
    fn digest(&self) -> u64;
}
