//! The rules of the exactly-once table that a seeded bug breaks, one line each. Where a line calls
//! `seeded_bugs::is_enabled(...)`, read `false` (see [`seeded_bugs`]).

use crate::seeded_bugs::{self, Bug};

/// A session is its slot and its nonce together: the slot number is used again in the cluster's next history.
pub fn is_the_session(nonce: u128, asked: u128) -> bool {
    nonce == asked || seeded_bugs::is_enabled(Bug::SessionWithoutNonce)
}

/// A write that was applied has no effect a second time: its first result is returned again.
pub fn applied_before<T>(remembered: Option<T>) -> Option<T> {
    remembered.filter(|_| !seeded_bugs::is_enabled(Bug::RetryAppliedTwice))
}

/// Every server evicts the same session: the choice follows from the table alone.
pub fn session_to_forget(stalest: Option<u64>, all: impl Iterator<Item = u64>) -> Option<u64> {
    if seeded_bugs::is_enabled(Bug::RandomSessionForgotten) { seeded_bugs::first_of_a_hash_map(all) } else { stalest }
}
