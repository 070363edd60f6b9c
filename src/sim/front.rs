//! What a simulated server does for clients: the real front desk's rules, without its threads.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::nature::{Event, Nature};
use super::network::Node;
use super::server::SimServer;
use crate::host::pending::PATIENCE;
use crate::host::queue::{Lost, Mail};
use crate::host::{Asker, Connection, Load, Pending, QueuedReply, Ticket, Time, Usage};
use crate::kv::{Command, Get, Kv};
use crate::net::{CLIENT_FRAME_MAX_BYTES, ClientReply, ClientRequest, Reply, Request, WhyNotApplied, frame, unframe};
use crate::paxos::{CommandId, Learner, LearnerRequest, Proposer, ProposerRequest};
use crate::role::{Input, RoleName};
use crate::server::lines;
use crate::trace::{Context, Draft, RoleTag};
use crate::two_phase_commit::{Coordinator, CoordinatorRequest, Participant, ParticipantRequest};

/// The connection of a simulated client, as its server sees it.
#[derive(Clone, Debug)]
pub struct SimConnection {
    /// Which client.
    pub client: usize,
    requests: Arc<Usage>,
    load: Arc<Load>,
}

impl Connection for SimConnection {
    fn address(&self) -> SocketAddr {
        address(self.client)
    }

    fn requests(&self) -> &Usage {
        &self.requests
    }

    fn load(&self) -> &Load {
        &self.load
    }
}

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
        let connection = SimConnection { client, requests: Arc::default(), load: process.load.clone() };
        let now = Time(nature.now());
        let deadline = Time(now.0 + PATIENCE.as_micros() as u64 * 100 / self.clock);
        let waiter = Asker::new(connection, number, context, now, deadline);
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
    fn write(&mut self, nature: &mut Nature, waiter: Asker<SimConnection>, command: Command) {
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
                return self.refuse(nature, waiter, WhyNotApplied::RoleDown(role));
            }
        }
        if let Some(why) = process.refusal() {
            return self.refuse(nature, waiter, why);
        }
        let now = nature.now();
        let is_full = process.acceptor.as_mut().is_some_and(|acceptor| !acceptor.disk.has_room(now))
            || process.participant.as_mut().is_some_and(|one| !one.disk.journal_mut().has_room(now));
        if is_full {
            return self.refuse(nature, waiter, WhyNotApplied::DiskFull);
        }
        let (id, context, deadline) = (command.id(), waiter.context.clone(), waiter.deadline);
        let ticket = process.pending.await_write(id, waiter);
        self.await_deadline(nature, deadline);
        let command = command.to_paxos();
        let size = command.payload.len();
        if !self.protocol.is_paxos() {
            let mail = Mail { context, input: Input::Request(CoordinatorRequest::Propose(command)), size };
            if let Some(lost) = self.post::<Coordinator>(nature, mail, None) {
                self.withdraw_write(nature, id, ticket, not_taken(RoleName::Coordinator, lost));
            }
            return;
        }
        let mail = Mail { context, input: Input::Request(ProposerRequest::Propose(command)), size };
        if let Some(lost) = self.post::<Proposer>(nature, mail, None) {
            self.withdraw_write(nature, id, ticket, not_taken(RoleName::Proposer, lost));
        }
    }

    /// A read: asked of the own learner.
    fn read(&mut self, nature: &mut Nature, waiter: Asker<SimConnection>, key: Vec<u8>) {
        let Some(process) = &mut self.process else { return };
        if let Some(why) = process.refusal() {
            return self.refuse(nature, waiter, why);
        }
        let (context, deadline) = (waiter.context.clone(), waiter.deadline);
        let token = process.pending.await_read(waiter);
        if let Some(learner) = &process.learner {
            nature.ghost.read_arrived(learner.number, token);
        }
        self.await_deadline(nature, deadline);
        if !self.protocol.is_paxos() {
            let input = Input::Request(ParticipantRequest::Read { token, query: Get { key } });
            if let Some(lost) = self.post::<Participant>(nature, Mail { context, input, size: 0 }, None) {
                self.withdraw_read(nature, token, not_taken(RoleName::Participant, lost));
            }
            return;
        }
        let input = Input::Request(LearnerRequest::Read { token, query: Get { key } });
        if let Some(lost) = self.post::<Learner<Kv>>(nature, Mail { context, input, size: 0 }, None) {
            self.withdraw_read(nature, token, not_taken(RoleName::Learner, lost));
        }
    }

    fn await_deadline(&self, nature: &mut Nature, deadline: Time) {
        if let Some(process) = &self.process {
            nature.after(deadline.0 - nature.now(), Event::Patience { server: self.me, process: process.number });
        }
    }

    fn refuse(&mut self, nature: &mut Nature, waiter: Asker<SimConnection>, why: WhyNotApplied) {
        self.say(nature, |pending| pending.tell(waiter, Reply::NotApplied(why), Context::default()));
    }

    fn withdraw_write(&mut self, nature: &mut Nature, id: CommandId, ticket: Ticket, why: WhyNotApplied) {
        self.say(nature, |pending| pending.refuse_write(id, ticket, why));
    }

    fn withdraw_read(&mut self, nature: &mut Nature, ticket: Ticket, why: WhyNotApplied) {
        self.say(nature, |pending| pending.tell_read(ticket, Reply::NotApplied(why), &Context::default()));
    }

    /// Something is said to those who wait, and sent at once.
    pub fn say(&mut self, nature: &mut Nature, what: impl FnOnce(&Pending<SimConnection>)) {
        if let Some(process) = &self.process {
            what(&process.pending);
        }
        self.send_replies(nature);
    }

    /// Some have waited long enough.
    pub fn lose_patience(&mut self, nature: &mut Nature, process: u64) {
        if let Some(process) = self.process.as_ref().filter(|running| running.number == process) {
            process.pending.expire(Time(nature.now()));
        }
        self.send_replies(nature);
    }

    fn send_replies(&mut self, nature: &mut Nature) {
        let replies = self.process.as_ref().map(|process| process.pending.take_queued());
        replies.into_iter().flatten().for_each(|one| self.reply(nature, one));
    }

    fn reply(&mut self, nature: &mut Nature, QueuedReply { asker, command, reply, cause }: QueuedReply<SimConnection>) {
        if let (Reply::Applied { slot, written }, Some(id)) = (&reply, command) {
            nature.ghost.acknowledged(id, *slot, *written);
        }
        let Some(process) = &self.process else { return };
        let context = Context { re: cause.re.or(asker.context.re.clone()), req: asker.context.req.clone() };
        let took = Time(nature.now()).since(asker.since);
        let context = match lines::response(&reply, took, asker.connection.address()) {
            Some(event) if process.trace.steps() => {
                let re = process.trace.line(Draft::about(RoleTag::Server, event, &context));
                Context { re: re.or(context.re), req: context.req }
            }
            _ => context,
        };
        let bytes = frame(&ClientReply { number: asker.number, context, reply }).into();
        nature.send(Node::Server(self.me), Node::Client(asker.connection.client), bytes);
    }
}

/// A role did not take a request.
fn not_taken(role: RoleName, lost: Lost) -> WhyNotApplied {
    match lost {
        Lost::Down => WhyNotApplied::RoleDown(role),
        Lost::Full => WhyNotApplied::Busy,
    }
}

/// The address that a client's connection seems to come from.
fn address(client: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 50_001 + client as u16))
}
