//! The command `paxos-lab simulate`: one seed with full output, or many in a batch.

use std::fmt::Write as _;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::batch::{BatchConfig, BatchSummary, SeedBatch, replay, run_one, shrink};
use super::coverage::{Coverage, CoveragePoint};
use super::faults::FaultSet;
use super::plan::RunPlan;
use super::simulation::RunVerdict;
use paxos_kv::protocol::Protocol;
use paxos_kv::random::Random;
use paxos_kv::seeded_bugs::{self, Bug};

/// A batch of this number of runs with all faults must reach every coverage point: the rarest is reached about once in
/// 300 runs.
const ENOUGH_RUNS: u64 = 3_000;

/// The command line of the simulator.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  paxos-lab simulate --seed 7                     one run: its plan, result and coverage
  paxos-lab simulate --seed 7 --out runs/sim-7    write its log lines too, for audit and logs
  paxos-lab simulate --seeds 1..1000              many runs on all cores
  paxos-lab simulate --minutes 10                 runs of new seeds for ten minutes
  paxos-lab simulate --seeds 1..100 --faults pause,partition

Exit codes: 0 clean, 1 a batch missed a coverage point or another failure, 2 usage, 7 a rule was broken, 8 no progress.")]
pub struct SimulateArgs {
    /// Run one seed; print its plan and its result [default: a random seed]
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "minutes"])]
    seed: Option<u64>,
    /// Run the seeds from A to B, both included
    #[arg(long, value_name = "A..B", value_parser = parse_range, conflicts_with = "minutes")]
    seeds: Option<(u64, u64)>,
    /// Run new seeds for N minutes
    #[arg(long, value_name = "N")]
    minutes: Option<f64>,
    /// Fault classes that may occur: all, none, or names separated by commas (an unknown name prints the list)
    #[arg(long, value_name = "LIST", default_value_t = FaultSet::all())]
    faults: FaultSet,
    /// Protocol of the servers
    #[arg(long, value_enum, default_value_t = ProtocolChoice::All)]
    protocol: ProtocolChoice,
    /// Switch on a seeded bug, which the run should find (needs a build with the feature `seeded-bugs`)
    #[arg(long, value_name = "BUG")]
    bug: Option<Bug>,
    /// Stop only at user-visible violations: a wrong result, a lost write, diverged replicas or no progress. With
    /// --all-bugs: also print for each bug how many seeds that takes
    #[arg(long)]
    until_visible: bool,
    /// Search the seeds for each seeded bug, and print the table of docs/seeded-bugs.md
    #[arg(long, requires = "seeds", conflicts_with_all = ["bug", "seed", "minutes"])]
    all_bugs: bool,
    /// With --seed: write the log lines of all servers and clients into this directory
    #[arg(long, value_name = "DIR", requires = "seed")]
    out: Option<PathBuf>,
    /// With many seeds: print how often each coverage point was reached
    #[arg(long, conflicts_with = "seed")]
    counts: bool,
    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// The protocols to simulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ProtocolChoice {
    /// Each seed chooses basic-paxos or multi-paxos.
    All,
    /// Paxos with both phases for every command.
    BasicPaxos,
    /// Paxos with a leader that skips phase 1.
    MultiPaxos,
    /// Two-phase commit: every server must vote yes.
    TwoPhaseCommit,
}

impl ProtocolChoice {
    fn protocol(self) -> Option<Protocol> {
        match self {
            ProtocolChoice::All => None,
            ProtocolChoice::BasicPaxos => Some(Protocol::BasicPaxos),
            ProtocolChoice::MultiPaxos => Some(Protocol::MultiPaxos),
            ProtocolChoice::TwoPhaseCommit => Some(Protocol::TwoPhaseCommit),
        }
    }
}

/// Reads a range such as `1..1000`, both ends included.
fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let ends = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    ends.filter(|(first, last)| first <= last)
        .ok_or_else(|| format!("'{text}' is not a range of seeds, such as 1..1000"))
}

/// Runs what the command line says; returns the text to print and the exit code.
pub fn run(options: &SimulateArgs) -> Result<(String, u8), String> {
    if (options.bug.is_some() || options.all_bugs) && !seeded_bugs::AVAILABLE {
        return Err("this build has no seeded bugs. Use: cargo run --profile seeded-bugs --features seeded-bugs -p paxos-lab -- \
                    simulate --bug FirstValueAdopted --seeds 1..1000"
            .to_string());
    }
    if let (true, Some((first, last))) = (options.all_bugs, options.seeds) {
        return Ok(super::bug_search::search_all(first, last, options.threads(), options.until_visible));
    }
    match (options.seed, options.seeds, options.minutes) {
        (Some(seed), _, _) => one(seed, options),
        (None, Some((first, last)), _) => many(options, first, last, None),
        (None, None, Some(minutes)) if (0.0..=1e6).contains(&minutes) => {
            let first = Random::unseeded().next() >> 16;
            many(options, first, u64::MAX, Some(Duration::from_secs_f64(minutes * 60.0)))
        }
        (None, None, Some(_)) => Err("--minutes must be between 0 and 1000000".to_string()),
        (None, None, None) => one(Random::unseeded().next() >> 16, options),
    }
}

impl SimulateArgs {
    fn config(&self) -> BatchConfig {
        BatchConfig {
            allowed: self.faults,
            bug: self.bug,
            protocol: self.protocol.protocol(),
            user_visible_only: self.until_visible,
        }
    }

    fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

fn one(seed: u64, options: &SimulateArgs) -> Result<(String, u8), String> {
    print!("{}", RunPlan::new(seed, options.faults, options.protocol.protocol()));
    let report = run_one(seed, options.config(), options.out.is_some());
    if let Some(dir) = &options.out {
        write_lines(dir, &report.lines).map_err(|error| format!("cannot write to {}: {error}", dir.display()))?;
    }
    let mut text = format!("{report}\ntrace {:016x}\n", report.trace);
    let reached: Vec<&str> = CoveragePoint::ALL
        .iter()
        .filter(|mark| report.coverage.count(**mark) > 0)
        .map(|mark| mark.description())
        .collect();
    let _ = writeln!(text, "reached: {}", reached.join("; "));
    if let Some(dir) = &options.out {
        let _ = writeln!(text, "log lines in {0}; to prove them: paxos-lab audit {0}", dir.display());
    }
    if report.verdict != RunVerdict::Clean {
        write_failure(seed, &report.verdict, options.config(), &mut text);
    }
    Ok((text, report.verdict.exit_code()))
}

/// Writes how to reproduce a failure: first with as few fault classes as still show it, and last exactly as it was.
fn write_failure(seed: u64, verdict: &RunVerdict, config: BatchConfig, text: &mut String) {
    let least = shrink(seed, config, verdict);
    if least != config {
        let _ = writeln!(text, "to reproduce with fewer faults: {}", replay(seed, least));
    }
    let _ = writeln!(text, "to reproduce exactly: {}", replay(seed, config));
}

pub(super) fn write_lines(dir: &Path, files: &[(String, String)]) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    // Log lines of another run in the same directory would be taken for lines of this one.
    let stranger = fs::read_dir(dir)?.filter_map(Result::ok).map(|entry| entry.file_name()).find(|name| {
        let name = name.to_string_lossy();
        name.ends_with(".log") && !files.iter().any(|(ours, _)| *ours == name)
    });
    if let Some(name) = stranger {
        let why = format!("it holds {} of another run; name an empty directory", name.display());
        return Err(std::io::Error::other(why));
    }
    for (name, text) in files {
        fs::write(dir.join(name), text)?;
    }
    Ok(())
}

fn many(options: &SimulateArgs, first: u64, last: u64, time: Option<Duration>) -> Result<(String, u8), String> {
    let batch = SeedBatch { first, last, time, config: options.config(), threads: options.threads() };
    let bar = progress(&batch);
    let begun = Instant::now();
    let summary = batch.run(|_| match time {
        Some(_) => bar.set_position(begun.elapsed().as_secs()),
        None => bar.inc(1),
    });
    bar.finish_and_clear();
    let took = begun.elapsed().as_secs_f64();
    let mut text = summary_text(&summary, first, took);
    if options.counts {
        write_counts(&summary, &mut text);
    }
    let code = match &summary.failure {
        Some((seed, verdict)) => {
            let _ = writeln!(text, "seed {seed}: {verdict}");
            write_failure(*seed, verdict, options.config(), &mut text);
            verdict.exit_code()
        }
        None => coverage_exit_code(&summary, options.config(), &mut text),
    };
    Ok((text, code))
}

fn summary_text(summary: &BatchSummary, first: u64, took: f64) -> String {
    let BatchSummary { runs, events, slots, operations, virtual_time, trace, .. } = summary;
    format!(
        "{runs} seeds from {first} in {took:.1} s: {:.0} seeds/s, {events} events, {slots} slots applied, {operations} \
         operations checked, {:.0} virtual minutes, trace hash {trace:016x}\n",
        *runs as f64 / took,
        *virtual_time as f64 / 60e6
    )
}

/// Writes how often each coverage point was reached.
fn write_counts(summary: &BatchSummary, text: &mut String) {
    for mark in CoveragePoint::ALL {
        let _ = writeln!(text, "{:>12} x {}", summary.coverage.count(*mark), mark.description());
    }
}

/// Reports the missing coverage points. A clean batch with all faults and enough runs still fails if one is missing.
fn coverage_exit_code(summary: &BatchSummary, config: BatchConfig, text: &mut String) -> u8 {
    let (missing, all) =
        (summary.coverage.missing(config.protocol), Coverage::default().missing(config.protocol).len());
    let _ = writeln!(text, "{} of {all} coverage points reached", all - missing.len());
    for mark in &missing {
        let _ = writeln!(text, "not reached: {}", mark.description());
    }
    u8::from(!missing.is_empty() && config.allowed == FaultSet::all() && summary.runs >= ENOUGH_RUNS)
}

fn progress(batch: &SeedBatch) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (length, shape) = match batch.time {
        Some(time) => (time.as_secs(), "{bar:40} {elapsed} of {len} s"),
        None => (batch.last - batch.first + 1, "{bar:40} {pos} of {len} seeds, {per_sec}, {eta} left"),
    };
    let style = ProgressStyle::with_template(shape).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}
