//! A cluster that is begun anew while its clients continue, and clients that write in the sessions of others: no client
//! receives OK for a write that is nowhere, and no session is used up by another client.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use paxos_kv::client::ClientError;
use paxos_kv::kv::{Op, SEQUENCE_MAX};
use paxos_kv::net::{
    CLIENT_FRAME_MAX_BYTES, Caller, ClientReply, ClientRequest, FrameReader, Hello, Reply, Request, WhyNotApplied,
    connect_handshake, frame,
};
use paxos_kv::role::ServerId;
use paxos_kv::trace::TraceContext;
use support::Cluster;

/// All servers are stopped, lose their data and are started again, as by `./run_server.sh stop; ./run_server.sh`.
fn begin_new_history(cluster: &mut Cluster) {
    cluster.kill(&[1, 2, 3]);
    for id in 1..=3 {
        fs::remove_dir_all(cluster.data_dir(id)).unwrap();
        cluster.start_server(id);
    }
    cluster.await_all();
}

#[test]
fn client_of_an_old_history_gets_one_error_and_then_continues() {
    let mut cluster = Cluster::start(3, &["--seed", "1"]);
    let mut old = cluster.client_with_log("c1", 1);
    old.put(b"k", b"old").unwrap();
    begin_new_history(&mut cluster);
    // Another client has the session with the same number now, and has written with it.
    let mut innocent = cluster.client_with_log("c2", 1);
    innocent.put(b"c", b"innocent").unwrap();

    let error = old.put(b"c", b"X").unwrap_err();
    assert!(matches!(error, ClientError::NotApplied(_)), "{error}");
    assert!(error.to_string().contains("has another history of cluster \"test\""), "{error}");
    assert_eq!(innocent.get(b"c").unwrap().value.as_deref(), Some(b"innocent".as_slice()));
    // It was told. What it writes from now on is written.
    assert_eq!(old.put(b"c", b"Y").unwrap().version(), 2);
    assert_eq!(innocent.get(b"c").unwrap().value.as_deref(), Some(b"Y".as_slice()));
    innocent.put(b"c", b"Z").unwrap();
    drop((old, innocent));

    // The lines of both histories stand in the same files: they are two runs, and the audit finds no violation.
    cluster.kill(&[1, 2, 3]);
    let (code, text) = cluster.audit();
    assert_ne!(code, 7, "{text}");
}

#[test]
fn read_only_client_gets_an_error_for_another_history() {
    let mut cluster = Cluster::start(3, &["--seed", "1"]);
    let mut client = cluster.client("c1", 2);
    client.put(b"k", b"old").unwrap();
    begin_new_history(&mut cluster);
    cluster.client("c2", 1).put(b"c", b"new").unwrap();
    cluster.await_agreement();
    let error = client.get(b"k").unwrap_err();
    assert!(error.to_string().contains("another history"), "{error}");
    assert_eq!(client.get(b"k").unwrap().value, None);
}

#[test]
fn client_reports_a_cluster_without_data_once() {
    let mut cluster = Cluster::start(3, &["--seed", "1"]);
    let mut client = cluster.client("c1", 2);
    client.put(b"k", b"old").unwrap();
    begin_new_history(&mut cluster);
    client.set_timeout(Duration::from_secs(2));
    let error = client.get(b"k").unwrap_err();
    assert!(matches!(error, ClientError::NotApplied(_)), "{error}");
    assert!(error.to_string().contains("has no data of cluster \"test\", but this client has seen data"), "{error}");
    assert_eq!(client.get(b"k").unwrap().value, None, "reported once");
}

#[test]
fn first_writer_in_a_new_history_gets_one_error() {
    let mut cluster = Cluster::start(3, &["--seed", "1"]);
    let mut client = cluster.client("c1", 2);
    client.put(b"k", b"old").unwrap();
    begin_new_history(&mut cluster);
    let error = client.put(b"k", b"X").unwrap_err();
    assert!(error.to_string().contains("another history"), "{error}");
    assert_eq!(client.get(b"k").unwrap().value, None, "it was not written");
    assert_eq!(client.put(b"k", b"Y").unwrap().version(), 1);
    // The same servers once more, on their data: that is no news.
    cluster.kill(&[1, 2, 3]);
    (1..=3).for_each(|id| cluster.start_server(id));
    assert_eq!(client.get(b"k").unwrap().value.as_deref(), Some(b"Y".as_slice()));
    assert_eq!(client.put(b"k", b"Z").unwrap().version(), 2);
}

/// A client that says what it wants.
struct RawClient {
    stream: TcpStream,
    reader: FrameReader,
    number: u64,
}

impl RawClient {
    fn at(cluster: &Cluster, server: u8) -> RawClient {
        let stream = TcpStream::connect(cluster.cluster.member(ServerId(server)).unwrap().client).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let members = cluster.cluster.servers();
        connect_handshake(
            &stream,
            &Hello { cluster: "test".to_string(), to: ServerId(server), members, who: Caller::Client },
        )
        .unwrap();
        let reader = FrameReader::new(stream.try_clone().unwrap(), CLIENT_FRAME_MAX_BYTES);
        RawClient { stream, reader, number: 0 }
    }

    fn ask(&mut self, request: Request) -> Reply {
        self.number += 1;
        let request = ClientRequest { number: self.number, context: TraceContext::default(), request };
        self.stream.write_all(&frame(&request)).unwrap();
        self.reader.read::<ClientReply>(None).unwrap().unwrap().reply
    }
}

#[test]
fn write_in_the_session_of_another_client_changes_nothing() {
    let cluster = Cluster::start(3, &["--seed", "1"]);
    let mut stranger = RawClient::at(&cluster, 2);
    let Reply::Opened { session: own, .. } = stranger.ask(Request::Open { nonce: 5 }) else { panic!("no session") };
    let mut owner = cluster.client("c1", 1);
    owner.put(b"k", b"1").unwrap();
    // The owner's session was opened in the next slot; so the stranger guesses its number, and the number of its next
    // write.
    let session = own + 1;
    for (sequence, first_open) in [(1, 1), (2, 1), (2, 2), (40, 1), (SEQUENCE_MAX, SEQUENCE_MAX)] {
        let op = Op::Put { key: b"k".to_vec(), value: b"a stranger's".to_vec().into(), if_version: None };
        let reply = stranger.ask(Request::Write { session, nonce: 5, sequence, first_open, op });
        assert_eq!(reply, Reply::NotApplied(WhyNotApplied::Expired), "{sequence}");
    }
    assert_eq!(owner.put(b"k", b"2").unwrap().version(), 2);
    assert_eq!(owner.get(b"k").unwrap().value.as_deref(), Some(b"2".as_slice()));
}

#[test]
fn connection_opens_a_limited_number_of_sessions_at_a_time() {
    let cluster = Cluster::start(1, &["--seed", "1"]);
    let mut stranger = RawClient::at(&cluster, 1);
    let opened = |reply| match reply {
        Reply::Opened { .. } => true,
        Reply::NotApplied(WhyNotApplied::Busy) => false,
        other => panic!("{other:?}"),
    };
    let replies: Vec<bool> = (0..20).map(|nonce| opened(stranger.ask(Request::Open { nonce }))).collect();
    assert_eq!(replies, [vec![true; 16], vec![false; 4]].concat());
    assert!(opened(RawClient::at(&cluster, 1).ask(Request::Open { nonce: 100 })), "another connection has its own");
}
