//! The few file operations that stable storage needs, and nothing more: one flat folder of files.
//!
//! Everything durable goes through [`Files`], so that the very same code runs on a real folder ([`RealFiles`]) and on
//! one in memory whose power can be cut at any operation ([`MemoryFiles`]).
//!
//! What a power cut may do, and what both implementations therefore promise no more than:
//!
//! * bytes are durable once [`StableFile::sync_data`] has returned; before that each *sector* of 512 bytes is, on its
//!   own, either the old or the new one. A sector is never half of each;
//! * a name (created, renamed or removed) is durable once [`Files::sync_folder`] has returned; before that each such
//!   change has, on its own, happened or not. A rename happens whole or not at all;
//! * after a failed sync nobody knows what is on the disk, and asking again does not help: the kernel may have marked
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

/// What a disk writes whole or not at all, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// A flat folder of files. A handle: clones are the same folder.
pub trait Files: Clone + Send + Sync + 'static {
    /// An open file.
    type File: StableFile;

    /// The names in the folder, sorted.
    fn list(&self) -> io::Result<Vec<String>>;

    /// The bytes of a file, all of them.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Opens a file that exists, for writing in place.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Makes a new file of so many zero bytes and syncs it (its name is durable only after
    /// [`sync_folder`](Files::sync_folder)). An error may leave a part of it behind.
    fn create_zeroed(&self, name: &str, bytes: u64) -> io::Result<Self::File>;

    /// Gives a file another name, in place of the file that had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable.
    fn sync_folder(&self) -> io::Result<()>;

    /// How many bytes can still be added to files.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file. The journal's never change their length.
pub trait StableFile: Debug + Send + Sync + 'static {
    /// Writes all the bytes at this place, which lies within the file.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the bytes written so far, and the length, durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Fills the buffer with the bytes at this place, which lies within the file.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Its length, in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Gives it another length. Bytes that are new are zero, and there is room for them on the disk.
    fn set_length(&self, bytes: u64) -> io::Result<()>;

    /// Forgets what the machine remembers of the file: what is read next is what the disk holds. To be called on a file
    /// that was just synced, by whoever must not believe the memory of a machine whose syncs may have failed.
    fn forget_cached(&self) -> io::Result<()>;
}

/// Whether there was no room for what was tried, on the disk or among the open files: nothing was begun, and later
/// there may be some.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) || is_short_of_files(error)
}

/// A file that may not grow any more (`ulimit -f`) is from now on an error of the write, as a full disk is. The system
/// would end the process.
pub fn outlive_file_size_limit() {
    // If the signal cannot be heard, the process is as it was.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
}

/// Whether this process, or this machine, may open no more files for now.
pub fn is_short_of_files(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| number == Some(errno.raw_os_error()))
}

/// Removes a file; fine if there is none.
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

/// The name under which a file is made before it takes its place.
pub fn name_in_making(name: &str) -> String {
    format!("{name}.new")
}

/// Puts these bytes in place of the file's, durably and as one step: after a crash at any moment the file holds either
/// the old bytes or the new ones, and the new ones if this has returned.
pub fn replace<F: Files>(files: &F, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = name_in_making(name);
    let file = made(files, &new, bytes.len() as u64)?;
    take_place(files, name, &new, &file, bytes)
}

/// As [`replace`], but the file of another name becomes the new one if it is there and long enough: then no room is
/// needed. See [`reserve`].
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
    files.sync_folder()
}

/// Makes a file of so many zero bytes that stands ready for [`replace_with`]. It is called so only when it is whole.
pub fn reserve<F: Files>(files: &F, name: &str, bytes: u64) -> io::Result<()> {
    let new = name_in_making(name);
    made(files, &new, bytes)?;
    files.rename(&new, name)
}

/// A new file of zero bytes in place of any of this name. If the disk has no room for it, nothing of it stays.
fn made<F: Files>(files: &F, name: &str, bytes: u64) -> io::Result<F::File> {
    remove_if_present(files, name)?;
    let made = files.create_zeroed(name, bytes);
    if made.is_err() {
        // Room on the disk matters more than why this fails too.
        remove_if_present(files, name).unwrap_or_default();
    }
    made
}
