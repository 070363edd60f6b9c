//! What is drawn, and what keys and clicks do.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use paxos_kv::paxos::Slot;
use paxos_kv::trace::filter::{LineFilter, select};
use paxos_kv::trace::timeline::counts::PageCounts;
use paxos_lab::sim::FaultSet;
use serde_json::json;

use super::chromium::Browser;
use super::reading::{drawn, run_of, simulated};

/// What the page counts, as [`PageCounts`] does.
pub fn counted(browser: &mut Browser) -> PageCounts {
    let mut count = |expression: &str| {
        browser.number(&format!("(() => {{ const run = paxosTimeline.run; return {expression}; }})()"))
    };
    PageCounts {
        lines: count("run.lines.length"),
        servers: count("run.cluster.size"),
        others: count("new Set(run.lines.filter((line) => !line.server).map((line) => line.process)).size"),
        messages: count(
            "run.lines.reduce((sum, line) => sum + line.causes.filter((edge) => edge.kind === 'message').length, 0)",
        ),
        outages: count("run.derive().outages.length"),
        requests: count("run.derive().exchanges.length"),
    }
}

#[test]
fn page_counts_equal_the_counts_of_typed_lines() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut messages = 0;
    for seed in [7, 8, 9, 11, 23] {
        let run = simulated(dir.path(), seed, FaultSet::all());
        let (file, facts) = drawn(&run, dir.path(), "facts");
        messages += facts.messages;
        browser.open_file(&file, "");
        assert_eq!(counted(&mut browser), facts, "seed {seed}");
        // One lane for each role, and one for the server itself.
        assert_eq!(browser.number("document.querySelectorAll('#lanes .role').length"), facts.servers * 4);
    }
    assert!(messages > 1_000, "only {messages} messages");
    browser.must_be_content();
}

#[test]
fn a_filter_shows_the_lines_that_the_command_logs_prints() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let dir = tempfile::tempdir().unwrap();
    let run = simulated(dir.path(), 7, FaultSet::all());
    let (file, _) = drawn(&run, dir.path(), "filter");
    let labels: BTreeSet<String> = run.lines.iter().filter_map(|entry| entry.line.req.clone()).take(200).collect();
    let mut asked: Vec<LineFilter> =
        labels.iter().map(|req| LineFilter { req: Some(req.clone()), slot: None }).collect();
    asked.extend((1..=20).map(|slot| LineFilter { req: None, slot: Some(Slot(slot)) }));
    asked.extend(labels.iter().take(3).map(|req| LineFilter { req: Some(req.clone()), slot: Some(Slot(3)) }));
    browser.open_file(&file, "");
    for filter in asked {
        let expected: BTreeSet<String> =
            select(&run, &filter).into_iter().map(|at| run.line(at).id.to_string()).collect();
        let wanted = json!({ "req": filter.req, "slot": filter.slot.map(|slot| slot.0) });
        let found =
            browser.eval(&format!("paxosTimeline.setFilter({wanted}), paxosTimeline.shown.map((line) => line.id)"));
        let found: BTreeSet<String> =
            found.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_string()).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
    browser.must_be_content();
}

#[test]
fn cause_stands_above_its_effects() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let dir = tempfile::tempdir().unwrap();
    let run = simulated(dir.path(), 23, FaultSet::all());
    let (file, _) = drawn(&run, dir.path(), "order");
    browser.open_file(&file, "");
    let wrong = "paxosTimeline.run.lines.filter((line) => line.causes.some(({ from }) => from.row >= line.row)).length";
    assert_eq!(browser.number(wrong), 0);
    browser.must_be_content();
}

#[test]
fn steps_back_undo_steps_forward() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let dir = tempfile::tempdir().unwrap();
    let run = simulated(dir.path(), 7, FaultSet::all());
    let (file, _) = drawn(&run, dir.path(), "steps");
    browser.open_file(&file, "");
    let see = |browser: &mut Browser| {
        browser.settle();
        browser.text("document.querySelector('#state').innerText + document.querySelector('#lanes').innerHTML + paxosTimeline.line().id")
    };
    browser.key("Home");
    let mut seen = vec![see(&mut browser)];
    for _ in 0..40 {
        browser.key("ArrowRight");
        seen.push(see(&mut browser));
    }
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "each step changes something");
    for before in seen.iter().rev().skip(1) {
        browser.key("ArrowLeft");
        assert_eq!(&see(&mut browser), before);
    }
    // In the end each learner has applied what its last line says.
    browser.key("End");
    browser.settle();
    let applied = browser.eval(
        "[...paxosTimeline.state()].map(([server, known]) => [server, known.applied]).sort((a, b) => a[0] - b[0])",
    );
    let mut expected = std::collections::BTreeMap::new();
    for entry in &run.lines {
        use paxos_kv::trace::Event;
        let applied = match entry.line.event {
            Event::Learn { applied, .. } => Some(applied),
            Event::Restart { applied, .. } | Event::Boot { applied, .. } => applied,
            _ => None,
        };
        if let (Some(server), Some(applied)) = (entry.line.id.process.as_server(), applied) {
            expected.insert(server.0, applied.0);
        }
    }
    assert_eq!(applied, json!(expected.into_iter().collect::<Vec<_>>()));
    browser.must_be_content();
}

/// s3's acceptor is down; s1 writes slot 7 with the others.
const SAMPLE_RUN: &str = "\
2026-08-21T14:03:00.000000Z INFO  s1.1    server   BOOT     version=0.1.0 lines=2 cluster=s1,s2,s3 steps=on incarnation=1
2026-08-21T14:03:06.000000Z WARN  s3.1    acceptor CRASH    cause=timer up=4.402s down=2.150s
2026-08-21T14:03:07.104000Z INFO  c1.9    client   REQUEST  req=c1-5 op=PUT key=color value=blue to=s1
2026-08-21T14:03:07.104300Z INFO  s1.2    server   REQUEST  req=c1-5 op=PUT key=color value=blue from=127.0.0.1:50312 re=c1.9
2026-08-21T14:03:07.104455Z INFO  s1.3    proposer PREPARE  req=c1-5 slot=7+ ballot=3.1 to=s1,s2,s3 re=s1.2
2026-08-21T14:03:07.104500Z WARN  s3.2    acceptor DROP     req=c1-5 msg=PREPARE from=s1 cause=crashed re=s1.3
2026-08-21T14:03:07.104600Z INFO  s1.4    acceptor PROMISE  req=c1-5 slot=7+ ballot=3.1 accepted=none to=s1 re=s1.3
2026-08-21T14:03:07.105000Z INFO  s2.1    acceptor PROMISE  req=c1-5 slot=7+ ballot=3.1 accepted=none to=s1 re=s1.3
2026-08-21T14:03:07.105388Z INFO  s1.5    proposer ACCEPT   req=c1-5 slot=7 ballot=3.1 op=PUT key=color value=blue adopted=none quorum=s1,s2 to=s1,s2,s3 re=s2.1
2026-08-21T14:03:07.105500Z INFO  s1.6    acceptor ACCEPTED req=c1-5 slot=7 ballot=3.1 to=s1 re=s1.5
2026-08-21T14:03:07.106000Z INFO  s2.2    acceptor ACCEPTED req=c1-5 slot=7 ballot=3.1 to=s1 re=s1.5
2026-08-21T14:03:07.110000Z INFO  s1.7    learner  CHOSEN   req=c1-5 slot=7 ballot=3.1 quorum=s1,s2 to=s1,s2,s3 re=s2.2
2026-08-21T14:03:08.061377Z INFO  s3.3    acceptor RESTART  down=2.150s recovered=disk promised=2.2 accepted=0
";

#[test]
fn clicked_line_highlights_its_quorum() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let (file, _) = drawn(&run_of(SAMPLE_RUN), browser.dir(), "quorum");
    let lit = "[...document.querySelectorAll('.line.basis')].map((line) => paxosTimeline.shown[line.dataset.row].id)";
    for (line, basis) in [("s1.7", json!(["s1.6", "s2.2"])), ("s1.5", json!(["s1.4", "s2.1"]))] {
        browser.open_file(&file, "");
        let row = browser.number(&format!("paxosTimeline.run.byId.get('{line}').shown"));
        browser.click(&format!(".line[data-row='{row}']"));
        browser.settle();
        assert_eq!(browser.text("paxosTimeline.line().id"), line);
        assert_eq!(browser.eval(lit), basis, "{line}");
        assert_eq!(browser.number("document.querySelectorAll('#detail .links')[0].children.length"), 2);
    }
    // The crash is a band in one lane from here to there, and the lost message has a shape of its own.
    browser.open_file(&file, "");
    assert_eq!(browser.number("document.querySelectorAll('rect.band').length"), 1);
    assert_eq!(browser.number("document.querySelectorAll('#window .marks > path').length"), SAMPLE_RUN.lines().count());
    assert_eq!(browser.number("document.querySelectorAll('#window .arrows path.shaft[stroke-dasharray]').length"), 1);
    browser.must_be_content();
}

#[test]
fn a_violation_opens_at_the_first_wrong_line() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    // s2 has promised 9.2 and accepts at 3.1 all the same.
    let broken = SAMPLE_RUN.replace(
        "2026-08-21T14:03:07.105388Z",
        "2026-08-21T14:03:07.105200Z INFO  s2.9    acceptor PROMISE  slot=7+ ballot=9.2 accepted=none to=s2\n2026-08-21T14:03:07.105388Z",
    );
    let broken = broken
        .replace("s2.9 ", "s2.2 ")
        .replace("s2.2    acceptor ACCEPTED", "s2.3    acceptor ACCEPTED")
        .replace("re=s2.2\n", "re=s2.3\n");
    let (file, _) = drawn(&run_of(&broken), browser.dir(), "broken");
    browser.open_file(&file, "");
    browser.settle();
    assert_eq!(browser.text("paxosTimeline.line().id"), "s2.3");
    assert!(browser.text("document.querySelector('#verdict').textContent").contains("violation"));
    assert!(browser.text("document.querySelector('#detail .alarm').textContent").contains("promise"));
    // An address that names a line is the stronger.
    browser.open_file(&file, "#at=s1.4");
    assert_eq!(browser.text("paxosTimeline.line().id"), "s1.4");
    browser.must_be_content();
}

#[test]
fn client_text_stays_text() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    for hostile in [
        "</script><script>document.title='owned'</script>",
        "<img src=x onerror=\"document.title='owned'\">",
        "'\"--><svg onload=document.title='owned'>",
        "%STYLE%%DATA%%SCRIPT%",
    ] {
        let text = paxos_kv::trace::QuotedText::from(hostile);
        let lines =
            SAMPLE_RUN.replace("key=color", &format!("key={text}")).replace("value=blue", &format!("value={text}"));
        let lines = lines.replace("req=c1-5", &format!("req={text}"));
        let (file, _) = drawn(&run_of(&lines), browser.dir(), hostile);
        browser.open_file(&file, &format!("#at=s1.5&req={}", "x"));
        browser.eval("paxosTimeline.setFilter({}), paxosTimeline.go(paxosTimeline.run.byId.get('s1.5')), paxosTimeline.showTab('slots'), paxosTimeline.showTab('now')");
        browser.settle();
        assert_eq!(browser.text("document.title"), hostile);
        assert_eq!(
            browser.number("document.querySelectorAll('img, script:not([id]), [onload]').length"),
            1,
            "the page's own script"
        );
        assert!(browser.text("document.querySelector('#detail').textContent").contains(hostile));
    }
    browser.must_be_content();
}

#[test]
fn a_hundred_thousand_lines_open_in_seconds() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let mut lines = String::from(
        "2026-08-21T14:03:00.000000Z INFO  s1.1    server   BOOT     version=0.1.0 lines=2 cluster=s1,s2,s3,s4,s5 steps=on incarnation=1\n",
    );
    let (mut numbers, mut micros) = ([0, 1, 0, 0, 0, 0], 1_000);
    let mut line = |server: usize, rest: String| {
        numbers[server] += 1;
        micros += 37;
        let id = format!("s{server}.{}", numbers[server]);
        let _ = writeln!(
            lines,
            "2026-08-21T14:{:02}:{:02}.{:06}Z INFO  {id:<7} {rest}",
            3 + micros / 60_000_000,
            micros / 1_000_000 % 60,
            micros % 1_000_000
        );
        id
    };
    for slot in 1..=5_600 {
        let owner = slot % 5 + 1;
        let ballot = format!("{slot}.{owner}");
        let prepare =
            line(owner, format!("proposer PREPARE  req=c1-{slot} slot={slot}+ ballot={ballot} to=s1,s2,s3,s4,s5"));
        let mut last = String::new();
        for server in 1..=5 {
            last = line(
                server,
                format!(
                    "acceptor PROMISE  req=c1-{slot} slot={slot}+ ballot={ballot} accepted=none to=s{owner} re={prepare}"
                ),
            );
        }
        let accept = line(
            owner,
            format!(
                "proposer ACCEPT   req=c1-{slot} slot={slot} ballot={ballot} op=PUT key=color value=blue adopted=none quorum=s1,s2,s3,s4,s5 to=s1,s2,s3,s4,s5 re={last}"
            ),
        );
        for server in 1..=5 {
            last = line(
                server,
                format!("acceptor ACCEPTED req=c1-{slot} slot={slot} ballot={ballot} to=s{owner} re={accept}"),
            );
        }
        let chosen = line(
            owner,
            format!(
                "learner  CHOSEN   req=c1-{slot} slot={slot} ballot={ballot} quorum=s1,s2,s3,s4,s5 to=s1,s2,s3,s4,s5 re={last}"
            ),
        );
        for server in 1..=5 {
            line(
                server,
                format!(
                    "learner  LEARN    req=c1-{slot} slot={slot} ballot={ballot} op=PUT key=color value=blue result=OK version={slot} applied={slot} re={chosen}"
                ),
            );
        }
    }
    let run = run_of(&lines);
    assert!(run.lines.len() > 100_000);
    let (file, _) = drawn(&run, browser.dir(), "many");
    assert!(std::fs::metadata(&file).unwrap().len() < 8 << 20);
    let started = std::time::Instant::now();
    browser.open_file(&file, "");
    browser.settle();
    let opened = started.elapsed();
    assert_eq!(counted(&mut browser), PageCounts::new(&run));
    browser.key("End");
    browser.settle();
    assert_eq!(browser.number("paxosTimeline.cursor") + 1, run.lines.len());
    let steps = std::time::Instant::now();
    for _ in 0..20 {
        browser.key("ArrowLeft");
        browser.settle();
    }
    let step = steps.elapsed() / 20;
    eprintln!("{} lines opened in {opened:?}, a step takes {step:?}", run.lines.len());
    // Of all lines only those near the window are elements.
    assert!(browser.number("document.querySelectorAll('.line').length") < 300);
    assert!(opened.as_secs() < 20 && step.as_millis() < 500, "{opened:?} {step:?}");
    browser.must_be_content();
}

/// s2's acceptor is down, and s1 gives up a ballot for a request that s3 then does.
const RETRIED_RUN: &str = "\
2026-08-21T14:03:00.000000Z INFO  s1.1    server   BOOT     version=0.1.0 lines=2 cluster=s1,s2,s3 steps=on incarnation=1
2026-08-21T14:03:07.104300Z INFO  s1.2    server   REQUEST  req=c1-5 op=PUT key=color value=blue from=127.0.0.1:50312
2026-08-21T14:03:07.104455Z INFO  s1.3    proposer PREPARE  req=c1-5 slot=7+ ballot=3.1 to=s1,s2,s3 re=s1.2
2026-08-21T14:03:07.204000Z WARN  s1.4    proposer RETRY    req=c1-5 slot=7 ballot=3.1 nack=none next_round=4
2026-08-21T14:03:08.104000Z WARN  s3.1    server   RESPONSE req=c1-5 status=NOTAPPLIED cause=\"no quorum\" took=900.000ms to=127.0.0.1:50314
2026-08-21T14:03:08.204000Z INFO  s3.2    server   RESPONSE req=c1-5 status=OK slot=7 version=1 took=100.000ms to=127.0.0.1:50314
2026-08-21T14:03:08.204500Z INFO  s2.1    proposer PREPARE  req=c1-6 slot=8+ ballot=5.2 to=s1,s2,s3
2026-08-21T14:03:08.205000Z WARN  s2.2    proposer RETRY    req=c1-6 slot=8 ballot=5.2 nack=none next_round=6
";

#[test]
fn proposer_waits_only_until_its_request_has_ended() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let (file, _) = drawn(&run_of(RETRIED_RUN), browser.dir(), "retried");
    browser.open_file(&file, "");
    let mut proposer_at = |line: &str, server: u8| {
        browser.eval(&format!("paxosTimeline.go(paxosTimeline.run.byId.get('{line}'))"));
        browser.settle();
        browser.text(&format!("document.querySelector('#state tr[data-key=\"{server}\"]').children[1].textContent"))
    };
    assert_eq!(proposer_at("s1.4", 1), "waits");
    assert_eq!(proposer_at("s3.1", 1), "waits", "a refusal of another server ends nothing here");
    assert_eq!(proposer_at("s3.2", 1), "\u{b7}");
    // The lines end before the request does, so nothing is known of it.
    assert_eq!(proposer_at("s2.1", 2), "asks 5.2");
    assert_eq!(proposer_at("s2.2", 2), "unknown");
    browser.must_be_content();
}
