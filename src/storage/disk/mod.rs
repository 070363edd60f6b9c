//! The file operations that stable storage needs: one flat directory of files.
//!
//! Everything durable goes through [`Files`]. So the same code runs on a real directory ([`RealFiles`]) and on one in
//! memory whose power can be cut at any operation ([`MemoryFiles`]).
//!
//! Both implementations promise no more than the following, which is what a power cut may do:
//!
//! * Bytes are durable once [`StableFile::sync_data`] has returned. Before that, each *sector* of 512 bytes is on its
//!   own either the old or the new one, never half of each.
//! * A name (created, renamed or removed) is durable once [`Files::sync_dir`] has returned. Before that, each such
//!   change has on its own happened or not. A rename happens whole or not at all.
//! * After a failed sync, the contents of the disk are unknown. Reading again does not help: the kernel may have marked
//!   the lost pages as clean (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).

mod memory;
mod real;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;
use signal_hook::consts::SIGXFSZ;

pub use memory::{InjectedFailure, MemoryFile, MemoryFiles, OperationCounts};
pub(super) use real::step;
#[cfg(test)]
pub(crate) use real::stopping;
pub use real::{RealFile, RealFiles};

/// The unit that a disk writes whole or not at all, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// A flat directory of files. A handle: clones are the same directory.
pub trait Files: Clone + Send + Sync + 'static {
    /// An open file.
    type File: StableFile;

    /// The names in the directory, sorted.
    fn list(&self) -> io::Result<Vec<String>>;

    /// All bytes of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Opens a file that exists, for writing in place.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Creates a new file of `bytes` zeros and syncs it. (Its name is durable only after
    /// [`sync_dir`](Files::sync_dir).) An error may leave a part of the file behind.
    fn create_zeroed(&self, name: &str, bytes: u64) -> io::Result<Self::File>;

    /// Renames a file, replacing any file of the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// Number of bytes that can still be added to files.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file. The journal's files never change their length.
pub trait StableFile: Debug + Send + Sync + 'static {
    /// Writes all the bytes at this offset; they lie within the file.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the bytes written so far, and the length, durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Fills the buffer with the bytes at this offset; they lie within the file.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Length of the file, in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Sets the length of the file. New bytes are zero, and the disk has space for them.
    fn set_length(&self, bytes: u64) -> io::Result<()>;

    /// Drops the operating system's cache of the file: the next read returns what the disk holds. Call it on a file
    /// that was just synced, where an earlier sync may have failed.
    fn forget_cached(&self) -> io::Result<()>;
}

/// Whether space on the disk, or a free file descriptor, was missing: nothing was started, and a later attempt may
/// succeed.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) || is_short_of_files(error)
}

/// From now on a write beyond the file size limit (`ulimit -f`) returns an error, as on a full disk. By default the
/// system would end the process.
pub fn outlive_file_size_limit() {
    // If the signal cannot be handled, the process keeps the default behavior.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
}

/// Whether this process, or this machine, can open no more files for now.
pub fn is_short_of_files(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| number == Some(errno.raw_os_error()))
}

/// Removes a file; succeeds if there is none.
pub fn remove_if_present<F: Files>(files: &F, name: &str) -> io::Result<()> {
    match files.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The bytes of a file, or None if there is no such file.
pub fn read_if_present<F: Files>(files: &F, name: &str) -> io::Result<Option<Vec<u8>>> {
    match files.read(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// The name of a file while it is being written, before the rename.
pub fn name_in_making(name: &str) -> String {
    format!("{name}.new")
}

/// Replaces the bytes of a file durably and in one step. After a crash at any moment the file holds the old bytes or
/// the new ones, and the new ones if this has returned.
pub fn replace<F: Files>(files: &F, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = name_in_making(name);
    let file = made(files, &new, bytes.len() as u64)?;
    take_place(files, name, &new, &file, bytes)
}

/// Like [`replace`], but uses the file `reserve` if it exists and is long enough: then no new space is needed. See
/// [`reserve`].
pub fn replace_with<F: Files>(files: &F, name: &str, reserve: &str, bytes: &[u8]) -> io::Result<()> {
    match files.open(reserve) {
        Ok(file) if file.length()? >= bytes.len() as u64 => {
            file.set_length(bytes.len() as u64)?;
            take_place(files, name, reserve, &file, bytes)
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => replace(files, name, bytes),
    }
}

fn take_place<F: Files>(files: &F, name: &str, new: &str, file: &F::File, bytes: &[u8]) -> io::Result<()> {
    file.write_at(0, bytes)?;
    file.sync_data()?;
    files.rename(new, name)?;
    files.sync_dir()
}

/// Creates a file of `bytes` zeros for [`replace_with`]. It gets its name only when it is whole.
pub fn reserve<F: Files>(files: &F, name: &str, bytes: u64) -> io::Result<()> {
    let new = name_in_making(name);
    made(files, &new, bytes)?;
    files.rename(&new, name)
}

/// Creates a file of zeros, replacing any of this name. If the disk has no space for it, nothing of it remains.
fn made<F: Files>(files: &F, name: &str, bytes: u64) -> io::Result<F::File> {
    remove_if_present(files, name)?;
    let made = files.create_zeroed(name, bytes);
    if made.is_err() {
        // Freeing the disk space matters more than why the removal fails.
        remove_if_present(files, name).unwrap_or_default();
    }
    made
}
