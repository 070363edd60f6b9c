//! Lines: what every process tells people while it runs.
//!
//! A line is a typed [`Event`] with a time, a number and a reason. It is written through [`Trace`] and reads back exactly
//! what was said, so the same lines that a person follows with `grep` prove afterwards that a run kept the rules.
//!
//! ```text
//! 2026-08-21T14:03:07.105388Z INFO  s1.206  proposer ACCEPT   req=c1-5 slot=7 ballot=3.1 ... re=s5.90 -- why
//! ```

#[cfg(test)]
mod arbitrary;
pub mod audit;
pub mod clocks;
pub mod columns;
mod commit_facts;
mod event;
pub mod exchange;
mod facts;
mod field;
pub mod histories;
mod line;
pub mod paint;
pub mod parse;
pub mod report;
mod sink;
pub mod story;
mod terminal;
mod text;
pub mod timeline;
pub mod waiting;
mod word;
mod writer;

pub use commit_facts::{coordinator, participant};
pub use event::{Event, EventError};
pub use facts::{acceptor, fenced, learner, proposer};
pub use field::{
    AcceptedSlots, Digest, DiskName, FieldError, HistoryName, MaybeBallot, Millis, Nacks, OmittedSlots, Seconds,
    SlotFrom, SlotSpan, TriedServers,
};
pub use line::{Line, LineError, LineId, ProcessId, Speaker, TraceContext};
pub use sink::LogLimits;
pub use text::QuotedText;
pub use word::{
    CommandName, CrashCause, CrashPoint, DecisionReason, DropCause, LearnResult, LinkEvent, OpKind, RecoveredFrom,
    RequestStatus, RestartMode, TransactionState, VoteValue,
};
pub use writer::{Parent, PendingLine, Trace};
#[cfg(any(test, fuzzing))]
pub(crate) use {
    line::{clean_label, clean_why},
    text::is_invisible,
};
