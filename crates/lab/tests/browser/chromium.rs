//! A browser without a window, told what to do over two pipes (the DevTools protocol).

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Names under which it is found; `PAXOS_CHROMIUM` names another.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// A running browser with one page.
pub struct Browser {
    child: Child,
    dir: tempfile::TempDir,
    to: File,
    from: BufReader<File>,
    next: u64,
    session: Option<String>,
    /// What its console has said that is an error.
    pub errors: Vec<String>,
}

fn find() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("PAXOS_CHROMIUM") {
        return Some(named.into());
    }
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    NAMES.iter().flat_map(|name| folders.iter().map(move |dir| dir.join(name))).find(|path| path.is_file())
}

impl Browser {
    /// Starts one; None, with a word on why, where there is none.
    pub fn open(width: u32, height: u32) -> Option<Browser> {
        let Some(program) = find() else {
            eprintln!(
                "SKIPPED: no Chromium here. Install it (Debian: apt-get install chromium), or name one in PAXOS_CHROMIUM"
            );
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let [to, from] = ["to", "from"].map(|name| dir.path().join(name));
        assert!(Command::new("mkfifo").args([&to, &from]).status().unwrap().success());
        // A shell can hand on pipes by number; the browser takes its orders from 3 and answers on 4.
        let mut command = Command::new("bash");
        command.args(["-c", "exec \"$@\" 3<\"$TO\" 4>\"$FROM\"", "browser"]).arg(program);
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]);
        command.args(["--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking"]);
        command.arg(format!("--user-data-dir={}", dir.path().join("profile").display()));
        command.arg(format!("--window-size={width},{height}")).arg("about:blank");
        command.env("TO", &to).env("FROM", &from);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let to = File::options().write(true).open(to).unwrap();
        let from = BufReader::new(File::open(from).unwrap());
        let mut browser = Browser { child, dir, to, from, next: 1, session: None, errors: Vec::new() };
        browser.attach(width, height);
        Some(browser)
    }

    fn attach(&mut self, width: u32, height: u32) {
        let target = self.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = self.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Asks, and waits for the answer.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        let id = self.next;
        self.next += 1;
        let mut order = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            order["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{order}\0").as_bytes()).unwrap();
        loop {
            let mut message = Vec::new();
            self.from.read_until(0, &mut message).unwrap();
            assert!(message.pop() == Some(0), "the browser ended in the middle of {method}");
            let message: Value = serde_json::from_slice(&message).unwrap();
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.record_errors(&message);
        }
    }

    fn record_errors(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.errors.push(params["exceptionDetails"].to_string()),
            Some("Runtime.consoleAPICalled") if params["type"] == "error" => {
                self.errors.push(params["args"].to_string())
            }
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                self.errors.push(params["entry"].to_string())
            }
            _ => {}
        }
    }

    /// Opens a page and waits until it has drawn itself.
    pub fn goto(&mut self, url: &str) {
        // From another page: a change behind the # alone loads nothing.
        self.call("Page.navigate", json!({ "url": "about:blank" }));
        self.await_js("location.href === 'about:blank'");
        self.call("Page.navigate", json!({ "url": url }));
        self.await_js("document.readyState === 'complete' && window.paxosTimeline !== undefined && !document.body.classList.contains('loading')");
    }

    /// Opens a file.
    pub fn open_file(&mut self, path: &Path, hash: &str) {
        self.goto(&format!("file://{}{hash}", path.canonicalize().unwrap().display()));
    }

    /// What an expression evaluates to; promises are awaited.
    pub fn eval(&mut self, expression: &str) -> Value {
        let order = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", order);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// The number that an expression evaluates to.
    pub fn number(&mut self, expression: &str) -> usize {
        let value = self.eval(expression);
        value.as_f64().unwrap_or_else(|| panic!("{expression} is {value}")) as usize
    }

    /// The text that an expression evaluates to.
    pub fn text(&mut self, expression: &str) -> String {
        self.eval(expression).as_str().unwrap_or_default().to_string()
    }

    /// Waits until an expression is true.
    pub fn await_js(&mut self, expression: &str) {
        let started = Instant::now();
        loop {
            let order = json!({ "expression": expression, "returnByValue": true });
            // While a page loads there may be nothing to ask.
            let answer = self.call("Runtime.evaluate", order);
            if answer["result"]["value"] == true {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "never: {expression}; errors: {:?}", self.errors);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses a key, as a person does.
    pub fn key(&mut self, key: &str) {
        let text = if key.chars().count() == 1 { json!(key) } else { Value::Null };
        for kind in ["keyDown", "keyUp"] {
            let mut order = json!({ "type": kind, "key": key });
            if kind == "keyDown" && !text.is_null() {
                order["text"] = text.clone();
            }
            self.call("Input.dispatchKeyEvent", order);
        }
    }

    /// Clicks into the middle of an element.
    pub fn click(&mut self, selector: &str) {
        let place = self.place_of(selector);
        for kind in ["mousePressed", "mouseReleased"] {
            self.mouse(kind, &place);
        }
    }

    /// The middle of an element, scrolled into view.
    pub fn place_of(&mut self, selector: &str) -> Value {
        self.eval(&format!(
            "(() => {{ const one = document.querySelector({}); one.scrollIntoView({{ block: 'nearest' }}); \
             const box = one.getBoundingClientRect(); return [box.left + box.width / 2, box.top + box.height / 2]; }})()",
            json!(selector)
        ))
    }

    /// One event of the mouse.
    pub fn mouse(&mut self, kind: &str, place: &Value) {
        let order = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
        self.call("Input.dispatchMouseEvent", order);
    }

    /// Waits until what was asked for is drawn.
    pub fn settle(&mut self) {
        self.eval("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))");
    }

    /// A directory of its own.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The test is over: nothing may have gone wrong in the page.
    pub fn must_be_content(&mut self) {
        self.eval("0");
        assert!(self.errors.is_empty(), "errors in the page: {:#?}", self.errors);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.to.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
