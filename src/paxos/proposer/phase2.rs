//! Phase 2: a ballot that a quorum has promised, and what is proposed at it.
//!
//! First what the promises bind the proposer to, with no-ops in the holes between; then commands, as many as its policy
//! allows. Promises may still come in, page by page: each slot is proposed in as soon as a quorum has settled it, and
//! commands wait until all are. Slots are proposed in order and without a gap, and at most a window of them are open at
//! a time. What goes out at once goes out in one message: a *group* is all that has come while the groups before it
//! were under way, and it never waits for more to come. (*Paxos Made Simple*, sections 2.2 and 3.)
//!
//! [`Phase2`] has the slots of the ballot. It takes commands where they wait, and says by itself what is to be said;
//! when the ballot is lost, or has done all that it was for, is the proposer's business.

use std::collections::{BTreeMap, VecDeque};

use super::attempt::Attempt;
use super::commands::{ForwardedQueue, OwnCommands};
use super::types::{ProposerTimer, ProposerTraceEvent, ProposerVocabulary};
use crate::paxos::promises::Promises;
use crate::paxos::{Ballot, CommandId, Message, Page, Policy, Quorums, Slot, Value, rules};
use crate::role::{Output, ServerId, ServerSet};

/// At most so many slots are open at one ballot: as many as a server's clients may have under way, halved, so that two
/// groups of them are. A learner looks twice as far ahead.
pub const IN_FLIGHT_MAX: u64 = 512;
/// At most so many groups of commands are under way. One alone would let the disks rest while the votes travel. But
/// each group costs every server some wake-ups, and many small ones cost more than they gain: so the second must be as
/// large as the first.
const BATCHES_IN_FLIGHT_MAX: usize = 2;
/// The values of the open slots take about so many bytes at most: all of them fit into an acceptor's mailbox at once,
/// and into a link beside what else is bulk. As many are read ahead from promises.
pub const OPEN_BYTES: usize = 4 << 20;
/// The values of one ACCEPT take about this many bytes at most, unless a single one is larger.
const ACCEPT_BYTES: usize = 1 << 20;

/// How much may be open at one ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct InFlightLimits {
    pub slots: u64,
    pub bytes: usize,
}

/// What is proposed in a slot, and why it may be.
struct SafeProposal {
    value: Value,
    /// The ballot at which it was accepted before; None if the slot was free.
    adopted: Option<Ballot>,
    /// The acceptors that have said so.
    quorum: ServerSet,
}

/// With each doubling of so many open bytes, slots are proposed again after twice the time.
const RESEND_BYTES: usize = 256 << 10;

/// A ballot in phase 2.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Phase2 {
    attempt: Attempt,
    quorums: Quorums,
    /// Whether the ballot is kept when all is done.
    is_kept: bool,
    /// What the promises bind to, and who has promised.
    promises: Promises,
    /// The acceptors whose promises settle all slots that are left, once they are a quorum.
    quorum: ServerSet,
    /// The last slot that must be proposed in, with a no-op if with nothing else.
    safe_up_to: Slot,
    /// The first slot that is not proposed in yet.
    next: Slot,
    /// Commands that may still be proposed at this ballot.
    commands_left: u64,
    /// At most so many slots are open, with values of about so many bytes.
    window: InFlightLimits,
    /// The slots that were proposed in and that the own learner has not applied yet.
    in_flight: BTreeMap<Slot, Value>,
    /// The pulse when the first of each run of slots was proposed in that were proposed together.
    proposed_at: BTreeMap<Slot, u64>,
    /// Of the values in them.
    open_bytes: usize,
    /// The open slot of each command.
    slots: BTreeMap<CommandId, Slot>,
    /// The last slot of each group of commands that is still open.
    batches: VecDeque<Slot>,
    /// Open slots below this one were proposed before the resend timer was started.
    resend_below: Slot,
    is_resending: bool,
    /// How late the first resend comes.
    resend_tries: u32,
}

impl Phase2 {
    /// A quorum has promised, and settles the first slot: what it binds the proposer to comes first.
    pub(super) fn new(
        attempt: Attempt,
        promises: Promises,
        first: Slot,
        quorums: Quorums,
        policy: Policy,
        (window, resend_tries): (InFlightLimits, u32),
    ) -> Phase2 {
        let voters = promises.promised().and(quorums.servers());
        let ballot = attempt.ballot();
        assert!(quorums.is_prepared(voters), "{ballot} was promised by {voters} alone: no quorum");
        let commands_left = if attempt.fill().is_some() { 0 } else { policy.commands_per_ballot() };
        let bound_to = attempt.fill().unwrap_or_default();
        let mut new = Phase2 {
            attempt,
            quorums,
            is_kept: policy.keeps_ballot(),
            promises,
            quorum: ServerSet::NONE,
            safe_up_to: bound_to,
            next: first,
            commands_left,
            window,
            in_flight: BTreeMap::new(),
            proposed_at: BTreeMap::new(),
            open_bytes: 0,
            slots: BTreeMap::new(),
            batches: VecDeque::new(),
            resend_below: first,
            is_resending: false,
            resend_tries,
        };
        new.look_at_promises();
        new
    }

    /// A page of a promise has come; true if it brings something.
    pub(super) fn hear(&mut self, acceptor: ServerId, page: Page) -> bool {
        if self.is_settled() || !self.promises.add(acceptor, page, self.next, &self.quorums) {
            return false;
        }
        self.look_at_promises();
        true
    }

    /// Whether no slot is left to be proposed in of which a quorum has not said what it has accepted there.
    pub(super) fn is_settled(&self) -> bool {
        !self.quorum.is_empty()
    }

    fn look_at_promises(&mut self) {
        self.promises.drop_below(self.next);
        self.safe_up_to = self.safe_up_to.max(self.promises.last().unwrap_or_default());
        let last = self.safe_up_to.max(self.next.previous()).plus(self.commands_left);
        // Slots that are left now may be others than before: who settled those need not settle these.
        let settle = self.promises.settle_all(self.next, last);
        self.quorum = if self.quorums.is_prepared(settle) { settle } else { ServerSet::NONE };
    }

    /// The pages of promises to be asked for at this tick.
    pub(super) fn ask(&mut self, now: u64) -> Vec<(ServerId, Slot)> {
        if self.is_settled() { Vec::new() } else { self.promises.ask(now, self.next, &self.quorums) }
    }

    /// The acceptors whose promises settle this slot; None if they are no quorum. They are all that have answered for
    /// it, also those that settle too little elsewhere to be in `quorum`: what is adopted here may be from one of them.
    fn settled_by(&self, slot: Slot) -> Option<ServerSet> {
        Some(self.promises.settle(slot)).filter(|acceptors| self.quorums.is_prepared(*acceptors))
    }

    pub(super) fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    pub(super) fn attempt_mut(&mut self) -> &mut Attempt {
        &mut self.attempt
    }

    pub(super) fn into_attempt(self) -> Attempt {
        self.attempt
    }

    /// Whether the command is in an open slot.
    pub(super) fn has_open(&self, id: CommandId) -> bool {
        rules::is_under_way(&self.slots, id)
    }

    /// Who promised the ballot.
    pub(super) fn quorum(&self) -> ServerSet {
        if self.is_settled() { self.quorum } else { self.promises.promised() }
    }

    /// How many slots are open.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Bytes of the values in open slots, and of those that were read ahead from promises.
    pub(super) fn bytes(&self) -> (usize, usize) {
        (self.open_bytes, self.promises.bytes())
    }

    /// Whether nothing is open, and nothing bound is left to propose.
    pub(super) fn is_done(&self) -> bool {
        self.in_flight.is_empty() && self.next > self.safe_up_to && self.is_settled()
    }

    /// So many commands make a group that is worth to be proposed now.
    pub(super) fn worth(&self) -> usize {
        let is_full = self.batches.len() >= BATCHES_IN_FLIGHT_MAX || self.commands_left == 0 || !self.has_room();
        match self.batches.len() {
            0 => 1,
            _ if is_full => usize::MAX,
            _ => self.in_flight.len(),
        }
    }

    fn has_room(&self) -> bool {
        (self.in_flight.len() as u64) < self.window.slots && self.open_bytes < self.window.bytes
    }

    fn insert(&mut self, slot: Slot, value: Value) {
        if let Some(id) = value.id() {
            self.slots.insert(id, slot);
        }
        self.open_bytes += value.size();
        self.in_flight.insert(slot, value);
        self.next = slot.next();
    }

    /// All slots below this one are chosen, and are closed. A command that was in one and still waits has lost it to
    /// another, and needs a new one. What lies below was perhaps chosen by others: a leader that comes late never
    /// fights for it. Gives the pulse when the first of them was proposed in that was open.
    pub(super) fn close_below(&mut self, below: Slot, commands: &mut OwnCommands) -> Option<u64> {
        let mut proposed_at = None;
        while let Some(first) = self.in_flight.first_entry().filter(|first| *first.key() < below) {
            let (slot, value) = first.remove_entry();
            self.open_bytes -= value.size();
            if let Some(id) = value.id().filter(|id| self.slots.get(id) == Some(&slot)) {
                self.slots.remove(&id);
                commands.unassign(id);
            }
        }
        while self.batches.front().is_some_and(|last| *last < below) {
            self.batches.pop_front();
        }
        if self.next < below {
            self.next = below;
            self.look_at_promises();
        }
        while let Some(first) = self.proposed_at.first_entry().filter(|first| *first.key() < below) {
            let at = first.remove();
            proposed_at.get_or_insert(at);
        }
        proposed_at
    }

    /// No-ops are due in every slot up to this one that is not proposed in yet; a long way is gone in pieces, since
    /// whoever waits asks again.
    pub(super) fn fill_to(&mut self, slot: Slot) {
        self.safe_up_to = self.safe_up_to.max(slot.min(self.next.plus(self.window.slots)));
        self.look_at_promises();
    }

    /// Whether the slot is behind this ballot, and nothing is proposed in it: this ballot will never do anything about
    /// it.
    pub(super) fn has_passed(&self, slot: Slot) -> bool {
        slot < self.next && !self.in_flight.contains_key(&slot)
    }

    /// The next value that the promises bind to, and the quorum that settles its slot, if there is room for it.
    fn next_safe_value(&mut self) -> Option<(Slot, SafeProposal)> {
        let slot = Some(self.next).filter(|next| *next <= self.safe_up_to && self.has_room())?;
        let quorum = self.settled_by(slot)?;
        Some(match self.promises.take(slot) {
            Some((ballot, value)) => (slot, SafeProposal { value, adopted: Some(ballot), quorum }),
            None => (slot, SafeProposal { value: Value::Noop, adopted: None, quorum }),
        })
    }

    /// Proposes what can be proposed now. True if these are the first slots that are open.
    pub(super) fn propose_next<R: ProposerVocabulary>(
        &mut self,
        tick: u64,
        own: &mut OwnCommands,
        forwarded_queue: &mut ForwardedQueue,
        out: &mut Output<R>,
    ) -> bool {
        let was_empty = self.in_flight.is_empty();
        let mut batch = BTreeMap::new();
        while let Some((slot, bound)) = self.next_safe_value() {
            self.insert(slot, bound.value.clone());
            batch.insert(slot, bound);
        }
        self.add_commands(own, forwarded_queue, &mut batch);
        let Some(first) = batch.keys().next() else { return false };
        self.proposed_at.insert(*first, tick);
        self.send_batch(batch, own, out);
        was_empty
    }

    /// Adds a group of commands behind what is bound: all that wait, as far as there is room. Own commands and those of
    /// others take turns.
    fn add_commands(
        &mut self,
        own: &mut OwnCommands,
        forwarded_queue: &mut ForwardedQueue,
        batch: &mut BTreeMap<Slot, SafeProposal>,
    ) {
        if self.next <= self.safe_up_to || !self.is_settled() || own.unassigned() + forwarded_queue.len() < self.worth()
        {
            return;
        }
        let (first, mut room) = (self.next, ACCEPT_BYTES);
        let mut turn = false;
        while self.commands_left > 0 && self.has_room() && self.next <= Slot::LAST {
            turn = !turn;
            let is_ours = own.next_idle().is_some() && (turn || forwarded_queue.first().is_none());
            let next = if is_ours { own.next_idle() } else { forwarded_queue.first() };
            let Some(command) = next.filter(|next| self.next == first || next.payload.len() <= room).cloned() else {
                break;
            };
            own.proposed(command.id);
            if !is_ours {
                forwarded_queue.pop();
            }
            // One that is open already, adopted perhaps, is not proposed twice.
            if self.has_open(command.id) {
                continue;
            }
            room = room.saturating_sub(command.payload.len());
            self.commands_left -= 1;
            let (slot, value) = (self.next, Value::Command(command));
            self.insert(slot, value.clone());
            batch.insert(slot, SafeProposal { value, adopted: None, quorum: self.quorum });
        }
        if self.next > first {
            self.batches.push_back(self.next.previous());
        }
    }

    fn send_batch<R: ProposerVocabulary>(
        &mut self,
        batch: BTreeMap<Slot, SafeProposal>,
        own: &mut OwnCommands,
        out: &mut Output<R>,
    ) {
        let (ballot, from, to) = (self.attempt.ballot(), self.attempt.from(), self.quorums.servers());
        let mut values = Vec::new();
        for (slot, SafeProposal { value, adopted, quorum }) in batch {
            assert!(slot >= from, "ballot {ballot} was prepared from {from:?}, not for {slot:?}");
            if let Some(id) = value.id() {
                own.proposed(id);
            }
            out.emit_step(|| ProposerTraceEvent::Proposed { slot, ballot, value: value.clone(), adopted, quorum, to });
            values.push((slot, value));
        }
        if self.is_kept && !self.is_resending {
            self.is_resending = true;
            self.resend_below = self.next;
            out.arm(ProposerTimer::Resend { tries: self.resend_tries });
        }
        self.send_accepts(values, out);
    }

    /// ACCEPT for each of these slots, in as few messages as their order and size allow.
    fn send_accepts<R: ProposerVocabulary>(&self, proposals: Vec<(Slot, Value)>, out: &mut Output<R>) {
        let (to, ballot) = (self.quorums.servers(), self.attempt.ballot());
        let (mut first, mut values, mut size) = (Slot(0), Vec::new(), 0);
        for (slot, value) in proposals {
            let follows = first.plus(values.len() as u64) == slot && size + value.size() <= ACCEPT_BYTES;
            if !follows && !values.is_empty() {
                out.send(to, Message::Accept { ballot, first, values: std::mem::take(&mut values) });
            }
            if values.is_empty() {
                (first, size) = (slot, 0);
            }
            size += value.size();
            values.push(value);
        }
        if !values.is_empty() {
            out.send(to, Message::Accept { ballot, first, values });
        }
    }

    /// Slots that were open when the timer was started are proposed again, at the same ballot: messages are lost. Of
    /// large values a few at a time, and later: what is still on its way is not sent twice. The first time comes
    /// `least` doublings late, where rounds take long.
    pub(super) fn resend<R: ProposerVocabulary>(&mut self, tries: u32, least: u32, out: &mut Output<R>) {
        let mut room = ACCEPT_BYTES;
        let late = self.in_flight.range(..self.resend_below).map_while(|(slot, value)| {
            let fits = room == ACCEPT_BYTES || value.size() <= room;
            room = room.saturating_sub(value.size());
            fits.then(|| (*slot, value.clone()))
        });
        let late: Vec<_> = late.collect();
        let least = least.max((self.open_bytes / RESEND_BYTES).min(16).next_power_of_two().trailing_zeros());
        self.resend_tries = least;
        let tries = if late.is_empty() { least } else { tries.max(least) + 1 };
        self.resend_below = self.next;
        self.is_resending = !self.in_flight.is_empty();
        if self.is_resending {
            out.arm(ProposerTimer::Resend { tries });
        }
        self.send_accepts(late, out);
    }
}
