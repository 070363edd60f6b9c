//! The mail of a role: a bounded queue.
//!
//! To wake a thread costs more than most of what it is woken for. So mail comes in two ways: some wakes the role, and some
//! may only lie there, for when the role is up for another reason. Who lets mail lie must know that such a reason comes
//! soon; at the latest it is one of the role's timers, some tens of milliseconds away.

use std::collections::VecDeque;
use std::time::Duration;

use crate::role::{Input, Role};
use crate::trace::{Context, CrashCause, CrashPoint};

/// A mailbox holds at most this many inputs.
pub const MAILBOX_MAX: usize = 1_024;
/// A mailbox holds at most this many bytes of values.
pub const MAILBOX_MAX_BYTES: usize = 16 << 20;
/// Room beside that for what must not wait for others: orders, what ends a checkpoint, and that the learner is down.
pub const RESERVED: usize = 8;
/// One group of a role has at most this many inputs.
pub const GROUP_MAX: usize = 1_024;

/// An input on its way to a role, with the line and the request that it comes from.
#[derive(Debug)]
pub struct Mail<R: Role> {
    /// Where it comes from.
    pub context: Context,
    /// What it is.
    pub input: Input<R>,
    /// About how many bytes of values it holds.
    pub size: usize,
}

/// What a queue holds.
#[derive(Debug)]
pub enum Item<R: Role> {
    /// An input.
    Mail(Mail<R>),
    /// The role must die.
    Crash(CrashOrder),
    /// The server stops: finish what is here and end.
    Stop,
}

/// An order to die.
#[derive(Clone, Copy, Debug)]
pub struct CrashOrder {
    /// Where in a turn; if no turn comes soon, between two turns.
    pub point: CrashPoint,
    /// Who ordered it.
    pub cause: CrashCause,
    /// How long the role is to be down, for the line; None if until somebody restarts it.
    pub down: Option<Duration>,
}

/// Why an input did not reach a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The role is down.
    Down,
    /// The mailbox is full.
    Full,
}

/// Whether the limits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// They do.
    Usual,
    /// It must not be lost because others fill the mailbox.
    Reserved,
}

/// Whether the role must be woken for what was put into its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MustWake {
    /// It sleeps, and has to do with this.
    Yes,
    /// It is up, or will be soon.
    No,
}

/// The mail of one life of a role.
#[derive(Debug)]
pub struct Queue<R: Role> {
    items: VecDeque<Item<R>>,
    /// Of the values in it.
    bytes: usize,
    /// How many inputs it holds, beside those that use reserved room.
    inputs_max: usize,
    /// The role waits, and has not been woken yet.
    pub sleeps: bool,
    /// One of the two sides has gone.
    pub is_over: bool,
}

impl<R: Role> Queue<R> {
    /// An empty queue that holds at most this many inputs, and [`MAILBOX_MAX_BYTES`] of values.
    pub fn new(inputs_max: usize) -> Queue<R> {
        Queue { items: VecDeque::new(), bytes: 0, inputs_max, sleeps: false, is_over: false }
    }

    /// Puts an item behind the others. It wakes the role, unless `can_wait`, asked with the new number of items, lets it lie; a
    /// quarter of what the queue holds is a reason to wake in any case.
    pub fn put(&mut self, item: Item<R>, room: Room, can_wait: impl FnOnce(usize) -> bool) -> Result<MustWake, Lost> {
        if self.is_over {
            return Err(Lost::Down);
        }
        let size = item.size();
        let has_room = match room {
            Room::Usual => self.items.len() < self.inputs_max && self.bytes + size <= MAILBOX_MAX_BYTES,
            Room::Reserved => self.items.len() < self.inputs_max + RESERVED,
        };
        if !has_room {
            return Err(Lost::Full);
        }
        self.items.push_back(item);
        self.bytes += size;
        let is_much = self.items.len() >= self.inputs_max / 4 || self.bytes >= MAILBOX_MAX_BYTES / 4;
        if self.sleeps && (is_much || !can_wait(self.items.len())) {
            self.sleeps = false;
            return Ok(MustWake::Yes);
        }
        Ok(MustWake::No)
    }

    /// Takes what is there, in order, until it has `most` items, or items of at least `most_bytes`, or an order: an order is
    /// the last that is taken.
    pub fn take(&mut self, most: usize, most_bytes: usize, into: &mut Vec<Item<R>>) {
        let mut bytes = 0;
        for _ in 0..most {
            let Some(item) = self.items.pop_front() else { break };
            bytes += item.size();
            let is_order = !matches!(item, Item::Mail(_));
            into.push(item);
            if is_order || bytes >= most_bytes {
                break;
            }
        }
        self.bytes -= bytes;
    }

    /// Takes the first item, if there is one.
    pub fn take_one(&mut self) -> Option<Item<R>> {
        let item = self.items.pop_front()?;
        self.bytes -= item.size();
        Some(item)
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many items are there.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// How many bytes of values are there.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<R: Role> Item<R> {
    fn size(&self) -> usize {
        if let Item::Mail(mail) = self { mail.size } else { 0 }
    }
}
