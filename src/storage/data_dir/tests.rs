//! Data directories on a real disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::dir_storage::DISCARDED_DIR;
use super::*;
use crate::paxos::{AcceptorRecord, Ballot, ProposerRecord, Quorums};
use crate::role::{ServerSet, StableStore};
use crate::storage::ballot_store::BallotStoreError;

const SEGMENT_BYTES: u64 = 256 << 10;
const SERVER: ServerId = ServerId(2);

fn dir() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data").join("server-2");
    (root, path)
}

fn owner(cluster: &str, server: ServerId) -> Owner<'_> {
    Owner { cluster, quorums: Quorums::majority(ServerSet::first(5)), server }
}

fn open(path: &Path) -> DataDir {
    DataDir::open(path, owner("lab", SERVER)).unwrap()
}

fn promise(round: u64) -> AcceptorRecord {
    AcceptorRecord::Promised(Ballot { round, server: ServerId(1) })
}

#[test]
fn new_data_dir_is_private_and_its_incarnations_are_counted() {
    let (_root, path) = dir();
    let data_dir = open(&path);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    let storage = data_dir.storage_id();
    assert_eq!((data_dir.incarnation(), data_dir.next_role_incarnation().unwrap()), (1, 1));
    data_dir.bind_peer(ServerId(4), 9).unwrap();
    drop(data_dir);
    let data_dir = open(&path);
    assert_eq!(
        (data_dir.incarnation(), data_dir.storage_id(), data_dir.recorded_peer(ServerId(4)).unwrap().storage),
        (2, storage, 9)
    );
}

#[test]
fn two_data_dirs_never_share_a_storage_id() {
    let (_root, one) = dir();
    let (_other_root, other) = dir();
    assert_ne!(open(&one).storage_id(), open(&other).storage_id());
}

#[test]
fn second_server_on_a_data_dir_is_refused_until_the_first_has_stopped() {
    let (_root, path) = dir();
    let first = open(&path);
    let error = DataDir::open(&path, owner("lab", SERVER)).unwrap_err().to_string();
    assert!(error.starts_with(&format!("data directory {} is in use by another process", path.display())), "{error}");
    drop(first);
    open(&path);
}

#[test]
fn data_dir_of_another_cluster_or_server_is_refused_and_left_unchanged() {
    let (_root, path) = dir();
    drop(open(&path));
    let before = fs::read(path.join(IDENTITY_FILE)).unwrap();
    for (cluster, server) in [("home", SERVER), ("lab", ServerId(3))] {
        let error = DataDir::open(&path, owner(cluster, server)).unwrap_err();
        assert!(matches!(error, DataDirError::Identity { .. }), "{error}");
        assert!(error.to_string().contains("it belongs to"), "{error}");
    }
    assert_eq!(fs::read(path.join(IDENTITY_FILE)).unwrap(), before);
}

#[test]
fn directory_with_other_files_is_refused() {
    let (root, path) = dir();
    fs::write(root.path().join("photo.jpg"), "x").unwrap();
    let error = DataDir::open(root.path(), owner("lab", SERVER)).unwrap_err();
    assert!(matches!(&error, DataDirError::NotADataDir { holds, .. } if holds == "photo.jpg"), "{error}");
    drop(open(&path).open_journal::<AcceptorRecord>(SEGMENT_BYTES).unwrap());
    fs::remove_file(path.join(IDENTITY_FILE)).unwrap();
    let error = DataDir::open(&path, owner("lab", SERVER)).unwrap_err();
    assert!(matches!(error, DataDirError::NotADataDir { .. }), "{error}");
}

#[test]
fn root_of_a_file_system_can_be_a_data_dir() {
    let (_root, path) = dir();
    fs::create_dir_all(path.join("lost+found")).unwrap();
    check(&path).unwrap();
    drop(open(&path));
    open(&path);
}

fn check(path: &Path) -> Result<(), String> {
    DataDir::check(path, owner("lab", SERVER), Family::Paxos).map_err(|error| error.to_string())
}

/// All files and directories below a directory, and when they were changed.
fn image(path: &Path) -> Vec<(PathBuf, std::time::SystemTime)> {
    let below = |entry: io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let below = if path.is_dir() { image(&path) } else { Vec::new() };
        below.into_iter().chain([(path.clone(), fs::metadata(&path).unwrap().modified().unwrap())])
    };
    let mut all: Vec<_> = fs::read_dir(path).unwrap().flat_map(below).collect();
    all.sort();
    all
}

#[test]
fn check_reports_what_a_start_would_report_and_changes_nothing() {
    let (root, path) = dir();
    check(&path).unwrap();
    assert!(image(root.path()).is_empty(), "nothing was made");
    let data_dir = open(&path);
    drop(data_dir.open_journal::<AcceptorRecord>(SEGMENT_BYTES).unwrap());
    let before = image(root.path());
    assert!(check(&path).unwrap_err().contains("in use by another process"));
    drop(data_dir);
    check(&path).unwrap();
    let says = |cluster, server, family| DataDir::check(&path, owner(cluster, server), family).unwrap_err().to_string();
    assert!(says("home", SERVER, Family::Paxos).contains("belongs to cluster"));
    assert!(says("lab", ServerId(3), Family::Paxos).contains("belongs to server"));
    assert!(says("lab", SERVER, Family::TwoPhaseCommit).contains("Paxos"));
    let file = path.join(IDENTITY_FILE);
    for dir in [&file, &file.join("data")] {
        assert!(check(dir).unwrap_err().starts_with("cannot create the directory"));
    }
    assert!(check(&path.join(DirPart::Journal.name())).unwrap_err().contains("not a data directory"));
    assert_eq!(image(root.path()), before);
    open(&path);
}

#[test]
fn path_that_cannot_be_a_directory_is_refused_in_one_sentence() {
    let (root, _) = dir();
    let path = root.path().join("file");
    fs::write(&path, "").unwrap();
    for path in [path.clone(), path.join("data")] {
        let error = DataDir::open(&path, owner("lab", SERVER)).unwrap_err();
        assert!(matches!(error, DataDirError::Io { .. }), "{error}");
        assert!(error.to_string().starts_with("cannot create the directory"), "{error}");
    }
}

#[test]
fn journal_and_rounds_are_recovered() {
    let (_root, path) = dir();
    let data_dir = open(&path);
    let (mut journal, recovered) = data_dir.open_journal(SEGMENT_BYTES).unwrap();
    assert!(recovered.records.is_empty());
    journal.commit(&[promise(7)]).unwrap();
    data_dir.open_rounds().unwrap().commit(&[ProposerRecord::RoundsReserved(1_024)]).unwrap();
    drop((journal, data_dir));
    let data_dir = open(&path);
    let (_journal, recovered) = data_dir.open_journal::<AcceptorRecord>(SEGMENT_BYTES).unwrap();
    assert_eq!((recovered.records, recovered.segment), (vec![promise(7)], 2));
    assert_eq!(data_dir.open_rounds().unwrap().record(), ProposerRecord::RoundsReserved(1_024));
}

#[test]
fn server_without_its_journal_is_refused_and_never_starts_empty() {
    let (_root, path) = dir();
    let data_dir = open(&path);
    data_dir.open_journal(SEGMENT_BYTES).unwrap().0.commit(&[promise(7)]).unwrap();
    drop(data_dir.open_rounds().unwrap());
    for file in fs::read_dir(data_dir.journal_path()).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    let is_missing = |data_dir: &DataDir| {
        let error = data_dir.open_journal::<AcceptorRecord>(SEGMENT_BYTES).unwrap_err();
        matches!(error, DataDirError::Journal { source, .. } if matches!(*source, OpenError::Missing))
    };
    assert!(is_missing(&data_dir), "an empty directory");
    fs::remove_dir(data_dir.journal_path()).unwrap();
    drop(data_dir);
    let data_dir = open(&path);
    assert!(is_missing(&data_dir), "no directory");
    fs::remove_file(data_dir.rounds_path()).unwrap();
    let error = data_dir.open_rounds().unwrap_err();
    assert!(matches!(error, DataDirError::Rounds { source: BallotStoreError::Missing, .. }), "{error}");
}

#[test]
fn a_journal_may_be_discarded_by_name_only() {
    let (_root, path) = dir();
    let data_dir = open(&path);
    data_dir.open_journal(SEGMENT_BYTES).unwrap().0.commit(&[promise(7)]).unwrap();
    data_dir.discard_journal().unwrap();
    let (mut journal, recovered) = data_dir.open_journal(SEGMENT_BYTES).unwrap();
    assert!(recovered.records.is_empty());
    journal.commit(&[promise(8)]).unwrap();
    drop(journal);
    // A crash while the journal is being discarded, after the identity has recorded it.
    data_dir.identity.set_has_journal(false).unwrap();
    fs::rename(data_dir.journal_path(), path.join(DISCARDED_DIR)).unwrap();
    let (_journal, recovered) = data_dir.open_journal::<AcceptorRecord>(SEGMENT_BYTES).unwrap();
    assert!(recovered.records.is_empty());
    assert!(!path.join(DISCARDED_DIR).exists());
}
