//! The sample that the README shows, as it lies in the repository.

use std::path::Path;

use paxos_kv::trace::audit::{Audit, AuditVerdict};
use paxos_kv::trace::parse::Run;
use paxos_kv::trace::report::Report;
use paxos_kv::trace::timeline::counts::PageCounts;

use super::chromium::Browser;
use super::drawing::counted;
use super::reading::drawn;

fn sample() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../res/sample"))
}

#[test]
fn sample_is_proved_and_matches_its_report() {
    let run = Run::read(sample()).unwrap();
    assert_eq!(Audit::new(&run).verdict(), AuditVerdict::Proved);
    let told = std::fs::read_to_string(sample().join("report.txt")).unwrap();
    assert!(told.starts_with(&Report::new(&run).checklist().to_string()), "make it anew: see res/sample/README.md");
}

#[test]
fn the_page_of_the_sample_draws_its_lines() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let run = Run::read(sample()).unwrap();
    browser.open_file(&sample().join("run.html"), "");
    assert_eq!(counted(&mut browser), PageCounts::new(&run));
    assert_eq!(browser.number("document.querySelectorAll('#lanes .role').length"), 5 * 4);
    assert_eq!(browser.text("document.querySelector('#verdict').textContent"), "✓ proved");
    // A request by its address, a step on and a step back.
    browser.open_file(&sample().join("run.html"), "#req=c1-12");
    assert!(browser.number("paxosTimeline.shown.length") > 10);
    let before = browser.text("paxosTimeline.line().id");
    browser.key("ArrowRight");
    assert_ne!(browser.text("paxosTimeline.line().id"), before);
    browser.key("ArrowLeft");
    assert_eq!(browser.text("paxosTimeline.line().id"), before);
    browser.must_be_content();
}

#[test]
fn the_picture_of_a_run_opens_at_the_first_crash_that_overlaps_a_request() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let run = Run::read(sample()).unwrap();
    let (file, _) = drawn(&run, browser.dir(), "sample");
    browser.open_file(&file, "");
    browser.settle();
    let line = browser.text("paxosTimeline.line().text");
    assert!(line.contains("CRASH"), "{line}");
    // What comes before the first request is folded: processes start, links connect, sessions are opened.
    let first = browser.text("paxosTimeline.shown[0].text");
    assert!(first.contains("REQUEST  req=c1-2 op=PUT"), "{first}");
    let label = browser.text("document.querySelector('#set-up').textContent");
    let folded = browser.number("paxosTimeline.run.lines.length - paxosTimeline.shown.length");
    assert_eq!(label, format!("▸ {folded} lines of set-up"));
    assert!(folded > 25, "{folded}");
    // A key or a click shows it and folds it again, and the chosen line stays.
    browser.key("u");
    browser.settle();
    assert_eq!(browser.number("paxosTimeline.run.lines.length - paxosTimeline.shown.length"), 0);
    assert_eq!(browser.text("paxosTimeline.line().text"), line);
    browser.eval("document.querySelector('#set-up').click()");
    assert_eq!(browser.number("paxosTimeline.run.lines.length - paxosTimeline.shown.length"), folded);
    // An address that names a line of the set-up opens it, and a filter shows all its lines.
    browser.open_file(&file, "#at=s1.1");
    assert_eq!(browser.text("paxosTimeline.line().id"), "s1.1");
    browser.open_file(&file, "#req=c1-1");
    assert!(browser.text("paxosTimeline.shown[0].text").contains("op=OPEN"));
    browser.must_be_content();
}
