//! Audits of runs with missing lines: full disks, rotated files, new data directories. The audit may be undecided then,
//! but never wrong, and it still finds contradictions in the lines that are left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::linearizability;
use crate::sim::batch::{BatchConfig, run_one};
use crate::sim::faults::{Fault, FaultSet};
use paxos_kv::paxos::Slot;
use paxos_kv::protocol::Protocol;
use paxos_kv::random::Random;
use paxos_kv::trace::audit::{Audit, AuditVerdict, Rule};
use paxos_kv::trace::parse::Run;
use paxos_kv::trace::{Event, Line, LineId, OpKind};

/// The files of a run, as parsed lines.
type GapFiles = Vec<(String, Vec<Line>)>;

/// The lines of a correct run.
fn simulated(seed: u64, protocol: Protocol, allowed: FaultSet) -> GapFiles {
    let config = BatchConfig { allowed, bug: None, protocol: Some(protocol), user_visible_only: false };
    let lines = |text: &str| text.lines().map(|line| line.parse().unwrap()).collect();
    run_one(seed, config, true).lines.iter().map(|(name, text)| (name.clone(), lines(text))).collect()
}

/// At most `count` runs of one history whose lines prove them. (A server that lost its disk has a new data directory,
/// and its lines prove nothing.)
fn proved(protocol: Protocol, count: usize) -> impl Iterator<Item = (u64, GapFiles)> {
    let allowed = FaultSet::all().without(Fault::NewHistory);
    let runs = (1..).map(move |seed| (seed, simulated(seed, protocol, allowed)));
    runs.filter(|(_, files)| Audit::new(&run_of(files)).verdict() == AuditVerdict::Proved).take(count)
}

fn run_of(files: &GapFiles) -> Run {
    let mut run = Run::default();
    for (name, lines) in files {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        run.add(name, text.as_bytes(), u64::MAX).unwrap();
    }
    run
}

fn below(random: &mut Random, count: u64) -> u64 {
    random.within(0..=count - 1)
}

/// Removes lines in one of several ways; returns a description.
fn lose(files: &mut GapFiles, random: &mut Random) -> String {
    let file = below(random, files.len() as u64) as usize;
    let (name, lines) = &mut files[file];
    let mut place = || below(random, lines.len() as u64 + 1) as usize;
    let (a, b) = (place(), place());
    let (from, to) = (a.min(b), a.max(b));
    match below(random, 7) {
        0 => {
            let share = 1 + below(random, 40);
            files.iter_mut().for_each(|(_, lines)| lines.retain(|_| below(random, 100) >= share));
            format!("{share} % of all lines")
        }
        1 => {
            lines.drain(from..to);
            format!("{name}: {from}..{to}")
        }
        2 => {
            lines.drain(..from);
            format!("{name}: the first {from}")
        }
        3 => {
            lines.truncate(to);
            format!("{name}: all from {to} on")
        }
        4 => {
            let says = format!("all of {name}");
            files.remove(file);
            says
        }
        5 => {
            let says = format!("{name}: a copy of {from}..{to}, and of the rest a part");
            let copy = (format!("{name}.copy"), lines[from..to].to_vec());
            let kept = below(random, 100);
            lines.retain(|_| below(random, 100) < kept);
            files.push(copy);
            says
        }
        _ => {
            let incarnations: BTreeSet<u32> = lines.iter().map(|line| line.id.process.incarnation()).collect();
            let incarnations: BTreeSet<u32> = incarnations.into_iter().filter(|_| below(random, 2) == 0).collect();
            let says = format!("{name}: the steps of incarnations {incarnations:?}");
            hide_steps(files, file, &incarnations);
            says
        }
    }
}

/// Removes the lines that `--steps off` would omit, in some incarnations of a server.
fn hide_steps(files: &mut GapFiles, file: usize, incarnations: &BTreeSet<u32>) {
    let mut numbers: BTreeMap<LineId, Option<LineId>> = BTreeMap::new();
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    let lines = std::mem::take(&mut files[file].1);
    files[file].1 = lines
        .into_iter()
        .filter_map(|mut line| {
            let incarnation = line.id.process.incarnation();
            if line.id.process.as_server().is_none() || !incarnations.contains(&incarnation) {
                return Some(line);
            }
            if let Event::Boot { steps, .. } = &mut line.event {
                *steps = Some("off".into());
            }
            let n = next.entry(incarnation).or_insert(1);
            let shown = (!line.event.is_step()).then(|| LineId { process: line.id.process.clone(), n: *n });
            numbers.insert(line.id.clone(), shown.clone());
            *n += u64::from(shown.is_some());
            line.id = shown?;
            Some(line)
        })
        .collect();
    for line in files.iter_mut().flat_map(|(_, lines)| lines) {
        if let Some(now) = line.parent.as_ref().and_then(|re| numbers.get(re)) {
            line.parent = now.clone();
        }
    }
}

#[track_caller]
fn reports_no_violation(files: &GapFiles, what: &str) {
    let run = run_of(files);
    let audit = Audit::new(&run);
    assert_ne!(audit.verdict(), AuditVerdict::Violated, "{what}\n{}", audit.explain(&run));
    let search = linearizability::check_run(&run, Instant::now() + Duration::from_millis(200));
    assert!(!matches!(search, linearizability::LinearizabilityVerdict::Violation(_)), "{what}\n{search:?}");
}

/// Removes lines of several runs of each protocol, several times each.
fn lose_lines(runs: usize, times: u64) {
    for protocol in Protocol::ALL {
        for (seed, whole) in proved(protocol, runs) {
            for time in 0..times {
                let mut random = Random::new(seed, time);
                let mut files = whole.clone();
                let losses: Vec<String> = (0..=below(&mut random, 3)).map(|_| lose(&mut files, &mut random)).collect();
                reports_no_violation(&files, &format!("{protocol} {seed} {time}: {}", losses.join("; ")));
            }
        }
    }
}

#[test]
fn lines_with_gaps_cause_no_violation() {
    lose_lines(2, 12);
}

#[test]
#[ignore = "minutes: thousands of runs with gaps"]
fn lines_with_gaps_cause_no_violation_at_length() {
    lose_lines(50, 100);
}

#[test]
fn a_run_without_one_of_its_lines_is_not_proved() {
    for protocol in Protocol::ALL {
        let (_, whole) = proved(protocol, 1).next().unwrap();
        for time in 0..20 {
            let mut random = Random::new(3, time);
            let mut files = whole.clone();
            let file = below(&mut random, files.len() as u64) as usize;
            let (name, lines) = &mut files[file];
            let says = if time % 2 == 0 {
                // Not the last line of its process: its absence would be invisible.
                let gone = lines.remove(below(&mut random, lines.len() as u64) as usize).id;
                if !lines.iter().any(|line| line.id.process == gone.process && line.id.n > gone.n) {
                    continue;
                }
                format!("{name}: {gone}")
            } else {
                let gone: BTreeSet<LineId> = lines
                    .split_off(lines.len() / 2)
                    .into_iter()
                    .map(|line| line.id)
                    .filter(|id| id.process.as_server().is_some())
                    .collect();
                let says = format!("{name}: its second half");
                if !files
                    .iter()
                    .flat_map(|(_, lines)| lines)
                    .any(|line| line.parent.as_ref().is_some_and(|re| gone.contains(re)))
                {
                    continue;
                }
                says
            };
            let run = run_of(&files);
            let audit = Audit::new(&run);
            assert_eq!(audit.verdict(), AuditVerdict::Unproven, "{protocol} {says}\n{}", audit.explain(&run));
        }
    }
}

/// Two runs in the same files, one a day after the other. The first is the proved run number `others`, from 0.
fn one_after_the_other(protocol: Protocol, others: usize) -> GapFiles {
    let servers = |files: &GapFiles| files.iter().filter(|(name, _)| name.starts_with("server-")).count();
    let mut runs = proved(protocol, usize::MAX).map(|(_, files)| files).skip(others);
    let first = runs.next().unwrap();
    let second = runs.find(|files| servers(files) == servers(&first)).unwrap();
    let mut files: BTreeMap<String, Vec<Line>> = first.into_iter().collect();
    for (name, lines) in second {
        let a_day = jiff::SignedDuration::from_hours(24);
        files.entry(name).or_default().extend(lines.into_iter().map(|line| Line { time: line.time + a_day, ..line }));
    }
    files.into_iter().collect()
}

#[test]
fn two_histories_in_the_same_files_are_checked_separately() {
    for protocol in Protocol::ALL {
        let whole = one_after_the_other(protocol, 0);
        let run = run_of(&whole);
        let audit = Audit::new(&run);
        let text = audit.explain(&run).to_string();
        assert_eq!((audit.verdict(), audit.counts.histories), (AuditVerdict::Proved, 2), "{protocol}: {text}");
        assert!(text.contains("these lines are of 2 histories"), "{text}");
        lose_lines_of_both(&whole, 10, &protocol.to_string());
    }
}

fn lose_lines_of_both(whole: &GapFiles, times: u64, what: &str) {
    for time in 0..times {
        let mut random = Random::new(1, time);
        let mut files = whole.clone();
        let says = lose(&mut files, &mut random);
        reports_no_violation(&files, &format!("{what} {time}: {says}"));
    }
}

#[test]
#[ignore = "minutes: hundreds of pairs of runs"]
fn two_histories_in_the_same_files_cause_no_violation_at_length() {
    for protocol in Protocol::ALL {
        let mut proved = 0;
        for others in 0..40 {
            let whole = one_after_the_other(protocol, others);
            let what = format!("{protocol} {others}");
            reports_no_violation(&whole, &what);
            proved += usize::from(Audit::new(&run_of(&whole)).verdict() == AuditVerdict::Proved);
            lose_lines_of_both(&whole, 20, &what);
        }
        // Where clocks are far apart, two histories cannot always be separated.
        println!("{protocol}: {proved} of 40 pairs are proved");
        assert!(proved >= 30, "{protocol}: only {proved} of 40 pairs are proved");
    }
}

#[test]
fn violation_is_reported_with_its_history() {
    let mut files = one_after_the_other(Protocol::BasicPaxos, 0);
    contradict(&mut files);
    let audit = Audit::new(&run_of(&files));
    assert_eq!(audit.verdict(), AuditVerdict::Violated);
    let says = "in history 2 of 2: two learners apply different commands";
    assert!(audit.findings.iter().any(|finding| finding.message.starts_with(says)), "{:?}", audit.findings);
}

#[test]
fn new_data_directory_of_one_server_proves_nothing() {
    let mut files = simulated(1, Protocol::BasicPaxos, FaultSet::NONE);
    let (_, lines) = files.iter_mut().find(|(name, _)| name == "server-2.log").unwrap();
    // In the middle of the run this server starts again from the beginning, while the others go on.
    let begun = lines[0].time;
    let again = lines.clone();
    lines.truncate(lines.len() / 2);
    let later = lines.last().unwrap().time.duration_since(begun) + jiff::SignedDuration::from_micros(1);
    lines.extend(again.into_iter().map(|line| Line { time: line.time + later, ..line }));
    let run = run_of(&files);
    let audit = Audit::new(&run);
    let text = audit.explain(&run).to_string();
    assert_eq!(audit.verdict(), AuditVerdict::Unproven, "{text}");
    assert!(text.contains("s2 has a new data directory from") && text.contains("of more than one history"), "{text}");
}

/// Changes the last command that two servers have applied in the later line. Returns their files.
fn contradict(files: &mut GapFiles) -> [String; 2] {
    let mut places = Vec::new();
    for (file, (_, lines)) in files.iter().enumerate() {
        places.extend(lines.iter().enumerate().filter_map(|(at, line)| match line.event {
            Event::Learn { slot, op: OpKind::Put, .. } => Some((line.time, file, at, slot)),
            _ => None,
        }));
    }
    places.sort();
    let is_twin = |a: &(_, usize, _, Slot), b: &(_, usize, _, Slot)| a.1 != b.1 && a.3 == b.3;
    let pairs = (1..places.len()).rev().map(|last| (places[last], &places[..last]));
    let (later, earlier) = pairs
        .into_iter()
        .find_map(|(last, before)| Some((last, *before.iter().rev().find(|one| is_twin(one, &last))?)))
        .unwrap();
    if let Event::Learn { value, .. } = &mut files[later.1].1[later.2].event {
        *value = Some("something else".into());
    }
    [files[later.1].0.clone(), files[earlier.1].0.clone()]
}

#[test]
fn two_commands_in_one_slot_are_found_whatever_else_is_missing() {
    for protocol in [Protocol::BasicPaxos, Protocol::MultiPaxos] {
        let (_, mut whole) = proved(protocol, 1).next().unwrap();
        let both = contradict(&mut whole);
        for time in 0..15 {
            let mut random = Random::new(2, time);
            // All lines of the two servers are present; of the others, whatever is left.
            let (kept, mut others): (GapFiles, GapFiles) =
                whole.iter().cloned().partition(|(name, _)| both.contains(name));
            let says = lose(&mut others, &mut random);
            others.extend(kept);
            let run = run_of(&others);
            let audit = Audit::new(&run);
            assert_eq!(audit.verdict(), AuditVerdict::Violated, "{protocol} {time}: {says}\n{}", audit.explain(&run));
            assert!(audit.findings.iter().any(|finding| finding.rule == Rule::Agreement), "{says}");
        }
    }
}

#[test]
fn invented_acceptance_is_found_unless_its_line_may_be_missing() {
    // A CHOSEN counts a server that did not accept. It is known to be false, since that server wrote a line that
    // follows from it.
    let mut whole = simulated(5, Protocol::BasicPaxos, FaultSet::NONE);
    let (chosen, slot, ballot, liar) = lie(&mut whole);
    let run = run_of(&whole);
    let audit = Audit::new(&run);
    let found = |audit: &Audit, verdict| {
        audit.findings.iter().any(|finding| finding.rule == Rule::Majority && finding.verdict == verdict)
    };
    assert!(found(&audit, AuditVerdict::Violated), "{chosen} {slot} {ballot}\n{}", audit.explain(&run));
    // Without the later lines of that server the truth is unknown.
    let name = format!("server-{}.log", liar.0);
    let (_, lines) = whole.iter_mut().find(|(file, _)| *file == name).unwrap();
    let end = lines.iter().position(|line| matches!(line.event, Event::Learn { .. })).unwrap();
    lines.truncate(end);
    let run = run_of(&whole);
    let audit = Audit::new(&run);
    assert!(!found(&audit, AuditVerdict::Violated) && found(&audit, AuditVerdict::Unproven), "{}", audit.explain(&run));
}

/// Replaces the line in which the first acceptor of a slot accepted: its process never wrote it.
fn lie(files: &mut GapFiles) -> (LineId, Slot, paxos_kv::paxos::Ballot, paxos_kv::role::ServerId) {
    let lines = files.iter().flat_map(|(_, lines)| lines);
    let (id, slot, ballot, quorum) = lines
        .clone()
        .find_map(|line| match line.event {
            Event::Chosen { slot, ballot, quorum, .. } => Some((line.id.clone(), slot, ballot, quorum)),
            _ => None,
        })
        .unwrap();
    let liar = quorum.iter().find(|server| *server != ballot.server).unwrap();
    for (_, lines) in files.iter_mut() {
        let is_vote = |line: &Line| {
            line.id.process.as_server() == Some(liar)
                && matches!(line.event, Event::Accepted { slot: of, ballot: at, .. } if (of, at) == (slot, ballot))
        };
        // Another line takes its place, so that no number is missing.
        for line in lines.iter_mut().filter(|line| is_vote(line)) {
            line.event = Event::Stage { name: "instead".into() };
        }
    }
    (id, slot, ballot, liar)
}
