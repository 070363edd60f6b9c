//! How the servers of a cluster agree: the one choice that all of them must have made alike.

use std::fmt::{self, Display};

use clap::ValueEnum;

use crate::paxos::Policy;
use crate::role::RoleKind::{self, Acceptor, Coordinator, Learner, Participant, Proposer};

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

/// Protocols with the same roles: what one of them remembers, the others of its family can go on with, and nothing else
/// can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A log, of which each slot is agreed on by a majority.
    Paxos,
    /// Transactions, of which each is agreed on by all.
    TwoPhaseCommit,
}

impl Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Paxos => "Paxos",
            Family::TwoPhaseCommit => "two-phase commit",
        })
    }
}

/// The roles of a family.
struct Cast {
    roles: &'static [RoleKind],
    as_named: &'static [RoleKind],
    of_writes: [RoleKind; 2],
    voter: RoleKind,
}

const PAXOS: Cast = Cast {
    roles: &[Acceptor, Learner, Proposer],
    as_named: &RoleKind::PAXOS,
    of_writes: [Proposer, Learner],
    voter: Acceptor,
};

const TWO_PHASE_COMMIT: Cast = Cast {
    roles: &[Participant, Coordinator],
    as_named: &[Participant, Coordinator],
    // Without its own vote there is no commit; that is known before anybody is asked.
    of_writes: [Coordinator, Participant],
    voter: Participant,
};

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

    /// What it is a kind of.
    pub fn family(self) -> Family {
        match self {
            Protocol::BasicPaxos | Protocol::MultiPaxos => Family::Paxos,
            Protocol::TwoPhaseCommit => Family::TwoPhaseCommit,
        }
    }

    /// Whether it is a kind of Paxos.
    pub fn is_paxos(self) -> bool {
        self.family() == Family::Paxos
    }

    fn cast(self) -> &'static Cast {
        match self.family() {
            Family::Paxos => &PAXOS,
            Family::TwoPhaseCommit => &TWO_PHASE_COMMIT,
        }
    }

    /// The roles of each server, in the order in which they are started: first those that remember.
    pub fn roles(self) -> &'static [RoleKind] {
        self.cast().roles
    }

    /// The same roles in the order in which people name them. What a seed means depends on it.
    pub fn roles_as_named(self) -> &'static [RoleKind] {
        self.cast().as_named
    }

    /// Whether servers have this role.
    pub fn has(self, role: RoleKind) -> bool {
        self.roles().contains(&role)
    }

    /// The roles that a server needs to see a write of its own clients through.
    pub fn roles_of_writes(self) -> [RoleKind; 2] {
        self.cast().of_writes
    }

    /// The role that gets commands through.
    pub fn leader(self) -> RoleKind {
        self.cast().of_writes[0]
    }

    /// The role that votes.
    pub fn voter(self) -> RoleKind {
        self.cast().voter
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
