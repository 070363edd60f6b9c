//! What a learner keeps for peers that fetch a snapshot.

use std::collections::{BTreeMap, VecDeque};

use super::{
    LearnerActions, LearnerNotification, LearnerTimer, Message, Retention, ServerId, ServerSet, Slot, TestLearner,
    armed, begun, checkpoint_ended, entry, keeping, learner_of, sent, servers, told,
};
use crate::paxos::learner::retention::pins::FACTOR;
use crate::paxos::{ChunkRequest, LeftBehind, PartToken};

/// The size of one value of these tests in a log, in bytes.
const SIZE: u64 = 40;
/// A checkpoint every eight slots; one slot below it is kept.
const SHORT: Retention = Retention { checkpoint_slots: 8, keep_slots: 1, keep_bytes: 6 * SIZE, ..Retention::KEEP_ALL };

/// Server 1 of five has applied ten slots, and its checkpoint has eight.
fn at_ten() -> TestLearner {
    at_ten_of(0)
}

/// The same, with a state of `size` bytes.
fn at_ten_of(size: u64) -> TestLearner {
    let mut learner = begun(learner_of(1, 5, size).with_retention(SHORT));
    learner.learn(10);
    learner.ask(checkpoint_ended(8, true));
    learner
}

fn catch_up(learner: &mut TestLearner, from: u8, slot: u64) -> LearnerActions {
    learner.receive(from, Message::CatchUp { from: Slot(slot) })
}

fn fetch(learner: &mut TestLearner, from: u8, slot: u64) -> LearnerActions {
    learner
        .receive(from, Message::FetchSnapshot(ChunkRequest { slot: Slot(slot), index: 1, token: PartToken::first() }))
}

/// All slots up to this one are applied, and in the checkpoint.
fn write(learner: &mut TestLearner, last: u64) {
    for slot in learner.applied() + 1..=last {
        learner.learn(slot);
        learner.ask(checkpoint_ended(slot, true));
    }
}

fn log_begins(learner: &TestLearner) -> u64 {
    learner.0.log_begins().0
}

fn pinned(actions: &LearnerActions) -> Vec<ServerSet> {
    told(actions, |outcome| if let LearnerNotification::Pinned { peers } = outcome { Some(*peers) } else { None })
}

fn left_behind(actions: &LearnerActions) -> Vec<LeftBehind> {
    told(actions, |outcome| if let LearnerNotification::LeftBehind(left) = outcome { Some(*left) } else { None })
}

/// The slots of the entries that are sent.
fn entries(actions: &LearnerActions) -> Vec<Vec<u64>> {
    let slots = |(_, message)| match message {
        Message::Entries { entries, .. } => Some(entries.iter().map(|entry| entry.slot.0).collect()),
        _ => None,
    };
    sent(actions).into_iter().filter_map(slots).collect()
}

#[test]
fn the_log_behind_a_state_is_kept_while_a_peer_fetches_that_state() {
    let mut learner = at_ten();
    assert_eq!(pinned(&catch_up(&mut learner, 2, 1)), [servers([2])]);
    write(&mut learner, 24);
    assert_eq!(log_begins(&learner), 9, "the state is that of slot 8");
    assert_eq!(pinned(&fetch(&mut learner, 2, 8)), []);
    // The peer has the snapshot and continues with the log; slots that it has applied are no longer needed.
    assert_eq!(entries(&catch_up(&mut learner, 2, 9)), [(9..=24).collect::<Vec<_>>()]);
    learner.receive_progress(2, 20, super::right(20));
    assert_eq!(log_begins(&learner), 21);
}

#[test]
fn log_without_a_fetching_peer_is_trimmed_as_usual() {
    let mut learner = at_ten();
    catch_up(&mut learner, 2, 9);
    write(&mut learner, 24);
    assert_eq!((log_begins(&learner), learner.0.log_pinned_from()), (24, None));
    // It is too late to keep the log after an old snapshot.
    assert_eq!(pinned(&fetch(&mut learner, 2, 8)), []);
    assert_eq!(learner.0.log_pinned_from(), None);
}

#[test]
fn log_kept_for_a_silent_peer_is_dropped_after_one_minute() {
    let mut learner = at_ten();
    catch_up(&mut learner, 2, 1);
    write(&mut learner, 24);
    assert_eq!((pinned(&learner.fire_ticks(599)), log_begins(&learner)), (vec![], 9));
    let actions = learner.fire_ticks(2);
    assert_eq!((pinned(&actions), log_begins(&learner)), (vec![ServerSet::NONE], 24));
    assert_eq!(left_behind(&actions), [], "nothing is known of how fast it is");
}

#[test]
fn peer_that_needs_more_than_four_times_the_usual_log_is_left_behind_and_named_once() {
    let mut learner = at_ten();
    catch_up(&mut learner, 5, 1);
    learner.fire_ticks(3);
    fetch(&mut learner, 5, 8);
    let most = 8 + FACTOR * 6;
    write(&mut learner, most);
    assert_eq!((log_begins(&learner), learner.0.log_bytes()), (9, FACTOR * 6 * SIZE));
    write(&mut learner, most + 1);
    assert_eq!(log_begins(&learner), most, "as usual: that is the slot of its last checkpoint");
    let actions = learner.fire_ticks(1);
    let (written, kept) = ((most + 1 - 10) * SIZE, FACTOR * 6 * SIZE);
    assert_eq!(left_behind(&actions), [LeftBehind { peer: ServerId(5), parts: 2, ticks: 3, written, kept }]);
    assert_eq!(pinned(&actions), [], "it was reported when the log was dropped");
    assert_eq!(learner.0.log_pinned_from(), None);
}

#[test]
fn log_kept_for_a_peer_is_as_large_as_the_state_that_it_fetches() {
    let most = 2 * FACTOR * 6;
    let mut learner = at_ten_of(most * SIZE);
    catch_up(&mut learner, 5, 1);
    fetch(&mut learner, 5, 8);
    write(&mut learner, 8 + most);
    assert_eq!((log_begins(&learner), learner.0.log_bytes()), (9, most * SIZE));
    write(&mut learner, 8 + most + 1);
    assert_eq!(left_behind(&learner.fire_ticks(1)).len(), 1);
}

#[test]
fn pinned_peer_has_two_pieces_of_the_log_in_flight() {
    let mut learner = at_ten();
    learner.0 = learner.0.with_part_bytes(3 * (24 + SIZE as usize));
    assert_eq!(entries(&catch_up(&mut learner, 3, 9)), [[9, 10]], "it has no pin");
    catch_up(&mut learner, 2, 1);
    write(&mut learner, 24);
    assert_eq!(entries(&catch_up(&mut learner, 2, 9)), [[9, 10, 11], [12, 13, 14]]);
    // The peer requests the second message when it has the first, and gets the third.
    assert_eq!(entries(&catch_up(&mut learner, 2, 12)), [[15, 16, 17]]);
    assert_eq!(entries(&catch_up(&mut learner, 2, 15)), [[18, 19, 20]]);
    // A message was lost: the peer gets what it requests.
    assert_eq!(entries(&catch_up(&mut learner, 2, 16)), [[16, 17, 18], [19, 20, 21]]);
    assert_eq!(entries(&catch_up(&mut learner, 2, 19)), [[22, 23, 24]]);
    assert_eq!(entries(&catch_up(&mut learner, 2, 22)), [[] as [u64; 0]], "that is all that there is");
    let last = Message::Entries { entries: vec![entry(24)], applied: Slot(24) };
    assert_eq!(sent(&catch_up(&mut learner, 2, 24)), [(servers([2]), last)]);
}

/// The messages sent that are ENTRIES or CATCHUP.
fn sent_of_the_log(actions: &LearnerActions) -> impl Iterator<Item = Message> {
    let of_the_log = |message: &Message| matches!(message, Message::Entries { .. } | Message::CatchUp { .. });
    sent(actions).into_iter().map(|(_, message)| message).filter(of_the_log)
}

#[test]
fn repeated_request_gets_each_entry_once() {
    const LAST: u64 = 300;
    let mut source = at_ten();
    source.0 = source.0.with_part_bytes(3 * (24 + SIZE as usize));
    catch_up(&mut source, 3, 1);
    // The other learner has the snapshot and requests the log; it repeats the request before the answer arrives.
    let mut late = begun(learner_of(3, 5, 0));
    late.learn(8);
    write(&mut source, 28);
    late.receive_progress(1, 28, super::right(28));
    let mut questions: VecDeque<_> = sent_of_the_log(&late.fire(LearnerTimer::Gap)).collect();
    questions.extend(sent_of_the_log(&late.fire(LearnerTimer::CatchUp { unanswered: 0 })));
    assert_eq!(questions.len(), 2);
    // One ENTRIES takes as long as a request and the moment in which missing slots may still arrive.
    let (mut parts, mut waits, mut times) = (VecDeque::new(), false, BTreeMap::<u64, u32>::new());
    while late.applied() < LAST && parts.len() < 20 {
        write(&mut source, (late.applied() + 20).min(LAST));
        late.receive_progress(1, source.applied(), super::right(source.applied()));
        if std::mem::take(&mut waits) {
            let actions = late.fire(LearnerTimer::Gap);
            waits = armed(&actions).contains(&LearnerTimer::Gap);
            questions.extend(sent_of_the_log(&actions));
        }
        for question in questions.drain(..).collect::<Vec<_>>() {
            let actions = source.receive(3, question);
            entries(&actions).concat().into_iter().for_each(|slot| *times.entry(slot).or_default() += 1);
            parts.extend(sent_of_the_log(&actions));
        }
        if let Some(part) = parts.pop_front() {
            let actions = late.receive(1, part);
            waits |= armed(&actions).contains(&LearnerTimer::Gap);
            questions.extend(sent_of_the_log(&actions));
        }
    }
    let twice: Vec<u64> =
        times.iter().filter(|(slot, times)| **slot > 40 && **times > 1).map(|(slot, _)| *slot).collect();
    assert_eq!((late.applied(), twice), (LAST, vec![]));
}

#[test]
fn incarnation_starts_without_pins_and_reports_it() {
    let mut learner = keeping(1, 5, SHORT);
    assert_eq!(pinned(&learner.step(super::Input::Start)), [ServerSet::NONE]);
}
