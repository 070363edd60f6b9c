//! A server: threads and sockets around a [`ServerCore`](crate::host::ServerCore). Only this module connects
//! sockets to roles.
//!
//! - [`server`] starts and stops a server, also in a program that uses it as a library; [`program`] is the program
//!   `paxos-server` around one.
//! - [`options`] is the command line; [`check`] tests whether a start would succeed.
//! - [`context`] is the core with its threads. All decisions are made in [`host`](crate::host).
//! - [`supervisor`] starts roles, crashes them, and restarts them; [`role_thread`] is the thread of one incarnation.
//! - [`checkpoint_thread`] is the thread that writes checkpoints concurrently, and reads them back.
//! - [`http`] lets browsers watch.
//! - [`peers`] and [`client_listener`] are the connections; [`request_reader`] reads a client's requests, and
//!   [`reply_writer`] writes its replies.

#[cfg(any(test, fuzzing, feature = "test-support"))]
pub mod bench_server;
mod check;
mod checkpoint_thread;
mod client_listener;
mod clock;
mod context;
mod delayed_disk;
pub mod http;
mod options;
mod peers;
mod program;
mod reply_writer;
mod request_reader;
mod role_thread;
// A file is named after its content, and this file contains the server.
#[expect(clippy::module_inception)]
mod server;
mod supervisor;
pub mod tools;

pub use options::{ClusterSource, FailureMode, OnOff, Protocol, RecoveryMode, ServerOptions};
pub use program::run;
pub use server::{Server, StartError, StopError};
