//! The log lines of a server itself: requests and replies, links, failures, start and end.

use std::net::SocketAddr;
use std::time::Duration;

use super::delivery::DropReason;
use super::mail_queue::CrashRequest;
use crate::kv::{self, WriteResult};
use crate::net::{Reply, Request, WhyNotApplied, WhyUnknown};
use crate::paxos::{self, Ballot, FULL_FACTOR, LeftBehind, Retention, StateMachine};
use crate::role::{ServerId, ServerSet};
use crate::trace::{self, DropCause, Event, LinkEvent, MaybeBallot, OpKind, QuotedText, RecoveredFrom, RequestStatus};
use crate::two_phase_commit::{self, Coordinator, Participant};

/// A request as it arrived; None for requests that change and read no key.
pub fn request(request: &Request, from: SocketAddr) -> Option<Event> {
    let event = |op, key: Option<&[u8]>, value: Option<&[u8]>, if_version, session, sequence| Event::Request {
        op,
        key: key.map(QuotedText::new),
        value: value.map(QuotedText::new),
        if_version,
        from: Some(from),
        to: None,
        session,
        sequence,
    };
    match request {
        Request::Open { .. } => Some(event(OpKind::Open, None, None, None, None, None)),
        Request::Get { key } => Some(event(OpKind::Get, Some(key), None, None, None, None)),
        Request::Write { session, sequence, op, .. } => {
            let (session, sequence) = (Some(*session), Some(*sequence));
            Some(match op {
                kv::Op::Put { key, value, if_version } => {
                    event(OpKind::Put, Some(key), Some(value), *if_version, session, sequence)
                }
                kv::Op::Delete { key } => event(OpKind::Delete, Some(key), None, None, session, sequence),
            })
        }
        Request::Status
        | Request::State { .. }
        | Request::Crash { .. }
        | Request::Restart { .. }
        | Request::Cut { .. }
        | Request::Join { .. } => None,
    }
}

/// The sentence about a peer that is slower than the writes. What the peer has taken is known from the chunks that it
/// has requested, each of about `part_bytes` bytes.
pub fn left_behind(left: &LeftBehind, part_bytes: usize) -> String {
    let LeftBehind { peer: ServerId(peer), parts, ticks, written, kept } = *left;
    let seconds = ticks.max(1) as f64 / 10.0;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let taken = megabytes(parts.saturating_mul(part_bytes as u64)) / seconds;
    let written = megabytes(written) / seconds;
    format!(
        "server {peer} receives about {taken:.1} MB/s ({parts} snapshot chunks in {seconds:.1} s), and clients write \
         {written:.1} MB/s: it does not catch up under this load. The {:.1} MB of the log kept for it are full, so it \
         needs another snapshot. Reduce the load for a while, or use a faster link",
        megabytes(kept)
    )
}

/// The sentence about a late checkpoint.
pub fn checkpoint_late(bytes: u64, retention: &Retention) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    format!(
        "{:.1} MB of values are in no durable checkpoint, and one is due every {:.1} MB: the disk is slower than the \
         clients. From {:.1} MB on, this server refuses writes until the checkpoint is durable",
        megabytes(bytes),
        megabytes(retention.checkpoint_bytes),
        megabytes(retention.checkpoint_bytes.saturating_mul(FULL_FACTOR))
    )
}

/// A reply as it leaves; None for replies without an event of their own.
pub fn response(reply: &Reply, took: Duration, to: SocketAddr) -> Option<Event> {
    let (mut slot, mut version, mut value, mut session, mut cause) = (None, None, None, None, None);
    let status = match reply {
        Reply::Opened { session: opened, .. } => {
            session = Some(*opened);
            RequestStatus::Ok
        }
        Reply::Applied { slot: at, written, .. } => {
            slot = Some(*at);
            let (status, at) = match written {
                WriteResult::Done { version } => (RequestStatus::Ok, version),
                WriteResult::NotFound { version } => (RequestStatus::NotFound, version),
                WriteResult::Mismatch { version } => (RequestStatus::Mismatch, version),
            };
            version = Some(*at);
            status
        }
        Reply::Value { slot: at, value: found, version: at_version } => {
            (slot, version) = (Some(*at), Some(*at_version));
            value = found.as_ref().map(QuotedText::new);
            if found.is_some() { RequestStatus::Ok } else { RequestStatus::NotFound }
        }
        Reply::NotApplied(why) => {
            cause = Some(QuotedText::new(why_not_applied(why)));
            RequestStatus::NotApplied
        }
        Reply::Unknown(WhyUnknown::Superseded) => RequestStatus::Superseded,
        Reply::Unknown(WhyUnknown::Expired) => RequestStatus::Expired,
        Reply::Unknown(why) => {
            cause = Some(QuotedText::new(if *why == WhyUnknown::TimedOut {
                "no outcome in time"
            } else {
                "a role crashed"
            }));
            RequestStatus::Unknown
        }
        Reply::Status(_) | Reply::Chunk(_) | Reply::Done | Reply::Refused(_) => return None,
    };
    let to = Some(to);
    Some(Event::Response { status, slot, version, value, session, cause, took: took.into(), server: None, to })
}

fn why_not_applied(why: &WhyNotApplied) -> String {
    match why {
        WhyNotApplied::Proposer(paxos::NotApplied::NoQuorum { answered }) => {
            format!("no quorum: {} replied to PREPARE ({answered})", answered.len())
        }
        WhyNotApplied::Proposer(paxos::NotApplied::Preempted) => "preempted by higher ballots".to_string(),
        WhyNotApplied::Proposer(paxos::NotApplied::NoLeader) => "no leader known".to_string(),
        WhyNotApplied::Proposer(paxos::NotApplied::NoRound) => "no ballot is left".to_string(),
        WhyNotApplied::Proposer(paxos::NotApplied::LearnerBehind) => "the learner is behind".to_string(),
        WhyNotApplied::Proposer(paxos::NotApplied::Busy) | WhyNotApplied::Busy => "busy".to_string(),
        WhyNotApplied::Coordinator(two_phase_commit::AbortReason::NoVote { silent }) => {
            format!("aborted: no vote from {silent}")
        }
        WhyNotApplied::Coordinator(two_phase_commit::AbortReason::Locked { by }) | WhyNotApplied::KeyLocked(by) => {
            format!("the key is locked by {by}")
        }
        WhyNotApplied::Coordinator(two_phase_commit::AbortReason::Busy) => "busy".to_string(),
        WhyNotApplied::RoleDown(role) => format!("the {} is down", trace::Speaker::from(*role).as_str()),
        WhyNotApplied::DiskFull => "disk full".to_string(),
        WhyNotApplied::Fenced => "this server is fenced: its replica diverged".to_string(),
        WhyNotApplied::NotAdmitted => "this server is not admitted: its data directory is new".to_string(),
        WhyNotApplied::Superseded => "its client no longer waits for it".to_string(),
        WhyNotApplied::Expired => "its session is unknown or has expired".to_string(),
        WhyNotApplied::NoReadQuorum(answered) => format!("no quorum: {} replied to READ ({answered})", answered.len()),
    }
}

/// A message that did not reach a role.
pub fn dropped(message: &str, from: Option<ServerId>, reason: DropReason, n: Option<u64>) -> Event {
    let cause = match reason {
        DropReason::Crashed => DropCause::Crashed,
        DropReason::Full => DropCause::Full,
        DropReason::DiskFull => DropCause::DiskFull,
        DropReason::NotActive => DropCause::Inactive,
    };
    Event::Drop { msg: QuotedText::new(message), from, to: None, cause, n }
}

/// A change of a link.
pub fn link(peer: ServerId, state: LinkEvent, cause: Option<&str>) -> Event {
    Event::Link { peer: ServerSet::only(peer), state, cause: cause.map(QuotedText::new) }
}

/// The crash of a role.
pub fn crash(order: CrashRequest, up: Duration) -> Event {
    let CrashRequest { point, cause, down } = order;
    Event::Crash { cause, point: Some(point), up: up.into(), down: down.map(Into::into) }
}

/// The recovered state of a restarted acceptor.
pub fn restarted_acceptor(down: Duration, lost: bool, promised: Ballot, accepted: u64) -> Event {
    let recovered = if lost { RecoveredFrom::Nothing } else { RecoveredFrom::Disk };
    let promised = Some(MaybeBallot((promised > Ballot::ZERO).then_some(promised)));
    let accepted = Some(accepted);
    let down = down.into();
    Event::Restart { down, recovered, promised, accepted, next: None, applied: None, digest: None, in_doubt: None }
}

/// The recovered state of a restarted proposer.
pub fn restarted_proposer(down: Duration, next: u64) -> Event {
    restarted(down, Some(next), None, None, None)
}

/// The recovered state of a restarted coordinator.
pub fn restarted_coordinator(down: Duration, coordinator: &Coordinator) -> Event {
    let (next, in_doubt) = (Some(coordinator.next_number()), Some(coordinator.unacknowledged() as u64));
    restarted(down, next, None, None, in_doubt)
}

/// The recovered state of a restarted participant.
pub fn restarted_participant(down: Duration, participant: &Participant) -> Event {
    let (applied, digest) = (Some(paxos::Slot(participant.applied())), Some(trace::Digest(participant.kv().digest())));
    restarted(down, None, applied, digest, Some(participant.in_doubt_count() as u64))
}

fn restarted(
    down: Duration,
    next: Option<u64>,
    applied: Option<paxos::Slot>,
    digest: Option<trace::Digest>,
    in_doubt: Option<u64>,
) -> Event {
    let recovered = RecoveredFrom::Disk;
    Event::Restart { down: down.into(), recovered, promised: None, accepted: None, next, applied, digest, in_doubt }
}

/// The recovered state of a restarted learner.
pub fn restarted_learner(down: Duration, applied: paxos::Slot, digest: u64) -> Event {
    restarted(down, None, Some(applied), Some(trace::Digest(digest)), None)
}
