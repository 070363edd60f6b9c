//! The one difference between Basic Paxos and Multi-Paxos: when a proposer gives up its ballot.

/// How a proposer uses a ballot that a quorum has promised.
///
/// The proposer is the same for both: it prepares a ballot, adopts the safe values, and proposes. In *Basic Paxos* it
/// then has no further use for the ballot. Each command goes through both phases, and any server may propose at any
/// time. In *Multi-Paxos* it keeps the ballot and skips phase 1 for all later slots (Paxos Made Simple, section 3). It
/// leads, and the others forward their commands to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Both phases for every command.
    BasicPaxos,
    /// Phase 1 once, by a leader.
    MultiPaxos,
}

impl Policy {
    /// The policy's name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Policy::BasicPaxos => "basic-paxos",
            Policy::MultiPaxos => "multi-paxos",
        }
    }

    /// Whether a proposer keeps a ballot that a quorum has promised, until it is preempted.
    pub fn keeps_ballot(self) -> bool {
        self == Policy::MultiPaxos
    }

    /// Number of commands that a proposer proposes at one ballot, in addition to the adopted values.
    pub fn commands_per_ballot(self) -> u64 {
        match self {
            Policy::BasicPaxos => 1,
            Policy::MultiPaxos => u64::MAX,
        }
    }
}
