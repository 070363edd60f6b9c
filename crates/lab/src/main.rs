//! The lab: `paxos-lab simulate`, `chaos`, `soak`, `lesson`, `play`, `compare` and `check`.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use paxos_kv::storage::disk::outlive_file_size_limit;
use paxos_lab::linearizability::check_command::CheckArgs;
use paxos_lab::{chaos, play, sim};

/// Test the store with simulated clusters, with real ones under faults, and by the results of their clients.
#[derive(Parser)]
#[command(
    name = "paxos-lab",
    version,
    after_help = "\
Examples:
  paxos-lab simulate --seeds 1..1000          simulate clusters in virtual time under faults
  paxos-lab lesson one-value                  simulate a scene that teaches one idea, and draw it
  paxos-lab play --list                       list the exercises in which you are the network
  paxos-lab compare                           run two-phase commit and Paxos under the same faults
  paxos-lab check runs/latest                 check whether the clients' results are linearizable
  paxos-lab chaos --minutes 1                 inject faults into real processes, disks and networks

Exit codes: 0 done (check: linearizable), 1 failure, 2 usage, 6 not decided, 7 a rule was broken, 8 no progress."
)]
struct LabCli {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Subcommand)]
enum LabCommand {
    /// Simulate clusters in virtual time under network, disk and process faults
    Simulate(sim::simulate_command::SimulateArgs),
    /// Inject faults into clusters of real processes, and check every client result
    Chaos(chaos::chaos_command::ChaosArgs),
    /// Run a cluster whose roles crash for an hour, and check that its resource use does not grow
    Soak(chaos::soak::SoakArgs),
    /// Print a completion script for a shell: source <(paxos-lab completions bash)
    Completions {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
    /// Simulate a short scene that teaches one idea of Paxos, and draw it
    Lesson(sim::lessons::lesson_command::LessonArgs),
    /// Be the network: choose which message arrives next, and reach the goals of an exercise
    Play(play::play_command::PlayArgs),
    /// Run the same work and faults under two-phase commit and Paxos, and compare
    Compare(sim::compare::compare_command::CompareArgs),
    /// Check whether the clients' results are linearizable
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
        LabCommand::Play(arguments) => play::play_command::run(&arguments),
        LabCommand::Compare(arguments) => sim::compare::compare_command::run(&arguments),
        LabCommand::Check(args) => args.run(),
    }
}
