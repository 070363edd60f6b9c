//! Phase 2: a ballot that a quorum has promised, and what is proposed at it.
//!
//! First what the promises bind the proposer to, with no-ops in the holes between; then commands, as many as its policy
//! allows. Slots are proposed in order and without a gap, and at most a window of them are open at a time. What goes out
//! at once goes out in one message: a *group* is all that has come while the groups before it were under way, and it never
//! waits for more to come. (*Paxos Made Simple*, sections 2.2 and 3.)
//!
//! [`Proposing`] has the slots of the ballot. It takes commands where they wait, and says by itself what is to be said; when
//! the ballot is lost, or has done all that it was for, is the proposer's business.

use std::collections::{BTreeMap, VecDeque};

use super::attempt::Attempt;
use super::commands::{Commands, Guests};
use super::words::{ProposerFact, ProposerTimer, Speaker};
use crate::paxos::promises::Bound;
use crate::paxos::{Ballot, CommandId, Message, Policy, Quorums, Slot, Value, rules};
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
    attempt: Attempt,
    /// Everybody who is asked to accept.
    servers: Servers,
    /// Whether the ballot is kept when all is done.
    is_kept: bool,
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
    /// A quorum has promised: what it binds the proposer to comes first.
    pub(super) fn new(attempt: Attempt, bound: Bound, quorums: &Quorums, policy: Policy, window: u64) -> Proposing {
        let Bound { quorum, first, last, adopted } = bound;
        let (servers, ballot) = (quorums.servers(), attempt.ballot());
        let voters = quorum.and(servers);
        assert!(quorums.is_prepared(voters), "{ballot} was promised by {quorum} alone: no quorum");
        let commands_left = if attempt.fill().is_some() { 0 } else { policy.commands_per_ballot() };
        Proposing {
            attempt,
            servers,
            is_kept: policy.keeps_ballot(),
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
    pub(super) fn quorum(&self) -> Servers {
        self.quorum
    }

    /// How many slots are open.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Whether nothing is open, and nothing bound is left to propose.
    pub(super) fn is_done(&self) -> bool {
        self.open.is_empty() && self.next > self.bound_to
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

    /// All slots below this one are chosen, and are closed. A command that was in one and still waits has lost it to another,
    /// and needs a new one. What lies below was perhaps chosen by others: a leader that comes late never fights for it.
    pub(super) fn close_below(&mut self, below: Slot, commands: &mut Commands) {
        while let Some(first) = self.open.first_entry().filter(|first| *first.key() < below) {
            let (slot, value) = first.remove_entry();
            if let Some(id) = value.id().filter(|id| self.slots.get(id) == Some(&slot)) {
                self.slots.remove(&id);
                commands.release(id);
            }
        }
        while self.groups.front().is_some_and(|last| *last < below) {
            self.groups.pop_front();
        }
        self.next = self.next.max(below);
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

    /// Proposes what can be proposed now. True if these are the first slots that are open.
    pub(super) fn go_on<R: Speaker>(&mut self, own: &mut Commands, guests: &mut Guests, out: &mut Output<R>) -> bool {
        let was_empty = self.open.is_empty();
        let mut batch = BTreeMap::new();
        while let Some((slot, value, adopted)) = self.next_bound() {
            self.insert(slot, value.clone());
            batch.insert(slot, (value, adopted));
        }
        self.add_commands(own, guests, &mut batch);
        if batch.is_empty() {
            return false;
        }
        self.send_batch(batch, own, out);
        was_empty
    }

    /// Adds a group of commands behind what is bound: all that wait, as far as there is room. Own commands and those of
    /// others take turns.
    fn add_commands(
        &mut self,
        own: &mut Commands,
        guests: &mut Guests,
        batch: &mut BTreeMap<Slot, (Value, Option<Ballot>)>,
    ) {
        if self.next <= self.bound_to || own.idle() + guests.len() < self.worth() {
            return;
        }
        let (first, mut room) = (self.next, ACCEPT_BYTES);
        let mut turn = false;
        while self.commands_left > 0 && self.has_room() && self.next <= Slot::LAST {
            turn = !turn;
            let is_ours = own.next_idle().is_some() && (turn || guests.first().is_none());
            let next = if is_ours { own.next_idle() } else { guests.first() };
            let Some(command) = next.filter(|next| self.next == first || next.payload.len() <= room).cloned() else {
                break;
            };
            own.proposed(command.id);
            if !is_ours {
                guests.pop();
            }
            // One that is open already, adopted perhaps, is not proposed twice.
            if self.has_open(command.id) {
                continue;
            }
            room = room.saturating_sub(command.payload.len());
            self.commands_left -= 1;
            let (slot, value) = (self.next, Value::Command(command));
            self.insert(slot, value.clone());
            batch.insert(slot, (value, None));
        }
        if self.next > first {
            self.groups.push_back(self.next.previous());
        }
    }

    fn send_batch<R: Speaker>(
        &mut self,
        batch: BTreeMap<Slot, (Value, Option<Ballot>)>,
        own: &mut Commands,
        out: &mut Output<R>,
    ) {
        let (ballot, from, quorum, to) = (self.attempt.ballot(), self.attempt.from(), self.quorum, self.servers);
        let mut values = Vec::new();
        for (slot, (value, adopted)) in batch {
            assert!(slot >= from, "ballot {ballot} was prepared from {from:?}, not for {slot:?}");
            if let Some(id) = value.id() {
                own.proposed(id);
            }
            out.fact(|| ProposerFact::Proposed { slot, ballot, value: value.clone(), adopted, quorum, to });
            values.push((slot, value));
        }
        if self.is_kept && !self.is_resending {
            self.is_resending = true;
            self.resend_below = self.next;
            out.arm(ProposerTimer::Resend { tries: 0 });
        }
        self.send_accepts(values, out);
    }

    /// ACCEPT for each of these slots, in as few messages as their order and size allow.
    fn send_accepts<R: Speaker>(&self, proposals: Vec<(Slot, Value)>, out: &mut Output<R>) {
        let (to, ballot) = (self.servers, self.attempt.ballot());
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

    /// Slots that were open when the timer was started are proposed again, at the same ballot: messages are lost.
    pub(super) fn resend<R: Speaker>(&mut self, tries: u32, out: &mut Output<R>) {
        let late: Vec<_> = self.open.range(..self.resend_below).map(|(slot, value)| (*slot, value.clone())).collect();
        let tries = if late.is_empty() { 0 } else { tries + 1 };
        self.resend_below = self.next;
        self.is_resending = !self.open.is_empty();
        if self.is_resending {
            out.arm(ProposerTimer::Resend { tries });
        }
        self.send_accepts(late, out);
    }
}
