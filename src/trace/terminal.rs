//! The terminal's copy of the lines. A terminal may be slow or stopped, so no thread waits for it.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::Level;

use super::color::painted_text;
use super::queued_bytes::{LineBatch, QueuedBytes};

/// Maximum number of batches that wait for the terminal; further ones are not shown.
const QUEUE_MAX: usize = 1_024;

/// Shows lines from its own thread.
pub(super) struct Terminal {
    lines: Sender<TerminalItem>,
    waiting: QueuedBytes,
    /// Number of lines not shown since the last batch that was.
    lines_dropped: AtomicU64,
}

enum TerminalItem {
    Lines { text: LineBatch, levels: Vec<Level>, unseen: u64 },
    Flush(Sender<()>),
}

impl Terminal {
    /// Shows lines on stderr: in color if stderr is a terminal and `NO_COLOR` is not set.
    pub(super) fn stderr() -> io::Result<Terminal> {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        Terminal::new(io::stderr(), io::stderr().is_terminal() && !plain)
    }

    /// Shows lines on this writer.
    pub(super) fn new(to: impl Write + Send + 'static, color: bool) -> io::Result<Terminal> {
        let (lines, items) = bounded(QUEUE_MAX);
        // The thread ends when the last sender is dropped. It is not joined: it may hang in a terminal that accepts
        // nothing.
        thread::Builder::new().name("terminal".into()).spawn(move || show_all(&items, to, color))?;
        Ok(Terminal { lines, waiting: QueuedBytes::default(), lines_dropped: AtomicU64::new(0) })
    }

    /// Queues a batch of lines, or drops it. Never waits.
    pub(super) fn show(&self, text: String, levels: Vec<Level>) {
        let count = levels.len() as u64;
        let unseen = self.lines_dropped.swap(0, Ordering::Relaxed);
        let group = self.waiting.group(text);
        let has_room =
            group.is_some_and(|text| self.lines.try_send(TerminalItem::Lines { text, levels, unseen }).is_ok());
        if !has_room {
            self.lines_dropped.fetch_add(unseen + count, Ordering::Relaxed);
        }
    }

    /// Waits until everything queued is shown; each of its two waits takes at most this time.
    pub(super) fn flush(&self, at_most: Duration) {
        let (done, shown) = bounded(1);
        if self.lines.send_timeout(TerminalItem::Flush(done), at_most).is_ok() {
            // On a time-out, or if the thread is gone, nothing more can be done for the terminal.
            let _ = shown.recv_timeout(at_most);
        }
    }
}

/// The thread: shows what is queued until all senders are dropped.
fn show_all(items: &Receiver<TerminalItem>, mut to: impl Write, color: bool) {
    for item in items {
        let shown = match item {
            TerminalItem::Lines { text, levels, unseen } => show_group(&mut to, color, &text, &levels, unseen),
            // The caller of `flush` may have stopped waiting.
            TerminalItem::Flush(done) => done.send(()).map_err(io::Error::other),
        };
        // A closed terminal is no reason to stop: the file has the lines.
        let _ = shown;
    }
}

fn show_group(to: &mut impl Write, color: bool, text: &str, levels: &[Level], unseen: u64) -> io::Result<()> {
    let mut shown = String::with_capacity(text.len() + 16 * levels.len());
    if unseen > 0 {
        shown.push_str(&format!(
            "({unseen} lines were dropped, because this terminal was too slow; the log file has them)\n"
        ));
    }
    for (line, level) in text.lines().zip(levels) {
        shown.push_str(&if color { painted_text(line, *level) } else { line.to_string() });
        shown.push('\n');
    }
    to.write_all(shown.as_bytes())?;
    to.flush()
}
