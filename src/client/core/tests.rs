//! Tests of each rule of the core, on a scripted wire.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::outcome::{ClientError, TryEnd};
use super::session::AssignedWrite;
use super::wire::{ClientObservation, ConnectionState, NoReply, Wire};
use super::{ClientCore, ClientIdentity, Finished, RequestHandle, Route};
use crate::kv::{Op, WriteResult};
use crate::net::{ClientReply, ClientRequest, Reply, Request, WhyNotApplied, WhyUnknown};
use crate::paxos::{NotApplied, Slot};
use crate::random::Random;
use crate::role::{RoleKind, ServerId, ServerSet};
use crate::time::Time;
use crate::trace::{Trace, TraceContext};

/// Maximum time for a try.
const TRY: Duration = Duration::from_secs(1);
/// Maximum time for a request.
const ALL: Duration = Duration::from_secs(10);
/// The history of the servers' data.
const HISTORY: u64 = 1;

/// A connection controlled by the test.
struct ScriptedConnection {
    stage: ConnectionState,
    /// The requests that were queued on it.
    queued: Vec<ClientRequest>,
    /// Number of these requests that are sent.
    sent: usize,
    /// The connection accepts no more data.
    is_clogged: bool,
    inbox: Vec<ClientReply>,
    lost: Option<NoReply>,
}

/// The scripted connections, and a record of their use.
struct Script {
    lines: BTreeMap<ServerId, ScriptedConnection>,
    /// The state of a new connection to each server; without an entry it is ready at once.
    opens: BTreeMap<ServerId, Result<ConnectionState, NoReply>>,
    /// New connections accept no data.
    is_clogged: bool,
    /// Each connection that was begun, with the history that the client knew.
    opened: Vec<(u8, u64)>,
    closed: Vec<u8>,
    /// Each try: the server, the number of the request, and the request.
    asked: Vec<(u8, u64, Request)>,
    named: Vec<(RequestHandle, AssignedWrite)>,
    unnamed: Vec<RequestHandle>,
    failovers: Vec<(TryEnd, u8)>,
}

impl Wire for Script {
    fn open(&mut self, server: ServerId, history: u64) -> Result<(), NoReply> {
        assert!(!self.lines.contains_key(&server), "one connection a server");
        self.opened.push((server.0, history));
        let stage = self.opens.get(&server).cloned().unwrap_or(Ok(ConnectionState::Ready { history: HISTORY }))?;
        let is_clogged = self.is_clogged;
        let line = ScriptedConnection { stage, queued: Vec::new(), sent: 0, is_clogged, inbox: Vec::new(), lost: None };
        self.lines.insert(server, line);
        Ok(())
    }

    fn close(&mut self, server: ServerId) {
        self.closed.push(server.0);
        self.lines.remove(&server);
    }

    fn stage(&self, server: ServerId) -> ConnectionState {
        self.lines[&server].stage
    }

    fn address(&self, server: ServerId) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, server.0.into()))
    }

    fn queue(&mut self, server: ServerId, request: &ClientRequest) -> u64 {
        self.asked.push((server.0, request.number, request.request.clone()));
        let line = self.lines.get_mut(&server).unwrap();
        line.queued.push(request.clone());
        line.queued.len() as u64
    }

    fn sent(&self, server: ServerId) -> u64 {
        self.lines[&server].sent as u64
    }

    fn transmit(&mut self, server: ServerId) -> Result<(), NoReply> {
        let line = self.lines.get_mut(&server).unwrap();
        if matches!(line.stage, ConnectionState::Ready { .. }) && !line.is_clogged {
            line.sent = line.queued.len();
        }
        Ok(())
    }

    fn receive(&mut self, server: ServerId, replies: &mut Vec<ClientReply>) -> Result<(), NoReply> {
        let line = self.lines.get_mut(&server).unwrap();
        replies.append(&mut line.inbox);
        line.lost.take().map_or(Ok(()), Err)
    }

    fn observe(&mut self, seen: ClientObservation<'_>) {
        match seen {
            ClientObservation::Named { handle, id } => self.named.push((handle, id)),
            ClientObservation::Unnamed { handle } => self.unnamed.push(handle),
            ClientObservation::FailedOver { failed, next } => self.failovers.push((failed.end.clone(), next.0)),
        }
    }
}

/// A client of three servers, and its clock.
struct ClientCase {
    core: ClientCore,
    wire: Script,
    now: Time,
}

impl ClientCase {
    fn new() -> ClientCase {
        let identity = ClientIdentity {
            name: "c1".to_string(),
            cluster: "three".to_string(),
            servers: ServerSet::first(3),
            try_timeout: TRY,
            trace: Trace::disabled(),
        };
        let mut nonce = 0;
        let nonces = Box::new(move || {
            nonce += 1;
            nonce
        });
        let wire = Script {
            lines: BTreeMap::new(),
            opens: BTreeMap::new(),
            is_clogged: false,
            opened: Vec::new(),
            closed: Vec::new(),
            asked: Vec::new(),
            named: Vec::new(),
            unnamed: Vec::new(),
            failovers: Vec::new(),
        };
        ClientCase { core: ClientCore::new(identity, ServerId(1), nonces, Random::new(1, 1)), wire, now: Time(1_000) }
    }

    /// A client with an open session.
    fn with_session() -> ClientCase {
        let mut case = ClientCase::new();
        let handle = case.put("first");
        case.progress();
        case.replies(1, Reply::Opened { session: 7, history: HISTORY });
        case.replies(1, applied());
        assert!(case.result(handle).is_ok());
        case.wire.asked.clear();
        case
    }

    fn progress(&mut self) {
        self.core.poll(self.now, &mut self.wire);
    }

    fn passes(&mut self, time: Duration) {
        self.now = self.now + time;
        self.progress();
    }

    fn put(&mut self, key: &str) -> RequestHandle {
        let op = Op::Put { key: key.as_bytes().to_vec(), value: b"v".to_vec().into(), if_version: None };
        let handle = self.core.write(self.now, self.now + ALL, op, &mut self.wire);
        self.core.transmit(self.now, &mut self.wire);
        handle
    }

    fn get(&mut self) -> RequestHandle {
        let handle = self.core.read(self.now, self.now + ALL, b"k".to_vec(), Route::Any, &mut self.wire);
        self.core.transmit(self.now, &mut self.wire);
        handle
    }

    /// The server answers its last request.
    fn replies(&mut self, server: u8, reply: Reply) {
        let number = self.wire.asked.iter().rev().find(|one| one.0 == server).unwrap().1;
        self.says(server, number, reply);
    }

    /// The server answers the request with this number.
    fn says(&mut self, server: u8, number: u64, reply: Reply) {
        let reply = ClientReply { number, context: TraceContext::default(), reply };
        self.now = self.now + Duration::from_millis(1);
        self.wire.lines.get_mut(&ServerId(server)).unwrap().inbox.push(reply);
        self.progress();
    }

    fn breaks(&mut self, server: u8) {
        self.loses(server, NoReply::Broken { why: "broken".to_string() });
    }

    fn loses(&mut self, server: u8, why: NoReply) {
        self.wire.lines.get_mut(&ServerId(server)).unwrap().lost = Some(why);
        self.progress();
        // The next try is due at once, unless all servers have failed.
        self.progress();
    }

    fn opens(&mut self, server: u8, how: Result<ConnectionState, NoReply>) {
        self.wire.opens.insert(ServerId(server), how);
    }

    /// The servers that were asked, in order.
    fn asked(&self) -> Vec<u8> {
        self.wire.asked.iter().map(|one| one.0).collect()
    }

    fn result(&mut self, handle: RequestHandle) -> Result<Reply, ClientError> {
        self.ended(handle).expect("it has ended")
    }

    fn ended(&mut self, handle: RequestHandle) -> Option<Result<Reply, ClientError>> {
        self.core.take(handle).map(|Finished { result, .. }| result)
    }

    /// Advances the clock until this request has ended.
    fn waits(&mut self, handle: RequestHandle) -> Result<Reply, ClientError> {
        loop {
            if let Some(result) = self.ended(handle) {
                return result;
            }
            self.now = self.now.max(self.core.due().expect("something is due"));
            self.progress();
        }
    }
}

fn applied() -> Reply {
    Reply::Applied { slot: Slot(9), written: WriteResult::Done { version: 1 }, accepted_by: ServerSet::NONE }
}

fn found() -> Reply {
    Reply::Value { slot: Slot(9), value: None, version: 0 }
}

fn busy() -> Reply {
    Reply::NotApplied(WhyNotApplied::Busy)
}

fn expired() -> Reply {
    Reply::NotApplied(WhyNotApplied::Expired)
}

/// The session, nonce and sequence of each try of a write.
fn writes(case: &ClientCase) -> Vec<(u64, u128, u64)> {
    let name = |(_, _, request): &(u8, u64, Request)| match request {
        Request::Write { session, nonce, sequence, .. } => Some((*session, *nonce, *sequence)),
        _ => None,
    };
    case.wire.asked.iter().filter_map(name).collect()
}

#[test]
fn each_try_has_its_own_number_and_all_tries_of_a_write_one_id() {
    let mut case = ClientCase::with_session();
    let handle = case.put("k");
    case.replies(1, busy());
    case.replies(2, busy());
    let numbers: Vec<u64> = case.wire.asked.iter().map(|one| one.1).collect();
    assert!(numbers.windows(2).all(|two| two[0] < two[1]) && numbers.len() == 3, "{numbers:?}");
    assert_eq!(writes(&case), [(7, 1, 2); 3]);
    assert_eq!(case.asked(), [1, 2, 3]);
    case.replies(3, applied());
    assert_eq!(case.result(handle), Ok(applied()));
    assert_eq!(case.core.server(), ServerId(3), "the next request goes to the one that answered");
}

#[test]
fn requests_that_fail_on_one_server_all_go_to_the_next() {
    let mut case = ClientCase::with_session();
    (0..4).for_each(|_| _ = case.put("k"));
    for number in case.wire.asked.clone().into_iter().map(|one| one.1) {
        case.says(1, number, busy());
    }
    assert_eq!(case.asked(), [1, 1, 1, 1, 2, 2, 2, 2], "none skips a server because of another");
}

#[test]
fn ended_connection_fails_only_the_requests_that_wait_on_it() {
    let mut case = ClientCase::with_session();
    let (one, other) = (case.put("a"), case.put("b"));
    case.core.set_server(ServerId(3)).unwrap();
    let elsewhere = case.put("c");
    case.breaks(1);
    assert_eq!(case.asked(), [1, 1, 3, 3, 3]);
    assert!([one, other, elsewhere].into_iter().all(|handle| case.core.has(handle)));
    assert_eq!(case.core.server(), ServerId(3), "the one that failed is not the current one");
}

#[test]
fn incompletely_sent_request_is_certainly_not_applied() {
    for (is_clogged, is_unknown) in [(true, false), (false, true)] {
        for why in [NoReply::Broken { why: String::new() }, NoReply::Malformed { length: 1, what: String::new() }] {
            let mut case = ClientCase::with_session();
            case.wire.lines.get_mut(&ServerId(1)).unwrap().is_clogged = is_clogged;
            let handle = case.put("k");
            for server in [2, 3] {
                case.opens(server, Err(NoReply::ConnectionRefused));
            }
            case.opens(1, Err(NoReply::ConnectionRefused));
            case.loses(1, why.clone());
            let error = case.waits(handle).unwrap_err();
            assert_eq!(error.is_unknown(), is_unknown, "{why:?}: {error}");
        }
    }
}

#[test]
fn late_request_moves_alone_if_the_server_replies_to_others_else_the_connection_closes() {
    let mut case = ClientCase::with_session();
    let (silent, answered) = (case.get(), case.get());
    case.replies(1, found());
    assert!(case.result(answered).is_ok());
    let number = case.wire.asked[0].1;
    case.passes(TRY / 2);
    case.get();
    case.passes(TRY / 2);
    case.passes(Duration::ZERO);
    assert_eq!((case.asked(), case.wire.closed.len()), (vec![1, 1, 1, 2], 0));
    // The late reply is expected, and ignored.
    for _ in 0..2 {
        case.says(1, number, found());
    }
    assert!(case.ended(silent).is_none());
    case.replies(2, found());
    assert!(case.result(silent).is_ok());

    let mut case = ClientCase::with_session();
    let first = case.get();
    case.passes(TRY / 2);
    let handles = [first, case.get()];
    case.passes(TRY / 2);
    case.passes(Duration::ZERO);
    assert_eq!(
        (case.asked(), case.wire.closed.clone()),
        (vec![1, 1, 2, 2], vec![1]),
        "with the one that had time left"
    );
    assert!(handles.into_iter().all(|handle| case.core.has(handle)));
}

#[test]
fn request_without_time_left_ends_no_other() {
    let mut case = ClientCase::with_session();
    let patient = case.put("k");
    let hasty = Duration::from_millis(10);
    let read = case.core.read(case.now, case.now + hasty, b"k".to_vec(), Route::Any, &mut case.wire);
    case.core.transmit(case.now, &mut case.wire);
    case.passes(hasty);
    assert!(case.result(read).is_err());
    assert!(case.wire.closed.is_empty());
    let number = case.wire.asked[0].1;
    case.says(1, number, applied());
    assert!(case.result(patient).is_ok());
    // If the connection stayed open, an unsent write would be sent after its client was told that it is not applied.
    case.core.set_server(ServerId(1)).unwrap();
    case.wire.lines.get_mut(&ServerId(1)).unwrap().is_clogged = true;
    let op = Op::Delete { key: b"k".to_vec() };
    let write = case.core.write(case.now, case.now + TRY, op, &mut case.wire);
    case.core.transmit(case.now, &mut case.wire);
    case.passes(TRY);
    assert!(matches!(case.result(write), Err(ClientError::NotApplied(_))));
    assert_eq!(case.wire.closed, [1]);
}

#[test]
fn session_end_is_a_valid_reply_only_to_a_write() {
    let ended = [expired(), Reply::Unknown(WhyUnknown::Expired), Reply::NotApplied(WhyNotApplied::Superseded)];
    for reply in ended {
        let mut case = ClientCase::with_session();
        let read = case.get();
        case.replies(1, reply.clone());
        case.progress();
        assert_eq!((case.wire.closed.clone(), case.asked()), (vec![1], vec![1, 2]), "{reply:?}");
        case.replies(2, found());
        assert!(case.result(read).is_ok());

        let mut case = ClientCase::new();
        let write = case.put("k");
        case.progress();
        case.replies(1, reply.clone());
        case.progress();
        assert_eq!(case.core.in_flight(), 1);
        case.replies(2, Reply::Opened { session: 7, history: HISTORY });
        case.replies(2, applied());
        assert!(case.result(write).is_ok(), "{reply:?}");
    }
}

#[test]
fn connection_closes_when_too_many_replies_are_missing() {
    for are_late in [true, false] {
        let mut case = ClientCase::with_session();
        for round in 0..=256 {
            let deadline = case.now + TRY;
            let silent = case.core.read(case.now, deadline, b"k".to_vec(), Route::One, &mut case.wire);
            let number = case.wire.asked.last().unwrap().1;
            let answered = case.get();
            case.replies(1, found());
            assert!(case.result(answered).is_ok());
            assert!(case.wire.closed.is_empty(), "after {round}");
            case.passes(TRY);
            assert!(case.result(silent).is_err());
            if are_late {
                case.says(1, number, found());
            }
        }
        assert_eq!(case.wire.closed.contains(&1), !are_late);
    }
}

#[test]
fn connection_that_is_not_ready_in_time_has_sent_nothing() {
    for stage in [ConnectionState::Connecting, ConnectionState::ShakingHands] {
        let mut case = ClientCase::with_session();
        case.breaks(1);
        for server in 1..=3 {
            case.opens(server, Ok(stage));
        }
        let handle = case.put("k");
        let error = case.waits(handle).unwrap_err();
        let ClientError::NotApplied(tries) = &error else { panic!("{error}") };
        assert!(
            tries.last.iter().all(|one| matches!(one.end, TryEnd::NoReply(NoReply::Unreachable { .. }))),
            "{error}"
        );
    }
}

#[test]
fn write_is_not_tried_with_too_little_time_for_a_reply() {
    // Such a write usually gets no answer, and its outcome would be unknown, although it is certainly not applied so
    // far.
    let mut case = ClientCase::with_session();
    let handle = case.put("k");
    case.now = case.now + (ALL - TRY / 2);
    case.replies(1, busy());
    assert!(matches!(case.result(handle), Err(ClientError::NotApplied(_))));
    assert_eq!(case.asked(), [1]);
}

#[test]
fn only_the_asked_server_can_reply() {
    let mut case = ClientCase::with_session();
    let handle = case.get();
    let number = case.wire.asked[0].1;
    case.core.set_server(ServerId(2)).unwrap();
    case.get();
    case.says(2, number, found());
    assert!(case.ended(handle).is_none());
    case.says(1, number, found());
    assert!(case.result(handle).is_ok());
}

#[test]
fn reply_of_the_wrong_kind_ends_the_connection_and_later_replies_are_ignored() {
    let mut case = ClientCase::with_session();
    let (one, other) = (case.put("a"), case.put("b"));
    let [(_, first, _), (_, second, _)] = case.wire.asked[..] else { panic!() };
    let context = TraceContext::default;
    let inbox = &mut case.wire.lines.get_mut(&ServerId(1)).unwrap().inbox;
    inbox.push(ClientReply { number: first, context: context(), reply: found() });
    inbox.push(ClientReply { number: second, context: context(), reply: applied() });
    case.progress();
    assert_eq!(case.wire.closed, [1]);
    assert!(case.ended(one).is_none() && case.ended(other).is_none());
}

#[test]
fn server_with_many_unrequested_replies_is_disconnected() {
    let mut case = ClientCase::with_session();
    case.get();
    for n in 0..16 {
        case.says(1, 1_000 + n, found());
        assert!(case.wire.closed.is_empty(), "after {n}");
    }
    case.says(1, 2_000, found());
    assert_eq!(case.wire.closed, [1]);
}

#[test]
fn refusal_is_final_unless_an_earlier_try_may_have_been_applied() {
    let refused = || Reply::Refused("no".to_string());
    let mut case = ClientCase::with_session();
    let handle = case.put("k");
    case.replies(1, refused());
    assert!(matches!(case.result(handle), Err(ClientError::Refused { server: ServerId(1), .. })));
    let handle = case.put("k");
    case.breaks(1);
    case.replies(2, refused());
    assert!(case.result(handle).unwrap_err().is_unknown());
}

#[test]
fn pause_follows_a_round_of_quick_failures_but_not_of_slow_ones() {
    let mut case = ClientCase::new();
    for server in 1..=3 {
        case.opens(server, Err(NoReply::ConnectionRefused));
    }
    case.get();
    (0..10).for_each(|_| case.progress());
    assert_eq!(case.wire.opened.len(), 3, "each was asked once");
    let pause = case.core.due().unwrap().since(case.now);
    assert!((Duration::from_millis(5)..=Duration::from_millis(15)).contains(&pause), "{pause:?}");

    let mut case = ClientCase::with_session();
    case.get();
    for _ in 0..5 {
        case.passes(TRY);
        case.passes(Duration::ZERO);
    }
    assert_eq!(case.asked(), [1, 2, 3, 1, 2, 3]);
}

#[test]
fn request_to_one_server_goes_to_no_other_and_an_order_is_sent_once() {
    let mut case = ClientCase::with_session();
    let read = case.core.read(case.now, case.now + ALL, b"k".to_vec(), Route::One, &mut case.wire);
    case.replies(1, busy());
    case.passes(TRY);
    case.replies(1, found());
    assert!(case.result(read).is_ok());
    assert_eq!(case.asked(), [1, 1]);
    let crash = Request::Crash { role: Some(RoleKind::Learner), down_ms: None };
    let order = case.core.ask_one(case.now, case.now + ALL, ServerId(2), crash, &mut case.wire).unwrap();
    case.progress();
    case.breaks(2);
    assert!(case.result(order).unwrap_err().is_unknown());
    assert_eq!(case.asked(), [1, 1, 2]);
    assert_eq!(case.core.server(), ServerId(1));
    let unknown = case.core.ask_one(case.now, case.now + ALL, ServerId(9), Request::Status, &mut case.wire);
    assert!(matches!(unknown, Err(ClientError::NoSuchServer { .. })));
}

#[test]
fn writes_wait_for_one_session_and_are_then_sent_concurrently() {
    let mut case = ClientCase::new();
    let handles = ["a", "b", "c"].map(|key| case.put(key));
    assert_eq!(case.wire.asked.len(), 1, "one OPEN for all");
    assert_eq!(case.core.in_flight(), 3, "the OPEN is not the caller's");
    case.replies(1, busy());
    case.replies(2, Reply::Opened { session: 7, history: HISTORY });
    assert_eq!(writes(&case), [(7, 1, 1), (7, 1, 2), (7, 1, 3)]);
    let named: Vec<_> = case.wire.named.iter().map(|(handle, id)| (*handle, id.sequence)).collect();
    assert_eq!(named, [(handles[0], 1), (handles[1], 2), (handles[2], 3)]);
}

#[test]
fn write_continues_in_a_new_session_only_if_no_try_may_have_been_applied() {
    let mut case = ClientCase::with_session();
    let (certain, perhaps) = (case.put("a"), case.put("b"));
    let (first, second) = (case.wire.asked[0].1, case.wire.asked[1].1);
    case.says(1, second, Reply::Unknown(WhyUnknown::TimedOut));
    case.replies(2, expired());
    case.says(1, first, expired());
    assert!(case.result(perhaps).unwrap_err().is_unknown());
    assert_eq!(case.wire.unnamed, [certain]);
    case.replies(2, Reply::Opened { session: 20, history: HISTORY });
    assert_eq!(writes(&case).last(), Some(&(20, 2, 1)), "another nonce, numbered from 1");
    // A second session has ended while the write was in flight: the next nonce is the third one.
    case.replies(2, Reply::NotApplied(WhyNotApplied::Superseded));
    for session in [30, 40] {
        case.replies(2, Reply::Opened { session, history: HISTORY });
        case.replies(2, expired());
    }
    assert!(matches!(case.result(certain), Err(ClientError::NotApplied(_))), "after three new sessions");
    assert_eq!(writes(&case).last(), Some(&(40, 4, 1)), "and not before");
}

#[test]
fn late_reply_about_an_ended_session_ends_no_other_session() {
    let mut case = ClientCase::with_session();
    let (one, other) = (case.put("a"), case.put("b"));
    let (first, second) = (case.wire.asked[0].1, case.wire.asked[1].1);
    case.says(1, first, expired());
    case.replies(1, Reply::Opened { session: 20, history: HISTORY });
    case.says(1, second, expired());
    case.progress();
    assert_eq!(writes(&case), [(7, 1, 2), (7, 1, 3), (20, 2, 1), (20, 2, 2)]);
    assert!(case.core.has(one) && case.core.has(other));
}

#[test]
fn write_without_a_sequence_ends_at_its_deadline() {
    let mut case = ClientCase::new();
    let op = Op::Delete { key: b"k".to_vec() };
    let hasty = case.core.write(case.now, case.now + TRY / 4, op, &mut case.wire);
    let patient = case.put("k");
    case.passes(TRY / 4);
    assert!(matches!(case.result(hasty), Err(ClientError::NotApplied(_))));
    assert!(case.core.has(patient));
}

#[test]
fn all_writes_fail_with_the_reason_if_no_session_opens_and_the_next_reuses_the_nonce() {
    let mut case = ClientCase::new();
    let handles = ["a", "b"].map(|key| case.put(key));
    for handle in handles {
        let error = case.waits(handle).unwrap_err();
        assert!(matches!(error, ClientError::NotApplied(_)), "{error}");
    }
    case.put("c");
    let nonces = case.wire.asked.iter().filter_map(|one| match one.2 {
        Request::Open { nonce } => Some(nonce),
        _ => None,
    });
    assert!(nonces.clone().count() > 3 && nonces.clone().all(|nonce| nonce == 1), "{:?}", nonces.collect::<Vec<_>>());
}

#[test]
fn other_history_is_reported_once_and_gets_a_new_session() {
    let other = || NoReply::OtherHistory { cluster: "three".to_string(), known: HISTORY, found: 2 };
    let mut case = ClientCase::with_session();
    case.breaks(1);
    case.opens(1, Ok(ConnectionState::ShakingHands));
    let handle = case.put("k");
    assert_eq!(
        case.wire.opened.last(),
        Some(&(1, HISTORY)),
        "the handshake carries the history that this client knows"
    );
    case.loses(1, other());
    assert!(matches!(case.result(handle), Err(ClientError::NotApplied(_))));
    assert_eq!(case.core.history(), Some(2));
    case.opens(1, Ok(ConnectionState::Ready { history: 2 }));
    case.put("k");
    assert!(matches!(case.wire.asked.last(), Some((1, _, Request::Open { nonce: 2 }))), "{:?}", case.wire.asked);
    // A session that is opened in a third history is reported too.
    let handle = case.put("k");
    case.replies(1, Reply::Opened { session: 3, history: 3 });
    assert!(matches!(case.result(handle), Err(ClientError::NotApplied(_))));
    assert_eq!(case.core.history(), Some(3));
}

#[test]
fn client_that_knows_a_history_ignores_reads_from_empty_data() {
    let mut case = ClientCase::with_session();
    case.opens(2, Ok(ConnectionState::Ready { history: 0 }));
    case.core.set_server(ServerId(2)).unwrap();
    let read = case.get();
    case.replies(2, found());
    assert!(case.ended(read).is_none() && case.wire.closed.contains(&2));
    case.progress();
    assert_eq!(case.asked(), [2, 3]);
    case.replies(3, found());
    assert!(case.result(read).is_ok());
    // A server that has applied a write of this session has the data.
    case.core.set_server(ServerId(2)).unwrap();
    let write = case.put("k");
    case.replies(2, applied());
    assert!(case.result(write).is_ok());
    let read = case.get();
    case.replies(2, found());
    assert!(case.result(read).is_ok());
}

#[test]
fn write_not_sent_to_a_server_without_data_is_not_applied() {
    let mut case = ClientCase::with_session();
    case.breaks(1);
    case.opens(2, Ok(ConnectionState::Ready { history: 0 }));
    case.core.set_server(ServerId(2)).unwrap();
    let read = case.get();
    case.wire.lines.get_mut(&ServerId(2)).unwrap().is_clogged = true;
    let write = case.put("k");
    for server in 1..=3 {
        case.opens(server, Err(NoReply::ConnectionRefused));
    }
    let number = case.wire.asked[0].1;
    case.says(2, number, found());
    case.core.end_time(case.now);
    case.progress();
    let error = case.result(write).unwrap_err();
    assert!(!error.is_unknown(), "{error}");
    assert!(case.result(read).is_err());
    assert_eq!(case.core.history(), None, "after the error the client continues with the data there are");
}

#[test]
fn stopped_request_reports_what_is_known() {
    let mut case = ClientCase::with_session();
    let (write, read) = (case.put("a"), case.get());
    case.core.end_time(case.now);
    case.progress();
    assert!(case.result(write).unwrap_err().is_unknown());
    assert!(matches!(case.result(read), Err(ClientError::NotApplied(_))));
}

#[test]
fn idle_connections_are_closed_except_that_of_the_next_request() {
    let mut case = ClientCase::with_session();
    let read = case.get();
    case.core.set_server(ServerId(2)).unwrap();
    case.get();
    case.progress();
    assert!(case.wire.closed.is_empty());
    case.replies(1, found());
    assert!(case.result(read).is_ok());
    assert_eq!(case.wire.closed, [1]);
}

#[test]
fn repeated_failure_is_reported_once() {
    let mut case = ClientCase::with_session();
    let read = case.core.read(case.now, case.now + ALL, b"k".to_vec(), Route::One, &mut case.wire);
    for _ in 0..3 {
        case.replies(1, busy());
        case.passes(TRY);
    }
    assert_eq!(case.wire.failovers.len(), 1, "{:?}", case.wire.failovers);
    case.replies(1, Reply::NotApplied(WhyNotApplied::Proposer(NotApplied::NoLeader)));
    assert_eq!(case.wire.failovers.len(), 2);
    assert_eq!(case.core.busy_replies(), 3);
    assert!(case.core.has(read));
}

#[test]
fn connection_of_the_next_request_stays_open_while_idle() {
    let mut case = ClientCase::with_session();
    case.get();
    case.core.set_server(ServerId(2)).unwrap();
    let read = case.get();
    case.replies(2, found());
    assert!(case.result(read).is_ok());
    assert!(case.wire.closed.is_empty(), "one has a request in flight, and the other is the current one");
}

#[test]
fn labels_count_only_requests_with_log_lines() {
    let mut case = ClientCase::with_session();
    let label = case.core.last_label();
    case.core.ask_one(case.now, case.now + ALL, ServerId(2), Request::Status, &mut case.wire).unwrap();
    assert_eq!(case.core.last_label(), label);
    case.get();
    assert_ne!(case.core.last_label(), label);
}

#[test]
fn only_allowed_server_is_tried_again_after_a_pause() {
    let mut case = ClientCase::with_session();
    case.core.read(case.now, case.now + ALL, b"k".to_vec(), Route::One, &mut case.wire);
    case.replies(1, busy());
    case.progress();
    assert_eq!(case.asked(), [1]);
    assert!(case.core.due().unwrap() > case.now);
}

#[test]
fn replies_before_the_end_of_a_connection_count() {
    let mut case = ClientCase::with_session();
    let (answered, lost) = (case.put("a"), case.put("b"));
    let reply = ClientReply { number: case.wire.asked[0].1, context: TraceContext::default(), reply: applied() };
    case.wire.lines.get_mut(&ServerId(1)).unwrap().inbox.push(reply);
    case.breaks(1);
    assert_eq!(case.result(answered), Ok(applied()));
    assert!(case.core.has(lost));
}

#[test]
fn client_without_a_history_accepts_a_server_without_data() {
    let mut case = ClientCase::new();
    case.opens(1, Ok(ConnectionState::Ready { history: 0 }));
    let read = case.get();
    case.progress();
    case.replies(1, found());
    assert!(case.result(read).is_ok());
    assert_eq!(case.core.history(), None, "no data is no history");
    // The session opened there is the first evidence of that server's history.
    case.put("k");
    case.replies(1, Reply::Opened { session: 7, history: HISTORY });
    assert_eq!(case.core.history(), Some(HISTORY));
    let read = case.get();
    case.replies(1, found());
    assert!(case.result(read).is_ok());
}

#[test]
fn lost_data_of_all_servers_is_reported_once() {
    let mut case = ClientCase::with_session();
    case.breaks(1);
    (1..=3).for_each(|server| case.opens(server, Ok(ConnectionState::Ready { history: 0 })));
    let deadline = case.now + TRY;
    let read = case.core.read(case.now, deadline, b"k".to_vec(), Route::Any, &mut case.wire);
    while !case.core.has_ended() {
        let server = case.wire.asked.last().unwrap().0;
        if case.wire.lines.contains_key(&ServerId(server)) {
            case.replies(server, found());
        } else {
            case.now = case.now.max(case.core.due().unwrap());
            case.progress();
        }
    }
    let error = case.result(read).unwrap_err();
    assert!(error.to_string().contains("has no data of cluster"), "{error}");
    assert_eq!(case.core.history(), None);
}

#[test]
fn server_without_a_timely_reply_is_reported_as_timed_out() {
    let mut case = ClientCase::with_session();
    case.get();
    case.passes(TRY);
    let failed: Vec<&str> = case.wire.failovers.iter().map(|(end, _)| end.word()).collect();
    assert_eq!(failed, ["no-answer"]);
    // So this is one failure, followed by busy servers. Each is another server, so each is reported.
    case.progress();
    case.replies(2, busy());
    case.replies(3, busy());
    let failed: Vec<&str> = case.wire.failovers.iter().map(|(end, _)| end.word()).collect();
    assert_eq!(failed, ["no-answer", "busy", "busy"]);
}

#[test]
fn try_ends_no_later_than_its_request() {
    let mut case = ClientCase::with_session();
    let deadline = case.now + TRY / 4;
    let read = case.core.read(case.now, deadline, b"k".to_vec(), Route::Any, &mut case.wire);
    assert_eq!(case.core.due(), Some(deadline));
    case.passes(TRY / 4);
    assert!(case.result(read).is_err());
}

#[test]
fn late_reply_to_an_earlier_try_does_not_answer_the_next_try() {
    let mut case = ClientCase::with_session();
    let read = case.core.read(case.now, case.now + ALL, b"k".to_vec(), Route::One, &mut case.wire);
    case.core.transmit(case.now, &mut case.wire);
    let number = case.wire.asked[0].1;
    let answered = case.get();
    case.now = case.now + TRY / 2;
    case.replies(1, found());
    assert!(case.result(answered).is_ok());
    case.passes(TRY);
    case.passes(TRY / 4);
    assert_eq!((case.asked(), case.wire.closed.len()), (vec![1, 1, 1], 0), "asked again, over the same connection");
    case.says(1, number, found());
    assert!(case.ended(read).is_none());
    case.replies(1, found());
    assert!(case.result(read).is_ok());
}

#[test]
fn session_without_a_reported_history_belongs_to_the_known_history() {
    let mut case = ClientCase::with_session();
    let write = case.put("k");
    case.replies(1, expired());
    case.replies(1, Reply::Opened { session: 20, history: 0 });
    case.replies(1, applied());
    assert!(case.result(write).is_ok());
    assert_eq!(case.core.history(), Some(HISTORY));
}

#[test]
fn ended_write_leaves_the_sequence_window() {
    let mut case = ClientCase::with_session();
    case.put("k");
    case.replies(1, applied());
    case.put("k");
    let first_open: Vec<_> = case.wire.named.iter().map(|(_, id)| (id.sequence, id.first_open)).collect();
    assert_eq!(first_open, [(1, 1), (2, 2), (3, 3)]);
}

#[test]
fn failure_on_another_server_does_not_change_the_current_server() {
    let mut case = ClientCase::with_session();
    let read = case.get();
    case.core.set_server(ServerId(3)).unwrap();
    case.replies(1, busy());
    assert_eq!((case.asked(), case.core.server()), (vec![1, 3], ServerId(3)));
    assert!(case.core.has(read));
}

#[test]
fn busy_proposer_counts_as_a_busy_try() {
    let mut case = ClientCase::with_session();
    case.get();
    case.replies(1, Reply::NotApplied(WhyNotApplied::Proposer(NotApplied::Busy)));
    case.replies(2, Reply::NotApplied(WhyNotApplied::DiskFull));
    assert_eq!(case.core.busy_replies(), 1);
}

#[test]
fn pauses_double_up_to_200_ms() {
    let mut case = ClientCase::new();
    (1..=3).for_each(|server| case.opens(server, Err(NoReply::ConnectionRefused)));
    case.get();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        (0..4).for_each(|_| case.progress());
        let due = case.core.due().unwrap();
        pauses.push(due.since(case.now).as_millis());
        case.now = due;
    }
    for (pause, mean) in pauses.iter().zip([10, 20, 40, 80, 160, 200, 200, 200]) {
        assert!((mean / 2..=mean * 3 / 2).contains(pause), "{pauses:?}");
    }
}

#[test]
fn unreached_or_unknown_write_is_tried_until_its_deadline() {
    // No server was reached: tries take no time, and a tenth of a try's time is enough.
    let mut case = ClientCase::with_session();
    case.breaks(1);
    (1..=3).for_each(|server| case.opens(server, Err(NoReply::ConnectionRefused)));
    let started = case.now;
    let handle = case.put("k");
    while case.core.has(handle) && !case.core.has_ended() {
        case.now = case.now.max(case.core.due().unwrap());
        case.progress();
    }
    let waited = case.now.since(started);
    assert!(waited > ALL - TRY / 2, "{waited:?}");
    let Err(ClientError::NotApplied(tries)) = case.result(handle) else { panic!("it was not sent") };
    // Only the last of many tries are kept.
    assert!(tries.count > 64 && tries.last.len() == 64, "{} tries", tries.count);

    // The write may be applied already: another try can only make that certain.
    let mut case = ClientCase::with_session();
    let handle = case.put("k");
    case.now = case.now + (ALL - TRY / 2);
    case.replies(1, Reply::Unknown(WhyUnknown::TimedOut));
    case.progress();
    assert_eq!(case.asked(), [1, 2]);
    case.replies(2, applied());
    assert!(case.result(handle).is_ok());
}

#[test]
fn request_that_a_full_connection_did_not_send_in_time_is_certainly_not_applied() {
    let mut case = ClientCase::with_session();
    let answered = case.get();
    let number = case.wire.asked[0].1;
    case.wire.lines.get_mut(&ServerId(1)).unwrap().is_clogged = true;
    let write = case.put("k");
    case.says(1, number, found());
    assert!(case.result(answered).is_ok());
    (1..=3).for_each(|server| case.opens(server, Err(NoReply::ConnectionRefused)));
    case.passes(TRY);
    let error = case.waits(write).unwrap_err();
    assert!(!error.is_unknown(), "{error}");
}

#[test]
fn stopped_client_also_ends_writes_that_wait_for_a_sequence() {
    let mut case = ClientCase::with_session();
    let writes: Vec<RequestHandle> = (0..=crate::kv::SEQUENCE_WINDOW).map(|_| case.put("k")).collect();
    case.core.end_time(case.now);
    case.progress();
    assert_eq!(case.core.in_flight(), 0);
    let unnamed = *writes.last().unwrap();
    assert!(matches!(case.result(unnamed), Err(ClientError::NotApplied(_))), "it had no number");
}
