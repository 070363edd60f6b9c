//! The timers, requests, notifications and trace events of a learner.

use std::ops::RangeInclusive;

use crate::paxos::{Ballot, ChunkRequest, CommandId, Entry, LeftBehind, Slot, SlotRange, StateMachine, Value};
use crate::role::{ServerId, ServerSet, TimerSpec};

/// A time-out of a learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LearnerTimer {
    /// The tick of 100 ms: time to send PROGRESS.
    Progress,
    /// A gap exists; the missing slots may still arrive.
    Gap,
    /// The peer asked for entries, or for a chunk of a snapshot, has not answered.
    CatchUp {
        /// Number of recent requests without an answer in time.
        unanswered: u32,
    },
    /// A round of reads has no majority yet.
    Read {
        /// The id of the round.
        id: u128,
    },
    /// A slot that reads wait for is still not applied.
    Fill {
        /// How often the slot was asked for.
        tries: u32,
    },
}

impl TimerSpec for LearnerTimer {
    fn delay_ms(&self) -> RangeInclusive<u64> {
        match *self {
            LearnerTimer::Progress => 100..=100,
            LearnerTimer::Gap => 50..=50,
            // The delay grows. An answer has up to a megabyte, and a learner that asks the next peer before it has
            // arrived starts again forever.
            LearnerTimer::CatchUp { unanswered } => {
                let delay = 200 << unanswered.min(3);
                delay..=delay
            }
            LearnerTimer::Read { .. } => 100..=150,
            // 50 to 150 ms, doubling up to 0.8 s.
            LearnerTimer::Fill { tries } => (50 << tries.min(4))..=(150 << tries.min(3)).min(800),
        }
    }
}

/// A request of the server to its learner.
#[derive(Clone, Debug)]
pub enum LearnerRequest<Q> {
    /// A linearizable read.
    Read {
        /// Identifies the read; the answer carries it.
        token: u64,
        /// The query for the state machine.
        query: Q,
    },
    /// The checkpoint that was to be written is durable, or could not be written.
    CheckpointDone {
        /// The last slot in the checkpoint.
        slot: Slot,
        /// Whether the checkpoint is durable.
        is_durable: bool,
    },
    /// Write a checkpoint soon, however little has changed.
    RequestCheckpoint,
    /// Report the results of these commands, whose clients waited while a snapshot was installed.
    FindResults(Vec<CommandId>),
    /// These slots of the own acceptor are corrupt.
    Repair(Vec<SlotRange>),
}

/// A notification of the learner to its server.
#[derive(Clone, Debug)]
pub enum LearnerNotification<M: StateMachine> {
    /// A slot was applied. Every slot is reported, whichever server proposed it, for the pending requests.
    Applied {
        /// The applied slot.
        slot: Slot,
        /// The id of its command; `None` for a no-op.
        id: Option<CommandId>,
        /// The acceptors whose votes this learner counted until the slot was chosen; empty if it learned from another
        /// server that the slot is chosen.
        accepted_by: ServerSet,
        /// The result of applying it.
        outcome: M::Outcome,
    },
    /// The applied slot, for the own proposer. Sent once for all slots of a batch.
    Advanced {
        /// The last slot applied.
        applied: Slot,
        /// The commands in the slots applied since the last such notification.
        ids: Vec<CommandId>,
    },
    /// Votes were counted for slots that are not chosen yet: the own proposer's slots make progress.
    Counted,
    /// The answer to a read.
    Answer {
        /// The token of the request.
        token: u64,
        /// The answer is from the state after exactly this slot.
        slot: Slot,
        /// The state machine's answer.
        answer: M::Answer,
    },
    /// A read found no majority, or its slot was not applied in time.
    ReadFailed {
        /// The token of the request.
        token: u64,
        /// The acceptors that answered the last round.
        answered: ServerSet,
    },
    /// A checkpoint is to be written.
    Checkpoint {
        /// The last slot in the checkpoint.
        slot: Slot,
        /// The digest of the state after that slot.
        digest: u64,
        /// The changes since the last checkpoint.
        changes: M::Changes,
    },
    /// A durable checkpoint holds every slot up to this one, so the own acceptor may forget them. Also sent at the
    /// start of an incarnation.
    Durable {
        /// The last slot in the durable checkpoint.
        slot: Slot,
    },
    /// A peer needs a chunk of the durable checkpoint.
    SnapshotRequested {
        /// The peer.
        to: ServerId,
        /// The requested chunk; `None` for the first chunk of the last checkpoint.
        part: Option<ChunkRequest>,
    },
    /// These peers fetch a snapshot: the checkpoint that they read stays readable as of its slot. Sent at the start of
    /// an incarnation and after each change.
    Pinned {
        /// All peers that fetch a snapshot now.
        peers: ServerSet,
    },
    /// A peer that fetches a snapshot is so slow that the log could not be kept for it.
    LeftBehind(LeftBehind),
    /// The next checkpoint is late: twice `checkpoint_bytes` were applied since the last durable one.
    CheckpointLate {
        /// Bytes of the values that no durable checkpoint holds.
        bytes: u64,
    },
    /// A snapshot was installed; the slots in between were not reported. Pending requests may ask for results that the
    /// state still has.
    Installed {
        /// The last slot in the snapshot.
        slot: Slot,
        /// The digest of the state after that slot.
        digest: u64,
        /// The peer that sent the snapshot.
        from: ServerId,
    },
    /// A command was applied in a slot that this learner did not apply itself.
    ResultsFound {
        /// The last slot applied.
        slot: Slot,
        /// The command's id.
        id: CommandId,
        /// The command's result.
        outcome: M::Outcome,
    },
    /// The values chosen in slots that are corrupt at the own acceptor.
    Repaired {
        /// Chosen entries, each with a ballot at which it was chosen.
        entries: Vec<Entry>,
    },
    /// This replica is divergent and has fenced itself.
    Fenced {
        /// The first slot after which another server is known to have a different state.
        slot: Slot,
        /// A slot after which both states were still equal, if one is known.
        equal: Option<Slot>,
        /// The servers with a different state.
        against: ServerSet,
    },
}

/// A step of a learner, for the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LearnerTraceEvent<O> {
    /// A majority has accepted a slot at one ballot of this server's.
    Chosen {
        /// The chosen slot.
        slot: Slot,
        /// The ballot at which it was chosen.
        ballot: Ballot,
        /// The acceptors whose votes were counted.
        quorum: ServerSet,
        /// The value, if it was received at this ballot.
        value: Option<Value>,
    },
    /// A chosen value was applied.
    Learned {
        /// The slot, which is now the last one applied.
        slot: Slot,
        /// The ballot at which it is known to be chosen.
        ballot: Ballot,
        /// The applied value.
        value: Value,
        /// The result of applying it.
        outcome: O,
    },
    /// The learner requests missing entries from a peer.
    CatchUpRequested {
        /// The first missing slot.
        from: Slot,
        /// The peer asked.
        to: ServerId,
        /// The highest slot known to be chosen.
        known: Slot,
    },
    /// The learner asks proposers to get slots chosen that a read waits for.
    FillRequested {
        /// The highest slot to be chosen.
        slot: Slot,
        /// The servers whose proposers are asked.
        to: ServerSet,
    },
    /// The learner has installed a snapshot.
    Installed {
        /// The last slot in the snapshot.
        slot: Slot,
        /// The digest of the state after that slot.
        digest: u64,
        /// The peer that sent the snapshot.
        from: ServerId,
    },
}
