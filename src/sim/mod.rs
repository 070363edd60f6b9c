//! The simulator: whole clusters in virtual time, where everything that can go wrong does, and one seed decides it all.
//!
//! What a server decides, its roles, the codec and the stable storage are the real ones; only threads, sockets, clocks
//! and disks are replaced. Nothing here waits, and nothing depends on anything but the seed: the same seed gives the
//! same run, event by event, and a failure is replayed with one command.
//!
//! - [`plan`] is what a seed decides beforehand, [`faults`] what goes wrong, and when;
//!   `damage` is what disks do.
//! - [`simulation`] lets it happen: events come from [`env`], frames cross the [`network`] and reach their
//!   `arrivals`.
//! - [`server`] is a server without threads: `surroundings` is what its core needs, `turns` run its roles, and
//!   [`data_dir`] is its data data_dir. [`client`] is a client, and [`wire`] its connections.
//! - [`oracle`] knows the rules and sees everything, [`transactions`] those of two-phase commit, `remembered` what is
//!   on disks, `bounds` how much a server may hold; [`client_history`] is what the clients saw.
//! - [`seeded_bugs`] shows that the simulator finds the bugs that others have had.
//! - [`compare`] plays the same scenes under each protocol.
//! - [`lessons`] are scenes for people, without any chance.
//! - [`coverage`] tell whether a batch has reached what it was made for; [`batch`] runs many seeds, and [`cli`] shows
//!   them.

pub mod batch;
pub mod bug_search;
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

/// Runs one seed with faults of these classes at most.
pub fn simulate(seed: u64, allowed: FaultSet) -> RunReport {
    batch::run_one(seed, batch::BatchConfig { allowed, bug: None, protocol: None, harm_only: false }, false)
}
