//! Real servers under a leader: any of them takes any request, and the death of the leader costs a moment and nothing
//! else.

#![allow(clippy::unwrap_used)]

mod support;

use std::thread;

use paxos_kv::client::ClientError;
use support::Cluster;

const ARGUMENTS: [&str; 8] = ["--protocol", "multi-paxos", "--steps", "on", "--seed", "1", "--segment-kib", "1024"];

/// The servers but one.
fn others(but: u8) -> Vec<u8> {
    (1..=5).filter(|id| *id != but).collect()
}

#[test]
fn write_at_any_server_is_proposed_by_the_leader_and_readable_everywhere() {
    let cluster = Cluster::start(5, &ARGUMENTS);
    let leader = cluster.await_leader(&[1, 2, 3, 4, 5]);
    for id in 1..=5 {
        let mut client = cluster.client_with_log(&format!("c{id}"), id);
        let (key, value) = (format!("key {id}"), format!("value {id}"));
        client.put(key.as_bytes(), value.as_bytes()).unwrap();
        let next = id % 5 + 1;
        let read = cluster.client(&format!("r{id}"), next).get(key.as_bytes()).unwrap();
        assert_eq!(read.value, Some(value.into_bytes()), "written at {id}, read at {next}");
    }
    cluster.await_agreement();
    for id in others(leader) {
        let lines = cluster.log_text(id);
        assert!(lines.contains(" FORWARD "), "server {id} has handed its client's write on");
        assert!(!lines.contains(" LEAD "), "server {id} has never led");
    }
    let leads = cluster.log_text(leader);
    assert_eq!(leads.matches(" PREPARE ").count(), 1, "phase 1 once:\n{leads}");
    let (code, text) = cluster.audit();
    assert_eq!(code, 0, "{text}");
}

#[test]
fn killed_leader_is_replaced_and_no_acknowledged_write_is_lost() {
    let mut cluster = Cluster::start(5, &ARGUMENTS);
    let first = cluster.await_leader(&[1, 2, 3, 4, 5]);
    let write = |cluster: &Cluster, name: &str, server: u8| {
        let mut client = cluster.client_with_log(name, server);
        let mut done = Vec::new();
        for n in 0..60 {
            let (key, value) = (format!("{name}-{n}"), format!("{name} value {n}"));
            match client.put(key.as_bytes(), value.as_bytes()) {
                Ok(_) => done.push((key, value)),
                Err(ClientError::NotApplied(_) | ClientError::Unknown(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        done
    };
    let alive = others(first);
    let done = thread::scope(|scope| {
        let shared = &cluster;
        let writers: Vec<_> =
            alive[..3].iter().map(|id| scope.spawn(move || write(shared, &format!("c{id}"), *id))).collect();
        let killer = scope.spawn(|| {
            support::await_value("the writes have started", || {
                cluster.status(alive[0]).filter(|status| status.applied.0 > 20).map(|_| ())
            });
            let killed = std::process::Command::new("kill").args(["-9", &cluster.pid(first).to_string()]).status();
            assert!(killed.unwrap().success());
        });
        killer.join().unwrap();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(done.len() > 60, "only {} writes were acknowledged", done.len());
    let second = cluster.await_leader(&alive);
    assert_ne!(second, first);
    cluster.kill(&[first]);
    cluster.start_server(first);
    cluster.await_all();
    assert_eq!(cluster.await_leader(&[1, 2, 3, 4, 5]), second, "a restarted server does not depose the leader");
    let mut reader = cluster.client_with_log("c9", first);
    for (key, value) in done {
        assert_eq!(reader.get(key.as_bytes()).unwrap().value, Some(value.into_bytes()), "{key}");
    }
    cluster.await_agreement();
    let (code, text) = cluster.audit();
    assert_eq!(code, 0, "{text}");
}
