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

pub(super) fn check(index: &mut RunIndex<'_>) {
    check_order(index);
    for (slot, lines) in index.learns.clone() {
        index.counts.applied += lines.len();
        check_same(index, slot, &lines);
        check_was_chosen(index, slot, &lines);
    }
    check_digests(index);
    check_once(index);
    check_versions(index);
}

/// In each incarnation a learner applies one slot after the other, from its start position.
fn check_order(index: &mut RunIndex<'_>) {
    for lines in index.by_server.clone().into_values() {
        let mut last = LearnerPosition::Unknown;
        let mut before: Option<&LineId> = None;
        for at in lines {
            let line = index.run.line(at);
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
                        let message = format!("{} applies slot {slot} out of order", line.id.process);
                        index.violated(Rule::Apply, &[at], message);
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
fn check_same(index: &mut RunIndex<'_>, slot: Slot, lines: &[usize]) {
    let effect = |at: usize| match index.run.line(at).event {
        Event::Learn { id, result, version, session, .. } => Some((id, result, version, session)),
        _ => None,
    };
    let first = lines[0];
    let other = |differs: &dyn Fn(usize) -> bool| lines.iter().copied().find(|at| differs(*at));
    let value = |at: usize| LoggedValue::of(index.run.line(at));
    if let Some(at) = other(&|at| value(at) != value(first)) {
        index.violated(Rule::Agreement, &[first, at], format!("two learners apply different commands in slot {slot}"));
    } else if let Some(at) = other(&|at| effect(at) != effect(first)) {
        let message = format!("two learners apply slot {slot} with different effects");
        index.violated(Rule::Agreement, &[first, at], message);
    }
}

/// The applied value was chosen.
fn check_was_chosen(index: &mut RunIndex<'_>, slot: Slot, lines: &[usize]) {
    for at in lines.iter().copied().filter(|at| index.is_claim(*at)) {
        let Event::Learn { ballot, .. } = index.run.line(at).event else { continue };
        if !index.chosen.contains_key(&slot) {
            let message = format!("slot {slot} is applied, but was never chosen");
            return index.missing_anywhere(Rule::Majority, &[at], message);
        }
        match index.proposed(slot, ballot) {
            Some((proposal, value)) if LoggedValue::of(index.run.line(at)) != Some(value) => {
                let message = format!("slot {slot} is applied with another value than was chosen at {ballot}");
                return index.violated(Rule::Agreement, &[proposal, at], message);
            }
            Some(_) => {}
            None => {
                let message = format!("slot {slot} is applied with a value that no server proposed at {ballot}");
                return index.missing(Rule::Agreement, ServerSet::only(ballot.server), &[at], message);
            }
        }
    }
}

/// Replicas that have applied the same slots have the same state.
fn check_digests(index: &mut RunIndex<'_>) {
    let mut digests: BTreeMap<Slot, (Digest, usize)> = BTreeMap::new();
    for at in 0..index.run.lines.len() {
        let slot_digest = match index.run.line(at).event {
            Event::Boot { applied: Some(slot), digest: Some(digest), .. }
            | Event::Restart { applied: Some(slot), digest: Some(digest), .. }
            | Event::Stop { applied: Some(slot), digest: Some(digest), .. }
            | Event::Snapshot { slot, digest, .. }
            | Event::Digest { slot, digest, .. } => (slot, digest),
            _ => continue,
        };
        match digests.get(&slot_digest.0) {
            Some((digest, before)) if *digest != slot_digest.1 => {
                let message = format!("two replicas that have applied slot {} are in different states", slot_digest.0);
                index.violated(Rule::Apply, &[*before, at], message);
            }
            Some(_) => {}
            None => {
                digests.insert(slot_digest.0, (slot_digest.1, at));
            }
        }
    }
}

/// Each command takes effect in one slot; in any other slot it is a duplicate.
fn check_once(index: &mut RunIndex<'_>) {
    let mut effects: BTreeMap<CommandName, (Slot, usize)> = BTreeMap::new();
    for (slot, lines) in index.learns.clone() {
        let at = lines[0];
        let Event::Learn { id: Some(id), result, op, .. } = index.run.line(at).event else { continue };
        match result {
            // A repeated OPEN finds its session again.
            _ if op == OpKind::Open => {}
            LearnResult::Ok | LearnResult::NotFound | LearnResult::Mismatch => {
                if let Some((first, before)) = effects.insert(id, (slot, at)) {
                    let message = format!("one write takes effect twice: in slot {first} and in slot {slot}");
                    index.violated(Rule::Once, &[before, at], message);
                }
            }
            LearnResult::Duplicate { first } => {
                if effects.get(&id).is_none_or(|(effect, _)| *effect != first) && index.learns.contains_key(&first) {
                    let message = format!("slot {slot} repeats a write that slot {first} does not hold");
                    index.violated(Rule::Once, &[at], message);
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
fn check_versions(index: &mut RunIndex<'_>) {
    let mut versions = BTreeMap::new();
    let mut expected = Slot(1);
    for (slot, lines) in index.learns.clone() {
        if slot != expected {
            // The effects of the missing slots are unknown.
            return;
        }
        expected = slot.next();
        let at = lines[0];
        let Event::Learn { key: Some(key), result, version, if_version, .. } = &index.run.line(at).event else {
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
            let message = format!("the key of slot {slot} was at version {before}, but the result contradicts that");
            index.violated(Rule::Apply, &[at], message);
        }
        if *result == LearnResult::Ok {
            versions.insert(key.clone(), before + 1);
        }
    }
}
