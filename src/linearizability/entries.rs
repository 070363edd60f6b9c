//! The calls and returns of a history in the order of time, as a linked list that operations are lifted out of, and put
//! back into, in constant time.

use super::model::HistoryOperation;

/// Stands before the first entry and behind the last.
const ENDS: usize = 0;
/// The return of an operation that has none.
const NO_RETURN: usize = usize::MAX;

/// A place in the list; of two places, the greater is the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(usize);

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallOrReturn {
    /// The operation is called.
    Call(usize),
    /// The operation returns.
    Return(usize),
}

#[derive(Clone, Copy, Debug)]
struct Links {
    before: usize,
    after: usize,
}

/// The list.
#[derive(Debug)]
pub(super) struct Entries {
    /// What stands where; the first is the [`ENDS`], whose content is never looked at.
    content: Vec<CallOrReturn>,
    links: Vec<Links>,
    /// Where each operation is called and where it returns.
    of_operation: Vec<(usize, usize)>,
}

impl Entries {
    /// All operations.
    pub(super) fn new<C, O>(operations: &[HistoryOperation<C, O>]) -> Entries {
        let mut sorted: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * operations.len());
        for (index, operation) in operations.iter().enumerate() {
            sorted.push((operation.called, false, index));
            sorted.extend(operation.returned.iter().map(|(moment, _)| (*moment, true, index)));
        }
        // At one moment the calls come first: what touches may overlap.
        sorted.sort_unstable();
        let last = sorted.len();
        let mut content = vec![CallOrReturn::Call(usize::MAX)];
        let mut of_operation = vec![(ENDS, NO_RETURN); operations.len()];
        for (_, is_return, index) in sorted {
            let at = content.len();
            if is_return {
                assert!(of_operation[index].0 != ENDS, "operation {index} returns before it is called");
                of_operation[index].1 = at;
                content.push(CallOrReturn::Return(index));
            } else {
                of_operation[index].0 = at;
                content.push(CallOrReturn::Call(index));
            }
        }
        let links = (0..=last)
            .map(|at| Links {
                before: if at == ENDS { last } else { at - 1 },
                after: if at == last { ENDS } else { at + 1 },
            })
            .collect();
        Entries { content, links, of_operation }
    }

    /// The first entry that is left; None if none is.
    pub(super) fn first(&self) -> Option<Position> {
        self.after(Position(ENDS))
    }

    /// The entry behind this one.
    pub(super) fn after(&self, at: Position) -> Option<Position> {
        Some(self.links[at.0].after).filter(|after| *after != ENDS).map(Position)
    }

    /// What stands at a place.
    pub(super) fn get(&self, at: Position) -> CallOrReturn {
        self.content[at.0]
    }

    /// Where an operation is called.
    pub(super) fn call_of(&self, operation: usize) -> Position {
        Position(self.of_operation[operation].0)
    }

    /// Takes the entries of an operation out.
    pub(super) fn lift(&mut self, operation: usize) {
        let (call, end) = self.of_operation[operation];
        self.unlink(call);
        if end != NO_RETURN {
            self.unlink(end);
        }
    }

    /// Puts the entries of the operation back that was lifted last of those that are out.
    pub(super) fn unlift(&mut self, operation: usize) {
        let (call, end) = self.of_operation[operation];
        if end != NO_RETURN {
            self.relink(end);
        }
        self.relink(call);
    }

    fn unlink(&mut self, at: usize) {
        let Links { before, after } = self.links[at];
        self.links[before].after = after;
        self.links[after].before = before;
    }

    /// The neighbours are the same as when it was taken out: everything that was lifted since is back.
    fn relink(&mut self, at: usize) {
        let Links { before, after } = self.links[at];
        self.links[before].after = at;
        self.links[after].before = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(called: u64, returned: Option<u64>) -> HistoryOperation<(), ()> {
        HistoryOperation { call: (), called, returned: returned.map(|moment| (moment, ())) }
    }

    fn all(entries: &Entries) -> Vec<CallOrReturn> {
        std::iter::successors(entries.first(), |at| entries.after(*at)).map(|at| entries.get(at)).collect()
    }

    #[test]
    fn entries_stand_in_the_order_of_time_and_calls_before_returns() {
        let entries = Entries::new(&[operation(3, Some(5)), operation(1, Some(3)), operation(2, None)]);
        use CallOrReturn::{Call, Return};
        assert_eq!(all(&entries), [Call(1), Call(2), Call(0), Return(1), Return(0)]);
        assert!(entries.call_of(1) < entries.call_of(0));
    }

    #[test]
    fn what_is_lifted_comes_back_to_its_place() {
        let mut entries = Entries::new(&[operation(1, Some(4)), operation(2, Some(3)), operation(5, None)]);
        let whole = all(&entries);
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
            for operation in order {
                entries.lift(operation);
            }
            assert_eq!(entries.first(), None);
            for operation in order.into_iter().rev() {
                entries.unlift(operation);
            }
            assert_eq!(all(&entries), whole);
        }
        entries.lift(1);
        assert_eq!(all(&entries), [CallOrReturn::Call(0), CallOrReturn::Return(0), CallOrReturn::Call(2)]);
    }
}
