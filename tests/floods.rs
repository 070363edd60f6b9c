//! Floods of clients that make a server hold bytes: its memory stays within the limits of `docs/architecture.md`, other
//! clients are served meanwhile, and the log says in a few lines whom it has closed.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use paxos_kv::host::budget::GRACE;
use paxos_kv::host::checkpoints::{CLIENT_CHECKPOINTS_PER_SECOND, CLIENT_PARTS_MAX, PARTS_MAX};
use paxos_kv::host::connected_peers::CONNECTIONS_OF_A_PEER;
use paxos_kv::host::limits::{
    ALL_REQUESTS_MAX, ALL_REQUESTS_MAX_BYTES, ALL_UNFINISHED_MAX_BYTES, ALL_UNREAD_REPLIES_MAX_BYTES,
    BROWSERS_UNIDENTIFIED_MAX, CLIENTS_MAX, CLIENTS_UNIDENTIFIED_MAX, HTTP_REQUESTS_MAX, PEERS_UNIDENTIFIED_MAX,
    RELAYS_MAX, REQUESTS_MAX, REQUESTS_MAX_BYTES, UNFINISHED_FREE_BYTES, UNREAD_REPLIES_FREE_BYTES,
    UNREAD_REPLIES_MAX_BYTES, VIEWERS_MAX,
};
use paxos_kv::kv::Op;
use paxos_kv::net::{
    CLIENT_FRAME_MAX_BYTES, Caller, ClientRequest, FRAME_DEADLINE, HANDSHAKE_DEADLINE, HANDSHAKE_FRAME_MAX_BYTES,
    Hello, PEER_FRAME_MAX_BYTES, Request, allow_many_sockets, connect_handshake, frame,
};
use paxos_kv::paxos::Slot;
use paxos_kv::role::ServerId;
use paxos_kv::trace::TraceContext;
use socket2::{Domain, Socket, Type};
use support::{Cluster, await_value, peak_kib};

/// No flood may make a server take more.
const MEMORY_MAX_KIB: u64 = 256 << 10;
/// An honest request may take this long while a flood lasts: its time-out is far longer.
const SERVED_WITHIN: Duration = Duration::from_secs(5);
/// How long the leader of three servers is flooded.
const FLOODED: Duration = Duration::from_secs(6);
/// A value that needs room in the budgets of clients.
const LARGE: usize = 200 << 10;

/// A client's connection that does what it likes. What it does not read stays with the server: its own system takes
/// little.
fn greeted(cluster: &Cluster, id: u8) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.connect(&cluster.cluster.member(ServerId(id)).unwrap().client.into()).unwrap();
    let stream = TcpStream::from(socket);
    let members = cluster.cluster.servers();
    let hello = Hello { cluster: "test".to_string(), to: ServerId(id), members, who: Caller::Client };
    connect_handshake(&stream, &hello).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

fn request(request: Request) -> Vec<u8> {
    frame(&ClientRequest { number: 1, context: TraceContext::default(), request })
}

/// The largest request but for its last byte.
fn half_request() -> Vec<u8> {
    let op = Op::Put { key: b"k".to_vec(), value: vec![7; CLIENT_FRAME_MAX_BYTES - 1_000].into(), if_version: None };
    let mut bytes = request(Request::Write { session: 1, nonce: 1, sequence: 1, first_open: 1, op });
    bytes.pop();
    bytes
}

/// Says as much of these bytes as is taken, to each connection that is open; says how many have taken all or are
/// closed.
fn push(flood: &mut [(Option<TcpStream>, usize)], bytes: &[u8]) -> usize {
    let mut done = 0;
    for (connection, sent) in flood {
        let Some(stream) = connection else {
            done += 1;
            continue;
        };
        match (&*stream).write(&bytes[*sent..]) {
            Ok(count) => *sent += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => *connection = None,
        }
        done += usize::from(*sent == bytes.len());
    }
    done
}

/// Whether the server has closed it. Nothing is said on it otherwise.
fn is_closed(mut stream: &TcpStream) -> bool {
    !stream.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

/// Says that a flood is over, also if it ends with a panic: or else the honest would be waited for without end.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs honest clients of a server beside a flood; gives how many requests were served, and the longest time that one
/// took.
fn serve_during<T>(cluster: &Cluster, id: u8, flood: impl FnOnce() -> T) -> (T, usize, Duration) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let honest = scope.spawn(|| {
            let mut client = cluster.client("honest", id);
            let (mut served, mut longest) = (0, Duration::ZERO);
            // A few more when all is quiet again.
            let mut left = 5;
            while left > 0 {
                left -= usize::from(is_over.load(Ordering::Relaxed));
                let started = Instant::now();
                let value = vec![served as u8; if served % 2 == 0 { 10 } else { LARGE }];
                client.put(b"honest", &value).unwrap();
                assert_eq!(client.get(b"honest").unwrap().value.unwrap(), value);
                longest = longest.max(started.elapsed());
                served += 1;
            }
            (served, longest)
        });
        println!("before: {} MiB", peak_kib(cluster.pid(id)) >> 10);
        let ending = StopOnDrop(&is_over);
        let done = flood();
        drop(ending);
        let (served, longest) = honest.join().unwrap();
        (done, served, longest)
    })
}

/// The lines about clients that were closed: at least one, and not more than one a second.
fn closed_lines(cluster: &Cluster, cause: &str, started: Instant) -> Vec<String> {
    let of = |lines: String| -> Vec<String> {
        let is_one = |line: &&str| line.contains(" FAULT ") && line.contains("part=clients") && line.contains(cause);
        lines.lines().filter(is_one).map(str::to_string).collect()
    };
    let lines = await_value("a line names the closed client", || {
        let lines = of(cluster.log_text(1));
        (!lines.is_empty()).then_some(lines)
    });
    assert!(lines.len() as u64 <= started.elapsed().as_secs() + 1, "{lines:?}");
    lines
}

fn server() -> Cluster {
    allow_many_sockets();
    Cluster::start(1, &["--seed", "1", "--segment-kib", "4096", "--steps", "off", "--checkpoint-slots", "20"])
}

#[test]
fn unfinished_requests_of_a_thousand_clients_fit_into_memory_and_delay_no_other_client() {
    let cluster = server();
    let started = Instant::now();
    let bytes = half_request();
    let mut flood: Vec<_> = (0..1_150).map(|_| (Some(greeted(&cluster, 1)), 0)).collect();
    let (open, served, longest) = serve_during(&cluster, 1, || {
        while push(&mut flood, &bytes) < flood.len() {
            assert!(started.elapsed() < support::PATIENCE, "the server reads no more");
        }
        // What is left of the flood stays, and so do the others.
        thread::sleep(Duration::from_secs(1));
        flood.iter().filter(|(connection, _)| connection.is_some()).count()
    });
    let peak = peak_kib(cluster.pid(1));
    println!("half requests: peak {} MiB, {served} served, {longest:?} at most, {open} still open", peak >> 10);
    assert!(peak <= MEMORY_MAX_KIB, "{peak} KiB");
    let lines = closed_lines(&cluster, "unfinished", started);
    println!("{}", lines.join("\n"));
    assert!(longest < SERVED_WITHIN, "{longest:?}");
    let malformed = cluster.log_text(1).lines().filter(|line| line.contains(" MALFORMED ")).count();
    assert_eq!(malformed, 0, "they are told together");
}

/// What has become of the links and the leaders of three servers so far.
fn leader_changes(cluster: &Cluster) -> Vec<String> {
    let is_one = |line: &&str| [" LINK ", " LEAD ", " STEPDOWN "].iter().any(|word| line.contains(word));
    let of = |id| cluster.log_text(id).lines().filter(is_one).map(str::to_string).collect::<Vec<_>>();
    (1..=3).flat_map(of).collect()
}

/// On a machine that has no time for a server for 300 ms its leader changes without any flood. So one of three floods
/// must pass undisturbed; where readers of peers shared the budget of clients none did.
#[test]
fn unfinished_requests_cost_a_leader_no_link_and_no_follower() {
    allow_many_sockets();
    let disturbed: Vec<String> = (0..3).map_while(|_| flood_a_leader().err()).collect();
    assert!(disturbed.len() < 3, "{disturbed:#?}");
}

/// Err says what has changed while the flood lasted.
fn flood_a_leader() -> Result<(), String> {
    let cluster =
        Cluster::start(3, &["--seed", "1", "--protocol", "multi-paxos", "--segment-kib", "4096", "--steps", "off"]);
    let leader = cluster.await_leader(&[1, 2, 3]);
    cluster.client("first", leader).put(b"first", b"write").unwrap();
    let before = leader_changes(&cluster);
    let started = Instant::now();
    let bytes = half_request();
    let mut flood: Vec<_> = (0..300).map(|_| (None, 0)).collect();
    let mut came = 0;
    // A follower forwards its requests to the leader over a link, in frames that are larger than a first buffer.
    let (kept, served, longest) = serve_during(&cluster, leader % 3 + 1, || {
        while started.elapsed() < FLOODED {
            // Each closed client connects again, so that the flood lasts.
            for (connection, sent) in flood.iter_mut().filter(|(one, _)| one.as_ref().is_none_or(is_closed)) {
                (*connection, *sent, came) = (Some(greeted(&cluster, leader)), 0, came + 1);
            }
            push(&mut flood, &bytes);
            let all = [1, 2, 3].map(|id| cluster.status(id).unwrap());
            let is_linked = all.iter().all(|status| status.connected.len() == 2);
            if !is_linked || all[usize::from(leader) - 1].leads().is_none() {
                return Err(format!("{all:?}"));
            }
        }
        Ok(())
    });
    kept?;
    println!("at a leader: {came} half requests, {served} served, {longest:?} at most");
    assert!(cluster.log_text(leader).contains("unfinished"), "the flood was none");
    assert!(longest < SERVED_WITHIN, "{longest:?}");
    let after = leader_changes(&cluster);
    if after != before {
        return Err(format!("{after:#?}"));
    }
    cluster.client("last", leader).put(b"last", b"write").unwrap();
    Ok(())
}

#[test]
fn unread_replies_of_two_hundred_clients_fit_into_memory_and_delay_no_other_client() {
    let cluster = server();
    let mut writer = cluster.client("writer", 1);
    for n in 0..30 {
        writer.put(format!("k{n}").as_bytes(), vec![n; 900_000]).unwrap();
    }
    await_value("a checkpoint is there", || cluster.status(1).filter(|status| status.checkpoint > Slot(0)));
    let started = Instant::now();
    let bytes = request(Request::State { at_least: Slot(0), part: None });
    let mut flood: Vec<_> = (0..200).map(|_| (Some(greeted(&cluster, 1)), 0)).collect();
    let (open, served, longest) = serve_during(&cluster, 1, || {
        // Each asks at least eight times.
        let (mut rounds, mut full) = (0, None);
        while full.is_none_or(|full: Instant| full.elapsed() < Duration::from_secs(2)) || rounds < 8 {
            assert!(started.elapsed() < support::PATIENCE);
            push(&mut flood, &bytes);
            flood.iter_mut().for_each(|(_, sent)| *sent = 0);
            rounds += 1;
            full = full.or_else(|| cluster.log_text(1).contains("unread replies").then(Instant::now));
            thread::sleep(Duration::from_millis(10));
        }
        flood.iter().filter(|(connection, _)| connection.is_some()).count()
    });
    let peak = peak_kib(cluster.pid(1));
    println!("unread replies: peak {} MiB, {served} served, {longest:?} at most, {open} still open", peak >> 10);
    assert!(peak <= MEMORY_MAX_KIB, "{peak} KiB");
    let lines = closed_lines(&cluster, "unread replies", started);
    println!("{}", lines.join("\n"));
    assert!(longest < SERVED_WITHIN, "{longest:?}");
}

#[test]
fn unread_values_of_two_hundred_clients_fit_into_memory() {
    let cluster = server();
    cluster.client("writer", 1).put(b"large", vec![7; 1 << 20]).unwrap();
    let started = Instant::now();
    let bytes = request(Request::Get { key: b"large".to_vec() }).repeat(20);
    let mut flood: Vec<_> = (0..200).map(|_| (Some(greeted(&cluster, 1)), 0)).collect();
    let (open, served, longest) = serve_during(&cluster, 1, || {
        while push(&mut flood, &bytes) < flood.len() {
            assert!(started.elapsed() < support::PATIENCE);
        }
        thread::sleep(Duration::from_secs(2));
        flood.iter().filter(|(connection, _)| connection.is_some()).count()
    });
    let peak = peak_kib(cluster.pid(1));
    println!("unread values: peak {} MiB, {served} served, {longest:?} at most, {open} still open", peak >> 10);
    assert!(peak <= MEMORY_MAX_KIB, "{peak} KiB");
    assert!(longest < SERVED_WITHIN, "{longest:?}");
}

/// A number of bytes, as the table writes it.
fn size(bytes: usize) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

/// A number, as the table says it.
fn count(number: usize) -> String {
    if number < 1_000 { number.to_string() } else { format!("{},{:03}", number / 1_000, number % 1_000) }
}

/// What the table must say: a class, one connection, all together.
fn limits() -> Vec<(&'static str, String, String)> {
    let greeting = format!("{}, {} s", size(HANDSHAKE_FRAME_MAX_BYTES), HANDSHAKE_DEADLINE.as_secs());
    let frame = |most| format!("one frame of {}, {} s", size(most), FRAME_DEADLINE.as_secs());
    let beside = |all, each| format!("{}, and {} a connection", size(all), size(each));
    let both = |number, bytes| format!("{}, {}", count(number), size(bytes));
    let peer = size(CONNECTIONS_OF_A_PEER * PEER_FRAME_MAX_BYTES);
    let (nothing, page) = (String::new, || "512 lines, 256 KiB".to_string());
    vec![
        ("callers that have not greeted, at the port for servers", greeting.clone(), count(PEERS_UNIDENTIFIED_MAX)),
        ("the same, at the port for clients", greeting, count(CLIENTS_UNIDENTIFIED_MAX)),
        ("the same, at the port for browsers", "8 KiB, 5 s".to_string(), count(BROWSERS_UNIDENTIFIED_MAX)),
        (
            "connections of servers",
            frame(PEER_FRAME_MAX_BYTES),
            format!("{CONNECTIONS_OF_A_PEER} a server, so {peer} a server"),
        ),
        ("connections of clients", frame(CLIENT_FRAME_MAX_BYTES), count(CLIENTS_MAX)),
        (
            "unfinished requests of clients",
            format!("one, {}", size(CLIENT_FRAME_MAX_BYTES)),
            beside(ALL_UNFINISHED_MAX_BYTES, UNFINISHED_FREE_BYTES),
        ),
        (
            "requests of clients under way",
            both(REQUESTS_MAX, REQUESTS_MAX_BYTES),
            both(ALL_REQUESTS_MAX, ALL_REQUESTS_MAX_BYTES),
        ),
        (
            "replies that clients have not taken",
            format!("{}, 30 s", size(UNREAD_REPLIES_MAX_BYTES)),
            beside(ALL_UNREAD_REPLIES_MAX_BYTES, UNREAD_REPLIES_FREE_BYTES),
        ),
        ("parts of the state that servers wait for", nothing(), count(PARTS_MAX)),
        ("parts of the state that clients wait for, after servers", nothing(), count(CLIENT_PARTS_MAX)),
        (
            "checkpoints that are made because a client wants a newer state",
            nothing(),
            format!("{CLIENT_CHECKPOINTS_PER_SECOND} a second"),
        ),
        ("browsers that watch", page(), count(VIEWERS_MAX)),
        ("servers that take the lines for theirs (`/feed`)", page(), count(RELAYS_MAX)),
        ("other requests of browsers", "one answer, 5 s".to_string(), count(HTTP_REQUESTS_MAX)),
    ]
}

#[test]
fn the_table_of_limits_says_what_the_code_does() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/architecture.md")).unwrap();
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_string()).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = text.lines().filter(|line| line.starts_with('|')).map(cells).collect();
    for (class, one, all) in limits() {
        let row = rows.iter().find(|row| row[0] == class).unwrap_or_else(|| panic!("there is no row {class:?}"));
        assert_eq!((&row[1], &row[2]), (&one, &all), "{class}");
    }
    assert!(text.contains(&format!("against {} under three floods", size(MEMORY_MAX_KIB as usize * 1_024))));
    assert!(text.contains(&format!("and for {} ms", GRACE.as_millis())));
}
