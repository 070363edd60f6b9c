//! Which values count as chosen, and which peer is asked for missing entries.

use super::{
    Ballot, CommandId, LearnerActions, LearnerNotification, LearnerRequest, LearnerTimer, Message, Slot, TestLearner,
    alone, armed, ballot, begun, catch_up, entry, learner, sent, servers, told, value,
};
use crate::paxos::{Entry, LearnerTraceEvent, SlotRange, Value};
use crate::role::{Action, ServerId, ServerSet};

fn accept(round: u64, slot: u64, number: u64) -> Message {
    Message::Accept { ballot: ballot(round), first: Slot(slot), values: vec![value(number)] }
}

/// A vote for slot 1 at a ballot of server 1.
fn vote(round: u64) -> Message {
    Message::Accepted { ballot: ballot(round), slots: SlotRange::only(Slot(1)) }
}

fn chosen(round: u64) -> Message {
    Message::Chosen { ballot: ballot(round), slots: SlotRange::only(Slot(1)) }
}

/// The value of the trace event of a chosen slot, if there is one.
fn fact_of_choice(actions: &LearnerActions) -> Option<Option<Value>> {
    actions.iter().find_map(|action| match action {
        Action::Trace(LearnerTraceEvent::Chosen { value, .. }) => Some(value.clone()),
        _ => None,
    })
}

#[test]
#[should_panic(expected = "ballot 1.1 carries two values for slot 1")]
fn a_ballot_that_carries_two_values_for_a_slot_stops_the_process() {
    let mut learner = alone(2, 3);
    learner.receive(1, accept(1, 1, 7));
    learner.receive(1, accept(1, 1, 7));
    learner.receive(1, accept(1, 1, 8));
}

#[test]
fn votes_are_counted_for_the_sixteen_highest_ballots() {
    let after = |rounds| {
        let mut learner = alone(1, 3);
        (1..=rounds).for_each(|round| assert_eq!(sent(&learner.receive(2, vote(round))), []));
        learner
    };
    let chooses = |learner: &TestLearner, round| !sent(&learner.clone().receive(3, vote(round))).is_empty();
    let learner = after(16);
    assert!(chooses(&learner, 1) && chooses(&learner, 16));
    let learner = after(17);
    assert!(!chooses(&learner, 1) && chooses(&learner, 2) && chooses(&learner, 17));
}

#[test]
fn half_of_the_servers_choose_nothing() {
    let mut learner = alone(1, 4);
    learner.receive(1, vote(1));
    assert_eq!(sent(&learner.receive(2, vote(1))), []);
    assert_eq!(sent(&learner.receive(3, vote(1))), [(servers([2, 3, 4]), chosen(1))]);
}

#[test]
fn value_reported_as_chosen_was_received_at_the_chosen_ballot() {
    for (round, shown) in [(4, Some(value(7))), (5, None)] {
        let mut learner = alone(1, 3);
        learner.receive(1, accept(round, 1, 7));
        learner.receive(1, vote(4));
        assert_eq!(fact_of_choice(&learner.receive(2, vote(4))), Some(shown));
        assert_eq!(learner.applied(), 1, "a higher ballot carries the same value");
    }
}

/// The acceptors named with each applied slot.
fn accepted_by(actions: &LearnerActions) -> Vec<ServerSet> {
    let applied = |action: &Action<_>| match action {
        Action::Notify(LearnerNotification::Applied { accepted_by, .. }) => Some(*accepted_by),
        _ => None,
    };
    actions.iter().filter_map(applied).collect()
}

#[test]
fn applied_slot_names_the_acceptors_that_this_learner_counted_itself() {
    let mut learner = alone(1, 5);
    learner.receive(1, accept(4, 1, 7));
    learner.receive(5, vote(4));
    learner.receive(2, vote(4));
    assert_eq!(accepted_by(&learner.receive(3, vote(4))), [servers([2, 3, 5])]);
    // A vote that comes after the choice is not counted, and what a peer has counted is not known here.
    assert_eq!(accepted_by(&learner.receive(4, vote(4))), []);
    let mut learner = alone(2, 5);
    learner.receive(1, accept(4, 1, 7));
    assert_eq!(accepted_by(&learner.receive(1, chosen(4))), [ServerSet::NONE]);
    assert_eq!(accepted_by(&learner.learn(3)), [ServerSet::NONE; 2]);
}

#[test]
fn progress_from_outside_the_cluster_is_ignored() {
    let mut learner = alone(1, 3);
    assert_eq!((armed(&learner.receive_progress(4, 9, 0)), learner.0.highest_chosen()), (vec![], Slot(0)));
    assert_eq!(armed(&learner.receive_progress(3, 5, 0)), [LearnerTimer::Gap]);
    assert_eq!(learner.0.highest_chosen(), Slot(5));
}

#[test]
fn entries_are_sent_in_pieces_of_at_most_n_bytes() {
    // An entry of these tests takes 24 bytes, and its value 40.
    for (bytes, last) in [(1, 2), (127, 2), (128, 3), (191, 3), (192, 4), (10_000, 5)] {
        let mut learner = begun(learner(1, 3).with_part_bytes(bytes));
        learner.learn(5);
        let entries = (2..=last).map(entry).collect();
        let actions = learner.receive(2, Message::CatchUp { from: Slot(2) });
        assert_eq!(
            sent(&actions),
            [(servers([2]), Message::Entries { entries, applied: Slot(5) })],
            "parts of {bytes} B"
        );
    }
}

/// Server 1 of 3, which knows from PROGRESS that server 2 has applied slots up to `applied`, and asks it for them.
fn asking(applied: u64) -> TestLearner {
    let mut learner = alone(1, 3);
    learner.receive_progress(2, applied, 0);
    assert_eq!(sent(&learner.fire(LearnerTimer::Gap)), [catch_up(2, 1)]);
    learner
}

#[test]
fn peer_that_sent_nothing_is_not_asked_again_at_once() {
    let mut learner = asking(5);
    let actions = learner.receive(2, Message::Entries { entries: vec![], applied: Slot(5) });
    assert_eq!((sent(&actions), armed(&actions)), (vec![], vec![LearnerTimer::Gap]));
    // The timer of the answered request fires too late.
    let actions = learner.fire(LearnerTimer::CatchUp { unanswered: 0 });
    assert_eq!((sent(&actions), armed(&actions)), (vec![], vec![]));
    assert_eq!(sent(&learner.fire(LearnerTimer::Gap)), [catch_up(2, 1)]);
}

#[test]
fn peer_that_sent_some_entries_is_asked_for_the_rest_at_once() {
    let mut learner = asking(5);
    let actions = learner.receive(2, Message::Entries { entries: vec![entry(1), entry(2)], applied: Slot(5) });
    assert_eq!((learner.applied(), sent(&actions)), (2, vec![catch_up(2, 3)]));
}

#[test]
fn entries_from_another_peer_do_not_end_the_wait_for_the_asked_peer() {
    let mut learner = asking(5);
    let actions = learner.receive(3, Message::Entries { entries: vec![entry(1)], applied: Slot(1) });
    assert_eq!((learner.applied(), sent(&actions), armed(&actions)), (1, vec![], vec![]));
    assert_eq!(sent(&learner.fire(LearnerTimer::CatchUp { unanswered: 0 })), [catch_up(2, 2)]);
}

#[test]
fn learner_that_got_the_missing_entries_elsewhere_stops_asking() {
    let mut learner = asking(1);
    learner.receive(1, accept(1, 1, 1));
    learner.receive(1, chosen(1));
    assert_eq!(learner.applied(), 1);
    let actions = learner.fire(LearnerTimer::CatchUp { unanswered: 0 });
    assert_eq!((sent(&actions), armed(&actions)), (vec![], vec![]));
    assert_eq!(armed(&learner.receive_progress(3, 2, 0)), [LearnerTimer::Gap], "and it looks for what is missing next");
}

#[test]
fn results_found_for_commands_are_notified_to_pending_requests() {
    let mut learner = alone(1, 3);
    learner.learn(3);
    let actions = learner.ask(LearnerRequest::FindResults(vec![
        CommandId::new(1, 0, 2),
        CommandId::new(1, 0, 9),
        CommandId::new(1, 0, 3),
    ]));
    let recalled = told(&actions, |outcome| match outcome {
        LearnerNotification::ResultsFound { slot, id, outcome } => Some((slot.0, id.sequence, *outcome)),
        _ => None,
    });
    assert_eq!(recalled, [(3, 2, 2), (3, 3, 3)]);
}

/// Server 3, for which a read has found slot 7, asks to have the log filled. The last PROGRESS of server 1 is `ticks`
/// ticks old.
fn fill_is_asked_of(mut learner: TestLearner, ticks: usize) -> ServerSet {
    learner.fire_ticks(1);
    learner.step(super::read(1));
    learner.answer_round(7);
    learner.receive_progress(1, 0, super::right(0));
    learner.fire_ticks(ticks);
    let asked: Vec<ServerSet> =
        sent(&learner.fire(LearnerTimer::Fill { tries: 0 })).into_iter().map(|(to, _)| to).collect();
    assert_eq!(asked.len(), 1);
    asked[0]
}

#[test]
fn lowest_server_with_progress_within_300_ms_is_asked_to_fill_the_log() {
    for (ticks, asked) in [(0, 1), (1, 1), (2, 1), (3, 3), (4, 3)] {
        assert_eq!(fill_is_asked_of(alone(3, 3), ticks), ServerSet::only(ServerId(asked)), "{ticks} ticks later");
    }
}

#[test]
fn where_there_are_leaders_the_own_proposer_is_asked_to_fill_the_log() {
    let learner = begun(learner(3, 3).with_policy(crate::paxos::Policy::MultiPaxos));
    assert_eq!(fill_is_asked_of(learner, 0), servers([3]));
}

#[test]
fn votes_for_another_servers_ballot_are_not_counted() {
    let mut learner = alone(1, 3);
    let other = Ballot { round: 4, server: ServerId(2) };
    for acceptor in 1..=3 {
        let vote = Message::Accepted { ballot: other, slots: SlotRange::only(Slot(1)) };
        assert_eq!(sent(&learner.receive(acceptor, vote)), []);
    }
}

#[test]
fn messages_at_the_last_slot_change_nothing_applied() {
    let mut learner = alone(1, 3);
    learner.learn(5);
    let all = SlotRange { first: Slot(0), last: Slot::LAST };
    let highest = Ballot { round: Ballot::LAST_ROUND, server: ServerId(1) };
    let claims = [
        Message::CatchUp { from: Slot::LAST },
        Message::Chosen { ballot: highest, slots: all },
        Message::Accepted { ballot: highest, slots: all },
        Message::Accept { ballot: highest, first: Slot::LAST, values: vec![value(1), value(2)] },
        Message::Entries {
            entries: vec![Entry { slot: Slot::LAST, ballot: highest, value: value(1) }],
            applied: Slot::LAST,
        },
        Message::Progress { applied: Slot::LAST, digest: 0 },
        Message::ReadReply { id: u128::MAX, slot: Slot::LAST },
    ];
    for claim in claims {
        learner.receive(2, claim.clone());
        for timer in [LearnerTimer::Gap, LearnerTimer::CatchUp { unanswered: 0 }, LearnerTimer::Progress] {
            learner.fire(timer);
        }
        assert_eq!(learner.applied(), 5, "{claim:?}");
    }
    assert!(learner.0.unapplied_slots() <= crate::paxos::LEARNER_WINDOW as usize);
}
