//! A search for every seeded bug, with a table as its result.

use std::fmt::Write as _;

use super::batch::{BatchConfig, SeedBatch, replay, run_one};
use super::faults::FaultSet;
use super::oracle::{Violation, name_of};
use super::simulation::RunVerdict;
use paxos_kv::seeded_bugs::Bug;

/// The invariant that found a bug.
pub fn caught_by(verdict: &RunVerdict) -> String {
    match verdict {
        RunVerdict::Clean => "not found".to_string(),
        RunVerdict::Unsafe(violation) => format!("{}: {}", violation.invariant, name_of(violation.invariant)),
        RunVerdict::Stuck(_) => format!("27: {}", name_of(27)),
    }
}

/// The result of a search for one bug: number of seeds that it took, the seed, and its verdict; None if not found.
type BugSearch = Option<(u64, u64, RunVerdict)>;

/// Searches for a bug in this range of seeds.
fn find(bug: Bug, (first, last): (u64, u64), threads: usize, harm_only: bool) -> BugSearch {
    let plain = BatchConfig { allowed: FaultSet::all(), bug: None, protocol: bug.protocol(), user_visible_only: false };
    let config = BatchConfig { bug: Some(bug), user_visible_only: harm_only, ..plain };
    let (seed, verdict) = SeedBatch { first, last, time: None, config, threads }.run(|_| {}).failure?;
    // A seed that also fails without the bug has found something else.
    let is_its = run_one(seed, plain, false).verdict == RunVerdict::Clean;
    is_its.then_some((seed - first + 1, seed, verdict))
}

/// Searches for every bug in this range of seeds. Returns the table and the exit code: 1 if a bug was not found.
pub fn search_all(first: u64, last: u64, threads: usize, harm_too: bool) -> (String, u8) {
    let mut text = String::from(HEAD);
    let mut missed = 0;
    for bug in Bug::ALL {
        let (found, harm) = match find(*bug, (first, last), threads, false) {
            Some((seeds, seed, verdict)) => {
                let config = BatchConfig {
                    allowed: FaultSet::all(),
                    bug: Some(*bug),
                    protocol: bug.protocol(),
                    user_visible_only: false,
                };
                let found = format!("{seeds} | {} | `{}`", caught_by(&verdict), replay(seed, config));
                (found, if harm_too { harm_of(*bug, (first, last), threads) } else { "not searched".to_string() })
            }
            None => {
                missed += 1;
                (format!("not in {} | not found | ", last - first + 1), "not found".to_string())
            }
        };
        let _ = writeln!(text, "| {} | {} | {} | {found} | {harm} |", bug.name(), bug.says(), bug.seen());
    }
    (text, u8::from(missed > 0))
}

fn harm_of(bug: Bug, seeds: (u64, u64), threads: usize) -> String {
    match find(bug, seeds, threads, true) {
        Some((seeds, _, RunVerdict::Unsafe(Violation { invariant, .. }))) => format!("{invariant} ({seeds})"),
        Some((seeds, _, _)) => format!("27 ({seeds})"),
        None => format!("none in {}", seeds.1 - seeds.0 + 1),
    }
}

/// The text above the table.
const HEAD: &str = "\
# Seeded bugs

Bugs that real consensus systems have had, put into this project, and what the simulator needs to find each one. Most bugs
wrap the role that ships, and change what it receives, records and sends. Each of the others is one switch in the rule that it
breaks ([`rules.md`](rules.md) says where). `seeds` is the number of runs until the bug was found, from seed 1 on; each run
takes some milliseconds. The oracle's invariants catch most bugs long before a user could see harm. `harm` is the invariant
that is violated if the oracle ignores all invariants that only prevent harm, and in brackets the number of runs: 1 two values
chosen, 13 replicas diverge, 14 an acknowledged write is lost, 15 a write takes effect twice, 16 and 19 client results are not
linearizable, 27 no progress, 29 a role stops at its own assertion, 37 a transaction is both committed and aborted, 40 the claim
of an impostor is recorded. Only builds with the feature `seeded-bugs` contain the bugs:

```
cargo run --profile seeded-bugs --features seeded-bugs -p paxos-lab -- simulate --bug FirstValueAdopted --seeds 1..1000
```

`paxos-lab simulate --all-bugs --seeds 1..12000` prints this page. `--until-visible` also fills the last column, which takes
long.

| bug | what it does | seen in | seeds | caught by invariant | replay | harm |
|---|---|---|---|---|---|---|
";
