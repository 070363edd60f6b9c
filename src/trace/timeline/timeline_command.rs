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
  paxos-server timeline runs/latest -o run.html         the whole run
  paxos-lab simulate --seed 7 --out runs/sim-7          simulate a run ...
  paxos-server timeline runs/sim-7 -o sim-7.html        ... and draw it

The page opens from a file, in any browser, and needs no network. If the audit finds a violation, it opens at the first
wrong line; if lines are missing and it can prove nothing, the page says so. Its address accepts #req=c1-5, #slot=7, #server=3,
#at=s1.204 and #view=time.")]
pub struct TimelineArgs {
    /// Directory of the run, such as runs/latest
    dir: PathBuf,
    /// Output file
    #[arg(short, long, value_name = "FILE.html", default_value = "timeline.html")]
    out: PathBuf,
    /// Title of the page [default: name of the directory]
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Maximum number of lines; of a longer run, its beginning or the lines around the first violation
    #[arg(long, value_name = "N", default_value_t = LINES_MAX, value_parser = parse_lines)]
    lines: usize,
}

fn parse_lines(text: &str) -> Result<usize, String> {
    let lines = text.parse().ok().filter(|lines| (1..=1_000_000).contains(lines));
    lines.ok_or_else(|| format!("'{text}' is not a number of lines from 1 to 1000000"))
}

/// Writes the page. Returns the text to print and the exit code.
pub fn run(arguments: &TimelineArgs) -> Result<(String, u8), String> {
    let TimelineArgs { dir, out, title, lines } = arguments;
    let (run, earlier) = last_history(Run::read(dir).map_err(|error| error.to_string())?);
    let title = title.clone().unwrap_or_else(|| name(dir));
    let audit = Audit::new(&run);
    let page = page(&run, &audit, &title, *lines);
    fs::write(out, &page.html).map_err(|error| format!("cannot write {}: {error}", out.display()))?;
    let PageCounts { lines, servers, others, messages, outages, .. } = page.counts;
    let mut text = format!(
        "{}: {lines} lines of {servers} servers and {others} clients, {messages} messages, {outages} outages\n",
        out.display(),
    );
    if earlier > 0 {
        let _ = writeln!(
            text,
            "the data directories were created anew: {earlier} lines of earlier histories are not in the page"
        );
    }
    if page.repeated > 0 {
        let _ = writeln!(
            text,
            "{} lines have the id of another line and are not in the page: they are of several histories that cannot be separated",
            page.repeated
        );
    }
    if page.left_out > page.repeated {
        let _ = writeln!(
            text,
            "{} lines of the run are not in the page. To draw all of them: --lines {}",
            page.left_out - page.repeated,
            run.lines.len()
        );
    }
    if let Some(line) = &page.opens_at {
        let _ = writeln!(text, "the page opens at the first wrong line, {line}");
    }
    let _ = writeln!(text, "{}", describe_audit(&audit));
    Ok((text, 0))
}

/// The audit's verdict in a sentence, with the first finding if there is one.
fn describe_audit(audit: &Audit) -> String {
    let why = audit.findings.first().map_or("", |finding| &finding.message);
    match audit.verdict() {
        AuditVerdict::Proved => "audit: the lines prove that every rule was kept".to_string(),
        AuditVerdict::Unproven => format!("audit: not provable: {why}"),
        AuditVerdict::Violated => format!("audit: VIOLATION: {why}"),
    }
}

/// The name of the directory behind a path or symbolic link such as `latest`.
fn name(dir: &Path) -> String {
    let real = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    real.file_name().unwrap_or(real.as_os_str()).to_string_lossy().into_owned()
}
