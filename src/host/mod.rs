//! The decisions of a server, written once: the threads of a real server and the events of the simulator both run this
//! code.
//!
//! This module uses no clock, thread or socket. Its only files are those of the data directory, which the caller
//! provides. [`recovery`], [`checkpoints`], [`admission`] and the commit of a batch wait for these files. All other
//! waiting (for a socket, for a condition) stays with the caller. The module reaches its surroundings through an
//! [`Env`].
//!
//! - [`core`] is the shared data: [`ServerCore`]. [`config`] is how the server was started.
//! - [`requests`] handles a client's request, `service` names the roles that serve it, [`pending`] holds the pending
//!   requests, and [`replies`] sends the replies. [`limits`] bounds the clients' requests in flight, and [`budget`]
//!   chooses the connections to close when clients hold too much memory.
//! - [`delivery`] sends messages, and delivers received messages to the roles through their [`mailbox`], a
//!   [`mail_queue`].
//! - [`role_host`] runs one incarnation of a role. [`roles`] is what each role adds, and [`role_disk`] what its disk
//!   does when it is full. [`recovery`] builds the role at the start of an incarnation, and [`lifecycle`] decides when
//!   incarnations begin and end. [`timers`] holds a role's armed timers.
//! - [`checkpoints`] writes checkpoints, and sends chunks of them.
//! - [`admission`] decides whether the server takes part at all: not with a new disk that too few peers have recorded,
//!   nor with a divergent replica. [`dialler`] decides how the server's own link to a peer behaves.
//! - [`status`] is what others may see, [`connected_peers`] the peers that this server reaches and hears, and
//!   [`trace_lines`] the server's own log lines.

pub mod admission;
pub mod budget;
pub mod checkpoints;
pub mod config;
pub mod connected_peers;
pub mod core;
pub mod cut_links;
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
pub mod timers;
pub mod trace_lines;

pub use admission::Admission;
pub use config::{Config, Sizes};
pub use core::{Fatal, ServerCore};
pub use cut_links::NOT_LAB;
pub use dialler::Dialler;
pub use env::{Env, Observation, RoleObservation};
pub use lifecycle::LabRequest;
pub use limits::{ClientConnection, RequestLoad, Usage};
pub use mail_queue::{CrashRequest, Delivery, MailboxItem, SendError};
pub use pending::{PendingRequests, QueuedReply, ReplyHandle, RequestId};
pub use recovery::RecoveryError;
pub use role_host::{RoleHost, RunEnd, TurnStart};
pub use roles::Hosted;
pub use timers::Timers;
