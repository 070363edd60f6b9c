//! The records, timers, requests, notifications and trace events of a proposer.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::paxos::{Ballot, Command, CommandId, Message, Slot, Value};
use crate::role::{Role, ServerId, ServerSet, TimerSpec};

/// Period of [`ProposerTimer::HeartbeatTick`], in milliseconds.
pub(super) const HEARTBEAT_TICK_MS: u64 = 30;

/// A role with the proposer's types. Only the proposer is one, but its parts need not know that: they write into the
/// output of any such role.
pub(super) trait ProposerVocabulary:
    Role<
        Message = Message,
        Record = ProposerRecord,
        Timer = ProposerTimer,
        Notification = ProposerNotification,
        TraceEvent = ProposerTraceEvent,
    >
{
}

impl<R> ProposerVocabulary for R where
    R: Role<
            Message = Message,
            Record = ProposerRecord,
            Timer = ProposerTimer,
            Notification = ProposerNotification,
            TraceEvent = ProposerTraceEvent,
        >
{
}

/// The durable record of a proposer: a round that was used is never used again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProposerRecord {
    /// All rounds below this one are reserved.
    RoundsReserved(u64),
}

/// A time-out of a proposer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProposerTimer {
    /// The tick of 100 ms.
    Tick,
    /// The attempt has made no progress for too long.
    Attempt {
        /// The attempt's ballot.
        ballot: Ballot,
        /// How often its delay is doubled.
        doublings: u32,
    },
    /// 20 ms have passed since the first NACK.
    Nacked {
        /// The attempt's ballot.
        ballot: Ballot,
    },
    /// The random wait between two attempts is over.
    Backoff {
        /// Number of attempts lost since anything was applied here, up to the number that still makes a difference.
        stalls: u32,
    },
    /// The learner's time to catch up is over.
    CatchUp,
    /// The heartbeat tick of 30 ms.
    HeartbeatTick,
    /// The election time-out: no news of a leader for too long.
    Election {
        /// The connection from the leader has closed, so the delay is short.
        soon: bool,
    },
    /// Slots that this leader proposed a while ago may still be in flight.
    Resend {
        /// How often in a row slots were still in flight.
        tries: u32,
    },
}

/// Time without progress after which the first attempt fails, in milliseconds.
pub(super) const ATTEMPT_MS: u64 = 100;
/// Number of failures after which this time no longer doubles, unless promises are seen to take longer: 1.6 s.
pub(super) const FAILURES_MAX: u32 = 4;
/// Maximum random wait between two attempts, in milliseconds, as long as something is chosen now and then.
const PAUSE_MS: u64 = 40;
/// Number of lost attempts after which the wait no longer doubles, where rounds are quick: 2.56 s.
pub(super) const STALLS_MAX: u32 = 8;
/// Where a round takes longer than this, in milliseconds, the wait doubles further, to last for some rounds.
pub(super) const SLOW_ROUND_MS: u64 = 640;
/// Initial time after which slots in flight are proposed again, in milliseconds.
pub(super) const RESEND_MS: u64 = 50;

impl TimerSpec for ProposerTimer {
    fn delay_ms(&self) -> RangeInclusive<u64> {
        match *self {
            ProposerTimer::Tick => 100..=100,
            ProposerTimer::Attempt { doublings, .. } => {
                let delay = ATTEMPT_MS << doublings.min(7);
                delay..=delay
            }
            ProposerTimer::Nacked { .. } => 20..=20,
            // The wait grows while nothing is chosen: where a ballot takes longer than the wait, rivals would refuse
            // each other forever. If it grew with each loss of this proposer instead, the loser would starve.
            ProposerTimer::Backoff { stalls } => 0..=PAUSE_MS << stalls.saturating_sub(2),
            ProposerTimer::CatchUp => 1_000..=1_000,
            ProposerTimer::HeartbeatTick => HEARTBEAT_TICK_MS..=HEARTBEAT_TICK_MS,
            // Random, so that two proposers seldom campaign at once.
            ProposerTimer::Election { soon: false } => 150..=300,
            ProposerTimer::Election { soon: true } => 1..=30,
            // The delay grows: a cluster that is slow under load must not get the same work twice.
            ProposerTimer::Resend { tries } => {
                let delay = RESEND_MS << tries.min(5);
                delay..=delay
            }
        }
    }
}

/// A request of the server to its proposer.
#[derive(Clone, Debug)]
pub enum ProposerRequest {
    /// Get this command chosen.
    Propose {
        /// The command.
        command: Command,
        /// The round of the last ballot that this server's own acceptor has promised; 0 if it is not known.
        promised_round: u64,
    },
    /// The own learner has applied more slots.
    Applied {
        /// The last slot applied.
        slot: Slot,
        /// The commands applied since the last such request.
        ids: Vec<CommandId>,
    },
    /// The own learner has installed a snapshot; the commands in it were not reported.
    Installed {
        /// The last slot in the snapshot.
        slot: Slot,
    },
    /// The own learner has counted votes for slots that are not chosen yet.
    Counted,
    /// The own learner has crashed.
    LearnerDown,
    /// The last connection from this server has closed: the server is down, or must connect again.
    PeerDisconnected(ServerId),
}

/// The reason why a command is certainly not applied through this proposer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NotApplied {
    /// No quorum of acceptors has answered.
    NoQuorum {
        /// The acceptors that have answered.
        answered: ServerSet,
    },
    /// Rival proposers were faster each time, or the commands before this one took too long.
    Preempted,
    /// The own learner is down or too far behind.
    LearnerBehind,
    /// Too many commands wait already.
    Busy,
    /// No leader is known.
    NoLeader,
    /// The proposer has used its last round, or a peer has claimed the last one.
    NoRound,
}

/// A notification of the proposer to its server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProposerNotification {
    /// The proposer has dropped the command, which was in no ACCEPT and no FORWARD of this incarnation.
    NotApplied {
        /// The command's id.
        id: CommandId,
        /// The reason.
        why: NotApplied,
    },
    /// These commands wait here, and the snapshot that the own learner has installed may hold their outcomes.
    Recall(Vec<CommandId>),
}

/// The reason why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryReason {
    /// A majority has refused.
    Refused,
    /// Not chosen 20 ms after the first refusal.
    Nacked,
    /// Too few acceptors have answered in time.
    TimedOut,
}

/// The reason why a leader stepped down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepDownReason {
    /// An acceptor has promised this higher ballot.
    Nacked(Ballot),
    /// Another proposer leads at this higher ballot.
    HigherBallot(Ballot),
    /// Fewer than a majority replied to its heartbeats.
    NoHeartbeatReplies,
    /// Slots were in flight, or pages of promises missing, without progress for too long.
    Stalled,
    /// Its own learner has crashed.
    LearnerDown,
    /// A learner needs this slot, which this ballot no longer proposes in.
    Truncated(Slot),
}

/// A step of a proposer, for the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProposerTraceEvent {
    /// The proposer asks for promises (phase 1).
    PrepareSent {
        /// The ballot to promise.
        ballot: Ballot,
        /// The first slot asked about.
        from: Slot,
        /// The acceptors asked.
        to: ServerSet,
        /// Whether the proposer will keep the ballot.
        to_lead: bool,
        /// The command of the attempt; `None` if it only fills slots or is to lead.
        command: Option<Command>,
    },
    /// The proposer proposes a value (phase 2).
    Proposed {
        /// The slot of the proposal.
        slot: Slot,
        /// The ballot of the proposal.
        ballot: Ballot,
        /// The proposed value.
        value: Value,
        /// The ballot at which the value was accepted before, if the promises require it; else `None`.
        adopted: Option<Ballot>,
        /// The acceptors whose promises settled the slot.
        quorum: ServerSet,
        /// The servers that receive the ACCEPT.
        to: ServerSet,
    },
    /// The attempt is lost; the proposer will try again.
    Retried {
        /// The attempt's ballot.
        ballot: Ballot,
        /// The attempt's first slot.
        from: Slot,
        /// The acceptors that refused, with the ballot that each has promised.
        nacks: Vec<(ServerId, Ballot)>,
        /// The acceptors that have answered in any way.
        answered: ServerSet,
        /// The round of the next ballot.
        next: u64,
        /// The reason.
        reason: RetryReason,
        /// The command of the attempt, if it had one.
        command: Option<Command>,
    },
    /// The proposer begins to lead.
    Led {
        /// The first slot of its ballot.
        from: Slot,
        /// Its ballot.
        ballot: Ballot,
        /// The quorum that promised the ballot.
        quorum: ServerSet,
    },
    /// The proposer no longer leads.
    SteppedDown {
        /// The ballot of the tenure.
        ballot: Ballot,
        /// Number of slots in flight, which may be chosen or not.
        open: usize,
        /// The reason.
        why: StepDownReason,
    },
    /// The proposer forwards a command to the leader.
    Forwarded {
        /// The forwarded command.
        command: Command,
        /// The leader's ballot.
        leader: Ballot,
    },
}
