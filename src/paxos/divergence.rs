//! Equal logs make equal states (Schneider 1990). A learner says in each BEAT how far it is, and the digest of its
//! state there; whoever has another digest at the same slot knows that one of the two is wrong (Chandra, Griesemer,
//! Redstone, *Paxos Made Live*, 2007, section 6.2, does it with a checksum of the database).
//!
//! Who is wrong is judged by number: a learner that finds at least as many servers against it as with it believes
//! itself no longer. It *fences* itself: it answers nothing, applies nothing and writes nothing down, and says which
//! slot it was. It waits some beats before it judges, so that a single wrong peer that speaks first does not silence a
//! right one.
//!
//! [`Divergence`] hears digests, its own and those of the peers, and gives a verdict. What a fenced learner does no
//! more is that learner's business.

use std::collections::BTreeMap;

use super::Slot;
use super::slot_window::SlotWindow;
use crate::role::{ServerId, ServerSet};

/// The digests after so many slots are kept, for peers that are behind.
const DIGESTS_KEPT: usize = 1_024;
/// So many beats (of 100 ms) pass between a first doubt and the judgement.
const TICKS_TO_EVALUATE: u64 = 5;

/// What a peer has said last of its state, and what comparing has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct PeerDigest {
    applied: Slot,
    /// Of its state after that slot.
    digest: u64,
    /// The last slot after which both states were equal.
    equal: Option<Slot>,
    /// The first slot after which they were not.
    differs: Option<Slot>,
}

impl PeerDigest {
    /// Compares with the own digest after the same slot. True if there is a doubt.
    fn compare_digest(&mut self, own: u64) -> bool {
        if own == self.digest {
            // It may have been started again, and got a right state.
            (self.equal, self.differs) = (Some(self.applied), None);
            return false;
        }
        self.differs = Some(self.differs.map_or(self.applied, |before| before.min(self.applied)));
        true
    }
}

/// The own state's past digests, and what was found out with them. See the head of its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Divergence {
    /// Digests after each of the last slots.
    digests: SlotWindow<u64>,
    peers: BTreeMap<ServerId, PeerDigest>,
    /// When to judge.
    evaluate_at: Option<u64>,
    /// It has found itself to be wrong after this slot.
    fenced: Option<Slot>,
}

/// The own state is wrong, by as many as say otherwise.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DivergenceVerdict {
    /// The first slot after which a peer is known to have another state.
    pub slot: Slot,
    /// A slot after which they were still equal, if one is known.
    pub equal: Option<Slot>,
    /// Those that have another state.
    pub against: ServerSet,
}

impl Divergence {
    /// Of a learner that has applied everything up to this slot.
    pub(super) fn new(applied: Slot) -> Divergence {
        Divergence {
            digests: SlotWindow::from(applied.next()),
            peers: BTreeMap::new(),
            evaluate_at: None,
            fenced: None,
        }
    }

    /// The slot after which the own state was found to be wrong, if it was.
    pub(super) fn fenced(&self) -> Option<Slot> {
        self.fenced
    }

    /// The own state is another one, as of this slot: what is known of the past belongs to the old one.
    pub(super) fn begin_anew(&mut self, applied: Slot, digest: u64) {
        self.digests = SlotWindow::from(applied);
        self.digests.push(digest);
        self.peers.values_mut().for_each(|peer| (peer.equal, peer.differs) = (None, None));
    }

    /// The next slot was applied.
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

    /// A peer says what its state is after a slot. One that is ahead is compared when the own log gets there.
    pub(super) fn hear(&mut self, server: ServerId, applied: Slot, digest: u64, now: u64) {
        let peer = self.peers.entry(server).or_default();
        (peer.applied, peer.digest) = (applied, digest);
        let own = self.digests.range(applied).next().filter(|(slot, _)| *slot == applied);
        if own.is_some_and(|(_, own)| peer.compare_digest(*own)) {
            self.evaluate_at.get_or_insert(now + TICKS_TO_EVALUATE);
        }
    }

    /// Time for judgement, if there is a doubt. A verdict fences: it is given once.
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
    fn a_verdict_comes_some_beats_after_the_first_doubt_and_once() {
        let mut divergence = Divergence::new(Slot(0));
        divergence.begin_anew(Slot(0), 10);
        divergence.applied(Slot(1), 11, 0);
        divergence.hear(ServerId(2), Slot(1), 99, 3);
        assert_eq!(divergence.evaluate(2 + TICKS_TO_EVALUATE), None, "it is not time");
        let verdict = DivergenceVerdict { slot: Slot(1), equal: None, against: ServerSet::only(ServerId(2)) };
        assert_eq!(
            divergence.evaluate(3 + TICKS_TO_EVALUATE),
            Some(verdict),
            "one against one: it does not believe itself"
        );
        assert_eq!((divergence.fenced(), divergence.evaluate(99)), (Some(Slot(1)), None));
    }

    #[test]
    fn digests_of_the_same_slot_are_compared_whoever_gets_there_first() {
        for is_peer_first in [true, false] {
            let mut divergence = Divergence::new(Slot(0));
            if is_peer_first {
                divergence.hear(ServerId(2), Slot(1), 99, 0);
            }
            divergence.applied(Slot(1), 11, 0);
            divergence.applied(Slot(2), 12, 0);
            if !is_peer_first {
                divergence.hear(ServerId(2), Slot(1), 99, 0);
            }
            assert_eq!(divergence.evaluate(TICKS_TO_EVALUATE).map(|verdict| verdict.slot), Some(Slot(1)));
        }
    }
}
