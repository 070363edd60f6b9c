//! The client: asks a server, and if that brings nothing the next, until there is a result, a certain failure or no time.

use std::mem;
use std::thread;
use std::time::{Duration, Instant};

use super::connection::{Connection, NoReply};
use super::lines::Lines;
use super::outcome::{Asked, ClientError, Found, Outcome, Tries, Try, TryEnd};
use super::session::{Session, WriteId};
use crate::cluster::Cluster;
use crate::kv::{KEY_MAX_BYTES, Op, VALUE_MAX_BYTES};
use crate::net::{ClientReply, ClientRequest, Reply, Request, ServerStatus, Unknown};
use crate::paxos::{PartName, RoleName, Slot, SnapshotPart};
use crate::random::Random;
use crate::role::Server;
use crate::trace::Trace;

/// When every server has failed at once, the client waits: at first about the first, then twice as long up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

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

/// A client of the store. Its methods wait for their result; one request at a time.
pub struct Client {
    options: ClientOptions,
    /// The server that the next request goes to.
    server: Server,
    connection: Option<Connection>,
    session: Session,
    /// The number of the last request, as people count.
    requests: u64,
    /// The number of the last frame: no reply to an earlier one is taken for a later one's.
    frames: u64,
    random: Random,
    on_failover: Option<OnFailover>,
}

/// Which servers a request may be asked of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The first, and if that fails the others in turn.
    Any,
    /// Always the same.
    One,
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
        // Nonces are never drawn from a given seed: two clients with one nonce would share a session.
        let session = Session::new(Random::unseeded());
        Ok(Client { options, server, connection: None, session, requests: 0, frames: 0, random, on_failover: None })
    }

    /// Tells `hear` of every try that brought nothing, and which server is asked next.
    pub fn on_failover(&mut self, hear: impl FnMut(&Try, Server) + Send + 'static) {
        self.on_failover = Some(Box::new(hear));
    }

    /// The client's name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// The label of the last request about a key or a session, as in `c1-5`.
    pub fn last_label(&self) -> String {
        format!("{}-{}", self.options.name, self.requests)
    }

    /// The server that the next request goes to: the one that answered last.
    pub fn server(&self) -> Server {
        self.server
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
        self.connection.as_ref().is_some_and(Connection::is_open)
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

    /// How a server is. Asks that server only.
    pub fn status(&mut self, server: Server) -> Result<ServerStatus, ClientError> {
        match self.order(server, Request::Status)? {
            Reply::Status(status) => Ok(*status),
            other => unreachable!("a reply of the wrong kind is malformed: {other:?}"),
        }
    }

    /// A part of the state of the server that the next request goes to, with every slot up to `at_least`; None if it is
    /// not written down yet.
    pub fn state_part(&mut self, part: Option<PartName>, at_least: Slot) -> Result<Option<SnapshotPart>, ClientError> {
        let deadline = Instant::now() + self.options.timeout;
        match self.request(&Request::State { at_least, part }, Reach::One, deadline)? {
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
        let before = self.server;
        self.talk_to(server)?;
        let reply = self.request(&request, Reach::One, Instant::now() + self.options.timeout);
        self.server = before;
        reply
    }

    fn read(&mut self, key: &[u8], reach: Reach) -> Result<Found, ClientError> {
        check_limits(key, &[])?;
        match self.request(&Request::Get { key: key.to_vec() }, reach, Instant::now() + self.options.timeout)? {
            Reply::Value { slot, value, version } => Ok(Found { slot, value: value.map(|v| v.into_vec()), version }),
            other => unreachable!("a reply of the wrong kind is malformed: {other:?}"),
        }
    }

    fn write(&mut self, op: Op) -> Result<Outcome, ClientError> {
        let value: &[u8] = if let Op::Put { value, .. } = &op { value } else { &[] };
        check_limits(op.key(), value)?;
        let deadline = Instant::now() + self.options.timeout;
        let WriteId { session, sequence, first_open } = self.name_write(deadline)?;
        let request = Request::Write { session, sequence, first_open, op };
        match self.request(&request, Reach::Any, deadline) {
            Ok(Reply::Applied { slot, written }) => Ok(Outcome::new(slot, written)),
            Ok(other) => unreachable!("a reply of the wrong kind is malformed: {other:?}"),
            Err(error) => {
                if let ClientError::Unknown(tries) = &error
                    && tries.last.iter().any(|one| one.end == TryEnd::Unknown(Unknown::Expired))
                {
                    self.session.expired();
                }
                Err(error)
            }
        }
    }

    /// Names the next write, in a session that is opened first if there is none.
    fn name_write(&mut self, deadline: Instant) -> Result<WriteId, ClientError> {
        loop {
            if let Some(id) = self.session.next_write() {
                return Ok(id);
            }
            if let Some(nonce) = self.session.wanted() {
                match self.request(&Request::Open { nonce }, Reach::Any, deadline)? {
                    Reply::Opened { session } => self.session.opened(session),
                    other => unreachable!("a reply of the wrong kind is malformed: {other:?}"),
                }
            }
        }
    }

    /// One request: tries until there is a result, a server's last word, or no time left.
    fn request(&mut self, request: &Request, reach: Reach, deadline: Instant) -> Result<Reply, ClientError> {
        let begun = Instant::now();
        // People count the requests that lines tell of.
        self.requests += u64::from(!matches!(
            request,
            Request::Status | Request::State { .. } | Request::Crash { .. } | Request::Restart { .. }
        ));
        let mut lines = Lines::begin(&self.options.trace, self.last_label(), request, self.server);
        let mut tries = Tries::new(self.options.cluster.servers(), asked(request));
        let mut pauses = Pauses::new(if reach == Reach::Any { tries.cluster.len() } else { 1 });
        while self.has_time(&tries, deadline) {
            let (server, started) = (self.server, Instant::now());
            let end = match self.attempt(request, &lines, deadline) {
                Ok(ClientReply { reply: Reply::NotApplied(why), .. }) => TryEnd::NotApplied(why),
                Ok(ClientReply { reply: Reply::Unknown(why), .. }) => TryEnd::Unknown(why),
                // It would be refused everywhere, but an earlier try may have been applied: only a server's word that it
                // is not applied may be taken for that.
                Ok(ClientReply { reply: Reply::Refused(_), .. }) if tries.may_be_applied => {
                    let error = tries.into_error(begun.elapsed());
                    lines.gave_up(&error);
                    return Err(error);
                }
                Ok(reply) => {
                    lines.replied(&reply, server, begun.elapsed());
                    let Reply::Refused(why) = reply.reply else { return Ok(reply.reply) };
                    return Err(ClientError::Refused { server, why });
                }
                Err(no_reply) => TryEnd::NoReply(no_reply),
            };
            let last_word = matches!(end, TryEnd::Unknown(Unknown::Superseded | Unknown::Expired));
            let failed = Try { server, end, took: started.elapsed() };
            if last_word {
                tries.push(failed);
                tries.took = begun.elapsed();
                lines.forgotten(&tries);
                return Err(tries.into_error(begun.elapsed()));
            }
            let pause = pauses.after(failed.took, &mut self.random);
            tries.push(failed);
            self.fail_over(&tries, reach, pause, deadline, &mut lines);
        }
        let error = tries.into_error(begun.elapsed());
        lines.gave_up(&error);
        Err(error)
    }

    /// Whether another try makes sense before the deadline.
    fn has_time(&self, tries: &Tries, deadline: Instant) -> bool {
        tries.are_worth_another(deadline.saturating_duration_since(Instant::now()), self.options.try_timeout)
    }

    /// After a try that brought nothing: waits if it is time to, chooses the next server and tells of it. That the same
    /// server fails in the same way again is told once.
    fn fail_over(&mut self, tries: &Tries, reach: Reach, pause: Duration, deadline: Instant, lines: &mut Lines) {
        let next = if reach == Reach::Any { self.server_after(self.server) } else { self.server };
        thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
        self.server = next;
        let told = match tries.last.as_slice() {
            [.., before, last] => before.server == last.server && before.end.word() == last.end.word(),
            _ => false,
        };
        if let Some(failed) = tries.last.last().filter(|_| !told && self.has_time(tries, deadline)) {
            lines.failover(failed, next);
            if let Some(hear) = &mut self.on_failover {
                hear(failed, next);
            }
        }
    }

    /// The next server in order of their numbers; after the last comes the first.
    fn server_after(&self, server: Server) -> Server {
        let servers = self.options.cluster.servers();
        servers.iter().find(|next| *next > server).or_else(|| servers.iter().next()).unwrap_or(server)
    }

    /// One try with one server. The connection is kept only if it brought a reply.
    fn attempt(&mut self, request: &Request, lines: &Lines, deadline: Instant) -> Result<ClientReply, NoReply> {
        let until = deadline.min(Instant::now() + self.options.try_timeout);
        let server = self.server;
        let kept = self.connection.take().filter(|kept| kept.server() == server && kept.is_open());
        let mut connection = match kept {
            Some(kept) => kept,
            None => Connection::open(&self.options.cluster, server, until)?,
        };
        self.frames += 1;
        let request = ClientRequest { number: self.frames, context: lines.context(), request: request.clone() };
        let address = connection.address();
        let reply = connection
            .ask(&request, until, |other| lines.unrequested(other, (server, address), request.number))
            .and_then(|reply| match is_answer(&request.request, &reply.reply) {
                true => Ok(reply),
                false => {
                    Err(NoReply::Malformed { length: 0, what: "a reply of another kind than was asked".to_string() })
                }
            });
        match reply {
            Ok(reply) => {
                self.connection = Some(connection);
                Ok(reply)
            }
            Err(no_reply) => {
                lines.malformed(&no_reply, &connection);
                Err(no_reply)
            }
        }
    }
}

/// Refuses what no server would take, before anything is sent.
pub fn check_limits(key: &[u8], value: &[u8]) -> Result<(), ClientError> {
    let too_large = |what: &str, length: usize, limit: usize| {
        Err(ClientError::TooLarge(format!("the {what} has {length} bytes, and the store takes at most {limit}")))
    };
    match (key.len(), value.len()) {
        (length, _) if length > KEY_MAX_BYTES => too_large("key", length, KEY_MAX_BYTES),
        (_, length) if length > VALUE_MAX_BYTES => too_large("value", length, VALUE_MAX_BYTES),
        _ => Ok(()),
    }
}

pub(crate) fn asked(request: &Request) -> Asked {
    match request {
        Request::Get { .. } | Request::Status | Request::State { .. } => Asked::Read,
        Request::Open { .. } => Asked::Session,
        Request::Write { .. } => Asked::Write,
        Request::Crash { .. } | Request::Restart { .. } => Asked::Order,
    }
}

/// Whether a reply is of a kind that can answer the request.
fn is_answer(request: &Request, reply: &Reply) -> bool {
    match reply {
        Reply::NotApplied(_) | Reply::Unknown(_) | Reply::Refused(_) => true,
        Reply::Opened { .. } => matches!(request, Request::Open { .. }),
        Reply::Applied { .. } => matches!(request, Request::Write { .. }),
        Reply::Value { .. } => matches!(request, Request::Get { .. }),
        Reply::Status(_) => matches!(request, Request::Status),
        Reply::State(_) => matches!(request, Request::State { .. }),
        Reply::Done => matches!(request, Request::Crash { .. } | Request::Restart { .. }),
    }
}

/// When to wait between tries: after each round of servers of which none took its time, so that a client of a cluster
/// that is down neither spins nor sleeps while there is a server left to ask.
pub(crate) struct Pauses {
    /// So many servers make a round.
    servers: usize,
    /// So many have failed in a row without taking time.
    quick: usize,
    next: Duration,
}

impl Pauses {
    pub(crate) fn new(servers: usize) -> Pauses {
        Pauses { servers, quick: 0, next: PAUSE.0 }
    }

    /// How long to wait after a try that took so long.
    pub(crate) fn after(&mut self, took: Duration, random: &mut Random) -> Duration {
        if took >= PAUSE.1 {
            *self = Pauses::new(self.servers);
            return Duration::ZERO;
        }
        self.quick += 1;
        if !self.quick.is_multiple_of(self.servers) {
            return Duration::ZERO;
        }
        let next = (self.next * 2).min(PAUSE.1);
        random.around(mem::replace(&mut self.next, next))
    }
}
