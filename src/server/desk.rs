//! The front desk's list of who waits for what.
//!
//! A waiter is registered before its command is handed to the proposer, and found by the command's id when any learner of
//! this server applies it, whoever proposed it. A waiter is told exactly once. What it is told is kept here until the end
//! of the group that it belongs to, so that the replies of a group leave together: see [`replies`](super::replies).
//!
//! That a session has expired, or no longer asks for a write, is certain news of a try if this server's learner has applied,
//! itself, every slot since the try came: each copy that was made of the try stands in one of these or behind them, and the
//! first of them was seen to change nothing. After a snapshot nobody knows: the state that came may have applied one.
//!
//! "Not applied" may reach two tries of one command that wait side by side, though the proposer has not even taken the
//! second one yet. That misleads nobody: a client sends a second try only after it has counted the first as unknown.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::outlet::{Asker, Load};
use super::throttle::Throttle;
use crate::kv::Outcome;
use crate::museum::{self, Bug};
use crate::net::{Reply, Unknown, WhyNotApplied};
use crate::paxos::CommandId;
use crate::trace::Context;

/// A request without an outcome is answered "unknown" after so long: its client has gone on to the next server.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// A reply that has not been sent yet.
#[derive(Debug)]
pub struct Told {
    /// Who asked.
    pub asker: Asker,
    /// What it is told.
    pub reply: Reply,
    /// The line that the reply comes from.
    pub cause: Context,
}

/// Who waits, and who has been told.
#[derive(Default)]
pub struct Desk {
    waiters: Mutex<Waiters>,
    told: Mutex<Vec<Told>>,
    /// What all connections together have under way.
    pub load: Arc<Load>,
    /// Sessions that all clients together may open.
    pub opens: Opens,
}

/// How many sessions may be opened at a server. Each goes through the log, and the table of them is bounded.
pub struct Opens(Throttle);

/// In a second, by all clients together.
const OPENS_PER_SECOND: u32 = 1_000;

impl Default for Opens {
    fn default() -> Opens {
        Opens(Throttle::new(OPENS_PER_SECOND))
    }
}

impl Opens {
    /// Whether another may be opened now.
    pub fn lets_through(&self) -> bool {
        self.0.lets_through()
    }
}

#[derive(Default)]
struct Waiters {
    /// By command: a retry may wait beside the first try.
    writes: BTreeMap<CommandId, Vec<Waiter>>,
    reads: BTreeMap<Ticket, Asker>,
    last: Ticket,
}

struct Waiter {
    ticket: Ticket,
    asker: Asker,
    /// The learner has applied every slot since, itself.
    has_seen_all: bool,
}

/// Names a waiter; a read's token.
pub type Ticket = u64;

impl Desk {
    /// Waits for the outcome of a command.
    pub fn await_write(&self, id: CommandId, asker: Asker) -> Ticket {
        let mut waiters = self.lock();
        let ticket = waiters.draw();
        waiters.writes.entry(key(id)).or_default().push(Waiter { ticket, asker, has_seen_all: true });
        ticket
    }

    /// Waits for the answer of a read.
    pub fn await_read(&self, asker: Asker) -> Ticket {
        let mut waiters = self.lock();
        let ticket = waiters.draw();
        waiters.reads.insert(ticket, asker);
        ticket
    }

    /// A write that was not handed over after all. Nothing happens if it has been told something already.
    pub fn refuse_write(&self, id: CommandId, ticket: Ticket, why: WhyNotApplied) {
        let mut waiters = self.lock();
        let Some(waiting) = waiters.writes.get_mut(&key(id)) else { return };
        let Some(at) = waiting.iter().position(|one| one.ticket == ticket) else { return };
        let asker = waiting.remove(at).asker;
        if waiting.is_empty() {
            waiters.writes.remove(&key(id));
        }
        drop(waiters);
        self.tell(asker, Reply::NotApplied(why), Context::default());
    }

    /// A command was applied.
    pub fn applied(&self, id: CommandId, outcome: Outcome, context: &Context) {
        self.tell_write(id, |has_seen_all| reply_to(outcome, has_seen_all), context);
    }

    /// The learner has taken a state from another server: what that state has applied, nobody here has seen.
    pub fn snapshot_installed(&self) {
        self.lock().writes.values_mut().flatten().for_each(|waiter| waiter.has_seen_all = false);
    }

    /// Whoever would have answered the reads has died.
    pub fn reads_died(&self, why: WhyNotApplied) {
        let reads = std::mem::take(&mut self.lock().reads);
        self.tell_all(reads.into_values().map(|asker| (asker, Reply::NotApplied(why))), &Context::default());
    }

    /// A command is certainly not applied by this try.
    pub fn not_applied(&self, id: CommandId, why: WhyNotApplied, context: &Context) {
        self.tell_write(id, |_| Reply::NotApplied(why), context);
    }

    /// The commands that somebody waits for.
    pub fn waiting(&self) -> Vec<CommandId> {
        self.lock().writes.keys().copied().collect()
    }

    fn tell_write(&self, id: CommandId, reply: impl Fn(bool) -> Reply, context: &Context) {
        let Some(waiting) = self.lock().writes.remove(&key(id)) else { return };
        self.tell_all(waiting.into_iter().map(|one| (one.asker, reply(one.has_seen_all))), context);
    }

    /// A read is answered, or has failed.
    pub fn tell_read(&self, ticket: Ticket, reply: Reply, context: &Context) {
        let asker = self.lock().reads.remove(&ticket);
        self.tell_all(asker.map(|asker| (asker, reply)), context);
    }

    /// A role has died that would have said the outcomes: whoever waits for a write is told that it will not hear one
    /// from here, and whoever waits for a read that it has failed.
    pub fn role_died(&self, unknown: Unknown, reads_too: Option<WhyNotApplied>) {
        let mut waiters = self.lock();
        let writes = std::mem::take(&mut waiters.writes);
        let reads = if reads_too.is_some() { std::mem::take(&mut waiters.reads) } else { BTreeMap::new() };
        drop(waiters);
        let writes = writes.into_values().flatten().map(|one| (one.asker, Reply::Unknown(unknown)));
        let failed = Reply::NotApplied(reads_too.unwrap_or(WhyNotApplied::Busy));
        let reads = reads.into_values().map(|asker| (asker, failed.clone()));
        self.tell_all(writes.chain(reads), &Context::default());
    }

    /// Whoever has waited for too long is told that nothing was heard in time.
    pub fn give_up_old(&self, now: Instant) {
        let is_old = |asker: &Asker| now.saturating_duration_since(asker.begun) >= PATIENCE;
        let mut waiters = self.lock();
        let mut old = Vec::new();
        for waiting in waiters.writes.values_mut() {
            let late = waiting.extract_if(.., |one| is_old(&one.asker));
            old.extend(late.map(|one| (one.asker, Reply::Unknown(Unknown::TimedOut))));
        }
        waiters.writes.retain(|_, waiting| !waiting.is_empty());
        let late: Vec<Ticket> = waiters.reads.iter().filter(|(_, read)| is_old(read)).map(|(one, _)| *one).collect();
        let late = late.iter().filter_map(|ticket| waiters.reads.remove(ticket));
        old.extend(late.map(|asker| (asker, Reply::NotApplied(WhyNotApplied::Busy))));
        drop(waiters);
        self.tell_all(old, &Context::default());
    }

    /// What a request comes to that nobody need wait for.
    pub fn tell(&self, asker: Asker, reply: Reply, cause: Context) {
        self.tell_all([(asker, reply)], &cause);
    }

    fn tell_all(&self, replies: impl IntoIterator<Item = (Asker, Reply)>, cause: &Context) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.extend(replies.into_iter().map(|(asker, reply)| Told { asker, reply, cause: cause.clone() }));
    }

    /// What has been told and not sent yet.
    pub fn take_told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiters {
    fn draw(&mut self) -> Ticket {
        self.last += 1;
        self.last
    }
}

/// What waiters wait for: the whole name of the command, so that nobody hears what came of another's.
pub fn key(id: CommandId) -> CommandId {
    if museum::is(Bug::WaitersWithoutNonce) { CommandId { nonce: 0, ..id } } else { id }
}

/// What a client is told of the outcome of its command. `has_seen_all`: whether this server's learner has applied, itself,
/// every slot since the client asked.
pub fn reply_to(outcome: Outcome, has_seen_all: bool) -> Reply {
    let is_certain = has_seen_all || museum::is(Bug::ExpiredIsAlwaysCertain);
    match outcome {
        Outcome::Opened { session, history } => Reply::Opened { session, history },
        Outcome::Applied(saved) | Outcome::Duplicate(saved) => {
            Reply::Applied { slot: saved.slot, written: saved.written }
        }
        Outcome::Superseded if is_certain => Reply::NotApplied(WhyNotApplied::Superseded),
        Outcome::Expired if is_certain => Reply::NotApplied(WhyNotApplied::Expired),
        Outcome::Superseded => Reply::Unknown(Unknown::Superseded),
        Outcome::Expired => Reply::Unknown(Unknown::Expired),
        Outcome::Noop | Outcome::Unreadable => Reply::Refused("the log holds no such command".to_string()),
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
