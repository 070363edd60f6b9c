//! Batches: runs of one seed with full output, or of many seeds on all cores.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::coverage::Coverage;
use super::faults::{Fault, FaultSet};
use super::oracle::Violation;
use super::plan::RunPlan;
use super::simulation::{RunReport, RunVerdict, Simulation};
use paxos_kv::protocol::Protocol;
#[cfg(any(test, feature = "seeded-bugs"))]
use paxos_kv::seeded_bugs;
use paxos_kv::seeded_bugs::Bug;

thread_local! {
    /// The seed that this thread runs.
    static RUNNING: Cell<Option<u64>> = const { Cell::new(None) };
    /// The configuration of that run.
    static CONFIG: Cell<BatchConfig> =
        const { Cell::new(BatchConfig { allowed: FaultSet::NONE, bug: None, protocol: None, user_visible_only: false }) };
    /// The message of an assertion that failed in that run.
    static PANIC_MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs one seed. A failed assertion of a role ends the run, not the program. In builds that abort on a panic, the
/// program prints the message and the command that replays the run, and exits.
pub fn run_one(seed: u64, config: BatchConfig, lines: bool) -> RunReport {
    record_panics();
    #[cfg(any(test, feature = "seeded-bugs"))]
    seeded_bugs::switch(config.bug);
    let mut sim = Simulation::new(RunPlan::new(seed, config.allowed, config.protocol), lines);
    if config.user_visible_only {
        sim.sim_env.oracle.check_user_visible_only();
    }
    CONFIG.set(config);
    RUNNING.set(Some(seed));
    let caught = panic::catch_unwind(AssertUnwindSafe(|| sim.run()));
    RUNNING.set(None);
    caught.unwrap_or_else(|_| {
        let what = PANIC_MESSAGE.take().unwrap_or_else(|| "it panicked without a message".to_string());
        sim.report(RunVerdict::Unsafe(Violation { invariant: 29, what }))
    })
}

/// The command that runs a seed again.
pub fn replay(seed: u64, BatchConfig { allowed, bug, protocol, user_visible_only: harm_only }: BatchConfig) -> String {
    let faults = if allowed == FaultSet::all() { String::new() } else { format!(" --faults {allowed}") };
    let bug = bug.map_or(String::new(), |bug| format!(" --bug {}", bug.name()));
    let protocol = protocol.map_or(String::new(), |protocol| format!(" --protocol {}", protocol.name()));
    let harm = if harm_only { " --until-visible" } else { "" };
    format!("paxos-lab simulate --seed {seed}{protocol}{faults}{bug}{harm}")
}

/// The smallest set of fault classes with which the seed still violates the same invariant, found by leaving out one
/// class after the other.
pub fn shrink(seed: u64, config: BatchConfig, verdict: &RunVerdict) -> BatchConfig {
    let same = |other: &RunVerdict| match (verdict, other) {
        (RunVerdict::Unsafe(one), RunVerdict::Unsafe(other)) => one.invariant == other.invariant,
        (RunVerdict::Stuck(_), RunVerdict::Stuck(_)) => true,
        _ => false,
    };
    let on = RunPlan::new(seed, config.allowed, config.protocol).faults;
    let mut least = BatchConfig { allowed: on, ..config };
    if on.count() <= FaultSet::FEW || !same(&run_one(seed, least, false).verdict) {
        return config;
    }
    loop {
        let before = least;
        for fault in Fault::ALL.iter().filter(|fault| on.has(**fault)) {
            let fewer = BatchConfig { allowed: least.allowed.without(*fault), ..least };
            // With this few classes a seed turns all of them on, which would be a different run.
            let may_try = least.allowed.has(*fault) && fewer.allowed.count() > FaultSet::FEW;
            if may_try && same(&run_one(seed, fewer, false).verdict) {
                least = fewer;
            }
        }
        // A class that was needed together with another one may not be needed without it.
        if least == before {
            return least;
        }
    }
}

/// What all runs of a batch have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// The classes of faults that are allowed.
    pub allowed: FaultSet,
    /// The seeded bug that is on.
    pub bug: Option<Bug>,
    /// The protocol of the servers; each seed picks a kind of Paxos if None.
    pub protocol: Option<Protocol>,
    /// A run ends only at user-visible harm, not at a violation of an invariant that prevents it.
    pub user_visible_only: bool,
}

/// Installs a hook that keeps the message of a panic within a run for its report.
fn record_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let Some(seed) = RUNNING.get() else { return usual(info) };
            let payload = info.payload();
            let said = payload.downcast_ref::<String>().cloned();
            let said = said.or_else(|| payload.downcast_ref::<&str>().map(|said| (*said).to_string()));
            let place = info.location().map_or(String::new(), |at| format!(" ({}:{})", at.file(), at.line()));
            let what = format!("{}{place}", said.unwrap_or_default());
            if cfg!(panic = "abort") {
                let violation = Violation { invariant: 29, what };
                println!("seed {seed}: VIOLATION of {violation}\n{}", replay(seed, CONFIG.get()));
                std::process::exit(7);
            }
            PANIC_MESSAGE.set(Some(what));
        }));
    });
}

/// Many seeds with one configuration.
#[derive(Clone, Copy, Debug)]
pub struct SeedBatch {
    /// The first seed.
    pub first: u64,
    /// The last seed; `u64::MAX` if only `time` ends the batch.
    pub last: u64,
    /// The time limit.
    pub time: Option<Duration>,
    /// What all runs have in common.
    pub config: BatchConfig,
    /// Number of threads.
    pub threads: usize,
}

/// The result of a batch.
#[derive(Clone, Debug, Default)]
pub struct BatchSummary {
    /// Number of runs that have ended.
    pub runs: u64,
    /// Number of events in all runs.
    pub events: u64,
    /// Number of slots applied in all runs.
    pub slots: u64,
    /// Number of client requests in all runs; the checkers cover each of them.
    pub operations: u64,
    /// Virtual time of all runs, in microseconds.
    pub virtual_time: u64,
    /// The coverage points that were reached.
    pub coverage: Coverage,
    /// The hash of all runs, independent of the order in which they ended.
    pub trace: u64,
    /// The failure with the lowest seed.
    pub failure: Option<(u64, RunVerdict)>,
}

impl BatchSummary {
    fn add(&mut self, report: &RunReport) {
        self.runs += 1;
        self.events += report.events;
        self.slots += report.applied.0;
        self.operations += report.requested as u64;
        self.virtual_time += report.virtual_time;
        self.coverage.merge(&report.coverage);
        let [seed, trace] = [report.seed, report.trace].map(u64::to_le_bytes);
        self.trace = self.trace.wrapping_add(xxh3_64(&[seed, trace].concat()));
        let lowest = self.failure.as_ref().is_none_or(|(seed, _)| report.seed < *seed);
        if report.verdict != RunVerdict::Clean && lowest {
            self.failure = Some((report.seed, report.verdict.clone()));
        }
    }
}

impl SeedBatch {
    /// Runs seed after seed until all are done, the time is over, or one fails. Calls `tick` after each run.
    pub fn run(&self, tick: impl Fn(&RunReport) + Sync) -> BatchSummary {
        let (next, stop) = (AtomicU64::new(self.first), AtomicBool::new(false));
        let summary = Mutex::new(BatchSummary::default());
        let end = self.time.map(|time| Instant::now() + time);
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        let late = end.is_some_and(|end| Instant::now() >= end);
                        if seed > self.last || late || stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let report = run_one(seed, self.config, false);
                        if report.verdict != RunVerdict::Clean {
                            stop.store(true, Ordering::Relaxed);
                        }
                        tick(&report);
                        summary.lock().unwrap_or_else(PoisonError::into_inner).add(&report);
                    }
                });
            }
        });
        summary.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
