//! Known lines: decides up to which moment all lines of a process are present. Up to that moment, a line that is absent
//! was never written. Only then can its absence be a violation.
//!
//! Lines of a process are numbered from 1, so a gap at the front or in the middle is visible. A missing end is not: a
//! truncated log looks like that of a killed process. A process is complete if it wrote STOP. It is complete up to a
//! moment if a later line of it follows from that moment, directly or through other processes. The parents (`re=`) show
//! this (Lamport, Time, Clocks, and the Ordering of Events in a Distributed System).

use std::collections::BTreeMap;

use super::super::event::Event;
use super::super::line::{LineId, ProcessId};
use super::super::parse::Run;
use crate::role::ServerId;

/// The lines of each process, and what is known about missing ones.
pub(super) struct KnownLines<'a> {
    run: &'a Run,
    processes: BTreeMap<&'a ProcessId, ProcessLines>,
    /// For each process, the last line of every other process that its lines follow from. Filled on demand.
    received_from: BTreeMap<&'a ProcessId, BTreeMap<&'a ProcessId, u64>>,
}

/// The lines of a process.
struct ProcessLines {
    /// Their indices, in the order in which they were written.
    at: Vec<usize>,
    /// They begin with line 1, have no gap, and include the steps of the protocol.
    is_whole: bool,
    /// The last one is STOP.
    is_over: bool,
}

impl<'a> KnownLines<'a> {
    pub fn new(run: &'a Run) -> KnownLines<'a> {
        let lines = |at: Vec<usize>| {
            let counts = at.iter().zip(1..).all(|(at, n)| run.line(*at).id.n == n);
            let lost = at.iter().any(|at| matches!(run.line(*at).event, Event::Lost { .. }));
            let mut boots = at.iter().filter_map(|at| match &run.line(*at).event {
                Event::Boot { steps, .. } => Some(steps.as_ref().is_none_or(|steps| steps.as_str() == Some("on"))),
                _ => None,
            });
            let shows_steps = boots.next() == Some(true) && boots.all(|shows| shows);
            let is_over = at.last().is_some_and(|at| matches!(run.line(*at).event, Event::Stop { .. }));
            ProcessLines { at, is_whole: counts && !lost && shows_steps, is_over }
        };
        let processes = run.by_process().into_iter().map(|(process, at)| (process, lines(at))).collect();
        KnownLines { run, processes, received_from: BTreeMap::new() }
    }

    /// Whether the lines of a process begin with its first and show all that it did, as far as they go.
    pub fn is_whole(&self, process: &ProcessId) -> bool {
        self.processes.get(process).is_some_and(|lines| lines.is_whole)
    }

    /// The index of the line with this id, if it is present.
    pub fn line(&self, id: &LineId) -> Option<usize> {
        let lines = &self.processes.get(&id.process)?.at;
        lines.binary_search_by_key(&id.n, |at| self.run.line(*at).id.n).ok().map(|found| lines[found])
    }

    /// Whether all lines of a server are present, from its first to the STOP of its last incarnation.
    pub fn has_all(&self, server: ServerId) -> bool {
        self.incarnations(server).is_some_and(|lives| {
            lives.iter().all(|life| self.processes.get(life).is_some_and(|lines| lines.is_whole && lines.is_over))
        })
    }

    /// Whether all lines that a server wrote before this line are present; an action without a line had then not
    /// happened. An incarnation that has received the line, directly or indirectly, is later, and so are all following
    /// incarnations.
    pub fn has_all_before(&mut self, server: ServerId, at: usize) -> bool {
        let run = self.run;
        let moment = &run.line(at).id;
        for life in self.incarnations(server).unwrap_or_default() {
            let Some(ProcessLines { is_whole: true, is_over, .. }) = self.processes.get(life) else { return false };
            let is_over = *is_over;
            if self.last_received(life).get(&moment.process).is_some_and(|heard| moment.n <= *heard) {
                return true;
            }
            if !is_over {
                return false;
            }
        }
        self.incarnations(server).is_some()
    }

    /// The incarnations of a server, if there is one and none is missing before the last.
    fn incarnations(&self, server: ServerId) -> Option<Vec<&'a ProcessId>> {
        let incarnations: Vec<&'a ProcessId> =
            self.processes.keys().copied().filter(|process| process.as_server() == Some(server)).collect();
        let in_a_row = incarnations.iter().zip(1..).all(|(process, life)| process.incarnation() == life);
        (in_a_row && !incarnations.is_empty()).then_some(incarnations)
    }

    /// For each process, the last of its lines that precedes the last line of this process, by `re=`.
    fn last_received(&mut self, process: &'a ProcessId) -> &BTreeMap<&'a ProcessId, u64> {
        let (run, processes) = (self.run, &self.processes);
        self.received_from.entry(process).or_insert_with(|| {
            let mut heard: BTreeMap<&ProcessId, u64> = BTreeMap::new();
            let last = processes.get(process).and_then(|lines| lines.at.last());
            let mut open: Vec<_> = last.map(|at| (process, run.line(*at).id.n)).into_iter().collect();
            while let Some((process, n)) = open.pop() {
                let before = heard.insert(process, n).unwrap_or(0);
                if before >= n {
                    heard.insert(process, before);
                    continue;
                }
                let Some(lines) = processes.get(process) else { continue };
                let from = lines.at.partition_point(|at| run.line(*at).id.n <= before);
                let new = lines.at[from..].iter().map(|at| run.line(*at)).take_while(|line| line.id.n <= n);
                open.extend(new.filter_map(|line| line.parent.as_ref()).map(|re| (&re.process, re.n)));
            }
            heard
        })
    }
}
