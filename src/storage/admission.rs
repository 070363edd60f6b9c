//! Admission of peers: decides whether a caller is the peer that it claims to be.
//!
//! A peer is its data directory: its promises are in that directory and nowhere else. So each server records the
//! directory of each peer by a random number, the storage id. It admits no other directory under the same server
//! number.
//!
//! *A claim becomes durable only after it is proved.* A server sends its storage id only to the addresses in its own
//! cluster file, which it dials itself. A caller that knows the id received it there, so it runs at the peer's address.
//! A caller that does not know the id is unproved: nothing is written. The server dials the peer's address instead, so
//! that the peer receives the id and can call again.
//!
//! A proved directory is first a *candidate*. It is *bound* once its server is active: enough peers have then recorded
//! it. No second directory of that server can ever become active (see
//! [`Quorums::witnesses`](crate::paxos::Quorums::witnesses)). A bound directory is never replaced. A candidate gives
//! way to a bound directory, and never to another candidate. Otherwise two empty directories of one server, both
//! running, could each gather enough witnesses.

use thiserror::Error;

use super::rules;
use crate::role::ServerId;

/// Maximum difference between the incarnation in a claim and the last one recorded. A larger number is an error or
/// forged; recording it would lock out the true peer.
pub const STARTS_AHEAD_MAX: u32 = 100_000;

/// A caller's description of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The caller's server number.
    pub server: ServerId,
    /// Storage id of the caller's data directory.
    pub storage: u64,
    /// Incarnation of the caller: the number of starts on that directory.
    pub incarnation: u32,
    /// Random number of the process: it differs between one start of a directory and one start of an old copy of it.
    pub boot: u64,
    /// Whether the caller is active.
    pub is_active: bool,
    /// Storage id of the called server, if the caller has received it.
    pub knows: Option<u64>,
}

/// The durable record of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedPeer {
    /// Storage id of the peer's data directory.
    pub storage: u64,
    /// The directory's server has been active: no other directory is admitted in its place.
    pub bound: bool,
    /// Highest incarnation that this server has met.
    pub incarnation: u32,
    /// Random number of that incarnation's process.
    pub boot: u64,
}

/// The decision on a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimVerdict {
    /// Admit the caller: the record already matches.
    Welcome,
    /// Admit the caller once this record is durable.
    Record(RecordedPeer),
    /// The claim is not proved: dial the peer's address, so that the peer can prove it.
    CallBack,
    /// The caller is not the recorded peer.
    Refuse(NotAdmitted),
}

/// Why a caller is not the recorded peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotAdmitted {
    /// Another directory of that server is bound.
    #[error(
        "server {0} has another data directory than the one admitted to this cluster, and its promises are only in the \
         old one. Restore the old data directory"
    )]
    OtherDataDir(
        /// The peer's number.
        u8,
    ),
    /// Another new directory of that server is recorded.
    #[error(
        "server {0} has a new data directory, and this server recorded another new one of it earlier. Restore that \
         one. If it is lost, stop this server and run: paxos-server forget DIR --peer {0}"
    )]
    OtherCandidate(
        /// The peer's number.
        u8,
    ),
    /// A later incarnation of the directory is recorded, or another process of the same incarnation.
    #[error(
        "server {server} is in incarnation {incarnation} of its data directory, and incarnation {known} is recorded: the \
         directory is an old copy without the later promises. Restore the newest data directory"
    )]
    OldCopy {
        /// The peer's number.
        server: u8,
        /// The claimed incarnation.
        incarnation: u32,
        /// Highest incarnation recorded.
        known: u32,
    },
    /// The claim is more than [`STARTS_AHEAD_MAX`] starts ahead of the record.
    #[error(
        "server {server} names incarnation {incarnation} of its data directory, and {known} is recorded: at most \
         {STARTS_AHEAD_MAX} more are accepted. If the number is right, stop this server and run: paxos-server forget \
         DIR --peer {server}"
    )]
    TooFarAhead {
        /// The peer's number.
        server: u8,
        /// The claimed incarnation.
        incarnation: u32,
        /// Highest incarnation recorded.
        known: u32,
    },
}

/// Decides on a claim, from the storage id of the called server and its record of the peer.
pub fn judge(own_storage: u64, known: Option<RecordedPeer>, claim: &Claim) -> ClaimVerdict {
    if !rules::is_proved(claim, own_storage) {
        return ClaimVerdict::CallBack;
    }
    let Claim { server: ServerId(server), storage, incarnation, boot, is_active, .. } = *claim;
    let new = RecordedPeer { storage, bound: is_active, incarnation, boot };
    let Some(known) = known else { return ClaimVerdict::Record(new) };
    if known.storage != storage {
        return match known.bound {
            true => ClaimVerdict::Refuse(NotAdmitted::OtherDataDir(server)),
            false if rules::gives_way_to(is_active) => ClaimVerdict::Record(new),
            false => ClaimVerdict::Refuse(NotAdmitted::OtherCandidate(server)),
        };
    }
    let is_old = incarnation < known.incarnation || (incarnation == known.incarnation && boot != known.boot);
    if is_old {
        return ClaimVerdict::Refuse(NotAdmitted::OldCopy { server, incarnation, known: known.incarnation });
    }
    if incarnation - known.incarnation > STARTS_AHEAD_MAX {
        return ClaimVerdict::Refuse(NotAdmitted::TooFarAhead { server, incarnation, known: known.incarnation });
    }
    let now = RecordedPeer { bound: known.bound || is_active, ..new };
    if now == known { ClaimVerdict::Welcome } else { ClaimVerdict::Record(now) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u64 = 7;
    const CANDIDATE: RecordedPeer = RecordedPeer { storage: 1, bound: false, incarnation: 3, boot: 30 };
    const BOUND: RecordedPeer = RecordedPeer { bound: true, ..CANDIDATE };

    fn claim(storage: u64, is_active: bool) -> Claim {
        Claim { server: ServerId(3), storage, incarnation: 3, boot: 30, is_active, knows: Some(OWN) }
    }

    #[test]
    fn unproved_claim_is_never_recorded() {
        for known in [None, Some(CANDIDATE), Some(BOUND)] {
            for knows in [None, Some(OWN + 1)] {
                for claim in [claim(1, true), claim(2, false), Claim { incarnation: u32::MAX, ..claim(1, true) }] {
                    assert_eq!(judge(OWN, known, &Claim { knows, ..claim }), ClaimVerdict::CallBack);
                }
            }
        }
    }

    #[test]
    fn first_data_dir_is_a_candidate_and_bound_once_it_is_active() {
        assert_eq!(judge(OWN, None, &claim(1, false)), ClaimVerdict::Record(CANDIDATE));
        assert_eq!(judge(OWN, None, &claim(1, true)), ClaimVerdict::Record(BOUND));
        assert_eq!(judge(OWN, Some(CANDIDATE), &claim(1, true)), ClaimVerdict::Record(BOUND));
        assert_eq!(judge(OWN, Some(BOUND), &claim(1, true)), ClaimVerdict::Welcome);
        assert_eq!(judge(OWN, Some(BOUND), &claim(1, false)), ClaimVerdict::Welcome, "what is bound stays so");
    }

    #[test]
    fn candidate_gives_way_to_an_active_data_dir_and_to_no_other_candidate() {
        let new = RecordedPeer { storage: 2, ..BOUND };
        assert_eq!(judge(OWN, Some(CANDIDATE), &claim(2, true)), ClaimVerdict::Record(new));
        let refused = ClaimVerdict::Refuse(NotAdmitted::OtherCandidate(3));
        assert_eq!(judge(OWN, Some(CANDIDATE), &claim(2, false)), refused);
        for is_active in [false, true] {
            let refused = ClaimVerdict::Refuse(NotAdmitted::OtherDataDir(3));
            assert_eq!(judge(OWN, Some(BOUND), &claim(2, is_active)), refused);
        }
    }

    #[test]
    fn old_copy_and_impossible_incarnation_are_refused() {
        let at = |incarnation, boot| judge(OWN, Some(BOUND), &Claim { incarnation, boot, ..claim(1, true) });
        // An earlier start, and the same start on a copy of the directory.
        for (incarnation, boot) in [(2, 30), (3, 31)] {
            assert_eq!(
                at(incarnation, boot),
                ClaimVerdict::Refuse(NotAdmitted::OldCopy { server: 3, incarnation, known: 3 })
            );
        }
        let last = 3 + STARTS_AHEAD_MAX;
        assert_eq!(at(last, 9), ClaimVerdict::Record(RecordedPeer { incarnation: last, boot: 9, ..BOUND }));
        for incarnation in [last + 1, u32::MAX] {
            assert_eq!(
                at(incarnation, 9),
                ClaimVerdict::Refuse(NotAdmitted::TooFarAhead { server: 3, incarnation, known: 3 })
            );
        }
    }
}
