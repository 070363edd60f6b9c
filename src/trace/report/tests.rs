//! A run that shows every requirement, and for each requirement a run that does not.

use super::*;

/// A line starts with its processes; then role, event and fields follow. Each line is one second later.
const DEMO: &str = "\
s1,s2,s3,s4,s5 server BOOT version=0.1.0 lines=2 cluster=s1,s2,s3,s4,s5 steps=on incarnation=1
c1 client STAGE name=prepopulate
c1 client REQUEST req=c1-1 op=PUT key=a value=1 to=s1
s1 proposer PREPARE req=c1-1 slot=1+ ballot=1.1 to=s1,s2,s3,s4,s5
s2 acceptor PROMISE req=c1-1 slot=1+ ballot=1.1 accepted=none to=s1
s1 proposer ACCEPT req=c1-1 slot=1 ballot=1.1 op=PUT key=a value=1 adopted=none quorum=s1,s2,s5 to=s1,s2,s3,s4,s5
s2 acceptor ACCEPTED req=c1-1 slot=1 ballot=1.1 to=s1
s1 learner CHOSEN req=c1-1 slot=1 ballot=1.1 quorum=s1,s2,s4 to=s1,s2,s3,s4,s5
s1 learner LEARN req=c1-1 slot=1 ballot=1.1 op=PUT key=a value=1 result=OK version=1 applied=1
c1 client RESPONSE req=c1-1 status=OK slot=1 version=1 took=1.000ms server=s1
c1 client STAGE name=operations
OPERATIONS
s3 acceptor CRASH cause=timer up=3.000s down=1.000s
c1 client REQUEST req=c1-20 op=PUT key=k value=2 to=s1
c2 client REQUEST req=c2-1 op=PUT key=k value=3 to=s2
s3 acceptor RESTART down=1.000s recovered=disk promised=1.1 accepted=1
c1 client RESPONSE req=c1-20 status=OK slot=20 version=1 took=1.000ms server=s1
c2 client RESPONSE req=c2-1 status=OK slot=21 version=2 took=1.000ms server=s2
c1 client STAGE name=readback
c1 client REQUEST req=c1-30 op=GET key=a to=s2
c1 client RESPONSE req=c1-30 status=OK slot=21 version=1 value=1 took=1.000ms server=s2
c1 client STAGE name=scene:outage
s1,s2,s3 acceptor CRASH cause=timer up=3.000s
s1,s2,s3 acceptor RESTART down=0.100s recovered=disk promised=1.1 accepted=1
s1,s2,s3 acceptor CRASH cause=admin up=3.000s
c1 client REQUEST req=c1-40 op=PUT key=a value=4 to=s1
c1 client TIMEOUT req=c1-40 waited=10.000s tries=s1,s2 status=NOTAPPLIED
s1,s2,s3 acceptor RESTART down=3.000s recovered=disk promised=1.1 accepted=1
c1 client REQUEST req=c1-41 op=PUT key=a value=5 to=s1
c1 client RESPONSE req=c1-41 status=OK slot=22 version=2 took=1.000ms server=s1
s2 server MALFORMED length=17 from=127.0.0.1:50312
s4 proposer CRASH cause=timer up=3.000s down=1.000s
s4 proposer RESTART down=1.000s recovered=disk next=1026
s4 learner CRASH cause=timer up=3.000s down=1.000s
s4 learner RESTART down=1.000s recovered=disk applied=0
c1 client DIGEST slot=22 digest=00000000000000aa equal=5 of=5
";

fn demo() -> String {
    let mut operations = String::new();
    for (n, op) in ["PUT", "GET", "DELETE"].iter().flat_map(|op| [op; 5]).enumerate() {
        let server = n % 5 + 1;
        operations += &format!("c1 client REQUEST req=c1-{} op={op} key=a to=s{server}\n", n + 2);
        operations += &format!("c1 client RESPONSE req=c1-{} status=OK slot=9 took=1.000ms server=s{server}\n", n + 2);
    }
    DEMO.replace("OPERATIONS\n", &operations)
}

/// The names of the requirements that a run shows.
fn shown(script: &str) -> Vec<&'static str> {
    let run = crate::trace::audit::script::run(script);
    let report = Report::new(&run);
    for point in &report.points {
        assert_eq!(point.status == PointStatus::Shown, !point.lines.is_empty(), "{point:?}");
    }
    report.points.iter().filter(|point| point.status == PointStatus::Shown).map(|point| point.name).collect()
}

/// With other text in a line, or without the line, exactly this requirement is not shown.
#[track_caller]
fn misses(point: &str, what: &str, with: Option<&str>) {
    let script = demo();
    assert!(script.contains(what), "there is no {what} in the run");
    let change = |line: &str| match with {
        Some(with) => Some(line.replace(what, with) + "\n"),
        None => (!line.contains(what)).then(|| format!("{line}\n")),
    };
    let shown_then = shown(&script.lines().filter_map(change).collect::<String>());
    let missing: Vec<&str> = shown(&script).into_iter().filter(|name| !shown_then.contains(name)).collect();
    assert_eq!(missing, [point]);
}

#[test]
fn complete_run_shows_every_requirement() {
    assert_eq!(shown(&demo()), ["G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9"]);
    assert_eq!(shown(""), [""; 0]);
}

#[test]
fn requirement_without_evidence_is_not_shown() {
    misses("G1", "s1,s2,s3,s4,s5 server BOOT", Some("s1,s2,s3,s4 server BOOT"));
    misses("G2", "learner CHOSEN", None);
    misses("G3", "op=DELETE key=a to=s1", Some("op=GET key=a to=s1"));
    misses("G3", "key=a to=s4", Some("key=a to=s5"));
    misses("G3", "name=readback", None);
    misses("G4", "s3 acceptor CRASH cause=timer up=3.000s down", Some("s3 proposer CRASH cause=timer up=3.000s down"));
    misses("G5", "s1,s2,s3 acceptor CRASH", Some("s1,s2 acceptor CRASH"));
    misses("G5", "req=c1-41", None);
    misses("G6", "s4 learner RESTART", None);
    misses("G7", "MALFORMED", None);
    misses("G8", "c2 client REQUEST req=c2-1 op=PUT key=k", Some("c2 client REQUEST req=c2-1 op=PUT key=j"));
    misses("G9", "equal=5 of=5", Some("equal=4 of=5"));
}

#[test]
fn report_names_missing_evidence_and_lines() {
    let run = crate::trace::audit::script::run(&demo().replace("equal=5 of=5", "equal=4 of=5"));
    let report = Report::new(&run);
    let text = format!("{}{}{}", report.checklist(), report.evidence(&run, 1), report.count());
    assert!(text.contains("[ ] G9  at the end all replicas are equal\n        the replicas differ: 2026-"), "{text}");
    assert!(text.contains("to show it: ./run_client.sh, until it says PASSED\n"), "{text}");
    assert!(text.contains("--> G10 "), "{text}");
    assert!(
        text.contains("[x] G7 ") && text.contains("\nG7  logged") && text.contains("MALFORMED length=17"),
        "{text}"
    );
    assert!(text.ends_with("8 points shown, 1 not shown by this run"), "{text}");
}

/// The message and the events of the evidence for one requirement.
fn evidence(script: &str, name: &str) -> (String, Vec<String>) {
    let run = crate::trace::audit::script::run(script);
    let point = Report::new(&run).points.into_iter().find(|point| point.name == name).unwrap();
    let events = point.lines.iter().map(|at| {
        let line = run.line(*at);
        format!("{} {} {}", line.id.process, line.event.name(), line.req.as_deref().unwrap_or_default())
    });
    (point.message, events.map(|event| event.trim_end().to_string()).collect())
}

#[test]
fn evidence_of_an_outage_is_a_write_that_succeeded_meanwhile() {
    // Server 4's acceptor fails first, and nothing is asked meanwhile.
    let dull = "s4 acceptor CRASH cause=timer up=3.000s down=1.000s\n\
                s4 acceptor RESTART down=1.000s recovered=disk promised=1.1 accepted=1\n";
    let script = demo()
        .replace("s3 acceptor CRASH cause=timer", &format!("{dull}s3 acceptor CRASH cause=timer"))
        .replace("c1 client RESPONSE req=c1-20 status=OK slot=20 version=1 took=1.000ms server=s1\n", "")
        .replace(
            "s3 acceptor RESTART",
            "c1 client RESPONSE req=c1-20 status=OK slot=20 version=1 took=1.000ms server=s1\ns3 acceptor RESTART",
        )
        .replace("c1 client STAGE name=readback", "c1 client REQUEST req=c1-21 op=GET key=k to=s1\nc1 client RESPONSE req=c1-21 status=OK slot=20 version=1 took=1.000ms server=s1\nc1 client STAGE name=readback");
    let (message, events) = evidence(&script, "G4");
    assert!(message.ends_with("; c1-20 succeeded while s3's acceptor was down"), "{message}");
    assert_eq!(events, ["s3 CRASH", "c1 REQUEST c1-20", "c1 RESPONSE c1-20", "s3 RESTART"]);
}

#[test]
fn evidence_of_a_lost_majority_is_every_crash_and_the_line_that_says_so() {
    let says = "s1 server RESPONSE req=c1-40 status=NOTAPPLIED cause=\"no quorum: 2 answered\" took=800.000ms \
                to=127.0.0.1:50312\nc1 client TIMEOUT";
    let (message, events) = evidence(&demo().replace("c1 client TIMEOUT", says), "G5");
    let start = "3 of 5 acceptors were down at once for ";
    assert!(message.starts_with(start) && message.contains("c1-40 got no result"), "{message}");
    let asked = ["c1 REQUEST c1-40", "s1 RESPONSE c1-40", "c1 TIMEOUT c1-40", "c1 REQUEST c1-41", "c1 RESPONSE c1-41"];
    assert_eq!(events, [&["s1 CRASH", "s2 CRASH", "s3 CRASH"][..], &asked].concat());
}

#[test]
fn request_to_read_is_the_one_that_met_the_most() {
    let (message, _) = evidence(&demo(), "R8");
    assert_eq!(
        message,
        "read the lines of c1-40 (3 acceptors were down while it ran): ./run_server.sh logs --req c1-40"
    );
    let calm: String = demo().lines().filter(|line| !line.contains("CRASH")).map(|line| format!("{line}\n")).collect();
    assert!(evidence(&calm, "R8").0.contains("(no request met a failure in this run)"));
    assert!(evidence("", "R8").0.starts_with("no client has sent a request"));
}
