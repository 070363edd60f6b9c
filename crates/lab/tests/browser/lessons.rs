//! The lessons, as a reader meets them.

use std::fs;
use std::path::PathBuf;

use paxos_lab::sim::lessons::{LESSONS, Lesson, lesson_command};
use serde_json::json;

use super::chromium::Browser;

/// The page of a lesson, in a file.
fn page_of(browser: &Browser, lesson: &Lesson) -> PathBuf {
    let file = browser.dir().join(format!("{}.html", lesson.name));
    fs::write(&file, lesson_command::page(lesson).unwrap()).unwrap();
    file
}

fn open(browser: &mut Browser, lesson: &Lesson) {
    let file = page_of(browser, lesson);
    browser.open_file(&file, "");
    browser.settle();
}

/// The words of a pattern, without its server.
fn words_of(pattern: &str) -> &str {
    pattern.split_once(".*").map_or(pattern, |(_, words)| words)
}

#[test]
fn lesson_opens_at_its_first_point_and_leads_through_the_others() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    for lesson in LESSONS {
        open(&mut browser, lesson);
        assert!(browser.text("document.querySelector('#lesson').innerText").contains(lesson.title));
        for (n, point) in lesson.points.iter().enumerate() {
            let line = browser.text("paxosTimeline.line().text");
            assert!(line.contains(words_of(point.line)), "{}: {line}", lesson.name);
            let card = browser.text("document.querySelector('#lesson .point').innerText");
            assert!(card.contains(point.says), "{card}");
            // The row, as it is drawn, names the server that the point names.
            let row = browser.text("document.querySelector('.line.here .tell').textContent");
            let server =
                point.says.to_lowercase().split_once("server ").map(|(_, rest)| rest[..1].to_string()).unwrap();
            assert!(row.contains(&format!("s{server}")), "{}: '{}' is shown at '{row}'", lesson.name, point.says);
            match n % 2 {
                0 => browser.key("Enter"),
                _ => drop(browser.eval("document.querySelector('#lesson .choice')?.click()")),
            }
            browser.settle();
        }
        // The answer to the last question is there on request.
        assert_eq!(browser.eval("document.querySelector('#lesson .answer').open"), json!(false));
        browser.key("Backspace");
        browser.settle();
        let before = &lesson.points[lesson.points.len() - 2];
        assert!(browser.text("paxosTimeline.line().text").contains(words_of(before.line)));
    }
    browser.must_be_content();
}

#[test]
fn what_comes_next_is_hidden_until_the_reader_has_predicted_or_skipped_it() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let lesson = Lesson::named("adopt").unwrap();
    let last_row = "Math.max(...[...document.querySelectorAll('.line')].map((line) => Number(line.dataset.row)))";
    let cursor = "paxosTimeline.cursor";
    open(&mut browser, lesson);
    assert_eq!(browser.number(last_row), browser.number(cursor), "nothing below the first point");
    let hidden = "document.querySelectorAll('.veil').length";
    assert_eq!(browser.number(hidden), 1);
    // A wrong answer, by its key, then a right one by a click: both go on, and the page says which it was.
    browser.key("1");
    browser.settle();
    assert!(browser.text("document.querySelector('#lesson .verdict').textContent").starts_with("Not so"));
    assert_eq!(browser.number(last_row), browser.number(cursor));
    let asks = lesson.points[2].asks.unwrap();
    browser.click(&format!(".choice:nth-child({})", asks.right + 1));
    browser.settle();
    assert_eq!(browser.number("document.querySelectorAll('#lesson .verdict.right').length"), 1);
    // A step through the lines passes the question, and the card follows.
    browser.key("End");
    browser.settle();
    assert_eq!(browser.number(hidden), 0);
    let count = browser.text("document.querySelector('#lesson .count').textContent");
    assert_eq!(count, format!("{0}/{0}", lesson.points.len()));
    // Nothing of the future is in the panel either.
    open(&mut browser, lesson);
    let caused = "[...document.querySelectorAll('#detail h3')].map((title) => title.textContent)";
    assert!(!browser.eval(caused).as_array().unwrap().contains(&json!("caused")));
    browser.click(".veil");
    browser.settle();
    assert!(browser.number(last_row) > browser.number(cursor));
    browser.must_be_content();
}

#[test]
fn a_cut_is_a_wall_and_a_lost_message_ends_in_a_cross() {
    let Some(mut browser) = Browser::open(1400, 900) else { return };
    open(&mut browser, Lesson::named("adopt").unwrap());
    // Server 5 is cut off: one wall, left of its columns.
    assert_eq!(browser.number("document.querySelectorAll('#window .wall').length"), 1);
    // PREPARE to s5, the PROMISE of s4, ACCEPT to s3, s4 and s5.
    assert_eq!(browser.number("document.querySelectorAll('#window .losses .cross').length"), 5);
    // In the ring four edges are cut, and three messages of the chosen line end half way.
    assert_eq!(browser.number("document.querySelectorAll('#stage .wire:not(.cut)').length"), 6);
    assert_eq!(browser.number("document.querySelectorAll('#stage .wire.cut').length"), 4);
    assert_eq!(browser.number("document.querySelectorAll('#stage .flight.lost').length"), 3);
    assert!(
        browser
            .text("document.querySelector('.line.here').textContent")
            .contains("lost on its way to s3, s4 and s5: the link is cut")
    );
    assert!(!browser.text("document.querySelector('#detail').textContent").contains("No line shows"));
    browser.key("End");
    browser.eval("paxosTimeline.diagram.box.scrollTop = 0");
    browser.settle();
    assert_eq!(
        browser.number("document.querySelectorAll('#window .wall').length"),
        2,
        "later server 1 is cut off, too"
    );
    browser.must_be_content();
}

#[test]
fn the_acceptor_that_two_quorums_share_is_marked() {
    let Some(mut browser) = Browser::open(1400, 900) else { return };
    for (name, point, word, both) in
        [("adopt", 4, "carries the value over", "in both"), ("lost-memory", 3, "lost what it had accepted", "forgot")]
    {
        open(&mut browser, Lesson::named(name).unwrap());
        for _ in 0..point {
            browser.key("Enter");
        }
        browser.settle();
        let met = browser.text("document.querySelector('#detail .met').textContent");
        assert!(met.starts_with("s2 belongs to both") && met.contains(word), "{met}");
        // Its acceptance of then and its promise of now, and what it kept in between.
        assert_eq!(browser.number("document.querySelectorAll('#window .shared').length"), 2);
        assert_eq!(
            browser.number("document.querySelectorAll('#window .kept.forgotten').length"),
            usize::from(name == "lost-memory")
        );
        assert_eq!(
            browser.eval("[...document.querySelectorAll('#stage .both')].map((word) => word.textContent)"),
            json!([both])
        );
    }
    // A first ballot meets no other.
    open(&mut browser, Lesson::named("one-value").unwrap());
    browser.key("End");
    browser.eval(
        "paxosTimeline.go(paxosTimeline.run.lines.find((line) => line.name === 'CHOSEN' && line.fields.slot === '2'))",
    );
    browser.settle();
    assert_eq!(browser.number("document.querySelectorAll('#window .shared, #detail .met').length"), 0);
    browser.must_be_content();
}

/// What a reader sees of a lesson without scrolling, at each of its points.
#[test]
fn lessons_fit_on_a_desktop_and_on_a_phone() {
    for (width, height) in [(1400, 900), (390, 844)] {
        let Some(mut browser) = Browser::open(width, height) else { return };
        for lesson in LESSONS {
            open(&mut browser, lesson);
            for point in lesson.points {
                let place = format!("{} at {width}x{height}: {}", lesson.name, point.says);
                let see = |browser: &mut Browser, selector: &str| {
                    let inside = format!(
                        "(() => {{ const box = document.querySelector({}).getBoundingClientRect(); \
                         return box.height > 0 && box.top >= 0 && box.left >= 0 && box.bottom <= innerHeight && box.right <= innerWidth; }})()",
                        json!(selector)
                    );
                    assert_eq!(browser.eval(&inside), json!(true), "{selector} of {place}");
                };
                for selector in ["#lesson h2", "#lesson .point", "#lesson .way", ".line.here .tell"] {
                    see(&mut browser, selector);
                }
                if width > 1000 {
                    see(&mut browser, "#stage svg");
                } else {
                    see(&mut browser, "#lanes");
                    let small = "[...document.querySelectorAll('button, summary, select')].filter((one) => { const box = one.getBoundingClientRect(); \
                                 return box.height > 0 && box.height < (one.tagName === 'SUMMARY' ? 32 : 40); }).map((one) => one.outerHTML)";
                    assert_eq!(browser.eval(small), json!([]), "buttons are too small: {place}");
                }
                let wide = "Math.max(document.documentElement.scrollWidth - innerWidth, document.querySelector('#run').scrollWidth - document.querySelector('#run').clientWidth)";
                assert_eq!(browser.eval(wide), json!(0), "scrolls sideways: {place}");
                // Each row has room for its whole sentence.
                let cut = "[...document.querySelectorAll('.line')].filter((line) => line.lastChild.getBoundingClientRect().bottom > line.getBoundingClientRect().bottom + 2 \
                           || line.lastChild.scrollWidth > line.lastChild.clientWidth).map((line) => line.textContent)";
                assert_eq!(browser.eval(cut), json!([]), "cut: {place}");
                browser.key("Enter");
                browser.settle();
            }
        }
        browser.must_be_content();
    }
}
