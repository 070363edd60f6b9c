//! The messages that roles of different servers send each other, the types inside them, and which role receives each.

use std::fmt::{self, Debug};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{Ballot, Slot};
use crate::role::{Lane, RoleKind};

/// Identifies a command forever, in every history of every cluster. Two commands are the same if their ids are equal,
/// whatever their bytes are: the protocol has no other way to recognize a retry.
///
/// Session and sequence alone are not enough. They are small numbers, and a cluster that is restored from a backup or
/// begun anew counts them again from the start. Only the client and the servers know the nonce: no log line, page or
/// `Debug` output shows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommandId {
    /// The client's session; 0 if the command opens a session.
    pub session: u64,
    /// Random number that the client draws for this session.
    pub nonce: u128,
    /// The command's number in the session; 0 if the command opens a session.
    pub sequence: u64,
}

impl CommandId {
    /// The id of a command in an open session.
    pub const fn new(session: u64, nonce: u128, sequence: u64) -> CommandId {
        CommandId { session, nonce, sequence }
    }

    /// The id of the command that opens a session with this nonce.
    pub const fn opening(nonce: u128) -> CommandId {
        CommandId { session: 0, nonce, sequence: 0 }
    }

    /// A 16-bit hash of the nonce that may be shown: enough to tell the commands of a run apart, and far too little to
    /// guess the nonce.
    pub fn nonce_tag(&self) -> u16 {
        xxh3_64(&self.nonce.to_le_bytes()) as u16
    }
}

impl Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.session {
            0 => write!(f, "#0-~{:04x}", self.nonce_tag()),
            session => write!(f, "#{session}-{}", self.sequence),
        }
    }
}

/// A command of the replicated state machine. The protocol never looks inside.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Command {
    /// Identifies the command; equal ids mean the same command.
    pub id: CommandId,
    /// The bytes that the state machine interprets.
    #[serde(with = "payload")]
    pub payload: Arc<[u8]>,
}

impl Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({} B)", self.id, self.payload.len())
    }
}

/// (De)serializes a payload as one block of bytes, copied once; sharing it between the roles of a server costs nothing.
mod payload {
    use std::fmt;

    use super::Arc;
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(payload: &Arc<[u8]>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(payload)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<[u8]>, D::Error> {
        from.deserialize_bytes(PayloadVisitor)
    }

    struct PayloadVisitor;

    impl Visitor<'_> for PayloadVisitor {
        type Value = Arc<[u8]>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Arc<[u8]>, E> {
            Ok(bytes.into())
        }
    }
}

/// The content of one slot of the log.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Value {
    /// Changes nothing: fills a hole that a crashed proposer left.
    Noop,
    /// A client's command.
    Command(Command),
}

impl Value {
    /// The id of the command; `None` for a no-op.
    pub fn id(&self) -> Option<CommandId> {
        match self {
            Value::Noop => None,
            Value::Command(command) => Some(command.id),
        }
    }

    /// Approximate size of the value in a message, in bytes.
    pub fn size(&self) -> usize {
        match self {
            Value::Noop => 16,
            Value::Command(command) => 40 + command.payload.len(),
        }
    }
}

impl Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Noop => f.write_str("noop"),
            Value::Command(command) => Debug::fmt(command, f),
        }
    }
}

/// A value with its slot and a ballot: as accepted (in `PROMISE`) or as chosen (in `ENTRIES`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// The value's position in the log.
    pub slot: Slot,
    /// The ballot at which the value was accepted, or is known to be chosen.
    pub ballot: Ballot,
    /// A no-op or a command.
    pub value: Value,
}

/// A run of consecutive slots, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotRange {
    /// First slot of the run.
    pub first: Slot,
    /// Last slot of the run, included.
    pub last: Slot,
}

impl SlotRange {
    /// Whether the slot is in the run.
    pub fn contains(&self, slot: Slot) -> bool {
        self.first <= slot && slot <= self.last
    }

    /// The run that consists of this one slot.
    pub fn only(slot: Slot) -> SlotRange {
        SlotRange { first: slot, last: slot }
    }

    /// Groups slots, given in order, into the longest runs without a gap.
    pub fn runs(slots: impl IntoIterator<Item = Slot>) -> Vec<SlotRange> {
        let mut runs: Vec<SlotRange> = Vec::new();
        for slot in slots {
            match runs.last_mut() {
                Some(run) if run.last.next() == slot => run.last = slot,
                _ => runs.push(SlotRange::only(slot)),
            }
        }
        runs
    }
}

/// The request that a NACK refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NackedRequest {
    /// The `PREPARE` for all slots from this one on.
    Prepare(Slot),
    /// The `ACCEPT` whose first slot is this one; its other slots are refused too.
    Accept(Slot),
}

/// A page of what an acceptor has accepted. It is complete for the slots in `[from, to)` and leaves the slots from `to`
/// on unknown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Page {
    /// The first slot that the page covers.
    pub from: Slot,
    /// The first slot after the page; `None` if the page covers all later slots.
    pub end: Option<Slot>,
    /// All slots below this one are chosen, and this acceptor has forgotten them.
    pub truncated_below: Slot,
    /// The accepted values of the page, in slot order.
    pub accepted: Vec<Entry>,
    /// Slots whose accepted value the acceptor cannot read. The proposer must not take them for "nothing accepted".
    pub corrupt: Vec<SlotRange>,
}

/// A chunk of a snapshot, for a learner that is behind every peer's log.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// The last slot applied in the snapshot.
    pub slot: Slot,
    /// The digest of the whole snapshot; the receiver checks it after the last chunk.
    pub digest: u64,
    /// The chunk's number, from 0.
    pub index: u32,
    /// The chunk's content, encoded by the state machine.
    #[serde(with = "payload")]
    pub bytes: Arc<[u8]>,
    /// Where the next chunk begins; `None` if this chunk is the last.
    pub next: Option<PartToken>,
}

impl Debug for SnapshotChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = if self.next.is_none() { ", the last" } else { "" };
        write!(f, "chunk {} of {:?} ({} B{last})", self.index, self.slot, self.bytes.len())
    }
}

/// Where a chunk of a snapshot begins. The token is a type and not opaque bytes, so a wrong token from a peer already
/// fails when its message is decoded. An error while a server reads the snapshot can then only mean a corrupt disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PartToken {
    /// At this key, or at the next one if this key no longer exists.
    Key(#[serde(with = "serde_bytes")] Vec<u8>),
    /// After all keys: at this session, or at the next one if this session no longer exists.
    Session(u64),
}

impl PartToken {
    /// The beginning of a snapshot.
    pub fn first() -> PartToken {
        PartToken::Key(Vec::new())
    }
}

/// The next chunk that a learner wants, from the server that sent the last one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChunkRequest {
    /// The last slot applied in the snapshot.
    pub slot: Slot,
    /// The chunk's number, from 0.
    pub index: u32,
    /// Where the chunk begins, as its sender stated in the chunk before it.
    pub token: PartToken,
}

/// The messages of the protocol. The [module's essay](super) has a table of senders and receivers. PMS is *Paxos Made
/// Simple*, PMMC is *Paxos Made Moderately Complex*.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// Phase 1a (PMS "prepare request"). A proposer sends it to all acceptors to start a ballot. An acceptor that has
    /// promised nothing higher promises `ballot` and answers `PROMISE`; otherwise it answers `NACK`. With the same
    /// ballot and a later `from`, the ballot's owner requests the next page of the answer.
    Prepare {
        /// The ballot to promise.
        ballot: Ballot,
        /// First slot to report; the promise itself holds for all slots.
        from: Slot,
    },
    /// Phase 1b (PMS "response to a prepare request"). The acceptor has durably promised `ballot` and reports what it
    /// accepted in the slots of `page`. The proposer collects the pages until a quorum of acceptors has answered for a
    /// slot; these answers determine the slot's safe value.
    Promise {
        /// The promised ballot.
        ballot: Ballot,
        /// One page of the acceptor's report.
        page: Page,
    },
    /// A refusal: the acceptor has promised a higher ballot (PMMC: the proposer is "preempted"). The proposer uses
    /// rounds above `promised` from now on; a leader steps down at once.
    Nack {
        /// The refused ballot.
        ballot: Ballot,
        /// The refused request and its first slot.
        refused: NackedRequest,
        /// The higher ballot that the acceptor has promised.
        promised: Ballot,
    },
    /// Neither accepted nor refused. An acceptor answers an `ACCEPT` with it if the acceptor has forgotten the slots,
    /// which were chosen. The proposer treats all slots below `below` as chosen and proposes nothing more in them.
    Truncated {
        /// The ballot of the `ACCEPT`.
        ballot: Ballot,
        /// The first slot of the `ACCEPT`.
        slot: Slot,
        /// All slots below this one are chosen.
        below: Slot,
    },
    /// Phase 2a (PMS "accept request"). A proposer sends it to all servers once a quorum has promised `ballot`. An
    /// acceptor that has promised nothing higher accepts one value per slot from `first` on, and answers `ACCEPTED`;
    /// otherwise it answers `NACK`. Learners keep the values, because `ACCEPTED` and `CHOSEN` carry
    /// none.
    Accept {
        /// The ballot of all these proposals.
        ballot: Ballot,
        /// The slot of the first value; each next value is for the next slot.
        first: Slot,
        /// One value per slot.
        values: Vec<Value>,
    },
    /// Phase 2b, a vote (PMS "accepted"). The acceptor has durably accepted a value in each of these slots. It sends
    /// the vote to the owner of `ballot`, whose learner counts distinct acceptors.
    Accepted {
        /// The ballot of the `ACCEPT`.
        ballot: Ballot,
        /// The accepted slots.
        slots: SlotRange,
    },
    /// In each of these slots, a quorum has accepted the value of `ballot` (PMMC "decision", without the value). The
    /// learner that counted the votes sends it to all others. A receiver applies a slot if it holds a value of this
    /// ballot or a higher one (PMS P2b).
    Chosen {
        /// The ballot at which the slots were chosen.
        ballot: Ballot,
        /// The chosen slots.
        slots: SlotRange,
    },
    /// A learner's applied slot and state digest, sent to all servers every 100 ms. A learner that is behind catches up
    /// from a peer that is ahead, and compares digests to detect divergence. A proposer uses it to know which slots are
    /// chosen.
    Progress {
        /// The last slot applied.
        applied: Slot,
        /// The digest of the sender's state after that slot.
        digest: u64,
    },
    /// A learner with a gap requests the chosen entries from `from` on. The peer answers `ENTRIES`, or the first
    /// `SNAPSHOT` chunk if its log no longer has that slot.
    CatchUp {
        /// The first slot that the sender has not applied.
        from: Slot,
    },
    /// The answer to `CATCHUP`: chosen slots, in order and without a gap; perhaps none. The receiver applies those that
    /// come next.
    Entries {
        /// Chosen entries, in slot order.
        entries: Vec<Entry>,
        /// The last slot that the sender has applied: if it is higher, the receiver asks for more.
        applied: Slot,
    },
    /// A learner asks all acceptors up to which slot a value may have been chosen (Paxos Quorum Reads).
    Read {
        /// The round of reads; never used twice, in any incarnation of the learner.
        id: u128,
    },
    /// The answer to `READ`: no slot above `slot` has been accepted here. After a quorum of answers, the learner waits
    /// until the highest of these slots is applied, and answers the reads.
    ReadReply {
        /// The round that the `READ` named.
        id: u128,
        /// The highest slot that is accepted, corrupt or truncated at the acceptor.
        slot: Slot,
    },
    /// A learner whose reads wait for `slot` asks a proposer to get every slot up to it chosen. A follower passes the
    /// request of its own learner on to the leader.
    Fill {
        /// The highest slot to be chosen.
        slot: Slot,
    },
    /// A proposer forwards its clients' commands to the leader. The sender keeps them until they are applied.
    Forward {
        /// The forwarded commands.
        commands: Vec<Command>,
    },
    /// The answer to a `FORWARD` of which at least one command was not taken. It is only a hint: some of the commands
    /// may have been taken.
    ForwardRefused {
        /// The ballot of the leader that the sender knows; its own ballot if it leads and has no room.
        leader: Option<Ballot>,
    },
    /// A leader sends it every 30 ms to all other proposers, which then follow this ballot.
    Heartbeat {
        /// The leader's ballot.
        ballot: Ballot,
    },
    /// A follower's reply to `HEARTBEAT`. A leader without these replies from a majority for 300 ms steps down.
    HeartbeatReply {
        /// The leader's ballot.
        ballot: Ballot,
    },
    /// Passes on which ballot leads; it proves nothing. A follower sends it at most every 60 ms, and a candidate that
    /// waits for promises sends it every 30 ms. A proposer without heartbeats then does not campaign.
    LeaderHint {
        /// The leader's ballot, or the candidate's.
        ballot: Ballot,
    },
    /// A proposer that wants to campaign asks all others whether they know of a leader. It prepares a ballot only if a
    /// majority does not.
    PreVote {
        /// The sender's number of this pre-vote.
        id: u64,
    },
    /// The answer to `PREVOTE`; it promises nothing.
    PreVoteReply {
        /// The number of the pre-vote.
        id: u64,
        /// Whether the sender leads, or has lately received a heartbeat or a leader hint.
        hears: bool,
    },
    /// A chunk of a snapshot. It answers a `CATCHUP` for slots that the sender's log no longer has, or a
    /// `FETCHSNAPSHOT`.
    Snapshot(SnapshotChunk),
    /// Requests the next chunk of the snapshot that the receiver of this message has begun to send.
    FetchSnapshot(ChunkRequest),
}

/// Defines for each message: its name in capitals, the receiving roles, whether it is routine, its lane, and the
/// approximate size of its values in bytes. For example, `Promise { page, .. } = "PROMISE", [Proposer], step, by_size,
/// size_of_entries(..)` is called PROMISE, goes to proposers, is no routine message (its loss costs a step), travels in
/// the lane that fits its size, and has the size of its page's entries. Control messages overtake bulk ones.
macro_rules! messages {
    ($($variant:ident { $($field:tt)* } = $name:literal, [$($role:ident),+], $kind:ident, $lane:ident, $size:expr;)*) => {
        impl Message {
            /// The message's name in log lines, in capitals.
            pub fn name(&self) -> &'static str {
                match self { $(Message::$variant { .. } => $name),* }
            }

            /// The roles of the receiving server that handle the message.
            pub fn recipients(&self) -> &'static [RoleKind] {
                match self { $(Message::$variant { .. } => &[$(RoleKind::$role),+]),* }
            }

            /// Whether the message is sent repeatedly, so that a role that is down misses nothing.
            pub fn is_routine(&self) -> bool {
                match self { $(Message::$variant { .. } => messages!(@$kind)),* }
            }

            /// The lane on which the message travels.
            pub fn lane(&self) -> Lane {
                match self { $(Message::$variant { .. } => messages!(@$lane self)),* }
            }

            /// Approximate size of the message's values, in bytes.
            pub fn size(&self) -> usize {
                match self { $(Message::$variant { $($field)* } => $size),* }
            }
        }
    };
    (@control $message:ident) => { Lane::Control };
    (@bulk $message:ident) => { Lane::Bulk };
    (@by_size $message:ident) => { if $message.size() == 0 { Lane::Control } else { Lane::Bulk } };
    (@routine) => { true };
    (@step) => { false };
}

messages! {
    Prepare { .. } = "PREPARE", [Acceptor], step, control, 0;
    Promise { page, .. } = "PROMISE", [Proposer], step, by_size, size_of_entries(&page.accepted);
    Nack { .. } = "NACK", [Proposer], step, control, 0;
    Truncated { .. } = "TRUNCATED", [Proposer], step, control, 0;
    // Every learner gets the value from the proposer itself; votes only name slot and ballot.
    Accept { values, .. } = "ACCEPT", [Acceptor, Learner], step, bulk, values.iter().map(Value::size).sum();
    Accepted { .. } = "ACCEPTED", [Learner], step, control, 0;
    // These two must not overtake the ACCEPTs that they refer to: every learner would request values that are in
    // flight.
    Chosen { .. } = "CHOSEN", [Learner], step, bulk, 0;
    Progress { .. } = "PROGRESS", [Learner, Proposer], routine, bulk, 0;
    CatchUp { .. } = "CATCHUP", [Learner], routine, control, 0;
    Entries { entries, .. } = "ENTRIES", [Learner], routine, bulk, size_of_entries(entries);
    Read { .. } = "READ", [Acceptor], routine, control, 0;
    ReadReply { .. } = "READREPLY", [Learner], routine, control, 0;
    Fill { .. } = "FILL", [Proposer], step, control, 0;
    Forward { commands } = "FORWARD", [Proposer], step, bulk, commands.iter().map(|one| 40 + one.payload.len()).sum();
    ForwardRefused { .. } = "FORWARDREFUSED", [Proposer], step, control, 0;
    Heartbeat { .. } = "HEARTBEAT", [Proposer], routine, control, 0;
    HeartbeatReply { .. } = "HEARTBEATREPLY", [Proposer], routine, control, 0;
    LeaderHint { .. } = "LEADERHINT", [Proposer], routine, control, 0;
    PreVote { .. } = "PREVOTE", [Proposer], routine, control, 0;
    PreVoteReply { .. } = "PREVOTEREPLY", [Proposer], routine, control, 0;
    Snapshot { 0: part } = "SNAPSHOT", [Learner], routine, bulk, part.bytes.len();
    FetchSnapshot { .. } = "FETCHSNAPSHOT", [Learner], routine, control, 0;
}

/// Bytes of an [`Entry`] beside its value: slot and ballot.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 24;

fn size_of_entries(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| ENTRY_OVERHEAD_BYTES + entry.value.size()).sum()
}

impl Message {
    /// Whether this role of the receiving server handles the message.
    pub fn is_for(&self, role: RoleKind) -> bool {
        self.recipients().contains(&role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_where_a_slot_is_missing() {
        let runs = |slots: &[u64]| {
            let runs = SlotRange::runs(slots.iter().copied().map(Slot));
            runs.into_iter().map(|run| (run.first.0, run.last.0)).collect::<Vec<_>>()
        };
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[4, 5, 6, 8, 10, 11]), [(4, 6), (8, 8), (10, 11)]);
    }

    #[test]
    fn properties_of_messages_match_the_table() {
        let (ballot, command) = (Ballot::ZERO, Command { id: CommandId::opening(1), payload: vec![0; 60].into() });
        let accept = Message::Accept { ballot, first: Slot(1), values: vec![Value::Noop, Value::Command(command)] };
        assert_eq!((accept.name(), accept.size(), accept.is_routine()), ("ACCEPT", 116, false));
        assert_eq!(accept.recipients(), [RoleKind::Acceptor, RoleKind::Learner]);
        assert!(accept.is_for(RoleKind::Learner) && !accept.is_for(RoleKind::Proposer));
        let entry = Entry { slot: Slot(1), ballot, value: Value::Noop };
        let entries = Message::Entries { entries: vec![entry], applied: Slot(1) };
        assert_eq!((entries.name(), entries.size(), entries.is_routine()), ("ENTRIES", 40, true));
    }
}
