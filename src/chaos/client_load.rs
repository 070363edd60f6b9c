//! The clients of a round: the real client library, asking for as long as it lasts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::plan::LoadPlan;
use crate::client::name::ClientName;
use crate::client::script::Operation;
use crate::client::{Client, ClientError, ClientOptions, CompletedOperation, OperationResult, OutcomeCounts};
use crate::cluster::Cluster;
use crate::random::Random;
use crate::role::ServerId;

/// After a request that certainly failed a client waits for so long: nobody gains from asking at once again.
const AFTER_FAILURE: (u64, u64) = (5, 60);

/// What all clients of a round share.
pub struct ChaosLoad<'a> {
    /// How much is asked.
    pub plan: &'a LoadPlan,
    /// Which of it.
    pub seed: u64,
    /// Where clients find the servers.
    pub cluster: Cluster,
    /// Where their lines go.
    pub folder: &'a Path,
    /// Told when it is enough.
    pub stop: AtomicBool,
    /// Names that were given away.
    names: AtomicU64,
    tally: Mutex<LoadTally>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct LoadTally {
    /// How requests ended.
    pub counts: OutcomeCounts,
    /// How many clients there were, each with a session of its own.
    pub clients: u64,
    /// The longest that anybody was kept waiting.
    pub longest: Duration,
    /// How long each request took that brought a result, in microseconds: a sample.
    pub took: Vec<u32>,
}

impl<'a> ChaosLoad<'a> {
    /// Nobody asks yet.
    pub fn new(plan: &'a LoadPlan, seed: u64, cluster: Cluster, folder: &'a Path) -> ChaosLoad<'a> {
        ChaosLoad {
            plan,
            seed,
            cluster,
            folder,
            stop: AtomicBool::default(),
            names: AtomicU64::new(1),
            tally: Mutex::default(),
        }
    }

    /// What has come of it so far.
    pub fn tally(&self) -> LoadTally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many requests have ended so far.
    pub fn ended(&self) -> OutcomeCounts {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).counts
    }

    /// What took how long since the last time.
    pub fn take_times(&self) -> Vec<u32> {
        std::mem::take(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner).took)
    }

    /// One client after the other, until it is enough. A client whose write has an unknown outcome asks for nothing
    /// more: whoever comes after it has another session.
    pub fn run(&self, lane: u64) -> Result<(), String> {
        let mut lane = ClientSeries::new(self, lane);
        while !self.stop.load(Ordering::Relaxed) {
            lane.live()?;
        }
        Ok(())
    }

    fn client(&self) -> Result<(Client, u64), String> {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let name = format!("c{number}");
        let identity = ClientName::in_log_dir(self.folder, Some(&name), self.cluster.servers())?;
        let mut options = ClientOptions::new(self.cluster.clone(), name);
        (options.try_timeout, options.timeout) = self.plan.patience;
        options.trace = identity.trace;
        Ok((Client::new(options).map_err(|error| error.to_string())?, number))
    }
}

/// A client's place, which one client after the other takes.
struct ClientSeries<'a> {
    load: &'a ChaosLoad<'a>,
    random: Random,
    /// The last version that was seen of each key.
    versions: Vec<u64>,
    next: Instant,
}

impl<'a> ClientSeries<'a> {
    fn new(load: &'a ChaosLoad<'a>, lane: u64) -> ClientSeries<'a> {
        let keys = load.plan.keys as usize;
        ClientSeries { load, random: Random::new(load.seed, 100 + lane), versions: vec![0; keys], next: Instant::now() }
    }

    /// The life of a client.
    fn live(&mut self) -> Result<(), String> {
        let (mut client, number) = self.load.client()?;
        self.note(|tally| tally.clients += 1);
        let (mut asked, mut keys) = (0, BTreeMap::new());
        let mut is_enough = false;
        loop {
            is_enough |= self.load.stop.load(Ordering::Relaxed);
            let mut ended = None;
            if !is_enough && client.in_flight() == 0 {
                self.rest();
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
            while let Some((ticket, end)) = ended.take().or_else(|| client.take_completed()) {
                self.take(keys.remove(&ticket), &end);
                // One that has lost track asks nothing more, and waits for what it has asked already.
                is_enough |= matches!(end.end, Err(ClientError::Unknown(_)));
                if end.end.is_err() && !self.load.stop.load(Ordering::Relaxed) {
                    let pause = self.random.within(AFTER_FAILURE.0..=AFTER_FAILURE.1);
                    std::thread::sleep(Duration::from_millis(pause));
                }
            }
        }
    }

    /// No more requests than wanted. Nothing is under way meanwhile: a client notices an answer only while it is asked
    /// to, and an answer that is noticed late proves less.
    fn rest(&mut self) {
        let LoadPlan { clients, pipeline, rate, .. } = self.load.plan;
        let interval = Duration::from_secs_f64((*clients * *pipeline as u64) as f64 / (*rate).max(1) as f64);
        let now = Instant::now();
        if self.next > now {
            std::thread::sleep(self.next - now);
        }
        // What was missed is not made up for.
        self.next = self.next.max(now) + interval;
    }

    fn draw(&mut self, client: u64, asked: u64) -> (usize, Operation) {
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
        // No value is written twice: what is read says who wrote it.
        let mut value = format!("value {asked} of c{client}");
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
            if version.is_some() && tally.took.len() < 1 << 20 {
                tally.took.push(ended.took.as_micros() as u32);
            }
        });
    }

    fn note(&self, change: impl FnOnce(&mut LoadTally)) {
        change(&mut self.load.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
