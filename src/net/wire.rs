//! The messages on connections: envelopes between servers, requests and replies between clients and servers.

use serde::{Deserialize, Serialize};

use crate::kv::{Bytes, Op, WriteResult};
use crate::paxos::{self, Ballot, ChunkRequest, Slot, SnapshotChunk};
use crate::protocol::Protocol;
use crate::role::{Lane, RoleKind, ServerId, ServerSet};
use crate::trace::TraceContext;
use crate::two_phase_commit::{self, TransactionId};

/// A message between roles of two servers, with its parent line and its request. These two are for people, not for
/// roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The parent line and the request.
    pub context: TraceContext,
    /// The message.
    pub message: PeerMessage,
}

/// A message between the roles of two servers, under any protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PeerMessage {
    /// Paxos.
    Paxos(paxos::Message),
    /// Two-phase commit.
    TwoPhaseCommit(two_phase_commit::CommitMessage),
    /// A message for no role: it shows that the sender is up and the link works.
    Keepalive,
}

/// The kind of a message, still known after the message was given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageKind {
    /// Its name, in capitals.
    pub name: &'static str,
    /// See [`PeerMessage::is_routine`].
    pub is_routine: bool,
}

impl PeerMessage {
    /// The message's name, in capitals.
    pub fn name(&self) -> &'static str {
        match self {
            PeerMessage::Paxos(message) => message.name(),
            PeerMessage::TwoPhaseCommit(message) => message.name(),
            PeerMessage::Keepalive => "HERE",
        }
    }

    /// Approximate number of bytes that its values take.
    pub fn size(&self) -> usize {
        match self {
            PeerMessage::Paxos(message) => message.size(),
            PeerMessage::TwoPhaseCommit(message) => message.size(),
            PeerMessage::Keepalive => 0,
        }
    }

    /// The lane on which it travels.
    pub fn lane(&self) -> Lane {
        match self {
            PeerMessage::Paxos(message) => message.lane(),
            PeerMessage::TwoPhaseCommit(message) => message.lane(),
            PeerMessage::Keepalive => Lane::Control,
        }
    }

    /// Whether it is sent regularly by every server, and useless to a role that is down.
    pub fn is_routine(&self) -> bool {
        match self {
            PeerMessage::Paxos(message) => message.is_routine(),
            PeerMessage::TwoPhaseCommit(_) | PeerMessage::Keepalive => false,
        }
    }

    /// The kind to report when the message is dropped.
    pub fn kind(&self) -> MessageKind {
        MessageKind { name: self.name(), is_routine: self.is_routine() }
    }

    /// The roles of the receiving server that handle it.
    pub fn recipients(&self) -> &'static [RoleKind] {
        match self {
            PeerMessage::Paxos(message) => message.recipients(),
            PeerMessage::TwoPhaseCommit(message) => message.recipients(),
            PeerMessage::Keepalive => &[],
        }
    }
}

impl From<paxos::Message> for PeerMessage {
    fn from(message: paxos::Message) -> PeerMessage {
        PeerMessage::Paxos(message)
    }
}

impl From<two_phase_commit::CommitMessage> for PeerMessage {
    fn from(message: two_phase_commit::CommitMessage) -> PeerMessage {
        PeerMessage::TwoPhaseCommit(message)
    }
}

/// An [`Envelope`] to be sent: the same bytes, without copying the message.
#[derive(Debug, Serialize)]
pub struct EnvelopeRef<'a> {
    /// The parent line and the request.
    pub context: &'a TraceContext,
    /// The message.
    pub message: &'a PeerMessage,
}

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRequest {
    /// Returned in the reply; a reply with any other number is ignored.
    pub number: u64,
    /// The client's line and label.
    pub context: TraceContext,
    /// The request.
    pub request: Request,
}

/// What a client requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Open a session.
    Open {
        /// Random number of this session, the same in every retry.
        nonce: u128,
    },
    /// Write within a session; a retry has the same session, nonce and sequence.
    Write {
        /// The session.
        session: u64,
        /// The nonce that opened the session.
        nonce: u128,
        /// The write's number in the session.
        sequence: u64,
        /// The client knows the outcome of every write below.
        first_open: u64,
        /// The change.
        op: Op,
    },
    /// A linearizable read.
    Get {
        /// The key.
        #[serde(with = "serde_bytes")]
        key: Vec<u8>,
    },
    /// The status of the server.
    Status,
    /// A chunk of the server's state, for a backup.
    State {
        /// The state must hold every slot up to this one.
        at_least: Slot,
        /// The requested chunk; None for the first one of the last checkpoint.
        part: Option<ChunkRequest>,
    },
    /// End a role's thread; servers in lab mode only.
    Crash {
        /// The role; all three if None.
        role: Option<RoleKind>,
        /// How long it stays down, in milliseconds; until RESTART if None.
        down_ms: Option<u64>,
    },
    /// Start a role's thread again; servers in lab mode only.
    Restart {
        /// The role; all three if None.
        role: Option<RoleKind>,
    },
    /// Cut the links with other servers; servers in lab mode only.
    Cut {
        /// The other servers.
        peers: ServerSet,
    },
    /// Join links that were cut; servers in lab mode only.
    Join {
        /// The other servers.
        peers: ServerSet,
    },
}

/// A server's reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientReply {
    /// The number of the request.
    pub number: u64,
    /// The server's line.
    pub context: TraceContext,
    /// The reply.
    pub reply: Reply,
}

/// What a server replies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The session is open.
    Opened {
        /// The slot that names it.
        session: u64,
        /// The history of the session; 0 if the protocol has none.
        history: u64,
    },
    /// The write was applied, exactly once.
    Applied {
        /// The slot of the write.
        slot: Slot,
        /// Its effect.
        written: WriteResult,
        /// The acceptors whose votes chose the slot, if the replying server counted them itself; else empty.
        accepted_by: ServerSet,
    },
    /// The value of the key, as of a slot.
    Value {
        /// Every slot up to this one was applied.
        slot: Slot,
        /// None if the key has no value.
        value: Option<Bytes>,
        /// Number of writes applied to the key.
        version: u64,
    },
    /// Certainly not applied by this try.
    NotApplied(WhyNotApplied),
    /// The write may be applied or not.
    Unknown(WhyUnknown),
    /// The status of the server.
    Status(Box<ServerStatus>),
    /// A chunk of the server's state; None if no checkpoint holds such a state yet, but one will soon.
    Chunk(Option<StatePart>),
    /// The lab request was carried out.
    Done,
    /// The server refuses the request, with a sentence that says why.
    Refused(String),
}

/// A chunk of a state for a client: the keys. Sessions belong to their owners and stay with the servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatePart {
    /// The chunk.
    pub part: SnapshotChunk,
    /// The digest of the sessions that were left out. The sum over all chunks, plus the digest of the keys, is the
    /// digest of the state.
    pub left_out: u64,
}

/// Why a try has certainly not been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhyNotApplied {
    /// The proposer never put the command into an ACCEPT.
    Proposer(paxos::NotApplied),
    /// Every transaction that the coordinator began for it was aborted.
    Coordinator(two_phase_commit::AbortReason),
    /// A read waited too long for a key that this transaction holds.
    KeyLocked(TransactionId),
    /// A role that the request needs is down on this server.
    RoleDown(RoleKind),
    /// A read found no majority, or not in time. Names the servers that answered.
    NoReadQuorum(ServerSet),
    /// The server has too many requests.
    Busy,
    /// The disk of this server has no space for another value.
    DiskFull,
    /// The state of this server was found to diverge: the server is fenced and answers nothing.
    Fenced,
    /// The data directory of this server is new, and too few peers have recorded it: the server is pending.
    NotAdmitted,
    /// The session of the request is unknown, or was evicted.
    Expired,
    /// The session no longer asks for this write.
    Superseded,
}

/// Why the outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhyUnknown {
    /// No outcome in time.
    TimedOut,
    /// The role that would have reported the outcome has crashed.
    RoleCrashed(RoleKind),
    /// The session no longer asks for this write; an earlier copy may have been applied.
    Superseded,
    /// The session is not known any more; an earlier copy may have been applied.
    Expired,
}

/// The status of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleStatus {
    /// The role.
    pub role: RoleKind,
    /// Whether its thread runs.
    pub up: bool,
    /// Number of crashes in this incarnation of the server.
    pub crashes: u32,
}

/// The status of a server. The names of its fields are those of the JSON document, see [`ServerStatus::to_json`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// The server.
    pub server: ServerId,
    /// The program's version.
    pub version: String,
    /// The protocol's name.
    pub protocol: String,
    /// The restart mode of roles: `disk`, or the unsafe `lost`.
    pub restart: String,
    /// The server's incarnation on its data directory.
    pub incarnation: u32,
    /// The process id.
    pub pid: u32,
    /// Its roles.
    pub roles: Vec<RoleStatus>,
    /// The acceptor's promise.
    pub promised: Ballot,
    /// Number of slots in which the acceptor has accepted a value.
    pub accepted: u64,
    /// The highest slot that the learner knows to be chosen anywhere.
    pub chosen: Slot,
    /// The last slot applied.
    pub applied: Slot,
    /// The digest of the state after that slot.
    pub digest: u64,
    /// The history of the state; 0 if it is not known yet.
    pub history: u64,
    /// Number of keys, tombstones included.
    pub keys: u64,
    /// Number of sessions.
    pub sessions: u64,
    /// Messages dropped because a role was down or a queue full.
    #[serde(rename = "dropped_messages")]
    pub dropped: u64,
    /// The disk has no space for another value: the server refuses writes, and its acceptor accepts nothing new.
    pub disk_full: bool,
    /// Too much was written since the last durable checkpoint: until the next one is durable, the server refuses
    /// writes.
    pub checkpoint_full: bool,
    /// The durable checkpoint holds every slot up to this one.
    pub checkpoint: Slot,
    /// The acceptor has truncated every slot below this one.
    pub truncated_below: Slot,
    /// Number of slots that the acceptor cannot read.
    pub corrupt_slots: u64,
    /// The state was found to diverge after this slot: the server is fenced and answers nothing.
    pub fenced: Option<Slot>,
    /// Set while the server is pending: the witnesses that it has and needs.
    pub admission: Option<AdmissionStatus>,
    /// The servers that its own links reach: it can send to them.
    pub connected: ServerSet,
    /// The servers from which a message came lately: they can send to it.
    pub hears: ServerSet,
    /// The servers that refuse it, or that it refuses.
    pub refusals: Vec<Refusal>,
    /// The leader, as far as the server knows; None if it knows none, or the protocol has no leader.
    pub leader: Option<LeaderStatus>,
    /// Two-phase commit: number of transactions for which the participant is prepared without a decision.
    pub in_doubt: u64,
    /// The first of these transactions, at most [`IN_DOUBT_SHOWN`].
    pub in_doubt_transactions: Vec<InDoubtStatus>,
}

impl ServerStatus {
    /// The protocol of the server; None if this build does not know the name.
    pub fn protocol(&self) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|one| one.name() == self.protocol)
    }

    /// Whether it exchanges messages: it is neither pending nor fenced.
    pub fn is_active(&self) -> bool {
        self.admission.is_none() && self.fenced.is_none()
    }

    /// The ballot at which it leads; None if it does not.
    pub fn leads(&self) -> Option<Ballot> {
        self.leader.as_ref().map(|leader| leader.ballot).filter(|ballot| ballot.server == self.server)
    }

    /// Whether this role is up.
    pub fn is_up(&self, role: RoleKind) -> bool {
        self.roles.iter().any(|one| one.role == role && one.up)
    }
}

#[cfg(test)]
impl ServerStatus {
    /// A server that has just started, is healthy, and is linked with no other.
    pub fn healthy(server: ServerId, protocol: Protocol) -> ServerStatus {
        let role = |role: &RoleKind| RoleStatus { role: *role, up: true, crashes: 0 };
        ServerStatus {
            server,
            version: "1".to_string(),
            protocol: protocol.name().to_string(),
            restart: "disk".to_string(),
            incarnation: 1,
            pid: 1,
            roles: protocol.roles_as_named().iter().map(role).collect(),
            promised: Ballot::ZERO,
            accepted: 0,
            chosen: Slot(0),
            applied: Slot(0),
            digest: 0,
            history: 0,
            keys: 0,
            sessions: 0,
            dropped: 0,
            disk_full: false,
            checkpoint_full: false,
            checkpoint: Slot(0),
            truncated_below: Slot(1),
            corrupt_slots: 0,
            fenced: None,
            admission: None,
            connected: ServerSet::NONE,
            hears: ServerSet::NONE,
            refusals: Vec::new(),
            leader: None,
            in_doubt: 0,
            in_doubt_transactions: Vec::new(),
        }
    }

    /// A server with something in every field, for golden output. No server is in such a state.
    pub fn filled() -> ServerStatus {
        let server = ServerId(2);
        let role = |role, up, crashes| RoleStatus { role, up, crashes };
        let doubt = |number, key: Option<&[u8]>, is_blocked| InDoubtStatus {
            transaction: TransactionId { number, coordinator: ServerId(3) },
            key: key.map(|key| key.to_vec().into()),
            waited_ms: 100 * number,
            is_blocked,
        };
        ServerStatus {
            server,
            version: "0.1.0".to_string(),
            protocol: "multi-paxos".to_string(),
            restart: "lost".to_string(),
            incarnation: 4,
            pid: 4242,
            roles: vec![
                role(RoleKind::Proposer, true, 1),
                role(RoleKind::Acceptor, false, 2),
                role(RoleKind::Learner, true, 0),
            ],
            promised: Ballot { round: 7, server },
            accepted: 11,
            chosen: Slot(23),
            applied: Slot(21),
            digest: 0xab,
            history: 0x1234_5678_9abc_def0,
            keys: 5,
            sessions: 6,
            dropped: 8,
            disk_full: true,
            checkpoint_full: true,
            checkpoint: Slot(16),
            truncated_below: Slot(9),
            corrupt_slots: 10,
            fenced: Some(Slot(20)),
            admission: Some(AdmissionStatus { witnesses: ServerSet::only(ServerId(5)), needed: 3 }),
            connected: ServerSet::first(3),
            hears: ServerSet::first(4),
            refusals: vec![Refusal { server: ServerId(4), why: "it says \"no\"".to_string() }],
            leader: Some(LeaderStatus {
                ballot: Ballot { round: 7, server },
                for_ms: 1500,
                why: "elected by a majority".to_string(),
            }),
            in_doubt: 12,
            in_doubt_transactions: vec![doubt(1, Some(b"k\xff"), true), doubt(2, None, false)],
        }
    }
}

/// A link that is down because one of the two servers refuses the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The other server.
    pub server: ServerId,
    /// The reason, one sentence.
    pub why: String,
}

/// Maximum number of transactions in doubt that a status names.
pub const IN_DOUBT_SHOWN: usize = 16;

/// A transaction in doubt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InDoubtStatus {
    /// The transaction.
    pub transaction: TransactionId,
    /// The key that it locks; None if it opens a session.
    pub key: Option<serde_bytes::ByteBuf>,
    /// Time in doubt, in milliseconds; a lower bound.
    pub waited_ms: u64,
    /// Whether the participant has reported itself blocked.
    #[serde(rename = "blocked")]
    pub is_blocked: bool,
}

/// The state of a server with a new data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmissionStatus {
    /// The servers that have recorded the directory.
    pub witnesses: ServerSet,
    /// Number of witnesses needed.
    pub needed: u8,
}

/// A leader, as one server knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderStatus {
    /// Its ballot, which names the server.
    pub ballot: Ballot,
    /// How long the server has known this leader, in milliseconds.
    pub for_ms: u64,
    /// How it knows: a part of a sentence.
    pub why: String,
}
