//! Field values that are one of a few words.

use std::fmt::{self, Formatter};

use super::field::FieldValue;
use crate::paxos::{CommandId, Slot};

/// Declares field types that are one of a few words.
macro_rules! words {
    ($($(#[$doc:meta])* enum $name:ident { $($(#[$word_doc:meta])* $word:ident = $text:literal),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$word_doc])* $word),*
        }

        impl $name {
            /// All values.
            pub const ALL: &[$name] = &[$($name::$word),*];

            /// The printed word.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$word => $text),* }
            }
        }

        impl FieldValue for $name {
            fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
                to.write_str(self.as_str())
            }

            fn parse(text: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|word| word.as_str() == text)
            }
        }
    )*};
}

words! {
    /// The operation of a request or a command.
    enum OpKind {
        /// Sets a value.
        Put = "PUT",
        /// Reads a value, linearizably.
        Get = "GET",
        /// Reads the value that the contacted server currently has, without any guarantee of freshness.
        StaleGet = "STALEGET",
        /// Removes a value.
        Delete = "DELETE",
        /// Opens a session.
        Open = "OPEN",
        /// Asks a server for its status.
        Status = "STATUS",
        /// Fills a hole in the log.
        Noop = "NOOP",
        /// A log entry that this version cannot decode as a command.
        Unreadable = "UNREADABLE",
    }

    /// The result of a request.
    enum RequestStatus {
        /// Done; a write was applied.
        Ok = "OK",
        /// There was no key to read or to delete.
        NotFound = "NOTFOUND",
        /// The key was at another version.
        Mismatch = "MISMATCH",
        /// Certainly not applied.
        NotApplied = "NOTAPPLIED",
        /// The request may or may not be applied, now or later.
        Unknown = "UNKNOWN",
        /// The session is no longer known: the write was not applied here, but perhaps before.
        Expired = "EXPIRED",
        /// The client has declared that it no longer requests this write: not applied here, but perhaps before.
        Superseded = "SUPERSEDED",
    }

    /// A participant's vote.
    enum VoteValue {
        /// The participant can commit, and is bound by this vote.
        Yes = "YES",
        /// The participant cannot commit.
        No = "NO",
    }

    /// The known state of a transaction.
    enum TransactionState {
        /// All participants commit it.
        Commit = "COMMIT",
        /// No participant commits it.
        Abort = "ABORT",
        /// In doubt: prepared, and the decision is not known.
        Prepared = "PREPARED",
        /// The coordinator still counts its votes.
        Voting = "VOTING",
    }

    /// Why a coordinator sends a decision.
    enum DecisionReason {
        /// The coordinator has just decided.
        First = "first",
        /// A participant has not acknowledged the decision, or inquires about it.
        Again = "again",
        /// The coordinator has no record of a commit, so the transaction is aborted.
        Presumed = "presumed",
    }

    /// Why a role crashed.
    enum CrashCause {
        /// Its random up time has ended.
        Timer = "timer",
        /// A user requested the crash.
        Admin = "admin",
    }

    /// The point of a turn at which a crash happens.
    enum CrashPoint {
        /// Before the role steps the input.
        BeforeStep = "before-step",
        /// After the step, before its records are durable.
        BeforeSync = "before-sync",
        /// After the records are durable, before any message is sent.
        BeforeSend = "before-send",
    }

    /// What a restarted role recovers.
    enum RecoveredFrom {
        /// What it has on stable storage.
        Disk = "disk",
        /// Nothing: its promises are lost, so a chosen value may be lost.
        Nothing = "\"NONE UNSAFE\"",
    }

    /// How crashed roles restart.
    enum RestartMode {
        /// With what they have on stable storage.
        Disk = "disk",
        /// With nothing: a lab mode that breaks Paxos.
        Lost = "\"lost UNSAFE\"",
    }

    /// Why a message was dropped.
    enum DropCause {
        /// The destination role is down.
        Crashed = "crashed",
        /// The destination's queue is full.
        Full = "full",
        /// The disk has no room for another value.
        DiskFull = "disk-full",
        /// There is no connection to the destination server.
        Unconnected = "unconnected",
        /// The destination server is not active: it starts, stops, is not admitted yet, or is fenced.
        Inactive = "inactive",
        /// A simulated network has cut the link.
        Cut = "cut",
        /// A simulated network has lost the message.
        Lost = "lost",
    }

    /// A change of a link to a peer.
    enum LinkEvent {
        /// The connection is established.
        Up = "up",
        /// The connection is lost.
        Lost = "lost",
        /// One of the two servers refused the other.
        Refused = "refused",
        /// No message passes between the two any more: a lab command cut their links, or a simulated network did.
        Cut = "cut",
        /// The cut is undone: messages may pass again.
        Joined = "joined",
    }
}

/// The public name of a command, without its nonce, which is secret. The name of a write is unique within a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommandName {
    /// A command that opens a session: a part of a hash of its nonce. Two commands may have the same.
    Open(u16),
    /// A write.
    Write {
        /// The slot at which its session was opened.
        session: u64,
        /// Its sequence number in the session.
        sequence: u64,
    },
}

impl From<CommandId> for CommandName {
    fn from(id: CommandId) -> CommandName {
        match id.session {
            0 => CommandName::Open(id.nonce_tag()),
            session => CommandName::Write { session, sequence: id.sequence },
        }
    }
}

/// `session-sequence`, or `0-~` and a part of a hash of the nonce.
impl FieldValue for CommandName {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        match self {
            CommandName::Open(tag) => write!(to, "0-~{tag:04x}"),
            CommandName::Write { session, sequence } => write!(to, "{session}-{sequence}"),
        }
    }

    fn parse(text: &str) -> Option<CommandName> {
        match text.split_once('-')? {
            ("0", tag) => Some(CommandName::Open(u16::from_str_radix(tag.strip_prefix('~')?, 16).ok()?)),
            (session, sequence) => {
                Some(CommandName::Write { session: session.parse().ok()?, sequence: sequence.parse().ok()? })
            }
        }
    }
}

/// The result of applying a slot's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LearnResult {
    /// The write was applied.
    Ok,
    /// There was no key to delete.
    NotFound,
    /// The key was at another version than the write requires.
    Mismatch,
    /// The write was applied before.
    Duplicate {
        /// The slot of the first application.
        first: Slot,
    },
    /// The client has declared that it no longer requests this write.
    Superseded,
    /// The session is not known.
    Expired,
    /// A no-op filled a hole.
    Noop,
    /// A session was opened, or an OPEN was repeated.
    Opened,
    /// The bytes do not decode as a command.
    Unreadable,
}

impl FieldValue for LearnResult {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            LearnResult::Ok => "OK",
            LearnResult::NotFound => "NOTFOUND",
            LearnResult::Mismatch => "MISMATCH",
            LearnResult::Duplicate { first } => return write!(to, "DUPLICATE(first={first})"),
            LearnResult::Superseded => "SUPERSEDED",
            LearnResult::Expired => "EXPIRED",
            LearnResult::Noop => "NOOP",
            LearnResult::Opened => "OPENED",
            LearnResult::Unreadable => "UNREADABLE",
        })
    }

    fn parse(text: &str) -> Option<LearnResult> {
        Some(match text {
            "OK" => LearnResult::Ok,
            "NOTFOUND" => LearnResult::NotFound,
            "MISMATCH" => LearnResult::Mismatch,
            "SUPERSEDED" => LearnResult::Superseded,
            "EXPIRED" => LearnResult::Expired,
            "NOOP" => LearnResult::Noop,
            "OPENED" => LearnResult::Opened,
            "UNREADABLE" => LearnResult::Unreadable,
            _ => {
                let first = text.strip_prefix("DUPLICATE(first=")?.strip_suffix(')')?;
                LearnResult::Duplicate { first: Slot::parse(first)? }
            }
        })
    }
}
