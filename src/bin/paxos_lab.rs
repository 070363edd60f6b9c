//! The tools to study runs: `paxos-lab audit runs/latest`.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use paxos_kv::chaos;
use paxos_kv::linearizability::check_command::CheckArgs;
use paxos_kv::linearizability::cross_check;
use paxos_kv::paxos::Slot;
use paxos_kv::sim;
use paxos_kv::storage::disk::outlive_file_size_limit;
use paxos_kv::trace::Line;
use paxos_kv::trace::audit::Audit;
use paxos_kv::trace::color::colored;
use paxos_kv::trace::columns::table;
use paxos_kv::trace::filter::{LineFilter, select};
use paxos_kv::trace::parse::Run;
use paxos_kv::trace::report::Report;
use paxos_kv::trace::timeline;

/// Examine the log lines of a run, finished or still running.
#[derive(Parser)]
#[command(
    name = "paxos-lab",
    version,
    after_help = "\
Examples:
  paxos-lab audit runs/latest                 prove from the log lines that the run kept every rule
  paxos-lab report runs/latest                list what the run shows, each point with its log lines
  paxos-lab logs runs/latest --req c1-5       print the lines of one request, and the crashes during it
  paxos-lab logs runs/latest --slot 7         print the lines about one slot
  paxos-lab logs runs/latest --columns        print one column per server
  paxos-lab timeline runs/latest -o run.html  draw the run as one self-contained page
  paxos-lab lesson one-value                  simulate a scene that teaches one idea, and draw it
  paxos-lab compare                           run two-phase commit and Paxos under the same faults
  paxos-lab check runs/latest                 check whether the clients' results are linearizable
  paxos-lab chaos --minutes 1                 inject faults into real processes, disks and networks

Exit codes: 0 done (audit, report: proved; check: linearizable), 1 failure, 2 usage, 6 not provable because lines are
missing, or not decided, 7 a rule was broken, 8 no progress."
)]
struct LabCli {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Subcommand)]
enum LabCommand {
    /// Prove from the log lines that the run kept every rule of Paxos, or show the lines that break one
    Audit {
        /// Directory of the run, such as runs/latest
        dir: PathBuf,
    },
    /// Simulate clusters in virtual time under network, disk and process faults
    Simulate(sim::simulate_command::SimulateArgs),
    /// Inject faults into clusters of real processes, and check every client result
    Chaos(chaos::chaos_command::ChaosArgs),
    /// Run a cluster whose roles crash for an hour, and check that its resource use does not grow
    Soak(chaos::soak::SoakArgs),
    /// Print a checklist of what the run shows, each point with its log lines
    Report {
        /// Directory of the run, such as runs/latest
        dir: PathBuf,
        /// Maximum number of lines to show for each point
        #[arg(long, value_name = "N", default_value_t = 6)]
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
    /// Print a completion script for a shell: source <(paxos-lab completions bash)
    Completions {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
    /// Draw the run as one page for a browser, step by step; it loads nothing from the network
    Timeline(timeline::timeline_command::TimelineArgs),
    /// Simulate a short scene that teaches one idea of Paxos, and draw it
    Lesson(sim::lessons::lesson_command::LessonArgs),
    /// Run the same work and faults under two-phase commit and Paxos, and compare
    Compare(sim::compare::compare_command::CompareArgs),
    /// Check whether the clients' results are linearizable
    Check(CheckArgs),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ColorChoice {
    Always,
    Never,
    Auto,
}

impl ColorChoice {
    fn is_wanted(self) -> bool {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        self == ColorChoice::Always || (self == ColorChoice::Auto && io::stdout().is_terminal() && !plain)
    }
}

fn main() -> ExitCode {
    outlive_file_size_limit();
    let (text, code) = match run(LabCli::parse().command) {
        Ok(done) => done,
        Err(sentence) => {
            eprintln!("error: {sentence}");
            return ExitCode::FAILURE;
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::from(code),
        // The reader has closed the pipe, as `| head` does.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: cannot write the result: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The text to print, and the exit code.
fn run(command: LabCommand) -> Result<(String, u8), String> {
    let read = |dir: &Path| Run::read(dir).map_err(|error| error.to_string());
    match command {
        LabCommand::Audit { dir } => {
            let run = read(&dir)?;
            let audit = Audit::new(&run);
            Ok(explain(&run, &audit))
        }
        LabCommand::Simulate(options) => sim::simulate_command::run(&options),
        LabCommand::Chaos(options) => chaos::chaos_command::run(&options),
        LabCommand::Soak(options) => chaos::soak::run(&options),
        LabCommand::Report { dir, lines } => {
            let run = read(&dir)?;
            let (report, audit) = (Report::new(&run), Audit::new(&run));
            let (verdict, code) = explain(&run, &audit);
            Ok((format!("{}\nAudit of the run:\n{verdict}", report.explain(&run, lines)), code))
        }
        LabCommand::Completions { shell } => {
            let script = paxos_kv::completions::script(LabCli::command(), shell);
            Ok((String::from_utf8_lossy(&script).into_owned(), 0))
        }
        LabCommand::Logs { dir, req, slot, columns, color } => {
            let run = read(&dir)?;
            let filter = LineFilter { req, slot: slot.map(Slot) };
            let told = select(&run, &filter);
            if told.is_empty() {
                return Err(format!("no line of {} matches. To print all lines: paxos-lab logs {0}", dir.display()));
            }
            let lines: Vec<&Line> = told.into_iter().map(|at| run.line(at)).collect();
            let text = match columns {
                true => table(&lines),
                false if color.is_wanted() => lines.iter().map(|line| format!("{}\n", colored(line))).collect(),
                false => lines.iter().map(|line| format!("{line}\n")).collect(),
            };
            Ok((text, 0))
        }
        LabCommand::Timeline(arguments) => timeline::timeline_command::run(&arguments),
        LabCommand::Lesson(arguments) => sim::lessons::lesson_command::run(&arguments),
        LabCommand::Compare(arguments) => sim::compare::compare_command::run(&arguments),
        LabCommand::Check(args) => args.run(),
    }
}

/// The audit, with the result of the search over the clients' results. If the two disagree, the search's text comes
/// last.
fn explain(run: &Run, audit: &Audit) -> (String, u8) {
    let (clients, code) = cross_check(run, audit);
    let text = audit.explain(run).to_string();
    (if code == audit.verdict().exit_code() { clients + &text } else { text + &clients }, code)
}
