//! What a person at a terminal sees: data on stdout, everything else on stderr, and neither can end the programme.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// Standard output and standard error, shared by threads. A reader that goes away early, as `head` does, is no error;
/// that data could not be written is, and is remembered for the end.
#[derive(Debug, Default)]
pub struct Printer {
    failed: Mutex<Option<io::Error>>,
}

impl Printer {
    /// Writes bytes to stdout.
    pub fn data(&self, bytes: &[u8]) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.is_some() {
            return;
        }
        let mut stdout = io::stdout().lock();
        *failed = stdout.write_all(bytes).and_then(|()| stdout.flush()).err();
    }

    /// Writes a line to stdout.
    pub fn line(&self, line: impl AsRef<str>) {
        self.data(format!("{}\n", line.as_ref()).as_bytes());
    }

    /// Writes a line to stderr. If nobody reads there, nobody can be told so.
    pub fn note(&self, line: impl AsRef<str>) {
        let _ = io::stderr().lock().write_all(format!("{}\n", line.as_ref()).as_bytes());
    }

    /// Why data could not be written, if it could not; that the reader has gone does not count.
    pub fn failure(&self) -> Option<String> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = failed.as_ref().filter(|error| error.kind() != io::ErrorKind::BrokenPipe);
        failed.map(|error| format!("cannot write to stdout: {error}"))
    }
}

/// Columns under their names, each as wide as its widest cell.
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

    #[test]
    fn columns_stand_under_their_names() {
        let rows = [vec!["s1".to_string(), "up".to_string()], vec!["s10".to_string(), "dôwn".to_string()]];
        assert_eq!(table(&["id", "state", "x"], &rows), "id   state  x\ns1   up\ns10  dôwn\n");
    }
}
