//! A backup: the state after one slot in one file, from which a new cluster can start.
//!
//! ```text
//! "PaxosBak", version 4 bytes, then blocks: length 4, crc32c 4, that many bytes
//! first block   the header: cluster, history, slot, digest of the whole state
//! blocks        chunks of the state, as servers send them to clients
//! empty block   no more chunks
//! last block    the digest of the keys: without it the file is cut short
//! ```
//!
//! A backup holds the keys and no sessions. The nonces that prove ownership of a session stay with the servers. The
//! cluster that starts from a backup is a new one, in which no write of the old cluster can be retried.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::codec;
use crate::kv::Kv;
use crate::paxos::{Slot, StateMachine};

const MAGIC: &[u8; 8] = b"PaxosBak";
const VERSION: u32 = 3;
/// The largest block, in bytes: a chunk of the state, and one large entry.
const BLOCK_MAX_BYTES: usize = 4 << 20;

/// Why a backup cannot be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The file cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is not a backup, or it is corrupt.
    #[error("it is not a complete backup: {0}")]
    Corrupt(String),
    /// The backup has another format version.
    #[error(
        "another version of this program wrote it (format {0}; this version reads format {VERSION}). Restore it with \
         that version, or make a new backup with this one"
    )]
    Version(u32),
}

/// The header of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHeader {
    /// Name of the cluster that the state comes from.
    pub cluster: String,
    /// Random number of that cluster's history.
    pub history: u64,
    /// The last slot applied to the state.
    pub slot: Slot,
    /// Digest of the whole state, as `status` shows it.
    pub digest: u64,
}

/// Writes a backup, block by block.
pub struct BackupWriter<W: Write>(W);

impl<W: Write> BackupWriter<W> {
    /// Starts a backup: writes the magic, the version and the header.
    pub fn begin(mut to: W, title: &BackupHeader) -> Result<BackupWriter<W>, BackupError> {
        to.write_all(MAGIC)?;
        to.write_all(&VERSION.to_le_bytes())?;
        let mut writer = BackupWriter(to);
        writer.block(&codec::encode(title))?;
        Ok(writer)
    }

    /// Adds a chunk of the state.
    pub fn chunk(&mut self, part: &[u8]) -> Result<(), BackupError> {
        self.block(part)
    }

    /// Ends the backup with the digest of its keys, and returns the writer.
    pub fn end(mut self, store: u64) -> Result<W, BackupError> {
        self.block(&[])?;
        self.block(&store.to_le_bytes())?;
        self.0.flush()?;
        Ok(self.0)
    }

    fn block(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.0.write_all(&(bytes.len() as u32).to_le_bytes())?;
        self.0.write_all(&crc32c::crc32c(bytes).to_le_bytes())?;
        Ok(self.0.write_all(bytes)?)
    }
}

/// Reads a whole backup and checks that its keys have the digest written at its end.
pub fn read(mut from: impl Read) -> Result<(BackupHeader, Kv), BackupError> {
    let mut head = [0; 12];
    from.read_exact(&mut head).map_err(cut)?;
    if head[..8] != *MAGIC {
        return Err(BackupError::Corrupt("its first bytes are not those of a backup".to_string()));
    }
    let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    if version != VERSION {
        return Err(BackupError::Version(version));
    }
    let title: BackupHeader =
        codec::decode(&block(&mut from)?).map_err(|error| BackupError::Corrupt(error.to_string()))?;
    let mut state = Kv::empty_like(&Kv::default());
    loop {
        let part = block(&mut from)?;
        if part.is_empty() {
            break;
        }
        state.load_chunk(&part).map_err(BackupError::Corrupt)?;
    }
    let end = block(&mut from)?;
    let Ok(digest) = end.try_into().map(u64::from_le_bytes) else {
        return Err(BackupError::Corrupt("its end is not a digest".to_string()));
    };
    if from.read(&mut [0])? > 0 {
        return Err(BackupError::Corrupt("there are bytes after its end".to_string()));
    }
    if !state.sessions().is_empty() {
        return Err(BackupError::Corrupt("it holds sessions".to_string()));
    }
    let store = state.store().digest();
    if store != digest {
        return Err(BackupError::Corrupt(format!(
            "the digest of its entries is {store:016x} instead of {digest:016x}"
        )));
    }
    Ok((title, state))
}

fn block(from: &mut impl Read) -> Result<Vec<u8>, BackupError> {
    let mut head = [0; 8];
    from.read_exact(&mut head).map_err(cut)?;
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (length, checksum) = (number(0) as usize, number(4));
    if length > BLOCK_MAX_BYTES {
        return Err(BackupError::Corrupt(format!("a block of {length} bytes is longer than {BLOCK_MAX_BYTES}")));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).map_err(cut)?;
    if crc32c::crc32c(&bytes) != checksum {
        return Err(BackupError::Corrupt("a checksum is wrong".to_string()));
    }
    Ok(bytes)
}

fn cut(error: io::Error) -> BackupError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::Corrupt("its end is missing".to_string()),
        _ => BackupError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{KvCommand, Op, encode_chunk, without_sessions};
    use crate::paxos::Value;

    /// A state in chunks, as servers send them to each other.
    fn state() -> (BackupHeader, Vec<Vec<u8>>, Kv) {
        let mut kv = Kv::empty_like(&Kv::default());
        kv.apply(Slot(1), &Value::Command(KvCommand::Open { nonce: 1, label: String::new() }.to_paxos()));
        for n in 1..=9 {
            let op = Op::Put { key: format!("k{n}").into(), value: vec![n as u8; 20].into(), if_version: None };
            let write = KvCommand::Write { session: 1, nonce: 1, sequence: n, first_open: 1, label: String::new(), op };
            kv.apply(Slot(1 + n), &Value::Command(write.to_paxos()));
        }
        let title = BackupHeader { cluster: "lab".to_string(), history: 7, slot: Slot(10), digest: kv.digest() };
        let parts = kv.whole().pieces.chunks(3).map(|pieces| encode_chunk(&pieces.to_vec())).collect();
        (title, parts, kv)
    }

    fn backup() -> (Vec<u8>, BackupHeader, Kv) {
        let (title, parts, kv) = state();
        let keys = parts.iter().map(|part| without_sessions(part).unwrap().0).collect();
        (written(&title, keys, &kv), title, kv)
    }

    fn written(title: &BackupHeader, parts: Vec<Vec<u8>>, kv: &Kv) -> Vec<u8> {
        let mut writer = BackupWriter::begin(Vec::new(), title).unwrap();
        parts.iter().for_each(|part| writer.chunk(part).unwrap());
        writer.end(kv.store().digest()).unwrap()
    }

    #[test]
    fn written_backup_is_read_back() {
        let (bytes, title, kv) = backup();
        let (found, state) = read(&bytes[..]).unwrap();
        assert_eq!((found, state.store(), state.sessions().len()), (title, kv.store(), 0));
    }

    #[test]
    fn backup_contains_no_sessions() {
        let (title, parts, kv) = state();
        let left_out = parts.iter().map(|part| without_sessions(part).unwrap().1).fold(0, u64::wrapping_add);
        assert_eq!(
            kv.store().digest().wrapping_add(left_out),
            title.digest,
            "the keys alone allow a check of the whole backup"
        );
        let error = read(&written(&title, parts, &kv)[..]).unwrap_err();
        assert!(matches!(&error, BackupError::Corrupt(why) if why.contains("sessions")), "{error}");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let (bytes, ..) = backup();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bytes[..]).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(matches!(read(&bytes[..length]), Err(BackupError::Corrupt(_))), "{length} bytes");
        }
        assert!(read(&[&bytes[..], b"x"].concat()[..]).is_err());
    }
}
