//! The mail queue of a role: bounded, with two lanes.
//!
//! Waking a thread costs more than most of the work that it is woken for. So some mail wakes the role, and other mail
//! only waits until the role is up for another reason. A sender that lets mail wait must know that such a reason
//! follows soon. The latest one is a timer of the role, some tens of milliseconds away.
//!
//! Control messages are small, and are taken first: a heartbeat waits for one sync, and not for all values queued
//! before it. The bulk lane has room for a number of bytes *of each sender*, so a sender that floods drops only its own
//! messages.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::net::PEER_FRAME_MAX_BYTES;
use crate::role::{Input, Lane, Role, ServerId};
use crate::trace::{CrashCause, CrashPoint, TraceContext};

/// Maximum number of inputs in each lane of a mailbox.
pub const MAILBOX_MAX: usize = 1_024;
/// Maximum bytes of the values in a mailbox. The other servers share them equally, and the clients of this server have
/// the share of one server.
pub const MAILBOX_MAX_BYTES: usize = 16 << 20;
/// Minimum share of each server, for any number of servers. A frame larger than the share would be dropped every time
/// it is sent, even by an empty mailbox.
pub const SHARE_MIN_BYTES: usize = PEER_FRAME_MAX_BYTES;
/// Additional room for inputs that other inputs must not crowd out: control items, truncations, and that the learner is
/// down.
pub const RESERVED: usize = 8;
/// Maximum number of inputs in one batch of a role.
pub const BATCH_MAX: usize = 1_024;

/// An input on its way to a role, with the line and the request that caused it.
#[derive(Debug)]
pub struct Delivery<R: Role> {
    /// The line and the request that caused the input.
    pub context: TraceContext,
    /// The input.
    pub input: Input<R>,
    /// Approximate bytes of the values in the input.
    pub size: usize,
    /// The lane of the mailbox. Inputs from the own server use the bulk lane, and keep their order.
    pub lane: Lane,
}

/// An item of a queue.
#[derive(Debug)]
pub enum MailboxItem<R: Role> {
    /// An input.
    Mail(Delivery<R>),
    /// The role must crash.
    Crash(CrashRequest),
    /// The server stops: handle the items before this one, and end.
    Stop,
}

/// A request to crash a role.
#[derive(Clone, Copy, Debug)]
pub struct CrashRequest {
    /// The point of the turn; if no turn begins soon, the crash is between two turns.
    pub point: CrashPoint,
    /// The origin of the request.
    pub cause: CrashCause,
    /// How long the role stays down, for the log line; None means until a RESTART.
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

/// Whether the limits of the queue apply to an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// They apply.
    Usual,
    /// The item may use the reserved room: other inputs must not crowd it out.
    Reserved,
}

/// Whether the role must be woken for what was put into its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MustWake {
    /// The role sleeps, and this item has work for it.
    Yes,
    /// The role is up, or will be soon.
    No,
}

/// The limits of a queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Maximum number of inputs in each lane, without the reserved room.
    pub inputs: usize,
    /// Maximum bytes of the values of each sender.
    pub bytes_of_a_sender: usize,
}

impl QueueLimits {
    /// The limits of a mailbox with room for `inputs` inputs per lane, in a cluster of this many servers.
    pub fn of(inputs: usize, servers: usize) -> QueueLimits {
        let equal = MAILBOX_MAX_BYTES / servers.saturating_sub(1).max(1);
        QueueLimits { inputs, bytes_of_a_sender: equal.max(SHARE_MIN_BYTES) }
    }
}

/// The mail of one incarnation of a role.
#[derive(Debug)]
pub struct MailQueue<R: Role> {
    /// Taken first.
    control: VecDeque<MailboxItem<R>>,
    /// Taken in order of arrival. Control items are in this lane, since the inputs before them must still be handled.
    bulk: VecDeque<MailboxItem<R>>,
    /// Bytes of the queued values by sender; None is for inputs that come from no other server.
    bytes: BTreeMap<Option<ServerId>, usize>,
    limits: QueueLimits,
    /// The role waits, and has not been woken yet.
    pub is_waiting: bool,
    /// The role is down.
    pub is_closed: bool,
}

impl<R: Role> MailQueue<R> {
    /// An empty queue.
    pub fn new(limits: QueueLimits) -> MailQueue<R> {
        let (control, bulk) = (VecDeque::new(), VecDeque::new());
        MailQueue { control, bulk, bytes: BTreeMap::new(), limits, is_waiting: false, is_closed: false }
    }

    /// Puts an item at the end of its lane. It wakes the role unless `can_wait`, called with the new number of items,
    /// returns true. A queue that is a quarter full always wakes the role.
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
        let has_space = match room {
            Capacity::Usual => queue.len() < inputs && bytes <= bytes_of_a_sender,
            Capacity::Reserved => queue.len() < inputs + RESERVED,
        };
        if !has_space {
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

    /// Takes queued items, the control lane first: at most `most` items, and no more once they have `most_bytes` bytes.
    /// A control item (crash or stop) is the last one taken.
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

    /// Takes the next item, if there is one.
    pub fn take_one(&mut self) -> Option<MailboxItem<R>> {
        let item = self.control.pop_front().or_else(|| self.bulk.pop_front())?;
        if item.size() > 0
            && let Some(bytes) = self.bytes.get_mut(&item.sender())
        {
            *bytes -= item.size();
        }
        Some(item)
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.bulk.is_empty()
    }

    /// Number of queued items.
    pub fn len(&self) -> usize {
        self.control.len() + self.bulk.len()
    }

    /// Bytes of the queued values.
    pub fn bytes(&self) -> usize {
        self.bytes.values().sum()
    }

    /// Bytes of the queued values of this sender.
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
    /// An input from the own server.
    pub fn from_within(context: TraceContext, input: Input<R>, size: usize) -> Delivery<R> {
        Delivery { context, input, size, lane: Lane::Bulk }
    }
}
