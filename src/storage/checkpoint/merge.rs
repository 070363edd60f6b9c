//! Merging: the entries of several runs in their order, the newest of each place.

use std::ops::Range;
use std::sync::Arc;

use super::entry::{Entry, Kind, Place};
use super::error::CheckpointError;
use super::run::Run;
use crate::codec::CodecError;
use crate::kv::StateEntry;
use crate::storage::disk::StableFile;

/// The newest entries of some runs, from a place on. It holds one block of each run in memory.
#[derive(Debug)]
pub(super) struct Merge<File> {
    /// The newest run first.
    cursors: Vec<Cursor<File>>,
    /// The cursor of the entry that was returned last.
    returned: Option<usize>,
}

impl<File: StableFile> Merge<File> {
    /// Merges these runs, of which the oldest comes first.
    pub(super) fn new(runs: &[Arc<Run<File>>], from: Place<'_>) -> Result<Merge<File>, CheckpointError> {
        let cursors = runs.iter().rev().map(|run| Cursor::new(run.clone(), from)).collect::<Result<_, _>>()?;
        Ok(Merge { cursors, returned: None })
    }

    /// The next entry of the state.
    pub(super) fn next_piece(&mut self) -> Result<Option<StateEntry>, CheckpointError> {
        loop {
            let Some(entry) = self.next()? else { return Ok(None) };
            if !entry.is_end() {
                let piece = entry.decode();
                return piece.map(Some).map_err(|error| self.corrupt(&error));
            }
        }
    }

    /// The entry that was returned last cannot be decoded.
    fn corrupt(&self, error: &CodecError) -> CheckpointError {
        let name = self.returned.map_or("a run", |newest| &self.cursors[newest].run.name);
        CheckpointError::corrupt(name, format!("corrupt: {error}"))
    }

    /// The next entry. An entry that says that a session has ended hides the older ones, and is returned too.
    pub(super) fn next(&mut self) -> Result<Option<Entry<'_>>, CheckpointError> {
        if let Some(returned) = self.returned.take() {
            self.cursors[returned].advance()?;
        }
        let mut first: Option<(usize, Place<'_>)> = None;
        for (number, cursor) in self.cursors.iter().enumerate() {
            // Of two entries with the same place, that of the newer run counts.
            if let Some(place) = cursor.place()
                && first.is_none_or(|(_, before)| place < before)
            {
                first = Some((number, place));
            }
        }
        let Some((newest, _)) = first else { return Ok(None) };
        self.returned = Some(newest);
        let (newer, older) = self.cursors.split_at_mut(newest + 1);
        let Some(entry) = newer[newest].entry() else { return Ok(None) };
        for cursor in older {
            if cursor.place() == Some(entry.place) {
                cursor.advance()?;
            }
        }
        Ok(Some(entry))
    }
}

/// A place in a run.
#[derive(Debug)]
struct Cursor<File> {
    run: Arc<Run<File>>,
    /// The number of the block in memory.
    number: usize,
    block: Vec<u8>,
    /// The entry at the cursor; None after the last one.
    at: Option<EntryRange>,
}

/// An entry in a block, without its borrowed parts.
#[derive(Clone, Debug)]
struct EntryRange {
    kind: Kind,
    rank: u64,
    key: Range<usize>,
    body: Range<usize>,
}

impl<File: StableFile> Cursor<File> {
    fn new(run: Arc<Run<File>>, from: Place<'_>) -> Result<Cursor<File>, CheckpointError> {
        let number = run.seek(from);
        let mut cursor = Cursor { run, number, block: Vec::new(), at: None };
        if cursor.number < cursor.run.blocks() {
            cursor.read_block()?;
            while cursor.place().is_some_and(|place| place < from) {
                cursor.advance()?;
            }
        }
        Ok(cursor)
    }

    fn place(&self) -> Option<Place<'_>> {
        let at = self.at.as_ref()?;
        Some(Place { kind: at.kind, rank: at.rank, key: &self.block[at.key.clone()] })
    }

    fn entry(&self) -> Option<Entry<'_>> {
        let at = self.at.as_ref()?;
        Some(Entry { place: self.place()?, body: &self.block[at.body.clone()] })
    }

    fn advance(&mut self) -> Result<(), CheckpointError> {
        let Some(EntryRange { body, .. }) = self.at.take() else { return Ok(()) };
        if body.end < self.block.len() {
            return self.parse(body.end);
        }
        self.number += 1;
        if self.number < self.run.blocks() { self.read_block() } else { Ok(()) }
    }

    fn read_block(&mut self) -> Result<(), CheckpointError> {
        self.block = self.run.read_block(self.number, std::mem::take(&mut self.block))?;
        self.parse(0)
    }

    /// Moves to the entry at this offset of the block.
    fn parse(&mut self, offset: usize) -> Result<(), CheckpointError> {
        let Some((Entry { place, body }, length)) = Entry::first_of(&self.block[offset..]) else {
            return Err(CheckpointError::corrupt(&self.run.name, "corrupt: a block holds something else than entries"));
        };
        let (end, key) = (offset + length, place.key.len());
        let body = end - body.len()..end;
        let key = body.start - key..body.start;
        self.at = Some(EntryRange { kind: place.kind, rank: place.rank, key, body });
        Ok(())
    }
}
