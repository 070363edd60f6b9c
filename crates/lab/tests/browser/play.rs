//! Exercises, as a reader plays them: by keys alone, by mouse, on a phone.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use paxos_lab::play::exercise::Exercise;
use paxos_lab::play::exercises;
use serde_json::{Value, json};

use super::chromium::Browser;

/// A running `paxos-lab play`; it ends with the test.
struct Program {
    child: Child,
    address: String,
}

impl Program {
    fn start() -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paxos-lab"));
        command.args(["play", "--port", "0"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.map(Result::unwrap).find_map(|line| {
            let at = line.find("http://127.0.0.1:")?;
            line[at..].split_whitespace().next().map(str::to_string)
        });
        Program { child, address: address.unwrap() }
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

fn built_in(name: &str) -> Exercise {
    exercises::named(name).unwrap().1
}

/// The codes of an exercise's solution.
fn solution(name: &str) -> Vec<String> {
    built_in(name).solution.iter().map(|choice| choice.code()).collect()
}

/// Opens an exercise in a browser that has nothing of earlier visits.
fn open(browser: &mut Browser, program: &Program, hash: &str) {
    browser.call("Page.navigate", json!({ "url": "about:blank" }));
    browser.await_js("location.href === 'about:blank'");
    browser.call("Page.navigate", json!({ "url": format!("{}{hash}", program.address) }));
    browser.await_js("window.paxosPlay !== undefined && !document.body.classList.contains('loading')");
    settle(browser);
}

/// Waits until every choice is answered and drawn.
fn settle(browser: &mut Browser) {
    browser.eval("(async () => { for (let n = 0; n < 3; n++) await paxosPlay.game.turn; })()");
    browser.settle();
}

fn press(browser: &mut Browser, key: &str) {
    if key == "Enter" {
        // A key that types nothing and yet presses buttons needs its text.
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { "\r" } else { "" };
            browser.call("Input.dispatchKeyEvent", json!({ "type": kind, "key": key, "text": text }));
        }
    } else {
        browser.key(key);
    }
    settle(browser);
}

fn selected(browser: &mut Browser) -> String {
    browser.text("document.querySelector('#list [aria-selected=true]')?.dataset.code ?? ''")
}

/// Plays a choice by keys alone: a group is opened, the choice is walked to, and the enter key does it.
fn play_by_keys(browser: &mut Browser, code: &str) {
    let (key, wanted) = match code.as_bytes()[0] {
        // To drop or to double a message, the message itself is selected.
        b'x' => ("x", format!("d{}", &code[1..])),
        b'b' => ("b", format!("d{}", &code[1..])),
        _ => ("Enter", code.to_string()),
    };
    let opener = match code.as_bytes()[0] {
        b'c' | b'k' => Some("c"),
        b'r' => Some("r"),
        b'l' => Some("l"),
        _ => None,
    };
    if let Some(opener) = opener {
        for _ in 0..40 {
            press(browser, opener);
            if selected(browser) == wanted {
                break;
            }
        }
    }
    // Up to the first line of the list, and then down.
    for way in ["ArrowUp", "ArrowDown"] {
        for _ in 0..80 {
            let here = selected(browser);
            if here == wanted {
                break;
            }
            press(browser, way);
            if selected(browser) == here {
                break;
            }
        }
    }
    assert_eq!(selected(browser), wanted, "the list leads to {code}");
    let steps = browser.number("paxosPlay.game.cursor");
    press(browser, key);
    assert_eq!(browser.number("paxosPlay.game.cursor"), steps + 1, "{key} does {code}");
}

fn goals_met(browser: &mut Browser) -> usize {
    browser.number("document.querySelectorAll('#exercise .goals .met').length")
}

fn stars(browser: &mut Browser) -> String {
    browser.text("document.querySelector('#score .stars').textContent")
}

#[test]
fn exercises_are_solved_by_keys_alone() {
    let Some(mut browser) = Browser::open(1400, 900) else { return };
    let program = Program::start();
    // The first visit opens the first exercise, and its button names the key.
    open(&mut browser, &program, "");
    assert_eq!(browser.number("paxosPlay.game.exercise.number"), 1);
    assert!(browser.text("document.querySelector('.acts .go').innerText").contains("Press \u{21b5}"));
    for exercise in ["chosen", "adopt"] {
        if exercise != "chosen" {
            open(&mut browser, &program, &format!("#x={exercise}&c="));
        }
        for code in solution(exercise) {
            play_by_keys(&mut browser, &code);
            let told = browser.text("document.querySelector('#said').textContent");
            assert!(!told.is_empty(), "a screen reader hears the step");
        }
        assert_eq!(goals_met(&mut browser), built_in(exercise).goals.len());
        assert_eq!(stars(&mut browser), "\u{2605}\u{2605}\u{2605}");
        assert_eq!(browser.text("document.querySelector('#called').textContent"), "All goals are met.");
    }
    browser.must_be_content();
}

/// Clicks where a person sees an element: it must be there, and nothing may cover it.
fn hit(browser: &mut Browser, selector: &str) {
    let seen = browser.eval(&format!(
        "(() => {{ const node = document.querySelector({0}); if (!node) return 'missing'; node.scrollIntoView({{ block: 'nearest' }}); \
         const box = node.getBoundingClientRect(); \
         const top = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2); \
         return node.contains(top) ? 'seen' : `covered by ${{top && top.className}}`; }})()",
        json!(selector)
    ));
    assert_eq!(seen, json!("seen"), "{selector}");
    browser.click(selector);
    settle(browser);
}

/// Plays a choice by the mouse alone.
fn play_by_mouse(browser: &mut Browser, code: &str) {
    let steps = browser.number("paxosPlay.game.cursor");
    let wanted = if matches!(code.as_bytes()[0], b'x' | b'b') { format!("d{}", &code[1..]) } else { code.to_string() };
    let line = format!("#list [data-code=\"{wanted}\"]");
    if browser.eval(&format!("document.querySelector({}) === null", json!(line))) == json!(true) {
        match code.as_bytes()[0] {
            b'l' => hit(browser, "#folds [data-key=links]"),
            b'c' | b'k' | b'p' => hit(browser, &format!("[data-key=\"menu {}\"]", &code[1..2])),
            _ => hit(browser, "#folds [data-key=housekeeping]"),
        }
    }
    hit(browser, &line);
    let act = match code.as_bytes()[0] {
        b'x' => "Drop",
        b'b' => "Double",
        _ => "go",
    };
    hit(browser, &format!("#choice [data-key=\"act {act}\"]"));
    assert_eq!(browser.number("paxosPlay.game.cursor"), steps + 1, "the mouse does {code}");
}

#[test]
fn lost_memory_is_shown_with_both_quorums_and_mended_by_the_same_choices_with_disks() {
    let Some(mut browser) = Browser::open(1400, 900) else { return };
    let program = Program::start();
    open(&mut browser, &program, "#x=lost-memory&c=");
    for code in solution("lost-memory") {
        if browser.eval("paxosPlay.game.view.broken !== null") == json!(true) {
            break;
        }
        play_by_mouse(&mut browser, &code);
    }
    let broken = browser.eval("paxosPlay.game.view.broken");
    let alarm = browser.text("document.querySelector('#alarm').innerText");
    assert_eq!(broken["sides"].as_array().unwrap().len(), 2);
    for side in broken["sides"].as_array().unwrap() {
        let servers: Vec<String> = side["quorum"].as_array().unwrap().iter().map(|id| format!("s{id}")).collect();
        assert!(alarm.contains(&format!("by {}", servers.join(", "))), "{alarm}");
        assert!(alarm.contains(side["value"].as_str().unwrap()), "{alarm}");
    }
    let shared = browser.eval("[...document.querySelectorAll('#alarm .shared')].map((node) => node.textContent)");
    let both = broken["both"].as_array().unwrap();
    assert!(!both.is_empty());
    for id in both {
        assert!(shared.as_array().unwrap().contains(&json!(format!("s{id}"))), "{shared}");
    }
    assert!(browser.text("document.querySelector('#safety').textContent").contains("broken"));
    // The same choices with the disks kept are a branch by themselves, and there agreement holds.
    hit(&mut browser, "[data-key=\"mode safe\"]");
    assert_eq!(browser.number("paxosPlay.game.branches.length"), 2);
    assert_eq!(browser.eval("paxosPlay.game.view.broken"), Value::Null);
    assert_eq!(browser.eval("document.querySelector('#alarm').hidden"), json!(true));
    hit(&mut browser, "[data-key=compare]");
    assert!(browser.text("document.querySelector('#dialog-body').innerText").contains("agreement"));
    browser.must_be_content();
}

fn branches(browser: &mut Browser) -> Value {
    browser.eval("paxosPlay.game.branches.map((branch) => [branch.name, branch.codes.length])")
}

#[test]
fn undo_redo_branches_and_links_lose_nothing() {
    let Some(mut browser) = Browser::open(1400, 900) else { return };
    let mut program = Program::start();
    open(&mut browser, &program, "#x=adopt&c=");
    for _ in 0..8 {
        press(&mut browser, "Enter");
    }
    let before = browser.eval("[paxosPlay.game.view.hash, paxosPlay.game.codes()]");
    for _ in 0..5 {
        press(&mut browser, "ArrowLeft");
    }
    assert_eq!(browser.number("paxosPlay.game.cursor"), 3);
    assert_eq!(browser.number("document.querySelectorAll('#past .steps .here').length"), 1);
    for _ in 0..5 {
        press(&mut browser, "ArrowRight");
    }
    assert_eq!(browser.eval("[paxosPlay.game.view.hash, paxosPlay.game.codes()]"), before);
    assert_eq!(branches(&mut browser), json!([["A", 8]]), "redo makes no branch");
    // The choice that follows anyway makes no branch; another one does, and the first list stays.
    for _ in 0..5 {
        press(&mut browser, "z");
    }
    press(&mut browser, "Enter");
    assert_eq!(branches(&mut browser), json!([["A", 8]]));
    press(&mut browser, "ArrowDown");
    press(&mut browser, "Enter");
    assert_eq!(branches(&mut browser), json!([["A", 8], ["B", 5]]));
    assert_eq!(browser.number("document.querySelectorAll('#past .strip').length"), 2);
    press(&mut browser, "[");
    assert_eq!(browser.number("paxosPlay.game.here"), 0);
    assert_eq!(browser.eval("[paxosPlay.game.view.hash, paxosPlay.game.codes()]"), before);
    hit(&mut browser, "[data-key=compare]");
    assert_eq!(browser.number("document.querySelectorAll('#dialog-body .columns ol').length"), 2);
    hit(&mut browser, "#dialog .close");
    browser.await_js("!document.querySelector('#dialog').open");
    // A reload changes nothing, and neither does the link in a browser that has kept nothing.
    settle(&mut browser);
    let link = browser.text("location.hash");
    assert!(link.starts_with("#x=adopt&c=") && link.contains("&h="), "{link}");
    open(&mut browser, &program, &link);
    assert_eq!(branches(&mut browser), json!([["A", 8], ["B", 5]]));
    browser.eval("localStorage.clear()");
    open(&mut browser, &program, &link);
    assert_eq!(branches(&mut browser), json!([["A", 8]]));
    assert_eq!(browser.eval("[paxosPlay.game.view.hash, paxosPlay.game.codes()]"), before);
    browser.must_be_content();
    // Without its program the page says so, keeps the choices, and goes on when the program is back.
    program.end();
    browser.eval("paxosPlay.game.service.views.clear()");
    press(&mut browser, "ArrowLeft");
    assert_eq!(browser.number("paxosPlay.game.cursor"), 8);
    assert!(browser.text("document.querySelector('#gone').textContent").contains("does not answer"));
}

/// What is wrong with the picture: what covers a card, what leaves the window, what scrolls sideways.
const WRONG_JS: &str = r#"(() => {
  const wrong = [], box = (node) => node.getBoundingClientRect(), seen = (node) => box(node).width > 0 && getComputedStyle(node).visibility === 'visible';
  if (document.documentElement.scrollWidth > innerWidth) wrong.push(`the page is ${document.documentElement.scrollWidth} wide`);
  const main = document.querySelector('#main');
  if (main.scrollWidth > main.clientWidth) wrong.push(`the middle is ${main.scrollWidth} wide`);
  const ring = box(document.querySelector('#ring'));
  const parts = [...document.querySelectorAll('#ring > .server, #ring > .message, #ring > .client, #ring > .cut')].filter(seen);
  for (const part of parts) {
    const at = box(part);
    if (at.left < ring.left - 1 || at.right > ring.right + 1 || at.top < ring.top - 1 || at.bottom > ring.bottom + 1) wrong.push(`${part.className} ${part.textContent} leaves the ring`);
  }
  parts.forEach((one, n) => parts.slice(n + 1).forEach((other) => {
    const [a, b] = [box(one), box(other)];
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left), high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 1 && high > 1) wrong.push(`${one.className} ${one.textContent} and ${other.className} ${other.textContent} overlap`);
  }));
  for (const node of document.querySelectorAll('button, select, .option, h3, .pill')) {
    if (!seen(node) || node.closest('.steps, dialog, .hush')) continue;
    const at = box(node);
    if (at.left < -1 || at.right > innerWidth + 1) wrong.push(`${node.className} ${node.textContent} leaves the window`);
  }
  return wrong;
})()"#;

/// Buttons and the like that have no name.
const NAMELESS_JS: &str = "[...document.querySelectorAll('button, select, input, textarea, [role=option], [role=tab], [role=img]')]\
    .filter((node) => !(node.getAttribute('aria-label') || node.textContent.trim() || (node.labels && node.labels.length)))\
    .map((node) => node.outerHTML.slice(0, 120))";

/// Texts with a contrast below 4.5 to 1; what is disabled or hidden from readers is left out.
const PALE_JS: &str = r#"(() => {
  const parse = (text) => {
    const numbers = (text.match(/[\d.]+(e-?\d+)?/g) || []).map(Number), scale = text.startsWith('color(') ? 255 : 1;
    return { rgb: numbers.slice(0, 3).map((part) => part * scale), alpha: numbers.length > 3 ? numbers[3] : 1 };
  };
  const over = (top, below) => top.rgb.map((part, n) => part * top.alpha + below[n] * (1 - top.alpha));
  const ground = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      layers.push(color);
      if (color.alpha === 1) break;
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const light = (rgb) => rgb.map((part) => part / 255).map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, n) => sum + part * [0.2126, 0.7152, 0.0722][n], 0);
  const pale = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || /^(SCRIPT|STYLE|OPTION|NOSCRIPT)$/.test(node.tagName)) continue;
    if (!node.checkVisibility({ opacityProperty: true, visibilityProperty: true }) || node.closest('[aria-disabled=true], [aria-hidden=true], .hush, dialog:not([open])')) continue;
    texts++;
    const below = ground(node), color = parse(getComputedStyle(node).color), [a, b] = [light(over(color, below)), light(below)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) pale.push(`${ratio.toFixed(2)} ${node.tagName}.${node.className} ${walker.currentNode.textContent.trim().slice(0, 40)}`);
  }
  return texts < 40 ? [`only ${texts} texts were looked at`] : [...new Set(pale)];
})()"#;

#[test]
fn every_size_and_theme_is_whole_named_and_readable() {
    let Some(mut browser) = Browser::open(1400, 900) else { return };
    let program = Program::start();
    browser.call(
        "Emulation.setEmulatedMedia",
        json!({ "features": [{ "name": "prefers-reduced-motion", "value": "reduce" }] }),
    );
    // The middle of an adoption has messages of two ballots; the lost memory at its end has the alarm.
    let adopt = solution("adopt");
    let places = [
        format!("#x=adopt&c={}", adopt[..adopt.len() / 2].join("-")),
        format!("#x=lost-memory&c={}", solution("lost-memory").join("-")),
    ];
    for place in places {
        open(&mut browser, &program, &place);
        for (width, height) in [(1400, 900), (1000, 800), (390, 844), (320, 640)] {
            let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
            browser.call("Emulation.setDeviceMetricsOverride", size);
            for theme in ["light", "dark"] {
                browser.eval(&format!("document.documentElement.dataset.theme = '{theme}'"));
                let tabs: &[&str] = if width < 760 { &["next", "votes", "why", "steps"] } else { &["next"] };
                for tab in tabs {
                    browser.eval(&format!("document.querySelector('.tabs [data-tab={tab}]').click()"));
                    settle(&mut browser);
                    let wrong = browser.eval(WRONG_JS);
                    assert_eq!(wrong, json!([]), "{place} at {width} by {height}, {theme}, {tab}");
                    let pale = browser.eval(PALE_JS);
                    assert_eq!(pale, json!([]), "{place} at {width} by {height}, {theme}, {tab}");
                }
            }
            assert_eq!(browser.eval(NAMELESS_JS), json!([]));
        }
        // With reduced motion nothing moves by itself.
        press(&mut browser, "Enter");
        assert_eq!(browser.number("document.getAnimations().length"), 0);
    }
    browser.must_be_content();
}
