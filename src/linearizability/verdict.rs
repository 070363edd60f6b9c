//! What a check comes to, for all keys of a history.

use std::time::Instant;

use super::first_violation::first_break;
use super::model::{OperationOf, SequentialModel};
use super::search::{DeadEnd, SearchLimits, SearchResult, search};

/// A search of one key stops when its configurations need more than this.
pub const MEMORY_BYTES: usize = 1 << 30;

/// Where an operation stands in what the history was read from: the numbers of its lines, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceLines {
    /// Where it was called.
    pub call: usize,
    /// Where its end was told.
    pub end: Option<usize>,
}

/// Whether a history is linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinearizabilityVerdict {
    /// It is.
    Linearizable {
        /// How many operations there are.
        operations: usize,
        /// How many keys they are about.
        keys: usize,
    },
    /// It is not.
    Violation(Box<Witness>),
    /// Nobody knows.
    Unknown(WhyUndecided),
}

/// Why nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyUndecided {
    /// The deadline came before the search ended.
    #[error("not decided in time: {undecided} of {keys} keys, among them {key}")]
    OutOfTime {
        /// How many keys are undecided.
        undecided: usize,
        /// Out of how many.
        keys: usize,
        /// One of them.
        key: String,
    },
    /// A search would have needed more memory than it may use.
    #[error("not decided: a search was stopped at {} MiB; {undecided} of {keys} keys, among them {key}", MEMORY_BYTES >> 20)]
    OutOfMemory {
        /// How many keys are undecided.
        undecided: usize,
        /// Out of how many.
        keys: usize,
        /// One of them.
        key: String,
    },
    /// Operations are missing from the history. The sentence says how that shows.
    #[error("the history is not complete: {0}")]
    Incomplete(String),
}

/// Why a history is not linearizable: up to a return everything can be explained, and with it not.
///
/// If the deadline comes while that return is being searched, the witness is a rougher one: then no order explains
/// `breaks` *together with* what is in `order` and `open`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The key that all this is about.
    pub key: String,
    /// An order that explains everything that returned before `breaks` did. Operations in it may have returned later:
    /// then it does not say with what.
    pub order: Vec<SourceLines>,
    /// What the key holds after it, in words.
    pub state: String,
    /// The operation whose result nothing explains any more.
    pub breaks: SourceLines,
    /// The operations that were called before that return as well, but are not in the order.
    pub open: Vec<SourceLines>,
}

impl Witness {
    /// The same, of a history that was taken from a longer one: where its lines stand there.
    pub(super) fn moved(self, to: &[usize]) -> Witness {
        let place = |place: SourceLines| SourceLines { call: to[place.call], end: place.end.map(|end| to[end]) };
        let places = |places: Vec<SourceLines>| places.into_iter().map(place).collect();
        Witness { order: places(self.order), breaks: place(self.breaks), open: places(self.open), ..self }
    }
}

/// The operations on one key.
#[derive(Clone, Debug)]
pub(super) struct KeyHistory<M: SequentialModel> {
    /// The key, as people read it.
    pub(super) key: String,
    pub(super) model: M,
    pub(super) operations: Vec<OperationOf<M>>,
    /// Where each of them stands.
    pub(super) places: Vec<SourceLines>,
}

/// Checks key after key. The short ones come first, and each may use an equal share of the time that is left: one key
/// that is too hard does not keep the others from being decided.
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
                let stuck = first_break(&part.model, &part.operations, stuck, SearchLimits { deadline, ..limits });
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
    let places = |indices: Vec<usize>| indices.into_iter().map(|index| part.places[index]).collect();
    Witness {
        state: part.model.show(&stuck.state),
        order: places(stuck.order),
        breaks: part.places[stuck.breaks],
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
        KeyHistory { key: key.to_string(), model: AppendModel, operations, places }
    }

    /// One after the other: no work, though the clock is looked at if there are hundreds.
    fn easy(operations: u64) -> KeyHistory<AppendModel> {
        let put = |n| HistoryOperation {
            call: AppendCall::Put("x".into()),
            called: 2 * n,
            returned: Some((2 * n, AppendOutcome::Done)),
        };
        part("easy", (0..operations).map(put).collect())
    }

    /// All at the same time, and a read that fits no order of them: there are as many states as orders.
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
    fn a_key_that_is_too_hard_leaves_the_others_their_time() {
        let deadline = slow_clock() + Duration::from_millis(1_200);
        assert_eq!(check_by(vec![easy(600), hard()], deadline, slow_clock), undecided(1, 2));
        assert!(slow_clock() < deadline, "the hard key has used up more than its share");
    }

    #[test]
    fn the_last_key_may_be_searched_until_the_deadline() {
        let deadline = slow_clock() + Duration::from_millis(300);
        assert_eq!(check_by(vec![hard(), easy(10)], deadline, slow_clock), undecided(1, 2));
        assert!(slow_clock() >= deadline, "time was left");
    }
}
