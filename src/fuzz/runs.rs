//! The lines of a whole run: those who judge it trust none of them, and always come to a verdict.

use std::time::{Duration, Instant};

use crate::linearizability;
use crate::trace::audit::Audit;
use crate::trace::parse::Run;
use crate::trace::report::Report;

/// A search that takes longer than this is given up.
const WITHIN: Duration = Duration::from_millis(20);

/// A file of lines is judged, and judged alike when its last line is still being written.
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
    assert!(!Report::new(&run).explain(&run, 3).to_string().is_empty());
    let _ = linearizability::check_run(&run, Instant::now() + WITHIN);

    let mut torn = Run::default();
    let more = [&bytes[..whole], b"2026-08-21T14:03:07.105"].concat();
    torn.add("server-1.log", &more, more.len() as u64).expect("what was read can be read again");
    assert_eq!(Audit::new(&torn).verdict(), audit.verdict());
}
