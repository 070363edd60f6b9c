//! The mailbox of a role: its [`MailQueue`], which any thread may put something into.
//!
//! A mailbox outlives the lives of its role. While the role is down, everything that is put in is refused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::mail_queue::{Capacity, MailQueue, MailboxItem, MustWake, QueueLimits, SendError};
use crate::role::Role;

/// The mailbox of a role.
#[derive(Debug)]
pub struct Mailbox<R: Role> {
    queue: Mutex<MailQueue<R>>,
    /// As the queue says, for those who only ask.
    is_open: AtomicBool,
    limits: QueueLimits,
}

impl<R: Role> Mailbox<R> {
    /// The mailbox of a role that is down. While it lives it has room for so much.
    pub fn closed(limits: QueueLimits) -> Mailbox<R> {
        let mut queue = MailQueue::new(limits);
        queue.is_closed = true;
        Mailbox { queue: Mutex::new(queue), is_open: AtomicBool::new(false), limits }
    }

    /// A life begins, with an empty mailbox.
    pub fn open(&self) {
        let mut queue = self.lock();
        *queue = MailQueue::new(self.limits);
        self.is_open.store(true, Ordering::Release);
    }

    /// The life is over: from now on everything is lost. What is in it is left for whoever tells of it.
    pub fn close(&self) {
        let mut queue = self.lock();
        queue.is_closed = true;
        self.is_open.store(false, Ordering::Release);
    }

    /// Whether the role lives.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Puts an item behind the others; says whether the role must be woken. `can_wait` is asked under the lock under
    /// which the role falls asleep: what the role has made known before that is heard here.
    pub fn put(
        &self,
        item: MailboxItem<R>,
        room: Capacity,
        can_wait: impl FnOnce(usize) -> bool,
    ) -> Result<MustWake, SendError> {
        self.lock().put(item, room, can_wait)
    }

    /// Takes what is there, in order: until it is so many items, or so many bytes and what reaches them, or an order,
    /// which is the last that is taken. False if nothing is there and nothing will ever come.
    pub fn take(&self, most: usize, most_bytes: usize, into: &mut Vec<MailboxItem<R>>) -> bool {
        let mut queue = self.lock();
        let is_alone = queue.is_closed && queue.is_empty();
        queue.take(most, most_bytes, into);
        !is_alone
    }

    /// Takes the first item, if there is one.
    pub fn take_one(&self) -> Option<MailboxItem<R>> {
        self.lock().take_one()
    }

    /// The queue itself, for whoever lets the role sleep.
    pub fn lock(&self) -> MutexGuard<'_, MailQueue<R>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "mailbox_tests.rs"]
mod tests;
