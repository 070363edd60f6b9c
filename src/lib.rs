//! A Paxos replicated key-value store to run, watch, break and check.
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
//! 8. [`linearizability`]: whether the clients' results fit one order that respects real time.
//! 9. [`sim`]: whole clusters in virtual time, under every fault that can occur; [`seeded_bugs`]: the bugs that it must
//!    find.
//! 10. [`chaos`]: real processes, disks and sockets, under injected faults.
//! 11. [`two_phase_commit`]: a comparison: two more roles on the same core, and what happens when they fail.
//!
//! Dependencies point one way: `client, server, sim -> host -> net, storage, trace -> two_phase_commit -> kv, paxos ->
//! role`. The modules [`role`], [`paxos`], [`kv`] and [`two_phase_commit`] are pure: no clock, socket, file, thread,
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
