//! The table: a simulated cluster in which the reader makes every choice.
//!
//! A table has no history: it is made from an exercise, and choices are played on it one after the other. The same
//! choices give the same table. Undo is a new table with fewer choices.

use std::collections::{BTreeMap, BTreeSet};

use paxos_kv::kv::Op;
use paxos_kv::net::PeerMessage;
use paxos_kv::paxos::{Ballot, Entry, Message, Slot, Value};
use paxos_kv::role::{RoleKind, ServerId, ServerSet};
use paxos_kv::trace::CrashPoint;

use super::choice::{Choice, MessageName, message_name, timer_name};
use super::exercise::{ClientRequestLine, Exercise, Mode};
use super::message::MessageText;
use super::votes::Ballots;
use crate::sim::by_hand::{Carried, FrameInFlight, STEP};
use crate::sim::client::ClientStep;
use crate::sim::env::{MS, Micros};
use crate::sim::network::Endpoint;
use crate::sim::plan::RunPlan;
use crate::sim::simulation::{CrashKind, Simulation};

/// Maximum number of messages under way; then some must be delivered or dropped.
pub const IN_FLIGHT_MAX: usize = 200;
/// The virtual time at which the reader begins. The lines of the set-up are earlier.
const BEGIN: Micros = 100 * MS;
/// Maximum number of messages that the set-up may deliver; more are a mistake in the exercise.
const SETUP_MAX: usize = 2_000;

/// A promise that has reached its proposer.
pub struct HeardPromise {
    /// The proposer's server.
    pub to: ServerId,
    /// The promised ballot.
    pub ballot: Ballot,
    /// What it reported.
    pub accepted: Vec<Entry>,
}

/// A simulated cluster, and what was done to it.
pub struct Table {
    /// The cluster.
    pub sim: Simulation,
    /// How the servers behave.
    pub mode: Mode,
    /// The first slot after the set-up.
    pub first: Slot,
    /// The last round that each server had used at the end of the set-up.
    pub rounds_before: BTreeMap<ServerId, u64>,
    /// The virtual time at the end of the set-up.
    begin: Micros,
    /// Number of choices that were played.
    pub steps: usize,
    /// Roles that crash at a point of their next turn.
    pub fuses: BTreeMap<(ServerId, RoleKind), CrashPoint>,
    /// The roles that crashed at a point of a turn.
    pub crashed: BTreeSet<(ServerId, RoleKind, &'static str)>,
    /// The steps at which an acceptor restarted with an empty disk.
    pub forgot: Vec<(ServerId, usize)>,
    /// The step since which a role, or without a role the process, is down.
    pub down_since: BTreeMap<(ServerId, Option<RoleKind>), usize>,
    /// The promises that have arrived since the set-up.
    pub heard: Vec<HeardPromise>,
    /// Number of NACKs that have arrived at each server since the set-up.
    pub refusals: BTreeMap<ServerId, usize>,
    /// The learners that have installed a snapshot.
    pub snapshots: BTreeSet<ServerId>,
}

/// A message under way, as a choice names it.
pub struct NamedFrame {
    /// Its name.
    pub name: MessageName,
    /// The frame.
    pub frame: FrameInFlight,
    /// What it says.
    pub text: MessageText,
}

/// A choice, and why it is not possible now, if it is not.
pub struct PossibleChoice {
    /// The choice.
    pub choice: Choice,
    /// A sentence, or None if it is possible.
    pub off: Option<String>,
}

impl Table {
    /// The table of an exercise, after its set-up.
    pub fn new(exercise: &Exercise, mode: Mode) -> Result<Table, String> {
        let mut plan = RunPlan::by_hand(exercise.servers, exercise.protocol);
        if let Mode::Quorums(prepare, accept) = mode {
            plan.quorum_sizes = Some((prepare, accept));
        }
        if exercise.has_short_log {
            plan.retention = paxos_kv::paxos::Retention {
                checkpoint_slots: 1,
                checkpoint_bytes: 1 << 20,
                keep_slots: 0,
                keep_bytes: 1,
            };
        }
        let mut table = Table {
            sim: Simulation::new(plan, true),
            mode,
            first: Slot(1),
            rounds_before: BTreeMap::new(),
            begin: BEGIN,
            steps: 0,
            fuses: BTreeMap::new(),
            crashed: BTreeSet::new(),
            forgot: Vec::new(),
            down_since: BTreeMap::new(),
            heard: Vec::new(),
            refusals: BTreeMap::new(),
            snapshots: BTreeSet::new(),
        };
        for server in &mut table.sim.servers {
            server.loses_storage = mode == Mode::Lost;
        }
        table.set_up(exercise)?;
        Ok(table)
    }

    /// Starts the servers, makes the leader lead, and opens a session for each client.
    fn set_up(&mut self, exercise: &Exercise) -> Result<(), String> {
        self.sim.settle();
        self.deliver_all_but_requests()?;
        // Learners read when they start. These reads are answered, so the timers behind them mean nothing.
        for server in self.cluster().iter() {
            self.sim.at_server(server, |one, sim_env| {
                one.run_out(sim_env, RoleKind::Learner, "Read");
            });
        }
        self.sim.settle();
        self.deliver_all_but_requests()?;
        if let Some(leader) = exercise.leader {
            for name in ["Election", "HeartbeatTick"] {
                self.sim.at_server(leader, |one, sim_env| {
                    one.run_out(sim_env, RoleKind::Proposer, name);
                });
                self.sim.settle();
                self.deliver_all_but_requests()?;
            }
        }
        for client in &exercise.clients {
            let steps = client.requests.iter().map(|request| match request {
                ClientRequestLine::Put(key, value) => ClientStep::Write(Op::Put {
                    key: key.as_bytes().to_vec(),
                    value: value.as_bytes().to_vec().into(),
                    if_version: None,
                }),
                ClientRequestLine::Get(key) => ClientStep::Read(key.as_bytes().to_vec()),
            });
            self.sim.add_client_by_hand(client.server, steps.collect(), client.is_later);
            self.sim.settle();
            self.deliver_all_but_requests()?;
        }
        self.first = self.sim.sim_env.oracle.applied().next();
        self.sim.sim_env.advance(BEGIN.saturating_sub(self.sim.sim_env.now()));
        for choice in &exercise.setup {
            self.perform(choice).map_err(|why| format!("the set-up of the exercise does not work: {choice}: {why}"))?;
        }
        self.begin = self.sim.sim_env.now();
        let prepared = self.sim.sim_env.oracle.prepared();
        for ballot in prepared.keys() {
            let last = self.rounds_before.entry(ballot.server).or_default();
            *last = ballot.round.max(*last);
        }
        self.heard.clear();
        self.refusals.clear();
        Ok(())
    }

    /// Delivers everything except the clients' writes and reads: opening sessions is no part of an exercise.
    fn deliver_all_but_requests(&mut self) -> Result<(), String> {
        use paxos_kv::net::Request;
        for _ in 0..SETUP_MAX {
            let waits = |frame: &FrameInFlight| match &frame.carried {
                Carried::Request(request) => matches!(request.request, Request::Write { .. } | Request::Get { .. }),
                Carried::Peer(_) | Carried::Reply(_) => false,
            };
            let Some(frame) = self.sim.frames_in_flight().into_iter().find(|frame| !waits(frame)) else {
                return Ok(());
            };
            self.note_arrival(&frame);
            self.sim.deliver_by_hand(frame.number);
            self.sim.settle();
        }
        Err(format!("the set-up of the exercise does not end: more than {SETUP_MAX} messages"))
    }

    /// Plays a choice. An error says why it is not possible now; then nothing has changed.
    pub fn play(&mut self, choice: &Choice) -> Result<(), String> {
        self.steps += 1;
        let played = self.perform(choice);
        if played.is_err() {
            self.steps -= 1;
        }
        played
    }

    fn perform(&mut self, choice: &Choice) -> Result<(), String> {
        let found = self.check(choice)?;
        self.sim.sim_env.hash_event(&choice.code());
        self.sim.sim_env.advance(STEP);
        match (choice, found) {
            (Choice::Deliver(_), Some(frame)) => {
                self.note_arrival(&frame);
                if self.mode != Mode::LocalRead || !self.sim.answer_read_locally(frame.number) {
                    self.sim.deliver_by_hand(frame.number);
                }
            }
            (Choice::Drop(_), Some(frame)) => self.sim.drop_by_hand(frame.number),
            (Choice::Double(_), Some(frame)) => self.sim.double_by_hand(frame.number),
            (Choice::Deliver(_) | Choice::Drop(_) | Choice::Double(_), None) => {}
            (Choice::Timer(server, role, name), _) => self.sim.at_server(*server, |one, sim_env| {
                one.run_out(sim_env, *role, name);
            }),
            (Choice::Ask(client), _) => self.sim.ask_by_hand(*client),
            (Choice::Timeout(client), _) => self.sim.end_wait_by_hand(*client),
            (Choice::Crash(server, role, point), _) => {
                if *point != CrashPoint::BeforeStep {
                    self.fuses.insert((*server, *role), *point);
                }
                self.sim.crash_by_hand(*server, *role, *point);
            }
            (Choice::Restart(server, role), _) => {
                self.sim.at_server(*server, |one, sim_env| one.restart_role(sim_env, *role));
            }
            (Choice::Kill(server), _) => self.sim.kill_by_hand(*server, CrashKind::Process),
            (Choice::PowerCut(server), _) => self.sim.kill_by_hand(*server, CrashKind::Power),
            (Choice::Start(server), _) => self.sim.start_by_hand(*server),
            (Choice::Cut(one, other), _) => self.sim.cut_by_hand(*one, *other, true),
            (Choice::Join(one, other), _) => self.sim.cut_by_hand(*one, *other, false),
        }
        self.sim.settle();
        if let (Choice::Restart(server, RoleKind::Acceptor), Mode::Lost) = (choice, self.mode) {
            self.forgot.push((*server, self.steps));
            self.sim.sim_env.oracle.forget_disk(*server);
        }
        self.note_roles();
        Ok(())
    }

    /// What arrives is remembered as far as goals ask for it.
    fn note_arrival(&mut self, frame: &FrameInFlight) {
        let (Endpoint::Server(to), Carried::Peer(envelope)) = (frame.to, &frame.carried) else { return };
        match &envelope.message {
            PeerMessage::Paxos(Message::Promise { ballot, page }) => {
                self.heard.push(HeardPromise { to, ballot: *ballot, accepted: page.accepted.clone() });
            }
            PeerMessage::Paxos(Message::Nack { .. }) => *self.refusals.entry(to).or_default() += 1,
            _ => {}
        }
    }

    /// Which roles went down or came up with the last choice.
    fn note_roles(&mut self) {
        for server in self.sim.plan.cluster().iter() {
            let is_up = self.sim.is_up(server);
            let roles = self.sim.plan.protocol.roles_as_named().iter();
            let states = roles.map(|role| (Some(*role), self.sim.is_role_up(server, *role)));
            for (role, is_up) in states.chain([(None, is_up)]).collect::<Vec<_>>() {
                if is_up {
                    self.down_since.remove(&(server, role));
                } else {
                    self.down_since.entry((server, role)).or_insert(self.steps);
                }
            }
            let sim = &self.sim;
            let burnt = self.fuses.iter().filter(|((one, role), _)| *one == server && !sim.is_role_up(server, *role));
            let burnt: Vec<_> = burnt.map(|((server, role), point)| (*server, *role, point.as_str())).collect();
            for (server, role, point) in burnt {
                self.fuses.remove(&(server, role));
                self.crashed.insert((server, role, point));
            }
        }
        self.snapshots = self.sim.sim_env.oracle.installs();
    }

    /// Whether a choice is possible now, with the frame that it names.
    fn check(&self, choice: &Choice) -> Result<Option<FrameInFlight>, String> {
        self.check_among(choice, &self.frames())
    }

    /// As [`Table::check`], with the frames under way.
    fn check_among(&self, choice: &Choice, frames: &[NamedFrame]) -> Result<Option<FrameInFlight>, String> {
        let servers = self.sim.plan.cluster();
        let is_there = |server: ServerId| {
            if servers.contains(server) { Ok(()) } else { Err(format!("there is no {server} in this exercise")) }
        };
        let is_relief = matches!(choice, Choice::Deliver(_) | Choice::Drop(_));
        if frames.len() >= IN_FLIGHT_MAX && !is_relief {
            return Err(crowded());
        }
        match choice {
            Choice::Deliver(name) | Choice::Drop(name) | Choice::Double(name) => {
                let found = frames.iter().find(|one| one.name == *name);
                let found = found.ok_or_else(|| format!("no {name} is under way"))?.frame.clone();
                let is_cut = self.sim.sim_env.network.is_cut(found.from, found.to);
                if matches!(choice, Choice::Deliver(_)) && is_cut {
                    return Err(format!("the link between {} and {} is cut", found.from, found.to));
                }
                let has_client = !matches!((found.from, found.to), (Endpoint::Server(_), Endpoint::Server(_)));
                if matches!(choice, Choice::Double(_)) && has_client {
                    return Err(
                        "a client's request and its reply travel on one connection, and cannot be doubled".into()
                    );
                }
                Ok(Some(found))
            }
            Choice::Timer(server, role, name) => {
                is_there(*server)?;
                let armed = self.sim.servers[usize::from(server.0) - 1].armed(*role);
                if !self.sim.is_role_up(*server, *role) {
                    return Err(format!("{server}'s {} is down", role.as_str()));
                }
                if armed.iter().any(|one| one == name) {
                    Ok(None)
                } else {
                    Err(format!("{server}'s {} has not armed this timer", role.as_str()))
                }
            }
            Choice::Timeout(client) => match self.sim.clients.get(*client) {
                None => Err(format!("there is no c{} in this exercise", client + 1)),
                Some(client) if client.waits_for_time() => Ok(None),
                Some(client) => Err(format!("{} waits for nothing", client.name)),
            },
            Choice::Ask(client) => match self.sim.clients.get(*client) {
                None => Err(format!("there is no c{} in this exercise", client + 1)),
                Some(_) if self.sim.can_ask(*client) => Ok(None),
                Some(client) if !client.is_held() => Err(format!("{} asks by itself", client.name)),
                Some(client) => Err(format!("{} has nothing to ask now", client.name)),
            },
            Choice::Crash(server, role, point) => {
                is_there(*server)?;
                if !self.sim.plan.protocol.has(*role) {
                    return Err(format!("there is no {} under this protocol", role.as_str()));
                }
                if !self.sim.is_role_up(*server, *role) {
                    return Err(format!("{server}'s {} is down already", role.as_str()));
                }
                if *point != CrashPoint::BeforeStep && self.fuses.contains_key(&(*server, *role)) {
                    return Err(format!("{server}'s {} crashes in its next turn already", role.as_str()));
                }
                Ok(None)
            }
            Choice::Restart(server, role) => {
                is_there(*server)?;
                if !self.sim.is_up(*server) {
                    return Err(format!("{server} is down: start it"));
                }
                if self.sim.is_role_up(*server, *role) || !self.sim.plan.protocol.has(*role) {
                    return Err(format!("{server}'s {} is not down", role.as_str()));
                }
                Ok(None)
            }
            Choice::Kill(server) | Choice::PowerCut(server) => {
                is_there(*server)?;
                if self.sim.is_up(*server) { Ok(None) } else { Err(format!("{server} is down already")) }
            }
            Choice::Start(server) => {
                is_there(*server)?;
                if self.sim.is_up(*server) { Err(format!("{server} is up already")) } else { Ok(None) }
            }
            Choice::Cut(one, other) | Choice::Join(one, other) => {
                is_there(*one)?;
                is_there(*other)?;
                match (self.is_cut(*one, *other), choice) {
                    (true, Choice::Cut(..)) => Err(format!("the link between {one} and {other} is cut already")),
                    (false, Choice::Join(..)) => Err(format!("the link between {one} and {other} is not cut")),
                    _ => Ok(None),
                }
            }
        }
    }

    /// Whether the link between two servers is cut.
    pub fn is_cut(&self, one: ServerId, other: ServerId) -> bool {
        self.sim.sim_env.network.is_cut(Endpoint::Server(one), Endpoint::Server(other))
    }

    /// The messages under way: by receiver, by sender, and then the one that was sent first.
    pub fn frames(&self) -> Vec<NamedFrame> {
        let mut ordinals: BTreeMap<(Endpoint, Endpoint, &'static str), u16> = BTreeMap::new();
        let named = self.sim.frames_in_flight().into_iter().map(|frame| {
            let text = MessageText::of(&frame.carried, self.first);
            let name = message_name(text.name).unwrap_or(text.name);
            let ordinal = ordinals.entry((frame.to, frame.from, name)).or_default();
            *ordinal += 1;
            NamedFrame { name: MessageName { from: frame.from, to: frame.to, name, ordinal: *ordinal }, frame, text }
        });
        let mut named: Vec<NamedFrame> = named.collect();
        named.sort_by_key(|one| (one.name.to, one.name.from, one.frame.number));
        named
    }

    /// Every choice that names something that is there, in a fixed order: messages, timers, clients, crashes and
    /// restarts, links.
    pub fn choices(&self) -> Vec<PossibleChoice> {
        let cluster = self.sim.plan.cluster();
        let frames = self.frames();
        let messages = frames.iter().map(|one| Choice::Deliver(one.name));
        let roles = || {
            cluster
                .iter()
                .flat_map(|server| self.sim.plan.protocol.roles_as_named().iter().map(move |role| (server, *role)))
        };
        let timers = roles().flat_map(|(server, role)| {
            let armed = self.sim.servers[usize::from(server.0) - 1].armed(role);
            armed.into_iter().filter_map(move |name| Some(Choice::Timer(server, role, timer_name(&name)?)))
        });
        let waiting = self.sim.clients.iter().enumerate().filter(|(_, client)| client.waits_for_time());
        let asking = (0..self.sim.clients.len()).filter(|number| self.sim.can_ask(*number)).map(Choice::Ask);
        let clients = asking.chain(waiting.map(|(number, _)| Choice::Timeout(number)));
        let crashes = roles().flat_map(|(server, role)| {
            let points: &[CrashPoint] = match (self.sim.is_role_up(server, role), role) {
                (false, _) => &[],
                (true, RoleKind::Acceptor | RoleKind::Participant) => {
                    &[CrashPoint::BeforeStep, CrashPoint::BeforeSync, CrashPoint::BeforeSend]
                }
                (true, _) => &[CrashPoint::BeforeStep],
            };
            let is_down = self.sim.is_up(server) && !self.sim.is_role_up(server, role);
            let restart = is_down.then_some(Choice::Restart(server, role));
            points.iter().map(move |point| Choice::Crash(server, role, *point)).chain(restart)
        });
        let processes = cluster.iter().flat_map(|server| match self.sim.is_up(server) {
            true => vec![Choice::Kill(server), Choice::PowerCut(server)],
            false => vec![Choice::Start(server)],
        });
        let pairs = cluster
            .iter()
            .flat_map(|one| cluster.iter().filter(move |other| one < *other).map(move |other| (one, other)));
        let links = pairs.map(|(one, other)| match self.is_cut(one, other) {
            true => Choice::Join(one, other),
            false => Choice::Cut(one, other),
        });
        let all = messages.chain(timers).chain(clients).chain(crashes).chain(processes).chain(links);
        all.map(|choice| PossibleChoice { choice, off: self.check_among(&choice, &frames).err() }).collect()
    }

    /// What the vote table is computed from.
    pub fn ballots(&self) -> Ballots {
        let oracle = &self.sim.sim_env.oracle;
        let promised = self.sim.plan.cluster().iter().map(|server| (server, self.acceptor(server).0));
        Ballots {
            quorums: self.sim.plan.quorums(),
            votes: oracle.votes().clone(),
            proposed: oracle.proposed().clone(),
            prepared: oracle.prepared().clone(),
            promised: promised.collect(),
        }
    }

    /// What an acceptor has promised and accepted: as it knows it, or while it is down, as it will know it.
    pub fn acceptor(&self, server: ServerId) -> (Ballot, BTreeMap<Slot, (Ballot, Value)>) {
        let process = self.sim.servers[usize::from(server.0) - 1].process.as_ref();
        if let Some(acceptor) = process.and_then(|process| process.acceptor.as_ref()) {
            let role = acceptor.role();
            return (role.promised(), role.accepted().clone());
        }
        // A process that is down reads its disk when it starts; only a crashed role forgets.
        if self.mode == Mode::Lost && process.is_some() {
            return (Ballot::ZERO, BTreeMap::new());
        }
        self.sim.sim_env.oracle.disk_of(server)
    }

    /// The last slot that a living learner has applied.
    pub fn applied(&self, server: ServerId) -> Option<Slot> {
        let process = self.sim.servers[usize::from(server.0) - 1].process.as_ref()?;
        process.learner.as_ref().map(|learner| learner.role().applied())
    }

    /// The sentence of a limit that is reached.
    pub fn limit(&self) -> Option<String> {
        if self.steps >= super::choice::CHOICES_MAX {
            return Some(super::choice::too_many());
        }
        (self.sim.frames_in_flight().len() >= IN_FLIGHT_MAX).then(crowded)
    }

    /// The step whose lines have this virtual time; 0 for the set-up.
    pub fn step_at(&self, time: Micros) -> usize {
        ((time.saturating_sub(self.begin) + STEP / 2) / STEP) as usize
    }

    /// 16 bits of the hash of everything that has happened.
    pub fn hash(&self) -> u16 {
        self.sim.sim_env.trace_hash() as u16
    }

    /// All servers.
    pub fn cluster(&self) -> ServerSet {
        self.sim.plan.cluster()
    }
}

fn crowded() -> String {
    format!("{IN_FLIGHT_MAX} messages are under way: deliver or drop some first")
}
