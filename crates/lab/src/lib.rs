//! The lab of [`paxos_kv`]: it tests the store, and it teaches with it.
//!
//! - [`sim`]: whole clusters in virtual time, under every fault that can occur, with the store's own code; and lessons.
//! - `model`: every order of events in a small scope (tests only).
//! - [`chaos`]: real processes, disks and sockets, under injected faults.
//! - [`linearizability`]: whether the clients' results fit one order that respects real time.
//! - [`play`]: the simulator by hand, in a browser: the reader is the network.
//! - `fuzz`: what must hold for any input bytes (tests and fuzzing only).
//!
//! The bugs that the simulator must find are in [`paxos_kv::seeded_bugs`], behind a feature: the server that chaos runs
//! must contain them too. The log lines, and what reads them, are part of the store: [`paxos_kv::trace`].

pub mod chaos;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod linearizability;
#[cfg(test)]
mod model;
pub mod play;
pub mod sim;
