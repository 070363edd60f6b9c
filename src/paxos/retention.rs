//! How much of the past a learner keeps, and when it has its state written down.
//!
//! The log grows with every write; what it has come to does not. So a learner has its state written to a checkpoint now
//! and then, and when that is durable its own acceptor forgets the slots in it, and the learner all but the last of them
//! (van Renesse and Altinbuken, Paxos Made Moderately Complex, section 4.2). What is kept is for peers that are a little
//! late: they get entries. Those further behind get the state.

use super::learner::{Learner, LearnerOutcome};
use super::{Entry, Slot, SlotRange, StateMachine};
use crate::role::Output;

/// A checkpoint that failed is tried again after so many beats (of 100 ms).
const RETRY_BEATS: u64 = 10;
/// If checkpoints fail for long, the log in memory grows to so many times what it should have, and then loses its begin.
pub const HARD_FACTOR: u64 = 8;

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
    pub const EVERYTHING: Retention = Retention {
        checkpoint_slots: u64::MAX,
        checkpoint_bytes: u64::MAX,
        keep_slots: u64::MAX,
        keep_bytes: u64::MAX,
    };

    /// What a server does unless it is told otherwise.
    pub const USUAL: Retention =
        Retention { checkpoint_slots: 25_000, checkpoint_bytes: 32 << 20, keep_slots: 5_000, keep_bytes: 16 << 20 };
}

/// How far the past is written down.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Past {
    pub(super) retention: Retention,
    /// A durable checkpoint holds every slot up to this one.
    pub(super) durable: Slot,
    /// The checkpoint that is being written.
    pub(super) writing: Option<Slot>,
    /// The slot of the last one begun.
    pub(super) begun: Slot,
    /// Bytes of values applied since.
    pub(super) bytes: u64,
    /// One is due whatever was applied since: the state came from elsewhere, or somebody wants it.
    pub(super) is_wanted: bool,
    /// None is begun before this beat.
    not_before: u64,
    /// Bytes of the values in the log.
    pub(super) log_bytes: u64,
    /// Slots that the own acceptor cannot read.
    broken: Vec<SlotRange>,
}

impl Past {
    pub(super) fn new(durable: Slot) -> Past {
        Past {
            retention: Retention::EVERYTHING,
            durable,
            writing: None,
            begun: durable,
            bytes: 0,
            is_wanted: false,
            not_before: 0,
            log_bytes: 0,
            broken: Vec::new(),
        }
    }
}

impl<M: StateMachine> Learner<M> {
    /// The same learner, but it does not keep everything.
    pub fn with_retention(mut self, retention: Retention) -> Learner<M> {
        self.past.retention = retention;
        self
    }

    /// A durable checkpoint holds every slot up to this one.
    pub fn durable(&self) -> Slot {
        self.past.durable
    }

    /// Bytes of the values in its log.
    pub fn log_bytes(&self) -> u64 {
        self.past.log_bytes
    }

    /// How many slots it knows something of that are not applied yet.
    pub fn open_slots(&self) -> usize {
        self.open.len()
    }

    /// The first slot of the log; the next one to come if there is none.
    pub fn log_begins(&self) -> Slot {
        self.log.first()
    }

    /// Has the state written down if it is time to: what has changed, as of this slot.
    pub(super) fn begin_checkpoint(&mut self, out: &mut Output<Self>) {
        let Past { retention, begun, bytes, is_wanted, not_before, .. } = self.past;
        let is_due = self.turns_by(self.applied) > self.turns_by(begun)
            || bytes >= retention.checkpoint_bytes
            || (is_wanted && self.applied > self.past.durable);
        if !is_due || self.past.writing.is_some() || self.beats < not_before {
            return;
        }
        let (slot, digest) = (self.applied, self.machine.digest());
        (self.past.writing, self.past.begun, self.past.bytes, self.past.is_wanted) = (Some(slot), slot, 0, false);
        out.outcome(LearnerOutcome::Checkpoint { slot, digest, changes: self.machine.take_changes() });
    }

    /// How many checkpoints should have been begun by this slot. The servers take turns: what the disk of one is busy with
    /// for a moment need not keep the others from being a majority.
    fn turns_by(&self, slot: Slot) -> u64 {
        let (servers, every) = (self.quorums.servers(), self.past.retention.checkpoint_slots);
        let before = servers.iter().take_while(|server| *server < self.me).count() as u64;
        let ahead = every / servers.len() as u64 * before;
        slot.0.saturating_add(ahead) / every
    }

    /// The checkpoint as of `slot` is durable, or could not be written.
    pub(super) fn end_checkpoint(&mut self, slot: Slot, is_durable: bool, out: &mut Output<Self>) {
        if self.past.writing.take_if(|writing| *writing == slot).is_none() {
            return;
        }
        if is_durable {
            self.machine.changes_kept();
            self.past.durable = slot;
            self.trim_log();
            out.outcome(LearnerOutcome::Durable { slot });
        } else {
            // A disk that is full may have room again soon. Until then every slot stays in the log and in the acceptor.
            self.machine.changes_lost();
            self.past.is_wanted = true;
            self.past.not_before = self.beats + RETRY_BEATS;
        }
        self.begin_checkpoint(out);
    }

    /// Somebody wants a durable state.
    pub(super) fn want_checkpoint(&mut self, out: &mut Output<Self>) {
        self.past.is_wanted = true;
        self.begin_checkpoint(out);
    }

    /// Puts an applied slot into the log.
    pub(super) fn keep(&mut self, entry: Entry, out: &mut Output<Self>) {
        let Entry { slot, ballot, value } = entry;
        if self.past.broken.iter().any(|range| range.contains(slot)) {
            out.outcome(LearnerOutcome::Mended { entries: vec![Entry { slot, ballot, value: value.clone() }] });
        }
        let size = value.size() as u64;
        self.past.bytes += size;
        self.past.log_bytes += size;
        self.log.push((ballot, value));
        self.trim_log();
        self.begin_checkpoint(out);
    }

    /// Forgets the begin of the log, as far as it is in the durable checkpoint.
    fn trim_log(&mut self) {
        let Retention { keep_slots, keep_bytes, .. } = self.past.retention;
        while let Some((_, value)) = self.log.front() {
            let first = self.log.first();
            let many = self.past.durable.ahead_of(first) >= keep_slots || self.past.log_bytes > keep_bytes;
            let is_written_down = first <= self.past.durable;
            let far_too_many = self.past.log_bytes > keep_bytes.saturating_mul(HARD_FACTOR);
            if !(many && is_written_down || far_too_many) {
                break;
            }
            self.past.log_bytes -= value.size() as u64;
            self.log.end_first();
        }
    }

    /// The own acceptor cannot read these slots: it hears what was chosen in them, now or when it is known here.
    pub(super) fn mend(&mut self, slots: Vec<SlotRange>, out: &mut Output<Self>) {
        let of = |range: &SlotRange| {
            let last = range.last;
            self.log.range(range.first).take_while(move |(slot, _)| *slot <= last)
        };
        let known = slots.iter().flat_map(of);
        let entries: Vec<Entry> =
            known.map(|(slot, (ballot, value))| Entry { slot, ballot: *ballot, value: value.clone() }).collect();
        if !entries.is_empty() {
            out.outcome(LearnerOutcome::Mended { entries });
        }
        self.past.broken = slots;
    }
}
