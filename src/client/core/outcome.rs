//! How a request can end: done, certainly not applied, or unknown. Nothing else, and never a guess.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use thiserror::Error;

use super::wire::NoReply;
use crate::kv::WriteResult;
use crate::net::{WhyNotApplied, WhyUnknown};
use crate::paxos::{self, Slot};
use crate::role::{RoleKind, ServerId, ServerSet};
use crate::two_phase_commit::AbortReason as Aborted;

/// A client remembers so many tries of a request; of earlier ones it knows how many there were, and what they mean.
const TRIES_MAX: usize = 64;

/// What a write did, in which slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteResponse {
    /// Done.
    Written {
        /// Where in the log.
        slot: Slot,
        /// The key's new version.
        version: u64,
    },
    /// There was nothing to delete: nothing changed.
    NotFound {
        /// Where in the log.
        slot: Slot,
        /// The key's version, unchanged.
        version: u64,
    },
    /// The key was at another version than the write wanted: nothing changed.
    Mismatch {
        /// Where in the log.
        slot: Slot,
        /// The version found.
        version: u64,
    },
}

impl WriteResponse {
    /// What a server says that the write in this slot did.
    pub(crate) fn new(slot: Slot, written: WriteResult) -> WriteResponse {
        match written {
            WriteResult::Done { version } => WriteResponse::Written { slot, version },
            WriteResult::NotFound { version } => WriteResponse::NotFound { slot, version },
            WriteResult::Mismatch { version } => WriteResponse::Mismatch { slot, version },
        }
    }

    /// Where in the log the write stands.
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
    /// The state was read after every slot up to this one was applied.
    pub slot: Slot,
    /// The value, if there is one.
    pub value: Option<Vec<u8>>,
    /// How many writes were applied to the key.
    pub version: u64,
}

/// Why a request has no result. Its `Debug` is its sentence too: a `main` that returns one prints it so.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum ClientError {
    /// Certainly not applied: every try ended so. A failed read is one, too.
    #[error("{}", .0.why_not_applied())]
    NotApplied(Tries),
    /// It may be applied, now or later, or not.
    #[error("outcome unknown: {}", .0.why_unknown())]
    Unknown(Tries),
    /// The server does not do that.
    #[error("server {} refuses: {why}", .server.0)]
    Refused {
        /// The server.
        server: ServerId,
        /// Its sentence.
        why: String,
    },
    /// Nothing was sent: the store does not take this.
    #[error("{0}")]
    TooLarge(String),
    /// Nothing was sent: there is no such server.
    #[error("there is no server {} in the cluster file (it has {known})", .server.0)]
    NoSuchServer {
        /// The server.
        server: ServerId,
        /// All servers.
        known: ServerSet,
    },
}

impl fmt::Debug for ClientError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl ClientError {
    /// Whether the request may be applied all the same.
    pub fn is_unknown(&self) -> bool {
        matches!(self, ClientError::Unknown(_))
    }
}

/// One try and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// The server asked.
    pub server: ServerId,
    /// How it ended.
    pub end: TryEnd,
    /// How long it took.
    pub took: Duration,
}

/// How a try ended that brought no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TryEnd {
    /// There was no reply.
    NoReply(NoReply),
    /// The server says: certainly not applied through this try.
    NotApplied(WhyNotApplied),
    /// The server says that it does not know.
    Unknown(WhyUnknown),
}

impl TryEnd {
    /// Whether what was asked may be applied through this try.
    pub fn may_be_applied(&self) -> bool {
        match self {
            TryEnd::NoReply(no_reply) => no_reply.may_have_arrived(),
            TryEnd::NotApplied(_) => false,
            TryEnd::Unknown(_) => true,
        }
    }

    /// Whether there was nobody to send anything to.
    fn was_not_reached(&self) -> bool {
        matches!(self, TryEnd::NoReply(NoReply::ConnectionRefused | NoReply::Unreachable { .. }))
    }

    /// Whether the servers take no more writes of the session that was used.
    pub fn ends_session(&self) -> bool {
        matches!(
            self,
            TryEnd::NotApplied(WhyNotApplied::Superseded | WhyNotApplied::Expired)
                | TryEnd::Unknown(WhyUnknown::Superseded | WhyUnknown::Expired)
        )
    }

    /// In a word, for lines.
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

/// A server's reason, in a word.
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

/// A try for people: "server 2 did not answer within 1.0 s".
impl Display for Try {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "server {} ", self.server.0)?;
        match &self.end {
            TryEnd::NoReply(NoReply::ConnectionRefused) => f.write_str("refused the connection"),
            TryEnd::NoReply(NoReply::Unreachable { why }) => write!(f, "was not reached ({why})"),
            TryEnd::NoReply(NoReply::Rejected { why }) => write!(f, "turned this client away: {why}"),
            TryEnd::NoReply(NoReply::NoData { cluster }) => write!(
                f,
                "answers for a cluster \"{cluster}\" without data, and this client has known others: they were begun anew, or it \
                 has not caught up yet"
            ),
            TryEnd::NoReply(NoReply::OtherHistory { cluster, known, found }) => write!(
                f,
                "answers for another history of cluster \"{cluster}\" ({found:016x}, before {known:016x}): its data were begun \
                 anew or restored. Nothing that was written before is promised any more"
            ),
            TryEnd::NoReply(NoReply::NotSent { why }) => write!(f, "did not take the request ({why})"),
            TryEnd::NoReply(NoReply::TimedOut { waited }) => write!(f, "did not answer within {}", seconds(*waited)),
            TryEnd::NoReply(NoReply::Broken { why }) => write!(f, "was lost before it answered ({why})"),
            TryEnd::NoReply(NoReply::Malformed { what, .. }) => write!(f, "sent a malformed reply ({what})"),
            TryEnd::NotApplied(why) => match why {
                WhyNotApplied::Proposer(paxos::NotApplied::NoQuorum { .. }) => f.write_str("found no quorum"),
                WhyNotApplied::Proposer(paxos::NotApplied::Preempted) => {
                    f.write_str("was outrun by rival proposers and sent no ACCEPT")
                }
                WhyNotApplied::Proposer(paxos::NotApplied::LearnerBehind) => {
                    f.write_str("has a learner that is down or too far behind")
                }
                WhyNotApplied::Proposer(paxos::NotApplied::NoLeader) => {
                    f.write_str("hears no leader: most of the servers may be out of its reach")
                }
                WhyNotApplied::Proposer(paxos::NotApplied::NoRound) => {
                    f.write_str("has no ballot left to propose it at")
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
                    write!(f, "cannot read: the key is locked by transaction {by}, whose outcome is not known there")
                }
                WhyNotApplied::RoleDown(role) => write!(f, "has no {} at the moment", role_word(*role)),
                WhyNotApplied::DiskFull => f.write_str("has no room on its disk for another value"),
                WhyNotApplied::Fenced => f.write_str("has a state that differs from the others', and answers nothing"),
                WhyNotApplied::NotAdmitted => {
                    f.write_str("has a new data folder, and waits until enough of the others are started and know it")
                }
                WhyNotApplied::NoReadQuorum(_) => f.write_str("found no majority to read from"),
                WhyNotApplied::Superseded => f.write_str("says that this client no longer asks for it"),
                WhyNotApplied::Expired => f.write_str("does not know the session of this client, or no longer"),
            },
            TryEnd::Unknown(WhyUnknown::TimedOut) => f.write_str("proposed it and saw no outcome in time"),
            TryEnd::Unknown(WhyUnknown::RoleCrashed(role)) => {
                write!(f, "proposed it, and its {} died before the outcome", role_word(*role))
            }
            TryEnd::Unknown(WhyUnknown::Superseded) => f.write_str("says that this client no longer asks for it"),
            TryEnd::Unknown(WhyUnknown::Expired) => f.write_str("says that the session has expired"),
        }
    }
}

impl Try {
    /// The try and what the client does about it: "server 2 did not answer within 1.0 s; trying server 3".
    pub fn and_next(&self, next: ServerId) -> String {
        if next == self.server { format!("{self}; trying again") } else { format!("{self}; trying server {}", next.0) }
    }
}

/// A role as a word of a sentence.
pub(crate) fn role_word(role: RoleKind) -> &'static str {
    role.as_str()
}

/// What kind of request it was: what a missing result means depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// A read, or a server's status: nothing is changed by it.
    Read,
    /// A session, for a write that has not been sent yet.
    Session,
    /// A write.
    Write,
    /// That a role crashes or restarts.
    Order,
}

/// The tries of one request, none of which brought a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tries {
    /// The last tries, at most 64, in order.
    pub last: Vec<Try>,
    /// How many there were.
    pub count: u64,
    /// Whether one of them may have been applied.
    pub may_be_applied: bool,
    /// All servers of the cluster.
    pub cluster: ServerSet,
    /// What was asked.
    pub asked: RequestKind,
    /// From the beginning of the first to the end of the last.
    pub took: Duration,
}

impl Tries {
    /// No try yet.
    pub(crate) fn new(cluster: ServerSet, asked: RequestKind) -> Tries {
        Tries { last: Vec::new(), count: 0, may_be_applied: false, cluster, asked, took: Duration::ZERO }
    }

    /// One more has failed.
    pub(crate) fn push(&mut self, one: Try) {
        self.count += 1;
        self.may_be_applied |= one.end.may_be_applied();
        if self.last.len() == TRIES_MAX {
            self.last.remove(0);
        }
        self.last.push(one);
    }

    /// Whether another try makes sense in the time that is left. A write that is cut short most likely ends without an
    /// answer, and would become unknown, though it is certainly not applied so far. As long as no server was reached,
    /// the tries take no time, and the one that comes back may answer at once: a little is enough.
    pub(crate) fn are_worth_another(&self, left: Duration, try_timeout: Duration) -> bool {
        let none_was_reached = || self.last.iter().all(|one| one.end.was_not_reached());
        match self.asked {
            _ if self.count == 0 => !left.is_zero(),
            // A second crash would be one too many.
            RequestKind::Order => false,
            RequestKind::Read => !left.is_zero(),
            RequestKind::Session | RequestKind::Write if none_was_reached() => left >= try_timeout / 10,
            RequestKind::Session | RequestKind::Write => {
                left >= try_timeout || (self.may_be_applied && !left.is_zero())
            }
        }
    }

    /// The error that these tries come to. A read changes nothing, and a session without its write neither: what the
    /// caller asked for is then certainly not applied.
    pub(crate) fn into_error(self, took: Duration) -> ClientError {
        let tries = Tries { took, ..self };
        match tries.asked {
            RequestKind::Write | RequestKind::Order if tries.may_be_applied => ClientError::Unknown(tries),
            RequestKind::Read | RequestKind::Session | RequestKind::Write | RequestKind::Order => {
                ClientError::NotApplied(tries)
            }
        }
    }

    /// In a word, for lines: why the last one failed.
    pub fn word(&self) -> &'static str {
        self.last.last().map_or("no-time", |one| one.end.word())
    }

    fn consequence(&self) -> &'static str {
        match self.asked {
            RequestKind::Read => "The read was NOT done",
            RequestKind::Session => "There is no session: the write was NOT sent",
            RequestKind::Write => "The write was NOT applied",
            RequestKind::Order => "It was NOT done",
        }
    }

    fn why_not_applied(&self) -> String {
        let Some(telling) = self.last.iter().max_by_key(|one| informativeness(&one.end)) else {
            return format!("there was no time for a single try. {}", self.consequence());
        };
        let consequence = self.consequence();
        let took = seconds(telling.took).replace(' ', "");
        match &telling.end {
            TryEnd::NotApplied(WhyNotApplied::Proposer(paxos::NotApplied::NoQuorum { answered })) => format!(
                "no quorum: {} acceptors answered PREPARE in {took}{}. No ACCEPT was sent: the write was NOT applied",
                self.count_of(*answered),
                self.silent(*answered),
            ),
            TryEnd::NotApplied(WhyNotApplied::NoReadQuorum(answered)) => format!(
                "no quorum: {} acceptors answered the read in {took}{}. {consequence}",
                self.count_of(*answered),
                self.silent(*answered),
            ),
            TryEnd::NoReply(NoReply::ConnectionRefused) => {
                let refused: ServerSet = self.last.iter().map(|one| one.server).collect();
                format!("no server listens: {} refused the connection. {consequence}", self.count_of(refused))
            }
            _ => format!("{telling}. {consequence}"),
        }
    }

    fn why_unknown(&self) -> String {
        let telling = self.last.iter().rev().find(|one| one.end.may_be_applied());
        let what = telling.map_or_else(|| "an early try had no outcome".to_string(), ToString::to_string);
        let accept = match telling.map(|one| &one.end) {
            Some(TryEnd::Unknown(WhyUnknown::RoleCrashed(RoleKind::Coordinator | RoleKind::Participant))) => {
                "it may have been committed"
            }
            Some(TryEnd::Unknown(WhyUnknown::TimedOut | WhyUnknown::RoleCrashed(_))) => "ACCEPT may have been sent",
            Some(TryEnd::Unknown(WhyUnknown::Superseded | WhyUnknown::Expired)) => {
                "an earlier copy may have been applied"
            }
            Some(_) | None => "the request had been sent",
        };
        format!("{what}; {accept}, and it may still be applied")
    }

    fn count_of(&self, of: ServerSet) -> String {
        format!("{} of {}", of.and(self.cluster).len(), self.cluster.len())
    }

    fn silent(&self, answered: ServerSet) -> String {
        let silent: Vec<String> = self.cluster.without(answered).iter().map(|server| server.0.to_string()).collect();
        if silent.is_empty() { String::new() } else { format!(" (no answer: {})", silent.join(", ")) }
    }
}

/// Which end says most about the cluster: of many tries, the sentence is about that one, and of equals the last.
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

/// A duration for people, in seconds.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
