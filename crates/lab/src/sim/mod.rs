//! The simulator: whole clusters in virtual time, with injected faults, driven by one seed.
//!
//! The real code runs here: the roles, the server core, the codec and the stable storage. Only threads, sockets, clocks
//! and disks are replaced. No thread ever waits, and a run depends on nothing but its seed: the same seed gives the
//! same run, event by event. One command replays a failure.
//!
//! - [`plan`] holds what a seed decides before a run; [`faults`] holds what goes wrong during a run, and when.
//!   `corruption` covers damage to disks.
//! - [`simulation`] runs the events. They come from [`mod@env`]; frames cross the [`network`] and reach `delivery`.
//!   `network_lines` writes what the network of a scene cuts and loses.
//! - [`server`] is a server without threads: `process_env` is what its core needs, `scheduler` runs its roles, and
//!   [`data_dir`] is its data directory. [`client`] is a client, and [`wire`] its connections.
//! - [`oracle`] observes everything and checks the invariants. [`transactions`] has those of two-phase commit,
//!   `durable_state` those of the disks, `memory_bounds` those of a server's memory.
//! - [`client_history`] records what the clients saw, and checks that it is linearizable.
//! - [`bug_search`] shows that the simulator finds known bugs of other systems.
//! - [`by_hand`] lets a person take every event, one by one.
//! - [`compare`] runs the same scenes under each protocol.
//! - [`lessons`] are scripted scenes for readers, without any randomness.
//! - [`coverage`] says whether a batch reached the situations that it was made for. [`batch`] runs many seeds, and
//!   [`simulate_command`] prints the results.

#[cfg(test)]
mod audit_gap_tests;
pub mod batch;
pub mod bug_search;
pub mod by_hand;
pub mod client;
pub mod client_history;
pub mod compare;
mod corruption;
pub mod coverage;
pub mod data_dir;
mod delivery;
mod durable_state;
pub mod env;
pub mod faults;
mod impostors;
mod invariant;
#[cfg(test)]
mod lagging_replica;
pub mod leaders;
pub mod lessons;
mod memory_bounds;
pub mod network;
mod network_lines;
pub mod oracle;
#[cfg(test)]
mod partial_partitions;
mod peer_links;
pub mod plan;
mod process_env;
mod scheduler;
pub mod server;
pub mod simulate_command;
pub mod simulation;
#[cfg(test)]
mod slow_disks;
#[cfg(test)]
mod small_disks;
#[cfg(test)]
mod tests;
pub mod transactions;
mod two_phase;
#[cfg(test)]
mod verdicts;
pub mod wire;

pub use coverage::{Coverage, CoveragePoint};
pub use faults::{Fault, FaultSet};
pub use plan::RunPlan;
pub use simulation::{RunReport, RunVerdict, Simulation};

/// Runs one seed with at most these classes of faults.
pub fn simulate(seed: u64, allowed: FaultSet) -> RunReport {
    batch::run_one(seed, batch::BatchConfig { allowed, bug: None, protocol: None, user_visible_only: false }, false)
}
