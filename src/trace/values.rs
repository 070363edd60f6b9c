//! The small vocabularies of lines.

use std::fmt::{self, Formatter};

use super::field::FieldValue;
use crate::paxos::{CommandId, Slot};

/// Declares a field that is one of a few words.
macro_rules! words {
    ($($(#[$doc:meta])* enum $name:ident { $($(#[$word_doc:meta])* $word:ident = $text:literal),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$word_doc])* $word),*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$word),*];

            /// As it is printed.
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
    /// What is asked or proposed.
    enum OpKind {
        /// Sets a value.
        Put = "PUT",
        /// Reads a value, linearizably.
        Get = "GET",
        /// Reads a value as the asked server happens to have it; nothing is promised of it.
        StaleGet = "STALEGET",
        /// Removes a value.
        Delete = "DELETE",
        /// Opens a session.
        Open = "OPEN",
        /// Asks a server how it is.
        Status = "STATUS",
        /// Fills a hole in the log.
        Noop = "NOOP",
        /// Bytes in the log that are no command of this version.
        Unreadable = "UNREADABLE",
    }

    /// How a request ended.
    enum RequestStatus {
        /// Done; a write was applied.
        Ok = "OK",
        /// There was nothing to read or to delete.
        NotFound = "NOTFOUND",
        /// The key was at another version.
        Mismatch = "MISMATCH",
        /// Certainly not applied.
        NotApplied = "NOTAPPLIED",
        /// May or may not be applied, now or later.
        Unknown = "UNKNOWN",
        /// The session is no longer known: not applied here, perhaps before.
        Expired = "EXPIRED",
        /// The session no longer asks for this write: not applied here, perhaps before.
        Superseded = "SUPERSEDED",
    }

    /// A participant's vote.
    enum VoteValue {
        /// It can, and is bound by that.
        Yes = "YES",
        /// It can not.
        No = "NO",
    }

    /// What is known of a transaction.
    enum TransactionState {
        /// It is done everywhere.
        Commit = "COMMIT",
        /// It is done nowhere.
        Abort = "ABORT",
        /// In doubt: prepared, and nobody has said how it ends.
        Prepared = "PREPARED",
        /// Its votes are still counted.
        Voting = "VOTING",
    }

    /// Why a coordinator tells a decision.
    enum DecisionReason {
        /// It has just decided.
        First = "first",
        /// Somebody has not acknowledged it, or asks.
        Again = "again",
        /// It has no record of a commit: then it was an abort.
        Presumed = "presumed",
    }

    /// Why a role died.
    enum CrashCause {
        /// Its random time was up.
        Timer = "timer",
        /// Somebody asked for it.
        Admin = "admin",
    }

    /// Where in a turn a crash hits.
    enum CrashPoint {
        /// Before the role takes the input.
        BeforeStep = "before-step",
        /// The input is taken, its records are not durable.
        BeforeSync = "before-sync",
        /// The records are durable, nothing was said yet.
        BeforeSend = "before-send",
    }

    /// What a restarted role knows.
    enum RecoveredFrom {
        /// What its disk knows.
        Disk = "disk",
        /// Nothing: its promises are forgotten, and a chosen value may be lost.
        Nothing = "\"NONE UNSAFE\"",
    }

    /// How failed roles come back.
    enum RestartMode {
        /// With what their disk knows.
        Disk = "disk",
        /// With nothing: a lab mode that breaks Paxos.
        Lost = "\"lost UNSAFE\"",
    }

    /// Why a message was dropped.
    enum DropCause {
        /// The role that it is for is down.
        Crashed = "crashed",
        /// The queue for it is full.
        Full = "full",
        /// The disk has no room for another value.
        DiskFull = "disk-full",
        /// There is no connection to the server that it is for.
        Unconnected = "unconnected",
        /// The server that it is for is not active: it starts, stops, is not admitted yet, or is fenced.
        Inactive = "inactive",
    }

    /// What became of a connection to a peer.
    enum LinkEvent {
        /// It stands.
        Up = "up",
        /// It is lost.
        Lost = "lost",
        /// The peer was not let in, or did not let us in.
        Refused = "refused",
    }
}

/// Which command it is, without its nonce, which nobody may see. The name of a write is unique within a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommandName {
    /// One that opens a session: a part of a hash of its nonce. Two may have the same.
    Open(u16),
    /// A write.
    Write {
        /// The slot where its session was opened.
        session: u64,
        /// Its number in the session.
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

/// What a slot's value came to when it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LearnResult {
    /// The write was done.
    Ok,
    /// There was nothing to delete.
    NotFound,
    /// The key was at another version than the write wanted.
    Mismatch,
    /// The write was applied before.
    Duplicate {
        /// In this slot.
        first: Slot,
    },
    /// The client no longer asks for this write.
    Superseded,
    /// The session is not known.
    Expired,
    /// A hole was filled.
    Noop,
    /// A session was opened, or found again.
    Opened,
    /// The bytes are no command.
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
