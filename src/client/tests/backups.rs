//! Tests of where a backup may be written, and what remains if it fails.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, mkfifoat};

use super::command_line::Text;
use super::fake::{FakeAction, FakeCluster, good_reply, serves};
use crate::client::cli::run;
use crate::client::printer::Printer;
use crate::kv::{Kv, KvCommand, Op, encode_chunk, without_sessions};
use crate::net::{Reply, Request, StatePart};
use crate::paxos::{Slot, SnapshotChunk, StateMachine, Value};
use crate::storage::backup;

/// A store with one key. Its server reports a digest that differs from the right one by `wrong`.
fn store(value: &str, wrong: u64) -> FakeCluster {
    let mut kv = Kv::empty_like(&Kv::default());
    kv.apply(Slot(1), &Value::Command(KvCommand::Open { nonce: 1, label: String::new() }.to_paxos()));
    let op = Op::Put { key: b"k".to_vec(), value: value.as_bytes().into(), if_version: None };
    let write = KvCommand::Write { session: 1, nonce: 1, sequence: 1, first_open: 1, label: String::new(), op };
    kv.apply(Slot(2), &Value::Command(write.to_paxos()));
    let digest = kv.digest() ^ wrong;
    let (bytes, left_out) = without_sessions(&encode_chunk(&kv.whole().pieces)).unwrap();
    let part = SnapshotChunk { slot: Slot(2), digest, index: 0, bytes: bytes.into(), next: None };
    FakeCluster::start(vec![serves(move |n, request| {
        FakeAction::Reply(match request {
            Request::State { .. } => Reply::Chunk(Some(StatePart { part: part.clone(), left_out })),
            other => good_reply(n as u64, other),
        })
    })])
}

/// Runs a backup; returns exit code, stdout and stderr.
fn back_up(cluster: &FakeCluster, to: &Path, words: &[&str]) -> (u8, Vec<u8>, String) {
    let (data, notes) = (Text::default(), Text::default());
    let mut all: Vec<OsString> = vec!["paxos-client".into(), "--cluster".into(), cluster.file.path().into()];
    all.extend(["backup".into(), to.into()]);
    all.extend(words.iter().map(OsString::from));
    let code = run(all, &Arc::new(Printer::new(data.clone(), notes.clone())));
    (code, data.bytes(), notes.text())
}

fn value_in(file: &[u8]) -> Option<Vec<u8>> {
    let (_, state) = backup::read(file).unwrap();
    state.store().get(b"k").map(|entry| entry.value.as_deref().unwrap_or_default().to_vec())
}

/// The file names in a directory.
fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(name).collect();
    names.sort();
    names
}

#[test]
fn backup_is_private_and_replaces_a_file_only_with_force() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b");
    assert_eq!(back_up(&store("one", 0), &file, &[]).0, 0);
    assert_eq!(value_in(&fs::read(&file).unwrap()), Some(b"one".to_vec()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, _, notes) = back_up(&store("two", 0), &file, &[]);
    assert_eq!(code, 2);
    assert!(notes.contains("exists already") && notes.contains("--force"), "{notes}");
    assert_eq!(value_in(&fs::read(&file).unwrap()), Some(b"one".to_vec()));
    assert_eq!(back_up(&store("two", 0), &file, &["--force"]).0, 0);
    assert_eq!(value_in(&fs::read(&file).unwrap()), Some(b"two".to_vec()));
    assert_eq!(names(dir.path()), ["b"]);
}

#[test]
fn backup_replaces_only_files() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("target"), "mine").unwrap();
    std::os::unix::fs::symlink(at("target"), at("link")).unwrap();
    mkfifoat(CWD, at("pipe"), Mode::RWXU).unwrap();
    fs::create_dir(at("folder")).unwrap();
    for (name, kind) in [("link", "a symbolic link"), ("pipe", "a named pipe"), ("folder", "a directory")] {
        let before = fs::symlink_metadata(at(name)).unwrap().file_type();
        let (code, _, notes) = back_up(&store("one", 0), &at(name), &["--force"]);
        assert_eq!(code, 2, "{name}");
        assert!(notes.contains(&format!("{name} is {kind}, but a backup replaces only files")), "{notes}");
        assert_eq!(fs::symlink_metadata(at(name)).unwrap().file_type(), before);
    }
    assert_eq!(fs::read_to_string(at("target")).unwrap(), "mine");
    assert_eq!(names(dir.path()), ["folder", "link", "pipe", "target"]);
}

#[test]
fn a_backup_can_go_to_standard_output() {
    let (code, data, notes) = back_up(&store("one", 0), Path::new("-"), &[]);
    assert_eq!((code, value_in(&data)), (0, Some(b"one".to_vec())));
    assert!(notes.starts_with("the backup contains the store as of slot 2"), "{notes}");
}

#[test]
fn failed_backup_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b");
    let (code, _, notes) = back_up(&store("one", 1), &file, &[]);
    assert_eq!(code, 1, "{notes}");
    assert_eq!(names(dir.path()), [""; 0]);
    fs::write(&file, "an older one").unwrap();
    assert_eq!(back_up(&store("one", 1), &file, &["--force"]).0, 1);
    assert_eq!(fs::read_to_string(&file).unwrap(), "an older one");
    assert_eq!(names(dir.path()), ["b"]);
    // The output before the error is no valid backup.
    let (code, data, _) = back_up(&store("one", 1), Path::new("-"), &[]);
    assert_eq!((code, backup::read(&data[..]).is_err()), (1, true));
}

#[test]
fn next_backup_removes_the_files_of_a_killed_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let others = ["b.part", "b.part-123", "b.part-0123456789abcdeg", "other.part-0123456789abcdef"];
    for name in others.iter().chain(&["b.part-0123456789abcdef", "b.part-fedcba9876543210"]) {
        fs::write(at(name), "half of one").unwrap();
    }
    // Another process is still writing one of these files.
    let written = File::open(at("b.part-fedcba9876543210")).unwrap();
    written.lock().unwrap();
    assert_eq!(back_up(&store("one", 0), &at("b"), &[]).0, 0);
    let mut left = [&others[..], &["b", "b.part-fedcba9876543210"]].concat();
    left.sort_unstable();
    assert_eq!(names(dir.path()), left);
}
