//! The one difference between Basic Paxos and its relatives: when a proposer gives its ballot up.

/// How a proposer uses a ballot that a quorum has promised.
///
/// The proposer is the same for all policies: it prepares a ballot, adopts what it must, and proposes. In *Basic Paxos*
/// it then has nothing left to do with the ballot: each command goes through both phases, and any server may propose at
/// any time. (In *Multi-Paxos* it would keep the ballot, and skip phase 1 for all later slots.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Both phases for every command.
    BasicPaxos,
}

impl Policy {
    /// How many commands of its own a proposer proposes at one ballot before it gives the ballot up. What it must adopt
    /// comes on top.
    pub fn commands_per_ballot(self) -> usize {
        match self {
            Policy::BasicPaxos => 1,
        }
    }
}
