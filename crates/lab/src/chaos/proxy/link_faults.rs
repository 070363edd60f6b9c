//! Link faults: effects on the bytes of one direction between two endpoints.

use std::fmt::{self, Display, Formatter};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::connection::ProxyConnection;
use super::frames::ReplayBuffer;

/// An effect on the bytes of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEffect {
    /// Delivers nothing now, and everything later, in order: a partition that TCP connections survive.
    Hold,
    /// Discards everything, without an error: a black hole. Connections that have lost bytes are reset when it ends.
    Drop,
    /// Delays each part of a stream.
    Slow {
        /// Minimum delay.
        delay: Duration,
        /// Maximum additional delay.
        jitter: Duration,
    },
    /// Limits the bandwidth.
    LimitRate {
        /// The limit in bytes a second.
        bytes_per_second: u64,
    },
    /// Breaks each connection after a number of bytes, in the middle of any message.
    Break {
        /// Number of bytes before the break.
        after: u64,
        /// Whether the connection is reset; otherwise it is closed in order.
        with_reset: bool,
    },
    /// Flips a bit in some parts of a stream.
    Corrupt {
        /// Affected parts of 1,000.
        per_mille: u64,
    },
    /// Repeats some messages, and with others replays an old one.
    Repeat {
        /// Affected messages of 1,000, for each of the two.
        per_mille: u64,
    },
}

impl Display for LinkEffect {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            LinkEffect::Hold => f.write_str("hold back all bytes"),
            LinkEffect::Drop => f.write_str("drop all bytes"),
            LinkEffect::Slow { delay, jitter } => {
                write!(f, "delay by {} to {} ms", delay.as_millis(), (*delay + *jitter).as_millis())
            }
            LinkEffect::LimitRate { bytes_per_second } => write!(f, "at most {} KiB/s", bytes_per_second >> 10),
            LinkEffect::Break { after, with_reset: true } => write!(f, "reset after {after} bytes"),
            LinkEffect::Break { after, with_reset: false } => write!(f, "closed after {after} bytes"),
            LinkEffect::Corrupt { per_mille } => write!(f, "flip a bit in {per_mille} of 1000 parts"),
            LinkEffect::Repeat { per_mille } => {
                write!(f, "repeat {per_mille} of 1000 messages, and replay an old one with as many")
            }
        }
    }
}

/// The effects in one direction, and the connections that use it. All threads share it.
#[derive(Debug, Default)]
pub struct DirectionFaults {
    state: Mutex<DirectionState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct DirectionState {
    /// The effects, each with the number of its fault.
    effects: Vec<(usize, LinkEffect)>,
    connections: Vec<Weak<ProxyConnection>>,
    is_over: bool,
}

impl DirectionFaults {
    /// Begins a fault.
    pub fn begin(&self, fault_number: usize, effect: LinkEffect) {
        self.lock().effects.push((fault_number, effect));
        self.changed.notify_all();
    }

    /// Ends a fault, and resets connections that have lost bytes.
    pub fn end(&self, fault_number: usize) {
        let mut state = self.lock();
        state.effects.retain(|(number, _)| *number != fault_number);
        let swallows = state.effects.iter().any(|(_, effect)| *effect == LinkEffect::Drop);
        state.connections.retain(|connection| connection.strong_count() > 0);
        if !swallows {
            state
                .connections
                .iter()
                .filter_map(Weak::upgrade)
                .filter(|one| one.has_dropped_bytes())
                .for_each(|one| one.reset());
        }
        self.changed.notify_all();
    }

    /// The present effects.
    pub fn effects(&self) -> Vec<(usize, LinkEffect)> {
        self.lock().effects.clone()
    }

    /// Waits until bytes are no longer held back; false if the connection or the whole network has ended.
    pub fn await_not_held(&self, is_broken: impl Fn() -> bool) -> bool {
        let mut state = self.lock();
        loop {
            if state.is_over || is_broken() {
                return false;
            }
            if !state.effects.iter().any(|(_, effect)| *effect == LinkEffect::Hold) {
                return true;
            }
            // The periodic wake-up checks whether the connection still exists.
            let waited = self.changed.wait_timeout(state, Duration::from_millis(500));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Like [`DirectionFaults::await_not_held`], but also waits for the end of a black hole.
    pub fn await_no_cut(&self, is_broken: impl Fn() -> bool) -> bool {
        let blocks = |effect: &LinkEffect| matches!(effect, LinkEffect::Hold | LinkEffect::Drop);
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

    /// Registers a connection that uses this direction.
    pub fn register(&self, connection: &Arc<ProxyConnection>) {
        let mut state = self.lock();
        if state.is_over {
            return connection.reset();
        }
        state.connections.retain(|one| one.strong_count() > 0);
        state.connections.push(Arc::downgrade(connection));
    }

    /// Ends all effects and resets all connections.
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

/// Messages sent earlier in a direction, on all its connections.
#[derive(Debug, Default)]
pub struct SharedReplayBuffer(Mutex<ReplayBuffer>);

impl SharedReplayBuffer {
    /// Stores a message, and returns an old one if `draw` selects one.
    pub fn keep_and_replay(&self, frame: &[u8], draw: impl FnOnce(usize) -> Option<usize>) -> Option<Vec<u8>> {
        let mut old = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let again = draw(old.len()).and_then(|at| old.get(at)).map(<[u8]>::to_vec);
        old.keep(frame);
        again
    }
}
