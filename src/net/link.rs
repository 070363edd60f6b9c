//! A one-way link to a peer: senders write to the connection, and no sender waits for the peer.
//!
//! Each server dials every other server for the messages that it sends. Frames are collected with [`Link::push`].
//! [`Link::flush`] sends them with one write, up to what the socket takes at once: passing them to another thread would
//! cost more than the write. The rest is left to the link's own thread, which also connects and reconnects. A link
//! never keeps a message for a later connection. If the link is down or full, the message is dropped, and Paxos sends
//! it again.
//!
//! Control messages have their own queue, and go before bulk that is not started. So that they need not wait for
//! megabytes in the system's buffers, little is written at a time.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::dial::dial;
use super::frame::write_now;
use super::handshake::{HandshakeError, Hello, Welcome, connect_handshake};
use super::thread_group::{ThreadGroup, WatchedSocket};
use crate::role::Lane;

/// Maximum number of bytes of bulk that wait for the peer; further bulk is dropped.
pub const BULK_MAX_BYTES: usize = 16 << 20;
/// Maximum number of bytes of control messages that wait for the peer.
pub const CONTROL_MAX_BYTES: usize = 1 << 20;
/// Bulk frames are started until this number of bytes is reached; a control message waits for no more than these. On a
/// link of 350 kB a second they take 190 ms, less than a follower's election time-out.
pub const IN_FLIGHT_BULK_BYTES: usize = 64 << 10;
/// Approximate number of unsent bytes in the system's buffer.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 64 << 10;
/// A larger buffer is released when it is empty, in bytes.
const KEEP_BYTES: usize = 256 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that accepts or acknowledges no bytes for this time is treated as gone.
const PEER_TIMEOUT: Duration = Duration::from_secs(5);

/// How an attempt to connect, or a connection, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEnded<'a> {
    /// The link was up, and broke.
    Broken {
        /// The reason.
        why: &'a str,
        /// How long it was up.
        after: Duration,
    },
    /// One of the two servers refused the other.
    Refused(&'a str),
    /// The peer calls back first.
    CallBackFirst,
    /// There was no connection or no reply.
    Unanswered,
}

/// How long to wait before the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// At least this long; the next attempt then starts at once if there is news of the peer.
    pub least: Duration,
    /// At most this long.
    pub most: Duration,
}

/// Makes the decisions of a link, in the link's thread.
pub trait LinkObserver: Send + 'static {
    /// The caller's message for the next handshake.
    fn hello(&mut self) -> Hello;

    /// The peer has accepted this server: decides whether this server accepts the peer.
    fn check(&mut self, hello: &Hello, welcome: &Welcome) -> Result<(), String>;

    /// The link is up.
    fn up(&mut self);

    /// The link is down, or an attempt has failed: returns how long to wait before the next.
    fn ended(&mut self, ended: LinkEnded<'_>) -> Backoff;
}

/// The sending end.
#[derive(Debug)]
pub struct Link(Arc<LinkShared>);

/// The data shared by the senders and the link's thread.
#[derive(Debug, Default)]
struct LinkShared {
    state: Mutex<LinkInner>,
    /// Signaled when the thread has something to do.
    called: Condvar,
}

#[derive(Debug, Default)]
struct LinkInner {
    /// None while the link is down.
    stream: Option<Arc<TcpStream>>,
    /// The bytes being written; they end with a whole frame.
    in_flight: Vec<u8>,
    /// Control messages that are not started.
    control: Vec<u8>,
    /// Bulk frames that are not started, and their total bytes. Links share the frames.
    bulk: VecDeque<Arc<Vec<u8>>>,
    bulk_bytes: usize,
    /// Number of bytes that the thread is writing.
    writing_bytes: usize,
    /// The thread writes: the socket did not take everything at once.
    is_late: bool,
    /// The next attempt to connect may start at once.
    connects_at_once: bool,
    /// The link is held down: it has no connection and makes none.
    is_held: bool,
    /// Why the connection broke, for the thread.
    broken: Option<std::io::Error>,
    /// The [`Link`] was closed.
    is_over: bool,
}

impl LinkInner {
    /// Takes a new connection; false if the link was held down meanwhile.
    fn connect(&mut self, stream: Arc<TcpStream>) -> bool {
        if !self.is_held {
            (self.stream, self.connects_at_once) = (Some(stream), false);
        }
        !self.is_held
    }

    /// Queues a frame; false if it is dropped, because the link is down or its queue is full.
    fn take(&mut self, frame: &Arc<Vec<u8>>, lane: Lane) -> bool {
        let has_space = match lane {
            Lane::Control => self.control.len() + frame.len() <= CONTROL_MAX_BYTES,
            Lane::Bulk => self.bulk_bytes + self.in_flight.len() + self.writing_bytes + frame.len() <= BULK_MAX_BYTES,
        };
        let is_taken = self.stream.is_some() && has_space;
        match lane {
            Lane::Control if is_taken => self.control.extend_from_slice(frame),
            Lane::Bulk if is_taken => {
                self.bulk_bytes += frame.len();
                self.bulk.push_back(frame.clone());
            }
            Lane::Control | Lane::Bulk => {}
        }
        is_taken
    }

    /// Starts the next frames, after those already started: all control messages, and some bulk. False if there are
    /// none.
    fn begin(&mut self) -> bool {
        if self.in_flight.is_empty() {
            std::mem::swap(&mut self.in_flight, &mut self.control);
        } else {
            self.in_flight.append(&mut self.control);
        }
        let end = self.in_flight.len() + IN_FLIGHT_BULK_BYTES;
        while self.in_flight.len() < end
            && let Some(frame) = self.bulk.pop_front()
        {
            self.bulk_bytes -= frame.len();
            self.in_flight.extend_from_slice(&frame);
        }
        !self.in_flight.is_empty()
    }

    /// Drops the connection, for this reason.
    fn close(&mut self, why: &str) {
        self.broken = Some(std::io::Error::other(why));
        self.hang_up();
    }

    /// Drops the connection, and everything that was to be written to it.
    fn hang_up(&mut self) {
        let LinkInner { is_over, is_held, connects_at_once, .. } = *self;
        *self = LinkInner { broken: self.broken.take(), is_over, is_held, connects_at_once, ..LinkInner::default() };
    }
}

impl LinkShared {
    fn lock(&self) -> MutexGuard<'_, LinkInner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Starts the thread of a link to this address. It ends when the link is closed or dropped, and no call of the
    /// system delays that once the group has stopped.
    pub fn start(
        threads: &Arc<ThreadGroup>,
        name: String,
        address: SocketAddr,
        watcher: impl LinkObserver,
    ) -> std::io::Result<Link> {
        let wire = Arc::<LinkShared>::default();
        let link_thread = LinkThread { threads: threads.clone(), address, wire: wire.clone(), watcher };
        threads.spawn(name, move || link_thread.run())?;
        Ok(Link(wire))
    }

    /// Ends the link: it takes no more frames, and its thread ends.
    pub fn close(&self) {
        self.0.lock().is_over = true;
        self.0.called.notify_one();
    }

    /// Tries to connect now if the link is down, because there is news of the peer.
    pub fn dial_now(&self) {
        let mut state = self.0.lock();
        if state.stream.is_none() {
            state.connects_at_once = true;
            self.0.called.notify_one();
        }
    }

    /// Ends the connection, if there is one, so that the next one starts with a new handshake message.
    pub fn greet_again(&self) {
        let mut state = self.0.lock();
        if state.stream.is_some() {
            state.close("closed by this server to send a new HELLO");
            state.connects_at_once = true;
            self.0.called.notify_one();
        }
    }

    /// Holds the link down, or lets it connect again, at once. A link that is held down ends its connection and makes
    /// no other one.
    pub fn hold(&self, is_held: bool) {
        let mut state = self.0.lock();
        state.is_held = is_held;
        if is_held && state.stream.is_some() {
            state.close("held down by this server");
        }
        state.connects_at_once = !is_held && state.stream.is_none();
        self.0.called.notify_one();
    }

    /// Queues a frame; false if it was dropped.
    pub fn push(&self, frame: &Arc<Vec<u8>>, lane: Lane) -> bool {
        self.0.lock().take(frame, lane)
    }

    /// Writes the frames that any thread has queued, up to what the socket takes at once.
    pub fn flush(&self) {
        let mut state = self.0.lock();
        let Some(stream) = state.stream.clone().filter(|_| !state.is_late) else { return };
        while state.begin() {
            match write_now(&stream, &state.in_flight) {
                Ok(count) if count == state.in_flight.len() => {
                    state.in_flight.clear();
                    state.in_flight.shrink_to(KEEP_BYTES);
                }
                Ok(count) => {
                    state.in_flight.drain(..count);
                    state.is_late = true;
                    self.0.called.notify_one();
                    return;
                }
                Err(error) => {
                    state.broken = Some(error);
                    state.hang_up();
                    self.0.called.notify_one();
                    return;
                }
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

/// Ends a connection whose peer acknowledges nothing, and keeps few unsent bytes in the system's buffer.
///
/// A network that drops all packets breaks no connection by itself, and it can take hours until the socket's buffer is
/// full. Without this time-out the link would stay "up", and after the network is back it would not send for minutes.
#[cfg(target_os = "linux")]
fn limit_unacknowledged(stream: &TcpStream) -> std::io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(PEER_TIMEOUT))?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)
}

/// Other systems have no such options: there a connection ends when its keep-alive probes get no reply.
#[cfg(not(target_os = "linux"))]
fn limit_unacknowledged(stream: &TcpStream) -> std::io::Result<()> {
    let keepalive = socket2::TcpKeepalive::new().with_time(PEER_TIMEOUT).with_interval(Duration::from_secs(1));
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// The link's thread.
struct LinkThread<W> {
    threads: Arc<ThreadGroup>,
    address: SocketAddr,
    wire: Arc<LinkShared>,
    watcher: W,
}

impl<W: LinkObserver> LinkThread<W> {
    /// Connects, serves the connection until it breaks, and starts again; ends with the [`Link`].
    fn run(mut self) {
        loop {
            let pause = match self.connect() {
                Ok((stream, _)) if !self.wire.lock().connect(stream.clone()) => {
                    self.watcher.ended(LinkEnded::Unanswered)
                }
                Ok((_, _open)) => {
                    let since = Instant::now();
                    self.watcher.up();
                    let ended = self.look_after();
                    self.wire.lock().hang_up();
                    let Err(error) = ended else { return };
                    self.watcher.ended(LinkEnded::Broken { why: &error.to_string(), after: since.elapsed() })
                }
                Err(HandshakeError::Refused(why)) => self.watcher.ended(LinkEnded::Refused(&why)),
                Err(HandshakeError::CallBackFirst) => self.watcher.ended(LinkEnded::CallBackFirst),
                Err(HandshakeError::Broken(_)) => self.watcher.ended(LinkEnded::Unanswered),
            };
            if !self.rest(pause) {
                return;
            }
        }
    }

    fn connect(&mut self) -> Result<(Arc<TcpStream>, WatchedSocket), HandshakeError> {
        let stream = Arc::new(dial(self.address, CONNECT_TIMEOUT)?);
        let open = self.threads.watch(stream.clone());
        stream.set_nodelay(true)?;
        let hello = self.watcher.hello();
        let welcome = connect_handshake(&stream, &hello)?;
        self.watcher.check(&hello, &welcome).map_err(HandshakeError::Refused)?;
        stream.set_write_timeout(Some(PEER_TIMEOUT))?;
        limit_unacknowledged(&stream)?;
        Ok((stream, open))
    }

    /// Sleeps until a sender finds the connection broken or slow. While the connection is slow, this thread writes.
    /// Ends with an error, or when the link was closed.
    fn look_after(&self) -> std::io::Result<()> {
        loop {
            let idle = |state: &mut LinkInner| !state.is_over && !state.is_late && state.broken.is_none();
            let state = self.wire.called.wait_while(self.wire.lock(), idle);
            let mut state = state.unwrap_or_else(PoisonError::into_inner);
            if let Some(error) = state.broken.take() {
                return Err(error);
            }
            let LinkInner { stream: Some(stream), is_late: true, .. } = &*state else { return Ok(()) };
            let stream = stream.clone();
            if state.in_flight.is_empty() {
                state.begin();
            }
            let begun = std::mem::take(&mut state.in_flight);
            state.writing_bytes = begun.len();
            state.is_late = !begun.is_empty();
            drop(state);
            (&*stream).write_all(&begun)?;
            self.wire.lock().writing_bytes = 0;
        }
    }

    /// Waits before the next attempt, less if it is wanted now, and for as long as the link is held down; false if the
    /// link was closed.
    fn rest(&self, pause: Backoff) -> bool {
        let rests = |state: &mut LinkInner| !state.is_over;
        let rested = self.wire.called.wait_timeout_while(self.wire.lock(), pause.least, rests);
        let state = rested.unwrap_or_else(PoisonError::into_inner).0;
        let rests = |state: &mut LinkInner| !state.is_over && !state.connects_at_once;
        let rested = self.wire.called.wait_timeout_while(state, pause.most.saturating_sub(pause.least), rests);
        let state = rested.unwrap_or_else(PoisonError::into_inner).0;
        let held = self.wire.called.wait_while(state, |state| !state.is_over && state.is_held);
        let mut state = held.unwrap_or_else(PoisonError::into_inner);
        state.connects_at_once = false;
        !state.is_over
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
