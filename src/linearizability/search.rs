//! The search for an order of the operations on one key. See the [module](super) for where it comes from.
//!
//! It goes through the calls and returns in the order of time. A call may be taken: the operation takes effect now. At
//! the first return whose operation is not taken it is too late for that one, so the last choice was wrong: it is
//! undone, and the search goes on behind it. Nothing recurses; how deep the search is depends on the length of the
//! history.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::time::Instant;

use super::entries::{CallOrReturn, Entries, Position};
use super::model::{OperationOf, SequentialModel};
use super::operation_set::{OperationSet, StoredSet};

/// The clock is looked at once in so many steps.
const STEPS_A_LOOK: u64 = 256;
/// What the table of configurations needs for one of them, beside its content.
const TABLE_BYTES: usize = 2 * mem::size_of::<u64>();

/// Where a search gives up.
#[derive(Clone, Copy, Debug)]
pub struct SearchLimits {
    /// Not later than this, up to a few milliseconds.
    pub deadline: Instant,
    /// The clock that is looked at.
    pub now: fn() -> Instant,
    /// Not with more bytes of configurations than this; the process needs up to twice as many while a table grows.
    pub memory_bytes: usize,
    /// Not after more steps than this: a limit that does not depend on how fast the machine is.
    pub steps: u64,
}

/// A clock for tests: each look at it takes ten milliseconds, however fast the machine is.
#[cfg(test)]
pub(super) fn slow_clock() -> Instant {
    thread_local! {
        static TIME: std::cell::Cell<Instant> = std::cell::Cell::new(Instant::now());
    }
    TIME.with(|time| time.replace(time.get() + std::time::Duration::from_millis(10)))
}

/// What a search came to. Operations are named by their index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchResult<S> {
    /// An order; pending operations that are not in it never took effect.
    Order(Vec<usize>),
    /// There is no order.
    Stuck(DeadEnd<S>),
    /// The deadline came first, or the last step.
    OutOfTime,
    /// The memory was used up first.
    OutOfMemory,
}

/// How far an order can go: it explains everything that returned before `breaks` did. No order explains how the
/// operations ended that had been called by then: those of `order`, of `open`, and `breaks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadEnd<S> {
    /// An order that explains everything that returned before `breaks` did, and takes no more than it must for that.
    pub order: Vec<usize>,
    /// The state behind it.
    pub state: S,
    /// The operation at whose return it ends.
    pub breaks: usize,
    /// Those that were also called before that return, and are not in the order.
    pub open: Vec<usize>,
}

/// Searches an order that explains all results.
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
    /// What is not taken yet.
    entries: Entries,
    /// Of each operation the one that may as well go first, see [`twins`].
    twins: Vec<Option<usize>>,
    taken: OperationSet,
    /// The operations taken, in order, each with the state before it.
    order: Vec<(usize, M::State)>,
    /// The state behind them.
    state: M::State,
    /// How many operations that returned are not taken.
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
    /// How many operations at the head of `order` are those of the search's current order.
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
            let is_late = || steps.is_multiple_of(STEPS_A_LOOK) && (self.limits.now)() >= self.limits.deadline;
            if steps > self.limits.steps || is_late() {
                return SearchResult::OutOfTime;
            }
            let here = at.expect("a return that is not explained stands in the list, and nothing goes past it");
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

    /// Lets an operation take effect, if it can have done so here, and if that leads to anything new.
    fn take(&mut self, index: usize) -> Take {
        if self.twins[index].is_some_and(|twin| !self.taken.contains(twin)) {
            return Take::No;
        }
        let operation = &self.operations[index];
        let Some(next) = self.model.step(&self.state, &operation.call, operation.outcome()) else { return Take::No };
        let is_pending = operation.returned.is_none();
        // A pending operation that would change nothing may as well not happen.
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

    /// The next return, if an operation that was called before it can no longer take effect: the state's clock is past
    /// it.
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

    /// Undoes the last choice, and says which it was.
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

    /// Remembers the order if none was stopped later, and of those stopped here none is shorter: what need not be taken
    /// would only distract. Only what differs from the order remembered before is copied.
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

    /// The operations that nothing explains. All choices are undone.
    fn stuck(self) -> DeadEnd<M::State> {
        let furthest = self.furthest.expect("a search without choices has met a return");
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

/// For each operation another that asks and answers the same, was called no later and returned no later, if there is
/// one.
///
/// If an order holds the later of the two and not the earlier before it, they can change places: what each of them
/// needs of time then holds as well, and nobody sees a difference. So only orders need to be tried that hold the
/// earlier first.
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
