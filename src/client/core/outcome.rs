//! The three results of a request: applied, certainly not applied, or outcome unknown. The client never guesses.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use thiserror::Error;

use super::wire::NoReply;
use crate::kv::WriteResult;
use crate::net::{WhyNotApplied, WhyUnknown};
use crate::paxos::{self, Slot};
use crate::role::{RoleKind, ServerId, ServerSet};
use crate::two_phase_commit::AbortReason as Aborted;

/// Maximum number of tries kept for one request. Of earlier tries only their count and `may_be_applied` are kept.
const TRIES_MAX: usize = 64;

/// What a write did, in which slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteResponse {
    /// The write was done.
    Written {
        /// The write's slot in the log.
        slot: Slot,
        /// The key's new version.
        version: u64,
    },
    /// There was no value to delete: nothing changed.
    NotFound {
        /// The write's slot in the log.
        slot: Slot,
        /// The key's version, unchanged.
        version: u64,
    },
    /// The key was not at the version that the write required: nothing changed.
    Mismatch {
        /// The write's slot in the log.
        slot: Slot,
        /// The key's actual version.
        version: u64,
    },
}

impl WriteResponse {
    /// Converts a server's result of the write in this slot.
    pub(crate) fn new(slot: Slot, written: WriteResult) -> WriteResponse {
        match written {
            WriteResult::Done { version } => WriteResponse::Written { slot, version },
            WriteResult::NotFound { version } => WriteResponse::NotFound { slot, version },
            WriteResult::Mismatch { version } => WriteResponse::Mismatch { slot, version },
        }
    }

    /// The write's slot in the log.
    pub fn slot(&self) -> Slot {
        match self {
            WriteResponse::Written { slot, .. }
            | WriteResponse::NotFound { slot, .. }
            | WriteResponse::Mismatch { slot, .. } => *slot,
        }
    }

    /// The key's version after the write.
    pub fn version(&self) -> u64 {
        match self {
            WriteResponse::Written { version, .. }
            | WriteResponse::NotFound { version, .. }
            | WriteResponse::Mismatch { version, .. } => *version,
        }
    }
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetResponse {
    /// The read saw the state after every slot up to this one was applied.
    pub slot: Slot,
    /// The value, if there is one.
    pub value: Option<Vec<u8>>,
    /// The key's version: number of writes applied to it.
    pub version: u64,
}

/// Why a request has no result. Its `Debug` is the message too, because `main` prints a returned error with `Debug`.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum ClientError {
    /// Certainly not applied: every try ended that way. A failed read is also reported as this.
    #[error("{}", .0.why_not_applied())]
    NotApplied(Tries),
    /// The request may have been applied, may be applied later, or never.
    #[error("outcome unknown: {}", .0.why_unknown())]
    Unknown(Tries),
    /// The server refuses this kind of request.
    #[error("server {} refused the request: {why}", .server.0)]
    Refused {
        /// The server that refused.
        server: ServerId,
        /// The server's message.
        why: String,
    },
    /// Nothing was sent: the key or value is too long.
    #[error("{0}")]
    TooLarge(String),
    /// Nothing was sent: the cluster file has no such server.
    #[error("the cluster file has no server {} (it has {known})", .server.0)]
    NoSuchServer {
        /// The server that was asked for.
        server: ServerId,
        /// All servers of the cluster.
        known: ServerSet,
    },
}

impl fmt::Debug for ClientError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl ClientError {
    /// Whether the request may have been applied nevertheless.
    pub fn is_unknown(&self) -> bool {
        matches!(self, ClientError::Unknown(_))
    }
}

/// One try and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// The server that was asked.
    pub server: ServerId,
    /// The reason for the missing result.
    pub end: TryEnd,
    /// Time from the send to the end of the try.
    pub took: Duration,
}

/// Why a try brought no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TryEnd {
    /// There was no reply.
    NoReply(NoReply),
    /// The server reports that this try is certainly not applied.
    NotApplied(WhyNotApplied),
    /// The server reports that it does not know the outcome.
    Unknown(WhyUnknown),
}

impl TryEnd {
    /// Whether the request may be applied through this try.
    pub fn may_be_applied(&self) -> bool {
        match self {
            TryEnd::NoReply(no_reply) => no_reply.may_have_arrived(),
            TryEnd::NotApplied(_) => false,
            TryEnd::Unknown(_) => true,
        }
    }

    /// Whether no connection was made, so nothing was sent.
    fn was_not_reached(&self) -> bool {
        matches!(self, TryEnd::NoReply(NoReply::ConnectionRefused | NoReply::Unreachable { .. }))
    }

    /// Whether the servers take no more writes of the session that this try used.
    pub fn ends_session(&self) -> bool {
        matches!(
            self,
            TryEnd::NotApplied(WhyNotApplied::Superseded | WhyNotApplied::Expired)
                | TryEnd::Unknown(WhyUnknown::Superseded | WhyUnknown::Expired)
        )
    }

    /// The reason as one word, for log lines.
    pub fn word(&self) -> &'static str {
        match self {
            TryEnd::NoReply(NoReply::ConnectionRefused) => "connection-refused",
            TryEnd::NoReply(NoReply::Unreachable { .. }) => "unreachable",
            TryEnd::NoReply(NoReply::Rejected { .. }) => "rejected",
            TryEnd::NoReply(NoReply::OtherHistory { .. }) => "other-history",
            TryEnd::NoReply(NoReply::NoData { .. }) => "no-data",
            TryEnd::NoReply(NoReply::NotSent { .. }) => "not-sent",
            TryEnd::NoReply(NoReply::TimedOut { .. }) => "no-answer",
            TryEnd::NoReply(NoReply::Broken { .. }) => "connection-lost",
            TryEnd::NoReply(NoReply::Malformed { .. }) => "malformed-reply",
            TryEnd::NotApplied(why) => word(why),
            TryEnd::Unknown(WhyUnknown::TimedOut) => "timed-out",
            TryEnd::Unknown(WhyUnknown::RoleCrashed(_)) => "role-crashed",
            TryEnd::Unknown(WhyUnknown::Superseded) => "superseded",
            TryEnd::Unknown(WhyUnknown::Expired) => "session-expired",
        }
    }
}

/// A server's reason as one word.
fn word(why: &WhyNotApplied) -> &'static str {
    match why {
        WhyNotApplied::Proposer(paxos::NotApplied::NoQuorum { .. }) => "no-quorum",
        WhyNotApplied::Proposer(paxos::NotApplied::Preempted) => "preempted",
        WhyNotApplied::Proposer(paxos::NotApplied::LearnerBehind) => "learner-behind",
        WhyNotApplied::Proposer(paxos::NotApplied::NoLeader) => "no-leader",
        WhyNotApplied::Proposer(paxos::NotApplied::NoRound) => "no-round",
        WhyNotApplied::Proposer(paxos::NotApplied::Busy) | WhyNotApplied::Busy => "busy",
        WhyNotApplied::Coordinator(Aborted::NoVote { .. }) => "no-vote",
        WhyNotApplied::Coordinator(Aborted::Locked { .. }) | WhyNotApplied::KeyLocked(_) => "key-locked",
        WhyNotApplied::Coordinator(Aborted::Busy) => "busy",
        WhyNotApplied::RoleDown(_) => "role-down",
        WhyNotApplied::DiskFull => "disk-full",
        WhyNotApplied::Fenced => "fenced",
        WhyNotApplied::NotAdmitted => "not-admitted",
        WhyNotApplied::NoReadQuorum(_) => "no-read-quorum",
        WhyNotApplied::Superseded => "superseded",
        WhyNotApplied::Expired => "session-expired",
    }
}

/// The message about a failed try: "server 2 did not reply within 1.0 s".
impl Display for Try {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "server {} ", self.server.0)?;
        match &self.end {
            TryEnd::NoReply(NoReply::ConnectionRefused) => f.write_str("refused the connection"),
            TryEnd::NoReply(NoReply::Unreachable { why }) => write!(f, "could not be reached ({why})"),
            TryEnd::NoReply(NoReply::Rejected { why }) => write!(f, "rejected this client: {why}"),
            TryEnd::NoReply(NoReply::NoData { cluster }) => write!(
                f,
                "has no data of cluster \"{cluster}\", but this client has seen data: the cluster was recreated, or this \
                 server has not caught up yet"
            ),
            TryEnd::NoReply(NoReply::OtherHistory { cluster, known, found }) => write!(
                f,
                "has another history of cluster \"{cluster}\" ({found:016x}, before {known:016x}): the cluster was recreated \
                 or restored. Earlier writes may be missing"
            ),
            TryEnd::NoReply(NoReply::NotSent { why }) => write!(f, "did not receive the whole request ({why})"),
            TryEnd::NoReply(NoReply::TimedOut { waited }) => write!(f, "did not reply within {}", seconds(*waited)),
            TryEnd::NoReply(NoReply::Broken { why }) => write!(f, "sent no reply before the connection ended ({why})"),
            TryEnd::NoReply(NoReply::Malformed { what, .. }) => write!(f, "sent a malformed reply ({what})"),
            TryEnd::NotApplied(why) => match why {
                WhyNotApplied::Proposer(paxos::NotApplied::NoQuorum { .. }) => f.write_str("found no quorum"),
                WhyNotApplied::Proposer(paxos::NotApplied::Preempted) => {
                    f.write_str("sent no ACCEPT: rival proposers preempted it, or earlier commands took too long")
                }
                WhyNotApplied::Proposer(paxos::NotApplied::LearnerBehind) => {
                    f.write_str("has a learner that is down or too far behind")
                }
                WhyNotApplied::Proposer(paxos::NotApplied::NoLeader) => {
                    f.write_str("knows no leader: it may be cut off from a majority")
                }
                WhyNotApplied::Proposer(paxos::NotApplied::NoRound) => {
                    f.write_str("has no ballot left to propose with")
                }
                WhyNotApplied::Proposer(paxos::NotApplied::Busy) | WhyNotApplied::Busy => f.write_str("is too busy"),
                WhyNotApplied::Coordinator(Aborted::NoVote { silent }) => {
                    let silent: Vec<String> = silent.iter().map(|server| server.0.to_string()).collect();
                    write!(f, "aborted: all servers must vote, and {} did not", silent.join(", "))
                }
                WhyNotApplied::Coordinator(Aborted::Locked { by }) => {
                    write!(f, "aborted: the key is locked by transaction {by}")
                }
                WhyNotApplied::Coordinator(Aborted::Busy) => f.write_str("is too busy"),
                WhyNotApplied::KeyLocked(by) => {
                    write!(f, "cannot read: the key is locked by transaction {by}, whose outcome is not known yet")
                }
                WhyNotApplied::RoleDown(role) => write!(f, "has no running {}", role_word(*role)),
                WhyNotApplied::DiskFull => f.write_str("has no disk space for another value"),
                WhyNotApplied::Fenced => f.write_str("is fenced, because its replica diverged from the others"),
                WhyNotApplied::NotAdmitted => {
                    f.write_str("is not admitted: its data directory is new, and too few peers have recorded it")
                }
                WhyNotApplied::NoReadQuorum(_) => f.write_str("found no majority to read from"),
                WhyNotApplied::Superseded => f.write_str("reports that this client gave up the request"),
                WhyNotApplied::Expired => f.write_str("does not know the session of this client (any more)"),
            },
            TryEnd::Unknown(WhyUnknown::TimedOut) => f.write_str("proposed the request and saw no result in time"),
            TryEnd::Unknown(WhyUnknown::RoleCrashed(role)) => {
                write!(f, "proposed the request, and its {} crashed before the result was known", role_word(*role))
            }
            TryEnd::Unknown(WhyUnknown::Superseded) => f.write_str("reports that this client gave up the request"),
            TryEnd::Unknown(WhyUnknown::Expired) => f.write_str("reports that the session has expired"),
        }
    }
}

impl Try {
    /// The message about a failed try and the next one: "server 2 did not reply within 1.0 s; trying server 3".
    pub fn and_next(&self, next: ServerId) -> String {
        if next == self.server { format!("{self}; trying again") } else { format!("{self}; trying server {}", next.0) }
    }
}

/// A role's name in a message.
pub(crate) fn role_word(role: RoleKind) -> &'static str {
    role.as_str()
}

/// The kind of a request; what a missing result means depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// A read, a status or a state chunk: it changes nothing.
    Read,
    /// Opening a session, for a write that has not been sent yet.
    Session,
    /// A write.
    Write,
    /// Crashing or restarting a role.
    Order,
}

/// The tries of one request, none of which brought a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tries {
    /// The last tries, at most 64, in order.
    pub last: Vec<Try>,
    /// Number of tries.
    pub count: u64,
    /// Whether one of the tries may have been applied.
    pub may_be_applied: bool,
    /// All servers of the cluster.
    pub cluster: ServerSet,
    /// The kind of the request.
    pub asked: RequestKind,
    /// Time from the beginning of the first try to the end of the last.
    pub took: Duration,
}

impl Tries {
    /// Tries of a request that was not sent yet.
    pub(crate) fn new(cluster: ServerSet, asked: RequestKind) -> Tries {
        Tries { last: Vec::new(), count: 0, may_be_applied: false, cluster, asked, took: Duration::ZERO }
    }

    /// Adds a failed try.
    pub(crate) fn push(&mut self, one: Try) {
        self.count += 1;
        self.may_be_applied |= one.end.may_be_applied();
        if self.last.len() == TRIES_MAX {
            self.last.remove(0);
        }
        self.last.push(one);
    }

    /// Whether another try makes sense in the time that is left. A write cut short usually gets no answer: its outcome
    /// would become unknown, although it is certainly not applied so far. While no server was reached, tries take
    /// almost no time and the first server that is back may answer at once. Then a tenth of the try time-out is enough.
    pub(crate) fn are_worth_another(&self, left: Duration, try_timeout: Duration) -> bool {
        let none_was_reached = || self.last.iter().all(|one| one.end.was_not_reached());
        match self.asked {
            _ if self.count == 0 => !left.is_zero(),
            // A repeated order could crash the role a second time.
            RequestKind::Order => false,
            RequestKind::Read => !left.is_zero(),
            RequestKind::Session | RequestKind::Write if none_was_reached() => left >= try_timeout / 10,
            RequestKind::Session | RequestKind::Write => {
                left >= try_timeout || (self.may_be_applied && !left.is_zero())
            }
        }
    }

    /// The error that follows from these tries. A read changes nothing, and neither does a session without its write,
    /// so what the caller asked for is certainly not applied.
    pub(crate) fn into_error(self, took: Duration) -> ClientError {
        let tries = Tries { took, ..self };
        match tries.asked {
            RequestKind::Write | RequestKind::Order if tries.may_be_applied => ClientError::Unknown(tries),
            RequestKind::Read | RequestKind::Session | RequestKind::Write | RequestKind::Order => {
                ClientError::NotApplied(tries)
            }
        }
    }

    /// Why the last try failed, as one word for log lines.
    pub fn word(&self) -> &'static str {
        self.last.last().map_or("no-time", |one| one.end.word())
    }

    fn consequence(&self) -> &'static str {
        match self.asked {
            RequestKind::Read => "The read was NOT done",
            RequestKind::Session => "No session was opened: the write was NOT sent",
            RequestKind::Write => "The write was NOT applied",
            RequestKind::Order => "The request was NOT done",
        }
    }

    fn why_not_applied(&self) -> String {
        let Some(most_informative) = self.last.iter().max_by_key(|one| informativeness(&one.end)) else {
            return format!("there was no time for a try. {}", self.consequence());
        };
        let consequence = self.consequence();
        let took = seconds(most_informative.took);
        match &most_informative.end {
            TryEnd::NotApplied(WhyNotApplied::Proposer(paxos::NotApplied::NoQuorum { answered })) => format!(
                "no quorum: {} acceptors replied to PREPARE within {took}{}. The write was NOT applied: no ACCEPT \
                 was sent",
                self.count_of(*answered),
                self.silent(*answered),
            ),
            TryEnd::NotApplied(WhyNotApplied::NoReadQuorum(answered)) => format!(
                "no quorum: {} acceptors replied to the read within {took}{}. {consequence}",
                self.count_of(*answered),
                self.silent(*answered),
            ),
            TryEnd::NoReply(NoReply::ConnectionRefused) => {
                let refused: ServerSet = self.last.iter().map(|one| one.server).collect();
                let what = if self.are_all_refused() { "no server is running" } else { "no server was reached" };
                format!("{what}: {} refused the connection. {consequence}", self.count_of(refused))
            }
            _ => format!("{most_informative}. {consequence}"),
        }
    }

    /// Whether every server of the cluster was asked, and each try was refused by the operating system: no server runs.
    pub(crate) fn are_all_refused(&self) -> bool {
        let refused = |one: &Try| one.end == TryEnd::NoReply(NoReply::ConnectionRefused);
        let servers: ServerSet = self.last.iter().map(|one| one.server).collect();
        servers == self.cluster && self.last.iter().all(refused)
    }

    fn why_unknown(&self) -> String {
        let telling = self.last.iter().rev().find(|one| one.end.may_be_applied());
        let what = telling.map_or_else(|| "an earlier try had no result".to_string(), ToString::to_string);
        let consequence = match telling.map(|one| &one.end) {
            // It has been proposed, under two-phase commit as a transaction.
            Some(TryEnd::Unknown(WhyUnknown::TimedOut | WhyUnknown::RoleCrashed(_))) => "It may still be applied",
            Some(TryEnd::Unknown(WhyUnknown::Superseded | WhyUnknown::Expired)) => {
                "An earlier try may have been applied or may still be applied"
            }
            Some(_) | None => "The request was sent and may still be applied",
        };
        format!("{what}. {consequence}, at most once")
    }

    fn count_of(&self, of: ServerSet) -> String {
        format!("{} of {}", of.and(self.cluster).len(), self.cluster.len())
    }

    fn silent(&self, answered: ServerSet) -> String {
        let silent: Vec<String> = self.cluster.without(answered).iter().map(|server| server.0.to_string()).collect();
        if silent.is_empty() { String::new() } else { format!(" (no reply: {})", silent.join(", ")) }
    }
}

/// How much an end says about the cluster. The message is about the try with the highest number, and of equals about
/// the last.
fn informativeness(end: &TryEnd) -> u8 {
    match end {
        TryEnd::NoReply(NoReply::OtherHistory { .. } | NoReply::NoData { .. }) => 8,
        TryEnd::NoReply(NoReply::ConnectionRefused) => 0,
        TryEnd::NoReply(NoReply::Unreachable { .. }) => 1,
        TryEnd::NoReply(_) => 2,
        TryEnd::NotApplied(WhyNotApplied::Busy | WhyNotApplied::RoleDown(_)) => 3,
        TryEnd::NotApplied(WhyNotApplied::Proposer(paxos::NotApplied::NoQuorum { .. })) => 6,
        TryEnd::NotApplied(WhyNotApplied::NoReadQuorum(_)) => 6,
        TryEnd::NotApplied(WhyNotApplied::Coordinator(_) | WhyNotApplied::KeyLocked(_)) => 4,
        TryEnd::NotApplied(WhyNotApplied::Proposer(_) | WhyNotApplied::DiskFull | WhyNotApplied::Fenced) => 4,
        TryEnd::NotApplied(WhyNotApplied::Superseded | WhyNotApplied::Expired) => 5,
        TryEnd::NotApplied(WhyNotApplied::NotAdmitted) => 7,
        TryEnd::Unknown(_) => 5,
    }
}

/// A duration for messages, in seconds.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
