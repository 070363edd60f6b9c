//! The environment of a server's core: threads, sockets and clocks, or the simulator's events.

use std::time::Duration;

use super::lifecycle::LabRequest;
use super::limits::ClientConnection;
use super::mail_queue::SendError;
use super::pending::{ReplyHandle, RequestId};
use crate::kv::{Kv, WriteResult};
use crate::net::{ClientReply, PeerMessage};
use crate::paxos::{Acceptor, CommandId, Learner, Proposer, Slot};
use crate::role::{Actions, Input, Role, RoleKind, ServerSet};
use crate::storage::checkpoint::CheckpointMeta;
use crate::time::Time;
use crate::trace::TraceContext;
use crate::two_phase_commit::{Coordinator, CoordinatorRecord, Participant, ParticipantRecord};

/// The environment of a server's core. No method waits, except that writing to the operator may take a moment. No
/// method calls back into the core. While the core holds one of its locks, it calls only [`Env::now`].
pub trait Env {
    /// A client's connection.
    type Connection: ClientConnection;
    /// Whether an observer needs every step of the roles, even when step tracing is off.
    const IS_WATCHED: bool = false;

    /// The time of this server's clock.
    fn now(&self) -> Time;

    /// When a timer that is armed now runs out after this time. Where a person lets timers run out, it is a time that
    /// never comes.
    fn due_after(&self, delay: Duration) -> Time {
        self.now() + delay
    }

    /// Wakes a role that has mail.
    fn wake(&self, role: RoleKind);

    /// Queues a frame for other servers. The frame is lost if a link is down or full. It leaves with the next
    /// [`Env::flush_peers`].
    fn to_peers(&self, to: ServerSet, message: &PeerMessage, frame: Vec<u8>);

    /// Sends the queued frames.
    fn flush_peers(&self);

    /// Sends replies to the clients that asked, in order.
    fn write_replies(&self, replies: Vec<(ReplyHandle<Self::Connection>, ClientReply)>);

    /// Wakes the checkpointer, which has a job.
    fn wake_checkpointer(&self);

    /// Gives a request to the supervisor of the roles; an error if its queue is full.
    fn lab_request(&self, order: LabRequest) -> Result<(), String>;

    /// Shows a sentence to the operator of this server.
    fn show_operator(&self, sentence: &str);

    /// Reports an event to an observer. No decision of the server depends on it.
    fn observe(&self, _seen: Observation<'_>) {}
}

/// An event that an observer can see.
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
        /// The id of the write.
        id: CommandId,
        /// The slot of the write.
        slot: Slot,
        /// The result of the write.
        written: WriteResult,
    },
    /// A read has arrived, and waits.
    ReadArrived(RequestId),
    /// An input did not reach a role.
    Lost(SendError),
    /// An input was dropped because the disk is full.
    Shed,
    /// The replica of this server was found to be divergent.
    Fenced {
        /// The slot after which the digests differ.
        slot: Slot,
        /// The servers with another digest.
        against: ServerSet,
    },
    /// An acceptor has read its journal.
    AcceptorRecovered {
        /// The acceptor, with everything that it recovered.
        acceptor: &'a Acceptor,
        /// The torn tail of the journal was cut: a batch that was being written when the power failed.
        is_cut: bool,
        /// A record before the tail is corrupt.
        is_corrupt: bool,
    },
    /// A learner begins with the state after this slot.
    LearnerRecovered {
        /// The last slot in the state.
        slot: Slot,
    },
    /// A coordinator has read its journal.
    CoordinatorRecovered {
        /// The recovered records.
        records: &'a [CoordinatorRecord],
    },
    /// A participant has read its journal.
    ParticipantRecovered {
        /// The recovered records.
        records: &'a [ParticipantRecord],
        /// The torn tail of the journal was cut: a batch that was being written when the power failed.
        is_cut: bool,
    },
    /// A checkpoint is durable.
    CheckpointDurable(CheckpointMeta),
    /// A checkpoint write failed: the disk may or may not hold the checkpoint.
    CheckpointInDoubt(CheckpointMeta),
    /// Files of the checkpoint were merged.
    CheckpointMerged,
    /// There was no room for a checkpoint.
    CheckpointShed,
    /// A checkpoint was read back.
    CheckpointLoaded(CheckpointMeta),
    /// A chunk of a checkpoint was sent.
    PartSent {
        /// The receiver did not ask for a certain chunk.
        is_first: bool,
    },
}

/// An event of one role that an observer can see.
#[derive(Debug)]
pub enum RoleObservation<'a, R: Role> {
    /// The role is about to step through these inputs.
    Hears(&'a [(TraceContext, Input<R>)]),
    /// The role's records are durable, and these actions are about to be performed.
    Says(&'a Actions<TraceContext, R>),
}
