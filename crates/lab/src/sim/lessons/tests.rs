//! Tests of the lessons: every scene shows what its text says.

use super::lesson_command::line_of;
use super::*;
use paxos_kv::trace::audit::{Audit, AuditVerdict, Rule};
use paxos_kv::trace::parse::RunLine;

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

/// What a sentence says is happening, as the event of its line. The first of these words that a sentence holds counts.
const VERBS: &[(&str, &str)] = &[
    ("asks for promises", "PREPARE"),
    ("asks all five acceptors to promise", "PREPARE"),
    ("request", "REQUEST"),
    ("decides", "DECIDE"),
    ("gives up", "RETRY"),
    ("promises", "PROMISE"),
    ("proposes", "ACCEPT"),
    ("refuses", "NACK"),
    ("accepts", "ACCEPTED"),
    ("is chosen", "CHOSEN"),
    ("restarts", "RESTART"),
    ("crashes", "CRASH"),
    ("applies", "LEARN"),
    ("leads", "LEAD"),
    ("forwards", "FORWARD"),
    ("votes yes", "VOTE"),
    ("is in doubt, and asks", "INQUIRE"),
    ("is blocked", "BLOCKED"),
    ("delays the read", "WAIT"),
    ("replies", "RESPONSE"),
];

/// The event that a sentence names: that of its first verb.
fn named_event(says: &str) -> &'static str {
    let found = VERBS.iter().filter_map(|(verb, event)| Some((says.find(verb)?, *event)));
    found.min().unwrap_or_else(|| panic!("no verb in '{says}'")).1
}

/// The text of a field of a line.
fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// The value that a line is about: its own, or that of the proposal of its slot and ballot or of its transaction, or that
/// of the client's request.
fn value_of(lines: &[String], line: &str) -> Option<String> {
    let proposed = |slot: &str, ballot: &str| {
        let fits = |other: &&String| other.contains(" ACCEPT ") && field(other, "slot") == Some(slot);
        lines.iter().filter(fits).find(|other| field(other, "ballot") == Some(ballot))
    };
    let source = match (field(line, "accepted"), field(line, "tx"), field(line, "slot"), field(line, "ballot")) {
        (Some(accepted), ..) if accepted != "none" => {
            accepted.split_once('@').and_then(|(slot, at)| proposed(slot, at))
        }
        (_, Some(tx), ..) => lines.iter().find(|other| other.contains(" VOTEREQ ") && field(other, "tx") == Some(tx)),
        (_, _, Some(slot), Some(ballot)) => proposed(slot, ballot),
        _ => None,
    };
    let request =
        || lines.iter().find(|other| other.contains(" REQUEST ") && field(other, "req") == field(line, "req"));
    let value = field(line, "value").or_else(|| field(source.or_else(request)?, "value"));
    value.map(str::to_string)
}

#[test]
fn each_point_names_the_server_the_event_and_the_value_of_its_line() {
    for lesson in LESSONS {
        let played = lesson.play().unwrap();
        let lines: Vec<String> = played.run.lines.iter().map(|entry| entry.line.to_string()).collect();
        let puts = lesson.script.iter().filter_map(|(_, action)| match action {
            LessonAction::Put(_, pairs) => Some(pairs.iter().map(|(_, value)| *value)),
            _ => None,
        });
        let values: Vec<&str> = puts.flatten().collect();
        for Point { says, line: pattern, .. } in lesson.points {
            let line = played.run.line(line_of(&played, pattern).unwrap());
            let place = format!("{}: '{says}' is shown at {line}", lesson.name);
            assert_eq!(line.event.name(), named_event(says), "{place}");
            let lower = says.to_lowercase();
            let server = lower.split_once("server ").map(|(_, rest)| &rest[..1]);
            assert_eq!(server, line.id.process.as_server().map(|server| server.0.to_string()).as_deref(), "{place}");
            if let Some((_, named)) = values.iter().filter_map(|value| Some((lower.find(value)?, *value))).min() {
                assert_eq!(value_of(&lines, &line.to_string()).as_deref(), Some(named), "{place}");
            }
        }
    }
}

#[test]
fn scene_begins_with_its_first_request_in_a_slot_of_its_own() {
    for lesson in LESSONS {
        let played = lesson.play().unwrap();
        let (set_up, scene): (Vec<_>, Vec<_>) =
            played.run.lines.iter().partition(|entry| entry.line.time < played.scene_start);
        let is_open = |entry: &&&RunLine| entry.line.to_string().contains("op=OPEN");
        assert!(set_up.iter().any(|entry| is_open(&entry)), "{}: sessions are opened in the set-up", lesson.name);
        assert_eq!(scene.iter().filter(is_open).count(), 0, "{}: no OPEN in the scene", lesson.name);
        let quiet = set_up.iter().map(|entry| entry.line.time).max().unwrap();
        assert!(played.scene_start.duration_since(quiet).as_millis() >= 10, "{}: nothing is under way", lesson.name);
    }
}

#[test]
fn each_point_but_the_first_is_predicted() {
    for lesson in LESSONS {
        for (n, point) in lesson.points.iter().enumerate() {
            assert_eq!(point.asks.is_some(), n > 0, "{}: {}", lesson.name, point.says);
            let Some(Prediction { question, choices, right }) = point.asks else { continue };
            assert!((2..=4).contains(&choices.len()) && right < choices.len(), "{}: {question}", lesson.name);
            assert!(question.ends_with('?') && !point.says.ends_with('.'), "{}: {question}", lesson.name);
        }
    }
}

#[test]
fn cuts_and_lost_messages_of_a_scene_are_lines() {
    let run = Lesson::named("adopt").unwrap().play().unwrap().run;
    let lines: Vec<String> = run.lines.iter().map(|entry| entry.line.to_string()).collect();
    let has = |words: &str| lines.iter().any(|line| line.contains(words));
    assert!(has("server   LINK     peer=s1,s2,s3,s4 state=cut"), "server 5 is cut off");
    assert!(has("server   DROP     req=c2-2 msg=PREPARE to=s1,s5 cause=cut"), "lost at once, one line for both");
    assert!(has("server   DROP     req=c1-2 msg=ACCEPT to=s3 cause=cut"), "lost on its way");
    // Each of them names the line that sent it.
    let by_id = run.by_id();
    for line in run.lines.iter().map(|entry| &entry.line).filter(|line| line.event.name() == "DROP") {
        let sent = run.line(by_id[line.parent.as_ref().unwrap()]);
        let msg = field(&line.to_string(), "msg").unwrap().to_string();
        assert_eq!(sent.event.name(), msg, "{line}");
        assert_eq!(sent.id.process, line.id.process, "{line}");
    }
}
