//! Real servers that do not belong together, and what each reports: different cluster files, data directories that are
//! replaced and restored, strangers in a server's name. Also: no storage id leaves the servers.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use paxos_kv::client::{Client, ClientOptions};
use paxos_kv::cluster;
use paxos_kv::kv::Op;
use paxos_kv::net::{
    CLIENT_FRAME_MAX_BYTES, Caller, ClientReply, ClientRequest, FrameReader, HandshakeError, Hello, Reply, Request,
    connect_handshake, frame,
};
use paxos_kv::paxos::Slot;
use paxos_kv::role::{ServerId, ServerSet};
use paxos_kv::trace::TraceContext;
use support::{Cluster, await_value};

/// A nonce that stands nowhere by chance.
const NONCE: u128 = 0x9d3b_57c1_e80f_4a26_b17c_2e95_d06f_83a4;

/// The cluster file of the first servers alone.
fn file_of_first(cluster: &Cluster, count: usize) -> std::path::PathBuf {
    let text = fs::read_to_string(cluster.file()).unwrap();
    let servers: Vec<&str> = text.split("[[server]]").collect();
    let file = cluster.dir.path().join(format!("first-{count}.toml"));
    fs::write(&file, servers[..=count].join("[[server]]")).unwrap();
    file
}

fn tool(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_paxos-server")).args(arguments).output().unwrap()
}

fn output_text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// Waits until a server knows a peer's folder as the one that takes part.
fn await_bound(cluster: &Cluster, at: u8, peer: u8) {
    await_value("the peer's data directory is bound", || {
        let text = fs::read_to_string(cluster.data_dir(at).join("identity.toml")).ok()?;
        let (_, known) = text.split_once(&format!("[peers.s{peer}]\n"))?;
        known.split('[').next()?.contains("bound = true").then_some(())
    });
}

#[test]
fn servers_of_a_cluster_do_not_start_as_members_of_a_smaller_one() {
    let mut cluster = Cluster::start(5, &["--seed", "1"]);
    cluster.client("c1", 1).put(b"k", b"old").unwrap();
    cluster.kill(&[1, 2, 3, 4, 5]);
    let three = file_of_first(&cluster, 3);
    for id in [1, 2] {
        cluster.start_server_with(id, &["--cluster", &three.to_string_lossy()]);
        assert!(!cluster.await_exit(id).success());
        let why = cluster.stderr_text(id);
        assert!(
            why.contains("it belongs to cluster \"test\" with servers 1-5, and the cluster file lists 1-3"),
            "{why}"
        );
    }
    // Other addresses are no other servers.
    let text = fs::read_to_string(cluster.file()).unwrap();
    let address = cluster.cluster.member(ServerId(5)).unwrap().client.to_string();
    fs::write(cluster.file(), text.replace(&address, &support::free_address().to_string())).unwrap();
    cluster.cluster = cluster::Cluster::read(&cluster.file()).unwrap();
    (1..=5).for_each(|id| cluster.start_server(id));
    cluster.await_all();
    assert_eq!(cluster.client("c2", 5).get(b"k").unwrap().value.as_deref(), Some(&b"old"[..]));
}

#[test]
fn servers_and_clients_whose_files_differ_refuse_each_other_with_both_lists() {
    let mut cluster = Cluster::prepare(5, &["--seed", "1"]);
    let three = file_of_first(&cluster, 3);
    // Empty folders: nothing tells them which file is the right one.
    cluster.start_server_with(1, &["--cluster", &three.to_string_lossy()]);
    (2..=5).for_each(|id| cluster.start_server(id));
    await_value("each of the others refuses it", || {
        let lines: Vec<String> = (2..=3).map(|id| cluster.log_text(id)).collect();
        let why = "server 1's cluster file lists servers 1-3, server ";
        lines
            .iter()
            .all(|lines| lines.contains(why) && lines.contains("one of the two cluster files is wrong"))
            .then_some(())
    });
    cluster.client("c1", 2).put(b"k", b"v").unwrap();
    assert!(cluster.status(1).is_none(), "nor does a client with the other file speak to it");
    let small = cluster::Cluster::read(&three).unwrap();
    let mut options = ClientOptions::new(small, "c2");
    options.first_server = Some(ServerId(2));
    let mut client = Client::new(options).unwrap();
    let why = client.status(ServerId(2)).unwrap_err().to_string();
    assert!(
        why.contains(
            "the client's cluster file lists servers 1-3, server 2's 1-5: one of the two cluster files is wrong"
        ),
        "{why}"
    );

    // With the right file it joins: its folder has not taken part, and becomes one of five.
    cluster.kill(&[1]);
    cluster.start_server(1);
    cluster.await_all();
    cluster.await_agreement();
}

#[test]
fn server_returns_with_its_own_data_directory_after_peers_met_another() {
    let mut cluster = Cluster::prepare(5, &["--seed", "1"]);
    // Server 5 is started for the first time while server 3 has an empty folder.
    (1..=4).for_each(|id| cluster.start_server(id));
    cluster.client("c1", 1).put(b"k", b"v").unwrap();
    await_bound(&cluster, 4, 3);
    cluster.kill(&[3]);
    let own = cluster.dir.path().join("own");
    fs::rename(cluster.data_dir(3), &own).unwrap();
    [3, 5].into_iter().for_each(|id| cluster.start_server(id));
    await_value("server 5 takes it for a new one", || {
        let known = ServerSet::only(ServerId(5));
        (cluster.status(3)?.admission?.witnesses == known).then_some(())
    });
    await_value("server 4 does not", || cluster.log_text(4).contains("another data directory than").then_some(()));
    cluster.kill(&[3]);
    fs::remove_dir_all(cluster.data_dir(3)).unwrap();
    fs::rename(&own, cluster.data_dir(3)).unwrap();
    cluster.start_server(3);
    cluster.await_all();
    cluster.await_agreement();
}

#[test]
fn claims_of_a_stranger_in_a_servers_name_are_not_recorded() {
    let mut cluster = Cluster::start(3, &["--seed", "1"]);
    let member = cluster.cluster.member(ServerId(1)).unwrap();
    [2, 3].into_iter().for_each(|peer| await_bound(&cluster, 1, peer));
    let before = fs::read(cluster.data_dir(1).join("identity.toml")).unwrap();
    for knows in [None, Some(7)] {
        let who =
            Caller::Peer { server: ServerId(2), storage: 9, incarnation: u32::MAX, boot: 1, is_active: true, knows };
        let hello = Hello { cluster: "test".to_string(), to: ServerId(1), members: ServerSet::first(3), who };
        let stream = TcpStream::connect(member.peer).unwrap();
        let greeted = connect_handshake(&stream, &hello);
        assert!(matches!(greeted, Err(HandshakeError::CallBackFirst)), "{greeted:?}");
    }
    assert_eq!(fs::read(cluster.data_dir(1).join("identity.toml")).unwrap(), before);
    cluster.kill(&[2]);
    cluster.start_server(2);
    cluster.await_all();
    cluster.client("c1", 2).put(b"k", b"v").unwrap();
}

#[test]
fn peer_that_lost_its_data_directory_returns_after_the_others_forget_it() {
    let mut cluster = Cluster::start(3, &["--seed", "1"]);
    cluster.client("c1", 1).put(b"k", b"v").unwrap();
    let dir = |id| cluster.data_dir(id).to_string_lossy().into_owned();
    let (one, two, three) = (dir(1), dir(2), dir(3));
    let running = tool(&["forget", &one, "--peer", "3"]);
    assert!(
        !running.status.success() && output_text(&running).contains("is in use by another process"),
        "{}",
        output_text(&running)
    );
    cluster.kill(&[1, 2, 3]);
    fs::remove_dir_all(&three).unwrap();
    let itself = tool(&["forget", &one, "--peer", "1"]);
    assert!(
        !itself.status.success() && output_text(&itself).contains("the data directory of server 1 itself"),
        "{}",
        output_text(&itself)
    );
    let nowhere = tool(&["forget", &three, "--peer", "1"]);
    assert!(!nowhere.status.success() && !Path::new(&three).exists(), "{}", output_text(&nowhere));
    for dir in [&one, &two] {
        let done = tool(&["forget", dir, "--peer", "3"]);
        assert!(done.status.success(), "{}", output_text(&done));
        assert!(output_text(&done).contains("has forgotten the data directory of server 3"), "{}", output_text(&done));
        assert!(
            output_text(&done).contains("safe only if the old directory is lost forever"),
            "{}",
            output_text(&done)
        );
        let again = tool(&["forget", dir, "--peer", "3"]);
        assert!(
            !again.status.success() && output_text(&again).contains("there is nothing to forget"),
            "{}",
            output_text(&again)
        );
    }
    (1..=3).for_each(|id| cluster.start_server(id));
    cluster.await_all();
    assert_eq!(cluster.client("c2", 3).get(b"k").unwrap().value.as_deref(), Some(&b"v"[..]));
    cluster.await_agreement();
}

#[test]
fn server_does_not_start_next_to_an_unfinished_restore() {
    let mut cluster = Cluster::prepare(1, &["--seed", "1"]);
    fs::create_dir_all(cluster.dir.path().join("data").join(".restore").join("server-1")).unwrap();
    cluster.start_server(1);
    assert!(!cluster.await_exit(1).success());
    let why = cluster.stderr_text(1);
    assert!(why.contains("belongs to a restore that did not finish") && why.contains("Run the restore again"), "{why}");
    assert!(!cluster.data_dir(1).exists());
}

/// What a page of the server's says.
fn page(address: SocketAddr, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let (mut bytes, mut block, until) = (Vec::new(), [0; 4_096], Instant::now() + Duration::from_secs(2));
    // Some pages never end.
    while Instant::now() < until {
        match stream.read(&mut block) {
            Ok(0) | Err(_) => break,
            Ok(count) => bytes.extend_from_slice(&block[..count]),
        }
    }
    assert!(bytes.starts_with(b"HTTP/1.1 200"), "{path}: {}", String::from_utf8_lossy(&bytes));
    bytes
}

/// Whether the bytes hold the number in any form.
fn holds(bytes: &[u8], number: u64) -> bool {
    let forms = [
        format!("{number:x}").into_bytes(),
        format!("{number:X}").into_bytes(),
        number.to_string().into_bytes(),
        number.to_le_bytes().to_vec(),
        number.to_be_bytes().to_vec(),
    ];
    forms.iter().any(|form| bytes.windows(form.len()).any(|window| window == form))
}

#[test]
fn no_storage_id_and_no_nonce_leaves_the_servers() {
    let mut cluster = Cluster::prepare(3, &["--seed", "1", "--checkpoint-slots", "5"]);
    fs::write(cluster.file(), support::cluster_file_with_page(3)).unwrap();
    cluster.cluster = cluster::Cluster::read(&cluster.file()).unwrap();
    (1..=3).for_each(|id| cluster.start_server(id));
    cluster.await_all();
    let mut client = cluster.client_with_log("c1", 1);
    for n in 0..30 {
        client.put(format!("k{n}").as_bytes(), b"v").unwrap();
    }
    // A session whose nonce this test knows, and a write in it.
    let stream = TcpStream::connect(cluster.cluster.member(ServerId(2)).unwrap().client).unwrap();
    let hello =
        Hello { cluster: "test".to_string(), to: ServerId(2), members: ServerSet::first(3), who: Caller::Client };
    connect_handshake(&stream, &hello).unwrap();
    let mut reader = FrameReader::new(stream.try_clone().unwrap(), CLIENT_FRAME_MAX_BYTES);
    let context = TraceContext { parent: None, req: Some("c2-1".to_string()) };
    let mut ask = |request| {
        (&stream).write_all(&frame(&ClientRequest { number: 1, context: context.clone(), request })).unwrap();
        reader.read::<ClientReply>(None).unwrap().unwrap().reply
    };
    let Reply::Opened { session, .. } = ask(Request::Open { nonce: NONCE }) else { panic!("no session") };
    let op = Op::Put { key: b"k".to_vec(), value: b"v".to_vec().into(), if_version: None };
    let write = Request::Write { session, nonce: NONCE, sequence: 1, first_open: 1, op };
    assert!(matches!(ask(write), Reply::Applied { .. }));
    for n in 0..30 {
        client.put(format!("k{n}").as_bytes(), b"w").unwrap();
    }
    // A refusal, too: a server with another folder than the one that is known.
    [1, 2].into_iter().for_each(|at| await_bound(&cluster, at, 3));
    cluster.kill(&[3]);
    let own = cluster.dir.path().join("own");
    fs::rename(cluster.data_dir(3), &own).unwrap();
    cluster.start_server(3);
    await_value("it is refused", || cluster.log_text(3).contains("Restore the old data directory").then_some(()));

    let mut ids = vec![NONCE as u64, (NONCE >> 64) as u64];
    for dir in [cluster.data_dir(1), cluster.data_dir(2), cluster.data_dir(3), own] {
        let text = fs::read_to_string(dir.join("identity.toml")).unwrap();
        let id = text.lines().find_map(|line| line.strip_prefix("storage = \"")?.strip_suffix('"')).unwrap();
        ids.push(u64::from_str_radix(id, 16).unwrap());
    }
    assert!(holds(&fs::read(cluster.data_dir(1).join("identity.toml")).unwrap(), ids[2]), "it would be found");
    let journal =
        fs::read_dir(cluster.data_dir(1).join("journal")).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
    assert!(journal.into_iter().any(|bytes| holds(&bytes, ids[0])), "and so would the nonce");

    let mut pages: Vec<(String, Vec<u8>)> = Vec::new();
    for id in 1..=3 {
        let address = cluster.cluster.member(ServerId(id)).unwrap().http.unwrap();
        for path in ["/", "/status", "/metrics", "/events", "/feed"] {
            pages.push((format!("{path} of {id}"), page(address, path)));
        }
    }
    let backup = cluster.dir.path().join("store.backup");
    let done = cluster.client_tool(&["backup", &backup.to_string_lossy()]);
    assert!(done.status.success(), "{}", output_text(&done));
    let shown = cluster.client_tool(&["status", "-o", "json"]);
    pages.push(("status".to_string(), [shown.stdout, shown.stderr].concat()));
    let part = client.state_part(None, Slot(1)).unwrap().unwrap();
    pages.push(("a part of the state".to_string(), part.part.bytes.to_vec()));
    let inspected = tool(&["inspect", &cluster.data_dir(1).to_string_lossy()]);
    pages.push(("inspect".to_string(), inspected.stdout));
    for entry in fs::read_dir(cluster.dir.path()).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        pages.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap()));
    }
    assert!(
        pages.iter().any(|(name, _)| name == "server-1.log") && pages.iter().any(|(name, _)| name == "store.backup")
    );
    for (name, bytes) in &pages {
        assert!(!bytes.is_empty() || name.ends_with(".err"), "{name} is empty");
        let leaked = ids.iter().find(|id| holds(bytes, **id));
        assert_eq!(leaked, None, "{name} holds a storage id or a nonce");
        let as_number = NONCE.to_string();
        assert!(!String::from_utf8_lossy(bytes).contains(&as_number), "{name} holds a nonce");
    }
}
