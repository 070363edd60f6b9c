//! The client's side: a library that writes exactly once and says honestly what it knows, and the programme around it.
//!
//! [`Client`] asks one server, and fails over to the next. Its parts are apart: [`Session`] numbers the writes,
//! [`Connection`] carries requests and their replies, `flight.rs` is one request under way, and `drive.rs` tries again
//! until there is a result, a certain failure or no time left. What a request can come to is in `outcome.rs`.
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
pub mod demo;
mod detours;
mod drive;
mod flight;
pub mod identity;
mod interrupt;
mod json;
pub(crate) mod lines;
mod outcome;
mod perform;
pub mod print;
mod scenes;
mod session;
mod shell;
pub mod status;
mod stub;
#[cfg(test)]
mod tests;
pub mod workload;

pub use connection::{Connection, NoReply};
pub(crate) use drive::SESSIONS_MAX;
pub(crate) use flight::{Pauses, asked};
pub use outcome::{Asked, ClientError, Found, Outcome, Tries, Try, TryEnd};
pub use perform::{Counts, Done, Ended, perform};
pub use session::{Nonces, Session, WriteId};
pub use stub::{Client, ClientOptions, Ticket, UNDER_WAY_MAX, check_limits};
