//! Bytes that are no request, on both ports: a log line, a closed connection, and no effect on other connections.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use paxos_kv::kv::Op;
use paxos_kv::net::{
    CLIENT_FRAME_MAX_BYTES, Caller, ClientReply, ClientRequest, FrameReader, HandshakeError, Hello, Request,
    connect_handshake, frame,
};
use paxos_kv::random::Random;
use paxos_kv::role::{ServerId, ServerSet};
use paxos_kv::trace::TraceContext;
use support::{Cluster, await_value};

const PREAMBLE: &[u8] = b"PXKV\x06\x00";

/// The HELLO of a caller whose cluster file lists three servers.
fn hello(who: Caller) -> Hello {
    Hello { cluster: "test".to_string(), to: ServerId(1), members: ServerSet::first(3), who }
}

fn client_request(request: Request) -> Vec<u8> {
    let context = TraceContext { parent: None, req: Some("c9-1".to_string()) };
    frame(&ClientRequest { number: 1, context, request })
}

/// Connects, says this, and waits until the server closes the connection; gives what it said.
fn send_and_read(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    // The server may close before all is said.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut reply = Vec::new();
    match stream.read_to_end(&mut reply) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the server closes: {error}"),
    }
    reply
}

/// The number of MALFORMED lines of server 1, which must all use the agreed words.
fn malformed(cluster: &Cluster) -> Vec<String> {
    let lines = cluster.log_text(1);
    let lines: Vec<String> = lines.lines().filter(|line| line.contains(" MALFORMED ")).map(str::to_string).collect();
    for line in &lines {
        assert!(line.contains("received malformed request of length "), "{line}");
        assert!(line.parse::<paxos_kv::trace::Line>().is_ok(), "{line}");
    }
    lines
}

#[test]
fn malformed_bytes_on_either_port_harm_no_other_connection() {
    let cluster = Cluster::start(3, &["--seed", "1"]);
    let member = cluster.cluster.member(ServerId(1)).unwrap();
    let storage = 0;
    let mut client = cluster.client("c1", 1);
    client.put(b"k", b"before").unwrap();

    let oversized = [PREAMBLE, &u32::MAX.to_le_bytes(), &[0; 4]].concat();
    let mut flipped = [PREAMBLE, &frame(&hello(Caller::Client))].concat();
    *flipped.last_mut().unwrap() ^= 1;
    let truncated = [PREAMBLE, &frame(&hello(Caller::Client))[..9]].concat();
    let cases: [(&str, Vec<u8>); 7] = [
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a newline that wants to be a line", b"x\n2026-01-01T00:00:00.000000Z INFO  s1.1 acceptor PROMISE\n".to_vec()),
        ("another version", b"PXKV\x63\x00abcdefgh".to_vec()),
        ("an oversized frame", oversized),
        ("a wrong checksum", flipped),
        ("a truncated frame", truncated),
        ("an unknown message", [PREAMBLE, &frame(&vec![255u8; 40])].concat()),
    ];
    let mut count = 0;
    for address in [member.client, member.peer] {
        for (what, bytes) in &cases {
            send_and_read(address, bytes);
            count += 1;
            await_value(what, || (malformed(&cluster).len() == count).then_some(()));
        }
    }
    let lines = malformed(&cluster);
    assert!(lines[0].contains("length=18 "), "{}", lines[0]);
    assert!(lines[3].contains(&format!("length={} ", u32::MAX)), "{}", lines[3]);

    // Behind a good handshake too: words that no client says.
    let write = |sequence, first_open, key: usize, value: usize| {
        let op = Op::Put { key: vec![b'k'; key], value: vec![b'v'; value].into(), if_version: None };
        client_request(Request::Write { session: 1, nonce: 1, sequence, first_open, op })
    };
    let requests = [
        frame(&[7u8; 3]),
        write(65, 1, 1, 1),
        write(1, 2, 1, 1),
        write(1, 1, 4097, 1),
        write(1, 1, 1, (1 << 20) + 1),
        client_request(Request::Get { key: vec![0; 4097] }),
    ];
    for request in &requests {
        send_and_read(member.client, &[PREAMBLE, &frame(&hello(Caller::Client)), request].concat());
        count += 1;
        await_value("the request is refused", || (malformed(&cluster).len() == count).then_some(()));
    }

    // The wrong door, a foreign cluster, an unknown and a false peer: refused in a sentence, before a word of Paxos.
    let peer = |server, storage| {
        let server = ServerId(server);
        Caller::Peer { server, storage, incarnation: 1, boot: 0, is_active: true, knows: None }
    };
    let members = ServerSet::first(5);
    let strangers = [
        (member.client, hello(peer(2, storage))),
        (member.peer, hello(Caller::Client)),
        (member.client, Hello { cluster: "other".to_string(), ..hello(Caller::Client) }),
        (member.client, Hello { to: ServerId(2), ..hello(Caller::Client) }),
        (member.peer, hello(peer(1, storage))),
        (member.peer, hello(peer(9, storage))),
        (member.client, Hello { members, ..hello(Caller::Client) }),
        (member.peer, Hello { members, ..hello(peer(2, storage)) }),
    ];
    for (address, hello) in strangers {
        let stream = TcpStream::connect(address).unwrap();
        let refused = connect_handshake(&stream, &hello);
        assert!(matches!(refused, Err(HandshakeError::Refused(_))), "{hello:?}: {refused:?}");
    }
    // One that could be server 2 is not believed before server 2 was called.
    let stream = TcpStream::connect(member.peer).unwrap();
    let unproved = connect_handshake(&stream, &hello(peer(2, storage)));
    assert!(matches!(unproved, Err(HandshakeError::CallBackFirst)), "{unproved:?}");

    assert_eq!(client.get(b"k").unwrap().value.unwrap(), b"before");
    client.put(b"k", b"after").unwrap();
    cluster.await_agreement();
}

#[test]
fn a_flood_of_random_bytes_costs_no_memory_and_no_service() {
    let cluster = Cluster::start(3, &["--seed", "2"]);
    let member = cluster.cluster.member(ServerId(1)).unwrap();
    let mut client = cluster.client("c1", 1);
    client.put(b"k", b"v").unwrap();
    let before = resident_kib(cluster.pid(1));
    let mut random = Random::new(1, 1);
    for round in 0..200u64 {
        let address = if round % 2 == 0 { member.client } else { member.peer };
        let length = random.within(1..=4_000);
        let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        // Some come after a good greeting: they reach the decoder of requests.
        let greeting = [PREAMBLE, &frame(&hello(Caller::Client))].concat();
        let start = if round % 3 == 0 { greeting } else { Vec::new() };
        send_and_read(address, &[start, bytes].concat());
    }
    assert_eq!(client.get(b"k").unwrap().value.unwrap(), b"v");
    let grown = resident_kib(cluster.pid(1)).saturating_sub(before);
    assert!(grown < 20_000, "200 bad connections cost {grown} KiB");
}

/// How much memory a process has, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

#[test]
fn a_slow_connection_costs_its_own_deadline_and_nothing_else() {
    let cluster = Cluster::start(3, &["--seed", "3"]);
    let member = cluster.cluster.member(ServerId(1)).unwrap();
    // One says nothing, one a byte now and then: both are closed when the time for a greeting is over.
    let silent = TcpStream::connect(member.client).unwrap();
    let mut slow = TcpStream::connect(member.peer).unwrap();
    let started = Instant::now();
    let mut client = cluster.client("c1", 1);
    let mut writes = 0;
    while started.elapsed() < Duration::from_secs(4) {
        let _ = slow.write_all(&PREAMBLE[writes % 6..writes % 6 + 1]);
        client.put(b"k", b"v").unwrap();
        writes += 1;
    }
    for mut stream in [silent, slow] {
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let closed = stream.read(&mut [0]);
        assert!(matches!(closed, Ok(0)) || closed.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
    }
    let waited = started.elapsed();
    assert!(waited < Duration::from_secs(15), "{waited:?}");
}

#[test]
fn the_reply_names_the_request_it_answers() {
    let cluster = Cluster::start(1, &["--seed", "4"]);
    let member = cluster.cluster.member(ServerId(1)).unwrap();
    let stream = TcpStream::connect(member.client).unwrap();
    connect_handshake(&stream, &Hello { members: ServerSet::first(1), ..hello(Caller::Client) }).unwrap();
    let mut reader = FrameReader::new(stream.try_clone().unwrap(), CLIENT_FRAME_MAX_BYTES);
    for number in [7, 3] {
        let context = TraceContext { parent: None, req: Some("c9-1".to_string()) };
        (&stream).write_all(&frame(&ClientRequest { number, context, request: Request::Status })).unwrap();
        let reply: ClientReply = reader.read(None).unwrap().unwrap();
        assert_eq!(reply.number, number);
    }
}
