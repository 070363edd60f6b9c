//! What a simulated server does for clients: the real front desk's rules, without its threads.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::desk::{Told, Waiter};
use super::nature::{Event, Micros, Nature, SECOND};
use super::network::Node;
use super::server::SimServer;
use crate::kv::{Command, Get, Kv};
use crate::net::{CLIENT_FRAME_MAX_BYTES, ClientReply, ClientRequest, Reply, Request, WhyNotApplied, frame, unframe};
use crate::paxos::{CommandId, Learner, LearnerRequest, Proposer, ProposerRequest, RoleName};
use crate::role::Input;
use crate::server::lines;
use crate::server::mailbox::{Lost, Mail};
use crate::trace::{Context, Draft, RoleTag};
use crate::two_phase_commit::{Coordinator, CoordinatorRequest, Participant, ParticipantRequest};

/// The real front desk answers "unknown" after so long.
const PATIENCE: Micros = 2 * SECOND;

impl SimServer {
    /// Bytes from a client. False if they are no request.
    pub fn hear_client(&mut self, nature: &mut Nature, client: usize, bytes: &[u8]) -> bool {
        let Ok(ClientRequest { number, context, request }) = unframe(bytes, CLIENT_FRAME_MAX_BYTES) else {
            return false;
        };
        let Some(process) = &mut self.process else { return true };
        let label = context.req.clone().unwrap_or_default();
        let context = match lines::request(&request, address(client)) {
            Some(event) => {
                let re = process.trace.line(Draft::about(RoleTag::Server, event, &context));
                Context { re: re.or(context.re), req: context.req }
            }
            None => context,
        };
        process.tokens += 1;
        let waiter = Waiter {
            token: process.tokens,
            client,
            number,
            context,
            since: nature.now(),
            write: None,
            has_seen_all: true,
        };
        match request {
            Request::Open { nonce } => self.write(nature, waiter, Command::Open { nonce, label }),
            Request::Write { session, nonce, sequence, first_open, op } => {
                self.write(nature, waiter, Command::Write { session, nonce, sequence, first_open, label, op })
            }
            Request::Get { key } => self.read(nature, waiter, key),
            Request::Status | Request::State { .. } | Request::Crash { .. } | Request::Restart { .. } => return false,
        }
        true
    }

    /// A write: registered, handed over once, to one proposer life, and waited for.
    fn write(&mut self, nature: &mut Nature, waiter: Waiter, command: Command) {
        let Some(process) = &mut self.process else { return };
        assert!(command.is_well_formed(), "a simulated client sends no malformed write");
        let needed = match self.protocol.is_paxos() {
            true => [(RoleName::Proposer, process.proposer.is_some()), (RoleName::Learner, process.learner.is_some())],
            false => [
                (RoleName::Coordinator, process.coordinator.is_some()),
                (RoleName::Participant, process.participant.is_some()),
            ],
        };
        for (role, up) in needed {
            if !up {
                let context = waiter.context.clone();
                return self.reply(nature, (waiter, Reply::NotApplied(WhyNotApplied::RoleDown(role)), context));
            }
        }
        if let Some(why) = process.refusal() {
            let context = waiter.context.clone();
            return self.reply(nature, (waiter, Reply::NotApplied(why), context));
        }
        let now = nature.now();
        let is_full = process.acceptor.as_mut().is_some_and(|acceptor| !acceptor.disk.has_room(now))
            || process.participant.as_mut().is_some_and(|one| !one.disk.journal_mut().has_room(now));
        if is_full {
            let context = waiter.context.clone();
            return self.reply(nature, (waiter, Reply::NotApplied(WhyNotApplied::DiskFull), context));
        }
        let (token, context) = (waiter.token, waiter.context.clone());
        let waiter = Waiter { write: Some(command.id()), ..waiter };
        process.desk.wait(waiter.clone());
        self.await_reply(nature, token);
        let command = command.to_paxos();
        let size = command.payload.len();
        if !self.protocol.is_paxos() {
            let mail = Mail { context, input: Input::Request(CoordinatorRequest::Propose(command)), size };
            if let Some(lost) = self.post::<Coordinator>(nature, mail, None) {
                self.withdraw(nature, token, not_taken(RoleName::Coordinator, lost));
            }
            return;
        }
        let mail = Mail { context, input: Input::Request(ProposerRequest::Propose(command)), size };
        if let Some(lost) = self.post::<Proposer>(nature, mail, None) {
            self.withdraw(nature, token, not_taken(RoleName::Proposer, lost));
        }
    }

    /// A read: asked of the own learner.
    fn read(&mut self, nature: &mut Nature, waiter: Waiter, key: Vec<u8>) {
        let Some(process) = &mut self.process else { return };
        let (token, context) = (waiter.token, waiter.context.clone());
        if let Some(why) = process.refusal() {
            return self.reply(nature, (waiter, Reply::NotApplied(why), context));
        }
        if let Some(learner) = &process.learner {
            nature.ghost.read_arrived(learner.number, token);
        }
        process.desk.wait(waiter);
        self.await_reply(nature, token);
        if !self.protocol.is_paxos() {
            let input = Input::Request(ParticipantRequest::Read { token, query: Get { key } });
            if let Some(lost) = self.post::<Participant>(nature, Mail { context, input, size: 0 }, None) {
                self.withdraw(nature, token, not_taken(RoleName::Participant, lost));
            }
            return;
        }
        let input = Input::Request(LearnerRequest::Read { token, query: Get { key } });
        if let Some(lost) = self.post::<Learner<Kv>>(nature, Mail { context, input, size: 0 }, None) {
            self.withdraw(nature, token, not_taken(RoleName::Learner, lost));
        }
    }

    fn await_reply(&self, nature: &mut Nature, token: u64) {
        if let Some(process) = &self.process {
            let patience = PATIENCE * 100 / self.clock;
            nature.after(patience, Event::Patience { server: self.me, process: process.number, token });
        }
    }

    fn withdraw(&mut self, nature: &mut Nature, token: u64, reply: Reply) {
        let told = self.process.as_mut().and_then(|process| process.desk.give_up(token));
        if let Some((waiter, _, _)) = told {
            let context = waiter.context.clone();
            self.reply(nature, (waiter, reply, context));
        }
    }

    /// A waiter has waited long enough.
    pub fn lose_patience(&mut self, nature: &mut Nature, process: u64, token: u64) {
        let same = self.process.as_mut().filter(|running| running.number == process);
        if let Some(told) = same.and_then(|process| process.desk.give_up(token)) {
            self.reply(nature, told);
        }
    }

    /// Whoever waits for a command is told.
    pub fn tell_write(&mut self, nature: &mut Nature, id: CommandId, reply: impl Fn(bool) -> Reply, context: &Context) {
        let told = self.process.as_mut().map(|process| process.desk.tell_write(id, reply, context));
        for one in told.into_iter().flatten() {
            self.reply(nature, one);
        }
    }

    /// Whoever waits for a read is told.
    pub fn tell_read(&mut self, nature: &mut Nature, token: u64, reply: Reply, context: Context) {
        let told = self.process.as_mut().and_then(|process| process.desk.tell_read(token, reply, context));
        if let Some(told) = told {
            self.reply(nature, told);
        }
    }

    /// Sends a reply to a client.
    pub fn reply(&mut self, nature: &mut Nature, (waiter, reply, cause): Told) {
        if let (Reply::Applied { slot, written }, Some(id)) = (&reply, waiter.write) {
            nature.ghost.acknowledged(id, *slot, *written);
        }
        let Some(process) = &self.process else { return };
        let context = Context { re: cause.re.or(waiter.context.re), req: waiter.context.req };
        let took = Duration::from_micros(nature.now() - waiter.since);
        let context = match lines::response(&reply, took, address(waiter.client)) {
            Some(event) if process.trace.steps() => {
                let re = process.trace.line(Draft::about(RoleTag::Server, event, &context));
                Context { re: re.or(context.re), req: context.req }
            }
            _ => context,
        };
        let bytes = frame(&ClientReply { number: waiter.number, context, reply }).into();
        nature.send(Node::Server(self.me), Node::Client(waiter.client), bytes);
    }
}

/// A role did not take a request.
fn not_taken(role: RoleName, lost: Lost) -> Reply {
    Reply::NotApplied(match lost {
        Lost::Down => WhyNotApplied::RoleDown(role),
        Lost::Full => WhyNotApplied::Busy,
    })
}

/// The address that a client's connection seems to come from.
fn address(client: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 50_001 + client as u16))
}
