//! A one-way link to a peer: whoever has something to say writes it to the connection, and nobody waits for the peer.
//!
//! Each server dials every other for what it sends. Frames are gathered with [`Link::push`] and go out with one write,
//! by [`Link::flush`], as far as the socket takes them at once: to hand them to another thread would cost more than the
//! write. What the socket does not take is left to the link's own thread, which also connects, and connects again. A
//! link never keeps a message for a later connection: what finds it down or full is dropped, and Paxos sends again.
//!
//! Control messages have room of their own, and go before bulk that has not been begun. So that they need not wait for
//! megabytes that are in the hands of the system already, little is given to it at a time.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::dial::dial;
use super::frame::write_now;
use super::handshake::{HandshakeError, Hello, Welcome, connect_handshake};
use crate::role::Lane;

/// So many bytes of bulk wait for the peer at most; what is more is dropped.
pub const BULK_MAX_BYTES: usize = 16 << 20;
/// So many bytes of control messages wait for the peer at most.
pub const CONTROL_MAX_BYTES: usize = 1 << 20;
/// How many bytes of bulk are begun at a time, and the frame that reaches this number: a control message waits for no
/// more than these. On a link of 350 kB a second they take 190 ms, less than a follower's patience with its leader.
pub const BEGUN_BYTES: usize = 64 << 10;
/// About how many bytes that it has not sent yet the system holds.
const UNSENT_BYTES: u32 = 64 << 10;
/// An empty buffer that is larger is given back.
const KEEP_BYTES: usize = 256 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that takes nothing for so long, or does not say that it has received what was sent, is treated as gone.
const PEER_TIMEOUT: Duration = Duration::from_secs(5);

/// How an attempt to connect or a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEnded<'a> {
    /// The link was up for so long, and broke.
    Broken {
        /// Why.
        why: &'a str,
        /// How long.
        after: Duration,
    },
    /// One of the two does not want to talk to the other.
    Refused(&'a str),
    /// The peer calls back first.
    CallYouFirst,
    /// Nobody was there, or nobody has answered.
    Unanswered,
}

/// How long to wait before the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// If something is known of the peer meanwhile that was not known before.
    pub least: Duration,
    /// Else.
    pub most: Duration,
}

/// Who decides for a link, in its own thread.
pub trait LinkObserver: Send + 'static {
    /// What to say to the peer this time.
    fn hello(&mut self) -> Hello;

    /// The peer has let this server in: judges whether to talk to it.
    fn check(&mut self, hello: &Hello, welcome: &Welcome) -> Result<(), String>;

    /// The link is up.
    fn up(&mut self);

    /// The link is down, or an attempt has failed: says how long to wait before the next.
    fn ended(&mut self, ended: LinkEnded<'_>) -> Backoff;
}

/// The sending end.
#[derive(Debug)]
pub struct Link(Arc<LinkShared>);

/// What those who send share with the link's thread.
#[derive(Debug, Default)]
struct LinkShared {
    state: Mutex<LinkInner>,
    /// Told when the thread has something to do.
    called: Condvar,
}

#[derive(Debug, Default)]
struct LinkInner {
    /// None while the link is down.
    stream: Option<Arc<TcpStream>>,
    /// What is being written. It ends with a frame.
    begun: Vec<u8>,
    /// Control messages that are not begun.
    control: Vec<u8>,
    /// Frames of bulk that are not begun, and their bytes. Links share them.
    bulk: VecDeque<Arc<Vec<u8>>>,
    bulk_bytes: usize,
    /// So many bytes are in the hands of the thread.
    in_hand: usize,
    /// The thread writes: the socket did not take everything at once.
    is_late: bool,
    /// The next attempt to connect may come at once.
    is_called: bool,
    /// Why the connection broke, for the thread.
    broken: Option<std::io::Error>,
    /// Nobody holds the link any more.
    is_over: bool,
}

impl LinkInner {
    fn connect(&mut self, stream: TcpStream) {
        (self.stream, self.is_called) = (Some(Arc::new(stream)), false);
    }

    /// Takes a frame; false if there is no room for it.
    fn take(&mut self, frame: &Arc<Vec<u8>>, lane: Lane) -> bool {
        let has_room = match lane {
            Lane::Control => self.control.len() + frame.len() <= CONTROL_MAX_BYTES,
            Lane::Bulk => self.bulk_bytes + self.begun.len() + self.in_hand + frame.len() <= BULK_MAX_BYTES,
        };
        let is_taken = self.stream.is_some() && has_room;
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

    /// Begins what comes next, behind what is begun: all control messages, and some bulk. False if there is nothing.
    fn begin(&mut self) -> bool {
        if self.begun.is_empty() {
            std::mem::swap(&mut self.begun, &mut self.control);
        } else {
            self.begun.append(&mut self.control);
        }
        let end = self.begun.len() + BEGUN_BYTES;
        while self.begun.len() < end
            && let Some(frame) = self.bulk.pop_front()
        {
            self.bulk_bytes -= frame.len();
            self.begun.extend_from_slice(&frame);
        }
        !self.begun.is_empty()
    }

    /// The connection is gone, and with it what was to be written to it.
    fn hang_up(&mut self) {
        let LinkInner { is_over, is_called, .. } = *self;
        *self = LinkInner { broken: self.broken.take(), is_over, is_called, ..LinkInner::default() };
    }
}

impl LinkShared {
    fn lock(&self) -> MutexGuard<'_, LinkInner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Starts the thread of a link to this address; it ends when nobody holds the link.
    pub fn start(name: String, address: SocketAddr, watcher: impl LinkObserver) -> std::io::Result<Link> {
        let wire = Arc::<LinkShared>::default();
        let keeper = LinkThread { address, wire: wire.clone(), watcher };
        std::thread::Builder::new().name(name).spawn(move || keeper.run())?;
        Ok(Link(wire))
    }

    /// Tries to connect now, if the link is down: something is known of the peer that was not known before.
    pub fn dial_now(&self) {
        let mut state = self.0.lock();
        if state.stream.is_none() {
            state.is_called = true;
            self.0.called.notify_one();
        }
    }

    /// Ends the connection, if there is one, so that the next begins with other words.
    pub fn greet_again(&self) {
        let mut state = self.0.lock();
        if state.stream.is_some() {
            state.broken = Some(std::io::Error::other("this server has news of itself, and greets again"));
            state.hang_up();
            state.is_called = true;
            self.0.called.notify_one();
        }
    }

    /// Adds a frame to what is to be written; false if it was dropped.
    pub fn push(&self, frame: &Arc<Vec<u8>>, lane: Lane) -> bool {
        self.0.lock().take(frame, lane)
    }

    /// Writes what was pushed, by any thread, as far as the socket takes it at once.
    pub fn flush(&self) {
        let mut state = self.0.lock();
        let Some(stream) = state.stream.clone().filter(|_| !state.is_late) else { return };
        while state.begin() {
            match write_now(&stream, &state.begun) {
                Ok(count) if count == state.begun.len() => {
                    state.begun.clear();
                    state.begun.shrink_to(KEEP_BYTES);
                }
                Ok(count) => {
                    state.begun.drain(..count);
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
        self.0.lock().is_over = true;
        self.0.called.notify_one();
    }
}

/// The link's thread.
struct LinkThread<W> {
    address: SocketAddr,
    wire: Arc<LinkShared>,
    watcher: W,
}

impl<W: LinkObserver> LinkThread<W> {
    /// Connects, looks after the connection until it breaks, and begins again; ends with the [`Link`].
    fn run(mut self) {
        loop {
            let pause = match self.connect() {
                Ok(stream) => {
                    let since = Instant::now();
                    self.wire.lock().connect(stream);
                    self.watcher.up();
                    let ended = self.look_after();
                    self.wire.lock().hang_up();
                    let Err(error) = ended else { return };
                    self.watcher.ended(LinkEnded::Broken { why: &error.to_string(), after: since.elapsed() })
                }
                Err(HandshakeError::Refused(why)) => self.watcher.ended(LinkEnded::Refused(&why)),
                Err(HandshakeError::CallYouFirst) => self.watcher.ended(LinkEnded::CallYouFirst),
                Err(HandshakeError::Broken(_)) => self.watcher.ended(LinkEnded::Unanswered),
            };
            if !self.rest(pause) {
                return;
            }
        }
    }

    fn connect(&mut self) -> Result<TcpStream, HandshakeError> {
        let stream = dial(self.address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        let hello = self.watcher.hello();
        let welcome = connect_handshake(&stream, &hello)?;
        self.watcher.check(&hello, &welcome).map_err(HandshakeError::Refused)?;
        stream.set_write_timeout(Some(PEER_TIMEOUT))?;
        // A network that swallows everything breaks no connection by itself, and keeps the socket's buffer from filling
        // for hours: without this the link would stay "up", and after the network is back wait for minutes to send
        // again.
        SockRef::from(&stream).set_tcp_user_timeout(Some(PEER_TIMEOUT))?;
        SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES)?;
        Ok(stream)
    }

    /// Sleeps until somebody finds the connection broken or slow; a slow one is written to from here until it is not.
    /// Ends with an error, or when nobody holds the link.
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
            if state.begun.is_empty() {
                state.begin();
            }
            let begun = std::mem::take(&mut state.begun);
            state.in_hand = begun.len();
            state.is_late = !begun.is_empty();
            drop(state);
            (&*stream).write_all(&begun)?;
            self.wire.lock().in_hand = 0;
        }
    }

    /// Waits, but not for long if an attempt is wanted now; false if nobody holds the link.
    fn rest(&self, pause: Backoff) -> bool {
        let rests = |state: &mut LinkInner| !state.is_over;
        let rested = self.wire.called.wait_timeout_while(self.wire.lock(), pause.least, rests);
        let state = rested.unwrap_or_else(PoisonError::into_inner).0;
        let rests = |state: &mut LinkInner| !state.is_over && !state.is_called;
        let rested = self.wire.called.wait_timeout_while(state, pause.most.saturating_sub(pause.least), rests);
        let mut state = rested.unwrap_or_else(PoisonError::into_inner).0;
        state.is_called = false;
        !state.is_over
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
