//! The searched scopes: small ones in every test run, large ones with `cargo test --release --lib model -- --ignored`.

use std::time::Instant;

use stateright::{Checker, CheckerBuilder, Expectation, Model};

use super::Scope;
use paxos_kv::paxos::PAGE_BYTES;
use paxos_kv::seeded_bugs::Bug;

/// Three acceptors and two proposers, each with a ballot and a command, for one slot.
const DUEL: Scope = Scope {
    servers: 3,
    proposers: 2,
    learners: false,
    slots: 1,
    page_bytes: PAGE_BYTES,
    rounds: 1,
    duplicates: 0,
    acceptor_crashes: 0,
    proposer_crashes: 0,
    learner_restarts: 0,
    bug: None,
};

/// One command, from its proposer to every learner.
const LEARN: Scope = Scope { proposers: 1, learners: true, ..DUEL };

/// A proposer that finds two accepted slots receives each in its own page.
const PAGES: Scope = Scope { learners: true, slots: 2, rounds: 2, page_bytes: 1, ..DUEL };

fn print_result<C: Checker<Scope>>(name: &str, started: Instant, bound: Option<usize>, checker: &C) {
    let end = if bound.is_none_or(|bound| checker.state_count() < bound) { "all states" } else { "up to the bound" };
    let (states, depth, took) = (checker.unique_state_count(), checker.max_depth(), started.elapsed().as_secs_f64());
    println!("{name}: {states} states ({end}), up to {depth} steps, {took:.1} s");
}

/// Uses two threads, the minimum number of cores of the test machines.
fn checker(scope: Scope) -> CheckerBuilder<Scope> {
    scope.checker().threads(2)
}

/// Searches a scope completely: every reachable state.
fn exhaust(name: &str, scope: Scope) {
    let started = Instant::now();
    let checker = checker(scope).spawn_bfs().join();
    print_result(name, started, None, &checker);
    checker.assert_properties();
}

/// Searches breadth-first up to about this number of states, and expects no violation.
fn search(name: &str, scope: Scope, steps: usize) {
    let started = Instant::now();
    let checker = checker(scope).target_state_count(steps).spawn_bfs().join();
    print_result(name, started, Some(steps), &checker);
    assert_eq!(violated_property(&checker), None);
}

/// The name of a violated rule, if there is one.
fn violated_property<C: Checker<Scope>>(checker: &C) -> Option<&'static str> {
    let rules = checker.model().properties().into_iter().filter(|one| one.expectation == Expectation::Always);
    rules.map(|rule| rule.name).find(|name| checker.discovery(name).is_some())
}

#[test]
fn two_proposers_and_one_slot_exhaustively() {
    exhaust("two proposers, one slot", DUEL);
}

#[test]
fn one_command_to_every_learner_exhaustively() {
    exhaust("one command, three learners", LEARN);
}

#[test]
fn learner_that_restarts_empty_learns_the_same_values() {
    search("a learner restarts", Scope { learner_restarts: 1, ..LEARN }, 300_000);
}

#[test]
fn three_proposers_and_one_slot_up_to_the_bound() {
    search("three proposers, one slot", Scope { proposers: 3, rounds: 2, duplicates: 1, ..DUEL }, 200_000);
}

#[test]
fn two_proposers_and_two_slots_up_to_the_bound() {
    search("two proposers, two slots", Scope { learners: true, slots: 2, rounds: 3, duplicates: 1, ..DUEL }, 200_000);
}

#[test]
fn promises_in_two_pages_up_to_the_bound() {
    search("two proposers, two slots, two pages", PAGES, 200_000);
}

#[test]
fn acceptors_and_proposers_that_crash_restart_with_their_disk() {
    let scope = Scope { acceptor_crashes: 1, proposer_crashes: 1, ..DUEL };
    search("an acceptor and a proposer crash", scope, 200_000);
}

#[test]
fn model_checker_finds_seeded_bugs() {
    let with_crash = Scope { acceptor_crashes: 1, ..DUEL };
    let deep = Scope { rounds: 2, ..DUEL };
    let bugs = [
        (Bug::PromiseNotWritten, with_crash),
        (Bug::AcceptedNotWritten, with_crash),
        (Bug::AcceptDoesNotPromise, deep),
        (Bug::OwnValueAlways, DUEL),
    ];
    for (bug, scope) in bugs {
        let started = Instant::now();
        let checker = checker(Scope { bug: Some(bug), ..scope }).target_state_count(400_000).spawn_bfs().join();
        print_result(bug.name(), started, Some(400_000), &checker);
        assert!(violated_property(&checker).is_some(), "{} was not found", bug.name());
    }
}

#[test]
#[ignore = "some ten million states: takes minutes and gigabytes of memory"]
fn three_proposers_and_one_slot_ten_million_states() {
    let started = Instant::now();
    let scope = Scope { proposers: 3, ..DUEL };
    let checker = checker(scope).target_state_count(40_000_000).spawn_bfs().join();
    print_result("three proposers, one slot", started, Some(40_000_000), &checker);
    assert_eq!(violated_property(&checker), None);
}
