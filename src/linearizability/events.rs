//! Calls and ends of operations, joined by the process that they belong to: what the text formats have in common.

use std::collections::BTreeMap;

use super::history::FormatError;

/// What a line tells of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    /// It is called.
    Invoke,
    /// It has ended, and this came of it.
    Ok,
    /// It has failed.
    Fail,
    /// Nobody knows what came of it.
    Info,
}

impl EventKind {
    /// Reads `:invoke`, `:ok`, `:fail` or `:info`.
    pub(super) fn parse(text: &str) -> Option<EventKind> {
        match text {
            ":invoke" => Some(EventKind::Invoke),
            ":ok" => Some(EventKind::Ok),
            ":fail" => Some(EventKind::Fail),
            ":info" => Some(EventKind::Info),
            _ => None,
        }
    }
}

/// A line: of which process, and what it tells.
#[derive(Clone, Debug)]
pub(super) struct ProcessEvent<'a, T> {
    /// The number of the line, from 0.
    pub(super) line: usize,
    pub(super) process: &'a str,
    pub(super) kind: EventKind,
    pub(super) what: T,
}

/// An operation.
#[derive(Clone, Debug)]
pub(super) struct PairedOperation<T> {
    /// The line of the call, and what it tells.
    pub(super) call: (usize, T),
    /// The line of the end and what it tells; None if there is none.
    pub(super) end: Option<(usize, EventKind, T)>,
}

/// Joins them. A process does one thing after the other.
pub(super) fn pair<T>(lines: Vec<ProcessEvent<'_, T>>) -> Result<Vec<PairedOperation<T>>, FormatError> {
    let mut pairs: Vec<PairedOperation<T>> = Vec::new();
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    for ProcessEvent { line, process, kind, what } in lines {
        if kind == EventKind::Invoke {
            if open.insert(process, pairs.len()).is_some() {
                return Err(FormatError::new(line, "the process has called an operation before that has not ended"));
            }
            pairs.push(PairedOperation { call: (line, what), end: None });
        } else {
            let index = open.remove(process).ok_or_else(|| FormatError::new(line, "the process has called nothing"))?;
            pairs[index].end = Some((line, kind, what));
        }
    }
    Ok(pairs)
}
