//! The handshake: the first exchange on every connection, in which both ends identify themselves.
//!
//! The caller sends six raw bytes, `PXKV` and the version of the protocol, and then a [`Hello`]. The called server
//! replies with its own identity or the reason of a refusal. Servers never exchange Paxos messages if their clusters
//! differ, or if their cluster files list different servers. The same holds for a server with a false number, or with
//! another data directory than its peers know. [`admission`](crate::storage::admission) describes how a peer proves its
//! identity.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::frame::{FrameError, FrameReader, frame, frame_into, write_before};
use crate::role::{ServerId, ServerSet};

/// Maximum time for the handshake, on both sides.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
const MAGIC: &[u8; 4] = b"PXKV";
/// The version of the protocol on a connection.
const VERSION: u16 = 6;
const PREAMBLE_BYTES: usize = 6;
/// The largest frame of a handshake, in bytes.
pub const HANDSHAKE_FRAME_MAX_BYTES: usize = 1 << 10;

/// The identity of a caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Caller {
    /// A client.
    Client,
    /// A server that will send messages to this one.
    Peer {
        /// Its server number.
        server: ServerId,
        /// The storage id of its data directory.
        storage: u64,
        /// Its incarnation on that directory.
        incarnation: u32,
        /// Random number of the process: it distinguishes two incarnations of one number, one of them on an old copy of
        /// the directory.
        boot: u64,
        /// Whether it is active.
        is_active: bool,
        /// The storage id of the called server, if the called server has sent it: no other server knows it.
        knows: Option<u64>,
    },
}

/// The caller's message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster that the caller wants to reach.
    pub cluster: String,
    /// The server that it wants to reach.
    pub to: ServerId,
    /// All servers of that cluster, from the caller's file.
    pub members: ServerSet,
    /// The identity of the caller.
    pub who: Caller,
}

/// What a server tells an accepted caller about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The history of its data.
    pub history: u64,
    /// All servers of its cluster.
    pub members: ServerSet,
}

/// The called server's reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloReply {
    /// The caller is accepted.
    Welcome(Welcome),
    /// The called server first dials the peer that the caller claims to be; then the caller may call again.
    CallBackFirst,
    /// The caller is refused.
    Refused {
        /// The reason, one sentence.
        why: String,
    },
}

/// Why a handshake failed.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// There is no connection, or it broke.
    #[error("{0}")]
    Broken(#[from] FrameError),
    /// The other side calls back first.
    #[error("the other side calls back first")]
    CallBackFirst,
    /// The other side refused.
    #[error("refused: {0}")]
    Refused(String),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> HandshakeError {
        HandshakeError::Broken(FrameError::Broken(error))
    }
}

/// The first bytes of every connection.
pub fn preamble() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes
}

/// The caller's message as bytes, for a caller that does not wait for the [`HelloReply`].
pub fn greeting(hello: &Hello) -> Vec<u8> {
    let mut bytes = preamble();
    frame_into(hello, &mut bytes);
    bytes
}

/// The caller's side: identifies itself, and returns what the server tells about itself.
pub fn connect_handshake(stream: &TcpStream, hello: &Hello) -> Result<Welcome, HandshakeError> {
    let deadline = Instant::now() + HANDSHAKE_DEADLINE;
    write_before(stream, &greeting(hello), deadline)?;
    let mut reader = FrameReader::new(stream.try_clone()?, HANDSHAKE_FRAME_MAX_BYTES);
    match reader.read(Some(deadline))? {
        Some(HelloReply::Welcome(welcome)) => Ok(welcome),
        Some(HelloReply::CallBackFirst) => Err(HandshakeError::CallBackFirst),
        Some(HelloReply::Refused { why }) => Err(HandshakeError::Refused(why)),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection").into()),
    }
}

/// The called side: reads the caller's identity, asks `judge` for the reply, and sends it. None if the caller closed
/// the connection without a byte.
pub fn accept_handshake(
    reader: &mut FrameReader,
    judge: impl FnOnce(&Hello) -> HelloReply,
) -> Result<Option<Caller>, HandshakeError> {
    let deadline = Instant::now() + HANDSHAKE_DEADLINE;
    let Some(hello) = hear(reader, deadline)? else { return Ok(None) };
    let words = judge(&hello);
    write_before(reader.stream(), &frame(&words), deadline)?;
    match words {
        HelloReply::Welcome(_) => Ok(Some(hello.who)),
        HelloReply::CallBackFirst => Err(HandshakeError::CallBackFirst),
        HelloReply::Refused { why } => Err(HandshakeError::Refused(why)),
    }
}

/// Reads the caller's message.
fn hear(reader: &mut FrameReader, deadline: Instant) -> Result<Option<Hello>, FrameError> {
    let Some(bytes) = reader.read_raw(PREAMBLE_BYTES, deadline)? else { return Ok(None) };
    if bytes[..4] != *MAGIC {
        let length = (PREAMBLE_BYTES + reader.unused()) as u64;
        return Err(FrameError::Malformed {
            length,
            what: "the first bytes are not those of this protocol".to_string(),
        });
    }
    let version = u16::from_le_bytes([bytes[4], bytes[5]]);
    if version != VERSION {
        let length = (PREAMBLE_BYTES + reader.unused()) as u64;
        let what = format!("the caller uses protocol version {version}, this server uses {VERSION}");
        // The message of another version cannot be read, but a refusal can be sent.
        write_before(reader.stream(), &frame(&HelloReply::Refused { why: what.clone() }), deadline)?;
        return Err(FrameError::Malformed { length, what });
    }
    reader.read(Some(deadline))
}

/// Refuses a caller whose message is not read.
pub fn reject(stream: &TcpStream, why: &str) {
    // At most 100 ms: a caller that does not read the reply still sees the closed connection.
    let deadline = Instant::now() + Duration::from_millis(100);
    let _ = write_before(stream, &frame(&HelloReply::Refused { why: why.to_string() }), deadline);
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
