//! Carries an operation out, and says in words what came of it.

use std::time::{Duration, Instant};

use super::outcome::{ClientError, Found, Outcome};
use super::stub::Client;
use super::workload::{Action, shown};

/// What an operation brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// A write's outcome.
    Wrote(Outcome),
    /// What a read found.
    Read(Found),
}

/// How an operation ended.
#[derive(Debug)]
pub struct Ended {
    /// With what.
    pub end: Result<Done, ClientError>,
    /// How long it took.
    pub took: Duration,
}

/// Carries out one operation.
pub fn perform(client: &mut Client, action: &Action) -> Ended {
    let begun = Instant::now();
    let end = match action {
        Action::Put { key, value, if_version: None } => client.put(key, value).map(Done::Wrote),
        Action::Put { key, value, if_version: Some(version) } => {
            client.put_if_version(key, value, *version).map(Done::Wrote)
        }
        Action::Get { key } => client.get(key).map(Done::Read),
        Action::Delete { key } => client.delete(key).map(Done::Wrote),
    };
    Ended { end, took: begun.elapsed() }
}

impl Ended {
    /// The outcome in words: `OK version=2 slot=7 (8.1 ms)`.
    pub fn words(&self) -> String {
        let took = self.took.as_secs_f64() * 1_000.0;
        match &self.end {
            Ok(Done::Wrote(outcome)) => format!("{} ({took:.1} ms)", outcome_words(outcome)),
            Ok(Done::Read(Found { slot, value: Some(value), version })) => {
                format!("{} version={version} slot={slot} ({took:.1} ms)", shown(value))
            }
            Ok(Done::Read(Found { slot, value: None, version })) => {
                format!("NOTFOUND version={version} slot={slot} ({took:.1} ms)")
            }
            Err(error @ ClientError::Unknown(_)) => format!("UNKNOWN after {took:.1} ms: {error}"),
            Err(error) => format!("NOTAPPLIED after {took:.1} ms: {error}"),
        }
    }
}

/// A write's outcome in words.
pub fn outcome_words(outcome: &Outcome) -> String {
    let word = match outcome {
        Outcome::Written { .. } => "OK",
        Outcome::NotFound { .. } => "NOTFOUND",
        Outcome::Mismatch { .. } => "MISMATCH",
    };
    format!("{word} version={} slot={}", outcome.version(), outcome.slot())
}

/// How many operations ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Written, or read.
    pub ok: u64,
    /// There was nothing to read or to delete.
    pub not_found: u64,
    /// The key was at another version.
    pub mismatch: u64,
    /// Certainly not applied; failed reads too.
    pub not_applied: u64,
    /// Nobody knows.
    pub unknown: u64,
}

impl Counts {
    /// One more has ended.
    pub fn add(&mut self, end: &Result<Done, ClientError>) {
        *match end {
            Ok(Done::Wrote(Outcome::Written { .. }) | Done::Read(Found { value: Some(_), .. })) => &mut self.ok,
            Ok(Done::Wrote(Outcome::NotFound { .. }) | Done::Read(Found { value: None, .. })) => &mut self.not_found,
            Ok(Done::Wrote(Outcome::Mismatch { .. })) => &mut self.mismatch,
            Err(ClientError::Unknown(_)) => &mut self.unknown,
            Err(_) => &mut self.not_applied,
        } += 1;
    }

    /// Those of another client.
    pub fn merge(&mut self, other: Counts) {
        self.ok += other.ok;
        self.not_found += other.not_found;
        self.mismatch += other.mismatch;
        self.not_applied += other.not_applied;
        self.unknown += other.unknown;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.ok + self.not_found + self.mismatch + self.not_applied + self.unknown
    }
}

/// `20 requests: 15 done, 4 found nothing, 0 version mismatches, 1 not applied, 0 unknown`.
impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts { ok, not_found, mismatch, not_applied, unknown } = self;
        write!(
            f,
            "{} requests: {ok} done, {not_found} found nothing, {mismatch} met another version, {not_applied} not \
             applied, {unknown} unknown",
            self.total()
        )
    }
}
