use std::collections::BTreeSet;

use super::*;
use crate::host::Admission;
use crate::paxos::Quorums;
use crate::role::{ServerId, ServerSet};
use crate::server::checkpoint_thread;
use crate::storage::identity::Owner;
use crate::trace::{ProcessId, Trace};

const PATIENCE: Duration = Duration::from_secs(30);

fn draws(server: u8, role: RoleKind, seed: u64, arguments: &[&str], count: usize) -> Vec<(Duration, CrashRequest)> {
    let options = ServerOptions::of(arguments);
    let mut random = failures_of(server, role, seed);
    (0..count).filter_map(|_| draw_failure(&mut random, &options, role)).collect()
}

fn times(draws: &[(Duration, CrashRequest)]) -> Vec<(Duration, Option<Duration>, CrashPoint)> {
    draws.iter().map(|(up, order)| (*up, order.down, order.point)).collect()
}

#[test]
fn failures_repeat_by_seed_server_and_role() {
    let all = &["--fail", "all"];
    let schedule = |server, role, seed| times(&draws(server, role, seed, all, 20));
    let first = schedule(1, RoleKind::Acceptor, 7);
    assert_eq!(first, schedule(1, RoleKind::Acceptor, 7));
    for other in
        [schedule(2, RoleKind::Acceptor, 7), schedule(1, RoleKind::Learner, 7), schedule(1, RoleKind::Acceptor, 8)]
    {
        assert_ne!(first, other);
    }
    // Failures of other roles change nothing.
    assert_eq!(first, times(&draws(1, RoleKind::Acceptor, 7, &["--fail", "acceptors"], 20)));
}

#[test]
fn failures_are_drawn_evenly_from_half_to_one_and_a_half_of_the_mean() {
    let drawn = draws(1, RoleKind::Acceptor, 7, &["--fail", "all", "--mean-up", "4s", "--mean-down", "2s"], 2_000);
    let ups: Vec<f64> = drawn.iter().map(|(up, _)| up.as_secs_f64() / 4.0).collect();
    let downs: Vec<f64> =
        drawn.iter().filter_map(|(_, order)| order.down).map(|down| down.as_secs_f64() / 2.0).collect();
    for drawn in [ups, downs] {
        assert!(drawn.iter().all(|time| (0.5..=1.5).contains(time)));
        let in_tenth = |tenth: usize| {
            let from = 0.5 + tenth as f64 / 10.0;
            drawn.iter().filter(|time| (from..from + 0.1).contains(*time)).count()
        };
        for tenth in 0..10 {
            // 200 are expected; fewer than 140 or more than 260 happens once in 20,000 seeds.
            assert!((140..=260).contains(&in_tenth(tenth)), "{} in tenth {tenth}", in_tenth(tenth));
        }
    }
    let points = drawn.iter().map(|(_, order)| format!("{:?}", order.point)).collect::<BTreeSet<String>>();
    assert_eq!(points.len(), 3, "{points:?}");
}

#[test]
fn only_the_selected_roles_fail() {
    let count = |role, fail| draws(1, role, 7, &["--fail", fail], 5).len();
    for role in RoleKind::PAXOS {
        assert_eq!((count(role, "none"), count(role, "all")), (0, 5));
        assert_eq!(count(role, "acceptors"), if role == RoleKind::Acceptor { 5 } else { 0 });
    }
}

/// The running supervisor of a single server.
struct SupervisorFixture {
    ctx: Arc<ServerContext>,
    orders: LabHandle,
    thread: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl SupervisorFixture {
    fn start() -> SupervisorFixture {
        let dir = tempfile::tempdir().unwrap();
        let me = ServerId(1);
        let quorums = Quorums::majority(ServerSet::first(1));
        let owner = Owner { cluster: "test", quorums, server: me };
        let data = Arc::new(DataDir::open(&dir.path().join("data"), owner).unwrap());
        let trace = Trace::to_memory(ProcessId::server(me, 1));
        let options = ServerOptions::of(&["--segment-kib", "64"]);
        let ctx = Arc::new(ServerContext::new(owner, options, 1, trace, Admission::active()));
        checkpoint_thread::start(&ctx, &data).unwrap();
        let (mut supervisor, orders) = Supervisor::new(ctx.clone(), data, 1);
        supervisor.start().unwrap();
        SupervisorFixture { ctx, orders, thread: std::thread::spawn(move || supervisor.run()), _dir: dir }
    }

    fn is_up(&self, role: RoleKind) -> bool {
        self.ctx.core.is_up(role)
    }

    fn await_up(&self, role: RoleKind, up: bool) {
        let started = Instant::now();
        while self.is_up(role) != up {
            assert!(started.elapsed() < PATIENCE, "{role:?}: not up = {up}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for `count` lines of a role about this event.
    fn await_lines(&self, role: RoleKind, event: &str, count: usize) {
        let started = Instant::now();
        let starts = format!("{:<8} {event} ", name_of(role));
        while self.ctx.core.trace.text().matches(&starts).count() < count {
            assert!(started.elapsed() < PATIENCE, "not {count} {starts:?} in {}", self.ctx.core.trace.text());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn stop(self) {
        let started = Instant::now();
        self.orders.send(LabRequest::Stop).unwrap();
        self.thread.join().unwrap();
        assert!(started.elapsed() < STOP_TIMEOUT, "no role was waited for in vain");
    }
}

#[test]
fn each_role_crashes_and_restarts_while_the_others_continue() {
    let fixture = SupervisorFixture::start();
    for role in RoleKind::PAXOS {
        assert!(fixture.is_up(role));
    }
    for role in RoleKind::PAXOS {
        fixture.orders.send(LabRequest::Crash { role, down: None }).unwrap();
        fixture.await_up(role, false);
        let others = RoleKind::PAXOS.into_iter().filter(|other| *other != role);
        assert!(others.into_iter().all(|other| fixture.is_up(other)));
        fixture.orders.send(LabRequest::Restart { role }).unwrap();
        fixture.await_up(role, true);
        fixture.await_lines(role, "RESTART", 1);
        assert_eq!(fixture.ctx.core.shared_status.read().crashes(role), 1);
    }
    fixture.stop();
}

#[test]
fn restart_requested_before_the_crash_happened_is_not_lost() {
    let fixture = SupervisorFixture::start();
    for round in 1..=5 {
        // The role is not down yet when the second request arrives.
        fixture.orders.send(LabRequest::Crash { role: RoleKind::Acceptor, down: None }).unwrap();
        fixture.orders.send(LabRequest::Restart { role: RoleKind::Acceptor }).unwrap();
        fixture.await_lines(RoleKind::Acceptor, "RESTART", round);
    }
    fixture.stop();
}

#[test]
fn timed_crash_ends_by_itself_and_can_be_extended() {
    let fixture = SupervisorFixture::start();
    let role = RoleKind::Learner;
    fixture.orders.send(LabRequest::Crash { role, down: Some(Duration::from_millis(20)) }).unwrap();
    fixture.await_lines(role, "RESTART", 1);
    fixture.orders.send(LabRequest::Crash { role, down: Some(Duration::ZERO) }).unwrap();
    fixture.orders.send(LabRequest::Crash { role, down: None }).unwrap();
    fixture.await_lines(role, "CRASH", 2);
    // Either the role was ending or down when the second request arrived, and stays down, or it was up again and
    // crashed again.
    fixture.await_up(role, false);
    fixture.orders.send(LabRequest::Restart { role }).unwrap();
    fixture.await_up(role, true);
    fixture.stop();
}

#[test]
fn server_with_all_roles_down_stops_too() {
    let fixture = SupervisorFixture::start();
    for role in RoleKind::PAXOS {
        fixture.orders.send(LabRequest::Crash { role, down: None }).unwrap();
    }
    for role in RoleKind::PAXOS {
        fixture.await_up(role, false);
    }
    fixture.stop();
}

#[test]
fn too_many_orders_are_refused() {
    let (sender, _orders) = bounded(ORDERS_MAX);
    let orders = LabHandle(sender);
    for _ in 0..ORDERS_MAX {
        orders.send(LabRequest::Stop).unwrap();
    }
    assert!(orders.send(LabRequest::Stop).unwrap_err().contains("too many lab requests"));
}
