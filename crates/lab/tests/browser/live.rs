//! A running cluster in a real browser: the page fills while the cluster works, and survives what servers do not.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

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

#[test]
fn lab_buttons_crash_and_restart_roles_of_any_server() {
    let Some(mut browser) = Browser::open(1280, 800) else { return };
    let cluster = Cluster::start_with_page(3, &["--lab"]);
    browser.goto(&format!("http://{}/", cluster.page_of(1)));
    await_lines(&mut browser, &cluster, &[1, 2, 3]);
    for server in [1, 2] {
        let button = |verb: &str| format!(".lab button[title=\"{verb} s{server}'s acceptor\"]");
        for verb in ["Crash", "Restart"] {
            let selector = json!(button(verb)).to_string();
            browser.await_js(&format!("document.querySelector({selector}) !== null"));
            browser.eval(&format!("document.querySelector({selector}).click()"));
            let event = if verb == "Crash" { "CRASH" } else { "RESTART" };
            browser.await_js(&format!(
                "paxosTimeline.run.lines.some((line) => line.server === {server} && line.name === '{event}')"
            ));
        }
    }
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
    assert_eq!(ask(&cluster, 1, "GET /etc/passwd HTTP/1.1\r\nHost: HOST\r\n\r\n").0, 404);
    assert_eq!(ask(&cluster, 1, &format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000))).0, 431);
    let lab = Cluster::start_with_page(1, &["--lab"]);
    assert_eq!(ask(&lab, 1, "POST /crash?role=1.acceptor HTTP/1.1\r\nHost: HOST\r\n\r\n").0, 403);
    assert_eq!(ask(&lab, 1, "POST /crash?role=1.desk HTTP/1.1\r\nHost: HOST\r\nX-Paxos-Lab: yes\r\n\r\n").0, 400);
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
