//! One server process: threads, timers, failures and the front desk. The only place where sockets meet roles.
//!
//! - [`start`] brings it up; [`options`] is its command line; [`check`] looks whether a start would succeed.
//! - [`runner`] is the shell that runs any role; [`shells`] is what each role adds to it, [`two_phase`] what those of
//!   two-phase commit add.
//! - [`house`] is what they share: mailboxes, links, and how a message reaches the roles that hear it.
//! - [`supervisor`] starts roles, lets them fail, and starts them again; [`lives`] is how a life begins and ends.
//! - [`keeper`] writes the state down beside all that, and reads it back.
//! - [`linked`] says which of the others it reaches and hears.
//! - [`standing`] says whether the server takes part at all: not with a new disk that too few know, nor with a wrong state.
//! - [`http`] lets browsers watch.
//! - [`peers`] and [`clients`] are the connections; [`outlet`] and [`replies`] are the way back to a client.

mod board;
mod check;
mod clients;
mod clock;
mod disks;
pub(crate) mod house;
pub(crate) mod http;
mod keeper;
pub(crate) mod lines;
mod linked;
mod lives;
pub(crate) mod mailbox;
mod options;
mod outlet;
mod peers;
mod replies;
pub(crate) mod runner;
mod shells;
#[cfg(any(test, fuzzing))]
pub(crate) mod stage;
mod standing;
mod start;
mod supervisor;
mod throttle;
pub mod tools;
pub(crate) mod two_phase;

pub use options::{Fail, Options, Protocol, Restart, Switch};
pub use start::run;
