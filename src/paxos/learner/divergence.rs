//! Divergence detection: equal logs make equal states (Schneider 1990). Each PROGRESS of a learner names its applied
//! slot and the digest of its state there. A learner with another digest after the same slot knows that one of the two
//! states is wrong (Chandra, Griesemer, Redstone, *Paxos Made Live*, 2007, section 6.2, use a checksum of the
//! database).
//!
//! Numbers decide which state is wrong. A learner that finds at least as many servers against it as with it
//! treats its own state as divergent. It *fences* itself: it answers nothing, applies nothing and writes nothing to
//! disk, and it reports the slot. It waits some ticks before it decides, so that a single divergent peer that speaks
//! first does not fence a correct learner.
//!
//! [`Divergence`] receives the learner's own digests and those of the peers, and decides. The learner itself enforces
//! the fence.

use std::collections::BTreeMap;

use crate::paxos::Slot;
use crate::paxos::slot_window::SlotWindow;
use crate::role::{ServerId, ServerSet};

/// Number of slots whose digests are kept, for peers that are behind.
const DIGESTS_KEPT: usize = 1_024;
/// Ticks of 100 ms between the first mismatch and the decision.
const TICKS_TO_EVALUATE: u64 = 5;

/// A peer's last digest, and the result of comparing it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct PeerDigest {
    applied: Slot,
    /// The digest of the peer's state after that slot.
    digest: u64,
    /// The last slot after which both states were equal.
    equal: Option<Slot>,
    /// The first slot after which they differed.
    differs: Option<Slot>,
}

impl PeerDigest {
    /// Compares with the own digest after the same slot. Returns true if they differ.
    fn compare_digest(&mut self, own: u64) -> bool {
        if own == self.digest {
            // The peer may have restarted with a correct state.
            (self.equal, self.differs) = (Some(self.applied), None);
            return false;
        }
        self.differs = Some(self.differs.map_or(self.applied, |before| before.min(self.applied)));
        true
    }
}

/// The own past digests, and the results of comparing them. See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Divergence {
    /// Digests after each of the last slots.
    digests: SlotWindow<u64>,
    peers: BTreeMap<ServerId, PeerDigest>,
    /// The tick at which to decide.
    evaluate_at: Option<u64>,
    /// The slot after which this replica was found divergent.
    fenced: Option<Slot>,
}

/// The decision that the own state is divergent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DivergenceVerdict {
    /// The first slot after which a peer is known to have a different state.
    pub slot: Slot,
    /// A slot after which both were still equal, if one is known.
    pub equal: Option<Slot>,
    /// The servers with a different state.
    pub against: ServerSet,
}

impl Divergence {
    /// For a learner that has applied everything up to this slot.
    pub(super) fn new(applied: Slot) -> Divergence {
        Divergence {
            digests: SlotWindow::from(applied.next()),
            peers: BTreeMap::new(),
            evaluate_at: None,
            fenced: None,
        }
    }

    /// The slot after which the own state was found divergent, if it was.
    pub(super) fn fenced(&self) -> Option<Slot> {
        self.fenced
    }

    /// A snapshot of this slot was installed: earlier results belong to the old state.
    pub(super) fn begin_anew(&mut self, applied: Slot, digest: u64) {
        self.digests = SlotWindow::from(applied);
        self.digests.push(digest);
        self.peers.values_mut().for_each(|peer| (peer.equal, peer.differs) = (None, None));
    }

    /// Notes the digest after the next slot.
    pub(super) fn applied(&mut self, slot: Slot, digest: u64, now: u64) {
        self.digests.push(digest);
        if self.digests.len() > DIGESTS_KEPT {
            self.digests.pop_first();
        }
        for peer in self.peers.values_mut().filter(|peer| peer.applied == slot) {
            if peer.compare_digest(digest) {
                self.evaluate_at.get_or_insert(now + TICKS_TO_EVALUATE);
            }
        }
    }

    /// A peer's digest after a slot. If the peer is ahead, the digests are compared when the own log gets there.
    pub(super) fn on_progress(&mut self, server: ServerId, applied: Slot, digest: u64, now: u64) {
        let peer = self.peers.entry(server).or_default();
        (peer.applied, peer.digest) = (applied, digest);
        let own = self.digests.range(applied).next().filter(|(slot, _)| *slot == applied);
        if own.is_some_and(|(_, own)| peer.compare_digest(*own)) {
            self.evaluate_at.get_or_insert(now + TICKS_TO_EVALUATE);
        }
    }

    /// Evaluates digest mismatches, if there are any and it is time. Returns a verdict at most once, and then this
    /// replica is fenced.
    pub(super) fn evaluate(&mut self, now: u64) -> Option<DivergenceVerdict> {
        self.evaluate_at.take_if(|at| now >= *at)?;
        let against = self.peers.iter().filter(|(_, peer)| peer.differs.is_some());
        let against: ServerSet = against.map(|(server, _)| *server).collect();
        let slot = self.peers.values().filter_map(|peer| peer.differs).min()?;
        let is_with = |peer: &&PeerDigest| peer.differs.is_none() && peer.equal >= Some(slot);
        let with = 1 + self.peers.values().filter(is_with).count();
        if against.len() < with {
            return None;
        }
        let equal = self.peers.values().filter_map(|peer| peer.equal).filter(|equal| *equal < slot).max();
        self.fenced = Some(slot);
        Some(DivergenceVerdict { slot, equal, against })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_evaluated_some_ticks_after_the_first_mismatch_and_once() {
        let mut divergence = Divergence::new(Slot(0));
        divergence.begin_anew(Slot(0), 10);
        divergence.applied(Slot(1), 11, 0);
        divergence.on_progress(ServerId(2), Slot(1), 99, 3);
        assert_eq!(divergence.evaluate(2 + TICKS_TO_EVALUATE), None, "it is not time");
        let verdict = DivergenceVerdict { slot: Slot(1), equal: None, against: ServerSet::only(ServerId(2)) };
        assert_eq!(divergence.evaluate(3 + TICKS_TO_EVALUATE), Some(verdict), "one against one: it fences itself");
        assert_eq!((divergence.fenced(), divergence.evaluate(99)), (Some(Slot(1)), None));
    }

    #[test]
    fn digests_of_one_slot_are_compared_in_either_order_of_arrival() {
        for is_peer_first in [true, false] {
            let mut divergence = Divergence::new(Slot(0));
            if is_peer_first {
                divergence.on_progress(ServerId(2), Slot(1), 99, 0);
            }
            divergence.applied(Slot(1), 11, 0);
            divergence.applied(Slot(2), 12, 0);
            if !is_peer_first {
                divergence.on_progress(ServerId(2), Slot(1), 99, 0);
            }
            assert_eq!(divergence.evaluate(TICKS_TO_EVALUATE).map(|verdict| verdict.slot), Some(Slot(1)));
        }
    }
}
