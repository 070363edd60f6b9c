//! Linearizable reads without a log entry: Paxos Quorum Reads (Charapko, Ailijiang, Demirbas, HotStorage 2019).
//!
//! Every value chosen before a read began was accepted by a majority. So any majority of acceptors asked *after* the
//! read began contains one that knows the slot. The reader takes the highest slot that they name, waits until its own
//! learner has applied it, and answers. It does not matter which server is asked, or which server leads.
//!
//! One round serves all reads that were waiting when it began, and never a later read. An acceptor's answer given
//! before a read arrived may miss a write that was acknowledged in between. For the same reason a retry is a new round
//! with a new id. The named slot may have been left unfinished by its proposer. If it is not applied in time, the
//! learner asks a proposer to `FILL` the log up to it. Only a proposer can find out the slot's value (*Paxos Made
//! Simple*, section 2.3).
//!
//! [`QuorumReads`] knows for which slot each read waits, and nothing of the log. Its learner reports the applied slot,
//! sends the READs, and answers from its state.

use crate::paxos::{Incarnation, Quorums, Slot};
use crate::role::{ServerId, ServerSet};

/// Maximum number of waiting reads; more are refused.
pub const READS_MAX: usize = 4_096;
/// A read fails at this age, in ticks of 100 ms.
const READ_TIMEOUT_TICKS: u64 = 8;
/// After this many FILLs without progress the own proposer is asked too.
const FILL_TRIES_BEFORE_SELF: u32 = 5;

/// One waiting read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PendingRead<Q> {
    /// The token and the query; `None` for the learner's start-up read, which nothing waits for.
    asked: Option<(u64, Q)>,
    /// The learner's tick when the read arrived.
    since: u64,
}

/// A round of reads in flight to the acceptors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ReadRound<Q> {
    id: u128,
    /// The reads that were waiting when the round began.
    reads: Vec<PendingRead<Q>>,
    answered: ServerSet,
    /// The highest slot named so far.
    highest: Slot,
}

/// All reads of a learner. See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct QuorumReads<Q> {
    incarnation: Incarnation,
    /// Number of rounds in this incarnation.
    rounds: u64,
    /// Reads that wait for the next round.
    waiting: Vec<PendingRead<Q>>,
    round: Option<ReadRound<Q>>,
    /// Reads that wait until this slot, found by their round, is applied.
    waiting_for_slot: Vec<(Slot, PendingRead<Q>)>,
    /// If the fill timer runs: the last slot applied when it started.
    filling: Option<Slot>,
    /// The acceptors that answered the last round, to explain why a read failed.
    answered: ServerSet,
}

/// Reads that failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub tokens: Vec<u64>,
    /// The acceptors that answered the last round.
    pub answered: ServerSet,
}

/// The request that a proposer fills slots.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fill {
    /// The highest slot to be filled.
    pub slot: Slot,
    /// The servers asked before did not help: the own proposer is asked too.
    pub is_urgent: bool,
}

impl<Q> QuorumReads<Q> {
    pub(super) fn new(incarnation: Incarnation) -> QuorumReads<Q> {
        QuorumReads {
            incarnation,
            rounds: 0,
            waiting: Vec::new(),
            round: None,
            waiting_for_slot: Vec::new(),
            filling: None,
            answered: ServerSet::NONE,
        }
    }

    /// The number of the round in flight.
    pub(super) fn round(&self) -> Option<u128> {
        self.round.as_ref().map(|round| round.id)
    }

    fn len(&self) -> usize {
        self.waiting.len() + self.waiting_for_slot.len() + self.round.as_ref().map_or(0, |round| round.reads.len())
    }

    /// Adds a read, which waits for the next round. If there is no room, the error names the acceptors that answered
    /// the last round.
    pub(super) fn ask(&mut self, token: u64, query: Q, now: u64) -> Result<(), ServerSet> {
        if self.len() >= READS_MAX {
            return Err(self.answered);
        }
        self.waiting.push(PendingRead { asked: Some((token, query)), since: now });
        Ok(())
    }

    /// Adds the start-up read, with which a learner finds out how far it must get.
    pub(super) fn ask_for_itself(&mut self, now: u64) {
        self.waiting.push(PendingRead { asked: None, since: now });
    }

    /// Begins a round for all waiting reads, unless one is in flight. Returns its number, with which every acceptor is
    /// asked.
    pub(super) fn begin_round(&mut self) -> Option<u128> {
        if self.round.is_some() || self.waiting.is_empty() {
            return None;
        }
        self.rounds += 1;
        let id = self.incarnation.unique_id(self.rounds);
        let reads = std::mem::take(&mut self.waiting);
        self.round = Some(ReadRound { id, reads, answered: ServerSet::NONE, highest: Slot(0) });
        Some(id)
    }

    /// Takes an acceptor's answer. Returns true if it ends the round: the reads of the round now wait for the highest
    /// slot named.
    pub(super) fn take_answer(&mut self, acceptor: ServerId, id: u128, slot: Slot, quorums: &Quorums) -> bool {
        let Some(round) = self.round.as_mut().filter(|round| round.id == id) else { return false };
        if !quorums.servers().contains(acceptor) {
            return false;
        }
        round.answered.insert(acceptor);
        round.highest = round.highest.max(slot);
        if !quorums.is_read(round.answered) {
            return false;
        }
        let Some(round) = self.round.take() else { return false };
        self.answered = round.answered;
        self.waiting_for_slot.extend(round.reads.into_iter().map(|read| (round.highest, read)));
        true
    }

    /// A round found no majority in time: its reads join the next round, which has a new id.
    pub(super) fn retry(&mut self, id: u128) {
        if let Some(round) = self.round.take_if(|round| round.id == id) {
            self.answered = round.answered;
            self.waiting.splice(0..0, round.reads);
        }
    }

    /// The reads whose slot is applied, to be answered now.
    pub(super) fn ready(&mut self, applied: Slot) -> impl Iterator<Item = (u64, Q)> {
        self.waiting_for_slot.extract_if(.., move |(slot, _)| *slot <= applied).filter_map(|(_, read)| read.asked)
    }

    /// Whether to start the fill timer. It starts if reads wait for a slot that is not applied, and the log has just
    /// grown or the reads have just begun to wait.
    pub(super) fn starts_to_fill(&mut self, applied: Slot) -> bool {
        if self.waiting_for_slot.is_empty() {
            self.filling = None;
            return false;
        }
        self.filling.replace(applied) != Some(applied)
    }

    /// The fill timer ran out for the `tries`-th time. Returns the request for a proposer, unless the log has grown
    /// since the timer started.
    pub(super) fn fill(&mut self, applied: Slot, tries: u32) -> Option<Fill> {
        let Some(slot) = self.waiting_for_slot.iter().map(|(slot, _)| *slot).max() else {
            // All these reads have failed. The next read that waits for a slot starts the timer again.
            self.filling = None;
            return None;
        };
        (self.filling == Some(applied)).then_some(Fill { slot, is_urgent: tries >= FILL_TRIES_BEFORE_SELF })
    }

    /// Fails all reads.
    pub(super) fn fail_all(&mut self) -> Failed {
        let round = self.round.take().map_or(Vec::new(), |round| round.reads);
        let waiting = std::mem::take(&mut self.waiting);
        let bound = std::mem::take(&mut self.waiting_for_slot).into_iter().map(|(_, read)| read);
        let all = round.into_iter().chain(waiting).chain(bound);
        let tokens = all.filter_map(|read| read.asked).map(|(token, _)| token).collect();
        Failed { tokens, answered: self.answered }
    }

    /// Fails old reads. The learner's start-up read does not time out: an isolated learner retries it until it can
    /// catch up.
    pub(super) fn fail_old(&mut self, now: u64) -> Failed {
        let old = |read: &mut PendingRead<Q>| read.asked.is_some() && now - read.since >= READ_TIMEOUT_TICKS;
        let mut failed: Vec<_> = self.waiting.extract_if(.., old).collect();
        failed.extend(self.waiting_for_slot.extract_if(.., |(_, read)| old(read)).map(|(_, read)| read));
        let mut answered = self.answered;
        if let Some(round) = &mut self.round {
            answered = round.answered;
            failed.extend(round.reads.extract_if(.., old));
        }
        let tokens = failed.into_iter().filter_map(|read| read.asked).map(|(token, _)| token).collect();
        Failed { tokens, answered }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(reads: &mut QuorumReads<char>, applied: u64) -> Vec<(u64, char)> {
        reads.ready(Slot(applied)).collect()
    }

    #[test]
    fn a_read_waits_for_the_highest_slot_that_a_majority_names_and_a_later_one_for_its_own_round() {
        let quorums = Quorums::majority(ServerSet::first(3));
        let mut reads = QuorumReads::new(Incarnation(1));
        assert_eq!(reads.begin_round(), None, "no read is pending");
        reads.ask(1, 'a', 0).expect("there is space");
        let first = reads.begin_round().expect("a read waits");
        reads.ask(2, 'b', 0).expect("there is space");
        assert_eq!(reads.begin_round(), None, "one round at a time");
        assert!(!reads.take_answer(ServerId(1), first, Slot(7), &quorums));
        assert!(!reads.take_answer(ServerId(1), first, Slot(7), &quorums), "that one has answered already");
        assert!(!reads.take_answer(ServerId(2), first + 1, Slot(9), &quorums), "to another question");
        assert!(reads.take_answer(ServerId(2), first, Slot(3), &quorums));
        assert_eq!(ready(&mut reads, 6), []);
        assert!(reads.starts_to_fill(Slot(6)) && !reads.starts_to_fill(Slot(6)));
        assert_eq!(reads.fill(Slot(6), 0), Some(Fill { slot: Slot(7), is_urgent: false }));
        assert_eq!(ready(&mut reads, 7), [(1, 'a')]);
        assert!(!reads.starts_to_fill(Slot(7)), "no read waits");
        let second = reads.begin_round().expect("the other read waits");
        assert_ne!(first, second);
        reads.retry(second);
        assert!(reads.begin_round().is_some_and(|third| third != second), "an old answer is never counted");
        assert_eq!(reads.fail_all(), Failed { tokens: vec![2], answered: ServerSet::NONE });
    }
}
