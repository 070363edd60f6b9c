//! The model of one register with read, write and compare-and-set; it begins empty.

use super::model::SequentialModel;
use super::value_ids::{ValueId, ValueIds};

/// An operation on a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegisterCall {
    /// Reads the value.
    Read,
    /// Sets this value.
    Write(ValueId),
    /// Sets the second value if the register holds the first.
    CompareAndSet(ValueId, ValueId),
}

/// The result of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegisterOutcome {
    /// The value read; None if the register is empty.
    Holds(Option<ValueId>),
    /// The new value was set.
    Done,
    /// The register did not hold the expected value; nothing changed.
    Mismatch,
}

/// A register whose values have these ids. Every expected value of a compare-and-set must be among them.
#[derive(Clone, Debug)]
pub struct RegisterModel {
    /// The ids of the values.
    pub values: ValueIds<String>,
}

impl SequentialModel for RegisterModel {
    type Call = RegisterCall;
    type Outcome = RegisterOutcome;
    type State = Option<ValueId>;

    fn start(&self) -> Option<ValueId> {
        None
    }

    fn step(
        &self,
        state: &Option<ValueId>,
        call: &RegisterCall,
        outcome: Option<&RegisterOutcome>,
    ) -> Option<Option<ValueId>> {
        let (answer, after) = match *call {
            RegisterCall::Read => (RegisterOutcome::Holds(*state), *state),
            RegisterCall::Write(value) => (RegisterOutcome::Done, Some(value)),
            RegisterCall::CompareAndSet(from, to) if *state == Some(from) => (RegisterOutcome::Done, Some(to)),
            RegisterCall::CompareAndSet(..) => (RegisterOutcome::Mismatch, *state),
        };
        outcome.is_none_or(|outcome| *outcome == answer).then_some(after)
    }

    fn show(&self, state: &Option<ValueId>) -> String {
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
    use super::super::value_ids::UNREAD;
    use super::*;

    #[test]
    fn a_register_answers_as_registers_do() {
        let register = RegisterModel { values: ValueIds::read(["1", "2"].map(str::to_string)) };
        let [one, two] = ["1", "2"].map(|value| register.values.number(&value.to_string()));
        let step = |state, call, outcome: Option<RegisterOutcome>| register.step(&state, &call, outcome.as_ref());
        assert_eq!(step(None, RegisterCall::Read, Some(RegisterOutcome::Holds(None))), Some(None));
        assert_eq!(step(None, RegisterCall::Read, Some(RegisterOutcome::Holds(Some(one)))), None);
        assert_eq!(step(None, RegisterCall::Write(one), Some(RegisterOutcome::Done)), Some(Some(one)));
        let swap = RegisterCall::CompareAndSet(one, two);
        assert_eq!(step(Some(one), swap, Some(RegisterOutcome::Done)), Some(Some(two)));
        assert_eq!(step(Some(two), swap, Some(RegisterOutcome::Done)), None);
        assert_eq!(step(None, swap, Some(RegisterOutcome::Mismatch)), Some(None));
        assert_eq!(step(Some(one), swap, Some(RegisterOutcome::Mismatch)), None);
        assert_eq!((step(Some(one), swap, None), step(None, swap, None)), (Some(Some(two)), Some(None)));
        assert_eq!(register.show(&None), "is empty");
        assert_eq!(register.show(&Some(two)), "holds 2");
        assert!(register.show(&Some(UNREAD)).contains("nobody has read"));
    }
}
