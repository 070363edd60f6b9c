//! The environment of a simulated server's core: events in place of threads, and links in place of sockets. It also
//! reports every observation to the oracle.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::coverage::CoveragePoint;
use super::env::{FrameKind, FrameSize, Micros, RoleInstance, SimEnv, SimEvent};
use super::network::Endpoint;
use super::peer_links::SimPeerLink;
use paxos_kv::host::rate_limit::RateLimit;
use paxos_kv::host::{
    ClientConnection, Env, LabRequest, Observation, ReplyHandle, RequestLoad, RoleObservation, SendError, Usage, limits,
};
use paxos_kv::net::{ClientReply, PEER_FRAME_MAX_BYTES, PeerMessage, frame};
use paxos_kv::paxos::{AcceptorNotification, LearnerNotification, Message};
use paxos_kv::role::{Action, Actions, Role, RoleKind, ServerId, ServerSet};
use paxos_kv::time::Time;
use paxos_kv::trace::{DropCause, TraceContext};
use paxos_kv::two_phase_commit;

/// When timers run out that only a person lets run out.
const NEVER: Micros = 1 << 50;

/// The connection of a simulated client, as its server sees it.
#[derive(Clone, Debug)]
pub struct SimConnection {
    /// The client's number.
    pub client: usize,
    requests: Arc<Usage>,
    load: Arc<RequestLoad>,
    opens: Arc<RateLimit>,
}

impl SimConnection {
    /// A new connection of a client to a server with this load of requests.
    pub fn new(client: usize, load: Arc<RequestLoad>) -> SimConnection {
        SimConnection { client, requests: Arc::default(), load, opens: Arc::new(limits::opens()) }
    }
}

impl ClientConnection for SimConnection {
    /// A made-up address, different for each client.
    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 50_001 + self.client as u16))
    }

    fn requests(&self) -> &Usage {
        &self.requests
    }

    fn load(&self) -> &RequestLoad {
        &self.load
    }

    fn opens(&self) -> &RateLimit {
        &self.opens
    }
}

/// The clock of a server, which may run fast or slow, but never backward.
#[derive(Clone, Copy, Debug)]
pub struct SimClock {
    /// Speed, in percent.
    speed: u64,
    /// The moment of the last change of speed.
    since: Micros,
    /// The time that the clock showed at `since`.
    shown: Time,
}

impl SimClock {
    /// A clock that has always run at this speed.
    pub fn new(speed: u64) -> SimClock {
        SimClock { speed, since: 0, shown: Time(0) }
    }

    /// Changes the speed from `now` on; returns whether it was another one.
    pub fn run_at(&mut self, speed: u64, now: Micros) -> bool {
        let is_another = self.speed != speed;
        if is_another {
            *self = SimClock { speed, since: now, shown: self.at(now) };
        }
        is_another
    }

    /// The time that the clock shows at `now`.
    pub fn at(self, now: Micros) -> Time {
        Time(self.shown.0 + (now - self.since) * self.speed / 100)
    }

    /// The first moment, since the last change of speed, at which the clock shows this time or a later one.
    pub fn when(self, time: Time) -> Micros {
        self.since + (time.0.saturating_sub(self.shown.0) * 100).div_ceil(self.speed)
    }

    /// How long the clock takes to advance by this time.
    pub fn duration(self, time: Duration) -> Micros {
        (time.as_micros() as u64 * 100).div_ceil(self.speed)
    }
}

/// A frame to be sent: its destinations, its bytes and its weight on a link. The flag marks an ACCEPT or a
/// VOTE_REQUEST, which some networks lose more often.
pub type Outgoing = (ServerSet, Arc<[u8]>, FrameSize, bool);

/// The work that is scheduled for a process.
#[derive(Debug, Default)]
pub struct ScheduledWork {
    /// The incarnation of each role, numbered across all servers.
    pub incarnations: [Cell<u64>; RoleKind::ALL.len()],
    /// Whether each role has a turn scheduled.
    pub awaits_turn: [Cell<bool>; RoleKind::ALL.len()],
    /// When the next role restarts, if that is scheduled.
    pub restart_at: Cell<Option<Micros>>,
    /// Whether a job of the checkpointer is scheduled.
    pub is_checkpointing: Cell<bool>,
    /// Its outgoing links to the other servers.
    pub links: RefCell<BTreeMap<ServerId, SimPeerLink>>,
    /// Frames that have not left yet.
    pub frames: RefCell<Vec<Outgoing>>,
    /// Lab requests that were not handled yet.
    pub lab_requests: RefCell<Vec<LabRequest>>,
}

/// The environment of one process, for the duration of one event.
pub struct ProcessEnv<'a> {
    /// Everything that is neither server nor client.
    pub sim_env: RefCell<&'a mut SimEnv>,
    /// The server's number.
    pub me: ServerId,
    /// The boot number of the process.
    pub process: u64,
    /// The clock that timers use.
    pub clock: SimClock,
    /// Whether the process is paused.
    pub is_paused: bool,
    /// How long a role waits for the processor.
    pub processor: RangeInclusive<Micros>,
    /// How long a sync takes.
    pub sync: RangeInclusive<Micros>,
    /// The work that is scheduled for the process.
    pub agenda: Rc<ScheduledWork>,
}

impl ProcessEnv<'_> {
    /// Schedules a turn of a role.
    pub fn schedule_turn(&self, role: RoleKind) {
        if self.is_paused {
            // The end of the pause gives every role a turn.
            return;
        }
        let mut sim_env = self.sim_env.borrow_mut();
        self.agenda.awaits_turn[role as usize].set(true);
        let delay = sim_env.random_time(&self.processor);
        sim_env.schedule(delay, SimEvent::Turn { role: self.role_instance(role) });
    }

    /// The current incarnation of a role.
    pub fn role_instance(&self, role: RoleKind) -> RoleInstance {
        RoleInstance { server: self.me, role, incarnation: self.agenda.incarnations[role as usize].get() }
    }

    /// Counts the messages that a role sends, except routine ones, which are not part of a write.
    fn count<R: Role>(
        &self,
        sim_env: &mut SimEnv,
        actions: &Actions<TraceContext, R>,
        is_routine: impl Fn(&R::Message) -> bool,
    ) {
        for action in actions.iter().flat_map(|(_, all)| all) {
            if let Action::Send { to, message } = action
                && !is_routine(message)
            {
                sim_env.counts.messages += to.without(ServerSet::only(self.me)).len() as u64;
                sim_env.counts.own_messages += u64::from(to.contains(self.me));
            }
        }
    }
}

impl Env for ProcessEnv<'_> {
    type Connection = SimConnection;
    const IS_WATCHED: bool = true;

    fn now(&self) -> Time {
        self.clock.at(self.sim_env.borrow().now())
    }

    fn due_after(&self, delay: Duration) -> Time {
        // Far beyond every run, and no overflow for any speed of a clock.
        if self.sim_env.borrow().is_by_hand() { Time(NEVER) } else { self.now() + delay }
    }

    fn wake(&self, role: RoleKind) {
        self.schedule_turn(role);
    }

    fn to_peers(&self, to: ServerSet, message: &PeerMessage, frame: Vec<u8>) {
        let (me, bytes) = (self.me, frame.len());
        let within = bytes <= PEER_FRAME_MAX_BYTES;
        self.sim_env
            .borrow_mut()
            .oracle
            .require(24, within, || format!("{me} sent a frame of {bytes} bytes, above the limit"));
        let is_accept = matches!(message, PeerMessage::Paxos(Message::Accept { .. }))
            || matches!(message, PeerMessage::TwoPhaseCommit(two_phase_commit::CommitMessage::VoteRequest { .. }));
        let links = self.agenda.links.borrow();
        let (weight, bytes) =
            (FrameSize { lane: message.lane(), bytes: FrameSize::SMALL.bytes + message.size() }, frame.into());
        let is_up = |server: &ServerId| links.get(server).is_some_and(|link| link.call().is_some());
        let (up, down): (Vec<ServerId>, Vec<ServerId>) = to.iter().partition(is_up);
        for server in down {
            let (from, to) = (Endpoint::Server(me), Endpoint::Server(server));
            let network = &mut self.sim_env.borrow_mut().network;
            network.note_loss(from, to, &bytes, FrameKind::Word(0, weight), DropCause::Unconnected);
        }
        if !up.is_empty() {
            self.agenda.frames.borrow_mut().push((up.into_iter().collect(), bytes, weight, is_accept));
        }
    }

    fn flush_peers(&self) {
        let (mut sim_env, links) = (self.sim_env.borrow_mut(), self.agenda.links.borrow());
        for (to, bytes, weight, is_accept) in self.agenda.frames.take() {
            for server in to.iter() {
                let Some(call) = links.get(&server).and_then(SimPeerLink::call) else { continue };
                let (from, to, bytes) = (Endpoint::Server(self.me), Endpoint::Server(server), bytes.clone());
                if is_accept {
                    sim_env.send_accept(from, to, bytes, FrameKind::Word(call, weight));
                } else {
                    sim_env.send(from, to, bytes, FrameKind::Word(call, weight));
                }
            }
        }
    }

    fn write_replies(&self, replies: Vec<(ReplyHandle<SimConnection>, ClientReply)>) {
        for (asker, reply) in replies {
            let (from, to) = (Endpoint::Server(self.me), Endpoint::Client(asker.connection.client));
            self.sim_env.borrow_mut().send(from, to, frame(&reply).into(), FrameKind::Client);
        }
    }

    fn wake_checkpointer(&self) {
        if !self.agenda.is_checkpointing.replace(true) {
            let mut sim_env = self.sim_env.borrow_mut();
            let delay = 3 * sim_env.random_time(&self.sync);
            sim_env.schedule(delay, SimEvent::Checkpointer { server: self.me, process: self.process });
        }
    }

    fn lab_request(&self, order: LabRequest) -> Result<(), String> {
        self.agenda.lab_requests.borrow_mut().push(order);
        Ok(())
    }

    fn show_operator(&self, _sentence: &str) {}

    fn observe(&self, seen: Observation<'_>) {
        let (me, mut sim_env) = (self.me, self.sim_env.borrow_mut());
        let sim_env = &mut **sim_env;
        match seen {
            Observation::Proposer(RoleObservation::Hears(group)) => {
                sim_env.oracle.observe_proposer_inputs(me, group.iter().map(|(_, input)| input), &mut sim_env.coverage);
            }
            Observation::Participant(RoleObservation::Hears(group)) => {
                sim_env.oracle.observe_participant_inputs(
                    me,
                    group.iter().map(|(_, input)| input),
                    &mut sim_env.coverage,
                );
            }
            Observation::Acceptor(RoleObservation::Hears(_))
            | Observation::Learner(RoleObservation::Hears(_))
            | Observation::Coordinator(RoleObservation::Hears(_)) => {}
            Observation::Proposer(RoleObservation::Says(group)) => {
                self.count(sim_env, group, Message::is_routine);
                group.iter().for_each(|(_, said)| sim_env.oracle.check_proposer(me, said, &mut sim_env.coverage));
            }
            Observation::Acceptor(RoleObservation::Says(group)) => {
                self.count(sim_env, group, Message::is_routine);
                for (_, said) in group {
                    let is_corrupt =
                        |one: &Action<_>| matches!(one, Action::Notify(AcceptorNotification::Corrupt { .. }));
                    if said.iter().any(is_corrupt) {
                        sim_env.reach(CoveragePoint::SlotCorrupt);
                    }
                    sim_env.oracle.check_acceptor(me, said, &mut sim_env.coverage);
                }
            }
            Observation::Learner(RoleObservation::Says(group)) => {
                self.count(sim_env, group, Message::is_routine);
                let incarnation = self.role_instance(RoleKind::Learner).incarnation;
                for (_, said) in group {
                    let is_recalled =
                        |one: &Action<_>| matches!(one, Action::Notify(LearnerNotification::ResultsFound { .. }));
                    if said.iter().any(is_recalled) {
                        sim_env.reach(CoveragePoint::Recalled);
                    }
                    sim_env.oracle.check_learner(me, incarnation, said, &mut sim_env.coverage);
                }
            }
            Observation::Coordinator(RoleObservation::Says(group)) => {
                self.count(sim_env, group, |_| false);
                group.iter().for_each(|(_, said)| sim_env.oracle.check_coordinator(me, said, &mut sim_env.coverage));
            }
            Observation::Participant(RoleObservation::Says(group)) => {
                self.count(sim_env, group, |_| false);
                group.iter().for_each(|(_, said)| sim_env.oracle.check_participant(me, said, &mut sim_env.coverage));
            }
            Observation::Acknowledged { id, slot, written } => sim_env.oracle.acknowledged(id, slot, written),
            Observation::ReadArrived(token) => {
                sim_env.oracle.read_arrived(self.role_instance(RoleKind::Learner).incarnation, token);
            }
            Observation::Lost(SendError::Full) => sim_env.reach(CoveragePoint::MailboxFull),
            Observation::Lost(SendError::Down) => {}
            Observation::Shed => sim_env.reach(CoveragePoint::DiskFull),
            Observation::Fenced { slot, against } => sim_env.oracle.fenced(me, slot, against),
            Observation::AcceptorRecovered { acceptor, is_cut, is_corrupt } => {
                if is_cut {
                    sim_env.reach(CoveragePoint::TornTail);
                }
                sim_env.oracle.recovered(me, acceptor, is_corrupt, &mut sim_env.coverage);
            }
            Observation::LearnerRecovered { slot } => sim_env.oracle.learner_started(me, slot, &mut sim_env.coverage),
            Observation::CoordinatorRecovered { records } => sim_env.oracle.coordinator_durable(me, records),
            Observation::ParticipantRecovered { records, is_cut } => {
                if is_cut {
                    sim_env.reach(CoveragePoint::TornTail);
                }
                sim_env.oracle.participant_recovered(me, records, &mut sim_env.coverage);
            }
            Observation::CheckpointDurable(mark) => {
                sim_env.reach(CoveragePoint::CheckpointWritten);
                sim_env.oracle.checkpoint_durable(me, mark.slot, mark.digest);
            }
            Observation::CheckpointInDoubt(mark) => sim_env.oracle.checkpoint_in_doubt(me, mark.slot),
            Observation::CheckpointMerged => sim_env.reach(CoveragePoint::CheckpointMerged),
            Observation::CheckpointShed => sim_env.reach(CoveragePoint::CheckpointShed),
            Observation::CheckpointLoaded(mark) => {
                sim_env.oracle.checkpoint_loaded(me, mark.slot, mark.digest);
                if mark.slot.0 > 0 {
                    sim_env.reach(CoveragePoint::CheckpointLoaded);
                }
            }
            Observation::PartSent { is_first: true } => sim_env.reach(CoveragePoint::SnapshotOffered),
            Observation::PartSent { is_first: false } => sim_env.reach(CoveragePoint::SnapshotInChunks),
        }
    }
}
