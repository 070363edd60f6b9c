//! The ballots of one proposer. No ballot is ever used twice, in any life of it: promises and votes to an old one may
//! still arrive, and would be counted for other values (*Paxos Made Simple*, section 2.5).
//!
//! So a round is spent durably before it is spoken of; [`Rounds`] spends many at a time, to write seldom.

use super::types::{ProposerRecord, ProposerVocabulary};
use crate::paxos::{Ballot, rules};
use crate::role::{Output, ServerId};

/// A life reserves so many rounds at a time.
const ROUNDS_RESERVED: u64 = 1_024;

/// The rounds that a proposer may still use. See the head of its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rounds {
    me: ServerId,
    /// The round of the next ballot; at least 1.
    next: u64,
    /// This life may use rounds below this one without another record.
    reserved: u64,
}

impl Rounds {
    pub(super) fn new(me: ServerId) -> Rounds {
        Rounds { me, next: 1, reserved: 1 }
    }

    /// All rounds below this one are spent, by an earlier life.
    pub(super) fn replay(&mut self, below: u64) {
        self.next = self.next.max(below);
        self.reserved = self.next;
    }

    /// The round of the next ballot.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Whether there is no ballot left.
    pub(super) fn are_spent(&self) -> bool {
        self.next > Ballot::LAST_ROUND
    }

    /// A ballot of this round is known. One of a lower round would be refused.
    pub(super) fn go_above(&mut self, round: u64) {
        self.next = self.next.max(round.saturating_add(1));
    }

    /// A life begins, or has used up what it had: it spends rounds before it speaks of any.
    pub(super) fn reserve<R: ProposerVocabulary>(&mut self, out: &mut Output<R>) {
        self.reserved = self.next + ROUNDS_RESERVED;
        out.persist(ProposerRecord::RoundsReserved(self.reserved));
    }

    /// A ballot that nobody has used. None if there is none left.
    pub(super) fn next_ballot<R: ProposerVocabulary>(&mut self, out: &mut Output<R>) -> Option<Ballot> {
        if self.are_spent() {
            return None;
        }
        let ballot = rules::ballot_of(self.next, self.me);
        self.next = rules::round_after(self.next);
        if self.next > self.reserved {
            self.reserve(out);
        }
        Some(ballot)
    }
}
