//! What the two roles remember, are asked, tell and show.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::{Decision, InquiryReply, TransactionBody, TransactionId, Vote, VoteNoReason};
use crate::kv::{ApplyResult, ReadQuery, VersionedValue};
use crate::paxos::{self, CommandId};
use crate::role::{ServerId, ServerSet, TimerSpec};

/// The length of a coordinator's tick, in milliseconds.
pub(super) const TICK_MS: u64 = 50;
/// The length of a participant's look, in milliseconds.
pub(super) const IN_DOUBT_CHECK_MS: u64 = 100;

/// What a coordinator must never forget.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CoordinatorRecord {
    /// Every number below is spent.
    Reserved(u64),
    /// It decided to commit. There is no such record for an abort: without this one, it is one.
    Committed(TransactionId),
    /// Everybody has acknowledged. May come late, and never waits for the disk by itself.
    Ended(TransactionId),
}

/// What the server asks of its coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CoordinatorRequest {
    /// A client's command.
    Propose(paxos::Command),
}

/// What it tells its server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CoordinatorNotification {
    /// What a command came to.
    Done {
        /// The command.
        id: CommandId,
        /// What it came to, on all servers.
        outcome: ApplyResult,
    },
    /// The command is certainly not applied by this try: every transaction for it was aborted.
    NotApplied {
        /// The command.
        id: CommandId,
        /// Why.
        why: AbortReason,
    },
}

/// Why a command is not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AbortReason {
    /// These servers did not vote in time, and all must.
    NoVote {
        /// They.
        silent: ServerSet,
    },
    /// Its key was held by this transaction, again and again.
    Locked {
        /// The last one that was in the way.
        by: TransactionId,
    },
    /// Too much is going on.
    Busy,
}

/// A step of a coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CoordinatorTraceEvent {
    /// It asks for votes.
    Requested {
        /// The transaction.
        transaction: TransactionId,
        /// What it does.
        work: TransactionBody,
        /// Whom it asks.
        to: ServerSet,
    },
    /// It has decided.
    Decided {
        /// The transaction.
        transaction: TransactionId,
        /// How.
        decision: Decision,
        /// What it does.
        work: TransactionBody,
        /// Who has voted yes.
        yes: ServerSet,
        /// Who has voted no, and why, if that is the reason.
        no: Option<(ServerId, VoteNoReason)>,
        /// Whom it tells.
        to: ServerSet,
    },
    /// It tells a decision that it took before.
    ToldAgain {
        /// The transaction.
        transaction: TransactionId,
        /// What it is told.
        decision: Decision,
        /// Whether it has no record of it, and so knows that it was aborted.
        presumed: bool,
        /// Whom.
        to: ServerSet,
    },
    /// Everybody has acknowledged a commit: it may be forgotten.
    Ended {
        /// The transaction.
        transaction: TransactionId,
    },
}

/// Its time-outs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CoordinatorTimer {
    /// Time has passed.
    Tick,
    /// Commands that were refused may be tried again.
    Retry,
}

impl TimerSpec for CoordinatorTimer {
    fn delay_ms(&self) -> RangeInclusive<u64> {
        match self {
            CoordinatorTimer::Tick => TICK_MS..=TICK_MS,
            // Of two that refused each other one comes first: the pause is random, and longer than a transaction.
            CoordinatorTimer::Retry => 5..=45,
        }
    }
}

/// What a participant must never forget.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ParticipantRecord {
    /// It voted yes: it can do this, and has promised to do or drop it as it is told.
    Prepared {
        /// The transaction.
        transaction: TransactionId,
        /// What it does.
        work: TransactionBody,
    },
    /// It was done.
    Committed(TransactionId),
    /// It was dropped; or, without a vote before, it never will be done here.
    Aborted(TransactionId),
}

/// What the server asks of its participant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ParticipantRequest {
    /// A read.
    Read {
        /// Comes back in the answer.
        token: u64,
        /// What is asked.
        query: ReadQuery,
    },
}

/// What it tells its server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ParticipantNotification {
    /// The answer of a read.
    Answer {
        /// Of the request.
        token: u64,
        /// So many transactions had been committed here.
        applied: u64,
        /// What the key holds.
        answer: VersionedValue,
    },
    /// A read has waited for too long for a key that is locked.
    ReadFailed {
        /// Of the request.
        token: u64,
        /// The transaction in the way.
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
        /// What it does.
        work: TransactionBody,
        /// How.
        vote: Vote,
        /// The coordinator.
        to: ServerId,
    },
    /// It has done what a committed transaction says.
    Committed {
        /// The transaction.
        transaction: TransactionId,
        /// What it did.
        work: TransactionBody,
        /// What it came to.
        outcome: ApplyResult,
        /// How many transactions have been committed here by now.
        applied: u64,
        /// The coordinator, which hears of it.
        to: ServerId,
    },
    /// It has dropped a transaction for which it was prepared.
    Aborted {
        /// The transaction.
        transaction: TransactionId,
        /// What it would have done.
        work: TransactionBody,
    },
    /// It was asked about a transaction for which it has not voted, and now never will.
    GivenUp {
        /// The transaction.
        transaction: TransactionId,
        /// Who asked.
        to: ServerId,
    },
    /// It is in doubt, and asks.
    Inquired {
        /// The transaction.
        transaction: TransactionId,
        /// What it does.
        work: TransactionBody,
        /// Whom it asks.
        to: ServerSet,
    },
    /// It has told another one what it knows.
    Answered {
        /// The transaction.
        transaction: TransactionId,
        /// What it knows.
        known: InquiryReply,
        /// Whom.
        to: ServerId,
    },
    /// A read waits for a lock.
    ReadWaits {
        /// The transaction that holds it.
        by: TransactionId,
        /// What is asked.
        query: ReadQuery,
    },
    /// Everybody who answers is prepared, and the coordinator does not: nobody may decide.
    Blocked {
        /// The transaction.
        transaction: TransactionId,
        /// What it would do.
        work: TransactionBody,
        /// Those who have said that they are prepared too, and itself.
        prepared: ServerSet,
        /// Those who have said nothing, the coordinator's server perhaps among them.
        silent: ServerSet,
        /// For how long it has been prepared, in milliseconds by its own clock: at least.
        waited_ms: u64,
    },
}

/// Its time-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParticipantTimer {
    /// Looks for what has waited for long.
    Look,
}

impl TimerSpec for ParticipantTimer {
    fn delay_ms(&self) -> RangeInclusive<u64> {
        IN_DOUBT_CHECK_MS..=IN_DOUBT_CHECK_MS
    }
}

/// A transaction in doubt, for those who look on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InDoubtTransaction {
    /// Which.
    pub transaction: TransactionId,
    /// The key that it locks; none if it opens a session.
    pub key: Option<Vec<u8>>,
    /// For how long, in milliseconds: at least.
    pub waited_ms: u64,
    /// Whether nobody who answers knows the decision.
    pub is_blocked: bool,
}
