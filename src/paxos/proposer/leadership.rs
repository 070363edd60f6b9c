//! Who leads: heartbeats, elections, and how a leader finds out that it is none.
//!
//! Leadership is no part of what makes Paxos safe: two proposers that both take themselves for leaders have two ballots,
//! and the acceptors know the higher one. It only decides who should try. So nothing here is remembered, and nothing here
//! may be wrong in a way that matters; it should be right soon.
//!
//! A leader says every 30 ms that it is there, and is answered. Who has heard nothing of a leader for a random 150 to
//! 300 ms stands for election, unless others still hear one:
//!
//! - *Pre-vote.* Before a candidate prepares a ballot, which would end a reign, it asks whether a majority has lost the
//!   leader too. One server with a broken cable, or back from a partition, disturbs nobody (Ongaro, *Consensus: Bridging
//!   Theory and Practice*, 2014, section 9.6, for Raft).
//! - *Relay.* Who hears the leader says so to the others. A server that can talk to some servers but not to the leader then
//!   knows that there is one. It hands nothing to that leader: a command goes one hop.
//! - *The leader's own doubt.* A leader that is not answered by a majority for 300 ms, or that has open slots and sees
//!   nothing applied for 500 ms, steps down, and lets one time-out pass before it stands. Otherwise a leader that can send
//!   and not hear would be obeyed for ever by servers that it can do nothing for.
//!
//! With these three a cluster finds a leader as long as any one server is connected to a majority, also where not everybody
//! hears everybody (the three cases of Ng, Haridi, Carbone, *Omni-Paxos*, EuroSys 2023; see `src/sim/partitions.rs`).
//!
//! Time is counted in *pulses*, the 30 ms of one timer. A proposer that was held up counts fewer: its own delay is not the
//! silence of others.

use std::collections::BTreeMap;

use super::words::{ProposerFact, ProposerTimer, StepDown};
use super::{Phase, Proposer};
use crate::paxos::{Ballot, Message, Slot};
use crate::role::{Output, Server, Servers};

/// Who has heard or heard of a leader within so many pulses has one: 150 ms.
const HEARD_PULSES: u64 = 5;
/// A leader that a majority has not answered for so many pulses steps down: 300 ms.
const UNANSWERED_PULSES: u64 = 10;
/// A leader with open slots that sees nothing applied for so many pulses steps down: 500 ms.
const STALLED_PULSES: u64 = 17;
/// A follower relays at most every so many pulses: 60 ms.
const RELAY_PULSES: u64 = 2;

/// What a proposer knows of leaders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Leadership {
    /// Pulses of this life so far.
    pulses: u64,
    /// The leader of the highest ballot heard of, unless it is this proposer.
    leader: Option<Leader>,
    /// Pre-votes of this life so far.
    questions: u64,
    /// One time-out must pass before it stands again.
    rests: bool,
    /// The pulse of the last relay.
    relayed_at: Option<u64>,
    /// The last leader whose closed connection has brought an election forward: each can do so once.
    hastened: Option<Ballot>,
    /// As a leader: the pulse when each server last answered.
    answers: BTreeMap<Server, u64>,
    /// As a leader: the pulse when a slot was applied last, or the first was opened.
    moved_at: u64,
}

/// How a proposer knows of a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Known {
    /// It is the leader.
    Leads {
        /// Who has promised it the ballot.
        quorum: Servers,
    },
    /// The leader's heartbeats come.
    Heard,
    /// Others hear the leader.
    HeardOf,
}

/// A leader as a follower sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Leader {
    ballot: Ballot,
    /// The pulse when its last heartbeat came; None if it is only heard of.
    heard_at: Option<u64>,
    /// The pulse when the last word of it came, from itself or from others; None if it is known to be gone.
    known_at: Option<u64>,
}

impl Leadership {
    /// Pulses of this life so far.
    pub(super) fn pulse(&self) -> u64 {
        self.pulses
    }

    /// Pre-votes of this life so far.
    #[cfg(test)]
    pub(super) fn questions(&self) -> u64 {
        self.questions
    }

    /// Something was applied, or there is something to apply again.
    pub(super) fn moves(&mut self) {
        self.moved_at = self.pulses;
    }

    fn is_fresh(&self, at: Option<u64>) -> bool {
        at.is_some_and(|at| self.pulses - at < HEARD_PULSES)
    }

    /// The leader that was heard lately, from itself.
    pub(super) fn heard(&self) -> Option<Ballot> {
        self.leader.filter(|leader| self.is_fresh(leader.heard_at)).map(|leader| leader.ballot)
    }

    /// The leader that was heard, or heard of, lately.
    fn known(&self) -> Option<Ballot> {
        self.leader.filter(|leader| self.is_fresh(leader.known_at)).map(|leader| leader.ballot)
    }

    /// That leader's word was of no use: it must be heard again before anything else is handed to it.
    pub(super) fn doubt(&mut self, server: Server) {
        if let Some(leader) = self.leader.as_mut().filter(|leader| leader.ballot.server == server) {
            leader.heard_at = None;
        }
    }

    /// Takes note of a leader; false if a later one is known, which a majority has promised: this one can do nothing.
    fn note(&mut self, ballot: Ballot, directly: bool) -> bool {
        let before = self.leader.filter(|leader| leader.ballot >= ballot);
        if before.is_some_and(|leader| leader.ballot > ballot) {
            return false;
        }
        let now = Some(self.pulses);
        let heard_at = if directly { now } else { before.and_then(|leader| leader.heard_at) };
        self.leader = Some(Leader { ballot, heard_at, known_at: now });
        true
    }
}

impl Proposer {
    /// The ballot at which it leads, if it does.
    pub fn leads(&self) -> Option<Ballot> {
        match &self.phase {
            Phase::Proposing(work) if self.policy.keeps_ballot() => Some(work.attempt.ballot),
            _ => None,
        }
    }

    /// The leader, as far as this proposer knows: itself, or one that it has heard or heard of lately.
    pub fn leader(&self) -> Option<(Ballot, Known)> {
        match &self.phase {
            Phase::Proposing(work) if self.policy.keeps_ballot() => {
                Some((work.attempt.ballot, Known::Leads { quorum: work.quorum() }))
            }
            _ => {
                let heard = self.leadership.heard().map(|ballot| (ballot, Known::Heard));
                heard.or_else(|| self.leadership.known().map(|ballot| (ballot, Known::HeardOf)))
            }
        }
    }

    /// A quorum has promised: it leads until it loses the ballot.
    pub(super) fn lead(&mut self, from: Slot, ballot: Ballot, quorum: Servers, out: &mut Output<Self>) {
        let now = self.leadership.pulses;
        self.failures = 0;
        // What was handed to another is now for this one to propose, unless it has found it in a promise.
        self.commands.release_all();
        self.forwarding_to = None;
        self.leadership.answers = self.others().iter().map(|server| (server, now)).collect();
        self.leadership.moves();
        out.news(ProposerFact::Led { from, ballot, quorum });
        out.send(self.others(), Message::Heartbeat { ballot });
    }

    /// It leads no longer. What is open may be chosen or not; the next leader finds it.
    pub(super) fn step_down(&mut self, why: StepDown, out: &mut Output<Self>) {
        let Phase::Proposing(work) = std::mem::replace(&mut self.phase, Phase::Idle) else { return };
        let (ballot, open) = (work.attempt.ballot, work.open());
        self.answered = work.attempt.answered;
        self.leadership.rests = matches!(why, StepDown::Unheard | StepDown::Stalled);
        self.commands.release_all();
        self.guests = Default::default();
        out.news(ProposerFact::SteppedDown { ballot, open, why });
        out.arm(ProposerTimer::Election { soon: false });
    }

    /// 30 ms have passed.
    pub(super) fn pulse(&mut self, out: &mut Output<Self>) {
        self.leadership.pulses += 1;
        out.arm(ProposerTimer::Pulse);
        let Some(ballot) = self.leads() else { return self.forward_again() };
        if !self.is_answered() {
            self.step_down(StepDown::Unheard, out);
        } else if self.is_stalled() {
            self.step_down(StepDown::Stalled, out);
        } else {
            out.send(self.others(), Message::Heartbeat { ballot });
        }
    }

    fn is_answered(&self) -> bool {
        let answers = self.leadership.answers.iter();
        let late = |at: u64| self.leadership.pulses - at >= UNANSWERED_PULSES;
        let answered = answers.filter(|(_, at)| !late(**at)).map(|(server, _)| *server);
        self.quorums.is_chosen(answered.chain([self.me]).collect())
    }

    fn is_stalled(&self) -> bool {
        let Phase::Proposing(work) = &self.phase else { return false };
        work.open() > 0 && self.leadership.pulses - self.leadership.moved_at >= STALLED_PULSES
    }

    /// HEARTBEAT: somebody leads. It is answered unless a later leader is known.
    pub(super) fn handle_heartbeat(&mut self, sender: Server, ballot: Ballot, out: &mut Output<Self>) {
        if ballot.server != sender || !self.obeys(ballot, true, out) {
            return;
        }
        out.send(Servers::only(sender), Message::HeartbeatAnswer { ballot });
        let now = self.leadership.pulses;
        if self.leadership.relayed_at.is_none_or(|at| now - at >= RELAY_PULSES) {
            self.leadership.relayed_at = Some(now);
            out.send(self.others().without(Servers::only(sender)), Message::Relay { ballot });
        }
    }

    /// RELAY: somebody hears a leader.
    pub(super) fn handle_relay(&mut self, ballot: Ballot, out: &mut Output<Self>) {
        if ballot.server != self.me {
            self.obeys(ballot, false, out);
        }
    }

    /// Whether this is the leader to follow. If it is, it is followed: whoever leads below it steps down, and nobody stands.
    fn obeys(&mut self, ballot: Ballot, directly: bool, out: &mut Output<Self>) -> bool {
        // Its own ballot at work is above: then the other one can do nothing, and will hear of it.
        if !self.policy.keeps_ballot() || self.at_work().is_some_and(|ours| ours > ballot) {
            return false;
        }
        if !self.quorums.servers().contains(ballot.server) || !self.leadership.note(ballot, directly) {
            return false;
        }
        self.next_round = self.next_round.max(ballot.round + 1);
        if self.leads().is_some() {
            self.step_down(StepDown::Rival(ballot), out);
        }
        self.phase = Phase::Idle;
        self.leadership.rests = false;
        out.arm(ProposerTimer::Election { soon: false });
        true
    }

    /// The answer to a heartbeat.
    pub(super) fn handle_heartbeat_answer(&mut self, sender: Server, ballot: Ballot) {
        if self.leads() == Some(ballot) && self.others().contains(sender) {
            self.leadership.answers.insert(sender, self.leadership.pulses);
        }
    }

    /// No word of a leader for a whole time-out: stands for election, unless something speaks against it.
    pub(super) fn election(&mut self, out: &mut Output<Self>) {
        out.arm(ProposerTimer::Election { soon: false });
        if std::mem::take(&mut self.leadership.rests) || self.applied.is_none() {
            return;
        }
        match self.phase {
            Phase::Idle | Phase::PreVoting { .. } if self.is_behind() => {
                self.phase = Phase::CatchingUp;
                out.arm(ProposerTimer::CatchUp);
            }
            Phase::Idle | Phase::PreVoting { .. } => self.ask_for_votes(out),
            Phase::Pausing | Phase::CatchingUp | Phase::Preparing(..) | Phase::Proposing(_) => {}
        }
    }

    /// Asks whether a majority has lost the leader too.
    pub(super) fn ask_for_votes(&mut self, out: &mut Output<Self>) {
        self.leadership.questions += 1;
        let id = self.leadership.questions;
        self.phase = Phase::PreVoting { id, without: Servers::NONE };
        out.send(self.others(), Message::PreVote { id });
        self.handle_pre_vote_answer(self.me, id, false, out);
    }

    /// PREVOTE: somebody would stand. Nothing is promised by the answer.
    pub(super) fn handle_pre_vote(&mut self, sender: Server, id: u64, out: &mut Output<Self>) {
        if self.policy.keeps_ballot() {
            let hears = self.leader().is_some();
            out.send(Servers::only(sender), Message::PreVoteAnswer { id, hears });
        }
    }

    /// The answer to a pre-vote: with a majority that hears of no leader, the candidate prepares.
    pub(super) fn handle_pre_vote_answer(&mut self, sender: Server, asked: u64, hears: bool, out: &mut Output<Self>) {
        let Phase::PreVoting { id, without } = &mut self.phase else { return };
        if *id != asked || hears || !self.quorums.servers().contains(sender) {
            return;
        }
        without.insert(sender);
        if self.quorums.is_prepared(*without) {
            self.prepare(false, out);
        }
    }

    /// The connection from a server has closed. If it led, there is no need to wait for its silence. That is only an
    /// opinion until the others share it, and each leader's end hastens one election.
    pub(super) fn handle_peer_gone(&mut self, server: Server, out: &mut Output<Self>) {
        let Some(leader) = self.leadership.leader.as_mut().filter(|leader| leader.ballot.server == server) else {
            return;
        };
        (leader.heard_at, leader.known_at) = (None, None);
        if self.leadership.hastened != Some(leader.ballot) {
            self.leadership.hastened = Some(leader.ballot);
            out.arm(ProposerTimer::Election { soon: true });
        }
    }

    pub(super) fn others(&self) -> Servers {
        self.quorums.others(self.me)
    }
}
