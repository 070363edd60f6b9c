//! How many reads may wait, and for what.

use super::{
    LearnerActions, LearnerNotification, LearnerTimer, Message, NONE, TestLearner, alone, failed, read, sent, told,
};

fn reads(learner: &mut TestLearner, tokens: std::ops::RangeInclusive<u64>) -> LearnerActions {
    learner.turn(tokens.map(read))
}

/// Token, slot and answer of each answered read.
fn answers(actions: &LearnerActions) -> Vec<(u64, u64, usize)> {
    told(actions, |outcome| match outcome {
        LearnerNotification::Answer { token, slot, answer } => Some((*token, slot.0, *answer)),
        _ => None,
    })
}

#[test]
fn at_most_4096_reads_wait_and_one_more_is_refused() {
    let mut learner = alone(1, 3);
    // Some reads wait for slot 9, some for the answers to their round, and some for the next round.
    reads(&mut learner, 1..=1_096);
    learner.answer_round(9);
    assert_eq!(failed(&reads(&mut learner, 1_097..=2_096)), NONE);
    assert_eq!(failed(&reads(&mut learner, 2_097..=4_096)), NONE);
    assert_eq!(failed(&reads(&mut learner, 4_097..=4_098)), [4_097, 4_098]);
    // When the reads that waited for slot 9 are answered, there is room for the same number.
    assert_eq!(answers(&learner.learn(9)).len(), 1_096);
    assert_eq!(failed(&reads(&mut learner, 5_001..=6_096)), NONE);
    assert_eq!(failed(&reads(&mut learner, 6_097..=6_097)), [6_097]);
}

#[test]
fn learner_reports_the_read_round_in_flight() {
    let mut learner = alone(1, 3);
    assert_eq!(learner.0.round(), None);
    let actions = learner.step(read(1));
    let [(_, Message::Read { id })] = &sent(&actions)[..] else { panic!("one question: {actions:?}") };
    assert_eq!(learner.0.round(), Some(*id));
    assert_eq!((answers(&learner.answer_round(0)), learner.0.round()), (vec![(1, 0, 0)], None));
}

#[test]
fn read_fails_after_its_timeout_wherever_it_waits() {
    let mut learner = alone(1, 3);
    learner.step(read(1));
    learner.answer_round(9);
    learner.step(read(2));
    learner.step(read(3));
    assert_eq!(failed(&learner.fire_ticks(7)), NONE);
    let mut late = failed(&learner.fire_ticks(1));
    late.sort_unstable();
    assert_eq!(late, [1, 2, 3]);
    assert_eq!(answers(&learner.learn(9)), vec![]);
    assert_eq!(sent(&learner.fire(LearnerTimer::Fill { tries: 0 })), [], "no read waits for slot 9 any more");
}
