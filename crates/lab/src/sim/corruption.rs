//! Disk corruption: faults in data that a disk has acknowledged long ago. Bits flip, writes go astray, files are
//! missing or cut short.
//!
//! After a restart the server must refuse to start, or have all its data except what it reports as corrupt. So at most
//! a minority is corrupt at a time, and the other servers repair it. One fault is left out, because no journal can
//! notice it: a disk that acknowledges its last group and loses all its sectors. A crash in the middle of a write
//! leaves the same state (see `storage::journal`).

use std::collections::BTreeMap;

use super::coverage::CoveragePoint;
use super::server::SimProcess;
use super::simulation::{CrashKind, Simulation};
use paxos_kv::role::{ServerId, ServerSet};
use paxos_kv::storage::disk::{Files, MemoryFiles, SECTOR_BYTES};

/// A sector of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SectorAddress<'a> {
    file: &'a str,
    sector: usize,
}

/// The files of a directory, by name.
type DirImage = BTreeMap<String, Vec<u8>>;

impl Simulation {
    /// Whether this server may lose data for good: at most a minority may.
    fn may_corrupt(&mut self, server: ServerId) -> bool {
        self.find_recovered();
        self.has_begun()
            && !self.lost.contains(server)
            && self.lost.len() + self.on_wrong_dir.without(self.lost).len() < self.plan.spare_servers()
    }

    /// Removes servers from `lost` whose corrupt data was repaired: they count as healthy again.
    pub(super) fn find_recovered(&mut self) {
        for server in self.lost.iter() {
            let one = self.server(server);
            let is_whole = |process: &SimProcess| {
                let (Some(acceptor), Some(learner)) = (&process.acceptor, &process.learner) else { return false };
                // A record that is still being written is not durable.
                let is_written = acceptor.syncing.is_none();
                let (acceptor, learner) = (acceptor.role(), learner.role());
                is_written && acceptor.corrupt().is_empty() && learner.durable().next() >= acceptor.truncated_below()
            };
            let is_later = |process: &SimProcess| one.corrupted_in != Some(process.number);
            if !one.has_new_disk
                && one.is_active()
                && one.process.as_ref().is_some_and(|process| is_later(process) && is_whole(process))
            {
                one.is_checkpoint_corrupt = false;
                self.lost = self.lost.without(ServerSet::only(server));
                self.sim_env.reach(CoveragePoint::DiskRecovered);
            }
        }
    }

    /// Flips a bit of a file of a checkpoint, or removes the file.
    fn corrupt_checkpoint(&mut self, server: ServerId) {
        self.kill(server, CrashKind::Process);
        let lost = self.sim_env.chance(200);
        let names = self.server(server).dir.checkpoint_files();
        let Some(name) = self.sim_env.random_choice_ref(&names).cloned() else { return };
        let one = self.server(server);
        let files = one.dir.checkpoint.clone();
        let Ok(bytes) = files.read(&name) else { return };
        one.is_checkpoint_corrupt = true;
        if lost {
            let is_last_one = names.len() == 1;
            if files.remove(&name).and_then(|()| files.sync_dir()).is_ok() && is_last_one {
                self.sim_env.oracle.checkpoint_lost(server);
            }
        } else if let Some(last) = (bytes.len() as u64 * 8).checked_sub(1) {
            let bit = self.sim_env.random.within(0..=last) as usize;
            files.flip_bit(&name, bit);
        }
        self.record_corruption(server, CoveragePoint::CheckpointCorrupted);
    }

    /// Stops a server whose disk a fault is about to corrupt; returns its journal.
    fn stop_to_corrupt(&mut self, server: ServerId) -> Option<MemoryFiles> {
        if !self.may_corrupt(server) {
            return None;
        }
        self.kill(server, CrashKind::Process);
        Some(self.server(server).dir.journal.clone())
    }

    fn record_corruption(&mut self, server: ServerId, mark: CoveragePoint) {
        self.lost.insert(server);
        let one = self.server(server);
        one.corrupted_in = one.process.as_ref().map(|process| process.number);
        self.sim_env.reach(mark);
    }

    /// Flips a bit of one of its files, while the server is down or while it runs. In the second case the server can
    /// notice only at its next start.
    pub(super) fn flip_a_bit(&mut self, server: ServerId) {
        if !self.may_corrupt(server) {
            return;
        }
        if self.sim_env.chance(300) {
            return self.corrupt_checkpoint(server);
        }
        let is_up = self.sim_env.chance(500) && self.server(server).process.is_some();
        if !is_up {
            self.kill(server, CrashKind::Process);
        }
        let in_journal = self.sim_env.chance(800);
        let dir = &self.server(server).dir;
        let files = if in_journal { dir.journal.clone() } else { dir.top.clone() };
        let image = files.image();
        let names: Vec<&String> = image.keys().collect();
        let Some(name) = self.sim_env.random_choice(&names) else { return };
        let bytes = &image[name];
        // Mostly in the part of the file that was written.
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(bytes.len(), |last| last + 1);
        let end = if self.sim_env.chance(800) { used } else { bytes.len() };
        let Some(last) = (end as u64 * 8).checked_sub(1) else { return };
        let bit = self.sim_env.random.within(0..=last) as usize;
        files.flip_bit(name, bit);
        self.record_corruption(server, if is_up { CoveragePoint::BitRotWhileUp } else { CoveragePoint::BitRot });
    }

    /// Copies a written sector over another one, as if the disk had written it to the wrong place. The sector itself
    /// keeps its content or, in half of the cases, is zeroed; never one of the last group.
    pub(super) fn misdirect_sector(&mut self, server: ServerId) {
        let Some(journal) = self.stop_to_corrupt(server) else { return };
        let mut image = journal.image();
        let places: Vec<(String, usize)> = written_sectors(&image);
        let (Some(from), Some(to)) = (self.sim_env.random_choice_ref(&places), self.sim_env.random_choice_ref(&places))
        else {
            return;
        };
        let (from, to) = (SectorAddress { file: &from.0, sector: from.1 }, SectorAddress { file: &to.0, sector: to.1 });
        let stray = sector(&image, from).to_vec();
        if sector(&image, to) == stray {
            return;
        }
        let is_lost = self.sim_env.chance(500) && !is_of_last_group(&image, &places, from);
        put_sector(&mut image, to, &stray);
        if is_lost {
            put_sector(&mut image, from, &[0; SECTOR_BYTES]);
        }
        for name in [from.file, to.file] {
            journal.put(name, &image[name]);
        }
        self.record_corruption(server, CoveragePoint::Misdirected);
    }

    /// Removes, empties, cuts or copies a file, or puts another server's journal in place of the own one.
    pub(super) fn disarrange_files(&mut self, server: ServerId) {
        let Some(journal) = self.stop_to_corrupt(server) else { return };
        let image = journal.image();
        let names: Vec<&String> = image.keys().collect();
        let (Some(name), Some(other)) = (self.sim_env.random_choice(&names), self.sim_env.random_choice(&names)) else {
            return;
        };
        match self.sim_env.random.within(0..=5) {
            0 if journal.remove(name).and_then(|()| journal.sync_dir()).is_ok() => {}
            1 => {
                let left = self.sim_env.random.within(0..=(image[name].len() as u64).saturating_sub(1)) as usize;
                journal.put(name, &image[name][..left]);
            }
            2 => journal.put(other, &image[name]),
            3 => journal.put(&format!("{:010}.journal", names.len() + 1), &image[name]),
            4 => {
                // From a server that has its own data: the files of another one may be an old copy of these, which is a
                // different fault.
                let others = self.plan.cluster().without(self.lost).without(ServerSet::only(server));
                let others: Vec<ServerId> = others.iter().collect();
                let Some(stranger) = self.sim_env.random_choice(&others) else { return };
                let theirs = self.server(stranger).dir.journal.image();
                self.server(server).dir.journal = MemoryFiles::from_image(&theirs);
            }
            _ => {
                // The small files of the directory itself.
                let top = self.server(server).dir.top.clone();
                let small = top.image();
                let names: Vec<&String> = small.keys().collect();
                let Some(name) = self.sim_env.random_choice(&names) else { return };
                let left = self.sim_env.random.within(0..=(small[name].len() as u64).saturating_sub(1)) as usize;
                top.put(name, &small[name][..left]);
            }
        }
        self.record_corruption(server, CoveragePoint::FilesUpset);
    }

    /// Makes one of the files unreadable once, when the server reads it at its start.
    pub(super) fn plan_read_error(&mut self, server: ServerId) {
        self.kill(server, CrashKind::Process);
        let reads = self.sim_env.random.within(0..=3);
        let dir = &self.server(server).dir;
        let in_journal = reads > 0;
        if in_journal { &dir.journal } else { &dir.top }.fail_read(Some(reads));
    }

    /// Loses the whole disk, or the journal.
    pub(super) fn lose_files(&mut self, server: ServerId) {
        if !self.may_corrupt(server) {
            return;
        }
        self.kill(server, CrashKind::Process);
        self.lost.insert(server);
        let storage = self.sim_env.random.next();
        let whole = self.sim_env.chance(400);
        let me = self.server(server);
        if whole {
            // A new disk under the old server number. Peers that recorded the old one must refuse it, and the other
            // peers alone must not admit it.
            me.dir = Default::default();
            (me.storage, me.has_new_disk) = (storage, true);
            self.sim_env.oracle.disk_replaced(server);
            self.sim_env.network.forget(server);
            return;
        }
        let has_journal = me.dir.journal.list().is_ok_and(|names| names.iter().any(|name| name.ends_with("journal")));
        if has_journal {
            me.dir.journal = Default::default();
        }
    }
}

/// The sectors of journal files that are not all zeros.
fn written_sectors(image: &DirImage) -> Vec<(String, usize)> {
    let segments = image.iter().filter(|(name, _)| name.ends_with(".journal"));
    let sectors = segments.flat_map(|(name, bytes)| {
        let written = |(_, sector): &(usize, &[u8])| sector.iter().any(|byte| *byte != 0);
        bytes.chunks_exact(SECTOR_BYTES).enumerate().filter(written).map(move |(at, _)| (name.clone(), at))
    });
    sectors.collect()
}

fn range(place: SectorAddress<'_>) -> std::ops::Range<usize> {
    place.sector * SECTOR_BYTES..(place.sector + 1) * SECTOR_BYTES
}

fn sector<'a>(image: &'a DirImage, place: SectorAddress<'_>) -> &'a [u8] {
    &image[place.file][range(place)]
}

fn put_sector(image: &mut DirImage, place: SectorAddress<'_>, bytes: &[u8]) {
    if let Some(file) = image.get_mut(place.file) {
        file[range(place)].copy_from_slice(bytes);
    }
}

/// Whether a sector belongs to the group that was written last. Each sector holds the number of its group at byte 16.
fn is_of_last_group(image: &DirImage, places: &[(String, usize)], place: SectorAddress<'_>) -> bool {
    let group = |place| sector(image, place)[16..24].to_vec();
    places.last().is_some_and(|(file, sector)| {
        let last = SectorAddress { file, sector: *sector };
        group(last) == group(place)
    })
}
