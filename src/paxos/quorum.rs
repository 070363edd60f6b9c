//! Quorums: the acceptors of the cluster and how many of them decide.

use crate::role::{ServerId, ServerSet};

/// The acceptors of the cluster and the sizes of its quorums.
///
/// Any quorum of phase 1 must share an acceptor with any quorum of phase 2 (Paxos Made Simple, section 2.2; Howard et
/// al., Flexible Paxos, for why nothing more is needed). Majorities do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quorums {
    servers: ServerSet,
    prepare: usize,
    accept: usize,
}

impl Quorums {
    /// Majorities of these servers for both phases.
    pub fn majority(servers: ServerSet) -> Quorums {
        let majority = servers.len() / 2 + 1;
        Quorums::new(servers, majority, majority)
    }

    /// Quorums of these sizes. Panics if two of them could miss each other.
    pub fn new(servers: ServerSet, prepare: usize, accept: usize) -> Quorums {
        assert!(prepare <= servers.len() && accept <= servers.len(), "a quorum is part of the cluster");
        assert!(prepare + accept > servers.len(), "a quorum of phase 1 and one of phase 2 must share an acceptor");
        Quorums { servers, prepare, accept }
    }

    /// Quorums of these sizes, which may miss each other. **Unsafe**: two values may be chosen in one slot. It exists so
    /// that the lab can show this; no server can be started with it.
    pub fn that_may_miss(servers: ServerSet, prepare: usize, accept: usize) -> Quorums {
        Quorums { servers, prepare, accept }
    }

    /// All servers of the cluster.
    pub fn servers(&self) -> ServerSet {
        self.servers
    }

    /// The sizes of a quorum of phase 1 and of phase 2.
    pub fn sizes(&self) -> (usize, usize) {
        (self.prepare, self.accept)
    }

    /// All servers except `me`.
    pub fn others(&self, me: ServerId) -> ServerSet {
        self.servers.without(ServerSet::only(me))
    }

    /// Whether these servers' promises are a quorum.
    pub fn is_phase1_quorum(&self, promises: ServerSet) -> bool {
        promises.len() >= self.prepare
    }

    /// Whether these servers' acceptances choose a value.
    pub fn is_phase2_quorum(&self, acceptances: ServerSet) -> bool {
        acceptances.len() >= self.accept
    }

    /// Whether no quorum of phase 1 is left once these servers have refused.
    pub fn is_prepare_refused(&self, refusals: ServerSet) -> bool {
        self.servers.without(refusals).len() < self.prepare
    }

    /// Whether no quorum of phase 2 is left once these servers have refused.
    pub fn is_accept_refused(&self, refusals: ServerSet) -> bool {
        self.servers.without(refusals).len() < self.accept
    }

    /// Number of other servers that must know a server's disk before that server takes part.
    ///
    /// A server whose disk is lost has forgotten its promises, and looks like a new server. Let `n` be the number of
    /// servers, and `f` the number of them that the cluster can do without. Let `w` be the number of witnesses of the
    /// old disk. Assume that at most `f` disks are ever lost. Then at most `f - 1` of the witnesses have lost theirs,
    /// so `w - f + 1` refuse the new disk. This leaves `(n - 1) - (w - f + 1)` servers that can witness it. They are
    /// fewer than `w` if `2w > n + f - 2`. So a server that has taken part with one disk never takes part with another.
    pub fn witnesses(&self) -> usize {
        let failures = self.servers.len() - self.prepare.max(self.accept);
        (self.servers.len() + failures) / 2
    }

    /// Whether a read may rely on these answers: every quorum of phase 2 contains one of them.
    pub fn is_read(&self, answers: ServerSet) -> bool {
        self.is_accept_refused(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_of_five_are_a_majority_including_the_own_server() {
        let five = Quorums::majority(ServerSet::first(5));
        assert!(!five.is_phase2_quorum(ServerSet::first(2)));
        assert!(five.is_phase2_quorum(ServerSet::first(3)));
        assert!(five.is_prepare_refused(ServerSet::first(3)));
        assert!(!five.is_prepare_refused(ServerSet::first(2)));
    }

    #[test]
    fn read_quorum_meets_every_accept_quorum() {
        for (prepare, accept) in [(3, 3), (4, 2), (5, 1), (2, 4)] {
            let quorums = Quorums::new(ServerSet::first(5), prepare, accept);
            assert!(quorums.is_read(ServerSet::first(6 - accept as u8)));
            assert!(!quorums.is_read(ServerSet::first(5 - accept as u8)));
        }
    }

    #[test]
    fn two_disks_of_one_server_never_both_gather_enough_witnesses() {
        let needed: Vec<usize> = (1..=7).map(|n| Quorums::majority(ServerSet::first(n)).witnesses()).collect();
        assert_eq!(needed, [0, 1, 2, 2, 3, 4, 5]);
        for n in 2..=63 {
            let (n, witnesses) = (usize::from(n), Quorums::majority(ServerSet::first(n)).witnesses());
            let failures = n - (n / 2 + 1);
            assert!(witnesses < n, "there are no more others than that");
            // All others except the witnesses of the old disk that still have their own disk, in the worst case.
            let left = n - 1 - (witnesses + 1 - failures.max(1));
            assert!(left < witnesses, "{n} servers: {left} could take the new disk for a first one");
        }
    }

    #[test]
    #[should_panic(expected = "share an acceptor")]
    fn quorums_without_a_common_acceptor_are_refused() {
        Quorums::new(ServerSet::first(5), 2, 3);
    }
}
