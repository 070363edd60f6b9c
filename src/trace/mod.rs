//! Log lines: the record that every process writes while it runs.
//!
//! A line is a typed [`Event`] with a time, a number and a reason. [`Trace`] writes it, and parsing it yields exactly
//! the same event. So the lines that a person follows with `grep` also prove afterwards that a run kept the rules.
//!
//! ```text
//! 2026-08-21T14:03:07.105388Z INFO  s1.206  proposer ACCEPT   req=c1-5 slot=7 ballot=3.1 ... re=s5.90 -- why
//! ```

/// The format version of log lines, as `BOOT lines=` states it. Readers reject other versions: a word whose meaning has
/// changed could prove something false.
pub const FORMAT: u32 = 2;

#[cfg(feature = "programs")]
pub mod audit;
#[cfg(feature = "programs")]
pub mod clocks;
pub mod color;
#[cfg(feature = "programs")]
pub mod columns;
mod event;
mod field;
#[cfg(feature = "programs")]
pub mod filter;
#[cfg(feature = "programs")]
pub mod hardship;
#[cfg(feature = "programs")]
pub mod histories;
mod line;
#[cfg(feature = "programs")]
pub mod parse;
mod paxos_events;
pub mod queued_bytes;
mod quoted;
#[cfg(feature = "programs")]
pub mod read_command;
#[cfg(feature = "programs")]
pub mod report;
#[cfg(feature = "programs")]
pub mod request_spans;
mod sink;
#[cfg(test)]
mod strategies;
mod terminal;
#[cfg(feature = "programs")]
pub mod timeline;
mod two_phase_events;
mod values;
mod writer;

pub use event::{Event, EventError};
pub use field::{
    AcceptedSlots, Digest, DiskName, FieldError, HistoryName, MaybeBallot, Millis, Nacks, OmittedSlots, Seconds,
    SlotFrom, SlotSpan, TriedServers,
};
pub use line::{Line, LineError, LineId, ProcessId, Speaker, TraceContext};
pub use paxos_events::{acceptor, fenced, learner, proposer};
pub use quoted::QuotedText;
pub use sink::LogLimits;
pub use two_phase_events::{coordinator, participant};
pub use values::{
    CommandName, CrashCause, CrashPoint, DecisionReason, DropCause, LearnResult, LinkEvent, OpKind, RecoveredFrom,
    RequestStatus, RestartMode, TransactionState, VoteValue,
};
pub use writer::{Parent, PendingLine, Trace};
#[cfg(any(test, fuzzing, feature = "test-support"))]
pub use {
    line::{clean_label, clean_reason},
    quoted::is_invisible,
};
