//! The participant: votes, persists its votes, holds the locks, and applies what was decided. It is also the store.

use std::collections::BTreeMap;

use super::types::{
    IN_DOUBT_CHECK_MS, InDoubtTransaction, ParticipantNotification, ParticipantRecord, ParticipantRequest,
    ParticipantTimer, ParticipantTraceEvent,
};
use super::{CommitMessage, Decision, InquiryReply, Lock, TransactionBody, TransactionId, Vote, VoteNoReason, rules};
use crate::kv::{ApplyResult, Kv, KvCommand, PredictedResult, ReadQuery};
use crate::paxos::{Slot, StateMachine};
use crate::role::{Input, Output, Role, ServerId, ServerSet};

/// Maximum number of transactions that a participant is prepared for at a time.
const PREPARED_MAX: usize = 4_096;
/// Number of decisions that a participant keeps. A vote request for an older transaction is refused.
pub const DECIDED_MAX: usize = 4_096;
/// Looks without a decision after which a prepared participant inquires: 200 to 300 ms.
const ASK_AFTER: u32 = 3;
/// The interval between inquiries doubles up to this number of looks.
const ASK_AGAIN_MAX: u32 = 8;
/// Looks without a decision after which a prepared participant reports itself blocked; reported again after twice as
/// many.
const BLOCKED_AFTER: u32 = 5;
/// Maximum number of looks that a read waits for a lock: 0.8 s.
const READ_MAX: u32 = 8;

/// A transaction that it has voted yes for, and whose decision it does not know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PreparedTransaction {
    work: TransactionBody,
    command: KvCommand,
    /// Looks since it voted, since its incarnation began, or since the coordinator answered that it still counts votes.
    looks: u32,
    /// Servers that have answered since the last inquiry that they are prepared as well.
    others: ServerSet,
    /// It has reported itself blocked.
    is_blocked: bool,
}

/// A read that waits for a lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct BlockedRead {
    token: u64,
    query: ReadQuery,
    looks: u32,
}

/// A participant. See the [module's essay](super).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Participant {
    me: ServerId,
    servers: ServerSet,
    kv: Kv,
    prepared: BTreeMap<TransactionId, PreparedTransaction>,
    /// The transaction that holds each lock: always the locks of those in `prepared`.
    locks: BTreeMap<Lock, TransactionId>,
    /// The latest decisions, at most [`DECIDED_MAX`].
    decided: BTreeMap<TransactionId, Decision>,
    /// For transactions up to this one the decision is no longer kept: they are decided, or will never be applied here.
    forgotten: TransactionId,
    /// Number of transactions committed here.
    applied: u64,
    /// The highest transaction number received.
    clock: u64,
    reads: Vec<BlockedRead>,
    /// Aborts whose record waits for another record; no message waits for it.
    aborted: Vec<TransactionId>,
    looks: bool,
}

impl Participant {
    /// A participant without any records. All participants of a cluster must have the same limit of sessions.
    pub fn new(me: ServerId, servers: ServerSet, kv: Kv) -> Participant {
        Participant {
            me,
            servers,
            kv,
            prepared: BTreeMap::new(),
            locks: BTreeMap::new(),
            decided: BTreeMap::new(),
            forgotten: TransactionId::ZERO,
            applied: 0,
            clock: 0,
            reads: Vec::new(),
            aborted: Vec::new(),
            looks: false,
        }
    }

    /// The store.
    pub fn kv(&self) -> &Kv {
        &self.kv
    }

    /// Number of transactions committed here.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The transactions that it is prepared for.
    pub fn in_doubt(&self) -> impl Iterator<Item = InDoubtTransaction> {
        self.prepared.iter().map(|(transaction, prepared)| InDoubtTransaction {
            transaction: *transaction,
            key: match &prepared.command {
                KvCommand::Open { .. } => None,
                KvCommand::Write { op, .. } => Some(op.key().to_vec()),
            },
            waited_ms: u64::from(prepared.looks) * IN_DOUBT_CHECK_MS,
            is_blocked: prepared.is_blocked,
        })
    }

    /// Number of transactions that it is prepared for.
    pub fn in_doubt_count(&self) -> usize {
        self.prepared.len()
    }

    /// The decision on a transaction, if it is still kept.
    pub fn decision(&self, transaction: TransactionId) -> Option<Decision> {
        self.decided.get(&transaction).copied()
    }

    /// Whether it may have applied this transaction: the decision was commit, or is no longer kept.
    pub fn may_have_done(&self, transaction: TransactionId) -> bool {
        self.decision(transaction).map_or(transaction <= self.forgotten, |decision| decision == Decision::Commit)
    }

    // ---- voting

    fn handle_vote_request(
        &mut self,
        from: ServerId,
        transaction: TransactionId,
        work: TransactionBody,
        out: &mut Output<Self>,
    ) {
        self.clock = self.clock.max(transaction.number);
        let Some(vote) = self.consider(transaction, &work, out) else { return };
        let clock = self.clock;
        out.emit_step(|| ParticipantTraceEvent::Voted { transaction, work, vote, to: from });
        out.send(ServerSet::only(from), CommitMessage::Vote { transaction, vote, clock });
        self.keep_looking(out);
    }

    /// The vote on a transaction; None if it is already applied, so that no coordinator waits for the vote.
    fn consider(&mut self, transaction: TransactionId, work: &TransactionBody, out: &mut Output<Self>) -> Option<Vote> {
        if let Some(prepared) = self.prepared.get(&transaction) {
            // Its key is locked, so its effect is still the same; later changes of its session do not matter.
            return Some(match &prepared.command {
                KvCommand::Write { op, .. } => Vote::Yes(Some(self.kv.store().foresee(op))),
                KvCommand::Open { .. } => Vote::Yes(None),
            });
        }
        match rules::decision_before_a_vote(&self.decided, transaction) {
            Some(Decision::Commit) => return None,
            Some(Decision::Abort) => return Some(Vote::No(VoteNoReason::Late)),
            None if transaction <= self.forgotten => return Some(Vote::No(VoteNoReason::Late)),
            None => {}
        }
        let Ok(command) = KvCommand::from_paxos(&work.command) else {
            return Some(Vote::No(VoteNoReason::Settled(ApplyResult::Unreadable)));
        };
        if self.prepared.len() >= PREPARED_MAX {
            return Some(Vote::No(VoteNoReason::Busy));
        }
        let would = match self.judge(&command, work.evict) {
            Ok(would) => would,
            Err(refusal) => return Some(Vote::No(refusal)),
        };
        // Durable before the vote is sent: a restart keeps the promise and the lock.
        self.persist(ParticipantRecord::Prepared { transaction, work: work.clone() }, out);
        self.locks.insert(Lock::of(&command), transaction);
        self.prepare(transaction, work.clone(), command);
        Some(Vote::Yes(would))
    }

    /// Whether a command can be applied here, and its effect.
    fn judge(&self, command: &KvCommand, evict: Option<u64>) -> Result<Option<crate::kv::WriteResult>, VoteNoReason> {
        let foreseen = self.kv.predict(command);
        if let PredictedResult::Settled(outcome) = foreseen {
            let by = self.still_to_be_opened(command, evict).filter(|_| outcome == ApplyResult::Expired);
            return Err(by.map_or(VoteNoReason::Settled(outcome), VoteNoReason::Locked));
        }
        if let Some(by) = self.still_to_be_opened(command, evict) {
            return Err(VoteNoReason::Locked(by));
        }
        if let Some(by) = self.locks.get(&Lock::of(command)) {
            return Err(VoteNoReason::Locked(*by));
        }
        if let Some(by) = self.session_in_the_way(command, evict) {
            return Err(VoteNoReason::Locked(by));
        }
        match foreseen {
            PredictedResult::Writes(written) => Ok(Some(written)),
            PredictedResult::Opens | PredictedResult::Settled(_) => self.check_session_space(evict).map(|()| None),
        }
    }

    /// The prepared transaction that opens the session which the command writes in or evicts. A command that names this
    /// session proves that it is committed elsewhere.
    fn still_to_be_opened(&self, command: &KvCommand, evict: Option<u64>) -> Option<TransactionId> {
        let session = match command {
            KvCommand::Write { session, .. } => Some(*session),
            KvCommand::Open { .. } => evict,
        };
        let opened_by = session.map(|session| TransactionId::of_slot(Slot(session)));
        opened_by.filter(|transaction| self.prepared.contains_key(transaction))
    }

    /// A session must not be removed while one of its writes is in flight, and no write may begin while its session is
    /// being removed.
    fn session_in_the_way(&self, command: &KvCommand, evict: Option<u64>) -> Option<TransactionId> {
        let is_in_the_way = |other: &PreparedTransaction| match (&other.command, command) {
            (KvCommand::Write { session, .. }, KvCommand::Open { .. }) => evict == Some(*session),
            (KvCommand::Open { .. }, KvCommand::Write { session, .. }) => other.work.evict == Some(*session),
            (KvCommand::Open { .. }, KvCommand::Open { .. }) => evict.is_some() && other.work.evict == evict,
            (KvCommand::Write { .. }, KvCommand::Write { .. }) => false,
        };
        self.prepared.iter().find(|(_, other)| is_in_the_way(other)).map(|(transaction, _)| *transaction)
    }

    fn check_session_space(&self, evict: Option<u64>) -> Result<(), VoteNoReason> {
        let sessions = self.kv.sessions();
        if evict.is_some_and(|evicted| sessions.contains(evicted)) {
            return Ok(());
        }
        let is_one_more = |other: &&PreparedTransaction| {
            matches!(other.command, KvCommand::Open { .. }) && other.work.evict.is_none()
        };
        let coming = self.prepared.values().filter(is_one_more).count();
        if sessions.len() + coming < sessions.most() {
            return Ok(());
        }
        sessions.stalest().map_or(Err(VoteNoReason::Busy), |oldest| Err(VoteNoReason::Full(oldest)))
    }

    fn prepare(&mut self, transaction: TransactionId, work: TransactionBody, command: KvCommand) {
        let prepared = PreparedTransaction { work, command, looks: 0, others: ServerSet::NONE, is_blocked: false };
        self.prepared.insert(transaction, prepared);
    }

    // ---- the decision

    fn handle_decide(
        &mut self,
        from: ServerId,
        transaction: TransactionId,
        decision: Decision,
        out: &mut Output<Self>,
    ) {
        if self.prepared.contains_key(&transaction) {
            return self.finish(transaction, decision, out);
        }
        if decision == Decision::Abort {
            return;
        }
        let known = self.decided.get(&transaction);
        assert!(
            known == Some(&Decision::Commit) || (known.is_none() && transaction <= self.forgotten),
            "{transaction} is committed, but here it was aborted or never prepared: {known:?}"
        );
        // The earlier ACK was lost.
        out.send(ServerSet::only(from), CommitMessage::Ack { transaction });
    }

    fn finish(&mut self, transaction: TransactionId, decision: Decision, out: &mut Output<Self>) {
        let Some(work) = self.prepared.get(&transaction).map(|prepared| prepared.work.clone()) else { return };
        match decision {
            Decision::Commit => {
                // Durable before the ACK: after the last ACK the coordinator drops its own record.
                self.persist(ParticipantRecord::Committed(transaction), out);
                let Some(outcome) = self.settle(transaction, decision) else { return };
                let (applied, to) = (self.applied, transaction.coordinator);
                out.emit_step(|| ParticipantTraceEvent::Committed { transaction, work, outcome, applied, to });
                out.send(ServerSet::only(to), CommitMessage::Ack { transaction });
            }
            Decision::Abort => {
                // An abort that a crash loses is asked for again, and the answer is the same.
                self.aborted.push(transaction);
                self.settle(transaction, decision);
                out.emit_step(|| ParticipantTraceEvent::Aborted { transaction, work });
            }
        }
        self.answer_reads(out);
    }

    /// Applies or drops a prepared transaction, and frees its lock. Returns the result if it was applied.
    fn settle(&mut self, transaction: TransactionId, decision: Decision) -> Option<ApplyResult> {
        let prepared = self.prepared.remove(&transaction);
        self.record_decision(transaction, decision);
        let PreparedTransaction { work, command, .. } = prepared?;
        let lock = Lock::of(&command);
        if self.locks.get(&lock) == Some(&transaction) {
            self.locks.remove(&lock);
        }
        if decision == Decision::Abort {
            return None;
        }
        self.applied += 1;
        Some(self.kv.commit(transaction.as_slot(), &command, work.evict))
    }

    fn record_decision(&mut self, transaction: TransactionId, decision: Decision) {
        self.decided.insert(transaction, decision);
        while self.decided.len() > DECIDED_MAX {
            if let Some((oldest, _)) = self.decided.pop_first() {
                self.forgotten = self.forgotten.max(oldest);
            }
        }
    }

    /// Writes a record, together with the aborts that waited for one.
    fn persist(&mut self, record: ParticipantRecord, out: &mut Output<Self>) {
        for aborted in std::mem::take(&mut self.aborted) {
            out.persist(ParticipantRecord::Aborted(aborted));
        }
        out.persist(record);
    }

    // ---- in doubt

    /// Another participant is in doubt.
    fn handle_inquire(&mut self, from: ServerId, transaction: TransactionId, out: &mut Output<Self>) {
        if from == self.me {
            return;
        }
        let known = match self.decided.get(&transaction) {
            Some(decision) => InquiryReply::Decided(*decision),
            None if self.prepared.contains_key(&transaction) => InquiryReply::Prepared,
            // The decision is no longer kept; it may have been commit.
            None if transaction <= self.forgotten => return,
            // It has not voted for the transaction. It may still say no, and is bound by that answer forever.
            None => {
                self.persist(ParticipantRecord::Aborted(transaction), out);
                self.record_decision(transaction, Decision::Abort);
                out.emit_step(|| ParticipantTraceEvent::GivenUp { transaction, to: from });
                InquiryReply::Decided(Decision::Abort)
            }
        };
        out.emit_step(|| ParticipantTraceEvent::Answered { transaction, known, to: from });
        out.send(ServerSet::only(from), CommitMessage::Answer { transaction, known });
    }

    fn handle_answer(
        &mut self,
        from: ServerId,
        transaction: TransactionId,
        known: InquiryReply,
        out: &mut Output<Self>,
    ) {
        let Some(prepared) = self.prepared.get_mut(&transaction) else { return };
        match known {
            InquiryReply::Decided(decision) => self.finish(transaction, decision, out),
            InquiryReply::Prepared => {
                // A prepared peer cannot decide either; it is only counted in the report.
                prepared.others.insert(from);
            }
            // prepared.looks = 0, => The coordinator is up and will decide, so the waiting time starts again.
            InquiryReply::Voting => prepared.looks = 0,
        }
    }

    fn inquire(&mut self, transaction: TransactionId, out: &mut Output<Self>) {
        let to = self.servers;
        let Some(prepared) = self.prepared.get_mut(&transaction) else { return };
        prepared.others = ServerSet::NONE;
        let work = prepared.work.clone();
        out.emit_step(|| ParticipantTraceEvent::Inquired { transaction, work, to });
        out.send(to, CommitMessage::Inquire { transaction });
    }

    fn handle_look(&mut self, out: &mut Output<Self>) {
        self.looks = false;
        let mut asks = Vec::new();
        let everybody = self.servers;
        for (transaction, prepared) in &mut self.prepared {
            prepared.looks = prepared.looks.saturating_add(1);
            let looks = prepared.looks;
            if looks.is_multiple_of(BLOCKED_AFTER) && (looks / BLOCKED_AFTER).is_power_of_two() {
                prepared.is_blocked = true;
                let both = prepared.others.iter().chain([self.me]).collect::<ServerSet>();
                let silent = everybody.without(both);
                let (transaction, work, waited_ms) =
                    (*transaction, prepared.work.clone(), u64::from(looks) * IN_DOUBT_CHECK_MS);
                out.emit_always(ParticipantTraceEvent::Blocked {
                    transaction,
                    work,
                    prepared: both,
                    silent,
                    waited_ms,
                });
            }
            let before = looks - 1;
            if looks >= ASK_AFTER && (before.is_power_of_two() || before.is_multiple_of(ASK_AGAIN_MAX)) {
                asks.push(*transaction);
            }
        }
        for transaction in asks {
            self.inquire(transaction, out);
        }
        self.give_up_reads(out);
        self.keep_looking(out);
    }

    fn keep_looking(&mut self, out: &mut Output<Self>) {
        let has_cause = !self.prepared.is_empty() || !self.reads.is_empty();
        if has_cause && !std::mem::replace(&mut self.looks, true) {
            out.arm(ParticipantTimer::Look);
        }
    }

    // ---- reads

    fn handle_read(&mut self, token: u64, query: ReadQuery, out: &mut Output<Self>) {
        // The write that holds the lock may be committed elsewhere already; an answer now could miss it.
        if let Some(by) = self.holder(&query) {
            out.emit_step(|| ParticipantTraceEvent::ReadWaits { by, query: query.clone() });
            self.reads.push(BlockedRead { token, query, looks: 0 });
            return self.keep_looking(out);
        }
        self.answer(token, &query, out);
    }

    /// The transaction that holds a key.
    fn holder(&self, query: &ReadQuery) -> Option<TransactionId> {
        self.locks.get(&Lock::Key(query.key.clone())).copied()
    }

    fn answer(&self, token: u64, query: &ReadQuery, out: &mut Output<Self>) {
        out.notify(ParticipantNotification::Answer { token, applied: self.applied, answer: self.kv.query(query) });
    }

    /// Answers the reads whose key is free.
    fn answer_reads(&mut self, out: &mut Output<Self>) {
        let (free, waiting) =
            std::mem::take(&mut self.reads).into_iter().partition(|read| self.holder(&read.query).is_none());
        self.reads = waiting;
        for BlockedRead { token, query, .. } in free {
            self.answer(token, &query, out);
        }
    }

    fn give_up_reads(&mut self, out: &mut Output<Self>) {
        for read in &mut self.reads {
            read.looks += 1;
        }
        for read in self.reads.extract_if(.., |read| read.looks >= READ_MAX).collect::<Vec<_>>() {
            match self.holder(&read.query) {
                Some(by) => out.notify(ParticipantNotification::ReadFailed { token: read.token, by }),
                None => self.answer(read.token, &read.query, out),
            }
        }
    }
}

impl Role for Participant {
    type Message = CommitMessage;
    type Record = ParticipantRecord;
    type Timer = ParticipantTimer;
    type Request = ParticipantRequest;
    type Notification = ParticipantNotification;
    type TraceEvent = ParticipantTraceEvent;

    fn replay(&mut self, record: ParticipantRecord) {
        match record {
            ParticipantRecord::Prepared { transaction, work } => {
                self.clock = self.clock.max(transaction.number);
                if let Ok(command) = KvCommand::from_paxos(&work.command) {
                    if rules::locks_outlive_a_crash() {
                        self.locks.insert(Lock::of(&command), transaction);
                    }
                    self.prepare(transaction, work, command);
                }
            }
            ParticipantRecord::Committed(transaction) => {
                self.settle(transaction, Decision::Commit);
            }
            ParticipantRecord::Aborted(transaction) => {
                self.settle(transaction, Decision::Abort);
            }
        }
    }

    fn step(&mut self, input: Input<Self>, out: &mut Output<Self>) {
        match input {
            // Transactions that were prepared before the crash may be decided by now.
            Input::Start => {
                let open: Vec<TransactionId> = self.prepared.keys().copied().collect();
                for transaction in open {
                    self.inquire(transaction, out);
                }
                self.keep_looking(out);
            }
            Input::Request(ParticipantRequest::Read { token, query }) => self.handle_read(token, query, out),
            Input::Message { from, message } => match message {
                CommitMessage::VoteRequest { transaction, work } => {
                    self.handle_vote_request(from, transaction, work, out)
                }
                CommitMessage::Decide { transaction, decision } => self.handle_decide(from, transaction, decision, out),
                CommitMessage::Inquire { transaction } => self.handle_inquire(from, transaction, out),
                CommitMessage::Answer { transaction, known } => self.handle_answer(from, transaction, known, out),
                CommitMessage::Vote { .. } | CommitMessage::Ack { .. } => {
                    unreachable!("a participant never receives {}", message.name())
                }
            },
            Input::Timeout(ParticipantTimer::Look) => self.handle_look(out),
        }
    }
}
