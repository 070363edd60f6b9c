//! What happens when a frame arrives: who hears it, and whether the two ends take each other for what they say they are.

use super::folder::CLUSTER;
use super::marks::Mark;
use super::nature::{Event, Way};
use super::network::Node;
use super::server::GREETING;
use super::wire::Greeting;
use super::world::World;
use crate::client::NoReply;
use crate::host::admission::Judged;
use crate::net::{Answer, CLIENT_FRAME_MAX_BYTES, ClientRequest, Hello, Welcome, Who, unframe};
use crate::role::{Server, Servers};
use crate::storage::admission::{Claim, Known};

impl World {
    /// A frame has come to the end of its way.
    pub fn frame(&mut self, from: Node, to: Node, bytes: &[u8], way: Way) {
        if !self.nature.network.arrives(from, to, way) {
            return self.nature.mark(Mark::FrameLost);
        }
        match (from, to) {
            (Node::Server(from), Node::Server(to)) => self.frame_of_peer(from, to, bytes),
            (Node::Client(client), Node::Server(to)) => self.frame_of_client(client, to, bytes),
            (Node::Server(from), Node::Client(client)) => self.clients[client].hears(&mut self.nature, from, bytes),
            (Node::Client(_), Node::Client(_)) => {}
        }
    }

    /// A paused process hears nothing yet: the frame waits in the machine.
    fn waits(&mut self, from: Node, to: Server, bytes: &[u8]) -> bool {
        let until = self.server(to).paused_until;
        let rest = until.saturating_sub(self.nature.now());
        if rest > 0 {
            let (to, bytes) = (Node::Server(to), bytes.into());
            self.nature.after(rest, Event::Frame { from, to, bytes, way: Way::Arrived });
        }
        rest > 0
    }

    fn frame_of_peer(&mut self, from: Server, to: Server, bytes: &[u8]) {
        if self.waits(Node::Server(from), to, bytes) || !self.have_met(from, to) {
            return;
        }
        self.is_known_to(from, to);
        if bytes == GREETING {
            return;
        }
        let mut understood = true;
        self.at(to, |server, nature| understood = server.hear_peer(nature, from, bytes));
        if !understood {
            self.nature.mark(Mark::FrameCorrupt);
            self.nature.network.reset(Node::Server(from), Node::Server(to), true);
        }
    }

    fn frame_of_client(&mut self, client: usize, to: Server, bytes: &[u8]) {
        if self.waits(Node::Client(client), to, bytes) {
            return;
        }
        let greeting = self.greeting(to);
        let arrives = match unframe::<ClientRequest>(bytes, CLIENT_FRAME_MAX_BYTES) {
            Ok(request) => self.clients[client].arrives(&mut self.nature, to, request.number, greeting),
            // A frame that was damaged on the way says not even which request it was: its client hears nothing.
            Err(_) => greeting.is_some(),
        };
        if !arrives {
            return;
        }
        let mut understood = true;
        self.at(to, |server, nature| understood = server.hear_client(nature, client, bytes));
        if !understood {
            self.nature.mark(Mark::FrameCorrupt);
            let why = NoReply::Broken { why: "closed by the server".to_string() };
            self.break_connection(to, client, bytes, why);
        }
    }

    /// Who answers a client there, and for which history; None if the process does not run.
    fn greeting(&mut self, server: Server) -> Option<Greeting> {
        let process = self.server(server).process.as_ref()?;
        let history = process.core.board.read().history;
        Some(Greeting { process: process.number, history })
    }

    /// The connection of the request in this frame ends.
    fn break_connection(&mut self, server: Server, client: usize, bytes: &[u8], why: NoReply) {
        if let Ok(ClientRequest { number, .. }) = unframe(bytes, CLIENT_FRAME_MAX_BYTES) {
            self.clients[client].loses_connection(&mut self.nature, server, number, why);
        }
    }

    /// Whether two servers take each other for what they say they are: each remembers the other's storage id durably.
    fn have_met(&mut self, from: Server, to: Server) -> bool {
        let knows = |world: &World, one: Server, other: Server| {
            let process = world.servers[usize::from(one.0) - 1].process.as_ref();
            process.is_none_or(|process| process.met.contains(other))
        };
        if knows(self, to, from) && knows(self, from, to) {
            return self.server(to).process.is_some();
        }
        self.meet(to, from) && self.meet(from, to) && self.server(to).process.is_some()
    }

    fn meet(&mut self, me: Server, other: Server) -> bool {
        let claim = self.server(other).claim();
        let cluster = self.plan.cluster();
        let Some(process) = &mut self.server(me).process else { return true };
        if process.met.contains(other) {
            return true;
        }
        // Nobody can read whose folder it is.
        let Some(Claim { server, storage, life, boot, takes_part, .. }) = claim else { return false };
        // By now it was called back, and was told who calls.
        let knows = Some(process.identity().storage_id());
        let who = Who::Peer { server, storage, life, boot, takes_part, knows };
        let hello = Hello { cluster: CLUSTER.to_string(), to: me, members: cluster, who };
        let before = process.identity().known_peer(other);
        match process.core.judge(&process.folder, &hello) {
            Ok(Judged { answer: Answer::Welcome(_), .. }) => {
                process.met.insert(other);
                let stays = |known: Known| known.storage == storage || (!known.bound && takes_part);
                let kept = before.is_none_or(stays);
                self.nature.ghost.require(41, kept, || format!("{me} takes another folder of {other} for a new one"));
                true
            }
            Ok(Judged { answer, .. }) => {
                assert_ne!(answer, Answer::CallYouFirst, "who knows what only the peer was told is the peer");
                // If there was no room to remember it, the link is tried again.
                if before.is_some_and(|known| known.storage != storage) {
                    self.nature.mark(Mark::Stranger);
                }
                false
            }
            Err(fatal) => {
                process.fatal = Some(fatal.0);
                self.at(me, |_, _| {});
                false
            }
        }
    }

    /// A server hears from another one that it knows its folder. Once enough do, it takes part.
    fn is_known_to(&mut self, server: Server, peer: Server) {
        let (needed, cluster) = (self.plan.quorums().witnesses(), self.plan.cluster());
        let peers_storage = self.server(peer).claim().map(|claim| claim.storage);
        let one = &mut self.servers[usize::from(server.0) - 1];
        let is_stranger = one.is_stranger;
        let Some(process) = one.process.as_mut().filter(|process| !process.identity().takes_part()) else { return };
        if is_stranger {
            self.nature.mark(Mark::StrangerWelcomed);
        }
        let known_to = process.core.admission.newness().map_or(Servers::NONE, |newness| newness.known_to);
        let is_first = one.takes_part_with.is_none_or(|first| first == process.identity().storage_id());
        let mut hello = process.core.hello(&process.folder, peer);
        // The peer lets in who can say which folder it has.
        if let Who::Peer { knows, .. } = &mut hello.who {
            *knows = peers_storage;
        }
        let welcome = Welcome { history: 0, members: cluster };
        let begins = process.core.welcomed(&process.folder, peer, &hello, &welcome);
        let is_enough = known_to.without(Servers::only(peer)).len() + 1 >= needed;
        self.nature.ghost.require(36, !is_enough || (!is_stranger && is_first), || {
            format!("{server} has lost its disk, and takes part with another")
        });
        match begins {
            // Another greeting comes.
            Ok(Ok(false) | Err(_)) => {}
            Ok(Ok(true)) => {
                one.takes_part_with = Some(process.identity().storage_id());
                // It greets them all again, to say so.
                for other in self.servers.iter_mut().filter_map(|other| other.process.as_mut()) {
                    other.met = other.met.without(Servers::only(server));
                }
            }
            Err(fatal) => {
                process.fatal = Some(fatal.0);
                self.at(server, |_, _| {});
            }
        }
    }
}
