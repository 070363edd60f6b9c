//! One round: a new cluster, client load, faults, a recovery phase in which the cluster must become healthy, and a
//! verdict.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::capabilities::Capabilities;
use super::client_load::{ChaosLoad, LoadTally};
use super::injector::{FaultCounts, FaultInjector};
use super::plan::{RoundPlan, SERVERS};
use super::test_cluster::{ChaosCluster, START_TIMEOUT, arguments, is_connected, is_converged};
use super::verify::{RoundFailure, RoundVerdict, verify};
use paxos_kv::client::name::ClientName;
use paxos_kv::client::{Client, ClientError, ClientOptions};
use paxos_kv::random::Random;
use paxos_kv::role::{ServerId, ServerSet};

/// Time for which clients continue after all faults have ended.
const QUIET_TIME: Duration = Duration::from_millis(1_500);
/// Interval between checks of the servers' processes.
const CHECK_INTERVAL: Duration = Duration::from_millis(25);
/// Size of a minority of five servers; the others must work without it.
const MINORITY: usize = 2;
/// Extra time for a request to end after its time-out, on an overloaded machine.
const REQUEST_SLACK: Duration = Duration::from_secs(15);
/// Name of the fault log in the round's directory.
pub const FAULT_LOG: &str = "faults.txt";

/// The result of a round.
#[derive(Debug, Default)]
pub struct RoundResult {
    /// Counts of the injected faults.
    pub fault_counts: FaultCounts,
    /// Results that clients received.
    pub tally: LoadTally,
    /// The verdict on the lines.
    pub verdict: RoundVerdict,
}

/// Runs a round in this directory. `is_over` ends it early, but in order.
pub fn run_round(
    plan: &RoundPlan,
    dir: &Path,
    program: &Path,
    capabilities: &mut Capabilities,
    is_over: &AtomicBool,
) -> Result<RoundResult, (RoundFailure, FaultCounts)> {
    let mut done = FaultCounts::default();
    let played = run_cluster(plan, dir, program, capabilities, is_over, &mut done);
    match played.and_then(|tally| Ok((tally, verify(dir)?))) {
        Ok((tally, judgement)) => Ok(RoundResult { fault_counts: done, tally, verdict: judgement }),
        // A stuck cluster may also have broken a rule, and that is the worse failure.
        Err(failure @ RoundFailure::Stuck(_)) => match verify(dir) {
            Err(broken @ RoundFailure::Violation(_)) => Err((broken, done)),
            _ => Err((failure, done)),
        },
        Err(failure) => Err((failure, done)),
    }
}

fn run_cluster(
    plan: &RoundPlan,
    dir: &Path,
    program: &Path,
    capabilities: &mut Capabilities,
    is_over: &AtomicBool,
    fault_counts: &mut FaultCounts,
) -> Result<LoadTally, RoundFailure> {
    let mut cluster = ChaosCluster::prepare(plan, dir, program, capabilities).map_err(RoundFailure::NotRun)?;
    for server_process in cluster.processes.values_mut() {
        server_process.start().map_err(RoundFailure::NotRun)?;
    }
    cluster.await_status("all five servers must be connected", is_connected)?;
    let load = ChaosLoad::new(&plan.load, plan.seed, cluster.client_addresses.clone(), dir);
    let acted = std::thread::scope(|scope| {
        let clients = start_clients(scope, &load);
        let mut injector = FaultInjector::new(&mut cluster, capabilities, plan.seed);
        let struck = inject_faults(&mut injector, plan, is_over)
            .and_then(|()| injector.end_all())
            .and_then(|()| heal(injector.cluster(), plan, &load));
        let story = injector.log().to_string();
        *fault_counts = std::mem::take(&mut injector.counts);
        load.stop.store(true, Ordering::Relaxed);
        // Write the fault log even if the round has failed.
        let written = std::fs::write(dir.join(FAULT_LOG), story);
        struck?;
        written.map_err(|error| RoundFailure::NotRun(format!("cannot write {FAULT_LOG}: {error}")))?;
        await_clients(clients, plan)
    });
    acted?;
    finish(&mut cluster, plan)?;
    Ok(load.tally())
}

/// The threads of the clients.
pub type ClientThreads<'scope> = Vec<ScopedJoinHandle<'scope, Result<(), String>>>;

/// Starts the clients.
pub fn start_clients<'scope>(
    scope: &'scope Scope<'scope, '_>,
    load: &'scope ChaosLoad<'scope>,
) -> ClientThreads<'scope> {
    (0..load.plan.clients).map(|lane| scope.spawn(move || load.run(lane))).collect()
}

/// Waits until every client has ended, which means that each request has ended in time.
pub fn await_clients(clients: ClientThreads<'_>, plan: &RoundPlan) -> Result<(), RoundFailure> {
    let deadline = Instant::now() + plan.load.time_limits.1 + REQUEST_SLACK;
    while clients.iter().any(|client| !client.is_finished()) {
        if Instant::now() >= deadline {
            let waited = plan.load.time_limits.1 + REQUEST_SLACK;
            // The end of the scope would wait for this client without limit.
            eprintln!("NO PROGRESS: a request has not ended after {waited:?}, its time limit plus slack");
            std::process::abort();
        }
        std::thread::sleep(CHECK_INTERVAL);
    }
    for client in clients {
        match client.join() {
            Ok(done) => done.map_err(RoundFailure::NotRun)?,
            Err(_) => {
                return Err(RoundFailure::Violation(
                    "the client library panicked; the panic message is above".to_string(),
                ));
            }
        }
    }
    Ok(())
}

/// Begins and ends all faults at their times.
fn inject_faults(injector: &mut FaultInjector<'_>, plan: &RoundPlan, is_over: &AtomicBool) -> Result<(), RoundFailure> {
    let mut moments = Vec::new();
    for (number, planned) in plan.faults.iter().enumerate() {
        moments.push((planned.at, false, number));
        moments.push((planned.at + planned.lasts, true, number));
    }
    moments.retain(|(at, ..)| *at < plan.duration);
    moments.sort();
    moments.push((plan.duration, true, usize::MAX));
    let started = Instant::now();
    for (at, is_end, number) in moments {
        while started.elapsed() < at {
            if is_over.load(Ordering::Relaxed) {
                return Ok(());
            }
            injector.cluster().check_processes()?;
            std::thread::sleep(CHECK_INTERVAL.min(at.saturating_sub(started.elapsed())));
        }
        match plan.faults.get(number) {
            Some(_) if is_end => injector.end(number)?,
            Some(strike) => injector.begin(number, &strike.fault)?,
            None => {}
        }
    }
    Ok(())
}

/// Restarts every server without random role crashes, and waits until clients complete requests again.
pub fn heal(cluster: &mut ChaosCluster, plan: &RoundPlan, load: &ChaosLoad<'_>) -> Result<(), RoundFailure> {
    cluster.check_processes()?;
    for (server, server_process) in &mut cluster.processes {
        if !plan.role_crash_options.is_empty() {
            server_process.stop().map_err(RoundFailure::Stuck)?;
            server_process.set_arguments(arguments(plan, &cluster.dir, *server, false));
        }
        server_process.start().map_err(RoundFailure::NotRun)?;
    }
    cluster.await_status("all five servers must be connected again", is_connected)?;
    // The first request may wait for a leader, or for a transaction in doubt.
    let (before, deadline) = (load.ended().ok, Instant::now() + START_TIMEOUT);
    while load.ended().ok <= before {
        if Instant::now() >= deadline {
            let what = "no request succeeds, although all servers are up and connected".to_string();
            return Err(RoundFailure::Stuck(what));
        }
        cluster.check_processes()?;
        std::thread::sleep(CHECK_INTERVAL);
    }
    std::thread::sleep(QUIET_TIME);
    Ok(())
}

/// Checks that all replicas are equal, that a majority alone makes progress, that every server serves writes and reads,
/// and that each stops with success.
pub fn finish(cluster: &mut ChaosCluster, plan: &RoundPlan) -> Result<(), RoundFailure> {
    cluster.await_status("all five servers must have the same state", is_converged)?;
    let servers = cluster.server_addresses.clone();
    let identity =
        ClientName::in_log_dir(&cluster.dir, Some("final"), servers.servers()).map_err(RoundFailure::NotRun)?;
    let mut options = ClientOptions::new(servers.clone(), "final");
    options.trace = identity.trace;
    let mut client = Client::new(options).map_err(|error| RoundFailure::NotRun(error.to_string()))?;
    if plan.protocol.is_paxos() {
        check_progress_without_minority(cluster, &mut client, plan.seed)?;
    }
    for server in servers.servers().iter() {
        write_at(server, "at the end of the round", &mut client)?;
    }
    for server in servers.servers().iter() {
        for other in servers.servers().iter() {
            let found = client.set_server(server).and_then(|()| client.get_from_current(final_key(other).as_bytes()));
            let found = found.map_err(|error| stuck_failure(server, "at the end of the round", error))?;
            if found.value.as_deref() != Some(b"well") {
                let what = format!(
                    "server {} does not have the value that was written at server {} at the end of the round",
                    server.0, other.0
                );
                return Err(RoundFailure::Violation(what));
            }
        }
    }
    cluster.await_status("all five servers must have the same state", is_converged)?;
    for server in servers.servers().iter() {
        cluster.server_process(server).stop().map_err(RoundFailure::Violation)?;
    }
    Ok(())
}

/// With two servers down and no other fault, each of the others must complete a write. After a fault servers return
/// soon, so a protocol that needs more than a majority would only appear slow there.
fn check_progress_without_minority(
    cluster: &mut ChaosCluster,
    client: &mut Client,
    seed: u64,
) -> Result<(), RoundFailure> {
    let (all, mut random) = (cluster.server_addresses.servers(), Random::new(seed, 2));
    let mut away = ServerSet::NONE;
    while away.len() < MINORITY {
        away.insert(ServerId(random.within(1..=u64::from(SERVERS)) as u8));
    }
    for server in away.iter() {
        cluster.server_process(server).kill();
        cluster.server_process(server).reap();
    }
    for server in all.without(away).iter() {
        write_at(server, &format!("while {away} are down"), client)?;
    }
    for server in away.iter() {
        cluster.server_process(server).start().map_err(RoundFailure::NotRun)?;
    }
    cluster.await_status("all five servers must have the same state again", is_converged).map(drop)
}

fn write_at(server: ServerId, when: &str, client: &mut Client) -> Result<(), RoundFailure> {
    let written = client.set_server(server).and_then(|()| client.put(final_key(server).as_bytes(), b"well"));
    written.map(drop).map_err(|error| stuck_failure(server, when, error))
}

fn stuck_failure(server: ServerId, when: &str, error: ClientError) -> RoundFailure {
    RoundFailure::Stuck(format!("{when}, server {}: {error}", server.0))
}

fn final_key(server: ServerId) -> String {
    format!("final-{}", server.0)
}
