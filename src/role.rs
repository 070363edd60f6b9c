//! The one contract between a protocol and the world that runs it.
//!
//! A [`Role`] is a value: it has no clock, no socket, no file, no thread and no randomness. It takes an [`Input`],
//! changes itself, and says in an [`Output`] what should happen. Whoever runs it is a *shell*: threads over TCP, a
//! simulator, a model checker. All of them run a role through the same [`turn`], which holds the rule that every
//! consensus protocol stands on:
//!
//! > What a role says must not leave before what it must remember is durable.
//!
//! The rule is held by types. [`step_all`] hands back a [`Stepped`], whose actions nobody can reach; only
//! [`Stepped::commit`], which writes the records, turns it into a [`Released`], whose actions can be taken. A crash is
//! to drop either of them.
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

    /// From bytes that nobody vouches for: a set of servers has no room for a larger number.
    fn try_from(number: u8) -> Result<ServerId, String> {
        let server = ServerId(number);
        if number <= ServerId::MAX { Ok(server) } else { Err(format!("server numbers end at {}", ServerId::MAX)) }
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

/// A set of servers. Distinct by construction, iterated in order of their numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ServerSet(u64);

impl ServerSet {
    /// The set of nobody.
    pub const NONE: ServerSet = ServerSet(0);

    /// The set of one server.
    pub fn only(server: ServerId) -> ServerSet {
        [server].into_iter().collect()
    }

    /// Servers 1 to `count`.
    pub fn first(count: u8) -> ServerSet {
        (1..=count).map(ServerId).collect()
    }

    /// Adds a server; true if it was not there before.
    pub fn insert(&mut self, server: ServerId) -> bool {
        assert!(server.0 <= ServerId::MAX, "server numbers end at {}", ServerId::MAX);
        let before = self.0;
        self.0 |= 1 << server.0;
        self.0 != before
    }

    /// Whether the set holds the server.
    pub fn contains(&self, server: ServerId) -> bool {
        server.0 <= ServerId::MAX && self.0 & (1 << server.0) != 0
    }

    /// How many servers the set holds.
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
    /// The numbers, for a sentence: "1-3" or "1, 3, 5-7".
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

/// How a message travels: on every link, and in every mailbox, each lane has room of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Small, and of use at once: it goes first.
    Control,
    /// It carries values, or speaks of those that do and must not overtake them.
    Bulk,
}

/// The roles of a server, of every protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RoleKind {
    /// Gets commands chosen.
    Proposer,
    /// The memory of the protocol.
    Acceptor,
    /// Finds out what was chosen, and applies it.
    Learner,
    /// Two-phase commit: asks everybody, and decides.
    Coordinator,
    /// Two-phase commit: votes, remembers, and does what was decided.
    Participant,
}

impl RoleKind {
    /// The three of Paxos.
    pub const PAXOS: [RoleKind; 3] = [RoleKind::Proposer, RoleKind::Acceptor, RoleKind::Learner];
    /// Those of every protocol, by their number.
    pub const ALL: [RoleKind; 5] =
        [RoleKind::Proposer, RoleKind::Acceptor, RoleKind::Learner, RoleKind::Coordinator, RoleKind::Participant];

    /// As it is written: `acceptor`.
    pub fn as_str(self) -> &'static str {
        match self {
            RoleKind::Proposer => "proposer",
            RoleKind::Acceptor => "acceptor",
            RoleKind::Learner => "learner",
            RoleKind::Coordinator => "coordinator",
            RoleKind::Participant => "participant",
        }
    }

    /// The role that is written so.
    pub fn named(word: &str) -> Option<RoleKind> {
        RoleKind::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

/// A part of a protocol: same state and same input give the same new state and the same output.
pub trait Role: Sized + 'static {
    /// What roles of different servers say to each other.
    type Message: Clone + Debug;
    /// What a role must remember across a crash.
    type Record: Clone + Debug;
    /// A named time-out.
    type Timer: TimerSpec;
    /// What the server that the role lives on asks of it.
    type Request: Clone + Debug;
    /// What the role tells the server that it lives on.
    type Notification: Clone + Debug;
    /// A step of the protocol, for people to read. It has no effect on anything.
    type TraceEvent: Clone + Debug;

    /// Takes back one remembered record. Recovery is the fold of all records, in order, and nothing else.
    fn replay(&mut self, record: Self::Record);

    /// Takes one input.
    fn step(&mut self, input: Input<Self>, out: &mut Output<Self>);

    /// All inputs of a group have been taken: says what is better said once for all of them. What it does counts as
    /// done by the last input.
    fn end_batch(&mut self, _out: &mut Output<Self>) {}
}

/// A named time-out. Arming one replaces the pending one of the same variant, whatever its fields say; its fields let
/// a role recognise a time-out that comes too late.
pub trait TimerSpec: Clone + Debug + Eq + Hash {
    /// From this range, in milliseconds, the shell draws the delay.
    fn delay_ms(&self) -> RangeInclusive<u64>;
}

/// What can happen to a role.
#[derive(Clone, Debug)]
pub enum Input<R: Role> {
    /// A life begins: the records have been replayed.
    Start,
    /// A message arrived, perhaps late, perhaps twice.
    Message {
        /// The server whose role sent it.
        from: ServerId,
        /// What it says.
        message: R::Message,
    },
    /// An armed timer ran out.
    Timeout(R::Timer),
    /// The role's own server asks something.
    Request(R::Request),
}

/// What a role wants done.
#[derive(Clone, Debug)]
pub enum Action<R: Role> {
    /// Send a message to each of these servers; the sender may be among them.
    Send {
        /// Whom to tell.
        to: ServerSet,
        /// What to tell.
        message: R::Message,
    },
    /// Start a timer.
    Arm(R::Timer),
    /// Tell the own server.
    Notify(R::Notification),
    /// Show people a step of the protocol.
    Trace(R::TraceEvent),
}

/// Collects what the steps of one group want remembered and done.
#[derive(Debug)]
pub struct Output<R: Role> {
    records: Vec<R::Record>,
    actions: Vec<Action<R>>,
    trace_steps: bool,
}

impl<R: Role> Output<R> {
    /// Remembers a record before any action of this group is taken.
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

    /// Tells the own server.
    pub fn notify(&mut self, outcome: R::Notification) {
        self.actions.push(Action::Notify(outcome));
    }

    /// Shows what is rare enough to be shown always.
    pub fn emit_always(&mut self, fact: R::TraceEvent) {
        self.actions.push(Action::Trace(fact));
    }

    /// Shows a step of the protocol; the fact is not even made when nobody looks.
    pub fn emit_step(&mut self, fact: impl FnOnce() -> R::TraceEvent) {
        if self.trace_steps {
            self.actions.push(Action::Trace(fact()));
        }
    }
}

/// Stable storage of one role: when [`StableStore::commit`] returns, the records survive any crash.
pub trait StableStore<Record> {
    /// Why records could not be made durable. After an error nobody knows what is on the disk: the process must stop.
    type Error;

    /// Makes the records durable, all of them, in order. Never called with none.
    fn commit(&mut self, records: &[Record]) -> Result<(), Self::Error>;
}

/// The disk of a role that has nothing to remember.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStableStore;

/// The record of a role that has nothing to remember: there is none.
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

/// The actions of a group, by input and in order.
pub type Actions<C, R> = Vec<(C, Vec<Action<R>>)>;

/// A group of inputs that the role has taken, with the records not yet durable: what it wants done is out of reach.
#[must_use = "a group that is dropped here is a crash between step and sync"]
pub struct Stepped<C, R: Role> {
    records: Vec<R::Record>,
    actions: Actions<C, R>,
}

/// A group whose records are durable.
#[must_use = "a group that is dropped here is a crash between sync and send"]
pub struct Released<C, R: Role> {
    actions: Actions<C, R>,
}

/// Steps the role through a group of inputs. Each input comes with a context of the shell's, which comes back with the
/// actions that the input led to.
///
/// A seeded bug stands around the role here, between it and every shell. In a build without seeded bugs the first of the
/// two calls is [`Role::step`], and the second does nothing.
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
    /// Makes the records of the group durable, and only then lets its actions go.
    pub fn commit<D: StableStore<R::Record>>(self, disk: &mut D) -> Result<Released<C, R>, D::Error> {
        if !self.records.is_empty() {
            disk.commit(&self.records)?;
        }
        Ok(Released { actions: self.actions })
    }

    /// The records that the group wants durable: for tests and models that are their own disk.
    pub fn records(&self) -> &[R::Record] {
        &self.records
    }
}

impl<C, R: Role> Released<C, R> {
    /// How many actions are in it.
    pub fn len(&self) -> usize {
        self.actions.iter().map(|(_, all)| all.len()).sum()
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all actions but so many, as a process does that is killed while it acts.
    pub fn keep_first(&mut self, count: usize) {
        let mut left = count;
        for (_, all) in &mut self.actions {
            all.truncate(left);
            left -= all.len();
        }
    }

    /// The actions of the group, by input and in order.
    pub fn into_actions(self) -> Actions<C, R> {
        self.actions
    }
}

/// One turn: step all, commit once, then release.
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
    fn a_server_is_new_to_a_set_once() {
        let mut servers = ServerSet::default();
        assert!(servers.insert(ServerId(3)) && !servers.insert(ServerId(3)) && servers.insert(ServerId(ServerId::MAX)));
        assert_eq!((servers.len(), servers.contains(ServerId(3)), servers.contains(ServerId(4))), (2, true, false));
    }

    #[test]
    fn a_sentence_names_a_set_by_its_runs() {
        let named = |numbers: &[u8]| numbers.iter().copied().map(ServerId).collect::<ServerSet>().numbers();
        assert_eq!([named(&[]), named(&[1, 2, 3, 4, 5]), named(&[1, 3, 5, 6])], ["", "1-5", "1, 3, 5-6"]);
    }

    #[test]
    fn each_role_has_a_name_and_is_known_by_it() {
        for role in RoleKind::ALL {
            assert_eq!(RoleKind::named(role.as_str()), Some(role));
        }
        assert_eq!(RoleKind::named("acceptor"), Some(RoleKind::Acceptor));
        assert_eq!(RoleKind::named(""), None);
    }
}
