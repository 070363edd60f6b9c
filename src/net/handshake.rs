//! Who is there: the first words on every connection.
//!
//! The caller says six raw bytes, `PXKV` and the version of the protocol, and then a [`Hello`]; the called server
//! answers with its own name or a refusal in a sentence. Servers of different clusters, a server under a false number,
//! and a server whose data folder is not the one that its peers know never exchange a word of Paxos. Nor do two whose
//! cluster files list other servers. What proves that a peer is the one that it says it is stands in
//! [`admission`](crate::storage::admission).

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::frame::{FrameError, FrameReader, frame, frame_into, write_before};
use crate::role::{ServerId, ServerSet};

/// How long both sides give each other for the handshake.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
const MAGIC: &[u8; 4] = b"PXKV";
/// The version of everything said on a connection.
const VERSION: u16 = 5;
const PREAMBLE_BYTES: usize = 6;
/// The largest frame of a handshake, in bytes.
pub const HANDSHAKE_FRAME_MAX_BYTES: usize = 1 << 10;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Caller {
    /// A client.
    Client,
    /// A server that will send messages to this one.
    Peer {
        /// Its number.
        server: ServerId,
        /// The id of its data folder.
        storage: u64,
        /// Its life on it.
        life: u32,
        /// Drawn by the process: two lives of one number are one on a folder and one on an old copy of it.
        boot: u64,
        /// Whether it takes part.
        takes_part: bool,
        /// The id of the called server's data folder, if the called server has told it: nobody else knows it.
        knows: Option<u64>,
    },
}

/// The caller's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster that the caller means.
    pub cluster: String,
    /// The server that it means.
    pub to: ServerId,
    /// All servers of that cluster, by the caller's file.
    pub members: ServerSet,
    /// Who it is.
    pub who: Caller,
}

/// What a server says of itself to whom it lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The history of the data that it answers for.
    pub history: u64,
    /// All servers of its cluster.
    pub members: ServerSet,
}

/// The called server's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloReply {
    /// It talks to the caller.
    Welcome(Welcome),
    /// It will, once it has called the peer that the caller says it is, and that one calls again.
    CallYouFirst,
    /// It does not.
    Refused {
        /// A sentence.
        why: String,
    },
}

/// Why two sides do not speak.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// No connection, or it broke.
    #[error("{0}")]
    Broken(#[from] FrameError),
    /// The other side calls back first.
    #[error("it calls back first")]
    CallYouFirst,
    /// The other side does not want to.
    #[error("refused: {0}")]
    Refused(String),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> HandshakeError {
        HandshakeError::Broken(FrameError::Broken(error))
    }
}

/// The first words of every connection.
pub fn preamble() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes
}

/// The caller's words as bytes, for one that does not wait for the [`HelloReply`].
pub fn greeting(hello: &Hello) -> Vec<u8> {
    let mut bytes = preamble();
    frame_into(hello, &mut bytes);
    bytes
}

/// The caller's side: introduces itself, and gives what the server says of itself.
pub fn connect_handshake(stream: &TcpStream, hello: &Hello) -> Result<Welcome, HandshakeError> {
    let deadline = Instant::now() + HANDSHAKE_DEADLINE;
    write_before(stream, &greeting(hello), deadline)?;
    let mut reader = FrameReader::new(stream.try_clone()?, HANDSHAKE_FRAME_MAX_BYTES);
    match reader.read(Some(deadline))? {
        Some(HelloReply::Welcome(welcome)) => Ok(welcome),
        Some(HelloReply::CallYouFirst) => Err(HandshakeError::CallYouFirst),
        Some(HelloReply::Refused { why }) => Err(HandshakeError::Refused(why)),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection").into()),
    }
}

/// The called side: hears who is there, lets `judge` find the answer, and says it. None if the caller went away without
/// a word.
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
        HelloReply::CallYouFirst => Err(HandshakeError::CallYouFirst),
        HelloReply::Refused { why } => Err(HandshakeError::Refused(why)),
    }
}

/// The caller's words.
fn hear(reader: &mut FrameReader, deadline: Instant) -> Result<Option<Hello>, FrameError> {
    let Some(bytes) = reader.read_raw(PREAMBLE_BYTES, deadline)? else { return Ok(None) };
    if bytes[..4] != *MAGIC {
        let length = (PREAMBLE_BYTES + reader.unused()) as u64;
        return Err(FrameError::Malformed { length, what: "this is not the protocol of this store".to_string() });
    }
    let version = u16::from_le_bytes([bytes[4], bytes[5]]);
    if version != VERSION {
        let length = (PREAMBLE_BYTES + reader.unused()) as u64;
        let what = format!("the caller speaks version {version} of the protocol, this server {VERSION}");
        // The words after a foreign version cannot be read, but a refusal can be said.
        write_before(reader.stream(), &frame(&HelloReply::Refused { why: what.clone() }), deadline)?;
        return Err(FrameError::Malformed { length, what });
    }
    reader.read(Some(deadline))
}

/// The last words to a caller that was not even heard.
pub fn reject(stream: &TcpStream, why: &str) {
    // Nobody waits for more than an attempt: a caller that does not read it learns it from the closed connection.
    let deadline = Instant::now() + Duration::from_millis(100);
    let _ = write_before(stream, &frame(&HelloReply::Refused { why: why.to_string() }), deadline);
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
