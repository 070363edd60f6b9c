//! One connection through the proxy: two sockets, and a pump for each direction.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::SockRef;

use super::frames::{FrameSplitter, StreamPiece};
use super::link_faults::{DirectionFaults, LinkEffect, SharedReplayBuffer};
use paxos_kv::random::Random;

/// Maximum number of bytes that are read at a time, and held while they wait.
const PART_BYTES: usize = 32 << 10;
/// Interval at which a pump whose receiver accepts nothing checks whether its connection still exists.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The two sockets of a proxied connection.
#[derive(Debug)]
pub struct ProxyConnection {
    caller: TcpStream,
    called: TcpStream,
    /// Some of its bytes were swallowed, so the stream can never be valid again.
    has_dropped_bytes: AtomicBool,
    is_broken: AtomicBool,
}

impl ProxyConnection {
    /// A connection from the caller's socket and the proxy's own socket to the called side.
    pub fn new(caller: TcpStream, called: TcpStream) -> std::io::Result<ProxyConnection> {
        for stream in [&caller, &called] {
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(CHECK_INTERVAL))?;
        }
        Ok(ProxyConnection {
            caller,
            called,
            has_dropped_bytes: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
        })
    }

    /// Whether some of its bytes were swallowed.
    pub fn has_dropped_bytes(&self) -> bool {
        self.has_dropped_bytes.load(Ordering::Relaxed)
    }

    /// Whether it has ended.
    pub fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }

    /// Ends it with a reset on both sides, as soon as its pumps have released it.
    pub fn reset(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
        for stream in [&self.caller, &self.called] {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            // This sends nothing to the other side, and wakes the pump.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    /// Ends it as if each side had closed it.
    fn close(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
        for stream in [&self.caller, &self.called] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Forwards the bytes of one direction.
pub struct DirectionPump {
    /// The connection that it serves.
    pub connection: Arc<ProxyConnection>,
    /// Whether it forwards from the caller to the called side; otherwise it forwards the replies.
    pub forward: bool,
    /// The link faults of this direction.
    pub faults: Arc<DirectionFaults>,
    /// Buffer of earlier messages, if messages may be repeated.
    pub replay_buffer: Option<Arc<SharedReplayBuffer>>,
    /// Source of the random choices.
    pub random: Random,
    /// Number of the fault plus 1, and the bytes forwarded since that fault began to count them.
    pub break_count: (usize, u64),
}

impl DirectionPump {
    /// Forwards bytes until one side, or a link fault, ends the connection.
    pub fn run(mut self) {
        let connection = self.connection.clone();
        let mut source = if self.forward { &connection.caller } else { &connection.called };
        let target = if self.forward { &connection.called } else { &connection.caller };
        let mut splitter = self.replay_buffer.is_some().then(FrameSplitter::default);
        let mut buffer = vec![0; PART_BYTES];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => {
                    // A black hole must hide a reset too.
                    self.faults.await_no_cut(|| connection.is_broken());
                    return connection.reset();
                }
            };
            let Some(splitter) = &mut splitter else {
                if !self.pass(target, buffer[..count].to_vec()) {
                    return;
                }
                continue;
            };
            splitter.push(&buffer[..count]);
            while let Some(piece) = splitter.next() {
                let went = match piece {
                    StreamPiece::Bytes(bytes) => self.pass(target, bytes),
                    StreamPiece::Frame(frame) => self.pass_frame(target, frame),
                };
                if !went {
                    return;
                }
            }
        }
        if self.faults.await_no_cut(|| connection.is_broken()) && !connection.has_dropped_bytes() {
            let _ = target.shutdown(Shutdown::Write);
        }
    }

    /// Forwards a message, perhaps twice, perhaps followed by an old one.
    fn pass_frame(&mut self, target: &TcpStream, frame: Vec<u8>) -> bool {
        let per_mille = self.faults.effects().into_iter().find_map(|(_, effect)| match effect {
            LinkEffect::Repeat { per_mille } => Some(per_mille),
            _ => None,
        });
        let twice = per_mille.is_some_and(|n| self.random.within(0..=999) < n);
        let old = per_mille.is_some_and(|n| self.random.within(0..=999) < n);
        let random = &mut self.random;
        let draw = |len: usize| (old && len > 0).then(|| random.within(0..=len as u64 - 1) as usize);
        let again = self.replay_buffer.as_ref().and_then(|memory| memory.keep_and_replay(&frame, draw));
        let copies = [twice.then(|| frame.clone()), again];
        self.pass(target, frame) && copies.into_iter().flatten().all(|copy| self.pass(target, copy))
    }

    /// Forwards some bytes, after the link faults are applied; false if the connection has ended.
    fn pass(&mut self, target: &TcpStream, mut bytes: Vec<u8>) -> bool {
        let connection = self.connection.clone();
        if !self.faults.await_not_held(|| connection.is_broken()) {
            return false;
        }
        for (strike, effect) in self.faults.effects() {
            match effect {
                // This fault began after the wait above; it applies to the next part.
                LinkEffect::Hold | LinkEffect::Repeat { .. } => {}
                LinkEffect::Drop => {
                    connection.has_dropped_bytes.store(true, Ordering::Relaxed);
                    return true;
                }
                LinkEffect::Slow { delay, jitter } => {
                    let more = self.random.within(0..=jitter.as_micros() as u64);
                    std::thread::sleep(delay + Duration::from_micros(more));
                }
                LinkEffect::LimitRate { bytes_per_second } => {
                    let takes = Duration::from_secs(1).mul_f64(bytes.len() as f64 / bytes_per_second.max(1) as f64);
                    std::thread::sleep(takes.min(Duration::from_secs(2)));
                }
                LinkEffect::Corrupt { per_mille } => {
                    if self.random.within(0..=999) < per_mille && !bytes.is_empty() {
                        let bit = self.random.within(0..=bytes.len() as u64 * 8 - 1);
                        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
                    }
                }
                LinkEffect::Break { after, with_reset: abruptly } => {
                    if self.break_count.0 != strike + 1 {
                        self.break_count = (strike + 1, 0);
                    }
                    self.break_count.1 += bytes.len() as u64;
                    if let Some(beyond) = self.break_count.1.checked_sub(after) {
                        bytes.truncate(bytes.len().saturating_sub(beyond as usize));
                        self.write(target, &bytes);
                        if abruptly {
                            connection.reset()
                        } else {
                            connection.close()
                        }
                        return false;
                    }
                }
            }
        }
        // Bytes are missing after a black hole, so the stream is useless.
        if connection.has_dropped_bytes() {
            connection.reset();
            return false;
        }
        self.write(target, &bytes)
    }

    fn write(&self, mut target: &TcpStream, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match target.write(bytes) {
                Ok(count) if count > 0 => bytes = &bytes[count..],
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {
                    if self.connection.is_broken() {
                        return false;
                    }
                }
                _ => {
                    self.connection.reset();
                    return false;
                }
            }
        }
        true
    }
}
