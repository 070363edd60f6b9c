use std::thread;

use super::*;
use crate::host::mail_queue::{Delivery, MAILBOX_MAX, MAILBOX_MAX_BYTES, QueueLimits, RESERVED};
use crate::kv::Kv;
use crate::net::PEER_FRAME_MAX_BYTES;
use crate::paxos::{Learner, Message, Slot};
use crate::role::{Input, Lane, ServerId};
use crate::trace::TraceContext;

const QUIET_MAX: usize = MAILBOX_MAX / 4;
const QUIET_MAX_BYTES: usize = MAILBOX_MAX_BYTES / 4;

type TestBox = Mailbox<Learner<Kv>>;

/// One sender may use the whole mailbox.
const LIMITS: QueueLimits = QueueLimits { inputs: MAILBOX_MAX, bytes_of_a_sender: MAILBOX_MAX_BYTES };

fn open() -> TestBox {
    let mailbox = TestBox::closed(LIMITS);
    mailbox.open();
    mailbox
}

fn mail(size: usize) -> MailboxItem<Learner<Kv>> {
    mail_of(ServerId(1), size, Lane::Bulk)
}

fn mail_of(from: ServerId, size: usize, lane: Lane) -> MailboxItem<Learner<Kv>> {
    let input = Input::Message { from, message: Message::CatchUp { from: Slot(size as u64) } };
    MailboxItem::Mail(Delivery { context: TraceContext::default(), input, size, lane })
}

fn post(mailbox: &TestBox, size: usize) -> Result<(), SendError> {
    mailbox.put(mail(size), Capacity::Usual, |_| false).map(|_| ())
}

/// Puts mail that can wait; returns whether the role must be woken all the same.
fn leave(mailbox: &TestBox, size: usize) -> MustWake {
    mailbox.put(mail(size), Capacity::Usual, |_| true).unwrap()
}

fn order(mailbox: &TestBox) -> Result<(), SendError> {
    mailbox.put(MailboxItem::Stop, Capacity::Reserved, |_| false).map(|_| ())
}

fn take(mailbox: &TestBox) {
    assert!(mailbox.take_one().is_some());
}

#[test]
fn quiet_mail_wakes_the_role_only_at_a_limit() {
    let mailbox = open();
    mailbox.lock().is_waiting = true;
    for _ in 1..QUIET_MAX {
        assert_eq!(leave(&mailbox, 0), MustWake::No);
    }
    assert_eq!(leave(&mailbox, 0), MustWake::Yes, "this number of inputs is a reason to wake");
    assert!(!mailbox.lock().is_waiting, "a role is woken once");
    assert_eq!(leave(&mailbox, 0), MustWake::No);
    mailbox.take(MAILBOX_MAX, usize::MAX, &mut Vec::new());
    mailbox.lock().is_waiting = true;
    assert_eq!(leave(&mailbox, QUIET_MAX_BYTES - 1), MustWake::No);
    assert_eq!(leave(&mailbox, 1), MustWake::Yes, "so is this number of bytes");
    mailbox.take(MAILBOX_MAX, usize::MAX, &mut Vec::new());
    mailbox.lock().is_waiting = true;
    assert_eq!(leave(&mailbox, 0), MustWake::No);
    assert_eq!(mailbox.put(mail(0), Capacity::Usual, |waiting| waiting < 2), Ok(MustWake::Yes));
}

#[test]
fn batch_ends_at_its_limits_or_at_a_control_item() {
    let mailbox = open();
    (0..9).for_each(|_| post(&mailbox, 10).unwrap());
    order(&mailbox).unwrap();
    post(&mailbox, 10).unwrap();
    let group = |most, bytes| {
        let mut items = Vec::new();
        assert!(mailbox.take(most, bytes, &mut items));
        items.len()
    };
    assert_eq!((group(2, 1_000), group(9, 30), group(9, 31)), (2, 3, 4));
    let left = |mailbox: &TestBox| mailbox.lock().len();
    assert_eq!(
        (group(9, 1_000), left(&mailbox)),
        (1, 1),
        "what came after the control item is for the next incarnation"
    );
}

#[test]
fn mailbox_limits_inputs_and_has_reserved_room_for_control_items() {
    let mailbox = open();
    for _ in 0..MAILBOX_MAX {
        post(&mailbox, 0).unwrap();
    }
    assert_eq!(post(&mailbox, 0), Err(SendError::Full));
    // A full mailbox neither loses a control item nor blocks its sender.
    mailbox.put(mail(0), Capacity::Reserved, |_| false).unwrap();
    order(&mailbox).unwrap();
    assert_eq!(mailbox.lock().len(), MAILBOX_MAX + 2);
    take(&mailbox);
    assert_eq!(post(&mailbox, 0), Err(SendError::Full), "what came beside the others counts too");
    take(&mailbox);
    take(&mailbox);
    post(&mailbox, 0).unwrap();
    assert_eq!(post(&mailbox, 0), Err(SendError::Full));
    // The reserved room is bounded too.
    while order(&mailbox).is_ok() {}
    assert_eq!(mailbox.lock().len(), MAILBOX_MAX + RESERVED);
}

#[test]
fn mailbox_limits_bytes() {
    let mailbox = open();
    let quarter = MAILBOX_MAX_BYTES / 4;
    for _ in 0..4 {
        post(&mailbox, quarter).unwrap();
    }
    assert_eq!(post(&mailbox, 1), Err(SendError::Full));
    post(&mailbox, 0).unwrap();
    take(&mailbox);
    assert_eq!(post(&mailbox, quarter + 1), Err(SendError::Full));
    post(&mailbox, quarter).unwrap();
}

#[test]
fn concurrent_senders_do_not_exceed_the_limit() {
    let mailbox = open();
    let taken: usize = thread::scope(|scope| {
        let posting = || (0..1_000).filter(|_| post(&mailbox, 10).is_ok()).count();
        let senders = [(); 4].map(|()| scope.spawn(posting));
        senders.map(|sender| sender.join().unwrap()).iter().sum()
    });
    assert_eq!(taken, mailbox.lock().len());
    assert!(taken <= MAILBOX_MAX, "{taken}");
    assert_eq!(mailbox.lock().bytes(), 10 * taken);
}

#[test]
fn each_incarnation_starts_with_an_empty_mailbox() {
    let mailbox = TestBox::closed(LIMITS);
    assert!(!mailbox.is_open());
    assert_eq!((post(&mailbox, 0), order(&mailbox)), (Err(SendError::Down), Err(SendError::Down)));
    mailbox.open();
    post(&mailbox, MAILBOX_MAX_BYTES).unwrap();
    mailbox.close();
    assert!(!mailbox.is_open());
    assert_eq!(post(&mailbox, 0), Err(SendError::Down));
    assert_eq!(mailbox.lock().len(), 1, "what was in it is kept until it is reported");
    assert!(mailbox.take(9, usize::MAX, &mut Vec::new()), "this is still to be done");
    assert!(!mailbox.take(9, usize::MAX, &mut Vec::new()), "and then nothing will come");
    mailbox.open();
    assert!(mailbox.is_open() && mailbox.lock().is_empty());
    post(&mailbox, MAILBOX_MAX_BYTES).unwrap();
}

#[test]
fn control_messages_go_first_and_have_room_of_their_own() {
    let mailbox = open();
    for size in [10, 11] {
        mailbox.put(mail_of(ServerId(1), size, Lane::Bulk), Capacity::Usual, |_| false).unwrap();
    }
    order(&mailbox).unwrap();
    (1..MAILBOX_MAX - 2).for_each(|_| post(&mailbox, 0).unwrap());
    assert_eq!(post(&mailbox, 0), Err(SendError::Full));
    for n in 0..2 {
        mailbox.put(mail_of(ServerId(2), n, Lane::Control), Capacity::Usual, |_| false).unwrap();
    }
    let mut items = Vec::new();
    mailbox.take(MAILBOX_MAX, usize::MAX, &mut items);
    let number = |item: &MailboxItem<Learner<Kv>>| match item {
        MailboxItem::Mail(Delivery { input: Input::Message { message: Message::CatchUp { from }, .. }, .. }) => from.0,
        _ => u64::MAX,
    };
    assert_eq!(items.iter().map(number).collect::<Vec<_>>(), [0, 1, 10, 11, u64::MAX], "each in its order");
}

#[test]
fn sender_beyond_its_share_loses_its_own_messages() {
    let (much, little) = (QueueLimits::of(MAILBOX_MAX, 5).bytes_of_a_sender, MAILBOX_MAX_BYTES / 100);
    assert_eq!(much, MAILBOX_MAX_BYTES / 4);
    let mailbox = TestBox::closed(QueueLimits::of(MAILBOX_MAX, 5));
    mailbox.open();
    let put =
        |server, size| mailbox.put(mail_of(ServerId(server), size, Lane::Bulk), Capacity::Usual, |_| false).map(|_| ());
    assert_eq!([put(1, much), put(1, little), put(2, little)], [Ok(()), Err(SendError::Full), Ok(())]);
    take(&mailbox);
    assert_eq!((put(1, little), mailbox.lock().bytes_of(Some(ServerId(1)))), (Ok(()), little));
    assert_eq!(mailbox.lock().bytes(), 2 * little);
}

#[test]
fn largest_message_fits_for_any_number_of_servers() {
    for servers in 1..=ServerId::MAX {
        let mailbox = TestBox::closed(QueueLimits::of(MAILBOX_MAX, servers.into()));
        mailbox.open();
        for other in 2..=servers.max(2) {
            let largest = mail_of(ServerId(other), PEER_FRAME_MAX_BYTES, Lane::Bulk);
            assert!(mailbox.put(largest, Capacity::Usual, |_| false).is_ok(), "{servers} servers");
        }
    }
}
