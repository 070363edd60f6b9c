//! Tests of what `status` says about writes: set up lasting conditions, read the verdict, then try a write.

use std::collections::VecDeque;

use super::client::{ClientStep, SimClient};
use super::env::{MS, Micros, SECOND};
use super::faults::FaultSet;
use super::network::Endpoint;
use super::plan::RunPlan;
use super::simulation::{CrashKind, Simulation};
use paxos_kv::host::CrashRequest;
use paxos_kv::kv::Op;
use paxos_kv::net::{AvailabilityVerdict, ServerStatus, Writes};
use paxos_kv::protocol::Protocol;
use paxos_kv::random::Random;
use paxos_kv::role::{ServerId, ServerSet};
use paxos_kv::trace::{CrashCause, CrashPoint};

/// After this time every server has noticed the conditions.
const NOTICED: Micros = 10 * SECOND;
/// With "writes OK", a write completes within one try at some server, and at any server within the client's time-out
/// for a request. With "no writes", none completes within that time-out.
const ONE_TRY: Micros = 2 * SECOND;
const REQUEST: Micros = 10 * SECOND;

/// Counts over many runs, to see that each verdict occurred.
#[derive(Debug, Default)]
struct VerdictCounts {
    ok: u32,
    spare: u32,
    no_leader: u32,
    no: u32,
}

/// A cluster without faults that has completed a few writes.
fn begin(seed: u64, protocol: Protocol) -> Simulation {
    let mut plan = RunPlan::new(seed, FaultSet::NONE, Some(protocol));
    let servers = 3 + (seed % 3) as u8;
    (plan.servers, plan.clocks, plan.healthy) = (servers, vec![100; usize::from(servers)], ServerSet::first(servers));
    (plan.clients, plan.requests, plan.keys, plan.in_flight) = (2, 10, 5, 1);
    (plan.mailbox, plan.part_bytes, plan.sessions) = (1_024, 64 << 10, 64);
    (plan.sync, plan.processor, plan.segment_bytes) = (100..=1_000, 2..=50, 64 << 10);
    (plan.link_faults.latency, plan.link_faults.jitter) = (100, 100);
    (plan.think, plan.timeout) = (0..=MS, 10 * SECOND);
    plan.starts_admitted = true;
    let mut sim = Simulation::new(plan, false);
    let end = 30 * SECOND;
    let done = sim.run_until(end, |sim| sim.clients.iter().all(SimClient::is_done));
    assert_eq!(done, Ok(true), "seed {seed}: the cluster does not start");
    sim
}

fn advance(sim: &mut Simulation, time: Micros) {
    let end = sim.sim_env.now() + time;
    let passed = sim.run_until(end, |_| false);
    assert!(passed.is_ok(), "{passed:?}");
}

/// Sets up a random lasting condition, and describes it.
fn set_condition(sim: &mut Simulation, random: &mut Random) -> String {
    let servers: Vec<ServerId> = sim.plan.cluster().iter().collect();
    let server = servers[random.within(0..=servers.len() as u64 - 1) as usize];
    let other = servers[(server.0 as u64 - 1 + random.within(1..=servers.len() as u64 - 1)) as usize % servers.len()];
    let at = usize::from(server.0) - 1;
    match random.within(0..=9) {
        0 | 1 => {
            sim.stop(server, CrashKind::Process);
            format!("{server} stops")
        }
        2..=5 => {
            let roles = sim.plan.protocol.roles_as_named();
            let role = roles[random.within(0..=roles.len() as u64 - 1) as usize];
            let order = CrashRequest { point: CrashPoint::BeforeStep, cause: CrashCause::Admin, down: None };
            sim.servers[at].crash(&mut sim.sim_env, role, order);
            format!("the {} of {server} stops", role.as_str())
        }
        6 => {
            for files in sim.server(server).dir.all() {
                let used: usize = files.image().values().map(Vec::len).sum();
                files.set_capacity(Some(used as u64));
            }
            format!("{server}'s disk is full")
        }
        way => {
            let both = [(server, other), (other, server)];
            let ways = if way == 7 { &both[..1] } else { &both[..] };
            for (from, to) in ways {
                sim.sim_env.network.cut(Endpoint::Server(*from), Endpoint::Server(*to), true);
            }
            format!("{server} and {other} are cut ({} of 2 ways)", ways.len())
        }
    }
}

/// The verdict that follows from the status of all servers that are up.
fn verdict(sim: &mut Simulation) -> AvailabilityVerdict {
    let mut answers: Vec<ServerStatus> = Vec::new();
    for server in &mut sim.servers {
        server.with_core(&mut sim.sim_env, |core, env| answers.push(core.status(env)));
    }
    AvailabilityVerdict::of(sim.plan.cluster(), &answers)
}

/// Lets new clients make one write each, one starting at each server. Returns how long each write took; None if it did
/// not complete.
fn probe(sim: &mut Simulation) -> Vec<Option<Micros>> {
    let (begun, first) = (sim.sim_env.now(), sim.clients.len());
    for server in sim.plan.cluster().iter() {
        let put = Op::Put { key: b"probe".to_vec(), value: b"v"[..].into(), if_version: None };
        let (client_steps, pace, number) =
            (VecDeque::from([ClientStep::Write(put)]), (0..=0, REQUEST), sim.clients.len());
        let client = SimClient::new(&mut sim.sim_env, number, sim.plan.cluster(), client_steps, server, pace, false);
        sim.clients.push(client);
    }
    advance(sim, REQUEST);
    let operations = sim.sim_env.history.operations();
    let took = |client| {
        let done = operations.iter().find(|one| one.client == client && one.has_result())?;
        Some(done.at? - begun)
    };
    (first..sim.clients.len()).map(took).collect()
}

/// Whether writes complete as "writes OK" promises.
fn is_written(sim: &mut Simulation) -> bool {
    let took = probe(sim);
    took.iter().all(Option::is_some) && took.iter().flatten().any(|took| *took <= ONE_TRY)
}

/// Runs one case: sets up conditions, reads the verdict, and checks it.
fn check_verdict(seed: u64, protocol: Protocol, met: &mut VerdictCounts) -> Result<(), String> {
    let mut random = Random::new(seed, 7);
    let mut sim = begin(seed, protocol);
    let mut told: Vec<String> = (0..random.within(1..=4)).map(|_| set_condition(&mut sim, &mut random)).collect();
    advance(&mut sim, NOTICED);
    let said = verdict(&mut sim);
    let wrong = |told: &[String], what: &str| Err(format!("seed {seed}, {protocol}, {told:?}: {said:?}, {what}"));
    match said.writes {
        Writes::Ok { spare } => {
            met.ok += 1;
            if !is_written(&mut sim) {
                return wrong(&told, "and no write succeeds");
            }
            if spare == 0 {
                return Ok(());
            }
            met.spare += 1;
            let mut alive: Vec<ServerId> =
                sim.servers.iter().filter(|server| server.process.is_some()).map(|server| server.me).collect();
            for _ in 0..spare.min(alive.len()) {
                let server = alive.swap_remove(random.within(0..=alive.len() as u64 - 1) as usize);
                sim.stop(server, CrashKind::Process);
                told.push(format!("then {server} stops"));
            }
            advance(&mut sim, NOTICED);
            if !is_written(&mut sim) {
                return wrong(&told, "and no write succeeds after these failures");
            }
        }
        // "At the moment": a leader without a quorum may notice that only when it gets a request, as it does now.
        Writes::NoLeader => {
            met.no_leader += 1;
            let is_written = is_written(&mut sim);
            let then = verdict(&mut sim);
            if is_written != matches!(then.writes, Writes::Ok { .. }) {
                return wrong(&told, &format!("then {then:?}, and a write succeeds: {is_written}"));
            }
        }
        Writes::No => {
            met.no += 1;
            if probe(&mut sim).iter().any(Option::is_some) {
                return wrong(&told, "and a write succeeds");
            }
        }
    }
    Ok(())
}

#[test]
fn cluster_status_predicts_whether_writes_succeed() {
    for protocol in [Protocol::BasicPaxos, Protocol::MultiPaxos, Protocol::TwoPhaseCommit] {
        let mut met = VerdictCounts::default();
        let wrong: Vec<String> = (1..=400).filter_map(|seed| check_verdict(seed, protocol, &mut met).err()).collect();
        println!("{protocol}: {met:?}");
        assert!(wrong.is_empty(), "{} of 400 are wrong:\n{}", wrong.len(), wrong.join("\n"));
        assert!(met.ok > 20 && met.no > 20, "{met:?}");
        // Two-phase commit needs every participant, so it has no spare server.
        assert!(met.spare > 20 || protocol == Protocol::TwoPhaseCommit, "{met:?}");
    }
}
