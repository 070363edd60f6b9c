//! The load generator: one thread drives many clients, each with several requests in flight.
//!
//! The thread waits for all sockets at once. When a client's socket is ready, the client takes every received
//! reply, and sends its next requests with one write.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::readiness::SocketSet;
use super::summary::{BenchTally, WriteGap};
use super::{BenchError, BenchPlan, key, put};
use crate::client::Operation;
use crate::client::operation::OperationResult;
use crate::client::outcome::Try;
use crate::client::{Client, IN_FLIGHT_MAX, RequestHandle};
use crate::random::Random;
use crate::role::ServerId;

/// Interval for checking clients whose sockets are idle: their tries may have timed out.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// Maximum number of due requests that wait in one client of an open loop; older ones are dropped and counted as not
/// started.
const LATE_MAX: usize = 10_000;

/// One client of the load.
pub(super) struct BenchClient {
    client: Client,
    random: Random,
    /// The number of connections at the last registration, and whether each socket was registered for writing.
    registered: (u64, Vec<bool>),
    /// Open loop: the due times of the requests that are due but not begun.
    late: VecDeque<Instant>,
    /// Open loop: the due times of the requests in flight.
    due: BTreeMap<RequestHandle, Instant>,
    /// Open loop: when the next request is due.
    next: Instant,
    busy_before: u64,
}

impl BenchClient {
    pub(super) fn new(client: Client, random: Random) -> BenchClient {
        BenchClient {
            client,
            random,
            registered: (0, Vec::new()),
            late: VecDeque::new(),
            due: BTreeMap::new(),
            next: Instant::now(),
            busy_before: 0,
        }
    }
}

/// Failed tries of all clients: their number and the first of them.
#[derive(Debug, Default)]
pub(super) struct FailedTries(Mutex<(u64, String)>);

impl FailedTries {
    pub(super) fn note(&self, failed: &Try, next: ServerId) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.0 == 0 {
            faults.1 = failed.and_next(next);
        }
        faults.0 += 1;
    }

    /// The failed tries since the last call, as a message; None if there were none.
    pub(super) fn take(&self) -> Option<String> {
        let (count, first) = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        (count > 0).then(|| format!("        {count} tries failed; the first: {first}"))
    }
}

/// One thread's share of a load.
pub(super) struct LoadThread<'a> {
    lanes: Vec<BenchClient>,
    plan: &'a BenchPlan,
    /// Open loop: the time from one request of a client to the next.
    interval: Option<Duration>,
    began: Instant,
    ends: Instant,
    gap: Arc<WriteGap>,
    sockets: SocketSet,
    tally: BenchTally,
}

impl<'a> LoadThread<'a> {
    /// `rate` is the number of requests per second of one client.
    pub(super) fn new(
        mut lanes: Vec<BenchClient>,
        plan: &'a BenchPlan,
        rate: Option<f64>,
        (began, ends): (Instant, Instant),
        gap: Arc<WriteGap>,
        number: u64,
    ) -> Result<LoadThread<'a>, BenchError> {
        let sockets = SocketSet::new().map_err(BenchError::machine("cannot wait for sockets"))?;
        let interval = rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        if let Some(interval) = interval {
            // Spread the clients' first requests over one interval, so that they are not all due at once.
            let mut random = Random::new(number, 8);
            for lane in &mut lanes {
                lane.next += interval.mul_f64(random.within(0..=999) as f64 / 1_000.0);
            }
        }
        Ok(LoadThread { lanes, plan, interval, began, ends, gap, sockets, tally: BenchTally::default() })
    }

    /// Runs until the end, and sends a tally after each second and at the end.
    pub(super) fn run(mut self, seconds: &Sender<BenchTally>) -> Result<(), BenchError> {
        let (mut now, mut looked, mut told) = (Instant::now(), Instant::now(), self.began);
        for at in 0..self.lanes.len() {
            self.serve(at)?;
        }
        while now < self.ends {
            let until = self.next_due().unwrap_or(self.ends).min(looked + CHECK_INTERVAL).min(self.ends);
            let ready = self.sockets.wait(until.saturating_duration_since(now));
            for at in ready.map_err(BenchError::machine("cannot wait for sockets"))? {
                self.serve(at)?;
            }
            now = Instant::now();
            if now >= looked + CHECK_INTERVAL {
                looked = now;
                for at in 0..self.lanes.len() {
                    if self.lanes[at].client.next_due().is_some_and(|due| due <= now) {
                        self.serve(at)?;
                    }
                }
            }
            if self.interval.is_some() {
                for at in 0..self.lanes.len() {
                    if self.lanes[at].next <= now {
                        self.serve(at)?;
                    }
                }
            }
            while told + Duration::from_secs(1) <= now.min(self.ends) {
                told += Duration::from_secs(1);
                let mut tally = std::mem::take(&mut self.tally);
                tally.took = Duration::from_secs(1);
                // Cannot fail: the receiver exists until all threads have ended.
                let _ = seconds.send(tally);
            }
        }
        self.tally.not_started += self.lanes.iter().map(|lane| lane.late.len() as u64).sum::<u64>();
        let _ = seconds.send(self.tally);
        Ok(())
    }

    /// Open loop: when the next request is due.
    fn next_due(&self) -> Option<Instant> {
        self.interval?;
        self.lanes.iter().map(|lane| lane.next).min()
    }

    /// Lets a client progress, counts its completed requests, and begins the next ones.
    fn serve(&mut self, at: usize) -> Result<(), BenchError> {
        let lane = &mut self.lanes[at];
        lane.client.progress();
        let now = Instant::now();
        let is_measured = now >= self.began && now < self.ends;
        while let Some((handle, ended)) = lane.client.take_completed() {
            let took = lane.due.remove(&handle).map_or(ended.took, |due| now - due);
            if is_measured {
                self.tally.count(&ended.end, took);
                if let Ok(OperationResult::Wrote(_)) = ended.end {
                    self.gap.acknowledged(now);
                }
            }
        }
        let busy = lane.client.busy_replies();
        self.tally.busy += if is_measured { busy - lane.busy_before } else { 0 };
        lane.busy_before = busy;
        let started = match self.interval {
            None => self.begin_all(at),
            Some(interval) => self.begin_due(at, interval, now),
        };
        if started {
            self.lanes[at].client.transmit();
        }
        self.register(at)
    }

    /// Closed loop: begins requests until `pipeline` of them are in flight.
    fn begin_all(&mut self, at: usize) -> bool {
        let LoadThread { lanes, plan, .. } = self;
        let lane = &mut lanes[at];
        let mut started = false;
        while lane.client.in_flight() < plan.pipeline as usize {
            started |= lane.begin(plan).is_some();
        }
        started
    }

    /// Open loop: begins the due requests, as far as the client has room for them.
    fn begin_due(&mut self, at: usize, interval: Duration, now: Instant) -> bool {
        let LoadThread { lanes, plan, tally, .. } = self;
        let lane = &mut lanes[at];
        while lane.next <= now {
            lane.late.push_back(lane.next);
            lane.next += interval;
        }
        while lane.late.len() > LATE_MAX {
            lane.late.pop_front();
            tally.not_started += 1;
        }
        let mut started = false;
        while lane.client.in_flight() < IN_FLIGHT_MAX
            && let Some(due) = lane.late.pop_front()
            && let Some(handle) = lane.begin(plan)
        {
            lane.due.insert(handle, due);
            started = true;
        }
        started
    }

    /// Registers the client's sockets, so that they wake the thread.
    fn register(&mut self, at: usize) -> Result<(), BenchError> {
        let lane = &mut self.lanes[at];
        let (opened, known) = (&lane.client.opened(), &mut lane.registered);
        if *opened == known.0 && lane.client.sockets().map(|(_, writes)| writes).eq(known.1.iter().copied()) {
            return Ok(());
        }
        known.0 = *opened;
        known.1 = lane.client.sockets().map(|(_, writes)| writes).collect();
        let sockets = lane.client.sockets().map(|(stream, writes)| (stream.as_fd(), writes));
        self.sockets.watch(at, sockets).map_err(BenchError::machine("cannot wait for a socket"))
    }
}

impl BenchClient {
    /// Begins one request, on a random key.
    fn begin(&mut self, plan: &BenchPlan) -> Option<RequestHandle> {
        let n = self.random.within(0..=plan.keys - 1);
        let reads = self.random.within(1..=100) <= u64::from(plan.reads);
        let action = if reads { Operation::Get { key: key(n) } } else { put(n, plan.value_size) };
        // The command line has checked that keys and values are within the limits.
        self.client.queue(action).ok()
    }
}
