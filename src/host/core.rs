//! A server without its surroundings: what its roles, its connections and its checkpointer share.

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

/// At most this many sessions a second are opened, by all clients together. Each goes through the log, and the table of
/// them is bounded.
const OPENS_PER_SECOND: u32 = 1_000;
/// At most this many malformed requests a second get a log line each.
const MALFORMED_LINES: u32 = 100;

/// What a server decides with. Many threads may use it at a time: each part has a lock of its own, and no thread holds
/// two of them.
pub struct ServerCore<C: ClientConnection> {
    /// How it was started.
    pub config: Config,
    /// Where its lines go.
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
    /// Who waits for an outcome.
    pub pending: PendingRequests<C>,
    /// What all clients together have under way.
    pub load: Arc<RequestLoad>,
    /// Sessions that all clients together may open.
    pub opens: RateLimit,
    /// What others may see of the roles.
    pub board: SharedStatus,
    /// Which of the others it reaches and hears.
    pub linked: ConnectedPeers,
    /// What the checkpointer has to do.
    pub checkpoints: CheckpointQueue,
    /// What the roles need not be woken for.
    pub hints: WakeHints,
    /// Whether it takes part in anything.
    pub admission: Admission,
    pub(super) family: Family,
    /// The roles whose disks have no room for another value: one bit a role.
    full_disks: AtomicU64,
    /// What was last told of what it waits for if its folder is new.
    pub(super) last_admission: Mutex<Option<AdmissionStatus>>,
    pub(super) drops: DropCounters,
    pub(super) malformed: RateLimit,
}

/// What a role's state is like after its last turn, as far as it says what the role must be woken for.
#[derive(Debug, Default)]
pub struct WakeHints {
    /// The proposer waits for slots to be applied.
    pub wants_applied: AtomicBool,
    /// The proposer can do nothing with more commands before so many have come.
    pub batch_threshold: AtomicUsize,
    /// The learner knows of chosen slots that it cannot apply.
    pub is_learner_behind: AtomicBool,
    /// Too much was applied that no durable checkpoint of the learner's holds.
    pub is_checkpoint_full: AtomicBool,
    /// The last slot that the learner has applied.
    pub applied: AtomicU64,
    /// The learner's round of reads under way, as far as it fits in here; 0 if there is none.
    pub round: AtomicU64,
    /// The proposer is about to write to the peers, and takes along what the learner has said.
    pub proposer_flushes: AtomicBool,
}

/// Stable storage has failed, or its content contradicts itself: nobody knows any more what is on the disk. The process
/// must end; what it acknowledged is safe.
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
            board: SharedStatus::default(),
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

    /// Whether a role lives.
    pub fn is_up(&self, role: RoleKind) -> bool {
        match role {
            RoleKind::Proposer => self.proposer.is_open(),
            RoleKind::Acceptor => self.acceptor.is_open(),
            RoleKind::Learner => self.learner.is_open(),
            RoleKind::Coordinator => self.coordinator.is_open(),
            RoleKind::Participant => self.participant.is_open(),
        }
    }

    /// A life of a role says whether its disk has room: when it begins, and when that changes.
    pub fn set_room(&self, role: RoleKind, has_room: bool) {
        let bit = 1 << role as u64;
        if has_room {
            self.full_disks.fetch_and(!bit, Ordering::Relaxed);
        } else {
            self.full_disks.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Whether a role that lives has no room on its disk for another value. Of the others nobody knows.
    pub fn is_disk_full(&self) -> bool {
        let full = self.full_disks.load(Ordering::Relaxed);
        RoleKind::ALL.into_iter().any(|role| full & 1 << role as u64 != 0 && self.is_up(role))
    }

    /// Whether its learner lives, and has applied more since its last durable checkpoint than should lie behind one.
    pub fn is_checkpoint_full(&self) -> bool {
        self.hints.is_checkpoint_full.load(Ordering::Relaxed) && self.is_up(RoleKind::Learner)
    }

    /// Hands an input to a role of this server, and wakes it; never blocks.
    pub fn enqueue<R: Hosted, E: Env<Connection = C>>(&self, env: &E, mail: Delivery<R>) -> Result<(), SendError> {
        self.put(env, MailboxItem::Mail(mail), Capacity::Usual, |_| false)
    }

    /// Hands an input to a role, and wakes it unless that `can_wait`, asked with the number of inputs that wait then.
    pub fn enqueue_without_wake<R: Hosted, E: Env<Connection = C>>(
        &self,
        env: &E,
        mail: Delivery<R>,
        can_wait: impl FnOnce(usize) -> bool,
    ) -> Result<(), SendError> {
        self.put(env, MailboxItem::Mail(mail), Capacity::Usual, |waiting| self.config.wake_hints && can_wait(waiting))
    }

    /// Hands over an input that must not be lost because others fill the mailbox.
    pub fn enqueue_reserved<R: Hosted, E: Env<Connection = C>>(
        &self,
        env: &E,
        input: Input<R>,
    ) -> Result<(), SendError> {
        let mail = Delivery::from_within(TraceContext::default(), input, 0);
        self.put(env, MailboxItem::Mail(mail), Capacity::Reserved, |_| false)
    }

    /// Hands an order to a role. An error if the role is down.
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

    /// Something outside failed, and the server goes on.
    pub fn trace_fault(&self, part: &str, cause: &str, why: &str) {
        let event = Event::Fault { part: QuotedText::new(part), cause: QuotedText::new(cause) };
        self.trace_with_reason(Speaker::Server, &TraceContext::default(), event, Some(why.to_string()));
    }

    /// Writes one line; gives the context for what comes from it.
    pub fn trace_line(&self, role: Speaker, context: &TraceContext, event: Event) -> TraceContext {
        self.trace_with_reason(role, context, event, None)
    }

    /// Writes one line with a reason for people.
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

    /// The state of this server is not that of the others: it says nothing more to anybody, and whoever waits is told
    /// so. No later life may begin with that state either.
    pub fn fence<E: Env<Connection = C>>(&self, env: &E, draft: PendingLine, slot: Slot, against: ServerSet) {
        self.admission.fence();
        self.checkpoints.fence(slot);
        env.wake_checkpointer();
        self.board.update(|shown| shown.fenced = Some(slot));
        let sentence = draft.reason.clone().unwrap_or_default();
        self.trace.line(draft);
        env.observe(Observation::Fenced { slot, against });
        self.pending.fail_all(WhyUnknown::RoleCrashed(RoleKind::Learner), Some(WhyNotApplied::Fenced));
        let _ = self.enqueue_reserved(env, Input::<Proposer>::Request(ProposerRequest::LearnerDown));
        // Last, as a terminal may take its time.
        env.tell_operator(&format!("error: server {}: {sentence}", self.config.me.0));
    }
}
