//! A run: one file of entries in their order, which never changes once it has its name.
//!
//! ```text
//! header    512 bytes: crc32c 4, "PaxosRun", format 4, owner 8, first 8, last 8, slot 8, digest 8, length 8,
//!           offset of the index 8
//! blocks    crc32c 4, length 4, that many bytes: entries
//! index     like a block: for each block the kind, the rank and the offset of its first entry (1, 8 and 8 bytes)
//! ```
//!
//! The checkpoints of a server are numbered from 1. A run holds the changes of the checkpoints `first` to `last`, and
//! the newest entry of each place only. It is named after the two numbers. The slot and the digest are those of the
//! state after checkpoint `last`.
//!
//! The checksum of a block also covers the owner, the slot, the digest and the offset of the block, so that a block in
//! the wrong place or the wrong file is noticed. Each byte of the file is covered by a checksum, and the header names
//! the length of the file. So any changed bit and any cut is found, before an entry of that block is used.

use std::io;

use super::CheckpointMeta;
use super::entry::{Kind, Place};
use super::error::{CheckpointError, refused};
use crate::paxos::Slot;
use crate::storage::disk::{Files, StableFile};

pub(super) const HEADER_BYTES: usize = 512;
const MAGIC: &[u8; 8] = b"PaxosRun";
/// The version of the format.
pub(super) const FORMAT: u32 = 4;
/// Length of a block without its content, in bytes.
pub(super) const BLOCK_HEAD_BYTES: usize = 8;
/// Length of an entry of the index, in bytes.
const INDEX_ENTRY_BYTES: usize = 17;

/// The checkpoints whose changes a run holds; the name of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Span {
    pub(super) fn name(self) -> String {
        format!("{:010}-{:010}.run", self.first, self.last)
    }

    /// The span of the run with this name; None if it is no name of a run. Another number can follow its last one.
    pub(super) fn parse(name: &str) -> Option<Span> {
        let (first, last) = name.strip_suffix(".run")?.split_once('-')?;
        let span = Span { first: first.parse().ok()?, last: last.parse().ok()? };
        let is_valid = 1 <= span.first && span.first <= span.last && span.last < u64::MAX;
        (is_valid && span.name() == name).then_some(span)
    }
}

/// What the checksum of each block covers besides the block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal {
    pub(super) owner: u64,
    pub(super) mark: CheckpointMeta,
}

impl Seal {
    fn checksum(&self, offset: u64, content: &[u8]) -> u32 {
        let numbers = [self.owner, self.mark.slot.0, self.mark.digest, offset, content.len() as u64];
        let sealed = numbers.iter().fold(0, |crc, number| crc32c::crc32c_append(crc, &number.to_le_bytes()));
        crc32c::crc32c_append(sealed, content)
    }

    /// The head of a block at this offset.
    pub(super) fn head(&self, offset: u64, content: &[u8]) -> [u8; BLOCK_HEAD_BYTES] {
        let mut head = [0; BLOCK_HEAD_BYTES];
        head[..4].copy_from_slice(&self.checksum(offset, content).to_le_bytes());
        head[4..].copy_from_slice(&(content.len() as u32).to_le_bytes());
        head
    }

    /// Removes the head of a block that was read at this offset. False if it does not match.
    fn open(&self, offset: u64, block: &mut Vec<u8>) -> bool {
        let Some((head, content)) = block.split_first_chunk::<BLOCK_HEAD_BYTES>() else { return false };
        let is_right = self.head(offset, content) == *head;
        block.drain(..BLOCK_HEAD_BYTES);
        is_right
    }
}

/// The index: where each block begins, and with which entry.
#[derive(Clone, Debug, Default)]
pub(super) struct Index(Vec<(Kind, u64, u64)>);

impl Index {
    pub(super) fn push(&mut self, first: Place<'_>, offset: u64) {
        self.0.push((first.kind, first.rank, offset));
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * INDEX_ENTRY_BYTES);
        for (kind, rank, offset) in &self.0 {
            bytes.push(*kind as u8);
            bytes.extend_from_slice(&rank.to_le_bytes());
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Index> {
        let entry = |bytes: &[u8]| {
            let (rank, offset) = bytes[1..].split_at(8);
            let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
            Some((Kind::of(bytes[0])?, number(rank)?, number(offset)?))
        };
        let is_whole = bytes.len().is_multiple_of(INDEX_ENTRY_BYTES);
        let entries: Option<Vec<_>> = bytes.chunks_exact(INDEX_ENTRY_BYTES).map(entry).collect();
        entries.filter(|_| is_whole).map(Index)
    }

    /// The number of the block in which the entries from this place on begin.
    fn seek(&self, from: Place<'_>) -> usize {
        // Entries of equal rank may begin in the block before.
        self.0.partition_point(|(kind, rank, _)| (*kind, *rank) < (from.kind, from.rank)).saturating_sub(1)
    }
}

/// A run that is open for reading.
#[derive(Debug)]
pub(super) struct Run<File> {
    pub(super) file: File,
    pub(super) name: String,
    pub(super) span: Span,
    pub(super) seal: Seal,
    /// Length of the file, in bytes.
    pub(super) length: u64,
    pub(super) index_at: u64,
    pub(super) index: Index,
}

impl<File: StableFile> Run<File> {
    /// Opens the run of this span, and checks its header and its index.
    pub(super) fn open<F: Files<File = File>>(files: &F, span: Span, owner: u64) -> Result<Run<File>, CheckpointError> {
        let name = span.name();
        let file = files.open(&name).map_err(refused("open", &name))?;
        let length = file.length().map_err(refused("open", &name))?;
        let mut header = vec![0; HEADER_BYTES];
        if length < HEADER_BYTES as u64 {
            return Err(CheckpointError::corrupt(
                &name,
                format!("corrupt: it has {length} bytes, less than its header"),
            ));
        }
        read(&file, &name, 0, &mut header)?;
        let (seal, index_at) = check_header(&header, &name, span, owner, length)?;
        let mut run = Run { file, name, span, seal, length, index_at, index: Index::default() };
        let index = run.read_between(index_at, length, Vec::new())?;
        let invalid = || CheckpointError::corrupt(&run.name, "corrupt: its index is invalid");
        run.index = Index::decode(&index).ok_or_else(invalid)?;
        Ok(run)
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.index.0.len()
    }

    /// The number of the block in which the entries from this place on begin.
    pub(super) fn seek(&self, from: Place<'_>) -> usize {
        self.index.seek(from)
    }

    /// The content of a block, in the memory of an earlier one.
    pub(super) fn read_block(&self, number: usize, memory: Vec<u8>) -> Result<Vec<u8>, CheckpointError> {
        let offset = |number: usize| self.index.0.get(number).map_or(self.index_at, |(_, _, offset)| *offset);
        self.read_between(offset(number), offset(number + 1), memory)
    }

    fn read_between(&self, from: u64, to: u64, mut block: Vec<u8>) -> Result<Vec<u8>, CheckpointError> {
        if to < from || to > self.length {
            return Err(CheckpointError::corrupt(&self.name, format!("corrupt: no block ends at byte {to}")));
        }
        block.clear();
        block.resize((to - from) as usize, 0);
        read(&self.file, &self.name, from, &mut block)?;
        if self.seal.open(from, &mut block) {
            return Ok(block);
        }
        Err(CheckpointError::corrupt(&self.name, format!("corrupt: the checksum of its block at byte {from} is wrong")))
    }
}

/// The header of a run.
pub(super) fn header(span: Span, seal: &Seal, length: u64, index_at: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[4..12].copy_from_slice(MAGIC);
    header[12..16].copy_from_slice(&FORMAT.to_le_bytes());
    let Seal { owner, mark } = seal;
    let numbers = [*owner, span.first, span.last, mark.slot.0, mark.digest, length, index_at];
    for (place, number) in header[16..].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let checksum = crc32c::crc32c(&header[4..]);
    header[..4].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Checks a header. Returns what it says about the run and the offset of the index.
fn check_header(
    header: &[u8],
    file: &str,
    span: Span,
    owner: u64,
    length: u64,
) -> Result<(Seal, u64), CheckpointError> {
    let corrupt = |why: String| CheckpointError::corrupt(file, format!("corrupt: {why}"));
    let checksum = crc32c::crc32c(&header[4..]).to_le_bytes();
    if header[..4] != checksum || header[4..12] != *MAGIC {
        return Err(corrupt("the checksum of its header is wrong".to_string()));
    }
    let format = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
    if format != FORMAT {
        return Err(CheckpointError::Format { file: file.to_string(), found: format });
    }
    let mut numbers = [0; 7];
    for (number, place) in numbers.iter_mut().zip(header[16..].chunks_exact(8)) {
        *number = u64::from_le_bytes(place.try_into().unwrap_or_default());
    }
    let [found, first, last, slot, digest, expected, index_at] = numbers;
    if found != owner {
        return Err(CheckpointError::Foreign { file: file.to_string(), found, expected: owner });
    }
    if (Span { first, last }) != span {
        return Err(corrupt(format!("its header is that of {}", Span { first, last }.name())));
    }
    if expected != length || index_at > length {
        return Err(corrupt(format!("it has {length} bytes instead of {expected}")));
    }
    Ok((Seal { owner, mark: CheckpointMeta { slot: Slot(slot), digest } }, index_at))
}

/// Fills the buffer. A sector that the disk cannot read is corrupt.
fn read(file: &impl StableFile, name: &str, offset: u64, bytes: &mut [u8]) -> Result<(), CheckpointError> {
    file.read_at(offset, bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => CheckpointError::corrupt(name, "corrupt: its end is missing"),
        _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
            CheckpointError::corrupt(name, format!("corrupt: the disk cannot read it at byte {offset}"))
        }
        _ => refused("read", name)(error),
    })
}
