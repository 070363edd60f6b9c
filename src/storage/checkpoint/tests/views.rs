//! Chunks of a state, read as of one slot while newer checkpoints are written and runs are merged.

use super::merging::due_to_merge;
use super::*;
use crate::kv::encode_chunk;
use crate::paxos::ChunkRequest;
use crate::role::{ServerId, ServerSet};
use crate::storage::checkpoint::views::KEPT_WRITES;

/// Fetches a state chunk by chunk; `between` runs between two chunks.
pub(super) fn fetch(
    checkpoint: &mut Checkpoint<MemoryFiles>,
    mut between: impl FnMut(&mut Checkpoint<MemoryFiles>, u32),
) -> (CheckpointMeta, Kv, u32) {
    let mut kv = Kv::with_sessions_at_most(3);
    let mut part = checkpoint.part(None).unwrap().unwrap();
    let mark = CheckpointMeta { slot: part.slot, digest: part.digest };
    loop {
        assert!(part.bytes.len() < 2 * SMALL_PARTS);
        kv.load_chunk(&part.bytes).unwrap();
        let index = part.index + 1;
        let Some(token) = part.next else { return (mark, kv, index) };
        between(checkpoint, index);
        part = checkpoint.part(Some(&ChunkRequest { slot: mark.slot, index, token })).unwrap().unwrap();
        assert_eq!((part.slot, part.digest, part.index), (mark.slot, mark.digest, index));
    }
}

#[test]
fn empty_checkpoint_has_missing_parts_and_no_corrupt_ones() {
    let (mut checkpoint, _) = Work::new().open().unwrap();
    for token in [PartToken::first(), PartToken::Key(vec![255; 3]), PartToken::Session(u64::MAX)] {
        for (slot, index) in [(0, 0), (0, u32::MAX), (1, 1), (u64::MAX, 2)] {
            let name = ChunkRequest { slot: Slot(slot), index, token: token.clone() };
            assert_eq!(checkpoint.part(Some(&name)).unwrap(), None, "{name:?}");
        }
    }
}

#[test]
fn chunk_starts_at_any_requested_cursor() {
    let mut work = Work::new();
    let (mut checkpoint, _) = work.open().unwrap();
    work.apply(150);
    let slot = work.write(&mut checkpoint).unwrap().slot;
    for token in [PartToken::Key(vec![255; 5_000]), PartToken::Session(0), PartToken::Session(u64::MAX)] {
        for index in [0, 7, u32::MAX] {
            let name = ChunkRequest { slot, index, token: token.clone() };
            let part = checkpoint.part(Some(&name)).unwrap().unwrap();
            assert_eq!((part.slot, part.index), (slot, index));
        }
    }
}

#[test]
fn a_state_is_fetched_as_of_one_slot_while_newer_ones_are_written() {
    let mut work = Work::new();
    let (mut checkpoint, _) = work.open().unwrap();
    assert!(checkpoint.part(None).unwrap().is_none(), "nothing was written yet");
    work.apply(150);
    let mark = work.write(&mut checkpoint).unwrap();
    let before = work.kv.clone();
    let (fetched, kv, parts) = fetch(&mut checkpoint, |checkpoint, _| {
        work.apply(30);
        work.write(checkpoint).unwrap();
        merge_all(checkpoint).unwrap();
    });
    assert_eq!((fetched, state(&kv)), (mark, state(&before)));
    assert!(parts > 5, "{parts} parts");
    assert!(checkpoint.views.open.len() <= SNAPSHOT_VIEWS_MAX);
    assert_eq!(checkpoint.runs[0].span.first, 1, "the runs that it was read from are merged");
    assert!(checkpoint.runs[0].span.last > 2, "the runs that it was read from are merged");
}

/// The state after this slot, from its second chunk on.
fn second_part(slot: Slot) -> ChunkRequest {
    ChunkRequest { slot, index: 1, token: PartToken::Key(b"k05".to_vec()) }
}

#[test]
fn the_view_of_a_pinned_peer_stays_open_until_its_pin_ends() {
    let mut work = Work::new();
    let (mut checkpoint, _) = work.open().unwrap();
    work.apply(150);
    let first = work.write(&mut checkpoint).unwrap().slot;
    let (peer, other) = (ServerId(5), ServerId(4));
    assert_eq!(checkpoint.part_for(peer, None).unwrap().unwrap().slot, first);
    checkpoint.pin(ServerSet::only(peer));
    let is_open = |checkpoint: &Checkpoint<_>| checkpoint.views.open.iter().any(|view| view.mark.slot == first);
    // Neither newer checkpoints nor other readers close the view.
    for _ in 0..2 * KEPT_WRITES {
        work.apply(3);
        work.write(&mut checkpoint).unwrap();
        checkpoint.part(None).unwrap();
        checkpoint.part_for(other, None).unwrap();
    }
    assert!(
        is_open(&checkpoint) && checkpoint.views.open.len() <= SNAPSHOT_VIEWS_MAX + 1,
        "{:?}",
        checkpoint.views.open
    );
    assert_eq!(checkpoint.part_for(peer, Some(&second_part(first))).unwrap().unwrap().slot, first);
    checkpoint.pin(ServerSet::NONE);
    for _ in 0..=KEPT_WRITES {
        work.apply(3);
        work.write(&mut checkpoint).unwrap();
    }
    assert!(!is_open(&checkpoint), "{:?}", checkpoint.views.open);
}

#[test]
fn full_disk_closes_the_views_that_no_pinned_peer_reads() {
    for is_pinned in [false, true] {
        let (mut work, mut checkpoint) = due_to_merge(LARGER);
        let peer = ServerId(5);
        checkpoint.part_for(peer, None).unwrap();
        checkpoint.pin(if is_pinned { ServerSet::only(peer) } else { ServerSet::NONE });
        merge_all(&mut checkpoint).unwrap();
        let used = work.files.used_bytes();
        assert!(used > checkpoint.size().1, "the view keeps the files that were merged");
        work.files.set_capacity(Some(used));
        work.apply(10);
        let error = work.write(&mut checkpoint).unwrap_err();
        assert!(matches!(error, CheckpointError::Full { .. }), "{error}");
        assert_eq!(checkpoint.views.open.len(), usize::from(is_pinned));
        assert_eq!(work.write(&mut checkpoint).is_ok(), !is_pinned);
    }
}

#[test]
fn pinned_peer_keeps_only_its_current_view_open() {
    let mut work = Work::new();
    let (mut checkpoint, _) = work.open().unwrap();
    let peer = ServerId(5);
    checkpoint.pin(ServerSet::only(peer));
    for _ in 0..2 * KEPT_WRITES {
        work.apply(150);
        let last = work.write(&mut checkpoint).unwrap().slot;
        assert_eq!(checkpoint.part_for(peer, None).unwrap().unwrap().slot, last);
        assert!(checkpoint.views.open.len() <= SNAPSHOT_VIEWS_MAX + 1, "{:?}", checkpoint.views.open);
    }
}

#[test]
fn fetch_continues_after_the_sender_restarts() {
    let mut work = Work::new();
    let (mut checkpoint, _) = work.open().unwrap();
    work.apply(150);
    let mark = work.write(&mut checkpoint).unwrap();
    let files = work.files.clone();
    let (fetched, kv, _) = fetch(&mut checkpoint, |checkpoint, index| {
        if index == 3 {
            *checkpoint = open(&files.fork()).unwrap().0;
        }
    });
    assert_eq!((fetched, state(&kv)), (mark, state(&work.kv)));
    // A view that was closed starts again, with the state of the last checkpoint.
    work.apply(10);
    let (mut checkpoint, _) = work.open().unwrap();
    let newer = work.write(&mut checkpoint).unwrap();
    let name = ChunkRequest { slot: Slot(1), index: 4, token: PartToken::first() };
    let part = checkpoint.part(Some(&name)).unwrap().unwrap();
    assert_eq!((part.slot, part.index), (newer.slot, 0));
}

#[test]
fn chunks_are_equal_whichever_runs_hold_the_state() {
    let (work, mut checkpoint) = due_to_merge(LARGER);
    let (mark, kv, _) = fetch(&mut checkpoint, |_, _| {});
    assert_eq!((mark, state(&kv)), (work.mark(), state(&work.kv)));
    let first = checkpoint.part(None).unwrap().unwrap();
    merge_all(&mut checkpoint).unwrap();
    checkpoint.views.open.clear();
    assert_eq!(checkpoint.part(None).unwrap().unwrap().bytes, first.bytes);
    let whole = encode_chunk(&work.kv.whole().pieces);
    assert!(whole.len() > first.bytes.len());
}
