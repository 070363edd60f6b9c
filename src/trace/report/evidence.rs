//! What the lines of a run show of each requirement: the most telling lines, not the first ones.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::PointResult;
use crate::role::ServerSet;
use crate::trace::audit::{Rules, rules_of};
use crate::trace::event::Event;
use crate::trace::hardship::Hardship;
use crate::trace::line::Speaker;
use crate::trace::parse::Run;
use crate::trace::request_spans::{Outage, RequestSpan, outages, request_spans};
use crate::trace::values::{OpKind, RecoveredFrom, RequestStatus};

/// A stage of a client's script: its STAGE line and its time.
#[derive(Clone, Copy)]
struct ClientPhase {
    line: usize,
    from: Timestamp,
    to: Timestamp,
}

/// The run, with indexes that several checks use.
pub struct RunView<'a> {
    run: &'a Run,
    cluster: ServerSet,
    requests: Vec<RequestSpan<'a>>,
    outages: Vec<Outage>,
    phases: BTreeMap<String, ClientPhase>,
    /// Two-phase commit, not Paxos.
    is_two_phase: bool,
}

impl<'a> RunView<'a> {
    /// Reads the run.
    pub fn new(run: &'a Run) -> RunView<'a> {
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

    /// Five servers and a client.
    pub fn processes(&self) -> PointResult {
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

    /// A line of each step of the protocol.
    pub fn steps(&self) -> PointResult {
        let paxos = ["PREPARE", "PROMISE", "ACCEPT", "ACCEPTED", "CHOSEN", "LEARN"].as_slice();
        let names = if self.is_two_phase { ["VOTEREQ", "VOTE", "DECIDE", "ACK"].as_slice() } else { paxos };
        let lines: Vec<usize> = names.iter().filter_map(|name| self.find(|event| event.name() == *name)).collect();
        if lines.len() < names.len() {
            return Err("not every step of the protocol has a line; were the servers started with --steps on?".into());
        }
        Ok((format!("all {} lines have this form; one of each step:", self.run.lines.len()), lines))
    }

    /// The stages of the scripted demo.
    pub fn workload(&self) -> PointResult {
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

    /// An acceptor that was down while requests were served. Prefers an outage during which a write succeeded.
    pub fn acceptor_outage(&self) -> PointResult {
        let (first, last) = self.workload_time().ok_or("no client has sent a request")?;
        let during = |outage: &&Outage| {
            outage.role == self.voter()
                && self.time(outage.crash) >= first
                && outage.restart.is_some_and(|restart| self.time(restart) <= last)
        };
        let found: Vec<&Outage> = self.outages.iter().filter(during).collect();
        let voter = self.voter().as_str();
        let none = format!("no {voter} crashed and restarted between the first operation and the last");
        let first = found.first().ok_or(none)?;
        let served = found.iter().find_map(|outage| Some((*outage, self.write_during(outage)?)));
        let (outage, write) = served.map_or((*first, None), |(outage, write)| (outage, Some(write)));
        let survived = match outage.restart.map(|at| &self.run.line(at).event) {
            Some(Event::Restart { recovered: RecoveredFrom::Nothing, .. }) => "UNSAFE: without their data",
            _ => "with their data from disk",
        };
        let mut says = format!("{voter}s crashed and restarted {} times, {survived}", found.len());
        if let Some(label) = write.and_then(|span| self.label(span)) {
            says += &format!("; {label} succeeded while {}'s {voter} was down", outage.server);
        }
        let written = write.map(|span| [Some(span.request), span.reply]);
        let lines = [Some(outage.crash)].into_iter().chain(written.into_iter().flatten()).chain([outage.restart]);
        Ok((says, lines.flatten().collect()))
    }

    /// The first write that began and succeeded during an outage.
    fn write_during(&self, outage: &Outage) -> Option<&RequestSpan<'a>> {
        let (from, to) = (self.time(outage.crash), self.time(outage.restart?));
        let is_inside = |span: &&RequestSpan<'_>| {
            matches!(span.op, OpKind::Put | OpKind::Delete)
                && self.status(span) == Some(RequestStatus::Ok)
                && self.time(span.request) > from
                && span.reply.is_some_and(|reply| self.time(reply) < to)
        };
        self.requests.iter().find(is_inside)
    }

    fn label(&self, span: &RequestSpan<'_>) -> Option<&'a str> {
        self.run.line(span.request).req.as_deref()
    }

    /// A time without a majority, and a request that waited for its end or failed.
    pub fn no_majority(&self) -> PointResult {
        let without = self.times_without_majority();
        if without.is_empty() {
            let enough = if self.is_two_phase { "every participant" } else { "a majority of acceptors" };
            return Err(format!("{enough} was up at all times"));
        }
        let shown = without.into_iter().filter_map(|(from, to, _)| {
            // Of the requests that met this time, the one that got no result, or else waited longest.
            let met = self.requests.iter().filter(|span| self.fails_in(span, from, to));
            let victim = met.max_by_key(|span| (self.has_failed(span), self.took(span)))?;
            let later =
                |span: &&RequestSpan<'_>| self.time(span.request) > to && self.status(span) == Some(RequestStatus::Ok);
            Some((from, to, victim, self.requests.iter().find(later)?))
        });
        let voter = self.voter().as_str();
        let (from, to, victim, later) =
            shown.max_by_key(|(_, _, victim, _)| (self.has_failed(victim), self.took(victim))).ok_or_else(|| {
                format!(
                    "at times too few {voter}s were up, but no request was delayed by that before a later one succeeded"
                )
            })?;
        let down: Vec<&Outage> = self.voter_outages().filter(|outage| self.overlaps(outage, from, from)).collect();
        let mut crashes: Vec<usize> = down.iter().map(|outage| outage.crash).collect();
        crashes.sort_by_key(|crash| self.time(*crash));
        let lines = crashes
            .into_iter()
            .chain([victim.request])
            .chain(self.no_quorum_line(victim))
            .chain(victim.reply)
            .chain([later.request])
            .chain(later.reply);
        let length =
            if to == Timestamp::MAX { "until the end".to_string() } else { format!("for {:.3} s", seconds(from, to)) };
        let end = if self.has_failed(victim) {
            "got no result".to_string()
        } else {
            format!("waited {:.3} s", self.took(victim).as_secs_f64())
        };
        let says = format!(
            "{} of {} {voter}s were down at once {length}: {} {end}, and later requests succeeded",
            down.len(),
            self.cluster.len(),
            self.label(victim).unwrap_or("a request"),
        );
        Ok((says, lines.collect()))
    }

    fn voter_outages(&self) -> impl Iterator<Item = &Outage> {
        self.outages.iter().filter(|outage| outage.role == self.voter())
    }

    /// Whether a role was down at some moment from `from` to `to`.
    fn overlaps(&self, outage: &Outage, from: Timestamp, to: Timestamp) -> bool {
        self.time(outage.crash) <= to && outage.restart.is_none_or(|restart| self.time(restart) > from)
    }

    fn has_failed(&self, span: &RequestSpan<'_>) -> bool {
        matches!(self.status(span), Some(RequestStatus::Unknown | RequestStatus::NotApplied))
    }

    fn took(&self, span: &RequestSpan<'_>) -> Duration {
        let end = span.reply.map_or(self.time(span.request), |reply| self.time(reply));
        Duration::from_secs_f64(seconds(self.time(span.request), end))
    }

    /// The line in which a server or the client says that a request found no quorum.
    fn no_quorum_line(&self, span: &RequestSpan<'_>) -> Option<usize> {
        let label = self.label(span)?;
        let says = |at: &usize| {
            let line = self.run.line(*at);
            let cause = match &line.event {
                Event::Response { status: RequestStatus::NotApplied, cause: Some(cause), .. } => cause.to_string(),
                Event::Failover { cause, .. } => cause.to_string(),
                _ => return false,
            };
            line.req.as_deref() == Some(label) && (cause.contains("no quorum") || cause.contains("no-quorum"))
        };
        (0..self.run.lines.len()).find(says)
    }

    /// Where to read how failures are overcome: the request of this run that met the most.
    pub fn story(&self) -> String {
        let without = self.times_without_majority();
        let is_of_a_key = |span: &&RequestSpan<'_>| matches!(span.op, OpKind::Put | OpKind::Get | OpKind::Delete);
        let hardest = self.requests.iter().filter(is_of_a_key);
        let hardest = hardest.max_by_key(|span| self.hardship(span, &without));
        let Some((span, label)) = hardest.and_then(|span| Some((span, self.label(span)?))) else {
            return "no client has sent a request: ./run_client.sh, then ./run_server.sh logs --req c1-5".to_string();
        };
        let met = self.hardship(span, &without);
        let voter = self.voter().as_str();
        let why = match met.down {
            0 => "no request met a failure in this run".to_string(),
            1 => format!("1 {voter} was down while it ran"),
            down => format!("{down} {voter}s were down while it ran"),
        };
        format!("read the lines of {label} ({why}): ./run_server.sh logs --req {label}")
    }

    fn hardship(&self, span: &RequestSpan<'_>, without: &[(Timestamp, Timestamp, usize)]) -> Hardship {
        let Some(reply) = span.reply else { return Hardship::default() };
        let (from, to) = (self.time(span.request), self.time(reply));
        let met: Vec<&Outage> = self.voter_outages().filter(|outage| self.overlaps(outage, from, to)).collect();
        let down: ServerSet = met.iter().map(|outage| outage.server).collect();
        Hardship {
            is_without_quorum: without.iter().any(|(lost, found, _)| *lost <= to && from < *found),
            is_crash_inside: met.iter().any(|outage| self.time(outage.crash) > from),
            down: down.len(),
            took: self.took(span),
        }
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
        let failed = self.has_failed(span);
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

    /// A crash and restart of each role.
    pub fn all_roles(&self) -> PointResult {
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

    /// Malformed input.
    pub fn malformed(&self) -> PointResult {
        // A refused greeting also has a MALFORMED line, but its bytes were valid, so its length is 0.
        let line = self
            .find(|event| matches!(event, Event::Malformed { length: 1.., .. }))
            .ok_or("no server received malformed input")?;
        Ok(("logged with its length and sender".into(), vec![line]))
    }

    /// Two clients that write one key at the same time.
    pub fn concurrent(&self) -> PointResult {
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

    /// The comparison of the replicas.
    pub fn digests(&self) -> PointResult {
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

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
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
