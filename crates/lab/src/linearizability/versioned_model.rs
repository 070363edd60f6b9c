//! The model of one key of this store, with put, put at a version, get and delete. Every applied write raises the
//! version by one.

use super::model::SequentialModel;
use super::value_ids::{ValueId, ValueIds};
use paxos_kv::trace::QuotedText;

/// An operation on the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VersionedCall {
    /// Reads the value and its version.
    Get,
    /// Sets a value.
    Put {
        /// The id of the new value.
        value: ValueId,
        /// The version that the key must have for the write; any if None.
        if_version: Option<u64>,
    },
    /// Removes the value.
    Delete,
}

/// The result of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VersionedOutcome {
    /// Of a get: the key holds this value, at this version.
    Holds(Option<ValueId>, u64),
    /// Of a write: done, and this is the new version.
    Done(u64),
    /// Of a delete: the key has no value, at this version.
    NotFound(u64),
    /// Of a put: the key is at this version, not at the required one.
    Mismatch(u64),
}

/// What is known about the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KnownValue {
    /// The value; None if there is none.
    Known(Option<ValueId>),
    /// Any value or none: the history begins in the middle.
    Anything,
}

/// The state of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VersionedState {
    /// What is known about the value.
    pub held: KnownValue,
    /// The version, if known.
    pub version: Option<u64>,
}

/// The state of the key at the beginning of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialState {
    /// The key was never written.
    Empty,
    /// Unknown: the results of the first operations are accepted as they are. This can hide a violation among them.
    Anything,
}

/// The sequential model of the key.
#[derive(Clone, Debug)]
pub struct VersionedModel {
    /// The state at the beginning.
    pub start: InitialState,
    /// The ids of the values that were read.
    pub values: ValueIds<QuotedText>,
    /// Clients without lines may write at any time. Their writes raise the version like any other.
    pub strangers: bool,
}

impl SequentialModel for VersionedModel {
    type Call = VersionedCall;
    type Outcome = VersionedOutcome;
    type State = VersionedState;

    fn start(&self) -> VersionedState {
        match self.start {
            InitialState::Empty => VersionedState { held: KnownValue::Known(None), version: Some(0) },
            InitialState::Anything => VersionedState { held: KnownValue::Anything, version: None },
        }
    }

    fn step(
        &self,
        state: &VersionedState,
        call: &VersionedCall,
        outcome: Option<&VersionedOutcome>,
    ) -> Option<VersionedState> {
        match outcome {
            Some(outcome) => {
                let version = version_before(outcome)?;
                let is_overtaken = self.strangers && state.version.is_some_and(|known| known < version);
                let held = if is_overtaken { KnownValue::Anything } else { state.held };
                let version_known = if is_overtaken { None } else { state.version };
                VersionedState { held, version: version_known }.at(version)?.answered(call, outcome)
            }
            None => Some(state.unanswered(call)),
        }
    }

    fn clock(&self, state: &VersionedState) -> u64 {
        state.version.unwrap_or(0)
    }

    fn latest(&self, outcome: &VersionedOutcome) -> u64 {
        version_before(outcome).unwrap_or(0)
    }

    fn show(&self, state: &VersionedState) -> String {
        let held = match state.held {
            KnownValue::Known(None) => "holds nothing".to_string(),
            KnownValue::Anything => "holds a value of which nothing is known".to_string(),
            KnownValue::Known(Some(number)) => match self.values.value(number) {
                Some(value) => format!("holds {value}"),
                None => "holds a value that nobody has read".to_string(),
            },
        };
        match state.version {
            Some(version) => format!("{held}, at version {version}"),
            None => held,
        }
    }
}

/// The version before the operation; None if there is no such version.
fn version_before(outcome: &VersionedOutcome) -> Option<u64> {
    match *outcome {
        VersionedOutcome::Done(after) => after.checked_sub(1),
        VersionedOutcome::Holds(_, version)
        | VersionedOutcome::NotFound(version)
        | VersionedOutcome::Mismatch(version) => Some(version),
    }
}

impl VersionedState {
    /// The state with this version; None if the state has another version.
    fn at(self, version: u64) -> Option<VersionedState> {
        let fits = self.version.is_none_or(|known| known == version);
        let held = match self.held {
            // A key that was never written holds no value.
            KnownValue::Anything if version == 0 => KnownValue::Known(None),
            held => held,
        };
        let never_written = version == 0 && held != KnownValue::Known(None);
        (fits && !never_written).then_some(VersionedState { held, version: Some(version) })
    }

    /// The state after an operation with this result; None if impossible. `self` has the version before it.
    fn answered(self, call: &VersionedCall, outcome: &VersionedOutcome) -> Option<VersionedState> {
        let version = self.version?;
        let may_hold =
            |value: Option<ValueId>| self.held == KnownValue::Anything || self.held == KnownValue::Known(value);
        let may_hold_some = self.held != KnownValue::Known(None);
        let (fits, held) = match (*call, *outcome) {
            (VersionedCall::Get, VersionedOutcome::Holds(value, _)) => (may_hold(value), KnownValue::Known(value)),
            (VersionedCall::Put { value, if_version }, VersionedOutcome::Done(_)) => {
                (if_version.is_none_or(|wanted| wanted == version), KnownValue::Known(Some(value)))
            }
            (VersionedCall::Put { if_version, .. }, VersionedOutcome::Mismatch(_)) => {
                (if_version.is_some_and(|wanted| wanted != version), self.held)
            }
            (VersionedCall::Delete, VersionedOutcome::Done(_)) => (may_hold_some, KnownValue::Known(None)),
            (VersionedCall::Delete, VersionedOutcome::NotFound(_)) => (may_hold(None), KnownValue::Known(None)),
            // The result belongs to another kind of operation.
            (
                VersionedCall::Get,
                VersionedOutcome::Done(_) | VersionedOutcome::NotFound(_) | VersionedOutcome::Mismatch(_),
            )
            | (VersionedCall::Put { .. }, VersionedOutcome::Holds(..) | VersionedOutcome::NotFound(_))
            | (VersionedCall::Delete, VersionedOutcome::Holds(..) | VersionedOutcome::Mismatch(_)) => {
                (false, self.held)
            }
        };
        let after = if let VersionedOutcome::Done(after) = *outcome { after } else { version };
        fits.then_some(VersionedState { held, version: Some(after) })
    }

    /// The state after an operation with unknown outcome.
    fn unanswered(self, call: &VersionedCall) -> VersionedState {
        let next = self.version.map(|version| version + 1);
        match *call {
            VersionedCall::Get => self,
            VersionedCall::Put { if_version: Some(wanted), value } => match self.version {
                Some(version) if version != wanted => self,
                // An unknown version may be the required one.
                Some(_) | None => VersionedState { held: KnownValue::Known(Some(value)), version: Some(wanted + 1) },
            },
            VersionedCall::Put { if_version: None, value } => {
                VersionedState { held: KnownValue::Known(Some(value)), version: next }
            }
            VersionedCall::Delete if self.held == KnownValue::Known(None) => self,
            VersionedCall::Delete => VersionedState { held: KnownValue::Known(None), version: next },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paxos_kv::kv::{Op, Store, WriteResult};
    use paxos_kv::random::Random;

    const VALUES: [&str; 3] = ["a", "b", "c"];

    fn key(start: InitialState) -> VersionedModel {
        VersionedModel { start, values: ValueIds::read(VALUES.map(QuotedText::from)), strangers: false }
    }

    /// Executes a random operation on the real store, and converts its result to the model.
    fn ask(store: &mut Store, model: &VersionedModel, random: &mut Random) -> (VersionedCall, VersionedOutcome) {
        let name = VALUES[random.within(0..=2) as usize];
        let value = model.values.number(&QuotedText::from(name));
        let now = store.get(b"k").map_or(0, |entry| entry.version);
        let (call, op) = match random.within(0..=3) {
            0 => {
                let held = store.get(b"k").and_then(|entry| entry.value.as_ref());
                let held = held.map(|value| model.values.number(&QuotedText::new(value)));
                return (VersionedCall::Get, VersionedOutcome::Holds(held, now));
            }
            1 => (VersionedCall::Delete, Op::Delete { key: b"k".to_vec() }),
            kind => {
                let if_version = (kind == 2).then(|| now.saturating_sub(random.within(0..=1)));
                (
                    VersionedCall::Put { value, if_version },
                    Op::Put { key: b"k".to_vec(), value: name.as_bytes().into(), if_version },
                )
            }
        };
        let outcome = match store.apply(op.clone()).0 {
            WriteResult::Done { version } => VersionedOutcome::Done(version),
            WriteResult::NotFound { version } => VersionedOutcome::NotFound(version),
            WriteResult::Mismatch { version } => VersionedOutcome::Mismatch(version),
        };
        (call, outcome)
    }

    /// Every possible result of any operation.
    fn all_outcomes(model: &VersionedModel, up_to: u64) -> Vec<VersionedOutcome> {
        let mut held = vec![None];
        held.extend(VALUES.map(|value| Some(model.values.number(&QuotedText::from(value)))));
        (0..=up_to)
            .flat_map(|version| {
                let others = [
                    VersionedOutcome::Done(version),
                    VersionedOutcome::NotFound(version),
                    VersionedOutcome::Mismatch(version),
                ];
                held.iter().map(move |held| VersionedOutcome::Holds(*held, version)).chain(others).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn the_model_accepts_what_the_store_answers_and_nothing_else() {
        let model = key(InitialState::Empty);
        for seed in 0..200 {
            let (mut store, mut state, mut random) = (Store::default(), model.start(), Random::new(seed, 0));
            for _ in 0..12 {
                let (call, outcome) = ask(&mut store, &model, &mut random);
                for other in all_outcomes(&model, 14) {
                    assert_eq!(
                        model.step(&state, &call, Some(&other)).is_some(),
                        other == outcome,
                        "{call:?} {other:?}"
                    );
                }
                let after = model.step(&state, &call, Some(&outcome)).unwrap();
                assert_eq!(model.step(&state, &call, None), Some(after), "unknown outcome, same effect");
                state = after;
            }
        }
    }

    #[test]
    fn a_history_that_begins_in_the_middle_is_accepted_from_there() {
        let model = key(InitialState::Anything);
        for seed in 0..500 {
            let (mut store, mut random) = (Store::default(), Random::new(seed, 1));
            for _ in 0..random.within(0..=6) {
                ask(&mut store, &model, &mut random);
            }
            let mut state = model.start();
            for _ in 0..8 {
                let (call, outcome) = ask(&mut store, &model, &mut random);
                // If a write may have found nothing to do, its result is not hidden: the search would try both ways,
                // this walk cannot.
                let certain = matches!(call, VersionedCall::Get | VersionedCall::Put { if_version: None, .. });
                let hide = certain && random.within(0..=2) == 0;
                state = model.step(&state, &call, Some(&outcome).filter(|_| !hide)).unwrap();
            }
        }
    }

    #[test]
    fn where_the_version_is_known_a_late_beginning_hides_nothing() {
        let model = key(InitialState::Anything);
        let at = |outcome| model.step(&model.start(), &VersionedCall::Get, Some(&outcome)).unwrap();
        let a = Some(model.values.number(&QuotedText::from("a")));
        assert_eq!(
            model.step(
                &at(VersionedOutcome::Holds(a, 7)),
                &VersionedCall::Get,
                Some(&VersionedOutcome::Holds(None, 7))
            ),
            None
        );
        assert_eq!(
            model.step(&at(VersionedOutcome::Holds(a, 7)), &VersionedCall::Delete, Some(&VersionedOutcome::Done(9))),
            None
        );
        assert_eq!(model.step(&model.start(), &VersionedCall::Delete, Some(&VersionedOutcome::Done(0))), None);
        assert_eq!(
            model.step(&model.start(), &VersionedCall::Get, Some(&VersionedOutcome::Holds(a, 0))),
            None,
            "never written"
        );
        assert_eq!(
            model.step(&model.start(), &VersionedCall::Delete, Some(&VersionedOutcome::Done(1))),
            None,
            "nothing to delete"
        );
    }

    #[test]
    fn states_are_told_in_words() {
        let model = key(InitialState::Empty);
        assert_eq!(model.show(&model.start()), "holds nothing, at version 0");
        let b = Some(model.values.number(&QuotedText::from("b")));
        assert_eq!(
            model.show(&VersionedState { held: KnownValue::Known(b), version: Some(3) }),
            "holds b, at version 3"
        );
        assert_eq!(model.show(&key(InitialState::Anything).start()), "holds a value of which nothing is known");
    }
}
