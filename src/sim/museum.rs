//! A tour of the museum: each bug is searched among some seeds, and the result is a table.

use std::fmt::Write as _;

use super::batch::{Batch, Setting, replay, run_one};
use super::faults::Faults;
use super::invariants::name_of;
use super::world::Verdict;
use crate::museum::Bug;

/// What found a bug.
pub fn caught_by(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Clean => "nothing".to_string(),
        Verdict::Unsafe(violation) => format!("{}: {}", violation.invariant, name_of(violation.invariant)),
        Verdict::Stuck(_) => format!("27: {}", name_of(27)),
    }
}

/// Searches every bug among these seeds; the table, and the exit code: 1 if one was not found.
pub fn tour(first: u64, last: u64, threads: usize) -> (String, u8) {
    let mut text = String::from(HEAD);
    let mut missed = 0;
    let plain = Setting { allowed: Faults::all(), bug: None };
    for bug in Bug::ALL {
        let setting = Setting { bug: Some(*bug), ..plain };
        let summary = Batch { first, last, time: None, setting, threads }.run(|_| {});
        // A seed that fails without the bug as well has found something else.
        let found = summary.failure.filter(|(seed, _)| run_one(*seed, plain, false).verdict == Verdict::Clean);
        let (seeds, caught, how) = match &found {
            Some((seed, verdict)) => {
                ((seed - first + 1).to_string(), caught_by(verdict), format!("`{}`", replay(*seed, setting)))
            }
            None => {
                missed += 1;
                (format!("not in {}", last - first + 1), "nothing".to_string(), String::new())
            }
        };
        let _ = writeln!(text, "| {} | {} | {} | {seeds} | {caught} | {how} |", bug.name(), bug.says(), bug.seen());
    }
    (text, u8::from(missed > 0))
}

/// The page around the table.
const HEAD: &str = "\
# The museum

Bugs that consensus systems have really had, each a mutation of one line of this project, and what it takes the simulator
to find it. `seeds` is how many runs, from seed 1 on, it needed; each run takes some milliseconds. The bugs are in builds
with the feature `museum` alone:

```
cargo run --profile museum --features museum --bin paxos-lab -- simulate --bug B07 --seeds 1..1000
```

This page is printed by `paxos-lab simulate --museum --seeds 1..5000`.

| bug | what it does | seen in | seeds | caught by invariant | replay |
|---|---|---|---|---|---|
";
