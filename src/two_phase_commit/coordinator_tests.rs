//! A coordinator alone: its times, its limits, and the messages that it sends.

use super::CoordinatorTimer::{Retry, Tick};
use super::role_harness::{RoleHarness, StepResult};
use super::tests::{all, open, put};
use super::*;
use crate::kv::{ApplyResult, WriteResult};
use crate::paxos::{Command, CommandId, Slot};
use crate::role::{Input, Role, ServerId, ServerSet};

const OPENED: Vote = Vote::Yes(None);
const WRITTEN: Vote = Vote::Yes(Some(WriteResult::Done { version: 1 }));
const SETTLED: Vote = Vote::No(VoteNoReason::Settled(ApplyResult::Superseded));

/// The coordinator of server 1.
fn coordinator() -> RoleHarness<Coordinator> {
    RoleHarness::new(Coordinator::new(ServerId(1), all()))
}

/// Its transaction of this number.
fn own(number: u64) -> TransactionId {
    TransactionId { number, coordinator: ServerId(1) }
}

/// A transaction of another coordinator.
fn foreign() -> TransactionId {
    TransactionId { number: 70, coordinator: ServerId(4) }
}

fn locked(by: TransactionId) -> Vote {
    Vote::No(VoteNoReason::Locked(by))
}

fn propose(alone: &mut RoleHarness<Coordinator>, command: Command) -> StepResult<Coordinator> {
    alone.take(Input::Request(CoordinatorRequest::Propose(command)))
}

fn vote(
    alone: &mut RoleHarness<Coordinator>,
    from: u8,
    transaction: TransactionId,
    vote: Vote,
) -> StepResult<Coordinator> {
    alone.hear(from, CommitMessage::Vote { transaction, vote, clock: transaction.number })
}

fn ack(alone: &mut RoleHarness<Coordinator>, from: u8, transaction: TransactionId) -> StepResult<Coordinator> {
    alone.hear(from, CommitMessage::Ack { transaction })
}

/// Opens a session by the coordinator's next transaction, without any acknowledgment.
fn commit(alone: &mut RoleHarness<Coordinator>) -> TransactionId {
    let transaction = own(alone.role.next_number());
    propose(alone, open(transaction.number.into()));
    for from in 1..=5 {
        vote(alone, from, transaction, OPENED);
    }
    assert!(alone.role.knows(transaction) && !alone.role.counts(transaction));
    transaction
}

/// The commands of its vote requests, and the recipients.
fn asked(said: &StepResult<Coordinator>) -> Vec<(CommandId, ServerSet)> {
    let request = |(to, message): &(ServerSet, CommitMessage)| match message {
        CommitMessage::VoteRequest { work, .. } => Some((work.command.id, *to)),
        _ => None,
    };
    said.sent.iter().filter_map(request).collect()
}

fn decide(transaction: TransactionId, decision: Decision) -> CommitMessage {
    CommitMessage::Decide { transaction, decision }
}

fn only(server: u8) -> ServerSet {
    ServerSet::only(ServerId(server))
}

#[test]
fn coordinator_timer_runs_exactly_while_a_command_is_in_flight() {
    let mut alone = coordinator();
    alone.take(Input::Start);
    assert!(alone.running.is_empty() && alone.role.is_idle());
    // A transaction whose votes are counted.
    propose(&mut alone, open(7));
    assert!(alone.running == [Tick] && !alone.role.is_idle());
    vote(&mut alone, 1, own(1), OPENED);
    // A command that was refused.
    vote(&mut alone, 2, own(1), locked(foreign()));
    assert!(alone.running == [Tick, Retry] && !alone.role.is_idle());
    alone.run_out(Tick);
    assert_eq!(alone.running, [Retry, Tick]);
    alone.run_out(Retry);
    assert_eq!(alone.running, [Tick], "no command waits to be tried again");
    // A commit that not all participants have acknowledged.
    for from in 1..=5 {
        vote(&mut alone, from, own(2), OPENED);
    }
    alone.run_out(Tick);
    assert!(alone.running == [Tick] && !alone.role.is_idle());
    for from in 1..=5 {
        ack(&mut alone, from, own(2));
    }
    assert!(alone.role.is_idle());
    alone.run_out(Tick);
    assert!(alone.running.is_empty());
}

#[test]
fn commit_is_sent_every_200_ms_until_all_participants_acknowledge_it_and_kept_until_then() {
    let mut alone = coordinator();
    let transaction = commit(&mut alone);
    for from in [1, 2, 3, 4, 4, 4] {
        assert!(ack(&mut alone, from, transaction).facts.is_empty(), "server 5 has not received it");
    }
    let told = [(only(5), decide(transaction, Decision::Commit))];
    for tick in 1..=9 {
        let expected = if tick % 4 == 0 { &told[..] } else { &[] };
        assert_eq!(alone.run_out(Tick).sent, expected, "after {tick} ticks");
    }
    assert_eq!(alone.hear(5, CommitMessage::Inquire { transaction }).sent, told);
    assert!(alone.role.knows(transaction) && alone.role.unacknowledged() == 1);
    assert_eq!(ack(&mut alone, 5, transaction).facts, [CoordinatorTraceEvent::Ended { transaction }]);
    assert!(!alone.role.knows(transaction) && alone.role.unacknowledged() == 0);
    // From now on the coordinator has no record of the transaction.
    let presumed = [(only(5), decide(transaction, Decision::Abort))];
    assert_eq!(alone.hear(5, CommitMessage::Inquire { transaction }).sent, presumed);
}

#[test]
fn silent_participant_is_asked_again_and_the_command_expires_after_two_tries() {
    let mut alone = coordinator();
    let command = put(64, 1, "k");
    assert_eq!(asked(&propose(&mut alone, command.clone())), [(command.id, all())]);
    for from in 1..=4 {
        vote(&mut alone, from, own(1), WRITTEN);
    }
    for tick in 1..=5 {
        let expected = if tick % 2 == 0 { vec![(command.id, only(5))] } else { Vec::new() };
        assert_eq!(asked(&alone.run_out(Tick)), expected, "after {tick} ticks");
        assert!(alone.role.counts(own(1)));
    }
    let sixth = alone.run_out(Tick);
    assert_eq!(sixth.sent, [(all(), decide(own(1), Decision::Abort))]);
    assert!(!alone.role.counts(own(1)) && sixth.outcomes.is_empty());
    // The command is tried again, for another 300 ms in which no participant votes.
    assert_eq!(asked(&alone.run_out(Retry)), [(command.id, all())]);
    for _ in 1..=5 {
        assert!(alone.run_out(Tick).outcomes.is_empty());
    }
    let why = AbortReason::NoVote { silent: all() };
    assert_eq!(alone.run_out(Tick).outcomes, [CoordinatorNotification::NotApplied { id: command.id, why }]);
    assert!(alone.role.is_idle());
}

#[test]
fn refused_command_that_stays_blocked_for_half_a_second_is_not_applied() {
    let mut alone = coordinator();
    let command = put(64, 1, "k");
    propose(&mut alone, command.clone());
    vote(&mut alone, 2, own(1), locked(foreign()));
    for tick in 1..=9 {
        assert!(alone.run_out(Tick).outcomes.is_empty(), "after {tick} ticks");
    }
    let why = AbortReason::Locked { by: foreign() };
    assert_eq!(alone.run_out(Tick).outcomes, [CoordinatorNotification::NotApplied { id: command.id, why }]);
}

#[test]
fn pause_doubles_while_the_same_transaction_blocks_and_restarts_with_another() {
    let mut alone = coordinator();
    propose(&mut alone, put(64, 1, "k"));
    let mut pauses = Vec::new();
    for by in [foreign(), foreign(), foreign(), foreign(), foreign(), own(99), own(99)] {
        let transaction = own(alone.role.next_number() - 1);
        vote(&mut alone, 2, transaction, locked(by));
        let mut retries = 1;
        while asked(&alone.run_out(Retry)).is_empty() {
            retries += 1;
        }
        pauses.push(retries);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 8, 1, 2]);
}

#[test]
fn commands_for_one_key_keep_their_order_when_the_first_has_to_pause() {
    let mut alone = coordinator();
    let [first, second, elsewhere] = [put(64, 1, "k"), put(64, 2, "k"), put(64, 3, "other")];
    propose(&mut alone, first.clone());
    assert!(asked(&propose(&mut alone, second.clone())).is_empty());
    assert!(
        asked(&vote(&mut alone, 2, own(1), locked(foreign()))).is_empty(),
        "the second does not overtake the first"
    );
    assert_eq!(asked(&propose(&mut alone, elsewhere.clone())), [(elsewhere.id, all())]);
    assert_eq!(asked(&alone.run_out(Retry)), [(first.id, all())]);
    assert_eq!(alone.running, [Tick], "the second waits for the first, and not for a time");
    assert_eq!(asked(&vote(&mut alone, 2, own(3), SETTLED)), [(second.id, all())]);
}

#[test]
fn more_than_1_024_commands_at_once_are_refused_queued_or_not() {
    let mut alone = coordinator();
    for nonce in 1..=1_000 {
        propose(&mut alone, open(nonce));
    }
    let busy = |said: StepResult<Coordinator>| {
        matches!(said.outcomes[..], [CoordinatorNotification::NotApplied { why: AbortReason::Busy, .. }])
    };
    // One transaction, and the commands that wait behind it.
    for sequence in 1..=24 {
        assert!(!busy(propose(&mut alone, put(64, sequence, "k"))), "command {sequence} for the key");
    }
    assert!(busy(propose(&mut alone, put(64, 25, "k"))));
    assert!(busy(propose(&mut alone, open(1_001))));
    // A command that the coordinator already holds does not count again, and a finished one makes room.
    assert!(!busy(propose(&mut alone, open(1_000))));
    vote(&mut alone, 2, own(1), SETTLED);
    assert!(!busy(propose(&mut alone, open(1_001))));
    assert!(busy(propose(&mut alone, open(1_002))));
}

#[test]
fn late_yes_vote_gets_the_decision_at_once() {
    let mut alone = coordinator();
    propose(&mut alone, open(7));
    vote(&mut alone, 2, own(1), SETTLED);
    assert_eq!(vote(&mut alone, 3, own(1), OPENED).sent, [(only(3), decide(own(1), Decision::Abort))]);
    assert!(vote(&mut alone, 4, own(1), SETTLED).sent.is_empty(), "it has forgotten it already");
    let committed = commit(&mut alone);
    assert_eq!(vote(&mut alone, 5, committed, OPENED).sent, [(only(5), decide(committed, Decision::Commit))]);
    // Without a record, the coordinator says nothing about the transactions of other coordinators.
    for word in [OPENED, SETTLED] {
        assert!(vote(&mut alone, 3, foreign(), word).sent.is_empty());
    }
    assert!(alone.hear(3, CommitMessage::Inquire { transaction: foreign() }).sent.is_empty());
}

#[test]
fn forged_number_leaves_transaction_ids_to_use() {
    let mut alone = coordinator();
    propose(&mut alone, open(7));
    alone.hear(2, CommitMessage::Vote { transaction: foreign(), vote: SETTLED, clock: u64::MAX });
    let later = commit(&mut alone);
    assert!(later.number > own(1).number);
    assert_eq!(TransactionId::of_slot(later.as_slot()), later);
    assert!(later.as_slot() < Slot::LAST && later.number < TransactionId::LAST_NUMBER - (1 << 50), "{later}");
}

#[test]
fn a_restart_costs_no_more_numbers_than_are_reserved_at_once() {
    let mut records = Vec::new();
    for life in 1..=10 {
        let mut alone = coordinator();
        records.iter().for_each(|record: &CoordinatorRecord| alone.role.replay(record.clone()));
        records.extend(propose(&mut alone, open(life.into())).records);
        assert!(alone.role.next_number() <= life * 1_024, "{} in incarnation {life}", alone.role.next_number());
    }
}

#[test]
fn a_request_for_a_vote_weighs_what_it_carries() {
    for length in [0, 1, 100, 100_000] {
        let command = Command { id: CommandId::new(64, 0, 1), payload: vec![0; length].into() };
        let message =
            CommitMessage::VoteRequest { transaction: own(1), work: TransactionBody { command, evict: None } };
        assert!((length..length + 64).contains(&message.size()), "{} for {length} bytes", message.size());
    }
}
