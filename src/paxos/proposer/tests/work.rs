//! Phase 2: batches, windows, and wake hints.

use super::*;

#[test]
fn role_host_knows_when_the_proposer_has_work() {
    let new = Proposer::new(S1, Quorums::majority(ServerSet::first(3)), Policy::MultiPaxos);
    assert!(new.wants_applied(), "it does not know yet that its learner is up");
    let (mut leader, _) = TestProposer::leader();
    assert_eq!((leader.0.wants_applied(), leader.0.batch_threshold()), (false, 1));
    leader.turn([propose(1), propose(2), propose(3), propose(4)]);
    assert_eq!((leader.0.wants_applied(), leader.0.batch_threshold()), (true, 4), "four more make a second group");
    leader.step(propose(5));
    assert_eq!(leader.0.batch_threshold(), 3);
    leader.receive(S2, Message::Forward { commands: vec![command(6)] });
    assert_eq!(leader.0.batch_threshold(), 2);
    leader.turn([propose(7), propose(8)]);
    assert_eq!(leader.0.batch_threshold(), usize::MAX, "two batches are in flight");
    leader.applied(3, &[1, 2, 3]);
    assert_eq!(leader.0.batch_threshold(), usize::MAX, "still two: one slot of the first is in flight");
    leader.applied(4, &[4]);
    assert_eq!((leader.0.wants_applied(), leader.0.batch_threshold()), (true, 4));
}

#[test]
fn a_ballot_for_one_command_waits_for_no_other() {
    let mut basic = TestProposer::new(Policy::BasicPaxos);
    let (ballot, _) = basic.step(propose(1)).prepared().expect("it prepares");
    assert_eq!((basic.0.wants_applied(), basic.0.batch_threshold()), (false, 1));
    basic.receive(S1, promise(ballot, Vec::new()));
    basic.receive(S2, promise(ballot, Vec::new()));
    assert_eq!((basic.0.wants_applied(), basic.0.batch_threshold()), (true, usize::MAX));
    basic.receive_progress(S2, 100);
    let mut behind = TestProposer::new(Policy::BasicPaxos);
    behind.receive_progress(S2, 100);
    behind.step(propose(1));
    assert!(behind.0.wants_applied(), "it waits for its learner");
}

#[test]
fn at_most_one_window_of_slots_is_in_flight() {
    let small = Proposer::new(S1, Quorums::majority(ServerSet::first(3)), Policy::MultiPaxos)
        .with_window(2, IN_FLIGHT_MAX_BYTES);
    let (mut leader, _) = TestProposer::of(small.clone()).led();
    assert_eq!(leader.turn([propose(1), propose(2), propose(3)]).proposed(), [(1, 1), (2, 2)]);
    assert_eq!(leader.0.batch_threshold(), usize::MAX - 1);
    assert_eq!(leader.applied(1, &[1]).proposed(), [(3, 3)]);
    // A window that adopted values fill is no batch for which commands wait.
    let mut candidate = TestProposer::of(small.with_window(1, IN_FLIGHT_MAX_BYTES));
    let ballot = candidate.campaign();
    candidate.receive(S1, promise(ballot, vec![accepted(1, Ballot { round: 0, server: S2 }, 21)]));
    assert_eq!(candidate.receive(S2, promise(ballot, Vec::new())).proposed(), [(1, 21)]);
    candidate.step(propose(1));
    assert_eq!(candidate.0.batch_threshold(), 0);
    assert_eq!(candidate.applied(1, &[21]).proposed(), [(2, 1)]);
}

#[test]
fn a_command_whose_slot_went_to_another_gets_a_new_one() {
    let (mut leader, _) = TestProposer::leader();
    leader.step(propose(1));
    assert_eq!(leader.applied(1, &[9]).proposed(), [(2, 1)]);
}

#[test]
fn batch_is_at_most_one_mebibyte_unless_one_command_is_larger() {
    let propose =
        |number, bytes| Input::Request(ProposerRequest::Propose { command: sized(number, bytes), promised_round: 0 });
    let (mut leader, _) = TestProposer::leader();
    assert_eq!(leader.step(propose(1, (1 << 20) + 1)).proposed(), [(1, 1)], "it is sent alone");
    let output = leader.turn([propose(2, 600 << 10), propose(3, 424 << 10), propose(4, 1)]);
    assert_eq!(output.proposed(), [(2, 2), (3, 3)]);
    assert_eq!(leader.applied(3, &[1, 2, 3]).proposed(), [(4, 4)]);
}

#[test]
fn resend_starts_with_the_first_mebibyte() {
    let propose =
        |number, bytes| Input::Request(ProposerRequest::Propose { command: sized(number, bytes), promised_round: 0 });
    let again = |first: &[usize], second: &[usize]| {
        let (mut leader, _) = TestProposer::leader();
        let mut numbers = 1..;
        for sizes in [first, second] {
            let group: Vec<_> = numbers.by_ref().zip(sizes).map(|(number, bytes)| propose(number, *bytes)).collect();
            leader.turn(group);
        }
        leader.fire(ProposerTimer::Resend { tries: 0 });
        let output = leader.fire(ProposerTimer::Resend { tries: 1 });
        let accepts = output.sent.iter().filter_map(|(_, message)| match message {
            Message::Accept { values, .. } => Some(values.len()),
            _ => None,
        });
        accepts.collect::<Vec<_>>()
    };
    assert_eq!(again(&[600 << 10, 100 << 10], &[500 << 10, 100 << 10]), [2]);
    assert_eq!(again(&[2_000, 2_000], &[2_000, 2_000]), [4]);
}
