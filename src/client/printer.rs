//! The program's output: data on stdout, everything else on stderr. A failed write to either does not end the program.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Standard output and standard error, shared by threads. A closed reader, such as `head`, is no error. Any other
/// failure to write data is kept for the exit code.
pub struct Printer(Mutex<Streams>);

struct Streams {
    data: Box<dyn Write + Send>,
    notes: Box<dyn Write + Send>,
    failed: Option<io::Error>,
}

impl Printer {
    /// Prints to stdout and stderr.
    pub fn standard() -> Printer {
        Printer::new(io::stdout(), io::stderr())
    }

    /// Prints data to `data`, and everything else to `notes`.
    pub fn new(data: impl Write + Send + 'static, notes: impl Write + Send + 'static) -> Printer {
        Printer(Mutex::new(Streams { data: Box::new(data), notes: Box::new(notes), failed: None }))
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes bytes of data.
    pub fn data(&self, bytes: &[u8]) {
        let mut streams = self.streams();
        if streams.failed.is_none() {
            streams.failed = streams.data.write_all(bytes).and_then(|()| streams.data.flush()).err();
        }
    }

    /// A writer for data that reports when they cannot be written.
    pub fn sink(self: &Arc<Printer>) -> impl Write + use<> {
        Data(self.clone())
    }

    /// Writes a line of data.
    pub fn line(&self, line: impl AsRef<str>) {
        self.data(format!("{}\n", line.as_ref()).as_bytes());
    }

    /// Writes a line that is not data. A failure is ignored: there is no other place to report it.
    pub fn warn(&self, line: impl AsRef<str>) {
        let _ = self.streams().notes.write_all(format!("{}\n", line.as_ref()).as_bytes());
    }

    /// Another printer, whose data and notes are both notes of this one.
    pub fn aside(self: &Arc<Printer>) -> Printer {
        Printer::new(StderrPrinter(self.clone()), StderrPrinter(self.clone()))
    }

    /// Whether data can no longer be written.
    pub fn has_ended(&self) -> bool {
        self.streams().failed.is_some()
    }

    /// Why data could not be written; None if they could, or if only the reader closed the pipe.
    pub fn failure(&self) -> Option<String> {
        let streams = self.streams();
        let failed = streams.failed.as_ref().filter(|error| error.kind() != io::ErrorKind::BrokenPipe);
        failed.map(|error| format!("cannot write to stdout: {error}"))
    }
}

/// Writes data.
struct Data(Arc<Printer>);

impl Write for Data {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.data(bytes);
        match &self.0.streams().failed {
            None => Ok(bytes.len()),
            Some(error) => Err(error.kind().into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to the notes of another printer.
struct StderrPrinter(Arc<Printer>);

impl Write for StderrPrinter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.streams().notes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.streams().notes.flush()
    }
}

/// A table with a header; each column is as wide as its widest cell.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|cell| cell.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let mut push = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    };
    push(&mut head.iter().copied());
    for row in rows {
        push(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    struct FailingOutput(io::ErrorKind);

    impl Write for FailingOutput {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn closed_pipe_is_no_failure_but_a_full_disk_is() {
        for (kind, failure) in [(io::ErrorKind::BrokenPipe, false), (io::ErrorKind::StorageFull, true)] {
            let printer = Printer::new(FailingOutput(kind), FailingOutput(kind));
            printer.line("a");
            printer.line("b");
            printer.warn("c");
            assert_eq!(printer.failure().is_some(), failure, "{kind}");
        }
    }

    #[test]
    fn table_columns_are_aligned_with_their_heads() {
        let rows = [vec!["s1".to_string(), "up".to_string()], vec!["s10".to_string(), "dôwn".to_string()]];
        assert_eq!(table(&["id", "state", "x"], &rows), "id   state  x\ns1   up\ns10  dôwn\n");
    }
}
