//! The commands that read log lines: their output and their exit codes.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

const BOOT: &str = "2026-08-21T14:03:00.000000Z INFO  s1.1    server   BOOT     version=0.1.0 lines=2 cluster=s1 protocol=basic-paxos steps=on incarnation=1\n";
const HIDDEN: &str = "2026-08-21T14:03:00.000000Z INFO  s1.1    server   BOOT     version=0.1.0 lines=2 cluster=s1 protocol=basic-paxos steps=off incarnation=1\n";
const FORGED: &str =
    "2026-08-21T14:03:01.000000Z INFO  s1.2    learner  CHOSEN   req=c1-1 slot=1 ballot=1.1 quorum=s1 to=s1\n";
const TOLD: &str =
    "2026-08-21T14:03:02.000000Z INFO  s1.3    server   RESPONSE req=c1-1 status=OK slot=1 took=1.000ms\n";

fn server(arguments: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_paxos-server")).args(arguments).current_dir(dir).output().unwrap()
}

/// The exit code and what stands on stdout and stderr, for a run of one file.
fn of_run(arguments: &[&str], lines: &str) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("server-1.log"), lines).unwrap();
    let output = server(arguments, dir.path());
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code().unwrap(), stdout, stderr)
}

#[test]
fn exit_code_is_the_verdict() {
    let (code, stdout, _) = of_run(&["audit", "."], BOOT);
    assert_eq!((code, stdout.lines().last()), (0, Some("verdict: PROVED, every rule was kept")));
    let (code, stdout, _) = of_run(&["audit", "."], HIDDEN);
    assert_eq!(code, 6, "{stdout}");
    assert!(
        stdout.contains("not provable (complete): server 1 did not record protocol steps\n    server-1.log:1: 2026-")
    );
    let (code, stdout, _) = of_run(&["audit", "."], &format!("{BOOT}{FORGED}"));
    assert_eq!(code, 7, "{stdout}");
    assert!(
        stdout.contains("VIOLATION (majority): slot 1 is reported chosen at 1.1, but s1 did not accept it\n"),
        "{stdout}"
    );
    let (code, stdout, _) = of_run(&["report", "."], &format!("{BOOT}{FORGED}"));
    assert!(code == 7 && stdout.contains("[ ] G1 ") && stdout.contains("VIOLATION"), "{stdout}");
}

#[test]
fn unreadable_line_is_reported_with_file_and_number() {
    let (code, stdout, stderr) = of_run(&["audit", "."], &format!("{BOOT}what is this?\n{FORGED}"));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("error: server-1.log:2: ") && stderr.contains("what is this?"), "{stderr}");
    let (code, _, stderr) = of_run(&["audit", "nowhere"], BOOT);
    assert!(code == 1 && stderr.contains("nowhere"), "{stderr}");
    let (code, _, stderr) = of_run(&["audit"], BOOT);
    assert!(code == 2 && stderr.contains("Usage"), "{stderr}");
}

#[test]
fn lines_of_a_request_or_slot_are_printed_unchanged() {
    let run = format!("{BOOT}{FORGED}{TOLD}");
    let (code, stdout, _) = of_run(&["logs", ".", "--req", "c1-1"], &run);
    assert_eq!((code, stdout), (0, format!("{FORGED}{TOLD}")));
    let (code, stdout, _) = of_run(&["logs", ".", "--slot", "1"], &run);
    assert_eq!((code, stdout.as_str()), (0, FORGED));
    let (code, stdout, stderr) = of_run(&["logs", ".", "--req", "c1-2"], &run);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("paxos-server logs ."), "{stderr}");
}

#[test]
fn help_lists_the_exit_codes() {
    let output = server(&["--help"], Path::new("."));
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && help.contains("6 not provable") && help.contains("7 a rule was"), "{help}");
}
