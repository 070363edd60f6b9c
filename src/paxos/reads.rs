//! Linearizable reads without writing the log: Paxos Quorum Reads (Charapko, Ailijiang, Demirbas, HotStorage 2019).
//!
//! Whatever was chosen before a read began was accepted by a majority, so a majority of acceptors asked *after* it began
//! contains one that knows the slot. The reader takes the highest slot that they name, waits until its own learner has
//! applied it, and answers. It does not matter which server is asked, or who leads.
//!
//! One round serves all reads that were waiting when it began, and never a later one: an answer that was given before a
//! read arrived may have missed a write that was acknowledged in between. For the same reason a retry is a new round
//! with a new id. The named slot may be one that some proposer left unfinished; if it is not applied in time, the learner
//! asks a proposer to `FILL` the log up to it.

use super::learner::{Learner, LearnerFact, LearnerOutcome, LearnerTimer};
use super::{Life, Message, Slot, StateMachine};
use crate::role::{Output, Server, Servers};

/// A learner keeps at most so many reads; more are refused.
pub const READS_MAX: usize = 4_096;
/// A read that is so many beats (of 100 ms) old has failed.
const READ_BEATS: u64 = 8;
/// After so many FILLs without progress the own proposer is asked too.
const FILLS_BEFORE_OWN: u32 = 5;

/// One read that waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Read<Q> {
    /// None for the read with which a learner starts: nobody waits for its answer.
    asked: Option<(u64, Q)>,
    /// The learner's beat when it arrived.
    since: u64,
}

/// A question under way to the acceptors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Round<Q> {
    id: u128,
    /// The reads that were waiting when it began.
    reads: Vec<Read<Q>>,
    answered: Servers,
    /// The highest slot named so far.
    highest: Slot,
}

/// All reads of a learner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reads<Q> {
    life: Life,
    /// Rounds of this life so far.
    rounds: u64,
    /// Reads that wait for a round to begin.
    waiting: Vec<Read<Q>>,
    round: Option<Round<Q>>,
    /// Reads whose round found this slot, which is not applied yet.
    bound: Vec<(Slot, Read<Q>)>,
    /// The [`LearnerTimer::Fill`] timer runs, and was started when this slot was the last one applied.
    filling: Option<Slot>,
    /// Who answered the last round: for the sentence that says why a read failed.
    answered: Servers,
}

impl<Q> Reads<Q> {
    pub(super) fn new(life: Life) -> Reads<Q> {
        Reads {
            life,
            rounds: 0,
            waiting: Vec::new(),
            round: None,
            bound: Vec::new(),
            filling: None,
            answered: Servers::NONE,
        }
    }

    fn len(&self) -> usize {
        self.waiting.len() + self.bound.len() + self.round.as_ref().map_or(0, |round| round.reads.len())
    }
}

impl<M: StateMachine> Learner<M> {
    /// The number of the round under way; while there is one, no read has an effect before it is over.
    pub fn round(&self) -> Option<u128> {
        self.reads.round.as_ref().map(|round| round.id)
    }

    /// A read arrived: it waits for the next round to begin.
    pub(super) fn read(&mut self, token: u64, query: M::Query, out: &mut Output<Self>) {
        if self.reads.len() >= READS_MAX {
            return out.outcome(LearnerOutcome::ReadFailed { token, answered: self.reads.answered });
        }
        self.reads.waiting.push(Read { asked: Some((token, query)), since: self.beats });
    }

    /// A learner that starts reads once, for itself: to know how far it must get.
    pub(super) fn begin_first_read(&mut self) {
        self.reads.waiting.push(Read { asked: None, since: self.beats });
    }

    /// Begins a round for all reads that wait, unless one is under way. Called when all inputs of a turn have been taken.
    pub(super) fn begin_round(&mut self, out: &mut Output<Self>) {
        if self.reads.round.is_some() || self.reads.waiting.is_empty() {
            return;
        }
        self.reads.rounds += 1;
        let id = self.reads.life.number(self.reads.rounds);
        let reads = std::mem::take(&mut self.reads.waiting);
        self.reads.round = Some(Round { id, reads, answered: Servers::NONE, highest: Slot(0) });
        out.send(self.quorums.servers(), Message::Read { id });
        out.arm(LearnerTimer::Read { id });
    }

    /// An acceptor's answer; with a majority the round is over and its reads are bound to the highest slot named.
    pub(super) fn handle_read_answer(&mut self, acceptor: Server, id: u128, slot: Slot, out: &mut Output<Self>) {
        let quorums = self.quorums;
        let Some(round) = self.reads.round.as_mut().filter(|round| round.id == id) else { return };
        if !quorums.servers().contains(acceptor) {
            return;
        }
        round.answered.insert(acceptor);
        round.highest = round.highest.max(slot);
        if !quorums.is_read(round.answered) {
            return;
        }
        let Some(round) = self.reads.round.take() else { return };
        self.reads.answered = round.answered;
        self.reads.bound.extend(round.reads.into_iter().map(|read| (round.highest, read)));
        self.answer_reads(out);
    }

    /// Answers every read whose slot is applied; makes sure that somebody works on the others'.
    pub(super) fn answer_reads(&mut self, out: &mut Output<Self>) {
        let applied = self.applied;
        for (_, read) in self.reads.bound.extract_if(.., |(slot, _)| *slot <= applied) {
            if let Some((token, query)) = read.asked {
                let answer = self.machine.query(&query);
                out.outcome(LearnerOutcome::Answer { token, slot: applied, answer });
            }
        }
        if self.reads.bound.is_empty() {
            self.reads.filling = None;
        } else if self.reads.filling != Some(applied) {
            self.reads.filling = Some(applied);
            out.arm(LearnerTimer::Fill { tries: 0 });
        }
    }

    /// A round found no majority in time: ask again, under a new id. The reads that came meanwhile join.
    pub(super) fn retry_read(&mut self, id: u128) {
        if let Some(round) = self.reads.round.take_if(|round| round.id == id) {
            self.reads.answered = round.answered;
            self.reads.waiting.splice(0..0, round.reads);
        }
    }

    /// A bound slot is still not applied: ask for the log to be filled up to it. That is the leader's work, whom the own
    /// proposer knows; without leaders the lowest-numbered living server's, and after some tries without progress one's own.
    pub(super) fn fill(&mut self, tries: u32, out: &mut Output<Self>) {
        let Some(slot) = self.reads.bound.iter().map(|(slot, _)| *slot).max() else {
            // Whoever waited has given up. The timer rests; the next read that is bound starts it again.
            self.reads.filling = None;
            return;
        };
        if self.reads.filling != Some(self.applied) {
            return;
        }
        let mut to: Servers = self.alive().iter().take(1).collect();
        if self.policy.keeps_ballot() {
            // The own proposer knows who leads.
            to = Servers::only(self.me);
        }
        if tries >= FILLS_BEFORE_OWN {
            to.insert(self.me);
        }
        out.fact(|| LearnerFact::Filled { slot, to });
        out.send(to, Message::Fill { slot });
        out.arm(LearnerTimer::Fill { tries: tries + 1 });
    }

    /// Nobody is answered any more.
    pub(super) fn fail_all_reads(&mut self, out: &mut Output<Self>) {
        let reads = &mut self.reads;
        let answered = reads.answered;
        let round = reads.round.take().map_or(Vec::new(), |round| round.reads);
        let waiting = std::mem::take(&mut reads.waiting);
        let bound = std::mem::take(&mut reads.bound).into_iter().map(|(_, read)| read);
        for (token, _) in round.into_iter().chain(waiting).chain(bound).filter_map(|read| read.asked) {
            out.outcome(LearnerOutcome::ReadFailed { token, answered });
        }
    }

    /// Reads do not wait for ever. The read with which a learner starts does: it is how a lonely learner finds its way.
    pub(super) fn give_up_old_reads(&mut self, out: &mut Output<Self>) {
        let beats = self.beats;
        let old = |read: &mut Read<M::Query>| read.asked.is_some() && beats - read.since >= READ_BEATS;
        let reads = &mut self.reads;
        let mut failed: Vec<_> = reads.waiting.extract_if(.., old).collect();
        failed.extend(reads.bound.extract_if(.., |(_, read)| old(read)).map(|(_, read)| read));
        let mut answered = reads.answered;
        if let Some(round) = &mut reads.round {
            answered = round.answered;
            failed.extend(round.reads.extract_if(.., old));
        }
        for (token, _) in failed.into_iter().filter_map(|read| read.asked) {
            out.outcome(LearnerOutcome::ReadFailed { token, answered });
        }
    }
}
