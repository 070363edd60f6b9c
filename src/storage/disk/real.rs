//! A directory of the operating system.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::fstatvfs;

use super::{Files, SECTOR_BYTES, StableFile};

/// Size of the blocks in which zeros are written, in bytes.
const ZEROS_BYTES: usize = 1 << 20;
/// Replaces bytes that the disk cannot read.
const UNREADABLE: u8 = 0xdb;

/// A directory of the operating system. A handle: clones are the same directory.
#[derive(Clone, Debug)]
pub struct RealFiles {
    path: Arc<Path>,
    /// The open directory, for syncing its names.
    dir: Arc<File>,
}

/// An open file of the operating system.
#[derive(Debug)]
pub struct RealFile(File);

impl RealFiles {
    /// Opens a directory that exists.
    pub fn open(path: &Path) -> io::Result<RealFiles> {
        let dir = File::open(path)?;
        if !dir.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(RealFiles { path: path.into(), dir: Arc::new(dir) })
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// A step that changes a real disk. A test can stop its thread at any step, as if the program had crashed there.
pub fn step() -> io::Result<()> {
    #[cfg(test)]
    if !stopping::goes_on() {
        return Err(io::Error::other("the program has crashed"));
    }
    Ok(())
}

impl Files for RealFiles {
    type File = RealFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        match fs::read(self.at(name)) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                read_what_can_be(&self.at(name))
            }
            read => read,
        }
    }

    fn open(&self, name: &str) -> io::Result<RealFile> {
        Ok(RealFile(OpenOptions::new().read(true).write(true).open(self.at(name))?))
    }

    fn create_zeroed(&self, name: &str, bytes: u64) -> io::Result<RealFile> {
        step()?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(self.at(name))?;
        // Written zeros: with blocks that are only reserved, every later sync would also change the file system's
        // tables.
        let zeros = vec![0; (ZEROS_BYTES as u64).min(bytes) as usize];
        let mut offset = 0;
        while offset < bytes {
            let block = (bytes - offset).min(zeros.len() as u64) as usize;
            file.write_all_at(&zeros[..block], offset)?;
            offset += block as u64;
        }
        file.sync_all()?;
        Ok(RealFile(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        step()?;
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        step()?;
        fs::remove_file(self.at(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        step()?;
        self.dir.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let disk = fstatvfs(&*self.dir)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// Reads a file that the disk can only read in part. Unreadable sectors are filled with bytes that no checksum accepts.
/// So they are found to be corrupt, and the rest is not lost with them.
fn read_what_can_be(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = vec![UNREADABLE; file.metadata()?.len() as usize];
    for (n, sector) in bytes.chunks_mut(SECTOR_BYTES).enumerate() {
        if file.read_exact_at(sector, (n * SECTOR_BYTES) as u64).is_err() {
            sector.fill(UNREADABLE);
        }
    }
    Ok(bytes)
}

impl StableFile for RealFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        step()?;
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        step()?;
        // fdatasync: of the file's metadata it syncs the length, if that has changed, and no times.
        self.0.sync_data()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        step()?;
        let before = self.length()?;
        if bytes > before {
            // A hole would not guarantee the space, so the space is reserved before the length is set. If only a part
            // of it is free, ext4 reserves that part, and setting the length together would leave a file of a wrong
            // length.
            if let Err(error) = reserve(&self.0, before, bytes - before) {
                // Frees the part that was reserved; the missing space is the error to report.
                let _ = self.0.set_len(before);
                return Err(error);
            }
        }
        self.0.set_len(bytes)
    }

    fn forget_cached(&self) -> io::Result<()> {
        drop_cache(&self.0)
    }
}

/// Reserves disk space behind the end of a file. A file system that cannot reserve reports a full disk when the space
/// is written.
#[cfg(target_os = "linux")]
fn reserve(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    match fallocate(file, FallocateFlags::KEEP_SIZE, offset, bytes) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// This system cannot reserve space with one call: a full disk is found when the space is written.
#[cfg(not(target_os = "linux"))]
fn reserve(_file: &File, _offset: u64, _bytes: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn drop_cache(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// This system drops no cached pages of a file on request; the file is read as the cache has it.
#[cfg(not(target_os = "linux"))]
fn drop_cache(_file: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) mod stopping {
    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
    }

    /// From now on this thread takes at most this number of steps.
    pub(crate) fn after(steps: u64) {
        LEFT.set(steps);
    }

    pub(super) fn goes_on() -> bool {
        let left = LEFT.get();
        LEFT.set(left.saturating_sub(1));
        left > 0
    }

    /// Number of steps left.
    pub(crate) fn left() -> u64 {
        LEFT.get()
    }
}
