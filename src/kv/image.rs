//! The state as data: what has changed since it was last written down, and the parts of a whole one.
//!
//! A checkpoint is written from what has *changed*, so that its price is that of the writes and not of the store. What was
//! taken for a checkpoint that then fails is counted as changed again. A state that came from elsewhere has changed as a
//! whole.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Kv;
use super::session::{Session, Sessions};
use super::store::{Store, Versioned};
use crate::codec::{self, CodecError};

/// One entry of a state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Piece {
    /// A key, a tombstone included.
    Key {
        /// The key.
        #[serde(with = "serde_bytes")]
        key: Vec<u8>,
        /// What it holds.
        entry: Versioned,
    },
    /// A session.
    Session {
        /// Its name.
        id: u64,
        /// All that is known of it.
        session: Session,
    },
}

impl Piece {
    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        match self {
            Piece::Key { key, entry } => 24 + key.len() + entry.value.as_ref().map_or(0, Vec::len),
            Piece::Session { session, .. } => 48 + session.size(),
        }
    }
}

/// A part of a state, as it is sent.
pub fn encode_part(pieces: &Vec<Piece>) -> Vec<u8> {
    codec::encode(pieces)
}

/// The pieces of a part.
pub fn decode_part(part: &[u8]) -> Result<Vec<Piece>, CodecError> {
    codec::decode(part)
}

/// A part for somebody who must not see the sessions: what proves that one is one's own stands in them. With it the digest
/// of what was left out, so that the whole can be checked.
pub fn without_sessions(part: &[u8]) -> Result<(Vec<u8>, u64), CodecError> {
    let is_key = |piece: &Piece| matches!(piece, Piece::Key { .. });
    let (keys, sessions): (Vec<_>, Vec<_>) = decode_part(part)?.into_iter().partition(is_key);
    let mut left_out = Kv::default();
    left_out.put_pieces(sessions);
    Ok((encode_part(&keys), left_out.sessions().digest()))
}

/// What a checkpoint must write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Changes {
    /// These pieces are all there is: what was written before is to go.
    pub is_whole: bool,
    /// What is new or different.
    pub pieces: Vec<Piece>,
    /// Sessions that are no more.
    pub ended: Vec<u64>,
}

/// Names of what has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Names {
    /// Each once: the store knows which of its keys stand here.
    keys: Vec<Vec<u8>>,
    sessions: BTreeSet<u64>,
    is_whole: bool,
}

/// What has changed since the last checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Changed {
    since: Names,
    /// What a checkpoint has taken that is not known to be durable yet.
    taken: Names,
}

impl Changed {
    /// Nothing of this state was ever written down.
    pub(super) fn everything() -> Changed {
        Changed { since: Names { is_whole: true, ..Names::default() }, taken: Names::default() }
    }

    /// A key has changed that does not stand here yet. Kept also when everything is to be written: the store believes that
    /// it stands here.
    pub(super) fn key(&mut self, key: Vec<u8>) {
        self.since.keys.push(key);
    }

    pub(super) fn session(&mut self, id: u64) {
        if !self.since.is_whole {
            self.since.sessions.insert(id);
        }
    }

    /// The changes, to be written down.
    pub(super) fn take(&mut self, store: &mut Store, sessions: &Sessions) -> Changes {
        assert!(self.taken == Names::default(), "one checkpoint at a time");
        self.taken = std::mem::take(&mut self.since);
        let Names { keys, sessions: ids, is_whole } = &self.taken;
        let key = |key: &[u8], entry: &Versioned| Piece::Key { key: key.to_vec(), entry: entry.clone() };
        let session = |(id, session): (u64, &Session)| Piece::Session { id, session: session.clone() };
        if *is_whole {
            for name in keys {
                store.list(name, false);
            }
            let all_keys = store.entries().map(|(name, entry)| key(name, entry));
            let pieces = all_keys.chain(sessions.all().map(session)).collect();
            return Changes { is_whole: true, pieces, ended: Vec::new() };
        }
        let changed_keys = keys.iter().filter_map(|name| store.list(name, false).map(|(_, entry)| key(name, entry)));
        let changed_sessions = ids.iter().filter_map(|id| Some(session((*id, sessions.get(*id)?))));
        let pieces = changed_keys.chain(changed_sessions).collect();
        let ended = ids.iter().copied().filter(|id| sessions.get(*id).is_none()).collect();
        Changes { is_whole: false, pieces, ended }
    }

    /// What was taken is durable.
    pub(super) fn kept(&mut self) {
        self.taken = Names::default();
    }

    /// What was taken was not written: it is still to be.
    pub(super) fn lost(&mut self, store: &mut Store) {
        let Names { keys, sessions, is_whole } = std::mem::take(&mut self.taken);
        for key in keys {
            if store.list(&key, true).is_some_and(|(was_listed, _)| !was_listed) {
                self.since.keys.push(key);
            }
        }
        self.since.sessions.extend(sessions);
        self.since.is_whole |= is_whole;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Command, Kv, Op};
    use super::*;
    use crate::paxos::{Slot, StateMachine, Value};

    fn apply(kv: &mut Kv, slot: u64, command: Command) {
        kv.apply(Slot(slot), &Value::Command(command.to_paxos()));
    }

    fn open(nonce: u64) -> Command {
        Command::Open { nonce, label: String::new() }
    }

    fn put(session: u64, sequence: u64, key: &str) -> Command {
        let op = Op::Put { key: key.into(), value: vec![1; sequence as usize], if_version: None };
        Command::Write { session, sequence, first_open: 1, label: String::new(), op }
    }

    /// A state on disk: what checkpoints have written.
    #[derive(Default)]
    struct Written(Kv);

    impl Written {
        fn write(&mut self, changes: &Changes) {
            if changes.is_whole {
                self.0 = Kv::default();
            }
            self.0.put_pieces(changes.pieces.clone());
            changes.ended.iter().for_each(|id| self.0.end_session(*id));
        }
    }

    #[test]
    fn changes_alone_make_the_whole_state() {
        let (mut kv, mut written) = (Kv::with_sessions_at_most(2), Written(Kv::with_sessions_at_most(2)));
        let mut slot = 0;
        let mut next = |kv: &mut Kv, command| {
            slot += 1;
            apply(kv, slot, command);
        };
        for round in 0..20u64 {
            next(&mut kv, open(round));
            let session = kv.sessions().opened_by(round).unwrap();
            for n in 1..=3 {
                next(&mut kv, put(session, n, &format!("k{}", (round + n) % 7)));
            }
            let changes = kv.take_changes();
            assert!(!changes.is_whole && changes.pieces.len() <= 9, "{changes:?}");
            if round % 3 == 0 {
                // The disk was full: the next one writes it too.
                kv.changes_lost();
                continue;
            }
            kv.changes_kept();
            written.write(&changes);
            assert_eq!((written.0.digest(), written.0.store()), (kv.digest(), kv.store()), "round {round}");
        }
    }

    #[test]
    fn a_state_that_came_in_parts_is_the_same_and_has_changed_as_a_whole() {
        let mut kv = Kv::default();
        apply(&mut kv, 1, open(7));
        (1..=9).for_each(|n| apply(&mut kv, 1 + n, put(1, n, &format!("k{n}"))));
        let mut from_nothing = Kv::empty_like(&kv);
        let whole = from_nothing.take_changes();
        assert!(whole.is_whole && whole.pieces.is_empty());
        from_nothing.changes_lost();
        assert!(from_nothing.take_changes().is_whole, "nothing of it was ever written down");
        let mut loaded = Kv::empty_like(&kv);
        kv.changed_all();
        let whole = kv.take_changes();
        for pieces in whole.pieces.chunks(2) {
            loaded.load(&encode_part(&pieces.to_vec())).unwrap();
        }
        assert_eq!((loaded.digest(), loaded.store(), loaded.sessions()), (kv.digest(), kv.store(), kv.sessions()));
        // What changes before and after everything is written for the first time is written too.
        apply(&mut loaded, 11, put(1, 10, "k1"));
        assert!(loaded.take_changes().is_whole);
        loaded.changes_kept();
        apply(&mut loaded, 12, put(1, 11, "k1"));
        let changed: Vec<Piece> = loaded.take_changes().pieces;
        assert!(changed.iter().any(|piece| matches!(piece, Piece::Key { key, .. } if key == b"k1")), "{changed:?}");
        assert!(loaded.load(b"\x07no part").is_err());
    }
}
