//! Frames: a connection must give the same values, however the network splits the bytes.

use std::fmt::Debug;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde::de::DeserializeOwned;

use paxos_kv::choices::Choices;
use paxos_kv::net::{
    CLIENT_FRAME_MAX_BYTES, ClientReply, ClientRequest, Envelope, FrameError, FrameReader, PEER_FRAME_MAX_BYTES, frame,
    unframe,
};

/// The header of a frame: length and checksum of the length (8 bytes), then the checksum of the payload (4 bytes).
const LENGTH_BYTES: usize = 8;
pub(super) const HEADER_BYTES: usize = 12;

/// The end of a stream of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamEnd {
    /// Between two frames.
    Clean,
    /// In the middle of a frame.
    Cut,
    /// At bytes that are no valid frame.
    Malformed,
}

/// A stream of frames, read at once, in pieces, and frame by frame.
pub fn frames(bytes: &[u8]) {
    let mut source = Choices::new(bytes);
    let (kind, piece) = (source.byte(), 1 + usize::from(source.byte()));
    let stream = if kind & 0x80 == 0 { make_stream(source) } else { source.rest().to_vec() };
    match kind % 3 {
        0 => check_frames::<Envelope>(&stream, PEER_FRAME_MAX_BYTES, piece),
        1 => check_frames::<ClientRequest>(&stream, CLIENT_FRAME_MAX_BYTES, piece),
        _ => check_frames::<ClientReply>(&stream, CLIENT_FRAME_MAX_BYTES, piece),
    }
}

/// Payloads as frames with right lengths and checksums.
fn make_stream(mut source: Choices<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    while !source.is_empty() {
        put_frame(source.bytes(), &mut stream);
    }
    stream
}

/// Appends a payload as a frame with right length and checksums.
pub(super) fn put_frame(payload: &[u8], stream: &mut Vec<u8>) {
    let length = (payload.len() as u32).to_le_bytes();
    for part in [&length, &crc32c::crc32c(&length).to_le_bytes(), &crc32c::crc32c(payload).to_le_bytes(), payload] {
        stream.extend_from_slice(part);
    }
}

fn check_frames<T: Debug + PartialEq + Serialize + DeserializeOwned>(stream: &[u8], limit: usize, piece: usize) {
    let (values, end) = one_by_one::<T>(stream, limit);
    for value in &values {
        let again: T =
            unframe(&frame(value), limit.max(stream.len())).expect("a frame that was read can be sent again");
        assert_eq!(again, *value);
    }
    let (at_once, is_clean) = read_at_once::<T>(stream, limit);
    assert_eq!((&at_once, is_clean), (&values, end == StreamEnd::Clean), "read at once");
    let in_pieces = read_in_pieces::<T>(stream, limit, piece);
    assert_eq!(in_pieces, (values, end), "read in pieces of {piece}");
}

/// Decodes frames by the definition of the format.
fn one_by_one<T: DeserializeOwned>(mut stream: &[u8], limit: usize) -> (Vec<T>, StreamEnd) {
    let mut values = Vec::new();
    while let Some(length) = stream.first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        if stream.len() < LENGTH_BYTES {
            break;
        }
        if length > limit || crc32c::crc32c(&stream[..4]).to_le_bytes() != stream[4..LENGTH_BYTES] {
            return (values, StreamEnd::Malformed);
        }
        let Some((frame, rest)) = stream.split_at_checked(HEADER_BYTES + length) else { break };
        match unframe(frame, limit) {
            Ok(value) => values.push(value),
            Err(_) => return (values, StreamEnd::Malformed),
        }
        stream = rest;
    }
    (values, if stream.is_empty() { StreamEnd::Clean } else { StreamEnd::Cut })
}

/// Both ends of a connection. It is a Unix socket, but its users see no difference to TCP.
pub(super) fn connection() -> (TcpStream, TcpStream) {
    let (one, other) = UnixStream::pair().expect("a pair of sockets can be made");
    (TcpStream::from(OwnedFd::from(one)), TcpStream::from(OwnedFd::from(other)))
}

fn read_at_once<T: DeserializeOwned>(stream: &[u8], limit: usize) -> (Vec<T>, bool) {
    let (mut to, from) = connection();
    to.write_all(stream).expect("a small stream fits into a socket");
    to.shutdown(Shutdown::Write).expect("a connection can be closed");
    let mut reader = FrameReader::new(from, limit);
    let mut values = Vec::new();
    loop {
        match reader.read(None) {
            Ok(Some(value)) => values.push(value),
            Ok(None) => return (values, true),
            Err(FrameError::Malformed { .. }) => return (values, false),
            Err(other) => panic!("{other}"),
        }
    }
}

fn read_in_pieces<T: DeserializeOwned>(stream: &[u8], limit: usize, piece: usize) -> (Vec<T>, StreamEnd) {
    let (mut to, from) = connection();
    from.set_nonblocking(true).expect("a socket can be set to non-blocking mode");
    let mut reader = FrameReader::new(from, limit);
    let mut values = Vec::new();
    for piece in stream.chunks(piece) {
        to.write_all(piece).expect("a small stream fits into a socket");
        assert!(reader.receive_now().expect("a piece has come").is_some_and(|count| count > 0));
        loop {
            let is_here = reader.has_frame();
            match reader.next_received() {
                Ok(Some(value)) => values.push(value),
                Ok(None) => break assert!(!is_here),
                Err(FrameError::Malformed { .. }) => return (values, StreamEnd::Malformed),
                Err(other) => panic!("{other}"),
            }
        }
    }
    drop(to);
    assert_eq!(reader.receive_now().expect("the end has come"), Some(0));
    (values, if reader.has_more() { StreamEnd::Cut } else { StreamEnd::Clean })
}
