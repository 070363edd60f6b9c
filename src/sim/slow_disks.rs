//! Clusters whose disks are all slow: a leader that waits for them must not be taken for one that is gone.

use super::client::SimClient;
use super::faults::Faults;
use super::marks::Mark;
use super::nature::{MS, Micros, SECOND};
use super::plan::Plan;
use super::world::World;
use crate::protocol::Protocol;
use crate::role::Servers;

/// Sixteen clients of five servers, each of whose syncs takes so long.
fn world(seed: u64, sync: Micros) -> World {
    let mut plan = Plan::new(seed, Faults::NONE, Some(Protocol::MultiPaxos));
    (plan.servers, plan.clocks, plan.healthy) = (5, vec![100; 5], Servers::first(5));
    (plan.clients, plan.requests, plan.keys, plan.reads, plan.under_way) = (16, 60_000, 50, 0, 1);
    (plan.value_bytes, plan.mailbox, plan.part_bytes, plan.sessions) = (600, 1_024, 64 << 10, 64);
    (plan.sync, plan.processor, plan.segment_bytes) = (sync..=sync, 2..=50, 256 << 10);
    (plan.weather.latency, plan.weather.jitter, plan.weather.rate) = (100, 100, None);
    (plan.think, plan.timeout, plan.safety) = (0..=0, 30 * SECOND, 200 * SECOND);
    plan.retention.checkpoint_slots = 10_000;
    plan.retention.checkpoint_bytes = 32 << 20;
    plan.is_acquainted = true;
    World::new(plan, false)
}

/// How many elections a cluster needs in its first minute, and how many writes it does in the last fifty seconds of it.
fn in_a_minute(seed: u64, sync: Micros) -> (u32, usize) {
    let mut world = world(seed, sync);
    let mut done_by = |end| {
        let passed = world.go_on(end, |_| false);
        assert!(passed.is_ok(), "{passed:?}");
        world.nature.history.operations().iter().filter(|one| one.has_result()).count()
    };
    let (begun, done) = (done_by(10 * SECOND), done_by(60 * SECOND));
    assert!(!world.clients.iter().all(SimClient::is_done), "there is more to do");
    (world.nature.marks.count(Mark::LeaderChanged) + 1, done - begun)
}

#[test]
fn a_leader_stays_while_all_disks_are_slow_and_each_write_takes_two_syncs() {
    for sync in [400 * MS, 900 * MS] {
        for seed in 1..=6 {
            let (elections, writes) = in_a_minute(seed, sync);
            println!("seed {seed}, syncs of {} ms: {elections} elections, {writes} writes", sync / MS);
            assert!(elections <= 2, "seed {seed}: {elections} elections");
            // All clients write side by side, and each write waits for the group before its own.
            let groups = 50 * SECOND / (2 * sync);
            assert!(writes as u64 >= groups * 16 * 9 / 10, "seed {seed}: {writes} writes");
        }
    }
}
