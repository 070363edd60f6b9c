//! Tests of the lessons: every scene shows what its text says.

use super::lesson_command::line_of;
use super::*;
use paxos_kv::trace::audit::{Audit, AuditVerdict, Rule};

#[test]
fn every_lesson_has_the_lines_that_it_refers_to_in_that_order() {
    for lesson in LESSONS {
        let run = lesson.run().unwrap();
        let by_id = run.by_id();
        let mut before: Option<jiff::Timestamp> = None;
        for (sentence, words) in lesson.look {
            let id = line_of(&run, words).unwrap_or_else(|why| panic!("{}: {why}", lesson.name));
            let at = by_id[&id.parse::<paxos_kv::trace::LineId>().unwrap()];
            let time = run.line(at).time;
            // Lines of about the same time may come in either order.
            let slack = jiff::SignedDuration::from_millis(5);
            assert!(before.is_none_or(|before| time >= before - slack), "{}: {sentence}", lesson.name);
            before = Some(time);
        }
        assert!(run.lines.len() < 400, "{} has {} lines: too many to read", lesson.name, run.lines.len());
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
        let audit = Audit::new(&lesson.run().unwrap());
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
    let run = Lesson::named("adopt").unwrap().run().unwrap();
    let adopted = run.lines.iter().find(|entry| {
        let text = entry.line.to_string();
        text.contains(" s3.") && text.contains("proposer ACCEPT   req=c1-3") && text.contains("value=blue")
    });
    assert!(adopted.is_some_and(|entry| !entry.line.to_string().contains("adopted=none")));
    assert!(
        run.lines.iter().any(|entry| entry.line.to_string().contains("learner  CHOSEN   req=c2-2")),
        "red is chosen too"
    );
}
