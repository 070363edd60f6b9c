//! Histories with known verdicts: does the checker find them?
//!
//! Those of this project are in `tests/histories`. `PAXOS_HISTORIES=DIR` adds recorded ones, as
//! `tests/histories/README.md` says.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

/// What `paxos-lab check` says of a file: its exit code, and what it prints.
fn check(files: &[&Path]) -> (i32, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_paxos-lab")).arg("check").args(files).output().unwrap();
    let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    (status.code().unwrap(), text)
}

fn files_in(dir: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = all.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| extensions.iter().any(|extension| path.extension().is_some_and(|other| other == *extension)));
    files.sort();
    files
}

/// The exit code that the end of a name promises.
fn expected_exit_code(path: &Path) -> i32 {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    match stem.rsplit_once('-').unwrap().1 {
        "ok" => 0,
        "missing" => 6,
        "bad" => 7,
        _ => panic!("{} promises no verdict", path.display()),
    }
}

fn own_histories_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/histories")
}

#[test]
fn every_history_of_this_project_gets_its_verdict() {
    let files = files_in(&own_histories_dir(), &["log", "txt"]);
    assert!(files.len() >= 15, "{files:?}");
    for file in files {
        let (code, text) = check(&[&file]);
        assert_eq!(code, expected_exit_code(&file), "{text}");
    }
}

#[test]
fn witness_shows_the_unexplained_operation_and_the_order_before_it() {
    let (_, text) = check(&[&own_histories_dir().join("lines-write-goes-back-bad.log")]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("lines-write-goes-back-bad.log: NOT linearizable"), "{text}");
    assert!(lines[1].contains("key color") && lines[3].contains("req=c2-2 status=OK"), "{text}");
    assert!(text.contains("After it key color holds red, at version 2."), "{text}");
    let order: Vec<usize> = ["c1-2 op", "c1-3 op", "c2-1 op"].iter().map(|label| text.find(label).unwrap()).collect();
    assert!(order.is_sorted(), "{text}");
}

#[test]
fn worst_of_several_verdicts_is_the_exit_code() {
    let [ok, bad] = ["register-overlap-ok.log", "appends-lost-bad.txt"].map(|name| own_histories_dir().join(name));
    let (code, text) = check(&[&bad, &ok]);
    assert_eq!(code, 7);
    assert!(text.contains("appends-lost-bad.txt: NOT linearizable"), "{text}");
    assert!(text.contains("register-overlap-ok.log: linearizable (3 operations on 1 key, "), "{text}");
}

#[test]
fn files_of_a_run_are_one_history() {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(own_histories_dir().join("lines-late-write-ok.log")).unwrap();
    for client in ["c1", "c2"] {
        let of_client = text.split_inclusive('\n').filter(|line| line.contains(&format!(" {client}.")));
        fs::write(dir.path().join(format!("client-{}.log", &client[1..])), of_client.collect::<String>()).unwrap();
    }
    let (code, text) = check(&[dir.path()]);
    assert!(code == 0 && text.contains("(2 files): linearizable (4 operations on 1 key, "), "{text}");
    // Another client, whose lines are missing, wrote what the second one has read.
    let (code, text) = check(&[&dir.path().join("client-2.log")]);
    assert!(
        code == 6 && text.contains("if another client wrote to the same keys, these results are linearizable"),
        "{text}"
    );
}

#[test]
fn file_without_a_history_is_a_failure_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("notes.txt");
    fs::write(&file, "buy milk\n").unwrap();
    let (code, text) = check(&[&file]);
    assert!(code == 1 && text.contains("notes.txt: line 1: this is not a known history format"), "{text}");
    let (code, text) = check(&[&dir.path().join("nowhere.log")]);
    assert!(code == 1 && text.contains("cannot read"), "{text}");
    let (code, text) = check(&[dir.path()]);
    assert!(code == 1 && text.contains("has no *.log file"), "{text}");
    assert_eq!(check(&[]).0, 2);
}

#[test]
fn every_recorded_history_gets_its_verdict() {
    let Some(dir) = env::var_os("PAXOS_HISTORIES").map(PathBuf::from) else {
        eprintln!("skipped: PAXOS_HISTORIES does not name a directory with recorded histories");
        return;
    };
    let verdicts = fs::read_to_string(dir.join("etcd/VERDICTS.tsv")).unwrap();
    let verdicts: BTreeMap<&str, i32> = verdicts
        .lines()
        .map(|line| match line.split_once('\t').unwrap() {
            (name, "linearizable") => (name, 0),
            (name, "not linearizable") => (name, 7),
            other => panic!("{other:?}"),
        })
        .collect();
    let logs = files_in(&dir.join("etcd"), &["log"]);
    assert_eq!(logs.len(), verdicts.len());
    let maps = files_in(&dir.join("kv"), &["txt"]);
    assert!(!logs.is_empty() && !maps.is_empty());
    let logs = logs.into_iter().map(|log| (verdicts[log.file_name().unwrap().to_str().unwrap()], log));
    let started = Instant::now();
    let mut checked = 0;
    for (expected, file) in logs.chain(maps.into_iter().map(|map| (expected_exit_code(&map), map))) {
        let (code, text) = check(&[&file]);
        assert_eq!(code, expected, "{text}");
        checked += 1;
    }
    eprintln!("{checked} recorded histories, every verdict correct, in {:?}", started.elapsed());
}
