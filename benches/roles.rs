//! What the protocol alone costs: the roles of five servers, without disks, sockets and threads.
//!
//! `cargo bench --bench roles`. The group is the number of commands that are under way at once.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::VecDeque;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use paxos_kv::kv::{self, Kv, Op};
use paxos_kv::paxos::{
    Acceptor, Ballot, Incarnation, Learner, LearnerNotification, Message, Policy, Proposer, ProposerRequest, Quorums,
    Retention, Slot, SlotRange, StateMachine, Value,
};
use paxos_kv::role::{Action, Input, Role, RoleKind, ServerId, ServerSet, StableStore, turn};

/// Number of clients that write in turn.
const SESSIONS: u64 = 64;
const BALLOT: Ballot = Ballot { round: 1, server: ServerId(1) };

/// A disk that costs nothing.
struct NoStableStore;

impl<Record> StableStore<Record> for NoStableStore {
    type Error = std::convert::Infallible;

    fn commit(&mut self, _records: &[Record]) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// A write of a 16-byte key and a 100-byte value.
fn write(sequence: u64) -> Value {
    let op = Op::Put {
        key: format!("key-{:012}", sequence % 10_000).into_bytes(),
        value: vec![7; 100].into(),
        if_version: None,
    };
    let label = String::new();
    Value::Command(kv::KvCommand::Write { session: 1, nonce: 1, sequence, first_open: sequence, label, op }.to_paxos())
}

fn open(nonce: u128) -> Value {
    Value::Command(kv::KvCommand::Open { nonce, label: String::new() }.to_paxos())
}

/// The same, by one of many sessions, in turn: the one that this slot falls to.
fn write_of_many(slot: u64) -> Value {
    let (session, sequence) = (slot % SESSIONS + 1, slot / SESSIONS);
    let key = format!("key-{:012}", slot.wrapping_mul(0x9e37_79b9) % 10_000).into_bytes();
    let op = Op::Put { key, value: vec![7; 100].into(), if_version: None };
    let label = String::new();
    Value::Command(
        kv::KvCommand::Write { session, nonce: session.into(), sequence, first_open: sequence, label, op }.to_paxos(),
    )
}

/// One turn of a role with this mail; gives what it wants done.
fn step<R: Role>(role: &mut R, inputs: impl IntoIterator<Item = Input<R>>) -> Vec<Action<R>> {
    let mail = inputs.into_iter().map(|input| ((), input));
    turn(role, mail, &mut NoStableStore, false).unwrap().into_iter().flat_map(|(_, actions)| actions).collect()
}

fn message<R: Role>(from: ServerId, message: R::Message) -> Input<R> {
    Input::Message { from, message }
}

/// The roles of five servers, and the messages on their way between them.
struct RoleCluster {
    proposers: Vec<Proposer>,
    acceptors: Vec<Acceptor>,
    learners: Vec<Learner<Kv>>,
    mail: VecDeque<(ServerId, ServerId, Message)>,
    applied: u64,
}

impl RoleCluster {
    fn new() -> RoleCluster {
        let quorums = Quorums::majority(ServerSet::first(5));
        let servers = || (1..=5).map(ServerId);
        let mut world = RoleCluster {
            proposers: servers().map(|me| Proposer::new(me, quorums, Policy::BasicPaxos)).collect(),
            acceptors: servers().map(|_| Acceptor::new()).collect(),
            learners: servers().map(|me| Learner::new(me, quorums, Incarnation(1), Slot(0), Kv::default())).collect(),
            mail: VecDeque::new(),
            applied: 0,
        };
        for server in servers() {
            let at = usize::from(server.0) - 1;
            let actions = step(&mut world.proposers[at], [Input::Start]);
            world.send(server, actions);
            let actions = step(&mut world.learners[at], [Input::Start]);
            world.learnt(server, actions);
        }
        world.deliver_all();
        world
    }

    fn send<R: Role<Message = Message>>(&mut self, from: ServerId, actions: Vec<Action<R>>) {
        for action in actions {
            if let Action::Send { to, message } = action {
                self.mail.extend(to.iter().map(|to| (from, to, message.clone())));
            }
        }
    }

    fn learnt(&mut self, from: ServerId, actions: Vec<Action<Learner<Kv>>>) {
        for action in &actions {
            self.applied += u64::from(matches!(action, Action::Notify(LearnerNotification::Applied { .. })));
            if let Action::Notify(LearnerNotification::Advanced { applied, ids }) = action {
                let told = Input::Request(ProposerRequest::Applied { slot: *applied, ids: ids.clone() });
                let actions = step(&mut self.proposers[usize::from(from.0) - 1], [told]);
                self.send(from, actions);
            }
        }
        self.send(from, actions);
    }

    /// Delivers messages until no role sends any more.
    fn deliver_all(&mut self) {
        while let Some((from, to, said)) = self.mail.pop_front() {
            let at = usize::from(to.0) - 1;
            for role in said.recipients() {
                match role {
                    RoleKind::Proposer => {
                        let actions = step(&mut self.proposers[at], [message(from, said.clone())]);
                        self.send(to, actions);
                    }
                    RoleKind::Acceptor => {
                        let actions = step(&mut self.acceptors[at], [message(from, said.clone())]);
                        self.send(to, actions);
                    }
                    _ => {
                        let actions = step(&mut self.learners[at], [message(from, said.clone())]);
                        self.learnt(to, actions);
                    }
                }
            }
        }
    }

    fn propose(&mut self, value: Value) {
        let Value::Command(command) = value else { return };
        let actions =
            step(&mut self.proposers[0], [Input::Request(ProposerRequest::Propose { command, promised_round: 0 })]);
        self.send(ServerId(1), actions);
    }
}

fn whole_commands(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("basic-paxos, five servers, a command through both phases");
    for under_way in [1u64, 64] {
        group.throughput(Throughput::Elements(under_way));
        let mut world = RoleCluster::new();
        world.propose(open(1));
        world.deliver_all();
        let mut sequence = 0;
        group.bench_function(under_way.to_string(), |bencher| {
            bencher.iter(|| {
                let before = world.applied;
                for _ in 0..under_way {
                    sequence += 1;
                    world.propose(write(sequence));
                }
                world.deliver_all();
                assert_eq!(world.applied - before, 5 * under_way, "every server applies every command");
            });
        });
    }
    group.finish();
}

fn single_steps(criterion: &mut Criterion) {
    const GROUP: u64 = 64;
    let mut group = criterion.benchmark_group("one role, a batch of 64 commands");
    group.throughput(Throughput::Elements(GROUP));
    // As under a leader: all that has come goes out in one message.
    let accept = |first: u64| Message::Accept {
        ballot: BALLOT,
        first: Slot(first),
        values: (first..first + GROUP).map(write_of_many).collect(),
    };

    let mut acceptor = Acceptor::new();
    let mut next = 1;
    group.bench_function("acceptor: ACCEPT", |bencher| {
        bencher.iter_batched(
            || {
                next += GROUP;
                [message(BALLOT.server, accept(next))]
            },
            |mail| step(&mut acceptor, mail),
            BatchSize::SmallInput,
        );
    });

    let quorums = Quorums::majority(ServerSet::first(5));
    let sessions = 1..=SESSIONS;
    let opened = || {
        let mut machine = Kv::default();
        sessions.clone().for_each(|slot| {
            machine.apply(Slot(slot), &open(slot.into()));
        });
        Learner::new(ServerId(1), quorums, Incarnation(1), Slot(SESSIONS), machine).with_retention(Retention::DEFAULT)
    };
    let slots = |first| SlotRange { first: Slot(first), last: Slot(first + GROUP - 1) };
    let mut next = SESSIONS + 1;
    let mut learner = opened();
    group.bench_function("learner: ACCEPT and three ACCEPTED, chosen and applied", |bencher| {
        bencher.iter_batched(
            || {
                let first = next;
                next += GROUP;
                let accepted = |n| message(ServerId(n), Message::Accepted { ballot: BALLOT, slots: slots(first) });
                [message(BALLOT.server, accept(first)), accepted(1), accepted(2), accepted(3)]
            },
            |mail| step(&mut learner, mail),
            BatchSize::SmallInput,
        );
    });

    let mut next = SESSIONS + 1;
    let mut learner = opened();
    group.bench_function("learner: ACCEPT and CHOSEN, applied", |bencher| {
        bencher.iter_batched(
            || {
                let first = next;
                next += GROUP;
                let chosen = Message::Chosen { ballot: BALLOT, slots: slots(first) };
                [message(BALLOT.server, accept(first)), message(BALLOT.server, chosen)]
            },
            |mail| step(&mut learner, mail),
            BatchSize::SmallInput,
        );
    });

    let mut machine = Kv::default();
    machine.apply(Slot(1), &open(1));
    let mut slot = 1;
    group.throughput(Throughput::Elements(1));
    group.bench_function("store: one write applied", |bencher| {
        bencher.iter_batched(
            || {
                slot += 1;
                (Slot(slot), write(slot))
            },
            |(slot, value)| machine.apply(slot, &value),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, single_steps, whole_commands);
criterion_main!(benches);
