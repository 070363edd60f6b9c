//! Connections between simulated servers. As a real server does, each one calls every other for what it has to send.
//! The caller sends a greeting, waits for the answer, and only then sends messages. The decisions are made by the real
//! code: [`Dialler`] and the core's admission.
//!
//! All frames go over the simulated links, with their faults. A lost greeting or answer ends the attempt. A message on
//! a call that has ended is dropped, and its sender is notified.

use std::sync::Arc;
use std::time::Duration;

use super::coverage::CoveragePoint;
use super::env::{DeliveryMode, FrameKind, Micros, SimEnv, SimEvent};
use super::network::Endpoint;
use super::server::SimServer;
use super::simulation::Simulation;
use paxos_kv::host::connected_peers::CONNECTIONS_OF_A_PEER;
use paxos_kv::host::{Dialler, Env};
use paxos_kv::net::{
    Backoff, Caller, HANDSHAKE_DEADLINE, HANDSHAKE_FRAME_MAX_BYTES, Hello, HelloReply, LinkEnded, Welcome, frame,
    unframe,
};
use paxos_kv::role::{ServerId, ServerSet};
use paxos_kv::storage::admission::RecordedPeer;

/// The link from a server to a peer.
#[derive(Debug)]
pub struct SimPeerLink {
    dialler: Dialler,
    state: SimLinkState,
    /// The next attempt may come after the shorter pause.
    may_redial_soon: bool,
    /// Identifies the scheduled event that counts; others are outdated.
    stamp: u64,
}

#[derive(Debug)]
enum SimLinkState {
    /// Waits for the next attempt, which comes no earlier than `least`.
    Waiting { least: Micros },
    /// Has sent this greeting, and waits for the answer.
    Handshake { call: u64, hello: Hello },
    /// The peer has accepted the call.
    Up { call: u64, since: Micros },
}

impl SimPeerLink {
    fn new(peer: ServerId) -> SimPeerLink {
        SimPeerLink {
            dialler: Dialler::new(peer),
            state: SimLinkState::Waiting { least: 0 },
            may_redial_soon: false,
            stamp: 0,
        }
    }

    /// The call that the peer has accepted.
    pub fn call(&self) -> Option<u64> {
        if let SimLinkState::Up { call, .. } = self.state { Some(call) } else { None }
    }

    /// The current call, accepted or not.
    fn any_call(&self) -> Option<u64> {
        match self.state {
            SimLinkState::Waiting { .. } => None,
            SimLinkState::Handshake { call, .. } | SimLinkState::Up { call, .. } => Some(call),
        }
    }
}

impl SimServer {
    /// Starts the links to all other servers, when the process starts.
    pub(super) fn start_links(&mut self, sim_env: &mut SimEnv) {
        let others = self.cluster.without(ServerSet::only(self.me));
        let Some((process, _)) = self.env(sim_env) else { return };
        *process.agenda.links.borrow_mut() = others.iter().map(|peer| (peer, SimPeerLink::new(peer))).collect();
        others.iter().for_each(|peer| self.schedule_dial(sim_env, peer, Duration::ZERO));
    }

    /// Schedules the next event of a link after this time.
    fn schedule_dial(&mut self, sim_env: &mut SimEnv, peer: ServerId, time: Duration) {
        let (me, delay, stamp) = (self.me, self.clock().duration(time), sim_env.next_moment());
        let Some(process) = &self.process else { return };
        if let Some(link) = process.agenda.links.borrow_mut().get_mut(&peer) {
            link.stamp = stamp;
            sim_env.schedule(delay, SimEvent::Dial { server: me, process: process.number, peer, stamp });
        }
    }

    /// The wait of a link is over: it dials again, or its greeting was not answered in time.
    pub fn dial_due(&mut self, sim_env: &mut SimEnv, number: u64, peer: ServerId, stamp: u64) {
        let Some(process) = self.process.as_ref().filter(|process| process.number == number) else { return };
        let waits_in = |link: &SimPeerLink| match link.state {
            SimLinkState::Up { .. } => None,
            SimLinkState::Waiting { .. } => Some(None),
            SimLinkState::Handshake { call, .. } => Some(Some(call)),
        };
        let links = process.agenda.links.borrow();
        let waited = links.get(&peer).filter(|link| link.stamp == stamp).and_then(waits_in);
        drop(links);
        match waited {
            None => {}
            Some(None) => self.dial(sim_env, peer),
            Some(Some(call)) => {
                self.hang_up(sim_env, peer, call);
                self.link_ended(sim_env, peer, LinkEnded::Unanswered);
            }
        }
    }

    fn dial(&mut self, sim_env: &mut SimEnv, peer: ServerId) {
        let (me, call) = (self.me, sim_env.next_moment());
        let Some((process, _)) = self.env(sim_env) else { return };
        let mut links = process.agenda.links.borrow_mut();
        let Some(link) = links.get_mut(&peer) else { return };
        let hello = link.dialler.hello(&process.core, &process.dir);
        let bytes: Arc<[u8]> = frame(&hello).into();
        link.state = SimLinkState::Handshake { call, hello };
        drop(links);
        if sim_env.send(Endpoint::Server(me), Endpoint::Server(peer), bytes, FrameKind::Hello(call)) {
            self.schedule_dial(sim_env, peer, HANDSHAKE_DEADLINE);
        } else {
            sim_env.reach(CoveragePoint::HelloLost);
            self.link_ended(sim_env, peer, LinkEnded::Unanswered);
        }
    }

    /// An attempt or a connection has ended; the link waits before the next attempt.
    fn link_ended(&mut self, sim_env: &mut SimEnv, peer: ServerId, ended: LinkEnded<'_>) {
        let (now, clock) = (sim_env.now(), self.clock());
        let Some(process) = &self.process else { return };
        let mut links = process.agenda.links.borrow_mut();
        let Some(link) = links.get_mut(&peer) else { return };
        let Backoff { least, most } = link.dialler.ended(&process.core, ended);
        let pause = if std::mem::take(&mut link.may_redial_soon) { least } else { most };
        link.state = SimLinkState::Waiting { least: now + clock.duration(least) };
        drop(links);
        // Frames that were to be written to the peer are lost with the connection.
        process.agenda.frames.borrow_mut().retain_mut(|(to, ..)| {
            *to = to.without(ServerSet::only(peer));
            !to.is_empty()
        });
        self.schedule_dial(sim_env, peer, pause);
    }

    /// Notifies the other end that this server has closed a call, or does not know it.
    pub(super) fn hang_up(&self, sim_env: &mut SimEnv, peer: ServerId, call: u64) {
        // If the notification is lost, the next message of the other end triggers another one.
        let _ = sim_env.send(Endpoint::Server(self.me), Endpoint::Server(peer), Arc::new([]), FrameKind::End(call));
    }

    /// Ends the call to a peer, if this is the current one; returns whether it is.
    pub(super) fn break_call(&mut self, sim_env: &mut SimEnv, peer: ServerId, call: u64, why: &str) -> bool {
        let now = sim_env.now();
        let Some(process) = &self.process else { return false };
        let ended = match process.agenda.links.borrow().get(&peer).map(|link| &link.state) {
            Some(SimLinkState::Up { call: this, since }) if *this == call => {
                LinkEnded::Broken { why, after: Duration::from_micros(now - since) }
            }
            Some(SimLinkState::Handshake { call: this, .. }) if *this == call => LinkEnded::Unanswered,
            _ => return false,
        };
        self.link_ended(sim_env, peer, ended);
        true
    }

    /// The current call to a peer, accepted or not.
    pub(super) fn call_to(&self, peer: ServerId) -> Option<u64> {
        self.process.as_ref()?.agenda.links.borrow().get(&peer)?.any_call()
    }

    /// There is new information about a peer: dials it soon, if the link is down.
    fn dial_now(&mut self, sim_env: &mut SimEnv, peer: ServerId) {
        let now = sim_env.now();
        let Some(process) = &self.process else { return };
        let mut links = process.agenda.links.borrow_mut();
        let Some(link) = links.get_mut(&peer) else { return };
        match link.state {
            SimLinkState::Up { .. } => {}
            SimLinkState::Handshake { .. } => link.may_redial_soon = true,
            SimLinkState::Waiting { least } => {
                link.stamp = sim_env.next_moment();
                let (server, process, stamp) = (self.me, process.number, link.stamp);
                sim_env.schedule(least.saturating_sub(now), SimEvent::Dial { server, process, peer, stamp });
            }
        }
    }

    /// Ends a link that is up, so that the next greeting carries the new state of this server.
    fn repeat_hello(&mut self, sim_env: &mut SimEnv, peer: ServerId) {
        let Some(process) = &self.process else { return };
        let call = process.agenda.links.borrow_mut().get_mut(&peer).and_then(|link| {
            link.may_redial_soon |= link.call().is_some();
            link.call()
        });
        if let Some(call) = call {
            sim_env.reach(CoveragePoint::HelloRepeated);
            self.hang_up(sim_env, peer, call);
            self.break_call(sim_env, peer, call, "closed by this server to send a new HELLO");
        }
    }

    /// Judges a peer's greeting. Returns this server's reply, or None if the process must stop over it.
    pub(super) fn receive_hello(&mut self, sim_env: &mut SimEnv, hello: &Hello) -> Option<HelloReply> {
        let (me, process) = (self.me, self.process.as_mut()?);
        let Caller::Peer { server: peer, storage, is_active, .. } = hello.who else { return None };
        let before = process.identity().recorded_peer(peer);
        let judged = match process.core.judge(&process.dir, hello) {
            Ok(judged) => judged,
            Err(fatal) => {
                process.fatal = Some(fatal.0);
                return None;
            }
        };
        match judged.answer {
            HelloReply::Welcome(_) => {
                let stays = |known: RecordedPeer| known.storage == storage || (!known.bound && is_active);
                let kept = before.is_none_or(stays);
                sim_env.oracle.require(41, kept, || format!("{me} accepted another data directory of {peer} as new"));
            }
            HelloReply::CallBackFirst => sim_env.reach(CoveragePoint::CalledBack),
            // The caller tries again if this server had no room to record it.
            HelloReply::Refused { .. } if before.is_some_and(|known| known.storage != storage) => {
                sim_env.reach(CoveragePoint::NewDiskRefused);
            }
            HelloReply::Refused { .. } => {}
        }
        if let Some(peer) = judged.call {
            self.dial_now(sim_env, peer);
        }
        Some(judged.answer)
    }

    /// Handles the greeting of a peer. Returns false if the reply is lost.
    fn deliver_hello(
        &mut self,
        sim_env: &mut SimEnv,
        from: ServerId,
        call: u64,
        bytes: &[u8],
        way: DeliveryMode,
    ) -> bool {
        if self.process.as_ref().is_some_and(|process| process.has_accepted_call(from, call)) {
            // A duplicate of the greeting.
            return true;
        }
        let Ok(hello) = unframe::<Hello>(bytes, HANDSHAKE_FRAME_MAX_BYTES) else {
            sim_env.reach(CoveragePoint::FrameCorrupt);
            self.hang_up(sim_env, from, call);
            return true;
        };
        let Some(answer) = self.receive_hello(sim_env, &hello) else { return true };
        let is_welcome = matches!(answer, HelloReply::Welcome(_));
        let (me, other) = (Endpoint::Server(self.me), Endpoint::Server(from));
        let is_sent = sim_env.send(me, other, frame(&answer).into(), FrameKind::Answer(call));
        if is_welcome && is_sent {
            self.open(sim_env, from, call);
        }
        if way == DeliveryMode::Replay {
            // It was a replay: no caller is at the other end.
            sim_env.reach(CoveragePoint::HelloReplayed);
            self.close(sim_env, from, call);
            return true;
        }
        if !is_sent {
            sim_env.reach(CoveragePoint::AnswerLost);
        }
        is_sent
    }

    /// Accepts a call from a peer. Beyond [`CONNECTIONS_OF_A_PEER`] the oldest call is closed.
    fn open(&mut self, sim_env: &mut SimEnv, peer: ServerId, call: u64) {
        let Some((process, env)) = self.env(sim_env) else { return };
        process.core.linked.came(peer, env.now());
        drop(env);
        let calls = process.accepted_calls.entry(peer).or_default();
        calls.push(call);
        if calls.len() > CONNECTIONS_OF_A_PEER {
            let oldest = calls[0];
            self.close(sim_env, peer, oldest);
            self.hang_up(sim_env, peer, oldest);
        }
    }

    /// Ends a call from a peer, if there is such a call.
    pub(super) fn close(&mut self, sim_env: &mut SimEnv, peer: ServerId, call: u64) {
        let Some((process, env)) = self.env(sim_env) else { return };
        let Some(calls) = process.accepted_calls.get_mut(&peer).filter(|calls| calls.contains(&call)) else { return };
        calls.retain(|one| *one != call);
        if process.core.linked.gone(peer) {
            process.core.on_peer_disconnected(&env, peer);
        }
    }

    /// Handles a peer's answer to a greeting.
    fn deliver_hello_reply(
        &mut self,
        sim_env: &mut SimEnv,
        peer: ServerId,
        call: u64,
        bytes: &[u8],
        way: DeliveryMode,
    ) {
        let Some(process) = &self.process else { return };
        let asked = match process.agenda.links.borrow().get(&peer).map(|link| &link.state) {
            Some(SimLinkState::Handshake { call: this, hello }) if *this == call => Some(hello.clone()),
            // A duplicate of the answer.
            Some(SimLinkState::Up { call: this, .. }) if *this == call => return,
            _ => None,
        };
        let Some(hello) = asked else {
            if way != DeliveryMode::Replay {
                sim_env.reach(CoveragePoint::AnswerTooLate);
                self.hang_up(sim_env, peer, call);
            }
            return;
        };
        match unframe(bytes, HANDSHAKE_FRAME_MAX_BYTES) {
            Ok(HelloReply::Welcome(welcome)) => self.receive_welcome(sim_env, peer, call, &hello, &welcome),
            Ok(HelloReply::CallBackFirst) => self.link_ended(sim_env, peer, LinkEnded::CallBackFirst),
            Ok(HelloReply::Refused { why }) => self.link_ended(sim_env, peer, LinkEnded::Refused(&why)),
            Err(_) => {
                sim_env.reach(CoveragePoint::FrameCorrupt);
                self.hang_up(sim_env, peer, call);
                self.link_ended(sim_env, peer, LinkEnded::Unanswered);
            }
        }
    }

    /// A peer accepts this server's call, and so has recorded its storage id. With enough such peers this server is
    /// admitted.
    fn receive_welcome(&mut self, sim_env: &mut SimEnv, peer: ServerId, call: u64, hello: &Hello, welcome: &Welcome) {
        let (me, now, needed) = (self.me, sim_env.now(), self.quorums.witnesses());
        let Some(process) = &mut self.process else { return };
        let took_part = process.identity().is_active();
        let known_to = process.core.admission.pending_status().map_or(ServerSet::NONE, |newness| newness.witnesses);
        let mut links = process.agenda.links.borrow_mut();
        let Some(link) = links.get_mut(&peer) else { return };
        let welcomed = link.dialler.welcomed(&process.core, &process.dir, hello, welcome);
        if !took_part && !matches!(welcomed, Ok(Err(_))) {
            if self.has_new_disk {
                sim_env.reach(CoveragePoint::NewDiskAccepted);
            }
            let storage = process.dir.storage_id();
            let is_first = self.admitted_with.is_none_or(|first| first == storage);
            let is_enough = known_to.without(ServerSet::only(peer)).len() + 1 >= needed;
            sim_env.oracle.require(36, !is_enough || (!self.has_new_disk && is_first), || {
                format!("{me} lost its disk and was admitted with another one")
            });
            if process.dir.is_active() {
                self.admitted_with = Some(storage);
            }
        }
        match welcomed {
            Ok(Ok(())) => {
                (link.state, link.may_redial_soon) = (SimLinkState::Up { call, since: now }, false);
                let news_for = link.dialler.up(&process.core, &process.dir);
                drop(links);
                news_for.iter().for_each(|peer| self.repeat_hello(sim_env, peer));
            }
            Ok(Err(why)) => {
                drop(links);
                self.hang_up(sim_env, peer, call);
                self.link_ended(sim_env, peer, LinkEnded::Refused(&why));
            }
            Err(fatal) => {
                drop(links);
                process.fatal = Some(fatal.0);
            }
        }
    }

    /// Handles a message on a call.
    fn deliver_peer_message(
        &mut self,
        sim_env: &mut SimEnv,
        from: ServerId,
        call: u64,
        bytes: &[u8],
        way: DeliveryMode,
    ) {
        let Some(process) = &self.process else { return };
        let is_heard =
            if way == DeliveryMode::Replay { process.accepts(from) } else { process.has_accepted_call(from, call) };
        if !is_heard {
            if way != DeliveryMode::Replay {
                self.hang_up(sim_env, from, call);
            }
            return;
        }
        if !self.receive_from_peer(sim_env, from, bytes) {
            sim_env.reach(CoveragePoint::FrameCorrupt);
            self.hang_up(sim_env, from, call);
            self.close(sim_env, from, call);
        }
    }
}

impl Simulation {
    /// Handles a frame that arrives from one server at another.
    pub(super) fn deliver_peer_frame(
        &mut self,
        from: ServerId,
        to: ServerId,
        bytes: &[u8],
        piece: FrameKind,
        way: DeliveryMode,
    ) {
        let mut is_answered = true;
        self.at_server(to, |server, sim_env| match piece {
            FrameKind::Client => {}
            FrameKind::End(_) if server.process.is_none() => {}
            FrameKind::Hello(call) | FrameKind::Answer(call) | FrameKind::Word(call, _) if server.process.is_none() => {
                if way != DeliveryMode::Replay {
                    server.hang_up(sim_env, from, call);
                }
            }
            FrameKind::Hello(call) => is_answered = server.deliver_hello(sim_env, from, call, bytes, way),
            FrameKind::Answer(call) => server.deliver_hello_reply(sim_env, from, call, bytes, way),
            FrameKind::Word(call, _) => server.deliver_peer_message(sim_env, from, call, bytes, way),
            FrameKind::End(call) => {
                if !server.break_call(sim_env, from, call, "connection reset") {
                    server.close(sim_env, from, call);
                }
            }
        });
        if let (FrameKind::Hello(call), false) = (piece, is_answered) {
            self.attempt_fails(from, to, call);
        }
    }

    /// A frame between two servers was lost on its way, so the attempt that it belonged to fails.
    pub(super) fn peers_frame_is_lost(&mut self, from: ServerId, to: ServerId, piece: FrameKind) {
        match piece {
            FrameKind::Hello(call) => {
                self.sim_env.reach(CoveragePoint::HelloLost);
                self.attempt_fails(from, to, call);
            }
            FrameKind::Answer(call) => {
                self.sim_env.reach(CoveragePoint::AnswerLost);
                self.attempt_fails(to, from, call);
            }
            FrameKind::Client | FrameKind::Word(..) | FrameKind::End(_) => {}
        }
    }

    fn attempt_fails(&mut self, caller: ServerId, called: ServerId, call: u64) {
        if self.server(caller).call_to(called) == Some(call) {
            self.at_server(caller, |server, sim_env| {
                server.break_call(sim_env, called, call, "connection reset");
            });
            self.at_server(called, |server, sim_env| server.close(sim_env, caller, call));
        }
    }

    /// The process of a server ends, and its calls with it; most peers notice.
    pub(super) fn end_calls(&mut self, server: ServerId) {
        for other in self.plan.cluster().without(ServerSet::only(server)).iter() {
            let one = &self.servers[usize::from(server.0) - 1];
            if let Some(call) = one.call_to(other)
                && self.sim_env.chance(700)
            {
                one.hang_up(&mut self.sim_env, other, call);
            }
        }
    }

    /// Breaks the calls between two running servers. Frames in flight are lost, or arrive all the same; behind them
    /// comes the end of the old call.
    pub(super) fn break_calls(&mut self, one: ServerId, other: ServerId, is_lost: bool) {
        for (caller, called) in [(one, other), (other, one)] {
            let (from, to) = (Endpoint::Server(caller), Endpoint::Server(called));
            let call = self.server(caller).call_to(called);
            let is_noticed = call.is_some() && self.sim_env.chance(700);
            if let (Some(call), true, false) = (call, is_noticed, is_lost) {
                self.servers[usize::from(caller.0) - 1].hang_up(&mut self.sim_env, called, call);
            }
            self.sim_env.network.reset(from, to, is_lost);
            let Some(call) = call else { continue };
            self.at_server(caller, |server, sim_env| {
                server.break_call(sim_env, called, call, "connection reset");
            });
            if is_noticed && is_lost {
                self.at_server(called, |server, sim_env| server.close(sim_env, caller, call));
            }
        }
    }
}

#[cfg(test)]
#[path = "peer_links_tests.rs"]
mod tests;
