//! When a checkpoint is written, and how much of the log is kept then.

use super::{
    Entry, LearnerActions, LearnerNotification, LearnerRequest, Message, NONE, Retention, Slot, TestLearner, alone,
    ballot, checkpoint_ended, checkpoints, keeping, told, value,
};
use crate::paxos::{FULL_FACTOR, HARD_FACTOR, LATE_FACTOR, SlotRange};

/// The size of one value of these tests in a log, in bytes.
const SIZE: u64 = 40;

const EVERY_FOUR: Retention = Retention { checkpoint_slots: 4, ..Retention::KEEP_ALL };

fn durable(actions: &LearnerActions) -> Vec<u64> {
    told(actions, |outcome| if let LearnerNotification::Durable { slot } = outcome { Some(slot.0) } else { None })
}

/// The first slot of the log, and the number of its slots, computed from its bytes.
fn log(learner: &TestLearner) -> (u64, u64) {
    (learner.0.log_begins().0, learner.0.log_bytes() / SIZE)
}

#[test]
fn checkpoint_starts_after_n_slots_and_one_at_a_time() {
    let mut learner = keeping(1, 3, EVERY_FOUR);
    assert_eq!(checkpoints(&learner.learn(3)), []);
    assert_eq!(checkpoints(&learner.learn(4)), [(4, vec![1, 2, 3, 4])]);
    assert_eq!(checkpoints(&learner.learn(9)), [], "the one before is still being written");
    assert_eq!(learner.0.durable(), Slot(0));
    let actions = learner.ask(checkpoint_ended(4, true));
    assert_eq!((durable(&actions), checkpoints(&actions)), (vec![4], vec![(9, vec![5, 6, 7, 8, 9])]));
    assert_eq!(learner.0.durable(), Slot(4));
    let actions = learner.ask(checkpoint_ended(9, true));
    assert_eq!((durable(&actions), checkpoints(&actions)), (vec![9], vec![]));
    assert_eq!(checkpoints(&learner.learn(11)), []);
    assert_eq!(checkpoints(&learner.learn(12)), [(12, vec![10, 11, 12])]);
}

#[test]
fn servers_take_turns_finish_recoverys() {
    let begun_by = |me| {
        let mut learner = keeping(me, 3, Retention { checkpoint_slots: 9, ..Retention::KEEP_ALL });
        let mut begun = Vec::new();
        for slot in 1..=30 {
            for (slot, _) in checkpoints(&learner.learn(slot)) {
                begun.push(slot);
                learner.ask(checkpoint_ended(slot, true));
            }
        }
        begun
    };
    assert_eq!([begun_by(1), begun_by(2), begun_by(3)], [vec![9, 18, 27], vec![6, 15, 24], vec![3, 12, 21, 30]]);
}

#[test]
fn checkpoint_starts_after_values_of_n_bytes() {
    let mut learner = keeping(1, 3, Retention { checkpoint_bytes: 2 * SIZE, ..Retention::KEEP_ALL });
    for slot in [1, 3, 5] {
        assert_eq!(checkpoints(&learner.learn(slot)), []);
        assert_eq!(checkpoints(&learner.learn(slot + 1)), [(slot + 1, vec![slot, slot + 1])]);
        learner.ask(checkpoint_ended(slot + 1, true));
    }
}

#[test]
fn late_checkpoint_is_reported_once_and_much_later_holds_back_writes() {
    let mut learner = keeping(1, 3, Retention { checkpoint_bytes: 2 * SIZE, ..Retention::KEEP_ALL });
    let late = |actions: &LearnerActions| {
        told(actions, |outcome| {
            if let LearnerNotification::CheckpointLate { bytes, .. } = outcome { Some(bytes / SIZE) } else { None }
        })
    };
    learner.learn(2 * LATE_FACTOR - 1);
    assert_eq!(late(&learner.fire_ticks(1)), NONE);
    learner.learn(2 * LATE_FACTOR);
    assert_eq!(
        (late(&learner.fire_ticks(1)), late(&learner.fire_ticks(1))),
        (vec![2 * LATE_FACTOR], vec![]),
        "reported once"
    );
    learner.learn(2 * FULL_FACTOR - 1);
    assert!(!learner.0.is_full());
    learner.learn(2 * FULL_FACTOR);
    assert!(learner.0.is_full());
    learner.ask(checkpoint_ended(2, true));
    assert_eq!((learner.0.is_full(), learner.0.unwritten_bytes()), (false, (2 * FULL_FACTOR - 2) * SIZE));
    learner.ask(checkpoint_ended(2 * FULL_FACTOR, false));
    learner.fire_ticks(10);
    learner.learn(2 * FULL_FACTOR + 2);
    assert!(learner.0.is_full(), "what failed is not durable");
    learner.ask(checkpoint_ended(2 * FULL_FACTOR, true));
    assert_eq!(learner.0.unwritten_bytes(), 2 * SIZE);
    learner.fire_ticks(1);
    learner.learn(4 * FULL_FACTOR);
    assert_eq!(late(&learner.fire_ticks(1)).len(), 1, "it is late again");
}

#[test]
fn requested_checkpoint_starts_after_any_change_and_not_without_one() {
    let mut learner = alone(2, 3);
    assert_eq!(checkpoints(&learner.ask(LearnerRequest::RequestCheckpoint)), []);
    assert_eq!(checkpoints(&learner.learn(1)), [(1, vec![1])], "it is wanted still");
    assert_eq!(checkpoints(&learner.ask(LearnerRequest::RequestCheckpoint)), []);
    let actions = learner.ask(checkpoint_ended(1, true));
    assert_eq!((durable(&actions), checkpoints(&actions)), (vec![1], vec![]));
    assert_eq!(checkpoints(&learner.learn(2)), [(2, vec![2])]);
    learner.ask(checkpoint_ended(2, true));
    assert_eq!(checkpoints(&learner.learn(3)), [], "no other one is requested");
    assert_eq!(checkpoints(&learner.ask(LearnerRequest::RequestCheckpoint)), [(3, vec![3])]);
}

#[test]
fn failed_checkpoint_is_retried_after_one_second_with_all_changes() {
    let mut learner = keeping(1, 3, EVERY_FOUR);
    learner.fire_ticks(2);
    assert_eq!(checkpoints(&learner.learn(4)), [(4, vec![1, 2, 3, 4])]);
    let actions = learner.ask(checkpoint_ended(4, false));
    assert_eq!((durable(&actions), learner.0.durable()), (vec![], Slot(0)));
    let mut early = actions;
    early.extend(learner.learn(5));
    early.extend(learner.ask(LearnerRequest::RequestCheckpoint));
    early.extend(learner.fire_ticks(9));
    early.extend(learner.learn(8));
    assert_eq!(checkpoints(&early), []);
    assert_eq!(checkpoints(&learner.fire_ticks(1)), [(8, (1..=8).collect())]);
    assert_eq!(durable(&learner.ask(checkpoint_ended(8, true))), [8]);
}

#[test]
fn checkpoint_that_was_not_started_cannot_finish() {
    let mut learner = keeping(1, 3, EVERY_FOUR);
    learner.learn(4);
    for slot in [3, 5] {
        assert_eq!(durable(&learner.ask(checkpoint_ended(slot, true))), NONE);
    }
    assert_eq!(learner.0.durable(), Slot(0));
    assert_eq!(durable(&learner.ask(checkpoint_ended(4, true))), [4]);
    assert_eq!(durable(&learner.ask(checkpoint_ended(4, true))), NONE, "it has ended");
}

#[test]
fn at_most_n_slots_of_a_checkpoint_stay_in_the_log() {
    let mut learner = keeping(1, 3, Retention { checkpoint_slots: 8, keep_slots: 3, ..Retention::KEEP_ALL });
    learner.learn(10);
    assert_eq!(log(&learner), (1, 10), "it is not durable yet");
    learner.ask(checkpoint_ended(8, true));
    assert_eq!(log(&learner), (6, 5));
    learner.learn(12);
    assert_eq!(log(&learner), (6, 7));
    let entries = (6..=12).map(super::entry).collect();
    let answer = Message::Entries { entries, applied: Slot(12) };
    let actions = learner.receive(2, Message::CatchUp { from: Slot(6) });
    assert_eq!(super::sent(&actions), [(super::servers([2]), answer)]);
}

#[test]
fn at_most_n_bytes_of_a_checkpoint_stay_in_the_log() {
    let mut learner = keeping(1, 3, Retention { checkpoint_slots: 8, keep_bytes: 3 * SIZE, ..Retention::KEEP_ALL });
    learner.learn(8);
    assert_eq!(log(&learner), (1, 8));
    learner.ask(checkpoint_ended(8, true));
    assert_eq!(log(&learner), (6, 3));
    learner.learn(9);
    assert_eq!(log(&learner), (7, 3));
    learner.learn(13);
    assert_eq!(log(&learner), (9, 5), "what is in no checkpoint stays");
}

#[test]
fn log_without_checkpoints_grows_to_eight_times_its_size_and_then_drops_its_start() {
    let mut learner = keeping(1, 3, Retention { keep_bytes: SIZE, ..Retention::KEEP_ALL });
    assert_eq!(HARD_FACTOR, 8);
    learner.learn(8);
    assert_eq!(log(&learner), (1, 8));
    for last in 9..=12 {
        learner.learn(last);
        assert_eq!((log(&learner), learner.0.durable()), ((last - 7, 8), Slot(0)));
    }
}

#[test]
fn own_acceptor_gets_chosen_values_for_corrupt_slots_now_or_when_they_are_known() {
    let mended = |actions: &LearnerActions| {
        let entries = |outcome: &LearnerNotification<_>| match outcome {
            LearnerNotification::Repaired { entries } => Some(entries.clone()),
            _ => None,
        };
        told(actions, entries)
    };
    let entry = |slot| Entry { slot: Slot(slot), ballot: ballot(1), value: value(slot) };
    let mut learner = alone(1, 3);
    learner.learn(5);
    let range = |first, last| SlotRange { first: Slot(first), last: Slot(last) };
    let actions = learner.ask(LearnerRequest::Repair(vec![range(2, 3), range(5, 5), range(7, 8)]));
    assert_eq!(mended(&actions), [[2, 3, 5].map(entry)]);
    assert_eq!(mended(&learner.learn(6)), [] as [Vec<Entry>; 0]);
    assert_eq!(mended(&learner.learn(9)), [[entry(7)], [entry(8)]]);
    assert_eq!(mended(&learner.ask(LearnerRequest::Repair(vec![range(10, 11)]))), [] as [Vec<Entry>; 0]);
}

#[test]
fn learner_reports_its_unapplied_slots() {
    let mut learner = alone(2, 3);
    assert_eq!(learner.0.unapplied_slots(), 0);
    learner.receive(1, Message::Accept { ballot: ballot(1), first: Slot(1), values: (1..=3).map(value).collect() });
    assert_eq!(learner.0.unapplied_slots(), 3);
    learner.receive(1, Message::Chosen { ballot: ballot(1), slots: SlotRange::only(Slot(1)) });
    assert_eq!(learner.0.unapplied_slots(), 2);
}
