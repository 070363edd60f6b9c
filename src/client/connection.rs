//! One connection to one server: requests go out, and their replies come back or do not.
//!
//! Nothing here waits: a connection is opened, shakes hands, sends and receives as far as it can at once, and says what
//! it waits for. So one thread can hold many, and a server that is silent holds up no other.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use crate::cluster::Cluster;
use crate::net::{
    Answer, CLIENT_FRAME_MAX_BYTES, ClientReply, ClientRequest, FrameError, FrameReader, HANDSHAKE_FRAME_MAX_BYTES,
    Hello, Welcome, Who, frame_into, greeting, write_now,
};
use crate::role::{Server, Servers};

/// A server that sends more replies than this to questions that nobody asked is not listened to any longer.
const UNREQUESTED_MAX: usize = 16;
/// A server that owes more replies than this, though it answers others, has lost them.
const GIVEN_UP_MAX: usize = 256;
/// An empty buffer that is larger is given back.
const KEEP_BYTES: usize = 64 << 10;

/// Why a try brought no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoReply {
    /// Nobody listens there.
    ConnectionRefused,
    /// No connection in time, or no answer to the handshake. The request was not sent.
    Unreachable {
        /// What went wrong.
        why: String,
    },
    /// The server does not want to talk to this client. The request was not sent.
    TurnedAway {
        /// Its sentence.
        why: String,
    },
    /// The server answers for another history than the one that this client has known: its data were begun anew, or
    /// restored. The request was not sent.
    OtherHistory {
        /// The name of the cluster.
        cluster: String,
        /// The history that was known.
        known: u64,
        /// The server's.
        found: u64,
    },
    /// The server's data were empty, and this client has known others: they were begun anew, or the server has not caught up
    /// yet. What it answered to a read is not believed.
    NoData {
        /// The name of the cluster.
        cluster: String,
    },
    /// The request could not be sent as a whole: the server cannot have understood it.
    NotSent {
        /// What went wrong.
        why: String,
    },
    /// The request was sent, and no reply came in time.
    Silent {
        /// How long it was waited for.
        waited: Duration,
    },
    /// The request was sent, and the connection ended before the reply.
    Broken {
        /// What went wrong.
        why: String,
    },
    /// The request was sent, and what came back is no reply to it.
    Malformed {
        /// Bytes received, or announced.
        length: u64,
        /// What is wrong with it.
        what: String,
    },
}

impl NoReply {
    /// Whether the server may have received the request.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            NoReply::ConnectionRefused
            | NoReply::Unreachable { .. }
            | NoReply::TurnedAway { .. }
            | NoReply::OtherHistory { .. }
            | NoReply::NotSent { .. } => false,
            NoReply::Silent { .. } | NoReply::Broken { .. } | NoReply::Malformed { .. } | NoReply::NoData { .. } => {
                true
            }
        }
    }
}

/// A connection, from the first attempt on.
#[derive(Debug)]
pub struct Connection {
    server: Server,
    address: SocketAddr,
    reader: FrameReader,
    stage: Stage,
    begun: Instant,
    /// By this client's cluster file.
    cluster: String,
    /// All servers, by this client's cluster file.
    members: Servers,
    /// The history that the client knows, and from the handshake on the server's; 0 if there is none.
    history: u64,
    /// The client's words of introduction that are not sent yet.
    greeting: Vec<u8>,
    /// Requests that are not sent yet: they wait until the server has said that it talks to this client.
    requests: Vec<u8>,
    /// So many bytes of `requests` are sent.
    taken: usize,
    /// How many bytes of requests were ever queued, and sent.
    queued: u64,
    sent: u64,
    /// When the last reply came.
    heard: Option<Instant>,
    /// Requests that nobody waits for any longer: a reply to one of them is late, and no surprise.
    given_up: BTreeSet<u64>,
    /// Replies to questions that nobody asked.
    unrequested: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    ShakingHands,
    Ready,
}

impl Connection {
    /// Begins to connect to a server of the cluster, for a client that knows this history, or none if 0.
    pub fn open(cluster: &Cluster, server: Server, history: u64) -> Result<Connection, NoReply> {
        let address = match cluster.member(server) {
            Some(member) => member.client,
            None => return Err(NoReply::Unreachable { why: "it is not in the cluster file".to_string() }),
        };
        let stream = dial(address).map_err(not_connected)?;
        let members = cluster.servers();
        let hello = Hello { cluster: cluster.name.clone(), to: server, members, who: Who::Client };
        Ok(Connection {
            server,
            address,
            reader: FrameReader::new(stream, HANDSHAKE_FRAME_MAX_BYTES),
            stage: Stage::Connecting,
            begun: Instant::now(),
            cluster: cluster.name.clone(),
            members,
            history,
            greeting: greeting(&hello),
            requests: Vec::new(),
            taken: 0,
            queued: 0,
            sent: 0,
            heard: None,
            given_up: BTreeSet::new(),
            unrequested: 0,
        })
    }

    /// The server at the other end.
    pub fn server(&self) -> Server {
        self.server
    }

    /// Which history the server answers for; 0 if it has not said so.
    pub fn history(&self) -> u64 {
        self.history
    }

    /// The server has shown that its data are of this history by now.
    pub fn set_history(&mut self, history: u64) {
        if self.history == 0 {
            self.history = history;
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket, for whoever waits for it.
    pub fn stream(&self) -> &TcpStream {
        self.reader.stream()
    }

    /// Whether the server has said that it talks to this client.
    pub fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// Whether something is to be sent as soon as the socket takes it.
    pub fn wants_to_write(&self) -> bool {
        match self.stage {
            Stage::Connecting => true,
            Stage::ShakingHands => !self.greeting.is_empty(),
            Stage::Ready => self.taken < self.requests.len(),
        }
    }

    /// Whether the server has not closed it while nobody looked. (It may do so right after: this only spares most requests
    /// a try whose outcome would be unknown.)
    pub fn is_open(&self) -> bool {
        let peeked = self.stream().peek(&mut [0]);
        !self.reader.has_more() && matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Queues a request; what comes back tells later whether it was sent, see [`Connection::has_sent`].
    pub fn queue(&mut self, request: &ClientRequest) -> u64 {
        let before = self.requests.len();
        frame_into(request, &mut self.requests);
        self.queued += (self.requests.len() - before) as u64;
        self.queued
    }

    /// Whether a request was sent as a whole: if not, the server cannot have understood it.
    pub fn has_sent(&self, queued: u64) -> bool {
        queued <= self.sent
    }

    /// When the last reply came.
    pub fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// Nobody waits any longer for the reply to this request; false if that has happened too often.
    pub fn give_up(&mut self, number: u64) -> bool {
        self.given_up.len() < GIVEN_UP_MAX && self.given_up.insert(number)
    }

    /// Whether a reply is to a request that nobody waits for any longer.
    pub fn is_given_up(&mut self, number: u64) -> bool {
        self.given_up.remove(&number)
    }

    /// Counts a reply to a question that was not asked; an error if there were too many.
    pub fn count_unrequested(&mut self) -> Result<(), NoReply> {
        self.unrequested += 1;
        if self.unrequested > UNREQUESTED_MAX {
            let what = format!("more than {UNREQUESTED_MAX} replies to questions that were not asked");
            return Err(NoReply::Malformed { length: 0, what });
        }
        Ok(())
    }

    /// Sends what the socket takes at once. After an error the connection is of no more use.
    pub fn transmit(&mut self) -> Result<(), NoReply> {
        self.advance()?;
        if self.stage == Stage::ShakingHands && !self.greeting.is_empty() {
            let count = write_now(self.stream(), &self.greeting).map_err(|error| self.handshake_failed(&error))?;
            self.greeting.drain(..count);
        }
        if self.stage == Stage::Ready && self.taken < self.requests.len() {
            let count = write_now(self.reader.stream(), &self.requests[self.taken..])
                .map_err(|error| NoReply::Broken { why: error.to_string() })?;
            self.taken += count;
            self.sent += count as u64;
            if self.taken == self.requests.len() {
                self.requests.clear();
                self.requests.shrink_to(KEEP_BYTES);
                self.taken = 0;
            }
        }
        Ok(())
    }

    /// Receives what has come. After an error the connection is of no more use, but the replies before it count.
    pub fn receive(&mut self, replies: &mut Vec<ClientReply>) -> Result<(), NoReply> {
        self.advance()?;
        if self.stage == Stage::Connecting {
            return Ok(());
        }
        let received = self.reader.receive_now();
        if self.stage == Stage::ShakingHands {
            self.hear_answer()?;
        }
        if self.stage == Stage::Ready {
            let before = replies.len();
            let decoded = self.take_replies(replies);
            if replies.len() > before {
                self.heard = Some(Instant::now());
            }
            decoded?;
        }
        match received {
            Ok(Some(0)) if self.stage == Stage::ShakingHands => {
                Err(self.handshake_failed(&"the server closed the connection"))
            }
            Ok(Some(0)) if self.reader.has_more() => {
                let length = self.reader.unused() as u64;
                let what = format!("the connection was closed after {length} bytes of a frame");
                Err(NoReply::Malformed { length, what })
            }
            Ok(Some(0)) => Err(NoReply::Broken { why: "the server closed it".to_string() }),
            Ok(_) => Ok(()),
            Err(error) if self.stage == Stage::ShakingHands => Err(self.handshake_failed(&error)),
            Err(error) => Err(NoReply::Broken { why: error.to_string() }),
        }
    }

    fn take_replies(&mut self, replies: &mut Vec<ClientReply>) -> Result<(), NoReply> {
        loop {
            match self.reader.next_received() {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => return Ok(()),
                Err(FrameError::Malformed { length, what }) => return Err(NoReply::Malformed { length, what }),
                Err(error) => return Err(NoReply::Broken { why: error.to_string() }),
            }
        }
    }

    /// Why a try brought nothing whose time is up on a connection that is not ready.
    pub fn late(&self) -> NoReply {
        let waited = seconds(self.begun.elapsed());
        NoReply::Unreachable {
            why: match self.stage {
                Stage::Connecting => format!("no connection within {waited}"),
                Stage::ShakingHands | Stage::Ready => format!("no answer to the handshake within {waited}"),
            },
        }
    }

    /// Takes note when the connection is made, or has failed.
    fn advance(&mut self) -> Result<(), NoReply> {
        if self.stage == Stage::Connecting {
            if let Some(error) = self.stream().take_error().unwrap_or_else(Some) {
                return Err(not_connected(error));
            }
            // As long as nobody is at the other end, it has no name.
            if self.stream().peer_addr().is_ok() {
                crate::net::refuse_oneself(self.stream()).map_err(not_connected)?;
                self.stage = Stage::ShakingHands;
            }
        }
        Ok(())
    }

    fn hear_answer(&mut self) -> Result<(), NoReply> {
        match self.reader.next_received::<Answer>() {
            Ok(None) => Ok(()),
            Ok(Some(Answer::Welcome(Welcome { members, .. }))) if members != self.members => {
                let why = format!(
                    "it says that its cluster has servers {}, and this client's cluster file lists {}. Nothing was sent",
                    members.numbers(),
                    self.members.numbers()
                );
                Err(self.handshake_failed(&why))
            }
            // A server whose state is still empty says 0: it may be about to catch up.
            Ok(Some(Answer::Welcome(Welcome { history: found, .. })))
                if ![0, found].contains(&self.history) && found != 0 =>
            {
                Err(NoReply::OtherHistory { cluster: self.cluster.clone(), known: self.history, found })
            }
            Ok(Some(Answer::Welcome(Welcome { history, .. }))) => {
                self.history = history;
                self.stage = Stage::Ready;
                self.reader.set_limit(CLIENT_FRAME_MAX_BYTES);
                Ok(())
            }
            Ok(Some(Answer::Refused { why })) => Err(NoReply::TurnedAway { why }),
            Ok(Some(Answer::CallYouFirst)) => Err(self.handshake_failed(&"it takes this client for a server")),
            Err(error) => Err(self.handshake_failed(&error)),
        }
    }

    fn handshake_failed(&self, error: &impl std::fmt::Display) -> NoReply {
        NoReply::Unreachable { why: format!("the handshake failed: {error}") }
    }
}

/// Begins to connect, and does not wait for it.
fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Requests are small and somebody waits for each: none may linger for a fuller packet.
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        connected => connected?,
    }
    Ok(socket.into())
}

fn not_connected(error: io::Error) -> NoReply {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => NoReply::ConnectionRefused,
        _ => NoReply::Unreachable { why: error.to_string() },
    }
}

/// A duration for people, in seconds.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
