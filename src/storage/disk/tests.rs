//! What the disk in memory may lose, and what it must keep.

use std::collections::BTreeSet;

use super::*;

fn file(files: &MemoryFiles, sectors: u64) -> MemoryFile {
    let file = files.create_zeroed("a", sectors * SECTOR_BYTES as u64).unwrap();
    files.sync_dir().unwrap();
    file
}

#[test]
fn synced_bytes_survive_and_each_other_sector_may_be_lost() {
    let mut survived = BTreeSet::new();
    for seed in 0..64 {
        let files = MemoryFiles::new();
        let file = file(&files, 3);
        file.write_at(0, &[1; SECTOR_BYTES]).unwrap();
        file.sync_data().unwrap();
        file.write_at(SECTOR_BYTES as u64, &[2; 2 * SECTOR_BYTES]).unwrap();
        files.power_cut(seed);
        let bytes = files.read("a").unwrap();
        assert!(bytes[..SECTOR_BYTES] == [1; SECTOR_BYTES]);
        for sector in bytes.chunks(SECTOR_BYTES) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is never half old");
        }
        survived.insert((bytes[SECTOR_BYTES] == 2, bytes[2 * SECTOR_BYTES] == 2));
    }
    assert_eq!(survived.len(), 4, "every subset is drawn by some seed");
}

#[test]
fn file_name_is_durable_only_after_its_directory_is_synced() {
    let mut seen = BTreeSet::new();
    for seed in 0..32 {
        let files = MemoryFiles::new();
        files.create_zeroed("a", 1).unwrap();
        files.sync_dir().unwrap();
        files.rename("a", "b").unwrap();
        files.power_cut(seed);
        seen.insert(files.list().unwrap());
    }
    assert_eq!(seen, [vec!["a".to_string()], vec!["b".to_string()]].into(), "complete or not at all");
}

#[test]
fn failed_sync_loses_bytes_that_programs_still_read() {
    let files = MemoryFiles::new();
    let file = file(&files, 1);
    file.write_at(0, &[7; SECTOR_BYTES]).unwrap();
    files.fail(0, InjectedFailure::Once(io::ErrorKind::Other));
    assert!(file.sync_data().is_err());
    assert!(file.sync_data().is_ok(), "at the second sync the kernel has nothing left to write");
    assert_eq!(files.read("a").unwrap(), [7; SECTOR_BYTES]);
    files.power_cut_by(&mut || true);
    assert_eq!(files.read("a").unwrap(), [0; SECTOR_BYTES]);
}

#[test]
fn stopped_machine_does_nothing_and_old_handles_stay_invalid() {
    let files = MemoryFiles::new();
    let file = file(&files, 1);
    files.fail(1, InjectedFailure::Stop);
    file.write_at(0, &[1]).unwrap();
    assert!(file.sync_data().is_err());
    assert!(files.list().is_err());
    files.restart();
    assert_eq!(files.list().unwrap(), ["a"]);
    assert!(file.sync_data().is_err());
}

#[test]
fn a_full_disk_leaves_a_part_of_the_file() {
    let files = MemoryFiles::new();
    files.set_capacity(Some(1_000));
    let error = files.create_zeroed("a", 1_024).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(files.read("a").unwrap().len(), 1_000);
    files.remove("a").unwrap();
    files.create_zeroed("a", 900).unwrap();
}

#[test]
fn replaced_file_is_the_old_or_the_new_one_after_a_crash_at_any_step() {
    let (old, new) = (vec![1; 700], vec![2; 1_300]);
    let mut operation = 0;
    loop {
        let mut replaced = false;
        for seed in 0..32 {
            let files = MemoryFiles::new();
            files.put("a", &old);
            files.fail(operation, InjectedFailure::Stop);
            replaced = replace(&files, "a", &new).is_ok();
            files.power_cut(seed);
            let found = files.read("a").unwrap();
            assert!(found == new || found == old && !replaced, "operation {operation}, seed {seed}");
            replace(&files, "a", &new).unwrap();
            assert_eq!(files.read("a").unwrap(), new);
        }
        if replaced {
            break;
        }
        operation += 1;
    }
    assert!(operation >= 6, "only {operation} steps");
}
