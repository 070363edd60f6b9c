//! Tests of the server, over real connections.

use std::io::{Read, Write};
use std::time::Instant;

use super::*;

/// A server on a port of its own, which ends with the value.
struct Served {
    threads: Arc<ThreadGroup>,
    address: SocketAddr,
}

impl Served {
    fn new() -> Served {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (threads, address) = (ThreadGroup::new(), listener.local_addr().unwrap());
        serve(&threads, listener, OwnExercise::default()).unwrap();
        Served { threads, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// The status and the body of the answer to these bytes.
    fn raw(&self, bytes: &[u8]) -> (u16, String) {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        answer_of(stream)
    }

    fn request(&self, method: &str, path: &str, fields: &str, body: &[u8]) -> (u16, String) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{fields}\r\n",
            self.address,
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat())
    }

    fn post(&self, path: &str, body: &Json) -> (u16, Json) {
        let (status, text) = self.request("POST", path, "X-Paxos-Lab: yes\r\n", body.to_string().as_bytes());
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.threads.stop();
        self.threads.join(Instant::now() + Duration::from_secs(10));
    }
}

fn answer_of(mut stream: TcpStream) -> (u16, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{text:?}"));
    (status, text.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_string()))
}

#[test]
fn page_and_exercises_are_served() {
    let served = Served::new();
    let (status, page) = served.request("GET", "/", "", b"");
    assert!(status == 200 && page.to_lowercase().starts_with("<!doctype html>"));
    let (status, text) = served.request("GET", "/exercises", "", b"");
    let all: Json = serde_json::from_str(&text).unwrap();
    assert_eq!((status, all["exercises"].as_array().unwrap().len()), (200, 18));
    assert!(!text.contains("solution"), "a solution is not sent with the list");
}

#[test]
fn game_is_viewed_run_searched_and_exported() {
    let served = Served::new();
    let (status, view) = served.post("/view", &json!({ "x": "chosen", "c": "da1Q-d12P" }));
    assert_eq!((status, view["count"].as_u64(), view["messages"][0]["id"].as_str()), (200, Some(2), Some("d21R")));
    let (status, other) = served.post("/view", &json!({ "x": "chosen", "c": "da1Q-d12P-d51N", "mode": "lost" }));
    assert_eq!((status, &other["skipped"], &other["mode"]["unsafe"]), (200, &1.into(), &true.into()));
    let (status, ran) = served.post("/run", &json!({ "x": "chosen", "c": "da1Q", "policy": "in-order", "most": 3 }));
    assert_eq!((status, &ran["added"]), (200, &3.into()));
    // Two of five have chosen Lyon, and two others are about to choose Oslo.
    let near = "da1Q-d12P-d21R-d12A-db3Q-d34P-d43R";
    let (status, found) = served.post("/break", &json!({ "x": "quorums", "c": near, "seconds": 5, "seed": 1 }));
    assert_eq!((status, &found["found"]), (200, &true.into()), "{found}");
    assert!(found["c"].as_str().unwrap().starts_with(near));
    let (_, shown) = served.post("/view", &json!({ "x": "quorums", "c": found["c"] }));
    assert!(shown["broken"]["sentence"].as_str().unwrap().contains("Two values"));
    let (status, file) = served.post("/export", &json!({ "x": "chosen", "c": "da1Q", "as": "text" }));
    assert!(status == 200 && file["text"].as_str().unwrap().contains("deliver c1>s1 REQUEST"));
    let (status, codes) = served.post("/export", &json!({ "as": "codes", "lines": "deliver c1>s1 REQUEST\nkill s2" }));
    assert_eq!((status, &codes["c"]), (200, &"da1Q-k2".into()));
    let text = exercises::all().pop().unwrap().source;
    assert_eq!(served.post("/view", &json!({ "text": text, "c": "" })).0, 200);
}

#[test]
fn wrong_requests_get_a_status_and_a_sentence() {
    let served = Served::new();
    let body = json!({ "x": "chosen", "c": "" }).to_string();
    let field = "X-Paxos-Lab: yes\r\n";
    let refused = |(status, text): (u16, String)| {
        let sentence: Json = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text}"));
        assert!(sentence["error"].as_str().is_some_and(|error| error.len() > 10), "{text}");
        status
    };
    assert_eq!(refused(served.request("POST", "/view", "", body.as_bytes())), 403, "without the field");
    assert_eq!(refused(served.request("GET", "/view", field, b"")), 405);
    assert_eq!(refused(served.request("POST", "/", field, b"")), 405);
    assert_eq!(refused(served.request("GET", "/etc/passwd", field, b"")), 404);
    let foreign = format!("{field}Origin: http://evil.example\r\n");
    assert_eq!(refused(served.request("POST", "/view", &foreign, body.as_bytes())), 403, "another site's page");
    assert_eq!(refused(served.raw(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")), 421);
    assert_eq!(refused(served.request("POST", "/view", field, b"\xff\xfe{}")), 400, "not UTF-8");
    assert_eq!(refused(served.request("POST", "/view", field, b"{\"x\": \"chosen\", \"y\": 1}")), 400, "unknown field");
    assert_eq!(refused(served.request("POST", "/view", field, &vec![b' '; BODY_MAX_BYTES + 1])), 413);
    let chunked =
        format!("POST /view HTTP/1.1\r\nHost: {}\r\n{field}Transfer-Encoding: chunked\r\n\r\n", served.address);
    assert_eq!(refused(served.raw(chunked.as_bytes())), 411);
    let status = |body: Json| served.post("/view", &body).0;
    assert_eq!(status(json!({ "x": "nothing" })), 404);
    assert_eq!(status(json!({ "c": "" })), 400);
    assert_eq!(status(json!({ "x": "chosen", "c": "zz" })), 400);
    assert_eq!(status(json!({ "x": "chosen", "c": vec!["k1"; CHOICES_MAX + 1].join("-") })), 400);
    assert_eq!(status(json!({ "x": "chosen", "mode": "quorums 1+1" })), 400);
    assert_eq!(status(json!({ "text": "name x" })), 400);
    assert_eq!(served.post("/run", &json!({ "x": "chosen", "policy": "wild" })).0, 400);
    assert_eq!(served.post("/run", &json!({ "x": "chosen", "most": 101 })).0, 400);
    assert_eq!(served.post("/export", &json!({ "x": "chosen", "as": "pdf" })).0, 400);
}

#[test]
fn slow_body_is_refused_and_keeps_no_other_request_out() {
    let served = Served::new();
    let mut slow = served.connect();
    let head =
        format!("POST /view HTTP/1.1\r\nHost: {}\r\nX-Paxos-Lab: yes\r\nContent-Length: 9\r\n\r\n{{", served.address);
    slow.write_all(head.as_bytes()).unwrap();
    assert_eq!(served.post("/view", &json!({ "x": "chosen" })).0, 200);
    let (status, text) = answer_of(slow);
    assert!(status == 408 && text.contains("5 s"), "{status} {text}");
}

#[test]
fn search_ends_when_its_page_has_gone() {
    let served = Served::new();
    let body = json!({ "x": "chosen", "c": "", "seconds": 5 }).to_string();
    let head = format!(
        "POST /break HTTP/1.1\r\nHost: {}\r\nX-Paxos-Lab: yes\r\nContent-Length: {}\r\n\r\n{body}",
        served.address,
        body.len()
    );
    let busy = json!({ "x": "chosen", "c": "", "seconds": 1 });
    let begun = Instant::now();
    let page = loop {
        let mut page = served.connect();
        page.write_all(head.as_bytes()).unwrap();
        // Which of the two comes first is chance: only one of them searches, and the other is refused.
        if served.post("/break", &busy).0 == 503 {
            break page;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "two searches run at once");
    };
    drop(page);
    let gone = Instant::now();
    while served.post("/break", &busy).0 == 503 {
        assert!(gone.elapsed() < Duration::from_secs(4), "the search goes on");
    }
}
