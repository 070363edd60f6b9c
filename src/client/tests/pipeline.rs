//! Tests of many requests in flight: each gets its own result, and a failure affects only the requests concerned.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::thread;

use super::fake::{Fake, FakeAction, FakeCluster, TRY, good, good_reply, opens_and, welcome};
use crate::client::Operation;
use crate::client::{Client, ClientError, ClientOptions, IN_FLIGHT_MAX, OperationResult, RequestHandle};
use crate::cluster::Cluster;
use crate::kv::{Op, SEQUENCE_WINDOW, WriteResult};
use crate::net::{
    CLIENT_FRAME_MAX_BYTES, ClientReply, ClientRequest, FrameReader, HelloReply, Reply, Request, Welcome,
    WhyNotApplied, WhyUnknown, accept_handshake, frame,
};
use crate::paxos::Slot;
use crate::role::ServerSet;
use crate::trace::{ProcessId, Trace, TraceContext};

fn put(n: usize) -> Operation {
    Operation::Put { key: format!("k{n}").into_bytes(), value: b"v".to_vec(), if_version: None }
}

fn get(n: usize) -> Operation {
    Operation::Get { key: format!("k{n}").into_bytes() }
}

/// The server, sequence and first_open of each write, by key.
fn writes(cluster: &FakeCluster) -> BTreeMap<String, Vec<(u8, u64, u64)>> {
    let mut writes: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (server, request) in cluster.requests() {
        if let Request::Write { sequence, first_open, op: Op::Put { key, .. }, .. } = request {
            writes.entry(String::from_utf8(key).unwrap()).or_default().push((server, sequence, first_open));
        }
    }
    writes
}

fn is_key(request: &Request, name: &str) -> bool {
    matches!(request, Request::Write { op: Op::Put { key, .. }, .. } if key == name.as_bytes())
}

/// A server whose script handles the only connection that it accepts.
struct Scripted {
    cluster: Cluster,
    _file: tempfile::NamedTempFile,
    thread: thread::JoinHandle<()>,
}

fn scripted(script: impl FnOnce(&mut FrameReader) + Send + 'static) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = cluster_file(&listener);
    let thread = thread::spawn(move || {
        let mut reader = FrameReader::new(listener.accept().unwrap().0, CLIENT_FRAME_MAX_BYTES);
        accept_handshake(&mut reader, welcome).unwrap().unwrap();
        script(&mut reader);
        // The client closes the connection.
        assert!(reader.read::<ClientRequest>(None).unwrap().is_none());
    });
    Scripted { cluster: Cluster::read(file.path()).unwrap(), _file: file, thread }
}

#[test]
fn nothing_is_sent_to_a_server_whose_cluster_has_other_servers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = cluster_file(&listener);
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = FrameReader::new(stream.unwrap(), CLIENT_FRAME_MAX_BYTES);
            let five = HelloReply::Welcome(Welcome { history: 1, members: ServerSet::first(5) });
            accept_handshake(&mut reader, |_| five).unwrap().unwrap();
            if let Ok(Some(request)) = reader.read::<ClientRequest>(None) {
                tell.send(request).unwrap();
            }
        }
    });
    let options = ClientOptions { try_timeout: TRY, ..ClientOptions::new(Cluster::read(file.path()).unwrap(), "c1") };
    let mut client = Client::new(options).unwrap();
    client.set_timeout(TRY);
    let why = client.get(b"k").unwrap_err().to_string();
    let expected = "its cluster has servers 1-5, but the cluster file of this client lists 1; nothing was sent";
    assert!(why.contains(expected), "{why}");
    assert!(told.try_recv().is_err(), "a request came");
}

/// The cluster file of a cluster with this server only.
fn cluster_file(listener: &TcpListener) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let address = listener.local_addr().unwrap();
    let text = format!("cluster = \"fake\"\n[[server]]\nid = 1\npeer = \"127.0.0.1:1\"\nclient = \"{address}\"\n");
    std::fs::write(file.path(), text).unwrap();
    file
}

fn hear(reader: &mut FrameReader) -> ClientRequest {
    reader.read(None).unwrap().unwrap()
}

/// Answers a read with the key itself as value, at this version.
fn answer_read(reader: &FrameReader, request: &ClientRequest, version: u64) {
    let Request::Get { key } = &request.request else { panic!("{request:?}") };
    let reply = Reply::Value { slot: Slot(1), value: Some(key.clone().into()), version };
    let bytes = frame(&ClientReply { number: request.number, context: TraceContext::default(), reply });
    std::io::Write::write_all(&mut reader.stream(), &bytes).unwrap();
}

#[test]
fn each_request_gets_its_own_reply_in_any_order() {
    const COUNT: usize = 40;
    // The server first receives all requests, then answers the last one first.
    let server = scripted(|reader| {
        let heard: Vec<ClientRequest> = (0..COUNT).map(|_| hear(reader)).collect();
        heard.iter().rev().for_each(|request| answer_read(reader, request, 1));
    });
    let mut client = Client::new(ClientOptions::new(server.cluster.clone(), "c1")).unwrap();
    let handles: Vec<RequestHandle> = (0..COUNT).map(|n| client.submit(get(n)).unwrap()).collect();
    assert_eq!(client.in_flight(), COUNT);
    for (n, handle) in handles.into_iter().enumerate() {
        let Ok(OperationResult::Read(found)) = client.wait(handle).end else { panic!("a read failed") };
        assert_eq!(found.value.unwrap(), format!("k{n}").into_bytes());
    }
    assert_eq!(client.in_flight(), 0);
    assert!(client.wait_any().is_none());
    drop(client);
    server.thread.join().unwrap();
}

#[test]
fn late_reply_to_an_abandoned_try_is_ignored_without_an_error() {
    let trace = Trace::to_memory(ProcessId::named("c1").unwrap());
    let server = scripted(|reader| {
        let (slow, quick) = (hear(reader), hear(reader));
        answer_read(reader, &quick, 1);
        let again = hear(reader);
        assert!(again.request == slow.request && again.number != slow.number);
        answer_read(reader, &slow, 1);
        answer_read(reader, &again, 2);
    });
    let options =
        ClientOptions { trace: trace.clone(), try_timeout: TRY, ..ClientOptions::new(server.cluster.clone(), "c1") };
    let mut client = Client::new(options).unwrap();
    let [slow, quick] = [0, 1].map(|n| client.queue(get(n)).unwrap());
    client.wait(quick).end.unwrap();
    let Ok(OperationResult::Read(found)) = client.wait(slow).end else { panic!("a read failed") };
    assert_eq!(found.version, 2);
    assert!(!trace.text().contains("MALFORMED"), "{}", trace.text());
    drop(client);
    server.thread.join().unwrap();
}

#[test]
fn broken_connection_moves_its_requests_under_their_own_ids() {
    let breaks = opens_and(|_, request| if is_key(request, "k15") { FakeAction::Close } else { FakeAction::Nothing });
    let cluster = FakeCluster::start(vec![breaks, good()]);
    let mut client = Client::new(cluster.options()).unwrap();
    let handles: Vec<RequestHandle> = (0..16).map(|n| client.submit(put(n)).unwrap()).collect();
    for handle in handles {
        client.wait(handle).end.unwrap();
    }
    let writes = writes(&cluster);
    assert_eq!(writes.len(), 16);
    for (key, tries) in &writes {
        let [(1, sequence, first), (2, again, first_again)] = tries[..] else { panic!("{key}: {tries:?}") };
        assert_eq!((sequence, first), (again, first_again), "{key}");
    }
    let mut sequences: Vec<u64> = writes.values().map(|tries| tries[0].1).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=16).collect::<Vec<_>>());
}

#[test]
fn unanswered_request_moves_alone_if_others_get_replies() {
    for act in [FakeAction::Nothing, FakeAction::Reply(Reply::NotApplied(WhyNotApplied::Busy))] {
        let skips = opens_and(move |n, request| match request {
            one if is_key(one, "k3") => act.clone(),
            other => FakeAction::Reply(good_reply(n as u64, other)),
        });
        let cluster = FakeCluster::start(vec![skips, good()]);
        let mut client = Client::new(cluster.options()).unwrap();
        client.put(b"first", b"opens the session").unwrap();
        let handles: Vec<RequestHandle> = (0..8).map(|n| client.queue(put(n)).unwrap()).collect();
        for handle in handles {
            client.wait(handle).end.unwrap();
        }
        let tried: BTreeMap<String, Vec<u8>> =
            writes(&cluster).into_iter().map(|(key, tries)| (key, tries.iter().map(|one| one.0).collect())).collect();
        assert_eq!(tried["k3"], [1, 2]);
        assert!(tried.iter().all(|(key, servers)| key == "k3" || *servers == [1]), "{tried:?}");
    }
}

#[test]
fn write_beyond_the_sequence_window_is_not_sent() {
    // Server 1 never answers the first write, and answers every other at once. Only server 2 answers the first.
    let skips = opens_and(|n, request| match request {
        one if is_key(one, "k0") => FakeAction::Nothing,
        other => FakeAction::Reply(good_reply(n as u64, other)),
    });
    let cluster = FakeCluster::start(vec![skips, good()]);
    let mut client = Client::new(cluster.options()).unwrap();
    let count = 3 * IN_FLIGHT_MAX;
    for n in 0..count {
        assert!(client.in_flight() <= IN_FLIGHT_MAX);
        client.submit(put(n)).unwrap();
    }
    let mut ended = 0;
    while let Some((_, end)) = client.wait_any() {
        end.end.unwrap();
        ended += 1;
    }
    assert_eq!(ended, count);
    let writes = writes(&cluster);
    for (key, tries) in &writes {
        assert!(tries.iter().all(|(_, sequence, first)| sequence - first < SEQUENCE_WINDOW), "{key}: {tries:?}");
    }
    let sequences: std::collections::BTreeSet<u64> = writes.values().map(|tries| tries[0].1).collect();
    assert_eq!(sequences.len(), count, "each write has a number of its own");
    assert_eq!(writes["k0"].len(), 2);
}

#[test]
fn write_with_unknown_outcome_does_not_stop_the_others() {
    let unknown = |n: usize, request: &Request| match request {
        one if is_key(one, "k2") => FakeAction::Reply(Reply::Unknown(WhyUnknown::TimedOut)),
        other => FakeAction::Reply(good_reply(n as u64, other)),
    };
    let cluster = FakeCluster::start(vec![opens_and(unknown), opens_and(unknown)]);
    let options = ClientOptions { timeout: TRY, ..cluster.options() };
    let mut client = Client::new(options).unwrap();
    let handles: Vec<RequestHandle> = (0..5).map(|n| client.submit(put(n)).unwrap()).collect();
    let ends: Vec<_> = handles.into_iter().map(|handle| client.wait(handle).end).collect();
    assert!(ends.iter().enumerate().all(|(n, end)| end.is_ok() == (n != 2)), "{ends:?}");
    assert!(ends[2].as_ref().is_err_and(ClientError::is_unknown));
    // The next write reports that the unknown one is no longer asked for.
    client.submit(put(9)).map(|handle| client.wait(handle).end.unwrap()).unwrap();
    let [(_, sequence, first)] = writes(&cluster)["k9"][..] else { panic!("one try") };
    assert_eq!((sequence, first), (6, 6));
}

#[test]
fn waiting_writes_fail_with_the_reason_if_no_session_opens() {
    let cluster = FakeCluster::start(vec![super::fake::serves(|_, _| FakeAction::Nothing)]);
    let mut client = Client::new(cluster.options()).unwrap();
    let handles: Vec<RequestHandle> = (0..4).map(|n| client.submit(put(n)).unwrap()).collect();
    for handle in handles {
        let error = client.wait(handle).end.unwrap_err();
        assert!(matches!(error, ClientError::NotApplied(_)), "{error}");
        assert!(error.to_string().contains("the write was NOT sent"), "{error}");
    }
    assert!(writes(&cluster).is_empty());
}

#[test]
fn write_without_a_sequence_ends_at_its_own_deadline() {
    // No session is opened. The second write has less time than the first, and does not wait for it.
    let cluster = FakeCluster::start(vec![super::fake::serves(|_, _| FakeAction::Nothing)]);
    let mut client = Client::new(ClientOptions { timeout: 20 * TRY, ..cluster.options() }).unwrap();
    let patient = client.submit(put(0)).unwrap();
    client.set_timeout(TRY / 4);
    let hasty = client.submit(put(1)).unwrap();
    let ended = client.wait(hasty);
    assert!(matches!(ended.end, Err(ClientError::NotApplied(_))), "{ended:?}");
    assert_eq!(client.in_flight(), 1, "the other one waits on");
    drop(client);
    let _ = patient;
}

#[test]
fn an_expired_session_ends_its_writes_and_no_other_session() {
    // The session expires while three writes are in flight; later writes use a new session.
    let cluster = FakeCluster::start(vec![super::fake::serves(|n, request| match request {
        Request::Open { .. } => FakeAction::Reply(Reply::Opened { session: 10 + n as u64, history: 1 }),
        Request::Write { session: 10, .. } => FakeAction::Reply(Reply::Unknown(WhyUnknown::Expired)),
        _ => FakeAction::Reply(Reply::Applied {
            slot: Slot(9),
            written: WriteResult::Done { version: 1 },
            accepted_by: ServerSet::NONE,
        }),
    })]);
    let mut client = Client::new(cluster.options()).unwrap();
    let handles: Vec<RequestHandle> = (0..3).map(|n| client.submit(put(n)).unwrap()).collect();
    for handle in handles {
        assert!(client.wait(handle).end.unwrap_err().is_unknown());
    }
    client.put(b"k9", b"v").unwrap();
    let sessions = |(_, request)| match request {
        Request::Write { session, .. } => Some(session),
        _ => None,
    };
    let sessions: Vec<u64> = cluster.requests().into_iter().filter_map(sessions).collect();
    assert_eq!(sessions, [10, 10, 10, 14]);
}

#[test]
fn unresponsive_server_delays_a_request_by_at_most_one_try() {
    let cluster = FakeCluster::start(vec![Fake::Mute, good()]);
    let mut client = Client::new(cluster.options()).unwrap();
    let started = std::time::Instant::now();
    let handles: Vec<RequestHandle> = (0..8).map(|n| client.submit(get(n)).unwrap()).collect();
    for handle in handles {
        client.wait(handle).end.unwrap();
    }
    assert!(started.elapsed() >= TRY, "the first server was asked first");
    assert!(cluster.requests().iter().all(|(server, _)| *server == 2));
}

#[test]
#[should_panic(expected = "was already returned")]
fn result_is_returned_once() {
    let cluster = FakeCluster::start(vec![good()]);
    let mut client = Client::new(cluster.options()).unwrap();
    let handle = client.submit(get(1)).unwrap();
    client.wait(handle).end.unwrap();
    client.wait(handle);
}
