//! Real processes that are killed: what was acknowledged stays, and is there once.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use paxos_kv::client::{ClientError, WriteResponse};
use support::Cluster;

/// What a client knows of a key: the last acknowledged value, and values that may have been written after it.
#[derive(Default)]
struct Known {
    acknowledged: Option<String>,
    perhaps: Vec<String>,
}

#[test]
fn no_acknowledged_write_is_lost_when_two_servers_and_then_all_are_killed() {
    let mut cluster = Cluster::start(5, &["--seed", "1"]);
    let done = AtomicU32::new(0);
    let write = |name: &str, server: u8| {
        let mut client = cluster.client_with_log(name, server);
        let mut known: BTreeMap<String, Known> = BTreeMap::new();
        for n in 0..100 {
            let (key, value) = (format!("{name}-{}", n % 7), format!("{name} value {n}"));
            let entry = known.entry(key.clone()).or_default();
            match client.put(key.as_bytes(), value.as_bytes()) {
                Ok(_) => *entry = Known { acknowledged: Some(value), perhaps: Vec::new() },
                Err(ClientError::NotApplied(_)) => {}
                Err(_) => entry.perhaps.push(value),
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
        known
    };
    let pids = [cluster.pid(2), cluster.pid(4)];
    let known = thread::scope(|scope| {
        let writers = [scope.spawn(|| write("c1", 1)), scope.spawn(|| write("c2", 2))];
        support::await_value("60 of 200 operations are done", || (done.load(Ordering::Relaxed) >= 60).then_some(()));
        for pid in pids {
            kill_process(pid);
        }
        writers.map(|writer| writer.join().unwrap())
    });
    assert_eq!(done.load(Ordering::Relaxed), 200);

    cluster.kill(&[1, 2, 3, 4, 5]);
    for id in 1..=5 {
        cluster.start_server(id);
    }
    cluster.await_all();
    let mut reader = cluster.client_with_log("c3", 3);
    for (key, Known { acknowledged, perhaps }) in known.into_iter().flatten() {
        let found = reader.get(key.as_bytes()).unwrap().value.map(|value| String::from_utf8(value).unwrap());
        assert!(
            found == acknowledged || found.as_ref().is_some_and(|value| perhaps.contains(value)),
            "{key}: {found:?}"
        );
    }
    cluster.await_agreement();
    let (code, text) = cluster.audit();
    assert_eq!(code, 0, "{text}");
}

fn kill_process(pid: u32) {
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn two_clients_at_two_servers_increment_one_key_and_no_update_is_lost_or_doubled() {
    let cluster = Cluster::start(5, &["--seed", "2"]);
    let increment = |name: &str, server: u8| {
        let mut client = cluster.client_with_log(name, server);
        let mut versions = Vec::new();
        while versions.len() < 100 {
            let version = client.get(b"counter").unwrap().version;
            match client.put_if_version(b"counter", name.as_bytes(), version).unwrap() {
                WriteResponse::Written { version, .. } => versions.push(version),
                WriteResponse::Mismatch { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        versions
    };
    let versions = thread::scope(|scope| {
        let clients = [scope.spawn(|| increment("c1", 1)), scope.spawn(|| increment("c2", 4))];
        clients.map(|client| client.join().unwrap())
    });
    let mut all = versions.concat();
    all.sort_unstable();
    assert_eq!(all, (1..=200).collect::<Vec<u64>>(), "each of 200 updates has its own version");
    cluster.await_agreement();
    let (code, text) = cluster.audit();
    assert_eq!(code, 0, "{text}");
}

#[test]
fn a_retry_at_another_server_after_the_first_was_killed_is_applied_once() {
    // The first server's own learner says the outcome; killed between, the client asks another with the same sequence.
    for round in 0..5 {
        let mut cluster = Cluster::start(5, &["--seed", "3"]);
        let mut client = cluster.client_with_log("c1", 1);
        client.put(b"warm", b"up").unwrap();
        let pid = cluster.pid(1);
        let writes = thread::scope(|scope| {
            let writer = scope.spawn(|| (0..60).map(|_| client.put(b"k", b"v").map(|done| done.version())).collect());
            // A different moment of the writing each time.
            let lines = format!("req=c1-{}", 10 + round * 9);
            support::await_value("the writes have started", || cluster.log_text(1).contains(&lines).then_some(()));
            kill_process(pid);
            let writes: Vec<Result<u64, ClientError>> = writer.join().unwrap();
            writes
        });
        let versions: Vec<u64> = writes.into_iter().map(|write| write.unwrap()).collect();
        assert_eq!(versions, (1..=60).collect::<Vec<u64>>(), "each write is applied exactly once");
        cluster.kill(&[1]);
        cluster.start_server(1);
        cluster.await_agreement();
        let (code, text) = cluster.audit();
        assert_eq!(code, 0, "{text}");
    }
}
