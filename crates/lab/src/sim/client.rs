//! A simulated client: the real client core, a list of requests, and events in place of waiting.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::client_history::RequestedOperation;
use super::coverage::CoveragePoint;
use super::data_dir::CLUSTER;
use super::env::{MS, Micros, SECOND, SimEnv, SimEvent};
use super::server::time_of;
use super::wire::{ClientConnections, Greeting, ObservedStep, SimWire};
use paxos_kv::client::core::{ClientCore, ClientIdentity, Finished, RequestHandle, Route, is_answer};
use paxos_kv::client::{ClientError, IN_FLIGHT_MAX, NoReply, TryEnd};
use paxos_kv::kv::{Op, SEQUENCE_MAX, SEQUENCE_WINDOW, WriteResult};
use paxos_kv::net::{CLIENT_FRAME_MAX_BYTES, ClientReply, Reply, Request, WhyNotApplied, WhyUnknown, unframe};
use paxos_kv::paxos::CommandId;
use paxos_kv::random::Random;
use paxos_kv::role::{ServerId, ServerSet};
use paxos_kv::time::Time;
use paxos_kv::trace::{ProcessId, Trace};

/// Time limit of one try at a server, before the client fails over.
const TRY: Micros = SECOND;
/// The request number of every request of an unknown client; real clients never reach it.
pub const ROGUE_REQUEST: u64 = u64::MAX;
/// The stamp of an event that ends a pause; alarms have other stamps.
pub(super) const PAUSE_STAMP: u64 = 0;

/// Checks a reply to an unknown client.
fn check_rogue_reply(sim_env: &mut SimEnv, reply: &Reply) {
    match reply {
        Reply::NotApplied(WhyNotApplied::Expired) => sim_env.reach(CoveragePoint::ForeignSessionRefused),
        Reply::Applied { slot, .. } => {
            sim_env.oracle.require(42, false, || format!("a rogue client received the result of slot {slot}"));
        }
        _ => {}
    }
}

/// A request that a client makes.
#[derive(Clone, Debug)]
pub enum ClientStep {
    /// A write.
    Write(Op),
    /// A read of this key.
    Read(Vec<u8>),
}

/// A client that makes its requests one after the other, or several at once.
pub struct SimClient {
    number: usize,
    /// The name of the client, such as `c1`.
    pub name: String,
    core: ClientCore,
    connections: ClientConnections,
    client_steps: VecDeque<ClientStep>,
    think: RangeInclusive<Micros>,
    timeout: Micros,
    /// The index in the history of the operation of each request.
    operations: BTreeMap<RequestHandle, usize>,
    /// When the client checks its clock next, unless another event wakes it before.
    alarm: Option<Time>,
    /// The stamp of that alarm; an earlier alarm is ignored.
    stamp: u64,
    /// How far its clock is ahead of the virtual time: a person may let its waits end early.
    ahead: Micros,
    /// It makes each request only when a person chooses so.
    is_held: bool,
}

/// Delay of a client that finds too many requests in flight for its key.
const KEY_RETRY: RangeInclusive<Micros> = 20 * MS..=60 * MS;

impl SimClient {
    /// A client with these requests, which tries this server first. `pace` is the range of its pauses, and its time-out
    /// for a request.
    pub fn new(
        sim_env: &mut SimEnv,
        number: usize,
        cluster: ServerSet,
        client_steps: VecDeque<ClientStep>,
        server: ServerId,
        pace: (RangeInclusive<Micros>, Micros),
        lines: bool,
    ) -> SimClient {
        let name = format!("c{}", number + 1);
        let seed = sim_env.random.next();
        let random = |stream: u64| Random::new(seed, stream + number as u64);
        let clock = sim_env.clock();
        let trace = match ProcessId::named(&name) {
            Ok(process) if lines => Trace::to_memory_at(process, move || time_of(clock.load(Ordering::Relaxed))),
            _ => Trace::disabled(),
        };
        let identity = ClientIdentity {
            name: name.clone(),
            cluster: CLUSTER.to_string(),
            servers: cluster,
            try_timeout: Duration::from_micros(TRY),
            trace,
        };
        let mut halves = random(10_000);
        let nonces = Box::new(move || u128::from(halves.next()) << 64 | u128::from(halves.next()));
        let (think, timeout) = pace;
        let client = SimClient {
            number,
            name,
            core: ClientCore::new(identity, server, nonces, random(100)),
            connections: ClientConnections::default(),
            client_steps,
            think,
            timeout,
            operations: BTreeMap::new(),
            alarm: None,
            stamp: PAUSE_STAMP,
            ahead: 0,
            is_held: false,
        };
        client.pause(sim_env);
        client
    }

    /// Opens the client's session ahead of its first write, by this moment.
    pub fn open_session(&mut self, sim_env: &mut SimEnv, deadline: Micros) {
        let mut wire = SimWire { client: self.number, connections: &mut self.connections, sim_env };
        self.core.open_session(Time(wire.sim_env.now()), Time(deadline), &mut wire);
        self.progress(sim_env);
    }

    /// The slot in which the client's session was opened.
    pub fn session(&self) -> Option<u64> {
        self.core.session().public().map(|(session, _)| session)
    }

    /// Makes these requests, after a pause and one after the other.
    pub fn request(&mut self, sim_env: &mut SimEnv, client_steps: impl IntoIterator<Item = ClientStep>) {
        self.client_steps.extend(client_steps);
        self.pause(sim_env);
    }

    /// Allows this number of requests in flight at once.
    pub fn allow_in_flight(&self, sim_env: &mut SimEnv, requests: usize) {
        (1..requests.min(self.client_steps.len())).for_each(|_| self.pause(sim_env));
    }

    /// Whether the client has made all its requests, and has none in flight.
    pub fn is_done(&self) -> bool {
        self.client_steps.is_empty() && self.core.in_flight() == 0
    }

    /// The log lines of the client.
    pub fn lines(&self) -> String {
        self.core.identity().trace.text()
    }

    /// Drops the requests that were not made yet.
    pub fn stop(&mut self) {
        self.client_steps.clear();
    }

    /// Pauses for a random time, and then makes the next request.
    fn pause(&self, sim_env: &mut SimEnv) {
        let delay = sim_env.random_time(&self.think);
        sim_env.schedule(delay, SimEvent::Client { client: self.number, stamp: PAUSE_STAMP });
    }

    /// Pauses longer, because too many requests for the key are in flight. The delay keeps hundreds of such clients
    /// from flooding the event queue while no replies arrive.
    fn pause_longer(&self, sim_env: &mut SimEnv) {
        let delay = sim_env.random_time(&KEY_RETRY) + sim_env.random_time(&self.think);
        sim_env.schedule(delay, SimEvent::Client { client: self.number, stamp: PAUSE_STAMP });
    }

    /// Handles the end of a pause, or an alarm.
    pub fn wake(&mut self, sim_env: &mut SimEnv, stamp: u64) {
        if stamp == PAUSE_STAMP {
            self.begin(sim_env);
        } else if stamp == self.stamp {
            self.alarm = None;
            self.progress(sim_env);
        }
    }

    /// The time of the client's clock.
    fn now(&self, sim_env: &SimEnv) -> Time {
        Time(sim_env.now() + self.ahead)
    }

    /// Whether the client waits for a time.
    pub fn waits_for_time(&self) -> bool {
        self.core.in_flight() > 0 && self.core.due().is_some()
    }

    /// Lets the client's current wait end now: its clock moves on to that time.
    pub fn end_wait(&mut self, sim_env: &mut SimEnv) {
        if let Some(due) = self.core.due() {
            self.ahead += due.0.saturating_sub(self.now(sim_env).0);
            self.progress(sim_env);
        }
    }

    /// The server that the client contacts now.
    pub fn server(&self) -> ServerId {
        self.core.server()
    }

    /// From now on it makes each request only when a person chooses so.
    pub fn hold(&mut self) {
        self.is_held = true;
    }

    /// Whether it makes each request only when a person chooses so.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// Number of requests that the client has not made yet.
    pub fn left(&self) -> usize {
        self.client_steps.len()
    }

    /// Makes the next request.
    fn begin(&mut self, sim_env: &mut SimEnv) {
        let Some(client_step) = self.client_steps.front() else { return };
        let what = match client_step {
            ClientStep::Read(key) => RequestedOperation::Get { key: key.clone() },
            ClientStep::Write(op) => RequestedOperation::Write(op.clone()),
        };
        if !sim_env.history.may_start_request(what.key()) {
            return self.pause_longer(sim_env);
        }
        let Some(client_step) = self.client_steps.pop_front() else { return };
        let now = self.now(sim_env);
        let deadline = Time(now.0 + self.timeout);
        let operation = sim_env.history_begins(self.number, what);
        let mut wire = SimWire { client: self.number, connections: &mut self.connections, sim_env };
        let handle = match client_step {
            ClientStep::Read(key) => self.core.read(now, deadline, key, Route::Any, &mut wire),
            ClientStep::Write(op) => self.core.write(now, deadline, op, &mut wire),
        };
        self.operations.insert(handle, operation);
        if self.core.in_flight() == IN_FLIGHT_MAX {
            sim_env.reach(CoveragePoint::MaxInFlight);
        }
        self.progress(sim_env);
    }

    /// Lets the core do what it can do now, records the results, and sets the next alarm.
    fn progress(&mut self, sim_env: &mut SimEnv) {
        let now = self.now(sim_env);
        let mut wire = SimWire { client: self.number, connections: &mut self.connections, sim_env };
        self.core.poll(now, &mut wire);
        for step in self.connections.take_steps() {
            match step {
                ObservedStep::Named(handle, id) => sim_env.history.set_id(self.operations[&handle], id),
                ObservedStep::Unnamed(handle) => sim_env.history_renames(self.operations[&handle]),
            }
        }
        while let Some((handle, Finished { result, .. })) = self.core.take_completed() {
            if let Some(operation) = self.operations.remove(&handle) {
                sim_env.history.request_ended(operation);
                record_result(sim_env, operation, result);
            }
            self.pause(sim_env);
        }
        if let Some(due) = self.core.due()
            && self.alarm.is_none_or(|alarm| due < alarm)
        {
            self.alarm = Some(due);
            self.stamp += 1;
            let delay = due.0.saturating_sub(self.now(sim_env).0);
            sim_env.schedule(delay, SimEvent::Client { client: self.number, stamp: self.stamp });
        }
    }

    /// A request of this client arrives at a server; `greeting` names the process there, if it runs. Returns false if
    /// the request does not arrive.
    pub fn request_arrives(
        &mut self,
        sim_env: &mut SimEnv,
        server: ServerId,
        number: u64,
        greeting: Option<Greeting>,
    ) -> bool {
        let arrives = self.connections.request_arrives(server, number, greeting);
        if !arrives {
            self.progress(sim_env);
        }
        arrives
    }

    /// The connection of this request has ended.
    pub fn lose_connection(&mut self, sim_env: &mut SimEnv, server: ServerId, number: u64, no_reply: NoReply) {
        if self.connections.lose(server, Some(number), no_reply) {
            self.progress(sim_env);
        }
    }

    /// As [`lose_connection`](SimClient::lose_connection), for the connection to a server whatever its requests.
    pub fn lose_any_connection(&mut self, sim_env: &mut SimEnv, server: ServerId, no_reply: NoReply) {
        if self.connections.lose(server, None, no_reply) {
            self.progress(sim_env);
        }
    }

    /// Handles bytes from a server.
    pub fn receive(&mut self, sim_env: &mut SimEnv, server: ServerId, bytes: &[u8]) {
        match unframe::<ClientReply>(bytes, CLIENT_FRAME_MAX_BYTES) {
            Ok(ClientReply { number: ROGUE_REQUEST, reply, .. }) => return check_rogue_reply(sim_env, &reply),
            Ok(reply) => {
                let said = reply.reply.clone();
                let Some(asked) = self.connections.reply_arrives(server, reply) else { return };
                // The core only distrusts such a server; in a simulation the reply is a bug.
                let answers = is_answer(&asked, &said) && !matches!(said, Reply::Refused(_));
                sim_env.oracle.require(16, answers, || format!("the reply to {asked:?} was {said:?}"));
            }
            Err(error) => {
                let no_reply = NoReply::Malformed { length: bytes.len() as u64, what: error.to_string() };
                self.connections.lose(server, None, no_reply);
            }
        }
        self.progress(sim_env);
    }

    /// Requests of an unknown client that knows the id of this client's session, but not its nonce.
    pub fn rogue_requests(&self, sim_env: &mut SimEnv) -> Vec<Request> {
        let mut said = Vec::new();
        for _ in 0..sim_env.random.within(0..=3) {
            let nonce = u128::from(sim_env.random.next());
            sim_env.oracle.record_request(CommandId::opening(nonce), None);
            said.push(Request::Open { nonce });
        }
        let Some((session, last)) = self.core.session().public() else { return said };
        let nonce = u128::from(sim_env.random.next());
        let sequence =
            sim_env.random_choice(&[last, last + 1, last + SEQUENCE_WINDOW, SEQUENCE_MAX]).unwrap_or(1).max(1);
        let first_open = sim_env.random_choice(&[1, last, sequence]).unwrap_or(1).max(1);
        let op = Op::Put { key: b"k1".to_vec(), value: b"a stranger's"[..].into(), if_version: None };
        if first_open <= sequence && sequence - first_open < SEQUENCE_WINDOW {
            sim_env.oracle.record_request(CommandId::new(session, nonce, sequence), Some(op.clone()));
            said.push(Request::Write { session, nonce, sequence, first_open, op });
        }
        said
    }
}

/// Records the result of a request in the history.
fn record_result(sim_env: &mut SimEnv, operation: usize, result: Result<Reply, ClientError>) {
    if let Err(ClientError::NotApplied(tries) | ClientError::Unknown(tries)) = &result {
        let is_of_other_history = |end: &TryEnd| matches!(end, TryEnd::NoReply(NoReply::OtherHistory { .. }));
        let has_expired = |end: &TryEnd| {
            matches!(end, TryEnd::NotApplied(WhyNotApplied::Expired) | TryEnd::Unknown(WhyUnknown::Expired))
        };
        if tries.last.iter().any(|one| is_of_other_history(&one.end)) {
            sim_env.reach(CoveragePoint::OtherHistory);
        }
        if tries.last.iter().any(|one| has_expired(&one.end)) {
            sim_env.history.expired(operation);
        }
    }
    match result {
        Ok(Reply::Applied { slot, written, .. }) => {
            if matches!(written, WriteResult::Mismatch { .. }) {
                sim_env.reach(CoveragePoint::Mismatch);
            }
            sim_env.history_wrote(operation, slot, written);
        }
        Ok(Reply::Value { slot, value, version }) => {
            sim_env.history_read(operation, slot, value.map(|value| value.to_vec()), version);
        }
        Ok(other) => sim_env.oracle.require(16, false, || format!("a request got the result {other:?}")),
        Err(ClientError::Unknown(_)) => sim_env.reach(CoveragePoint::OutcomeUnknown),
        Err(_) => sim_env.history_refused(operation),
    }
}
