//! Replies on their way out: the lines of a group with one write, and then its replies, with one write a connection.

use super::desk::Told;
use super::house::House;
use super::lines;
use super::outlet;
use crate::trace::{Context, Draft, RoleTag};

impl House {
    /// Sends what has been told since the last time. Whoever tells a group of waiters calls this at the end of it.
    pub fn send_replies(&self) {
        let told = self.desk.take_told();
        if told.is_empty() {
            return;
        }
        let contexts = self.tell_replies(&told);
        outlet::send(told.into_iter().zip(contexts).map(|(told, context)| (told.asker, context, told.reply)));
    }

    /// The lines of replies; gives what goes with each reply.
    fn tell_replies(&self, told: &[Told]) -> Vec<Context> {
        if !self.trace.steps() {
            return vec![Context::default(); told.len()];
        }
        let mut drafts = Vec::new();
        let contexts = told.iter().map(|Told { asker, reply, cause }| {
            // What told us comes from a line, but perhaps of another request's: the label stays the request's own.
            let re = cause.re.clone().or_else(|| asker.context.re.clone());
            let context = Context { re, req: asker.context.req.clone() };
            let event = lines::response(reply, asker.begun.elapsed(), asker.address());
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
