//! The mailbox of a role: a [`MailQueue`] into which any thread may put items.
//!
//! A mailbox survives the crashes of its role. While the role is down, the mailbox refuses every item.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::mail_queue::{Capacity, MailQueue, MailboxItem, MustWake, QueueLimits, SendError};
use crate::role::Role;

/// The mailbox of a role.
#[derive(Debug)]
pub struct Mailbox<R: Role> {
    queue: Mutex<MailQueue<R>>,
    /// A copy of the queue's state, to be read without its lock.
    is_open: AtomicBool,
    limits: QueueLimits,
}

impl<R: Role> Mailbox<R> {
    /// The mailbox of a role that is down. While the role is up, the mailbox has room for `limits`.
    pub fn closed(limits: QueueLimits) -> Mailbox<R> {
        let mut queue = MailQueue::new(limits);
        queue.is_closed = true;
        Mailbox { queue: Mutex::new(queue), is_open: AtomicBool::new(false), limits }
    }

    /// An incarnation begins, with an empty mailbox.
    pub fn open(&self) {
        let mut queue = self.lock();
        *queue = MailQueue::new(self.limits);
        self.is_open.store(true, Ordering::Release);
    }

    /// The incarnation has ended: the mailbox refuses every new item. Its queued items stay, so that their loss can be
    /// traced.
    pub fn close(&self) {
        let mut queue = self.lock();
        queue.is_closed = true;
        self.is_open.store(false, Ordering::Release);
    }

    /// Whether the role is up.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Puts an item behind the others; returns whether the role must be woken. `can_wait` is called under the lock
    /// under which the role falls asleep, so it sees everything that the role published before.
    pub fn put(
        &self,
        item: MailboxItem<R>,
        room: Capacity,
        can_wait: impl FnOnce(usize) -> bool,
    ) -> Result<MustWake, SendError> {
        self.lock().put(item, room, can_wait)
    }

    /// Takes queued items in order: at most `most` items, and no more once they have `most_bytes` bytes. A control item
    /// is the last one taken. False if the queue is empty and closed.
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

    /// The queue itself, for the thread that lets the role sleep.
    pub fn lock(&self) -> MutexGuard<'_, MailQueue<R>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "mailbox_tests.rs"]
mod tests;
