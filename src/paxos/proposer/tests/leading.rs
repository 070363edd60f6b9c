//! Leading and following: when a leader steps down, and which leader a follower accepts.

use super::*;

fn heartbeat(round: u64, server: ServerId) -> Message {
    Message::Heartbeat { ballot: ballot(round, server) }
}

#[test]
fn leader_is_stalled_only_while_slots_are_in_flight_and_none_is_applied() {
    let (mut leader, _) = TestProposer::leader();
    assert_eq!(leader.answered_pulses(40), None, "nothing is in flight");
    leader.step(propose(1));
    assert_eq!(leader.answered_pulses(16), None, "it has had 480 ms");
    assert_eq!(leader.answered_pulses(1), Some(StepDownReason::Stalled));
}

#[test]
fn leader_waits_longer_where_rounds_are_slow() {
    let (mut leader, _) = TestProposer::leader();
    leader.step(propose(1));
    assert_eq!(leader.answered_pulses(16), None);
    leader.applied(1, &[1]);
    leader.step(propose(2));
    assert_eq!(
        leader.answered_pulses(63),
        None,
        "the round before took 480 ms, and this one may take four times as long"
    );
    assert_eq!(leader.answered_pulses(1), Some(StepDownReason::Stalled));
}

#[test]
fn a_leader_learns_from_the_promises_how_long_rounds_take() {
    let mut leader = TestProposer::new(Policy::MultiPaxos);
    let ballot = leader.campaign();
    (0..40).for_each(|_| drop(leader.tick()));
    for server in [S1, S2] {
        leader.receive(server, promise(ballot, Vec::new()));
    }
    let output = leader.step(propose(1));
    assert!(
        output.armed.contains(&ProposerTimer::Resend { tries: 5 }),
        "a round of 1.2 s is not repeated earlier: {output:?}"
    );
    assert_eq!(leader.answered_pulses(159), None);
    assert_eq!(leader.answered_pulses(1), Some(StepDownReason::Stalled));
}

#[test]
fn a_leader_that_waits_for_pages_steps_down_if_none_comes() {
    let mut leader = TestProposer::new(Policy::MultiPaxos);
    let ballot = leader.campaign();
    let first = || page(1, Some(2), vec![accepted(1, Ballot { round: 0, ..ballot }, 1)]);
    for server in [S1, S2] {
        leader.receive(server, Message::Promise { ballot, page: first() });
    }
    leader.applied(1, &[1]);
    assert_eq!(leader.answered_pulses(16), None);
    leader.receive(S1, Message::Promise { ballot, page: page(2, Some(3), Vec::new()) });
    assert_eq!(leader.answered_pulses(16), None, "a page is a move");
    assert_eq!(leader.answered_pulses(1), Some(StepDownReason::Stalled));
}

#[test]
fn own_progress_messages_do_not_count_as_progress_of_a_stalled_leader() {
    let (mut leader, _) = TestProposer::leader();
    leader.step(propose(1));
    let ticks = (0..17).map(|_| {
        leader.receive_progress(S1, 0);
        leader.answered_pulses(1)
    });
    assert_eq!(ticks.collect::<Vec<_>>().last(), Some(&Some(StepDownReason::Stalled)));
}

#[test]
fn only_replies_of_others_to_its_own_ballot_keep_a_leader() {
    let (mut leader, ballot) = TestProposer::leader();
    let older = Ballot { round: ballot.round - 1, ..ballot };
    for _ in 0..9 {
        assert_eq!(leader.tick().stepped_down(), None);
        for (from, ballot) in [(S2, older), (S1, ballot), (ServerId(9), ballot), (ServerId(8), older)] {
            leader.receive(from, Message::HeartbeatReply { ballot });
        }
    }
    assert_eq!(leader.tick().stepped_down(), Some(StepDownReason::NoHeartbeatReplies));
}

#[test]
fn nack_ends_only_the_tenure_of_its_own_ballot() {
    let (mut leader, ours) = TestProposer::leader();
    let older = Ballot { round: ours.round - 1, ..ours };
    assert!(leader.receive(S2, nack(older, ballot(7, S3))).is_nothing());
    assert!(leader.receive(ServerId(9), nack(ours, ballot(7, S3))).is_nothing(), "a server outside the cluster");
    let output = leader.receive(S2, nack(ours, ballot(7, S3)));
    assert_eq!(output.stepped_down(), Some(StepDownReason::Nacked(ballot(7, S3))));
}

#[test]
fn leader_names_the_acceptors_that_promised() {
    let (leader, ballot) = TestProposer::leader();
    let quorum = ServerSet::first(2);
    assert_eq!(leader.0.leader(), Some((ballot, LeaderEvidence::Leads { quorum })));
    assert_eq!(leader.0.next_round(), ballot.round + 1);
    // A proposer of Basic Paxos gives up its ballot after each command and never leads.
    let mut basic = TestProposer::new(Policy::BasicPaxos);
    let (ballot, _) = basic.step(propose(1)).prepared().expect("it prepares");
    basic.receive(S1, promise(ballot, Vec::new()));
    assert_eq!(basic.receive(S2, promise(ballot, Vec::new())).proposed(), [(1, 1)]);
    assert_eq!(basic.0.leader(), None);
}

#[test]
fn leader_without_a_learner_reports_that_it_stopped_leading() {
    let (mut leader, _) = TestProposer::leader();
    let output = leader.step(Input::Request(ProposerRequest::LearnerDown));
    assert_eq!(output.stepped_down(), Some(StepDownReason::LearnerDown));
    assert_eq!(output.armed, [ProposerTimer::Election { soon: false }]);
}

#[test]
fn leader_or_candidate_follows_no_lower_ballot() {
    let (mut leader, ballot) = TestProposer::leader();
    leader.receive(S3, heartbeat(ballot.round + 4, S3));
    let ours = leader.campaign();
    assert!(leader.receive(S3, heartbeat(ballot.round + 4, S3)).is_nothing(), "its own ballot is above");
    leader.receive(S1, promise(ours, Vec::new()));
    leader.receive(S2, promise(ours, Vec::new()));
    assert!(leader.receive(S3, heartbeat(ballot.round + 4, S3)).is_nothing());
    assert_eq!(leader.0.leads(), Some(ours));
    assert_eq!(
        leader.receive(S3, heartbeat(ours.round, S3)).stepped_down(),
        Some(StepDownReason::HigherBallot(Ballot { round: ours.round, server: S3 }))
    );
    // Basic Paxos ignores heartbeats.
    let output = TestProposer::new(Policy::BasicPaxos).receive(S3, heartbeat(9, S3));
    assert!(output.is_nothing() && output.armed.is_empty());
}

#[test]
fn leader_counts_for_five_ticks_and_is_hinted_every_second_one() {
    let mut follower = TestProposer::new(Policy::MultiPaxos);
    for _ in 0..10 {
        follower.tick();
    }
    assert_eq!(follower.receive(S2, heartbeat(1, S2)).names(), ["HEARTBEATREPLY", "LEADERHINT"]);
    follower.tick();
    assert_eq!(follower.receive(S2, heartbeat(1, S2)).names(), ["HEARTBEATREPLY"]);
    follower.tick();
    assert_eq!(follower.receive(S2, heartbeat(1, S2)).names(), ["HEARTBEATREPLY", "LEADERHINT"]);
    for _ in 0..4 {
        follower.tick();
    }
    assert_eq!(follower.0.leader(), Some((ballot(1, S2), LeaderEvidence::Heartbeat)));
    follower.tick();
    assert_eq!(follower.0.leader(), None);
}

#[test]
fn server_with_only_a_leader_hint_reports_a_leader_and_forwards_nothing() {
    let mut follower = TestProposer::new(Policy::MultiPaxos);
    follower.receive(S3, Message::LeaderHint { ballot: ballot(1, S2) });
    assert_eq!(follower.0.leader(), Some((ballot(1, S2), LeaderEvidence::Hint)));
    let answer = follower.receive(S3, Message::PreVote { id: 4 });
    assert_eq!(answer.sent, [(ServerSet::only(S3), Message::PreVoteReply { id: 4, hears: true })]);
    assert_eq!(follower.step(propose(1)).forwarded(), []);
}

#[test]
fn a_candidate_that_is_far_behind_lets_its_learner_catch_up_first() {
    let mut candidate = TestProposer::new(Policy::MultiPaxos);
    candidate.receive_progress(S2, 65);
    let output = candidate.fire(ProposerTimer::Election { soon: false });
    assert!(output.sent.is_empty() && output.armed.contains(&ProposerTimer::CatchUp), "{output:?}");
    assert_eq!(candidate.applied(1, &[]).names(), ["PREVOTE"], "64 slots are not far");
}

#[test]
fn refused_candidate_prepares_once_more_with_a_higher_ballot() {
    let mut candidate = TestProposer::new(Policy::MultiPaxos);
    let first = candidate.campaign();
    candidate.receive(S3, nack(first, ballot(5, S3)));
    candidate.receive(S1, promise(first, Vec::new()));
    let (second, _) = candidate.receive(S2, promise(first, Vec::new())).prepared().expect("above the refusal");
    assert_eq!((second.round, candidate.0.leads()), (6, None));
    candidate.receive(S3, nack(second, ballot(8, S3)));
    candidate.receive(S1, promise(second, Vec::new()));
    candidate.receive(S2, promise(second, Vec::new()));
    assert_eq!(candidate.0.leads(), Some(second), "once is enough");
}

#[test]
fn candidate_waiting_for_promises_is_not_interrupted_before_its_timeout() {
    let mut candidate = TestProposer::new(Policy::MultiPaxos);
    let ballot = candidate.campaign();
    let output = candidate.tick();
    let relay = (ServerSet::first(3).without(ServerSet::only(S1)), Message::LeaderHint { ballot });
    assert_eq!(output.sent, [relay]);
    let mut other = TestProposer::new(Policy::MultiPaxos);
    other.receive(S2, Message::LeaderHint { ballot: super::ballot(9, S2) });
    assert_eq!(other.0.leader(), Some((super::ballot(9, S2), LeaderEvidence::Hint)));
    candidate.fire(ProposerTimer::Attempt { ballot, doublings: 0 });
    assert_eq!(candidate.tick().sent, [], "no acceptor has promised: others may campaign");
}
