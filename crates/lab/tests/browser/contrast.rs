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

/// The panels next to the diagram; that of the lab is hidden on other pages.
const PANELS: [&str; 4] = ["now", "slots", "legend", "lab"];

/// Measures every visible text in both themes; there are more than `count`.
fn measure(browser: &mut Browser, page: &str, count: u64) {
    for theme in ["light", "dark"] {
        browser.eval(&format!("paxosTimeline.setTheme({})", theme == "dark"));
        browser.settle();
        let found = browser.eval(MEASURE);
        assert!(found["count"].as_u64().unwrap() > count, "{page}: {found}");
        let poor: Vec<&str> = found["poor"].as_array().unwrap().iter().filter_map(|text| text.as_str()).collect();
        assert!(poor.is_empty(), "{page}, {theme}: too little contrast:\n{}", poor.join("\n"));
    }
}

/// The same, with each panel open.
fn measure_panels(browser: &mut Browser, page: &str) {
    for panel in PANELS {
        browser.eval(&format!(
            "(() => {{ const tab = document.querySelector('#tab-{panel}'); tab.hidden || tab.click(); }})()"
        ));
        browser.settle();
        measure(browser, &format!("{page}, panel {panel}"), 50);
    }
    browser.eval("document.querySelector('#tab-now').click()");
}

/// The same at a line of each event and level: text is colored by them, and by whether the line is chosen.
fn measure_kinds_of_lines(browser: &mut Browser, page: &str) {
    let kinds = browser
        .eval("[...new Map(paxosTimeline.shown.map((line) => [`${line.name} ${line.level}`, line.shown])).values()]");
    let kinds: Vec<u64> = kinds.as_array().unwrap().iter().filter_map(|row| row.as_u64()).collect();
    assert!(kinds.len() > 10, "{page}: {kinds:?}");
    for row in kinds {
        browser.eval(&format!("paxosTimeline.goRow({row}, true)"));
        measure(browser, &format!("{page}, row {row}"), 50);
    }
}

#[test]
fn texts_of_recorded_runs_have_enough_contrast() {
    let Some(mut browser) = Browser::open(1400, 900) else { return };
    let sample = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../res/sample"));
    let (file, _) = drawn(&Run::read(sample).unwrap(), browser.dir(), "sample");
    browser.open_file(&file, "");
    measure_kinds_of_lines(&mut browser, "sample");
    measure_panels(&mut browser, "sample");
    for dialog in ["about", "findings"] {
        browser.eval(&format!("document.querySelector('#{dialog}').showModal()"));
        measure(&mut browser, dialog, 1);
        browser.eval(&format!("document.querySelector('#{dialog}').close()"));
    }
    let lesson = LESSONS.iter().find(|lesson| lesson.name == "lost-memory").unwrap();
    let file = browser.dir().join("lesson.html");
    fs::write(&file, lesson_command::page(lesson).unwrap()).unwrap();
    browser.open_file(&file, "");
    browser.eval("document.querySelectorAll('details').forEach((one) => { one.open = true; })");
    measure_panels(&mut browser, "lesson");
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
    browser.await_js("[2, 3, 4].every((n) => { const known = paxosTimeline.run.stateAt(paxosTimeline.run.lines.length - 1).get(n); return known.down.size || paxosTimeline.run.derive().cuts.some(({ pair, to }) => !to && pair.includes(n)); })");
    measure_panels(&mut browser, "live, now");
    browser.key("Home");
    measure_panels(&mut browser, "live, then");
    // Its own server dies.
    cluster.kill(&[1]);
    await_value("the page says so", || {
        (browser.text("document.querySelector('#live').textContent") == "server not reachable").then_some(())
    });
    measure_panels(&mut browser, "without its server");
}
