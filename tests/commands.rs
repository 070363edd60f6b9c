//! The commands that people type, on a cluster that runs, as whole transcripts.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use support::{Cluster, lab};

/// What a command prints, on both streams, with times taken out; and its exit code.
fn transcript(cluster: &Cluster, words: &[&str], typed: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paxos-client"));
    command.args(words).arg("--cluster").arg(cluster.file()).current_dir(cluster.folder.path());
    command.env_remove("PAXOS_CLUSTER").env("PAXOS_RUNS", cluster.folder.path().join("none"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let mut text = String::new();
    for line in stdout.lines().chain(stderr.lines()) {
        text += line.split(" (").next().filter(|_| line.ends_with(" ms)")).unwrap_or(line);
        text.push('\n');
    }
    format!("{text}[{}]\n", output.status.code().unwrap())
}

#[test]
fn the_shell_does_what_is_typed_and_goes_on_after_a_mistake() {
    let cluster = Cluster::start(3, &[]);
    let typed = "put color \"deep blue\"\nget color\nfly away\n@2 delete color\nget color\nquit\nput color red\n";
    assert_eq!(
        transcript(&cluster, &["shell"], typed),
        "OK version=1 slot=2\n\
         \"deep blue\" version=1 slot=2\n\
         OK version=2 slot=3\n\
         NOTFOUND version=2 slot=3\n\
         put KEY VALUE, get KEY, delete KEY, status, help; Ctrl-D ends\n\
         error: fly is no operation (put, get, delete). Try: help\n\
         [0]\n"
    );
}

#[test]
fn results_for_programs_can_be_read_by_one() {
    let cluster = Cluster::start(3, &[]);
    let object = |words: &[&str]| -> serde_json::Value {
        let text = transcript(&cluster, words, "");
        let (json, code) = text.trim_end().rsplit_once('\n').unwrap();
        let mut object: serde_json::Value = serde_json::from_str(json).unwrap_or_else(|_| panic!("{text}"));
        object["code"] = code.trim_matches(['[', ']']).parse::<u8>().unwrap().into();
        object
    };
    let done = object(&["put", "color", "blue", "-o", "json"]);
    assert_eq!((&done["status"], &done["version"], &done["code"]), (&"OK".into(), &1.into(), &0.into()));
    let none = object(&["get", "shape", "-o", "json"]);
    assert_eq!((&none["status"], &none["code"]), (&"NOTFOUND".into(), &3.into()));
    let status = object(&["status", "-o", "json"]);
    assert_eq!((&status["writes"], status["servers"].as_array().unwrap().len()), (&true.into(), 3));
    assert_eq!(status["servers"][0]["roles"]["acceptor"]["up"], true);
    let refused = object(&["crash", "1.acceptor", "-o", "json"]);
    assert!(
        refused["error"].as_str().unwrap().contains("--lab") && refused["exit_code"] == refused["code"],
        "{refused}"
    );
}

#[test]
fn the_lines_of_a_run_can_stand_side_by_side_and_in_colour() {
    let cluster = Cluster::start(3, &[]);
    cluster.client_with_lines("c1", 1).put(b"color", b"blue").unwrap();
    cluster.await_agreement();
    let run = cluster.folder.path().to_string_lossy().into_owned();
    let (code, text) = lab(&["logs", &run, "--req", "c1-2", "--columns"]);
    let head: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!((code, head), (0, vec!["time", "clients", "s1", "s2", "s3"]), "{text}");
    assert!(text.contains("P PREPARE 2+") && text.contains("L CHOSEN 2"), "{text}");
    let (_, plain) = lab(&["logs", &run, "--req", "c1-2"]);
    let (_, coloured) = lab(&["logs", &run, "--req", "c1-2", "--colour", "always"]);
    assert!(!plain.contains('\u{1b}') && coloured.contains('\u{1b}'), "colours are for terminals");
}

#[test]
fn every_programme_teaches_shells_its_words() {
    for (program, word) in [
        (env!("CARGO_BIN_EXE_paxos-server"), "--mean-up"),
        (env!("CARGO_BIN_EXE_paxos-client"), "--if-version"),
        (env!("CARGO_BIN_EXE_paxos-lab"), "timeline"),
    ] {
        for shell in ["bash", "zsh", "fish"] {
            let output = Command::new(program).args(["completions", shell]).output().unwrap();
            let script = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success() && script.contains(word.trim_start_matches('-')), "{program} {shell}");
        }
        assert_eq!(Command::new(program).args(["completions", "pascal"]).output().unwrap().status.code(), Some(2));
    }
}
