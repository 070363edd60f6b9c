//! How much of the past a learner keeps, and when it has its state written down.
//!
//! The log grows with every write; what it has come to does not. So a learner has its state written to a checkpoint now
//! and then, and when that is durable its own acceptor forgets the slots in it, and the learner all but the last of
//! them. (Van Renesse and Altinbuken, Paxos Made Moderately Complex, section 4.2, forget a slot that f+1 replicas know.
//! Here each acceptor forgets what its own server can hand out instead: of the majority that chose a slot, each has the
//! slot or a state with it.) What is kept is for peers that are a little late: they get entries. Those further behind
//! get the state, and what they need behind it is kept longer: [`Pins`] says what, and for how long.
//!
//! [`CheckpointSchedule`] keeps the entries, and says when a checkpoint is due; the learner hands the state out, and
//! says what became of it.

use super::pins::{self, LeftBehind, Pins};
use super::slot_window::SlotWindow;
use super::{Ballot, Entry, Slot, SlotRange, Value};
use crate::role::{ServerId, ServerSet};

/// A checkpoint that failed is tried again after so many beats (of 100 ms).
const RETRY_TICKS: u64 = 10;
/// If checkpoints fail for long, the log in memory grows to so many times what it should have, and then loses its
/// begin.
pub const HARD_FACTOR: u64 = 8;
/// From so many times `checkpoint_bytes` without a durable checkpoint on, the operator is told.
pub const LATE_FACTOR: u64 = 2;
/// From so many times `checkpoint_bytes` on, the server takes no more writes of its clients: what lies behind the
/// checkpoint is read again after a power cut.
pub const FULL_FACTOR: u64 = 4;

/// How much of the past is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Retention {
    /// A checkpoint is due after so many slots; at least 1.
    pub checkpoint_slots: u64,
    /// Or after values of so many bytes.
    pub checkpoint_bytes: u64,
    /// So many slots that a checkpoint holds stay in the log.
    pub keep_slots: u64,
    /// But values of no more than so many bytes.
    pub keep_bytes: u64,
}

impl Retention {
    /// Everything is kept, and nothing written down.
    pub const KEEP_ALL: Retention = Retention {
        checkpoint_slots: u64::MAX,
        checkpoint_bytes: u64::MAX,
        keep_slots: u64::MAX,
        keep_bytes: u64::MAX,
    };

    /// What a server does unless it is told otherwise.
    pub const DEFAULT: Retention =
        Retention { checkpoint_slots: 25_000, checkpoint_bytes: 32 << 20, keep_slots: 5_000, keep_bytes: 16 << 20 };
}

/// The end of the log, and how far the past is written down. See the head of its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CheckpointSchedule {
    me: ServerId,
    servers: ServerSet,
    retention: Retention,
    /// What was applied last, without a gap, for peers that are behind.
    log: SlotWindow<(Ballot, Value)>,
    /// Bytes of the values in the log.
    log_bytes: u64,
    /// A durable checkpoint holds every slot up to this one.
    durable: Slot,
    /// The checkpoint that is being written.
    in_progress: Option<Slot>,
    /// The slot of the last one begun.
    last_started: Slot,
    /// Bytes of values applied since.
    bytes: u64,
    /// Bytes of values applied before, and not in a durable checkpoint yet.
    begun_bytes: u64,
    /// The operator was told that the checkpoint is late.
    is_late: bool,
    /// One is due whatever was applied since: the state came from elsewhere, or somebody wants it.
    is_requested: bool,
    /// None is begun before this beat.
    not_before: u64,
    /// Slots that the own acceptor cannot read.
    unreadable: Vec<SlotRange>,
    /// Bytes of all values applied in this life.
    applied_bytes: u64,
    /// About how many bytes the state has.
    state_bytes: u64,
    /// What is kept for peers that fetch the state.
    pins: Pins,
}

impl CheckpointSchedule {
    /// Of one of these servers, whose disk has everything up to this slot. Everything is kept.
    pub(super) fn new(me: ServerId, servers: ServerSet, durable: Slot) -> CheckpointSchedule {
        CheckpointSchedule {
            me,
            servers,
            retention: Retention::KEEP_ALL,
            log: SlotWindow::from(durable.next()),
            log_bytes: 0,
            durable,
            in_progress: None,
            last_started: durable,
            bytes: 0,
            begun_bytes: 0,
            is_late: false,
            is_requested: false,
            not_before: 0,
            unreadable: Vec::new(),
            applied_bytes: 0,
            state_bytes: 0,
            pins: Pins::default(),
        }
    }

    /// From now on, no more is kept than this.
    pub(super) fn set_retention(&mut self, retention: Retention) {
        self.retention = retention;
    }

    /// A durable checkpoint holds every slot up to this one.
    pub(super) fn durable(&self) -> Slot {
        self.durable
    }

    /// Bytes of the values in the log.
    pub(super) fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// The first slot of the log; the next one to come if there is none.
    pub(super) fn log_begins(&self) -> Slot {
        self.log.first()
    }

    /// What the log has from this slot on.
    pub(super) fn entries(&self, from: Slot) -> impl Iterator<Item = (Slot, &(Ballot, Value))> {
        self.log.range(from)
    }

    /// The state is another one, of this slot: the log has nothing below.
    pub(super) fn begin_anew(&mut self, slot: Slot) {
        self.log = SlotWindow::from(slot.next());
        (self.log_bytes, self.bytes, self.begun_bytes) = (0, 0, 0);
        self.pins.end_all();
    }

    /// Puts the next slot, just applied, into the log. The state has about so many bytes then.
    pub(super) fn append_to_log(&mut self, ballot: Ballot, value: Value, state_bytes: u64) {
        self.state_bytes = state_bytes;
        let size = value.size() as u64;
        self.bytes += size;
        self.applied_bytes += size;
        self.log_bytes += size;
        self.log.push((ballot, value));
        self.trim_log();
    }

    /// Bytes of values applied that no durable checkpoint holds.
    pub(super) fn unwritten_bytes(&self) -> u64 {
        self.begun_bytes + self.bytes
    }

    /// Whether so much is in no durable checkpoint that no more should be asked for.
    pub(super) fn is_full(&self) -> bool {
        self.unwritten_bytes() >= self.retention.checkpoint_bytes.saturating_mul(FULL_FACTOR)
    }

    /// Whether the checkpoint has become late since this was last asked.
    pub(super) fn becomes_late(&mut self) -> bool {
        let was_late = self.is_late;
        self.is_late = self.unwritten_bytes() >= self.retention.checkpoint_bytes.saturating_mul(LATE_FACTOR);
        self.is_late && !was_late
    }

    /// Somebody wants a durable state.
    pub(super) fn want_checkpoint(&mut self) {
        self.is_requested = true;
    }

    /// Whether the state is to be written down now, as of the last slot applied. If it is, it counts as being written.
    pub(super) fn begin_checkpoint(&mut self, applied: Slot, now: u64) -> bool {
        let is_due = self.own_turns_up_to(applied) > self.own_turns_up_to(self.last_started)
            || self.bytes >= self.retention.checkpoint_bytes
            || (self.is_requested && applied > self.durable);
        if !is_due || self.in_progress.is_some() || now < self.not_before {
            return false;
        }
        self.begun_bytes += self.bytes;
        (self.in_progress, self.last_started, self.bytes, self.is_requested) = (Some(applied), applied, 0, false);
        true
    }

    /// How many checkpoints should have been begun by this slot. The servers take turns: what the disk of one is busy
    /// with for a moment need not keep the others from being a majority.
    fn own_turns_up_to(&self, slot: Slot) -> u64 {
        let every = self.retention.checkpoint_slots;
        let before = self.servers.iter().take_while(|server| *server < self.me).count() as u64;
        let ahead = every / self.servers.len() as u64 * before;
        slot.0.saturating_add(ahead) / every
    }

    /// The checkpoint as of `slot` is durable, or could not be written. False if that one is not being written.
    pub(super) fn end_checkpoint(&mut self, slot: Slot, is_durable: bool, now: u64) -> bool {
        if self.in_progress.take_if(|writing| *writing == slot).is_none() {
            return false;
        }
        if is_durable {
            (self.durable, self.begun_bytes) = (slot, 0);
            self.trim_log();
        } else {
            // A disk that is full may have room again soon. Until then every slot stays in the log and in the acceptor.
            self.is_requested = true;
            self.not_before = now + RETRY_TICKS;
        }
        true
    }

    /// A peer fetches the state after this slot. What it needs next is kept for it, if the log still has it.
    pub(super) fn part_asked(&mut self, peer: ServerId, slot: Slot) {
        let from = slot.min(self.durable).next();
        if from >= self.log.first() {
            self.pins.part_asked(peer, from, self.applied_bytes);
        }
    }

    /// A peer asks for the log from this slot on. See [`Pins::entries_asked`].
    pub(super) fn entries_asked(&mut self, peer: ServerId, from: Slot) -> Option<Slot> {
        self.pins.entries_asked(peer, from, self.applied_bytes)
    }

    /// A peer says how far it is.
    pub(super) fn hear(&mut self, peer: ServerId, applied: Slot) {
        self.pins.hear(peer, applied, self.log.first());
        self.trim_log();
    }

    /// Another beat of the learner.
    pub(super) fn beat(&mut self, now: u64) {
        self.pins.beat(now, self.log.first().plus(self.log.len() as u64).previous());
        self.trim_log();
    }

    /// What is kept for peers.
    pub(super) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// As [`pins`](CheckpointSchedule::pins), to tell it what was asked and sent. It decides by itself what stays
    /// pinned.
    pub(super) fn pins_mut(&mut self) -> &mut Pins {
        &mut self.pins
    }

    /// The peers for which the log could not be kept.
    pub(super) fn take_left_behind(&mut self) -> Vec<LeftBehind> {
        self.pins.take_left_behind()
    }

    /// Forgets the begin of the log, as far as it is in the durable checkpoint and no peer needs it.
    fn trim_log(&mut self) {
        let Retention { keep_slots, keep_bytes, .. } = self.retention;
        while let Some((_, value)) = self.log.front() {
            let first = self.log.first();
            let many = self.durable.ahead_of(first) >= keep_slots || self.log_bytes > keep_bytes;
            let is_written_down = first <= self.durable;
            let far_too_many = self.log_bytes > keep_bytes.saturating_mul(HARD_FACTOR);
            if !(many && is_written_down || far_too_many) {
                break;
            }
            if self.pins.need(first) {
                let pinned_bytes = pins::most_bytes(keep_bytes, self.state_bytes);
                if self.log_bytes <= pinned_bytes {
                    break;
                }
                self.pins.leave_behind(first, self.applied_bytes, pinned_bytes);
            }
            self.log_bytes -= value.size() as u64;
            self.log.pop_first();
        }
    }

    /// The own acceptor cannot read these slots: what is known of them, for it to accept again. Of the others it is to
    /// hear when they are applied.
    pub(super) fn mend(&mut self, slots: Vec<SlotRange>) -> Vec<Entry> {
        let of = |range: &SlotRange| {
            let last = range.last;
            self.log.range(range.first).take_while(move |(slot, _)| *slot <= last)
        };
        let known = slots.iter().flat_map(of);
        let entries =
            known.map(|(slot, (ballot, value))| Entry { slot, ballot: *ballot, value: value.clone() }).collect();
        self.unreadable = slots;
        entries
    }

    /// Whether the own acceptor cannot read this slot.
    pub(super) fn is_broken(&self, slot: Slot) -> bool {
        self.unreadable.iter().any(|range| range.contains(slot))
    }
}
