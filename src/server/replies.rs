//! Replies on their way out: the lines of a group with one write, and then its replies, with one write a connection.

use std::sync::Arc;

use super::clock;
use super::house::House;
use super::lines;
use super::outlet::{self, Outlet};
use crate::host::{Connection, QueuedReply};
use crate::trace::{Context, Draft, RoleTag};

impl House {
    /// Sends what has been told since the last time. Whoever tells a group of waiters calls this at the end of it.
    pub fn send_replies(&self) {
        let replies = self.pending.take_queued();
        if replies.is_empty() {
            return;
        }
        let contexts = self.tell_replies(&replies);
        outlet::send(replies.into_iter().zip(contexts).map(|(one, context)| (one.asker, context, one.reply)));
    }

    /// The lines of replies; gives what goes with each reply.
    fn tell_replies(&self, replies: &[QueuedReply<Arc<Outlet>>]) -> Vec<Context> {
        if !self.trace.steps() {
            return vec![Context::default(); replies.len()];
        }
        let mut drafts = Vec::new();
        let now = clock::now();
        let contexts = replies.iter().map(|QueuedReply { asker, reply, cause, .. }| {
            // What told us comes from a line, but perhaps of another request's: the label stays the request's own.
            let re = cause.re.clone().or_else(|| asker.context.re.clone());
            let context = Context { re, req: asker.context.req.clone() };
            let event = lines::response(reply, now.since(asker.since), asker.connection.address());
            let line = event.map(|event| {
                drafts.push(Draft::about(RoleTag::Server, event, &context));
                drafts.len() - 1
            });
            (context, line)
        });
        let contexts: Vec<(Context, Option<usize>)> = contexts.collect();
        let ids = self.trace.write_group(&drafts);
        let with_line = |(context, line): (Context, Option<usize>)| {
            let id = line.and_then(|line| ids.get(line).cloned().flatten());
            Context { re: id.or(context.re), req: context.req }
        };
        contexts.into_iter().map(with_line).collect()
    }
}
