//! Snapshots of other servers, written as they arrive.

use super::merging::due_to_merge;
use super::*;
use crate::paxos::{ChunkRequest, SnapshotChunk};
use crate::storage::checkpoint::arriving::NEW_FILE;

/// The state of another server, in chunks.
fn snapshot(commands: u64) -> (Kv, Vec<SnapshotChunk>) {
    let mut other = Work { keys: 400, ..Work::new() };
    let (mut theirs, _) = other.open().unwrap();
    other.apply(commands);
    let slot = other.write(&mut theirs).unwrap().slot;
    let mut chunks = vec![theirs.part(None).unwrap().unwrap()];
    while let Some(SnapshotChunk { index, next: Some(token), .. }) = chunks.last() {
        let name = ChunkRequest { slot, index: index + 1, token: token.clone() };
        chunks.push(theirs.part(Some(&name)).unwrap().unwrap());
    }
    assert!(chunks.len() > 5, "{} chunks", chunks.len());
    (other.kv, chunks)
}

/// A checkpoint with a state of its own.
fn older_state() -> (Work, Checkpoint<MemoryFiles>) {
    let mut work = Work::new();
    let (mut checkpoint, _) = work.open().unwrap();
    for _ in 0..3 {
        work.apply(10);
        work.write(&mut checkpoint).unwrap();
    }
    (work, checkpoint)
}

fn install(checkpoint: &mut Checkpoint<MemoryFiles>, chunks: &[SnapshotChunk]) -> Result<(), CheckpointError> {
    for chunk in chunks {
        checkpoint.take_chunk(chunk)?;
    }
    assert!(checkpoint.arrived(chunks[0].digest).is_some());
    checkpoint.install()
}

#[test]
fn snapshot_replaces_the_whole_checkpoint_without_a_copy_of_the_state() {
    let (work, mut checkpoint) = older_state();
    let (theirs, chunks) = snapshot(1_500);
    let (slot, digest) = (chunks[0].slot, chunks[0].digest);
    install(&mut checkpoint, &chunks).unwrap();
    assert_eq!(checkpoint.mark(), CheckpointMeta { slot, digest });
    assert_eq!(work.files.list().unwrap(), ["0000000001-0000000004.run"]);
    // A follower begins with the chunks, and its next delta leads on from them.
    let mut follower = Work { kv: Kv::empty_like(&theirs), slot: slot.0, ..work };
    chunks.iter().for_each(|chunk| follower.kv.load_chunk(&chunk.bytes).unwrap());
    follower.apply(20);
    let changes = follower.kv.take_delta();
    assert_eq!(changes.scope, DeltaScope::SinceSnapshot { digest });
    checkpoint.write(follower.mark(), &changes).unwrap();
    follower.kv.delta_saved();
    drop(checkpoint);
    let (mut checkpoint, back) = follower.open().unwrap();
    assert_eq!((checkpoint.mark(), state(&back)), (follower.mark(), state(&follower.kv)));
    follower.apply(20);
    follower.write(&mut checkpoint).unwrap();
    merge_all(&mut checkpoint).unwrap();
    assert_eq!(state(&follower.open().unwrap().1), state(&follower.kv));
}

#[test]
fn crash_at_any_operation_of_an_install_leaves_the_old_state_or_the_new_one() {
    let (work, checkpoint) = older_state();
    let (theirs, chunks) = snapshot(1_500);
    let (old, new) = (work.mark(), CheckpointMeta { slot: chunks[0].slot, digest: chunks[0].digest });
    drop(checkpoint);
    for operation in 0.. {
        let files = work.files.fork();
        let (mut checkpoint, _) = open(&files).unwrap();
        files.fail(operation, InjectedFailure::Stop);
        let installed = install(&mut checkpoint, &chunks).is_ok();
        let has_stopped = files.has_stopped();
        for seed in 0..6 {
            let cut = files.fork();
            cut.power_cut(operation * 100 + seed);
            let (checkpoint, back) = open(&cut).unwrap();
            let found = checkpoint.mark();
            assert!(found == new || (found == old && !installed), "operation {operation}: {found:?}");
            assert_eq!(state(&back), if found == new { state(&theirs) } else { state(&work.kv) });
        }
        if !has_stopped {
            return assert!(installed && operation > 10, "{operation} operations");
        }
    }
}

#[test]
fn snapshot_with_a_gap_or_of_another_digest_is_not_installed() {
    let (work, mut checkpoint) = older_state();
    let (_, chunks) = snapshot(1_500);
    let (_, others) = snapshot(1_507);
    let digest = chunks[0].digest;
    let arrived = |checkpoint: &mut Checkpoint<_>, chunks: &[&SnapshotChunk]| {
        chunks.iter().for_each(|chunk| checkpoint.take_chunk(chunk).unwrap());
        checkpoint.arrived(digest).is_some()
    };
    let all: Vec<&SnapshotChunk> = chunks.iter().collect();
    assert!(!arrived(&mut checkpoint, &all[..all.len() - 1]), "its end is missing");
    assert!(!arrived(&mut checkpoint, &all[1..]), "its beginning is missing");
    assert!(!arrived(&mut checkpoint, &[&all[..2], &all[3..]].concat()), "a chunk is missing");
    assert!(!arrived(&mut checkpoint, &[&all[..2], &all[1..]].concat()), "a chunk arrived twice");
    assert!(!arrived(&mut checkpoint, &[&all[..2], &[&others[2]], &all[3..]].concat()), "a chunk of another state");
    assert!(!arrived(&mut checkpoint, &others.iter().collect::<Vec<_>>()), "another snapshot");
    let unsorted = SnapshotChunk { bytes: chunks[0].bytes.clone(), ..chunks[1].clone() };
    assert!(!arrived(&mut checkpoint, &[&all[..1], &[&unsorted], &all[2..]].concat()), "its keys are out of order");
    let unreadable = SnapshotChunk { bytes: b"\x07no part"[..].into(), ..chunks[1].clone() };
    assert!(!arrived(&mut checkpoint, &[&all[..1], &[&unreadable], &all[2..]].concat()), "it cannot be decoded");
    assert!(arrived(&mut checkpoint, &all));
    // The learner that loaded it has crashed.
    checkpoint.drop_arriving();
    assert_eq!((checkpoint.arrived(digest), checkpoint.mark()), (None, work.mark()));
    assert!(!work.files.list().unwrap().contains(&NEW_FILE.to_string()));
}

#[test]
fn full_disk_ends_a_snapshot_and_the_whole_state_is_written_later() {
    let (work, mut checkpoint) = older_state();
    let (theirs, chunks) = snapshot(1_500);
    for chunk in &chunks[..3] {
        checkpoint.take_chunk(chunk).unwrap();
    }
    work.files.set_capacity(Some(work.files.used_bytes() + 10_000));
    for chunk in &chunks[3..] {
        checkpoint.take_chunk(chunk).unwrap();
    }
    assert_eq!(checkpoint.arrived(chunks[0].digest), None);
    work.files.set_capacity(None);
    let mark = CheckpointMeta { slot: chunks[0].slot, digest: chunks[0].digest };
    checkpoint.write(mark, &theirs.whole()).unwrap();
    drop(checkpoint);
    let (checkpoint, back) = work.open().unwrap();
    assert_eq!((checkpoint.mark(), state(&back)), (mark, state(&theirs)));
    assert_eq!(work.files.list().unwrap(), ["0000000001-0000000004.run"]);
}

#[test]
fn snapshot_that_arrives_is_dropped_when_a_newer_checkpoint_is_durable() {
    let (mut work, mut checkpoint) = older_state();
    let (_, chunks) = snapshot(1_500);
    checkpoint.take_chunk(&chunks[0]).unwrap();
    work.write(&mut checkpoint).unwrap();
    assert!(checkpoint.arriving.is_some(), "it is newer");
    work.apply(1_500);
    work.write(&mut checkpoint).unwrap();
    assert!(checkpoint.arriving.is_none());
}

#[test]
fn checkpoint_on_a_full_disk_has_the_room_of_an_older_snapshot() {
    let (mut work, mut checkpoint) = older_state();
    let (_, chunks) = snapshot(1_500);
    for chunk in &chunks[..chunks.len() - 1] {
        checkpoint.take_chunk(chunk).unwrap();
    }
    work.files.set_capacity(Some(work.files.used_bytes()));
    work.apply(1_500);
    work.write(&mut checkpoint).unwrap();
}

#[test]
fn merge_of_runs_that_a_snapshot_replaces_is_dropped() {
    let (work, mut checkpoint) = due_to_merge(LARGER);
    checkpoint.merge_some().unwrap();
    assert!(checkpoint.merge.is_some());
    let (theirs, chunks) = snapshot(1_500);
    install(&mut checkpoint, &chunks).unwrap();
    merge_all(&mut checkpoint).unwrap();
    assert_eq!(checkpoint.runs.len(), 1);
    drop(checkpoint);
    assert_eq!(state(&work.open().unwrap().1), state(&theirs));
}
