//! `paxos-lab check`: the verdicts on history files.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::cross_check::disagreement;
use super::history::{Format, History};
use super::verdict::{LinearizabilityVerdict, SourceLines, WhyUndecided, Witness};
use paxos_kv::duration::parse_duration;
use paxos_kv::trace::audit::Audit;
use paxos_kv::trace::parse::{Run, RunError, log_files};

/// Exit codes, in addition to 1 for a failure and 2 for wrong usage.
pub mod exit {
    /// Every history is linearizable.
    pub const OK: u8 = 0;
    /// Some history is undecided, and no history is known to be not linearizable.
    pub const NOT_PROVABLE: u8 = 6;
    /// Some history is not linearizable.
    pub const VIOLATION: u8 = 7;
}

/// Maximum number of operations shown of a long order; they are the last ones.
const SHOWN_MAX: usize = 12;

/// Check whether histories are linearizable: every operation seems to take effect at one moment between its call and
/// its return.
#[derive(Debug, Args)]
#[command(after_help = "\
A history is one of:
  - log lines of this program: client*.log, and server-*.log if present; all these files together are one history
  - the log of a Jepsen test of one register (INFO jepsen.util - 0 :invoke :read nil)
  - maps with get, put and append: {:process 0, :type :invoke, :f :get, :key \"0\", :value nil}

Name the log files of all clients of a run: one client may have read what another one wrote.

Examples:
  paxos-lab check runs/latest
  paxos-lab check runs/latest/client*.log
  paxos-lab check --within 10s register.log

Exit codes: 0 all histories are linearizable, 1 a file cannot be read, 2 usage, 6 a history is not decided,
7 a history is not linearizable.")]
pub struct CheckArgs {
    /// Files, or directories: all their *.log files, and the older *.log.1, *.log.2, ...
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Search each history for at most TIME
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "60s")]
    within: Duration,
}

/// A history and its name.
struct HistorySource {
    name: String,
    history: History,
}

impl CheckArgs {
    /// Returns the output and the exit code, or a message that says what failed.
    pub fn run(&self) -> Result<(String, u8), String> {
        let mut text = String::new();
        let mut code = exit::OK;
        for source in read(&self.files)? {
            let started = Instant::now();
            let deadline = started + self.within;
            let verdict = source.history.check(deadline).map_err(|error| format!("{}: {error}", source.name))?;
            code = code.max(exit_code(&verdict));
            explain(&mut text, &source, &verdict, started.elapsed());
            let History::Lines(run) = &source.history else { continue };
            if let Some(contradiction) = disagreement(&verdict, &Audit::new(run)) {
                text += &format!("{}: DISAGREEMENT: {contradiction}\n", source.name);
                code = exit::VIOLATION;
            }
        }
        Ok((text, code))
    }
}

fn exit_code(verdict: &LinearizabilityVerdict) -> u8 {
    match verdict {
        LinearizabilityVerdict::Linearizable { .. } => exit::OK,
        LinearizabilityVerdict::Unknown(_) => exit::NOT_PROVABLE,
        LinearizabilityVerdict::Violation(_) => exit::VIOLATION,
    }
}

/// Reads the files: all logs of this program together as one history, every other file as a history of its own.
fn read(paths: &[PathBuf]) -> Result<Vec<HistorySource>, String> {
    let mut sources: Vec<HistorySource> = Vec::new();
    let mut own: Vec<(PathBuf, u64)> = Vec::new();
    for path in files(paths)? {
        let bytes = read_file(&path)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let name = path.display().to_string();
        let history = match Format::of(&text).map_err(|error| format!("{name}: {error}"))? {
            Format::EtcdLog => History::EtcdLog(text),
            Format::KvText => History::KvText(text),
            Format::Lines => {
                own.push((path, bytes.len() as u64));
                continue;
            }
        };
        sources.push(HistorySource { name, history });
    }
    sources.extend(read_run(&own)?);
    Ok(sources)
}

/// Reads the logs of a run. Each path comes with the size of its file at a first look at all files. Everything that
/// those bytes depend on has been written by now, even if the run continues.
fn read_run(own: &[(PathBuf, u64)]) -> Result<Option<HistorySource>, String> {
    let name = match own {
        [] => return Ok(None),
        [(path, _)] => path.display().to_string(),
        [(first, _), .., (last, _)] => format!("{} ... {} ({} files)", first.display(), last.display(), own.len()),
    };
    let mut run = Run::default();
    for (path, early) in own {
        let bytes = read_file(path)?;
        run.add(&path.display().to_string(), &bytes, *early).map_err(|error| error.to_string())?;
    }
    Ok(Some(HistorySource { name, history: History::Lines(run) }))
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// The files given, and all log files of the directories given.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let logs = log_files(path).map_err(|error| error.to_string())?;
        if logs.is_empty() {
            return Err(RunError::Empty(path.clone()).to_string());
        }
        files.extend(logs);
    }
    Ok(files)
}

fn explain(text: &mut String, source: &HistorySource, verdict: &LinearizabilityVerdict, took: Duration) {
    let (name, took) = (&source.name, took.as_secs_f64());
    // Writing to a string cannot fail.
    let _ = match verdict {
        LinearizabilityVerdict::Linearizable { operations, keys } => {
            let (operations, keys) = (count(*operations, "operation"), count(*keys, "key"));
            writeln!(text, "{name}: linearizable ({operations} on {keys}, {took:.3} s)")
        }
        LinearizabilityVerdict::Unknown(WhyUndecided::Incomplete(what)) => {
            writeln!(text, "{name}: not provable: lines are missing: {what}")
        }
        LinearizabilityVerdict::Unknown(unknown) => writeln!(text, "{name}: unknown: {unknown} ({took:.3} s)"),
        LinearizabilityVerdict::Violation(witness) => {
            writeln!(text, "{name}: NOT linearizable ({took:.3} s)").and_then(|()| show_witness(text, source, witness))
        }
    };
}

fn show_witness(text: &mut String, source: &HistorySource, witness: &Witness) -> std::fmt::Result {
    let Witness { key, order, state, breaks, open } = witness;
    writeln!(text, "  No order of the operations on {key} explains how this one ended:")?;
    show(text, source, breaks)?;
    if order.is_empty() {
        writeln!(text, "  No operation had ended before it: {key} {state}.")?;
    } else {
        let (hidden, shown) = order.split_at(order.len().saturating_sub(SHOWN_MAX));
        writeln!(text, "  The longest order that explains every operation that ended before it:")?;
        if !hidden.is_empty() {
            writeln!(text, "    ... {} before ...", count(hidden.len(), "operation"))?;
        }
        shown.iter().try_for_each(|place| show(text, source, place))?;
        writeln!(text, "  After it {key} {state}.")?;
    }
    if !open.is_empty() {
        writeln!(text, "  These operations were in flight; placing them first does not help:")?;
        open.iter().take(SHOWN_MAX).try_for_each(|place| show(text, source, place))?;
        if let Some(more) = open.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
            writeln!(text, "    ... and {more} more ...")?;
        }
    }
    if matches!(source.history, History::Lines(_)) {
        writeln!(text, "  (If other clients wrote to this key, name their log files too.)")?;
    }
    Ok(())
}

/// Shows an operation: the line of its call, and below it the line of its end.
fn show(text: &mut String, source: &HistorySource, place: &SourceLines) -> std::fmt::Result {
    let line = |at: usize| {
        let (file, number, line) = source.history.line(at);
        format!("{}:{number}: {line}", file.unwrap_or(&source.name))
    };
    writeln!(text, "    {}", line(place.call))?;
    match place.end {
        Some(end) => writeln!(text, "      {}", line(end)),
        None => writeln!(text, "      (no line shows its end)"),
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_searched_for_the_given_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("register.log");
        // The search reads the clock only once in hundreds of steps.
        let writes = "INFO  jepsen.util - 0 :invoke :write 4\nINFO  jepsen.util - 0 :ok :write 4\n".repeat(1_000);
        fs::write(&file, writes).unwrap();
        let within = |within| CheckArgs { files: vec![file.clone()], within }.run().unwrap();
        let (text, code) = within(Duration::from_secs(60));
        assert!(code == exit::OK && text.contains("register.log: linearizable (1000 operations on 1 key, "), "{text}");
        let (text, code) = within(Duration::ZERO);
        assert!(code == exit::NOT_PROVABLE && text.contains("register.log: unknown: not decided in time"), "{text}");
    }

    /// Two writes, one after the other, whose slots stand in the other order. Each key alone is linearizable, so the search
    /// finds an order; the audit finds that the slots contradict real time.
    #[test]
    fn disagreement_with_the_audit_is_a_violation() {
        let dir = tempfile::tempdir().unwrap();
        let line =
            |n: usize, rest: &str| format!("2026-08-21T14:03:07.00000{n}Z INFO  c1.{:<4} client   {rest}\n", n + 1);
        let mut text = line(0, "BOOT     version=0.1.0 lines=2 cluster=s1");
        for (n, slot) in [(1, 9), (2, 8)] {
            let (request, response) = (2 * n - 1, 2 * n);
            text +=
                &line(request, &format!("REQUEST  req=c1-{n} op=PUT key=k{n} value=v to=s1 session=3 sequence={n}"));
            text +=
                &line(response, &format!("RESPONSE req=c1-{n} status=OK slot={slot} version=1 took=0.001ms server=s1"));
        }
        // The audit checks rules only if it knows the servers and their protocol.
        let server = "2026-08-21T14:03:07.000000Z INFO  s1.1    server   BOOT     version=0.1.0 lines=2 cluster=s1 \
                      protocol=basic-paxos steps=on incarnation=1\n";
        fs::write(dir.path().join("server-1.log"), server).unwrap();
        fs::write(dir.path().join("client-1.log"), text).unwrap();
        let (text, code) =
            CheckArgs { files: vec![dir.path().to_path_buf()], within: Duration::from_secs(60) }.run().unwrap();
        assert!(code == exit::VIOLATION && text.contains("DISAGREEMENT"), "{text}");
        assert!(text.contains("linearizable (2 operations on 2 keys"), "{text}");
    }

    /// The output for a violation after `in_order` operations in the order, with `open` others.
    fn shown(in_order: usize, open: usize) -> String {
        let text: String = (0..100).map(|n| format!("call {n}\nend {n}\n")).collect();
        let source = HistorySource { name: "h".to_string(), history: History::KvText(text) };
        let place = |n: usize| SourceLines { call: 2 * n, end: Some(2 * n + 1) };
        let witness = Witness {
            key: "key k".to_string(),
            order: (0..in_order).map(place).collect(),
            state: "holds 4".to_string(),
            breaks: place(99),
            open: (50..50 + open).map(place).collect(),
        };
        let mut text = String::new();
        show_witness(&mut text, &source, &witness).unwrap();
        text
    }

    /// The lines that show these operations.
    fn lines(of: impl IntoIterator<Item = usize>) -> String {
        of.into_iter().map(|n| format!("    h:{}: call {n}\n      h:{}: end {n}\n", 2 * n + 1, 2 * n + 2)).collect()
    }

    #[test]
    fn short_witness_is_shown_whole() {
        let breaks = format!("  No order of the operations on key k explains how this one ended:\n{}", lines([99]));
        assert_eq!(shown(0, 0), format!("{breaks}  No operation had ended before it: key k holds 4.\n"));
        let order = "  The longest order that explains every operation that ended before it:";
        let open = "  These operations were in flight; placing them first does not help:";
        let expected = format!(
            "{breaks}{order}\n{}  After it key k holds 4.\n{open}\n{}",
            lines(0..SHOWN_MAX),
            lines(50..50 + SHOWN_MAX)
        );
        assert_eq!(shown(SHOWN_MAX, SHOWN_MAX), expected);
    }

    #[test]
    fn long_witness_shows_its_end_and_counts_the_rest() {
        let text = shown(SHOWN_MAX + 1, SHOWN_MAX + 2);
        let order = format!("    ... 1 operation before ...\n{}  After it key k holds 4.\n", lines(1..=SHOWN_MAX));
        let open = format!(" does not help:\n{}    ... and 2 more ...\n", lines(50..50 + SHOWN_MAX));
        assert!(text.contains(&order) && text.ends_with(&open), "{text}");
    }
}
