//! The checkpoint on a disk in memory that stops, fails, corrupts data and fills up.

mod arriving;
mod damage;
mod merging;
mod views;

use std::io;

use super::*;
use crate::kv::{KvCommand, Op};
use crate::paxos::Value;
use crate::storage::disk::{InjectedFailure, MemoryFiles};

const OWNER: u64 = 0x5eed;
const SMALL_PARTS: usize = 300;
const OPTIONS: CheckpointOptions = CheckpointOptions { owner: OWNER, part_bytes: SMALL_PARTS, merge_bytes: 2_000 };
/// Files that are written in several steps.
const LARGER: CheckpointOptions = CheckpointOptions { merge_bytes: 40_000, ..OPTIONS };

/// A store that applies commands, and the checkpoint that is written from it.
struct Work {
    files: MemoryFiles,
    kv: Kv,
    slot: u64,
    /// Number of different keys that it writes.
    keys: u64,
}

impl Work {
    fn new() -> Work {
        Work { files: MemoryFiles::new(), kv: Kv::with_sessions_at_most(3), slot: 0, keys: 41 }
    }

    fn open(&self) -> Result<(Checkpoint<MemoryFiles>, Kv), CheckpointError> {
        open(&self.files)
    }

    /// Applies commands of sessions that are opened, write, and are evicted.
    fn apply(&mut self, count: u64) {
        for _ in 0..count {
            self.slot += 1;
            let (slot, label) = (self.slot, String::new());
            let command = match slot % 7 {
                1 => KvCommand::Open { nonce: slot.into(), label },
                n => {
                    let session = slot - n + 1;
                    let value = vec![slot as u8; (slot * 31 % 90) as usize];
                    let op = Op::Put {
                        key: format!("k{}", slot * 13 % self.keys).into(),
                        value: value.into(),
                        if_version: None,
                    };
                    let nonce = session.into();
                    KvCommand::Write { session, nonce, sequence: n.max(1), first_open: 1, label, op }
                }
            };
            self.kv.apply(Slot(slot), &Value::Command(command.to_paxos()));
        }
    }

    fn mark(&self) -> CheckpointMeta {
        CheckpointMeta { slot: Slot(self.slot), digest: self.kv.digest() }
    }

    fn write(&mut self, checkpoint: &mut Checkpoint<MemoryFiles>) -> Result<CheckpointMeta, CheckpointError> {
        let (mark, changes) = (self.mark(), self.kv.take_delta());
        match checkpoint.write(mark, &changes) {
            Ok(()) => {
                self.kv.delta_saved();
                Ok(mark)
            }
            Err(error) => {
                self.kv.delta_failed();
                Err(error)
            }
        }
    }
}

type Opened = Result<(Checkpoint<MemoryFiles>, Kv), CheckpointError>;

fn open(files: &MemoryFiles) -> Opened {
    open_with(files, OPTIONS)
}

fn open_with(files: &MemoryFiles, options: CheckpointOptions) -> Opened {
    Checkpoint::open(files.clone(), options, Kv::with_sessions_at_most(3))
}

/// Merges until nothing is left to be merged.
fn merge_all(checkpoint: &mut Checkpoint<MemoryFiles>) -> Result<(), CheckpointError> {
    while checkpoint.has_work() {
        checkpoint.merge_some()?;
    }
    Ok(())
}

/// The parts of a store that do not depend on which checkpoints were written.
fn state(kv: &Kv) -> (u64, &crate::kv::Store, &crate::kv::Sessions) {
    (kv.digest(), kv.store(), kv.sessions())
}

#[test]
fn deltas_restore_the_whole_state() {
    let mut work = Work::new();
    let (mut checkpoint, empty) = work.open().unwrap();
    assert_eq!((checkpoint.mark().slot, state(&empty)), (Slot(0), state(&Kv::with_sessions_at_most(3))));
    for round in 1..=12 {
        work.apply(round * 3);
        let mark = work.write(&mut checkpoint).unwrap();
        if round % 3 == 0 {
            merge_all(&mut checkpoint).unwrap();
        }
        if round % 4 == 0 {
            drop(checkpoint);
            let (again, back) = work.open().unwrap();
            checkpoint = again;
            assert_eq!((checkpoint.mark(), state(&back)), (mark, state(&work.kv)));
        }
    }
    assert!(work.kv.sessions().len() == 3 && work.slot > 200, "sessions were forgotten on the way");
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_state_or_the_new_one() {
    for operation in 0..40 {
        for seed in 0..6 {
            let mut work = Work::new();
            let (mut checkpoint, _) = work.open().unwrap();
            work.apply(40);
            let old = work.write(&mut checkpoint).unwrap();
            work.apply(25);
            let new = work.mark();
            work.files.fail(operation, InjectedFailure::Stop);
            let written = work.write(&mut checkpoint);
            work.files.power_cut(operation * 100 + seed);
            drop(checkpoint);
            let (checkpoint, back) = work.open().unwrap();
            assert_eq!(back.digest(), checkpoint.mark().digest);
            let may = if written.is_ok() { [new, new] } else { [old, new] };
            assert!(may.contains(&checkpoint.mark()), "operation {operation}, seed {seed}: {:?}", checkpoint.mark());
        }
    }
}

#[test]
fn data_lost_by_a_failed_sync_is_not_used_although_it_is_readable() {
    for operation in 0..14 {
        let mut work = Work::new();
        let (mut checkpoint, _) = work.open().unwrap();
        work.apply(40);
        work.write(&mut checkpoint).unwrap();
        work.apply(25);
        work.files.fail(operation, InjectedFailure::Once(io::ErrorKind::Other));
        let failed = work.write(&mut checkpoint).is_err();
        // A new process on a machine that kept running.
        work.files.restart();
        drop(checkpoint);
        let (checkpoint, _) = work.open().unwrap();
        let believed = checkpoint.mark();
        assert!(failed || believed == work.mark());
        drop(checkpoint);
        work.files.power_cut_by(&mut || false);
        let (checkpoint, back) = work.open().unwrap();
        assert_eq!((checkpoint.mark(), back.digest()), (believed, believed.digest), "operation {operation}");
    }
}

#[test]
fn full_disk_keeps_the_old_state_and_stores_the_delta_later() {
    let mut work = Work::new();
    let (mut checkpoint, _) = work.open().unwrap();
    work.apply(40);
    let old = work.write(&mut checkpoint).unwrap();
    work.files.set_capacity(Some(work.files.used_bytes()));
    work.keys = 4_001;
    work.apply(3_000);
    let error = work.write(&mut checkpoint).unwrap_err();
    assert!(matches!(error, CheckpointError::Full { .. }), "{error}");
    assert_eq!(work.open().unwrap().0.mark(), old);
    work.files.set_capacity(None);
    work.apply(5);
    let new = work.write(&mut checkpoint).unwrap();
    drop(checkpoint);
    let (checkpoint, back) = work.open().unwrap();
    assert_eq!((checkpoint.mark(), state(&back)), (new, state(&work.kv)));
}

#[test]
fn only_a_checkpoint_that_changed_nothing_is_reported_as_one_without_room() {
    let mut in_doubt = 0;
    for operation in 0..20 {
        let mut work = Work::new();
        let (mut checkpoint, _) = work.open().unwrap();
        work.apply(40);
        let old = work.write(&mut checkpoint).unwrap();
        work.apply(25);
        work.files.fail(operation, InjectedFailure::Once(io::ErrorKind::StorageFull));
        let written = work.write(&mut checkpoint);
        work.files.restart();
        drop(checkpoint);
        let found = work.open().unwrap().0.mark();
        match written {
            Ok(new) => assert_eq!(found, new, "operation {operation}"),
            Err(CheckpointError::Full { .. }) => assert_eq!(found, old, "operation {operation}"),
            Err(_) => in_doubt += 1,
        }
    }
    assert_eq!(in_doubt, 1, "the sync of the new name");
}

/// `cargo test --release --lib a_million_keys -- --ignored --nocapture` prints the numbers in docs/storage.md.
#[test]
#[ignore = "a million keys take a while"]
fn a_million_keys_are_written_and_read_back() {
    use std::time::Instant;
    let dir = tempfile::tempdir().unwrap();
    let files = crate::storage::disk::RealFiles::open(dir.path()).unwrap();
    let mut kv = Kv::default();
    kv.apply(Slot(1), &Value::Command(KvCommand::Open { nonce: 1, label: String::new() }.to_paxos()));
    let mut slot = 1;
    let mut put = |kv: &mut Kv, n: u64| {
        slot += 1;
        let op = Op::Put { key: format!("key-{n:08}").into(), value: vec![n as u8; 100].into(), if_version: None };
        let sequence = slot - 1;
        let write = KvCommand::Write { session: 1, nonce: 1, sequence, first_open: sequence, label: String::new(), op };
        kv.apply(Slot(slot), &Value::Command(write.to_paxos()));
        Slot(slot)
    };
    let mut last = Slot(0);
    (0..1_000_000).for_each(|n| last = put(&mut kv, n));
    let options = CheckpointOptions::usual(OWNER);
    let (mut checkpoint, _) = Checkpoint::open(files.clone(), options, Kv::default()).unwrap();
    let mut timed = |kv: &mut Kv, slot: Slot, what: &str| {
        let started = Instant::now();
        let changes = kv.take_delta();
        let taken = started.elapsed();
        checkpoint.write(CheckpointMeta { slot, digest: kv.digest() }, &changes).unwrap();
        kv.delta_saved();
        println!("{what}: taken in {taken:?}, written after {:?}", started.elapsed());
    };
    timed(&mut kv, last, "a million new keys");
    (0..20_000).for_each(|n| last = put(&mut kv, n * 50));
    timed(&mut kv, last, "20,000 changed keys");
    (0..40).for_each(|round| {
        (0..20_000).for_each(|n| last = put(&mut kv, n * 50 + round));
        let changes = kv.take_delta();
        checkpoint.write(CheckpointMeta { slot: last, digest: kv.digest() }, &changes).unwrap();
        kv.delta_saved();
    });
    let bytes: u64 = checkpoint.runs.iter().map(|run| run.length).sum();
    let started = Instant::now();
    let (_, back) = Checkpoint::open(files, options, Kv::default()).unwrap();
    println!(
        "{} runs of {} MiB opened, checked and read in {:?}",
        checkpoint.runs.len(),
        bytes >> 20,
        started.elapsed()
    );
    assert_eq!(back.digest(), kv.digest());
}
