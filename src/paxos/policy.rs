//! The one difference between Basic Paxos and Multi-Paxos: when a proposer gives its ballot up.

/// How a proposer uses a ballot that a quorum has promised.
///
/// The proposer is the same for both: it prepares a ballot, adopts what it must, and proposes. In *Basic Paxos* it then
/// has nothing left to do with the ballot: each command goes through both phases, and any server may propose at any
/// time. In *Multi-Paxos* it keeps the ballot and skips phase 1 for all later slots (Paxos Made Simple, section 3): it
/// leads, and the others hand their commands to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Both phases for every command.
    BasicPaxos,
    /// Phase 1 once, by a leader.
    MultiPaxos,
}

impl Policy {
    /// Its name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Policy::BasicPaxos => "basic-paxos",
            Policy::MultiPaxos => "multi-paxos",
        }
    }

    /// Whether a proposer keeps a ballot that a quorum has promised, until it loses it.
    pub fn keeps_ballot(self) -> bool {
        self == Policy::MultiPaxos
    }

    /// How many commands of its own a proposer proposes at one ballot. What it must adopt comes on top.
    pub fn commands_per_ballot(self) -> u64 {
        match self {
            Policy::BasicPaxos => 1,
            Policy::MultiPaxos => u64::MAX,
        }
    }
}
