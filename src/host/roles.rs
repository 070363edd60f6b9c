//! What each role is in a server: its mailbox, its lines, what the server must know of its state, and what its
//! notifications mean for the other roles and for clients.

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
    /// Which role.
    const NAME: RoleKind;

    /// Its mailbox in a server.
    fn mailbox<C: ClientConnection>(core: &ServerCore<C>) -> &Arc<Mailbox<Self>>;

    /// The line of a fact.
    fn draft(fact: &Self::TraceEvent, cluster: ServerSet, context: &TraceContext) -> PendingLine;

    /// The role tells its server something.
    fn notify<E: Env>(
        &self,
        core: &ServerCore<E::Connection>,
        env: &E,
        outcome: Self::Notification,
        context: TraceContext,
    );

    /// A turn is over: what of the role's state others may see, and what it need not be woken for.
    fn publish<E: Env>(&self, core: &ServerCore<E::Connection>, env: &E);

    /// Whether an input must be dropped when the disk has no room.
    fn needs_space(_input: &Input<Self>) -> bool {
        false
    }

    /// What a full disk means for the role; None for one that never fills a disk.
    fn without_room() -> Option<&'static str> {
        None
    }

    /// Its disk has had no room for a while: what others of this server can do about it. Called each second.
    fn wants_room<E: Env>(_core: &ServerCore<E::Connection>, _env: &E) {}

    /// Whether another role is about to write to the peers, and takes along what this one has said.
    fn defers_flush<C: ClientConnection>(_core: &ServerCore<C>) -> bool {
        false
    }

    /// What its death means, for people.
    fn epitaph(forgets: bool) -> &'static str;

    /// The role has died, and its mailbox is closed: those who wait for it are told.
    fn mourn<E: Env>(core: &ServerCore<E::Connection>, env: &E);

    /// What can be watched of it.
    fn seen(seen: RoleObservation<'_, Self>) -> Observation<'_>;
}

impl Hosted for Proposer {
    const NAME: RoleKind = RoleKind::Proposer;

    fn mailbox<C: ClientConnection>(core: &ServerCore<C>) -> &Arc<Mailbox<Proposer>> {
        &core.proposer
    }

    fn draft(fact: &ProposerTraceEvent, _cluster: ServerSet, context: &TraceContext) -> PendingLine {
        trace::proposer(fact, context)
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
            ProposerNotification::Recall(ids) => tell_learner(core, env, LearnerRequest::FindResults(ids)),
        }
    }

    fn publish<E: Env>(&self, core: &ServerCore<E::Connection>, env: &E) {
        core.hints.wants_applied.store(self.wants_applied(), Ordering::Relaxed);
        core.hints.batch_threshold.store(self.batch_threshold(), Ordering::Relaxed);
        core.board.update(|shown| shown.set_leader(self.leader(), || env.now()));
    }

    fn epitaph(_forgets: bool) -> &'static str {
        "its commands are forgotten; whoever waits for one is told that the outcome is unknown"
    }

    fn mourn<E: Env>(core: &ServerCore<E::Connection>, _env: &E) {
        // It writes nothing to the peers any more, so the learner must not leave that to it.
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

    fn draft(fact: &AcceptorTraceEvent, _cluster: ServerSet, context: &TraceContext) -> PendingLine {
        trace::acceptor(fact, context)
    }

    fn notify<E: Env>(
        &self,
        core: &ServerCore<E::Connection>,
        env: &E,
        outcome: AcceptorNotification,
        context: TraceContext,
    ) {
        let AcceptorNotification::Corrupt { slots } = outcome;
        // Lost if the learner is down or busy: it hears again with the next checkpoint.
        let _ = ask::<Learner<Kv>, E>(core, env, LearnerRequest::Repair(slots), context, 0);
    }

    fn publish<E: Env>(&self, core: &ServerCore<E::Connection>, _env: &E) {
        core.board.update(|shown| {
            shown.promised = self.promised();
            shown.accepted = self.accepted().len() as u64;
            shown.truncated_below = self.truncated_below();
            shown.damaged = self.damaged().iter().map(|range| range.last.ahead_of(range.first) + 1).sum();
        });
    }

    /// A promise needs little, and a server that could not promise would be as good as dead. A value needs room.
    fn needs_space(input: &Input<Acceptor>) -> bool {
        matches!(input, Input::Message { message: Message::Accept { .. }, .. })
    }

    fn without_room() -> Option<&'static str> {
        Some(
            "there is no room for the next file of the journal: new values are refused until there is, promises go on. \
             Free some space",
        )
    }

    /// Slots that are in a checkpoint need no room in the journal. While no value is accepted none becomes due by
    /// itself.
    fn wants_room<E: Env>(core: &ServerCore<E::Connection>, env: &E) {
        tell_learner(core, env, LearnerRequest::RequestCheckpoint);
    }

    fn epitaph(forgets: bool) -> &'static str {
        if forgets {
            "UNSAFE: its promises and accepted values will be forgotten; messages to it are dropped until it is back"
        } else {
            "its promises and accepted values are on disk; messages to it are dropped until it is back"
        }
    }

    fn mourn<E: Env>(_core: &ServerCore<E::Connection>, _env: &E) {}

    fn seen(seen: RoleObservation<'_, Acceptor>) -> Observation<'_> {
        Observation::Acceptor(seen)
    }
}

impl Hosted for Learner<Kv> {
    const NAME: RoleKind = RoleKind::Learner;

    fn mailbox<C: ClientConnection>(core: &ServerCore<C>) -> &Arc<Mailbox<Learner<Kv>>> {
        &core.learner
    }

    fn draft(fact: &LearnerTraceEvent<ApplyResult>, cluster: ServerSet, context: &TraceContext) -> PendingLine {
        trace::learner(fact, cluster, context)
    }

    fn notify<E: Env>(
        &self,
        core: &ServerCore<E::Connection>,
        env: &E,
        outcome: LearnerNotification<Kv>,
        context: TraceContext,
    ) {
        match outcome {
            LearnerNotification::Applied { id, outcome, .. } => {
                if let Some(id) = id {
                    core.pending.applied(id, outcome, &context);
                }
            }
            LearnerNotification::Advanced { applied, ids } => advanced(core, env, applied, ids, context),
            LearnerNotification::Counted => {
                // The proposer looks at it when its next pulse comes. If it is down, it leads nothing.
                let input = Input::Request(ProposerRequest::Counted);
                let _ =
                    core.enqueue_without_wake::<Proposer, E>(env, Delivery::from_within(context, input, 0), |_| true);
            }
            LearnerNotification::Answer { token, slot, answer } => {
                let VersionedValue { value, version } = answer;
                core.pending.tell_read(token, Reply::Value { slot, value, version }, &context);
            }
            LearnerNotification::ReadFailed { token, answered } => {
                let reply = Reply::NotApplied(WhyNotApplied::NoReadQuorum(answered));
                core.pending.tell_read(token, reply, &context);
            }
            LearnerNotification::Checkpoint { slot, digest, changes } => {
                let is_taken = core.checkpoints.write(CheckpointMeta { slot, digest }, changes);
                env.wake_checkpointer();
                if !is_taken {
                    tell_learner(core, env, LearnerRequest::CheckpointDone { slot, is_durable: false });
                }
            }
            LearnerNotification::Durable { slot } => {
                let request = AcceptorRequest::Truncate { below: slot.next() };
                // Lost if the acceptor is down: the next checkpoint comes, and one below it is none too many.
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
                    // With steps it is one of them, and stands among them.
                    let event = Event::Snapshot { slot, digest: Digest(digest), from: Some(from) };
                    core.trace_line(Speaker::Learner, &context, event);
                }
                core.pending.snapshot_installed();
                // What was applied in between was said by nobody here. If the proposer is down, nobody waits.
                let request = ProposerRequest::Installed { slot };
                let _ = core.enqueue_reserved(env, Input::<Proposer>::Request(request));
            }
            LearnerNotification::ResultsFound { slot, id, outcome } => {
                core.pending.applied(id, outcome, &context);
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
        core.board.update(|shown| shown.set_learner(self));
    }

    fn defers_flush<C: ClientConnection>(core: &ServerCore<C>) -> bool {
        core.hints.proposer_flushes.swap(false, Ordering::Relaxed)
    }

    fn epitaph(_forgets: bool) -> &'static str {
        "what it applied since its last checkpoint is gone with its memory; its peers have it"
    }

    fn mourn<E: Env>(core: &ServerCore<E::Connection>, env: &E) {
        let died = WhyUnknown::RoleCrashed(RoleKind::Learner);
        core.pending.fail_all(died, Some(WhyNotApplied::RoleDown(RoleKind::Learner)));
        // If the proposer is down too it begins its next life without a learner anyway.
        let _ = core.enqueue_reserved(env, Input::<Proposer>::Request(ProposerRequest::LearnerDown));
    }

    fn seen(seen: RoleObservation<'_, Learner<Kv>>) -> Observation<'_> {
        Observation::Learner(seen)
    }
}

/// The learner has applied more: the proposer goes on at once if it has waited for that, and what it then writes to the
/// peers takes along what the learner has said.
fn advanced<E: Env>(
    core: &ServerCore<E::Connection>,
    env: &E,
    applied: Slot,
    ids: Vec<crate::paxos::CommandId>,
    context: TraceContext,
) {
    let input = Input::Request(ProposerRequest::Applied { slot: applied, ids });
    let wants = || core.hints.wants_applied.load(Ordering::Relaxed);
    // Lost if the proposer is down or busy: the learner's next beat tells it the same slot.
    let is_told =
        core.enqueue_without_wake::<Proposer, E>(env, Delivery::from_within(context, input, 0), |_| !wants()).is_ok();
    core.hints.proposer_flushes.store(is_told && wants(), Ordering::Relaxed);
}

/// Says something to the own learner that must not be lost because others fill its mailbox.
pub(super) fn tell_learner<E: Env>(core: &ServerCore<E::Connection>, env: &E, request: LearnerRequest<ReadQuery>) {
    // If it is down, its next life finds on the disk what it would have heard.
    let _ = core.enqueue_reserved(env, Input::<Learner<Kv>>::Request(request));
}

/// Asks another role of this server for something.
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

    fn draft(fact: &CoordinatorTraceEvent, _cluster: ServerSet, context: &TraceContext) -> PendingLine {
        trace::coordinator(fact, context)
    }

    fn notify<E: Env>(
        &self,
        core: &ServerCore<E::Connection>,
        _env: &E,
        outcome: CoordinatorNotification,
        context: TraceContext,
    ) {
        match outcome {
            CoordinatorNotification::Done { id, outcome } => core.pending.applied(id, outcome, &context),
            CoordinatorNotification::NotApplied { id, why } => {
                core.pending.not_applied(id, WhyNotApplied::Coordinator(why), &context);
            }
        }
    }

    fn publish<E: Env>(&self, core: &ServerCore<E::Connection>, _env: &E) {
        core.board.update(|shown| shown.accepted = self.unacknowledged() as u64);
    }

    fn without_room() -> Option<&'static str> {
        Some(NO_ROOM_TO_VOTE)
    }

    fn epitaph(_forgets: bool) -> &'static str {
        "its commits are on disk; what it had not decided counts as aborted, and who is prepared for it has to wait"
    }

    fn mourn<E: Env>(core: &ServerCore<E::Connection>, _env: &E) {
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

    fn draft(fact: &ParticipantTraceEvent, _cluster: ServerSet, context: &TraceContext) -> PendingLine {
        trace::participant(fact, context)
    }

    fn notify<E: Env>(
        &self,
        core: &ServerCore<E::Connection>,
        _env: &E,
        outcome: ParticipantNotification,
        context: TraceContext,
    ) {
        let (token, reply) = reply_of(outcome);
        core.pending.tell_read(token, reply, &context);
    }

    fn publish<E: Env>(&self, core: &ServerCore<E::Connection>, _env: &E) {
        core.board.update(|shown| shown.set_participant(self));
    }

    /// A decision needs little, and without it the key would stay locked. A vote needs room for its command.
    fn needs_space(input: &Input<Participant>) -> bool {
        matches!(input, Input::Message { message: two_phase_commit::CommitMessage::VoteRequest { .. }, .. })
    }

    fn without_room() -> Option<&'static str> {
        Some(NO_ROOM_TO_VOTE)
    }

    fn epitaph(_forgets: bool) -> &'static str {
        "its votes and all that it has done are on disk; until it is back no write can have all votes"
    }

    fn mourn<E: Env>(core: &ServerCore<E::Connection>, _env: &E) {
        // The coordinator still knows what its commands come to.
        core.pending.fail_reads(WhyNotApplied::RoleDown(RoleKind::Participant));
    }

    fn seen(seen: RoleObservation<'_, Participant>) -> Observation<'_> {
        Observation::Participant(seen)
    }
}

/// Both journals of two-phase commit are on one disk: while either has no room, no command is taken.
const NO_ROOM_TO_VOTE: &str =
    "there is no room for the next file of a journal: no vote until there is, decisions go on. Free some space";

/// What whoever asked for a read is told. There is no log: its place is how many transactions were committed before it.
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
