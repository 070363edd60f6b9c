//! The shared environment of a simulation: virtual time, randomness, and the order of events.

use std::collections::BinaryHeap;
use std::hash::{Hash, Hasher};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::Xxh3;

use super::client_history::ClientHistory;
use super::coverage::{Coverage, CoveragePoint};
use super::faults::ActiveFault;
use super::network::{Endpoint, Network};
use super::oracle::Oracle;
use super::plan::RunPlan;
use paxos_kv::kv::Kv;
use paxos_kv::random::Random;
use paxos_kv::role::{Lane, RoleKind, ServerId};

/// Virtual microseconds since the start of the run.
pub type Micros = u64;

/// One millisecond.
pub const MS: Micros = 1_000;
/// One second.
pub const SECOND: Micros = 1_000_000;

/// An event at a moment of virtual time.
#[derive(Clone, Debug)]
pub enum SimEvent {
    /// Bytes reach the other end of a link, unless the link was cut or its connection reset meanwhile.
    Frame {
        /// The sender.
        from: Endpoint,
        /// The receiver.
        to: Endpoint,
        /// A frame, perhaps corrupt.
        bytes: Arc<[u8]>,
        /// How the frame is delivered.
        mode: DeliveryMode,
        /// What the frame is on its connection.
        piece: FrameKind,
    },
    /// A server checks its link to a peer: it dials again, or its handshake has timed out.
    Dial {
        /// The server that checks.
        server: ServerId,
        /// Its process.
        process: u64,
        /// The peer.
        peer: ServerId,
        /// Identifies the wait; an outdated stamp is ignored.
        stamp: u64,
    },
    /// A role has work to do, or one of its timers runs out.
    Wake {
        /// The role.
        role: RoleInstance,
    },
    /// A role has the processor.
    Turn {
        /// The role.
        role: RoleInstance,
    },
    /// The disk has synced the records of a role's batch.
    Synced {
        /// The role.
        role: RoleInstance,
    },
    /// The time of a checkpointer's next job has passed.
    Checkpointer {
        /// The server of the checkpointer.
        server: ServerId,
        /// Its process.
        process: u64,
    },
    /// A role that crashed restarts.
    Restart {
        /// The server of the role.
        server: ServerId,
        /// Its process.
        process: u64,
    },
    /// A server announces itself to the others.
    Announce {
        /// The server.
        server: ServerId,
        /// Its process.
        process: u64,
    },
    /// The wait of a server's client has reached its limit.
    ClientDeadline {
        /// The server.
        server: ServerId,
        /// Its process.
        process: u64,
    },
    /// A server's process starts.
    Start {
        /// The server.
        server: ServerId,
    },
    /// A client's wait or pause ends.
    Client {
        /// The client's number.
        client: usize,
        /// Identifies the wait; an outdated stamp is ignored.
        stamp: u64,
    },
    /// Time for another fault.
    Chaos,
    /// A fault ends.
    Heal(ActiveFault),
}

/// What a frame takes up on a link. It must not depend on whether log lines are recorded, as the frame's length does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSize {
    /// The lane that the frame uses.
    pub lane: Lane,
    /// Approximate number of bytes.
    pub bytes: usize,
}

impl FrameSize {
    /// The weight of a frame without values.
    pub const SMALL: FrameSize = FrameSize { lane: Lane::Control, bytes: 100 };
}

/// How a frame is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// On the connection with this number.
    Connection(u64),
    /// A replay of an old frame, perhaps long after it was sent.
    Replay,
    /// The frame has arrived already, and waits until its process is no longer paused.
    Delayed,
}

/// What a frame is on its connection. Between servers it belongs to a call: a connection that one of them dialed, with
/// a unique number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// From or to a client.
    Client,
    /// The caller's greeting.
    Hello(u64),
    /// The called server's answer to the greeting.
    Answer(u64),
    /// Any later message.
    Word(u64, FrameSize),
    /// One end has closed the call, or does not know it.
    End(u64),
}

impl FrameKind {
    /// What the frame takes up on a link.
    pub fn weight(&self) -> FrameSize {
        match self {
            FrameKind::Word(_, weight) => *weight,
            FrameKind::Client | FrameKind::Hello(_) | FrameKind::Answer(_) | FrameKind::End(_) => FrameSize::SMALL,
        }
    }
}

/// One incarnation of one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleInstance {
    /// The server of the role.
    pub server: ServerId,
    /// Which role.
    pub role: RoleKind,
    /// The incarnation, numbered across all servers.
    pub incarnation: u64,
}

/// An event with its time; the number orders events of the same time.
struct ScheduledEvent {
    at: Micros,
    number: u64,
    event: SimEvent,
}

impl PartialEq for ScheduledEvent {
    fn eq(&self, other: &ScheduledEvent) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for ScheduledEvent {}

impl PartialOrd for ScheduledEvent {
    fn partial_cmp(&self, other: &ScheduledEvent) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ScheduledEvent {
    /// The earliest event is the greatest, because a heap returns its greatest item first.
    fn cmp(&self, other: &ScheduledEvent) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// What was sent and synced in a run, whether or not it arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficCounts {
    /// Messages to roles of other servers that are part of a write: no periodic messages, and none for reads.
    pub messages: u64,
    /// The same between roles of one server.
    pub own_messages: u64,
    /// Batches of records that a role made durable.
    pub syncs: u64,
}

/// Time, randomness, network and observers: everything in a simulation that is neither a server nor a client.
pub struct SimEnv {
    now: Micros,
    /// A person makes every choice, and nothing is left to chance.
    by_hand: bool,
    /// The same time, shared with the clocks of log lines.
    clock: Arc<AtomicU64>,
    queue: BinaryHeap<ScheduledEvent>,
    /// The last moment that was given out; it only grows.
    scheduled: u64,
    /// The only source of random choices.
    pub random: Random,
    /// The links between servers and clients.
    pub network: Network,
    /// Observes everything and checks the invariants.
    pub oracle: Oracle,
    /// What clients requested, and the replies.
    pub history: ClientHistory,
    /// The coverage points that were reached.
    pub coverage: Coverage,
    /// Counts of messages and syncs.
    pub counts: TrafficCounts,
    incarnations: u64,
    hash: Xxh3,
}

impl SimEnv {
    /// The environment at the start of a run.
    pub fn new(plan: &RunPlan) -> SimEnv {
        SimEnv {
            now: 0,
            by_hand: plan.by_hand,
            clock: Arc::default(),
            queue: BinaryHeap::new(),
            scheduled: 0,
            random: Random::new(plan.seed, 1),
            network: Network::new(plan),
            oracle: Oracle::new(plan.protocol, plan.quorums(), Kv::with_sessions_at_most(plan.sessions)),
            history: ClientHistory::default(),
            coverage: Coverage::default(),
            counts: TrafficCounts::default(),
            incarnations: 0,
            hash: Xxh3::new(),
        }
    }

    /// The current virtual time.
    pub fn now(&self) -> Micros {
        self.now
    }

    /// The current time, as a shared read-only clock.
    pub fn clock(&self) -> Arc<AtomicU64> {
        self.clock.clone()
    }

    /// A number that only grows, so that no two events have the same moment.
    pub fn next_moment(&mut self) -> u64 {
        self.scheduled += 1;
        self.scheduled
    }

    /// The number of a new incarnation of any role or process.
    pub fn next_incarnation(&mut self) -> u64 {
        self.incarnations += 1;
        self.incarnations
    }

    /// Schedules an event after a delay.
    pub fn schedule(&mut self, delay: Micros, event: SimEvent) {
        let number = self.next_moment();
        self.queue.push(ScheduledEvent { at: self.now + delay, number, event });
    }

    /// The next event, if it is due by `end`; advances the time to it.
    pub fn next(&mut self, end: Micros) -> Option<SimEvent> {
        if self.queue.peek()?.at > end {
            return None;
        }
        let ScheduledEvent { at, number, event } = self.queue.pop()?;
        self.now = at;
        self.clock.store(at, Ordering::Relaxed);
        self.hash_event(&(at, number));
        Some(event)
    }

    /// Whether a person makes every choice.
    pub fn is_by_hand(&self) -> bool {
        self.by_hand
    }

    /// All events that may happen, by number, in no order.
    pub fn pending(&self) -> impl Iterator<Item = (u64, Micros, &SimEvent)> {
        self.queue.iter().map(|due| (due.number, due.at, &due.event))
    }

    /// Takes the event with this number, whatever its time; the time stays.
    pub fn take(&mut self, number: u64) -> Option<SimEvent> {
        let mut all = std::mem::take(&mut self.queue).into_vec();
        let at = all.iter().position(|due| due.number == number);
        let taken = at.map(|at| all.swap_remove(at));
        self.queue = all.into();
        if taken.is_some() {
            self.hash_event(&number);
        }
        taken.map(|due| due.event)
    }

    /// Moves the time on.
    pub fn advance(&mut self, time: Micros) {
        self.now += time;
        self.clock.store(self.now, Ordering::Relaxed);
    }

    /// Adds something to the trace hash.
    pub fn hash_event(&mut self, what: &impl Hash) {
        what.hash(&mut self.hash);
    }

    /// The hash of everything that has happened.
    pub fn trace_hash(&self) -> u64 {
        self.hash.finish()
    }

    /// True with a probability of `per_mille` in 1000. Where a person makes the choices, the likelier happens.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        if self.by_hand {
            return per_mille >= 500;
        }
        per_mille > 0 && self.random.within(0..=999) < per_mille
    }

    /// A random time of the range.
    pub fn random_time(&mut self, range: &RangeInclusive<Micros>) -> Micros {
        self.random.within(range.clone())
    }

    /// One of these at random, each equally likely; None if there is none.
    pub fn random_choice<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        self.random_choice_ref(choices).copied()
    }

    /// As [`random_choice`](SimEnv::random_choice), for values that are not `Copy`.
    pub fn random_choice_ref<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        let last = choices.len().checked_sub(1)?;
        choices.get(self.random.within(0..=last as u64) as usize)
    }

    /// Starts a new history on empty data directories. Frames of the last one are dropped, because their connections
    /// are gone.
    pub fn begin_new_history(&mut self, plan: &RunPlan) {
        self.queue.retain(|due| !matches!(due.event, SimEvent::Frame { .. }));
        self.network.forget_all();
        self.oracle.begin_new_history(plan.protocol);
        self.history.begin_new_history();
    }

    /// Records that a coverage point was reached.
    pub fn reach(&mut self, mark: CoveragePoint) {
        self.coverage.reach(mark);
    }
}
