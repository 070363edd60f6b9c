//! Timeline: one self-contained page that draws the lines of a run and lets a reader step through them.
//!
//! The page holds the lines as they were written and parses them itself, as it must when it watches a live run. In
//! addition it holds the audit's findings. [`counts`] counts in Rust what the page draws, and the tests compare the
//! two.
//!
//! A client's bytes travel as data: first packed, then as text nodes of the page, never as markup.

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

/// Maximum number of lines in a page.
pub const LINES_MAX: usize = 200_000;
/// Maximum number of audit findings in a page, and of lines for each finding.
const FINDINGS_MAX: usize = 50;
const FINDING_LINES_MAX: usize = 20;

/// The lines of a run's last history, and the number of lines of earlier ones. A page shows one history, because line
/// numbers start again with the next one.
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
    /// `proved`, `unproven` or `violated`; None while a run is watched.
    pub verdict: Option<&'static str>,
    /// Acceptors restart without their stable storage.
    #[serde(rename = "unsafe")]
    pub is_unsafe: bool,
    pub findings: Vec<PageFinding>,
    /// Number of findings that are left out.
    pub more: usize,
    /// The line at which the page opens: the first that breaks a rule.
    pub first: Option<String>,
    /// Number of lines that are not in the page.
    pub left_out: usize,
    /// Files whose torn last line is not in the page.
    pub torn: Vec<String>,
    /// The lines, packed.
    pub packed: String,
    /// Whether the page watches a running cluster.
    pub live: bool,
    /// Whether its buttons may crash roles.
    pub lab: bool,
    /// Whether the watched server records the steps of the protocol.
    pub steps: bool,
    /// The lesson that the page shows, if there is one.
    pub lesson: Option<LessonText<'static>>,
    /// Other addresses at which the cluster can be watched.
    pub others: Vec<String>,
}

/// A finding of the audit.
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
    /// The lesson's title.
    pub title: &'a str,
    /// The situation at the beginning.
    pub says: &'a str,
    /// The first line of the scene; what comes before is set-up.
    pub scene: String,
    /// Places to look at, in order.
    pub points: Vec<LessonPoint<'a>>,
    /// What the scene has shown.
    pub moral: &'a str,
    /// The question to the reader.
    pub question: &'a str,
    /// The answer, which the page shows on request.
    pub answer: &'a str,
}

/// A place to look at.
#[derive(Clone, Debug, Serialize)]
pub struct LessonPoint<'a> {
    /// What is to be seen there.
    pub says: &'a str,
    /// The line concerned.
    pub line: String,
    /// What the reader is asked before this point is shown.
    pub asks: Option<LessonPrediction<'a>>,
}

/// A question about what comes next.
#[derive(Clone, Debug, Serialize)]
pub struct LessonPrediction<'a> {
    /// The question.
    pub question: &'a str,
    /// Two to four answers.
    pub choices: &'a [&'a str],
    /// The index of the right answer.
    pub right: usize,
}

/// A page, and facts about it.
#[derive(Clone, Debug)]
pub struct TimelinePage {
    /// The whole page.
    pub html: String,
    /// What it draws.
    pub counts: PageCounts,
    /// Number of lines of the run that it does not hold.
    pub left_out: usize,
    /// Number of these that repeat the id of another line: their histories cannot be separated.
    pub repeated: usize,
    /// The line at which it opens, if that is not the first.
    pub opens_at: Option<String>,
}

/// The page of a lesson. It opens at the first line to look at, even if a rule is broken elsewhere: the lesson leads to
/// that line.
pub fn lesson(run: &Run, audit: &Audit, shown: LessonText<'static>) -> String {
    let kept = lines_to_draw(run, audit, LINES_MAX);
    let mut data = data_of(run, audit, shown.title, &kept);
    data.first = None;
    data.lesson = Some(shown);
    page::assemble(&data, "connect-src 'none'")
}

/// The page of a run, with at most `most` of its lines.
pub fn page(run: &Run, audit: &Audit, title: &str, most: usize) -> TimelinePage {
    let kept = lines_to_draw(run, audit, most);
    let data = data_of(run, audit, title, &kept);
    TimelinePage {
        html: page::assemble(&data, "connect-src 'none'"),
        counts: PageCounts::new(&run.only(&kept)),
        left_out: data.left_out,
        repeated: run.lines.len() - distinct(run).len(),
        opens_at: data.first,
    }
}

/// The lines that a page holds, in file order.
fn lines_to_draw(run: &Run, audit: &Audit, most: usize) -> Vec<usize> {
    window(run, distinct(run), first_wrong(run, audit), most)
}

/// One line for each id, since the page finds a line by its id.
fn distinct(run: &Run) -> Vec<usize> {
    let mut seen = HashSet::new();
    (0..run.lines.len()).filter(|at| seen.insert(&run.line(*at).id)).collect()
}

/// The page's data, for these lines.
fn data_of(run: &Run, audit: &Audit, title: &str, kept: &[usize]) -> PageData {
    let text: String = kept.iter().map(|at| format!("{}\n", run.line(*at))).collect();
    let findings = audit.findings.iter().take(FINDINGS_MAX).map(|finding| PageFinding {
        rule: finding.rule.name(),
        verdict: verdict_name(finding.verdict),
        says: finding.message.clone(),
        lines: finding.lines.iter().take(FINDING_LINES_MAX).map(|at| run.line(*at).id.to_string()).collect(),
    });
    PageData {
        title: title.to_string(),
        verdict: Some(verdict_name(audit.verdict())),
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

/// The page that a server serves: it starts empty, and requests lines from that server.
pub fn live(title: &str, lab: bool, steps: bool, others: Vec<String>) -> String {
    let packed = page::pack("");
    let data = PageData { title: title.to_string(), live: true, lab, steps, others, packed, ..PageData::default() };
    page::assemble(&data, "connect-src 'self'")
}

fn verdict_name(verdict: AuditVerdict) -> &'static str {
    match verdict {
        AuditVerdict::Proved => "proved",
        AuditVerdict::Unproven => "unproven",
        AuditVerdict::Violated => "violated",
    }
}

/// The first line that breaks a rule: of each violation the last of its lines, since until then no rule was broken.
fn first_wrong(run: &Run, audit: &Audit) -> Option<usize> {
    let violations = audit.findings.iter().filter(|finding| finding.verdict == AuditVerdict::Violated);
    let ends = violations.filter_map(|finding| finding.lines.iter().copied().max_by_key(|at| run.line(*at).time));
    ends.min_by_key(|at| run.line(*at).time)
}

/// All of these lines, or the first `most` by time; if the first wrong line comes later, the lines around it. In file
/// order.
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
