//! A learner fences itself if at least as many servers contradict it as agree with it, and in no other case.

use super::{
    Incarnation, LearnerActions, LearnerNotification, LearnerRequest, Message, Numbers, Quorums, Retention, ServerId,
    ServerSet, Slot, TestLearner, alone, begun, checkpoint_ended, entry, failed, read, right, servers, told, wrong,
};
use crate::paxos::{Learner, SlotRange, SnapshotChunk};

/// More ticks than pass between a mismatch and the decision.
const LONG: usize = 10;

/// The slot of the fence, the last slot known to be equal, and the servers with another state.
fn fenced(actions: &LearnerActions) -> Option<(u64, Option<u64>, ServerSet)> {
    let all = told(actions, |outcome| match outcome {
        LearnerNotification::Fenced { slot, equal, against } => Some((slot.0, equal.map(|slot| slot.0), *against)),
        _ => None,
    });
    assert!(all.len() <= 1, "it is reported once");
    all.first().copied()
}

/// Server 1 of `count` has applied slots up to `applied` and receives these PROGRESS messages: the sender, the slot,
/// and whether the digest is right.
fn hearing<const N: usize>(count: u8, applied: u64, ticks: [(u8, u64, bool); N]) -> TestLearner {
    let mut learner = alone(1, count);
    learner.learn(applied);
    for (from, slot, is_right) in ticks {
        learner.receive_progress(from, slot, if is_right { right(slot) } else { wrong(slot) });
    }
    learner
}

/// The learner's verdict after these messages.
fn verdict<const N: usize>(
    count: u8,
    applied: u64,
    ticks: [(u8, u64, bool); N],
) -> Option<(u64, Option<u64>, ServerSet)> {
    fenced(&hearing(count, applied, ticks).fire_ticks(LONG))
}

#[test]
fn digests_are_evaluated_five_ticks_after_the_first_mismatch() {
    let mut learner = alone(1, 3);
    learner.learn(3);
    learner.fire_ticks(1);
    learner.receive_progress(2, 3, wrong(3));
    assert_eq!(fenced(&learner.fire_ticks(2)), None);
    learner.receive_progress(3, 3, wrong(3));
    assert_eq!(
        (fenced(&learner.fire_ticks(2)), learner.0.fenced()),
        (None, None),
        "the second doubt does not put it off"
    );
    assert_eq!(fenced(&learner.fire_ticks(1)), Some((3, None, servers([2, 3]))));
    assert_eq!(learner.0.fenced(), Some(Slot(3)));
}

#[test]
fn learner_with_more_servers_agreeing_than_contradicting_continues() {
    assert_eq!(verdict(3, 3, [(2, 3, false), (3, 3, true)]), None);
    assert_eq!(verdict(5, 3, [(2, 3, false), (3, 3, false), (4, 3, true), (5, 3, true)]), None);
    assert_eq!(verdict(3, 3, [(2, 3, true), (3, 3, true)]), None);
}

#[test]
fn learner_fences_itself_at_a_tie() {
    assert_eq!(verdict(3, 3, [(2, 3, false)]), Some((3, None, servers([2]))));
    // Its own PROGRESS returns to it: that is not a second server that agrees.
    assert_eq!(verdict(3, 3, [(1, 3, true), (2, 3, false)]), Some((3, None, servers([2]))));
    // A server of another cluster is none either.
    assert_eq!(verdict(3, 3, [(4, 3, true), (2, 3, false)]), Some((3, None, servers([2]))));
}

#[test]
fn server_with_an_incomparable_digest_neither_agrees_nor_contradicts() {
    let ahead = [(2, 3, false), (3, 3, false), (4, 50, true), (5, 50, false)];
    assert_eq!(verdict(5, 3, ahead), Some((3, None, servers([2, 3]))));
    // Server 3 was equal before the slot of the mismatch; which state it has after that slot is unknown.
    assert_eq!(verdict(3, 3, [(3, 2, true), (2, 3, false)]), Some((3, Some(2), servers([2]))));
}

#[test]
fn fence_names_the_last_equal_slot_and_the_first_diverged_one() {
    let mut learner = hearing(5, 3, [(2, 1, true), (2, 2, true)]);
    learner.learn(7);
    for (from, slot, is_right) in [(2, 6, false), (3, 5, false), (2, 7, false), (4, 5, true)] {
        learner.receive_progress(from, slot, if is_right { right(slot) } else { wrong(slot) });
    }
    assert_eq!(fenced(&learner.fire_ticks(LONG)), Some((5, Some(2), servers([2, 3]))));
}

#[test]
fn a_peer_that_is_behind_is_compared_with_the_state_as_it_was_there() {
    for slot in 0..=10 {
        assert_eq!(verdict(3, 10, [(2, slot, true)]), None);
        assert_eq!(verdict(3, 10, [(2, slot, false)]), Some((slot, None, servers([2]))));
    }
}

#[test]
fn digests_of_the_last_1024_slots_are_kept() {
    let known = 3_000 - 1_023;
    assert_eq!(verdict(3, 3_000, [(2, known, false)]), Some((known, None, servers([2]))));
    assert_eq!(verdict(3, 3_000, [(2, known - 1, false)]), None);
}

#[test]
fn a_peer_that_is_ahead_is_compared_when_its_slot_is_reached() {
    for (is_right, found) in [(true, None), (false, Some((5, None, servers([2]))))] {
        let mut learner = hearing(3, 3, [(2, 5, is_right)]);
        learner.learn(4);
        assert_eq!(fenced(&learner.fire_ticks(LONG)), None);
        learner.learn(5);
        assert_eq!(fenced(&learner.fire_ticks(LONG)), found);
    }
}

#[test]
fn incarnation_starts_with_the_state_of_its_checkpoint() {
    let quorums = Quorums::majority(ServerSet::first(3));
    let mut learner = begun(Learner::new(ServerId(1), quorums, Incarnation(2), Slot(10), Numbers::up_to(10)));
    learner.receive_progress(2, 10, wrong(10));
    assert_eq!(fenced(&learner.fire_ticks(LONG)), Some((10, None, servers([2]))));
}

#[test]
fn peer_that_was_repaired_contradicts_no_longer() {
    assert_eq!(verdict(3, 3, [(2, 2, false), (2, 3, true)]), None);
}

#[test]
fn installed_snapshot_is_compared_anew() {
    let mut learner = hearing(3, 3, [(2, 3, false)]);
    let (slot, digest, bytes) = (Slot(6), right(6), b"1 2 3 4 5 6"[..].into());
    learner.receive(3, Message::Snapshot(SnapshotChunk { slot, digest, index: 0, bytes, next: None }));
    assert_eq!(learner.applied(), 6);
    let mut learner_at_six = learner.clone();
    assert_eq!(fenced(&learner.fire_ticks(LONG)), None, "what was wrong was the state before");
    learner.receive_progress(2, 6, right(6));
    assert_eq!(fenced(&learner.fire_ticks(LONG)), None);
    learner_at_six.receive_progress(2, 6, wrong(6));
    assert_eq!(fenced(&learner_at_six.fire_ticks(LONG)), Some((6, None, servers([2]))));
}

#[test]
fn fenced_learner_fails_every_read_and_sends_nothing() {
    let mut learner = alone(1, 3);
    learner.0 = learner.0.with_retention(Retention { checkpoint_slots: 3, ..Retention::KEEP_ALL });
    learner.learn(3);
    // One read waits for slot 9, one for the answers to its round, and one for the next round.
    learner.step(read(1));
    learner.answer_round(9);
    learner.step(read(2));
    learner.step(read(3));
    learner.receive_progress(2, 3, wrong(3));
    let mut failed_then = failed(&learner.fire_ticks(6));
    failed_then.sort_unstable();
    assert_eq!((failed_then, learner.0.fenced()), (vec![1, 2, 3], Some(Slot(3))));

    assert_eq!(failed(&learner.step(read(4))), [4]);
    let slots = vec![SlotRange::only(Slot(2))];
    let silent = [
        learner.learn(5),
        learner.fire_ticks(1),
        learner.receive(2, Message::CatchUp { from: Slot(1) }),
        learner.receive(2, Message::Entries { entries: vec![entry(4)], applied: Slot(4) }),
        learner.ask(LearnerRequest::Repair(slots)),
        learner.ask(LearnerRequest::RequestCheckpoint),
        learner.ask(checkpoint_ended(3, true)),
    ];
    assert!(silent.iter().all(Vec::is_empty), "{silent:?}");
    assert_eq!((learner.applied(), learner.0.durable()), (3, Slot(0)));
}
