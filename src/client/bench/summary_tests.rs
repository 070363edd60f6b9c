use super::*;
use crate::client::outcome::{RequestKind, Tries};
use crate::client::{NoReply, Try, TryEnd};
use crate::role::ServerSet;

fn lost(may_be_applied: bool) -> Result<(), ClientError> {
    let mut tries = Tries::new(ServerSet::first(5), RequestKind::Write);
    let end = if may_be_applied { NoReply::TimedOut { waited: Duration::ZERO } } else { NoReply::ConnectionRefused };
    tries.push(Try { server: ServerId(1), end: TryEnd::NoReply(end), took: Duration::ZERO });
    Err(tries.into_error(Duration::ZERO))
}

fn tally() -> BenchTally {
    let mut tally = BenchTally::default();
    (1..=1_000).for_each(|us| tally.count(&Ok(()), Duration::from_micros(us)));
    tally.count(&lost(true), Duration::from_secs(1));
    tally.count(&lost(false), Duration::from_secs(1));
    tally.busy = 3;
    tally.took = Duration::from_secs(2);
    tally
}

fn summary() -> BenchReport {
    BenchReport {
        plan: BenchPlan::default(),
        tally: tally(),
        used: ProcessUsage { own_cpu: 0.01, servers: Some((0.05, 12 << 20)) },
        durability: "fsync=on".to_string(),
        protocol: "basic-paxos".to_string(),
        servers: 5,
        at: vec![ServerId(1)],
        longest_gap: Some(Duration::from_millis(12)),
    }
}

#[test]
fn requests_are_counted_by_result_and_only_results_have_a_latency() {
    let tally = tally();
    assert_eq!((tally.done(), tally.errors, tally.unknown, tally.per_second()), (1_000, 1, 1, 500.0));
    let near = |us: u64, wanted: u64| us.abs_diff(wanted) * 1_000 <= wanted * 2;
    assert!(near(tally.quantile_us(0.5), 500) && near(tally.quantile_us(0.99), 990), "{tally:?}");
    assert!(near(tally.max_us(), 1_000));
    let mut slow = BenchTally::default();
    [7, 3_000_000, 500].into_iter().for_each(|us| slow.count(&Ok(()), Duration::from_micros(us)));
    assert!(near(slow.max_us(), 3_000_000) && slow.quantile_us(0.1) == 7, "{slow:?}");
    let mut both = tally.clone();
    both.add(&tally);
    assert_eq!((both.done(), both.errors, both.unknown, both.busy), (2_000, 2, 2, 6));
    assert_eq!((BenchTally::default().quantile_us(0.99), BenchTally::default().max_us()), (0, 0));
}

#[test]
fn json_report_has_exactly_the_promised_fields() {
    let json = summary().json();
    assert_eq!(
        json,
        "{\"ops_per_s\":500.0,\"p50_us\":500,\"p90_us\":900,\"p99_us\":990,\"p999_us\":999,\"max_us\":1000,\
         \"errors\":1,\"unknown\":1,\"busy\":3,\"durability\":\"fsync=on\",\"protocol\":\"basic-paxos\",\"servers\":5,\
         \"server_cpu_us_per_op\":50.0,\"server_rss_mb\":12.0}"
    );
    let elsewhere = BenchReport { used: ProcessUsage::default(), ..summary() };
    assert!(elsewhere.json().ends_with("\"servers\":5}"), "{}", elsewhere.json());
}

#[test]
fn the_summary_names_durability_protocol_and_loop() {
    let text = summary().to_string();
    for part in [
        "basic-paxos, fsync=on, 5 servers on this machine",
        "64 clients x 1 in flight at s1, closed loop",
        "500 ops/s (1000 in 2.0 s)",
        "1 errors, 1 unknown, 3 busy",
        "12.00 ms without an acknowledged write",
        "50.0 us of CPU per request",
        "generator   10.0 us",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let plan = BenchPlan { rate: Some(2_000), ..BenchPlan::default() };
    let open = BenchReport { plan, ..summary() }.to_string();
    assert!(open.contains("open loop of 2000 requests/s, latency from the due time"), "{open}");
}

#[test]
fn longest_gap_includes_the_time_up_to_the_end() {
    let began = Instant::now();
    let at = |ms: u64| began + Duration::from_millis(ms);
    let gap = WriteGap::new(began);
    assert_eq!(gap.longest(at(100)), None, "there was no write");
    for ms in [10, 40, 30, 60] {
        gap.acknowledged(at(ms));
    }
    assert_eq!(gap.longest(at(70)), Some(Duration::from_millis(30)));
    assert_eq!(gap.longest(at(100)), Some(Duration::from_millis(40)));
}

#[test]
fn times_and_numbers_are_readable() {
    assert_eq!([999, 1_000, 25_500, 2_000_000].map(shown), ["999 us", "1.00 ms", "25.50 ms", "2.00 s"]);
    assert_eq!([0.4, 999.0, 1_000.0, 1_234_567.0].map(grouped), ["0", "999", "1,000", "1,234,567"]);
}
