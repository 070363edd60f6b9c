//! The calls and returns of a history in time order, as a linked list. Lifting an operation out of the list and putting
//! it back take constant time.

use super::model::HistoryOperation;

/// The sentinel before the first entry and after the last.
const ENDS: usize = 0;
/// The return of a pending operation, which has none.
const NO_RETURN: usize = usize::MAX;

/// A position in the list; a later entry has a greater position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(usize);

/// The content of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallOrReturn {
    /// The call of this operation.
    Call(usize),
    /// The return of this operation.
    Return(usize),
}

#[derive(Clone, Copy, Debug)]
struct Links {
    before: usize,
    after: usize,
}

/// The list of calls and returns.
#[derive(Debug)]
pub(super) struct Entries {
    /// The content by position; the first is [`ENDS`], whose content is never used.
    content: Vec<CallOrReturn>,
    links: Vec<Links>,
    /// The positions of each operation's call and return.
    of_operation: Vec<(usize, usize)>,
}

impl Entries {
    /// Builds the list of all operations.
    pub(super) fn new<C, O>(operations: &[HistoryOperation<C, O>]) -> Entries {
        let mut sorted: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * operations.len());
        for (index, operation) in operations.iter().enumerate() {
            sorted.push((operation.called, false, index));
            sorted.extend(operation.returned.iter().map(|(moment, _)| (*moment, true, index)));
        }
        // At the same moment calls come before returns, so operations that touch count as overlapping.
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

    /// The first entry left; None if the list is empty.
    pub(super) fn first(&self) -> Option<Position> {
        self.after(Position(ENDS))
    }

    /// The entry after this one.
    pub(super) fn after(&self, at: Position) -> Option<Position> {
        Some(self.links[at.0].after).filter(|after| *after != ENDS).map(Position)
    }

    /// The content at a position.
    pub(super) fn get(&self, at: Position) -> CallOrReturn {
        self.content[at.0]
    }

    /// The position of an operation's call.
    pub(super) fn call_of(&self, operation: usize) -> Position {
        Position(self.of_operation[operation].0)
    }

    /// Removes the entries of an operation.
    pub(super) fn lift(&mut self, operation: usize) {
        let (call, end) = self.of_operation[operation];
        self.unlink(call);
        if end != NO_RETURN {
            self.unlink(end);
        }
    }

    /// Puts back the entries of an operation. It must be the last one lifted that is still out.
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

    /// The neighbors are the same as at the removal, because everything removed later is back.
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
