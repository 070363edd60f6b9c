//! What coordinators and participants say to each other.

use std::fmt::{self, Debug, Display};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::kv::{ApplyResult, WriteResult};
use crate::paxos::{Command, Slot};
use crate::role::{Lane, RoleKind, ServerId};

/// Names a transaction for ever: the number is drawn by its coordinator, never twice in all its lives. Printed `17.3`.
///
/// Numbers are a clock in the sense of Lamport (1978): a coordinator draws one above all that it has heard of, so the
/// order of numbers is roughly that of time. Nothing but the choice of what to forget first rests on that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TransactionId {
    /// Its number among the coordinator's. At most [`TransactionId::LAST_NUMBER`].
    #[serde(deserialize_with = "decode_number")]
    pub number: u64,
    /// The server whose coordinator it is.
    pub coordinator: ServerId,
}

impl TransactionId {
    /// Before any other.
    pub const ZERO: TransactionId = TransactionId { number: 0, coordinator: ServerId(0) };
    /// Behind it no number has a slot.
    pub const LAST_NUMBER: u64 = Slot::LAST.0 >> 6;

    /// The same as one number: what the store, which knows slots, calls the place of a write.
    pub fn as_slot(self) -> Slot {
        Slot(self.number << 6 | u64::from(self.coordinator.0))
    }

    /// The transaction that has this place.
    pub fn of_slot(slot: Slot) -> TransactionId {
        TransactionId { number: slot.0 >> 6, coordinator: ServerId((slot.0 & 63) as u8) }
    }
}

/// From bytes that nobody vouches for.
fn decode_number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(from)?;
    let is_one = number <= TransactionId::LAST_NUMBER;
    if is_one { Ok(number) } else { Err(serde::de::Error::custom("no transaction has such a number")) }
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
        let (number, server): (u64, u8) = parts.ok_or_else(|| format!("'{text}' is no transaction (as in 17.3)"))?;
        Ok(TransactionId { number, coordinator: ServerId::try_from(server)? })
    }
}

/// What is to be done, on every server or on none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TransactionBody {
    /// The client's command.
    pub command: Command,
    /// The session that goes for the one that the command opens, where the table is full.
    pub evict: Option<u64>,
}

/// What a transaction comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Decision {
    /// It is done everywhere.
    Commit,
    /// It is done nowhere.
    Abort,
}

/// What a participant thinks of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Vote {
    /// It is prepared, durably: it will do it if it is told to, whatever happens meanwhile. A write would do this.
    Yes(Option<WriteResult>),
    /// It will not do it.
    No(VoteNoReason),
}

/// Why a participant votes no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VoteNoReason {
    /// Another transaction, which is not decided yet, holds what this one needs.
    Locked(TransactionId),
    /// The command needs no transaction any more: this is what it came to.
    Settled(ApplyResult),
    /// The table of sessions is full; this one has been quiet for longest.
    Full(u64),
    /// It was asked too late: it has given the transaction up, or forgotten its time.
    Late,
    /// It has too many transactions that are not decided.
    Busy,
}

/// What one participant tells another of a transaction that the other is in doubt about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InquiryReply {
    /// It knows the decision.
    Decided(Decision),
    /// It is prepared, and in doubt itself.
    Prepared,
    /// The coordinator: it still counts the votes.
    Voting,
}

/// The messages of the protocol. See the table in the [module's essay](super).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CommitMessage {
    /// Phase 1: "can you do this?"
    VoteRequest {
        /// The transaction.
        transaction: TransactionId,
        /// What it does.
        work: TransactionBody,
    },
    /// The answer. A yes is a promise that only the decision ends.
    Vote {
        /// The transaction.
        transaction: TransactionId,
        /// Yes or no.
        vote: Vote,
        /// The highest number that this participant has heard of.
        clock: u64,
    },
    /// Phase 2: "do it" or "do not".
    Decide {
        /// The transaction.
        transaction: TransactionId,
        /// Which of both.
        decision: Decision,
    },
    /// "It is done here, durably." Of commits alone: what was aborted, nobody needs to remember.
    Ack {
        /// The transaction.
        transaction: TransactionId,
    },
    /// "I am prepared and hear nothing. What has become of it?"
    Inquire {
        /// The transaction.
        transaction: TransactionId,
    },
    /// What one that is not the coordinator answers.
    Answer {
        /// The transaction.
        transaction: TransactionId,
        /// What it knows.
        known: InquiryReply,
    },
}

impl CommitMessage {
    /// The roles of the receiving server that hear the message.
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

    /// How it travels.
    pub fn lane(&self) -> Lane {
        if matches!(self, CommitMessage::VoteRequest { .. }) { Lane::Bulk } else { Lane::Control }
    }

    /// About how many bytes its values take.
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
