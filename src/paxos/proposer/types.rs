//! What a proposer remembers, waits for, is asked, answers and shows.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::paxos::{Ballot, Command, CommandId, Message, Slot, Value};
use crate::role::{Role, ServerId, ServerSet, TimerSpec};

/// A role that speaks these words. There is one, the proposer, but its parts need not know it: what they want said they
/// write into the output of whoever speaks so.
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

/// What a proposer must never forget: a round that was used is never used again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProposerRecord {
    /// All rounds below this one are spent.
    RoundsReserved(u64),
}

/// A time-out of a proposer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProposerTimer {
    /// A tenth of a second has passed.
    Tick,
    /// Nothing has moved for too long.
    Attempt {
        /// The attempt's ballot.
        ballot: Ballot,
        /// How often its time is doubled.
        doublings: u32,
    },
    /// Some time has passed since the first NACK.
    Nacked {
        /// The attempt's ballot.
        ballot: Ballot,
    },
    /// The random wait between two attempts is over.
    Backoff {
        /// How many attempts were lost since anything was applied here; no more are counted than make a difference.
        stalls: u32,
    },
    /// The learner had its time to catch up.
    CatchUp,
    /// The clock of leadership: time for a heartbeat.
    HeartbeatTick,
    /// No leader was heard, or heard of, for too long.
    Election {
        /// The connection from the leader has closed: there is nothing to wait for.
        soon: bool,
    },
    /// Slots of this leader's may still be open that were proposed a while ago.
    Resend {
        /// How often in a row they were found open.
        tries: u32,
    },
}

/// How long nothing may come of an attempt at first, in milliseconds.
pub(super) const ATTEMPT_MS: u64 = 100;
/// More failures than this make it no longer, unless promises are seen to take longer: 1.6 s.
pub(super) const FAILURES_MAX: u32 = 4;
/// The longest random wait between two attempts, in milliseconds, as long as something is chosen now and then.
const PAUSE_MS: u64 = 40;
/// More lost attempts than this, where rounds are quick, make it no longer: 2.56 s.
pub(super) const STALLS_MAX: u32 = 8;
/// It lasts for some rounds then, also where a round takes longer than this.
pub(super) const SLOW_ROUND_MS: u64 = 640;
/// After how long slots that are still open are proposed again at first, in milliseconds.
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
            // It grows as long as nobody gets anything chosen: where a ballot takes longer than the wait, rivals would
            // refuse each other for ever. A wait that grew with each loss of this proposer's would starve the loser
            // instead.
            ProposerTimer::Backoff { stalls } => 0..=PAUSE_MS << stalls.saturating_sub(2),
            ProposerTimer::CatchUp => 1_000..=1_000,
            ProposerTimer::HeartbeatTick => 30..=30,
            // Random, so that two seldom stand at once.
            ProposerTimer::Election { soon: false } => 150..=300,
            ProposerTimer::Election { soon: true } => 1..=30,
            // Grows: a cluster that is slow because it has too much to do must not get the same work twice.
            ProposerTimer::Resend { tries } => {
                let delay = RESEND_MS << tries.min(5);
                delay..=delay
            }
        }
    }
}

/// What a server asks of its proposer.
#[derive(Clone, Debug)]
pub enum ProposerRequest {
    /// Get this command chosen.
    Propose {
        /// The command.
        command: Command,
        /// The round of the last ballot that this server's own acceptor has promised; 0 if it is not known.
        promised_round: u64,
    },
    /// The own learner has applied more.
    Applied {
        /// The last slot applied.
        slot: Slot,
        /// The commands applied with it.
        ids: Vec<CommandId>,
    },
    /// The own learner has taken a whole state from another server: no ids were said of what lies in it.
    Installed {
        /// Every slot up to this one is in it.
        slot: Slot,
    },
    /// The own learner has counted votes for slots that are not chosen yet.
    Counted,
    /// The own learner has died.
    LearnerDown,
    /// The last connection from this server has closed: it is gone, or will have to call again.
    PeerDisconnected(ServerId),
}

/// Why a command is certainly not applied through this proposer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NotApplied {
    /// No quorum of acceptors has answered.
    NoQuorum {
        /// Those that have.
        answered: ServerSet,
    },
    /// Rival proposers were faster each time, or the commands before it took too long.
    Preempted,
    /// The own learner is down or too far behind.
    LearnerBehind,
    /// Too many commands wait already.
    Busy,
    /// Nobody is heard who leads.
    NoLeader,
    /// It has come to the last of its ballots, or somebody has claimed to.
    NoRound,
}

/// What a proposer tells its server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProposerNotification {
    /// In this life the command was in no ACCEPT and in no FORWARD, and is forgotten.
    NotApplied {
        /// The command.
        id: CommandId,
        /// Why.
        why: NotApplied,
    },
    /// These commands wait here, and the state that the own learner has taken may hold their outcomes.
    Recall(Vec<CommandId>),
}

/// Why an attempt has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryReason {
    /// A majority has refused.
    Refused,
    /// Not chosen a while after the first refusal.
    Nacked,
    /// Too few have answered.
    TimedOut,
}

/// Why a leader leads no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepDownReason {
    /// An acceptor is bound to this ballot.
    Nacked(Ballot),
    /// Somebody leads at this ballot.
    HigherBallot(Ballot),
    /// Too few have answered its heartbeats.
    NoHeartbeatReplies,
    /// Slots are open, and nothing was applied for too long.
    Stalled,
    /// Its learner has died.
    LearnerDown,
    /// Somebody needs slots that lie below its ballot's first.
    Truncated(Slot),
}

/// A step of a proposer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProposerTraceEvent {
    /// It asks for promises.
    Prepared {
        /// The ballot.
        ballot: Ballot,
        /// The first slot of interest.
        from: Slot,
        /// Whom it asks.
        to: ServerSet,
        /// It means to keep the ballot.
        to_lead: bool,
        /// The command that it is for; none if it only fills slots, or is to lead.
        command: Option<Command>,
    },
    /// It proposes.
    Proposed {
        /// The slot.
        slot: Slot,
        /// The ballot.
        ballot: Ballot,
        /// The value.
        value: Value,
        /// The ballot at which it was accepted before, if the promises bind the proposer to it.
        adopted: Option<Ballot>,
        /// Who promised.
        quorum: ServerSet,
        /// Whom it asks.
        to: ServerSet,
    },
    /// The attempt is lost; it will try again.
    Retried {
        /// The attempt's ballot.
        ballot: Ballot,
        /// Its first slot.
        from: Slot,
        /// Who refused, and what binds each.
        nacks: Vec<(ServerId, Ballot)>,
        /// Who has answered at all.
        answered: ServerSet,
        /// The next round.
        next: u64,
        /// Why.
        reason: RetryReason,
        /// The command that it was for.
        command: Option<Command>,
    },
    /// It leads.
    Led {
        /// The first slot of its ballot.
        from: Slot,
        /// Its ballot.
        ballot: Ballot,
        /// Who promised.
        quorum: ServerSet,
    },
    /// It leads no longer.
    SteppedDown {
        /// Its ballot.
        ballot: Ballot,
        /// So many slots were open, and may be chosen or not.
        open: usize,
        /// Why.
        why: StepDownReason,
    },
    /// It hands a command to the leader.
    Forwarded {
        /// The command.
        command: Command,
        /// The leader's ballot.
        leader: Ballot,
    },
}
