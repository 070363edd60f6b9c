//! What a transaction holds from the vote to the decision, so that no other one gets between.

use crate::kv::KvCommand;

/// A thing that one transaction has at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lock {
    /// A key.
    Key(Vec<u8>),
    /// A client that opens a session: its nonce.
    Nonce(u128),
}

impl Lock {
    /// What a command needs.
    pub fn of(command: &KvCommand) -> Lock {
        match command {
            KvCommand::Open { nonce, .. } => Lock::Nonce(*nonce),
            KvCommand::Write { op, .. } => Lock::Key(op.key().to_vec()),
        }
    }
}
