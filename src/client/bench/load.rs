//! The generator: one thread drives many clients, each with so many requests under way.
//!
//! The thread waits for all sockets at once (epoll). A client whose socket is ready takes every reply that has come,
//! and what it asks next goes out with one write.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::summary::{BenchTally, WriteGap};
use super::{BenchError, BenchPlan, key, put};
use crate::client::execute::OperationResult;
use crate::client::outcome::Try;
use crate::client::script::Operation;
use crate::client::{Client, IN_FLIGHT_MAX, RequestHandle};
use crate::random::Random;
use crate::role::ServerId;

/// How often clients are looked after whose sockets say nothing: their tries may have run out of time.
const LOOK: Duration = Duration::from_millis(20);
/// So many sockets are taken at a time.
const EVENTS_MAX: usize = 256;
/// A client of an open loop has at most so many requests that are due and not begun.
const LATE_MAX: usize = 10_000;

/// One client of the load.
pub(super) struct BenchClient {
    client: Client,
    random: Random,
    /// How many connections it had opened when its sockets were last registered, and whether each waited for room.
    registered: (u64, Vec<bool>),
    /// Requests of an open loop that are due and not begun: when each was.
    late: VecDeque<Instant>,
    /// When those under way were due.
    due: BTreeMap<RequestHandle, Instant>,
    /// When the next one is due.
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

/// Tries that brought nothing, of all clients together.
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

    /// What happened since the last time, in a sentence.
    pub(super) fn take(&self) -> Option<String> {
        let (count, first) = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        (count > 0).then(|| format!("        {count} tries brought nothing; the first: {first}"))
    }
}

/// One thread's share of a load.
pub(super) struct LoadThread<'a> {
    lanes: Vec<BenchClient>,
    plan: &'a BenchPlan,
    /// How long a client waits from one request to the next, in an open loop.
    interval: Option<Duration>,
    began: Instant,
    ends: Instant,
    gap: Arc<WriteGap>,
    epoll: OwnedFd,
    tally: BenchTally,
}

impl<'a> LoadThread<'a> {
    /// `rate` is that of one client.
    pub(super) fn new(
        mut lanes: Vec<BenchClient>,
        plan: &'a BenchPlan,
        rate: Option<f64>,
        (began, ends): (Instant, Instant),
        gap: Arc<WriteGap>,
        number: u64,
    ) -> Result<LoadThread<'a>, BenchError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(std::io::Error::from);
        let epoll = epoll.map_err(BenchError::machine("cannot wait for sockets"))?;
        let interval = rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        if let Some(interval) = interval {
            // The clients' requests are spread over time, not all due at once.
            let mut random = Random::new(number, 8);
            for lane in &mut lanes {
                lane.next += interval.mul_f64(random.within(0..=999) as f64 / 1_000.0);
            }
        }
        Ok(LoadThread { lanes, plan, interval, began, ends, gap, epoll, tally: BenchTally::default() })
    }

    /// Runs to the end; says after each second what it brought.
    pub(super) fn run(mut self, seconds: &Sender<BenchTally>) -> Result<(), BenchError> {
        let (mut now, mut looked, mut told) = (Instant::now(), Instant::now(), self.began);
        for at in 0..self.lanes.len() {
            self.serve(at)?;
        }
        let mut events = Vec::with_capacity(EVENTS_MAX);
        while now < self.ends {
            events.clear();
            let until = self.next_due().unwrap_or(self.ends).min(looked + LOOK).min(self.ends);
            self.wait(&mut events, until.saturating_duration_since(now))?;
            for event in &events {
                self.serve(event.data.u64() as usize)?;
            }
            now = Instant::now();
            if now >= looked + LOOK {
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
                // Whoever listens stays until the end.
                let _ = seconds.send(tally);
            }
        }
        self.tally.not_started += self.lanes.iter().map(|lane| lane.late.len() as u64).sum::<u64>();
        let _ = seconds.send(self.tally);
        Ok(())
    }

    /// When the next request of an open loop is due.
    fn next_due(&self) -> Option<Instant> {
        self.interval?;
        self.lanes.iter().map(|lane| lane.next).min()
    }

    fn wait(&self, events: &mut Vec<epoll::Event>, at_most: Duration) -> Result<(), BenchError> {
        let timeout = Timespec::try_from(at_most).ok();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(BenchError::machine("cannot wait for sockets")(error.into())),
        }
    }

    /// Lets a client do what it can, counts what has ended, and begins what is due.
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
        let begun = match self.interval {
            None => self.begin_all(at),
            Some(interval) => self.begin_due(at, interval, now),
        };
        if begun {
            self.lanes[at].client.transmit();
        }
        self.register(at)
    }

    /// A closed loop: as many as may be under way.
    fn begin_all(&mut self, at: usize) -> bool {
        let LoadThread { lanes, plan, .. } = self;
        let lane = &mut lanes[at];
        let mut begun = false;
        while lane.client.in_flight() < plan.pipeline as usize {
            begun |= lane.begin(plan).is_some();
        }
        begun
    }

    /// An open loop: those that are due, as far as the client has room for them.
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
        let mut begun = false;
        while lane.client.in_flight() < IN_FLIGHT_MAX
            && let Some(due) = lane.late.pop_front()
            && let Some(handle) = lane.begin(plan)
        {
            lane.due.insert(handle, due);
            begun = true;
        }
        begun
    }

    /// Makes sure that the thread is woken by the client's sockets.
    fn register(&mut self, at: usize) -> Result<(), BenchError> {
        let lane = &mut self.lanes[at];
        let (opened, known) = (&lane.client.opened(), &mut lane.registered);
        if *opened == known.0 && lane.client.sockets().map(|(_, writes)| writes).eq(known.1.iter().copied()) {
            return Ok(());
        }
        known.0 = *opened;
        known.1.clear();
        for (socket, writes) in lane.client.sockets() {
            known.1.push(writes);
            let flags = if writes { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
            let data = epoll::EventData::new_u64(at as u64);
            // A socket that was closed has left by itself.
            let registered = match epoll::add(&self.epoll, socket, data, flags) {
                Err(Errno::EXIST) => epoll::modify(&self.epoll, socket, data, flags),
                other => other,
            };
            registered.map_err(|error| BenchError::machine("cannot wait for a socket")(error.into()))?;
        }
        Ok(())
    }
}

impl BenchClient {
    /// Begins one request, to a key drawn at random.
    fn begin(&mut self, plan: &BenchPlan) -> Option<RequestHandle> {
        let n = self.random.within(0..=plan.keys - 1);
        let reads = self.random.within(1..=100) <= u64::from(plan.reads);
        let action = if reads { Operation::Get { key: key(n) } } else { put(n, plan.value_size) };
        // Keys and values are within the limits, which the command line has checked.
        self.client.queue(action).ok()
    }
}
