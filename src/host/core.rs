//! The core of a server, without its surroundings: the data that its roles, connections and checkpointer share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::admission::Admission;
use super::checkpoints::CheckpointQueue;
use super::config::Config;
use super::connected_peers::ConnectedPeers;
use super::delivery::DropCounters;
use super::env::{Env, Observation};
use super::limits::{ClientConnection, RequestLoad};
use super::mail_queue::{Capacity, Delivery, MailboxItem, MustWake, QueueLimits, SendError};
use super::mailbox::Mailbox;
use super::pending::PendingRequests;
use super::rate_limit::RateLimit;
use super::roles::Hosted;
use super::status::SharedStatus;
use crate::kv::Kv;
use crate::net::{AdmissionStatus, WhyNotApplied, WhyUnknown};
use crate::paxos::{Acceptor, Learner, Proposer, ProposerRequest, Slot};
use crate::protocol::Family;
use crate::role::{Input, RoleKind, ServerSet};
use crate::trace::{Event, PendingLine, QuotedText, Speaker, Trace, TraceContext};
use crate::two_phase_commit::{Coordinator, Participant};

/// At most this many sessions are opened per second, by all clients together. Each goes through the log, and the
/// session table is bounded.
const OPENS_PER_SECOND: u32 = 1_000;
/// At most this many malformed requests per second get a log line each.
const MALFORMED_LINES: u32 = 100;

/// The shared data of a server's decisions. Many threads may use it at a time: each part has its own lock, and no
/// thread holds two of them.
pub struct ServerCore<C: ClientConnection> {
    /// How the server was started.
    pub config: Config,
    /// Where log lines go.
    pub trace: Trace,
    /// The proposer's mailbox.
    pub proposer: Arc<Mailbox<Proposer>>,
    /// The acceptor's mailbox.
    pub acceptor: Arc<Mailbox<Acceptor>>,
    /// The learner's mailbox.
    pub learner: Arc<Mailbox<Learner<Kv>>>,
    /// The coordinator's mailbox, under two-phase commit.
    pub coordinator: Arc<Mailbox<Coordinator>>,
    /// The participant's mailbox, under two-phase commit.
    pub participant: Arc<Mailbox<Participant>>,
    /// The pending requests.
    pub pending: PendingRequests<C>,
    /// The clients' requests in flight, all connections together.
    pub load: Arc<RequestLoad>,
    /// Limits the sessions that all clients together may open.
    pub opens: RateLimit,
    /// The published state of the roles.
    pub shared_status: SharedStatus,
    /// The peers that this server reaches and hears.
    pub linked: ConnectedPeers,
    /// The checkpointer's jobs.
    pub checkpoints: CheckpointQueue,
    /// The wake hints of the roles.
    pub hints: WakeHints,
    /// Whether the server takes part in the protocol.
    pub admission: Admission,
    pub(super) family: Family,
    /// The roles whose disks have no room for another value: one bit per role.
    full_disks: AtomicU64,
    /// The admission status of the last log line about it; None while the server is not pending.
    pub(super) last_admission: Mutex<Option<AdmissionStatus>>,
    pub(super) drops: DropCounters,
    pub(super) malformed: RateLimit,
}

/// Wake hints: the part of each role's state, as of its last turn, that says which inputs the role must be woken for.
#[derive(Debug, Default)]
pub struct WakeHints {
    /// The proposer waits for slots to be applied.
    pub wants_applied: AtomicBool,
    /// The number of queued commands that the proposer needs before it can send more.
    pub batch_threshold: AtomicUsize,
    /// The round of the ballot that the acceptor has promised: the proposer begins above it.
    pub promised_round: AtomicU64,
    /// The learner knows of chosen slots that it cannot apply yet.
    pub is_learner_behind: AtomicBool,
    /// The learner has applied too much since its last durable checkpoint.
    pub is_checkpoint_full: AtomicBool,
    /// The last slot that the learner has applied.
    pub applied: AtomicU64,
    /// The learner's read round in flight, in its lowest 64 bits; 0 if there is none.
    pub round: AtomicU64,
    /// The proposer is about to flush messages to the peers, and the learner's messages with them.
    pub proposer_flushes: AtomicBool,
}

/// Stable storage has failed, or its content contradicts itself: the content of the disk is unknown. The process must
/// end; acknowledged writes are safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal(pub String);

impl<C: ClientConnection> ServerCore<C> {
    /// A server whose roles are still down.
    pub fn new(config: Config, trace: Trace, admission: Admission) -> ServerCore<C> {
        let (most, family) = (QueueLimits::of(config.sizes.mailbox, config.cluster.len()), config.protocol.family());
        ServerCore {
            config,
            trace,
            proposer: Arc::new(Mailbox::closed(most)),
            acceptor: Arc::new(Mailbox::closed(most)),
            learner: Arc::new(Mailbox::closed(most)),
            coordinator: Arc::new(Mailbox::closed(most)),
            participant: Arc::new(Mailbox::closed(most)),
            pending: PendingRequests::default(),
            load: Arc::default(),
            opens: RateLimit::new(OPENS_PER_SECOND),
            shared_status: SharedStatus::default(),
            linked: ConnectedPeers::default(),
            checkpoints: CheckpointQueue::default(),
            hints: WakeHints::default(),
            admission,
            family,
            full_disks: AtomicU64::new(0),
            last_admission: Mutex::new(None),
            drops: DropCounters::default(),
            malformed: RateLimit::new(MALFORMED_LINES),
        }
    }

    /// Whether a role is up.
    pub fn is_up(&self, role: RoleKind) -> bool {
        match role {
            RoleKind::Proposer => self.proposer.is_open(),
            RoleKind::Acceptor => self.acceptor.is_open(),
            RoleKind::Learner => self.learner.is_open(),
            RoleKind::Coordinator => self.coordinator.is_open(),
            RoleKind::Participant => self.participant.is_open(),
        }
    }

    /// Records whether a role's disk has room. Each incarnation calls it when it begins, and when the answer changes.
    pub fn set_has_space(&self, role: RoleKind, has_space: bool) {
        let bit = 1 << role as u64;
        if has_space {
            self.full_disks.fetch_and(!bit, Ordering::Relaxed);
        } else {
            self.full_disks.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Whether a role that is up has no room on its disk for another value. Nothing is known of the roles that are
    /// down.
    pub fn is_disk_full(&self) -> bool {
        let full = self.full_disks.load(Ordering::Relaxed);
        RoleKind::ALL.into_iter().any(|role| full & 1 << role as u64 != 0 && self.is_up(role))
    }

    /// Whether the learner is up, and has applied more since its last durable checkpoint than the limit allows.
    pub fn is_checkpoint_full(&self) -> bool {
        self.hints.is_checkpoint_full.load(Ordering::Relaxed) && self.is_up(RoleKind::Learner)
    }

    /// Puts an input into the mailbox of a role of this server, and wakes the role; never blocks.
    pub fn enqueue<R: Hosted, E: Env<Connection = C>>(&self, env: &E, mail: Delivery<R>) -> Result<(), SendError> {
        self.put(env, MailboxItem::Mail(mail), Capacity::Usual, |_| false)
    }

    /// Like [`ServerCore::enqueue`], but does not wake the role if `can_wait` returns true for the number of queued
    /// inputs.
    pub fn enqueue_without_wake<R: Hosted, E: Env<Connection = C>>(
        &self,
        env: &E,
        mail: Delivery<R>,
        can_wait: impl FnOnce(usize) -> bool,
    ) -> Result<(), SendError> {
        self.put(env, MailboxItem::Mail(mail), Capacity::Usual, |waiting| self.config.wake_hints && can_wait(waiting))
    }

    /// Puts an input into the reserved room of a mailbox: other inputs cannot crowd it out.
    pub fn enqueue_reserved<R: Hosted, E: Env<Connection = C>>(
        &self,
        env: &E,
        input: Input<R>,
    ) -> Result<(), SendError> {
        let mail = Delivery::from_within(TraceContext::default(), input, 0);
        self.put(env, MailboxItem::Mail(mail), Capacity::Reserved, |_| false)
    }

    /// Puts a control item into a role's mailbox. An error if the role is down.
    pub fn enqueue_control<R: Hosted, E: Env<Connection = C>>(
        &self,
        env: &E,
        item: MailboxItem<R>,
    ) -> Result<(), SendError> {
        self.put(env, item, Capacity::Reserved, |_| false)
    }

    pub(super) fn put<R: Hosted, E: Env<Connection = C>>(
        &self,
        env: &E,
        item: MailboxItem<R>,
        room: Capacity,
        can_wait: impl FnOnce(usize) -> bool,
    ) -> Result<(), SendError> {
        match R::mailbox(self).put(item, room, can_wait) {
            Ok(MustWake::Yes) => env.wake(R::NAME),
            Ok(MustWake::No) => {}
            Err(lost) => {
                env.observe(Observation::Lost(lost));
                return Err(lost);
            }
        }
        Ok(())
    }

    /// Traces a failure outside the protocol; the server continues.
    pub fn trace_fault(&self, part: &str, cause: &str, why: &str) {
        let event = Event::Fault { part: QuotedText::new(part), cause: QuotedText::new(cause) };
        self.trace_with_reason(Speaker::Server, &TraceContext::default(), event, Some(why.to_string()));
    }

    /// Writes one line, and returns the context for the lines that it causes.
    pub fn trace_line(&self, role: Speaker, context: &TraceContext, event: Event) -> TraceContext {
        self.trace_with_reason(role, context, event, None)
    }

    /// Writes one line with a reason.
    pub fn trace_with_reason(
        &self,
        role: Speaker,
        context: &TraceContext,
        event: Event,
        why: Option<String>,
    ) -> TraceContext {
        let draft = PendingLine { reason: why, ..PendingLine::about(role, event, context) };
        let id = self.trace.line(draft);
        TraceContext { parent: id.or_else(|| context.parent.clone()), req: context.req.clone() }
    }

    /// Fences this server: its state differs from its peers' state. It sends no more messages, and answers its pending
    /// requests with an error. No later incarnation may start from that state either.
    pub fn fence<E: Env<Connection = C>>(&self, env: &E, draft: PendingLine, slot: Slot, against: ServerSet) {
        self.admission.fence();
        self.checkpoints.fence(slot);
        env.wake_checkpointer();
        self.shared_status.update(|shown| shown.fenced = Some(slot));
        let sentence = draft.reason.clone().unwrap_or_default();
        self.trace.line(draft);
        env.observe(Observation::Fenced { slot, against });
        self.pending.fail_all(WhyUnknown::RoleCrashed(RoleKind::Learner), Some(WhyNotApplied::Fenced));
        let _ = self.enqueue_reserved(env, Input::<Proposer>::Request(ProposerRequest::LearnerDown));
        // Last, since writing to a terminal may block.
        env.show_operator(&format!("error: server {}: {sentence}", self.config.me.0));
    }
}
