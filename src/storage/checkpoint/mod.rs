//! The checkpoint: the state of the store on disk, so that the log can be truncated.
//!
//! Each checkpoint writes what has changed since the one before, as one sorted file: a [run]. A
//! checkpoint costs what changed, not what is stored. The runs together are the state: of several entries with the
//! same place, that of the newest run counts. (O'Neil et al., *The Log-Structured Merge-Tree*, Acta Informatica 1996.)
//!
//! The names of the runs order themselves, so there is no list of files that could contradict them. The run
//! `first-last.run` holds the changes of the checkpoints `first` to `last`, counted from 1. A run becomes part of the
//! state by a rename, after its bytes are durable. The state consists of the runs that cover 1 to the highest number
//! without a gap; a run inside the range of another one is out of date, and is removed.
//!
//! * A *checkpoint* adds the run `n-n.run`.
//! * A [*merge*](merging) replaces adjacent runs by one. It changes no state, so a crash at any moment leaves the same
//!   state before and after.
//! * A [*snapshot*](arriving) of another server replaces all runs by the run `1-n.run`.
//!
//! Nothing is used before all of it is checked: the checksums of the files, and the digest of the state, which must
//! equal the digest written. If a file is corrupt, all are quarantined, and the state comes from another server.
//!
//! A learner that is far behind receives the state in chunks of about a megabyte. They are read as of one slot while
//! newer checkpoints are written: a [view](views) keeps the files of its slot open, also after their removal.

mod arriving;
mod entry;
mod error;
mod merge;
mod merging;
mod run;
mod views;
mod writer;

use std::sync::Arc;

use self::arriving::ArrivingSnapshot;
use self::entry::{Entry, Place, encode_body};
use self::error::refused;
use self::merge::Merge;
use self::merging::MergeInProgress;
use self::run::{Run, Seal, Span};
use self::views::Views;
use self::writer::RunWriter;
use super::disk::{Files, read_if_present, remove_if_present, replace};
use super::rules;
use crate::kv::{DeltaScope, Kv, StateDelta, StateEntry};
use crate::paxos::{PartToken, Slot, StateMachine};

pub use self::error::CheckpointError;
pub use self::merging::MERGE_MIN_BYTES;
pub use self::views::SNAPSHOT_VIEWS_MAX;

/// The run that a checkpoint writes, until it is whole.
const NEW_FILE: &str = "checkpoint.new";
/// The end of the names of quarantined files.
pub const QUARANTINED: &str = ".quarantined";
/// Marks the state in this directory as divergent; holds the slot after which the divergence was found.
pub const FENCED_FILE: &str = "fenced";
/// Maximum size of a chunk, in bytes, unless a single entry is larger.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Maximum number of runs. Beyond it a checkpoint waits for the merge.
pub const RUNS_MAX: usize = 128;
/// Maximum space for the growth of the runs, in bytes, that [`Checkpoint::growth_bytes`] asks for.
const GROWTH_MAX_BYTES: u64 = 128 << 20;

/// The slot and digest of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointMeta {
    /// The last slot applied to the state; 0 if the state is empty.
    pub slot: Slot,
    /// Digest of the state.
    pub digest: u64,
}

/// The owner of a checkpoint, and its sizes.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointOptions {
    /// The storage id of the server.
    pub owner: u64,
    /// Approximate size of a chunk, in bytes.
    pub part_bytes: usize,
    /// Runs of fewer bytes than this are not yet merged, however small the oldest run is.
    pub merge_bytes: u64,
}

impl CheckpointOptions {
    /// The sizes of a real server.
    pub fn usual(owner: u64) -> CheckpointOptions {
        CheckpointOptions { owner, part_bytes: CHUNK_BYTES, merge_bytes: MERGE_MIN_BYTES }
    }
}

/// Runs that make a state together, the oldest first.
type Runs<F> = Vec<Arc<Run<<F as Files>::File>>>;

/// The checkpoint of one server.
#[derive(Debug)]
pub struct Checkpoint<F: Files> {
    files: F,
    options: CheckpointOptions,
    /// The slot and digest of the state before the first run.
    empty: CheckpointMeta,
    runs: Runs<F>,
    views: Views<F>,
    merge: Option<MergeInProgress<F>>,
    /// A merge found no room; the next checkpoint begins it again.
    waits_for_room: bool,
    arriving: Option<ArrivingSnapshot<F>>,
}

impl<F: Files> Checkpoint<F> {
    /// Opens the checkpoint in this directory, which may be empty, and reads it into `state`, which has applied
    /// nothing. If a file is corrupt, this returns the reason and leaves the directory unchanged; see [`quarantine`].
    pub fn open(files: F, options: CheckpointOptions, state: Kv) -> Result<(Checkpoint<F>, Kv), CheckpointError> {
        if let Some(slot) = read_if_present(&files, FENCED_FILE).map_err(refused("read", FENCED_FILE))? {
            return Err(CheckpointError::Fenced { slot: String::from_utf8_lossy(&slot).trim().to_string() });
        }
        // The previous process may have crashed between renaming a run and syncing its name.
        files.sync_dir().map_err(refused("sync", "the names"))?;
        let names = files.list().map_err(refused("list", "the files"))?;
        let spans: Vec<Span> = names.iter().filter_map(|name| Span::parse(name)).collect();
        let current = current_spans(&spans)?;
        let runs = current.iter().map(|span| Run::open(&files, *span, options.owner).map(Arc::new));
        let runs = runs.collect::<Result<_, _>>()?;
        let empty = CheckpointMeta { slot: Slot(0), digest: state.digest() };
        let (views, waits_for_room) = (Views::new(options.part_bytes), false);
        let checkpoint = Checkpoint { files, options, empty, runs, views, merge: None, waits_for_room, arriving: None };
        let state = checkpoint.load(state)?;
        let is_out_of_date = |name: &String| Span::parse(name).is_some_and(|span| !current.contains(&span));
        let is_unfinished = |name: &String| [NEW_FILE, merging::NEW_FILE, arriving::NEW_FILE].contains(&name.as_str());
        for name in names.iter().filter(|name| is_out_of_date(name) || is_unfinished(name)) {
            remove_if_present(&checkpoint.files, name).map_err(refused("remove", name))?;
        }
        Ok((checkpoint, state))
    }

    /// The slot and digest of the last checkpoint.
    pub fn mark(&self) -> CheckpointMeta {
        self.runs.last().map_or(self.empty, |run| run.seal.mark)
    }

    /// Number of runs, and their bytes together.
    pub fn size(&self) -> (usize, u64) {
        (self.runs.len(), self.runs.iter().map(|run| run.length).sum())
    }

    /// Marks the state as divergent after this slot: the checkpoint cannot be opened again.
    pub fn fence(&self, slot: Slot) -> Result<(), CheckpointError> {
        replace(&self.files, FENCED_FILE, format!("{slot}\n").as_bytes()).map_err(refused("write", FENCED_FILE))
    }

    /// Reads the checkpoint into `state`, which has applied nothing.
    pub fn load(&self, mut state: Kv) -> Result<Kv, CheckpointError> {
        let mut merge = Merge::new(&self.runs, Place::from(&PartToken::first()))?;
        while let Some(piece) = merge.next_piece()? {
            state.put_piece(piece);
        }
        let mark = self.mark();
        if state.digest() != mark.digest {
            let first_and_last = [self.runs.first(), self.runs.last()].into_iter().flatten().map(|run| &run.name[..]);
            let files = first_and_last.collect::<Vec<_>>().join(" to ");
            let why = format!(
                "corrupt: the digest of the entries is {:016x} instead of {:016x}",
                state.digest(),
                mark.digest
            );
            return Err(CheckpointError::corrupt(&files, why));
        }
        Ok(state)
    }

    /// Writes the changes up to a slot, or the whole state, as one run. It is durable when this returns. After an
    /// error, other than a full disk, the run may be durable or not.
    pub fn write(&mut self, mark: CheckpointMeta, changes: &StateDelta) -> Result<(), CheckpointError> {
        // An older snapshot that is still arriving is of no use any more.
        self.drop_arriving_up_to(mark.slot);
        let written = self.write_run(mark, changes);
        match &written {
            Ok(()) => self.views.checkpoint_written(),
            // The next attempt has the room of the files that they held open.
            Err(CheckpointError::Full { .. }) => self.views.close_unpinned(),
            Err(_) => {}
        }
        written
    }

    fn write_run(&mut self, mark: CheckpointMeta, changes: &StateDelta) -> Result<(), CheckpointError> {
        // The whole state replaces all runs, so it need not wait for a merge of them.
        let adds_a_run = changes.scope != DeltaScope::Whole;
        if adds_a_run && self.runs.len() >= RUNS_MAX {
            self.waits_for_room = false;
            while self.runs.len() >= RUNS_MAX && self.has_work() {
                self.merge_some()?;
            }
        }
        let last = self.last_number() + 1;
        let first = if adds_a_run { last } else { 1 };
        let seal = Seal { owner: self.options.owner, mark: CheckpointMeta { slot: rules::slot_of(mark), ..mark } };
        let written = RunWriter::create(&self.files, NEW_FILE, seal, self.options.part_bytes)
            .and_then(|writer| write_entries(writer, changes)?.finish(Span { first, last }));
        if written.is_err() {
            // Freeing the disk space matters more than why the removal fails.
            remove_if_present(&self.files, NEW_FILE).unwrap_or_default();
        }
        self.add(written.map_err(refused("write", NEW_FILE))?);
        self.waits_for_room = false;
        Ok(())
    }

    /// Adds a run that is durable. It replaces all runs inside its range.
    fn add(&mut self, run: Run<F::File>) {
        let Span { first, last } = run.span;
        let is_inside = |other: &Arc<Run<F::File>>| first <= other.span.first && other.span.last <= last;
        let begin = self.runs.iter().position(is_inside).unwrap_or(self.runs.len());
        let end = self.runs.iter().rposition(is_inside).map_or(begin, |last| last + 1);
        let replaced: Runs<F> = self.runs.splice(begin..end, [Arc::new(run)]).collect();
        if self.merge.as_ref().is_some_and(|merge| first <= merge.span.first) {
            self.drop_merge();
        }
        for old in replaced {
            // Views may still read it. If the removal fails, the next process removes the file: it is inside the range
            // of another one.
            remove_if_present(&self.files, &old.name).unwrap_or_default();
        }
    }

    fn last_number(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.span.last)
    }
}

/// The runs that make the state: each continues where the one before ends, and no other run spans more.
fn current_spans(spans: &[Span]) -> Result<Vec<Span>, CheckpointError> {
    let mut sorted = spans.to_vec();
    sorted.sort_by_key(|span| (span.first, std::cmp::Reverse(span.last)));
    let mut current: Vec<Span> = Vec::new();
    for span in sorted {
        let next = current.last().map_or(1, |before| before.last + 1);
        if span.first > next {
            let missing = format!("missing: no file holds the changes from checkpoint {next} to {}", span.first - 1);
            return Err(CheckpointError::corrupt(&Span { first: next, last: span.first - 1 }.name(), missing));
        }
        if span.first == next {
            current.push(span);
        } else if span.last >= next {
            return Err(CheckpointError::corrupt(&span.name(), "corrupt: it overlaps with another file"));
        }
    }
    Ok(current)
}

/// Writes the entries of a delta, in their order.
fn write_entries<F: Files>(mut writer: RunWriter<F>, changes: &StateDelta) -> std::io::Result<RunWriter<F>> {
    let pieces = changes.pieces.iter().filter(|piece| rules::is_of_the_state(piece));
    let mut entries: Vec<(Place<'_>, Option<&StateEntry>)> =
        pieces.map(|piece| (Place::of(piece), Some(piece))).collect();
    entries.extend(changes.ended.iter().map(|id| (Place::of_session(*id), None)));
    // The pieces of a whole state are in order already. Of several with the same place, the last is the newest.
    entries.sort_by_key(|(place, _)| *place);
    let mut body = Vec::new();
    for (number, (place, piece)) in entries.iter().enumerate() {
        if entries.get(number + 1).is_some_and(|(next, _)| next == place) {
            continue;
        }
        body.clear();
        piece.iter().for_each(|piece| encode_body(piece, &mut body));
        writer.push(Entry { place: *place, body: &body })?;
    }
    Ok(writer)
}

/// Quarantines a corrupt checkpoint: its files are renamed and kept for inspection. The next checkpoint starts empty.
pub fn quarantine<F: Files>(files: &F) -> Result<(), CheckpointError> {
    let names = files.list().map_err(refused("list", "the files"))?;
    let is_run = |name: &String| Span::parse(name).is_some();
    // Without the oldest file, a crash has interrupted this quarantine, and the quarantined files belong to it.
    let is_oldest = |name: &String| Span::parse(name).is_some_and(|span| span.first == 1);
    if names.iter().any(is_oldest) {
        for old in names.iter().filter(|name| name.ends_with(QUARANTINED)) {
            remove_if_present(files, old).map_err(refused("remove", old))?;
        }
    }
    // The oldest file goes first, and durably: without it the other files are not taken for a state, also after a
    // crash in the middle.
    for name in names.iter().filter(|name| is_run(name)) {
        files.rename(name, &format!("{name}{QUARANTINED}")).map_err(refused("rename", name))?;
        files.sync_dir().map_err(refused("rename", name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
