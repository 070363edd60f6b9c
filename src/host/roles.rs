//! The adapters of the roles to a server: a role's mailbox, log lines and published state, and what its notifications
//! mean for the other roles and for clients.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::core::ServerCore;
use super::env::{Env, Observation, RoleObservation};
use super::limits::ClientConnection;
use super::mail_queue::Delivery;
use super::mailbox::Mailbox;
use super::trace_lines;
use crate::kv::{ApplyResult, Kv, ReadQuery, VersionedValue};
use crate::net::{PeerMessage, Reply, WhyNotApplied, WhyUnknown};
use crate::paxos::{
    Acceptor, AcceptorNotification, AcceptorRequest, AcceptorTraceEvent, Learner, LearnerNotification, LearnerRequest,
    LearnerTraceEvent, Message, Proposer, ProposerNotification, ProposerRequest, ProposerTraceEvent, Slot,
};
use crate::role::{Input, Role, RoleKind, ServerSet};
use crate::storage::checkpoint::CheckpointMeta;
use crate::trace::{self, Digest, Event, PendingLine, Speaker, TraceContext};
use crate::two_phase_commit::{
    self, Coordinator, CoordinatorNotification, CoordinatorTraceEvent, Participant, ParticipantNotification,
    ParticipantTraceEvent,
};

/// A role that a server hosts.
pub trait Hosted: Role<Message: Into<PeerMessage> + Send, Timer: Send, Request: Send> + Send + 'static {
    /// The kind of the role.
    const NAME: RoleKind;

    /// The role's mailbox in a server.
    fn mailbox<C: ClientConnection>(core: &ServerCore<C>) -> &Arc<Mailbox<Self>>;

    /// The log line of a trace event.
    fn draft(trace_event: &Self::TraceEvent, cluster: ServerSet, context: &TraceContext) -> PendingLine;

    /// Handles a notification of the role to its own server.
    fn notify<E: Env>(
        &self,
        core: &ServerCore<E::Connection>,
        env: &E,
        outcome: Self::Notification,
        context: TraceContext,
    );

    /// Publishes the role's state after a turn: what others may see, and the wake hints.
    fn publish<E: Env>(&self, core: &ServerCore<E::Connection>, env: &E);

    /// Whether an input must be dropped when the disk has no room.
    fn needs_space(_input: &Input<Self>) -> bool {
        false
    }

    /// What a full disk means for the role; None for a role that never fills a disk.
    fn full_disk_effect() -> Option<&'static str> {
        None
    }

    /// Asks the server's other roles to free space. Called when this role's disk becomes full, and each second until it
    /// has room.
    fn request_space<E: Env>(_core: &ServerCore<E::Connection>, _env: &E) {}

    /// Whether another role is about to flush messages to the peers, and this role's messages with them.
    fn defers_flush<C: ClientConnection>(_core: &ServerCore<C>) -> bool {
        false
    }

    /// The reason in the log line of a crash: what is lost and what is kept.
    fn crash_reason(forgets: bool) -> &'static str;

    /// The role is down and its mailbox is closed: answers the requests that wait for it.
    fn on_down<E: Env>(core: &ServerCore<E::Connection>, env: &E);

    /// The observation of this role.
    fn seen(seen: RoleObservation<'_, Self>) -> Observation<'_>;
}

impl Hosted for Proposer {
    const NAME: RoleKind = RoleKind::Proposer;

    fn mailbox<C: ClientConnection>(core: &ServerCore<C>) -> &Arc<Mailbox<Proposer>> {
        &core.proposer
    }

    fn draft(trace_event: &ProposerTraceEvent, _cluster: ServerSet, context: &TraceContext) -> PendingLine {
        trace::proposer(trace_event, context)
    }

    fn notify<E: Env>(
        &self,
        core: &ServerCore<E::Connection>,
        env: &E,
        outcome: ProposerNotification,
        context: TraceContext,
    ) {
        match outcome {
            ProposerNotification::NotApplied { id, why } => {
                core.pending.not_applied(id, WhyNotApplied::Proposer(why), &context);
            }
            ProposerNotification::Recall(ids) => request_of_learner(core, env, LearnerRequest::FindResults(ids)),
        }
    }

    fn publish<E: Env>(&self, core: &ServerCore<E::Connection>, env: &E) {
        core.hints.wants_applied.store(self.wants_applied(), Ordering::Relaxed);
        core.hints.batch_threshold.store(self.batch_threshold(), Ordering::Relaxed);
        core.shared_status.update(|shown| shown.set_leader(self.leader(), || env.now()));
    }

    fn crash_reason(_forgets: bool) -> &'static str {
        "its commands are lost; clients that wait for one get the result: outcome unknown"
    }

    fn on_down<E: Env>(core: &ServerCore<E::Connection>, _env: &E) {
        // The proposer no longer writes to the peers, so the learner must flush its own messages.
        core.hints.wants_applied.store(false, Ordering::Relaxed);
        core.pending.fail_all(WhyUnknown::RoleCrashed(RoleKind::Proposer), None);
    }

    fn seen(seen: RoleObservation<'_, Proposer>) -> Observation<'_> {
        Observation::Proposer(seen)
    }
}

impl Hosted for Acceptor {
    const NAME: RoleKind = RoleKind::Acceptor;

    fn mailbox<C: ClientConnection>(core: &ServerCore<C>) -> &Arc<Mailbox<Acceptor>> {
        &core.acceptor
    }

    fn draft(trace_event: &AcceptorTraceEvent, _cluster: ServerSet, context: &TraceContext) -> PendingLine {
        trace::acceptor(trace_event, context)
    }

    fn notify<E: Env>(
        &self,
        core: &ServerCore<E::Connection>,
        env: &E,
        outcome: AcceptorNotification,
        context: TraceContext,
    ) {
        let AcceptorNotification::Corrupt { slots } = outcome;
        // Dropping is safe if the learner is down or busy: the acceptor reports again with the next checkpoint.
        let _ = ask::<Learner<Kv>, E>(core, env, LearnerRequest::Repair(slots), context, 0);
    }

    fn publish<E: Env>(&self, core: &ServerCore<E::Connection>, _env: &E) {
        core.hints.promised_round.store(self.promised().round, Ordering::Relaxed);
        core.shared_status.update(|shown| {
            shown.promised = self.promised();
            shown.accepted = self.accepted().len() as u64;
            shown.truncated_below = self.truncated_below();
            shown.corrupt = self.corrupt().iter().map(|range| range.last.ahead_of(range.first) + 1).sum();
        });
    }

    /// A promise needs little space, and a server that could not promise would be useless. A value needs space.
    fn needs_space(input: &Input<Acceptor>) -> bool {
        matches!(input, Input::Message { message: Message::Accept { .. }, .. })
    }

    fn full_disk_effect() -> Option<&'static str> {
        Some(
            "no disk space for the next journal file: until there is, the acceptor accepts no new values, but it still \
             promises. Free some disk space",
        )
    }

    /// Slots in a checkpoint need no space in the journal. While no value is accepted, no checkpoint becomes due by
    /// itself.
    fn request_space<E: Env>(core: &ServerCore<E::Connection>, env: &E) {
        request_of_learner(core, env, LearnerRequest::RequestCheckpoint);
    }

    fn crash_reason(forgets: bool) -> &'static str {
        if forgets {
            "UNSAFE: its promises and accepted values will be lost; messages to it are dropped until it restarts"
        } else {
            "its promises and accepted values are on disk; messages to it are dropped until it restarts"
        }
    }

    fn on_down<E: Env>(_core: &ServerCore<E::Connection>, _env: &E) {}

    fn seen(seen: RoleObservation<'_, Acceptor>) -> Observation<'_> {
        Observation::Acceptor(seen)
    }
}

impl Hosted for Learner<Kv> {
    const NAME: RoleKind = RoleKind::Learner;

    fn mailbox<C: ClientConnection>(core: &ServerCore<C>) -> &Arc<Mailbox<Learner<Kv>>> {
        &core.learner
    }

    fn draft(trace_event: &LearnerTraceEvent<ApplyResult>, cluster: ServerSet, context: &TraceContext) -> PendingLine {
        trace::learner(trace_event, cluster, context)
    }

    fn notify<E: Env>(
        &self,
        core: &ServerCore<E::Connection>,
        env: &E,
        outcome: LearnerNotification<Kv>,
        context: TraceContext,
    ) {
        match outcome {
            LearnerNotification::Applied { id, accepted_by, outcome, .. } => {
                if let Some(id) = id {
                    core.pending.applied(id, outcome, accepted_by, &context);
                }
            }
            LearnerNotification::Advanced { applied, ids } => advanced(core, env, applied, ids, context),
            LearnerNotification::Counted => {
                // The proposer reads it at its next tick. A proposer that is down leads no ballot.
                let input = Input::Request(ProposerRequest::Counted);
                let _ =
                    core.enqueue_without_wake::<Proposer, E>(env, Delivery::from_within(context, input, 0), |_| true);
            }
            LearnerNotification::Answer { token, slot, answer } => {
                let VersionedValue { value, version } = answer;
                core.pending.reply_to_read(token, Reply::Value { slot, value, version }, &context);
            }
            LearnerNotification::ReadFailed { token, answered } => {
                let reply = Reply::NotApplied(WhyNotApplied::NoReadQuorum(answered));
                core.pending.reply_to_read(token, reply, &context);
            }
            LearnerNotification::Checkpoint { slot, digest, changes } => {
                let is_taken = core.checkpoints.write(CheckpointMeta { slot, digest }, changes);
                env.wake_checkpointer();
                if !is_taken {
                    request_of_learner(core, env, LearnerRequest::CheckpointDone { slot, is_durable: false });
                }
            }
            LearnerNotification::Durable { slot } => {
                let request = AcceptorRequest::Truncate { below: slot.next() };
                // Dropping is safe if the acceptor is down: a later checkpoint truncates these slots too.
                let _ = core.enqueue_reserved(env, Input::<Acceptor>::Request(request));
            }
            LearnerNotification::SnapshotRequested { to, part } => {
                core.checkpoints.send_chunk(to, part);
                env.wake_checkpointer();
            }
            LearnerNotification::Pinned { peers } => core.checkpoints.pin(peers),
            LearnerNotification::LeftBehind(left) => {
                core.trace_fault(
                    "catch-up",
                    "slow",
                    &trace_lines::left_behind(&left, core.config.sizes.snapshot_bytes),
                );
            }
            LearnerNotification::CheckpointLate { bytes } => {
                core.trace_fault("checkpoint", "slow", &trace_lines::checkpoint_late(bytes, &core.config.retention));
            }
            LearnerNotification::Installed { slot, digest, from } => {
                if !core.trace.steps() {
                    // With step tracing, the role's own trace events include this line.
                    let event = Event::Snapshot { slot, digest: Digest(digest), from: Some(from) };
                    core.trace_line(Speaker::Learner, &context, event);
                }
                core.pending.snapshot_installed();
                // No entry of the skipped slots was announced here. If the proposer is down, no command waits for them.
                let request = ProposerRequest::Installed { slot };
                let _ = core.enqueue_reserved(env, Input::<Proposer>::Request(request));
            }
            LearnerNotification::ResultsFound { slot, id, outcome } => {
                core.pending.applied(id, outcome, ServerSet::NONE, &context);
                let _ = ask::<Proposer, E>(core, env, ProposerRequest::Applied { slot, ids: vec![id] }, context, 0);
            }
            LearnerNotification::Repaired { entries } => {
                let size = entries.iter().map(|entry| entry.value.size()).sum();
                let _ = ask::<Acceptor, E>(core, env, AcceptorRequest::Repair { entries }, context, size);
            }
            LearnerNotification::Fenced { slot, equal, against } => {
                core.fence(env, trace::fenced(slot, equal, against), slot, against);
            }
        }
    }

    fn publish<E: Env>(&self, core: &ServerCore<E::Connection>, _env: &E) {
        let hints = &core.hints;
        hints.applied.store(self.applied().0, Ordering::Relaxed);
        hints.round.store(self.round().unwrap_or_default() as u64, Ordering::Relaxed);
        hints.is_learner_behind.store(self.highest_chosen() > self.applied(), Ordering::Relaxed);
        hints.is_checkpoint_full.store(self.is_full(), Ordering::Relaxed);
        core.shared_status.update(|shown| shown.set_learner(self));
    }

    fn defers_flush<C: ClientConnection>(core: &ServerCore<C>) -> bool {
        core.hints.proposer_flushes.swap(false, Ordering::Relaxed)
    }

    fn crash_reason(_forgets: bool) -> &'static str {
        "slots applied since its last checkpoint are lost from memory; its peers still have them"
    }

    fn on_down<E: Env>(core: &ServerCore<E::Connection>, env: &E) {
        let crashed = WhyUnknown::RoleCrashed(RoleKind::Learner);
        core.pending.fail_all(crashed, Some(WhyNotApplied::RoleDown(RoleKind::Learner)));
        // Dropping is safe if the proposer is down: its next incarnation begins without a learner anyway.
        let _ = core.enqueue_reserved(env, Input::<Proposer>::Request(ProposerRequest::LearnerDown));
    }

    fn seen(seen: RoleObservation<'_, Learner<Kv>>) -> Observation<'_> {
        Observation::Learner(seen)
    }
}

/// The learner has applied more slots. A proposer that waited for them continues at once, and its flush to the peers
/// also sends the learner's messages.
fn advanced<E: Env>(
    core: &ServerCore<E::Connection>,
    env: &E,
    applied: Slot,
    ids: Vec<crate::paxos::CommandId>,
    context: TraceContext,
) {
    let input = Input::Request(ProposerRequest::Applied { slot: applied, ids });
    let wants = || core.hints.wants_applied.load(Ordering::Relaxed);
    // Dropping is safe if the proposer is down or busy: the learner's next PROGRESS names the same slot.
    let is_told =
        core.enqueue_without_wake::<Proposer, E>(env, Delivery::from_within(context, input, 0), |_| !wants()).is_ok();
    core.hints.proposer_flushes.store(is_told && wants(), Ordering::Relaxed);
}

/// Sends a request to the server's own learner, in the reserved room: other inputs cannot crowd it out.
pub(super) fn request_of_learner<E: Env>(
    core: &ServerCore<E::Connection>,
    env: &E,
    request: LearnerRequest<ReadQuery>,
) {
    // Dropping is safe if the learner is down: its next incarnation finds the same facts on the disk.
    let _ = core.enqueue_reserved(env, Input::<Learner<Kv>>::Request(request));
}

/// Sends a request to another role of this server.
fn ask<R: Hosted, E: Env>(
    core: &ServerCore<E::Connection>,
    env: &E,
    request: R::Request,
    context: TraceContext,
    size: usize,
) -> Result<(), super::mail_queue::SendError> {
    core.enqueue::<R, E>(env, Delivery::from_within(context, Input::Request(request), size))
}

impl Hosted for Coordinator {
    const NAME: RoleKind = RoleKind::Coordinator;

    fn mailbox<C: ClientConnection>(core: &ServerCore<C>) -> &Arc<Mailbox<Coordinator>> {
        &core.coordinator
    }

    fn draft(trace_event: &CoordinatorTraceEvent, _cluster: ServerSet, context: &TraceContext) -> PendingLine {
        trace::coordinator(trace_event, context)
    }

    fn notify<E: Env>(
        &self,
        core: &ServerCore<E::Connection>,
        _env: &E,
        outcome: CoordinatorNotification,
        context: TraceContext,
    ) {
        match outcome {
            CoordinatorNotification::Done { id, outcome } => {
                core.pending.applied(id, outcome, ServerSet::NONE, &context);
            }
            CoordinatorNotification::NotApplied { id, why } => {
                core.pending.not_applied(id, WhyNotApplied::Coordinator(why), &context);
            }
        }
    }

    fn publish<E: Env>(&self, core: &ServerCore<E::Connection>, _env: &E) {
        core.shared_status.update(|shown| shown.accepted = self.unacknowledged() as u64);
    }

    fn full_disk_effect() -> Option<&'static str> {
        Some(NO_SPACE_TO_VOTE)
    }

    fn crash_reason(_forgets: bool) -> &'static str {
        "its commits are on disk; undecided transactions count as aborted, and prepared participants wait until it restarts"
    }

    fn on_down<E: Env>(core: &ServerCore<E::Connection>, _env: &E) {
        core.pending.fail_all(WhyUnknown::RoleCrashed(RoleKind::Coordinator), None);
    }

    fn seen(seen: RoleObservation<'_, Coordinator>) -> Observation<'_> {
        Observation::Coordinator(seen)
    }
}

impl Hosted for Participant {
    const NAME: RoleKind = RoleKind::Participant;

    fn mailbox<C: ClientConnection>(core: &ServerCore<C>) -> &Arc<Mailbox<Participant>> {
        &core.participant
    }

    fn draft(trace_event: &ParticipantTraceEvent, _cluster: ServerSet, context: &TraceContext) -> PendingLine {
        trace::participant(trace_event, context)
    }

    fn notify<E: Env>(
        &self,
        core: &ServerCore<E::Connection>,
        _env: &E,
        outcome: ParticipantNotification,
        context: TraceContext,
    ) {
        let (token, reply) = reply_of(outcome);
        core.pending.reply_to_read(token, reply, &context);
    }

    fn publish<E: Env>(&self, core: &ServerCore<E::Connection>, _env: &E) {
        core.shared_status.update(|shown| shown.set_participant(self));
    }

    /// A decision needs little space, and without it the key would stay locked. A vote needs space for its command.
    fn needs_space(input: &Input<Participant>) -> bool {
        matches!(input, Input::Message { message: two_phase_commit::CommitMessage::VoteRequest { .. }, .. })
    }

    fn full_disk_effect() -> Option<&'static str> {
        Some(NO_SPACE_TO_VOTE)
    }

    fn crash_reason(_forgets: bool) -> &'static str {
        "its votes and commits are on disk; until it restarts, no write can get all votes"
    }

    fn on_down<E: Env>(core: &ServerCore<E::Connection>, _env: &E) {
        // Writes keep waiting: the coordinator still knows the outcomes of its commands.
        core.pending.fail_reads(WhyNotApplied::RoleDown(RoleKind::Participant));
    }

    fn seen(seen: RoleObservation<'_, Participant>) -> Observation<'_> {
        Observation::Participant(seen)
    }
}

/// Both journals of two-phase commit are on one disk: while either has no room, no command is accepted.
const NO_SPACE_TO_VOTE: &str =
    "no disk space for the next journal file: no votes until there is; decisions continue. Free some disk space";

/// The token and the reply of a read. Two-phase commit has no log: the reply's slot is the number of transactions
/// committed before the read.
pub fn reply_of(outcome: ParticipantNotification) -> (u64, Reply) {
    match outcome {
        ParticipantNotification::Answer { token, applied, answer } => {
            let VersionedValue { value, version } = answer;
            (token, Reply::Value { slot: Slot(applied), value, version })
        }
        ParticipantNotification::ReadFailed { token, by } => (token, Reply::NotApplied(WhyNotApplied::KeyLocked(by))),
    }
}

#[cfg(test)]
#[path = "roles_tests.rs"]
mod tests;
