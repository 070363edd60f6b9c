//! Numbers, batches, file errors, filters and the terminal.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;
use std::thread;

use super::super::sink::Medium;
use super::*;
use crate::paxos::{Ballot, Slot};
use crate::role::ServerId;
use crate::trace::{CrashCause, DropCause};

fn s1() -> ProcessId {
    ProcessId::server(ServerId(1), 1)
}

fn lines(trace: &Trace) -> Vec<Line> {
    parse(&trace.text())
}

fn parse(text: &str) -> Vec<Line> {
    text.lines().map(|line| line.parse().unwrap_or_else(|error| panic!("{line}\n{error}"))).collect()
}

fn numbers(lines: &[Line]) -> Vec<u64> {
    lines.iter().map(|line| line.id.n).collect()
}

/// An acceptor's step, with level INFO.
fn accepted(slot: u64) -> PendingLine {
    let ballot = Ballot { round: 3, server: ServerId(1) };
    PendingLine::new(Speaker::Acceptor, Event::Accepted { slot: Slot(slot), ballot, to: ServerId(1) })
}

/// An event that is not a step, with level WARN.
fn dropped() -> PendingLine {
    let event = Event::Drop { msg: "PREPARE".into(), from: None, to: None, cause: DropCause::Crashed, n: None };
    PendingLine::new(Speaker::Acceptor, event)
}

fn open(medium: impl Medium + 'static, filter: &str, terminal: Option<Terminal>) -> Trace {
    Trace::open(s1(), Sink::new(medium), filter, Arc::new(Timestamp::now), terminal)
}

#[test]
fn lines_of_a_group_are_numbered_and_refer_to_each_other() {
    let trace = Trace::to_memory_at(s1(), || "2026-08-21T14:03:07.105388Z".parse().unwrap());
    let second = PendingLine { parent: Parent::Earlier(0), req: Some("c1-5".into()), ..accepted(7) }
        .reason("a reason\nin two lines");
    let ids = trace.write_group(&[dropped(), second]);
    assert_eq!(ids.iter().flatten().map(LineId::to_string).collect::<Vec<_>>(), ["s1.1", "s1.2"]);
    assert_eq!(
        trace.text(),
        "2026-08-21T14:03:07.105387Z WARN  s1.1    acceptor DROP     msg=PREPARE cause=crashed\n\
         2026-08-21T14:03:07.105388Z INFO  s1.2    acceptor ACCEPTED req=c1-5 slot=7 ballot=3.1 to=s1 re=s1.1 \
         -- a reason in two lines\n"
    );
}

#[test]
fn times_of_one_process_grow_even_if_the_clock_does_not() {
    let ticks = Mutex::new(vec![50, 70, 100].into_iter());
    let trace = Trace::to_memory_at(s1(), move || Timestamp::from_second(lock(&ticks).next_back().unwrap()).unwrap());
    for _ in 0..3 {
        trace.write_group(&[accepted(1), accepted(2)]);
    }
    let times: Vec<Timestamp> = lines(&trace).iter().map(|line| line.time).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
}

#[test]
fn many_threads_leave_no_gap_and_tear_no_group() {
    let trace = Trace::to_memory(s1());
    thread::scope(|scope| {
        for writer in 0..8 {
            let trace = trace.clone();
            scope.spawn(move || {
                for group in 0..100 {
                    let size = 1 + (writer + group) % 4;
                    let drafts: Vec<PendingLine> =
                        (0..size).map(|n| accepted(writer * 1_000 + group * 10 + n)).collect();
                    let ids = trace.write_group(&drafts);
                    let first = ids[0].clone().unwrap().n;
                    assert!(ids.iter().flatten().map(|id| id.n).eq(first..first + size), "{ids:?}");
                }
            });
        }
    });
    let lines = lines(&trace);
    assert!(numbers(&lines).into_iter().eq(1..=lines.len() as u64));
    assert!(lines.is_sorted_by(|a, b| a.time < b.time));
}

#[test]
fn a_group_is_one_write() {
    // On a datagram socket each write is one datagram.
    let (near, far) = UnixDatagram::pair().unwrap();
    let trace = open(File::from(OwnedFd::from(near)), "", None);
    trace.write_group(&[accepted(1), dropped(), accepted(2)]);
    trace.line(accepted(3));
    let mut datagram = [0; 4_096];
    let sizes = [0; 2].map(|_| {
        let length = far.recv(&mut datagram).unwrap();
        parse(std::str::from_utf8(&datagram[..length]).unwrap()).len()
    });
    assert_eq!(sizes, [3, 1]);
}

/// A disk that is full from time to time, and stores half of a refused write.
struct FullDisk {
    bytes: Vec<u8>,
    /// For each write, whether it fails, and whether the cut after it fails.
    plan: VecDeque<(bool, bool)>,
    cut_fails: bool,
}

impl FullDisk {
    fn new(plan: &[(bool, bool)]) -> FullDisk {
        FullDisk { bytes: Vec::new(), plan: plan.iter().copied().collect(), cut_fails: false }
    }
}

impl Medium for FullDisk {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (full, cut_fails) = self.plan.pop_front().unwrap_or_default();
        self.cut_fails = cut_fails;
        let taken = if full { bytes.len() / 2 } else { bytes.len() };
        self.bytes.extend_from_slice(&bytes[..taken]);
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn length(&self) -> u64 {
        self.bytes.length()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        if std::mem::take(&mut self.cut_fails) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Medium::truncate(&mut self.bytes, length)
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[test]
fn lines_refused_by_a_full_disk_become_one_lost_line() {
    let trace = open(FullDisk::new(&[(false, false), (true, false), (true, true), (false, false)]), "", None);
    assert!(trace.line(accepted(1)).is_some());
    assert_eq!(trace.write_group(&[accepted(2), accepted(3)]), [None, None]);
    assert_eq!(trace.line(accepted(4)), None);
    assert_eq!(trace.line(accepted(5)).unwrap().n, 3);
    let lines = lines(&trace);
    assert_eq!(numbers(&lines), [1, 2, 3]);
    assert_eq!(lines[1].event, Event::Lost { n: 3 });
}

#[test]
fn nothing_is_written_after_a_torn_line_that_cannot_be_cut() {
    let mut sink = Sink::new(FullDisk::new(&[(true, true), (false, false)]));
    sink.take(b"0123456789\n");
    assert_eq!((sink.has_refused(), sink.bytes()), (true, b"01234".as_slice()), "the cut failed");
    sink.take(b"whole\n");
    assert_eq!((sink.has_refused(), sink.bytes()), (false, b"whole\n".as_slice()));
}

#[test]
fn new_incarnation_appends_after_complete_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server-1.log");
    Trace::to_file(s1(), &path, false).unwrap().write_group(&[dropped(), dropped()]);
    // A partial line from a kill, longer than the block that the search for its beginning reads.
    File::options().append(true).open(&path).unwrap().write_all(&[b'x'; 5_000]).unwrap();
    let trace = Trace::to_file(ProcessId::server(ServerId(1), 2), &path, false).unwrap();
    assert_eq!(trace.line(dropped()).unwrap().to_string(), "s1@2.1");
    let ids: Vec<String> =
        parse(&std::fs::read_to_string(&path).unwrap()).iter().map(|line| line.id.to_string()).collect();
    assert_eq!(ids, ["s1.1", "s1.2", "s1@2.1"]);
}

#[test]
fn a_line_that_is_filtered_out_takes_no_number() {
    let trace = open(Vec::new(), "paxos_kv::acceptor=warn", None);
    let follows = PendingLine { parent: Parent::Earlier(0), ..dropped() };
    let ids = trace.write_group(&[accepted(1), follows]);
    assert_eq!(ids[0], None);
    assert_eq!(ids[1].as_ref().unwrap().n, 1);
    assert!(!trace.is_complete() && Trace::to_memory(s1()).is_complete());
    assert_eq!(lines(&trace)[0].parent, None, "what was left out cannot be pointed at");
}

#[test]
fn without_steps_only_rare_events_are_written() {
    let trace = Trace::to_memory(s1());
    assert!(trace.steps());
    trace.show_steps(false);
    assert!(!trace.steps());
    let crash =
        Event::Crash { cause: CrashCause::Timer, point: None, up: Duration::from_millis(3_230).into(), down: None };
    let ids = trace.write_group(&[accepted(1), PendingLine::new(Speaker::Acceptor, crash)]);
    assert_eq!(ids[0], None);
    assert_eq!(lines(&trace).len(), 1);
}

#[test]
fn disabled_trace_writes_nothing_and_requests_no_steps() {
    let trace = Trace::disabled();
    assert!(!trace.steps());
    assert_eq!(trace.write_group(&[accepted(1), dropped()]), [None, None]);
    assert_eq!(trace.text(), "");
}

#[test]
fn long_label_is_cut() {
    let trace = Trace::to_memory(s1());
    trace.line(PendingLine { req: Some("ü".repeat(1_000)), ..accepted(1) });
    trace.line(PendingLine { req: Some(String::new()), ..accepted(1) });
    let lines = lines(&trace);
    assert_eq!(lines[0].req, Some("ü".repeat(32)));
    assert_eq!(lines[1].req, None);
}

#[test]
fn names_in_messages_are_checked() {
    for name in ["", "s1", "s77", "a b", "a\nb", "a=b", "a.b", "a@2", "x".repeat(33).as_str()] {
        assert!(ProcessId::named(name).is_err(), "{name}");
        let bytes = crate::codec::encode(&(1_u32, name.to_owned(), 1_u32));
        assert!(crate::codec::decode::<ProcessId>(&bytes).is_err(), "{name}");
    }
    let id = LineId { process: ProcessId::named("c1").unwrap(), n: 9 };
    let context = TraceContext { parent: Some(id), req: Some("c1-5".into()) };
    assert_eq!(crate::codec::decode::<TraceContext>(&crate::codec::encode(&context)).unwrap(), context);
}

/// A terminal that shows nothing until it is released.
struct Stopped {
    go: mpsc::Receiver<()>,
    shown: mpsc::Sender<Vec<u8>>,
}

impl Write for Stopped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.go.recv();
        let _ = self.shown.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn stopped_terminal_blocks_no_writer_and_reports_dropped_lines() {
    let ((go, stopped), (shown, seen)) = (mpsc::channel(), mpsc::channel());
    let terminal = Terminal::new(Stopped { go: stopped, shown }, false).unwrap();
    let trace = open(Vec::new(), "", Some(terminal));
    for n in 0..2_000 {
        trace.line(accepted(n));
    }
    assert_eq!(lines(&trace).len(), 2_000, "the file has every line");
    drop(go);
    trace.flush(Duration::from_secs(10));
    trace.write_group(&[dropped(), dropped()]);
    trace.flush(Duration::from_secs(10));
    let seen: Vec<u8> = seen.try_iter().flatten().collect();
    let seen = String::from_utf8(seen).unwrap();
    let (notes, shown): (Vec<&str>, Vec<&str>) = seen.lines().partition(|line| line.starts_with('('));
    let unseen = notes.iter().map(|note| {
        let count =
            note.strip_suffix(" lines were dropped, because this terminal was too slow; the log file has them)");
        count.unwrap()[1..].parse::<usize>().unwrap()
    });
    assert!(!notes.is_empty() && shown.len() >= 1_024, "{} shown", shown.len());
    assert_eq!(unseen.sum::<usize>() + shown.len(), 2_002);
}

#[test]
fn slow_tap_blocks_no_writer_and_its_dropped_lines_are_counted() {
    let trace = Trace::to_memory(s1());
    let groups = trace.tap();
    assert!(trace.tap().recv().is_err(), "there is one tap");
    for n in 0..2_000 {
        trace.write_group(&[accepted(n), dropped()]);
    }
    let taken: Vec<_> = groups.try_iter().collect();
    trace.line(accepted(9));
    let last = groups.recv().unwrap();
    let lines: usize = taken.iter().map(|(lost, group)| *lost as usize + parse(group).len()).sum();
    assert_eq!((lines, last.0, parse(&last.1).len()), (2 * 1_024, 2 * (2_000 - 1_024), 1));
    assert_eq!(parse(&trace.text()).len(), 4_001, "the file has every line");
}

#[test]
fn colors_follow_the_level() {
    let ((go, stopped), (shown, seen)) = (mpsc::channel(), mpsc::channel());
    drop(go);
    let trace = open(Vec::new(), "", Some(Terminal::new(Stopped { go: stopped, shown }, true).unwrap()));
    trace.write_group(&[accepted(1), dropped()]);
    trace.flush(Duration::from_secs(10));
    let seen = String::from_utf8(seen.try_iter().flatten().collect()).unwrap();
    let colored: Vec<bool> = seen.lines().map(|line| line.contains("\u{1b}[33m")).collect();
    assert_eq!(colored, [false, true], "{seen:?}");
}
