//! One key of this store: put, put at a version, get, delete; every applied write raises the version by one.

use super::model::Model;
use super::values::{Number, Values};
use crate::trace::Text;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// The value and its version.
    Get,
    /// To hold a value.
    Put {
        /// The value.
        value: Number,
        /// Only if the key is at this version.
        if_version: Option<u64>,
    },
    /// To hold none.
    Delete,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A read: the key holds this, at this version.
    Holds(Option<Number>, u64),
    /// A write: done, the key is now at this version.
    Done(u64),
    /// A delete: there was nothing to delete, at this version.
    NotFound(u64),
    /// A put: the key is at this version, and not at the one that was asked for.
    Mismatch(u64),
}

/// What is known of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Held {
    /// It is this one, or there is none.
    Known(Option<Number>),
    /// Nothing is known: the history begins in the middle.
    Anything,
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The value.
    pub held: Held,
    /// Its version, if it is known.
    pub version: Option<u64>,
}

/// How a key was when the history began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Never written.
    Empty,
    /// Nobody knows: whatever the first operations say is right. This can hide a violation among them.
    Anything,
}

/// A key.
#[derive(Clone, Debug)]
pub struct Versioned {
    /// How it was.
    pub start: Start,
    /// The values that were read.
    pub values: Values<Text>,
    /// Others may write too, at any time, of whom nothing is known. Their writes raise the version like any.
    pub strangers: bool,
}

impl Model for Versioned {
    type Call = Call;
    type Outcome = Outcome;
    type State = State;

    fn start(&self) -> State {
        match self.start {
            Start::Empty => State { held: Held::Known(None), version: Some(0) },
            Start::Anything => State { held: Held::Anything, version: None },
        }
    }

    fn step(&self, state: &State, call: &Call, outcome: Option<&Outcome>) -> Option<State> {
        match outcome {
            Some(outcome) => {
                let version = version_before(outcome)?;
                let is_overtaken = self.strangers && state.version.is_some_and(|known| known < version);
                let held = if is_overtaken { Held::Anything } else { state.held };
                let version_known = if is_overtaken { None } else { state.version };
                State { held, version: version_known }.at(version)?.answered(call, outcome)
            }
            None => Some(state.unanswered(call)),
        }
    }

    fn clock(&self, state: &State) -> u64 {
        state.version.unwrap_or(0)
    }

    fn latest(&self, outcome: &Outcome) -> u64 {
        version_before(outcome).unwrap_or(0)
    }

    fn show(&self, state: &State) -> String {
        let held = match state.held {
            Held::Known(None) => "holds nothing".to_string(),
            Held::Anything => "holds a value of which nothing is known".to_string(),
            Held::Known(Some(number)) => match self.values.value(number) {
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

/// The version that the operation met; None if there is no such version.
fn version_before(outcome: &Outcome) -> Option<u64> {
    match *outcome {
        Outcome::Done(after) => after.checked_sub(1),
        Outcome::Holds(_, version) | Outcome::NotFound(version) | Outcome::Mismatch(version) => Some(version),
    }
}

impl State {
    /// The same, now that the version is known; None if it is another.
    fn at(self, version: u64) -> Option<State> {
        let fits = self.version.is_none_or(|known| known == version);
        let held = match self.held {
            // A key that was never written holds nothing.
            Held::Anything if version == 0 => Held::Known(None),
            held => held,
        };
        let never_written = version == 0 && held != Held::Known(None);
        (fits && !never_written).then_some(State { held, version: Some(version) })
    }

    /// The state after an operation that ended so; None if it cannot have. The version before it fits.
    fn answered(self, call: &Call, outcome: &Outcome) -> Option<State> {
        let version = self.version?;
        let may_hold = |value: Option<Number>| self.held == Held::Anything || self.held == Held::Known(value);
        let may_hold_some = self.held != Held::Known(None);
        let (fits, held) = match (*call, *outcome) {
            (Call::Get, Outcome::Holds(value, _)) => (may_hold(value), Held::Known(value)),
            (Call::Put { value, if_version }, Outcome::Done(_)) => {
                (if_version.is_none_or(|wanted| wanted == version), Held::Known(Some(value)))
            }
            (Call::Put { if_version, .. }, Outcome::Mismatch(_)) => {
                (if_version.is_some_and(|wanted| wanted != version), self.held)
            }
            (Call::Delete, Outcome::Done(_)) => (may_hold_some, Held::Known(None)),
            (Call::Delete, Outcome::NotFound(_)) => (may_hold(None), Held::Known(None)),
            // An answer to another question.
            (Call::Get, Outcome::Done(_) | Outcome::NotFound(_) | Outcome::Mismatch(_))
            | (Call::Put { .. }, Outcome::Holds(..) | Outcome::NotFound(_))
            | (Call::Delete, Outcome::Holds(..) | Outcome::Mismatch(_)) => (false, self.held),
        };
        let after = if let Outcome::Done(after) = *outcome { after } else { version };
        fits.then_some(State { held, version: Some(after) })
    }

    /// The state after an operation whose outcome nobody knows.
    fn unanswered(self, call: &Call) -> State {
        let next = self.version.map(|version| version + 1);
        match *call {
            Call::Get => self,
            Call::Put { if_version: Some(wanted), value } => match self.version {
                Some(version) if version != wanted => self,
                // At a version that is not known, it may be the one that was asked for.
                Some(_) | None => State { held: Held::Known(Some(value)), version: Some(wanted + 1) },
            },
            Call::Put { if_version: None, value } => State { held: Held::Known(Some(value)), version: next },
            Call::Delete if self.held == Held::Known(None) => self,
            Call::Delete => State { held: Held::Known(None), version: next },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Op, Store, Written};
    use crate::random::Random;

    const VALUES: [&str; 3] = ["a", "b", "c"];

    fn key(start: Start) -> Versioned {
        Versioned { start, values: Values::read(VALUES.map(Text::from)), strangers: false }
    }

    /// Asks the real store, and says it in the words of the model.
    fn ask(store: &mut Store, model: &Versioned, random: &mut Random) -> (Call, Outcome) {
        let name = VALUES[random.within(0..=2) as usize];
        let value = model.values.number(&Text::from(name));
        let now = store.get(b"k").map_or(0, |entry| entry.version);
        let (call, op) = match random.within(0..=3) {
            0 => {
                let held = store.get(b"k").and_then(|entry| entry.value.as_ref());
                let held = held.map(|value| model.values.number(&Text::new(value)));
                return (Call::Get, Outcome::Holds(held, now));
            }
            1 => (Call::Delete, Op::Delete { key: b"k".to_vec() }),
            kind => {
                let if_version = (kind == 2).then(|| now.saturating_sub(random.within(0..=1)));
                (
                    Call::Put { value, if_version },
                    Op::Put { key: b"k".to_vec(), value: name.as_bytes().into(), if_version },
                )
            }
        };
        let outcome = match store.apply(op.clone()).0 {
            Written::Done { version } => Outcome::Done(version),
            Written::NotFound { version } => Outcome::NotFound(version),
            Written::Mismatch { version } => Outcome::Mismatch(version),
        };
        (call, outcome)
    }

    /// Every answer that anybody could give to anything.
    fn all_outcomes(model: &Versioned, up_to: u64) -> Vec<Outcome> {
        let mut held = vec![None];
        held.extend(VALUES.map(|value| Some(model.values.number(&Text::from(value)))));
        (0..=up_to)
            .flat_map(|version| {
                let others = [Outcome::Done(version), Outcome::NotFound(version), Outcome::Mismatch(version)];
                held.iter().map(move |held| Outcome::Holds(*held, version)).chain(others).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn the_model_accepts_what_the_store_answers_and_nothing_else() {
        let model = key(Start::Empty);
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
        let model = key(Start::Anything);
        for seed in 0..500 {
            let (mut store, mut random) = (Store::default(), Random::new(seed, 1));
            for _ in 0..random.within(0..=6) {
                ask(&mut store, &model, &mut random);
            }
            let mut state = model.start();
            for _ in 0..8 {
                let (call, outcome) = ask(&mut store, &model, &mut random);
                // What may have found nothing to do is not hidden: the search tries both ways, a walk cannot.
                let certain = matches!(call, Call::Get | Call::Put { if_version: None, .. });
                let hide = certain && random.within(0..=2) == 0;
                state = model.step(&state, &call, Some(&outcome).filter(|_| !hide)).unwrap();
            }
        }
    }

    #[test]
    fn where_the_version_is_known_a_late_beginning_hides_nothing() {
        let model = key(Start::Anything);
        let at = |outcome| model.step(&model.start(), &Call::Get, Some(&outcome)).unwrap();
        let a = Some(model.values.number(&Text::from("a")));
        assert_eq!(model.step(&at(Outcome::Holds(a, 7)), &Call::Get, Some(&Outcome::Holds(None, 7))), None);
        assert_eq!(model.step(&at(Outcome::Holds(a, 7)), &Call::Delete, Some(&Outcome::Done(9))), None);
        assert_eq!(model.step(&model.start(), &Call::Delete, Some(&Outcome::Done(0))), None);
        assert_eq!(model.step(&model.start(), &Call::Get, Some(&Outcome::Holds(a, 0))), None, "never written");
        assert_eq!(model.step(&model.start(), &Call::Delete, Some(&Outcome::Done(1))), None, "nothing to delete");
    }

    #[test]
    fn states_are_told_in_words() {
        let model = key(Start::Empty);
        assert_eq!(model.show(&model.start()), "holds nothing, at version 0");
        let b = Some(model.values.number(&Text::from("b")));
        assert_eq!(model.show(&State { held: Held::Known(b), version: Some(3) }), "holds b, at version 3");
        assert_eq!(model.show(&key(Start::Anything).start()), "holds a value of which nothing is known");
    }
}
