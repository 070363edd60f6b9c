//! The handling of a client's request: its log line, and either its reply or its place among the pending requests.

use std::time::Duration;

use super::core::ServerCore;
use super::env::{Env, Observation};
use super::lifecycle::LabRequest;
use super::limits::ClientConnection;
use super::pending::ReplyHandle;
use super::trace_lines;
use crate::kv::{KEY_MAX_BYTES, KvCommand, LABEL_MAX_BYTES, ReadQuery};
use crate::net::{ClientRequest, Reply, Request, WhyNotApplied};
use crate::paxos::{ChunkRequest, Slot};
use crate::role::RoleKind;
use crate::trace::{Speaker, TraceContext};

/// A request for a snapshot chunk waits this long; then the client must ask again.
const STATE_PATIENCE: Duration = Duration::from_millis(500);

impl<C: ClientConnection> ServerCore<C> {
    /// Handles one request, whose frame has `size` bytes. An error is a request that no honest client sends: its
    /// connection ends. The caller calls [`ServerCore::flush_replies`] after the last queued request.
    pub fn request<E: Env<Connection = C>>(
        &self,
        env: &E,
        from: &C,
        request: ClientRequest,
        size: usize,
    ) -> Result<(), String> {
        let ClientRequest { number, context, request } = request;
        let label = context.req.clone().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if label.len() > LABEL_MAX_BYTES || !label.chars().all(plain) {
            return Err(format!(
                "its label is not a word of at most {LABEL_MAX_BYTES} letters, digits, '-', '_' and '.'"
            ));
        }
        // A client names its own lines only. If it named a server's line, that server's log would seem to lack the
        // line.
        let re = context.parent.filter(|line| line.process.as_server().is_none());
        let context = self.trace_request(&request, TraceContext { parent: re, ..context }, from);
        let mut reply_to = ReplyHandle::new(from.clone(), number, context, env.now());
        let reply = match request {
            Request::Open { .. } if !self.may_open(&reply_to) => Reply::NotApplied(WhyNotApplied::Busy),
            Request::Open { nonce } => return self.write(env, KvCommand::Open { nonce, label }, reply_to, size),
            Request::Write { session, nonce, sequence, first_open, op } => {
                return self.write(
                    env,
                    KvCommand::Write { session, nonce, sequence, first_open, label, op },
                    reply_to,
                    size,
                );
            }
            Request::Get { key } if key.len() > KEY_MAX_BYTES => {
                return Err(format!("its key is longer than {KEY_MAX_BYTES} bytes"));
            }
            Request::Get { key } if reply_to.reserve(size) => {
                self.read(env, key, reply_to);
                return Ok(());
            }
            Request::Get { .. } => Reply::NotApplied(WhyNotApplied::Busy),
            Request::Status => Reply::Status(Box::new(self.status(env))),
            Request::State { at_least, part } => {
                self.state_chunk(env, at_least, part, reply_to);
                return Ok(());
            }
            Request::Crash { role, down_ms } => {
                let down = down_ms.map(Duration::from_millis);
                done(self.order_roles(env, |role| LabRequest::Crash { role, down }, role))
            }
            Request::Restart { role } => done(self.order_roles(env, |role| LabRequest::Restart { role }, role)),
            Request::Cut { peers } => done(self.order_links(env, |peer| LabRequest::Cut { peer }, peers)),
            Request::Join { peers } => done(self.order_links(env, |peer| LabRequest::Join { peer }, peers)),
        };
        self.pending.queue_reply(reply_to, reply, TraceContext::default());
        Ok(())
    }

    fn may_open(&self, reply_to: &ReplyHandle<C>) -> bool {
        reply_to.connection.opens().allow(reply_to.since) && self.opens.allow(reply_to.since)
    }

    /// Writes the line of a request, and returns the context for what follows. Without step tracing the label is not
    /// used.
    fn trace_request(&self, request: &Request, context: TraceContext, from: &C) -> TraceContext {
        if !self.trace.steps() {
            return TraceContext::default();
        }
        match trace_lines::request(request, from.address()) {
            Some(event) => self.trace_line(Speaker::Server, &context, event),
            None => context,
        }
    }

    /// Registers a write, and gives it once to one incarnation of the proposer.
    fn write<E: Env<Connection = C>>(
        &self,
        env: &E,
        command: KvCommand,
        mut reply_to: ReplyHandle<C>,
        size: usize,
    ) -> Result<(), String> {
        if !command.is_well_formed() {
            return Err("its key, value or sequence number exceeds a limit".to_string());
        }
        if !reply_to.reserve(size) {
            self.pending.queue_reply(reply_to, Reply::NotApplied(WhyNotApplied::Busy), TraceContext::default());
            return Ok(());
        }
        let (id, context) = (command.id(), reply_to.context.clone());
        // Registered first: if a role crashes from here on, the client still gets a reply.
        let request_id = self.pending.register_write(id, reply_to);
        if let Err(why) = self.propose(env, command, context) {
            self.pending.cancel_write(id, request_id, why);
        }
        Ok(())
    }

    /// Gives a command to the proposer, if this server can get it applied. An error means certainly not applied.
    fn propose<E: Env<Connection = C>>(
        &self,
        env: &E,
        command: KvCommand,
        context: TraceContext,
    ) -> Result<(), WhyNotApplied> {
        let needed = self.config.protocol.roles_of_writes();
        if let Some(role) = needed.into_iter().find(|role| !self.is_up(*role)) {
            return Err(WhyNotApplied::RoleDown(role));
        }
        if let Some(why) = self.admission.refusal() {
            return Err(why);
        }
        if self.is_disk_full() {
            // Other servers may still have room; if none has, the client learns at once that the command is not
            // applied.
            return Err(WhyNotApplied::DiskFull);
        }
        if self.is_checkpoint_full() {
            return Err(WhyNotApplied::Busy);
        }
        self.submit(env, command.to_paxos(), context)
    }

    /// Gives a read to a role of this server.
    fn read<E: Env<Connection = C>>(&self, env: &E, key: Vec<u8>, reply_to: ReplyHandle<C>) {
        let context = reply_to.context.clone();
        if let Some(why) = self.admission.refusal() {
            return self.pending.queue_reply(reply_to, Reply::NotApplied(why), TraceContext::default());
        }
        let token = self.pending.register_read(reply_to);
        env.observe(Observation::ReadArrived(token));
        let asked = self.look_up(env, token, ReadQuery { key }, context);
        // Checked after it is registered, like a write: a fence in between also answers the read.
        if let Some(why) = asked.err().or_else(|| self.admission.refusal()) {
            self.pending.reply_to_read(token, Reply::NotApplied(why), &TraceContext::default());
        }
    }

    /// Gives a lab request to one role, or to all roles; an error if the request is refused.
    pub fn order_roles<E: Env<Connection = C>>(
        &self,
        env: &E,
        order: impl Fn(RoleKind) -> LabRequest,
        role: Option<RoleKind>,
    ) -> Result<(), String> {
        self.check_lab()?;
        let all = self.config.protocol.roles();
        let roles = role.map_or(all.to_vec(), |role| vec![role]);
        if let Some(stranger) = roles.iter().find(|role| !all.contains(role)) {
            let (role, protocol) = (stranger.as_str(), self.config.protocol);
            return Err(format!("a server under {protocol} has no {role}"));
        }
        roles.into_iter().try_for_each(|role| env.lab_request(order(role)))
    }

    /// Requests a snapshot chunk for a client. If no checkpoint has the state yet, the client asks again. A server that
    /// has not applied `at_least` answers at once.
    fn state_chunk<E: Env<Connection = C>>(
        &self,
        env: &E,
        at_least: Slot,
        part: Option<ChunkRequest>,
        reply_to: ReplyHandle<C>,
    ) {
        let protocol = self.config.protocol;
        let reply = if let Some(why) = self.admission.refusal() {
            Reply::NotApplied(why)
        } else if !protocol.has(RoleKind::Learner) {
            Reply::Refused(format!("no backup under {protocol}: it has no log and no checkpoint"))
        } else if at_least > self.shared_status.read().applied {
            Reply::Chunk(None)
        } else {
            let request_id = self.pending.await_part(reply_to.until(STATE_PATIENCE));
            if !self.checkpoints.queue_client_chunk(request_id, part, at_least) {
                self.pending.reply_to_chunk_request(request_id, Reply::Chunk(None));
            }
            return env.wake_checkpointer();
        };
        self.pending.queue_reply(reply_to, reply, TraceContext::default());
    }
}

/// The reply to a lab request.
fn done(given: Result<(), String>) -> Reply {
    given.map_or_else(Reply::Refused, |()| Reply::Done)
}
