//! The set of operations in an order, as bits stored in as few words as possible.
//!
//! In a long history, all early operations are in the set and no late ones. Only the words between are stored, so the
//! size depends on how many operations run at the same time, not on the length of the history. Pending operations have
//! separate bits, because they may stay out of the set forever. Otherwise, all words after the first of them would have
//! to be stored.

use super::model::HistoryOperation;

const WORD_BITS: usize = 64;

/// A modifiable set of operations.
#[derive(Debug)]
pub(super) struct OperationSet {
    /// The bit of each operation: in `pending` if the flag is set, otherwise in `returning`.
    positions: Vec<(bool, usize)>,
    returning: Words,
    pending: Words,
}

/// A set in stored form: the number of full words, the number of words after them, and their content.
pub(super) type StoredSet = Box<[u64]>;

#[derive(Debug)]
struct Words {
    words: Vec<u64>,
    /// All words below this index are full.
    low: usize,
    /// All words from this index on are empty.
    high: usize,
}

impl OperationSet {
    /// The empty set; `operations` are the possible members.
    pub(super) fn none_of<C, O>(operations: &[HistoryOperation<C, O>]) -> OperationSet {
        let mut by_call: Vec<usize> = (0..operations.len()).collect();
        by_call.sort_by_key(|index| operations[*index].called);
        let mut places = vec![(false, 0); operations.len()];
        let (mut returning, mut pending) = (0, 0);
        for index in by_call {
            let is_pending = operations[index].returned.is_none();
            let count = if is_pending { &mut pending } else { &mut returning };
            places[index] = (is_pending, *count);
            *count += 1;
        }
        OperationSet { positions: places, returning: Words::empty(returning), pending: Words::empty(pending) }
    }

    /// Whether the set contains this operation.
    pub(super) fn contains(&self, operation: usize) -> bool {
        let (is_pending, bit) = self.positions[operation];
        let words = if is_pending { &self.pending } else { &self.returning };
        words.words[bit / WORD_BITS] & 1 << (bit % WORD_BITS) != 0
    }

    /// Adds an operation.
    pub(super) fn insert(&mut self, operation: usize) {
        let (words, bit) = self.position(operation);
        words.insert(bit);
    }

    /// Removes an operation.
    pub(super) fn remove(&mut self, operation: usize) {
        let (words, bit) = self.position(operation);
        words.remove(bit);
    }

    /// The stored form. Two stored forms over the same operations are equal if and only if the sets are.
    pub(super) fn store(&self) -> StoredSet {
        let (returning, pending) = (self.returning.content(), &self.pending.words[..self.pending.high]);
        let mut stored = Vec::with_capacity(2 + returning.len() + pending.len());
        stored.extend([self.returning.low as u64, returning.len() as u64]);
        stored.extend_from_slice(returning);
        stored.extend_from_slice(pending);
        stored.into()
    }

    fn position(&mut self, operation: usize) -> (&mut Words, usize) {
        let (is_pending, bit) = self.positions[operation];
        (if is_pending { &mut self.pending } else { &mut self.returning }, bit)
    }
}

impl Words {
    fn empty(bits: usize) -> Words {
        Words { words: vec![0; bits.div_ceil(WORD_BITS)], low: 0, high: 0 }
    }

    fn content(&self) -> &[u64] {
        &self.words[self.low..self.high.max(self.low)]
    }

    fn insert(&mut self, bit: usize) {
        let word = bit / WORD_BITS;
        self.words[word] |= 1 << (bit % WORD_BITS);
        self.high = self.high.max(word + 1);
        while self.words.get(self.low) == Some(&u64::MAX) {
            self.low += 1;
        }
    }

    fn remove(&mut self, bit: usize) {
        let word = bit / WORD_BITS;
        self.words[word] &= !(1 << (bit % WORD_BITS));
        self.low = self.low.min(word);
        while self.high > 0 && self.words[self.high - 1] == 0 {
            self.high -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use super::*;
    use paxos_kv::random::Random;

    #[test]
    fn stored_sets_are_equal_exactly_if_the_sets_are_equal() {
        let operations: Vec<HistoryOperation<(), ()>> = (0..300)
            .map(|n| HistoryOperation { call: (), called: 1_000 - n, returned: (n % 7 != 0).then_some((2_000, ())) })
            .collect();
        let mut taken = OperationSet::none_of(&operations);
        let (mut set, mut random) = (BTreeSet::new(), Random::new(1, 0));
        let (mut by_set, mut by_stored) = (HashMap::new(), HashMap::new());
        for round in 0..20_000 {
            // Alternates between nearly full and nearly empty, so that both ends move.
            let operation = random.within(0..=299) as usize;
            let insert = random.within(0..=99) < if round / 3_000 % 2 == 0 { 97 } else { 3 };
            if insert && set.insert(operation) {
                taken.insert(operation);
            } else if !insert && set.remove(&operation) {
                taken.remove(operation);
            }
            assert_eq!(taken.contains(operation), set.contains(&operation));
            let stored = taken.store();
            assert_eq!(by_set.entry(set.clone()).or_insert_with(|| stored.clone()), &stored);
            assert_eq!(by_stored.entry(stored).or_insert_with(|| set.clone()), &set);
        }
    }

    #[test]
    fn insert_and_remove_leave_no_trace() {
        let operations: Vec<HistoryOperation<(), ()>> = (0..600)
            .map(|n| HistoryOperation { call: (), called: n, returned: (n % 2 == 0).then_some((n, ())) })
            .collect();
        let mut taken = OperationSet::none_of(&operations);
        for early in [0, 1, 2] {
            taken.insert(early);
            let before = taken.store();
            for late in [598, 599] {
                taken.insert(late);
                assert_ne!(taken.store(), before);
                taken.remove(late);
                assert_eq!(taken.store(), before, "without {late}");
            }
        }
    }

    #[test]
    fn a_long_history_is_stored_in_few_words() {
        let operations: Vec<HistoryOperation<(), ()>> =
            (0..100_000).map(|n| HistoryOperation { call: (), called: n, returned: Some((n, ())) }).collect();
        let mut taken = OperationSet::none_of(&operations);
        for operation in 0..90_000 {
            taken.insert(operation);
        }
        taken.remove(89_900);
        assert!(taken.store().len() <= 6, "{:?}", taken.store());
    }
}
