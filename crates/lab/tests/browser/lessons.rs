//! The lessons, as a reader meets them.

use std::fs;

use paxos_lab::sim::lessons::{LESSONS, lesson_command};
use serde_json::json;

use super::chromium::Browser;

#[test]
fn lesson_opens_at_its_first_place_and_links_to_the_others() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    for lesson in LESSONS {
        let file = browser.dir().join("lesson.html");
        fs::write(&file, lesson_command::page(lesson).unwrap()).unwrap();
        browser.open_file(&file, "");
        assert!(browser.text("document.querySelector('#lesson').innerText").contains(lesson.title));
        let mut seen = vec![browser.text("paxosTimeline.line().id")];
        for n in 0..lesson.look.len() {
            browser.eval(&format!("document.querySelectorAll('#lesson ol .jump')[{n}].click()"));
            browser.settle();
            let line = browser.text("paxosTimeline.line().text");
            let words = lesson.look[n].1;
            assert!(line.contains(words.split_once(".*").map_or(words, |(_, words)| words)), "{}: {line}", lesson.name);
            seen.push(browser.text("paxosTimeline.line().id"));
        }
        assert_eq!(seen[0], seen[1], "it opens at the first place");
        // The answer is there for those who ask.
        assert_eq!(browser.eval("document.querySelector('#lesson > details:last-child').open"), json!(false));
    }
    browser.must_be_content();
}
