//! One register that is read, written, and changed by compare-and-set; it begins empty.

use super::model::Model;
use super::values::{Number, Values};

/// What is asked of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Its value.
    Read,
    /// To hold this value.
    Write(Number),
    /// To hold the second value if it holds the first.
    CompareAndSet(Number, Number),
}

/// What it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It holds this; None if it is empty.
    Holds(Option<Number>),
    /// It holds the new value.
    Done,
    /// It did not hold the value that it was compared with; nothing changed.
    Mismatch,
}

/// A register whose values have these numbers. Whatever is compared with must be among them.
#[derive(Clone, Debug)]
pub struct Register {
    /// The values.
    pub values: Values<String>,
}

impl Model for Register {
    type Call = Call;
    type Outcome = Outcome;
    type State = Option<Number>;

    fn start(&self) -> Option<Number> {
        None
    }

    fn step(&self, state: &Option<Number>, call: &Call, outcome: Option<&Outcome>) -> Option<Option<Number>> {
        let (answer, after) = match *call {
            Call::Read => (Outcome::Holds(*state), *state),
            Call::Write(value) => (Outcome::Done, Some(value)),
            Call::CompareAndSet(from, to) if *state == Some(from) => (Outcome::Done, Some(to)),
            Call::CompareAndSet(..) => (Outcome::Mismatch, *state),
        };
        outcome.is_none_or(|outcome| *outcome == answer).then_some(after)
    }

    fn show(&self, state: &Option<Number>) -> String {
        match state {
            None => "is empty".to_string(),
            Some(number) => match self.values.value(*number) {
                Some(value) => format!("holds {value}"),
                None => "holds a value that nobody has read".to_string(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::values::UNREAD;
    use super::*;

    #[test]
    fn a_register_answers_as_registers_do() {
        let register = Register { values: Values::read(["1", "2"].map(str::to_string)) };
        let [one, two] = ["1", "2"].map(|value| register.values.number(&value.to_string()));
        let step = |state, call, outcome: Option<Outcome>| register.step(&state, &call, outcome.as_ref());
        assert_eq!(step(None, Call::Read, Some(Outcome::Holds(None))), Some(None));
        assert_eq!(step(None, Call::Read, Some(Outcome::Holds(Some(one)))), None);
        assert_eq!(step(None, Call::Write(one), Some(Outcome::Done)), Some(Some(one)));
        let swap = Call::CompareAndSet(one, two);
        assert_eq!(step(Some(one), swap, Some(Outcome::Done)), Some(Some(two)));
        assert_eq!(step(Some(two), swap, Some(Outcome::Done)), None);
        assert_eq!(step(None, swap, Some(Outcome::Mismatch)), Some(None));
        assert_eq!(step(Some(one), swap, Some(Outcome::Mismatch)), None);
        assert_eq!((step(Some(one), swap, None), step(None, swap, None)), (Some(Some(two)), Some(None)));
        assert_eq!(register.show(&None), "is empty");
        assert_eq!(register.show(&Some(two)), "holds 2");
        assert!(register.show(&Some(UNREAD)).contains("nobody has read"));
    }
}
