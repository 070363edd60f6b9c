//! A running cluster in a real browser: the page fills while the cluster works, and survives what servers do not.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use paxos_kv::client::Client;
use serde_json::{Value, json};

use super::chromium::Browser;
use super::support::{Cluster, await_value};

fn put(client: &mut Client, n: usize) {
    client.put(b"color", format!("value {n}").as_bytes()).unwrap();
}

/// The ids of a server's lines, in its file.
fn in_file(cluster: &Cluster, id: u8) -> BTreeSet<String> {
    let lines = cluster.log_text(id);
    lines.lines().filter_map(|line| line.split_whitespace().nth(2).map(str::to_string)).collect()
}

/// The same, on the page.
fn on_page(browser: &mut Browser, id: u8) -> BTreeSet<String> {
    let ids =
        browser.eval(&format!("paxosTimeline.run.lines.filter((line) => line.server === {id}).map((line) => line.id)"));
    ids.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_string()).collect()
}

/// Waits until the page has every line of these servers.
fn await_lines(browser: &mut Browser, cluster: &Cluster, ids: &[u8]) {
    for id in ids {
        await_value("the page has every line", || {
            in_file(cluster, *id).is_subset(&on_page(browser, *id)).then_some(())
        });
    }
}

/// The status and the body that a server answers.
fn ask(cluster: &Cluster, id: u8, head: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(cluster.page_of(id)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(head.replace("HOST", &cluster.page_of(id).to_string()).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_string()))
}

#[test]
fn live_page_receives_the_lines_of_all_servers() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let cluster = Cluster::start_with_page(3, &[]);
    let mut client = cluster.client("c1", 1);
    put(&mut client, 0);
    browser.goto(&format!("http://{}/", cluster.page_of(1)));
    // What was there before it opened, and what comes.
    await_lines(&mut browser, &cluster, &[1, 2, 3]);
    for n in 1..20 {
        put(&mut client, n);
    }
    await_lines(&mut browser, &cluster, &[1, 2, 3]);
    assert_eq!(browser.text("document.querySelector('#live').textContent"), "live");
    assert!(browser.number("paxosTimeline.run.lines.filter((line) => line.name === 'CHOSEN').length") >= 20);
    assert_eq!(browser.number("document.querySelectorAll('#lanes .role').length"), 3 * 4);
    // A cursor on an old line stays there; a cursor on the newest line follows.
    assert_eq!(browser.eval("paxosTimeline.cursor === paxosTimeline.shown.length - 1"), json!(true));
    browser.key("Home");
    let first = browser.text("paxosTimeline.line().id");
    put(&mut client, 20);
    await_lines(&mut browser, &cluster, &[1, 2, 3]);
    assert_eq!(browser.text("paxosTimeline.line().id"), first);
    assert_eq!(browser.number("document.querySelectorAll('.lab').length"), 0, "no buttons without --lab");
    browser.must_be_content();
}

#[test]
fn page_reconnects_after_servers_restart() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let mut cluster = Cluster::start_with_page(3, &[]);
    let mut client = cluster.client("c1", 2);
    put(&mut client, 0);
    browser.goto(&format!("http://{}/", cluster.page_of(1)));
    await_lines(&mut browser, &cluster, &[1, 2, 3]);
    // Another server dies: the page says whom it does not hear, and goes on with the others.
    cluster.kill(&[3]);
    browser.await_js("document.querySelector('#live').textContent === 'live, without s3'");
    put(&mut client, 1);
    await_lines(&mut browser, &cluster, &[1, 2]);
    cluster.start_server(3);
    cluster.await_all();
    browser.await_js("document.querySelector('#live').textContent === 'live'");
    await_lines(&mut browser, &cluster, &[1, 2, 3]);
    // Its own server dies: what is there stays, and another address is named.
    cluster.kill(&[1]);
    browser.await_js("document.querySelector('#live').textContent === 'server not reachable'");
    let other = cluster.page_of(2).to_string();
    assert!(browser.text("document.querySelector('#gone').textContent").contains(&other));
    put(&mut client, 2);
    cluster.start_server(1);
    cluster.await_all();
    browser
        .await_js("document.querySelector('#live').textContent === 'live' && document.querySelector('#gone').hidden");
    put(&mut client, 3);
    await_lines(&mut browser, &cluster, &[1, 2, 3]);
    assert!(on_page(&mut browser, 1).iter().any(|id| id.starts_with("s1@2.")), "the second incarnation is there");
    let twice = "(() => { const ids = paxosTimeline.run.lines.map((line) => line.id); return ids.length - new Set(ids).size; })()";
    assert_eq!(browser.number(twice), 0, "no line is shown twice");
    // A refused connection is an error of the network, and the only one there may be.
    browser.errors.retain(|error| !error.contains("net::ERR_"));
    browser.must_be_content();
}

/// Opens the page of server 1 with the panel of the lab.
fn open_lab(browser: &mut Browser, cluster: &Cluster, ids: &[u8]) {
    browser.goto(&format!("http://{}/", cluster.page_of(1)));
    await_lines(browser, cluster, ids);
    browser.click("#tab-lab");
    browser.settle();
}

/// The button of a role or of a link in the lab.
fn lab_button(key: &str) -> String {
    format!(".lab button[data-key='{key}']")
}

/// Whether a button is shown as pressed.
fn pressed(key: &str, is_pressed: bool) -> String {
    format!("document.querySelector({}).getAttribute('aria-pressed') === '{is_pressed}'", json!(lab_button(key)))
}

#[test]
fn lab_buttons_crash_and_restart_roles_of_any_server() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let cluster = Cluster::start_with_page(3, &["--lab"]);
    open_lab(&mut browser, &cluster, &[1, 2, 3]);
    for (server, role) in [(1, "acceptor"), (2, "learner")] {
        let key = format!("{server}.{role}");
        let ring =
            |browser: &mut Browser| browser.text("document.querySelector('#lab .stage').getAttribute('aria-label')");
        for (event, is_down) in [("CRASH", true), ("RESTART", false)] {
            browser.click(&lab_button(&key));
            browser.await_js(&format!(
                "paxosTimeline.run.lines.some((line) => line.server === {server} && line.role === '{role}' && line.name === '{event}')"
            ));
            browser.await_js(&pressed(&key, is_down));
            // Whichever role is down, the ring shows it, in words and in shape.
            let word = if is_down { "down" } else { "up" };
            assert!(ring(&mut browser).contains(&format!("{role} {word}")), "{}", ring(&mut browser));
            let off =
                browser.number(&format!("document.querySelectorAll('#lab [data-key=\"s{server}\"] rect.off').length"));
            assert_eq!(off, usize::from(is_down), "{key}");
        }
    }
    browser.must_be_content();
}

#[test]
fn focus_and_clicks_survive_incoming_lines() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let cluster = Cluster::start_with_page(3, &["--lab"]);
    let mut client = cluster.client("c1", 1);
    open_lab(&mut browser, &cluster, &[1, 2, 3]);
    let count = "paxosTimeline.run.lines.length";
    // Updates arrive for four seconds, and at least a hundred lines.
    let mut busy = |browser: &mut Browser, time: Duration| {
        let (started, before) = (Instant::now(), browser.number(count));
        let mut n = 0;
        while started.elapsed() < time || browser.number(count) < before + 100 {
            put(&mut client, n);
            n += 1;
            browser.settle();
        }
    };
    let button = json!(lab_button("2.acceptor")).to_string();
    browser.eval(&format!("window.$one = document.querySelector({button}), $one.focus()"));
    busy(&mut browser, Duration::from_secs(4));
    assert_eq!(browser.eval("document.activeElement === $one && $one.isConnected"), json!(true), "the focus is lost");
    // A press that begins before lines arrive, and ends after them.
    let place = browser.place_of(&lab_button("2.acceptor"));
    browser.mouse("mousePressed", &place);
    busy(&mut browser, Duration::ZERO);
    browser.mouse("mouseReleased", &place);
    browser.await_js("paxosTimeline.run.lines.some((line) => line.name === 'CRASH' && line.server === 2)");
    browser.await_js(&pressed("2.acceptor", true));
    // The same holds of the other panels, and of the lines themselves.
    browser.click("#tab-now");
    browser.key("Home");
    browser.settle();
    browser.eval("window.$one = document.querySelector('#detail button[data-key=\"copy link\"]'), $one.focus()");
    let row = ".line[data-row='3']";
    let place = browser.place_of(row);
    browser.mouse("mousePressed", &place);
    browser.eval("$one.focus()");
    busy(&mut browser, Duration::ZERO);
    assert_eq!(browser.eval("document.activeElement === $one && $one.isConnected"), json!(true), "the focus is lost");
    browser.mouse("mouseReleased", &place);
    browser.await_js("paxosTimeline.cursor === 3");
    browser.must_be_content();
}

#[test]
fn past_is_marked_and_one_press_goes_back_to_live() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let cluster = Cluster::start_with_page(3, &["--lab"]);
    let mut client = cluster.client("c1", 1);
    put(&mut client, 0);
    browser.goto(&format!("http://{}/", cluster.page_of(1)));
    await_lines(&mut browser, &cluster, &[1, 2, 3]);
    let is_past = "document.querySelector('#past').checkVisibility()";
    assert_eq!(browser.eval(is_past), json!(false));
    assert_eq!(browser.text("document.querySelector('#moment').textContent"), "the state now");
    browser.key("Home");
    browser.settle();
    let says = browser.text("document.querySelector('#past-says').textContent");
    let at = browser.text("paxosTimeline.line().stamp.slice(11, 19)");
    assert!(says.starts_with(&format!("looking at {at} UTC, ")) && says.ends_with(" s ago"), "{says}");
    assert!(browser.text("document.querySelector('#moment').textContent").contains(&at));
    // The lab shows the cluster of now all the same, and says so.
    assert!(cluster.client_tool(&["crash", "3.learner"]).status.success());
    browser.click("#tab-lab");
    browser.await_js(&pressed("3.learner", true));
    assert_eq!(browser.eval(is_past), json!(true));
    assert!(browser.text("document.querySelector('#lab .acts').textContent").contains("now"));
    browser.click("#to-live");
    browser.settle();
    let follows = "paxosTimeline.cursor === paxosTimeline.shown.length - 1";
    assert_eq!((browser.eval(is_past), browser.eval(follows)), (json!(false), json!(true)));
    browser.key("Home");
    browser.key("End");
    browser.settle();
    assert_eq!((browser.eval(is_past), browser.eval(follows)), (json!(false), json!(true)));
    browser.must_be_content();
}

#[test]
fn links_are_cut_and_joined_and_requests_are_sent_from_the_page() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let cluster = Cluster::start_with_page(3, &["--lab"]);
    open_lab(&mut browser, &cluster, &[1, 2, 3]);
    let send = |browser: &mut Browser, op: &str, value: &str, server: &str| {
        browser.eval(&format!(
            "(() => {{ const set = (id, value) => {{ document.getElementById(id).value = value; }}; set('lab-op', '{op}'); \
             set('lab-key', 'f\u{e4}rbe'); set('lab-value', {}); set('lab-server', '{server}'); \
             document.querySelector('.lab-result').textContent = ''; document.querySelector('.lab .send').click(); }})()",
            json!(value)
        ));
        browser.await_js("!/^(|sent, .*)$/.test(document.querySelector('.lab-result').textContent)");
        browser.text("document.querySelector('.lab-result').textContent")
    };
    let lines = |state: &str| {
        format!(
            "paxosTimeline.run.lines.filter((line) => line.name === 'LINK' && line.fields.state === '{state}' && line.fields.cause === 'lab').length"
        )
    };
    browser.click(&lab_button("1-2"));
    browser.await_js(&format!("{} === 2", lines("cut")));
    browser.await_js(&pressed("1-2", true));
    assert_eq!(browser.number("document.querySelectorAll('#lab .wire.cut').length"), 1);
    let label = browser.text("document.querySelector('#lab .stage').getAttribute('aria-label')");
    assert!(label.contains("the link of s1 and s2 is cut"), "{label}");
    // A majority is left.
    let done = send(&mut browser, "put", "<b>\u{1f535}</b>", "1");
    assert!(done.contains("done (version 1, slot ") && done.contains("s1 answered"), "{done}");
    assert_eq!(cluster.client("c1", 3).get("f\u{e4}rbe").unwrap().value.unwrap(), "<b>\u{1f535}</b>".as_bytes());
    let read = send(&mut browser, "get", "", "3");
    assert!(read.contains("the value is \u{201c}<b>\u{1f535}</b>\u{201d}"), "{read}");
    // With server 3 alone too, there is none.
    browser.click(&lab_button("3 alone"));
    browser.await_js(&pressed("3 alone", true));
    let failed = send(&mut browser, "put", "red", "1");
    assert!(failed.contains("not applied: ") || failed.contains("outcome unknown"), "{failed}");
    browser.click(&lab_button("3 alone"));
    browser.click(&lab_button("1-2"));
    browser.await_js(&pressed("1-2", false));
    browser.await_js(&format!("{} >= 6", lines("joined")));
    assert_eq!(browser.number("document.querySelectorAll('#lab .wire.cut').length"), 0);
    await_value("all are linked again", || {
        (1..=3).all(|id| cluster.status(id).is_some_and(|status| status.connected.len() == 2)).then_some(())
    });
    let gone = send(&mut browser, "delete", "", "2");
    assert!(gone.contains("delete f\u{e4}rbe: done"), "{gone}");
    let none = send(&mut browser, "get", "", "");
    assert!(none.contains("there is no such key"), "{none}");
    browser.must_be_content();
}

#[test]
fn requests_of_other_pages_are_refused_and_changes_need_lab_mode() {
    let cluster = Cluster::start_with_page(1, &[]);
    let (code, body) = ask(&cluster, 1, "GET /status HTTP/1.1\r\nHost: HOST\r\n\r\n");
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &status["server"], &status["roles"]["acceptor"]["up"]), (200, &json!(1), &json!(true)));
    let (code, body) = ask(&cluster, 1, "GET /metrics HTTP/1.1\r\nHost: HOST\r\n\r\n");
    assert!(code == 200 && body.contains("\npaxos_role_up{role=\"acceptor\"} 1\n"), "{body}");
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("paxos_") && value.parse::<f64>().is_ok(), "{line}");
    }
    assert_eq!(ask(&cluster, 1, "GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n").0, 421);
    assert_eq!(ask(&cluster, 1, "GET /events HTTP/1.1\r\nHost: HOST\r\nOrigin: http://evil.example\r\n\r\n").0, 403);
    assert_eq!(
        ask(&cluster, 1, "POST /crash?role=1.acceptor HTTP/1.1\r\nHost: HOST\r\nX-Paxos-Lab: yes\r\n\r\n").0,
        403
    );
    for change in
        ["/cut?server=1&peers=2", "/join?server=1&peers=2", "/put?key=YQ&value=YQ", "/get?key=YQ", "/delete?key=YQ"]
    {
        let post = format!("POST {change} HTTP/1.1\r\nHost: HOST\r\n");
        assert_eq!(ask(&cluster, 1, &format!("{post}X-Paxos-Lab: yes\r\n\r\n")).0, 403, "{change} without --lab");
    }
    assert_eq!(ask(&cluster, 1, "GET /etc/passwd HTTP/1.1\r\nHost: HOST\r\n\r\n").0, 404);
    assert_eq!(ask(&cluster, 1, &format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000))).0, 431);
    let lab = Cluster::start_with_page(1, &["--lab"]);
    assert_eq!(ask(&lab, 1, "POST /crash?role=1.acceptor HTTP/1.1\r\nHost: HOST\r\n\r\n").0, 403);
    assert_eq!(ask(&lab, 1, "POST /crash?role=1.desk HTTP/1.1\r\nHost: HOST\r\nX-Paxos-Lab: yes\r\n\r\n").0, 400);
    for change in ["/cut?server=1&peers=2", "/put?key=YQ&value=YQ", "/get?key=YQ"] {
        let field = "X-Paxos-Lab: yes\r\n\r\n";
        for (head, code) in [
            (format!("POST {change} HTTP/1.1\r\nHost: HOST\r\n\r\n"), 403),
            (format!("POST {change} HTTP/1.1\r\nHost: HOST\r\nOrigin: http://evil.example\r\n{field}"), 403),
            (format!("POST {change} HTTP/1.1\r\nHost: evil.example\r\n{field}"), 421),
            (format!("GET {change} HTTP/1.1\r\nHost: HOST\r\n{field}"), 405),
        ] {
            assert_eq!(ask(&lab, 1, &head).0, code, "{head}");
        }
    }
    // It is alone.
    let nowhere = "POST /cut?server=1&peers=2 HTTP/1.1\r\nHost: HOST\r\nX-Paxos-Lab: yes\r\n\r\n";
    assert_eq!(ask(&lab, 1, nowhere).0, 400);
    // It has no such role: the order would stand for ever.
    let stranger = "POST /restart?role=1.coordinator HTTP/1.1\r\nHost: HOST\r\nX-Paxos-Lab: yes\r\n\r\n";
    assert_eq!(ask(&lab, 1, stranger).0, 400);
    assert_eq!(
        ask(&lab, 1, "POST /crash?role=1.acceptor&for=50ms HTTP/1.1\r\nHost: HOST\r\nX-Paxos-Lab: yes\r\n\r\n").0,
        200
    );
    await_value("the acceptor crashes and restarts", || lab.log_text(1).contains("acceptor RESTART").then_some(()));
}

#[test]
fn viewers_that_never_read_do_not_slow_the_cluster() {
    let cluster = Cluster::start_with_page(3, &[]);
    let mut client = cluster.client("c1", 1);
    let watch = || {
        let mut stream = TcpStream::connect(cluster.page_of(1)).unwrap();
        stream.write_all(format!("GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", cluster.page_of(1)).as_bytes()).unwrap();
        stream
    };
    let _deaf: Vec<TcpStream> = (0..16).map(|_| watch()).collect();
    let seats = || {
        ask(&cluster, 1, "GET /metrics HTTP/1.1\r\nHost: HOST\r\n\r\n").1.contains("\npaxos_viewers 16\n").then_some(())
    };
    await_value("all viewers are connected", seats);
    let mut refused = String::new();
    watch().read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    for n in 0..300 {
        put(&mut client, n);
    }
    let status = client.status(paxos_kv::role::ServerId(1)).unwrap();
    assert_eq!(status.roles.iter().map(|role| role.crashes).sum::<u32>(), 0);
    assert!(status.applied.0 >= 300);
}
