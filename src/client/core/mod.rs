//! The client's decisions, written once: the client of a real cluster and the simulated client both run this code.
//!
//! Nothing here waits, and nothing here reads a clock, starts a thread or opens a socket. The caller passes the time
//! and a [`Wire`], which carries whole requests and replies. [`ClientCore`] tries each request with one server after
//! the other until there is a result, a certain failure or no time left.
//!
//! - `poll.rs` drives the requests: tries, replies, connections that end, sessions that end.
//! - `in_flight.rs` is one request in flight, and [`outcome`] its possible results.
//! - [`session`] numbers the writes, so that each is applied exactly once.
//! - `server_connection.rs` is a connection as the core sees it, and [`wire`] the trait that carries requests and
//!   replies.
//! - `request_trace.rs` writes the client's log lines.

mod in_flight;
pub mod outcome;
mod poll;
mod request_trace;
mod server_connection;
pub mod session;
#[cfg(test)]
mod tests;
pub mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use in_flight::InFlight;
pub use in_flight::Route;
pub use in_flight::is_answer;
use outcome::{ClientError, Tries};
use server_connection::ServerConnection;
use session::{ClientSession, Nonces};
pub use wire::Wire;

use crate::kv::{KEY_MAX_BYTES, Op, SEQUENCE_WINDOW, VALUE_MAX_BYTES};
use crate::net::{ClientReply, Reply, Request};
use crate::random::Random;
use crate::role::{ServerId, ServerSet};
use crate::time::Time;
use crate::trace::Trace;

/// Maximum number of requests in flight for one client: the session's window of sequences.
pub const IN_FLIGHT_MAX: usize = SEQUENCE_WINDOW as usize;

/// Identifies a request of one client; its result is returned once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestHandle(pub(in crate::client) u64);

/// The fixed configuration of a client.
#[derive(Clone)]
pub struct ClientIdentity {
    /// The client's name, as in `c1`; it appears in labels such as `c1-5`, for people. A client without a name has no
    /// labels.
    pub name: String,
    /// The name of the cluster, for messages.
    pub cluster: String,
    /// The servers of the cluster.
    pub servers: ServerSet,
    /// Maximum time for one try; then the next server is asked.
    pub try_timeout: Duration,
    /// Where the client's log lines go.
    pub trace: Trace,
}

/// A request that has ended.
#[derive(Debug)]
pub struct Finished {
    /// A server's reply, or the reason why there is no result.
    pub result: Result<Reply, ClientError>,
    /// Time from the beginning of the request to its end.
    pub took: Duration,
}

/// The state of a client, without clock and sockets.
pub struct ClientCore {
    identity: ClientIdentity,
    /// The server that the next request goes to.
    server: ServerId,
    /// The servers that the client has a connection to, in no order.
    peers: Vec<ServerConnection>,
    session: ClientSession,
    /// The history that the cluster's data belong to, once known.
    history: Option<u64>,
    /// Number of requests so far, as in labels: requests that have no log lines do not count.
    requests: u64,
    /// The number of the last frame. Every try gets a new number, so a late reply is never taken for another try's.
    frames: u64,
    last_handle: u64,
    /// Requests in flight. Together with `unnamed`, at most [`IN_FLIGHT_MAX`] of them are the caller's.
    flights: BTreeMap<RequestHandle, InFlight>,
    /// The request that each frame number belongs to.
    numbers: BTreeMap<u64, RequestHandle>,
    /// Writes that wait for a session, or for room in its window of sequences.
    unnamed: VecDeque<QueuedWrite>,
    /// The request that opens the session.
    opening: Option<RequestHandle>,
    /// Results that the caller has not taken yet.
    ended: BTreeMap<RequestHandle, Finished>,
    /// A reused buffer for received replies.
    replies: Vec<ClientReply>,
    /// Number of tries that failed because a server was too busy.
    busy: u64,
    random: Random,
}

/// A write that has no sequence yet.
struct QueuedWrite {
    handle: RequestHandle,
    op: Op,
    started: Time,
    deadline: Time,
    /// Its history in earlier sessions, all of which certainly did not apply it.
    before: Option<EarlierWrite>,
}

/// A write that needs a sequence in another session.
struct EarlierWrite {
    label: String,
    tries: Tries,
    /// Number of sessions that ended while this write used them.
    sessions: u32,
}

impl ClientCore {
    /// Creates a client that asks `first` first. It connects with its first request, and opens a session with its first
    /// write.
    pub fn new(identity: ClientIdentity, first: ServerId, nonces: Nonces, random: Random) -> ClientCore {
        ClientCore {
            identity,
            server: first,
            peers: Vec::new(),
            session: ClientSession::new(nonces),
            history: None,
            requests: 0,
            frames: 0,
            last_handle: 0,
            flights: BTreeMap::new(),
            numbers: BTreeMap::new(),
            unnamed: VecDeque::new(),
            opening: None,
            ended: BTreeMap::new(),
            replies: Vec::new(),
            busy: 0,
            random,
        }
    }

    /// The client's fixed configuration.
    pub fn identity(&self) -> &ClientIdentity {
        &self.identity
    }

    /// The server that the next request goes to: the one that answered last.
    pub fn server(&self) -> ServerId {
        self.server
    }

    /// Makes the next request go to this server first.
    pub fn set_server(&mut self, server: ServerId) -> Result<(), ClientError> {
        self.knows(server)?;
        self.server = server;
        Ok(())
    }

    fn knows(&self, server: ServerId) -> Result<(), ClientError> {
        let known = self.identity.servers;
        if known.contains(server) { Ok(()) } else { Err(ClientError::NoSuchServer { server, known }) }
    }

    /// The history that the cluster's data belong to, once a server has reported it. A cluster that is recreated or
    /// restored from a backup has another history.
    pub fn history(&self) -> Option<u64> {
        self.history
    }

    /// The client's session.
    pub fn session(&self) -> &ClientSession {
        &self.session
    }

    /// The label of the last request about a key or a session, as in `c1-5`; empty if the client has no name.
    pub fn last_label(&self) -> String {
        let name = &self.identity.name;
        if name.is_empty() { String::new() } else { format!("{name}-{}", self.requests) }
    }

    /// Number of tries that ended because a server was too busy.
    pub fn busy_replies(&self) -> u64 {
        self.busy
    }

    /// Number of the caller's requests in flight; the request that opens the session does not count.
    pub fn in_flight(&self) -> usize {
        self.flights.len() + self.unnamed.len() - usize::from(self.opening.is_some())
    }

    /// Whether this request is in flight, or has a result that was not taken.
    pub fn has(&self, handle: RequestHandle) -> bool {
        self.flights.contains_key(&handle)
            || self.ended.contains_key(&handle)
            || self.unnamed.iter().any(|write| write.handle == handle)
    }

    /// Whether there is a result that was not taken.
    pub fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Takes the result of the oldest request that has ended; None if there is none.
    pub fn take_completed(&mut self) -> Option<(RequestHandle, Finished)> {
        self.ended.pop_first()
    }

    /// Takes the result of this request, if it has ended.
    pub fn take(&mut self, handle: RequestHandle) -> Option<Finished> {
        self.ended.remove(&handle)
    }

    /// Begins a write, which must end by `deadline`. The request is sent with the next
    /// [`transmit`](ClientCore::transmit).
    pub fn write(&mut self, now: Time, deadline: Time, op: Op, wire: &mut impl Wire) -> RequestHandle {
        let handle = self.next_handle();
        self.unnamed.push_back(QueuedWrite { handle, op, started: now, deadline, before: None });
        self.assign_sequences(now, wire);
        handle
    }

    /// Begins a read from any server, or only from the server that the next request goes to.
    pub fn read(
        &mut self,
        now: Time,
        deadline: Time,
        key: Vec<u8>,
        route: Route,
        wire: &mut impl Wire,
    ) -> RequestHandle {
        let (handle, server) = (self.next_handle(), self.server);
        self.begin(now, handle, Request::Get { key }, route, server, deadline);
        self.send_try(now, handle, server, wire);
        handle
    }

    /// Begins a request to this server, without failover.
    pub fn ask_one(
        &mut self,
        now: Time,
        deadline: Time,
        server: ServerId,
        request: Request,
        wire: &mut impl Wire,
    ) -> Result<RequestHandle, ClientError> {
        self.knows(server)?;
        let handle = self.next_handle();
        self.begin(now, handle, request, Route::One, server, deadline);
        self.send_try(now, handle, server, wire);
        Ok(handle)
    }

    fn next_handle(&mut self) -> RequestHandle {
        self.last_handle += 1;
        RequestHandle(self.last_handle)
    }
}

/// Rejects a key or value that is longer than the store accepts, before anything is sent.
pub fn check_limits(key: &[u8], value: &[u8]) -> Result<(), ClientError> {
    let too_large = |what: &str, length: usize, limit: usize| {
        Err(ClientError::TooLarge(format!(
            "the {what} is too long ({length} bytes or more): the store takes at most {limit}"
        )))
    };
    match (key.len(), value.len()) {
        (length, _) if length > KEY_MAX_BYTES => too_large("key", length, KEY_MAX_BYTES),
        (_, length) if length > VALUE_MAX_BYTES => too_large("value", length, VALUE_MAX_BYTES),
        _ => Ok(()),
    }
}
