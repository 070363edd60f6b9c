//! The oracle of two-phase commit: observes every vote, every decision and every disk.
//!
//! A vote counts when it is durable, and a decision when a role has durably taken it. What roles report is only
//! compared with that.

use std::collections::{BTreeMap, BTreeSet};

use super::coverage::{Coverage, CoveragePoint};
use super::oracle::Oracle;
use paxos_kv::kv::{ApplyResult, WriteResult};
use paxos_kv::paxos::{CommandId, Slot, Value};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::{Action, Input, ServerId};
use paxos_kv::two_phase_commit::{
    CommitMessage, Coordinator, CoordinatorNotification, CoordinatorRecord, CoordinatorTraceEvent, Decision,
    InquiryReply, Participant, ParticipantNotification, ParticipantRecord, ParticipantTraceEvent, TransactionId, Vote,
    VoteNoReason,
};

/// What a participant's disk says of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DurableVote {
    Prepared,
    Done(Decision),
}

/// What the oracle knows of two-phase commit.
#[derive(Debug, Default)]
pub struct TransactionOracle {
    is_enabled: bool,
    /// What the participant's disk says, by server and transaction.
    durable_votes: BTreeMap<(ServerId, TransactionId), DurableVote>,
    /// Commits on the disks of their coordinators, whether or not they have ended.
    committed: BTreeSet<TransactionId>,
    /// The decision of each transaction, and the first server that reported it.
    decisions: BTreeMap<TransactionId, (Decision, ServerId)>,
    /// The command of each transaction, and the session that it evicts.
    commands: BTreeMap<TransactionId, (CommandId, Option<u64>)>,
    /// Sessions that were evicted for others.
    evicted: BTreeSet<u64>,
    /// The decisions that each participant has received.
    reported: BTreeSet<(ServerId, TransactionId, Decision)>,
    /// The outcome of each committed transaction.
    outcomes: BTreeMap<TransactionId, ApplyResult>,
    /// The results that clients received.
    acknowledged: BTreeMap<TransactionId, WriteResult>,
    /// The transaction that has done each command.
    effects: BTreeMap<CommandId, TransactionId>,
    refused: BTreeSet<CommandId>,
    /// Records that were being written when a crash hit.
    in_doubt: BTreeMap<ServerId, Vec<ParticipantRecord>>,
    blocked: BTreeSet<(ServerId, TransactionId)>,
}

impl TransactionOracle {
    /// The oracle at the start of a run.
    pub fn new(protocol: Protocol) -> TransactionOracle {
        TransactionOracle { is_enabled: !protocol.is_paxos(), ..TransactionOracle::default() }
    }

    /// Whether the run uses two-phase commit.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Number of committed transactions.
    pub fn count(&self) -> u64 {
        self.committed.len() as u64
    }

    fn note(&mut self, server: ServerId, record: &ParticipantRecord) {
        let (transaction, stand) = match record {
            ParticipantRecord::Prepared { transaction, .. } => (*transaction, DurableVote::Prepared),
            ParticipantRecord::Committed(transaction) => (*transaction, DurableVote::Done(Decision::Commit)),
            ParticipantRecord::Aborted(transaction) => (*transaction, DurableVote::Done(Decision::Abort)),
        };
        self.durable_votes.insert((server, transaction), stand);
    }
}

impl Oracle {
    // ---- disks

    /// The records of a participant's batch are durable.
    pub fn participant_durable(&mut self, server: ServerId, records: &[ParticipantRecord]) {
        for record in records {
            self.commits.note(server, record);
        }
    }

    /// A crash hit while a participant's batch was being written.
    pub fn participant_in_doubt(&mut self, server: ServerId, records: Vec<ParticipantRecord>) {
        self.commits.in_doubt.entry(server).or_default().extend(records);
    }

    /// Checks what a participant has recovered from its journal.
    pub fn participant_recovered(&mut self, server: ServerId, records: &[ParticipantRecord], coverage: &mut Coverage) {
        let mut found = TransactionOracle::default();
        records.iter().for_each(|record| found.note(server, record));
        let mine = |stands: &BTreeMap<(ServerId, TransactionId), DurableVote>| {
            stands.iter().filter(|((one, _), _)| *one == server).map(|((_, at), stand)| (*at, *stand)).collect()
        };
        let known: BTreeMap<TransactionId, DurableVote> = mine(&self.commits.durable_votes);
        let found: BTreeMap<TransactionId, DurableVote> = mine(&found.durable_votes);
        for (transaction, stand) in &known {
            let now = found.get(transaction);
            // Records that were being written at a crash may be there, too.
            let is_kept = now == Some(stand) || (now.is_some() && *stand == DurableVote::Prepared);
            self.require(22, is_kept, || {
                format!("{server} had {stand:?} of {transaction} on its disk, but recovered {now:?}")
            });
        }
        if self.commits.in_doubt.remove(&server).is_some_and(|records| !records.is_empty()) {
            coverage.reach(if found == known { CoveragePoint::GroupLost } else { CoveragePoint::GroupSurvived });
        }
        if found.values().any(|stand| *stand == DurableVote::Prepared) {
            coverage.reach(CoveragePoint::RecoveredInDoubt);
        }
        self.commits.durable_votes.extend(found.into_iter().map(|(at, stand)| ((server, at), stand)));
    }

    /// The records of a coordinator's batch are durable, or were recovered from its disk.
    pub fn coordinator_durable(&mut self, server: ServerId, records: &[CoordinatorRecord]) {
        for record in records {
            if let CoordinatorRecord::Committed(transaction) = record {
                self.commits.committed.insert(*transaction);
                self.decided(*transaction, Decision::Commit, server);
            }
        }
    }

    /// A role has decided: the decision must be the same at every server, and stay.
    fn decided(&mut self, transaction: TransactionId, decision: Decision, server: ServerId) {
        if let Some((before, first)) = self.commits.decisions.get(&transaction).copied() {
            return self.require(37, before == decision, || {
                format!("{transaction} is {before:?} on {first} and {decision:?} on {server}")
            });
        }
        self.commits.decisions.insert(transaction, (decision, server));
        let command = self.commits.commands.get(&transaction).copied();
        let Some((id, evicted)) = command.filter(|_| decision == Decision::Commit) else { return };
        self.commits.evicted.extend(evicted);
        let before = self.commits.effects.insert(id, transaction);
        // A session that was evicted can be opened again, as another one.
        let is_open = |first: TransactionId| id.session > 0 || !self.commits.evicted.contains(&first.as_slot().0);
        let twice = before.is_some_and(is_open);
        self.require(15, !twice, || format!("{id:?} was committed twice, by {before:?} and {transaction}"));
        let refused = self.commits.refused.contains(&id);
        self.require(25, !refused, || format!("{id:?} was reported as not applied, but {transaction} commits it"));
    }

    // ---- coordinators

    /// Checks a coordinator's actions.
    pub fn check_coordinator(&mut self, server: ServerId, actions: &[Action<Coordinator>], coverage: &mut Coverage) {
        for action in actions {
            match action {
                Action::Trace(CoordinatorTraceEvent::Requested { transaction, work, .. }) => {
                    let new = self.commits.commands.insert(*transaction, (work.command.id, work.evict)).is_none();
                    self.require(11, new, || format!("{server} began {transaction} twice"));
                    let known = self.was_requested(&Value::Command(work.command.clone()));
                    self.require(2, known, || format!("{transaction} holds a command that no client requested"));
                    if work.evict.is_some() {
                        coverage.reach(CoveragePoint::SessionEvicted);
                    }
                }
                Action::Trace(CoordinatorTraceEvent::Decided {
                    transaction, decision: Decision::Abort, no, ..
                }) => {
                    coverage.reach(if no.is_some() {
                        CoveragePoint::AbortedByNo
                    } else {
                        CoveragePoint::AbortedBySilence
                    });
                    self.decided(*transaction, Decision::Abort, server);
                }
                Action::Trace(CoordinatorTraceEvent::Decided { transaction, decision: Decision::Commit, .. }) => {
                    coverage.reach(CoveragePoint::Committed);
                    self.decided(*transaction, Decision::Commit, server);
                }
                Action::Trace(CoordinatorTraceEvent::DecisionResent { presumed, .. }) => {
                    coverage.reach(if *presumed { CoveragePoint::PresumedAbort } else { CoveragePoint::CommitResent });
                }
                Action::Send { message: CommitMessage::Decide { transaction, decision: Decision::Commit }, .. } => {
                    let durable = self.commits.committed.contains(transaction);
                    self.require(5, durable, || {
                        format!("{server} announced the commit of {transaction}: not on its disk")
                    });
                    for voter in self.quorums.servers().iter() {
                        let stand = self.commits.durable_votes.get(&(voter, *transaction)).copied();
                        let agrees = matches!(stand, Some(DurableVote::Prepared | DurableVote::Done(Decision::Commit)));
                        self.require(39, agrees, || format!("{transaction} is committed, but {voter} has {stand:?}"));
                    }
                }
                Action::Notify(CoordinatorNotification::NotApplied { .. }) => {
                    coverage.reach(CoveragePoint::TransactionNotApplied)
                }
                Action::Notify(CoordinatorNotification::Done { outcome, .. }) => match outcome {
                    ApplyResult::Duplicate(_) => coverage.reach(CoveragePoint::Duplicate),
                    ApplyResult::Expired => coverage.reach(CoveragePoint::Expired),
                    _ => {}
                },
                _ => {}
            }
        }
    }

    // ---- participants

    /// Records the inputs with which a participant's turn begins.
    pub fn observe_participant_inputs<'a>(
        &mut self,
        server: ServerId,
        inputs: impl Iterator<Item = &'a Input<Participant>>,
        coverage: &mut Coverage,
    ) {
        for input in inputs {
            let Input::Message { from, message } = input else { continue };
            let (transaction, decision, cooperates) = match message {
                CommitMessage::Decide { transaction, decision } => (*transaction, *decision, None),
                CommitMessage::Answer { transaction, known: InquiryReply::Decided(decision) } => {
                    let mark = if *decision == Decision::Commit {
                        CoveragePoint::CooperativeCommit
                    } else {
                        CoveragePoint::CooperativeAbort
                    };
                    (*transaction, *decision, Some(mark))
                }
                _ => continue,
            };
            self.commits.reported.insert((server, transaction, decision));
            if self.commits.durable_votes.get(&(server, transaction)) == Some(&DurableVote::Prepared) {
                cooperates.filter(|_| *from != server).into_iter().for_each(|mark| coverage.reach(mark));
                if self.commits.blocked.remove(&(server, transaction)) {
                    coverage.reach(CoveragePoint::Unblocked);
                }
            }
        }
    }

    /// Checks a participant's actions. The records of its batch are durable already.
    pub fn check_participant(&mut self, server: ServerId, actions: &[Action<Participant>], coverage: &mut Coverage) {
        for action in actions {
            match action {
                Action::Trace(fact) => self.check_participant_trace(server, fact, coverage),
                Action::Send { message, .. } => self.check_participant_message(server, message, coverage),
                Action::Notify(ParticipantNotification::ReadFailed { .. }) => coverage.reach(CoveragePoint::ReadLocked),
                _ => {}
            }
        }
    }

    fn check_participant_message(&mut self, server: ServerId, message: &CommitMessage, coverage: &mut Coverage) {
        match message {
            CommitMessage::Vote { transaction, vote: Vote::Yes(_), .. } => {
                let stand = self.commits.durable_votes.get(&(server, *transaction)).copied();
                // With a decision in the same batch, the disk may hold more than the vote.
                self.require(5, stand.is_some(), || format!("{server} voted yes on {transaction}: not on its disk"));
            }
            CommitMessage::Vote { vote: Vote::No(VoteNoReason::Locked(_)), .. } => {
                coverage.reach(CoveragePoint::LockRefused)
            }
            CommitMessage::Vote { vote: Vote::No(VoteNoReason::Late), .. } => {
                coverage.reach(CoveragePoint::LateVoteRequest)
            }
            CommitMessage::Ack { transaction } => {
                let stand = self.commits.durable_votes.get(&(server, *transaction)).copied();
                let done = stand == Some(DurableVote::Done(Decision::Commit));
                self.require(5, done, || format!("{server} acknowledged {transaction}: its disk has {stand:?}"));
            }
            _ => {}
        }
    }

    fn check_participant_trace(&mut self, server: ServerId, fact: &ParticipantTraceEvent, coverage: &mut Coverage) {
        match fact {
            ParticipantTraceEvent::Committed { transaction, outcome, .. } => {
                self.check_was_reported(server, *transaction, Decision::Commit);
                self.decided(*transaction, Decision::Commit, server);
                let known = *self.commits.outcomes.entry(*transaction).or_insert(*outcome);
                self.require(13, known == *outcome, || {
                    format!("{transaction} had the outcome {known:?}, but {outcome:?} on {server}")
                });
                self.check_acknowledged(*transaction);
            }
            ParticipantTraceEvent::Aborted { transaction, .. } => {
                self.check_was_reported(server, *transaction, Decision::Abort);
                self.decided(*transaction, Decision::Abort, server);
            }
            ParticipantTraceEvent::GivenUp { transaction, .. } => {
                coverage.reach(CoveragePoint::GaveUp);
                let stand = self.commits.durable_votes.get(&(server, *transaction)).copied();
                let kept = stand == Some(DurableVote::Done(Decision::Abort));
                self.require(5, kept, || format!("{server} gave up {transaction}: its disk has {stand:?}"));
                self.decided(*transaction, Decision::Abort, server);
            }
            ParticipantTraceEvent::Blocked { transaction, .. } => {
                coverage.reach(CoveragePoint::Blocked);
                self.commits.blocked.insert((server, *transaction));
            }
            ParticipantTraceEvent::ReadWaits { .. } => coverage.reach(CoveragePoint::ReadWaited),
            ParticipantTraceEvent::Voted { .. }
            | ParticipantTraceEvent::Inquired { .. }
            | ParticipantTraceEvent::Answered { .. } => {}
        }
    }

    fn check_was_reported(&mut self, server: ServerId, transaction: TransactionId, decision: Decision) {
        let told = self.commits.reported.contains(&(server, transaction, decision));
        self.require(38, told, || format!("{server} voted yes on {transaction} and then decided {decision:?} alone"));
    }

    // ---- clients

    pub(super) fn commit_acknowledged(&mut self, id: CommandId, slot: Slot, written: WriteResult) {
        let transaction = TransactionId::of_slot(slot);
        let kept = self.commits.committed.contains(&transaction) && self.commits.effects.get(&id) == Some(&transaction);
        self.require(14, kept, || {
            format!("{id:?} was acknowledged as {transaction}, which is not committed or belongs to another command")
        });
        self.commits.acknowledged.insert(transaction, written);
        self.check_acknowledged(transaction);
    }

    fn check_acknowledged(&mut self, transaction: TransactionId) {
        let said = self.commits.acknowledged.get(&transaction).copied();
        let Some((said, outcome)) = said.zip(self.commits.outcomes.get(&transaction).copied()) else { return };
        let same = matches!(outcome, ApplyResult::Applied(saved) if saved.written == said);
        self.require(14, same, || {
            format!("{transaction} was acknowledged as {said:?} but had the outcome {outcome:?}")
        });
    }

    pub(super) fn commit_refused(&mut self, id: CommandId) {
        let by = self.commits.effects.get(&id).copied();
        self.require(25, by.is_none(), || format!("{id:?} was reported as not applied, but {by:?} committed it"));
        self.commits.refused.insert(id);
    }

    // ---- the end

    /// Checks the disks that a power cut of the whole cluster leaves at the end of a run. Every committed transaction
    /// must be done on each server, or prepared there while its coordinator still knows it. Stores with the same number
    /// of commits must be equal.
    pub fn check_commit_disks(&mut self, disks: &BTreeMap<ServerId, (Participant, Coordinator)>) {
        let committed: Vec<TransactionId> = self.commits.committed.iter().copied().collect();
        for transaction in committed {
            for (server, (participant, _)) in disks {
                let done = participant.may_have_done(transaction);
                let promised = participant.in_doubt().any(|doubt| doubt.transaction == transaction);
                let coordinator = disks.get(&transaction.coordinator).map(|(_, coordinator)| coordinator);
                let known = coordinator.is_none_or(|coordinator| coordinator.knows(transaction));
                self.require(14, done || (promised && known), || {
                    format!("{transaction} is committed, but in the end {server} does not know it")
                });
            }
        }
        let mut settled = disks.iter().filter(|(_, (participant, _))| participant.in_doubt_count() == 0);
        let Some((first, (one, _))) = settled.next() else { return };
        for (server, (other, _)) in settled {
            if one.applied() == other.applied() {
                let same = one.kv().store() == other.kv().store() && one.kv().sessions() == other.kv().sessions();
                self.require(13, same, || format!("{first} and {server} applied the same transactions but differ"));
            }
        }
    }
}
