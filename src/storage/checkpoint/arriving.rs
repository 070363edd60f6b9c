//! A snapshot that arrives from another server: its chunks are written to disk as they come.
//!
//! The learner assembles the same chunks in memory and checks their digest. When it has installed the snapshot, its
//! next delta says that everything before is in the snapshot with this digest. The file then becomes the oldest run,
//! and replaces all others. So an installed state is never copied to be written.
//!
//! If the file cannot be completed (the disk was full, or chunks came faster than they were written), it is dropped.
//! The learner then learns that its checkpoint was not written, and its next delta holds the whole state.

use super::entry::{Entry, Place, encode_body};
use super::error::{CheckpointError, refused};
use super::run::{Seal, Span};
use super::writer::RunWriter;
use super::{Checkpoint, CheckpointMeta};
use crate::kv::decode_part;
use crate::paxos::{Slot, SnapshotChunk};
use crate::storage::disk::{Files, remove_if_present};
use crate::storage::rules;

/// The snapshot, until it is whole and installed.
pub(super) const NEW_FILE: &str = "snapshot.new";

/// A snapshot that is arriving.
#[derive(Debug)]
pub(super) struct ArrivingSnapshot<F: Files> {
    writer: RunWriter<F>,
    /// The number of the next chunk.
    next: u32,
    is_whole: bool,
}

impl<F: Files> Checkpoint<F> {
    /// Writes the next chunk of a snapshot; chunk 0 begins a new one. A chunk that does not follow the one before ends
    /// the snapshot, and so does a full disk.
    pub fn take_chunk(&mut self, chunk: &SnapshotChunk) -> Result<(), CheckpointError> {
        let mark = CheckpointMeta { slot: chunk.slot, digest: chunk.digest };
        let follows = |arriving: &ArrivingSnapshot<F>| {
            arriving.writer.seal().mark == mark && arriving.next == chunk.index && !arriving.is_whole
        };
        let before = self.arriving.take().filter(|arriving| chunk.index != 0 && follows(arriving));
        let taken = match before {
            Some(arriving) => arriving.take(chunk),
            None if chunk.index == 0 => self.begin_arriving(mark).and_then(|arriving| arriving.take(chunk)),
            None => Ok(None),
        };
        match taken {
            Ok(Some(arriving)) => self.arriving = Some(arriving),
            Ok(None) | Err(CheckpointError::Full { .. }) => self.remove_arriving(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn begin_arriving(&self, mark: CheckpointMeta) -> Result<ArrivingSnapshot<F>, CheckpointError> {
        let seal = Seal { owner: self.options.owner, mark };
        let writer = RunWriter::create(&self.files, NEW_FILE, seal, self.options.part_bytes);
        Ok(ArrivingSnapshot { writer: writer.map_err(refused("write", NEW_FILE))?, next: 0, is_whole: false })
    }

    /// The slot and digest of the snapshot with this digest, if all of it is written.
    pub fn arrived(&self, digest: u64) -> Option<CheckpointMeta> {
        let mark = |arriving: &ArrivingSnapshot<F>| arriving.writer.seal().mark;
        self.arriving.as_ref().filter(|arriving| arriving.is_whole).map(mark).filter(|mark| mark.digest == digest)
    }

    /// Makes the snapshot that has arrived the state, in place of all runs.
    pub fn install(&mut self) -> Result<(), CheckpointError> {
        let Some(arriving) = self.arriving.take() else { return Ok(()) };
        let span = Span { first: 1, last: self.last_number() + 1 };
        match arriving.writer.finish(span).map_err(refused("write", NEW_FILE)) {
            Ok(run) => self.add(run),
            Err(error) => {
                self.remove_arriving();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Drops a snapshot that is not newer than this slot.
    pub(super) fn drop_arriving_up_to(&mut self, slot: Slot) {
        if self.arriving.as_ref().is_some_and(|arriving| arriving.writer.seal().mark.slot <= slot) {
            self.drop_arriving();
        }
    }

    /// Drops the snapshot that is arriving, if there is one.
    pub fn drop_arriving(&mut self) {
        if self.arriving.take().is_some() {
            self.remove_arriving();
        }
    }

    fn remove_arriving(&self) {
        // Freeing the disk space matters more than why the removal fails.
        remove_if_present(&self.files, NEW_FILE).unwrap_or_default();
    }
}

impl<F: Files> ArrivingSnapshot<F> {
    /// Appends a chunk. None if its entries do not come after those before.
    fn take(mut self, chunk: &SnapshotChunk) -> Result<Option<ArrivingSnapshot<F>>, CheckpointError> {
        let Ok(pieces) = decode_part(&chunk.bytes) else { return Ok(None) };
        let mut body = Vec::new();
        for piece in pieces.iter().filter(|piece| rules::is_of_the_state(piece)) {
            let place = Place::of(piece);
            if !self.writer.comes_next(place) {
                return Ok(None);
            }
            body.clear();
            encode_body(piece, &mut body);
            self.writer.push(Entry { place, body: &body }).map_err(refused("write", NEW_FILE))?;
        }
        (self.next, self.is_whole) = (chunk.index.saturating_add(1), chunk.next.is_none());
        Ok(Some(self))
    }
}
