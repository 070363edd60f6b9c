//! Merges: crashes, full disks, and what they cost.

use super::*;
use crate::storage::checkpoint::entry::Kind;
use crate::storage::checkpoint::merging::NEW_FILE;

/// A directory with some runs that are due to be merged, and the work that made them.
pub(super) fn due_to_merge(options: CheckpointOptions) -> (Work, Checkpoint<MemoryFiles>) {
    let mut work = Work { keys: if options.merge_bytes > 10_000 { 400 } else { 41 }, ..Work::new() };
    let (mut checkpoint, _) = open_with(&work.files, options).unwrap();
    while !checkpoint.has_work() {
        work.apply(work.keys / 2);
        work.write(&mut checkpoint).unwrap();
    }
    (work, checkpoint)
}

#[test]
fn crash_at_any_operation_of_a_merge_leaves_the_same_state() {
    let (work, _) = due_to_merge(LARGER);
    let before = work.files.fork();
    let mut operations = 0;
    loop {
        let files = before.fork();
        let (mut checkpoint, _) = open_with(&files, LARGER).unwrap();
        files.fail(operations, InjectedFailure::Stop);
        let merged = merge_all(&mut checkpoint);
        let has_stopped = files.has_stopped();
        for seed in 0..6 {
            let cut = files.fork();
            cut.power_cut(operations * 100 + seed);
            let (checkpoint, back) = open(&cut).unwrap();
            assert_eq!((checkpoint.mark(), state(&back)), (work.mark(), state(&work.kv)), "operation {operations}");
            let names = cut.list().unwrap();
            assert_eq!(names.len(), checkpoint.runs.len(), "nothing else is left: {names:?}");
        }
        operations += 1;
        if merged.is_ok() && !has_stopped {
            break;
        }
    }
    assert!(operations > 10, "{operations} operations");
}

#[test]
fn checkpoints_that_are_written_during_a_merge_are_kept() {
    let (mut work, mut checkpoint) = due_to_merge(LARGER);
    let mut pieces = 0;
    while checkpoint.has_work() && checkpoint.runs[0].span.first == checkpoint.runs[0].span.last {
        checkpoint.merge_some().unwrap();
        work.apply(3);
        work.write(&mut checkpoint).unwrap();
        pieces += 1;
    }
    assert!(pieces > 1 && checkpoint.runs.len() > 1, "{pieces} pieces, {:?}", checkpoint.runs);
    drop(checkpoint);
    let (checkpoint, back) = work.open().unwrap();
    assert_eq!((checkpoint.mark(), state(&back)), (work.mark(), state(&work.kv)));
}

#[test]
fn failed_merge_for_lack_of_room_changes_nothing_and_is_tried_after_the_next_checkpoint() {
    let (mut work, mut checkpoint) = due_to_merge(LARGER);
    let used = work.files.used_bytes();
    // None free, some free, and room that another file takes meanwhile.
    for room in [0, 600, 12_000, 2 * used] {
        work.files.set_capacity(Some(used + room));
        let begun = checkpoint.merge_some();
        assert_eq!(begun.is_ok(), room > used, "it begins only if there is room for all of it: {begun:?}");
        if begun.is_ok() {
            work.files.set_capacity(Some(work.files.used_bytes()));
            let error = merge_all(&mut checkpoint).unwrap_err();
            assert!(matches!(error, CheckpointError::Full { .. }), "{error}");
        }
        assert!(!checkpoint.has_work(), "it does not try again by itself");
        assert!(!work.files.list().unwrap().contains(&NEW_FILE.to_string()), "its part is removed");
        let (again, back) = open(&work.files.fork()).unwrap();
        assert_eq!((again.mark(), state(&back)), (work.mark(), state(&work.kv)));
        work.files.set_capacity(None);
        work.apply(1);
        work.write(&mut checkpoint).unwrap();
        assert!(checkpoint.has_work());
    }
    merge_all(&mut checkpoint).unwrap();
    assert!(checkpoint.runs.len() < 3);
}

#[test]
fn checkpoint_waits_for_a_merge_when_there_are_too_many_runs() {
    let mut work = Work::new();
    let options = CheckpointOptions { merge_bytes: u64::MAX, ..OPTIONS };
    let (mut checkpoint, _) = Checkpoint::open(work.files.clone(), options, Kv::with_sessions_at_most(3)).unwrap();
    work.apply(200);
    for _ in 0..3 * RUNS_MAX {
        work.apply(1);
        work.write(&mut checkpoint).unwrap();
        assert!(checkpoint.runs.len() <= RUNS_MAX);
    }
    while checkpoint.runs.len() < RUNS_MAX {
        work.apply(1);
        work.write(&mut checkpoint).unwrap();
    }
    work.files.set_capacity(Some(work.files.used_bytes()));
    work.apply(1);
    let error = work.write(&mut checkpoint).unwrap_err();
    assert!(matches!(error, CheckpointError::Full { .. }), "{error}");
    work.files.set_capacity(None);
    let mark = work.write(&mut checkpoint).unwrap();
    assert!(checkpoint.runs.len() <= RUNS_MAX, "{} runs", checkpoint.runs.len());
    drop(checkpoint);
    let (checkpoint, back) = work.open().unwrap();
    assert_eq!((checkpoint.mark(), state(&back)), (mark, state(&work.kv)));
}

/// The maximum number of runs, with more bytes than the oldest: a merge of all is due.
fn too_many_runs_and_all_due() -> (Work, Checkpoint<MemoryFiles>) {
    let mut work = Work { keys: 400, ..Work::new() };
    let (mut checkpoint, _) = work.open().unwrap();
    work.apply(800);
    work.write(&mut checkpoint).unwrap();
    while checkpoint.runs.len() < RUNS_MAX {
        work.apply(20);
        work.write(&mut checkpoint).unwrap();
    }
    assert!(checkpoint.size().1 > 3 * checkpoint.runs[0].length);
    (work, checkpoint)
}

#[test]
fn newest_runs_are_merged_where_there_is_no_room_to_merge_all() {
    // Room for the largest checkpoint, and for a merge of some runs: less than one merge usually takes, or as much.
    for merged in [4, 60] {
        let (mut work, mut checkpoint) = too_many_runs_and_all_due();
        let room = checkpoint.runs[0].length + merged * checkpoint.runs[RUNS_MAX - 1].length;
        assert!(room < checkpoint.size().1);
        work.files.set_capacity(Some(work.files.used_bytes() + room));
        work.apply(20);
        let mark = work.write(&mut checkpoint).unwrap();
        assert!(checkpoint.runs.len() <= RUNS_MAX && checkpoint.runs[0].span.last == 1, "the oldest run stays");
        drop(checkpoint);
        let (checkpoint, back) = work.open().unwrap();
        assert_eq!((checkpoint.mark(), state(&back)), (mark, state(&work.kv)));
    }
}

#[test]
fn whole_state_does_not_wait_for_a_merge_of_the_runs_that_it_replaces() {
    let (mut work, mut checkpoint) = too_many_runs_and_all_due();
    work.apply(1);
    let creates = work.files.counts().creates;
    checkpoint.write(work.mark(), &work.kv.whole()).unwrap();
    assert_eq!((work.files.counts().creates - creates, checkpoint.runs.len()), (1, 1));
    drop(checkpoint);
    assert_eq!(state(&work.open().unwrap().1), state(&work.kv));
}

/// Each checkpoint writes what has changed, and merges write a bounded multiple of that: whatever the store holds.
#[test]
fn bytes_written_and_bytes_kept_are_in_proportion_to_the_changes_and_to_the_state() {
    for keys in [200, 1_000] {
        let mut work = Work { keys, ..Work::new() };
        let (mut checkpoint, _) = work.open().unwrap();
        work.apply(8 * keys);
        work.write(&mut checkpoint).unwrap();
        let (state_bytes, mut changed, mut merged, mut most) = (checkpoint.runs[0].length, 0, 0, 0);
        for _ in 0..600 {
            work.apply(20);
            work.write(&mut checkpoint).unwrap();
            changed += checkpoint.runs.last().unwrap().length;
            let is_due = checkpoint.has_work();
            merge_all(&mut checkpoint).unwrap();
            merged += if is_due { checkpoint.runs.last().unwrap().length } else { 0 };
            most = most.max(work.files.used_bytes());
            assert!(checkpoint.runs.len() <= 48, "{} runs", checkpoint.runs.len());
        }
        println!(
            "{keys} keys: {state_bytes} B of state, {changed} B changed, {merged} B merged, at most {most} B kept"
        );
        assert!(merged <= 3 * changed, "{merged} bytes were merged for {changed} bytes of changes");
        assert!(most <= 3 * state_bytes + 2 * OPTIONS.merge_bytes, "{most} bytes for {state_bytes}");
    }
}

#[test]
fn session_that_has_ended_is_in_no_oldest_run() {
    let (work, mut checkpoint) = due_to_merge(OPTIONS);
    merge_all(&mut checkpoint).unwrap();
    assert_eq!(checkpoint.runs.len(), 1);
    let mut merge = Merge::new(&checkpoint.runs, Place::from(&PartToken::first())).unwrap();
    let mut sessions = 0;
    while let Some(entry) = merge.next().unwrap() {
        assert!(!entry.is_end(), "{:?}", entry.place);
        sessions += usize::from(entry.place.kind == Kind::Session);
    }
    assert_eq!(sessions, work.kv.sessions().len());
}
