//! What is said on connections: envelopes between servers, requests and replies between clients and servers.

use serde::{Deserialize, Serialize};

use crate::kv::{Bytes, Op, WriteResult};
use crate::paxos::{self, Ballot, ChunkRequest, Slot, SnapshotChunk};
use crate::protocol::Protocol;
use crate::role::{Lane, RoleKind, ServerId, ServerSet};
use crate::trace::TraceContext;
use crate::two_phase_commit::{self, TransactionId};

/// A message between roles of two servers, with the line and the request that it comes from: for people, not for roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Where it comes from.
    pub context: TraceContext,
    /// What it says.
    pub message: PeerMessage,
}

/// What a role of one server says to a role of another, under any protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PeerMessage {
    /// Paxos.
    Paxos(paxos::Message),
    /// Two-phase commit.
    TwoPhaseCommit(two_phase_commit::CommitMessage),
    /// Nothing for any role: the sender is there, and the link works.
    Here,
}

/// Which message it is: what is still known of one that was given away.
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
            PeerMessage::Here => "HERE",
        }
    }

    /// About how many bytes its values take.
    pub fn size(&self) -> usize {
        match self {
            PeerMessage::Paxos(message) => message.size(),
            PeerMessage::TwoPhaseCommit(message) => message.size(),
            PeerMessage::Here => 0,
        }
    }

    /// How it travels.
    pub fn lane(&self) -> Lane {
        match self {
            PeerMessage::Paxos(message) => message.lane(),
            PeerMessage::TwoPhaseCommit(message) => message.lane(),
            PeerMessage::Here => Lane::Control,
        }
    }

    /// Whether it comes again and again from everybody, and means nothing to a role that is down.
    pub fn is_routine(&self) -> bool {
        match self {
            PeerMessage::Paxos(message) => message.is_routine(),
            PeerMessage::TwoPhaseCommit(_) | PeerMessage::Here => false,
        }
    }

    /// What is told of it when it is dropped.
    pub fn kind(&self) -> MessageKind {
        MessageKind { name: self.name(), is_routine: self.is_routine() }
    }

    /// The roles of the receiving server that hear it.
    pub fn recipients(&self) -> &'static [RoleKind] {
        match self {
            PeerMessage::Paxos(message) => message.recipients(),
            PeerMessage::TwoPhaseCommit(message) => message.recipients(),
            PeerMessage::Here => &[],
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

/// An [`Envelope`] on its way out: the same bytes, and nothing is copied for it.
#[derive(Debug, Serialize)]
pub struct EnvelopeRef<'a> {
    /// Where it comes from.
    pub context: &'a TraceContext,
    /// What it says.
    pub message: &'a PeerMessage,
}

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRequest {
    /// Comes back in the reply: a reply to anything else is not believed.
    pub number: u64,
    /// The client's line and label.
    pub context: TraceContext,
    /// What it asks.
    pub request: Request,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Open a session.
    Open {
        /// Drawn for this session, the same in every resend.
        nonce: u128,
    },
    /// Write within a session; a resend says the same session, nonce and sequence.
    Write {
        /// The session.
        session: u64,
        /// The nonce that opened it.
        nonce: u128,
        /// The write's number in the session.
        sequence: u64,
        /// The client knows the outcome of every write below.
        first_open: u64,
        /// The write.
        op: Op,
    },
    /// A linearizable read.
    Get {
        /// The key.
        #[serde(with = "serde_bytes")]
        key: Vec<u8>,
    },
    /// How the server is.
    Status,
    /// A part of the server's state, for a backup.
    State {
        /// The state must hold every slot up to this one.
        at_least: Slot,
        /// Which part; the first one of the last state written down if None.
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
}

/// A server's reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientReply {
    /// As in the request.
    pub number: u64,
    /// The server's line.
    pub context: TraceContext,
    /// What it says.
    pub reply: Reply,
}

/// What a server replies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The session is open.
    Opened {
        /// The slot that names it.
        session: u64,
        /// Which history it is in; 0 if the protocol cannot tell.
        history: u64,
    },
    /// The write was applied, once.
    Applied {
        /// Where.
        slot: Slot,
        /// What it did.
        written: WriteResult,
    },
    /// The key, as of a slot.
    Value {
        /// Every slot up to this one was applied.
        slot: Slot,
        /// None if there is none.
        value: Option<Bytes>,
        /// How many writes were applied to the key.
        version: u64,
    },
    /// Certainly not applied through this try.
    NotApplied(WhyNotApplied),
    /// May be applied or not.
    Unknown(WhyUnknown),
    /// How the server is.
    Status(Box<ServerStatus>),
    /// A part of the server's state; None if such a state is not written down yet, and soon will be.
    Chunk(Option<StatePart>),
    /// Done as asked (crash, restart).
    Done,
    /// The server does not do that; a sentence says why.
    Refused(String),
}

/// A part of a state for a client: the keys. Sessions are their owners' business and stay with the servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatePart {
    /// The part.
    pub part: SnapshotChunk,
    /// The digest of the sessions that were left out of it: added up over all parts, and to the digest of the keys,
    /// they make that of the state.
    pub left_out: u64,
}

/// Why a try has certainly not been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhyNotApplied {
    /// The proposer never put it into an ACCEPT.
    Proposer(paxos::NotApplied),
    /// Every transaction that the coordinator began for it was aborted.
    Coordinator(two_phase_commit::AbortReason),
    /// A read waited for too long for a key that this transaction holds.
    KeyLocked(TransactionId),
    /// A role that it needs is down on this server.
    RoleDown(RoleKind),
    /// A read found no majority, or not in time. Those who answered.
    NoReadQuorum(ServerSet),
    /// The server has too much to do already.
    Busy,
    /// The disk of this server has no room for another value.
    DiskFull,
    /// The state of this server was found to differ from the others': it answers nothing.
    Fenced,
    /// The data folder of this server is new, and too few of the others know it: it takes no part yet.
    NotAdmitted,
    /// The session that it was sent in is not known, or no longer.
    Expired,
    /// The session has said that it no longer asks for this write.
    Superseded,
}

/// Why nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhyUnknown {
    /// No outcome came in time.
    TimedOut,
    /// A role that would have said the outcome has died.
    RoleCrashed(RoleKind),
    /// The session has said that it no longer asks for this write; an earlier copy may have been applied.
    Superseded,
    /// The session is not known any more; an earlier copy may have been applied.
    Expired,
}

/// How a role is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleStatus {
    /// Which.
    pub role: RoleKind,
    /// Whether its thread runs.
    pub up: bool,
    /// How often it has crashed in this life of the server.
    pub crashes: u32,
}

/// How a server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Which.
    pub server: ServerId,
    /// The program's version.
    pub version: String,
    /// The protocol's name.
    pub protocol: String,
    /// How roles come back: `disk`, or the unsafe `lost`.
    pub restart: String,
    /// The server's life on its data folder.
    pub incarnation: u32,
    /// The process id.
    pub pid: u32,
    /// Its roles.
    pub roles: Vec<RoleStatus>,
    /// The acceptor's promise.
    pub promised: Ballot,
    /// In how many slots the acceptor has accepted.
    pub accepted: u64,
    /// The highest slot that the learner knows to be chosen anywhere.
    pub chosen: Slot,
    /// The last slot that it has applied.
    pub applied: Slot,
    /// The digest of the state after that slot.
    pub digest: u64,
    /// Which history the state is of; 0 if nobody can tell yet.
    pub history: u64,
    /// Keys, tombstones included.
    pub keys: u64,
    /// Sessions.
    pub sessions: u64,
    /// Messages dropped because a role was down or a queue full.
    pub dropped: u64,
    /// Its disk has no room for another value: it takes no writes, and accepts nothing new.
    pub disk_full: bool,
    /// Too much was written since its last durable checkpoint: until the next one is there, it takes no writes.
    pub checkpoint_full: bool,
    /// Its durable checkpoint holds every slot up to this one.
    pub checkpoint: Slot,
    /// Its acceptor has forgotten every slot below this one.
    pub truncated_below: Slot,
    /// How many slots its acceptor cannot read.
    pub corrupt_slots: u64,
    /// Its state was found to differ from the others' after this slot: it answers nothing.
    pub fenced: Option<Slot>,
    /// Its data folder is new: what it waits for before it takes part.
    pub newcomer: Option<AdmissionStatus>,
    /// The servers that its own links reach: it can speak to them.
    pub connected: ServerSet,
    /// The servers of which something came lately: they can speak to it.
    pub hears: ServerSet,
    /// The servers that refuse it, or that it refuses.
    pub refusals: Vec<Refusal>,
    /// Who leads, as far as it knows; None if nobody does, or the protocol has no leader.
    pub leader: Option<LeaderStatus>,
    /// Two-phase commit: how many transactions its participant is prepared for and knows no decision of.
    pub in_doubt: u64,
    /// The first of them, at most [`IN_DOUBT_SHOWN`].
    pub in_doubt_transactions: Vec<InDoubtStatus>,
}

impl ServerStatus {
    /// How it agrees with the others; None if that is a name of another build.
    pub fn protocol(&self) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|one| one.name() == self.protocol)
    }

    /// Whether it says and hears anything.
    pub fn takes_part(&self) -> bool {
        self.newcomer.is_none() && self.fenced.is_none()
    }

    /// The ballot at which it leads; None if it does not.
    pub fn leads(&self) -> Option<Ballot> {
        self.leader.as_ref().map(|leader| leader.ballot).filter(|ballot| ballot.server == self.server)
    }

    /// Whether one of its roles lives.
    pub fn is_up(&self, role: RoleKind) -> bool {
        self.roles.iter().any(|one| one.role == role && one.up)
    }
}

#[cfg(test)]
impl ServerStatus {
    /// A server that has just started, with which all is well, and that is linked with nobody.
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
            newcomer: None,
            connected: ServerSet::NONE,
            hears: ServerSet::NONE,
            refusals: Vec::new(),
            leader: None,
            in_doubt: 0,
            in_doubt_transactions: Vec::new(),
        }
    }
}

/// A link that is down because one of the two servers does not want to talk to the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The other server.
    pub server: ServerId,
    /// A sentence.
    pub why: String,
}

/// A status names at most this many transactions in doubt.
pub const IN_DOUBT_SHOWN: usize = 16;

/// A transaction in doubt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InDoubtStatus {
    /// Which.
    pub transaction: TransactionId,
    /// The key that it locks; None if it opens a session.
    pub key: Option<serde_bytes::ByteBuf>,
    /// For how long, in milliseconds: at least.
    pub waited_ms: u64,
    /// Whether nobody who answers knows the decision.
    pub is_blocked: bool,
}

/// A server whose data folder is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmissionStatus {
    /// The servers that know the folder.
    pub witnesses: ServerSet,
    /// How many must.
    pub needed: u8,
}

/// A leader, as one server knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderStatus {
    /// Its ballot, which names the server.
    pub ballot: Ballot,
    /// For how long the server has known that it leads, in milliseconds.
    pub for_ms: u64,
    /// How it knows: a part of a sentence.
    pub why: String,
}
