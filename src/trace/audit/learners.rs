//! Learner check: each learner applies the log in order, and all of them apply the same log with the same results.

use std::collections::BTreeMap;

use super::super::event::Event;
use super::super::field::Digest;
use super::super::line::{LineId, Speaker};
use super::super::values::{CommandName, LearnResult, OpKind};
use super::index::LoggedValue;
use super::{Rule, RunIndex};
use crate::paxos::Slot;
use crate::role::ServerSet;

pub(super) fn check(case: &mut RunIndex<'_>) {
    check_order(case);
    for (slot, lines) in case.learns.clone() {
        case.counts.applied += lines.len();
        check_same(case, slot, &lines);
        check_was_chosen(case, slot, &lines);
    }
    check_digests(case);
    check_once(case);
    check_versions(case);
}

/// In each incarnation a learner applies one slot after the other, from its start position.
fn check_order(case: &mut RunIndex<'_>) {
    for lines in case.by_server.clone().into_values() {
        let mut last = LearnerPosition::Unknown;
        let mut before: Option<&LineId> = None;
        for at in lines {
            let line = case.run.line(at);
            // A process starts with the state in its BOOT line. Where lines are missing, the learner may have applied
            // any slots.
            let follows = before
                .is_some_and(|before| before.process == line.id.process && before.n.checked_add(1) == Some(line.id.n));
            if !follows || matches!(line.event, Event::Lost { .. }) {
                last = LearnerPosition::Unknown;
            }
            before = Some(&line.id);
            match line.event {
                Event::Learn { slot, applied, .. } => {
                    let follows = match last {
                        LearnerPosition::Slot(before) => slot == before.next(),
                        // A fast learner may have applied slots before its process wrote the BOOT line with its start
                        // position.
                        LearnerPosition::AtMost(before) => slot <= before.next(),
                        LearnerPosition::Unknown => true,
                    };
                    if !follows || applied != slot {
                        let says = format!("{} applies slot {slot} out of order", line.id.process);
                        case.violated(Rule::Apply, &[at], says);
                    }
                    last = LearnerPosition::Slot(slot);
                }
                Event::Restart { applied: Some(applied), .. } => last = LearnerPosition::Slot(applied),
                Event::Snapshot { slot, .. } if line.role == Speaker::Learner => last = LearnerPosition::Slot(slot),
                Event::Boot { applied: Some(applied), ref steps, .. } if last == LearnerPosition::Unknown => {
                    // A process that records no steps does not show what it applies.
                    let shows = steps.as_ref().is_none_or(|steps| steps.as_str() == Some("on"));
                    last = if shows { LearnerPosition::AtMost(applied) } else { LearnerPosition::Unknown };
                }
                _ => {}
            }
        }
    }
}

/// A learner's position in the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LearnerPosition {
    Slot(Slot),
    AtMost(Slot),
    Unknown,
}

/// All learners apply the same command in a slot, with the same result.
fn check_same(case: &mut RunIndex<'_>, slot: Slot, lines: &[usize]) {
    let effect = |at: usize| match case.run.line(at).event {
        Event::Learn { id, result, version, session, .. } => Some((id, result, version, session)),
        _ => None,
    };
    let first = lines[0];
    let other = |differs: &dyn Fn(usize) -> bool| lines.iter().copied().find(|at| differs(*at));
    let value = |at: usize| LoggedValue::of(case.run.line(at));
    if let Some(at) = other(&|at| value(at) != value(first)) {
        case.violated(Rule::Agreement, &[first, at], format!("two learners apply different commands in slot {slot}"));
    } else if let Some(at) = other(&|at| effect(at) != effect(first)) {
        let says = format!("two learners apply slot {slot} with different effects");
        case.violated(Rule::Agreement, &[first, at], says);
    }
}

/// The applied value was chosen.
fn check_was_chosen(case: &mut RunIndex<'_>, slot: Slot, lines: &[usize]) {
    for at in lines.iter().copied().filter(|at| case.is_claim(*at)) {
        let Event::Learn { ballot, .. } = case.run.line(at).event else { continue };
        if !case.chosen.contains_key(&slot) {
            let says = format!("slot {slot} is applied, but was never chosen");
            return case.missing_anywhere(Rule::Majority, &[at], says);
        }
        match case.proposed(slot, ballot) {
            Some((proposal, value)) if LoggedValue::of(case.run.line(at)) != Some(value) => {
                let says = format!("slot {slot} is applied with another value than was chosen at {ballot}");
                return case.violated(Rule::Agreement, &[proposal, at], says);
            }
            Some(_) => {}
            None => {
                let says = format!("slot {slot} is applied with a value that no server proposed at {ballot}");
                return case.missing(Rule::Agreement, ServerSet::only(ballot.server), &[at], says);
            }
        }
    }
}

/// Replicas that have applied the same slots have the same state.
fn check_digests(case: &mut RunIndex<'_>) {
    let mut digests: BTreeMap<Slot, (Digest, usize)> = BTreeMap::new();
    for at in 0..case.run.lines.len() {
        let slot_digest = match case.run.line(at).event {
            Event::Boot { applied: Some(slot), digest: Some(digest), .. }
            | Event::Restart { applied: Some(slot), digest: Some(digest), .. }
            | Event::Stop { applied: Some(slot), digest: Some(digest), .. }
            | Event::Snapshot { slot, digest, .. }
            | Event::Digest { slot, digest, .. } => (slot, digest),
            _ => continue,
        };
        match digests.get(&slot_digest.0) {
            Some((digest, before)) if *digest != slot_digest.1 => {
                let says = format!("two replicas that have applied slot {} are in different states", slot_digest.0);
                case.violated(Rule::Apply, &[*before, at], says);
            }
            Some(_) => {}
            None => {
                digests.insert(slot_digest.0, (slot_digest.1, at));
            }
        }
    }
}

/// Each command takes effect in one slot; in any other slot it is a duplicate.
fn check_once(case: &mut RunIndex<'_>) {
    let mut effects: BTreeMap<CommandName, (Slot, usize)> = BTreeMap::new();
    for (slot, lines) in case.learns.clone() {
        let at = lines[0];
        let Event::Learn { id: Some(id), result, op, .. } = case.run.line(at).event else { continue };
        match result {
            // A repeated OPEN finds its session again.
            _ if op == OpKind::Open => {}
            LearnResult::Ok | LearnResult::NotFound | LearnResult::Mismatch => {
                if let Some((first, before)) = effects.insert(id, (slot, at)) {
                    let says = format!("one write takes effect twice: in slot {first} and in slot {slot}");
                    case.violated(Rule::Once, &[before, at], says);
                }
            }
            LearnResult::Duplicate { first } => {
                if effects.get(&id).is_none_or(|(effect, _)| *effect != first) && case.learns.contains_key(&first) {
                    let says = format!("slot {slot} repeats a write that slot {first} does not hold");
                    case.violated(Rule::Once, &[at], says);
                }
            }
            LearnResult::Superseded
            | LearnResult::Expired
            | LearnResult::Noop
            | LearnResult::Opened
            | LearnResult::Unreadable => {}
        }
    }
}

/// The versions of a key count its writes, and a condition on a version holds.
fn check_versions(case: &mut RunIndex<'_>) {
    let mut versions = BTreeMap::new();
    let mut expected = Slot(1);
    for (slot, lines) in case.learns.clone() {
        if slot != expected {
            // The effects of the missing slots are unknown.
            return;
        }
        expected = slot.next();
        let at = lines[0];
        let Event::Learn { key: Some(key), result, version, if_version, .. } = &case.run.line(at).event else {
            continue;
        };
        let before = versions.get(key).copied().unwrap_or(0);
        let right = match result {
            LearnResult::Ok => *version == Some(before + 1) && if_version.is_none_or(|wanted| wanted == before),
            LearnResult::NotFound => *version == Some(before),
            LearnResult::Mismatch => *version == Some(before) && if_version.is_some_and(|wanted| wanted != before),
            _ => continue,
        };
        if !right {
            let says = format!("the key of slot {slot} was at version {before}, but the result contradicts that");
            case.violated(Rule::Apply, &[at], says);
        }
        if *result == LearnResult::Ok {
            versions.insert(key.clone(), before + 1);
        }
    }
}
