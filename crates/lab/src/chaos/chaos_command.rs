//! The command `paxos-lab chaos`: runs rounds until the time is up, or judges a kept round again.

use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::capabilities::Capabilities;
use super::plan::{PlanOptions, RoundPlan};
use super::round::run_round;
use super::totals::Totals;
use super::verify::{RoundFailure, verify};
use super::volume::unmount_leftovers;
use paxos_kv::duration::parse_duration;
use paxos_kv::protocol::Protocol;
use paxos_kv::random::Random;
use paxos_kv::seeded_bugs::Bug;

/// Environment variable: this process already runs in its own mount namespace.
const CHILD_PROCESS_VAR: &str = "PAXOS_CHAOS_ALONE";
/// Name of the plan file in a round's directory.
const PLAN: &str = "plan.txt";
/// Name of the file with the failure of a kept round.
const VERDICT: &str = "verdict.txt";

/// Inject faults into clusters of real processes, and check the results from the log lines.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  paxos-lab chaos --minutes 1                   rounds for one minute, each with its own seed
  paxos-lab chaos --seed 7 --rounds 1           one round with this seed
  paxos-lab chaos --minutes 60 --totals all.json    also keep totals over all runs in a file
  paxos-lab chaos --replay runs/chaos/round-7   check a kept round again

As root, each server gets its own disk, whose power can fail. Faults that this user or machine cannot cause are skipped
and listed.

Exit codes: 0 clean, 1 failure, 2 usage, 6 not decided, 7 a rule was broken, 8 no progress.")]
pub struct ChaosArgs {
    /// Start new rounds for N minutes
    #[arg(long, value_name = "N")]
    minutes: Option<f64>,
    /// Seed of the first round; each further round uses the next number [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Maximum number of rounds [default: 1, or with --minutes no limit]
    #[arg(long, value_name = "N")]
    rounds: Option<u64>,
    /// Protocol of the servers [default: chosen by each seed]
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
    /// Inject faults for TIME in each round [default: chosen by each seed, 15s to 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    fault_duration: Option<Duration>,
    /// Maximum number of requests per second [default: 2500 under multi-paxos, else 1000]
    #[arg(long, value_name = "N")]
    rate: Option<u64>,
    /// Add the totals of this run to the JSON file FILE
    #[arg(long, value_name = "FILE")]
    totals: Option<PathBuf>,
    /// Switch on a seeded bug in every server, which chaos should find (with --server, name a program that was built
    /// with the feature `seeded-bugs`)
    #[arg(long, value_name = "BUG")]
    bug: Option<Bug>,
    /// Check the log lines of the kept round in DIR again, and run nothing
    #[arg(long, value_name = "DIR", conflicts_with_all = ["minutes", "seed", "rounds", "protocol", "fault_duration", "rate", "totals"])]
    replay: Option<PathBuf>,
    #[command(flatten)]
    dirs: ChaosDirs,
}

/// Where clusters run, and what runs.
#[derive(Clone, Debug, Args)]
pub struct ChaosDirs {
    /// Directory for the runs; the subdirectory of a failed run is kept
    #[arg(long, value_name = "DIR", default_value = "runs/chaos")]
    out: PathBuf,
    /// Keep the subdirectory even if the run succeeds
    #[arg(long)]
    pub keep: bool,
    /// Server program [default: paxos-server in the directory of paxos-lab]
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
}

impl ChaosDirs {
    /// Directory of all runs.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Path of the server program.
    pub fn program(&self) -> Result<PathBuf, String> {
        let beside = || Ok(std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("paxos-server"));
        let program = self.server.clone().map_or_else(beside, Ok::<_, String>)?;
        program.canonicalize().map_err(|error| {
            let path = program.display();
            format!(
                "cannot find the server program {path} ({error}). Build it (cargo build --release), or name it with --server"
            )
        })
    }
}

/// A flag that SIGINT and SIGTERM set; the second signal ends this process at once.
pub fn install_signal_handlers() -> Result<Arc<AtomicBool>, String> {
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let hear = signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, is_over.clone())
            .and_then(|_| signal_hook::flag::register(signal, is_over.clone()));
        hear.map_err(|error| format!("cannot listen for signals: {error}"))?;
    }
    Ok(is_over)
}

/// Runs the command line. Returns the text to print and the exit code.
pub fn run(options: &ChaosArgs) -> Result<(String, u8), String> {
    if let Some(dir) = &options.replay {
        return Ok(replay(dir));
    }
    if options.minutes.is_some_and(|minutes| !(0.0..=1e6).contains(&minutes)) {
        return Err("--minutes must be between 0 and 1000000".to_string());
    }
    let program = options.dirs.program()?;
    run_in_child_process();
    let is_over = install_signal_handlers()?;
    std::fs::create_dir_all(&options.dirs.out)
        .map_err(|error| format!("cannot create {}: {error}", options.dirs.out.display()))?;
    unmount_leftovers(&options.dirs.out);
    options.rounds(&program, &is_over)
}

impl ChaosArgs {
    fn rounds(&self, program: &Path, is_over: &AtomicBool) -> Result<(String, u8), String> {
        let started = Instant::now();
        let first = self.seed.unwrap_or_else(|| Random::unseeded().next() >> 32);
        let mut capabilities = Capabilities::probe(&self.dirs.out);
        let mut errors = std::io::stderr();
        capabilities.missing().for_each(|sentence| drop(writeln!(errors, "{sentence}")));
        let (mut totals, mut all) = (Totals::default(), self.totals.as_deref().map(Totals::read).transpose()?);
        let most = self.rounds.unwrap_or(if self.minutes.is_some() { u64::MAX } else { 1 });
        let time = self.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
        for seed in (first..).take(usize::try_from(most).unwrap_or(usize::MAX)) {
            if is_over.load(Ordering::Relaxed) || time.is_some_and(|time| started.elapsed() >= time) {
                break;
            }
            let ChaosArgs { protocol, fault_duration: lasts, rate, bug, .. } = *self;
            let plan = RoundPlan::new(seed, PlanOptions { protocol, duration: lasts, rate, bug });
            print(&plan);
            let dir = self.dirs.out.join(format!("round-{seed}"));
            let outcome = self.round(
                &plan,
                &dir,
                program,
                &mut capabilities,
                is_over,
                &mut [&mut totals].into_iter().chain(all.as_mut()).collect::<Vec<_>>(),
            );
            if let (Some(path), Some(all)) = (&self.totals, &all) {
                all.write(path)?;
            }
            if let Err(failure) = outcome {
                let again = format!("paxos-lab chaos --replay {}", dir.display());
                return Ok((format!("{totals}seed {seed}: {failure}\n{again}\n"), failure.exit_code()));
            }
        }
        Ok((totals.to_string(), 0))
    }

    fn round(
        &self,
        plan: &RoundPlan,
        dir: &Path,
        program: &Path,
        capabilities: &mut Capabilities,
        is_over: &AtomicBool,
        totals: &mut [&mut Totals],
    ) -> Result<(), RoundFailure> {
        let unplayed = |error: std::io::Error| RoundFailure::NotRun(format!("{}: {error}", dir.display()));
        if dir.exists() {
            std::fs::remove_dir_all(dir).map_err(unplayed)?;
        }
        std::fs::create_dir_all(dir).map_err(unplayed)?;
        std::fs::write(dir.join(PLAN), plan.to_string()).map_err(unplayed)?;
        let started = Instant::now();
        match run_round(plan, dir, program, capabilities, is_over) {
            Ok(played) => {
                print(&format_args!(
                    "  clean in {:.1} s: {}; longest wait {:.1} s; {} operations linearizable, {}; {} processes killed, {} power cuts\n",
                    started.elapsed().as_secs_f64(),
                    played.tally.counts,
                    played.tally.longest.as_secs_f64(),
                    played.verdict.operations,
                    if played.verdict.is_proved {
                        "proved from the log lines"
                    } else {
                        "not proved: steps were not logged"
                    },
                    played.fault_counts.kills,
                    played.fault_counts.power_cuts,
                ));
                totals.iter_mut().for_each(|totals| totals.add(plan, &played, started.elapsed()));
                if !self.dirs.keep {
                    std::fs::remove_dir_all(dir).map_err(unplayed)?;
                }
                Ok(())
            }
            Err((failure, done)) => {
                totals.iter_mut().for_each(|totals| totals.add_failed(&done));
                std::fs::write(dir.join(VERDICT), format!("{failure}\n")).map_err(unplayed)?;
                Err(failure)
            }
        }
    }
}

/// Prints. A closed stdout is no reason to stop.
fn print(what: &impl std::fmt::Display) {
    let mut out = std::io::stdout();
    let _ = write!(out, "{what}").and_then(|()| out.flush());
}

/// The failure that was found when the round ran, and the verdict on its lines now.
fn replay(dir: &Path) -> (String, u8) {
    let mut text = std::fs::read_to_string(dir.join(PLAN)).unwrap_or_default();
    let found = std::fs::read_to_string(dir.join(VERDICT)).unwrap_or_default();
    if !found.is_empty() {
        text += &format!("found when the round ran: {found}");
    }
    match verify(dir) {
        Ok(judged) => {
            let proved = if judged.is_proved {
                "and the log lines prove that every rule was kept"
            } else {
                "but the steps were not logged, so the rules are not proved"
            };
            text += &format!("found now: {} operations are linearizable, {proved}\n", judged.operations);
            // A failure that the lines do not show was found all the same, so its exit code stays.
            (text, if found.is_empty() { 0 } else { RoundFailure::read(&found).exit_code() })
        }
        Err(failure) => (format!("{text}found now: {failure}\n"), failure.exit_code()),
    }
}

/// Restarts this program in its own mount namespace, so that its mounts end with it however it ends.
fn run_in_child_process() {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || std::env::var_os(CHILD_PROCESS_VAR).is_some() {
        return;
    }
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if !probe.status().is_ok_and(|status| status.success()) {
        return;
    }
    let Ok(me) = std::env::current_exe() else { return };
    // `exec` returns only on failure; then the program continues here.
    let _ = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(me)
        .args(std::env::args_os().skip(1))
        .env(CHILD_PROCESS_VAR, "1")
        .exec();
}
