//! The client: a library that applies each write exactly once and reports exactly what it knows of the result, and the
//! program built on it.
//!
//! [`Client`] asks one server, and fails over to the next. Its decisions are in [`core`], which the simulator runs too.
//! `client.rs` adds the clock and the waiting, `connection.rs` one TCP connection, and `tcp.rs` all connections of one
//! client.
//!
//! The rest is the command line (`cli.rs`), the bench ([`mod@bench`]), and the demo. The demo runs scripts of
//! operations ([`script`]) and scenes, and ends with a check of the final state against the write responses.

#[cfg(feature = "programs")]
mod arguments;
#[cfg(feature = "programs")]
mod backup;
#[cfg(feature = "programs")]
pub mod bench;
#[cfg(feature = "programs")]
pub mod cli;
// A file is named after its content, and this file contains the client.
#[expect(clippy::module_inception)]
mod client;
#[cfg(feature = "programs")]
pub mod cluster_status;
mod connection;
pub mod core;
#[cfg(feature = "programs")]
pub mod demo;
#[cfg(feature = "programs")]
mod execute;
#[cfg(feature = "programs")]
mod interrupt;
#[cfg(feature = "programs")]
pub(crate) mod json;
#[cfg(feature = "programs")]
pub mod name;
pub mod operation;
#[cfg(feature = "programs")]
pub mod printer;
#[cfg(feature = "programs")]
mod repl;
#[cfg(feature = "programs")]
mod retry_notes;
#[cfg(feature = "programs")]
pub mod script;
mod tcp;
#[cfg(test)]
#[cfg(feature = "programs")]
mod tests;

use self::core::outcome;
pub use self::core::outcome::{ClientError, GetResponse, RequestKind, Tries, Try, TryEnd, WriteResponse};
pub use self::core::session::{AssignedWrite, ClientSession, Nonces};
pub use self::core::wire::NoReply;
pub use self::core::{IN_FLIGHT_MAX, RequestHandle, check_limits};
pub use client::{Client, ClientOptions};
#[cfg(feature = "programs")]
pub use execute::{OutcomeCounts, execute};
pub use operation::{CompletedOperation, Operation, OperationResult};
