//! The checkpoint on a disk in memory that stops, fails, corrupts data and fills up.

use super::*;
use crate::kv::{KvCommand, Op};
use crate::paxos::Value;
use crate::storage::disk::{InjectedFailure, MemoryFiles};

const OWNER: u64 = 0x5eed;
const SMALL_PARTS: usize = 300;

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
        Checkpoint::open(self.files.clone(), OWNER, SMALL_PARTS, Kv::with_sessions_at_most(3))
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
        if round % 4 == 0 {
            drop(checkpoint);
            let (again, back) = work.open().unwrap();
            checkpoint = again;
            assert_eq!((checkpoint.mark(), state(&back)), (mark, state(&work.kv)));
        }
    }
    assert!(work.kv.sessions().len() == 3 && work.slot > 200, "sessions were forgotten on the way");
}

/// Fetches a state chunk by chunk; `between` runs between two chunks.
fn fetch(
    checkpoint: &mut Checkpoint<MemoryFiles>,
    mut between: impl FnMut(&mut Checkpoint<MemoryFiles>, u32),
) -> (CheckpointMeta, Kv, u32) {
    let mut kv = Kv::with_sessions_at_most(3);
    let mut part = checkpoint.part(None).unwrap().unwrap();
    let mark = CheckpointMeta { slot: part.slot, digest: part.digest };
    loop {
        assert!(part.bytes.len() < 2 * SMALL_PARTS);
        kv.load_chunk(&part.bytes).unwrap();
        let index = part.index + 1;
        let Some(token) = part.next else { return (mark, kv, index) };
        between(checkpoint, index);
        part = checkpoint.part(Some(&ChunkRequest { slot: mark.slot, index, token })).unwrap().unwrap();
        assert_eq!((part.slot, part.digest, part.index), (mark.slot, mark.digest, index));
    }
}

#[test]
fn empty_checkpoint_has_missing_parts_and_no_corrupt_ones() {
    let (mut checkpoint, _) = Work::new().open().unwrap();
    for token in [PartToken::first(), PartToken::Key(vec![255; 3]), PartToken::Session(u64::MAX)] {
        for (slot, index) in [(0, 0), (0, u32::MAX), (1, 1), (u64::MAX, 2)] {
            let name = ChunkRequest { slot: Slot(slot), index, token: token.clone() };
            assert_eq!(checkpoint.part(Some(&name)).unwrap(), None, "{name:?}");
        }
    }
}

#[test]
fn chunk_starts_at_any_requested_cursor() {
    let mut work = Work::new();
    let (mut checkpoint, _) = work.open().unwrap();
    work.apply(150);
    let slot = work.write(&mut checkpoint).unwrap().slot;
    for token in [PartToken::Key(vec![255; 5_000]), PartToken::Session(0), PartToken::Session(u64::MAX)] {
        for index in [0, 7, u32::MAX] {
            let name = ChunkRequest { slot, index, token: token.clone() };
            let part = checkpoint.part(Some(&name)).unwrap().unwrap();
            assert_eq!((part.slot, part.index), (slot, index));
        }
    }
}

#[test]
fn a_state_is_fetched_as_of_one_slot_while_newer_ones_are_written() {
    let mut work = Work::new();
    let (mut checkpoint, _) = work.open().unwrap();
    assert!(checkpoint.part(None).unwrap().is_none(), "nothing was written yet");
    work.apply(150);
    let mark = work.write(&mut checkpoint).unwrap();
    let before = work.kv.clone();
    let (fetched, kv, parts) = fetch(&mut checkpoint, |checkpoint, _| {
        work.apply(3);
        work.write(checkpoint).unwrap();
    });
    assert_eq!((fetched, state(&kv)), (mark, state(&before)));
    assert!(parts > 5, "{parts} parts");
    assert!(checkpoint.views.len() <= SNAPSHOT_VIEWS_MAX);
}

/// The state after this slot, from its second chunk on.
fn second_part(slot: Slot) -> ChunkRequest {
    ChunkRequest { slot, index: 1, token: PartToken::Key(b"k05".to_vec()) }
}

#[test]
fn the_view_of_a_pinned_peer_stays_open_until_its_pin_ends() {
    let mut work = Work::new();
    let (mut checkpoint, _) = work.open().unwrap();
    work.apply(150);
    let first = work.write(&mut checkpoint).unwrap().slot;
    let (peer, other) = (ServerId(5), ServerId(4));
    assert_eq!(checkpoint.part_for(peer, None).unwrap().unwrap().slot, first);
    checkpoint.pin(ServerSet::only(peer));
    let is_open = |checkpoint: &Checkpoint<_>| checkpoint.views.iter().any(|view| view.mark.slot == first);
    // Neither newer checkpoints nor other readers close the view.
    for _ in 0..2 * KEPT_WRITES {
        work.apply(3);
        work.write(&mut checkpoint).unwrap();
        checkpoint.part(None).unwrap();
        checkpoint.part_for(other, None).unwrap();
    }
    assert!(is_open(&checkpoint) && checkpoint.views.len() <= SNAPSHOT_VIEWS_MAX + 1, "{:?}", checkpoint.views);
    assert_eq!(checkpoint.part_for(peer, Some(&second_part(first))).unwrap().unwrap().slot, first);
    checkpoint.pin(ServerSet::NONE);
    for _ in 0..=KEPT_WRITES {
        work.apply(3);
        work.write(&mut checkpoint).unwrap();
    }
    assert!(!is_open(&checkpoint), "{:?}", checkpoint.views);
}

#[test]
fn pinned_peer_keeps_only_its_current_view_open() {
    let mut work = Work::new();
    let (mut checkpoint, _) = work.open().unwrap();
    let peer = ServerId(5);
    checkpoint.pin(ServerSet::only(peer));
    for _ in 0..2 * KEPT_WRITES {
        work.apply(150);
        let last = work.write(&mut checkpoint).unwrap().slot;
        assert_eq!(checkpoint.part_for(peer, None).unwrap().unwrap().slot, last);
        assert!(checkpoint.views.len() <= SNAPSHOT_VIEWS_MAX + 1, "{:?}", checkpoint.views);
    }
}

#[test]
fn fetch_continues_after_the_sender_restarts() {
    let mut work = Work::new();
    let (mut checkpoint, _) = work.open().unwrap();
    work.apply(150);
    let mark = work.write(&mut checkpoint).unwrap();
    let files = work.files.clone();
    let (fetched, kv, _) = fetch(&mut checkpoint, |checkpoint, index| {
        if index == 3 {
            let other = Checkpoint::open(files.fork(), OWNER, SMALL_PARTS, Kv::with_sessions_at_most(3)).unwrap().0;
            *checkpoint = other;
        }
    });
    assert_eq!((fetched, state(&kv)), (mark, state(&work.kv)));
    // A view that was closed starts again, with the state of the last checkpoint.
    work.apply(10);
    let (mut checkpoint, _) = work.open().unwrap();
    let newer = work.write(&mut checkpoint).unwrap();
    let name = ChunkRequest { slot: Slot(1), index: 4, token: PartToken::first() };
    let part = checkpoint.part(Some(&name)).unwrap().unwrap();
    assert_eq!((part.slot, part.index), (newer.slot, 0));
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
fn crash_while_the_file_is_created_leaves_no_file_that_looks_corrupt() {
    for operation in 0..24 {
        for seed in 0..6 {
            let work = Work::new();
            work.files.fail(operation, InjectedFailure::Stop);
            let made = work.open().map(drop);
            work.files.power_cut(operation * 100 + seed);
            let (checkpoint, _) = work.open().unwrap();
            assert_eq!(checkpoint.mark().slot, Slot(0), "operation {operation}, seed {seed}: {made:?}");
        }
    }
}

#[test]
fn disk_full_from_the_start_leaves_no_file_that_looks_corrupt() {
    for room in 0..40 {
        let work = Work::new();
        work.files.set_capacity(Some(room * 1_024));
        if let Err(error) = work.open() {
            assert!(matches!(error, CheckpointError::Full { .. }), "{error}");
        }
        work.files.set_capacity(None);
        work.open().unwrap();
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
    let used: usize = work.files.image().values().map(Vec::len).sum();
    work.files.set_capacity(Some(used as u64));
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
fn corrupt_checkpoint_is_never_used() {
    let mut work = Work::new();
    let (mut checkpoint, _) = work.open().unwrap();
    for _ in 0..3 {
        work.apply(60);
        work.write(&mut checkpoint).unwrap();
    }
    drop(checkpoint);
    let whole = work.files.read(CHECKPOINT_FILE).unwrap();
    let (mut refused, mut unharmed) = (0, 0);
    for bit in (0..whole.len() * 8).filter(|bit| bit % 97 == 0 || *bit < 2_600) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        work.files.put(CHECKPOINT_FILE, &bytes);
        match work.open() {
            Err(CheckpointError::Corrupt { .. }) => refused += 1,
            Err(other) => panic!("bit {bit}: {other}"),
            // A page that is not in use.
            Ok((checkpoint, back)) => {
                assert_eq!((checkpoint.mark(), state(&back)), (work.mark(), state(&work.kv)), "bit {bit}");
                unharmed += 1;
            }
        }
    }
    assert!(refused > 100 && unharmed > 100, "{refused} refused, {unharmed} unharmed");
    for length in [0, 1, 319, 4_096, whole.len() - 1] {
        work.files.put(CHECKPOINT_FILE, &whole[..length]);
        let is_fine = match work.open() {
            Err(CheckpointError::Corrupt { .. }) => true,
            Ok((checkpoint, _)) => length == 0 && checkpoint.mark().slot == Slot(0),
            Err(_) => false,
        };
        assert!(is_fine, "{length} bytes");
    }
    work.files.put(CHECKPOINT_FILE, &[b'x'; 5_000]);
    assert!(matches!(work.open(), Err(CheckpointError::Corrupt { .. })));
    quarantine(&work.files).unwrap();
    assert_eq!(work.open().unwrap().0.mark().slot, Slot(0));
}

#[test]
fn the_file_of_another_server_is_refused() {
    let mut work = Work::new();
    let (mut checkpoint, _) = work.open().unwrap();
    work.apply(10);
    work.write(&mut checkpoint).unwrap();
    drop(checkpoint);
    let error = Checkpoint::open(work.files.clone(), 1, SMALL_PARTS, Kv::default()).unwrap_err();
    assert!(matches!(error, CheckpointError::Foreign { found: OWNER, expected: 1 }), "{error}");
}

#[test]
fn complete_snapshot_replaces_the_whole_checkpoint() {
    let mut work = Work::new();
    let (mut checkpoint, _) = work.open().unwrap();
    work.apply(30);
    work.write(&mut checkpoint).unwrap();
    let mut other = Work::new();
    other.apply(100);
    let mut kv = Kv::empty_like(&other.kv);
    let (mut theirs, _) = other.open().unwrap();
    other.write(&mut theirs).unwrap();
    let (mark, state_of, _) = fetch(&mut theirs, |_, _| {});
    kv.put_pieces(Vec::new());
    drop(state_of);
    let mut part = theirs.part(None).unwrap();
    while let Some(one) = part {
        kv.load_chunk(&one.bytes).unwrap();
        part = one.next.and_then(|token| {
            theirs.part(Some(&ChunkRequest { slot: mark.slot, index: one.index + 1, token })).unwrap()
        });
    }
    checkpoint.write(mark, &kv.take_delta()).unwrap();
    drop(checkpoint);
    let (checkpoint, back) = work.open().unwrap();
    assert_eq!((checkpoint.mark(), state(&back)), (mark, state(&other.kv)));
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
    let (mut checkpoint, _) = Checkpoint::open(files.clone(), OWNER, CHUNK_BYTES, Kv::default()).unwrap();
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
    drop(checkpoint);
    let bytes = files.read(CHECKPOINT_FILE).unwrap().len();
    let started = Instant::now();
    let (_, back) = Checkpoint::open(files, OWNER, CHUNK_BYTES, Kv::default()).unwrap();
    println!("{} MiB opened, checked and read in {:?}", bytes >> 20, started.elapsed());
    assert_eq!(back.digest(), kv.digest());
}
