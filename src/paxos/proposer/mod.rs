//! The proposer: gets commands chosen.
//!
//! A proposer makes *attempts* (`attempt.rs`). An attempt prepares a new ballot (`rounds.rs`) for all slots from the
//! first that it does not know to be chosen (`progress.rs`), adopts what the promises bind it to, fills the holes with
//! no-ops, and puts commands (`commands.rs`) behind (`phase2.rs`). In Basic Paxos it is over when its learner has
//! applied every slot that it proposed in; in Multi-Paxos the proposer keeps the ballot and leads (`election.rs`), and
//! the others hand their commands to it (`forwarding.rs`). (Lamport, *Paxos Made Simple*, 2001, sections 2.2 and 3.)
//!
//! Each of these files has a struct of its own, which does not know the proposer. This one takes the inputs, says in
//! which phase it is, and carries out what its parts return.
//!
//! A command stays with its proposer until its outcome is applied, whoever proposed it last. A proposer that has never
//! put a command into an ACCEPT or a FORWARD may say "certainly not applied" and forget it; after that only the log
//! knows. (What it proposes for others, because a promise bound it or a FORWARD brought it, is still the others': they
//! never call it "not applied", since they have sent it.)

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
pub use self::phase2::{IN_FLIGHT_MAX, OPEN_BYTES};
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
use super::{Ballot, Command, CommandId, Message, Page, Policy, Quorums, Slot};
use crate::role::{Input, Output, Role, RoleKind, ServerId, ServerSet};

/// A command that was in no ACCEPT and no FORWARD after so many ticks (of 100 ms) is given up: before its client's try
/// ends.
const COMMAND_TIMEOUT_TICKS: u64 = 8;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Nothing to do, no learner to do it with, a follower, or one that asks whether others hear a leader.
    Idle,
    /// Between two attempts.
    BackingOff,
    /// The learner catches up first.
    CatchingUp,
    /// Phase 1.
    Preparing(Attempt, Promises),
    /// Phase 2.
    Proposing(Box<Phase2>),
}

/// The proposer of one server. See the head of its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposer {
    me: ServerId,
    quorums: Quorums,
    policy: Policy,
    rounds: Rounds,
    progress: PeerProgressTable,
    /// Commands of the own server's clients whose outcome is not applied.
    commands: OwnCommands,
    /// As a leader: commands of others that are not proposed yet.
    forwarded: ForwardedQueue,
    /// A slot that a learner waits for.
    fill: Option<Slot>,
    phase: Phase,
    /// Attempts lost in a row.
    failures: u32,
    /// Attempts lost since anything was applied here, whoever got it chosen.
    stalls: u32,
    /// Who answered the last attempt.
    responders: ServerSet,
    /// Tenths of a second of this life so far.
    ticks: u64,
    election: Election,
    forwarding: Forwarding,
    /// How long rounds take.
    pace: Pace,
    /// At most so much is open at one ballot.
    window: InFlightLimits,
}

impl Proposer {
    /// A proposer that knows nothing yet.
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
            window: InFlightLimits { slots: phase2::IN_FLIGHT_MAX, bytes: phase2::OPEN_BYTES },
        }
    }

    /// The same with at most so many slots open at one ballot, and about so many bytes: a simulation of a few clients
    /// fills a smaller window, too.
    pub fn with_window(self, slots: u64, bytes: usize) -> Proposer {
        Proposer { window: InFlightLimits { slots, bytes }, ..self }
    }

    /// The round of its next ballot.
    pub fn next_round(&self) -> u64 {
        self.rounds.next()
    }

    /// The ballot at which it leads, if it does.
    pub fn leads(&self) -> Option<Ballot> {
        self.reign().map(|work| work.attempt().ballot())
    }

    /// The leader, as far as this proposer knows: itself, or one that it has heard or heard of lately.
    pub fn leader(&self) -> Option<(Ballot, LeaderEvidence)> {
        match self.reign() {
            Some(work) => Some((work.attempt().ballot(), LeaderEvidence::Leads { quorum: work.quorum() })),
            None => self.election.leader(),
        }
    }

    /// The ballot at work.
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

    /// What it proposes as a leader, if it is one.
    fn reign(&self) -> Option<&Phase2> {
        match &self.phase {
            Phase::Proposing(work) if self.policy.keeps_ballot() => Some(work),
            _ => None,
        }
    }

    /// Whether it has something to do when its learner has applied more. If not, it may hear of it later.
    pub fn wants_applied(&self) -> bool {
        match &self.phase {
            Phase::Proposing(work) => work.in_flight() > 0 || !work.is_settled(),
            Phase::CatchingUp => true,
            // A follower hands over what waits as soon as there is room for it.
            Phase::Idle => self.progress.applied().is_none() || self.commands.unassigned() > 0,
            Phase::BackingOff | Phase::Preparing(..) => self.progress.applied().is_none(),
        }
    }

    /// Bytes of the values in open slots, and of those that were read ahead from promises.
    pub fn held_bytes(&self) -> (usize, usize) {
        match &self.phase {
            Phase::Preparing(_, promises) => (0, promises.bytes()),
            Phase::Proposing(work) => work.bytes(),
            Phase::Idle | Phase::BackingOff | Phase::CatchingUp => (0, 0),
        }
    }

    /// So many more commands must come before it has anything to do with them, unless something else happens.
    pub fn batch_threshold(&self) -> usize {
        match &self.phase {
            Phase::Proposing(work) => work.worth().saturating_sub(self.commands.unassigned() + self.forwarded.len()),
            _ => 1,
        }
    }

    /// A command of a client's: a resend of one that is here already joins it.
    fn handle_propose(&mut self, command: Command, out: &mut Output<Self>) {
        let id = command.id;
        if !self.commands.refresh(id, self.ticks) {
            // It may be under way already: adopted, or handed over by another server.
            let is_open = matches!(&self.phase, Phase::Proposing(work) if work.has_open(id));
            if !self.commands.push(command, self.ticks, is_open) {
                return out.notify(ProposerNotification::NotApplied { id, why: NotApplied::Busy });
            }
        }
        self.begin(out);
    }

    /// Basic Paxos: starts an attempt if there is work, a learner to see it through, and nothing else under way.
    fn begin(&mut self, out: &mut Output<Self>) {
        self.start_attempt(false, out);
    }

    /// As [`Proposer::begin`]; `waited` if the learner had its time to catch up.
    fn start_attempt(&mut self, waited: bool, out: &mut Output<Self>) {
        if self.policy.keeps_ballot() || self.phase != Phase::Idle || self.progress.applied().is_none() {
            return;
        }
        let first = self.progress.first_open();
        self.fill = self.fill.filter(|slot| *slot >= first);
        if self.commands.is_empty() && self.fill.is_none() {
            return;
        }
        if self.progress.is_behind(self.ticks) && !waited {
            return self.let_learner_catch_up(out);
        }
        self.prepare(false, out);
    }

    /// Gives the learner time to catch up: what it misses is chosen, and must not be fought over again.
    fn let_learner_catch_up(&mut self, out: &mut Output<Self>) {
        self.phase = Phase::CatchingUp;
        out.arm(ProposerTimer::CatchUp);
    }

    /// The learner has caught up, or had its time to.
    fn caught_up(&mut self, waited: bool, out: &mut Output<Self>) {
        self.phase = Phase::Idle;
        if self.policy.keeps_ballot() {
            self.send_pre_vote(out);
        } else {
            self.start_attempt(waited, out);
        }
    }

    /// Phase 1: asks everybody to promise a ballot that nobody has used.
    fn prepare(&mut self, is_again: bool, out: &mut Output<Self>) {
        let Some(ballot) = self.rounds.next_ballot(out) else {
            // There is none that it could use. What waits here is given up by and by, and others may still lead.
            self.phase = Phase::Idle;
            return;
        };
        let (from, to_lead) = (self.progress.first_open(), self.policy.keeps_ballot());
        let (to, fill) = (self.quorums.servers(), self.fill.filter(|_| !to_lead));
        let command = self.commands.oldest().filter(|_| fill.is_none() && !to_lead).cloned();
        out.emit_step(|| ProposerTraceEvent::Prepared { ballot, from, to, to_lead, command });
        out.send(to, Message::Prepare { ballot, from });
        self.pace.prepare(ballot, self.heartbeat_ticks());
        out.arm(self.attempt_timer(ballot));
        self.phase =
            Phase::Preparing(Attempt::new(ballot, from, fill, is_again), Promises::new(from, self.window.bytes));
    }

    /// How long nothing may come of an attempt: longer after failures, and where rounds take long.
    fn attempt_timer(&self, ballot: Ballot) -> ProposerTimer {
        let doublings = self.failures.min(FAILURES_MAX).max(self.pace.doublings_of_attempt(ATTEMPT_MS));
        ProposerTimer::Attempt { ballot, doublings }
    }

    /// PROMISE: a page of an acceptor's answer. Once a quorum settles the first slot, phase 2 begins; more pages may
    /// follow.
    fn handle_promise(&mut self, acceptor: ServerId, ballot: Ballot, page: Page, out: &mut Output<Self>) {
        self.progress.note_truncated(page.truncated_below, self.ticks);
        if self.active_ballot() != Some(ballot) || !self.quorums.servers().contains(acceptor) {
            return self.pace.answered_late(ballot, self.heartbeat_ticks());
        }
        let (timer, first_open, truncated_below) =
            (self.attempt_timer(ballot), self.progress.first_open(), page.truncated_below);
        match &mut self.phase {
            Phase::Preparing(attempt, promises) => {
                attempt.note_answer(acceptor);
                promises.add(acceptor, page, attempt.from(), &self.quorums);
                out.arm(timer);
                let first = attempt.from().max(first_open).max(promises.truncated_below());
                if self.quorums.is_prepared(promises.settle(first)) {
                    self.begin_proposing(first, out);
                }
            }
            Phase::Proposing(work) => {
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

    /// A quorum has promised, and settles this slot, the first to be proposed in.
    fn begin_proposing(&mut self, first: Slot, out: &mut Output<Self>) {
        let Phase::Preparing(attempt, promises) = &self.phase else { return };
        if self.policy.keeps_ballot() && !attempt.refusals().is_empty() && !attempt.is_again() {
            // Who leads against a refusal is refused again with the first ACCEPT: better above it, once.
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

    /// Asks acceptors for the next pages of their promises, as far as there is room for them.
    fn ask_for_pages(&mut self, out: &mut Output<Self>) {
        let now = self.ticks;
        let (ballot, pages) = match &mut self.phase {
            // Only what this ballot's promises have said lets pages be passed over: that never changes. What others say
            // of their checkpoints is believed for a while, and then the slots in them matter again.
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

    /// A quorum has promised: it leads until it loses the ballot.
    fn lead(&mut self, from: Slot, ballot: Ballot, quorum: ServerSet, out: &mut Output<Self>) {
        self.failures = 0;
        // What was handed to another is now for this one to propose, unless it has found it in a promise.
        self.commands.release_all();
        self.forwarding.end();
        out.emit_always(ProposerTraceEvent::Led { from, ballot, quorum });
        self.election.begin_reign(ballot, out);
    }

    /// The time, in heartbeat ticks of 30 ms. Without leaders nobody counts them, and ticks of 100 ms must do.
    fn heartbeat_ticks(&self) -> u64 {
        if self.policy.keeps_ballot() { self.election.ticks() } else { self.ticks * 100 / 30 }
    }

    /// Proposes what can be proposed now; gives the ballot up if it has done all that it was for.
    fn propose_next(&mut self, out: &mut Output<Self>) {
        let now = self.heartbeat_ticks();
        let Phase::Proposing(work) = &mut self.phase else { return };
        if work.propose_next(now, &mut self.commands, &mut self.forwarded, out) {
            self.election.note_progress();
        }
        self.finish_if_done(out);
    }

    /// A ballot that is not kept has done all that it was for: it is given up.
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

    /// BEAT: how far a learner is. The own learner's says that it lives.
    fn handle_progress(&mut self, server: ServerId, applied: Slot, out: &mut Output<Self>) {
        if server == self.me {
            self.handle_applied(applied, &[], out);
        } else if self.quorums.servers().contains(server) {
            self.progress.peer_applied(server, applied, self.ticks);
        }
    }

    /// The own learner has applied everything up to `slot`, and these commands just now: their outcomes are on their
    /// way to whoever waits.
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

    /// The own learner has taken a whole state: commands that wait here may be applied in it. A proposer that did not
    /// ask would propose each of them again, and spend a slot and a value on the link to learn that it is a duplicate.
    fn handle_installed(&mut self, slot: Slot, out: &mut Output<Self>) {
        if !self.commands.is_empty() {
            out.notify(ProposerNotification::Recall(self.commands.ids()));
        }
        self.handle_applied(slot, &[], out);
    }

    /// The own learner has applied all slots up to this one.
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

    /// TRUNCATED: the slots below were chosen long ago. They are closed, and a command proposed in one goes on behind
    /// what is forgotten: to prepare the same slots again would end here again, at once and for ever.
    fn handle_truncated(&mut self, ballot: Ballot, below: Slot, out: &mut Output<Self>) {
        self.progress.note_truncated(below, self.ticks);
        if let Phase::Proposing(work) = &mut self.phase
            && work.attempt().ballot() == ballot
        {
            work.close_below(below, &mut self.commands);
            self.finish_if_done(out);
        }
    }

    /// NACK: an acceptor is bound to a rival's ballot; the next round must be above it.
    fn handle_nack(&mut self, acceptor: ServerId, message: Message, out: &mut Output<Self>) {
        let Message::Nack { ballot, promised, .. } = message else { return };
        self.rounds.go_above(promised.round);
        let is_ours = self.active_ballot() == Some(ballot) && self.quorums.servers().contains(acceptor);
        let (attempt, preparing) = match &mut self.phase {
            Phase::Preparing(attempt, _) if is_ours => (attempt, true),
            Phase::Proposing(work) if is_ours => (work.attempt_mut(), false),
            _ => return self.pace.answered_late(ballot, self.heartbeat_ticks()),
        };
        let is_first = attempt.note_refusal(acceptor, promised);
        let (refusals, is_again, quorums) = (attempt.refusals(), attempt.is_again(), self.quorums);
        let lost = if preparing { quorums.is_prepare_refused(refusals) } else { quorums.is_accept_refused(refusals) };
        if !preparing && self.policy.keeps_ballot() {
            // One refusal is enough for a leader: somebody has prepared a higher ballot.
            self.step_down(StepDownReason::Nacked(promised), out);
        } else if lost && preparing && !is_again {
            // The round was only stale: nobody need be waited for.
            self.prepare(true, out);
        } else if lost {
            self.end_attempt(RetryReason::Refused, out);
        } else if is_first {
            out.arm(ProposerTimer::Nacked { ballot });
        }
    }

    /// The time of an attempt is over. A leader goes by its own clock.
    fn time_out(&mut self, ballot: Ballot, reason: RetryReason, out: &mut Output<Self>) {
        if self.active_ballot() == Some(ballot) && self.leads().is_none() {
            self.end_attempt(reason, out);
        }
    }

    /// The attempt is lost: wait a random moment, then try again at a higher ballot.
    fn end_attempt(&mut self, reason: RetryReason, out: &mut Output<Self>) {
        let attempt = match std::mem::replace(&mut self.phase, Phase::BackingOff) {
            Phase::Preparing(attempt, _) => attempt,
            Phase::Proposing(work) => work.into_attempt(),
            _ => unreachable!("only an attempt can fail"),
        };
        let fill = attempt.fill();
        if fill.is_some() {
            // A rival does the same work, and the learner asks again.
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
            self.election.wait(out);
        } else {
            let most = STALLS_MAX + self.pace.doublings(SLOW_ROUND_MS).min(2);
            out.arm(ProposerTimer::Backoff { stalls: self.stalls.min(most) });
        }
    }

    /// It leads no longer. What is open may be chosen or not; the next leader finds it.
    fn step_down(&mut self, why: StepDownReason, out: &mut Output<Self>) {
        let Phase::Proposing(work) = std::mem::replace(&mut self.phase, Phase::Idle) else { return };
        let (ballot, open) = (work.attempt().ballot(), work.in_flight());
        self.responders = work.attempt().answered();
        self.commands.release_all();
        self.forwarded = ForwardedQueue::default();
        out.emit_always(ProposerTraceEvent::SteppedDown { ballot, open, why });
        self.election.end_reign(why, out);
    }

    /// 30 ms have passed.
    fn heartbeat_tick(&mut self, out: &mut Output<Self>) {
        let reign = self.reign().map(|work| LeaderPosition {
            ballot: work.attempt().ballot(),
            has_open: work.in_flight() > 0 || !work.is_settled(),
        });
        if let Some(why) = self.election.heartbeat_tick(reign, self.pace.patience(), out) {
            if why == StepDownReason::Stalled {
                self.pace.note_stall();
            }
            return self.step_down(why, out);
        }
        if let (Phase::Preparing(attempt, _), true) = (&self.phase, self.policy.keeps_ballot()) {
            // Where promises take long, others must not stand meanwhile: each new ballot would cost all disks another
            // sync.
            out.send(self.quorums.others(self.me), Message::LeaderHint { ballot: attempt.ballot() });
        }
        if let (None, Some(applied)) = (reign, self.progress.applied()) {
            let known = self.progress.highest_peer_applied(self.ticks);
            self.forwarding.release_late(&mut self.commands, self.election.ticks(), known, applied);
        }
    }

    /// Somebody leads. If it is the leader to follow, it is followed: whoever leads below it steps down, and nobody
    /// stands.
    fn follow(&mut self, ballot: Ballot, directly: bool, out: &mut Output<Self>) -> bool {
        let at_work = self.active_ballot();
        if !self.election.hear(ballot, directly, at_work) {
            return false;
        }
        self.rounds.go_above(ballot.round);
        if self.leads().is_some() {
            self.step_down(StepDownReason::HigherBallot(ballot), out);
        }
        self.phase = Phase::Idle;
        self.election.wait(out);
        true
    }

    /// No word of a leader for a whole time-out: stands for election, unless something speaks against it.
    fn stand(&mut self, out: &mut Output<Self>) {
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

    /// Asks whether a majority has lost the leader too.
    fn send_pre_vote(&mut self, out: &mut Output<Self>) {
        if self.election.ask(out) {
            self.prepare(false, out);
        }
    }

    /// HEARTBEAT: somebody leads, and says so itself.
    fn handle_heartbeat(&mut self, sender: ServerId, ballot: Ballot, out: &mut Output<Self>) {
        if ballot.server == sender && self.follow(ballot, true, out) {
            self.election.answer_heartbeat(ballot, out);
        }
    }

    /// RELAY: somebody hears a leader.
    fn handle_relay(&mut self, ballot: Ballot, out: &mut Output<Self>) {
        if ballot.server != self.me {
            self.follow(ballot, false, out);
        }
    }

    /// The answer to a pre-vote: with a majority that hears of no leader, the candidate prepares.
    fn handle_pre_vote_answer(&mut self, sender: ServerId, id: u64, hears: bool, out: &mut Output<Self>) {
        if self.election.handle_pre_vote_answer(sender, id, hears) {
            self.prepare(false, out);
        }
    }

    /// Hands to the leader what waits here.
    fn forward(&mut self, out: &mut Output<Self>) {
        if self.commands.is_empty() || self.active_ballot().is_some() {
            return;
        }
        if let Some(leader) = self.election.heard_directly() {
            self.forwarding.forward(leader, &mut self.commands, self.election.ticks(), out);
        }
    }

    /// FORWARD: another proposer's commands, to be proposed by the leader. One that is under way already is not taken
    /// again; what there is no room for will come again.
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
                if !work.has_open(id) && !self.commands.contains(id) && !self.forwarded.contains(id) {
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

    /// REFUSED: commands were handed to one who does not lead, or has no room. They stay here, and go to the next
    /// leader that is heard; or to the same, later.
    fn handle_refused(&mut self, sender: ServerId, leader: Option<Ballot>) {
        if leader.is_none_or(|leader| leader.server != sender) {
            self.election.suspect(sender);
        }
    }

    /// FILL: a learner waits for this slot.
    fn handle_fill(&mut self, sender: ServerId, slot: Slot, out: &mut Output<Self>) {
        if self.policy.keeps_ballot() {
            return self.handle_fill_under_leader(sender, slot, out);
        }
        // A long way is gone in pieces, since whoever waits asks again.
        self.fill = self.fill.max(Some(slot.min(self.progress.first_open().plus(self.window.slots))));
        self.begin(out);
    }

    /// FILL under a leader: it makes sure that every slot up to this one gets a value. Others pass on what their own
    /// learner asks for.
    fn handle_fill_under_leader(&mut self, sender: ServerId, slot: Slot, out: &mut Output<Self>) {
        let Phase::Proposing(work) = &mut self.phase else {
            if let Some(leader) = self.election.heard_directly().filter(|_| sender == self.me) {
                out.send(ServerSet::only(leader.server), Message::Fill { slot });
            }
            return;
        };
        let applied = self.progress.applied().unwrap_or_default();
        if work.has_passed(slot) && slot > applied && slot > self.progress.highest_peer_applied(self.ticks) {
            // Nobody alive has it, and this ballot does not propose there any more: another one can.
            self.step_down(StepDownReason::Truncated(slot), out);
            self.prepare(false, out);
        } else {
            work.fill_to(slot);
        }
    }

    /// A tenth of a second has passed: give up what was never sent and is about to be given up by its client.
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

    /// Why nothing moves.
    fn not_applied_reason(&self) -> NotApplied {
        if self.phase == Phase::CatchingUp || self.progress.applied().is_none() {
            return NotApplied::LearnerBehind;
        }
        // Of this attempt and the one before, the one that more have answered. Those of both together may never have
        // been there at the same time.
        let now = self.attempt().map_or(ServerSet::NONE, Attempt::answered);
        let answered = if now.len() > self.responders.len() { now } else { self.responders };
        if self.rounds.are_spent() {
            NotApplied::NoRound
        } else if self.leads().is_some() {
            NotApplied::Busy
        } else if self.policy.keeps_ballot() {
            NotApplied::NoLeader
        } else if self.quorums.is_prepared(answered) {
            NotApplied::Preempted
        } else {
            NotApplied::NoQuorum { answered }
        }
    }

    /// Without a learner nothing can be finished; that is nobody's loss.
    fn handle_learner_down(&mut self, out: &mut Output<Self>) {
        if self.leads().is_some() {
            self.step_down(StepDownReason::LearnerDown, out);
        }
        self.progress.learner_died();
        self.election.withdraw();
        self.fill = None;
        self.phase = Phase::Idle;
        self.commands.release_all();
    }

    fn handle_timeout(&mut self, timer: ProposerTimer, out: &mut Output<Self>) {
        match timer {
            ProposerTimer::Tick => self.tick(out),
            // Of the attempt at work, or of one that is over.
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
            ProposerTimer::Election { .. } => self.stand(out),
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
            Message::ForwardRefused { leader } => self.handle_refused(sender, leader),
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
                self.election.handle_heartbeat_answer(sender, ballot, leads);
            }
            Message::LeaderHint { ballot } => self.handle_relay(ballot, out),
            Message::PreVote { id } => self.election.handle_pre_vote(sender, id, self.leads().is_some(), out),
            Message::PreVoteReply { id, hears } => self.handle_pre_vote_answer(sender, id, hears, out),
            other => debug_assert!(!other.is_for(RoleKind::Proposer), "nobody takes {other:?}"),
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
                ProposerRequest::PeerDisconnected(server) => self.election.peer_gone(server, out),
            },
        }
    }

    /// Under a leader the commands of a whole turn go out in one message: as ACCEPT by the leader, as FORWARD to it.
    fn end_batch(&mut self, out: &mut Output<Self>) {
        if self.policy.keeps_ballot() {
            self.propose_next(out);
            self.forward(out);
        }
    }
}
