//! The view: everything that a page or a terminal shows of a game, as one value. It is a function of the exercise and
//! the choices alone.

mod list;
mod results;
mod servers;

use std::collections::BTreeMap;

use paxos_kv::protocol::Protocol;
use paxos_kv::role::ServerSet;
use paxos_kv::trace::parse::Run;
use serde::Serialize;

pub use self::list::choice_views;
use self::list::{link_views, message_view};
use self::results::{broken_view, client_views, vote_views};
use self::servers::server_view;
use super::choice::Choice;
use super::exercise::{Exercise, Mode};
use super::game::{Game, Step};
use super::story::{self, Reason, StepStory};
use super::table::Table;

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
    store: BTreeMap<String, String>,
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
    store: BTreeMap<String, String>,
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
