//! Requirements report: for each requirement, whether a run shows it, which lines show it, and if it does not, the
//! command that would. For a requirement that lines cannot show, it names the place to look.

mod evidence;

use std::fmt::{self, Display, Formatter};

use self::evidence::RunView;
use super::parse::Run;

/// Maximum number of characters of a quoted line; the file and the line's number lead to the rest.
const QUOTED_MAX: usize = 200;

/// Whether a run shows a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointStatus {
    /// The named lines show it.
    Shown,
    /// This run does not show it.
    NotShown,
    /// Lines cannot show it.
    Elsewhere,
}

/// One requirement and its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequirementResult {
    /// Short name, such as `G4`.
    pub name: &'static str,
    /// The requirement in words.
    pub requirement: &'static str,
    /// Whether the run shows it.
    pub status: PointStatus,
    /// What the lines show, what is missing, or where to look.
    pub message: String,
    /// Lines that show it, by their index in the run.
    pub lines: Vec<usize>,
    /// Commands after which a run shows it; empty if lines cannot show it.
    pub commands: &'static str,
}

/// Ok: a sentence and the lines that show it. Err: a sentence that says what is missing.
type PointResult = Result<(String, Vec<usize>), String>;

/// The results of all requirements for one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The requirements, in the order of their names.
    pub points: Vec<RequirementResult>,
}

impl Report {
    /// Checks every requirement.
    pub fn new(run: &Run) -> Report {
        let view = RunView::new(run);
        let points = vec![
            point(
                ("G1", "five server processes and a scripted client"),
                view.processes(),
                "./run_server.sh, then ./run_client.sh",
            ),
            point(
                ("G2", "each line has time, server and role; protocol lines have slot, ballot and peers"),
                view.steps(),
                "./run_server.sh --steps on, then ./run_client.sh",
            ),
            point(
                ("G3", "pre-population, then 5 PUT, 5 GET and 5 DELETE over all servers, then a re-read"),
                view.workload(),
                "./run_client.sh, until it says PASSED",
            ),
            point(
                ("G4", "an acceptor fails and restarts while requests are served"),
                view.acceptor_outage(),
                "./run_server.sh --fail acceptors, then ./run_client.sh",
            ),
            point(
                ("G5", "without a majority requests wait or time out, and later ones proceed"),
                view.no_majority(),
                "./run_server.sh --lab, then ./run_client.sh --scenes all",
            ),
            point(
                ("G6", "all roles fail and restart"),
                view.all_roles(),
                "./run_server.sh --fail all, then ./run_client.sh",
            ),
            point(
                ("G7", "malformed input is logged and does no harm"),
                view.malformed(),
                "./run_client.sh --scenes all",
            ),
            point(
                ("G8", "two clients change one key at the same time"),
                view.concurrent(),
                "./run_client.sh --clients 2",
            ),
            point(("G9", "at the end all replicas are equal"), view.digests(), "./run_client.sh, until it says PASSED"),
            elsewhere(
                ("G10", "commands and requirements are documented"),
                "README.md: quick start, and the table from requirement to command to line".to_string(),
            ),
            elsewhere(
                ("R5", "leaders and live-lock are discussed"),
                "src/paxos/mod.rs (the essay) and src/paxos/policy.rs".to_string(),
            ),
            elsewhere(("R8", "the lines make clear how Paxos overcomes failures"), view.story()),
        ];
        Report { points }
    }

    /// The checklist: a mark for each requirement, and for a requirement that the run does not show, the commands after
    /// which a run shows it.
    pub fn checklist(&self) -> impl Display + '_ {
        Checklist(self)
    }

    /// For each requirement that the run shows, at most `lines` lines that show it.
    pub fn evidence<'a>(&'a self, run: &'a Run, lines: usize) -> impl Display + 'a {
        Evidence { report: self, run, lines }
    }

    /// How many requirements the run shows: `8 points shown, 1 not shown by this run`.
    pub fn count(&self) -> String {
        let count = |status| self.points.iter().filter(|point| point.status == status).count();
        let (shown, not) = (count(PointStatus::Shown), count(PointStatus::NotShown));
        format!("{shown} points shown, {not} not shown by this run")
    }
}

fn point(
    (name, requirement): (&'static str, &'static str),
    found: PointResult,
    commands: &'static str,
) -> RequirementResult {
    let (status, (message, lines)) = match found {
        Ok(shown) => (PointStatus::Shown, shown),
        Err(missing) => (PointStatus::NotShown, (missing, Vec::new())),
    };
    RequirementResult { name, requirement, status, message, lines, commands }
}

fn elsewhere((name, requirement): (&'static str, &'static str), message: String) -> RequirementResult {
    let status = PointStatus::Elsewhere;
    RequirementResult { name, requirement, status, message, lines: Vec::new(), commands: "" }
}

struct Checklist<'a>(&'a Report);

impl Display for Checklist<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for RequirementResult { name, requirement, status, message, commands, .. } in &self.0.points {
            match status {
                PointStatus::Shown => writeln!(f, "[x] {name:<3} {requirement}")?,
                PointStatus::NotShown => {
                    writeln!(f, "[ ] {name:<3} {requirement}\n        {message}\n        to show it: {commands}")?;
                }
                PointStatus::Elsewhere => writeln!(f, "--> {name:<3} {requirement}\n        {message}")?,
            }
        }
        Ok(())
    }
}

struct Evidence<'a> {
    report: &'a Report,
    run: &'a Run,
    lines: usize,
}

impl Display for Evidence<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for point in self.report.points.iter().filter(|point| point.status == PointStatus::Shown) {
            writeln!(f, "{:<3} {}", point.name, point.message)?;
            for at in point.lines.iter().take(self.lines) {
                let entry = &self.run.lines[*at];
                writeln!(f, "    {}:{}: {}", entry.file, entry.number, quoted(&entry.line.to_string()))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A line, cut if it is long.
fn quoted(line: &str) -> String {
    match line.char_indices().nth(QUOTED_MAX) {
        None => line.to_string(),
        Some((at, _)) => format!("{} ...", &line[..at]),
    }
}

#[cfg(test)]
mod tests;
