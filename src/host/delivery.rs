//! The delivery of messages: how a message leaves this server, how a received one reaches its roles, and how drops are
//! traced.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::budget::{Budget, Closed};
use super::core::ServerCore;
use super::env::Env;
use super::limits::ClientConnection;
use super::mail_queue::{Delivery, SendError};
use super::rate_limit::RateLimit;
use super::roles::Hosted;
use super::trace_lines;
use crate::kv::Kv;
use crate::net::{AdmissionStatus, Envelope, EnvelopeRef, MessageKind, PeerMessage, frame_into};
use crate::paxos::{self, Acceptor, Learner, Message, Proposer, ProposerRequest, Slot};
use crate::role::{Input, Lane, RoleKind, ServerId, ServerSet};
use crate::time::Time;
use crate::trace::{Event, Speaker, TraceContext};
use crate::two_phase_commit::{Coordinator, Participant};

/// Approximate bytes of a frame, without its values.
const FRAME_BYTES: usize = 64;
/// At most this many drops per second get a log line each.
const DROP_LINES: u32 = 1_000;

/// Counters of dropped messages.
#[derive(Debug)]
pub struct DropCounters {
    /// Drops without a log line of their own, since the last report.
    unreported: Mutex<BTreeMap<(RoleKind, DropReason), u64>>,
    lines: RateLimit,
    total: AtomicU64,
}

impl Default for DropCounters {
    fn default() -> DropCounters {
        DropCounters { unreported: Mutex::default(), lines: RateLimit::new(DROP_LINES), total: AtomicU64::new(0) }
    }
}

/// Why a message was dropped, as its log line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// The role is down.
    Crashed,
    /// The role's mailbox is full.
    Full,
    /// The disk has no room for another value.
    DiskFull,
    /// The server does not take part: its data directory is new, or its replica is divergent.
    NotActive,
}

impl From<SendError> for DropReason {
    fn from(lost: SendError) -> DropReason {
        match lost {
            SendError::Down => DropReason::Crashed,
            SendError::Full => DropReason::Full,
        }
    }
}

/// When a message must wake its role.
#[derive(Clone, Copy, Debug)]
enum WakePolicy {
    Yes,
    No,
    /// A value is of no use to a learner before it is chosen, except to a learner that is behind.
    IfBehind,
    /// A vote for slots up to this one: more acceptors vote than a majority needs.
    IfOpen(Slot),
    /// A reply in this read round; more acceptors reply than a majority needs. A false match only wakes the learner in
    /// vain.
    IfRound(u64),
}

/// The envelope data of a message for a role.
struct Arrival<'a> {
    from: ServerId,
    context: &'a TraceContext,
    /// The room that the message takes in the mailbox, in bytes.
    size: usize,
    lane: Lane,
    wake_policy: WakePolicy,
}

impl<C: ClientConnection> ServerCore<C> {
    /// Sends a message to servers, possibly also to this one. It is encoded once, and leaves with the next
    /// [`Env::flush_peers`]. A server that does not take part sends nothing, not even to itself.
    pub fn send<E: Env<Connection = C>>(&self, env: &E, to: ServerSet, message: PeerMessage, context: TraceContext) {
        if !self.admission.is_active() {
            return;
        }
        let me = self.config.me;
        let others = to.without(ServerSet::only(me));
        if !others.is_empty() {
            let mut frame = Vec::with_capacity(FRAME_BYTES + message.size());
            frame_into(&EnvelopeRef { context: &context, message: &message }, &mut frame);
            env.to_peers(others, &message, frame);
        }
        if to.contains(me) {
            self.deliver(env, me, Envelope { context, message });
        }
    }

    /// Delivers a message to its receiving roles.
    pub fn deliver<E: Env<Connection = C>>(&self, env: &E, from: ServerId, envelope: Envelope) {
        let Envelope { context, message } = envelope;
        if !self.admission.is_active() {
            for role in message.recipients() {
                self.trace_drop(env.now(), *role, message.kind(), from, DropReason::NotActive, &context);
            }
            return;
        }
        let Some((last, before)) = message.recipients().split_last() else { return };
        for role in before {
            self.deliver_to(env, *role, from, message.clone(), &context);
        }
        self.deliver_to(env, *last, from, message, &context);
    }

    fn deliver_to<E: Env<Connection = C>>(
        &self,
        env: &E,
        role: RoleKind,
        from: ServerId,
        message: PeerMessage,
        context: &TraceContext,
    ) {
        // Within one server values are shared, so they take no extra room.
        let size = if from == self.config.me { 0 } else { message.size() };
        let (kind, lane) = (message.kind(), message.lane());
        let came = Arrival { from, context, size, lane, wake_policy: self.wake_policy(role, from, &message) };
        let in_its_place = match (&message, role) {
            (PeerMessage::Paxos(said), RoleKind::Proposer) => paxos::in_place_of_proposer(said),
            _ => None,
        };
        let lost = match (message, role) {
            (PeerMessage::Paxos(said), RoleKind::Proposer) => self.take::<Proposer, E>(env, said, came),
            (PeerMessage::Paxos(said), RoleKind::Acceptor) => self.take::<Acceptor, E>(env, said, came),
            (PeerMessage::Paxos(said), _) => self.take::<Learner<Kv>, E>(env, said, came),
            (PeerMessage::TwoPhaseCommit(said), RoleKind::Coordinator) => self.take::<Coordinator, E>(env, said, came),
            (PeerMessage::TwoPhaseCommit(said), _) => self.take::<Participant, E>(env, said, came),
            // No role receives it.
            (PeerMessage::Keepalive, _) => Ok(()),
        };
        if let (Err(SendError::Down), Some(answer)) = (lost, in_its_place) {
            self.send(env, ServerSet::only(from), PeerMessage::Paxos(answer), context.clone());
            env.flush_peers();
        } else if let Err(lost) = lost {
            self.trace_drop(env.now(), role, kind, from, lost.into(), context);
        }
    }

    fn take<R: Hosted, E: Env<Connection = C>>(
        &self,
        env: &E,
        message: R::Message,
        Arrival { from, context, size, lane, wake_policy: haste }: Arrival<'_>,
    ) -> Result<(), SendError> {
        let mail = Delivery { context: context.clone(), input: Input::Message { from, message }, size, lane };
        self.enqueue_without_wake::<R, E>(env, mail, |_| self.can_wait(haste))
    }

    /// When a message must wake its role. Some messages are useful only together with another one that wakes the role,
    /// or are among many equal ones.
    fn wake_policy(&self, role: RoleKind, from: ServerId, message: &PeerMessage) -> WakePolicy {
        let PeerMessage::Paxos(message) = message else { return WakePolicy::Yes };
        match (role, message) {
            (RoleKind::Learner, Message::Accept { .. }) => WakePolicy::IfBehind,
            (RoleKind::Learner, Message::Accepted { slots, .. }) => WakePolicy::IfOpen(slots.last),
            (RoleKind::Learner, Message::ReadReply { id, .. }) => WakePolicy::IfRound(*id as u64),
            // A peer's progress is read only when something else happens. The first PROGRESS of the own learner starts
            // work, so it wakes the proposer.
            (RoleKind::Proposer, Message::Progress { .. }) if from != self.config.me => WakePolicy::No,
            _ => WakePolicy::Yes,
        }
    }

    fn can_wait(&self, haste: WakePolicy) -> bool {
        let hints = &self.hints;
        match haste {
            WakePolicy::Yes => false,
            WakePolicy::No => true,
            WakePolicy::IfBehind => !hints.is_learner_behind.load(Ordering::Relaxed),
            WakePolicy::IfRound(id) => id != hints.round.load(Ordering::Relaxed),
            WakePolicy::IfOpen(slot) => slot.0 <= hints.applied.load(Ordering::Relaxed),
        }
    }

    /// The last connection from a peer has ended: the proposer need not wait for that peer's time-out.
    pub fn on_peer_disconnected<E: Env<Connection = C>>(&self, env: &E, peer: ServerId) {
        let input = Input::Request(ProposerRequest::PeerDisconnected(peer));
        // Dropping is safe: a proposer that is down waits for no peer.
        let _ = self.enqueue::<Proposer, E>(env, Delivery::from_within(TraceContext::default(), input, 0));
    }

    /// Traces a dropped message: with its own line if step tracing is on, else in a count.
    pub fn trace_drop(
        &self,
        now: Time,
        role: RoleKind,
        message: MessageKind,
        from: ServerId,
        cause: DropReason,
        context: &TraceContext,
    ) {
        self.drops.total.fetch_add(1, Ordering::Relaxed);
        if self.trace.steps() && !message.is_routine && self.drops.lines.allow(now) {
            self.trace_line(role.into(), context, trace_lines::dropped(message.name, Some(from), cause, None));
        } else {
            let mut untold = self.drops.unreported.lock().unwrap_or_else(PoisonError::into_inner);
            *untold.entry((role, cause)).or_default() += 1;
        }
    }

    /// Number of messages dropped so far.
    pub fn dropped(&self) -> u64 {
        self.drops.total.load(Ordering::Relaxed)
    }

    /// Writes the line for malformed bytes. Only their length is shown, never the bytes.
    pub fn trace_malformed(&self, now: Time, from: SocketAddr, length: u64, what: &str) {
        if self.malformed.allow(now) {
            let why = format!("received malformed request of length {length} from {from}: {what}");
            self.trace_with_reason(
                Speaker::Server,
                &TraceContext::default(),
                Event::Malformed { length, from },
                Some(why),
            );
        }
    }

    /// Writes a line, once per second, for the drops and malformed requests that have no line of their own.
    pub fn report_counts(&self) {
        let untold = std::mem::take(&mut *self.drops.unreported.lock().unwrap_or_else(PoisonError::into_inner));
        for ((role, cause), count) in untold {
            self.trace_line(
                role.into(),
                &TraceContext::default(),
                trace_lines::dropped("any", None, cause, Some(count)),
            );
        }
        let malformed = self.malformed.take_suppressed();
        if malformed > 0 {
            let event = trace_lines::dropped("MALFORMED", None, DropReason::Full, Some(malformed));
            let why = format!("received {malformed} more malformed requests, too many for one line each");
            self.trace_with_reason(Speaker::Server, &TraceContext::default(), event, Some(why));
        }
        self.trace_closed(&self.load.unfinished, "unfinished requests", "had an unfinished request");
        self.trace_closed(&self.load.unread_replies, "unread replies", "had unread replies");
        self.trace_admission();
    }

    /// Writes a line for the client connections closed since the last report.
    fn trace_closed(&self, budget: &Budget, cause: &str, what: &str) {
        let Some(Closed { count, bytes, first }) = budget.take_closed() else { return };
        let why = format!(
            "closed {count} client connections, the first from {first}: each {what} for the longest time. They held \
             {bytes} bytes; the limit for all clients together is {}. Other clients are served. Find the client that \
             floods this server",
            budget.max_bytes()
        );
        self.trace_fault("clients", cause, &why);
    }

    /// Writes a line for what a pending server waits for, if that has changed.
    fn trace_admission(&self) {
        let now = self.admission.pending_status();
        let before = std::mem::replace(&mut *self.last_admission.lock().unwrap_or_else(PoisonError::into_inner), now);
        if let Some(AdmissionStatus { witnesses: known_to, needed }) = now.filter(|_| now != before) {
            let why = format!(
                "this server is not admitted: its data directory is new. It joins when {needed} peers have recorded it \
                 (so far {known_to}): start those that are down. If it had another directory before, restore that one"
            );
            self.trace_fault("data-dir", "not-admitted", &why);
        }
    }
}
