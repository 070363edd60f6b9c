//! `paxos-client status` asked of real clusters, whole and broken, and compared with a write that is given at once.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::thread;
use std::time::Duration;

use support::{Cluster, await_value, free_address};

const PROTOCOLS: [&str; 3] = ["basic-paxos", "multi-paxos", "two-phase-commit"];
const PAXOS: [&str; 2] = ["basic-paxos", "multi-paxos"];
/// A peer from which nothing has arrived for this long is not heard.
const HEARD_FOR: Duration = Duration::from_secs(2);

/// What `status` says: its exit code and all of its text.
fn status(cluster: &Cluster, arguments: &[&str]) -> (i32, String) {
    let output = cluster.client_tool(&[&["status"], arguments].concat());
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// Waits until all servers answer and `status` is content.
fn await_writes(cluster: &Cluster) {
    let (code, text) = status(cluster, &["--wait", "30s"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("writes OK"), "{text}");
}

/// Whether a write that is given now succeeds.
fn can_write(cluster: &Cluster) -> bool {
    let mut client = cluster.client("writer", 1);
    client.set_timeout(Duration::from_secs(4));
    client.put(b"k", b"v").is_ok()
}

/// Waits until `status` says this, and checks that it is content only if a write succeeds.
fn await_status_text(cluster: &Cluster, words: &[&str]) -> String {
    let (code, text) = await_value(&format!("{words:?}"), || {
        let (code, text) = status(cluster, &[]);
        let is_it = words.iter().all(|word| text.lines().take(2).any(|line| line.contains(word)));
        if !is_it {
            eprintln!("not yet: {}", text.lines().take(2).collect::<Vec<_>>().join(" / "));
        }
        is_it.then_some((code, text))
    });
    let is_ok = text.starts_with("writes OK");
    assert_eq!(code, i32::from(!is_ok), "{text}");
    assert_eq!(can_write(cluster), is_ok, "{text}");
    text
}

/// The cluster file of a server in which these others have addresses where no process listens.
fn cut_off_from(cluster: &Cluster, server: u8, others: &[u8]) -> String {
    let mut text = fs::read_to_string(cluster.file()).unwrap();
    for other in others {
        let member = cluster.cluster.members().find(|(one, _)| one.0 == *other).unwrap().1;
        text = text.replace(&member.peer.to_string(), &free_address().to_string());
    }
    let file = cluster.dir.path().join(format!("cluster-of-{server}.toml"));
    fs::write(&file, text).unwrap();
    file.to_string_lossy().into_owned()
}

/// Starts three servers as a whole, and stops them again.
fn started_cluster(arguments: &[&str]) -> Cluster {
    let mut cluster = Cluster::start(3, arguments);
    await_writes(&cluster);
    cluster.kill(&[1, 2, 3]);
    cluster
}

#[test]
fn whole_cluster_takes_writes_under_each_protocol_even_without_requests() {
    let clusters = PROTOCOLS.map(|protocol| Cluster::start(3, &["--protocol", protocol, "--lab", "--fail", "none"]));
    clusters.iter().for_each(await_writes);
    // A learner that is down says nothing; its server is there all the same.
    for cluster in &clusters[..2] {
        assert!(cluster.client_tool(&["crash", "3.learner"]).status.success());
    }
    // Silence must last before it means anything.
    thread::sleep(HEARD_FOR + HEARD_FOR / 4);
    for cluster in &clusters[..2] {
        let text =
            await_status_text(cluster, &["writes OK; 1 more server may fail", "problems: server 3: learner down"]);
        assert!(!text.contains("not linked"), "{text}");
    }
    await_status_text(&clusters[2], &["writes OK; two-phase commit tolerates no failure"]);
}

#[test]
fn two_servers_with_a_one_way_link_take_no_writes() {
    for protocol in PAXOS {
        let mut cluster = started_cluster(&["--protocol", protocol]);
        let file = cut_off_from(&cluster, 1, &[2]);
        cluster.start_server_with(1, &["--cluster", &file]);
        cluster.start_server(2);
        let why = "server 1 and server 2 are not linked: server 1 does not reach server 2";
        await_status_text(&cluster, &["no writes: no server is linked with the 2 acceptors", why]);
        // The third one is linked with both.
        cluster.start_server(3);
        await_status_text(&cluster, &["writes OK; if one more server fails, writes may stop", why]);
    }
}

#[test]
fn servers_with_closed_peer_ports_take_no_writes_although_all_reply() {
    for protocol in PROTOCOLS {
        let mut cluster = started_cluster(&["--protocol", protocol]);
        for id in 1..=3 {
            let others: Vec<u8> = (1..=3).filter(|other| *other != id).collect();
            let file = cut_off_from(&cluster, id, &others);
            cluster.start_server_with(id, &["--cluster", &file]);
        }
        let why = "no two servers are linked: server 1 does not reach server 2";
        await_status_text(&cluster, &["no writes: no server is linked with the ", why]);
        let (code, _) = status(&cluster, &["--wait", "200ms"]);
        assert_eq!(code, 1, "all servers reply, but writes are not possible");
    }
}

#[test]
fn server_that_all_others_refuse_is_named_and_does_not_count() {
    for protocol in PAXOS {
        let mut cluster = Cluster::start(3, &["--protocol", protocol]);
        await_writes(&cluster);
        cluster.kill(&[3]);
        fs::remove_dir_all(cluster.data_dir(3)).unwrap();
        cluster.start_server(3);
        await_status_text(
            &cluster,
            &[
                "writes OK; if one more server fails, writes may stop",
                "server 3 is linked with no other server: server ",
            ],
        );
        cluster.kill(&[2]);
        await_status_text(
            &cluster,
            &[
                "no writes: no quorum, 1 of 3 acceptors can vote and 2 are needed",
                "server 3: not admitted yet, its data directory is new",
            ],
        );
    }
}

#[test]
fn linked_servers_without_a_proposer_are_reported() {
    for (protocol, word, role) in [
        ("multi-paxos", "no leader at the moment", "proposer"),
        ("basic-paxos", "no proposer at the moment", "proposer"),
        ("two-phase-commit", "no coordinator at the moment", "coordinator"),
    ] {
        let cluster = Cluster::start(3, &["--protocol", protocol, "--lab", "--fail", "none"]);
        await_writes(&cluster);
        let all = |verb: &str| {
            for id in 1..=3 {
                assert!(cluster.client_tool(&[verb, &format!("{id}.{role}")]).status.success());
            }
        };
        all("crash");
        await_status_text(&cluster, &[word, &format!("server 1: {role} down")]);
        assert_eq!(status(&cluster, &["--wait", "200ms"]).0, 1, "all servers reply, but writes are not possible");
        all("restart");
        await_writes(&cluster);
        assert!(can_write(&cluster));
    }
}

#[test]
fn too_few_voters_take_no_writes() {
    for protocol in PAXOS {
        let mut cluster = Cluster::start(5, &["--protocol", protocol, "--lab", "--fail", "none"]);
        await_writes(&cluster);
        cluster.kill(&[4]);
        assert!(cluster.client_tool(&["crash", "5.acceptor"]).status.success());
        await_status_text(
            &cluster,
            &["writes OK; if one more server fails, writes may stop", "no reply from s4; server 5: acceptor down"],
        );
        cluster.kill(&[3]);
        await_status_text(
            &cluster,
            &["no writes: no quorum, 2 of 5 acceptors can vote and 3 are needed; no reply from s3,s4"],
        );
        assert!(cluster.client_tool(&["restart", "5.acceptor"]).status.success());
        await_status_text(&cluster, &["writes OK; if one more server fails, writes may stop"]);
    }
    let mut cluster = Cluster::start(3, &["--protocol", "two-phase-commit"]);
    await_writes(&cluster);
    cluster.kill(&[2]);
    await_status_text(
        &cluster,
        &["no writes: 2 of 3 participants can vote, two-phase commit needs all 3; no reply from s2"],
    );
}

#[test]
fn acceptor_that_lost_a_checkpoint_does_not_count_until_it_is_repaired() {
    let mut cluster = Cluster::prepare(3, &["--protocol", "multi-paxos"]);
    let (often, never) = (["--checkpoint-slots", "20"], ["--checkpoint-slots", "1000000"]);
    cluster.start_server_with(1, &often);
    cluster.start_server_with(2, &never);
    cluster.start_server_with(3, &never);
    cluster.await_all();
    let mut client = cluster.client("c1", 1);
    await_value("server 1 has truncated the slots of its checkpoint", || {
        client.put(b"k", b"v").unwrap();
        cluster.status(1).filter(|status| status.truncated_below.0 > 20)
    });
    cluster.kill(&[1, 2, 3]);
    fs::remove_dir_all(cluster.data_dir(1).join("checkpoint")).unwrap();
    cluster.start_server_with(1, &often);
    cluster.start_server_with(2, &never);
    // What server 1 has forgotten may have been chosen there with another vote than that of server 2.
    await_status_text(
        &cluster,
        &["no writes: no quorum, 1 of 3 acceptors can vote", "server 1: acceptor CORRUPT, unreadable slots: "],
    );
    cluster.start_server_with(3, &never);
    await_status_text(&cluster, &["writes OK; 1 more server may fail"]);
}

#[test]
fn json_status_has_the_verdict_the_reason_and_the_links() {
    let mut cluster = Cluster::start(3, &["--protocol", "multi-paxos"]);
    await_writes(&cluster);
    let read = || serde_json::from_str::<serde_json::Value>(&status(&cluster, &["-o", "json"]).1).unwrap();
    let whole = read();
    assert_eq!((whole["writes"].as_bool(), whole["verdict"].as_str()), (Some(true), Some("writes OK")));
    assert_eq!((whole["tolerates"].as_u64(), whole["reason"].as_str()), (Some(1), Some("")));
    let one = &whole["servers"][0];
    assert_eq!((one["connected"].to_string(), one["hears"].to_string()), ("[2,3]".to_string(), "[2,3]".to_string()));
    assert!(one["leader"]["server"].is_u64(), "{one}");
    cluster.kill(&[2, 3]);
    let broken = serde_json::from_str::<serde_json::Value>(&status(&cluster, &["-o", "json"]).1).unwrap();
    assert_eq!((broken["writes"].as_bool(), broken["verdict"].as_str()), (Some(false), Some("no writes")));
    assert_eq!(broken["troubles"][0], "no reply from s2,s3");
    assert!(broken["message"].as_str().unwrap().ends_with(broken["reason"].as_str().unwrap()), "{broken}");
}
