//! What a server decides, written once: the threads of a real server and the events of the simulator both run this.
//!
//! Nothing here knows a clock, a thread or a socket, and the only files are those of the data folder, which the caller
//! brings: [`recovery`], [`checkpoints`], [`admission`] and the commit of a group wait for them. All other waiting (for
//! a socket, for a condition) stays with the caller, and what is needed of the surroundings is an [`Env`].
//!
//! - [`core`] is what is shared: [`ServerCore`]. [`config`] is how it was started.
//! - [`requests`] is what a client's request comes to, `service` which roles serve it, [`pending`] who waits for an
//!   outcome, [`replies`] what is sent, [`limits`] how much clients may have under way, and [`budget`] who must go if
//!   it is too much.
//! - [`delivery`] is how messages leave, and how they reach the roles that hear them: by their [`mailbox`], a
//!   [`mail_queue`].
//! - [`role_host`] runs one life of a role; [`roles`] is what each role adds to it, [`role_disk`] what its disk does
//!   when it runs full, [`recovery`] what a life begins with, and [`lifecycle`] when lives begin and end. [`timers`] is
//!   what a role waits for, and [`time`] the time of a server's clock.
//! - [`checkpoints`] writes the state down, and hands on parts of it.
//! - [`admission`] says whether the server takes part at all: not with a new disk that too few know, nor with a wrong
//!   state. [`dialler`] is what it makes of its own link to a peer.
//! - [`status`] is what others may see, [`connected_peers`] which of the other servers it reaches and hears,
//!   [`trace_lines`] what a server tells people.

pub mod admission;
pub mod budget;
pub mod checkpoints;
pub mod config;
pub mod connected_peers;
pub mod core;
pub mod delivery;
pub mod dialler;
pub mod env;
pub mod lifecycle;
pub mod limits;
pub mod mail_queue;
pub mod mailbox;
pub mod pending;
#[cfg(test)]
mod races_tests;
pub mod rate_limit;
pub mod recovery;
pub mod replies;
pub mod requests;
pub mod role_disk;
pub mod role_host;
pub mod roles;
mod rules;
mod service;
pub mod status;
pub mod time;
pub mod timers;
pub mod trace_lines;

pub use admission::Admission;
pub use config::{Config, Sizes};
pub use core::{Fatal, ServerCore};
pub use dialler::Dialler;
pub use env::{Env, Observation, RoleObservation};
pub use lifecycle::LabRequest;
pub use limits::{ClientConnection, RequestLoad, Usage};
pub use mail_queue::{CrashRequest, Delivery, MailboxItem, SendError};
pub use pending::{PendingRequests, QueuedReply, ReplyHandle, RequestId};
pub use recovery::RecoveryError;
pub use role_host::{RoleHost, RunEnd, TurnStart};
pub use roles::Hosted;
pub use time::Time;
pub use timers::Timers;
