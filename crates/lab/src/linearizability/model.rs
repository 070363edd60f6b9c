//! Operations, and the sequential model that defines their correct results.

use std::fmt::Debug;
use std::hash::Hash;

/// A sequential model: the data as used by one client alone. It defines the effect of each operation and its possible
/// results.
pub trait SequentialModel {
    /// An operation's kind and arguments.
    type Call: Clone + Debug + Eq + Hash;
    /// An operation's result.
    type Outcome: Clone + Debug + Eq + Hash;
    /// The state of the data.
    type State: Clone + Debug + Eq + Hash;

    /// The state at the beginning of the history.
    fn start(&self) -> Self::State;

    /// The state after this operation; None if it cannot have this outcome in this state. Without an outcome, every
    /// outcome is possible.
    fn step(&self, state: &Self::State, call: &Self::Call, outcome: Option<&Self::Outcome>) -> Option<Self::State>;

    /// A number in the state that no operation lowers, such as a version. With [`SequentialModel::latest`] it shows
    /// early that an order leads nowhere.
    fn clock(&self, _state: &Self::State) -> u64 {
        0
    }

    /// The highest clock of a state in which an operation with this outcome can take effect.
    fn latest(&self, _outcome: &Self::Outcome) -> u64 {
        u64::MAX
    }

    /// The state as text: `holds "deep blue" at version 3`.
    fn show(&self, state: &Self::State) -> String;

    /// Number of bytes that a state owns on the heap.
    fn heap_bytes(_state: &Self::State) -> usize {
        0
    }
}

/// An operation of a history. Moments are numbers of one clock; at the same moment, calls come before returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryOperation<C, O> {
    /// The operation's kind and arguments.
    pub call: C,
    /// When it was called.
    pub called: u64,
    /// When it returned, and the result; None if it is pending.
    pub returned: Option<(u64, O)>,
}

/// The operations of this model.
pub type OperationOf<M> = HistoryOperation<<M as SequentialModel>::Call, <M as SequentialModel>::Outcome>;

impl<C, O> HistoryOperation<C, O> {
    /// The result, if known.
    pub fn outcome(&self) -> Option<&O> {
        self.returned.as_ref().map(|(_, outcome)| outcome)
    }

    /// The moment after which the operation can no longer take effect.
    pub fn until(&self) -> u64 {
        self.returned.as_ref().map_or(u64::MAX, |(moment, _)| *moment)
    }
}
