//! Writer for the lines of one process.
//!
//! A batch of lines gets consecutive numbers under one lock and goes to the file in one write. So neither another
//! thread nor a kill can separate its lines. A line that cannot be written takes no number: once the file accepts lines
//! again, one `LOST` line gives the number of missing lines.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use jiff::{SignedDuration, Timestamp};
use log::{Level, Log, Metadata, Record};

use super::event::Event;
use super::line::{Line, LineId, ProcessId, Speaker, TraceContext, clean_label, clean_reason};
use super::queued_bytes::{LineBatch, QueuedBytes};
use super::sink::{LogFile, LogLimits, NullMedium, SharedFile, Sink};
use super::terminal::Terminal;

/// A line without number and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingLine {
    /// The part of the process that reports.
    pub role: Speaker,
    /// Label of the client request concerned.
    pub req: Option<String>,
    /// What happened.
    pub event: Event,
    /// The line that caused this one.
    pub parent: Parent,
    /// Why this happened, in plain English.
    pub reason: Option<String>,
}

/// The line that caused a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Parent {
    /// No line.
    #[default]
    None,
    /// This line.
    Line(LineId),
    /// An earlier line of the same batch, by its index.
    Earlier(usize),
}

impl From<Option<LineId>> for Parent {
    fn from(line: Option<LineId>) -> Parent {
        line.map_or(Parent::None, Parent::Line)
    }
}

impl PendingLine {
    /// A line without parent, label and reason.
    pub fn new(role: Speaker, event: Event) -> PendingLine {
        PendingLine { role, req: None, event, parent: Parent::None, reason: None }
    }

    /// A line about a message or request that arrived with this context.
    pub fn about(role: Speaker, event: Event, context: &TraceContext) -> PendingLine {
        PendingLine { role, req: context.req.clone(), event, parent: context.parent.clone().into(), reason: None }
    }

    /// The same line, with a reason.
    pub fn reason(self, why: impl Into<String>) -> PendingLine {
        PendingLine { reason: Some(why.into()), ..self }
    }
}

/// The source of the lines' times.
type LineClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The lines of one process, shared by its threads: a clone writes to the same sink.
#[derive(Clone, Default)]
pub struct Trace {
    shared: Option<Arc<WriterShared>>,
}

struct WriterShared {
    process: ProcessId,
    steps: AtomicBool,
    clock: LineClock,
    logger: env_logger::Logger,
    /// The file. The logger also writes to it, under the lock of `numbering`.
    sink: Arc<Mutex<Sink>>,
    terminal: Option<Terminal>,
    /// A second receiver of the batches, if there is one.
    tap: OnceLock<LineTap>,
    numbering: Mutex<Numbering>,
}

/// State that changes together.
struct Numbering {
    /// The number of the next line.
    next: u64,
    /// The time of the last line. Times of one process only grow, so sorting lines as text keeps their order.
    last: Timestamp,
    /// Number of lines that could not be written since the last successful write.
    lost: u64,
}

impl Trace {
    /// A trace without a reader: nothing is written.
    pub fn disabled() -> Trace {
        Trace { shared: None }
    }

    /// Appends to a file, and with `terminal` also shows the lines on stderr. `RUST_LOG` filters both; a line that it
    /// removes takes no number.
    pub fn to_file(process: ProcessId, path: &Path, terminal: bool) -> io::Result<Trace> {
        Trace::to_bounded_file(process, path, None, terminal)
    }

    /// Like [`Trace::to_file`]; with a bound, a file that reaches its size limit is rotated.
    pub fn to_bounded_file(
        process: ProcessId,
        path: &Path,
        bound: Option<LogLimits>,
        terminal: bool,
    ) -> io::Result<Trace> {
        let filter = std::env::var("RUST_LOG").unwrap_or_default();
        let terminal = terminal.then(Terminal::stderr).transpose()?;
        Ok(Trace::open(process, Sink::new(LogFile::open(path, bound)?), &filter, Arc::new(Timestamp::now), terminal))
    }

    /// Appends to a file that other processes append to at the same time, each under its own name.
    pub fn to_shared_file(process: ProcessId, path: &Path) -> io::Result<Trace> {
        let filter = std::env::var("RUST_LOG").unwrap_or_default();
        Ok(Trace::open(process, Sink::new(SharedFile::open(path)?), &filter, Arc::new(Timestamp::now), None))
    }

    /// Shows the lines on stderr and stores them nowhere; `RUST_LOG` filters them.
    pub fn to_terminal(process: ProcessId) -> io::Result<Trace> {
        let filter = std::env::var("RUST_LOG").unwrap_or_default();
        Ok(Trace::open(process, Sink::new(NullMedium), &filter, Arc::new(Timestamp::now), Some(Terminal::stderr()?)))
    }

    /// Keeps the lines in memory, for [`Trace::text`].
    pub fn to_memory(process: ProcessId) -> Trace {
        Trace::to_memory_at(process, Timestamp::now)
    }

    /// Like [`Trace::to_memory`], with this clock.
    pub fn to_memory_at(process: ProcessId, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Trace {
        Trace::open(process, Sink::new(Vec::new()), "", Arc::new(clock), None)
    }

    fn open(process: ProcessId, sink: Sink, filter: &str, clock: LineClock, terminal: Option<Terminal>) -> Trace {
        let sink = Arc::new(Mutex::new(sink));
        let mut builder = env_logger::Builder::new();
        builder.filter_level(log::LevelFilter::Info).parse_filters(filter);
        builder.format(|to, record| to.write_fmt(*record.args()));
        let logger = builder.target(env_logger::Target::Pipe(Box::new(Pipe(sink.clone())))).build();
        let numbering = Mutex::new(Numbering { next: 1, last: Timestamp::MIN, lost: 0 });
        let steps = AtomicBool::new(true);
        Trace {
            shared: Some(Arc::new(WriterShared {
                process,
                steps,
                clock,
                logger,
                sink,
                terminal,
                tap: OnceLock::new(),
                numbering,
            })),
        }
    }

    /// Switches the recording of protocol steps; it is on by default.
    pub fn show_steps(&self, on: bool) {
        if let Some(shared) = &self.shared {
            shared.steps.store(on, Ordering::Relaxed);
        }
    }

    /// Whether protocol steps are recorded. If not, their trace events need not be made.
    pub fn steps(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.steps.load(Ordering::Relaxed))
    }

    /// Whether every line of a role is recorded, so that a run can be proved from its lines: steps are on, and
    /// `RUST_LOG` removes none of them. A process states this in its BOOT line.
    pub fn is_complete(&self) -> bool {
        let lets_through = |shared: &Arc<WriterShared>| {
            let info = |role: &Speaker| Metadata::builder().level(Level::Info).target(target(*role)).build();
            Speaker::ALL.iter().all(|role| shared.logger.enabled(&info(role)))
        };
        self.steps() && self.shared.as_ref().is_some_and(lets_through)
    }

    /// The process whose lines these are.
    pub fn process(&self) -> Option<&ProcessId> {
        self.shared.as_ref().map(|shared| &shared.process)
    }

    /// Writes one line. None if the line was filtered out, or could not be written.
    pub fn line(&self, draft: PendingLine) -> Option<LineId> {
        self.write_group(std::slice::from_ref(&draft)).pop().flatten()
    }

    /// Writes lines that belong together, in one write. Returns the id of each line; None if a line was filtered out,
    /// or could not be written.
    pub fn write_group(&self, drafts: &[PendingLine]) -> Vec<Option<LineId>> {
        let Some(shared) = self.shared.as_ref().filter(|_| !drafts.is_empty()) else { return vec![None; drafts.len()] };
        let steps = self.steps();
        let shown: Vec<usize> = (0..drafts.len())
            .filter(|at| (steps || !drafts[*at].event.is_step()) && shared.lets_through(&drafts[*at]))
            .collect();
        if shown.is_empty() { vec![None; drafts.len()] } else { shared.write(drafts, &shown) }
    }

    /// The lines of a trace in memory; empty for other traces.
    pub fn text(&self) -> String {
        let Some(shared) = &self.shared else { return String::new() };
        String::from_utf8_lossy(lock(&shared.sink).bytes()).into_owned()
    }

    /// Continues in the file that has the name now: a log rotation has moved the old one away.
    pub fn reopen(&self) -> io::Result<()> {
        let Some(shared) = &self.shared else { return Ok(()) };
        // The lock keeps this from running between a batch and the check that it was stored.
        let _numbering = lock(&shared.numbering);
        lock(&shared.sink).reopen()
    }

    /// Every batch of lines from now on, each with the number of lines that the tap lost before it. Only one tap: a
    /// second caller gets a closed channel.
    pub fn tap(&self) -> Receiver<(u64, LineBatch)> {
        let (to, groups) = bounded(TAP_MAX);
        if let Some(shared) = &self.shared {
            // The first tap stays; a second one's channel closes here.
            let _ = shared.tap.set(LineTap { to, waiting: QueuedBytes::default(), lost: AtomicU64::new(0) });
        }
        groups
    }

    /// Waits until the terminal has shown all lines so far. For the end of a process. Two waits, each at most
    /// `at_most` long.
    pub fn flush(&self, at_most: Duration) {
        if let Some(terminal) = self.shared.as_ref().and_then(|shared| shared.terminal.as_ref()) {
            terminal.flush(at_most);
        }
    }
}

/// Maximum number of batches that wait for the tap.
const TAP_MAX: usize = 1_024;

/// A second receiver of the lines, next to the file. The writer never waits for it.
struct LineTap {
    to: Sender<(u64, LineBatch)>,
    waiting: QueuedBytes,
    /// Number of lines lost since the last batch that the tap accepted.
    lost: AtomicU64,
}

impl LineTap {
    fn take(&self, group: &str) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let has_room =
            self.waiting.group(group.to_string()).is_some_and(|group| self.to.try_send((lost, group)).is_ok());
        if !has_room {
            self.lost.fetch_add(lost + group.lines().count() as u64, Ordering::Relaxed);
        }
    }
}

impl WriterShared {
    fn lets_through(&self, draft: &PendingLine) -> bool {
        self.logger.enabled(&Metadata::builder().level(draft.event.level()).target(target(draft.role)).build())
    }

    fn write(&self, drafts: &[PendingLine], shown: &[usize]) -> Vec<Option<LineId>> {
        let mut numbering = lock(&self.numbering);
        let count = shown.len() as u64 + u64::from(numbering.lost > 0);
        let (mut next, mut time) = (numbering.next, (self.clock)().max(Timestamp::UNIX_EPOCH));
        // The last line of a batch gets the current time; those before it happened earlier.
        time = time.saturating_sub(SignedDuration::from_micros(count as i64 - 1)).unwrap_or(time);
        let mut stamp = |last: &mut Timestamp, next: &mut u64| {
            let soonest = last.saturating_add(SignedDuration::from_micros(1)).unwrap_or(*last);
            *last = whole_micros(time.max(soonest));
            time = last.saturating_add(SignedDuration::from_micros(1)).unwrap_or(*last);
            let n = *next;
            *next += 1;
            (*last, LineId { process: self.process.clone(), n })
        };
        let mut last = numbering.last;
        let mut text = String::with_capacity(192 * shown.len());
        let mut loudest = Vec::with_capacity(shown.len() + 1);
        if numbering.lost > 0 {
            let (time, id) = stamp(&mut last, &mut next);
            let event = Event::Lost { n: numbering.lost };
            push(&mut text, &Line { time, id, role: Speaker::Server, req: None, event, parent: None, reason: None });
            loudest.push(Level::Error);
        }
        let mut ids: Vec<Option<LineId>> = vec![None; drafts.len()];
        for &at in shown {
            let PendingLine { role, req, event, parent: re, reason: why } = drafts[at].clone();
            let re = match re {
                Parent::None => None,
                Parent::Line(line) => Some(line),
                Parent::Earlier(earlier) => ids.get(earlier).cloned().flatten(),
            };
            let (time, id) = stamp(&mut last, &mut next);
            ids[at] = Some(id.clone());
            loudest.push(event.level());
            let line = Line {
                time,
                id,
                role,
                req: req.and_then(clean_label),
                event,
                parent: re,
                reason: why.and_then(clean_reason),
            };
            push(&mut text, &line);
        }
        if self.hand_over(&drafts[shown[0]], &text) {
            *numbering = Numbering { next, last, lost: 0 };
        } else {
            numbering.lost += shown.len() as u64;
            ids.fill(None);
        }
        if let Some(tap) = self.tap.get() {
            tap.take(&text);
        }
        if let Some(terminal) = &self.terminal {
            terminal.show(text, loudest);
        }
        ids
    }

    /// One record, one write: `log` and `env_logger` carry the whole batch. False if the file did not store it.
    fn hand_over(&self, first: &PendingLine, text: &str) -> bool {
        let (level, target) = (first.event.level(), target(first.role));
        self.logger.log(&Record::builder().args(format_args!("{text}")).level(level).target(target).build());
        !lock(&self.sink).has_refused()
    }
}

fn push(text: &mut String, line: &Line) {
    if writeln!(text, "{line}").is_err() {
        unreachable!("a string takes whatever is written to it");
    }
}

/// Lines show microseconds, so the value in memory has no finer part either.
fn whole_micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// The `RUST_LOG` target of a role's lines: `paxos_kv::acceptor`.
fn target(role: Speaker) -> &'static str {
    match role {
        Speaker::Client => "paxos_kv::client",
        Speaker::Server => "paxos_kv::server",
        Speaker::Proposer => "paxos_kv::proposer",
        Speaker::Acceptor => "paxos_kv::acceptor",
        Speaker::Learner => "paxos_kv::learner",
        Speaker::Coordinator => "paxos_kv::coordinator",
        Speaker::Participant => "paxos_kv::participant",
        Speaker::Chaos => "paxos_kv::chaos",
        Speaker::Audit => "paxos_kv::audit",
    }
}

/// Ignores poisoning: every change under these locks is one assignment, so a panic leaves the data whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The logger's path to the sink. It never fails: the writer asks the sink for the result.
struct Pipe(Arc<Mutex<Sink>>);

impl Write for Pipe {
    fn write(&mut self, group: &[u8]) -> io::Result<usize> {
        lock(&self.0).take(group);
        Ok(group.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
