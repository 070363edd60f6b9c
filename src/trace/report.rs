//! Requirements report: for each requirement, whether a run shows it and which lines show it. For a requirement that
//! lines cannot show, it names the place to look.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use jiff::Timestamp;

use super::audit::{Rules, rules_of};
use super::event::Event;
use super::line::Speaker;
use super::parse::Run;
use super::request_spans::{Outage, RequestSpan, outages, request_spans};
use super::values::{OpKind, RecoveredFrom, RequestStatus};
use crate::role::ServerSet;

/// Whether a run shows a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointStatus {
    /// The named lines show it.
    Shown,
    /// This run does not show it.
    NotShown,
    /// Lines cannot show it.
    Elsewhere,
}

/// One requirement and its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequirementResult {
    /// Short name, such as `G4`.
    pub name: &'static str,
    /// The requirement in words.
    pub requirement: &'static str,
    /// Whether the run shows it.
    pub status: PointStatus,
    /// What the lines show, what is missing, or where to look.
    pub message: String,
    /// Lines that show it, by their index in the run.
    pub lines: Vec<usize>,
}

/// Ok: a sentence and the lines that show it. Err: a sentence that says what is missing.
type PointResult = Result<(String, Vec<usize>), String>;

/// The results of all requirements for one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The requirements, in the order of their names.
    pub points: Vec<RequirementResult>,
}

impl Report {
    /// Checks every requirement.
    pub fn new(run: &Run) -> Report {
        let view = RunView::new(run);
        let point = |name, asks, found: PointResult| match found {
            Ok((says, lines)) => {
                RequirementResult { name, requirement: asks, status: PointStatus::Shown, message: says, lines }
            }
            Err(says) => RequirementResult {
                name,
                requirement: asks,
                status: PointStatus::NotShown,
                message: says,
                lines: Vec::new(),
            },
        };
        let elsewhere = |name, asks, says: &str| {
            let says = says.to_string();
            RequirementResult {
                name,
                requirement: asks,
                status: PointStatus::Elsewhere,
                message: says,
                lines: Vec::new(),
            }
        };
        let points = vec![
            point("G1", "five server processes and a scripted client", view.processes()),
            point(
                "G2",
                "each line has time, server and role; protocol lines have slot, ballot and peers",
                view.steps(),
            ),
            point(
                "G3",
                "pre-population, then 5 PUT, 5 GET and 5 DELETE over all servers, then a re-read",
                view.workload(),
            ),
            point("G4", "an acceptor fails and restarts while requests are served", view.acceptor_outage()),
            point("G5", "without a majority requests wait or time out, and later ones proceed", view.no_majority()),
            point("G6", "all roles fail and restart", view.all_roles()),
            point("G7", "malformed input is logged and does no harm", view.malformed()),
            point("G8", "two clients change one key at the same time", view.concurrent()),
            point("G9", "at the end all replicas are equal", view.digests()),
            elsewhere(
                "G10",
                "commands and requirements are documented",
                "README.md: quick start, and the table from requirement to command to line",
            ),
            elsewhere(
                "R5",
                "leaders and live-lock are discussed",
                "src/paxos/mod.rs (the essay) and src/paxos/policy.rs",
            ),
            elsewhere(
                "R8",
                "the lines make clear how Paxos overcomes failures",
                "read the lines of one request: ./run_server.sh logs --req c1-5",
            ),
        ];
        Report { points }
    }

    /// The report as readable text, with at most `lines` lines for each requirement.
    pub fn explain<'a>(&'a self, run: &'a Run, lines: usize) -> impl Display + 'a {
        ReportText { report: self, run, lines }
    }
}

struct ReportText<'a> {
    report: &'a Report,
    run: &'a Run,
    lines: usize,
}

impl Display for ReportText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for RequirementResult { name, requirement: asks, status: mark, message: says, lines } in &self.report.points {
            let mark = match mark {
                PointStatus::Shown => "[x]",
                PointStatus::NotShown => "[ ]",
                PointStatus::Elsewhere => "-->",
            };
            writeln!(f, "{mark} {name:<3} {asks}")?;
            writeln!(f, "        {says}")?;
            for at in lines.iter().take(self.lines) {
                let entry = &self.run.lines[*at];
                writeln!(f, "        {}:{}: {}", entry.file, entry.number, entry.line)?;
            }
        }
        let count = |mark| self.report.points.iter().filter(|point| point.status == mark).count();
        let (shown, not) = (count(PointStatus::Shown), count(PointStatus::NotShown));
        writeln!(f, "{shown} points shown, {not} not shown by this run")
    }
}

/// A stage of a client's script: its STAGE line and its time.
#[derive(Clone, Copy)]
struct ClientPhase {
    line: usize,
    from: Timestamp,
    to: Timestamp,
}

/// The run, with indexes that several checks use.
struct RunView<'a> {
    run: &'a Run,
    cluster: ServerSet,
    requests: Vec<RequestSpan<'a>>,
    outages: Vec<Outage>,
    phases: BTreeMap<String, ClientPhase>,
    /// Two-phase commit, not Paxos.
    is_two_phase: bool,
}

impl<'a> RunView<'a> {
    fn new(run: &'a Run) -> RunView<'a> {
        let clusters = run.lines.iter().filter_map(|entry| match entry.line.event {
            Event::Boot { cluster, .. } => Some(cluster),
            _ => None,
        });
        let cluster = clusters.max_by_key(|cluster| cluster.len()).unwrap_or_default();
        RunView {
            run,
            cluster,
            requests: request_spans(run),
            outages: outages(run),
            phases: phases(run),
            is_two_phase: rules_of(run) == Rules::TwoPhaseCommit,
        }
    }

    fn find(&self, fits: impl Fn(&Event) -> bool) -> Option<usize> {
        (0..self.run.lines.len()).find(|at| fits(&self.run.line(*at).event))
    }

    fn time(&self, at: usize) -> Timestamp {
        self.run.line(at).time
    }

    /// The requests that began in a stage.
    fn in_phase(&self, phase: ClientPhase) -> impl Iterator<Item = &RequestSpan<'a>> {
        self.requests.iter().filter(move |span| (phase.from..phase.to).contains(&self.time(span.request)))
    }

    fn status(&self, span: &RequestSpan<'_>) -> Option<RequestStatus> {
        match self.run.line(span.reply?).event {
            Event::Response { status, .. } | Event::Timeout { status, .. } => Some(status),
            _ => None,
        }
    }

    fn processes(&self) -> PointResult {
        let mut boots = BTreeMap::new();
        for (at, entry) in self.run.lines.iter().enumerate() {
            if let (Event::Boot { .. }, Some(server)) = (&entry.line.event, entry.line.id.process.as_server()) {
                boots.entry(server).or_insert(at);
            }
        }
        if boots.len() < 5 {
            return Err(format!("only {} servers have a BOOT line", boots.len()));
        }
        let first = self.requests.first().ok_or("no client has sent a request")?;
        let lines = boots.values().copied().chain([first.request]).collect();
        Ok((format!("{} servers have started, and a client has sent requests", boots.len()), lines))
    }

    fn steps(&self) -> PointResult {
        let paxos = ["PREPARE", "PROMISE", "ACCEPT", "ACCEPTED", "CHOSEN", "LEARN"].as_slice();
        let names = if self.is_two_phase { ["VOTEREQ", "VOTE", "DECIDE", "ACK"].as_slice() } else { paxos };
        let lines: Vec<usize> = names.iter().filter_map(|name| self.find(|event| event.name() == *name)).collect();
        if lines.len() < names.len() {
            return Err("not every step of the protocol has a line; were the servers started with --steps on?".into());
        }
        Ok((format!("all {} lines have this form; one of each step:", self.run.lines.len()), lines))
    }

    fn workload(&self) -> PointResult {
        let phase = |name: &str| self.phases.get(name).copied().ok_or(format!("there is no STAGE name={name}"));
        let (before, at_work, after) = (phase("prepopulate")?, phase("operations")?, phase("readback")?);
        let is_answered = |span: &&RequestSpan<'_>| self.status(span) == Some(RequestStatus::Ok);
        let populated = self.in_phase(before).filter(|span| span.op == OpKind::Put).filter(is_answered).count();
        if populated == 0 {
            return Err("no PUT succeeded in the pre-population".into());
        }
        for op in [OpKind::Put, OpKind::Get, OpKind::Delete] {
            let ended = self.in_phase(at_work).filter(|span| span.op == op && span.reply.is_some()).count();
            if ended < 5 {
                return Err(format!("only {ended} {} requests have ended, 5 are needed", op.as_str()));
            }
        }
        // The server tried first: if its roles are down, the client may have failed over to the next server.
        let asked = |span: &RequestSpan<'_>| match self.run.line(span.request).event {
            Event::Request { to, .. } => to,
            _ => None,
        };
        let servers: ServerSet = self.in_phase(at_work).filter_map(asked).collect();
        if !self.cluster.without(servers).is_empty() {
            return Err(format!("no operation was sent to {}", self.cluster.without(servers)));
        }
        let reread = self.in_phase(after).filter(|span| span.op == OpKind::Get && span.reply.is_some()).count();
        if reread == 0 {
            return Err("no key was read again at the end".into());
        }
        let total = self.in_phase(at_work).count();
        let says =
            format!("{populated} keys written first, {total} operations sent to {servers}, {reread} reads at the end");
        Ok((says, vec![before.line, at_work.line, after.line]))
    }

    /// The time between the first and the last request; of the stage `operations`, if there is one.
    fn workload_time(&self) -> Option<(Timestamp, Timestamp)> {
        let all = ClientPhase { line: 0, from: Timestamp::MIN, to: Timestamp::MAX };
        let phase = self.phases.get("operations").copied().unwrap_or(all);
        let first = self.in_phase(phase).map(|span| self.time(span.request)).min()?;
        let last = self.in_phase(phase).filter_map(|span| Some(self.time(span.reply?))).max()?;
        Some((first, last))
    }

    fn acceptor_outage(&self) -> PointResult {
        let (first, last) = self.workload_time().ok_or("no client has sent a request")?;
        let during = |outage: &&Outage| {
            outage.role == self.voter()
                && self.time(outage.crash) >= first
                && outage.restart.is_some_and(|restart| self.time(restart) <= last)
        };
        let found: Vec<&Outage> = self.outages.iter().filter(during).collect();
        let voter = self.voter().as_str();
        let none = format!("no {voter} crashed and restarted between the first operation and the last");
        let outage = found.first().ok_or(none)?;
        let lines: Vec<usize> = [Some(outage.crash), outage.restart].into_iter().flatten().collect();
        let survived = match lines.last().map(|at| &self.run.line(*at).event) {
            Some(Event::Restart { recovered: RecoveredFrom::Nothing, .. }) => "UNSAFE: without their data",
            _ => "with their data from disk",
        };
        Ok((format!("{voter}s crashed and restarted {} times, {survived}", found.len()), lines))
    }

    fn no_majority(&self) -> PointResult {
        let without = self.times_without_majority();
        if without.is_empty() {
            let enough = if self.is_two_phase { "every participant" } else { "a majority of acceptors" };
            return Err(format!("{enough} was up at all times"));
        }
        let shown = without.into_iter().find_map(|(from, to, crash)| {
            let victim = self.requests.iter().find(|span| self.fails_in(span, from, to))?;
            let later =
                |span: &&RequestSpan<'_>| self.time(span.request) > to && self.status(span) == Some(RequestStatus::Ok);
            let later = self.requests.iter().find(later)?;
            let lines = [Some(crash), Some(victim.request), victim.reply, Some(later.request), later.reply];
            Some(lines.into_iter().flatten().collect())
        });
        let lines = shown.ok_or_else(|| {
            let voter = self.voter().as_str();
            format!(
                "at times too few {voter}s were up, but no request was delayed by that before a later one succeeded"
            )
        })?;
        let says = match self.is_two_phase {
            true => "without all participants a request waited or timed out, and later ones proceeded",
            false => "without a majority a request waited or timed out, and later ones proceeded",
        };
        Ok((says.into(), lines))
    }

    /// The role whose replies are counted.
    fn voter(&self) -> Speaker {
        if self.is_two_phase { Speaker::Participant } else { Speaker::Acceptor }
    }

    /// Whether a request overlapped a time without a majority and waited until its end, or got no result.
    fn fails_in(&self, span: &RequestSpan<'_>, from: Timestamp, to: Timestamp) -> bool {
        let Some(reply) = span.reply.map(|reply| self.time(reply)) else { return false };
        let asked = self.time(span.request);
        let waited = asked > from && reply >= to;
        let failed = matches!(self.status(span), Some(RequestStatus::Unknown | RequestStatus::NotApplied));
        matches!(span.op, OpKind::Put | OpKind::Get | OpKind::Delete)
            && asked < to
            && reply > from
            && (waited || failed)
    }

    /// The times during which fewer acceptors than a majority were up: start, end, and the crash that began each.
    fn times_without_majority(&self) -> Vec<(Timestamp, Timestamp, usize)> {
        let acceptors = self.outages.iter().filter(|outage| outage.role == self.voter());
        let mut changes: Vec<(Timestamp, i32, usize)> = Vec::new();
        for outage in acceptors {
            changes.push((self.time(outage.crash), 1, outage.crash));
            changes.extend(outage.restart.map(|restart| (self.time(restart), -1, restart)));
        }
        changes.sort_unstable();
        let (mut down, mut begun, mut times) = (0, None, Vec::new());
        for (time, change, line) in changes {
            down += change;
            // Two-phase commit needs all participants.
            let too_few = (self.cluster.len() as i32 - down) * 2 <= self.cluster.len() as i32;
            let is_without = if self.is_two_phase { down > 0 } else { too_few };
            match begun {
                None if is_without => begun = Some((time, line)),
                Some((from, crash)) if !is_without => {
                    times.push((from, time, crash));
                    begun = None;
                }
                _ => {}
            }
        }
        times.extend(begun.map(|(from, crash)| (from, Timestamp::MAX, crash)));
        times
    }

    fn all_roles(&self) -> PointResult {
        let mut lines = Vec::new();
        let paxos = [Speaker::Proposer, Speaker::Acceptor, Speaker::Learner].as_slice();
        let commit = [Speaker::Coordinator, Speaker::Participant].as_slice();
        for role in if self.is_two_phase { commit } else { paxos } {
            let outage = self.outages.iter().find(|outage| outage.role == *role && outage.restart.is_some());
            let outage = outage.ok_or(format!("no {} crashed and restarted", role.as_str()))?;
            lines.extend([Some(outage.crash), outage.restart].into_iter().flatten());
        }
        Ok(("a role of each kind crashed and restarted".into(), lines))
    }

    fn malformed(&self) -> PointResult {
        // A refused greeting also has a MALFORMED line, but its bytes were valid, so its length is 0.
        let line = self
            .find(|event| matches!(event, Event::Malformed { length: 1.., .. }))
            .ok_or("no server received malformed input")?;
        Ok(("logged with its length and sender".into(), vec![line]))
    }

    fn concurrent(&self) -> PointResult {
        let mut writes: Vec<(Timestamp, Timestamp, &RequestSpan<'_>)> = Vec::new();
        for span in self.requests.iter().filter(|span| matches!(span.op, OpKind::Put | OpKind::Delete)) {
            if let Some(reply) = span.reply {
                writes.push((self.time(span.request), self.time(reply), span));
            }
        }
        writes.sort_by_key(|(from, ..)| *from);
        for (at, (_, to, span)) in writes.iter().enumerate() {
            let client = |span: &RequestSpan<'_>| &self.run.line(span.request).id.process;
            let meanwhile = writes[at + 1..].iter().take_while(|(from, ..)| from < to);
            let mut rivals = meanwhile.map(|(.., rival)| rival);
            if let Some(rival) = rivals.find(|rival| rival.key == span.key && client(rival) != client(span)) {
                let lines = [Some(span.request), Some(rival.request), span.reply, rival.reply];
                return Ok(("two writes of one key overlap".into(), lines.into_iter().flatten().collect()));
            }
        }
        Err("no two clients wrote one key at the same time".into())
    }

    fn digests(&self) -> PointResult {
        let is_agreement = |event: &Event| matches!(event, Event::Digest { equal: Some(_), of: Some(_), .. });
        let line = (0..self.run.lines.len()).rev().find(|at| is_agreement(&self.run.line(*at).event));
        let line = line.ok_or("no line compares the replicas; did the client's script end?")?;
        match self.run.line(line).event {
            Event::Digest { slot, equal: Some(equal), of: Some(of), .. } if equal == of => {
                Ok((format!("replica digest: {equal} of {of} equal, at slot {slot}"), vec![line]))
            }
            _ => Err(format!("the replicas differ: {}", self.run.line(line))),
        }
    }
}

/// Each stage lasts until the next one of the same client.
fn phases(run: &Run) -> BTreeMap<String, ClientPhase> {
    let mut phases: BTreeMap<String, ClientPhase> = BTreeMap::new();
    for lines in run.by_process().into_values() {
        let mut open: Option<String> = None;
        for at in lines {
            let line = run.line(at);
            let Event::Stage { name } = &line.event else { continue };
            if let Some(before) = open.take().and_then(|before| phases.get_mut(&before)) {
                before.to = line.time;
            }
            let name = name.as_str().unwrap_or_default().to_string();
            phases.insert(name.clone(), ClientPhase { line: at, from: line.time, to: Timestamp::MAX });
            open = Some(name);
        }
    }
    phases
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
