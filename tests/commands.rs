//! The commands that people type, on a cluster that runs, as whole transcripts.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use paxos_kv::trace::parse::Run;
use rustix::process::{Pid, Signal, kill_process};
use support::{Cluster, await_value, run_program};

/// What a command prints, on both streams, with times taken out; and its exit code.
fn transcript(cluster: &Cluster, arguments: &[&str], typed: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paxos-client"));
    command.args(arguments).arg("--cluster").arg(cluster.file()).current_dir(cluster.dir.path());
    command.env_remove("PAXOS_CLUSTER").env("PAXOS_RUNS", cluster.dir.path().join("none"));
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
fn shell_executes_lines_and_continues_after_an_error() {
    let cluster = Cluster::start(3, &[]);
    let typed = "put color \"deep blue\"\nget color\nfly away\n@2 delete color\nget color\nquit\nput color red\n";
    assert_eq!(
        transcript(&cluster, &["shell"], typed),
        "OK version=1 slot=2\n\
         \"deep blue\" version=1 slot=2\n\
         OK version=2 slot=3\n\
         NOTFOUND version=2 slot=3\n\
         commands: put KEY VALUE, get KEY, delete KEY, status, help; Ctrl-D quits\n\
         error: fly is not an operation (put, get, delete). Next: help\n\
         [0]\n"
    );
}

#[test]
fn json_results_can_be_parsed() {
    let cluster = Cluster::start(3, &[]);
    let object = |arguments: &[&str]| -> serde_json::Value {
        let text = transcript(&cluster, arguments, "");
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
fn logs_of_a_run_print_in_columns_and_in_color() {
    let cluster = Cluster::start(3, &[]);
    cluster.client_with_log("c1", 1).put(b"color", b"blue").unwrap();
    cluster.await_agreement();
    let run = cluster.dir.path().to_string_lossy().into_owned();
    let (code, text) = run_program("paxos-server", &["logs", &run, "--req", "c1-2", "--columns"]);
    let head: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!((code, head), (0, vec!["time", "clients", "s1", "s2", "s3"]), "{text}");
    assert!(text.contains("P PREPARE 2+") && text.contains("L CHOSEN 2"), "{text}");
    let (_, plain) = run_program("paxos-server", &["logs", &run, "--req", "c1-2"]);
    let (_, colored) = run_program("paxos-server", &["logs", &run, "--req", "c1-2", "--color", "always"]);
    assert!(!plain.contains('\u{1b}') && colored.contains('\u{1b}'), "colors are for terminals");
}

#[test]
fn every_program_prints_completion_scripts() {
    for (program, word) in [
        (env!("CARGO_BIN_EXE_paxos-server"), "--mean-up"),
        (env!("CARGO_BIN_EXE_paxos-client"), "--if-version"),
        (env!("CARGO_BIN_EXE_paxos-server"), "timeline"),
    ] {
        for shell in ["bash", "zsh", "fish"] {
            let output = Command::new(program).args(["completions", shell]).output().unwrap();
            let script = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success() && script.contains(word.trim_start_matches('-')), "{program} {shell}");
        }
        assert_eq!(Command::new(program).args(["completions", "pascal"]).output().unwrap().status.code(), Some(2));
    }
}

#[test]
fn concurrent_commands_share_a_log_file_that_proves_the_run() {
    let cluster = Cluster::start(3, &[]);
    let lines = cluster.dir.path().to_string_lossy().into_owned();
    let put = |n: usize| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paxos-client"));
        command.arg("--cluster").arg(cluster.file()).args(["--log-dir", &lines]);
        command.args(["put", "k", &format!("v{n}")]).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let children: Vec<Child> = (0..8).map(put).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    // The clients of a demo, and clients with a name, have files of their own, and no number is given twice.
    let named = cluster.client_tool(&["--log-dir", &lines, "--name", "c9", "get", "k"]);
    assert!(named.status.success(), "{named:?}");
    let used = cluster.client_tool(&["--log-dir", &lines, "--name", "c3", "get", "k"]);
    assert_eq!(used.status.code(), Some(2), "c3 has lines in client.log: {used:?}");
    assert!(cluster.client_tool(&["--log-dir", &lines, "get", "k"]).status.success());

    let run = Run::read(cluster.dir.path()).unwrap();
    let of_file = |name: &str| -> BTreeSet<String> {
        let lines = run.lines.iter().filter(|entry| &*entry.file == name);
        lines.map(|entry| entry.line.id.process.to_string()).collect()
    };
    let names = |numbers: &[u32]| numbers.iter().map(|number| format!("c{number}")).collect::<BTreeSet<_>>();
    assert_eq!(of_file("client.log"), names(&[1, 2, 3, 4, 5, 6, 7, 8, 10]));
    assert_eq!(of_file("client-9.log"), names(&[9]));
    cluster.await_agreement();
    let (code, text) = cluster.audit();
    assert_eq!(code, 0, "{text}");
}

/// Sends a signal to a process.
fn signal(process: u32, signal: Signal) {
    kill_process(Pid::from_raw(process as i32).unwrap(), signal).unwrap();
}

/// A client whose streams are pipes and whose lines go beside the servers'.
fn client(cluster: &Cluster, arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paxos-client"));
    command.arg("--cluster").arg(cluster.file()).arg("--log-dir").arg(cluster.dir.path()).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until this stands in a file of the run's folder.
fn await_line(cluster: &Cluster, file: &str, text: &str) {
    let path = cluster.dir.path().join(file);
    await_value("the line is written", || {
        std::fs::read_to_string(&path).unwrap_or_default().contains(text).then_some(())
    });
}

#[test]
fn interrupted_write_reports_an_unknown_outcome() {
    for (which, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let cluster = Cluster::start(3, &[]);
        let mut shell = client(&cluster, &["shell", "--timeout", "600s"]);
        let mut typed = shell.stdin.take().unwrap();
        let mut shown = BufReader::new(shell.stdout.take().unwrap());
        let mut line = String::new();
        typed.write_all(b"put color first\n").unwrap();
        shown.read_line(&mut line).unwrap();
        assert!(line.starts_with("OK "), "{line}");
        (1..=3).for_each(|id| signal(cluster.pid(id), Signal::STOP));
        typed.write_all(b"put color second\n").unwrap();
        await_line(&cluster, "client-1.log", "value=second");
        signal(shell.id(), which);
        assert_eq!(shell.wait().unwrap().code(), Some(code));
        let mut rest = String::new();
        shown.read_to_string(&mut rest).unwrap();
        assert!(rest.starts_with("UNKNOWN ") && rest.contains("may still be applied"), "{rest}");
        await_line(&cluster, "client-1.log", "status=UNKNOWN");
        (1..=3).for_each(|id| signal(cluster.pid(id), Signal::CONT));
    }
}

#[test]
fn write_interrupted_before_its_send_reports_not_sent() {
    let cluster = Cluster::start(3, &[]);
    (1..=3).for_each(|id| signal(cluster.pid(id), Signal::STOP));
    let put = client(&cluster, &["put", "color", "red", "--timeout", "600s"]);
    await_line(&cluster, "client.log", "op=OPEN");
    signal(put.id(), Signal::INT);
    let output = put.wait_with_output().unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(130), Vec::new()), "{notes}");
    assert!(notes.contains("the write was NOT sent"), "{notes}");
    (1..=3).for_each(|id| signal(cluster.pid(id), Signal::CONT));
}

#[test]
fn interrupted_script_reports_operations_not_started() {
    let cluster = Cluster::start(3, &[]);
    (1..=3).for_each(|id| signal(cluster.pid(id), Signal::STOP));
    let mut run = client(&cluster, &["run", "-", "--timeout", "600s"]);
    run.stdin.take().unwrap().write_all(b"get a\nget b\nget c\n").unwrap();
    await_line(&cluster, "client.log", "key=a");
    signal(run.id(), Signal::INT);
    let output = run.wait_with_output().unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{notes}");
    assert!(notes.contains("interrupted: 2 operations were not started"), "{notes}");
    (1..=3).for_each(|id| signal(cluster.pid(id), Signal::CONT));
}

#[test]
fn idle_shell_exits_at_once_on_a_signal() {
    let cluster = Cluster::start(1, &[]);
    let mut shell = client(&cluster, &["shell"]);
    let mut typed = shell.stdin.take().unwrap();
    let mut shown = BufReader::new(shell.stdout.take().unwrap());
    typed.write_all(b"put color first\n").unwrap();
    shown.read_line(&mut String::new()).unwrap();
    signal(shell.id(), Signal::INT);
    assert_eq!(shell.wait().unwrap().code(), Some(130));
}

#[test]
fn shell_reports_missing_servers_once_per_request() {
    let cluster = Cluster::prepare(3, &[]);
    let typed = "get a\n";
    let text = transcript(&cluster, &["--timeout", "1s", "shell"], typed);
    assert_eq!(text.matches("trying").count(), 1, "{text}");
    assert!(text.contains("is running; trying for up to 1.0 s\n"), "{text}");
    assert!(text.starts_with("NOTAPPLIED after ") && text.ends_with("[0]\n"), "{text}");
    let text = transcript(&cluster, &["--timeout", "1s", "bench", "--duration", "100ms"], "");
    assert!(text.lines().count() <= 3 && !text.contains("trying"), "{text}");
}

#[test]
fn cluster_from_the_environment_is_used_and_absent_from_usage_lines() {
    let cluster = Cluster::prepare(1, &[]);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paxos-client"));
        command.args(arguments).env("PAXOS_CLUSTER", cluster.file()).output().unwrap()
    };
    let usage = String::from_utf8(run(&["get"]).stderr).unwrap();
    assert!(usage.contains("Usage: paxos-client get <KEY>"), "{usage}");
    let server =
        Command::new(env!("CARGO_BIN_EXE_paxos-server")).env("PAXOS_CLUSTER", cluster.file()).output().unwrap();
    let usage = String::from_utf8(server.stderr).unwrap();
    assert!(usage.contains("Usage: paxos-server --id <N>\n"), "{usage}");
    let servers = String::from_utf8(run(&["servers"]).stdout).unwrap();
    assert!(servers.contains(&cluster.cluster.members().next().unwrap().1.client.to_string()), "{servers}");
}
