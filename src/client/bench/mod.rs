//! `paxos-client bench`: measures the throughput of a cluster and the latency of its requests.
//!
//! A *closed loop* keeps a fixed number of requests in flight for each client, and begins the next one when one has
//! ended: it measures the maximum throughput. An *open loop* (`--rate`) begins each request when it is due, even if
//! earlier ones have not ended: it measures the latency for users who do not wait for each other. There, latency counts
//! from the moment when the request was due. So if a cluster stops for a second, every request of that second is
//! counted with its delay.
//!
//! The generator shares the machine with the servers that it measures, so it must be cheap. One thread drives many
//! connections, and reads all received data of a socket with one call. The report includes the CPU time of the
//! generator, and that of the servers if they are on this machine.

mod cpu_usage;
mod load;
mod readiness;
mod summary;
mod sweep;

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;

use super::cluster_status::ClusterStatus;
use super::operation::Operation;
use super::outcome::ClientError;
use super::printer::Printer;
use super::{Client, ClientOptions, IN_FLIGHT_MAX};
use crate::cluster::Cluster;
use crate::random::Random;
use crate::role::ServerId;

pub use crate::net::allow_many_sockets;
pub use summary::BenchReport;
pub use sweep::{SweepPlan, run as sweep};

use cpu_usage::ServerProcesses;
use load::{BenchClient, FailedTries, LoadThread};
use summary::{BenchTally, WriteGap};

/// Maximum number of clients in a bench: a server accepts 1,200 connections.
pub const CLIENTS_MAX: u32 = 1_100;
/// Maximum number of threads in a bench.
pub const THREADS_MAX: u32 = 16;
/// Maximum wait for servers without a leader to elect one; then they are measured anyway.
const ELECTION: Duration = Duration::from_secs(2);
/// Maximum number of writes in flight while the keys are filled before the measurement.
const FILL_IN_FLIGHT: usize = IN_FLIGHT_MAX;

/// The configuration of a measurement.
#[derive(Clone, Debug)]
pub struct BenchPlan {
    /// Number of clients, each with its own connection and session.
    pub clients: u32,
    /// Number of requests that each client keeps in flight.
    pub pipeline: u32,
    /// Time of the measurement.
    pub duration: Duration,
    /// Time that the load runs before the measurement.
    pub warm_up: Duration,
    /// Percentage of requests that are reads.
    pub reads: u8,
    /// The length of a value, in bytes.
    pub value_size: usize,
    /// Number of keys.
    pub keys: u64,
    /// Open loop: requests per second, all clients together. None: closed loop.
    pub rate: Option<u32>,
    /// The servers that the clients ask first, in turn. None: the leader, or the first server that answers.
    pub at: Option<Vec<ServerId>>,
    /// Number of threads of the generator.
    pub threads: u32,
    /// Maximum time for a whole request.
    pub timeout: Duration,
}

impl Default for BenchPlan {
    fn default() -> BenchPlan {
        BenchPlan {
            clients: 64,
            pipeline: 1,
            duration: Duration::from_secs(10),
            warm_up: Duration::from_secs(1),
            reads: 50,
            value_size: 100,
            keys: 10_000,
            rate: None,
            at: None,
            threads: 1,
            timeout: Duration::from_secs(10),
        }
    }
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// No server answered.
    #[error("no server replies, so there is nothing to measure. Next: paxos-client status")]
    NoReply,
    /// A write before the measurement failed.
    #[error("the keys to read could not be written before the measurement: {0}")]
    NotFilled(ClientError),
    /// The clients could not be created.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// An operation of this machine failed.
    #[error("{what}: {error}")]
    Machine {
        /// What was tried.
        what: String,
        /// Why it failed.
        error: std::io::Error,
    },
    /// A server of a sweep has ended.
    #[error("server {} of the sweep exited ({status}): {stderr}", .server.0)]
    ServerEnded {
        /// The server that ended.
        server: ServerId,
        /// Its exit status.
        status: ExitStatus,
        /// Its last message.
        stderr: String,
    },
    /// The servers of a sweep did not start in time.
    #[error("the servers of the sweep did not all reply within {} s", .0.as_secs())]
    NotUp(Duration),
    /// The server program is missing.
    #[error("server program not found: {}. Next: cargo build --release", .0.display())]
    NoServer(PathBuf),
}

impl BenchError {
    fn machine(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> BenchError {
        let what = what.into();
        move |error| BenchError::Machine { what, error }
    }
}

/// Measures a cluster. `tell` gets one line per second, and another line if tries have failed.
pub fn run(cluster: &Cluster, plan: &BenchPlan, tell: &(dyn Fn(String) + Sync)) -> Result<BenchReport, BenchError> {
    let cluster_status = survey_with_leader(cluster);
    let Some(first) = cluster_status.statuses().next() else { return Err(BenchError::NoReply) };
    let at = plan.at.clone().unwrap_or_else(|| vec![cluster_status.leader_id().unwrap_or(first.server)]);
    let (protocol, forgets) = (first.protocol.clone(), first.restart != "disk");
    let processes = ServerProcesses::of(cluster, &cluster_status);
    if plan.reads > 0 && cluster_status.statuses().all(|status| status.keys < plan.keys) {
        fill(cluster, plan, at[0])?;
    }

    let began = Instant::now() + plan.warm_up;
    let ends = began + plan.duration;
    let (gap, faults) = (Arc::new(WriteGap::new(began)), Arc::new(FailedTries::default()));
    let mut lanes = lanes(cluster, plan, &at, &faults)?;
    let (seconds, told) = unbounded();
    let per_thread = lanes.len().div_ceil(plan.threads as usize);
    let tally = thread::scope(|scope| {
        let mut threads = Vec::new();
        while !lanes.is_empty() {
            let share = lanes.drain(..per_thread.min(lanes.len())).collect();
            let number = threads.len() as u64;
            let (gap, seconds) = (gap.clone(), seconds.clone());
            let rate = plan.rate.map(|rate| f64::from(rate) / f64::from(plan.clients));
            let load = move || LoadThread::new(share, plan, rate, (began, ends), gap, number)?.run(&seconds);
            let thread = thread::Builder::new().name(format!("load-{number}")).spawn_scoped(scope, load);
            threads.push(thread.map_err(BenchError::machine("cannot start a thread"))?);
        }
        drop(seconds);
        thread::sleep(began.saturating_duration_since(Instant::now()));
        let before = processes.usage();
        let mut all = BenchTally::default();
        for second in 1.. {
            let mut one = BenchTally::default();
            // Every thread sends one tally per second, and at the end a last one with the rest.
            (0..threads.len()).filter_map(|_| told.recv().ok()).for_each(|tally| one.add(&tally));
            all.add(&one);
            if one.took.is_zero() {
                break;
            }
            tell(one.line(second));
            faults.take().into_iter().for_each(tell);
        }
        let used = processes.usage().since(&before);
        for thread in threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        all.finish(began, ends);
        Ok::<_, BenchError>((all, used))
    });
    let (tally, used) = tally?;
    let durability =
        if forgets { "fsync=on, but acceptors lose their promises at restarts: UNSAFE" } else { "fsync=on" };
    Ok(BenchReport {
        plan: plan.clone(),
        tally,
        used,
        durability: durability.to_string(),
        protocol,
        servers: cluster.servers().len(),
        at,
        longest_gap: gap.longest(ends),
    })
}

/// The status of the servers once one of them leads. Just after their start they may still be electing a leader.
fn survey_with_leader(cluster: &Cluster) -> ClusterStatus {
    let deadline = Instant::now() + ELECTION;
    loop {
        let cluster_status = ClusterStatus::query(cluster, Duration::from_secs(2));
        let may_lead = cluster_status.statuses().any(|status| status.protocol == "multi-paxos");
        if !may_lead || cluster_status.leader_id().is_some() || Instant::now() >= deadline {
            return cluster_status;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Creates the clients of the load.
fn lanes(
    cluster: &Cluster,
    plan: &BenchPlan,
    at: &[ServerId],
    faults: &Arc<FailedTries>,
) -> Result<Vec<BenchClient>, BenchError> {
    let lane = |n: u32| {
        let options = ClientOptions {
            first_server: Some(at[n as usize % at.len()]),
            timeout: plan.timeout,
            // Labels help people to follow single requests; a bench has too many of them.
            ..ClientOptions::new(cluster.clone(), "")
        };
        let mut client = Client::new(options)?;
        let faults = faults.clone();
        client.on_failover(move |failed, next| faults.note(failed, next));
        Ok(BenchClient::new(client, Random::new(u64::from(n), 7)))
    };
    (0..plan.clients).map(lane).collect()
}

/// Writes every key once, so that reads find a value.
fn fill(cluster: &Cluster, plan: &BenchPlan, at: ServerId) -> Result<(), BenchError> {
    let options = ClientOptions { first_server: Some(at), ..ClientOptions::new(cluster.clone(), "") };
    let mut client = Client::new(options)?;
    let mut keys = 0..plan.keys;
    loop {
        while client.in_flight() < FILL_IN_FLIGHT
            && let Some(key) = keys.next()
        {
            client.queue(put(key, plan.value_size)).map_err(BenchError::NotFilled)?;
        }
        match client.wait_any() {
            Some((_, ended)) => drop(ended.end.map_err(BenchError::NotFilled)?),
            None => return Ok(()),
        }
    }
}

/// The n-th key, 16 bytes long.
fn key(n: u64) -> Vec<u8> {
    format!("key-{n:012}").into_bytes()
}

fn put(n: u64, value_size: usize) -> Operation {
    Operation::Put { key: key(n), value: vec![b'v'; value_size], if_version: None }
}

/// Runs a bench and prints the result: lines and a summary, or one JSON object.
pub fn report(cluster: &Cluster, plan: &BenchPlan, json: bool, printer: &Arc<Printer>) -> Result<(), BenchError> {
    allow_many_sockets();
    let tell = |line: String| if json { printer.warn(line) } else { printer.line(line) };
    let summary = run(cluster, plan, &tell)?;
    printer.line(if json { summary.json() } else { summary.to_string() });
    Ok(())
}
