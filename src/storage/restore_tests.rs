//! A restore that crashes at each of its steps, on a real disk.

use std::collections::BTreeMap;

use super::super::disk::stopping;
use super::*;
use crate::kv::{KvCommand, Op};
use crate::paxos::{Slot, Value};
use crate::storage::DataDirError;

const SEGMENT_BYTES: u64 = 16 << 10;
const SERVERS: u8 = 2;
const KEYS: usize = 20;

fn cluster(name: &str) -> Cluster {
    let server = |id| format!("[[server]]\nid = {id}\npeer = \"127.0.0.1:{id}\"\nclient = \"127.0.0.1:1{id}\"\n");
    let text = format!("cluster = \"{name}\"\n") + &(1..=SERVERS).map(server).collect::<String>();
    Cluster::parse(Path::new("cluster.toml"), &text).unwrap()
}

/// A backup, as it is read.
fn backup() -> (BackupHeader, Kv) {
    let mut state = Kv::empty_like(&Kv::default());
    state.apply(Slot(1), &Value::Command(KvCommand::Open { nonce: 1, label: String::new() }.to_paxos()));
    for n in 1..=KEYS {
        let op = Op::Put { key: format!("k{n}").into(), value: vec![n as u8; 20].into(), if_version: None };
        let (sequence, label) = (n as u64, String::new());
        let write = KvCommand::Write { session: 1, nonce: 1, sequence, first_open: 1, label, op };
        state.apply(Slot(1 + sequence), &Value::Command(write.to_paxos()));
    }
    state.end_session(1);
    let slot = Slot(1 + KEYS as u64);
    (BackupHeader { cluster: "old".to_string(), history: 7, slot, digest: state.digest() }, state)
}

fn restore(data: &Path, as_cluster: &str) -> Result<(), String> {
    let (title, state) = backup();
    let cluster = cluster(as_cluster);
    Restore { title: &title, cluster: &cluster, data, segment_bytes: SEGMENT_BYTES }.run(state)
}

/// Number of keys that a server would start with, or why it does not start.
fn start(data: &Path, server: ServerId) -> Result<usize, DataDirError> {
    let data_dir = DataDir::open(&data.join(dir_name(server)), cluster("new").owner(server))?;
    assert!(data_dir.is_active(), "it is admitted");
    let others = (1..=SERVERS).map(ServerId).filter(|other| *other != server);
    assert!(others.into_iter().all(|other| data_dir.recorded_peer(other).is_some_and(|known| known.bound)));
    let files = data_dir.checkpoint_files().unwrap();
    let (_, state) = Checkpoint::open(files, CheckpointOptions::usual(data_dir.storage_id()), Kv::default()).unwrap();
    let (_, recovered) = data_dir.open_journal::<AcceptorRecord>(SEGMENT_BYTES).unwrap();
    assert!(!recovered.records.is_empty(), "what was forgotten is not taken for nothing accepted");
    Ok(state.store().len())
}

/// A directory on a disk in memory, if the system has one: there are many syncs, and no power is cut.
fn fast_temp_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A restore that crashes after this number of steps; None if it needed fewer.
fn killed_after(steps: u64) -> Option<(tempfile::TempDir, PathBuf)> {
    let root = fast_temp_dir();
    let data = root.path().join("data");
    stopping::after(steps);
    let done = restore(&data, "new");
    let has_died = stopping::left() == 0;
    stopping::after(u64::MAX);
    if !has_died {
        done.unwrap();
        return None;
    }
    Some((root, data))
}

/// The first restore that crashes when all directories are whole, and none has its name yet.
fn killed_when_complete() -> (tempfile::TempDir, PathBuf) {
    let is_complete = |data: &Path| data.join(RESTORE_DIR).join(COMPLETE_FILE).exists();
    let mut killed = (0..).map(|steps| killed_after(steps).expect("it crashes at some step after that"));
    killed.find(|(_, data)| is_complete(data)).unwrap()
}

/// The result of starting a server after a restore was killed.
fn judge(data: &Path, server: ServerId, started: bool) -> &'static str {
    match start(data, server) {
        Ok(keys) => {
            assert!(!started && keys == KEYS, "{server} starts with {keys} keys");
            "all data"
        }
        Err(error @ DataDirError::Unfinished { .. }) => {
            assert!(started && error.to_string().contains("Run the restore again"), "{error}");
            "refused"
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn restore_that_crashes_at_any_step_leaves_no_data_dir_that_looks_new_and_continues_when_run_again() {
    let mut seen = BTreeMap::new();
    for steps in 0.. {
        let Some((_root, data)) = killed_after(steps) else { break };
        let started = data.join(RESTORE_DIR).exists();
        let has_moved = (1..=SERVERS).any(|n| data.join(dir_name(ServerId(n))).exists());
        let is_judged = started || has_moved;
        for server in (1..=SERVERS).map(ServerId).filter(|_| is_judged) {
            *seen.entry(judge(&data, server, started)).or_insert(0) += 1;
        }
        match restore(&data, "new") {
            Ok(()) => {}
            // It had completed except for its last steps, which clean up.
            Err(error) => assert!(error.contains("is not empty") && !started, "step {steps}: {error}"),
        }
        for server in (1..=SERVERS).map(ServerId) {
            assert_eq!(judge(&data, server, false), "all data", "step {steps}");
        }
        assert!(!data.join(RESTORE_DIR).exists() && !data.join(RESTORE_DONE_DIR).exists());
    }
    assert!(seen["refused"] > 100 && seen.contains_key("all data"), "{seen:?}");
}

#[test]
fn files_of_another_restore_are_not_used() {
    let (_root, data) = killed_when_complete();
    let error = restore(&data, "other").unwrap_err();
    assert!(error.contains("another restore that did not finish: cluster \"new\" with servers 1-2"), "{error}");
    restore(&data, "new").unwrap();
}

#[test]
fn data_dir_copied_out_of_a_restore_is_refused() {
    let (root, data) = killed_when_complete();
    let elsewhere = root.path().join("elsewhere");
    fs::rename(data.join(RESTORE_DIR).join("server-1"), &elsewhere).unwrap();
    let error = DataDir::open(&elsewhere, cluster("new").owner(ServerId(1))).unwrap_err().to_string();
    assert!(error.contains("it belongs to a restore that did not finish"), "{error}");
}

#[test]
fn restore_replaces_nothing_and_a_foreign_directory_stops_no_server() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    fs::create_dir_all(data.join("server-2")).unwrap();
    fs::write(data.join("server-2").join("photo.jpg"), "x").unwrap();
    let error = restore(&data, "new").unwrap_err();
    assert!(error.contains("server-2 is not empty"), "{error}");
    assert!(!data.join("server-1").exists() && !data.join(RESTORE_DIR).exists());
    // Another program's directory of that name.
    fs::remove_dir_all(data.join("server-2")).unwrap();
    fs::create_dir(data.join(RESTORE_DIR)).unwrap();
    fs::write(data.join(RESTORE_DIR).join("state.db"), "x").unwrap();
    assert!(restore(&data, "new").unwrap_err().contains("holds files that no restore made"));
    drop(DataDir::open(&data.join("server-1"), cluster("new").owner(ServerId(1))).unwrap());
}
