//! Who waits for what.
//!
//! A waiter is registered before its command is handed to the proposer, and found by the command's id when any learner
//! of this server applies it, from whichever proposer. A waiter is told exactly once. What it is told is kept here
//! until the end of the group that it belongs to, so that the replies of a group leave together.
//!
//! That a session has expired, or no longer asks for a write, is certain news of a try if this server's learner has
//! applied, itself, every slot since the try came: each copy that was made of the try stands in one of these or behind
//! them, and the first of them was seen to change nothing. After a snapshot that is unknown: the state that came may
//! have applied one.
//!
//! "Not applied" may reach two tries of one command that wait side by side, though the proposer has not even taken the
//! second one yet. That misleads no client: it sends a second try only after it has counted the first as unknown.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::limits::{self, ClientConnection};
use super::rules;
use super::time::Time;
use crate::kv::ApplyResult;
use crate::net::{Reply, WhyNotApplied, WhyUnknown};
use crate::paxos::CommandId;
use crate::trace::TraceContext;

/// A request without an outcome is answered "unknown" after this time: its client has gone on to the next server.
pub const OUTCOME_TIMEOUT: Duration = Duration::from_secs(2);

/// A request, and where its reply goes. It gives back what it takes of the limits when it is dropped.
#[derive(Debug)]
pub struct ReplyHandle<C: ClientConnection> {
    /// The client's connection.
    pub connection: C,
    /// The number of the request.
    pub number: u64,
    /// The request's line and label.
    pub context: TraceContext,
    /// When it came.
    pub since: Time,
    /// When it is told that nothing was heard in time.
    pub deadline: Time,
    /// The bytes that it takes of the limits; None if it is answered at once and takes none.
    admitted: Option<usize>,
}

impl<C: ClientConnection> ReplyHandle<C> {
    /// A request that has just come.
    pub fn new(connection: C, number: u64, context: TraceContext, since: Time) -> ReplyHandle<C> {
        ReplyHandle { connection, number, context, since, deadline: since + OUTCOME_TIMEOUT, admitted: None }
    }

    /// The same, which waits for no longer than this.
    pub fn until(mut self, patience: Duration) -> ReplyHandle<C> {
        self.deadline = self.since + patience;
        self
    }

    /// Counts the request among those under way; false if there are too many, or they are too large.
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
    /// Who asked.
    pub reply_to: ReplyHandle<C>,
    /// The command that it waited for, if it was one.
    pub command: Option<CommandId>,
    /// What it is told.
    pub reply: Reply,
    /// The line that the reply comes from.
    pub cause: TraceContext,
}

/// Who waits, and what has been said to those who did.
#[derive(Debug)]
pub struct PendingRequests<C: ClientConnection> {
    waiters: Mutex<PendingTable<C>>,
    queued: Mutex<Vec<QueuedReply<C>>>,
}

#[derive(Debug)]
struct PendingTable<C: ClientConnection> {
    /// By command: a retry may wait beside the first try.
    writes: BTreeMap<CommandId, Vec<PendingRequest<C>>>,
    reads: BTreeMap<RequestId, ReplyHandle<C>>,
    /// Who waits for a part of the state: no role has it.
    parts: BTreeMap<RequestId, ReplyHandle<C>>,
    last: RequestId,
}

#[derive(Debug)]
struct PendingRequest<C: ClientConnection> {
    request_id: RequestId,
    reply_to: ReplyHandle<C>,
    /// The command as it was sent.
    command: CommandId,
    /// The learner has applied every slot since, itself.
    has_seen_all: bool,
}

/// Names a waiter; a read's token.
pub type RequestId = u64;

impl<C: ClientConnection> Default for PendingRequests<C> {
    fn default() -> PendingRequests<C> {
        let waiters = PendingTable { writes: BTreeMap::new(), reads: BTreeMap::new(), parts: BTreeMap::new(), last: 0 };
        PendingRequests { waiters: Mutex::new(waiters), queued: Mutex::default() }
    }
}

impl<C: ClientConnection> PendingRequests<C> {
    /// Waits for the outcome of a command.
    pub fn register_write(&self, id: CommandId, reply_to: ReplyHandle<C>) -> RequestId {
        let mut waiters = self.lock();
        let request_id = waiters.next_id();
        let waiter = PendingRequest { request_id, reply_to, command: id, has_seen_all: true };
        waiters.writes.entry(rules::waits_for(id)).or_default().push(waiter);
        request_id
    }

    /// Waits for the answer of a read.
    pub fn register_read(&self, reply_to: ReplyHandle<C>) -> RequestId {
        let mut waiters = self.lock();
        let request_id = waiters.next_id();
        waiters.reads.insert(request_id, reply_to);
        request_id
    }

    /// Waits for a part of the state.
    pub fn await_part(&self, reply_to: ReplyHandle<C>) -> RequestId {
        let mut waiters = self.lock();
        let request_id = waiters.next_id();
        waiters.parts.insert(request_id, reply_to);
        request_id
    }

    /// A part of the state is there, or is not.
    pub fn tell_part(&self, request_id: RequestId, reply: Reply) {
        let reply_to = self.lock().parts.remove(&request_id);
        self.queue(reply_to.map(|reply_to| (reply_to, None, reply)), &TraceContext::default());
    }

    /// A write that was not handed over after all. Nothing happens if it has been told something already.
    pub fn cancel_write(&self, id: CommandId, request_id: RequestId, why: WhyNotApplied) {
        let mut waiters = self.lock();
        let Some(waiting) = waiters.writes.get_mut(&rules::waits_for(id)) else { return };
        let Some(at) = waiting.iter().position(|one| one.request_id == request_id) else { return };
        let waiter = waiting.remove(at);
        if waiting.is_empty() {
            waiters.writes.remove(&rules::waits_for(id));
        }
        drop(waiters);
        self.queue([waiter.told(Reply::NotApplied(why))], &TraceContext::default());
    }

    /// A command was applied.
    pub fn applied(&self, id: CommandId, outcome: ApplyResult, context: &TraceContext) {
        self.tell_write(id, |has_seen_all| reply_to(outcome, has_seen_all), context);
    }

    /// The learner has taken a state from another server: what that state has applied, this server has not seen.
    pub fn snapshot_installed(&self) {
        self.lock().writes.values_mut().flatten().for_each(|waiter| waiter.has_seen_all = false);
    }

    /// The role has died that would have answered the reads.
    pub fn fail_reads(&self, why: WhyNotApplied) {
        let reads = std::mem::take(&mut self.lock().reads);
        self.queue(
            reads.into_values().map(|reply_to| (reply_to, None, Reply::NotApplied(why))),
            &TraceContext::default(),
        );
    }

    /// A command is certainly not applied by this try.
    pub fn not_applied(&self, id: CommandId, why: WhyNotApplied, context: &TraceContext) {
        self.tell_write(id, |_| Reply::NotApplied(why), context);
    }

    fn tell_write(&self, id: CommandId, reply: impl Fn(bool) -> Reply, context: &TraceContext) {
        let Some(waiting) = self.lock().take_write(rules::waits_for(id)) else { return };
        self.queue(
            waiting.into_iter().map(|one| {
                let reply = reply(one.has_seen_all);
                one.told(reply)
            }),
            context,
        );
    }

    /// A read is answered, or has failed.
    pub fn tell_read(&self, request_id: RequestId, reply: Reply, context: &TraceContext) {
        let reply_to = self.lock().reads.remove(&request_id);
        self.queue(reply_to.map(|reply_to| (reply_to, None, reply)), context);
    }

    /// A role has died that would have said the outcomes: who waits for a write is told that no outcome will come from
    /// here, and who waits for a read that it has failed.
    pub fn fail_all(&self, unknown: WhyUnknown, reads_too: Option<WhyNotApplied>) {
        let mut waiters = self.lock();
        let writes = std::mem::take(&mut waiters.writes);
        let reads = if reads_too.is_some() { std::mem::take(&mut waiters.reads) } else { BTreeMap::new() };
        drop(waiters);
        let writes = writes.into_values().flatten().map(|one| one.told(Reply::Unknown(unknown)));
        let failed = Reply::NotApplied(reads_too.unwrap_or(WhyNotApplied::Busy));
        let reads = reads.into_values().map(|reply_to| (reply_to, None, failed.clone()));
        self.queue(writes.chain(reads), &TraceContext::default());
    }

    /// Those who have waited until their deadline are told that nothing was heard in time.
    pub fn expire(&self, now: Time) {
        let mut waiters = self.lock();
        let mut late = Vec::new();
        for waiting in waiters.writes.values_mut() {
            let expired = waiting.extract_if(.., |one| one.reply_to.deadline <= now);
            late.extend(expired.map(|one| one.told(Reply::Unknown(WhyUnknown::TimedOut))));
        }
        waiters.writes.retain(|_, waiting| !waiting.is_empty());
        let reads = take_late(&mut waiters.reads, now);
        late.extend(reads.into_iter().map(|reply_to| (reply_to, None, Reply::NotApplied(WhyNotApplied::Busy))));
        let parts = take_late(&mut waiters.parts, now);
        late.extend(parts.into_iter().map(|reply_to| (reply_to, None, Reply::Chunk(None))));
        drop(waiters);
        self.queue(late, &TraceContext::default());
    }

    /// A request is answered at once: nothing has to be waited for.
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

    /// The replies that have not been sent yet.
    pub fn take_queued(&self) -> Vec<QueuedReply<C>> {
        std::mem::take(&mut *self.queued.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everybody who waits, when the process is gone.
    pub fn take_all(&self) -> Vec<ReplyHandle<C>> {
        let mut waiters = self.lock();
        let writes = std::mem::take(&mut waiters.writes).into_values().flatten().map(|waiter| waiter.reply_to);
        let reads = std::mem::take(&mut waiters.reads).into_values();
        let parts = std::mem::take(&mut waiters.parts).into_values();
        writes.chain(reads).chain(parts).collect()
    }

    fn lock(&self) -> MutexGuard<'_, PendingTable<C>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes those who have waited until their deadline.
fn take_late<C: ClientConnection>(waiting: &mut BTreeMap<RequestId, ReplyHandle<C>>, now: Time) -> Vec<ReplyHandle<C>> {
    let late: Vec<RequestId> =
        waiting.iter().filter(|(_, one)| one.deadline <= now).map(|(request_id, _)| *request_id).collect();
    late.iter().filter_map(|request_id| waiting.remove(request_id)).collect()
}

/// Who is told what, and the command that it waited for.
type AddressedReply<C> = (ReplyHandle<C>, Option<CommandId>, Reply);

impl<C: ClientConnection> PendingRequest<C> {
    fn told(self, reply: Reply) -> AddressedReply<C> {
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

/// What a client is told of the outcome of its command. `has_seen_all`: whether this server's learner has applied,
/// itself, every slot since the client asked.
fn reply_to(outcome: ApplyResult, has_seen_all: bool) -> Reply {
    let is_certain = rules::is_certain(has_seen_all);
    match outcome {
        ApplyResult::Opened { session, history } => Reply::Opened { session, history },
        ApplyResult::Applied(saved) | ApplyResult::Duplicate(saved) => {
            Reply::Applied { slot: saved.slot, written: saved.written }
        }
        ApplyResult::Superseded if is_certain => Reply::NotApplied(WhyNotApplied::Superseded),
        ApplyResult::Expired if is_certain => Reply::NotApplied(WhyNotApplied::Expired),
        ApplyResult::Superseded => Reply::Unknown(WhyUnknown::Superseded),
        ApplyResult::Expired => Reply::Unknown(WhyUnknown::Expired),
        ApplyResult::Noop | ApplyResult::Unreadable => Reply::Refused("the log holds no such command".to_string()),
    }
}

#[cfg(test)]
#[path = "pending_tests.rs"]
mod tests;
