//! The acceptor's journal: recovery must return what was committed or report it as corrupt, and the same each time.

use std::collections::BTreeMap;

use paxos_kv::choices::Choices;
use paxos_kv::paxos::{AcceptorRecord, Ballot, Entry, Slot, SlotRange, Value};
use paxos_kv::role::{ServerId, StableStore};
use paxos_kv::storage::Journal;
use paxos_kv::storage::disk::{Files, InjectedFailure, MemoryFiles};
use paxos_kv::storage::journal::{JournalOptions, OpenError, RecoveredJournal, malformed};

/// The storage id of the server.
const OWNER: u64 = malformed::OWNER;
/// Maximum number of steps of one run.
const STEPS_MAX: usize = 60;

/// A journal that was written and then corrupted, or a forged one.
pub fn journal(bytes: &[u8]) {
    let mut source = Choices::new(bytes);
    if source.below(2) == 0 { fuzz_operations(source) } else { fuzz_forged_records(source) }
}

type Opened = (Journal<MemoryFiles, AcceptorRecord>, RecoveredJournal<AcceptorRecord>);

fn open(files: &MemoryFiles, segment_bytes: u64) -> Result<Opened, OpenError> {
    Journal::open(files.clone(), JournalOptions::alone(segment_bytes, OWNER, false))
}

/// The state that follows from some records.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KnownRecords {
    promised: Ballot,
    below: Slot,
    accepted: BTreeMap<Slot, (Ballot, Value)>,
    /// Sorted, and no two ranges touch.
    corrupt: Vec<SlotRange>,
}

impl KnownRecords {
    fn by(records: &[AcceptorRecord]) -> KnownRecords {
        let mut known =
            KnownRecords { promised: Ballot::ZERO, below: Slot(1), accepted: BTreeMap::new(), corrupt: Vec::new() };
        records.iter().for_each(|record| known.take(record));
        known
    }

    fn take(&mut self, record: &AcceptorRecord) {
        match record {
            AcceptorRecord::Promised(ballot) => self.promised = self.promised.max(*ballot),
            AcceptorRecord::Accepted(entry) => {
                self.promised = self.promised.max(entry.ballot);
                self.hold(entry);
            }
            AcceptorRecord::Repaired(entry) => self.hold(entry),
            AcceptorRecord::Truncated(below) => self.below = self.below.max(*below),
            AcceptorRecord::Corrupt(range) => self.mark_corrupt(*range),
        }
        let below = self.below;
        self.accepted.retain(|slot, _| *slot >= below);
        self.corrupt.retain(|range| range.last >= below);
        self.corrupt.iter_mut().for_each(|range| range.first = range.first.max(below));
    }

    fn hold(&mut self, entry: &Entry) {
        self.accepted.insert(entry.slot, (entry.ballot, entry.value.clone()));
        let without = |range: &SlotRange| {
            let before = (range.first < entry.slot)
                .then(|| SlotRange { first: range.first, last: range.last.min(Slot(entry.slot.0 - 1)) });
            let behind = (range.last > entry.slot)
                .then(|| SlotRange { first: range.first.max(Slot(entry.slot.0 + 1)), last: range.last });
            if range.contains(entry.slot) { [before, behind] } else { [Some(*range), None] }
        };
        self.corrupt = self.corrupt.iter().flat_map(without).flatten().collect();
    }

    fn mark_corrupt(&mut self, range: SlotRange) {
        self.corrupt.push(range);
        self.corrupt.sort_by_key(|range| range.first);
        let mut joined: Vec<SlotRange> = Vec::new();
        for range in std::mem::take(&mut self.corrupt) {
            match joined.last_mut() {
                Some(last) if range.first.0 <= last.last.0.saturating_add(1) => last.last = last.last.max(range.last),
                _ => joined.push(range),
            }
        }
        self.corrupt = joined;
        // The last known value of a corrupt slot may be out of date.
        let corrupt = &self.corrupt;
        self.accepted.retain(|slot, _| !corrupt.iter().any(|range| range.contains(*slot)));
    }

    fn is_corrupt(&self, slot: Slot) -> bool {
        self.corrupt.iter().any(|range| range.contains(slot))
    }
}

/// Several incarnations of a server on one disk, with crashes and power cuts, and at the end a few flipped bits.
fn fuzz_operations(mut source: Choices<'_>) {
    let segment_bytes = [2_048, 4_096, 6_144, 16_384][usize::from(source.below(4))];
    let mut fuzzed = FuzzedJournal::new(segment_bytes);
    for _ in 0..STEPS_MAX {
        if source.is_empty() {
            break;
        }
        match source.below(16) {
            0..=8 => fuzzed.commit(&mut source),
            9 | 10 => fuzzed.plan_failure(&mut source),
            11 => fuzzed.end(Some(source.number()), None),
            12 => fuzzed.end(None, None),
            13 => fuzzed.end(Some(source.number()), Some(source.below(12).into())),
            14 => fuzzed.forget(&mut source),
            _ => break,
        }
    }
    fuzzed.end(Some(1), None);
    let FuzzedJournal { files, known, ever_written: ever, .. } = fuzzed;
    let names: Vec<String> = files.list().expect("the disk works").into_iter().filter(|name| name != "spare").collect();
    let flips = source.below(4);
    for _ in 0..flips {
        let name = &names[usize::from(source.byte()) % names.len()];
        let place = usize::from(source.byte()) << 8 | usize::from(source.byte());
        files.flip_bit(name, place % (segment_bytes as usize * 8));
    }
    let Ok((opened, found)) = open(&files, segment_bytes) else {
        return assert!(flips > 0, "an intact disk is refused");
    };
    drop(opened);
    let after = KnownRecords::by(&found.records);
    assert_eq!(after.promised, known.promised, "the promise");
    assert!(after.below <= known.below, "more slots are truncated than recorded");
    for (slot, held) in &known.accepted {
        assert!(after.is_corrupt(*slot) || after.accepted.get(slot) == Some(held), "slot {slot} is lost");
    }
    for record in &found.records {
        let is_invented = matches!(record, AcceptorRecord::Accepted(entry) if !ever.contains(entry));
        assert!(!is_invented, "{record:?} was never committed");
    }
    let is_clean = found.corruption.is_empty();
    assert!(!is_clean || after.corrupt.is_empty() && after == known, "a lost slot is not reported as corrupt");
    let (_, again) = open(&files, segment_bytes).expect("an opened journal can be opened again");
    assert_eq!(KnownRecords::by(&again.records), after, "recovered twice with different results");
}

/// A journal, and the records that it must contain.
struct FuzzedJournal {
    files: MemoryFiles,
    segment_bytes: u64,
    /// None after an error, until the next incarnation.
    journal: Option<Journal<MemoryFiles, AcceptorRecord>>,
    known: KnownRecords,
    /// Every entry ever passed to the journal.
    ever_written: Vec<Entry>,
    /// The state after a failed commit, which may or may not be durable.
    in_doubt: Option<KnownRecords>,
    round: u64,
}

impl FuzzedJournal {
    fn new(segment_bytes: u64) -> FuzzedJournal {
        let files = MemoryFiles::new();
        let (journal, _) = open(&files, segment_bytes).expect("a new disk is not refused");
        let (known, ever) = (KnownRecords::by(&[]), Vec::new());
        FuzzedJournal {
            files,
            segment_bytes,
            journal: Some(journal),
            known,
            ever_written: ever,
            in_doubt: None,
            round: 1,
        }
    }

    fn commit(&mut self, source: &mut Choices<'_>) {
        let records: Vec<AcceptorRecord> = (0..1 + source.below(3)).map(|_| self.record(source)).collect();
        self.put(&records);
    }

    /// A record as an acceptor makes it: its ballots never decrease.
    fn record(&mut self, source: &mut Choices<'_>) -> AcceptorRecord {
        let kind = source.below(4);
        self.round += u64::from(kind & 1);
        let ballot = Ballot { round: self.round, server: ServerId(1) };
        if kind < 1 {
            return AcceptorRecord::Promised(ballot);
        }
        let slot = Slot(self.known.below.0 + u64::from(source.below(32)));
        let entry = Entry { slot, ballot, value: source.value() };
        self.ever_written.push(entry.clone());
        AcceptorRecord::Accepted(entry)
    }

    /// Truncates the journal, as if the learner's checkpoint were durable up to some slot.
    fn forget(&mut self, source: &mut Choices<'_>) {
        let below = Slot(self.known.below.0 + u64::from(source.below(16)));
        self.put(&[AcceptorRecord::Truncated(below)]);
    }

    fn put(&mut self, records: &[AcceptorRecord]) {
        let Some(journal) = &mut self.journal else { return };
        let mut grown = self.known.clone();
        records.iter().for_each(|record| grown.take(record));
        if journal.commit(records).is_ok() {
            self.known = grown;
        } else {
            self.in_doubt = Some(grown);
            self.journal = None;
        }
    }

    fn plan_failure(&mut self, source: &mut Choices<'_>) {
        let failure = match source.below(3) {
            0 => InjectedFailure::Once(std::io::ErrorKind::Other),
            1 => InjectedFailure::Once(std::io::ErrorKind::StorageFull),
            _ => InjectedFailure::Stop,
        };
        self.files.fail(source.below(12).into(), failure);
    }

    /// Ends the process, with a power cut if `power` is a seed, and starts the next one. If `stop_at` is set, that
    /// process is stopped at this step too, and another one follows.
    fn end(&mut self, power: Option<u64>, stop_at: Option<u64>) {
        self.journal = None;
        match power {
            Some(seed) => self.files.power_cut(seed),
            None => self.files.restart(),
        }
        if let Some(step) = stop_at {
            self.files.fail(step, InjectedFailure::Stop);
            let _ = open(&self.files, self.segment_bytes);
            self.files.power_cut(step);
        }
        let (journal, found) = open(&self.files, self.segment_bytes).expect("an intact disk is not refused");
        let found = KnownRecords::by(&found.records);
        if let Some(maybe) = self.in_doubt.take().filter(|maybe| *maybe == found) {
            self.known = maybe;
        }
        assert_eq!(found, self.known, "a crash changed acknowledged records");
        self.journal = Some(journal);
    }
}

/// Files in which all checksums are right, and all other content may be wrong.
fn fuzz_forged_records(mut source: Choices<'_>) {
    let image = malformed::forge(&mut source);
    let files = MemoryFiles::from_image(&image);
    let Ok((mut journal, found)) = open(&files, 2_048) else { return };
    let mut known = KnownRecords::by(&found.records);
    let again = KnownRecords::by(&open(&files.fork(), 2_048).expect("an opened journal can be opened again").1.records);
    // Contradictory numbers may be read differently the second time; corruption may not.
    let is_odd = source.has_twisted();
    assert!(is_odd || again == known, "recovered twice with different results: {known:?}, {again:?}");
    // After a successful open, the files are a journal that must keep what is committed.
    let record = AcceptorRecord::Promised(Ballot { round: Ballot::LAST_ROUND, server: ServerId(9) });
    journal.commit(std::slice::from_ref(&record)).expect("there is room");
    known.take(&record);
    drop(journal);
    let after = open(&files, 2_048).expect("an opened journal can be opened again").1;
    let after = KnownRecords::by(&after.records);
    assert!(after.promised == known.promised && (is_odd || after == known), "a committed record is lost: {after:?}");
}
