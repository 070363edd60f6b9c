//! The mailbox of a role: a bounded queue that exists while the role lives.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::role::{Input, Role};
use crate::trace::{Context, CrashCause, CrashPoint};

/// A mailbox holds at most so many inputs.
pub const MAILBOX_MAX: usize = 1_024;
/// A mailbox holds at most so many bytes of values.
pub const MAILBOX_MAX_BYTES: usize = 16 << 20;
/// Room beside that for what must not wait for others: orders, and the word that the learner is down.
const RESERVED: usize = 8;

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

/// The sending side; outlives the lives of its role.
pub struct Mailbox<R: Role> {
    open: RwLock<Option<Opening<R>>>,
}

struct Opening<R: Role> {
    sender: Sender<Item<R>>,
    load: Arc<Load>,
}

/// How much mail there is.
#[derive(Default)]
struct Load {
    count: AtomicUsize,
    bytes: AtomicUsize,
}

/// The receiving side of one life.
pub struct Inbox<R: Role> {
    /// The items.
    pub items: Receiver<Item<R>>,
    load: Arc<Load>,
}

impl<R: Role> Mailbox<R> {
    /// The mailbox of a role that is down.
    pub fn closed() -> Mailbox<R> {
        Mailbox { open: RwLock::new(None) }
    }

    /// A life begins, with an empty mailbox.
    pub fn open(&self) -> Inbox<R> {
        let (sender, items) = bounded(MAILBOX_MAX + RESERVED);
        let load = Arc::<Load>::default();
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(Opening { sender, load: load.clone() });
        Inbox { items, load }
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
        self.hand_over(|load| {
            let size = mail.size;
            if load.take(size) {
                Ok((Item::Mail(mail), size))
            } else {
                load.give_back(size);
                Err(Lost::Full)
            }
        })
    }

    /// Hands over an input that must not be lost because others fill the mailbox; never blocks.
    pub fn post_reserved(&self, mail: Mail<R>) -> Result<(), Lost> {
        self.hand_over(|load| {
            let size = mail.size;
            load.take(size);
            Ok((Item::Mail(mail), size))
        })
    }

    /// Hands an order to the role; never blocks. An error if the role is down.
    pub fn order(&self, item: Item<R>) -> Result<(), Lost> {
        self.hand_over(|load| {
            load.take(0);
            Ok((item, 0))
        })
    }

    /// Puts the item into the mailbox of this life, or of none: closing waits until it is in.
    fn hand_over(&self, make: impl FnOnce(&Load) -> Result<(Item<R>, usize), Lost>) -> Result<(), Lost> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Opening { sender, load }) = open.as_ref() else { return Err(Lost::Down) };
        let (item, size) = make(load)?;
        sender.try_send(item).map_err(|error| {
            load.give_back(size);
            if error.is_full() { Lost::Full } else { Lost::Down }
        })
    }
}

impl Load {
    /// Counts one more, and says whether that is within the limits. Counted first and given back if not: two senders
    /// cannot both have the last of the room.
    fn take(&self, size: usize) -> bool {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.bytes.fetch_add(size, Ordering::Relaxed) + size;
        count <= MAILBOX_MAX && bytes <= MAILBOX_MAX_BYTES
    }

    fn give_back(&self, size: usize) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(size, Ordering::Relaxed);
    }
}

impl<R: Role> Inbox<R> {
    /// Takes note that an item has left the mailbox.
    pub fn taken(&self, item: &Item<R>) {
        self.load.give_back(if let Item::Mail(mail) = item { mail.size } else { 0 });
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::kv::Kv;
    use crate::paxos::{Learner, Message, Slot};
    use crate::role::Server;

    type TestBox = Mailbox<Learner<Kv>>;

    fn mail(size: usize) -> Mail<Learner<Kv>> {
        let message = Message::CatchUp { from: Slot(1) };
        Mail { context: Context::default(), input: Input::Message { from: Server(1), message }, size }
    }

    #[test]
    fn it_holds_so_many_inputs_and_orders_beside_them() {
        let mailbox = TestBox::closed();
        let inbox = mailbox.open();
        for _ in 0..MAILBOX_MAX {
            mailbox.post(mail(0)).unwrap();
        }
        assert_eq!(mailbox.post(mail(0)), Err(Lost::Full));
        // A full mailbox neither loses an order nor holds up whoever gives it.
        mailbox.post_reserved(mail(0)).unwrap();
        mailbox.order(Item::Stop).unwrap();
        assert_eq!(inbox.items.len(), MAILBOX_MAX + 2);
        let first = inbox.items.recv().unwrap();
        inbox.taken(&first);
        assert_eq!(mailbox.post(mail(0)), Err(Lost::Full), "what came beside the others counts too");
        for _ in 0..2 {
            inbox.taken(&inbox.items.recv().unwrap());
        }
        mailbox.post(mail(0)).unwrap();
        assert_eq!(mailbox.post(mail(0)), Err(Lost::Full));
        // The room beside the others has an end too.
        while mailbox.order(Item::Stop).is_ok() {}
        assert_eq!(inbox.items.len(), MAILBOX_MAX + RESERVED);
    }

    #[test]
    fn it_holds_so_many_bytes() {
        let mailbox = TestBox::closed();
        let inbox = mailbox.open();
        let quarter = MAILBOX_MAX_BYTES / 4;
        for _ in 0..4 {
            mailbox.post(mail(quarter)).unwrap();
        }
        assert_eq!(mailbox.post(mail(1)), Err(Lost::Full));
        mailbox.post(mail(0)).unwrap();
        inbox.taken(&inbox.items.recv().unwrap());
        assert_eq!(mailbox.post(mail(quarter + 1)), Err(Lost::Full));
        mailbox.post(mail(quarter)).unwrap();
    }

    #[test]
    fn many_senders_at_once_do_not_break_the_limit() {
        let mailbox = TestBox::closed();
        let inbox = mailbox.open();
        let taken: usize = thread::scope(|scope| {
            let posting = || (0..1_000).filter(|_| mailbox.post(mail(10)).is_ok()).count();
            let senders = [(); 4].map(|()| scope.spawn(posting));
            senders.map(|sender| sender.join().unwrap()).iter().sum()
        });
        assert_eq!(taken, inbox.items.len());
        assert!(taken <= MAILBOX_MAX, "{taken}");
        assert_eq!(inbox.load.bytes.load(Ordering::Relaxed), 10 * taken);
    }

    #[test]
    fn each_life_has_a_mailbox_of_its_own() {
        let mailbox = TestBox::closed();
        assert!(!mailbox.is_open());
        assert_eq!(mailbox.post(mail(0)), Err(Lost::Down));
        assert_eq!(mailbox.order(Item::Stop), Err(Lost::Down));
        let first = mailbox.open();
        mailbox.post(mail(MAILBOX_MAX_BYTES)).unwrap();
        mailbox.close();
        assert!(!mailbox.is_open());
        assert_eq!(mailbox.post(mail(0)), Err(Lost::Down));
        assert_eq!(first.items.len(), 1, "what was in it is there for the one who buries the role");
        let second = mailbox.open();
        assert!(second.items.is_empty());
        mailbox.post(mail(MAILBOX_MAX_BYTES)).unwrap();
        // A life that ends without closing its mailbox is down as well.
        drop(second);
        assert_eq!(mailbox.post(mail(0)), Err(Lost::Down));
    }
}
