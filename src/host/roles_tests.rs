//! A table test of the meaning of each notification, for the other roles and for clients: `testdata/notifications.txt`.
//!
//! Each notification is sent while the roles that it concerns are up, while they are down, and while their mailboxes
//! are full. Every role that is up sleeps, so that the test shows what wakes it.

use std::cell::RefCell;
use std::fmt::{Debug, Write};
use std::fs;
use std::path::Path;

use super::super::admission::Admission;
use super::super::config::{Config, Sizes};
use super::super::lifecycle::LabRequest;
use super::super::limits::tests::TestConnection;
use super::super::mail_queue::{Capacity, MailboxItem};
use super::super::pending::ReplyHandle;
use super::*;
use crate::kv::{Op, SavedResult, StateDelta, VersionedValue, WriteResult};
use crate::net::{ClientReply, ClientRequest, Envelope, Request};
use crate::paxos::{
    Ballot, CommandId, Entry, Incarnation, LeftBehind, NotApplied, Policy, Retention, SlotRange, Value,
};
use crate::protocol::Protocol;
use crate::role::ServerId;
use crate::time::Time;
use crate::trace::Trace;
use crate::two_phase_commit::TransactionId;

const ME: ServerId = ServerId(1);
/// Maximum number of inputs in a mailbox.
const MAILBOX: usize = 16;
/// The pending write, and a pending write of another client.
const WRITE: CommandId = CommandId::new(7, 1, 1);
const OTHER: CommandId = CommandId::new(8, 2, 1);
/// The token of the pending read.
const READ: u64 = 3;
const SAVED: SavedResult = SavedResult { slot: Slot(9), written: WriteResult::Done { version: 2 } };

/// The state of the mailboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScriptedState {
    Up,
    Down,
    Full,
}

/// A server with two pending writes and one pending read, and its recorded effects.
struct At {
    core: ServerCore<TestConnection>,
    done: Done,
}

#[derive(Default)]
struct Done(RefCell<Vec<String>>);

impl Done {
    fn note(&self, what: String) {
        self.0.borrow_mut().push(what);
    }
}

impl Env for Done {
    type Connection = TestConnection;

    fn now(&self) -> Time {
        Time(1)
    }

    fn wake(&self, role: RoleKind) {
        self.note(format!("wakes the {}", role.as_str()));
    }

    fn to_peers(&self, _to: ServerSet, message: &PeerMessage, _frame: Vec<u8>) {
        self.note(format!("sends {}", message.name()));
    }

    fn flush_peers(&self) {}

    fn write_replies(&self, replies: Vec<(ReplyHandle<TestConnection>, ClientReply)>) {
        for (reply_to, reply) in replies {
            let label = reply_to.context.req.clone().unwrap_or_default();
            self.note(format!("replies to the {label}: {:?}", reply.reply));
        }
    }

    fn wake_checkpointer(&self) {
        self.note("wakes the checkpointer".to_string());
    }

    fn lab_request(&self, order: LabRequest) -> Result<(), String> {
        self.note(format!("orders {order:?}"));
        Ok(())
    }

    fn show_operator(&self, _sentence: &str) {
        self.note("tells the operator".to_string());
    }
}

impl At {
    fn new(state: ScriptedState) -> At {
        let config = Config {
            sizes: Sizes { mailbox: MAILBOX, ..Sizes::usual(1 << 20) },
            ..Config::of_tests(Protocol::MultiPaxos, ServerSet::first(3))
        };
        let at = At { core: ServerCore::new(config, Trace::disabled(), Admission::active()), done: Done::default() };
        let reply_to = |label: &str| {
            let context = TraceContext { parent: None, req: Some(label.to_string()) };
            ReplyHandle::new(TestConnection::default(), 1, context, Time(1))
        };
        at.core.pending.register_write(WRITE, reply_to("write"));
        at.core.pending.register_write(OTHER, reply_to("other write"));
        assert_eq!(at.core.pending.register_read(reply_to("read")), READ);
        let core = &at.core;
        set::<Proposer>(&core.proposer, state, || ProposerRequest::LearnerDown);
        set::<Acceptor>(&core.acceptor, state, || AcceptorRequest::Truncate { below: Slot(1) });
        set::<Learner<Kv>>(&core.learner, state, || LearnerRequest::RequestCheckpoint);
        at
    }

    /// All effects on the server.
    fn effects(self) -> Vec<String> {
        let At { core, done } = self;
        core.flush_replies(&done);
        for heard in [heard(&core.proposer), heard(&core.acceptor), heard(&core.learner)] {
            heard.into_iter().for_each(|what| done.note(what));
        }
        match core.checkpoints.len() {
            0 => {}
            1 => done.note("a job for the checkpointer".to_string()),
            jobs => done.note(format!("{jobs} jobs for the checkpointer")),
        }
        if core.hints.proposer_flushes.load(Ordering::Relaxed) {
            done.note("leaves the flush to the proposer".to_string());
        }
        if let Some(why) = core.admission.refusal() {
            done.note(format!("serves no clients: {why:?}"));
        }
        done.0.into_inner()
    }
}

fn set<R: Hosted>(mailbox: &Mailbox<R>, state: ScriptedState, request: impl Fn() -> R::Request) {
    if state == ScriptedState::Down {
        return;
    }
    mailbox.open();
    if state == ScriptedState::Full {
        for _ in 0..MAILBOX {
            let mail = Delivery::from_within(TraceContext::default(), Input::Request(request()), 0);
            mailbox.put(MailboxItem::Mail(mail), Capacity::Usual, |_| false).unwrap();
        }
    }
    mailbox.lock().is_waiting = true;
}

/// The inputs in a mailbox, without those that filled it.
fn heard<R: Hosted + Debug>(mailbox: &Mailbox<R>) -> Vec<String> {
    let items: Vec<MailboxItem<R>> = std::iter::from_fn(|| mailbox.take_one()).collect();
    let filled = if items.len() < MAILBOX { 0 } else { MAILBOX };
    let tell = |item| match item {
        MailboxItem::Mail(Delivery { context, input: Input::Request(request), size, .. }) => {
            let context = context.req.map_or(String::new(), |label| format!(", because of {label}"));
            let size = if size == 0 { String::new() } else { format!(", {size} bytes") };
            format!("the {} receives {request:?}{context}{size}", R::NAME.as_str())
        }
        other => format!("the {} gets {other:?}", R::NAME.as_str()),
    };
    items.into_iter().skip(filled).map(tell).collect()
}

type Case = (&'static str, fn(&At));

fn cause() -> TraceContext {
    TraceContext { parent: None, req: Some("c1-1".to_string()) }
}

fn proposer(at: &At, outcome: ProposerNotification) {
    let role = Proposer::new(ME, at.core.config.quorums, Policy::MultiPaxos);
    role.notify(&at.core, &at.done, outcome, cause());
}

fn learner(at: &At, outcome: LearnerNotification<Kv>) {
    let role = Learner::new(ME, at.core.config.quorums, Incarnation(1), Slot(0), Kv::default());
    role.notify(&at.core, &at.done, outcome, cause());
}

fn coordinator(at: &At, outcome: CoordinatorNotification) {
    Coordinator::new(ME, ServerSet::first(3)).notify(&at.core, &at.done, outcome, cause());
}

fn participant(at: &At, outcome: ParticipantNotification) {
    Participant::new(ME, ServerSet::first(3), Kv::default()).notify(&at.core, &at.done, outcome, cause());
}

fn changes() -> StateDelta {
    StateDelta { is_whole: false, pieces: Vec::new(), ended: Vec::new() }
}

fn versioned() -> VersionedValue {
    VersionedValue { value: Some(b"v".to_vec().into()), version: 2 }
}

fn transaction() -> TransactionId {
    TransactionId { number: 5, coordinator: ServerId(2) }
}

const OF_PROPOSER: [Case; 3] = [
    ("proposer: NotApplied", |at| {
        proposer(at, ProposerNotification::NotApplied { id: WRITE, why: NotApplied::Preempted });
    }),
    ("proposer: Recall", |at| proposer(at, ProposerNotification::Recall(vec![WRITE]))),
    ("proposer crashes", |at| Proposer::on_down(&at.core, &at.done)),
];

const OF_ACCEPTOR: [Case; 3] = [
    ("acceptor: Corrupt", |at| {
        let outcome = AcceptorNotification::Corrupt { slots: vec![SlotRange { first: Slot(3), last: Slot(4) }] };
        Acceptor::new().notify(&at.core, &at.done, outcome, cause());
    }),
    ("acceptor waits for disk space", |at| Acceptor::request_space(&at.core, &at.done)),
    ("acceptor crashes", |at| Acceptor::on_down(&at.core, &at.done)),
];

const OF_LEARNER: [Case; 21] = [
    ("learner: Applied, a command", |at| {
        learner(
            at,
            LearnerNotification::Applied {
                slot: Slot(9),
                id: Some(WRITE),
                accepted_by: ServerSet::first(3),
                outcome: ApplyResult::Applied(SAVED),
            },
        );
    }),
    ("learner: Applied, a no-op", |at| {
        learner(
            at,
            LearnerNotification::Applied {
                slot: Slot(9),
                id: None,
                accepted_by: ServerSet::NONE,
                outcome: ApplyResult::Noop,
            },
        );
    }),
    ("learner: Applied, in a session that has expired", |at| {
        learner(
            at,
            LearnerNotification::Applied {
                slot: Slot(9),
                id: Some(WRITE),
                accepted_by: ServerSet::NONE,
                outcome: ApplyResult::Expired,
            },
        );
    }),
    ("learner: Advanced, and the proposer waits for that", |at| {
        at.core.hints.wants_applied.store(true, Ordering::Relaxed);
        learner(at, LearnerNotification::Advanced { applied: Slot(9), ids: vec![WRITE] });
    }),
    ("learner: Advanced, and the proposer does not wait for that", |at| {
        learner(at, LearnerNotification::Advanced { applied: Slot(9), ids: vec![WRITE] });
    }),
    ("learner: Counted", |at| learner(at, LearnerNotification::Counted)),
    ("learner: Answer", |at| {
        learner(at, LearnerNotification::Answer { token: READ, slot: Slot(9), answer: versioned() });
    }),
    ("learner: ReadFailed", |at| {
        learner(at, LearnerNotification::ReadFailed { token: READ, answered: ServerSet::only(ME) });
    }),
    ("learner: Checkpoint", |at| {
        learner(at, LearnerNotification::Checkpoint { slot: Slot(9), digest: 1, changes: changes() });
    }),
    ("learner: Checkpoint, and 16 wait to be written", |at| {
        while at.core.checkpoints.write(CheckpointMeta { slot: Slot(1), digest: 1 }, changes()) {}
        learner(at, LearnerNotification::Checkpoint { slot: Slot(9), digest: 1, changes: changes() });
    }),
    ("learner: Durable", |at| learner(at, LearnerNotification::Durable { slot: Slot(9) })),
    ("learner: SnapshotRequested", |at| {
        learner(at, LearnerNotification::SnapshotRequested { to: ServerId(2), part: None });
    }),
    ("learner: Pinned", |at| learner(at, LearnerNotification::Pinned { peers: ServerSet::only(ServerId(2)) })),
    ("learner: LeftBehind", |at| {
        let left = LeftBehind { peer: ServerId(2), parts: 37, ticks: 32, written: 44_800_000, kept: 64 << 20 };
        learner(at, LearnerNotification::LeftBehind(left));
    }),
    ("learner: CheckpointLate", |at| learner(at, LearnerNotification::CheckpointLate { bytes: 70_000_000 })),
    ("learner: Installed", |at| {
        learner(at, LearnerNotification::Installed { slot: Slot(9), digest: 1, from: ServerId(2) });
    }),
    ("learner: Installed, and then Applied in a session that has expired", |at| {
        learner(at, LearnerNotification::Installed { slot: Slot(9), digest: 1, from: ServerId(2) });
        learner(
            at,
            LearnerNotification::Applied {
                slot: Slot(10),
                id: Some(WRITE),
                accepted_by: ServerSet::NONE,
                outcome: ApplyResult::Expired,
            },
        );
    }),
    ("learner: ResultsFound", |at| {
        learner(
            at,
            LearnerNotification::ResultsFound { slot: Slot(9), id: WRITE, outcome: ApplyResult::Duplicate(SAVED) },
        );
    }),
    ("learner: Repaired", |at| {
        let entry = Entry { slot: Slot(3), ballot: Ballot::ZERO, value: Value::Noop };
        learner(at, LearnerNotification::Repaired { entries: vec![entry] });
    }),
    ("learner: Fenced", |at| {
        let against = ServerSet::first(3).without(ServerSet::only(ME));
        learner(at, LearnerNotification::Fenced { slot: Slot(9), equal: None, against });
    }),
    ("learner crashes", |at| Learner::<Kv>::on_down(&at.core, &at.done)),
];

const OF_TWO_PHASE_COMMIT: [Case; 6] = [
    ("coordinator: Done", |at| {
        coordinator(at, CoordinatorNotification::Done { id: WRITE, outcome: ApplyResult::Applied(SAVED) });
    }),
    ("coordinator: NotApplied", |at| {
        let why = two_phase_commit::AbortReason::Locked { by: transaction() };
        coordinator(at, CoordinatorNotification::NotApplied { id: WRITE, why });
    }),
    ("coordinator crashes", |at| Coordinator::on_down(&at.core, &at.done)),
    ("participant: Answer", |at| {
        participant(at, ParticipantNotification::Answer { token: READ, applied: 4, answer: versioned() });
    }),
    ("participant: ReadFailed", |at| {
        participant(at, ParticipantNotification::ReadFailed { token: READ, by: transaction() });
    }),
    ("participant crashes", |at| Participant::on_down(&at.core, &at.done)),
];

/// A case and its effects in each state. States with the same effects share a line.
fn row((name, tell): &Case) -> String {
    let effects = [ScriptedState::Up, ScriptedState::Down, ScriptedState::Full].map(|state| {
        let at = At::new(state);
        tell(&at);
        let effects = at.effects();
        if effects.is_empty() { vec!["nothing".to_string()] } else { effects }
    });
    let [up, down, full] = &effects;
    let groups = match (up == full, up == down) {
        (true, true) => vec![("always", up)],
        (true, false) => vec![("up or full", up), ("down", down)],
        (false, _) if down == full => vec![("up", up), ("down or full", down)],
        (false, _) => vec![("up", up), ("down", down), ("full", full)],
    };
    let mut text = format!("{name}\n");
    for (states, effects) in groups {
        writeln!(text, "    {states}: {}", effects.join("; ")).unwrap();
    }
    text
}

#[test]
fn server_replies_for_a_proposer_that_is_down() {
    let leader = Ballot { round: 7, server: ServerId(2) };
    let asked = [
        (Message::Heartbeat { ballot: leader }, Some("sends HEARTBEATREPLY")),
        (Message::PreVote { id: 4 }, Some("sends PREVOTEREPLY")),
        (Message::LeaderHint { ballot: leader }, None),
    ];
    for (message, answer) in asked {
        for state in [ScriptedState::Up, ScriptedState::Down] {
            let at = At::new(state);
            let envelope = Envelope { context: TraceContext::default(), message: PeerMessage::Paxos(message.clone()) };
            at.core.deliver(&at.done, ServerId(2), envelope);
            let dropped = at.core.dropped();
            let sent: Vec<_> = at.effects().into_iter().filter(|effect| effect.starts_with("sends")).collect();
            let expected = answer.filter(|_| state == ScriptedState::Down);
            assert_eq!(sent, Vec::from_iter(expected), "{message:?}, {state:?}");
            assert_eq!(dropped, u64::from(state == ScriptedState::Down && answer.is_none()), "{message:?}, {state:?}");
        }
    }
}

#[test]
fn a_server_whose_checkpoint_is_far_behind_takes_no_writes() {
    let done = |is_full: bool, learner: ScriptedState| {
        let at = At::new(ScriptedState::Up);
        at.core.hints.is_checkpoint_full.store(is_full, Ordering::Relaxed);
        if learner == ScriptedState::Down {
            at.core.learner.close();
        }
        let is_told = at.core.status(&at.done).checkpoint_full;
        let op = Op::Delete { key: b"k".to_vec() };
        let request = Request::Write { session: 8, nonce: 1, sequence: 1, first_open: 1, op };
        let request = ClientRequest { number: 1, context: cause(), request };
        at.core.request(&at.done, &TestConnection::default(), request, 1).unwrap();
        let effects = at.effects();
        (is_told, effects.iter().any(|effect| effect.contains("the proposer receives Propose")), effects.join("; "))
    };
    let (is_told, is_proposed, effects) = done(true, ScriptedState::Up);
    assert!(is_told && !is_proposed && effects.contains("NotApplied(Busy)"), "{effects}");
    let (is_told, is_proposed, effects) = done(false, ScriptedState::Up);
    assert!(!is_told && is_proposed, "{effects}");
    let (is_told, _, effects) = done(true, ScriptedState::Down);
    assert!(!is_told && effects.contains("RoleDown"), "no incarnation is up that knows it: {effects}");
}

#[test]
fn report_of_a_late_checkpoint_names_the_delay_and_the_consequence() {
    assert_eq!(
        trace_lines::checkpoint_late(70_000_000, &Retention::DEFAULT),
        "70.0 MB of values are in no durable checkpoint, and one is due every 33.6 MB: the disk is slower than the \
         clients. From 134.2 MB on, this server refuses writes until the checkpoint is durable"
    );
}

#[test]
fn report_of_a_peer_left_behind_names_the_measured_rates() {
    let left = LeftBehind { peer: ServerId(5), parts: 37, ticks: 32, written: 44_800_000, kept: 64 << 20 };
    assert_eq!(
        trace_lines::left_behind(&left, 1 << 20),
        "server 5 receives about 12.1 MB/s (37 snapshot chunks in 3.2 s), and clients write 14.0 MB/s: it does not catch \
         up under this load. The 67.1 MB of the log kept for it are full, so it needs another snapshot. Reduce the load \
         for a while, or use a faster link"
    );
    let at_once = trace_lines::left_behind(&LeftBehind { ticks: 0, ..left }, 1 << 20);
    assert!(at_once.contains(" in 0.1 s)"), "{at_once}");
}

#[test]
fn each_notification_has_the_effects_in_the_table() {
    let cases = OF_PROPOSER.iter().chain(&OF_ACCEPTOR).chain(&OF_LEARNER).chain(&OF_TWO_PHASE_COMMIT);
    let table: String = cases.map(row).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/host/testdata/notifications.txt");
    let expected = fs::read_to_string(path).unwrap();
    assert!(table == expected, "the table has become:\n{table}");
}
