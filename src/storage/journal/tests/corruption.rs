//! A disk that corrupts or loses data, and directories that were changed by hand.

use super::super::sector::VERSION;
use super::*;

/// A journal of three segments and a spare, and the sectors of each commit. Each record has a commit of its own or
/// shares one with a neighbor.
struct Sample {
    image: BTreeMap<String, Vec<u8>>,
    records: Vec<AcceptorRecord>,
    commits: Vec<Commit>,
}

struct Commit {
    file: String,
    /// The byte where it begins.
    offset: usize,
    bytes: usize,
    /// The last of its slots, if it accepts any.
    slot: Option<Slot>,
}

impl Commit {
    fn holds(&self, file: &str, offset: usize) -> bool {
        self.file == file && (self.offset..self.offset + self.bytes).contains(&offset)
    }
}

fn sample() -> Sample {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    let (mut records, mut commits) = (Vec::new(), Vec::new());
    let sizes = [None, Some(30), Some(900), None, Some(40), Some(1_300), None, Some(100), Some(600)];
    for (number, size) in (1..).zip(sizes) {
        let record = size.map_or_else(|| promise(number), |bytes| accept(number, bytes));
        journal.commit(std::slice::from_ref(&record)).unwrap();
        let bytes = journal.sectors.len();
        commits.push(Commit {
            file: file_name(journal.segment()),
            offset: journal.active.next * SECTOR_BYTES - bytes,
            bytes,
            slot: size.map(|_| Slot(number)),
        });
        records.push(record);
    }
    let image = files.image();
    assert_eq!(image.len(), 4);
    assert_eq!(recovered(&files, SMALL), records);
    Sample { image, records, commits }
}

/// Opens the sample with one of its files changed.
fn open_with(sample: &Sample, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<Recovered, OpenError> {
    let files = MemoryFiles::from_image(&sample.image);
    let mut bytes = sample.image[file].clone();
    change(&mut bytes);
    files.put(file, &bytes);
    open(&files, SMALL).map(|(_, back)| back)
}

/// What some records imply. (Not an acceptor: the sample's ballots rise and fall.)
#[derive(Default)]
struct KnownGroups {
    promised: Option<Ballot>,
    accepted: BTreeMap<Slot, Entry>,
    corrupt: Vec<SlotRange>,
}

fn known(records: &[AcceptorRecord]) -> KnownGroups {
    let mut known = KnownGroups::default();
    for record in records {
        match record {
            AcceptorRecord::Promised(ballot) => known.promised = known.promised.max(Some(*ballot)),
            AcceptorRecord::Accepted(entry) => {
                known.promised = known.promised.max(Some(entry.ballot));
                known.accepted.insert(entry.slot, entry.clone());
            }
            AcceptorRecord::Corrupt(range) => known.corrupt.push(*range),
            other => panic!("{other:?}"),
        }
    }
    known
}

/// The records found are all that were written, except those reported as corrupt.
fn assert_all_or_corrupt(found: &[AcceptorRecord], all: &[AcceptorRecord], what: &str) {
    let (found, all) = (known(found), known(all));
    assert_eq!(found.promised, all.promised, "{what}");
    let is_corrupt = |slot: &Slot| found.corrupt.iter().any(|range| range.contains(*slot));
    for (slot, entry) in &all.accepted {
        assert!(is_corrupt(slot) || found.accepted.get(slot) == Some(entry), "{what}: slot {slot}");
    }
    for slot in found.accepted.keys() {
        assert!(is_corrupt(slot) || all.accepted.contains_key(slot), "{what}: slot {slot} was never accepted");
    }
}

#[test]
fn every_flipped_bit_is_reported_with_its_place_and_its_slots() {
    let sample = sample();
    let (mut refused, mut skipped) = (0, 0);
    for (name, bytes) in &sample.image {
        for bit in 0..bytes.len() * 8 {
            let what = format!("{name}, bit {bit}");
            let files = MemoryFiles::from_image(&sample.image);
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            files.put(name, &bytes);
            let result = open(&files, SMALL).map(|(_, back)| back);
            if name == SPARE {
                // The spare holds nothing: it is removed.
                assert_eq!(result.unwrap().records, sample.records);
                continue;
            }
            let sector = bit / 8 / SECTOR_BYTES * SECTOR_BYTES;
            let hit = sample.commits.iter().find(|commit| commit.holds(name, sector)).and_then(|commit| commit.slot);
            match result {
                Err(OpenError::Corrupt(corruption) | OpenError::PromiseLost(corruption)) => {
                    assert_eq!((&corruption.file, corruption.offset), (name, sector as u64), "{what}");
                    let names = |slot: &Slot| corruption.slots.is_some_and(|range| range.contains(*slot));
                    assert!(hit.is_none_or(|slot| names(&slot) || !corruption.slots_complete), "{what}: {corruption}");
                    refused += 1;
                }
                Err(other) => panic!("{what}: {other}"),
                Ok(back) => {
                    let [corruption] = &back.corruption[..] else { panic!("{what}: {:?}", back.corruption) };
                    assert_eq!((&corruption.file, corruption.offset), (name, sector as u64), "{what}");
                    assert_eq!(corruption.slots, hit.map(|slot| SlotRange { first: slot, last: slot }), "{what}");
                    assert_all_or_corrupt(&back.records, &sample.records, &what);
                    // Copying a corrupt file at a start does not make it valid.
                    let again = open(&files, SMALL).unwrap().1;
                    assert_eq!(again.records, back.records, "{what}");
                    skipped += 1;
                }
            }
        }
    }
    assert!(refused > 10_000 && skipped > 10_000, "{refused} refused, {skipped} skipped");
}

#[test]
fn every_cut_of_a_file_is_reported() {
    let sample = sample();
    for (name, bytes) in &sample.image {
        for length in 0..bytes.len() {
            let result = open_with(&sample, name, |bytes| bytes.truncate(length));
            if name == SPARE {
                assert_eq!(result.unwrap().records, sample.records);
            } else {
                let Err(OpenError::Length { file, found, .. }) = &result else {
                    panic!("{name}, {length}: {result:?}")
                };
                assert_eq!((file, *found), (name, length as u64));
            }
        }
    }
}

#[test]
fn unwritten_or_misplaced_sector_is_never_read_as_another_history() {
    let sample = sample();
    let sectors: Vec<(&String, usize)> = sample
        .image
        .iter()
        .flat_map(|(name, bytes)| (0..bytes.len() / SECTOR_BYTES).map(move |n| (name, n * SECTOR_BYTES)))
        .collect();
    let last = sample.commits.last().unwrap();
    for (to, to_offset) in &sectors {
        for (from, from_offset) in &sectors {
            let source = &sample.image[*from][*from_offset..from_offset + SECTOR_BYTES];
            let is_same = *source == sample.image[*to][*to_offset..to_offset + SECTOR_BYTES];
            let result =
                open_with(&sample, to, |bytes| bytes[*to_offset..to_offset + SECTOR_BYTES].copy_from_slice(source));
            match result {
                Ok(back) if back.corruption.is_empty() && back.records == sample.records => {
                    assert!(is_same || *to == SPARE)
                }
                Ok(back) if !back.corruption.is_empty() => {
                    assert_all_or_corrupt(
                        &back.records,
                        &sample.records,
                        &format!("{from}:{from_offset} in {to}:{to_offset}"),
                    );
                }
                // Zeros in the last group are also what a power cut leaves: the two look the same.
                Ok(back) => {
                    assert!(last.holds(to, *to_offset) && source.iter().all(|byte| *byte == 0));
                    assert_eq!(back.records, sample.records[..sample.records.len() - 1]);
                }
                Err(_) => assert!(!is_same && *to != SPARE),
            }
        }
    }
}

#[test]
fn promise_is_reported_lost_if_the_start_of_its_commit_is_lost() {
    // A commit that is larger than a segment: its end alone, in the last segment, does not show what was promised.
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    journal.commit(&[promise(1)]).unwrap();
    journal.commit(&[promise(9), accept(1, 4_000)]).unwrap();
    assert!(journal.segment() > 2, "it begins in one segment and ends in another");
    let begin = file_name(journal.segment() - 1);
    let mut bytes = files.read(&begin).unwrap();
    bytes[FIRST_SECTOR * SECTOR_BYTES + 100] ^= 1;
    files.put(&begin, &bytes);
    let refused = open(&files, SMALL).map(|(_, back)| back);
    assert!(matches!(refused, Err(OpenError::PromiseLost(_))), "{refused:?}");
}

#[test]
fn two_misplaced_sectors_of_a_segment_hide_no_group() {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, 256 << 10).unwrap();
    let records: Vec<_> = (1..=4).map(|slot| accept(slot, 100)).collect();
    records.iter().for_each(|record| journal.commit(std::slice::from_ref(record)).unwrap());
    let file = file_name(journal.segment());
    let whole = files.read(&file).unwrap();
    let places = FIRST_SECTOR..FIRST_SECTOR + 4;
    let stray = |bytes: &mut Vec<u8>, from: usize, to: usize| {
        bytes.copy_within(from * SECTOR_BYTES..(from + 1) * SECTOR_BYTES, to * SECTOR_BYTES);
    };
    for (one, other) in places.clone().flat_map(|one| places.clone().map(move |other| (one, other))) {
        for (from, to) in places.clone().flat_map(|from| places.clone().map(move |to| (from, to))) {
            let mut bytes = whole.clone();
            stray(&mut bytes, one, other);
            stray(&mut bytes, from, to);
            // The sector's original place may be empty.
            if from != to && from + 1 != places.end {
                bytes[from * SECTOR_BYTES..(from + 1) * SECTOR_BYTES].fill(0);
            }
            files.put(&file, &bytes);
            if let Ok((_, back)) = open(&files.fork(), 256 << 10) {
                assert_all_or_corrupt(&back.records, &records, &format!("{one} in {other}, {from} in {to}"));
            }
        }
    }
}

#[test]
fn groups_missing_at_the_end_of_a_full_segment_are_corruption() {
    // This would be a torn tail in the last segment; a file in the middle was synced before the next one began.
    let sample = sample();
    for number in 5..=8 {
        let commit = &sample.commits[number - 1];
        for gone in (commit.offset..commit.offset + commit.bytes).step_by(SECTOR_BYTES) {
            let result = open_with(&sample, &commit.file, |bytes| bytes[gone..].fill(0));
            let corruption = match result {
                Ok(back) => {
                    assert_all_or_corrupt(&back.records, &sample.records, &format!("{number}, {gone}"));
                    back.corruption[0].clone()
                }
                Err(OpenError::Corrupt(corruption)) => corruption,
                Err(other) => panic!("{number}: {other}"),
            };
            assert_eq!((&corruption.file, corruption.offset), (&commit.file, gone as u64));
            let last = corruption.slots.map(|range| range.last);
            assert_eq!(last, Some(Slot(8)), "the seal still names the last group: {corruption}");
        }
    }
}

#[test]
fn sector_of_another_segment_or_server_is_corruption_even_in_its_place() {
    let first_group = |owner: u64, segment: u32, round: u64| {
        let files = MemoryFiles::new();
        let options = JournalOptions { owner, ..options(SMALL) };
        for _ in 1..segment {
            drop(TestJournal::open(files.clone(), options).unwrap());
        }
        let (mut journal, _) = TestJournal::open(files.clone(), options).unwrap();
        journal.commit(&[promise(round)]).unwrap();
        assert_eq!(journal.segment(), segment);
        files
    };
    let whole = first_group(OWNER, 2, 1);
    let group = 2 * SECTOR_BYTES..3 * SECTOR_BYTES;
    for (owner, segment, is_own) in [(OWNER, 2, true), (OWNER, 1, false), (OWNER + 1, 2, false)] {
        let other = first_group(owner, segment, 7).read(&file_name(segment)).unwrap();
        let files = whole.fork();
        let mut bytes = files.read(&file_name(2)).unwrap();
        bytes[group.clone()].copy_from_slice(&other[group.clone()]);
        files.put(&file_name(2), &bytes);
        match open(&files, SMALL) {
            Ok((_, back)) => assert!(is_own && back.records == [promise(7)]),
            Err(error) => {
                assert!(!is_own && matches!(error, OpenError::Corrupt(_) | OpenError::PromiseLost(_)), "{error}")
            }
        }
    }
}

#[test]
fn segments_from_different_times_are_refused() {
    // The same server, the same numbers: a directory restored from a copy, with files of its later incarnation.
    let incarnation = |records: &[AcceptorRecord]| {
        let files = MemoryFiles::new();
        let (mut journal, _) = open(&files, SMALL).unwrap();
        records.iter().for_each(|record| journal.commit(std::slice::from_ref(record)).unwrap());
        files
    };
    let one = incarnation(&[accept(1, 2_000), accept(2, 2_000)]);
    let other = incarnation(&[promise(1), accept(1, 2_000), accept(2, 2_000)]);
    assert_eq!(segments_of(&one), segments_of(&other));
    one.put(&file_name(2), &other.read(&file_name(2)).unwrap());
    let error = open(&one, SMALL).unwrap_err();
    assert!(matches!(error, OpenError::Gap { found: 3, expected: 2, .. }), "{error}");
}

#[test]
fn corrupt_slots_are_named_as_far_as_intact_sectors_name_them() {
    let sample = sample();
    let sentence = |numbers: &[usize]| {
        let commits: Vec<&Commit> = numbers.iter().map(|number| &sample.commits[number - 1]).collect();
        assert!(commits.iter().all(|commit| commit.file == commits[0].file));
        let result = open_with(&sample, &commits[0].file, |bytes| {
            commits.iter().for_each(|commit| bytes[commit.offset] ^= 1);
        });
        match result {
            Ok(back) => back.corruption[0].to_string(),
            Err(OpenError::Corrupt(corruption)) => corruption.to_string(),
            Err(other) => panic!("{other}"),
        }
    };
    let place = "journal file 0000000001.journal is corrupt at byte 1024: ";
    assert_eq!(sentence(&[1]), format!("{place}it affects promises and no slot"));
    let place = "journal file 0000000001.journal is corrupt at byte 1536: ";
    assert_eq!(sentence(&[2]), format!("{place}it affects slot 2"));
    assert_eq!(sentence(&[2, 3]), format!("{place}it affects slots 2 to 3"));
    // The seal names the last group of a full segment.
    let place = "journal file 0000000002.journal is corrupt at byte 3584: ";
    assert_eq!(sentence(&[8]), format!("{place}it affects slot 8"));
    // If both are lost and each is one sector, nothing names the one before it.
    let place = "journal file 0000000002.journal is corrupt at byte 3072: ";
    let expected = format!("{place}it affects slot 8, and perhaps other slots that no intact sector names");
    assert_eq!(sentence(&[7, 8]), expected);
}

#[test]
fn corrupt_last_group_has_unknown_slots() {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    journal.commit(&[accept(1, 30)]).unwrap();
    let mut bytes = files.read(&file_name(1)).unwrap();
    bytes[2 * SECTOR_BYTES + 60] ^= 4;
    files.put(&file_name(1), &bytes);
    let before = files.image();
    let error = open(&files, SMALL).unwrap_err().to_string();
    let start = "journal file 0000000001.journal is corrupt at byte 1024: the affected slots are unknown. ";
    assert!(error.starts_with(start), "{error}");
    assert_eq!(files.image(), before, "a journal that is refused is left as it is");
}

#[test]
fn missing_segment_is_detected_at_any_position() {
    let sample = sample();
    let without = |gone: &[u32]| {
        let mut image = sample.image.clone();
        gone.iter().for_each(|number| drop(image.remove(&file_name(*number))));
        open(&MemoryFiles::from_image(&image), SMALL).unwrap_err()
    };
    for (gone, missing) in [(&[1][..], 1), (&[2], 2), (&[1, 2], 1)] {
        let error = without(gone);
        assert!(matches!(&error, OpenError::MissingSegment { file, .. } if *file == file_name(missing)), "{error}");
    }
    for gone in [&[3][..], &[2, 3]] {
        let error = without(gone);
        let last = file_name(gone[0] - 1);
        assert!(matches!(&error, OpenError::EndMissing { file } if *file == last), "{error}");
    }
    let mut image = sample.image.clone();
    image.retain(|name, _| name == SPARE);
    let must_exist = JournalOptions { must_exist: true, ..options(SMALL) };
    let error = TestJournal::open(MemoryFiles::from_image(&image), must_exist).unwrap_err();
    assert!(matches!(error, OpenError::Missing), "{error}");
}

#[test]
fn missing_end_is_detected_after_a_restart_too() {
    // The last segment was replaced by a new one, and the power failed between naming a segment and sealing the
    // previous one.
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    journal.commit(&[accept(1, 2_000)]).unwrap();
    // Write, sync, rename, sync the directory; the next step would write the seal.
    files.fail(4, InjectedFailure::Stop);
    assert!(journal.commit(&[accept(2, 2_000)]).is_err());
    files.power_cut_by(&mut || false);
    assert_eq!(segments_of(&files), [file_name(1), file_name(2)]);
    let (mut journal, back) = open(&files, SMALL).unwrap();
    assert_eq!(back.records, [accept(1, 2_000)]);
    journal.commit(&[promise(1)]).unwrap();
    files.remove(&file_name(journal.segment())).unwrap();
    let error = open(&files, SMALL).unwrap_err();
    assert!(matches!(&error, OpenError::EndMissing { file } if *file == file_name(1)), "{error}");
}

#[test]
fn unknown_files_are_refused_by_name() {
    let sample = sample();
    let with = |name: &str, bytes: &[u8]| {
        let mut image = sample.image.clone();
        image.insert(name.to_string(), bytes.to_vec());
        open(&MemoryFiles::from_image(&image), SMALL).unwrap_err()
    };
    let first = &sample.image[&file_name(1)];
    for name in ["notes.txt", "1.journal", "0000000000.journal", "4294967295.journal", "00000000010.journal"] {
        let error = with(name, first);
        assert!(matches!(&error, OpenError::UnknownFile { file } if file == name), "{error}");
    }
    let error = with(&file_name(9), first);
    assert!(matches!(error, OpenError::Misnamed { segment: 1, .. }), "{error}");
    let error = with(&file_name(9), &[b'x'; SMALL as usize]);
    assert!(error.to_string().contains("it never was a journal file"), "{error}");
    let error = with(&file_name(9), b"");
    assert!(matches!(error, OpenError::Length { found: 0, .. }), "{error}");

    let options = JournalOptions { owner: 1, ..options(SMALL) };
    let error = TestJournal::open(MemoryFiles::from_image(&sample.image), options).unwrap_err();
    assert!(matches!(error, OpenError::WrongStorage { found: OWNER, expected: 1, .. }), "{error}");
    let others = MemoryFiles::new();
    drop(TestJournal::open(others.clone(), options).unwrap());
    let error = with(&file_name(2), &others.read(&file_name(1)).unwrap());
    assert!(matches!(error, OpenError::WrongStorage { found: 1, expected: OWNER, .. }), "{error}");
}

#[test]
fn an_old_copy_of_a_file_is_refused() {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    journal.commit(&[accept(1, 2_000)]).unwrap();
    let old = files.read(&file_name(1)).unwrap();
    journal.commit(&[accept(2, 2_000)]).unwrap();
    let replaced = files.read(&file_name(2)).unwrap();
    drop(open(&files, SMALL).unwrap());

    // The first segment from before it was sealed: later segments show that it was sealed.
    let aged = files.fork();
    aged.put(&file_name(1), &old);
    let (mut journal, _) = open(&files, SMALL).unwrap();
    journal.commit(&[accept(3, 2_000)]).unwrap();
    let error = open(&aged, SMALL).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt(Corruption { part: CorruptRegion::Seal, .. })), "{error}");

    // A replaced segment: another one has taken its place.
    files.put(&file_name(2), &replaced);
    let error = open(&files, SMALL).unwrap_err();
    assert!(matches!(&error, OpenError::UnexpectedSegment { file, .. } if *file == file_name(2)), "{error}");
}

#[test]
fn a_journal_of_another_format_is_refused() {
    let sample = sample();
    let result = open_with(&sample, &file_name(3), |bytes| {
        let header = Header::read(&bytes[..SECTOR_BYTES]).unwrap();
        bytes[..SECTOR_BYTES].copy_from_slice(&Header { version: 1, ..header }.write());
    });
    assert!(matches!(result, Err(OpenError::Version { found: 1, known: VERSION, .. })), "{result:?}");
}

#[test]
fn unreadable_disk_is_reported_with_the_file_name() {
    let files = MemoryFiles::new();
    drop(open(&files, SMALL).unwrap());
    files.fail(0, InjectedFailure::Stop);
    assert!(files.sync_dir().is_err());
    let error = open(&files, SMALL).unwrap_err();
    assert!(matches!(error, OpenError::Io { action: "list", .. }), "{error}");
}

#[test]
fn valid_checksum_does_not_make_an_impossible_number_valid() {
    let sample = sample();
    let names: Vec<&String> = sample.image.keys().filter(|name| *name != SPARE).collect();
    let number = |name: &str| segment_number(name).unwrap();
    for name in names {
        // The header's first group, and that of the oldest segment.
        for at in [40, 88] {
            for wrong in [0, u64::MAX] {
                let opened = open_with(&sample, name, |bytes| {
                    bytes[at..at + 8].copy_from_slice(&wrong.to_le_bytes());
                    Seed::HEADER.close(&mut bytes[..SECTOR_BYTES]);
                });
                // Everything in the header of an earlier segment is also known from other sectors.
                assert!(opened.is_err() || opened.unwrap().corruption.len() == 1, "{name} at {at}");
            }
        }
        let opened = open_with(&sample, name, |bytes| {
            let group = &mut bytes[FIRST_SECTOR * SECTOR_BYTES..][..SECTOR_BYTES];
            group[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
            Seed::new(OWNER, number(name)).at(FIRST_SECTOR).close(group);
        });
        assert!(opened.is_err() || !opened.unwrap().corruption.is_empty(), "{name}");
    }
}

#[test]
fn record_of_corrupt_slots_is_never_read() {
    let files = MemoryFiles::new();
    let (mut journal, _) = open(&files, SMALL).unwrap();
    let range = SlotRange { first: Slot(3), last: Slot(4) };
    journal.commit(&[AcceptorRecord::Corrupt(range)]).unwrap();
    assert!(matches!(open(&files, SMALL), Err(OpenError::Unreadable { .. })));
}
