//! The durable state of each acceptor and the slot of each checkpoint, as the oracle knows them.

use std::collections::BTreeMap;

use super::coverage::{Coverage, CoveragePoint};
use super::oracle::Oracle;
use paxos_kv::paxos::{Acceptor, AcceptorRecord, Ballot, Entry, Slot, SlotRange, Value};
use paxos_kv::role::{ServerId, ServerSet};

/// What an acceptor certainly has on its disk.
#[derive(Clone, Debug)]
pub(super) struct DurableAcceptor {
    pub(super) promised: Ballot,
    pub(super) accepted: BTreeMap<Slot, (Ballot, Value)>,
    /// The ballots at which slots were repaired.
    repaired: BTreeMap<Slot, Ballot>,
    /// The acceptor has truncated all slots below this one.
    pub(super) truncated_below: Slot,
    /// The batch that was being written when its acceptor crashed: all of it is there, or nothing.
    pub(super) in_doubt: Vec<AcceptorRecord>,
    /// The slot of its server's durable checkpoint.
    checkpoint: Slot,
    /// The slot of the checkpoint when the batch in doubt was written. A later corruption of the checkpoint does not
    /// make that batch wrong.
    checkpoint_then: Slot,
    /// The slot of a checkpoint that was being written when the process crashed.
    checkpoint_in_doubt: Option<Slot>,
}

impl DurableAcceptor {
    pub(super) fn new() -> DurableAcceptor {
        DurableAcceptor {
            promised: Ballot::ZERO,
            accepted: BTreeMap::new(),
            repaired: BTreeMap::new(),
            truncated_below: Slot(1),
            in_doubt: Vec::new(),
            checkpoint: Slot(0),
            checkpoint_then: Slot(0),
            checkpoint_in_doubt: None,
        }
    }

    fn take(&mut self, record: &AcceptorRecord) {
        match record {
            AcceptorRecord::Promised(ballot) => self.promised = *ballot,
            AcceptorRecord::Accepted(Entry { slot, ballot, value }) => {
                self.promised = *ballot;
                self.accepted.insert(*slot, (*ballot, value.clone()));
            }
            AcceptorRecord::Truncated(below) => {
                self.truncated_below = *below;
                self.accepted = self.accepted.split_off(below);
                self.repaired = self.repaired.split_off(below);
            }
            AcceptorRecord::Repaired(Entry { slot, ballot, value }) => {
                self.repaired.insert(*slot, *ballot);
                if self.accepted.get(slot).is_none_or(|(before, _)| before < ballot) {
                    self.accepted.insert(*slot, (*ballot, value.clone()));
                }
            }
            AcceptorRecord::Corrupt(_) => {}
        }
    }

    /// Whether an acceptor has all this state, except slots that it reports as corrupt.
    fn is_known_to(&self, acceptor: &Acceptor, is_corrupt: bool) -> bool {
        let corrupt = acceptor.corrupt();
        let first = self.truncated_below.max(acceptor.truncated_below());
        let is_lost = |slot: &Slot| corrupt.iter().any(|range| range.contains(*slot));
        let theirs = acceptor.accepted();
        let agrees = |slot: &Slot| {
            let (mine, found) = (self.accepted.get(slot), theirs.get(slot));
            // If an older record is lost, a repaired slot holds what repaired it: the same value, perhaps at a lower
            // ballot.
            let mended = self.repaired.get(slot).filter(|_| is_corrupt);
            let is_mended = mine
                .zip(found)
                .zip(mended)
                .is_some_and(|(((was, value), (is, same)), mended)| mended <= is && is <= was && value == same);
            mine == found || is_lost(slot) || is_mended
        };
        let same = self.accepted.range(first..).chain(theirs.range(first..)).all(|(slot, _)| agrees(slot));
        // If a truncation record is lost, the acceptor knows more than it must. If the checkpoint is lost, fewer slots
        // count as truncated.
        let may_be_lower = is_corrupt || self.checkpoint.next() < self.truncated_below;
        let forgotten = acceptor.truncated_below() == self.truncated_below
            || (may_be_lower && acceptor.truncated_below() < self.truncated_below)
            || acceptor.truncated_below() <= self.checkpoint.max(self.checkpoint_in_doubt.unwrap_or_default()).next();
        acceptor.promised() == self.promised && same && forgotten
    }
}

impl Oracle {
    /// The records of an acceptor's batch are durable.
    pub fn durable(&mut self, server: ServerId, records: &[AcceptorRecord], coverage: &mut Coverage) {
        if self.new_disks.contains(server) {
            return;
        }
        for record in records {
            self.record(server, record, coverage);
        }
    }

    /// An acceptor has crashed while it wrote this batch.
    pub fn in_doubt(&mut self, server: ServerId, records: Vec<AcceptorRecord>) {
        let disk = self.disk(server);
        (disk.in_doubt, disk.checkpoint_then) = (records, disk.checkpoint);
    }

    pub(super) fn disk(&mut self, server: ServerId) -> &mut DurableAcceptor {
        self.acceptors.entry(server).or_insert_with(DurableAcceptor::new)
    }

    fn record(&mut self, server: ServerId, record: &AcceptorRecord, coverage: &mut Coverage) {
        let disk = self.disk(server);
        let (before, checkpoint) = (disk.promised, disk.checkpoint.max(disk.checkpoint_then));
        disk.take(record);
        match record {
            AcceptorRecord::Promised(ballot) => self
                .require(4, *ballot >= before, || format!("{server} promised {before}, and then the lower {ballot}")),
            AcceptorRecord::Accepted(entry) => {
                self.require(6, entry.ballot >= before, || {
                    format!("{server} promised {before}, and then accepted at the lower {}", entry.ballot)
                });
                self.vote(server, entry);
            }
            AcceptorRecord::Truncated(below) => {
                coverage.reach(CoveragePoint::Truncated);
                self.require(21, below.previous() <= checkpoint, || {
                    format!(
                        "{server} truncated the slots below {below}, but its durable checkpoint is of slot {checkpoint}"
                    )
                });
            }
            AcceptorRecord::Repaired(entry) => {
                coverage.reach(CoveragePoint::SlotRepaired);
                let is_chosen = self.chosen.get(&entry.slot).is_some_and(|(_, chosen)| *chosen == entry.value);
                self.require(23, is_chosen, || {
                    format!("{server} repaired slot {} with a value that was not chosen", entry.slot)
                });
                self.vote(server, entry);
            }
            AcceptorRecord::Corrupt(_) => {
                self.require(23, false, || format!("{server} recorded a corrupt slot in its journal"))
            }
        }
    }

    pub(super) fn vote(&mut self, server: ServerId, Entry { slot, ballot, value }: &Entry) {
        let (voted, servers) = self.votes.entry((*slot, *ballot)).or_insert_with(|| (value.clone(), ServerSet::NONE));
        let same = voted == value;
        servers.insert(server);
        let servers = *servers;
        self.require(3, same, || format!("ballot {ballot} carries two values for slot {slot}"));
        if self.quorums.is_phase2_quorum(servers) {
            let (at, chosen) = self.chosen.entry(*slot).or_insert_with(|| (*ballot, value.clone()));
            let (at, same) = (*at, chosen == value);
            self.require(1, same, || format!("two values were chosen in slot {slot}, at {at} and at {ballot}"));
        }
    }

    /// Checks what an acceptor has recovered from its disk.
    pub fn recovered(&mut self, server: ServerId, acceptor: &Acceptor, is_corrupt: bool, coverage: &mut Coverage) {
        if self.new_disks.contains(server) {
            return;
        }
        let in_doubt = std::mem::take(&mut self.disk(server).in_doubt);
        let disk = self.disk(server).clone();
        if disk.is_known_to(acceptor, is_corrupt) {
            if !in_doubt.is_empty() {
                coverage.reach(CoveragePoint::GroupLost);
            }
        } else {
            let mut grown = disk.clone();
            in_doubt.iter().for_each(|record| grown.take(record));
            let survived = grown.is_known_to(acceptor, is_corrupt) && !in_doubt.is_empty();
            self.require(22, survived, || {
                format!(
                    "{server} had durably promised {} and accepted {} slots from {} on, but restarted with {}, {} and {}",
                    disk.promised,
                    disk.accepted.len(),
                    disk.truncated_below,
                    acceptor.promised(),
                    acceptor.accepted().len(),
                    acceptor.truncated_below(),
                )
            });
            coverage.reach(CoveragePoint::GroupSurvived);
            self.durable(server, &in_doubt, coverage);
        }
        self.disk(server).checkpoint_then = Slot(0);
        // What the disk has lost is no longer certain.
        let forgotten = acceptor.truncated_below();
        let disk = self.disk(server);
        // Slots that were truncated, and are there again because the truncation record is lost.
        let again = acceptor.accepted().range(forgotten..disk.truncated_below.max(forgotten));
        disk.accepted.extend(again.map(|(slot, held)| (*slot, held.clone())));
        disk.truncated_below = forgotten;
        disk.accepted = disk.accepted.split_off(&forgotten);
        // A repaired slot may have come back at a lower ballot.
        let back = disk.repaired.keys().filter_map(|slot| Some((*slot, acceptor.accepted().get(slot)?.clone())));
        disk.accepted.extend(back);
        for range in acceptor.corrupt() {
            disk.accepted.retain(|slot, _| !range.contains(*slot));
            let left = acceptor.accepted().range(range.first..=range.last);
            disk.accepted.extend(left.map(|(slot, value)| (*slot, value.clone())));
        }
    }

    /// Whether an acceptor may leave a slot out of its promise.
    pub(super) fn may_lack(slot: Slot, forgotten: Slot, corrupt: &[SlotRange]) -> bool {
        slot < forgotten || corrupt.iter().any(|range| range.contains(slot))
    }

    // ---- checkpoints

    /// Checks a checkpoint that has become durable.
    pub fn checkpoint_durable(&mut self, server: ServerId, slot: Slot, digest: u64) {
        if self.new_disks.contains(server) {
            return;
        }
        self.check_state(server, slot, digest);
        let disk = self.disk(server);
        let before = std::mem::replace(&mut disk.checkpoint, slot);
        disk.checkpoint_in_doubt = None;
        self.require(20, slot > before, || {
            format!("{server} wrote a checkpoint of slot {slot} after one of slot {before}")
        });
    }

    /// A process has crashed while it wrote a checkpoint: the disk has the new one or the one before.
    pub fn checkpoint_in_doubt(&mut self, server: ServerId, slot: Slot) {
        self.disk(server).checkpoint_in_doubt = Some(slot);
    }

    /// A corrupt checkpoint file is still readable, but may hold an older state.
    pub fn checkpoint_fell_back(&mut self, server: ServerId, found: Slot) {
        let disk = self.disk(server);
        if found < disk.checkpoint {
            (disk.checkpoint, disk.checkpoint_in_doubt) = (found, None);
        }
    }

    /// A corrupt checkpoint was quarantined, or its file is lost.
    pub fn checkpoint_lost(&mut self, server: ServerId) {
        let disk = self.disk(server);
        (disk.checkpoint, disk.checkpoint_in_doubt) = (Slot(0), None);
    }

    /// Checks the state with which a learner starts.
    pub fn checkpoint_loaded(&mut self, server: ServerId, slot: Slot, digest: u64) {
        if self.new_disks.contains(server) {
            return;
        }
        self.check_state(server, slot, digest);
        let disk = self.disk(server);
        let (before, in_doubt) = (disk.checkpoint, disk.checkpoint_in_doubt.take());
        disk.checkpoint = slot;
        self.require(20, slot == before || Some(slot) == in_doubt, || {
            format!("{server} had a durable checkpoint of slot {before}, but restarted with one of slot {slot}")
        });
    }

    /// Checks a snapshot that a learner installs in place of its state.
    pub(super) fn installed(&mut self, server: ServerId, slot: Slot, digest: u64, coverage: &mut Coverage) {
        coverage.reach(if self.installs.insert(server) {
            CoveragePoint::SnapshotInstalled
        } else {
            CoveragePoint::SnapshotTwice
        });
        self.check_state(server, slot, digest);
        let before = self.learners.insert(server, slot).unwrap_or_default();
        self.require(20, slot > before, || {
            format!("{server} had applied slot {before}, but installed a snapshot of slot {slot}")
        });
    }

    fn check_state(&mut self, server: ServerId, slot: Slot, digest: u64) {
        let same = slot == Slot(0) || self.digest(slot) == Some(digest);
        self.require(20, same, || format!("the state of {server} at slot {slot} differs from that of the log"));
    }

    /// A learner has fenced itself because its state differs from that of other servers.
    pub fn fenced(&mut self, server: ServerId, slot: Slot, against: ServerSet) {
        if !self.new_disks.contains(server) {
            self.require(13, false, || format!("{server} reported that it differs from {against} after slot {slot}"));
        }
    }
}
