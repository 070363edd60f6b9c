//! Phase 1, and how an attempt begins and fails.
//!
//! An attempt prepares a new ballot for all slots from the first that its own learner has not applied. With a quorum of
//! promises it goes on to [`phase2`](super::phase2); a rival or silence may end it at any time.

use std::collections::BTreeMap;

use super::words::{ProposerFact, ProposerRecord, ProposerTimer, RetryReason, StepDown};
use super::{Phase, Proposer};
use crate::paxos::promises::Promises;
use crate::paxos::{Ballot, Message, Slot, rules};
use crate::role::{Output, Server, Servers};

/// A life reserves so many rounds at a time.
const ROUNDS_RESERVED: u64 = 1_024;
/// A beat older than so many ticks says nothing.
const FRESH_TICKS: u64 = 3;
/// A proposer whose learner is further behind a living peer than this lets it catch up first.
const BEHIND: u64 = 64;

/// A ballot at work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    pub(super) ballot: Ballot,
    /// No slot below is proposed in at this ballot.
    pub(super) from: Slot,
    /// It only fills slots up to this one, and carries no command of its own.
    pub(super) fill: Option<Slot>,
    /// Its first PREPARE was refused, and it has prepared again above.
    again: bool,
    nacks: BTreeMap<Server, Ballot>,
    /// Who has answered anything.
    pub(super) answered: Servers,
}

impl Proposer {
    /// Basic Paxos: starts an attempt if there is work, a learner to see it through, and nothing else under way.
    pub(super) fn begin(&mut self, out: &mut Output<Self>) {
        self.begin_after(false, out);
    }

    /// As [`Proposer::begin`]; `waited` if the learner had its time to catch up.
    pub(super) fn begin_after(&mut self, waited: bool, out: &mut Output<Self>) {
        if self.policy.keeps_ballot() || self.phase != Phase::Idle || self.applied.is_none() {
            return;
        }
        let first = self.first_open();
        self.fill = self.fill.filter(|slot| *slot >= first);
        if self.commands.is_empty() && self.fill.is_none() {
            return;
        }
        if self.is_behind() && !waited {
            self.phase = Phase::CatchingUp;
            return out.arm(ProposerTimer::CatchUp);
        }
        self.prepare(false, out);
    }

    /// The first slot of which the proposer does not know that it is chosen.
    pub(super) fn first_open(&self) -> Slot {
        self.applied.unwrap_or_default().next().max(self.truncated_below)
    }

    /// Whether a living peer has applied far more than the own learner: its slots must not be fought over again.
    pub(super) fn is_behind(&self) -> bool {
        self.highest_beat().ahead_of(self.applied.unwrap_or_default()) > BEHIND
    }

    /// The highest slot that a living peer says it has applied.
    pub(super) fn highest_beat(&self) -> Slot {
        let fresh = self.peers.values().filter(|(_, heard_at)| self.ticks - heard_at < FRESH_TICKS);
        fresh.map(|(theirs, _)| *theirs).max().unwrap_or_default()
    }

    /// Phase 1: asks everybody to promise a ballot that nobody has used.
    pub(super) fn prepare(&mut self, again: bool, out: &mut Output<Self>) {
        if self.next_round > Ballot::LAST_ROUND {
            // There is no ballot that it could use. What waits here is given up by and by, and others may still lead.
            self.phase = Phase::Idle;
            return;
        }
        let (from, to_lead) = (self.first_open(), self.policy.keeps_ballot());
        let ballot = rules::ballot_of(self.next_round, self.me);
        self.next_round = rules::round_after(self.next_round);
        self.reserve(out);
        let (to, fill) = (self.quorums.servers(), self.fill.filter(|_| !to_lead));
        let command = self.commands.oldest().filter(|_| fill.is_none() && !to_lead).cloned();
        out.fact(|| ProposerFact::Prepared { ballot, from, to, to_lead, command });
        out.send(to, Message::Prepare { ballot, from });
        out.arm(ProposerTimer::Attempt { ballot, failures: self.failures });
        let attempt = Attempt { ballot, from, fill, again, nacks: BTreeMap::new(), answered: Servers::NONE };
        self.phase = Phase::Preparing(attempt, Promises::default());
    }

    /// A life begins: it spends rounds before it speaks of any.
    pub(super) fn reserve_first(&mut self, out: &mut Output<Self>) {
        self.reserved = self.next_round + ROUNDS_RESERVED;
        out.persist(ProposerRecord::Spent(self.reserved));
    }

    /// Spends rounds durably before any of them is spoken of.
    fn reserve(&mut self, out: &mut Output<Self>) {
        if self.next_round > self.reserved {
            self.reserve_first(out);
        }
    }

    /// PROMISE: a part of an acceptor's answer. With a quorum of whole answers, phase 2 begins.
    pub(super) fn handle_promise(&mut self, acceptor: Server, message: Message, out: &mut Output<Self>) {
        let Message::Promise { ballot, part, truncated_below, accepted, damaged } = message else { return };
        self.note_truncated(truncated_below);
        let open = self.first_open();
        let Phase::Preparing(attempt, promises) = &mut self.phase else { return };
        if attempt.ballot != ballot || !self.quorums.servers().contains(acceptor) {
            return;
        }
        attempt.answered.insert(acceptor);
        promises.add(acceptor, part, accepted, truncated_below, damaged);
        out.arm(ProposerTimer::Attempt { ballot, failures: self.failures });
        let first = attempt.from.max(open);
        let own = if attempt.fill.is_some() { 0 } else { self.policy.commands_per_ballot() };
        let Some(bound) = promises.bound(&self.quorums, first, attempt.fill, own) else { return };
        let attempt = attempt.clone();
        if self.policy.keeps_ballot() && !attempt.nacks.is_empty() && !attempt.again {
            // Who leads against a refusal is refused again with the first ACCEPT: better above it, once.
            return self.prepare(true, out);
        }
        self.propose(attempt, bound, out);
    }

    /// NACK: an acceptor is bound to a rival's ballot; the next round must be above it.
    pub(super) fn handle_nack(&mut self, acceptor: Server, message: Message, out: &mut Output<Self>) {
        let Message::Nack { ballot, promised, .. } = message else { return };
        self.next_round = self.next_round.max(promised.round + 1);
        let is_ours = self.at_work() == Some(ballot) && self.quorums.servers().contains(acceptor);
        let (attempt, preparing) = match &mut self.phase {
            Phase::Preparing(attempt, _) if is_ours => (attempt, true),
            Phase::Proposing(work) if is_ours => (&mut work.attempt, false),
            _ => return,
        };
        // Who refused the PREPARE will refuse the ACCEPTs of this ballot too: both count.
        let first = attempt.nacks.is_empty();
        attempt.nacks.insert(acceptor, promised);
        attempt.answered.insert(acceptor);
        let refusals = attempt.nacks.keys().copied().collect();
        let (again, quorums) = (attempt.again, self.quorums);
        let lost = if preparing { quorums.is_prepare_refused(refusals) } else { quorums.is_accept_refused(refusals) };
        if !preparing && self.policy.keeps_ballot() {
            // One refusal is enough for a leader: somebody has prepared a higher ballot.
            self.step_down(StepDown::Nacked(promised), out);
        } else if lost && preparing && !again {
            // The round was only stale: nobody need be waited for.
            self.prepare(true, out);
        } else if lost {
            self.fail(RetryReason::Refused, out);
        } else if first {
            out.arm(ProposerTimer::Nacked { ballot });
        }
    }

    /// The ballot at work.
    pub(crate) fn at_work(&self) -> Option<Ballot> {
        match &self.phase {
            Phase::Preparing(attempt, _) => Some(attempt.ballot),
            Phase::Proposing(work) => Some(work.attempt.ballot),
            Phase::Idle | Phase::Pausing | Phase::CatchingUp | Phase::PreVoting { .. } => None,
        }
    }

    /// The time of an attempt is over. A leader goes by its own clock.
    pub(super) fn time_out(&mut self, ballot: Ballot, reason: RetryReason, out: &mut Output<Self>) {
        if self.at_work() == Some(ballot) && self.leads().is_none() {
            self.fail(reason, out);
        }
    }

    /// The attempt is lost: wait a random moment, then try again at a higher ballot.
    pub(super) fn fail(&mut self, reason: RetryReason, out: &mut Output<Self>) {
        let attempt = match std::mem::replace(&mut self.phase, Phase::Pausing) {
            Phase::Preparing(attempt, _) => attempt,
            Phase::Proposing(work) => work.attempt,
            _ => unreachable!("only an attempt can fail"),
        };
        let Attempt { ballot, from, fill, nacks, answered, .. } = attempt;
        if fill.is_some() {
            // A rival does the same work, and the learner asks again.
            self.fill = None;
        }
        self.failures += 1;
        self.answered = answered;
        self.commands.release_all();
        let command = self.commands.oldest().filter(|_| fill.is_none() && !self.policy.keeps_ballot()).cloned();
        let nacks = nacks.into_iter().collect();
        let next = self.next_round;
        out.fact(|| ProposerFact::Retried { ballot, from, nacks, answered, next, reason, command });
        if self.policy.keeps_ballot() {
            self.phase = Phase::Idle;
            out.arm(ProposerTimer::Election { soon: false });
        } else {
            out.arm(ProposerTimer::Pause);
        }
    }
}
