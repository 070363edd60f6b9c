//! Client load of a round: threads that use the real client library until the round ends.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::plan::LoadPlan;
use paxos_kv::client::Operation;
use paxos_kv::client::name::ClientName;
use paxos_kv::client::{Client, ClientError, ClientOptions, CompletedOperation, OperationResult, OutcomeCounts};
use paxos_kv::cluster::Cluster;
use paxos_kv::random::Random;
use paxos_kv::role::ServerId;

/// Range of the pause after a failed request, in milliseconds: an immediate retry helps no client.
const AFTER_FAILURE: (u64, u64) = (5, 60);

/// State that all clients of a round share.
pub struct ChaosLoad<'a> {
    /// The client load of the plan.
    pub plan: &'a LoadPlan,
    /// Seed of the clients' random choices.
    pub seed: u64,
    /// Addresses of the servers for clients.
    pub cluster: Cluster,
    /// Directory of the clients' log files.
    pub dir: &'a Path,
    /// Set when the clients should end.
    pub stop: AtomicBool,
    /// Number of the next client name.
    next_name: AtomicU64,
    tally: Mutex<LoadTally>,
}

/// Results of the load.
#[derive(Clone, Debug, Default)]
pub struct LoadTally {
    /// Number of requests by result.
    pub counts: OutcomeCounts,
    /// Number of clients, each with its own session.
    pub clients: u64,
    /// The longest time that a request took.
    pub longest: Duration,
    /// A sample of the times of successful requests, in microseconds.
    pub times_us: Vec<u32>,
}

impl<'a> ChaosLoad<'a> {
    /// A load without clients.
    pub fn new(plan: &'a LoadPlan, seed: u64, cluster: Cluster, dir: &'a Path) -> ChaosLoad<'a> {
        ChaosLoad {
            plan,
            seed,
            cluster,
            dir,
            stop: AtomicBool::default(),
            next_name: AtomicU64::new(1),
            tally: Mutex::default(),
        }
    }

    /// The results so far.
    pub fn tally(&self) -> LoadTally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Number of requests that have ended, by result.
    pub fn ended(&self) -> OutcomeCounts {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).counts
    }

    /// The times of successful requests since the last call, in microseconds.
    pub fn take_times(&self) -> Vec<u32> {
        std::mem::take(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner).times_us)
    }

    /// Runs one client after another until the load stops. A client whose write has an unknown outcome sends no further
    /// requests; the next client opens another session.
    pub fn run(&self, thread_number: u64) -> Result<(), String> {
        let mut lane = ClientSeries::new(self, thread_number);
        while !self.stop.load(Ordering::Relaxed) {
            lane.run_client()?;
        }
        Ok(())
    }

    fn client(&self) -> Result<(Client, u64), String> {
        let number = self.next_name.fetch_add(1, Ordering::Relaxed);
        let name = format!("c{number}");
        let identity = ClientName::in_log_dir(self.dir, Some(&name), self.cluster.servers())?;
        let mut options = ClientOptions::new(self.cluster.clone(), name);
        (options.try_timeout, options.timeout) = self.plan.time_limits;
        options.trace = identity.trace;
        Ok((Client::new(options).map_err(|error| error.to_string())?, number))
    }
}

/// One thread of the load, which runs one client after another.
struct ClientSeries<'a> {
    load: &'a ChaosLoad<'a>,
    random: Random,
    /// The last version seen of each key.
    versions: Vec<u64>,
    next: Instant,
}

impl<'a> ClientSeries<'a> {
    fn new(load: &'a ChaosLoad<'a>, thread_number: u64) -> ClientSeries<'a> {
        let keys = load.plan.keys as usize;
        ClientSeries {
            load,
            random: Random::new(load.seed, 100 + thread_number),
            versions: vec![0; keys],
            next: Instant::now(),
        }
    }

    /// Runs one client until it ends.
    fn run_client(&mut self) -> Result<(), String> {
        let (mut client, number) = self.load.client()?;
        self.note(|tally| tally.clients += 1);
        let (mut asked, mut keys) = (0, BTreeMap::new());
        let mut is_enough = false;
        loop {
            is_enough |= self.load.stop.load(Ordering::Relaxed);
            let mut ended = None;
            if !is_enough && client.in_flight() == 0 {
                self.pace();
                for _ in 0..self.load.plan.pipeline {
                    asked += 1;
                    let (key, action) = self.draw(number, asked);
                    if self.random.within(0..=19) == 0 {
                        let server = ServerId(self.random.within(1..=self.load.cluster.servers().len() as u64) as u8);
                        client.set_server(server).map_err(|error| error.to_string())?;
                    }
                    keys.insert(client.submit(action).map_err(|error| error.to_string())?, key);
                }
            } else {
                ended = client.wait_any();
                if ended.is_none() {
                    return Ok(());
                }
            }
            while let Some((handle, end)) = ended.take().or_else(|| client.take_completed()) {
                self.take(keys.remove(&handle), &end);
                // After an unknown outcome the client sends nothing more, and waits for its requests in flight.
                is_enough |= matches!(end.end, Err(ClientError::Unknown(_)));
                if end.end.is_err() && !self.load.stop.load(Ordering::Relaxed) {
                    let pause = self.random.within(AFTER_FAILURE.0..=AFTER_FAILURE.1);
                    std::thread::sleep(Duration::from_millis(pause));
                }
            }
        }
    }

    /// Waits to keep the request rate. No request is in flight meanwhile: the client notices a reply only inside its
    /// calls, and a reply noticed late proves less.
    fn pace(&mut self) {
        let LoadPlan { clients, pipeline, rate, .. } = self.load.plan;
        let interval = Duration::from_secs_f64((*clients * *pipeline as u64) as f64 / (*rate).max(1) as f64);
        let now = Instant::now();
        if self.next > now {
            std::thread::sleep(self.next - now);
        }
        // Time that was missed is not made up for.
        self.next = self.next.max(now) + interval;
    }

    fn draw(&mut self, client: u64, request_number: u64) -> (usize, Operation) {
        let plan = self.load.plan;
        let hot = self.random.within(0..=1) == 0;
        let number = self.random.within(0..=if hot { 1 } else { plan.keys - 1 });
        let key = format!("key-{number}").into_bytes();
        if self.random.within(0..=99) < plan.reads {
            return (number as usize, Operation::Get { key });
        }
        if self.random.within(0..=9) == 0 {
            return (number as usize, Operation::Delete { key });
        }
        // No value is written twice, so a read value identifies its write.
        let mut value = format!("value {request_number} of c{client}");
        if self.random.within(0..=39) == 0 {
            value.extend(std::iter::repeat_n('.', self.random.within(100..=6_000) as usize));
        }
        let if_version = (self.random.within(0..=3) == 0).then(|| self.versions[number as usize]);
        (number as usize, Operation::Put { key, value: value.into_bytes(), if_version })
    }

    fn take(&mut self, key: Option<usize>, ended: &CompletedOperation) {
        let version = match &ended.end {
            Ok(OperationResult::Wrote(outcome)) => Some(outcome.version()),
            Ok(OperationResult::Read(found)) => Some(found.version),
            Err(_) => None,
        };
        if let (Some(key), Some(version)) = (key, version) {
            self.versions[key] = version;
        }
        self.note(|tally| {
            tally.counts.add(&ended.end);
            tally.longest = tally.longest.max(ended.took);
            if version.is_some() && tally.times_us.len() < 1 << 20 {
                tally.times_us.push(ended.took.as_micros() as u32);
            }
        });
    }

    fn note(&self, change: impl FnOnce(&mut LoadTally)) {
        change(&mut self.load.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
