//! Tests of server steps that span two locks, taken by real threads at once. Each of these sequences is safe in one
//! order only. The simulator runs one step after another, so it cannot interleave them.
//!
//! - A request is registered, and then the server checks that the role is up and enqueues the input.
//! - A crashing role closes its mailbox, and then its pending requests are answered.
//! - A divergent server is fenced, and then its pending requests are answered.
//! - A request is counted, and then the limit is tested.
//!
//! (The fifth sequence is that a role falls asleep only after it has published its wake hints. The tests of the role
//! thread cover it.)

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::{hint, mem, thread};

use crate::host::limits::{self, ALL_REQUESTS_MAX_BYTES, REQUESTS_MAX, REQUESTS_MAX_BYTES};
use crate::host::mailbox::Mailbox;
use crate::host::rate_limit::RateLimit;
use crate::host::role_disk::RoleDisk;
use crate::host::{
    Admission, ClientConnection, Config, CrashRequest, Env, Hosted, LabRequest, ReplyHandle, RequestLoad, RoleHost,
    RunEnd, ServerCore, Usage,
};
use crate::kv::{Kv, Op};
use crate::net::{ClientReply, ClientRequest, PeerMessage, Reply, Request, WhyNotApplied, WhyUnknown};
use crate::paxos::{Incarnation, Learner, Policy, Proposer, Quorums, Slot};
use crate::protocol::Protocol;
use crate::random::Random;
use crate::role::{Role, RoleKind, ServerId, ServerSet, StableStore};
use crate::time::Time;
use crate::trace::{CrashCause, CrashPoint, Trace, TraceContext, fenced};
use crate::two_phase_commit::{Coordinator, Participant};

/// Number of rounds of each race.
const ROUNDS: usize = 10_000;
/// Number of rounds that are prepared at a time.
const BATCH: usize = 100;
const ME: ServerId = ServerId(1);

fn cluster() -> ServerSet {
    ServerSet::first(3)
}

/// Runs two threads against each other, round after round, and checks the result of each round.
fn race<T: Sync>(
    prepare: impl Fn() -> T,
    one: impl Fn(&T) + Sync,
    other: impl Fn(&T) + Sync,
    mut check: impl FnMut(T),
) {
    for batch in 0..ROUNDS / BATCH {
        let rounds: Vec<(AtomicUsize, T)> = (0..BATCH).map(|_| (AtomicUsize::new(0), prepare())).collect();
        let run = |seed: usize, side: &(dyn Fn(&T) + Sync)| {
            let dawdle = Delay(AtomicU64::new(seed as u64));
            for (here, round) in &rounds {
                meet(here);
                dawdle.a_while();
                side(round);
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| run(2 * batch, &one));
            run(2 * batch + 1, &other);
        });
        rounds.into_iter().for_each(|(_, round)| check(round));
    }
}

/// Waits until both threads are here. A thread that slept would arrive late.
fn meet(here: &AtomicUsize) {
    here.fetch_add(1, Ordering::AcqRel);
    let mut looks = 0;
    while here.load(Ordering::Acquire) < 2 {
        looks += 1;
        if looks < 1_000 { hint::spin_loop() } else { thread::yield_now() }
    }
}

/// Takes up to some microseconds, a different time at each call: the gap between two steps becomes wide enough for
/// another thread.
#[derive(Default)]
struct Delay(AtomicU64);

impl Delay {
    fn a_while(&self) {
        let before = self.0.load(Ordering::Relaxed);
        let next = before.wrapping_add(1).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.0.store(next, Ordering::Relaxed);
        (0..(next >> 55) % 256).for_each(|_| hint::spin_loop());
        if (next >> 40).is_multiple_of(64) {
            thread::yield_now();
        }
    }
}

/// The connection of a client.
#[derive(Clone)]
struct TestConnection {
    own: Arc<Usage>,
    load: Arc<RequestLoad>,
    opens: Arc<RateLimit>,
}

impl TestConnection {
    fn to(load: &Arc<RequestLoad>) -> TestConnection {
        TestConnection { own: Arc::default(), load: load.clone(), opens: Arc::new(limits::opens()) }
    }
}

impl ClientConnection for TestConnection {
    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 9))
    }

    fn requests(&self) -> &Usage {
        &self.own
    }

    fn load(&self) -> &RequestLoad {
        &self.load
    }

    fn opens(&self) -> &RateLimit {
        &self.opens
    }
}

/// The environment of a server: it keeps the replies, and every call takes a while.
#[derive(Default)]
struct TestEnv {
    dawdle: Delay,
    replies: Mutex<Vec<(u64, Reply)>>,
}

impl Env for TestEnv {
    type Connection = TestConnection;

    fn now(&self) -> Time {
        self.dawdle.a_while();
        Time(1)
    }

    fn wake(&self, _role: RoleKind) {
        self.dawdle.a_while();
    }

    fn to_peers(&self, _to: ServerSet, _message: &PeerMessage, _frame: Vec<u8>) {}

    fn flush_peers(&self) {}

    fn write_replies(&self, replies: Vec<(ReplyHandle<TestConnection>, ClientReply)>) {
        let replies = replies.into_iter().map(|(_, reply)| (reply.number, reply.reply));
        self.replies.lock().unwrap().extend(replies);
    }

    fn wake_checkpointer(&self) {
        self.dawdle.a_while();
    }

    fn lab_request(&self, _order: LabRequest) -> Result<(), String> {
        Err("this server has no supervisor".to_string())
    }

    fn show_operator(&self, _sentence: &str) {
        self.dawdle.a_while();
    }
}

/// A server with roles that are up, and with requests from clients.
struct TestCall {
    core: ServerCore<TestConnection>,
    env: TestEnv,
}

/// Begins an incarnation of a role without any input.
fn falls_asleep<R: Role>(mailbox: &Mailbox<R>) {
    mailbox.open();
    mailbox.lock().is_waiting = true;
}

const WRITE: u64 = 1;
const READ: u64 = 2;

impl TestCall {
    fn new(protocol: Protocol) -> TestCall {
        let config = Config::of_tests(protocol, cluster());
        let core = ServerCore::new(config, Trace::disabled(), Admission::active());
        if protocol.is_paxos() {
            falls_asleep(&core.proposer);
            falls_asleep(&core.learner);
        } else {
            falls_asleep(&core.coordinator);
            falls_asleep(&core.participant);
        }
        TestCall { core, env: TestEnv::default() }
    }

    /// The thread of a client.
    fn ask(&self, number: u64) {
        let request = if number == WRITE {
            let op = Op::Put { key: b"k".to_vec(), value: b"v".to_vec().into(), if_version: None };
            Request::Write { session: 1, nonce: 1, sequence: 1, first_open: 1, op }
        } else {
            Request::Get { key: b"k".to_vec() }
        };
        let request = ClientRequest { number, context: TraceContext::default(), request };
        self.core.request(&self.env, &TestConnection::to(&self.core.load), request, 10).unwrap();
        self.core.flush_replies(&self.env);
    }

    /// The replies of all requests: each request must have exactly one.
    fn told(self, asked: &[u64]) -> Vec<Reply> {
        self.core.flush_replies(&self.env);
        let mut replies = mem::take(&mut *self.env.replies.lock().unwrap());
        replies.sort_by_key(|(number, _)| *number);
        let numbers: Vec<u64> = replies.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, asked, "not every request got exactly one reply: {replies:?}");
        assert!(self.core.pending.take_all().is_empty(), "a request that was answered still waits");
        replies.into_iter().map(|(_, reply)| reply).collect()
    }
}

/// The disk of a role that never takes a turn.
struct NoClient;

impl<Record> StableStore<Record> for NoClient {
    type Error = String;

    fn commit(&mut self, _records: &[Record]) -> Result<(), String> {
        Err("nothing is written".to_string())
    }
}

impl<Record> RoleDisk<Record> for NoClient {}

/// Clients send these requests while a role crashes. Every request gets a reply about the crash, before or after it.
fn ask_of_a_dying<R: Hosted>(protocol: Protocol, role: impl Fn() -> R, asked: &[u64]) {
    let order = CrashRequest { point: CrashPoint::BeforeStep, cause: CrashCause::Admin, down: None };
    let (mut before, mut after) = (0, 0);
    race(
        || {
            let server = TestCall::new(protocol);
            let host = RoleHost::new(&server.core, &server.env, role(), NoClient, Random::new(1, 1));
            (server, Mutex::new(host))
        },
        |(server, _)| asked.iter().for_each(|number| server.ask(*number)),
        |(server, host)| host.lock().unwrap().on_crash(&server.core, &server.env, &RunEnd::Crashed(order)),
        |(server, _)| {
            for reply in server.told(asked) {
                match reply {
                    Reply::Unknown(WhyUnknown::RoleCrashed(dead)) if dead == R::NAME => before += 1,
                    // For a read, the reply is the same before and after the crash.
                    Reply::NotApplied(WhyNotApplied::RoleDown(dead)) if dead == R::NAME => after += 1,
                    other => panic!("what has that to do with the death? {other:?}"),
                }
            }
        },
    );
    let is_race = after > 0 && (before > 0 || !asked.contains(&WRITE));
    assert!(is_race, "one of the two is always first: {before} before, {after} after");
}

#[test]
fn request_to_a_crashing_role_gets_exactly_one_reply() {
    let quorums = Quorums::majority(cluster());
    let learner = || Learner::new(ME, quorums, Incarnation(1), Slot(0), Kv::default());
    ask_of_a_dying(Protocol::MultiPaxos, || Proposer::new(ME, quorums, Policy::MultiPaxos), &[WRITE]);
    ask_of_a_dying(Protocol::MultiPaxos, learner, &[WRITE, READ]);
    ask_of_a_dying(Protocol::TwoPhaseCommit, || Coordinator::new(ME, cluster()), &[WRITE]);
    ask_of_a_dying(Protocol::TwoPhaseCommit, || Participant::new(ME, cluster(), Kv::default()), &[READ]);
}

#[test]
fn request_to_a_server_that_fences_itself_gets_exactly_one_reply() {
    let (mut before, mut after) = (0, 0);
    let others = cluster().without(ServerSet::only(ME));
    for asked in [WRITE, READ] {
        race(
            || TestCall::new(Protocol::MultiPaxos),
            |server| server.ask(asked),
            |server| server.core.fence(&server.env, fenced(Slot(7), None, others), Slot(7), others),
            |server| match server.told(&[asked]).as_slice() {
                [Reply::Unknown(WhyUnknown::RoleCrashed(RoleKind::Learner))] => before += 1,
                [Reply::NotApplied(WhyNotApplied::Fenced)] => after += 1,
                other => panic!("what has that to do with the state? {other:?}"),
            },
        );
    }
    assert!(before > 0 && after > 0, "one of the two is always first: {before} before, {after} after");
}

#[test]
fn one_of_two_concurrent_requests_gets_the_last_room() {
    let admitted = AtomicUsize::new(0);
    let take_last = |line: &TestConnection| {
        if limits::admit(line, 1) {
            admitted.fetch_add(1, Ordering::Relaxed);
        }
    };
    let nearly_full = || {
        let line = TestConnection::to(&Arc::default());
        assert!((1..REQUESTS_MAX).all(|_| limits::admit(&line, 1)));
        line
    };
    race(nearly_full, take_last, take_last, drop);
    assert_eq!(admitted.swap(0, Ordering::Relaxed), ROUNDS, "of one connection, by number");

    let all_nearly_full = || {
        let load: Arc<RequestLoad> = Arc::default();
        let sizes = [REQUESTS_MAX_BYTES; ALL_REQUESTS_MAX_BYTES / REQUESTS_MAX_BYTES - 1];
        let sizes = sizes.into_iter().chain([REQUESTS_MAX_BYTES - 1]);
        assert!(sizes.into_iter().all(|size| limits::admit(&TestConnection::to(&load), size)));
        (TestConnection::to(&load), TestConnection::to(&load))
    };
    race(all_nearly_full, |(one, _)| take_last(one), |(_, other)| take_last(other), drop);
    assert_eq!(admitted.into_inner(), ROUNDS, "of all connections, by size");
}
