//! Tests of the simulator: runs are repeatable, healthy code is clean, and broken code is not.

use std::collections::BTreeSet;

use super::batch::{BatchConfig, SeedBatch, run_one, shrink};
use super::coverage::CoveragePoint;
use super::faults::{Fault, FaultSet};
use super::oracle::Oracle;
use super::plan::RunPlan;
use super::process_env::SimClock;
use super::simulation::{RunReport, RunVerdict};
use paxos_kv::kv::Kv;
use paxos_kv::paxos::{AcceptorRecord, Ballot, Entry, Quorums, Slot, Value};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::{ServerId, ServerSet};
use paxos_kv::seeded_bugs::Bug;
use paxos_kv::time::Time;
use paxos_kv::trace::audit::Audit;
use paxos_kv::trace::parse::Run;

const PLAIN: BatchConfig = BatchConfig { allowed: FaultSet::NONE, bug: None, protocol: None, user_visible_only: false };

fn all() -> BatchConfig {
    BatchConfig { allowed: FaultSet::all(), ..PLAIN }
}

fn batch(first: u64, last: u64, config: BatchConfig) -> SeedBatch {
    SeedBatch { first, last, time: None, config, threads: 2 }
}

fn assert_clean(report: &RunReport, faults: FaultSet) {
    assert_eq!(report.verdict, RunVerdict::Clean, "seed {} --faults {faults}", report.seed);
}

#[test]
fn same_seed_gives_same_run_with_and_without_log_lines() {
    let mut hashes = BTreeSet::new();
    for seed in 1..=8 {
        let once = run_one(seed, all(), false);
        let again = run_one(seed, all(), false);
        let with_lines = run_one(seed, all(), true);
        assert_eq!((once.trace, once.events), (again.trace, again.events), "seed {seed}");
        assert_eq!((once.trace, once.events), (with_lines.trace, with_lines.events), "seed {seed} with lines");
        hashes.insert(once.trace);
    }
    assert_eq!(hashes.len(), 8, "each seed gives another run");
}

#[test]
fn fifty_seeds_with_all_faults_are_clean() {
    let summary = batch(1, 50, all()).run(|_| {});
    assert_eq!((summary.runs, summary.failure), (50, None));
    assert!(summary.slots > 1_000, "only {} slots were applied", summary.slots);
}

/// The hashes of runs are part of the source, so that a change that should not affect runs can prove it. A change that
/// should affect them replaces the file.
#[test]
fn runs_equal_the_recorded_ones() {
    let recorded = include_str!("../../tests/trace_hashes.txt").lines().filter(|line| !line.starts_with('#'));
    let found = Protocol::ALL.map(|protocol| {
        let config = BatchConfig { allowed: FaultSet::all(), protocol: Some(protocol), ..PLAIN };
        format!("{} {:016x}", protocol.name(), batch(1, 60, config).run(|_| {}).trace)
    });
    assert_eq!(
        recorded.collect::<Vec<_>>(),
        found,
        "write these to tests/trace_hashes.txt if runs were meant to change"
    );
}

#[test]
fn clock_with_changing_speed_never_jumps() {
    let mut clock = SimClock::new(100);
    let mut shown = clock.at(0);
    for (speed, now) in [(2, 1_003), (3_000, 1_501), (3_000, 1_502), (100, 1_777), (50, 9_001)] {
        assert_eq!(clock.run_at(speed, now), now != 1_502);
        assert!(clock.at(now) >= shown, "at {now}");
        shown = clock.at(now);
        assert!(clock.when(Time(shown.0 - 1)) <= now, "a time that was shown is not due");
        let due = clock.when(Time(shown.0 + 7));
        assert!(clock.at(due).0 >= shown.0 + 7 && clock.at(due - 1).0 < shown.0 + 7, "at {now}");
    }
}

#[test]
fn each_fault_class_alone_is_clean_and_has_an_effect() {
    for fault in Fault::ALL {
        let faults = FaultSet::only(*fault);
        let calm = batch(1, 8, BatchConfig { allowed: FaultSet::NONE, ..PLAIN }).run(|_| {}).events;
        let summary = batch(1, 8, BatchConfig { allowed: faults, ..PLAIN }).run(|report| assert_clean(report, faults));
        assert_eq!(summary.failure, None, "{faults}");
        assert_ne!(summary.events, calm, "{faults} has no effect");
    }
}

/// A line of `tests/seeds.txt`: seed, protocol, fault classes, the commit that it was recorded with, and what it found.
fn recorded(line: &str) -> (u64, BatchConfig) {
    let mut words = line.split_whitespace();
    let seed = words.next().and_then(|word| word.parse().ok()).unwrap();
    let protocol = words.next().unwrap();
    let protocol = Protocol::ALL.into_iter().find(|one| one.name() == protocol);
    assert!(protocol.is_some(), "{line}");
    let allowed = words.next().and_then(|word| word.parse().ok()).unwrap();
    let commit = words.next().unwrap();
    assert!(commit.len() >= 7 && commit.bytes().all(|digit| digit.is_ascii_hexdigit()), "no commit: {line}");
    assert!(words.next().is_some(), "it has no description: {line}");
    (seed, BatchConfig { allowed, protocol, ..PLAIN })
}

#[test]
fn seeds_that_found_bugs_are_clean() {
    let mut count = 0;
    for line in include_str!("../../tests/seeds.txt").lines().filter(|line| !line.starts_with('#')) {
        let (seed, config) = recorded(line);
        assert_clean(&run_one(seed, config, false), config.allowed);
        count += 1;
    }
    assert!(count >= 4);
}

/// All faults but one: log lines whose clocks jump do not always show where a history ends.
fn of_one_history() -> BatchConfig {
    BatchConfig { allowed: FaultSet::all().without(Fault::NewHistory), ..PLAIN }
}

#[test]
fn log_lines_of_a_run_prove_it() {
    for seed in [1, 5, 12, 40] {
        let report = run_one(seed, of_one_history(), true);
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in &report.lines {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let run = Run::read(dir.path()).unwrap();
        let audit = Audit::new(&run);
        assert_eq!(audit.verdict().exit_code(), 0, "seed {seed}: {}", audit.explain(&run));
    }
}

#[test]
fn two_phase_commit_keeps_its_rules_under_all_faults() {
    let config = BatchConfig { protocol: Some(Protocol::TwoPhaseCommit), ..all() };
    let summary = batch(1, 120, config).run(|_| {});
    assert_eq!(summary.failure, None);
    // Without these points the test would prove little.
    for mark in [
        CoveragePoint::Blocked,
        CoveragePoint::Unblocked,
        CoveragePoint::CooperativeCommit,
        CoveragePoint::CooperativeAbort,
        CoveragePoint::PresumedAbort,
    ] {
        assert!(summary.coverage.count(mark) > 0, "{mark:?}");
    }
    for seed in [1, 4, 9] {
        let report = run_one(seed, BatchConfig { protocol: config.protocol, ..of_one_history() }, true);
        let mut run = Run::default();
        for (name, text) in &report.lines {
            run.add(name, text.as_bytes(), u64::MAX).unwrap();
        }
        let audit = Audit::new(&run);
        assert_eq!(audit.verdict().exit_code(), 0, "seed {seed}: {}", audit.explain(&run));
    }
}

#[test]
fn log_lines_of_several_histories_show_no_violation() {
    for protocol in Protocol::ALL {
        let begins_anew = BatchConfig { allowed: FaultSet::only(Fault::NewHistory), protocol: Some(protocol), ..PLAIN };
        for seed in 1..=6 {
            let mut run = Run::default();
            for (name, text) in &run_one(seed, begins_anew, true).lines {
                run.add(name, text.as_bytes(), u64::MAX).unwrap();
            }
            let audit = Audit::new(&run);
            assert_ne!(audit.verdict().exit_code(), 7, "{protocol}, seed {seed}: {}", audit.explain(&run));
        }
    }
}

/// Each bug must be found within 100 seeds.
#[test]
fn seeded_bugs_are_found() {
    // Bugs that need hundreds of seeds are left to the search for all bugs. (Two ballots are seldom in one batch of an
    // acceptor, because a PREPARE goes before the ACCEPTs that wait.)
    let rare = [
        Bug::NewDiskVotes,
        Bug::RereadIsDurable,
        Bug::ExpiredIsAlwaysCertain,
        Bug::AcceptedNamesLaterBallot,
        Bug::OldReadAnswersCount,
    ];
    for bug in Bug::ALL.iter().filter(|bug| !rare.contains(bug)) {
        let finds = |protocol| {
            let config = BatchConfig { bug: Some(*bug), protocol: Some(protocol), ..all() };
            batch(1, 100, config).run(|_| {}).failure.is_some()
        };
        // Some bugs need a leader to show, and some need many rivals.
        let found = match bug.protocol() {
            Some(protocol) => finds(protocol),
            None => finds(Protocol::BasicPaxos) || finds(Protocol::MultiPaxos),
        };
        assert!(found, "{} was not found in 100 seeds: {}", bug.name(), bug.says());
    }
}

#[test]
fn page_of_seeded_bugs_names_every_bug() {
    let page = include_str!("../../../../docs/seeded-bugs.md");
    let told: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()).collect();
    for bug in Bug::ALL {
        assert!(
            told.contains(&bug.name()),
            "{} is missing: generate the page again (its introduction names the command)",
            bug.name()
        );
    }
    assert!(!page.contains("not in"), "a seeded bug was not found");
}

#[test]
fn failure_is_shown_with_fewer_faults() {
    // The bug needs no fault at all, so `shrink` leaves only as many classes as it must.
    let config = BatchConfig { bug: Some(Bug::LearnWithoutQuorum), ..all() };
    let count = |seed: &u64| RunPlan::new(*seed, config.allowed, config.protocol).faults.count();
    let seed = (1..100).find(|seed| count(seed) > FaultSet::FEW + 4).unwrap();
    let verdict = run_one(seed, config, false).verdict;
    let least = shrink(seed, config, &verdict);
    assert_eq!(least.allowed.count(), FaultSet::FEW + 1, "of {}", count(&seed));
    let again = run_one(seed, least, false).verdict;
    assert_eq!(again.exit_code(), verdict.exit_code(), "{again}");
}

#[test]
fn failure_names_the_violated_invariant() {
    let violation = |bug| {
        let config = BatchConfig { bug: Some(bug), protocol: Some(Protocol::BasicPaxos), ..PLAIN };
        match batch(1, 50, config).run(|_| {}).failure {
            Some((_, RunVerdict::Unsafe(violation))) => violation.invariant,
            other => panic!("{bug:?} ended with {other:?}"),
        }
    };
    assert_eq!(violation(Bug::PromiseNotWritten), 5);
    assert_eq!(violation(Bug::RetryReusesBallot), 11);
    assert_eq!(violation(Bug::ReadsAnsweredLocally), 17);
    assert_eq!(violation(Bug::LearnWithoutQuorum), 9);
}

#[test]
fn oracle_counts_durable_votes() {
    let mut oracle = Oracle::new(Protocol::BasicPaxos, Quorums::majority(ServerSet::first(3)), Kv::default());
    let mut coverage = super::coverage::Coverage::default();
    let ballot = |round, server| Ballot { round, server: ServerId(server) };
    let accepted = |ballot, id| {
        let command = paxos_kv::paxos::Command { id: paxos_kv::paxos::CommandId::new(0, 0, id), payload: [].into() };
        AcceptorRecord::Accepted(Entry { slot: Slot(1), ballot, value: Value::Command(command) })
    };
    oracle.durable(ServerId(1), &[accepted(ballot(1, 1), 7)], &mut coverage);
    oracle.durable(ServerId(2), &[accepted(ballot(2, 2), 8)], &mut coverage);
    assert_eq!(oracle.highest_chosen(), Slot(0), "two votes, at two ballots");
    oracle.durable(ServerId(2), &[accepted(ballot(3, 2), 7)], &mut coverage);
    oracle.durable(ServerId(3), &[accepted(ballot(3, 2), 7)], &mut coverage);
    assert_eq!(oracle.highest_chosen(), Slot(1));
    assert_eq!(oracle.violation(), None);
    oracle.durable(ServerId(1), &[accepted(ballot(4, 1), 9)], &mut coverage);
    oracle.durable(ServerId(3), &[accepted(ballot(4, 1), 9)], &mut coverage);
    assert_eq!(oracle.violation().map(|violation| violation.invariant), Some(1));
}

/// Seeds chosen by hand, as in `PAXOS_SEEDS=1..500 PAXOS_BUG=LogCutBeforeCheckpoint cargo test --lib seeds_chosen_by_hand --
/// --ignored --nocapture`, for a developer who has only a test build.
#[test]
#[ignore = "runs what the environment asks for"]
fn seeds_chosen_by_hand() {
    let (first, last) = std::env::var("PAXOS_SEEDS")
        .ok()
        .and_then(|seeds| seeds.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?))))
        .unwrap_or((1, 100));
    let bug = std::env::var("PAXOS_BUG").ok().map(|bug| bug.parse().unwrap());
    let allowed = std::env::var("PAXOS_FAULTS").map_or(FaultSet::all(), |faults| faults.parse().unwrap());
    let named = |name: &String| Protocol::ALL.into_iter().find(|one| one.name() == name);
    let protocol = std::env::var("PAXOS_PROTOCOL").ok().map(|name| named(&name).unwrap());
    let config = BatchConfig { allowed, bug, protocol, ..PLAIN };
    let begun = std::time::Instant::now();
    let summary = batch(first, last, config).run(|_| {});
    println!("{} runs, {} slots, {:.1} s", summary.runs, summary.slots, begun.elapsed().as_secs_f64());
    for mark in summary.coverage.missing(config.protocol) {
        println!("not reached: {mark:?}");
    }
    match summary.failure {
        None => println!("clean"),
        Some((seed, verdict)) => println!("seed {seed}: {verdict:?}"),
    }
    if let Ok(dir) = std::env::var("PAXOS_LINES") {
        let report = run_one(first, config, true);
        for (name, text) in &report.lines {
            std::fs::write(std::path::Path::new(&dir).join(name), text).unwrap();
        }
    }
}
