//! The commands that read the log lines of a run: `paxos-server audit`, `report`, `logs` and `timeline`.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};

use super::Line;
use super::audit::Audit;
use super::color::colored;
use super::columns::table;
use super::filter::{LineFilter, select};
use super::parse::Run;
use super::report::Report;
use super::timeline::timeline_command::{self, TimelineArgs};
use crate::paxos::Slot;

/// A command that reads log lines.
#[derive(Subcommand)]
pub enum ReadCommand {
    /// Prove from the log lines of a run that every protocol rule was kept, or show the violations
    Audit {
        /// Directory of the run, such as runs/latest
        dir: PathBuf,
    },
    /// Print a checklist of what a run shows, with the lines that show each point
    Report {
        /// Directory of the run, such as runs/latest
        dir: PathBuf,
        /// Maximum number of lines to show for each point
        #[arg(long, value_name = "N", default_value_t = 9)]
        lines: usize,
    },
    /// Print log lines ordered by cause and time, with the crashes that overlap them
    Logs {
        /// Directory of the run, such as runs/latest
        dir: PathBuf,
        /// Print only the lines of this request, such as c1-5
        #[arg(long, value_name = "LABEL")]
        req: Option<String>,
        /// Print only the lines about this slot
        #[arg(long, value_name = "N")]
        slot: Option<u64>,
        /// Print one column per server, and one for the clients
        #[arg(long)]
        columns: bool,
        /// When to print colors; auto: on a terminal, unless NO_COLOR is set
        #[arg(long, value_enum, default_value_t = ColorChoice::Auto)]
        color: ColorChoice,
    },
    /// Draw a run as one page for a browser, step by step; it loads nothing from the network
    Timeline(TimelineArgs),
}

/// When to print colors.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// Always.
    Always,
    /// Never.
    Never,
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
}

impl ColorChoice {
    fn is_wanted(self) -> bool {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        self == ColorChoice::Always || (self == ColorChoice::Auto && io::stdout().is_terminal() && !plain)
    }
}

impl ReadCommand {
    /// The words that name these commands.
    pub const NAMES: [&str; 4] = ["audit", "report", "logs", "timeline"];

    /// Returns the text to print and the exit code: 0 done or proved, 6 not provable because lines are missing, 7 a
    /// rule was broken. An error is a sentence, with exit code 1.
    pub fn run(self) -> Result<(String, u8), String> {
        let read = |dir: &Path| Run::read(dir).map_err(|error| error.to_string());
        match self {
            ReadCommand::Audit { dir } => {
                let run = read(&dir)?;
                let audit = Audit::new(&run);
                Ok((audit.explain(&run).to_string(), audit.verdict().exit_code()))
            }
            ReadCommand::Report { dir, lines } => {
                let run = read(&dir)?;
                let (report, audit) = (Report::new(&run), Audit::new(&run));
                // A long text scrolls: its result stands at its end too.
                let proof = audit.explain(&run).to_string();
                let result = format!("{}; {}", report.count(), proof.lines().last().unwrap_or_default());
                let (checklist, evidence) = (report.checklist(), report.evidence(&run, lines));
                let text = format!("{checklist}\nAudit of the run:\n{proof}\n{evidence}{result}\n");
                Ok((text, audit.verdict().exit_code()))
            }
            ReadCommand::Logs { dir, req, slot, columns, color } => {
                let run = read(&dir)?;
                let filter = LineFilter { req, slot: slot.map(Slot) };
                let selected = select(&run, &filter);
                if selected.is_empty() {
                    let dir = dir.display();
                    return Err(format!("no line of {dir} matches. To print all lines: paxos-server logs {dir}"));
                }
                let lines: Vec<&Line> = selected.into_iter().map(|at| run.line(at)).collect();
                let text = match columns {
                    true => table(&lines),
                    false if color.is_wanted() => lines.iter().map(|line| format!("{}\n", colored(line))).collect(),
                    false => lines.iter().map(|line| format!("{line}\n")).collect(),
                };
                Ok((text, 0))
            }
            ReadCommand::Timeline(arguments) => timeline_command::run(&arguments),
        }
    }
}
