//! A Paxos replicated key-value store to run, watch, break and check.
//!
//! # As a library
//!
//! A [`Client`] asks the servers of a [`Cluster`]. It retries under one sequence number, so a write is applied at most
//! once, and its errors say whether a write was certainly not applied or may have been.
//!
//! ```no_run
//! use paxos_kv::{Client, ClientOptions, Cluster, Member};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let member = |n: u16| Member::new(([127, 0, 0, 1], 7100 + n).into(), ([127, 0, 0, 1], 7200 + n).into());
//!     let cluster = Cluster::from_members("demo", (1..=5).map(|n| (n, member(n.into()))))?;
//!     let mut client = Client::new(ClientOptions::new(cluster, "me"))?;
//!     client.put("color", "blue")?;
//!     let read = client.get("color")?;
//!     println!("{:?} at version {}", read.value, read.version);
//!     Ok(())
//! }
//! ```
//!
//! `examples/hello.rs` and `examples/counter.rs` run against a started cluster. A [`Server`] is a value too:
//! `examples/single_process_cluster.rs` runs five of them in one process, as tests of an application would.
//!
//! # Reading order
//!
//! 1. [`paxos`]: the protocol. Its module head explains it from the beginning; then one file per role.
//! 2. [`role`]: what a role is, and why no message leaves before the records that it rests on are durable.
//! 3. [`kv`]: the replicated state machine: a store with versions, whose writes are applied exactly once.
//! 4. [`storage`]: stable storage of the roles, and how corrupt records are told from records never written.
//! 5. [`host`]: the decisions of a server, for threads and simulator alike; [`server`]: the threads, sockets, timers
//!    and failures around the roles; with [`net`] and [`codec`].
//! 6. [`client`]: the other end: retries under one sequence number, and three honest results.
//! 7. [`trace`]: the log lines of all modules, and how they prove a run again.
//! 8. [`two_phase_commit`]: a comparison: two more roles on the same core, and what happens when they fail.
//!
//! The package `paxos-lab` (`crates/lab`) tests all this: a simulator, chaos, a model checker, a linearizability
//! checker and fuzz targets. [`seeded_bugs`] are the bugs that it must find.
//!
//! Dependencies point one way: `paxos-lab -> server -> client, host -> net, storage, trace -> two_phase_commit -> kv,
//! paxos -> role`. The modules [`role`], [`paxos`], [`kv`] and [`two_phase_commit`] are pure: no clock, socket, file,
//! thread, randomness or hash order.

#[cfg(any(test, fuzzing, feature = "test-support"))]
#[doc(hidden)]
pub mod choices;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "client")]
pub mod cluster;
pub mod codec;
#[cfg(feature = "programs")]
pub mod completions;
#[cfg(feature = "client")]
pub mod duration;
#[cfg(feature = "programs")]
pub mod host;
pub mod kv;
#[cfg(feature = "client")]
pub mod net;
pub mod paxos;
pub mod protocol;
pub mod random;
pub mod role;
pub mod seeded_bugs;
#[cfg(feature = "programs")]
pub mod server;
#[cfg(feature = "programs")]
pub mod storage;
pub mod time;
#[cfg(feature = "client")]
pub mod trace;
pub mod two_phase_commit;

#[cfg(feature = "client")]
pub use client::{Client, ClientError, ClientOptions, GetResponse, WriteResponse};
#[cfg(feature = "client")]
pub use cluster::{Cluster, ClusterError, Member};
#[cfg(feature = "programs")]
pub use server::{Server, ServerOptions, StartError, StopError};
