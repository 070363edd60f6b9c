//! The web page of a server: browsers watch the cluster over plain HTTP on a loopback address.
//!
//! - [`feed`] holds the latest log lines. Roles add theirs without waiting; viewers take them at their own pace.
//! - [`relay`] fetches the lines of the other servers, while there is a viewer.
//! - [`operations`] is a client of the cluster, for the form of the page.
//! - [`request`] reads a request, and refuses one that the page of another site may have sent; [`responses`] builds the
//!   other answers.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the page of `paxos-server timeline`, fed live |
//! | `GET /events` | the lines of all servers, as server-sent events |
//! | `GET /feed` | the lines of this server alone, for the other servers |
//! | `GET /status` | the status of the server, as JSON |
//! | `GET /metrics` | the same for Prometheus |
//! | `HEAD` of these | the head of the answer |
//! | `POST /crash?role=3.acceptor`, `/restart?role=3.acceptor` | in lab mode: crashes or restarts a role |
//! | `POST /cut?server=3&peers=1,2`, `/join?server=3&peers=1,2` | in lab mode: cuts or joins the links of a server |
//! | `POST /put?key=K&value=V&server=3`, `/get?key=K`, `/delete?key=K` | in lab mode: performs an operation, see [`operations`] |

mod feed;
mod operations;
mod relay;
pub mod request;
mod responses;

pub use responses::answer;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::select;
use serde_json::json;

use super::client_listener::ClientListener;
use super::context::ServerContext;
use super::peers::trace_accept_error;
use crate::host::LabRequest;
use crate::host::limits::{BROWSERS_UNIDENTIFIED_MAX, HTTP_REQUESTS_MAX, RELAYS_MAX, VIEWERS_MAX};
use crate::net::{ConnectionLimit, ConnectionPermit, ServerStatus, dial, listen, write_before};
use crate::role::{RoleKind, ServerId, ServerSet};
use crate::trace::timeline;
use feed::{Feed, FeedBatch, FeedItem, PeerFeedState};
use operations::PageClient;
use request::{HttpRefusal, HttpRequest, LAB_FIELD};

/// The group of connections that get one answer, and its size. One more connection closes the oldest, which is slow.
const HTTP_REQUESTS: (u8, usize) = (0, HTTP_REQUESTS_MAX);
/// The group of browsers that watch; one more is refused.
const VIEWERS: (u8, usize) = (1, VIEWERS_MAX);
/// The group of servers that fetch lines for their own viewers; one more is refused.
const RELAYS: (u8, usize) = (2, RELAYS_MAX);
/// The sum of these groups.
const KNOWN_MAX: usize = HTTP_REQUESTS.1 + VIEWERS.1 + RELAYS.1;
/// A viewer that reads nothing for this long is closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Without news, a viewer gets an empty message at this interval.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// After a refusal, at most this much more is read, with this time-out for each part.
const LINGER: Duration = Duration::from_millis(300);
const LINGER_MAX_BYTES: u64 = 64 << 10;
/// How long another server may take for a lab request that is passed on to it.
const RELAY_TIMEOUT: Duration = Duration::from_secs(2);

/// The page of a server: its data and its address.
struct PageWindow {
    clients: ClientListener,
    feed: Arc<Feed>,
    address: SocketAddr,
    client: Arc<PageClient>,
}

/// Starts the page.
pub fn serve(clients: ClientListener, listener: TcpListener) -> io::Result<()> {
    let feed = Arc::new(Feed::default());
    let address = listener.local_addr()?;
    let threads = clients.ctx.threads.group.clone();
    let me = clients.ctx.core.config.me;
    feed.tell(me, PeerFeedState::Here);
    for (server, member) in clients.cluster.members().filter(|(server, _)| *server != me) {
        match member.http {
            Some(address) => relay::start(&threads, server, address, feed.clone())?,
            None => feed.tell(server, PeerFeedState::Nowhere),
        }
    }
    let client = Arc::new(PageClient::new(me, clients.cluster.clone()));
    let (groups, own, group) = (clients.ctx.core.trace.tap(), feed.clone(), threads.clone());
    let ends = client.clone();
    let next = move || {
        select! {
            recv(groups) -> next => next.ok(),
            recv(group.stopped()) -> _ => None,
        }
    };
    threads.spawn("feed", move || {
        while let Some((lost, lines)) = next() {
            if lost > 0 {
                own.push(FeedItem::Lost(lost));
            }
            own.push_lines(true, &lines);
        }
        ends.stop();
    })?;
    let busy = |stream: Arc<TcpStream>| {
        let sentence = "too many connections; try another server\n";
        // An error is ignored: the caller does not read the sentence.
        let _ = (&*stream).write_all(responses::answer(503, "text/plain", sentence).as_bytes());
    };
    let trouble = trace_accept_error(clients.ctx.clone(), "cannot accept connections from browsers");
    let window = PageWindow { clients, feed, address, client };
    let serve = move |stream: Arc<TcpStream>, _, mut permit: ConnectionPermit| window.answer(&stream, &mut permit);
    let connections = ConnectionLimit::new(BROWSERS_UNIDENTIFIED_MAX, KNOWN_MAX);
    listen(&threads, "http", listener, connections, serve, busy, trouble)
}

impl PageWindow {
    /// Serves one connection with one request.
    fn answer(&self, stream: &TcpStream, permit: &mut ConnectionPermit) {
        let answered = stream.set_write_timeout(Some(WRITE_TIMEOUT)).and_then(|()| match request::read(stream)? {
            Some(Ok(request)) => {
                self.take(&request, &HttpCaller { stream, wants_body: request.method != "HEAD" }, permit)
            }
            Some(Err(refusal)) => {
                HttpCaller { stream, wants_body: true }.refuse(&refusal).and_then(|()| linger(stream))
            }
            None => Ok(()),
        });
        // An error is ignored: a viewer that has closed its connection is no failure.
        let _ = answered;
    }

    fn take(&self, request: &HttpRequest, caller: &HttpCaller<'_>, permit: &mut ConnectionPermit) -> io::Result<()> {
        let path = request.path.as_str();
        let is_viewer = matches!(path, "/events" | "/feed");
        if !is_viewer && !permit.join_last(HTTP_REQUESTS.0, HTTP_REQUESTS.1) {
            return Ok(());
        }
        if let Err(refusal) = request.check_caller(self.address) {
            return caller.refuse(&refusal);
        }
        let is_change = matches!(path, "/crash" | "/restart" | "/cut" | "/join" | "/put" | "/get" | "/delete");
        if !is_change && !matches!(request.method.as_str(), "GET" | "HEAD") {
            return caller.refuse(&(405, "only GET and HEAD are allowed here".to_string()));
        }
        match path {
            "/" => caller.respond("text/html", &self.page()),
            "/events" if permit.join(VIEWERS.0, VIEWERS.1) => self.watch(caller),
            "/feed" if permit.join(RELAYS.0, RELAYS.1) => self.feed(caller),
            "/events" | "/feed" => caller.refuse(&(503, "too many viewers; try another server".to_string())),
            "/status" => caller.respond("application/json", &format!("{}\n", self.status().to_json())),
            "/metrics" => caller.respond("text/plain", &responses::metrics(&self.status(), &self.feed)),
            _ if is_change => match self.change(request) {
                Ok(done) => caller.respond("application/json", &done),
                Err(refusal) => caller.refuse(&refusal),
            },
            _ => caller.refuse(&(404, "not found; available are /, /events, /status and /metrics".to_string())),
        }
    }

    fn status(&self) -> ServerStatus {
        self.clients.ctx.core.status(&self.clients.ctx.threads)
    }

    /// The page, with the data that it needs to start.
    fn page(&self) -> String {
        let ClientListener { ctx, cluster, .. } = &self.clients;
        let others = cluster.members().filter(|(server, _)| *server != ctx.core.config.me);
        let others = others.filter_map(|(_, member)| Some(format!("http://{}/", member.http?))).collect();
        timeline::live(
            &format!("{}, by server {}", cluster.name, ctx.core.config.me.0),
            ctx.core.config.lab,
            ctx.core.trace.steps(),
            others,
        )
    }

    /// Streams every line to a browser, the old ones first.
    fn watch(&self, caller: &HttpCaller<'_>) -> io::Result<()> {
        let _seat = self.feed.add_viewer();
        if !caller.begin("text/event-stream")? {
            return Ok(());
        }
        let mut stream = caller.stream;
        stream.write_all(b"retry: 1000\n\n")?;
        let (mut next, mut change) = (self.feed.beginning(), 0);
        loop {
            let batch = self.feed.take(next, change, KEEPALIVE_INTERVAL);
            self.feed.add_missed(batch.missed);
            stream.write_all(events(&batch).as_bytes())?;
            (next, change) = (batch.next, batch.change);
        }
    }

    /// Streams the lines of this server to another server.
    fn feed(&self, caller: &HttpCaller<'_>) -> io::Result<()> {
        if !caller.begin("text/plain")? {
            return Ok(());
        }
        let mut stream = caller.stream;
        let (mut next, mut change) = (self.feed.beginning(), 0);
        loop {
            let batch = self.feed.take(next, change, KEEPALIVE_INTERVAL);
            // A line break alone shows that the connection still works.
            let mut text = String::from("\n");
            if batch.missed > 0 {
                text.push_str(&format!("LOST {}\n", batch.missed));
            }
            for item in &batch.items {
                if let FeedItem::Line { own: true, text: line } = item {
                    text.push_str(line);
                    text.push('\n');
                }
            }
            stream.write_all(text.as_bytes())?;
            (next, change) = (batch.next, batch.change);
        }
    }

    /// Performs an operation, or gives a lab request to this server or, through the other server's page, to another.
    fn change(&self, request: &HttpRequest) -> Result<String, HttpRefusal> {
        request.check_change(self.clients.ctx.core.config.lab)?;
        match request.path.as_str() {
            "/crash" | "/restart" => self.order_role(request),
            "/cut" | "/join" => self.order_links(request),
            _ => self.client.perform(request),
        }
    }

    fn order_role(&self, request: &HttpRequest) -> Result<String, HttpRefusal> {
        let target = request.parameter("role").and_then(read_target);
        let (server, role) =
            target.ok_or((400, "the parameter role is missing or invalid; example: ?role=3.acceptor".to_string()))?;
        let down = match request.parameter("for") {
            Some(text) => Some(crate::duration::parse_duration(text).map_err(|error| (400, error))?),
            None => None,
        };
        if server != self.clients.ctx.core.config.me {
            return self.pass_on(server, request);
        }
        let is_crash = request.path == "/crash";
        let order = |role| if is_crash { LabRequest::Crash { role, down } } else { LabRequest::Restart { role } };
        let ServerContext { core, threads, .. } = &*self.clients.ctx;
        core.order_roles(threads, order, Some(role)).map_err(|why| (400, why))?;
        Ok(done(request, server))
    }

    fn order_links(&self, request: &HttpRequest) -> Result<String, HttpRefusal> {
        let example = "the parameters server and peers are missing or invalid; example: ?server=3&peers=1,2";
        let servers =
            request.parameter("server").and_then(read_server).zip(request.parameter("peers").and_then(read_servers));
        let (server, peers) = servers.ok_or((400, example.to_string()))?;
        if server != self.clients.ctx.core.config.me {
            return self.pass_on(server, request);
        }
        let is_cut = request.path == "/cut";
        let order = |peer| if is_cut { LabRequest::Cut { peer } } else { LabRequest::Join { peer } };
        let ServerContext { core, threads, .. } = &*self.clients.ctx;
        core.order_links(threads, order, peers).map_err(|why| (400, why))?;
        Ok(done(request, server))
    }

    fn pass_on(&self, server: ServerId, request: &HttpRequest) -> Result<String, HttpRefusal> {
        let address = self.clients.cluster.member(server).and_then(|member| member.http);
        let address = address.ok_or((404, format!("the cluster file has no http address for server {}", server.0)))?;
        let HttpRequest { path, query, .. } = request;
        let call = || -> io::Result<String> {
            let stream = Arc::new(dial(address, RELAY_TIMEOUT)?);
            let _open = self.clients.ctx.threads.group.watch(stream.clone());
            stream.set_read_timeout(Some(RELAY_TIMEOUT))?;
            stream.set_write_timeout(Some(RELAY_TIMEOUT))?;
            let head = format!("POST {path}?{query} HTTP/1.1\r\nHost: {address}\r\n{LAB_FIELD}: yes\r\n\r\n");
            (&*stream).write_all(head.as_bytes())?;
            let mut answer = String::new();
            (&*stream).take(64 << 10).read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = call().map_err(|error| (502, format!("no reply from server {}: {error}", server.0)))?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim();
        if answer.starts_with("HTTP/1.1 200 ") { Ok(body.to_string()) } else { Err((502, body.to_string())) }
    }
}

/// The answer to a lab request.
fn done(request: &HttpRequest, server: ServerId) -> String {
    json!({ "done": request.path.trim_start_matches('/'), "server": server.0 }).to_string()
}

/// Parses `3.acceptor`.
fn read_target(text: &str) -> Option<(ServerId, RoleKind)> {
    let (server, role) = text.split_once('.')?;
    Some((read_server(server)?, RoleKind::named(role)?))
}

/// Parses `1,2`.
fn read_servers(text: &str) -> Option<ServerSet> {
    text.split(',').map(read_server).collect()
}

fn read_server(text: &str) -> Option<ServerId> {
    text.parse().ok().filter(|number| (1..=ServerId::MAX).contains(number)).map(ServerId)
}

/// A batch as server-sent events: log lines without an event name, everything else with one.
fn events(batch: &FeedBatch) -> String {
    let mut text = String::new();
    if let Some(hearing) = &batch.hearing {
        let words: serde_json::Map<_, _> =
            hearing.iter().map(|(server, hearing)| (server.0.to_string(), json!(hearing.word()))).collect();
        text.push_str(&format!("event: hearing\ndata: {}\n\n", json!(words)));
    }
    if batch.missed > 0 {
        text.push_str(&format!("event: lost\ndata: {}\n\n", batch.missed));
    }
    let mut open = false;
    for item in &batch.items {
        match item {
            FeedItem::Line { text: line, .. } => {
                text.push_str(&format!("data: {line}\n"));
                open = true;
            }
            FeedItem::Lost(lost) => {
                text.push_str(if open { "\n" } else { "" });
                text.push_str(&format!("event: lost\ndata: {lost}\n\n"));
                open = false;
            }
        }
    }
    // Without news, an empty comment shows that the connection still works.
    text.push_str(if open { "\n" } else { ":\n\n" });
    text
}

/// Reads the rest of the request for a moment. If the connection were closed earlier, it would break before the caller
/// has read the answer.
pub fn linger(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.set_read_timeout(Some(LINGER))?;
    io::copy(&mut stream.take(LINGER_MAX_BYTES), &mut io::sink()).map(drop)
}

/// The caller of a request. The answer to HEAD is the head alone.
struct HttpCaller<'a> {
    stream: &'a TcpStream,
    wants_body: bool,
}

impl HttpCaller<'_> {
    fn respond(&self, kind: &str, body: &str) -> io::Result<()> {
        self.answer(200, kind, body)
    }

    fn refuse(&self, (status, sentence): &HttpRefusal) -> io::Result<()> {
        self.answer(*status, "text/plain", &format!("{sentence}\n"))
    }

    /// A caller must read its whole answer within this time: one that reads byte by byte keeps its place from others.
    fn answer(&self, status: u16, kind: &str, body: &str) -> io::Result<()> {
        let answer = responses::answer(status, kind, body);
        let length = if self.wants_body { answer.len() } else { answer.len() - body.len() };
        write_before(self.stream, &answer.as_bytes()[..length], Instant::now() + WRITE_TIMEOUT)
    }

    /// Begins an endless answer; false if the caller wants only its head.
    fn begin(&self, kind: &str) -> io::Result<bool> {
        let mut stream = self.stream;
        stream.write_all(format!("{}\r\n", responses::head(200, kind)).as_bytes())?;
        Ok(self.wants_body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_stream_separates_lines_and_lost_items() {
        let line = |text: &str| FeedItem::Line { own: true, text: text.into() };
        let batch = FeedBatch {
            items: vec![line("a"), line("b"), FeedItem::Lost(3), line("c")],
            missed: 2,
            ..FeedBatch::default()
        };
        assert_eq!(events(&batch), "event: lost\ndata: 2\n\ndata: a\ndata: b\n\nevent: lost\ndata: 3\n\ndata: c\n\n");
        assert_eq!(events(&FeedBatch::default()), ":\n\n");
        let hearing = Some([(ServerId(2), PeerFeedState::Gone)].into());
        assert_eq!(
            events(&FeedBatch { hearing, ..FeedBatch::default() }),
            "event: hearing\ndata: {\"2\":\"gone\"}\n\n:\n\n"
        );
    }

    #[test]
    fn head_request_gets_only_the_head() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let told = |wants_body, tell: &dyn Fn(&HttpCaller<'_>)| {
            let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (far, _) = listener.accept().unwrap();
            tell(&HttpCaller { stream: &far, wants_body });
            drop(far);
            let mut text = String::new();
            near.read_to_string(&mut text).unwrap();
            text
        };
        let say = |caller: &HttpCaller<'_>| caller.respond("text/plain", "a body").unwrap();
        assert_eq!(format!("{}a body", told(false, &say)), told(true, &say));
        assert!(told(false, &say).contains("Content-Length: 6\r\n"));
        let refuse = |caller: &HttpCaller<'_>| caller.refuse(&(404, "nothing".to_string())).unwrap();
        assert!(told(false, &refuse).ends_with("\r\n\r\n") && told(true, &refuse).ends_with("\r\n\r\nnothing\n"));
        let begin = |caller: &HttpCaller<'_>| assert_eq!(caller.begin("text/plain").unwrap(), caller.wants_body);
        assert_eq!(told(false, &begin), told(true, &begin));
    }

    #[test]
    fn roles_are_named_as_on_the_command_line() {
        assert_eq!(read_target("3.acceptor"), Some((ServerId(3), RoleKind::Acceptor)));
        for wrong in ["", "3", "acceptor", "3.listener", "x.acceptor", "0.acceptor"] {
            assert_eq!(read_target(wrong), None, "{wrong}");
        }
        assert_eq!(read_servers("1,2"), Some(ServerSet::first(2)));
        for wrong in ["", "1,", "0", "1,x", "99"] {
            assert_eq!(read_servers(wrong), None, "{wrong}");
        }
    }
}
