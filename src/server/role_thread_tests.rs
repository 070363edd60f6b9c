//! Tests of the role thread: a scripted role on a disk that can be held shows what the role host does and when.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::super::context::ServerContext;
use super::super::options::ServerOptions;
use super::*;
use crate::host::mail_queue::{MAILBOX_MAX, QueueLimits};
use crate::host::{
    Admission, ClientConnection, CrashRequest, Delivery, Env, MailboxItem, Observation, RoleObservation,
};
use crate::kv::Kv;
use crate::paxos::{Learner, Message, Quorums, Slot};
use crate::random::Random;
use crate::role::{Input, Output, RoleKind, ServerId, ServerSet, StableStore, TimerSpec};
use crate::storage::identity::Owner;
use crate::trace::{CrashCause, CrashPoint, Event, PendingLine, ProcessId, QuotedText, Speaker, Trace, TraceContext};

const PATIENCE: Duration = Duration::from_secs(20);
const ME: ServerId = ServerId(1);
/// Asks the role to arm its timer, and nothing else.
const ARM: u64 = 1_000;

/// Takes the last room on the disk.
const FILLS: u64 = 1_500;
/// Frees some room on the disk, but not enough; more could be freed.
const SHEDS: u64 = 1_501;
/// Makes the role count, and nothing else.
const COUNT: u64 = 1_001;
/// Makes the role answer that it received this, and nothing else.
const ANSWER: u64 = 1_002;
/// The disk has no room for the record of this number.
const TOO_MUCH: u64 = 2_000;
const NO_SPACE: &str = "no room";

/// Persists each number, traces it, and sends it to its own server's learner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Echo {
    /// How many times the role was asked to count.
    counted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct TestTimer;

impl TimerSpec for TestTimer {
    fn delay_ms(&self) -> RangeInclusive<u64> {
        30..=30
    }
}

impl Role for Echo {
    type Message = Message;
    type Record = u64;
    type Timer = TestTimer;
    type Request = u64;
    type Notification = &'static str;
    type TraceEvent = u64;

    fn replay(&mut self, _record: u64) {}

    fn step(&mut self, input: Input<Self>, out: &mut Output<Self>) {
        match input {
            Input::Start => {}
            Input::Timeout(TestTimer) => out.notify("silence"),
            Input::Request(ARM) => {
                out.arm(TestTimer);
                out.notify("armed");
            }
            Input::Request(COUNT) => self.counted += 1,
            Input::Request(ANSWER) => out.notify("heard"),
            Input::Request(n) | Input::Message { message: Message::Fill { slot: Slot(n) }, .. } => {
                out.persist(n);
                out.emit_step(|| n);
                out.send(ServerSet::only(ME), Message::CatchUp { from: Slot(n) });
            }
            Input::Message { message, .. } => unreachable!("no role sends {message:?}"),
        }
    }
}

/// A disk that keeps its commits in memory. A commit can be held up.
struct FakeDisk {
    commits: Arc<Mutex<Vec<Vec<u64>>>>,
    entered: Sender<()>,
    gate: Option<Receiver<()>>,
    /// The answers to the checks for free space; without one there is room.
    room: Vec<bool>,
    could_shed_more: bool,
}

impl StableStore<u64> for FakeDisk {
    type Error = String;

    fn commit(&mut self, records: &[u64]) -> Result<(), String> {
        if let Some(gate) = &self.gate {
            let _ = self.entered.send(());
            // The test releases the commit, or has ended.
            let _ = gate.recv();
        }
        if records.contains(&TOO_MUCH) {
            return Err(NO_SPACE.to_string());
        }
        if records.contains(&FILLS) {
            self.room = vec![true, false];
        }
        self.could_shed_more = records.contains(&SHEDS);
        self.commits.lock().unwrap().push(records.to_vec());
        Ok(())
    }
}

impl RoleDisk<u64> for FakeDisk {
    fn has_space(&self) -> bool {
        self.room.last().is_none_or(|room| *room)
    }

    fn retry_space(&mut self) {
        self.room.pop();
    }

    fn could_shed_more(&mut self) -> bool {
        std::mem::take(&mut self.could_shed_more)
    }

    fn is_full(error: &String) -> bool {
        error == NO_SPACE
    }
}

/// The data of one server's [`Echo`]: the server itself has no field for it.
struct FixtureRole {
    mailbox: Arc<Mailbox<Echo>>,
    told: Sender<(&'static str, Instant)>,
    /// The count that the role has published.
    counted: AtomicU64,
}

/// By the incarnation of the server's process.
static PLACES: Mutex<BTreeMap<u32, &'static FixtureRole>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU32 = AtomicU32::new(1);

fn place<C: ClientConnection>(core: &ServerCore<C>) -> &'static FixtureRole {
    PLACES.lock().unwrap()[&core.config.incarnation]
}

impl Hosted for Echo {
    const NAME: RoleKind = RoleKind::Acceptor;

    fn mailbox<C: ClientConnection>(core: &ServerCore<C>) -> &Arc<Mailbox<Echo>> {
        &place(core).mailbox
    }

    fn draft(fact: &u64, _cluster: ServerSet, _context: &TraceContext) -> PendingLine {
        PendingLine::new(Speaker::Acceptor, Event::Stage { name: QuotedText::new(format!("number-{fact}")) })
    }

    fn notify<E: Env>(
        &self,
        core: &ServerCore<E::Connection>,
        _env: &E,
        outcome: &'static str,
        _context: TraceContext,
    ) {
        let _ = place(core).told.send((outcome, Instant::now()));
    }

    fn publish<E: Env>(&self, core: &ServerCore<E::Connection>, _env: &E) {
        place(core).counted.store(self.counted, Ordering::Relaxed);
    }

    fn needs_space(input: &Input<Echo>) -> bool {
        matches!(input, Input::Message { .. })
    }

    fn full_disk_effect() -> Option<&'static str> {
        Some("the slate is full")
    }

    fn request_space<E: Env>(core: &ServerCore<E::Connection>, _env: &E) {
        let _ = place(core).told.send(("wants room", Instant::now()));
    }

    fn crash_reason(_forgets: bool) -> &'static str {
        "messages to it are dropped"
    }

    fn on_down<E: Env>(_core: &ServerCore<E::Connection>, _env: &E) {}

    /// The role has no observer.
    fn seen(_seen: RoleObservation<'_, Echo>) -> Observation<'_> {
        Observation::Shed
    }
}

/// An incarnation of an [`Echo`] in a thread, with everything that a test can see of it.
struct ThreadFixture {
    ctx: Arc<ServerContext>,
    told: Receiver<(&'static str, Instant)>,
    commits: Arc<Mutex<Vec<Vec<u64>>>>,
    entered: Receiver<()>,
    gate: Option<Sender<()>>,
    thread: Option<thread::JoinHandle<RunEnd>>,
}

fn ctx(trace: Trace) -> Arc<ServerContext> {
    let (incarnation, quorums) = (NEXT.fetch_add(1, Ordering::Relaxed), Quorums::majority(ServerSet::first(1)));
    let owner = Owner { cluster: "test", quorums, server: ME };
    Arc::new(ServerContext::new(owner, ServerOptions::of(&[]), incarnation, trace, Admission::active()))
}

fn to_memory() -> Trace {
    Trace::to_memory(ProcessId::server(ME, 1))
}

impl ThreadFixture {
    /// A fixture in which each commit waits until it is released.
    fn held() -> ThreadFixture {
        ThreadFixture::new(to_memory(), true, Vec::new())
    }

    fn free() -> ThreadFixture {
        ThreadFixture::new(to_memory(), false, Vec::new())
    }

    fn new(trace: Trace, held: bool, room: Vec<bool>) -> ThreadFixture {
        ThreadFixture::with_context(ctx(trace), held, room)
    }

    /// The next incarnation in the same server context.
    fn with_context(ctx: Arc<ServerContext>, held: bool, room: Vec<bool>) -> ThreadFixture {
        let (tell, told) = unbounded();
        let mailbox = Arc::new(Mailbox::closed(QueueLimits::of(MAILBOX_MAX, 1)));
        let place =
            Box::leak(Box::new(FixtureRole { mailbox: mailbox.clone(), told: tell, counted: AtomicU64::new(0) }));
        PLACES.lock().unwrap().insert(ctx.core.config.incarnation, place);
        ctx.core.learner.open();
        ctx.core.acceptor.open();
        mailbox.open();
        let (enter, entered) = unbounded();
        let (gate, opening) = unbounded();
        let commits = Arc::<Mutex<Vec<Vec<u64>>>>::default();
        let disk = FakeDisk {
            commits: commits.clone(),
            entered: enter,
            gate: held.then_some(opening),
            room,
            could_shed_more: false,
        };
        let has_space = disk.has_space();
        let host = RoleHost::new(&ctx.core, &ctx.threads, Echo::default(), disk, Random::new(1, 1));
        assert_eq!(ctx.core.is_disk_full(), !has_space, "each life says at its beginning whether its disk has room");
        let inside = ctx.clone();
        let thread = thread::spawn(move || run(host, &inside.core, &inside.threads));
        let (gate, thread) = (held.then_some(gate), Some(thread));
        ThreadFixture { ctx, told, commits, entered, gate, thread }
    }

    fn post(&self, input: Input<Echo>, size: usize) {
        let mail = Delivery::from_within(TraceContext::default(), input, size);
        self.ctx.core.enqueue::<Echo, _>(&self.ctx.threads, mail).unwrap();
    }

    fn ask(&self, n: u64) {
        self.post(Input::Request(n), 0);
    }

    /// Sends a number as a message from server 2: it needs room on the disk.
    fn say(&self, n: u64) {
        let input = Input::Message { from: ServerId(2), message: Message::Fill { slot: Slot(n) } };
        self.post(input, 0);
    }

    fn crash(&self, point: CrashPoint) {
        let order = CrashRequest { point, cause: CrashCause::Admin, down: None };
        self.ctx.core.enqueue_control::<Echo, _>(&self.ctx.threads, MailboxItem::Crash(order)).unwrap();
    }

    fn stop(&self) {
        self.ctx.core.enqueue_control::<Echo, _>(&self.ctx.threads, MailboxItem::Stop).unwrap();
    }

    /// Waits until a commit is held.
    fn await_commit(&self) {
        self.entered.recv_timeout(PATIENCE).unwrap();
    }

    /// Releases one held commit.
    fn let_go(&self) {
        self.gate.as_ref().unwrap().send(()).unwrap();
    }

    /// The numbers sent so far.
    fn sent(&self) -> Vec<u64> {
        let number = |item| match item {
            MailboxItem::Mail(Delivery {
                input: Input::Message { message: Message::CatchUp { from }, .. }, ..
            }) => from.0,
            _ => panic!("no other message is posted here"),
        };
        std::iter::from_fn(|| self.ctx.core.learner.take_one()).map(number).collect()
    }

    fn told(&self) -> (&'static str, Instant) {
        self.told.recv_timeout(PATIENCE).unwrap()
    }

    /// Releases held commits, and waits for the end: how it ended, all commits, the numbers sent since the last look,
    /// and the lines.
    fn end(mut self) -> (RunEnd, Vec<Vec<u64>>, Vec<u64>, String) {
        self.gate = None;
        let ended = self.thread.take().unwrap().join().unwrap();
        let commits = self.commits.lock().unwrap().clone();
        (ended, commits, self.sent(), self.ctx.core.trace.text())
    }
}

fn await_that(is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE);
        thread::yield_now();
    }
}

fn crash_point(ended: RunEnd) -> CrashPoint {
    match ended {
        RunEnd::Crashed(order) => order.point,
        RunEnd::Stopped | RunEnd::NoSpace(_) | RunEnd::Fatal(_) => panic!("it ended otherwise: {ended:?}"),
    }
}

#[test]
fn nothing_is_sent_before_it_is_durable() {
    let fixture = ThreadFixture::held();
    fixture.ask(1);
    fixture.await_commit();
    assert_eq!((fixture.sent(), fixture.ctx.core.trace.text()), (vec![], String::new()));
    fixture.let_go();
    let until = Instant::now() + PATIENCE;
    wait(&fixture.ctx.core.learner, &fixture.ctx.threads, RoleKind::Learner as usize, Some(until));
    let sent = fixture.ctx.core.learner.take_one();
    assert!(
        matches!(sent, Some(MailboxItem::Mail(Delivery { context: TraceContext { parent: Some(_), .. }, .. }))),
        "it names its line"
    );
    fixture.stop();
    assert_eq!(fixture.end().1, [[1]]);
}

#[test]
fn inputs_that_arrive_during_a_commit_form_one_batch() {
    let fixture = ThreadFixture::held();
    fixture.ask(1);
    fixture.await_commit();
    (2..=40).for_each(|n| fixture.ask(n));
    fixture.let_go();
    fixture.await_commit();
    fixture.let_go();
    fixture.stop();
    let (ended, commits, sent, _) = fixture.end();
    assert!(matches!(ended, RunEnd::Stopped));
    assert_eq!(commits, [vec![1], (2..=40).collect()]);
    assert_eq!(sent, (1..=40).collect::<Vec<u64>>());
}

#[test]
fn batch_size_is_limited() {
    let fixture = ThreadFixture::held();
    fixture.ask(1);
    fixture.await_commit();
    let half = 3 << 19;
    for n in 2..=5 {
        fixture.post(Input::Request(n), half);
    }
    fixture.stop();
    let (_, commits, _, _) = fixture.end();
    assert_eq!(commits, [vec![1], vec![2, 3], vec![4, 5]]);
}

#[test]
fn a_crash_before_the_step_loses_the_inputs() {
    let fixture = ThreadFixture::held();
    fixture.ask(1);
    fixture.await_commit();
    fixture.say(2);
    fixture.crash(CrashPoint::BeforeStep);
    fixture.say(3);
    let (ended, commits, sent, lines) = fixture.end();
    assert_eq!(crash_point(ended), CrashPoint::BeforeStep);
    assert_eq!((commits, sent), (vec![vec![1]], vec![1]));
    assert!(!lines.contains("number-2"), "{lines}");
    assert_eq!(lines.matches("DROP     msg=FILL from=s2 cause=crashed").count(), 2, "both are told of: {lines}");
    assert_eq!(lines.matches("CRASH").count(), 1, "{lines}");
}

#[test]
fn crash_before_the_sync_leaves_neither_records_nor_messages() {
    let fixture = ThreadFixture::free();
    fixture.crash(CrashPoint::BeforeSync);
    fixture.ask(1);
    let (ended, commits, sent, lines) = fixture.end();
    assert_eq!(crash_point(ended), CrashPoint::BeforeSync);
    assert_eq!((commits.len(), sent.len()), (0, 0));
    assert!(!lines.contains("number-1"), "{lines}");
}

#[test]
fn crash_before_the_send_leaves_records_but_no_messages() {
    let fixture = ThreadFixture::free();
    fixture.crash(CrashPoint::BeforeSend);
    fixture.ask(1);
    let (ended, commits, sent, lines) = fixture.end();
    assert_eq!(crash_point(ended), CrashPoint::BeforeSend);
    assert_eq!((commits, sent), (vec![vec![1]], vec![]));
    assert!(!lines.contains("number-1"), "{lines}");
}

#[test]
fn crash_between_two_turns_is_reported_as_before_step() {
    let fixture = ThreadFixture::free();
    fixture.crash(CrashPoint::BeforeSend);
    let ordered = Instant::now();
    let (ended, commits, _, _) = fixture.end();
    assert_eq!(crash_point(ended), CrashPoint::BeforeStep, "it hit between two turns");
    assert_eq!(commits.len(), 0);
    assert!(ordered.elapsed() < PATIENCE);
}

#[test]
fn log_lines_of_a_batch_are_one_write_before_its_messages() {
    let (seen, at_write) = unbounded();
    let sent = Arc::new(Mutex::new(None::<Arc<Mailbox<Learner<Kv>>>>));
    let outgoing = sent.clone();
    // The clock is read when a batch of lines is written. The test notes the number of messages sent by then.
    let clock = move || {
        let count = outgoing.lock().unwrap().as_ref().map_or(0, |sent| sent.lock().len());
        let _ = seen.send(count);
        jiff::Timestamp::now()
    };
    let fixture = ThreadFixture::new(Trace::to_memory_at(ProcessId::server(ME, 1), clock), true, Vec::new());
    *sent.lock().unwrap() = Some(fixture.ctx.core.learner.clone());
    fixture.ask(1);
    fixture.await_commit();
    (2..=10).for_each(|n| fixture.ask(n));
    fixture.stop();
    let (_, commits, messages, lines) = fixture.end();
    assert_eq!((commits.len(), messages.len()), (2, 10));
    assert_eq!(at_write.try_iter().collect::<Vec<usize>>(), [0, 1], "one write a group, before its messages");
    assert_eq!(lines.lines().count(), 10);
}

#[test]
fn role_that_stops_finishes_its_earlier_inputs() {
    let fixture = ThreadFixture::held();
    fixture.ask(1);
    fixture.await_commit();
    fixture.ask(2);
    fixture.stop();
    fixture.ask(3);
    let (ended, commits, sent, _) = fixture.end();
    assert!(matches!(ended, RunEnd::Stopped));
    assert_eq!((commits, sent), (vec![vec![1], vec![2]], vec![1, 2]));
}

#[test]
fn role_stops_when_its_mailbox_is_closed() {
    let fixture = ThreadFixture::free();
    place(&fixture.ctx.core).mailbox.close();
    fixture.ctx.threads.wake(RoleKind::Acceptor);
    assert!(matches!(fixture.end().0, RunEnd::Stopped));
}

#[test]
fn delayed_thread_handles_its_mail_before_its_timers() {
    let fixture = ThreadFixture::held();
    fixture.ask(ARM);
    assert_eq!(fixture.told().0, "armed");
    fixture.ask(1);
    fixture.await_commit();
    // The timer runs out while the disk is slow. The input that re-arms it arrived in time.
    thread::sleep(Duration::from_millis(60));
    fixture.ask(ARM);
    fixture.let_go();
    let (first, armed_at) = fixture.told();
    let (second, rung_at) = fixture.told();
    assert_eq!((first, second), ("armed", "silence"));
    let waited = rung_at.duration_since(armed_at);
    assert!(waited >= Duration::from_millis(25), "it was put off, and rang after {waited:?}");
    fixture.stop();
    fixture.end();
}

#[test]
fn steady_mail_does_not_keep_timers_from_firing() {
    let fixture = ThreadFixture::free();
    fixture.ask(ARM);
    assert_eq!(fixture.told().0, "armed");
    let started = Instant::now();
    let mut n = 0;
    while fixture.told.is_empty() {
        assert!(started.elapsed() < PATIENCE, "the timer never rang");
        n += 1;
        let mail = Delivery::from_within(TraceContext::default(), Input::Request(n % ARM), 0);
        // A full mailbox is the busiest case.
        let _ = fixture.ctx.core.enqueue::<Echo, _>(&fixture.ctx.threads, mail);
        while fixture.ctx.core.learner.take_one().is_some() {}
    }
    assert_eq!(fixture.told().0, "silence");
    fixture.stop();
    fixture.end();
}

#[test]
fn full_disk_drops_inputs_that_need_space_until_there_is_space() {
    // At the next check the disk has room; only the role's own thread checks.
    let mut asked = ThreadFixture::new(to_memory(), false, vec![true, false]);
    await_that(|| !asked.ctx.core.is_disk_full());
    asked.say(1);
    asked.stop();
    assert_eq!(asked.end().1, [[1]]);

    asked = ThreadFixture::new(to_memory(), false, vec![false; 1 << 20]);
    asked.say(2);
    asked.ask(3);
    asked.stop();
    let (_, commits, sent, lines) = asked.end();
    assert_eq!((commits, sent), (vec![vec![3]], vec![3]), "what needs no room goes on");
    assert!(lines.contains("DROP     msg=FILL from=s2 cause=disk-full"), "{lines}");
}

#[test]
fn full_disk_is_reported_at_once_and_checked_again_without_mail() {
    let fixture = ThreadFixture::free();
    let faults = || fixture.ctx.core.trace.text().matches("the slate is full").count();
    fixture.say(FILLS);
    await_that(|| faults() == 1);
    assert!(fixture.ctx.core.is_disk_full());
    await_that(|| !fixture.ctx.core.is_disk_full());
    fixture.stop();
    assert_eq!(fixture.end().1, [[FILLS]]);
}

#[test]
fn full_disk_requests_space_from_other_roles_at_once_and_again_if_it_was_not_enough() {
    let mut fixture = ThreadFixture::free();
    let asks = |fixture: &ThreadFixture, why: &str| {
        assert_eq!(fixture.told().0, "wants room", "{why}");
        // One second later there would be room.
        assert!(fixture.ctx.core.is_disk_full(), "{why}");
    };
    fixture.say(FILLS);
    asks(&fixture, "when it runs full");
    fixture.ask(SHEDS);
    asks(&fixture, "when some was made, and more could be");
    fixture.ask(1);
    await_that(|| fixture.commits.lock().unwrap().len() == 3);
    fixture.stop();
    let told = fixture.told.clone();
    fixture.thread.take().unwrap().join().unwrap();
    assert!(told.is_empty(), "what makes no room is no reason to ask");
}

#[test]
fn disk_that_was_full_is_not_full_for_the_next_incarnation_that_finds_space() {
    let first = ThreadFixture::new(to_memory(), false, vec![false; 1 << 20]);
    let ctx = first.ctx.clone();
    assert!(ctx.core.is_disk_full());
    first.crash(CrashPoint::BeforeStep);
    first.end();
    let second = ThreadFixture::with_context(ctx.clone(), false, Vec::new());
    assert!(!ctx.core.is_disk_full(), "the next incarnation has space");
    second.stop();
    second.end();
}

#[test]
fn full_disk_is_tracked_per_role_and_not_for_roles_that_are_down() {
    let core = &ctx(Trace::disabled()).core;
    core.participant.open();
    core.coordinator.open();
    core.set_has_space(RoleKind::Participant, false);
    core.set_has_space(RoleKind::Coordinator, false);
    core.set_has_space(RoleKind::Coordinator, true);
    assert!(core.is_disk_full(), "the participant still has none");
    core.participant.close();
    assert!(!core.is_disk_full(), "whether its disk has space is known when it restarts");
}

#[test]
fn incarnation_ends_if_its_records_do_not_fit_on_the_disk() {
    let fixture = ThreadFixture::held();
    fixture.ask(1);
    fixture.await_commit();
    // These are one batch: none of its messages is sent.
    fixture.ask(2);
    fixture.ask(TOO_MUCH);
    let (ended, commits, sent, _) = fixture.end();
    assert!(matches!(&ended, RunEnd::NoSpace(why) if why == NO_SPACE), "{ended:?}");
    assert_eq!((commits, sent), (vec![vec![1]], vec![1]));
}

#[test]
fn sleeping_role_is_woken_by_posted_mail_but_not_by_quiet_mail() {
    let ctx = ctx(Trace::disabled());
    let (core, threads) = (&ctx.core, &ctx.threads);
    core.learner.open();
    let mail = || {
        let input = Input::Message { from: ME, message: Message::CatchUp { from: Slot(1) } };
        Delivery::from_within(TraceContext::default(), input, 0)
    };
    let asleep = || {
        let ctx = ctx.clone();
        let until = Instant::now() + PATIENCE;
        let sleep = move || wait(&ctx.core.learner, &ctx.threads, RoleKind::Learner as usize, Some(until));
        let sleeper = thread::spawn(sleep);
        while !core.learner.lock().is_waiting {
            thread::yield_now();
        }
        sleeper
    };
    let sleeper = asleep();
    core.enqueue_without_wake::<Learner<Kv>, _>(threads, mail(), |_| true).unwrap();
    assert!(core.learner.lock().is_waiting && !sleeper.is_finished());
    core.enqueue::<Learner<Kv>, _>(threads, mail()).unwrap();
    sleeper.join().unwrap();
    wait(&core.learner, threads, RoleKind::Learner as usize, None);
    assert_eq!(core.learner.lock().len(), 2, "both are there, and no role sleeps while something is there");
    core.learner.take(9, usize::MAX, &mut Vec::new());
    wait(&core.learner, threads, RoleKind::Learner as usize, Some(Instant::now()));
    let sleeper = asleep();
    core.learner.close();
    threads.wake(RoleKind::Learner);
    sleeper.join().unwrap();
}

/// Some mail may wait while the role is up for another reason. Here that reason is a request to count, and the waiting
/// mail asks for an answer. Either the role takes both in one turn, or it has published its count before it falls
/// asleep: then it is woken. Otherwise it would sleep although it has mail.
#[test]
fn role_does_not_fall_asleep_with_quiet_mail_in_its_mailbox() {
    let fixture = ThreadFixture::free();
    let (core, threads, place) = (&fixture.ctx.core, &fixture.ctx.threads, place(&fixture.ctx.core));
    for round in 1..=10_000_u64 {
        fixture.ask(COUNT);
        // The other thread finishes each part of its turn in one of the rounds.
        (0..(round * 37) % 1_024).for_each(|_| std::hint::spin_loop());
        let mail = Delivery::from_within(TraceContext::default(), Input::Request(ANSWER), 0);
        let is_early = |_| place.counted.load(Ordering::Relaxed) < round;
        core.enqueue_without_wake::<Echo, _>(threads, mail, is_early).unwrap();
        assert_eq!(fixture.told().0, "heard");
    }
    fixture.stop();
    fixture.end();
}
