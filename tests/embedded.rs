//! Servers as values: several in one process, which start and stop without leaving anything.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use paxos_kv::net::{Caller, ClientRequest, Hello, Request, frame, greeting, preamble};
use paxos_kv::role::ServerId;
use paxos_kv::trace::TraceContext;
use paxos_kv::{Client, ClientOptions, Cluster, Member, Server, ServerOptions, StartError};
use support::{PATIENCE, await_value, free_address};

/// One test at a time: each looks at the threads of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// A cluster whose servers run in this process.
struct Servers {
    dir: tempfile::TempDir,
    cluster: Cluster,
    running: BTreeMap<u8, Server>,
    _alone: MutexGuard<'static, ()>,
}

impl Servers {
    fn prepare(count: u8) -> Servers {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let member = |id| (id, Member { http: Some(free_address()), ..Member::new(free_address(), free_address()) });
        let cluster = Cluster::from_members("embedded", (1..=count).map(member)).unwrap();
        Servers { dir: tempfile::tempdir().unwrap(), cluster, running: BTreeMap::new(), _alone: alone }
    }

    fn start(count: u8) -> Servers {
        let mut servers = Servers::prepare(count);
        (1..=count).for_each(|id| servers.run(id));
        servers
    }

    fn options(&self, id: u8) -> ServerOptions {
        let mut options = ServerOptions::new(id, self.cluster.clone());
        options.data = Some(self.dir.path().join(format!("server-{id}")));
        options.log_dir = Some(self.dir.path().to_path_buf());
        options.quiet = true;
        options
    }

    fn run(&mut self, id: u8) {
        self.running.insert(id, Server::start(self.options(id)).unwrap());
    }

    fn stop(&mut self, id: u8) {
        self.running.remove(&id).unwrap().stop().unwrap();
    }

    fn client(&self, server: u8) -> Client {
        let mut options = ClientOptions::new(self.cluster.clone(), "tester");
        options.first_server = Some(ServerId(server));
        options.timeout = PATIENCE;
        Client::new(options).unwrap()
    }

    fn lines_of(&self, id: u8) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("server-{id}.log"))).unwrap()
    }
}

/// The threads of this process that are no tests: tests run in threads that have their names.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread may end meanwhile.
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    let binary = std::fs::read_to_string("/proc/self/comm").unwrap();
    let mut names: Vec<String> = names.filter(|name| *name != binary && !name.contains('_')).collect();
    names.sort();
    names
}

fn await_no_threads() {
    let mut left = Vec::new();
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        left = threads();
        if left.is_empty() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("threads are left: {left:?}");
}

#[test]
fn stopped_server_starts_again_on_its_data() {
    let mut servers = Servers::start(1);
    servers.client(1).put("color", "blue").unwrap();
    for life in 2..=4 {
        servers.stop(1);
        let lines = servers.lines_of(1);
        assert!(lines.lines().last().unwrap().contains(" STOP "), "no line follows: {lines}");
        servers.run(1);
        let read = servers.client(1).get("color").unwrap();
        assert_eq!((read.value.as_deref(), read.version), (Some(&b"blue"[..]), 1));
        assert!(servers.lines_of(1).contains(&format!(" incarnation={life} ")));
    }
}

#[test]
fn second_server_on_the_same_addresses_or_data_is_refused_and_leaves_nothing() {
    let mut servers = Servers::start(1);
    let error = Server::start(servers.options(1)).unwrap_err();
    assert!(matches!(error, StartError::AddressInUse(_)), "{error}");
    let members = [(1, Member::new(free_address(), free_address()))];
    let elsewhere = Cluster::from_members("embedded", members).unwrap();
    let error = Server::start(ServerOptions { cluster: elsewhere.clone().into(), ..servers.options(1) }).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    let member = elsewhere.member(ServerId(1)).unwrap();
    for address in [member.peer, member.client] {
        TcpListener::bind(address).unwrap();
    }
    let error = Server::start(ServerOptions { segment_kib: 0, ..servers.options(1) }).unwrap_err();
    assert!(error.to_string().contains("segment_kib = 0"), "{error}");
    let error = Server::start(ServerOptions { id: 7, ..servers.options(1) }).unwrap_err();
    assert!(error.to_string().contains("cluster \"embedded\" has no server 7"), "{error}");
    servers.stop(1);
    await_no_threads();
}

#[test]
fn server_whose_roles_cannot_start_leaves_nothing() {
    let mut servers = Servers::start(1);
    servers.client(1).put("color", "blue").unwrap();
    servers.stop(1);
    // The acceptor starts before the proposer, whose file is missing.
    let rounds = servers.options(1).data.unwrap().join("rounds");
    let away = rounds.with_extension("away");
    std::fs::rename(&rounds, &away).unwrap();
    let error = Server::start(servers.options(1)).unwrap_err();
    assert!(matches!(error, StartError::Failed(_)), "{error}");
    await_no_threads();
    std::fs::rename(away, rounds).unwrap();
    servers.run(1);
    assert_eq!(servers.client(1).get("color").unwrap().version, 1);
}

#[test]
fn two_of_five_servers_stop_and_writes_go_on() {
    let mut servers = Servers::start(5);
    let mut client = servers.client(4);
    client.put("count", "0").unwrap();
    servers.stop(4);
    servers.stop(5);
    for count in 1..=20 {
        client.put("count", count.to_string()).unwrap();
    }
    servers.run(4);
    // It is asked again until it has met its peers.
    await_value("server 4 answers", || {
        client.set_server(ServerId(4)).unwrap();
        let read = client.get("count").unwrap();
        assert_eq!(read.value.as_deref(), Some(&b"20"[..]));
        (client.server() == ServerId(4)).then_some(())
    });
}

#[test]
fn no_thread_is_left_of_servers_with_viewers_and_silent_callers() {
    let mut servers = Servers::start(3);
    let mut client = servers.client(1);
    client.put("color", "blue").unwrap();
    let member = servers.cluster.member(ServerId(1)).unwrap();
    // A browser makes server 1 fetch the lines of the others.
    let page = member.http.unwrap();
    let mut browser = TcpStream::connect(page).unwrap();
    write!(browser, "GET /events HTTP/1.1\r\nHost: {page}\r\n\r\n").unwrap();
    await_value("lines of server 2 arrive", || {
        let mut text = [0; 4 << 10];
        let length = browser.read(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).contains(" s2.").then_some(())
    });
    // Callers that say nothing or half of a greeting, and one that says who it is and then nothing.
    let mut half = TcpStream::connect(member.client).unwrap();
    half.write_all(&preamble()[..3]).unwrap();
    let silent = [member.peer, member.client, page].map(|address| TcpStream::connect(address).unwrap());
    let mut known = TcpStream::connect(member.client).unwrap();
    let (members, to) = (servers.cluster.servers(), ServerId(1));
    let hello = Hello { cluster: "embedded".to_string(), to, members, who: Caller::Client };
    known.write_all(&greeting(&hello)).unwrap();
    assert!(known.read(&mut [0; 64]).unwrap() > 0);
    // It asks for more than it reads, and will not ask again.
    client.put("large", vec![0; 1 << 20]).unwrap();
    let (request, context) = (Request::Get { key: b"large".to_vec() }, TraceContext::default());
    known.write_all(&frame(&ClientRequest { number: 1, context, request }).repeat(6)).unwrap();
    known.shutdown(Shutdown::Write).unwrap();
    await_value("a thread writes to the slow client", || {
        threads().contains(&"slow-client\n".to_string()).then_some(())
    });
    // The address of server 3 accepts connections and never replies: neither to links, which send HELLO, nor to the relay.
    servers.stop(3);
    let gone = servers.cluster.member(ServerId(3)).unwrap();
    let [deaf, deaf_page] = [gone.peer, gone.http.unwrap()].map(|address| TcpListener::bind(address).unwrap());
    let heard = ([(); 2].map(|()| deaf.accept().unwrap().0), deaf_page.accept().unwrap().0);
    assert!(!threads().is_empty());
    let begun = Instant::now();
    servers.stop(1);
    servers.stop(2);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    drop(client);
    await_no_threads();
    for mut caller in silent.into_iter().chain([half]) {
        assert_eq!(caller.read(&mut [0]).unwrap_or(0), 0, "it is closed");
    }
    let lines = servers.lines_of(1);
    assert!(lines.lines().last().unwrap().contains(" STOP ") && !lines.contains(" MALFORMED "), "{lines}");
    drop((deaf, deaf_page, heard));
    for (_, Member { peer, client, http }) in servers.cluster.members() {
        [Some(peer), Some(client), http]
            .into_iter()
            .flatten()
            .for_each(|address| drop(TcpListener::bind(address).unwrap()));
    }
}

#[test]
fn no_thread_is_left_of_a_server_that_is_dropped() {
    let mut servers = Servers::start(3);
    servers.client(2).put("color", "blue").unwrap();
    drop(std::mem::take(&mut servers.running));
    await_no_threads();
    servers.run(1);
    servers.run(2);
    assert_eq!(servers.client(1).get("color").unwrap().version, 1);
}
