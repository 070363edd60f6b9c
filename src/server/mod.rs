//! One server process: threads and sockets around a [`ServerCore`](crate::host::ServerCore). The only place where sockets
//! meet roles.
//!
//! - [`start`] brings it up; [`options`] is its command line; [`check`] looks whether a start would succeed.
//! - [`house`] is the core with its threads. What is decided is decided in [`host`](crate::host).
//! - [`supervisor`] starts roles, lets them fail, and starts them again; [`role_thread`] is the thread of one life.
//! - [`keeper`] is the thread that writes the state down beside all that, and reads it back.
//! - [`http`] lets browsers watch.
//! - [`peers`] and [`clients`] are the connections; [`intake`] is the way in for a client's requests, [`outlet`] the way back.

mod check;
mod clients;
mod clock;
mod disks;
mod house;
pub(crate) mod http;
mod intake;
mod keeper;
mod options;
mod outlet;
mod peers;
mod role_thread;
#[cfg(any(test, fuzzing))]
pub(crate) mod stage;
mod start;
mod supervisor;
pub mod tools;

pub use options::{FailureMode, OnOff, Protocol, RecoveryMode, ServerOptions};
pub use start::run;
