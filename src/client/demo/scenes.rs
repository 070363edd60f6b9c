//! The demo's scenes: malformed bytes, two clients that write one key, a majority outage, and a leader that crashes
//! between the phases.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::leader_crash;
use super::{Demo, DemoClient};
use crate::client::execute::outcome_words;
use crate::client::operation::{Operation, OperationResult};
use crate::client::outcome::{ClientError, WriteResponse};
use crate::net::{Caller, Hello, ServerStatus, connect_handshake, frame, preamble};
use crate::protocol::Protocol;
use crate::random::Random;
use crate::role::{RoleKind, ServerId};

/// Maximum time for a server to close a connection that sent malformed bytes.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// Number of increments by each of the two rivals.
const INCREMENTS: u64 = 20;
/// Maximum time for a rival; beyond that it has met a failure that failing over does not cure.
const RIVALRY_PATIENCE: Duration = Duration::from_secs(90);
/// Duration of the majority outage.
const OUTAGE: Duration = Duration::from_secs(3);
/// Maximum time for a request during the outage.
const OUTAGE_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum time to wait until a failing acceptor is up, so that it can be crashed.
const UP_PATIENCE: Duration = Duration::from_secs(10);

/// Plays all scenes and returns the violations, one message each.
pub fn play(demo: &Demo, demo_clients: &mut [DemoClient], protocol: Protocol) -> Vec<String> {
    let mut problems = Vec::new();
    demo.start_phase(demo_clients, "malformed", "Malformed bytes to a client port and to a peer port");
    problems.extend(malformed_input(demo, demo_clients).err());
    demo.start_phase(demo_clients, "two-clients", "Two clients at two servers increment one key");
    problems.extend(concurrent_increments(demo, demo_clients).err());
    if protocol.is_paxos() {
        demo.start_phase(demo_clients, "outage", "A majority of the acceptors is down");
    } else {
        demo.start_phase(
            demo_clients,
            "outage",
            "A majority of the participants is down; one would be enough to stop writes",
        );
    }
    problems.extend(majority_outage(demo, demo_clients, protocol).err());
    demo.start_phase(demo_clients, "between", "The leader of a write crashes between the phases");
    problems.extend(leader_crash::play(demo, demo_clients, protocol).err());
    problems
}

/// Sends a server invalid bytes, and shows that it still works.
fn malformed_input(demo: &Demo, demo_clients: &mut [DemoClient]) -> Result<(), String> {
    let Some(demo_client) = demo_clients.first_mut() else { return Ok(()) };
    let victim = demo.server(2);
    let Some(member) = demo.cluster.member(victim) else { return Ok(()) };
    let mut random = Random::unseeded();
    let noise: Vec<u8> = (0..8).flat_map(|_| random.next().to_le_bytes()).collect();
    let oversized = [&preamble()[..], &[0xff; 8]].concat();
    let truncated = [&preamble()[..], &frame(&noise)[..20]].concat();
    let foreign = [b"PXKV\xff\x00".as_slice(), &noise].concat();
    let cases: [(&str, &[u8]); 4] = [
        ("random bytes", &noise),
        ("a header that announces a frame of 4 GiB", &oversized),
        ("an unknown protocol version", &foreign),
        ("half of a frame", &truncated),
    ];
    for (port, address) in [("client", member.client), ("peer", member.peer)] {
        for (what, bytes) in cases {
            let end = send(address, None, bytes)?;
            demo_client
                .printer
                .line(format!("sent {what} ({} bytes) to the {port} port {address}: {end}", bytes.len()));
        }
    }
    // The same after a valid handshake, when the server reads requests.
    let members = demo.cluster.servers();
    let hello = Hello { cluster: demo.cluster.name.clone(), to: victim, members, who: Caller::Client };
    let mut damaged = frame(&0_u64);
    damaged[4] ^= 1;
    for (what, bytes) in
        [("a request with a wrong checksum", damaged), ("a frame that is not a request", frame(&noise))]
    {
        let end = send(member.client, Some(&hello), &bytes)?;
        demo_client.printer.line(format!(
            "sent {what} ({} bytes) to the client port {}: {end}",
            bytes.len(),
            member.client
        ));
    }
    let put =
        Operation::Put { key: b"after-rubbish".to_vec(), value: b"still here, {client}".to_vec(), if_version: None };
    let get = Operation::Get { key: b"after-rubbish".to_vec() };
    for action in [put, get] {
        if let Err(error) = demo_client.run_operation(victim, &action).end {
            return Err(format!("server {} does not serve requests after malformed bytes: {error}", victim.0));
        }
    }
    Ok(())
}

/// Sends these bytes only, and waits for the server's reaction.
fn send(address: SocketAddr, hello: Option<&Hello>, bytes: &[u8]) -> Result<&'static str, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot send malformed bytes to {address}: {error}");
    let mut stream = TcpStream::connect_timeout(&address, END_PATIENCE).map_err(|error| failed(&error))?;
    if let Some(hello) = hello {
        connect_handshake(&stream, hello).map_err(|error| failed(&error))?;
    }
    stream.set_read_timeout(Some(END_PATIENCE)).map_err(|error| failed(&error))?;
    // The server may close the connection during the write: that counts as a reaction too.
    let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    let deadline = Instant::now() + END_PATIENCE;
    let mut answer = [0; 1_024];
    while Instant::now() < deadline {
        match stream.read(&mut answer) {
            Ok(0) => return Ok("the server closed the connection"),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(_) => return Ok("the server closed the connection"),
        }
    }
    Ok("the server kept the connection open")
}

/// Number of increments of one rival, by result.
#[derive(Clone, Copy, Debug, Default)]
struct CounterIncrements {
    done: u64,
    unknown: u64,
    refused: u64,
}

/// Two clients increment one key by compare-and-set: no increment is lost or done twice.
fn concurrent_increments(demo: &Demo, demo_clients: &mut [DemoClient]) -> Result<(), String> {
    let Some(first) = demo_clients.first_mut() else { return Ok(()) };
    let new = |identity| DemoClient::new(demo, identity, &first.watch).map_err(|error: ClientError| error.to_string());
    let rivals: Vec<DemoClient> = demo.conflict_clients.iter().map(new).collect::<Result<_, _>>()?;
    let start = counter(first)?;
    let ends: Vec<Result<CounterIncrements, String>> = thread::scope(|scope| {
        let threads: Vec<_> = rivals
            .into_iter()
            .enumerate()
            .map(|(n, mut demo_client)| scope.spawn(move || increment(&mut demo_client, demo.server(n))))
            .collect();
        // A panic in a rival's thread is passed on.
        threads.into_iter().map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut sum = CounterIncrements::default();
    for end in ends {
        let end = end?;
        sum.done += end.done;
        sum.unknown += end.unknown;
        sum.refused += end.refused;
    }
    let end = counter(first)?;
    let (counted, versions) = (end.0.saturating_sub(start.0), end.1.saturating_sub(start.1));
    first.printer.line(format!(
        "counter: {} -> {}, version {} -> {}: {} increments acknowledged, {} unknown, {} version mismatches",
        start.0, end.0, start.1, end.1, sum.done, sum.unknown, sum.refused
    ));
    if counted != versions || !(sum.done..=sum.done + sum.unknown).contains(&counted) {
        return Err(format!(
            "{} increments of the counter were acknowledged ({} unknown), but it grew by {counted} in {versions} writes",
            sum.done, sum.unknown
        ));
    }
    Ok(())
}

/// The counter's number and version; both 0 if there is no counter.
fn counter(demo_client: &mut DemoClient) -> Result<(u64, u64), String> {
    let found = demo_client.client.get(b"counter").map_err(|error| format!("cannot read the counter: {error}"))?;
    let number = found.value.as_deref().and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    Ok((number.unwrap_or(0), found.version))
}

/// Adds one `INCREMENTS` times, and reads the counter again whenever the rival was faster.
fn increment(demo_client: &mut DemoClient, server: ServerId) -> Result<CounterIncrements, String> {
    let deadline = Instant::now() + RIVALRY_PATIENCE;
    let mut increments = CounterIncrements::default();
    while increments.done + increments.unknown < INCREMENTS {
        if Instant::now() >= deadline {
            return Err(format!("only {} of {INCREMENTS} increments were done in time", increments.done));
        }
        let name = demo_client.client.name().to_string();
        demo_client.client.set_server(server).map_err(|error| error.to_string())?;
        let Ok((number, version)) = counter(demo_client) else { continue };
        let next = (number + 1).to_string();
        match demo_client.client.put_if_version(b"counter", next.as_bytes(), version) {
            Ok(WriteResponse::Written { .. }) => increments.done += 1,
            Ok(WriteResponse::Mismatch { .. } | WriteResponse::NotFound { .. }) => increments.refused += 1,
            Err(ClientError::Unknown(_)) => increments.unknown += 1,
            Err(error) => demo_client.printer.warn(format!("{name}: {error}")),
        }
    }
    Ok(increments)
}

/// Crashes a majority of the acceptors, and shows what requests do during and after the outage.
fn majority_outage(demo: &Demo, demo_clients: &mut [DemoClient], protocol: Protocol) -> Result<(), String> {
    let Some(demo_client) = demo_clients.first_mut() else { return Ok(()) };
    let voter = protocol.voter();
    let servers = demo.cluster.servers();
    let away: Vec<ServerId> = servers.iter().take(servers.len() / 2 + 1).collect();
    await_voters(demo_client, &away, voter);
    let over = Instant::now() + OUTAGE;
    for server in &away {
        match demo_client.client.crash(*server, Some(voter), Some(OUTAGE)) {
            Ok(()) => {
                let down = OUTAGE.as_secs_f64();
                demo_client.printer.line(format!(
                    "the {} of server {} is down for {down:.0} s",
                    voter.as_str(),
                    server.0
                ));
            }
            // Its own fault injector crashed it a moment earlier: it is down, as the scene needs.
            Err(error) if !is_up(demo_client, *server, voter) => demo_client.printer.line(error.to_string()),
            Err(error) => {
                demo_client.printer.line(format!(
                    "skipped: {error}. This scene needs lab mode: ./run_server.sh stop, then ./run_server.sh --lab"
                ));
                return Ok(());
            }
        }
    }
    demo_client.client.set_timeout(OUTAGE_TIMEOUT);
    let put = |value: &str| Operation::Put { key: b"outage".to_vec(), value: value.into(), if_version: None };
    let mut without = 0;
    for server in servers.iter() {
        if Instant::now() + OUTAGE_TIMEOUT > over {
            break;
        }
        let ended = demo_client.run_operation(server, &put("during, by {client}"));
        without += u64::from(ended.end.is_err());
    }
    demo_client
        .printer
        .line(format!("{without} request(s) failed for lack of votes; the client logged them and continued"));
    demo_client.client.set_timeout(demo.timeout);
    for action in [put("after, by {client}"), Operation::Get { key: b"outage".to_vec() }] {
        match demo_client.run_operation(demo.server(0), &action).end {
            Ok(OperationResult::Wrote(WriteResponse::Written { .. }) | OperationResult::Read(_)) => {}
            Ok(OperationResult::Wrote(other)) => {
                return Err(format!("unexpected result of an unconditional PUT: {}", outcome_words(&other)));
            }
            Err(error) => return Err(format!("requests still fail after the outage: {error}")),
        }
    }
    Ok(())
}

/// Waits until these acceptors or participants are up at the same time, so that they can be crashed together. Waits at
/// most `UP_PATIENCE`.
fn await_voters(demo_client: &mut DemoClient, servers: &[ServerId], voter: RoleKind) {
    let deadline = Instant::now() + UP_PATIENCE;
    while Instant::now() < deadline && !servers.iter().all(|server| is_up(demo_client, *server, voter)) {
        thread::sleep(Duration::from_millis(20));
    }
}

fn is_up(demo_client: &mut DemoClient, server: ServerId, voter: RoleKind) -> bool {
    let is_up = |status: ServerStatus| status.roles.iter().any(|role| role.role == voter && role.up);
    demo_client.client.status(server).is_ok_and(is_up)
}
