//! Execution of one operation, and the wording of its result.

use std::time::Duration;

use super::client::Client;
use super::operation::{CompletedOperation, Operation, OperationResult};
use super::outcome::{ClientError, GetResponse, WriteResponse};
use super::script::quote_key;
use crate::role::ServerSet;

/// Executes one operation and waits for its result.
pub fn execute(client: &mut Client, action: &Operation) -> CompletedOperation {
    match client.submit(action.clone()) {
        Ok(handle) => client.wait(handle),
        Err(error) => CompletedOperation { end: Err(error), took: Duration::ZERO, accepted_by: ServerSet::NONE },
    }
}

impl CompletedOperation {
    /// The result as text: `OK version=2 slot=7 (8.1 ms)`.
    pub fn describe(&self) -> String {
        let took = self.took.as_secs_f64() * 1_000.0;
        let took = if took < 100.0 { format!("{took:.1}") } else { format!("{took:.0}") };
        match &self.end {
            Ok(OperationResult::Wrote(outcome)) => format!("{} ({took} ms)", outcome_words(outcome)),
            Ok(OperationResult::Read(GetResponse { slot, value: Some(value), version })) => {
                format!("{} version={version} slot={slot} ({took} ms)", quote_key(value))
            }
            Ok(OperationResult::Read(GetResponse { slot, value: None, version })) => {
                format!("NOTFOUND version={version} slot={slot} ({took} ms)")
            }
            Err(error @ ClientError::Unknown(_)) => format!("UNKNOWN after {took} ms: {error}"),
            Err(error) => format!("NOTAPPLIED after {took} ms: {error}"),
        }
    }
}

/// The result of a write as text.
pub fn outcome_words(outcome: &WriteResponse) -> String {
    let word = match outcome {
        WriteResponse::Written { .. } => "OK",
        WriteResponse::NotFound { .. } => "NOTFOUND",
        WriteResponse::Mismatch { .. } => "MISMATCH",
    };
    format!("{word} version={} slot={}", outcome.version(), outcome.slot())
}

/// Number of operations by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutcomeCounts {
    /// Written, or read with a value.
    pub ok: u64,
    /// There was nothing to read or to delete.
    pub not_found: u64,
    /// The key was not at the required version.
    pub mismatch: u64,
    /// Certainly not applied, and failed reads.
    pub not_applied: u64,
    /// Outcome unknown.
    pub unknown: u64,
}

impl OutcomeCounts {
    /// Counts one more operation.
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

    /// Adds the counts of another client.
    pub fn merge(&mut self, other: OutcomeCounts) {
        self.ok += other.ok;
        self.not_found += other.not_found;
        self.mismatch += other.mismatch;
        self.not_applied += other.not_applied;
        self.unknown += other.unknown;
    }

    /// Number of operations.
    pub fn total(&self) -> u64 {
        self.ok + self.not_found + self.mismatch + self.not_applied + self.unknown
    }
}

/// `requests: 20 (15 OK, 4 not found, 0 version mismatch, 1 not applied, 0 outcome unknown)`.
impl std::fmt::Display for OutcomeCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let OutcomeCounts { ok, not_found, mismatch, not_applied, unknown } = self;
        write!(
            f,
            "requests: {} ({ok} OK, {not_found} not found, {mismatch} version mismatch, {not_applied} not applied, \
             {unknown} outcome unknown)",
            self.total()
        )
    }
}
