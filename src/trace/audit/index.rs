//! Run index: the evidence, sorted for lookup by the rules, and their findings so far.

use std::collections::BTreeMap;

use super::super::event::Event;
use super::super::line::Line;
use super::super::parse::Run;
use super::super::quoted::QuotedText;
use super::super::values::OpKind;
use super::acceptors::PromiseContents;
use super::known_lines::KnownLines;
use super::{AuditCounts, AuditVerdict, Finding, Rule};
use crate::paxos::{Ballot, Slot};
use crate::role::{ServerId, ServerSet};

/// A run under audit. Lines are named by their index in the run.
pub(super) struct RunIndex<'a> {
    pub run: &'a Run,
    /// All servers, as the BOOT lines state them.
    pub cluster: ServerSet,
    /// The servers whose lines begin with their first and have no gap up to their last. Their end may be missing.
    pub complete_servers: ServerSet,
    /// Whether no line is missing that could show that a clock was set back.
    pub knows_clock: bool,
    /// What is known about missing lines.
    pub known: KnownLines<'a>,
    /// Each server's lines in order, incarnation after incarnation.
    pub by_server: BTreeMap<ServerId, Vec<usize>>,
    pub prepares: BTreeMap<Ballot, Vec<usize>>,
    /// The contents of each PROMISE, by ballot and acceptor.
    pub promises: BTreeMap<(Ballot, ServerId), Vec<PromiseContents>>,
    pub accepts: BTreeMap<(Slot, Ballot), Vec<usize>>,
    pub accepted: BTreeMap<(Slot, Ballot), ServerSet>,
    pub chosen: BTreeMap<Slot, Vec<usize>>,
    pub learns: BTreeMap<Slot, Vec<usize>>,
    pub findings: Vec<Finding>,
    pub counts: AuditCounts,
}

/// The value of a slot, as a line shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoggedValue<'a> {
    pub op: OpKind,
    pub key: Option<&'a QuotedText>,
    pub value: Option<&'a QuotedText>,
    pub if_version: Option<u64>,
    /// The command's label; None for a no-op, which may carry the label of the request that caused it.
    pub req: Option<&'a str>,
}

impl<'a> LoggedValue<'a> {
    /// The value in an ACCEPT or LEARN line.
    pub fn of(line: &'a Line) -> Option<LoggedValue<'a>> {
        let (Event::Accept { op, key, value, if_version, .. } | Event::Learn { op, key, value, if_version, .. }) =
            &line.event
        else {
            return None;
        };
        let labelled = !matches!(op, OpKind::Noop | OpKind::Unreadable);
        let req = line.req.as_deref().filter(|_| labelled);
        Some(LoggedValue { op: *op, key: key.as_ref(), value: value.as_ref(), if_version: *if_version, req })
    }
}

impl<'a> RunIndex<'a> {
    pub fn new(run: &'a Run) -> RunIndex<'a> {
        let mut index = RunIndex {
            run,
            cluster: ServerSet::NONE,
            complete_servers: ServerSet::NONE,
            knows_clock: true,
            known: KnownLines::new(run),
            by_server: run.by_server(),
            prepares: BTreeMap::new(),
            promises: BTreeMap::new(),
            accepts: BTreeMap::new(),
            accepted: BTreeMap::new(),
            chosen: BTreeMap::new(),
            learns: BTreeMap::new(),
            findings: Vec::new(),
            counts: AuditCounts::default(),
        };
        for (at, entry) in run.lines.iter().enumerate() {
            let Some(server) = entry.line.id.process.as_server() else { continue };
            match &entry.line.event {
                Event::Prepare { ballot, .. } => index.prepares.entry(*ballot).or_default().push(at),
                Event::Accept { slot, ballot, .. } => index.accepts.entry((*slot, *ballot)).or_default().push(at),
                Event::Accepted { slot, ballot, .. } => {
                    index.accepted.entry((*slot, *ballot)).or_default().insert(server);
                }
                Event::Chosen { slot, .. } => index.chosen.entry(*slot).or_default().push(at),
                Event::Learn { slot, .. } => index.learns.entry(*slot).or_default().push(at),
                _ => {}
            }
        }
        index
    }

    /// Whether these servers are a majority.
    pub fn is_majority(&self, servers: ServerSet) -> bool {
        servers.and(self.cluster).len() * 2 > self.cluster.len()
    }

    /// Records a broken rule.
    pub fn violated(&mut self, rule: Rule, lines: &[usize], message: String) {
        self.findings.push(Finding { rule, verdict: AuditVerdict::Violated, message, lines: lines.to_vec() });
    }

    /// Records that a rule cannot be checked.
    pub fn unproven(&mut self, rule: Rule, lines: &[usize], message: String) {
        self.findings.push(Finding { rule, verdict: AuditVerdict::Unproven, message, lines: lines.to_vec() });
    }

    /// A claim (the last of these lines) rests on a line of each of these servers, and those lines are absent. This is
    /// a violation if, of at least one server, all lines before the claim are present.
    pub fn missing(&mut self, rule: Rule, of: ServerSet, lines: &[usize], message: String) {
        let open = self.maybe_incomplete(of, lines);
        if open == of {
            self.unproven(rule, lines, format!("{message} ({})", self.describe_missing(open)));
        } else {
            self.violated(rule, lines, message);
        }
    }

    /// A claim rests on a line of at least one server, and no server has it.
    pub fn missing_anywhere(&mut self, rule: Rule, lines: &[usize], message: String) {
        let open = self.maybe_incomplete(self.cluster, lines);
        if open.is_empty() && !self.cluster.is_empty() {
            self.violated(rule, lines, message);
        } else {
            self.unproven(rule, lines, format!("{message} ({})", self.describe_missing(open)));
        }
    }

    /// The servers whose lines before the last of these lines may be incomplete.
    pub fn maybe_incomplete(&mut self, of: ServerSet, lines: &[usize]) -> ServerSet {
        let Some(claim) = lines.last() else { return of };
        of.iter().filter(|server| !self.known.has_all_before(*server, *claim)).collect()
    }

    /// Names the missing lines, for messages.
    pub fn describe_missing(&self, of: ServerSet) -> String {
        let with_gaps = of.without(self.complete_servers);
        if with_gaps.is_empty() {
            format!(
                "the last lines of {of} may be missing: they end without STOP, and none is known to be later than this"
            )
        } else {
            format!("lines of {with_gaps} are missing")
        }
    }

    /// The value proposed in a slot at a ballot, if a line shows it.
    pub fn proposed(&self, slot: Slot, ballot: Ballot) -> Option<(usize, LoggedValue<'a>)> {
        let at = *self.accepts.get(&(slot, ballot))?.first()?;
        Some((at, LoggedValue::of(self.run.line(at))?))
    }

    /// Whether the line needs evidence: not if its evidence may have been read too early.
    pub fn is_claim(&self, at: usize) -> bool {
        !self.run.lines[at].late
    }
}
