//! The contract between a protocol role and the code that runs it.
//!
//! A [`Role`] is a value: it has no clock, no socket, no file, no thread and no randomness. It takes an [`Input`],
//! changes its state, and lists in an [`Output`] what should happen. The code that runs it is a *role host*: threads
//! over TCP, a simulator, a model checker. All hosts run a role through the same [`turn`], which enforces the rule that
//! every consensus protocol rests on:
//!
//! > What a role sends must not leave before the records that it depends on are durable.
//!
//! The types enforce the rule. [`step_batch`] returns a [`Stepped`], whose actions are private. Only
//! [`Stepped::commit`], which writes the records, turns it into a [`Released`], whose actions can be taken. Dropping
//! either of them is a crash.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::{self, Debug, Display};
use std::hash::Hash;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::seeded_bugs;

/// A server of the cluster, by its number in the cluster file: 1 to [`ServerId::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8")]
pub struct ServerId(pub u8);

impl ServerId {
    /// The largest number a server can have.
    pub const MAX: u8 = 63;
}

impl TryFrom<u8> for ServerId {
    type Error = String;

    /// Checks a number from untrusted bytes: a set of servers has no room for a larger number.
    fn try_from(number: u8) -> Result<ServerId, String> {
        let server = ServerId(number);
        if number <= ServerId::MAX {
            Ok(server)
        } else {
            Err(format!("the largest server number is {}", ServerId::MAX))
        }
    }
}

impl Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

impl Debug for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

/// A set of servers, iterated in order of their numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ServerSet(u64);

impl ServerSet {
    /// The empty set.
    pub const NONE: ServerSet = ServerSet(0);

    /// The set of one server.
    pub fn only(server: ServerId) -> ServerSet {
        [server].into_iter().collect()
    }

    /// Servers 1 to `count`.
    pub fn first(count: u8) -> ServerSet {
        (1..=count).map(ServerId).collect()
    }

    /// Adds a server; returns true if it was not in the set before.
    pub fn insert(&mut self, server: ServerId) -> bool {
        assert!(server.0 <= ServerId::MAX, "the largest server number is {}", ServerId::MAX);
        let before = self.0;
        self.0 |= 1 << server.0;
        self.0 != before
    }

    /// Whether the set holds the server.
    pub fn contains(&self, server: ServerId) -> bool {
        server.0 <= ServerId::MAX && self.0 & (1 << server.0) != 0
    }

    /// Number of servers in the set.
    pub fn len(&self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// The servers of this set that are not in `other`.
    pub fn without(&self, other: ServerSet) -> ServerSet {
        ServerSet(self.0 & !other.0)
    }

    /// The servers that are in both sets.
    pub fn and(&self, other: ServerSet) -> ServerSet {
        ServerSet(self.0 & other.0)
    }

    /// The servers that are in one of the sets, or in both.
    pub fn or(&self, other: ServerSet) -> ServerSet {
        ServerSet(self.0 | other.0)
    }

    /// The servers of the set, lowest number first.
    pub fn iter(&self) -> impl Iterator<Item = ServerId> + use<> {
        let bits = self.0;
        (0..=ServerId::MAX).map(ServerId).filter(move |s| bits & (1 << s.0) != 0)
    }
}

impl ServerSet {
    /// The numbers as text: "1-3" or "1, 3, 5-7".
    pub fn numbers(&self) -> String {
        let mut runs: Vec<(u8, u8)> = Vec::new();
        for ServerId(n) in self.iter() {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == n => *last = n,
                _ => runs.push((n, n)),
            }
        }
        let run = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
        runs.into_iter().map(run).collect::<Vec<_>>().join(", ")
    }
}

impl FromIterator<ServerId> for ServerSet {
    fn from_iter<I: IntoIterator<Item = ServerId>>(servers: I) -> ServerSet {
        let mut set = ServerSet::NONE;
        for server in servers {
            set.insert(server);
        }
        set
    }
}

impl Display for ServerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (n, server) in self.iter().enumerate() {
            write!(f, "{}{server}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl Debug for ServerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

/// The lane on which a message travels. On every link, and in every mailbox, each lane has room of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Small and urgent messages, which go first.
    Control,
    /// Messages that carry values, or that refer to values and must not overtake them.
    Bulk,
}

/// The kinds of roles, of all protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RoleKind {
    /// Gets commands chosen.
    Proposer,
    /// The memory of the protocol.
    Acceptor,
    /// Finds out what was chosen, and applies it.
    Learner,
    /// Two-phase commit: asks all participants for a vote, and decides.
    Coordinator,
    /// Two-phase commit: votes, keeps its vote durable, and carries out the decision.
    Participant,
}

impl RoleKind {
    /// The three roles of Paxos.
    pub const PAXOS: [RoleKind; 3] = [RoleKind::Proposer, RoleKind::Acceptor, RoleKind::Learner];
    /// All roles, in declaration order.
    pub const ALL: [RoleKind; 5] =
        [RoleKind::Proposer, RoleKind::Acceptor, RoleKind::Learner, RoleKind::Coordinator, RoleKind::Participant];

    /// The role's name: `acceptor`.
    pub fn as_str(self) -> &'static str {
        match self {
            RoleKind::Proposer => "proposer",
            RoleKind::Acceptor => "acceptor",
            RoleKind::Learner => "learner",
            RoleKind::Coordinator => "coordinator",
            RoleKind::Participant => "participant",
        }
    }

    /// The role with this name.
    pub fn named(word: &str) -> Option<RoleKind> {
        RoleKind::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

/// A deterministic part of a protocol: the same state and the same input give the same new state and the same output.
pub trait Role: Sized + 'static {
    /// The messages between roles of different servers.
    type Message: Clone + Debug;
    /// The records that a role needs after a crash.
    type Record: Clone + Debug;
    /// The role's time-outs.
    type Timer: TimerSpec;
    /// The requests of the role's own server.
    type Request: Clone + Debug;
    /// The notifications to the role's own server.
    type Notification: Clone + Debug;
    /// A step of the protocol, for the log. It has no effect on the protocol.
    type TraceEvent: Clone + Debug;

    /// Restores one record. Recovery replays all records, in order, and nothing else.
    fn replay(&mut self, record: Self::Record);

    /// Handles one input.
    fn step(&mut self, input: Input<Self>, out: &mut Output<Self>);

    /// Called after the last input of a batch, for output that is better produced once for the whole batch. Its actions
    /// belong to the last input.
    fn end_batch(&mut self, _out: &mut Output<Self>) {}
}

/// A named time-out. Arming one replaces the pending one of the same variant, whatever its fields are. The fields let a
/// role recognize a time-out that arrives too late.
pub trait TimerSpec: Clone + Debug + Eq + Hash {
    /// The range from which the role host draws the delay, in milliseconds.
    fn delay_ms(&self) -> RangeInclusive<u64>;
}

/// An input of a role.
#[derive(Clone, Debug)]
pub enum Input<R: Role> {
    /// An incarnation begins; the records have been replayed.
    Start,
    /// A message arrived, perhaps late, perhaps twice.
    Message {
        /// The server whose role sent it.
        from: ServerId,
        /// The message itself.
        message: R::Message,
    },
    /// An armed timer ran out.
    Timeout(R::Timer),
    /// A request of the role's own server.
    Request(R::Request),
}

/// An action of a role, taken after its records are durable.
#[derive(Clone, Debug)]
pub enum Action<R: Role> {
    /// Send a message to each of these servers; the sender may be among them.
    Send {
        /// The receiving servers.
        to: ServerSet,
        /// The message for all of them.
        message: R::Message,
    },
    /// Start a timer.
    Arm(R::Timer),
    /// Notify the own server.
    Notify(R::Notification),
    /// Log a step of the protocol.
    Trace(R::TraceEvent),
}

/// Collects the records and the actions of one batch.
#[derive(Debug)]
pub struct Output<R: Role> {
    records: Vec<R::Record>,
    actions: Vec<Action<R>>,
    trace_steps: bool,
}

impl<R: Role> Output<R> {
    /// Adds a record, which becomes durable before any action of this batch is taken.
    pub fn persist(&mut self, record: R::Record) {
        self.records.push(record);
    }

    /// Sends a message.
    pub fn send(&mut self, to: ServerSet, message: R::Message) {
        self.actions.push(Action::Send { to, message });
    }

    /// Starts a timer.
    pub fn arm(&mut self, timer: R::Timer) {
        self.actions.push(Action::Arm(timer));
    }

    /// Notifies the own server.
    pub fn notify(&mut self, outcome: R::Notification) {
        self.actions.push(Action::Notify(outcome));
    }

    /// Emits a trace event that is recorded even when step tracing is off.
    pub fn emit_always(&mut self, trace_event: R::TraceEvent) {
        self.actions.push(Action::Trace(trace_event));
    }

    /// Emits a step of the protocol; the event is not even built when step tracing is off.
    pub fn emit_step(&mut self, trace_event: impl FnOnce() -> R::TraceEvent) {
        if self.trace_steps {
            self.actions.push(Action::Trace(trace_event()));
        }
    }
}

/// Stable storage of one role: when [`StableStore::commit`] returns, the records survive any crash.
pub trait StableStore<Record> {
    /// The reason why records could not be made durable. After an error the content of the disk is unknown, so the
    /// process must stop.
    type Error;

    /// Makes all records durable, in order. Never called without records.
    fn commit(&mut self, records: &[Record]) -> Result<(), Self::Error>;
}

/// The stable storage of a role without records.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStableStore;

/// The record type of a role without records: it has no values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoRecord {}

impl StableStore<NoRecord> for NoStableStore {
    type Error = std::convert::Infallible;

    fn commit(&mut self, records: &[NoRecord]) -> Result<(), Self::Error> {
        match records.first() {
            None => Ok(()),
            Some(record) => match *record {},
        }
    }
}

/// The actions of a batch, by input and in order.
pub type Actions<C, R> = Vec<(C, Vec<Action<R>>)>;

/// A batch that the role has handled and whose records are not durable yet: its actions are out of reach.
#[must_use = "a batch that is dropped here is a crash between step and sync"]
pub struct Stepped<C, R: Role> {
    records: Vec<R::Record>,
    actions: Actions<C, R>,
}

/// A batch whose records are durable.
#[must_use = "a batch that is dropped here is a crash between sync and send"]
pub struct Released<C, R: Role> {
    actions: Actions<C, R>,
}

/// Steps the role through a batch. Each input comes with a context of the role host, which is returned with the actions
/// of that input. `facts` turns step tracing on.
///
/// A seeded bug intercepts the role here, between the role and every host. In a build without seeded bugs the first of
/// the two calls is [`Role::step`], and the second does nothing.
pub fn step_batch<C, R: Role>(
    role: &mut R,
    inputs: impl IntoIterator<Item = (C, Input<R>)>,
    facts: bool,
) -> Stepped<C, R> {
    let mut out = Output { records: Vec::new(), actions: Vec::new(), trace_steps: facts };
    let inputs = inputs.into_iter();
    let mut actions: Actions<C, R> = Vec::with_capacity(inputs.size_hint().0);
    for (context, input) in inputs {
        seeded_bugs::step(role, input, &mut out);
        actions.push((context, std::mem::take(&mut out.actions)));
    }
    if let Some((_, last)) = actions.last_mut() {
        std::mem::swap(&mut out.actions, last);
        role.end_batch(&mut out);
        *last = out.actions;
    }
    seeded_bugs::rewrite(role, &mut out.records, &mut actions);
    Stepped { records: out.records, actions }
}

impl<C, R: Role> Stepped<C, R> {
    /// Makes the records of the batch durable, and only then releases its actions.
    pub fn commit<D: StableStore<R::Record>>(self, disk: &mut D) -> Result<Released<C, R>, D::Error> {
        if !self.records.is_empty() {
            disk.commit(&self.records)?;
        }
        Ok(Released { actions: self.actions })
    }

    /// The records of the batch: for tests and models that replace the disk.
    pub fn records(&self) -> &[R::Record] {
        &self.records
    }
}

impl<C, R: Role> Released<C, R> {
    /// Number of actions in the batch.
    pub fn len(&self) -> usize {
        self.actions.iter().map(|(_, all)| all.len()).sum()
    }

    /// Whether the batch has no actions.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops all actions except the first `count`, like a process that is killed while it acts.
    pub fn keep_first(&mut self, count: usize) {
        let mut left = count;
        for (_, all) in &mut self.actions {
            all.truncate(left);
            left -= all.len();
        }
    }

    /// The actions of the batch, by input and in order.
    pub fn into_actions(self) -> Actions<C, R> {
        self.actions
    }
}

/// One turn: steps all inputs, commits once, then releases the actions.
pub fn turn<C, R: Role, D: StableStore<R::Record>>(
    role: &mut R,
    inputs: impl IntoIterator<Item = (C, Input<R>)>,
    disk: &mut D,
    facts: bool,
) -> Result<Actions<C, R>, D::Error> {
    Ok(step_batch(role, inputs, facts).commit(disk)?.into_actions())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_is_added_to_a_set_once() {
        let mut servers = ServerSet::default();
        assert!(servers.insert(ServerId(3)) && !servers.insert(ServerId(3)) && servers.insert(ServerId(ServerId::MAX)));
        assert_eq!((servers.len(), servers.contains(ServerId(3)), servers.contains(ServerId(4))), (2, true, false));
    }

    #[test]
    fn set_is_printed_as_runs_of_numbers() {
        let named = |numbers: &[u8]| numbers.iter().copied().map(ServerId).collect::<ServerSet>().numbers();
        assert_eq!([named(&[]), named(&[1, 2, 3, 4, 5]), named(&[1, 3, 5, 6])], ["", "1-5", "1, 3, 5-6"]);
    }

    #[test]
    fn role_is_parsed_from_its_own_name() {
        for role in RoleKind::ALL {
            assert_eq!(RoleKind::named(role.as_str()), Some(role));
        }
        assert_eq!(RoleKind::named("acceptor"), Some(RoleKind::Acceptor));
        assert_eq!(RoleKind::named(""), None);
    }
}
