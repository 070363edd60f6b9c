//! The thread of one incarnation of a role: it sleeps at the role's mailbox, and runs the role's turns.

use std::fmt::Display;
use std::sync::{Arc, PoisonError};
use std::thread::yield_now;
use std::time::Instant;

use super::clock;
use super::context::Threads;
use super::reply_writer::ReplyWriter;
use crate::host::mailbox::Mailbox;
use crate::host::role_disk::RoleDisk;
use crate::host::{Hosted, RoleHost, RunEnd, ServerCore, TurnStart};
use crate::role::Role;

/// Runs a role until it stops or crashes, and then answers the requests that wait for it.
pub fn run<R, D>(mut host: RoleHost<R, D>, core: &ServerCore<Arc<ReplyWriter>>, threads: &Threads) -> RunEnd
where
    R: Hosted,
    D: RoleDisk<R::Record, Error: Display>,
{
    let mailbox = R::mailbox(core).clone();
    let ended = loop {
        wait(&mailbox, threads, R::NAME as usize, host.due().map(clock::instant));
        // If there are more threads than processors, threads about to enqueue an input go first: one batch costs less
        // than two.
        yield_now();
        match host.begin(core, threads) {
            TurnStart::Idle => {}
            TurnStart::Ended(ended) => break ended,
            TurnStart::Group(group) => match host.commit(group) {
                Ok(released) => host.release(core, threads, released),
                Err(ended) => break ended,
            },
        }
    };
    host.on_crash(core, threads, &ended);
    ended
}

/// Waits until the role must wake, or until the deadline. Returns at once if any item is queued.
fn wait<R: Role>(mailbox: &Mailbox<R>, threads: &Threads, role: usize, deadline: Option<Instant>) {
    let arrived = &threads.arrived[role];
    let mut queue = mailbox.lock();
    if !queue.is_empty() || queue.is_closed {
        return;
    }
    queue.is_waiting = true;
    while queue.is_waiting && !queue.is_closed {
        let Some(deadline) = deadline else {
            queue = arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        queue = arrived.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    queue.is_waiting = false;
}

#[cfg(test)]
#[path = "role_thread_tests.rs"]
mod tests;
