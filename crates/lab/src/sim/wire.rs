//! The connections of a simulated client, whose frames go over the simulated links.
//!
//! A connection is to one incarnation of one server's process. The first frame that arrives there opens the connection.
//! Until then the server may refuse it, and then no frame that was sent on it arrives. Replies and ends reach a client
//! only for their own connection, not for an earlier one to the same server.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::coverage::CoveragePoint;
use super::data_dir::CLUSTER;
use super::env::{FrameKind, SimEnv};
use super::network::Endpoint;
use paxos_kv::client::core::RequestHandle;
use paxos_kv::client::core::wire::{ClientObservation, ConnectionState, Wire};
use paxos_kv::client::{AssignedWrite, NoReply, TryEnd};
use paxos_kv::net::{ClientReply, ClientRequest, Request, frame};
use paxos_kv::paxos::CommandId;
use paxos_kv::role::ServerId;

/// The process at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The boot number of the server's process.
    pub process: u64,
    /// The history of the server's data; 0 if it has no data.
    pub history: u64,
}

/// A step of the client's core that the history records.
pub(super) enum ObservedStep {
    /// A write has got its command id.
    Named(RequestHandle, CommandId),
    /// The write was certainly not applied under its command id, and will get another one.
    Unnamed(RequestHandle),
}

/// The connections of one client.
#[derive(Default)]
pub(super) struct ClientConnections {
    by_server: BTreeMap<ServerId, SimConnectionState>,
    /// Requests on connections that were refused; they never arrive.
    refused: BTreeSet<u64>,
    steps: Vec<ObservedStep>,
}

/// One connection.
#[derive(Default)]
struct SimConnectionState {
    /// The history that the client knows; 0 if it knows none.
    known: u64,
    /// The process that answers, once a frame has arrived.
    greeting: Option<Greeting>,
    queued: Vec<Arc<[u8]>>,
    /// Number of requests that were ever queued.
    count: u64,
    /// The requests on this connection without a reply.
    unanswered: BTreeMap<u64, Request>,
    inbox: Vec<ClientReply>,
    /// Why the connection is lost.
    lost: Option<NoReply>,
}

impl ClientConnections {
    /// A request arrives at a server. Returns false if it does not arrive, because its connection has ended before.
    pub(super) fn request_arrives(&mut self, server: ServerId, number: u64, greeting: Option<Greeting>) -> bool {
        if self.refused.contains(&number) {
            return false;
        }
        let Some(line) = self.by_server.get_mut(&server).filter(|line| line.unanswered.contains_key(&number)) else {
            // The client has closed the connection, but frames that it had sent still arrive.
            return greeting.is_some();
        };
        let refusal = match (line.greeting, greeting) {
            (None, None) => NoReply::ConnectionRefused,
            (None, Some(Greeting { history: found, .. })) if found != 0 && ![0, found].contains(&line.known) => {
                NoReply::OtherHistory { cluster: CLUSTER.to_string(), known: line.known, found }
            }
            (None, Some(greeting)) => {
                line.greeting = Some(greeting);
                return true;
            }
            (Some(before), now) => {
                let is_same = now.is_some_and(|now| now.process == before.process);
                if !is_same {
                    line.lost = Some(NoReply::Broken { why: "connection reset".to_string() });
                }
                return is_same;
            }
        };
        line.lost = Some(refusal);
        self.refused.extend(line.unanswered.keys());
        false
    }

    /// A reply arrives from a server. Returns its request if that is on the current connection.
    pub(super) fn reply_arrives(&mut self, server: ServerId, reply: ClientReply) -> Option<Request> {
        let line = self.by_server.get_mut(&server)?;
        let request = line.unanswered.remove(&reply.number)?;
        line.inbox.push(reply);
        Some(request)
    }

    /// Ends the connection to a server if it carries this request, or in any case if `number` is None. Returns false if
    /// there is no such connection.
    pub(super) fn lose(&mut self, server: ServerId, number: Option<u64>, why: NoReply) -> bool {
        let line = self.by_server.get_mut(&server);
        let Some(line) = line.filter(|line| number.is_none_or(|number| line.unanswered.contains_key(&number))) else {
            return false;
        };
        line.lost = Some(why);
        true
    }

    /// The core's steps since the last call.
    pub(super) fn take_steps(&mut self) -> Vec<ObservedStep> {
        mem::take(&mut self.steps)
    }
}

/// The connections of a client while its core runs.
pub(super) struct SimWire<'a> {
    pub(super) client: usize,
    pub(super) connections: &'a mut ClientConnections,
    pub(super) sim_env: &'a mut SimEnv,
}

impl SimWire<'_> {
    fn connection(&mut self, server: ServerId) -> &mut SimConnectionState {
        self.connections.by_server.entry(server).or_default()
    }
}

impl Wire for SimWire<'_> {
    fn open(&mut self, server: ServerId, history: u64) -> Result<(), NoReply> {
        self.connections
            .by_server
            .insert(server, SimConnectionState { known: history, ..SimConnectionState::default() });
        Ok(())
    }

    fn close(&mut self, server: ServerId) {
        self.connections.by_server.remove(&server);
    }

    fn stage(&self, server: ServerId) -> ConnectionState {
        let greeting = self.connections.by_server.get(&server).and_then(|line| line.greeting);
        ConnectionState::Ready { history: greeting.map_or(0, |greeting| greeting.history) }
    }

    fn address(&self, server: ServerId) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 7_000 + u16::from(server.0)))
    }

    fn queue(&mut self, server: ServerId, request: &ClientRequest) -> u64 {
        match &request.request {
            Request::Open { nonce } => self.sim_env.oracle.record_request(CommandId::opening(*nonce), None),
            Request::Write { session, nonce, sequence, op, .. } => {
                self.sim_env.oracle.record_request(CommandId::new(*session, *nonce, *sequence), Some(op.clone()));
            }
            _ => {}
        }
        let line = self.connection(server);
        line.queued.push(frame(request).into());
        line.unanswered.insert(request.number, request.request.clone());
        line.count += 1;
        line.count
    }

    fn sent(&self, server: ServerId) -> u64 {
        let line = self.connections.by_server.get(&server);
        line.map_or(0, |line| line.count - line.queued.len() as u64)
    }

    fn transmit(&mut self, server: ServerId) -> Result<(), NoReply> {
        for bytes in mem::take(&mut self.connection(server).queued) {
            self.sim_env.send(Endpoint::Client(self.client), Endpoint::Server(server), bytes, FrameKind::Client);
        }
        Ok(())
    }

    fn receive(&mut self, server: ServerId, replies: &mut Vec<ClientReply>) -> Result<(), NoReply> {
        let line = self.connection(server);
        replies.append(&mut line.inbox);
        line.lost.take().map_or(Ok(()), Err)
    }

    fn observe(&mut self, seen: ClientObservation<'_>) {
        match seen {
            ClientObservation::Named { handle, id: AssignedWrite { session, nonce, sequence, .. } } => {
                self.connections.steps.push(ObservedStep::Named(handle, CommandId::new(session, nonce, sequence)));
            }
            ClientObservation::Unnamed { handle } => {
                self.sim_env.reach(CoveragePoint::ContinuedInNewSession);
                self.connections.steps.push(ObservedStep::Unnamed(handle));
            }
            ClientObservation::FailedOver { failed, .. } => {
                self.sim_env.reach(CoveragePoint::FailedOver);
                if matches!(failed.end, TryEnd::NoReply(NoReply::NoData { .. })) {
                    self.sim_env.reach(CoveragePoint::NotBelieved);
                }
            }
        }
    }
}
