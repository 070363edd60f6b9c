//! Counts of what the page of a run must draw, from typed lines. The page counts the same from text, and both results
//! must be equal.

use std::collections::{BTreeMap, BTreeSet};

use crate::paxos::{Ballot, NackedRequest, Slot};
use crate::role::{ServerId, ServerSet};
use crate::trace::event::Event;
use crate::trace::line::ProcessId;
use crate::trace::parse::Run;
use crate::trace::request_spans::{outages, request_spans};
use crate::trace::values::DecisionReason;
use crate::two_phase_commit::TransactionId;

/// Number of items to draw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCounts {
    /// Lines.
    pub lines: usize,
    /// Servers.
    pub servers: usize,
    /// Clients and other processes that are not servers.
    pub others: usize,
    /// Messages: arrows between two lines of different roles.
    pub messages: usize,
    /// Times during which a role or a process was down.
    pub outages: usize,
    /// Requests of clients.
    pub requests: usize,
}

impl PageCounts {
    /// Counts the items of a run.
    pub fn new(run: &Run) -> PageCounts {
        let mut servers = ServerSet::NONE;
        let mut others: BTreeSet<&ProcessId> = BTreeSet::new();
        for entry in &run.lines {
            let process = &entry.line.id.process;
            let is_new = match process.as_server() {
                Some(server) => servers.insert(server),
                None => others.insert(process),
            };
            if is_new && let Event::Boot { cluster, .. } = entry.line.event {
                cluster.iter().for_each(|server| _ = servers.insert(server));
            }
        }
        let others = others.len();
        let messages = messages(run).len();
        let outages = outages(run).len() + gaps(run);
        PageCounts {
            lines: run.lines.len(),
            servers: servers.len(),
            others,
            messages,
            outages,
            requests: request_spans(run).len(),
        }
    }
}

/// A reply by its kind, slot, ballot and sender.
type AcceptorReply = (ReplyKind, Option<Slot>, Ballot, ServerId);

/// A transaction as a key of the same type as ballots: both have a number and a server.
fn key_of(transaction: TransactionId) -> Ballot {
    Ballot { round: transaction.number, server: transaction.coordinator }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ReplyKind {
    Promise,
    Accepted,
    Nack,
    Vote,
}

/// Every message that two lines of different roles show, as (line of the sender, line of the receiver). They are found
/// by `re`, and by (slot, ballot, server) where a line reports a quorum.
pub fn messages(run: &Run) -> BTreeSet<(usize, usize)> {
    let by_id = run.by_id();
    let answers = answers(run);
    let first_accepts = first_accepts(run);
    let mut messages = BTreeSet::new();
    let mut add = |from: usize, to: usize| {
        let (a, b) = (run.line(from), run.line(to));
        if (&a.id.process, a.role) != (&b.id.process, b.role) {
            messages.insert((from, to));
        }
    };
    for (at, entry) in run.lines.iter().enumerate() {
        let line = &entry.line;
        // A sender's line on a message that the network lost belongs to the line that sent it.
        let is_of_sender = matches!(line.event, Event::Drop { to: Some(_), .. });
        if let Some(cause) = line.parent.as_ref().and_then(|re| by_id.get(re))
            && !is_of_sender
        {
            add(*cause, at);
        }
        let rests_on: Vec<AcceptorReply> = match &line.event {
            Event::Accept { ballot, quorum, .. } if first_accepts.get(ballot) == Some(&at) => {
                quorum.iter().map(|server| (ReplyKind::Promise, None, *ballot, server)).collect()
            }
            Event::Lead { ballot, quorum, .. } => {
                quorum.iter().map(|server| (ReplyKind::Promise, None, *ballot, server)).collect()
            }
            Event::Chosen { slot, ballot, quorum, .. } => {
                quorum.iter().map(|server| (ReplyKind::Accepted, Some(*slot), *ballot, server)).collect()
            }
            Event::Decide { tx, reason: DecisionReason::First, yes, no, .. } => {
                yes.iter().chain(*no).map(|server| (ReplyKind::Vote, None, key_of(*tx), server)).collect()
            }
            Event::Retry { ballot, nack, .. } => {
                nack.0.iter().map(|(server, _)| (ReplyKind::Nack, None, *ballot, *server)).collect()
            }
            _ => Vec::new(),
        };
        for answer in rests_on {
            let Some(given) = answers.get(&answer) else { continue };
            let before = given.iter().rev().find(|answer| run.line(**answer).time <= line.time);
            add(*before.unwrap_or(&given[0]), at);
        }
    }
    messages
}

/// The lines of replies, in order of time.
fn answers(run: &Run) -> BTreeMap<AcceptorReply, Vec<usize>> {
    let mut answers: BTreeMap<AcceptorReply, Vec<usize>> = BTreeMap::new();
    for (at, entry) in run.lines.iter().enumerate() {
        let Some(server) = entry.line.id.process.as_server() else { continue };
        let answer = match &entry.line.event {
            Event::Promise { ballot, .. } => (ReplyKind::Promise, None, *ballot, server),
            Event::Accepted { slot, ballot, .. } => (ReplyKind::Accepted, Some(*slot), *ballot, server),
            Event::Nack { ballot, slot: NackedRequest::Prepare(_) | NackedRequest::Accept(_), .. } => {
                (ReplyKind::Nack, None, *ballot, server)
            }
            Event::Vote { tx, .. } => (ReplyKind::Vote, None, key_of(*tx), server),
            _ => continue,
        };
        answers.entry(answer).or_default().push(at);
    }
    for given in answers.values_mut() {
        given.sort_by_key(|at| run.line(*at).time);
    }
    answers
}

/// The first ACCEPT of each ballot. A PROMISE serves every slot of its ballot, but its arrow ends at the first proposal
/// only.
fn first_accepts(run: &Run) -> BTreeMap<Ballot, usize> {
    let mut first: BTreeMap<Ballot, usize> = BTreeMap::new();
    for (at, entry) in run.lines.iter().enumerate() {
        if let Event::Accept { ballot, .. } = &entry.line.event {
            let known = first.entry(*ballot).or_insert(at);
            if entry.line.id.n < run.line(*known).id.n {
                *known = at;
            }
        }
    }
    first
}

/// Number of times that a server's process was down: between two incarnations, and after the last one if it wrote STOP.
fn gaps(run: &Run) -> usize {
    let mut gaps = 0;
    for lines in run.by_server().into_values() {
        let boots = |pair: &&[usize]| {
            let [before, after] = [run.line(pair[0]), run.line(pair[1])];
            before.id.process != after.id.process && matches!(after.event, Event::Boot { .. })
        };
        gaps += lines.windows(2).filter(boots).count();
        gaps += usize::from(lines.last().is_some_and(|last| matches!(run.line(*last).event, Event::Stop { .. })));
    }
    gaps
}
