//! What befalls the bytes that go one way between two places.

use std::fmt::{self, Display, Formatter};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::connection::ProxyConnection;
use super::frames::ReplayBuffer;

/// Something that befalls bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEffect {
    /// Nothing gets through, and all of it comes later, in order: a partition that TCP survives.
    Hold,
    /// Nothing gets through, and nobody is told: a black hole. What it has swallowed is gone, so the connections that
    /// lost something end when it does.
    Swallow,
    /// Each part of a stream is late.
    Slow {
        /// By at least so much.
        delay: Duration,
        /// And by up to so much more.
        jitter: Duration,
    },
    /// No more than so many bytes a second.
    Narrow {
        /// How many.
        bytes_per_second: u64,
    },
    /// Each connection breaks after so many bytes, in the middle of whatever is being said.
    Break {
        /// How many.
        after: u64,
        /// With a reset; else as if the other side had closed it.
        abruptly: bool,
    },
    /// Some parts of a stream have a wrong bit.
    Corrupt {
        /// So many of a thousand.
        per_mille: u64,
    },
    /// Some messages come twice, and with others an old one comes again.
    Repeat {
        /// So many of a thousand.
        per_mille: u64,
    },
}

impl Display for LinkEffect {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            LinkEffect::Hold => f.write_str("hold all back"),
            LinkEffect::Swallow => f.write_str("swallow all"),
            LinkEffect::Slow { delay, jitter } => {
                write!(f, "late by {} to {} ms", delay.as_millis(), (*delay + *jitter).as_millis())
            }
            LinkEffect::Narrow { bytes_per_second } => write!(f, "at most {} KiB/s", bytes_per_second >> 10),
            LinkEffect::Break { after, abruptly: true } => write!(f, "reset after {after} bytes"),
            LinkEffect::Break { after, abruptly: false } => write!(f, "closed after {after} bytes"),
            LinkEffect::Corrupt { per_mille } => write!(f, "a wrong bit in {per_mille} of 1000 parts"),
            LinkEffect::Repeat { per_mille } => write!(f, "{per_mille} of 1000 messages twice, as many old ones again"),
        }
    }
}

/// The effects of one way, and the connections that use it. All threads share it.
#[derive(Debug, Default)]
pub struct DirectionFaults {
    state: Mutex<DirectionState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct DirectionState {
    /// By the number of the strike that brought them.
    effects: Vec<(usize, LinkEffect)>,
    connections: Vec<Weak<ProxyConnection>>,
    is_over: bool,
}

impl DirectionFaults {
    /// A strike begins.
    pub fn begin(&self, strike: usize, effect: LinkEffect) {
        self.lock().effects.push((strike, effect));
        self.changed.notify_all();
    }

    /// A strike is over; connections that have lost bytes end.
    pub fn end(&self, strike: usize) {
        let mut state = self.lock();
        state.effects.retain(|(number, _)| *number != strike);
        let swallows = state.effects.iter().any(|(_, effect)| *effect == LinkEffect::Swallow);
        state.connections.retain(|connection| connection.strong_count() > 0);
        if !swallows {
            state.connections.iter().filter_map(Weak::upgrade).filter(|one| one.has_lost()).for_each(|one| one.reset());
        }
        self.changed.notify_all();
    }

    /// What befalls bytes now.
    pub fn effects(&self) -> Vec<(usize, LinkEffect)> {
        self.lock().effects.clone()
    }

    /// Waits until bytes are held back no longer; false if the connection, or everything, is over.
    pub fn await_passage(&self, is_broken: impl Fn() -> bool) -> bool {
        let mut state = self.lock();
        loop {
            if state.is_over || is_broken() {
                return false;
            }
            if !state.effects.iter().any(|(_, effect)| *effect == LinkEffect::Hold) {
                return true;
            }
            // Now and then it looks whether the connection is still of use to anybody.
            let waited = self.changed.wait_timeout(state, Duration::from_millis(500));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The same, and for an end of a black hole as well.
    pub fn await_calm(&self, is_broken: impl Fn() -> bool) -> bool {
        let blocks = |effect: &LinkEffect| matches!(effect, LinkEffect::Hold | LinkEffect::Swallow);
        let mut state = self.lock();
        loop {
            if state.is_over || is_broken() {
                return false;
            }
            if !state.effects.iter().any(|(_, effect)| blocks(effect)) {
                return true;
            }
            let waited = self.changed.wait_timeout(state, Duration::from_millis(500));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A connection uses this way.
    pub fn admit(&self, connection: &Arc<ProxyConnection>) {
        let mut state = self.lock();
        if state.is_over {
            return connection.reset();
        }
        state.connections.retain(|one| one.strong_count() > 0);
        state.connections.push(Arc::downgrade(connection));
    }

    /// Everything is over.
    pub fn close(&self) {
        let mut state = self.lock();
        state.is_over = true;
        state.effects.clear();
        state.connections.drain(..).filter_map(|one| one.upgrade()).for_each(|one| one.reset());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, DirectionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was said on a way before, by all its connections.
#[derive(Debug, Default)]
pub struct SharedReplayBuffer(Mutex<ReplayBuffer>);

impl SharedReplayBuffer {
    /// Remembers a message, and gives an old one out if asked.
    pub fn exchange(&self, frame: &[u8], draw: impl FnOnce(usize) -> Option<usize>) -> Option<Vec<u8>> {
        let mut old = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let again = draw(old.len()).and_then(|at| old.get(at)).map(<[u8]>::to_vec);
        old.keep(frame);
        again
    }
}
