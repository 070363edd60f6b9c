//! Tests with small disks that hold little more than a server needs: its journal fills the disk, and must free files
//! without help.

use std::sync::atomic::Ordering;

use super::client::SimClient;
use super::coverage::CoveragePoint;
use super::env::{MS, SECOND};
use super::faults::FaultSet;
use super::plan::RunPlan;
use super::simulation::Simulation;
use paxos_kv::paxos::{Retention, Slot};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::ServerSet;

/// Three servers and twenty clients that make this number of writes. Between two checkpoints the journal needs some
/// files.
fn sim(seed: u64, requests: usize) -> Simulation {
    let mut plan = RunPlan::new(seed, FaultSet::NONE, Some(Protocol::MultiPaxos));
    (plan.servers, plan.clocks, plan.healthy) = (3, vec![100; 3], ServerSet::first(3));
    (plan.clients, plan.requests, plan.keys, plan.reads, plan.deletes) = (20, requests, 50, 0, 5);
    plan.in_flight = 1;
    (plan.value_bytes, plan.snapshot_bytes, plan.mailbox) = (1_200, 8_000, 1_024);
    (plan.part_bytes, plan.segment_bytes, plan.sessions) = (64 << 10, 64 << 10, 64);
    (plan.sync, plan.processor) = (100..=1_000, 2..=50);
    (plan.link_faults.latency, plan.link_faults.jitter) = (100, 100);
    (plan.think, plan.timeout, plan.fault_duration_max) = (0..=MS, 10 * SECOND, 100 * MS);
    plan.retention =
        Retention { checkpoint_slots: 300, checkpoint_bytes: 1 << 20, keep_slots: 50, keep_bytes: 1 << 20 };
    plan.starts_admitted = true;
    Simulation::new(plan, false)
}

/// Runs for at most this number of virtual seconds, until `is_so` holds; returns whether it does.
fn until(sim: &mut Simulation, seconds: u64, condition: impl Fn(&Simulation) -> bool) -> bool {
    let end = sim.sim_env.now() + seconds * SECOND;
    let done = sim.run_until(end, condition);
    assert!(done.is_ok(), "{done:?}");
    done == Ok(true)
}

/// Limits each disk to this number of further journal files, and the growth that a checkpoint may need.
fn limit_disks(sim: &mut Simulation, files: u64) {
    for server in &sim.servers {
        let growth = server.process.as_ref().map(|process| process.core.checkpoints.growth().load(Ordering::Relaxed));
        server.dir.limit_space(growth.map(|growth| growth + files * server.segment_bytes()));
    }
}

fn is_done(sim: &Simulation) -> bool {
    sim.clients.iter().all(SimClient::is_done)
}

/// A run after its first 1500 slots, with limited disks. The state has its full size by then, so that room for one more
/// growth of the checkpoint is enough.
fn started_sim(seed: u64, files: u64) -> Simulation {
    let mut sim = sim(seed, 6_000);
    assert!(until(&mut sim, 10, |sim| sim.sim_env.oracle.highest_chosen() > Slot(1_500)), "the cluster does not start");
    limit_disks(&mut sim, files);
    sim
}

#[test]
fn servers_with_disks_full_of_journal_files_recover_by_themselves() {
    for (seed, files) in [(1, 1), (2, 1), (3, 2), (4, 3)] {
        let mut sim = started_sim(seed, files);
        let done = until(&mut sim, 120, is_done);
        let (shed, chosen) = (sim.sim_env.coverage.count(CoveragePoint::DiskFull), sim.sim_env.oracle.highest_chosen());
        let failed = sim.sim_env.coverage.count(CoveragePoint::CheckpointShed);
        println!(
            "seed {seed}, {files} files: {shed} shed, {failed} checkpoints failed, {chosen} slots, {} virtual ms",
            sim.sim_env.now() / MS
        );
        assert!(done && chosen > Slot(5_500), "seed {seed}, {files} files: {chosen} slots, {shed} values shed");
        assert!(files > 1 || shed > 0, "seed {seed}: the disk was never full");
    }
}
