//! The events of log lines, in one table: name, fields in print order, and severity.
//!
//! The table generates the type, the writer and the parser, so every line that can be written is read back exactly.

use std::fmt::{self, Formatter};
use std::net::SocketAddr;

use log::Level;
#[cfg(test)]
use proptest::{prelude::*, strategy::Union};

use super::field::{
    AcceptedSlots, Digest, DiskName, Field, FieldError, Fields, HistoryName, MaybeBallot, Millis, Nacks, Seconds,
    SlotFrom, SlotSpan, TriedServers,
};
use super::quoted::QuotedText;
use super::values::{
    CommandName, CrashCause, CrashPoint, DecisionReason, DropCause, LearnResult, LinkEvent, OpKind, RecoveredFrom,
    RequestStatus, RestartMode, TransactionState, VoteValue,
};
use crate::paxos::{Ballot, NackedRequest, Slot};
use crate::role::{ServerId, ServerSet};
use crate::two_phase_commit::TransactionId;

/// Why the name and fields of a line do not form an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// No event has this name.
    #[error("unknown event {0}")]
    Unknown(String),
    /// A field is missing or invalid.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Declares the events. `NAME` is the printed word; a *step* is part of the normal course of the protocol.
macro_rules! events {
    ($(
        $(#[$doc:meta])*
        $variant:ident = $name:literal, $level:ident, $kind:ident {
            $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)?
        }
    )*) => {
        /// What a line reports. See the [module](self).
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* $variant { $($(#[$field_doc])* $field: $type),* }),*
        }

        impl Event {
            /// The names of all events.
            pub const NAMES: &[&str] = &[$($name),*];

            /// The printed name, in capitals.
            pub fn name(&self) -> &'static str {
                match self { $(Event::$variant { .. } => $name),* }
            }

            /// The severity by kind alone, before the fields are considered.
            fn usual_level(&self) -> Level {
                match self { $(Event::$variant { .. } => Level::$level),* }
            }

            /// Whether the event is a frequent one of the normal course. `--steps off` omits these.
            pub fn is_step(&self) -> bool {
                match self { $(Event::$variant { .. } => events!(@$kind)),* }
            }

            /// Writes each field as ` key=value`.
            pub(super) fn write_fields(&self, to: &mut Formatter<'_>) -> fmt::Result {
                match self {
                    $(Event::$variant { $($field),* } => {
                        $($field.write(stringify!($field), to)?;)*
                    })*
                }
                Ok(())
            }

            /// Reads the fields of the named event; the text after them stays in `from`.
            pub(super) fn read(name: &str, from: &mut Fields<'_>) -> Result<Event, EventError> {
                match name {
                    $($name => Ok(Event::$variant { $($field: Field::read(stringify!($field), from)?),* }),)*
                    _ => Err(EventError::Unknown(name.into())),
                }
            }
        }

        #[cfg(test)]
        impl super::strategies::AnyValue for Event {
            fn any() -> BoxedStrategy<Event> {
                Union::new([$({
                    prop_compose! {
                        fn event()($($field in <$type>::any()),*) -> Event { Event::$variant { $($field),* } }
                    }
                    event().boxed()
                }),*]).boxed()
            }
        }
    };
    (@step) => { true };
    (@rare) => { false };
}

events! {
    /// A proposer requests promises: one ballot for all slots from `slot`.
    Prepare = "PREPARE", Info, step {
        /// First slot that the ballot covers.
        slot: SlotFrom,
        /// The proposer's new ballot.
        ballot: Ballot,
        /// The acceptors addressed.
        to: ServerSet,
    }
    /// An acceptor promises a ballot.
    Promise = "PROMISE", Info, step {
        /// The slots that this reply covers.
        slot: SlotSpan,
        /// The promised ballot.
        ballot: Ballot,
        /// What the acceptor has accepted in these slots.
        accepted: AcceptedSlots,
        /// The ballot's owner, which receives the reply.
        to: ServerId,
    }
    /// An acceptor refuses a PREPARE or an ACCEPT.
    Nack = "NACK", Info, step {
        /// The refused request: `7+` for a PREPARE, `7` for an ACCEPT.
        slot: NackedRequest,
        /// The refused ballot.
        ballot: Ballot,
        /// The higher ballot that the acceptor has promised.
        promised: Ballot,
        /// The refused proposer's server.
        to: ServerId,
    }
    /// A proposer proposes a value in a slot.
    Accept = "ACCEPT", Info, step {
        /// The slot of the proposal.
        slot: Slot,
        /// The ballot of the proposal.
        ballot: Ballot,
        /// The operation of the command.
        op: OpKind,
        /// The key that the command writes.
        key: Option<QuotedText>,
        /// The value to write.
        value: Option<QuotedText>,
        /// The write applies only if the key is at this version.
        if_version: Option<u64>,
        /// The ballot at which the value was accepted before, if the promises require the proposer to adopt it.
        adopted: MaybeBallot,
        /// The acceptors that promised the ballot.
        quorum: ServerSet,
        /// The acceptors addressed.
        to: ServerSet,
    }
    /// An acceptor accepts a value in a slot.
    Accepted = "ACCEPTED", Info, step {
        /// The slot of the accepted value.
        slot: Slot,
        /// The ballot of the accepted value.
        ballot: Ballot,
        /// The ballot's owner, whose learner counts the acceptances.
        to: ServerId,
    }
    /// A learner has counted a majority of acceptances for a slot.
    Chosen = "CHOSEN", Info, step {
        /// The chosen slot.
        slot: Slot,
        /// The ballot at which its value was chosen.
        ballot: Ballot,
        /// The acceptors that accepted.
        quorum: ServerSet,
        /// The servers that it notifies.
        to: ServerSet,
    }
    /// A learner has applied a slot.
    Learn = "LEARN", Info, step {
        /// The applied slot.
        slot: Slot,
        /// A ballot at which its value was chosen.
        ballot: Ballot,
        /// The operation of the command.
        op: OpKind,
        /// The key that the command writes.
        key: Option<QuotedText>,
        /// The value to write.
        value: Option<QuotedText>,
        /// The write applies only if the key is at this version.
        if_version: Option<u64>,
        /// The command's name: `session-sequence`, or for an OPEN `0-~` and a part of a hash of its nonce. Labels may
        /// repeat, names of writes do not.
        id: Option<CommandName>,
        /// The result of applying it.
        result: LearnResult,
        /// The key's version after the command, or after its first application.
        version: Option<u64>,
        /// The session that was opened.
        session: Option<u64>,
        /// Last slot applied.
        applied: Slot,
    }
    /// A proposer's attempt has failed; it retries with a higher round.
    Retry = "RETRY", Warn, step {
        /// First slot of the failed attempt.
        slot: Slot,
        /// Ballot of the failed attempt.
        ballot: Ballot,
        /// The acceptors that refused, and the ballot that each has promised.
        nack: Nacks,
        /// The round of the next attempt.
        next_round: u64,
    }
    /// A role crashes.
    Crash = "CRASH", Warn, rare {
        /// What caused the crash.
        cause: CrashCause,
        /// The point of the turn at which it crashed.
        point: Option<CrashPoint>,
        /// Time since the role's start.
        up: Seconds,
        /// Planned down time; absent if the restart must be requested.
        down: Option<Seconds>,
    }
    /// A role restarts.
    Restart = "RESTART", Info, rare {
        /// Time from the crash to the restart.
        down: Seconds,
        /// What the role has recovered.
        recovered: RecoveredFrom,
        /// Acceptor: its highest promised ballot.
        promised: Option<MaybeBallot>,
        /// Acceptor: number of slots in which it has accepted a value.
        accepted: Option<u64>,
        /// Proposer: its next round.
        next: Option<u64>,
        /// Learner: the last slot applied. Participant: the number of committed transactions.
        applied: Option<Slot>,
        /// Learner or participant: the digest of its state.
        digest: Option<Digest>,
        /// Participant: number of prepared transactions. Coordinator: number of commits that not all servers have
        /// acknowledged.
        in_doubt: Option<u64>,
    }
    /// A message is dropped.
    Drop = "DROP", Warn, rare {
        /// The message's name.
        msg: QuotedText,
        /// The sending server.
        from: Option<ServerId>,
        /// The destination servers, if this one is the sender.
        to: Option<ServerSet>,
        /// Why the message was dropped.
        cause: DropCause,
        /// Number of dropped messages, if more than one.
        n: Option<u64>,
    }
    /// A client sends a request (`to=`), or a server receives it (`from=`).
    Request = "REQUEST", Info, step {
        /// The operation.
        op: OpKind,
        /// The key of the operation.
        key: Option<QuotedText>,
        /// The value to write.
        value: Option<QuotedText>,
        /// The write applies only if the key is at this version.
        if_version: Option<u64>,
        /// The client's address.
        from: Option<SocketAddr>,
        /// The server that the client contacts.
        to: Option<ServerId>,
        /// The client's session.
        session: Option<u64>,
        /// The write's sequence number in its session.
        sequence: Option<u64>,
    }
    /// A server replies (`to=`), or a client receives the reply (`server=`).
    Response = "RESPONSE", Info, step {
        /// The result of the request.
        status: RequestStatus,
        /// The slot at which the write was applied; for a read, the last slot applied to the state that it was answered
        /// from.
        slot: Option<Slot>,
        /// The key's version.
        version: Option<u64>,
        /// The value read.
        value: Option<QuotedText>,
        /// The session that was opened.
        session: Option<u64>,
        /// Why it was not applied, in one word.
        cause: Option<QuotedText>,
        /// Time from request to reply.
        took: Millis,
        /// The server that replied.
        server: Option<ServerId>,
        /// The client's address.
        to: Option<SocketAddr>,
    }
    /// A client's try has failed; the client sends the same request to the next server.
    Failover = "FAILOVER", Warn, rare {
        /// Time that the failed try took.
        waited: Seconds,
        /// Why the try failed, in one word.
        cause: QuotedText,
        /// The server of the failed try.
        from: ServerId,
        /// The server of the next try.
        to: ServerId,
    }
    /// A client ends a request without a reply.
    Timeout = "TIMEOUT", Warn, rare {
        /// Total time over all tries.
        waited: Seconds,
        /// The servers tried, in order.
        tries: TriedServers,
        /// What the client knows of the outcome.
        status: RequestStatus,
    }
    /// A connection delivered bytes that are not a valid request.
    Malformed = "MALFORMED", Warn, rare {
        /// Number of bytes read, or the length that an oversized frame announced.
        length: u64,
        /// The sender's address.
        from: SocketAddr,
    }
    /// A process starts.
    Boot = "BOOT", Info, rare {
        /// Version of the program.
        version: QuotedText,
        /// Format version of the lines: [`FORMAT`](super::FORMAT).
        lines: Option<u32>,
        /// All servers of the cluster; majorities are counted over them.
        cluster: ServerSet,
        /// The protocol that the cluster runs.
        protocol: Option<QuotedText>,
        /// Seed of all random delays.
        seed: Option<u64>,
        /// The roles that crash at random.
        fail: Option<QuotedText>,
        /// Mean time that a role is up before a random crash.
        mean_up: Option<Seconds>,
        /// Mean time that a crashed role is down.
        mean_down: Option<Seconds>,
        /// What a crashed role recovers at its restart.
        restart: Option<RestartMode>,
        /// The data directory.
        data: Option<QuotedText>,
        /// Whether protocol steps are recorded: `on` or `off`.
        steps: Option<QuotedText>,
        /// Number of processes that have started on this data directory, this one included.
        incarnation: Option<u32>,
        /// Last slot applied when the learner started.
        applied: Option<Slot>,
        /// Digest of the learner's state.
        digest: Option<Digest>,
        /// The acceptor's highest promised ballot.
        promised: Option<MaybeBallot>,
        /// Number of slots in which the acceptor has accepted a value.
        accepted: Option<u64>,
        /// Short name of the history that the state belongs to; `none` if nothing was ever applied.
        history: Option<HistoryName>,
        /// Name of the data directory. Different names mean different directories.
        disk: Option<DiskName>,
    }
    /// A process stops.
    Stop = "STOP", Info, rare {
        /// Last slot applied.
        applied: Option<Slot>,
        /// Digest of the state after that slot.
        digest: Option<Digest>,
        /// Why it stops, in one word.
        cause: QuotedText,
    }
    /// A process continues in a new log file: the previous one has been renamed or moved.
    Reopen = "REOPEN", Info, rare {
        /// What requested it.
        cause: QuotedText,
    }
    /// A proposer forwards a command to the leader.
    Forward = "FORWARD", Info, step {
        /// The leader's ballot.
        ballot: Ballot,
        /// The leader's server.
        to: ServerId,
    }
    /// A proposer becomes leader for all slots from one on.
    Lead = "LEAD", Info, rare {
        /// First slot of the leader's ballot.
        slot: SlotFrom,
        /// The leader's ballot.
        ballot: Ballot,
        /// The acceptors that promised the ballot.
        quorum: ServerSet,
    }
    /// A leader steps down.
    Stepdown = "STEPDOWN", Warn, rare {
        /// The leader's ballot.
        ballot: Ballot,
        /// The higher ballot of a rival, if one caused it.
        promised: Option<Ballot>,
    }
    /// A learner requests missing entries from a peer.
    Catchup = "CATCHUP", Info, step {
        /// First missing slot.
        from: Slot,
        /// Last slot known to be chosen.
        known: Slot,
        /// The peer.
        to: ServerId,
    }
    /// A learner asks proposers to get every slot up to this one chosen.
    Fill = "FILL", Info, step {
        /// Last slot to fill.
        slot: Slot,
        /// The servers whose proposers are asked.
        to: ServerSet,
    }
    /// A learner replaces its state by a peer's snapshot, or a server has saved its own state.
    Snapshot = "SNAPSHOT", Info, rare {
        /// Last slot applied to the snapshot.
        slot: Slot,
        /// Digest of the snapshot.
        digest: Digest,
        /// The peer that sent it, if one did.
        from: Option<ServerId>,
    }
    /// An acceptor has dropped slots that its server's durable checkpoint contains.
    Truncate = "TRUNCATE", Info, rare {
        /// First slot that the acceptor still holds.
        below: Slot,
    }
    /// Accepted values of some slots are unreadable on an acceptor's disk.
    Corrupt = "CORRUPT", Warn, rare {
        /// First corrupt slot.
        slot: Slot,
        /// Last corrupt slot.
        to: Slot,
    }
    /// An acceptor has restored a corrupt slot.
    Repair = "REPAIR", Info, rare {
        /// The repaired slot.
        slot: Slot,
        /// A ballot at which its value was chosen.
        ballot: Ballot,
    }
    /// Two-phase commit: a coordinator requests votes.
    VoteReq = "VOTEREQ", Info, step {
        /// The transaction to vote on.
        tx: TransactionId,
        /// The operation of the command.
        op: OpKind,
        /// The key that the command writes.
        key: Option<QuotedText>,
        /// The value to write.
        value: Option<QuotedText>,
        /// The write applies only if the key is at this version.
        if_version: Option<u64>,
        /// The session that is evicted to make room for the opened one.
        evict: Option<u64>,
        /// The participants addressed.
        to: ServerSet,
    }
    /// A participant votes.
    Vote = "VOTE", Info, step {
        /// The transaction voted on.
        tx: TransactionId,
        /// Yes or no.
        vote: VoteValue,
        /// Why no, in one word.
        cause: Option<QuotedText>,
        /// The transaction that holds the lock.
        by: Option<TransactionId>,
        /// The coordinator's server.
        to: ServerId,
    }
    /// A coordinator decides, or repeats a decision.
    Decide = "DECIDE", Info, step {
        /// The decided transaction.
        tx: TransactionId,
        /// Commit or abort.
        decision: TransactionState,
        /// Whether this is the first message of the decision, a repetition or a presumed abort.
        reason: DecisionReason,
        /// The participants that voted yes.
        yes: ServerSet,
        /// The participant that voted no.
        no: Option<ServerId>,
        /// The participants that it notifies.
        to: ServerSet,
    }
    /// A participant has committed a transaction and acknowledges it.
    Ack = "ACK", Info, step {
        /// The committed transaction.
        tx: TransactionId,
        /// The operation of the command.
        op: OpKind,
        /// The key that the command writes.
        key: Option<QuotedText>,
        /// The value to write.
        value: Option<QuotedText>,
        /// The write applies only if the key is at this version.
        if_version: Option<u64>,
        /// The command's name.
        id: Option<CommandName>,
        /// The result of applying it.
        result: LearnResult,
        /// The key's version after the commit.
        version: Option<u64>,
        /// The session that was opened.
        session: Option<u64>,
        /// Number of transactions committed on this server.
        applied: u64,
        /// The coordinator's server.
        to: ServerId,
    }
    /// A participant has aborted a prepared transaction.
    Aborted = "ABORTED", Info, step {
        /// The aborted transaction.
        tx: TransactionId,
    }
    /// A participant that has not voted promises never to vote yes.
    GiveUp = "GIVEUP", Warn, step {
        /// The refused transaction.
        tx: TransactionId,
        /// The server that inquired.
        to: ServerId,
    }
    /// A participant in doubt inquires about the decision.
    Inquire = "INQUIRE", Warn, step {
        /// The transaction in doubt.
        tx: TransactionId,
        /// The servers that it asks.
        to: ServerSet,
    }
    /// A participant answers another's inquiry.
    Answer = "ANSWER", Info, step {
        /// The transaction inquired about.
        tx: TransactionId,
        /// The state of the transaction at this participant.
        known: TransactionState,
        /// The server that inquired.
        to: ServerId,
    }
    /// A participant may neither commit nor abort a prepared transaction.
    Blocked = "BLOCKED", Warn, rare {
        /// The blocked transaction.
        tx: TransactionId,
        /// The key that stays locked.
        key: Option<QuotedText>,
        /// The coordinator whose decision is missing.
        coordinator: ServerId,
        /// The participants that are prepared too, and so cannot decide.
        prepared: ServerSet,
        /// The participants that do not answer.
        silent: ServerSet,
        /// Minimum time that it has been blocked.
        waited: Seconds,
    }
    /// A read waits for a locked key.
    Wait = "WAIT", Info, step {
        /// The transaction that holds the lock.
        tx: TransactionId,
        /// The locked key.
        key: QuotedText,
    }
    /// All participants have acknowledged a commit; the coordinator drops its record.
    End = "END", Info, step {
        /// The completed transaction.
        tx: TransactionId,
    }
    /// The digest after a slot; at the end of a run also the number of replicas that agree on it.
    Digest = "DIGEST", Info, rare {
        /// Last slot applied to the state.
        slot: Slot,
        /// The digest of the state.
        digest: Digest,
        /// Number of replicas with this digest.
        equal: Option<u8>,
        /// Number of replicas compared.
        of: Option<u8>,
    }
    /// Stands for lines that could not be written.
    Lost = "LOST", Error, rare {
        /// Number of missing lines.
        n: u64,
    }
    /// A link to a peer changes its state.
    Link = "LINK", Info, rare {
        /// The peer of the link; several where one cut concerns several links.
        peer: ServerSet,
        /// The new state of the link.
        state: LinkEvent,
        /// Why, in one or two words.
        cause: Option<QuotedText>,
    }
    /// A stage of a client's script begins.
    Stage = "STAGE", Info, rare {
        /// Name of the stage.
        name: QuotedText,
    }
    /// Something outside the protocol failed: a disk, a socket, a file.
    Fault = "FAULT", Error, rare {
        /// The part that failed.
        part: QuotedText,
        /// The error.
        cause: QuotedText,
    }
    /// An invariant is broken.
    Violation = "VIOLATION", Error, rare {
        /// Name of the rule.
        rule: QuotedText,
        /// The slot concerned.
        slot: Option<Slot>,
        /// The ballot concerned.
        ballot: Option<Ballot>,
    }
}

impl Event {
    /// The severity: Info for a step or a refusal, Warn for a fault or a lost attempt, Error for a broken rule or a
    /// failed disk.
    pub fn level(&self) -> Level {
        match self {
            Event::Restart { recovered: RecoveredFrom::Nothing, .. }
            | Event::Boot { restart: Some(RestartMode::Lost), .. }
            | Event::Link { state: LinkEvent::Lost | LinkEvent::Refused | LinkEvent::Cut, .. }
            | Event::Response {
                status: RequestStatus::NotApplied | RequestStatus::Unknown | RequestStatus::Expired,
                ..
            } => Level::Warn,
            Event::Vote { vote: VoteValue::No, .. } | Event::Decide { decision: TransactionState::Abort, .. } => {
                Level::Warn
            }
            Event::Digest { equal: Some(equal), of: Some(of), .. } if equal < of => Level::Error,
            _ => self.usual_level(),
        }
    }
}

/// The event without the rest of its line: `CHOSEN slot=7 ballot=5.1 quorum=s1,s2,s4 to=s1,s2,s3,s4,s5`.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.write_fields(f)
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
