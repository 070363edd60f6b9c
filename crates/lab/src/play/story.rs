//! The story of a game: what each step did, in sentences, and why. It is told from the log lines that the servers and
//! clients wrote, as the time line and the audit are.

use std::collections::BTreeMap;

use paxos_kv::paxos::{Ballot, Slot};
use paxos_kv::role::{RoleKind, ServerId, ServerSet};
use paxos_kv::trace::parse::Run;
use paxos_kv::trace::{
    CrashPoint, Event, LearnResult, Line, MaybeBallot, OpKind, QuotedText, RecoveredFrom, RequestStatus, Speaker,
};

use super::choice::Choice;
use super::game::{Game, Step};
use crate::sim::env::Micros;
use crate::sim::network::Endpoint;
use crate::sim::server::time_of;

/// Why something happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reason {
    /// For the reader.
    pub sentence: String,
    /// The step from which it follows.
    pub step: Option<usize>,
    /// The number of the rule in `docs/rules.md`.
    pub rule: Option<u8>,
    /// The file that carries out the rule.
    pub file: Option<&'static str>,
}

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepStory {
    /// The most important thing.
    pub sentence: String,
    /// Everything else.
    pub more: Vec<String>,
    /// Why, if there is more to say than the rule of the message itself.
    pub why: Option<Reason>,
}

/// Servers in words: `s1, s2 and s3`.
pub fn listed(servers: ServerSet) -> String {
    let names: Vec<String> = servers.iter().map(|server| server.to_string()).collect();
    match names.split_last() {
        None => "none".to_string(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

/// The lines of a game, by step.
pub struct Lines<'a> {
    by_step: BTreeMap<usize, Vec<&'a Line>>,
}

impl<'a> Lines<'a> {
    /// Sorts the lines of a run into the steps of a game.
    pub fn new(game: &Game, run: &'a Run) -> Lines<'a> {
        let begin = time_of(0);
        let mut by_step: BTreeMap<usize, Vec<&Line>> = BTreeMap::new();
        for entry in &run.lines {
            let time = entry.line.time.duration_since(begin).as_micros().max(0) as Micros;
            by_step.entry(game.table.step_at(time)).or_default().push(&entry.line);
        }
        by_step.values_mut().for_each(|lines| lines.sort_by_key(|line| line.time));
        Lines { by_step }
    }

    fn of(&self, step: usize) -> &[&'a Line] {
        self.by_step.get(&step).map_or(&[], Vec::as_slice)
    }

    /// The first step after which an acceptor had promised this ballot; 0 if that was in the set-up.
    fn step_of_promise(&self, server: ServerId, ballot: Ballot) -> Option<usize> {
        let promises = |line: &&Line| {
            line.id.process.as_server() == Some(server)
                && matches!(&line.event, Event::Promise { ballot: one, .. } | Event::Accepted { ballot: one, .. } if *one == ballot)
        };
        self.by_step.iter().find(|(_, lines)| lines.iter().any(promises)).map(|(step, _)| *step)
    }
}

/// Tells every step of a game.
pub fn tell(game: &Game, run: &Run) -> Vec<StepStory> {
    let lines = Lines::new(game, run);
    game.steps.iter().enumerate().map(|(at, step)| tell_step(game, &lines, at, step)).collect()
}

fn tell_step(game: &Game, lines: &Lines<'_>, at: usize, step: &Step) -> StepStory {
    let Some(number) = step.number else {
        let why = step.skipped.clone().unwrap_or_default();
        return StepStory { sentence: format!("This choice does not fit here: {why}."), ..StepStory::default() };
    };
    let mut told: Vec<(usize, String, Option<Reason>)> = Vec::new();
    for line in lines.of(number) {
        if let Some(sentence) = line_sentence(line) {
            told.push((weight(step, line), sentence, reason(game, lines, at, line)));
        }
    }
    told.sort_by_key(|(weight, ..)| *weight);
    let mut sentences: Vec<String> = Vec::new();
    let mut why = None;
    if let Some(lost) = &step.lost {
        sentences.push(format!("It is lost: {lost}."));
    }
    if let Some(after) = &step.after {
        sentences.push(after.clone());
    }
    for (_, sentence, reason) in told {
        why = why.or(reason);
        sentences.push(sentence);
    }
    if step.lost_on_cuts > 0 {
        sentences.push(format!("{} messages are lost at once, because their link is cut.", step.lost_on_cuts));
    }
    let mut sentences = sentences.into_iter();
    let sentence = sentences.next().unwrap_or_else(|| quiet_sentence(step));
    StepStory { sentence, more: sentences.collect(), why }
}

/// Lines of the receiver come first, and within them what is rare.
fn weight(step: &Step, line: &Line) -> usize {
    let place = match step.choice {
        Choice::Deliver(name) => Some(name.to),
        Choice::Timer(server, ..) | Choice::Crash(server, ..) | Choice::Restart(server, _) => {
            Some(Endpoint::Server(server))
        }
        Choice::Timeout(client) | Choice::Ask(client) => Some(Endpoint::Client(client)),
        _ => None,
    };
    let is_there = match place {
        None => true,
        Some(Endpoint::Server(server)) => line.id.process.as_server() == Some(server),
        Some(Endpoint::Client(client)) => line.id.process.to_string() == format!("c{}", client + 1),
    };
    let rank = match &line.event {
        Event::Crash { .. } | Event::Restart { .. } => 0,
        Event::Lead { .. } | Event::Stepdown { .. } => 1,
        Event::Accept { .. } | Event::Retry { .. } | Event::Nack { .. } | Event::Decide { .. } => 2,
        Event::Chosen { .. } => 3,
        Event::Prepare { .. } | Event::Response { .. } | Event::VoteReq { .. } => 4,
        Event::Request { .. } => 8,
        // What a server's own acceptor answers comes behind what its proposer asks.
        Event::Promise { .. } | Event::Accepted { .. } | Event::Vote { .. } => 5,
        _ => 6,
    };
    rank + if is_there { 0 } else { 20 }
}

/// What a step did that no line tells.
fn quiet_sentence(step: &Step) -> String {
    match step.choice {
        Choice::Deliver(name) => format!("{} takes the {}; nothing else follows.", name.to, name.name),
        Choice::Drop(name) => format!("The {} from {} to {} is lost.", name.name, name.from, name.to),
        Choice::Double(name) => format!("The {} from {} to {} is there twice now.", name.name, name.from, name.to),
        Choice::Timer(server, role, name) => format!("{server}'s {}: the timer {name} runs out.", role.as_str()),
        Choice::Timeout(client) => format!("c{} waits no longer.", client + 1),
        Choice::Ask(client) => format!("c{} makes its request.", client + 1),
        Choice::Crash(server, role, _) => {
            format!("{server}'s {} will crash in its next turn.", role.as_str())
        }
        Choice::Restart(server, role) => format!("{server}'s {} starts again.", role.as_str()),
        Choice::Kill(server) => format!("The process of {server} ends. What is on its disk stays."),
        Choice::PowerCut(server) => format!("The machine of {server} loses power. What was synced stays."),
        Choice::Start(server) => format!("{server} starts again, with what is on its disk."),
        Choice::Cut(one, other) => {
            format!("The link between {one} and {other} is cut: what is under way waits, what is sent now is lost.")
        }
        Choice::Join(one, other) => format!("The link between {one} and {other} works again."),
    }
}

fn value_of(value: &Option<QuotedText>, op: OpKind) -> String {
    let other = match op {
        OpKind::Noop => "a no-op",
        OpKind::Open => "a new session",
        other => other.as_str(),
    };
    value.as_ref().and_then(|value| value.as_str()).unwrap_or(other).to_string()
}

/// A line in a sentence; None for lines that say nothing to a reader here.
fn line_sentence(line: &Line) -> Option<String> {
    let who = match line.id.process.as_server() {
        Some(server) => server.to_string(),
        None => line.id.process.to_string(),
    };
    let role = match line.role {
        Speaker::Server | Speaker::Client => who.clone(),
        other => format!("{who}'s {}", other.as_str()),
    };
    let because = line.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
    Some(match &line.event {
        Event::Prepare { ballot, to, .. } => {
            format!("{role} starts ballot {ballot} and asks {} for promises.", listed(*to))
        }
        Event::Promise { ballot, accepted, .. } => {
            let slots = accepted.first.iter().map(|(slot, at)| format!("slot {slot} at {at}"));
            let slots: Vec<String> = slots.collect();
            match slots.as_slice() {
                [] => format!("{role} promises {ballot}, and reports that it has accepted nothing."),
                _ => format!("{role} promises {ballot}, and reports what it has accepted: {}.", slots.join(", ")),
            }
        }
        Event::Nack { ballot, promised, .. } => format!("{role} refuses {ballot}: it has promised {promised}."),
        Event::Accept { slot, ballot, op, value, adopted: MaybeBallot(adopted), .. } => {
            let value = value_of(value, *op);
            match adopted {
                Some(at) => {
                    format!("{role} must propose {value} in slot {slot} at {ballot}: a promise reported it at {at}.")
                }
                None => format!("{role} proposes {value} in slot {slot} at {ballot}."),
            }
        }
        Event::Accepted { slot, ballot, .. } => {
            format!("{role} accepts slot {slot} at {ballot}; the vote is on its disk before it answers.")
        }
        Event::Chosen { slot, ballot, quorum, .. } => {
            format!("{role} has counted the votes of {}: slot {slot} is chosen at {ballot}.", listed(*quorum))
        }
        Event::Learn { slot, op, value, result, .. } => match result {
            LearnResult::Duplicate { first } => format!(
                "{role} applies slot {slot}, and changes nothing: the write was applied in slot {first} already."
            ),
            _ => format!("{role} applies {} in slot {slot}.", value_of(value, *op)),
        },
        Event::Retry { ballot, next_round, .. } => {
            format!("{role} gives up {ballot}, and will try again in round {next_round} or later{because}.")
        }
        Event::Crash { point, .. } => match point {
            Some(CrashPoint::BeforeSync) => {
                format!("{role} crashes after its step, before its records are on the disk.")
            }
            Some(CrashPoint::BeforeSend) => {
                format!("{role} crashes when its records are on the disk, before it answers.")
            }
            Some(CrashPoint::BeforeStep) | None => format!("{role} crashes."),
        },
        Event::Restart { recovered, .. } => match recovered {
            RecoveredFrom::Nothing => format!("{role} restarts with an empty disk: its promises and votes are lost."),
            _ => format!("{role} restarts, and recovers what is on its disk."),
        },
        Event::Drop { msg, .. } => format!("{role} does not get the {msg}{because}."),
        Event::Request { op, value, key, to: None, .. } => {
            let key = key.as_ref().map_or(String::new(), |key| format!(" {key}"));
            let value = value.as_ref().map_or(String::new(), |value| format!(" {value}"));
            format!("{who} takes the request {}{key}{value}.", op.as_str())
        }
        Event::Request { op, to: Some(to), .. } => format!("{who} sends its {} to {to}.", op.as_str()),
        Event::Response { status, value, server, .. } => {
            let value = value.as_ref().map_or(String::new(), |value| format!(", {value}"));
            match server {
                Some(server) => format!("{who} hears from {server}: {}{value}.", status_words(*status)),
                None => format!("{who} replies to the client: {}{value}{because}.", status_words(*status)),
            }
        }
        Event::Failover { from, to, .. } => {
            format!("{who} waits for {from} no longer, and sends the same request to {to}.")
        }
        Event::Timeout { status, .. } => format!("{who} ends its request: {}.", status_words(*status)),
        Event::Forward { to, .. } => format!("{role} forwards the command to {to}, which leads."),
        Event::Lead { ballot, quorum, .. } => {
            format!("{role} leads at {ballot}: {} have promised it for all later slots.", listed(*quorum))
        }
        Event::Stepdown { ballot, .. } => format!("{role} no longer leads at {ballot}{because}."),
        Event::Catchup { from, to, .. } => format!("{role} lacks slot {from}, and asks {to} for it."),
        Event::Fill { slot, .. } => format!("{role} asks the proposers to get every slot up to {slot} chosen."),
        Event::Snapshot { slot, from: Some(from), .. } => {
            format!("{role} installs the whole state of {from}, as of slot {slot}.")
        }
        Event::Snapshot { slot, from: None, .. } => format!("{who} writes a checkpoint as of slot {slot}."),
        Event::Truncate { below } => format!("{role} drops the slots below {below}: the checkpoint has them."),
        Event::Violation { .. } => format!("{role} finds a contradiction{because}."),
        _ => return commit_sentence(&line.event, &role),
    })
}

/// A line of two-phase commit in a sentence.
fn commit_sentence(event: &Event, role: &str) -> Option<String> {
    Some(match event {
        Event::VoteReq { tx, to, .. } => format!("{role} asks {} to vote on transaction {tx}.", listed(*to)),
        Event::Vote { tx, vote, .. } => format!("{role} votes {} on transaction {tx}.", vote.as_str()),
        Event::Decide { tx, decision, .. } => format!("{role} decides transaction {tx}: {}.", decision.as_str()),
        Event::Ack { tx, .. } => format!("{role} commits transaction {tx}, and releases its lock."),
        Event::Aborted { tx } => format!("{role} aborts transaction {tx}, and releases its lock."),
        Event::GiveUp { tx, .. } => format!("{role} promises never to vote yes on transaction {tx}."),
        Event::Inquire { tx, to } => format!("{role} is in doubt about transaction {tx}, and asks {}.", listed(*to)),
        Event::Answer { tx, known, .. } => format!("{role} knows of transaction {tx}: {}.", known.as_str()),
        Event::Blocked { tx, .. } => {
            format!("{role} is blocked: it may neither commit nor abort transaction {tx}, and keeps its lock.")
        }
        Event::Wait { tx, key } => format!("{role}: a read of {key} waits for transaction {tx}."),
        Event::End { tx } => format!("{role} ends transaction {tx}: all servers have committed it."),
        _ => return None,
    })
}

fn status_words(status: RequestStatus) -> String {
    match status {
        RequestStatus::NotApplied => "certainly not applied".to_string(),
        RequestStatus::Unknown => "outcome unknown".to_string(),
        other => other.as_str().to_string(),
    }
}

/// Why a line was written, where a reader may ask.
fn reason(game: &Game, lines: &Lines<'_>, at: usize, line: &Line) -> Option<Reason> {
    let rule = |sentence: String, rule, file| Reason { sentence, step: None, rule: Some(rule), file: Some(file) };
    let server = line.id.process.as_server();
    Some(match &line.event {
        Event::Nack { promised, .. } => {
            let step = lines.step_of_promise(server?, *promised);
            let when = match step {
                Some(0) | None => "Before you began".to_string(),
                Some(step) => format!("At step {step}"),
            };
            let sentence = format!("{when} it promised {promised}, which is higher.");
            Reason { step: step.filter(|step| *step > 0), ..rule(sentence, 3, "src/paxos/acceptor.rs") }
        }
        Event::Accept { adopted: MaybeBallot(Some(adopted)), ballot, slot, .. } => {
            let sentence = format!(
                "The value accepted at {adopted} may be chosen already, so the quorum that promised {ballot} binds the \
                 proposer in slot {slot}."
            );
            let step = reporting_step(game, at, *ballot, *slot);
            Reason { step, ..rule(sentence, 4, "src/paxos/promises.rs") }
        }
        Event::Accept { ballot, slot, .. } => rule(
            format!("No promise of the quorum for {ballot} reported a value in slot {slot}, so the proposer is free."),
            4,
            "src/paxos/promises.rs",
        ),
        Event::Retry { .. } => rule(
            "A proposer that is refused, or not answered, tries again with a higher ballot.".to_string(),
            11,
            "src/paxos/proposer/mod.rs",
        ),
        Event::Chosen { .. } => {
            rule("A value is chosen when a quorum has accepted it at one ballot.".to_string(), 5, "src/paxos/rules.rs")
        }
        Event::Learn { result: LearnResult::Duplicate { .. }, .. } => {
            rule("A write takes effect once, however often it arrives.".to_string(), 7, "src/kv/sessions.rs")
        }
        Event::Crash { point: Some(CrashPoint::BeforeSync | CrashPoint::BeforeSend), .. } => {
            rule("Nothing is sent before the records that it rests on are durable.".to_string(), 6, "src/role.rs")
        }
        Event::Restart { recovered: RecoveredFrom::Nothing, .. } => rule(
            "An acceptor must remember its promises and votes. In this mode it does not.".to_string(),
            6,
            "src/paxos/acceptor.rs",
        ),
        Event::Stepdown { .. } => rule(
            "A leader that is refused, or not heard, steps down.".to_string(),
            13,
            "src/paxos/proposer/election.rs",
        ),
        Event::Blocked { .. } => Reason {
            sentence: "A participant that voted yes waits for the decision, and only the coordinator may know it."
                .to_string(),
            file: Some("src/two_phase_commit/mod.rs"),
            ..Reason::default()
        },
        _ => return None,
    })
}

/// The last step at which a promise of this ballot reported a value of this slot.
fn reporting_step(game: &Game, at: usize, ballot: Ballot, slot: Slot) -> Option<usize> {
    let reports = |step: &&Step| {
        matches!(step.choice, Choice::Deliver(_))
            && step.message.as_ref().is_some_and(|message| {
                message.kind == "promise"
                    && message.ballot == Some(ballot)
                    && message.slot == Some(slot)
                    && message.at.is_some()
            })
    };
    game.steps[..=at].iter().rev().find(reports).and_then(|step| step.number)
}

/// The shape of a step in the row of steps.
pub fn glyph(step: &Step) -> &'static str {
    match step.choice {
        Choice::Deliver(_) => step.message.as_ref().map_or("other", |message| message.kind),
        Choice::Drop(_) => "drop",
        Choice::Double(_) => "double",
        Choice::Timer(..) => "timer",
        Choice::Timeout(_) | Choice::Ask(_) => "client",
        Choice::Crash(..) | Choice::Kill(_) | Choice::PowerCut(_) => "crash",
        Choice::Restart(..) | Choice::Start(_) => "restart",
        Choice::Cut(..) => "cut",
        Choice::Join(..) => "join",
    }
}

/// What a timer means, in words.
pub fn timer_words(role: RoleKind, name: &str) -> &'static str {
    match (role, name) {
        (_, "Tick") => "100 ms pass",
        (_, "Attempt") => "too few answers in time: give up the ballot",
        (_, "Nacked") => "refused, and not chosen for 20 ms: give up the ballot",
        (_, "Backoff") => "the wait is over: try a higher ballot",
        (RoleKind::Proposer, "CatchUp") => "waits no longer for its learner",
        (_, "CatchUp") => "no answer: ask the next server for what is missing",
        (_, "HeartbeatTick") => "30 ms pass: heartbeats",
        (_, "Election") => "no leader is heard: campaign",
        (_, "Resend") => "not applied yet: propose again",
        (_, "Retry") => "try the refused commands again",
        (_, "Look") => "look for transactions and reads that wait too long",
        (_, "Progress") => "tell the others what is applied",
        (_, "Gap") => "slots are missing: ask a server for them",
        (_, "Read") => "the read has no majority yet: ask again",
        (_, "Fill") => "a read still waits for a slot: ask the proposers",
        _ => "a timer",
    }
}

/// Whether a timer runs out all the time and teaches little.
pub fn is_housekeeping(name: &str) -> bool {
    matches!(name, "Tick" | "HeartbeatTick" | "Progress")
}
