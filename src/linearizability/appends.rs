//! One key of a store whose values grow: get, put, append. A key that was never written reads as the empty string.

use std::rc::Rc;

use super::model::Model;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// The value.
    Get,
    /// To hold this value.
    Put(Rc<str>),
    /// To hold this behind what it holds.
    Append(Rc<str>),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It holds this.
    Holds(Rc<str>),
    /// Done.
    Done,
}

/// The key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Appends;

impl Model for Appends {
    type Call = Call;
    type Outcome = Outcome;
    type State = Rc<str>;

    fn start(&self) -> Rc<str> {
        "".into()
    }

    fn step(&self, state: &Rc<str>, call: &Call, outcome: Option<&Outcome>) -> Option<Rc<str>> {
        match (call, outcome) {
            (Call::Get, Some(Outcome::Holds(value))) => (value == state).then(|| state.clone()),
            (Call::Get, None) => Some(state.clone()),
            (Call::Put(value), Some(Outcome::Done) | None) => Some(value.clone()),
            (Call::Append(value), Some(Outcome::Done) | None) => Some([&**state, &**value].concat().into()),
            // An answer to another question.
            (Call::Get, Some(Outcome::Done)) | (Call::Put(_) | Call::Append(_), Some(Outcome::Holds(_))) => None,
        }
    }

    fn show(&self, state: &Rc<str>) -> String {
        format!("holds {:?}", &**state)
    }

    fn heap_bytes(state: &Rc<str>) -> usize {
        state.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_stands_behind_what_is_there() {
        let step = |state: &str, call, outcome: Option<Outcome>| Appends.step(&state.into(), &call, outcome.as_ref());
        let holds = |value: &str| Outcome::Holds(value.into());
        assert_eq!(step("a", Call::Append("b".into()), Some(Outcome::Done)).as_deref(), Some("ab"));
        assert_eq!(step("a", Call::Append("b".into()), None).as_deref(), Some("ab"));
        assert_eq!(step("a", Call::Put("b".into()), Some(Outcome::Done)).as_deref(), Some("b"));
        assert_eq!(step("ab", Call::Get, Some(holds("ab"))).as_deref(), Some("ab"));
        assert_eq!(step("ab", Call::Get, Some(holds("a"))), None);
        assert_eq!(step("a", Call::Get, Some(Outcome::Done)), None);
        assert_eq!(step("a", Call::Put("a".into()), Some(holds("a"))), None);
        assert_eq!(&*Appends.start(), "");
        assert_eq!(Appends.show(&"a\n".into()), r#"holds "a\n""#);
    }
}
