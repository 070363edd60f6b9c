//! How the servers of a cluster agree: the one choice that all of them must have made alike.

use clap::ValueEnum;

use crate::paxos::Policy;
use crate::role::RoleName;

/// How the servers agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Protocol {
    /// Both phases for every command; any server proposes.
    BasicPaxos,
    /// Phase 1 once, by a leader; the other servers hand their commands to it.
    MultiPaxos,
    /// The road not taken: every write waits for every server, and blocks where one is missing. To learn from.
    TwoPhaseCommit,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::BasicPaxos, Protocol::MultiPaxos, Protocol::TwoPhaseCommit];

    /// Its name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::BasicPaxos => Policy::BasicPaxos.name(),
            Protocol::MultiPaxos => Policy::MultiPaxos.name(),
            Protocol::TwoPhaseCommit => "two-phase-commit",
        }
    }

    /// What it means for a proposer, if there are proposers.
    pub fn policy(self) -> Policy {
        match self {
            Protocol::BasicPaxos => Policy::BasicPaxos,
            Protocol::MultiPaxos | Protocol::TwoPhaseCommit => Policy::MultiPaxos,
        }
    }

    /// Whether it is a kind of Paxos.
    pub fn is_paxos(self) -> bool {
        self != Protocol::TwoPhaseCommit
    }

    /// The roles of each server, in the order in which they are started: first those that remember.
    pub fn roles(self) -> &'static [RoleName] {
        use RoleName::{Acceptor, Coordinator, Learner, Participant, Proposer};
        if self.is_paxos() { &[Acceptor, Learner, Proposer] } else { &[Participant, Coordinator] }
    }
}

impl Protocol {
    /// The same roles in the order in which people name them. What a seed means depends on it.
    pub fn roles_as_named(self) -> &'static [RoleName] {
        if self.is_paxos() { &RoleName::ALL } else { self.roles() }
    }

    /// The roles that a server needs to see a write of its own clients through.
    pub fn roles_of_writes(self) -> [RoleName; 2] {
        use RoleName::{Coordinator, Learner, Participant, Proposer};
        // Without its own vote there is no commit; that is known before anybody is asked.
        if self.is_paxos() { [Proposer, Learner] } else { [Coordinator, Participant] }
    }

    /// The role that votes.
    pub fn voter(self) -> RoleName {
        if self.is_paxos() { RoleName::Acceptor } else { RoleName::Participant }
    }

    /// How many votes a write needs, and of how many servers.
    pub fn votes_needed(self, servers: usize) -> usize {
        if self.is_paxos() { servers / 2 + 1 } else { servers }
    }
}

impl From<Policy> for Protocol {
    fn from(policy: Policy) -> Protocol {
        match policy {
            Policy::BasicPaxos => Protocol::BasicPaxos,
            Policy::MultiPaxos => Protocol::MultiPaxos,
        }
    }
}
