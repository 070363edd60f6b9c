//! Line filter: the lines of one request or one slot, with the crashes that overlap them. A line follows its parent;
//! otherwise lines are in order of time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::event::Event;
use super::field::{SlotFrom, SlotSpan};
use super::line::Line;
use super::parse::Run;
use super::request_spans::outages;
use crate::paxos::{Ballot, NackedRequest, Slot};

/// Which lines to print; each filter narrows the selection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineFilter {
    /// Lines of the request with this label.
    pub req: Option<String>,
    /// Lines about this slot: its ballots, its value, and the requests whose commands were proposed in it.
    pub slot: Option<Slot>,
}

/// The lines to print: their indices in the run, in print order.
pub fn select(run: &Run, filter: &LineFilter) -> Vec<usize> {
    let mut selected: BTreeSet<usize> = (0..run.lines.len()).collect();
    if let Some(req) = &filter.req {
        selected.retain(|at| run.line(*at).req.as_ref() == Some(req));
    }
    if let Some(slot) = filter.slot {
        let about = FilterTarget::new(run, slot);
        selected.retain(|at| about.has(run.line(*at)));
    }
    if filter != &LineFilter::default() {
        add_failures(run, &mut selected);
    }
    in_order(run, &selected)
}

/// What the lines about a slot may refer to.
struct FilterTarget {
    slot: Slot,
    /// The ballots at which something was proposed in the slot.
    ballots: BTreeSet<Ballot>,
    /// The requests whose commands were proposed in the slot.
    labels: BTreeSet<String>,
}

impl FilterTarget {
    fn new(run: &Run, slot: Slot) -> FilterTarget {
        let mut about = FilterTarget { slot, ballots: BTreeSet::new(), labels: BTreeSet::new() };
        for entry in &run.lines {
            if let Event::Accept { slot: at, ballot, key, .. } = &entry.line.event
                && *at == slot
            {
                about.ballots.insert(*ballot);
                // A no-op carries the label of the request that caused it, but that request's command is not in the
                // slot.
                about.labels.extend(entry.line.req.clone().filter(|_| key.is_some()));
            }
        }
        about
    }

    fn has(&self, line: &Line) -> bool {
        match &line.event {
            Event::Accept { slot, .. }
            | Event::Accepted { slot, .. }
            | Event::Chosen { slot, .. }
            | Event::Learn { slot, .. }
            | Event::Fill { slot, .. }
            | Event::Nack { slot: NackedRequest::Accept(slot), .. }
            | Event::Violation { slot: Some(slot), .. } => *slot == self.slot,
            Event::Prepare { slot: SlotFrom(from), ballot, .. }
            | Event::Promise { slot: SlotSpan { first: from, .. }, ballot, .. }
            | Event::Nack { slot: NackedRequest::Prepare(from), ballot, .. }
            | Event::Retry { slot: from, ballot, .. } => *from == self.slot || self.ballots.contains(ballot),
            Event::Request { .. } | Event::Response { .. } | Event::Timeout { .. } | Event::Failover { .. } => {
                line.req.as_ref().is_some_and(|req| self.labels.contains(req))
            }
            _ => false,
        }
    }
}

/// Adds the crashes and restarts of roles and processes that overlap the selected lines.
fn add_failures(run: &Run, selected: &mut BTreeSet<usize>) {
    let times = || selected.iter().map(|at| run.line(*at).time);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return };
    let mut failures = Vec::new();
    for outage in outages(run) {
        let is_before_end = run.line(outage.crash).time <= last;
        let is_after_begin = outage.restart.is_none_or(|restart| run.line(restart).time >= first);
        if is_before_end && is_after_begin {
            failures.extend([Some(outage.crash), outage.restart].into_iter().flatten());
        }
    }
    // A killed process writes no last line; its next incarnation writes BOOT.
    let reborn = |line: &Line| matches!(line.event, Event::Boot { .. }) && line.id.process.incarnation() > 1;
    let reborn =
        (0..run.lines.len()).filter(|at| reborn(run.line(*at)) && (first..=last).contains(&run.line(*at).time));
    failures.extend(reborn);
    selected.extend(failures);
}

/// Orders lines by cause and time: each follows its parent (`re=`) and the earlier lines of its process. Among lines
/// that are ready, the earliest comes first.
fn in_order(run: &Run, selected: &BTreeSet<usize>) -> Vec<usize> {
    let by_id = run.by_id();
    let mut waits: BTreeMap<usize, usize> = selected.iter().map(|at| (*at, 0)).collect();
    let mut frees: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut wait = |at: usize, before: usize| {
        frees.entry(before).or_default().push(at);
        *waits.entry(at).or_default() += 1;
    };
    for lines in run.by_process().into_values() {
        let lines: Vec<usize> = lines.into_iter().filter(|at| selected.contains(at)).collect();
        for pair in lines.windows(2) {
            wait(pair[1], pair[0]);
        }
    }
    for at in selected {
        let cause = run.line(*at).parent.as_ref().and_then(|re| by_id.get(re));
        if let Some(cause) = cause.filter(|cause| selected.contains(cause)) {
            wait(*at, *cause);
        }
    }
    let key = |at: usize| Reverse((run.line(at).time, at));
    let mut free: BinaryHeap<_> = waits.iter().filter(|(_, waits)| **waits == 0).map(|(at, _)| key(*at)).collect();
    let mut ordered = Vec::with_capacity(selected.len());
    while let Some(Reverse((_, at))) = free.pop() {
        ordered.push(at);
        for next in frees.remove(&at).unwrap_or_default() {
            if let Some(waits) = waits.get_mut(&next) {
                *waits -= 1;
                if *waits == 0 {
                    free.push(key(next));
                }
            }
        }
    }
    // Lines that name each other in a circle are forged. They are printed all the same, by time.
    let placed: BTreeSet<usize> = ordered.iter().copied().collect();
    let mut rest: Vec<usize> = selected.difference(&placed).copied().collect();
    rest.sort_by_key(|at| run.line(*at).time);
    ordered.extend(rest);
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The clock of s2 is 10 ms behind: its lines have earlier times than their parents.
    const LINES: &str = "\
2026-08-21T14:03:06.000000Z WARN  s3.1    acceptor CRASH    cause=timer up=4.402s down=2.150s
2026-08-21T14:03:06.500000Z WARN  s3.2    learner  CRASH    cause=timer up=4.402s down=0.100s
2026-08-21T14:03:06.600000Z INFO  s3.3    learner  RESTART  down=0.100s recovered=disk applied=0
2026-08-21T14:03:07.104000Z INFO  c1.9    client   REQUEST  req=c1-5 op=PUT key=color value=blue to=s1
2026-08-21T14:03:07.104455Z INFO  s1.1    proposer PREPARE  req=c1-5 slot=7+ ballot=3.1 to=s1,s2,s3 re=c1.9
2026-08-21T14:03:07.095000Z INFO  s2.1    acceptor PROMISE  req=c1-5 slot=7+ ballot=3.1 accepted=none to=s1 re=s1.1
2026-08-21T14:03:07.105388Z INFO  s1.2    proposer ACCEPT   req=c1-5 slot=7 ballot=3.1 op=PUT key=color value=blue adopted=none quorum=s1,s2 to=s1,s2,s3 re=s2.1
2026-08-21T14:03:07.096000Z INFO  s2.2    acceptor ACCEPTED req=c1-5 slot=7 ballot=3.1 to=s1 re=s1.2
2026-08-21T14:03:07.106000Z INFO  s1.3    proposer PREPARE  req=c2-1 slot=8+ ballot=4.1 to=s1,s2,s3
2026-08-21T14:03:07.110000Z INFO  s1.4    learner  CHOSEN   req=c1-5 slot=7 ballot=3.1 quorum=s1,s2 to=s1,s2,s3 re=s2.2
2026-08-21T14:03:08.061377Z INFO  s3.4    acceptor RESTART  down=2.150s recovered=disk promised=2.4 accepted=6
2026-08-21T14:03:09.000000Z WARN  s3.5    acceptor CRASH    cause=timer up=4.402s down=2.150s
";

    fn selected_ids(filter: LineFilter) -> Vec<String> {
        let mut run = Run::default();
        run.add("all.log", LINES.as_bytes(), u64::MAX).unwrap();
        select(&run, &filter).into_iter().map(|at| run.line(at).id.to_string()).collect()
    }

    #[test]
    fn request_filter_orders_by_cause_and_includes_crashes() {
        let expected = ["s3.1", "c1.9", "s1.1", "s2.1", "s1.2", "s2.2", "s1.4", "s3.4"];
        assert_eq!(selected_ids(LineFilter { req: Some("c1-5".into()), slot: None }), expected);
    }

    #[test]
    fn slot_filter_includes_its_ballots_and_request() {
        let expected = ["s3.1", "c1.9", "s1.1", "s2.1", "s1.2", "s2.2", "s1.4", "s3.4"];
        assert_eq!(selected_ids(LineFilter { req: None, slot: Some(Slot(7)) }), expected);
        assert_eq!(selected_ids(LineFilter { req: None, slot: Some(Slot(8)) }), ["s3.1", "s1.3", "s3.4"]);
        assert_eq!(selected_ids(LineFilter { req: Some("c2-1".into()), slot: Some(Slot(7)) }), [""; 0]);
    }

    #[test]
    fn empty_filter_selects_every_line() {
        let all = selected_ids(LineFilter::default());
        assert_eq!(all.len(), LINES.lines().count());
        let place = |id: &str| all.iter().position(|other| other == id).unwrap();
        assert!(place("s1.1") < place("s2.1") && place("s2.2") < place("s1.4"));
    }

    #[test]
    fn lines_with_cyclic_parents_are_selected_once() {
        let circle = LINES.replace("to=s1,s2,s3 re=c1.9", "to=s1,s2,s3 re=s1.4");
        let mut run = Run::default();
        run.add("all.log", circle.as_bytes(), u64::MAX).unwrap();
        let mut all = select(&run, &LineFilter::default());
        all.sort_unstable();
        assert!(all.into_iter().eq(0..LINES.lines().count()));
    }
}
