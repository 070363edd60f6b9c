//! A directory in memory whose power can be cut.
//!
//! It keeps two versions of every file: the one that programs see, and the one that would survive. A sync copies the
//! first to the second. [`MemoryFiles::power_cut`] lets a seed decide, sector by sector and name by name, which
//! differences reached the disk in time. Every changing operation is numbered, and [`MemoryFiles::fail`] makes a chosen
//! one fail. So a test can crash a program at each of its steps, one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg32;

use super::{Files, SECTOR_BYTES, StableFile};

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedFailure {
    /// The machine stops in the middle of the operation. This operation and all later ones fail, until
    /// [`MemoryFiles::power_cut`] or [`MemoryFiles::restart`].
    Stop,
    /// The operation fails once with this error. A failed write may have written some of its sectors. A failed sync
    /// drops what it should have made durable, while programs still see it.
    Once(io::ErrorKind),
}

/// Number of operations of each kind, failed ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationCounts {
    /// Files created.
    pub creates: u64,
    /// Writes at an offset.
    pub writes: u64,
    /// Syncs of a file's data; the one within the creation of a file does not count.
    pub syncs: u64,
    /// Changes of a file's length.
    pub lengths: u64,
    /// Renames.
    pub renames: u64,
    /// Removals.
    pub removes: u64,
    /// Syncs of the directory.
    pub dir_syncs: u64,
}

impl OperationCounts {
    /// The sum of all.
    pub fn total(&self) -> u64 {
        self.creates + self.writes + self.syncs + self.lengths + self.renames + self.removes + self.dir_syncs
    }
}

/// A directory in memory. A handle: clones are the same directory.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles(Arc<Mutex<MemoryState>>);

/// An open file in memory. It stops working when the machine restarts.
#[derive(Debug)]
pub struct MemoryFile {
    state: Arc<Mutex<MemoryState>>,
    inode: u64,
    incarnation: u64,
}

#[derive(Clone, Debug, Default)]
struct MemoryState {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// The names that programs see.
    names: BTreeMap<String, u64>,
    /// Number of open handles of each file that has any.
    open: BTreeMap<u64, usize>,
    /// The names that would survive.
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since the directory was synced, in order.
    changes: Vec<FileChange>,
    counts: OperationCounts,
    /// The operation, numbered from 0, that will fail.
    failure: Option<(u64, InjectedFailure)>,
    stopped: bool,
    /// Limit on the sum of the files' lengths, in bytes.
    capacity: Option<u64>,
    /// The other directories on the same disk, and the limit on the sum of all, in bytes.
    neighbours: Vec<Weak<Mutex<MemoryState>>>,
    disk_capacity: Option<u64>,
    /// Number of reads that succeed before one fails.
    failing_read: Option<u64>,
    has_failed_to_read: bool,
    /// Whether anything has failed since the program started. A full disk is no failure.
    has_failed: bool,
    /// Number of restarts of the machine.
    incarnation: u64,
}

#[derive(Clone, Debug)]
struct Inode {
    /// The bytes that programs see.
    bytes: Vec<u8>,
    /// The bytes that would survive; shorter if the length is not durable yet.
    durable: Vec<u8>,
    /// The sectors in which the two may differ and that can still reach the disk.
    dirty: BTreeSet<usize>,
    /// Changes of the length that may not have reached the disk, in order: each happens whole or not at all.
    lengths: Vec<usize>,
    /// Its creation failed in the middle: its length may be anything up to that of `bytes`.
    is_in_making: bool,
}

#[derive(Clone, Debug)]
enum FileChange {
    Made { name: String, inode: u64 },
    Renamed { from: String, to: String, inode: u64 },
    Removed { name: String },
}

/// The result of an operation.
enum OperationFate {
    Works,
    Fails(InjectedFailure),
}

impl MemoryFiles {
    /// An empty directory.
    pub fn new() -> MemoryFiles {
        MemoryFiles::default()
    }

    /// A directory of these files, all durable.
    pub fn from_image(image: &BTreeMap<String, Vec<u8>>) -> MemoryFiles {
        let files = MemoryFiles::new();
        for (name, bytes) in image {
            files.put(name, bytes);
        }
        files
    }

    /// The files as programs see them.
    pub fn image(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        state.names.iter().map(|(name, inode)| (name.clone(), state.inodes[inode].bytes.clone())).collect()
    }

    /// Creates or replaces a file, durably and without counting an operation: used by tests to corrupt a disk.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let inode = state.add_inode(Inode::durable(bytes.to_vec()));
        state.names.insert(name.to_string(), inode);
        state.durable_names.insert(name.to_string(), inode);
    }

    /// Flips a bit of a file, in what programs see and in what would survive.
    pub fn flip_bit(&self, name: &str, bit: usize) {
        let mut state = self.state();
        let Some(inode) = state.names.get(name).copied() else { return };
        let Some(Inode { bytes, durable, .. }) = state.inodes.get_mut(&inode) else { return };
        for image in [bytes, durable] {
            if let Some(byte) = image.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// An independent copy of the directory, unsynced changes included, running and without planned failures.
    pub fn fork(&self) -> MemoryFiles {
        let mut state = self.state().clone();
        (state.failure, state.failing_read) = (None, None);
        state.stopped = false;
        state.open.clear();
        (state.neighbours, state.disk_capacity) = (Vec::new(), None);
        MemoryFiles(Arc::new(Mutex::new(state)))
    }

    /// Number of operations so far.
    pub fn counts(&self) -> OperationCounts {
        self.state().counts
    }

    /// Makes an operation fail: 0 is the next one, 1 the one after it. At most one failure is planned at a time.
    pub fn fail(&self, operation: u64, failure: InjectedFailure) {
        let mut state = self.state();
        state.failure = Some((state.counts.total() + operation, failure));
    }

    /// Makes one read fail, after this number of reads that succeed; None cancels it.
    pub fn fail_read(&self, after: Option<u64>) {
        self.state().failing_read = after;
    }

    /// Whether a read has failed since the last call.
    pub fn has_failed_to_read(&self) -> bool {
        std::mem::take(&mut self.state().has_failed_to_read)
    }

    /// Whether anything has failed since the program started. A full disk is no failure: programs must handle it.
    pub fn has_failed(&self) -> bool {
        self.state().has_failed
    }

    /// Whether a planned [`InjectedFailure::Stop`] has happened: then the program that uses the directory has crashed,
    /// though its code may still run.
    pub fn has_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Limits the sum of the files' lengths, in bytes; None removes the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Puts these directories on one disk of this capacity, in bytes; None removes the limit. Only one thread may use
    /// them.
    pub fn share_disk(dirs: &[&MemoryFiles], bytes: Option<u64>) {
        for dir in dirs {
            let others = dirs.iter().filter(|other| !Arc::ptr_eq(&other.0, &dir.0));
            let neighbours = others.map(|other| Arc::downgrade(&other.0)).collect();
            let mut state = dir.state();
            (state.neighbours, state.disk_capacity) = (neighbours, bytes);
        }
    }

    /// The sum of the lengths of the files that have a name or are open, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.state().used()
    }

    /// Restarts the program on a machine that kept running: nothing unsynced is lost, and nothing becomes durable
    /// either. Files that are open stop working.
    pub fn restart(&self) {
        let mut state = self.state();
        state.stopped = false;
        (state.failure, state.has_failed) = (None, false);
        state.open.clear();
        state.incarnation += 1;
    }

    /// Cuts the power and restores it. For each unsynced sector and each unsynced change of a name, the seed decides
    /// whether it is kept. Files that are open stop working.
    pub fn power_cut(&self, seed: u64) {
        let mut random = Pcg32::seed_from_u64(seed);
        let mut coin = || random.next_u32() & 1 == 0;
        self.power_cut_by(&mut coin);
    }

    /// Like [`power_cut`](MemoryFiles::power_cut), with each choice made by `keep`: first the names in the order of
    /// their changes, then the sectors by file and place.
    pub fn power_cut_by(&self, keep: &mut dyn FnMut() -> bool) {
        self.restart();
        let mut state = self.state();
        let state = &mut *state;
        for change in std::mem::take(&mut state.changes) {
            if keep() {
                change.happen(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        for inode in state.inodes.values_mut() {
            inode.lose(keep);
        }
        let named: BTreeSet<u64> = state.names.values().copied().collect();
        state.inodes.retain(|number, _| named.contains(number));
    }

    fn state(&self) -> MutexGuard<'_, MemoryState> {
        lock(&self.0)
    }

    fn handle(&self, state: &mut MemoryState, inode: u64) -> MemoryFile {
        *state.open.entry(inode).or_default() += 1;
        MemoryFile { state: self.0.clone(), inode, incarnation: state.incarnation }
    }
}

/// The state stays consistent if a test panics while it holds the lock.
fn lock(state: &Mutex<MemoryState>) -> MutexGuard<'_, MemoryState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_such_file(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}

fn stopped() -> io::Error {
    io::Error::other("the machine is stopped")
}

impl FileChange {
    fn happen(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            FileChange::Made { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            FileChange::Renamed { from, to, inode } => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            FileChange::Removed { name } => {
                names.remove(name);
            }
        }
    }
}

impl Inode {
    /// A file whose bytes are all on the disk.
    fn durable(bytes: Vec<u8>) -> Inode {
        let durable = bytes.clone();
        Inode { bytes, durable, dirty: BTreeSet::new(), lengths: Vec::new(), is_in_making: false }
    }

    /// Reduces the file to what survives a power cut now.
    fn lose(&mut self, keep: &mut dyn FnMut() -> bool) {
        // Changes of the length reach the disk in order: each happens only if all earlier ones did.
        for length in std::mem::take(&mut self.lengths) {
            if !keep() {
                break;
            }
            self.durable.resize(length, 0);
        }
        // A file whose creation was interrupted may have any length.
        while self.is_in_making && self.durable.len() < self.bytes.len() && keep() {
            let grown = (self.durable.len() + SECTOR_BYTES).min(self.bytes.len());
            self.durable.resize(grown, 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            if keep() {
                self.harden(sector);
            }
        }
        self.bytes = self.durable.clone();
    }

    fn harden(&mut self, sector: usize) {
        let start = sector * SECTOR_BYTES;
        let end = (start + SECTOR_BYTES).min(self.durable.len());
        if start < end {
            // The disk's version may still be longer than the file: bytes after the file's end are written as zeros.
            let used = end.min(self.bytes.len()).max(start);
            self.durable[start..used].copy_from_slice(&self.bytes[start..used]);
            self.durable[used..end].fill(0);
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.dirty.extend(offset / SECTOR_BYTES..(offset + bytes.len()).div_ceil(SECTOR_BYTES));
    }

    fn set_length(&mut self, bytes: usize) {
        self.lengths.push(bytes);
        let before = self.bytes.len();
        self.bytes.resize(bytes, 0);
        self.dirty.retain(|sector| sector * SECTOR_BYTES < bytes);
        if bytes > before {
            // Bytes after an earlier end are gone, but may still be on the disk.
            self.dirty.extend(before / SECTOR_BYTES..bytes.min(self.durable.len()).div_ceil(SECTOR_BYTES));
        }
    }

    /// Reads the sectors again that have no pending write.
    fn forget(&mut self) {
        for sector in 0..self.bytes.len().min(self.durable.len()).div_ceil(SECTOR_BYTES) {
            let start = sector * SECTOR_BYTES;
            let end = (start + SECTOR_BYTES).min(self.bytes.len()).min(self.durable.len());
            if !self.dirty.contains(&sector) {
                self.bytes[start..end].copy_from_slice(&self.durable[start..end]);
            }
        }
    }

    fn sync(&mut self) {
        self.lengths.clear();
        self.is_in_making = false;
        self.durable.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            self.harden(sector);
        }
    }
}

impl MemoryState {
    fn add_inode(&mut self, inode: Inode) -> u64 {
        self.next_inode += 1;
        self.inodes.insert(self.next_inode, inode);
        self.next_inode
    }

    /// Counts an operation and decides whether it is the one that fails.
    fn operation(&mut self, kind: impl FnOnce(&mut OperationCounts) -> &mut u64) -> io::Result<OperationFate> {
        if self.stopped {
            return Err(stopped());
        }
        let number = self.counts.total();
        *kind(&mut self.counts) += 1;
        match self.failure {
            Some((failing, failure)) if failing == number => {
                (self.failure, self.has_failed) = (None, true);
                self.stopped = failure == InjectedFailure::Stop;
                Ok(OperationFate::Fails(failure))
            }
            _ => Ok(OperationFate::Works),
        }
    }

    fn running(&self) -> io::Result<()> {
        if self.stopped { Err(stopped()) } else { Ok(()) }
    }

    fn inode_of(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| no_such_file(name))
    }

    /// Number of bytes that can still be added to files.
    fn free(&self) -> u64 {
        let used = self.used();
        let own = self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(used));
        let of_the_disk = self.disk_capacity.map_or(u64::MAX, |capacity| {
            let others = self.neighbours.iter().filter_map(Weak::upgrade).map(|other| lock(&other).used());
            capacity.saturating_sub(used + others.sum::<u64>())
        });
        own.min(of_the_disk)
    }

    /// A removed file uses its bytes until it is closed.
    fn used(&self) -> u64 {
        let inodes: BTreeSet<&u64> = self.names.values().chain(self.open.keys()).collect();
        inodes.into_iter().map(|inode| self.inodes[inode].bytes.len() as u64).sum()
    }

    fn create(&mut self, name: &str, length: u64) -> io::Result<u64> {
        let fate = self.operation(|counts| &mut counts.creates)?;
        if self.names.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("file {name} exists")));
        }
        let free = self.free();
        let made = length.min(free) as usize;
        let works = matches!(fate, OperationFate::Works) && made as u64 == length;
        // A failed creation leaves the name and an unsynced length.
        let durable = if works { vec![0; made] } else { Vec::new() };
        let inode = self.add_inode(Inode { durable, is_in_making: !works, ..Inode::durable(vec![0; made]) });
        self.names.insert(name.to_string(), inode);
        self.changes.push(FileChange::Made { name: name.to_string(), inode });
        match fate {
            OperationFate::Works if works => Ok(inode),
            OperationFate::Works => Err(io::ErrorKind::StorageFull.into()),
            OperationFate::Fails(failure) => Err(failure.error()),
        }
    }

    /// Changes a name. A change that fails with an error has not happened; one at which the machine stops may have.
    fn change(&mut self, change: FileChange, fate: &OperationFate) -> io::Result<()> {
        if !matches!(fate, OperationFate::Fails(InjectedFailure::Once(_))) {
            change.happen(&mut self.names);
            self.changes.push(change);
        }
        fate.result()
    }
}

impl OperationFate {
    fn result(&self) -> io::Result<()> {
        match self {
            OperationFate::Works => Ok(()),
            OperationFate::Fails(failure) => Err(failure.error()),
        }
    }
}

impl InjectedFailure {
    fn error(self) -> io::Error {
        match self {
            InjectedFailure::Stop => stopped(),
            InjectedFailure::Once(kind) => kind.into(),
        }
    }
}

impl Files for MemoryFiles {
    type File = MemoryFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.running()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        state.running()?;
        state.failing_read = match state.failing_read {
            Some(0) => {
                (state.failing_read, state.has_failed_to_read, state.has_failed) = (None, true, true);
                return Err(io::Error::other("the disk cannot read these bytes"));
            }
            after => after.map(|reads| reads - 1),
        };
        Ok(state.inodes[&state.inode_of(name)?].bytes.clone())
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let mut state = self.state();
        state.running()?;
        let inode = state.inode_of(name)?;
        Ok(self.handle(&mut state, inode))
    }

    fn create_zeroed(&self, name: &str, bytes: u64) -> io::Result<MemoryFile> {
        let mut state = self.state();
        let inode = state.create(name, bytes)?;
        Ok(self.handle(&mut state, inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let fate = state.operation(|counts| &mut counts.renames)?;
        let inode = state.inode_of(from)?;
        state.change(FileChange::Renamed { from: from.to_string(), to: to.to_string(), inode }, &fate)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let fate = state.operation(|counts| &mut counts.removes)?;
        state.inode_of(name)?;
        state.change(FileChange::Removed { name: name.to_string() }, &fate)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        let fate = state.operation(|counts| &mut counts.dir_syncs)?;
        if matches!(fate, OperationFate::Works) {
            state.durable_names = state.names.clone();
            state.changes.clear();
        }
        fate.result()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.state().free())
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if state.incarnation != self.incarnation {
            return;
        }
        if let Some(handles) = state.open.get_mut(&self.inode) {
            *handles -= 1;
            if *handles == 0 {
                state.open.remove(&self.inode);
            }
        }
    }
}

impl MemoryFile {
    fn running(&self) -> io::Result<MutexGuard<'_, MemoryState>> {
        let state = lock(&self.state);
        if state.incarnation != self.incarnation {
            return Err(io::Error::other("the file was opened before the machine restarted"));
        }
        Ok(state)
    }
}

impl MemoryFile {
    fn look<T>(&self, look: impl FnOnce(&Inode) -> io::Result<T>) -> io::Result<T> {
        let state = self.running()?;
        state.running()?;
        look(state.inodes.get(&self.inode).ok_or(io::ErrorKind::NotFound)?)
    }
}

impl StableFile for MemoryFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.running()?;
        let fate = state.operation(|counts| &mut counts.writes)?;
        let Some(inode) = state.inodes.get_mut(&self.inode) else { return Err(io::ErrorKind::NotFound.into()) };
        let offset = offset as usize;
        assert!(offset + bytes.len() <= inode.bytes.len(), "a write after the end of a file of fixed length");
        match fate {
            // An error in the middle: the first half is written, in whole sectors.
            OperationFate::Fails(InjectedFailure::Once(_)) => {
                inode.write(offset, &bytes[..bytes.len() / 2 / SECTOR_BYTES * SECTOR_BYTES]);
            }
            OperationFate::Works | OperationFate::Fails(InjectedFailure::Stop) => inode.write(offset, bytes),
        }
        fate.result()
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.running()?;
        let fate = state.operation(|counts| &mut counts.syncs)?;
        let Some(inode) = state.inodes.get_mut(&self.inode) else { return Err(io::ErrorKind::NotFound.into()) };
        match fate {
            OperationFate::Works => inode.sync(),
            // Programs see the bytes until the machine stops, but they never reach the disk.
            OperationFate::Fails(InjectedFailure::Once(_)) => inode.dirty.clear(),
            OperationFate::Fails(InjectedFailure::Stop) => {}
        }
        fate.result()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.look(|inode| {
            let from = inode.bytes.get(offset as usize..offset as usize + bytes.len());
            bytes.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn length(&self) -> io::Result<u64> {
        self.look(|inode| Ok(inode.bytes.len() as u64))
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.running()?;
        let fate = state.operation(|counts| &mut counts.lengths)?;
        let free = state.free();
        let Some(inode) = state.inodes.get_mut(&self.inode) else { return Err(io::ErrorKind::NotFound.into()) };
        fate.result()?;
        if (bytes as usize).saturating_sub(inode.bytes.len()) as u64 > free {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inode.set_length(bytes as usize);
        Ok(())
    }

    fn forget_cached(&self) -> io::Result<()> {
        let mut state = self.running()?;
        state.running()?;
        if let Some(inode) = state.inodes.get_mut(&self.inode) {
            inode.forget();
        }
        Ok(())
    }
}
