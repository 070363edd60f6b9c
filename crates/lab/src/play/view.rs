//! The view: everything that a page or a terminal shows of a game, as one value. It is a function of the exercise and
//! the choices alone.

use paxos_kv::paxos::{ProposerPhase, Slot};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::{RoleKind, ServerId, ServerSet};
use paxos_kv::trace::CrashPoint;
use paxos_kv::trace::parse::Run;
use serde::Serialize;

use super::choice::{Choice, MessageName};
use super::exercise::{ClientRequestLine, Exercise, Mode};
use super::facts::told_of;
use super::game::{Game, Step};
use super::message::{text, value_text};
use super::predicate::Told;
use super::story::{self, Reason, StepStory, listed};
use super::table::{NamedFrame, Table};
use super::votes::{Cell, RowState};
use crate::sim::client_history::{ClientRecord, ObservedResult, RequestedOperation};
use crate::sim::network::Endpoint;

/// Maximum number of messages under way that a page draws.
const MESSAGES_SHOWN_MAX: usize = 64;
/// Maximum number of slots in the vote table: the latest ones.
const SLOTS_SHOWN_MAX: usize = 8;

/// A game as it is shown.
#[derive(Debug, Serialize)]
pub struct View {
    /// The exercise.
    pub exercise: ExerciseView,
    /// The mode in which it is played.
    pub mode: ModeView,
    /// The first slot after the set-up.
    pub first: u64,
    /// The sizes of the quorums.
    pub quorum: QuorumView,
    /// Number of steps.
    pub count: usize,
    /// Number of choices that did not fit.
    pub skipped: usize,
    /// 16 bits of the trace hash: equal for equal choices and programs.
    pub hash: String,
    /// The par of the exercise.
    pub par: usize,
    /// The stars.
    pub stars: StarsView,
    /// The goals.
    pub goals: Vec<GoalView>,
    /// What must not happen.
    pub nevers: Vec<NeverView>,
    /// All goals are met.
    pub done: bool,
    /// The third hint.
    pub hint: Option<String>,
    /// The choices that were made.
    pub steps: Vec<StepView>,
    /// The servers.
    pub servers: Vec<ServerView>,
    /// The messages under way.
    pub messages: Vec<MessageView>,
    /// Number of further messages under way, which are not drawn.
    pub more_messages: usize,
    /// What can be done next.
    pub enabled: Vec<ChoiceView>,
    /// The links between servers that are cut, or were.
    pub links: Vec<LinkView>,
    /// Which values can yet be chosen.
    pub votes: Vec<SlotView>,
    /// The clients.
    pub clients: Vec<ClientView>,
    /// The guarantee that is broken.
    pub broken: Option<BrokenView>,
    /// The limit that is reached.
    pub limit: Option<String>,
}

/// An exercise, without its solution.
#[derive(Clone, Debug, Serialize)]
pub struct ExerciseView {
    name: String,
    number: usize,
    title: String,
    concept: String,
    protocol: &'static str,
    mode: String,
    modes: Vec<String>,
    text: String,
    goals: Vec<String>,
    nevers: Vec<String>,
    hints: Vec<String>,
    par: usize,
    why: WhyView,
    impossible: bool,
}

#[derive(Clone, Debug, Serialize)]
struct WhyView {
    rule: u8,
    file: String,
    sentence: String,
}

/// The mode of a game.
#[derive(Debug, Serialize)]
pub struct ModeView {
    name: String,
    #[serde(rename = "unsafe")]
    is_unsafe: bool,
    sentence: String,
}

/// The sizes of the quorums of phase 1 and of phase 2.
#[derive(Debug, Serialize)]
pub struct QuorumView {
    prepare: usize,
    accept: usize,
}

/// The stars of a game.
#[derive(Debug, Serialize)]
pub struct StarsView {
    now: u8,
    best_possible: u8,
    sentence: String,
}

/// A goal, and the step at which it was met.
#[derive(Debug, Serialize)]
pub struct GoalView {
    text: String,
    met: Option<usize>,
}

/// What must not happen, and the step at which it did.
#[derive(Debug, Serialize)]
pub struct NeverView {
    text: String,
    broken: Option<usize>,
}

/// A choice that was made, and what followed.
#[derive(Debug, Serialize)]
pub struct StepView {
    n: usize,
    code: String,
    text: String,
    glyph: &'static str,
    kind: &'static str,
    from: Option<String>,
    to: Option<String>,
    ballot: Option<String>,
    value: Option<String>,
    /// What the step did.
    pub sentence: String,
    more: Vec<String>,
    why: Option<ReasonView>,
    /// Why the choice did not fit.
    pub skipped: Option<String>,
    goals: Vec<usize>,
    broken: bool,
}

#[derive(Debug, Serialize)]
struct ReasonView {
    sentence: String,
    step: Option<usize>,
    rule: Option<u8>,
    file: Option<&'static str>,
}

/// A server with its roles.
#[derive(Debug, Serialize)]
pub struct ServerView {
    id: u8,
    up: bool,
    note: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    proposer: Option<ProposerView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acceptor: Option<AcceptorView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    learner: Option<LearnerView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    coordinator: Option<CoordinatorView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    participant: Option<ParticipantView>,
}

#[derive(Debug, Serialize)]
struct ProposerView {
    up: bool,
    phase: &'static str,
    ballot: Option<String>,
    yes: Vec<u8>,
    no: Vec<u8>,
    needed: usize,
    text: String,
    fuse: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct AcceptorView {
    up: bool,
    promised: Option<String>,
    accepted: Vec<AcceptedView>,
    disk: &'static str,
    text: String,
    fuse: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct AcceptedView {
    slot: u64,
    ballot: String,
    value: String,
}

#[derive(Debug, Serialize)]
struct LearnerView {
    up: bool,
    applied: u64,
    known: Vec<KnownView>,
    store: std::collections::BTreeMap<String, String>,
    text: String,
    fuse: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct KnownView {
    slot: u64,
    value: String,
}

#[derive(Debug, Serialize)]
struct CoordinatorView {
    up: bool,
    open: usize,
    text: String,
    fuse: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct ParticipantView {
    up: bool,
    prepared: Vec<String>,
    locked: Vec<String>,
    store: std::collections::BTreeMap<String, String>,
    text: String,
    fuse: Option<&'static str>,
}

/// A message under way.
#[derive(Debug, Serialize)]
pub struct MessageView {
    id: String,
    drop: String,
    double: Option<String>,
    name: &'static str,
    kind: &'static str,
    from: String,
    to: String,
    ballot: Option<String>,
    slot: Option<u64>,
    value: Option<String>,
    at: Option<String>,
    promised: Option<String>,
    says: String,
    text: String,
    doubled: bool,
    hollow: Option<String>,
    off: Option<String>,
    housekeeping: bool,
}

/// Something that can be done next.
#[derive(Debug, Serialize)]
pub struct ChoiceView {
    /// The code.
    pub code: String,
    kind: &'static str,
    /// Where it stands in the list.
    pub group: &'static str,
    /// What it is.
    pub label: String,
    /// The sender of a message, one end of a link, or a client.
    pub from: Option<String>,
    /// The receiver of a message, or the other end of a link.
    pub to: Option<String>,
    /// The server at which it happens.
    pub server: Option<u8>,
    /// The role that it concerns first.
    pub role: Option<&'static str>,
    /// Why it is not possible now.
    pub off: Option<String>,
}

/// A link between two servers.
#[derive(Debug, Serialize)]
pub struct LinkView {
    a: u8,
    b: u8,
    cut: bool,
    lost: u64,
}

/// A slot of the vote table.
#[derive(Debug, Serialize)]
pub struct SlotView {
    slot: u64,
    needed: usize,
    chosen: Vec<String>,
    /// What can yet happen in it.
    pub sentence: String,
    rows: Vec<RowView>,
}

#[derive(Debug, Serialize)]
struct RowView {
    ballot: String,
    value: Option<String>,
    cells: Vec<&'static str>,
    accepted: usize,
    may: usize,
    state: &'static str,
    sentence: String,
}

/// A client.
#[derive(Debug, Serialize)]
pub struct ClientView {
    id: String,
    server: u8,
    request: Option<String>,
    state: &'static str,
    text: String,
    results: Vec<ResultView>,
    left: usize,
}

#[derive(Debug, Serialize)]
struct ResultView {
    request: String,
    status: &'static str,
    text: String,
    step: Option<usize>,
}

/// A broken guarantee.
#[derive(Debug, Serialize)]
pub struct BrokenView {
    rule: u8,
    /// What happened.
    pub sentence: String,
    step: usize,
    sides: Vec<SideView>,
    both: Vec<u8>,
    forgot: Option<ForgotView>,
    file: &'static str,
}

#[derive(Debug, Serialize)]
struct SideView {
    value: String,
    ballot: String,
    quorum: Vec<u8>,
}

#[derive(Debug, Serialize)]
struct ForgotView {
    server: u8,
    step: usize,
    sentence: String,
}

impl View {
    /// The mode in a sentence.
    pub fn mode_sentence(&self) -> &str {
        &self.mode.sentence
    }

    /// The stars in a sentence.
    pub fn stars_sentence(&self) -> String {
        match self.stars.now {
            0 => self.stars.sentence.clone(),
            stars => format!("{} {} of 3 stars.", self.stars.sentence, stars),
        }
    }

    /// The goals, each with the step at which it was met.
    pub fn goal_lines(&self) -> impl Iterator<Item = (&str, Option<usize>)> {
        self.goals.iter().map(|goal| (goal.text.as_str(), goal.met))
    }

    /// What has happened that never must, each with its step.
    pub fn never_lines(&self) -> impl Iterator<Item = (&str, usize)> {
        self.nevers.iter().filter_map(|never| Some((never.text.as_str(), never.broken?)))
    }

    /// What each server knows, as text.
    pub fn servers_text(&self) -> String {
        let mut lines = Vec::new();
        for server in &self.servers {
            let parts = [
                server.proposer.as_ref().map(|one| ("proposer", &one.text)),
                server.acceptor.as_ref().map(|one| ("acceptor", &one.text)),
                server.learner.as_ref().map(|one| ("learner", &one.text)),
                server.coordinator.as_ref().map(|one| ("coordinator", &one.text)),
                server.participant.as_ref().map(|one| ("participant", &one.text)),
            ];
            for (role, text) in parts.into_iter().flatten() {
                lines.push(format!("  s{}.{role:<11} {text}", server.id));
            }
        }
        lines.extend(self.clients.iter().map(|client| format!("  {}", client.text)));
        lines.join("\n")
    }
}

impl StepView {
    /// The step as lines of text: the choice, what it did, and why.
    pub fn text_lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{:>3}. {}", self.n, self.text), self.sentence.clone()];
        lines.extend(self.more.iter().cloned());
        lines.extend(self.why.as_ref().map(|why| {
            let rule = why.rule.map_or(String::new(), |rule| format!(" (rule {rule})"));
            format!("Why: {}{rule}", why.sentence)
        }));
        lines
    }
}

impl SlotView {
    /// The slot as text: a row for each ballot, and what can yet happen.
    pub fn text(&self) -> String {
        let mut lines = vec![format!("slot {}:", self.slot)];
        for row in &self.rows {
            let cells: Vec<&str> = row
                .cells
                .iter()
                .map(|cell| match *cell {
                    "accepted" => "●",
                    "may" => "◌",
                    _ => "×",
                })
                .collect();
            let value = row.value.as_deref().unwrap_or("no value yet");
            lines.push(format!("  {:<6} {value:<14} {}  {}", row.ballot, cells.join(" "), row.sentence));
        }
        lines.push(format!("  {}", self.sentence));
        lines.join("\n")
    }
}

/// An exercise as it is listed. `number` is its place among the built-in ones, or 0.
pub fn exercise_view(exercise: &Exercise, number: usize) -> ExerciseView {
    ExerciseView {
        name: exercise.name.clone(),
        number,
        title: exercise.title.clone(),
        concept: exercise.concept.clone(),
        protocol: exercise.protocol.name(),
        mode: exercise.mode.name(),
        modes: exercise.modes().into_iter().map(Mode::name).collect(),
        text: exercise.text.clone(),
        goals: exercise.goals.iter().map(|goal| goal.text.clone()).collect(),
        nevers: exercise.nevers.iter().map(|never| never.text.clone()).collect(),
        hints: exercise.hints.clone(),
        par: exercise.par,
        why: WhyView {
            rule: exercise.why.rule,
            file: exercise.why.file.clone(),
            sentence: exercise.why.sentence.clone(),
        },
        impossible: exercise.is_impossible_when_safe,
    }
}

/// The view of an exercise that is played in a mode with these choices.
pub fn view(
    exercise: &Exercise,
    number: usize,
    mode: Mode,
    choices: &[Choice],
    is_hinted: bool,
) -> Result<View, String> {
    show(Game::play(exercise, mode, choices)?, number, is_hinted)
}

/// The view of a game.
pub fn show(mut game: Game, number: usize, is_hinted: bool) -> Result<View, String> {
    let mut view = View {
        exercise: exercise_view(&game.exercise, number),
        mode: mode_view(&game),
        first: game.table.first.0,
        quorum: quorum_view(&game.table),
        count: game.table.steps,
        skipped: game.steps.iter().filter(|step| step.number.is_none()).count(),
        hash: format!("{:04x}", game.table.hash()),
        par: game.exercise.par,
        stars: stars_view(&game, is_hinted),
        goals: goal_views(&game),
        nevers: never_views(&game),
        done: game.is_done(),
        hint: game.next_step(),
        steps: Vec::new(),
        servers: game.table.cluster().iter().map(|server| server_view(&game, server)).collect(),
        messages: Vec::new(),
        more_messages: 0,
        enabled: choice_views(&game.table),
        links: link_views(&game),
        votes: vote_views(&game),
        clients: client_views(&game),
        broken: broken_view(&game),
        limit: game.table.limit(),
    };
    let mut messages: Vec<MessageView> =
        game.table.frames().iter().map(|frame| message_view(&game.table, frame)).collect();
    view.more_messages = messages.len().saturating_sub(MESSAGES_SHOWN_MAX);
    messages.truncate(MESSAGES_SHOWN_MAX);
    view.messages = messages;
    // Last, since it ends all processes.
    let run = lines_of(&mut game)?;
    let told = story::tell(&game, &run);
    view.steps = game.steps.iter().zip(told).enumerate().map(|(at, (step, told))| step_view(at, step, told)).collect();
    Ok(view)
}

/// The log lines of a game. It ends all processes of the game.
pub fn lines_of(game: &mut Game) -> Result<Run, String> {
    let mut run = Run::default();
    for (name, lines) in game.table.sim.take_lines() {
        run.add(&name, lines.as_bytes(), u64::MAX).map_err(|error| error.to_string())?;
    }
    Ok(run)
}

fn mode_view(game: &Game) -> ModeView {
    let (table, exercise) = (&game.table, &game.exercise);
    let (prepare, accept) = table.sim.plan.quorums().sizes();
    let quorums = if prepare == accept {
        format!("quorums of {accept}")
    } else {
        format!("quorums of {prepare} to promise and of {accept} to accept")
    };
    let (protocol, quorums) = match exercise.protocol {
        Protocol::BasicPaxos => ("Basic Paxos", quorums),
        Protocol::MultiPaxos => ("Multi-Paxos", quorums),
        Protocol::TwoPhaseCommit => ("two-phase commit", "a commit needs every server".to_string()),
    };
    let special = match table.mode {
        Mode::Safe => "disks are safe",
        Mode::Lost => "a crashed acceptor restarts with an EMPTY disk",
        Mode::Quorums(..) if table.mode.is_safe(exercise.servers) => "quorums of both phases meet",
        Mode::Quorums(..) => "quorums MAY MISS each other",
        Mode::LocalRead => "reads are answered by ONE server",
    };
    ModeView {
        name: table.mode.name(),
        is_unsafe: !table.mode.is_safe(exercise.servers),
        sentence: format!("{} servers, {protocol}, {quorums}, {special}", exercise.servers),
    }
}

fn quorum_view(table: &Table) -> QuorumView {
    let (prepare, accept) = table.sim.plan.quorums().sizes();
    QuorumView { prepare, accept }
}

fn stars_view(game: &Game, is_hinted: bool) -> StarsView {
    let (now, par, steps) = (game.stars(is_hinted), game.exercise.par, game.steps_needed());
    let best_possible = if game.is_done() { now } else { game.stars_for(steps, is_hinted) };
    let sentence = if game.is_done() {
        format!("Done in {steps} steps; par is {par}.")
    } else {
        format!("{steps} steps; 3 stars for {par} in all, 2 for {}.", 3 * par / 2)
    };
    StarsView { now, best_possible, sentence }
}

fn goal_views(game: &Game) -> Vec<GoalView> {
    let goals = game.exercise.goals.iter().zip(&game.goals);
    goals.map(|(goal, met)| GoalView { text: goal.text.clone(), met: *met }).collect()
}

fn never_views(game: &Game) -> Vec<NeverView> {
    let nevers = game.exercise.nevers.iter().zip(&game.nevers);
    nevers.map(|(never, broken)| NeverView { text: never.text.clone(), broken: *broken }).collect()
}

fn step_view(at: usize, step: &Step, told: StepStory) -> StepView {
    let StepStory { sentence, more, why } = told;
    let why = why.map(|Reason { sentence, step, rule, file }| ReasonView { sentence, step, rule, file });
    let (from, to) = ends_of(&step.choice);
    StepView {
        n: step.number.unwrap_or(at + 1),
        code: step.choice.code(),
        text: step.choice.to_string(),
        glyph: story::glyph(step),
        kind: kind_of(&step.choice),
        from,
        to,
        ballot: step.message.as_ref().and_then(|message| message.ballot).map(|ballot| ballot.to_string()),
        value: step.message.as_ref().and_then(|message| message.value.clone()),
        sentence,
        more,
        why,
        skipped: step.skipped.clone(),
        goals: step.goals.clone(),
        broken: step.broke,
    }
}

fn ends_of(choice: &Choice) -> (Option<String>, Option<String>) {
    match choice {
        Choice::Deliver(name) | Choice::Drop(name) | Choice::Double(name) => {
            (Some(name.from.to_string()), Some(name.to.to_string()))
        }
        Choice::Cut(one, other) | Choice::Join(one, other) => (Some(one.to_string()), Some(other.to_string())),
        Choice::Timeout(client) | Choice::Ask(client) => (Some(format!("c{}", client + 1)), None),
        _ => (None, None),
    }
}

fn kind_of(choice: &Choice) -> &'static str {
    match choice {
        Choice::Deliver(_) => "deliver",
        Choice::Drop(_) => "drop",
        Choice::Double(_) => "double",
        Choice::Timer(..) => "timer",
        Choice::Timeout(_) => "timeout",
        Choice::Ask(_) => "ask",
        Choice::Crash(..) => "crash",
        Choice::Restart(..) => "restart",
        Choice::Kill(_) => "kill",
        Choice::PowerCut(_) => "power-cut",
        Choice::Start(_) => "start",
        Choice::Cut(..) => "cut",
        Choice::Join(..) => "join",
    }
}

fn numbers(servers: ServerSet) -> Vec<u8> {
    servers.iter().map(|server| server.0).collect()
}

fn server_view(game: &Game, server: ServerId) -> ServerView {
    let table = &game.table;
    let is_up = table.sim.is_up(server);
    let since = |role: Option<RoleKind>| match table.down_since.get(&(server, role)) {
        Some(0) | None => "down".to_string(),
        Some(step) => format!("down since step {step}"),
    };
    let down: Vec<&str> = table
        .sim
        .plan
        .protocol
        .roles_as_named()
        .iter()
        .filter(|role| !table.sim.is_role_up(server, **role))
        .map(|role| role.as_str())
        .collect();
    let note = match (is_up, down.as_slice()) {
        (false, _) => since(None),
        (true, []) => String::new(),
        (true, names) => format!("{} down", names.join(" and ")),
    };
    let is_paxos = table.sim.plan.protocol.is_paxos();
    ServerView {
        id: server.0,
        up: is_up,
        note,
        proposer: is_paxos.then(|| proposer_view(game, server, since(Some(RoleKind::Proposer)))),
        acceptor: is_paxos.then(|| acceptor_view(game, server, since(Some(RoleKind::Acceptor)))),
        learner: is_paxos.then(|| learner_view(game, server, since(Some(RoleKind::Learner)))),
        coordinator: (!is_paxos).then(|| coordinator_view(game, server, since(Some(RoleKind::Coordinator)))),
        participant: (!is_paxos).then(|| participant_view(game, server, since(Some(RoleKind::Participant)))),
    }
}

fn fuse(table: &Table, server: ServerId, role: RoleKind) -> Option<&'static str> {
    table.fuses.get(&(server, role)).map(|point| match point {
        CrashPoint::BeforeStep => "crashes at once",
        CrashPoint::BeforeSync => "crashes in its next turn, before its sync",
        CrashPoint::BeforeSend => "crashes in its next turn, before it sends",
    })
}

fn proposer_view(game: &Game, server: ServerId, down: String) -> ProposerView {
    let table = &game.table;
    let process = table.sim.servers[usize::from(server.0) - 1].process.as_ref();
    let role = process.and_then(|process| process.proposer.as_ref()).map(|proposer| proposer.role());
    let (prepare, accept) = table.sim.plan.quorums().sizes();
    let fuse = fuse(table, server, RoleKind::Proposer);
    let empty = ProposerView {
        up: role.is_some(),
        phase: "down",
        ballot: None,
        yes: Vec::new(),
        no: Vec::new(),
        needed: prepare,
        text: down,
        fuse,
    };
    let Some(role) = role else { return empty };
    let leads = role.leads().is_some();
    match role.phase() {
        ProposerPhase::Idle => {
            let follows = role.leader().map(|(ballot, _)| ballot);
            let (phase, text) = match follows {
                Some(ballot) => ("following", format!("follows {ballot}")),
                None => ("idle", "idle".to_string()),
            };
            ProposerView { phase, text, ballot: follows.map(|ballot| ballot.to_string()), ..empty }
        }
        ProposerPhase::BackingOff => {
            ProposerView { phase: "waiting", text: "waits before its next ballot".to_string(), ..empty }
        }
        ProposerPhase::CatchingUp => {
            ProposerView { phase: "catching up", text: "waits for its learner".to_string(), ..empty }
        }
        ProposerPhase::Preparing { ballot, promised, refused } => ProposerView {
            phase: "preparing",
            ballot: Some(ballot.to_string()),
            yes: numbers(promised),
            no: numbers(refused),
            text: format!("asks for promises at {ballot}: {} of {prepare}", promised.len()),
            ..empty
        },
        ProposerPhase::Proposing { ballot, refused, in_flight } => ProposerView {
            phase: if leads { "leading" } else { "proposing" },
            ballot: Some(ballot.to_string()),
            no: numbers(refused),
            needed: accept,
            text: match (leads, in_flight) {
                (true, 0) => format!("leads at {ballot}"),
                (true, count) => format!("leads at {ballot}, {count} in flight"),
                (false, _) => format!("proposes at {ballot}"),
            },
            ..empty
        },
    }
}

fn acceptor_view(game: &Game, server: ServerId, down: String) -> AcceptorView {
    let table = &game.table;
    let is_up = table.sim.is_role_up(server, RoleKind::Acceptor);
    let (promised, accepted) = table.acceptor(server);
    let shown = accepted.range(table.first..).map(|(slot, (ballot, value))| AcceptedView {
        slot: slot.0,
        ballot: ballot.to_string(),
        value: value_text(value),
    });
    let accepted: Vec<AcceptedView> = shown.collect();
    let promised = (promised.round > 0).then(|| promised.to_string());
    let mut parts =
        vec![promised.as_ref().map_or("has promised nothing".to_string(), |ballot| format!("promised {ballot}"))];
    parts.extend(accepted.iter().map(|one| format!("slot {} {} at {}", one.slot, one.value, one.ballot)));
    let forgot = table.forgot.iter().any(|(one, _)| *one == server);
    AcceptorView {
        up: is_up,
        disk: if forgot { "lost" } else { "kept" },
        text: if is_up { parts.join("; ") } else { format!("{down}; on its disk: {}", parts.join("; ")) },
        promised,
        accepted,
        fuse: fuse(table, server, RoleKind::Acceptor),
    }
}

/// The keys that the clients of an exercise use.
fn keys(exercise: &Exercise) -> Vec<&str> {
    let requests = exercise.clients.iter().flat_map(|client| &client.requests);
    let keys = requests.map(|request| match request {
        ClientRequestLine::Put(key, _) | ClientRequestLine::Get(key) => key.as_str(),
    });
    let mut keys: Vec<&str> = keys.collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn store_view(game: &Game, kv: &paxos_kv::kv::Kv) -> std::collections::BTreeMap<String, String> {
    let held = keys(&game.exercise).into_iter().filter_map(|key| {
        let value = kv.store().get(key.as_bytes())?.value.as_ref()?;
        Some((key.to_string(), text(value)))
    });
    held.collect()
}

fn learner_view(game: &Game, server: ServerId, down: String) -> LearnerView {
    let table = &game.table;
    let process = table.sim.servers[usize::from(server.0) - 1].process.as_ref();
    let role = process.and_then(|process| process.learner.as_ref()).map(|learner| learner.role());
    let fuse = fuse(table, server, RoleKind::Learner);
    let Some(role) = role else {
        return LearnerView { up: false, applied: 0, known: Vec::new(), store: Default::default(), text: down, fuse };
    };
    let applied = role.applied();
    // Every learner applies what is chosen; which value that is, the votes say.
    let known = (table.first.0..=applied.0).map(Slot).filter_map(|slot| {
        let chosen = game.ballots.chosen(slot);
        let held = table.acceptor(server).1.get(&slot).map(|(_, value)| value.clone());
        let value = match chosen.as_slice() {
            [(only, ..)] => (*only).clone(),
            _ => held?,
        };
        Some(KnownView { slot: slot.0, value: value_text(&value) })
    });
    let known: Vec<KnownView> = known.collect();
    let words: Vec<String> = known.iter().map(|one| format!("slot {} {}", one.slot, one.value)).collect();
    LearnerView {
        up: true,
        applied: applied.0,
        text: if words.is_empty() {
            "knows of nothing chosen".to_string()
        } else {
            format!("applied {}", words.join(", "))
        },
        known,
        store: store_view(game, role.machine()),
        fuse,
    }
}

fn coordinator_view(game: &Game, server: ServerId, down: String) -> CoordinatorView {
    let process = game.table.sim.servers[usize::from(server.0) - 1].process.as_ref();
    let role = process.and_then(|process| process.coordinator.as_ref()).map(|one| one.role());
    let fuse = fuse(&game.table, server, RoleKind::Coordinator);
    match role {
        None => CoordinatorView { up: false, open: 0, text: down, fuse },
        Some(role) => {
            let open = role.unacknowledged();
            let text = match (role.is_idle(), open) {
                (true, 0) => "idle".to_string(),
                (_, 0) => "counts votes".to_string(),
                (_, open) => format!("{open} commits not acknowledged"),
            };
            CoordinatorView { up: true, open, text, fuse }
        }
    }
}

fn participant_view(game: &Game, server: ServerId, down: String) -> ParticipantView {
    let process = game.table.sim.servers[usize::from(server.0) - 1].process.as_ref();
    let role = process.and_then(|process| process.participant.as_ref()).map(|one| one.role());
    let fuse = fuse(&game.table, server, RoleKind::Participant);
    let Some(role) = role else {
        return ParticipantView {
            up: false,
            prepared: Vec::new(),
            locked: Vec::new(),
            store: Default::default(),
            text: down,
            fuse,
        };
    };
    let prepared: Vec<String> = role.in_doubt().map(|one| one.transaction.to_string()).collect();
    let text = match prepared.as_slice() {
        [] => "prepared for nothing".to_string(),
        names => format!("prepared, and in doubt: {}", names.join(", ")),
    };
    ParticipantView {
        up: true,
        prepared,
        locked: game.table.locks(server),
        store: store_view(game, role.kv()),
        text,
        fuse,
    }
}

fn message_view(table: &Table, NamedFrame { name, frame, text }: &NamedFrame) -> MessageView {
    let MessageName { from, to, .. } = *name;
    let is_between_servers = matches!((from, to), (Endpoint::Server(_), Endpoint::Server(_)));
    let is_cut = table.sim.sim_env.network.is_cut(from, to);
    MessageView {
        id: Choice::Deliver(*name).code(),
        drop: Choice::Drop(*name).code(),
        double: is_between_servers.then(|| Choice::Double(*name).code()),
        name: text.name,
        kind: text.kind,
        from: from.to_string(),
        to: to.to_string(),
        ballot: text.ballot.map(|ballot| ballot.to_string()),
        slot: text.slot.map(|slot| slot.0),
        value: text.value.clone(),
        at: text.at.map(|ballot| ballot.to_string()),
        promised: text.promised.map(|ballot| ballot.to_string()),
        says: text.says.clone(),
        text: format!("{}, from {from} to {to}", text.label()),
        doubled: frame.is_doubled,
        hollow: table.sim.loss_on_arrival(frame),
        off: is_cut.then(|| format!("the link between {from} and {to} is cut")),
        housekeeping: text.is_housekeeping,
    }
}

/// What can be done next, in the order of the list; housekeeping comes last.
pub fn choice_views(table: &Table) -> Vec<ChoiceView> {
    let frames = table.frames();
    let mut views: Vec<ChoiceView> = Vec::new();
    for possible in table.choices() {
        let choice = possible.choice;
        let (from, to) = ends_of(&choice);
        let (group, label, server, role) = match choice {
            Choice::Deliver(name) | Choice::Drop(name) | Choice::Double(name) => {
                let frame = frames.iter().find(|one| one.name == name);
                let is_housekeeping = frame.is_some_and(|one| one.text.is_housekeeping);
                let label = frame.map_or(name.name.to_string(), |one| one.text.label());
                let server = if let Endpoint::Server(server) = name.to { Some(server) } else { None };
                let role = frame.and_then(|one| recipient(one));
                (if is_housekeeping { "housekeeping" } else { "messages" }, label, server, role)
            }
            Choice::Timer(server, role, name) => {
                let group = if story::is_housekeeping(name) { "housekeeping" } else { "timers" };
                (group, story::timer_words(role, name).to_string(), Some(server), Some(role))
            }
            Choice::Timeout(client) => {
                ("clients", format!("c{} waits no longer, and asks the next server", client + 1), None, None)
            }
            Choice::Ask(client) => ("clients", format!("c{} makes its next request", client + 1), None, None),
            Choice::Crash(server, role, point) => {
                let label = match point {
                    CrashPoint::BeforeStep => "crash now",
                    CrashPoint::BeforeSync => "crash in the next turn, before its sync",
                    CrashPoint::BeforeSend => "crash in the next turn, before it sends",
                };
                ("crashes", label.to_string(), Some(server), Some(role))
            }
            Choice::Restart(server, role) => {
                let label = if table.mode == Mode::Lost && role == RoleKind::Acceptor {
                    "restart with an EMPTY disk"
                } else {
                    "restart"
                };
                ("crashes", label.to_string(), Some(server), Some(role))
            }
            Choice::Kill(server) => ("crashes", "end the process".to_string(), Some(server), None),
            Choice::PowerCut(server) => ("crashes", "cut the power".to_string(), Some(server), None),
            Choice::Start(server) => ("crashes", "start the process".to_string(), Some(server), None),
            Choice::Cut(one, other) => ("links", format!("cut {one}-{other}"), None, None),
            Choice::Join(one, other) => ("links", format!("join {one}-{other}"), None, None),
        };
        let (server, role) = (server.map(|server| server.0), role.map(RoleKind::as_str));
        let (code, kind, off) = (choice.code(), kind_of(&choice), possible.off);
        views.push(ChoiceView { code, kind, group, label, from, to, server, role, off });
    }
    views.sort_by_key(|view| view.group == "housekeeping");
    views
}

fn recipient(frame: &NamedFrame) -> Option<RoleKind> {
    match &frame.frame.carried {
        crate::sim::by_hand::Carried::Peer(envelope) => envelope.message.recipients().first().copied(),
        _ => None,
    }
}

fn link_views(game: &Game) -> Vec<LinkView> {
    let cluster = game.table.cluster();
    let pairs = cluster.iter().flat_map(|one| cluster.iter().filter(move |other| one < *other).map(move |o| (one, o)));
    let links = pairs.map(|(one, other)| LinkView {
        a: one.0,
        b: other.0,
        cut: game.table.is_cut(one, other),
        lost: game.lost_on(one, other),
    });
    links.filter(|link| link.cut || link.lost > 0).collect()
}

fn vote_views(game: &Game) -> Vec<SlotView> {
    if !game.table.sim.plan.protocol.is_paxos() {
        return Vec::new();
    }
    let ballots = &game.ballots;
    let slots = ballots.slots(game.table.first);
    let shown = slots.len().saturating_sub(SLOTS_SHOWN_MAX);
    let views = slots.into_iter().skip(shown).map(|slot| {
        let rows = ballots.rows(slot).into_iter().map(|row| RowView {
            ballot: row.ballot.to_string(),
            value: row.value.as_ref().map(value_text),
            cells: row
                .cells
                .iter()
                .map(|cell| match cell {
                    Cell::Accepted => "accepted",
                    Cell::May => "may",
                    Cell::Never => "never",
                })
                .collect(),
            accepted: row.count(Cell::Accepted),
            may: row.count(Cell::May),
            state: match row.state {
                RowState::Chosen => "chosen",
                RowState::May => "may",
                RowState::Never => "never",
                RowState::Open => "open",
            },
            sentence: ballots.row_sentence(&row),
        });
        SlotView {
            slot: slot.0,
            needed: ballots.quorums.sizes().1,
            chosen: ballots.chosen(slot).into_iter().map(|(value, ..)| value_text(value)).collect(),
            sentence: ballots.slot_sentence(slot),
            rows: rows.collect(),
        }
    });
    views.collect()
}

fn client_views(game: &Game) -> Vec<ClientView> {
    let clients = game.exercise.clients.iter().enumerate().map(|(number, line)| {
        let id = format!("c{}", number + 1);
        let records: Vec<&ClientRecord> = game.table.results(number).collect();
        let open = records.iter().find(|record| record.ended.is_none());
        let left = game.table.sim.clients.get(number).map_or(0, |client| client.left());
        let request = open.map(|record| requested(record));
        let server = game.table.sim.clients.get(number).map_or(line.server, |client| client.server());
        let (state, text) = match (&request, left) {
            (Some(request), _) => ("waits", format!("{id}: {request}, waits for {server}")),
            (None, 0) => ("done", format!("{id}: done")),
            (None, _) => ("idle", format!("{id}: idle")),
        };
        let results = records.iter().filter(|record| record.ended.is_some()).map(|record| result_view(game, record));
        ClientView { id, server: server.0, request, state, text, results: results.collect(), left }
    });
    clients.collect()
}

fn requested(record: &ClientRecord) -> String {
    match &record.what {
        RequestedOperation::Write(op) => super::message::op_text(op),
        RequestedOperation::Get { key } => format!("get {}", text(key)),
    }
}

fn result_view(game: &Game, record: &ClientRecord) -> ResultView {
    let request = requested(record);
    let step = record.at.map(|at| game.table.step_at(at));
    let (status, words) = match (&record.result, told_of(record)) {
        (ObservedResult::Read(_, Some(value), _), _) => ("value", format!("read {}", text(value))),
        (ObservedResult::Read(..), _) => ("notfound", "no value".to_string()),
        (ObservedResult::Wrote(slot, _), _) => ("ok", format!("OK in slot {slot}")),
        (_, Some(Told::NotApplied)) => ("notapplied", "certainly not applied".to_string()),
        _ => ("unknown", "outcome unknown".to_string()),
    };
    ResultView { text: format!("{request}: {words}"), request, status, step }
}

fn broken_view(game: &Game) -> Option<BrokenView> {
    let (step, broken) = game.broken.as_ref()?;
    let sides = broken.sides.iter().map(|side| SideView {
        value: side.value.clone(),
        ballot: side.ballot.to_string(),
        quorum: numbers(side.quorum),
    });
    let both = match broken.sides.as_slice() {
        [one, other, ..] => one.quorum.and(other.quorum),
        _ => ServerSet::NONE,
    };
    let forgot = broken.forgot.map(|(server, step)| ForgotView {
        server: server.0,
        step,
        sentence: format!("{server}'s acceptor restarted with an empty disk at step {step}, and forgot its vote."),
    });
    let explained = match (broken.sides.as_slice(), &forgot) {
        ([one, other, ..], None) if both.is_empty() => {
            format!(" {} and {} have no server in common.", listed(one.quorum), listed(other.quorum))
        }
        _ => String::new(),
    };
    Some(BrokenView {
        rule: broken.rule,
        sentence: format!("{}{explained}", broken.sentence),
        step: *step,
        sides: sides.collect(),
        both: numbers(both),
        forgot,
        file: broken.file,
    })
}
