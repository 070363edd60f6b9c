//! The client: asks a server, and if that brings nothing the next, until there is a result, a certain failure or no time.
//!
//! Requests may be under way side by side: [`Client::submit`] begins one and [`Client::wait`] brings its result. The
//! methods that wait at once, such as [`Client::put`], are these two in a row. A client has no thread of its own: its
//! requests make progress while one of its methods runs, and what drives them is in `drive.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::flight::{Flight, Reach};
use super::outcome::{ClientError, Found, Outcome, Tries, Try};
use super::perform::{Done, Ended};
use super::session::{Nonces, Session};
use super::workload::Action;
use crate::cluster::Cluster;
use crate::kv::{KEY_MAX_BYTES, Op, SPAN, VALUE_MAX_BYTES};
use crate::net::{ClientReply, Reply, Request, ServerStatus, StatePart};
use crate::paxos::{PartName, Slot};
use crate::random::Random;
use crate::role::{RoleName, Server, Servers};
use crate::trace::Trace;

/// A client has at most so many requests under way: as many as a session may have open.
pub const UNDER_WAY_MAX: usize = SPAN as usize;

/// How a client works.
#[derive(Clone)]
pub struct ClientOptions {
    /// The servers.
    pub cluster: Cluster,
    /// Its name, as in `c1`: for people, in labels such as `c1-5`.
    pub name: String,
    /// The server to ask first; any if None.
    pub first_server: Option<Server>,
    /// How long a whole request may take, all tries together.
    pub timeout: Duration,
    /// How long one server is waited for before the next is asked.
    pub try_timeout: Duration,
    /// Where its lines go.
    pub trace: Trace,
}

impl ClientOptions {
    /// The usual ones: 10 s a request, 1 s a try, no lines.
    pub fn new(cluster: Cluster, name: impl Into<String>) -> ClientOptions {
        ClientOptions {
            cluster,
            name: name.into(),
            first_server: None,
            timeout: Duration::from_secs(10),
            try_timeout: Duration::from_secs(1),
            trace: Trace::disabled(),
        }
    }
}

/// Who hears of every try that brought nothing, and which server is asked next.
type OnFailover = Box<dyn FnMut(&Try, Server) + Send>;

/// Names a request under way: [`Client::wait`] brings its result, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// A client of the store.
///
/// Writes that are under way side by side are applied in any order: whoever wants one after the other waits in between.
pub struct Client {
    pub(super) options: ClientOptions,
    /// The server that the next request goes to.
    pub(super) server: Server,
    /// At most one a server.
    pub(super) connections: Vec<Connection>,
    /// How many were ever opened.
    pub(super) opened: u64,
    pub(super) session: Session,
    /// Which history the cluster's data are of, since that is known.
    pub(super) history: Option<u64>,
    /// The number of the last request, as people count.
    pub(super) requests: u64,
    /// The number of the last frame: no reply to an earlier one is taken for a later one's.
    pub(super) frames: u64,
    tickets: u64,
    /// Requests under way; at most [`UNDER_WAY_MAX`] of the caller's, those in `unnamed` included.
    pub(super) flights: BTreeMap<Ticket, Flight>,
    /// The request that a number belongs to.
    pub(super) numbers: BTreeMap<u64, Ticket>,
    /// Writes that wait for a session, or for an older write of it.
    pub(super) unnamed: VecDeque<Unnamed>,
    /// The request that opens the session.
    pub(super) opening: Option<Ticket>,
    /// Results that nobody has taken yet.
    pub(super) ended: BTreeMap<Ticket, (Result<Reply, ClientError>, Duration)>,
    /// Room for what a socket brings.
    pub(super) replies: Vec<ClientReply>,
    /// Tries that a server was too busy for.
    pub(super) busy: u64,
    pub(super) random: Random,
    pub(super) on_failover: Option<OnFailover>,
    /// Once it is set, requests end.
    pub(super) stop: Option<Arc<AtomicBool>>,
}

/// A write that has no number yet.
pub(super) struct Unnamed {
    pub(super) ticket: Ticket,
    pub(super) op: Op,
    pub(super) begun: Instant,
    pub(super) deadline: Instant,
    /// What became of it in sessions that have ended, if it certainly was not applied there.
    pub(super) before: Option<Before>,
}

/// A write that has to be named anew.
pub(super) struct Before {
    pub(super) label: String,
    pub(super) tries: Tries,
    /// How many sessions have ended under it.
    pub(super) sessions: u32,
}

impl Client {
    /// A client of this cluster. It connects with its first request, and opens a session with its first write.
    pub fn connect(options: ClientOptions) -> Result<Client, ClientError> {
        let known = options.cluster.servers();
        let mut random = Random::unseeded();
        let servers: Vec<Server> = known.iter().collect();
        let any = servers[random.within(0..=servers.len() as u64 - 1) as usize];
        let server = options.first_server.unwrap_or(any);
        if !known.contains(server) {
            return Err(ClientError::NoSuchServer { server, known });
        }
        Ok(Client {
            options,
            server,
            connections: Vec::new(),
            opened: 0,
            session: Session::new(Nonces::System),
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
            on_failover: None,
            stop: None,
        })
    }

    /// Tells `hear` of every try that brought nothing, and which server is asked next.
    pub fn on_failover(&mut self, hear: impl FnMut(&Try, Server) + Send + 'static) {
        self.on_failover = Some(Box::new(hear));
    }

    /// Once this is set, whatever is under way ends as if its time was up: with what is known of it then.
    pub fn stop_when(&mut self, stop: Arc<AtomicBool>) {
        self.stop = Some(stop);
    }

    /// The servers of its cluster.
    pub fn servers(&self) -> Servers {
        self.options.cluster.servers()
    }

    /// Which history the cluster's data are of, once a server has said it: a cluster that is begun anew or restored has
    /// another.
    pub fn history(&self) -> Option<u64> {
        self.history
    }

    /// The client's name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// The label of the last request about a key or a session, as in `c1-5`. A client without a name labels nothing.
    pub fn last_label(&self) -> String {
        if self.options.name.is_empty() { String::new() } else { format!("{}-{}", self.options.name, self.requests) }
    }

    /// The server that the next request goes to: the one that answered last.
    pub fn server(&self) -> Server {
        self.server
    }

    /// How many tries have ended because a server was too busy.
    pub fn busy_tries(&self) -> u64 {
        self.busy
    }

    /// How many connections were opened so far: if it has grown, [`Client::sockets`] are others.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Lets the next request go to this server first.
    pub fn talk_to(&mut self, server: Server) -> Result<(), ClientError> {
        let known = self.options.cluster.servers();
        if !known.contains(server) {
            return Err(ClientError::NoSuchServer { server, known });
        }
        self.server = server;
        Ok(())
    }

    /// Whether there is a connection that its server has not closed.
    pub fn is_connected(&self) -> bool {
        self.connections.iter().any(Connection::is_open)
    }

    /// Sets how long a whole request may take from now on.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.options.timeout = timeout;
    }

    /// Sets a key's value.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<Outcome, ClientError> {
        self.write(Op::Put { key: key.to_vec(), value: value.to_vec(), if_version: None })
    }

    /// Sets a key's value only if the key is at this version; a key that was never written is at version 0.
    pub fn put_if_version(&mut self, key: &[u8], value: &[u8], version: u64) -> Result<Outcome, ClientError> {
        self.write(Op::Put { key: key.to_vec(), value: value.to_vec(), if_version: Some(version) })
    }

    /// Removes a key's value.
    pub fn delete(&mut self, key: &[u8]) -> Result<Outcome, ClientError> {
        self.write(Op::Delete { key: key.to_vec() })
    }

    /// Reads a key: what this finds was true at some moment between the call and its return.
    pub fn get(&mut self, key: &[u8]) -> Result<Found, ClientError> {
        self.read(key, Reach::Any)
    }

    /// Reads a key as [`Client::get`] does, from the server that the next request goes to and from no other.
    pub fn get_here(&mut self, key: &[u8]) -> Result<Found, ClientError> {
        self.read(key, Reach::One)
    }

    /// Begins a request and sends it; [`Client::wait`] brings its result. While [`UNDER_WAY_MAX`] requests are under way
    /// it waits until one has ended. An error is one before anything was sent.
    pub fn submit(&mut self, action: Action) -> Result<Ticket, ClientError> {
        // A server that has closed the connection meanwhile must not cost a try.
        self.progress();
        let ticket = self.queue(action)?;
        self.transmit();
        Ok(ticket)
    }

    /// As [`Client::submit`], but what is queued is sent with the client's next progress: many at a time.
    pub fn queue(&mut self, action: Action) -> Result<Ticket, ClientError> {
        let deadline = Instant::now() + self.options.timeout;
        let value: &[u8] = if let Action::Put { value, .. } = &action { value } else { &[] };
        check_limits(action.key(), value)?;
        while self.under_way() >= UNDER_WAY_MAX {
            self.drive();
        }
        Ok(match action {
            Action::Put { key, value, if_version } => self.queue_write(Op::Put { key, value, if_version }, deadline),
            Action::Delete { key } => self.queue_write(Op::Delete { key }, deadline),
            Action::Get { key } => self.queue_request(Request::Get { key }, Reach::Any, deadline),
        })
    }

    /// How many requests are under way.
    pub fn under_way(&self) -> usize {
        self.flights.len() + self.unnamed.len() - usize::from(self.opening.is_some())
    }

    /// Waits for the result of a request, and gives it out, once.
    ///
    /// # Panics
    ///
    /// If no such request is under way, and none has a result that was not given out.
    pub fn wait(&mut self, ticket: Ticket) -> Ended {
        let (result, took) = self.await_result(ticket);
        Ended { end: result.map(done), took }
    }

    /// Waits until any request has ended, and gives its result out; None if none is under way.
    pub fn wait_any(&mut self) -> Option<(Ticket, Ended)> {
        while self.ended.is_empty() && self.under_way() > 0 {
            self.progress();
            if self.ended.is_empty() {
                self.drive();
            }
        }
        self.take_ended()
    }

    /// Gives the result out of a request that has ended; None if there is none. Waits for nothing.
    pub fn take_ended(&mut self) -> Option<(Ticket, Ended)> {
        self.ended.pop_first().map(|(ticket, (result, took))| (ticket, Ended { end: result.map(done), took }))
    }

    /// How a server is. Asks that server only.
    pub fn status(&mut self, server: Server) -> Result<ServerStatus, ClientError> {
        match self.order(server, Request::Status)? {
            Reply::Status(status) => Ok(*status),
            other => unreachable!("a reply of the wrong kind is malformed: {other:?}"),
        }
    }

    /// A part of the state of the server that the next request goes to, with every slot up to `at_least`; None if it is
    /// not written down yet.
    pub fn state_part(&mut self, part: Option<PartName>, at_least: Slot) -> Result<Option<StatePart>, ClientError> {
        match self.order(self.server, Request::State { at_least, part })? {
            Reply::State(part) => Ok(part),
            other => unreachable!("a reply of the wrong kind is malformed: {other:?}"),
        }
    }

    /// Ends the thread of a role, or of all three: for `down`, or until it is restarted. Servers in lab mode only.
    pub fn crash(&mut self, server: Server, role: Option<RoleName>, down: Option<Duration>) -> Result<(), ClientError> {
        let down_ms = down.map(|down| u64::try_from(down.as_millis()).unwrap_or(u64::MAX));
        self.order(server, Request::Crash { role, down_ms }).map(drop)
    }

    /// Starts the thread of a role again, or of all three. Servers in lab mode only.
    pub fn restart(&mut self, server: Server, role: Option<RoleName>) -> Result<(), ClientError> {
        self.order(server, Request::Restart { role }).map(drop)
    }

    fn order(&mut self, server: Server, request: Request) -> Result<Reply, ClientError> {
        let known = self.options.cluster.servers();
        if !known.contains(server) {
            return Err(ClientError::NoSuchServer { server, known });
        }
        let ticket = self.begin(request, Reach::One, server, Instant::now() + self.options.timeout);
        self.await_result(ticket).0
    }

    fn read(&mut self, key: &[u8], reach: Reach) -> Result<Found, ClientError> {
        check_limits(key, &[])?;
        let deadline = Instant::now() + self.options.timeout;
        let ticket = self.begin(Request::Get { key: key.to_vec() }, reach, self.server, deadline);
        match done(self.await_result(ticket).0?) {
            Done::Read(found) => Ok(found),
            Done::Wrote(outcome) => unreachable!("a read is no write: {outcome:?}"),
        }
    }

    fn write(&mut self, op: Op) -> Result<Outcome, ClientError> {
        let action = match op {
            Op::Put { key, value, if_version } => Action::Put { key, value, if_version },
            Op::Delete { key } => Action::Delete { key },
        };
        let ticket = self.submit(action)?;
        match self.wait(ticket).end? {
            Done::Wrote(outcome) => Ok(outcome),
            Done::Read(found) => unreachable!("a write is no read: {found:?}"),
        }
    }

    fn queue_write(&mut self, op: Op, deadline: Instant) -> Ticket {
        let ticket = self.draw_ticket();
        self.unnamed.push_back(Unnamed { ticket, op, begun: Instant::now(), deadline, before: None });
        self.name_writes();
        ticket
    }

    fn queue_request(&mut self, request: Request, reach: Reach, deadline: Instant) -> Ticket {
        let (server, now) = (self.server, Instant::now());
        let ticket = self.begin(request, reach, server, deadline);
        self.ask(ticket, server, now);
        ticket
    }

    fn await_result(&mut self, ticket: Ticket) -> (Result<Reply, ClientError>, Duration) {
        let is_known = self.flights.contains_key(&ticket)
            || self.ended.contains_key(&ticket)
            || self.unnamed.iter().any(|write| write.ticket == ticket);
        assert!(is_known, "the result of request {} was given out already", ticket.0);
        self.progress();
        loop {
            if let Some(result) = self.ended.remove(&ticket) {
                return result;
            }
            self.drive();
        }
    }

    pub(super) fn draw_ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }
}

/// What a reply to a read or a write says.
fn done(reply: Reply) -> Done {
    match reply {
        Reply::Applied { slot, written } => Done::Wrote(Outcome::new(slot, written)),
        Reply::Value { slot, value, version } => {
            Done::Read(Found { slot, value: value.map(|value| value.into_vec()), version })
        }
        other => unreachable!("a reply of the wrong kind is malformed: {other:?}"),
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
