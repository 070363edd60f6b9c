//! Where lines end up: whole groups of them, in memory or in a file. A file can be opened again by its name, and one
//! with a bound makes way for a new one when it is reached.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes that grow at their end, and can be cut back.
pub(super) trait Medium: Send {
    /// Adds bytes at the end, in one write if the medium takes them whole.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// How long it is now. Others may have cut it: whoever copies a log file away can empty it behind our back.
    fn length(&self) -> u64;

    /// Keeps no more than so many bytes.
    fn cut(&mut self, length: u64) -> io::Result<()>;

    /// The bytes, if they are in memory.
    fn bytes(&self) -> &[u8] {
        &[]
    }

    /// Called before so many bytes are added, while the medium holds whole groups only.
    fn make_room(&mut self, _bytes: u64) {}

    /// Begins to write to what has the medium's name now.
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

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.truncate(length as usize);
        Ok(())
    }

    fn bytes(&self) -> &[u8] {
        self
    }
}

/// Keeps nothing: only the terminal shows the lines.
pub(super) struct Nowhere;

impl Medium for Nowhere {
    fn append(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> u64 {
        0
    }

    fn cut(&mut self, _length: u64) -> io::Result<()> {
        Ok(())
    }
}

impl Medium for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn length(&self) -> u64 {
        // A length that is not known cuts nothing off.
        self.metadata().map_or(u64::MAX, |data| data.len())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        // To lengthen a file would fill it with zeros.
        if self.length() > length { self.set_len(length) } else { Ok(()) }
    }
}

/// How much is kept of the lines of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// A file that would grow beyond this is renamed to `NAME.1`, that one to `NAME.2` and so on, and a new one is
    /// begun.
    pub file_bytes: u64,
    /// How many renamed files are kept.
    pub keep: u32,
}

/// A file with a name.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    bound: Option<LogLimits>,
}

impl LogFile {
    /// Opens a file for more lines, readable for this user alone if it is new: lines show keys and values.
    pub(super) fn open(path: &Path, bound: Option<LogLimits>) -> io::Result<LogFile> {
        Ok(LogFile { path: path.to_path_buf(), file: append_to(path)?, bound })
    }

    fn with_suffix(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    fn kept(&self, n: u32) -> PathBuf {
        self.with_suffix(&format!(".{n}"))
    }

    /// Begins a new file, and drops those that are too many. If that fails, the old file takes the lines.
    fn rotate(&mut self, keep: u32) -> io::Result<()> {
        // The new one comes first: without it nothing is renamed.
        let new = self.with_suffix(".new");
        remove(&new)?;
        let file = options().create_new(true).open(&new)?;
        for n in (1..keep).rev() {
            rename(&self.kept(n), &self.kept(n + 1))?;
        }
        rename(&self.path, &self.kept(1))?;
        fs::rename(&new, &self.path)?;
        self.file = file;
        // More of them were kept before if the bound was another then.
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

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.file.cut(length)
    }

    fn make_room(&mut self, bytes: u64) {
        let Some(LogLimits { file_bytes, keep }) = self.bound else { return };
        let length = self.length();
        if length > 0 && length.saturating_add(bytes) > file_bytes {
            // A file that grows too long is better than lines that are lost; the next group tries again.
            let _ = self.rotate(keep);
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = append_to(&self.path)?;
        Ok(())
    }
}

/// A file of several processes. One at a time adds a group to it, behind the last whole line: half a line is what
/// somebody left who was killed while he wrote.
pub(super) struct SharedFile(File);

impl SharedFile {
    /// Opens the file for more lines.
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

    fn cut(&mut self, _length: u64) -> io::Result<()> {
        // It holds whole groups only, and those behind may be of others.
        Ok(())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).read(true).mode(0o600);
    options
}

/// Half a line at the end, which a kill or a full disk can leave, is cut off: the next line must begin on its own.
fn append_to(path: &Path) -> io::Result<File> {
    let mut file = options().create(true).open(path)?;
    let length = file.metadata()?.len();
    let whole = end_of_last_line(&mut file, length)?;
    if whole < length {
        file.set_len(whole)?;
    }
    Ok(file)
}

/// Renames a file; fine if there is none, for somebody may have moved it away.
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

/// How many bytes of the file are whole lines.
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

/// A medium that holds whole groups of lines only.
pub(super) struct Sink {
    medium: Box<dyn Medium>,
    /// How many bytes of it were whole groups before the last one was added.
    whole: u64,
    /// The last group was not taken; a part of it may stand behind the whole ones.
    torn: bool,
}

impl Sink {
    pub(super) fn new(medium: impl Medium + 'static) -> Sink {
        Sink { medium: Box::new(medium), whole: 0, torn: false }
    }

    /// Takes a group, or nothing of it.
    pub(super) fn take(&mut self, group: &[u8]) {
        if self.torn && self.medium.cut(self.whole).is_err() {
            return;
        }
        self.medium.make_room(group.len() as u64);
        self.whole = self.medium.length();
        self.torn = self.medium.append(group).is_err();
        if self.torn {
            // Should this fail, the next group tries again before it is written.
            let _ = self.medium.cut(self.whole);
        }
    }

    /// Whether the last group was not taken.
    pub(super) fn has_refused(&self) -> bool {
        self.torn
    }

    /// Goes on in what has the medium's name now, without half a group at its end.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.medium.reopen()?;
        self.torn = false;
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
