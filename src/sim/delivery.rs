//! What happens when a frame arrives, and who hears it.

use super::coverage::CoveragePoint;
use super::env::{DeliveryMode, Piece, SimEvent};
use super::network::Endpoint;
use super::simulation::Simulation;
use super::wire::Greeting;
use crate::client::NoReply;
use crate::net::{CLIENT_FRAME_MAX_BYTES, ClientRequest, unframe};
use crate::role::ServerId;

impl Simulation {
    /// A frame has come to the end of its way.
    pub fn frame(&mut self, from: Endpoint, to: Endpoint, bytes: &[u8], way: DeliveryMode, piece: Piece) {
        if !self.sim_env.network.arrives(from, to, way, piece) {
            self.sim_env.reached(CoveragePoint::FrameLost);
            if let (Endpoint::Server(from), Endpoint::Server(to), true) = (from, to, way != DeliveryMode::Again) {
                self.peers_frame_is_lost(from, to, piece);
            }
            return;
        }
        match (from, to) {
            (Endpoint::Server(server), Endpoint::Server(to)) => {
                if !self.waits(from, to, bytes, way, piece) {
                    self.frame_of_peer(server, to, bytes, piece, way);
                }
            }
            (Endpoint::Client(client), Endpoint::Server(to)) => {
                if !self.waits(from, to, bytes, way, piece) {
                    self.frame_of_client(client, to, bytes);
                }
            }
            (Endpoint::Server(from), Endpoint::Client(client)) => {
                self.clients[client].hears(&mut self.sim_env, from, bytes)
            }
            (Endpoint::Client(_), Endpoint::Client(_)) => {}
        }
    }

    /// A paused process hears nothing yet: the frame waits in the machine.
    fn waits(&mut self, from: Endpoint, to: ServerId, bytes: &[u8], way: DeliveryMode, piece: Piece) -> bool {
        let until = self.server(to).paused_until;
        let rest = until.saturating_sub(self.sim_env.now());
        if rest > 0 {
            let (to, bytes) = (Endpoint::Server(to), bytes.into());
            let way = if way == DeliveryMode::Again { DeliveryMode::Again } else { DeliveryMode::Arrived };
            self.sim_env.after(rest, SimEvent::Frame { from, to, bytes, way, piece });
        }
        rest > 0
    }

    fn frame_of_client(&mut self, client: usize, to: ServerId, bytes: &[u8]) {
        let greeting = self.greeting(to);
        let arrives = match unframe::<ClientRequest>(bytes, CLIENT_FRAME_MAX_BYTES) {
            Ok(request) => self.clients[client].arrives(&mut self.sim_env, to, request.number, greeting),
            // A frame that was damaged on the way says not even which request it was: its client hears nothing.
            Err(_) => greeting.is_some(),
        };
        if !arrives {
            return;
        }
        let mut understood = true;
        self.at(to, |server, sim_env| understood = server.hear_client(sim_env, client, bytes));
        if !understood {
            self.sim_env.reached(CoveragePoint::FrameCorrupt);
            let why = NoReply::Broken { why: "closed by the server".to_string() };
            self.break_connection(to, client, bytes, why);
        }
    }

    /// Who answers a client there, and for which history; None if the process does not run.
    fn greeting(&mut self, server: ServerId) -> Option<Greeting> {
        let process = self.server(server).process.as_ref()?;
        let history = process.core.board.read().history;
        Some(Greeting { process: process.number, history })
    }

    /// The connection of the request in this frame ends.
    fn break_connection(&mut self, server: ServerId, client: usize, bytes: &[u8], why: NoReply) {
        if let Ok(ClientRequest { number, .. }) = unframe(bytes, CLIENT_FRAME_MAX_BYTES) {
            self.clients[client].loses_connection(&mut self.sim_env, server, number, why);
        }
    }
}
