//! What an operation is, and what says how the data answers.

use std::fmt::Debug;
use std::hash::Hash;

/// The data as one client would see it that is alone: what each operation does, and with which results it can end.
pub trait SequentialModel {
    /// What is asked.
    type Call: Clone + Debug + Eq + Hash;
    /// What is answered.
    type Outcome: Clone + Debug + Eq + Hash;
    /// What the data holds.
    type State: Clone + Debug + Eq + Hash;

    /// What the data holds when the history begins.
    fn start(&self) -> Self::State;

    /// The state after this operation; None if it cannot have ended so in this state. Without an outcome nobody knows
    /// how it ended: every end is possible.
    fn step(&self, state: &Self::State, call: &Self::Call, outcome: Option<&Self::Outcome>) -> Option<Self::State>;

    /// A number of the state that no operation ever lowers, as a version; with [`SequentialModel::latest`] it shows
    /// early that an order leads nowhere.
    fn clock(&self, _state: &Self::State) -> u64 {
        0
    }

    /// An operation that ended so cannot take effect in a state whose clock is past this.
    fn latest(&self, _outcome: &Self::Outcome) -> u64 {
        u64::MAX
    }

    /// The state in words: `holds "deep blue" at version 3`.
    fn show(&self, state: &Self::State) -> String;

    /// How many bytes a state holds outside of itself.
    fn heap_bytes(_state: &Self::State) -> usize {
        0
    }
}

/// An operation of a history. Moments are numbers of any clock; at the same moment, calls come before returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryOperation<C, O> {
    /// What was asked.
    pub call: C,
    /// When.
    pub called: u64,
    /// When it returned, and with what; None if it is pending.
    pub returned: Option<(u64, O)>,
}

/// The operations that this model speaks of.
pub type OperationOf<M> = HistoryOperation<<M as SequentialModel>::Call, <M as SequentialModel>::Outcome>;

impl<C, O> HistoryOperation<C, O> {
    /// What it ended with, if that is known.
    pub fn outcome(&self) -> Option<&O> {
        self.returned.as_ref().map(|(_, outcome)| outcome)
    }

    /// The moment after which it can no longer take effect.
    pub fn until(&self) -> u64 {
        self.returned.as_ref().map_or(u64::MAX, |(moment, _)| *moment)
    }
}
