//! Proposal check: what a proposer may propose, and what a majority has accepted.

use std::collections::BTreeMap;

use super::super::event::Event;
use super::super::field::SlotFrom;
use super::acceptors::{PromiseContents, SlotReport};
use super::index::LoggedValue;
use super::{Rule, RunIndex};
use crate::paxos::{Ballot, Slot};
use crate::role::ServerSet;

pub(super) fn check(index: &mut RunIndex<'_>) {
    check_owners(index);
    check_one_value(index);
    let accepts: Vec<usize> = index.accepts.values().flatten().copied().collect();
    for at in accepts {
        if index.is_claim(at) {
            index.counts.proposals += 1;
            check_safe_value(index, at);
        }
    }
    check_chosen(index);
}

/// A ballot has one owner, whose server is part of it, and one first slot. A later incarnation never uses it again.
fn check_owners(index: &mut RunIndex<'_>) {
    for at in 0..index.run.lines.len() {
        let line = index.run.line(at);
        let (Event::Prepare { ballot, .. } | Event::Accept { ballot, .. } | Event::Chosen { ballot, .. }) = line.event
        else {
            continue;
        };
        if line.id.process.as_server() != Some(ballot.server) {
            let message = format!("{} uses ballot {ballot}, which belongs to {}", line.id.process, ballot.server);
            index.violated(Rule::Ballot, &[at], message);
        }
    }
    for (ballot, lines) in index.prepares.clone() {
        let beginning = |at: usize| match index.run.line(at).event {
            Event::Prepare { slot: SlotFrom(slot), .. } => (index.run.line(at).id.process.clone(), slot),
            _ => unreachable!("prepares are PREPARE lines"),
        };
        if lines.iter().any(|at| beginning(*at) != beginning(lines[0])) {
            index.violated(Rule::Ballot, &lines, format!("ballot {ballot} begins twice"));
        }
    }
}

/// One value for each slot and ballot.
fn check_one_value(index: &mut RunIndex<'_>) {
    for ((slot, ballot), lines) in index.accepts.clone() {
        let first = LoggedValue::of(index.run.line(lines[0]));
        if let Some(other) = lines.iter().find(|at| LoggedValue::of(index.run.line(**at)) != first) {
            let message = format!("two values are proposed in slot {slot} at the same ballot {ballot}");
            index.violated(Rule::Ballot, &[lines[0], *other], message);
        }
    }
}

/// A proposer proposes what a majority's promises require: in each slot the value of the highest ballot reported. Only
/// if a whole quorum has accepted nothing, it proposes its own value.
fn check_safe_value(index: &mut RunIndex<'_>, at: usize) {
    let Event::Accept { slot, ballot, adopted, quorum, .. } = index.run.line(at).event else { return };
    check_from(index, slot, ballot, at);
    if !index.is_majority(quorum) && !index.cluster.is_empty() {
        let message = format!("{quorum} is no majority of {}: {ballot} must not propose", index.cluster);
        return index.violated(Rule::Adopt, &[at], message);
    }
    let open = index.maybe_incomplete(quorum, &[at]);
    let reports = |server| index.promises.get(&(ballot, server)).map(Vec::as_slice).unwrap_or_default();
    let silent: ServerSet = quorum.iter().filter(|server| reports(*server).is_empty()).collect();
    if !silent.is_empty() {
        let message = format!("{ballot} proposes in slot {slot} on promises of {silent} that were never given");
        return index.missing(Rule::Adopt, silent, &[at], message);
    }
    let adopted = adopted.0;
    // An acceptance without a line still needs a proposal.
    let was_proposed = adopted.is_some_and(|ballot| index.accepts.contains_key(&(slot, ballot)));
    let could_be_more = has_rival(index, slot, adopted, at);
    let no_more = |report: SlotReport| match report {
        SlotReport { min_ballot: at_least, .. } if at_least > adopted => PromiseFit::No,
        SlotReport { is_exact: exactly, .. } if exactly || !could_be_more => PromiseFit::Yes,
        SlotReport { .. } => PromiseFit::Perhaps,
    };
    // An inexact report may contain the adopted ballot. If that ballot was proposed, this is enough: its value was
    // safe. What matters more is that no report is higher.
    let has_adopted = |report: SlotReport| match report {
        SlotReport { min_ballot: at_least, .. } if at_least == adopted => PromiseFit::Yes,
        SlotReport { min_ballot: at_least, is_exact: false } if at_least < adopted => {
            if was_proposed {
                PromiseFit::Yes
            } else {
                PromiseFit::Perhaps
            }
        }
        SlotReport { .. } => PromiseFit::No,
    };
    let no_more = quorum.iter().map(|server| PromiseFit::of_one(reports(server), slot, no_more)).min();
    // A higher report binds, whatever other replies contain. But an acceptor may have reported the adopted ballot in a
    // reply whose line is missing, after its disk was repaired.
    let that = quorum.iter().map(|server| match PromiseFit::of_one(reports(server), slot, has_adopted) {
        PromiseFit::No if open.contains(server) => PromiseFit::Perhaps,
        fit => fit,
    });
    let that = that.max();
    let evidence = quorum.iter().flat_map(|server| reports(server).iter().map(|report| report.at)).chain([at]);
    let evidence: Vec<usize> = evidence.collect();
    match no_more.min(that) {
        Some(PromiseFit::Yes) => {
            if let Some(before) = adopted {
                check_adopted(index, slot, before, at);
            }
        }
        Some(PromiseFit::Perhaps) => {
            let message = format!(
                "{ballot} proposes in slot {slot} as if {}, and the lines do not show all that its promises report about that slot",
                describe_adopted(adopted)
            );
            index.unproven(Rule::Adopt, &evidence, message);
        }
        Some(PromiseFit::No) | None => {
            let message = format!(
                "{ballot} proposes in slot {slot} as if {}, but its promises report otherwise",
                describe_adopted(adopted)
            );
            index.violated(Rule::Adopt, &evidence, message);
        }
    }
}

/// Whether another value was proposed in the slot, below this proposal and above the ballot that it adopts. An acceptor
/// could have accepted that value, and then this proposal would be wrong.
fn has_rival(index: &RunIndex<'_>, slot: Slot, adopted: Option<Ballot>, at: usize) -> bool {
    let Event::Accept { ballot, .. } = index.run.line(at).event else { return false };
    let value = LoggedValue::of(index.run.line(at));
    let between = index.accepts.range((slot, adopted.unwrap_or(Ballot::ZERO))..(slot, ballot));
    between.flat_map(|(_, lines)| lines).any(|rival| LoggedValue::of(index.run.line(*rival)) != value)
}

/// How an acceptor's promise fits a proposal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum PromiseFit {
    No,
    /// The lines do not show all that the promise reported.
    Perhaps,
    Yes,
}

impl PromiseFit {
    /// An acceptor with several promises of a ballot: one of them must fit. (A promise that covers only later slots
    /// fits; [`check_from`] verifies that the proposal is not below its ballot's first slot.)
    fn of_one(reports: &[PromiseContents], slot: Slot, fit: impl Fn(SlotReport) -> PromiseFit) -> PromiseFit {
        reports
            .iter()
            .map(|report| report.report_on(slot).map_or(PromiseFit::Yes, &fit))
            .max()
            .unwrap_or(PromiseFit::No)
    }
}

fn describe_adopted(adopted: Option<Ballot>) -> String {
    adopted
        .map_or("nothing had been accepted there".into(), |ballot| format!("{ballot} was the highest accepted there"))
}

/// A proposal that adopts a ballot has the value proposed at that ballot.
fn check_adopted(index: &mut RunIndex<'_>, slot: Slot, before: Ballot, at: usize) {
    match index.proposed(slot, before) {
        Some((earlier, value)) => {
            if LoggedValue::of(index.run.line(at)) != Some(value) {
                let message =
                    format!("the proposal has another value than the one that was accepted in slot {slot} at {before}");
                index.violated(Rule::Adopt, &[earlier, at], message);
            }
        }
        None => {
            let message = format!("no line proposes in slot {slot} at {before} the value that is adopted here");
            index.missing(Rule::Adopt, ServerSet::only(before.server), &[at], message);
        }
    }
}

/// The ballot was prepared, and covers this slot.
fn check_from(index: &mut RunIndex<'_>, slot: Slot, ballot: Ballot, at: usize) {
    let Some(prepare) = index.prepares.get(&ballot).map(|lines| lines[0]) else {
        let message = format!("{ballot} proposes in slot {slot}, but was never prepared");
        return index.missing(Rule::Adopt, ServerSet::only(ballot.server), &[at], message);
    };
    if let Event::Prepare { slot: SlotFrom(from), .. } = index.run.line(prepare).event
        && slot < from
    {
        let message = format!("{ballot} proposes in slot {slot}, but was prepared only from slot {from} on");
        index.violated(Rule::Adopt, &[prepare, at], message);
    }
}

/// A slot is chosen when a majority has accepted it at one ballot, and then its value never changes.
fn check_chosen(index: &mut RunIndex<'_>) {
    for (slot, lines) in index.chosen.clone() {
        index.counts.chosen += 1;
        let mut values: BTreeMap<Ballot, LoggedValue<'_>> = BTreeMap::new();
        for at in &lines {
            let Event::Chosen { ballot, quorum, .. } = index.run.line(*at).event else { continue };
            check_last_vote(index, slot, ballot, *at);
            if index.is_claim(*at) {
                check_majority(index, slot, ballot, quorum, *at);
            }
            if let Some((_, value)) = index.proposed(slot, ballot) {
                values.insert(ballot, value);
            }
        }
        let mut distinct = values.values();
        let first = distinct.next();
        if distinct.any(|value| Some(value) != first) {
            index.violated(Rule::Agreement, &lines, format!("slot {slot} is chosen twice, with two values"));
        }
    }
    check_every_majority(index);
}

/// The acceptance that completed the majority has the ballot of the CHOSEN line. An acceptor that reports another
/// ballot than it has recorded usually accepts at the reported one too, a moment later. Then all other lines look
/// right.
fn check_last_vote(index: &mut RunIndex<'_>, slot: Slot, ballot: Ballot, at: usize) {
    let vote = index.run.line(at).parent.as_ref().and_then(|re| index.known.line(re));
    if let Some(vote) = vote
        && let Event::Accepted { ballot: given, .. } = index.run.line(vote).event
        && given != ballot
    {
        let message = format!("slot {slot} is reported chosen at {ballot} because of an acceptance at {given}");
        index.violated(Rule::Majority, &[vote, at], message);
    }
}

fn check_majority(index: &mut RunIndex<'_>, slot: Slot, ballot: Ballot, quorum: ServerSet, at: usize) {
    let accepted = index.accepted.get(&(slot, ballot)).copied().unwrap_or_default();
    let lacking = quorum.without(accepted);
    if !index.cluster.is_empty() && !index.is_majority(quorum) {
        let message =
            format!("slot {slot} is reported chosen at {ballot}, but {quorum} is no majority of {}", index.cluster);
        index.violated(Rule::Majority, &[at], message);
    } else if !lacking.is_empty() {
        let message = format!("slot {slot} is reported chosen at {ballot}, but {lacking} did not accept it");
        index.missing(Rule::Majority, lacking, &[at], message);
    }
}

/// The values that majorities have accepted in a slot are equal, even if no learner counted them.
fn check_every_majority(index: &mut RunIndex<'_>) {
    let mut values: BTreeMap<Slot, (usize, LoggedValue<'_>)> = BTreeMap::new();
    for ((slot, ballot), servers) in index.accepted.clone() {
        let Some((at, value)) = index.proposed(slot, ballot).filter(|_| index.is_majority(servers)) else { continue };
        match values.get(&slot) {
            Some((before, chosen)) if *chosen != value => {
                let message = format!("majorities have accepted two values in slot {slot}");
                index.violated(Rule::Agreement, &[*before, at], message);
            }
            Some(_) => {}
            None => {
                values.insert(slot, (at, value));
            }
        }
    }
}
