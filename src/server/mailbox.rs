//! The mailbox of a role: its queue, which exists while the role lives, and the thread that sleeps beside it.
//!
//! Mail comes in two ways: [`Mailbox::post`] wakes the role, and [`Mailbox::leave`] may only put the mail there; see
//! [`queue`](crate::host::queue).

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use crate::host::queue::{Item, Lost, MAILBOX_MAX, Mail, MustWake, Queue, Room};
use crate::role::Role;

/// The sending side; outlives the lives of its role.
pub struct Mailbox<R: Role> {
    open: RwLock<Option<Arc<Life<R>>>>,
}

/// What the two sides share in one life of the role.
struct Life<R: Role> {
    queue: Mutex<Queue<R>>,
    arrived: Condvar,
}

/// The receiving side of one life.
pub struct Inbox<R: Role>(Arc<Life<R>>);

/// How a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Something is there, or somebody has called.
    Called,
    /// The time is over.
    TimedOut,
    /// Nobody is left who could ever say anything.
    Alone,
}

impl<R: Role> Mailbox<R> {
    /// The mailbox of a role that is down.
    pub fn closed() -> Mailbox<R> {
        Mailbox { open: RwLock::new(None) }
    }

    /// A life begins, with an empty mailbox.
    pub fn open(&self) -> Inbox<R> {
        let life = Arc::new(Life { queue: Mutex::new(Queue::new(MAILBOX_MAX)), arrived: Condvar::new() });
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(life.clone());
        Inbox(life)
    }

    /// The life is over: from now on everything is lost.
    pub fn close(&self) {
        if let Some(life) = self.open.write().unwrap_or_else(PoisonError::into_inner).take() {
            life.end();
        }
    }

    /// Whether the role lives.
    pub fn is_open(&self) -> bool {
        self.open.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Hands an input to the role and wakes it; never blocks.
    pub fn post(&self, mail: Mail<R>) -> Result<(), Lost> {
        self.hand_over(Item::Mail(mail), Room::Usual, |_| false)
    }

    /// Hands an input to the role, and wakes it unless that `can_wait`; never blocks. The question is asked under the lock
    /// under which the role falls asleep: what the role has made known before that is heard here.
    pub fn leave(&self, mail: Mail<R>, can_wait: impl FnOnce(usize) -> bool) -> Result<(), Lost> {
        self.hand_over(Item::Mail(mail), Room::Usual, can_wait)
    }

    /// Hands over an input that must not be lost because others fill the mailbox; never blocks.
    pub fn post_reserved(&self, mail: Mail<R>) -> Result<(), Lost> {
        self.hand_over(Item::Mail(mail), Room::Reserved, |_| false)
    }

    /// Hands an order to the role; never blocks. An error if the role is down.
    pub fn order(&self, item: Item<R>) -> Result<(), Lost> {
        self.hand_over(item, Room::Reserved, |_| false)
    }

    /// Puts the item into the mailbox of this life, or of none: closing waits until it is in.
    fn hand_over(&self, item: Item<R>, room: Room, can_wait: impl FnOnce(usize) -> bool) -> Result<(), Lost> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().ok_or(Lost::Down)?.put(item, room, can_wait)
    }
}

impl<R: Role> Drop for Mailbox<R> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<R: Role> Life<R> {
    fn lock(&self) -> MutexGuard<'_, Queue<R>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, item: Item<R>, room: Room, can_wait: impl FnOnce(usize) -> bool) -> Result<(), Lost> {
        let must_wake = self.lock().put(item, room, can_wait)?;
        if must_wake == MustWake::Yes {
            self.arrived.notify_one();
        }
        Ok(())
    }

    fn end(&self) {
        self.lock().is_over = true;
        self.arrived.notify_one();
    }
}

impl<R: Role> Inbox<R> {
    /// Waits until there is something that the role was called for, or until the deadline. Does not wait at all while
    /// there is anything.
    pub fn wait(&self, deadline: Option<Instant>) -> Waited {
        let mut queue = self.0.lock();
        if queue.is_empty() && !queue.is_over {
            queue.sleeps = true;
        }
        while queue.sleeps && !queue.is_over {
            let Some(deadline) = deadline else {
                queue = self.0.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                queue.sleeps = false;
                return Waited::TimedOut;
            }
            queue = self.0.arrived.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.sleeps = false;
        if queue.is_over && queue.is_empty() { Waited::Alone } else { Waited::Called }
    }

    /// Takes what is there, in order: until it is so many items, or so many bytes and what reaches them, or an order, which
    /// is the last that is taken.
    pub fn take(&self, most: usize, most_bytes: usize, into: &mut Vec<Item<R>>) {
        self.0.lock().take(most, most_bytes, into);
    }

    /// Takes the first item, if there is one.
    pub fn take_one(&self) -> Option<Item<R>> {
        self.0.lock().take_one()
    }

    /// How many items are there.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl<R: Role> Drop for Inbox<R> {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::host::queue::{MAILBOX_MAX_BYTES, RESERVED};
    use crate::kv::Kv;
    use crate::paxos::{Learner, Message, Slot};
    use crate::role::{Input, Server};
    use crate::trace::Context;

    const QUIET_MAX: usize = MAILBOX_MAX / 4;
    const QUIET_MAX_BYTES: usize = MAILBOX_MAX_BYTES / 4;
    const PATIENCE: Duration = Duration::from_secs(20);

    type TestBox = Mailbox<Learner<Kv>>;

    fn mail(size: usize) -> Mail<Learner<Kv>> {
        let message = Message::CatchUp { from: Slot(1) };
        Mail { context: Context::default(), input: Input::Message { from: Server(1), message }, size }
    }

    fn take(inbox: &Inbox<Learner<Kv>>) {
        assert!(inbox.take_one().is_some());
    }

    /// A role that sleeps in its inbox; gives how its wait has ended.
    fn asleep(inbox: &Inbox<Learner<Kv>>, scope: &'static str) -> thread::JoinHandle<Waited> {
        let inbox = Inbox(inbox.0.clone());
        let sleeper = thread::Builder::new().name(scope.to_string());
        let before = inbox.0.clone();
        let handle = sleeper
            .spawn(move || {
                let waited = inbox.wait(Some(Instant::now() + PATIENCE));
                // The other end of this test still needs the life.
                std::mem::forget(inbox);
                waited
            })
            .unwrap();
        while !before.lock().sleeps {
            thread::yield_now();
        }
        handle
    }

    #[test]
    fn what_is_left_wakes_nobody_until_it_is_much_and_what_is_posted_does() {
        let mailbox = TestBox::closed();
        let inbox = mailbox.open();
        let sleeper = asleep(&inbox, "few");
        for _ in 1..QUIET_MAX {
            mailbox.leave(mail(0), |_| true).unwrap();
        }
        assert!(inbox.0.lock().sleeps && !sleeper.is_finished());
        mailbox.leave(mail(0), |_| true).unwrap();
        assert_eq!(sleeper.join().unwrap(), Waited::Called, "so many inputs are a reason to wake");
        assert_eq!(inbox.wait(None), Waited::Called, "nobody sleeps while something is there");
        inbox.take(QUIET_MAX, 1, &mut Vec::new());
        let sleeper = asleep(&inbox, "large");
        mailbox.leave(mail(QUIET_MAX_BYTES - 1), |_| true).unwrap();
        assert!(inbox.0.lock().sleeps && !sleeper.is_finished());
        mailbox.leave(mail(1), |_| true).unwrap();
        assert_eq!(sleeper.join().unwrap(), Waited::Called, "so are so many bytes");
        inbox.take(2, usize::MAX, &mut Vec::new());
        let sleeper = asleep(&inbox, "one");
        mailbox.leave(mail(0), |_| true).unwrap();
        mailbox.leave(mail(0), |_| false).unwrap();
        assert_eq!(sleeper.join().unwrap(), Waited::Called);
        let mut taken = Vec::new();
        inbox.take(9, usize::MAX, &mut taken);
        assert_eq!(taken.len(), 2, "both are there");
        mailbox.leave(mail(0), |_| true).unwrap();
        take(&inbox);
        assert_eq!(inbox.wait(Some(Instant::now())), Waited::TimedOut);
        let sleeper = asleep(&inbox, "end");
        mailbox.close();
        assert_eq!(sleeper.join().unwrap(), Waited::Alone);
    }

    #[test]
    fn a_group_ends_with_its_limits_or_with_an_order() {
        let mailbox = TestBox::closed();
        let inbox = mailbox.open();
        (0..9).for_each(|_| mailbox.post(mail(10)).unwrap());
        mailbox.order(Item::Stop).unwrap();
        mailbox.post(mail(10)).unwrap();
        let group = |most, bytes| {
            let mut items = Vec::new();
            inbox.take(most, bytes, &mut items);
            items.len()
        };
        assert_eq!((group(2, 1_000), group(9, 30), group(9, 31)), (2, 3, 4));
        assert_eq!((group(9, 1_000), inbox.len()), (1, 1), "what came behind the order is for whoever comes behind");
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
        assert_eq!(inbox.len(), MAILBOX_MAX + 2);
        take(&inbox);
        assert_eq!(mailbox.post(mail(0)), Err(Lost::Full), "what came beside the others counts too");
        take(&inbox);
        take(&inbox);
        mailbox.post(mail(0)).unwrap();
        assert_eq!(mailbox.post(mail(0)), Err(Lost::Full));
        // The room beside the others has an end too.
        while mailbox.order(Item::Stop).is_ok() {}
        assert_eq!(inbox.len(), MAILBOX_MAX + RESERVED);
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
        take(&inbox);
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
        assert_eq!(taken, inbox.len());
        assert!(taken <= MAILBOX_MAX, "{taken}");
        assert_eq!(inbox.0.lock().bytes(), 10 * taken);
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
        assert_eq!(first.len(), 1, "what was in it is there for the one who buries the role");
        let second = mailbox.open();
        assert_eq!(second.len(), 0);
        mailbox.post(mail(MAILBOX_MAX_BYTES)).unwrap();
        // A life that ends without closing its mailbox is down as well.
        drop(second);
        assert_eq!(mailbox.post(mail(0)), Err(Lost::Down));
    }
}
