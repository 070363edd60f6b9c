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
        RunVerdict::Clean => "nothing".to_string(),
        RunVerdict::Unsafe(violation) => format!("{}: {}", violation.invariant, name_of(violation.invariant)),
        RunVerdict::Stuck(_) => format!("27: {}", name_of(27)),
    }
}

/// The result of a search for one bug: number of seeds that it took, the seed, and its verdict; None if not found.
type BugSearch = Option<(u64, u64, RunVerdict)>;

/// Searches for a bug in this range of seeds.
fn find(bug: Bug, (first, last): (u64, u64), threads: usize, harm_only: bool) -> BugSearch {
    let plain = BatchConfig { allowed: FaultSet::all(), bug: None, protocol: bug.protocol(), harm_only: false };
    let setting = BatchConfig { bug: Some(bug), harm_only, ..plain };
    let (seed, verdict) = SeedBatch { first, last, time: None, setting, threads }.run(|_| {}).failure?;
    // A seed that also fails without the bug has found something else.
    let is_its = run_one(seed, plain, false).verdict == RunVerdict::Clean;
    is_its.then_some((seed - first + 1, seed, verdict))
}

/// Searches for every bug in this range of seeds. Returns the table and the exit code: 1 if a bug was not found.
pub fn tour(first: u64, last: u64, threads: usize, harm_too: bool) -> (String, u8) {
    let mut text = String::from(HEAD);
    let mut missed = 0;
    for bug in Bug::ALL {
        let (found, harm) = match find(*bug, (first, last), threads, false) {
            Some((seeds, seed, verdict)) => {
                let setting = BatchConfig {
                    allowed: FaultSet::all(),
                    bug: Some(*bug),
                    protocol: bug.protocol(),
                    harm_only: false,
                };
                let found = format!("{seeds} | {} | `{}`", caught_by(&verdict), replay(seed, setting));
                (found, if harm_too { harm_of(*bug, (first, last), threads) } else { "not asked".to_string() })
            }
            None => {
                missed += 1;
                (format!("not in {} | nothing | ", last - first + 1), "nothing".to_string())
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

Bugs that consensus systems have really had, put into this project, and what it takes the simulator to find each. Most of
them stand around the role that ships, and rewrite what it hears, remembers and says; the others are one switch in the rule
that they break ([`rules.md`](rules.md) says where). `seeds` is how many runs, from seed 1 on, it needed; each run takes some
milliseconds. The rules that the observer holds notice most bugs long before they harm anybody; `harm` is what happens if it
keeps quiet about them (1 two values chosen, 13 replicas differ, 14 an acknowledged write is gone, 15 a write done twice, 16
and 19 clients see no one store, 27 nothing moves, 37 a transaction is both committed and aborted, 40 the claim of a stranger
is remembered, 29 a role's own assertion stops it), and in brackets after how many seeds. The bugs are in builds with the feature `seeded-bugs` alone:

```
cargo run --profile seeded-bugs --features seeded-bugs --bin paxos-lab -- simulate --bug FirstValueAdopted --seeds 1..1000
```

This page is printed by `paxos-lab simulate --all-bugs --seeds 1..12000`; with `--until-visible`, which takes long, it
fills the last column, too.

| bug | what it does | seen in | seeds | caught by invariant | replay | harm |
|---|---|---|---|---|---|---|
";
