//! What the roles of different servers say to each other, and who hears it.

use std::fmt::{self, Debug};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{Ballot, Slot};
use crate::role::{Lane, RoleKind};

/// Names a command for ever, in every history of every cluster. Two commands are the same if their ids are, whatever
/// their bytes say: the protocol has no other way to tell a retry from a second wish.
///
/// Session and sequence alone would not do: they are small numbers, and the cluster's next history counts them again.
/// Only the client and the servers know the nonce; nothing that is shown to people or strangers has it, this type's
/// `Debug` included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommandId {
    /// The client's session; 0 if the command opens one.
    pub session: u64,
    /// Drawn by the client for this session.
    pub nonce: u128,
    /// The command's number in the session; 0 if it opens one.
    pub sequence: u64,
}

impl CommandId {
    /// A command's name.
    pub const fn new(session: u64, nonce: u128, sequence: u64) -> CommandId {
        CommandId { session, nonce, sequence }
    }

    /// The name of the command that opens a session with this nonce.
    pub const fn opening(nonce: u128) -> CommandId {
        CommandId { session: 0, nonce, sequence: 0 }
    }

    /// What may be shown of the nonce: enough to tell the commands of a run apart, and far too little to guess it.
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
    /// Which command it is.
    pub id: CommandId,
    /// What it says to the state machine.
    #[serde(with = "payload")]
    pub payload: Arc<[u8]>,
}

impl Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({} B)", self.id, self.payload.len())
    }
}

/// A payload as one block of bytes, copied once; sharing it between roles of a server costs nothing.
mod payload {
    use std::fmt;

    use super::Arc;
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(payload: &Arc<[u8]>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(payload)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<[u8]>, D::Error> {
        from.deserialize_bytes(Bytes)
    }

    struct Bytes;

    impl Visitor<'_> for Bytes {
        type Value = Arc<[u8]>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Arc<[u8]>, E> {
            Ok(bytes.into())
        }
    }
}

/// What a slot of the log can hold.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Value {
    /// Nothing to do: fills a hole that a dead proposer left.
    Noop,
    /// A command.
    Command(Command),
}

impl Value {
    /// The id of the command, if it is one.
    pub fn id(&self) -> Option<CommandId> {
        match self {
            Value::Noop => None,
            Value::Command(command) => Some(command.id),
        }
    }

    /// About how many bytes the value takes in a message.
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

/// A value with its slot and a ballot: as accepted (PROMISE) or as chosen (ENTRIES).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the log.
    pub slot: Slot,
    /// The ballot at which it was accepted, or known to be chosen.
    pub ballot: Ballot,
    /// The value.
    pub value: Value,
}

/// A run of slots, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotRange {
    /// The first slot.
    pub first: Slot,
    /// The last slot.
    pub last: Slot,
}

impl SlotRange {
    /// Whether the slot is in the run.
    pub fn contains(&self, slot: Slot) -> bool {
        self.first <= slot && slot <= self.last
    }

    /// The run of this one slot.
    pub fn only(slot: Slot) -> SlotRange {
        SlotRange { first: slot, last: slot }
    }

    /// Slots in order, as the longest runs without a gap.
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

/// Which request a NACK refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NackedRequest {
    /// The PREPARE for all slots from this one.
    Prepare(Slot),
    /// The ACCEPT for this slot, and those behind it in the same message.
    Accept(Slot),
}

/// A page of what an acceptor has accepted: complete for the slots in `[from, to)`, and silent about those behind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Page {
    /// The first slot that it speaks of.
    pub from: Slot,
    /// The first slot that it does not speak of any more; None if it speaks of all.
    pub to: Option<Slot>,
    /// All slots below were chosen and forgotten here.
    pub truncated_below: Slot,
    /// What was accepted, in slot order.
    pub accepted: Vec<Entry>,
    /// Slots whose answer is unknown: by no means "nothing accepted".
    pub damaged: Vec<SlotRange>,
}

/// A part of a state: what a learner gets that is further behind than anybody's log reaches.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// Every slot up to this one was applied to the state.
    pub slot: Slot,
    /// The digest of the whole state.
    pub digest: u64,
    /// Which part it is, from 0.
    pub index: u32,
    /// What the state machine made of it.
    #[serde(with = "payload")]
    pub bytes: Arc<[u8]>,
    /// Where the next part begins; None if this is the last one.
    pub next: Option<PartToken>,
}

impl Debug for SnapshotChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = if self.next.is_none() { ", the last" } else { "" };
        write!(f, "part {} of {:?} ({} B{last})", self.index, self.slot, self.bytes.len())
    }
}

/// Where a part of a state begins. It is decoded with the message that names it, and is not a string of bytes that only
/// its sender understands: whoever reads a state from its disk decodes there what the disk has written, and nothing
/// else, so that an error is the disk's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PartToken {
    /// With this key, or with the next one if it is no more.
    Key(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Behind all keys: with this session, or with the next one if it is no more.
    Session(u64),
}

impl PartToken {
    /// Where a state begins.
    pub fn first() -> PartToken {
        PartToken::Key(Vec::new())
    }
}

/// Names a part of a state to whoever has sent the one before.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChunkRequest {
    /// The state's slot.
    pub slot: Slot,
    /// Which part.
    pub index: u32,
    /// Where it begins, as its sender has said.
    pub token: PartToken,
}

/// The messages of the protocol. See the table in the [module's essay](super); who hears each, and what else is known
/// of it, stands below.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// Phase 1a: promise to take nothing below `ballot`, and tell what you have accepted from slot `from` on. With a
    /// later slot and the same ballot its owner asks for the next page of the answer.
    Prepare {
        /// The ballot to promise.
        ballot: Ballot,
        /// The first slot of interest; the promise itself is for all slots.
        from: Slot,
    },
    /// Phase 1b: promised, and here is what was accepted at or above the slot asked from, as far as one message carries
    /// it.
    Promise {
        /// The ballot promised.
        ballot: Ballot,
        /// What was accepted.
        page: Page,
    },
    /// A refusal: the acceptor has promised a higher ballot.
    Nack {
        /// The ballot refused.
        ballot: Ballot,
        /// What was refused.
        refused: NackedRequest,
        /// The ballot that the acceptor is bound to.
        promised: Ballot,
    },
    /// Neither accepted nor refused: the slot was chosen long ago and its value is forgotten here.
    Truncated {
        /// The ballot of the ACCEPT.
        ballot: Ballot,
        /// The first slot of the ACCEPT.
        slot: Slot,
        /// All slots below this one are chosen.
        below: Slot,
    },
    /// Phase 2a: accept these values, one a slot, from `first` on. A value travels in this message and nowhere else.
    Accept {
        /// The ballot of the proposals.
        ballot: Ballot,
        /// The slot of the first value; the next value is for the next slot.
        first: Slot,
        /// The values.
        values: Vec<Value>,
    },
    /// Phase 2b: accepted, and durable.
    Accepted {
        /// The ballot at which they were accepted.
        ballot: Ballot,
        /// The slots.
        slots: SlotRange,
    },
    /// A majority has accepted each of the slots at one ballot.
    Chosen {
        /// That ballot.
        ballot: Ballot,
        /// The slots.
        slots: SlotRange,
    },
    /// How far a learner is; every 100 ms.
    Progress {
        /// The last slot applied.
        applied: Slot,
        /// The digest of its state machine after that slot.
        digest: u64,
    },
    /// "Send me what was chosen from this slot on."
    CatchUp {
        /// The first slot missing.
        from: Slot,
    },
    /// Chosen slots, in order and without a gap; perhaps none.
    Entries {
        /// The entries, each chosen.
        entries: Vec<Entry>,
        /// The last slot that the sender has applied: there may be more to ask for.
        applied: Slot,
    },
    /// Asks an acceptor how far a value may have been chosen (Paxos Quorum Reads).
    Read {
        /// The round of reads; never used twice, in any life of the asker.
        id: u128,
    },
    /// The answer: no slot above this one has been accepted here.
    ReadReply {
        /// The round of reads.
        id: u128,
        /// The highest slot accepted, damaged or truncated.
        slot: Slot,
    },
    /// "Get every slot up to this one chosen: I wait for it."
    Fill {
        /// The slot that somebody waits for.
        slot: Slot,
    },
    /// "Get these commands chosen, you lead": from the proposer that owns them, and keeps them until they are applied.
    Forward {
        /// The commands.
        commands: Vec<Command>,
    },
    /// The answer to a FORWARD that was of no use. A hint, and no more: the commands may have been taken before.
    ForwardRefused {
        /// The ballot of the leader that the sender knows; its own if it leads and has no room.
        leader: Option<Ballot>,
    },
    /// "I lead": every 30 ms, to all other proposers.
    Heartbeat {
        /// The leader's ballot.
        ballot: Ballot,
    },
    /// "I hear you": without these from a majority a leader cannot know that it is one.
    HeartbeatReply {
        /// The leader's ballot.
        ballot: Ballot,
    },
    /// "I hear a leader", or "I have asked for promises": for those who hear none, so that they leave it alone.
    LeaderHint {
        /// The leader's ballot.
        ballot: Ballot,
    },
    /// "Do you hear a leader? If a majority does not, I shall stand."
    PreVote {
        /// Which question of the asker's it is.
        id: u64,
    },
    /// The answer.
    PreVoteReply {
        /// Which question it answers.
        id: u64,
        /// Whether the sender leads, or has lately heard a leader or heard of one.
        hears: bool,
    },
    /// A part of a state, in answer to a CATCHUP for slots that nobody's log reaches back to, or to a FETCH.
    Snapshot(SnapshotChunk),
    /// "Send me this part of your state too."
    FetchSnapshot(ChunkRequest),
}

/// Writes down, for each message, its fields that take room, its name in the papers, in capitals, the roles of the
/// receiving server that hear it, whether it is routine, its lane, and about how many bytes its values take.
macro_rules! messages {
    ($($variant:ident { $($field:tt)* } = $name:literal, [$($role:ident),+], $kind:ident, $lane:ident, $size:expr;)*) => {
        impl Message {
            /// The message's name in the papers, in capitals.
            pub fn name(&self) -> &'static str {
                match self { $(Message::$variant { .. } => $name),* }
            }

            /// The roles of the receiving server that hear the message.
            pub fn recipients(&self) -> &'static [RoleKind] {
                match self { $(Message::$variant { .. } => &[$(RoleKind::$role),+]),* }
            }

            /// Whether it comes again and again from everybody, and means nothing to a role that is down.
            pub fn is_routine(&self) -> bool {
                match self { $(Message::$variant { .. } => messages!(@$kind)),* }
            }

            /// How it travels.
            pub fn lane(&self) -> Lane {
                match self { $(Message::$variant { .. } => messages!(@$lane self)),* }
            }

            /// About how many bytes its values take.
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
    // The learner of every server hears the value from the proposer itself; votes only name slot and ballot.
    Accept { values, .. } = "ACCEPT", [Acceptor, Learner], step, bulk, values.iter().map(Value::size).sum();
    Accepted { .. } = "ACCEPTED", [Learner], step, control, 0;
    // In front of the ACCEPTs that they speak of, these two would make every learner ask for what is on its way.
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

fn size_of_entries(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| 24 + entry.value.size()).sum()
}

impl Message {
    /// Whether the message is for this role of the receiving server.
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
    fn what_is_said_of_a_message_stands_in_the_table() {
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
