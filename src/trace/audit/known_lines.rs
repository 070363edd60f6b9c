//! What is known of the lines that are not there: of a process whose lines are all here, up to a moment, a line that is
//! not among them was never written. Only that makes an accusation of something that is missing.
//!
//! Lines of a process are numbered from 1, so what is missing at the front or in the middle shows. Its end does not: a
//! log that was cut looks like a process that was killed. A process is heard to its end if it wrote STOP; and to a
//! moment if it has heard of that moment since, directly or through others, which `re=` tells (Lamport, Time, Clocks,
//! and the Ordering of Events in a Distributed System).

use std::collections::BTreeMap;

use super::super::event::Event;
use super::super::line::{LineId, ProcessId};
use super::super::parse::Run;
use crate::role::ServerId;

/// The lines of each process, and what is known of those that are missing.
pub(super) struct KnownLines<'a> {
    run: &'a Run,
    processes: BTreeMap<&'a ProcessId, ProcessLines>,
    /// How far each process was heard of by another one, as far as that was asked for.
    heard: BTreeMap<&'a ProcessId, BTreeMap<&'a ProcessId, u64>>,
}

/// The lines of a process.
struct ProcessLines {
    /// In the order in which they were written.
    at: Vec<usize>,
    /// They begin with its first, none is missing between them, and they show the steps of the protocol.
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
        KnownLines { run, processes, heard: BTreeMap::new() }
    }

    /// Whether the lines of a process begin with its first and show all that it did, as far as they go.
    pub fn is_whole(&self, process: &ProcessId) -> bool {
        self.processes.get(process).is_some_and(|lines| lines.is_whole)
    }

    /// The line of this name, if it is here.
    pub fn line(&self, id: &LineId) -> Option<usize> {
        let lines = &self.processes.get(&id.process)?.at;
        lines.binary_search_by_key(&id.n, |at| self.run.line(*at).id.n).ok().map(|found| lines[found])
    }

    /// Whether all lines of a server are there, from its first to the STOP of its last life.
    pub fn has_all(&self, server: ServerId) -> bool {
        self.lives(server).is_some_and(|lives| {
            lives.iter().all(|life| self.processes.get(life).is_some_and(|lines| lines.is_whole && lines.is_over))
        })
    }

    /// Whether all is there that a server wrote before this line: what it has no line of it had not done by then. A
    /// life that has heard of the line was later, and so are all lives behind it.
    pub fn has_all_before(&mut self, server: ServerId, at: usize) -> bool {
        let run = self.run;
        let moment = &run.line(at).id;
        for life in self.lives(server).unwrap_or_default() {
            let Some(ProcessLines { is_whole: true, is_over, .. }) = self.processes.get(life) else { return false };
            let is_over = *is_over;
            if self.recipients(life).get(&moment.process).is_some_and(|heard| moment.n <= *heard) {
                return true;
            }
            if !is_over {
                return false;
            }
        }
        self.lives(server).is_some()
    }

    /// The lives of a server, if there is one and none is missing before the last.
    fn lives(&self, server: ServerId) -> Option<Vec<&'a ProcessId>> {
        let lives: Vec<&'a ProcessId> =
            self.processes.keys().copied().filter(|process| process.as_server() == Some(server)).collect();
        let in_a_row = lives.iter().zip(1..).all(|(process, life)| process.life() == life);
        (in_a_row && !lives.is_empty()).then_some(lives)
    }

    /// Of each process the last line of which this one has heard before its own last line.
    fn recipients(&mut self, process: &'a ProcessId) -> &BTreeMap<&'a ProcessId, u64> {
        let (run, processes) = (self.run, &self.processes);
        self.heard.entry(process).or_insert_with(|| {
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
