//! The client: a library that applies each write exactly once and reports exactly what it knows of the result, and the
//! program built on it.
//!
//! [`Client`] asks one server, and fails over to the next. Its decisions are in [`core`], which the simulator runs too.
//! `client.rs` adds the clock and the waiting, `connection.rs` one TCP connection, and `tcp.rs` all connections of one
//! client.
//!
//! The rest is the command line (`cli.rs`), the bench ([`mod@bench`]), and the demo. The demo runs scripts of
//! operations ([`script`]) and scenes, and ends with a [`check`] of the final state against the write responses.

mod arguments;
mod backup;
pub mod bench;
pub mod check;
pub mod cli;
// A file is named after its content, and this file contains the client.
#[expect(clippy::module_inception)]
mod client;
pub mod cluster_status;
mod connection;
pub mod core;
pub mod demo;
mod execute;
mod interrupt;
mod json;
mod leader_crash;
pub mod name;
pub mod printer;
mod repl;
mod retry_notes;
mod scenes;
pub mod script;
mod tcp;
#[cfg(test)]
mod tests;

pub(crate) use self::core::outcome;
pub use self::core::outcome::{ClientError, GetResponse, RequestKind, Tries, Try, TryEnd, WriteResponse};
pub use self::core::session::{AssignedWrite, ClientSession, Nonces};
pub use self::core::wire::NoReply;
pub use self::core::{IN_FLIGHT_MAX, RequestHandle, check_limits};
pub use client::{Client, ClientOptions};
pub use execute::{CompletedOperation, OperationResult, OutcomeCounts, execute};
