//! A Paxos replicated key-value store that people can run, watch, break and trust.
//!
//! # Reading order
//!
//! 1. [`paxos`]: the protocol. Its head is an essay that starts from nothing; then one file a role.
//! 2. [`role`]: what a role is, and why nothing is said before what it rests on is durable.
//! 3. [`kv`]: what is replicated: a store with versions, whose writes are applied exactly once.
//! 4. [`storage`]: how an acceptor remembers, and how damage is told from "never written".
//! 5. [`host`]: what a server decides, for threads and simulator alike; [`server`]: threads, sockets, timers and
//!    failures around the roles; with [`net`] and [`codec`].
//! 6. [`client`]: the other side: retries under one number, and honest outcomes.
//! 7. [`trace`]: the lines that all of them write, and how they prove a run again.
//! 8. [`linearizability`]: whether what clients saw makes sense in some order.
//! 9. [`sim`]: whole clusters in virtual time, under everything that can go wrong; [`seeded_bugs`]: the bugs that it
//!    must find.
//! 10. [`chaos`]: real processes, disks and sockets, struck by everything that can strike them.
//! 11. [`two_phase_commit`]: the road not taken, two more roles on the same core, and what becomes of them.
//!
//! Dependencies point one way: `client, server, sim -> host -> net, storage, trace -> two_phase_commit -> kv, paxos ->
//! role`. The rooms [`role`], [`paxos`], [`kv`] and [`two_phase_commit`] are pure: no clock, socket, file, thread,
//! randomness or hash order.

pub mod chaos;
pub mod client;
pub mod cluster;
pub mod codec;
pub mod completions;
pub mod duration;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod host;
pub mod kv;
pub mod linearizability;
#[cfg(test)]
mod model;
pub mod net;
pub mod paxos;
pub mod protocol;
pub mod random;
pub mod role;
pub mod seeded_bugs;
pub mod server;
pub mod sim;
pub mod storage;
pub mod trace;
pub mod two_phase_commit;
