//! Roles that fail, at random times and by command: they really end and restart with what is on their disk, and every
//! pending request gets a correct reply.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use paxos_kv::client::{Client, ClientError, Try, TryEnd};
use paxos_kv::net::{RoleStatus, WhyNotApplied};
use paxos_kv::paxos::{Ballot, NotApplied};
use paxos_kv::role::{RoleKind, ServerId, ServerSet};
use paxos_kv::trace::{CrashPoint, DropCause, Event, Line, MaybeBallot, RecoveredFrom, RestartMode, Seconds, Speaker};
use support::{Cluster, await_value};

const ALL: [u8; 5] = [1, 2, 3, 4, 5];
/// Short segments: these tests begin many lives.
const FAILING: [&str; 8] = ["--mean-up", "400ms", "--mean-down", "150ms", "--seed", "5", "--segment-kib", "1024"];

/// The lines of a server that are whole so far.
fn lines(cluster: &Cluster, id: u8) -> Vec<Line> {
    let text = cluster.log_text(id);
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| line.parse().unwrap()).collect()
}

/// The lines of one role of a server.
fn lines_of_role(cluster: &Cluster, id: u8, role: Speaker) -> Vec<Line> {
    lines(cluster, id).into_iter().filter(|line| line.role == role).collect()
}

/// How often something stands in the lines of a role.
fn count(cluster: &Cluster, id: u8, role: Speaker, is_it: impl Fn(&Event) -> bool) -> usize {
    lines_of_role(cluster, id, role).iter().filter(|line| is_it(&line.event)).count()
}

fn is_crash(event: &Event) -> bool {
    matches!(event, Event::Crash { .. })
}

fn is_restart(event: &Event) -> bool {
    matches!(event, Event::Restart { .. })
}

/// One client a server writes until `enough` says so, and each write has an outcome. How many there were of each kind.
fn write_through_all(cluster: &Cluster, enough: impl Fn() -> bool + Sync) -> BTreeMap<&'static str, u32> {
    let outcomes = Mutex::new(BTreeMap::new());
    let done = std::sync::atomic::AtomicBool::new(false);
    let write = |id: u8| {
        let mut client = cluster.client_with_log(&format!("c{id}"), id);
        let mut n = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            client.set_server(ServerId(id)).unwrap();
            n += 1;
            let word = match client.put(format!("k{}", n % 5).as_bytes(), format!("c{id} value {n}").as_bytes()) {
                Ok(_) => "applied",
                Err(ClientError::NotApplied(_)) => "not applied",
                Err(ClientError::Unknown(_)) => "unknown",
                Err(error) => panic!("{error}"),
            };
            *outcomes.lock().unwrap().entry(word).or_default() += 1;
        }
    };
    thread::scope(|scope| {
        let _writers = ALL.map(|id| scope.spawn(move || write(id)));
        await_value("enough has happened", || enough().then_some(()));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    outcomes.into_inner().unwrap()
}

/// Each death of a role is followed by a birth and the other way round; gives the deaths.
fn crashes(cluster: &Cluster, id: u8, role: Speaker) -> Vec<(CrashPoint, Seconds)> {
    let mut deaths = Vec::new();
    let mut is_up = true;
    for line in lines_of_role(cluster, id, role) {
        match line.event {
            Event::Crash { point, down, .. } => {
                assert!(is_up, "a role that is down crashes: {line}");
                is_up = false;
                deaths.push((point.unwrap(), down.unwrap()));
            }
            Event::Restart { .. } => {
                assert!(!is_up, "a living role is born: {line}");
                is_up = true;
            }
            // Only the server speaks for a role that is down.
            _ => {
                assert!(is_up || matches!(line.event, Event::Drop { .. }), "a role that is down writes a line: {line}")
            }
        }
    }
    deaths
}

/// An acceptor's promise never falls, whatever it forgot in memory, and its accepted slots never become fewer.
fn check_recovery(cluster: &Cluster, id: u8) {
    let (mut promised, mut slots) = (Ballot::ZERO, 0);
    for line in lines_of_role(cluster, id, Speaker::Acceptor) {
        match &line.event {
            Event::Promise { ballot, .. } | Event::Accepted { ballot, .. } => {
                assert!(*ballot >= promised, "promised {promised} before: {line}");
                promised = *ballot;
            }
            Event::Restart { promised: Some(MaybeBallot(found)), accepted: Some(accepted), recovered, .. } => {
                let found = found.unwrap_or(Ballot::ZERO);
                assert_eq!(*recovered, RecoveredFrom::Disk);
                // It may be more than the lines say: a crash between sync and send leaves records and no words.
                assert!(found >= promised && *accepted >= slots, "promised {promised}, {slots} slots before: {line}");
                (promised, slots) = (found, *accepted);
            }
            _ => {}
        }
    }
}

/// How many messages a role did not hear because it was down, as its server tells; each while it was down.
fn drops(cluster: &Cluster, id: u8, role: Speaker) -> usize {
    let mut is_up = true;
    let mut drops = 0;
    for line in lines_of_role(cluster, id, role) {
        match line.event {
            Event::Crash { .. } => is_up = false,
            Event::Restart { .. } => is_up = true,
            Event::Drop { cause: DropCause::Crashed, n: None, .. } => {
                // What was in its hands when it was hit is told just before its death.
                drops += usize::from(!is_up);
            }
            _ => {}
        }
    }
    drops
}

fn has_every_point(cluster: &Cluster) -> bool {
    let deaths: Vec<_> = ALL.into_iter().flat_map(|id| crashes(cluster, id, Speaker::Acceptor)).collect();
    CrashPoint::ALL.iter().all(|point| deaths.iter().any(|(at, _)| at == point))
}

#[test]
fn acceptors_that_fail_at_random_lose_nothing() {
    let cluster = Cluster::start(5, &[&["--fail", "acceptors"], &FAILING[..]].concat());
    let started = Instant::now();
    let outcomes = write_through_all(&cluster, || {
        let restarts = |id| count(&cluster, id, Speaker::Acceptor, is_restart);
        started.elapsed() > Duration::from_secs(4)
            && ALL.into_iter().all(|id| restarts(id) >= 3)
            && has_every_point(&cluster)
    });
    assert!(outcomes["applied"] > 20, "{outcomes:?}");
    cluster.await_agreement();
    for id in ALL {
        let crashes = crashes(&cluster, id, Speaker::Acceptor).len();
        let restarts = count(&cluster, id, Speaker::Acceptor, is_restart);
        assert!(crashes == restarts || crashes == restarts + 1, "server {id}: {crashes} crashes, {restarts} restarts");
        check_recovery(&cluster, id);
        for role in [Speaker::Proposer, Speaker::Learner] {
            assert_eq!(count(&cluster, id, role, is_crash), 0, "only acceptors fail");
        }
    }
    let drops: usize = ALL.into_iter().map(|id| drops(&cluster, id, Speaker::Acceptor)).sum();
    assert!(drops > 10, "messages to acceptors that are down are told: {drops}");
    let (code, text) = cluster.audit();
    assert_eq!(code, 0, "{text}");
}

#[test]
fn all_roles_may_fail_at_random() {
    let cluster = Cluster::start(5, &[&["--fail", "all"], &FAILING[..]].concat());
    let started = Instant::now();
    let roles = [Speaker::Proposer, Speaker::Acceptor, Speaker::Learner];
    let outcomes = write_through_all(&cluster, || {
        let restarts = |id, role| count(&cluster, id, role, is_restart);
        let all_lived = || ALL.into_iter().all(|id| roles.into_iter().all(|role| restarts(id, role) >= 2));
        started.elapsed() > Duration::from_secs(4) && all_lived() && has_every_point(&cluster)
    });
    assert!(outcomes["applied"] > 5, "{outcomes:?}");
    for id in ALL {
        for role in roles {
            crashes(&cluster, id, role);
        }
        check_recovery(&cluster, id);
    }
    cluster.await_agreement();
    let (code, text) = cluster.audit();
    assert_eq!(code, 0, "{text}");
}

#[test]
fn the_same_seed_fails_at_the_same_times() {
    let roles = [Speaker::Proposer, Speaker::Acceptor, Speaker::Learner];
    let schedule = |fail: &str, roles: &[Speaker]| {
        let mut cluster = Cluster::prepare(2, &[&["--fail", fail], &FAILING[..]].concat());
        cluster.start_server(1);
        cluster.start_server(2);
        let downs = |id: u8, role: &Speaker| {
            await_value("three crashes", || Some(crashes(&cluster, id, *role)).filter(|deaths| deaths.len() >= 3))
        };
        let take = |id| roles.iter().map(move |role| downs(id, role)[..3].iter().map(|(_, down)| *down).collect());
        [1, 2].map(|id| take(id).collect::<Vec<Vec<Seconds>>>())
    };
    let first = schedule("all", &roles);
    assert_eq!(first, schedule("all", &roles));
    assert_ne!(first[0], first[1], "each server has its own times");
    assert_ne!(first[0][0], first[0][1], "each role has its own times");
    // Whether the other roles fail too changes nothing for the acceptors.
    let acceptors = schedule("acceptors", &[Speaker::Acceptor]);
    assert_eq!(acceptors.map(|server| server[0].clone()), first.map(|server| server[1].clone()));
}

#[test]
fn lost_mode_is_shown_as_unsafe_everywhere() {
    let cluster = Cluster::prepare(1, &[&["--fail", "acceptors", "--restart", "lost"], &FAILING[..]].concat());
    let mut server = cluster.command(1).stderr(Stdio::piped()).spawn().unwrap();
    let mut client = cluster.client("c1", 1);
    client.set_timeout(support::PATIENCE);
    client.put(b"k", b"v").unwrap();
    await_value("two restarts", || (count(&cluster, 1, Speaker::Acceptor, is_restart) >= 2).then_some(()));
    server.kill().unwrap();
    let stderr = String::from_utf8(server.wait_with_output().unwrap().stderr).unwrap();
    assert!(stderr.contains("UNSAFE"), "{stderr}");

    let lines = lines(&cluster, 1);
    let boot = &lines[0];
    assert!(matches!(boot.event, Event::Boot { restart: Some(RestartMode::Lost), .. }), "{boot}");
    assert!(boot.to_string().contains("UNSAFE"), "{boot}");
    for line in lines.iter().filter(|line| is_restart(&line.event)) {
        let Event::Restart { recovered, promised, accepted, .. } = &line.event else { unreachable!("{line}") };
        assert_eq!(
            (*recovered, *promised, *accepted),
            (RecoveredFrom::Nothing, Some(MaybeBallot(None)), Some(0)),
            "{line}"
        );
        assert!(line.to_string().contains("UNSAFE"), "{line}");
    }
}

fn roles(cluster: &Cluster, id: u8) -> Vec<RoleStatus> {
    cluster.status(id).unwrap().roles
}

fn await_role(cluster: &Cluster, id: u8, role: RoleKind, up: bool) {
    await_value("the role is as ordered", || {
        roles(cluster, id).iter().any(|status| status.role == role && status.up == up).then_some(())
    });
}

/// Keeps the tries of a client that failed.
fn failures_of(client: &mut Client) -> Arc<Mutex<Vec<Try>>> {
    let failures = Arc::new(Mutex::new(Vec::new()));
    let heard = failures.clone();
    client.on_failover(move |failed, _| heard.lock().unwrap().push(failed.clone()));
    failures
}

#[test]
fn roles_crash_and_restart_by_command() {
    let cluster = Cluster::start(5, &["--lab", "--seed", "1", "--segment-kib", "1024"]);
    let mut operator = cluster.client("lab", 1);
    let mut client = cluster.client_with_log("c1", 2);
    client.put(b"k", b"v0").unwrap();
    let failures = failures_of(&mut client);

    for role in [RoleKind::Proposer, RoleKind::Learner] {
        operator.crash(ServerId(2), Some(role), None).unwrap();
        await_role(&cluster, 2, role, false);
        // Refused at once and for certain, so the next server is asked and does it.
        failures.lock().unwrap().clear();
        client.set_server(ServerId(2)).unwrap();
        client.put(b"k", b"v1").unwrap();
        let first = failures.lock().unwrap()[0].clone();
        assert_eq!((first.server, first.end), (ServerId(2), TryEnd::NotApplied(WhyNotApplied::RoleDown(role))));
        assert!(first.took < Duration::from_millis(500), "{:?}", first.took);
        operator.restart(ServerId(2), Some(role)).unwrap();
        await_role(&cluster, 2, role, true);
    }

    // A write that waits while its proposer dies is told so: with three acceptors down it can only wait.
    let most = [ServerId(1), ServerId(2), ServerId(3)];
    for server in most {
        operator.crash(server, Some(RoleKind::Acceptor), None).unwrap();
        await_role(&cluster, server.0, RoleKind::Acceptor, false);
    }
    for server in ALL.map(ServerId) {
        // Without a majority nothing happens, and nothing is promised to have happened.
        client.set_server(server).unwrap();
        client.set_timeout(Duration::from_millis(1_900));
        let error = client.put(b"k", b"never").unwrap_err();
        let ClientError::NotApplied(tries) = error else { panic!("{error}") };
        let TryEnd::NotApplied(WhyNotApplied::Proposer(NotApplied::NoQuorum { answered })) = tries.last[0].end else {
            panic!("{tries:?}")
        };
        let living: ServerSet = [ServerId(4), ServerId(5)].into_iter().collect();
        assert!(answered.without(living).is_empty(), "{answered} answered");
        assert!(!answered.is_empty(), "two acceptors live");
    }
    for server in most {
        operator.restart(server, Some(RoleKind::Acceptor)).unwrap();
        await_role(&cluster, server.0, RoleKind::Acceptor, true);
    }
    client.set_timeout(support::PATIENCE);
    assert_eq!(client.put(b"k", b"v2").unwrap().version(), 4);

    // A whole server's roles, for a time.
    operator.crash(ServerId(5), None, Some(Duration::from_millis(200))).unwrap();
    for role in [Speaker::Proposer, Speaker::Acceptor, Speaker::Learner] {
        await_value("it restarted", || (count(&cluster, 5, role, is_restart) == 1).then_some(()));
    }
    assert!(roles(&cluster, 5).iter().all(|status| status.up && status.crashes == 1));
    assert_eq!(client.get(b"k").unwrap().value.unwrap(), b"v2");
    cluster.await_agreement();
    let (code, text) = cluster.audit();
    assert_eq!(code, 0, "{text}");
}

#[test]
fn request_to_a_role_that_crashes_gets_its_reply_at_once() {
    let cluster = Cluster::start(3, &["--lab", "--seed", "1", "--segment-kib", "1024"]);
    let mut operator = cluster.client("lab", 1);
    let mut client = cluster.client("c1", 1);
    client.put(b"k", b"v").unwrap();
    let mut version = 1;
    for role in [RoleKind::Proposer, RoleKind::Learner] {
        // No acceptor accepts, so the write waits.
        for id in [2, 3] {
            operator.crash(ServerId(id), Some(RoleKind::Acceptor), None).unwrap();
            await_role(&cluster, id, RoleKind::Acceptor, false);
        }
        let failures = failures_of(&mut client);
        client.set_server(ServerId(1)).unwrap();
        let requests = count(&cluster, 1, Speaker::Server, |event| matches!(event, Event::Request { .. }));
        thread::scope(|scope| {
            let writer = scope.spawn(|| client.put(b"k", b"w"));
            await_value("the write has arrived", || {
                let arrived = count(&cluster, 1, Speaker::Server, |event| matches!(event, Event::Request { .. }));
                (arrived > requests).then_some(())
            });
            operator.crash(ServerId(1), Some(role), Some(Duration::from_millis(50))).unwrap();
            await_value("the writer is told", || failures.lock().unwrap().first().cloned());
            for id in [2, 3] {
                operator.restart(ServerId(id), Some(RoleKind::Acceptor)).unwrap();
            }
            let outcome = writer.join().unwrap().unwrap();
            version += 1;
            assert_eq!(outcome.version(), version, "applied once");
        });
        let first = failures.lock().unwrap()[0].clone();
        assert_eq!(first.end, TryEnd::Unknown(paxos_kv::net::WhyUnknown::RoleCrashed(role)));
        await_role(&cluster, 1, role, true);
    }
    cluster.await_agreement();
}

#[test]
fn nothing_is_crashed_or_cut_without_lab_mode() {
    let cluster = Cluster::start(2, &["--seed", "1", "--segment-kib", "1024"]);
    let mut client = cluster.client("c1", 1);
    let (one, other) = (ServerId(1), ServerSet::only(ServerId(2)));
    for refused in [
        client.crash(one, None, None),
        client.restart(one, Some(RoleKind::Acceptor)),
        client.cut(one, other),
        client.join(one, other),
    ] {
        let Err(ClientError::Refused { why, .. }) = refused else { panic!("{refused:?}") };
        assert!(why.contains("--lab"), "{why}");
    }
    assert!(roles(&cluster, 1).iter().all(|status| status.up && status.crashes == 0));
    let status = cluster.status(1).unwrap();
    assert_eq!((status.connected, status.refusals), (other, Vec::new()));
}

/// The messages from one server to another that were handled or dropped there, by the ids of their lines.
fn arrived(cluster: &Cluster, from: u8, to: u8) -> usize {
    let sent: Vec<String> = lines(cluster, from).iter().map(|line| line.id.to_string()).collect();
    let is_from = |line: &&Line| line.parent.as_ref().is_some_and(|re| sent.contains(&re.to_string()));
    lines(cluster, to).iter().filter(is_from).count()
}

#[test]
fn no_message_passes_between_servers_that_are_cut_off_until_they_are_joined() {
    let cluster = Cluster::start(3, &["--lab", "--seed", "1", "--segment-kib", "1024"]);
    let mut client = cluster.client_with_log("c1", 1);
    client.put(b"k", b"v1").unwrap();
    cluster.await_agreement();

    // One command, told to both ends.
    let output = cluster.client_tool(&["cut", "1", "2"]);
    assert!(output.status.success(), "{output:?}");
    let is_cut = |here: u8, there: u8| {
        let status = cluster.status(here)?;
        let refusal = status.refusals.iter().find(|refusal| refusal.server == ServerId(there));
        let is_told = refusal.is_some_and(|refusal| refusal.why.contains("cut by a lab command"));
        (is_told && !status.connected.contains(ServerId(there)) && !status.hears.contains(ServerId(there)))
            .then_some(())
    };
    for (here, there) in [(1, 2), (2, 1)] {
        await_value("the cut is in the status", || is_cut(here, there));
        let line = format!("LINK     peer=s{there} state=cut cause=lab -- ");
        assert_eq!(cluster.log_text(here).matches(&line).count(), 1, "{}", cluster.log_text(here));
    }
    let before = (arrived(&cluster, 1, 2), arrived(&cluster, 2, 1));
    assert!(before.0 > 0, "there was traffic before");
    // A majority is left: 1 and 3.
    for n in 0..20 {
        client.set_server(ServerId(1)).unwrap();
        client.put(b"k", format!("cut {n}")).unwrap();
    }
    assert_eq!((arrived(&cluster, 1, 2), arrived(&cluster, 2, 1)), before, "a message passed a cut");
    assert!(arrived(&cluster, 1, 3) > 20);
    let status = cluster.client_tool(&["status"]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && text.contains("cut by a lab command. Next: paxos-client join 1 2"), "{text}");

    // Isolated: nothing is served there, all else goes on.
    assert!(cluster.client_tool(&["cut", "3"]).status.success());
    for peer in [1, 2] {
        await_value("server 3 is isolated", || is_cut(3, peer).and(is_cut(peer, 3)));
    }
    client.set_timeout(Duration::from_secs(2));
    assert!(client.put(b"k", b"no majority").is_err());
    client.set_timeout(support::PATIENCE);

    assert!(cluster.client_tool(&["join", "3"]).status.success());
    assert!(cluster.client_tool(&["join", "1", "2"]).status.success());
    for id in 1..=3 {
        await_value("all are linked again", || {
            cluster.status(id).filter(|status| status.connected.len() == 2 && status.refusals.is_empty())
        });
        assert!(cluster.log_text(id).contains("state=joined cause=lab"));
    }
    client.set_server(ServerId(1)).unwrap();
    client.put(b"k", b"joined").unwrap();
    cluster.await_agreement();
    assert!(arrived(&cluster, 1, 2) > before.0);
    let (code, text) = cluster.audit();
    assert_eq!(code, 0, "{text}");
}

#[test]
fn a_cut_at_one_end_stops_both_directions() {
    let cluster = Cluster::start(3, &["--lab", "--seed", "1", "--segment-kib", "1024"]);
    let mut operator = cluster.client("lab", 3);
    operator.cut(ServerId(1), ServerSet::only(ServerId(2))).unwrap();
    let sees = |here: u8, there: u8| {
        let status = cluster.status(here)?;
        Some(status.connected.contains(ServerId(there)) || status.hears.contains(ServerId(there)))
    };
    for (here, there) in [(1, 2), (2, 1)] {
        await_value("neither direction works", || (sees(here, there) == Some(false)).then_some(()));
    }
    // The other end is refused, and says so.
    await_value("the refusal is traced", || {
        let text = cluster.log_text(2);
        text.contains("LINK     peer=s1 state=refused -- cut by a lab command").then_some(())
    });
    for wrong in [ServerSet::NONE, ServerSet::only(ServerId(1)), ServerSet::first(9)] {
        assert!(matches!(operator.cut(ServerId(1), wrong), Err(ClientError::Refused { .. })), "{wrong}");
    }
    operator.join(ServerId(1), ServerSet::only(ServerId(2))).unwrap();
    for (here, there) in [(1, 2), (2, 1)] {
        await_value("both directions work", || {
            let status = cluster.status(here)?;
            (status.connected.contains(ServerId(there)) && status.hears.contains(ServerId(there))).then_some(())
        });
    }
}
