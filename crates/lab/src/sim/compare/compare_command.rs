//! The command `paxos-lab compare`.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::super::env::{MS, SECOND};
use super::super::simulate_command::write_lines;
use super::super::simulation::RunVerdict;
use super::{ComparisonCell, Scenario, page, run_scenario};
use paxos_kv::protocol::Protocol;

/// The command line of the comparison.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  paxos-lab compare                              eight scenarios under three protocols, as a table
  paxos-lab compare -o compare.html              also as a page for a browser
  paxos-lab compare --scenario leader-dies       one scenario
  paxos-lab compare --scenario leader-dies --protocol two-phase-commit --lines runs/stuck
                                                 one cell, and its log lines for logs, audit and timeline

Exit codes: 0 done, 1 failure, 2 usage, 7 a run was inconsistent, 8 not everything was decided at the end.")]
pub struct CompareArgs {
    /// Seed of the clients' requests and of all delays
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Run only this scenario
    #[arg(long, value_enum)]
    scenario: Option<Scenario>,
    /// Run only this protocol
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
    /// Also write the comparison as a page
    #[arg(short, long, value_name = "FILE.html")]
    out: Option<PathBuf>,
    /// With one scenario and one protocol: write the log lines of all servers and clients into this directory
    #[arg(long, value_name = "DIR", requires = "scenario", requires = "protocol")]
    lines: Option<PathBuf>,
}

/// Plays the cells that the command line selects; returns the text to print and the exit code.
pub fn run(arguments: &CompareArgs) -> Result<(String, u8), String> {
    let scenarios = Scenario::ALL.into_iter().filter(|one| arguments.scenario.is_none_or(|only| only == *one));
    let protocols = || Protocol::ALL.into_iter().filter(|one| arguments.protocol.is_none_or(|only| only == *one));
    let mut cells = Vec::new();
    for scenario in scenarios {
        for protocol in protocols() {
            let (cell, lines) = run_scenario(arguments.seed, scenario, protocol, arguments.lines.is_some());
            if let Some(dir) = &arguments.lines {
                let failed = |error| format!("cannot write to {}: {error}", dir.display());
                write_lines(dir, &lines).map_err(failed)?;
            }
            cells.push(cell);
        }
    }
    if let Some(out) = &arguments.out {
        let html = page::page(arguments.seed, &cells);
        fs::write(out, html).map_err(|error| format!("cannot write {}: {error}", out.display()))?;
    }
    let mut text = table(arguments.seed, &cells);
    if let Some(dir) = &arguments.lines {
        let _ = writeln!(text, "log lines in {0}; to draw them: paxos-lab timeline {0} -o cell.html", dir.display());
    }
    if let Some(out) = &arguments.out {
        let _ = writeln!(text, "open {} in a browser", out.display());
    }
    let code = cells.iter().map(|cell| cell.verdict.exit_code()).max().unwrap_or(0);
    Ok((text, code))
}

/// The command that plays one cell again.
pub(super) fn replay(seed: u64, cell: &ComparisonCell) -> String {
    let seed = if seed == 1 { String::new() } else { format!(" --seed {seed}") };
    format!("paxos-lab compare{seed} --scenario {} --protocol {}", cell.scenario.name(), cell.protocol.name())
}

/// The cells as a table for a terminal.
pub(super) fn table(seed: u64, cells: &[ComparisonCell]) -> String {
    let mut text = format!(
        "seed {seed}: 5 servers, 5 clients with a time limit of 2 s per request, 8 virtual seconds, fault at 2 s\n\n"
    );
    let _ = writeln!(
        text,
        "{:<46} {:<17} {:>6} {:>6} {:>9} {:>8} {:>7} {:>8} {:>9} {:>7}  consistent",
        "scenario", "protocol", "done", "after", "longest", "refused", "unknown", "in doubt", "msgs", "syncs"
    );
    let _ = writeln!(
        text,
        "{:<46} {:<17} {:>6} {:>6} {:>9} {:>8} {:>7} {:>8} {:>9} {:>7}",
        "", "", "", "fault", "gap", "", "", "at end", "/write", "/write"
    );
    let mut before = None;
    for cell in cells {
        let says = if before == Some(cell.scenario) { "" } else { cell.scenario.description() };
        before = Some(cell.scenario);
        let after = if cell.fault_time.is_some() { cell.after.to_string() } else { "-".to_string() };
        let _ = writeln!(
            text,
            "{says:<46} {:<17} {:>6} {after:>6} {:>9} {:>8} {:>7} {:>8} {:>9.1} {:>7.1}  {}",
            cell.protocol.name(),
            cell.writes + cell.reads,
            span(cell.longest_gap),
            cell.refused,
            cell.unknown,
            cell.in_doubt,
            cell.cost.messages(),
            cell.cost.syncs(),
            consistent(&cell.verdict),
        );
    }
    text.push_str(
        "\nmsgs: messages to other servers; syncs: disk syncs of all servers. Both are counted before the fault, without PROGRESS,\n\
         heartbeats and the messages of reads. in doubt: transactions prepared for at least 500 ms and not decided at 8 s. Then\n\
         the fault ends; every transaction must be decided, and all replicas must be equal.\n",
    );
    if let [cell] = cells {
        let _ = writeln!(text, "after 8 s, that took {}", span(cell.settled_in));
    } else if let Some(cell) = cells.first() {
        let _ = writeln!(text, "To run one cell again, such as the first: {}", replay(seed, cell));
    }
    text
}

/// A time with its unit, for the reader.
pub(super) fn span(micros: u64) -> String {
    if micros >= SECOND { format!("{:.2} s", micros as f64 / SECOND as f64) } else { format!("{} ms", micros / MS) }
}

pub(super) fn consistent(verdict: &RunVerdict) -> String {
    match verdict {
        RunVerdict::Clean => "always".to_string(),
        RunVerdict::Unsafe(violation) => format!("NO: {violation}"),
        RunVerdict::Stuck(why) => format!("always; but not all decided: {why}"),
    }
}
