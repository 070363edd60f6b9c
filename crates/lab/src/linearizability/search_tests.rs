//! Tests of the search with hand-made histories and with long ones.

use std::time::{Duration, Instant};

use super::append_model::{self, AppendModel};
use super::first_violation::first_violation;
use super::model::{HistoryOperation, OperationOf, SequentialModel};
use super::register_model::{self, RegisterModel};
use super::search::{DeadEnd, SearchLimits, SearchResult, search, slow_clock};
use super::value_ids::{UNREAD, ValueIds};
use super::versioned_model::{
    self, InitialState, KnownValue, VersionedCall, VersionedModel, VersionedOutcome, VersionedState,
};
use paxos_kv::random::Random;
use paxos_kv::trace::QuotedText;

fn limits(time: Duration) -> SearchLimits {
    SearchLimits { deadline: Instant::now() + time, now: Instant::now, memory_bytes: 1 << 28, steps: u64::MAX }
}

fn found<M: SequentialModel>(model: &M, operations: &[OperationOf<M>]) -> SearchResult<M::State> {
    let limits = limits(Duration::from_secs(60));
    match search(model, operations, limits) {
        SearchResult::Stuck(stuck) => SearchResult::Stuck(first_violation(model, operations, stuck, limits)),
        other => other,
    }
}

/// An operation from one moment to another.
fn op<C, O>(called: u64, call: C, returned: u64, outcome: O) -> HistoryOperation<C, O> {
    HistoryOperation { call, called, returned: Some((returned, outcome)) }
}

fn pending<C, O>(called: u64, call: C) -> HistoryOperation<C, O> {
    HistoryOperation { call, called, returned: None }
}

/// A key of which the values `a` and `b` were read.
fn key() -> VersionedModel {
    VersionedModel {
        start: InitialState::Empty,
        values: ValueIds::read(["a", "b"].map(QuotedText::from)),
        strangers: false,
    }
}

fn put(value: &str) -> VersionedCall {
    VersionedCall::Put { value: key().values.number(&value.into()), if_version: None }
}

fn holds(value: &str, version: u64) -> VersionedOutcome {
    VersionedOutcome::Holds(Some(key().values.number(&value.into())), version)
}

#[test]
fn a_stale_read_is_the_operation_that_breaks() {
    let operations = [
        op(1, put("a"), 2, VersionedOutcome::Done(1)),
        op(3, put("b"), 6, VersionedOutcome::Done(2)),
        op(4, VersionedCall::Get, 5, holds("b", 2)),
        op(7, VersionedCall::Get, 8, holds("a", 1)),
        op(9, VersionedCall::Get, 10, holds("b", 2)),
    ];
    let b = key().values.number(&"b".into());
    let state = VersionedState { held: KnownValue::Known(Some(b)), version: Some(2) };
    let stuck = DeadEnd { order: vec![0, 1, 2], state, breaks: 3, open: vec![] };
    assert_eq!(found(&key(), &operations), SearchResult::Stuck(stuck));
}

#[test]
fn overlapping_operations_may_take_effect_in_any_order() {
    let operations = [
        op(1, put("a"), 9, VersionedOutcome::Done(2)),
        op(2, put("b"), 8, VersionedOutcome::Done(1)),
        op(3, VersionedCall::Get, 7, holds("b", 1)),
        op(4, VersionedCall::Get, 6, VersionedOutcome::Holds(None, 0)),
    ];
    assert_eq!(found(&key(), &operations), SearchResult::Order(vec![3, 1, 2, 0]));
    // One after the other they are not linearizable.
    let operations = [op(1, put("a"), 2, VersionedOutcome::Done(2)), op(3, put("b"), 4, VersionedOutcome::Done(1))];
    let SearchResult::Stuck(stuck) = found(&key(), &operations) else { panic!("version 2 came before version 1") };
    assert_eq!((stuck.order, stuck.breaks, stuck.open), (vec![], 0, vec![]));
}

#[test]
fn a_pending_write_may_take_effect_late_or_never() {
    let seen_late = [
        pending(1, put("a")),
        op(2, VersionedCall::Get, 3, VersionedOutcome::Holds(None, 0)),
        op(90, VersionedCall::Get, 91, holds("a", 1)),
        op(92, put("b"), 93, VersionedOutcome::Done(2)),
    ];
    assert_eq!(found(&key(), &seen_late), SearchResult::Order(vec![1, 0, 2, 3]));
    let never_seen = [pending(1, put("a")), op(90, put("b"), 91, VersionedOutcome::Done(1))];
    assert_eq!(found(&key(), &never_seen), SearchResult::Order(vec![1]));
    let seen_before_its_call = [op(1, VersionedCall::Get, 2, holds("a", 1)), pending(3, put("a"))];
    assert!(matches!(found(&key(), &seen_before_its_call), SearchResult::Stuck(DeadEnd { breaks: 0, .. })));
    let applied_twice = [
        pending(1, put("a")),
        op(2, VersionedCall::Get, 3, holds("a", 1)),
        op(4, put("b"), 5, VersionedOutcome::Done(2)),
        op(6, VersionedCall::Get, 7, holds("a", 3)),
    ];
    assert!(matches!(found(&key(), &applied_twice), SearchResult::Stuck(DeadEnd { breaks: 3, .. })));
}

#[test]
fn violation_names_operations_in_flight() {
    let operations = [
        op(1, put("a"), 2, VersionedOutcome::Done(1)),
        pending(3, put("b")),
        op(4, VersionedCall::Delete, 20, VersionedOutcome::Done(2)),
        op(5, VersionedCall::Get, 6, holds("a", 7)),
        op(7, put("a"), 8, VersionedOutcome::Done(3)),
    ];
    // Both the search and the search for the first violation return this.
    let rough = search(&key(), &operations, limits(Duration::from_secs(60)));
    for found in [rough, found(&key(), &operations)] {
        let SearchResult::Stuck(stuck) = found else { panic!("no write has made version 7") };
        assert_eq!((stuck.order, stuck.breaks, stuck.open), (vec![0], 3, vec![1, 2]));
    }
}

/// A register with pending writes, which come first in the history. Then comes a compare-and-set from value 0 to 1,
/// which ends late with a mismatch, although 0 is written and 1 is read meanwhile.
fn swap_in_vain(
    pending_writes: usize,
) -> (RegisterModel, Vec<HistoryOperation<register_model::RegisterCall, register_model::RegisterOutcome>>) {
    let model = RegisterModel { values: ValueIds::read((0..2 + pending_writes).map(|value| value.to_string())) };
    let number = |value: usize| model.values.number(&value.to_string());
    let mut operations: Vec<_> =
        (0..pending_writes).map(|n| pending(1, register_model::RegisterCall::Write(number(2 + n)))).collect();
    operations.extend([
        op(
            2,
            register_model::RegisterCall::CompareAndSet(number(0), number(1)),
            100,
            register_model::RegisterOutcome::Mismatch,
        ),
        op(3, register_model::RegisterCall::Write(number(0)), 4, register_model::RegisterOutcome::Done),
        op(5, register_model::RegisterCall::Read, 6, register_model::RegisterOutcome::Holds(Some(number(1)))),
    ]);
    (model, operations)
}

#[test]
fn a_violation_shows_no_pending_write_that_explains_nothing() {
    let (model, operations) = swap_in_vain(1);
    let state = Some(model.values.number(&"1".to_string()));
    // The read shows that the compare-and-set was done, so its mismatch is what breaks the history.
    let stuck = DeadEnd { order: vec![2, 1, 3], state, breaks: 1, open: vec![0] };
    assert_eq!(found(&model, &operations), SearchResult::Stuck(stuck));
}

#[test]
fn search_does_not_try_to_omit_each_of_very_many_pending_writes() {
    let (model, operations) = swap_in_vain(4_000);
    let rough = DeadEnd { order: vec![], state: None, breaks: 4_002, open: vec![] };
    let stuck = first_violation(&model, &operations, rough, limits(Duration::from_secs(60)));
    assert_eq!(stuck.breaks, 4_000);
    // Removing each of them needs a walk along the order.
    assert!((1_000..4_000).contains(&stuck.order.len()), "{}", stuck.order.len());
}

#[test]
fn empty_history_is_linearizable() {
    assert_eq!(found(&key(), &[]), SearchResult::Order(vec![]));
    assert_eq!(found(&key(), &[pending(1, put("a"))]), SearchResult::Order(vec![]));
}

/// Concurrent appends, and a read that fits no order of them: there are as many states as orders.
fn hard() -> Vec<HistoryOperation<append_model::AppendCall, append_model::AppendOutcome>> {
    let append = |n: u64| {
        op(1 + n, append_model::AppendCall::Append(format!("{n}").into()), 100 + n, append_model::AppendOutcome::Done)
    };
    let mut operations: Vec<_> = (0..20).map(append).collect();
    operations.push(op(200, append_model::AppendCall::Get, 201, append_model::AppendOutcome::Holds("x".into())));
    operations
}

#[test]
fn a_search_that_is_too_hard_ends_at_its_deadline_without_a_verdict() {
    let deadline = slow_clock() + Duration::from_millis(300);
    let limits = SearchLimits { deadline, now: slow_clock, ..limits(Duration::ZERO) };
    assert_eq!(search(&AppendModel, &hard(), limits), SearchResult::OutOfTime);
    assert_eq!(
        slow_clock(),
        deadline + Duration::from_millis(10),
        "it read the clock again after its deadline, or only at the deadline"
    );
}

#[test]
fn a_search_that_needs_too_much_memory_ends_without_a_verdict() {
    let limits = SearchLimits { memory_bytes: 1 << 20, ..limits(Duration::from_secs(60)) };
    assert_eq!(search(&AppendModel, &hard(), limits), SearchResult::OutOfMemory);
}

#[test]
fn search_takes_at_most_its_step_limit() {
    let operations: Vec<_> = (1..=10).map(|n| op(2 * n, put("a"), 2 * n + 1, VersionedOutcome::Done(n))).collect();
    let within = |steps| search(&key(), &operations, SearchLimits { steps, ..limits(Duration::from_secs(60)) });
    assert_eq!((within(10), within(9)), (SearchResult::Order((0..10).collect()), SearchResult::OutOfTime));
}

#[test]
fn configuration_size_estimate_is_close_to_its_memory() {
    // One operation after the other: as many configurations as operations.
    fn with_bytes_each<M: SequentialModel>(
        model: &M,
        call: M::Call,
        done: M::Outcome,
        bytes: usize,
    ) -> SearchResult<M::State> {
        let operations: Vec<_> = (1..=1_000).map(|n| op(2 * n, call.clone(), 2 * n + 1, done.clone())).collect();
        search(model, &operations, SearchLimits { memory_bytes: 1_000 * bytes, ..limits(Duration::from_secs(60)) })
    }
    let small = RegisterModel { values: ValueIds::read([]) };
    let of_small = |bytes| {
        with_bytes_each(
            &small,
            register_model::RegisterCall::Write(UNREAD),
            register_model::RegisterOutcome::Done,
            bytes,
        )
    };
    assert_eq!((of_small(50), of_small(70)), (SearchResult::OutOfMemory, SearchResult::Order((0..1_000).collect())));
    let put = append_model::AppendCall::Put("x".repeat(10_000).into());
    let of_large = |bytes| with_bytes_each(&AppendModel, put.clone(), append_model::AppendOutcome::Done, bytes);
    assert_eq!(
        (of_large(10_000), of_large(10_100)),
        (SearchResult::OutOfMemory, SearchResult::Order((0..1_000).collect()))
    );
}

/// Clients that put and get one key, one request at a time each. Some puts never end, and half of those are applied.
fn long(operations: usize, clients: usize, seed: u64) -> Vec<HistoryOperation<VersionedCall, VersionedOutcome>> {
    let mut random = Random::new(seed, 0);
    // When each client is free again: its next call must come later.
    let mut free = vec![0; clients];
    let (mut now, mut version, mut value) = (0, 0, None);
    let mut history = Vec::new();
    while history.len() < operations {
        let client = random.within(0..=clients as u64 - 1) as usize;
        // The operation takes effect now; it was called up to 40 moments before and returns up to 40 moments later.
        now = (now + random.within(1..=10)).max(free[client] + 1);
        let called = now.saturating_sub(random.within(0..=40)).max(free[client] + 1);
        let returned = now + random.within(0..=40);
        free[client] = returned;
        if random.within(0..=1) == 0 {
            history.push(op(called, VersionedCall::Get, returned, VersionedOutcome::Holds(value, version)));
            continue;
        }
        let new = if random.within(0..=1) == 0 { UNREAD } else { key().values.number(&"a".into()) };
        let call = VersionedCall::Put { value: new, if_version: None };
        let is_pending = random.within(0..=50) == 0;
        if !is_pending || random.within(0..=1) == 0 {
            (version, value) = (version + 1, Some(new));
        }
        history.push(if is_pending {
            pending(called, call)
        } else {
            op(called, call, returned, VersionedOutcome::Done(version))
        });
    }
    history
}

#[test]
fn long_histories_cost_at_most_a_thousand_steps_an_operation() {
    let within = |history: &[OperationOf<VersionedModel>]| {
        let limits = SearchLimits { steps: 1_000 * history.len() as u64, ..limits(Duration::from_secs(600)) };
        match search(&key(), history, limits) {
            SearchResult::Stuck(stuck) => SearchResult::Stuck(first_violation(&key(), history, stuck, limits)),
            other => other,
        }
    };
    for seed in 0..4 {
        let mut history = long(5_000, 20, seed);
        assert!(matches!(within(&history), SearchResult::Order(_)));
        // The same history, but one read near the end shows an older version.
        let stale = history.iter().rposition(|operation| operation.call == VersionedCall::Get).unwrap();
        if let Some((_, VersionedOutcome::Holds(_, version))) = &mut history[stale].returned {
            *version -= 300;
        }
        assert!(matches!(within(&history), SearchResult::Stuck(stuck) if stuck.breaks == stale));
    }
    assert!(matches!(within(&long(100_000, 20, 9)), SearchResult::Order(_)));
}

#[test]
fn pending_writes_of_unread_values_are_cheap() {
    let mut history: Vec<_> = (0..60).map(|n| pending(n, put("x"))).collect();
    history.push(op(100, put("a"), 101, VersionedOutcome::Done(31)));
    history.push(op(102, VersionedCall::Get, 103, holds("a", 31)));
    assert!(matches!(found(&key(), &history), SearchResult::Order(order) if order.len() == 32));
    history.push(op(104, VersionedCall::Get, 105, holds("b", 40)));
    assert!(matches!(found(&key(), &history), SearchResult::Stuck(DeadEnd { breaks: 62, .. })));
}

#[test]
fn a_failed_compare_and_set_is_evidence() {
    let model = RegisterModel { values: ValueIds::read(["1", "2"].map(str::to_string)) };
    let [one, two] = ["1", "2"].map(|value| model.values.number(&value.to_string()));
    let write = op(1, register_model::RegisterCall::Write(one), 2, register_model::RegisterOutcome::Done);
    let failed =
        op(3, register_model::RegisterCall::CompareAndSet(one, two), 4, register_model::RegisterOutcome::Mismatch);
    assert!(matches!(found(&model, &[write.clone(), failed.clone()]), SearchResult::Stuck(DeadEnd { breaks: 1, .. })));
    let meanwhile = pending(1, register_model::RegisterCall::Write(two));
    assert_eq!(found(&model, &[write, failed, meanwhile]), SearchResult::Order(vec![0, 2, 1]));
}

#[test]
#[should_panic(expected = "returns before it is called")]
fn operation_that_returns_before_its_call_is_an_error_of_the_caller() {
    let _ = found(&key(), &[op(5, VersionedCall::Get, 4, versioned_model::VersionedOutcome::Holds(None, 0))]);
}
