//! Facts that several lines state together: a request and its end, a crash and its restart.

use std::collections::BTreeMap;

use super::event::Event;
use super::line::Speaker;
use super::parse::Run;
use super::quoted::QuotedText;
use super::values::{CommandName, OpKind};
use crate::role::ServerId;

/// A request and its result, from the lines of its client. Lines are named by their index in the run.
#[derive(Clone, Debug)]
pub struct RequestSpan<'a> {
    /// The client's REQUEST.
    pub request: usize,
    /// The operation of the request.
    pub op: OpKind,
    /// The key of the operation.
    pub key: Option<&'a QuotedText>,
    /// The value to write.
    pub value: Option<&'a QuotedText>,
    /// The command's name, if the client states it.
    pub id: Option<CommandName>,
    /// The client's RESPONSE or TIMEOUT.
    pub reply: Option<usize>,
}

/// Pairs each request of a client with the line that ends it. A client may reuse a label after the request has ended.
/// So where lines are missing, requests in flight get no end.
pub fn request_spans(run: &Run) -> Vec<RequestSpan<'_>> {
    let mut spans: Vec<RequestSpan<'_>> = Vec::new();
    for lines in run.by_process().into_values() {
        let mut open: BTreeMap<&str, usize> = BTreeMap::new();
        let mut next = 1;
        for at in lines {
            let line = run.line(at);
            if line.id.n != next || matches!(line.event, Event::Lost { .. }) {
                open.clear();
            }
            next = line.id.n.saturating_add(1);
            let Some(req) = line.req.as_deref().filter(|_| line.role == Speaker::Client) else { continue };
            match &line.event {
                Event::Request { op, key, value, session, sequence, .. } => {
                    let id = session.zip(*sequence).map(|(session, sequence)| CommandName::Write { session, sequence });
                    let (key, value) = (key.as_ref(), value.as_ref());
                    open.insert(req, spans.len());
                    spans.push(RequestSpan { request: at, op: *op, key, value, id, reply: None });
                }
                Event::Response { .. } | Event::Timeout { .. } => {
                    if let Some(span) = open.remove(req) {
                        spans[span].reply = Some(at);
                    }
                }
                _ => {}
            }
        }
    }
    spans
}

/// A time during which a role was down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// The role's server.
    pub server: ServerId,
    /// The role.
    pub role: Speaker,
    /// Index of its CRASH.
    pub crash: usize,
    /// Index of its RESTART, or of the BOOT of its server's next process; None if the role stayed down.
    pub restart: Option<usize>,
}

/// Every crash of a role, with the restart that ended it.
pub fn outages(run: &Run) -> Vec<Outage> {
    let mut outages: Vec<Outage> = Vec::new();
    for (server, lines) in run.by_server() {
        let mut open: BTreeMap<Speaker, usize> = BTreeMap::new();
        for at in lines {
            let line = run.line(at);
            match line.event {
                Event::Crash { .. } => {
                    open.insert(line.role, outages.len());
                    outages.push(Outage { server, role: line.role, crash: at, restart: None });
                }
                Event::Restart { .. } => {
                    if let Some(outage) = open.remove(&line.role) {
                        outages[outage].restart = Some(at);
                    }
                }
                Event::Boot { .. } => {
                    for outage in std::mem::take(&mut open).into_values() {
                        outages[outage].restart = Some(at);
                    }
                }
                _ => {}
            }
        }
    }
    outages
}
