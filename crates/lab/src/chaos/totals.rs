//! Totals over all rounds, kept in a file, so that published figures are sums of real runs.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::injector::FaultCounts;
use super::plan::RoundPlan;
use super::round::RoundResult;

/// Sums over rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Completed rounds, by protocol.
    pub rounds: BTreeMap<String, u64>,
    /// Rounds that failed.
    pub failed: u64,
    /// Running time of the clusters, in seconds.
    pub seconds: f64,
    /// Client operations that were found to be linearizable.
    pub operations: u64,
    /// Client operations by the result that the client received.
    pub outcomes: BTreeMap<String, u64>,
    /// Clients, each with its own session.
    pub clients: u64,
    /// Lines that were read.
    pub lines: u64,
    /// Rounds whose lines prove that every rule was kept; in the others the servers did not record their steps.
    pub proved: u64,
    /// Processes killed.
    pub kills: u64,
    /// Disks whose power was cut.
    pub power_cuts: u64,
    /// Injected faults, by kind.
    pub strikes: BTreeMap<String, u64>,
    /// Reactions of servers, where more than one is allowed.
    pub met: BTreeMap<String, u64>,
    /// Faults that were planned and skipped, by kind and reason.
    pub skipped: BTreeMap<String, u64>,
}

impl Totals {
    /// Reads the sums of a file; zero if the file does not exist.
    pub fn read(path: &Path) -> Result<Totals, String> {
        match fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Totals::default()),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                format!(
                    "{} is not a totals file of this program ({error}). Name another file with --totals",
                    path.display()
                )
            }),
        }
    }

    /// Replaces the file.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())? + "\n";
        let next = path.with_extension("next");
        let written = fs::write(&next, text).and_then(|()| fs::rename(&next, path));
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// Adds a completed round.
    pub fn add(&mut self, plan: &RoundPlan, result: &RoundResult, took: Duration) {
        *self.rounds.entry(plan.protocol.name().to_string()).or_default() += 1;
        self.seconds += took.as_secs_f64();
        self.operations += result.verdict.operations;
        self.lines += result.verdict.lines;
        self.proved += u64::from(result.verdict.is_proved);
        self.clients += result.tally.clients;
        let counts = result.tally.counts;
        let outcomes = [
            ("done", counts.ok),
            ("found nothing", counts.not_found),
            ("met another version", counts.mismatch),
            ("not applied", counts.not_applied),
            ("unknown", counts.unknown),
        ];
        for (outcome, count) in outcomes {
            *self.outcomes.entry(outcome.to_string()).or_default() += count;
        }
        self.add_done(&result.fault_counts);
    }

    /// Adds a failed round.
    pub fn add_failed(&mut self, done: &FaultCounts) {
        self.failed += 1;
        self.add_done(done);
    }

    fn add_done(&mut self, done: &FaultCounts) {
        self.kills += done.kills;
        self.power_cuts += done.power_cuts;
        for (kind, count) in &done.injected {
            *self.strikes.entry((*kind).to_string()).or_default() += count;
        }
        for (what, count) in &done.reactions {
            *self.met.entry((*what).to_string()).or_default() += count;
        }
        for (why, count) in &done.skipped {
            *self.skipped.entry(why.clone()).or_default() += count;
        }
    }
}

impl Display for Totals {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let list = |counts: &BTreeMap<String, u64>| {
            counts.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
        };
        let rounds: u64 = self.rounds.values().sum();
        writeln!(
            f,
            "{rounds} rounds ({}) in {:.1} minutes, {} failed; {} operations of {} clients are linearizable; {} rounds are \
             proved from their {} log lines",
            list(&self.rounds),
            self.seconds / 60.0,
            self.failed,
            self.operations,
            self.clients,
            self.proved,
            self.lines
        )?;
        writeln!(f, "requests: {}", list(&self.outcomes))?;
        writeln!(f, "{} processes killed, {} power cuts", self.kills, self.power_cuts)?;
        writeln!(f, "faults: {}", list(&self.strikes))?;
        if !self.met.is_empty() {
            writeln!(f, "servers: {}", list(&self.met))?;
        }
        if !self.skipped.is_empty() {
            writeln!(f, "skipped: {}", list(&self.skipped))?;
        }
        Ok(())
    }
}
