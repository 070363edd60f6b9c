//! Tests of clusters that are only partly connected, and still must find a leader. They cover the three cases of Ng,
//! Haridi, Carbone, *Omni-Paxos: Breaking the Barriers of Partial Connectivity*, EuroSys 2023, and some of our own.
//!
//! In each case at least one server can reach a majority. Within four election time-outs a value must be chosen again,
//! and from then on the leader must stay.

use super::env::{MS, Micros, SECOND};
use super::faults::FaultSet;
use super::network::Endpoint;
use super::plan::RunPlan;
use super::simulation::{CrashKind, Simulation};
use paxos_kv::paxos::{Ballot, Slot};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::{ServerId, ServerSet};

/// The longest election time-out.
const ELECTION: Micros = 300 * MS;
/// Within this time a value must be chosen again.
const SOON: Micros = 4 * ELECTION;
/// The seeds of each case: with four, each of the other servers is in the middle once.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=4;

struct PartitionCase {
    sim: Simulation,
    seed: u64,
    /// The time up to which the case has run. The simulation's own clock stands still while it has no events.
    now: Micros,
}

impl PartitionCase {
    /// A cluster that works, with a leader.
    fn begin(seed: u64, servers: u8) -> PartitionCase {
        let mut plan = RunPlan::new(seed, FaultSet::NONE, Some(Protocol::MultiPaxos));
        plan.starts_admitted = true;
        (plan.servers, plan.clocks) = (servers, vec![100; servers.into()]);
        // Writes only: a server that hears the leader but no majority can forward a write, but cannot answer a read.
        (plan.clients, plan.requests, plan.keys, plan.reads) = (8, 60_000, 8, 0);
        plan.in_flight = 1;
        plan.value_bytes = 24;
        (plan.think, plan.timeout, plan.fault_phase_end) = (5 * MS..=20 * MS, 10 * SECOND, 100 * SECOND);
        (plan.sync, plan.processor) = (100..=1_000, 2..=50);
        (plan.link_faults.latency, plan.link_faults.jitter) = (100, 100);
        let mut case = PartitionCase { sim: Simulation::new(plan, false), seed, now: 0 };
        case.run(SECOND);
        assert!(case.leader().is_some() && case.chosen() > Slot(10), "seed {seed}: the cluster does not start");
        case
    }

    fn run(&mut self, time: Micros) {
        self.now += time;
        let kept = self.sim.run_until(self.now, |_| false);
        assert!(kept.is_ok(), "seed {}: {kept:?}", self.seed);
    }

    /// The highest ballot that leads.
    fn leader(&self) -> Option<Ballot> {
        let proposer = |server: &super::server::SimServer| server.process.as_ref()?.proposer.as_ref()?.role().leads();
        self.sim.servers.iter().filter_map(proposer).max()
    }

    fn chosen(&self) -> Slot {
        self.sim.sim_env.oracle.highest_chosen()
    }

    fn servers(&self) -> ServerSet {
        self.sim.plan.cluster()
    }

    /// Cuts the links between two servers, or restores them.
    fn cut(&mut self, one: ServerId, other: ServerId, on: bool) {
        for (from, to) in [(one, other), (other, one)] {
            self.sim.sim_env.network.cut(Endpoint::Server(from), Endpoint::Server(to), on);
        }
    }

    /// Cuts all links except between the pairs for which `hear` holds.
    fn connect(&mut self, can_reach: impl Fn(ServerId, ServerId) -> bool) {
        for one in self.servers().iter() {
            for other in self.servers().iter().filter(|other| *other > one) {
                if !can_reach(one, other) {
                    self.cut(one, other, true);
                }
            }
        }
    }

    /// Checks that values are chosen soon, by a leader that then stays; returns its ballot.
    fn await_new_leader(&mut self, case: &str) -> Ballot {
        let (seed, begun, before) = (self.seed, self.now, self.chosen());
        // Values that were in flight when the links were cut do not count.
        while self.chosen() <= before.plus(10) {
            let passed = self.now - begun;
            assert!(passed <= SOON, "{case}, seed {seed}: no value is chosen within {} ms", SOON / MS);
            self.run(10 * MS);
        }
        self.run(SOON.saturating_sub(self.now - begun));
        let leader = self.leader();
        for _ in 0..10 {
            let before = self.chosen();
            self.run(ELECTION);
            assert_eq!(self.leader(), leader, "{case}, seed {seed}: the leader changes");
            assert!(self.chosen() > before, "{case}, seed {seed}: no value is chosen under a stable leader");
        }
        leader.expect("a slot is chosen")
    }
}

/// All servers but the leader.
fn others(servers: ServerSet, leader: ServerId) -> Vec<ServerId> {
    servers.without(ServerSet::only(leader)).iter().collect()
}

#[test]
fn quorum_loss_leader_that_reaches_no_majority_is_replaced() {
    for seed in SEEDS {
        let mut case = PartitionCase::begin(seed, 5);
        let leader = case.leader().expect("the cluster has started").server;
        let hub = others(case.servers(), leader)[seed as usize % 4];
        // Every server hears only the hub, and so does the leader.
        case.connect(|one, other| one == hub || other == hub);
        assert_eq!(case.await_new_leader("quorum loss").server, hub, "seed {seed}: no other server can lead");
    }
}

#[test]
fn constrained_election_only_electable_server_lacks_the_latest_slots() {
    for seed in SEEDS {
        let mut case = PartitionCase::begin(seed, 5);
        let leader = case.leader().expect("the cluster has started").server;
        let hub = others(case.servers(), leader)[seed as usize % 4];
        for other in others(case.servers(), hub) {
            case.cut(hub, other, true);
        }
        case.run(500 * MS);
        for other in others(case.servers(), hub) {
            case.cut(hub, other, false);
        }
        assert_eq!(case.leader().map(|leader| leader.server), Some(leader), "seed {seed}: the partition has no effect");
        case.connect(|one, other| (one == hub || other == hub) && one != leader && other != leader);
        assert_eq!(case.await_new_leader("constrained election").server, hub, "seed {seed}: no other server can lead");
    }
}

#[test]
fn chained_server_that_knows_the_leader_does_not_campaign() {
    for seed in SEEDS {
        let mut case = PartitionCase::begin(seed, 3);
        let leader = case.leader().expect("the cluster has started");
        let end = others(case.servers(), leader.server)[seed as usize % 2];
        case.cut(leader.server, end, true);
        assert_eq!(case.await_new_leader("chained"), leader, "seed {seed}: the partition has no effect");
    }
}

#[test]
fn leader_that_can_send_but_not_receive_is_replaced() {
    for seed in SEEDS {
        let mut case = PartitionCase::begin(seed, 5);
        let leader = case.leader().expect("the cluster has started").server;
        for other in others(case.servers(), leader) {
            case.sim.sim_env.network.cut(Endpoint::Server(other), Endpoint::Server(leader), true);
        }
        assert_ne!(case.await_new_leader("deaf leader").server, leader, "seed {seed}");
    }
}

#[test]
fn server_that_returns_from_a_partition_does_not_disturb_the_leader() {
    for seed in SEEDS {
        let mut case = PartitionCase::begin(seed, 5);
        let leader = case.leader().expect("the cluster has started");
        let lonely = others(case.servers(), leader.server)[seed as usize % 4];
        for on in [true, false] {
            for other in others(case.servers(), lonely) {
                case.cut(lonely, other, on);
            }
            case.run(3 * SECOND);
        }
        assert_eq!(case.await_new_leader("back from a partition"), leader, "seed {seed}: the partition has no effect");
    }
}

/// Does something to the leader, and checks that another one leads within two of the longest election time-outs.
fn replaced_soon(what: &str, happens: impl Fn(&mut PartitionCase, ServerId)) {
    for seed in SEEDS {
        let mut case = PartitionCase::begin(seed, 5);
        let leader = case.leader().expect("the cluster has started").server;
        happens(&mut case, leader);
        let (begun, before) = (case.now, case.chosen());
        while case.chosen() <= before.plus(10) {
            let passed = case.now - begun;
            assert!(passed <= 2 * ELECTION, "{what}, seed {seed}: no value is chosen for {} ms", passed / MS);
            case.run(5 * MS);
        }
        assert_ne!(case.await_new_leader(what).server, leader, "{what}, seed {seed}");
    }
}

#[test]
fn crashed_leader_is_replaced_within_two_time_outs() {
    replaced_soon("crashed leader", |case, leader| case.sim.kill(leader, CrashKind::Process));
}

#[test]
fn isolated_leader_is_replaced_within_two_time_outs() {
    replaced_soon("isolated leader", |case, leader| {
        for other in others(case.servers(), leader) {
            case.cut(leader, other, true);
        }
    });
}
