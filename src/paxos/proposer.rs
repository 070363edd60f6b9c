//! The proposer: gets commands chosen.
//!
//! A proposer makes *attempts* (`attempt.rs`). An attempt prepares a new ballot for all slots from the first that its own
//! learner has not applied, adopts what the promises bind it to, fills the holes with no-ops, and puts commands behind
//! (`phase2.rs`). In Basic Paxos it is over when its learner has applied every slot that it proposed in; in Multi-Paxos
//! the proposer keeps the ballot and leads (`leadership.rs`), and the others hand their commands to it (`forwarding.rs`).
//!
//! A command stays with its proposer until its outcome is applied, whoever proposed it last. A proposer that has never put
//! a command into an ACCEPT or a FORWARD may say "certainly not applied" and forget it; after that only the log knows.
//! (What it proposes for others, because a promise bound it or a FORWARD brought it, is still the others': they never call
//! it "not applied", since they have sent it.)

mod attempt;
mod commands;
mod forwarding;
mod leadership;
mod phase2;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;

pub use self::leadership::Known;
pub use self::phase2::WINDOW;
pub use self::words::{
    NotApplied, ProposerFact, ProposerOutcome, ProposerRecord, ProposerRequest, ProposerTimer, RetryReason, StepDown,
};

use self::attempt::Attempt;
use self::commands::{Commands, Guests};
use self::leadership::Leadership;
use self::phase2::Proposing;
use super::promises::Promises;
use super::{Ballot, Command, CommandId, Message, Policy, Quorums, Slot};
use crate::role::{Input, Output, Role, Server, Servers};

/// A command that was in no ACCEPT and no FORWARD after so many ticks (of 100 ms) is given up: before its client's try ends.
const GIVE_UP_TICKS: u64 = 8;
/// So many ticks a proposer believes that slots are in somebody's checkpoint, and then it asks again: a checkpoint can be
/// lost, and then what the other acceptors hold is all that there is.
const TRUNCATED_TICKS: u64 = 10;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Nothing to do, no learner to do it with, or a follower.
    Idle,
    /// Between two attempts.
    Pausing,
    /// The learner catches up first.
    CatchingUp,
    /// Asks whether others hear a leader.
    PreVoting {
        /// Which question.
        id: u64,
        /// Who hears none.
        without: Servers,
    },
    /// Phase 1.
    Preparing(Attempt, Promises),
    /// Phase 2.
    Proposing(Box<Proposing>),
}

/// The proposer of one server. See the head of its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposer {
    me: Server,
    quorums: Quorums,
    policy: Policy,
    /// The round of the next ballot; at least 1.
    next_round: u64,
    /// This life may use rounds below this one without another record.
    reserved: u64,
    /// What the own learner has applied; None while it is down.
    applied: Option<Slot>,
    /// All slots below were chosen: an acceptor has said so, and that its server's checkpoint holds them. At least 0.
    truncated_below: Slot,
    /// The tick when it was said first.
    truncated_at: u64,
    /// Commands of the own server's clients whose outcome is not applied.
    commands: Commands,
    /// As a leader: commands of others that are not proposed yet.
    guests: Guests,
    /// The leader that commands were handed to last.
    forwarding_to: Option<Ballot>,
    /// A slot that a learner waits for.
    fill: Option<Slot>,
    phase: Phase,
    /// Attempts lost in a row.
    failures: u32,
    /// Who answered the last attempt.
    answered: Servers,
    /// What the peers' learners have applied, and the tick when they said so.
    peers: BTreeMap<Server, (Slot, u64)>,
    ticks: u64,
    leadership: Leadership,
    /// At most so many slots are open at one ballot.
    window: u64,
}

impl Proposer {
    /// A proposer that knows nothing yet.
    pub fn new(me: Server, quorums: Quorums, policy: Policy) -> Proposer {
        Proposer {
            me,
            quorums,
            policy,
            next_round: 1,
            reserved: 1,
            applied: None,
            truncated_below: Slot(0),
            truncated_at: 0,
            commands: Commands::default(),
            guests: Guests::default(),
            forwarding_to: None,
            fill: None,
            phase: Phase::Idle,
            failures: 0,
            answered: Servers::NONE,
            peers: BTreeMap::new(),
            ticks: 0,
            leadership: Leadership::default(),
            window: phase2::WINDOW,
        }
    }

    /// The same with at most so many slots open at one ballot: a simulation of a few clients fills a smaller window, too.
    pub fn with_window(self, window: u64) -> Proposer {
        Proposer { window, ..self }
    }

    /// The round of its next ballot.
    pub fn next_round(&self) -> u64 {
        self.next_round
    }

    /// Whether it has something to do when its learner has applied more. If not, it may hear of it later.
    pub fn wants_applied(&self) -> bool {
        match &self.phase {
            Phase::Proposing(work) => work.open() > 0,
            Phase::CatchingUp => true,
            Phase::Idle | Phase::Pausing | Phase::PreVoting { .. } | Phase::Preparing(..) => self.applied.is_none(),
        }
    }

    /// So many more commands must come before it has anything to do with them, unless something else happens.
    pub fn worth(&self) -> usize {
        match &self.phase {
            Phase::Proposing(work) => work.worth().saturating_sub(self.commands.idle() + self.guests.len()),
            _ => 1,
        }
    }

    /// BEAT: how far a learner is. The own learner's says that it lives.
    fn handle_beat(&mut self, server: Server, applied: Slot, out: &mut Output<Self>) {
        if server == self.me {
            self.handle_applied(applied, &[], out);
        } else if self.quorums.servers().contains(server) {
            self.peers.insert(server, (applied, self.ticks));
        }
    }

    /// FILL: a learner waits for this slot.
    fn handle_fill(&mut self, sender: Server, slot: Slot, out: &mut Output<Self>) {
        if self.policy.keeps_ballot() {
            return self.handle_fill_under_leader(sender, slot, out);
        }
        // A long way is gone in pieces, since whoever waits asks again.
        self.fill = self.fill.max(Some(slot.min(self.first_open().plus(self.window))));
        self.begin(out);
    }

    /// The own learner has applied everything up to `slot`, and these commands just now: their outcomes are on their way to
    /// whoever waits.
    fn handle_applied(&mut self, slot: Slot, ids: &[CommandId], out: &mut Output<Self>) {
        let before = self.applied.replace(slot);
        for id in ids {
            self.commands.remove(*id);
            self.guests.remove(*id);
        }
        if before < Some(slot) {
            self.close_applied(slot, out);
        }
        if self.phase == Phase::CatchingUp && !self.is_behind() {
            self.caught_up(false, out);
        }
        self.begin(out);
    }

    /// The learner has caught up, or had its time to.
    fn caught_up(&mut self, waited: bool, out: &mut Output<Self>) {
        self.phase = Phase::Idle;
        if self.policy.keeps_ballot() {
            self.ask_for_votes(out);
        } else {
            self.begin_after(waited, out);
        }
    }

    /// A command of a client's: a resend of one that is here already joins it.
    fn handle_propose(&mut self, command: Command, out: &mut Output<Self>) {
        let id = command.id;
        if !self.commands.ask_again(id, self.ticks) {
            // It may be under way already: adopted, or handed over by another server.
            let is_open = matches!(&self.phase, Phase::Proposing(work) if work.has_open(id));
            if !self.commands.push(command, self.ticks, is_open) {
                return out.outcome(ProposerOutcome::NotApplied { id, why: NotApplied::Busy });
            }
        }
        self.begin(out);
    }

    /// A tenth of a second has passed: give up what was never sent and is about to be given up by its client.
    fn tick(&mut self, out: &mut Output<Self>) {
        self.ticks += 1;
        out.arm(ProposerTimer::Tick);
        if self.ticks - self.truncated_at >= TRUNCATED_TICKS {
            self.truncated_below = Slot(0);
        }
        let Some(before) = self.ticks.checked_sub(GIVE_UP_TICKS) else { return };
        let why = self.why_not();
        for id in self.commands.give_up(before) {
            out.outcome(ProposerOutcome::NotApplied { id, why });
        }
    }

    /// An acceptor says that all slots below were chosen, and forgotten there.
    fn note_truncated(&mut self, below: Slot) {
        if below > self.truncated_below {
            (self.truncated_below, self.truncated_at) = (below, self.ticks);
        }
    }

    /// Why nothing moves.
    fn why_not(&self) -> NotApplied {
        let now = match &self.phase {
            Phase::Preparing(attempt, _) => attempt.answered,
            Phase::Proposing(work) => work.attempt.answered,
            Phase::CatchingUp => return NotApplied::LearnerBehind,
            Phase::Idle | Phase::Pausing | Phase::PreVoting { .. } => Servers::NONE,
        };
        // Of this attempt and the one before, the one that more have answered. Those of both together may never have been
        // there at the same time.
        let answered = if now.len() > self.answered.len() { now } else { self.answered };
        match self.applied {
            None => NotApplied::LearnerBehind,
            Some(_) if self.next_round > Ballot::LAST_ROUND => NotApplied::NoRound,
            Some(_) if self.leads().is_some() => NotApplied::Busy,
            Some(_) if self.policy.keeps_ballot() => NotApplied::NoLeader,
            Some(_) if self.quorums.is_prepared(answered) => NotApplied::Outrun,
            Some(_) => NotApplied::NoQuorum { answered },
        }
    }

    /// Without a learner nothing can be finished; that is nobody's loss.
    fn handle_learner_down(&mut self, out: &mut Output<Self>) {
        self.step_down_for_learner(out);
        self.applied = None;
        self.fill = None;
        self.phase = Phase::Idle;
        self.commands.release_all();
    }

    fn step_down_for_learner(&mut self, out: &mut Output<Self>) {
        if self.leads().is_some() {
            self.step_down(StepDown::LearnerDown, out);
        }
    }

    fn handle_timeout(&mut self, timer: ProposerTimer, out: &mut Output<Self>) {
        match timer {
            ProposerTimer::Tick => self.tick(out),
            // Of the attempt at work, or of one that is over.
            ProposerTimer::Attempt { ballot, .. } => self.time_out(ballot, RetryReason::Silence, out),
            ProposerTimer::Nacked { ballot } => self.time_out(ballot, RetryReason::Nacked, out),
            ProposerTimer::Pause => {
                if self.phase == Phase::Pausing {
                    self.phase = Phase::Idle;
                    self.begin(out);
                }
            }
            ProposerTimer::CatchUp => {
                if self.phase == Phase::CatchingUp {
                    self.caught_up(true, out);
                }
            }
            ProposerTimer::Pulse => self.pulse(out),
            ProposerTimer::Election { .. } => self.election(out),
            ProposerTimer::Resend { tries } => self.resend(tries, out),
        }
    }

    fn handle_message(&mut self, sender: Server, message: Message, out: &mut Output<Self>) {
        match message {
            Message::Promise { .. } => self.handle_promise(sender, message, out),
            Message::Nack { .. } => self.handle_nack(sender, message, out),
            Message::Truncated { ballot, below, .. } => self.handle_truncated(ballot, below, out),
            Message::Beat { applied, .. } => self.handle_beat(sender, applied, out),
            Message::Fill { slot } => self.handle_fill(sender, slot, out),
            Message::Forward { commands } => self.handle_forward(sender, commands, out),
            Message::Refused { leader } => {
                self.handle_refused(sender, leader.is_some_and(|leader| leader.server == sender));
            }
            Message::Heartbeat { ballot } => self.handle_heartbeat(sender, ballot, out),
            Message::HeartbeatAnswer { ballot } => self.handle_heartbeat_answer(sender, ballot),
            Message::Relay { ballot } => self.handle_relay(ballot, out),
            Message::PreVote { id } => self.handle_pre_vote(sender, id, out),
            Message::PreVoteAnswer { id, hears } => self.handle_pre_vote_answer(sender, id, hears, out),
            // Not for a proposer; see Message::heard_by.
            Message::Prepare { .. }
            | Message::Accept { .. }
            | Message::Accepted { .. }
            | Message::Chosen { .. }
            | Message::CatchUp { .. }
            | Message::Entries { .. }
            | Message::Read { .. }
            | Message::ReadAnswer { .. }
            | Message::Snapshot(_)
            | Message::Fetch(_) => {}
        }
    }
}

impl Role for Proposer {
    type Message = Message;
    type Record = ProposerRecord;
    type Timer = ProposerTimer;
    type Request = ProposerRequest;
    type Outcome = ProposerOutcome;
    type Fact = ProposerFact;

    fn replay(&mut self, record: ProposerRecord) {
        let ProposerRecord::Spent(below) = record;
        self.next_round = self.next_round.max(below);
        self.reserved = self.next_round;
    }

    fn step(&mut self, input: Input<Self>, out: &mut Output<Self>) {
        match input {
            Input::Start => {
                self.reserve_first(out);
                out.arm(ProposerTimer::Tick);
                if self.policy.keeps_ballot() {
                    out.arm(ProposerTimer::Pulse);
                    out.arm(ProposerTimer::Election { soon: false });
                }
            }
            Input::Message { from, message } => self.handle_message(from, message, out),
            Input::Timeout(timer) => self.handle_timeout(timer, out),
            Input::Request(request) => match request {
                ProposerRequest::Propose(command) => self.handle_propose(command, out),
                ProposerRequest::Applied { slot, ids } => self.handle_applied(slot, &ids, out),
                ProposerRequest::LearnerDown => self.handle_learner_down(out),
                ProposerRequest::PeerGone(server) => self.handle_peer_gone(server, out),
            },
        }
    }

    /// Under a leader the commands of a whole turn go out in one message: as ACCEPT by the leader, as FORWARD to it.
    fn finish(&mut self, out: &mut Output<Self>) {
        if self.policy.keeps_ballot() {
            self.go_on(out);
            self.forward(out);
        }
    }
}
