//! The check of the final state: whether the program's writes can have led to it.
//!
//! A version counts the writes applied to a key, so it proves more than the value. The acknowledged write with the
//! highest version must be there, unless a later write replaced it. Such a later write may be one with unknown outcome,
//! or one of a client that this program does not know.

use std::collections::BTreeMap;

use crate::client::operation::Operation;
use crate::client::outcome::{ClientError, GetResponse, WriteResponse};
use crate::client::script::quote_key;
use crate::role::ServerId;

/// The results of the program's writes, by key.
#[derive(Clone, Debug, Default)]
pub struct ExpectedState {
    keys: BTreeMap<Vec<u8>, KeyWrites>,
}

#[derive(Clone, Debug, Default)]
struct KeyWrites {
    /// By resulting version: the value after each acknowledged write, None if it removed the value.
    acknowledged: BTreeMap<u64, Option<Vec<u8>>>,
    /// The value after each write with unknown outcome, if it was applied.
    unknown: Vec<Option<Vec<u8>>>,
}

/// The result of checking a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyCheck {
    /// The state follows from the writes.
    Consistent,
    /// The state is possible only if clients unknown to this program wrote meanwhile, as the message says.
    OtherWriter(String),
    /// The state does not follow from the writes; the message says why.
    Inconsistent(String),
}

impl ExpectedState {
    /// Records the result of an operation; an error if two acknowledged writes have the same version of a key.
    pub fn record(&mut self, action: &Operation, end: &Result<WriteResponse, ClientError>) -> Result<(), String> {
        let left = match action {
            Operation::Put { value, .. } => Some(value.clone()),
            Operation::Delete { .. } => None,
            Operation::Get { .. } => return Ok(()),
        };
        let writes = self.keys.entry(action.key().to_vec()).or_default();
        match end {
            Ok(WriteResponse::Written { version, .. }) => {
                if writes.acknowledged.insert(*version, left).is_some() {
                    return Err(format!(
                        "two writes of {} were both acknowledged as version {version}",
                        quote_key(action.key())
                    ));
                }
            }
            Err(ClientError::Unknown(_)) => writes.unknown.push(left),
            Ok(WriteResponse::NotFound { .. } | WriteResponse::Mismatch { .. }) | Err(_) => {}
        }
        Ok(())
    }

    /// Adds the records of another client of the program.
    pub fn merge(&mut self, other: ExpectedState) -> Result<(), String> {
        for (key, theirs) in other.keys {
            let ours = self.keys.entry(key.clone()).or_default();
            ours.unknown.extend(theirs.unknown);
            for (version, left) in theirs.acknowledged {
                if ours.acknowledged.insert(version, left).is_some() {
                    return Err(format!(
                        "two writes of {} were both acknowledged as version {version}",
                        quote_key(&key)
                    ));
                }
            }
        }
        Ok(())
    }

    /// The keys that the program wrote, or tried to write.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.keys().map(Vec::as_slice)
    }

    /// Checks the value that was found in a key after all writes had ended.
    pub fn judge(&self, key: &[u8], found: &GetResponse) -> KeyCheck {
        let Some(writes) = self.keys.get(key) else { return KeyCheck::Consistent };
        let Some((version, left)) = writes.acknowledged.last_key_value() else { return KeyCheck::Consistent };
        let key = quote_key(key);
        if found.version < *version {
            return KeyCheck::Inconsistent(format!(
                "the acknowledged write of {key} at version {version} is lost: the key is at version {}",
                found.version
            ));
        }
        if found.version == *version {
            let right = found.value == *left;
            let what = format!("{key} at version {version} holds another value than the acknowledged one");
            return if right { KeyCheck::Consistent } else { KeyCheck::Inconsistent(what) };
        }
        if writes.unknown.contains(&found.value) {
            return KeyCheck::Consistent;
        }
        if found.value.is_some() && found.value == *left {
            return KeyCheck::Inconsistent(format!(
                "the write of {key} acknowledged at version {version} appears again at version {}: it was applied \
                 twice, or another client wrote the same value",
                found.version
            ));
        }
        KeyCheck::OtherWriter(format!("{key} was changed by another client (version {})", found.version))
    }
}

/// Checks successive reads of one key from different servers. A later read must not find an older version, nor another
/// value at the same version.
pub fn check_monotonic(key: &[u8], found: &[(ServerId, GetResponse)]) -> Result<(), String> {
    for pair in found.windows(2) {
        let [(one, earlier), (other, later)] = pair else { continue };
        let key = quote_key(key);
        if later.version < earlier.version {
            return Err(format!(
                "server {} returned {key} at version {} after server {} had returned version {}: a stale read",
                other.0, later.version, one.0, earlier.version
            ));
        }
        if later.version == earlier.version && later.value != earlier.value {
            return Err(format!(
                "servers {} and {} returned different values of {key} at the same version",
                one.0, other.0
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::outcome::{RequestKind, Tries};
    use crate::paxos::Slot;
    use crate::role::ServerSet;

    fn put(value: &str) -> Operation {
        Operation::Put { key: b"k".to_vec(), value: value.into(), if_version: None }
    }

    fn delete() -> Operation {
        Operation::Delete { key: b"k".to_vec() }
    }

    fn done(version: u64) -> Result<WriteResponse, ClientError> {
        Ok(WriteResponse::Written { slot: Slot(version), version })
    }

    fn unknown() -> Result<WriteResponse, ClientError> {
        Err(ClientError::Unknown(Tries::new(ServerSet::first(5), RequestKind::Write)))
    }

    fn not_applied() -> Result<WriteResponse, ClientError> {
        Err(ClientError::NotApplied(Tries::new(ServerSet::first(5), RequestKind::Write)))
    }

    fn found(value: Option<&str>, version: u64) -> GetResponse {
        GetResponse { slot: Slot(99), value: value.map(Into::into), version }
    }

    fn judge(notes: &[(Operation, Result<WriteResponse, ClientError>)], value: Option<&str>, version: u64) -> char {
        let mut ledger = ExpectedState::default();
        for (action, end) in notes {
            ledger.record(action, end).unwrap();
        }
        match ledger.judge(b"k", &found(value, version)) {
            KeyCheck::Consistent => 'r',
            KeyCheck::OtherWriter(_) => 'o',
            KeyCheck::Inconsistent(_) => 'w',
        }
    }

    #[test]
    fn last_acknowledged_write_must_be_present() {
        let notes = [(put("b"), done(4)), (put("a"), done(3)), (put("c"), not_applied())];
        assert_eq!(judge(&notes, Some("b"), 4), 'r');
        assert_eq!(judge(&notes, Some("a"), 3), 'w', "lost");
        assert_eq!(judge(&notes, Some("a"), 4), 'w', "another value at its version");
        assert_eq!(judge(&notes, None, 4), 'w');
        assert_eq!(judge(&notes, Some("b"), 5), 'w', "applied twice");
        assert_eq!(judge(&notes, Some("x"), 5), 'o', "a write of another client");
        assert_eq!(judge(&notes, Some("c"), 5), 'o', "our write was not applied, so another client wrote this");
    }

    #[test]
    fn key_with_an_unknown_last_write_may_hold_either_value() {
        let notes = [(put("a"), done(3)), (put("b"), unknown())];
        assert_eq!(judge(&notes, Some("a"), 3), 'r');
        assert_eq!(judge(&notes, Some("b"), 4), 'r');
        assert_eq!(judge(&notes, Some("a"), 4), 'w');
        assert_eq!(judge(&notes, Some("x"), 4), 'o');
        let notes = [(put("a"), done(3)), (delete(), unknown())];
        assert_eq!(judge(&notes, Some("a"), 3), 'r');
        assert_eq!(judge(&notes, None, 4), 'r');
        let notes = [(put("a"), unknown())];
        assert_eq!(judge(&notes, None, 0), 'r');
        assert_eq!(judge(&notes, Some("a"), 1), 'r');
    }

    #[test]
    fn deletes_count_unless_they_changed_nothing() {
        assert_eq!(judge(&[(put("a"), done(3)), (delete(), done(4))], None, 4), 'r');
        assert_eq!(judge(&[(put("a"), done(3)), (delete(), done(4))], Some("a"), 4), 'w');
        let missing = Ok(WriteResponse::NotFound { slot: Slot(9), version: 4 });
        assert_eq!(judge(&[(put("a"), done(3)), (delete(), done(4)), (delete(), missing)], None, 4), 'r');
    }

    #[test]
    fn two_writes_never_have_the_same_version() {
        let mut ledger = ExpectedState::default();
        ledger.record(&put("a"), &done(3)).unwrap();
        assert!(ledger.record(&put("b"), &done(3)).unwrap_err().contains("version 3"));
        let mut other = ExpectedState::default();
        other.record(&put("b"), &done(3)).unwrap();
        assert!(ledger.merge(other).unwrap_err().contains("version 3"));
    }

    #[test]
    fn later_reads_never_go_back() {
        let read = |server, value, version| (ServerId(server), found(value, version));
        assert!(check_monotonic(b"k", &[read(1, Some("a"), 3), read(2, Some("a"), 3)]).is_ok());
        assert!(check_monotonic(b"k", &[read(1, Some("a"), 3), read(2, Some("b"), 4)]).is_ok());
        assert!(check_monotonic(b"k", &[read(1, Some("b"), 4), read(2, Some("a"), 3)]).unwrap_err().contains("stale"));
        assert!(
            check_monotonic(b"k", &[read(1, Some("b"), 4), read(2, Some("a"), 4)]).unwrap_err().contains("different")
        );
    }
}
