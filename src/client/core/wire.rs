//! What a client needs of the world: at most one connection a server, which carries whole requests and replies.

use std::net::SocketAddr;
use std::time::Duration;

use super::RequestHandle;
use super::outcome::Try;
use super::session::AssignedWrite;
use crate::net::{ClientReply, ClientRequest};
use crate::role::ServerId;

/// The connections of one client. No call waits, and none calls back.
pub trait Wire {
    /// Begins to connect to a server, for a client that knows this history, or none if 0.
    fn open(&mut self, server: ServerId, history: u64) -> Result<(), NoReply>;

    /// Ends the connection. What it holds is not sent any more.
    fn close(&mut self, server: ServerId);

    /// How far the connection is.
    fn stage(&self, server: ServerId) -> ConnectionState;

    /// Where the server listens.
    fn address(&self, server: ServerId) -> SocketAddr;

    /// Queues a request: it is sent as a whole once [`sent`](Wire::sent) has come as far as this says.
    fn queue(&mut self, server: ServerId, request: &ClientRequest) -> u64;

    /// How much of what was queued is sent.
    fn sent(&self, server: ServerId) -> u64;

    /// Sends what the connection takes at once. After an error it is of no more use.
    fn transmit(&mut self, server: ServerId) -> Result<(), NoReply>;

    /// Takes what has come. After an error the connection is of no more use, but the replies before it count.
    fn receive(&mut self, server: ServerId, replies: &mut Vec<ClientReply>) -> Result<(), NoReply>;

    /// Sees what the client does. Nothing depends on it.
    fn observe(&mut self, _seen: ClientObservation<'_>) {}
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Nobody has answered yet.
    Connecting,
    /// The server has not said yet that it talks to this client.
    ShakingHands,
    /// Requests are sent.
    Ready {
        /// Which history the server answered for when it greeted; 0 if it had no data.
        history: u64,
    },
}

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub enum ClientObservation<'a> {
    /// A write has got its name.
    Named {
        /// Which write.
        handle: RequestHandle,
        /// The name.
        id: AssignedWrite,
    },
    /// A write was certainly not applied under the name that it had, and waits for another one.
    Unnamed {
        /// Which write.
        handle: RequestHandle,
    },
    /// A try has brought nothing, and another one follows.
    FailedOver {
        /// The try.
        failed: &'a Try,
        /// Who is asked next.
        next: ServerId,
    },
}

/// Why a try brought no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoReply {
    /// Nobody listens there.
    ConnectionRefused,
    /// No connection in time, or no answer to the handshake. The request was not sent.
    Unreachable {
        /// What went wrong.
        why: String,
    },
    /// The server does not want to talk to this client. The request was not sent.
    Rejected {
        /// Its sentence.
        why: String,
    },
    /// The server answers for another history than the one that this client has known: its data were begun anew, or
    /// restored. The request was not sent.
    OtherHistory {
        /// The name of the cluster.
        cluster: String,
        /// The history that was known.
        known: u64,
        /// The server's.
        found: u64,
    },
    /// The server's data were empty, and this client has known others: they were begun anew, or the server has not
    /// caught up yet. What it answered to a read is not believed.
    NoData {
        /// The name of the cluster.
        cluster: String,
    },
    /// The request could not be sent as a whole: the server cannot have understood it.
    NotSent {
        /// What went wrong.
        why: String,
    },
    /// The request was sent, and no reply came in time.
    TimedOut {
        /// How long it was waited for.
        waited: Duration,
    },
    /// The request was sent, and the connection ended before the reply.
    Broken {
        /// What went wrong.
        why: String,
    },
    /// The request was sent, and what came back is no reply to it.
    Malformed {
        /// Bytes received, or announced.
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
