//! The command `paxos-lab compare`.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::super::env::{MS, SECOND};
use super::super::simulate_command::write_lines;
use super::super::simulation::RunVerdict;
use super::{ComparisonCell, Scenario, page, play};
use paxos_kv::protocol::Protocol;

/// The command line of the comparison.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  paxos-lab compare                              eight scenarios under three protocols, as a table
  paxos-lab compare -o compare.html              and as a page to open in a browser
  paxos-lab compare --scenario leader-dies       one of them
  paxos-lab compare --scenario leader-dies --protocol two-phase-commit --lines runs/stuck
                                                 one cell, and its lines, for logs, audit and timeline

Exit codes: 0 done, 1 failure, 2 usage, 7 somebody was inconsistent, 8 not everything was decided at the end.")]
pub struct CompareArgs {
    /// Decides the work, and how long everything takes
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Only what goes wrong here
    #[arg(long, value_enum)]
    scenario: Option<Scenario>,
    /// Only under this protocol
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
    /// Write the comparison as a page, too
    #[arg(short, long, value_name = "FILE.html")]
    out: Option<PathBuf>,
    /// With one scenario and one protocol: write the lines of all servers and clients into this folder
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
            let (cell, lines) = play(arguments.seed, scenario, protocol, arguments.lines.is_some());
            if let Some(folder) = &arguments.lines {
                let failed = |error| format!("cannot write to {}: {error}", folder.display());
                write_lines(folder, &lines).map_err(failed)?;
            }
            cells.push(cell);
        }
    }
    if let Some(out) = &arguments.out {
        let html = page::page(arguments.seed, &cells);
        fs::write(out, html).map_err(|error| format!("cannot write {}: {error}", out.display()))?;
    }
    let mut text = table(arguments.seed, &cells);
    if let Some(folder) = &arguments.lines {
        let _ = writeln!(text, "lines in {0}; look at them: paxos-lab timeline {0} -o cell.html", folder.display());
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
    format!("paxos-lab compare{seed} --scenario {} --protocol {}", cell.scenario.word(), cell.protocol.name())
}

/// The cells as a table for a terminal.
pub(super) fn table(seed: u64, cells: &[ComparisonCell]) -> String {
    let mut text = format!(
        "seed {seed}: five servers, five clients that wait 2 s at most, 8 virtual seconds, the fault at 2 s\n\n"
    );
    let _ = writeln!(
        text,
        "{:<46} {:<17} {:>6} {:>6} {:>9} {:>8} {:>7} {:>8} {:>9} {:>7}  consistent",
        "what goes wrong", "protocol", "done", "after", "longest", "refused", "unknown", "in doubt", "msgs", "syncs"
    );
    let _ = writeln!(
        text,
        "{:<46} {:<17} {:>6} {:>6} {:>9} {:>8} {:>7} {:>8} {:>9} {:>7}",
        "", "", "", "fault", "gap", "", "", "at end", "a write", "a write"
    );
    let mut before = None;
    for cell in cells {
        let says = if before == Some(cell.scenario) { "" } else { cell.scenario.says() };
        before = Some(cell.scenario);
        let after = if cell.struck.is_some() { cell.after.to_string() } else { "-".to_string() };
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
        "\nmessages go to other servers, and syncs are those of all servers together; both are counted before the fault, without\n\
         beats, heartbeats and what reads ask. In doubt: prepared for more than half a second and not decided, at 8 s. After that\n\
         all come back, and everything has to be decided and equal.\n",
    );
    if let [cell] = cells {
        let _ = writeln!(text, "once all were back, that took {}", span(cell.settled_in));
    } else if let Some(cell) = cells.first() {
        let _ = writeln!(text, "One cell again, as the first: {}", replay(seed, cell));
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
        RunVerdict::Stuck(why) => format!("always; not all decided: {why}"),
    }
}
