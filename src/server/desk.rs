//! The front desk's list of who waits for what.
//!
//! A waiter is registered before its command is handed to the proposer, and found by the command's id when any learner of
//! this server applies it, whoever proposed it. A waiter is told exactly once.
//!
//! "Not applied" may reach two tries of one command that wait side by side, though the proposer has not even taken the
//! second one yet. That misleads nobody: a client sends a second try only after it has counted the first as unknown.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::kv::Outcome;
use crate::net::{Reply, Unknown, WhyNotApplied};
use crate::paxos::CommandId;
use crate::trace::Context;

/// A reply and the line that it comes from.
pub type Told = (Reply, Context);

/// Who waits.
#[derive(Default)]
pub struct Desk {
    waiters: Mutex<Waiters>,
    next: AtomicU64,
}

#[derive(Default)]
struct Waiters {
    /// By command: a retry may wait beside the first try.
    writes: BTreeMap<CommandId, Vec<(u64, Sender<Told>)>>,
    reads: BTreeMap<u64, Sender<Told>>,
}

/// A place at the desk; given up when dropped.
pub struct Ticket<'a> {
    desk: &'a Desk,
    id: Option<CommandId>,
    /// Names the waiter; a read's token.
    pub token: u64,
    /// Brings the reply.
    pub told: Receiver<Told>,
}

impl Desk {
    /// Waits for the outcome of a command.
    pub fn await_write(&self, id: CommandId) -> Ticket<'_> {
        let (ticket, sender) = self.ticket(Some(id));
        self.lock().writes.entry(id).or_default().push((ticket.token, sender));
        ticket
    }

    /// Waits for the answer of a read.
    pub fn await_read(&self) -> Ticket<'_> {
        let (ticket, sender) = self.ticket(None);
        self.lock().reads.insert(ticket.token, sender);
        ticket
    }

    fn ticket(&self, id: Option<CommandId>) -> (Ticket<'_>, Sender<Told>) {
        let (sender, told) = bounded(1);
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        (Ticket { desk: self, id, token, told }, sender)
    }

    /// A command was applied.
    pub fn applied(&self, id: CommandId, outcome: Outcome, context: &Context) {
        self.tell_write(id, &reply_to(outcome), context);
    }

    /// A command is certainly not applied by this try.
    pub fn not_applied(&self, id: CommandId, why: WhyNotApplied, context: &Context) {
        self.tell_write(id, &Reply::NotApplied(why), context);
    }

    /// The commands that somebody waits for.
    pub fn waiting(&self) -> Vec<CommandId> {
        self.lock().writes.keys().copied().collect()
    }

    fn tell_write(&self, id: CommandId, reply: &Reply, context: &Context) {
        let waiters = self.lock().writes.remove(&id);
        for (_, sender) in waiters.into_iter().flatten() {
            // Room for one and told once; a waiter that has left does not mind.
            let _ = sender.try_send((reply.clone(), context.clone()));
        }
    }

    /// A read is answered, or has failed.
    pub fn tell_read(&self, token: u64, reply: Reply, context: &Context) {
        if let Some(sender) = self.lock().reads.remove(&token) {
            let _ = sender.try_send((reply, context.clone()));
        }
    }

    /// A role has died that would have said the outcomes: whoever waits for a write is told that it will not hear one
    /// from here, and whoever waits for a read that it has failed.
    pub fn role_died(&self, unknown: Unknown, reads_too: Option<WhyNotApplied>) {
        let mut waiters = self.lock();
        let writes = std::mem::take(&mut waiters.writes);
        let reads = if reads_too.is_some() { std::mem::take(&mut waiters.reads) } else { BTreeMap::new() };
        drop(waiters);
        for (_, sender) in writes.into_values().flatten() {
            let _ = sender.try_send((Reply::Unknown(unknown), Context::default()));
        }
        for (sender, why) in reads.into_values().zip(std::iter::repeat(reads_too)) {
            let _ = sender.try_send((Reply::NotApplied(why.unwrap_or(WhyNotApplied::Busy)), Context::default()));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client is told of the outcome of its command.
pub fn reply_to(outcome: Outcome) -> Reply {
    match outcome {
        Outcome::Opened { session } => Reply::Opened { session },
        Outcome::Applied(saved) | Outcome::Duplicate(saved) => {
            Reply::Applied { slot: saved.slot, written: saved.written }
        }
        Outcome::Superseded => Reply::Unknown(Unknown::Superseded),
        Outcome::Expired => Reply::Unknown(Unknown::Expired),
        Outcome::Noop | Outcome::Unreadable => Reply::Refused("the log holds no such command".to_string()),
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut waiters = self.desk.lock();
        match self.id {
            None => {
                waiters.reads.remove(&self.token);
            }
            Some(id) => {
                if let Some(tickets) = waiters.writes.get_mut(&id) {
                    tickets.retain(|(token, _)| *token != self.token);
                    if tickets.is_empty() {
                        waiters.writes.remove(&id);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Saved, Written};
    use crate::paxos::{RoleName, Slot};

    const ID: CommandId = CommandId(3, 1);
    const DIED: Unknown = Unknown::RoleDied(RoleName::Learner);
    const DOWN: WhyNotApplied = WhyNotApplied::RoleDown(RoleName::Learner);

    fn applied(slot: u64) -> Outcome {
        Outcome::Applied(Saved { slot: Slot(slot), written: Written::Done { version: 1 } })
    }

    fn context(n: u32) -> Context {
        Context { re: None, req: Some(format!("c1-{n}")) }
    }

    /// What a waiter has been told; nothing more may come.
    fn told(ticket: &Ticket<'_>) -> Option<Told> {
        let told = ticket.told.try_recv().ok();
        assert!(ticket.told.is_empty(), "told twice");
        told
    }

    fn is_empty(desk: &Desk) -> bool {
        let waiters = desk.lock();
        waiters.writes.is_empty() && waiters.reads.is_empty()
    }

    #[test]
    fn each_waiter_of_a_command_is_told_once_and_no_other() {
        let desk = Desk::default();
        let (first, retry, other) = (desk.await_write(ID), desk.await_write(ID), desk.await_write(CommandId(3, 2)));
        desk.applied(ID, applied(7), &context(1));
        desk.applied(ID, applied(8), &context(2));
        desk.not_applied(ID, WhyNotApplied::Busy, &context(3));
        desk.role_died(DIED, Some(DOWN));
        let written = Reply::Applied { slot: Slot(7), written: Written::Done { version: 1 } };
        for ticket in [&first, &retry] {
            assert_eq!(told(ticket), Some((written.clone(), context(1))));
        }
        assert_eq!(told(&other), Some((Reply::Unknown(DIED), Context::default())));
    }

    #[test]
    fn outcomes_are_said_as_they_are() {
        let desk = Desk::default();
        let saved = Saved { slot: Slot(4), written: Written::NotFound { version: 2 } };
        let cases = [
            (Outcome::Opened { session: 9 }, Reply::Opened { session: 9 }),
            (Outcome::Duplicate(saved), Reply::Applied { slot: Slot(4), written: saved.written }),
            (Outcome::Superseded, Reply::Unknown(Unknown::Superseded)),
            (Outcome::Expired, Reply::Unknown(Unknown::Expired)),
        ];
        for (outcome, reply) in cases {
            let ticket = desk.await_write(ID);
            desk.applied(ID, outcome, &context(1));
            assert_eq!(told(&ticket), Some((reply, context(1))));
        }
        let ticket = desk.await_write(ID);
        desk.not_applied(ID, DOWN, &context(2));
        assert_eq!(told(&ticket), Some((Reply::NotApplied(DOWN), context(2))));
    }

    #[test]
    fn a_read_is_told_by_its_token() {
        let desk = Desk::default();
        let (one, other) = (desk.await_read(), desk.await_read());
        let reply = Reply::Value { slot: Slot(1), value: None, version: 0 };
        desk.tell_read(one.token, reply.clone(), &context(1));
        desk.tell_read(one.token, Reply::Done, &context(2));
        assert_eq!(told(&one), Some((reply, context(1))));
        assert_eq!(told(&other), None);
    }

    #[test]
    fn a_dead_proposer_ends_writes_and_a_dead_learner_reads_too() {
        let desk = Desk::default();
        let (write, read) = (desk.await_write(ID), desk.await_read());
        desk.role_died(Unknown::RoleDied(RoleName::Proposer), None);
        assert_eq!(told(&write).unwrap().0, Reply::Unknown(Unknown::RoleDied(RoleName::Proposer)));
        assert_eq!(told(&read), None, "a read needs no proposer");
        let write = desk.await_write(ID);
        desk.role_died(DIED, Some(DOWN));
        assert_eq!(told(&write).unwrap().0, Reply::Unknown(DIED));
        assert_eq!(told(&read).unwrap().0, Reply::NotApplied(DOWN));
        assert!(is_empty(&desk));
    }

    #[test]
    fn who_leaves_is_forgotten_and_who_stays_is_not() {
        let desk = Desk::default();
        let (first, retry, read) = (desk.await_write(ID), desk.await_write(ID), desk.await_read());
        drop(first);
        drop(read);
        desk.applied(ID, applied(7), &context(1));
        assert!(told(&retry).is_some());
        drop(retry);
        assert!(is_empty(&desk));
        drop(desk.await_write(ID));
        assert!(is_empty(&desk), "an entry of nobody is no entry");
    }
}
