//! The third shell: the roles under a model checker, which tries *every* order of events and not a random one.
//!
//! The roles are the ones that ship; [stateright](https://www.stateright.rs) walks through the states. A state is all
//! roles, what their disks hold, and every message that may still arrive; a step is one message delivered (any that was
//! ever sent, in any order, some of them twice), one armed timer that runs out, or one role that dies and comes back
//! with what its disk holds. A message that is never delivered is lost; a crash between a sync and the messages behind
//! it is a life that ends before any of them is delivered.
//!
//! What is bounded is told by [`Scope`]: how many proposers have a command, up to which round they go, how often
//! messages are doubled and roles die. Within a scope nothing is left out, so it is small: what needs many steps is for
//! [`crate::sim`].

mod role_state;
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

use self::role_state::{ListMachine, ModelRole};
use crate::codec;
use crate::paxos::{
    Acceptor, AcceptorRecord, Ballot, Command, CommandId, Entry, Incarnation, Learner, LearnerNotification,
    LearnerTimer, Message, Policy, Proposer, ProposerRequest, ProposerTimer, Quorums, Slot, Value,
};
use crate::role::{Action, Input, Role, RoleKind, ServerId, ServerSet};
use crate::seeded_bugs::{self, Bug};

/// What is searched, and how far.
#[derive(Clone, Copy, Debug)]
struct Scope {
    /// Servers, each with an acceptor and a learner.
    servers: u8,
    /// How many of them have a client's command.
    proposers: u8,
    /// Learners count, tell and apply. Without them a value is chosen all the same, and nobody knows.
    learners: bool,
    /// The commands go into so many slots: with one, no proposer hears that it is done, and each goes on with that
    /// slot.
    slots: u64,
    /// Promises come in pages of so many bytes, and of one slot at least.
    page_bytes: usize,
    /// No proposer prepares a ballot above this round.
    rounds: u64,
    /// How many deliveries leave their message behind, to come once more.
    doubled: u8,
    /// How many acceptors die and come back.
    acceptor_crashes: u8,
    /// How many proposers die and come back, without their command.
    proposer_crashes: u8,
    /// How many learners die and come back with nothing.
    learner_restarts: u8,
    /// the seeded bug that is on.
    bug: Option<Bug>,
}

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ModelState {
    proposers: Vec<ModelRole<Proposer>>,
    acceptors: Vec<ModelRole<Acceptor>>,
    learners: Vec<ModelRole<Learner<ListMachine>>>,
    /// Messages that may arrive, with how often each was sent and not delivered.
    network: BTreeMap<Packet, u8>,
    doubled: u8,
    acceptor_crashes: u8,
    proposer_crashes: u8,
    learner_restarts: u8,
    /// What each learner has applied in any of its lives, by slot: a life that has ended has told clients of it.
    told: BTreeSet<(Slot, Vec<u8>)>,
    /// What acceptors have accepted in any of their lives, by slot, ballot and value.
    votes: BTreeMap<(Slot, Ballot, Vec<u8>), ServerSet>,
}

/// A message on its way to a role. As bytes, which have an order and go through the real codec.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Packet {
    from: ServerId,
    to: ServerId,
    role: u8,
    bytes: Vec<u8>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ModelStep {
    Deliver(Packet),
    DeliverAndKeep(Packet),
    ProposerTimer(ServerId, ProposerTimer),
    LearnerTimer(ServerId, LearnerTimer),
    AcceptorDies(ServerId),
    ProposerDies(ServerId),
    LearnerDies(ServerId),
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

    fn learner(&self, me: ServerId, life: u32) -> Learner<ListMachine> {
        Learner::new(me, self.quorums(), Incarnation(life), Slot(0), ListMachine::default())
    }

    fn command(&self, server: ServerId) -> Command {
        Command { id: CommandId::new(1, 0, u64::from(server.0)), payload: [server.0].as_slice().into() }
    }

    fn begin(&self) -> ModelState {
        let servers: Vec<ServerId> = self.cluster().iter().collect();
        let mut world = ModelState {
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
            told: BTreeSet::new(),
            votes: BTreeMap::new(),
        };
        for me in servers {
            self.start_proposer(&mut world, me);
            if me.0 <= self.proposers {
                self.propose(
                    &mut world,
                    me,
                    Input::Request(ProposerRequest::Propose { command: self.command(me), promised_round: 0 }),
                );
            }
        }
        world
    }

    fn start_proposer(&self, world: &mut ModelState, me: ServerId) {
        self.propose(world, me, Input::Start);
        let applied = if self.slots == 1 { Slot(0) } else { world.learners[at(me)].role.applied() };
        self.propose(world, me, Input::Request(ProposerRequest::Applied { slot: applied, ids: Vec::new() }));
    }

    fn propose(&self, world: &mut ModelState, me: ServerId, input: Input<Proposer>) {
        for action in world.proposers[at(me)].turn(input) {
            self.send(world, me, action);
        }
    }

    fn accept(&self, world: &mut ModelState, me: ServerId, input: Input<Acceptor>) {
        let actions = world.acceptors[at(me)].turn(input);
        for record in &world.acceptors[at(me)].disk {
            if let AcceptorRecord::Accepted(Entry { slot, ballot, value }) = record {
                world.votes.entry((*slot, *ballot, codec::encode(value))).or_default().insert(me);
            }
        }
        compact(&mut world.acceptors[at(me)].disk);
        for action in actions {
            self.send(world, me, action);
        }
    }

    fn learn(&self, world: &mut ModelState, me: ServerId, input: Input<Learner<ListMachine>>) {
        let actions = world.learners[at(me)].turn(input);
        for (slot, value) in world.learners[at(me)].role.machine().applied() {
            world.told.insert((slot, codec::encode(value)));
        }
        for action in actions {
            match action {
                Action::Notify(LearnerNotification::Advanced { applied, ids }) if self.slots > 1 => {
                    let request = ProposerRequest::Applied { slot: applied, ids };
                    self.propose(world, me, Input::Request(request));
                }
                action => self.send(world, me, action),
            }
        }
    }

    /// Puts a message on its way to every role that hears it.
    fn send<R: Role<Message = Message>>(&self, world: &mut ModelState, from: ServerId, action: Action<R>) {
        let Action::Send { to, message } = action else { return };
        for (to, role) in to.iter().flat_map(|to| message.recipients().iter().map(move |role| (to, *role))) {
            if role == RoleKind::Learner && !self.learners {
                continue;
            }
            let role = ROLES.iter().position(|one| *one == role).unwrap_or_default() as u8;
            let packet = Packet { from, to, role, bytes: codec::encode(&message) };
            *world.network.entry(packet).or_default() += 1;
        }
    }

    fn deliver(&self, world: &mut ModelState, packet: Packet) {
        let (from, to, message) = (packet.from, packet.to, packet.message());
        match ROLES[usize::from(packet.role)] {
            RoleKind::Proposer => self.propose(world, to, Input::Message { from, message }),
            RoleKind::Acceptor => self.accept(world, to, Input::Message { from, message }),
            _ => self.learn(world, to, Input::Message { from, message }),
        }
    }
}

impl Scope {
    /// Forgets the messages and timers of proposers that change nothing, now or ever: of ballots that are over. Without
    /// this states would differ in nothing but them.
    fn forget_useless(&self, world: &mut ModelState) {
        for (place, seat) in world.proposers.iter_mut().enumerate() {
            let me = ServerId(place as u8 + 1);
            let is_useless = |input: Input<Proposer>| {
                let mut again = seat.clone();
                let actions = again.turn(input);
                actions.is_empty() && again.role == seat.role && again.timers == seat.timers
            };
            world.network.retain(|packet, _| {
                let is_here = packet.to == me && ROLES[usize::from(packet.role)] == RoleKind::Proposer;
                !is_here || !is_useless(Input::Message { from: packet.from, message: packet.message() })
            });
            let timers = std::mem::take(&mut seat.timers);
            let is_of_use = |timer: &ProposerTimer| {
                let mut again = seat.clone();
                let actions = again.turn(Input::Timeout(*timer));
                !actions.is_empty() || again.role != seat.role || !again.timers.is_empty()
            };
            let timers: Vec<_> = timers.into_iter().filter(|timer| is_of_use(timer)).collect();
            seat.timers = timers;
        }
    }
}

impl Packet {
    fn message(&self) -> Message {
        codec::decode(&self.bytes).expect("it was encoded by the same codec")
    }
}

fn at(server: ServerId) -> usize {
    usize::from(server.0) - 1
}

/// Leaves of an acceptor's records those that still say something, in the order in which they may have been written:
/// many histories come to the same.
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
            other => unreachable!("nothing is forgotten or damaged here: {other:?}"),
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
        let chosen = self.votes.iter().filter(|(_, servers)| quorums.is_chosen(**servers));
        chosen.map(|((slot, _, value), _)| (*slot, value.as_slice())).collect()
    }

    fn agrees(&self, quorums: &Quorums) -> bool {
        let chosen = self.chosen(quorums);
        let slots: BTreeSet<Slot> = chosen.iter().map(|(slot, _)| *slot).collect();
        slots.len() == chosen.len() && self.told.iter().all(|(slot, value)| chosen.contains(&(*slot, value)))
    }
}

impl Model for Scope {
    type State = ModelState;
    type Action = ModelStep;

    fn init_states(&self) -> Vec<ModelState> {
        seeded_bugs::switch(self.bug);
        vec![self.begin()]
    }

    fn actions(&self, world: &ModelState, steps: &mut Vec<ModelStep>) {
        steps.extend(world.network.keys().cloned().map(ModelStep::Deliver));
        if world.doubled < self.doubled {
            steps.extend(world.network.keys().cloned().map(ModelStep::DeliverAndKeep));
        }
        for me in self.cluster().iter() {
            // What gives commands up, and what nobody waits for here, is left out.
            let timers = world.proposers[at(me)].timers.iter().filter(|timer| !matches!(timer, ProposerTimer::Tick));
            steps.extend(timers.map(|timer| ModelStep::ProposerTimer(me, *timer)));
            if self.learner_restarts > 0 {
                let timers = world.learners[at(me)].timers.iter();
                let timers = timers.filter(|timer| matches!(timer, LearnerTimer::Gap | LearnerTimer::CatchUp { .. }));
                steps.extend(timers.map(|timer| ModelStep::LearnerTimer(me, *timer)));
            }
            if world.acceptor_crashes < self.acceptor_crashes {
                steps.push(ModelStep::AcceptorDies(me));
            }
            if world.proposer_crashes < self.proposer_crashes {
                steps.push(ModelStep::ProposerDies(me));
            }
            if world.learner_restarts < self.learner_restarts {
                steps.push(ModelStep::LearnerDies(me));
            }
        }
    }

    fn next_state(&self, before: &ModelState, step: ModelStep) -> Option<ModelState> {
        seeded_bugs::switch(self.bug);
        let mut world = before.clone();
        match step {
            ModelStep::Deliver(packet) => {
                let left = world.network.get_mut(&packet)?;
                *left -= 1;
                if *left == 0 {
                    world.network.remove(&packet);
                }
                self.deliver(&mut world, packet);
            }
            ModelStep::DeliverAndKeep(packet) => {
                world.doubled += 1;
                self.deliver(&mut world, packet);
            }
            ModelStep::ProposerTimer(me, timer) => {
                world.proposers[at(me)].timers.retain(|other| *other != timer);
                self.propose(&mut world, me, Input::Timeout(timer));
            }
            ModelStep::LearnerTimer(me, timer) => {
                world.learners[at(me)].timers.retain(|other| *other != timer);
                self.learn(&mut world, me, Input::Timeout(timer));
            }
            ModelStep::AcceptorDies(me) => {
                world.acceptor_crashes += 1;
                world.acceptors[at(me)].begin_again(Acceptor::new().with_page_bytes(self.page_bytes));
            }
            ModelStep::ProposerDies(me) => {
                world.proposer_crashes += 1;
                world.proposers[at(me)].begin_again(self.proposer(me));
                self.start_proposer(&mut world, me);
            }
            ModelStep::LearnerDies(me) => {
                world.learner_restarts += 1;
                let life = 1 + u32::from(world.learner_restarts);
                world.learners[at(me)].begin_again(self.learner(me, life));
                self.propose(&mut world, me, Input::Request(ProposerRequest::LearnerDown));
                self.learn(&mut world, me, Input::Start);
                let applied = ProposerRequest::Applied { slot: Slot(0), ids: Vec::new() };
                self.propose(&mut world, me, Input::Request(applied));
            }
        }
        self.forget_useless(&mut world);
        Some(world)
    }

    /// A proposer that would go on above the last round waits for ever instead.
    fn within_boundary(&self, world: &ModelState) -> bool {
        let prepared = |seat: &ModelRole<Proposer>| seat.role.next_round() <= self.rounds + 1;
        world.proposers.iter().all(prepared)
    }

    fn properties(&self) -> Vec<Property<Scope>> {
        vec![
            Property::always(
                "one value a slot is chosen, for ever, and nothing else is applied",
                |scope: &Scope, world: &ModelState| world.agrees(&scope.quorums()),
            ),
            Property::always("what is chosen was asked for", |scope: &Scope, world: &ModelState| {
                let asked = (1..=scope.proposers).map(|server| Value::Command(scope.command(ServerId(server))));
                let asked: Vec<Vec<u8>> = asked.chain([Value::Noop]).map(|value| codec::encode(&value)).collect();
                world.chosen(&scope.quorums()).iter().all(|(_, value)| asked.iter().any(|one| one == value))
            }),
            Property::always("an acceptor's disk knows all that it has said", |_, world: &ModelState| {
                world.acceptors.iter().all(|seat| {
                    let mut again = Acceptor::new();
                    seat.disk.iter().for_each(|record| again.replay(record.clone()));
                    again.promised() == seat.role.promised() && again.accepted() == seat.role.accepted()
                })
            }),
            Property::sometimes("something is chosen", |scope: &Scope, world: &ModelState| {
                !world.chosen(&scope.quorums()).is_empty()
            }),
            Property::sometimes("every slot is applied somewhere", |scope: &Scope, world: &ModelState| {
                world.told.len() as u64 == scope.slots || !scope.learners
            }),
        ]
    }
}
