//! Chaos of real processes, for a short while: it is clean, it really strikes, and it notices what is wrong.

#![allow(clippy::unwrap_used)]

#[path = "../../../tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;

use support::{program, run_program, write_script};

fn chaos(out: &Path, more: &[&str]) -> (i32, String) {
    let out = out.to_string_lossy().into_owned();
    run_program("paxos-lab", &[&["chaos", "--out", out.as_str()], more].concat())
}

#[test]
fn short_rounds_of_every_protocol_are_clean_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let totals = dir.path().join("totals.json");
    for protocol in ["multi-paxos", "basic-paxos", "two-phase-commit"] {
        let more = ["--seed", "2", "--rounds", "1", "--fault-duration", "5s", "--protocol", protocol, "--totals"];
        let (code, text) = chaos(dir.path(), &[&more[..], &[&totals.to_string_lossy()]].concat());
        assert_eq!(code, 0, "{text}");
    }
    let sums: serde_json::Value = serde_json::from_slice(&fs::read(&totals).unwrap()).unwrap();
    assert!(sums["operations"].as_u64().unwrap() > 1_000, "{sums}");
    // The plan is the same each time; what finds a server that is struck already is not struck.
    let strikes: u64 = sums["strikes"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert!(sums["kills"].as_u64().unwrap() >= 1 && strikes >= 4, "{sums}");
    assert_eq!((&sums["failed"], sums["rounds"].as_object().unwrap().len()), (&0.into(), 3), "{sums}");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["totals.json"]);
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(&*dir.path().to_string_lossy()), "{mounts}");
}

#[test]
fn kept_round_is_checked_again_and_a_forged_reply_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let more = ["--seed", "3", "--rounds", "1", "--fault-duration", "3s", "--keep", "--protocol", "multi-paxos"];
    let (code, text) = chaos(dir.path(), &more);
    assert_eq!(code, 0, "{text}");
    let round = dir.path().join("round-3");
    let again = || run_program("paxos-lab", &["chaos", "--replay", &round.to_string_lossy()]);
    let (code, text) = again();
    assert!(code == 0 && text.contains("linearizable"), "{text}");

    // Forge a reply with a version that never existed.
    let path = round.join("client-1.log");
    let lines = fs::read_to_string(&path).unwrap();
    let told = lines.lines().rfind(|line| line.contains(" RESPONSE ") && line.contains(" version=")).unwrap();
    let version = told.split(" version=").nth(1).unwrap().split(' ').next().unwrap();
    let forged = told.replace(&format!(" version={version} "), " version=999999 ");
    fs::write(&path, lines.replace(told, &forged)).unwrap();
    let (code, text) = again();
    assert!(code == 7 && text.contains("VIOLATION"), "{text}");
}

#[test]
fn acceptors_that_lose_their_memory_are_found() {
    let dir = tempfile::tempdir().unwrap();
    // The server as it is, with the option that its own help calls unsafe.
    let server = dir.path().join("forgetful-server");
    let real = program("paxos-server").display().to_string();
    let options = "--restart lost --fail acceptors --mean-up 300ms --mean-down 50ms";
    write_script(&server, &format!("#!/bin/sh\nexec '{real}' \"$@\" {options}\n"));
    let server = server.to_string_lossy().into_owned();
    let more =
        ["--seed", "1", "--rounds", "5", "--fault-duration", "5s", "--protocol", "basic-paxos", "--server", &server];
    let (code, text) = chaos(dir.path(), &more);
    assert!(code == 7 && text.contains("paxos-lab chaos --replay"), "{text}");
}

#[test]
fn short_soak_measures_itself_and_answers_every_request() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_string_lossy().into_owned();
    let (code, text) = run_program("paxos-lab", &["soak", "--minutes", "0.15", "--interval", "1s", "--out", &out]);
    // In so short a time files are still being made: that may count as growth, and nothing else may be wrong.
    assert!(matches!(code, 0 | 8) && text.contains("are linearizable") && text.contains("flat"), "{text}");
}
