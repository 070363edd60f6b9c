//! The events of a history, joined into operations by process. Both text formats use this.

use std::collections::BTreeMap;

use super::history::FormatError;

/// The kind of event in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    /// The operation is called.
    Invoke,
    /// The operation ended with a result.
    Ok,
    /// The operation failed.
    Fail,
    /// The outcome is unknown.
    Info,
}

impl EventKind {
    /// Parses `:invoke`, `:ok`, `:fail` or `:info`.
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

/// One line: the process, the kind of event, and its content.
#[derive(Clone, Debug)]
pub(super) struct ProcessEvent<'a, T> {
    /// The line number, from 0.
    pub(super) line: usize,
    pub(super) process: &'a str,
    pub(super) kind: EventKind,
    pub(super) what: T,
}

/// An operation: its call and its end.
#[derive(Clone, Debug)]
pub(super) struct PairedOperation<T> {
    /// The call: its line number, from 0, and its content.
    pub(super) call: (usize, T),
    /// The end: line number, kind and content; None if there is none.
    pub(super) end: Option<(usize, EventKind, T)>,
}

/// Joins calls and ends. A process executes one operation after the other.
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
