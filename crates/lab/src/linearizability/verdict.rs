//! The verdict on a history, over all its keys.

use std::time::Instant;

use super::first_violation::first_violation;
use super::model::{OperationOf, SequentialModel};
use super::search::{DeadEnd, SearchLimits, SearchResult, search};

/// Maximum bytes of configurations in the search of one key.
pub const MEMORY_BYTES: usize = 1 << 30;

/// The place of an operation in the source of the history, as line numbers from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceLines {
    /// The line of its call.
    pub call: usize,
    /// The line of its end; None if there is none.
    pub end: Option<usize>,
}

/// Whether a history is linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinearizabilityVerdict {
    /// The history is linearizable.
    Linearizable {
        /// Number of operations.
        operations: usize,
        /// Number of keys.
        keys: usize,
    },
    /// The history is not linearizable.
    Violation(Box<Witness>),
    /// The history is undecided.
    Unknown(WhyUndecided),
}

/// Why a history is undecided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyUndecided {
    /// The deadline was reached before the search ended.
    #[error("not decided in time: {undecided} of {keys} keys, such as {key}")]
    OutOfTime {
        /// Number of undecided keys.
        undecided: usize,
        /// Number of keys.
        keys: usize,
        /// One of the undecided keys.
        key: String,
    },
    /// A search reached its memory limit.
    #[error("not decided: a search was stopped at {} MiB; {undecided} of {keys} keys, such as {key}", MEMORY_BYTES >> 20)]
    OutOfMemory {
        /// Number of undecided keys.
        undecided: usize,
        /// Number of keys.
        keys: usize,
        /// One of the undecided keys.
        key: String,
    },
    /// Operations are missing from the history, as the message explains.
    #[error("the history is incomplete: {0}")]
    Incomplete(String),
}

/// Why a history is not linearizable: everything before one return can be explained, but not that return.
///
/// If the deadline comes while that return is being searched, the witness is less precise: then no order explains
/// `breaks` *together with* the operations in `order` and `open`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The key of all these operations.
    pub key: String,
    /// An order that explains everything that returned before `breaks` did. For operations in it that returned later,
    /// it does not explain the result.
    pub order: Vec<SourceLines>,
    /// The state of the key after this order, as text.
    pub state: String,
    /// The operation whose result no order explains.
    pub breaks: SourceLines,
    /// Other operations that were called before that return and are not in the order.
    pub open: Vec<SourceLines>,
}

impl Witness {
    /// The same witness for a longer history that this one was taken from; `to` maps the line numbers.
    pub(super) fn moved(self, to: &[usize]) -> Witness {
        let place = |place: SourceLines| SourceLines { call: to[place.call], end: place.end.map(|end| to[end]) };
        let places = |places: Vec<SourceLines>| places.into_iter().map(place).collect();
        Witness { order: places(self.order), breaks: place(self.breaks), open: places(self.open), ..self }
    }
}

/// The operations on one key.
#[derive(Clone, Debug)]
pub(super) struct KeyHistory<M: SequentialModel> {
    /// The key as text.
    pub(super) key: String,
    pub(super) model: M,
    pub(super) operations: Vec<OperationOf<M>>,
    /// The source lines of each operation.
    pub(super) lines: Vec<SourceLines>,
}

/// Checks one key after the other, short histories first. Each may use an equal share of the time left, so that one
/// hard key does not prevent the others from being decided.
pub(super) fn check<M: SequentialModel>(parts: Vec<KeyHistory<M>>, deadline: Instant) -> LinearizabilityVerdict {
    check_by(parts, deadline, Instant::now)
}

fn check_by<M: SequentialModel>(
    mut parts: Vec<KeyHistory<M>>,
    deadline: Instant,
    clock: fn() -> Instant,
) -> LinearizabilityVerdict {
    let keys = parts.len();
    let operations = parts.iter().map(|part| part.operations.len()).sum();
    parts.sort_by_key(|part| part.operations.len());
    let mut undecided: Vec<(String, bool)> = Vec::new();
    for (index, part) in parts.into_iter().enumerate() {
        let now = clock();
        let share = deadline.saturating_duration_since(now) / u32::try_from(keys - index).unwrap_or(u32::MAX);
        let limits = SearchLimits { deadline: now + share, now: clock, memory_bytes: MEMORY_BYTES, steps: u64::MAX };
        match search(&part.model, &part.operations, limits) {
            SearchResult::Order(_) => {}
            SearchResult::Stuck(stuck) => {
                let stuck = first_violation(&part.model, &part.operations, stuck, SearchLimits { deadline, ..limits });
                return LinearizabilityVerdict::Violation(Box::new(witness(part, stuck)));
            }
            SearchResult::OutOfTime => undecided.push((part.key, false)),
            SearchResult::OutOfMemory => undecided.push((part.key, true)),
        }
    }
    let count = undecided.len();
    match undecided.pop() {
        None => LinearizabilityVerdict::Linearizable { operations, keys },
        Some((key, false)) => LinearizabilityVerdict::Unknown(WhyUndecided::OutOfTime { undecided: count, keys, key }),
        Some((key, true)) => LinearizabilityVerdict::Unknown(WhyUndecided::OutOfMemory { undecided: count, keys, key }),
    }
}

fn witness<M: SequentialModel>(part: KeyHistory<M>, stuck: DeadEnd<M::State>) -> Witness {
    let places = |indices: Vec<usize>| indices.into_iter().map(|index| part.lines[index]).collect();
    Witness {
        state: part.model.show(&stuck.state),
        order: places(stuck.order),
        breaks: part.lines[stuck.breaks],
        open: places(stuck.open),
        key: part.key.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::append_model::{AppendCall, AppendModel, AppendOutcome};
    use super::super::model::HistoryOperation;
    use super::super::search::slow_clock;
    use super::*;

    fn part(key: &str, operations: Vec<HistoryOperation<AppendCall, AppendOutcome>>) -> KeyHistory<AppendModel> {
        let places = (0..operations.len()).map(|call| SourceLines { call, end: None }).collect();
        KeyHistory { key: key.to_string(), model: AppendModel, operations, lines: places }
    }

    /// One operation after the other: no work for the search, except that it reads the clock once in hundreds of steps.
    fn easy(operations: u64) -> KeyHistory<AppendModel> {
        let put = |n| HistoryOperation {
            call: AppendCall::Put("x".into()),
            called: 2 * n,
            returned: Some((2 * n, AppendOutcome::Done)),
        };
        part("easy", (0..operations).map(put).collect())
    }

    /// Concurrent appends, and a read that fits no order of them: there are as many states as orders.
    fn hard() -> KeyHistory<AppendModel> {
        let append = |n: u64| HistoryOperation {
            call: AppendCall::Append(format!("{n}").into()),
            called: n,
            returned: Some((100, AppendOutcome::Done)),
        };
        let read = HistoryOperation {
            call: AppendCall::Get,
            called: 200,
            returned: Some((201, AppendOutcome::Holds("x".into()))),
        };
        part("hard", (0..20).map(append).chain([read]).collect())
    }

    fn undecided(undecided: usize, keys: usize) -> LinearizabilityVerdict {
        LinearizabilityVerdict::Unknown(WhyUndecided::OutOfTime { undecided, keys, key: "hard".to_string() })
    }

    #[test]
    fn hard_key_leaves_the_other_keys_their_time() {
        let deadline = slow_clock() + Duration::from_millis(1_200);
        assert_eq!(check_by(vec![easy(600), hard()], deadline, slow_clock), undecided(1, 2));
        assert!(slow_clock() < deadline, "the hard key used more than its share");
    }

    #[test]
    fn last_key_may_be_searched_until_the_deadline() {
        let deadline = slow_clock() + Duration::from_millis(300);
        assert_eq!(check_by(vec![hard(), easy(10)], deadline, slow_clock), undecided(1, 2));
        assert!(slow_clock() >= deadline, "time was left");
    }
}
