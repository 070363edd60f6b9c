//! Leader election: heartbeats, pre-votes, and how a leader finds out that it no longer leads.
//!
//! Leadership is no part of the safety of Paxos. If two proposers both act as leader, they have two ballots, and the
//! acceptors know which is higher. Leadership only decides which server should try. So nothing here is durable, and a
//! wrong opinion here does no harm, but it should be corrected soon.
//!
//! A leader sends a heartbeat every 30 ms, and the others reply. A proposer without news of a leader for a random 150
//! to 300 ms campaigns, unless others still know a leader:
//!
//! - *Pre-vote.* To prepare a ballot would end a tenure. So a candidate first asks whether a majority has lost the
//!   leader too. One server with a broken cable, or back from a partition, then disturbs no other (Ongaro, *Consensus:
//!   Bridging Theory and Practice*, 2014, section 9.6, for Raft).
//! - *Leader hint.* A follower that receives heartbeats passes this on to the others. A server that can talk to some
//!   servers but not to the leader then knows that there is one. It forwards nothing to that leader, because a command
//!   goes one hop. A candidate that waits for promises sends the same hint for itself, until its time is over.
//! - *Step-down.* A leader without heartbeat replies from a majority for 300 ms steps down and waits one election
//!   time-out (the cool-down) before it campaigns. A leader with slots in flight does the same after 500 ms without
//!   progress: no page of a promise, no vote, nothing applied. Otherwise servers would follow a leader forever that can
//!   send but not receive, and that can do nothing for them. Where rounds take long, as on slow disks, it waits for
//!   longer (`pace.rs`).
//!
//! - *A server whose proposer is down.* Its acceptor still votes, so the server must not look partitioned. It replies
//!   to heartbeats and pre-votes in the proposer's place ([`in_place_of_proposer`]). Otherwise a majority of connected
//!   acceptors could be left without a leader forever.
//!
//! With these rules a cluster finds a leader as long as any one server is connected to a majority, even under partial
//! connectivity (the three cases of Ng, Haridi, Carbone, *Omni-Paxos*, EuroSys 2023; see
//! `crates/lab/src/sim/partial_partitions.rs`).
//!
//! Time is counted in *heartbeat ticks* of one 30 ms timer. A proposer that was delayed counts fewer ticks, so its own
//! delay does not look like the silence of others.
//!
//! [`Election`] is a state machine of its own. Its inputs are the messages and time-outs of this file, and its outputs
//! are messages and time-outs. It has no ballot and no log. Its functions return what the proposer must do: campaign,
//! follow or step down.

use std::collections::BTreeMap;

use super::types::{ProposerTimer, ProposerVocabulary, StepDownReason};
use crate::paxos::{Ballot, Message, Quorums};
use crate::role::{Output, ServerId, ServerSet};

/// A proposer has a leader if news of it arrived within this many heartbeat ticks: 150 ms.
const LEADER_TIMEOUT_TICKS: u64 = 5;
/// A leader without replies from a majority for this many heartbeat ticks steps down: 300 ms.
const REPLY_TIMEOUT_TICKS: u64 = 10;
/// Minimum number of heartbeat ticks between two leader hints of a follower: 60 ms.
const HINT_TICKS: u64 = 2;

/// The server's answer to this message while its proposer is down: the server is there and knows of no leader. `None`
/// if the message needs no such answer.
pub fn in_place_of_proposer(message: &Message) -> Option<Message> {
    match *message {
        Message::Heartbeat { ballot } => Some(Message::HeartbeatReply { ballot }),
        Message::PreVote { id } => Some(Message::PreVoteReply { id, hears: false }),
        _ => None,
    }
}

/// The proposer's knowledge of leaders, and its current pre-vote. See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Election {
    me: ServerId,
    quorums: Quorums,
    /// Heartbeat ticks in this incarnation.
    ticks: u64,
    /// The leader of the highest known ballot, unless it is this proposer.
    leader: Option<KnownLeader>,
    /// Number of pre-votes in this incarnation.
    pre_vote_rounds: u64,
    /// The current pre-vote.
    pre_vote: Option<PreVote>,
    /// Cool-down: one election time-out must pass before the next campaign.
    is_cooling_down: bool,
    /// The heartbeat tick of the last leader hint.
    hinted_at: Option<u64>,
    /// The last leader whose closed connection has hastened an election: each leader hastens one election only.
    early_election_for: Option<Ballot>,
    /// As a leader: the heartbeat tick of each server's last reply.
    answers: BTreeMap<ServerId, u64>,
    /// As a leader: the heartbeat tick of the last progress. Progress means that a slot was applied, a vote counted, a
    /// promise page received, or that the first slot came in flight.
    progress_at: u64,
}

/// A pre-vote in progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PreVote {
    /// The number of this pre-vote.
    id: u64,
    /// The servers that know of no leader.
    without: ServerSet,
}

/// The leader's position at a heartbeat tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeaderPosition {
    pub ballot: Ballot,
    /// Slots are in flight, or pages of promises are missing.
    pub is_busy: bool,
}

/// How a proposer knows of a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaderEvidence {
    /// The proposer itself leads.
    Leads {
        /// The acceptors that promised the ballot.
        quorum: ServerSet,
    },
    /// The leader's heartbeats arrive.
    Heartbeat,
    /// Leader hints of other servers arrive.
    Hint,
}

/// A leader as a follower knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct KnownLeader {
    ballot: Ballot,
    /// The heartbeat tick of the leader's last heartbeat; `None` if only leader hints have arrived.
    heard_at: Option<u64>,
    /// The heartbeat tick of the last news of the leader, its own or a hint; `None` if its connection has closed.
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

    /// Heartbeat ticks in this incarnation.
    pub(super) fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Number of pre-votes in this incarnation.
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

    /// The leader whose own heartbeat arrived lately.
    pub(super) fn leader_by_heartbeat(&self) -> Option<Ballot> {
        self.leader.filter(|leader| self.is_fresh(leader.heard_at)).map(|leader| leader.ballot)
    }

    /// The leader of which a heartbeat or a leader hint arrived lately.
    fn leader_by_hint(&self) -> Option<Ballot> {
        self.leader.filter(|leader| self.is_fresh(leader.known_at)).map(|leader| leader.ballot)
    }

    /// The leader to follow, and how it is known.
    pub(super) fn leader(&self) -> Option<(Ballot, LeaderEvidence)> {
        let heard = self.leader_by_heartbeat().map(|ballot| (ballot, LeaderEvidence::Heartbeat));
        heard.or_else(|| self.leader_by_hint().map(|ballot| (ballot, LeaderEvidence::Hint)))
    }

    /// That leader refused a FORWARD: its heartbeat must arrive again before anything else is forwarded to it.
    pub(super) fn suspect(&mut self, server: ServerId) {
        if let Some(leader) = self.leader.as_mut().filter(|leader| leader.ballot.server == server) {
            leader.heard_at = None;
        }
    }

    /// Starts the timers of this incarnation.
    pub(super) fn start<R: ProposerVocabulary>(&mut self, out: &mut Output<R>) {
        out.arm(ProposerTimer::HeartbeatTick);
        self.restart_election_timer(out);
    }

    /// Restarts the election time-out.
    pub(super) fn restart_election_timer<R: ProposerVocabulary>(&self, out: &mut Output<R>) {
        out.arm(ProposerTimer::Election { soon: false });
    }

    /// One heartbeat tick. A leader sends heartbeats, or gets the reason why it should step down. `patience` is the
    /// number of ticks that it may be without progress.
    pub(super) fn heartbeat_tick<R: ProposerVocabulary>(
        &mut self,
        position: Option<LeaderPosition>,
        patience: u64,
        out: &mut Output<R>,
    ) -> Option<StepDownReason> {
        self.ticks += 1;
        out.arm(ProposerTimer::HeartbeatTick);
        let LeaderPosition { ballot, is_busy: has_open } = position?;
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
        self.quorums.is_phase2_quorum(answered.chain([self.me]).collect())
    }

    /// Begins a tenure: sends heartbeats at once.
    pub(super) fn begin_tenure<R: ProposerVocabulary>(&mut self, ballot: Ballot, out: &mut Output<R>) {
        let now = self.ticks;
        self.answers = self.others().iter().map(|server| (server, now)).collect();
        self.note_progress();
        out.send(self.others(), Message::Heartbeat { ballot });
    }

    /// As a leader: notes progress, or the first slot in flight.
    pub(super) fn note_progress(&mut self) {
        self.progress_at = self.ticks;
    }

    /// Ends the tenure. A leader that made no progress cools down, so that another server campaigns first.
    pub(super) fn end_tenure<R: ProposerVocabulary>(&mut self, why: StepDownReason, out: &mut Output<R>) {
        self.is_cooling_down = matches!(why, StepDownReason::NoHeartbeatReplies | StepDownReason::Stalled);
        self.restart_election_timer(out);
    }

    /// News of a leader: HEARTBEAT if `directly`, else LEADERHINT. Returns true if this leader is to be followed. That
    /// is so unless a leader of a higher ballot is known, which a majority has promised, or the current own ballot is
    /// higher. In both cases a lower leader can do nothing, and acceptors will refuse it.
    pub(super) fn receive_leader(&mut self, ballot: Ballot, directly: bool, own_ballot: Option<Ballot>) -> bool {
        if own_ballot.is_some_and(|ours| ours > ballot) || !self.quorums.servers().contains(ballot.server) {
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

    /// Replies to the heartbeat of the leader that is followed, and sometimes sends a leader hint to the others.
    pub(super) fn reply_to_heartbeat<R: ProposerVocabulary>(&mut self, leader: Ballot, out: &mut Output<R>) {
        let sender = ServerSet::only(leader.server);
        out.send(sender, Message::HeartbeatReply { ballot: leader });
        if self.hinted_at.is_none_or(|at| self.ticks - at >= HINT_TICKS) {
            self.hinted_at = Some(self.ticks);
            out.send(self.others().without(sender), Message::LeaderHint { ballot: leader });
        }
    }

    /// HEARTBEATREPLY: a server follows this leader; `leads` is the ballot at which this proposer leads now.
    pub(super) fn handle_heartbeat_reply(&mut self, sender: ServerId, ballot: Ballot, leads: Option<Ballot>) {
        if leads == Some(ballot) && self.others().contains(sender) {
            self.answers.insert(sender, self.ticks);
        }
    }

    /// The election time-out ran out without news of a leader. Returns true if the proposer may campaign now.
    pub(super) fn time_out<R: ProposerVocabulary>(&mut self, out: &mut Output<R>) -> bool {
        self.restart_election_timer(out);
        !std::mem::take(&mut self.is_cooling_down)
    }

    /// Starts a pre-vote. Returns true if there is no other server to wait for.
    pub(super) fn start_pre_vote<R: ProposerVocabulary>(&mut self, out: &mut Output<R>) -> bool {
        self.pre_vote_rounds += 1;
        let id = self.pre_vote_rounds;
        self.pre_vote = Some(PreVote { id, without: ServerSet::NONE });
        out.send(self.others(), Message::PreVote { id });
        self.handle_pre_vote_reply(self.me, id, false)
    }

    /// Ends the campaign.
    pub(super) fn withdraw(&mut self) {
        self.pre_vote = None;
    }

    /// PREVOTE: the sender wants to campaign. The reply promises nothing.
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

    /// PREVOTEREPLY. Returns true if a majority now knows of no leader: time to prepare a ballot.
    pub(super) fn handle_pre_vote_reply(&mut self, sender: ServerId, id: u64, hears: bool) -> bool {
        let Some(pre_vote) = self.pre_vote.as_mut().filter(|pre_vote| pre_vote.id == id) else { return false };
        if hears || !self.quorums.servers().contains(sender) {
            return false;
        }
        pre_vote.without.insert(sender);
        let quorums = self.quorums;
        self.pre_vote.take_if(|pre_vote| quorums.is_phase1_quorum(pre_vote.without)).is_some()
    }

    /// The connection from a server has closed. If that server led, there is no need to wait for its silence. The
    /// pre-vote still checks whether the others agree, and each leader hastens only one election.
    pub(super) fn on_peer_disconnected<R: ProposerVocabulary>(&mut self, server: ServerId, out: &mut Output<R>) {
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

    fn new_election() -> Election {
        Election::new(S1, Quorums::majority(ServerSet::first(3)))
    }

    #[test]
    fn the_leader_of_the_highest_ballot_is_followed_unless_the_own_one_is_above() {
        let (low, high) = (Ballot { round: 3, server: S2 }, Ballot { round: 4, server: S3 });
        let mut election = new_election();
        assert_eq!(election.leader(), None);
        assert!(!election.receive_leader(low, true, Some(high)), "its own ballot at work is above");
        assert!(election.receive_leader(low, true, None));
        assert_eq!(election.leader(), Some((low, LeaderEvidence::Heartbeat)));
        assert!(election.receive_leader(high, false, Some(low)));
        assert_eq!((election.leader(), election.leader_by_heartbeat()), (Some((high, LeaderEvidence::Hint)), None));
        assert!(!election.receive_leader(low, true, None), "a later one is known");
        assert!(election.receive_leader(high, true, None));
        election.suspect(S3);
        assert_eq!(election.leader(), Some((high, LeaderEvidence::Hint)));
        assert!(
            !election.receive_leader(Ballot { round: 9, server: ServerId(4) }, true, None),
            "a server outside the cluster"
        );
    }

    #[test]
    fn pre_vote_is_won_once_by_a_majority_without_a_leader() {
        let mut election = new_election();
        election.pre_vote = Some(PreVote { id: 7, without: ServerSet::only(S1) });
        assert!(!election.handle_pre_vote_reply(S2, 6, false), "to another question");
        assert!(!election.handle_pre_vote_reply(S2, 7, true), "it has a leader");
        assert!(election.handle_pre_vote_reply(S3, 7, false));
        assert!(!election.handle_pre_vote_reply(S2, 7, false), "it campaigns already");
    }
}
