//! The replicated state machine against a naive one: random clients that send again what they sent, late and in any
//! order.

use std::collections::{BTreeMap, BTreeSet};

use paxos_kv::kv::{
    ApplyResult, Kv, KvCommand, Op, ReadQuery, SEQUENCE_WINDOW, SavedResult, VersionedValue, WriteResult,
};
use paxos_kv::paxos::{Slot, StateMachine, Value};
use proptest::prelude::*;

/// What a client does next.
#[derive(Clone, Debug)]
enum Step {
    /// Sends its OPEN (again).
    Open { client: usize },
    /// Sends a new write; from then on it no longer asks for what is more than `open` writes old.
    Write { client: usize, open: u64, op: Op },
    /// Another client writes in this session, whose number is easy to guess.
    Foreign { client: usize, sequence: u64, op: Op },
    /// Sends an old command once more.
    Again { nth: prop::sample::Index },
}

fn ops() -> impl Strategy<Value = Op> {
    let key = prop_oneof![Just(b"a".to_vec()), Just(b"b".to_vec()), Just(b"c".to_vec())];
    let value = prop::collection::vec(any::<u8>(), 0..3);
    prop_oneof![
        (key.clone(), value, prop::option::of(0..4u64)).prop_map(|(key, value, if_version)| Op::Put {
            key,
            value: value.into(),
            if_version
        }),
        key.prop_map(|key| Op::Delete { key }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => (0..3usize).prop_map(|client| Step::Open { client }),
        4 => (0..3usize, 0..SEQUENCE_WINDOW, ops()).prop_map(|(client, open, op)| Step::Write { client, open, op }),
        1 => (0..3usize, prop_oneof![1..9u64, Just(1 << 62)], ops())
            .prop_map(|(client, sequence, op)| Step::Foreign { client, sequence, op }),
        4 => any::<prop::sample::Index>().prop_map(|nth| Step::Again { nth }),
    ];
    prop::collection::vec(step, 1..200)
}

/// The log that the clients' steps make, with each client's session known as soon as it is opened.
fn log(steps: Vec<Step>) -> Vec<KvCommand> {
    let mut log: Vec<KvCommand> = Vec::new();
    let mut sessions = BTreeMap::new();
    let mut next = BTreeMap::new();
    for step in steps {
        let slot = log.len() as u64 + 1;
        match step {
            Step::Open { client } => {
                sessions.entry(client).or_insert(slot);
                log.push(KvCommand::Open { nonce: client as u128, label: String::new() });
            }
            Step::Write { client, open, op } => {
                let Some(session) = sessions.get(&client) else { continue };
                let sequence = next.entry(client).and_modify(|next| *next += 1).or_insert(1u64);
                let first_open = sequence.saturating_sub(open).max(1);
                let (session, sequence) = (*session, *sequence);
                let nonce = client as u128;
                log.push(KvCommand::Write { session, nonce, sequence, first_open, label: format!("c{client}"), op });
            }
            Step::Foreign { client, sequence, op } => {
                let Some(session) = sessions.get(&client) else { continue };
                let (session, label) = (*session, "stranger".to_string());
                log.push(KvCommand::Write { session, nonce: 1_000, sequence, first_open: sequence, label, op });
            }
            Step::Again { nth } if !log.is_empty() => log.push(log[nth.index(log.len())].clone()),
            Step::Again { .. } => {}
        }
    }
    log
}

/// A store that is obviously correct: it scans its whole history each time.
#[derive(Default)]
struct NaiveStore {
    opened: BTreeMap<u128, u64>,
    history: u64,
    /// All writes met so far: session, sequence, first_open, and the result of an applied one.
    writes: Vec<(u64, u64, u64, Option<SavedResult>)>,
    keys: BTreeMap<Vec<u8>, (Option<Vec<u8>>, u64)>,
}

impl NaiveStore {
    fn apply(&mut self, slot: u64, command: &KvCommand) -> ApplyResult {
        match command {
            KvCommand::Open { nonce, .. } => {
                let session = *self.opened.entry(*nonce).or_insert(slot);
                // Which number a history has is the store's business, and not that it stays the same.
                ApplyResult::Opened { session, history: self.history }
            }
            KvCommand::Write { session, nonce, sequence, first_open, op, .. } => {
                if self.opened.get(nonce) != Some(session) {
                    return ApplyResult::Expired;
                }
                let mine = || self.writes.iter().filter(|write| write.0 == *session);
                if mine().any(|(.., first_open, _)| sequence < first_open) {
                    return ApplyResult::Superseded;
                }
                let before = mine().find_map(|write| write.3.filter(|_| write.1 == *sequence));
                let applied = if before.is_none() {
                    Some(SavedResult { slot: Slot(slot), written: self.write(op) })
                } else {
                    None
                };
                self.writes.push((*session, *sequence, *first_open, applied));
                match (before, applied) {
                    (Some(saved), _) => ApplyResult::Duplicate(saved),
                    (None, Some(saved)) => ApplyResult::Applied(saved),
                    (None, None) => unreachable!("it is one or the other"),
                }
            }
        }
    }

    fn write(&mut self, op: &Op) -> WriteResult {
        let (value, version) = self.keys.get(op.key()).cloned().unwrap_or((None, 0));
        let new = match op {
            Op::Put { if_version, value, .. } if if_version.is_none_or(|wanted| wanted == version) => {
                Some(value.to_vec())
            }
            Op::Put { .. } => return WriteResult::Mismatch { version },
            Op::Delete { .. } if value.is_some() => None,
            Op::Delete { .. } => return WriteResult::NotFound { version },
        };
        self.keys.insert(op.key().to_vec(), (new, version + 1));
        WriteResult::Done { version: version + 1 }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Outcomes, values and versions are those of the naive store; nothing takes effect twice.
    #[test]
    fn store_matches_a_simple_model(steps in steps()) {
        let (mut kv, mut naive) = (Kv::default(), NaiveStore::default());
        let mut effects = BTreeSet::new();
        for (n, command) in log(steps).into_iter().enumerate() {
            prop_assert!(command.is_well_formed());
            let slot = n as u64 + 1;
            let outcome = kv.apply(Slot(slot), &Value::Command(command.to_paxos()));
            if let (ApplyResult::Opened { history, .. }, 0) = (outcome, naive.history) {
                naive.history = history;
            }
            prop_assert_eq!(outcome, naive.apply(slot, &command));
            if matches!(outcome, ApplyResult::Applied(_)) {
                prop_assert!(effects.insert(command.id()), "{:?} took effect twice", command.id());
            }
        }
        for key in [b"a", b"b", b"c", b"d"] {
            let (value, version) = naive.keys.get(key.as_slice()).cloned().unwrap_or((None, 0));
            prop_assert_eq!(kv.query(&ReadQuery { key: key.to_vec() }), VersionedValue { value: value.map(Into::into), version });
        }
    }

    /// Equal logs make equal states with equal digests; one command more or less makes another.
    #[test]
    fn digests_follow_the_log(steps in steps()) {
        let log = log(steps);
        let (mut one, mut other) = (Kv::default(), Kv::default());
        for (n, command) in log.iter().enumerate() {
            let (slot, value) = (Slot(n as u64 + 1), Value::Command(command.to_paxos()));
            let before = one.clone();
            one.apply(slot, &value);
            prop_assert_eq!(one == before, one.digest() == before.digest());
            other.apply(slot, &value);
            prop_assert_eq!(&one, &other);
            prop_assert_eq!(one.digest(), other.digest());
        }
    }

    /// A no-op and bytes that are no command change nothing, on any server.
    #[test]
    fn invalid_command_changes_nothing(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
        let mut kv = Kv::default();
        prop_assert_eq!(kv.apply(Slot(1), &Value::Noop), ApplyResult::Noop);
        let command = paxos_kv::paxos::Command { id: paxos_kv::paxos::CommandId::new(0, 0, 1), payload: bytes.into() };
        if KvCommand::from_paxos(&command).is_err() {
            prop_assert_eq!(kv.apply(Slot(2), &Value::Command(command)), ApplyResult::Unreadable);
            prop_assert_eq!(kv, Kv::default());
        }
    }
}
