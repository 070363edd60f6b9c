//! A learner that is behind every peer's log gets a snapshot, chunk by chunk.

use super::{
    LearnerActions, LearnerNotification, LearnerTimer, Message, Numbers, Retention, ServerId, ServerSet, Slot,
    TestLearner, alone, armed, catch_up, checkpoint_ended, checkpoints, entry, keeping, read, right, sent, servers,
    told, wrong,
};
use crate::paxos::{ChunkRequest, PartToken, SnapshotChunk};

/// The receiver of each requested chunk, and the chunk; `None` for the first chunk of the last checkpoint.
fn asked_for(actions: &LearnerActions) -> Vec<(ServerId, Option<ChunkRequest>)> {
    told(actions, |outcome| match outcome {
        LearnerNotification::SnapshotRequested { to, part } => Some((*to, part.clone())),
        _ => None,
    })
}

fn name(slot: u64, index: u32) -> ChunkRequest {
    ChunkRequest { slot: Slot(slot), index, token: token(index) }
}

/// The beginning of chunk `index`.
fn token(index: u32) -> PartToken {
    PartToken::Key(format!("after {index}").into_bytes())
}

/// A chunk, of two slots, of the snapshot after `slot`, which has `slot / 2` chunks.
fn part(slot: u64, index: u32) -> SnapshotChunk {
    let begin = 2 * u64::from(index);
    let bytes = format!("{} {}", begin + 1, begin + 2).into_bytes().into();
    let next = (begin + 2 < slot).then(|| token(index + 1));
    SnapshotChunk { slot: Slot(slot), digest: right(slot), index, bytes, next }
}

fn fetch(to: u8, slot: u64, index: u32) -> (ServerSet, Message) {
    (servers([to]), Message::FetchSnapshot(name(slot, index)))
}

/// The numbers of the chunks that the server is to write to its disk.
fn loaded(actions: &LearnerActions) -> Vec<u32> {
    told(actions, |outcome| match outcome {
        LearnerNotification::ChunkLoaded(chunk) => Some(chunk.index),
        _ => None,
    })
}

fn installed(actions: &LearnerActions) -> Vec<(u64, ServerId)> {
    told(actions, |outcome| match outcome {
        LearnerNotification::Installed { slot, from, .. } => Some((slot.0, *from)),
        _ => None,
    })
}

/// Server 1 of 3, which knows nothing, has PROGRESS of both others that they have applied six slots, and has asked
/// server 2.
fn far_behind() -> TestLearner {
    let mut learner = alone(1, 3);
    learner.receive_progress(2, 6, right(6));
    learner.receive_progress(3, 6, right(6));
    assert_eq!(sent(&learner.fire(LearnerTimer::Gap)), [catch_up(2, 1)]);
    learner
}

impl TestLearner {
    fn receive_chunk(&mut self, from: u8, part: SnapshotChunk) -> LearnerActions {
        self.receive(from, Message::Snapshot(part))
    }
}

#[test]
fn request_for_truncated_slots_gets_the_checkpoint_that_holds_them() {
    let mut learner = keeping(1, 3, Retention { checkpoint_slots: 8, keep_slots: 0, ..Retention::KEEP_ALL });
    learner.learn(10);
    learner.ask(checkpoint_ended(8, true));
    for from in [1, 7, 8] {
        let actions = learner.receive(2, Message::CatchUp { from: Slot(from) });
        assert_eq!((asked_for(&actions), sent(&actions)), (vec![(ServerId(2), None)], vec![]));
    }
    let actions = learner.receive(2, Message::CatchUp { from: Slot(9) });
    let entries = Message::Entries { entries: vec![entry(9), entry(10)], applied: Slot(10) };
    assert_eq!((asked_for(&actions), sent(&actions)), (vec![], vec![(servers([2]), entries)]));
}

#[test]
fn instead_of_a_checkpoint_that_is_too_old_a_new_one_is_made() {
    let mut learner = keeping(1, 3, Retention { keep_bytes: 40, ..Retention::KEEP_ALL });
    learner.learn(12);
    assert_eq!((learner.0.log_begins(), learner.0.durable()), (Slot(5), Slot(0)));
    let actions = learner.receive(2, Message::CatchUp { from: Slot(3) });
    let nothing = Message::Entries { entries: vec![], applied: Slot(12) };
    assert_eq!((asked_for(&actions), sent(&actions)), (vec![], vec![(servers([2]), nothing)]));
    assert_eq!(checkpoints(&actions), [(12, (1..=12).collect())]);
    learner.ask(checkpoint_ended(12, true));
    assert_eq!(asked_for(&learner.receive(2, Message::CatchUp { from: Slot(3) })), [(ServerId(2), None)]);
}

#[test]
fn request_for_the_next_chunk_gets_it() {
    let mut learner = alone(1, 3);
    let actions = learner.receive(3, Message::FetchSnapshot(name(8, 4)));
    assert_eq!(asked_for(&actions), [(ServerId(3), Some(name(8, 4)))]);
}

#[test]
fn snapshot_arrives_in_chunks_and_replaces_the_state_when_complete() {
    let mut learner = far_behind();
    learner.step(read(1));
    learner.answer_round(6);
    for index in [0, 1] {
        let actions = learner.receive_chunk(2, part(6, index));
        assert_eq!(
            (sent(&actions), armed(&actions)),
            (vec![fetch(2, 6, index + 1)], vec![LearnerTimer::CatchUp { unanswered: 0 }])
        );
        assert_eq!((learner.applied(), learner.0.machine()), (0, &Numbers::default()));
        assert_eq!(loaded(&actions), [index]);
    }
    let actions = learner.receive_chunk(2, part(6, 2));
    assert_eq!((loaded(&actions), installed(&actions), learner.applied()), (vec![2], vec![(6, ServerId(2))], 6));
    assert_eq!(learner.0.machine().all, [1, 2, 3, 4, 5, 6]);
    assert_eq!(checkpoints(&actions), [(6, vec![1, 2, 3, 4, 5, 6])], "it is written down here, too");
    let answered =
        told(
            &actions,
            |outcome| if let LearnerNotification::Answer { token, .. } = outcome { Some(*token) } else { None },
        );
    assert_eq!(answered, [1]);
    assert_eq!((sent(&actions), learner.0.log_begins(), learner.0.log_bytes()), (vec![], Slot(7), 0));
    // The learner has what it requested: it repeats nothing, and goes on with the next slot.
    assert_eq!(sent(&learner.fire(LearnerTimer::CatchUp { unanswered: 0 })), []);
    learner.learn(7);
    assert_eq!(learner.0.machine().all.len(), 7);
}

#[test]
fn entries_after_the_snapshot_are_requested_at_once() {
    let mut learner = far_behind();
    learner.receive_progress(3, 7, right(7));
    (0..2).for_each(|index| drop(learner.receive_chunk(2, part(6, index))));
    assert_eq!(sent(&learner.receive_chunk(2, part(6, 2))), [catch_up(2, 7)]);
}

#[test]
fn only_the_next_chunk_of_the_same_snapshot_from_the_same_peer_counts() {
    let mut learner = far_behind();
    learner.receive_chunk(2, part(6, 0));
    learner.receive_chunk(2, part(6, 1));
    let others = [
        (2, part(6, 1)),
        (2, SnapshotChunk { index: 3, ..part(6, 2) }),
        (2, SnapshotChunk { slot: Slot(7), ..part(6, 2) }),
        (2, SnapshotChunk { digest: wrong(6), ..part(6, 2) }),
        (3, part(6, 2)),
    ];
    for (from, part) in others {
        let actions = learner.receive_chunk(from, part.clone());
        assert!(actions.is_empty(), "{part:?} from s{from}: {actions:?}");
    }
    assert_eq!(installed(&learner.receive_chunk(2, part(6, 2))), [(6, ServerId(2))]);
    assert_eq!(learner.0.machine().all, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn chunk_without_the_first_chunk_is_ignored() {
    let mut learner = far_behind();
    for index in [1, 2] {
        let actions = learner.receive_chunk(2, part(6, index));
        assert!(actions.is_empty(), "{actions:?}");
    }
}

#[test]
fn late_chunk_requested_by_an_earlier_incarnation_is_not_waited_for() {
    let mut learner = alone(1, 3);
    assert!(learner.receive_chunk(2, part(6, 1)).is_empty());
    assert_eq!(armed(&learner.receive_progress(3, 6, right(6))), [LearnerTimer::Gap]);
    assert_eq!(sent(&learner.fire(LearnerTimer::Gap)), [catch_up(3, 1)]);
}

#[test]
fn peer_that_starts_another_snapshot_is_followed() {
    let mut learner = far_behind();
    learner.receive_chunk(2, part(6, 0));
    learner.receive_chunk(2, part(6, 1));
    assert_eq!(sent(&learner.receive_chunk(2, part(8, 0))), [fetch(2, 8, 1)]);
    for index in 1..=3 {
        learner.receive_chunk(2, part(8, index));
    }
    assert_eq!(learner.0.machine().all, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn corrupt_snapshot_is_not_installed() {
    let spoilt = |part: SnapshotChunk| SnapshotChunk { digest: wrong(6), ..part };
    let garbage = |part: SnapshotChunk| SnapshotChunk { bytes: b"?"[..].into(), ..part };
    let same = |part: SnapshotChunk| part;
    let ways: [[&dyn Fn(SnapshotChunk) -> SnapshotChunk; 3]; 2] = [[&spoilt; 3], [&same, &same, &garbage]];
    for way in ways {
        let mut learner = far_behind();
        for (index, way) in [0, 1].into_iter().zip(way) {
            learner.receive_chunk(2, way(part(6, index)));
        }
        let actions = learner.receive_chunk(2, way[2](part(6, 2)));
        assert_eq!((installed(&actions), learner.applied(), learner.0.machine()), (vec![], 0, &Numbers::default()));
        // After a moment it asks another peer.
        assert_eq!(armed(&actions), [LearnerTimer::Gap]);
        assert_eq!(
            sent(&learner.fire(LearnerTimer::CatchUp { unanswered: 0 })),
            [],
            "nothing more is requested from the sender"
        );
        assert_eq!(sent(&learner.fire(LearnerTimer::Gap)), [catch_up(3, 1)]);
    }
}

#[test]
fn snapshot_older_than_the_applied_slot_is_not_installed() {
    for last in [6, 7] {
        let mut learner = far_behind();
        learner.receive_chunk(2, part(6, 0));
        learner.receive_chunk(2, part(6, 1));
        learner.receive(3, Message::Entries { entries: (1..=last).map(entry).collect(), applied: Slot(last) });
        let actions = learner.receive_chunk(2, part(6, 2));
        assert_eq!((installed(&actions), sent(&actions), learner.applied()), (vec![], vec![], last));
        assert_eq!(sent(&learner.fire(LearnerTimer::CatchUp { unanswered: 0 })), []);
    }
}

#[test]
fn missing_chunk_is_requested_five_times_and_then_from_another_peer() {
    let mut learner = far_behind();
    learner.receive_chunk(2, part(6, 0));
    (0..3).for_each(|_| assert_eq!(sent(&learner.fire(LearnerTimer::CatchUp { unanswered: 0 })), [fetch(2, 6, 1)]));
    // That chunk arrives in the end. The next one does not, after the first request and four more.
    assert_eq!(sent(&learner.receive_chunk(2, part(6, 1))), [fetch(2, 6, 2)]);
    (0..4).for_each(|_| assert_eq!(sent(&learner.fire(LearnerTimer::CatchUp { unanswered: 0 })), [fetch(2, 6, 2)]));
    assert_eq!(sent(&learner.fire(LearnerTimer::CatchUp { unanswered: 0 })), [catch_up(3, 1)]);
    // Now it arrives, too late.
    let actions = learner.receive_chunk(2, part(6, 2));
    assert!(actions.is_empty(), "{actions:?}");
    assert_eq!(sent(&learner.receive_chunk(3, part(6, 0))), [fetch(3, 6, 1)]);
}

#[test]
fn late_entries_do_not_end_the_wait_for_the_next_chunk() {
    let mut learner = far_behind();
    learner.receive_chunk(2, part(6, 0));
    let actions = learner.receive(2, Message::Entries { entries: vec![], applied: Slot(6) });
    assert_eq!((sent(&actions), armed(&actions)), (vec![], vec![]));
    assert_eq!(sent(&learner.fire(LearnerTimer::CatchUp { unanswered: 0 })), [fetch(2, 6, 1)]);
}
