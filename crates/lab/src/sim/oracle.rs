//! The oracle: an observer that sees every disk, every message and every incarnation, and checks the invariants.
//!
//! No server or client can see what the oracle sees, and the oracle never affects a run. It relies on no role's word: a
//! vote counts when it is durable on the acceptor's disk, not when a learner reports it. Invariants have numbers, which
//! a violation names and which never change their meaning.

use std::collections::{BTreeMap, BTreeSet};

use super::coverage::{Coverage, CoveragePoint};
use super::durable_state::DurableAcceptor;
pub use super::invariant::{UNDECIDED, Violation, is_user_visible, name_of};
use super::leaders::LeaderOracle;
use super::transactions::TransactionOracle;
use paxos_kv::kv::{ApplyResult, Kv, Op, WriteResult};
use paxos_kv::paxos::{
    Acceptor, Ballot, CommandId, Entry, LearnerNotification, LearnerTraceEvent, Message, NotApplied, Page, Proposer,
    ProposerNotification, ProposerRequest, ProposerTraceEvent, Quorums, Slot, StateMachine, Value,
};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::{Action, Input, RoleKind, ServerId, ServerSet};

/// What a client requested: a write, or a new session if None.
type ProposedCommand = Option<Op>;

/// What an acceptor reported with one promise, in pages.
#[derive(Default)]
struct PromiseReport {
    /// The reported ranges of slots: the first slot, and the first slot behind the range (None if it has no end).
    ranges: Vec<(Slot, Option<Slot>)>,
    accepted: BTreeMap<Slot, (Ballot, Value)>,
}

impl PromiseReport {
    /// The report on a slot: None if there is none, Some(None) if it says that no value was accepted.
    fn reported(&self, slot: Slot) -> Option<Option<&(Ballot, Value)>> {
        let is_told = self.ranges.iter().any(|(from, to)| *from <= slot && to.is_none_or(|to| slot < to));
        is_told.then(|| self.accepted.get(&slot))
    }
}

/// The observer of everything.
pub struct Oracle {
    pub(super) quorums: Quorums,
    violation: Option<Violation>,
    user_visible_only: bool,
    pub(super) acceptors: BTreeMap<ServerId, DurableAcceptor>,
    /// The value that acceptors durably accepted in a slot at a ballot, and those acceptors.
    pub(super) votes: BTreeMap<(Slot, Ballot), (Value, ServerSet)>,
    /// The chosen value of each slot, and the first ballot at which it was chosen.
    pub(super) chosen: BTreeMap<Slot, (Ballot, Value)>,
    /// The ballots that were prepared, with the first slot of each.
    pub(super) prepared: BTreeMap<Ballot, Slot>,
    /// The slot behind the last one in which each ballot has proposed.
    next: BTreeMap<Ballot, Slot>,
    /// The reports of promises, by ballot and acceptor.
    promises: BTreeMap<(Ballot, ServerId), PromiseReport>,
    /// The values that were proposed.
    pub(super) proposed: BTreeMap<(Slot, Ballot), Value>,
    /// Commands that a proposer put into an ACCEPT without adopting them, until its learner has applied them.
    proposed_by: BTreeMap<(ServerId, CommandId), Slot>,
    /// Commands that the server's own clients have requested of its running proposer.
    submitted: BTreeSet<(ServerId, CommandId)>,
    /// The rules about leaders.
    leaders: LeaderOracle,
    /// Proposers that are in phase 1.
    preparing: ServerSet,
    /// The log as applied: outcome and digest after each slot, from slot 1.
    applied: Vec<(ApplyResult, u64)>,
    /// The last slot that each learner has applied.
    pub(super) learners: BTreeMap<ServerId, Slot>,
    /// The first slot in which each command was applied.
    effects: BTreeMap<CommandId, Slot>,
    /// The commands that clients have requested.
    requested: BTreeMap<CommandId, ProposedCommand>,
    /// Commands that a client counts as certainly not applied.
    refused: BTreeSet<CommandId>,
    /// The highest slot chosen when a read arrived, by the learner's incarnation and the read's token.
    reads: BTreeMap<(u64, u64), Slot>,
    /// Applies the log in slot order, to compare.
    machine: Kv,
    /// Learners that have installed a snapshot in this incarnation.
    pub(super) installs: ServerSet,
    /// Servers that came back with a new disk; they are not checked.
    pub(super) new_disks: ServerSet,
    /// The oracle of two-phase commit, which has invariants of its own.
    pub(super) commits: TransactionOracle,
}

impl Oracle {
    /// An oracle at the start of a run.
    pub fn new(protocol: Protocol, quorums: Quorums, machine: Kv) -> Oracle {
        Oracle {
            commits: TransactionOracle::new(protocol),
            quorums,
            violation: None,
            user_visible_only: false,
            acceptors: BTreeMap::new(),
            votes: BTreeMap::new(),
            chosen: BTreeMap::new(),
            prepared: BTreeMap::new(),
            next: BTreeMap::new(),
            promises: BTreeMap::new(),
            proposed: BTreeMap::new(),
            proposed_by: BTreeMap::new(),
            submitted: BTreeSet::new(),
            leaders: LeaderOracle::default(),
            preparing: ServerSet::NONE,
            applied: Vec::new(),
            learners: BTreeMap::new(),
            effects: BTreeMap::new(),
            requested: BTreeMap::new(),
            refused: BTreeSet::new(),
            reads: BTreeMap::new(),
            machine,
            installs: ServerSet::NONE,
            new_disks: ServerSet::NONE,
        }
    }

    /// Starts a new history on empty data directories. Keeps what clients requested, and which results they count on.
    pub fn begin_new_history(&mut self, protocol: Protocol) {
        let new = Oracle::new(protocol, self.quorums, self.machine.empty());
        let old = std::mem::replace(self, new);
        (self.violation, self.user_visible_only) = (old.violation, old.user_visible_only);
        (self.requested, self.refused) = (old.requested, old.refused);
    }

    /// The first violation of an invariant.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// From now on checks only invariants whose violation is user visible, not the ones that prevent such harm.
    pub fn check_user_visible_only(&mut self) {
        self.user_visible_only = true;
    }

    /// Records a violation of this invariant unless `kept`; only the first one of a run counts.
    pub fn require(&mut self, invariant: u8, kept: bool, what: impl FnOnce() -> String) {
        let counts = !self.user_visible_only || is_user_visible(invariant);
        if !kept && counts && self.violation.is_none() {
            self.violation = Some(Violation { invariant, what: what() });
        }
    }

    /// The highest chosen slot, whether or not any role knows that it is chosen.
    pub fn highest_chosen(&self) -> Slot {
        self.chosen.keys().next_back().copied().unwrap_or_default()
    }

    /// The last slot that any learner has applied; under two-phase commit, the number of commits.
    pub fn applied(&self) -> Slot {
        if self.commits.is_enabled() {
            return Slot(self.commits.count());
        }
        Slot(self.applied.len() as u64)
    }

    /// The outcome of a slot, if it was applied.
    pub fn outcome(&self, slot: Slot) -> Option<&ApplyResult> {
        self.applied.get(slot.0.checked_sub(1)? as usize).map(|(outcome, _)| outcome)
    }

    /// The command of a chosen slot.
    pub fn command(&self, slot: Slot) -> Option<CommandId> {
        self.chosen.get(&slot).and_then(|(_, value)| value.id())
    }

    /// The digest after a slot, if it was applied.
    pub fn digest(&self, slot: Slot) -> Option<u64> {
        self.applied.get(slot.0.checked_sub(1)? as usize).map(|(_, digest)| *digest)
    }

    /// Checks, at the end of a run, that a majority of disks still holds every chosen value. These are the acceptors
    /// that a power cut of the whole cluster leaves.
    pub fn check_disks(&mut self, disks: &BTreeMap<ServerId, Acceptor>) {
        for (slot, (_, value)) in self.chosen.clone() {
            let holds = |disk: &Acceptor| {
                let accepted = disk.accepted().get(&slot).is_some_and(|(_, held)| *held == value);
                // A truncated slot is in a checkpoint, and a corrupt one may have held the value.
                accepted || Oracle::may_lack(slot, disk.truncated_below(), disk.corrupt())
            };
            let holding = disks.iter().filter(|(_, disk)| holds(disk));
            let holding: ServerSet = holding.map(|(server, _)| *server).collect();
            let missing: ServerSet = self.quorums.servers().without(disks.keys().copied().collect());
            // A disk that is lost or corrupt may have been one of the majority.
            let kept = self.quorums.is_phase2_quorum(holding.iter().chain(missing.iter()).collect());
            self.require(14, kept, || format!("slot {slot} was chosen, but in the end only {holding} hold its value"));
        }
    }

    // ---- acceptors

    /// Checks an acceptor's actions. The records of its batch are durable already.
    pub fn check_acceptor(&mut self, server: ServerId, actions: &[Action<Acceptor>], coverage: &mut Coverage) {
        if self.new_disks.contains(server) {
            return;
        }
        for action in actions {
            let Action::Send { message, .. } = action else { continue };
            match message {
                Message::Promise { ballot, page } => self.promised(server, *ballot, page, coverage),
                Message::Truncated { .. } => coverage.reach(CoveragePoint::AnsweredTruncated),
                Message::Accepted { ballot, slots } => {
                    for slot in slots.first.to(slots.last) {
                        let votes = self.votes.get(&(slot, *ballot));
                        let voted = votes.is_some_and(|(_, servers)| servers.contains(server));
                        self.require(5, voted, || {
                            format!("{server} reported that it accepted slot {slot} at {ballot}: not on its disk")
                        });
                    }
                }
                Message::Nack { ballot, promised, .. } => {
                    coverage.reach(CoveragePoint::Nacked);
                    let durable = self.disk(server).promised;
                    self.require(5, *promised <= durable, || {
                        format!("{server} refused {ballot} because of a promise that is not on its disk")
                    });
                }
                _ => {}
            }
        }
    }

    fn promised(&mut self, server: ServerId, ballot: Ballot, page: &Page, coverage: &mut Coverage) {
        let Page { from, end: to, truncated_below: forgotten, accepted, corrupt } = page;
        let durable = self.disk(server).promised;
        self.require(5, ballot <= durable, || format!("{server} promised {ballot}: not on its disk"));
        for Entry { slot, ballot: at, value } in accepted {
            let voted =
                self.votes.get(&(*slot, *at)).is_some_and(|(v, servers)| servers.contains(server) && v == value);
            self.require(5, voted, || format!("{server} reported slot {slot} accepted at {at}: not on its disk"));
        }
        let Some(first) = self.prepared.get(&ballot).copied() else {
            return self.require(11, false, || format!("{server} promised {ballot}, which no proposer has prepared"));
        };
        if *forgotten > first {
            coverage.reach(CoveragePoint::PromiseTruncated);
        }
        let durable = self.disk(server).truncated_below;
        self.require(5, *forgotten <= durable, || format!("{server} reported truncated slots: not on its disk"));
        // Values accepted at this ballot or a higher one were accepted after the promise.
        let kept = self.disk(server).accepted.range(*from..).filter(|(_, (at, _))| *at < ballot);
        let kept = kept.filter(|(slot, _)| to.is_none_or(|to| **slot < to));
        let reported: BTreeMap<Slot, Ballot> = accepted.iter().map(|entry| (entry.slot, entry.ballot)).collect();
        let missing = kept.filter(|(slot, (at, _))| reported.get(slot) != Some(at));
        let missing = missing.filter(|(slot, _)| !Oracle::may_lack(**slot, *forgotten, corrupt));
        let missing: Vec<Slot> = missing.map(|(slot, _)| *slot).collect();
        self.require(7, missing.is_empty(), || format!("{server} promised {ballot} but did not report {missing:?}"));
        let reported = self.promises.entry((ballot, server)).or_default();
        for Entry { slot, ballot, value } in accepted {
            if reported.reported(*slot).is_none() {
                reported.accepted.insert(*slot, (*ballot, value.clone()));
            }
        }
        reported.ranges.push((*from, *to));
    }

    // ---- proposers

    /// Records the inputs with which a proposer's turn begins.
    pub fn observe_proposer_inputs<'a>(
        &mut self,
        server: ServerId,
        inputs: impl Iterator<Item = &'a Input<Proposer>> + Clone,
        coverage: &mut Coverage,
    ) {
        for input in inputs.clone() {
            if let Input::Request(ProposerRequest::Propose { command, .. }) = input {
                self.submitted.insert((server, command.id));
            }
        }
        self.leaders.observe_inputs(server, inputs, coverage);
    }

    /// Checks a proposer's actions.
    pub fn check_proposer(&mut self, server: ServerId, actions: &[Action<Proposer>], coverage: &mut Coverage) {
        if self.new_disks.contains(server) {
            return;
        }
        let (quorums, applied) = (self.quorums, self.learners.get(&server).copied().unwrap_or_default());
        let is_open = |slot: Slot| slot > applied && !self.chosen.contains_key(&slot);
        let broken =
            self.leaders.check_actions(server, actions, |servers| quorums.is_phase2_quorum(servers), is_open, coverage);
        if let Some(Violation { invariant, what }) = broken {
            self.require(invariant, false, || what);
        }
        for action in actions {
            match action {
                // The proposer requests the next page of a promise, from one acceptor.
                Action::Send { to, message: Message::Prepare { ballot, from } }
                    if to.len() == 1 && self.prepared.get(ballot).is_some_and(|first| first < from) => {}
                Action::Send { message: Message::Prepare { ballot, from }, .. } => {
                    let new = self.prepared.insert(*ballot, *from).is_none() && ballot.server == server;
                    self.require(11, new, || format!("{server} prepared {ballot}, which was used before"));
                }
                Action::Send { message: Message::Accept { ballot, first, values }, .. } => {
                    let owner = ballot.server == server;
                    self.require(11, owner, || format!("{server} proposed at {ballot}, which is not its own ballot"));
                    for (slot, value) in (first.0..).map(Slot).zip(values) {
                        self.check_no_hole_before(*ballot, slot);
                        self.accept_sent(*ballot, slot, value);
                    }
                }
                // Prepares again without a proposal or step-down in between: its first round was only stale.
                Action::Trace(ProposerTraceEvent::PrepareSent { .. }) if !self.preparing.insert(server) => {
                    coverage.reach(CoveragePoint::PreparedAgain);
                }
                Action::Trace(ProposerTraceEvent::Retried { .. } | ProposerTraceEvent::SteppedDown { .. }) => {
                    self.preparing = self.preparing.without(ServerSet::only(server));
                    // What it proposed for other servers is not its own.
                    let handed = &self.submitted;
                    self.proposed_by.retain(|key, _| key.0 != server || handed.contains(key));
                }
                Action::Trace(ProposerTraceEvent::Proposed { slot, ballot, value, adopted, quorum, .. }) => {
                    self.preparing = self.preparing.without(ServerSet::only(server));
                    self.proposal(*slot, *ballot, value, *adopted, *quorum, coverage);
                }
                Action::Notify(ProposerNotification::NotApplied { id, why }) => {
                    coverage.reach(if *why == NotApplied::Preempted {
                        CoveragePoint::Preempted
                    } else {
                        CoveragePoint::ReportedNotApplied
                    });
                    let sent = self.proposed_by.contains_key(&(server, *id)) || self.leaders.has_forwarded(server, *id);
                    self.require(25, !sent, || {
                        format!("{server} reported {id:?} as not applied, but had sent it in an ACCEPT or FORWARD")
                    });
                    self.submitted.remove(&(server, *id));
                }
                _ => {}
            }
        }
    }

    /// A ballot proposes in consecutive slots, from its first one on. It may pass over chosen slots only.
    fn check_no_hole_before(&mut self, ballot: Ballot, slot: Slot) {
        let from = self.prepared.get(&ballot).copied().unwrap_or(slot);
        let next = *self.next.entry(ballot).or_insert(from);
        if slot >= next {
            let hole = next.to(slot.previous()).find(|passed| !self.chosen.contains_key(passed));
            self.next.insert(ballot, slot.next());
            self.require(30, hole.is_none(), || {
                format!("{ballot} proposed in slot {slot} and left a hole in slot {}", hole.unwrap_or_default())
            });
        }
    }

    fn accept_sent(&mut self, ballot: Ballot, slot: Slot, value: &Value) {
        let prepared = self.prepared.get(&ballot).is_some_and(|from| *from <= slot);
        self.require(7, prepared, || format!("{ballot} was not prepared for slot {slot}"));
        let same = self.proposed.get(&(slot, ballot)).is_none_or(|before| before == value);
        self.require(3, same, || format!("{ballot} proposed two values in slot {slot}"));
        self.proposed.insert((slot, ballot), value.clone());
        let lost = self.chosen.get(&slot).filter(|(at, chosen)| *at < ballot && chosen != value);
        if let Some((at, _)) = lost {
            let at = *at;
            self.require(8, false, || format!("slot {slot} was chosen at {at}, but {ballot} proposed another value"));
        }
    }

    fn proposal(
        &mut self,
        slot: Slot,
        ballot: Ballot,
        value: &Value,
        adopted: Option<Ballot>,
        quorum: ServerSet,
        coverage: &mut Coverage,
    ) {
        let promises =
            quorum.iter().map(|server| self.promises.get(&(ballot, server)).and_then(|told| told.reported(slot)));
        let promises: Vec<_> = promises.collect();
        let whole = self.quorums.is_phase1_quorum(quorum) && promises.iter().all(Option::is_some);
        let reported: Vec<&(Ballot, Value)> = promises.iter().flatten().copied().flatten().collect();
        let highest = reported.iter().max_by_key(|(at, _)| *at);
        let bound = match (highest, adopted) {
            (Some((at, bound)), adopted) => adopted == Some(*at) && bound == value,
            (None, adopted) => adopted.is_none(),
        };
        if let (Some(id), None) = (value.id(), adopted) {
            let before = self.proposed_by.insert((ballot.server, id), slot);
            if before.is_some_and(|before| before != slot) {
                coverage.reach(CoveragePoint::LostSlot);
            }
        }
        if highest.is_some() {
            coverage.reach(CoveragePoint::Adopted);
        } else if *value == Value::Noop {
            coverage.reach(CoveragePoint::HoleFilled);
        }
        if reported.iter().any(|(at, other)| Some(*at) != adopted && other != value) {
            coverage.reach(CoveragePoint::AdoptedOfMany);
        }
        let known = self.was_requested(value);
        self.require(7, whole, || format!("{ballot} proposed in slot {slot} without complete promises of {quorum}"));
        self.require(8, bound, || {
            format!("{ballot} proposed in slot {slot} another value than its promises ({quorum}) require")
        });
        self.require(2, known, || format!("{ballot} proposed in slot {slot} a value that no client requested"));
    }

    // ---- learners

    /// A learner starts with the state after this slot.
    pub fn learner_started(&mut self, server: ServerId, slot: Slot, coverage: &mut Coverage) {
        if self.new_disks.contains(server) {
            return;
        }
        self.learners.insert(server, slot);
        self.installs = self.installs.without(ServerSet::only(server));
        if slot == Slot(0) && !self.applied.is_empty() {
            coverage.reach(CoveragePoint::LearnerFromNothing);
        }
    }

    /// Checks a learner's actions.
    pub fn check_learner(
        &mut self,
        server: ServerId,
        incarnation: u64,
        actions: &[Action<paxos_kv::paxos::Learner<Kv>>],
        coverage: &mut Coverage,
    ) {
        if self.new_disks.contains(server) {
            return;
        }
        for action in actions {
            match action {
                Action::Trace(LearnerTraceEvent::Chosen { slot, ballot, quorum, .. }) => {
                    let voted = self.votes.get(&(*slot, *ballot)).map(|(_, servers)| *servers).unwrap_or_default();
                    let counted = quorum.without(voted).is_empty() && self.quorums.is_phase2_quorum(*quorum);
                    self.require(9, counted, || {
                        format!("{server} counted {quorum} for slot {slot} at {ballot}, but only {voted} have accepted")
                    });
                }
                Action::Trace(LearnerTraceEvent::Learned { slot, value, outcome, .. }) => {
                    self.learned(server, *slot, value, outcome, coverage);
                }
                Action::Trace(LearnerTraceEvent::Installed { slot, digest, .. }) => {
                    self.installed(server, *slot, *digest, coverage)
                }
                Action::Trace(LearnerTraceEvent::FillRequested { .. }) => coverage.reach(CoveragePoint::ReadFilled),
                Action::Send { message: Message::Chosen { ballot, slots }, .. } => {
                    for slot in slots.first.to(slots.last) {
                        let voted = self.votes.get(&(slot, *ballot)).map(|(_, servers)| *servers).unwrap_or_default();
                        let chosen = self.quorums.is_phase2_quorum(voted);
                        self.require(9, chosen, || {
                            format!(
                                "{server} reported slot {slot} as chosen at {ballot}, which only {voted} have accepted"
                            )
                        });
                    }
                }
                Action::Send { message: Message::Entries { entries, .. }, .. } => {
                    let wrong =
                        entries.iter().find(|entry| self.chosen.get(&entry.slot).map(|(_, v)| v) != Some(&entry.value));
                    let wrong = wrong.map(|entry| entry.slot);
                    self.require(12, wrong.is_none(), || {
                        format!("{server} sent a value for {wrong:?} that was not chosen")
                    });
                }
                Action::Send { message: Message::Progress { applied, digest }, .. } if *applied > Slot(0) => {
                    let same = self.digest(*applied) == Some(*digest);
                    self.require(13, same, || {
                        format!("the state of {server} differs from that of the log after slot {applied}")
                    });
                }
                Action::Notify(LearnerNotification::ResultsFound { id, .. }) => {
                    self.proposed_by.remove(&(server, *id));
                }
                Action::Notify(LearnerNotification::Answer { token, slot, .. }) => {
                    let bound = self.reads.remove(&(incarnation, *token));
                    self.require(17, bound.is_some(), || format!("{server} answered a read that no client sent"));
                    let bound = bound.unwrap_or_default();
                    self.require(17, *slot >= bound, || {
                        format!(
                            "{server} answered a read at slot {slot}, but {bound} was chosen before the read arrived"
                        )
                    });
                    let applied = self.learners.get(&server).copied().unwrap_or_default();
                    self.require(17, *slot <= applied, || {
                        format!("{server} answered a read at slot {slot}, but has applied only up to {applied}")
                    });
                }
                Action::Notify(LearnerNotification::ReadFailed { token, .. }) => {
                    coverage.reach(CoveragePoint::ReadFailed);
                    self.reads.remove(&(incarnation, *token));
                }
                _ => {}
            }
        }
    }

    /// A read has reached a learner.
    pub fn read_arrived(&mut self, incarnation: u64, token: u64) {
        let chosen = self.highest_chosen();
        self.reads.insert((incarnation, token), chosen);
    }

    fn learned(&mut self, server: ServerId, slot: Slot, value: &Value, outcome: &ApplyResult, coverage: &mut Coverage) {
        if let Some(id) = value.id() {
            self.proposed_by.remove(&(server, id));
            self.submitted.remove(&(server, id));
            self.leaders.applied(server, id);
        }
        let before = self.learners.insert(server, slot).unwrap_or_default();
        self.require(12, slot == before.next(), || format!("{server} applied slot {slot} after {before}"));
        let chosen = self.chosen.get(&slot).is_some_and(|(_, chosen)| chosen == value);
        self.require(12, chosen, || format!("{server} applied in slot {slot} a value that was not chosen"));
        if let Some(known) = self.outcome(slot) {
            let same = known == outcome;
            return self.require(13, same, || format!("{server} got another outcome in slot {slot}"));
        }
        let expected = self.machine.apply(slot, value);
        self.require(13, expected == *outcome, || {
            format!("slot {slot} had the outcome {outcome:?}, but the log gives {expected:?}")
        });
        let known = self.was_requested(value);
        self.require(2, known, || format!("slot {slot} holds {value:?}, which no client requested"));
        self.applied.push((*outcome, self.machine.digest()));
        if let Some(id) = value.id() {
            self.record_effect(id, slot, outcome, coverage);
        }
    }

    fn record_effect(&mut self, id: CommandId, slot: Slot, outcome: &ApplyResult, coverage: &mut Coverage) {
        match outcome {
            ApplyResult::Applied(_) => {
                let first = self.effects.insert(id, slot).is_none();
                self.require(15, first, || format!("{id:?} took effect twice, the second time in slot {slot}"));
                let refused = self.refused.contains(&id);
                self.require(25, !refused, || format!("{id:?} was reported as not applied, but is in slot {slot}"));
            }
            ApplyResult::Duplicate(saved) => {
                coverage.reach(CoveragePoint::Duplicate);
                let same = self.effects.get(&id) == Some(&saved.slot);
                self.require(15, same, || format!("{id:?} was reported as a duplicate of slot {}", saved.slot));
            }
            ApplyResult::Opened { session, .. } => {
                let before = self.effects.insert(id, Slot(*session));
                // A session that was evicted can be opened again, as another one.
                let twice =
                    before.is_some_and(|before| before.0 != *session && self.machine.sessions().contains(before.0));
                self.require(15, !twice, || format!("{id:?} opened two sessions"));
            }
            ApplyResult::Superseded => coverage.reach(CoveragePoint::Superseded),
            ApplyResult::Expired => coverage.reach(CoveragePoint::Expired),
            ApplyResult::Noop => {}
            ApplyResult::Unreadable => self.require(2, false, || format!("{id:?} in slot {slot} cannot be read")),
        }
    }

    // ---- clients

    /// A client requests a command for the first time: this write, or a session if None.
    pub fn record_request(&mut self, id: CommandId, op: Option<Op>) {
        self.requested.insert(id, op);
    }

    /// Whether a client has requested exactly this value; a no-op needs no request.
    pub(super) fn was_requested(&self, value: &Value) -> bool {
        let Value::Command(command) = value else { return true };
        let Some(asked) = self.requested.get(&command.id) else { return false };
        match paxos_kv::kv::KvCommand::from_paxos(command) {
            Ok(paxos_kv::kv::KvCommand::Write { op, .. }) => asked.as_ref() == Some(&op),
            Ok(paxos_kv::kv::KvCommand::Open { .. }) => asked.is_none(),
            Err(_) => false,
        }
    }

    /// Checks the result of a write that is sent to a client.
    pub fn acknowledged(&mut self, id: CommandId, slot: Slot, written: WriteResult) {
        if self.commits.is_enabled() {
            return self.commit_acknowledged(id, slot, written);
        }
        let applied = matches!(self.outcome(slot), Some(ApplyResult::Applied(saved)) if saved.written == written);
        let kept = applied && self.effects.get(&id) == Some(&slot);
        self.require(14, kept, || {
            format!("{id:?} was acknowledged as {written:?} in slot {slot}, which holds something else")
        });
    }

    /// A client counts its write as certainly not applied.
    pub fn refused(&mut self, id: CommandId) {
        if self.commits.is_enabled() {
            return self.commit_refused(id);
        }
        let applied = self.effects.contains_key(&id);
        self.require(25, !applied, || format!("{id:?} was reported as not applied, but has taken effect"));
        self.refused.insert(id);
    }

    /// A role has crashed: requests to it get no answer.
    pub fn role_crashed(&mut self, server: ServerId, role: RoleKind, incarnation: u64) {
        match role {
            RoleKind::Learner => {
                // Its proposer ends phase 1 with it.
                self.preparing = self.preparing.without(ServerSet::only(server));
                self.reads.retain(|(asked, _), _| *asked != incarnation);
            }
            RoleKind::Proposer => {
                self.preparing = self.preparing.without(ServerSet::only(server));
                self.proposed_by.retain(|(proposer, _), _| *proposer != server);
                self.submitted.retain(|(proposer, _)| *proposer != server);
                self.leaders.role_crashed(server);
            }
            RoleKind::Acceptor | RoleKind::Coordinator | RoleKind::Participant => {}
        }
    }

    /// A server got a new disk. No role may count its messages from now on, so they are not checked. If a proposer
    /// counted its promise, the check of proposals would find no such promise.
    pub fn disk_replaced(&mut self, server: ServerId) {
        self.new_disks.insert(server);
    }

    /// A server has its earlier disk again.
    pub fn disk_restored(&mut self, server: ServerId) {
        self.new_disks = self.new_disks.without(ServerSet::only(server));
    }
}
