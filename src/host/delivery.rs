//! How a message leaves this server, how one that came reaches the roles that hear it, and what is told of those that
//! do not.

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
use super::time::Time;
use super::trace_lines;
use crate::kv::Kv;
use crate::net::{AdmissionStatus, Envelope, EnvelopeRef, MessageKind, PeerMessage, frame_into};
use crate::paxos::{self, Acceptor, Learner, Message, Proposer, ProposerRequest, Slot};
use crate::role::{Input, Lane, RoleKind, ServerId, ServerSet};
use crate::trace::{Event, Speaker, TraceContext};
use crate::two_phase_commit::{Coordinator, Participant};

/// What a frame has beside the values in it, about.
const FRAME_BYTES: usize = 64;
/// At most this many drops a second get a log line each.
const DROP_LINES: u32 = 1_000;

/// Messages that were lost.
#[derive(Debug)]
pub struct DropCounters {
    /// Not told one by one.
    untold: Mutex<BTreeMap<(RoleKind, DropReason), u64>>,
    lines: RateLimit,
    total: AtomicU64,
}

impl Default for DropCounters {
    fn default() -> DropCounters {
        DropCounters { untold: Mutex::default(), lines: RateLimit::new(DROP_LINES), total: AtomicU64::new(0) }
    }
}

/// Why a message was dropped, as its line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// The role is down.
    Crashed,
    /// Its mailbox is full.
    Full,
    /// The disk has no room for another value.
    DiskFull,
    /// The server does not take part: its folder is new, or its state wrong.
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

/// What a role must be woken for.
#[derive(Clone, Copy, Debug)]
enum WakePolicy {
    Yes,
    No,
    /// A value: of no use to a learner before it hears that it is chosen, unless that is what it waits for.
    IfBehind,
    /// Votes for slots up to this one: there are more acceptors than a majority needs.
    IfOpen(Slot),
    /// An answer in this round of reads, likewise. One that looks like it wakes the learner for nothing, and no more.
    IfRound(u64),
}

/// How a message has come to a role.
struct Arrival<'a> {
    from: ServerId,
    context: &'a TraceContext,
    /// How much room it takes in the mailbox, in bytes.
    size: usize,
    lane: Lane,
    wake_policy: WakePolicy,
}

impl<C: ClientConnection> ServerCore<C> {
    /// Sends a message to servers, this one perhaps among them. It is encoded once, and leaves with the next
    /// [`Env::flush_peers`]. A server that does not take part says nothing, to itself neither.
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

    /// Hands a message to the roles that hear it.
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
        // Within one server values are shared, and take no room of their own.
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
            // No role hears it.
            (PeerMessage::Here, _) => Ok(()),
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

    /// Whether a role must be woken for a message. Some are only of use with another that does wake it, or are among
    /// many that say the same.
    fn wake_policy(&self, role: RoleKind, from: ServerId, message: &PeerMessage) -> WakePolicy {
        let PeerMessage::Paxos(message) = message else { return WakePolicy::Yes };
        match (role, message) {
            (RoleKind::Learner, Message::Accept { .. }) => WakePolicy::IfBehind,
            (RoleKind::Learner, Message::Accepted { slots, .. }) => WakePolicy::IfOpen(slots.last),
            (RoleKind::Learner, Message::ReadReply { id, .. }) => WakePolicy::IfRound(*id as u64),
            // How far others are is looked at only when something else happens. The own learner's first word starts
            // work.
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

    /// The last connection from a peer has ended: whoever waits for its silence need not.
    pub fn peer_gone<E: Env<Connection = C>>(&self, env: &E, peer: ServerId) {
        let input = Input::Request(ProposerRequest::PeerDisconnected(peer));
        // If the proposer is down there is nobody to tell.
        let _ = self.enqueue::<Proposer, E>(env, Delivery::from_within(TraceContext::default(), input, 0));
    }

    /// Tells that a message was dropped: in a line of its own where steps are shown, else in a count.
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
            let mut untold = self.drops.untold.lock().unwrap_or_else(PoisonError::into_inner);
            *untold.entry((role, cause)).or_default() += 1;
        }
    }

    /// How many messages were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.drops.total.load(Ordering::Relaxed)
    }

    /// The line for bytes that nobody understands. They are counted, and never shown.
    pub fn tell_malformed(&self, now: Time, from: SocketAddr, length: u64, what: &str) {
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

    /// Once a second: a line for what happened since and was not told.
    pub fn report_counts(&self) {
        let untold = std::mem::take(&mut *self.drops.untold.lock().unwrap_or_else(PoisonError::into_inner));
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
            let why = format!("{malformed} more malformed requests were received, too many for a line each");
            self.trace_with_reason(Speaker::Server, &TraceContext::default(), event, Some(why));
        }
        self.tell_closed(&self.load.unfinished, "unfinished requests", "had sent part of a request");
        self.tell_closed(&self.load.untaken, "untaken replies", "had not taken its replies");
        self.trace_admission();
    }

    /// A line for the clients that were let go since.
    fn tell_closed(&self, budget: &Budget, cause: &str, what: &str) {
        let Some(Closed { count, bytes, first }) = budget.take_closed() else { return };
        let why = format!(
            "closed {count} connections of clients, the first from {first}: each {what} for longest. They held {bytes} bytes, \
             and all clients together may hold {}. Other clients are served; find out who floods this server",
            budget.max_bytes()
        );
        self.trace_fault("clients", cause, &why);
    }

    /// A line for what a server waits for whose folder is new, if that is another than before.
    fn trace_admission(&self) {
        let now = self.admission.pending_status();
        let before = std::mem::replace(&mut *self.last_admission.lock().unwrap_or_else(PoisonError::into_inner), now);
        if let Some(AdmissionStatus { witnesses: known_to, needed }) = now.filter(|_| now != before) {
            let why = format!(
                "the data folder of this server is new: it takes part once {needed} others know it, and so far {known_to} do. \
                 Start the others. If this server had another data folder before, bring that one back"
            );
            self.trace_fault("data-dir", "not-admitted", &why);
        }
    }
}
