//! The proposer: gets commands chosen.
//!
//! A proposer makes *attempts* (`attempt.rs`). An attempt prepares a new ballot (`rounds.rs`) for all slots from the
//! first that the proposer does not know to be chosen (`progress.rs`). It adopts the safe values that the promises
//! report, fills the holes with no-ops, and proposes commands (`commands.rs`) after them (`phase2.rs`). In Basic Paxos
//! the attempt is over when the proposer's learner has applied every slot of it. In Multi-Paxos the proposer keeps the
//! ballot and leads (`election.rs`), and the others forward their commands to it (`forwarding.rs`). (Lamport, *Paxos
//! Made Simple*, 2001, sections 2.2 and 3.)
//!
//! Each of these files has one struct. It never calls the proposer; it returns what the proposer must do. This file
//! takes the inputs, holds the current phase, and carries out what the parts return.
//!
//! A command stays with its proposer until its own learner has applied it, whichever proposer got it chosen. A proposer
//! that has never put a command into an ACCEPT or a FORWARD may report "certainly not applied" and drop it. Once it was
//! sent, it may be chosen at any later time. A proposer also proposes commands of others: adopted from a promise, or
//! forwarded to it. For those, only the proposer that got them from a client reports an outcome; it has sent them, so
//! it never reports "not applied".

mod attempt;
mod commands;
mod election;
mod forwarding;
mod pace;
mod phase2;
mod progress;
mod rounds;
#[cfg(test)]
mod tests;
mod types;

pub use self::election::{LeaderEvidence, in_place_of_proposer};
pub use self::phase2::{IN_FLIGHT_MAX, IN_FLIGHT_MAX_BYTES};
pub use self::types::{
    NotApplied, ProposerNotification, ProposerRecord, ProposerRequest, ProposerTimer, ProposerTraceEvent, RetryReason,
    StepDownReason,
};

use self::attempt::Attempt;
use self::commands::{ForwardedQueue, OwnCommands};
use self::election::{Election, LeaderPosition};
use self::forwarding::Forwarding;
use self::pace::Pace;
use self::phase2::{InFlightLimits, Phase2};
use self::progress::PeerProgressTable;
use self::rounds::Rounds;
use self::types::{ATTEMPT_MS, FAILURES_MAX, RESEND_MS, SLOW_ROUND_MS, STALLS_MAX};
use super::promises::Promises;
use super::{Ballot, Command, CommandId, Message, Page, Policy, Quorums, Slot, Value};
use crate::role::{Input, Output, Role, RoleKind, ServerId, ServerSet};

/// A command that was in no ACCEPT and no FORWARD is given up after this many ticks of 100 ms: before its client's try
/// ends.
const COMMAND_TIMEOUT_TICKS: u64 = 8;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// No attempt: there is no work, the learner is down, another proposer leads, or a pre-vote is in progress.
    Idle,
    /// The random wait between two attempts.
    BackingOff,
    /// The learner catches up before the proposer prepares.
    CatchingUp,
    /// Phase 1: PREPARE is sent, promises arrive.
    Preparing(Attempt, Promises),
    /// Phase 2: a quorum has promised, ACCEPTs go out.
    Proposing(Box<Phase2>),
}

/// What a proposer is doing, for observers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposerPhase {
    /// It has no attempt.
    Idle,
    /// It waits between two attempts.
    BackingOff,
    /// It waits for its learner to catch up.
    CatchingUp,
    /// Phase 1 of this ballot.
    Preparing {
        /// The ballot.
        ballot: Ballot,
        /// The acceptors that have promised it.
        promised: ServerSet,
        /// The acceptors that have refused it.
        refused: ServerSet,
    },
    /// Phase 2 of this ballot.
    Proposing {
        /// The ballot.
        ballot: Ballot,
        /// The acceptors that have refused it.
        refused: ServerSet,
        /// Number of slots that were proposed in and that this server's learner has not applied.
        in_flight: usize,
    },
}

/// The proposer of one server. See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposer {
    me: ServerId,
    quorums: Quorums,
    policy: Policy,
    rounds: Rounds,
    progress: PeerProgressTable,
    /// Commands of this server's clients that its learner has not applied yet.
    commands: OwnCommands,
    /// As a leader: forwarded commands that are not proposed yet.
    forwarded: ForwardedQueue,
    /// Every slot up to this one must be chosen, because a read waits for it.
    fill: Option<Slot>,
    phase: Phase,
    /// Number of attempts lost in a row.
    failures: u32,
    /// Number of attempts lost since this server last applied anything, whichever proposer got it chosen.
    stalls: u32,
    /// The acceptors that answered the last attempt.
    responders: ServerSet,
    /// Ticks of 100 ms in this incarnation.
    ticks: u64,
    election: Election,
    forwarding: Forwarding,
    /// How long rounds take here.
    pace: Pace,
    /// Limits on what is in flight at one ballot.
    window: InFlightLimits,
}

impl Proposer {
    /// A proposer without commands and without a ballot.
    pub fn new(me: ServerId, quorums: Quorums, policy: Policy) -> Proposer {
        Proposer {
            me,
            quorums,
            policy,
            rounds: Rounds::new(me),
            progress: PeerProgressTable::default(),
            commands: OwnCommands::default(),
            forwarded: ForwardedQueue::default(),
            fill: None,
            phase: Phase::Idle,
            failures: 0,
            stalls: 0,
            responders: ServerSet::NONE,
            ticks: 0,
            election: Election::new(me, quorums),
            forwarding: Forwarding::default(),
            pace: Pace::default(),
            window: InFlightLimits { slots: phase2::IN_FLIGHT_MAX, bytes: phase2::IN_FLIGHT_MAX_BYTES },
        }
    }

    /// Sets the maximum number of slots in flight at one ballot, and about how many bytes they may have. With a small
    /// window, a simulation of a few clients fills it too.
    pub fn with_window(self, slots: u64, bytes: usize) -> Proposer {
        Proposer { window: InFlightLimits { slots, bytes }, ..self }
    }

    /// What the proposer is doing.
    pub fn phase(&self) -> ProposerPhase {
        match &self.phase {
            Phase::Idle => ProposerPhase::Idle,
            Phase::BackingOff => ProposerPhase::BackingOff,
            Phase::CatchingUp => ProposerPhase::CatchingUp,
            Phase::Preparing(attempt, promises) => ProposerPhase::Preparing {
                ballot: attempt.ballot(),
                promised: promises.promised(),
                refused: attempt.refusals(),
            },
            Phase::Proposing(work) => ProposerPhase::Proposing {
                ballot: work.attempt().ballot(),
                refused: work.attempt().refusals(),
                in_flight: work.in_flight(),
            },
        }
    }

    /// In phase 1: the value that the promises up to now require in this slot, with the ballot of its acceptance.
    pub fn reported(&self, slot: Slot) -> Option<&(Ballot, Value)> {
        if let Phase::Preparing(_, promises) = &self.phase { promises.reported(slot) } else { None }
    }

    /// The round of the next ballot.
    pub fn next_round(&self) -> u64 {
        self.rounds.next()
    }

    /// The ballot at which this proposer leads, if it does.
    pub fn leads(&self) -> Option<Ballot> {
        self.leading().map(|work| work.attempt().ballot())
    }

    /// The leader as this proposer knows it: itself, or one of which a heartbeat or leader hint arrived lately.
    pub fn leader(&self) -> Option<(Ballot, LeaderEvidence)> {
        match self.leading() {
            Some(work) => Some((work.attempt().ballot(), LeaderEvidence::Leads { quorum: work.quorum() })),
            None => self.election.leader(),
        }
    }

    /// The ballot of the current attempt.
    pub(crate) fn active_ballot(&self) -> Option<Ballot> {
        self.attempt().map(Attempt::ballot)
    }

    fn attempt(&self) -> Option<&Attempt> {
        match &self.phase {
            Phase::Preparing(attempt, _) => Some(attempt),
            Phase::Proposing(work) => Some(work.attempt()),
            Phase::Idle | Phase::BackingOff | Phase::CatchingUp => None,
        }
    }

    /// Phase 2 of the current tenure, if this proposer leads.
    fn leading(&self) -> Option<&Phase2> {
        match &self.phase {
            Phase::Proposing(work) if self.policy.keeps_ballot() => Some(work),
            _ => None,
        }
    }

    /// Whether the proposer has work to do when its learner has applied more. If not, the notification may wait.
    pub fn wants_applied(&self) -> bool {
        match &self.phase {
            Phase::Proposing(work) => work.in_flight() > 0 || !work.is_settled(),
            Phase::CatchingUp => true,
            // A follower forwards waiting commands as soon as applied ones make room.
            Phase::Idle => self.progress.applied().is_none() || self.commands.unassigned() > 0,
            Phase::BackingOff | Phase::Preparing(..) => self.progress.applied().is_none(),
        }
    }

    /// Bytes of the values in slots in flight, and of the values read ahead from promises.
    pub fn held_bytes(&self) -> (usize, usize) {
        match &self.phase {
            Phase::Preparing(_, promises) => (0, promises.bytes()),
            Phase::Proposing(work) => work.bytes(),
            Phase::Idle | Phase::BackingOff | Phase::CatchingUp => (0, 0),
        }
    }

    /// Number of further commands that must be queued before the proposer would send another ACCEPT. The server uses it
    /// to avoid waking the thread for nothing.
    pub fn batch_threshold(&self) -> usize {
        match &self.phase {
            Phase::Proposing(work) => {
                work.batch_threshold().saturating_sub(self.commands.unassigned() + self.forwarded.len())
            }
            _ => 1,
        }
    }

    /// A client's command. A repeated request joins the command that is already here.
    fn handle_propose(&mut self, command: Command, out: &mut Output<Self>) {
        let id = command.id;
        if !self.commands.refresh(id, self.ticks) {
            // The command may be in flight already: adopted, or forwarded by another server.
            let is_open = matches!(&self.phase, Phase::Proposing(work) if work.is_in_flight(id));
            if !self.commands.push(command, self.ticks, is_open) {
                return out.notify(ProposerNotification::NotApplied { id, why: NotApplied::Busy });
            }
        }
        // In Multi-Paxos `end_batch` proposes the command, or forwards it.
        self.begin(out);
    }

    /// Basic Paxos: starts an attempt if there is work, the learner is up, and no attempt is in progress.
    fn begin(&mut self, out: &mut Output<Self>) {
        self.start_attempt(false, out);
    }

    /// As [`Proposer::begin`]; `waited` if the learner already had its time to catch up.
    fn start_attempt(&mut self, waited: bool, out: &mut Output<Self>) {
        if self.policy.keeps_ballot() || self.phase != Phase::Idle || self.progress.applied().is_none() {
            return;
        }
        let first = self.progress.first_unchosen();
        self.fill = self.fill.filter(|slot| *slot >= first);
        if self.commands.is_empty() && self.fill.is_none() {
            return;
        }
        if self.progress.is_behind(self.ticks) && !waited {
            return self.let_learner_catch_up(out);
        }
        self.prepare(false, out);
    }

    /// Gives the learner time to catch up: the missing slots are chosen, and proposing in them again would be wasted.
    fn let_learner_catch_up(&mut self, out: &mut Output<Self>) {
        self.phase = Phase::CatchingUp;
        out.arm(ProposerTimer::CatchUp);
    }

    /// The learner has caught up, or its time is over.
    fn caught_up(&mut self, waited: bool, out: &mut Output<Self>) {
        self.phase = Phase::Idle;
        if self.policy.keeps_ballot() {
            self.send_pre_vote(out);
        } else {
            self.start_attempt(waited, out);
        }
    }

    /// Phase 1: asks all acceptors to promise a ballot that was never used.
    fn prepare(&mut self, is_again: bool, out: &mut Output<Self>) {
        // PMS 2.5: no ballot is used twice, not even after a crash. `rounds.rs` reserves rounds durably for that.
        let Some(ballot) = self.rounds.next_ballot(out) else {
            // No ballot is left for this proposer. Its commands time out one by one, and others may still lead.
            self.phase = Phase::Idle;
            return;
        };
        let (from, to_lead) = (self.progress.first_unchosen(), self.policy.keeps_ballot());
        // The command is for the log line only: PREPARE carries none.
        let (to, fill) = (self.quorums.servers(), self.fill.filter(|_| !to_lead));
        let command = self.commands.oldest().filter(|_| fill.is_none() && !to_lead).cloned();
        out.emit_step(|| ProposerTraceEvent::PrepareSent { ballot, from, to, to_lead, command });
        out.send(to, Message::Prepare { ballot, from });
        self.pace.prepare(ballot, self.heartbeat_ticks());
        out.arm(self.attempt_timer(ballot));
        self.phase =
            Phase::Preparing(Attempt::new(ballot, from, fill, is_again), Promises::new(from, self.window.bytes));
    }

    /// The time without progress after which an attempt fails: longer after failures, and where rounds take long.
    fn attempt_timer(&self, ballot: Ballot) -> ProposerTimer {
        let doublings = self.failures.min(FAILURES_MAX).max(self.pace.doublings_of_attempt(ATTEMPT_MS));
        ProposerTimer::Attempt { ballot, doublings }
    }

    /// PROMISE: a page of an acceptor's answer. An acceptor *settles* a slot by answering for it definitely, with a
    /// value or with "nothing accepted". Phase 2 begins once a quorum settles the first slot; more pages may follow.
    fn handle_promise(&mut self, acceptor: ServerId, ballot: Ballot, page: Page, out: &mut Output<Self>) {
        self.progress.note_truncated(page.truncated_below, self.ticks);
        // A promise for an earlier ballot is no promise for this one, and its report may be out of date.
        if self.active_ballot() != Some(ballot) || !self.quorums.servers().contains(acceptor) {
            return self.pace.answered_late(ballot, self.heartbeat_ticks());
        }
        let (timer, first_open, truncated_below) =
            (self.attempt_timer(ballot), self.progress.first_unchosen(), page.truncated_below);
        match &mut self.phase {
            Phase::Preparing(attempt, promises) => {
                attempt.note_answer(acceptor);
                // The promises keep the value of the highest ballot for each slot, which is the safe value (PMS P2c).
                promises.add(acceptor, page, attempt.from(), &self.quorums);
                out.arm(timer);
                // Slots that the learner has applied, or that an acceptor has truncated, are chosen: nothing need be
                // proposed in them.
                let first = attempt.from().max(first_open).max(promises.truncated_below());
                // PMS P2c needs a quorum that has answered for the slot. A majority that has promised is not enough
                // while its pages do not cover the slot.
                if self.quorums.is_phase1_quorum(promises.settle(first)) {
                    self.begin_proposing(first, out);
                }
            }
            Phase::Proposing(work) => {
                // A later page may settle the next slots, and this ballot may then propose in them.
                if work.hear(acceptor, page) {
                    work.close_below(truncated_below, &mut self.commands);
                    self.election.note_progress();
                    if !self.policy.keeps_ballot() {
                        out.arm(timer);
                    }
                    self.propose_next(out);
                }
            }
            Phase::Idle | Phase::BackingOff | Phase::CatchingUp => {}
        }
        self.ask_for_pages(out);
    }

    /// A quorum has promised and settles `first`, the first slot to propose in.
    fn begin_proposing(&mut self, first: Slot, out: &mut Output<Self>) {
        let Phase::Preparing(attempt, promises) = &self.phase else { return };
        if self.policy.keeps_ballot() && !attempt.refusals().is_empty() && !attempt.is_again() {
            // The acceptor that refused PREPARE would refuse the first ACCEPT too, and a leader steps down at the first
            // NACK (see `handle_nack`). So prepare once more, above the ballot that it has promised.
            return self.prepare(true, out);
        }
        let (attempt, promises) = (attempt.clone(), promises.clone());
        self.pace.promised(self.heartbeat_ticks());
        let (from, ballot) = (attempt.from(), attempt.ballot());
        let resend_tries = self.pace.doublings(RESEND_MS);
        let work = Phase2::new(attempt, promises, first, self.quorums, self.policy, (self.window, resend_tries));
        let quorum = work.quorum();
        self.phase = Phase::Proposing(Box::new(work));
        if self.policy.keeps_ballot() {
            self.lead(from, ballot, quorum, out);
        }
        self.propose_next(out);
    }

    /// Requests the next pages of promises from acceptors, as far as there is room for them.
    fn ask_for_pages(&mut self, out: &mut Output<Self>) {
        let now = self.ticks;
        let (ballot, pages) = match &mut self.phase {
            // Skip slots only if a promise of this ballot says that they are truncated. The same news from elsewhere
            // may become false, when that checkpoint is lost.
            Phase::Preparing(attempt, promises) => {
                let next = attempt.from().max(promises.truncated_below());
                (attempt.ballot(), promises.ask(now, next, &self.quorums))
            }
            Phase::Proposing(work) => (work.attempt().ballot(), work.ask(now)),
            Phase::Idle | Phase::BackingOff | Phase::CatchingUp => return,
        };
        for (acceptor, from) in pages {
            out.send(ServerSet::only(acceptor), Message::Prepare { ballot, from });
        }
    }

    /// A quorum has promised: the proposer leads until it loses the ballot.
    fn lead(&mut self, from: Slot, ballot: Ballot, quorum: ServerSet, out: &mut Output<Self>) {
        self.failures = 0;
        // This proposer now proposes what it forwarded to another leader, unless it has adopted the command from a
        // promise.
        self.commands.release_all();
        self.forwarding.end();
        out.emit_always(ProposerTraceEvent::Led { from, ballot, quorum });
        self.election.begin_tenure(ballot, out);
    }

    /// The time in heartbeat ticks of 30 ms. Basic Paxos has no heartbeat timer, so its time is derived from the ticks
    /// of 100 ms.
    fn heartbeat_ticks(&self) -> u64 {
        if self.policy.keeps_ballot() { self.election.ticks() } else { self.ticks * 100 / 30 }
    }

    /// Proposes what can be proposed now, and ends the attempt if it has done its work.
    fn propose_next(&mut self, out: &mut Output<Self>) {
        let now = self.heartbeat_ticks();
        let Phase::Proposing(work) = &mut self.phase else { return };
        if work.propose_next(now, &mut self.commands, &mut self.forwarded, out) {
            self.election.note_progress();
        }
        self.finish_if_done(out);
    }

    /// Ends an attempt of Basic Paxos whose work is done.
    fn finish_if_done(&mut self, out: &mut Output<Self>) {
        if let Phase::Proposing(work) = &self.phase
            && !self.policy.keeps_ballot()
            && work.is_done()
        {
            self.responders = work.attempt().answered();
            self.failures = 0;
            self.phase = Phase::Idle;
            self.commands.release_all();
            self.begin(out);
        }
    }

    /// PROGRESS: a learner's applied slot. The message of this server's own learner also shows that it is up.
    fn handle_progress(&mut self, server: ServerId, applied: Slot, out: &mut Output<Self>) {
        if server == self.me {
            self.handle_applied(applied, &[], out);
        } else if self.quorums.servers().contains(server) {
            self.progress.peer_applied(server, applied, self.ticks);
        }
    }

    /// This server's learner has applied everything up to `slot`, and these commands just now: their outcomes are on
    /// the way to the clients.
    fn handle_applied(&mut self, slot: Slot, ids: &[CommandId], out: &mut Output<Self>) {
        let is_more = self.progress.learner_applied(slot);
        for id in ids {
            self.commands.remove(*id);
            self.forwarded.remove(*id);
        }
        if is_more {
            self.stalls = 0;
            self.retire_applied(slot, out);
            self.ask_for_pages(out);
        }
        if self.phase == Phase::CatchingUp && !self.progress.is_behind(self.ticks) {
            self.caught_up(false, out);
        }
        self.begin(out);
    }

    /// This server's learner has installed a snapshot that may hold outcomes of commands that wait here. If the
    /// proposer did not ask for the outcomes, it would propose each command again. Each would cost a slot and a value
    /// on the link, only to be found a duplicate.
    fn handle_installed(&mut self, slot: Slot, out: &mut Output<Self>) {
        if !self.commands.is_empty() {
            out.notify(ProposerNotification::Recall(self.commands.ids()));
        }
        self.handle_applied(slot, &[], out);
    }

    /// This server's learner has applied all slots up to this one.
    fn retire_applied(&mut self, slot: Slot, out: &mut Output<Self>) {
        let now = self.heartbeat_ticks();
        let Phase::Proposing(work) = &mut self.phase else { return };
        let proposed_at = work.close_below(slot.next(), &mut self.commands);
        if let Some(at) = proposed_at {
            self.pace.applied(now - at);
        }
        self.election.note_progress();
        if !self.policy.keeps_ballot() {
            if work.in_flight() > 0 {
                let ballot = work.attempt().ballot();
                out.arm(self.attempt_timer(ballot));
            }
            self.propose_next(out);
        }
    }

    /// TRUNCATED: the slots below were chosen long ago. The proposer stops proposing in them. A command that it had
    /// proposed in one of them gets a slot after them. Preparing the same slots again would get TRUNCATED again,
    /// forever.
    fn handle_truncated(&mut self, ballot: Ballot, below: Slot, out: &mut Output<Self>) {
        self.progress.note_truncated(below, self.ticks);
        if let Phase::Proposing(work) = &mut self.phase
            && work.attempt().ballot() == ballot
        {
            work.close_below(below, &mut self.commands);
            self.finish_if_done(out);
        }
    }

    /// NACK: an acceptor has promised a rival's ballot, so the next round must be above it.
    fn handle_nack(&mut self, acceptor: ServerId, message: Message, out: &mut Output<Self>) {
        let Message::Nack { ballot, promised, .. } = message else { return };
        // Even a NACK for an old ballot shows which rounds are useless now.
        self.rounds.go_above(promised.round);
        let is_ours = self.active_ballot() == Some(ballot) && self.quorums.servers().contains(acceptor);
        let (attempt, preparing) = match &mut self.phase {
            Phase::Preparing(attempt, _) if is_ours => (attempt, true),
            Phase::Proposing(work) if is_ours => (work.attempt_mut(), false),
            _ => return self.pace.answered_late(ballot, self.heartbeat_ticks()),
        };
        let is_first = attempt.note_refusal(acceptor, promised);
        let (refusals, is_again, quorums) = (attempt.refusals(), attempt.is_again(), self.quorums);
        // A NACK from one acceptor does not prevent a quorum of the others. The attempt is lost once the acceptors that
        // are left are fewer than a quorum.
        let lost = if preparing { quorums.is_prepare_refused(refusals) } else { quorums.is_accept_refused(refusals) };
        if !preparing && self.policy.keeps_ballot() {
            // One refusal is enough for a leader: a rival has prepared a higher ballot. Competing with it would only
            // preempt both.
            self.step_down(StepDownReason::Nacked(promised), out);
        } else if lost && preparing && !is_again {
            // The round was probably only stale. No rival need be active, so there is nothing to wait for.
            self.prepare(true, out);
        } else if lost {
            self.end_attempt(RetryReason::Refused, out);
        } else if is_first {
            // The value may still be chosen at this ballot, so give the other acceptors some time.
            out.arm(ProposerTimer::Nacked { ballot });
        }
    }

    /// The time of an attempt is over. A leader has its own time limits.
    fn time_out(&mut self, ballot: Ballot, reason: RetryReason, out: &mut Output<Self>) {
        if self.active_ballot() == Some(ballot) && self.leads().is_none() {
            self.end_attempt(reason, out);
        }
    }

    /// The attempt is lost: waits a random time, then tries again at a higher ballot. PMS 2.4 describes the duel of two
    /// proposers. Its remedy is a leader; Basic Paxos waits a random time instead.
    fn end_attempt(&mut self, reason: RetryReason, out: &mut Output<Self>) {
        let attempt = match std::mem::replace(&mut self.phase, Phase::BackingOff) {
            Phase::Preparing(attempt, _) => attempt,
            Phase::Proposing(work) => work.into_attempt(),
            _ => unreachable!("only an attempt can fail"),
        };
        let fill = attempt.fill();
        if fill.is_some() {
            // A rival does the same work, and the learner repeats its request.
            self.fill = None;
        }
        self.failures += 1;
        self.stalls += 1;
        self.responders = attempt.answered();
        self.commands.release_all();
        let command = self.commands.oldest().filter(|_| fill.is_none() && !self.policy.keeps_ballot()).cloned();
        let next = self.rounds.next();
        out.emit_step(|| attempt.lost(next, reason, command));
        if self.policy.keeps_ballot() {
            self.phase = Phase::Idle;
            self.election.restart_election_timer(out);
        } else {
            let most = STALLS_MAX + self.pace.doublings(SLOW_ROUND_MS).min(2);
            out.arm(ProposerTimer::Backoff { stalls: self.stalls.min(most) });
        }
    }

    /// Ends the tenure. Slots in flight may be chosen or not; the next leader finds out which.
    fn step_down(&mut self, why: StepDownReason, out: &mut Output<Self>) {
        let Phase::Proposing(work) = std::mem::replace(&mut self.phase, Phase::Idle) else { return };
        let (ballot, open) = (work.attempt().ballot(), work.in_flight());
        self.responders = work.attempt().answered();
        self.commands.release_all();
        // The owners of forwarded commands still have them, and forward them again.
        self.forwarded = ForwardedQueue::default();
        out.emit_always(ProposerTraceEvent::SteppedDown { ballot, open, why });
        self.election.end_tenure(why, out);
    }

    /// One heartbeat tick: 30 ms have passed.
    fn heartbeat_tick(&mut self, out: &mut Output<Self>) {
        let reign = self.leading().map(|work| LeaderPosition {
            ballot: work.attempt().ballot(),
            is_busy: work.in_flight() > 0 || !work.is_settled(),
        });
        if let Some(why) = self.election.heartbeat_tick(reign, self.pace.stall_timeout(), out) {
            if why == StepDownReason::Stalled {
                self.pace.note_stall();
            }
            return self.step_down(why, out);
        }
        if let (Phase::Preparing(attempt, _), true) = (&self.phase, self.policy.keeps_ballot()) {
            // Where promises take long, other proposers must not campaign meanwhile: each new ballot costs every
            // acceptor another sync.
            out.send(self.quorums.others(self.me), Message::LeaderHint { ballot: attempt.ballot() });
        }
        if let (None, Some(applied)) = (reign, self.progress.applied()) {
            let known = self.progress.highest_peer_applied(self.ticks);
            self.forwarding.release_late(&mut self.commands, self.election.ticks(), known, applied);
        }
    }

    /// Handles the news of a leader. If it is the leader to follow, this proposer ends its own tenure or campaign and
    /// follows. Returns whether it follows.
    fn follow(&mut self, ballot: Ballot, directly: bool, out: &mut Output<Self>) -> bool {
        let own_ballot = self.active_ballot();
        if !self.election.receive_leader(ballot, directly, own_ballot) {
            return false;
        }
        self.rounds.go_above(ballot.round);
        if self.leads().is_some() {
            self.step_down(StepDownReason::HigherBallot(ballot), out);
        }
        self.phase = Phase::Idle;
        self.election.restart_election_timer(out);
        true
    }

    /// The election time-out ran out without news of a leader: campaigns, unless there is a reason not to.
    fn campaign(&mut self, out: &mut Output<Self>) {
        if !self.election.time_out(out) || self.progress.applied().is_none() || self.phase != Phase::Idle {
            return;
        }
        if self.progress.is_behind(self.ticks) {
            self.election.withdraw();
            self.let_learner_catch_up(out);
        } else {
            self.send_pre_vote(out);
        }
    }

    /// Starts a pre-vote: has a majority lost the leader too?
    fn send_pre_vote(&mut self, out: &mut Output<Self>) {
        if self.election.start_pre_vote(out) {
            self.prepare(false, out);
        }
    }

    /// HEARTBEAT: the sender leads.
    fn handle_heartbeat(&mut self, sender: ServerId, ballot: Ballot, out: &mut Output<Self>) {
        if ballot.server == sender && self.follow(ballot, true, out) {
            self.election.reply_to_heartbeat(ballot, out);
        }
    }

    /// LEADERHINT: another server knows of this leader.
    fn handle_leader_hint(&mut self, ballot: Ballot, out: &mut Output<Self>) {
        if ballot.server != self.me {
            self.follow(ballot, false, out);
        }
    }

    /// PREVOTEREPLY: the candidate prepares once a majority knows of no leader.
    fn handle_pre_vote_reply(&mut self, sender: ServerId, id: u64, hears: bool, out: &mut Output<Self>) {
        if self.election.handle_pre_vote_reply(sender, id, hears) {
            self.prepare(false, out);
        }
    }

    /// Forwards waiting commands to the leader.
    fn forward(&mut self, out: &mut Output<Self>) {
        if self.commands.is_empty() || self.active_ballot().is_some() {
            return;
        }
        if let Some(leader) = self.election.leader_by_heartbeat() {
            self.forwarding.forward(leader, &mut self.commands, self.election.ticks(), out);
        }
    }

    /// FORWARD: another proposer's commands, which a leader proposes. A command that is in flight or queued already is
    /// not taken again. A command without room is forwarded again later by its owner.
    fn handle_forward(&mut self, sender: ServerId, commands: Vec<Command>, out: &mut Output<Self>) {
        if !self.quorums.servers().contains(sender) {
            return;
        }
        let mut is_taken = false;
        if let Phase::Proposing(work) = &self.phase
            && self.policy.keeps_ballot()
        {
            is_taken = true;
            for command in commands {
                let id = command.id;
                if !work.is_in_flight(id) && !self.commands.contains(id) && !self.forwarded.contains(id) {
                    is_taken &= self.forwarded.push(command);
                }
            }
        }
        if !is_taken {
            out.send(
                ServerSet::only(sender),
                Message::ForwardRefused { leader: self.leader().map(|(ballot, _)| ballot) },
            );
        }
    }

    /// FORWARDREFUSED: the receiver of the commands does not lead or has no room. The commands stay here until the next
    /// leader is known, or go to the same leader later.
    fn handle_forward_refused(&mut self, sender: ServerId, leader: Option<Ballot>) {
        if leader.is_none_or(|leader| leader.server != sender) {
            self.election.suspect(sender);
        }
    }

    /// FILL: a learner's reads wait for this slot.
    fn handle_fill(&mut self, sender: ServerId, slot: Slot, out: &mut Output<Self>) {
        if self.policy.keeps_ballot() {
            return self.handle_fill_under_leader(sender, slot, out);
        }
        // A long range is filled in pieces, because the learner asks again.
        self.fill = self.fill.max(Some(slot.min(self.progress.first_unchosen().plus(self.window.slots))));
        self.begin(out);
    }

    /// FILL in Multi-Paxos: the leader makes sure that every slot up to this one gets a value. A follower passes on the
    /// request of its own learner.
    fn handle_fill_under_leader(&mut self, sender: ServerId, slot: Slot, out: &mut Output<Self>) {
        let Phase::Proposing(work) = &mut self.phase else {
            if let Some(leader) = self.election.leader_by_heartbeat().filter(|_| sender == self.me) {
                out.send(ServerSet::only(leader.server), Message::Fill { slot });
            }
            return;
        };
        let applied = self.progress.applied().unwrap_or_default();
        if work.has_passed(slot) && slot > applied && slot > self.progress.highest_peer_applied(self.ticks) {
            // This leader skipped the slot because an acceptor had truncated it, but no live server has applied it:
            // that checkpoint is lost. Only a new ballot may propose in the slot.
            self.step_down(StepDownReason::Truncated(slot), out);
            self.prepare(false, out);
        } else {
            work.fill_to(slot);
        }
    }

    /// One tick of 100 ms: gives up commands that were never sent and whose clients are about to give up.
    fn tick(&mut self, out: &mut Output<Self>) {
        self.ticks += 1;
        out.arm(ProposerTimer::Tick);
        self.progress.tick(self.ticks);
        self.ask_for_pages(out);
        let Some(before) = self.ticks.checked_sub(COMMAND_TIMEOUT_TICKS) else { return };
        let why = self.not_applied_reason();
        for id in self.commands.expire(before) {
            out.notify(ProposerNotification::NotApplied { id, why });
        }
    }

    /// The reason why commands make no progress.
    fn not_applied_reason(&self) -> NotApplied {
        if self.phase == Phase::CatchingUp || self.progress.applied().is_none() {
            return NotApplied::LearnerBehind;
        }
        // Use whichever of this attempt and the last one got more answers. The two sets together may never have been up
        // at the same time.
        let now = self.attempt().map_or(ServerSet::NONE, Attempt::answered);
        let answered = if now.len() > self.responders.len() { now } else { self.responders };
        if self.rounds.are_exhausted() {
            NotApplied::NoRound
        } else if self.leads().is_some() {
            NotApplied::Busy
        } else if self.policy.keeps_ballot() {
            NotApplied::NoLeader
        } else if self.quorums.is_phase1_quorum(answered) {
            NotApplied::Preempted
        } else {
            NotApplied::NoQuorum { answered }
        }
    }

    /// The learner is down. No proposal can be finished without it, and its restart needs no help from the proposer.
    fn handle_learner_down(&mut self, out: &mut Output<Self>) {
        if self.leads().is_some() {
            self.step_down(StepDownReason::LearnerDown, out);
        }
        self.progress.on_learner_down();
        self.election.withdraw();
        self.fill = None;
        self.phase = Phase::Idle;
        self.commands.release_all();
    }

    fn handle_timeout(&mut self, timer: ProposerTimer, out: &mut Output<Self>) {
        match timer {
            ProposerTimer::Tick => self.tick(out),
            // The timer may belong to an attempt that is over; `time_out` checks the ballot.
            ProposerTimer::Attempt { ballot, .. } => self.time_out(ballot, RetryReason::TimedOut, out),
            ProposerTimer::Nacked { ballot } => self.time_out(ballot, RetryReason::Nacked, out),
            ProposerTimer::Backoff { .. } => {
                if self.phase == Phase::BackingOff {
                    self.phase = Phase::Idle;
                    self.begin(out);
                }
            }
            ProposerTimer::CatchUp => {
                if self.phase == Phase::CatchingUp {
                    self.caught_up(true, out);
                }
            }
            ProposerTimer::HeartbeatTick => self.heartbeat_tick(out),
            ProposerTimer::Election { .. } => self.campaign(out),
            ProposerTimer::Resend { tries } => {
                if let Phase::Proposing(work) = &mut self.phase {
                    work.resend(tries, self.pace.doublings(RESEND_MS), out);
                }
            }
        }
    }

    fn handle_message(&mut self, sender: ServerId, message: Message, out: &mut Output<Self>) {
        match message {
            Message::Promise { ballot, page } => self.handle_promise(sender, ballot, page, out),
            Message::Nack { .. } => self.handle_nack(sender, message, out),
            Message::Truncated { ballot, below, .. } => self.handle_truncated(ballot, below, out),
            Message::Progress { applied, .. } => self.handle_progress(sender, applied, out),
            Message::Fill { slot } => self.handle_fill(sender, slot, out),
            Message::Forward { commands } => self.handle_forward(sender, commands, out),
            Message::ForwardRefused { leader } => self.handle_forward_refused(sender, leader),
            // Basic Paxos has no leaders.
            Message::Heartbeat { .. }
            | Message::HeartbeatReply { .. }
            | Message::LeaderHint { .. }
            | Message::PreVote { .. }
            | Message::PreVoteReply { .. }
                if !self.policy.keeps_ballot() => {}
            Message::Heartbeat { ballot } => self.handle_heartbeat(sender, ballot, out),
            Message::HeartbeatReply { ballot } => {
                let leads = self.leads();
                self.election.handle_heartbeat_reply(sender, ballot, leads);
            }
            Message::LeaderHint { ballot } => self.handle_leader_hint(ballot, out),
            Message::PreVote { id } => self.election.handle_pre_vote(sender, id, self.leads().is_some(), out),
            Message::PreVoteReply { id, hears } => self.handle_pre_vote_reply(sender, id, hears, out),
            other => debug_assert!(!other.is_for(RoleKind::Proposer), "the proposer does not handle {other:?}"),
        }
    }
}

impl Role for Proposer {
    type Message = Message;
    type Record = ProposerRecord;
    type Timer = ProposerTimer;
    type Request = ProposerRequest;
    type Notification = ProposerNotification;
    type TraceEvent = ProposerTraceEvent;

    fn replay(&mut self, record: ProposerRecord) {
        let ProposerRecord::RoundsReserved(below) = record;
        self.rounds.replay(below);
    }

    fn step(&mut self, input: Input<Self>, out: &mut Output<Self>) {
        match input {
            Input::Start => {
                self.rounds.reserve(out);
                out.arm(ProposerTimer::Tick);
                if self.policy.keeps_ballot() {
                    self.election.start(out);
                }
            }
            Input::Message { from, message } => self.handle_message(from, message, out),
            Input::Timeout(timer) => self.handle_timeout(timer, out),
            Input::Request(request) => match request {
                ProposerRequest::Propose { command, promised_round } => {
                    // A hint: a ballot below it is certain to be refused. A wrong one costs rounds, and never safety.
                    self.rounds.go_above(promised_round);
                    self.handle_propose(command, out);
                }
                ProposerRequest::Applied { slot, ids } => self.handle_applied(slot, &ids, out),
                ProposerRequest::Installed { slot } => self.handle_installed(slot, out),
                ProposerRequest::Counted => self.election.note_progress(),
                ProposerRequest::LearnerDown => self.handle_learner_down(out),
                ProposerRequest::PeerDisconnected(server) => self.election.on_peer_disconnected(server, out),
            },
        }
    }

    /// In Multi-Paxos the commands of a whole batch go out in one message: in an ACCEPT from the leader, in a FORWARD
    /// from a follower.
    fn end_batch(&mut self, out: &mut Output<Self>) {
        if self.policy.keeps_ballot() {
            self.propose_next(out);
            self.forward(out);
        }
    }
}
