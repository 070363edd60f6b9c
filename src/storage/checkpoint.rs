//! The checkpoint: the state of the store on disk, so that the log can be truncated.
//!
//! It is a [redb](https://www.redb.org) database in one file on this project's own [`disk`](super::disk). One
//! transaction writes the changed keys, the changed sessions, and the slot and digest of both. So the state on disk is
//! always that of one slot: an applied command is neither counted twice nor left out. (etcd's post-mortem of its
//! version 3.5 describes what happens when the index is written apart from the data.)
//!
//! ```text
//! keys      key -> its entry, as the codec writes it
//! sessions  name -> the whole session
//! meta      "format", "owner", "slot", "digest", "history" -> a number each
//! ```
//!
//! Nothing is used before all of it is checked. Opening the file checks its own checksums, and the digest of the state
//! read must equal the digest written. Before that, the operating system's cache of the file is dropped: after a failed
//! sync, the cache differs from the disk. A corrupt file is quarantined, and the state comes from another server.
//!
//! A learner that is far behind receives the state in chunks of about a megabyte. They are read from the database as of
//! one slot while newer checkpoints are written. The last [`SNAPSHOT_VIEWS_MAX`] such views stay open for peers that
//! request more chunks. A view that a pinned peer reads from also stays open, until the learner reports that the pin
//! has ended ([`Checkpoint::pin`]).

use std::fmt::Debug;
use std::io;

use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, StorageBackend, StorageError, TableDefinition,
};
use thiserror::Error;

use super::disk::{Files, StableFile, is_full, read_if_present, remove_if_present, replace};
use super::identity::short_disk;
use super::rules;
use crate::codec;
use crate::kv::{Kv, StateDelta, StateEntry, encode_chunk};
use crate::paxos::{ChunkRequest, PartToken, Slot, SnapshotChunk, StateMachine};
use crate::role::{ServerId, ServerSet};

/// The file's name.
pub const CHECKPOINT_FILE: &str = "checkpoint.redb";
/// Name of a file that is not yet whole. It is renamed when it is, so a crash never leaves a file that looks corrupt.
const NEW_FILE: &str = "checkpoint.new";
/// Name of a quarantined file.
pub const QUARANTINE_FILE: &str = "checkpoint.quarantined";
/// Marks the state in this directory as divergent; holds the slot after which the divergence was found.
pub const FENCED_FILE: &str = "fenced";
/// Maximum size of a chunk, in bytes, unless a single entry is larger.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Maximum number of open views of past slots. Views of pinned peers are extra: one per peer.
pub const SNAPSHOT_VIEWS_MAX: usize = 2;
/// A view is closed after this number of checkpoints without a request for it; its space in the file is then used
/// again.
const KEPT_WRITES: u64 = 8;
/// Maximum space for the file's growth, in bytes, that [`Checkpoint::growth_bytes`] asks for.
const GROWTH_MAX_BYTES: u64 = 128 << 20;
/// Memory for pages of the file, in bytes. What is read often is in the store itself.
const CACHE_BYTES: usize = 16 << 20;

const KEYS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("keys");
const SESSIONS: TableDefinition<u64, &[u8]> = TableDefinition::new("sessions");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const FORMAT: u64 = 3;
/// Key of the history number in the meta table.
const HISTORY: &str = "history";

/// Why a checkpoint cannot be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A disk operation failed.
    #[error("cannot {action} {CHECKPOINT_FILE}: {cause}")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The reason.
        cause: String,
    },
    /// The disk is full. What was written before is still there.
    #[error("the disk has no space for the checkpoint ({cause})")]
    Full {
        /// The reason.
        cause: String,
    },
    /// The file is corrupt.
    #[error("{CHECKPOINT_FILE} is corrupt: {why}")]
    Corrupt {
        /// What is wrong with the file.
        why: String,
    },
    /// The file of another server.
    #[error(
        "{CHECKPOINT_FILE} belongs to disk {} and this is disk {}: it was copied",
        short_disk(*.found), short_disk(*.expected)
    )]
    Foreign {
        /// The storage id in the file.
        found: u64,
        /// The storage id of this data directory.
        expected: u64,
    },
    /// The state is readable, but was found to differ from the other servers' state.
    #[error(
        "the state in the directory checkpoint diverged: after slot {slot} it differs from the state of the other \
         servers. Move the directory checkpoint away and start the server again: it then fetches the state from them"
    )]
    Fenced {
        /// The first slot after which it is known to differ.
        slot: String,
    },
    /// A file of another format version.
    #[error(
        "{CHECKPOINT_FILE} has format {found}, and this program reads format {FORMAT}: use the program that wrote \
             it"
    )]
    Format {
        /// The format version of the file.
        found: u64,
    },
}

/// The slot and digest of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointMeta {
    /// The last slot applied to the state; 0 if the state is empty.
    pub slot: Slot,
    /// Digest of the state.
    pub digest: u64,
}

/// The checkpoint of one server.
#[derive(Debug)]
pub struct Checkpoint<F: Files> {
    files: F,
    owner: u64,
    part_bytes: usize,
    /// None after an error, until the file is opened again.
    database: Option<Database>,
    mark: CheckpointMeta,
    views: Vec<SnapshotView>,
    /// Peers whose views stay open.
    pinned: ServerSet,
    writes: u64,
}

/// The state as of one slot, for peers that fetch it.
struct SnapshotView {
    mark: CheckpointMeta,
    at: ReadTransaction,
    /// Number of checkpoints written before the last request for this view.
    used: u64,
    /// Peers whose last chunk came from this view.
    readers: ServerSet,
}

impl SnapshotView {
    /// Whether one of these peers reads from it.
    fn is_of(&self, peers: ServerSet) -> bool {
        !self.readers.and(peers).is_empty()
    }
}

impl Debug for SnapshotView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "view of {:?}", self.mark.slot)
    }
}

impl<F: Files> Checkpoint<F> {
    /// Opens the checkpoint in this directory, or creates an empty one, and reads it into `state`, which has applied
    /// nothing. `owner` is the storage id of the server. If the file is corrupt, this returns the reason and leaves the
    /// directory unchanged; see [`quarantine`].
    pub fn open(files: F, owner: u64, part_bytes: usize, state: Kv) -> Result<(Checkpoint<F>, Kv), CheckpointError> {
        if let Some(slot) = read_if_present(&files, FENCED_FILE).map_err(refused("read"))? {
            return Err(CheckpointError::Fenced { slot: String::from_utf8_lossy(&slot).trim().to_string() });
        }
        let mark = CheckpointMeta { slot: Slot(0), digest: state.digest() };
        let (views, pinned) = (Vec::new(), ServerSet::NONE);
        let mut checkpoint = Checkpoint { files, owner, part_bytes, database: None, mark, views, pinned, writes: 0 };
        checkpoint.open_database()?;
        let state = checkpoint.load(state)?;
        Ok((checkpoint, state))
    }

    /// The slot and digest of the last checkpoint.
    pub fn mark(&self) -> CheckpointMeta {
        self.mark
    }

    /// Disk space that the next checkpoint may need, in bytes. The library doubles the file when it has no pages left.
    /// (A file larger than the limit consists mostly of pages that are used again.)
    pub fn growth_bytes(&self) -> u64 {
        let length = self.files.open(CHECKPOINT_FILE).and_then(|file| file.length());
        length.unwrap_or_default().min(GROWTH_MAX_BYTES)
    }

    /// Marks the state as divergent after this slot: the checkpoint cannot be opened again.
    pub fn fence(&self, slot: Slot) -> Result<(), CheckpointError> {
        replace(&self.files, FENCED_FILE, format!("{slot}\n").as_bytes()).map_err(refused("fence"))
    }

    /// Reads the checkpoint into `state`, which has applied nothing.
    pub fn load(&mut self, mut state: Kv) -> Result<Kv, CheckpointError> {
        let empty = CheckpointMeta { slot: Slot(0), digest: state.digest() };
        let at = self.database()?.begin_read().map_err(broken("read"))?;
        let Some(mark) = read_mark(&at, self.owner)? else {
            self.mark = empty;
            return Ok(state);
        };
        let mut found = Vec::new();
        read_until(&at, PartToken::first(), |piece| {
            found.push(piece);
            if found.len() >= 1_024 {
                state.put_pieces(std::mem::take(&mut found));
            }
            true
        })?;
        state.put_pieces(found);
        if state.digest() != mark.digest {
            let why = format!("the digest of its entries is {:016x} instead of {:016x}", state.digest(), mark.digest);
            return Err(CheckpointError::Corrupt { why });
        }
        self.mark = mark;
        Ok(state)
    }

    /// Writes the changes up to a slot in one transaction, durable when this returns.
    pub fn write(&mut self, mark: CheckpointMeta, changes: &StateDelta) -> Result<(), CheckpointError> {
        let written = self.write_all(mark, changes);
        if written.is_err() {
            // After an error the library refuses further work; the disk holds either the state before or this one.
            (self.views, self.database) = (Vec::new(), None);
        }
        written
    }

    fn write_all(&mut self, mark: CheckpointMeta, changes: &StateDelta) -> Result<(), CheckpointError> {
        let owner = self.owner;
        let mut writing = self.database()?.begin_write().map_err(broken("write"))?;
        // The new root is written only after all pages that it points to are synced.
        writing.set_two_phase_commit(true);
        if changes.is_whole {
            writing.delete_table(KEYS).map_err(broken("write"))?;
            writing.delete_table(SESSIONS).map_err(broken("write"))?;
        }
        {
            let mut keys = writing.open_table(KEYS).map_err(broken("write"))?;
            let mut sessions = writing.open_table(SESSIONS).map_err(broken("write"))?;
            let mut history = None;
            for piece in changes.pieces.iter().filter(|piece| rules::is_of_the_state(piece)) {
                match piece {
                    StateEntry::Key { key, entry } => {
                        keys.insert(key.as_slice(), codec::encode(entry).as_slice()).map_err(broken("write"))?;
                    }
                    StateEntry::Session { id, session } => {
                        sessions.insert(id, codec::encode(session).as_slice()).map_err(broken("write"))?;
                    }
                    StateEntry::History(found) => history = Some(*found),
                }
            }
            for id in &changes.ended {
                sessions.remove(id).map_err(broken("write"))?;
            }
            let mut meta = writing.open_table(META).map_err(broken("write"))?;
            // A state that replaces another one has its own history, or none yet.
            if let Some(history) = history.or(changes.is_whole.then_some(0)) {
                meta.insert(HISTORY, history).map_err(broken("write"))?;
            }
            let slot = rules::slot_of(mark);
            for (name, number) in [("format", FORMAT), ("owner", owner), ("slot", slot.0), ("digest", mark.digest)] {
                meta.insert(name, number).map_err(broken("write"))?;
            }
        }
        writing.commit().map_err(broken("write"))?;
        self.mark = mark;
        self.writes += 1;
        let (writes, pinned) = (self.writes, self.pinned);
        self.views.retain(|view| view.is_of(pinned) || writes - view.used <= KEPT_WRITES);
        Ok(())
    }

    /// Sets the pinned peers: the views that they read from stay open; other views close as usual.
    pub fn pin(&mut self, peers: ServerSet) {
        self.pinned = peers;
    }

    /// Like [`part`](Checkpoint::part), for a peer that will request more chunks.
    pub fn part_for(
        &mut self,
        reader: ServerId,
        name: Option<&ChunkRequest>,
    ) -> Result<Option<SnapshotChunk>, CheckpointError> {
        let part = self.part(name)?;
        if let Some(part) = &part {
            let reader = ServerSet::only(reader);
            for view in &mut self.views {
                view.readers = view.readers.without(reader);
                if view.mark.slot == part.slot {
                    view.readers = view.readers.or(reader);
                }
            }
        }
        Ok(part)
    }

    /// The requested chunk of the state. If no chunk is requested, or that state is no longer here, the first chunk of
    /// the last checkpoint. None if there is no state yet.
    pub fn part(&mut self, name: Option<&ChunkRequest>) -> Result<Option<SnapshotChunk>, CheckpointError> {
        let known = name.and_then(|name| self.views.iter().position(|view| view.mark.slot == name.slot));
        let (at, index, begin) = match (known, name) {
            // No checkpoint was ever written, so there is no table to read.
            _ if self.mark.slot == Slot(0) => return Ok(None),
            (Some(at), Some(name)) => (at, name.index, name.token.clone()),
            // The request names the last checkpoint, but its view was closed or this server has restarted.
            (None, Some(name)) if name.slot == self.mark.slot => (self.open_view()?, name.index, name.token.clone()),
            _ => {
                let last = self.mark.slot;
                let known = self.views.iter().position(|view| view.mark.slot == last);
                (known.map_or_else(|| self.open_view(), Ok)?, 0, PartToken::first())
            }
        };
        let view = &mut self.views[at];
        view.used = self.writes;
        let (mut pieces, mut next, mut room) = (Vec::new(), None, self.part_bytes);
        let is_full = |piece: &StateEntry, pieces: &Vec<StateEntry>, room: &mut usize| {
            let is_full = piece.size() > *room && !pieces.is_empty();
            *room = room.saturating_sub(piece.size());
            is_full
        };
        read_until(&view.at, begin, |piece| {
            if is_full(&piece, &pieces, &mut room) {
                next = Some(begins_with(&piece));
                return false;
            }
            pieces.push(piece);
            true
        })?;
        let CheckpointMeta { slot, digest } = view.mark;
        Ok(Some(SnapshotChunk { slot, digest, index, bytes: encode_chunk(&pieces).into(), next }))
    }

    /// Opens a view of the last checkpoint. If there are too many views, it replaces the one whose last request is
    /// oldest.
    fn open_view(&mut self) -> Result<usize, CheckpointError> {
        let pinned = self.pinned;
        let unpinned = || self.views.iter().enumerate().filter(|(_, view)| !view.is_of(pinned));
        if unpinned().count() >= SNAPSHOT_VIEWS_MAX
            && let Some((oldest, _)) = unpinned().min_by_key(|(_, view)| view.used)
        {
            self.views.remove(oldest);
        }
        let at = self.database()?.begin_read().map_err(broken("read"))?;
        self.views.push(SnapshotView { mark: self.mark, at, used: self.writes, readers: ServerSet::NONE });
        Ok(self.views.len() - 1)
    }

    fn database(&mut self) -> Result<&Database, CheckpointError> {
        if self.database.is_none() {
            self.open_database()?;
        }
        self.database.as_ref().ok_or(CheckpointError::Io { action: "open", cause: "it is closed".to_string() })
    }

    fn open_database(&mut self) -> Result<(), CheckpointError> {
        let file = match self.files.open(CHECKPOINT_FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_empty()?;
                self.files.open(CHECKPOINT_FILE)
            }
            opened => opened,
        };
        let file = file.map_err(refused("open"))?;
        // Pending writes reach the disk first; then every read comes from the disk.
        file.sync_data().map_err(refused("sync"))?;
        file.forget_cached().map_err(refused("read"))?;
        self.database = Some(open_file(file)?);
        Ok(())
    }

    /// Creates a file that holds no state yet.
    fn make_empty(&self) -> Result<(), CheckpointError> {
        remove_if_present(&self.files, NEW_FILE).map_err(refused("make"))?;
        let file = self.files.create_zeroed(NEW_FILE, 0).map_err(refused("make"))?;
        let made = open_file(file).map(drop);
        if made.is_err() {
            // Freeing the disk space matters more than why the removal fails.
            remove_if_present(&self.files, NEW_FILE).unwrap_or_default();
        }
        made?;
        let file = self.files.open(NEW_FILE).map_err(refused("make"))?;
        file.sync_data().map_err(refused("make"))?;
        self.files.rename(NEW_FILE, CHECKPOINT_FILE).map_err(refused("make"))?;
        self.files.sync_dir().map_err(refused("make"))
    }
}

/// Opens a database, or creates one in an empty file.
fn open_file<File: StableFile>(file: File) -> Result<Database, CheckpointError> {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder.create_with_backend(RedbFile(file)).map_err(unopened)
}

/// Quarantines a corrupt checkpoint: the file is renamed and kept for inspection. The next checkpoint starts empty.
pub fn quarantine<F: Files>(files: &F) -> Result<(), CheckpointError> {
    remove_if_present(files, QUARANTINE_FILE).map_err(refused("remove"))?;
    match files.rename(CHECKPOINT_FILE, QUARANTINE_FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        renamed => renamed.map_err(refused("rename"))?,
    }
    files.sync_dir().map_err(refused("rename"))
}

/// The token of the chunk that begins with this piece.
fn begins_with(piece: &StateEntry) -> PartToken {
    match piece {
        StateEntry::Key { key, .. } => PartToken::Key(key.clone()),
        StateEntry::Session { id, .. } => PartToken::Session(*id),
        // The history comes last.
        StateEntry::History(_) => PartToken::Session(u64::MAX),
    }
}

/// The slot and digest of the checkpoint; None if nothing was ever written.
fn read_mark(at: &ReadTransaction, owner: u64) -> Result<Option<CheckpointMeta>, CheckpointError> {
    let meta = match at.open_table(META) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        opened => opened.map_err(broken("read"))?,
    };
    let number = |name: &str| -> Result<u64, CheckpointError> {
        let found = meta.get(name).map_err(broken("read"))?;
        let missing = || CheckpointError::Corrupt { why: format!("its {name} is missing") };
        Ok(found.ok_or_else(missing)?.value())
    };
    let (format, found) = (number("format")?, number("owner")?);
    if format != FORMAT {
        return Err(CheckpointError::Format { found: format });
    }
    if found != owner {
        return Err(CheckpointError::Foreign { found, expected: owner });
    }
    Ok(Some(CheckpointMeta { slot: Slot(number("slot")?), digest: number("digest")? }))
}

/// Reads pieces from a token on (keys, then sessions, then the history) until `take` returns false.
fn read_until(
    at: &ReadTransaction,
    begin: PartToken,
    mut take: impl FnMut(StateEntry) -> bool,
) -> Result<(), CheckpointError> {
    // These bytes were written by this server to its own disk.
    let corrupt = |error: codec::CodecError| CheckpointError::Corrupt { why: error.to_string() };
    let mut first_session = 0;
    match begin {
        PartToken::Session(first) => first_session = first,
        PartToken::Key(first) => {
            let keys = at.open_table(KEYS).map_err(broken("read"))?;
            for entry in keys.range(first.as_slice()..).map_err(broken("read"))? {
                let (key, entry) = entry.map_err(broken("read"))?;
                let entry = codec::decode(entry.value()).map_err(corrupt)?;
                if !take(StateEntry::Key { key: key.value().to_vec(), entry }) {
                    return Ok(());
                }
            }
        }
    }
    let sessions = at.open_table(SESSIONS).map_err(broken("read"))?;
    for entry in sessions.range(first_session..).map_err(broken("read"))? {
        let (id, session) = entry.map_err(broken("read"))?;
        let session = codec::decode(session.value()).map_err(corrupt)?;
        if !take(StateEntry::Session { id: id.value(), session }) {
            return Ok(());
        }
    }
    let meta = at.open_table(META).map_err(broken("read"))?;
    let history = meta.get(HISTORY).map_err(broken("read"))?.map_or(0, |history| history.value());
    if history != 0 {
        take(StateEntry::History(history));
    }
    Ok(())
}

fn refused(action: &'static str) -> impl FnOnce(io::Error) -> CheckpointError {
    move |error| match is_full(&error) {
        true => CheckpointError::Full { cause: error.to_string() },
        false => CheckpointError::Io { action, cause: error.to_string() },
    }
}

/// Converts an error that the library returned during an operation.
fn broken<E: Into<redb::Error>>(action: &'static str) -> impl Fn(E) -> CheckpointError {
    move |error| match error.into() {
        redb::Error::Io(error) => refused(action)(error),
        redb::Error::Corrupted(why) => CheckpointError::Corrupt { why },
        redb::Error::TableDoesNotExist(name) => CheckpointError::Corrupt { why: format!("it has no table {name}") },
        other => CheckpointError::Io { action, cause: other.to_string() },
    }
}

/// Converts an error of opening the file: unless the disk failed, the file is corrupt.
fn unopened(error: DatabaseError) -> CheckpointError {
    match error {
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            CheckpointError::Corrupt { why: "it is too short".to_string() }
        }
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            CheckpointError::Corrupt { why: error.to_string() }
        }
        DatabaseError::Storage(StorageError::Io(error)) => refused("open")(error),
        other => CheckpointError::Corrupt { why: other.to_string() },
    }
}

/// The library's file, on this project's own disk.
#[derive(Debug)]
struct RedbFile<File>(File);

impl<File: StableFile> StorageBackend for RedbFile<File> {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_length(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write_at(offset, data)
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
