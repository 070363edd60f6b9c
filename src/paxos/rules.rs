//! The rules that the roles rest on, one function each, with the paper that states the rule where a paper does.
//!
//! The roles call this module where a paper says "if". `docs/rules.md` lists these rules, how each was broken, and the
//! tests that fail then. A seeded bug that cannot be caused from outside a role is in the rule that it breaks: where a
//! line says `seeded_bugs::is_enabled(...)`, read `false`. (PMS is *Paxos Made Simple*, Lamport 2001; PMMC is *Paxos
//! Made Moderately Complex*, van Renesse and Altinbuken 2015.)

use std::collections::BTreeMap;

use super::{Ballot, CommandId, Quorums, Slot};
use crate::role::{ServerId, ServerSet};
use crate::seeded_bugs::{self, Bug};

/// An acceptor promises a ballot unless it has promised a higher one. An equal ballot is a resend. (PMS 2.2: an
/// acceptor can always respond to a prepare request; in phase 1b it responds to higher ones.)
pub fn may_promise(ballot: Ballot, promised: Ballot) -> bool {
    ballot >= promised
}

/// An acceptor accepts at a ballot unless it has promised a higher one. (PMS 2.2, phase 2b; P1a.)
pub fn may_accept(ballot: Ballot, promised: Ballot) -> bool {
    ballot >= promised || seeded_bugs::is_enabled(Bug::AcceptBelowPromise)
}

/// Accepting at a ballot promises the ballot too: the acceptor takes part in nothing below it. (PMS 2.2 has an acceptor
/// remember the highest proposal that it has accepted. Here it remembers the last one, so no lower one may follow.)
pub fn promised_by_accepting(ballot: Ballot, promised: Ballot) -> Ballot {
    if seeded_bugs::is_enabled(Bug::AcceptDoesNotPromise) { promised } else { ballot }
}

/// A ballot includes its owner: no two servers share a ballot. (PMS 2.5: disjoint sets of numbers.)
pub fn ballot_of(round: u64, owner: ServerId) -> Ballot {
    Ballot { round, server: if seeded_bugs::is_enabled(Bug::BallotWithoutServer) { ServerId(1) } else { owner } }
}

/// A proposer never uses a round twice. (PMS 2.5: each proposal has a higher number than the one before.)
pub fn round_after(round: u64) -> u64 {
    if seeded_bugs::is_enabled(Bug::RetryReusesBallot) { round } else { round + 1 }
}

/// Of two values that promises report for a slot, the one of the higher ballot is the safe value. (PMS 2.2, P2c.)
pub fn overrules(ballot: Ballot, held: Ballot) -> bool {
    ballot > held && !seeded_bugs::is_enabled(Bug::FirstValueAdopted)
}

/// Adds an acceptor to the set of votes. It is a set, so a vote that arrives twice counts once. (PMS 2.2.)
pub fn with_vote(mut votes: ServerSet, acceptor: ServerId, all: ServerSet) -> ServerSet {
    if !votes.insert(acceptor) && seeded_bugs::is_enabled(Bug::RepeatedVotesCount) {
        // If votes were only a number, a repeated one would add one.
        return all.without(votes).iter().take(1).chain(votes.iter()).collect();
    }
    votes
}

/// A value is chosen when a quorum of acceptors has accepted it at one ballot. (PMS 2.2 and 2.3.)
pub fn is_chosen(quorums: &Quorums, votes: ServerSet) -> bool {
    let is_half = seeded_bugs::is_enabled(Bug::HalfIsEnough) && 2 * votes.len() >= quorums.servers().len();
    quorums.is_phase2_quorum(votes) || is_half || seeded_bugs::is_enabled(Bug::LearnWithoutQuorum)
}

/// A value received at the ballot at which its slot was chosen, or above, is the chosen value. A value of a lower
/// ballot may be another one. (PMS 2.2, P2b: no higher proposal carries another value.)
pub fn holds_chosen(heard: Ballot, chosen: Ballot) -> bool {
    heard >= chosen || seeded_bugs::is_enabled(Bug::ChosenWithoutBallot)
}

/// A learner installs a snapshot only if it is newer than its own state: nothing that was applied is undone. (PMMC 4.2
/// has replicas take the state from each other; it does not say when not to.)
pub fn may_install(slot: Slot, applied: Slot) -> bool {
    slot > applied || seeded_bugs::is_enabled(Bug::OlderSnapshotInstalled)
}

/// The log after a snapshot that a peer fetches is kept for that peer. (No paper asks for it: without it, a peer that
/// is slower than the trimming fetches one snapshot after the other.)
pub fn is_kept_for_peers(is_needed: bool) -> bool {
    is_needed && !seeded_bugs::is_enabled(Bug::LogTrimmedDuringTransfer)
}

/// A leader has a command in at most one slot in flight, and does not propose it again meanwhile. (No paper asks for
/// it: the state machine would recognize the second one as a duplicate, but each takes a slot.)
pub fn is_in_flight(open: &BTreeMap<CommandId, Slot>, id: CommandId) -> bool {
    open.contains_key(&id) && !seeded_bugs::is_enabled(Bug::ForwardedTwice)
}

/// Only a command that was in no ACCEPT and no FORWARD is certain never to be applied. (PMS 2.2, P2c: the next ballot
/// may have to propose it.)
pub fn is_certainly_not_applied(was_sent: bool) -> bool {
    !was_sent || seeded_bugs::is_enabled(Bug::ProposedCalledNotApplied)
}
