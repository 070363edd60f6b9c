//! A scene: the leader of a write crashes between the phases. It compares two-phase commit with Paxos.
//!
//! The voter of one server is crashed first, so a coordinator that needs all votes waits for it. In that time the
//! coordinator crashes too. Under Paxos no role waits for the missing vote, and another server finishes the work.

use std::thread;
use std::time::{Duration, Instant};

use super::client::{Client, ClientOptions};
use super::demo::{Demo, DemoClient};
use super::execute::outcome_words;
use super::operation::Operation;
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
pub(super) fn play(demo: &Demo, players: &mut [DemoClient], protocol: Protocol) -> Result<(), String> {
    let Some(player) = players.first_mut() else { return Ok(()) };
    let (voter, leader) = (protocol.voter(), protocol.leader());
    let (first, other, last) = (demo.server(0), demo.server(1), demo.server(demo.cluster.servers().len() - 1));
    for (server, role) in [(last, voter), (first, leader), (first, voter), (other, voter)] {
        await_up(player, server, role);
    }
    // Open the session before the first crash, so that the rest of the scene is about the write only.
    let options = ClientOptions { first_server: Some(first), ..ClientOptions::new(demo.cluster.clone(), "between") };
    let mut writer = Client::new(options).map_err(|error| error.to_string())?;
    writer.put(KEY, b"before").map_err(|error| format!("the write before the scene failed: {error}"))?;
    writer.set_timeout(WRITE_TIMEOUT);
    if let Err(error) = player.client.crash(last, Some(voter), None) {
        player.printer.line(format!(
            "skipped: {error}. This scene needs lab mode: ./run_server.sh stop, then ./run_server.sh --lab"
        ));
        return Ok(());
    }
    player.printer.line(format!("the {} of server {} is down", voter.as_str(), last.0));
    let ended = write_while_the_leader_crashes(writer, player, (first, leader), other, protocol);
    player.client.set_timeout(TIMEOUT);
    let get = Operation::Get { key: KEY.to_vec() };
    let put = |value: &str| Operation::Put { key: KEY.to_vec(), value: value.into(), if_version: None };
    if protocol.is_paxos() {
        player.client.set_timeout(demo.timeout);
        player.run_operation(other, &get);
        let done = player.run_operation(other, &put("meanwhile, by {client}")).end;
        player.printer.line("the other servers are a majority: one of them completed the pending write and continued");
        restart_crashed(player, &[(first, leader), (last, voter)])?;
        player.client.set_timeout(demo.timeout);
        return ended
            .and(done.map(|_| ()).map_err(|error| format!("a write without server {} failed: {error}", first.0)));
    }
    let was_in_doubt = in_doubt_scene(player, other) > 0;
    player.run_operation(other, &get);
    player.run_operation(other, &put("meanwhile, by {client}"));
    player.printer.line(match was_in_doubt {
        true => {
            "the participants voted yes, and no server that is up may decide: the key stays locked for every client"
        }
        false => {
            "the coordinator aborted just before it crashed: no participant is in doubt, but no write gets all votes"
        }
    });
    let begun = Instant::now();
    restart_crashed(player, &[(first, leader)])?;
    player.client.set_timeout(demo.timeout);
    let read = player.run_operation(other, &get).end;
    let took = begun.elapsed().as_secs_f64();
    player
        .printer
        .line(format!("the coordinator restarted without a commit record: the key was unlocked after {took:.1} s"));
    restart_crashed(player, &[(last, voter)])?;
    let done = player.run_operation(other, &put("after, by {client}")).end;
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
    player: &mut DemoClient,
    (first, leader): (ServerId, RoleKind),
    other: ServerId,
    protocol: Protocol,
) -> Result<(), String> {
    let write = thread::spawn(move || writer.put(KEY, b"written while the leader crashes"));
    if !protocol.is_paxos() {
        let deadline = Instant::now() + WRITE_TIMEOUT;
        while in_doubt_scene(player, other) == 0 && Instant::now() < deadline {
            thread::sleep(POLL_INTERVAL);
        }
    }
    player.client.crash(first, Some(leader), None).map_err(|error| error.to_string())?;
    player.printer.line(format!("the {} of server {} crashes while a write is in flight", leader.as_str(), first.0));
    let ended = write.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    player.printer.line(match ended {
        Ok(outcome) => format!("result for its client: {}", outcome_words(&outcome)),
        Err(error) => format!("result for its client: {error}"),
    });
    Ok(())
}

fn in_doubt_scene(player: &mut DemoClient, server: ServerId) -> u64 {
    player.client.status(server).map_or(0, |status| status.in_doubt)
}

fn restart_crashed(player: &mut DemoClient, roles: &[(ServerId, RoleKind)]) -> Result<(), String> {
    for (server, role) in roles {
        player.client.restart(*server, Some(*role)).map_err(|error| error.to_string())?;
        await_up(player, *server, *role);
    }
    Ok(())
}

/// Waits until a role is up, at most `LOOK_MAX`.
fn await_up(player: &mut DemoClient, server: ServerId, role: RoleKind) {
    let is_up = |status: ServerStatus| status.roles.iter().any(|one| one.role == role && one.up);
    let deadline = Instant::now() + LOOK_MAX;
    while Instant::now() < deadline && !player.client.status(server).is_ok_and(is_up) {
        thread::sleep(POLL_INTERVAL);
    }
}
