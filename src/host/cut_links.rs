//! Cut links: in lab mode an operator cuts the links between two servers, until they are joined again.
//!
//! A server that has cut a peer off ends its own link to the peer, refuses the peer's HELLO, and closes the peer's
//! connections before it delivers another message. So one of the two servers is enough to stop all messages between
//! them. A new incarnation of the server starts without cut links.

use super::core::ServerCore;
use super::env::Env;
use super::lifecycle::LabRequest;
use super::limits::ClientConnection;
use super::trace_lines;
use crate::role::{ServerId, ServerSet};
use crate::trace::{LinkEvent, Speaker, TraceContext};

/// The cause in the lines about cut and joined links.
const CAUSE: &str = "lab";
/// Why a server that was not started in lab mode refuses a lab request.
pub const NOT_LAB: &str = "the server was not started with --lab, so nothing here can crash a role or cut a link. Next: \
                           ./run_server.sh stop; ./run_server.sh --lab";

/// The reason for a server that is cut off, and for the status.
pub(super) fn refusal(me: ServerId, peer: ServerId) -> String {
    format!("cut by a lab command. Next: paxos-client join {} {}", me.0, peer.0)
}

impl<C: ClientConnection> ServerCore<C> {
    /// Refuses lab requests unless the server is in lab mode.
    pub(super) fn check_lab(&self) -> Result<(), String> {
        if self.config.lab { Ok(()) } else { Err(NOT_LAB.to_string()) }
    }

    /// Gives a lab request for each of these peers; an error if the request is refused.
    pub fn order_links<E: Env<Connection = C>>(
        &self,
        env: &E,
        order: impl Fn(ServerId) -> LabRequest,
        peers: ServerSet,
    ) -> Result<(), String> {
        self.check_lab()?;
        let others = self.config.cluster.without(ServerSet::only(self.config.me));
        if peers.is_empty() || !peers.without(others).is_empty() {
            let me = self.config.me.0;
            return Err(format!("server {me} has links with the servers {}, and with no others", others.numbers()));
        }
        peers.iter().try_for_each(|peer| env.lab_request(order(peer)))
    }

    /// Records that the links with a peer are cut, or joined again, and writes the line about it. The caller ends the
    /// own link to the peer, or lets it connect.
    pub fn set_cut(&self, peer: ServerId, is_cut: bool) {
        if !self.linked.set_cut(peer, is_cut) {
            return;
        }
        let (state, why) = match is_cut {
            true => {
                (LinkEvent::Cut, format!("no message passes until `paxos-client join {} {}`", self.config.me.0, peer.0))
            }
            false => (LinkEvent::Joined, "the two servers may connect again".to_string()),
        };
        let event = trace_lines::link(peer, state, Some(CAUSE));
        self.trace_with_reason(Speaker::Server, &TraceContext::default(), event, Some(why));
    }
}
