//! What a learner waits for, is asked, answers and shows.

use std::ops::RangeInclusive;

use crate::paxos::{Ballot, ChunkRequest, CommandId, Entry, LeftBehind, Slot, SlotRange, StateMachine, Value};
use crate::role::{ServerId, ServerSet, TimerSpec};

/// A time-out of a learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LearnerTimer {
    /// Time to say how far one is.
    Progress,
    /// Something is missing and may still be on its way.
    Gap,
    /// The peer asked for entries, or for a part of its state, has not answered.
    CatchUp {
        /// How many questions lately had no answer in time.
        unanswered: u32,
    },
    /// A round of reads has not found a majority.
    Read {
        /// The round.
        id: u128,
    },
    /// A slot that reads wait for is still not applied.
    Fill {
        /// How often it was asked for.
        tries: u32,
    },
}

impl TimerSpec for LearnerTimer {
    fn delay_ms(&self) -> RangeInclusive<u64> {
        match *self {
            LearnerTimer::Progress => 100..=100,
            LearnerTimer::Gap => 50..=50,
            // Grows: an answer is up to a megabyte, and whoever turns to the next peer before it has come begins anew
            // for ever.
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

/// What a server asks of its learner.
#[derive(Clone, Debug)]
pub enum LearnerRequest<Q> {
    /// A linearizable read.
    Read {
        /// Comes back with the answer.
        token: u64,
        /// What to ask the state machine.
        query: Q,
    },
    /// The checkpoint that was to be written is durable, or could not be written.
    CheckpointDone {
        /// Its slot.
        slot: Slot,
        /// Whether it is durable.
        is_durable: bool,
    },
    /// Write the state down soon, however little has changed.
    RequestCheckpoint,
    /// What did these commands come to? For whoever waited while a whole state came in.
    FindResults(Vec<CommandId>),
    /// The own acceptor cannot read these slots.
    Repair(Vec<SlotRange>),
}

/// What a learner tells its server.
#[derive(Clone, Debug)]
pub enum LearnerNotification<M: StateMachine> {
    /// A slot was applied. Said of every slot, whoever proposed it, for those who wait for an outcome.
    Applied {
        /// The slot.
        slot: Slot,
        /// Its command, unless it is a no-op.
        id: Option<CommandId>,
        /// What the state machine made of it.
        outcome: M::Outcome,
    },
    /// How far the log is applied, for the own proposer. Said once for all slots of a turn.
    Advanced {
        /// The last slot applied.
        applied: Slot,
        /// The commands in the slots applied since this was said last.
        ids: Vec<CommandId>,
    },
    /// Votes were counted for slots that are not chosen yet: something moves.
    Counted,
    /// A read's answer.
    Answer {
        /// As in the request.
        token: u64,
        /// The state answered from had applied exactly the slots up to this one.
        slot: Slot,
        /// What the state machine said.
        answer: M::Answer,
    },
    /// A read found no majority, or its slot was not applied in time.
    ReadFailed {
        /// As in the request.
        token: u64,
        /// The acceptors that answered the last round.
        answered: ServerSet,
    },
    /// The state is to be written down.
    Checkpoint {
        /// Every slot up to this one is in it.
        slot: Slot,
        /// Its digest.
        digest: u64,
        /// What has changed since the last one.
        changes: M::Changes,
    },
    /// A durable checkpoint holds every slot up to this one: the own acceptor may forget them. Said when a life begins,
    /// too.
    Durable {
        /// The slot.
        slot: Slot,
    },
    /// A peer needs the durable checkpoint, or the next part of one.
    SnapshotRequested {
        /// The peer.
        to: ServerId,
        /// The part; the first one of the last checkpoint if None.
        part: Option<ChunkRequest>,
    },
    /// These peers fetch a state: what they read from stays readable as of its slot. Said when a life begins, and when
    /// it changes.
    Pinned {
        /// The peers.
        peers: ServerSet,
    },
    /// A peer that fetches the state is so slow that the log could not be kept for it.
    LeftBehind(LeftBehind),
    /// Twice as much as usual was applied since the last durable checkpoint.
    CheckpointLate {
        /// Bytes of the values.
        bytes: u64,
    },
    /// A whole state came in: nothing was said of the slots in between. Who waits may ask what is remembered.
    Installed {
        /// Every slot up to this one is in it.
        slot: Slot,
        /// Its digest.
        digest: u64,
        /// Who sent it.
        from: ServerId,
    },
    /// A command was applied in a slot that this learner has not seen.
    ResultsFound {
        /// The last slot applied.
        slot: Slot,
        /// The command.
        id: CommandId,
        /// What it came to.
        outcome: M::Outcome,
    },
    /// What was chosen in slots that the own acceptor cannot read.
    Repaired {
        /// The slots, each with a ballot at which it was chosen.
        entries: Vec<Entry>,
    },
    /// Its state is wrong, and it has fallen silent.
    Fenced {
        /// The first slot after which another server is known to have another state.
        slot: Slot,
        /// A slot after which they were still equal, if one is known.
        equal: Option<Slot>,
        /// The servers that have another one.
        against: ServerSet,
    },
}

/// A step of a learner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LearnerTraceEvent<O> {
    /// A majority has accepted a slot at one ballot of this server's.
    Chosen {
        /// The slot.
        slot: Slot,
        /// The ballot.
        ballot: Ballot,
        /// Who accepted.
        quorum: ServerSet,
        /// The value, if it was heard at this ballot.
        value: Option<Value>,
    },
    /// A chosen value was applied.
    Learned {
        /// The slot, now the last one applied.
        slot: Slot,
        /// The ballot at which it is known to be chosen.
        ballot: Ballot,
        /// The value.
        value: Value,
        /// What the state machine made of it.
        outcome: O,
    },
    /// It asks a peer for what it missed.
    CaughtUp {
        /// The first slot missing.
        from: Slot,
        /// The peer asked.
        to: ServerId,
        /// How far that peer, or another, is known to be.
        known: Slot,
    },
    /// It asks a proposer to get slots chosen that a read found.
    Filled {
        /// Up to this slot.
        slot: Slot,
        /// The servers whose proposers are asked.
        to: ServerSet,
    },
    /// It has taken a whole state in place of its own.
    Installed {
        /// The last slot applied to it.
        slot: Slot,
        /// Its digest.
        digest: u64,
        /// Who sent it.
        from: ServerId,
    },
}
