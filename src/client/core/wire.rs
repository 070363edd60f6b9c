//! The interface between a client and the network: at most one connection per server, which carries whole requests and
//! replies.

use std::net::SocketAddr;
use std::time::Duration;

use super::RequestHandle;
use super::outcome::Try;
use super::session::AssignedWrite;
use crate::net::{ClientReply, ClientRequest};
use crate::role::ServerId;

/// The connections of one client. No call waits, and none calls back into the client.
pub trait Wire {
    /// Begins to connect to a server, for a client that knows this history (0: none).
    fn open(&mut self, server: ServerId, history: u64) -> Result<(), NoReply>;

    /// Closes the connection and drops its unsent requests.
    fn close(&mut self, server: ServerId);

    /// The state of the connection.
    fn stage(&self, server: ServerId) -> ConnectionState;

    /// The address on which the server listens.
    fn address(&self, server: ServerId) -> SocketAddr;

    /// Queues a request. The request is sent completely once [`sent`](Wire::sent) has reached the returned number.
    fn queue(&mut self, server: ServerId, request: &ClientRequest) -> u64;

    /// How much of the queued requests was sent, in the unit of [`queue`](Wire::queue).
    fn sent(&self, server: ServerId) -> u64;

    /// Sends as much as the connection accepts at once. After an error the connection is unusable.
    fn transmit(&mut self, server: ServerId) -> Result<(), NoReply>;

    /// Takes the received replies. After an error the connection is unusable, but the replies before it count.
    fn receive(&mut self, server: ServerId, replies: &mut Vec<ClientReply>) -> Result<(), NoReply>;

    /// Notifies an observer of what the client does. Nothing depends on it.
    fn observe(&mut self, _seen: ClientObservation<'_>) {}
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// The connection is not established yet.
    Connecting,
    /// The server has not accepted this client yet.
    ShakingHands,
    /// The server has accepted this client: requests are sent.
    Ready {
        /// The history that the server reported in the handshake; 0 if it had no data.
        history: u64,
    },
}

/// A step of a client that an observer sees.
#[derive(Clone, Copy, Debug)]
pub enum ClientObservation<'a> {
    /// A write has received its session and sequence.
    Named {
        /// The request that writes.
        handle: RequestHandle,
        /// Its session, nonce and sequence.
        id: AssignedWrite,
    },
    /// A write was certainly not applied in the session that ended, and waits for a sequence in another one.
    Unnamed {
        /// The request that writes.
        handle: RequestHandle,
    },
    /// A try has failed, and another one follows.
    FailedOver {
        /// The failed try.
        failed: &'a Try,
        /// The server that is asked next.
        next: ServerId,
    },
}

/// Why a try brought no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoReply {
    /// No process listens at the server's address.
    ConnectionRefused,
    /// No connection in time, or no answer to the handshake. The request was not sent.
    Unreachable {
        /// What failed.
        why: String,
    },
    /// The server refused this client in the handshake. The request was not sent.
    Rejected {
        /// The server's message.
        why: String,
    },
    /// The server reports another history than the one that this client knows: the data were recreated or restored. The
    /// request was not sent.
    OtherHistory {
        /// The name of the cluster.
        cluster: String,
        /// The history that the client knew.
        known: u64,
        /// The server's history.
        found: u64,
    },
    /// The server had no data, but this client knows a history. Either the data were recreated, or the server has not
    /// caught up yet. Its answer to a read is ignored.
    NoData {
        /// The name of the cluster.
        cluster: String,
    },
    /// The request was not sent completely, so the server cannot have understood it.
    NotSent {
        /// What failed.
        why: String,
    },
    /// The request was sent, and no reply arrived in time.
    TimedOut {
        /// How long the client waited.
        waited: Duration,
    },
    /// The request was sent, and the connection ended before the reply.
    Broken {
        /// What failed.
        why: String,
    },
    /// The request was sent, and the received bytes are no valid reply to it.
    Malformed {
        /// Length in bytes, received or announced.
        length: u64,
        /// What is wrong with it.
        what: String,
    },
}

impl NoReply {
    /// Whether the server may have received the request.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            NoReply::ConnectionRefused
            | NoReply::Unreachable { .. }
            | NoReply::Rejected { .. }
            | NoReply::OtherHistory { .. }
            | NoReply::NotSent { .. } => false,
            NoReply::TimedOut { .. } | NoReply::Broken { .. } | NoReply::Malformed { .. } | NoReply::NoData { .. } => {
                true
            }
        }
    }
}
