//! The linearizability check: whether each operation may have happened at one moment between its call and its return.
//!
//! A history records when each operation was called, when it returned, and its result. A history is *linearizable* if
//! its operations can be put in an order with two properties. One copy of the data, used by one client after the other,
//! would give the same results. An operation that returned before another was called comes first in the order (Herlihy
//! and Wing, "Linearizability: A Correctness Condition for Concurrent Objects", TOPLAS 1990). Clients may expect this
//! of the store. The check does not use Paxos at all: it uses only what clients have seen.
//!
//! # How it is decided
//!
//! [`search`] tries the orders with the algorithm of Wing and Gong ("Testing and Verifying Concurrent Objects", JPDC
//! 1993). Any operation may be next that was called before the first return still to be explained. Two orders of the
//! same operations that lead to the same state have the same future. So each pair (operations taken, state) is explored
//! once (Lowe, "Testing for Linearizability", Concurrency and Computation 2017). A history is linearizable if its part
//! for each key is, so the keys are searched one by one (Horn and Kroening, "Faster Linearizability Checking via
//! P-Compositionality", FORTE 2015). The problem is NP-complete: a search ends at its deadline, or at its memory limit,
//! with [`LinearizabilityVerdict::Unknown`].
//!
//! Two reductions keep the search small if requests have timed out. Values that no operation has read count as one
//! value, because no result can tell them apart. And of two operations with the same call and result, the one that was
//! called and returned earlier may go first.
//!
//! # What an outcome means
//!
//! - *Returned*: the operation took effect once, between its call and its return, and had this result.
//! - *Did not happen*: certainly not applied. Such an operation is left out.
//! - *Pending*: the outcome is unknown. The operation may take effect at any moment after its call, or never.
//!
//! # What is assumed
//!
//! - The times of all clients come from one clock, or from clocks that agree.
//! - A history contains the operations of *all* clients.
//! - The store is empty at the beginning. If log lines of servers are given, they show whether it was, and which writes
//!   came from clients without lines.
//! - A long value is represented by 16 bytes: its length and a 64-bit hash.

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
pub use history::{Format, FormatError, History};
pub use model::{HistoryOperation, SequentialModel};
pub use register_model::RegisterModel;
pub use run_history::{check_lines, check_run};
pub use verdict::{LinearizabilityVerdict, SourceLines, WhyUndecided, Witness};
pub use versioned_model::VersionedModel;
