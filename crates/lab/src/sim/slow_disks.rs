//! Tests of clusters whose disks are all slow: a leader that waits for them must not be replaced.

use super::client::SimClient;
use super::coverage::CoveragePoint;
use super::env::{MS, Micros, SECOND};
use super::faults::FaultSet;
use super::plan::RunPlan;
use super::simulation::Simulation;
use paxos_kv::protocol::Protocol;
use paxos_kv::role::ServerSet;

/// Sixteen clients and five servers whose syncs take this time.
fn sim(seed: u64, sync: Micros) -> Simulation {
    let mut plan = RunPlan::new(seed, FaultSet::NONE, Some(Protocol::MultiPaxos));
    (plan.servers, plan.clocks, plan.healthy) = (5, vec![100; 5], ServerSet::first(5));
    (plan.clients, plan.requests, plan.keys, plan.reads, plan.in_flight) = (16, 60_000, 50, 0, 1);
    (plan.value_bytes, plan.mailbox, plan.part_bytes, plan.sessions) = (600, 1_024, 64 << 10, 64);
    (plan.sync, plan.processor, plan.segment_bytes) = (sync..=sync, 2..=50, 256 << 10);
    (plan.link_faults.latency, plan.link_faults.jitter, plan.link_faults.rate) = (100, 100, None);
    (plan.think, plan.timeout, plan.fault_phase_end) = (0..=0, 30 * SECOND, 200 * SECOND);
    plan.retention.checkpoint_slots = 10_000;
    plan.retention.checkpoint_bytes = 32 << 20;
    plan.starts_admitted = true;
    Simulation::new(plan, false)
}

/// Number of leaders that step down in the last 50 of a cluster's first 60 seconds, and the number of writes in that
/// time.
fn in_a_minute(seed: u64, sync: Micros) -> (u32, usize) {
    let mut sim = sim(seed, sync);
    let begun = done_by(&mut sim, 10 * SECOND);
    let ended_before = tenures_ended(&sim);
    let done = done_by(&mut sim, 60 * SECOND);
    assert!(!sim.clients.iter().all(SimClient::is_done), "there is more to do");
    (tenures_ended(&sim) - ended_before, done - begun)
}

/// Runs until `end`; returns the number of completed requests.
fn done_by(sim: &mut Simulation, end: Micros) -> usize {
    let passed = sim.run_until(end, |_| false);
    assert!(passed.is_ok(), "{passed:?}");
    sim.sim_env.history.operations().iter().filter(|one| one.has_result()).count()
}

/// Number of leaders that have stepped down.
fn tenures_ended(sim: &Simulation) -> u32 {
    let why = [
        CoveragePoint::LeaderRefused,
        CoveragePoint::LeaderSawLaterLeader,
        CoveragePoint::LeaderWithoutReplies,
        CoveragePoint::LeaderStalled,
        CoveragePoint::LearnerCrashed,
    ];
    why.into_iter().map(|mark| sim.sim_env.coverage.count(mark)).sum()
}

#[test]
fn leader_stays_while_all_disks_are_slow_and_each_write_takes_two_syncs() {
    for sync in [400 * MS, 900 * MS] {
        for seed in 1..=6 {
            let (ended, writes) = in_a_minute(seed, sync);
            println!("seed {seed}, syncs of {} ms: {ended} tenures ended, {writes} writes", sync / MS);
            assert!(ended <= 1, "seed {seed}: {ended} leaders have stepped down");
            // All clients write concurrently, and each write waits for the batch before its own.
            let groups = 50 * SECOND / (2 * sync);
            assert!(writes as u64 >= groups * 16 * 9 / 10, "seed {seed}: {writes} writes");
        }
    }
}
