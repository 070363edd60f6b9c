//! Phase 1 of one ballot: who has promised it, and who has refused.
//!
//! An attempt prepares a new ballot for all slots from the first of which it is not known that it is chosen. With a
//! quorum of promises it goes on to [`phase2`](super::phase2); a rival or silence may end it at any time (*Paxos Made
//! Simple*, sections 2.2 and 2.4).

use std::collections::BTreeMap;

use super::types::{ProposerTraceEvent, RetryReason};
use crate::paxos::{Ballot, Command, Slot};
use crate::role::{ServerId, ServerSet};

/// A ballot at work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    ballot: Ballot,
    /// No slot below is proposed in at this ballot.
    from: Slot,
    /// It only fills slots up to this one, and carries no command of its own.
    fill: Option<Slot>,
    /// Its first PREPARE was refused, and it has prepared again above.
    is_again: bool,
    /// Who refused, the PREPARE or an ACCEPT: whoever refused the one will refuse the other too.
    nacks: BTreeMap<ServerId, Ballot>,
    /// Who has answered anything.
    answered: ServerSet,
}

impl Attempt {
    pub(super) fn new(ballot: Ballot, from: Slot, fill: Option<Slot>, is_again: bool) -> Attempt {
        Attempt { ballot, from, fill, is_again, nacks: BTreeMap::new(), answered: ServerSet::NONE }
    }

    pub(super) fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// No slot below is proposed in at this ballot.
    pub(super) fn from(&self) -> Slot {
        self.from
    }

    /// It only fills slots up to this one, and carries no command of its own.
    pub(super) fn fill(&self) -> Option<Slot> {
        self.fill
    }

    /// Its first PREPARE was refused, and it has prepared again above.
    pub(super) fn is_again(&self) -> bool {
        self.is_again
    }

    /// Who has answered anything.
    pub(super) fn answered(&self) -> ServerSet {
        self.answered
    }

    /// An acceptor has answered.
    pub(super) fn note_answer(&mut self, acceptor: ServerId) {
        self.answered.insert(acceptor);
    }

    /// An acceptor has refused, since it is bound to this ballot. True if it is the first one.
    pub(super) fn note_refusal(&mut self, acceptor: ServerId, promised: Ballot) -> bool {
        let is_first = self.nacks.is_empty();
        self.nacks.insert(acceptor, promised);
        self.answered.insert(acceptor);
        is_first
    }

    /// Who has refused.
    pub(super) fn refusals(&self) -> ServerSet {
        self.nacks.keys().copied().collect()
    }

    /// The sentence that says why the attempt is lost.
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
