//! Who waits at a simulated front desk, by the rules of the real one.

use std::collections::BTreeMap;

use crate::museum::{self, Bug};
use crate::net::{Reply, Unknown, WhyNotApplied};
use crate::paxos::{CommandId, RoleName};
use crate::server::desk::key;
use crate::trace::Context;

/// One who waits.
#[derive(Clone, Debug)]
pub struct Waiter {
    /// Names the waiter; a read's token.
    pub token: u64,
    /// Which client.
    pub client: usize,
    /// The number of its request.
    pub number: u64,
    /// The line of the request.
    pub context: Context,
    /// When the request came.
    pub since: u64,
    /// The command, if it is a write.
    pub write: Option<CommandId>,
    /// The learner has applied every slot since, itself.
    pub has_seen_all: bool,
}

/// What a waiter is told, and the line that it comes from.
pub type Told = (Waiter, Reply, Context);

/// Everybody who waits.
#[derive(Debug, Default)]
pub struct Desk {
    writes: BTreeMap<CommandId, Vec<Waiter>>,
    reads: BTreeMap<u64, Waiter>,
}

impl Desk {
    /// Somebody waits.
    pub fn wait(&mut self, waiter: Waiter) {
        match waiter.write {
            Some(id) => self.writes.entry(key(id)).or_default().push(waiter),
            None => {
                self.reads.insert(waiter.token, waiter);
            }
        }
    }

    /// The commands that somebody waits for.
    pub fn waiting(&self) -> Vec<CommandId> {
        self.writes.keys().copied().collect()
    }

    /// The learner has taken a state from another server.
    pub fn snapshot_installed(&mut self) {
        self.writes.values_mut().flatten().for_each(|waiter| waiter.has_seen_all = false);
    }

    /// Whoever waits for a command is told what it came to; `reply` hears whether the learner has seen all since.
    pub fn tell_write(&mut self, id: CommandId, reply: impl Fn(bool) -> Reply, context: &Context) -> Vec<Told> {
        let id = key(id);
        let waiters = if museum::is(Bug::B23) && self.writes.contains_key(&id) {
            self.writes.pop_first().map(|(_, waiters)| waiters)
        } else {
            self.writes.remove(&id)
        };
        let waiters = waiters.unwrap_or_default();
        waiters
            .into_iter()
            .map(|waiter| {
                let reply = reply(waiter.has_seen_all);
                (waiter, reply, context.clone())
            })
            .collect()
    }

    /// Whoever waits for a read is told.
    pub fn tell_read(&mut self, token: u64, reply: Reply, context: Context) -> Option<Told> {
        self.reads.remove(&token).map(|waiter| (waiter, reply, context))
    }

    /// A role has died that would have said the outcomes.
    pub fn role_died(&mut self, unknown: Unknown, reads_too: Option<WhyNotApplied>) -> Vec<Told> {
        let writes = std::mem::take(&mut self.writes).into_values().flatten();
        let mut told: Vec<Told> = writes.map(|one| (one, Reply::Unknown(unknown), Context::default())).collect();
        if let Some(why) = reads_too {
            let reads = std::mem::take(&mut self.reads).into_values();
            told.extend(reads.map(|one| (one, Reply::NotApplied(why), Context::default())));
        }
        told
    }

    /// The role has died that would have answered the reads.
    pub fn reads_died(&mut self, role: RoleName) -> Vec<Told> {
        let why = WhyNotApplied::RoleDown(role);
        let reads = std::mem::take(&mut self.reads).into_values();
        reads.map(|one| (one, Reply::NotApplied(why), Context::default())).collect()
    }

    /// One has waited long enough: what it is told, if it still waits.
    pub fn give_up(&mut self, token: u64) -> Option<Told> {
        if let Some(waiter) = self.reads.remove(&token) {
            return Some((waiter, Reply::NotApplied(WhyNotApplied::Busy), Context::default()));
        }
        let id = self.writes.iter().find(|(_, all)| all.iter().any(|one| one.token == token)).map(|(id, _)| *id)?;
        let waiters = self.writes.get_mut(&id)?;
        let at = waiters.iter().position(|one| one.token == token)?;
        let waiter = waiters.remove(at);
        if waiters.is_empty() {
            self.writes.remove(&id);
        }
        Some((waiter, Reply::Unknown(Unknown::TimedOut), Context::default()))
    }

    /// Everybody, when the process is gone.
    pub fn all(&mut self) -> Vec<Waiter> {
        let writes = std::mem::take(&mut self.writes).into_values().flatten();
        writes.chain(std::mem::take(&mut self.reads).into_values()).collect()
    }
}
