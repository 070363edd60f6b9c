//! Whether a server takes a caller for the peer that it says it is.
//!
//! A peer is its data folder: what it promised is in there, and nowhere else. So each server remembers the folder of
//! each other by a random number, its storage id, and lets no other folder in under the same server number.
//!
//! *A claim becomes durable only after it is proved.* A server tells its storage id to nobody but the addresses in its
//! own cluster file, which it dials itself. Who calls and knows that id was told it there, and so sits at the peer's
//! address. Who does not know it may be anybody: nothing is written, and the peer's address is dialled, so that the
//! peer hears the id and can call again.
//!
//! A folder that is proved is first a *candidate*. It is *bound* once its server takes part: then so many others know
//! it that no second folder of that server will ever take part (see
//! [`Quorums::witnesses`](crate::paxos::Quorums::witnesses)). A bound folder is never replaced. A candidate gives way
//! to a bound folder, and never to another candidate: two empty folders of one server, both alive, could otherwise each
//! gather enough others.

use thiserror::Error;

use super::rules;
use crate::role::ServerId;

/// A peer's count of starts never runs further ahead of the last one known: more is a lie or a mistake, and would shut
/// the true peer out once it is remembered.
pub const STARTS_AHEAD_MAX: u32 = 100_000;

/// What a caller says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its number.
    pub server: ServerId,
    /// The storage id of its data folder.
    pub storage: u64,
    /// How often a server was started on that folder.
    pub life: u32,
    /// Drawn by the process: one start of a folder and one start of an old copy of it differ here.
    pub boot: u64,
    /// Whether it takes part.
    pub takes_part: bool,
    /// The storage id of the called server, if the caller was told it.
    pub knows: Option<u64>,
}

/// What a server remembers of a peer, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedPeer {
    /// The storage id of its data folder.
    pub storage: u64,
    /// The folder has taken part: no other is let in for it any more.
    pub bound: bool,
    /// The highest start of it that was met.
    pub life: u32,
    /// What the process of that start has drawn.
    pub boot: u64,
}

/// What is to be done with a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimVerdict {
    /// Let the caller in: it is known as it is.
    Welcome,
    /// Let it in once this is remembered durably.
    Remember(RecordedPeer),
    /// It may be anybody: dial the peer's address, so that the peer can prove it.
    CallBack,
    /// It is not the peer that is known.
    Refuse(NotAdmitted),
}

/// Why a caller is not the peer that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotAdmitted {
    /// Another folder of that server takes part.
    #[error(
        "server {0} comes with another data folder than the one that takes part in this cluster: its promises are not in \
         it. Bring the old data folder back"
    )]
    OtherFolder(
        /// The peer's number.
        u8,
    ),
    /// Another new folder of that server was met before.
    #[error(
        "server {0} comes with a new data folder, and another new one of it was met before. Bring that one back. If it is \
         lost, stop this server and run: paxos-server forget DIR --peer {0}"
    )]
    OtherNewcomer(
        /// The peer's number.
        u8,
    ),
    /// A later start of the folder is known, or another process in the same one.
    #[error(
        "server {server} is in start {life} of its data folder, and start {known} was met before: the folder is an old \
         copy, and what it promised since is not in it. Bring the newest data folder back"
    )]
    OldCopy {
        /// The peer's number.
        server: u8,
        /// The start that it says it is in.
        life: u32,
        /// The highest one known.
        known: u32,
    },
    /// No folder is started so often meanwhile.
    #[error(
        "server {server} says that its data folder was started {life} times, and {known} starts were known: more than \
         {STARTS_AHEAD_MAX} in between are not believed. If they are true, stop this server and run: paxos-server forget DIR \
         --peer {server}"
    )]
    TooFarAhead {
        /// The peer's number.
        server: u8,
        /// The start that it says it is in.
        life: u32,
        /// The highest one known.
        known: u32,
    },
}

/// Judges a claim by the storage id of the called server and by what it remembers of the peer.
pub fn judge(own_storage: u64, known: Option<RecordedPeer>, claim: &Claim) -> ClaimVerdict {
    if !rules::is_proved(claim, own_storage) {
        return ClaimVerdict::CallBack;
    }
    let Claim { server: ServerId(server), storage, life, boot, takes_part, .. } = *claim;
    let new = RecordedPeer { storage, bound: takes_part, life, boot };
    let Some(known) = known else { return ClaimVerdict::Remember(new) };
    if known.storage != storage {
        return match known.bound {
            true => ClaimVerdict::Refuse(NotAdmitted::OtherFolder(server)),
            false if rules::gives_way_to(takes_part) => ClaimVerdict::Remember(new),
            false => ClaimVerdict::Refuse(NotAdmitted::OtherNewcomer(server)),
        };
    }
    let is_old = life < known.life || (life == known.life && boot != known.boot);
    if is_old {
        return ClaimVerdict::Refuse(NotAdmitted::OldCopy { server, life, known: known.life });
    }
    if life - known.life > STARTS_AHEAD_MAX {
        return ClaimVerdict::Refuse(NotAdmitted::TooFarAhead { server, life, known: known.life });
    }
    let now = RecordedPeer { bound: known.bound || takes_part, ..new };
    if now == known { ClaimVerdict::Welcome } else { ClaimVerdict::Remember(now) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u64 = 7;
    const CANDIDATE: RecordedPeer = RecordedPeer { storage: 1, bound: false, life: 3, boot: 30 };
    const BOUND: RecordedPeer = RecordedPeer { bound: true, ..CANDIDATE };

    fn claim(storage: u64, takes_part: bool) -> Claim {
        Claim { server: ServerId(3), storage, life: 3, boot: 30, takes_part, knows: Some(OWN) }
    }

    #[test]
    fn without_proof_nothing_is_believed_whatever_is_known() {
        for known in [None, Some(CANDIDATE), Some(BOUND)] {
            for knows in [None, Some(OWN + 1)] {
                for claim in [claim(1, true), claim(2, false), Claim { life: u32::MAX, ..claim(1, true) }] {
                    assert_eq!(judge(OWN, known, &Claim { knows, ..claim }), ClaimVerdict::CallBack);
                }
            }
        }
    }

    #[test]
    fn a_first_folder_is_a_candidate_and_bound_once_it_takes_part() {
        assert_eq!(judge(OWN, None, &claim(1, false)), ClaimVerdict::Remember(CANDIDATE));
        assert_eq!(judge(OWN, None, &claim(1, true)), ClaimVerdict::Remember(BOUND));
        assert_eq!(judge(OWN, Some(CANDIDATE), &claim(1, true)), ClaimVerdict::Remember(BOUND));
        assert_eq!(judge(OWN, Some(BOUND), &claim(1, true)), ClaimVerdict::Welcome);
        assert_eq!(judge(OWN, Some(BOUND), &claim(1, false)), ClaimVerdict::Welcome, "what is bound stays so");
    }

    #[test]
    fn a_candidate_gives_way_to_a_folder_that_takes_part_and_to_no_other_candidate() {
        let new = RecordedPeer { storage: 2, ..BOUND };
        assert_eq!(judge(OWN, Some(CANDIDATE), &claim(2, true)), ClaimVerdict::Remember(new));
        let refused = ClaimVerdict::Refuse(NotAdmitted::OtherNewcomer(3));
        assert_eq!(judge(OWN, Some(CANDIDATE), &claim(2, false)), refused);
        for takes_part in [false, true] {
            let refused = ClaimVerdict::Refuse(NotAdmitted::OtherFolder(3));
            assert_eq!(judge(OWN, Some(BOUND), &claim(2, takes_part)), refused);
        }
    }

    #[test]
    fn an_old_copy_and_a_count_that_nobody_reaches_are_refused() {
        let at = |life, boot| judge(OWN, Some(BOUND), &Claim { life, boot, ..claim(1, true) });
        // An earlier start, and the same one on a copy of the folder.
        for (life, boot) in [(2, 30), (3, 31)] {
            assert_eq!(at(life, boot), ClaimVerdict::Refuse(NotAdmitted::OldCopy { server: 3, life, known: 3 }));
        }
        let last = 3 + STARTS_AHEAD_MAX;
        assert_eq!(at(last, 9), ClaimVerdict::Remember(RecordedPeer { life: last, boot: 9, ..BOUND }));
        for life in [last + 1, u32::MAX] {
            assert_eq!(at(life, 9), ClaimVerdict::Refuse(NotAdmitted::TooFarAhead { server: 3, life, known: 3 }));
        }
    }
}
