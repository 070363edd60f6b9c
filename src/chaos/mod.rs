//! Chaos: the shipped programs, as real processes, with everything done to them that can be done to a machine.
//!
//! The simulator ([`crate::sim`]) proves the roles and the turn, in virtual time. What is left is the rim: sockets,
//! threads, files, signals, the command line. Here five servers run as processes, each on a disk of its own whose power
//! can fail, with a network of our own between them ([`proxy`]), and real clients ask them for things.
//!
//! A seed decides a *round* beforehand: how the cluster is started, who asks what, and a row of *strikes*, each a fault
//! for a while ([`plan`], [`fault`]). While they last nothing wrong may be said; then everything is made whole, and
//! within half a minute all servers must agree and do new work ([`round`]). At the end the lines that servers and
//! clients have written are judged by those who know nothing of the strikes: the audit and the search for an order
//! ([`verify`]). A round cannot be played again exactly, as a simulated one can; so all that it left behind is kept if
//! anything is wrong.

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
