//! Segments that are no longer needed are removed, and needed ones are kept.

use super::*;
use crate::paxos::Acceptor;
use crate::role::Role;

fn truncated(below: u64) -> AcceptorRecord {
    AcceptorRecord::Truncated(Slot(below))
}

fn acceptor(records: &[AcceptorRecord]) -> Acceptor {
    let mut acceptor = Acceptor::new();
    records.iter().for_each(|record| acceptor.replay(record.clone()));
    acceptor
}

/// Slots are accepted one after the other, and truncated ten slots later.
fn steady(slots: u64) -> (Vec<Vec<AcceptorRecord>>, Vec<AcceptorRecord>) {
    let commits: Vec<Vec<AcceptorRecord>> = (1..=slots)
        .map(|slot| {
            let cut = (slot % 5 == 0 && slot > 10).then(|| truncated(slot - 10));
            [accept(slot, (slot * 97 % 900) as usize)].into_iter().chain(cut).collect()
        })
        .collect();
    let all = commits.concat();
    (commits, all)
}

#[test]
fn a_journal_under_steady_load_keeps_few_files() {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    let (commits, all) = steady(500);
    let mut most = 0;
    for commit in &commits {
        journal.commit(commit).unwrap();
        most = most.max(segments_of(&files).len());
    }
    assert!(most <= 9, "{most} files at a time");
    assert!(journal.segment() > 100);
    let (_, back) = open(&files, SMALL).unwrap();
    assert_eq!(acceptor(&back.records), acceptor(&all));
    assert!(back.records.len() < 60, "{} records are read", back.records.len());
}

#[test]
fn promise_survives_the_removal_of_its_segment() {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    journal.commit(&[accept(1, 1_000), promise(77)]).unwrap();
    // No later record holds a ballot: only the headers do.
    for _ in 0..40 {
        journal.commit(&[truncated(2)]).unwrap();
    }
    assert!(!segments_of(&files).contains(&file_name(1)));
    let (_, back) = open(&files, SMALL).unwrap();
    let found = acceptor(&back.records);
    assert_eq!((found.promised(), found.truncated_below()), (Ballot { round: 77, server: ServerId(1) }, Slot(2)));
}

#[test]
fn a_commit_of_several_files_is_kept_or_removed_as_a_whole() {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    journal.commit(&[accept(1, 3 * SMALL as usize), accept(2, 10)]).unwrap();
    for slot in 3..40 {
        journal.commit(&[accept(slot, 600), truncated(if slot < 20 { 2 } else { slot - 3 })]).unwrap();
        let (_, back) = open(&files.fork(), SMALL).unwrap();
        let found = acceptor(&back.records);
        assert!(found.accepted().contains_key(&Slot(slot)));
        assert_eq!(found.accepted().contains_key(&Slot(2)), slot < 20, "after slot {slot}");
    }
    assert!(segments_of(&files).len() < 6, "{:?}", segments_of(&files));
}

#[test]
fn missing_needed_segment_is_refused_and_an_unneeded_one_is_removed() {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    let before = files.read(&file_name(1)).unwrap();
    let (commits, all) = steady(100);
    for commit in &commits {
        journal.commit(commit).unwrap();
    }
    let names = segments_of(&files);
    assert!(names.len() > 2);
    for name in &names[..names.len() - 1] {
        let without = files.fork();
        without.remove(name).unwrap();
        let error = open(&without, SMALL).unwrap_err();
        assert!(matches!(&error, OpenError::MissingSegment { file, .. } if file == name), "{error}");
    }
    files.put(&file_name(1), &before);
    let (_, back) = open(&files, SMALL).unwrap();
    assert_eq!(acceptor(&back.records), acceptor(&all));
    assert!(!segments_of(&files).contains(&file_name(1)));
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_acknowledged() {
    let (commits, _) = steady(60);
    for operation in 0..260 {
        let files = MemoryFiles::new();
        let (mut journal, _) = open(&files, SMALL).unwrap();
        files.fail(operation, InjectedFailure::Stop);
        let acknowledged = commits.iter().take_while(|commit| journal.commit(commit).is_ok()).count();
        files.power_cut(operation);
        let mut found = Vec::new();
        for _ in 0..2 {
            let (_, back) = open(&files, SMALL).unwrap();
            found.push(acceptor(&back.records));
        }
        assert_eq!(found[0], found[1], "operation {operation}");
        let with = |count: usize| acceptor(&commits[..count.min(commits.len())].concat());
        let is_whole = found[0] == with(acknowledged) || found[0] == with(acknowledged + 1);
        assert!(is_whole, "operation {operation}: {acknowledged} commits were acknowledged");
    }
}
