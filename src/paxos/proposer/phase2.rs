//! Phase 2: a ballot that a quorum has promised, and the proposals at this ballot.
//!
//! The proposer first proposes the safe values that the promises report, with no-ops in the holes between. Then it
//! proposes commands, as many as its policy allows. Promises may still arrive, page by page. A slot is proposed in as
//! soon as a quorum has settled it; commands wait until all slots are settled. Slots are proposed in order and without
//! a gap, and a window limits the slots in flight. What is proposed in one turn goes out together. A *batch* is all
//! commands that arrived while earlier batches were in flight; it never waits for more to arrive. (*Paxos Made Simple*,
//! sections 2.2 and 3.)
//!
//! [`Phase2`] holds the slots of the ballot. It takes commands from the queues and writes its messages into the output.
//! The proposer decides when the ballot is lost or its work is done.

use std::collections::{BTreeMap, VecDeque};

use super::attempt::Attempt;
use super::commands::{ForwardedQueue, OwnCommands};
use super::types::{ProposerTimer, ProposerTraceEvent, ProposerVocabulary};
use crate::paxos::promises::Promises;
use crate::paxos::{Ballot, CommandId, Message, Page, Policy, Quorums, Slot, Value, rules};
use crate::role::{Output, ServerId, ServerSet};

/// Maximum number of slots in flight per ballot: half of the requests that a server's clients may have in flight, so
/// that two batches fit. A learner looks twice as far ahead.
pub const IN_FLIGHT_MAX: u64 = 512;
/// Maximum number of batches in flight. With one batch, the disks would rest while the votes travel. But each batch
/// costs every server some wake-ups, and many small batches cost more than they gain. So the second batch must be as
/// large as the first.
const BATCHES_IN_FLIGHT_MAX: usize = 2;
/// Maximum size of the values in flight, in bytes (about). They all fit into an acceptor's mailbox at once, and into a
/// link beside other bulk messages. At most this many bytes are read ahead from promises.
pub const IN_FLIGHT_MAX_BYTES: usize = 4 << 20;
/// Maximum size of the values of one ACCEPT, in bytes; a single larger value goes alone.
const ACCEPT_BYTES: usize = 1 << 20;

/// Limits on what is in flight at one ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct InFlightLimits {
    pub slots: u64,
    pub bytes: usize,
}

/// A value that may be proposed in a slot, and the reason.
struct SafeProposal {
    value: Value,
    /// The ballot at which the value was accepted before; `None` if the slot was free.
    adopted: Option<Ballot>,
    /// The acceptors whose promises determined it.
    quorum: ServerSet,
}

/// For each doubling of this many bytes in flight, the time until slots are proposed again doubles.
const RESEND_BYTES: usize = 256 << 10;

/// A ballot in phase 2.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Phase2 {
    attempt: Attempt,
    quorums: Quorums,
    /// Whether the ballot is kept when all work is done.
    is_kept: bool,
    /// The promises for this ballot and the values that they report.
    promises: Promises,
    /// The acceptors whose promises settle all remaining slots; empty until they are a quorum.
    quorum: ServerSet,
    /// The last slot that must get a value, a no-op if there is no other.
    safe_up_to: Slot,
    /// The first slot that is not proposed in yet.
    next: Slot,
    /// Number of commands that may still be proposed at this ballot.
    commands_left: u64,
    /// Limits on the slots in flight and on the size of their values.
    window: InFlightLimits,
    /// Slots that were proposed in and that this server's learner has not applied yet.
    in_flight: BTreeMap<Slot, Value>,
    /// For the first slot of each run that was proposed together, the heartbeat tick of the proposal.
    proposed_at: BTreeMap<Slot, u64>,
    /// Size of the values in flight, in bytes.
    in_flight_bytes: usize,
    /// The slot in flight of each command.
    slots: BTreeMap<CommandId, Slot>,
    /// The last slot of each batch that is in flight.
    batches: VecDeque<Slot>,
    /// Slots in flight below this one were proposed before the resend timer started.
    resend_below: Slot,
    is_resending: bool,
    /// How often the time until the first resend is doubled.
    resend_tries: u32,
}

impl Phase2 {
    /// Phase 2 of a ballot that a quorum has promised and whose first slot is settled. The safe values come first.
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
        assert!(quorums.is_phase1_quorum(voters), "{ballot} was promised by {voters} only, which is not a quorum");
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
            in_flight_bytes: 0,
            slots: BTreeMap::new(),
            batches: VecDeque::new(),
            resend_below: first,
            is_resending: false,
            resend_tries,
        };
        new.look_at_promises();
        new
    }

    /// Takes a page of a promise; returns true if the page brings something new.
    pub(super) fn hear(&mut self, acceptor: ServerId, page: Page) -> bool {
        if self.is_settled() || !self.promises.add(acceptor, page, self.next, &self.quorums) {
            return false;
        }
        self.look_at_promises();
        true
    }

    /// Whether a quorum has answered for every slot that is left to propose in.
    pub(super) fn is_settled(&self) -> bool {
        !self.quorum.is_empty()
    }

    fn look_at_promises(&mut self) {
        self.promises.drop_below(self.next);
        self.safe_up_to = self.safe_up_to.max(self.promises.last().unwrap_or_default());
        let last = self.safe_up_to.max(self.next.previous()).plus(self.commands_left);
        // The remaining slots may have changed, so other acceptors may be the ones that settle them.
        let settle = self.promises.settle_all(self.next, last);
        self.quorum = if self.quorums.is_phase1_quorum(settle) { settle } else { ServerSet::NONE };
    }

    /// The pages of promises to request at this tick.
    pub(super) fn ask(&mut self, now: u64) -> Vec<(ServerId, Slot)> {
        if self.is_settled() { Vec::new() } else { self.promises.ask(now, self.next, &self.quorums) }
    }

    /// The acceptors whose promises settle this slot; `None` if they are no quorum. It includes acceptors that settle
    /// too little elsewhere to be in `quorum`, because the value adopted here may come from one of them.
    fn settled_by(&self, slot: Slot) -> Option<ServerSet> {
        Some(self.promises.settle(slot)).filter(|acceptors| self.quorums.is_phase1_quorum(*acceptors))
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

    /// Whether the command is in a slot in flight.
    pub(super) fn is_in_flight(&self, id: CommandId) -> bool {
        rules::is_in_flight(&self.slots, id)
    }

    /// The quorum that promised the ballot.
    pub(super) fn quorum(&self) -> ServerSet {
        if self.is_settled() { self.quorum } else { self.promises.promised() }
    }

    /// Number of slots in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Bytes of the values in slots in flight, and of the values read ahead from promises.
    pub(super) fn bytes(&self) -> (usize, usize) {
        (self.in_flight_bytes, self.promises.bytes())
    }

    /// Whether no slot is in flight and no safe value is left to propose.
    pub(super) fn is_done(&self) -> bool {
        self.in_flight.is_empty() && self.next > self.safe_up_to && self.is_settled()
    }

    /// Number of waiting commands that make a batch worth proposing now.
    pub(super) fn batch_threshold(&self) -> usize {
        let is_full = self.batches.len() >= BATCHES_IN_FLIGHT_MAX || self.commands_left == 0 || !self.has_space();
        match self.batches.len() {
            0 => 1,
            _ if is_full => usize::MAX,
            _ => self.in_flight.len(),
        }
    }

    fn has_space(&self) -> bool {
        (self.in_flight.len() as u64) < self.window.slots && self.in_flight_bytes < self.window.bytes
    }

    fn insert(&mut self, slot: Slot, value: Value) {
        if let Some(id) = value.id() {
            self.slots.insert(id, slot);
        }
        self.in_flight_bytes += value.size();
        self.in_flight.insert(slot, value);
        self.next = slot.next();
    }

    /// Closes all slots below this one, which are chosen. A command of ours that is still waiting lost its slot to
    /// another command and needs a new one. Others may have chosen slots that this ballot has not reached: a late
    /// leader skips them. Returns the heartbeat tick at which the first closed slot was proposed in.
    pub(super) fn close_below(&mut self, below: Slot, commands: &mut OwnCommands) -> Option<u64> {
        let mut proposed_at = None;
        while let Some(first) = self.in_flight.first_entry().filter(|first| *first.key() < below) {
            let (slot, value) = first.remove_entry();
            self.in_flight_bytes -= value.size();
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

    /// Requires a value in every slot up to this one, with a no-op where none was proposed. A long range is filled in
    /// pieces, because the learner asks again.
    pub(super) fn fill_to(&mut self, slot: Slot) {
        self.safe_up_to = self.safe_up_to.max(slot.min(self.next.plus(self.window.slots)));
        self.look_at_promises();
    }

    /// Whether this ballot has passed the slot without having it in flight: this ballot will do nothing more about it.
    pub(super) fn has_passed(&self, slot: Slot) -> bool {
        slot < self.next && !self.in_flight.contains_key(&slot)
    }

    /// The next value that the promises determine, with the quorum that settles its slot, if there is room for it.
    fn next_safe_value(&mut self) -> Option<(Slot, SafeProposal)> {
        let slot = Some(self.next).filter(|next| *next <= self.safe_up_to && self.has_space())?;
        // PMS P2c, first half: without answers from a quorum for this slot, no value is known to be safe.
        let quorum = self.settled_by(slot)?;
        // PMS P2c, second half: the reported value of the highest ballot may be chosen, so it is the only safe one. If
        // no acceptor of the quorum reports a value, none is chosen below this ballot, and a no-op is safe.
        Some(match self.promises.take(slot) {
            Some((ballot, value)) => (slot, SafeProposal { value, adopted: Some(ballot), quorum }),
            None => (slot, SafeProposal { value: Value::Noop, adopted: None, quorum }),
        })
    }

    /// Proposes what can be proposed now. Returns true if nothing was in flight before.
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

    /// Adds a batch of commands after the safe values: all waiting commands, as far as there is room. Own and forwarded
    /// commands take turns.
    fn add_commands(
        &mut self,
        own: &mut OwnCommands,
        forwarded_queue: &mut ForwardedQueue,
        batch: &mut BTreeMap<Slot, SafeProposal>,
    ) {
        // A new command is safe only in a slot where a quorum has reported nothing. So every slot must be settled, and
        // every safe value proposed, before the first command.
        if self.next <= self.safe_up_to
            || !self.is_settled()
            || own.unassigned() + forwarded_queue.len() < self.batch_threshold()
        {
            return;
        }
        let (first, mut room) = (self.next, ACCEPT_BYTES);
        let mut turn = false;
        while self.commands_left > 0 && self.has_space() && self.next <= Slot::LAST {
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
            // A command that is already in flight, perhaps adopted, is not proposed twice.
            if self.is_in_flight(command.id) {
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

    /// Sends an ACCEPT for each of these slots, in as few messages as their order and size allow.
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

    /// Proposes slots again that were in flight when the timer started, at the same ballot, because messages are lost.
    /// Large values go a few at a time, and later, so that values still in flight are not sent twice. The first resend
    /// comes at least `least` doublings late, where rounds take long.
    pub(super) fn resend<R: ProposerVocabulary>(&mut self, tries: u32, least: u32, out: &mut Output<R>) {
        let mut room = ACCEPT_BYTES;
        let late = self.in_flight.range(..self.resend_below).map_while(|(slot, value)| {
            let fits = room == ACCEPT_BYTES || value.size() <= room;
            room = room.saturating_sub(value.size());
            fits.then(|| (*slot, value.clone()))
        });
        let late: Vec<_> = late.collect();
        let least = least.max((self.in_flight_bytes / RESEND_BYTES).min(16).next_power_of_two().trailing_zeros());
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
