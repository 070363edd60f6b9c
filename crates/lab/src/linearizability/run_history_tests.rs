use std::time::Duration;

use super::super::verdict::Witness;
use super::*;
use paxos_kv::trace::LineId;

/// The log lines of a run, written by hand.
#[derive(Default)]
struct Log {
    lines: Vec<Line>,
    numbers: BTreeMap<String, u64>,
}

impl Log {
    /// Adds a line of a process at a microsecond; `said` is the part after id, role and padding.
    fn add_line(&mut self, micros: u64, process: &str, content: &str) -> &mut Log {
        let n = self.numbers.entry(process.to_string()).or_insert(0);
        *n += 1;
        let role = if process.starts_with('s') { "server" } else { "client" };
        let (event, fields) = content.split_once(' ').unwrap();
        let level = match event {
            "TIMEOUT" => "WARN ",
            "LOST" => "ERROR",
            _ if content.contains("UNKNOWN") || content.contains("NOTAPPLIED") || content.contains("EXPIRED") => {
                "WARN "
            }
            _ => "INFO ",
        };
        let id = format!("{process}.{n}");
        let text = format!("2026-08-21T14:03:07.{micros:06}Z {level} {id:<7} {role:<8} {event:<8} {fields}");
        match text.parse() {
            Ok(line) => self.lines.push(line),
            Err(error) => panic!("{text}\n{error}"),
        }
        self
    }

    /// A server that starts with an empty disk.
    fn boot_empty(&mut self, process: &str) -> &mut Log {
        let boot = "BOOT version=0.1.0 lines=2 cluster=s1,s2,s3 incarnation=1 applied=0 digest=0000000000000000 promised=none accepted=0";
        self.add_line(0, process, boot)
    }

    /// A client that begins its log, as all do.
    fn boot(&mut self, process: &str) -> &mut Log {
        self.add_line(0, process, "BOOT version=0.1.0 lines=2 cluster=s1,s2,s3")
    }

    fn verdict(&self) -> LinearizabilityVerdict {
        check_lines(&self.lines, Instant::now() + Duration::from_secs(60))
    }

    fn is_linearizable(&self) -> bool {
        match self.verdict() {
            LinearizabilityVerdict::Linearizable { .. } => true,
            LinearizabilityVerdict::Violation(_) => false,
            LinearizabilityVerdict::Unknown(why) => panic!("{why}"),
        }
    }

    fn missing(&self) -> String {
        match self.verdict() {
            LinearizabilityVerdict::Unknown(WhyUndecided::Incomplete(what)) => what,
            other => panic!("{other:?}"),
        }
    }
}

/// A put with this end, and two reads by another client, of which the second finds nothing.
fn put_and_read(end: &str) -> Log {
    let mut log = Log::default();
    log.boot("c1").boot("c2");
    log.add_line(10, "c1", "REQUEST req=c1-1 op=PUT key=k value=v to=s1 session=3 sequence=1").add_line(20, "c1", end);
    log.add_line(30, "c2", "REQUEST req=c2-1 op=GET key=k to=s2");
    log.add_line(40, "c2", "RESPONSE req=c2-1 status=OK slot=4 version=1 value=v took=0.010ms server=s2");
    log.add_line(50, "c2", "REQUEST req=c2-2 op=GET key=k to=s2");
    log.add_line(60, "c2", "RESPONSE req=c2-2 status=NOTFOUND slot=4 version=0 took=0.010ms server=s2");
    log
}

#[test]
fn a_lost_write_is_a_violation_with_the_lines_that_show_it() {
    let log = put_and_read("RESPONSE req=c1-1 status=OK slot=4 version=1 took=0.010ms server=s1");
    let place = |call, end| SourceLines { call, end: Some(end) };
    let witness = Witness {
        key: "key k".to_string(),
        order: vec![place(2, 3), place(4, 5)],
        state: "holds v, at version 1".to_string(),
        breaks: place(6, 7),
        open: vec![],
    };
    assert_eq!(log.verdict(), LinearizabilityVerdict::Violation(Box::new(witness)));
}

/// As above, but with the reads exchanged: the write takes effect late.
fn put_and_late_read(end: &str) -> Log {
    let mut log = put_and_read(end);
    let reads: Vec<Line> = log.lines.drain(4..).collect();
    let (early, late) = reads.split_at(2);
    for (to, from) in [(early, late), (late, early)] {
        for (to, from) in to.iter().zip(from) {
            log.lines.push(Line { time: to.time, id: to.id.clone(), ..from.clone() });
        }
    }
    log
}

#[test]
fn an_unknown_outcome_may_be_seen_late_and_a_certain_one_may_not() {
    for end in [
        "TIMEOUT req=c1-1 waited=2.000s tries=s1 status=UNKNOWN",
        "RESPONSE req=c1-1 status=EXPIRED took=0.010ms server=s1",
        "RESPONSE req=c1-1 status=SUPERSEDED took=0.010ms server=s1",
        "STAGE name=killed",
    ] {
        assert!(put_and_late_read(end).is_linearizable(), "{end}");
        assert!(!put_and_read(end).is_linearizable(), "{end}: once seen, it stays");
    }
    for end in [
        "RESPONSE req=c1-1 status=OK slot=4 version=1 took=0.010ms server=s1",
        "TIMEOUT req=c1-1 waited=2.000s tries=s1 status=NOTAPPLIED",
        "RESPONSE req=c1-1 status=NOTAPPLIED cause=busy took=0.010ms server=s1",
    ] {
        assert!(!put_and_late_read(end).is_linearizable(), "{end}");
    }
}

#[test]
fn all_kinds_of_operations_are_read() {
    let mut log = Log::default();
    log.boot_empty("s1").boot("c1");
    log.add_line(1, "c1", "REQUEST req=c1-1 op=OPEN to=s1");
    log.add_line(2, "c1", "RESPONSE req=c1-1 status=OK session=1 took=0.010ms server=s1");
    log.add_line(3, "c1", "REQUEST req=c1-2 op=PUT key=k value=v if_version=0 to=s1 session=1 sequence=1");
    log.add_line(5, "c1", "RESPONSE req=c1-2 status=OK slot=2 version=1 took=0.010ms server=s1");
    log.add_line(10, "c1", "REQUEST req=c1-3 op=PUT key=k value=w if_version=0 to=s1 session=1 sequence=2");
    log.add_line(15, "c1", "RESPONSE req=c1-3 status=MISMATCH slot=3 version=1 took=0.010ms server=s1");
    log.add_line(20, "c1", "REQUEST req=c1-4 op=DELETE key=k to=s1 session=1 sequence=3");
    log.add_line(25, "c1", "RESPONSE req=c1-4 status=OK slot=4 version=2 took=0.010ms server=s1");
    log.add_line(30, "c1", "REQUEST req=c1-5 op=DELETE key=k to=s1 session=1 sequence=4");
    log.add_line(35, "c1", "RESPONSE req=c1-5 status=NOTFOUND slot=5 version=2 took=0.010ms server=s1");
    log.add_line(40, "c1", "REQUEST req=c1-6 op=GET key=other to=s1");
    log.add_line(45, "c1", "RESPONSE req=c1-6 status=NOTFOUND slot=5 version=0 took=0.010ms server=s1");
    log.add_line(50, "c1", "REQUEST req=c1-7 op=STALEGET key=k to=s1");
    log.add_line(55, "c1", "RESPONSE req=c1-7 status=OK slot=2 version=1 value=v took=0.010ms server=s1");
    assert_eq!(log.verdict(), LinearizabilityVerdict::Linearizable { operations: 5, keys: 2 });
    // Each of these results matters.
    for at in [5, 7, 9, 11, 13] {
        let mut other = Log { lines: log.lines.clone(), ..Log::default() };
        let Event::Response { version: Some(version), .. } = &mut other.lines[at].event else { panic!("a response") };
        *version += 5;
        assert!(!other.is_linearizable(), "{}", other.lines[at]);
    }
}

#[test]
fn long_values_are_distinguished_by_their_hash() {
    let [a, b] = [b'a', b'b'].map(|last| QuotedText::new([&[b'x'; 100][..], &[last]].concat()));
    let read = |value: &QuotedText| {
        let mut log = Log::default();
        log.boot("c1");
        log.add_line(10, "c1", &format!("REQUEST req=c1-1 op=PUT key=k value={a} to=s1 session=3 sequence=1"));
        log.add_line(20, "c1", "RESPONSE req=c1-1 status=OK slot=4 version=1 took=0.010ms server=s1");
        log.add_line(30, "c1", "REQUEST req=c1-2 op=GET key=k to=s1");
        log.add_line(
            40,
            "c1",
            &format!("RESPONSE req=c1-2 status=OK slot=4 version=1 value={value} took=0.010ms server=s1"),
        );
        log.is_linearizable()
    };
    assert!(read(&a));
    assert!(!read(&b));
}

#[test]
fn operations_closer_than_the_clock_resolution_overlap() {
    let read_after = |micros: u64| {
        let mut log = Log::default();
        log.boot("c1").boot("c2");
        log.add_line(10, "c1", "REQUEST req=c1-1 op=PUT key=k value=v to=s1 session=3 sequence=1");
        log.add_line(20, "c1", "RESPONSE req=c1-1 status=OK slot=4 version=1 took=0.010ms server=s1");
        log.add_line(20 + micros, "c2", "REQUEST req=c2-1 op=GET key=k to=s2");
        log.add_line(40, "c2", "RESPONSE req=c2-1 status=NOTFOUND slot=0 version=0 took=0.010ms server=s2");
        log.is_linearizable()
    };
    assert_eq!([0, 1, 2].map(read_after), [true, true, false]);
}

#[test]
fn missing_lines_prove_nothing() {
    let log = put_and_read("RESPONSE req=c1-1 status=OK slot=4 version=1 took=0.010ms server=s1");
    let without = |at: usize| {
        let mut lines = log.lines.clone();
        lines.remove(at);
        Log { lines, ..Log::default() }
    };
    assert_eq!(without(2).missing(), "lines of c1 are missing before c1.3");
    assert_eq!(without(0).missing(), "lines of c1 are missing before c1.2");
    let mut lost = Log { lines: log.lines.clone(), numbers: log.numbers.clone() };
    assert!(lost.add_line(70, "c2", "LOST n=3").missing().contains("before c2.6"));
    // A filter may remove lines without a gap in the numbers.
    let mut filtered = Log::default();
    filtered.boot("c1").add_line(20, "c1", "TIMEOUT req=c1-1 waited=2.000s tries=s1 status=UNKNOWN");
    assert!(filtered.missing().contains("c1.2 ends a request"));
    // The missing last lines of a killed client are no gap.
    assert!(Log { lines: log.lines[..3].to_vec(), ..Log::default() }.is_linearizable());
}

#[test]
fn reused_label_is_another_request() {
    let mut log = Log::default();
    log.boot("c1");
    log.add_line(10, "c1", "REQUEST req=c1-1 op=PUT key=k value=v to=s1 session=3 sequence=1");
    log.add_line(20, "c1", "REQUEST req=c1-1 op=GET key=k to=s1");
    log.add_line(30, "c1", "RESPONSE req=c1-1 status=NOTFOUND slot=4 version=0 took=0.010ms server=s1");
    assert_eq!(log.verdict(), LinearizabilityVerdict::Linearizable { operations: 2, keys: 1 });
}

#[test]
fn server_lines_show_requests_of_clients_without_lines() {
    let mut log = Log::default();
    log.boot_empty("s1").boot("c1");
    log.add_line(10, "c1", "REQUEST req=c1-1 op=GET key=k to=s1");
    log.add_line(20, "c1", "RESPONSE req=c1-1 status=OK slot=4 version=1 value=v took=0.010ms server=s1");
    assert!(!log.is_linearizable(), "no client has written it");
    let request = "REQUEST req=x-1 op=PUT key=k value=v from=127.0.0.1:5000 session=9 sequence=1";
    log.add_line(15, "s1", request);
    assert!(log.is_linearizable());
    // A write sent to two servers is still one write, and a write that a client has logged too is counted once.
    log.add_line(12, "s2", request);
    log.add_line(40, "c1", "REQUEST req=c1-2 op=PUT key=k value=w to=s1 session=3 sequence=1");
    log.add_line(45, "s1", "REQUEST req=c1-2 op=PUT key=k value=w from=127.0.0.1:5001 session=3 sequence=1");
    log.add_line(50, "c1", "RESPONSE req=c1-2 status=OK slot=5 version=2 took=0.010ms server=s1");
    assert_eq!(log.verdict(), LinearizabilityVerdict::Linearizable { operations: 3, keys: 1 });
    log.add_line(60, "c1", "REQUEST req=c1-3 op=GET key=k to=s1");
    log.add_line(70, "c1", "RESPONSE req=c1-3 status=OK slot=9 version=3 value=w took=0.010ms server=s1");
    assert!(!log.is_linearizable(), "applied twice");
}

#[test]
fn client_without_lines_is_shown_by_its_earliest_request_and_its_times_prove_nothing() {
    let mut log = Log::default();
    log.boot_empty("s1").boot("c1");
    let request = "REQUEST req=x-1 op=PUT key=k value=v from=127.0.0.1:5000 session=9 sequence=1";
    log.add_line(95, "s1", request).add_line(92, "s2", request).add_line(98, "s3", request);
    log.add_line(10, "c1", "REQUEST req=c1-1 op=GET key=k to=s1");
    log.add_line(20, "c1", "RESPONSE req=c1-1 status=OK slot=4 version=1 value=v took=0.010ms server=s1");
    assert!(log.is_linearizable(), "the clocks of the servers may be ahead");
    log.add_line(30, "c1", "REQUEST req=c1-2 op=GET key=k to=s1");
    log.add_line(40, "c1", "RESPONSE req=c1-2 status=NOTFOUND slot=0 version=0 took=0.010ms server=s1");
    let LinearizabilityVerdict::Violation(witness) = log.verdict() else { panic!("a value that was read is gone") };
    assert_eq!(witness.order, [SourceLines { call: 3, end: None }, SourceLines { call: 5, end: Some(6) }]);
}

#[test]
fn server_without_accepted_values_was_empty_in_its_first_incarnation() {
    let found_old = |incarnation: u32| {
        let mut log = Log::default();
        let boot = format!(
            "BOOT version=0.1.0 lines=2 cluster=s1,s2,s3 incarnation={incarnation} applied=0 digest=0000000000000000"
        );
        log.add_line(1, "s1", &boot).boot("c1");
        log.add_line(10, "c1", "REQUEST req=c1-1 op=GET key=k to=s1");
        log.add_line(20, "c1", "RESPONSE req=c1-1 status=OK slot=4 version=7 value=v took=0.010ms server=s1");
        log.is_linearizable()
    };
    assert_eq!([1, 2].map(found_old), [false, true]);
}

#[test]
fn cluster_with_earlier_data_may_hold_any_value() {
    let boot = |accepted: u64, incarnation: u32| {
        format!(
            "BOOT version=0.1.0 lines=2 cluster=s1,s2,s3 incarnation={incarnation} applied=0 digest=0000000000000000 promised=none \
             accepted={accepted}"
        )
    };
    let with_past = |boot: &str| {
        let mut log = Log::default();
        log.add_line(1, "s1", boot).boot("c1");
        log.add_line(10, "c1", "REQUEST req=c1-1 op=GET key=k to=s1");
        log.add_line(20, "c1", "RESPONSE req=c1-1 status=OK slot=4 version=7 value=v took=0.010ms server=s1");
        log
    };
    assert!(!with_past(&boot(0, 1)).is_linearizable());
    assert!(!with_past(&boot(0, 2)).is_linearizable(), "the server has started before, and nothing was written");
    let mut log = with_past(&boot(6, 2));
    assert!(log.is_linearizable());
    log.add_line(30, "c1", "REQUEST req=c1-2 op=GET key=k to=s1");
    log.add_line(40, "c1", "RESPONSE req=c1-2 status=OK slot=4 version=6 value=u took=0.010ms server=s1");
    assert!(!log.is_linearizable(), "from then on the history must be linearizable");
    // A restart within the run is no sign of earlier data.
    let mut log = with_past(&boot(0, 1));
    let restart: LineId = "s1@2.1".parse().unwrap();
    let mut line = log.lines[0].clone();
    line.id = restart;
    line.event = match line.event {
        Event::Boot {
            version,
            lines,
            cluster,
            protocol,
            seed,
            fail,
            mean_up,
            mean_down,
            restart,
            data,
            steps,
            digest,
            promised,
            history,
            disk,
            ..
        } => {
            let (incarnation, applied, accepted) = (Some(2), None, Some(6));
            Event::Boot {
                version,
                lines,
                cluster,
                protocol,
                seed,
                fail,
                mean_up,
                mean_down,
                restart,
                data,
                steps,
                incarnation,
                applied,
                digest,
                promised,
                accepted,
                history,
                disk,
            }
        }
        other => panic!("{other:?}"),
    };
    log.lines.push(line);
    assert!(!log.is_linearizable());
}

#[test]
fn running_run_is_judged_by_the_lines_of_the_first_look() {
    let log = put_and_read("RESPONSE req=c1-1 status=OK slot=4 version=1 took=0.010ms server=s1");
    let text = |from: usize| log.lines[from..].iter().map(|line| format!("{line}\n")).collect::<String>();
    // The log of c1 was read before the put, so its lines are missing. The read by c2 that found the value came later.
    let mut run = Run::default();
    let early: usize = log.lines[4..5].iter().map(|line| line.to_string().len() + 1).sum();
    let boot = format!("{}\n", log.lines[1]);
    let c2 = format!("{boot}{}", text(4));
    run.add("client-2.log", c2.as_bytes(), (boot.len() + early) as u64).unwrap();
    assert_eq!(check_run(&run, Instant::now()), LinearizabilityVerdict::Linearizable { operations: 0, keys: 0 });
    let mut run = Run::default();
    run.add("client-2.log", c2.as_bytes(), c2.len() as u64).unwrap();
    assert!(matches!(check_run(&run, Instant::now()), LinearizabilityVerdict::Violation(_)));
}

/// The verdict on a run with these lines.
fn judged(log: &Log) -> LinearizabilityVerdict {
    let mut run = Run::default();
    let text: String = log.lines.iter().map(|line| format!("{line}\n")).collect();
    run.add("all.log", text.as_bytes(), u64::MAX).unwrap();
    check_run(&run, Instant::now() + Duration::from_secs(60))
}

#[test]
fn unseen_writer_explains_a_read_but_not_two_values_of_one_version() {
    let read = |answer: &str, steps: &str| {
        let mut log = Log::default();
        let boot = "BOOT version=0.1.0 lines=2 cluster=s1";
        log.add_line(0, "s1", &format!("{boot} steps={steps} incarnation=1 applied=0 promised=none accepted=0"));
        log.add_line(1, "s1", "STOP cause=SIGTERM");
        log.boot("c1");
        log.add_line(10, "c1", "REQUEST req=c1-1 op=PUT key=k value=v to=s1 session=3 sequence=1");
        log.add_line(20, "c1", "RESPONSE req=c1-1 status=OK slot=4 version=1 took=0.010ms server=s1");
        log.add_line(30, "c1", "REQUEST req=c1-2 op=GET key=k to=s1");
        log.add_line(40, "c1", &format!("RESPONSE req=c1-2 status=OK slot=6 {answer} took=0.010ms server=s1"));
        judged(&log)
    };
    let unseen = read("version=2 value=w", "off");
    assert!(
        matches!(&unseen, LinearizabilityVerdict::Unknown(WhyUndecided::Incomplete(why)) if why.contains("another client wrote")),
        "{unseen:?}"
    );
    assert!(
        matches!(read("version=2 value=w", "on"), LinearizabilityVerdict::Violation(_)),
        "the server shows all requests, and none writes this value"
    );
    for broken in ["version=1 value=w", "version=0 value=v"] {
        assert!(matches!(read(broken, "off"), LinearizabilityVerdict::Violation(_)), "{broken}");
    }
}

#[test]
fn clock_that_was_set_back_proves_nothing() {
    let text = |second: u32, id: &str, rest: &str| format!("2026-08-21T14:03:{second:02}.000000Z INFO  {id:<7} {rest}");
    let mut lines = Vec::new();
    for (second, id, rest) in [
        (40, "c1.1", "client   BOOT     version=0.1.0 lines=2 cluster=s1,s2,s3"),
        (41, "c1.2", "client   REQUEST  req=c1-1 op=PUT key=a value=1 to=s1 session=1 sequence=1"),
        (42, "c1.3", "client   RESPONSE req=c1-1 status=OK slot=2 version=1 took=1.000ms server=s1"),
        (10, "c1.4", "client   REQUEST  req=c1-2 op=GET key=a to=s1"),
        (11, "c1.5", "client   RESPONSE req=c1-2 status=OK slot=2 version=1 value=1 took=1.000ms server=s1"),
    ] {
        match text(second, id, rest).parse::<Line>() {
            Ok(line) => lines.push(line),
            Err(error) => panic!("{rest}: {error}"),
        }
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let LinearizabilityVerdict::Unknown(WhyUndecided::Incomplete(why)) = check_lines(&lines, deadline) else {
        panic!("decided")
    };
    assert!(why.contains("clock was set back before c1.4"), "{why}");
}

#[test]
fn reply_before_its_request_proves_nothing() {
    let mut log = Log::default();
    log.boot("c1");
    log.add_line(9, "c1", "REQUEST req=c1-1 op=GET key=a to=s1");
    log.add_line(2, "c1", "RESPONSE req=c1-1 status=OK slot=9 version=7 value=old took=1.000ms server=s1");
    let deadline = Instant::now() + Duration::from_secs(60);
    let LinearizabilityVerdict::Unknown(WhyUndecided::Incomplete(why)) = check_lines(&log.lines, deadline) else {
        panic!("decided")
    };
    assert!(why.contains("clock was set back before c1.3"), "{why}");
}

#[test]
fn store_that_may_not_have_been_empty_is_no_violation() {
    let mut log = Log::default();
    log.boot("c1");
    log.add_line(1, "c1", "REQUEST req=c1-1 op=GET key=a to=s1");
    log.add_line(2, "c1", "RESPONSE req=c1-1 status=OK slot=9 version=7 value=old took=1.000ms server=s1");
    let deadline = Instant::now() + Duration::from_secs(60);
    let LinearizabilityVerdict::Unknown(WhyUndecided::Incomplete(why)) = check_lines(&log.lines, deadline) else {
        panic!("decided")
    };
    assert!(why.contains("empty at first"), "{why}");
}
