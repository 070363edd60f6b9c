//! HTTP requests: read within limits, and checked before any work is done for them.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::host::NOT_LAB;

/// Maximum bytes of a request's head; longer heads are refused.
const HEAD_MAX_BYTES: usize = 8 << 10;
/// Maximum number of header fields of a request.
const FIELDS_MAX: usize = 64;
/// Time-out for the whole request.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// At most this much of a wrong Host is shown in the refusal.
const HOST_SHOWN_CHARS: usize = 80;
/// The header field that a changing request must have. A page of another site cannot send it without this server's
/// consent.
pub const LAB_FIELD: &str = "x-paxos-lab";

/// The head of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method, as GET or POST.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query, after the question mark.
    pub query: String,
    host: Option<String>,
    origin: Option<String>,
    lab: bool,
    /// The length of the body, as the head states it.
    length: Option<String>,
    /// The body comes in pieces, whose length the head does not state.
    is_chunked: bool,
}

/// Why a request is refused: a status and a sentence.
pub type HttpRefusal = (u16, String);

/// Reads the head of a request. None if the caller closed the connection before that.
pub fn read(stream: &TcpStream) -> io::Result<Option<Result<HttpRequest, HttpRefusal>>> {
    let read = read_head(stream, Instant::now() + READ_DEADLINE)?;
    Ok(read.map(|read| read.map(|(request, _)| request)))
}

/// Reads a request with its body of at most `most` bytes, both within 5 s. A request without a length has no body. None
/// if the caller closed the connection before the end.
#[allow(clippy::type_complexity)]
pub fn read_with_body(
    stream: &TcpStream,
    most: usize,
) -> io::Result<Option<Result<(HttpRequest, Vec<u8>), HttpRefusal>>> {
    let deadline = Instant::now() + READ_DEADLINE;
    let (request, mut body) = match read_head(stream, deadline)? {
        Some(Ok(read)) => read,
        Some(Err(refusal)) => return Ok(Some(Err(refusal))),
        None => return Ok(None),
    };
    let length = match request.body_length(most) {
        Ok(length) => length,
        Err(refusal) => return Ok(Some(Err(refusal))),
    };
    while body.len() < length {
        match read_block(stream, deadline, &mut body)? {
            ReadBlock::Some => {}
            ReadBlock::End => return Ok(None),
            ReadBlock::Late => return Ok(Some(Err(late("body")))),
        }
    }
    body.truncate(length);
    Ok(Some(Ok((request, body))))
}

/// The head of a request, and the bytes behind it that have arrived.
type HeadAndRest = (HttpRequest, Vec<u8>);

fn read_head(stream: &TcpStream, deadline: Instant) -> io::Result<Option<Result<HeadAndRest, HttpRefusal>>> {
    let mut head = Vec::new();
    loop {
        match read_block(stream, deadline, &mut head)? {
            ReadBlock::Some => {}
            ReadBlock::End => return Ok(None),
            ReadBlock::Late => return Ok(Some(Err(late("head")))),
        }
        if let Some(read) = parse_head(&head) {
            return Ok(Some(read.map(|(request, length)| (request, head.split_off(length)))));
        }
        if head.len() > HEAD_MAX_BYTES {
            return Ok(Some(Err((431, format!("the request head is longer than {HEAD_MAX_BYTES} bytes")))));
        }
    }
}

enum ReadBlock {
    Some,
    /// The caller has closed the connection.
    End,
    /// The deadline has passed.
    Late,
}

fn read_block(mut stream: &TcpStream, deadline: Instant, to: &mut Vec<u8>) -> io::Result<ReadBlock> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(ReadBlock::Late);
    }
    stream.set_read_timeout(Some(left))?;
    let mut block = [0; 1_024];
    match stream.read(&mut block) {
        Ok(0) => Ok(ReadBlock::End),
        Ok(length) => {
            to.extend_from_slice(&block[..length]);
            Ok(ReadBlock::Some)
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Ok(ReadBlock::Late)
        }
        Err(error) => Err(error),
    }
}

fn late(part: &str) -> HttpRefusal {
    (408, format!("the request {part} did not arrive within {} s", READ_DEADLINE.as_secs()))
}

/// The request of a complete head; None if more bytes must arrive.
pub fn parse(head: &[u8]) -> Option<Result<HttpRequest, HttpRefusal>> {
    parse_head(head).map(|read| read.map(|(request, _)| request))
}

/// The request of a complete head, and the length of the head.
fn parse_head(head: &[u8]) -> Option<Result<(HttpRequest, usize), HttpRefusal>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    let length = match parsed.parse(head) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(length)) => length,
        Err(error) => return Some(Err((400, format!("not an HTTP request: {error}")))),
    };
    let mut request = HttpRequest { method: parsed.method?.to_string(), ..HttpRequest::default() };
    let (path, query) = parsed.path?.split_once('?').unwrap_or((parsed.path?, ""));
    (request.path, request.query) = (path.to_string(), query.to_string());
    for field in parsed.headers.iter() {
        let value = || String::from_utf8_lossy(field.value).into_owned();
        let seen = match field.name.to_ascii_lowercase().as_str() {
            "host" => request.host.replace(value()),
            "origin" => request.origin.replace(value()),
            "content-length" => request.length.replace(value()),
            "transfer-encoding" => {
                request.is_chunked = true;
                None
            }
            LAB_FIELD => {
                request.lab = true;
                None
            }
            _ => None,
        };
        if seen.is_some() {
            return Some(Err((400, format!("the header field {} is given twice", field.name))));
        }
    }
    Some(Ok((request, length)))
}

impl HttpRequest {
    /// The length of the body, at most `most`.
    fn body_length(&self, most: usize) -> Result<usize, HttpRefusal> {
        if self.is_chunked {
            return Err((411, "the request must state the length of its body: Content-Length".to_string()));
        }
        let Some(text) = &self.length else { return Ok(0) };
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number {
            return Err((400, "the Content-Length is not a number".to_string()));
        }
        // A number too large for the type is too large for the limit.
        let length = text.parse().unwrap_or(usize::MAX);
        if length > most { Err((413, format!("the request body is longer than {most} bytes"))) } else { Ok(length) }
    }

    /// Whether the request may be answered at all. It must name this server by its address, since anyone can point a
    /// name here, and must not come from a page of another site.
    pub fn check_caller(&self, bound: SocketAddr) -> Result<(), HttpRefusal> {
        let host = self.host.as_deref().unwrap_or_default();
        if !is_own(host, bound) {
            let address = match bound.ip().is_unspecified() {
                true => format!("http://ADDRESS:{}/, where ADDRESS is an IP address of this machine", bound.port()),
                false => format!("http://{bound}/"),
            };
            let sentence = format!(
                "refused the host name in '{}', because anyone can point a name to this server. Use {address}",
                host.chars().take(HOST_SHOWN_CHARS).filter(|c| c.is_ascii_graphic()).collect::<String>()
            );
            return Err((421, sentence));
        }
        match &self.origin {
            Some(origin) if origin.strip_prefix("http://") != Some(host) => {
                Err((403, "refused: the request comes from a page of another site".to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Whether the request may change something.
    pub fn check_change(&self, lab: bool) -> Result<(), HttpRefusal> {
        if !lab {
            return Err((403, NOT_LAB.to_string()));
        }
        if self.method != "POST" {
            return Err((405, "this request changes something: use POST".to_string()));
        }
        if !self.lab {
            return Err((403, format!("the header field {LAB_FIELD} is missing")));
        }
        Ok(())
    }

    /// A parameter of the query: `3.acceptor` for `role` of `role=3.acceptor&for=2s`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
    }
}

/// Whether a Host is the bound address. If every address of the machine is bound, any of them is accepted if it is a
/// number, since anyone can point a name here.
fn is_own(host: &str, bound: SocketAddr) -> bool {
    // Browsers use `localhost` for this machine, whatever a name server answers.
    let is_local = bound.ip().is_loopback() || bound.ip().is_unspecified();
    if host == bound.to_string() || (is_local && host.eq_ignore_ascii_case(&format!("localhost:{}", bound.port()))) {
        return true;
    }
    bound.ip().is_unspecified()
        && host.parse::<SocketAddr>().is_ok_and(|named| named.port() == bound.port() && !is_unspecified(named.ip()))
}

fn is_unspecified(ip: IpAddr) -> bool {
    ip.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound() -> SocketAddr {
        "127.0.0.1:7301".parse().unwrap()
    }

    fn of(head: &str) -> Result<HttpRequest, HttpRefusal> {
        parse(head.as_bytes()).expect("the head is whole")
    }

    #[test]
    fn request_is_parsed_when_its_head_is_complete() {
        assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: a"), None);
        let request = of("GET /crash?role=3.acceptor&for=2s HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!((request.path.as_str(), request.parameter("role")), ("/crash", Some("3.acceptor")));
        assert_eq!((request.parameter("for"), request.parameter("or")), (Some("2s"), None));
        assert_eq!(of("what is this\r\n\r\n").unwrap_err().0, 400);
        assert_eq!(of("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n").unwrap_err().0, 400);
        let many = "X: y\r\n".repeat(FIELDS_MAX + 1);
        assert_eq!(of(&format!("GET / HTTP/1.1\r\n{many}\r\n")).unwrap_err().0, 400);
    }

    #[test]
    fn body_is_as_long_as_the_head_states() {
        let length = |fields: &str| of(&format!("POST / HTTP/1.1\r\n{fields}\r\n")).unwrap().body_length(10);
        assert_eq!(length(""), Ok(0));
        assert_eq!(length("Content-Length: 10\r\n"), Ok(10));
        let refusal = |fields: &str| length(fields).unwrap_err().0;
        assert_eq!(refusal("Content-Length: 11\r\n"), 413);
        assert_eq!(refusal("Content-Length: 99999999999999999999999\r\n"), 413);
        assert_eq!(refusal("Content-Length: +5\r\n"), 400);
        assert_eq!(refusal("Content-Length: \r\n"), 400);
        assert_eq!(refusal("Transfer-Encoding: chunked\r\n"), 411);
        let twice = "POST / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\n";
        assert_eq!(of(twice).unwrap_err().0, 400, "two lengths contradict each other");
    }

    #[test]
    fn only_the_exact_host_is_answered() {
        let check = |host: &str, bound: &str| {
            of(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap().check_caller(bound.parse().unwrap()).is_ok()
        };
        assert!(check("127.0.0.1:7301", "127.0.0.1:7301") && check("localhost:7301", "127.0.0.1:7301"));
        for host in ["127.0.0.1", "127.0.0.1:7302", "evil.example:7301", "127.0.0.1:7301.evil.example", "localhost"] {
            assert!(!check(host, "127.0.0.1:7301"), "{host}");
        }
        assert!(check("192.168.1.5:7301", "0.0.0.0:7301") && !check("evil.example:7301", "0.0.0.0:7301"));
        assert!(check("localhost:7301", "0.0.0.0:7301") && check("LocalHost:7301", "127.0.0.1:7301"));
        let named = of("GET / HTTP/1.1\r\nHost: box.lan:7301\r\n\r\n").unwrap();
        let (status, sentence) = named.check_caller(bound()).unwrap_err();
        assert!(status == 421 && sentence.contains("box.lan") && sentence.contains("http://127.0.0.1:7301/"));
        assert!(of("GET / HTTP/1.1\r\n\r\n").unwrap().check_caller(bound()).is_err(), "no Host at all");
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let check = |origin: &str| {
            let head = format!("GET /status HTTP/1.1\r\nHost: 127.0.0.1:7301\r\nOrigin: {origin}\r\n\r\n");
            of(&head).unwrap().check_caller(bound()).is_ok()
        };
        assert!(check("http://127.0.0.1:7301"));
        for origin in
            ["null", "http://127.0.0.1:7302", "https://127.0.0.1:7301", "http://evil.example", "http://localhost:7301"]
        {
            assert!(!check(origin), "{origin}");
        }
    }

    #[test]
    fn a_change_needs_lab_mode_a_post_and_the_field() {
        let post = of("POST /crash HTTP/1.1\r\nHost: 127.0.0.1:7301\r\nX-Paxos-Lab: yes\r\n\r\n").unwrap();
        assert_eq!(post.check_change(true), Ok(()));
        assert_eq!(post.check_change(false).unwrap_err().0, 403);
        let get = HttpRequest { method: "GET".to_string(), ..post.clone() };
        assert_eq!(get.check_change(true).unwrap_err().0, 405);
        let bare = HttpRequest { lab: false, ..post };
        assert_eq!(bare.check_change(true).unwrap_err().0, 403);
    }
}
