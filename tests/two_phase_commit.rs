//! Two-phase commit between real processes: it serves, it blocks where it must, and its log lines prove that no server
//! was ever inconsistent.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use paxos_kv::client::{Client, ClientError, TryEnd};
use paxos_kv::net::WhyNotApplied;
use paxos_kv::role::{RoleKind, ServerId};
use support::{Cluster, await_value};

const PROTOCOL: [&str; 2] = ["--protocol", "two-phase-commit"];

fn start(arguments: &[&str]) -> Cluster {
    Cluster::start(5, &[&PROTOCOL, ["--segment-kib", "1024"].as_slice(), arguments].concat())
}

fn await_role(cluster: &Cluster, id: u8, role: RoleKind, up: bool) {
    await_value("the role is up or down", || {
        let status = cluster.status(id)?;
        status.roles.iter().any(|one| one.role == role && one.up == up).then_some(())
    });
}

#[test]
fn clients_are_served_while_every_role_fails_and_the_log_proves_consistency() {
    let cluster = start(&["--fail", "all", "--mean-up", "1500ms", "--mean-down", "300ms", "--seed", "11"]);
    let end = Instant::now() + Duration::from_secs(8);
    let counts: Vec<(u32, u32)> = std::thread::scope(|scope| {
        let clients = [1, 2, 3].map(|id| (cluster.client_with_log(&format!("c{id}"), id), id));
        let working = clients.map(|(client, id)| scope.spawn(move || work(client, id, end)));
        working.map(|one| one.join().unwrap()).to_vec()
    });
    let (done, failed) = counts.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(done > 20, "{done} requests were done, {failed} failed");
    cluster.await_agreement();
    await_value("nothing is in doubt", || {
        (1..=5).all(|id| cluster.status(id).is_some_and(|status| status.in_doubt == 0)).then_some(())
    });
    let (code, text) = cluster.audit();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("two-phase commit") && text.contains("linearizable"), "{text}");
}

/// Writes and reads one key with others; how many requests were done, and how many failed.
fn work(mut client: Client, id: u8, end: Instant) -> (u32, u32) {
    client.set_timeout(Duration::from_secs(3));
    let (mut done, mut failed) = (0, 0);
    for n in 0_u32.. {
        if Instant::now() > end {
            break;
        }
        client.set_server(ServerId((n % 5 + 1) as u8)).unwrap();
        let key = format!("k{}", n % 3);
        let ended = match n % 4 {
            0 => client.get(key.as_bytes()).map(|_| ()),
            _ => client.put(key.as_bytes(), format!("{id}-{n}-{done}").as_bytes()).map(|_| ()),
        };
        *if ended.is_ok() { &mut done } else { &mut failed } += 1;
    }
    (done, failed)
}

#[test]
fn participants_are_blocked_until_their_coordinator_restarts() {
    let cluster = start(&["--lab", "--seed", "1"]);
    let mut operator = cluster.client("lab", 2);
    let mut writer = cluster.client_with_log("c1", 1);
    writer.put(b"k", b"before").unwrap();
    writer.put(b"other", b"here").unwrap();
    operator.crash(ServerId(5), Some(RoleKind::Participant), None).unwrap();
    await_role(&cluster, 5, RoleKind::Participant, false);
    // The coordinator waits 300 ms for the fifth vote: in that time it has to die. On a slow machine not at the first
    // try.
    let blocked = (0..20).any(|_| {
        writer.set_timeout(Duration::from_millis(1_200));
        writer.set_server(ServerId(1)).unwrap();
        std::thread::scope(|scope| {
            let write = scope.spawn(|| writer.put(b"k", b"in doubt"));
            let deadline = Instant::now() + Duration::from_secs(1);
            while operator.status(ServerId(2)).is_ok_and(|status| status.in_doubt == 0) && Instant::now() < deadline {}
            operator.crash(ServerId(1), Some(RoleKind::Coordinator), None).unwrap();
            assert!(write.join().unwrap().is_err());
        });
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            let status = operator.status(ServerId(2)).unwrap();
            match status.in_doubt_transactions.first() {
                Some(doubt) if doubt.is_blocked => return true,
                Some(_) => std::thread::sleep(Duration::from_millis(20)),
                None => break,
            }
        }
        operator.restart(ServerId(1), Some(RoleKind::Coordinator)).unwrap();
        await_role(&cluster, 1, RoleKind::Coordinator, true);
        false
    });
    assert!(blocked, "no participant was blocked");
    let shown = cluster.client_tool(&["status"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.starts_with("no writes: 4 of 5 participants can vote"), "{shown}");
    assert!(shown.contains("BLOCKED: transaction ") && shown.contains("(key k is locked) on s1,s2,s3,s4"), "{shown}");
    // Its key cannot be read; another one can.
    let mut reader = cluster.client_with_log("c2", 2);
    reader.set_timeout(Duration::from_millis(900));
    let Err(ClientError::NotApplied(tries)) = reader.get_from_current(b"k") else { panic!("a read of a locked key") };
    let locked = |one: &paxos_kv::client::Try| matches!(one.end, TryEnd::NotApplied(WhyNotApplied::KeyLocked(_)));
    assert!(tries.last.iter().any(locked), "{tries:?}");
    assert_eq!(reader.get_from_current(b"other").unwrap().value.unwrap(), b"here");

    operator.restart(ServerId(1), Some(RoleKind::Coordinator)).unwrap();
    await_value("the doubt ends", || {
        (1..=4).all(|id| cluster.status(id).is_some_and(|status| status.in_doubt == 0)).then_some(())
    });
    operator.restart(ServerId(5), Some(RoleKind::Participant)).unwrap();
    await_role(&cluster, 5, RoleKind::Participant, true);
    reader.set_timeout(support::PATIENCE);
    assert_eq!(reader.get(b"k").unwrap().value.unwrap(), b"before", "without a record of a commit there was none");
    assert_eq!(reader.put(b"k", b"after").unwrap().version(), 2);
    cluster.await_agreement();
    let blocked = cluster.log_text(2).lines().find(|line| line.contains(" BLOCKED ")).map(str::to_string).unwrap();
    assert!(blocked.contains("key=k") && blocked.contains("coordinator=s1"), "{blocked}");
    let (code, text) = cluster.audit();
    assert_eq!(code, 0, "{text}");
}

#[test]
fn committed_writes_survive_all_processes() {
    let mut cluster = start(&["--seed", "1"]);
    let mut client = cluster.client_with_log("c1", 3);
    for n in 1..=30u64 {
        let key = format!("k{}", n % 7);
        client.put(key.as_bytes(), n.to_le_bytes()).unwrap();
    }
    cluster.kill(&[1, 2, 3, 4, 5]);
    for id in 1..=5 {
        cluster.start_server(id);
    }
    cluster.await_all();
    assert_eq!(client.get(b"k2").unwrap().value.unwrap(), 30u64.to_le_bytes());
    assert_eq!(client.get(b"k2").unwrap().version, 5);
    // The session is there as well, and so are all numbers.
    assert_eq!(client.put(b"k2", b"more").unwrap().version(), 6);
    cluster.await_agreement();
    let (code, text) = cluster.audit();
    assert_eq!(code, 0, "{text}");
}

#[test]
fn the_data_of_one_protocol_is_not_taken_for_that_of_another() {
    let mut cluster = Cluster::start(1, &["--segment-kib", "1024"]);
    cluster.client("c1", 1).put(b"k", b"v").unwrap();
    cluster.kill(&[1]);
    // The helper names a protocol of its own.
    let mut commits = std::process::Command::new(env!("CARGO_BIN_EXE_paxos-server"));
    commits
        .arg("--id")
        .arg("1")
        .arg("--cluster")
        .arg(cluster.file())
        .arg("--data")
        .arg(cluster.data_dir(1))
        .args(PROTOCOL);
    let output = commits.arg("--quiet").output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && complaint.contains("under Paxos"), "{complaint}");
}
