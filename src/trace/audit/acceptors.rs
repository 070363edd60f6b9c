//! Acceptor check: reconstructs each acceptor from its own lines. It took no part in a ballot below its promise, and
//! forgot nothing that it accepted.

use std::collections::BTreeMap;

use super::super::event::Event;
use super::super::field::{AcceptedSlots, MaybeBallot, OmittedSlots, SlotSpan, fingerprint};
use super::super::line::{Line, Speaker};
use super::super::values::RecoveredFrom;
use super::inference::{Inference, UnloggedAccept, infer};
use super::{Rule, RunIndex};
use crate::paxos::{Ballot, Slot};
use crate::role::{ServerId, ServerSet};

/// The report of one PROMISE line about the slots from its first on.
#[derive(Clone, Debug)]
pub(super) struct PromiseContents {
    /// Index of the line.
    pub at: usize,
    /// The promised ballot, if the report contains values of that ballot: it repeats an earlier reply whose line may be
    /// missing.
    repeats: Option<Ballot>,
    /// The report covers the slots from this one on, up to `last` if there is one.
    from: Slot,
    last: Option<Slot>,
    /// The acceptances known to be reported.
    reported: BTreeMap<Slot, Ballot>,
    /// Set if the report is longer than the line and the rest was not found. Beyond this slot, the acceptor's earlier
    /// lines show some of the report, but perhaps not all.
    known_up_to: Option<Slot>,
}

/// What an acceptor reported about one slot, as far as lines show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotReport {
    /// The ballot of its accepted value, or a lower bound of that ballot; None if it had accepted none.
    pub min_ballot: Option<Ballot>,
    /// Whether `at_least` is exact.
    pub is_exact: bool,
}

impl PromiseContents {
    /// What the acceptor reported about a slot; None if the promise does not cover it.
    pub fn report_on(&self, slot: Slot) -> Option<SlotReport> {
        let reported = self.reported.get(&slot).copied();
        // This reply does not show what the slot held at the time of the earlier reply.
        let is_of_promised = reported.is_some() && reported == self.repeats;
        let at_least = reported.filter(|_| !is_of_promised);
        let exactly = !is_of_promised && self.known_up_to.is_none_or(|last| slot <= last);
        let is_told = slot >= self.from && self.last.is_none_or(|last| slot <= last);
        is_told.then_some(SlotReport { min_ballot: at_least, is_exact: exactly })
    }
}

/// What an acceptor must know, by its lines so far.
#[derive(Default)]
struct AcceptorHistory {
    /// The highest ballot that binds it, and the line that shows this.
    promised: Option<(Ballot, usize)>,
    /// The highest ballot at which it accepted in each slot, and the line that shows this.
    accepted: BTreeMap<Slot, (Ballot, usize)>,
    /// It may know more than its lines show: it crashed after making something durable without a line, or lines are
    /// missing.
    may_know_more: bool,
    /// It has truncated all slots below.
    truncated_below: Slot,
    /// At its restart it reported this number of accepted slots, in this line. A TRUNCATE or CORRUPT line may follow.
    restart_report: Option<(u64, usize)>,
    /// Incarnation and number of the last line, and whether the acceptor has written a line in that incarnation.
    last: Option<(u32, u64)>,
    has_spoken: bool,
}

pub(super) fn check(index: &mut RunIndex<'_>) {
    for (server, lines) in index.by_server.clone() {
        let first = &index.run.line(lines[0]).id.process;
        let is_born_here = first.incarnation() == 1 && index.known.is_whole(first);
        let mut history = AcceptorHistory { may_know_more: !is_born_here, ..AcceptorHistory::default() };
        for at in lines {
            history.observe(index, server, at);
        }
        if history.truncated_below <= Slot(1) {
            history.check_restart_count(index);
        }
    }
}

impl AcceptorHistory {
    /// Compares a line with the history, then adds it.
    fn observe(&mut self, index: &mut RunIndex<'_>, server: ServerId, at: usize) {
        let line = index.run.line(at);
        self.look_for_gap(index, line);
        self.has_spoken |= line.role == Speaker::Acceptor;
        if let Event::Truncate { below } = line.event {
            self.truncated_below = self.truncated_below.max(below);
            self.accepted = self.accepted.split_off(&self.truncated_below);
        }
        // After a restart, the acceptor reports truncated and corrupt slots first.
        let is_wake = matches!(
            line.event,
            Event::Restart { .. } | Event::Boot { .. } | Event::Truncate { .. } | Event::Corrupt { .. }
        );
        if line.role == Speaker::Acceptor && !is_wake {
            self.check_restart_count(index);
        }
        match &line.event {
            Event::Corrupt { slot, to } => {
                self.accepted.retain(|accepted, _| accepted < slot || to < accepted);
                self.may_know_more = true;
            }
            Event::Repair { slot, ballot } => {
                let before = self.accepted.get(slot).map(|(before, _)| *before);
                if before < Some(*ballot) {
                    self.accepted.insert(*slot, (*ballot, at));
                }
            }
            Event::Promise { slot, ballot, accepted, .. } => {
                index.counts.answers += 1;
                self.promise(index, *ballot, at, "promised");
                let mut report = self.report(index, *slot, accepted, at);
                let before = index.promises.entry((*ballot, server)).or_default();
                if report.reported.values().any(|reported| reported == ballot) {
                    // A value of this ballot was proposed after an earlier reply. If that reply's line is present, it
                    // is the one that counts.
                    if !before.is_empty() {
                        return;
                    }
                    let is_open = !index.maybe_incomplete(ServerSet::only(server), &[at]).is_empty();
                    report.repeats = is_open.then_some(*ballot);
                }
                index.promises.entry((*ballot, server)).or_default().push(report);
            }
            Event::Nack { ballot, promised, .. } => {
                index.counts.answers += 1;
                if ballot >= promised {
                    let message = format!("{server} refused {ballot}, although it had promised only {promised}");
                    index.violated(Rule::Promise, &[at], message);
                }
                self.check_promise_claim(index, *promised, at);
            }
            Event::Accepted { slot, ballot, .. } => {
                index.counts.answers += 1;
                self.promise(index, *ballot, at, "accepted");
                let before = self.accepted.get(slot).map(|(before, _)| *before);
                if before <= Some(*ballot) {
                    self.accepted.insert(*slot, (*ballot, at));
                }
                check_was_proposed(index, *slot, *ballot, at);
            }
            Event::Crash { .. } => {
                index.counts.crashes += 1;
                self.may_know_more |= line.role == Speaker::Acceptor;
            }
            Event::Restart { promised: Some(promised), accepted: Some(count), .. } => {
                self.check_restart(index, *promised, *count, at);
            }
            // What a process found on its disk. If the acceptor has already written a line, this state is outdated.
            Event::Boot { promised: Some(promised), accepted: Some(count), .. } if !self.has_spoken => {
                self.check_restart(index, *promised, *count, at);
            }
            _ => {}
        }
    }

    /// A process's end is visible by the next incarnation. Where lines are missing, the acceptor may have accepted, or
    /// lost, anything meanwhile; its earlier promises still bind it.
    fn look_for_gap(&mut self, index: &mut RunIndex<'_>, line: &Line) {
        let (life, n) = (line.id.process.incarnation(), line.id.n);
        let before = self.last.replace((life, n));
        let is_next = before.is_some_and(|(before, last)| before == life && last.checked_add(1) == Some(n));
        if let Some((life_before, _)) = before
            && life_before != life
        {
            index.counts.crashes += 1;
            self.may_know_more = true;
            self.has_spoken = false;
        }
        if matches!(line.event, Event::Lost { .. }) || (!is_next && n != 1) {
            self.may_know_more = true;
            self.accepted.clear();
            self.restart_report = None;
        }
    }

    /// The acceptor takes part in a ballot.
    fn promise(&mut self, index: &mut RunIndex<'_>, ballot: Ballot, at: usize, did: &str) {
        if let Some((promised, before)) = self.promised
            && ballot < promised
        {
            let process = &index.run.line(at).id.process;
            let message = format!("{process} {did} {ballot}, although it had promised {promised}");
            index.violated(Rule::Promise, &[before, at], message);
        }
        if self.promised.is_none_or(|(promised, _)| promised < ballot) {
            self.promised = Some((ballot, at));
        }
    }

    /// The acceptor states its promise. It must be no lower than its lines show, and no higher unless it may know more.
    fn check_promise_claim(&mut self, index: &mut RunIndex<'_>, claimed: Ballot, at: usize) {
        let process = &index.run.line(at).id.process;
        let lines: Vec<usize> = self.promised.map(|(_, before)| before).into_iter().chain([at]).collect();
        let promised = self.promised.map(|(promised, _)| promised);
        if promised > Some(claimed) {
            let message = format!("{process} claims to have promised {claimed}, but it had promised a higher ballot");
            index.violated(Rule::Promise, &lines, message);
        } else if promised < Some(claimed) {
            if !self.may_know_more {
                let message = format!("{process} claims to have promised {claimed}, but no line shows that promise");
                index.violated(Rule::Promise, &lines, message);
            }
            self.promised = Some((claimed, at));
        }
    }

    /// The acceptor restarts and reports what it has recovered. Lost stable storage breaks no promise yet, but acting
    /// without it does.
    fn check_restart(&mut self, index: &mut RunIndex<'_>, promised: MaybeBallot, count: u64, at: usize) {
        if matches!(index.run.line(at).event, Event::Restart { recovered: RecoveredFrom::Nothing, .. }) {
            return;
        }
        if let Some((before, line)) = self.promised
            && promised.0.is_none_or(|promised| promised < before)
        {
            let process = &index.run.line(at).id.process;
            let now = promised.0.map_or("no promise".to_string(), |promised| format!("promise {promised}"));
            index.violated(
                Rule::Promise,
                &[line, at],
                format!("{process} restarted with {now}, but it had promised {before}"),
            );
        }
        if let Some(promised) = promised.0.filter(|promised| self.promised.is_none_or(|(before, _)| before < *promised))
        {
            self.promised = Some((promised, at));
        }
        self.restart_report = Some((count, at));
    }

    /// Called once truncated slots have been reported: the acceptor must still hold all others.
    fn check_restart_count(&mut self, index: &mut RunIndex<'_>) {
        let Some((count, at)) = self.restart_report.take() else { return };
        if count < self.accepted.len() as u64 {
            let process = &index.run.line(at).id.process;
            let message = format!("{process} restarted with {count} of {} accepted slots", self.accepted.len());
            index.violated(Rule::Promise, &[at], message);
        }
    }

    /// Compares the report of a PROMISE with the known acceptances. Returns the report, as complete as the lines make
    /// it.
    fn report(
        &mut self,
        index: &mut RunIndex<'_>,
        span: SlotSpan,
        accepted: &AcceptedSlots,
        at: usize,
    ) -> PromiseContents {
        // The report does not cover truncated slots, nor slots after its page.
        let (from, end) = (span.first.max(self.truncated_below), span.last.unwrap_or(Slot(u64::MAX)));
        let last_shown = accepted.more.and(accepted.first.last()).map_or(end, |(slot, _)| *slot);
        self.check_shown(index, from, last_shown, accepted, at);
        for (slot, ballot) in &accepted.first {
            check_was_proposed(index, *slot, *ballot, at);
            // Once reported, an acceptance must appear in all later reports.
            if self.accepted.get(slot).is_none_or(|(before, _)| before < ballot) {
                self.accepted.insert(*slot, (*ballot, at));
            }
        }
        let mut known_to = None;
        if let Some(more) = accepted.more {
            match self.find_rest(index, (from, end), last_shown, &accepted.first, more, at) {
                OmittedReport::Found => {}
                OmittedReport::Unknown => known_to = Some(last_shown),
                OmittedReport::Other => {
                    known_to = Some(last_shown);
                    let process = &index.run.line(at).id.process;
                    let message = format!("{process} reports other slots after slot {last_shown} than it has accepted");
                    index.violated(Rule::Promise, &[at], message);
                }
                OmittedReport::NotProposed => {
                    known_to = Some(last_shown);
                    let process = &index.run.line(at).id.process;
                    let message =
                        format!("no line proposes some of the values that {process} reports after slot {last_shown}");
                    index.missing_anywhere(Rule::Promise, &[at], message);
                }
            }
        }
        let reported = self.accepted.range(from..=end.max(from)).map(|(slot, (ballot, _))| (*slot, *ballot));
        let mut reported: BTreeMap<Slot, Ballot> = reported.filter(|(slot, _)| *slot > last_shown).collect();
        reported.extend(accepted.first.iter().copied());
        PromiseContents { at, repeats: None, from, last: span.last, reported, known_up_to: known_to }
    }

    /// The slots that the line shows are those that were accepted.
    fn check_shown(&self, index: &mut RunIndex<'_>, from: Slot, last: Slot, accepted: &AcceptedSlots, at: usize) {
        let who = &index.run.line(at).id.process;
        let reported: BTreeMap<Slot, Ballot> = accepted.first.iter().copied().collect();
        for (slot, (ballot, line)) in self.accepted.range(from..=last.max(from)) {
            let message = match reported.get(slot) {
                Some(reported_ballot)
                    if reported_ballot == ballot || (reported_ballot > ballot && self.may_know_more) =>
                {
                    continue;
                }
                Some(reported_ballot) => {
                    format!("{who} reports slot {slot} accepted at {reported_ballot}, but it accepted it at {ballot}")
                }
                None => format!("{who} does not report slot {slot}, which it accepted at {ballot}"),
            };
            index.violated(Rule::Promise, &[*line, at], message);
        }
        for (slot, ballot) in reported {
            if !self.accepted.contains_key(&slot) && !self.may_know_more {
                let message = format!("{who} reports slot {slot} accepted at {ballot}, but no line shows that it was");
                index.violated(Rule::Promise, &[at], message);
            }
        }
    }

    /// Finds the slots that a PROMISE line omits: those that the acceptor's lines show, if their fingerprint matches
    /// the reported one. Otherwise also those that it may have accepted without a line before it crashed.
    fn find_rest(
        &mut self,
        index: &RunIndex<'_>,
        (from, end): (Slot, Slot),
        last_shown: Slot,
        shown: &[(Slot, Ballot)],
        omitted: OmittedSlots,
        at: usize,
    ) -> OmittedReport {
        let Event::Promise { ballot: promised, .. } = index.run.line(at).event else { return OmittedReport::Unknown };
        let known: BTreeMap<Slot, Ballot> =
            self.accepted.range(from..=end.max(from)).map(|(slot, (b, _))| (*slot, *b)).collect();
        let known: BTreeMap<Slot, Ballot> = known.into_iter().filter(|(slot, _)| *slot > last_shown).collect();
        let sum = |slots: &mut dyn Iterator<Item = (Slot, Ballot)>| {
            slots.fold(0, |sum: u64, (slot, ballot)| sum.wrapping_add(fingerprint(slot, ballot)))
        };
        let known_sum = sum(&mut known.iter().map(|(slot, ballot)| (*slot, *ballot)));
        let lacks = omitted.sum.wrapping_sub(known_sum).wrapping_sub(sum(&mut shown.iter().copied()));
        if lacks == 0 && omitted.count == known.len() as u64 {
            return OmittedReport::Found;
        }
        if !self.may_know_more {
            return OmittedReport::Other;
        }
        // Candidates: proposals beyond the slots shown that are not known to be accepted or superseded.
        let perhaps = index.accepts.range((last_shown.next(), Ballot::ZERO)..).map(|(key, _)| *key);
        let perhaps = perhaps.filter(|(slot, _)| *slot <= end);
        let perhaps = perhaps.filter(|(slot, ballot)| *ballot <= promised && known.get(slot) < Some(ballot));
        let perhaps = perhaps.map(|(slot, ballot)| UnloggedAccept {
            slot,
            ballot,
            gain: fingerprint(slot, ballot)
                .wrapping_sub(known.get(&slot).map_or(0, |before| fingerprint(slot, *before))),
            is_new: !known.contains_key(&slot),
        });
        let new = omitted.count.wrapping_sub(known.len() as u64);
        match infer(&perhaps.collect::<Vec<_>>(), lacks, new) {
            Inference::These(slots) => {
                self.accepted.extend(slots.into_iter().map(|guess| (guess.slot, (guess.ballot, at))));
                OmittedReport::Found
            }
            Inference::None => OmittedReport::NotProposed,
            Inference::TooMany => OmittedReport::Unknown,
        }
    }
}

/// Whether the omitted part of a PROMISE report is known.
enum OmittedReport {
    /// It is what the acceptor is now known to have accepted.
    Found,
    /// There are too many possibilities.
    Unknown,
    /// It differs from what the acceptor has accepted, all of which the lines show.
    Other,
    /// No proposals in the lines explain it.
    NotProposed,
}

/// An acceptor accepts only values that were proposed.
fn check_was_proposed(index: &mut RunIndex<'_>, slot: Slot, ballot: Ballot, at: usize) {
    if index.is_claim(at) && !index.accepts.contains_key(&(slot, ballot)) {
        let message = format!("slot {slot} was accepted at {ballot}, but no line of {} proposes it", ballot.server);
        index.missing(Rule::Ballot, [ballot.server].into_iter().collect(), &[at], message);
    }
}
