//! The history in the log lines of this program's own clients.
//!
//! A client writes REQUEST before it sends anything, and RESPONSE or TIMEOUT once it knows the result, or that it never
//! will. NOTAPPLIED means that the operation did not happen. UNKNOWN, EXPIRED, SUPERSEDED or no end at all mean that it
//! is pending. If log lines of servers are given too, their REQUEST lines show the writes of clients without lines;
//! these writes count as pending.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::model::HistoryOperation;
use super::value_ids::ValueIds;
use super::verdict::{KeyHistory, LinearizabilityVerdict, SourceLines, WhyUndecided, check};
use super::versioned_model::{InitialState, VersionedCall, VersionedModel, VersionedOutcome};
use paxos_kv::role::ServerId;
use paxos_kv::trace::audit;
use paxos_kv::trace::clocks::first_set_back;
use paxos_kv::trace::histories::Histories;
use paxos_kv::trace::parse::Run;
use paxos_kv::trace::{Event, Line, OpKind, ProcessId, QuotedText, RequestStatus};

/// Checks the history in these lines. The lines of each process must be in the order in which it wrote them, and the
/// lines of all clients must be there. Places in the verdict are indices of the lines. The check gives up at the
/// deadline.
pub fn check_lines<'a>(lines: impl IntoIterator<Item = &'a Line>, deadline: Instant) -> LinearizabilityVerdict {
    decide(&lines.into_iter().map(|line| (line, false)).collect::<Vec<_>>(), deadline, || true)
}

/// Checks the history of a run, even while its processes still write. Places in the verdict are indices of its lines.
/// Several histories are checked one after the other, until one is not linearizable.
pub fn check_run(run: &Run, deadline: Instant) -> LinearizabilityVerdict {
    let parts = match Histories::of(run) {
        Histories::One => return check_history(run, deadline),
        Histories::Several(parts) => parts,
        Histories::Mixed(says, _) => return LinearizabilityVerdict::Unknown(WhyUndecided::Incomplete(says)),
    };
    let mut all = LinearizabilityVerdict::Linearizable { operations: 0, keys: 0 };
    for part in &parts {
        all = match (all, check_history(&part.run, deadline)) {
            (_, LinearizabilityVerdict::Violation(witness)) => {
                return LinearizabilityVerdict::Violation(Box::new(witness.moved(&part.at)));
            }
            (
                LinearizabilityVerdict::Linearizable { operations, keys },
                LinearizabilityVerdict::Linearizable { operations: more, keys: others },
            ) => LinearizabilityVerdict::Linearizable { operations: operations + more, keys: keys + others },
            (LinearizabilityVerdict::Linearizable { .. }, undecided) => undecided,
            (undecided, _) => undecided,
        };
    }
    all
}

fn check_history(run: &Run, deadline: Instant) -> LinearizabilityVerdict {
    let lines: Vec<_> = run.lines.iter().map(|entry| (&entry.line, entry.late)).collect();
    decide(&lines, deadline, || audit::shows_all_requests(run))
}

/// Returns the verdict. `is_closed` tells whether all clients that may have written have lines here or are named in
/// lines.
fn decide(lines: &[(&Line, bool)], deadline: Instant, is_closed: impl FnOnce() -> bool) -> LinearizabilityVerdict {
    let reader = match read(lines) {
        Ok(reader) => reader,
        Err(incomplete) => return LinearizabilityVerdict::Unknown(incomplete),
    };
    let verdict = check(reader.parts(reader.start(), false), deadline);
    if !matches!(verdict, LinearizabilityVerdict::Violation(_)) {
        return verdict;
    }
    if let Some(line) = first_set_back(lines.iter().map(|(line, _)| *line)) {
        return LinearizabilityVerdict::Unknown(set_back(line));
    }
    // Without lines of servers, the store may have held anything when the clients began.
    let starts_anyhow = reader.first_incarnations.is_empty();
    let start = if starts_anyhow { InitialState::Anything } else { reader.start() };
    if starts_anyhow
        && matches!(check(reader.parts(start, false), deadline), LinearizabilityVerdict::Linearizable { .. })
    {
        let sentence = "no line shows that the store was empty at first; if it was not, these results are linearizable: name \
                        the log files of the servers too";
        return LinearizabilityVerdict::Unknown(WhyUndecided::Incomplete(sentence.to_string()));
    }
    if is_closed() {
        return verdict;
    }
    match check(reader.parts(start, true), deadline) {
        LinearizabilityVerdict::Violation(_) => verdict,
        LinearizabilityVerdict::Linearizable { .. } => {
            let sentence = "if another client wrote to the same keys, these results are linearizable, and these lines do not show \
                            all requests: name the log files of all clients, or all those of the servers (started with \
                            --steps on)";
            LinearizabilityVerdict::Unknown(WhyUndecided::Incomplete(sentence.to_string()))
        }
        undecided @ LinearizabilityVerdict::Unknown(_) => undecided,
    }
}

/// The clock was set back, so the lines prove no order.
fn set_back(line: &Line) -> WhyUndecided {
    WhyUndecided::Incomplete(format!("the clock was set back before {}, so the order of the lines is unknown", line.id))
}

/// Reads the operations; an error if some are missing. A line that was written after the first look at the files may
/// depend on lines that were not read. So the result in such a late line is ignored.
fn read<'a>(lines: &[(&'a Line, bool)]) -> Result<RunReader<'a>, WhyUndecided> {
    let mut reader = RunReader::default();
    for (index, (line, late)) in lines.iter().enumerate() {
        match line.id.process.as_server() {
            Some(server) => reader.server(server, index, line),
            None => reader.client(index, line, *late)?,
        }
    }
    Ok(reader)
}

/// Identifies a write, whichever server it was sent to: session, sequence and label. Session and sequence alone are not
/// enough. Another client's write may have the same ones, in the cluster's next history or by guessing.
type WriteKey<'a> = (u64, u64, &'a str);

/// An operation as found in the lines.
#[derive(Clone, Copy)]
struct LoggedOperation<'a> {
    key: &'a QuotedText,
    call: LoggedCall<'a>,
    /// The index of the call's line, and the moment of the call.
    called: (usize, u64),
    end: LoggedEnd<'a>,
}

/// The operation on a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LoggedCall<'a> {
    Get,
    Put { value: &'a QuotedText, if_version: Option<u64> },
    Delete,
}

/// The end of an operation, and the index of its line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LoggedEnd<'a> {
    NotHappened,
    Pending(Option<usize>),
    Returned { line: usize, moment: u64, answer: LoggedReply<'a> },
}

/// The result of an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LoggedReply<'a> {
    Holds(Option<&'a QuotedText>, u64),
    Done(u64),
    NotFound(u64),
    Mismatch(u64),
}

#[derive(Default)]
struct RunReader<'a> {
    operations: Vec<LoggedOperation<'a>>,
    /// The requests without an end, by client and label; None for requests that are not about a key.
    open: BTreeMap<(&'a ProcessId, &'a str), Option<usize>>,
    /// The number of the last line of each client.
    last: BTreeMap<&'a ProcessId, u64>,
    /// The writes in lines of clients.
    client_writes: BTreeSet<WriteKey<'a>>,
    /// The writes that servers received, as in the earliest of their lines.
    server_writes: BTreeMap<WriteKey<'a>, LoggedOperation<'a>>,
    /// The first incarnation of each server in the lines, and whether its disk was empty.
    first_incarnations: BTreeMap<ServerId, (u32, bool)>,
}

impl<'a> RunReader<'a> {
    fn client(&mut self, index: usize, line: &'a Line, late: bool) -> Result<(), WhyUndecided> {
        let last = self.last.entry(&line.id.process).or_insert(0);
        if line.id.n != *last + 1 || matches!(line.event, Event::Lost { .. }) {
            let sentence = format!("lines of {} are missing before {}", line.id.process, line.id);
            return Err(WhyUndecided::Incomplete(sentence));
        }
        *last = line.id.n;
        let name = (&line.id.process, line.req.as_deref().unwrap_or_default());
        match &line.event {
            Event::Request { session, sequence, .. } => {
                self.client_writes
                    .extend(session.zip(*sequence).map(|(session, sequence)| (session, sequence, name.1)));
                // If the label is in use, the earlier request has no end.
                self.open.insert(name, logged_call(&line.event).map(|_| self.operations.len()));
                self.operations.extend(logged_operation(index, line));
                Ok(())
            }
            Event::Response { status, .. } | Event::Timeout { status, .. } => {
                let ended = self.open.remove(&name).ok_or_else(|| {
                    WhyUndecided::Incomplete(format!("{} ends a request, but no line shows that request", line.id))
                })?;
                let Some(operation) = ended.map(|index| &mut self.operations[index]) else { return Ok(()) };
                let end = end(index, line, *status, operation.call)
                    .ok_or_else(|| WhyUndecided::Incomplete(format!("{} lacks fields of such a reply", line.id)))?;
                if matches!(end, LoggedEnd::Returned { moment, .. } if moment < operation.called.1) {
                    return Err(set_back(line));
                }
                operation.end = if late { LoggedEnd::Pending(Some(index)) } else { end };
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn server(&mut self, server: ServerId, index: usize, line: &'a Line) {
        match &line.event {
            Event::Request { session: Some(session), sequence: Some(sequence), .. } => {
                let Some(operation) = logged_operation(index, line) else { return };
                let name = (*session, *sequence, line.req.as_deref().unwrap_or_default());
                if self.server_writes.get(&name).is_none_or(|other| operation.called.1 < other.called.1) {
                    self.server_writes.insert(name, operation);
                }
            }
            Event::Boot { incarnation, accepted, .. } => {
                let incarnation = incarnation.unwrap_or(line.id.process.incarnation());
                let empty = accepted.map_or(incarnation == 1, |accepted| accepted == 0);
                let first = self.first_incarnations.entry(server).or_insert((incarnation, empty));
                *first = (*first).min((incarnation, empty));
            }
            _ => {}
        }
    }

    /// What the lines show about the store at their beginning.
    fn start(&self) -> InitialState {
        let empty = self.first_incarnations.values().all(|(_, empty)| *empty);
        if empty { InitialState::Empty } else { InitialState::Anything }
    }

    /// The history, split by key.
    fn parts(&self, start: InitialState, strangers: bool) -> Vec<KeyHistory<VersionedModel>> {
        let foreign =
            self.server_writes.iter().filter(|(id, _)| !self.client_writes.contains(id)).map(|(_, told)| told);
        // The clock of their client is not known, and the server has another clock: they may have begun at any time.
        let foreign = foreign.map(|told| LoggedOperation { called: (told.called.0, 0), ..*told });
        let mut by_key: BTreeMap<&QuotedText, Vec<LoggedOperation>> = BTreeMap::new();
        for operation in self.operations.iter().copied().chain(foreign) {
            let tells_nothing = operation.call == LoggedCall::Get && matches!(operation.end, LoggedEnd::Pending(_));
            if operation.end != LoggedEnd::NotHappened && !tells_nothing {
                by_key.entry(operation.key).or_default().push(operation);
            }
        }
        by_key.into_iter().map(|(key, told)| part(key, start, strangers, &told)).collect()
    }
}

/// The operation of a REQUEST, without its end; None if the request is not about a key.
fn logged_operation<'a>(index: usize, line: &'a Line) -> Option<LoggedOperation<'a>> {
    let (key, asked) = logged_call(&line.event)?;
    Some(LoggedOperation { key, call: asked, called: (index, moment(line)), end: LoggedEnd::Pending(None) })
}

fn logged_call(event: &Event) -> Option<(&QuotedText, LoggedCall<'_>)> {
    let Event::Request { op, key: Some(key), value, if_version, .. } = event else { return None };
    let asked = match (op, value) {
        (OpKind::Get, _) => LoggedCall::Get,
        (OpKind::Put, Some(value)) => LoggedCall::Put { value, if_version: *if_version },
        (OpKind::Delete, _) => LoggedCall::Delete,
        (OpKind::Put, None)
        | (OpKind::StaleGet | OpKind::Open | OpKind::Status | OpKind::Noop | OpKind::Unreadable, _) => return None,
    };
    Some((key, asked))
}

/// The end of an operation by its RESPONSE or TIMEOUT; None if a field is missing.
fn end<'a>(index: usize, line: &'a Line, status: RequestStatus, asked: LoggedCall) -> Option<LoggedEnd<'a>> {
    let (version, value) = match &line.event {
        Event::Response { version, value, .. } => (*version, value.as_ref()),
        _ => (None, None),
    };
    let answer = match (status, asked) {
        (RequestStatus::NotApplied, _) => return Some(LoggedEnd::NotHappened),
        (RequestStatus::Unknown | RequestStatus::Expired | RequestStatus::Superseded, _) => {
            return Some(LoggedEnd::Pending(Some(index)));
        }
        (RequestStatus::Ok, LoggedCall::Get) => LoggedReply::Holds(Some(value?), version?),
        (RequestStatus::NotFound, LoggedCall::Get) => LoggedReply::Holds(None, version?),
        (RequestStatus::Ok, LoggedCall::Put { .. } | LoggedCall::Delete) => LoggedReply::Done(version?),
        (RequestStatus::NotFound, LoggedCall::Put { .. } | LoggedCall::Delete) => LoggedReply::NotFound(version?),
        (RequestStatus::Mismatch, _) => LoggedReply::Mismatch(version?),
    };
    // Times are truncated to microseconds, so events in the same microsecond must count as overlapping. A process never
    // writes two lines in one microsecond.
    Some(LoggedEnd::Returned { line: index, moment: moment(line) + 1, answer })
}

/// Microseconds since 1970.
fn moment(line: &Line) -> u64 {
    u64::try_from(line.time.as_microsecond()).unwrap_or(0)
}

fn part(key: &QuotedText, start: InitialState, strangers: bool, all: &[LoggedOperation]) -> KeyHistory<VersionedModel> {
    let read = all.iter().filter_map(|told| match told.end {
        LoggedEnd::Returned { answer: LoggedReply::Holds(value, _), .. } => value,
        _ => None,
    });
    let values = ValueIds::read(read.cloned());
    let (mut operations, mut places) = (Vec::with_capacity(all.len()), Vec::with_capacity(all.len()));
    for operation in all {
        let call = match operation.call {
            LoggedCall::Get => VersionedCall::Get,
            LoggedCall::Put { value, if_version } => VersionedCall::Put { value: values.number(value), if_version },
            LoggedCall::Delete => VersionedCall::Delete,
        };
        let (end, returned) = match operation.end {
            LoggedEnd::NotHappened => continue,
            LoggedEnd::Pending(line) => (line, None),
            LoggedEnd::Returned { line, moment, answer } => (Some(line), Some((moment, outcome(answer, &values)))),
        };
        operations.push(HistoryOperation { call, called: operation.called.1, returned });
        places.push(SourceLines { call: operation.called.0, end });
    }
    KeyHistory {
        key: format!("key {key}"),
        model: VersionedModel { start, values, strangers },
        operations,
        lines: places,
    }
}

fn outcome(answer: LoggedReply, values: &ValueIds<QuotedText>) -> VersionedOutcome {
    match answer {
        LoggedReply::Holds(value, version) => VersionedOutcome::Holds(value.map(|value| values.number(value)), version),
        LoggedReply::Done(version) => VersionedOutcome::Done(version),
        LoggedReply::NotFound(version) => VersionedOutcome::NotFound(version),
        LoggedReply::Mismatch(version) => VersionedOutcome::Mismatch(version),
    }
}

#[cfg(test)]
#[path = "run_history_tests.rs"]
mod tests;
