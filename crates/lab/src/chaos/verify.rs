//! Verdict on a round, from the lines of all clients and servers only.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::linearizability::{LinearizabilityVerdict, WhyUndecided, check_run};
use paxos_kv::trace::Event;
use paxos_kv::trace::audit::{self, Audit};
use paxos_kv::trace::parse::Run;

/// Time limit of the linearizability check of one round.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(120);

/// Why a round failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoundFailure {
    /// A rule was broken.
    Violation(String),
    /// Something did not happen in time, although every server was up and every link whole.
    Stuck(String),
    /// The checks could not decide whether a rule was broken.
    Undecided(String),
    /// The round could not be run.
    NotRun(String),
}

impl RoundFailure {
    /// The exit code, the same as in the other `paxos-lab` commands.
    pub fn exit_code(&self) -> u8 {
        match self {
            RoundFailure::Violation(_) => 7,
            RoundFailure::Stuck(_) => 8,
            RoundFailure::Undecided(_) => 6,
            RoundFailure::NotRun(_) => 1,
        }
    }

    /// Reads a failure that was written to a file.
    pub fn read(text: &str) -> RoundFailure {
        let text = text.trim_end();
        match text.split_once(": ") {
            Some((VIOLATION, what)) => RoundFailure::Violation(what.to_string()),
            Some((NO_PROGRESS, what)) => RoundFailure::Stuck(what.to_string()),
            Some((UNDECIDED, what)) => RoundFailure::Undecided(what.to_string()),
            Some((NOT_RUN, what)) => RoundFailure::NotRun(what.to_string()),
            _ => RoundFailure::NotRun(text.to_string()),
        }
    }
}

const VIOLATION: &str = "VIOLATION";
const NO_PROGRESS: &str = "NO PROGRESS";
const UNDECIDED: &str = "NOT DECIDED";
const NOT_RUN: &str = "error";

impl std::fmt::Display for RoundFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RoundFailure::Violation(what) => write!(f, "{VIOLATION}: {what}"),
            RoundFailure::Stuck(what) => write!(f, "{NO_PROGRESS}: {what}"),
            RoundFailure::Undecided(what) => write!(f, "{UNDECIDED}: {what}"),
            RoundFailure::NotRun(what) => write!(f, "{NOT_RUN}: {what}"),
        }
    }
}

/// The verdict on a correct round.
#[derive(Clone, Debug, Default)]
pub struct RoundVerdict {
    /// Number of client operations, all linearizable.
    pub operations: u64,
    /// The lines prove that every rule was kept. If false, the servers did not record their steps, and the recorded
    /// lines break no rule.
    pub is_proved: bool,
    /// Number of lines read.
    pub lines: u64,
}

/// Judges the lines of a directory.
pub fn verify(dir: &Path) -> Result<RoundVerdict, RoundFailure> {
    let run = Run::read(dir).map_err(|error| RoundFailure::NotRun(error.to_string()))?;
    for entry in &run.lines {
        if let Event::Violation { rule, .. } = &entry.line.event {
            return Err(RoundFailure::Violation(format!(
                "a server reported a violation of its rule {rule}: {}",
                entry.line
            )));
        }
    }
    check_error_output(dir)?;
    let audit = Audit::new(&run);
    if audit.verdict() == audit::AuditVerdict::Violated {
        return Err(RoundFailure::Violation(format!("audit of the log lines:\n{}", audit.explain(&run))));
    }
    let operations = match check_run(&run, Instant::now() + SEARCH_TIMEOUT) {
        LinearizabilityVerdict::Linearizable { operations, .. } => operations as u64,
        LinearizabilityVerdict::Violation(witness) => {
            let shown = |at: usize| format!("\n  {}", run.line(at));
            let lines: String =
                [Some(witness.breaks.call), witness.breaks.end].into_iter().flatten().map(shown).collect();
            let what = format!("the results of {} are not linearizable; no order explains{lines}", witness.key);
            return Err(RoundFailure::Violation(what));
        }
        LinearizabilityVerdict::Unknown(why @ WhyUndecided::Incomplete(_)) => {
            return Err(RoundFailure::Undecided(format!("log lines: {why}")));
        }
        LinearizabilityVerdict::Unknown(why) => {
            return Err(RoundFailure::Undecided(format!("linearizability check: {why}")));
        }
    };
    let is_proved = audit.verdict() == audit::AuditVerdict::Proved;
    if !is_proved && shows_all_steps(&run) {
        return Err(RoundFailure::Undecided(format!("audit of the log lines:\n{}", audit.explain(&run))));
    }
    Ok(RoundVerdict { operations, is_proved, lines: run.lines.len() as u64 })
}

fn shows_all_steps(run: &Run) -> bool {
    let hides = |event: &Event| matches!(event, Event::Boot { steps: Some(steps), .. } if steps.as_str() != Some("on"));
    !run.lines.iter().any(|entry| hides(&entry.line.event))
}

/// Checks the servers' stderr: none may have panicked.
fn check_error_output(dir: &Path) -> Result<(), RoundFailure> {
    let entries = fs::read_dir(dir).map_err(|error| RoundFailure::NotRun(error.to_string()))?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.extension().is_none_or(|extension| extension != "err") {
            continue;
        }
        let text = fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        if let Some(line) = text.lines().find(|line| line.contains("panicked at")) {
            return Err(RoundFailure::Violation(format!("{}: {line}", path.display())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_failure_can_be_read_again() {
        let what = || "server 3: \n  a line".to_string();
        for failure in [
            RoundFailure::Violation(what()),
            RoundFailure::Stuck(what()),
            RoundFailure::Undecided(what()),
            RoundFailure::NotRun(what()),
        ] {
            assert_eq!(RoundFailure::read(&format!("{failure}\n")), failure);
        }
    }
}
