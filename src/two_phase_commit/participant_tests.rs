//! A participant alone: its votes, its waiting times, and its records.

use super::ParticipantTimer::Look;
use super::role_harness::{RoleHarness, StepResult};
use super::tests::{all, open, put};
use super::*;
use crate::kv::{ApplyResult, Kv, ReadQuery, VersionedValue, WriteResult};
use crate::paxos::Command;
use crate::role::{Input, Role, ServerId, ServerSet};

/// The participant of server 5, whose table holds at most this number of sessions.
fn participant(sessions: usize) -> RoleHarness<Participant> {
    RoleHarness::new(Participant::new(ServerId(5), all(), Kv::with_sessions_at_most(sessions)))
}

/// A transaction of server 1.
fn id(number: u64) -> TransactionId {
    TransactionId { number, coordinator: ServerId(1) }
}

fn ask(alone: &mut RoleHarness<Participant>, transaction: TransactionId, command: Command, evict: Option<u64>) -> Vote {
    let said = alone.hear(1, CommitMessage::VoteRequest { transaction, work: TransactionBody { command, evict } });
    match said.sent[..] {
        [(_, CommitMessage::Vote { vote, .. })] => vote,
        _ => panic!("no vote: {:?}", said.sent),
    }
}

fn decide(
    alone: &mut RoleHarness<Participant>,
    transaction: TransactionId,
    decision: Decision,
) -> StepResult<Participant> {
    alone.hear(1, CommitMessage::Decide { transaction, decision })
}

/// Opens a session by the transaction of this number.
fn session(alone: &mut RoleHarness<Participant>, number: u64) -> u64 {
    assert_eq!(ask(alone, id(number), open(number.into()), None), Vote::Yes(None));
    decide(alone, id(number), Decision::Commit);
    id(number).as_slot().0
}

fn read(alone: &mut RoleHarness<Participant>, token: u64, key: &str) -> Vec<ParticipantNotification> {
    alone.take(Input::Request(ParticipantRequest::Read { token, query: ReadQuery { key: key.into() } })).outcomes
}

const YES: Vote = Vote::Yes(Some(WriteResult::Done { version: 1 }));

fn locked(by: TransactionId) -> Vote {
    Vote::No(VoteNoReason::Locked(by))
}

#[test]
fn participant_timer_runs_exactly_while_it_is_in_doubt() {
    let mut alone = participant(2);
    alone.take(Input::Start);
    assert!(alone.running.is_empty());
    let session = session(&mut alone, 1);
    assert_eq!(alone.running, [Look]);
    alone.run_out(Look);
    assert!(alone.running.is_empty(), "it is decided");
    assert_eq!(ask(&mut alone, id(2), put(session, 1, "a"), None), YES);
    assert_eq!(alone.running, [Look]);
    assert_eq!(ask(&mut alone, id(3), put(session, 2, "b"), None), YES);
    read(&mut alone, 7, "a");
    alone.run_out(Look);
    assert_eq!(alone.running, [Look]);
    decide(&mut alone, id(2), Decision::Commit);
    decide(&mut alone, id(3), Decision::Abort);
    alone.run_out(Look);
    assert!(alone.running.is_empty());
}

#[test]
fn a_read_is_answered_as_soon_as_its_key_is_free() {
    let mut alone = participant(2);
    let session = session(&mut alone, 1);
    assert_eq!(alone.role.applied(), 1);
    let answer = |token, applied, value: Option<&str>, version| {
        let answer = VersionedValue { value: value.map(|value| value.as_bytes().to_vec().into()), version };
        ParticipantNotification::Answer { token, applied, answer }
    };
    assert_eq!(read(&mut alone, 7, "k"), [answer(7, 1, None, 0)]);
    ask(&mut alone, id(2), put(session, 1, "k"), None);
    ask(&mut alone, id(3), put(session, 2, "other"), None);
    assert_eq!((read(&mut alone, 8, "k"), read(&mut alone, 9, "free")), (vec![], vec![answer(9, 1, None, 0)]));
    assert!(decide(&mut alone, id(3), Decision::Abort).outcomes.is_empty(), "that was another key");
    assert_eq!(decide(&mut alone, id(2), Decision::Commit).outcomes, [answer(8, 2, Some("1"), 1)]);
    assert_eq!(alone.role.applied(), 2);
}

#[test]
fn read_waits_for_a_locked_key_for_at_most_eight_checks() {
    let mut alone = participant(2);
    let session = session(&mut alone, 1);
    ask(&mut alone, id(2), put(session, 1, "k"), None);
    read(&mut alone, 7, "k");
    for look in 1..=7 {
        assert!(alone.run_out(Look).outcomes.is_empty(), "after {look} looks");
    }
    assert_eq!(alone.run_out(Look).outcomes, [ParticipantNotification::ReadFailed { token: 7, by: id(2) }]);
    assert!(decide(&mut alone, id(2), Decision::Commit).outcomes.is_empty(), "it is answered once");
}

#[test]
fn participant_in_doubt_asks_ever_less_often_and_reports_blocked_at_doubling_intervals() {
    let mut alone = participant(2);
    let session = session(&mut alone, 1);
    ask(&mut alone, id(2), put(session, 1, "k"), None);
    let (mut asks, mut blocked) = (Vec::new(), Vec::new());
    for look in 1..=41 {
        let said = alone.run_out(Look);
        let doubts: Vec<InDoubtTransaction> = alone.role.in_doubt().collect();
        let (key, is_blocked) = (Some(b"k".to_vec()), look >= 5);
        assert_eq!(doubts, [InDoubtTransaction { transaction: id(2), key, waited_ms: 100 * look, is_blocked }]);
        if said.sent == [(all(), CommitMessage::Inquire { transaction: id(2) })] {
            asks.push(look);
            alone.hear(2, CommitMessage::Answer { transaction: id(2), known: InquiryReply::Prepared });
        }
        blocked.extend(said.facts.iter().filter_map(|trace_event| match trace_event {
            ParticipantTraceEvent::Blocked { prepared, silent, waited_ms, .. } => {
                Some((*waited_ms, *prepared, *silent))
            }
            _ => None,
        }));
    }
    assert_eq!(asks, [3, 5, 9, 17, 25, 33, 41]);
    let both: ServerSet = [2, 5].map(ServerId).into_iter().collect();
    assert_eq!(blocked, [500, 1_000, 2_000, 4_000].map(|waited_ms| (waited_ms, both, all().without(both))));
    // The coordinator is up, so the waiting time starts again.
    alone.hear(1, CommitMessage::Answer { transaction: id(2), known: InquiryReply::Voting });
    let sent: Vec<usize> = (0..3).map(|_| alone.run_out(Look).sent.len()).collect();
    assert_eq!(sent, [0, 0, 1]);
}

#[test]
fn participant_neither_votes_for_nor_aborts_a_dropped_transaction() {
    let mut alone = participant(2);
    alone.role.replay(ParticipantRecord::Committed(id(1)));
    for number in 2..=DECIDED_MAX as u64 {
        alone.role.replay(ParticipantRecord::Aborted(id(number)));
    }
    let inquire = |alone: &mut RoleHarness<Participant>, transaction| {
        alone.hear(3, CommitMessage::Inquire { transaction }).sent.pop().map(|(_, message)| message)
    };
    let knows =
        |transaction, decision| Some(CommitMessage::Answer { transaction, known: InquiryReply::Decided(decision) });
    assert_eq!(alone.role.decision(id(1)), Some(Decision::Commit));
    assert_eq!(inquire(&mut alone, id(1)), knows(id(1), Decision::Commit));
    assert_eq!([1, 2, 9_999].map(|number| alone.role.may_have_done(id(number))), [true, false, false]);

    // After one more decision, the first one is no longer kept: the transaction may have been committed.
    alone.role.replay(ParticipantRecord::Aborted(id(9_000)));
    assert_eq!(alone.role.decision(id(1)), None);
    assert_eq!([1, 2, 9_999].map(|number| alone.role.may_have_done(id(number))), [true, false, false]);
    assert_eq!(inquire(&mut alone, id(1)), None);
    assert_eq!(inquire(&mut alone, id(2)), knows(id(2), Decision::Abort));
    assert_eq!(ask(&mut alone, id(1), open(7), None), Vote::No(VoteNoReason::Late));
    let told_again = decide(&mut alone, id(1), Decision::Commit);
    assert_eq!(told_again.sent, [(ServerSet::only(ServerId(1)), CommitMessage::Ack { transaction: id(1) })]);
}

#[test]
fn request_in_a_session_that_is_being_opened_is_refused_as_locked() {
    let mut alone = participant(2);
    assert_eq!(ask(&mut alone, id(1), open(1), None), Vote::Yes(None));
    let session = id(1).as_slot().0;
    assert_eq!(ask(&mut alone, id(2), put(session, 1, "k"), None), locked(id(1)));
    let expired = Vote::No(VoteNoReason::Settled(ApplyResult::Expired));
    assert_eq!(ask(&mut alone, id(3), put(id(9).as_slot().0, 1, "k"), None), expired);
    decide(&mut alone, id(1), Decision::Commit);
    assert_eq!(ask(&mut alone, id(4), put(session, 1, "k"), None), YES);
}

#[test]
fn session_is_not_dropped_while_it_writes_and_does_not_write_while_it_is_dropped() {
    let mut alone = participant(2);
    let [first, second] = [1, 2].map(|number| session(&mut alone, number));
    assert_eq!(ask(&mut alone, id(3), put(first, 1, "k"), None), YES);
    assert_eq!(ask(&mut alone, id(4), open(4), Some(first)), locked(id(3)));
    assert_eq!(ask(&mut alone, id(5), open(5), Some(second)), Vote::Yes(None), "that session has nothing in flight");
    assert_eq!(ask(&mut alone, id(6), put(second, 1, "other"), None), locked(id(5)));
    assert_eq!(ask(&mut alone, id(7), put(first, 2, "other"), None), YES, "that one stays");
    assert_eq!(
        ask(&mut alone, id(8), open(8), Some(second)),
        locked(id(5)),
        "a session is dropped for one transaction \
                                                                              only"
    );
}

#[test]
fn sessions_being_opened_count_in_the_table() {
    let mut alone = participant(4);
    let [first, second] = [1, 2].map(|number| session(&mut alone, number));
    // A write takes no entry of the table.
    assert_eq!(ask(&mut alone, id(3), put(second, 1, "k"), None), YES);
    for number in [4, 5] {
        assert_eq!(ask(&mut alone, id(number), open(number.into()), None), Vote::Yes(None), "two places are free");
    }
    let full = Vote::No(VoteNoReason::Full(first));
    assert_eq!(ask(&mut alone, id(6), open(6), None), full);
    assert_eq!(ask(&mut alone, id(7), open(7), Some(id(99).as_slot().0)), full, "no such session is dropped");
    assert_eq!(ask(&mut alone, id(8), open(8), Some(first)), Vote::Yes(None));
    assert_eq!(ask(&mut alone, id(9), open(9), Some(first)), locked(id(8)));
    // If one of them is not opened after all, its entry is free again.
    decide(&mut alone, id(4), Decision::Abort);
    assert_eq!(ask(&mut alone, id(10), open(10), None), Vote::Yes(None));
}
