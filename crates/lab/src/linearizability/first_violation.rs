//! The first violation: the first return up to which the history is no longer linearizable.
//!
//! A prefix of a linearizable history is linearizable, with everything that had not returned by then pending. So there
//! is exactly one first return that breaks a history, and a binary search finds it. The search for an order tells
//! roughly where it is: that search gives an order up as soon as an operation that has not returned yet can no longer
//! be explained.

use super::model::{HistoryOperation, OperationOf, SequentialModel};
use super::search::{DeadEnd, SearchLimits, SearchResult, search};

/// Maximum number of steps for removing unnecessary operations from an order.
const STEPS_MAX: usize = 1 << 22;

/// Finds the first return that breaks the history; `stuck` is the result of a search. If the limits are reached first,
/// the result is `stuck` itself.
pub fn first_violation<M: SequentialModel>(
    model: &M,
    operations: &[OperationOf<M>],
    stuck: DeadEnd<M::State>,
    limits: SearchLimits,
) -> DeadEnd<M::State> {
    let mut returns: Vec<(u64, usize)> = (0..operations.len())
        .filter_map(|index| operations[index].returned.as_ref().map(|(moment, _)| (*moment, index)))
        .collect();
    returns.sort_unstable();
    let is_returning = |index: usize| operations[index].returned.is_some();
    let rank = |index: usize| returns.partition_point(|other| *other < (operations[index].until(), index));
    // The first `explained` returns can be explained, the first `broken` cannot.
    let mut explained = rank(stuck.breaks);
    let until = operations[stuck.breaks].until();
    let last = (0..operations.len())
        .filter(|index| operations[*index].called <= until && is_returning(*index))
        .map(rank)
        .max();
    let mut broken = last.map_or(returns.len(), |last| last + 1);
    let mut order = None;
    while broken - explained > 1 {
        let middle = explained + (broken - explained) / 2;
        let cut = HistoryPrefix::new(operations, &returns[..middle]);
        match search(model, &cut.operations, limits) {
            SearchResult::Order(found) => {
                order = Some(cut.lean(model, found));
                explained = middle;
            }
            SearchResult::Stuck(_) => broken = middle,
            SearchResult::OutOfTime | SearchResult::OutOfMemory => return stuck,
        }
    }
    let (moment, breaks) = returns[explained];
    let (order, state) = order.unwrap_or((stuck.order, stuck.state));
    let mut is_open: Vec<bool> = operations.iter().map(|operation| operation.called <= moment).collect();
    for index in order.iter().chain([&breaks]) {
        is_open[*index] = false;
    }
    let open = (0..operations.len()).filter(|index| is_open[*index]).collect();
    DeadEnd { order, state, breaks, open }
}

/// A prefix of a history.
struct HistoryPrefix<C, O> {
    operations: Vec<HistoryOperation<C, O>>,
    /// The index of each operation in the whole history.
    indices: Vec<usize>,
}

impl<C: Clone, O: Clone> HistoryPrefix<C, O> {
    /// The history up to the last of these returns. Operations that return later are pending.
    fn new(whole: &[HistoryOperation<C, O>], returns: &[(u64, usize)]) -> HistoryPrefix<C, O> {
        let (end, last) = *returns.last().expect("a history is not broken before its first return");
        let mut cut = HistoryPrefix { operations: Vec::new(), indices: Vec::new() };
        for (index, operation) in whole.iter().enumerate() {
            if operation.called <= end {
                let returned = operation.returned.clone().filter(|(moment, _)| (*moment, index) <= (end, last));
                cut.operations.push(HistoryOperation {
                    call: operation.call.clone(),
                    called: operation.called,
                    returned,
                });
                cut.indices.push(index);
            }
        }
        cut
    }

    /// The order without unnecessary pending operations, as indices of the whole history, and the state after it.
    fn lean<M: SequentialModel<Call = C, Outcome = O>>(
        &self,
        model: &M,
        mut order: Vec<usize>,
    ) -> (Vec<usize>, M::State) {
        let after = |order: &[usize]| {
            order.iter().try_fold(model.start(), |state, index| {
                model.step(&state, &self.operations[*index].call, self.operations[*index].outcome())
            })
        };
        let mut steps = 0;
        for at in (0..order.len()).rev() {
            if self.operations[order[at]].returned.is_none() && steps < STEPS_MAX {
                let mut without = order.clone();
                without.remove(at);
                steps += order.len();
                if after(&without).is_some() {
                    order = without;
                }
            }
        }
        let state = after(&order).expect("an order that was found explains its operations");
        (order.into_iter().map(|index| self.indices[index]).collect(), state)
    }
}
