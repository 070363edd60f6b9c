//! The journal on a disk in memory; here the usual cases, in `crash`, `cut`, `damage` and `shed` the others.

mod corruption;
mod crash;
mod cut;
mod shed;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::paxos::{AcceptorRecord, Ballot, Command, CommandId, Entry, Slot, SlotRange, Value};
use crate::role::ServerId;
use crate::storage::disk::{InjectedFailure, MemoryFiles, OperationCounts, RealFiles};

const OWNER: u64 = 0x9f3a_12c4_5e07_d211;
/// A segment with six sectors for groups, in bytes.
const SMALL: u64 = 4_096;

fn options(segment_bytes: u64) -> JournalOptions {
    JournalOptions::alone(segment_bytes, OWNER, false)
}

type TestJournal<F> = super::Journal<F, AcceptorRecord>;
type Recovered = super::RecoveredJournal<AcceptorRecord>;

fn open(files: &MemoryFiles, segment_bytes: u64) -> Result<(TestJournal<MemoryFiles>, Recovered), OpenError> {
    TestJournal::open(files.clone(), options(segment_bytes))
}

/// The records that a journal would return; the disk is left unchanged.
fn recovered(files: &MemoryFiles, segment_bytes: u64) -> Vec<AcceptorRecord> {
    open(&files.fork(), segment_bytes).unwrap().1.records
}

fn promise(round: u64) -> AcceptorRecord {
    AcceptorRecord::Promised(Ballot { round, server: ServerId(1) })
}

fn accept(slot: u64, bytes: usize) -> AcceptorRecord {
    let payload: Arc<[u8]> = (0..bytes).map(|n| (n as u64 * 31 + slot) as u8).collect();
    let value = Value::Command(Command { id: CommandId::new(7, 0, slot), payload });
    AcceptorRecord::Accepted(Entry { slot: Slot(slot), ballot: Ballot { round: 3, server: ServerId(2) }, value })
}

/// A record that differs for each number: a promise, or a value of some sectors.
fn record(number: u64) -> AcceptorRecord {
    if number.is_multiple_of(3) { promise(number + 1) } else { accept(number, (number * 197 % 1_100) as usize) }
}

fn segments_of(files: &MemoryFiles) -> Vec<String> {
    files.list().unwrap().into_iter().filter(|name| name != SPARE).collect()
}

#[test]
fn committed_records_are_recovered_in_order() {
    let files = MemoryFiles::new();
    let (mut journal, empty) = open(&files, 256 << 10).unwrap();
    assert!(empty.records.is_empty() && !empty.torn_tail_cut);
    let all: Vec<_> = (0..200).map(record).collect();
    for batch in all.chunks(7) {
        journal.commit(batch).unwrap();
    }
    let (_, back) = open(&files, 256 << 10).unwrap();
    assert_eq!(back.records, all);
    assert_eq!((back.segment, back.torn_tail_cut), (2, false));
}

#[test]
fn a_commit_is_one_write_and_one_sync() {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, 256 << 10).unwrap();
    let before = files.counts();
    for number in 1..=50 {
        journal.commit(&[record(number), record(number + 100)]).unwrap();
        let expected = OperationCounts { writes: before.writes + number, syncs: before.syncs + number, ..before };
        assert_eq!(files.counts(), expected);
    }
}

#[test]
fn opening_twice_is_opening_once_and_each_begins_a_new_segment() {
    let files = MemoryFiles::new();
    let all: Vec<_> = (0..40).map(record).collect();
    for (incarnation, batch) in all.chunks(10).enumerate() {
        let (mut journal, back) = open(&files, SMALL).unwrap();
        assert_eq!(back.records, all[..incarnation * 10]);
        journal.commit(batch).unwrap();
    }
    let mut last = 0;
    for _ in 0..3 {
        let before = segments_of(&files).len();
        let (journal, back) = open(&files, SMALL).unwrap();
        assert_eq!(back.records, all);
        assert!(back.segment > last && journal.segment() == back.segment);
        assert_eq!(segments_of(&files).len(), before, "the new segment replaced the last one");
        last = back.segment;
    }
}

#[test]
fn a_commit_that_no_longer_fits_begins_the_next_segment() {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    // Four sectors, then three: they do not fit into the six of a segment.
    journal.commit(&[accept(1, 4 * PAYLOAD_BYTES - 50)]).unwrap();
    assert_eq!(journal.segment(), 1);
    journal.commit(&[accept(2, 3 * PAYLOAD_BYTES - 50)]).unwrap();
    assert_eq!(journal.segment(), 2);
    assert_eq!(files.list().unwrap(), ["0000000001.journal", "0000000002.journal", SPARE]);
    assert_eq!(recovered(&files, SMALL), [accept(1, 4 * PAYLOAD_BYTES - 50), accept(2, 3 * PAYLOAD_BYTES - 50)]);
}

#[test]
fn a_commit_that_just_fits_leaves_nothing_over() {
    // A record of 456 bytes and its length, 4 bytes, could be wrong by a byte without being noticed.
    for bytes in 380..480 {
        let files = MemoryFiles::new();
        let (mut journal, _) = open(&files, 2_048).unwrap();
        let all: Vec<_> = (1..=5).map(|slot| accept(slot, bytes)).collect();
        for record in &all {
            journal.commit(std::slice::from_ref(record)).unwrap();
        }
        assert_eq!(recovered(&files, 2_048), all, "values of {bytes} bytes");
    }
}

#[test]
fn a_commit_larger_than_a_segment_is_split() {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    let all = [promise(1), accept(1, 3 * SMALL as usize), promise(2), accept(2, 10), accept(3, 2 * SMALL as usize)];
    journal.commit(&all[..1]).unwrap();
    journal.commit(&all[1..4]).unwrap();
    journal.commit(&all[4..]).unwrap();
    assert!(segments_of(&files).len() > 6);
    assert_eq!(recovered(&files, SMALL), all);
}

#[test]
fn longer_segments_are_kept_and_shorter_ones_outgrown() {
    let files = MemoryFiles::new();
    for (asked, made) in [(SMALL, SMALL), (2 * SMALL, 2 * SMALL), (SMALL, 2 * SMALL)] {
        let (mut journal, _) = open(&files, asked).unwrap();
        journal.commit(&[accept(1, 1_500)]).unwrap();
        assert_eq!(files.read(&file_name(journal.segment())).unwrap().len() as u64, made);
    }
    assert_eq!(recovered(&files, SMALL).len(), 3);
}

#[test]
fn the_very_first_segment_is_short_and_no_other() {
    let files = MemoryFiles::new();
    let long = 2 * FIRST_SEGMENT_BYTES;
    let (mut journal, _) = open(&files, long).unwrap();
    let all: Vec<AcceptorRecord> = (1..=3).map(|slot| accept(slot, 600_000)).collect();
    let lengths = |files: &MemoryFiles| -> Vec<usize> { files.image().values().map(Vec::len).collect() };
    let (first, other) = (FIRST_SEGMENT_BYTES as usize, long as usize);
    assert_eq!(lengths(&files), [first, other], "and the spare");
    all.iter().for_each(|record| journal.commit(std::slice::from_ref(record)).unwrap());
    assert_eq!(lengths(&files), [first, other, other]);
    assert_eq!(recovered(&files, long), all);
    assert_eq!(lengths(&files), [first, other, other], "the last one was replaced");
}

#[test]
fn full_disk_is_detected_one_segment_ahead_and_promises_continue() {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    let mut all = vec![accept(1, 2_000), accept(2, 2_000)];
    journal.commit(&all[..1]).unwrap();
    assert!(journal.has_space());
    // Space for the two existing segments, and no more.
    files.set_capacity(Some(2 * SMALL));
    journal.commit(&all[1..]).unwrap();
    assert!(!journal.has_space(), "the spare is in use and no other can be made");
    assert!(matches!(journal.retry_space(), Err(JournalError::Full { bytes: SMALL, .. })));
    all.push(promise(9));
    journal.commit(&all[2..]).unwrap();
    assert_eq!(files.list().unwrap(), [file_name(1), file_name(2)], "the half-made file is removed");

    files.set_capacity(None);
    journal.retry_space().unwrap();
    assert!(journal.has_space());
    all.push(accept(3, 2_000));
    journal.commit(&all[3..]).unwrap();
    assert_eq!(recovered(&files, SMALL), all);
}

#[test]
fn a_journal_opens_on_a_full_disk() {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    journal.commit(&[accept(1, 600)]).unwrap();
    // The process before has ended: a removed file that it still had open would use space.
    drop(journal);
    files.set_capacity(Some(2 * SMALL));
    for _ in 0..3 {
        let (mut journal, back) = open(&files, SMALL).unwrap();
        assert_eq!(back.records[0], accept(1, 600));
        assert!(journal.has_space(), "the spare became the new segment, and the old one left space for the next spare");
        journal.commit(&[promise(5)]).unwrap();
    }
    // Even the old segment's space is not free: another process fills it.
    files.remove(SPARE).unwrap();
    files.set_capacity(Some(SMALL));
    let error = open(&files, SMALL).unwrap_err();
    assert!(matches!(error, OpenError::Full { bytes: SMALL }), "{error}");
}

#[test]
fn without_a_next_segment_a_full_journal_stops() {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    files.set_capacity(Some(SMALL));
    let mut acknowledged = Vec::new();
    let error = loop {
        let record = promise(acknowledged.len() as u64 + 1);
        match journal.commit(std::slice::from_ref(&record)) {
            Ok(()) => acknowledged.push(record),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, JournalError::Full { .. }), "{error}");
    assert!(matches!(journal.commit(&[promise(99)]), Err(JournalError::AlreadyFailed)));
    assert_eq!(acknowledged.len(), 12, "the rest of the first segment, and the spare");
    files.set_capacity(None);
    assert_eq!(recovered(&files, SMALL), acknowledged);
}

#[test]
fn disk_error_stops_the_journal_and_is_never_retried() {
    for operation in 0..2 {
        let files = MemoryFiles::new();
        let (mut journal, _) = open(&files, SMALL).unwrap();
        journal.commit(&[promise(1)]).unwrap();
        files.fail(operation, InjectedFailure::Once(io::ErrorKind::Other));
        assert!(matches!(journal.commit(&[promise(2)]), Err(JournalError::Io { .. })));
        let before = files.counts();
        // The disk works again, but the fate of the bytes is unknown.
        assert!(matches!(journal.commit(&[promise(3)]), Err(JournalError::AlreadyFailed)));
        assert!(matches!(journal.retry_space(), Err(JournalError::AlreadyFailed)));
        assert!(journal.has_space(), "a role that waits for space would not be notified");
        assert_eq!(files.counts(), before, "not even tried");
    }
}

#[test]
fn bytes_read_by_a_new_process_are_durable() {
    // The sync fails, and the kernel drops the bytes but still shows them. A new process reads them and tells others,
    // so it must not lose them when the power fails.
    for seed in 0..32 {
        let files = MemoryFiles::new();
        let (mut journal, _) = open(&files, SMALL).unwrap();
        journal.commit(&[promise(1)]).unwrap();
        files.fail(1, InjectedFailure::Once(io::ErrorKind::Other));
        assert!(journal.commit(&[promise(2), accept(1, 700)]).is_err());
        let (_, back) = open(&files, SMALL).unwrap();
        assert_eq!(back.records, [promise(1), promise(2), accept(1, 700)]);
        files.power_cut(seed);
        assert_eq!(recovered(&files, SMALL), back.records, "seed {seed}");
    }
}

#[test]
fn real_directory_behaves_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let files = RealFiles::open(dir.path()).unwrap();
    let all: Vec<_> = (0..300).map(record).collect();
    for (incarnation, batches) in all.chunks(100).enumerate() {
        let (mut journal, back) = TestJournal::open(files.clone(), options(64 << 10)).unwrap();
        assert_eq!(back.records, all[..incarnation * 100]);
        for batch in batches.chunks(9) {
            journal.commit(batch).unwrap();
        }
        assert!(journal.has_space());
    }
    let image: BTreeMap<_, _> =
        files.list().unwrap().into_iter().map(|name| (name.clone(), files.read(&name).unwrap())).collect();
    assert!(image.len() > 3 && image.values().all(|bytes| bytes.len() == 64 << 10));
    assert_eq!(recovered(&MemoryFiles::from_image(&image), 64 << 10), all, "byte for byte the same journal");
    // A file that was cut while no process used it.
    let last = segment_set::segments(&files).unwrap().pop().unwrap();
    let path = dir.path().join(file_name(last));
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(5_000).unwrap();
    let error = TestJournal::open(files, options(64 << 10)).unwrap_err();
    assert!(matches!(error, OpenError::Length { found: 5_000, .. }), "{error}");
}
