//! Tests of a server that lags far behind, and of what can happen while it fetches a snapshot.

use super::client::SimClient;
use super::coverage::CoveragePoint;
use super::env::{MS, Micros, SECOND};
use super::faults::FaultSet;
use super::network::Endpoint;
use super::plan::RunPlan;
use super::simulation::{CrashKind, Simulation};
use paxos_kv::paxos::{Retention, Slot};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::{ServerId, ServerSet};
use paxos_kv::seeded_bugs::{self, Bug};

/// Within this virtual time a server catches up, however long it was disconnected.
const SOON: Micros = 10 * SECOND;
/// The server that is disconnected.
const LAGGING: ServerId = ServerId(5);

struct LaggingCase {
    sim: Simulation,
    now: Micros,
}

impl LaggingCase {
    /// Five servers and forty clients, with this number of writes and this maximum pause. A snapshot takes about 40
    /// chunks.
    fn begin(seed: u64, requests: usize, think: Micros) -> LaggingCase {
        LaggingCase { sim: Simulation::new(LaggingCase::plan(seed, requests, think), false), now: 0 }
    }

    /// The same with a snapshot of about 400 chunks: while it is fetched, the other servers make many checkpoints.
    fn begin_large(seed: u64, requests: usize, think: Micros) -> LaggingCase {
        let mut plan = LaggingCase::plan(seed, requests, think);
        (plan.keys, plan.snapshot_bytes) = (400, 100);
        plan.retention.keep_bytes = 4 << 20;
        LaggingCase { sim: Simulation::new(plan, false), now: 0 }
    }

    fn plan(seed: u64, requests: usize, think: Micros) -> RunPlan {
        let mut plan = RunPlan::new(seed, FaultSet::NONE, Some(Protocol::MultiPaxos));
        (plan.servers, plan.clocks, plan.healthy) = (5, vec![100; 5], ServerSet::first(5));
        (plan.clients, plan.requests, plan.keys, plan.reads, plan.deletes) = (40, requests, 100, 0, 5);
        plan.in_flight = 1;
        (plan.value_bytes, plan.snapshot_bytes, plan.mailbox) = (600, 1_000, 1_024);
        (plan.part_bytes, plan.segment_bytes, plan.sessions) = (64 << 10, 256 << 10, 64);
        (plan.sync, plan.processor) = (100..=1_000, 2..=50);
        (plan.link_faults.latency, plan.link_faults.jitter) = (100, 100);
        (plan.think, plan.timeout, plan.fault_duration_max) = (0..=think, 10 * SECOND, 100 * MS);
        plan.retention =
            Retention { checkpoint_slots: 200, checkpoint_bytes: 1 << 20, keep_slots: 50, keep_bytes: 1 << 20 };
        plan.starts_admitted = true;
        plan
    }

    /// Runs for at most this time, until `is_so` holds; returns whether it does.
    fn until(&mut self, most: Micros, condition: impl Fn(&Simulation) -> bool) -> bool {
        let end = self.now + most;
        while self.now < end {
            if condition(&self.sim) {
                return true;
            }
            self.now += 10 * MS;
            let kept = self.sim.run_until(self.now, |_| false);
            assert!(kept.is_ok(), "{kept:?}");
        }
        condition(&self.sim)
    }

    /// Disconnects server 5 from all others in both directions, or reconnects it.
    fn set_cut_off(&mut self, on: bool) {
        for other in self.sim.plan.cluster().without(ServerSet::only(LAGGING)).iter() {
            for (from, to) in [(LAGGING, other), (other, LAGGING)] {
                self.sim.sim_env.network.cut(Endpoint::Server(from), Endpoint::Server(to), on);
            }
        }
    }

    fn parts(&self) -> u32 {
        self.sim.sim_env.coverage.count(CoveragePoint::SnapshotInChunks)
    }

    fn installs(&self) -> u32 {
        let coverage = &self.sim.sim_env.coverage;
        coverage.count(CoveragePoint::SnapshotInstalled) + coverage.count(CoveragePoint::SnapshotTwice)
    }

    /// Whether all servers have the same state, up to the highest chosen slot.
    fn is_agreed(sim: &Simulation) -> bool {
        let highest = sim.sim_env.oracle.highest_chosen();
        let state = |server: ServerId| sim.servers[usize::from(server.0) - 1].applied();
        let first = state(ServerId(1));
        let same = sim.plan.cluster().iter().all(|server| state(server).is_some() && state(server) == first);
        same && first.is_some_and(|(applied, _)| applied >= highest)
    }
}

fn is_done(sim: &Simulation) -> bool {
    sim.clients.iter().all(SimClient::is_done)
}

fn applied(sim: &Simulation, server: ServerId) -> Slot {
    sim.servers[usize::from(server.0) - 1].applied().map_or(Slot(0), |(slot, _)| slot)
}

/// Disconnects a server while all these commands are done, and then reconnects it.
fn away_for(commands: usize) {
    let mut case = LaggingCase::begin(1, commands, 0);
    assert!(case.until(10 * SECOND, |sim| applied(sim, LAGGING) > Slot(50)), "the cluster does not start");
    case.set_cut_off(true);
    let before = applied(&case.sim, LAGGING);
    assert!(case.until(3_600 * SECOND, is_done), "the other servers make no progress");
    assert!(applied(&case.sim, LAGGING).ahead_of(before) < 1_000, "the lagging server is not down");
    let missed = case.sim.sim_env.oracle.highest_chosen().ahead_of(applied(&case.sim, LAGGING));
    assert!(missed as usize > commands * 9 / 10, "only {missed} of {commands} were missed");
    case.set_cut_off(false);
    let joined = case.now;
    assert!(
        case.until(SOON, LaggingCase::is_agreed),
        "not within {SOON}us, {:?} of {missed}",
        applied(&case.sim, LAGGING)
    );
    println!("missed {missed} slots, and had them after {} virtual ms", (case.now - joined) / MS);
    assert_eq!(case.installs(), 1, "the log is longer than any server keeps");
    let checked = case.sim.sim_env.history.check_slots();
    assert!(checked.is_ok(), "{checked:?}");
}

#[test]
fn server_that_missed_three_thousand_commands_catches_up_soon() {
    away_for(3_000);
}

/// `cargo test --release --lib away_for_a_hundred_thousand -- --ignored --nocapture`
#[test]
#[ignore = "takes a minute or more"]
fn server_that_missed_a_hundred_thousand_commands_catches_up_soon() {
    away_for(100_000);
}

#[test]
fn snapshot_transfer_survives_crashes_of_receiver_and_sender() {
    for seed in 1..=6 {
        let mut case = LaggingCase::begin(seed, 2_000, 0);
        assert!(case.until(10 * SECOND, |sim| applied(sim, LAGGING) > Slot(50)));
        case.set_cut_off(true);
        assert!(case.until(600 * SECOND, is_done));
        case.set_cut_off(false);
        // The receiver crashes during its first snapshot. During the next ones every possible sender crashes, one after
        // the other. A snapshot has more chunks than that.
        let how = if seed % 2 == 0 { CrashKind::Power } else { CrashKind::Process };
        for (victim, parts) in [(5, 5), (1, 4), (2, 4), (3, 4), (4, 4), (5, 9)] {
            let from = case.parts();
            if !case.until(SOON, |sim| sim.sim_env.coverage.count(CoveragePoint::SnapshotInChunks) >= from + parts) {
                break;
            }
            assert_eq!(case.installs(), 0, "seed {seed}: it caught up too soon for this test");
            case.sim.kill(ServerId(victim), how);
        }
        assert!(case.parts() > 25, "seed {seed}: only {} parts were sent", case.parts());
        assert!(case.until(3 * SOON, LaggingCase::is_agreed), "seed {seed}: {:?}", applied(&case.sim, LAGGING));
        // The crashed servers have restarted from their checkpoints, and some of them needed a snapshot, too.
        assert!(case.installs() >= 1, "seed {seed}");
    }
}

#[test]
fn lagging_server_installs_two_snapshots_while_the_others_continue() {
    for seed in 1..=3 {
        let mut case = LaggingCase::begin(seed, 80_000, 2 * MS);
        for installs in 1..=3 {
            assert!(case.until(SOON, |sim| applied(sim, LAGGING) > Slot(50)), "seed {seed}");
            case.set_cut_off(true);
            let end = Slot(case.sim.sim_env.oracle.highest_chosen().0 + 1_000);
            assert!(case.until(600 * SECOND, |sim| sim.sim_env.oracle.highest_chosen() > end), "seed {seed}");
            case.set_cut_off(false);
            assert!(case.until(SOON, |sim| applied(sim, LAGGING) > end), "seed {seed}: the server does not restart");
            let has_caught_up =
                |sim: &Simulation| sim.sim_env.oracle.highest_chosen().ahead_of(applied(sim, LAGGING)) < 50;
            assert!(case.until(SOON, has_caught_up), "seed {seed}: the server does not catch up");
            // Its next PROGRESS messages tell its peers, and then no peer keeps a log for it any more.
            case.until(SECOND, |_| false);
            assert!(case.installs() >= installs, "seed {seed}: {} snapshots", case.installs());
        }
        assert!(!is_done(&case.sim), "seed {seed}: the other servers made no progress meanwhile");
        assert!(case.sim.sim_env.coverage.count(CoveragePoint::SnapshotTwice) >= 2);
        assert!(case.until(600 * SECOND, |sim| is_done(sim) && LaggingCase::is_agreed(sim)), "seed {seed}");
    }
}

/// Reconnects a server while the others write faster than it could fetch a snapshot, if the log were trimmed as usual.
/// Returns the number of snapshots until it had caught up, and whether it did within 5 seconds.
fn catches_up_under_load(seed: u64, bug: Option<Bug>) -> (u32, bool) {
    seeded_bugs::switch(bug);
    let mut case = LaggingCase::begin_large(seed, 60_000, 20 * MS);
    if bug.is_some() {
        case.sim.sim_env.oracle.check_user_visible_only();
    }
    assert!(case.until(10 * SECOND, |sim| applied(sim, LAGGING) > Slot(50)), "seed {seed}");
    case.set_cut_off(true);
    let end = Slot(case.sim.sim_env.oracle.highest_chosen().0 + 2_000);
    assert!(case.until(600 * SECOND, |sim| sim.sim_env.oracle.highest_chosen() > end), "seed {seed}");
    case.set_cut_off(false);
    let (begun, before) = (case.now, case.sim.sim_env.oracle.highest_chosen());
    let has_caught_up = |sim: &Simulation| {
        let highest = sim.sim_env.oracle.highest_chosen();
        applied(sim, LAGGING) > before && highest.ahead_of(applied(sim, LAGGING)) < 50
    };
    let has_caught_up = case.until(5 * SECOND, has_caught_up);
    seeded_bugs::switch(None);
    assert!(!is_done(&case.sim), "seed {seed}: the load has ended");
    let written = case.sim.sim_env.oracle.highest_chosen().ahead_of(before);
    println!("seed {seed}, {bug:?}: {} states, {written} slots in {} ms", case.installs(), (case.now - begun) / MS);
    (case.installs(), has_caught_up)
}

#[test]
fn restarted_server_needs_one_snapshot_under_a_steady_load() {
    for seed in 1..=2 {
        assert_eq!(catches_up_under_load(seed, None), (1, true), "seed {seed}");
    }
    // Without the pinned log it fetches one snapshot after the other, and none is enough.
    let (states, has_caught_up) = catches_up_under_load(1, Some(Bug::LogTrimmedDuringTransfer));
    assert!(states > 1 && !has_caught_up, "{states} states");
}
