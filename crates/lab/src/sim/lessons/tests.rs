//! Tests of the lessons: every scene shows what its text says.

use super::lesson_command::line_of;
use super::*;
use paxos_kv::trace::audit::{Audit, AuditVerdict, Rule};

#[test]
fn every_lesson_has_the_lines_that_it_refers_to_in_that_order() {
    for lesson in LESSONS {
        let played = lesson.play().unwrap();
        let mut before: Option<jiff::Timestamp> = None;
        for point in lesson.points {
            let at = line_of(&played, point.line).unwrap_or_else(|why| panic!("{}: {why}", lesson.name));
            let time = played.run.line(at).time;
            // Lines of about the same time may come in either order.
            let slack = jiff::SignedDuration::from_millis(5);
            assert!(before.is_none_or(|before| time >= before - slack), "{}: {}", lesson.name, point.says);
            before = Some(time);
        }
        let lines = played.run.lines.len();
        assert!(lines < 400, "{} has {lines} lines: too many to read", lesson.name);
        assert!(super::lesson_command::page(lesson).unwrap().contains(lesson.title));
    }
}

#[test]
fn scene_is_deterministic() {
    for lesson in LESSONS {
        assert_eq!(lesson.run_to_log(), lesson.run_to_log(), "{}", lesson.name);
    }
}

#[test]
fn audit_proves_every_lesson_except_the_one_that_breaks_paxos() {
    for lesson in LESSONS {
        let audit = Audit::new(&lesson.play().unwrap().run);
        if lesson.loses_storage {
            assert_eq!(audit.verdict(), AuditVerdict::Violated, "{}", lesson.name);
            assert!(!audit.unsafe_lines.is_empty());
            assert!(audit.findings.iter().any(|finding| finding.rule == Rule::Agreement), "two values in one slot");
        } else {
            assert_eq!(audit.verdict(), AuditVerdict::Proved, "{}: {:?}", lesson.name, audit.findings);
        }
    }
}

#[test]
fn adopted_value_is_that_of_the_crashed_proposer() {
    let run = Lesson::named("adopt").unwrap().play().unwrap().run;
    let adopted = run.lines.iter().find(|entry| {
        let text = entry.line.to_string();
        text.contains(" s3.") && text.contains("proposer ACCEPT   req=c1-2") && text.contains("value=blue")
    });
    assert!(adopted.is_some_and(|entry| !entry.line.to_string().contains("adopted=none")));
    assert!(
        run.lines.iter().any(|entry| entry.line.to_string().contains("learner  CHOSEN   req=c2-2")),
        "red is chosen too"
    );
}

#[test]
#[ignore]
fn dump() {
    for lesson in LESSONS {
        let (files, start) = lesson.run_to_log();
        let mut lines: Vec<String> = files.iter().flat_map(|(_, text)| text.lines().map(str::to_string)).collect();
        lines.sort();
        std::fs::write(format!("/tmp/lessons/{}.txt", lesson.name), format!("start {start}\n{}\n", lines.join("\n"))).unwrap();
    }
}
