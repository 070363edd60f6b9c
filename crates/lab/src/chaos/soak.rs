//! `paxos-lab soak`: hours of mixed load while roles fail and come back, and whether anything grows.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use super::capabilities::Capabilities;
use super::chaos_command::{ChaosDirs, install_signal_handlers};
use super::client_load::ChaosLoad;
use super::plan::{LoadPlan, RoundPlan};
use super::round::{await_clients, finish, heal, start_clients};
use super::test_cluster::{ChaosCluster, is_connected};
use super::verify::{RoundFailure, verify};
use paxos_kv::duration::parse_duration;
use paxos_kv::protocol::Protocol;

/// Run a cluster whose roles crash all the time; check that its resource use stays flat and every request ends.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  paxos-lab soak --minutes 60
  paxos-lab soak --minutes 2 --interval 2s --rate 1000

Exit codes: 0 flat, 1 failure, 2 usage, 6 not decided, 7 a rule was broken, 8 something grew, or no progress.")]
pub struct SoakArgs {
    /// Run for N minutes
    #[arg(long, value_name = "N", default_value_t = 60.0)]
    minutes: f64,
    /// Number of requests per second
    #[arg(long, value_name = "N", default_value_t = 200)]
    rate: u64,
    /// Measure every TIME
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    interval: Duration,
    /// Protocol of the servers
    #[arg(long, value_enum, default_value_t = Protocol::MultiPaxos)]
    protocol: Protocol,
    /// Seed of the crashes
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    dirs: ChaosDirs,
}

/// One sample: the largest values over all servers, and the rate and times of requests since the sample before.
#[derive(Clone, Copy, Debug, Default)]
struct SoakSample {
    seconds: f64,
    rss_kib: f64,
    threads: f64,
    files: f64,
    disk_kib: f64,
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Runs the command line. Returns the text to print and the exit code.
pub fn run(options: &SoakArgs) -> Result<(String, u8), String> {
    if !(0.1..=1e5).contains(&options.minutes) {
        return Err("--minutes must be between 0.1 and 100000".to_string());
    }
    let program = options.dirs.program()?;
    let is_over = install_signal_handlers()?;
    let dir = options.dirs.out().join(format!("soak-{}", options.seed));
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(|error| format!("cannot remove {}: {error}", dir.display()))?;
    }
    let plan = options.plan();
    let mut samples = Vec::new();
    let soaked = soak(options, &plan, &dir, &program, &is_over, &mut samples);
    let mut text = table(&samples);
    match soaked {
        Err(failure) => {
            let _ = writeln!(text, "{failure}\npaxos-lab chaos --replay {}", dir.display());
            Ok((text, failure.exit_code()))
        }
        Ok(sentence) => {
            let grown = leaks(&samples);
            text += &sentence;
            let verdict = if grown.is_empty() { "flat" } else { "NOT flat" };
            let _ = writeln!(text, "{}{verdict}", grown.concat());
            if !options.dirs.keep {
                fs::remove_dir_all(&dir).map_err(|error| format!("cannot remove {}: {error}", dir.display()))?;
            }
            Ok((text, if grown.is_empty() { 0 } else { 8 }))
        }
    }
}

impl SoakArgs {
    fn plan(&self) -> RoundPlan {
        let words = |text: &str| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        RoundPlan {
            seed: self.seed,
            protocol: self.protocol,
            steps: false,
            server_options: words("--segment-kib 1024 --checkpoint-slots 2000 --retain-slots 2000"),
            role_crash_options: words("--fail all --mean-up 4s --mean-down 600ms"),
            repeats: false,
            duration: Duration::from_secs_f64(self.minutes * 60.0),
            faults: Vec::new(),
            load: LoadPlan {
                clients: 8,
                pipeline: 1,
                rate: self.rate,
                keys: 1_000,
                reads: 50,
                time_limits: (Duration::from_secs(1), Duration::from_secs(10)),
            },
        }
    }
}

fn soak(
    options: &SoakArgs,
    plan: &RoundPlan,
    dir: &Path,
    program: &Path,
    is_over: &AtomicBool,
    samples: &mut Vec<SoakSample>,
) -> Result<String, RoundFailure> {
    // Recorded steps would fill the disk within an hour, so only the clients' replies are judged.
    let mut cluster = ChaosCluster::prepare(plan, dir, program, &Capabilities::none()).map_err(RoundFailure::NotRun)?;
    for server_process in cluster.processes.values_mut() {
        server_process.start().map_err(RoundFailure::NotRun)?;
    }
    cluster.await_status("all five servers must be connected", is_connected)?;
    let load = ChaosLoad::new(&plan.load, plan.seed, cluster.client_addresses.clone(), dir);
    std::thread::scope(|scope| {
        let clients = start_clients(scope, &load);
        let measured = measure(options, plan, &mut cluster, &load, is_over, samples);
        let healed = measured.and_then(|()| heal(&mut cluster, plan, &load));
        load.stop.store(true, Ordering::Relaxed);
        healed?;
        await_clients(clients, plan)
    })?;
    finish(&mut cluster, plan)?;
    let tally = load.tally();
    let judged = verify(dir)?;
    Ok(format!(
        "{}; longest wait {:.1} s; {} operations of {} clients are linearizable\n",
        tally.counts,
        tally.longest.as_secs_f64(),
        judged.operations,
        tally.clients
    ))
}

fn measure(
    options: &SoakArgs,
    plan: &RoundPlan,
    cluster: &mut ChaosCluster,
    load: &ChaosLoad<'_>,
    is_over: &AtomicBool,
    samples: &mut Vec<SoakSample>,
) -> Result<(), RoundFailure> {
    let started = Instant::now();
    let (mut next, mut before, mut done) = (options.interval, Duration::ZERO, 0);
    while started.elapsed() < plan.duration && !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
        cluster.check_processes()?;
        if started.elapsed() < next {
            continue;
        }
        let (now, ended) = (started.elapsed(), load.ended().total());
        let mut took = load.take_times();
        took.sort_unstable();
        let of =
            |share: f64| took.get((took.len() as f64 * share) as usize).map_or(0.0, |micros| f64::from(*micros) / 1e3);
        let mut sample = SoakSample {
            seconds: now.as_secs_f64(),
            rate: (ended - done) as f64 / (now - before).as_secs_f64(),
            p50_ms: of(0.50),
            p99_ms: of(0.99),
            ..SoakSample::default()
        };
        for server_process in cluster.processes.values() {
            if let Some(pid) = server_process.pid() {
                sample.add_process(pid.as_raw_nonzero().get());
            }
            sample.disk_kib = sample.disk_kib.max(kib_of(&server_process.data_dir()));
        }
        eprintln!("{}", sample.row());
        samples.push(sample);
        (before, done) = (now, ended);
        next += options.interval;
    }
    Ok(())
}

impl SoakSample {
    fn add_process(&mut self, pid: i32) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        self.rss_kib = self.rss_kib.max(field("VmRSS:").unwrap_or(0.0));
        self.threads = self.threads.max(field("Threads:").unwrap_or(0.0));
        let files = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count());
        self.files = self.files.max(files as f64);
    }

    fn row(&self) -> String {
        format!(
            "{:8.0} s  {:7.1} MiB  {:4.0} threads  {:4.0} files  {:7.1} MiB of disk  {:7.0} requests/s  p50 {:6.1} ms  p99 {:7.1} ms",
            self.seconds,
            self.rss_kib / 1024.0,
            self.threads,
            self.files,
            self.disk_kib / 1024.0,
            self.rate,
            self.p50_ms,
            self.p99_ms
        )
    }
}

/// Disk space of a directory's files, in KiB.
fn kib_of(dir: &Path) -> f64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else { return 0.0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => kib_of(&entry.path()),
        // A block is 512 bytes, whatever block size the file system uses.
        Ok(metadata) => metadata.blocks() as f64 / 2.0,
        Err(_) => 0.0,
    };
    entries.filter_map(Result::ok).map(of).sum()
}

/// One row for each quarter of the run: the medians of its samples.
fn quarters(samples: &[SoakSample]) -> Vec<SoakSample> {
    let length = samples.len() / 4;
    let quarter = |n: usize| &samples[n * length..(n + 1) * length];
    if length == 0 { Vec::new() } else { (0..4).map(|n| medians(quarter(n))).collect() }
}

fn medians(samples: &[SoakSample]) -> SoakSample {
    let of = |field: fn(&SoakSample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(field).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    SoakSample {
        seconds: samples.last().map_or(0.0, |last| last.seconds),
        rss_kib: of(|sample| sample.rss_kib),
        threads: of(|sample| sample.threads),
        files: of(|sample| sample.files),
        disk_kib: of(|sample| sample.disk_kib),
        rate: of(|sample| sample.rate),
        p50_ms: of(|sample| sample.p50_ms),
        p99_ms: of(|sample| sample.p99_ms),
    }
}

fn table(samples: &[SoakSample]) -> String {
    let mut text = "Medians for each quarter of the run, of the largest value over all servers; first column: end of the quarter\n".to_string();
    for row in quarters(samples) {
        let _ = writeln!(text, "{}", row.row());
    }
    text
}

/// Values that grew: the median of the last quarter against that of the first. An increase of a fifth is tolerated,
/// plus a slack for checkpoints and reconnections.
fn leaks(samples: &[SoakSample]) -> Vec<String> {
    let quarters = quarters(samples);
    let (Some(first), Some(last)) = (quarters.first(), quarters.last()) else {
        return vec!["too few samples to tell whether anything grew\n".to_string()];
    };
    let mut grown = Vec::new();
    let mut hold = |what: &str, before: f64, after: f64, slack: f64| {
        if after > before * 1.2 + slack {
            grown.push(format!("{what} grew from {before:.0} to {after:.0}\n"));
        }
    };
    hold("memory in KiB", first.rss_kib, last.rss_kib, 8.0 * 1024.0);
    hold("threads", first.threads, last.threads, 8.0);
    hold("open files", first.files, last.files, 16.0);
    hold("disk in KiB", first.disk_kib, last.disk_kib, 4.0 * 1024.0);
    if last.rate < first.rate * 0.8 {
        grown.push(format!("requests per second fell from {:.0} to {:.0}\n", first.rate, last.rate));
    }
    grown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(of: impl Fn(f64) -> SoakSample) -> Vec<SoakSample> {
        (0..40).map(|n| of(f64::from(n))).collect()
    }

    #[test]
    fn growth_is_reported_and_fluctuation_is_not() {
        let flat = SoakSample {
            rss_kib: 50e3,
            threads: 40.0,
            files: 60.0,
            disk_kib: 20e3,
            rate: 200.0,
            ..SoakSample::default()
        };
        let swings =
            samples(|n| SoakSample { rss_kib: 50e3 + 9e3 * (n % 2.0), rate: 200.0 - 20.0 * (n % 3.0), ..flat });
        assert_eq!(leaks(&swings), Vec::<String>::new());
        let leaking = [
            samples(|n| SoakSample { rss_kib: 50e3 + n * 1e3, ..flat }),
            samples(|n| SoakSample { threads: 40.0 + n, ..flat }),
            samples(|n| SoakSample { files: 60.0 + 2.0 * n, ..flat }),
            samples(|n| SoakSample { disk_kib: 20e3 + n * 1e3, ..flat }),
            samples(|n| SoakSample { rate: 200.0 - 3.0 * n, ..flat }),
        ];
        for leak in leaking {
            assert_eq!(leaks(&leak).len(), 1, "{:?}", leaks(&leak));
        }
        assert_eq!(leaks(&swings[..3]).len(), 1, "too few samples");
    }
}
