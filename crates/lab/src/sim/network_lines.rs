//! What the network of a scene cuts and loses, as lines of the servers concerned: a picture of the scene shows it.
//!
//! Servers of a real network cannot know this, and those of `simulate` do not write it.

use super::network::{Endpoint, LostMessage};
use super::simulation::Simulation;
use paxos_kv::net::{Envelope, PEER_FRAME_MAX_BYTES, unframe};
use paxos_kv::role::{ServerId, ServerSet};
use paxos_kv::trace::{Event, LinkEvent, QuotedText, Speaker, TraceContext};

impl Simulation {
    /// Cuts both directions of every link between two groups of servers, or joins them again. Each server of the first
    /// group writes a line.
    pub fn partition(&mut self, some: ServerSet, others: ServerSet, on: bool) {
        for one in some.iter() {
            for other in others.iter() {
                let [one, other] = [one, other].map(Endpoint::Server);
                self.sim_env.network.cut(one, other, on);
                self.sim_env.network.cut(other, one, on);
            }
            let state = if on { LinkEvent::Cut } else { LinkEvent::Joined };
            self.trace_network(one, &TraceContext::default(), Event::Link { peer: others, state, cause: None });
        }
    }

    /// Writes a line for each message of a protocol that was lost since the last call, in the log of its sender.
    /// Messages that a role repeats by itself get no line.
    pub(super) fn trace_losses(&mut self) {
        let losses = self.sim_env.network.take_losses();
        for copies in losses.chunk_by(is_same_message) {
            let LostMessage { from, bytes, cause, .. } = &copies[0];
            let Ok(Envelope { context, message }) = unframe(bytes, PEER_FRAME_MAX_BYTES) else { continue };
            if message.is_routine() || context.parent.is_none() {
                continue;
            }
            let to = Some(copies.iter().map(|copy| copy.to).collect());
            let event = Event::Drop { msg: QuotedText::new(message.name()), from: None, to, cause: *cause, n: None };
            self.trace_network(*from, &context, event);
        }
    }

    fn trace_network(&mut self, server: ServerId, context: &TraceContext, event: Event) {
        if let Some(process) = &self.server(server).process {
            process.core.trace_with_reason(Speaker::Server, context, event, None);
        }
    }
}

fn is_same_message(one: &LostMessage, next: &LostMessage) -> bool {
    std::sync::Arc::ptr_eq(&one.bytes, &next.bytes) && one.cause == next.cause
}
