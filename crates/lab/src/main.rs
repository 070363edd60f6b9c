//! The lab: `paxos-lab simulate`, `chaos`, `soak`, `lesson`, `compare` and `check`.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use paxos_kv::storage::disk::outlive_file_size_limit;
use paxos_lab::linearizability::check_command::CheckArgs;
use paxos_lab::{chaos, sim};

/// Tests the store, and teaches with it: simulated clusters, real ones under chaos, and what their clients saw.
#[derive(Parser)]
#[command(
    name = "paxos-lab",
    version,
    after_help = "\
Examples:
  paxos-lab simulate --seeds 1..1000          whole clusters in virtual time, under every fault
  paxos-lab lesson one-value                  a scene that teaches one idea, as a page
  paxos-lab compare                           what two-phase commit and Paxos make of the same faults
  paxos-lab check runs/latest                 whether what the clients have seen is linearizable
  paxos-lab chaos --minutes 1                 strike real processes, disks and networks, and judge what clients saw

Exit codes: 0 done (audit, report: proved; check: linearizable), 1 failure, 2 usage, 6 not provable because lines are
missing, or not decided, 7 a rule was broken, 8 no progress."
)]
struct LabCli {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Subcommand)]
enum LabCommand {
    /// Run whole clusters in virtual time, where everything that can go wrong does
    Simulate(sim::simulate_command::SimulateArgs),
    /// Strike clusters of real processes with everything, and prove that they kept their word
    Chaos(chaos::chaos_command::ChaosArgs),
    /// Run a cluster whose roles fail for an hour, and show that nothing grows
    Soak(chaos::soak::SoakArgs),
    /// Print what makes a shell complete this program's words: source <(paxos-lab completions bash)
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Play a short scene that teaches one idea of Paxos, and draw it
    Lesson(sim::lessons::lesson_command::LessonArgs),
    /// Play the same faults under two-phase commit and under Paxos, and compare
    Compare(sim::compare::compare_command::CompareArgs),
    /// Decide whether what clients have seen is linearizable
    Check(CheckArgs),
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
    match command {
        LabCommand::Simulate(options) => sim::simulate_command::run(&options),
        LabCommand::Chaos(options) => chaos::chaos_command::run(&options),
        LabCommand::Soak(options) => chaos::soak::run(&options),
        LabCommand::Completions { shell } => {
            let script = paxos_kv::completions::script(LabCli::command(), shell);
            Ok((String::from_utf8_lossy(&script).into_owned(), 0))
        }
        LabCommand::Lesson(arguments) => sim::lessons::lesson_command::run(&arguments),
        LabCommand::Compare(arguments) => sim::compare::compare_command::run(&arguments),
        LabCommand::Check(args) => args.run(),
    }
}
