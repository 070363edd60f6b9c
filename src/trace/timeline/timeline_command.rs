//! The command `paxos-server timeline`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::counts::PageCounts;
use super::{LINES_MAX, last_history, page};
use crate::trace::audit::{Audit, AuditVerdict};
use crate::trace::parse::Run;

/// The command line of the picture.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  paxos-server timeline runs/latest -o run.html            the whole run
  paxos-lab simulate --seed 7 --out runs/sim-7          a simulated one ...
  paxos-server timeline runs/sim-7 -o sim-7.html           ... is drawn alike

The page opens from a file, in any browser, and needs no network. If the audit finds a violation, it opens at the first
wrong line; if lines are missing and it can prove nothing, the page says so. Its address takes #req=c1-5, #slot=7, #server=3,
#at=s1.204 and #view=time.")]
pub struct TimelineArgs {
    /// Folder of the run, as runs/latest
    dir: PathBuf,
    /// The page to write
    #[arg(short, long, value_name = "FILE.html", default_value = "timeline.html")]
    out: PathBuf,
    /// What the page is called [default: the folder's name]
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// At most so many lines; of a longer run the beginning, or what is around the first violation
    #[arg(long, value_name = "N", default_value_t = LINES_MAX, value_parser = parse_lines)]
    lines: usize,
}

fn parse_lines(text: &str) -> Result<usize, String> {
    let lines = text.parse().ok().filter(|lines| (1..=1_000_000).contains(lines));
    lines.ok_or_else(|| format!("'{text}' is no number of lines from 1 to 1000000"))
}

/// Writes the page. Returns the text to print and the exit code.
pub fn run(arguments: &TimelineArgs) -> Result<(String, u8), String> {
    let TimelineArgs { dir, out, title, lines } = arguments;
    let (run, earlier) = last_history(Run::read(dir).map_err(|error| error.to_string())?);
    let title = title.clone().unwrap_or_else(|| name(dir));
    let audit = Audit::new(&run);
    let page = page(&run, &audit, &title, *lines);
    fs::write(out, &page.html).map_err(|error| format!("cannot write {}: {error}", out.display()))?;
    let PageCounts { lines, servers, others, messages, outages, .. } = page.facts;
    let mut text = format!(
        "{}: {lines} lines of {servers} servers and {others} clients, {messages} messages, {outages} outages\n",
        out.display(),
    );
    if earlier > 0 {
        let _ = writeln!(text, "the data folders were begun anew: {earlier} lines of what was before are not in it");
    }
    if page.repeated > 0 {
        let _ = writeln!(
            text,
            "{} lines have the number of another line and are not in it: they are of several histories, and cannot be told apart",
            page.repeated
        );
    }
    if page.left_out > page.repeated {
        let _ = writeln!(
            text,
            "{} lines of the run are not in it. More: --lines {}",
            page.left_out - page.repeated,
            run.lines.len()
        );
    }
    if let Some(line) = &page.opens_at {
        let _ = writeln!(text, "it opens at the first wrong line, {line}");
    }
    let _ = writeln!(text, "{}", said(&audit));
    Ok((text, 0))
}

/// The audit's verdict in a sentence, with the first finding if there is one.
fn said(audit: &Audit) -> String {
    let why = audit.findings.first().map_or("", |finding| &finding.message);
    match audit.verdict() {
        AuditVerdict::Proved => "the audit proves that every rule was kept".to_string(),
        AuditVerdict::Unproven => format!("the audit: not provable, for {why}"),
        AuditVerdict::Violated => format!("the audit: VIOLATION, {why}"),
    }
}

/// The name of the directory behind a path or symbolic link such as `latest`.
fn name(dir: &Path) -> String {
    let real = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    real.file_name().unwrap_or(real.as_os_str()).to_string_lossy().into_owned()
}
