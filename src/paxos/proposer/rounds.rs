//! The rounds of one proposer. No ballot is ever used twice, in any incarnation. Promises and votes for an old ballot
//! may still arrive, and would be counted for other values (*Paxos Made Simple*, section 2.5).
//!
//! So a round is reserved durably before any message contains it. [`Rounds`] reserves many at a time, to write seldom.

use super::types::{ProposerRecord, ProposerVocabulary};
use crate::paxos::{Ballot, rules};
use crate::role::{Output, ServerId};

/// Number of rounds reserved at a time.
const ROUNDS_RESERVED: u64 = 1_024;

/// The rounds that a proposer may still use. See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rounds {
    me: ServerId,
    /// The round of the next ballot; at least 1.
    next: u64,
    /// This incarnation may use rounds below this one without another record.
    reserved: u64,
}

impl Rounds {
    pub(super) fn new(me: ServerId) -> Rounds {
        Rounds { me, next: 1, reserved: 1 }
    }

    /// An earlier incarnation has reserved all rounds below this one.
    pub(super) fn replay(&mut self, below: u64) {
        self.next = self.next.max(below);
        self.reserved = self.next;
    }

    /// The round of the next ballot.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Whether no ballot is left.
    pub(super) fn are_exhausted(&self) -> bool {
        self.next > Ballot::LAST_ROUND
    }

    /// Skips the rounds up to this one, which a known ballot has: a lower ballot would be refused.
    pub(super) fn go_above(&mut self, round: u64) {
        self.next = self.next.max(round.saturating_add(1));
    }

    /// Reserves rounds before any of them is used: at the start of an incarnation, or when all reserved rounds are
    /// used.
    pub(super) fn reserve<R: ProposerVocabulary>(&mut self, out: &mut Output<R>) {
        self.reserved = self.next + ROUNDS_RESERVED;
        out.persist(ProposerRecord::RoundsReserved(self.reserved));
    }

    /// The next unused ballot; `None` if none is left.
    pub(super) fn next_ballot<R: ProposerVocabulary>(&mut self, out: &mut Output<R>) -> Option<Ballot> {
        if self.are_exhausted() {
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
