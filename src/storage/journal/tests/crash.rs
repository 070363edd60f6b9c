//! Crashes at every step, and at random.

use proptest::prelude::*;

use super::*;

/// The records that a program had written and the number acknowledged when it crashed.
#[derive(Default)]
struct WrittenRecords {
    written: Vec<AcceptorRecord>,
    acknowledged: usize,
}

impl WrittenRecords {
    /// The journal returns everything that was acknowledged, and a prefix of the rest.
    fn assert_told_by(&self, records: &[AcceptorRecord], what: &dyn std::fmt::Debug) {
        assert!(records.len() >= self.acknowledged, "{what:?}: {} of {} back", records.len(), self.acknowledged);
        assert!(self.written.starts_with(records), "{what:?}: another history");
    }

    fn commit(
        &mut self,
        journal: &mut TestJournal<MemoryFiles>,
        records: &[AcceptorRecord],
    ) -> Result<(), JournalError> {
        self.written.extend_from_slice(records);
        journal.commit(records)?;
        self.acknowledged = self.written.len();
        Ok(())
    }
}

/// Two incarnations of commits: small ones, one that needs the next segment, and one larger than a segment. Ends at the
/// first error.
fn run(files: &MemoryFiles, written_records: &mut WrittenRecords) -> bool {
    let mut number = 0;
    let mut some = |count| {
        number += count;
        (number - count..number).map(record).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        let Ok((mut journal, back)) = open(files, SMALL) else { return false };
        assert_eq!(back.records, written_records.written);
        for count in [1, 3, 1, 12, 2] {
            if written_records.commit(&mut journal, &some(count)).is_err() {
                return false;
            }
        }
    }
    true
}

fn check_from(
    files: &MemoryFiles,
    written_records: &WrittenRecords,
    what: &dyn std::fmt::Debug,
) -> Vec<AcceptorRecord> {
    let (mut journal, back) = open(files, SMALL).unwrap_or_else(|error| panic!("{what:?}: {error}"));
    written_records.assert_told_by(&back.records, what);
    // The journal continues from there, and a second opening returns the same records.
    let next = accept(1_000, 600);
    journal.commit(std::slice::from_ref(&next)).unwrap();
    let mut expected = back.records.clone();
    expected.push(next);
    assert_eq!(recovered(files, SMALL), expected, "{what:?}");
    back.records
}

#[test]
fn crash_at_any_step_keeps_every_acknowledged_record() {
    let mut operation = 0;
    loop {
        let files = MemoryFiles::new();
        files.fail(operation, InjectedFailure::Stop);
        let mut written_records = WrittenRecords::default();
        if run(&files, &mut written_records) {
            break;
        }
        let killed = files.fork();
        killed.restart();
        check_from(&killed, &written_records, &(operation, "killed"));
        for seed in 0..12 {
            let cut = files.fork();
            cut.power_cut(seed);
            check_from(&cut, &written_records, &(operation, seed));
        }
        operation += 1;
    }
    assert!(operation > 60, "only {operation} steps");
}

/// An earlier bug: a failed sync left the seal of a full segment readable and not durable. The process stopped, as it
/// must. The next one read the seal and continued after it, and after a power cut the segment had no end.
#[test]
fn error_at_any_step_and_a_later_power_cut_keep_every_acknowledged_record() {
    let mut operation = 0;
    loop {
        let files = MemoryFiles::new();
        files.fail(operation, InjectedFailure::Once(io::ErrorKind::Other));
        let mut written_records = WrittenRecords::default();
        let done = run(&files, &mut written_records);
        files.restart();
        let back = check_from(&files, &written_records, &operation);
        files.power_cut_by(&mut || false);
        let after = recovered(&files, SMALL);
        assert!(after.starts_with(&back) && after.len() == back.len() + 1, "operation {operation}");
        if done && files.counts().total() < operation {
            break;
        }
        operation += 1;
    }
    assert!(operation > 60, "only {operation} steps");
}

#[test]
fn a_crash_at_any_step_of_recovery_changes_nothing() {
    let mut recoveries = 0;
    for operation in 0..200 {
        let files = MemoryFiles::new();
        files.fail(operation, InjectedFailure::Stop);
        let mut written_records = WrittenRecords::default();
        if run(&files, &mut written_records) {
            break;
        }
        for seed in 0..3 {
            let cut = files.fork();
            if seed == 0 {
                cut.restart()
            } else {
                cut.power_cut(seed)
            }
            let there = recovered(&cut, SMALL);
            for step in 0.. {
                let again = cut.fork();
                again.fail(step, InjectedFailure::Stop);
                let is_done = open(&again, SMALL).is_ok() && again.list().is_ok();
                let what = (operation, seed, step);
                let killed = again.fork();
                killed.restart();
                assert_eq!(recovered(&killed, SMALL), there, "{what:?}");
                for seed in 0..3 {
                    let cut = again.fork();
                    cut.power_cut(seed);
                    let found = check_from(&cut, &written_records, &what);
                    // What was durable at the first crash cannot shrink; the rest may, until an opening has completed.
                    assert!(found == there || !is_done && what.1 == 0, "{what:?}");
                }
                recoveries += 1;
                if is_done {
                    break;
                }
            }
        }
    }
    assert!(recoveries > 1_000, "only {recoveries} recoveries");
}

#[test]
fn every_subset_of_a_groups_sectors_is_cut_unless_it_is_all_of_them() {
    let synced = [promise(1), accept(1, 900)];
    let last = [accept(2, 3_000), promise(2)];
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, 16 << 10).unwrap();
    journal.commit(&synced).unwrap();
    files.sync_dir().unwrap();
    files.fail(1, InjectedFailure::Stop);
    assert!(journal.commit(&last).is_err());
    let sectors = GroupHeader::sectors_of(3_060);
    for kept in 0..1_u32 << sectors {
        let cut = files.fork();
        let mut choice = 0;
        cut.power_cut_by(&mut || {
            choice += 1;
            kept & (1 << (choice - 1)) != 0
        });
        assert_eq!(choice, sectors, "one choice a sector");
        let (_, back) = open(&cut, 16 << 10).unwrap();
        let is_whole = kept == (1 << sectors) - 1;
        assert_eq!(back.torn_tail_cut, kept != 0 && !is_whole, "{kept:b}");
        let expected = if is_whole { [&synced[..], &last[..]].concat() } else { synced.to_vec() };
        assert_eq!(back.records, expected, "{kept:b}");
        assert!(!open(&cut, 16 << 10).unwrap().1.torn_tail_cut, "the cut records are gone");
    }
}

#[test]
fn split_commit_is_recovered_completely_or_not_at_all() {
    let mut seen = [false; 2];
    for operation in 0..60 {
        let files = MemoryFiles::new();
        let (mut journal, _) = open(&files, SMALL).unwrap();
        journal.commit(&[promise(1)]).unwrap();
        files.fail(operation, InjectedFailure::Stop);
        let large = [accept(1, 2_500), accept(2, 2_500), accept(3, 2_500)];
        let is_done = journal.commit(&large).is_ok();
        files.power_cut(operation);
        let (mut journal, back) = open(&files, SMALL).unwrap();
        assert!(back.records.len() == 4 || back.records.len() == 1 && !is_done, "operation {operation}");
        seen[usize::from(back.records.len() == 4)] = true;
        // The start of a commit that never ended remains; the next commit is not read as its end.
        journal.commit(&[promise(2)]).unwrap();
        let expected = [&back.records[..], &[promise(2)]].concat();
        assert_eq!(recovered(&files, SMALL), expected, "operation {operation}");
    }
    assert_eq!(seen, [true; 2]);
}

/// An event in the history of a journal, at random.
#[derive(Clone, Debug)]
enum CrashStep {
    Commit(Vec<usize>),
    /// The power fails in the middle of a later operation.
    CrashLater {
        operation: u64,
        seed: u64,
    },
    Kill,
    PowerCut(u64),
}

fn steps() -> impl Strategy<Value = Vec<CrashStep>> {
    let size = prop_oneof![4 => 0..200_usize, 2 => 200..2_000_usize, 1 => 2_000..9_000_usize];
    let step = prop_oneof![
        6 => prop::collection::vec(size, 1..8).prop_map(CrashStep::Commit),
        1 => (0..12_u64, any::<u64>()).prop_map(|(operation, seed)| CrashStep::CrashLater { operation, seed }),
        1 => Just(CrashStep::Kill),
        1 => any::<u64>().prop_map(CrashStep::PowerCut),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn random_incarnations_keep_every_acknowledged_record(steps in steps(), sectors in 4..40_u64) {
        let files = MemoryFiles::new();
        let segment_bytes = sectors * SECTOR_BYTES as u64;
        let mut journal = Some(open(&files, segment_bytes).unwrap().0);
        let mut written_records = WrittenRecords::default();
        let mut number = 0;
        let mut crash_seed = 0;
        for step in steps {
            let mut is_down = false;
            match step {
                CrashStep::Commit(sizes) => {
                    let records: Vec<_> = sizes
                        .into_iter()
                        .map(|size| {
                            number += 1;
                            if size % 4 == 0 { promise(number) } else { accept(number, size) }
                        })
                        .collect();
                    if let Some(journal) = &mut journal {
                        is_down = written_records.commit(journal, &records).is_err();
                    }
                    // A spare that could not be made is no error; the machine has stopped all the same.
                    is_down |= files.list().is_err();
                    if is_down {
                        files.power_cut(crash_seed);
                    }
                }
                CrashStep::CrashLater { operation, seed } => {
                    crash_seed = seed;
                    files.fail(operation, InjectedFailure::Stop);
                }
                CrashStep::Kill => {
                    files.restart();
                    is_down = true;
                }
                CrashStep::PowerCut(seed) => {
                    files.power_cut(seed);
                    is_down = true;
                }
            }
            if is_down {
                drop(journal.take());
                let (next, back) = open(&files, segment_bytes).unwrap();
                written_records.assert_told_by(&back.records, &"random");
                written_records.acknowledged = back.records.len();
                written_records.written = back.records;
                journal = Some(next);
            }
        }
        drop(journal);
        files.restart();
        written_records.assert_told_by(&recovered(&files, segment_bytes), &"at the end");
    }
}
