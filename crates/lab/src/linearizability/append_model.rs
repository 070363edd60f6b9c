//! The model of one key whose value grows, with get, put and append. A key that was never written reads as the empty
//! string.

use std::rc::Rc;

use super::model::SequentialModel;

/// An operation on the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AppendCall {
    /// Reads the value.
    Get,
    /// Sets this value.
    Put(Rc<str>),
    /// Appends this to the value.
    Append(Rc<str>),
}

/// The result of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AppendOutcome {
    /// The value read.
    Holds(Rc<str>),
    /// The write was done.
    Done,
}

/// The sequential model of the key.
#[derive(Clone, Copy, Debug, Default)]
pub struct AppendModel;

impl SequentialModel for AppendModel {
    type Call = AppendCall;
    type Outcome = AppendOutcome;
    type State = Rc<str>;

    fn start(&self) -> Rc<str> {
        "".into()
    }

    fn step(&self, state: &Rc<str>, call: &AppendCall, outcome: Option<&AppendOutcome>) -> Option<Rc<str>> {
        match (call, outcome) {
            (AppendCall::Get, Some(AppendOutcome::Holds(value))) => (value == state).then(|| state.clone()),
            (AppendCall::Get, None) => Some(state.clone()),
            (AppendCall::Put(value), Some(AppendOutcome::Done) | None) => Some(value.clone()),
            (AppendCall::Append(value), Some(AppendOutcome::Done) | None) => Some([&**state, &**value].concat().into()),
            // The result belongs to another kind of operation.
            (AppendCall::Get, Some(AppendOutcome::Done))
            | (AppendCall::Put(_) | AppendCall::Append(_), Some(AppendOutcome::Holds(_))) => None,
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
        let step = |state: &str, call, outcome: Option<AppendOutcome>| {
            AppendModel.step(&state.into(), &call, outcome.as_ref())
        };
        let holds = |value: &str| AppendOutcome::Holds(value.into());
        assert_eq!(step("a", AppendCall::Append("b".into()), Some(AppendOutcome::Done)).as_deref(), Some("ab"));
        assert_eq!(step("a", AppendCall::Append("b".into()), None).as_deref(), Some("ab"));
        assert_eq!(step("a", AppendCall::Put("b".into()), Some(AppendOutcome::Done)).as_deref(), Some("b"));
        assert_eq!(step("ab", AppendCall::Get, Some(holds("ab"))).as_deref(), Some("ab"));
        assert_eq!(step("ab", AppendCall::Get, Some(holds("a"))), None);
        assert_eq!(step("a", AppendCall::Get, Some(AppendOutcome::Done)), None);
        assert_eq!(step("a", AppendCall::Put("a".into()), Some(holds("a"))), None);
        assert_eq!(&*AppendModel.start(), "");
        assert_eq!(AppendModel.show(&"a\n".into()), r#"holds "a\n""#);
    }
}
