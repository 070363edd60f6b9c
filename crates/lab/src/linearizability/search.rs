//! The search for an order of the operations on one key. For its origin see the [module](super).
//!
//! The search goes through the calls and returns in time order. A call may be taken: then the operation takes effect at
//! this point. The first return whose operation is not taken is a dead end: the last choice was wrong, so it is undone,
//! and the search continues with the next entry. The search does not recurse, because its depth grows with the length
//! of the history.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::time::Instant;

use super::entries::{CallOrReturn, Entries, Position};
use super::model::{OperationOf, SequentialModel};
use super::operation_set::{OperationSet, StoredSet};

/// Number of steps between two reads of the clock.
const STEPS_PER_CLOCK_READ: u64 = 256;
/// Bytes that the table of configurations needs for each entry, in addition to the entry's content.
const TABLE_BYTES: usize = 2 * mem::size_of::<u64>();

/// The limits of a search.
#[derive(Clone, Copy, Debug)]
pub struct SearchLimits {
    /// The search ends by this time, up to a few milliseconds late.
    pub deadline: Instant,
    /// The clock to read.
    pub now: fn() -> Instant,
    /// Maximum bytes of configurations. The process may need twice as much while a table grows.
    pub memory_bytes: usize,
    /// Maximum number of steps; this limit does not depend on the speed of the machine.
    pub steps: u64,
}

/// A clock for tests: it advances 10 ms with each read, independent of the machine's speed.
#[cfg(test)]
pub(super) fn slow_clock() -> Instant {
    thread_local! {
        static TIME: std::cell::Cell<Instant> = std::cell::Cell::new(Instant::now());
    }
    TIME.with(|time| time.replace(time.get() + std::time::Duration::from_millis(10)))
}

/// The result of a search. Operations are identified by their index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchResult<S> {
    /// An order of the operations; pending ones that are not in it never took effect.
    Order(Vec<usize>),
    /// There is no order.
    Stuck(DeadEnd<S>),
    /// The deadline or the maximum number of steps was reached first.
    OutOfTime,
    /// The memory limit was reached first.
    OutOfMemory,
}

/// How far an order can go: up to the return of `breaks`. No order explains the results of all operations that had been
/// called by then, which are those of `order`, of `open`, and `breaks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadEnd<S> {
    /// An order that explains everything that returned before `breaks` did, without unnecessary operations.
    pub order: Vec<usize>,
    /// The state after the order.
    pub state: S,
    /// The operation whose return no order explains.
    pub breaks: usize,
    /// Other operations that were called before that return and are not in the order.
    pub open: Vec<usize>,
}

/// Searches for an order that explains all results.
pub fn search<M: SequentialModel>(
    model: &M,
    operations: &[OperationOf<M>],
    limits: SearchLimits,
) -> SearchResult<M::State> {
    Search::new(model, operations, limits).run()
}

struct Search<'a, M: SequentialModel> {
    model: &'a M,
    operations: &'a [OperationOf<M>],
    limits: SearchLimits,
    /// The entries of the operations that are not taken.
    entries: Entries,
    /// For each operation, one that may go first without loss; see [`twins`].
    twins: Vec<Option<usize>>,
    taken: OperationSet,
    /// The operations taken, in order, each with the state before it.
    order: Vec<(usize, M::State)>,
    /// The state after them.
    state: M::State,
    /// Number of operations that returned and are not taken.
    missing: usize,
    /// Every configuration that was reached.
    seen: HashSet<(StoredSet, M::State)>,
    seen_bytes: usize,
    furthest: Option<Furthest<M::State>>,
}

/// The latest return that stopped an order.
struct Furthest<S> {
    at: Position,
    order: Vec<usize>,
    state: S,
    /// Length of the common prefix of `order` and the search's current order.
    shared: usize,
}

/// Whether an operation was taken.
enum Take {
    Yes,
    No,
    OutOfMemory,
}

impl<'a, M: SequentialModel> Search<'a, M> {
    fn new(model: &'a M, operations: &'a [OperationOf<M>], limits: SearchLimits) -> Search<'a, M> {
        Search {
            model,
            operations,
            limits,
            entries: Entries::new(operations),
            twins: twins::<M>(operations),
            taken: OperationSet::none_of(operations),
            order: Vec::new(),
            state: model.start(),
            missing: operations.iter().filter(|operation| operation.returned.is_some()).count(),
            seen: HashSet::new(),
            seen_bytes: 0,
            furthest: None,
        }
    }

    fn run(mut self) -> SearchResult<M::State> {
        let mut at = self.entries.first();
        let mut steps: u64 = 0;
        while self.missing > 0 {
            steps += 1;
            let is_late = || steps.is_multiple_of(STEPS_PER_CLOCK_READ) && (self.limits.now)() >= self.limits.deadline;
            if steps > self.limits.steps || is_late() {
                return SearchResult::OutOfTime;
            }
            let here = at.expect("a return without its call is still in the list, and the search cannot pass it");
            at = match self.entries.get(here) {
                CallOrReturn::Call(operation) => match self.take(operation) {
                    Take::Yes => self.entries.first(),
                    Take::No => self.entries.after(here),
                    Take::OutOfMemory => return SearchResult::OutOfMemory,
                },
                CallOrReturn::Return(_) => {
                    self.note_stuck(here);
                    match self.undo() {
                        Some(operation) => self.entries.after(self.entries.call_of(operation)),
                        None => return SearchResult::Stuck(self.stuck()),
                    }
                }
            };
        }
        SearchResult::Order(self.order.into_iter().map(|(operation, _)| operation).collect())
    }

    /// Takes an operation, if its result fits the state and the resulting configuration is new.
    fn take(&mut self, index: usize) -> Take {
        if self.twins[index].is_some_and(|twin| !self.taken.contains(twin)) {
            return Take::No;
        }
        let operation = &self.operations[index];
        let Some(next) = self.model.step(&self.state, &operation.call, operation.outcome()) else { return Take::No };
        let is_pending = operation.returned.is_none();
        // A pending operation that changes nothing can be left out.
        if is_pending && next == self.state {
            return Take::No;
        }
        self.taken.insert(index);
        let stored = self.taken.store();
        let bytes = mem::size_of::<(StoredSet, M::State)>() + TABLE_BYTES + mem::size_of_val(&*stored);
        if !self.seen.insert((stored, next.clone())) {
            self.taken.remove(index);
            return Take::No;
        }
        self.seen_bytes += bytes + M::heap_bytes(&next);
        if self.seen_bytes > self.limits.memory_bytes {
            return Take::OutOfMemory;
        }
        self.order.push((index, mem::replace(&mut self.state, next)));
        self.entries.lift(index);
        self.missing -= usize::from(!is_pending);
        if let Some(at) = self.too_late() {
            self.note_stuck(at);
            self.undo();
            return Take::No;
        }
        Take::Yes
    }

    /// The next return, if an operation that was called before it can no longer take effect because the state's clock
    /// is past [`SequentialModel::latest`].
    fn too_late(&self) -> Option<Position> {
        let clock = self.model.clock(&self.state);
        let mut late = false;
        let mut at = self.entries.first();
        while let Some(here) = at {
            match self.entries.get(here) {
                CallOrReturn::Return(_) => return late.then_some(here),
                CallOrReturn::Call(index) => {
                    late |= self.operations[index].outcome().is_some_and(|outcome| self.model.latest(outcome) < clock);
                }
            }
            at = self.entries.after(here);
        }
        None
    }

    /// Undoes the last choice and returns it.
    fn undo(&mut self) -> Option<usize> {
        let (index, before) = self.order.pop()?;
        self.state = before;
        self.taken.remove(index);
        self.entries.unlift(index);
        self.missing += usize::from(self.operations[index].returned.is_some());
        if let Some(furthest) = &mut self.furthest {
            furthest.shared = furthest.shared.min(self.order.len());
        }
        Some(index)
    }

    /// Keeps the order if it went further than the one kept before, or as far with fewer operations, because
    /// unnecessary operations would distract the reader. Only the part that differs is copied.
    fn note_stuck(&mut self, at: Position) {
        let (mut order, shared) = match self.furthest.take() {
            Some(furthest) if (furthest.at, self.order.len()) >= (at, furthest.order.len()) => {
                self.furthest = Some(furthest);
                return;
            }
            Some(furthest) => (furthest.order, furthest.shared),
            None => (Vec::new(), 0),
        };
        order.truncate(shared);
        order.extend(self.order[shared..].iter().map(|(operation, _)| *operation));
        self.furthest = Some(Furthest { at, shared: order.len(), order, state: self.state.clone() });
    }

    /// The dead end of the order that went furthest. All choices must be undone.
    fn stuck(self) -> DeadEnd<M::State> {
        let furthest = self.furthest.expect("a search without choices left has met a return");
        let CallOrReturn::Return(breaks) = self.entries.get(furthest.at) else {
            panic!("only a return stops an order");
        };
        let mut explained = vec![false; self.operations.len()];
        for operation in furthest.order.iter().chain([&breaks]) {
            explained[*operation] = true;
        }
        let is_open = |index: &usize| !explained[*index] && self.entries.call_of(*index) < furthest.at;
        let open = (0..self.operations.len()).filter(is_open).collect();
        DeadEnd { order: furthest.order, state: furthest.state, breaks, open }
    }
}

/// For each operation, another one with the same call and result that was called no later and returned no later, if
/// there is one.
///
/// If an order takes the later of the two before the earlier, or without it, they can be exchanged: the order still
/// respects the times and gives the same results. So only orders that take the earlier one first need to be tried.
fn twins<M: SequentialModel>(operations: &[OperationOf<M>]) -> Vec<Option<usize>> {
    let mut by_call: Vec<usize> = (0..operations.len()).collect();
    by_call.sort_by_key(|index| operations[*index].called);
    let mut last = HashMap::new();
    let mut twins = vec![None; operations.len()];
    for index in by_call {
        let operation = &operations[index];
        let earlier = last.insert((&operation.call, operation.outcome()), index);
        twins[index] = earlier.filter(|earlier| operations[*earlier].until() <= operation.until());
    }
    twins
}
