//! The counts of a bench, and their output.

use std::fmt::{self, Display, Formatter};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::BenchPlan;
use super::cpu_usage::ProcessUsage;
use crate::client::outcome::ClientError;
use crate::role::ServerId;

/// Longer latencies than two hours are counted as two hours.
const LATENCY_MAX_US: u64 = 2 * 60 * 60 * 1_000_000;

/// The number of requests by result, and their latencies.
#[derive(Clone, Debug)]
pub struct BenchTally {
    /// Latencies in microseconds, with three significant digits. Requests without a result are not included.
    latencies: Histogram<u64>,
    /// Requests that were certainly not applied, or refused.
    pub errors: u64,
    /// Requests with unknown outcome.
    pub unknown: u64,
    /// Tries that failed because a server was too busy, whatever the result of the request.
    pub busy: u64,
    /// Open loop: requests that were due and could not be begun.
    pub not_started: u64,
    /// The time over which this tally was counted.
    pub took: Duration,
}

impl Default for BenchTally {
    fn default() -> BenchTally {
        let latencies = Histogram::new_with_max(LATENCY_MAX_US, 3);
        // These bounds are always valid.
        let latencies = latencies.unwrap_or_else(|error| unreachable!("{error}"));
        BenchTally { latencies, errors: 0, unknown: 0, busy: 0, not_started: 0, took: Duration::ZERO }
    }
}

impl BenchTally {
    /// Counts a request that ended `took` after it began, or after it was due.
    pub(super) fn count<T>(&mut self, end: &Result<T, ClientError>, took: Duration) {
        match end {
            Ok(_) => self.latencies.saturating_record((took.as_micros() as u64).max(1)),
            Err(ClientError::Unknown(_)) => self.unknown += 1,
            Err(_) => self.errors += 1,
        }
    }

    /// Adds the tally of another thread, or of another second.
    pub(super) fn add(&mut self, other: &BenchTally) {
        // Cannot fail: both histograms have the same bounds.
        self.latencies.add(&other.latencies).unwrap_or_else(|error| unreachable!("{error}"));
        self.errors += other.errors;
        self.unknown += other.unknown;
        self.busy += other.busy;
        self.not_started += other.not_started;
        self.took = self.took.max(other.took);
    }

    pub(super) fn finish(&mut self, began: Instant, ends: Instant) {
        self.took = ends - began;
    }

    /// Number of requests with a result.
    pub fn done(&self) -> u64 {
        self.latencies.len()
    }

    /// Requests with a result per second.
    pub fn per_second(&self) -> f64 {
        self.done() as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// The latency in microseconds that this share of the requests did not exceed; 0 if none had a result.
    pub fn quantile_us(&self, share: f64) -> u64 {
        if self.latencies.is_empty() { 0 } else { self.latencies.value_at_quantile(share) }
    }

    /// The longest latency, in microseconds.
    pub fn max_us(&self) -> u64 {
        self.latencies.max()
    }

    /// The output line for one second.
    pub(super) fn line(&self, second: u32) -> String {
        let (p50, p99) = (shown(self.quantile_us(0.5)), shown(self.quantile_us(0.99)));
        let mut line = format!("{second:>4} s  {:>9} ops/s  p50 {p50:>9}  p99 {p99:>9}", grouped(self.per_second()));
        for (count, what) in [(self.errors, "errors"), (self.unknown, "unknown"), (self.busy, "busy")] {
            if count > 0 {
                line += &format!("  {count} {what}");
            }
        }
        line
    }
}

/// Measures the longest time without an acknowledged write.
#[derive(Debug)]
pub(super) struct WriteGap {
    began: Instant,
    /// When the last acknowledged write ended, in microseconds since `began`.
    last: AtomicU64,
    longest: AtomicU64,
}

impl WriteGap {
    pub(super) fn new(began: Instant) -> WriteGap {
        WriteGap { began, last: AtomicU64::new(0), longest: AtomicU64::new(0) }
    }

    /// Notes an acknowledged write.
    pub(super) fn acknowledged(&self, now: Instant) {
        let at = now.saturating_duration_since(self.began).as_micros() as u64;
        let last = self.last.fetch_max(at, Ordering::Relaxed);
        self.longest.fetch_max(at.saturating_sub(last), Ordering::Relaxed);
    }

    /// The longest gap up to the end of the bench; None if there was no write.
    pub(super) fn longest(&self, ends: Instant) -> Option<Duration> {
        let last = self.last.load(Ordering::Relaxed);
        let rest = (ends.saturating_duration_since(self.began).as_micros() as u64).saturating_sub(last);
        (last > 0).then(|| Duration::from_micros(rest.max(self.longest.load(Ordering::Relaxed))))
    }
}

/// The result of a bench.
#[derive(Clone, Debug)]
pub struct BenchReport {
    pub(super) plan: BenchPlan,
    /// The total of all seconds.
    pub tally: BenchTally,
    pub(super) used: ProcessUsage,
    /// The durability that the servers report for an acknowledged write.
    pub durability: String,
    /// The protocol of the servers.
    pub protocol: String,
    /// Number of servers in the cluster.
    pub servers: usize,
    pub(super) at: Vec<ServerId>,
    pub(super) longest_gap: Option<Duration>,
}

impl BenchReport {
    /// CPU time of all servers together per request, in microseconds; None if they are on other machines.
    pub fn server_cpu_us_per_op(&self) -> Option<f64> {
        self.used.servers.map(|(cpu, _)| self.per_op(cpu))
    }

    /// Memory of the largest server in MiB; None if the servers are on other machines.
    pub fn server_rss_mb(&self) -> Option<f64> {
        self.used.servers.map(|(_, bytes)| bytes as f64 / f64::from(1 << 20))
    }

    /// CPU time of the generator per request, in microseconds.
    pub fn generator_cpu_us_per_op(&self) -> f64 {
        self.per_op(self.used.own_cpu)
    }

    fn per_op(&self, seconds: f64) -> f64 {
        seconds * 1e6 / self.tally.done().max(1) as f64
    }

    /// The result as one JSON object.
    pub fn json(&self) -> String {
        let tally = &self.tally;
        let mut json = format!(
            "{{\"ops_per_s\":{:.1},\"p50_us\":{},\"p90_us\":{},\"p99_us\":{},\"p999_us\":{},\"max_us\":{},\
             \"errors\":{},\"unknown\":{},\"busy\":{},\"durability\":\"{}\",\"protocol\":\"{}\",\"servers\":{}",
            tally.per_second(),
            tally.quantile_us(0.5),
            tally.quantile_us(0.9),
            tally.quantile_us(0.99),
            tally.quantile_us(0.999),
            tally.max_us(),
            tally.errors,
            tally.unknown,
            tally.busy,
            self.durability.escape_default(),
            self.protocol.escape_default(),
            self.servers,
        );
        if let Some((cpu, memory)) = self.server_cpu_us_per_op().zip(self.server_rss_mb()) {
            json += &format!(",\"server_cpu_us_per_op\":{cpu:.1},\"server_rss_mb\":{memory:.1}");
        }
        json + "}"
    }
}

impl Display for BenchReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (plan, tally) = (&self.plan, &self.tally);
        let host = if self.used.servers.is_some() { "this machine" } else { "other machines" };
        let at: Vec<String> = self.at.iter().map(ToString::to_string).collect();
        let loop_of = match plan.rate {
            None => "closed loop".to_string(),
            Some(rate) => format!("open loop of {rate} requests/s, latency from the due time"),
        };
        writeln!(f)?;
        writeln!(f, "{}, {}, {} servers on {host}", self.protocol, self.durability, self.servers)?;
        writeln!(
            f,
            "{} clients x {} in flight at {}, {loop_of}; {} % reads, values of {} bytes, {} keys",
            plan.clients,
            plan.pipeline,
            at.join(","),
            plan.reads,
            plan.value_size,
            plan.keys,
        )?;
        let (done, per_second) = (tally.done(), grouped(tally.per_second()));
        writeln!(f, "throughput  {per_second} ops/s ({done} in {:.1} s)", tally.took.as_secs_f64())?;
        write!(f, "latency    ")?;
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
            write!(f, " {name} {} ", shown(tally.quantile_us(share)))?;
        }
        writeln!(f, " max {}", shown(tally.max_us()))?;
        writeln!(f, "failures    {} errors, {} unknown, {} busy", tally.errors, tally.unknown, tally.busy)?;
        if tally.not_started > 0 {
            writeln!(f, "            {} requests were due but not started: the rate is too high", tally.not_started)?;
        }
        if let Some(gap) = self.longest_gap {
            writeln!(f, "longest     {} without an acknowledged write", shown(gap.as_micros() as u64))?;
        }
        if let Some((cpu, memory)) = self.server_cpu_us_per_op().zip(self.server_rss_mb()) {
            writeln!(f, "servers     {cpu:.1} us of CPU per request, all servers; the largest uses {memory:.1} MiB")?;
        }
        write!(f, "generator   {:.1} us of CPU per request", self.generator_cpu_us_per_op())
    }
}

/// Microseconds in a readable unit.
fn shown(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.2} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// A number rounded to a whole one, with commas between the thousands.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
