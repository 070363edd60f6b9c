//! A disk that is full of the journal's own segments.

use super::*;

fn truncated(below: u64) -> AcceptorRecord {
    AcceptorRecord::Truncated(Slot(below))
}

fn open_beside(files: &MemoryFiles, forgotten: u64) -> Result<(TestJournal<MemoryFiles>, Recovered), OpenError> {
    TestJournal::open(files.clone(), JournalOptions { forgotten: Some(Slot(forgotten)), ..options(SMALL) })
}

/// A journal that has filled its disk: each of five slots takes a segment, and there is no space for a spare one.
fn filled(files: &MemoryFiles) -> TestJournal<MemoryFiles> {
    let (mut journal, _) = open(files, SMALL).unwrap();
    files.set_capacity(Some(5 * SMALL));
    for slot in 1..=5 {
        journal.commit(&[promise(slot), accept(slot, 2_000)]).unwrap();
    }
    assert!(!journal.has_space());
    assert_eq!(segments_of(files).len(), 5);
    journal
}

/// What a later incarnation recovers: the last promise, the slots, and the truncation point.
fn known(files: &MemoryFiles) -> (u64, Vec<u64>, Slot) {
    let files = files.fork();
    files.set_capacity(None);
    let records = open(&files, SMALL).unwrap().1.records;
    let bound = PromiseFloor::by(&records);
    let slot = |record: &AcceptorRecord| match record {
        AcceptorRecord::Accepted(entry) => Some(entry.slot.0),
        _ => None,
    };
    (bound.promised.round, records.iter().filter_map(slot).collect(), bound.below)
}

#[test]
fn truncation_removes_segments_that_are_not_needed() {
    let files = MemoryFiles::new();
    let mut journal = filled(&files);
    assert!(journal.retry_space().is_err(), "all is needed");
    assert_eq!(segments_of(&files).len(), 5);
    journal.commit(&[truncated(4)]).unwrap();
    assert!(journal.has_space(), "{:?}", files.list());
    assert_eq!(files.list().unwrap(), [&file_name(4), &file_name(5), SPARE]);
    assert_eq!(known(&files), (5, vec![4, 5], Slot(4)));
    // The journal continues in the space that is free now.
    for slot in 6..=9 {
        journal.commit(&[accept(slot, 2_000), truncated(slot)]).unwrap();
    }
    assert!(journal.has_space());
    assert_eq!(known(&files), (5, vec![8, 9], Slot(9)), "a segment is removed when the one after the next starts");
}

#[test]
fn segments_are_removed_even_without_space_for_a_truncation_record() {
    let files = MemoryFiles::new();
    let mut journal = filled(&files);
    // Promises fill the last segment to its end.
    let mut round = 100;
    while journal.active.free() > 0 {
        journal.commit(&[promise(round)]).unwrap();
        round += 1;
    }
    journal.commit(&[truncated(5)]).unwrap();
    assert!(journal.has_space());
    assert_eq!(known(&files), (round - 1, vec![5], Slot(5)));
}

#[test]
fn journal_opened_on_a_full_disk_removes_segments_below_the_checkpoint() {
    for forgotten in 2..=9 {
        let files = MemoryFiles::new();
        drop(filled(&files));
        let (mut journal, back) = open_beside(&files, forgotten).unwrap();
        assert_eq!(PromiseFloor::by(&back.records).promised.round, 5);
        assert!(journal.has_space(), "slots below {forgotten}: {:?}", files.list());
        journal.commit(&[promise(9)]).unwrap();
        drop(journal);
        let left = (forgotten.min(5)..=5).collect::<Vec<_>>();
        // (The last segment stays as it is.)
        assert_eq!(known(&files), (9, left, Slot(forgotten)), "the slots below {forgotten} are in the checkpoint");
    }
}

#[test]
fn journal_without_removable_segments_waits_for_space() {
    let files = MemoryFiles::new();
    drop(filled(&files));
    let before = files.image();
    for _ in 0..2 {
        assert!(matches!(open_beside(&files, 1), Err(OpenError::Full { bytes: SMALL })));
        assert_eq!(files.image(), before);
    }
}

#[test]
fn segments_left_by_an_interrupted_incarnation_are_removed_too() {
    let files = MemoryFiles::new();
    let mut journal = filled(&files);
    let first = files.read(&file_name(1)).unwrap();
    journal.commit(&[truncated(2)]).unwrap();
    drop(journal);
    // The process crashed before it removed the file.
    files.remove(SPARE).unwrap();
    files.put(&file_name(1), &first);
    assert!(open(&files, SMALL).is_ok());
    assert_eq!(known(&files), (5, vec![2, 3, 4, 5], Slot(2)));
}

#[test]
fn next_segment_leaves_the_space_that_a_checkpoint_may_need() {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    files.set_capacity(Some(7 * SMALL));
    let left_free = LeftFree { always: 0, to_grow: 3 * SMALL };
    journal.leave_free(left_free);
    for slot in 1..=2 {
        journal.commit(&[accept(slot, 2_000)]).unwrap();
    }
    assert!(journal.has_space() && segments_of(&files).len() == FEW_SEGMENTS);
    journal.commit(&[accept(3, 2_000)]).unwrap();
    assert_eq!((journal.has_space(), files.free_bytes().unwrap()), (true, 3 * SMALL));
    journal.commit(&[accept(4, 2_000)]).unwrap();
    assert_eq!((journal.has_space(), files.free_bytes().unwrap()), (false, 3 * SMALL));
    // The checkpoint is written without it.
    journal.commit(&[truncated(4)]).unwrap();
    assert!(journal.has_space());
}

#[test]
fn incarnation_that_starts_with_the_spare_segment_gets_another_spare_on_a_full_disk() {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    journal.commit(&[accept(1, 2_000)]).unwrap();
    drop(journal);
    files.set_capacity(Some(2 * SMALL));
    let left_free = LeftFree { always: SMALL, to_grow: SMALL };
    for _ in 0..2 {
        let options = JournalOptions { left_free, ..options(SMALL) };
        let (journal, _) = TestJournal::<MemoryFiles>::open(files.clone(), options).unwrap();
        assert!(journal.has_space(), "the replaced file has left space for it");
    }
}

#[test]
fn journal_keeps_a_few_segments_and_the_spare_where_a_checkpoint_cannot_grow() {
    let files = MemoryFiles::new();
    files.set_capacity(Some(5 * SMALL));
    let left_free = LeftFree { always: SMALL, to_grow: 100 * SMALL };
    let options = JournalOptions { left_free, ..options(SMALL) };
    let (mut journal, _) = TestJournal::<MemoryFiles>::open(files.clone(), options).unwrap();
    for slot in 1..=20 {
        journal.commit(&[accept(slot, 2_000)]).unwrap();
        assert!(journal.has_space() || segments_of(&files).len() > FEW_SEGMENTS);
        if !journal.has_space() {
            journal.commit(&[truncated(slot)]).unwrap();
            assert!(journal.has_space(), "slot {slot}: {:?}", files.list());
        }
        assert!(files.free_bytes().unwrap() >= SMALL, "that is for others");
    }
}

#[test]
fn error_while_segments_are_removed_stops_the_journal() {
    let mut ended = 0;
    for operation in 0..12 {
        let files = MemoryFiles::new();
        let mut journal = filled(&files);
        files.fail(operation, InjectedFailure::Once(io::ErrorKind::Other));
        // The record is written and synced; then the header is.
        let committed = journal.commit(&[truncated(4)]);
        files.fail(u64::MAX / 2, InjectedFailure::Stop);
        let goes_on = journal.commit(&[promise(99)]);
        assert!(committed.is_ok() || goes_on.is_err(), "operation {operation}");
        if let Err(error) = goes_on {
            assert!(matches!(error, JournalError::AlreadyFailed), "operation {operation}: {error}");
            assert!(journal.has_space(), "a role that waits for space would not be notified");
            ended += 1;
        }
        assert_eq!(known(&files).1.last(), Some(&5), "operation {operation}");
    }
    assert_eq!(ended, 4, "writes and syncs of the record and of the header");
}

/// The moments at which segments are removed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    /// A record truncates slots.
    Forgotten,
    /// The same, and there is no space for the record before segments are removed.
    FullToTheBrim,
    /// The journal is opened with a checkpoint.
    Opening,
}

/// Makes the journal remove segments, then commits something; true if all of it was done.
fn shed(files: &MemoryFiles, when: When, operation: u64) -> bool {
    let mut journal = filled(files);
    while when == When::FullToTheBrim && journal.active.free() > 0 {
        journal.commit(&[promise(5)]).unwrap();
    }
    if when == When::Opening {
        drop(journal);
        files.restart();
        files.fail(operation, InjectedFailure::Stop);
        let Ok((opened, _)) = open_beside(files, 4) else { return false };
        journal = opened;
    } else {
        files.fail(operation, InjectedFailure::Stop);
        if journal.commit(&[truncated(4)]).is_err() {
            return false;
        }
    }
    // Into another segment.
    (6..=7).all(|slot| journal.commit(&[accept(slot, 2_000)]).is_ok()) && !files.has_stopped()
}

#[test]
fn crash_while_segments_are_removed_loses_no_needed_record() {
    for when in [When::Forgotten, When::FullToTheBrim, When::Opening] {
        let mut operation = 0;
        loop {
            let files = MemoryFiles::new();
            let is_done = shed(&files, when, operation);
            for seed in 0..16 {
                let (what, cut) = (format!("{when:?}, operation {operation}, seed {seed}"), files.fork());
                cut.power_cut(seed);
                let (promised, slots, below) = known(&cut);
                assert_eq!(promised, 5, "{what}");
                // A slot is present or below the truncation point: never as if nothing had been accepted in it.
                let missing = (1..=5).filter(|slot| !slots.contains(slot) && Slot(*slot) >= below).collect::<Vec<_>>();
                assert_eq!((missing, below <= Slot(4)), (vec![], true), "{what}: {slots:?} from {below:?}");
                assert!(open_beside(&cut, 4).is_ok(), "{what}: it can be opened where it is, too");
            }
            if is_done {
                break;
            }
            operation += 1;
        }
        assert!(operation > 5, "{when:?}: only {operation} operations");
    }
}

/// What a crashed process wrote is readable before it is durable. The next process must not remove segments that only
/// such bytes declare unneeded.
#[test]
fn second_crash_while_segments_are_removed_loses_no_needed_record() {
    for (first, second) in (0..12).flat_map(|first| (0..12).map(move |second| (first, second))) {
        let files = MemoryFiles::new();
        shed(&files, When::Forgotten, first);
        files.restart();
        files.fail(second, InjectedFailure::Stop);
        let _ = open_beside(&files, 4);
        for seed in 0..16 {
            let (what, cut) = (format!("operations {first} and {second}, seed {seed}"), files.fork());
            cut.power_cut(seed);
            let (_, slots, below) = known(&cut);
            let missing = (1..=5).filter(|slot| !slots.contains(slot) && Slot(*slot) >= below).collect::<Vec<_>>();
            assert_eq!((missing, below <= Slot(4)), (vec![], true), "{what}: {slots:?} from {below:?}");
        }
    }
}

/// Much longer than the contents of the last segment.
const LONG: u64 = 64 << 10;

fn open_long(files: &MemoryFiles) -> Result<(TestJournal<MemoryFiles>, Recovered), OpenError> {
    TestJournal::open(files.clone(), options(LONG))
}

/// A journal whose last segment is nearly empty, on a disk that has no space for another.
fn nearly_empty(files: &MemoryFiles) {
    let (mut journal, _) = open_long(files).unwrap();
    files.set_capacity(Some(2 * LONG + LONG / 4));
    for (slot, bytes) in [(1, 55_000), (2, 6_000)] {
        journal.commit(&[promise(slot), accept(slot, bytes)]).unwrap();
    }
    assert!(!journal.has_space() && segments_of(files).len() == 2);
}

#[test]
fn incarnation_starts_in_a_short_segment_without_space_for_a_full_one() {
    let files = MemoryFiles::new();
    nearly_empty(&files);
    // No space is left for a next segment.
    let left_free = LeftFree { always: 2 * LONG, to_grow: 0 };
    let opened = TestJournal::<MemoryFiles>::open(files.clone(), JournalOptions { left_free, ..options(LONG) });
    let (mut journal, back) = opened.unwrap();
    assert_eq!((back.records.len(), journal.has_space()), (4, false));
    assert!(files.used_bytes() < LONG + LONG / 4, "it takes no more than it needs");
    journal.commit(&[promise(10)]).unwrap();
    // The space left from the replaced file is enough for the next segment.
    journal.leave_free(LeftFree::default());
    journal.retry_space().unwrap();
    journal.commit(&[accept(3, 50_000)]).unwrap();
    files.set_capacity(None);
    assert_eq!(open_long(&files.fork()).unwrap().1.records.len(), 6);
}

#[test]
fn crash_while_an_incarnation_starts_in_a_short_segment_loses_nothing() {
    let mut operation = 0;
    loop {
        let files = MemoryFiles::new();
        nearly_empty(&files);
        let expected = recovered(&files, LONG);
        files.fail(operation, InjectedFailure::Stop);
        let is_done = open_long(&files).is_ok_and(|(mut journal, _)| journal.commit(&[promise(9)]).is_ok());
        for seed in 0..16 {
            let (what, cut) = (format!("operation {operation}, seed {seed}"), files.fork());
            cut.power_cut(seed);
            let (_, back) = open_long(&cut).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(back.records.starts_with(&expected), "{what}: {:?}", back.records);
            assert!(!is_done || back.records.len() == expected.len() + 1, "{what}");
            assert_eq!(open_long(&cut).unwrap().1.records, back.records, "{what}: again");
        }
        if is_done {
            break;
        }
        operation += 1;
    }
    assert!(operation > 6, "only {operation} operations");
}

#[test]
fn values_accepted_after_a_lost_checkpoint_stay_until_another_checkpoint_has_them() {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    (1..=4).for_each(|slot| journal.commit(&[accept(slot, 2_000)]).unwrap());
    journal.commit(&[truncated(5)]).unwrap();
    drop(journal);
    // The next incarnation starts without a checkpoint, and accepts the same slots again.
    let (mut journal, _) = open_beside(&files, 1).unwrap();
    (1..=4).for_each(|slot| journal.commit(&[accept(slot, 2_000)]).unwrap());
    (0..8).for_each(|round| journal.commit(&vec![promise(round); 60]).unwrap());
    drop(journal);
    let slots = |files: &MemoryFiles| {
        let of = |record: &AcceptorRecord| matches!(record, AcceptorRecord::Accepted(_));
        open_beside(files, 1).unwrap().1.records.iter().filter(|record| of(record)).count()
    };
    assert!(slots(&files) >= 4, "they are in no checkpoint");
    let (mut journal, _) = open_beside(&files, 1).unwrap();
    journal.commit(&[truncated(5)]).unwrap();
    (8..16).for_each(|round| journal.commit(&vec![promise(round); 60]).unwrap());
    drop(journal);
    assert_eq!(slots(&files), 0, "now they are");
}
