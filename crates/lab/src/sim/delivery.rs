//! Delivery: what happens when a frame arrives, and which client or server handles it.

use std::sync::Arc;

use super::coverage::CoveragePoint;
use super::env::{DeliveryMode, FrameKind, SimEvent};
use super::network::Endpoint;
use super::simulation::Simulation;
use super::wire::Greeting;
use paxos_kv::client::NoReply;
use paxos_kv::net::{CLIENT_FRAME_MAX_BYTES, ClientRequest, unframe};
use paxos_kv::role::ServerId;
use paxos_kv::trace::DropCause;

impl Simulation {
    /// A frame reaches the end of its way.
    pub fn frame(&mut self, from: Endpoint, to: Endpoint, bytes: &Arc<[u8]>, way: DeliveryMode, piece: FrameKind) {
        if !self.sim_env.network.arrives(from, to, way, piece) {
            let cause = if self.sim_env.network.is_cut(from, to) { DropCause::Cut } else { DropCause::Lost };
            self.sim_env.network.note_loss(from, to, bytes, piece, cause);
            self.sim_env.reach(CoveragePoint::FrameLost);
            if let (Endpoint::Server(from), Endpoint::Server(to), true) = (from, to, way != DeliveryMode::Replay) {
                self.peers_frame_is_lost(from, to, piece);
            }
            return;
        }
        match (from, to) {
            (Endpoint::Server(server), Endpoint::Server(to)) => {
                if !self.waits(from, to, bytes, way, piece) {
                    self.deliver_peer_frame(server, to, bytes, piece, way);
                }
            }
            (Endpoint::Client(client), Endpoint::Server(to)) => {
                if !self.waits(from, to, bytes, way, piece) {
                    self.deliver_client_frame(client, to, bytes);
                }
            }
            (Endpoint::Server(from), Endpoint::Client(client)) => {
                self.clients[client].receive(&mut self.sim_env, from, bytes)
            }
            (Endpoint::Client(_), Endpoint::Client(_)) => {}
        }
    }

    /// Keeps a frame for a paused process until the pause ends; returns whether it did.
    fn waits(&mut self, from: Endpoint, to: ServerId, bytes: &[u8], way: DeliveryMode, piece: FrameKind) -> bool {
        let until = self.server(to).paused_until;
        let rest = until.saturating_sub(self.sim_env.now());
        if rest > 0 {
            let (to, bytes) = (Endpoint::Server(to), bytes.into());
            let way = if way == DeliveryMode::Replay { DeliveryMode::Replay } else { DeliveryMode::Delayed };
            self.sim_env.schedule(rest, SimEvent::Frame { from, to, bytes, mode: way, piece });
        }
        rest > 0
    }

    fn deliver_client_frame(&mut self, client: usize, to: ServerId, bytes: &[u8]) {
        let greeting = self.greeting(to);
        let arrives = match unframe::<ClientRequest>(bytes, CLIENT_FRAME_MAX_BYTES) {
            Ok(request) => self.clients[client].request_arrives(&mut self.sim_env, to, request.number, greeting),
            // The request number of a corrupt frame is not known, so its client is not notified.
            Err(_) => greeting.is_some(),
        };
        if !arrives {
            return;
        }
        let mut understood = true;
        self.at_server(to, |server, sim_env| understood = server.receive_from_client(sim_env, client, bytes));
        if !understood {
            self.sim_env.reach(CoveragePoint::FrameCorrupt);
            let why = NoReply::Broken { why: "closed by the server".to_string() };
            self.break_connection(to, client, bytes, why);
        }
    }

    /// The process that answers clients at this server, with its history; None if no process runs.
    pub(super) fn greeting(&mut self, server: ServerId) -> Option<Greeting> {
        let process = self.server(server).process.as_ref()?;
        let history = process.core.shared_status.read().history;
        Some(Greeting { process: process.number, history })
    }

    /// Ends the connection of the request in this frame.
    fn break_connection(&mut self, server: ServerId, client: usize, bytes: &[u8], why: NoReply) {
        if let Ok(ClientRequest { number, .. }) = unframe(bytes, CLIENT_FRAME_MAX_BYTES) {
            self.clients[client].lose_connection(&mut self.sim_env, server, number, why);
        }
    }
}
