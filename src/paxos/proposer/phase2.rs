//! Phase 2: a ballot that a quorum has promised, and what is proposed at it.
//!
//! First what the promises bind the proposer to, with no-ops in the holes between; then commands, as many as its policy
//! allows. Slots are proposed in order and without a gap, and at most a window of them are open at a time. What goes out
//! at once goes out in one message: a *group* is all that has come while the groups before it were under way, and it never
//! waits for more to come.

use std::collections::{BTreeMap, VecDeque};

use super::attempt::Attempt;
use super::words::{ProposerFact, ProposerTimer};
use super::{Phase, Proposer};
use crate::paxos::promises::Bound;
use crate::paxos::{Ballot, CommandId, Message, Slot, Value, rules};
use crate::role::{Output, Servers};

/// At most so many slots are open at one ballot: as many as a server's clients may have under way, halved, so that two
/// groups of them are. A learner looks twice as far ahead.
pub const WINDOW: u64 = 512;
/// At most so many groups of commands are under way. One alone would let the disks rest while the votes travel. But each
/// group costs every server some wake-ups, and many small ones cost more than they gain: so the second must be as large as
/// the first.
const GROUPS_MAX: usize = 2;
/// The values of one ACCEPT take about this many bytes at most, unless a single one is larger.
const ACCEPT_BYTES: usize = 1 << 20;

/// A ballot in phase 2.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Proposing {
    pub(super) attempt: Attempt,
    /// Who promised.
    quorum: Servers,
    /// What the promises bind to and is not proposed yet.
    adopted: BTreeMap<Slot, (Ballot, Value)>,
    /// The last slot that must be proposed in, with a no-op if with nothing else.
    bound_to: Slot,
    /// The first slot that is not proposed in yet.
    next: Slot,
    /// Commands that may still be proposed at this ballot.
    commands_left: u64,
    /// At most so many slots are open.
    window: u64,
    /// The slots that were proposed in and that the own learner has not applied yet.
    open: BTreeMap<Slot, Value>,
    /// The open slot of each command.
    slots: BTreeMap<CommandId, Slot>,
    /// The last slot of each group of commands that is still open.
    groups: VecDeque<Slot>,
    /// Open slots below this one were proposed before the resend timer was started.
    resend_below: Slot,
    is_resending: bool,
}

impl Proposing {
    fn new(attempt: Attempt, bound: Bound, commands_left: u64, window: u64) -> Proposing {
        let Bound { quorum, first, last, adopted } = bound;
        Proposing {
            attempt,
            quorum,
            adopted,
            bound_to: last,
            next: first,
            commands_left,
            window,
            open: BTreeMap::new(),
            slots: BTreeMap::new(),
            groups: VecDeque::new(),
            resend_below: first,
            is_resending: false,
        }
    }

    /// Whether the command is in an open slot.
    pub(super) fn has_open(&self, id: CommandId) -> bool {
        rules::is_under_way(&self.slots, id)
    }

    /// Who promised the ballot.
    pub(super) fn quorum(&self) -> Servers {
        self.quorum
    }

    /// How many slots are open.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// So many commands make a group that is worth to be proposed now.
    pub(super) fn worth(&self) -> usize {
        let is_full = self.groups.len() >= GROUPS_MAX || self.commands_left == 0 || !self.has_room();
        match self.groups.len() {
            0 => 1,
            _ if is_full => usize::MAX,
            _ => self.open.len(),
        }
    }

    fn has_room(&self) -> bool {
        (self.open.len() as u64) < self.window
    }

    fn insert(&mut self, slot: Slot, value: Value) {
        if let Some(id) = value.id() {
            self.slots.insert(id, slot);
        }
        self.open.insert(slot, value);
        self.next = slot.next();
    }

    /// The slots below this one are closed; gives the commands that were in them.
    fn close_below(&mut self, below: Slot) -> Vec<CommandId> {
        let mut closed = Vec::new();
        while let Some(first) = self.open.first_entry().filter(|first| *first.key() < below) {
            let (slot, value) = first.remove_entry();
            if let Some(id) = value.id().filter(|id| self.slots.get(id) == Some(&slot)) {
                self.slots.remove(&id);
                closed.push(id);
            }
        }
        while self.groups.front().is_some_and(|last| *last < below) {
            self.groups.pop_front();
        }
        closed
    }

    /// No-ops are due in every slot up to this one that is not proposed in yet; a long way is gone in pieces, since whoever
    /// waits asks again.
    pub(super) fn fill_to(&mut self, slot: Slot) {
        self.bound_to = self.bound_to.max(slot.min(self.next.plus(self.window)));
    }

    /// The next value that the promises bind to, if there is room for it.
    fn next_bound(&mut self) -> Option<(Slot, Value, Option<Ballot>)> {
        let slot = Some(self.next).filter(|next| *next <= self.bound_to && self.has_room())?;
        Some(match self.adopted.remove(&slot) {
            Some((ballot, value)) => (slot, value, Some(ballot)),
            None => (slot, Value::Noop, None),
        })
    }
}

impl Proposer {
    /// Phase 2 begins.
    pub(super) fn propose(&mut self, attempt: Attempt, bound: Bound, out: &mut Output<Self>) {
        let left = if attempt.fill.is_some() { 0 } else { self.policy.commands_per_ballot() };
        let (from, ballot, quorum) = (attempt.from, attempt.ballot, bound.quorum);
        let voters = quorum.and(self.quorums.servers());
        assert!(self.quorums.is_prepared(voters), "{ballot} was promised by {quorum} alone: no quorum");
        self.phase = Phase::Proposing(Box::new(Proposing::new(attempt, bound, left, self.window)));
        if self.policy.keeps_ballot() {
            self.lead(from, ballot, quorum, out);
        }
        self.go_on(out);
    }

    /// Proposes what can be proposed now; gives the ballot up if it has done all that it was for.
    pub(super) fn go_on(&mut self, out: &mut Output<Self>) {
        let Phase::Proposing(work) = &mut self.phase else { return };
        let was_empty = work.open.is_empty();
        let mut batch = BTreeMap::new();
        while let Some((slot, value, adopted)) = work.next_bound() {
            work.next = slot.next();
            work.insert(slot, value.clone());
            batch.insert(slot, (value, adopted));
        }
        self.add_commands(&mut batch);
        if !batch.is_empty() {
            if was_empty {
                self.leadership.moves();
            }
            self.send_batch(batch, out);
        }
        self.finish_if_done(out);
    }

    /// Adds a group of commands behind what is bound: all that wait, as far as there is room. Own commands and those of
    /// others take turns.
    fn add_commands(&mut self, batch: &mut BTreeMap<Slot, (Value, Option<Ballot>)>) {
        let Phase::Proposing(work) = &mut self.phase else { return };
        if work.next <= work.bound_to || self.commands.idle() + self.guests.len() < work.worth() {
            return;
        }
        let (first, mut room) = (work.next, ACCEPT_BYTES);
        let mut turn = false;
        while work.commands_left > 0 && work.has_room() && work.next <= Slot::LAST {
            turn = !turn;
            let is_ours = self.commands.next_idle().is_some() && (turn || self.guests.first().is_none());
            let next = if is_ours { self.commands.next_idle() } else { self.guests.first() };
            let Some(command) = next.filter(|next| work.next == first || next.payload.len() <= room).cloned() else {
                break;
            };
            self.commands.proposed(command.id);
            if !is_ours {
                self.guests.pop();
            }
            // One that is open already, adopted perhaps, is not proposed twice.
            if work.has_open(command.id) {
                continue;
            }
            room = room.saturating_sub(command.payload.len());
            work.commands_left -= 1;
            let (slot, value) = (work.next, Value::Command(command));
            work.insert(slot, value.clone());
            batch.insert(slot, (value, None));
        }
        if work.next > first {
            work.groups.push_back(work.next.previous());
        }
    }

    fn send_batch(&mut self, batch: BTreeMap<Slot, (Value, Option<Ballot>)>, out: &mut Output<Self>) {
        let Phase::Proposing(work) = &mut self.phase else { return };
        let (ballot, from, quorum, to) = (work.attempt.ballot, work.attempt.from, work.quorum, self.quorums.servers());
        let mut values = Vec::new();
        for (slot, (value, adopted)) in batch {
            assert!(slot >= from, "ballot {ballot} was prepared from {from:?}, not for {slot:?}");
            if let Some(id) = value.id() {
                self.commands.proposed(id);
            }
            out.fact(|| ProposerFact::Proposed { slot, ballot, value: value.clone(), adopted, quorum, to });
            values.push((slot, value));
        }
        if self.policy.keeps_ballot() && !work.is_resending {
            work.is_resending = true;
            work.resend_below = work.next;
            out.arm(ProposerTimer::Resend { tries: 0 });
        }
        self.send_accepts(ballot, values, out);
    }

    /// ACCEPT for each of these slots, in as few messages as their order and size allow.
    fn send_accepts(&self, ballot: Ballot, proposals: Vec<(Slot, Value)>, out: &mut Output<Self>) {
        let to = self.quorums.servers();
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

    /// The own learner has applied all slots up to this one.
    pub(super) fn close_applied(&mut self, slot: Slot, out: &mut Output<Self>) {
        let Phase::Proposing(work) = &mut self.phase else { return };
        for id in work.close_below(slot.next()) {
            // If it is still here its slot went to another: it needs a new one.
            self.commands.release(id);
        }
        // What lies below was chosen by others: a leader that comes late never fights for it.
        work.next = work.next.max(slot.next());
        self.leadership.moves();
        if !self.policy.keeps_ballot() {
            if let Phase::Proposing(work) = &self.phase
                && !work.open.is_empty()
            {
                let ballot = work.attempt.ballot;
                out.arm(ProposerTimer::Attempt { ballot, failures: self.failures });
            }
            self.go_on(out);
        }
    }

    /// TRUNCATED: the slots below were chosen long ago. They are closed, and a command proposed in one goes on behind what
    /// is forgotten: to prepare the same slots again would end here again, at once and for ever.
    pub(super) fn handle_truncated(&mut self, ballot: Ballot, below: Slot, out: &mut Output<Self>) {
        self.note_truncated(below);
        if let Phase::Proposing(work) = &mut self.phase
            && work.attempt.ballot == ballot
        {
            for id in work.close_below(below) {
                self.commands.release(id);
            }
            work.next = work.next.max(below);
            self.finish_if_done(out);
        }
    }

    /// Slots that were open when the timer was started are proposed again, at the same ballot: messages are lost.
    pub(super) fn resend(&mut self, tries: u32, out: &mut Output<Self>) {
        let Phase::Proposing(work) = &mut self.phase else { return };
        let ballot = work.attempt.ballot;
        let late: Vec<_> = work.open.range(..work.resend_below).map(|(slot, value)| (*slot, value.clone())).collect();
        let tries = if late.is_empty() { 0 } else { tries + 1 };
        work.resend_below = work.next;
        work.is_resending = !work.open.is_empty();
        if work.is_resending {
            out.arm(ProposerTimer::Resend { tries });
        }
        self.send_accepts(ballot, late, out);
    }

    /// A ballot that is not kept has done all that it was for: it is given up.
    fn finish_if_done(&mut self, out: &mut Output<Self>) {
        if let Phase::Proposing(work) = &self.phase
            && !self.policy.keeps_ballot()
            && work.open.is_empty()
            && work.next > work.bound_to
        {
            self.answered = work.attempt.answered;
            self.failures = 0;
            self.phase = Phase::Idle;
            self.commands.release_all();
            self.begin(out);
        }
    }
}
