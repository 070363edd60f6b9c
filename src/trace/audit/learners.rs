//! Learners: each applies the log in order, and all of them apply the same log to the same effect.

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

/// In each life a learner applies one slot after the other, from where it began.
fn check_order(case: &mut RunIndex<'_>) {
    for lines in case.by_server.clone().into_values() {
        let mut last = LearnerPosition::Unknown;
        let mut before: Option<&LineId> = None;
        for at in lines {
            let line = case.run.line(at);
            // A process begins with what is in its BOOT line; and where lines are missing it may have applied anything.
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
                        // A fast learner may have applied something before its process wrote what it began with.
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
                    // One that shows no steps does not tell what it applies.
                    let shows = steps.as_ref().is_none_or(|steps| steps.as_str() == Some("on"));
                    last = if shows { LearnerPosition::AtMost(applied) } else { LearnerPosition::Unknown };
                }
                _ => {}
            }
        }
    }
}

/// Where a learner stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LearnerPosition {
    Slot(Slot),
    AtMost(Slot),
    Unknown,
}

/// Everybody who applies a slot applies the same command, to the same effect.
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
        let says = format!("two learners apply slot {slot} to different effects");
        case.violated(Rule::Agreement, &[first, at], says);
    }
}

/// What is applied was chosen, and is the value that was chosen.
fn check_was_chosen(case: &mut RunIndex<'_>, slot: Slot, lines: &[usize]) {
    for at in lines.iter().copied().filter(|at| case.is_claim(*at)) {
        let Event::Learn { ballot, .. } = case.run.line(at).event else { continue };
        if !case.chosen.contains_key(&slot) {
            let says = format!("slot {slot} is applied, and was never chosen");
            return case.missing_anywhere(Rule::Majority, &[at], says);
        }
        match case.proposed(slot, ballot) {
            Some((proposal, value)) if LoggedValue::of(case.run.line(at)) != Some(value) => {
                let says = format!("slot {slot} is applied with another value than was chosen at {ballot}");
                return case.violated(Rule::Agreement, &[proposal, at], says);
            }
            Some(_) => {}
            None => {
                let says = format!("slot {slot} is applied with a value that nobody proposed at {ballot}");
                return case.missing(Rule::Agreement, ServerSet::only(ballot.server), &[at], says);
            }
        }
    }
}

/// Equal slots, equal states.
fn check_digests(case: &mut RunIndex<'_>) {
    let mut digests: BTreeMap<Slot, (Digest, usize)> = BTreeMap::new();
    for at in 0..case.run.lines.len() {
        let told = match case.run.line(at).event {
            Event::Boot { applied: Some(slot), digest: Some(digest), .. }
            | Event::Restart { applied: Some(slot), digest: Some(digest), .. }
            | Event::Stop { applied: Some(slot), digest: Some(digest), .. }
            | Event::Snapshot { slot, digest, .. }
            | Event::Digest { slot, digest, .. } => (slot, digest),
            _ => continue,
        };
        match digests.get(&told.0) {
            Some((digest, before)) if *digest != told.1 => {
                let says = format!("two replicas that have applied slot {} are in different states", told.0);
                case.violated(Rule::Apply, &[*before, at], says);
            }
            Some(_) => {}
            None => {
                digests.insert(told.0, (told.1, at));
            }
        }
    }
}

/// Each command has its effect in one slot; wherever else it stands it is known to be a repetition.
fn check_once(case: &mut RunIndex<'_>) {
    let mut effects: BTreeMap<CommandName, (Slot, usize)> = BTreeMap::new();
    for (slot, lines) in case.learns.clone() {
        let at = lines[0];
        let Event::Learn { id: Some(id), result, op, .. } = case.run.line(at).event else { continue };
        match result {
            // An OPEN that is repeated finds its session again.
            _ if op == OpKind::Open => {}
            LearnResult::Ok | LearnResult::NotFound | LearnResult::Mismatch => {
                if let Some((first, before)) = effects.insert(id, (slot, at)) {
                    let says = format!("one write has its effect twice: in slot {first} and in slot {slot}");
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

/// The versions of a key count its writes, and a condition on one holds.
fn check_versions(case: &mut RunIndex<'_>) {
    let mut versions = BTreeMap::new();
    let mut expected = Slot(1);
    for (slot, lines) in case.learns.clone() {
        if slot != expected {
            // What the missing slots did is unknown.
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
            let says = format!("the key of slot {slot} was at version {before}, and its result says otherwise");
            case.violated(Rule::Apply, &[at], says);
        }
        if *result == LearnResult::Ok {
            versions.insert(key.clone(), before + 1);
        }
    }
}
