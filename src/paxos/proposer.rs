//! The proposer: gets commands chosen.
//!
//! A proposer makes *attempts*. An attempt prepares a new ballot for all slots from the first that its own learner has
//! not applied, adopts what the promises bind it to, fills the holes with no-ops, and puts a command of its own behind.
//! It is over when its learner has applied every slot that it proposed in, or when a rival or silence beats it; then it
//! waits a random moment and tries again at a higher ballot.
//!
//! A command stays with its proposer until its outcome is applied, whoever proposed it last. A proposer that has never
//! put a command into an ACCEPT may say "certainly not applied" and forget it; after that only the log knows.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::promises::{Bound, Promises};
use super::{Ballot, Command, CommandId, Message, Policy, Quorums, Slot, Value};
use crate::museum::{self, Bug};
use crate::role::{Input, Output, Role, Server, Servers, Timed};

/// A proposer keeps at most so many commands; more are refused.
pub const COMMANDS_MAX: usize = 1_024;
/// The commands that a proposer keeps take at most so many bytes; more are refused.
pub const COMMANDS_MAX_BYTES: usize = 64 << 20;
/// At most so many slots are proposed in at one ballot.
pub const WINDOW: u64 = 128;
/// A life reserves so many rounds at a time.
const ROUNDS_RESERVED: u64 = 1_024;
/// A command that was in no ACCEPT after so many ticks (of 100 ms) is given up: before its client's try ends.
const GIVE_UP_TICKS: u64 = 8;
/// A beat older than so many ticks says nothing.
const FRESH_TICKS: u64 = 3;
/// A proposer whose learner is further behind a living peer than this lets it catch up first.
const BEHIND: u64 = 64;

/// What a proposer must never forget: a round that was used is never used again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProposerRecord {
    /// All rounds below this one are spent.
    Spent(u64),
}

/// A time-out of a proposer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProposerTimer {
    /// A tenth of a second has passed.
    Tick,
    /// Nothing has moved for too long.
    Attempt {
        /// The attempt's ballot.
        ballot: Ballot,
        /// How many attempts in a row have failed before it.
        failures: u32,
    },
    /// Some time has passed since the first NACK.
    Nacked {
        /// The attempt's ballot.
        ballot: Ballot,
    },
    /// The random wait between two attempts is over.
    Pause,
    /// The learner had its time to catch up.
    CatchUp,
}

impl Timed for ProposerTimer {
    fn delay_ms(&self) -> RangeInclusive<u64> {
        match *self {
            ProposerTimer::Tick => 100..=100,
            ProposerTimer::Attempt { failures, .. } => {
                let delay = 100 << failures.min(4);
                delay..=delay
            }
            ProposerTimer::Nacked { .. } => 20..=20,
            // Constant: a wait that grew with each loss would starve the loser for ever.
            ProposerTimer::Pause => 0..=40,
            ProposerTimer::CatchUp => 1_000..=1_000,
        }
    }
}

/// What a server asks of its proposer.
#[derive(Clone, Debug)]
pub enum ProposerRequest {
    /// Get this command chosen.
    Propose(Command),
    /// The own learner has applied a slot.
    Applied {
        /// The slot.
        slot: Slot,
        /// Its command.
        id: Option<CommandId>,
    },
    /// The own learner has died.
    LearnerDown,
}

/// Why a command is certainly not applied through this proposer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NotApplied {
    /// No quorum of acceptors has answered.
    NoQuorum {
        /// Those that have.
        answered: Servers,
    },
    /// Rival proposers were faster each time, or the commands before it took too long.
    Outrun,
    /// The own learner is down or too far behind.
    LearnerBehind,
    /// Too many commands wait already.
    Busy,
}

/// What a proposer tells its server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProposerOutcome {
    /// The command was in no ACCEPT of this life, and is forgotten.
    NotApplied {
        /// The command.
        id: CommandId,
        /// Why.
        why: NotApplied,
    },
}

/// Why an attempt has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryReason {
    /// A majority has refused.
    Refused,
    /// Not chosen a while after the first refusal.
    Nacked,
    /// Too few have answered.
    Silence,
}

/// A step of a proposer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProposerFact {
    /// It asks for promises.
    Prepared {
        /// The ballot.
        ballot: Ballot,
        /// The first slot of interest.
        from: Slot,
        /// Whom it asks.
        to: Servers,
        /// The command that it is for; none if it only fills slots.
        command: Option<Command>,
    },
    /// It proposes.
    Proposed {
        /// The slot.
        slot: Slot,
        /// The ballot.
        ballot: Ballot,
        /// The value.
        value: Value,
        /// The ballot at which it was accepted before, if the promises bind the proposer to it.
        adopted: Option<Ballot>,
        /// Who promised.
        quorum: Servers,
        /// Whom it asks.
        to: Servers,
    },
    /// The attempt is lost; it will try again.
    Retried {
        /// The attempt's ballot.
        ballot: Ballot,
        /// Its first slot.
        from: Slot,
        /// Who refused, and what binds each.
        nacks: Vec<(Server, Ballot)>,
        /// Who has answered at all.
        answered: Servers,
        /// The next round.
        next: u64,
        /// Why.
        reason: RetryReason,
        /// The command that it was for.
        command: Option<Command>,
    },
}

/// A command that waits for its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pending {
    command: Command,
    /// The tick when it came.
    since: u64,
    /// It was in an ACCEPT of this life: it may be chosen at any time, by anybody.
    proposed: bool,
}

/// A ballot at work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Attempt {
    ballot: Ballot,
    /// No slot below is proposed in at this ballot.
    from: Slot,
    /// It only fills slots up to this one, and carries no command of its own.
    fill: Option<Slot>,
    /// Its first PREPARE was refused by a majority, and it has prepared again above.
    again: bool,
    nacks: BTreeMap<Server, Ballot>,
    /// Who has answered anything.
    answered: Servers,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Nothing to do, or no learner to do it with.
    Idle,
    /// Between two attempts.
    Pausing,
    /// The learner catches up first.
    CatchingUp,
    /// Phase 1.
    Preparing(Attempt, Promises),
    /// Phase 2, with the slots that the own learner has not applied yet.
    Accepting(Attempt, BTreeMap<Slot, Value>),
}

/// The proposer of one server. See the head of its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposer {
    me: Server,
    quorums: Quorums,
    policy: Policy,
    /// The round of the next ballot; at least 1.
    next_round: u64,
    /// This life may use rounds below this one without another record.
    reserved: u64,
    /// What the own learner has applied; None while it is down.
    applied: Option<Slot>,
    /// All slots below were chosen: an acceptor has said so, and that it no longer holds their values. At least 0.
    truncated_below: Slot,
    /// Commands whose outcome is not applied, oldest first; at most [`COMMANDS_MAX`].
    commands: VecDeque<Pending>,
    /// A slot that a learner waits for.
    fill: Option<Slot>,
    phase: Phase,
    /// Attempts lost in a row.
    failures: u32,
    /// Who answered the last attempt.
    answered: Servers,
    /// What the peers' learners have applied, and the tick when they said so.
    peers: BTreeMap<Server, (Slot, u64)>,
    ticks: u64,
}

impl Proposer {
    /// A proposer that knows nothing yet.
    pub fn new(me: Server, quorums: Quorums, policy: Policy) -> Proposer {
        Proposer {
            me,
            quorums,
            policy,
            next_round: 1,
            reserved: 1,
            applied: None,
            truncated_below: Slot(0),
            commands: VecDeque::new(),
            fill: None,
            phase: Phase::Idle,
            failures: 0,
            answered: Servers::NONE,
            peers: BTreeMap::new(),
            ticks: 0,
        }
    }

    /// The round of its next ballot.
    pub fn next_round(&self) -> u64 {
        self.next_round
    }

    /// Starts an attempt if there is work, a learner to see it through, and nothing else under way.
    fn begin(&mut self, out: &mut Output<Self>) {
        self.begin_after(false, out);
    }

    /// As [`Proposer::begin`]; `waited` if the learner had its time to catch up.
    fn begin_after(&mut self, waited: bool, out: &mut Output<Self>) {
        if self.phase != Phase::Idle || self.applied.is_none() {
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
    fn first_open(&self) -> Slot {
        self.applied.unwrap_or_default().next().max(self.truncated_below)
    }

    /// Whether a living peer has applied far more than the own learner: its slots must not be fought over again.
    fn is_behind(&self) -> bool {
        let applied = self.applied.unwrap_or_default();
        let mut fresh = self.peers.values().filter(|(_, heard_at)| self.ticks - heard_at < FRESH_TICKS);
        fresh.any(|(theirs, _)| theirs.ahead_of(applied) > BEHIND)
    }

    /// Phase 1: asks everybody to promise a ballot that nobody has used.
    fn prepare(&mut self, again: bool, out: &mut Output<Self>) {
        let from = self.first_open();
        let owner = if museum::is(Bug::BallotWithoutServer) { Server(1) } else { self.me };
        let ballot = Ballot { round: self.next_round, server: owner };
        self.next_round += if museum::is(Bug::B04) { 0 } else { 1 };
        self.reserve(out);
        let (to, fill) = (self.quorums.servers(), self.fill);
        let command = self.commands.front().filter(|_| fill.is_none()).map(|pending| pending.command.clone());
        out.fact(|| ProposerFact::Prepared { ballot, from, to, command });
        let told = if museum::is(Bug::AcceptBelowFrom) { from.next() } else { from };
        out.send(to, Message::Prepare { ballot, from: told });
        out.arm(ProposerTimer::Attempt { ballot, failures: self.failures });
        let attempt = Attempt { ballot, from, fill, again, nacks: BTreeMap::new(), answered: Servers::NONE };
        self.phase = Phase::Preparing(attempt, Promises::default());
    }

    /// Spends rounds durably before any of them is spoken of.
    fn reserve(&mut self, out: &mut Output<Self>) {
        if self.next_round > self.reserved {
            self.reserved = self.next_round + ROUNDS_RESERVED;
            out.persist(ProposerRecord::Spent(self.reserved));
        }
    }

    /// PROMISE: a part of an acceptor's answer. With a quorum of whole answers, phase 2 begins.
    fn handle_promise(&mut self, acceptor: Server, message: Message, out: &mut Output<Self>) {
        let Message::Promise { ballot, part, truncated_below, accepted, damaged } = message else { return };
        self.truncated_below = self.truncated_below.max(truncated_below);
        let open = self.first_open();
        let Phase::Preparing(attempt, promises) = &mut self.phase else { return };
        let is_stale = attempt.ballot != ballot && !museum::is(Bug::B08);
        if is_stale || !self.quorums.servers().contains(acceptor) {
            return;
        }
        attempt.answered.insert(acceptor);
        promises.add(acceptor, part, accepted, truncated_below, damaged);
        out.arm(ProposerTimer::Attempt { ballot, failures: self.failures });
        let first = attempt.from.max(open);
        let own = if attempt.fill.is_some() { 0 } else { self.policy.commands_per_ballot() as u64 };
        if let Some(bound) = promises.bound(&self.quorums, first, attempt.fill, own) {
            let attempt = attempt.clone();
            self.propose(attempt, bound, out);
        }
    }

    /// Phase 2: proposes what the promises bind it to, no-ops in the holes, and then its own commands.
    fn propose(&mut self, attempt: Attempt, bound: Bound, out: &mut Output<Self>) {
        let (ballot, quorum, to) = (attempt.ballot, bound.quorum, self.quorums.servers());
        assert!(self.quorums.is_prepared(quorum.and(to)), "{ballot} was promised by {quorum} alone: no quorum");
        let plan = self.plan(&attempt, &bound);
        let mut open = BTreeMap::new();
        for (slot, (value, adopted)) in plan {
            if museum::is(Bug::B11) && value == Value::Noop {
                continue;
            }
            assert!(slot >= attempt.from, "ballot {ballot} was prepared from {:?}, not for {slot:?}", attempt.from);
            self.mark_proposed(value.id());
            out.fact(|| ProposerFact::Proposed { slot, ballot, value: value.clone(), adopted, quorum, to });
            out.send(to, Message::Accept { ballot, slot, value: value.clone() });
            open.insert(slot, value);
        }
        self.phase = Phase::Accepting(attempt, open);
        self.finish_if_applied(out);
    }

    /// What to propose in which slot, with the ballot of what is adopted.
    fn plan(&self, attempt: &Attempt, bound: &Bound) -> BTreeMap<Slot, (Value, Option<Ballot>)> {
        let Bound { first, last, .. } = *bound;
        let mut plan = BTreeMap::new();
        for slot in first.to(last).take(WINDOW as usize) {
            let value = match bound.adopted.get(&slot) {
                Some((ballot, value)) => (value.clone(), Some(*ballot)),
                None => (Value::Noop, None),
            };
            plan.insert(slot, value);
        }
        if attempt.fill.is_some() || last.ahead_of(first) >= WINDOW {
            return plan;
        }
        let adopted: Vec<CommandId> = plan.values().filter_map(|(value, _)| value.id()).collect();
        let own = self.commands.iter().filter(|pending| !adopted.contains(&pending.command.id));
        // The slots right behind the last are known to be free: see Promises::bound.
        for (n, pending) in own.take(self.policy.commands_per_ballot()).enumerate() {
            plan.insert(last.next().plus(n as u64), (Value::Command(pending.command.clone()), None));
        }
        plan
    }

    fn mark_proposed(&mut self, id: Option<CommandId>) {
        for pending in self.commands.iter_mut().filter(|pending| Some(pending.command.id) == id) {
            pending.proposed = true;
        }
    }

    /// NACK: an acceptor is bound to a rival's ballot; the next round must be above it.
    fn handle_nack(&mut self, acceptor: Server, message: Message, out: &mut Output<Self>) {
        let Message::Nack { ballot, promised, .. } = message else { return };
        self.next_round = self.next_round.max(promised.round + 1);
        let (attempt, preparing) = match &mut self.phase {
            Phase::Preparing(attempt, _) => (attempt, true),
            Phase::Accepting(attempt, _) => (attempt, false),
            Phase::Idle | Phase::Pausing | Phase::CatchingUp => return,
        };
        if attempt.ballot != ballot || !self.quorums.servers().contains(acceptor) {
            return;
        }
        // Who refused the PREPARE will refuse the ACCEPTs of this ballot too: both count.
        let first = attempt.nacks.is_empty();
        attempt.nacks.insert(acceptor, promised);
        attempt.answered.insert(acceptor);
        let refusals = attempt.nacks.keys().copied().collect();
        let (again, quorums) = (attempt.again, self.quorums);
        let lost = if preparing { quorums.is_prepare_refused(refusals) } else { quorums.is_accept_refused(refusals) };
        if lost && preparing && !again {
            // The round was only stale: nobody need be waited for.
            self.prepare(true, out);
        } else if lost {
            self.fail(RetryReason::Refused, out);
        } else if first {
            out.arm(ProposerTimer::Nacked { ballot });
        }
    }

    /// TRUNCATED: the slot was chosen long ago. It is closed, and a command proposed in it goes on, behind what is
    /// forgotten: to prepare the same slots again would end here again, at once and for ever.
    fn handle_truncated(&mut self, ballot: Ballot, below: Slot, out: &mut Output<Self>) {
        self.truncated_below = self.truncated_below.max(below);
        if let Phase::Accepting(attempt, open) = &mut self.phase
            && attempt.ballot == ballot
        {
            open.retain(|slot, _| *slot >= below);
            self.finish_if_applied(out);
        }
    }

    /// BEAT: how far a learner is. The own learner's says that it lives.
    fn handle_beat(&mut self, server: Server, applied: Slot, out: &mut Output<Self>) {
        if server == self.me {
            self.handle_applied(applied, None, out);
        } else if self.quorums.servers().contains(server) {
            self.peers.insert(server, (applied, self.ticks));
        }
    }

    /// FILL: a learner waits for this slot.
    fn handle_fill(&mut self, slot: Slot, out: &mut Output<Self>) {
        self.fill = self.fill.max(Some(slot));
        self.begin(out);
    }

    /// The own learner has applied everything up to `slot`, and `id` just now: its outcome is on its way to whoever waits.
    fn handle_applied(&mut self, slot: Slot, id: Option<CommandId>, out: &mut Output<Self>) {
        let before = self.applied.replace(slot);
        if id.is_some() {
            self.commands.retain(|pending| Some(pending.command.id) != id);
        }
        if let Phase::Accepting(attempt, open) = &mut self.phase {
            open.retain(|open, _| *open > slot);
            if before < Some(slot) && !open.is_empty() {
                out.arm(ProposerTimer::Attempt { ballot: attempt.ballot, failures: self.failures });
            }
            self.finish_if_applied(out);
        }
        if self.phase == Phase::CatchingUp && !self.is_behind() {
            self.phase = Phase::Idle;
        }
        self.begin(out);
    }

    /// The attempt has done all that it was for: give the ballot up.
    fn finish_if_applied(&mut self, out: &mut Output<Self>) {
        if let Phase::Accepting(attempt, open) = &self.phase
            && open.is_empty()
        {
            self.answered = attempt.answered;
            self.failures = 0;
            self.phase = Phase::Idle;
            self.begin(out);
        }
    }

    /// The attempt is lost: wait a random moment, then try again at a higher ballot.
    fn fail(&mut self, reason: RetryReason, out: &mut Output<Self>) {
        let (Phase::Preparing(attempt, _) | Phase::Accepting(attempt, _)) =
            std::mem::replace(&mut self.phase, Phase::Pausing)
        else {
            unreachable!("only an attempt can fail")
        };
        let Attempt { ballot, from, fill, nacks, answered, .. } = attempt;
        if fill.is_some() {
            // A rival does the same work, and the learner asks again.
            self.fill = None;
        }
        self.failures += 1;
        self.answered = answered;
        let command = self.commands.front().filter(|_| fill.is_none()).map(|pending| pending.command.clone());
        let nacks = nacks.into_iter().collect();
        let next = self.next_round;
        out.fact(|| ProposerFact::Retried { ballot, from, nacks, answered, next, reason, command });
        out.arm(ProposerTimer::Pause);
    }

    /// A command of a client's: a resend of one that is here already joins it.
    fn handle_propose(&mut self, command: Command, out: &mut Output<Self>) {
        if let Some(pending) = self.commands.iter_mut().find(|pending| pending.command.id == command.id) {
            pending.since = self.ticks;
        } else if self.has_room_for(&command) {
            // The proposal under way may have adopted it: then it is in an ACCEPT already.
            let open = if let Phase::Accepting(_, open) = &self.phase { Some(open) } else { None };
            let proposed = open.is_some_and(|open| open.values().any(|value| value.id() == Some(command.id)));
            self.commands.push_back(Pending { command, since: self.ticks, proposed });
        } else {
            return out.outcome(ProposerOutcome::NotApplied { id: command.id, why: NotApplied::Busy });
        }
        self.begin(out);
    }

    fn has_room_for(&self, command: &Command) -> bool {
        let kept: usize = self.commands.iter().map(|pending| pending.command.payload.len()).sum();
        self.commands.len() < COMMANDS_MAX && kept + command.payload.len() <= COMMANDS_MAX_BYTES
    }

    /// A tenth of a second has passed: give up what was never proposed and is about to be given up by its client.
    fn tick(&mut self, out: &mut Output<Self>) {
        self.ticks += 1;
        out.arm(ProposerTimer::Tick);
        let why = self.why_not();
        let old = |pending: &Pending| {
            (!pending.proposed || museum::is(Bug::B22)) && self.ticks - pending.since >= GIVE_UP_TICKS
        };
        for pending in self.commands.iter().filter(|pending| old(pending)) {
            out.outcome(ProposerOutcome::NotApplied { id: pending.command.id, why });
        }
        let ticks = self.ticks;
        self.commands.retain(|pending| pending.proposed || ticks - pending.since < GIVE_UP_TICKS);
    }

    /// Why nothing moves.
    fn why_not(&self) -> NotApplied {
        let answered = match &self.phase {
            Phase::Preparing(attempt, _) | Phase::Accepting(attempt, _) => {
                attempt.answered.iter().chain(self.answered.iter()).collect()
            }
            Phase::CatchingUp => return NotApplied::LearnerBehind,
            Phase::Idle | Phase::Pausing => self.answered,
        };
        match self.applied {
            None => NotApplied::LearnerBehind,
            Some(_) if self.quorums.is_prepared(answered) => NotApplied::Outrun,
            Some(_) => NotApplied::NoQuorum { answered },
        }
    }

    fn handle_timeout(&mut self, timer: ProposerTimer, out: &mut Output<Self>) {
        let at_work = match &self.phase {
            Phase::Preparing(attempt, _) | Phase::Accepting(attempt, _) => Some(attempt.ballot),
            Phase::Idle | Phase::Pausing | Phase::CatchingUp => None,
        };
        match timer {
            ProposerTimer::Tick => self.tick(out),
            ProposerTimer::Attempt { ballot, .. } if at_work == Some(ballot) => self.fail(RetryReason::Silence, out),
            ProposerTimer::Nacked { ballot } if at_work == Some(ballot) => self.fail(RetryReason::Nacked, out),
            // A time-out of an attempt that is over.
            ProposerTimer::Attempt { .. } | ProposerTimer::Nacked { .. } => {}
            ProposerTimer::Pause => {
                if self.phase == Phase::Pausing {
                    self.phase = Phase::Idle;
                    self.begin(out);
                }
            }
            ProposerTimer::CatchUp => {
                if self.phase == Phase::CatchingUp {
                    self.phase = Phase::Idle;
                    self.begin_after(true, out);
                }
            }
        }
    }
}

impl Role for Proposer {
    type Message = Message;
    type Record = ProposerRecord;
    type Timer = ProposerTimer;
    type Request = ProposerRequest;
    type Outcome = ProposerOutcome;
    type Fact = ProposerFact;

    fn replay(&mut self, record: ProposerRecord) {
        let ProposerRecord::Spent(below) = record;
        self.next_round = if museum::is(Bug::B03) { 1 } else { self.next_round.max(below) };
        self.reserved = self.next_round;
    }

    fn step(&mut self, input: Input<Self>, out: &mut Output<Self>) {
        match input {
            Input::Start => {
                self.reserved = self.next_round + ROUNDS_RESERVED;
                out.persist(ProposerRecord::Spent(self.reserved));
                out.arm(ProposerTimer::Tick);
            }
            Input::Message { from: sender, message } => match message {
                Message::Promise { .. } => self.handle_promise(sender, message, out),
                Message::Nack { .. } => self.handle_nack(sender, message, out),
                Message::Truncated { ballot, below, .. } => self.handle_truncated(ballot, below, out),
                Message::Beat { applied, .. } => self.handle_beat(sender, applied, out),
                Message::Fill { slot } => self.handle_fill(slot, out),
                // Not for a proposer; see Message::heard_by.
                Message::Prepare { .. }
                | Message::Accept { .. }
                | Message::Accepted { .. }
                | Message::Chosen { .. }
                | Message::CatchUp { .. }
                | Message::Entries { .. }
                | Message::Read { .. }
                | Message::ReadAnswer { .. } => {}
            },
            Input::Timeout(timer) => self.handle_timeout(timer, out),
            Input::Request(request) => match request {
                ProposerRequest::Propose(command) => self.handle_propose(command, out),
                ProposerRequest::Applied { slot, id } => self.handle_applied(slot, id, out),
                ProposerRequest::LearnerDown => {
                    // Without a learner nothing can be finished; that is nobody's loss.
                    self.applied = None;
                    self.fill = None;
                    self.phase = Phase::Idle;
                }
            },
        }
    }
}
