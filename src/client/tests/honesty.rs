//! Tests that a client reports "not applied" only if that is certain, and accepts only replies that fit the request.

use std::time::{Duration, Instant};

use super::fake::{Fake, FakeAction, FakeCluster, TRY, good, good_reply, opens_and, serves};
use crate::client::Operation;
use crate::client::{Client, ClientError, IN_FLIGHT_MAX, NoReply, RequestKind, Tries, Try, TryEnd, WriteResponse};
use crate::net::{Reply, Request, WhyNotApplied, WhyUnknown, frame};
use crate::paxos::{NotApplied, Slot};
use crate::role::{RoleKind, ServerId, ServerSet};
use crate::trace::{Event, Line, ProcessId, Trace};

fn no_quorum() -> Reply {
    let answered = [ServerId(1), ServerId(2)].into_iter().collect();
    Reply::NotApplied(WhyNotApplied::Proposer(NotApplied::NoQuorum { answered }))
}

fn put(cluster: &FakeCluster) -> Result<WriteResponse, ClientError> {
    Client::new(cluster.options()).unwrap().put(b"k", b"v")
}

/// Every end of a try, and whether the request may then be applied.
fn ends() -> Vec<(TryEnd, bool)> {
    let why = String::new;
    vec![
        (TryEnd::NoReply(NoReply::ConnectionRefused), false),
        (TryEnd::NoReply(NoReply::Unreachable { why: why() }), false),
        (TryEnd::NoReply(NoReply::Rejected { why: why() }), false),
        (TryEnd::NoReply(NoReply::NotSent { why: why() }), false),
        (TryEnd::NoReply(NoReply::TimedOut { waited: TRY }), true),
        (TryEnd::NoReply(NoReply::Broken { why: why() }), true),
        (TryEnd::NoReply(NoReply::Malformed { length: 1, what: why() }), true),
        (TryEnd::NotApplied(WhyNotApplied::Busy), false),
        (TryEnd::NotApplied(WhyNotApplied::RoleDown(RoleKind::Learner)), false),
        (TryEnd::NotApplied(WhyNotApplied::Proposer(NotApplied::Preempted)), false),
        (TryEnd::NotApplied(WhyNotApplied::Proposer(NotApplied::Busy)), false),
        (TryEnd::NotApplied(WhyNotApplied::Proposer(NotApplied::LearnerBehind)), false),
        (TryEnd::NotApplied(WhyNotApplied::Proposer(NotApplied::NoQuorum { answered: ServerSet::NONE })), false),
        (TryEnd::NotApplied(WhyNotApplied::NoReadQuorum(ServerSet::NONE)), false),
        (TryEnd::NotApplied(WhyNotApplied::Superseded), false),
        (TryEnd::NotApplied(WhyNotApplied::Expired), false),
        (TryEnd::Unknown(WhyUnknown::TimedOut), true),
        (TryEnd::Unknown(WhyUnknown::RoleCrashed(RoleKind::Proposer)), true),
        (TryEnd::Unknown(WhyUnknown::Superseded), true),
        (TryEnd::Unknown(WhyUnknown::Expired), true),
    ]
}

#[test]
fn one_possibly_applied_try_makes_a_write_unknown_in_every_combination() {
    let ends = ends();
    for (a, a_may) in &ends {
        for (b, b_may) in &ends {
            for (c, c_may) in &ends {
                for asked in [RequestKind::Write, RequestKind::Order, RequestKind::Read, RequestKind::Session] {
                    let mut tries = Tries::new(ServerSet::first(5), asked);
                    for end in [a, b, c] {
                        tries.push(Try { server: ServerId(1), end: end.clone(), took: TRY });
                    }
                    let error = tries.into_error(3 * TRY);
                    let unknown =
                        (*a_may || *b_may || *c_may) && matches!(asked, RequestKind::Write | RequestKind::Order);
                    assert_eq!(error.is_unknown(), unknown, "{a:?} {b:?} {c:?} {asked:?}");
                    assert_eq!(error.to_string().contains("unknown"), unknown, "{error}");
                }
            }
        }
    }
}

#[test]
fn uncertain_try_stays_recorded_after_many_others() {
    let mut tries = Tries::new(ServerSet::first(5), RequestKind::Write);
    tries.push(Try { server: ServerId(1), end: TryEnd::Unknown(WhyUnknown::TimedOut), took: TRY });
    for _ in 0..1_000 {
        tries.push(Try { server: ServerId(2), end: TryEnd::NotApplied(WhyNotApplied::Busy), took: TRY });
    }
    assert_eq!((tries.count, tries.last.len()), (1_001, 64));
    assert!(tries.into_error(TRY).is_unknown());
}

#[test]
fn each_kind_of_failure_on_the_wire_is_classified_correctly() {
    let garbage = || vec![0xff; 64];
    let oversized = || [u32::MAX.to_le_bytes(), [0; 4]].concat();
    let foreign = || frame(&"no reply at all");
    let cases: Vec<(&str, Fake, bool)> = vec![
        ("absent", Fake::Absent, false),
        ("turned away", Fake::TurnsAway, false),
        ("mute", Fake::Mute, false),
        ("not applied", opens_and(|_, _| FakeAction::Reply(no_quorum())), false),
        ("silent", opens_and(|_, _| FakeAction::Nothing), true),
        ("closed", opens_and(|_, _| FakeAction::Close), true),
        ("garbage", opens_and(move |_, _| FakeAction::Bytes(garbage())), true),
        ("oversized", opens_and(move |_, _| FakeAction::Bytes(oversized())), true),
        ("no reply", opens_and(move |_, _| FakeAction::Bytes(foreign())), true),
        ("half a frame", opens_and(|_, _| FakeAction::Bytes(frame(&no_quorum())[..6].to_vec())), true),
        ("wrong kind", opens_and(|_, _| FakeAction::Reply(Reply::Done)), true),
        ("unknown", opens_and(|_, _| FakeAction::Reply(Reply::Unknown(WhyUnknown::TimedOut))), true),
        ("superseded", opens_and(|_, _| FakeAction::Reply(Reply::Unknown(WhyUnknown::Superseded))), true),
        (
            "certainly superseded",
            opens_and(|_, _| FakeAction::Reply(Reply::NotApplied(WhyNotApplied::Superseded))),
            false,
        ),
        ("certainly expired", opens_and(|_, _| FakeAction::Reply(Reply::NotApplied(WhyNotApplied::Expired))), false),
        ("expired", opens_and(|_, _| FakeAction::Reply(Reply::Unknown(WhyUnknown::Expired))), true),
    ];
    for (name, fake, unknown) in cases {
        let error = put(&FakeCluster::start(vec![fake])).unwrap_err();
        assert_eq!(error.is_unknown(), unknown, "{name}: {error}");
        assert!(matches!(error, ClientError::Unknown(_) | ClientError::NotApplied(_)), "{name}: {error}");
    }
}

#[test]
fn later_not_applied_does_not_cancel_an_earlier_unknown() {
    let perhaps = opens_and(|_, _| FakeAction::Close);
    let no = opens_and(|_, _| FakeAction::Reply(no_quorum()));
    let error = put(&FakeCluster::start(vec![perhaps, no])).unwrap_err();
    assert!(error.is_unknown(), "{error}");
    // A result decides: it is the result of this very write.
    let perhaps = opens_and(|_, _| FakeAction::Close);
    assert_eq!(
        put(&FakeCluster::start(vec![perhaps, good()])),
        Ok(WriteResponse::Written { slot: Slot(1), version: 1 })
    );
    // A refusal proves nothing about an earlier try.
    let perhaps = opens_and(|_, _| FakeAction::Close);
    let refuses = opens_and(|_, _| FakeAction::Reply(Reply::Refused("no".to_string())));
    assert!(put(&FakeCluster::start(vec![perhaps, refuses])).unwrap_err().is_unknown());
}

#[test]
fn refusal_is_final_and_carries_its_reason() {
    let refuses = opens_and(|_, _| FakeAction::Reply(Reply::Refused("not in lab mode".to_string())));
    let cluster = FakeCluster::start(vec![refuses, good()]);
    let error = put(&cluster).unwrap_err();
    assert_eq!(error, ClientError::Refused { server: ServerId(1), why: "not in lab mode".to_string() });
}

#[test]
fn try_without_enough_time_is_not_started() {
    // Such a try would have ended without an answer, and a write that is certainly not applied would be reported as
    // unknown.
    let slow_no = opens_and(|n, _| if n == 1 { FakeAction::Late(TRY / 2, no_quorum()) } else { FakeAction::Nothing });
    let cluster = FakeCluster::start(vec![slow_no]);
    let options = crate::client::ClientOptions { timeout: TRY * 5 / 4, ..cluster.options() };
    let error = Client::new(options).unwrap().put(b"k", b"v").unwrap_err();
    assert!(!error.is_unknown(), "{error}");
    let sentence = error.to_string();
    assert!(sentence.starts_with("no quorum: 1 of 1 acceptors replied to PREPARE within 0."), "{sentence}");
    assert!(sentence.ends_with("The write was NOT applied: no ACCEPT was sent"), "{sentence}");
}

#[test]
fn unreached_servers_are_retried_until_one_restarts_in_time() {
    // A try may be as long as the whole request: no time is reserved for it.
    let patience = Duration::from_secs(60);
    let mut cluster = FakeCluster::start(vec![Fake::Absent]);
    let options = crate::client::ClientOptions { timeout: patience, try_timeout: patience, ..cluster.options() };
    let mut client = Client::new(options).unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    client.on_failover(move |failed, _| told.send(failed.clone()).unwrap());
    let put = std::thread::spawn(move || client.put(b"k", b"v"));
    let refused = heard.recv().unwrap();
    assert_eq!(refused.end, TryEnd::NoReply(NoReply::ConnectionRefused));
    cluster.wake(good());
    assert!(put.join().unwrap().is_ok());
}

#[test]
fn write_with_little_time_is_sent_only_if_no_server_was_reached_before() {
    let half = TRY / 2;
    for asked in [RequestKind::Session, RequestKind::Write] {
        for (end, may_be_applied) in ends() {
            let mut tries = Tries::new(ServerSet::first(3), asked);
            tries.push(Try { server: ServerId(1), end: end.clone(), took: TRY });
            let not_reached = matches!(end, TryEnd::NoReply(NoReply::ConnectionRefused | NoReply::Unreachable { .. }));
            assert_eq!(tries.are_worth_another(half, TRY), not_reached || may_be_applied, "{end:?}");
            assert!(tries.are_worth_another(TRY, TRY) && !tries.are_worth_another(Duration::ZERO, TRY), "{end:?}");
            // A server that answered shows how long an answer takes.
            let busy = TryEnd::NotApplied(WhyNotApplied::Busy);
            tries.push(Try { server: ServerId(2), end: busy, took: TRY });
            assert_eq!(tries.are_worth_another(half, TRY), may_be_applied, "{end:?}");
        }
    }
}

#[test]
fn stopped_client_reports_what_is_known() {
    for (fake, is_unknown) in [
        (opens_and(|_, _| FakeAction::Nothing), true),
        (serves(|_, _| FakeAction::Nothing), false),
        (Fake::Absent, false),
        (Fake::Mute, false),
    ] {
        let is_heard = !matches!(fake, Fake::Absent | Fake::Mute);
        let cluster = FakeCluster::start(vec![fake]);
        // Without the stop, the request would take ten minutes.
        let patience = Duration::from_secs(600);
        let options = crate::client::ClientOptions { timeout: patience, ..cluster.options() };
        let mut client = Client::new(options).unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        client.stop_when(stop.clone());
        let put = std::thread::spawn(move || client.put(b"k", b"v"));
        let started = |(_, request): &(u8, Request)| is_unknown == matches!(request, Request::Write { .. });
        while is_heard && !cluster.requests().iter().any(started) {
            std::thread::yield_now();
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let error = put.join().unwrap().unwrap_err();
        assert_eq!(error.is_unknown(), is_unknown, "{error}");
    }
}

#[test]
fn stopped_client_sends_no_new_request() {
    let cluster = FakeCluster::start(vec![good()]);
    let mut client = Client::new(cluster.options()).unwrap();
    client.put(b"k", b"v").unwrap();
    client.stop_when(std::sync::Arc::new(true.into()));
    let before = cluster.requests().len();
    assert!(matches!(client.put(b"k", b"w"), Err(ClientError::NotApplied(_))));
    assert!(matches!(client.get(b"k"), Err(ClientError::NotApplied(_))));
    assert!(matches!(client.crash(ServerId(1), None, None), Err(ClientError::NotApplied(_))));
    assert_eq!(cluster.requests().len(), before);
}

#[test]
fn stopped_client_does_not_send_a_request_that_waits_for_room() {
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stops = stop.clone();
    let silent = serves(move |n, _| {
        if n + 1 == IN_FLIGHT_MAX {
            stops.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        FakeAction::Nothing
    });
    let cluster = FakeCluster::start(vec![silent]);
    let mut client = Client::new(cluster.options()).unwrap();
    client.stop_when(stop);
    let get = || Operation::Get { key: b"k".to_vec() };
    for _ in 0..IN_FLIGHT_MAX {
        client.queue(get()).unwrap();
    }
    let last = client.queue(get()).unwrap();
    assert!(matches!(client.wait(last).end, Err(ClientError::NotApplied(_))));
    assert_eq!(cluster.requests().len(), IN_FLIGHT_MAX);
}

#[test]
fn replies_to_other_requests_are_logged_and_ignored() {
    let trace = Trace::to_memory(ProcessId::named("c1").unwrap());
    let right = || Reply::Applied {
        slot: Slot(9),
        written: crate::kv::WriteResult::Done { version: 3 },
        accepted_by: ServerSet::NONE,
    };
    let confused = opens_and(move |_, _| FakeAction::Unrequested(vec![1_000, 2_000], right()));
    let cluster = FakeCluster::start(vec![confused]);
    let options = crate::client::ClientOptions { trace: trace.clone(), ..cluster.options() };
    let mut client = Client::new(options).unwrap();
    assert_eq!(client.put(b"k", b"v"), Ok(WriteResponse::Written { slot: Slot(9), version: 3 }));
    assert_eq!(trace.text().matches("received an unrequested reply").count(), 2, "{}", trace.text());

    let flood = opens_and(move |_, _| FakeAction::Unrequested((1..100).collect(), right()));
    let error = put(&FakeCluster::start(vec![flood])).unwrap_err();
    // The last try may end because the time is up.
    let ClientError::Unknown(tries) = &error else { panic!("{error}") };
    assert!(tries.last[0].to_string().contains("requests that were not made"), "{error}");
}

#[test]
fn failed_reads_are_not_applied_for_every_reason() {
    for act in [
        FakeAction::Nothing,
        FakeAction::Close,
        FakeAction::Reply(Reply::Done),
        FakeAction::Reply(Reply::NotApplied(WhyNotApplied::Busy)),
    ] {
        let cluster = FakeCluster::start(vec![serves(move |_, _| act.clone())]);
        let error = Client::new(cluster.options()).unwrap().get(b"k").unwrap_err();
        assert!(matches!(error, ClientError::NotApplied(_)), "{error}");
        assert!(error.to_string().ends_with("The read was NOT done"), "{error}");
    }
}

#[test]
fn deadline_holds_for_every_kind_of_silent_server() {
    for fake in [Fake::Mute, opens_and(|_, _| FakeAction::Nothing), serves(|_, _| FakeAction::Nothing), Fake::Absent] {
        let cluster = FakeCluster::start(vec![fake]);
        let started = Instant::now();
        put(&cluster).unwrap_err();
        // Allows two seconds for a busy machine; without the deadline the request would never end.
        assert!(started.elapsed() < 4 * TRY + Duration::from_secs(2), "{:?}", started.elapsed());
    }
}

#[test]
fn cluster_that_is_down_is_retried_with_pauses() {
    let cluster = FakeCluster::start(vec![Fake::Absent, Fake::Absent, Fake::Absent]);
    let ClientError::NotApplied(tries) = put(&cluster).unwrap_err() else { panic!("no server was there to apply it") };
    assert!((6..200).contains(&tries.count), "{} tries", tries.count);
    let sentence = ClientError::NotApplied(tries).to_string();
    assert!(sentence.starts_with("no server is running: 3 of 3 refused the connection"), "{sentence}");
}

#[test]
fn too_large_requests_are_never_sent() {
    let cluster = FakeCluster::start(vec![good()]);
    let mut client = Client::new(cluster.options()).unwrap();
    let (key, value) = (vec![b'k'; 4 << 10], vec![b'v'; 1 << 20]);
    assert!(matches!(client.put([&key[..], b"k"].concat(), b"v"), Err(ClientError::TooLarge(_))));
    assert!(matches!(client.put(b"k", [&value[..], b"v"].concat()), Err(ClientError::TooLarge(_))));
    assert!(matches!(client.get([&key[..], b"k"].concat()), Err(ClientError::TooLarge(_))));
    assert!(cluster.requests().is_empty());
    assert!(client.put(&key, &value).is_ok(), "both limits are inclusive");
}

#[test]
fn unknown_server_is_an_error_of_the_caller() {
    let cluster = FakeCluster::start(vec![good()]);
    let mut client = Client::new(cluster.options()).unwrap();
    let wrong = Err(ClientError::NoSuchServer { server: ServerId(9), known: ServerSet::first(1) });
    assert_eq!(client.set_server(ServerId(9)), wrong);
    assert_eq!(client.crash(ServerId(9), None, None), wrong);
}

#[test]
fn crash_order_is_sent_once_to_one_server() {
    let cluster = FakeCluster::start(vec![serves(|_, _| FakeAction::Close), good()]);
    let mut client = Client::new(cluster.options()).unwrap();
    assert!(client.crash(ServerId(1), None, Some(TRY)).unwrap_err().is_unknown());
    assert_eq!(cluster.requests().len(), 1);
    client.crash(ServerId(2), Some(RoleKind::Acceptor), None).unwrap();
    let order = Request::Crash { role: Some(RoleKind::Acceptor), down_ms: None };
    assert_eq!(cluster.requests()[1], (2, order));
}

#[test]
fn every_request_is_logged_with_its_failovers_and_its_result() {
    let trace = Trace::to_memory(ProcessId::named("c1").unwrap());
    let cluster = FakeCluster::start(vec![opens_and(|_, _| FakeAction::Close), good()]);
    let options = crate::client::ClientOptions { trace: trace.clone(), ..cluster.options() };
    let mut client = Client::new(options).unwrap();
    client.put(b"k", b"v").unwrap();
    assert_eq!(client.last_label(), "c1-2");
    let lines: Vec<Line> = trace.text().lines().map(|line| line.parse().unwrap()).collect();
    let names: Vec<&str> = lines.iter().map(|line| line.event.name()).collect();
    assert_eq!(names, ["REQUEST", "RESPONSE", "REQUEST", "FAILOVER", "RESPONSE"]);
    assert!(lines[2..].iter().all(|line| line.req.as_deref() == Some("c1-2")));

    // A request without a result is logged too.
    let trace = Trace::to_memory(ProcessId::named("c1").unwrap());
    let cluster = FakeCluster::start(vec![opens_and(|_, _| FakeAction::Nothing)]);
    let options = crate::client::ClientOptions { trace: trace.clone(), timeout: TRY, ..cluster.options() };
    Client::new(options).unwrap().put(b"k", b"v").unwrap_err();
    let last: Line = trace.text().lines().last().unwrap().parse().unwrap();
    assert!(matches!(last.event, Event::Timeout { status: crate::trace::RequestStatus::Unknown, .. }), "{last}");
}

#[test]
fn failover_is_reported_in_one_sentence() {
    let cluster = FakeCluster::start(vec![
        opens_and(|_, _| FakeAction::Nothing),
        serves(|n, r| FakeAction::Reply(good_reply(n as u64, r))),
    ]);
    let mut client = Client::new(cluster.options()).unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    client.on_failover(move |failed, next| told.send(failed.and_next(next)).unwrap());
    client.put(b"k", b"v").unwrap();
    let heard: Vec<String> = heard.try_iter().collect();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].starts_with("server 1 did not reply within 0."), "{heard:?}");
    assert!(heard[0].ends_with(" s; trying server 2"), "{heard:?}");
}
