//! The mail of a role: a bounded queue.
//!
//! To wake a thread costs more than most of what it is woken for. So mail comes in two ways: some wakes the role, and
//! some may only lie there, for when the role is up for another reason. Who lets mail lie must know that such a reason
//! comes soon; at the latest it is one of the role's timers, some tens of milliseconds away.
//!
//! There are two lanes. Control messages are small, and are taken first: a heartbeat waits for one sync, and not for
//! all values that came before it. Bulk has room for so many bytes *of each sender*, so one that sends much drops its
//! own.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::net::PEER_FRAME_MAX_BYTES;
use crate::role::{Input, Lane, Role, ServerId};
use crate::trace::{CrashCause, CrashPoint, TraceContext};

/// A mailbox holds at most this many inputs in each lane.
pub const MAILBOX_MAX: usize = 1_024;
/// The bytes of values that a mailbox holds are shared equally by the other servers, and the clients of this server
/// have as much as one of them.
pub const MAILBOX_MAX_BYTES: usize = 16 << 20;
/// However many servers there are, each has room for this much. What does not fit into an empty mailbox would be
/// dropped as often as it is sent.
pub const SHARE_MIN_BYTES: usize = PEER_FRAME_MAX_BYTES;
/// Room beside that for what must not wait for others: orders, what ends a checkpoint, and that the learner is down.
pub const RESERVED: usize = 8;
/// One group of a role has at most this many inputs.
pub const BATCH_MAX: usize = 1_024;

/// An input on its way to a role, with the line and the request that it comes from.
#[derive(Debug)]
pub struct Delivery<R: Role> {
    /// Where it comes from.
    pub context: TraceContext,
    /// What it is.
    pub input: Input<R>,
    /// About how many bytes of values it holds.
    pub size: usize,
    /// How it goes through the mailbox. What comes from within the server is bulk, and keeps its order.
    pub lane: Lane,
}

/// What a queue holds.
#[derive(Debug)]
pub enum MailboxItem<R: Role> {
    /// An input.
    Mail(Delivery<R>),
    /// The role must die.
    Crash(CrashRequest),
    /// The server stops: finish what is here and end.
    Stop,
}

/// An order to die.
#[derive(Clone, Copy, Debug)]
pub struct CrashRequest {
    /// Where in a turn; if no turn comes soon, between two turns.
    pub point: CrashPoint,
    /// Who ordered it.
    pub cause: CrashCause,
    /// How long the role is to be down, for the line; None if until somebody restarts it.
    pub down: Option<Duration>,
}

/// Why an input did not reach a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The role is down.
    Down,
    /// The mailbox is full.
    Full,
}

/// Whether the limits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
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

/// What a queue has room for.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// So many inputs in each lane, beside those that use reserved room.
    pub inputs: usize,
    /// So many bytes of values of each sender.
    pub bytes_of_a_sender: usize,
}

impl QueueLimits {
    /// Those of a mailbox with room for so many inputs, in a cluster of so many servers.
    pub fn of(inputs: usize, servers: usize) -> QueueLimits {
        let equal = MAILBOX_MAX_BYTES / servers.saturating_sub(1).max(1);
        QueueLimits { inputs, bytes_of_a_sender: equal.max(SHARE_MIN_BYTES) }
    }
}

/// The mail of one life of a role.
#[derive(Debug)]
pub struct MailQueue<R: Role> {
    /// Taken first.
    control: VecDeque<MailboxItem<R>>,
    /// Taken in the order in which it came. Orders are among it: what came before an order is still done.
    bulk: VecDeque<MailboxItem<R>>,
    /// Of the values in it, by sender; None for what does not come from a server.
    bytes: BTreeMap<Option<ServerId>, usize>,
    limits: QueueLimits,
    /// The role waits, and has not been woken yet.
    pub is_waiting: bool,
    /// One of the two sides has gone.
    pub is_closed: bool,
}

impl<R: Role> MailQueue<R> {
    /// An empty queue.
    pub fn new(limits: QueueLimits) -> MailQueue<R> {
        let (control, bulk) = (VecDeque::new(), VecDeque::new());
        MailQueue { control, bulk, bytes: BTreeMap::new(), limits, is_waiting: false, is_closed: false }
    }

    /// Puts an item behind the others of its lane. It wakes the role, unless `can_wait`, asked with the new number of
    /// items, lets it lie; a quarter of what the queue holds is a reason to wake in any case.
    pub fn put(
        &mut self,
        item: MailboxItem<R>,
        room: Capacity,
        can_wait: impl FnOnce(usize) -> bool,
    ) -> Result<MustWake, SendError> {
        if self.is_closed {
            return Err(SendError::Down);
        }
        let (lane, size, from) = (item.lane(), item.size(), item.sender());
        let QueueLimits { inputs, bytes_of_a_sender } = self.limits;
        let bytes = self.bytes.get(&from).copied().unwrap_or(0) + size;
        let queue = match lane {
            Lane::Control => &mut self.control,
            Lane::Bulk => &mut self.bulk,
        };
        let has_room = match room {
            Capacity::Usual => queue.len() < inputs && bytes <= bytes_of_a_sender,
            Capacity::Reserved => queue.len() < inputs + RESERVED,
        };
        if !has_room {
            return Err(SendError::Full);
        }
        queue.push_back(item);
        let is_much = queue.len() >= inputs / 4 || bytes >= bytes_of_a_sender / 4;
        if size > 0 {
            self.bytes.insert(from, bytes);
        }
        if self.is_waiting && (is_much || !can_wait(self.len())) {
            self.is_waiting = false;
            return Ok(MustWake::Yes);
        }
        Ok(MustWake::No)
    }

    /// Takes what is there, control first, until it has `most` items, or items of at least `most_bytes`, or an order:
    /// an order is the last that is taken.
    pub fn take(&mut self, most: usize, most_bytes: usize, into: &mut Vec<MailboxItem<R>>) {
        let mut bytes = 0;
        for _ in 0..most {
            let Some(item) = self.take_one() else { break };
            bytes += item.size();
            let is_order = !matches!(item, MailboxItem::Mail(_));
            into.push(item);
            if is_order || bytes >= most_bytes {
                break;
            }
        }
    }

    /// Takes the item that is next, if there is one.
    pub fn take_one(&mut self) -> Option<MailboxItem<R>> {
        let item = self.control.pop_front().or_else(|| self.bulk.pop_front())?;
        if item.size() > 0
            && let Some(bytes) = self.bytes.get_mut(&item.sender())
        {
            *bytes -= item.size();
        }
        Some(item)
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.bulk.is_empty()
    }

    /// How many items are there.
    pub fn len(&self) -> usize {
        self.control.len() + self.bulk.len()
    }

    /// How many bytes of values are there.
    pub fn bytes(&self) -> usize {
        self.bytes.values().sum()
    }

    /// How many bytes of values of this sender are there.
    pub fn bytes_of(&self, sender: Option<ServerId>) -> usize {
        self.bytes.get(&sender).copied().unwrap_or(0)
    }
}

impl<R: Role> MailboxItem<R> {
    fn size(&self) -> usize {
        if let MailboxItem::Mail(mail) = self { mail.size } else { 0 }
    }

    fn lane(&self) -> Lane {
        if let MailboxItem::Mail(mail) = self { mail.lane } else { Lane::Bulk }
    }

    fn sender(&self) -> Option<ServerId> {
        match self {
            MailboxItem::Mail(Delivery { input: Input::Message { from, .. }, .. }) => Some(*from),
            _ => None,
        }
    }
}

impl<R: Role> Delivery<R> {
    /// What comes from within the server.
    pub fn from_within(context: TraceContext, input: Input<R>, size: usize) -> Delivery<R> {
        Delivery { context, input, size, lane: Lane::Bulk }
    }
}
