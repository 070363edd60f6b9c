//! The messages between coordinators and participants.

use std::fmt::{self, Debug, Display};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::kv::{ApplyResult, WriteResult};
use crate::paxos::{Command, Slot};
use crate::role::{Lane, RoleKind, ServerId};

/// Names a transaction uniquely: its coordinator uses no number twice, in any incarnation. Printed `17.3`.
///
/// Numbers are a clock in the sense of Lamport (1978): a coordinator draws one above all that it has received. So the
/// order of numbers is roughly that of time. Only the choice of which decision to drop first depends on this.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TransactionId {
    /// The transaction's number at its coordinator; at most [`TransactionId::LAST_NUMBER`].
    #[serde(deserialize_with = "decode_number")]
    pub number: u64,
    /// The server whose coordinator began it.
    pub coordinator: ServerId,
}

impl TransactionId {
    /// Smaller than every other id.
    pub const ZERO: TransactionId = TransactionId { number: 0, coordinator: ServerId(0) };
    /// The highest number that fits into a slot number.
    pub const LAST_NUMBER: u64 = Slot::LAST.0 >> 6;

    /// The id as one number, in the form in which the store names the position of a write.
    pub fn as_slot(self) -> Slot {
        Slot(self.number << 6 | u64::from(self.coordinator.0))
    }

    /// The transaction with this number; the inverse of [`as_slot`](TransactionId::as_slot).
    pub fn of_slot(slot: Slot) -> TransactionId {
        TransactionId { number: slot.0 >> 6, coordinator: ServerId((slot.0 & 63) as u8) }
    }
}

/// Decodes a number from bytes that are not trusted.
fn decode_number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(from)?;
    let is_one = number <= TransactionId::LAST_NUMBER;
    if is_one { Ok(number) } else { Err(serde::de::Error::custom("the transaction number is above the last one")) }
}

impl Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number, self.coordinator.0)
    }
}

impl Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl FromStr for TransactionId {
    type Err = String;

    fn from_str(text: &str) -> Result<TransactionId, String> {
        let parts =
            text.split_once('.').and_then(|(number, server)| Some((number.parse().ok()?, server.parse().ok()?)));
        let (number, server): (u64, u8) =
            parts.ok_or_else(|| format!("'{text}' is not a transaction (number.server, as in 17.3)"))?;
        Ok(TransactionId { number, coordinator: ServerId::try_from(server)? })
    }
}

/// The work of a transaction, done on every server or on none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TransactionBody {
    /// The client's command.
    pub command: Command,
    /// The session that is removed for the one that the command opens, if the table is full.
    pub evict: Option<u64>,
}

/// The decision on a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Decision {
    /// Every server applies it.
    Commit,
    /// No server applies it.
    Abort,
}

/// A participant's vote on a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Vote {
    /// The participant is durably prepared: it will apply the transaction if the decision is commit, whatever happens
    /// meanwhile. For a write, this is the effect.
    Yes(Option<WriteResult>),
    /// The participant will not apply it.
    No(VoteNoReason),
}

/// Why a participant votes no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VoteNoReason {
    /// Another undecided transaction holds the lock that this one needs.
    Locked(TransactionId),
    /// The command needs no transaction; this is its result.
    Settled(ApplyResult),
    /// The table of sessions is full; this session has been quiet for longest.
    Full(u64),
    /// The request came too late: the participant has given up the transaction or dropped its decision.
    Late,
    /// The participant has too many undecided transactions.
    Busy,
}

/// The reply to a participant that is in doubt about a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InquiryReply {
    /// The sender knows the decision.
    Decided(Decision),
    /// The sender is prepared, and in doubt itself.
    Prepared,
    /// The sender is the coordinator and still counts the votes.
    Voting,
}

/// The messages of the protocol. See the table in the [module's essay](super).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CommitMessage {
    /// Phase 1: "can you do this?"
    VoteRequest {
        /// The transaction.
        transaction: TransactionId,
        /// The work to do.
        work: TransactionBody,
    },
    /// The reply. A yes is a promise that only the decision ends.
    Vote {
        /// The transaction.
        transaction: TransactionId,
        /// Yes or no.
        vote: Vote,
        /// The highest transaction number that this participant has received.
        clock: u64,
    },
    /// Phase 2: "do it" or "do not".
    Decide {
        /// The transaction.
        transaction: TransactionId,
        /// Commit or abort.
        decision: Decision,
    },
    /// "It is applied here, durably." Sent for commits alone: an abort needs no acknowledgment.
    Ack {
        /// The transaction.
        transaction: TransactionId,
    },
    /// "I am prepared and receive no decision. What is it?"
    Inquire {
        /// The transaction.
        transaction: TransactionId,
    },
    /// The reply to INQUIRE, except a repeated DECIDE.
    Answer {
        /// The transaction.
        transaction: TransactionId,
        /// What the sender knows.
        known: InquiryReply,
    },
}

impl CommitMessage {
    /// The roles of the receiving server that handle the message.
    pub fn recipients(&self) -> &'static [RoleKind] {
        use RoleKind::{Coordinator, Participant};
        match self {
            CommitMessage::VoteRequest { .. } | CommitMessage::Decide { .. } | CommitMessage::Answer { .. } => {
                &[Participant]
            }
            CommitMessage::Vote { .. } | CommitMessage::Ack { .. } => &[Coordinator],
            CommitMessage::Inquire { .. } => &[Coordinator, Participant],
        }
    }

    /// The lane on which it travels.
    pub fn lane(&self) -> Lane {
        if matches!(self, CommitMessage::VoteRequest { .. }) { Lane::Bulk } else { Lane::Control }
    }

    /// Approximate number of bytes that its values take.
    pub fn size(&self) -> usize {
        match self {
            CommitMessage::VoteRequest { work, .. } => 40 + work.command.payload.len(),
            CommitMessage::Vote { .. }
            | CommitMessage::Decide { .. }
            | CommitMessage::Ack { .. }
            | CommitMessage::Inquire { .. }
            | CommitMessage::Answer { .. } => 0,
        }
    }

    /// The message's name, in capitals.
    pub fn name(&self) -> &'static str {
        match self {
            CommitMessage::VoteRequest { .. } => "VOTEREQ",
            CommitMessage::Vote { .. } => "VOTE",
            CommitMessage::Decide { .. } => "DECIDE",
            CommitMessage::Ack { .. } => "ACK",
            CommitMessage::Inquire { .. } => "INQUIRE",
            CommitMessage::Answer { .. } => "ANSWER",
        }
    }
}
