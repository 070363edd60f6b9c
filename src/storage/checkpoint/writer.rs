//! Writing a run: its entries in their order, in bounded memory.

use std::io;

use super::entry::{Entry, Place};
use super::run::{BLOCK_HEAD_BYTES, HEADER_BYTES, Index, Run, Seal, Span, header};
use crate::storage::disk::{Files, StableFile, remove_if_present};

/// Length of a block, in bytes, unless a single entry is longer.
const BLOCK_BYTES: usize = 32 << 10;
/// Number of blocks that are written at a time.
const WRITE_BLOCKS: usize = 32;
/// Number of writes after which the file is synced: the disk never gets a large amount at once, for which the journal
/// would have to wait.
const SYNC_WRITES: u64 = 8;

/// A run that is being written.
#[derive(Debug)]
pub(super) struct RunWriter<F: Files> {
    files: F,
    file: F::File,
    /// The name until it is whole.
    name: &'static str,
    seal: Seal,
    block_bytes: usize,
    /// Bytes that are written to the file.
    written: u64,
    /// Number of writes.
    writes: u64,
    /// Bytes that are not yet written.
    pending: Vec<u8>,
    /// The content of the last block.
    block: Vec<u8>,
    index: Index,
    /// The last entry, as its bytes.
    last: Vec<u8>,
}

impl<F: Files> RunWriter<F> {
    /// Begins a run, under a name that it has until it is whole. `part_bytes` limits the length of a block.
    pub(super) fn create(files: &F, name: &'static str, seal: Seal, part_bytes: usize) -> io::Result<RunWriter<F>> {
        remove_if_present(files, name)?;
        Ok(RunWriter {
            files: files.clone(),
            file: files.create_zeroed(name, 0)?,
            name,
            seal,
            block_bytes: BLOCK_BYTES.min(part_bytes),
            written: 0,
            writes: 0,
            // The header is written last.
            pending: vec![0; HEADER_BYTES],
            block: Vec::new(),
            index: Index::default(),
            last: Vec::new(),
        })
    }

    pub(super) fn seal(&self) -> &Seal {
        &self.seal
    }

    /// Number of writes so far.
    pub(super) fn writes(&self) -> u64 {
        self.writes
    }

    /// Whether an entry of this place comes after the last one.
    pub(super) fn comes_next(&self, place: Place<'_>) -> bool {
        Entry::first_of(&self.last).is_none_or(|(last, _)| last.place < place)
    }

    /// Appends an entry, which must come after the last one.
    pub(super) fn push(&mut self, entry: Entry<'_>) -> io::Result<()> {
        debug_assert!(self.comes_next(entry.place), "{:?} is out of order", entry.place);
        if self.block.is_empty() {
            let offset = self.written + self.pending.len() as u64;
            self.index.push(entry.place, offset);
        }
        entry.encode_into(&mut self.block);
        self.last.clear();
        Entry { body: &[], ..entry }.encode_into(&mut self.last);
        if self.block.len() >= self.block_bytes {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            let block = std::mem::take(&mut self.block);
            self.append(&block);
            self.block = block;
            self.block.clear();
        }
        if self.pending.len() >= self.block_bytes * WRITE_BLOCKS { self.flush() } else { Ok(()) }
    }

    fn append(&mut self, content: &[u8]) {
        let offset = self.written + self.pending.len() as u64;
        self.pending.reserve(BLOCK_HEAD_BYTES + content.len());
        self.pending.extend_from_slice(&self.seal.head(offset, content));
        self.pending.extend_from_slice(content);
    }

    fn flush(&mut self) -> io::Result<()> {
        let length = self.written + self.pending.len() as u64;
        self.file.set_length(length)?;
        self.file.write_at(self.written, &self.pending)?;
        self.pending.clear();
        (self.written, self.writes) = (length, self.writes + 1);
        if self.writes.is_multiple_of(SYNC_WRITES) { self.file.sync_data() } else { Ok(()) }
    }

    /// Ends the run: when this returns, its bytes and its name are durable. After an error of a full disk, it has no
    /// name.
    pub(super) fn finish(mut self, span: Span) -> io::Result<Run<F::File>> {
        self.end_block()?;
        let index_at = self.written + self.pending.len() as u64;
        let index = self.index.encode();
        self.append(&index);
        let length = self.written + self.pending.len() as u64;
        let header = header(span, &self.seal, length, index_at);
        if self.written == 0 {
            self.pending[..HEADER_BYTES].copy_from_slice(&header);
            self.flush()?;
        } else {
            self.flush()?;
            self.file.write_at(0, &header)?;
        }
        // A run gets its name only after its bytes are durable. So a file with such a name that is not whole is
        // corrupt, and no crash leaves one.
        self.file.sync_data()?;
        let name = span.name();
        self.files.rename(self.name, &name)?;
        // The run has its name now. So even for lack of room this is no failure that changed nothing.
        self.files.sync_dir().map_err(io::Error::other)?;
        let RunWriter { file, seal, index, .. } = self;
        Ok(Run { file, name, span, seal, length, index_at, index })
    }
}
