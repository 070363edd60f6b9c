//! A server that cannot run says why in one sentence, and leaves with an exit code that is not 0.

#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use support::{Cluster, await_some};

/// Runs a server that must fail; gives its sentence.
fn refusal(command: &mut Command) -> String {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("error: ") && text.lines().count() == 1, "one sentence: {text:?}");
    text
}

#[test]
fn what_cannot_run_says_why() {
    let mut cluster = Cluster::start(3, &["--seed", "1"]);

    let text = refusal(cluster.command(1).args(["--id", "7"]));
    assert!(text.contains("has no server 7") && text.contains("s1,s2,s3"), "{text}");

    let text = refusal(cluster.command(1).args(["--cluster", "/nowhere.toml"]));
    assert!(text.contains("/nowhere.toml") && text.contains("--cluster"), "{text}");

    // Started twice: the port is taken, and the running server's data is not touched.
    let text = refusal(&mut cluster.command(1));
    let peer = cluster.cluster.member(paxos_kv::role::Server(1)).unwrap().peer;
    assert!(text.contains(&peer.to_string()) && text.contains("taken"), "{text}");

    // The same data folder under another server's ports.
    cluster.kill(&[2]);
    let data = cluster.data(1);
    let text = refusal(cluster.command(2).arg("--data").arg(&data));
    assert!(text.contains("in use") || text.contains("another server"), "{text}");
    cluster.kill(&[1]);
    let text = refusal(cluster.command(2).arg("--data").arg(&data));
    assert!(text.contains("server s1"), "{text}");

    // A folder of another cluster.
    let other = cluster.folder.path().join("other.toml");
    let renamed = std::fs::read_to_string(cluster.file()).unwrap().replace("\"test\"", "\"other\"");
    std::fs::write(&other, renamed).unwrap();
    let text = refusal(cluster.command(1).arg("--cluster").arg(&other));
    assert!(text.contains("test") && text.contains("other"), "{text}");

    // A data folder where a file is.
    let file = cluster.folder.path().join("a file");
    std::fs::write(&file, "x").unwrap();
    let text = refusal(cluster.command(1).arg("--data").arg(&file));
    assert!(text.contains("a file"), "{text}");

    // An address of the world, without --insecure.
    let world = cluster.folder.path().join("world.toml");
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

#[test]
fn an_unwritable_data_folder_is_refused() {
    let cluster = Cluster::prepare(1, &[]);
    let folder = cluster.folder.path().join("locked");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o500)).unwrap();
    if std::fs::write(folder.join("probe"), "").is_ok() {
        eprintln!("skipped: this user may write everywhere; a folder in /proc takes its place");
        let text = refusal(cluster.command(1).arg("--data").arg("/proc/paxos-kv"));
        assert!(text.contains("/proc/paxos-kv"), "{text}");
        return;
    }
    let text = refusal(cluster.command(1).arg("--data").arg(folder.join("data")));
    assert!(text.contains("locked"), "{text}");
}

#[test]
fn a_server_stops_cleanly_when_it_is_told_to() {
    for signal in ["TERM", "INT"] {
        let mut cluster = Cluster::start(3, &["--seed", "2"]);
        cluster.client("c1", 1).put(b"k", b"v").unwrap();
        let kill = Command::new("kill").args([&format!("-{signal}"), &cluster.pid(1).to_string()]).status().unwrap();
        assert!(kill.success());
        assert_eq!(cluster.await_end(1).code(), Some(0));
        let lines = cluster.lines_of(1);
        let last = lines.lines().last().unwrap();
        assert!(last.contains(" STOP ") && last.contains(&format!("SIG{signal}")), "{last}");
        // The others go on, and it comes back with what it had.
        cluster.client("c2", 2).put(b"k", b"w").unwrap();
        cluster.run(1);
        cluster.await_all();
        cluster.await_agreement();
        await_some("the second life is told", || cluster.lines_of(1).contains("life=2").then_some(()));
    }
}

#[test]
fn a_damaged_journal_is_refused_by_name() {
    let mut cluster = Cluster::start(3, &["--seed", "3"]);
    let mut client = cluster.client("c1", 1);
    for n in 0..20 {
        client.put(b"k", format!("value {n}").as_bytes()).unwrap();
    }
    cluster.kill(&[1]);
    let folder = cluster.data(1).join("journal");
    let journal = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    let mut bytes = std::fs::read(&journal).unwrap();
    // In the last group: nothing behind it says what was in it, and nobody can know what was promised.
    let place = bytes.windows(8).rposition(|window| window == b"value 19").unwrap();
    bytes[place] ^= 1;
    std::fs::write(&journal, bytes).unwrap();
    let text = refusal(&mut cluster.command(1));
    assert!(text.contains(&journal.file_name().unwrap().to_string_lossy().into_owned()), "{text}");
    assert!(text.contains("slot"), "{text}");
    // The majority does not need it.
    cluster.client("c2", 2).put(b"k", b"w").unwrap();
}
