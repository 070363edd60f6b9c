//! What a client decides, written once: the client of a real cluster and the simulated one both run this.
//!
//! Nothing here waits, and nothing here knows a clock, a thread or a socket. The caller brings the time, and a [`Wire`]
//! that carries whole requests and replies. [`ClientCore`] tries each request with one server after the other until
//! there is a result, a certain failure or no time left.
//!
//! - `poll.rs` is what happens to requests: tries, replies, connections that end, sessions that end.
//! - `in_flight.rs` is one request under way, and [`outcome`] what it can come to.
//! - [`session`] numbers the writes, so that each is applied exactly once.
//! - `server_connection.rs` is a connection as the core sees it, and [`wire`] what carries it.
//! - `request_trace.rs` is what the client tells of all that.

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
pub(crate) use in_flight::is_answer;
use outcome::{ClientError, Tries};
use server_connection::ServerConnection;
use session::{ClientSession, Nonces};
pub use wire::Wire;

use crate::host::Time;
use crate::kv::{KEY_MAX_BYTES, Op, SEQUENCE_WINDOW, VALUE_MAX_BYTES};
use crate::net::{ClientReply, Reply, Request};
use crate::random::Random;
use crate::role::{ServerId, ServerSet};
use crate::trace::Trace;

/// A client has at most so many requests under way: as many as a session may have open.
pub const IN_FLIGHT_MAX: usize = SEQUENCE_WINDOW as usize;

/// Names a request under way; its result is given out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestHandle(pub(in crate::client) u64);

/// What a client is told once and for all.
#[derive(Clone)]
pub struct ClientIdentity {
    /// Its name, as in `c1`: for people, in labels such as `c1-5`. A client without a name labels nothing.
    pub name: String,
    /// The name of the cluster, for sentences.
    pub cluster: String,
    /// The servers.
    pub servers: ServerSet,
    /// How long one server is waited for before the next is asked.
    pub try_timeout: Duration,
    /// Where its lines go.
    pub trace: Trace,
}

/// A request that has ended.
#[derive(Debug)]
pub struct Finished {
    /// With what.
    pub result: Result<Reply, ClientError>,
    /// How long it took.
    pub took: Duration,
}

/// Everything that a client knows and decides.
pub struct ClientCore {
    identity: ClientIdentity,
    /// The server that the next request goes to.
    server: ServerId,
    /// The servers that it has a connection to, in no order.
    peers: Vec<ServerConnection>,
    session: ClientSession,
    /// Which history the cluster's data are of, since that is known.
    history: Option<u64>,
    /// The number of the last request, as people count.
    requests: u64,
    /// The number of the last frame: no reply to an earlier one is taken for a later one's.
    frames: u64,
    tickets: u64,
    /// Requests under way; at most [`UNDER_WAY_MAX`] of the caller's, those in `unnamed` included.
    flights: BTreeMap<RequestHandle, InFlight>,
    /// The request that a number belongs to.
    numbers: BTreeMap<u64, RequestHandle>,
    /// Writes that wait for a session, or for an older write of it.
    unnamed: VecDeque<QueuedWrite>,
    /// The request that opens the session.
    opening: Option<RequestHandle>,
    /// Results that nobody has taken yet.
    ended: BTreeMap<RequestHandle, Finished>,
    /// Room for what a connection brings.
    replies: Vec<ClientReply>,
    /// Tries that a server was too busy for.
    busy: u64,
    random: Random,
}

/// A write that has no number yet.
struct QueuedWrite {
    handle: RequestHandle,
    op: Op,
    begun: Time,
    deadline: Time,
    /// What became of it in sessions that have ended, if it certainly was not applied there.
    before: Option<EarlierWrite>,
}

/// A write that has to be named anew.
struct EarlierWrite {
    label: String,
    tries: Tries,
    /// How many sessions have ended under it.
    sessions: u32,
}

impl ClientCore {
    /// A client that asks this server first. It connects with its first request, and opens a session with its first
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
            tickets: 0,
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

    /// Who it is.
    pub fn identity(&self) -> &ClientIdentity {
        &self.identity
    }

    /// The server that the next request goes to: the one that answered last.
    pub fn server(&self) -> ServerId {
        self.server
    }

    /// Lets the next request go to this server first.
    pub fn set_server(&mut self, server: ServerId) -> Result<(), ClientError> {
        self.knows(server)?;
        self.server = server;
        Ok(())
    }

    fn knows(&self, server: ServerId) -> Result<(), ClientError> {
        let known = self.identity.servers;
        if known.contains(server) { Ok(()) } else { Err(ClientError::NoSuchServer { server, known }) }
    }

    /// Which history the cluster's data are of, once a server has said it: a cluster that is begun anew or restored has
    /// another.
    pub fn history(&self) -> Option<u64> {
        self.history
    }

    /// Its session.
    pub fn session(&self) -> &ClientSession {
        &self.session
    }

    /// The label of the last request about a key or a session, as in `c1-5`.
    pub fn last_label(&self) -> String {
        let name = &self.identity.name;
        if name.is_empty() { String::new() } else { format!("{name}-{}", self.requests) }
    }

    /// How many tries have ended because a server was too busy.
    pub fn busy_replies(&self) -> u64 {
        self.busy
    }

    /// How many requests are under way.
    pub fn in_flight(&self) -> usize {
        self.flights.len() + self.unnamed.len() - usize::from(self.opening.is_some())
    }

    /// Whether this request is under way, or has a result that was not given out.
    pub fn has(&self, handle: RequestHandle) -> bool {
        self.flights.contains_key(&handle)
            || self.ended.contains_key(&handle)
            || self.unnamed.iter().any(|write| write.handle == handle)
    }

    /// Whether a request has ended whose result was not given out.
    pub fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Gives the result out of a request that has ended; None if there is none.
    pub fn take_completed(&mut self) -> Option<(RequestHandle, Finished)> {
        self.ended.pop_first()
    }

    /// Gives the result out of this request, if it has ended.
    pub fn take(&mut self, handle: RequestHandle) -> Option<Finished> {
        self.ended.remove(&handle)
    }

    /// Begins a write, which must end by `deadline`. What is queued is sent with the next
    /// [`transmit`](ClientCore::transmit).
    pub fn write(&mut self, now: Time, deadline: Time, op: Op, wire: &mut impl Wire) -> RequestHandle {
        let handle = self.next_handle();
        self.unnamed.push_back(QueuedWrite { handle, op, begun: now, deadline, before: None });
        self.assign_sequences(now, wire);
        handle
    }

    /// Begins a read, of any server or of the one that the next request goes to.
    pub fn read(
        &mut self,
        now: Time,
        deadline: Time,
        key: Vec<u8>,
        reach: Route,
        wire: &mut impl Wire,
    ) -> RequestHandle {
        let (handle, server) = (self.next_handle(), self.server);
        self.begin(now, handle, Request::Get { key }, reach, server, deadline);
        self.send_try(now, handle, server, wire);
        handle
    }

    /// Begins a request to this server and no other.
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
        self.tickets += 1;
        RequestHandle(self.tickets)
    }
}

/// Refuses what no server would take, before anything is sent.
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
