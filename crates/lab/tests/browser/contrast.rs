//! The colors: every text can be read on what is behind it, in both themes.

use std::fs;
use std::path::Path;

use paxos_kv::trace::parse::Run;
use paxos_lab::sim::lessons::{LESSONS, lesson_command};

use super::chromium::Browser;
use super::reading::drawn;
use super::support::{Cluster, await_value};

/// Returns the number of visible texts, and those with a contrast below 4.5, the minimum of WCAG 2.2 for text (AA).
const MEASURE: &str = include_str!("contrast.js");

/// Measures every text, with each panel open, in both themes.
fn must_be_readable(browser: &mut Browser, page: &str) {
    for theme in ["light", "dark"] {
        browser.eval(&format!("paxosTimeline.setTheme({})", theme == "dark"));
        for tab in ["now", "slots", "legend", "lab"] {
            browser.eval(&format!("$tab = document.querySelector('#tab-{tab}'), $tab.hidden || $tab.click(), 0"));
            browser.settle();
            let found = browser.eval(MEASURE);
            assert!(found["count"].as_u64().unwrap() > 50, "{page}, {tab}: {found}");
            let poor: Vec<&str> = found["poor"].as_array().unwrap().iter().filter_map(|text| text.as_str()).collect();
            assert!(poor.is_empty(), "{page}, {theme}, {tab}: too little contrast:\n{}", poor.join("\n"));
        }
    }
    browser.eval("document.querySelector('#tab-now').click()");
}

/// Each line that looks different from others: its text is marked by its level, its event, and whether it is chosen.
fn must_be_readable_at_every_kind_of_line(browser: &mut Browser, page: &str) {
    let kinds = browser.eval(
        "[...new Map(paxosTimeline.shown.map((line) => [`${line.name} ${line.level} ${line.server}`, line.shown])).values()]",
    );
    let kinds: Vec<u64> = kinds.as_array().unwrap().iter().filter_map(|row| row.as_u64()).collect();
    assert!(kinds.len() > 10, "{page}: {kinds:?}");
    // Some of them stand in the same window.
    let mut measured: Option<u64> = None;
    for row in kinds {
        if measured.is_some_and(|last| row.abs_diff(last) < 12) {
            continue;
        }
        measured = Some(row);
        browser.eval(&format!("paxosTimeline.goRow({row}, true)"));
        must_be_readable(browser, &format!("{page}, row {row}"));
    }
}

#[test]
fn texts_of_recorded_runs_have_enough_contrast() {
    let Some(mut browser) = Browser::open(1400, 900) else { return };
    let sample = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../res/sample"));
    let (file, _) = drawn(&Run::read(sample).unwrap(), browser.dir(), "sample");
    browser.open_file(&file, "");
    must_be_readable_at_every_kind_of_line(&mut browser, "sample");
    for dialog in ["about", "findings"] {
        browser.eval(&format!("document.querySelector('#{dialog}').showModal()"));
        must_be_readable(&mut browser, dialog);
        browser.eval(&format!("document.querySelector('#{dialog}').close()"));
    }
    let lesson = LESSONS.iter().find(|lesson| lesson.name == "lost-memory").unwrap();
    let file = browser.dir().join("lesson.html");
    fs::write(&file, lesson_command::page(lesson).unwrap()).unwrap();
    browser.open_file(&file, "");
    browser.eval("document.querySelectorAll('details').forEach((one) => { one.open = true; })");
    must_be_readable(&mut browser, "lesson");
    browser.must_be_content();
}

#[test]
fn texts_of_the_live_page_have_enough_contrast() {
    let Some(mut browser) = Browser::open(1400, 900) else { return };
    let mut cluster = Cluster::start_with_page(5, &["--lab"]);
    let mut client = cluster.client("c1", 1);
    client.put(b"color", b"blue").unwrap();
    browser.goto(&format!("http://{}/", cluster.page_of(1)));
    for command in [&["crash", "2"][..], &["crash", "3.learner"], &["cut", "1", "4"]] {
        assert!(cluster.client_tool(command).status.success());
    }
    cluster.kill(&[5]);
    browser.await_js("document.querySelector('#live').textContent === 'live, without s5'");
    browser.await_js("[2, 3, 4].every((n) => { const known = paxosTimeline.run.stateAt(paxosTimeline.run.lines.length - 1).get(n); return known.down.size || known.cut.size; })");
    must_be_readable(&mut browser, "live, now");
    browser.key("Home");
    must_be_readable(&mut browser, "live, then");
    // Its own server dies.
    cluster.kill(&[1]);
    await_value("the page says so", || {
        (browser.text("document.querySelector('#live').textContent") == "server not reachable").then_some(())
    });
    must_be_readable(&mut browser, "without its server");
}
