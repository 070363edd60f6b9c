//! The sample that the README shows, as it lies in the repository.

use std::path::Path;

use paxos_kv::trace::audit::{Audit, AuditVerdict};
use paxos_kv::trace::parse::Run;
use paxos_kv::trace::report::Report;
use paxos_kv::trace::timeline::counts::PageCounts;

use super::chromium::Browser;
use super::drawing::counted;

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
