//! Inference: finds acceptances without a line that explain a fingerprint. An acceptor may be killed after it made a
//! batch durable and before it wrote the lines of that batch.

use std::collections::{BTreeMap, HashMap};

use crate::paxos::{Ballot, Slot};

/// Up to this many candidates, every combination is tried; beyond it, only likely ones.
const ALL_MAX: usize = 14;

/// A proposal that an acceptor may have accepted without a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnloggedAccept {
    pub slot: Slot,
    pub ballot: Ballot,
    /// The amount that it adds to the sum of fingerprints.
    pub gain: u64,
    /// Whether no acceptance in this slot was known before.
    pub is_new: bool,
}

/// The result of the search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Inference {
    /// These acceptances explain the sum.
    These(Vec<UnloggedAccept>),
    /// No combination explains it.
    None,
    /// No likely combination explains it, and there are too many to try all.
    TooMany,
}

/// Finds candidates whose gains add up to `lacks`, exactly `new` of them in new slots.
pub(super) fn infer(guesses: &[UnloggedAccept], lacks: u64, new: u64) -> Inference {
    let fits = |set: &[UnloggedAccept]| {
        let gain = set.iter().fold(0, |sum: u64, guess| sum.wrapping_add(guess.gain));
        gain == lacks && set.iter().filter(|guess| guess.is_new).count() as u64 == new
    };
    if guesses.len() <= ALL_MAX {
        let subset =
            |set: u32| (0..guesses.len()).filter(|n| set & 1 << n != 0).map(|n| guesses[n]).collect::<Vec<_>>();
        let found = (1..1_u32 << guesses.len()).map(subset).find(|set| fits(set));
        return found.map_or(Inference::None, Inference::These);
    }
    let likely = one_or_two(guesses, lacks).into_iter().chain(runs(guesses, lacks));
    likely.into_iter().find(|set| fits(set)).map_or(Inference::TooMany, Inference::These)
}

/// Combinations of one candidate, or of two.
fn one_or_two(guesses: &[UnloggedAccept], lacks: u64) -> Vec<Vec<UnloggedAccept>> {
    let by_gain: HashMap<u64, UnloggedAccept> = guesses.iter().map(|guess| (guess.gain, *guess)).collect();
    let one = by_gain.get(&lacks).map(|guess| vec![*guess]);
    let other = |guess: &UnloggedAccept| by_gain.get(&lacks.wrapping_sub(guess.gain)).filter(|other| *other != guess);
    let two = guesses.iter().find_map(|guess| Some(vec![*guess, *other(guess)?]));
    one.into_iter().chain(two).collect()
}

/// Combinations that one proposer sent at one ballot: consecutive candidates of that ballot.
fn runs(guesses: &[UnloggedAccept], lacks: u64) -> Vec<Vec<UnloggedAccept>> {
    let mut by_ballot: BTreeMap<Ballot, Vec<UnloggedAccept>> = BTreeMap::new();
    for guess in guesses {
        by_ballot.entry(guess.ballot).or_default().push(*guess);
    }
    by_ballot.into_values().filter_map(|row| run(&row, lacks)).collect()
}

/// The consecutive part that adds up: the difference of two prefix sums.
fn run(row: &[UnloggedAccept], lacks: u64) -> Option<Vec<UnloggedAccept>> {
    let mut begins = HashMap::from([(0, 0)]);
    let mut sum: u64 = 0;
    for (n, guess) in row.iter().enumerate() {
        sum = sum.wrapping_add(guess.gain);
        if let Some(begin) = begins.get(&sum.wrapping_sub(lacks)) {
            return Some(row[*begin..=n].to_vec());
        }
        begins.insert(sum, n + 1);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::ServerId;
    use crate::trace::field::fingerprint;

    /// Slots of ballot 1.1, and every tenth also of ballot 2.2.
    fn guesses(slots: u64) -> Vec<UnloggedAccept> {
        let ballot = |n: u8| Ballot { round: u64::from(n), server: ServerId(n) };
        let one = |slot, ballot| UnloggedAccept {
            slot: Slot(slot),
            ballot,
            gain: fingerprint(Slot(slot), ballot),
            is_new: slot != 3,
        };
        let mut all: Vec<UnloggedAccept> = (1..=slots).map(|slot| one(slot, ballot(1))).collect();
        all.extend((1..=slots / 10).map(|slot| one(10 * slot, ballot(2))));
        all
    }

    fn finds(guesses: &[UnloggedAccept], set: &[UnloggedAccept]) -> bool {
        let lacks = set.iter().fold(0, |sum: u64, guess| sum.wrapping_add(guess.gain));
        let new = set.iter().filter(|guess| guess.is_new).count() as u64;
        assert_ne!(infer(guesses, lacks, new + 1), Inference::These(set.to_vec()), "the count matters");
        infer(guesses, lacks, new) == Inference::These(set.to_vec())
    }

    #[test]
    fn any_combination_of_few_candidates_is_found_or_excluded() {
        let all = guesses(12);
        assert!(finds(&all, &[all[1], all[2], all[6], all[12]]));
        assert_eq!(infer(&all, 1, 1), Inference::None);
        assert_eq!(infer(&[], 1, 1), Inference::None);
    }

    #[test]
    fn one_or_two_or_a_run_of_many_candidates_is_found() {
        let all = guesses(1_000);
        assert!(finds(&all, &[all[700]]));
        assert!(finds(&all, &[all[1], all[1_050]]));
        assert!(finds(&all, &all[100..228]));
        assert!(finds(&all, &all[1_000..1_005]));
        let scattered = [all[1], all[5], all[9]].iter().fold(0, |sum: u64, guess| sum.wrapping_add(guess.gain));
        assert_eq!(infer(&all, scattered, 3), Inference::TooMany);
    }
}
