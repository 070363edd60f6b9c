//! Every kind of line, in one table: its name, its fields in the order in which they are printed, and how loud it is.
//!
//! The table makes the type, the writer and the reader, so a line that can be written can be read back, exactly.

use std::fmt::{self, Formatter};
use std::net::SocketAddr;

use log::Level;

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

/// Why the name and fields of a line are no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// No event is called so.
    #[error("no event is called {0}")]
    Unknown(String),
    /// A field is missing or wrong.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Declares the events: `NAME` is printed, a *step* is part of the normal course of the protocol.
macro_rules! events {
    ($(
        $(#[$doc:meta])*
        $variant:ident = $name:literal, $level:ident, $kind:ident {
            $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)?
        }
    )*) => {
        /// What a line says. See the [module](self).
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* $variant { $($(#[$field_doc])* $field: $type),* }),*
        }

        impl Event {
            /// The names of all events.
            pub const NAMES: &[&str] = &[$($name),*];

            /// The name, in capitals.
            pub fn name(&self) -> &'static str {
                match self { $(Event::$variant { .. } => $name),* }
            }

            /// How loud the event is by its kind alone.
            fn usual_level(&self) -> Level {
                match self { $(Event::$variant { .. } => Level::$level),* }
            }

            /// Whether it is part of the normal course of things, of which there are many: `--steps off` leaves it out.
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

            /// An event of the n-th kind, its fields drawn at random.
            #[cfg(test)]
            pub(super) fn any(kind: usize, source: &mut super::arbitrary::EventGenerator) -> Event {
                use super::arbitrary::Arbitrary;
                let makers: &[fn(&mut super::arbitrary::EventGenerator) -> Event] =
                    &[$(|source| Event::$variant { $($field: Arbitrary::any(source)),* }),*];
                makers[kind](source)
            }

            /// Reads the fields of the event of this name, and leaves what stands behind them.
            pub(super) fn read(name: &str, from: &mut Fields<'_>) -> Result<Event, EventError> {
                match name {
                    $($name => Ok(Event::$variant { $($field: Field::read(stringify!($field), from)?),* }),)*
                    _ => Err(EventError::Unknown(name.into())),
                }
            }
        }
    };
    (@step) => { true };
    (@rare) => { false };
}

events! {
    /// A proposer asks for promises: one ballot for all slots from `slot`.
    Prepare = "PREPARE", Info, step {
        /// The first slot of interest.
        slot: SlotFrom,
        /// The ballot.
        ballot: Ballot,
        /// Whom it asks.
        to: ServerSet,
    }
    /// An acceptor promises.
    Promise = "PROMISE", Info, step {
        /// The slots that the answer speaks of.
        slot: SlotSpan,
        /// The ballot.
        ballot: Ballot,
        /// What it has accepted in them.
        accepted: AcceptedSlots,
        /// The ballot's owner.
        to: ServerId,
    }
    /// An acceptor refuses.
    Nack = "NACK", Info, step {
        /// What is refused: `7+` a PREPARE, `7` an ACCEPT.
        slot: NackedRequest,
        /// The ballot refused.
        ballot: Ballot,
        /// What binds the acceptor.
        promised: Ballot,
        /// The proposer refused.
        to: ServerId,
    }
    /// A proposer proposes.
    Accept = "ACCEPT", Info, step {
        /// The slot.
        slot: Slot,
        /// The ballot.
        ballot: Ballot,
        /// What the command does.
        op: OpKind,
        /// The key that it changes.
        key: Option<QuotedText>,
        /// The new value.
        value: Option<QuotedText>,
        /// Only if the key is at this version.
        if_version: Option<u64>,
        /// Where the value was accepted before, if the promises bind the proposer to it.
        adopted: MaybeBallot,
        /// Who promised.
        quorum: ServerSet,
        /// Whom it asks.
        to: ServerSet,
    }
    /// An acceptor accepts.
    Accepted = "ACCEPTED", Info, step {
        /// The slot.
        slot: Slot,
        /// The ballot.
        ballot: Ballot,
        /// The ballot's owner, whose learner counts.
        to: ServerId,
    }
    /// A learner has counted a majority.
    Chosen = "CHOSEN", Info, step {
        /// The slot.
        slot: Slot,
        /// The ballot.
        ballot: Ballot,
        /// Who accepted.
        quorum: ServerSet,
        /// Whom it tells.
        to: ServerSet,
    }
    /// A learner has applied a slot.
    Learn = "LEARN", Info, step {
        /// The slot.
        slot: Slot,
        /// A ballot at which it was chosen.
        ballot: Ballot,
        /// What the command does.
        op: OpKind,
        /// The key that it changes.
        key: Option<QuotedText>,
        /// The new value.
        value: Option<QuotedText>,
        /// Only if the key is at this version.
        if_version: Option<u64>,
        /// Which command it is: `session-sequence`, or for an OPEN `0-~` and a part of a hash of its nonce.
        /// Labels may repeat, this does not.
        id: Option<CommandName>,
        /// What it came to.
        result: LearnResult,
        /// The version of the key, after it or when it was applied first.
        version: Option<u64>,
        /// The session that was opened.
        session: Option<u64>,
        /// The last slot applied.
        applied: Slot,
    }
    /// A proposer's attempt is lost; it will try again.
    Retry = "RETRY", Warn, step {
        /// The attempt's first slot.
        slot: Slot,
        /// The attempt's ballot.
        ballot: Ballot,
        /// Who refused.
        nack: Nacks,
        /// The next round.
        next_round: u64,
    }
    /// A role dies.
    Crash = "CRASH", Warn, rare {
        /// Why.
        cause: CrashCause,
        /// Where in a turn.
        point: Option<CrashPoint>,
        /// How long it has lived.
        up: Seconds,
        /// How long it will be down; not known if somebody has to ask for the restart.
        down: Option<Seconds>,
    }
    /// A role lives again.
    Restart = "RESTART", Info, rare {
        /// How long it was down.
        down: Seconds,
        /// What it knows of its past.
        recovered: RecoveredFrom,
        /// An acceptor: what binds it.
        promised: Option<MaybeBallot>,
        /// An acceptor: in how many slots it has accepted a value.
        accepted: Option<u64>,
        /// A proposer: its next round.
        next: Option<u64>,
        /// A learner: the last slot applied; a participant: how many transactions.
        applied: Option<Slot>,
        /// A learner or participant: the fingerprint of its state.
        digest: Option<Digest>,
        /// A participant: transactions that it is prepared for; a coordinator: commits that not all have acknowledged.
        in_doubt: Option<u64>,
    }
    /// A message is not delivered.
    Drop = "DROP", Warn, rare {
        /// The message's name.
        msg: QuotedText,
        /// The server that it came from.
        from: Option<ServerId>,
        /// The server that it was for, if not this one.
        to: Option<ServerId>,
        /// Why.
        cause: DropCause,
        /// How many there were, if it was more than one.
        n: Option<u64>,
    }
    /// A client asks (`to=`), a server is asked (`from=`).
    Request = "REQUEST", Info, step {
        /// What.
        op: OpKind,
        /// The key.
        key: Option<QuotedText>,
        /// The new value.
        value: Option<QuotedText>,
        /// Only if the key is at this version.
        if_version: Option<u64>,
        /// The client's address.
        from: Option<SocketAddr>,
        /// The server asked.
        to: Option<ServerId>,
        /// The client's session.
        session: Option<u64>,
        /// The number of the write in its session.
        sequence: Option<u64>,
    }
    /// A server answers (`to=`), a client hears (`server=`).
    Response = "RESPONSE", Info, step {
        /// How the request ended.
        status: RequestStatus,
        /// Where the write was applied; for a read, the last slot of the state that it was answered from.
        slot: Option<Slot>,
        /// The version of the key.
        version: Option<u64>,
        /// The value read.
        value: Option<QuotedText>,
        /// The session opened.
        session: Option<u64>,
        /// Why it was not applied, in a word.
        cause: Option<QuotedText>,
        /// How long it took.
        took: Millis,
        /// The server that answered.
        server: Option<ServerId>,
        /// The client's address.
        to: Option<SocketAddr>,
    }
    /// A client's try has failed, and it asks the next server for the same.
    Failover = "FAILOVER", Warn, rare {
        /// How long it waited.
        waited: Seconds,
        /// Why, in a word.
        cause: QuotedText,
        /// The server that let it down.
        from: ServerId,
        /// The server that it asks now.
        to: ServerId,
    }
    /// A client gives a request up.
    Timeout = "TIMEOUT", Warn, rare {
        /// How long it waited in all.
        waited: Seconds,
        /// The servers asked, in order.
        tries: TriedServers,
        /// What it knows of the outcome.
        status: RequestStatus,
    }
    /// Somebody sent bytes that are no request.
    Malformed = "MALFORMED", Warn, rare {
        /// The bytes read, or the length that an oversized frame announced.
        length: u64,
        /// The sender.
        from: SocketAddr,
    }
    /// A process starts.
    Boot = "BOOT", Info, rare {
        /// Of the program.
        version: QuotedText,
        /// The format of the lines: [`FORMAT`](super::FORMAT).
        lines: Option<u32>,
        /// All servers: a majority is counted among them.
        cluster: ServerSet,
        /// The protocol.
        protocol: Option<QuotedText>,
        /// Of all random delays.
        seed: Option<u64>,
        /// Which roles fail at random.
        fail: Option<QuotedText>,
        /// How long a failing role lives on average.
        mean_up: Option<Seconds>,
        /// How long a failed role is down on average.
        mean_down: Option<Seconds>,
        /// How failed roles come back.
        restart: Option<RestartMode>,
        /// The data folder.
        data: Option<QuotedText>,
        /// Whether protocol steps are shown: `on` or `off`.
        steps: Option<QuotedText>,
        /// How often a process has started on the data directory.
        incarnation: Option<u32>,
        /// The last slot that was applied when the learner started.
        applied: Option<Slot>,
        /// The fingerprint of its state.
        digest: Option<Digest>,
        /// What binds the acceptor.
        promised: Option<MaybeBallot>,
        /// In how many slots the acceptor has accepted a value.
        accepted: Option<u64>,
        /// Which log its state is of, in short; `none` if nothing was ever applied.
        history: Option<HistoryName>,
        /// The name of its data folder: another one stands for another folder.
        disk: Option<DiskName>,
    }
    /// A process ends.
    Stop = "STOP", Info, rare {
        /// The last slot applied.
        applied: Option<Slot>,
        /// The fingerprint of that state.
        digest: Option<Digest>,
        /// Why, in a word.
        cause: QuotedText,
    }
    /// A process goes on in a new log file: the one before has been moved away.
    Reopen = "REOPEN", Info, rare {
        /// What it was told by.
        cause: QuotedText,
    }
    /// A proposer hands a command to the leader that it hears.
    Forward = "FORWARD", Info, step {
        /// The leader's ballot.
        ballot: Ballot,
        /// The leader.
        to: ServerId,
    }
    /// A proposer leads from a slot on.
    Lead = "LEAD", Info, rare {
        /// The first slot that it may propose in.
        slot: SlotFrom,
        /// Its ballot.
        ballot: Ballot,
        /// Who promised.
        quorum: ServerSet,
    }
    /// A leader gives up.
    Stepdown = "STEPDOWN", Warn, rare {
        /// Its ballot.
        ballot: Ballot,
        /// The rival's.
        promised: Option<Ballot>,
    }
    /// A learner asks a peer for what it has missed.
    Catchup = "CATCHUP", Info, step {
        /// The first slot missing.
        from: Slot,
        /// The last slot known to be chosen.
        known: Slot,
        /// The peer.
        to: ServerId,
    }
    /// A learner asks proposers to get every slot up to this one chosen.
    Fill = "FILL", Info, step {
        /// The slot.
        slot: Slot,
        /// The servers whose proposers are asked.
        to: ServerSet,
    }
    /// A learner takes a whole state in place of its own, or a server has saved its state.
    Snapshot = "SNAPSHOT", Info, rare {
        /// The last slot applied to it.
        slot: Slot,
        /// Its fingerprint.
        digest: Digest,
        /// Who sent it, if it came from elsewhere.
        from: Option<ServerId>,
    }
    /// An acceptor has forgotten what is in its server's durable checkpoint.
    Truncate = "TRUNCATE", Info, rare {
        /// The first slot that it still knows.
        below: Slot,
    }
    /// An acceptor's disk has lost what was accepted in some slots.
    Corrupt = "CORRUPT", Warn, rare {
        /// The first of them.
        slot: Slot,
        /// The last.
        to: Slot,
    }
    /// An acceptor holds again what its disk had lost.
    Repair = "REPAIR", Info, rare {
        /// The slot.
        slot: Slot,
        /// A ballot at which it was chosen.
        ballot: Ballot,
    }
    /// Two-phase commit: a coordinator asks for votes.
    VoteReq = "VOTEREQ", Info, step {
        /// The transaction.
        tx: TransactionId,
        /// What the command does.
        op: OpKind,
        /// The key that it changes.
        key: Option<QuotedText>,
        /// The new value.
        value: Option<QuotedText>,
        /// Only if the key is at this version.
        if_version: Option<u64>,
        /// The session that goes for the one that is opened.
        evict: Option<u64>,
        /// Whom it asks.
        to: ServerSet,
    }
    /// A participant votes.
    Vote = "VOTE", Info, step {
        /// The transaction.
        tx: TransactionId,
        /// Yes or no.
        vote: VoteValue,
        /// Why not, in a word.
        cause: Option<QuotedText>,
        /// The transaction in the way.
        by: Option<TransactionId>,
        /// The coordinator.
        to: ServerId,
    }
    /// A coordinator has decided, or tells again what is decided.
    Decide = "DECIDE", Info, step {
        /// The transaction.
        tx: TransactionId,
        /// Commit or abort.
        decision: TransactionState,
        /// Whether it is said for the first time.
        reason: DecisionReason,
        /// Who has voted yes.
        yes: ServerSet,
        /// Who has voted no.
        no: Option<ServerId>,
        /// Whom it tells.
        to: ServerSet,
    }
    /// A participant has done what was committed, and says so.
    Ack = "ACK", Info, step {
        /// The transaction.
        tx: TransactionId,
        /// What the command does.
        op: OpKind,
        /// The key that it changes.
        key: Option<QuotedText>,
        /// The new value.
        value: Option<QuotedText>,
        /// Only if the key is at this version.
        if_version: Option<u64>,
        /// Which command it is.
        id: Option<CommandName>,
        /// What it came to.
        result: LearnResult,
        /// The version of the key after it.
        version: Option<u64>,
        /// The session that was opened.
        session: Option<u64>,
        /// How many transactions have been committed here.
        applied: u64,
        /// The coordinator.
        to: ServerId,
    }
    /// A participant has dropped what it was prepared for.
    Aborted = "ABORTED", Info, step {
        /// The transaction.
        tx: TransactionId,
    }
    /// A participant has not voted, and says that it never will.
    GiveUp = "GIVEUP", Warn, step {
        /// The transaction.
        tx: TransactionId,
        /// Who asked.
        to: ServerId,
    }
    /// A participant is in doubt, and asks.
    Inquire = "INQUIRE", Warn, step {
        /// The transaction.
        tx: TransactionId,
        /// Whom it asks.
        to: ServerSet,
    }
    /// A participant tells another what it knows.
    Answer = "ANSWER", Info, step {
        /// The transaction.
        tx: TransactionId,
        /// What it knows.
        known: TransactionState,
        /// Whom.
        to: ServerId,
    }
    /// A participant may neither do nor drop what it is prepared for.
    Blocked = "BLOCKED", Warn, rare {
        /// The transaction.
        tx: TransactionId,
        /// The key that stays locked.
        key: Option<QuotedText>,
        /// The coordinator that is waited for.
        coordinator: ServerId,
        /// Who is prepared, and cannot help.
        prepared: ServerSet,
        /// Who does not answer.
        silent: ServerSet,
        /// How long it has waited: at least.
        waited: Seconds,
    }
    /// A read waits for a key that is locked.
    Wait = "WAIT", Info, step {
        /// The transaction that holds it.
        tx: TransactionId,
        /// The key.
        key: QuotedText,
    }
    /// Everybody has acknowledged a commit: the coordinator forgets it.
    End = "END", Info, step {
        /// The transaction.
        tx: TransactionId,
    }
    /// The state after a slot; at the end of a run also how many replicas agree on it.
    Digest = "DIGEST", Info, rare {
        /// The slot.
        slot: Slot,
        /// The fingerprint.
        digest: Digest,
        /// How many replicas have this one.
        equal: Option<u8>,
        /// Out of how many.
        of: Option<u8>,
    }
    /// Stands for lines that could not be written.
    Lost = "LOST", Error, rare {
        /// How many.
        n: u64,
    }
    /// A connection to a peer.
    Link = "LINK", Info, rare {
        /// The peer.
        peer: ServerId,
        /// What became of it.
        state: LinkEvent,
        /// Why, in a word or two.
        cause: Option<QuotedText>,
    }
    /// A part of a client's program begins.
    Stage = "STAGE", Info, rare {
        /// What it is called.
        name: QuotedText,
    }
    /// Something outside failed: a disk, a socket, a file.
    Fault = "FAULT", Error, rare {
        /// What failed.
        part: QuotedText,
        /// How.
        cause: QuotedText,
    }
    /// A rule that must always hold is broken.
    Violation = "VIOLATION", Error, rare {
        /// Which rule.
        rule: QuotedText,
        /// The slot that it is about.
        slot: Option<Slot>,
        /// The ballot that it is about.
        ballot: Option<Ballot>,
    }
}

impl Event {
    /// How loud the event is: Info a step or a refusal, Warn a fault or a lost attempt, Error a broken rule or a failed disk.
    pub fn level(&self) -> Level {
        match self {
            Event::Restart { recovered: RecoveredFrom::Nothing, .. }
            | Event::Boot { restart: Some(RestartMode::Lost), .. }
            | Event::Link { state: LinkEvent::Lost | LinkEvent::Refused, .. }
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

/// The event without its line: `CHOSEN slot=7 ballot=5.1 quorum=s1,s2,s4 to=s1,s2,s3,s4,s5`.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.write_fields(f)
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
