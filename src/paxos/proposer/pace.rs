//! How long a round takes here: from a proposal until something of it is applied, or from PREPARE to a quorum of promises.
//!
//! A disk may need a second for a sync, and a round then needs two. A leader that took this for a standstill would step down
//! in the middle of its work, and the next one as well. So patience is measured by the rounds that there were, and is
//! never less than that of a quick cluster.
//!
//! Time is counted in pulses of 30 ms. See `election.rs`.

use std::collections::VecDeque;

/// So many rounds are remembered.
const ROUNDS: usize = 16;
/// The shortest patience, in pulses: 500 ms.
const PATIENCE_LEAST: u64 = 17;
/// The longest, in pulses: 10 s. A cluster that needs more has lost its leader, whatever its rounds were like.
const PATIENCE_MOST: u64 = 333;
/// Patience lasts for so many of the longest round.
const ROUNDS_OF_PATIENCE: u64 = 4;
const PULSE_MS: u64 = 30;

/// The last rounds of this life. See the head of its file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Pace {
    rounds: VecDeque<u64>,
}

impl Pace {
    /// A round has taken so many pulses.
    pub(super) fn note(&mut self, pulses: u64) {
        if self.rounds.len() == ROUNDS {
            self.rounds.pop_front();
        }
        self.rounds.push_back(pulses);
    }

    /// Nothing has come of a round for as long as patience lasts: it is longer than those before.
    pub(super) fn note_stall(&mut self) {
        self.note(PATIENCE_LEAST);
    }

    fn longest(&self) -> u64 {
        self.rounds.iter().copied().max().unwrap_or(0)
    }

    /// A leader whose proposals come to nothing for so many pulses steps down.
    pub(super) fn patience(&self) -> u64 {
        (ROUNDS_OF_PATIENCE * self.longest()).clamp(PATIENCE_LEAST, PATIENCE_MOST)
    }

    /// How often this time must be doubled for a round to fit in.
    pub(super) fn doublings(&self, ms: u64) -> u32 {
        let round_ms = PULSE_MS * self.longest();
        (0..10).find(|doublings| ms << doublings >= round_ms).unwrap_or(10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_lasts_for_some_rounds_like_the_longest_of_the_last() {
        let mut pace = Pace::default();
        assert_eq!((pace.patience(), pace.doublings(50)), (PATIENCE_LEAST, 0));
        [1, 40, 2].into_iter().for_each(|pulses| pace.note(pulses));
        assert_eq!(pace.patience(), 160, "a round of 1.2 s is nothing strange here");
        assert_eq!((pace.doublings(100), pace.doublings(1_200)), (4, 0));
        (0..ROUNDS - 2).for_each(|_| pace.note(1));
        assert_eq!(pace.patience(), 160);
        pace.note(1);
        assert_eq!(pace.patience(), PATIENCE_LEAST, "that was long ago");
        pace.note_stall();
        assert_eq!(pace.patience(), ROUNDS_OF_PATIENCE * PATIENCE_LEAST);
        pace.note(1_000);
        assert_eq!(pace.patience(), PATIENCE_MOST);
    }
}
