//! The third shell: the roles under a model checker, which tries *every* order of events and not a random one.
//!
//! The roles are the ones that ship; [stateright](https://www.stateright.rs) walks through the states. A state is all
//! roles, what their disks hold, and every message that may still arrive; a step is one message delivered (any that was
//! ever sent, in any order, some of them twice), one armed timer that runs out, or one role that dies and comes back with
//! what its disk holds. A message that is never delivered is lost; a crash between a sync and the messages behind it is a
//! life that ends before any of them is delivered.
//!
//! What is bounded is told by [`Scope`]: how many proposers have a command, up to which round they go, how often messages
//! are doubled and roles die. Within a scope nothing is left out, so it is small: what needs many steps is for [`crate::sim`].

mod seat;
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

use self::seat::{Log, Seat};
use crate::codec;
use crate::museum::{self, Bug};
use crate::paxos::{
    Acceptor, AcceptorRecord, Ballot, Command, CommandId, Entry, Learner, LearnerOutcome, LearnerTimer, Life, Message,
    Policy, Proposer, ProposerRequest, ProposerTimer, Quorums, Slot, Value,
};
use crate::role::{Action, Input, Role, RoleName, Server, Servers};

/// What is searched, and how far.
#[derive(Clone, Copy, Debug)]
struct Scope {
    /// Servers, each with an acceptor and a learner.
    servers: u8,
    /// How many of them have a client's command.
    proposers: u8,
    /// Learners count, tell and apply. Without them a value is chosen all the same, and nobody knows.
    learners: bool,
    /// The commands go into so many slots: with one, no proposer hears that it is done, and each goes on with that slot.
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
    /// The bug of the museum that is on.
    bug: Option<Bug>,
}

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    proposers: Vec<Seat<Proposer>>,
    acceptors: Vec<Seat<Acceptor>>,
    learners: Vec<Seat<Learner<Log>>>,
    /// Messages that may arrive, with how often each was sent and not delivered.
    network: BTreeMap<Packet, u8>,
    doubled: u8,
    acceptor_crashes: u8,
    proposer_crashes: u8,
    learner_restarts: u8,
    /// What each learner has applied in any of its lives, by slot: a life that has ended has told clients of it.
    told: BTreeSet<(Slot, Vec<u8>)>,
    /// What acceptors have accepted in any of their lives, by slot, ballot and value.
    votes: BTreeMap<(Slot, Ballot, Vec<u8>), Servers>,
}

/// A message on its way to a role. As bytes, which have an order and go through the real codec.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Packet {
    from: Server,
    to: Server,
    role: u8,
    bytes: Vec<u8>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Deliver(Packet),
    DeliverAndKeep(Packet),
    ProposerTimer(Server, ProposerTimer),
    LearnerTimer(Server, LearnerTimer),
    AcceptorDies(Server),
    ProposerDies(Server),
    LearnerDies(Server),
}

const ROLES: [RoleName; 3] = [RoleName::Proposer, RoleName::Acceptor, RoleName::Learner];

impl Scope {
    fn cluster(&self) -> Servers {
        Servers::first(self.servers)
    }

    fn quorums(&self) -> Quorums {
        Quorums::majority(self.cluster())
    }

    fn proposer(&self, me: Server) -> Proposer {
        Proposer::new(me, self.quorums(), Policy::BasicPaxos)
    }

    fn learner(&self, me: Server, life: u32) -> Learner<Log> {
        Learner::new(me, self.quorums(), Life(life), Slot(0), Log::default())
    }

    fn command(&self, server: Server) -> Command {
        Command { id: CommandId::new(1, 0, u64::from(server.0)), payload: [server.0].as_slice().into() }
    }

    fn begin(&self) -> World {
        let servers: Vec<Server> = self.cluster().iter().collect();
        let mut world = World {
            proposers: servers.iter().map(|me| Seat::new(self.proposer(*me))).collect(),
            acceptors: servers.iter().map(|_| Seat::new(Acceptor::new().with_page_bytes(self.page_bytes))).collect(),
            learners: servers.iter().map(|me| Seat::new(self.learner(*me, 1))).collect(),
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
                self.propose(&mut world, me, Input::Request(ProposerRequest::Propose(self.command(me))));
            }
        }
        world
    }

    fn start_proposer(&self, world: &mut World, me: Server) {
        self.propose(world, me, Input::Start);
        let applied = if self.slots == 1 { Slot(0) } else { world.learners[at(me)].role.applied() };
        self.propose(world, me, Input::Request(ProposerRequest::Applied { slot: applied, ids: Vec::new() }));
    }

    fn propose(&self, world: &mut World, me: Server, input: Input<Proposer>) {
        for action in world.proposers[at(me)].turn(input) {
            self.send(world, me, action);
        }
    }

    fn accept(&self, world: &mut World, me: Server, input: Input<Acceptor>) {
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

    fn learn(&self, world: &mut World, me: Server, input: Input<Learner<Log>>) {
        let actions = world.learners[at(me)].turn(input);
        for (slot, value) in world.learners[at(me)].role.machine().applied() {
            world.told.insert((slot, codec::encode(value)));
        }
        for action in actions {
            match action {
                Action::Outcome(LearnerOutcome::Advanced { applied, ids }) if self.slots > 1 => {
                    let request = ProposerRequest::Applied { slot: applied, ids };
                    self.propose(world, me, Input::Request(request));
                }
                action => self.send(world, me, action),
            }
        }
    }

    /// Puts a message on its way to every role that hears it.
    fn send<R: Role<Message = Message>>(&self, world: &mut World, from: Server, action: Action<R>) {
        let Action::Send { to, message } = action else { return };
        for (to, role) in to.iter().flat_map(|to| message.heard_by().iter().map(move |role| (to, *role))) {
            if role == RoleName::Learner && !self.learners {
                continue;
            }
            let role = ROLES.iter().position(|one| *one == role).unwrap_or_default() as u8;
            let packet = Packet { from, to, role, bytes: codec::encode(&message) };
            *world.network.entry(packet).or_default() += 1;
        }
    }

    fn deliver(&self, world: &mut World, packet: Packet) {
        let (from, to, message) = (packet.from, packet.to, packet.message());
        match ROLES[usize::from(packet.role)] {
            RoleName::Proposer => self.propose(world, to, Input::Message { from, message }),
            RoleName::Acceptor => self.accept(world, to, Input::Message { from, message }),
            _ => self.learn(world, to, Input::Message { from, message }),
        }
    }
}

impl Scope {
    /// Forgets the messages and timers of proposers that change nothing, now or ever: of ballots that are over. Without this
    /// states would differ in nothing but them.
    fn forget_useless(&self, world: &mut World) {
        for (place, seat) in world.proposers.iter_mut().enumerate() {
            let me = Server(place as u8 + 1);
            let is_useless = |input: Input<Proposer>| {
                let mut again = seat.clone();
                let actions = again.turn(input);
                actions.is_empty() && again.role == seat.role && again.timers == seat.timers
            };
            world.network.retain(|packet, _| {
                let is_here = packet.to == me && ROLES[usize::from(packet.role)] == RoleName::Proposer;
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

fn at(server: Server) -> usize {
    usize::from(server.0) - 1
}

/// Leaves of an acceptor's records those that still say something, in the order in which they may have been written: many
/// histories come to the same.
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

impl World {
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
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        museum::switch(self.bug);
        vec![self.begin()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        steps.extend(world.network.keys().cloned().map(Step::Deliver));
        if world.doubled < self.doubled {
            steps.extend(world.network.keys().cloned().map(Step::DeliverAndKeep));
        }
        for me in self.cluster().iter() {
            // What gives commands up, and what nobody waits for here, is left out.
            let timers = world.proposers[at(me)].timers.iter().filter(|timer| !matches!(timer, ProposerTimer::Tick));
            steps.extend(timers.map(|timer| Step::ProposerTimer(me, *timer)));
            if self.learner_restarts > 0 {
                let timers = world.learners[at(me)].timers.iter();
                let timers =
                    timers.filter(|timer| matches!(timer, LearnerTimer::Missing | LearnerTimer::CatchUp { .. }));
                steps.extend(timers.map(|timer| Step::LearnerTimer(me, *timer)));
            }
            if world.acceptor_crashes < self.acceptor_crashes {
                steps.push(Step::AcceptorDies(me));
            }
            if world.proposer_crashes < self.proposer_crashes {
                steps.push(Step::ProposerDies(me));
            }
            if world.learner_restarts < self.learner_restarts {
                steps.push(Step::LearnerDies(me));
            }
        }
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        museum::switch(self.bug);
        let mut world = before.clone();
        match step {
            Step::Deliver(packet) => {
                let left = world.network.get_mut(&packet)?;
                *left -= 1;
                if *left == 0 {
                    world.network.remove(&packet);
                }
                self.deliver(&mut world, packet);
            }
            Step::DeliverAndKeep(packet) => {
                world.doubled += 1;
                self.deliver(&mut world, packet);
            }
            Step::ProposerTimer(me, timer) => {
                world.proposers[at(me)].timers.retain(|other| *other != timer);
                self.propose(&mut world, me, Input::Timeout(timer));
            }
            Step::LearnerTimer(me, timer) => {
                world.learners[at(me)].timers.retain(|other| *other != timer);
                self.learn(&mut world, me, Input::Timeout(timer));
            }
            Step::AcceptorDies(me) => {
                world.acceptor_crashes += 1;
                world.acceptors[at(me)].begin_again(Acceptor::new().with_page_bytes(self.page_bytes));
            }
            Step::ProposerDies(me) => {
                world.proposer_crashes += 1;
                world.proposers[at(me)].begin_again(self.proposer(me));
                self.start_proposer(&mut world, me);
            }
            Step::LearnerDies(me) => {
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
    fn within_boundary(&self, world: &World) -> bool {
        let prepared = |seat: &Seat<Proposer>| seat.role.next_round() <= self.rounds + 1;
        world.proposers.iter().all(prepared)
    }

    fn properties(&self) -> Vec<Property<Scope>> {
        vec![
            Property::always(
                "one value a slot is chosen, for ever, and nothing else is applied",
                |scope: &Scope, world: &World| world.agrees(&scope.quorums()),
            ),
            Property::always("what is chosen was asked for", |scope: &Scope, world: &World| {
                let asked = (1..=scope.proposers).map(|server| Value::Command(scope.command(Server(server))));
                let asked: Vec<Vec<u8>> = asked.chain([Value::Noop]).map(|value| codec::encode(&value)).collect();
                world.chosen(&scope.quorums()).iter().all(|(_, value)| asked.iter().any(|one| one == value))
            }),
            Property::always("an acceptor's disk knows all that it has said", |_, world: &World| {
                world.acceptors.iter().all(|seat| {
                    let mut again = Acceptor::new();
                    seat.disk.iter().for_each(|record| again.replay(record.clone()));
                    again.promised() == seat.role.promised() && again.accepted() == seat.role.accepted()
                })
            }),
            Property::sometimes("something is chosen", |scope: &Scope, world: &World| {
                !world.chosen(&scope.quorums()).is_empty()
            }),
            Property::sometimes("every slot is applied somewhere", |scope: &Scope, world: &World| {
                world.told.len() as u64 == scope.slots || !scope.learners
            }),
        ]
    }
}
