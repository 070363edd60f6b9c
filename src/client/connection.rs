//! One connection to one server: a request goes out, and its reply comes back or does not.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};

use crate::cluster::Cluster;
use crate::net::{
    CLIENT_FRAME_MAX_BYTES, ClientReply, ClientRequest, FrameError, FrameReader, HandshakeError, Hello, Who, frame,
    greet, write_before,
};
use crate::role::Server;

/// A server that sends more replies than this to questions that nobody asked is not listened to any longer.
const UNREQUESTED_MAX: usize = 16;

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
            | NoReply::NotSent { .. } => false,
            NoReply::Silent { .. } | NoReply::Broken { .. } | NoReply::Malformed { .. } => true,
        }
    }
}

/// A connection that has shaken hands.
#[derive(Debug)]
pub struct Connection {
    server: Server,
    address: SocketAddr,
    reader: FrameReader,
}

impl Connection {
    /// Connects to a server of the cluster before the deadline.
    pub fn open(cluster: &Cluster, server: Server, deadline: Instant) -> Result<Connection, NoReply> {
        let begun = Instant::now();
        let address = match cluster.member(server) {
            Some(member) => member.client,
            None => return Err(NoReply::Unreachable { why: "it is not in the cluster file".to_string() }),
        };
        let late = || NoReply::Unreachable { why: format!("no connection within {}", seconds(begun.elapsed())) };
        let left = deadline.saturating_duration_since(begun);
        if left.is_zero() {
            return Err(late());
        }
        let stream = TcpStream::connect_timeout(&address, left).map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => NoReply::ConnectionRefused,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => late(),
            _ => NoReply::Unreachable { why: error.to_string() },
        })?;
        let unusable = |error: io::Error| NoReply::Unreachable { why: error.to_string() };
        // Requests are small and each waits for its reply: none may linger for a fuller packet.
        stream.set_nodelay(true).map_err(unusable)?;
        let hello = Hello { cluster: cluster.name.clone(), to: server, who: Who::Client };
        greet_before(&stream, &hello, deadline).map_err(|error| match error {
            HandshakeError::Refused(why) => NoReply::TurnedAway { why },
            HandshakeError::Broken(_) if Instant::now() >= deadline => {
                NoReply::Unreachable { why: format!("no answer to the handshake within {}", seconds(begun.elapsed())) }
            }
            HandshakeError::Broken(error) => NoReply::Unreachable { why: format!("the handshake failed: {error}") },
        })?;
        Ok(Connection { server, address, reader: FrameReader::new(stream, CLIENT_FRAME_MAX_BYTES) })
    }

    /// The server at the other end.
    pub fn server(&self) -> Server {
        self.server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the server has not closed it while nobody looked. (It may do so right after: this only spares most requests
    /// a try whose outcome would be unknown.)
    pub fn is_open(&self) -> bool {
        let stream = self.reader.stream();
        if self.reader.has_more() || stream.set_nonblocking(true).is_err() {
            return false;
        }
        let peeked = stream.peek(&mut [0]);
        let quiet = matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        quiet && stream.set_nonblocking(false).is_ok()
    }

    /// Sends a request and waits for its reply. A reply to another request is shown to `unrequested` and not believed.
    /// After an error the connection is of no more use.
    pub fn ask(
        &mut self,
        request: &ClientRequest,
        deadline: Instant,
        mut unrequested: impl FnMut(&ClientReply),
    ) -> Result<ClientReply, NoReply> {
        let begun = Instant::now();
        write_before(self.reader.stream(), &frame(request), deadline)
            .map_err(|error| NoReply::NotSent { why: error.to_string() })?;
        for _ in 0..=UNREQUESTED_MAX {
            let reply = self.reader.read::<ClientReply>(Some(deadline)).map_err(|error| match error {
                FrameError::TimedOut { .. } => NoReply::Silent { waited: begun.elapsed() },
                FrameError::Malformed { length, what } => NoReply::Malformed { length, what },
                FrameError::Broken(error) => NoReply::Broken { why: error.to_string() },
            })?;
            match reply {
                Some(reply) if reply.number == request.number => return Ok(reply),
                Some(reply) => unrequested(&reply),
                None => return Err(NoReply::Broken { why: "the server closed it".to_string() }),
            }
        }
        let what = format!("more than {UNREQUESTED_MAX} replies to questions that were not asked");
        Err(NoReply::Malformed { length: 0, what })
    }
}

/// A duration for people, in seconds.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Shakes hands before the deadline. A handshake alone may take longer than a try: a second thread closes the connection
/// when the time is up, which wakes this one.
fn greet_before(stream: &TcpStream, hello: &Hello, deadline: Instant) -> Result<u64, HandshakeError> {
    let (done, finished) = bounded::<()>(0);
    thread::scope(|scope| {
        let watch = move || {
            if finished.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
                // If it is closed already, all the better.
                let _ = stream.shutdown(Shutdown::Both);
            }
        };
        thread::Builder::new().name("handshake-watch".to_string()).spawn_scoped(scope, watch)?;
        let greeted = greet(stream, hello);
        drop(done);
        greeted
    })
}
