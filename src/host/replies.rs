//! The output of replies: writes the log lines of a batch with one write, and then sends its replies.

use super::core::ServerCore;
use super::env::{Env, Observation};
use super::limits::ClientConnection;
use super::pending::QueuedReply;
use super::trace_lines;
use crate::net::{ClientReply, Reply};
use crate::time::Time;
use crate::trace::{PendingLine, Speaker, TraceContext};

impl<C: ClientConnection> ServerCore<C> {
    /// Sends the queued replies. A caller that answers a batch of requests calls this once at the end.
    pub fn flush_replies<E: Env<Connection = C>>(&self, env: &E) {
        let replies = self.pending.take_queued();
        if replies.is_empty() {
            return;
        }
        for one in &replies {
            if let (Reply::Applied { slot, written, .. }, Some(id)) = (&one.reply, one.command) {
                env.observe(Observation::Acknowledged { id, slot: *slot, written: *written });
            }
        }
        let contexts = self.trace_replies(|| env.now(), &replies);
        let replies = replies.into_iter().zip(contexts).map(|(QueuedReply { reply_to, reply, .. }, context)| {
            let number = reply_to.number;
            (reply_to, ClientReply { number, context, reply })
        });
        env.write_replies(replies.collect());
    }

    /// Answers the requests whose time-out has passed.
    pub fn expire<E: Env<Connection = C>>(&self, env: &E) {
        self.pending.expire(env.now());
        self.flush_replies(env);
    }

    /// Writes the log lines of replies, and returns the context of each reply.
    fn trace_replies(&self, now: impl FnOnce() -> Time, replies: &[QueuedReply<C>]) -> Vec<TraceContext> {
        if !self.trace.steps() {
            return vec![TraceContext::default(); replies.len()];
        }
        let (mut drafts, now) = (Vec::new(), now());
        let contexts = replies.iter().map(|QueuedReply { reply_to, reply, cause, .. }| {
            // The cause may be a line of another client's request, so the label stays the request's own.
            let re = cause.parent.clone().or_else(|| reply_to.context.parent.clone());
            let context = TraceContext { parent: re, req: reply_to.context.req.clone() };
            let event = trace_lines::response(reply, now.since(reply_to.since), reply_to.connection.address());
            let line = event.map(|event| {
                drafts.push(PendingLine::about(Speaker::Server, event, &context));
                drafts.len() - 1
            });
            (context, line)
        });
        let contexts: Vec<(TraceContext, Option<usize>)> = contexts.collect();
        let ids = self.trace.write_group(&drafts);
        let with_line = |(context, line): (TraceContext, Option<usize>)| {
            let id = line.and_then(|line| ids.get(line).cloned().flatten());
            TraceContext { parent: id.or(context.parent), req: context.req }
        };
        contexts.into_iter().map(with_line).collect()
    }
}
