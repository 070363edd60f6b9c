//! The coordinator: requests votes from all participants, decides, and keeps a commit until all have acknowledged it.

use std::collections::{BTreeMap, VecDeque};

use super::types::{
    AbortReason, CoordinatorNotification, CoordinatorRecord, CoordinatorRequest, CoordinatorTimer,
    CoordinatorTraceEvent,
};
use super::{CommitMessage, Decision, InquiryReply, Lock, TransactionBody, TransactionId, Vote, VoteNoReason, rules};
use crate::kv::{ApplyResult, KvCommand, SavedResult, WriteResult};
use crate::paxos;
use crate::role::{Input, Output, Role, ServerId, ServerSet};

/// Maximum number of commands that a coordinator holds at a time.
const COMMANDS_MAX: usize = 1_024;
/// Number of transaction numbers reserved at once.
const RESERVED_AT_ONCE: u64 = 1_024;
/// Maximum number of end records that wait for a commit record to be written with.
const ENDED_MAX: usize = 1_024;
/// Ticks after which participants that have not voted are asked again, and again after twice as many: 100 ms.
const VOTE_RESEND_TICKS: u32 = 2;
/// Ticks after which a transaction without all votes is aborted: 300 ms.
const VOTES_MAX: u32 = 6;
/// Age in ticks beyond which a command is not tried again. With one more try it ends within 0.8 s, before its client
/// asks another server.
const AGE_MAX: u32 = 10;
/// The longest pause of a command that the same transaction keeps refusing, in retries: about 0.2 s.
const PAUSE_MAX: u32 = 8;
/// Ticks after which participants that have not acknowledged a commit receive it again: 200 ms.
const RESEND_TICKS: u32 = 4;

/// A command and its progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct QueuedCommand {
    work: TransactionBody,
    lock: Lock,
    /// Ticks since its client asked.
    age: u32,
    /// Number of retries that it waits for after a refusal.
    pause: u32,
    /// The last pause; it doubles while the same transaction is in the way.
    last_pause: u32,
    /// Why it was not applied so far.
    why: AbortReason,
}

/// A transaction whose votes are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct OpenTransaction {
    queued: QueuedCommand,
    yes: ServerSet,
    /// The effect that all yes votes so far agree on.
    would: Option<WriteResult>,
    /// Ticks since it began.
    ticks: u32,
}

/// A commit that not all participants have acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct UnacknowledgedCommit {
    missing: ServerSet,
    ticks: u32,
}

/// A coordinator. See the [module's essay](super).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coordinator {
    me: ServerId,
    servers: ServerSet,
    /// The next number. If it is not below [`reserved`](Self::reserved), more must be reserved first.
    next: u64,
    /// Every number below is durably reserved; 0 at first.
    reserved: u64,
    open: BTreeMap<TransactionId, OpenTransaction>,
    /// Commands without a transaction of their own, oldest first: refused, or behind another one for the same key.
    waiting: VecDeque<QueuedCommand>,
    committed: BTreeMap<TransactionId, UnacknowledgedCommit>,
    /// Transactions whose end record is not written yet.
    ended: Vec<TransactionId>,
    ticks: bool,
    retries: bool,
}

impl Coordinator {
    /// A coordinator without any records.
    pub fn new(me: ServerId, servers: ServerSet) -> Coordinator {
        Coordinator {
            me,
            servers,
            next: 1,
            reserved: 0,
            open: BTreeMap::new(),
            waiting: VecDeque::new(),
            committed: BTreeMap::new(),
            ended: Vec::new(),
            ticks: false,
            retries: false,
        }
    }

    /// The next number.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Number of commits that not all participants have acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.committed.len()
    }

    /// Whether it counts the votes of this transaction.
    pub fn counts(&self, transaction: TransactionId) -> bool {
        self.open.contains_key(&transaction)
    }

    /// Whether it has committed this transaction and waits for acknowledgments.
    pub fn knows(&self, transaction: TransactionId) -> bool {
        self.committed.contains_key(&transaction)
    }

    /// Whether nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && self.waiting.is_empty() && self.committed.is_empty()
    }

    fn handle_propose(&mut self, command: paxos::Command, out: &mut Output<Self>) {
        let id = command.id;
        let all_queued = self.open.values_mut().map(|open| &mut open.queued).chain(&mut self.waiting);
        if let Some(same) = all_queued.into_iter().find(|queued| queued.work.command.id == id) {
            // Another try of the same command: both tries receive the same outcome.
            same.age = 0;
            return;
        }
        let Ok(decoded) = KvCommand::from_paxos(&command) else {
            return out.notify(CoordinatorNotification::Done { id, outcome: ApplyResult::Unreadable });
        };
        // Refused before any transaction exists, so the command is certainly not applied.
        if self.open.len() + self.waiting.len() >= COMMANDS_MAX {
            return out.notify(CoordinatorNotification::NotApplied { id, why: AbortReason::Busy });
        }
        let work = TransactionBody { command, evict: None };
        let lock = Lock::of(&decoded);
        self.waiting.push_back(QueuedCommand { work, lock, age: 0, pause: 0, last_pause: 1, why: AbortReason::Busy });
        self.begin_ready(out);
        self.keep_time(out);
    }

    /// Begins a transaction for every command that waits for nothing.
    fn begin_ready(&mut self, out: &mut Output<Self>) {
        let mut at = 0;
        while at < self.waiting.len() {
            let queued = &self.waiting[at];
            let is_behind = self.open.values().any(|open| open.queued.lock == queued.lock)
                || self.waiting.iter().take(at).any(|before| before.lock == queued.lock);
            if queued.pause > 0 || is_behind {
                at += 1;
            } else if let Some(queued) = self.waiting.remove(at) {
                self.begin(queued, out);
            }
        }
    }

    fn begin(&mut self, queued: QueuedCommand, out: &mut Output<Self>) {
        let transaction = TransactionId { number: self.draw(out), coordinator: self.me };
        let (work, to) = (queued.work.clone(), self.servers);
        out.emit_step(|| CoordinatorTraceEvent::Requested { transaction, work: work.clone(), to });
        out.send(to, CommitMessage::VoteRequest { transaction, work });
        self.open.insert(transaction, OpenTransaction { queued, yes: ServerSet::NONE, would: None, ticks: 0 });
    }

    /// A number that was never used, in any incarnation.
    fn draw(&mut self, out: &mut Output<Self>) -> u64 {
        if self.next >= self.reserved {
            self.reserved = self.next + RESERVED_AT_ONCE;
            self.persist(CoordinatorRecord::Reserved(self.reserved), out);
        }
        self.next += 1;
        self.next - 1
    }

    /// Writes a record, together with the end records that waited for one.
    fn persist(&mut self, record: CoordinatorRecord, out: &mut Output<Self>) {
        for ended in std::mem::take(&mut self.ended) {
            out.persist(CoordinatorRecord::Ended(ended));
        }
        out.persist(record);
    }

    fn handle_vote(
        &mut self,
        from: ServerId,
        transaction: TransactionId,
        vote: Vote,
        clock: u64,
        out: &mut Output<Self>,
    ) {
        // A participant may send any clock, so half of all numbers stay out of its reach: they would take ages to use.
        self.next = self.next.max(clock.saturating_add(1).min(TransactionId::LAST_NUMBER / 2));
        let Some(open) = self.open.get_mut(&transaction) else {
            return self.handle_late_vote(from, transaction, vote, out);
        };
        match vote {
            Vote::Yes(would) => {
                let agrees = open.yes.is_empty() || open.would == would;
                assert!(
                    agrees,
                    "the predicted result of {transaction} is {would:?} on {from}, and {:?} on {}",
                    open.would, open.yes
                );
                open.would = would;
                open.yes.insert(from);
                // A commit needs the votes of all servers, not of a majority.
                if rules::may_commit(open.yes, self.servers) {
                    self.commit(transaction, out);
                }
            }
            // { => A single no aborts: that server could not apply the command.
            Vote::No(refusal) => {
                if let Some(queued) = self.abort(transaction, Some((from, refusal)), out) {
                    self.refused(queued, refusal, out);
                }
            }
        }
        self.begin_ready(out);
        self.keep_time(out);
    }

    /// Repeats the decision to a participant that votes yes too late: it is prepared, and waits for the decision.
    fn handle_late_vote(&mut self, from: ServerId, transaction: TransactionId, vote: Vote, out: &mut Output<Self>) {
        if matches!(vote, Vote::Yes(_)) && transaction.coordinator == self.me {
            self.resend_decision(transaction, ServerSet::only(from), out);
        }
    }

    fn commit(&mut self, transaction: TransactionId, out: &mut Output<Self>) {
        let Some(OpenTransaction { queued, yes, would, .. }) = self.open.remove(&transaction) else { return };
        // The commit point: this record is durable before DECIDE or the client's reply is released.
        self.persist(CoordinatorRecord::Committed(transaction), out);
        let to = self.servers;
        self.committed.insert(transaction, UnacknowledgedCommit { missing: to, ticks: 0 });
        let id = queued.work.command.id;
        let (decision, work, no) = (Decision::Commit, queued.work, None);
        out.emit_step(|| CoordinatorTraceEvent::Decided { transaction, decision, work, yes, no, to });
        out.send(to, CommitMessage::Decide { transaction, decision });
        let slot = transaction.as_slot();
        let outcome = match would {
            Some(written) => ApplyResult::Applied(SavedResult { slot, written }),
            // Two-phase commit does not order all writes, so no session can define a history.
            None => ApplyResult::Opened { session: slot.0, history: 0 },
        };
        out.notify(CoordinatorNotification::Done { id, outcome });
    }

    /// Ends a transaction that no server applies, and returns its command.
    fn abort(
        &mut self,
        transaction: TransactionId,
        no: Option<(ServerId, VoteNoReason)>,
        out: &mut Output<Self>,
    ) -> Option<QueuedCommand> {
        let OpenTransaction { queued, yes, .. } = self.open.remove(&transaction)?;
        // A participant that voted no holds nothing for the transaction.
        let to = self.servers.without(no.map_or(ServerSet::NONE, |(server, _)| ServerSet::only(server)));
        let (decision, work) = (Decision::Abort, &queued.work);
        out.emit_step(|| CoordinatorTraceEvent::Decided { transaction, decision, work: work.clone(), yes, no, to });
        if !to.is_empty() {
            out.send(to, CommitMessage::Decide { transaction, decision });
        }
        Some(queued)
    }

    /// Continues with a command that a participant has voted against.
    fn refused(&mut self, mut queued: QueuedCommand, refusal: VoteNoReason, out: &mut Output<Self>) {
        match refusal {
            VoteNoReason::Settled(outcome) => {
                out.notify(CoordinatorNotification::Done { id: queued.work.command.id, outcome });
            }
            // The next try replaces the oldest session, unless that session ends first.
            VoteNoReason::Full(oldest) => {
                queued.work.evict = Some(oldest);
                self.try_later(queued, out);
            }
            VoteNoReason::Locked(by) => {
                let is_same = queued.why == AbortReason::Locked { by };
                queued.last_pause = if is_same { (2 * queued.last_pause).min(PAUSE_MAX) } else { 1 };
                queued.why = AbortReason::Locked { by };
                self.try_later(queued, out);
            }
            VoteNoReason::Late | VoteNoReason::Busy => self.try_later(queued, out),
        }
    }

    fn try_later(&mut self, mut queued: QueuedCommand, out: &mut Output<Self>) {
        if queued.age >= AGE_MAX {
            let (id, why) = (queued.work.command.id, queued.why);
            return out.notify(CoordinatorNotification::NotApplied { id, why });
        }
        queued.pause = queued.last_pause;
        // The command is older than those that wait.
        self.waiting.push_front(queued);
        self.keep_trying(out);
    }

    /// Tries refused commands again whose pause is over.
    fn handle_retry(&mut self, out: &mut Output<Self>) {
        self.retries = false;
        for queued in &mut self.waiting {
            queued.pause = queued.pause.saturating_sub(1);
        }
        self.begin_ready(out);
        self.keep_trying(out);
        self.keep_time(out);
    }

    fn keep_trying(&mut self, out: &mut Output<Self>) {
        let any_pauses = self.waiting.iter().any(|queued| queued.pause > 0);
        if any_pauses && !std::mem::replace(&mut self.retries, true) {
            out.arm(CoordinatorTimer::Retry);
        }
    }

    fn handle_ack(&mut self, from: ServerId, transaction: TransactionId, out: &mut Output<Self>) {
        let Some(commit) = self.committed.get_mut(&transaction) else { return };
        commit.missing = commit.missing.without(ServerSet::only(from));
        if !commit.missing.is_empty() {
            return;
        }
        self.committed.remove(&transaction);
        out.emit_step(|| CoordinatorTraceEvent::Ended { transaction });
        if self.ended.len() >= ENDED_MAX {
            self.persist(CoordinatorRecord::Ended(transaction), out);
        } else {
            // An end record needs no sync of its own: without it, a restart only repeats DECIDE.
            self.ended.push(transaction);
        }
    }

    fn handle_inquire(&mut self, from: ServerId, transaction: TransactionId, out: &mut Output<Self>) {
        if transaction.coordinator != self.me {
            return;
        }
        // Not decided yet. Saying so keeps the participant waiting instead of calling itself blocked.
        if self.open.contains_key(&transaction) {
            return out.send(ServerSet::only(from), CommitMessage::Answer { transaction, known: InquiryReply::Voting });
        }
        self.resend_decision(transaction, ServerSet::only(from), out);
    }

    /// Repeats a decision. Without a record of the transaction, the decision was abort.
    fn resend_decision(&mut self, transaction: TransactionId, to: ServerSet, out: &mut Output<Self>) {
        let presumed = !self.committed.contains_key(&transaction);
        let decision = if presumed { Decision::Abort } else { Decision::Commit };
        out.emit_step(|| CoordinatorTraceEvent::DecisionResent { transaction, decision, presumed, to });
        out.send(to, CommitMessage::Decide { transaction, decision });
    }

    fn handle_tick(&mut self, out: &mut Output<Self>) {
        self.ticks = false;
        let mut silent = Vec::new();
        for (transaction, open) in &mut self.open {
            open.ticks += 1;
            open.queued.age += 1;
            let to = self.servers.without(open.yes);
            if open.ticks >= VOTES_MAX {
                silent.push((*transaction, to));
            } else if open.ticks.is_multiple_of(VOTE_RESEND_TICKS) {
                let (transaction, work) = (*transaction, open.queued.work.clone());
                out.send(to, CommitMessage::VoteRequest { transaction, work });
            }
        }
        for (transaction, silent) in silent {
            if let Some(mut queued) = self.abort(transaction, None, out) {
                queued.why = AbortReason::NoVote { silent };
                self.try_later(queued, out);
            }
        }
        self.give_up_old(out);
        let mut again = Vec::new();
        for (transaction, commit) in &mut self.committed {
            commit.ticks = commit.ticks.wrapping_add(1);
            if commit.ticks.is_multiple_of(RESEND_TICKS) {
                again.push((*transaction, commit.missing));
            }
        }
        for (transaction, missing) in again {
            self.resend_decision(transaction, missing, out);
        }
        self.begin_ready(out);
        self.keep_time(out);
    }

    /// Gives up commands that have waited too long: none of their transactions was committed.
    fn give_up_old(&mut self, out: &mut Output<Self>) {
        for queued in &mut self.waiting {
            queued.age += 1;
        }
        let (old, waiting) = self.waiting.drain(..).partition(|queued| queued.age >= AGE_MAX);
        self.waiting = waiting;
        for QueuedCommand { work, why, .. } in old {
            out.notify(CoordinatorNotification::NotApplied { id: work.command.id, why });
        }
    }

    fn keep_time(&mut self, out: &mut Output<Self>) {
        if !self.is_idle() && !std::mem::replace(&mut self.ticks, true) {
            out.arm(CoordinatorTimer::Tick);
        }
    }
}

impl Role for Coordinator {
    type Message = CommitMessage;
    type Record = CoordinatorRecord;
    type Timer = CoordinatorTimer;
    type Request = CoordinatorRequest;
    type Notification = CoordinatorNotification;
    type TraceEvent = CoordinatorTraceEvent;

    fn replay(&mut self, record: CoordinatorRecord) {
        match record {
            CoordinatorRecord::Reserved(number) => {
                self.next = self.next.max(number);
                self.reserved = self.reserved.max(number);
            }
            CoordinatorRecord::Committed(transaction) => {
                self.committed.insert(transaction, UnacknowledgedCommit { missing: self.servers, ticks: 0 });
            }
            CoordinatorRecord::Ended(transaction) => {
                self.committed.remove(&transaction);
            }
        }
    }

    fn step(&mut self, input: Input<Self>, out: &mut Output<Self>) {
        match input {
            // Participants may still wait for a commit of an earlier incarnation.
            Input::Start => {
                let known: Vec<TransactionId> = self.committed.keys().copied().collect();
                for transaction in known {
                    self.resend_decision(transaction, self.servers, out);
                }
                self.keep_time(out);
            }
            Input::Request(CoordinatorRequest::Propose(command)) => self.handle_propose(command, out),
            Input::Message { from, message } => match message {
                CommitMessage::Vote { transaction, vote, clock } => {
                    self.handle_vote(from, transaction, vote, clock, out)
                }
                CommitMessage::Ack { transaction } => self.handle_ack(from, transaction, out),
                CommitMessage::Inquire { transaction } => self.handle_inquire(from, transaction, out),
                CommitMessage::VoteRequest { .. } | CommitMessage::Decide { .. } | CommitMessage::Answer { .. } => {
                    unreachable!("a coordinator never receives {}", message.name())
                }
            },
            Input::Timeout(CoordinatorTimer::Tick) => self.handle_tick(out),
            Input::Timeout(CoordinatorTimer::Retry) => self.handle_retry(out),
        }
    }
}
