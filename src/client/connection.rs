//! One connection to one server: requests go out, and their replies come back or do not.
//!
//! Nothing here waits: a connection is opened, shakes hands, sends and receives as far as it can at once, and says what
//! it waits for. So one thread can hold many, and a server that is silent holds up no other.

use std::io;
use std::net::{SocketAddr, TcpStream};

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use super::core::wire::{ConnectionState, NoReply};
use crate::cluster::Cluster;
use crate::net::{
    CLIENT_FRAME_MAX_BYTES, Caller, ClientReply, ClientRequest, FrameError, FrameReader, HANDSHAKE_FRAME_MAX_BYTES,
    Hello, HelloReply, Welcome, frame_into, greeting, write_now,
};
use crate::role::{ServerId, ServerSet};

/// An empty buffer that is larger is given back.
const KEEP_BYTES: usize = 64 << 10;

/// A connection, from the first attempt on.
#[derive(Debug)]
pub struct Connection {
    server: ServerId,
    address: SocketAddr,
    reader: FrameReader,
    stage: ConnectionState,
    /// By this client's cluster file.
    cluster: String,
    /// All servers, by this client's cluster file.
    members: ServerSet,
    /// The history that the client knows; 0 if there is none.
    known: u64,
    /// The client's words of introduction that are not sent yet.
    greeting: Vec<u8>,
    /// Requests that are not sent yet: they wait until the server has said that it talks to this client.
    requests: Vec<u8>,
    /// So many bytes of `requests` are sent.
    taken: usize,
    /// How many bytes of requests were ever queued, and sent.
    queued: u64,
    sent: u64,
}

impl Connection {
    /// Begins to connect to a server of the cluster, for a client that knows this history, or none if 0.
    pub fn open(cluster: &Cluster, server: ServerId, history: u64) -> Result<Connection, NoReply> {
        let address = match cluster.member(server) {
            Some(member) => member.client,
            None => return Err(NoReply::Unreachable { why: "it is not in the cluster file".to_string() }),
        };
        let stream = dial(address).map_err(not_connected)?;
        let members = cluster.servers();
        let hello = Hello { cluster: cluster.name.clone(), to: server, members, who: Caller::Client };
        Ok(Connection {
            server,
            address,
            reader: FrameReader::new(stream, HANDSHAKE_FRAME_MAX_BYTES),
            stage: ConnectionState::Connecting,
            cluster: cluster.name.clone(),
            members,
            known: history,
            greeting: greeting(&hello),
            requests: Vec::new(),
            taken: 0,
            queued: 0,
            sent: 0,
        })
    }

    /// The server at the other end.
    pub fn server(&self) -> ServerId {
        self.server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket, for whoever waits for it.
    pub fn stream(&self) -> &TcpStream {
        self.reader.stream()
    }

    /// How far it is.
    pub fn stage(&self) -> ConnectionState {
        self.stage
    }

    fn is_ready(&self) -> bool {
        matches!(self.stage, ConnectionState::Ready { .. })
    }

    /// Whether something is to be sent as soon as the socket takes it.
    pub fn wants_to_write(&self) -> bool {
        match self.stage {
            ConnectionState::Connecting => true,
            ConnectionState::ShakingHands => !self.greeting.is_empty(),
            ConnectionState::Ready { .. } => self.taken < self.requests.len(),
        }
    }

    /// Whether the server has not closed it while nobody looked. (It may do so right after: this only spares most
    /// requests a try whose outcome would be unknown.)
    pub fn is_open(&self) -> bool {
        let peeked = self.stream().peek(&mut [0]);
        !self.reader.has_more() && matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Queues a request: it is sent as a whole once [`Connection::sent`] has come as far as this says.
    pub fn queue(&mut self, request: &ClientRequest) -> u64 {
        let before = self.requests.len();
        frame_into(request, &mut self.requests);
        self.queued += (self.requests.len() - before) as u64;
        self.queued
    }

    /// How many bytes of requests are sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends what the socket takes at once. After an error the connection is of no more use.
    pub fn transmit(&mut self) -> Result<(), NoReply> {
        self.advance()?;
        if self.stage == ConnectionState::ShakingHands && !self.greeting.is_empty() {
            let count = write_now(self.stream(), &self.greeting).map_err(|error| self.handshake_failed(&error))?;
            self.greeting.drain(..count);
        }
        if self.is_ready() && self.taken < self.requests.len() {
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
        if self.stage == ConnectionState::Connecting {
            return Ok(());
        }
        let received = self.reader.receive_now();
        if self.stage == ConnectionState::ShakingHands {
            self.hear_answer()?;
        }
        if self.is_ready() {
            self.take_replies(replies)?;
        }
        match received {
            Ok(Some(0)) if self.stage == ConnectionState::ShakingHands => {
                Err(self.handshake_failed(&"the server closed the connection"))
            }
            Ok(Some(0)) if self.reader.has_more() => {
                let length = self.reader.unused() as u64;
                let what = format!("the connection was closed after {length} bytes of a frame");
                Err(NoReply::Malformed { length, what })
            }
            Ok(Some(0)) => Err(NoReply::Broken { why: "the server closed it".to_string() }),
            Ok(_) => Ok(()),
            Err(error) if self.stage == ConnectionState::ShakingHands => Err(self.handshake_failed(&error)),
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

    /// Takes note when the connection is made, or has failed.
    fn advance(&mut self) -> Result<(), NoReply> {
        if self.stage == ConnectionState::Connecting {
            if let Some(error) = self.stream().take_error().unwrap_or_else(Some) {
                return Err(not_connected(error));
            }
            // As long as nobody is at the other end, it has no name.
            if self.stream().peer_addr().is_ok() {
                crate::net::refuse_oneself(self.stream()).map_err(not_connected)?;
                self.stage = ConnectionState::ShakingHands;
            }
        }
        Ok(())
    }

    fn hear_answer(&mut self) -> Result<(), NoReply> {
        match self.reader.next_received::<HelloReply>() {
            Ok(None) => Ok(()),
            Ok(Some(HelloReply::Welcome(Welcome { members, .. }))) if members != self.members => {
                let why = format!(
                    "it says that its cluster has servers {}, and this client's cluster file lists {}. Nothing was sent",
                    members.numbers(),
                    self.members.numbers()
                );
                Err(self.handshake_failed(&why))
            }
            // A server whose state is still empty says 0: it may be about to catch up.
            Ok(Some(HelloReply::Welcome(Welcome { history: found, .. })))
                if ![0, found].contains(&self.known) && found != 0 =>
            {
                Err(NoReply::OtherHistory { cluster: self.cluster.clone(), known: self.known, found })
            }
            Ok(Some(HelloReply::Welcome(Welcome { history, .. }))) => {
                self.stage = ConnectionState::Ready { history };
                self.reader.set_limit(CLIENT_FRAME_MAX_BYTES);
                Ok(())
            }
            Ok(Some(HelloReply::Refused { why })) => Err(NoReply::Rejected { why }),
            Ok(Some(HelloReply::CallYouFirst)) => Err(self.handshake_failed(&"it takes this client for a server")),
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
