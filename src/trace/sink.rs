//! Sinks: where whole batches of lines are stored, in memory or in a file. A file can be reopened by its name. A file
//! with a size limit is rotated when it reaches the limit.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes that are appended at the end, and can be cut back.
pub(super) trait Medium: Send {
    /// Appends bytes, in one write if the medium accepts them whole.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// The current length in bytes. Another process may have cut the file: a log rotation that copies it empties it
    /// afterwards.
    fn length(&self) -> u64;

    /// Cuts the medium back to at most this many bytes.
    fn truncate(&mut self, length: u64) -> io::Result<()>;

    /// The bytes, if they are in memory.
    fn bytes(&self) -> &[u8] {
        &[]
    }

    /// Called before this many bytes are appended, while the medium holds whole batches only.
    fn make_room(&mut self, _bytes: u64) {}

    /// Switches to the file that now has the medium's name.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Medium for Vec<u8> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.truncate(length as usize);
        Ok(())
    }

    fn bytes(&self) -> &[u8] {
        self
    }
}

/// Stores nothing: only the terminal shows the lines.
pub(super) struct NullMedium;

impl Medium for NullMedium {
    fn append(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> u64 {
        0
    }

    fn truncate(&mut self, _length: u64) -> io::Result<()> {
        Ok(())
    }
}

impl Medium for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn length(&self) -> u64 {
        // An unknown length must not make a later cut remove anything.
        self.metadata().map_or(u64::MAX, |data| data.len())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        // Lengthening a file would fill it with zeros.
        if self.length() > length { self.set_len(length) } else { Ok(()) }
    }
}

/// Limits on the log files of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Maximum size in bytes. A file that would exceed it is renamed to `NAME.1`, that one to `NAME.2` and so on, and a
    /// new file is started.
    pub file_bytes: u64,
    /// Number of renamed files to keep.
    pub keep: u32,
}

/// A named log file.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    limits: Option<LogLimits>,
}

impl LogFile {
    /// Opens a file for appending. A new file is readable by this user only, because lines show keys and values.
    pub(super) fn open(path: &Path, bound: Option<LogLimits>) -> io::Result<LogFile> {
        Ok(LogFile { path: path.to_path_buf(), file: append_to(path)?, limits: bound })
    }

    fn with_suffix(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    fn kept(&self, n: u32) -> PathBuf {
        self.with_suffix(&format!(".{n}"))
    }

    /// Starts a new file, and removes those beyond `keep`. If that fails, the old file continues to receive the lines.
    fn rotate(&mut self, keep: u32) -> io::Result<()> {
        // Create the new file first: if that fails, nothing is renamed.
        let new = self.with_suffix(".new");
        remove(&new)?;
        let file = options().create_new(true).open(&new)?;
        for n in (1..keep).rev() {
            rename(&self.kept(n), &self.kept(n + 1))?;
        }
        rename(&self.path, &self.kept(1))?;
        fs::rename(&new, &self.path)?;
        self.file = file;
        // More files may exist if an earlier limit was higher.
        let mut n = keep + 1;
        while fs::remove_file(self.kept(n)).is_ok() {
            n += 1;
        }
        Ok(())
    }
}

impl Medium for LogFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes)
    }

    fn length(&self) -> u64 {
        self.file.length()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }

    fn make_room(&mut self, bytes: u64) {
        let Some(LogLimits { file_bytes, keep }) = self.limits else { return };
        let length = self.length();
        if length > 0 && length.saturating_add(bytes) > file_bytes {
            // A file that is too long is better than lost lines; the next batch tries again.
            let _ = self.rotate(keep);
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = append_to(&self.path)?;
        Ok(())
    }
}

/// A file that several processes share. One process at a time appends a batch after the last whole line. A partial line
/// at the end was left by a process that was killed during its write.
pub(super) struct SharedFile(File);

impl SharedFile {
    /// Opens the file for appending.
    pub(super) fn open(path: &Path) -> io::Result<SharedFile> {
        Ok(SharedFile(options().create(true).open(path)?))
    }

    fn append_locked(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = self.0.metadata()?.len();
        let whole = end_of_last_line(&mut self.0, length)?;
        if whole < length {
            self.0.set_len(whole)?;
        }
        self.0.write_all(bytes).or_else(|error| self.0.set_len(whole).and(Err(error)))
    }
}

impl Medium for SharedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.lock()?;
        let appended = self.append_locked(bytes);
        self.0.unlock().and(appended)
    }

    fn length(&self) -> u64 {
        self.0.length()
    }

    fn truncate(&mut self, _length: u64) -> io::Result<()> {
        // The file holds whole batches only, and later ones may belong to other processes.
        Ok(())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).read(true).mode(0o600);
    options
}

/// Cuts off a partial line at the end, which a kill or a full disk can leave: the next line must start on a line of its
/// own.
fn append_to(path: &Path) -> io::Result<File> {
    let mut file = options().create(true).open(path)?;
    let length = file.metadata()?.len();
    let whole = end_of_last_line(&mut file, length)?;
    if whole < length {
        file.set_len(whole)?;
    }
    Ok(file)
}

/// Renames a file. A missing file is fine, because another program may have moved it away.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    absent_is_fine(fs::rename(from, to))
}

fn remove(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_file(path))
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Number of bytes of the file that are whole lines.
fn end_of_last_line(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    let mut block = [0; 4_096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let block = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// A medium that holds whole batches of lines only.
pub(super) struct Sink {
    medium: Box<dyn Medium>,
    /// Number of bytes in whole batches before the last one was appended.
    whole_bytes: u64,
    /// The last batch was not stored; a part of it may follow the whole ones.
    is_torn: bool,
}

impl Sink {
    pub(super) fn new(medium: impl Medium + 'static) -> Sink {
        Sink { medium: Box::new(medium), whole_bytes: 0, is_torn: false }
    }

    /// Stores a batch whole, or nothing of it.
    pub(super) fn take(&mut self, group: &[u8]) {
        if self.is_torn && self.medium.truncate(self.whole_bytes).is_err() {
            return;
        }
        self.medium.make_room(group.len() as u64);
        self.whole_bytes = self.medium.length();
        self.is_torn = self.medium.append(group).is_err();
        if self.is_torn {
            // If this fails, the next batch cuts again before it is written.
            let _ = self.medium.truncate(self.whole_bytes);
        }
    }

    /// Whether the last batch was not stored.
    pub(super) fn has_refused(&self) -> bool {
        self.is_torn
    }

    /// Continues in the file that now has the medium's name, without a partial batch at its end.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.medium.reopen()?;
        self.is_torn = false;
        Ok(())
    }

    /// The bytes, if they are in memory.
    pub(super) fn bytes(&self) -> &[u8] {
        self.medium.bytes()
    }
}

#[cfg(test)]
#[path = "sink_tests.rs"]
mod tests;
