//! Frames: `u32 length, u32 crc32c of the length, u32 crc32c of the payload, payload`, little endian. The payload is
//! one encoded value.
//!
//! Every part of a frame is checked before it is used. The length is checked against a limit before memory is
//! allocated, and the checksum before the payload is decoded. The payload must have no trailing bytes. The length has
//! its own checksum: with a wrong length, a reader would take later frames for payload and stall. A frame has one
//! deadline as a whole, from its first byte. So a peer that sends a byte now and then cannot hold a thread forever.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{SendFlags, send};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::codec;

/// The largest payload between a client and a server, in bytes.
pub const CLIENT_FRAME_MAX_BYTES: usize = 2 << 20;
/// The largest payload between servers, in bytes.
pub const PEER_FRAME_MAX_BYTES: usize = 4 << 20;
/// Maximum time for a frame, from its first byte to its last.
pub const FRAME_DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of the payload's length and its checksum.
const LENGTH_BYTES: usize = 8;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 12;
/// The first buffer of a connection, in bytes: most requests are small, and many connections are idle.
pub const FIRST_BUFFER_BYTES: usize = 4 << 10;
/// A full buffer grows by at most this number of bytes at a time, so a false length costs no more memory. A larger
/// buffer is released when it is empty.
const READ_BYTES: usize = 64 << 10;
/// Waits shorter than this end on time, longer ones within a second.
const FINE: Duration = Duration::from_secs(5);

/// Why no frame could be read.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The bytes are not a valid frame.
    #[error("{what}")]
    Malformed {
        /// Bytes received of it, or the length that an oversized frame announced.
        length: u64,
        /// What is wrong.
        what: String,
    },
    /// The deadline has passed.
    #[error("no complete frame within {:.1} s ({received} bytes arrived)", waited.as_secs_f64())]
    TimedOut {
        /// Bytes received of the frame.
        received: usize,
        /// How long the reader waited for it.
        waited: Duration,
    },
    /// Too many other connections send frames at the same time.
    #[error("no memory for the rest of a frame ({received} bytes arrived)")]
    NoSpace {
        /// Bytes received of the frame.
        received: usize,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
}

/// Grants a reader its buffer memory. A reader without one grows up to its limit.
pub trait Allowance: std::fmt::Debug + Send {
    /// Requests this number of bytes for the buffer. May wait; false if there is no room for them.
    fn grow(&mut self, bytes: usize) -> bool;
    /// A frame of `frame` bytes is used up, and the buffer has `returned` bytes less.
    fn frame_done(&mut self, frame: usize, returned: usize);
    /// Whether the connection was closed to make room for others.
    fn is_closed(&self) -> bool;
}

/// Appends a value as a frame.
pub fn frame_into<T: Serialize>(value: &T, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; HEADER_BYTES]);
    codec::encode_into(value, bytes);
    let header = header(&bytes[start + HEADER_BYTES..]);
    bytes[start..start + HEADER_BYTES].copy_from_slice(&header);
}

/// The header of a payload.
pub fn header(payload: &[u8]) -> [u8; HEADER_BYTES] {
    let length = (payload.len() as u32).to_le_bytes();
    let mut header = [0; HEADER_BYTES];
    for (at, word) in
        [length, crc32c::crc32c(&length).to_le_bytes(), crc32c::crc32c(payload).to_le_bytes()].into_iter().enumerate()
    {
        header[4 * at..4 * at + 4].copy_from_slice(&word);
    }
    header
}

/// A value as a frame.
pub fn frame<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame_into(value, &mut bytes);
    bytes
}

/// The value in bytes that must be exactly one frame, with a payload of at most `limit` bytes.
pub fn unframe<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, FrameError> {
    let malformed = |what: &str| FrameError::Malformed { length: bytes.len() as u64, what: what.to_string() };
    if bytes.len() < HEADER_BYTES {
        return Err(malformed("the frame header is incomplete"));
    }
    if bytes.len() != HEADER_BYTES + announced(bytes, limit)? {
        return Err(malformed("the length of the frame differs from its header"));
    }
    open(bytes)
}

/// The length of the payload, from the first [`LENGTH_BYTES`] of the header.
fn announced(header: &[u8], limit: usize) -> Result<usize, FrameError> {
    let length = number(header, 0) as usize;
    if length > limit {
        let what = format!("the frame header announces {length} bytes; the maximum is {limit}");
        return Err(FrameError::Malformed { length: length as u64, what });
    }
    if crc32c::crc32c(&header[..4]) != number(header, 4) {
        let what = "wrong checksum of the frame length".to_string();
        return Err(FrameError::Malformed { length: header.len() as u64, what });
    }
    Ok(length)
}

/// The value in a frame of the right length.
fn open<T: DeserializeOwned>(frame: &[u8]) -> Result<T, FrameError> {
    let payload = &frame[HEADER_BYTES..];
    let malformed = |what| FrameError::Malformed { length: frame.len() as u64, what };
    if crc32c::crc32c(payload) != number(frame, 8) {
        return Err(malformed("wrong checksum of the frame".to_string()));
    }
    codec::decode(payload).map_err(|error| malformed(error.to_string()))
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// Writes all bytes before the deadline, however slowly the other end reads. (A socket's own time-out is per call, so
/// each call sets it again.)
pub fn write_before(mut stream: &TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the other side did not read all bytes in time"));
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            // The loop's condition handles a time-out.
            Err(error) if error.kind() == io::ErrorKind::Interrupted || is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Never waits, and raises no SIGPIPE. On macOS the standard library sets that for each socket.
#[cfg(target_os = "linux")]
const SEND_NOW: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
#[cfg(not(target_os = "linux"))]
const SEND_NOW: SendFlags = SendFlags::DONTWAIT;

/// Writes the bytes that the socket takes at once, perhaps none; never waits.
pub fn write_now(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match send(stream, bytes, SEND_NOW).map_err(io::Error::from) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            outcome => return outcome,
        }
    }
}

/// Reads frames from a connection. Its buffer has 4 KiB and grows only when it is full, by 64 KiB at a time. It grows
/// up to a frame and the 64 KiB of one read.
#[derive(Debug)]
pub struct FrameReader {
    stream: Arc<TcpStream>,
    buffer: Vec<u8>,
    /// The bytes received and not yet used are `buffer[start..end]`.
    start: usize,
    end: usize,
    limit: usize,
    /// The length of the last frame read.
    last: usize,
    /// The socket's own time-out for reads; None if it is unknown.
    timeout: Option<Option<Duration>>,
    allowance: Option<Box<dyn Allowance>>,
}

impl FrameReader {
    /// A reader of frames whose payload has at most `limit` bytes.
    pub fn new(stream: impl Into<Arc<TcpStream>>, limit: usize) -> FrameReader {
        // The previous user of the socket may have left a time-out.
        let (stream, buffer) = (stream.into(), Vec::new());
        FrameReader { stream, buffer, start: 0, end: 0, limit, last: 0, timeout: None, allowance: None }
    }

    /// Requests buffer memory from this allowance from now on. So far the reader has read at most a handshake.
    pub fn set_allowance(&mut self, mut allowance: Box<dyn Allowance>) {
        // Every connection is granted what a handshake takes.
        allowance.grow(self.buffer.len());
        self.allowance = Some(allowance);
    }

    /// Sets the maximum payload size: it is larger once the two sides have identified themselves.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The connection.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The connection, to be shared with a writer.
    pub fn shared_stream(&self) -> Arc<TcpStream> {
        self.stream.clone()
    }

    /// Whether the next [`FrameReader::read`] has a whole frame and will not wait.
    pub fn has_frame(&self) -> bool {
        let bytes = &self.buffer[self.start..self.end];
        bytes.len() >= HEADER_BYTES
            && announced(bytes, self.limit).is_ok_and(|length| bytes.len() >= HEADER_BYTES + length)
    }

    /// Whether bytes of a next frame have been received.
    pub fn has_more(&self) -> bool {
        self.unused() > 0
    }

    /// The next value; None if the connection was closed between two frames. Waits for the first byte until `idle`
    /// (forever if None), and for the whole frame at most [`FRAME_DEADLINE`].
    pub fn read<T: DeserializeOwned>(&mut self, idle: Option<Instant>) -> Result<Option<T>, FrameError> {
        if !self.await_first(idle)? {
            return Ok(None);
        }
        if !self.has_frame() {
            let started = Instant::now();
            let whole = started + FRAME_DEADLINE;
            let deadline = idle.map_or(whole, |idle| idle.min(whole));
            self.await_bytes(LENGTH_BYTES, started, deadline)?;
            let length = announced(&self.buffer[self.start..self.end], self.limit)?;
            self.await_bytes(HEADER_BYTES + length, started, deadline)?;
        }
        self.take().map(Some)
    }

    /// Reads once from a non-blocking socket; None if no bytes are available, 0 at the end of the connection. Bytes
    /// that do not fit into the buffer stay for the next call.
    pub fn receive_now(&mut self) -> io::Result<Option<usize>> {
        self.make_room()?;
        loop {
            match (&*self.stream).read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(Some(count));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// The next value among the bytes received; None if there is no whole frame.
    pub fn next_received<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        if self.has_frame() {
            return self.take().map(Some);
        }
        if self.unused() >= LENGTH_BYTES {
            announced(&self.buffer[self.start..self.end], self.limit)?;
        }
        Ok(None)
    }

    /// The value of a frame that was received as a whole.
    fn take<T: DeserializeOwned>(&mut self) -> Result<T, FrameError> {
        let length = HEADER_BYTES + announced(&self.buffer[self.start..self.end], self.limit)?;
        let value = open(&self.buffer[self.start..self.start + length])?;
        self.last = length;
        self.use_up(length);
        Ok(value)
    }

    /// Exactly `count` raw bytes, before any frame; None if the connection was closed before the first.
    pub fn read_raw(&mut self, count: usize, deadline: Instant) -> Result<Option<Vec<u8>>, FrameError> {
        if !self.await_first(Some(deadline))? {
            return Ok(None);
        }
        self.await_bytes(count, Instant::now(), deadline)?;
        let bytes = self.buffer[self.start..self.start + count].to_vec();
        self.use_up(count);
        Ok(Some(bytes))
    }

    /// Number of bytes received and not yet used.
    pub fn unused(&self) -> usize {
        self.end - self.start
    }

    /// Length of the last frame in bytes, its header included.
    pub fn last_frame_bytes(&self) -> u64 {
        self.last as u64
    }

    fn use_up(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let returned = self.shrink_buffer();
        if let Some(allowance) = &mut self.allowance {
            allowance.frame_done(count, returned);
        }
    }

    /// Shrinks the buffer and returns the number of bytes released. Memory that other connections could use is not
    /// kept: neither by an empty buffer, nor for a next frame that does not need it. The buffer shrinks to half or
    /// less; otherwise many small frames in a large buffer would be moved again for each of them.
    fn shrink_buffer(&mut self) -> usize {
        let (size, unused) = (self.buffer.len(), self.unused());
        let kept = if self.allowance.is_some() { FIRST_BUFFER_BYTES } else { READ_BYTES };
        if size <= kept {
            return 0;
        }
        let is_needed = match self.allowance {
            Some(_) => unused + self.missing() > kept.max(size / 2),
            None => unused > 0,
        };
        if is_needed {
            return 0;
        }
        let mut smaller = Vec::new();
        if unused > 0 {
            smaller.resize(unused.max(kept), 0);
            smaller[..unused].copy_from_slice(&self.buffer[self.start..self.end]);
        }
        (self.buffer, self.start, self.end) = (smaller, 0, unused);
        size - self.buffer.len()
    }

    /// Waits for the first byte; false at the end of the connection.
    fn await_first(&mut self, deadline: Option<Instant>) -> Result<bool, FrameError> {
        let started = Instant::now();
        Ok(self.has_more() || self.fill(deadline).map_err(|error| self.failure(error, started))? > 0)
    }

    /// Waits until `count` bytes of a started frame are here.
    fn await_bytes(&mut self, count: usize, started: Instant, deadline: Instant) -> Result<(), FrameError> {
        while self.unused() < count {
            if self.fill(Some(deadline)).map_err(|error| self.failure(error, started))? == 0 {
                if self.allowance.as_ref().is_some_and(|allowance| allowance.is_closed()) {
                    return Err(FrameError::NoSpace { received: self.unused() });
                }
                let what = format!("the connection was closed after {} of {count} bytes", self.unused());
                return Err(FrameError::Malformed { length: self.unused() as u64, what });
            }
        }
        Ok(())
    }

    fn failure(&self, error: io::Error, started: Instant) -> FrameError {
        if is_timeout(&error) {
            FrameError::TimedOut { received: self.unused(), waited: started.elapsed() }
        } else if error.kind() == io::ErrorKind::OutOfMemory {
            FrameError::NoSpace { received: self.unused() }
        } else {
            FrameError::Broken(error)
        }
    }

    /// Reads available bytes, at least one; 0 at the end of the connection.
    fn fill(&mut self, deadline: Option<Instant>) -> io::Result<usize> {
        self.make_room()?;
        let count = self.read_until(deadline)?;
        self.end += count;
        Ok(count)
    }

    /// Number of bytes that are missing of the started frame, if its length is known.
    fn missing(&self) -> usize {
        let bytes = &self.buffer[self.start..self.end];
        let length = if bytes.len() < LENGTH_BYTES { None } else { announced(bytes, self.limit).ok() };
        length.map_or(0, |length| (HEADER_BYTES + length).saturating_sub(bytes.len()))
    }

    fn make_room(&mut self) -> io::Result<()> {
        if self.end == self.buffer.len() && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            let more = self.end.clamp(FIRST_BUFFER_BYTES, READ_BYTES).max(self.missing().min(READ_BYTES));
            if self.allowance.as_mut().is_some_and(|allowance| !allowance.grow(more)) {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            self.buffer.resize(self.end + more, 0);
        }
        Ok(())
    }

    /// One read that ends at the deadline. (A socket's own time-out is per call, so it is set again when it differs
    /// from the one wanted. It may fire a little late, and the loop then ends at its condition. With minutes left, this
    /// saves a system call before each read.)
    fn read_until(&mut self, deadline: Option<Instant>) -> io::Result<usize> {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let wanted = left.map(|left| if left < FINE { left } else { Duration::from_secs(left.as_secs() + 1) });
            if self.timeout != Some(wanted) {
                self.stream.set_read_timeout(wanted)?;
                self.timeout = Some(wanted);
            }
            match (&*self.stream).read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted || is_timeout(&error) => {}
                outcome => return outcome,
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
