//! Callers that send nothing, or do not identify themselves: they keep no other caller out. And requests with extreme
//! numbers: they are refused, and the server continues.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use paxos_kv::net::{
    CLIENT_FRAME_MAX_BYTES, Caller, ClientReply, ClientRequest, FrameReader, Hello, Reply, Request, connect_handshake,
    frame, preamble,
};
use paxos_kv::paxos::{ChunkRequest, PartToken, Slot};
use paxos_kv::role::ServerId;
use paxos_kv::trace::TraceContext;
use support::{Cluster, await_value};

/// More than any port has places for strangers.
const SILENT: usize = 150;
/// A server that is back has its links after this time, whatever strangers do.
const LINKED_WITHIN: Duration = Duration::from_secs(2);

/// Callers that fill a port: each one that is closed connects again. Dropping this ends them.
struct ConnectionFlood {
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl ConnectionFlood {
    /// Fills a port with callers of which each says these bytes one by one, and one a second at most.
    fn at(address: SocketAddr, words: &'static [u8]) -> ConnectionFlood {
        let is_over = Arc::new(AtomicBool::new(false));
        let call = move || {
            let stream = TcpStream::connect(address).ok()?;
            stream.set_nonblocking(true).ok()?;
            Some(stream)
        };
        let mut callers: Vec<Option<TcpStream>> = (0..SILENT).map(|_| call()).collect();
        let over = is_over.clone();
        let thread = thread::spawn(move || {
            for round in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                for caller in &mut callers {
                    let is_closed = |mut stream: &TcpStream| {
                        !stream.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
                    };
                    if caller.as_ref().is_none_or(is_closed) {
                        *caller = call();
                    } else if let (Some(mut stream), Some(word)) = (caller.as_ref(), words.get(round / 50)) {
                        let _ = stream.write_all(&[*word]);
                    }
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        ConnectionFlood { is_over, thread: Some(thread) }
    }
}

impl Drop for ConnectionFlood {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn silent_callers_keep_no_server_out() {
    let mut cluster = Cluster::start(3, &["--seed", "1"]);
    cluster.kill(&[3]);
    let peers = [1, 2].map(|id| cluster.cluster.member(ServerId(id)).unwrap().peer);
    let _crowds = peers.map(|peer| ConnectionFlood::at(peer, b"PXKV"));
    cluster.start_server(3);
    await_value("the server answers", || cluster.status(3));
    let started = Instant::now();
    for id in 1..=3 {
        await_value("all are connected", || cluster.status(id).filter(|status| status.connected.len() == 2));
    }
    assert!(started.elapsed() < LINKED_WITHIN, "linked after {:?}", started.elapsed());
    cluster.client("c1", 3).put(b"k", b"v").unwrap();
    cluster.await_agreement();
}

#[test]
fn silent_callers_keep_no_client_out() {
    let cluster = Cluster::start(1, &["--seed", "2"]);
    let mut before = cluster.client("c1", 1);
    before.put(b"k", b"before").unwrap();
    let _crowd = ConnectionFlood::at(cluster.cluster.member(ServerId(1)).unwrap().client, b"PXKV\x04");
    for _ in 0..20 {
        assert_eq!(cluster.client("c2", 1).get(b"k").unwrap().value.unwrap(), b"before");
    }
    assert_eq!(before.get(b"k").unwrap().value.unwrap(), b"before", "a connection after its handshake is not closed");
}

#[test]
fn silent_callers_and_viewers_keep_no_browser_out() {
    let cluster = Cluster::start_with_page(1, &["--seed", "3"]);
    let page = cluster.page_of(1);
    let _crowd = ConnectionFlood::at(page, b"GET /");
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(page).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {page}\r\n\r\n").as_bytes()).unwrap();
        stream
    };
    let status_of = |mut stream: &TcpStream| {
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        String::from_utf8_lossy(&head[9..]).into_owned()
    };
    let viewers: Vec<TcpStream> =
        ["/feed", "/events"].into_iter().flat_map(|path| (0..70).map(move |_| path)).map(ask).collect();
    let statuses: Vec<String> = viewers.iter().map(status_of).collect();
    let watch = |of: &[String]| of.iter().filter(|status| *status == "200").count();
    assert_eq!((watch(&statuses[..70]), watch(&statuses[70..])), (64, 16), "{statuses:?}");
    assert!(statuses.iter().all(|status| status == "200" || status == "503"), "{statuses:?}");
    for _ in 0..20 {
        assert_eq!(status_of(&ask("/status")), "200");
    }
}

/// A client's connection to the first server.
fn greeted(cluster: &Cluster) -> FrameReader {
    let stream = TcpStream::connect(cluster.cluster.member(ServerId(1)).unwrap().client).unwrap();
    let members = cluster.cluster.servers();
    let hello = Hello { cluster: "test".to_string(), to: ServerId(1), members, who: Caller::Client };
    connect_handshake(&stream, &hello).unwrap();
    FrameReader::new(stream, CLIENT_FRAME_MAX_BYTES)
}

/// The reply to a request; None if the connection is closed.
fn ask(client: &mut FrameReader, request: Request) -> Option<Reply> {
    let mut stream = client.stream();
    stream.write_all(&frame(&ClientRequest { number: 1, context: TraceContext::default(), request })).ok()?;
    let reply = client.read::<ClientReply>(Some(Instant::now() + support::PATIENCE));
    reply.unwrap_or(None).map(|reply| reply.reply)
}

#[test]
fn stranger_is_not_read_beyond_the_length_of_a_hello() {
    let cluster = Cluster::start(1, &["--seed", "5"]);
    let member = cluster.cluster.member(ServerId(1)).unwrap();
    for address in [member.peer, member.client] {
        // The frame is within the limit for those who have greeted. No more of it comes, and the connection stays open.
        let large = frame(&vec![0u8; 1 << 20]);
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&[&preamble()[..], &large[..20]].concat()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        assert!(matches!(stream.read(&mut [0]), Ok(0)), "{address} waits for a greeting of a megabyte");
    }
}

#[test]
fn backups_by_clients_cause_at_most_one_checkpoint_per_second() {
    let cluster = Cluster::start(1, &["--seed", "6", "--steps", "off"]);
    let (mut client, mut backup) = (cluster.client("c1", 1), greeted(&cluster));
    let (started, mut not_ready) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_millis(3_500) {
        client.put(b"k", b"v").unwrap();
        let at_least = cluster.status(1).unwrap().applied;
        let reply = ask(&mut backup, Request::State { at_least, part: None }).unwrap();
        not_ready += usize::from(reply == Reply::Chunk(None));
    }
    let checkpoints = cluster.log_text(1).lines().filter(|line| line.contains(" SNAPSHOT ")).count();
    assert!(not_ready > 20, "only {not_ready} states were not there yet: nothing is shown by so few");
    assert!((2..=4).contains(&checkpoints), "{checkpoints} checkpoints in 3.5 s, for {not_ready} wishes");
}

#[test]
fn meaningless_request_gets_a_reply_or_ends_its_connection_but_never_the_server() {
    let cluster = Cluster::start(1, &["--seed", "4", "--checkpoint-slots", "20"]);
    let mut client = cluster.client("c1", 1);
    client.put(b"k", b"v").unwrap();
    let ask = |request: Request| ask(&mut greeted(&cluster), request);
    let name = |slot, token| Some(ChunkRequest { slot: Slot(slot), index: 0, token });
    let tokens = [PartToken::Session(u64::MAX), PartToken::Key(vec![255; 3]), PartToken::first()];
    // A request for a slot that no server has applied starts no checkpoint.
    for _ in 0..3 {
        assert_eq!(ask(Request::State { at_least: Slot::LAST, part: None }), Some(Reply::Chunk(None)));
    }
    assert_eq!(cluster.status(1).unwrap().checkpoint, Slot(0));
    // Before there is a checkpoint, and after.
    for round in 0..2 {
        for (slot, token) in
            [0, 1, 20, Slot::LAST.0].into_iter().flat_map(|slot| tokens.clone().map(|token| (slot, token)))
        {
            let reply = ask(Request::State { at_least: Slot(0), part: name(slot, token) });
            assert!(matches!(reply, Some(Reply::Chunk(_))), "round {round}, slot {slot}: {reply:?}");
        }
        let reply = ask(Request::State { at_least: Slot::LAST, part: None });
        assert_eq!(reply, Some(Reply::Chunk(None)), "no server has applied that slot");
        assert_eq!(ask(Request::State { at_least: Slot(u64::MAX), part: None }), None, "there is no such slot");
        for _ in 0..30 {
            client.put(b"k", b"v").unwrap();
        }
        await_value("a checkpoint is there", || cluster.status(1).filter(|status| status.checkpoint > Slot(0)));
    }
    assert_eq!(client.get(b"k").unwrap().value.unwrap(), b"v");
}
