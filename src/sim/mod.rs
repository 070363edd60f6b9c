//! The simulator: whole clusters in virtual time, where everything that can go wrong does, and one seed decides it all.
//!
//! What a server decides, its roles, the codec and the stable storage are the real ones; only threads, sockets, clocks and
//! disks are replaced. Nothing here waits, and nothing depends on anything but the seed: the same seed gives the same run, event by
//! event, and a failure is replayed with one command.
//!
//! - [`plan`] is what a seed decides beforehand, [`faults`] what goes wrong, and when;
//!   `damage` is what disks do.
//! - [`world`] lets it happen: events come from [`nature`], frames cross the [`network`] and reach their
//!   `arrivals`.
//! - [`server`] is a server without threads: `surroundings` is what its core needs, `turns` run its roles, and [`folder`] is
//!   its data folder. [`client`] is a client, and [`wire`] its connections.
//! - [`invariants`] knows the rules and sees everything, [`commits`] those of two-phase commit, `remembered` what is on
//!   disks, `bounds` how much a server may hold; [`history`] is what the clients saw.
//! - [`museum`] shows that the simulator finds the bugs that others have had.
//! - [`compare`] plays the same scenes under each protocol.
//! - [`lessons`] are scenes for people, without any chance.
//! - [`marks`] tell whether a batch has reached what it was made for; [`batch`] runs many seeds, and [`cli`] shows them.

mod arrivals;
#[cfg(test)]
mod away;
pub mod batch;
mod bounds;
mod calls;
pub mod cli;
pub mod client;
pub mod commits;
pub mod compare;
#[cfg(test)]
mod cramped;
mod damage;
pub mod faults;
pub mod folder;
pub mod history;
mod impostors;
pub mod invariants;
pub mod lessons;
pub mod marks;
pub mod museum;
pub mod nature;
pub mod network;
#[cfg(test)]
mod partitions;
pub mod plan;
pub mod reigns;
mod remembered;
pub mod server;
#[cfg(test)]
mod slow_disks;
mod surroundings;
#[cfg(test)]
mod tests;
mod turns;
mod two_phase;
#[cfg(test)]
mod verdicts;
mod violation;
pub mod wire;
pub mod world;

pub use faults::{Fault, FaultSet};
pub use marks::{Coverage, Mark};
pub use plan::RunPlan;
pub use world::{RunReport, RunVerdict, Simulation};

/// Runs one seed with faults of these classes at most.
pub fn simulate(seed: u64, allowed: FaultSet) -> RunReport {
    batch::run_one(seed, batch::BatchConfig { allowed, bug: None, protocol: None, harm_only: false }, false)
}
