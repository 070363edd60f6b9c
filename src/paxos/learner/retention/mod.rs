//! Retention: how much of the log a learner keeps, and when it has a checkpoint written.
//!
//! The log grows with every write, but the state that results from it does not. So a learner has a checkpoint of its
//! state written now and then. When the checkpoint is durable, its own acceptor forgets the slots in it, and the
//! learner drops all but the last of them. (Van Renesse and Altinbuken, Paxos Made Moderately Complex, section 4.2,
//! forget a slot that f+1 replicas know. Here each acceptor forgets what its own server can send instead. Each member
//! of the majority that chose a slot has the slot itself, or a checkpoint that includes it.) The kept end of the log is
//! for peers that are a little behind: they get entries. Peers further behind get a snapshot, and the log after the
//! snapshot is kept longer: [`Pins`] decides how much, and for how long.
//!
//! [`CheckpointSchedule`] keeps the entries and reports when a checkpoint is due. The learner passes the state on, and
//! reports the result.

pub(in crate::paxos) mod pins;

use self::pins::{LeftBehind, Pins};
use crate::paxos::slot_window::SlotWindow;
use crate::paxos::{Ballot, Entry, Slot, SlotRange, Value};
use crate::role::{ServerId, ServerSet};

/// A failed checkpoint is tried again after this many ticks of 100 ms.
const RETRY_TICKS: u64 = 10;
/// If checkpoints keep failing, the log in memory grows to this multiple of its limit, and then loses its oldest
/// entries.
pub const HARD_FACTOR: u64 = 8;
/// At this multiple of `checkpoint_bytes` without a durable checkpoint, the operator is notified.
pub const LATE_FACTOR: u64 = 2;
/// At this multiple of `checkpoint_bytes`, the server takes no more writes from its clients: everything after the
/// checkpoint must be read again after a power failure.
pub const FULL_FACTOR: u64 = 4;

/// A checkpoint is due when the changes have this share of the size of the state, if that is more than
/// `checkpoint_bytes`: the fourth part. So a large store makes few large checkpoints, and not many small ones.
const STATE_SHARE: u64 = 4;

/// Limits on checkpoints and on the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Retention {
    /// A checkpoint is due after this many slots; at least 1. For a large state it is a multiple of that.
    pub checkpoint_slots: u64,
    /// Or after this many bytes of values, or the same multiple.
    pub checkpoint_bytes: u64,
    /// Number of slots that stay in the log although a checkpoint holds them.
    pub keep_slots: u64,
    /// Maximum size of the values of these slots, in bytes.
    pub keep_bytes: u64,
}

impl Retention {
    /// Everything is kept, and no checkpoint is written.
    pub const KEEP_ALL: Retention = Retention {
        checkpoint_slots: u64::MAX,
        checkpoint_bytes: u64::MAX,
        keep_slots: u64::MAX,
        keep_bytes: u64::MAX,
    };

    /// The default of a server.
    pub const DEFAULT: Retention =
        Retention { checkpoint_slots: 25_000, checkpoint_bytes: 32 << 20, keep_slots: 5_000, keep_bytes: 16 << 20 };

    /// The limits for a state of this size, in bytes.
    fn for_state(self, state_bytes: u64) -> Retention {
        let times = (state_bytes / STATE_SHARE / self.checkpoint_bytes.max(1)).max(1);
        let (checkpoint_slots, checkpoint_bytes) =
            (self.checkpoint_slots.saturating_mul(times), self.checkpoint_bytes.saturating_mul(times));
        Retention { checkpoint_slots, checkpoint_bytes, ..self }
    }

    /// Maximum size of the log while checkpoints fail, in bytes. For a large state it is two checkpoints' worth.
    pub fn log_max_bytes(&self, state_bytes: u64) -> u64 {
        self.keep_bytes.saturating_mul(HARD_FACTOR).max(state_bytes / STATE_SHARE * 2)
    }
}

/// The end of the log, and the state of the checkpoints. See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CheckpointSchedule {
    me: ServerId,
    servers: ServerSet,
    retention: Retention,
    /// The slots applied last, without a gap, for peers that are behind.
    log: SlotWindow<(Ballot, Value)>,
    /// Bytes of the values in the log.
    log_bytes: u64,
    /// The last slot of the durable checkpoint.
    durable: Slot,
    /// The slot of the checkpoint that is being written.
    in_progress: Option<Slot>,
    /// The slot of the last checkpoint begun.
    last_started: Slot,
    /// Bytes of values applied since then.
    bytes: u64,
    /// Bytes of values applied before then that no durable checkpoint holds yet.
    bytes_before_started: u64,
    /// The operator was notified that the checkpoint is late.
    is_late: bool,
    /// A checkpoint is due whatever was applied since: a snapshot was installed, or a peer needs one.
    is_requested: bool,
    /// No checkpoint begins before this tick.
    not_before: u64,
    /// Corrupt slots of the own acceptor.
    unreadable: Vec<SlotRange>,
    /// Bytes of all values applied in this incarnation.
    applied_bytes: u64,
    /// Approximate size of the state in bytes.
    state_bytes: u64,
    /// What is kept for peers that fetch a snapshot.
    pins: Pins,
}

impl CheckpointSchedule {
    /// For one of these servers, whose disk has everything up to this slot. Everything is kept.
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
            bytes_before_started: 0,
            is_late: false,
            is_requested: false,
            not_before: 0,
            unreadable: Vec::new(),
            applied_bytes: 0,
            state_bytes: 0,
            pins: Pins::default(),
        }
    }

    /// Sets the limits.
    pub(super) fn set_retention(&mut self, retention: Retention) {
        self.retention = retention;
    }

    /// The last slot of the durable checkpoint.
    pub(super) fn durable(&self) -> Slot {
        self.durable
    }

    /// Bytes of the values in the log.
    pub(super) fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// The first slot of the log; the next slot to come if the log is empty.
    pub(super) fn log_begins(&self) -> Slot {
        self.log.first()
    }

    /// The entries of the log from this slot on.
    pub(super) fn entries(&self, from: Slot) -> impl Iterator<Item = (Slot, &(Ballot, Value))> {
        self.log.range(from)
    }

    /// A snapshot of this slot was installed: the log has nothing up to it.
    pub(super) fn begin_anew(&mut self, slot: Slot) {
        self.log = SlotWindow::from(slot.next());
        (self.log_bytes, self.bytes, self.bytes_before_started) = (0, 0, 0);
        self.pins.end_all();
    }

    /// Appends the slot that was just applied. `state_bytes` is the approximate size of the state after it.
    pub(super) fn append_to_log(&mut self, ballot: Ballot, value: Value, state_bytes: u64) {
        self.state_bytes = state_bytes;
        let size = value.size() as u64;
        self.bytes += size;
        self.applied_bytes += size;
        self.log_bytes += size;
        self.log.push((ballot, value));
        self.trim_log();
    }

    /// Bytes of applied values that no durable checkpoint holds.
    pub(super) fn unwritten_bytes(&self) -> u64 {
        self.bytes_before_started + self.bytes
    }

    /// Whether these bytes exceed the limit above which the server should take no more writes.
    pub(super) fn is_full(&self) -> bool {
        self.unwritten_bytes() >= self.limits().checkpoint_bytes.saturating_mul(FULL_FACTOR)
    }

    /// The limits for the state as it is now.
    pub(super) fn limits(&self) -> Retention {
        self.retention.for_state(self.state_bytes)
    }

    /// Whether the checkpoint has become late since the last call.
    pub(super) fn becomes_late(&mut self) -> bool {
        let was_late = self.is_late;
        self.is_late = self.unwritten_bytes() >= self.limits().checkpoint_bytes.saturating_mul(LATE_FACTOR);
        self.is_late && !was_late
    }

    /// Makes a checkpoint due, whatever has changed.
    pub(super) fn want_checkpoint(&mut self) {
        self.is_requested = true;
    }

    /// Whether a checkpoint must be written now, as of the last slot applied. If so, it counts as being written.
    pub(super) fn begin_checkpoint(&mut self, applied: Slot, now: u64) -> bool {
        let is_due = self.own_turns_up_to(applied) > self.own_turns_up_to(self.last_started)
            || self.bytes >= self.limits().checkpoint_bytes
            || (self.is_requested && applied > self.durable);
        if !is_due || self.in_progress.is_some() || now < self.not_before {
            return false;
        }
        self.bytes_before_started += self.bytes;
        (self.in_progress, self.last_started, self.bytes, self.is_requested) = (Some(applied), applied, 0, false);
        true
    }

    /// Number of checkpoints that should have begun by this slot. The servers take turns, so that the others are a
    /// majority while one disk is busy.
    fn own_turns_up_to(&self, slot: Slot) -> u64 {
        let every = self.limits().checkpoint_slots;
        let before = self.servers.iter().take_while(|server| *server < self.me).count() as u64;
        let ahead = every / self.servers.len() as u64 * before;
        slot.0.saturating_add(ahead) / every
    }

    /// The checkpoint as of `slot` is durable, or could not be written. Returns false if that checkpoint is not being
    /// written.
    pub(super) fn end_checkpoint(&mut self, slot: Slot, is_durable: bool, now: u64) -> bool {
        if self.in_progress.take_if(|writing| *writing == slot).is_none() {
            return false;
        }
        if is_durable {
            (self.durable, self.bytes_before_started) = (slot, 0);
            self.trim_log();
        } else {
            // A full disk may have room again soon. Until then every slot stays in the log and in the acceptor.
            self.is_requested = true;
            self.not_before = now + RETRY_TICKS;
        }
        true
    }

    /// A peer fetches the snapshot as of this slot. The log after it is kept for the peer, if it is still there.
    pub(super) fn on_chunk_request(&mut self, peer: ServerId, slot: Slot) {
        let from = slot.min(self.durable).next();
        if from >= self.log.first() {
            self.pins.on_chunk_request(peer, from, self.applied_bytes);
        }
    }

    /// A peer requests the log from this slot on. See [`Pins::on_catch_up_request`].
    pub(super) fn on_catch_up_request(&mut self, peer: ServerId, from: Slot) -> Option<Slot> {
        self.pins.on_catch_up_request(peer, from, self.applied_bytes)
    }

    /// A peer's PROGRESS.
    pub(super) fn on_progress(&mut self, peer: ServerId, applied: Slot) {
        self.pins.on_progress(peer, applied, self.log.first());
        self.trim_log();
    }

    /// A tick of the learner.
    pub(super) fn tick(&mut self, now: u64) {
        self.pins.tick(now, self.log.first().plus(self.log.len() as u64).previous());
        self.trim_log();
    }

    /// What is kept for peers that fetch a snapshot.
    pub(super) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// As [`pins`](CheckpointSchedule::pins), to note what was requested and sent. The pins themselves decide what
    /// stays pinned.
    pub(super) fn pins_mut(&mut self) -> &mut Pins {
        &mut self.pins
    }

    /// The peers for which the log could not be kept.
    pub(super) fn take_left_behind(&mut self) -> Vec<LeftBehind> {
        self.pins.take_left_behind()
    }

    /// Drops the oldest entries, as far as the durable checkpoint holds them and no peer needs them.
    fn trim_log(&mut self) {
        let Retention { keep_slots, keep_bytes, .. } = self.retention;
        while let Some((_, value)) = self.log.front() {
            let first = self.log.first();
            let many = self.durable.ahead_of(first) >= keep_slots || self.log_bytes > keep_bytes;
            let is_written_down = first <= self.durable;
            let far_too_many = self.log_bytes > self.retention.log_max_bytes(self.state_bytes);
            if !(many && is_written_down || far_too_many) {
                break;
            }
            if self.pins.need(first) {
                let pinned_bytes = pins::pinned_log_max_bytes(keep_bytes, self.state_bytes);
                if self.log_bytes <= pinned_bytes {
                    break;
                }
                self.pins.leave_behind(first, self.applied_bytes, pinned_bytes);
            }
            self.log_bytes -= value.size() as u64;
            self.log.pop_first();
        }
    }

    /// The own acceptor has these corrupt slots. Returns the entries that the log has for them; the others are reported
    /// when they are applied.
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

    /// Whether this slot is corrupt at the own acceptor.
    pub(super) fn is_broken(&self, slot: Slot) -> bool {
        self.unreadable.iter().any(|range| range.contains(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_grow_with_the_state_from_four_times_the_bytes_of_a_checkpoint_on() {
        let Retention { checkpoint_slots, checkpoint_bytes, keep_bytes, .. } = Retention::DEFAULT;
        for (state_bytes, times) in [(0, 1), (7 * checkpoint_bytes, 1), (8 * checkpoint_bytes, 2), (4_096 << 20, 32)] {
            let limits = Retention::DEFAULT.for_state(state_bytes);
            assert_eq!(limits.checkpoint_slots, times * checkpoint_slots, "{state_bytes}");
            assert_eq!(limits.checkpoint_bytes, times * checkpoint_bytes, "{state_bytes}");
            assert!(limits.checkpoint_bytes <= checkpoint_bytes.max(state_bytes / STATE_SHARE));
            let log_max = Retention::DEFAULT.log_max_bytes(state_bytes);
            assert!(
                log_max >= 2 * limits.checkpoint_bytes && log_max <= (HARD_FACTOR * keep_bytes).max(state_bytes / 2)
            );
        }
        assert_eq!(Retention::KEEP_ALL.for_state(u64::MAX).checkpoint_slots, u64::MAX);
    }
}
