//! The proposer's stable storage: one number. All rounds below it are reserved, so no ballot is ever used twice.
//!
//! ```text
//! at  0 crc32c of the rest, 4   4 magic "PaxosRnd"   12 version, 4   16 owner, 8   24 the number, 8   zeros up to 512
//! ```
//!
//! The file is one sector, written in place: after a crash it is the old one or the new one. Writing it needs no new
//! disk space, so a proposer can start on a full disk.

use std::io;

use thiserror::Error;

use super::disk::{Files, SECTOR_BYTES, StableFile, is_full, read_if_present, replace};
use super::identity::short_disk;
use crate::paxos::ProposerRecord;
use crate::role::StableStore;

/// The file's name.
pub const ROUNDS_FILE: &str = "rounds";

const MAGIC: &[u8; 8] = b"PaxosRnd";
const VERSION: u32 = 2;
const BYTES: usize = SECTOR_BYTES;

/// Why the reserved rounds cannot be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BallotStoreError {
    /// A disk operation failed.
    #[error("cannot {action} the file {ROUNDS_FILE}: {source}")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The file existed before and is now missing.
    #[error(
        "the file {ROUNDS_FILE} of this server is missing; without it the server could use a ballot twice. Put the \
         original file back"
    )]
    Missing,
    /// The file is corrupt.
    #[error(
        "the file {ROUNDS_FILE} is corrupt: {why}. Without it the server could use a ballot twice, so it does not \
         start. Put the original file back"
    )]
    Corrupt {
        /// What is wrong with the file.
        why: &'static str,
    },
    /// The file of another server.
    #[error(
        "the file {ROUNDS_FILE} belongs to disk {} and this is disk {}: it was copied. Put the original file back",
        short_disk(*.found), short_disk(*.expected)
    )]
    Foreign {
        /// The storage id in the file.
        found: u64,
        /// The storage id of this data directory.
        expected: u64,
    },
    /// A file of another format version.
    #[error(
        "the file {ROUNDS_FILE} has format {found}, and this program reads format {VERSION}: use the program that \
             wrote it"
    )]
    Version {
        /// The format version of the file.
        found: u32,
    },
    /// An earlier write failed: the file is not used again in this process.
    #[error("an earlier write to the file {ROUNDS_FILE} failed: this process must stop")]
    Failed,
}

impl BallotStoreError {
    /// Whether the only problem is that the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, BallotStoreError::Io { source, .. } if is_full(source))
    }
}

/// The file of reserved rounds.
#[derive(Debug)]
pub struct BallotStore<F: Files> {
    file: F::File,
    owner: u64,
    reserved: u64,
    has_failed: bool,
}

impl<F: Files> BallotStore<F> {
    /// Reads the file, or creates it. If it is missing and `must_exist` is set, this is an error. `owner` is the
    /// storage id of the server.
    pub fn open(files: F, owner: u64, must_exist: bool) -> Result<BallotStore<F>, BallotStoreError> {
        let failed = |action| move |source| BallotStoreError::Io { action, source };
        if read_if_present(&files, ROUNDS_FILE).map_err(failed("read"))?.is_none() {
            if must_exist {
                return Err(BallotStoreError::Missing);
            }
            replace(&files, ROUNDS_FILE, &bytes(0, owner)).map_err(failed("make"))?;
        }
        let file = files.open(ROUNDS_FILE).map_err(failed("open"))?;
        // The previous process may have crashed before its sync, or because of it. Syncing first makes durable what is
        // read now, its name included.
        file.sync_data().map_err(failed("sync"))?;
        file.forget_cached().map_err(failed("read"))?;
        files.sync_dir().map_err(failed("sync"))?;
        let found = files.read(ROUNDS_FILE).map_err(failed("read"))?;
        Ok(BallotStore { reserved: read(&found, owner)?, file, owner, has_failed: false })
    }

    /// The proposer's record on disk.
    pub fn record(&self) -> ProposerRecord {
        ProposerRecord::RoundsReserved(self.reserved)
    }

    fn write(&mut self, reserved: u64) -> Result<(), BallotStoreError> {
        if self.has_failed {
            return Err(BallotStoreError::Failed);
        }
        let written = self.file.write_at(0, &bytes(reserved, self.owner)).and_then(|()| self.file.sync_data());
        self.has_failed = written.is_err();
        written.map_err(|source| BallotStoreError::Io { action: "write", source })?;
        self.reserved = reserved;
        Ok(())
    }
}

impl<F: Files> StableStore<ProposerRecord> for BallotStore<F> {
    type Error = BallotStoreError;

    fn commit(&mut self, records: &[ProposerRecord]) -> Result<(), BallotStoreError> {
        let reserved = records.iter().map(|ProposerRecord::RoundsReserved(round)| *round).max().unwrap_or(0);
        // A higher number implies every lower one.
        self.write(reserved.max(self.reserved))
    }
}

fn bytes(reserved: u64, owner: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[4..12].copy_from_slice(MAGIC);
    bytes[12..16].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&owner.to_le_bytes());
    bytes[24..32].copy_from_slice(&reserved.to_le_bytes());
    let sum = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn read(bytes: &[u8], owner: u64) -> Result<u64, BallotStoreError> {
    let corrupt = |why| BallotStoreError::Corrupt { why };
    let bytes: &[u8; BYTES] = bytes.try_into().map_err(|_| corrupt("its length is wrong"))?;
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(number)
    };
    if crc32c::crc32c(&bytes[4..]) != number(0) as u32 {
        return Err(corrupt("its checksum is wrong"));
    }
    if bytes[4..12] != *MAGIC {
        return Err(corrupt("it is not a file of reserved rounds"));
    }
    let version = number(8) >> 32;
    if version != u64::from(VERSION) {
        return Err(BallotStoreError::Version { found: version as u32 });
    }
    if number(16) != owner {
        return Err(BallotStoreError::Foreign { found: number(16), expected: owner });
    }
    Ok(number(24))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::{InjectedFailure, MemoryFiles};

    const OWNER: u64 = 0x5eed;

    fn reserved(files: &MemoryFiles) -> u64 {
        let ProposerRecord::RoundsReserved(reserved) = BallotStore::open(files.clone(), OWNER, true).unwrap().record();
        reserved
    }

    #[test]
    fn crash_at_any_step_leaves_the_acknowledged_number_or_the_next() {
        for seed in 0..16 {
            let mut operation = 0;
            loop {
                let files = MemoryFiles::new();
                files.fail(operation, InjectedFailure::Stop);
                let (mut acknowledged, mut tried) = (None, 0);
                if let Ok(mut rounds) = BallotStore::open(files.clone(), OWNER, false) {
                    acknowledged = Some(0);
                    for round in [1_024, 2_048, 4_096] {
                        tried = round;
                        match rounds
                            .commit(&[ProposerRecord::RoundsReserved(round - 1), ProposerRecord::RoundsReserved(round)])
                        {
                            Ok(()) => acknowledged = Some(round),
                            Err(_) => break,
                        }
                    }
                }
                files.power_cut(seed);
                match acknowledged {
                    None => drop(BallotStore::open(files.clone(), OWNER, false).unwrap()),
                    Some(low) => {
                        assert!([low, tried].contains(&reserved(&files)), "operation {operation}, seed {seed}")
                    }
                }
                let found = reserved(&files);
                files.power_cut(seed);
                assert_eq!(reserved(&files), found, "opening changes nothing");
                if acknowledged == Some(4_096) {
                    break;
                }
                operation += 1;
            }
            assert!(operation > 12, "only {operation} steps");
        }
    }

    #[test]
    fn bytes_read_by_a_new_process_are_durable() {
        for seed in 0..16 {
            let files = MemoryFiles::new();
            drop(BallotStore::open(files.clone(), OWNER, false).unwrap());
            // Crashes after writing the file, before syncing it; the machine itself keeps running.
            let mut rounds = BallotStore::open(files.clone(), OWNER, true).unwrap();
            files.fail(1, InjectedFailure::Stop);
            assert!(rounds.commit(&[ProposerRecord::RoundsReserved(9)]).is_err());
            files.restart();
            assert_eq!(reserved(&files), 9);
            files.power_cut(seed);
            assert_eq!(reserved(&files), 9, "seed {seed}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let files = MemoryFiles::new();
        BallotStore::open(files.clone(), OWNER, false).unwrap().commit(&[ProposerRecord::RoundsReserved(77)]).unwrap();
        let whole = files.read(ROUNDS_FILE).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            files.put(ROUNDS_FILE, &bytes);
            let error = BallotStore::open(files.clone(), OWNER, true).unwrap_err();
            assert!(matches!(error, BallotStoreError::Corrupt { .. }), "bit {bit}: {error}");
        }
        for length in 0..whole.len() {
            files.put(ROUNDS_FILE, &whole[..length]);
            assert!(matches!(BallotStore::open(files.clone(), OWNER, true), Err(BallotStoreError::Corrupt { .. })));
        }
        files.put(ROUNDS_FILE, &whole);
        assert_eq!(reserved(&files), 77);
    }

    #[test]
    fn missing_or_foreign_rounds_file_is_refused() {
        let files = MemoryFiles::new();
        assert!(matches!(BallotStore::open(files.clone(), OWNER, true), Err(BallotStoreError::Missing)));
        drop(BallotStore::open(files.clone(), OWNER, false).unwrap());
        assert!(matches!(BallotStore::open(files, OWNER + 1, true), Err(BallotStoreError::Foreign { .. })));
    }

    #[test]
    fn no_write_follows_an_error() {
        let files = MemoryFiles::new();
        let mut rounds = BallotStore::open(files.clone(), OWNER, false).unwrap();
        // The second operation is the sync: what it lost can still be read from the cache, and must not be used.
        files.fail(1, InjectedFailure::Once(io::ErrorKind::Other));
        assert!(matches!(rounds.commit(&[ProposerRecord::RoundsReserved(9)]), Err(BallotStoreError::Io { .. })));
        assert!(matches!(rounds.commit(&[ProposerRecord::RoundsReserved(10)]), Err(BallotStoreError::Failed)));
        assert_eq!(reserved(&files), 0);
    }

    #[test]
    fn full_disk_does_not_stop_the_rounds_file() {
        let files = MemoryFiles::new();
        drop(BallotStore::open(files.clone(), OWNER, false).unwrap());
        files.set_capacity(Some(0));
        let mut rounds = BallotStore::open(files.clone(), OWNER, true).unwrap();
        rounds.commit(&[ProposerRecord::RoundsReserved(9)]).unwrap();
        assert_eq!(reserved(&files), 9);
    }

    #[test]
    fn a_lower_number_never_replaces_a_higher_one() {
        let files = MemoryFiles::new();
        let mut rounds = BallotStore::open(files.clone(), OWNER, false).unwrap();
        rounds.commit(&[ProposerRecord::RoundsReserved(9)]).unwrap();
        rounds.commit(&[ProposerRecord::RoundsReserved(3)]).unwrap();
        assert_eq!(reserved(&files), 9);
    }
}
