//! A simulation by hand: a person, and not time and chance, decides what happens next.
//!
//! Frames between roles and with clients wait until they are delivered, dropped or doubled by number. Timers wait until
//! they are run out by name. Everything that is no choice happens at once, in its order: turns, syncs, checkpoints, the
//! restart of a role, and the greetings with which servers connect.

use std::collections::{BTreeMap, BTreeSet};

use super::client::{ClientStep, PAUSE_STAMP, SimClient};
use super::durable_state::DurableAcceptor;
use super::env::{DeliveryMode, FrameKind, MS, Micros, SECOND, SimEvent};
use super::faults::FaultSet;
use super::network::{Endpoint, LinkFaults};
use super::oracle::Oracle;
use super::plan::RunPlan;
use super::simulation::{CrashKind, Simulation};
use paxos_kv::host::CrashRequest;
use paxos_kv::host::mail_queue::MAILBOX_MAX;
use paxos_kv::kv::SESSIONS_MAX;
use paxos_kv::net::{
    CLIENT_FRAME_MAX_BYTES, ClientReply, ClientRequest, Envelope, PEER_FRAME_MAX_BYTES, Reply, Request, frame, unframe,
};
use paxos_kv::paxos::{Ballot, PAGE_BYTES, Retention, Slot, Value};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::{RoleKind, ServerId, ServerSet};
use paxos_kv::trace::{CrashCause, CrashPoint};

/// The virtual time of one choice. It is much longer than the distance of two log lines, so that the time of a line
/// tells the choice that caused it; and 1,000 choices are shorter than the waits of a client.
pub const STEP: Micros = MS;
/// Maximum number of events that happen by themselves after one choice; more are a bug of this module.
const SETTLE_MAX: usize = 100_000;
/// Maximum number of waits of a client between two frames: for a reply, and before the next try.
const WAITS_MAX: usize = 4;
/// The seed of every simulation by hand. It decides only what no reader sees, such as storage ids and nonces.
const SEED: u64 = 7;

/// What a frame carries.
#[derive(Clone, Debug)]
pub enum Carried {
    /// A message between servers.
    Peer(Envelope),
    /// A client's request.
    Request(ClientRequest),
    /// A server's reply.
    Reply(ClientReply),
}

/// A frame under way.
#[derive(Clone, Debug)]
pub struct FrameInFlight {
    /// Its number: later frames have higher numbers.
    pub number: u64,
    /// The sender.
    pub from: Endpoint,
    /// The receiver.
    pub to: Endpoint,
    /// What it carries.
    pub carried: Carried,
    /// It is a copy that a person has made.
    pub is_doubled: bool,
    /// The call on which it was sent, between servers.
    call: Option<u64>,
}

impl RunPlan {
    /// A simulation by hand: no faults, no delays, and disks that have known each other from the start.
    pub fn by_hand(servers: u8, protocol: Protocol) -> RunPlan {
        RunPlan {
            servers,
            clients: 0,
            initial_cut: None,
            sessions: SESSIONS_MAX,
            mailbox: MAILBOX_MAX,
            segment_bytes: 1 << 16,
            part_bytes: PAGE_BYTES,
            snapshot_bytes: 1 << 16,
            // No checkpoint interrupts a scene of some hundred steps.
            retention: Retention {
                checkpoint_slots: 10_000,
                checkpoint_bytes: 1 << 24,
                keep_slots: 10_000,
                keep_bytes: 1 << 24,
            },
            link_faults: LinkFaults::delays(1, 0),
            processor: 0..=0,
            sync: 0..=0,
            clocks: vec![100; usize::from(servers)],
            wake_hints: false,
            healthy: ServerSet::first(servers),
            fault_phase_end: 3_600 * SECOND,
            starts_admitted: true,
            by_hand: true,
            ..RunPlan::new(SEED, FaultSet::NONE, Some(protocol))
        }
    }
}

impl Oracle {
    /// The values that acceptors have durably accepted, in all their incarnations, and those acceptors.
    pub fn votes(&self) -> &BTreeMap<(Slot, Ballot), (Value, ServerSet)> {
        &self.votes
    }

    /// The values that were proposed.
    pub fn proposed(&self) -> &BTreeMap<(Slot, Ballot), Value> {
        &self.proposed
    }

    /// The ballots that were prepared, with the first slot of each.
    pub fn prepared(&self) -> &BTreeMap<Ballot, Slot> {
        &self.prepared
    }

    /// The learners that have installed a snapshot in their present incarnation.
    pub fn installs(&self) -> BTreeSet<ServerId> {
        self.installs.iter().collect()
    }

    /// The disk of an acceptor is empty from now on: the unsafe mode in which a restart loses it.
    pub fn forget_disk(&mut self, server: ServerId) {
        self.acceptors.insert(server, DurableAcceptor::new());
    }

    /// The promise on the disk of an acceptor, and what the disk says that it has accepted.
    pub fn disk_of(&self, server: ServerId) -> (Ballot, BTreeMap<Slot, (Ballot, Value)>) {
        let disk = self.acceptors.get(&server);
        disk.map_or((Ballot::ZERO, BTreeMap::new()), |disk| (disk.promised, disk.accepted.clone()))
    }
}

impl Simulation {
    /// Lets everything happen that is no choice.
    pub fn settle(&mut self) {
        for _ in 0..SETTLE_MAX {
            let next = self.sim_env.pending().filter(|(number, _, event)| self.happens_by_itself(*number, event));
            let Some(number) = next.min_by_key(|(number, at, _)| (*at, *number)).map(|(number, ..)| number) else {
                return;
            };
            if let Some(event) = self.sim_env.take(number) {
                self.handle_event(event);
            }
        }
        debug_assert!(false, "a simulation by hand does not come to rest");
    }

    fn happens_by_itself(&self, number: u64, event: &SimEvent) -> bool {
        match event {
            SimEvent::Turn { .. }
            | SimEvent::Synced { .. }
            | SimEvent::Checkpointer { .. }
            | SimEvent::Restart { .. }
            | SimEvent::Start { .. } => true,
            SimEvent::Dial { server, peer, .. } => self.can_connect(*server, *peer),
            SimEvent::Frame { from, to, piece: FrameKind::Hello(_) | FrameKind::Answer(_), .. } => {
                !self.sim_env.network.is_cut(*from, *to)
            }
            // The end of a connection arrives behind what was sent on it.
            SimEvent::Frame { from, to, piece: FrameKind::End(call), .. } => {
                let is_before = |(other, _, event): (u64, Micros, &SimEvent)| {
                    matches!(event, SimEvent::Frame { from: f, to: t, piece: FrameKind::Word(c, _), .. }
                        if other < number && (f, t, c) == (from, to, call))
                };
                !self.sim_env.network.is_cut(*from, *to) && !self.sim_env.pending().any(is_before)
            }
            // The next request of a client follows at once; its waits end by choice.
            SimEvent::Client { client, stamp } => *stamp == PAUSE_STAMP && !self.clients[*client].is_held(),
            SimEvent::Frame { piece: FrameKind::Word(..) | FrameKind::Client, .. }
            | SimEvent::Wake { .. }
            | SimEvent::Announce { .. }
            | SimEvent::ClientDeadline { .. }
            | SimEvent::Chaos
            | SimEvent::Heal(_) => false,
        }
    }

    fn can_connect(&self, one: ServerId, other: ServerId) -> bool {
        let [near, far] = [one, other].map(Endpoint::Server);
        let network = &self.sim_env.network;
        self.is_up(other) && !network.is_cut(near, far) && !network.is_cut(far, near)
    }

    /// Whether the process of a server runs.
    pub fn is_up(&self, server: ServerId) -> bool {
        self.servers[usize::from(server.0) - 1].process.is_some()
    }

    /// Whether a role of a server runs.
    pub fn is_role_up(&self, server: ServerId, role: RoleKind) -> bool {
        let process = self.servers[usize::from(server.0) - 1].process.as_ref();
        process.is_some_and(|process| match role {
            RoleKind::Proposer => process.proposer.is_some(),
            RoleKind::Acceptor => process.acceptor.is_some(),
            RoleKind::Learner => process.learner.is_some(),
            RoleKind::Coordinator => process.coordinator.is_some(),
            RoleKind::Participant => process.participant.is_some(),
        })
    }

    /// The frames under way that are choices, in the order in which they were sent.
    pub fn frames_in_flight(&self) -> Vec<FrameInFlight> {
        let frame = |(number, _, event): (u64, Micros, &SimEvent)| {
            let SimEvent::Frame { from, to, bytes, mode, piece } = event else { return None };
            let (carried, call) = match (from, to, piece) {
                (Endpoint::Server(_), Endpoint::Server(_), FrameKind::Word(call, _)) => {
                    (Carried::Peer(unframe(bytes, PEER_FRAME_MAX_BYTES).ok()?), Some(*call))
                }
                (Endpoint::Client(_), ..) => (Carried::Request(unframe(bytes, CLIENT_FRAME_MAX_BYTES).ok()?), None),
                (_, Endpoint::Client(_), _) => (Carried::Reply(unframe(bytes, CLIENT_FRAME_MAX_BYTES).ok()?), None),
                _ => return None,
            };
            let is_doubled = *mode == DeliveryMode::Replay;
            Some(FrameInFlight { number, from: *from, to: *to, carried, is_doubled, call })
        };
        let mut frames: Vec<_> = self.sim_env.pending().filter_map(frame).collect();
        frames.sort_by_key(|frame| frame.number);
        frames
    }

    /// Why a frame would be lost on arrival, if it would.
    pub fn loss_on_arrival(&self, frame: &FrameInFlight) -> Option<String> {
        let Endpoint::Server(to) = frame.to else { return None };
        let Some(process) = &self.servers[usize::from(to.0) - 1].process else { return Some(format!("{to} is down")) };
        let Carried::Peer(envelope) = &frame.carried else { return None };
        let (Endpoint::Server(from), Some(call)) = (frame.from, frame.call) else { return None };
        let is_heard = if frame.is_doubled { process.accepts(from) } else { process.has_accepted_call(from, call) };
        if !is_heard {
            return Some(format!("the connection on which {from} sent it has ended"));
        }
        let recipients = envelope.message.recipients();
        let is_deaf = !recipients.is_empty() && !recipients.iter().any(|role| self.is_role_up(to, *role));
        is_deaf.then(|| {
            let names: Vec<&str> = recipients.iter().map(|role| role.as_str()).collect();
            format!("{to}'s {} is down", names.join(" and "))
        })
    }

    /// Delivers a frame.
    pub fn deliver_by_hand(&mut self, number: u64) {
        if let Some(event) = self.sim_env.take(number) {
            self.handle_event(event);
        }
    }

    /// Answers a client's read from the store of the server that it reaches, whether or not that store is up to date.
    /// **Unsafe**: no server does this. Returns false if the frame is no read, or if no learner is up there.
    pub fn answer_read_locally(&mut self, number: u64) -> bool {
        let found = self.frames_in_flight().into_iter().find(|frame| frame.number == number);
        let Some(FrameInFlight { from, to, carried: Carried::Request(request), .. }) = found else { return false };
        let (Endpoint::Client(client), Endpoint::Server(server)) = (from, to) else { return false };
        let Request::Get { key } = &request.request else { return false };
        let Some(process) = &self.server(server).process else { return false };
        let Some(learner) = &process.learner else { return false };
        let (slot, store) = (learner.role().applied(), learner.role().machine().store());
        let held = store.get(key);
        let reply = Reply::Value {
            slot,
            value: held.and_then(|held| held.value.clone()),
            version: held.map_or(0, |held| held.version),
        };
        self.drop_by_hand(number);
        let greeting = self.greeting(server);
        if self.clients[client].request_arrives(&mut self.sim_env, server, request.number, greeting) {
            let reply = ClientReply { number: request.number, context: request.context, reply };
            self.sim_env.send(to, from, frame(&reply).into(), FrameKind::Client);
        }
        true
    }

    /// Drops a frame.
    pub fn drop_by_hand(&mut self, number: u64) {
        if let Some(SimEvent::Frame { from, to, mode, piece, .. }) = self.sim_env.take(number) {
            // It leaves the link, as a frame that arrives does.
            self.sim_env.network.arrives(from, to, mode, piece);
        }
    }

    /// Makes a copy of a frame between servers, which arrives by itself.
    pub fn double_by_hand(&mut self, number: u64) {
        let found = self.sim_env.pending().find(|(one, ..)| *one == number).map(|(_, _, event)| event.clone());
        if let Some(SimEvent::Frame { from, to, bytes, piece, .. }) = found {
            self.sim_env.schedule(1, SimEvent::Frame { from, to, bytes, mode: DeliveryMode::Replay, piece });
        }
    }

    /// Crashes a role at this point, and leaves it down.
    pub fn crash_by_hand(&mut self, server: ServerId, role: RoleKind, point: CrashPoint) {
        let order = CrashRequest { point, cause: CrashCause::Admin, down: None };
        self.at_server(server, |one, sim_env| one.crash(sim_env, role, order));
    }

    /// Ends a process; all its connections end with it, and the peers notice.
    pub fn kill_by_hand(&mut self, server: ServerId, how: CrashKind) {
        self.stop(server, how);
        for other in self.plan.cluster().without(ServerSet::only(server)).iter() {
            if let Some(call) = self.server(other).call_to(server) {
                self.at_server(other, |one, sim_env| {
                    one.break_call(sim_env, server, call, "connection reset");
                });
            }
        }
    }

    /// Starts a process that was ended.
    pub fn start_by_hand(&mut self, server: ServerId) {
        self.start(server);
    }

    /// Cuts both directions between two servers, or joins them again.
    pub fn cut_by_hand(&mut self, one: ServerId, other: ServerId, on: bool) {
        let [one, other] = [one, other].map(Endpoint::Server);
        for (from, to) in [(one, other), (other, one)] {
            self.sim_env.network.cut(from, to, on);
        }
    }

    /// Lets a client wait no longer: its waits end until it sends something, or waits for nothing.
    pub fn end_wait_by_hand(&mut self, client: usize) {
        let before = self.sim_env.network.frames;
        for _ in 0..WAITS_MAX {
            self.clients[client].end_wait(&mut self.sim_env);
            self.settle();
            if self.sim_env.network.frames > before || !self.clients[client].waits_for_time() {
                return;
            }
        }
    }

    /// The event with which a client that is held makes its next request, if it has one and waits for nothing.
    fn next_request(&self, wanted: usize) -> Option<u64> {
        let is_next = |event: &SimEvent| matches!(event, SimEvent::Client { client, stamp } if *client == wanted && *stamp == PAUSE_STAMP);
        self.clients.get(wanted).filter(|client| client.is_held() && client.left() > 0)?;
        self.sim_env.pending().find(|(_, _, event)| is_next(event)).map(|(number, ..)| number)
    }

    /// Whether a client that is held can make a request now.
    pub fn can_ask(&self, client: usize) -> bool {
        self.next_request(client).is_some()
    }

    /// Lets a client that is held make its next request.
    pub fn ask_by_hand(&mut self, client: usize) {
        if let Some(event) = self.next_request(client).and_then(|number| self.sim_env.take(number)) {
            self.handle_event(event);
        }
    }

    /// Adds a client with these requests, which contacts this server first. One that is held makes each of them only
    /// when a person chooses so.
    pub fn add_client_by_hand(&mut self, server: ServerId, client_steps: Vec<ClientStep>, is_held: bool) {
        let (number, cluster) = (self.clients.len(), self.plan.cluster());
        let pace = (0..=0, 3_600 * SECOND);
        let mut client = SimClient::new(&mut self.sim_env, number, cluster, client_steps.into(), server, pace, true);
        if is_held {
            client.hold();
        }
        self.clients.push(client);
    }
}
