//! A one-way link to a peer: a bounded queue and a thread that writes it to a connection.
//!
//! Each server dials every other for what it sends. A link never blocks its users and never keeps a message for later:
//! what finds the queue full or the connection down is dropped, and Paxos sends again.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::handshake::{HandshakeError, Hello, greet};

/// A link's queue holds at most so many frames.
const QUEUE_MAX: usize = 1_024;
/// A link's queue holds at most so many bytes.
const QUEUE_MAX_BYTES: usize = 16 << 20;
/// So many bytes go into one write at most, unless a single frame has more.
const WRITE_BYTES: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that takes nothing for so long is treated as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Waits between attempts to connect grow from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// What happened to a link.
#[derive(Debug)]
pub enum LinkState<'a> {
    /// Connected; the peer's storage id.
    Up(u64),
    /// The connection broke.
    Down(&'a std::io::Error),
    /// The peer was reached and does not want to talk, or is not who it should be.
    Refused(&'a str),
}

/// The sending end.
#[derive(Clone, Debug)]
pub struct Link {
    queue: Sender<Arc<[u8]>>,
    queued_bytes: Arc<AtomicUsize>,
    up: Arc<AtomicBool>,
}

impl Link {
    /// Starts the thread of a link. `judge` hears of every change, and may refuse a peer by its storage id.
    pub fn start(
        name: String,
        address: SocketAddr,
        hello: Hello,
        judge: impl FnMut(LinkState<'_>) -> Result<(), String> + Send + 'static,
    ) -> std::io::Result<Link> {
        let (queue, frames) = bounded(QUEUE_MAX);
        let link = Link { queue, queued_bytes: Arc::default(), up: Arc::default() };
        let (queued_bytes, up) = (link.queued_bytes.clone(), link.up.clone());
        let writer = Writer { address, hello, frames, queued_bytes, up };
        std::thread::Builder::new().name(name).spawn(move || writer.run(judge))?;
        Ok(link)
    }

    /// Queues a frame; false if it was dropped.
    pub fn send(&self, frame: Arc<[u8]>) -> bool {
        let length = frame.len();
        if !self.up.load(Ordering::Relaxed) || self.queued_bytes.load(Ordering::Relaxed) + length > QUEUE_MAX_BYTES {
            return false;
        }
        self.queued_bytes.fetch_add(length, Ordering::Relaxed);
        match self.queue.try_send(frame) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.queued_bytes.fetch_sub(length, Ordering::Relaxed);
                false
            }
        }
    }
}

/// The thread's end.
struct Writer {
    address: SocketAddr,
    hello: Hello,
    frames: Receiver<Arc<[u8]>>,
    queued_bytes: Arc<AtomicUsize>,
    up: Arc<AtomicBool>,
}

impl Writer {
    /// Connects, writes until the connection breaks, and begins again; ends with the last [`Link`].
    fn run(self, mut judge: impl FnMut(LinkState<'_>) -> Result<(), String>) {
        let mut backoff = BACKOFF.0;
        let mut refused = None;
        loop {
            match self.connect(&mut judge) {
                Ok(stream) => {
                    backoff = BACKOFF.0;
                    refused = None;
                    self.up.store(true, Ordering::Relaxed);
                    let ended = self.write(stream);
                    self.up.store(false, Ordering::Relaxed);
                    let Err(error) = ended else { return };
                    // A broken connection is news, not a question.
                    let _ = judge(LinkState::Down(&error));
                }
                Err(HandshakeError::Refused(why)) if refused.as_ref() != Some(&why) => {
                    let _ = judge(LinkState::Refused(&why));
                    refused = Some(why);
                }
                Err(_) => {}
            }
            if !self.drop_frames_for(backoff) {
                return;
            }
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    fn connect(
        &self,
        judge: &mut impl FnMut(LinkState<'_>) -> Result<(), String>,
    ) -> Result<TcpStream, HandshakeError> {
        let stream = TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        let storage = greet(&stream, &self.hello)?;
        judge(LinkState::Up(storage)).map_err(HandshakeError::Refused)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(stream)
    }

    /// Writes what comes, as much as there is at a time; ends with an error, or when nobody holds the link.
    fn write(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        while let Ok(first) = self.frames.recv() {
            bytes.clear();
            for frame in std::iter::once(first).chain(self.frames.try_iter()) {
                self.queued_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
                bytes.extend_from_slice(&frame);
                if bytes.len() >= WRITE_BYTES {
                    break;
                }
            }
            stream.write_all(&bytes)?;
        }
        Ok(())
    }

    /// Waits, dropping what was queued before the connection broke; false if nobody holds the link.
    fn drop_frames_for(&self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        loop {
            match self.frames.recv_deadline(deadline) {
                Ok(frame) => {
                    self.queued_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
                }
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => return true,
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}
