//! What a server's core needs of its surroundings: threads, sockets and clocks, or the simulator's events.

use super::lifecycle::LabRequest;
use super::limits::ClientConnection;
use super::mail_queue::SendError;
use super::pending::{ReplyHandle, RequestId};
use super::time::Time;
use crate::kv::{Kv, WriteResult};
use crate::net::{ClientReply, PeerMessage};
use crate::paxos::{Acceptor, CommandId, Learner, Proposer, Slot};
use crate::role::{Actions, Input, Role, RoleKind, ServerSet};
use crate::storage::checkpoint::CheckpointMeta;
use crate::trace::TraceContext;
use crate::two_phase_commit::{Coordinator, CoordinatorRecord, Participant, ParticipantRecord};

/// The surroundings of a server's core. No method waits, but for a moment the one that tells the operator; none calls
/// back into the core; and while the core holds a lock of its own, it asks only for the time.
pub trait Env {
    /// A client's connection.
    type Connection: ClientConnection;
    /// Whether somebody watches who wants to see every step of the roles, also where no lines tell of them.
    const IS_WATCHED: bool = false;

    /// The time of this server's clock.
    fn now(&self) -> Time;

    /// A role has mail that it must be woken for.
    fn wake(&self, role: RoleKind);

    /// Puts a frame on its way to other servers. Where there is no link, or no room, it is lost. It leaves with the
    /// next [`Env::flush_peers`].
    fn to_peers(&self, to: ServerSet, message: &PeerMessage, frame: Vec<u8>);

    /// Lets the frames leave.
    fn flush_peers(&self);

    /// Sends replies to the clients that asked, in order.
    fn write_replies(&self, replies: Vec<(ReplyHandle<Self::Connection>, ClientReply)>);

    /// The checkpointer has something to do.
    fn wake_checkpointer(&self);

    /// Hands an order to whoever starts and ends the roles; an error if it takes no more of them.
    fn give(&self, order: LabRequest) -> Result<(), String>;

    /// Shows a sentence to whoever runs this server.
    fn tell_operator(&self, sentence: &str);

    /// Somebody may watch what happens. Nothing that the server does depends on it.
    fn observe(&self, _seen: Observation<'_>) {}
}

/// What can be watched.
#[derive(Debug)]
pub enum Observation<'a> {
    /// A proposer.
    Proposer(RoleObservation<'a, Proposer>),
    /// An acceptor.
    Acceptor(RoleObservation<'a, Acceptor>),
    /// A learner.
    Learner(RoleObservation<'a, Learner<Kv>>),
    /// A coordinator.
    Coordinator(RoleObservation<'a, Coordinator>),
    /// A participant.
    Participant(RoleObservation<'a, Participant>),
    /// A client is told that its write is applied.
    Acknowledged {
        /// The write.
        id: CommandId,
        /// Its slot.
        slot: Slot,
        /// What it came to.
        written: WriteResult,
    },
    /// A read has come, and waits.
    ReadArrived(RequestId),
    /// An input did not reach a role.
    Lost(SendError),
    /// An input was dropped because the disk is full.
    Shed,
    /// The state of this server was found to be wrong.
    Fenced {
        /// After which slot.
        slot: Slot,
        /// Who says otherwise.
        against: ServerSet,
    },
    /// An acceptor has read its journal.
    AcceptorRecovered {
        /// The acceptor, with all that it knows.
        acceptor: &'a Acceptor,
        /// A group that was being written when the power failed was cut off.
        is_cut: bool,
        /// Something that was written before that cannot be read.
        is_damaged: bool,
    },
    /// A learner begins with the state of this slot.
    LearnerRecovered {
        /// The slot.
        slot: Slot,
    },
    /// A coordinator has read its log.
    CoordinatorRecovered {
        /// What is in it.
        records: &'a [CoordinatorRecord],
    },
    /// A participant has read its log.
    ParticipantRecovered {
        /// What is in it.
        records: &'a [ParticipantRecord],
        /// A group that was being written when the power failed was cut off.
        is_cut: bool,
    },
    /// A checkpoint is durable.
    CheckpointDurable(CheckpointMeta),
    /// An error has struck while a checkpoint was written.
    CheckpointInDoubt(CheckpointMeta),
    /// There was no room for a checkpoint.
    CheckpointShed,
    /// A checkpoint was read back.
    CheckpointLoaded(CheckpointMeta),
    /// A part of a checkpoint was sent; whether it is the first one.
    PartSent {
        /// Whoever gets it did not ask for a certain part.
        is_first: bool,
    },
}

/// What can be watched of a role.
#[derive(Debug)]
pub enum RoleObservation<'a, R: Role> {
    /// It is about to take these inputs.
    Hears(&'a [(TraceContext, Input<R>)]),
    /// What it remembers is durable, and it is about to do these things.
    Says(&'a Actions<TraceContext, R>),
}
