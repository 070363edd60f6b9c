//! Group commit against the floor of the disk: how near the acceptor's journal comes to one bare overwrite of as many
//! bytes and one `fdatasync`.
//!
//! `cargo bench --bench journal`. The directory is `PAXOS_BENCH_DIR`, or the temporary one: it should be on the disk to
//! measure. Disks vary from moment to moment, so the two are measured in turn, one group each. The ratio of their
//! medians is printed at the end.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use paxos_kv::codec;
use paxos_kv::kv::{self, Op};
use paxos_kv::paxos::{AcceptorRecord, Ballot, Entry, Quorums, Slot, Value};
use paxos_kv::role::{ServerId, ServerSet, StableStore};
use paxos_kv::storage::disk::RealFiles;
use paxos_kv::storage::identity::Owner;
use paxos_kv::storage::{DataDir, Journal};

const SEGMENT_BYTES: u64 = 16 << 20;
/// Pairs of the comparison at the end.
const PAIRS: usize = 1_500;

fn dir() -> tempfile::TempDir {
    let parent = std::env::var_os("PAXOS_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::tempdir_in(parent).unwrap()
}

/// A journal, and the group of records that is written to it again and again.
struct JournalBench {
    journal: Journal<RealFiles, AcceptorRecord>,
    records: Vec<AcceptorRecord>,
    _folder: DataDir,
}

impl JournalBench {
    fn new(dir: &tempfile::TempDir, size: u64) -> JournalBench {
        let server = ServerId(1);
        let owner = Owner { cluster: "bench", quorums: Quorums::majority(ServerSet::only(server)), server };
        let data = DataDir::open(&dir.path().join("data"), owner).unwrap();
        let (journal, _) = data.open_journal(SEGMENT_BYTES).unwrap();
        let record = |n: u64| {
            let op = Op::Put { key: b"key-000000000042".to_vec(), value: vec![7; 100].into(), if_version: None };
            let label = String::new();
            let command = kv::KvCommand::Write { session: 1, nonce: 1 << 100, sequence: n, first_open: n, label, op };
            let (slot, ballot) = (Slot(n), Ballot { round: 1, server: ServerId(1) });
            AcceptorRecord::Accepted(Entry { slot, ballot, value: Value::Command(command.to_paxos()) })
        };
        JournalBench { journal, records: (1..=size).map(record).collect(), _folder: data }
    }

    fn commit(&mut self) {
        self.journal.commit(&self.records).unwrap();
    }
}

/// The floor: as many bytes, into a file that was written before, and one sync.
struct RawFileBench {
    file: File,
    bytes: Vec<u8>,
    at: u64,
}

impl RawFileBench {
    fn new(dir: &tempfile::TempDir, records: &[AcceptorRecord]) -> RawFileBench {
        let file = File::create(dir.path().join("floor")).unwrap();
        let zeros = vec![0; 1 << 20];
        (0..SEGMENT_BYTES >> 20).for_each(|n| file.write_all_at(&zeros, n << 20).unwrap());
        file.sync_all().unwrap();
        // What the records take in whole sectors of 512 bytes, each with some bytes of the journal's own.
        let sectors = codec::encode(&records).len().div_ceil(480);
        RawFileBench { file, bytes: vec![7; sectors * 512], at: 0 }
    }

    fn commit(&mut self) {
        if self.at + self.bytes.len() as u64 > SEGMENT_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(&self.bytes, self.at).unwrap();
        self.file.sync_data().unwrap();
        self.at += self.bytes.len() as u64;
    }
}

fn timed(commit: impl FnOnce()) -> Duration {
    let started = Instant::now();
    commit();
    started.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn group_commit(criterion: &mut Criterion) {
    for size in [1u64, 16, 128] {
        let dir = dir();
        let mut groups = JournalBench::new(&dir, size);
        let mut floor = RawFileBench::new(&dir, &groups.records);
        let mut group = criterion.benchmark_group(format!("one fdatasync, {size} records"));
        group.throughput(Throughput::Elements(size)).sample_size(20);
        group.bench_function("journal", |bencher| bencher.iter(|| groups.commit()));
        group.bench_function("raw floor", |bencher| bencher.iter(|| floor.commit()));
        group.finish();
        let pair = |_| (timed(|| groups.commit()), timed(|| floor.commit()));
        let (ours, raw): (Vec<_>, Vec<_>) = (0..PAIRS).map(pair).unzip();
        let (ours, raw) = (median(ours), median(raw));
        let ratio = raw.as_secs_f64() / ours.as_secs_f64();
        println!(
            "{size} records, {PAIRS} pairs: journal {ours:.1?}, raw floor {raw:.1?}, {ratio:.2} of the floor's rate\n"
        );
    }
}

criterion_group!(benches, group_commit);
criterion_main!(benches);
