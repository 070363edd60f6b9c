//! Forwarded commands: what a follower forwards, and what a leader takes.

use super::*;

/// A follower of server 2.
fn follower() -> TestProposer {
    let mut follower = TestProposer::new(Policy::MultiPaxos);
    follower.receive(S2, Message::Heartbeat { ballot: ballot(1, S2) });
    follower
}

fn propose_sized(number: u64, bytes: usize) -> Input<Proposer> {
    Input::Request(ProposerRequest::Propose { command: sized(number, bytes), promised_round: 0 })
}

fn forward(numbers: impl IntoIterator<Item = u64>) -> Message {
    Message::Forward { commands: numbers.into_iter().map(command).collect() }
}

/// A leader with two batches in flight, its own command 1 and the forwarded command 2: further commands must wait.
fn full_leader() -> (TestProposer, Ballot) {
    let (mut leader, ballot) = TestProposer::leader();
    assert_eq!(leader.step(propose(1)).proposed(), [(1, 1)]);
    assert_eq!(leader.receive(S3, forward([2])).proposed(), [(2, 2)]);
    (leader, ballot)
}

#[test]
fn command_is_forwarded_once_and_to_the_next_leader_at_once() {
    let mut follower = follower();
    assert_eq!(follower.step(propose(1)).forwarded(), [(ServerSet::only(S2), vec![1])]);
    assert_eq!(follower.step(propose(2)).forwarded(), [(ServerSet::only(S2), vec![2])]);
    let output = follower.receive(S3, Message::Heartbeat { ballot: ballot(2, S3) });
    assert_eq!(output.forwarded(), [(ServerSet::only(S3), vec![1, 2])]);
}

#[test]
fn candidate_forwards_nothing() {
    let mut candidate = follower();
    candidate.campaign();
    assert_eq!(candidate.step(propose(1)).forwarded(), [], "its own ballot is at work");
}

#[test]
fn forwarded_commands_go_in_messages_of_one_mebibyte() {
    let forwarded = |sizes: &[usize]| {
        let inputs = (1..).zip(sizes).map(|(number, bytes)| propose_sized(number, *bytes));
        let output = follower().turn(inputs.collect::<Vec<_>>());
        output.forwarded().into_iter().map(|(_, numbers)| numbers).collect::<Vec<_>>()
    };
    assert_eq!(forwarded(&[1 << 19, 1 << 19, 1]), [vec![1, 2], vec![3]]);
    assert_eq!(forwarded(&[2_000, 2_000, 2_000]), [[1, 2, 3]]);
    assert_eq!(forwarded(&[(1 << 20) + 1, 1]), [[1], [2]], "a larger one is sent alone");
}

#[test]
fn proposer_refused_by_a_server_that_does_not_lead_waits_for_its_next_heartbeat() {
    let refused = |leader| {
        let mut follower = follower();
        follower.receive(S2, Message::ForwardRefused { leader });
        follower.step(propose(1)).forwarded().len()
    };
    assert_eq!(refused(Some(ballot(1, S2))), 1, "it leads, and its queue was full");
    assert_eq!(refused(None), 0);
    assert_eq!(refused(Some(ballot(2, S3))), 0);
    let mut follower = follower();
    follower.receive(S3, Message::ForwardRefused { leader: None });
    assert_eq!(follower.step(propose(1)).forwarded().len(), 1, "nothing was handed to that one");
}

#[test]
fn leader_takes_a_forwarded_command_only_once() {
    let (mut leader, _) = full_leader();
    leader.step(propose(3));
    leader.receive(S2, forward([4]));
    let waiting = leader.0.batch_threshold();
    leader.receive(S2, forward([1, 2]));
    leader.receive(S2, forward([3]));
    leader.receive(S3, forward([4]));
    assert_eq!(leader.0.batch_threshold(), waiting, "in flight: its own, and a forwarded one");
    leader.receive(S3, forward([5]));
    assert_eq!(leader.0.batch_threshold(), waiting - 1);
    assert_eq!(leader.applied(1, &[1]).proposed(), [(3, 3), (4, 4), (5, 5)]);
}

#[test]
fn own_and_forwarded_commands_take_turns() {
    let (mut leader, _) = full_leader();
    leader.receive(S2, forward([11, 12]));
    leader.turn([propose(3), propose(4), propose(5)]);
    assert_eq!(leader.applied(2, &[1, 2]).proposed(), [(3, 3), (4, 11), (5, 4), (6, 12), (7, 5)]);
}

#[test]
fn forwarded_command_that_is_already_applied_is_not_proposed() {
    let (mut leader, _) = full_leader();
    leader.receive(S2, forward([11, 12, 13]));
    assert_eq!(leader.applied(2, &[1, 12, 2]).proposed(), [(3, 11), (4, 13)]);
}

#[test]
fn leader_with_a_full_queue_still_reports_that_it_leads() {
    let (mut leader, ballot) = full_leader();
    assert!(leader.receive(S2, forward(100..1_124)).is_nothing(), "the queue takes this number");
    let output = leader.receive(S2, forward([2_000, 100]));
    assert_eq!(output.sent, [(ServerSet::only(S2), Message::ForwardRefused { leader: Some(ballot) })]);
}

#[test]
fn leader_steps_down_for_an_earlier_slot_only_if_no_live_server_has_it() {
    let fill = |mut before: Vec<Input<Proposer>>, slot| {
        let mut leader = TestProposer::new(Policy::MultiPaxos);
        // A checkpoint has all slots below 10, so the leader prepares from there.
        leader.receive(S2, Message::Truncated { ballot: ballot(1, S1), slot: Slot(1), below: Slot(10) });
        let (mut leader, _) = leader.led();
        before.push(Input::Message { from: S3, message: Message::Fill { slot: Slot(slot) } });
        let output = leader.turn(before);
        (output.stepped_down(), output.proposed().len())
    };
    let progress =
        |applied| vec![Input::Message { from: S2, message: Message::Progress { applied: Slot(applied), digest: 0 } }];
    let applied = |slot| vec![Input::Request(ProposerRequest::Applied { slot: Slot(slot), ids: Vec::new() })];
    assert_eq!(fill(Vec::new(), 5), (Some(StepDownReason::Truncated(Slot(5))), 0));
    assert_eq!(fill(Vec::new(), 9), (Some(StepDownReason::Truncated(Slot(9))), 0));
    assert_eq!(fill(Vec::new(), 10), (None, 1), "its ballot can propose there");
    assert_eq!(fill(Vec::new(), 12), (None, 3));
    assert_eq!((fill(progress(5), 5), fill(progress(7), 5)), ((None, 0), (None, 0)), "a living peer has it");
    assert_eq!(fill(progress(5), 6), (Some(StepDownReason::Truncated(Slot(6))), 0));
    assert_eq!((fill(applied(5), 5), fill(applied(7), 5)), ((None, 0), (None, 0)), "it has it itself");
    assert_eq!(fill(applied(5), 6), (Some(StepDownReason::Truncated(Slot(6))), 0));
    // The proposer also skips slots that a promise reports as forgotten.
    let mut leader = TestProposer::new(Policy::MultiPaxos);
    let ballot = leader.campaign();
    let forgot = Page { truncated_below: Slot(10), ..page(1, None, Vec::new()) };
    leader.receive(S2, Message::Promise { ballot, page: forgot });
    leader.receive(S1, Message::Promise { ballot, page: page(1, None, Vec::new()) });
    assert_eq!(leader.0.leads(), Some(ballot));
    let output = leader.receive(S3, Message::Fill { slot: Slot(9) });
    assert_eq!(output.stepped_down(), Some(StepDownReason::Truncated(Slot(9))));
}

#[test]
fn installed_snapshot_makes_the_proposer_query_pending_commands() {
    for policy in [Policy::BasicPaxos, Policy::MultiPaxos] {
        let mut proposer = TestProposer::new(policy);
        let installed = |slot| Input::Request(ProposerRequest::Installed { slot: Slot(slot) });
        assert_eq!(proposer.step(installed(5)).outcomes, [], "no command is pending");
        let commands: Vec<Command> = [7, 8].map(command).into();
        commands.iter().for_each(|one| {
            drop(proposer.step(Input::Request(ProposerRequest::Propose { command: one.clone(), promised_round: 0 })))
        });
        let ids = commands.iter().map(|one| one.id).collect();
        assert_eq!(proposer.step(installed(9)).outcomes, [ProposerNotification::Recall(ids)]);
    }
}
