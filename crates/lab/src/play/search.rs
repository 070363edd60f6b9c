//! What the program chooses by itself: it lets a game run by a policy, and searches for a way to break it.

use std::time::{Duration, Instant};

use paxos_kv::paxos::Ballot;
use paxos_kv::random::Random;
use paxos_kv::role::{RoleKind, ServerId};
use paxos_kv::trace::CrashPoint;

use super::choice::{CHOICES_MAX, Choice, MessageName};
use super::exercise::{Exercise, Mode};
use super::game::Game;
use super::story;
use super::table::{NamedFrame, Table};
use crate::sim::network::Endpoint;

/// Maximum number of steps of one random walk.
const WALK_STEPS_MAX: usize = 150;
/// Maximum number of walks of a search.
pub const WALKS_MAX: usize = 2_000;
/// Maximum time of a search.
pub const SEARCH_MAX: Duration = Duration::from_secs(5);
/// Maximum number of choices that a run adds.
pub const RUN_MAX: usize = 100;

/// How the program chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The message that was sent first.
    InOrder,
    /// Any message or timer.
    Random,
    /// An adversary: an ACCEPT arrives only where it is refused.
    Duel,
}

impl Policy {
    /// The policy with this name.
    pub fn named(name: &str) -> Option<Policy> {
        match name {
            "in-order" => Some(Policy::InOrder),
            "random" => Some(Policy::Random),
            "duel" => Some(Policy::Duel),
            _ => None,
        }
    }
}

/// What a run has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// All choices, with the added ones.
    pub choices: Vec<Choice>,
    /// Number of choices that were added.
    pub added: usize,
    /// Why it ended, in a sentence.
    pub why: String,
}

/// Lets a game run: at most `most` further choices.
pub fn run(mut game: Game, policy: Policy, seed: u64, most: usize) -> Ran {
    let mut random = Random::new(seed, 11);
    let before = game.steps.len();
    let mut why = format!("{most} steps are done.");
    for _ in 0..most {
        if let Some(limit) = game.table.limit() {
            why = limit;
            break;
        }
        let Some(choice) = next(&game.table, policy, &mut random) else {
            why = "No message is left that this policy would deliver.".to_string();
            break;
        };
        game.choose(choice);
        if let Some(reason) = news(&game) {
            why = reason;
            break;
        }
    }
    let choices: Vec<Choice> = game.steps.iter().map(|step| step.choice).collect();
    Ran { added: choices.len() - before, choices, why }
}

/// Why a run stops after its last step.
fn news(game: &Game) -> Option<String> {
    let step = game.steps.last()?;
    if step.broke {
        return Some("Something happened that never must.".to_string());
    }
    if let Some(goal) = step.goals.first() {
        return Some(format!("A goal is met: {}.", game.exercise.goals[*goal].text));
    }
    let is_refusal = step.message.as_ref().is_some_and(|message| message.kind == "refused");
    is_refusal.then(|| "A refusal has arrived.".to_string())
}

fn next(table: &Table, policy: Policy, random: &mut Random) -> Option<Choice> {
    let possible = || table.choices().into_iter().filter(|one| one.off.is_none()).map(|one| one.choice);
    match policy {
        Policy::InOrder => {
            let frames = table.frames().into_iter().filter(|one| !one.text.is_housekeeping);
            let open = frames.filter(|one| !table.sim.sim_env.network.is_cut(one.frame.from, one.frame.to));
            open.min_by_key(|one| one.frame.number).map(|one| Choice::Deliver(one.name))
        }
        Policy::Random => {
            let frames = table.frames();
            let weighted: Vec<(Choice, u64)> = possible()
                .filter_map(|choice| match choice {
                    Choice::Deliver(name) if !is_housekeeping(&frames, name) => Some((choice, 10)),
                    Choice::Timer(_, _, name) if !story::is_housekeeping(name) => Some((choice, 1)),
                    _ => None,
                })
                .collect();
            pick(&weighted, random)
        }
        Policy::Duel => {
            let deliveries: Vec<Choice> = possible().filter(|choice| matches!(choice, Choice::Deliver(_))).collect();
            let delivered = deliveries.into_iter().find(|choice| delays(table, choice));
            let timers = || {
                possible().find(|choice| {
                    matches!(choice, Choice::Timer(_, RoleKind::Proposer, "Nacked" | "Backoff" | "Attempt"))
                })
            };
            delivered.or_else(timers)
        }
    }
}

fn is_housekeeping(frames: &[NamedFrame], name: MessageName) -> bool {
    frames.iter().any(|one| one.name == name && one.text.is_housekeeping)
}

/// Whether a delivery keeps anything from being chosen: phase 1 goes on, and an ACCEPT is refused.
fn delays(table: &Table, choice: &Choice) -> bool {
    let Choice::Deliver(name) = choice else { return false };
    match (name.name, name.to) {
        ("REQUEST" | "PROMISE" | "NACK", _) => true,
        ("PREPARE", Endpoint::Server(to)) => {
            ballot_of(table, choice).is_some_and(|ballot| promise_of(table, to) < ballot)
        }
        ("ACCEPT", Endpoint::Server(to)) => {
            ballot_of(table, choice).is_some_and(|ballot| promise_of(table, to) > ballot)
        }
        _ => false,
    }
}

fn ballot_of(table: &Table, choice: &Choice) -> Option<Ballot> {
    let Choice::Deliver(name) = choice else { return None };
    table.frames().into_iter().find(|one| one.name == *name)?.text.ballot
}

fn promise_of(table: &Table, server: ServerId) -> Ballot {
    table.acceptor(server).0
}

fn pick(weighted: &[(Choice, u64)], random: &mut Random) -> Option<Choice> {
    let sum: u64 = weighted.iter().map(|(_, weight)| weight).sum();
    let mut at = random.within(1..=sum.max(1));
    weighted
        .iter()
        .find(|(_, weight)| {
            let is_here = at <= *weight;
            at = at.saturating_sub(*weight);
            is_here
        })
        .map(|(choice, _)| *choice)
}

/// The result of a search for a break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Searched {
    /// The choices that break it, shortened; None if none were found.
    pub found: Option<Vec<Choice>>,
    /// Number of random walks.
    pub walks: usize,
    /// Number of choices of all walks.
    pub steps: usize,
}

/// The bounds of a search.
pub struct SearchBounds<'a> {
    /// The search ends after this time.
    pub time: Duration,
    /// The search ends after this number of walks.
    pub walks: usize,
    /// The search ends as soon as this holds.
    pub is_stopped: &'a dyn Fn() -> bool,
}

/// Searches for a way to break a guarantee, from the state after these choices, by random walks. A break is then
/// shortened: a choice without which it still breaks is left out.
pub fn search(
    exercise: &Exercise,
    mode: Mode,
    start: &[Choice],
    seed: u64,
    bounds: &SearchBounds<'_>,
) -> Result<Searched, String> {
    let end = Instant::now() + bounds.time;
    let mut searched = Searched { found: None, walks: 0, steps: 0 };
    let is_over = || Instant::now() >= end || (bounds.is_stopped)();
    while searched.walks < bounds.walks.min(WALKS_MAX) && !is_over() {
        let mut random = Random::new(seed, 1_000 + searched.walks as u64);
        let mut game = Game::play(exercise, mode, start)?;
        searched.walks += 1;
        while game.broken.is_none() && game.steps.len() < (start.len() + WALK_STEPS_MAX).min(CHOICES_MAX) && !is_over()
        {
            let Some(choice) = wander(&game.table, &mut random) else { break };
            game.choose(choice);
            searched.steps += 1;
        }
        if game.broken.is_some() {
            searched.found = Some(shorten(exercise, mode, start.len(), up_to_break(&game), &is_over)?);
            break;
        }
    }
    Ok(searched)
}

/// A random choice: mostly deliveries, sometimes a crash or what follows from one.
pub fn wander(table: &Table, random: &mut Random) -> Option<Choice> {
    let weighted = table.choices().into_iter().filter(|one| one.off.is_none()).filter_map(|one| {
        let weight = match one.choice {
            Choice::Deliver(_) => 10,
            Choice::Timer(_, _, name) if story::is_housekeeping(name) => return None,
            Choice::Timer(..) => 3,
            Choice::Crash(
                _,
                RoleKind::Acceptor | RoleKind::Participant | RoleKind::Coordinator,
                CrashPoint::BeforeStep,
            ) => 1,
            Choice::Restart(..) => 10,
            Choice::Timeout(_) => 1,
            _ => return None,
        };
        Some((one.choice, weight))
    });
    pick(&weighted.collect::<Vec<_>>(), random)
}

/// The choices that fitted, up to the one that broke a guarantee.
fn up_to_break(game: &Game) -> Vec<Choice> {
    let mut choices = game.fitting();
    if let Some((step, _)) = &game.broken {
        choices.truncate(*step);
    }
    choices
}

/// Leaves out choices behind the first `fixed` ones while the rest still breaks a guarantee: large pieces first.
fn shorten(
    exercise: &Exercise,
    mode: Mode,
    fixed: usize,
    mut choices: Vec<Choice>,
    is_over: &dyn Fn() -> bool,
) -> Result<Vec<Choice>, String> {
    let fixed = fixed.min(choices.len());
    let mut piece = (choices.len() - fixed) / 2;
    while piece > 0 {
        let mut at = fixed;
        let mut is_shorter = false;
        while at < choices.len() && !is_over() {
            let mut fewer = choices.clone();
            fewer.drain(at..(at + piece).min(fewer.len()));
            let game = Game::play(exercise, mode, &fewer)?;
            if game.broken.is_some() {
                choices = up_to_break(&game);
                is_shorter = true;
            } else {
                at += piece;
            }
        }
        if is_over() {
            break;
        }
        if !is_shorter || piece > 1 {
            piece /= 2;
        }
    }
    Ok(choices)
}
