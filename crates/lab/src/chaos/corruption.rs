//! Corruption at rest: changes bytes of a server's files, and restores them.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::fault::CorruptionTarget;
use paxos_kv::random::Random;

const SECTOR_BYTES: usize = 512;

/// A byte that was changed.
#[derive(Clone, Debug)]
pub struct FlippedByte {
    file: PathBuf,
    at: u64,
    mask: u8,
}

/// Changes one to eight bytes in one non-empty sector of some file of this part. The result is empty if there is none.
pub fn corrupt(data: &Path, part: CorruptionTarget, random: &mut Random) -> io::Result<Vec<FlippedByte>> {
    let folders: &[&str] = match part {
        CorruptionTarget::Journal => &["journal", "coordinator"],
        CorruptionTarget::Checkpoint => &["checkpoint"],
    };
    let mut sectors = Vec::new();
    for dir in folders {
        let Ok(entries) = fs::read_dir(data.join(dir)) else { continue };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        for file in files.into_iter().filter(|file| file.is_file()) {
            let bytes = fs::read(&file)?;
            let used =
                bytes.chunks(SECTOR_BYTES).enumerate().filter(|(_, sector)| sector.iter().any(|byte| *byte != 0));
            sectors.extend(used.map(|(number, sector)| (file.clone(), number * SECTOR_BYTES, sector.len())));
        }
    }
    let Some(last) = sectors.len().checked_sub(1) else { return Ok(Vec::new()) };
    let (file, start, length) = &sectors[random.within(0..=last as u64) as usize];
    let mut flips: Vec<FlippedByte> = Vec::new();
    for _ in 0..random.within(1..=8) {
        let at = *start as u64 + random.within(0..=*length as u64 - 1);
        if flips.iter().all(|flip| flip.at != at) {
            flips.push(FlippedByte { file: file.clone(), at, mask: random.within(1..=255) as u8 });
        }
    }
    flips.iter().try_for_each(FlippedByte::flip)?;
    Ok(flips)
}

/// Restores the right bytes in files that still exist.
#[cfg(test)]
pub fn undo(flips: &[FlippedByte]) -> io::Result<()> {
    flips.iter().filter(|flip| flip.file.exists()).try_for_each(FlippedByte::flip)
}

impl FlippedByte {
    fn flip(&self) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(&self.file)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.at)?;
        file.write_all_at(&[byte[0] ^ self.mask], self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corruption_changes_some_bytes_and_its_end_restores_them() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("journal")).unwrap();
        let file = dir.path().join("journal/1");
        let mut content = vec![0; 10 * SECTOR_BYTES];
        content[5 * SECTOR_BYTES + 7] = 1;
        fs::write(&file, &content).unwrap();
        for seed in 1..=20 {
            let flips = corrupt(dir.path(), CorruptionTarget::Journal, &mut Random::new(seed, 0)).unwrap();
            let found = fs::read(&file).unwrap();
            let changed: Vec<usize> = (0..content.len()).filter(|at| found[*at] != content[*at]).collect();
            assert_eq!(changed.len(), flips.len());
            assert!(changed.iter().all(|at| at / SECTOR_BYTES == 5), "only bytes of records change: {changed:?}");
            undo(&flips).unwrap();
            assert_eq!(fs::read(&file).unwrap(), content);
        }
        assert!(corrupt(dir.path(), CorruptionTarget::Checkpoint, &mut Random::new(1, 0)).unwrap().is_empty());
    }
}
