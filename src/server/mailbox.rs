//! The mailbox of a role: a bounded queue that exists while the role lives.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::role::{Input, Role};
use crate::trace::Context;

/// A mailbox holds at most so many inputs.
pub const MAILBOX_MAX: usize = 1_024;
/// A mailbox holds at most so many bytes of values.
pub const MAILBOX_MAX_BYTES: usize = 16 << 20;

/// An input on its way to a role, with the line and the request that it comes from.
pub struct Mail<R: Role> {
    /// Where it comes from.
    pub context: Context,
    /// What it is.
    pub input: Input<R>,
    /// About how many bytes of values it holds.
    pub size: usize,
}

/// What a mailbox holds.
pub enum Item<R: Role> {
    /// An input.
    Mail(Mail<R>),
    /// The role must die.
    Crash(CrashOrder),
    /// The server stops: finish what is here and end.
    Stop,
}

/// Where in a turn a crash hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "each is a point before something")]
pub enum CrashPoint {
    /// The inputs are lost.
    BeforeStep,
    /// The role has acted on them in memory; neither its records nor its messages exist.
    BeforeSync,
    /// The records are durable; the messages were never sent.
    BeforeSend,
}

/// An order to die.
#[derive(Clone, Copy, Debug)]
pub struct CrashOrder {
    /// Where in a turn; if no turn comes soon, between two turns.
    pub point: CrashPoint,
    /// Who ordered it, for the line.
    pub cause: Cause,
    /// How long the role will be down; None if until somebody restarts it.
    pub down: Option<Duration>,
}

/// Who ends a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The random timer.
    Timer,
    /// Somebody by command, in lab mode.
    Admin,
}

/// Why an input did not reach a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The role is down.
    Down,
    /// The mailbox is full.
    Full,
}

/// The sending side; outlives the lives of its role.
pub struct Mailbox<R: Role> {
    open: RwLock<Option<Opening<R>>>,
}

struct Opening<R: Role> {
    sender: Sender<Item<R>>,
    bytes: Arc<AtomicUsize>,
}

/// The receiving side of one life.
pub struct Inbox<R: Role> {
    /// The items.
    pub items: Receiver<Item<R>>,
    bytes: Arc<AtomicUsize>,
}

impl<R: Role> Mailbox<R> {
    /// The mailbox of a role that is down.
    pub fn closed() -> Mailbox<R> {
        Mailbox { open: RwLock::new(None) }
    }

    /// A life begins, with an empty mailbox.
    pub fn open(&self) -> Inbox<R> {
        let (sender, items) = bounded(MAILBOX_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(Opening { sender, bytes: bytes.clone() });
        Inbox { items, bytes }
    }

    /// The life is over: from now on everything is lost.
    pub fn close(&self) {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the role lives.
    pub fn is_open(&self) -> bool {
        self.open.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Hands an input to the role; never blocks.
    pub fn post(&self, mail: Mail<R>) -> Result<(), Lost> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Opening { sender, bytes }) = open.as_ref() else { return Err(Lost::Down) };
        let size = mail.size;
        if bytes.load(Ordering::Relaxed) + size > MAILBOX_MAX_BYTES {
            return Err(Lost::Full);
        }
        bytes.fetch_add(size, Ordering::Relaxed);
        sender.try_send(Item::Mail(mail)).map_err(|_| {
            bytes.fetch_sub(size, Ordering::Relaxed);
            Lost::Full
        })
    }

    /// Hands an order to the role, waiting for room; false if it is down.
    pub fn order(&self, item: Item<R>) -> bool {
        let sender = {
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
            open.as_ref().map(|open| open.sender.clone())
        };
        sender.is_some_and(|sender| sender.send(item).is_ok())
    }
}

impl<R: Role> Inbox<R> {
    /// Takes note that mail has left the mailbox.
    pub fn taken(&self, mail: &Mail<R>) {
        self.bytes.fetch_sub(mail.size, Ordering::Relaxed);
    }
}
