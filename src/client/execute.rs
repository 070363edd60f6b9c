//! Carries an operation out, and says in words what came of it.

use std::time::{Duration, Instant};

use super::client::Client;
use super::outcome::{ClientError, GetResponse, WriteResponse};
use super::script::{Operation, quote_key};

/// What an operation brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationResult {
    /// A write's outcome.
    Wrote(WriteResponse),
    /// What a read found.
    Read(GetResponse),
}

/// How an operation ended.
#[derive(Debug)]
pub struct CompletedOperation {
    /// With what.
    pub end: Result<OperationResult, ClientError>,
    /// How long it took.
    pub took: Duration,
}

/// Carries out one operation.
pub fn execute(client: &mut Client, action: &Operation) -> CompletedOperation {
    let begun = Instant::now();
    let end = match action {
        Operation::Put { key, value, if_version: None } => client.put(key, value).map(OperationResult::Wrote),
        Operation::Put { key, value, if_version: Some(version) } => {
            client.put_if_version(key, value, *version).map(OperationResult::Wrote)
        }
        Operation::Get { key } => client.get(key).map(OperationResult::Read),
        Operation::Delete { key } => client.delete(key).map(OperationResult::Wrote),
    };
    CompletedOperation { end, took: begun.elapsed() }
}

impl CompletedOperation {
    /// The outcome in words: `OK version=2 slot=7 (8.1 ms)`.
    pub fn describe(&self) -> String {
        let took = self.took.as_secs_f64() * 1_000.0;
        match &self.end {
            Ok(OperationResult::Wrote(outcome)) => format!("{} ({took:.1} ms)", outcome_words(outcome)),
            Ok(OperationResult::Read(GetResponse { slot, value: Some(value), version })) => {
                format!("{} version={version} slot={slot} ({took:.1} ms)", quote_key(value))
            }
            Ok(OperationResult::Read(GetResponse { slot, value: None, version })) => {
                format!("NOTFOUND version={version} slot={slot} ({took:.1} ms)")
            }
            Err(error @ ClientError::Unknown(_)) => format!("UNKNOWN after {took:.1} ms: {error}"),
            Err(error) => format!("NOTAPPLIED after {took:.1} ms: {error}"),
        }
    }
}

/// A write's outcome in words.
pub fn outcome_words(outcome: &WriteResponse) -> String {
    let word = match outcome {
        WriteResponse::Written { .. } => "OK",
        WriteResponse::NotFound { .. } => "NOTFOUND",
        WriteResponse::Mismatch { .. } => "MISMATCH",
    };
    format!("{word} version={} slot={}", outcome.version(), outcome.slot())
}

/// How many operations ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutcomeCounts {
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

impl OutcomeCounts {
    /// One more has ended.
    pub fn add(&mut self, end: &Result<OperationResult, ClientError>) {
        *match end {
            Ok(
                OperationResult::Wrote(WriteResponse::Written { .. })
                | OperationResult::Read(GetResponse { value: Some(_), .. }),
            ) => &mut self.ok,
            Ok(
                OperationResult::Wrote(WriteResponse::NotFound { .. })
                | OperationResult::Read(GetResponse { value: None, .. }),
            ) => &mut self.not_found,
            Ok(OperationResult::Wrote(WriteResponse::Mismatch { .. })) => &mut self.mismatch,
            Err(ClientError::Unknown(_)) => &mut self.unknown,
            Err(_) => &mut self.not_applied,
        } += 1;
    }

    /// Those of another client.
    pub fn merge(&mut self, other: OutcomeCounts) {
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
impl std::fmt::Display for OutcomeCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let OutcomeCounts { ok, not_found, mismatch, not_applied, unknown } = self;
        write!(
            f,
            "{} requests: {ok} done, {not_found} found nothing, {mismatch} met another version, {not_applied} not \
             applied, {unknown} unknown",
            self.total()
        )
    }
}
