//! Attempts: where they begin, what they are for, and how failed ones are reported.

use super::*;
use crate::role::TimerSpec;

/// The commands reported as certainly not applied, with the reason.
fn not_applied(output: &ProposerOutput) -> Vec<(u64, NotApplied)> {
    let told = |outcome: &ProposerNotification| match outcome {
        ProposerNotification::NotApplied { id, why } => Some((id.sequence, *why)),
        ProposerNotification::Recall(_) => None,
    };
    output.outcomes.iter().filter_map(told).collect()
}

#[test]
fn proposer_waits_until_its_learner_has_caught_up_with_live_peers() {
    let mut proposer = TestProposer::new(Policy::BasicPaxos);
    proposer.ticks(10);
    proposer.receive_progress(S2, 100);
    assert_eq!(proposer.step(propose(1)).armed, [ProposerTimer::CatchUp]);
    assert_eq!(proposer.applied(35, &[]).prepared(), None, "it is 65 behind");
    assert_eq!(proposer.applied(36, &[]).prepared(), Some((ballot(1, S1), Slot(37))));
    // The proposer does not wait for a peer without a message for three ticks.
    let mut proposer = TestProposer::new(Policy::BasicPaxos);
    proposer.receive_progress(S2, 100);
    proposer.ticks(3);
    assert_eq!(proposer.step(propose(1)).prepared(), Some((ballot(1, S1), Slot(1))));
}

#[test]
fn reported_truncation_counts_for_one_second() {
    let truncated = |below| Message::Truncated { ballot: ballot(1, S1), slot: Slot(1), below: Slot(below) };
    let begins_at = |ticks: u64| {
        let mut proposer = TestProposer::new(Policy::BasicPaxos);
        proposer.ticks(6);
        proposer.receive(S2, truncated(50));
        proposer.ticks(5);
        proposer.receive(S2, truncated(50));
        proposer.ticks(ticks);
        proposer.step(propose(1)).prepared().map(|(_, from)| from)
    };
    assert_eq!(begins_at(4), Some(Slot(50)));
    assert_eq!(begins_at(5), Some(Slot(1)), "one second after the first report");
}

#[test]
fn attempt_names_its_command() {
    let command_of = |output: &ProposerOutput| {
        output.facts.iter().find_map(|trace_event| match trace_event {
            ProposerTraceEvent::PrepareSent { command, .. } | ProposerTraceEvent::Retried { command, .. } => {
                Some(command.clone())
            }
            _ => None,
        })
    };
    let fails = |proposer: &mut TestProposer, ballot| {
        command_of(&proposer.fire(ProposerTimer::Attempt { ballot, doublings: 0 }))
    };
    let mut basic = TestProposer::new(Policy::BasicPaxos);
    assert_eq!(command_of(&basic.step(propose(1))), Some(Some(command(1))));
    assert_eq!(fails(&mut basic, ballot(1, S1)), Some(Some(command(1))));
    // An attempt that fills slots has no command, and neither has a leader's: it serves all commands.
    let mut filling = TestProposer::new(Policy::BasicPaxos);
    let fill = Input::Message { from: S2, message: Message::Fill { slot: Slot(2) } };
    assert_eq!(command_of(&filling.turn([fill, propose(1)])), Some(None));
    assert_eq!(fails(&mut filling, ballot(1, S1)), Some(None));
    filling.receive(S2, Message::Fill { slot: Slot(2) });
    assert_eq!(command_of(&filling.fire(ProposerTimer::Backoff { stalls: 1 })), Some(None), "though a command waits");
    let mut leading = TestProposer::new(Policy::MultiPaxos);
    leading.step(propose(1));
    let ballot = leading.campaign();
    assert_eq!(fails(&mut leading, ballot), Some(None));
}

#[test]
fn refusals_of_an_older_ballot_do_not_end_an_attempt() {
    let mut proposer = TestProposer::new(Policy::BasicPaxos);
    let (first, _) = proposer.step(propose(1)).prepared().expect("it prepares");
    proposer.receive(S2, nack(first, ballot(3, S2)));
    let (second, _) = proposer.receive(S3, nack(first, ballot(3, S2))).prepared().expect("above the rival");
    assert_eq!(second.round, 4);
    for server in [S1, S2, S3] {
        assert!(proposer.receive(server, nack(first, ballot(3, S2))).is_nothing(), "it is of the first attempt");
        assert!(
            proposer.receive(ServerId(server.0 + 5), nack(second, ballot(6, S2))).is_nothing(),
            "a server outside the \
                                                                                                  cluster"
        );
    }
    proposer.receive(S1, promise(second, Vec::new()));
    assert_eq!(proposer.receive(S2, promise(second, Vec::new())).proposed(), [(1, 1)]);
}

#[test]
fn expired_command_is_reported_with_its_reason() {
    let silent = |policy| {
        let mut proposer = TestProposer::new(policy);
        proposer.step(propose(1));
        proposer
    };
    let mut alone = silent(Policy::BasicPaxos);
    assert_eq!(not_applied(&alone.ticks(8)), [(1, NotApplied::NoQuorum { answered: ServerSet::NONE })]);
    let mut outrun = silent(Policy::BasicPaxos);
    for server in [S2, S3] {
        outrun.receive(server, nack(ballot(1, S1), ballot(3, server)));
    }
    for server in [S2, S3] {
        outrun.receive(server, nack(ballot(4, S1), ballot(6, server)));
    }
    assert_eq!(not_applied(&outrun.ticks(8)), [(1, NotApplied::Preempted)]);
    assert_eq!(not_applied(&silent(Policy::MultiPaxos).ticks(8)), [(1, NotApplied::NoLeader)]);
    // A leader is busy while two batches are in flight.
    let (mut leader, _) = TestProposer::leader();
    for number in 1..=3 {
        leader.step(propose(number));
    }
    assert_eq!(not_applied(&leader.ticks(8)), [(3, NotApplied::Busy)]);
}

/// The acceptors from which it requests a page now, and the first slot of each page.
fn pages(output: &ProposerOutput) -> Vec<(ServerSet, u64)> {
    let page = |(to, message): &(ServerSet, Message)| match message {
        Message::Prepare { from, .. } if to.len() == 1 => Some((*to, from.0)),
        _ => None,
    };
    output.sent.iter().filter_map(page).collect()
}

#[test]
fn proposer_requests_page_after_page_and_proposes_in_covered_slots() {
    let mut proposer = TestProposer::new(Policy::BasicPaxos);
    let (ballot, _) = proposer.step(propose(9)).prepared().expect("it prepares");
    let old = Ballot { round: 0, ..ballot };
    let receive =
        |proposer: &mut TestProposer, server, page| proposer.receive(server, Message::Promise { ballot, page });
    let output = receive(&mut proposer, S1, page(1, Some(3), vec![accepted(1, old, 1)]));
    assert_eq!(
        (pages(&output), output.proposed()),
        (vec![(ServerSet::only(S1), 3)], Vec::new()),
        "one acceptor is no quorum"
    );
    let output = receive(&mut proposer, S2, page(1, Some(2), vec![accepted(1, old, 1)]));
    assert_eq!(output.proposed(), [(1, 1)], "of slot 2 the second one has not spoken");
    assert_eq!(pages(&output), [(ServerSet::only(S2), 2)]);
    let output = receive(&mut proposer, S2, page(1, Some(2), vec![accepted(1, old, 1)]));
    assert_eq!((pages(&output), output.proposed()), (Vec::new(), Vec::new()), "a page that arrives twice");
    let output = receive(&mut proposer, S2, page(3, None, vec![accepted(3, old, 3)]));
    assert_eq!(output.proposed(), [], "a page that was not requested leaves a gap");
    let output = receive(&mut proposer, S2, page(2, None, vec![accepted(3, old, 3)]));
    assert_eq!(
        output.proposed(),
        [(2, 0)],
        "neither has accepted anything in slot 2, and of slot 3 one has not spoken"
    );
    let output = receive(&mut proposer, S1, page(3, None, Vec::new()));
    assert_eq!(output.proposed(), [(3, 3), (4, 9)], "its own command goes after all accepted values");
}

#[test]
fn lost_page_is_requested_again_and_from_another_acceptor_too() {
    let mut proposer = TestProposer::new(Policy::BasicPaxos);
    let (ballot, _) = proposer.step(propose(9)).prepared().expect("it prepares");
    let old = Ballot { round: 0, ..ballot };
    let first = || Message::Promise { ballot, page: page(1, Some(2), vec![accepted(1, old, 1)]) };
    for server in [S1, S2, S3] {
        proposer.receive(server, first());
    }
    assert_eq!(pages(&proposer.fire(ProposerTimer::Tick)), [], "they have their time");
    let output = proposer.fire(ProposerTimer::Tick);
    assert_eq!(pages(&output), [S1, S2, S3].map(|server| (ServerSet::only(server), 2)));
}

#[test]
fn corrupt_slot_is_requested_from_another_acceptor() {
    let mut proposer = TestProposer::new(Policy::BasicPaxos);
    let (ballot, _) = proposer.step(propose(9)).prepared().expect("it prepares");
    let old = Ballot { round: 0, ..ballot };
    let receive =
        |proposer: &mut TestProposer, server, page| proposer.receive(server, Message::Promise { ballot, page });
    let lost = SlotRange { first: Slot(2), last: Slot(2) };
    let first = || page(1, Some(2), vec![accepted(1, old, 1)]);
    [S1, S2, S3].into_iter().for_each(|server| drop(receive(&mut proposer, server, first())));
    // Acceptors 1 and 2 answer for all slots, and one slot of acceptor 1 is corrupt.
    let output = receive(&mut proposer, S1, Page { corrupt: vec![lost], ..page(2, None, Vec::new()) });
    assert_eq!(pages(&output), [(ServerSet::only(S3), 2)]);
    assert_eq!(receive(&mut proposer, S2, page(2, None, vec![accepted(2, old, 2)])).proposed(), []);
    assert_eq!(receive(&mut proposer, S3, page(2, None, Vec::new())).proposed(), [(2, 2), (3, 9)]);
}

#[test]
fn acceptor_that_covered_earlier_slots_need_not_cover_later_ones() {
    let proposer =
        Proposer::new(S1, Quorums::majority(ServerSet::first(3)), Policy::BasicPaxos).with_window(1, 1 << 20);
    let mut proposer = TestProposer::of(proposer);
    let (ballot, _) = proposer.step(propose(9)).prepared().expect("it prepares");
    let old = Ballot { round: 0, ..ballot };
    let bound = || page(1, None, vec![accepted(1, old, 1), accepted(2, old, 2)]);
    let lost = SlotRange { first: Slot(5), last: Slot(9) };
    proposer.receive(S1, Message::Promise { ballot, page: Page { corrupt: vec![lost], ..bound() } });
    assert_eq!(proposer.receive(S2, Message::Promise { ballot, page: bound() }).proposed(), [(1, 1)]);
    // Other proposers have got slots 2 to 5 chosen meanwhile. In slot 6, acceptors 2 and 3 may have accepted a value.
    assert_eq!(proposer.applied(5, &[1, 2]).proposed(), [], "acceptor 1 cannot read slot 6");
    let theirs = page(1, None, vec![accepted(6, old, 6)]);
    assert_eq!(proposer.receive(S3, Message::Promise { ballot, page: theirs }).proposed(), [(6, 6)]);
    assert_eq!(proposer.applied(6, &[6]).proposed(), [(7, 9)], "acceptors 2 and 3 settle all that is left");
}

#[test]
fn reply_at_another_ballot_never_skips_a_page() {
    let mut proposer = TestProposer::new(Policy::BasicPaxos);
    let (ballot, _) = proposer.step(propose(9)).prepared().expect("it prepares");
    let old = Ballot { round: 0, ..ballot };
    proposer.receive(S1, Message::Promise { ballot, page: page(1, Some(2), vec![accepted(1, old, 1)]) });
    // The report is valid for a second. If slots 2 to 9 counted as answered by S1, they would look free after that.
    let truncated = Page { truncated_below: Slot(10), ..page(1, None, Vec::new()) };
    proposer.receive(S3, Message::Promise { ballot: old, page: truncated });
    proposer.fire(ProposerTimer::Tick);
    assert_eq!(pages(&proposer.fire(ProposerTimer::Tick)), [(ServerSet::only(S1), 2)]);
}

#[test]
fn wait_between_attempts_grows_until_any_command_is_applied() {
    let mut proposer = TestProposer::new(Policy::BasicPaxos);
    let mut output = proposer.step(propose(9));
    let mut pauses = Vec::new();
    for failures in 0..9 {
        if failures == 8 {
            proposer.applied(1, &[1]);
        }
        let (ballot, _) = output.prepared().expect("it prepares");
        let lost = proposer.fire(ProposerTimer::Attempt { ballot, doublings: failures });
        let pause = *lost.armed.iter().find(|timer| matches!(timer, ProposerTimer::Backoff { .. })).expect("it waits");
        pauses.push(*pause.delay_ms().end());
        output = proposer.fire(pause);
    }
    assert_eq!(pauses, [40, 40, 80, 160, 320, 640, 1_280, 2_560, 40]);
}

#[test]
fn wait_between_attempts_grows_with_the_length_of_ballots() {
    let longest_pause = |ticks: u64| {
        let mut proposer = TestProposer::new(Policy::BasicPaxos);
        let mut output = proposer.step(propose(9));
        let mut longest = 0;
        for failures in 0..14 {
            let (ballot, _) = output.prepared().expect("it prepares");
            // A command that was proposed once is not given up.
            proposer.ticks(if failures == 0 { 0 } else { ticks });
            [S1, S2].into_iter().for_each(|server| drop(proposer.receive(server, promise(ballot, Vec::new()))));
            let lost = proposer.fire(ProposerTimer::Attempt { ballot, doublings: failures });
            let pause =
                *lost.armed.iter().find(|timer| matches!(timer, ProposerTimer::Backoff { .. })).expect("it waits");
            longest = longest.max(*pause.delay_ms().end());
            output = proposer.fire(pause);
        }
        longest
    };
    assert_eq!([0, 6, 9, 20, 90].map(longest_pause), [2_560, 2_560, 5_120, 10_240, 10_240]);
}

#[test]
fn quorum_of_a_slot_names_only_acceptors_that_cover_it() {
    let mut proposer = TestProposer::new(Policy::BasicPaxos);
    let (ballot, _) = proposer.step(propose(9)).prepared().expect("it prepares");
    let old = Ballot { round: 0, ..ballot };
    let lost = SlotRange { first: Slot(1), last: Slot(1) };
    let corrupt = Page { corrupt: vec![lost], ..page(1, None, vec![accepted(2, old, 2)]) };
    proposer.receive(S1, Message::Promise { ballot, page: corrupt });
    proposer.receive(S2, promise(ballot, vec![accepted(1, old, 1)]));
    let output = proposer.receive(S3, promise(ballot, Vec::new()));
    let quorum = |trace_event: &ProposerTraceEvent| match trace_event {
        ProposerTraceEvent::Proposed { slot, quorum, .. } => Some((slot.0, *quorum)),
        _ => None,
    };
    let without = ServerSet::first(3).without(ServerSet::only(S1));
    let quorums: Vec<_> = output.facts.iter().filter_map(quorum).collect();
    assert_eq!(quorums, [(1, without), (2, ServerSet::first(3)), (3, without)]);
}

#[test]
fn value_reported_for_a_corrupt_slot_does_not_count() {
    let mut proposer = TestProposer::new(Policy::BasicPaxos);
    let (ballot, _) = proposer.step(propose(9)).prepared().expect("it prepares");
    let lost = SlotRange { first: Slot(1), last: Slot(2) };
    let corrupt = Page { corrupt: vec![lost], ..page(1, None, vec![accepted(2, Ballot { round: 0, ..ballot }, 2)]) };
    proposer.receive(S1, Message::Promise { ballot, page: corrupt });
    proposer.receive(S2, promise(ballot, Vec::new()));
    let output = proposer.receive(S3, promise(ballot, Vec::new()));
    assert_eq!(output.proposed(), [(1, 9)], "it may have accepted another value later, and lost that");
}

#[test]
fn proposer_at_the_last_ballot_reports_it_and_reuses_none() {
    let last = ballot(Ballot::LAST_ROUND, S2);
    for policy in [Policy::BasicPaxos, Policy::MultiPaxos] {
        for claim in
            [nack(ballot(1, S1), last), Message::Heartbeat { ballot: last }, Message::LeaderHint { ballot: last }]
        {
            let mut proposer = TestProposer::new(policy);
            proposer.step(propose(1));
            proposer.receive(S2, claim.clone());
            proposer.receive(S3, nack(ballot(1, S1), last));
            // More time than the silence after which the claimed leader is given up.
            for _ in 0..20 {
                for timer in [
                    ProposerTimer::HeartbeatTick,
                    ProposerTimer::Backoff { stalls: 1 },
                    ProposerTimer::Election { soon: false },
                ] {
                    let output = proposer.fire(timer);
                    let prepared = output.prepared().map(|(ballot, _)| ballot);
                    assert_eq!(prepared.filter(|ballot| ballot.round <= 1 || *ballot > last), None, "{claim:?}");
                }
                let id = proposer.0.election.pre_vote_rounds();
                let output = proposer.receive(S3, Message::PreVoteReply { id, hears: false });
                assert_eq!(output.prepared(), None, "{policy:?} {claim:?}");
            }
            let why = not_applied(&proposer.ticks(8));
            assert!(why == [(1, NotApplied::NoRound)] || why.is_empty(), "{policy:?} {claim:?}: {why:?}");
        }
    }
}

#[test]
fn a_slot_at_the_end_of_all_slots_is_not_filled_at_once() {
    let mut proposer = TestProposer::new(Policy::BasicPaxos);
    let (first, _) = proposer.receive(S2, Message::Fill { slot: Slot::LAST }).prepared().expect("it fills");
    proposer.receive(S1, promise(first, Vec::new()));
    let proposed = proposer.receive(S2, promise(first, Vec::new())).proposed();
    assert_eq!((proposed.first(), proposed.len()), (Some(&(1, 0)), phase2::IN_FLIGHT_MAX as usize));
    proposer.applied(phase2::IN_FLIGHT_MAX + 1, &[]);
    assert_eq!(proposer.0.active_ballot(), None, "it has done its share");
}

#[test]
fn nothing_is_proposed_after_the_last_slot() {
    let (mut leader, ballot) =
        TestProposer::of(Proposer::new(S1, Quorums::majority(ServerSet::first(3)), Policy::MultiPaxos)).led();
    leader.receive(S2, Message::Truncated { ballot, slot: Slot(1), below: Slot::LAST });
    let proposed: Vec<_> = (1..=4).flat_map(|number| leader.step(propose(number)).proposed()).collect();
    assert_eq!(proposed, [(Slot::LAST.0, 1)]);
}

#[test]
fn a_ballot_begins_above_what_the_own_acceptor_has_promised() {
    let of = |promised_round| Input::Request(ProposerRequest::Propose { command: command(1), promised_round });
    let mut proposer = TestProposer::new(Policy::BasicPaxos);
    assert_eq!(proposer.step(of(7)).prepared(), Some((ballot(8, S1), Slot(1))));
    // A round that the proposer has passed changes nothing; after the last round there is no ballot.
    proposer.step(of(3));
    assert_eq!(proposer.0.next_round(), 9);
    let mut proposer = TestProposer::new(Policy::BasicPaxos);
    assert_eq!(proposer.step(of(u64::MAX)).prepared(), None);
}
