//! A role with its disk and timers, as one value that can be compared and hashed.

use std::mem::discriminant;

use paxos_kv::paxos::{CommandId, Slot, StateMachine, Value};
use paxos_kv::role::{Action, Input, Role, StableStore, turn};

/// A role, its disk and its timers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ModelRole<R: Role>
where
    R::Record: PartialEq + Eq + std::hash::Hash,
{
    pub(super) role: R,
    /// All records ever written.
    pub(super) disk: Vec<R::Record>,
    /// The armed timers; they may run out in any order.
    pub(super) timers: Vec<R::Timer>,
}

/// A disk in memory.
struct ModelDisk<'a, T>(&'a mut Vec<T>);

impl<T: Clone> StableStore<T> for ModelDisk<'_, T> {
    type Error = std::convert::Infallible;

    fn commit(&mut self, records: &[T]) -> Result<(), Self::Error> {
        self.0.extend_from_slice(records);
        Ok(())
    }
}

impl<R: Role> ModelRole<R>
where
    R::Record: PartialEq + Eq + std::hash::Hash,
{
    pub(super) fn new(role: R) -> ModelRole<R> {
        ModelRole { role, disk: Vec::new(), timers: Vec::new() }
    }

    /// Executes one turn. Arms the timers, and returns the other actions.
    pub(super) fn turn(&mut self, input: Input<R>) -> Vec<Action<R>> {
        let Ok(actions) = turn(&mut self.role, [((), input)], &mut ModelDisk(&mut self.disk), false);
        let mut others = Vec::new();
        for action in actions.into_iter().flat_map(|(_, actions)| actions) {
            match action {
                Action::Arm(timer) => {
                    self.timers.retain(|armed| discriminant(armed) != discriminant(&timer));
                    self.timers.push(timer);
                }
                other => others.push(other),
            }
        }
        self.timers.sort_by_key(|timer| format!("{timer:?}"));
        others
    }

    /// Restarts the role after a crash: `role` replays the records of the disk.
    pub(super) fn restart(&mut self, mut role: R) {
        self.disk.iter().for_each(|record| role.replay(record.clone()));
        (self.role, self.timers) = (role, Vec::new());
    }
}

/// A minimal state machine: a list of the applied values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ListMachine(Vec<Value>);

impl ListMachine {
    pub(super) fn applied(&self) -> impl Iterator<Item = (Slot, &Value)> {
        (1..).map(Slot).zip(&self.0)
    }
}

impl StateMachine for ListMachine {
    type Outcome = ();
    type Query = ();
    type Answer = ();
    type Changes = ();

    fn apply(&mut self, _slot: Slot, value: &Value) {
        self.0.push(value.clone());
    }

    fn query(&self, (): &()) {}

    fn digest(&self) -> u64 {
        0
    }

    fn size(&self) -> u64 {
        0
    }

    fn empty(&self) -> ListMachine {
        ListMachine::default()
    }

    fn load_chunk(&mut self, _part: &[u8]) -> Result<(), String> {
        Err("no snapshot is sent in a model".to_string())
    }

    fn take_delta(&mut self) {}

    fn delta_saved(&mut self) {}

    fn delta_failed(&mut self) {}

    fn result_of(&self, _id: CommandId) -> Option<()> {
        None
    }
}
