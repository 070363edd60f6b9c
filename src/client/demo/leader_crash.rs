//! A scene: the leader of a write crashes between the phases. It compares two-phase commit with Paxos.
//!
//! The voter of one server is crashed first, so a coordinator that needs all votes waits for it. In that time the
//! coordinator crashes too. Under Paxos no role waits for the missing vote, and another server finishes the work.

use std::thread;
use std::time::{Duration, Instant};

use super::{Demo, DemoClient};
use crate::client::client::{Client, ClientOptions};
use crate::client::execute::outcome_words;
use crate::client::operation::Operation;
use crate::net::ServerStatus;
use crate::protocol::Protocol;
use crate::role::{RoleKind, ServerId};

/// Pause between two status queries, and maximum total time.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Maximum time for a request while no server can decide it.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum time for the write that is in flight during the crash.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// The scene's key.
const KEY: &[u8] = b"between";

/// Plays the scene.
pub(super) fn play(demo: &Demo, demo_clients: &mut [DemoClient], protocol: Protocol) -> Result<(), String> {
    let Some(demo_client) = demo_clients.first_mut() else { return Ok(()) };
    let (voter, leader) = (protocol.voter(), protocol.leader());
    let (first, other, last) = (demo.server(0), demo.server(1), demo.server(demo.cluster.servers().len() - 1));
    for (server, role) in [(last, voter), (first, leader), (first, voter), (other, voter)] {
        await_up(demo_client, server, role);
    }
    // Open the session before the first crash, so that the rest of the scene is about the write only.
    let options = ClientOptions { first_server: Some(first), ..ClientOptions::new(demo.cluster.clone(), "between") };
    let mut writer = Client::new(options).map_err(|error| error.to_string())?;
    writer.put(KEY, b"before").map_err(|error| format!("the write before the scene failed: {error}"))?;
    writer.set_timeout(WRITE_TIMEOUT);
    if let Err(error) = demo_client.client.crash(last, Some(voter), None) {
        demo_client.printer.line(format!(
            "skipped: {error}. This scene needs lab mode: ./run_server.sh stop, then ./run_server.sh --lab"
        ));
        return Ok(());
    }
    demo_client.printer.line(format!("the {} of server {} is down", voter.as_str(), last.0));
    let ended = write_while_the_leader_crashes(writer, demo_client, (first, leader), other, protocol);
    demo_client.client.set_timeout(TIMEOUT);
    let get = Operation::Get { key: KEY.to_vec() };
    let put = |value: &str| Operation::Put { key: KEY.to_vec(), value: value.into(), if_version: None };
    if protocol.is_paxos() {
        demo_client.client.set_timeout(demo.timeout);
        demo_client.run_operation(other, &get);
        let done = demo_client.run_operation(other, &put("meanwhile, by {client}")).end;
        demo_client
            .printer
            .line("the other servers are a majority: one of them completed the pending write and continued");
        restart_crashed(demo_client, &[(first, leader), (last, voter)])?;
        demo_client.client.set_timeout(demo.timeout);
        return ended
            .and(done.map(|_| ()).map_err(|error| format!("a write without server {} failed: {error}", first.0)));
    }
    let was_in_doubt = in_doubt_scene(demo_client, other) > 0;
    demo_client.run_operation(other, &get);
    demo_client.run_operation(other, &put("meanwhile, by {client}"));
    demo_client.printer.line(match was_in_doubt {
        true => {
            "the participants voted yes, and no server that is up may decide: the key stays locked for every client"
        }
        false => {
            "the coordinator aborted just before it crashed: no participant is in doubt, but no write gets all votes"
        }
    });
    let started = Instant::now();
    restart_crashed(demo_client, &[(first, leader)])?;
    demo_client.client.set_timeout(demo.timeout);
    let read = demo_client.run_operation(other, &get).end;
    let took = started.elapsed().as_secs_f64();
    demo_client
        .printer
        .line(format!("the coordinator restarted without a commit record: the key was unlocked after {took:.1} s"));
    restart_crashed(demo_client, &[(last, voter)])?;
    let done = demo_client.run_operation(other, &put("after, by {client}")).end;
    ended?;
    match (read, done) {
        (Err(error), _) | (_, Err(error)) => Err(format!("requests still fail after the block: {error}")),
        // PUT returns a write result and GET a read result: no other case is left.
        (Ok(_), Ok(_)) => Ok(()),
    }
}

/// Starts a write at a server and crashes its leading role meanwhile. The outcome of the write may be unknown.
fn write_while_the_leader_crashes(
    mut writer: Client,
    demo_client: &mut DemoClient,
    (first, leader): (ServerId, RoleKind),
    other: ServerId,
    protocol: Protocol,
) -> Result<(), String> {
    let write = thread::spawn(move || writer.put(KEY, b"written while the leader crashes"));
    if !protocol.is_paxos() {
        let deadline = Instant::now() + WRITE_TIMEOUT;
        while in_doubt_scene(demo_client, other) == 0 && Instant::now() < deadline {
            thread::sleep(POLL_INTERVAL);
        }
    }
    demo_client.client.crash(first, Some(leader), None).map_err(|error| error.to_string())?;
    demo_client.printer.line(format!(
        "the {} of server {} crashes while a write is in flight",
        leader.as_str(),
        first.0
    ));
    let ended = write.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    demo_client.printer.line(match ended {
        Ok(outcome) => format!("result for its client: {}", outcome_words(&outcome)),
        Err(error) => format!("result for its client: {error}"),
    });
    Ok(())
}

fn in_doubt_scene(demo_client: &mut DemoClient, server: ServerId) -> u64 {
    demo_client.client.status(server).map_or(0, |status| status.in_doubt)
}

fn restart_crashed(demo_client: &mut DemoClient, roles: &[(ServerId, RoleKind)]) -> Result<(), String> {
    for (server, role) in roles {
        demo_client.client.restart(*server, Some(*role)).map_err(|error| error.to_string())?;
        await_up(demo_client, *server, *role);
    }
    Ok(())
}

/// Waits until a role is up, at most `LOOK_MAX`.
fn await_up(demo_client: &mut DemoClient, server: ServerId, role: RoleKind) {
    let is_up = |status: ServerStatus| status.roles.iter().any(|one| one.role == role && one.up);
    let deadline = Instant::now() + LOOK_MAX;
    while Instant::now() < deadline && !demo_client.client.status(server).is_ok_and(is_up) {
        thread::sleep(POLL_INTERVAL);
    }
}
