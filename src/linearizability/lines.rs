//! The history in the lines of this program's own clients.
//!
//! A client writes REQUEST before it sends anything, and RESPONSE or TIMEOUT once it knows how the request has ended, or
//! that it will not know. NOTAPPLIED did not happen; UNKNOWN, EXPIRED, SUPERSEDED and no end at all are pending. If lines
//! of servers are there too, writes of clients that write no lines are in their REQUEST lines: they count as pending.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::model::Operation;
use super::values::Values;
use super::verdict::{Part, Place, Unknown, Verdict, check};
use super::versioned::{Call, Outcome, Start, Versioned};
use crate::role::Server;
use crate::trace::audit;
use crate::trace::clocks::first_set_back;
use crate::trace::histories::Histories;
use crate::trace::parse::Run;
use crate::trace::{Event, Line, Op, Process, Status, Text};

/// Checks the history in these lines, each process's in the order in which it wrote them; the lines of all clients are among
/// them. Places in the verdict are indices of the lines. The check gives up at the deadline.
pub fn check_lines<'a>(lines: impl IntoIterator<Item = &'a Line>, deadline: Instant) -> Verdict {
    decide(&lines.into_iter().map(|line| (line, false)).collect::<Vec<_>>(), deadline, || true)
}

/// Checks the history of a run, also while its processes still write. Places in the verdict are indices of its lines.
/// Lines of several histories are checked history by history, until one is not linearizable.
pub fn check_run(run: &Run, deadline: Instant) -> Verdict {
    let parts = match Histories::of(run) {
        Histories::One => return check_history(run, deadline),
        Histories::Several(parts) => parts,
        Histories::Mixed(says, _) => return Verdict::Unknown(Unknown::Incomplete(says)),
    };
    let mut all = Verdict::Linearizable { operations: 0, keys: 0 };
    for part in &parts {
        all = match (all, check_history(&part.run, deadline)) {
            (_, Verdict::Violation(witness)) => return Verdict::Violation(Box::new(witness.moved(&part.at))),
            (Verdict::Linearizable { operations, keys }, Verdict::Linearizable { operations: more, keys: others }) => {
                Verdict::Linearizable { operations: operations + more, keys: keys + others }
            }
            (Verdict::Linearizable { .. }, undecided) => undecided,
            (undecided, _) => undecided,
        };
    }
    all
}

fn check_history(run: &Run, deadline: Instant) -> Verdict {
    let lines: Vec<_> = run.lines.iter().map(|entry| (&entry.line, entry.late)).collect();
    decide(&lines, deadline, || audit::shows_all_requests(run))
}

/// The verdict; `is_closed` tells whether everybody who may have written has lines here, or is named in them.
fn decide(lines: &[(&Line, bool)], deadline: Instant, is_closed: impl FnOnce() -> bool) -> Verdict {
    let reader = match read(lines) {
        Ok(reader) => reader,
        Err(incomplete) => return Verdict::Unknown(incomplete),
    };
    let verdict = check(reader.parts(reader.start(), false), deadline);
    if !matches!(verdict, Verdict::Violation(_)) {
        return verdict;
    }
    if let Some(line) = first_set_back(lines.iter().map(|(line, _)| *line)) {
        return Verdict::Unknown(set_back(line));
    }
    // Without a word of the servers the store may have held anything when the clients came.
    let starts_anyhow = reader.first_lives.is_empty();
    let start = if starts_anyhow { Start::Anything } else { reader.start() };
    if starts_anyhow && matches!(check(reader.parts(start, false), deadline), Verdict::Linearizable { .. }) {
        let sentence = "no line says that the store was empty at first, and if it was not all is well: give the lines of the \
                        servers, too";
        return Verdict::Unknown(Unknown::Incomplete(sentence.to_string()));
    }
    if is_closed() {
        return verdict;
    }
    match check(reader.parts(start, true), deadline) {
        Verdict::Violation(_) => verdict,
        Verdict::Linearizable { .. } => {
            let sentence = "if somebody else wrote to the same keys all is well, and these lines do not show all requests: give \
                            the lines of all clients, or all lines of the servers (started with --steps on)";
            Verdict::Unknown(Unknown::Incomplete(sentence.to_string()))
        }
        undecided @ Verdict::Unknown(_) => undecided,
    }
}

/// No order can be told from times like these.
fn set_back(line: &Line) -> Unknown {
    Unknown::Incomplete(format!("the clock was set back before {}, so nobody knows what came first", line.id))
}

/// The operations; an error if some are missing. The line that explains a late one may have been written after its file
/// was read, so what a late line says of a result is left aside.
fn read<'a>(lines: &[(&'a Line, bool)]) -> Result<Reader<'a>, Unknown> {
    let mut reader = Reader::default();
    for (index, (line, late)) in lines.iter().enumerate() {
        match line.id.process.as_server() {
            Some(server) => reader.server(server, index, line),
            None => reader.client(index, line, *late)?,
        }
    }
    Ok(reader)
}

/// Names a write, whichever server it was sent to: session, number, and label. Session and number alone may be those of
/// another client's write: in the cluster's next history, or in the name of somebody who only guesses.
type WriteId<'a> = (u64, u64, &'a str);

/// An operation as the lines have it.
#[derive(Clone, Copy)]
struct Told<'a> {
    key: &'a Text,
    asked: Asked<'a>,
    /// The line of the call, and its moment.
    called: (usize, u64),
    end: End<'a>,
}

/// What was asked about a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked<'a> {
    Get,
    Put { value: &'a Text, if_version: Option<u64> },
    Delete,
}

/// What came of it, and in which line that stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End<'a> {
    NotHappened,
    Pending(Option<usize>),
    Returned { line: usize, moment: u64, answer: Answer<'a> },
}

/// What was answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer<'a> {
    Holds(Option<&'a Text>, u64),
    Done(u64),
    NotFound(u64),
    Mismatch(u64),
}

#[derive(Default)]
struct Reader<'a> {
    told: Vec<Told<'a>>,
    /// The requests that have not ended, by client and label; None for those that are about no key.
    open: BTreeMap<(&'a Process, &'a str), Option<usize>>,
    /// The number of the last line of each client.
    last: BTreeMap<&'a Process, u64>,
    /// The writes that clients have told of.
    ours: BTreeSet<WriteId<'a>>,
    /// The writes that servers were asked for, as the earliest of their lines has it.
    served: BTreeMap<WriteId<'a>, Told<'a>>,
    /// The first life of each server that the lines know, and whether its disk was empty.
    first_lives: BTreeMap<Server, (u32, bool)>,
}

impl<'a> Reader<'a> {
    fn client(&mut self, index: usize, line: &'a Line, late: bool) -> Result<(), Unknown> {
        let last = self.last.entry(&line.id.process).or_insert(0);
        if line.id.n != *last + 1 || matches!(line.event, Event::Lost { .. }) {
            let sentence = format!("lines of {} are missing before {}", line.id.process, line.id);
            return Err(Unknown::Incomplete(sentence));
        }
        *last = line.id.n;
        let name = (&line.id.process, line.req.as_deref().unwrap_or_default());
        match &line.event {
            Event::Request { session, sequence, .. } => {
                self.ours.extend(session.zip(*sequence).map(|(session, sequence)| (session, sequence, name.1)));
                // If the label was open, that request has no end.
                self.open.insert(name, asked(&line.event).map(|_| self.told.len()));
                self.told.extend(told(index, line));
                Ok(())
            }
            Event::Response { status, .. } | Event::Timeout { status, .. } => {
                let ended = self.open.remove(&name).ok_or_else(|| {
                    Unknown::Incomplete(format!("{} ends a request of which no line says what it was", line.id))
                })?;
                let Some(told) = ended.map(|index| &mut self.told[index]) else { return Ok(()) };
                let end = end(index, line, *status, told.asked).ok_or_else(|| {
                    Unknown::Incomplete(format!("{} does not say all that such an answer says", line.id))
                })?;
                if matches!(end, End::Returned { moment, .. } if moment < told.called.1) {
                    return Err(set_back(line));
                }
                told.end = if late { End::Pending(Some(index)) } else { end };
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn server(&mut self, server: Server, index: usize, line: &'a Line) {
        match &line.event {
            Event::Request { session: Some(session), sequence: Some(sequence), .. } => {
                let Some(told) = told(index, line) else { return };
                let name = (*session, *sequence, line.req.as_deref().unwrap_or_default());
                if self.served.get(&name).is_none_or(|other| told.called.1 < other.called.1) {
                    self.served.insert(name, told);
                }
            }
            Event::Boot { life, accepted, .. } => {
                let life = life.unwrap_or(line.id.process.life());
                let empty = accepted.map_or(life == 1, |accepted| accepted == 0);
                let first = self.first_lives.entry(server).or_insert((life, empty));
                *first = (*first).min((life, empty));
            }
            _ => {}
        }
    }

    /// What the store held when the lines begin, as far as they say.
    fn start(&self) -> Start {
        let empty = self.first_lives.values().all(|(_, empty)| *empty);
        if empty { Start::Empty } else { Start::Anything }
    }

    /// The history, key by key.
    fn parts(&self, start: Start, strangers: bool) -> Vec<Part<Versioned>> {
        let foreign = self.served.iter().filter(|(id, _)| !self.ours.contains(id)).map(|(_, told)| told);
        // Their client's clock is not known, and that of the server is another one: they may have begun at any time.
        let foreign = foreign.map(|told| Told { called: (told.called.0, 0), ..*told });
        let mut by_key: BTreeMap<&Text, Vec<Told>> = BTreeMap::new();
        for told in self.told.iter().copied().chain(foreign) {
            let tells_nothing = told.asked == Asked::Get && matches!(told.end, End::Pending(_));
            if told.end != End::NotHappened && !tells_nothing {
                by_key.entry(told.key).or_default().push(told);
            }
        }
        by_key.into_iter().map(|(key, told)| part(key, start, strangers, &told)).collect()
    }
}

/// The operation of a REQUEST; None if it is about no key, or promises nothing.
fn told<'a>(index: usize, line: &'a Line) -> Option<Told<'a>> {
    let (key, asked) = asked(&line.event)?;
    Some(Told { key, asked, called: (index, moment(line)), end: End::Pending(None) })
}

fn asked(event: &Event) -> Option<(&Text, Asked<'_>)> {
    let Event::Request { op, key: Some(key), value, if_version, .. } = event else { return None };
    let asked = match (op, value) {
        (Op::Get, _) => Asked::Get,
        (Op::Put, Some(value)) => Asked::Put { value, if_version: *if_version },
        (Op::Delete, _) => Asked::Delete,
        (Op::Put, None) | (Op::StaleGet | Op::Open | Op::Status | Op::Noop | Op::Unreadable, _) => return None,
    };
    Some((key, asked))
}

/// What a RESPONSE or TIMEOUT means for what was asked; None if a field is not there.
fn end<'a>(index: usize, line: &'a Line, status: Status, asked: Asked) -> Option<End<'a>> {
    let (version, value) = match &line.event {
        Event::Response { version, value, .. } => (*version, value.as_ref()),
        _ => (None, None),
    };
    let answer = match (status, asked) {
        (Status::NotApplied, _) => return Some(End::NotHappened),
        (Status::Unknown | Status::Expired | Status::Superseded, _) => return Some(End::Pending(Some(index))),
        (Status::Ok, Asked::Get) => Answer::Holds(Some(value?), version?),
        (Status::NotFound, Asked::Get) => Answer::Holds(None, version?),
        (Status::Ok, Asked::Put { .. } | Asked::Delete) => Answer::Done(version?),
        (Status::NotFound, Asked::Put { .. } | Asked::Delete) => Answer::NotFound(version?),
        (Status::Mismatch, _) => Answer::Mismatch(version?),
    };
    // Times are cut to microseconds, and a process never writes two lines in one: what is that close overlaps.
    Some(End::Returned { line: index, moment: moment(line) + 1, answer })
}

/// Microseconds since 1970.
fn moment(line: &Line) -> u64 {
    u64::try_from(line.time.as_microsecond()).unwrap_or(0)
}

fn part(key: &Text, start: Start, strangers: bool, all: &[Told]) -> Part<Versioned> {
    let read = all.iter().filter_map(|told| match told.end {
        End::Returned { answer: Answer::Holds(value, _), .. } => value,
        _ => None,
    });
    let values = Values::read(read.cloned());
    let (mut operations, mut places) = (Vec::with_capacity(all.len()), Vec::with_capacity(all.len()));
    for told in all {
        let call = match told.asked {
            Asked::Get => Call::Get,
            Asked::Put { value, if_version } => Call::Put { value: values.number(value), if_version },
            Asked::Delete => Call::Delete,
        };
        let (end, returned) = match told.end {
            End::NotHappened => continue,
            End::Pending(line) => (line, None),
            End::Returned { line, moment, answer } => (Some(line), Some((moment, outcome(answer, &values)))),
        };
        operations.push(Operation { call, called: told.called.1, returned });
        places.push(Place { call: told.called.0, end });
    }
    Part { key: format!("key {key}"), model: Versioned { start, values, strangers }, operations, places }
}

fn outcome(answer: Answer, values: &Values<Text>) -> Outcome {
    match answer {
        Answer::Holds(value, version) => Outcome::Holds(value.map(|value| values.number(value)), version),
        Answer::Done(version) => Outcome::Done(version),
        Answer::NotFound(version) => Outcome::NotFound(version),
        Answer::Mismatch(version) => Outcome::Mismatch(version),
    }
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
