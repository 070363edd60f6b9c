//! The pace of rounds: how long it takes here from a proposal until one of its slots is applied, or from PREPARE to a
//! quorum of promises.
//!
//! A disk may need a second for a sync, and a round then needs two. A leader that took this for a standstill would step
//! down in the middle of its work, and so would the next one. So the patience depends on the measured rounds, and is
//! never less than in a fast cluster.
//!
//! An answer that arrives after its attempt has ended shows that attempts end too early. On a slow link, a page of a
//! megabyte takes its time, and so does the refusal of an ACCEPT of that size. The next attempts last as long as that
//! answer took, until something is applied.
//!
//! Time is counted in heartbeat ticks of 30 ms. See `election.rs`.

use std::collections::VecDeque;

use super::types::HEARTBEAT_TICK_MS;
use crate::paxos::Ballot;

/// Number of rounds remembered.
const ROUNDS: usize = 16;
/// Minimum patience, in heartbeat ticks: 500 ms.
const STALL_TIMEOUT_MIN_TICKS: u64 = 17;
/// Maximum patience, in heartbeat ticks: 10 s. A cluster that needs more has lost its leader, however long its rounds
/// were.
const STALL_TIMEOUT_MAX_TICKS: u64 = 333;
/// Patience, as a multiple of the longest round.
const ROUNDS_OF_PATIENCE: u64 = 4;
/// Number of attempts whose beginning is remembered.
const ATTEMPTS: usize = 4;

/// The last rounds of this incarnation. See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Pace {
    rounds: VecDeque<u64>,
    /// The ballots of the last attempts, and when they began.
    attempts: VecDeque<(Ballot, u64)>,
    /// The longest time that a late answer took since something was applied.
    late: u64,
}

impl Pace {
    /// Notes the duration of a round, in heartbeat ticks.
    pub(super) fn note(&mut self, ticks: u64) {
        if self.rounds.len() == ROUNDS {
            self.rounds.pop_front();
        }
        self.rounds.push_back(ticks);
    }

    /// Notes that an attempt begins.
    pub(super) fn prepare(&mut self, ballot: Ballot, now: u64) {
        if self.attempts.len() == ATTEMPTS {
            self.attempts.pop_front();
        }
        self.attempts.push_back((ballot, now));
    }

    /// Notes that a quorum has promised the ballot of the last attempt.
    pub(super) fn promised(&mut self, now: u64) {
        if let Some((_, started)) = self.attempts.back() {
            self.note(now - started);
        }
    }

    /// Notes that something was applied that was proposed this many heartbeat ticks ago.
    pub(super) fn applied(&mut self, ticks: u64) {
        self.note(ticks);
        self.late = 0;
    }

    /// Notes a promise or refusal that arrived after its attempt had ended.
    pub(super) fn answered_late(&mut self, ballot: Ballot, now: u64) {
        if let Some((_, started)) = self.attempts.iter().find(|(of, _)| *of == ballot) {
            self.late = self.late.max(now - started).min(STALL_TIMEOUT_MAX_TICKS);
        }
    }

    /// Number of doublings of `ms` after which an attempt is long enough for a quorum to answer.
    pub(super) fn doublings_of_attempt(&self, ms: u64) -> u32 {
        doublings(ms, self.late.max(self.longest()))
    }

    /// Notes that a round made no progress during the whole patience: it takes longer than the rounds before.
    pub(super) fn note_stall(&mut self) {
        self.note(STALL_TIMEOUT_MIN_TICKS);
    }

    fn longest(&self) -> u64 {
        self.rounds.iter().copied().max().unwrap_or(0)
    }

    /// A leader without progress for this many heartbeat ticks steps down.
    pub(super) fn stall_timeout(&self) -> u64 {
        (ROUNDS_OF_PATIENCE * self.longest()).clamp(STALL_TIMEOUT_MIN_TICKS, STALL_TIMEOUT_MAX_TICKS)
    }

    /// Number of doublings of `ms` after which a round fits in.
    pub(super) fn doublings(&self, ms: u64) -> u32 {
        doublings(ms, self.longest())
    }
}

fn doublings(ms: u64, ticks: u64) -> u32 {
    (0..10).find(|doublings| ms << doublings >= HEARTBEAT_TICK_MS * ticks).unwrap_or(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_covers_several_rounds_of_the_longest_recent_length() {
        let mut pace = Pace::default();
        assert_eq!((pace.stall_timeout(), pace.doublings(50)), (STALL_TIMEOUT_MIN_TICKS, 0));
        [1, 40, 2].into_iter().for_each(|ticks| pace.note(ticks));
        assert_eq!(pace.stall_timeout(), 160, "a round of 1.2 s is usual here");
        assert_eq!((pace.doublings(100), pace.doublings(1_200)), (4, 0));
        (0..ROUNDS - 2).for_each(|_| pace.note(1));
        assert_eq!(pace.stall_timeout(), 160);
        pace.note(1);
        assert_eq!(pace.stall_timeout(), STALL_TIMEOUT_MIN_TICKS, "that was long ago");
        pace.note_stall();
        assert_eq!(pace.stall_timeout(), ROUNDS_OF_PATIENCE * STALL_TIMEOUT_MIN_TICKS);
        pace.note(1_000);
        assert_eq!(pace.stall_timeout(), STALL_TIMEOUT_MAX_TICKS);
    }

    #[test]
    fn attempt_timeout_follows_a_late_reply_until_something_is_applied() {
        let mut pace = Pace::default();
        let ballot = |round| Ballot { round, server: crate::role::ServerId(1) };
        (1..=5).for_each(|round| pace.prepare(ballot(round), 10 * round));
        pace.answered_late(ballot(1), 90);
        assert_eq!(pace.doublings_of_attempt(100), 0, "that was too long ago to know");
        pace.answered_late(ballot(2), 80);
        assert_eq!((pace.doublings_of_attempt(100), pace.doublings(100)), (5, 0), "1.8 s, and not of a round");
        pace.answered_late(ballot(3), 80);
        assert_eq!(pace.doublings_of_attempt(100), 5, "another one was quicker");
        pace.promised(51);
        assert_eq!((pace.doublings_of_attempt(100), pace.doublings(10)), (5, 2), "small messages are quick");
        pace.applied(1);
        assert_eq!(pace.doublings_of_attempt(100), 0);
    }
}
