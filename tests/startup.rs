//! A server that cannot run says why in one sentence, and leaves with an exit code that is not 0.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Cluster, await_value};

/// Runs a server that must fail; gives its sentence.
fn refusal(command: &mut Command) -> String {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("error: ") && text.lines().count() == 1, "one sentence: {text:?}");
    text
}

#[test]
fn server_that_cannot_start_reports_why() {
    let mut cluster = Cluster::start(3, &["--seed", "1"]);

    let text = refusal(cluster.command(1).args(["--id", "7"]));
    assert!(text.contains("has no server 7") && text.contains("s1,s2,s3"), "{text}");

    let text = refusal(cluster.command(1).args(["--cluster", "/nowhere.toml"]));
    assert!(text.contains("/nowhere.toml") && text.contains("--cluster"), "{text}");

    // Started twice: the port is taken, and the running server's data is not touched.
    let text = refusal(&mut cluster.command(1));
    let peer = cluster.cluster.member(paxos_kv::role::ServerId(1)).unwrap().peer;
    assert!(text.contains(&peer.to_string()) && text.contains("in use"), "{text}");

    // The same data folder under another server's ports.
    cluster.kill(&[2]);
    let data = cluster.data_dir(1);
    let text = refusal(cluster.command(2).arg("--data").arg(&data));
    assert!(text.contains("in use") || text.contains("another server"), "{text}");
    cluster.kill(&[1]);
    let text = refusal(cluster.command(2).arg("--data").arg(&data));
    assert!(text.contains("server s1"), "{text}");

    // A folder of another cluster.
    let other = cluster.dir.path().join("other.toml");
    let renamed = std::fs::read_to_string(cluster.file()).unwrap().replace("\"test\"", "\"other\"");
    std::fs::write(&other, renamed).unwrap();
    let text = refusal(cluster.command(1).arg("--cluster").arg(&other));
    assert!(text.contains("test") && text.contains("other"), "{text}");

    // A data folder where a file is.
    let file = cluster.dir.path().join("a file");
    std::fs::write(&file, "x").unwrap();
    let text = refusal(cluster.command(1).arg("--data").arg(&file));
    assert!(text.contains("a file"), "{text}");

    // An address of the world, without --insecure.
    let world = cluster.dir.path().join("world.toml");
    std::fs::write(&world, "cluster = \"w\"\n[[server]]\nid = 1\npeer = \"0.0.0.0:1\"\nclient = \"127.0.0.1:2\"\n")
        .unwrap();
    let text = refusal(cluster.command(1).arg("--cluster").arg(&world));
    assert!(text.contains("0.0.0.0:1") && text.contains("--insecure"), "{text}");

    let text = refusal(cluster.command(1).args(["--fail", "all", "--mean-up", "1ms"]));
    assert!(text.contains("--mean-up"), "{text}");

    // Usage is another exit code.
    let usage = cluster.command(1).args(["--fail", "some"]).stderr(Stdio::null()).status().unwrap();
    assert_eq!(usage.code(), Some(2));
}

/// The names and contents of all files below a folder.
fn image(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(image(&path));
            all.push((path, Vec::new()));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            all.push((path, bytes));
        }
    }
    all.sort();
    all
}

/// `paxos-server check` with these arguments: its exit code, and the one line that it has said.
fn check(cluster: &Cluster, id: u8, arguments: &[&str]) -> (i32, String) {
    let start = cluster.command(id);
    let mut check = Command::new(start.get_program());
    let output = check.arg("check").args(start.get_args()).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), text)
}

#[test]
fn check_reports_what_a_start_would_report_and_starts_nothing() {
    let mut cluster = Cluster::prepare(3, &["--seed", "1"]);
    let says = |cluster: &Cluster, id: u8, arguments: &[&str], wanted: &[&str]| {
        let before = image(cluster.dir.path());
        let (code, text) = check(cluster, id, arguments);
        assert_eq!((code, text.lines().count()), (1, 1), "{arguments:?}: {text}");
        assert!(text.starts_with("error: ") && wanted.iter().all(|word| text.contains(word)), "{arguments:?}: {text}");
        assert!(image(cluster.dir.path()) == before, "{arguments:?} has changed a file");
    };
    let can_start = |cluster: &Cluster, id: u8, arguments: &[&str]| {
        let before = image(cluster.dir.path());
        let (code, text) = check(cluster, id, arguments);
        assert!(code == 0 && text.lines().count() == 1 && text.contains("can start"), "{text}");
        assert!(image(cluster.dir.path()) == before, "{arguments:?} has changed a file");
    };
    can_start(&cluster, 1, &[]);
    can_start(&cluster, 1, &["--log-dir", &cluster.dir.path().join("new/folder").to_string_lossy()]);
    says(&cluster, 1, &["--cluster", "/nowhere.toml"], &["/nowhere.toml"]);
    says(&cluster, 1, &["--id", "7"], &["has no server 7"]);
    says(&cluster, 1, &["--fail", "all", "--mean-up", "1ms"], &["--mean-up"]);
    says(&cluster, 1, &["--http", "0.0.0.0:1"], &["0.0.0.0:1", "--insecure"]);
    let file = cluster.file();
    let file = file.to_string_lossy();
    says(&cluster, 1, &["--data", &file], &["cluster.toml"]);
    says(&cluster, 1, &["--log-dir", &file], &["cluster.toml", "not a directory"]);
    for usage in [&["--fail", "some"][..], &["stopp"], &["--log-max-mib", "0"], &["--log-keep", "3"]] {
        assert_eq!(check(&cluster, 1, usage).0, 2, "{usage:?}");
    }

    for id in 1..=3 {
        cluster.start_server(id);
    }
    cluster.await_all();
    let peer = cluster.cluster.member(paxos_kv::role::ServerId(1)).unwrap().peer.to_string();
    let (code, text) = check(&cluster, 1, &[]);
    assert!(code == 1 && text.contains(&peer) && text.contains("in use"), "{text}");
    // Those that live write.
    cluster.kill(&[1, 2, 3]);
    let second = cluster.data_dir(2);
    let second = second.to_string_lossy();
    can_start(&cluster, 1, &[]);
    says(&cluster, 1, &["--data", &second], &["server s2"]);
    says(&cluster, 1, &["--protocol", "two-phase-commit"], &["Paxos"]);
    for id in 1..=3 {
        cluster.start_server(id);
    }
    cluster.await_all();
}

#[test]
fn unwritable_data_directory_is_refused() {
    let cluster = Cluster::prepare(1, &[]);
    let dir = cluster.dir.path().join("locked");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o500)).unwrap();
    if std::fs::write(dir.join("probe"), "").is_ok() {
        eprintln!("skipped: this user may write everywhere; a directory in /proc takes its place");
        let text = refusal(cluster.command(1).arg("--data").arg("/proc/paxos-kv"));
        assert!(text.contains("/proc/paxos-kv"), "{text}");
        return;
    }
    let text = refusal(cluster.command(1).arg("--data").arg(dir.join("data")));
    assert!(text.contains("locked"), "{text}");
}

#[test]
fn server_stops_cleanly_on_a_signal() {
    for signal in ["TERM", "INT"] {
        let mut cluster = Cluster::start(3, &["--seed", "2"]);
        cluster.client("c1", 1).put(b"k", b"v").unwrap();
        send(&cluster, 1, signal);
        assert_eq!(cluster.await_exit(1).code(), Some(0));
        let lines = cluster.log_text(1);
        let last = lines.lines().last().unwrap();
        assert!(last.contains(" STOP ") && last.contains(&format!("SIG{signal}")), "{last}");
        // The others go on, and it comes back with what it had.
        cluster.client("c2", 2).put(b"k", b"w").unwrap();
        cluster.start_server(1);
        cluster.await_all();
        cluster.await_agreement();
        await_value("the second incarnation is logged", || cluster.log_text(1).contains("incarnation=2").then_some(()));
    }
}

/// Sends a signal to a server.
fn send(cluster: &Cluster, id: u8, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &cluster.pid(id).to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn after_sighup_log_lines_continue_under_the_same_name() {
    let mut cluster = Cluster::start(3, &["--seed", "4"]);
    let log = cluster.dir.path().join("server-1.log");
    cluster.client("c1", 1).put(b"k", b"before").unwrap();
    std::fs::rename(&log, log.with_extension("log.1")).unwrap();
    send(&cluster, 1, "HUP");
    await_value("the new file is begun", || cluster.log_text(1).contains(" REOPEN ").then_some(()));
    cluster.client("c2", 1).put(b"k", b"after").unwrap();
    await_value("its lines go there", || cluster.log_text(1).contains("value=after").then_some(()));
    // The numbers go on.
    let number = |text: &str, line: Option<&str>| -> u64 {
        let line = line.unwrap_or_else(|| panic!("{text}"));
        line.split_whitespace().nth(2).unwrap().trim_start_matches("s1.").parse().unwrap()
    };
    let (old, new) = (std::fs::read_to_string(log.with_extension("log.1")).unwrap(), cluster.log_text(1));
    assert_eq!(number(&new, new.lines().next()), number(&old, old.lines().last()) + 1);
    let mode = std::fs::metadata(&log).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Where no file can be, the server says so and goes on.
    std::fs::rename(&log, log.with_extension("log.2")).unwrap();
    std::fs::create_dir(&log).unwrap();
    send(&cluster, 1, "HUP");
    await_value("it is told", || {
        let text = std::fs::read_to_string(log.with_extension("log.2")).unwrap();
        text.contains("FAULT    part=log").then_some(())
    });
    cluster.client("c3", 1).put(b"k", b"still").unwrap();
    send(&cluster, 1, "TERM");
    assert_eq!(cluster.await_exit(1).code(), Some(0));
}

#[test]
fn full_log_file_is_replaced_by_a_new_one() {
    let mut cluster = Cluster::prepare(1, &["--log-max-mib", "1"]);
    let log = cluster.dir.path().join("server-1.log");
    std::fs::write(&log, "an earlier line\n".repeat(1 << 16)).unwrap();
    cluster.start_server(1);
    cluster.await_all();
    let first = cluster.log_text(1);
    assert!(first.lines().next().unwrap().contains(" BOOT ") && log.with_extension("log.1").exists(), "{first}");
}

#[test]
fn log_file_that_cannot_grow_costs_lines_but_not_the_server() {
    let mut cluster = Cluster::prepare(1, &["--segment-kib", "1024"]);
    let log = cluster.dir.path().join("server-1.log");
    // Longer than any other file of the server.
    std::fs::write(&log, "x\n".repeat(8 << 20)).unwrap();
    cluster.start_server(1);
    cluster.await_all();
    let limit = |bytes: &str| {
        let pid = cluster.pid(1).to_string();
        let set = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status().unwrap();
        assert!(set.success());
    };
    limit(&std::fs::metadata(&log).unwrap().len().to_string());
    cluster.client("c1", 1).put(b"k", b"v").unwrap();
    limit("unlimited");
    // The first line that there is room for says how many are missing.
    cluster.client("c2", 1).put(b"k", b"w").unwrap();
    let lines = cluster.log_text(1);
    let (_, lines) = lines.split_once(" BOOT ").unwrap();
    assert!(lines.contains(" LOST     n=") && lines.contains("value=w") && !lines.contains("value=v"), "{lines}");
}

#[test]
fn start_waits_for_an_address_that_becomes_free() {
    let mut cluster = Cluster::prepare(1, &[]);
    let member = cluster.cluster.member(paxos_kv::role::ServerId(1)).unwrap();
    let holder = TcpListener::bind(member.client).unwrap();
    cluster.start_server(1);
    await_value("the server has come as far as its first address", || TcpStream::connect(member.peer).ok());
    drop(holder);
    cluster.await_all();
}

#[test]
fn corrupt_journal_is_refused_by_name() {
    let mut cluster = Cluster::start(3, &["--seed", "3"]);
    let mut client = cluster.client("c1", 1);
    for n in 0..20 {
        client.put(b"k", format!("value {n}").as_bytes()).unwrap();
    }
    let directory = cluster.data_dir(1).join("journal");
    let journal = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    // The value is chosen by a majority, and server 1 may accept it later.
    let has_last = |bytes: &Vec<u8>| bytes.windows(8).any(|window| window == b"value 19");
    let mut bytes =
        await_value("server 1 has accepted the last value", || std::fs::read(&journal).ok().filter(has_last));
    cluster.kill(&[1]);
    // In the last group: no later record tells what was in it, so the promises in it are unknown.
    let place = bytes.windows(8).rposition(|window| window == b"value 19").unwrap();
    bytes[place] ^= 1;
    std::fs::write(&journal, bytes).unwrap();
    let text = refusal(&mut cluster.command(1));
    assert!(text.contains(&journal.file_name().unwrap().to_string_lossy().into_owned()), "{text}");
    assert!(text.contains("slot"), "{text}");
    // The majority does not need it.
    cluster.client("c2", 2).put(b"k", b"w").unwrap();
}
