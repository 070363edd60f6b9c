//! The model checker, the third role host: it tries *every* order of events instead of a random one.
//!
//! The roles are the ones of the server; [stateright](https://www.stateright.rs) searches the states. A state contains
//! all roles, the content of their disks, and every message that may still arrive. A step is one of three events. A
//! message is delivered: any message ever sent, in any order, some of them twice. An armed timer runs out. Or a role
//! crashes and restarts with the content of its disk. A lost message is one that is never delivered. A crash between a
//! sync and the messages after it is an incarnation that ends before any of them is delivered.
//!
//! [`Scope`] bounds the search: the number of proposers with a command, the highest round, the number of duplicated
//! messages and of crashes. Within a scope the search is complete, so scopes are small. Cases that need many steps are
//! left to [`crate::sim`].

mod role_state;
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

use self::role_state::{ListMachine, ModelRole};
use paxos_kv::codec;
use paxos_kv::paxos::{
    Acceptor, AcceptorRecord, Ballot, Command, CommandId, Entry, Incarnation, Learner, LearnerNotification,
    LearnerTimer, Message, Policy, Proposer, ProposerRequest, ProposerTimer, Quorums, Slot, Value,
};
use paxos_kv::role::{Action, Input, Role, RoleKind, ServerId, ServerSet};
use paxos_kv::seeded_bugs::{self, Bug};

/// The bounds of a search.
#[derive(Clone, Copy, Debug)]
struct Scope {
    /// Number of servers, each with an acceptor and a learner.
    servers: u8,
    /// Number of servers that have a client's command.
    proposers: u8,
    /// Whether learners count votes, send LEARN and apply. Without them values are chosen all the same, but no role
    /// notices.
    learners: bool,
    /// Number of slots for the commands. With one slot, no proposer hears that its command is done, and each stays at
    /// that slot.
    slots: u64,
    /// Maximum bytes in a page of a PROMISE; a page has at least one slot.
    page_bytes: usize,
    /// Maximum round of a ballot that a proposer prepares.
    rounds: u64,
    /// Maximum number of messages that are delivered twice.
    duplicates: u8,
    /// Maximum number of acceptor crashes, each followed by a restart.
    acceptor_crashes: u8,
    /// Maximum number of proposer crashes, each followed by a restart without the command.
    proposer_crashes: u8,
    /// Maximum number of learner crashes, each followed by a restart without any data.
    learner_restarts: u8,
    /// The seeded bug that is on.
    bug: Option<Bug>,
}

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ModelState {
    proposers: Vec<ModelRole<Proposer>>,
    acceptors: Vec<ModelRole<Acceptor>>,
    learners: Vec<ModelRole<Learner<ListMachine>>>,
    /// Messages that may arrive, with the number of undelivered copies.
    network: BTreeMap<Packet, u8>,
    doubled: u8,
    acceptor_crashes: u8,
    proposer_crashes: u8,
    learner_restarts: u8,
    /// The values that a learner has applied in any incarnation, by slot. Earlier incarnations count, because they may
    /// have answered clients.
    learned: BTreeSet<(Slot, Vec<u8>)>,
    /// The acceptors that have accepted a value in any incarnation, by slot, ballot and value.
    votes: BTreeMap<(Slot, Ballot, Vec<u8>), ServerSet>,
}

/// A message on its way to a role. It is stored as bytes, which have an order and test the real codec.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Packet {
    from: ServerId,
    to: ServerId,
    role: u8,
    bytes: Vec<u8>,
}

/// One step of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ModelStep {
    Deliver(Packet),
    DeliverDuplicate(Packet),
    ProposerTimer(ServerId, ProposerTimer),
    LearnerTimer(ServerId, LearnerTimer),
    AcceptorCrash(ServerId),
    ProposerCrash(ServerId),
    LearnerCrash(ServerId),
}

const ROLES: [RoleKind; 3] = [RoleKind::Proposer, RoleKind::Acceptor, RoleKind::Learner];

impl Scope {
    fn cluster(&self) -> ServerSet {
        ServerSet::first(self.servers)
    }

    fn quorums(&self) -> Quorums {
        Quorums::majority(self.cluster())
    }

    fn proposer(&self, me: ServerId) -> Proposer {
        Proposer::new(me, self.quorums(), Policy::BasicPaxos)
    }

    fn learner(&self, me: ServerId, incarnation: u32) -> Learner<ListMachine> {
        Learner::new(me, self.quorums(), Incarnation(incarnation), Slot(0), ListMachine::default())
    }

    fn command(&self, server: ServerId) -> Command {
        Command { id: CommandId::new(1, 0, u64::from(server.0)), payload: [server.0].as_slice().into() }
    }

    fn initial_state(&self) -> ModelState {
        let servers: Vec<ServerId> = self.cluster().iter().collect();
        let mut state = ModelState {
            proposers: servers.iter().map(|me| ModelRole::new(self.proposer(*me))).collect(),
            acceptors: servers
                .iter()
                .map(|_| ModelRole::new(Acceptor::new().with_page_bytes(self.page_bytes)))
                .collect(),
            learners: servers.iter().map(|me| ModelRole::new(self.learner(*me, 1))).collect(),
            network: BTreeMap::new(),
            doubled: 0,
            acceptor_crashes: 0,
            proposer_crashes: 0,
            learner_restarts: 0,
            learned: BTreeSet::new(),
            votes: BTreeMap::new(),
        };
        for me in servers {
            self.start_proposer(&mut state, me);
            if me.0 <= self.proposers {
                self.propose(
                    &mut state,
                    me,
                    Input::Request(ProposerRequest::Propose { command: self.command(me), promised_round: 0 }),
                );
            }
        }
        state
    }

    fn start_proposer(&self, state: &mut ModelState, me: ServerId) {
        self.propose(state, me, Input::Start);
        let applied = if self.slots == 1 { Slot(0) } else { state.learners[server_index(me)].role.applied() };
        self.propose(state, me, Input::Request(ProposerRequest::Applied { slot: applied, ids: Vec::new() }));
    }

    fn propose(&self, state: &mut ModelState, me: ServerId, input: Input<Proposer>) {
        for action in state.proposers[server_index(me)].turn(input) {
            self.send(state, me, action);
        }
    }

    fn accept(&self, state: &mut ModelState, me: ServerId, input: Input<Acceptor>) {
        let actions = state.acceptors[server_index(me)].turn(input);
        for record in &state.acceptors[server_index(me)].disk {
            if let AcceptorRecord::Accepted(Entry { slot, ballot, value }) = record {
                state.votes.entry((*slot, *ballot, codec::encode(value))).or_default().insert(me);
            }
        }
        compact(&mut state.acceptors[server_index(me)].disk);
        for action in actions {
            self.send(state, me, action);
        }
    }

    fn learn(&self, state: &mut ModelState, me: ServerId, input: Input<Learner<ListMachine>>) {
        let actions = state.learners[server_index(me)].turn(input);
        for (slot, value) in state.learners[server_index(me)].role.machine().applied() {
            state.learned.insert((slot, codec::encode(value)));
        }
        for action in actions {
            match action {
                Action::Notify(LearnerNotification::Advanced { applied, ids }) if self.slots > 1 => {
                    let request = ProposerRequest::Applied { slot: applied, ids };
                    self.propose(state, me, Input::Request(request));
                }
                action => self.send(state, me, action),
            }
        }
    }

    /// Adds a message to the network for every role that receives it.
    fn send<R: Role<Message = Message>>(&self, state: &mut ModelState, from: ServerId, action: Action<R>) {
        let Action::Send { to, message } = action else { return };
        for (to, role) in to.iter().flat_map(|to| message.recipients().iter().map(move |role| (to, *role))) {
            if role == RoleKind::Learner && !self.learners {
                continue;
            }
            let role = ROLES.iter().position(|one| *one == role).unwrap_or_default() as u8;
            let packet = Packet { from, to, role, bytes: codec::encode(&message) };
            *state.network.entry(packet).or_default() += 1;
        }
    }

    fn deliver(&self, state: &mut ModelState, packet: Packet) {
        let (from, to, message) = (packet.from, packet.to, packet.message());
        match ROLES[usize::from(packet.role)] {
            RoleKind::Proposer => self.propose(state, to, Input::Message { from, message }),
            RoleKind::Acceptor => self.accept(state, to, Input::Message { from, message }),
            _ => self.learn(state, to, Input::Message { from, message }),
        }
    }
}

impl Scope {
    /// Removes messages and timers of proposers that change nothing, now or later, because their ballots are over.
    /// Otherwise many states would differ only in them.
    fn drop_useless(&self, state: &mut ModelState) {
        for (place, model_role) in state.proposers.iter_mut().enumerate() {
            let me = ServerId(place as u8 + 1);
            let is_useless = |input: Input<Proposer>| {
                let mut again = model_role.clone();
                let actions = again.turn(input);
                actions.is_empty() && again.role == model_role.role && again.timers == model_role.timers
            };
            state.network.retain(|packet, _| {
                let is_here = packet.to == me && ROLES[usize::from(packet.role)] == RoleKind::Proposer;
                !is_here || !is_useless(Input::Message { from: packet.from, message: packet.message() })
            });
            let timers = std::mem::take(&mut model_role.timers);
            let is_of_use = |timer: &ProposerTimer| {
                let mut again = model_role.clone();
                let actions = again.turn(Input::Timeout(*timer));
                !actions.is_empty() || again.role != model_role.role || !again.timers.is_empty()
            };
            let timers: Vec<_> = timers.into_iter().filter(|timer| is_of_use(timer)).collect();
            model_role.timers = timers;
        }
    }
}

impl Packet {
    fn message(&self) -> Message {
        codec::decode(&self.bytes).expect("it was encoded by the same codec")
    }
}

fn server_index(server: ServerId) -> usize {
    usize::from(server.0) - 1
}

/// Keeps only the records of an acceptor that still matter, in a possible order of writing. Then different histories
/// lead to the same state.
fn compact(records: &mut Vec<AcceptorRecord>) {
    let mut promised = Ballot::ZERO;
    let mut accepted = BTreeMap::new();
    for record in records.drain(..) {
        match record {
            AcceptorRecord::Promised(ballot) => promised = promised.max(ballot),
            AcceptorRecord::Accepted(entry) => {
                promised = promised.max(entry.ballot);
                accepted.insert(entry.slot, entry);
            }
            other => unreachable!("nothing is truncated or corrupt in the model: {other:?}"),
        }
    }
    let mut entries: Vec<Entry> = accepted.into_values().collect();
    entries.sort_by_key(|entry| entry.ballot);
    records.extend(entries.into_iter().map(AcceptorRecord::Accepted));
    records.push(AcceptorRecord::Promised(promised));
}

impl ModelState {
    /// Every value that was ever chosen in a slot: a majority has accepted it there at one ballot.
    fn chosen(&self, quorums: &Quorums) -> BTreeSet<(Slot, &[u8])> {
        let chosen = self.votes.iter().filter(|(_, servers)| quorums.is_phase2_quorum(**servers));
        chosen.map(|((slot, _, value), _)| (*slot, value.as_slice())).collect()
    }

    fn agrees(&self, quorums: &Quorums) -> bool {
        let chosen = self.chosen(quorums);
        let slots: BTreeSet<Slot> = chosen.iter().map(|(slot, _)| *slot).collect();
        slots.len() == chosen.len() && self.learned.iter().all(|(slot, value)| chosen.contains(&(*slot, value)))
    }
}

impl Model for Scope {
    type State = ModelState;
    type Action = ModelStep;

    fn init_states(&self) -> Vec<ModelState> {
        seeded_bugs::switch(self.bug);
        vec![self.initial_state()]
    }

    fn actions(&self, state: &ModelState, steps: &mut Vec<ModelStep>) {
        steps.extend(state.network.keys().cloned().map(ModelStep::Deliver));
        if state.doubled < self.duplicates {
            steps.extend(state.network.keys().cloned().map(ModelStep::DeliverDuplicate));
        }
        for me in self.cluster().iter() {
            // Left out: the proposers' ticks, which give up commands, and timers whose effect nothing here waits for.
            let timers =
                state.proposers[server_index(me)].timers.iter().filter(|timer| !matches!(timer, ProposerTimer::Tick));
            steps.extend(timers.map(|timer| ModelStep::ProposerTimer(me, *timer)));
            if self.learner_restarts > 0 {
                let timers = state.learners[server_index(me)].timers.iter();
                let timers = timers.filter(|timer| matches!(timer, LearnerTimer::Gap | LearnerTimer::CatchUp { .. }));
                steps.extend(timers.map(|timer| ModelStep::LearnerTimer(me, *timer)));
            }
            if state.acceptor_crashes < self.acceptor_crashes {
                steps.push(ModelStep::AcceptorCrash(me));
            }
            if state.proposer_crashes < self.proposer_crashes {
                steps.push(ModelStep::ProposerCrash(me));
            }
            if state.learner_restarts < self.learner_restarts {
                steps.push(ModelStep::LearnerCrash(me));
            }
        }
    }

    fn next_state(&self, before: &ModelState, step: ModelStep) -> Option<ModelState> {
        seeded_bugs::switch(self.bug);
        let mut state = before.clone();
        match step {
            ModelStep::Deliver(packet) => {
                let left = state.network.get_mut(&packet)?;
                *left -= 1;
                if *left == 0 {
                    state.network.remove(&packet);
                }
                self.deliver(&mut state, packet);
            }
            ModelStep::DeliverDuplicate(packet) => {
                state.doubled += 1;
                self.deliver(&mut state, packet);
            }
            ModelStep::ProposerTimer(me, timer) => {
                state.proposers[server_index(me)].timers.retain(|other| *other != timer);
                self.propose(&mut state, me, Input::Timeout(timer));
            }
            ModelStep::LearnerTimer(me, timer) => {
                state.learners[server_index(me)].timers.retain(|other| *other != timer);
                self.learn(&mut state, me, Input::Timeout(timer));
            }
            ModelStep::AcceptorCrash(me) => {
                state.acceptor_crashes += 1;
                state.acceptors[server_index(me)].restart(Acceptor::new().with_page_bytes(self.page_bytes));
            }
            ModelStep::ProposerCrash(me) => {
                state.proposer_crashes += 1;
                state.proposers[server_index(me)].restart(self.proposer(me));
                self.start_proposer(&mut state, me);
            }
            ModelStep::LearnerCrash(me) => {
                state.learner_restarts += 1;
                let incarnation = 1 + u32::from(state.learner_restarts);
                state.learners[server_index(me)].restart(self.learner(me, incarnation));
                self.propose(&mut state, me, Input::Request(ProposerRequest::LearnerDown));
                self.learn(&mut state, me, Input::Start);
                let applied = ProposerRequest::Applied { slot: Slot(0), ids: Vec::new() };
                self.propose(&mut state, me, Input::Request(applied));
            }
        }
        self.drop_useless(&mut state);
        Some(state)
    }

    /// Cuts off states in which a proposer would go beyond the last round.
    fn within_boundary(&self, state: &ModelState) -> bool {
        let prepared = |model_role: &ModelRole<Proposer>| model_role.role.next_round() <= self.rounds + 1;
        state.proposers.iter().all(prepared)
    }

    fn properties(&self) -> Vec<Property<Scope>> {
        vec![
            Property::always(
                "each slot has one chosen value for ever, and nothing else is applied",
                |scope: &Scope, state: &ModelState| state.agrees(&scope.quorums()),
            ),
            Property::always("every chosen value was requested by a client", |scope: &Scope, state: &ModelState| {
                let asked = (1..=scope.proposers).map(|server| Value::Command(scope.command(ServerId(server))));
                let asked: Vec<Vec<u8>> = asked.chain([Value::Noop]).map(|value| codec::encode(&value)).collect();
                state.chosen(&scope.quorums()).iter().all(|(_, value)| asked.iter().any(|one| one == value))
            }),
            Property::always(
                "an acceptor's disk has everything that it has promised and accepted",
                |_, state: &ModelState| {
                    state.acceptors.iter().all(|model_role| {
                        let mut again = Acceptor::new();
                        model_role.disk.iter().for_each(|record| again.replay(record.clone()));
                        again.promised() == model_role.role.promised() && again.accepted() == model_role.role.accepted()
                    })
                },
            ),
            Property::sometimes("a value is chosen", |scope: &Scope, state: &ModelState| {
                !state.chosen(&scope.quorums()).is_empty()
            }),
            Property::sometimes("every slot is applied by some learner", |scope: &Scope, state: &ModelState| {
                state.learned.len() as u64 == scope.slots || !scope.learners
            }),
        ]
    }
}
