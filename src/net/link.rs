//! A one-way link to a peer: whoever has something to say writes it to the connection, and nobody waits for the peer.
//!
//! Each server dials every other for what it sends. Frames are gathered with [`Link::push`] and go out with one write, by
//! [`Link::flush`], as far as the socket takes them at once: to hand them to another thread would cost more than the write.
//! What the socket does not take is left to the link's own thread, which also connects, and connects again. A link never
//! keeps a message for a later connection: what finds it down or full is dropped, and Paxos sends again.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::dial::dial;
use super::frame::write_now;
use super::handshake::{HandshakeError, Hello, Welcome, greet};

/// So many bytes wait for the peer at most; what is more is dropped.
const QUEUE_MAX_BYTES: usize = 16 << 20;
/// An empty buffer that is larger is given back.
const KEEP_BYTES: usize = 256 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that takes nothing for so long, or does not say that it has received what was sent, is treated as gone.
const PEER_TIMEOUT: Duration = Duration::from_secs(5);
/// Waits between attempts to connect grow from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// Who was refused asks again only now and then: somebody has to do something about it first. (Tests need not wait.)
const REFUSED_BACKOFF: Duration = if cfg!(test) { BACKOFF.0 } else { Duration::from_secs(2) };
/// A peer that has answered so often that it calls back first will perhaps never do so: somebody should know.
const UNPROVED_MAX: u32 = 10;
const NEVER_CALLS: &str = "it calls this server back before it believes its greeting, and that does not come about. Is this \
                           server's address right in the peer's cluster file, and is the peer's data folder the old one?";
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
    /// What to say to the peer this time.
    fn hello(&mut self) -> Hello;

    /// The peer has let this server in: judges whether to talk to it.
    fn check(&mut self, hello: &Hello, welcome: &Welcome) -> Result<(), String>;

    /// The link has changed.
    fn changed(&mut self, state: LinkState<'_>);
}

/// The sending end.
#[derive(Debug)]
pub struct Link(Arc<Wire>);

/// What those who send share with the link's thread.
#[derive(Debug, Default)]
struct Wire {
    state: Mutex<State>,
    /// Told when the thread has something to do.
    called: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// None while the link is down.
    stream: Option<Arc<TcpStream>>,
    /// Frames that nobody has written yet.
    bytes: Vec<u8>,
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

impl State {
    fn connect(&mut self, stream: TcpStream) {
        (self.stream, self.is_called) = (Some(Arc::new(stream)), false);
    }

    /// The connection is gone, and with it what was to be written to it.
    fn hang_up(&mut self) {
        let State { is_over, is_called, .. } = *self;
        *self = State { broken: self.broken.take(), is_over, is_called, ..State::default() };
    }
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Starts the thread of a link to this address; it ends when nobody holds the link.
    pub fn start(name: String, address: SocketAddr, watcher: impl Watcher) -> std::io::Result<Link> {
        let wire = Arc::<Wire>::default();
        let keeper = Keeper { address, wire: wire.clone(), watcher };
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
    pub fn push(&self, frame: &[u8]) -> bool {
        let mut state = self.0.lock();
        let has_room = state.bytes.len() + state.in_hand + frame.len() <= QUEUE_MAX_BYTES;
        let is_taken = state.stream.is_some() && has_room;
        if is_taken {
            state.bytes.extend_from_slice(frame);
        }
        is_taken
    }

    /// Writes what was pushed, by whomever, as far as the socket takes it at once.
    pub fn flush(&self) {
        let mut state = self.0.lock();
        let State { stream: Some(stream), bytes, is_late: false, .. } = &mut *state else { return };
        if bytes.is_empty() {
            return;
        }
        match write_now(stream, bytes) {
            Ok(count) if count == bytes.len() => {
                bytes.clear();
                bytes.shrink_to(KEEP_BYTES);
            }
            Ok(count) => {
                bytes.drain(..count);
                state.is_late = true;
                self.0.called.notify_one();
            }
            Err(error) => {
                state.broken = Some(error);
                state.hang_up();
                self.0.called.notify_one();
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
struct Keeper<W> {
    address: SocketAddr,
    wire: Arc<Wire>,
    watcher: W,
}

impl<W: Watcher> Keeper<W> {
    /// Connects, looks after the connection until it breaks, and begins again; ends with the [`Link`].
    fn run(mut self) {
        let mut backoff = BACKOFF.0;
        let (mut refused, mut unproved) = (None, 0);
        loop {
            let mut wait = backoff;
            match self.connect() {
                Ok(stream) => {
                    let since = Instant::now();
                    (refused, unproved) = (None, 0);
                    self.wire.lock().connect(stream);
                    self.watcher.changed(LinkState::Up);
                    let ended = self.look_after();
                    self.wire.lock().hang_up();
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
                Err(HandshakeError::CallYouFirst) => {
                    unproved += 1;
                    if unproved == UNPROVED_MAX {
                        self.watcher.changed(LinkState::Refused(NEVER_CALLS));
                    }
                }
                // Nobody is there: that is no news after the link went down.
                Err(HandshakeError::Broken(_)) => {}
            }
            if !self.rest(wait) {
                return;
            }
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    fn connect(&mut self) -> Result<TcpStream, HandshakeError> {
        let stream = dial(self.address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        let hello = self.watcher.hello();
        let welcome = greet(&stream, &hello)?;
        self.watcher.check(&hello, &welcome).map_err(HandshakeError::Refused)?;
        stream.set_write_timeout(Some(PEER_TIMEOUT))?;
        // A network that swallows everything breaks no connection by itself, and keeps the socket's buffer from filling for
        // hours: without this the link would stay "up", and after the network is back wait for minutes to send again.
        SockRef::from(&stream).set_tcp_user_timeout(Some(PEER_TIMEOUT))?;
        Ok(stream)
    }

    /// Sleeps until somebody finds the connection broken or slow; a slow one is written to from here until it is not. Ends
    /// with an error, or when nobody holds the link.
    fn look_after(&self) -> std::io::Result<()> {
        loop {
            let idle = |state: &mut State| !state.is_over && !state.is_late && state.broken.is_none();
            let state = self.wire.called.wait_while(self.wire.lock(), idle);
            let mut state = state.unwrap_or_else(PoisonError::into_inner);
            if let Some(error) = state.broken.take() {
                return Err(error);
            }
            let State { stream: Some(stream), is_late: true, .. } = &*state else { return Ok(()) };
            let stream = stream.clone();
            let bytes = std::mem::take(&mut state.bytes);
            state.in_hand = bytes.len();
            state.is_late = !bytes.is_empty();
            drop(state);
            (&*stream).write_all(&bytes)?;
            self.wire.lock().in_hand = 0;
        }
    }

    /// Waits, but not for long if an attempt is wanted now; false if nobody holds the link.
    fn rest(&self, wait: Duration) -> bool {
        let rests = |state: &mut State| !state.is_over;
        let rested = self.wire.called.wait_timeout_while(self.wire.lock(), BACKOFF.0, rests);
        let state = rested.unwrap_or_else(PoisonError::into_inner).0;
        let rests = |state: &mut State| !state.is_over && !state.is_called;
        let rested = self.wire.called.wait_timeout_while(state, wait.saturating_sub(BACKOFF.0), rests);
        let mut state = rested.unwrap_or_else(PoisonError::into_inner).0;
        state.is_called = false;
        !state.is_over
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
