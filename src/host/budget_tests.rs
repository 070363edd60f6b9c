use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A connection that only notes whether it was closed.
#[derive(Debug, Default)]
pub(in crate::host) struct TestHolder(AtomicBool, u16);

impl TestHolder {
    pub(in crate::host) fn at(port: u16) -> Arc<TestHolder> {
        Arc::new(TestHolder(AtomicBool::new(false), port))
    }

    fn is_closed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Holder for TestHolder {
    fn close_connection(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.1))
    }
}

const BEGUN: Time = Time(9_000_000);

fn after(ms: u64) -> Time {
    BEGUN + Duration::from_millis(ms)
}

#[test]
fn bytes_within_the_allowance_do_not_count_against_the_budget() {
    let budget = Budget::new(100, 10);
    let mut shares: Vec<Share> = (0..50).map(|port| Share::new(&budget, TestHolder::at(port))).collect();
    assert!(shares.iter_mut().all(|share| share.take(10, BEGUN) == Reservation::Granted));
    assert_eq!(budget.used(), 0);
    assert_eq!(shares[0].take(100, BEGUN), Reservation::Granted);
    assert_eq!(budget.used(), 100);
    assert_eq!(shares[1].take(1, BEGUN), Reservation::Full, "the budget is for all together");
    shares[0].return_bytes(60);
    assert_eq!((shares[0].bytes(), budget.used()), (50, 40));
    assert_eq!(shares[1].take(1, BEGUN), Reservation::Granted);
    drop(shares);
    assert_eq!(budget.used(), 0);
}

#[test]
fn oldest_connections_close_above_three_quarters_but_only_after_their_grace() {
    let budget = Budget::new(100, 0);
    let callers: Vec<Arc<TestHolder>> = (0..5).map(TestHolder::at).collect();
    let mut shares: Vec<Share> = callers.iter().map(|caller| Share::new(&budget, caller.clone())).collect();
    let let_go = || callers.iter().map(|caller| caller.is_closed()).collect::<Vec<bool>>();
    assert!(shares[..3].iter_mut().zip(0..).all(|(share, ms)| share.take(33, after(ms)) == Reservation::Granted));
    assert_eq!(shares[3].take(30, after(5)), Reservation::Full);
    assert_eq!(let_go(), [false; 5], "each of them has only just begun");
    // 99 bytes are used; with 30 more, at most 75 may be. Two shares of 33 must go; both return their bytes a little
    // later.
    let late = BEGUN + GRACE + Duration::from_millis(3);
    assert_eq!(shares[3].take(30, late), Reservation::Full);
    assert_eq!(let_go(), [true, true, false, false, false]);
    assert_eq!(shares[4].take(1, late), Reservation::Granted, "and no more than two");
    assert_eq!(let_go(), [true, true, false, false, false]);
    let first = SocketAddr::from(([127, 0, 0, 1], 0));
    assert_eq!(budget.take_closed(), Some(Closed { count: 2, bytes: 66, first }));
    assert_eq!(budget.take_closed(), None);
    // A closed connection gets no more bytes, and cannot begin a new turn.
    assert!(shares[0].is_closed() && !shares[2].is_closed());
    shares[0].begin_anew(late);
    assert_eq!(shares[0].take(1, late), Reservation::LetGo);
    shares.drain(..2);
    assert_eq!(shares[1].take(30, late), Reservation::Granted);
    assert_eq!(budget.used(), 33 + 1 + 30);
}

#[test]
fn progress_begins_a_new_turn() {
    let budget = Budget::new(100, 0);
    let callers: Vec<Arc<TestHolder>> = (0..3).map(TestHolder::at).collect();
    let mut shares: Vec<Share> = callers.iter().map(|caller| Share::new(&budget, caller.clone())).collect();
    assert!(shares[..2].iter_mut().all(|share| share.take(40, BEGUN) == Reservation::Granted));
    shares[0].begin_anew(after(1));
    assert_eq!(shares[2].take(20, BEGUN + GRACE + Duration::from_millis(2)), Reservation::Granted);
    let let_go: Vec<bool> = callers.iter().map(|caller| caller.is_closed()).collect();
    assert_eq!(let_go, [false, true, false]);
}

#[test]
fn connection_that_gives_up_is_reported_too() {
    let budget = Budget::new(10, 0);
    let mut share = Share::new(&budget, TestHolder::at(7));
    assert_eq!(share.take(10, BEGUN), Reservation::Granted);
    assert_eq!(share.take(1, BEGUN), Reservation::Full);
    share.give_up();
    let first = SocketAddr::from(([127, 0, 0, 1], 7));
    assert_eq!(budget.take_closed(), Some(Closed { count: 1, bytes: 10, first }));
}
