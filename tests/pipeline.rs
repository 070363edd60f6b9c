//! Many requests of one client under way while servers are killed: each ends, and none is applied twice.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use paxos_kv::client::Operation;
use paxos_kv::client::{Client, ClientError, CompletedOperation, OperationResult, RequestHandle, WriteResponse};
use paxos_kv::kv::Op;
use paxos_kv::net::{
    CLIENT_FRAME_MAX_BYTES, Caller, ClientReply, ClientRequest, FrameReader, Hello, Reply, Request, WhyNotApplied,
    allow_many_sockets, connect_handshake, frame, frame_into,
};
use paxos_kv::role::ServerId;
use paxos_kv::trace::TraceContext;
use support::{Cluster, resident_kib};

const IN_FLIGHT: usize = 32;

fn put(key: &str) -> Operation {
    Operation::Put { key: key.as_bytes().to_vec(), value: b"v".to_vec(), if_version: None }
}

/// Whether the key's version is what the end of its only write allows.
fn check(end: &CompletedOperation, key: &str, version: u64) {
    match &end.end {
        Ok(OperationResult::Wrote(WriteResponse::Written { version: said, .. })) => {
            assert_eq!((*said, version), (1, 1), "{key} was written once");
        }
        Err(ClientError::NotApplied(_)) => assert_eq!(version, 0, "{key} was certainly not written"),
        Err(ClientError::Unknown(_)) => assert!(version <= 1, "{key} was written {version} times"),
        other => panic!("{key}: {other:?}"),
    }
}

#[test]
fn killed_server_neither_loses_nor_repeats_requests_in_flight() {
    let mut cluster = Cluster::start(3, &["--seed", "1", "--segment-kib", "1024", "--steps", "off"]);
    let mut client = cluster.client("c1", 1);
    let mut ends = Vec::new();
    for round in 0..6u8 {
        let victim = round % 3 + 1;
        client.set_server(ServerId(victim)).unwrap();
        let keys: Vec<String> = (0..IN_FLIGHT).map(|n| format!("r{round}-{n}")).collect();
        let handles: Vec<RequestHandle> = keys.iter().map(|key| client.queue(put(key)).unwrap()).collect();
        // From round to round a little more has happened when the server dies.
        let until = Instant::now() + Duration::from_millis(u64::from(round) * 4);
        client.progress();
        while Instant::now() < until {
            client.progress();
        }
        cluster.kill(&[victim]);
        for (key, handle) in keys.into_iter().zip(handles) {
            ends.push((key, client.wait(handle)));
        }
        assert_eq!(client.in_flight(), 0);
        cluster.start_server(victim);
        cluster.await_all();
    }
    let done = ends.iter().filter(|(_, end)| end.end.is_ok()).count();
    assert!(done >= ends.len() / 2, "with a majority up nearly all are done: {done} of {}", ends.len());
    let mut reader = cluster.client("reader", 2);
    for (key, end) in &ends {
        check(end, key, reader.get(key.as_bytes()).unwrap().version);
    }
    cluster.await_agreement();
}

#[test]
fn two_pipelines_on_the_same_keys_through_two_servers_are_applied_once_each() {
    const ROUNDS: u64 = 4;
    let cluster = Cluster::start(3, &["--seed", "2", "--segment-kib", "1024", "--steps", "off"]);
    let write = |id: u8| {
        let mut client = cluster.client(&format!("c{id}"), id);
        for _ in 0..ROUNDS {
            let handles: Vec<RequestHandle> =
                (0..IN_FLIGHT).map(|n| client.submit(put(&format!("k{n}"))).unwrap()).collect();
            handles.into_iter().for_each(|handle| drop(client.wait(handle).end.unwrap()));
        }
    };
    std::thread::scope(|scope| {
        for id in [1, 2] {
            scope.spawn(move || write(id));
        }
    });
    let mut reader: Client = cluster.client("reader", 3);
    for n in 0..IN_FLIGHT {
        assert_eq!(reader.get(format!("k{n}").as_bytes()).unwrap().version, 2 * ROUNDS, "k{n}");
    }
    cluster.await_agreement();
}

fn greeted(cluster: &Cluster) -> TcpStream {
    let stream = TcpStream::connect(cluster.cluster.member(ServerId(1)).unwrap().client).unwrap();
    let members = cluster.cluster.servers();
    let hello = Hello { cluster: "test".to_string(), to: ServerId(1), members, who: Caller::Client };
    connect_handshake(&stream, &hello).unwrap();
    stream
}

fn request(number: u64, request: Request) -> ClientRequest {
    ClientRequest { number, context: TraceContext::default(), request }
}

#[test]
fn requests_in_flight_per_connection_are_limited_and_all_get_replies() {
    // Of three servers one lives: no write can be done, so all of them wait.
    let mut cluster = Cluster::start(3, &["--seed", "3", "--segment-kib", "1024", "--steps", "off"]);
    cluster.client("c1", 1).put(b"k", b"v").unwrap();
    cluster.kill(&[2, 3]);
    let stream = greeted(&cluster);
    let count = 600;
    let mut bytes = Vec::new();
    for number in 0..count {
        let op = Op::Put { key: b"k".to_vec(), value: b"w".to_vec().into(), if_version: None };
        // Sessions that were never opened: the limit holds for every client.
        let write = Request::Write { session: 1 + number / 60, nonce: 1, sequence: 1 + number % 60, first_open: 1, op };
        frame_into(&request(number, write), &mut bytes);
    }
    (&stream).write_all(&bytes).unwrap();
    let mut reader = FrameReader::new(stream, CLIENT_FRAME_MAX_BYTES);
    let (mut busy, mut waited) = (0, 0);
    let mut numbers = std::collections::BTreeSet::new();
    for _ in 0..count {
        let reply: ClientReply = reader.read(Some(Instant::now() + support::PATIENCE)).unwrap().unwrap();
        assert!(numbers.insert(reply.number), "answered twice");
        match reply.reply {
            Reply::NotApplied(WhyNotApplied::Busy) => busy += 1,
            Reply::NotApplied(WhyNotApplied::Proposer(_)) | Reply::Unknown(_) => waited += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(waited <= 256 && busy >= count - 256, "{waited} waited, {busy} were too many");
    // And then there is room again.
    let status = frame(&request(9_999, Request::Status));
    reader.stream().set_write_timeout(Some(support::PATIENCE)).unwrap();
    let mut stream = reader.stream();
    stream.write_all(&status).unwrap();
    let reply: ClientReply = reader.read(Some(Instant::now() + support::PATIENCE)).unwrap().unwrap();
    assert_eq!(reply.number, 9_999);
}

#[test]
fn client_that_reads_no_replies_delays_no_other_client() {
    let cluster = Cluster::start(1, &["--seed", "4", "--segment-kib", "4096", "--steps", "off"]);
    let mut client = cluster.client("c1", 1);
    client.put(b"large", vec![7; 1 << 20]).unwrap();
    client.put(b"small", b"v").unwrap();
    // It asks for far more than sockets hold, and reads nothing.
    let deaf = greeted(&cluster);
    let mut bytes = Vec::new();
    for number in 0..200 {
        frame_into(&request(number, Request::Get { key: b"large".to_vec() }), &mut bytes);
    }
    (&deaf).write_all(&bytes).unwrap();
    for _ in 0..200 {
        assert_eq!(client.get(b"small").unwrap().value.unwrap(), b"v");
    }
    // Its replies are there all the same: values, and failed reads where there was no room.
    let mut reader = FrameReader::new(deaf, CLIENT_FRAME_MAX_BYTES);
    for _ in 0..200 {
        let reply: ClientReply = reader.read(Some(Instant::now() + support::PATIENCE)).unwrap().unwrap();
        assert!(matches!(reply.reply, Reply::Value { .. } | Reply::NotApplied(WhyNotApplied::Busy)));
    }
}

#[test]
fn half_closed_client_still_gets_its_replies() {
    let cluster = Cluster::start(1, &["--seed", "5", "--segment-kib", "1024", "--steps", "off"]);
    cluster.client("c1", 1).put(b"k", b"v").unwrap();
    let mut stream = greeted(&cluster);
    let mut bytes = Vec::new();
    for number in 0..20 {
        frame_into(&request(number, Request::Get { key: b"k".to_vec() }), &mut bytes);
    }
    stream.write_all(&bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    let one = frame(&ClientReply {
        number: 0,
        context: TraceContext::default(),
        reply: Reply::Value { slot: paxos_kv::paxos::Slot(2), value: Some(b"v".to_vec().into()), version: 1 },
    });
    assert_eq!(said.len(), 20 * one.len());
}

#[test]
fn a_thousand_idle_connections_cost_little_and_delay_no_request() {
    allow_many_sockets();
    let cluster = Cluster::start(1, &["--seed", "6", "--segment-kib", "1024", "--steps", "off"]);
    let mut client = cluster.client("c1", 1);
    client.put(b"k", b"v").unwrap();
    let before = resident_kib(cluster.pid(1));
    // Each has asked once, so that each has its buffer.
    let mut idle: Vec<FrameReader> = Vec::new();
    for number in 0..1_000 {
        let stream = greeted(&cluster);
        (&stream).write_all(&frame(&request(number, Request::Get { key: b"k".to_vec() }))).unwrap();
        let mut reader = FrameReader::new(stream, CLIENT_FRAME_MAX_BYTES);
        let reply: ClientReply = reader.read(Some(Instant::now() + support::PATIENCE)).unwrap().unwrap();
        assert_eq!(reply.number, number);
        idle.push(reader);
    }
    let each = (resident_kib(cluster.pid(1)).saturating_sub(before)) as f64 / idle.len() as f64;
    println!("{each:.1} KiB a connection");
    assert!(each < 48.0, "{each:.1} KiB a connection");
    assert_eq!(client.get(b"k").unwrap().value.unwrap(), b"v");
    client.put(b"k", b"w").unwrap();
}
