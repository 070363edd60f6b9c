//! Equal logs make equal states. A learner says in each BEAT how far it is, and the digest of its state there; whoever has
//! another digest at the same slot knows that one of the two is wrong.
//!
//! Who is wrong is judged by number: a learner that finds at least as many servers against it as with it believes itself
//! no longer. It *fences* itself: it answers nothing, applies nothing and writes nothing down, and says which slot it was.
//! It waits some beats before it judges, so that a single wrong peer that speaks first does not silence a right one.

use std::collections::VecDeque;

use super::learner::{Learner, LearnerOutcome};
use super::{Slot, StateMachine};
use crate::role::{Output, Server, Servers};

/// The digests after so many slots are kept, for peers that are behind.
const DIGESTS_KEPT: usize = 1_024;
/// So many beats (of 100 ms) pass between a first doubt and the judgement.
const BEATS_TO_JUDGE: u64 = 5;

/// What a comparison with a peer has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Compared {
    /// The last slot after which both states were equal.
    equal: Option<Slot>,
    /// The first slot after which they were not.
    differs: Option<Slot>,
}

/// The own state's past digests, and what was found out with them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Doubts {
    /// Digests after each of the last slots, the last one at the end.
    digests: VecDeque<u64>,
    /// When to judge.
    judge_at: Option<u64>,
    /// It has found itself to be wrong after this slot.
    pub(super) fenced: Option<Slot>,
}

impl<M: StateMachine> Learner<M> {
    /// The slot after which its state was found to be wrong, if it was.
    pub fn fenced(&self) -> Option<Slot> {
        self.doubts.fenced
    }

    /// A slot was applied.
    pub(super) fn note_digest(&mut self) {
        let digest = self.machine.digest();
        self.doubts.digests.push_back(digest);
        if self.doubts.digests.len() > DIGESTS_KEPT {
            self.doubts.digests.pop_front();
        }
        let here: Vec<(Server, u64)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.applied == self.applied)
            .map(|(server, peer)| (*server, peer.digest))
            .collect();
        for (server, theirs) in here {
            self.compare(server, self.applied, theirs);
        }
    }

    /// The state is another one: what is known of the past belongs to the old one.
    pub(super) fn forget_digests(&mut self) {
        self.doubts.digests.clear();
        self.doubts.digests.push_back(self.machine.digest());
        self.peers.values_mut().for_each(|peer| peer.compared = Compared::default());
    }

    /// A peer says what its state is after a slot.
    pub(super) fn compare(&mut self, server: Server, slot: Slot, theirs: u64) {
        let back = self.applied.0.checked_sub(slot.0).and_then(|back| usize::try_from(back).ok());
        let at = back.and_then(|back| self.doubts.digests.len().checked_sub(back + 1));
        let Some(own) = at.and_then(|at| self.doubts.digests.get(at)) else { return };
        let Some(peer) = self.peers.get_mut(&server) else { return };
        if *own == theirs {
            // It may have been started again, and got a right state.
            peer.compared = Compared { equal: Some(slot), differs: None };
            return;
        }
        peer.compared.differs = Some(peer.compared.differs.map_or(slot, |before| before.min(slot)));
        self.doubts.judge_at.get_or_insert(self.beats + BEATS_TO_JUDGE);
    }

    /// Time for judgement, if there is a doubt.
    pub(super) fn judge(&mut self, out: &mut Output<Self>) {
        if self.doubts.judge_at.is_none_or(|at| self.beats < at) {
            return;
        }
        self.doubts.judge_at = None;
        let against = self.peers.iter().filter(|(_, peer)| peer.compared.differs.is_some());
        let against: Servers = against.map(|(server, _)| *server).collect();
        let Some(slot) = self.peers.values().filter_map(|peer| peer.compared.differs).min() else { return };
        let with = |compared: &Compared| compared.differs.is_none() && compared.equal >= Some(slot);
        let with = 1 + self.peers.values().filter(|peer| with(&peer.compared)).count();
        if against.len() < with {
            return;
        }
        let equal = self.peers.values().filter_map(|peer| peer.compared.equal).filter(|equal| *equal < slot).max();
        self.doubts.fenced = Some(slot);
        out.outcome(LearnerOutcome::Fenced { slot, equal, against });
        self.fail_all_reads(out);
    }
}
