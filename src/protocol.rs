//! The protocol by which the servers of a cluster agree. All of them must run the same one.

use std::fmt::{self, Display};

use crate::paxos::Policy;
use crate::role::RoleKind::{self, Acceptor, Coordinator, Learner, Participant, Proposer};

/// The protocol by which the servers agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "programs", derive(clap::ValueEnum))]
pub enum Protocol {
    /// Both phases for every command; any server proposes.
    BasicPaxos,
    /// Phase 1 once, by a leader; the other servers forward their commands to it.
    MultiPaxos,
    /// For comparison: a write needs the vote of every server, so no write commits while one is down.
    TwoPhaseCommit,
}

/// Protocols with the same roles: a data directory written under one can be used under the others of its family, and
/// under no other protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A log in which a majority agrees on each slot.
    Paxos,
    /// Transactions, each agreed on by all servers.
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
struct ProtocolRoles {
    roles: &'static [RoleKind],
    as_named: &'static [RoleKind],
    of_writes: [RoleKind; 2],
    voter: RoleKind,
}

const PAXOS: ProtocolRoles = ProtocolRoles {
    roles: &[Acceptor, Learner, Proposer],
    as_named: &RoleKind::PAXOS,
    of_writes: [Proposer, Learner],
    voter: Acceptor,
};

const TWO_PHASE_COMMIT: ProtocolRoles = ProtocolRoles {
    roles: &[Participant, Coordinator],
    as_named: &[Participant, Coordinator],
    // Without the server's own vote there is no commit, and this is known before any server is asked.
    of_writes: [Coordinator, Participant],
    voter: Participant,
};

impl Protocol {
    /// All protocols.
    pub const ALL: [Protocol; 3] = [Protocol::BasicPaxos, Protocol::MultiPaxos, Protocol::TwoPhaseCommit];

    /// Its name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::BasicPaxos => Policy::BasicPaxos.name(),
            Protocol::MultiPaxos => Policy::MultiPaxos.name(),
            Protocol::TwoPhaseCommit => "two-phase-commit",
        }
    }

    /// The policy of proposers, if there are proposers.
    pub fn policy(self) -> Policy {
        match self {
            Protocol::BasicPaxos => Policy::BasicPaxos,
            Protocol::MultiPaxos | Protocol::TwoPhaseCommit => Policy::MultiPaxos,
        }
    }

    /// The family of the protocol.
    pub fn family(self) -> Family {
        match self {
            Protocol::BasicPaxos | Protocol::MultiPaxos => Family::Paxos,
            Protocol::TwoPhaseCommit => Family::TwoPhaseCommit,
        }
    }

    /// Whether it belongs to the Paxos family.
    pub fn is_paxos(self) -> bool {
        self.family() == Family::Paxos
    }

    fn table(self) -> &'static ProtocolRoles {
        match self.family() {
            Family::Paxos => &PAXOS,
            Family::TwoPhaseCommit => &TWO_PHASE_COMMIT,
        }
    }

    /// The roles of each server, in the order in which they start: voters first.
    pub fn roles(self) -> &'static [RoleKind] {
        self.table().roles
    }

    /// The same roles in the order in which people name them. The meaning of a seed depends on this order.
    pub fn roles_as_named(self) -> &'static [RoleKind] {
        self.table().as_named
    }

    /// Whether servers have this role.
    pub fn has(self, role: RoleKind) -> bool {
        self.roles().contains(&role)
    }

    /// The roles that a server needs to complete a write of its own clients.
    pub fn roles_of_writes(self) -> [RoleKind; 2] {
        self.table().of_writes
    }

    /// The role that proposes commands: proposer or coordinator.
    pub fn leader(self) -> RoleKind {
        self.table().of_writes[0]
    }

    /// The role that votes.
    pub fn voter(self) -> RoleKind {
        self.table().voter
    }

    /// Number of votes that a write needs among `servers` servers.
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
