//! Tests that a write gets a second identity only if it certainly was not applied under the first.

use super::fake::{Fake, FakeAction, FakeCluster, good, opens_and, serves};
use crate::client::{Client, ClientError, WriteResponse};
use crate::net::{Reply, Request, WhyNotApplied, WhyUnknown};
use crate::paxos::Slot;
use crate::role::{ServerId, ServerSet};

/// The server, session, sequence and first_open of each write.
fn writes(cluster: &FakeCluster) -> Vec<(u8, u64, u64, u64)> {
    let name = |(server, request)| match request {
        Request::Write { session, sequence, first_open, .. } => Some((server, session, sequence, first_open)),
        _ => None,
    };
    cluster.requests().into_iter().filter_map(name).collect()
}

/// The server and nonce of each OPEN.
fn opens(cluster: &FakeCluster) -> Vec<(u8, u128)> {
    let nonce = |(server, request)| match request {
        Request::Open { nonce } => Some((server, nonce)),
        _ => None,
    };
    cluster.requests().into_iter().filter_map(nonce).collect()
}

#[test]
fn write_fails_over_under_the_same_id() {
    for first in [FakeAction::Close, FakeAction::Nothing, FakeAction::Reply(Reply::NotApplied(WhyNotApplied::Busy))] {
        let cluster = FakeCluster::start(vec![opens_and(move |_, _| first.clone()), good()]);
        let mut client = Client::new(cluster.options()).unwrap();
        client.put(b"a", b"1").unwrap();
        assert_eq!(writes(&cluster), [(1, 7, 1, 1), (2, 7, 1, 1)]);
        // The client stays with the server that answered.
        assert_eq!(client.server(), ServerId(2));
        client.delete(b"a").unwrap();
        assert_eq!(writes(&cluster)[2..], [(2, 7, 2, 2)]);
        assert_eq!(opens(&cluster).len(), 1);
    }
}

#[test]
fn after_the_last_server_comes_the_first() {
    let cluster = FakeCluster::start(vec![good(), Fake::Absent, Fake::TurnsAway]);
    let mut client = Client::new(cluster.options()).unwrap();
    client.set_server(ServerId(2)).unwrap();
    client.put(b"a", b"1").unwrap();
    assert_eq!(client.server(), ServerId(1));
}

#[test]
fn session_open_reuses_its_nonce_in_every_try() {
    let cluster = FakeCluster::start(vec![
        serves(|_, _| FakeAction::Close),
        serves(|n, _| match n {
            0 => FakeAction::Close,
            1 => FakeAction::Reply(Reply::Opened { session: 40, history: 1 }),
            n => FakeAction::Reply(Reply::Applied {
                slot: Slot(n as u64),
                written: crate::kv::WriteResult::Done { version: 1 },
                accepted_by: ServerSet::NONE,
            }),
        }),
    ]);
    let mut client = Client::new(cluster.options()).unwrap();
    client.put(b"a", b"1").unwrap();
    let opens = opens(&cluster);
    assert_eq!(opens.iter().map(|(server, _)| *server).collect::<Vec<_>>(), [1, 2, 1, 2]);
    assert!(opens.iter().all(|(_, nonce)| *nonce == opens[0].1), "{opens:?}");
    assert_eq!(writes(&cluster), [(2, 40, 1, 1)]);
}

#[test]
fn a_write_without_a_session_is_certainly_not_applied() {
    let cluster = FakeCluster::start(vec![serves(|_, _| FakeAction::Nothing)]);
    let mut client = Client::new(cluster.options()).unwrap();
    for _ in 0..2 {
        let error = client.put(b"a", b"1").unwrap_err();
        assert!(matches!(error, ClientError::NotApplied(_)), "{error}");
        assert!(error.to_string().contains("the write was NOT sent"), "{error}");
    }
    // The OPEN may have been applied, so the second write asks for the same session.
    let opens = opens(&cluster);
    assert!(opens.len() >= 2 && opens.iter().all(|(_, nonce)| *nonce == opens[0].1), "{opens:?}");
    assert!(writes(&cluster).is_empty());
}

#[test]
fn an_expired_session_ends_the_write_and_the_next_one_opens_another() {
    let expires = |n, request: &Request| match request {
        Request::Open { .. } => FakeAction::Reply(Reply::Opened { session: 10 + n as u64, history: 1 }),
        Request::Write { session: 10, .. } => FakeAction::Reply(Reply::Unknown(WhyUnknown::Expired)),
        _ => FakeAction::Reply(Reply::Applied {
            slot: Slot(9),
            written: crate::kv::WriteResult::Done { version: 1 },
            accepted_by: ServerSet::NONE,
        }),
    };
    let cluster = FakeCluster::start(vec![serves(expires), good()]);
    let mut client = Client::new(cluster.options()).unwrap();
    assert!(client.put(b"a", b"1").unwrap_err().is_unknown());
    assert_eq!(writes(&cluster), [(1, 10, 1, 1)], "it is not sent again, anywhere");
    assert_eq!(client.put(b"a", b"2"), Ok(WriteResponse::Written { slot: Slot(9), version: 1 }));
    let opens = opens(&cluster);
    assert_eq!(opens.len(), 2);
    assert_ne!(opens[0].1, opens[1].1);
    assert_eq!(writes(&cluster)[1..], [(1, 12, 1, 1)]);
}

#[test]
fn a_superseded_write_ends_its_session_and_the_next_one_opens_another() {
    // Another client used the nonce, or the write was given up: either way the session is unusable.
    let cluster = FakeCluster::start(vec![
        serves(|n, request| match request {
            Request::Open { .. } => FakeAction::Reply(Reply::Opened { session: 10 + n as u64, history: 1 }),
            Request::Write { session: 10, .. } => FakeAction::Reply(Reply::Unknown(WhyUnknown::Superseded)),
            _ => FakeAction::Reply(Reply::Applied {
                slot: Slot(9),
                written: crate::kv::WriteResult::Done { version: 1 },
                accepted_by: ServerSet::NONE,
            }),
        }),
        good(),
    ]);
    let mut client = Client::new(cluster.options()).unwrap();
    assert!(client.put(b"a", b"1").unwrap_err().is_unknown());
    client.put(b"a", b"2").unwrap();
    assert_eq!(writes(&cluster), [(1, 10, 1, 1), (1, 12, 1, 1)]);
    assert_ne!(opens(&cluster)[0].1, opens(&cluster)[1].1);
}

/// A server that opens sessions 10, 20, 30 ..., and accepts only writes of sessions from `good` on.
fn takes_writes_from(good: u64, why: WhyNotApplied) -> Fake {
    let mut last = 0;
    serves(move |_, request| match request {
        Request::Open { .. } => {
            last += 10;
            FakeAction::Reply(Reply::Opened { session: last, history: 1 })
        }
        Request::Write { session, .. } if *session < good => FakeAction::Reply(Reply::NotApplied(why)),
        _ => FakeAction::Reply(Reply::Applied {
            slot: Slot(9),
            written: crate::kv::WriteResult::Done { version: 1 },
            accepted_by: ServerSet::NONE,
        }),
    })
}

#[test]
fn certainly_not_applied_write_continues_in_a_new_session() {
    for why in [WhyNotApplied::Expired, WhyNotApplied::Superseded] {
        let cluster = FakeCluster::start(vec![takes_writes_from(20, why)]);
        let mut client = Client::new(cluster.options()).unwrap();
        assert_eq!(client.put(b"a", b"1"), Ok(WriteResponse::Written { slot: Slot(9), version: 1 }));
        assert_eq!(writes(&cluster), [(1, 10, 1, 1), (1, 20, 1, 1)]);
        client.put(b"a", b"2").unwrap();
        assert_eq!(writes(&cluster)[2..], [(1, 20, 2, 2)], "the new session goes on");
    }
}

#[test]
fn no_write_goes_through_more_than_three_new_sessions() {
    let cluster = FakeCluster::start(vec![takes_writes_from(1_000, WhyNotApplied::Expired)]);
    let mut client = Client::new(cluster.options()).unwrap();
    let error = client.put(b"a", b"1").unwrap_err();
    assert!(matches!(error, ClientError::NotApplied(_)), "{error}");
    let sessions: Vec<u64> = writes(&cluster).into_iter().map(|(_, session, ..)| session).collect();
    assert_eq!(sessions, [10, 20, 30, 40]);
}

#[test]
fn possibly_applied_write_never_continues_in_a_new_session() {
    let perhaps = opens_and(|_, _| FakeAction::Close);
    let cluster = FakeCluster::start(vec![perhaps, takes_writes_from(1_000, WhyNotApplied::Expired)]);
    let mut client = Client::new(cluster.options()).unwrap();
    let error = client.put(b"a", b"1").unwrap_err();
    assert!(error.is_unknown(), "{error}");
    assert_eq!(writes(&cluster), [(1, 7, 1, 1), (2, 7, 1, 1)]);
}

#[test]
fn write_with_unknown_outcome_is_never_sent_again() {
    // The unknown write's sequence is below the next write's first_open. If the unknown write is applied later, it is
    // superseded.
    let unknown = opens_and(|_, _| FakeAction::Reply(Reply::Unknown(WhyUnknown::TimedOut)));
    let cluster = FakeCluster::start(vec![unknown]);
    let mut client = Client::new(cluster.options()).unwrap();
    assert!(client.put(b"a", b"1").unwrap_err().is_unknown());
    assert!(client.put(b"a", b"2").unwrap_err().is_unknown());
    let numbers: Vec<(u64, u64)> =
        writes(&cluster).into_iter().map(|(_, _, sequence, first)| (sequence, first)).collect();
    assert!(numbers.is_sorted() && numbers.first() == Some(&(1, 1)) && numbers.last() == Some(&(2, 2)), "{numbers:?}");
}

#[test]
fn closed_idle_connection_costs_no_try() {
    // The session is opened on a connection that stays open, because its write follows before a closed connection would
    // be noticed.
    let cluster = FakeCluster::start(vec![opens_and(|n, request| {
        FakeAction::ReplyAndClose(super::fake::good_reply(n as u64 + 1, request))
    })]);
    let mut client = Client::new(cluster.options()).unwrap();
    client.on_failover(|failed, _| panic!("{failed}"));
    client.put(b"a", b"1").unwrap();
    // The close arrives after the reply; wait until it is here.
    while client.is_connected() {
        std::thread::yield_now();
    }
    client.put(b"a", b"2").unwrap();
    assert_eq!(writes(&cluster), [(1, 7, 1, 1), (1, 7, 2, 2)]);
}

#[test]
fn a_read_from_one_server_never_comes_from_another() {
    let not_now = serves(|n, request| match n {
        0..=2 => FakeAction::Reply(Reply::NotApplied(WhyNotApplied::Busy)),
        n => FakeAction::Reply(super::fake::good_reply(n as u64, request)),
    });
    let cluster = FakeCluster::start(vec![not_now, good()]);
    let mut client = Client::new(cluster.options()).unwrap();
    assert_eq!(client.get_from_current(b"k").unwrap().value.as_deref(), Some(b"value".as_slice()));
    assert!(cluster.requests().iter().all(|(server, _)| *server == 1));
}
