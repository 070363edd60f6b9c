//! A one-way link to a peer: a bounded queue and a thread that writes it to a connection.
//!
//! Each server dials every other for what it sends. A link never blocks its users and never keeps a message for later:
//! what finds the queue full or the connection down is dropped, and Paxos sends again.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use socket2::SockRef;

use super::handshake::{HandshakeError, Hello, greet};

/// A link's queue holds at most so many frames.
const QUEUE_MAX: usize = 1_024;
/// A link's queue holds at most so many bytes.
const QUEUE_MAX_BYTES: usize = 16 << 20;
/// So many bytes go into one write at most, unless a single frame has more.
const WRITE_BYTES: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that takes nothing for so long, or does not say that it has received what was sent, is treated as gone.
const PEER_TIMEOUT: Duration = Duration::from_secs(5);
/// Waits between attempts to connect grow from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// Who was refused asks again only now and then: somebody has to do something about it first. (Tests need not wait.)
const REFUSED_BACKOFF: Duration = if cfg!(test) { BACKOFF.0 } else { Duration::from_secs(2) };
/// A connection that breaks sooner has not been one: the next attempt waits as after a failed one.
const STEADY: Duration = Duration::from_secs(1);

/// What happened to a link.
#[derive(Debug)]
pub enum LinkState<'a> {
    /// Connected.
    Up,
    /// The connection broke.
    Down(&'a std::io::Error),
    /// One of the two does not want to talk to the other. Told once, until the reason is another or the link was up.
    Refused(&'a str),
}

/// Whoever a link reports to, from its own thread.
pub trait Watcher: Send + 'static {
    /// Judges the peer that was reached by the id of its data folder.
    fn check(&mut self, storage: u64) -> Result<(), String>;

    /// The link has changed.
    fn changed(&mut self, state: LinkState<'_>);
}

/// The sending end.
#[derive(Clone, Debug)]
pub struct Link {
    queue: Sender<Arc<[u8]>>,
    queued_bytes: Arc<AtomicUsize>,
    up: Arc<AtomicBool>,
}

impl Link {
    /// Starts the thread of a link to this address; it ends when nobody holds the link.
    pub fn start(name: String, address: SocketAddr, hello: Hello, watcher: impl Watcher) -> std::io::Result<Link> {
        let (queue, frames) = bounded(QUEUE_MAX);
        let link = Link { queue, queued_bytes: Arc::default(), up: Arc::default() };
        let (queued_bytes, up) = (link.queued_bytes.clone(), link.up.clone());
        let writer = Writer { address, hello, frames, queued_bytes, up, watcher };
        std::thread::Builder::new().name(name).spawn(move || writer.run())?;
        Ok(link)
    }

    /// Queues a frame; false if it was dropped.
    pub fn send(&self, frame: Arc<[u8]>) -> bool {
        if !self.up.load(Ordering::Relaxed) {
            return false;
        }
        let length = frame.len();
        // Taken first and given back if it was too much: two senders cannot both have the last of the room.
        let has_room = self.queued_bytes.fetch_add(length, Ordering::Relaxed) + length <= QUEUE_MAX_BYTES;
        let queued = has_room
            && match self.queue.try_send(frame) {
                Ok(()) => true,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
            };
        if !queued {
            self.queued_bytes.fetch_sub(length, Ordering::Relaxed);
        }
        queued
    }
}

/// The thread's end.
struct Writer<W> {
    address: SocketAddr,
    hello: Hello,
    frames: Receiver<Arc<[u8]>>,
    queued_bytes: Arc<AtomicUsize>,
    up: Arc<AtomicBool>,
    watcher: W,
}

impl<W: Watcher> Writer<W> {
    /// Connects, writes until the connection breaks, and begins again; ends with the last [`Link`].
    fn run(mut self) {
        let mut backoff = BACKOFF.0;
        let mut refused = None;
        loop {
            let mut wait = backoff;
            match self.connect() {
                Ok(stream) => {
                    let since = Instant::now();
                    refused = None;
                    self.up.store(true, Ordering::Relaxed);
                    self.watcher.changed(LinkState::Up);
                    let ended = self.write(stream);
                    self.up.store(false, Ordering::Relaxed);
                    let Err(error) = ended else { return };
                    self.watcher.changed(LinkState::Down(&error));
                    if since.elapsed() >= STEADY {
                        (backoff, wait) = (BACKOFF.0, BACKOFF.0);
                    }
                }
                Err(HandshakeError::Refused(why)) => {
                    if refused.as_ref() != Some(&why) {
                        self.watcher.changed(LinkState::Refused(&why));
                        refused = Some(why);
                    }
                    wait = REFUSED_BACKOFF;
                }
                // Nobody is there: that is no news after the link went down.
                Err(HandshakeError::Broken(_)) => {}
            }
            if !self.drop_frames_for(wait) {
                return;
            }
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    fn connect(&mut self) -> Result<TcpStream, HandshakeError> {
        let stream = TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        let storage = greet(&stream, &self.hello)?;
        self.watcher.check(storage).map_err(HandshakeError::Refused)?;
        stream.set_write_timeout(Some(PEER_TIMEOUT))?;
        // A network that swallows everything breaks no connection by itself, and keeps the socket's buffer from filling for
        // hours: without this the link would stay "up", and after the network is back wait for minutes to send again.
        SockRef::from(&stream).set_tcp_user_timeout(Some(PEER_TIMEOUT))?;
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
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
