//! Seeded bugs that wrap a role: the role is unchanged, and its inputs and outputs are rewritten.
//!
//! All roles are stepped through [`step_all`](crate::role::step_all), which calls [`step`] and [`rewrite`] here. So the
//! simulator, the tests and real servers all have the same bug, and no protocol file contains it. The model checker has
//! the bugs of proposers and acceptors. Its learners run another state machine than [`Kv`], and have no bugs.

use std::any::Any;

use super::{Bug, on};
use crate::kv::Kv;
use crate::paxos::{Acceptor, Learner, Proposer};
use crate::role::{Action, Actions, Input, Output, Role};
use crate::two_phase_commit::{Coordinator, Participant};

/// The rewriting of one role's inputs and outputs. A role without bugs keeps the defaults, which change nothing.
pub(super) trait Wrapped: Role {
    /// The inputs that the role receives instead of this one: the same, another, several, or none. Outputs of the bug
    /// itself go to `out`.
    fn hears(&self, _bug: Bug, input: Input<Self>, _out: &mut Output<Self>) -> Vec<Input<Self>> {
        vec![input]
    }

    /// Changes the records of a batch before they become durable.
    fn remembers(_bug: Bug, _records: &mut Vec<Self::Record>) {}

    /// Changes the actions of a batch before they are released.
    fn says(&self, _bug: Bug, _actions: &mut Vec<Action<Self>>) {}
}

/// Calls a function for each role type that has bugs; at most one of them is the role at hand.
macro_rules! for_each_role {
    ($function:ident ( $($argument:expr),* )) => {
        $function::<Acceptor>($($argument),*);
        $function::<Proposer>($($argument),*);
        $function::<Learner<Kv>>($($argument),*);
        $function::<Participant>($($argument),*);
        $function::<Coordinator>($($argument),*);
    };
}

/// Steps a role, changed by the bug that is on.
pub fn step<R: Role>(role: &mut R, input: Input<R>, out: &mut Output<R>) {
    let Some(bug) = on() else { return role.step(input, out) };
    let mut input = Some(input);
    for_each_role!(step_as(bug, role, &mut input, out));
    if let Some(input) = input {
        role.step(input, out);
    }
}

/// Rewrites the records and actions of a batch, by the bug that is on.
#[expect(clippy::ptr_arg, reason = "a bug may leave records out")]
pub fn rewrite<C, R: Role>(role: &R, records: &mut Vec<R::Record>, actions: &mut Actions<C, R>) {
    let Some(bug) = on() else { return };
    for_each_role!(rewrite_records(bug, role, records));
    for (_, actions) in actions {
        for_each_role!(rewrite_actions(bug, role, actions));
    }
}

fn step_as<W: Wrapped>(bug: Bug, role: &mut dyn Any, input: &mut dyn Any, out: &mut dyn Any) {
    if let Some(role) = role.downcast_mut::<W>()
        && let Some(out) = out.downcast_mut()
        && let Some(input) = input.downcast_mut().and_then(Option::take)
    {
        for input in role.hears(bug, input, out) {
            role.step(input, out);
        }
    }
}

fn rewrite_records<W: Wrapped>(bug: Bug, role: &dyn Any, records: &mut dyn Any) {
    if role.is::<W>()
        && let Some(records) = records.downcast_mut()
    {
        W::remembers(bug, records);
    }
}

fn rewrite_actions<W: Wrapped>(bug: Bug, role: &dyn Any, actions: &mut dyn Any) {
    if let Some(role) = role.downcast_ref::<W>()
        && let Some(actions) = actions.downcast_mut()
    {
        role.says(bug, actions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::{AcceptorRecord, Ballot, Message, Slot};
    use crate::role::{ServerId, step_batch};
    use crate::seeded_bugs::switch;

    /// The records that an acceptor writes for its first promise.
    fn written(bug: Option<Bug>) -> Vec<AcceptorRecord> {
        switch(bug);
        let mut acceptor = Acceptor::new();
        let prepare = Message::Prepare { ballot: Ballot { round: 1, server: ServerId(2) }, from: Slot(1) };
        let stepped = step_batch(&mut acceptor, [((), Input::Message { from: ServerId(2), message: prepare })], false);
        switch(None);
        stepped.records().to_vec()
    }

    #[test]
    fn bug_changes_only_its_own_role() {
        let promised = [AcceptorRecord::Promised(Ballot { round: 1, server: ServerId(2) })];
        assert_eq!(written(None), promised);
        assert_eq!(written(Some(Bug::PromiseNotWritten)), []);
        assert_eq!(written(Some(Bug::RestartReusesBallots)), promised, "this bug belongs to the proposer");
    }
}
