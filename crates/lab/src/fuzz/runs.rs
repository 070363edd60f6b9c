//! The log lines of a whole run: the checks trust no line, and always reach a verdict.

use std::time::{Duration, Instant};

use crate::linearizability;
use paxos_kv::trace::audit::Audit;
use paxos_kv::trace::parse::Run;
use paxos_kv::trace::report::Report;

/// Maximum time for a search.
const WITHIN: Duration = Duration::from_millis(20);

/// A log file gets a verdict, and the same one while its last line is still being written.
pub fn runs(bytes: &[u8]) {
    let mut run = Run::default();
    if run.add("server-1.log", bytes, bytes.len() as u64).is_err() {
        return;
    }
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    assert_eq!(run.torn.len(), usize::from(whole < bytes.len()));
    let audit = Audit::new(&run);
    for finding in &audit.findings {
        assert!(
            finding.lines.iter().all(|at| *at < run.lines.len()),
            "{} names a line that is not there",
            finding.message
        );
    }
    assert!(!audit.explain(&run).to_string().is_empty());
    assert!(!Report::new(&run).checklist().to_string().is_empty());
    let _ = linearizability::check_run(&run, Instant::now() + WITHIN);

    let mut torn = Run::default();
    let more = [&bytes[..whole], b"2026-08-21T14:03:07.105"].concat();
    torn.add("server-1.log", &more, more.len() as u64).expect("a run that was read can be read again");
    assert_eq!(Audit::new(&torn).verdict(), audit.verdict());
}
