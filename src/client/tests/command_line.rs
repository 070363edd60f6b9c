//! Tests of exit codes and messages of the command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::sync::{Arc, Mutex};

use super::fake::{Fake, FakeAction, FakeCluster, good, opens_and, serves};
use crate::client::cli::run;
use crate::client::printer::Printer;
use crate::kv::{Op, WriteResult};
use crate::net::{Reply, Request, WhyNotApplied, WhyUnknown};
use crate::paxos::{NotApplied, Slot};
use crate::role::ServerSet;

#[derive(Clone, Default)]
pub struct Text(Arc<Mutex<Vec<u8>>>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Text {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

/// Runs a command on this cluster; returns exit code, stdout and stderr.
fn paxos_client(cluster: &FakeCluster, words: &[&str]) -> (u8, String, String) {
    let words = words.iter().map(OsString::from).collect();
    with_bytes(cluster, words)
}

fn with_bytes(cluster: &FakeCluster, words: Vec<OsString>) -> (u8, String, String) {
    let (data, notes) = (Text::default(), Text::default());
    let printer = Arc::new(Printer::new(data.clone(), notes.clone()));
    let mut all: Vec<OsString> = vec!["paxos-client".into(), "--cluster".into(), cluster.file.path().into()];
    all.extend(["--server".into(), "1".into(), "--timeout".into(), "1s".into()]);
    all.extend(words);
    (run(all, &printer), data.text(), notes.text())
}

fn answers(reply: Reply) -> FakeCluster {
    FakeCluster::start(vec![opens_and(move |_, _| FakeAction::Reply(reply.clone()))])
}

fn applied(written: WriteResult) -> FakeCluster {
    answers(Reply::Applied { slot: Slot(9), written, accepted_by: ServerSet::NONE })
}

#[test]
fn success_is_0_and_stdout_is_data() {
    let value = Reply::Value { slot: Slot(9), value: Some(b"deep blue".to_vec().into()), version: 3 };
    assert_eq!(paxos_client(&answers(value), &["get", "color"]), (0, "deep blue\n".to_string(), String::new()));
    let done = applied(WriteResult::Done { version: 3 });
    assert_eq!(paxos_client(&done, &["put", "k", "v"]), (0, "OK version=3 slot=9\n".to_string(), String::new()));
    assert_eq!(paxos_client(&done, &["delete", "k"]).0, 0);
    let (code, text, _) = paxos_client(&done, &["servers"]);
    assert_eq!((code, text.starts_with("1 127.0.0.1:1 127.0.0.1:")), (0, true), "{text}");
}

#[test]
fn missing_key_exits_3_with_a_message_on_stderr() {
    let none = Reply::Value { slot: Slot(9), value: None, version: 2 };
    for (cluster, words) in
        [(answers(none), ["get", "a b"]), (applied(WriteResult::NotFound { version: 2 }), ["delete", "a b"])]
    {
        let expected = "error: key not found: \"a b\" (last version 2)\n".to_string();
        assert_eq!(paxos_client(&cluster, &words), (3, String::new(), expected));
    }
}

#[test]
fn not_applied_exits_4_with_the_reason_and_the_next_step() {
    let mismatch = applied(WriteResult::Mismatch { version: 3 });
    let (code, data, notes) = paxos_client(&mismatch, &["put", "color", "red", "--if-version", "2"]);
    assert_eq!((code, data.as_str()), (4, ""));
    assert_eq!(
        notes,
        "error: version mismatch: color is at version 3. Nothing was written. Next: paxos-client get color\n"
    );
    let asked = &mismatch.requests()[1].1;
    assert!(matches!(asked, Request::Write { op: Op::Put { if_version: Some(2), .. }, .. }), "{asked:?}");

    let answered = std::iter::once(crate::role::ServerId(1)).collect();
    let no_quorum = answers(Reply::NotApplied(WhyNotApplied::Proposer(NotApplied::NoQuorum { answered })));
    let (code, _, notes) = paxos_client(&no_quorum, &["put", "color", "red"]);
    assert_eq!(code, 4);
    assert!(notes.ends_with("The write was NOT applied: no ACCEPT was sent. Next: paxos-client status\n"), "{notes}");
    let (code, _, notes) = paxos_client(&FakeCluster::start(vec![Fake::Absent]), &["get", "color"]);
    assert_eq!(code, 4);
    assert!(notes.contains("no server is running"), "{notes}");
}

#[test]
fn unknown_outcome_exits_5_with_the_next_step() {
    let unknown = answers(Reply::Unknown(WhyUnknown::Expired));
    let (code, _, notes) = paxos_client(&unknown, &["put", "color", "red"]);
    assert_eq!(code, 5);
    assert!(notes.starts_with("error: outcome unknown: server 1 reports that the session has expired"), "{notes}");
    assert!(notes.ends_with("may still be applied, at most once. Next: paxos-client get color\n"), "{notes}");
}

#[test]
fn refused_order_exits_1() {
    let refuses = answers(Reply::Refused("the server was not started with --lab".to_string()));
    let (code, _, notes) = paxos_client(&refuses, &["crash", "1.acceptor", "--for", "2s"]);
    assert_eq!(
        (code, notes.as_str()),
        (1, "error: server 1 refused the request: the server was not started with --lab\n")
    );
    assert_eq!(paxos_client(&FakeCluster::start(vec![good()]), &["restart", "1"]).0, 0);
}

#[test]
fn invalid_arguments_exit_2_and_send_nothing() {
    let cluster = FakeCluster::start(vec![good()]);
    let long = "k".repeat(5_000);
    for words in [
        &["frobnicate"][..],
        &["put"],
        &["get", "a", "b"],
        &["put", "k", "v", "--if-version", "x"],
        &["get", "k", "--timeout", "5"],
        &["get", &long],
        &["get", "k", "--server", "9"],
        &["get", "k", "--name", "s1"],
        &["crash", "acceptor"],
        &["crash", "64"],
        &["crash", "1.teapot"],
        &["--clients", "2"],
        &["demo", "--clients", "0"],
        &["demo", "--clients", "2", "--name", "c7"],
        &["get", "k", "--server", "one"],
        &["put", "k"],
    ] {
        let (code, data, notes) = paxos_client(&cluster, words);
        assert_eq!((code, data.as_str()), (2, ""), "{words:?}: {notes}");
        assert!(notes.starts_with("error: "), "{words:?}: {notes}");
    }
    assert!(cluster.requests().is_empty());
}

#[test]
fn missing_cluster_file_exits_1() {
    let printer = Arc::new(Printer::new(Text::default(), Text::default()));
    let words = ["paxos-client", "--cluster", "/nowhere/cluster.toml", "status"].map(OsString::from);
    assert_eq!(run(words.to_vec(), &printer), 1);
}

#[test]
fn keys_and_values_may_be_any_bytes() {
    let cluster = FakeCluster::start(vec![good()]);
    let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let (code, _, notes) = with_bytes(&cluster, vec!["put".into(), bytes(b"\xff k\n"), bytes(b"\xfe")]);
    assert_eq!(code, 0, "{notes}");
    let asked = &cluster.requests()[1].1;
    assert!(
        matches!(asked, Request::Write { op: Op::Put { key, value, .. }, .. } if key == b"\xff k\n" && value[..] == *b"\xfe")
    );
}

#[test]
fn help_names_every_exit_code() {
    let cluster = FakeCluster::start(vec![Fake::Absent]);
    let (code, help, notes) = paxos_client(&cluster, &["--help"]);
    assert_eq!((code, notes.as_str()), (0, ""));
    for text in [
        "Examples:",
        "0  done",
        "1  failure",
        "2  usage",
        "3  key not found",
        "4  certainly",
        "5  outcome unknown",
        "130, 143  interr",
    ] {
        assert!(help.contains(text), "{text}");
    }
    assert_eq!(paxos_client(&cluster, &["--version"]).0, 0);
}

#[test]
fn script_is_checked_whole_before_its_first_operation() {
    let cluster = FakeCluster::start(vec![good()]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(path, "put a 1\nget a\nput a\n").unwrap();
    let (code, _, notes) = paxos_client(&cluster, &["run", path]);
    assert_eq!((code, notes), (2, format!("error: {path}:3: the value is missing\nNothing was done.\n")));
    std::fs::write(path, "put a 1\n@2 get a\n").unwrap();
    let (code, _, notes) = paxos_client(&cluster, &["run", path]);
    assert_eq!(code, 2);
    assert!(notes.contains(&format!("{path}:2: the cluster file has no server 2")), "{notes}");
    assert!(cluster.requests().is_empty());

    std::fs::write(path, "put a 1\n@1 get a # there\ndelete \"a b\"\n").unwrap();
    let (code, data, notes) = paxos_client(&cluster, &["run", path]);
    assert_eq!((code, data.lines().count()), (0, 3), "{notes}");
    assert!(data.starts_with("c1-2 put a 1  OK version=2 slot=2 ("), "{data}");
    assert_eq!(paxos_client(&cluster, &["run", "/nowhere"]).0, 1);
}

#[test]
fn script_exits_with_its_worst_outcome() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let outcome = |text: &str| {
        std::fs::write(path, text).unwrap();
        let cluster = FakeCluster::start(vec![opens_and(|_, request| {
            let key = match request {
                Request::Write { op, .. } => op.key().to_vec(),
                Request::Get { key } => key.clone(),
                _ => Vec::new(),
            };
            FakeAction::Reply(match (key.as_slice(), request) {
                (b"unknown", _) => Reply::Unknown(WhyUnknown::Superseded),
                (b"no", _) => Reply::Refused("no".to_string()),
                (b"missing", Request::Get { .. }) => Reply::Value { slot: Slot(1), value: None, version: 0 },
                (_, Request::Get { .. }) => Reply::Value { slot: Slot(1), value: Some(Vec::new().into()), version: 1 },
                (b"old", _) => Reply::Applied {
                    slot: Slot(1),
                    written: WriteResult::Mismatch { version: 9 },
                    accepted_by: ServerSet::NONE,
                },
                (_, _) => Reply::Applied {
                    slot: Slot(1),
                    written: WriteResult::Done { version: 1 },
                    accepted_by: ServerSet::NONE,
                },
            })
        })]);
        paxos_client(&cluster, &["run", path]).0
    };
    assert_eq!(outcome(""), 0);
    assert_eq!(outcome("put a 1\nget missing\n"), 0, "that a key is not there is a result");
    assert_eq!(outcome("put a 1\nput old 1 --if-version 2\nput a 2\n"), 4);
    assert_eq!(outcome("put no 1\nget a\n"), 4);
    assert_eq!(outcome("put unknown 1\nput no 1\n"), 5);
}

#[test]
fn status_fails_when_no_write_is_possible() {
    let (code, data, notes) = paxos_client(&FakeCluster::start(vec![Fake::Absent, Fake::Absent]), &["status"]);
    assert_eq!(code, 1);
    assert!(
        data.starts_with("no writes: no quorum, 0 of 2 acceptors can vote and 2 are needed; no reply from s1,s2\n"),
        "{data}"
    );
    assert!(notes.contains("no writes"), "{notes}");
    let (code, ..) = paxos_client(&FakeCluster::start(vec![Fake::Absent]), &["status", "--wait", "100ms"]);
    assert_eq!(code, 1);
}

#[test]
fn command_line_without_a_command_prints_the_help_and_sends_nothing() {
    let cluster = FakeCluster::start(vec![good()]);
    let (code, data, notes) = paxos_client(&cluster, &[]);
    assert_eq!((code, data.as_str()), (2, ""), "{notes}");
    assert!(notes.contains("Usage: paxos-client") && notes.contains("5  outcome unknown"), "{notes}");
    let (code, _, notes) = paxos_client(&cluster, &["--pace", "1ms"]);
    assert_eq!(code, 2);
    assert!(
        notes.contains("--pace is an option of the demo"),
        "the message names the subcommand of the option: {notes}"
    );
    assert!(cluster.requests().is_empty());
}

#[test]
fn demo_without_servers_fails_with_a_message() {
    for fake in [Fake::Absent, serves(|_, _| FakeAction::Close)] {
        let (code, text, notes) = paxos_client(&FakeCluster::start(vec![fake]), &["demo", "--pace", "1ms"]);
        assert_eq!((code, text.lines().last()), (1, Some("FAILED: 1 problem. See the errors above.")));
        assert!(notes.contains("no server of the cluster replies"), "{notes}");
    }
}

#[test]
fn missing_servers_are_reported_once_for_all_tries() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(path, "put a 1\n").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("b");
    for words in [&["get", "k"][..], &["put", "k", "v"], &["run", path], &["backup", backup.to_str().unwrap()]] {
        let cluster = FakeCluster::start(vec![Fake::Absent, Fake::Absent, Fake::Absent]);
        let (code, _, notes) = paxos_client(&cluster, words);
        let expected = format!("no server of {} is running; trying for up to 1.0 s", cluster.file.path().display());
        let lines: Vec<&str> = notes.lines().collect();
        assert_eq!((code, lines[0]), (4, expected.as_str()), "{words:?}");
        let retry_notes = lines[1..].iter().filter(|line| line.contains("trying")).count();
        assert_eq!(retry_notes, 0, "{words:?}: {notes}");
        assert!(lines.len() <= 3 && lines[lines.len() - 1].starts_with("error: "), "{words:?}: {notes}");
    }
}

#[test]
fn each_failure_of_a_server_is_reported_once_per_request() {
    let cluster = FakeCluster::start(vec![Fake::Absent, good()]);
    let (code, data, notes) = paxos_client(&cluster, &["get", "k"]);
    assert_eq!(
        (code, data.as_str(), notes.as_str()),
        (0, "value\n", "server 1 refused the connection; trying server 2\n")
    );
    // The client asks the servers in turn until one of them is no longer too busy.
    let busy = |n: usize, request: &Request| match n {
        0..2 => FakeAction::Reply(Reply::NotApplied(WhyNotApplied::Busy)),
        _ => FakeAction::Reply(super::fake::good_reply(n as u64, request)),
    };
    let cluster = FakeCluster::start(vec![Fake::Absent, serves(busy), serves(busy)]);
    let (code, _, notes) = paxos_client(&cluster, &["get", "k"]);
    let expected = "server 1 refused the connection; trying server 2\n\
                    server 2 is too busy; trying server 3\n\
                    server 3 is too busy; trying server 1\n";
    assert_eq!((code, notes.as_str()), (0, expected));
}

#[test]
fn missing_value_is_not_read_from_standard_input() {
    let cluster = FakeCluster::start(vec![good()]);
    let (code, data, notes) = paxos_client(&cluster, &["put", "k"]);
    assert_eq!((code, data.as_str()), (2, ""));
    assert!(notes.starts_with("error: the value is missing; nothing was written."), "{notes}");
    assert!(cluster.requests().is_empty());
    assert_eq!(paxos_client(&cluster, &["put", "k", ""]).0, 0, "an empty value can be meant");
    assert_eq!(paxos_client(&cluster, &["put", "", "v"]).0, 0, "no bytes are a key too");
}

#[test]
fn raw_value_is_printed_unchanged() {
    let value = Reply::Value { slot: Slot(9), value: Some(b"a\n".to_vec().into()), version: 3 };
    let cluster = answers(value);
    assert_eq!(paxos_client(&cluster, &["get", "k"]).1, "a\n\n");
    assert_eq!(paxos_client(&cluster, &["get", "k", "--raw"]), (0, "a\n".to_string(), String::new()));
    let (code, text, _) = paxos_client(&cluster, &["get", "k", "--raw", "-o", "json"]);
    assert_eq!((code, &json(&text)["exit_code"]), (2, &2.into()), "an object is not the bytes");
}

#[test]
fn order_reports_what_it_did() {
    let cluster = FakeCluster::start(vec![good()]);
    for (words, says) in [
        (&["crash", "1.acceptor", "--for", "1500ms"][..], "the acceptor of server 1 is down for 1.5 s"),
        (&["crash", "1"], "all roles of server 1 are down until `paxos-client restart`"),
        (&["restart", "1.learner"], "the learner of server 1 restarts"),
        (&["restart", "s1"], "all roles of server 1 restart"),
    ] {
        assert_eq!(paxos_client(&cluster, words), (0, format!("{says}\n"), String::new()));
    }
    let (code, text, _) = paxos_client(&cluster, &["restart", "1", "-o", "json"]);
    assert_eq!((code, &json(&text)["status"]), (0, &"OK".into()));
}

#[test]
fn messages_contain_no_internal_names() {
    let cluster = FakeCluster::start(vec![good()]);
    let (_, _, notes) = paxos_client(&cluster, &["get", "k", "--server", "one"]);
    assert!(notes.contains("not a server number (1 to 63)"), "{notes}");
    let error = crate::client::Client::new(FakeCluster::start(vec![Fake::Absent]).options()).unwrap().get(b"k");
    let error = error.unwrap_err();
    assert_eq!(format!("{error:?}"), error.to_string(), "what a `main` that returns it prints");
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn json_output_is_one_object_per_result_and_per_error() {
    let value = Reply::Value { slot: Slot(9), value: Some(b"deep blue".to_vec().into()), version: 3 };
    let (code, text, notes) = paxos_client(&answers(value), &["get", "color", "-o", "json"]);
    let found = json(&text);
    assert_eq!((code, notes.as_str()), (0, ""));
    assert_eq!((&found["status"], &found["value"], &found["slot"]), (&"OK".into(), &"deep blue".into(), &9.into()));
    let none = Reply::Value { slot: Slot(9), value: None, version: 2 };
    let (code, text, notes) = paxos_client(&answers(none), &["-o", "json", "get", "color"]);
    assert_eq!((code, &json(&text)["status"], notes.as_str()), (3, &"NOTFOUND".into(), ""));
    let mismatch = applied(WriteResult::Mismatch { version: 4 });
    let (code, text, _) = paxos_client(&mismatch, &["put", "k", "v", "--if-version", "1", "-o", "json"]);
    assert_eq!((code, &json(&text)["status"], &json(&text)["version"]), (4, &"MISMATCH".into(), &4.into()));
    let unknown = answers(Reply::Unknown(WhyUnknown::Superseded));
    let (code, text, _) = paxos_client(&unknown, &["put", "k", "v", "-o", "json"]);
    assert_eq!((code, &json(&text)["status"]), (5, &"UNKNOWN".into()));
    let (code, text, _) = paxos_client(&answers(Reply::Done), &["run", "/nowhere", "-o", "json"]);
    let error = json(&text);
    assert!(code == 1 && error["exit_code"] == 1 && error["error"].as_str().unwrap().contains("/nowhere"), "{error}");
}

#[test]
fn watched_status_prints_one_object_per_query() {
    let cluster = answers(Reply::Done);
    let (code, text, _) =
        paxos_client(&cluster, &["status", "--watch", "--interval", "1ms", "--count", "2", "-o", "json"]);
    let looks: Vec<serde_json::Value> = text.lines().map(json).collect();
    assert_eq!((code, looks.len()), (0, 2), "{text}");
    assert!(looks.iter().all(|look| look["writes"] == false && look["servers"].is_array()), "{text}");
    assert_eq!(paxos_client(&cluster, &["status", "--count", "2"]).0, 2, "without --watch it means nothing");
}

#[test]
fn completion_scripts_contain_commands_and_options() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = paxos_client(&answers(Reply::Done), &["completions", shell]);
        assert!(code == 0 && script.contains("if-version") && script.contains("delete"), "{shell}");
    }
}

#[test]
fn every_example_of_the_help_can_be_typed() {
    use crate::client::arguments::ClientCli;
    use clap::{CommandFactory, Parser};
    let help = ClientCli::command().render_long_help().to_string();
    let examples = help.lines().filter_map(|line| Some(&line[line.find("paxos-client ")?..]));
    let mut seen = 0;
    for example in examples.filter(|example| !example.contains('<') && !example.starts_with("paxos-client [")) {
        // Two spaces separate an example from its explanation.
        let typed = example.split("  ").next().unwrap_or(example);
        let words =
            std::process::Command::new("bash").args(["-c", &format!("printf '%s\\0' {typed}")]).output().unwrap();
        let words = String::from_utf8(words.stdout).unwrap();
        let words: Vec<OsString> = words.split_terminator('\0').map(OsString::from).collect();
        ClientCli::try_parse_from(words).unwrap_or_else(|error| panic!("{typed}: {error}"));
        seen += 1;
    }
    assert!(seen >= 10, "{seen} examples");
}
