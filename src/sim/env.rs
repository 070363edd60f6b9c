//! What is not in anybody's hand: time, chance, and the order in which things happen.

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
use crate::kv::Kv;
use crate::random::Random;
use crate::role::{Lane, RoleKind, ServerId};

/// Virtual microseconds since the world began.
pub type Micros = u64;

/// A millisecond.
pub const MS: Micros = 1_000;
/// A second.
pub const SECOND: Micros = 1_000_000;

/// Something that happens at a moment.
#[derive(Clone, Debug)]
pub enum SimEvent {
    /// Bytes reach the other end of a link, unless it was cut or its connection reset meanwhile.
    Frame {
        /// Who sent them.
        from: Endpoint,
        /// Who hears them.
        to: Endpoint,
        /// A frame, perhaps damaged.
        bytes: Arc<[u8]>,
        /// How they come.
        way: DeliveryMode,
        /// What they are.
        piece: Piece,
    },
    /// A server looks after its link to another one: it is to dial again, or has waited long enough for an answer.
    Dial {
        /// The server.
        server: ServerId,
        /// The process.
        process: u64,
        /// The other one.
        peer: ServerId,
        /// What it waited in.
        stamp: u64,
    },
    /// A role has something to do, or one of its timers runs out.
    Wake {
        /// Which.
        role: RoleInstance,
    },
    /// A role has the processor.
    Turn {
        /// Which.
        role: RoleInstance,
    },
    /// The disk has done what a role's group asked for.
    Synced {
        /// Which.
        role: RoleInstance,
    },
    /// A server's checkpointer has had the time that its next job takes.
    Checkpointer {
        /// The server.
        server: ServerId,
        /// The process.
        process: u64,
    },
    /// A role that died comes back.
    Restart {
        /// On which server.
        server: ServerId,
        /// The process.
        process: u64,
    },
    /// A server says to the others that it is there.
    Here {
        /// The server.
        server: ServerId,
        /// The process.
        process: u64,
    },
    /// A client of a server has waited long enough.
    Patience {
        /// The server.
        server: ServerId,
        /// The process.
        process: u64,
    },
    /// A server's process is started.
    Start {
        /// The server.
        server: ServerId,
    },
    /// A client has waited long enough, or thought long enough.
    Client {
        /// Which.
        client: usize,
        /// What it waited in.
        stamp: u64,
    },
    /// Time for another fault.
    Chaos,
    /// A fault ends.
    Heal(ActiveFault),
}

/// What a frame takes of a link. It does not depend on whether anybody reads lines, which the frame itself does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// The lane.
    pub lane: Lane,
    /// About how many bytes.
    pub bytes: usize,
}

impl Weight {
    /// That of a frame without values.
    pub const SMALL: Weight = Weight { lane: Lane::Control, bytes: 100 };
}

/// How a frame comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// On this connection.
    Connection(u64),
    /// Once more, perhaps long after it was sent.
    Again,
    /// It is there already, and waits for its process to go on.
    Arrived,
}

/// What a frame is on its connection. Between servers it is a part of a call: a connection that one of them has
/// dialled, by a number that no other has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A client's, or for one.
    OfClient,
    /// Who calls.
    Hello(u64),
    /// What the called server says to that.
    Answer(u64),
    /// All that follows.
    Word(u64, Weight),
    /// One of the two has closed it, or knows nothing of it.
    End(u64),
}

impl Piece {
    /// What it takes of a link.
    pub fn weight(&self) -> Weight {
        match self {
            Piece::Word(_, weight) => *weight,
            Piece::OfClient | Piece::Hello(_) | Piece::Answer(_) | Piece::End(_) => Weight::SMALL,
        }
    }
}

/// One life of one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleInstance {
    /// The server.
    pub server: ServerId,
    /// The role.
    pub role: RoleKind,
    /// The life, numbered through all servers.
    pub life: u64,
}

/// An event and its place in time.
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
    /// The earliest is the greatest: a heap gives its greatest first.
    fn cmp(&self, other: &ScheduledEvent) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// What was sent and synced in a world, whatever became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficCounts {
    /// Messages to roles of other servers that are part of a write: no beats, and nothing that reads ask.
    pub messages: u64,
    /// The same between roles of one server.
    pub own_messages: u64,
    /// Groups of records that a role has made durable.
    pub syncs: u64,
}

/// Time and chance, and those who watch: everything in a world that is neither a server nor a client.
pub struct SimEnv {
    now: Micros,
    /// The same for the clocks of lines.
    clock: Arc<AtomicU64>,
    queue: BinaryHeap<ScheduledEvent>,
    /// Events so far, and ever.
    scheduled: u64,
    /// The one source of all choices.
    pub random: Random,
    /// The links between servers and clients.
    pub network: Network,
    /// Sees everything and knows the rules.
    pub oracle: Oracle,
    /// What clients have asked and heard.
    pub history: ClientHistory,
    /// What was reached.
    pub coverage: Coverage,
    /// What it took.
    pub counts: TrafficCounts,
    lives: u64,
    hash: Xxh3,
}

impl SimEnv {
    /// The beginning.
    pub fn new(plan: &RunPlan) -> SimEnv {
        SimEnv {
            now: 0,
            clock: Arc::default(),
            queue: BinaryHeap::new(),
            scheduled: 0,
            random: Random::new(plan.seed, 1),
            network: Network::new(plan),
            oracle: Oracle::new(plan.protocol, plan.quorums(), Kv::with_sessions_at_most(plan.sessions)),
            history: ClientHistory::default(),
            coverage: Coverage::default(),
            counts: TrafficCounts::default(),
            lives: 0,
            hash: Xxh3::new(),
        }
    }

    /// The time.
    pub fn now(&self) -> Micros {
        self.now
    }

    /// The time, for those who only read it.
    pub fn clock(&self) -> Arc<AtomicU64> {
        self.clock.clone()
    }

    /// A number that only grows: two events are never at the same moment.
    pub fn moment(&mut self) -> u64 {
        self.scheduled += 1;
        self.scheduled
    }

    /// Another life of anything begins.
    pub fn next_incarnation(&mut self) -> u64 {
        self.lives += 1;
        self.lives
    }

    /// Lets something happen after a while.
    pub fn after(&mut self, delay: Micros, event: SimEvent) {
        let number = self.moment();
        self.queue.push(ScheduledEvent { at: self.now + delay, number, event });
    }

    /// The next thing that happens, if it does before `end`; time goes on to it.
    pub fn next(&mut self, end: Micros) -> Option<SimEvent> {
        if self.queue.peek()?.at > end {
            return None;
        }
        let ScheduledEvent { at, number, event } = self.queue.pop()?;
        self.now = at;
        self.clock.store(at, Ordering::Relaxed);
        self.note(&(at, number));
        Some(event)
    }

    /// Makes something a part of the trace hash.
    pub fn note(&mut self, what: &impl Hash) {
        what.hash(&mut self.hash);
    }

    /// The hash of everything that has happened.
    pub fn trace_hash(&self) -> u64 {
        self.hash.finish()
    }

    /// True so many times of a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.random.within(0..=999) < per_mille
    }

    /// A time of the range.
    pub fn time(&mut self, range: &RangeInclusive<Micros>) -> Micros {
        self.random.within(range.clone())
    }

    /// One of these, each as likely as the others; None if there is none.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        self.random_of(choices).copied()
    }

    /// As [`one_of`](SimEnv::one_of), of things that are not copied.
    pub fn random_of<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        let last = choices.len().checked_sub(1)?;
        choices.get(self.random.within(0..=last as u64) as usize)
    }

    /// A new history begins on empty folders. What was said in the last one is heard by nobody: its connections are
    /// gone.
    pub fn begin_anew(&mut self, plan: &RunPlan) {
        self.queue.retain(|due| !matches!(due.event, SimEvent::Frame { .. }));
        self.network.forget_all();
        self.oracle.begin_anew(plan.protocol);
        self.history.begin_anew();
    }

    /// Something worth a mark was reached.
    pub fn reached(&mut self, mark: CoveragePoint) {
        self.coverage.reach(mark);
    }
}
