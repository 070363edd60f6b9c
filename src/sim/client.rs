//! One simulated client: the real one's rules, with events in place of waiting.
//!
//! It asks a server, and if that brings nothing the next, until there is a result, a certain failure or no time left. A
//! write has one name in all its tries; a write whose outcome was never learnt is never sent again.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::history::What;
use super::marks::Mark;
use super::nature::{Event, Micros, Nature, SECOND};
use super::network::Node;
use super::server::time_of;
use crate::client::core::lines::Lines;
use crate::client::core::{Pauses, SESSIONS_MAX, asked};
use crate::client::{ClientError, NoReply, Session, Tries, Try, TryEnd, WriteId};
use crate::kv::{Op, SEQUENCE_MAX, SPAN, Written};
use crate::net::{CLIENT_FRAME_MAX_BYTES, ClientReply, ClientRequest, Reply, Request, WhyNotApplied, frame, unframe};
use crate::paxos::CommandId;
use crate::random::Random;
use crate::role::{Server, Servers};
use crate::trace::{Process, Trace};

/// How long one server is waited for before the next is asked.
const TRY: Micros = SECOND;
/// The number of every request of a stranger: no client ever gets there.
pub const STRANGER: u64 = u64::MAX;

/// A stranger has got a reply.
fn told_a_stranger(nature: &mut Nature, reply: &Reply) {
    match reply {
        Reply::NotApplied(WhyNotApplied::Expired) => nature.mark(Mark::StrangerRefused),
        Reply::Applied { slot, .. } => {
            nature.ghost.require(42, false, || format!("a stranger was told what slot {slot} came to"));
        }
        _ => {}
    }
}

/// What a client does one after the other.
#[derive(Clone, Debug)]
pub enum Wish {
    /// A write.
    Write(Op),
    /// A read.
    Read(Vec<u8>),
}

/// A client.
pub struct SimClient {
    number: usize,
    /// Its name, as in `c1`.
    pub name: String,
    cluster: Servers,
    wishes: VecDeque<Wish>,
    think: std::ops::RangeInclusive<Micros>,
    timeout: Micros,
    session: Session,
    server: Server,
    frames: u64,
    requests: u64,
    random: Random,
    trace: Trace,
    /// Changes with everything that it waits in: a time-out of an earlier wait means nothing.
    stamp: u64,
    state: State,
}

enum State {
    /// Between two requests.
    Thinking,
    /// It waits for a reply.
    Asking(Box<Asking>),
    /// It waits before it asks the next server.
    Pausing(Box<Asking>),
    /// It has asked for everything.
    Done,
}

/// A request under way.
struct Asking {
    request: Request,
    tries: Tries,
    pauses: Pauses,
    lines: Lines,
    begun: Micros,
    deadline: Micros,
    try_begun: Micros,
    /// The operation of the history that it is about.
    operation: usize,
    /// What comes after it, if it opens the session for a write.
    then: Option<Op>,
    /// How many sessions have ended under it.
    sessions: u32,
}

impl SimClient {
    /// A client with these wishes, which asks this server first.
    pub fn new(
        nature: &mut Nature,
        number: usize,
        cluster: Servers,
        wishes: VecDeque<Wish>,
        server: Server,
        pace: (std::ops::RangeInclusive<Micros>, Micros),
        lines: bool,
    ) -> SimClient {
        let name = format!("c{}", number + 1);
        let random = Random::new(nature.random.next(), 100 + number as u64);
        let clock = nature.clock();
        let trace = match Process::named(&name) {
            Ok(process) if lines => Trace::to_memory_at(process, move || time_of(clock.load(Ordering::Relaxed))),
            _ => Trace::disabled(),
        };
        let mut nonces = random.clone();
        let session = Session::new(Box::new(move || u128::from(nonces.next()) << 64 | u128::from(nonces.next())));
        let (think, timeout) = pace;
        let mut client = SimClient {
            number,
            name,
            cluster,
            wishes,
            think,
            timeout,
            session,
            server,
            frames: 0,
            requests: 0,
            random,
            trace,
            stamp: 0,
            state: State::Thinking,
        };
        client.wait(nature, client.think.clone());
        client
    }

    /// Whether it has asked for everything.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Its lines.
    pub fn lines(&self) -> String {
        self.trace.text()
    }

    /// It asks for nothing more once the request under way has ended.
    pub fn stop(&mut self) {
        self.wishes.clear();
        if matches!(self.state, State::Thinking) {
            self.state = State::Done;
        }
    }

    fn wait(&mut self, nature: &mut Nature, time: std::ops::RangeInclusive<Micros>) {
        self.stamp += 1;
        let delay = nature.time(&time);
        nature.after(delay, Event::Client { client: self.number, stamp: self.stamp });
    }

    /// Time has passed.
    pub fn wakes(&mut self, nature: &mut Nature, stamp: u64) {
        if stamp != self.stamp {
            return;
        }
        match std::mem::replace(&mut self.state, State::Done) {
            State::Thinking => self.begin(nature),
            State::Asking(asking) => {
                let waited = Duration::from_micros(nature.now() - asking.try_begun);
                self.failed(nature, asking, TryEnd::NoReply(NoReply::Silent { waited }));
            }
            State::Pausing(asking) => self.ask(nature, asking),
            State::Done => {}
        }
    }

    /// The next wish.
    fn begin(&mut self, nature: &mut Nature) {
        let (now, deadline) = (nature.now(), nature.now() + self.timeout);
        match self.wishes.pop_front() {
            None => self.state = State::Done,
            Some(Wish::Read(key)) => {
                let operation = nature.history_begins(self.number, What::Get { key: key.clone() });
                self.request(nature, Request::Get { key }, (now, deadline), operation, (None, 0));
            }
            Some(Wish::Write(op)) => {
                let operation = nature.history_begins(self.number, What::Write(op.clone()));
                self.write(nature, op, (now, deadline), operation, 0);
            }
        }
    }

    /// A write, in a session that is opened first if there is none.
    fn write(&mut self, nature: &mut Nature, op: Op, time: (Micros, Micros), operation: usize, sessions: u32) {
        if let Some(nonce) = self.session.wanted() {
            nature.ghost.asked(CommandId::opening(nonce), None);
            return self.request(nature, Request::Open { nonce }, time, operation, (Some(op), sessions));
        }
        if let Some(WriteId { session, nonce, sequence, first_open }) = self.session.next_write() {
            let id = CommandId::new(session, nonce, sequence);
            nature.ghost.asked(id, Some(op.clone()));
            nature.history.name(operation, id);
            let request = Request::Write { session, nonce, sequence, first_open, op };
            self.request(nature, request, time, operation, (None, sessions));
        }
    }

    fn request(
        &mut self,
        nature: &mut Nature,
        request: Request,
        (begun, deadline): (Micros, Micros),
        operation: usize,
        (then, sessions): (Option<Op>, u32),
    ) {
        self.requests += 1;
        let label = format!("{}-{}", self.name, self.requests);
        let lines = Lines::begin(&self.trace, label, &request, self.server);
        let tries = Tries::new(self.cluster, asked(&request));
        let pauses = Pauses::new(self.cluster.len());
        let asking =
            Asking { request, tries, pauses, lines, begun, deadline, try_begun: begun, operation, then, sessions };
        self.ask(nature, Box::new(asking));
    }

    /// One try with one server.
    fn ask(&mut self, nature: &mut Nature, mut asking: Box<Asking>) {
        let now = nature.now();
        asking.try_begun = now;
        self.frames += 1;
        let context = asking.lines.context();
        let request = ClientRequest { number: self.frames, context, request: asking.request.clone() };
        nature.send(Node::Client(self.number), Node::Server(self.server), frame(&request).into());
        let patience = TRY.min(asking.deadline.saturating_sub(now)).max(1);
        self.state = State::Asking(asking);
        self.wait(nature, patience..=patience);
    }

    /// Nobody listens, or the connection has ended.
    pub fn loses_connection(&mut self, nature: &mut Nature, server: Server, number: u64, no_reply: NoReply) {
        if server == self.server
            && number == self.frames
            && let State::Asking(asking) = std::mem::replace(&mut self.state, State::Done)
        {
            self.failed(nature, asking, TryEnd::NoReply(no_reply));
        }
    }

    /// As [`loses_connection`](SimClient::loses_connection), whatever it has asked on it.
    pub fn loses_any_connection(&mut self, nature: &mut Nature, server: Server, no_reply: NoReply) {
        self.loses_connection(nature, server, self.frames, no_reply);
    }

    /// Bytes from a server.
    pub fn hears(&mut self, nature: &mut Nature, server: Server, bytes: &[u8]) {
        let reply = unframe::<ClientReply>(bytes, CLIENT_FRAME_MAX_BYTES);
        if let Ok(ClientReply { number: STRANGER, reply, .. }) = reply {
            return told_a_stranger(nature, &reply);
        }
        let ours = |reply: &ClientReply| server == self.server && reply.number == self.frames;
        if reply.as_ref().is_ok_and(|reply| !ours(reply)) || !matches!(self.state, State::Asking(_)) {
            return;
        }
        let State::Asking(asking) = std::mem::replace(&mut self.state, State::Done) else { return };
        match reply {
            Err(error) => {
                let no_reply = NoReply::Malformed { length: bytes.len() as u64, what: error.to_string() };
                self.failed(nature, asking, TryEnd::NoReply(no_reply));
            }
            Ok(ClientReply { reply: Reply::NotApplied(why), .. }) => {
                self.failed(nature, asking, TryEnd::NotApplied(why))
            }
            Ok(ClientReply { reply: Reply::Unknown(why), .. }) => self.failed(nature, asking, TryEnd::Unknown(why)),
            Ok(reply) => {
                let took = Duration::from_micros(nature.now() - asking.begun);
                asking.lines.replied(&reply, server, took);
                self.succeeded(nature, *asking, reply.reply);
            }
        }
    }

    fn succeeded(&mut self, nature: &mut Nature, asking: Asking, reply: Reply) {
        match (reply, asking.then) {
            (Reply::Opened { session, .. }, Some(op)) => {
                if let Request::Open { nonce } = asking.request {
                    self.session.opened(nonce, session);
                }
                let time = (asking.begun, asking.deadline);
                return self.write(nature, op, time, asking.operation, asking.sessions);
            }
            (Reply::Applied { slot, written }, None) => {
                if matches!(written, Written::Mismatch { .. }) {
                    nature.mark(Mark::Mismatch);
                }
                nature.history_wrote(asking.operation, slot, written);
            }
            (Reply::Value { slot, value, version }, None) => {
                nature.history_read(asking.operation, slot, value.map(|value| value.into_vec()), version);
            }
            (other, _) => nature.ghost.require(16, false, || format!("{:?} was answered by {other:?}", asking.request)),
        }
        self.think(nature);
    }

    /// What somebody says who knows the number of this client's session, and not its nonce.
    pub fn as_a_stranger_would(&self, nature: &mut Nature) -> Vec<Request> {
        let mut said = Vec::new();
        for _ in 0..nature.random.within(0..=3) {
            let nonce = u128::from(nature.random.next());
            nature.ghost.asked(CommandId::opening(nonce), None);
            said.push(Request::Open { nonce });
        }
        let Some((session, last)) = self.session.public() else { return said };
        let nonce = u128::from(nature.random.next());
        let sequence = nature.one_of(&[last, last + 1, last + SPAN, SEQUENCE_MAX]).unwrap_or(1).max(1);
        let first_open = nature.one_of(&[1, last, sequence]).unwrap_or(1).max(1);
        let op = Op::Put { key: b"k1".to_vec(), value: b"a stranger's".to_vec(), if_version: None };
        if first_open <= sequence && sequence - first_open < SPAN {
            nature.ghost.asked(CommandId::new(session, nonce, sequence), Some(op.clone()));
            said.push(Request::Write { session, nonce, sequence, first_open, op });
        }
        said
    }

    fn think(&mut self, nature: &mut Nature) {
        self.state = State::Thinking;
        self.wait(nature, self.think.clone());
    }

    /// A try has brought nothing: asks the next server, or gives up.
    fn failed(&mut self, nature: &mut Nature, mut asking: Box<Asking>, end: TryEnd) {
        let took = Duration::from_micros(nature.now() - asking.try_begun);
        let ends_session = end.ends_session();
        let failed = Try { server: self.server, end, took };
        if ends_session {
            asking.tries.push(failed);
            return self.end_session(nature, *asking);
        }
        let pause = asking.pauses.after(took, &mut self.random).as_micros() as Micros;
        let pause = pause.min(asking.deadline.saturating_sub(nature.now()));
        asking.tries.push(failed.clone());
        let left = Duration::from_micros(asking.deadline.saturating_sub(nature.now() + pause));
        self.server = self.server_after(self.server);
        if !asking.tries.are_worth_another(left, Duration::from_micros(TRY)) {
            return self.gave_up(nature, *asking, false);
        }
        nature.mark(Mark::FailedOver);
        asking.lines.failover(&failed, self.server);
        self.state = State::Pausing(asking);
        self.wait(nature, pause..=pause);
    }

    /// The servers take no more writes of the session that a write was sent in.
    fn end_session(&mut self, nature: &mut Nature, mut asking: Asking) {
        asking.tries.took = Duration::from_micros(nature.now() - asking.begun);
        asking.lines.session_ended(&asking.tries);
        let Request::Write { nonce, op, .. } = &asking.request else { return self.gave_up(nature, asking, true) };
        self.session.ended(*nonce);
        let has_time = nature.now() < asking.deadline;
        if asking.tries.may_be_applied || asking.sessions >= SESSIONS_MAX || !has_time {
            return self.gave_up(nature, asking, true);
        }
        // It was certainly not applied under the name that it had; under its next one it may be.
        nature.mark(Mark::WentOnInNewSession);
        nature.history_renames(asking.operation);
        let time = (asking.begun, asking.deadline);
        self.write(nature, op.clone(), time, asking.operation, asking.sessions + 1);
    }

    fn gave_up(&mut self, nature: &mut Nature, asking: Asking, is_told: bool) {
        let error = asking.tries.into_error(Duration::from_micros(nature.now() - asking.begun));
        if !is_told {
            asking.lines.gave_up(&error);
        }
        match error {
            ClientError::Unknown(_) => nature.mark(Mark::ToldUnknown),
            _ => nature.history_refused(asking.operation),
        }
        self.think(nature);
    }

    fn server_after(&self, server: Server) -> Server {
        self.cluster.iter().find(|next| *next > server).or_else(|| self.cluster.iter().next()).unwrap_or(server)
    }
}
