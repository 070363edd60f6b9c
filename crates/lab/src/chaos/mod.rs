//! Chaos runs: the shipped programs as real processes, under the faults that a machine or a network can have.
//!
//! The simulator ([`crate::sim`]) checks the roles and the turn in virtual time. It does not cover sockets, threads,
//! files, signals and the command line. Here five servers run as processes, each on its own disk whose power can fail.
//! A proxy network ([`proxy`]) connects them, and real clients send requests.
//!
//! A seed decides a *round* in advance: the servers' options, the client load, and a list of faults, each with a start
//! and a duration ([`plan`], [`fault`]). During the faults no reply may be wrong. Then all faults end, and within 30 s
//! all servers must agree and serve new requests ([`round`]). At the end two checkers that know nothing of the faults
//! judge the lines of servers and clients: the audit and the linearizability check ([`verify`]). Unlike a simulated
//! round, a round cannot be replayed exactly, so a failed round keeps all its files.

mod capabilities;
pub mod chaos_command;
mod client_load;
mod corruption;
mod fault;
mod injector;
mod plan;
mod process;
mod proxy;
mod round;
pub mod soak;
mod test_cluster;
mod totals;
mod verify;
mod volume;
