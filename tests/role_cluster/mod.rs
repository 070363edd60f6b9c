//! A cluster of role values without threads, sockets or files: each test that drives it decides what happens next.
//!
//! Whatever a role sends lies in `packets` until the test delivers, drops or copies it; whatever it arms lies in
//! `timers` until the test fires it; a crash takes a role's memory, and gives the next life its durable records.
#![allow(missing_docs)] // It is no library.

use std::mem::{discriminant, take};

use paxos_kv::paxos::{
    Acceptor, Incarnation, Learner, LearnerNotification, LearnerRequest, Message, Policy, Proposer, ProposerRequest,
    Quorums, StateMachine,
};
use paxos_kv::role::{Action, Input, Role, RoleKind, ServerId, ServerSet, StableStore, step_batch};

/// Where in a turn the role's thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// It does not.
    Never,
    /// During the sync: the first N records of the batch are durable, and nothing is sent.
    InSync(usize),
    /// Between sync and send: all records are durable, and nothing is said.
    AfterSync,
}

/// What a role did in one turn.
pub struct TurnResult<R: Role> {
    /// Records that are durable now.
    pub durable: Vec<R::Record>,
    /// Records that the crash took.
    pub lost: Vec<R::Record>,
    /// What it did; nothing if it crashed.
    pub actions: Vec<Action<R>>,
    /// Whether it crashed.
    pub crashed: bool,
}

/// A turn of one of the roles.
pub enum Turn<M: StateMachine> {
    Proposer(TurnResult<Proposer>),
    Acceptor(TurnResult<Acceptor>),
    Learner(TurnResult<Learner<M>>),
    /// The role is down: the input is lost.
    Down,
}

/// A role's place on a server: the role while it lives, and what outlives it.
pub struct Host<R: Role> {
    pub role: Option<R>,
    pub disk: Vec<R::Record>,
    /// Armed timers.
    pub timers: Vec<R::Timer>,
    /// Lives so far.
    pub incarnations: u32,
}

impl<R: Role> Default for Host<R> {
    fn default() -> Host<R> {
        Host { role: None, disk: Vec::new(), timers: Vec::new(), incarnations: 0 }
    }
}

/// Memory that plays the disk, and may fail in the middle of a group.
struct RamDisk<'a, T> {
    records: &'a mut Vec<T>,
    durable_count: Option<usize>,
}

impl<T: Clone> StableStore<T> for RamDisk<'_, T> {
    type Error = ();

    fn commit(&mut self, records: &[T]) -> Result<(), ()> {
        let kept = self.durable_count.unwrap_or(records.len()).min(records.len());
        self.records.extend_from_slice(&records[..kept]);
        if self.durable_count.is_some() { Err(()) } else { Ok(()) }
    }
}

impl<R: Role> Host<R> {
    /// One turn over a group of inputs, through the same steps as in every shell. None if the role is down.
    fn turn(&mut self, inputs: Vec<Input<R>>, crash: Crash) -> Option<TurnResult<R>> {
        let role = self.role.as_mut()?;
        let stepped = step_batch(role, inputs.into_iter().map(|input| ((), input)), true);
        let records = stepped.records().to_vec();
        let keep = if let Crash::InSync(keep) = crash { Some(keep.min(records.len())) } else { None };
        let released = stepped.commit(&mut RamDisk { records: &mut self.disk, durable_count: keep });
        let (durable, lost) = records.split_at(keep.unwrap_or(records.len()));
        let (durable, lost) = (durable.to_vec(), lost.to_vec());
        // A group without records has no sync to crash in: then the crash comes before anything is sent.
        let unsent = crash == Crash::AfterSync || (keep.is_some() && records.is_empty());
        let actions = match released {
            Ok(released) if !unsent => released.into_actions().into_iter().flat_map(|(_, actions)| actions).collect(),
            _ => Vec::new(),
        };
        let crashed = crash != Crash::Never;
        if crashed {
            self.crash();
        }
        Some(TurnResult { durable, lost, actions, crashed })
    }

    /// The thread ends: memory and timers are gone.
    fn crash(&mut self) {
        self.role = None;
        self.timers.clear();
    }

    /// A new life takes the durable records back.
    fn restart(&mut self, mut role: R) {
        assert!(self.role.is_none(), "the earlier incarnation has ended");
        for record in self.disk.clone() {
            role.replay(record);
        }
        self.role = Some(role);
    }

    /// Arming replaces the pending timer of the same variant.
    fn arm(&mut self, timer: R::Timer) {
        self.timers.retain(|pending| discriminant(pending) != discriminant(&timer));
        self.timers.push(timer);
    }
}

/// What one server tells a role of another, or of its own.
#[derive(Clone, Debug)]
pub enum PacketContent {
    Message(Message),
    /// In the house: the own learner has applied a slot.
    Applied(ProposerRequest),
}

/// Something on its way.
#[derive(Clone, Debug)]
pub struct Packet {
    pub from: ServerId,
    pub to: ServerId,
    pub role: RoleKind,
    pub what: PacketContent,
}

/// One server.
pub struct Node<M: StateMachine> {
    pub proposer: Host<Proposer>,
    pub acceptor: Host<Acceptor>,
    pub learner: Host<Learner<M>>,
}

/// All of them, and what is between them.
pub struct Cluster<M: StateMachine> {
    pub quorums: Quorums,
    pub packets: Vec<Packet>,
    policy: Policy,
    nodes: Vec<Node<M>>,
    machine: M,
}

impl<M: StateMachine> Cluster<M> {
    /// Servers 1 to `count`, all roles down.
    pub fn new(count: u8, machine: M) -> Cluster<M> {
        let node = || Node { proposer: Host::default(), acceptor: Host::default(), learner: Host::default() };
        Cluster {
            quorums: Quorums::majority(ServerSet::first(count)),
            packets: Vec::new(),
            policy: Policy::BasicPaxos,
            nodes: (0..count).map(|_| node()).collect(),
            machine,
        }
    }

    /// The same under this policy.
    pub fn with_policy(self, policy: Policy) -> Cluster<M> {
        Cluster { policy, ..self }
    }

    pub fn node(&self, server: ServerId) -> &Node<M> {
        &self.nodes[usize::from(server.0) - 1]
    }

    fn node_mut(&mut self, server: ServerId) -> &mut Node<M> {
        &mut self.nodes[usize::from(server.0) - 1]
    }

    pub fn servers(&self) -> impl Iterator<Item = ServerId> + use<M> {
        self.quorums.servers().iter()
    }

    /// Begins a new life of a role, from what its disk knows.
    pub fn start(&mut self, server: ServerId, role: RoleKind) -> Turn<M> {
        let (quorums, policy, machine) = (self.quorums, self.policy, self.machine.clone());
        let node = self.node_mut(server);
        match role {
            RoleKind::Proposer => {
                node.proposer.incarnations += 1;
                node.proposer.restart(Proposer::new(server, quorums, policy));
                self.at_proposer(server, vec![Input::Start], Crash::Never)
            }
            RoleKind::Acceptor => {
                node.acceptor.incarnations += 1;
                node.acceptor.restart(Acceptor::new());
                self.at_acceptor(server, vec![Input::Start], Crash::Never)
            }
            RoleKind::Learner => {
                node.learner.incarnations += 1;
                let incarnation = Incarnation(node.learner.incarnations);
                node.learner.restart(
                    Learner::new(server, quorums, incarnation, Default::default(), machine).with_policy(policy),
                );
                self.at_learner(server, vec![Input::Start], Crash::Never)
            }
            RoleKind::Coordinator | RoleKind::Participant => Turn::Down,
        }
    }

    /// Ends the life of a role between two turns. The supervisor tells the proposer that its learner is gone.
    pub fn crash(&mut self, server: ServerId, role: RoleKind) {
        let node = self.node_mut(server);
        match role {
            RoleKind::Proposer => node.proposer.crash(),
            RoleKind::Acceptor => node.acceptor.crash(),
            RoleKind::Learner => node.learner.crash(),
            RoleKind::Coordinator | RoleKind::Participant => {}
        }
        if role == RoleKind::Learner {
            self.at_proposer(server, vec![Input::Request(ProposerRequest::LearnerDown)], Crash::Never);
        }
    }

    /// Forgets what the role had on disk: the end of all guarantees.
    pub fn wipe_acceptor(&mut self, server: ServerId) {
        self.node_mut(server).acceptor.disk.clear();
    }

    /// Gives a group of packets, all to one role, to that role as one turn.
    pub fn deliver(&mut self, packets: Vec<Packet>, crash: Crash) -> Turn<M> {
        let Some((to, role)) = packets.first().map(|packet| (packet.to, packet.role)) else { return Turn::Down };
        match role {
            RoleKind::Proposer => {
                let inputs = packets.into_iter().map(|packet| match packet.what {
                    PacketContent::Message(message) => Input::Message { from: packet.from, message },
                    PacketContent::Applied(request) => Input::Request(request),
                });
                self.at_proposer(to, inputs.collect(), crash)
            }
            RoleKind::Acceptor => self.at_acceptor(to, messages(packets), crash),
            RoleKind::Learner => self.at_learner(to, messages(packets), crash),
            RoleKind::Coordinator | RoleKind::Participant => Turn::Down,
        }
    }

    pub fn at_proposer(&mut self, server: ServerId, inputs: Vec<Input<Proposer>>, crash: Crash) -> Turn<M> {
        let Some(ran) = self.node_mut(server).proposer.turn(inputs, crash) else { return Turn::Down };
        for action in &ran.actions {
            match action {
                Action::Send { to, message } => self.send(server, *to, message),
                Action::Arm(timer) => self.node_mut(server).proposer.arm(*timer),
                Action::Notify(_) | Action::Trace(_) => {}
            }
        }
        Turn::Proposer(ran)
    }

    pub fn at_acceptor(&mut self, server: ServerId, inputs: Vec<Input<Acceptor>>, crash: Crash) -> Turn<M> {
        let Some(ran) = self.node_mut(server).acceptor.turn(inputs, crash) else { return Turn::Down };
        for action in &ran.actions {
            match action {
                Action::Send { to, message } => self.send(server, *to, message),
                Action::Arm(timer) => match *timer {},
                Action::Notify(_) | Action::Trace(_) => {}
            }
        }
        Turn::Acceptor(ran)
    }

    pub fn at_learner(&mut self, server: ServerId, inputs: Vec<Input<Learner<M>>>, crash: Crash) -> Turn<M> {
        let Some(ran) = self.node_mut(server).learner.turn(inputs, crash) else { return Turn::Down };
        if ran.crashed {
            self.at_proposer(server, vec![Input::Request(ProposerRequest::LearnerDown)], Crash::Never);
        }
        for action in &ran.actions {
            match action {
                Action::Send { to, message } => self.send(server, *to, message),
                Action::Arm(timer) => self.node_mut(server).learner.arm(*timer),
                Action::Notify(LearnerNotification::Advanced { applied, ids }) => {
                    let what = PacketContent::Applied(ProposerRequest::Applied { slot: *applied, ids: ids.clone() });
                    let packet = Packet { from: server, to: server, role: RoleKind::Proposer, what };
                    self.packets.push(packet);
                }
                Action::Notify(_) | Action::Trace(_) => {}
            }
        }
        Turn::Learner(ran)
    }

    /// Fires the n-th pending timer of a proposer.
    pub fn fire_proposer(&mut self, server: ServerId, n: usize, crash: Crash) -> Turn<M> {
        let timer = self.node_mut(server).proposer.timers.remove(n);
        self.at_proposer(server, vec![Input::Timeout(timer)], crash)
    }

    /// Fires the n-th pending timer of a learner.
    pub fn fire_learner(&mut self, server: ServerId, n: usize, crash: Crash) -> Turn<M> {
        let timer = self.node_mut(server).learner.timers.remove(n);
        self.at_learner(server, vec![Input::Timeout(timer)], crash)
    }

    pub fn read(&mut self, server: ServerId, token: u64, query: M::Query) -> Turn<M> {
        self.at_learner(server, vec![Input::Request(LearnerRequest::Read { token, query })], Crash::Never)
    }

    fn send(&mut self, from: ServerId, to: ServerSet, message: &Message) {
        for to in to.iter() {
            for role in message.recipients() {
                self.packets.push(Packet { from, to, role: *role, what: PacketContent::Message(message.clone()) });
            }
        }
    }

    /// Takes what is on its way and fits.
    pub fn take_packets(&mut self, fits: impl FnMut(&mut Packet) -> bool) -> Vec<Packet> {
        self.packets.extract_if(.., fits).collect()
    }

    /// Takes everything that is on its way.
    pub fn take_all_packets(&mut self) -> Vec<Packet> {
        take(&mut self.packets)
    }
}

fn messages<R: Role<Message = Message>>(packets: Vec<Packet>) -> Vec<Input<R>> {
    let message = |packet: Packet| match packet.what {
        PacketContent::Message(message) => Some(Input::Message { from: packet.from, message }),
        PacketContent::Applied(_) => None,
    };
    packets.into_iter().filter_map(message).collect()
}
