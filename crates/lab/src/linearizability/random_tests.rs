//! Tests of the search against brute force, on many small random histories.

use std::time::{Duration, Instant};

use super::first_violation::first_violation;
use super::model::{HistoryOperation, OperationOf, SequentialModel};
use super::register_model::{self, RegisterModel};
use super::search::{DeadEnd, SearchLimits, SearchResult, search};
use super::value_ids::{UNREAD, ValueId, ValueIds};
use super::versioned_model::{self, InitialState, VersionedModel};
use paxos_kv::random::Random;
use paxos_kv::trace::QuotedText;

fn limits() -> SearchLimits {
    SearchLimits {
        deadline: Instant::now() + Duration::from_secs(60),
        now: Instant::now,
        memory_bytes: 1 << 28,
        steps: u64::MAX,
    }
}

/// Tries every order of every choice of pending operations, without the reductions of the search.
fn by_brute_force<M: SequentialModel>(model: &M, operations: &[OperationOf<M>]) -> bool {
    fn from<M: SequentialModel>(
        model: &M,
        operations: &[OperationOf<M>],
        left: &mut Vec<usize>,
        state: &M::State,
    ) -> bool {
        if left.iter().all(|index| operations[*index].returned.is_none()) {
            return true;
        }
        (0..left.len()).any(|at| {
            let index = left.swap_remove(at);
            let operation = &operations[index];
            // No remaining operation may have returned before this one was called.
            let in_time = left.iter().all(|other| operations[*other].until() >= operation.called);
            let explained = in_time
                && model
                    .step(state, &operation.call, operation.outcome())
                    .is_some_and(|after| from(model, operations, left, &after));
            left.push(index);
            let last = left.len() - 1;
            left.swap(at, last);
            explained
        })
    }
    from(model, operations, &mut (0..operations.len()).collect(), &model.start())
}

/// The state after an order, if the order explains everything that returned before `until`.
fn explained<M: SequentialModel>(
    model: &M,
    operations: &[OperationOf<M>],
    order: &[usize],
    until: u64,
) -> Option<M::State> {
    let mut state = model.start();
    for (at, index) in order.iter().enumerate() {
        state = model.step(&state, &operations[*index].call, operations[*index].outcome())?;
        let in_time = order[at + 1..].iter().all(|later| operations[*later].until() >= operations[*index].called);
        let once = !order[at + 1..].contains(index);
        (in_time && once).then_some(())?;
    }
    let all_there = (0..operations.len()).all(|index| operations[index].until() >= until || order.contains(&index));
    all_there.then_some(state)
}

/// Checks a history both ways and compares; true if it is linearizable.
fn agree<M: SequentialModel>(model: &M, operations: &[OperationOf<M>]) -> bool {
    let expected = by_brute_force(model, operations);
    match search(model, operations, limits()) {
        SearchResult::Order(order) => {
            assert!(expected, "no order explains {operations:#?}");
            assert!(explained(model, operations, &order, u64::MAX).is_some(), "{order:?} of {operations:#?}");
        }
        SearchResult::Stuck(stuck) => {
            assert!(!expected, "an order explains {operations:#?}");
            let until = operations[stuck.breaks].until();
            assert_eq!(explained(model, operations, &stuck.order, until), Some(stuck.state.clone()), "{operations:#?}");
            let called: Vec<_> = operations.iter().filter(|operation| operation.called <= until).cloned().collect();
            assert!(!by_brute_force(model, &called), "an order explains all up to {until} in {operations:#?}");
            is_first_break(model, operations, &first_violation(model, operations, stuck, limits()));
        }
        other => panic!("{other:?} for so few"),
    }
    expected
}

/// The history as known just after a return: operations that had not returned by then are pending.
fn up_to<M: SequentialModel>(operations: &[OperationOf<M>], last: (u64, usize)) -> Vec<OperationOf<M>> {
    let early = operations.iter().enumerate().filter(|(_, operation)| operation.called <= last.0);
    early
        .map(|(index, operation)| {
            let returned = operation.returned.clone().filter(|(moment, _)| (*moment, index) <= last);
            HistoryOperation { returned, ..operation.clone() }
        })
        .collect()
}

fn is_first_break<M: SequentialModel>(model: &M, operations: &[OperationOf<M>], stuck: &DeadEnd<M::State>) {
    let last = (operations[stuck.breaks].until(), stuck.breaks);
    assert!(!by_brute_force(model, &up_to::<M>(operations, last)), "{last:?} does not break {operations:#?}");
    let mut early = operations.to_vec();
    for (index, operation) in early.iter_mut().enumerate() {
        operation.returned.take_if(|(moment, _)| (*moment, index) >= last);
    }
    assert_eq!(explained(model, &early, &stuck.order, u64::MAX), Some(stuck.state.clone()), "{operations:#?}");
    for index in 0..operations.len() {
        let elsewhere = stuck.order.contains(&index) || index == stuck.breaks || operations[index].called > last.0;
        assert_ne!(stuck.open.contains(&index), elsewhere, "{index} of {operations:#?}");
    }
}

/// The random parts of a history.
trait RandomModel: SequentialModel {
    fn any_call(&self, random: &mut Random) -> Self::Call;
    fn any_outcome(&self, random: &mut Random, call: &Self::Call) -> Self::Outcome;
    /// The right result in this state.
    fn answer(&self, state: &Self::State, call: &Self::Call) -> Self::Outcome;
}

fn any_value(random: &mut Random, values: &[ValueId]) -> ValueId {
    values[random.within(0..=values.len() as u64 - 1) as usize]
}

impl RandomModel for RegisterModel {
    fn any_call(&self, random: &mut Random) -> register_model::RegisterCall {
        let values = ["0", "1"].map(|value| self.values.number(&value.to_string()));
        match random.within(0..=2) {
            0 => register_model::RegisterCall::Read,
            1 => register_model::RegisterCall::Write(any_value(random, &values)),
            _ => register_model::RegisterCall::CompareAndSet(any_value(random, &values), any_value(random, &values)),
        }
    }

    fn any_outcome(&self, random: &mut Random, call: &register_model::RegisterCall) -> register_model::RegisterOutcome {
        let values = ["0", "1"].map(|value| self.values.number(&value.to_string()));
        match (call, random.within(0..=2)) {
            (register_model::RegisterCall::Read, 0) => register_model::RegisterOutcome::Holds(None),
            (register_model::RegisterCall::Read, _) => {
                register_model::RegisterOutcome::Holds(Some(any_value(random, &values)))
            }
            (register_model::RegisterCall::CompareAndSet(..), 0) => register_model::RegisterOutcome::Mismatch,
            _ => register_model::RegisterOutcome::Done,
        }
    }

    fn answer(&self, state: &Option<ValueId>, call: &register_model::RegisterCall) -> register_model::RegisterOutcome {
        match call {
            register_model::RegisterCall::Read => register_model::RegisterOutcome::Holds(*state),
            register_model::RegisterCall::CompareAndSet(from, _) if *state != Some(*from) => {
                register_model::RegisterOutcome::Mismatch
            }
            register_model::RegisterCall::Write(_) | register_model::RegisterCall::CompareAndSet(..) => {
                register_model::RegisterOutcome::Done
            }
        }
    }
}

impl RandomModel for VersionedModel {
    fn any_call(&self, random: &mut Random) -> versioned_model::VersionedCall {
        let values = [self.values.number(&"a".into()), self.values.number(&"b".into()), UNREAD];
        match random.within(0..=4) {
            0 => versioned_model::VersionedCall::Get,
            1 => versioned_model::VersionedCall::Delete,
            2 => versioned_model::VersionedCall::Put {
                value: any_value(random, &values),
                if_version: Some(random.within(0..=2)),
            },
            _ => versioned_model::VersionedCall::Put { value: any_value(random, &values), if_version: None },
        }
    }

    fn any_outcome(
        &self,
        random: &mut Random,
        call: &versioned_model::VersionedCall,
    ) -> versioned_model::VersionedOutcome {
        let values = ["a", "b"].map(|value| self.values.number(&value.into()));
        let version = random.within(0..=3);
        match (call, random.within(0..=3)) {
            (versioned_model::VersionedCall::Get, 0) => versioned_model::VersionedOutcome::Holds(None, version),
            (versioned_model::VersionedCall::Get, _) => {
                versioned_model::VersionedOutcome::Holds(Some(any_value(random, &values)), version)
            }
            (versioned_model::VersionedCall::Delete, 0) => versioned_model::VersionedOutcome::NotFound(version),
            (versioned_model::VersionedCall::Put { if_version: Some(_), .. }, 0) => {
                versioned_model::VersionedOutcome::Mismatch(version)
            }
            _ => versioned_model::VersionedOutcome::Done(version),
        }
    }

    fn answer(
        &self,
        state: &versioned_model::VersionedState,
        call: &versioned_model::VersionedCall,
    ) -> versioned_model::VersionedOutcome {
        let version = state.version.expect("the store of a test begins empty");
        let versioned_model::KnownValue::Known(held) = state.held else { panic!("the store of a test begins empty") };
        match *call {
            versioned_model::VersionedCall::Get => versioned_model::VersionedOutcome::Holds(held, version),
            versioned_model::VersionedCall::Put { if_version: Some(wanted), .. } if wanted != version => {
                versioned_model::VersionedOutcome::Mismatch(version)
            }
            versioned_model::VersionedCall::Delete if held.is_none() => {
                versioned_model::VersionedOutcome::NotFound(version)
            }
            versioned_model::VersionedCall::Put { .. } | versioned_model::VersionedCall::Delete => {
                versioned_model::VersionedOutcome::Done(version + 1)
            }
        }
    }
}

/// Maximum number of operations: brute force tries the factorial of it.
const OPERATIONS_MAX: u64 = 6;

/// A history that is linearizable by construction. The operations take effect at moments drawn in order, each within a
/// random span around its moment. A pending operation may or may not have taken effect.
fn valid<M: RandomModel>(model: &M, random: &mut Random) -> Vec<OperationOf<M>> {
    let mut state = model.start();
    let mut operations = Vec::new();
    for at in 1..=random.within(1..=OPERATIONS_MAX) {
        let call = model.any_call(random);
        let outcome = model.answer(&state, &call);
        let after = model.step(&state, &call, Some(&outcome)).expect("the correct reply fits");
        let (moment, span) = (10 * at, random.within(0..=2) * 12 + 1);
        let called = moment.saturating_sub(random.within(0..=span));
        let pending = random.within(0..=4) == 0;
        if !pending || random.within(0..=1) == 0 {
            state = after;
        }
        let returned = (!pending).then(|| (moment + random.within(0..=span), outcome));
        operations.push(HistoryOperation { call, called, returned });
    }
    operations
}

/// A valid history with one random change.
fn mutated<M: RandomModel>(model: &M, random: &mut Random) -> Vec<OperationOf<M>> {
    let mut operations = valid(model, random);
    let victim = random.within(0..=operations.len() as u64 - 1) as usize;
    let operation = &mut operations[victim];
    match random.within(0..=3) {
        0 => operation.call = model.any_call(random),
        1 => operation.called = operation.called.min(random.within(0..=60)),
        _ => {
            let outcome = model.any_outcome(random, &operation.call);
            operation.returned = Some((operation.until().min(90).max(operation.called), outcome));
        }
    }
    operations
}

fn random_history<M: RandomModel>(model: &M, random: &mut Random) -> Vec<OperationOf<M>> {
    let mut operations = Vec::new();
    for _ in 0..random.within(1..=OPERATIONS_MAX) {
        let (call, called) = (model.any_call(random), random.within(0..=20));
        let outcome = model.any_outcome(random, &call);
        let returned = (random.within(0..=3) > 0).then(|| (called + random.within(0..=12), outcome));
        operations.push(HistoryOperation { call, called, returned });
    }
    operations
}

/// Number of histories of each kind for each model.
const HISTORIES: u64 = 60_000;

/// Checks many histories of each kind. Also checks that each kind with mixed results has enough of both verdicts.
fn agree_on_many<M: RandomModel>(model: &M) {
    let mut random = Random::new(17, 0);
    let mut right = [0; 3];
    for _ in 0..HISTORIES {
        let valid = agree(model, &valid(model, &mut random));
        assert!(valid, "linearizable by construction");
        right[0] += 1;
        right[1] += u64::from(agree(model, &mutated(model, &mut random)));
        right[2] += u64::from(agree(model, &random_history(model, &mut random)));
    }
    for right in &right[1..] {
        assert!((HISTORIES / 20..HISTORIES * 19 / 20).contains(right), "{right} of {HISTORIES} are linearizable");
    }
}

#[test]
fn the_search_agrees_with_brute_force_about_registers() {
    agree_on_many(&RegisterModel { values: ValueIds::read(["0", "1"].map(str::to_string)) });
}

#[test]
fn the_search_agrees_with_brute_force_about_versions() {
    agree_on_many(&VersionedModel {
        start: InitialState::Empty,
        values: ValueIds::read(["a", "b"].map(QuotedText::from)),
        strangers: false,
    });
}

#[test]
fn search_agrees_with_brute_force_about_histories_that_begin_in_the_middle() {
    let empty = VersionedModel {
        start: InitialState::Empty,
        values: ValueIds::read(["a", "b"].map(QuotedText::from)),
        strangers: false,
    };
    let model = VersionedModel { start: InitialState::Anything, ..empty.clone() };
    let mut random = Random::new(18, 0);
    for _ in 0..HISTORIES / 3 {
        assert!(
            agree(&model, &valid(&empty, &mut random)),
            "a history that begins empty is linearizable from any state"
        );
        agree(&model, &mutated(&empty, &mut random));
        agree(&model, &random_history(&empty, &mut random));
    }
}
