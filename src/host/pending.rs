//! The pending requests of a server.
//!
//! A request is registered before its command is given to the proposer. It is found by the command's id when any
//! learner of this server applies the command, from any proposer. Each request gets exactly one reply. The replies stay
//! here until the end of the batch, so that the replies of a batch leave together.
//!
//! "Expired" and "superseded" are certain for a try only if this server's own learner has applied every slot since the
//! try arrived. Each copy of the try is in one of these slots or after them, and the first of them changed nothing.
//! After a snapshot this is unknown: the snapshot may contain an applied copy.
//!
//! "Not applied" may reach two tries of one command that wait together, even if the proposer has not taken the second
//! one yet. That misleads no client: it sends a second try only after it has counted the first as unknown.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::limits::{self, ClientConnection};
use super::rules;
use crate::kv::ApplyResult;
use crate::net::{Reply, WhyNotApplied, WhyUnknown};
use crate::paxos::CommandId;
use crate::role::ServerSet;
use crate::time::Time;
use crate::trace::TraceContext;

/// A request without an outcome is answered "unknown" after this time: its client has failed over to the next server.
pub const OUTCOME_TIMEOUT: Duration = Duration::from_secs(2);

/// A request, and where its reply goes. Dropping it returns its share of the limits.
#[derive(Debug)]
pub struct ReplyHandle<C: ClientConnection> {
    /// The client's connection.
    pub connection: C,
    /// The number of the request on its connection.
    pub number: u64,
    /// The request's line and label.
    pub context: TraceContext,
    /// When the request arrived.
    pub since: Time,
    /// When the request times out.
    pub deadline: Time,
    /// The request's bytes that count against the limits; None if it is answered at once and takes none.
    admitted: Option<usize>,
}

impl<C: ClientConnection> ReplyHandle<C> {
    /// A request that has just arrived.
    pub fn new(connection: C, number: u64, context: TraceContext, since: Time) -> ReplyHandle<C> {
        ReplyHandle { connection, number, context, since, deadline: since + OUTCOME_TIMEOUT, admitted: None }
    }

    /// The same handle with a time-out of `patience`.
    pub fn until(mut self, patience: Duration) -> ReplyHandle<C> {
        self.deadline = self.since + patience;
        self
    }

    /// Counts the request as in flight; false if that exceeds a limit.
    pub fn reserve(&mut self, bytes: usize) -> bool {
        let fits = limits::admit(&self.connection, bytes);
        self.admitted = fits.then_some(bytes);
        fits
    }
}

impl<C: ClientConnection> Drop for ReplyHandle<C> {
    fn drop(&mut self) {
        if let Some(bytes) = self.admitted {
            limits::release(&self.connection, bytes);
        }
    }
}

/// A reply that has not been sent yet.
#[derive(Debug)]
pub struct QueuedReply<C: ClientConnection> {
    /// Where the reply goes.
    pub reply_to: ReplyHandle<C>,
    /// The command of the request, if it was a write.
    pub command: Option<CommandId>,
    /// The reply.
    pub reply: Reply,
    /// The line that caused the reply.
    pub cause: TraceContext,
}

/// The pending requests, and the replies to send.
#[derive(Debug)]
pub struct PendingRequests<C: ClientConnection> {
    table: Mutex<PendingTable<C>>,
    queued: Mutex<Vec<QueuedReply<C>>>,
}

#[derive(Debug)]
struct PendingTable<C: ClientConnection> {
    /// By command: a retry may wait together with the first try.
    writes: BTreeMap<CommandId, Vec<PendingRequest<C>>>,
    reads: BTreeMap<RequestId, ReplyHandle<C>>,
    /// Requests for a snapshot chunk: the checkpointer answers them, not a role.
    parts: BTreeMap<RequestId, ReplyHandle<C>>,
    last: RequestId,
}

#[derive(Debug)]
struct PendingRequest<C: ClientConnection> {
    request_id: RequestId,
    reply_to: ReplyHandle<C>,
    /// The command as it was sent.
    command: CommandId,
    /// This server's learner has itself applied every slot since the request arrived.
    has_seen_all: bool,
}

/// The id of a pending request; the token of a read.
pub type RequestId = u64;

impl<C: ClientConnection> Default for PendingRequests<C> {
    fn default() -> PendingRequests<C> {
        let table = PendingTable { writes: BTreeMap::new(), reads: BTreeMap::new(), parts: BTreeMap::new(), last: 0 };
        PendingRequests { table: Mutex::new(table), queued: Mutex::default() }
    }
}

impl<C: ClientConnection> PendingRequests<C> {
    /// Registers a command that waits for its outcome.
    pub fn register_write(&self, id: CommandId, reply_to: ReplyHandle<C>) -> RequestId {
        let mut table = self.lock();
        let request_id = table.next_id();
        let pending = PendingRequest { request_id, reply_to, command: id, has_seen_all: true };
        table.writes.entry(rules::waits_for(id)).or_default().push(pending);
        request_id
    }

    /// Registers a read that waits for its answer.
    pub fn register_read(&self, reply_to: ReplyHandle<C>) -> RequestId {
        let mut table = self.lock();
        let request_id = table.next_id();
        table.reads.insert(request_id, reply_to);
        request_id
    }

    /// Registers a request that waits for a snapshot chunk.
    pub fn await_part(&self, reply_to: ReplyHandle<C>) -> RequestId {
        let mut table = self.lock();
        let request_id = table.next_id();
        table.parts.insert(request_id, reply_to);
        request_id
    }

    /// Answers a request for a snapshot chunk: with the chunk, or without it.
    pub fn reply_to_chunk_request(&self, request_id: RequestId, reply: Reply) {
        let reply_to = self.lock().parts.remove(&request_id);
        self.queue(reply_to.map(|reply_to| (reply_to, None, reply)), &TraceContext::default());
    }

    /// Answers a write that was not given to a proposer. Has no effect if the write already has a reply.
    pub fn cancel_write(&self, id: CommandId, request_id: RequestId, why: WhyNotApplied) {
        let mut table = self.lock();
        let Some(waiting) = table.writes.get_mut(&rules::waits_for(id)) else { return };
        let Some(at) = waiting.iter().position(|one| one.request_id == request_id) else { return };
        let pending = waiting.remove(at);
        if waiting.is_empty() {
            table.writes.remove(&rules::waits_for(id));
        }
        drop(table);
        self.queue([pending.with_reply(Reply::NotApplied(why))], &TraceContext::default());
    }

    /// A command was applied.
    pub fn applied(&self, id: CommandId, outcome: ApplyResult, accepted_by: ServerSet, context: &TraceContext) {
        self.reply_to_write(id, |has_seen_all| reply_to(outcome, accepted_by, has_seen_all), context);
    }

    /// The learner has installed a snapshot: this server has not seen the commands that the snapshot contains.
    pub fn snapshot_installed(&self) {
        self.lock().writes.values_mut().flatten().for_each(|pending| pending.has_seen_all = false);
    }

    /// The role that would answer the reads is down.
    pub fn fail_reads(&self, why: WhyNotApplied) {
        let reads = std::mem::take(&mut self.lock().reads);
        self.queue(
            reads.into_values().map(|reply_to| (reply_to, None, Reply::NotApplied(why))),
            &TraceContext::default(),
        );
    }

    /// A command is certainly not applied by this try.
    pub fn not_applied(&self, id: CommandId, why: WhyNotApplied, context: &TraceContext) {
        self.reply_to_write(id, |_| Reply::NotApplied(why), context);
    }

    fn reply_to_write(&self, id: CommandId, reply: impl Fn(bool) -> Reply, context: &TraceContext) {
        let Some(waiting) = self.lock().take_write(rules::waits_for(id)) else { return };
        self.queue(
            waiting.into_iter().map(|one| {
                let reply = reply(one.has_seen_all);
                one.with_reply(reply)
            }),
            context,
        );
    }

    /// A read is answered, or has failed.
    pub fn reply_to_read(&self, request_id: RequestId, reply: Reply, context: &TraceContext) {
        let reply_to = self.lock().reads.remove(&request_id);
        self.queue(reply_to.map(|reply_to| (reply_to, None, reply)), context);
    }

    /// A role that would report outcomes is down: answers every write with "unknown", and every read as failed if
    /// `reads_too` is set.
    pub fn fail_all(&self, unknown: WhyUnknown, reads_too: Option<WhyNotApplied>) {
        let mut table = self.lock();
        let writes = std::mem::take(&mut table.writes);
        let reads = if reads_too.is_some() { std::mem::take(&mut table.reads) } else { BTreeMap::new() };
        drop(table);
        let writes = writes.into_values().flatten().map(|one| one.with_reply(Reply::Unknown(unknown)));
        let failed = Reply::NotApplied(reads_too.unwrap_or(WhyNotApplied::Busy));
        let reads = reads.into_values().map(|reply_to| (reply_to, None, failed.clone()));
        self.queue(writes.chain(reads), &TraceContext::default());
    }

    /// Answers the requests whose deadline has passed.
    pub fn expire(&self, now: Time) {
        let mut table = self.lock();
        let mut late = Vec::new();
        for waiting in table.writes.values_mut() {
            let expired = waiting.extract_if(.., |one| one.reply_to.deadline <= now);
            late.extend(expired.map(|one| one.with_reply(Reply::Unknown(WhyUnknown::TimedOut))));
        }
        table.writes.retain(|_, waiting| !waiting.is_empty());
        let reads = take_late(&mut table.reads, now);
        late.extend(reads.into_iter().map(|reply_to| (reply_to, None, Reply::NotApplied(WhyNotApplied::Busy))));
        let parts = take_late(&mut table.parts, now);
        late.extend(parts.into_iter().map(|reply_to| (reply_to, None, Reply::Chunk(None))));
        drop(table);
        self.queue(late, &TraceContext::default());
    }

    /// Answers a request at once.
    pub fn queue_reply(&self, reply_to: ReplyHandle<C>, reply: Reply, cause: TraceContext) {
        self.queue([(reply_to, None, reply)], &cause);
    }

    fn queue(&self, replies: impl IntoIterator<Item = AddressedReply<C>>, cause: &TraceContext) {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.extend(replies.into_iter().map(|(reply_to, command, reply)| QueuedReply {
            reply_to,
            command,
            reply,
            cause: cause.clone(),
        }));
    }

    /// Takes the replies that have not been sent yet.
    pub fn take_queued(&self) -> Vec<QueuedReply<C>> {
        std::mem::take(&mut *self.queued.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes all pending requests, when the process has ended.
    pub fn take_all(&self) -> Vec<ReplyHandle<C>> {
        let mut table = self.lock();
        let writes = std::mem::take(&mut table.writes).into_values().flatten().map(|pending| pending.reply_to);
        let reads = std::mem::take(&mut table.reads).into_values();
        let parts = std::mem::take(&mut table.parts).into_values();
        writes.chain(reads).chain(parts).collect()
    }

    fn lock(&self) -> MutexGuard<'_, PendingTable<C>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the requests whose deadline has passed.
fn take_late<C: ClientConnection>(waiting: &mut BTreeMap<RequestId, ReplyHandle<C>>, now: Time) -> Vec<ReplyHandle<C>> {
    let late: Vec<RequestId> =
        waiting.iter().filter(|(_, one)| one.deadline <= now).map(|(request_id, _)| *request_id).collect();
    late.iter().filter_map(|request_id| waiting.remove(request_id)).collect()
}

/// A reply, where it goes, and the command that waited for it.
type AddressedReply<C> = (ReplyHandle<C>, Option<CommandId>, Reply);

impl<C: ClientConnection> PendingRequest<C> {
    fn with_reply(self, reply: Reply) -> AddressedReply<C> {
        (self.reply_to, Some(self.command), reply)
    }
}

impl<C: ClientConnection> PendingTable<C> {
    fn next_id(&mut self) -> RequestId {
        self.last += 1;
        self.last
    }

    fn take_write(&mut self, id: CommandId) -> Option<Vec<PendingRequest<C>>> {
        if !self.writes.contains_key(&id) {
            return None;
        }
        let longest = self.writes.first_key_value().map_or(id, |(longest, _)| *longest);
        self.writes.remove(&rules::concerns(id, longest))
    }
}

/// The reply to a client about the outcome of its command. `has_seen_all`: whether this server's learner has itself
/// applied every slot since the request arrived.
fn reply_to(outcome: ApplyResult, accepted_by: ServerSet, has_seen_all: bool) -> Reply {
    let is_certain = rules::is_certain(has_seen_all);
    match outcome {
        ApplyResult::Opened { session, history } => Reply::Opened { session, history },
        ApplyResult::Applied(saved) => Reply::Applied { slot: saved.slot, written: saved.written, accepted_by },
        ApplyResult::Duplicate(saved) => {
            // These votes chose the slot of the copy. The first copy's slot was chosen earlier.
            Reply::Applied { slot: saved.slot, written: saved.written, accepted_by: ServerSet::NONE }
        }
        ApplyResult::Superseded if is_certain => Reply::NotApplied(WhyNotApplied::Superseded),
        ApplyResult::Expired if is_certain => Reply::NotApplied(WhyNotApplied::Expired),
        ApplyResult::Superseded => Reply::Unknown(WhyUnknown::Superseded),
        ApplyResult::Expired => Reply::Unknown(WhyUnknown::Expired),
        ApplyResult::Noop | ApplyResult::Unreadable => Reply::Refused("the log contains no such command".to_string()),
    }
}

#[cfg(test)]
#[path = "pending_tests.rs"]
mod tests;
