//! One role alone, input by input: its records, its messages, and its running timers.

use super::tests::CommitDisk;
use crate::role::{Action, Input, Role, ServerId, ServerSet, step_batch};

/// A role without a cluster around it.
pub(super) struct RoleHarness<R: Role> {
    pub(super) role: R,
    /// The timers that it has started and that have not run out, oldest first.
    pub(super) running: Vec<R::Timer>,
}

/// The records and actions of one input.
pub(super) struct StepResult<R: Role> {
    pub(super) records: Vec<R::Record>,
    pub(super) sent: Vec<(ServerSet, R::Message)>,
    pub(super) outcomes: Vec<R::Notification>,
    pub(super) facts: Vec<R::TraceEvent>,
}

impl<R: Role> RoleHarness<R> {
    pub(super) fn new(role: R) -> RoleHarness<R> {
        RoleHarness { role, running: Vec::new() }
    }

    /// Takes one input. A running timer must not be started: it would start again, and under load never run out.
    pub(super) fn take(&mut self, input: Input<R>) -> StepResult<R> {
        let stepped = step_batch(&mut self.role, [((), input)], true);
        let records = stepped.records().to_vec();
        let mut said = StepResult { records, sent: Vec::new(), outcomes: Vec::new(), facts: Vec::new() };
        let Ok(released) = stepped.commit(&mut CommitDisk);
        for action in released.into_actions().into_iter().flat_map(|(_, actions)| actions) {
            match action {
                Action::Send { to, message } => said.sent.push((to, message)),
                Action::Notify(outcome) => said.outcomes.push(outcome),
                Action::Trace(trace_event) => said.facts.push(trace_event),
                Action::Arm(timer) => {
                    assert!(!self.running.contains(&timer), "{timer:?} runs already");
                    self.running.push(timer);
                }
            }
        }
        said
    }

    pub(super) fn hear(&mut self, from: u8, message: R::Message) -> StepResult<R> {
        self.take(Input::Message { from: ServerId(from), message })
    }

    /// Lets a running timer run out.
    pub(super) fn run_out(&mut self, timer: R::Timer) -> StepResult<R> {
        let at = self.running.iter().position(|one| *one == timer);
        self.running.remove(at.unwrap_or_else(|| panic!("{timer:?} does not run")));
        self.take(Input::Timeout(timer))
    }
}
