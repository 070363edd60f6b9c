//! The bench measures real clusters, and says what it has counted. How fast they are is no test.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};

use support::{Cluster, await_value};

/// The fields of a flat JSON object, as they stand there.
fn fields(output: &Output) -> BTreeMap<String, String> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let inner = text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}')).expect("one object");
    let pair = |part: &str| {
        let (name, value) = part.split_once(':').unwrap();
        (name.trim_matches('"').to_string(), value.trim_matches('"').to_string())
    };
    inner.split(',').map(pair).collect()
}

fn number(fields: &BTreeMap<String, String>, name: &str) -> f64 {
    fields[name].parse().unwrap()
}

const SHORT: [&str; 6] = ["--duration", "600ms", "--warm-up", "100ms", "--keys", "50"];
const QUIET: [&str; 6] = ["--seed", "1", "--segment-kib", "1024", "--steps", "off"];

#[test]
fn closed_and_open_loop_measure_a_cluster() {
    let cluster = Cluster::start(3, &QUIET);
    let loops: [&[&str]; 4] = [
        &["--clients", "3", "--reads", "0"],
        &["--clients", "2", "--pipeline", "8", "--reads", "100", "--threads", "2"],
        &["--clients", "2", "--rate", "100", "--reads", "50"],
        &["--clients", "3", "--servers", "1,2,3", "--reads", "30"],
    ];
    for load in loops {
        let fields = fields(&cluster.client_tool(&[&["bench", "-o", "json"], load, &SHORT].concat()));
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        let promised = "busy durability errors max_us ops_per_s p50_us p90_us p999_us p99_us protocol \
                        server_cpu_us_per_op server_rss_mb servers unknown";
        assert_eq!(names.join(" "), promised, "{load:?}");
        assert!(number(&fields, "ops_per_s") > 0.0 && number(&fields, "server_rss_mb") > 0.0, "{load:?}: {fields:?}");
        assert_eq!(number(&fields, "errors") + number(&fields, "unknown"), 0.0, "{load:?}: {fields:?}");
        let percentiles = ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"].map(|name| number(&fields, name));
        assert!(percentiles.is_sorted() && percentiles[0] >= 1.0, "{load:?}: {percentiles:?}");
        assert_eq!((fields["servers"].as_str(), fields["durability"].as_str()), ("3", "fsync=on"));
    }
    // An open loop asks for what it was told to and for no more.
    let slow = ["bench", "-o", "json", "--clients", "1", "--rate", "20", "--reads", "100"];
    let rate = number(&fields(&cluster.client_tool(&[&slow, &SHORT[..]].concat())), "ops_per_s");
    assert!(rate <= 40.0, "20 a second were asked for, and {rate} came");
    cluster.await_agreement();
}

#[test]
fn crash_of_a_server_is_reported_and_the_load_continues() {
    let mut cluster = Cluster::start(3, &QUIET);
    let mut command = Command::new(env!("CARGO_BIN_EXE_paxos-client"));
    command.arg("--cluster").arg(cluster.file()).args(["bench", "--clients", "4", "--reads", "0", "--servers", "1"]);
    command.args(["--duration", "8s", "--warm-up", "0ms"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let bench = command.spawn().unwrap();
    await_value("the load has begun", || cluster.status(2).filter(|status| status.applied.0 > 5));
    cluster.kill(&[1]);
    let output = bench.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("tries failed; the first: server 1") && text.contains("trying server 2"), "{text}");
    assert!(text.contains("without an acknowledged write"), "{text}");
    // Two of three are a majority: nothing failed for good, and what the dead server had under way was asked for again.
    assert!(text.contains("0 errors, 0 unknown"), "{text}");
}

#[test]
fn sweep_starts_its_own_servers_and_writes_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_paxos-client"));
    command.args(["bench", "sweep", "--servers", "1,3", "--clients", "1,2", "--value-sizes", "10,1000"]);
    command.args(["--duration", "500ms", "--warm-up", "50ms", "--keys", "20", "--reads", "50", "--out"]);
    let output = command.arg(dir.path()).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = std::fs::read_to_string(dir.path().join("sweep.csv")).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    // By two protocols: two clusters with two loads each, and the other value size once.
    assert_eq!(rows.len(), 1 + 2 * (2 * 2 + 1), "{table}");
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{table}");
    let column = rows[0].iter().position(|name| *name == "ops_per_s").unwrap();
    assert!(rows[1..].iter().all(|row| row[column].parse::<f64>().unwrap() > 0.0), "{table}");
}

#[test]
fn bench_reports_why_it_cannot_measure() {
    let cluster = Cluster::prepare(1, &QUIET);
    for (arguments, code, why) in [
        (&["bench"][..], 1, "no server replies"),
        (&["bench", "--servers", "9"], 2, "the cluster file has no server 9"),
        (&["bench", "--clients", "0"], 2, "--clients"),
        (&["bench", "--pipeline", "65"], 2, "--pipeline"),
        (&["bench", "--value-size", "1048577"], 2, "not a value length"),
        (&["bench", "sweep", "--program", "/nowhere", "--out", "/tmp"], 1, "server program not found: /nowhere"),
    ] {
        let output = cluster.client_tool(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
}
