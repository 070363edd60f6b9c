//! Truncated, corrupt and repaired slots of an acceptor.

use super::*;
use crate::paxos::{Command, CommandId};
use crate::role::{Action, step_batch};

fn ballot(round: u64) -> Ballot {
    Ballot { round, server: ServerId(1) }
}

fn value(number: u64) -> Value {
    Value::Command(Command { id: CommandId::new(1, 0, number), payload: [].into() })
}

fn entry(slot: u64, round: u64) -> Entry {
    Entry { slot: Slot(slot), ballot: ballot(round), value: value(slot) }
}

fn range(first: u64, last: u64) -> SlotRange {
    SlotRange { first: Slot(first), last: Slot(last) }
}

/// An acceptor with these records, whose disk has lost the slots 3 to 5.
fn corrupt() -> Acceptor {
    let mut acceptor = Acceptor::new();
    for slot in [1, 2, 6] {
        acceptor.replay(AcceptorRecord::Accepted(entry(slot, 4)));
    }
    acceptor.replay(AcceptorRecord::Corrupt(range(3, 5)));
    acceptor
}

/// The records that one input makes durable, and the slots for which the acceptor then needs repair.
fn step(acceptor: &mut Acceptor, input: Input<Acceptor>) -> (Vec<AcceptorRecord>, Option<Vec<SlotRange>>) {
    let stepped = step_batch(acceptor, [((), input)], true);
    let records = stepped.records().to_vec();
    let mut disk = Remembering;
    let Ok(released) = stepped.commit(&mut disk);
    let actions = released.into_actions().into_iter().flat_map(|(_, actions)| actions);
    let asked = actions.filter_map(|action| match action {
        Action::Notify(AcceptorNotification::Corrupt { slots }) => Some(slots),
        _ => None,
    });
    (records, asked.last())
}

/// Stable storage on which every commit succeeds.
struct Remembering;

impl crate::role::StableStore<AcceptorRecord> for Remembering {
    type Error = std::convert::Infallible;

    fn commit(&mut self, _: &[AcceptorRecord]) -> Result<(), Self::Error> {
        Ok(())
    }
}

fn truncate(below: u64) -> Input<Acceptor> {
    Input::Request(AcceptorRequest::Truncate { below: Slot(below) })
}

fn slots(acceptor: &Acceptor) -> Vec<u64> {
    acceptor.accepted().keys().map(|slot| slot.0).collect()
}

#[test]
fn acceptor_truncates_forward_only_and_records_it() {
    let mut acceptor = corrupt();
    let (records, asked) = step(&mut acceptor, truncate(5));
    assert_eq!(records, [AcceptorRecord::Truncated(Slot(5))]);
    assert_eq!((slots(&acceptor), acceptor.corrupt()), (vec![6], &[range(5, 5)][..]));
    assert_eq!(asked, Some(vec![range(5, 5)]), "what is left of the damage still needs help");
    for again in [5, 4, 1] {
        assert_eq!(step(&mut acceptor, truncate(again)).0, []);
        assert_eq!(acceptor.truncated_below(), Slot(5));
    }
    let (_, asked) = step(&mut acceptor, truncate(6));
    assert_eq!((asked, acceptor.corrupt(), slots(&acceptor)), (None, &[][..], vec![6]));
}

#[test]
fn corrupt_slots_are_repaired_and_readable_ones_are_left_unchanged() {
    let mut acceptor = corrupt();
    let mended = |slot, round| AcceptorRecord::Repaired(entry(slot, round));
    let entries = vec![entry(2, 9), entry(4, 2), entry(6, 9)];
    let (records, _) = step(&mut acceptor, Input::Request(AcceptorRequest::Repair { entries }));
    assert_eq!(records, [mended(4, 2)]);
    assert_eq!(acceptor.corrupt(), [range(3, 3), range(5, 5)]);
    assert_eq!(acceptor.accepted()[&Slot(4)], (ballot(2), value(4)));
    assert_eq!((acceptor.promised(), acceptor.accepted()[&Slot(2)].0), (ballot(4), ballot(4)));
}

#[test]
fn repaired_slot_holds_the_value_of_the_higher_ballot() {
    let other = |round| Entry { value: value(77), ..entry(2, round) };
    for (round, held) in [(3, value(2)), (4, value(2)), (5, value(77))] {
        let mut acceptor = corrupt();
        // An older record of the slot is readable and a newer one is not.
        acceptor.replay(AcceptorRecord::Corrupt(range(2, 2)));
        acceptor.replay(AcceptorRecord::Repaired(other(round)));
        assert_eq!(acceptor.accepted()[&Slot(2)].1, held, "repaired at {round}, read at 4");
        assert_eq!(acceptor.corrupt(), [range(3, 5)]);
    }
}

#[test]
fn accept_at_the_edge_of_a_corrupt_range_repairs_only_that_slot() {
    for (slot, left) in [(3, vec![range(4, 5)]), (4, vec![range(3, 3), range(5, 5)]), (5, vec![range(3, 4)])] {
        let mut acceptor = corrupt();
        let accept = Message::Accept { ballot: ballot(4), first: Slot(slot), values: vec![value(slot)] };
        step(&mut acceptor, Input::Message { from: ServerId(1), message: accept });
        assert_eq!(acceptor.corrupt(), left);
    }
}

#[test]
fn incarnation_starts_by_reporting_truncation_and_corruption() {
    let told = |acceptor: &mut Acceptor| {
        let stepped = step_batch(acceptor, [((), Input::Start)], true);
        let Ok(released) = stepped.commit(&mut Remembering);
        let actions = released.into_actions().into_iter().flat_map(|(_, actions)| actions);
        let facts =
            actions.filter_map(|action| if let Action::Trace(trace_event) = action { Some(trace_event) } else { None });
        facts.collect::<Vec<_>>()
    };
    assert_eq!(told(&mut Acceptor::new()), []);
    let mut acceptor = corrupt();
    assert_eq!(told(&mut acceptor), [AcceptorTraceEvent::Corrupt { slots: range(3, 5) }]);
    acceptor.replay(AcceptorRecord::Truncated(Slot(2)));
    let truncated = AcceptorTraceEvent::Truncated { below: Slot(2) };
    assert_eq!(told(&mut acceptor), [truncated, AcceptorTraceEvent::Corrupt { slots: range(3, 5) }]);
}

#[test]
fn accept_below_the_truncation_gets_truncated_and_above_is_accepted() {
    let mut acceptor = corrupt();
    step(&mut acceptor, truncate(6));
    let accept = Message::Accept { ballot: ballot(5), first: Slot(4), values: (4..=8).map(value).collect() };
    let (records, _) = step(&mut acceptor, Input::Message { from: ServerId(1), message: accept });
    assert_eq!(records, (6..=8).map(|slot| AcceptorRecord::Accepted(entry(slot, 5))).collect::<Vec<_>>());
    assert_eq!(slots(&acceptor), [6, 7, 8]);
}

/// The acceptor's pages from this slot on: the slots of each page, and the slot where it ends.
fn pages(acceptor: &Acceptor, mut from: Slot) -> Vec<(Vec<u64>, Option<u64>)> {
    let mut pages = Vec::new();
    loop {
        let page = acceptor.page(from);
        assert_eq!(page.from, from);
        pages.push((page.accepted.iter().map(|entry| entry.slot.0).collect(), page.end.map(|to| to.0)));
        match page.end {
            Some(to) => from = to,
            None => return pages,
        }
    }
}

#[test]
fn pages_are_as_large_as_allowed_and_report_everything() {
    let sized = |slot: u64, bytes: usize| {
        let command = Command { id: CommandId::new(1, 0, slot), payload: vec![0; bytes].into() };
        AcceptorRecord::Accepted(Entry { slot: Slot(slot), ballot: ballot(1), value: Value::Command(command) })
    };
    let own = ENTRY_OVERHEAD_BYTES
        + Value::Command(Command { id: CommandId::new(1, 0, 1), payload: Vec::new().into() }).size();
    let of = |sizes: &[usize]| {
        let mut acceptor = Acceptor::new().with_page_bytes(1_000);
        (1..).zip(sizes).for_each(|(slot, bytes)| acceptor.replay(sized(slot, *bytes)));
        pages(&acceptor, Slot(1))
    };
    assert_eq!(of(&[]), [(vec![], None)]);
    assert_eq!(of(&[500 - own, 500 - own, 0]), [(vec![1, 2], Some(3)), (vec![3], None)]);
    assert_eq!(of(&[500 - own, 501 - own]), [(vec![1], Some(2)), (vec![2], None)]);
    assert_eq!(of(&[2_000, 1, 2_000]).len(), 3, "a larger one is alone in its page");
}

#[test]
fn page_reports_the_corrupt_slots_in_its_range_up_to_a_limit() {
    let mut acceptor = Acceptor::new();
    let runs = PAGE_CORRUPT_MAX as u64 + 5;
    (1..=runs).for_each(|run| acceptor.replay(AcceptorRecord::Corrupt(SlotRange::only(Slot(2 * run)))));
    let first = acceptor.page(Slot(1));
    assert_eq!((first.corrupt.len(), first.end), (PAGE_CORRUPT_MAX, Some(Slot(2 * PAGE_CORRUPT_MAX as u64 + 2))));
    let second = acceptor.page(first.end.unwrap());
    assert_eq!((second.corrupt.len(), second.end), (5, None));

    let mut acceptor = Acceptor::new().with_page_bytes(1);
    let accepted = |slot| AcceptorRecord::Accepted(Entry { slot: Slot(slot), ballot: ballot(1), value: value(1) });
    [1, 9].map(accepted).into_iter().for_each(|record| acceptor.replay(record));
    acceptor.replay(AcceptorRecord::Corrupt(SlotRange { first: Slot(5), last: Slot(20) }));
    let page = acceptor.page(Slot(1));
    assert_eq!((page.end, page.corrupt), (Some(Slot(9)), vec![SlotRange { first: Slot(5), last: Slot(8) }]));
}

#[test]
fn nothing_is_accepted_after_the_last_slot() {
    let mut acceptor = Acceptor::new();
    let message = Message::Accept { ballot: ballot(1), first: Slot::LAST, values: vec![value(1), value(2)] };
    let (records, _) = step(&mut acceptor, Input::Message { from: ServerId(1), message });
    let kept = Entry { slot: Slot::LAST, ballot: ballot(1), value: value(1) };
    assert_eq!(records, [AcceptorRecord::Accepted(kept)]);
    for record in &records {
        let again: AcceptorRecord = crate::codec::decode(&crate::codec::encode(record)).unwrap();
        assert_eq!(again, *record, "its disk can give it back");
    }
    // The acceptor still answers READ and PREPARE.
    let mut actions =
        step(&mut acceptor, Input::Message { from: ServerId(2), message: Message::Read { id: u128::MAX } });
    assert_eq!(actions, (vec![], None));
    let prepare = Message::Prepare { ballot: ballot(Ballot::LAST_ROUND), from: Slot::LAST };
    actions = step(&mut acceptor, Input::Message { from: ServerId(1), message: prepare });
    assert_eq!(actions.0, [AcceptorRecord::Promised(ballot(Ballot::LAST_ROUND))]);
}
