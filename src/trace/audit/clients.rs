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

pub(super) fn check(index: &mut RunIndex<'_>) {
    let spans = request_spans(index.run);
    let store = ExpectedValues::new(index);
    for span in &spans {
        let Some(reply) = span.reply.filter(|reply| index.is_claim(*reply)) else { continue };
        let Some(reported) = reported_result(&index.run.line(reply).event) else { continue };
        index.counts.replies += 1;
        match (span.op, reported.status) {
            (OpKind::Put | OpKind::Delete, RequestStatus::Ok | RequestStatus::NotFound | RequestStatus::Mismatch) => {
                check_write(index, span, reply, &reported);
            }
            (OpKind::Put | OpKind::Delete, RequestStatus::NotApplied) => check_not_applied(index, span, reply),
            (OpKind::Get, RequestStatus::Ok | RequestStatus::NotFound) => {
                check_read(index, &store, span, reply, &reported)
            }
            _ => {}
        }
    }
    check_real_time(index, &spans);
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
fn check_write(index: &mut RunIndex<'_>, span: &RequestSpan<'_>, reply: usize, reported: &ReportedResult<'_>) {
    let lines = [span.request, reply];
    let Some(slot) = reported.slot else {
        return index.violated(Rule::Reply, &lines, "a write is acknowledged without a slot".into());
    };
    let Some(learn) = index.learns.get(&slot).map(|lines| lines[0]) else {
        // A learner must apply the slot before the server replies.
        let message = format!("a write is acknowledged in slot {slot}, which no server has applied");
        return index.missing_anywhere(Rule::Once, &lines, message);
    };
    let line = index.run.line(learn);
    let Event::Learn { op, key, value, id, result, version, .. } = &line.event else { return };
    let same = (*op, key.as_ref(), value.as_ref()) == (span.op, span.key, span.value)
        && line.req == index.run.line(span.request).req
        && (span.id.is_none() || span.id == *id);
    let lines = [span.request, learn, reply];
    if !same {
        let message = format!("a write is acknowledged in slot {slot}, which holds another command");
        index.violated(Rule::Once, &lines, message);
    } else if (status(*result), *version) != (Some(reported.status), reported.version) {
        index.violated(Rule::Reply, &lines, format!("the reply differs from the result of slot {slot}"));
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
fn check_not_applied(index: &mut RunIndex<'_>, span: &RequestSpan<'_>, reply: usize) {
    let (Some(wanted), req) = (span.id, &index.run.line(span.request).req) else { return };
    let effect = index.learns.values().map(|lines| lines[0]).find(|at| {
        let line = index.run.line(*at);
        // A client that continues from an earlier history may have used the same session and sequence as another one's
        // write.
        let is_it = |id, result| id == Some(wanted) && status(result).is_some() && line.req == *req;
        matches!(line.event, Event::Learn { id, result, .. } if is_it(id, result))
    });
    if let Some(effect) = effect {
        let message = "a write that was reported as not applied was applied".to_string();
        index.violated(Rule::Reply, &[span.request, reply, effect], message);
    }
}

/// A read returns the last write applied at or before its slot.
fn check_read(
    index: &mut RunIndex<'_>,
    store: &ExpectedValues<'_>,
    span: &RequestSpan<'_>,
    reply: usize,
    reported: &ReportedResult<'_>,
) {
    let lines = [span.request, reply];
    let (Some(slot), Some(key)) = (reported.slot, span.key) else {
        return index.violated(Rule::Reply, &lines, "a read is answered without a slot or a key".into());
    };
    if slot > store.known {
        let message =
            format!("a read is answered from slot {slot}, but no line shows what slot {} holds", store.known.next());
        return index.missing_anywhere(Rule::Reply, &lines, message);
    }
    let write = store.at(key, slot);
    let found = write.map_or((0, None), |write| (write.version, write.value));
    let has_status = (reported.status == RequestStatus::Ok) == found.1.is_some();
    if (reported.version, reported.value) != (Some(found.0), found.1) || !has_status {
        let message = format!("a read from slot {slot} does not return the last write before it");
        let lines: Vec<usize> = write.map(|write| write.learn).into_iter().chain(lines).collect();
        index.violated(Rule::Reply, &lines, message);
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
    fn new(index: &RunIndex<'a>) -> ExpectedValues<'a> {
        let mut store = ExpectedValues { keys: BTreeMap::new(), known: Slot(0) };
        for (slot, lines) in &index.learns {
            if *slot != store.known.next() {
                break;
            }
            store.known = *slot;
            let at = lines[0];
            if let Event::Learn { key: Some(key), value, result: LearnResult::Ok, version: Some(version), .. } =
                &index.run.line(at).event
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
fn check_real_time(index: &mut RunIndex<'_>, spans: &[RequestSpan<'_>]) {
    let run = index.run;
    let position = |span: &RequestSpan<'_>| -> Option<OrderPosition> {
        let reported = reported_result(&run.line(span.reply?).event)?;
        match (span.op, reported.status) {
            (OpKind::Put | OpKind::Delete, RequestStatus::Ok | RequestStatus::NotFound | RequestStatus::Mismatch) => {
                Some((reported.slot?, false))
            }
            (OpKind::Get, RequestStatus::Ok | RequestStatus::NotFound) => Some((reported.slot?, true)),
            _ => None,
        }
    };
    let mut moments = Vec::new();
    for span in spans {
        if let (Some(place), Some(reply)) = (position(span), span.reply) {
            let lines = [span.request, reply];
            moments.push(Moment { at: span.request, is_reply: false, position: place, lines });
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
    for (lines, message) in &broken {
        index.violated(Rule::RealTime, lines, message.clone());
    }
    // Requests before replies at the same microsecond: such a pair has no order.
    moments.sort_by_key(|moment| (run.line(moment.at).time, moment.is_reply));
    let set_back = first_set_back(run.lines.iter().map(|entry| &entry.line)).map(|line| line.id.clone());
    for (lines, message) in out_of_order(&moments) {
        match &set_back {
            _ if broken.contains_key(&lines) => {}
            Some(id) => {
                let message = format!("{message} (uncertain: the clock was set back before {id})");
                index.unproven(Rule::RealTime, &lines, message);
            }
            None if !index.knows_clock => {
                let message =
                    format!("{message} (uncertain: lines are missing that may show that the clock was set back)");
                index.unproven(Rule::RealTime, &lines, message);
            }
            None => index.violated(Rule::RealTime, &lines, message),
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
            let message = format!("slot {} was answered before the request of slot {} began", before.0, place.0);
            broken.insert([request, reply, lines[0], lines[1]], message);
        }
    }
    broken
}
