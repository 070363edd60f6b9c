//! Client replies, checked against the log: the right result, in an order that agrees with real time.

use std::collections::BTreeMap;

use super::super::clocks::first_set_back;
use super::super::event::Event;
use super::super::quoted::QuotedText;
use super::super::request_spans::{RequestSpan, request_spans};
use super::super::values::{LearnResult, OpKind, RequestStatus};
use super::{Rule, RunIndex};
use crate::paxos::Slot;

/// A result that a client received.
struct ReportedResult<'a> {
    status: RequestStatus,
    slot: Option<Slot>,
    version: Option<u64>,
    value: Option<&'a QuotedText>,
}

pub(super) fn check(case: &mut RunIndex<'_>) {
    let spans = request_spans(case.run);
    let store = ExpectedValues::new(case);
    for exchange in &spans {
        let Some(reply) = exchange.reply.filter(|reply| case.is_claim(*reply)) else { continue };
        let Some(reported) = reported_result(&case.run.line(reply).event) else { continue };
        case.counts.replies += 1;
        match (exchange.op, reported.status) {
            (OpKind::Put | OpKind::Delete, RequestStatus::Ok | RequestStatus::NotFound | RequestStatus::Mismatch) => {
                check_write(case, exchange, reply, &reported);
            }
            (OpKind::Put | OpKind::Delete, RequestStatus::NotApplied) => check_not_applied(case, exchange, reply),
            (OpKind::Get, RequestStatus::Ok | RequestStatus::NotFound) => {
                check_read(case, &store, exchange, reply, &reported)
            }
            _ => {}
        }
    }
    check_real_time(case, &spans);
}

fn reported_result(event: &Event) -> Option<ReportedResult<'_>> {
    match event {
        Event::Response { status, slot, version, value, .. } => {
            Some(ReportedResult { status: *status, slot: *slot, version: *version, value: value.as_ref() })
        }
        Event::Timeout { status, .. } => {
            Some(ReportedResult { status: *status, slot: None, version: None, value: None })
        }
        _ => None,
    }
}

/// An acknowledged write is in its slot, with this result.
fn check_write(case: &mut RunIndex<'_>, exchange: &RequestSpan<'_>, reply: usize, reported: &ReportedResult<'_>) {
    let lines = [exchange.request, reply];
    let Some(slot) = reported.slot else {
        return case.violated(Rule::Reply, &lines, "a write is acknowledged without a slot".into());
    };
    let Some(learn) = case.learns.get(&slot).map(|lines| lines[0]) else {
        // A learner must apply the slot before the server replies.
        let says = format!("a write is acknowledged in slot {slot}, which no server has applied");
        return case.missing_anywhere(Rule::Once, &lines, says);
    };
    let line = case.run.line(learn);
    let Event::Learn { op, key, value, id, result, version, .. } = &line.event else { return };
    let same = (*op, key.as_ref(), value.as_ref()) == (exchange.op, exchange.key, exchange.value)
        && line.req == case.run.line(exchange.request).req
        && (exchange.id.is_none() || exchange.id == *id);
    let lines = [exchange.request, learn, reply];
    if !same {
        let says = format!("a write is acknowledged in slot {slot}, which holds another command");
        case.violated(Rule::Once, &lines, says);
    } else if (status(*result), *version) != (Some(reported.status), reported.version) {
        case.violated(Rule::Reply, &lines, format!("the reply differs from the result of slot {slot}"));
    }
}

fn status(result: LearnResult) -> Option<RequestStatus> {
    match result {
        LearnResult::Ok => Some(RequestStatus::Ok),
        LearnResult::NotFound => Some(RequestStatus::NotFound),
        LearnResult::Mismatch => Some(RequestStatus::Mismatch),
        // A reply names the slot of the effect, never that of a repetition.
        _ => None,
    }
}

/// A write with the reply "not applied" has no effect.
fn check_not_applied(case: &mut RunIndex<'_>, exchange: &RequestSpan<'_>, reply: usize) {
    let (Some(wanted), req) = (exchange.id, &case.run.line(exchange.request).req) else { return };
    let effect = case.learns.values().map(|lines| lines[0]).find(|at| {
        let line = case.run.line(*at);
        // A client that continues from an earlier history may have used the same session and sequence as another one's
        // write.
        let is_it = |id, result| id == Some(wanted) && status(result).is_some() && line.req == *req;
        matches!(line.event, Event::Learn { id, result, .. } if is_it(id, result))
    });
    if let Some(effect) = effect {
        let says = "a write that was reported as not applied was applied".to_string();
        case.violated(Rule::Reply, &[exchange.request, reply, effect], says);
    }
}

/// A read returns the last write applied at or before its slot.
fn check_read(
    case: &mut RunIndex<'_>,
    store: &ExpectedValues<'_>,
    exchange: &RequestSpan<'_>,
    reply: usize,
    reported: &ReportedResult<'_>,
) {
    let lines = [exchange.request, reply];
    let (Some(slot), Some(key)) = (reported.slot, exchange.key) else {
        return case.violated(Rule::Reply, &lines, "a read is answered without a slot or a key".into());
    };
    if slot > store.known {
        let says =
            format!("a read is answered from slot {slot}, but no line shows what slot {} holds", store.known.next());
        return case.missing_anywhere(Rule::Reply, &lines, says);
    }
    let write = store.at(key, slot);
    let found = write.map_or((0, None), |write| (write.version, write.value));
    let has_status = (reported.status == RequestStatus::Ok) == found.1.is_some();
    if (reported.version, reported.value) != (Some(found.0), found.1) || !has_status {
        let says = format!("a read from slot {slot} does not return the last write before it");
        let lines: Vec<usize> = write.map(|write| write.learn).into_iter().chain(lines).collect();
        case.violated(Rule::Reply, &lines, says);
    }
}

/// The value of each key after each slot.
struct ExpectedValues<'a> {
    keys: BTreeMap<&'a QuotedText, BTreeMap<Slot, AppliedWrite<'a>>>,
    /// All slots up to this one are known.
    known: Slot,
}

/// An applied write.
struct AppliedWrite<'a> {
    learn: usize,
    version: u64,
    /// None for a delete.
    value: Option<&'a QuotedText>,
}

impl<'a> ExpectedValues<'a> {
    fn new(case: &RunIndex<'a>) -> ExpectedValues<'a> {
        let mut store = ExpectedValues { keys: BTreeMap::new(), known: Slot(0) };
        for (slot, lines) in &case.learns {
            if *slot != store.known.next() {
                break;
            }
            store.known = *slot;
            let at = lines[0];
            if let Event::Learn { key: Some(key), value, result: LearnResult::Ok, version: Some(version), .. } =
                &case.run.line(at).event
            {
                store
                    .keys
                    .entry(key)
                    .or_default()
                    .insert(*slot, AppliedWrite { learn: at, version: *version, value: value.as_ref() });
            }
        }
        store
    }

    /// The last write to the key at or before a slot.
    fn at(&self, key: &QuotedText, slot: Slot) -> Option<&AppliedWrite<'a>> {
        self.keys.get(key)?.range(..=slot).next_back().map(|(_, write)| write)
    }
}

/// A position in the order of all operations: a read follows the slot that it was answered from.
type OrderPosition = (Slot, bool);

/// A request or a reply, and the position that the reply names.
struct Moment {
    at: usize,
    is_reply: bool,
    position: OrderPosition,
    /// The lines of the request and of the reply.
    lines: [usize; 2],
}

/// An operation whose reply precedes another request also precedes it in the log. Two reads may share a position.
fn check_real_time(case: &mut RunIndex<'_>, spans: &[RequestSpan<'_>]) {
    let run = case.run;
    let position = |exchange: &RequestSpan<'_>| -> Option<OrderPosition> {
        let reported = reported_result(&run.line(exchange.reply?).event)?;
        match (exchange.op, reported.status) {
            (OpKind::Put | OpKind::Delete, RequestStatus::Ok | RequestStatus::NotFound | RequestStatus::Mismatch) => {
                Some((reported.slot?, false))
            }
            (OpKind::Get, RequestStatus::Ok | RequestStatus::NotFound) => Some((reported.slot?, true)),
            _ => None,
        }
    };
    let mut moments = Vec::new();
    for exchange in spans {
        if let (Some(place), Some(reply)) = (position(exchange), exchange.reply) {
            let lines = [exchange.request, reply];
            moments.push(Moment { at: exchange.request, is_reply: false, position: place, lines });
            moments.push(Moment { at: reply, is_reply: true, position: place, lines });
        }
    }
    // A client's own lines are in order, whatever its clock shows.
    let mut broken = BTreeMap::new();
    moments.sort_by_key(|moment| &run.line(moment.at).id);
    let is_same = |a: &Moment, b: &Moment| run.line(a.at).id.process == run.line(b.at).id.process;
    for own in moments.chunk_by(is_same) {
        broken.extend(out_of_order(own));
    }
    for (lines, says) in &broken {
        case.violated(Rule::RealTime, lines, says.clone());
    }
    // Requests before replies at the same microsecond: such a pair has no order.
    moments.sort_by_key(|moment| (run.line(moment.at).time, moment.is_reply));
    let set_back = first_set_back(run.lines.iter().map(|entry| &entry.line)).map(|line| line.id.clone());
    for (lines, says) in out_of_order(&moments) {
        match &set_back {
            _ if broken.contains_key(&lines) => {}
            Some(id) => {
                let says = format!("{says} (uncertain: the clock was set back before {id})");
                case.unproven(Rule::RealTime, &lines, says);
            }
            None if !case.knows_clock => {
                let says = format!("{says} (uncertain: lines are missing that may show that the clock was set back)");
                case.unproven(Rule::RealTime, &lines, says);
            }
            None => case.violated(Rule::RealTime, &lines, says),
        }
    }
}

/// Scans moments in time order for requests whose position is before one that was already replied.
fn out_of_order(moments: &[Moment]) -> BTreeMap<[usize; 4], String> {
    let mut latest: Option<(OrderPosition, [usize; 2])> = None;
    let mut broken = BTreeMap::new();
    for Moment { is_reply, position: place, lines, .. } in moments {
        if *is_reply {
            if latest.is_none_or(|(before, _)| before < *place) {
                latest = Some((*place, *lines));
            }
        } else if let Some((before, [request, reply])) = latest
            && (*place < before || (*place == before && !place.1))
        {
            let says = format!("slot {} was answered before the request of slot {} began", before.0, place.0);
            broken.insert([request, reply, lines[0], lines[1]], says);
        }
    }
    broken
}
