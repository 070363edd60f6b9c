//! Phase 1 of one ballot: the acceptors that have promised it and those that have refused it.
//!
//! An attempt prepares a new ballot for all slots from the first that is not known to be chosen. With a quorum of
//! promises it goes on to [`phase2`](super::phase2). A rival or silence may end it at any time (*Paxos Made Simple*,
//! sections 2.2 and 2.4).

use std::collections::BTreeMap;

use super::types::{ProposerTraceEvent, RetryReason};
use crate::paxos::{Ballot, Command, Slot};
use crate::role::{ServerId, ServerSet};

/// The current ballot of a proposer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    ballot: Ballot,
    /// The first slot that may be proposed in at this ballot.
    from: Slot,
    /// `Some` if the attempt only fills slots up to this one and carries no command of its own.
    fill: Option<Slot>,
    /// Whether an earlier PREPARE was refused and this attempt prepared again above it.
    is_again: bool,
    /// The acceptors that refused the PREPARE or an ACCEPT, with the ballot that each has promised. An acceptor that
    /// refused one refuses the other too.
    nacks: BTreeMap<ServerId, Ballot>,
    /// The acceptors that have answered in any way.
    answered: ServerSet,
}

impl Attempt {
    pub(super) fn new(ballot: Ballot, from: Slot, fill: Option<Slot>, is_again: bool) -> Attempt {
        Attempt { ballot, from, fill, is_again, nacks: BTreeMap::new(), answered: ServerSet::NONE }
    }

    pub(super) fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// The first slot that may be proposed in at this ballot.
    pub(super) fn from(&self) -> Slot {
        self.from
    }

    /// `Some` if the attempt only fills slots up to this one and carries no command of its own.
    pub(super) fn fill(&self) -> Option<Slot> {
        self.fill
    }

    /// Whether an earlier PREPARE was refused and this attempt prepared again above it.
    pub(super) fn is_again(&self) -> bool {
        self.is_again
    }

    /// The acceptors that have answered in any way.
    pub(super) fn answered(&self) -> ServerSet {
        self.answered
    }

    /// Notes that an acceptor has answered.
    pub(super) fn note_answer(&mut self, acceptor: ServerId) {
        self.answered.insert(acceptor);
    }

    /// Notes that an acceptor has refused, because it has promised this ballot. Returns true for the first refusal.
    pub(super) fn note_refusal(&mut self, acceptor: ServerId, promised: Ballot) -> bool {
        let is_first = self.nacks.is_empty();
        self.nacks.insert(acceptor, promised);
        self.answered.insert(acceptor);
        is_first
    }

    /// The acceptors that have refused.
    pub(super) fn refusals(&self) -> ServerSet {
        self.nacks.keys().copied().collect()
    }

    /// The trace event that says why the attempt is lost.
    pub(super) fn lost(self, next: u64, reason: RetryReason, command: Option<Command>) -> ProposerTraceEvent {
        let Attempt { ballot, from, nacks, answered, .. } = self;
        ProposerTraceEvent::Retried {
            ballot,
            from,
            nacks: nacks.into_iter().collect(),
            answered,
            next,
            reason,
            command,
        }
    }
}
