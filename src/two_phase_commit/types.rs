//! The records, requests, notifications, timers and trace events of the two roles.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::{Decision, InquiryReply, TransactionBody, TransactionId, Vote, VoteNoReason};
use crate::kv::{ApplyResult, ReadQuery, VersionedValue};
use crate::paxos::{self, CommandId};
use crate::role::{ServerId, ServerSet, TimerSpec};

/// The length of a coordinator's tick, in milliseconds.
pub(super) const TICK_MS: u64 = 50;
/// The interval between a participant's looks, in milliseconds.
pub(super) const IN_DOUBT_CHECK_MS: u64 = 100;

/// What a coordinator keeps on stable storage.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CoordinatorRecord {
    /// Every number below is reserved.
    Reserved(u64),
    /// The coordinator decided to commit. An abort has no record: the absence of this one means abort.
    Committed(TransactionId),
    /// All participants have acknowledged. The record may be written late, and needs no sync of its own.
    Ended(TransactionId),
}

/// A request of the server to its coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CoordinatorRequest {
    /// A client's command.
    Propose(paxos::Command),
}

/// A notification to the coordinator's server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CoordinatorNotification {
    /// A command has its result.
    Done {
        /// The command.
        id: CommandId,
        /// The result, the same on all servers.
        outcome: ApplyResult,
    },
    /// The command is certainly not applied by this try: every transaction for it was aborted.
    NotApplied {
        /// The command.
        id: CommandId,
        /// The reason.
        why: AbortReason,
    },
}

/// Why a command is not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AbortReason {
    /// These servers did not vote in time, and all must.
    NoVote {
        /// The servers.
        silent: ServerSet,
    },
    /// Other transactions held its lock on every try.
    Locked {
        /// The last transaction that held it.
        by: TransactionId,
    },
    /// The coordinator has too many commands.
    Busy,
}

/// A step of a coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CoordinatorTraceEvent {
    /// It requests votes.
    Requested {
        /// The transaction.
        transaction: TransactionId,
        /// The work to do.
        work: TransactionBody,
        /// The recipients.
        to: ServerSet,
    },
    /// It has decided.
    Decided {
        /// The transaction.
        transaction: TransactionId,
        /// Commit or abort.
        decision: Decision,
        /// The work to do.
        work: TransactionBody,
        /// Servers that have voted yes.
        yes: ServerSet,
        /// The server that has voted no, and its reason, if that is why.
        no: Option<(ServerId, VoteNoReason)>,
        /// The recipients.
        to: ServerSet,
    },
    /// It repeats an earlier decision.
    DecisionResent {
        /// The transaction.
        transaction: TransactionId,
        /// The decision.
        decision: Decision,
        /// Whether it has no record of the transaction, which means that it was aborted.
        presumed: bool,
        /// The recipients.
        to: ServerSet,
    },
    /// All participants have acknowledged a commit: its record may be dropped.
    Ended {
        /// The transaction.
        transaction: TransactionId,
    },
}

/// A coordinator's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CoordinatorTimer {
    /// One tick has passed.
    Tick,
    /// Refused commands may be tried again.
    Retry,
}

impl TimerSpec for CoordinatorTimer {
    fn delay_ms(&self) -> RangeInclusive<u64> {
        match self {
            CoordinatorTimer::Tick => TICK_MS..=TICK_MS,
            // Random, so that one of two that refused each other comes first; usually longer than a transaction.
            CoordinatorTimer::Retry => 5..=45,
        }
    }
}

/// What a participant keeps on stable storage.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ParticipantRecord {
    /// It voted yes: it can apply the transaction, and has promised to apply or drop it as decided.
    Prepared {
        /// The transaction.
        transaction: TransactionId,
        /// The work to do.
        work: TransactionBody,
    },
    /// The transaction was applied.
    Committed(TransactionId),
    /// The transaction was dropped; or, without an earlier vote, will never be applied here.
    Aborted(TransactionId),
}

/// A request of the server to its participant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ParticipantRequest {
    /// A read.
    Read {
        /// Returned in the answer.
        token: u64,
        /// The query.
        query: ReadQuery,
    },
}

/// A notification to the participant's server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ParticipantNotification {
    /// The answer to a read.
    Answer {
        /// The token of the request.
        token: u64,
        /// Number of transactions that had been committed here.
        applied: u64,
        /// The value and version of the key.
        answer: VersionedValue,
    },
    /// A read has waited too long for a locked key.
    ReadFailed {
        /// The token of the request.
        token: u64,
        /// The transaction that holds the lock.
        by: TransactionId,
    },
}

/// A step of a participant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ParticipantTraceEvent {
    /// It has voted.
    Voted {
        /// The transaction.
        transaction: TransactionId,
        /// The work to do.
        work: TransactionBody,
        /// The vote.
        vote: Vote,
        /// The recipient, the coordinator.
        to: ServerId,
    },
    /// It has applied a committed transaction.
    Committed {
        /// The transaction.
        transaction: TransactionId,
        /// The work done.
        work: TransactionBody,
        /// The result.
        outcome: ApplyResult,
        /// Number of transactions committed here so far.
        applied: u64,
        /// The recipient of the ACK, the coordinator.
        to: ServerId,
    },
    /// It has dropped a transaction for which it was prepared.
    Aborted {
        /// The transaction.
        transaction: TransactionId,
        /// The work that was not done.
        work: TransactionBody,
    },
    /// A peer has inquired about a transaction for which it has not voted; now it never will.
    GivenUp {
        /// The transaction.
        transaction: TransactionId,
        /// The peer that inquired.
        to: ServerId,
    },
    /// It is in doubt, and inquires.
    Inquired {
        /// The transaction.
        transaction: TransactionId,
        /// The work to do.
        work: TransactionBody,
        /// The recipients.
        to: ServerSet,
    },
    /// It has answered an inquiry.
    Answered {
        /// The transaction.
        transaction: TransactionId,
        /// What it knows.
        known: InquiryReply,
        /// The recipient.
        to: ServerId,
    },
    /// A read waits for a lock.
    ReadWaits {
        /// The transaction that holds the lock.
        by: TransactionId,
        /// The query.
        query: ReadQuery,
    },
    /// It has been in doubt for long: no peer that answers knows the decision, so none may decide.
    Blocked {
        /// The transaction.
        transaction: TransactionId,
        /// The work to do.
        work: TransactionBody,
        /// Servers that are known to be prepared, itself included.
        prepared: ServerSet,
        /// Servers that have not answered, perhaps including the coordinator's.
        silent: ServerSet,
        /// Time since it was prepared, in milliseconds by its own clock; a lower bound.
        waited_ms: u64,
    },
}

/// A participant's timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParticipantTimer {
    /// Checks for reads and transactions that have waited too long.
    Look,
}

impl TimerSpec for ParticipantTimer {
    fn delay_ms(&self) -> RangeInclusive<u64> {
        IN_DOUBT_CHECK_MS..=IN_DOUBT_CHECK_MS
    }
}

/// A transaction in doubt, for observers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InDoubtTransaction {
    /// The transaction.
    pub transaction: TransactionId,
    /// The key that it locks; None if it opens a session.
    pub key: Option<Vec<u8>>,
    /// Time in doubt, in milliseconds; a lower bound.
    pub waited_ms: u64,
    /// Whether the participant has reported itself blocked.
    pub is_blocked: bool,
}
