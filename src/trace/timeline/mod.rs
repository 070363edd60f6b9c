//! The picture of a run: one page, complete in itself, that draws the lines and lets people step through them.
//!
//! The page holds the lines as they were written and reads them itself, as it must when it watches a run live; what it
//! needs besides is what the audit says of them. [`facts`] counts the same things in Rust that the page draws: the
//! tests hold the two against each other.
//!
//! Whatever a client put into a key travels as data: packed, then as text of the page, never as markup.

pub mod counts;
mod page;
#[cfg(test)]
mod tests;
pub mod timeline_command;

use std::collections::HashSet;

use serde::Serialize;

use counts::PageCounts;

use super::audit::{Audit, AuditVerdict};
use super::histories::Histories;
use super::parse::Run;

/// A page carries at most so many lines.
pub const LINES_MAX: usize = 200_000;
/// A page tells at most so many findings of the audit, and so many lines of each.
const FINDINGS_MAX: usize = 50;
const FINDING_LINES_MAX: usize = 20;

/// The lines of the last history of a run, and the number of lines of earlier ones. A picture is of one history: line
/// numbers begin again with the next.
pub fn last_history(run: Run) -> (Run, usize) {
    let all = run.lines.len();
    let last = match Histories::of(&run) {
        Histories::Several(mut parts) => parts.pop().map(|part| part.run),
        Histories::One | Histories::Mixed(..) => None,
    };
    let run = last.unwrap_or(run);
    let earlier = all - run.lines.len();
    (run, earlier)
}

/// What the page knows besides its lines.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct PageData {
    pub title: String,
    /// `proved`, `unproven` or `violated`; none while a run is watched.
    pub verdict: Option<&'static str>,
    /// Acceptors come back without their memory.
    #[serde(rename = "unsafe")]
    pub is_unsafe: bool,
    pub findings: Vec<PageFinding>,
    /// How many findings are not told.
    pub more: usize,
    /// The line at which the page opens: the first that is wrong.
    pub first: Option<String>,
    /// How many lines are not in the page.
    pub left_out: usize,
    /// Files whose torn last line is not in the page.
    pub torn: Vec<String>,
    /// The lines, packed.
    pub packed: String,
    /// Whether the page watches a running cluster.
    pub live: bool,
    /// Whether its buttons may crash roles.
    pub lab: bool,
    /// Whether the server that is watched shows the steps of the protocol.
    pub steps: bool,
    /// What the page teaches, if it does.
    pub lesson: Option<LessonText<'static>>,
    /// Where else the cluster can be watched.
    pub others: Vec<String>,
}

/// What the audit says.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PageFinding {
    rule: &'static str,
    verdict: &'static str,
    says: String,
    lines: Vec<String>,
}

/// A lesson, as the page shows it.
#[derive(Clone, Debug, Serialize)]
pub struct LessonText<'a> {
    /// What it is called.
    pub title: &'a str,
    /// What happens.
    pub says: &'a str,
    /// Where to look: a sentence, and the line that it is about.
    pub look: Vec<(&'a str, String)>,
    /// What to think about.
    pub question: &'a str,
    /// Where the answer stands.
    pub answer: &'a str,
}

/// A page and what is to be said about it.
#[derive(Clone, Debug)]
pub struct TimelinePage {
    /// The whole page.
    pub html: String,
    /// What it draws.
    pub facts: PageCounts,
    /// How many lines of the run it does not hold.
    pub left_out: usize,
    /// How many of these have the number of another line: histories that cannot be told apart.
    pub repeated: usize,
    /// The line at which it opens, if that is not the first.
    pub opens_at: Option<String>,
}

/// The page of a lesson. It opens at the first line to look at, also where a rule is broken: that comes in its time.
pub fn lesson(run: &Run, audit: &Audit, shown: LessonText<'static>) -> String {
    let kept = drawn(run, audit, LINES_MAX);
    let mut data = data_of(run, audit, shown.title, &kept);
    data.first = None;
    data.lesson = Some(shown);
    page::assemble(&data, "connect-src 'none'")
}

/// The page of a run, with at most `most` of its lines.
pub fn page(run: &Run, audit: &Audit, title: &str, most: usize) -> TimelinePage {
    let kept = drawn(run, audit, most);
    let data = data_of(run, audit, title, &kept);
    TimelinePage {
        html: page::assemble(&data, "connect-src 'none'"),
        facts: PageCounts::new(&run.only(&kept)),
        left_out: data.left_out,
        repeated: run.lines.len() - distinct(run).len(),
        opens_at: data.first,
    }
}

/// The lines that a page holds, in the order of the files.
fn drawn(run: &Run, audit: &Audit, most: usize) -> Vec<usize> {
    window(run, distinct(run), first_wrong(run, audit), most)
}

/// One line of each number: the page finds a line by its number.
fn distinct(run: &Run) -> Vec<usize> {
    let mut seen = HashSet::new();
    (0..run.lines.len()).filter(|at| seen.insert(&run.line(*at).id)).collect()
}

/// What the page knows; it holds these lines.
fn data_of(run: &Run, audit: &Audit, title: &str, kept: &[usize]) -> PageData {
    let text: String = kept.iter().map(|at| format!("{}\n", run.line(*at))).collect();
    let findings = audit.findings.iter().take(FINDINGS_MAX).map(|finding| PageFinding {
        rule: finding.rule.name(),
        verdict: word(finding.verdict),
        says: finding.message.clone(),
        lines: finding.lines.iter().take(FINDING_LINES_MAX).map(|at| run.line(*at).id.to_string()).collect(),
    });
    PageData {
        title: title.to_string(),
        verdict: Some(word(audit.verdict())),
        is_unsafe: !audit.unsafe_lines.is_empty(),
        findings: findings.collect(),
        more: audit.findings.len().saturating_sub(FINDINGS_MAX),
        first: first_wrong(run, audit).map(|at| run.line(at).id.to_string()),
        left_out: run.lines.len() - kept.len(),
        torn: run.torn.clone(),
        packed: page::pack(&text),
        ..PageData::default()
    }
}

/// The page that a server serves: it begins empty, and asks that server for lines.
pub fn live(title: &str, lab: bool, steps: bool, others: Vec<String>) -> String {
    let packed = page::pack("");
    let data = PageData { title: title.to_string(), live: true, lab, steps, others, packed, ..PageData::default() };
    page::assemble(&data, "connect-src 'self'")
}

fn word(verdict: AuditVerdict) -> &'static str {
    match verdict {
        AuditVerdict::Proved => "proved",
        AuditVerdict::Unproven => "unproven",
        AuditVerdict::Violated => "violated",
    }
}

/// The first line that breaks a rule: of each violation the last of its lines, since the others were right until then.
fn first_wrong(run: &Run, audit: &Audit) -> Option<usize> {
    let violations = audit.findings.iter().filter(|finding| finding.verdict == AuditVerdict::Violated);
    let ends = violations.filter_map(|finding| finding.lines.iter().copied().max_by_key(|at| run.line(*at).time));
    ends.min_by_key(|at| run.line(*at).time)
}

/// All of these lines, or the first `most` by time; around the first wrong one if that comes later. In the order of the
/// files.
fn window(run: &Run, mut lines: Vec<usize>, wrong: Option<usize>, most: usize) -> Vec<usize> {
    if lines.len() > most {
        lines.sort_by_key(|at| run.line(*at).time);
        let place = wrong.and_then(|wrong| lines.iter().position(|at| *at == wrong)).unwrap_or(0);
        let from = if place < most { 0 } else { (place - most / 2).min(lines.len() - most) };
        lines = lines[from..from + most].to_vec();
        lines.sort_unstable();
    }
    lines
}
