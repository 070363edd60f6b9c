use super::super::limits::tests::TestConnection;
use super::*;
use crate::kv::{SavedResult, WriteResult};
use crate::paxos::Slot;
use crate::role::RoleKind;

const ID: CommandId = CommandId::new(3, 0, 1);
const SAVED: SavedResult = SavedResult { slot: Slot(4), written: WriteResult::Done { version: 2 } };
const LEARNER_CRASHED: WhyUnknown = WhyUnknown::RoleCrashed(RoleKind::Learner);
const DOWN: WhyNotApplied = WhyNotApplied::RoleDown(RoleKind::Learner);

/// The pending requests of one server, told apart by their labels.
#[derive(Default)]
struct PendingServer {
    pending: PendingRequests<TestConnection>,
    connection: TestConnection,
}

fn server() -> PendingServer {
    PendingServer::default()
}

const BEGUN: Time = Time(5_000_000);

impl PendingServer {
    fn reply_to(&self, label: &str) -> ReplyHandle<TestConnection> {
        let context = TraceContext { parent: None, req: Some(label.to_string()) };
        ReplyHandle::new(self.connection.clone(), 1, context, BEGUN)
    }

    fn write(&self, label: &str, id: CommandId) -> RequestId {
        self.pending.register_write(id, self.reply_to(label))
    }

    fn read(&self, label: &str) -> RequestId {
        self.pending.register_read(self.reply_to(label))
    }

    /// The label and the reply of each request answered since the last call.
    fn told(&self) -> Vec<(String, Reply)> {
        let told = self.pending.take_queued();
        told.into_iter().map(|told| (told.reply_to.context.req.clone().unwrap(), told.reply)).collect()
    }

    fn is_empty(&self) -> bool {
        let waiters = self.pending.lock();
        waiters.writes.is_empty() && waiters.reads.is_empty() && waiters.parts.is_empty()
    }
}

fn applied(slot: u64) -> ApplyResult {
    ApplyResult::Applied(SavedResult { slot: Slot(slot), written: WriteResult::Done { version: 1 } })
}

fn said(label: &str, reply: Reply) -> (String, Reply) {
    (label.to_string(), reply)
}

fn from(n: u32) -> TraceContext {
    TraceContext { parent: None, req: Some(format!("c1-{n}")) }
}

#[test]
fn each_request_for_a_command_gets_exactly_one_reply() {
    let at = server();
    at.write("first", ID);
    at.write("retry", ID);
    at.write("other", CommandId::new(3, 0, 2));
    at.pending.applied(ID, applied(7), ServerSet::NONE, &from(1));
    at.pending.applied(ID, applied(8), ServerSet::NONE, &from(2));
    at.pending.not_applied(ID, WhyNotApplied::Busy, &from(3));
    at.pending.fail_all(LEARNER_CRASHED, Some(DOWN));
    let written =
        Reply::Applied { slot: Slot(7), written: WriteResult::Done { version: 1 }, accepted_by: ServerSet::NONE };
    let expected =
        [said("first", written.clone()), said("retry", written), said("other", Reply::Unknown(LEARNER_CRASHED))];
    assert_eq!(at.told(), expected);
    assert!(at.told().is_empty(), "told twice");
}

#[test]
fn each_result_becomes_its_reply() {
    let at = server();
    let saved = SavedResult { slot: Slot(4), written: WriteResult::NotFound { version: 2 } };
    let cases = [
        (ApplyResult::Opened { session: 9, history: 5 }, Reply::Opened { session: 9, history: 5 }),
        (
            ApplyResult::Duplicate(saved),
            Reply::Applied { slot: Slot(4), written: saved.written, accepted_by: ServerSet::NONE },
        ),
        (ApplyResult::Superseded, Reply::NotApplied(WhyNotApplied::Superseded)),
        (ApplyResult::Expired, Reply::NotApplied(WhyNotApplied::Expired)),
    ];
    for (outcome, reply) in cases {
        at.write("w", ID);
        at.pending.applied(ID, outcome, ServerSet::NONE, &from(1));
        assert_eq!(at.told(), [said("w", reply)]);
    }
    at.write("w", ID);
    at.pending.not_applied(ID, DOWN, &from(2));
    assert_eq!(at.told(), [said("w", Reply::NotApplied(DOWN))]);
}

#[test]
fn session_end_is_certain_only_for_requests_after_the_last_snapshot() {
    for (outcome, certain, uncertain) in [
        (ApplyResult::Superseded, WhyNotApplied::Superseded, WhyUnknown::Superseded),
        (ApplyResult::Expired, WhyNotApplied::Expired, WhyUnknown::Expired),
    ] {
        let at = server();
        at.write("before", ID);
        at.pending.snapshot_installed();
        at.write("after", ID);
        at.pending.applied(ID, outcome, ServerSet::NONE, &from(1));
        let told = [said("before", Reply::Unknown(uncertain)), said("after", Reply::NotApplied(certain))];
        assert_eq!(at.told(), told);
    }
}

#[test]
fn request_gets_no_result_of_another_session_with_the_same_number() {
    let at = server();
    at.write("owner", CommandId { nonce: 1, ..ID });
    at.write("stranger", CommandId { nonce: 2, ..ID });
    at.pending.applied(CommandId { nonce: 1, ..ID }, ApplyResult::Applied(SAVED), ServerSet::NONE, &from(1));
    let written = Reply::Applied { slot: SAVED.slot, written: SAVED.written, accepted_by: ServerSet::NONE };
    assert_eq!(at.told(), [said("owner", written)]);
    at.pending.applied(CommandId { nonce: 2, ..ID }, ApplyResult::Expired, ServerSet::NONE, &from(2));
    assert_eq!(at.told(), [said("stranger", Reply::NotApplied(WhyNotApplied::Expired))]);
}

#[test]
fn read_gets_its_reply_by_its_token() {
    let at = server();
    let one = at.read("one");
    at.read("other");
    let reply = Reply::Value { slot: Slot(1), value: None, version: 0 };
    at.pending.reply_to_read(one, reply.clone(), &from(1));
    at.pending.reply_to_read(one, Reply::Done, &from(2));
    assert_eq!(at.told(), [said("one", reply)]);
}

#[test]
fn proposer_crash_ends_writes_and_learner_crash_ends_reads_too() {
    let at = server();
    at.write("write", ID);
    at.read("read");
    let proposer_crashed = WhyUnknown::RoleCrashed(RoleKind::Proposer);
    at.pending.fail_all(proposer_crashed, None);
    assert_eq!(at.told(), [said("write", Reply::Unknown(proposer_crashed))], "a read needs no proposer");
    at.write("write", ID);
    at.pending.fail_all(LEARNER_CRASHED, Some(DOWN));
    assert_eq!(at.told(), [said("write", Reply::Unknown(LEARNER_CRASHED)), said("read", Reply::NotApplied(DOWN))]);
    assert!(at.is_empty());
}

#[test]
fn canceled_write_is_refused_alone_unless_it_already_has_a_reply() {
    let at = server();
    at.write("first", ID);
    let retry = at.write("retry", ID);
    at.pending.cancel_write(ID, retry, WhyNotApplied::Busy);
    at.pending.cancel_write(ID, retry, WhyNotApplied::Busy);
    assert_eq!(at.told(), [said("retry", Reply::NotApplied(WhyNotApplied::Busy))]);
    // The role crashed between the registration and the refusal: the first reply stands.
    let late = at.write("late", CommandId::new(3, 0, 2));
    at.pending.fail_all(LEARNER_CRASHED, None);
    at.pending.cancel_write(CommandId::new(3, 0, 2), late, DOWN);
    assert_eq!(
        at.told(),
        [said("first", Reply::Unknown(LEARNER_CRASHED)), said("late", Reply::Unknown(LEARNER_CRASHED))]
    );
    assert!(at.is_empty(), "an entry without a request is removed");
}

#[test]
fn requests_expire_at_their_timeout_and_not_before() {
    let at = server();
    at.write("write", ID);
    at.read("read");
    at.pending.expire(Time(BEGUN.0 + OUTCOME_TIMEOUT.as_micros() as u64 - 1));
    assert!(at.told().is_empty());
    at.pending.expire(BEGUN + OUTCOME_TIMEOUT);
    let expected =
        [said("write", Reply::Unknown(WhyUnknown::TimedOut)), said("read", Reply::NotApplied(WhyNotApplied::Busy))];
    assert_eq!(at.told(), expected);
    assert!(at.is_empty());
}

#[test]
fn request_releases_its_share_of_the_limits_with_its_reply() {
    let at = server();
    let mut reply_to = at.reply_to("large");
    assert!(reply_to.reserve(limits::REQUESTS_MAX_BYTES));
    assert!(!at.reply_to("one more").reserve(1), "the connection has as much in flight as it may");
    let other = PendingServer { connection: TestConnection::default(), ..server() };
    assert!(other.reply_to("of another connection").reserve(1));
    let request_id = at.pending.register_read(reply_to);
    assert!(!at.reply_to("it still waits").reserve(1));
    at.pending.reply_to_read(request_id, Reply::Done, &from(1));
    drop(at.pending.take_queued());
    assert!(at.reply_to("it is answered").reserve(1));
}
