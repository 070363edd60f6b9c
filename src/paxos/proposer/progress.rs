//! Progress of the log: which slots a proposer knows to be chosen, from its own learner, from peers and from acceptors.
//!
//! A proposer need not propose in a slot that is chosen. Its own learner reports what it has applied. An acceptor
//! reports what it has forgotten, which was chosen and is in a checkpoint ([`retention`](crate::paxos::learner::retention)).
//! What a peer's learner has applied is chosen too, but the own learner gets it from the peer sooner than by another
//! round of Paxos.

use std::collections::BTreeMap;

use crate::paxos::Slot;
use crate::role::ServerId;

/// A report of truncated slots is valid for this many ticks of 100 ms. After that the proposer asks again: a checkpoint
/// can be lost, and then only the other acceptors still have these slots.
const TRUNCATED_TICKS: u64 = 10;
/// A PROGRESS older than this many ticks is ignored.
const FRESH_TICKS: u64 = 3;
/// A proposer whose learner is further behind a live peer than this many slots lets it catch up first.
const CATCH_UP_THRESHOLD: u64 = 64;

/// The progress of all servers. See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct PeerProgressTable {
    /// The last slot that the own learner has applied; `None` while it is down.
    applied: Option<Slot>,
    /// All slots below are chosen: an acceptor has reported this, and that its server's checkpoint holds them. At least
    /// 0.
    truncated_below: Slot,
    /// The tick of the first such report.
    truncated_at: u64,
    /// The last slot that each peer's learner has applied, and the tick of its report.
    peers: BTreeMap<ServerId, (Slot, u64)>,
}

impl PeerProgressTable {
    /// The last slot that the own learner has applied; `None` while it is down.
    pub(super) fn applied(&self) -> Option<Slot> {
        self.applied
    }

    /// Notes that the own learner has applied everything up to this slot. Returns true if that is more than before.
    pub(super) fn learner_applied(&mut self, slot: Slot) -> bool {
        self.applied.replace(slot) < Some(slot)
    }

    /// Notes that the own learner has crashed.
    pub(super) fn on_learner_down(&mut self) {
        self.applied = None;
    }

    /// Notes a peer's PROGRESS.
    pub(super) fn peer_applied(&mut self, peer: ServerId, slot: Slot, now: u64) {
        self.peers.insert(peer, (slot, now));
    }

    /// Notes that an acceptor reports all slots below as chosen and forgotten.
    pub(super) fn note_truncated(&mut self, below: Slot, now: u64) {
        if below > self.truncated_below {
            (self.truncated_below, self.truncated_at) = (below, now);
        }
    }

    /// Drops the report of truncated slots when it is too old.
    pub(super) fn tick(&mut self, now: u64) {
        if now - self.truncated_at >= TRUNCATED_TICKS {
            self.truncated_below = Slot(0);
        }
    }

    /// The first slot that is not known to be chosen.
    pub(super) fn first_unchosen(&self) -> Slot {
        self.applied.unwrap_or_default().next().max(self.truncated_below)
    }

    /// Whether a live peer has applied far more than the own learner: proposing in its slots again would be wasted.
    pub(super) fn is_behind(&self, now: u64) -> bool {
        self.highest_peer_applied(now).ahead_of(self.applied.unwrap_or_default()) > CATCH_UP_THRESHOLD
    }

    /// The highest slot that a live peer reports as applied.
    pub(super) fn highest_peer_applied(&self, now: u64) -> Slot {
        let fresh = self.peers.values().filter(|(_, heard_at)| now - heard_at < FRESH_TICKS);
        fresh.map(|(theirs, _)| *theirs).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_slots_are_known_from_the_learner_and_for_a_while_from_an_acceptor() {
        let mut progress = PeerProgressTable::default();
        assert_eq!((progress.applied(), progress.first_unchosen()), (None, Slot(1)));
        assert!(progress.learner_applied(Slot(4)) && !progress.learner_applied(Slot(4)));
        progress.note_truncated(Slot(9), 5);
        progress.note_truncated(Slot(7), 6);
        progress.tick(4 + TRUNCATED_TICKS);
        assert_eq!(progress.first_unchosen(), Slot(9));
        progress.tick(5 + TRUNCATED_TICKS);
        assert_eq!(progress.first_unchosen(), Slot(5), "the checkpoint may be lost");
    }

    #[test]
    fn only_a_live_peer_can_be_far_ahead() {
        let mut progress = PeerProgressTable::default();
        progress.learner_applied(Slot(10));
        progress.peer_applied(ServerId(2), Slot(10 + CATCH_UP_THRESHOLD), 1);
        assert!(!progress.is_behind(1));
        progress.peer_applied(ServerId(2), Slot(11 + CATCH_UP_THRESHOLD), 1);
        assert!(progress.is_behind(FRESH_TICKS) && !progress.is_behind(1 + FRESH_TICKS));
    }
}
