//! The log lines of a client: each request, each failover, and the result.

use std::net::SocketAddr;
use std::time::Duration;

use super::outcome::{ClientError, RequestKind, Tries, Try, TryEnd};
use super::wire::NoReply;
use crate::codec;
use crate::kv::{self, WriteResult};
use crate::net::{ClientReply, Reply, Request, WhyNotApplied, WhyUnknown};
use crate::role::ServerId;
use crate::trace::{
    Event, LineId, Millis, OpKind, Parent, PendingLine, QuotedText, RequestStatus, Speaker, Trace, TraceContext,
};

/// The log lines of one request.
pub(super) struct RequestTrace {
    trace: Trace,
    /// The request's label, as in `c1-5`.
    label: String,
    /// The last line about a send: the parent of the reply's line.
    sent: Option<LineId>,
}

impl RequestTrace {
    /// Logs a new request to a server. Requests that are not about a key or a session have no lines: they change no
    /// state.
    pub(super) fn begin(trace: &Trace, label: String, request: &Request, to: ServerId) -> RequestTrace {
        let mut lines = RequestTrace { trace: Trace::disabled(), label, sent: None };
        // Without a log there is no need to format the texts.
        if trace.process().is_some()
            && let Some(event) = asked(request, to)
        {
            lines.trace = trace.clone();
            lines.sent = lines.write_line(event, Parent::None, None);
        }
        lines
    }

    /// The trace context that is sent with the request.
    pub(super) fn context(&self) -> TraceContext {
        TraceContext { parent: self.sent.clone(), req: (!self.label.is_empty()).then(|| self.label.clone()) }
    }

    /// Logs a failed try and the next server.
    pub(super) fn failover(&mut self, failed: &Try, to: ServerId) {
        let cause = QuotedText::from(failed.end.word());
        let event = Event::Failover { waited: failed.took.into(), cause, from: failed.server, to };
        let why = format!("{failed}; sending the same request to server {}", to.0);
        let line = self.write_line(event, self.sent.clone().into(), Some(why));
        self.sent = line.or(self.sent.take());
    }

    /// Logs that the request ended without a result from a server.
    pub(super) fn gave_up(&self, error: &ClientError) {
        if self.trace.process().is_none() {
            return;
        }
        let (ClientError::NotApplied(tries) | ClientError::Unknown(tries)) = error else { return };
        let (status, why) = match (tries.asked, tries.may_be_applied) {
            (RequestKind::Read, _) => (RequestStatus::NotApplied, "nothing was read"),
            (RequestKind::Session, true) => {
                (RequestStatus::Unknown, "the session may still be opened; the write was not sent")
            }
            (RequestKind::Session, false) => (RequestStatus::NotApplied, "the write was not sent"),
            (RequestKind::Write | RequestKind::Order, true) => (RequestStatus::Unknown, "may still be applied"),
            (RequestKind::Write | RequestKind::Order, false) => (RequestStatus::NotApplied, "certainly not applied"),
        };
        let asked = tries.last.iter().map(|one| one.server).collect();
        let event = Event::Timeout { waited: tries.took.into(), tries: crate::trace::TriedServers(asked), status };
        self.write_line(event, self.sent.clone().into(), Some(format!("{why}; continuing with the next request")));
    }

    /// Logs a server's reply.
    pub(super) fn replied(&self, reply: &ClientReply, from: ServerId, took: Duration) {
        if self.trace.process().is_some()
            && let Some(event) = received(&reply.reply, from, took)
        {
            self.write_line(event, reply.context.parent.clone().into(), None);
        }
    }

    /// The request's label, as in `c1-5`.
    pub(super) fn label(&self) -> String {
        self.label.clone()
    }

    /// Logs that the servers take no more writes of the session that a write was sent in.
    pub(super) fn session_ended(&self, tries: &Tries) {
        let Some(last) = tries.last.last() else { return };
        let (status, why) = match (tries.may_be_applied, &last.end) {
            (false, _) => (RequestStatus::NotApplied, "certainly not applied, so it may be sent in a new session"),
            (true, TryEnd::Unknown(WhyUnknown::Expired) | TryEnd::NotApplied(WhyNotApplied::Expired)) => {
                (RequestStatus::Expired, "may have been applied by an earlier try; it is never sent again")
            }
            (true, _) => (RequestStatus::Superseded, "may have been applied by an earlier try; it is never sent again"),
        };
        let mut line = response(status, last.server, tries.took);
        if let (false, Event::Response { cause, .. }) = (tries.may_be_applied, &mut line) {
            *cause = Some(QuotedText::from(last.end.word()));
        }
        self.write_line(line, self.sent.clone().into(), Some(why.to_string()));
    }

    /// Logs a reply to a request that was not made.
    pub(super) fn unrequested(&self, reply: &ClientReply, connection: (ServerId, SocketAddr), asked: u64) {
        let (server, from) = connection;
        let length = codec::encode(reply).len() as u64;
        let why = format!(
            "received an unrequested reply of length {length} from server {}: it is for request {}, but {asked} is in flight",
            server.0, reply.number
        );
        self.write_line(Event::Malformed { length, from }, self.sent.clone().into(), Some(why));
    }

    /// Logs bytes that are no valid reply.
    pub(super) fn malformed(&self, no_reply: &NoReply, from: SocketAddr) {
        if let NoReply::Malformed { length, what } = no_reply {
            let why = format!("received malformed reply of length {length} from {from}: {what}");
            self.write_line(Event::Malformed { length: *length, from }, self.sent.clone().into(), Some(why));
        }
    }

    fn write_line(&self, event: Event, re: Parent, why: Option<String>) -> Option<LineId> {
        self.trace.line(PendingLine {
            role: Speaker::Client,
            req: Some(self.label.clone()),
            event,
            parent: re,
            reason: why,
        })
    }
}

/// The event of a request.
fn asked(request: &Request, to: ServerId) -> Option<Event> {
    let event = |op, key: Option<&[u8]>| Event::Request {
        op,
        key: key.map(QuotedText::new),
        value: None,
        if_version: None,
        from: None,
        to: Some(to),
        session: None,
        sequence: None,
    };
    let mut line = match request {
        Request::Open { .. } => event(OpKind::Open, None),
        Request::Get { key } => event(OpKind::Get, Some(key)),
        Request::Write { op: kv::Op::Put { key, .. }, .. } => event(OpKind::Put, Some(key)),
        Request::Write { op: kv::Op::Delete { key }, .. } => event(OpKind::Delete, Some(key)),
        Request::Status
        | Request::State { .. }
        | Request::Crash { .. }
        | Request::Restart { .. }
        | Request::Cut { .. }
        | Request::Join { .. } => return None,
    };
    if let (
        Request::Write { session: in_session, sequence: number, op, .. },
        Event::Request { value, if_version, session, sequence, .. },
    ) = (request, &mut line)
    {
        (*session, *sequence) = (Some(*in_session), Some(*number));
        if let kv::Op::Put { value: new, if_version: wanted, .. } = op {
            (*value, *if_version) = (Some(QuotedText::new(new)), *wanted);
        }
    }
    Some(line)
}

/// The event of a reply that is a result.
fn received(reply: &Reply, from: ServerId, took: Duration) -> Option<Event> {
    let mut line = response(RequestStatus::Ok, from, took);
    let Event::Response { status, slot, version, value, session, cause, .. } = &mut line else { return None };
    match reply {
        Reply::Opened { session: opened, .. } => *session = Some(*opened),
        Reply::Applied { slot: at, written, .. } => {
            let now = match written {
                WriteResult::Done { version } => (RequestStatus::Ok, version),
                WriteResult::NotFound { version } => (RequestStatus::NotFound, version),
                WriteResult::Mismatch { version } => (RequestStatus::Mismatch, version),
            };
            (*status, *slot, *version) = (now.0, Some(*at), Some(*now.1));
        }
        Reply::Value { slot: at, value: found, version: now } => {
            (*slot, *version, *value) = (Some(*at), Some(*now), found.as_deref().map(QuotedText::new));
            if found.is_none() {
                *status = RequestStatus::NotFound;
            }
        }
        Reply::Refused(why) => (*status, *cause) = (RequestStatus::NotApplied, Some(QuotedText::new(why))),
        Reply::NotApplied(_) | Reply::Unknown(_) | Reply::Status(_) | Reply::Chunk(_) | Reply::Done => return None,
    }
    Some(line)
}

fn response(status: RequestStatus, from: ServerId, took: Duration) -> Event {
    Event::Response {
        status,
        slot: None,
        version: None,
        value: None,
        session: None,
        cause: None,
        took: Millis::from(took),
        server: Some(from),
        to: None,
    }
}
