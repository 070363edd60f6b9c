//! The rules of two-phase commit that its roles call by name, one line each, with their source.
//!
//! Where a line calls `seeded_bugs::is_enabled(...)`, read `false`. A seeded bug that cannot be made from outside of a
//! role is in the rule that it breaks (see [`seeded_bugs`]). (BHG is *Concurrency Control and Recovery in Database
//! Systems*, Bernstein, Hadzilacos and Goodman 1987.)

use std::collections::BTreeMap;

use super::{Decision, TransactionId};
use crate::role::ServerSet;
use crate::seeded_bugs::{self, Bug};

/// A transaction is committed only with the votes of all. (BHG 7.3, AC3.)
pub fn may_commit(yes: ServerSet, servers: ServerSet) -> bool {
    yes == servers || (seeded_bugs::is_enabled(Bug::MajorityOfVotesCommits) && yes.len() > servers.len() / 2)
}

/// The decision known here before a vote: a decided transaction is not voted on again. (BHG 7.3, AC2: a process cannot
/// reverse its decision.)
pub fn decision_before_a_vote(
    decided: &BTreeMap<TransactionId, Decision>,
    transaction: TransactionId,
) -> Option<Decision> {
    decided.get(&transaction).filter(|_| !seeded_bugs::is_enabled(Bug::LateRequestVotedAgain)).copied()
}

/// A participant that has voted yes holds the lock until it knows the decision, in all its incarnations. (BHG 7.4,
/// recovery of a process that is uncertain.)
pub fn locks_outlive_a_crash() -> bool {
    !seeded_bugs::is_enabled(Bug::LocksLostInCrash)
}
