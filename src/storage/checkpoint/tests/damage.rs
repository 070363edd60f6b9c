//! Damage: each changed bit, cut and missing file is found and named.

use super::merging::due_to_merge;
use super::*;
use crate::kv::VersionedValue;
use crate::storage::checkpoint::run::{BLOCK_HEAD_BYTES, FORMAT, HEADER_BYTES};

/// A checkpoint of several runs, one of which is merged.
fn several_runs() -> (Work, Vec<String>) {
    let (mut work, mut checkpoint) = due_to_merge(OPTIONS);
    merge_all(&mut checkpoint).unwrap();
    for _ in 0..2 {
        work.apply(9);
        work.write(&mut checkpoint).unwrap();
    }
    let names: Vec<String> = work.files.list().unwrap();
    assert!(names.len() == 3 && checkpoint.runs.len() == 3, "{names:?}");
    (work, names)
}

#[test]
fn every_flipped_bit_of_every_file_is_found_and_named() {
    let (work, names) = several_runs();
    for name in &names {
        let bits = work.files.read(name).unwrap().len() * 8;
        for bit in 0..bits {
            work.files.flip_bit(name, bit);
            let error = work.open().map(drop).unwrap_err();
            let is_found = matches!(&error, CheckpointError::Corrupt { file, .. } if file == name);
            assert!(is_found && error.to_string().contains(name), "{name}, bit {bit} of {bits}: {error}");
            work.files.flip_bit(name, bit);
        }
    }
    work.open().unwrap();
}

#[test]
fn every_cut_and_every_missing_file_is_found_and_named() {
    let (work, names) = several_runs();
    let is_found =
        |error: CheckpointError, name: &str| matches!(&error, CheckpointError::Corrupt { file, .. } if file == name);
    for name in &names {
        let whole = work.files.read(name).unwrap();
        for length in 0..whole.len() {
            work.files.put(name, &whole[..length]);
            let error = work.open().map(drop).unwrap_err();
            assert!(is_found(error, name), "{name}, {length} bytes");
        }
        work.files.put(name, &[&whole[..], b"x"].concat());
        assert!(is_found(work.open().map(drop).unwrap_err(), name), "{name} and another byte");
        work.files.put(name, &vec![b'x'; 5_000]);
        assert!(is_found(work.open().map(drop).unwrap_err(), name), "{name} with other bytes");
        // One file in place of another.
        for other in names.iter().filter(|other| *other != name) {
            work.files.put(name, &work.files.read(other).unwrap());
            assert!(is_found(work.open().map(drop).unwrap_err(), name), "{other} as {name}");
        }
        work.files.put(name, &whole);
    }
    for name in &names[..2] {
        let files = work.files.fork();
        files.remove(name).unwrap();
        let error = open(&files).map(drop).unwrap_err();
        assert!(is_found(error, name), "{name} is missing");
    }
    // Nothing names the newest file: the acceptor notices that slots are missing which it has truncated.
    work.files.remove(&names[2]).unwrap();
    let (checkpoint, back) = work.open().unwrap();
    assert!(checkpoint.mark().slot < work.mark().slot && back.digest() == checkpoint.mark().digest);
}

#[test]
fn block_in_the_place_of_another_one_is_found_by_its_checksum() {
    let entry = VersionedValue { value: Some(vec![7; 50].into()), version: 1 };
    let piece = |n: u32| StateEntry::Key { key: format!("{n:04}").into(), entry: entry.clone() };
    let (files, mut kv) = (MemoryFiles::new(), Kv::default());
    kv.put_pieces((0..60).map(piece).collect());
    let (mut checkpoint, _) = open(&files).unwrap();
    checkpoint.write(CheckpointMeta { slot: Slot(1), digest: kv.digest() }, &kv.whole()).unwrap();
    let run = &checkpoint.runs[0];
    let [first, second] = [0, 1].map(|number| run.read_block(number, Vec::new()).unwrap());
    assert!(run.blocks() > 3 && first.len() == second.len() && first != second);
    let mut bytes = files.read(&run.name).unwrap();
    let place_of_second = HEADER_BYTES + BLOCK_HEAD_BYTES + first.len();
    bytes.copy_within(HEADER_BYTES..place_of_second, place_of_second);
    files.put(&run.name, &bytes);
    let error = open(&files).map(drop).unwrap_err();
    assert!(error.to_string().contains(&format!("its block at byte {place_of_second} is wrong")), "{error}");
}

#[test]
fn files_that_overlap_are_corrupt() {
    let span = |first, last| Span { first, last };
    let current = |spans: &[Span]| current_spans(spans).map_err(|error| error.to_string());
    // What a merge has left behind is inside the range of its result.
    let (merged, newer) = (span(1, 4), span(5, 5));
    assert_eq!(current(&[newer, span(1, 1), span(2, 4), merged, span(3, 3)]), Ok(vec![merged, newer]));
    assert_eq!(current(&[]), Ok(vec![]));
    let error = current(&[merged, span(3, 6)]).unwrap_err();
    assert!(error.contains(&span(3, 6).name()) && error.contains("overlaps"), "{error}");
    let error = current(&[merged, span(7, 7)]).unwrap_err();
    assert!(error.contains(&span(5, 6).name()) && error.contains("missing"), "{error}");
}

#[test]
fn wrong_digest_is_corrupt_although_all_checksums_are_right() {
    let mut work = Work::new();
    let (mut checkpoint, _) = work.open().unwrap();
    work.apply(30);
    let changes = work.kv.take_delta();
    let mark = CheckpointMeta { digest: work.kv.digest() ^ 1, ..work.mark() };
    checkpoint.write(mark, &changes).unwrap();
    let error = work.open().map(drop).unwrap_err();
    assert!(matches!(&error, CheckpointError::Corrupt { file, .. } if file.contains("0000000001")), "{error}");
}

#[test]
fn quarantine_is_never_taken_for_an_older_state() {
    let (work, names) = several_runs();
    work.files.flip_bit(&names[1], 5_000);
    for operation in 0..12 {
        for seed in 0..6 {
            let files = work.files.fork();
            files.fail(operation, InjectedFailure::Stop);
            let done = quarantine(&files).is_ok();
            files.power_cut(operation * 100 + seed);
            match open(&files) {
                Ok((checkpoint, _)) => assert_eq!(checkpoint.mark().slot, Slot(0), "operation {operation}"),
                Err(CheckpointError::Corrupt { .. }) => assert!(!done, "operation {operation}"),
                Err(error) => panic!("{error}"),
            }
            quarantine(&files).unwrap();
            let (mut checkpoint, empty) = open(&files).unwrap();
            assert_eq!((checkpoint.mark().slot, empty.digest()), (Slot(0), Kv::default().digest()));
            let kept = files.list().unwrap().iter().filter(|name| name.ends_with(QUARANTINED)).count();
            assert!(kept > 0, "files are kept for inspection");
            let mark = CheckpointMeta { slot: Slot(1), digest: empty.digest() };
            checkpoint.write(mark, &Kv::default().take_delta()).unwrap();
        }
    }
}

#[test]
fn quarantine_that_continues_after_a_crash_keeps_what_it_has_already_renamed() {
    let (work, names) = several_runs();
    let quarantined = |names: &[String]| names.iter().map(|name| format!("{name}{QUARANTINED}")).collect::<Vec<_>>();
    // The second rename.
    work.files.fail(2, InjectedFailure::Once(io::ErrorKind::Other));
    quarantine(&work.files).unwrap_err();
    assert_eq!(work.files.list().unwrap(), [&quarantined(&names[..1]), &names[1..]].concat());
    quarantine(&work.files).unwrap();
    assert_eq!(work.files.list().unwrap(), quarantined(&names));
    // A later quarantine replaces it.
    let (mut checkpoint, empty) = work.open().unwrap();
    let mark = CheckpointMeta { slot: Slot(1), digest: empty.digest() };
    checkpoint.write(mark, &Kv::default().take_delta()).unwrap();
    quarantine(&work.files).unwrap();
    assert_eq!(work.files.list().unwrap(), quarantined(&[Span { first: 1, last: 1 }.name()]));
}

#[test]
fn names_that_no_checkpoint_gives_are_no_runs() {
    let name = |first, last| Span { first, last }.name();
    for (first, last, is_run) in
        [(1, 1, true), (3, 7, true), (1, u64::MAX - 1, true), (0, 1, false), (2, 1, false), (1, u64::MAX, false)]
    {
        assert_eq!(Span::parse(&name(first, last)).is_some(), is_run, "{}", name(first, last));
    }
    for other in ["1-1.run", "0000000001-0000000001.run.quarantined", "+000000001-0000000001.run"] {
        assert_eq!(Span::parse(other), None, "{other}");
    }
}

#[test]
fn the_file_of_another_server_and_of_another_format_is_refused() {
    let mut work = Work::new();
    let (mut checkpoint, _) = work.open().unwrap();
    work.apply(10);
    work.write(&mut checkpoint).unwrap();
    drop(checkpoint);
    let options = CheckpointOptions { owner: 1, ..OPTIONS };
    let error = Checkpoint::open(work.files.clone(), options, Kv::default()).unwrap_err();
    assert!(matches!(error, CheckpointError::Foreign { found: OWNER, expected: 1, .. }), "{error}");
    let name = "0000000001-0000000001.run";
    let mut bytes = work.files.read(name).unwrap();
    bytes[12] += 1;
    let checksum = crc32c::crc32c(&bytes[4..HEADER_BYTES]);
    bytes[..4].copy_from_slice(&checksum.to_le_bytes());
    work.files.put(name, &bytes);
    let error = work.open().map(drop).unwrap_err();
    assert!(matches!(&error, CheckpointError::Format { file, found } if file == name && *found == FORMAT + 1));
}
