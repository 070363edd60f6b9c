//! The store without a log: predicts the effect of a transaction, and applies it.
//!
//! Two-phase commit does not order all writes, only the writes to each key, by locks. So nothing here may depend on the
//! order of writes to different keys. A session's table is the same whichever of two writes was first. The session that
//! is evicted for a new one is named by the transaction that opens it, not chosen by each server.

use super::{ApplyResult, Kv, KvCommand, Named, SavedResult, SessionLookup, WriteResult};
use crate::paxos::Slot;

/// The predicted result of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredictedResult {
    /// The write is new and would have this effect.
    Writes(WriteResult),
    /// A session would be opened.
    Opens,
    /// There is nothing to do: this is the earlier result, or why there will be none.
    Settled(ApplyResult),
}

impl Kv {
    /// Predicts the result of a command; nothing changes.
    pub fn predict(&self, command: &KvCommand) -> PredictedResult {
        match command {
            KvCommand::Open { nonce, .. } => match self.sessions.opened_by(*nonce) {
                Some(session) => PredictedResult::Settled(ApplyResult::Opened { session, history: self.history }),
                None => PredictedResult::Opens,
            },
            KvCommand::Write { session, nonce, sequence, first_open, op, .. } => {
                match self.sessions.lookup(&Named::of((*session, *nonce), (*sequence, *first_open), op)) {
                    Some(SessionLookup::Expired) => PredictedResult::Settled(ApplyResult::Expired),
                    Some(SessionLookup::Superseded) => PredictedResult::Settled(ApplyResult::Superseded),
                    Some(SessionLookup::Known(saved)) => PredictedResult::Settled(ApplyResult::Duplicate(saved)),
                    Some(SessionLookup::New(_)) | None => PredictedResult::Writes(self.store.foresee(op)),
                }
            }
        }
    }

    /// Applies a committed transaction, whatever the sessions now hold: all servers have agreed to it.
    pub fn commit(&mut self, at: Slot, command: &KvCommand, evict: Option<u64>) -> ApplyResult {
        match command {
            KvCommand::Open { nonce, .. } => {
                let session = self.sessions.open_for(at, *nonce, evict);
                ApplyResult::Opened { session, history: self.history }
            }
            KvCommand::Write { session, nonce, sequence, first_open, op, .. } => {
                let named = Named::of((*session, *nonce), (*sequence, *first_open), op);
                // There is no checkpoint of a store without a log, so the changes are not listed.
                let (written, _) = self.store.apply(op.clone());
                self.sessions.record_result(at, &named, written);
                ApplyResult::Applied(SavedResult { slot: at, written })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Op;
    use crate::paxos::StateMachine;

    fn put(session: u64, sequence: u64, first_open: u64, key: &str) -> KvCommand {
        let op = Op::Put { key: key.into(), value: b"v".to_vec().into(), if_version: None };
        KvCommand::Write { session, nonce: 7, sequence, first_open, label: String::new(), op }
    }

    fn open(nonce: u128) -> KvCommand {
        KvCommand::Open { nonce, label: String::new() }
    }

    #[test]
    fn writes_of_one_session_to_two_keys_commute() {
        let mut one = Kv::default();
        one.commit(Slot(64), &open(7), None);
        let mut other = one.clone();
        let (first, second) = (put(64, 1, 1, "a"), put(64, 2, 2, "b"));
        one.commit(Slot(65), &first, None);
        one.commit(Slot(66), &second, None);
        other.commit(Slot(66), &second, None);
        other.commit(Slot(65), &first, None);
        assert_eq!((one.digest(), one.sessions(), one.store()), (other.digest(), other.sessions(), other.store()));
    }

    #[test]
    fn predicted_result_is_what_happens() {
        let mut kv = Kv::default();
        assert_eq!(kv.predict(&open(7)), PredictedResult::Opens);
        assert_eq!(kv.predict(&put(64, 1, 1, "a")), PredictedResult::Settled(ApplyResult::Expired));
        kv.commit(Slot(64), &open(7), None);
        assert_eq!(kv.predict(&open(7)), PredictedResult::Settled(ApplyResult::Opened { session: 64, history: 0 }));
        let write = put(64, 1, 1, "a");
        let PredictedResult::Writes(foreseen) = kv.predict(&write) else { panic!("a new write") };
        let done = kv.commit(Slot(65), &write, None);
        assert_eq!(done, ApplyResult::Applied(SavedResult { slot: Slot(65), written: foreseen }));
        assert_eq!(
            kv.predict(&write),
            PredictedResult::Settled(ApplyResult::Duplicate(SavedResult { slot: Slot(65), written: foreseen }))
        );
        kv.commit(Slot(66), &put(64, 2, 2, "a"), None);
        assert_eq!(kv.predict(&write), PredictedResult::Settled(ApplyResult::Superseded));
    }

    #[test]
    fn session_is_dropped_only_where_the_transaction_says_so() {
        let mut kv = Kv::with_sessions_at_most(1);
        kv.commit(Slot(64), &open(7), None);
        kv.commit(Slot(65), &open(8), Some(64));
        assert_eq!((kv.sessions().len(), kv.sessions().stalest()), (1, Some(65)));
    }
}
