//! The lock that a transaction holds from the vote to the decision, so that no other transaction comes between.

use crate::kv::KvCommand;

/// Something that one transaction holds at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lock {
    /// A key.
    Key(Vec<u8>),
    /// The nonce of a client that opens a session.
    Nonce(u128),
}

impl Lock {
    /// The lock that a command needs.
    pub fn of(command: &KvCommand) -> Lock {
        match command {
            KvCommand::Open { nonce, .. } => Lock::Nonce(*nonce),
            KvCommand::Write { op, .. } => Lock::Key(op.key().to_vec()),
        }
    }
}
