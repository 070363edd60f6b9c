//! Reader for the log files of a run. It also works while the run's processes still write.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::FORMAT;
use super::line::{Line, LineError, LineId, ProcessId};
use crate::role::ServerId;

/// Why a directory is not a readable run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The directory or a file in it cannot be read.
    #[error("cannot read {path}: {cause}")]
    Unreadable {
        /// The directory or file.
        path: PathBuf,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// The directory has no log files.
    #[error("{0} has no *.log file. Name the directory of a run, such as runs/latest")]
    Empty(PathBuf),
    /// A process has written lines of another format version.
    #[error(
        "{file}:{number}: these lines have format {format}, and this program reads format {FORMAT}. Read them with the \
         version of the program that wrote them"
    )]
    OtherFormat {
        /// Name of the file.
        file: String,
        /// Number of its BOOT line, from 1.
        number: usize,
        /// The format version that this line states.
        format: String,
    },
    /// A text that is not the last of its file is not a line.
    #[error("{file}:{number}: {cause}\n  {text}")]
    Malformed {
        /// Name of the file.
        file: String,
        /// The line's number in the file, from 1.
        number: usize,
        /// Why it is not a line.
        cause: LineError,
        /// The text itself.
        text: String,
    },
}

/// One line of a run, with its place in the files.
#[derive(Clone, Debug)]
pub struct RunLine {
    /// The parsed line.
    pub line: Line,
    /// Name of the file that holds it.
    pub file: Arc<str>,
    /// Its number in that file, from 1.
    pub number: usize,
    /// The line was written while the run was being read. The lines that it rests on may be in a file that had been
    /// read already. So it may serve as evidence, but needs none itself.
    pub late: bool,
}

/// The lines of a run, by file and in the order in which they were written to it.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// All lines.
    pub lines: Vec<RunLine>,
    /// Files whose last line was torn and is ignored.
    pub torn: Vec<String>,
    /// Hashes of the lines. Lines that a file and its copy share count once.
    seen: HashSet<u128>,
}

impl Run {
    /// Reads every `*.log` file of a directory, each after its rotated older files (`*.log.1`, `*.log.2`, ...).
    pub fn read(dir: &Path) -> Result<Run, RunError> {
        let files = log_files(dir)?;
        if files.is_empty() {
            return Err(RunError::Empty(dir.to_owned()));
        }
        // Two passes, because the processes may still write. A process writes a line to its file before it sends the
        // message. So everything that the lines of the first pass rest on is in the files when the second pass begins.
        let mut lengths = Vec::with_capacity(files.len());
        for path in &files {
            lengths.push(fs::metadata(path).map_err(unreadable(path))?.len());
        }
        let mut run = Run::default();
        for (path, length) in files.iter().zip(lengths) {
            let bytes = fs::read(path).map_err(unreadable(path))?;
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
            run.add(&name, &bytes, length)?;
        }
        Ok(run)
    }

    /// Adds the content of a file. Its first `early` bytes were there when the reading began.
    pub fn add(&mut self, name: &str, bytes: &[u8], early: u64) -> Result<(), RunError> {
        let file: Arc<str> = name.into();
        let mut end = 0;
        for (at, text) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            end += text.len() as u64;
            let Some(text) = text.strip_suffix(b"\n") else {
                self.torn.push(name.to_owned());
                break;
            };
            if !self.seen.insert(xxh3_128(text)) {
                continue;
            }
            let text = String::from_utf8_lossy(text);
            if let Some(format) = other_format(&text) {
                return Err(RunError::OtherFormat { file: name.to_owned(), number: at + 1, format });
            }
            let line = text.parse().map_err(|cause| RunError::Malformed {
                file: name.to_owned(),
                number: at + 1,
                cause,
                text: text.clone().into_owned(),
            })?;
            self.lines.push(RunLine { line, file: file.clone(), number: at + 1, late: end > early });
        }
        Ok(())
    }

    /// The line at an index.
    pub fn line(&self, at: usize) -> &Line {
        &self.lines[at].line
    }

    /// A run of only these lines, in this order.
    pub fn only(&self, lines: &[usize]) -> Run {
        let lines = lines.iter().map(|at| self.lines[*at].clone()).collect();
        Run { lines, torn: self.torn.clone(), seen: HashSet::new() }
    }

    /// The indices of each process's lines, in the order in which they were written.
    pub fn by_process(&self) -> BTreeMap<&ProcessId, Vec<usize>> {
        let mut by_process: BTreeMap<&ProcessId, Vec<usize>> = BTreeMap::new();
        for (at, entry) in self.lines.iter().enumerate() {
            by_process.entry(&entry.line.id.process).or_default().push(at);
        }
        for lines in by_process.values_mut() {
            self.put_in_order(lines, |line| line.id.n);
        }
        by_process
    }

    /// Puts lines of one process, or of one server, in the order in which they were written. Within a file, lines
    /// already have that order. If the lines are scattered over several files, their numbers give the order. This holds
    /// while the numbers agree with the times, which only grow within one incarnation. If numbers repeat, or restart
    /// within one file, more than one process had that name. Then the order of the files or of the times is used: the
    /// one in which the numbers restart less often.
    pub(super) fn put_in_order<K: Ord>(&self, lines: &mut [usize], number: impl Fn(&Line) -> K) {
        let number = |at: &usize| number(self.line(*at));
        let beginnings = |lines: &[usize]| lines.windows(2).filter(|pair| number(&pair[0]) >= number(&pair[1])).count();
        let in_files = beginnings(lines);
        if in_files == 0 {
            return;
        }
        let grows = |pair: &[usize]| self.line(pair[0]).time <= self.line(pair[1]).time;
        let is_of_one = |pair: &[usize]| self.line(pair[0]).id.process == self.line(pair[1]).id.process;
        // Each line of a file was written after those above it.
        let is_in_one_file = |pair: &[usize]| self.lines[pair[0]].file == self.lines[pair[1]].file;
        let begins_within_a_file =
            lines.windows(2).any(|pair| number(&pair[0]) >= number(&pair[1]) && is_in_one_file(pair));
        let mut sorted = lines.to_vec();
        sorted.sort_by_key(number);
        let goes_with_time = |pair: &[usize]| grows(pair) || !(is_of_one(pair) || begins_within_a_file);
        if beginnings(&sorted) > 0 || !sorted.windows(2).all(goes_with_time) {
            sorted.copy_from_slice(lines);
            sorted.sort_by_key(|at| self.line(*at).time);
            if in_files <= beginnings(&sorted) {
                return;
            }
        }
        lines.copy_from_slice(&sorted);
    }

    /// The indices of each server's lines, incarnation after incarnation.
    pub fn by_server(&self) -> BTreeMap<ServerId, Vec<usize>> {
        let mut by_server: BTreeMap<ServerId, Vec<usize>> = BTreeMap::new();
        // Processes are ordered by server and incarnation.
        for (process, lines) in self.by_process() {
            if let Some(server) = process.as_server() {
                by_server.entry(server).or_default().extend(lines);
            }
        }
        by_server
    }

    /// The index of the line with each id.
    pub fn by_id(&self) -> BTreeMap<&LineId, usize> {
        self.lines.iter().enumerate().map(|(at, entry)| (&entry.line.id, at)).collect()
    }
}

/// The format version that a BOOT line names, if it differs from [`FORMAT`]. The first format had no number. The line
/// is not parsed for this: words of another format may have other meanings.
fn other_format(line: &str) -> Option<String> {
    let mut words = line.split_ascii_whitespace();
    if words.nth(4) != Some("BOOT") {
        return None;
    }
    let format = words.find_map(|word| word.strip_prefix("lines=")).unwrap_or("1");
    (format != FORMAT.to_string()).then(|| format.to_owned())
}

/// The log files of a directory by name, each after its rotated older files: of `server-1.log.2`, `server-1.log.1` and
/// `server-1.log`, the first holds the oldest lines.
pub fn log_files(dir: &Path) -> Result<Vec<PathBuf>, RunError> {
    let mut files = Vec::new();
    for file in fs::read_dir(dir).map_err(unreadable(dir))? {
        let path = file.map_err(unreadable(dir))?.path();
        if let Some(place) = place_of(&path).filter(|_| path.is_file()) {
            files.push((place, path));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// Sort key of a log file among those of its directory; None if the file is not a log file.
fn place_of(path: &Path) -> Option<(PathBuf, Reverse<u64>)> {
    let extension = path.extension()?.to_str()?;
    if extension == "log" {
        return Some((path.to_owned(), Reverse(0)));
    }
    let number = extension.parse().ok().filter(|number| *number > 0)?;
    let newest = path.with_extension("");
    (newest.extension()? == "log").then_some((newest, Reverse(number)))
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> RunError {
    let path = path.to_owned();
    move |cause| RunError::Unreadable { path, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "2026-08-21T14:03:07.105612Z WARN  s3.1    acceptor DROP     msg=ACCEPT cause=crashed\n";
    const TWO: &str = "2026-08-21T14:03:07.105613Z WARN  s3.2    acceptor DROP     msg=ACCEPT cause=crashed\n";

    #[test]
    fn a_torn_last_line_is_ignored_and_a_malformed_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server-3.log");
        fs::write(dir.path().join("notes.txt"), "no log").unwrap();
        // The torn text would be a complete line with its line break; without one it must be ignored.
        fs::write(&path, format!("{ONE}{}", TWO.trim_end())).unwrap();
        let run = Run::read(dir.path()).unwrap();
        assert_eq!((run.lines.len(), run.torn.len()), (1, 1));
        assert!(!run.lines[0].late);

        fs::write(&path, format!("{ONE}what is this\n{TWO}")).unwrap();
        let error = Run::read(dir.path()).unwrap_err().to_string();
        assert!(error.starts_with("server-3.log:2: ") && error.ends_with("what is this"), "{error}");
    }

    #[test]
    fn lines_of_another_format_are_refused_with_both_numbers() {
        let boot = "2026-08-21T14:03:07.105612Z INFO  s3.1    server   BOOT     version=0.1.0";
        for (rest, format) in [(" cluster=s1,s2,s3 life=1", "1"), (" lines=3 words=new", "3")] {
            let error = Run::default().add("server-3.log", format!("{boot}{rest}\n").as_bytes(), 0).unwrap_err();
            assert!(matches!(&error, RunError::OtherFormat { format: found, .. } if found == format), "{error}");
            assert!(error.to_string().contains("reads format 2"), "{error}");
        }
        let this = format!("{boot} lines={FORMAT} cluster=s1,s2,s3\n{ONE}");
        assert!(Run::default().add("server-3.log", this.as_bytes(), 0).is_ok());
        let value = ONE.replace("cause=crashed", "cause=crashed -- a BOOT lines=1");
        assert!(Run::default().add("server-3.log", value.as_bytes(), 0).is_ok(), "it is no BOOT line");
    }

    /// The n-th line of server 3.
    fn line(n: u64) -> String {
        format!("2026-08-21T14:03:07.{n:06}Z WARN  s3.{n:<4} acceptor DROP     msg=ACCEPT cause=crashed\n")
    }

    #[test]
    fn rotated_files_are_read_before_the_current_one() {
        let dir = tempfile::tempdir().unwrap();
        let files = [("server-3.log", 12), ("server-3.log.1", 11), ("server-3.log.2", 10), ("server-3.log.10", 1)];
        let others = [("server-3.log.0", 97), ("server-3.log.gz", 98), ("server-3.txt.1", 99)];
        for (name, n) in files.into_iter().chain(others) {
            fs::write(dir.path().join(name), line(n)).unwrap();
        }
        let run = Run::read(dir.path()).unwrap();
        assert_eq!(run.lines.iter().map(|entry| entry.line.id.n).collect::<Vec<_>>(), [1, 10, 11, 12]);
    }

    #[test]
    fn a_line_in_two_files_counts_once_and_scattered_lines_are_put_in_order() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("server-3.log"), [1, 2, 5].map(line).concat()).unwrap();
        fs::write(dir.path().join("server-3-copy.log"), [2, 3, 4].map(line).concat()).unwrap();
        let run = Run::read(dir.path()).unwrap();
        let own = run.by_process().into_values().next().unwrap();
        assert_eq!(own.iter().map(|at| run.line(*at).id.n).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn directory_without_log_files_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Run::read(dir.path()), Err(RunError::Empty(_))));
        assert!(matches!(Run::read(&dir.path().join("nowhere")), Err(RunError::Unreadable { .. })));
    }

    #[test]
    fn lines_added_after_the_first_read_are_late() {
        let mut run = Run::default();
        run.add("server-3.log", format!("{ONE}{TWO}").as_bytes(), ONE.len() as u64).unwrap();
        assert_eq!(run.lines.iter().map(|entry| entry.late).collect::<Vec<_>>(), [false, true]);
    }
}
