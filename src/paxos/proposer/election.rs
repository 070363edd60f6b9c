//! Who leads: heartbeats, elections, and how a leader finds out that it is none.
//!
//! Leadership is no part of what makes Paxos safe: two proposers that both take themselves for leaders have two
//! ballots, and the acceptors know the higher one. It only decides who should try. So nothing here is remembered, and
//! nothing here may be wrong in a way that matters; it should be right soon.
//!
//! A leader says every 30 ms that it is there, and is answered. Who has heard nothing of a leader for a random 150 to
//! 300 ms stands for election, unless others still hear one:
//!
//! - *Pre-vote.* Before a candidate prepares a ballot, which would end a reign, it asks whether a majority has lost the
//!   leader too. One server with a broken cable, or back from a partition, disturbs nobody (Ongaro, *Consensus:
//!   Bridging Theory and Practice*, 2014, section 9.6, for Raft).
//! - *Relay.* Who hears the leader says so to the others. A server that can talk to some servers but not to the leader
//!   then knows that there is one. It hands nothing to that leader: a command goes one hop. A candidate that waits for
//!   promises says the same of itself, until its time is up.
//! - *The leader's own doubt.* A leader that is not answered by a majority for 300 ms steps down, and lets one time-out
//!   pass before it stands; so does one that has open slots and sees nothing move for 500 ms: no page of a promise, no
//!   vote, nothing applied. Otherwise a leader that can send and not hear would be obeyed for ever by servers that it
//!   can do nothing for. Where rounds take long, as on slow disks, it waits for longer (`pace.rs`).
//!
//! - *A server without a proposer.* Its acceptor votes all the same, so it must not look like one that is cut off: its
//!   server answers heartbeats and pre-votes in the proposer's place ([`in_place_of_proposer`]). Else a majority of
//!   acceptors, all of them linked, could be left without a leader for ever.
//!
//! With these a cluster finds a leader as long as any one server is connected to a majority, also where not everybody
//! hears everybody (the three cases of Ng, Haridi, Carbone, *Omni-Paxos*, EuroSys 2023; see
//! `src/sim/partial_partitions.rs`).
//!
//! Time is counted in *pulses*, the 30 ms of one timer. A proposer that was held up counts fewer: its own delay is not
//! the silence of others.

//!
//! [`Election`] is a machine of its own: it hears the messages and time-outs of this file, and answers with messages
//! and time-outs. It has no ballot and no log. What a proposer is to do, stand, follow or step down, it returns.

use std::collections::BTreeMap;

use super::types::{ProposerTimer, ProposerVocabulary, StepDownReason};
use crate::paxos::{Ballot, Message, Quorums};
use crate::role::{Output, ServerId, ServerSet};

/// Who has heard or heard of a leader within so many pulses has one: 150 ms.
const LEADER_TIMEOUT_TICKS: u64 = 5;
/// A leader that a majority has not answered for so many pulses steps down: 300 ms.
const REPLY_TIMEOUT_TICKS: u64 = 10;
/// A follower relays at most every so many pulses: 60 ms.
const HINT_TICKS: u64 = 2;

/// What a server answers to this message while its proposer is down: it is there, and hears no leader. None if the
/// message asks for no such word.
pub fn in_place_of_proposer(message: &Message) -> Option<Message> {
    match *message {
        Message::Heartbeat { ballot } => Some(Message::HeartbeatReply { ballot }),
        Message::PreVote { id } => Some(Message::PreVoteReply { id, hears: false }),
        _ => None,
    }
}

/// What a proposer knows of leaders, and asks about them. See the head of its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Election {
    me: ServerId,
    quorums: Quorums,
    /// Pulses of this life so far.
    ticks: u64,
    /// The leader of the highest ballot heard of, unless it is this proposer.
    leader: Option<KnownLeader>,
    /// Pre-votes of this life so far.
    pre_vote_rounds: u64,
    /// The pre-vote under way.
    pre_vote: Option<PreVote>,
    /// One time-out must pass before it stands again.
    is_cooling_down: bool,
    /// The pulse of the last relay.
    hinted_at: Option<u64>,
    /// The last leader whose closed connection has brought an election forward: each can do so once.
    early_election_for: Option<Ballot>,
    /// As a leader: the pulse when each server last answered.
    answers: BTreeMap<ServerId, u64>,
    /// As a leader: the pulse when a slot was applied last, or a vote counted, or the first was opened.
    progress_at: u64,
}

/// Whether others hear a leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PreVote {
    /// Which question.
    id: u64,
    /// Who hears none.
    without: ServerSet,
}

/// What a proposer that leads says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeaderPosition {
    pub ballot: Ballot,
    /// Slots are open, or pages of promises are still to come.
    pub has_open: bool,
}

/// How a proposer knows of a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaderEvidence {
    /// It is the leader.
    Leads {
        /// Who has promised it the ballot.
        quorum: ServerSet,
    },
    /// The leader's heartbeats come.
    Heard,
    /// Others hear the leader.
    HeardOf,
}

/// A leader as a follower sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct KnownLeader {
    ballot: Ballot,
    /// The pulse when its last heartbeat came; None if it is only heard of.
    heard_at: Option<u64>,
    /// The pulse when the last word of it came, from itself or from others; None if it is known to be gone.
    known_at: Option<u64>,
}

impl Election {
    pub(super) fn new(me: ServerId, quorums: Quorums) -> Election {
        Election {
            me,
            quorums,
            ticks: 0,
            leader: None,
            pre_vote_rounds: 0,
            pre_vote: None,
            is_cooling_down: false,
            hinted_at: None,
            early_election_for: None,
            answers: BTreeMap::new(),
            progress_at: 0,
        }
    }

    /// Pulses of this life so far.
    pub(super) fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Pre-votes of this life so far.
    #[cfg(test)]
    pub(super) fn pre_vote_rounds(&self) -> u64 {
        self.pre_vote_rounds
    }

    fn others(&self) -> ServerSet {
        self.quorums.others(self.me)
    }

    fn is_fresh(&self, at: Option<u64>) -> bool {
        at.is_some_and(|at| self.ticks - at < LEADER_TIMEOUT_TICKS)
    }

    /// The leader that was heard lately, from itself.
    pub(super) fn heard_directly(&self) -> Option<Ballot> {
        self.leader.filter(|leader| self.is_fresh(leader.heard_at)).map(|leader| leader.ballot)
    }

    /// The leader that was heard, or heard of, lately.
    fn heard_of(&self) -> Option<Ballot> {
        self.leader.filter(|leader| self.is_fresh(leader.known_at)).map(|leader| leader.ballot)
    }

    /// The leader to follow, and how it is known.
    pub(super) fn leader(&self) -> Option<(Ballot, LeaderEvidence)> {
        let heard = self.heard_directly().map(|ballot| (ballot, LeaderEvidence::Heard));
        heard.or_else(|| self.heard_of().map(|ballot| (ballot, LeaderEvidence::HeardOf)))
    }

    /// That leader's word was of no use: it must be heard again before anything else is handed to it.
    pub(super) fn suspect(&mut self, server: ServerId) {
        if let Some(leader) = self.leader.as_mut().filter(|leader| leader.ballot.server == server) {
            leader.heard_at = None;
        }
    }

    /// A life begins.
    pub(super) fn start<R: ProposerVocabulary>(&mut self, out: &mut Output<R>) {
        out.arm(ProposerTimer::HeartbeatTick);
        self.wait(out);
    }

    /// Waits for a whole time-out before it stands.
    pub(super) fn wait<R: ProposerVocabulary>(&self, out: &mut Output<R>) {
        out.arm(ProposerTimer::Election { soon: false });
    }

    /// 30 ms have passed. A leader says that it is there, or hears why it should step down; it has patience for so many
    /// pulses.
    pub(super) fn heartbeat_tick<R: ProposerVocabulary>(
        &mut self,
        reign: Option<LeaderPosition>,
        patience: u64,
        out: &mut Output<R>,
    ) -> Option<StepDownReason> {
        self.ticks += 1;
        out.arm(ProposerTimer::HeartbeatTick);
        let LeaderPosition { ballot, has_open } = reign?;
        if !self.is_answered() {
            return Some(StepDownReason::NoHeartbeatReplies);
        }
        if has_open && self.ticks - self.progress_at >= patience {
            return Some(StepDownReason::Stalled);
        }
        out.send(self.others(), Message::Heartbeat { ballot });
        None
    }

    fn is_answered(&self) -> bool {
        let late = |at: u64| self.ticks - at >= REPLY_TIMEOUT_TICKS;
        let answered = self.answers.iter().filter(|(_, at)| !late(**at)).map(|(server, _)| *server);
        self.quorums.is_chosen(answered.chain([self.me]).collect())
    }

    /// It leads: it says so at once.
    pub(super) fn begin_reign<R: ProposerVocabulary>(&mut self, ballot: Ballot, out: &mut Output<R>) {
        let now = self.ticks;
        self.answers = self.others().iter().map(|server| (server, now)).collect();
        self.note_progress();
        out.send(self.others(), Message::Heartbeat { ballot });
    }

    /// As a leader: there is something to apply again, or something was heard of it.
    pub(super) fn note_progress(&mut self) {
        self.progress_at = self.ticks;
    }

    /// It leads no longer. A leader that could do nothing lets others stand first.
    pub(super) fn end_reign<R: ProposerVocabulary>(&mut self, why: StepDownReason, out: &mut Output<R>) {
        self.is_cooling_down = matches!(why, StepDownReason::NoHeartbeatReplies | StepDownReason::Stalled);
        self.wait(out);
    }

    /// HEARTBEAT, or a RELAY of one: somebody leads. True if it is to be followed, since no later leader is known,
    /// which a majority has promised, and the own ballot at work is not above: then this one can do nothing, and will
    /// hear of it.
    pub(super) fn hear(&mut self, ballot: Ballot, directly: bool, at_work: Option<Ballot>) -> bool {
        if at_work.is_some_and(|ours| ours > ballot) || !self.quorums.servers().contains(ballot.server) {
            return false;
        }
        let before = self.leader.filter(|leader| leader.ballot >= ballot);
        if before.is_some_and(|leader| leader.ballot > ballot) {
            return false;
        }
        let now = Some(self.ticks);
        let heard_at = if directly { now } else { before.and_then(|leader| leader.heard_at) };
        self.leader = Some(KnownLeader { ballot, heard_at, known_at: now });
        (self.pre_vote, self.is_cooling_down) = (None, false);
        true
    }

    /// Answers the heartbeat of a leader that is followed, and now and then says to the others that it was heard.
    pub(super) fn answer_heartbeat<R: ProposerVocabulary>(&mut self, leader: Ballot, out: &mut Output<R>) {
        let sender = ServerSet::only(leader.server);
        out.send(sender, Message::HeartbeatReply { ballot: leader });
        if self.hinted_at.is_none_or(|at| self.ticks - at >= HINT_TICKS) {
            self.hinted_at = Some(self.ticks);
            out.send(self.others().without(sender), Message::LeaderHint { ballot: leader });
        }
    }

    /// HEARTBEATREPLY: a server hears this leader, if it `leads` at that ballot still.
    pub(super) fn handle_heartbeat_answer(&mut self, sender: ServerId, ballot: Ballot, leads: Option<Ballot>) {
        if leads == Some(ballot) && self.others().contains(sender) {
            self.answers.insert(sender, self.ticks);
        }
    }

    /// No word of a leader for a whole time-out. True if it may stand now.
    pub(super) fn time_out<R: ProposerVocabulary>(&mut self, out: &mut Output<R>) -> bool {
        self.wait(out);
        !std::mem::take(&mut self.is_cooling_down)
    }

    /// Asks whether a majority has lost the leader too. True if there is nobody to wait for.
    pub(super) fn ask<R: ProposerVocabulary>(&mut self, out: &mut Output<R>) -> bool {
        self.pre_vote_rounds += 1;
        let id = self.pre_vote_rounds;
        self.pre_vote = Some(PreVote { id, without: ServerSet::NONE });
        out.send(self.others(), Message::PreVote { id });
        self.handle_pre_vote_answer(self.me, id, false)
    }

    /// It stands no more.
    pub(super) fn withdraw(&mut self) {
        self.pre_vote = None;
    }

    /// PREVOTE: somebody would stand. Nothing is promised by the answer.
    pub(super) fn handle_pre_vote<R: ProposerVocabulary>(
        &self,
        sender: ServerId,
        id: u64,
        leads: bool,
        out: &mut Output<R>,
    ) {
        let hears = leads || self.leader().is_some();
        out.send(ServerSet::only(sender), Message::PreVoteReply { id, hears });
    }

    /// PREVOTEREPLY. True if with it a majority hears of no leader: time to prepare a ballot.
    pub(super) fn handle_pre_vote_answer(&mut self, sender: ServerId, id: u64, hears: bool) -> bool {
        let Some(pre_vote) = self.pre_vote.as_mut().filter(|pre_vote| pre_vote.id == id) else { return false };
        if hears || !self.quorums.servers().contains(sender) {
            return false;
        }
        pre_vote.without.insert(sender);
        let quorums = self.quorums;
        self.pre_vote.take_if(|pre_vote| quorums.is_prepared(pre_vote.without)).is_some()
    }

    /// The connection from a server has closed. If it led, there is no need to wait for its silence. That is only an
    /// opinion until the others share it, and each leader's end hastens one election.
    pub(super) fn peer_gone<R: ProposerVocabulary>(&mut self, server: ServerId, out: &mut Output<R>) {
        let Some(leader) = self.leader.as_mut().filter(|leader| leader.ballot.server == server) else {
            return;
        };
        (leader.heard_at, leader.known_at) = (None, None);
        if self.early_election_for != Some(leader.ballot) {
            self.early_election_for = Some(leader.ballot);
            out.arm(ProposerTimer::Election { soon: true });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S1: ServerId = ServerId(1);
    const S2: ServerId = ServerId(2);
    const S3: ServerId = ServerId(3);

    fn begun() -> Election {
        Election::new(S1, Quorums::majority(ServerSet::first(3)))
    }

    #[test]
    fn the_leader_of_the_highest_ballot_is_followed_unless_the_own_one_is_above() {
        let (low, high) = (Ballot { round: 3, server: S2 }, Ballot { round: 4, server: S3 });
        let mut election = begun();
        assert_eq!(election.leader(), None);
        assert!(!election.hear(low, true, Some(high)), "its own ballot at work is above");
        assert!(election.hear(low, true, None));
        assert_eq!(election.leader(), Some((low, LeaderEvidence::Heard)));
        assert!(election.hear(high, false, Some(low)));
        assert_eq!((election.leader(), election.heard_directly()), (Some((high, LeaderEvidence::HeardOf)), None));
        assert!(!election.hear(low, true, None), "a later one is known");
        assert!(election.hear(high, true, None));
        election.suspect(S3);
        assert_eq!(election.leader(), Some((high, LeaderEvidence::HeardOf)));
        assert!(!election.hear(Ballot { round: 9, server: ServerId(4) }, true, None), "a stranger");
    }

    #[test]
    fn a_pre_vote_is_won_once_by_a_majority_that_hears_no_leader() {
        let mut election = begun();
        election.pre_vote = Some(PreVote { id: 7, without: ServerSet::only(S1) });
        assert!(!election.handle_pre_vote_answer(S2, 6, false), "to another question");
        assert!(!election.handle_pre_vote_answer(S2, 7, true), "it hears a leader");
        assert!(election.handle_pre_vote_answer(S3, 7, false));
        assert!(!election.handle_pre_vote_answer(S2, 7, false), "it stands already");
    }
}
