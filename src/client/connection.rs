//! One connection to one server, which carries requests and their replies.
//!
//! Nothing here waits: a connection connects, shakes hands, sends and receives as far as possible at once, and reports
//! what it waits for. So one thread can hold many connections, and a silent server delays no other.

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

/// Capacity in bytes that an empty request buffer keeps; a larger one is shrunk to it.
const KEEP_BYTES: usize = 64 << 10;

/// A connection, from the first attempt on.
#[derive(Debug)]
pub struct Connection {
    server: ServerId,
    address: SocketAddr,
    reader: FrameReader,
    state: ConnectionState,
    /// The cluster's name in this client's cluster file.
    cluster: String,
    /// All servers in this client's cluster file.
    members: ServerSet,
    /// The history that the client knows; 0 if none.
    known: u64,
    /// The part of the client's hello that is not sent yet.
    greeting: Vec<u8>,
    /// Requests that are not sent yet. They wait until the server has accepted this client.
    requests: Vec<u8>,
    /// Number of bytes of `requests` that are sent.
    taken: usize,
    /// Total bytes of requests that were queued, and below the total that was sent.
    queued: u64,
    sent: u64,
}

impl Connection {
    /// Begins to connect to a server of the cluster, for a client that knows this history (0: none).
    pub fn open(cluster: &Cluster, server: ServerId, history: u64) -> Result<Connection, NoReply> {
        let address = match cluster.member(server) {
            Some(member) => member.client,
            None => return Err(NoReply::Unreachable { why: "the cluster file does not list it".to_string() }),
        };
        let stream = dial(address).map_err(not_connected)?;
        let members = cluster.servers();
        let hello = Hello { cluster: cluster.name.clone(), to: server, members, who: Caller::Client };
        Ok(Connection {
            server,
            address,
            reader: FrameReader::new(stream, HANDSHAKE_FRAME_MAX_BYTES),
            state: ConnectionState::Connecting,
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

    /// The address on which the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket, for polling.
    pub fn stream(&self) -> &TcpStream {
        self.reader.stream()
    }

    /// The state of the connection.
    pub fn stage(&self) -> ConnectionState {
        self.state
    }

    fn is_ready(&self) -> bool {
        matches!(self.state, ConnectionState::Ready { .. })
    }

    /// Whether there is data to send as soon as the socket accepts it.
    pub fn wants_to_write(&self) -> bool {
        match self.state {
            ConnectionState::Connecting => true,
            ConnectionState::ShakingHands => !self.greeting.is_empty(),
            ConnectionState::Ready { .. } => self.taken < self.requests.len(),
        }
    }

    /// Whether the server has not closed the connection so far. The server may close it right after this check, so the
    /// check only spares most requests a try with unknown outcome.
    pub fn is_open(&self) -> bool {
        let peeked = self.stream().peek(&mut [0]);
        !self.reader.has_more() && matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Queues a request. The request is sent completely once [`Connection::sent`] has reached the returned number.
    pub fn queue(&mut self, request: &ClientRequest) -> u64 {
        let before = self.requests.len();
        frame_into(request, &mut self.requests);
        self.queued += (self.requests.len() - before) as u64;
        self.queued
    }

    /// Total bytes of requests that were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends as much as the socket accepts at once. After an error the connection is unusable.
    pub fn transmit(&mut self) -> Result<(), NoReply> {
        self.advance()?;
        if self.state == ConnectionState::ShakingHands && !self.greeting.is_empty() {
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

    /// Receives what has arrived. After an error the connection is unusable, but the replies before it count.
    pub fn receive(&mut self, replies: &mut Vec<ClientReply>) -> Result<(), NoReply> {
        self.advance()?;
        if self.state == ConnectionState::Connecting {
            return Ok(());
        }
        let received = self.reader.receive_now();
        if self.state == ConnectionState::ShakingHands {
            self.hear_answer()?;
        }
        if self.is_ready() {
            self.take_replies(replies)?;
        }
        match received {
            Ok(Some(0)) if self.state == ConnectionState::ShakingHands => {
                Err(self.handshake_failed(&"the server closed the connection"))
            }
            Ok(Some(0)) if self.reader.has_more() => {
                let length = self.reader.unused() as u64;
                let what = format!("the connection was closed after {length} bytes of a frame");
                Err(NoReply::Malformed { length, what })
            }
            Ok(Some(0)) => Err(NoReply::Broken { why: "the server closed the connection".to_string() }),
            Ok(_) => Ok(()),
            Err(error) if self.state == ConnectionState::ShakingHands => Err(self.handshake_failed(&error)),
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

    /// Notices whether the connection attempt has succeeded or failed.
    fn advance(&mut self) -> Result<(), NoReply> {
        if self.state == ConnectionState::Connecting {
            if let Some(error) = self.stream().take_error().unwrap_or_else(Some) {
                return Err(not_connected(error));
            }
            // Until the connection is established, the socket has no peer address.
            if self.stream().peer_addr().is_ok() {
                crate::net::refuse_self_connection(self.stream()).map_err(not_connected)?;
                self.state = ConnectionState::ShakingHands;
            }
        }
        Ok(())
    }

    fn hear_answer(&mut self) -> Result<(), NoReply> {
        match self.reader.next_received::<HelloReply>() {
            Ok(None) => Ok(()),
            Ok(Some(HelloReply::Welcome(Welcome { members, .. }))) if members != self.members => {
                let why = format!(
                    "its cluster has servers {}, but the cluster file of this client lists {}; nothing was sent",
                    members.numbers(),
                    self.members.numbers()
                );
                Err(self.handshake_failed(&why))
            }
            // A server without data reports history 0 and is accepted: it may still catch up.
            Ok(Some(HelloReply::Welcome(Welcome { history: found, .. })))
                if ![0, found].contains(&self.known) && found != 0 =>
            {
                Err(NoReply::OtherHistory { cluster: self.cluster.clone(), known: self.known, found })
            }
            Ok(Some(HelloReply::Welcome(Welcome { history, .. }))) => {
                self.state = ConnectionState::Ready { history };
                self.reader.set_limit(CLIENT_FRAME_MAX_BYTES);
                Ok(())
            }
            Ok(Some(HelloReply::Refused { why })) => Err(NoReply::Rejected { why }),
            Ok(Some(HelloReply::CallBackFirst)) => {
                Err(self.handshake_failed(&"the server treats this client as a server"))
            }
            Err(error) => Err(self.handshake_failed(&error)),
        }
    }

    fn handshake_failed(&self, error: &impl std::fmt::Display) -> NoReply {
        NoReply::Unreachable { why: format!("the handshake failed: {error}") }
    }
}

/// Begins to connect without waiting for the connection.
fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Requests are small and a caller waits for each, so TCP must not delay them to fill a packet.
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
