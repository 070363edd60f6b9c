//! Each acceptor, rebuilt from its own lines: it took part in nothing below what it had promised, and forgot nothing.

use std::collections::BTreeMap;

use super::super::event::Event;
use super::super::field::{AcceptedSlots, MaybeBallot, OmittedSlots, SlotSpan, fingerprint};
use super::super::line::{Line, Speaker};
use super::super::values::RecoveredFrom;
use super::inference::{Inference, UnloggedAccept, guess};
use super::{Rule, RunIndex};
use crate::paxos::{Ballot, Slot};
use crate::role::{ServerId, ServerSet};

/// What one PROMISE line says of the slots from its first on.
#[derive(Clone, Debug)]
pub(super) struct PromiseContents {
    /// The line.
    pub at: usize,
    /// It holds values of the ballot that it promises: it repeats an earlier answer, whose line may be missing.
    repeats: Option<Ballot>,
    /// It says something of the slots from this one on, up to the last if there is one.
    from: Slot,
    last: Option<Slot>,
    /// What is known to be reported.
    reported: BTreeMap<Slot, Ballot>,
    /// The report is longer than the line, and the rest was not found: of the slots behind this one the acceptor's
    /// earlier lines tell something, but perhaps not all.
    known_to: Option<Slot>,
}

/// What an acceptor reported of a slot, as far as lines tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotReport {
    /// The ballot at which it had accepted a value there, or a lower one; None if it had accepted none.
    pub at_least: Option<Ballot>,
    /// It is exactly that.
    pub exactly: bool,
}

impl PromiseContents {
    /// What the acceptor reported of a slot; None if it was not asked about it.
    pub fn says(&self, slot: Slot) -> Option<SlotReport> {
        let reported = self.reported.get(&slot).copied();
        // What the slot held when the earlier answer was given, this one does not tell.
        let is_of_promised = reported.is_some() && reported == self.repeats;
        let at_least = reported.filter(|_| !is_of_promised);
        let exactly = !is_of_promised && self.known_to.is_none_or(|last| slot <= last);
        let is_told = slot >= self.from && self.last.is_none_or(|last| slot <= last);
        is_told.then_some(SlotReport { at_least, exactly })
    }
}

/// What an acceptor must know, by its lines so far.
#[derive(Default)]
struct AcceptorHistory {
    /// The highest ballot that it was seen bound to, and where.
    promised: Option<(Ballot, usize)>,
    /// The highest ballot at which it was seen to accept in each slot, and where.
    accepted: BTreeMap<Slot, (Ballot, usize)>,
    /// It may know more: it has died since, after making durable what has no line; or it did something that is not in
    /// these lines.
    may_know_more: bool,
    /// It has forgotten all slots below.
    truncated_below: Slot,
    /// It woke up and knew so many slots, as this line says; what it has forgotten it says next.
    woke: Option<(u64, usize)>,
    /// The life of the last line and its number, and whether the acceptor has spoken in it.
    last: Option<(u32, u64)>,
    has_spoken: bool,
}

pub(super) fn check(case: &mut RunIndex<'_>) {
    for (server, lines) in case.by_server.clone() {
        let first = &case.run.line(lines[0]).id.process;
        let is_born_here = first.life() == 1 && case.known.is_whole(first);
        let mut past = AcceptorHistory { may_know_more: !is_born_here, ..AcceptorHistory::default() };
        for at in lines {
            past.take(case, server, at);
        }
        if past.truncated_below <= Slot(1) {
            past.check_waking(case);
        }
    }
}

impl AcceptorHistory {
    /// Holds a line against the past, then makes it part of it.
    fn take(&mut self, case: &mut RunIndex<'_>, server: ServerId, at: usize) {
        let line = case.run.line(at);
        self.look_for_gap(case, line);
        self.has_spoken |= line.role == Speaker::Acceptor;
        if let Event::Truncate { below } = line.event {
            self.truncated_below = self.truncated_below.max(below);
            self.accepted = self.accepted.split_off(&self.truncated_below);
        }
        // What it has forgotten, and what its disk has lost, it says first.
        let is_wake = matches!(
            line.event,
            Event::Restart { .. } | Event::Boot { .. } | Event::Truncate { .. } | Event::Corrupt { .. }
        );
        if line.role == Speaker::Acceptor && !is_wake {
            self.check_waking(case);
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
                case.counts.answers += 1;
                self.bind(case, *ballot, at, "promised");
                let mut report = self.report(case, *slot, accepted, at);
                let before = case.promises.entry((*ballot, server)).or_default();
                if report.reported.values().any(|reported| reported == ballot) {
                    // A value of this ballot was proposed on an earlier answer. If that is here, it is the one that
                    // counts.
                    if !before.is_empty() {
                        return;
                    }
                    let is_open = !case.not_all_there(ServerSet::only(server), &[at]).is_empty();
                    report.repeats = is_open.then_some(*ballot);
                }
                case.promises.entry((*ballot, server)).or_default().push(report);
            }
            Event::Nack { ballot, promised, .. } => {
                case.counts.answers += 1;
                if ballot >= promised {
                    let says = format!("{server} refused {ballot}, although it had promised only {promised}");
                    case.violated(Rule::Promise, &[at], says);
                }
                self.is_bound_to(case, *promised, at);
            }
            Event::Accepted { slot, ballot, .. } => {
                case.counts.answers += 1;
                self.bind(case, *ballot, at, "accepted");
                let before = self.accepted.get(slot).map(|(before, _)| *before);
                if before <= Some(*ballot) {
                    self.accepted.insert(*slot, (*ballot, at));
                }
                check_was_proposed(case, *slot, *ballot, at);
            }
            Event::Crash { .. } => {
                case.counts.deaths += 1;
                self.may_know_more |= line.role == Speaker::Acceptor;
            }
            Event::Restart { promised: Some(promised), accepted: Some(count), .. } => {
                self.wakes(case, *promised, *count, at);
            }
            // What a process found on its disk; old news if its acceptor has been faster than this line.
            Event::Boot { promised: Some(promised), accepted: Some(count), .. } if !self.has_spoken => {
                self.wakes(case, *promised, *count, at);
            }
            _ => {}
        }
    }

    /// A death is told by the next life; where lines are missing, the acceptor may have accepted, and forgotten,
    /// anything meanwhile. What it promised binds it all the same.
    fn look_for_gap(&mut self, case: &mut RunIndex<'_>, line: &Line) {
        let (life, n) = (line.id.process.life(), line.id.n);
        let before = self.last.replace((life, n));
        let is_next = before.is_some_and(|(before, last)| before == life && last.checked_add(1) == Some(n));
        if let Some((life_before, _)) = before
            && life_before != life
        {
            case.counts.deaths += 1;
            self.may_know_more = true;
            self.has_spoken = false;
        }
        if matches!(line.event, Event::Lost { .. }) || (!is_next && n != 1) {
            self.may_know_more = true;
            self.accepted.clear();
            self.woke = None;
        }
    }

    /// The acceptor takes part in a ballot.
    fn bind(&mut self, case: &mut RunIndex<'_>, ballot: Ballot, at: usize, did: &str) {
        if let Some((promised, before)) = self.promised
            && ballot < promised
        {
            let who = &case.run.line(at).id.process;
            let says = format!("{who} {did} {ballot} although it was bound to {promised}");
            case.violated(Rule::Promise, &[before, at], says);
        }
        if self.promised.is_none_or(|(promised, _)| promised < ballot) {
            self.promised = Some((ballot, at));
        }
    }

    /// The acceptor says what it is bound to: no less than its lines, and no more unless it may know more.
    fn is_bound_to(&mut self, case: &mut RunIndex<'_>, says_bound: Ballot, at: usize) {
        let who = &case.run.line(at).id.process;
        let lines: Vec<usize> = self.promised.map(|(_, before)| before).into_iter().chain([at]).collect();
        let promised = self.promised.map(|(promised, _)| promised);
        if promised > Some(says_bound) {
            let says = format!("{who} says it is bound to {says_bound}, and was bound to more");
            case.violated(Rule::Promise, &lines, says);
        } else if promised < Some(says_bound) {
            if !self.may_know_more {
                let says = format!("{who} says it is bound to {says_bound}, and no line shows how it came to be");
                case.violated(Rule::Promise, &lines, says);
            }
            self.promised = Some((says_bound, at));
        }
    }

    /// The acceptor lives again and says what it knows. A lost memory is no broken promise yet: it becomes one when the
    /// acceptor acts on it.
    fn wakes(&mut self, case: &mut RunIndex<'_>, promised: MaybeBallot, count: u64, at: usize) {
        if matches!(case.run.line(at).event, Event::Restart { recovered: RecoveredFrom::Nothing, .. }) {
            return;
        }
        if let Some((before, line)) = self.promised
            && promised.0.is_none_or(|promised| promised < before)
        {
            let who = &case.run.line(at).id.process;
            let now = promised.0.map_or("nothing".to_string(), |promised| promised.to_string());
            case.violated(
                Rule::Promise,
                &[line, at],
                format!("{who} woke up bound to {now}, and was bound to {before}"),
            );
        }
        if let Some(promised) = promised.0.filter(|promised| self.promised.is_none_or(|(before, _)| before < *promised))
        {
            self.promised = Some((promised, at));
        }
        self.woke = Some((count, at));
    }

    /// It has said what it has forgotten on purpose: the rest it must know.
    fn check_waking(&mut self, case: &mut RunIndex<'_>) {
        let Some((count, at)) = self.woke.take() else { return };
        if count < self.accepted.len() as u64 {
            let who = &case.run.line(at).id.process;
            let says = format!("{who} woke up knowing {count} accepted slots of {}", self.accepted.len());
            case.violated(Rule::Promise, &[at], says);
        }
    }

    /// Holds what a PROMISE reports against what was accepted; gives the report, as complete as lines make it.
    fn report(&mut self, case: &mut RunIndex<'_>, span: SlotSpan, told: &AcceptedSlots, at: usize) -> PromiseContents {
        // It says nothing of slots that it has forgotten, nor of those behind its page.
        let (from, end) = (span.first.max(self.truncated_below), span.last.unwrap_or(Slot(u64::MAX)));
        let last_shown = told.more.and(told.first.last()).map_or(end, |(slot, _)| *slot);
        self.check_shown(case, from, last_shown, told, at);
        for (slot, ballot) in &told.first {
            check_was_proposed(case, *slot, *ballot, at);
            // What it has reported once it must report for ever.
            if self.accepted.get(slot).is_none_or(|(before, _)| before < ballot) {
                self.accepted.insert(*slot, (*ballot, at));
            }
        }
        let mut known_to = None;
        if let Some(more) = told.more {
            match self.find_rest(case, (from, end), last_shown, &told.first, more, at) {
                OmittedReport::Found => {}
                OmittedReport::Unknown => known_to = Some(last_shown),
                OmittedReport::Other => {
                    known_to = Some(last_shown);
                    let who = &case.run.line(at).id.process;
                    let says = format!("{who} reports other slots behind {last_shown} than it has accepted");
                    case.violated(Rule::Promise, &[at], says);
                }
                OmittedReport::NotProposed => {
                    known_to = Some(last_shown);
                    let who = &case.run.line(at).id.process;
                    let says =
                        format!("of what {who} reports behind slot {last_shown}, some was proposed in no line here");
                    case.missing_anywhere(Rule::Promise, &[at], says);
                }
            }
        }
        let reported = self.accepted.range(from..=end.max(from)).map(|(slot, (ballot, _))| (*slot, *ballot));
        let mut reported: BTreeMap<Slot, Ballot> = reported.filter(|(slot, _)| *slot > last_shown).collect();
        reported.extend(told.first.iter().copied());
        PromiseContents { at, repeats: None, from, last: span.last, reported, known_to }
    }

    /// The slots that the line shows are those that were accepted.
    fn check_shown(&self, case: &mut RunIndex<'_>, from: Slot, last: Slot, told: &AcceptedSlots, at: usize) {
        let who = &case.run.line(at).id.process;
        let reported: BTreeMap<Slot, Ballot> = told.first.iter().copied().collect();
        for (slot, (ballot, line)) in self.accepted.range(from..=last.max(from)) {
            let says = match reported.get(slot) {
                Some(says) if says == ballot || (says > ballot && self.may_know_more) => continue,
                Some(says) => format!("{who} reports slot {slot} accepted at {says}, and accepted it at {ballot}"),
                None => format!("{who} does not report slot {slot}, which it accepted at {ballot}"),
            };
            case.violated(Rule::Promise, &[*line, at], says);
        }
        for (slot, ballot) in reported {
            if !self.accepted.contains_key(&slot) && !self.may_know_more {
                let says = format!("{who} reports slot {slot} accepted at {ballot}, and no line shows that it was");
                case.violated(Rule::Promise, &[at], says);
            }
        }
    }

    /// Finds the slots that a PROMISE line has no room for: those that the acceptor's lines show, if their fingerprint
    /// is the one told; and with them what it may have accepted without a line, before it died.
    fn find_rest(
        &mut self,
        case: &RunIndex<'_>,
        (from, end): (Slot, Slot),
        last_shown: Slot,
        shown: &[(Slot, Ballot)],
        told: OmittedSlots,
        at: usize,
    ) -> OmittedReport {
        let Event::Promise { ballot: promised, .. } = case.run.line(at).event else { return OmittedReport::Unknown };
        let known: BTreeMap<Slot, Ballot> =
            self.accepted.range(from..=end.max(from)).map(|(slot, (b, _))| (*slot, *b)).collect();
        let known: BTreeMap<Slot, Ballot> = known.into_iter().filter(|(slot, _)| *slot > last_shown).collect();
        let sum = |slots: &mut dyn Iterator<Item = (Slot, Ballot)>| {
            slots.fold(0, |sum: u64, (slot, ballot)| sum.wrapping_add(fingerprint(slot, ballot)))
        };
        let known_sum = sum(&mut known.iter().map(|(slot, ballot)| (*slot, *ballot)));
        let lacks = told.sum.wrapping_sub(known_sum).wrapping_sub(sum(&mut shown.iter().copied()));
        if lacks == 0 && told.count == known.len() as u64 {
            return OmittedReport::Found;
        }
        if !self.may_know_more {
            return OmittedReport::Other;
        }
        // What was proposed behind the slots shown, and is not known to be accepted or overruled.
        let perhaps = case.accepts.range((last_shown.next(), Ballot::ZERO)..).map(|(key, _)| *key);
        let perhaps = perhaps.filter(|(slot, _)| *slot <= end);
        let perhaps = perhaps.filter(|(slot, ballot)| *ballot <= promised && known.get(slot) < Some(ballot));
        let perhaps = perhaps.map(|(slot, ballot)| UnloggedAccept {
            slot,
            ballot,
            gain: fingerprint(slot, ballot)
                .wrapping_sub(known.get(&slot).map_or(0, |before| fingerprint(slot, *before))),
            is_new: !known.contains_key(&slot),
        });
        let new = told.count.wrapping_sub(known.len() as u64);
        match guess(&perhaps.collect::<Vec<_>>(), lacks, new) {
            Inference::These(slots) => {
                self.accepted.extend(slots.into_iter().map(|guess| (guess.slot, (guess.ballot, at))));
                OmittedReport::Found
            }
            Inference::None => OmittedReport::NotProposed,
            Inference::TooMany => OmittedReport::Unknown,
        }
    }
}

/// Whether it is known what a PROMISE line has no room for.
enum OmittedReport {
    /// It is what the acceptor is now known to have accepted.
    Found,
    /// There are too many possibilities.
    Unknown,
    /// It is not what the acceptor has accepted, all of which the lines show.
    Other,
    /// No proposals that lines show explain it.
    NotProposed,
}

/// Nobody accepts what nobody has proposed.
fn check_was_proposed(case: &mut RunIndex<'_>, slot: Slot, ballot: Ballot, at: usize) {
    if case.is_claim(at) && !case.accepts.contains_key(&(slot, ballot)) {
        let says = format!("slot {slot} was accepted at {ballot}, and no line of {} proposes it", ballot.server);
        case.missing(Rule::Ballot, [ballot.server].into_iter().collect(), &[at], says);
    }
}
