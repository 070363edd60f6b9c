//! The page reads lines itself. Here it reads what the Rust reader reads, and both must understand the same.

use std::fs;
use std::path::{Path, PathBuf};

use paxos_kv::protocol::Protocol;
use paxos_kv::trace::Line;
use paxos_kv::trace::audit::Audit;
use paxos_kv::trace::parse::Run;
use paxos_kv::trace::timeline::counts::PageCounts;
use paxos_kv::trace::timeline::{LINES_MAX, last_history, page};
use paxos_lab::sim::{FaultSet, batch};
use serde_json::{Value, json};

use super::chromium::Browser;

/// What `timeline` draws of a simulated run: its last history, read from files in this directory.
pub fn simulated(dir: &Path, seed: u64, faults: FaultSet) -> Run {
    let dir = dir.join(format!("sim-{seed}"));
    fs::create_dir_all(&dir).unwrap();
    for (name, text) in batch::run_one(
        seed,
        batch::BatchConfig {
            allowed: faults,
            bug: None,
            protocol: Some(Protocol::BasicPaxos),
            user_visible_only: false,
        },
        true,
    )
    .lines
    {
        fs::write(dir.join(name), text).unwrap();
    }
    last_history(Run::read(&dir).unwrap()).0
}

/// The page of a run, in a file beside it, and what it draws.
pub fn drawn(run: &Run, dir: &Path, title: &str) -> (PathBuf, PageCounts) {
    let file = dir.join("page.html");
    let page = page(run, &Audit::new(run), title, LINES_MAX);
    fs::write(&file, page.html).unwrap();
    (file, page.counts)
}

/// A run of these lines.
pub fn run_of(text: &str) -> Run {
    let mut run = Run::default();
    run.add("all.log", text.as_bytes(), u64::MAX).unwrap();
    run
}

/// What the Rust reader has understood of a line.
fn line_json(line: &Line) -> Value {
    json!({
        "id": line.id.to_string(), "micros": line.time.as_microsecond(), "level": line.level().as_str(),
        "server": line.id.process.as_server().map_or(0, |server| server.0), "life": line.id.process.incarnation(),
        "role": line.role.as_str(), "event": line.event.to_string(), "req": line.req,
        "re": line.parent.as_ref().map(ToString::to_string), "why": line.reason,
    })
}

/// The same, of the page's reader.
const PAGE_LINES_JS: &str = "paxosTimeline.run.lines.map((line) => ({ id: line.id, micros: line.time, level: line.level, \
    server: line.server, life: line.life, role: line.role, \
    event: [line.name, ...Object.entries(line.fields).map(([key, value]) => `${key}=${value}`)].join(' '), \
    req: line.req, re: line.re, why: line.why })).sort((a, b) => (a.id < b.id ? -1 : 1))";

fn must_agree(browser: &mut Browser, run: &Run) {
    let (file, _) = drawn(run, browser.dir(), "reader");
    browser.open_file(&file, "");
    let mut expected: Vec<Value> = run.lines.iter().map(|entry| line_json(&entry.line)).collect();
    expected.sort_by_key(|line| line["id"].to_string());
    let mut found = browser.eval(PAGE_LINES_JS).as_array().unwrap().clone();
    found.sort_by_key(|line| line["id"].to_string());
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(browser.number("paxosTimeline.run.unread"), 0);
}

#[test]
fn the_page_reads_lines_as_the_rust_reader_does() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    // Every shape that is documented; their numbers repeat, which those of one run do not.
    let shapes = include_str!("../../../../src/trace/testdata/shapes.log");
    let shapes: String = shapes
        .lines()
        .enumerate()
        .map(|(n, line)| {
            let mut line: Line = line.parse().unwrap();
            line.id.n = 1_000 + n as u64;
            format!("{line}\n")
        })
        .collect();
    must_agree(&mut browser, &run_of(&shapes));
    let dir = tempfile::tempdir().unwrap();
    for seed in [7, 11, 23] {
        must_agree(&mut browser, &simulated(dir.path(), seed, FaultSet::all()));
    }
    browser.must_be_content();
}

#[test]
fn texts_of_clients_are_read_back_byte_by_byte() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let texts = [
        "a b",
        "say \"hi\" \\o/",
        "a\nb\tc\r",
        "a=b",
        "-- no reason",
        "grün 💡",
        "",
        "re=s1.1",
        "\u{202e}\u{2028}",
        "\\n",
    ];
    let mut lines = String::new();
    for (n, text) in texts.iter().enumerate() {
        let shown = paxos_kv::trace::QuotedText::from(*text);
        lines += &format!(
            "2026-08-21T14:03:07.{n:06}Z INFO  c1.{:<4} client   REQUEST  req=c1-{n} op=PUT key={shown} value={shown} to=s1 \
             session=3\n",
            n + 1
        );
    }
    let run = run_of(&lines);
    let (file, _) = drawn(&run, browser.dir(), "texts");
    browser.open_file(&file, "");
    let found = browser.eval("paxosTimeline.run.lines.map((line) => paxosTimeline.tools.readText(line.fields.value))");
    assert_eq!(found, json!(texts));
    browser.must_be_content();
}

#[test]
fn invalid_lines_are_only_counted() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let run = run_of("2026-08-21T14:03:07.105612Z WARN  s3.1    acceptor DROP     msg=ACCEPT cause=crashed\n");
    let (file, _) = drawn(&run, browser.dir(), "garbage");
    browser.open_file(&file, "");
    let garbage = json!([
        "",
        "what is this?",
        "2026-08-21T14:03:07.105612Z WARN",
        "2026-08-21T14:03:07.105612Z WARN  s3.1 acceptor DROP msg",
        "2026-08-21T14:03:07.105612Z WARN  s3.1    acceptor DROP     msg=\"ACCEPT cause=crashed",
        "2026-08-21 14:03:07 WARN  s3.1    acceptor DROP     msg=ACCEPT"
    ]);
    for line in garbage.as_array().unwrap() {
        assert!(line.as_str().unwrap().parse::<Line>().is_err());
    }
    assert_eq!(
        browser.eval(&format!("{garbage}.map(paxosTimeline.tools.readLine)")),
        json!([null, null, null, null, null, null])
    );
    browser.must_be_content();
}
