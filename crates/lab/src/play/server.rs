//! The program's answers to its page, over HTTP on a loopback address. It has no state: each request names the exercise
//! and all choices.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use paxos_kv::net::{ConnectionLimit, ConnectionPermit, ThreadGroup, listen, write_before};
use paxos_kv::server::http::request::{HttpRefusal, HttpRequest, read_with_body};
use paxos_kv::server::http::{answer, linger};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::choice::{CHOICES_MAX, Choice, codes, read_codes, read_lines};
use super::exercise::{Exercise, Mode, TEXT_MAX_BYTES};
use super::export::{ExportKind, export};
use super::game::Game;
use super::search::{Policy, RUN_MAX, SEARCH_MAX, SearchBounds, WALKS_MAX, run, search};
use super::view::{exercise_view, view};
use super::{exercises, page};

/// The port that is tried first.
pub const PORT: u16 = 7_390;
/// Number of ports that are tried.
const PORTS_MAX: u16 = 20;
/// Maximum length of a request's body, in bytes.
pub const BODY_MAX_BYTES: usize = 64 << 10;
/// Maximum number of connections.
const CONNECTIONS_MAX: usize = 8;
/// Maximum number of requests that are computed at once; one more waits this long for its turn.
const WORKERS_MAX: usize = 2;
const WORKER_WAIT: Duration = Duration::from_secs(5);
/// A caller that reads nothing for this long is closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// The stack of the thread that simulates: a connection's own thread has a small one.
const STACK_BYTES: usize = 8 << 20;

/// The exercise of the command line, and its name in the page.
#[derive(Clone, Debug, Default)]
pub struct OwnExercise {
    /// The text.
    pub text: Option<String>,
    /// The name of a built-in exercise that the page opens first.
    pub first: Option<String>,
}

/// The places of the requests that are computed at once.
#[derive(Default)]
struct Turns {
    taken: Mutex<usize>,
    /// Signaled when a place is free.
    freed: Condvar,
}

/// One of these places.
struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits for one of `most` places; None if none was free in time.
    fn take(&self, most: usize, wait: Duration) -> Option<Turn<'_>> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.freed.wait_timeout_while(taken, wait, |taken| *taken >= most);
        let (mut taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *taken >= most {
            return None;
        }
        *taken += 1;
        Some(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.freed.notify_one();
    }
}

/// The server.
#[derive(Default)]
struct PlayServer {
    address: Option<SocketAddr>,
    own: OwnExercise,
    workers: Turns,
    searches: Turns,
}

/// What a page asks.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PlayRequest {
    x: Option<String>,
    text: Option<String>,
    c: String,
    mode: Option<String>,
    hinted: bool,
    policy: Option<String>,
    seed: u64,
    most: Option<usize>,
    seconds: Option<u64>,
    #[serde(rename = "as")]
    kind: Option<String>,
    lines: Option<String>,
}

/// What a request is about.
struct Asked {
    exercise: Exercise,
    number: usize,
    mode: Mode,
    choices: Vec<Choice>,
}

/// Binds this port of the loopback address, or without one the first free port from [`PORT`] on.
pub fn bind(port: Option<u16>) -> Result<TcpListener, String> {
    let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    match port {
        Some(port) => {
            at(port).map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}. Try another --port"))
        }
        None => (PORT..PORT + PORTS_MAX).find_map(|port| at(port).ok()).ok_or_else(|| {
            format!("no port from {PORT} to {} is free on 127.0.0.1. Name one with --port", PORT + PORTS_MAX - 1)
        }),
    }
}

/// Serves until the group of threads is stopped.
pub fn serve(threads: &Arc<ThreadGroup>, listener: TcpListener, own: OwnExercise) -> io::Result<()> {
    let server = PlayServer { address: Some(listener.local_addr()?), own, ..PlayServer::default() };
    let busy = |stream: Arc<TcpStream>| {
        let text = json!({ "error": format!("more than {CONNECTIONS_MAX} connections are open; try again") });
        // An error is ignored: the caller does not read the sentence.
        let _ = write_before(
            &stream,
            answer(503, "application/json", &text.to_string()).as_bytes(),
            Instant::now() + WRITE_TIMEOUT,
        );
    };
    let serve = move |stream: Arc<TcpStream>, _: SocketAddr, _: ConnectionPermit| server.connection(&stream);
    let trouble = |error: &io::Error| eprintln!("warning: cannot accept connections from browsers: {error}");
    listen(threads, "play", listener, ConnectionLimit::new(CONNECTIONS_MAX, 0), serve, busy, trouble)
}

impl PlayServer {
    fn connection(&self, stream: &TcpStream) {
        // An error is ignored: a page that has gone is no failure.
        let _ = self.one_request(stream);
    }

    fn one_request(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let answered = match read_with_body(stream, BODY_MAX_BYTES)? {
            None => return Ok(()),
            Some(Err(refusal)) => Err(refusal),
            Some(Ok((request, body))) => self.take(stream, &request, &body),
        };
        let is_refused = answered.is_err();
        let text = match answered {
            Ok((kind, text)) => answer(200, kind, &text),
            Err((status, sentence)) => {
                answer(status, "application/json", &format!("{}\n", json!({ "error": sentence })))
            }
        };
        write_before(stream, text.as_bytes(), Instant::now() + WRITE_TIMEOUT)?;
        if is_refused { linger(stream) } else { Ok(()) }
    }

    fn take(
        &self,
        stream: &TcpStream,
        request: &HttpRequest,
        body: &[u8],
    ) -> Result<(&'static str, String), HttpRefusal> {
        if let Some(address) = self.address {
            request.check_caller(address)?;
        }
        let path = request.path.as_str();
        let is_get = request.method == "GET";
        match path {
            "/" | "/exercises" if !is_get => Err((405, "only GET is allowed here".to_string())),
            "/" => Ok(("text/html", page::html())),
            "/exercises" => Ok(("application/json", self.exercises().to_string())),
            "/view" | "/run" | "/break" | "/export" => {
                // A simple request of another site's page cannot carry this field.
                request.check_change(true)?;
                let asked: PlayRequest = serde_json::from_slice(body)
                    .map_err(|error| (400, format!("the body is not what {path} expects: {error}")))?;
                let busy = || (503, "too many requests are being computed; try again".to_string());
                let _turn = self.workers.take(WORKERS_MAX, WORKER_WAIT).ok_or_else(busy)?;
                on_large_stack(|| self.compute(stream, path, &asked)).map(|text| ("application/json", text))
            }
            _ => Err((404, "not found; available are /, /exercises, /view, /run, /break and /export".to_string())),
        }
    }

    fn exercises(&self) -> Json {
        let all = exercises::all();
        let views: Vec<_> = all.iter().enumerate().map(|(at, one)| exercise_view(one, at + 1)).collect();
        let own = self.own.text.as_ref().and_then(|text| Some((text, Exercise::read(text).ok()?)));
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "limits": { "choices": CHOICES_MAX, "text_bytes": TEXT_MAX_BYTES },
            "exercises": views,
            "own": own.map(|(text, exercise)| json!({ "text": text, "exercise": exercise_view(&exercise, 0) })),
            "first": self.own.first,
        })
    }

    fn compute(&self, stream: &TcpStream, path: &str, asked: &PlayRequest) -> Result<String, HttpRefusal> {
        if path == "/export" && asked.kind.as_deref() == Some("codes") {
            let choices = read_lines(asked.lines.as_deref().unwrap_or_default()).map_err(|why| (400, why))?;
            return Ok(json!({ "c": codes(&choices) }).to_string());
        }
        let Asked { exercise, number, mode, choices } = asked.read()?;
        let failed = |why| (400, why);
        match path {
            "/view" => {
                let view = view(&exercise, number, mode, &choices, asked.hinted).map_err(failed)?;
                serde_json::to_string(&view).map_err(|error| (500, error.to_string()))
            }
            "/run" => {
                let policy = asked.policy.as_deref().unwrap_or("in-order");
                let policy = Policy::named(policy)
                    .ok_or_else(|| failed("the policies are in-order, random and duel".to_string()))?;
                let most = asked.most.unwrap_or(1);
                if !(1..=RUN_MAX).contains(&most) {
                    return Err(failed(format!("a run adds 1 to {RUN_MAX} choices")));
                }
                let game = Game::play(&exercise, mode, &choices).map_err(failed)?;
                let ran = run(game, policy, asked.seed, most.min(CHOICES_MAX.saturating_sub(choices.len())));
                Ok(json!({ "c": codes(&ran.choices), "added": ran.added, "why": ran.why }).to_string())
            }
            "/break" => self.search(stream, &exercise, mode, &choices, asked),
            _ => {
                let kind = asked.kind.as_deref().and_then(ExportKind::named);
                let kind = kind.ok_or_else(|| {
                    failed("the exports are lines, timeline, audit, text, test and codes".to_string())
                })?;
                let game = Game::play(&exercise, mode, &choices).map_err(failed)?;
                let file = export(game, kind).map_err(failed)?;
                Ok(json!({ "name": file.name, "kind": file.kind, "text": file.text }).to_string())
            }
        }
    }

    fn search(
        &self,
        stream: &TcpStream,
        exercise: &Exercise,
        mode: Mode,
        choices: &[Choice],
        asked: &PlayRequest,
    ) -> Result<String, HttpRefusal> {
        let busy = || (503, "another search is running; wait for its end".to_string());
        let _turn = self.searches.take(1, Duration::ZERO).ok_or_else(busy)?;
        let seconds = asked.seconds.unwrap_or(SEARCH_MAX.as_secs()).clamp(1, SEARCH_MAX.as_secs());
        let is_stopped = || has_gone(stream);
        let bounds = SearchBounds { time: Duration::from_secs(seconds), walks: WALKS_MAX, is_stopped: &is_stopped };
        let searched = search(exercise, mode, choices, asked.seed, &bounds).map_err(|why| (400, why))?;
        let walks = searched.walks;
        let found = searched.found.is_some();
        let (choices, sentence) = match searched.found {
            Some(found) => {
                let sentence = format!(
                    "Found in walk {walks}, and shortened to {} choices.",
                    found.len().saturating_sub(choices.len())
                );
                (found, sentence)
            }
            None => (
                choices.to_vec(),
                format!("Nothing was found in {walks} random walks with {} choices. That is no proof.", searched.steps),
            ),
        };
        let count = choices.len();
        Ok(json!({ "found": found, "c": codes(&choices), "walks": walks, "choices": count, "sentence": sentence })
            .to_string())
    }
}

impl PlayRequest {
    fn read(&self) -> Result<Asked, HttpRefusal> {
        let failed = |why: String| (400, why);
        let (number, exercise) = match (&self.x, &self.text) {
            (Some(name), None) => {
                exercises::named(name).ok_or_else(|| (404, format!("there is no exercise '{}'", shown(name))))?
            }
            (None, Some(text)) => {
                (0, Exercise::read(text).map_err(|error| failed(format!("the exercise cannot be read: {error}")))?)
            }
            _ => return Err(failed("name an exercise with x, or give one as text".to_string())),
        };
        let mode = match &self.mode {
            None => exercise.mode,
            Some(name) => Mode::named(name)
                .filter(|mode| exercise.modes().contains(mode))
                .ok_or_else(|| failed(format!("this exercise has no mode '{}'", shown(name))))?,
        };
        let choices = read_codes(&self.c).map_err(failed)?;
        Ok(Asked { exercise, number, mode, choices })
    }
}

/// The first characters of a word of the caller.
fn shown(word: &str) -> String {
    word.chars().take(40).collect()
}

/// Whether the other end of a connection has closed it. It never waits: a search asks after each step.
fn has_gone(stream: &TcpStream) -> bool {
    if stream.set_nonblocking(true).is_err() {
        return true;
    }
    let seen = stream.peek(&mut [0]);
    let is_open = match seen {
        Ok(length) => length > 0,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false).is_err() || !is_open
}

/// Runs a simulation on a thread with a large stack. A simulation that fails is answered, and ends no thread but its own.
fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T, HttpRefusal> + Send) -> Result<T, HttpRefusal> {
    let broken = |what: &str| (500, format!("the simulation failed: {what}. Undo the last choice"));
    thread::scope(|scope| {
        let worker = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        match worker {
            Ok(worker) => worker.join().unwrap_or_else(|_| Err(broken("an assertion of the servers does not hold"))),
            Err(error) => Err(broken(&error.to_string())),
        }
    })
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
