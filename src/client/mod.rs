//! The client's side: a library that writes exactly once and says honestly what it knows, and the programme around it.
//!
//! [`Client`] asks one server, and fails over to the next. What it decides is in [`core`], which the simulator runs too;
//! `stub.rs` adds the clock and the waiting, `connection.rs` one TCP connection, and `tcp.rs` those of one client.
//!
//! The rest is the command line (`cli.rs`), the bench ([`mod@bench`]), and the demo: a script of operations ([`workload`]) and
//! scenes, whose end is judged by a [`check`] of what the writes were told.

mod arguments;
mod backup;
pub mod bench;
mod between;
pub mod check;
pub mod cli;
mod connection;
pub mod core;
pub mod demo;
mod detours;
pub mod identity;
mod interrupt;
mod json;
mod perform;
pub mod print;
mod scenes;
mod shell;
pub mod status;
mod stub;
mod tcp;
#[cfg(test)]
mod tests;
pub mod workload;

pub(crate) use self::core::outcome;
pub use self::core::outcome::{ClientError, GetResponse, RequestKind, Tries, Try, TryEnd, WriteResponse};
pub use self::core::session::{AssignedWrite, ClientSession, Nonces};
pub use self::core::wire::NoReply;
pub use self::core::{RequestHandle, UNDER_WAY_MAX, check_limits};
pub use perform::{CompletedOperation, OperationResult, OutcomeCounts, perform};
pub use stub::{Client, ClientOptions};
