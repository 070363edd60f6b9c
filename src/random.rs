//! Seeded random choices: the same seed gives the same stream, on every machine and in every version of this program.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand_core::Rng;
use rand_pcg::Pcg64;

/// A stream of random choices.
#[derive(Clone, Debug)]
pub struct Random(Pcg64);

impl Random {
    /// The stream of this seed with this number; streams of one seed are independent.
    pub fn new(seed: u64, stream: u64) -> Random {
        let mut random = Random(Pcg64::new(u128::from(seed), u128::from(stream)));
        // Streams of neighboring seeds start with similar numbers; a few steps separate them.
        for _ in 0..8 {
            random.next();
        }
        random
    }

    /// A stream that cannot be repeated, for nonces and for seeds that were not given.
    pub fn unseeded() -> Random {
        use std::hash::{BuildHasher, RandomState};
        // The keys of a RandomState come from the operating system's generator.
        Random::new(RandomState::new().hash_one(0), RandomState::new().hash_one(1))
    }

    /// Any number.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number of the range, each as likely as the others.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (low, width) = (*range.start(), range.end().saturating_sub(*range.start()) + 1);
        // The high half of a 128-bit product is uniform up to one part in 2^64 / width.
        low + ((u128::from(self.next()) * u128::from(width)) >> 64) as u64
    }

    /// A duration between half and one and a half of the mean.
    pub fn around(&mut self, mean: Duration) -> Duration {
        let mean = mean.as_micros() as u64;
        Duration::from_micros(self.within(mean / 2..=mean + mean / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_repeat_and_of_two_seeds_differ() {
        let draw = |seed, stream| {
            let mut random = Random::new(seed, stream);
            [(); 4].map(|()| random.next())
        };
        assert_eq!(draw(1, 1), draw(1, 1));
        assert_ne!(draw(1, 1), draw(1, 2));
        assert_ne!(draw(1, 1), draw(2, 1));
        assert_eq!(Random::new(1, 1).next(), 17594500179986459805, "the stream must never change");
    }

    #[test]
    fn random_choices_stay_in_their_range_and_reach_its_ends() {
        let mut random = Random::new(7, 0);
        let drawn: std::collections::BTreeSet<u64> = (0..500).map(|_| random.within(3..=7)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
        let mean = Duration::from_secs(4);
        for _ in 0..100 {
            let drawn = random.around(mean);
            assert!(mean / 2 <= drawn && drawn <= mean * 3 / 2, "{drawn:?}");
        }
    }
}
