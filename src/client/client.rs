//! The client: asks one server after the other until there is a result, a certain failure, or no time left.
//!
//! Several requests may be in flight: [`Client::submit`] begins a request and [`Client::wait`] returns its result. The
//! methods that wait at once, such as [`Client::put`], do both. A client has no thread of its own: its requests
//! progress only while one of its methods runs. The decisions are in [`ClientCore`]; this module adds the clock, the
//! sockets, and the waiting.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connection::Connection;
use super::core::outcome::{ClientError, GetResponse, Try, WriteResponse};
use super::core::{ClientCore, ClientIdentity, Finished, IN_FLIGHT_MAX, RequestHandle, Route, check_limits};
use super::operation::{CompletedOperation, Operation, OperationResult};
use super::tcp::TcpWire;
use crate::cluster::Cluster;
use crate::kv::Op;
use crate::net::{Reply, Request, ServerStatus, StatePart};
use crate::paxos::{ChunkRequest, Slot};
use crate::random::Random;
use crate::role::{RoleKind, ServerId, ServerSet};
use crate::time::Time;
use crate::trace::Trace;

/// The configuration of a client.
#[derive(Clone)]
pub struct ClientOptions {
    /// The cluster, with the addresses of its servers.
    pub cluster: Cluster,
    /// The client's name, as in `c1`; it appears in labels such as `c1-5`, for people.
    pub name: String,
    /// The server to ask first; a random one if None.
    pub first_server: Option<ServerId>,
    /// Maximum time for a whole request, all tries together.
    pub timeout: Duration,
    /// Maximum time for one try; then the next server is asked.
    pub try_timeout: Duration,
    /// Where the client's log lines go.
    pub trace: Trace,
}

impl ClientOptions {
    /// The defaults: 10 s a request, 1 s a try, a random first server, no log lines.
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

/// A client of the store.
///
/// Writes that are in flight together are applied in any order. To order two writes, wait for the first before
/// submitting the second.
pub struct Client {
    core: ClientCore,
    wire: TcpWire,
    /// The zero of the client's clock.
    epoch: Instant,
    /// Maximum time for a whole request.
    timeout: Duration,
    /// Once this is true, all requests end.
    stop: Option<Arc<AtomicBool>>,
}

impl Client {
    /// Creates a client of this cluster. It connects with its first request, and opens a session with its first write.
    pub fn new(options: ClientOptions) -> Result<Client, ClientError> {
        let ClientOptions { cluster, name, first_server, timeout, try_timeout, trace } = options;
        let known = cluster.servers();
        let mut random = Random::unseeded();
        let servers: Vec<ServerId> = known.iter().collect();
        let any = servers[random.within(0..=servers.len() as u64 - 1) as usize];
        let first = first_server.unwrap_or(any);
        if !known.contains(first) {
            return Err(ClientError::NoSuchServer { server: first, known });
        }
        let identity = ClientIdentity { name, cluster: cluster.name.clone(), servers: known, try_timeout, trace };
        Ok(Client {
            core: ClientCore::new(identity, first, Box::new(system_nonce), random),
            wire: TcpWire::new(cluster),
            epoch: Instant::now(),
            timeout,
            stop: None,
        })
    }

    /// Calls `hear` for every failed try, with the server that is asked next.
    pub fn on_failover(&mut self, hear: impl FnMut(&Try, ServerId) + Send + 'static) {
        self.wire.on_failover = Some(Box::new(hear));
    }

    /// Once `stop` is true, every request in flight ends as if its time were up, with what is known of its outcome
    /// then.
    pub fn stop_when(&mut self, stop: Arc<AtomicBool>) {
        self.stop = Some(stop);
    }

    /// The servers of the client's cluster.
    pub fn servers(&self) -> ServerSet {
        self.core.identity().servers
    }

    /// The id of the history that the cluster's data belong to, once a server has reported it. A cluster that is
    /// recreated or restored from a backup has another history.
    pub fn history(&self) -> Option<u64> {
        self.core.history()
    }

    /// The client's name.
    pub fn name(&self) -> &str {
        &self.core.identity().name
    }

    /// The label of the last request about a key or a session, as in `c1-5`; empty if the client has no name.
    pub fn last_label(&self) -> String {
        self.core.last_label()
    }

    /// The server that the next request goes to: the one that answered last.
    pub fn server(&self) -> ServerId {
        self.core.server()
    }

    /// Number of tries that ended because a server was too busy.
    pub fn busy_replies(&self) -> u64 {
        self.core.busy_replies()
    }

    /// Number of connections opened so far. If it has grown, the set of [`Client::sockets`] has changed.
    pub fn opened(&self) -> u64 {
        self.wire.opened()
    }

    /// Makes the next request go to this server first.
    pub fn set_server(&mut self, server: ServerId) -> Result<(), ClientError> {
        self.core.set_server(server)
    }

    /// Whether the client has a connection that its server has not closed.
    pub fn is_connected(&self) -> bool {
        self.wire.connections().iter().any(Connection::is_open)
    }

    /// Sets the maximum time for a whole request, for requests that begin from now on.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Sets a key's value.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<WriteResponse, ClientError> {
        let (key, value) = (key.as_ref().to_vec(), value.as_ref().to_vec());
        self.write(Operation::Put { key, value, if_version: None })
    }

    /// Sets a key's value only if the key is at this version; a key that was never written is at version 0.
    pub fn put_if_version(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        version: u64,
    ) -> Result<WriteResponse, ClientError> {
        let (key, value) = (key.as_ref().to_vec(), value.as_ref().to_vec());
        self.write(Operation::Put { key, value, if_version: Some(version) })
    }

    /// Removes a key's value.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<WriteResponse, ClientError> {
        self.write(Operation::Delete { key: key.as_ref().to_vec() })
    }

    /// Reads a key. The result was current at some moment between the call and its return.
    pub fn get(&mut self, key: impl AsRef<[u8]>) -> Result<GetResponse, ClientError> {
        self.read(key.as_ref(), Route::Any)
    }

    /// Reads a key as [`Client::get`] does, but only from the server that the next request goes to, without failover.
    pub fn get_from_current(&mut self, key: impl AsRef<[u8]>) -> Result<GetResponse, ClientError> {
        self.read(key.as_ref(), Route::One)
    }

    /// Begins a request and sends it; [`Client::wait`] returns its result. If [`IN_FLIGHT_MAX`] requests are in flight,
    /// this waits until one has ended. An error means that nothing was sent.
    pub fn submit(&mut self, action: Operation) -> Result<RequestHandle, ClientError> {
        // Detect a connection that the server has closed meanwhile, so that it does not cost a try.
        self.progress();
        let handle = self.queue(action)?;
        self.transmit();
        Ok(handle)
    }

    /// Begins a request as [`Client::submit`] does, but sends it only with the client's next progress, so that many
    /// requests share one write.
    pub fn queue(&mut self, action: Operation) -> Result<RequestHandle, ClientError> {
        let asked = self.now();
        let value: &[u8] = if let Operation::Put { value, .. } = &action { value } else { &[] };
        check_limits(action.key(), value)?;
        let deadline = self.deadline(asked);
        while self.in_flight() >= IN_FLIGHT_MAX {
            self.drive();
        }
        // The client may have been stopped while it waited: then the deadline is now.
        let now = self.now();
        let deadline = deadline.min(self.deadline(now));
        let Client { core, wire, .. } = self;
        Ok(match action {
            Operation::Put { key, value, if_version } => {
                core.write(now, deadline, Op::Put { key, value: value.into(), if_version }, wire)
            }
            Operation::Delete { key } => core.write(now, deadline, Op::Delete { key }, wire),
            Operation::Get { key } => core.read(now, deadline, key, Route::Any, wire),
        })
    }

    /// Number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.core.in_flight()
    }

    /// Does everything that needs no waiting: sends, receives, and fails over where a try's time is up.
    pub fn progress(&mut self) {
        let now = self.now();
        if self.is_stopped() {
            self.core.end_time(now);
        }
        self.core.poll(now, &mut self.wire);
    }

    /// When [`Client::progress`] must be called again, even if no socket becomes ready before.
    pub fn next_due(&self) -> Option<Instant> {
        self.core.due().map(|due| self.epoch + Duration::from_micros(due.0))
    }

    /// The sockets to poll; `true` means that the socket must be polled for writing too.
    pub fn sockets(&self) -> impl Iterator<Item = (&TcpStream, bool)> {
        self.wire.connections().iter().map(|connection| (connection.stream(), connection.wants_to_write()))
    }

    /// Waits for the result of a request and returns it. Each result is returned once.
    ///
    /// # Panics
    ///
    /// If this request is not in flight and its result was already returned.
    pub fn wait(&mut self, handle: RequestHandle) -> CompletedOperation {
        assert!(self.core.has(handle), "the result of request {} was already returned", handle.0);
        self.progress();
        ended(self.await_result(handle))
    }

    /// Waits until any request has ended and returns its result; None if no request is in flight.
    pub fn wait_any(&mut self) -> Option<(RequestHandle, CompletedOperation)> {
        while !self.core.has_ended() && self.in_flight() > 0 {
            self.progress();
            if !self.core.has_ended() {
                self.drive();
            }
        }
        self.take_completed()
    }

    /// Returns the result of a request that has ended, without waiting; None if there is none.
    pub fn take_completed(&mut self) -> Option<(RequestHandle, CompletedOperation)> {
        self.core.take_completed().map(|(handle, finished)| (handle, ended(finished)))
    }

    /// Returns the status of this server. No other server is asked.
    pub fn status(&mut self, server: ServerId) -> Result<ServerStatus, ClientError> {
        match self.order(server, Request::Status)? {
            Reply::Status(status) => Ok(*status),
            other => unreachable!("a reply of the wrong kind is malformed: {other:?}"),
        }
    }

    /// Returns one chunk of a state snapshot of the server that the next request goes to. The snapshot contains every
    /// slot up to `at_least`; None if the server has not written such a snapshot yet.
    pub fn state_part(&mut self, part: Option<ChunkRequest>, at_least: Slot) -> Result<Option<StatePart>, ClientError> {
        match self.order(self.server(), Request::State { at_least, part })? {
            Reply::Chunk(part) => Ok(part),
            other => unreachable!("a reply of the wrong kind is malformed: {other:?}"),
        }
    }

    /// Crashes a role, or all three if None, for `down`, or until it is restarted. The server must run in lab mode.
    pub fn crash(
        &mut self,
        server: ServerId,
        role: Option<RoleKind>,
        down: Option<Duration>,
    ) -> Result<(), ClientError> {
        let down_ms = down.map(|down| u64::try_from(down.as_millis()).unwrap_or(u64::MAX));
        self.order(server, Request::Crash { role, down_ms }).map(drop)
    }

    /// Restarts a role, or all three if None. The server must run in lab mode.
    pub fn restart(&mut self, server: ServerId, role: Option<RoleKind>) -> Result<(), ClientError> {
        self.order(server, Request::Restart { role }).map(drop)
    }

    /// Makes a server cut its links with other servers, until they are joined: no message passes in either direction.
    /// The server must run in lab mode.
    pub fn cut(&mut self, server: ServerId, peers: ServerSet) -> Result<(), ClientError> {
        self.order(server, Request::Cut { peers }).map(drop)
    }

    /// Makes a server join links that it has cut. The server must run in lab mode.
    pub fn join(&mut self, server: ServerId, peers: ServerSet) -> Result<(), ClientError> {
        self.order(server, Request::Join { peers }).map(drop)
    }

    fn order(&mut self, server: ServerId, request: Request) -> Result<Reply, ClientError> {
        self.progress();
        let now = self.now();
        let handle = self.core.ask_one(now, self.deadline(now), server, request, &mut self.wire)?;
        self.transmit();
        self.await_result(handle).result
    }

    fn read(&mut self, key: &[u8], route: Route) -> Result<GetResponse, ClientError> {
        check_limits(key, &[])?;
        // As in `submit`: a connection that the server has closed must not cost a try.
        self.progress();
        let now = self.now();
        let handle = self.core.read(now, self.deadline(now), key.to_vec(), route, &mut self.wire);
        self.transmit();
        match done(self.await_result(handle).result?) {
            OperationResult::Read(found) => Ok(found),
            OperationResult::Wrote(outcome) => unreachable!("a read is no write: {outcome:?}"),
        }
    }

    fn write(&mut self, action: Operation) -> Result<WriteResponse, ClientError> {
        let handle = self.submit(action)?;
        match self.wait(handle).end? {
            OperationResult::Wrote(outcome) => Ok(outcome),
            OperationResult::Read(found) => unreachable!("a write is no read: {found:?}"),
        }
    }

    fn await_result(&mut self, handle: RequestHandle) -> Finished {
        loop {
            if let Some(finished) = self.core.take(handle) {
                return finished;
            }
            self.drive();
        }
    }

    /// Sends queued requests as far as the sockets accept them.
    pub(super) fn transmit(&mut self) {
        let now = self.now();
        self.core.transmit(now, &mut self.wire);
    }

    /// Waits until a socket is ready or the next deadline, then makes progress.
    fn drive(&mut self) {
        let mut sockets: Vec<PollFd<'_>> = Vec::with_capacity(self.wire.connections().len());
        for (stream, writes) in self.sockets() {
            let wanted = if writes { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            sockets.push(PollFd::new(stream, wanted));
        }
        let left = self.next_due().map(|due| due.saturating_duration_since(Instant::now()));
        // If `poll` fails or a signal interrupts it, progress finds nothing to do and the caller loops.
        let _ = poll(&mut sockets, left.and_then(|left| Timespec::try_from(left).ok()).as_ref());
        self.progress();
    }

    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::SeqCst))
    }

    /// The deadline of a request that begins now.
    fn deadline(&self, now: Time) -> Time {
        if self.is_stopped() { now } else { now + self.timeout }
    }

    /// The time since `epoch`, in microseconds.
    fn now(&self) -> Time {
        Time(u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// A random nonce of 128 bits from the operating system: not guessable, and practically unique to this client.
fn system_nonce() -> u128 {
    let half = || match getrandom::u64() {
        Ok(half) => half,
        Err(error) => panic!("the operating system returned no random number for a session: {error}"),
    };
    u128::from(half()) << 64 | u128::from(half())
}

/// Converts the core's result into that of an operation.
fn ended(Finished { result, took }: Finished) -> CompletedOperation {
    let accepted_by = match &result {
        Ok(Reply::Applied { accepted_by, .. }) => *accepted_by,
        _ => ServerSet::NONE,
    };
    CompletedOperation { end: result.map(done), took, accepted_by }
}

/// Converts a reply to a read or a write.
fn done(reply: Reply) -> OperationResult {
    match reply {
        Reply::Applied { slot, written, .. } => OperationResult::Wrote(WriteResponse::new(slot, written)),
        Reply::Value { slot, value, version } => {
            OperationResult::Read(GetResponse { slot, value: value.map(|value| value.to_vec()), version })
        }
        other => unreachable!("a reply of the wrong kind is malformed: {other:?}"),
    }
}
