//! Studies runs: `paxos-lab audit runs/latest`.

use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use paxos_kv::sim;
use paxos_kv::trace::audit::Audit;
use paxos_kv::trace::parse::Run;

/// Studies the lines that a run has left behind, or still writes.
#[derive(Parser)]
#[command(
    name = "paxos-lab",
    version,
    after_help = "\
Examples:
  paxos-lab audit runs/latest                 prove the run again, from its lines alone
  paxos-lab report runs/latest                what the run shows, each point with the lines that show it
  paxos-lab logs runs/latest --req c1-5       the story of one request, and the crashes around it
  paxos-lab logs runs/latest --slot 7         the story of one slot

Exit codes: 0 done (audit, report: proved), 1 failure, 2 usage, 6 not provable because lines are missing, 7 a rule was
broken."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prove from the lines that every rule of Paxos was kept, or show where not
    Audit {
        /// Folder of the run, as runs/latest
        dir: PathBuf,
    },
    /// Run whole clusters in virtual time, where everything that can go wrong does
    Simulate(sim::cli::Simulate),
}

fn main() -> ExitCode {
    let (text, code) = match run(Cli::parse().command) {
        Ok(done) => done,
        Err(sentence) => {
            eprintln!("error: {sentence}");
            return ExitCode::FAILURE;
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::from(code),
        // Whoever reads has seen enough, as in `| head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: cannot write the result: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What to print, and the exit code.
fn run(command: Command) -> Result<(String, u8), String> {
    match command {
        Command::Audit { dir } => {
            let run = Run::read(&dir).map_err(|error| error.to_string())?;
            let audit = Audit::new(&run);
            Ok((audit.explain(&run).to_string(), audit.verdict().exit_code()))
        }
        Command::Simulate(options) => sim::cli::run(&options),
    }
}
