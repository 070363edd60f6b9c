//! The evidence, sorted so that a rule finds what it looks for; and what the rules have found so far.

use std::collections::BTreeMap;

use super::super::event::Event;
use super::super::line::Line;
use super::super::parse::Run;
use super::super::text::Text;
use super::super::word::Op;
use super::acceptors::Report;
use super::known::Known;
use super::{Counts, Finding, Rule, Verdict};
use crate::paxos::{Ballot, Slot};
use crate::role::{Server, Servers};

/// A run under audit. Lines are named by their index in the run.
pub(super) struct Case<'a> {
    pub run: &'a Run,
    /// All servers, as their BOOT lines say.
    pub cluster: Servers,
    /// The servers whose lines begin with their first, without a gap up to their last. The end of them may be missing.
    pub trusted: Servers,
    /// The clock can be told from the lines: none of those is missing that could show that it was set back.
    pub knows_clock: bool,
    /// What is known of lines that are not there.
    pub known: Known<'a>,
    /// Each server's lines, in order, life after life.
    pub by_server: BTreeMap<Server, Vec<usize>>,
    pub prepares: BTreeMap<Ballot, Vec<usize>>,
    /// What each PROMISE says, by the acceptor's server.
    pub promises: BTreeMap<(Ballot, Server), Vec<Report>>,
    pub accepts: BTreeMap<(Slot, Ballot), Vec<usize>>,
    pub accepted: BTreeMap<(Slot, Ballot), Servers>,
    pub chosen: BTreeMap<Slot, Vec<usize>>,
    pub learns: BTreeMap<Slot, Vec<usize>>,
    pub findings: Vec<Finding>,
    pub counts: Counts,
}

/// The value of a slot, as lines tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told<'a> {
    pub op: Op,
    pub key: Option<&'a Text>,
    pub value: Option<&'a Text>,
    pub if_version: Option<u64>,
    /// The command's label; a line about a no-op may carry the label of the request that it was made for.
    pub req: Option<&'a str>,
}

impl<'a> Told<'a> {
    /// The value that an ACCEPT or LEARN line is about.
    pub fn of(line: &'a Line) -> Option<Told<'a>> {
        let (Event::Accept { op, key, value, if_version, .. } | Event::Learn { op, key, value, if_version, .. }) =
            &line.event
        else {
            return None;
        };
        let labelled = !matches!(op, Op::Noop | Op::Unreadable);
        let req = line.req.as_deref().filter(|_| labelled);
        Some(Told { op: *op, key: key.as_ref(), value: value.as_ref(), if_version: *if_version, req })
    }
}

impl<'a> Case<'a> {
    pub fn new(run: &'a Run) -> Case<'a> {
        let mut case = Case {
            run,
            cluster: Servers::NONE,
            trusted: Servers::NONE,
            knows_clock: true,
            known: Known::new(run),
            by_server: run.by_server(),
            prepares: BTreeMap::new(),
            promises: BTreeMap::new(),
            accepts: BTreeMap::new(),
            accepted: BTreeMap::new(),
            chosen: BTreeMap::new(),
            learns: BTreeMap::new(),
            findings: Vec::new(),
            counts: Counts::default(),
        };
        for (at, entry) in run.lines.iter().enumerate() {
            let Some(server) = entry.line.id.process.as_server() else { continue };
            match &entry.line.event {
                Event::Prepare { ballot, .. } => case.prepares.entry(*ballot).or_default().push(at),
                Event::Accept { slot, ballot, .. } => case.accepts.entry((*slot, *ballot)).or_default().push(at),
                Event::Accepted { slot, ballot, .. } => {
                    case.accepted.entry((*slot, *ballot)).or_default().insert(server);
                }
                Event::Chosen { slot, .. } => case.chosen.entry(*slot).or_default().push(at),
                Event::Learn { slot, .. } => case.learns.entry(*slot).or_default().push(at),
                _ => {}
            }
        }
        case
    }

    /// Whether so many servers are a majority.
    pub fn is_majority(&self, servers: Servers) -> bool {
        servers.and(self.cluster).len() * 2 > self.cluster.len()
    }

    /// A rule is broken.
    pub fn violated(&mut self, rule: Rule, lines: &[usize], says: String) {
        self.findings.push(Finding { rule, verdict: Verdict::Violated, says, lines: lines.to_vec() });
    }

    /// A rule cannot be held against the lines.
    pub fn unproven(&mut self, rule: Rule, lines: &[usize], says: String) {
        self.findings.push(Finding { rule, verdict: Verdict::Unproven, says, lines: lines.to_vec() });
    }

    /// A claim, the last of these lines, rests on a line of each of these servers, and it is not there. That is an
    /// accusation if all is there that one of them had written by then.
    pub fn missing(&mut self, rule: Rule, of: Servers, lines: &[usize], says: String) {
        let open = self.not_all_there(of, lines);
        if open == of {
            self.unproven(rule, lines, format!("{says} ({})", self.gone(open)));
        } else {
            self.violated(rule, lines, says);
        }
    }

    /// A claim rests on a line of some server or other, and there is none.
    pub fn missing_anywhere(&mut self, rule: Rule, lines: &[usize], says: String) {
        let open = self.not_all_there(self.cluster, lines);
        if open.is_empty() && !self.cluster.is_empty() {
            self.violated(rule, lines, says);
        } else {
            self.unproven(rule, lines, format!("{says} ({})", self.gone(open)));
        }
    }

    /// Those of the servers of which lines may be missing that they wrote before the last of these.
    pub fn not_all_there(&mut self, of: Servers, lines: &[usize]) -> Servers {
        let Some(claim) = lines.last() else { return of };
        of.iter().filter(|server| !self.known.has_all_before(*server, *claim)).collect()
    }

    /// What is missing, for people.
    pub fn gone(&self, of: Servers) -> String {
        let with_gaps = of.without(self.trusted);
        if with_gaps.is_empty() {
            format!("the last lines of {of} may be missing: no STOP ends them, and none of them is known to be later")
        } else {
            format!("lines of {with_gaps} are missing")
        }
    }

    /// The value proposed in a slot at a ballot, if a line tells it.
    pub fn proposed(&self, slot: Slot, ballot: Ballot) -> Option<(usize, Told<'a>)> {
        let at = *self.accepts.get(&(slot, ballot))?.first()?;
        Some((at, Told::of(self.run.line(at))?))
    }

    /// Whether the line asks for proof: not if what proves it may have been read too early.
    pub fn is_claim(&self, at: usize) -> bool {
        !self.run.lines[at].late
    }
}
