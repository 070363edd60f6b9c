//! The TCP connections of a client, and the callback for failed tries.

use std::net::SocketAddr;

use super::connection::Connection;
use super::core::outcome::Try;
use super::core::wire::{ClientObservation, ConnectionState, NoReply, Wire};
use crate::cluster::Cluster;
use crate::net::{ClientReply, ClientRequest};
use crate::role::ServerId;

/// Called for every failed try, with the server that is asked next.
type FailoverHook = Box<dyn FnMut(&Try, ServerId) + Send>;

/// The connections of one client: at most one per server.
pub(super) struct TcpWire {
    cluster: Cluster,
    connections: Vec<Connection>,
    /// Number of connections opened so far.
    opened: u64,
    pub(super) on_failover: Option<FailoverHook>,
}

impl TcpWire {
    pub(super) fn new(cluster: Cluster) -> TcpWire {
        TcpWire { cluster, connections: Vec::new(), opened: 0, on_failover: None }
    }

    pub(super) fn connections(&self) -> &[Connection] {
        &self.connections
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    fn find(&self, server: ServerId) -> Option<&Connection> {
        self.connections.iter().find(|one| one.server() == server)
    }

    fn find_mut(&mut self, server: ServerId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|one| one.server() == server)
    }
}

impl Wire for TcpWire {
    fn open(&mut self, server: ServerId, history: u64) -> Result<(), NoReply> {
        let connection = Connection::open(&self.cluster, server, history)?;
        self.opened += 1;
        self.connections.push(connection);
        Ok(())
    }

    fn close(&mut self, server: ServerId) {
        self.connections.retain(|one| one.server() != server);
    }

    fn stage(&self, server: ServerId) -> ConnectionState {
        self.find(server).map_or(ConnectionState::Connecting, Connection::stage)
    }

    fn address(&self, server: ServerId) -> SocketAddr {
        let connected = self.find(server).map(Connection::address);
        let listed = || self.cluster.member(server).map(|member| member.client);
        connected.or_else(listed).unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    fn queue(&mut self, server: ServerId, request: &ClientRequest) -> u64 {
        self.find_mut(server).map_or(u64::MAX, |one| one.queue(request))
    }

    fn sent(&self, server: ServerId) -> u64 {
        self.find(server).map_or(0, Connection::sent)
    }

    fn transmit(&mut self, server: ServerId) -> Result<(), NoReply> {
        self.find_mut(server).map_or(Ok(()), Connection::transmit)
    }

    fn receive(&mut self, server: ServerId, replies: &mut Vec<ClientReply>) -> Result<(), NoReply> {
        self.find_mut(server).map_or(Ok(()), |one| one.receive(replies))
    }

    fn observe(&mut self, seen: ClientObservation<'_>) {
        if let (ClientObservation::FailedOver { failed, next }, Some(hear)) = (seen, &mut self.on_failover) {
            hear(failed, next);
        }
    }
}
