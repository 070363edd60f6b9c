//! Whether a history is linearizable: as if each operation had happened at one moment between its call and its return.
//!
//! A history says when each operation was called, when it returned, and with what. It is *linearizable* if the
//! operations can be put in an order that one copy of the data, used by one client after the other, would have answered
//! alike, and in which whatever returned before another was called also stands before it (Herlihy and Wing,
//! "Linearizability: A Correctness Condition for Concurrent Objects", TOPLAS 1990). This is what a client may expect of
//! the store, and the check knows nothing of Paxos: it asks only what clients have seen.
//!
//! # How it is decided
//!
//! [`search`] tries the orders, in the way of Wing and Gong ("Testing and Verifying Concurrent Objects", JPDC 1993):
//! any operation may be next that was called before the first return which is still to be explained. Two orders of the
//! same operations that leave the same state have the same future, so each pair (operations taken, state) is explored
//! once (Lowe, "Testing for Linearizability", Concurrency and Computation 2017). A history is linearizable if its part
//! about each key is, so the keys are searched one by one (Horn and Kroening, "Faster Linearizability Checking via
//! P-Compositionality", FORTE 2015). The problem is NP-complete: a search ends at its deadline, or where its memory
//! does, with [`LinearizabilityVerdict::Unknown`].
//!
//! Two things keep the search small where requests have timed out. Values that nobody has ever read are told apart by
//! nobody, so they count as one value. And of two operations that ask and answer the same, the one that was
//! called and returned earlier may go first.
//!
//! # What an outcome means
//!
//! - It *returned*: it took effect once, between its call and its return, and had this result.
//! - It did *not happen*: certainly not applied. Such an operation is left out.
//! - It is *pending*: its outcome is unknown. It may take effect at any moment after its call, or never.
//!
//! # What is assumed
//!
//! The times of all clients come from one clock, or from clocks that agree; a history holds the operations of *all*
//! clients; and it begins with an empty store (if the lines of servers are there, they tell when it did not, and which
//! writes came from clients without lines). Sixteen bytes stand for a long value: its length and a 64-bit hash.

mod append_model;
mod append_text;
pub mod check_command;
mod cross_check;
mod entries;
mod etcd_log;
mod events;
mod first_violation;
mod history;
mod model;
mod operation_set;
mod register_model;
mod run_history;
pub mod search;
pub mod value_ids;
mod verdict;
pub mod versioned_model;

#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod search_tests;

pub use append_model::AppendModel;
pub use cross_check::cross_check;
pub use history::{Format, FormatError, History};
pub use model::{HistoryOperation, SequentialModel};
pub use register_model::RegisterModel;
pub use run_history::{check_lines, check_run};
pub use verdict::{LinearizabilityVerdict, SourceLines, WhyUndecided, Witness};
pub use versioned_model::VersionedModel;
