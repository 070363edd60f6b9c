//! One server process: threads and sockets around a [`ServerCore`](crate::host::ServerCore). The only place where
//! sockets meet roles.
//!
//! - [`start`] brings it up; [`options`] is its command line; [`check`] looks whether a start would succeed.
//! - [`context`] is the core with its threads. What is decided is decided in [`host`](crate::host).
//! - [`supervisor`] starts roles, lets them fail, and starts them again; [`role_thread`] is the thread of one life.
//! - [`checkpoint_thread`] is the thread that writes the state down beside all that, and reads it back.
//! - [`http`] lets browsers watch.
//! - [`peers`] and [`client_listener`] are the connections; [`request_reader`] is the way in for a client's requests,
//!   [`reply_writer`] the way back.

#[cfg(any(test, fuzzing))]
pub(crate) mod bench_server;
mod check;
mod checkpoint_thread;
mod client_listener;
mod clock;
mod context;
mod delayed_disk;
pub(crate) mod http;
mod options;
mod peers;
mod reply_writer;
mod request_reader;
mod role_thread;
mod start;
mod supervisor;
pub mod tools;

pub use options::{FailureMode, OnOff, Protocol, RecoveryMode, ServerOptions};
pub use start::run;
