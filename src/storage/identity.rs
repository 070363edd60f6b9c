//! The identity file of a data directory: which server of which cluster it belongs to, and what that server must never
//! lose about itself.
//!
//! The file is TOML, readable by people. Its first line is a checksum of the rest, and it is replaced as a whole in one
//! step.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::admission::{Claim, ClaimVerdict, NotAdmitted, RecordedPeer, judge};
use super::disk::{Files, is_full, read_if_present, replace, replace_with, reserve};
use crate::cluster::Cluster;
use crate::paxos::Quorums;
use crate::role::{ServerId, ServerSet};

/// The file's name.
pub const IDENTITY_FILE: &str = "identity.toml";

/// Number of role incarnations reserved at a time.
const ROLE_INCARNATIONS_RESERVED: u32 = 64;

/// The last incarnation number that is used, of a server or of a role. A file with a higher number is corrupt.
const INCARNATIONS_MAX: u32 = u32::MAX - (1 << 20);

/// The version of the data directory's layout.
const FORMAT: u32 = 4;

/// A spare file, renamed to become the next identity file, so that an incarnation can start on a full disk.
const RESERVE_FILE: &str = "identity.reserve";
/// Size of the spare file, in bytes: an identity file that names a whole cluster is shorter.
const RESERVE_BYTES: u64 = 16 << 10;

/// Why the identity cannot be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A disk operation failed.
    #[error("cannot {action} {IDENTITY_FILE}: {source}. Check the permissions of the directory and the disk space")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The file is corrupt.
    #[error(
        "{IDENTITY_FILE} is corrupt or was edited ({why}), so the owner of the directory is unknown. Put the original \
         file back"
    )]
    Corrupt {
        /// What is wrong with the file.
        why: String,
    },
    /// The directory was written by an earlier version.
    #[error(
        "an earlier version of this program wrote it (format {found}; this version writes format {FORMAT}). Start that \
         version and make a backup with it (paxos-client backup); then restore the backup with this version \
         (paxos-server restore), or choose an empty directory"
    )]
    Earlier {
        /// The format version of the directory.
        found: u32,
    },
    /// The directory was written by a later version.
    #[error(
        "a later version of this program wrote it (format {found}; this version reads format {FORMAT}). Start that \
         version"
    )]
    Later {
        /// The format version of the directory.
        found: u32,
    },
    /// The directory was made by a restore that did not finish.
    #[error("it belongs to a restore that did not finish. Run the restore again; it continues where it stopped")]
    Unfinished,
    /// The directory of another cluster.
    #[error("it belongs to cluster \"{found}\" and this is cluster \"{expected}\". Give this server its own directory")]
    OtherCluster {
        /// The cluster in the file.
        found: String,
        /// This cluster.
        expected: String,
    },
    /// The directory of another server.
    #[error("it belongs to server {found} and this is server {expected}. Give each server its own directory")]
    OtherServer {
        /// The server in the file.
        found: ServerId,
        /// This server.
        expected: ServerId,
    },
    /// The cluster of the directory has other servers.
    #[error(
        "it belongs to cluster \"{cluster}\" with servers {}, and the cluster file lists {}. Editing the file may \
         change the addresses of a cluster, but not its servers. Use the file with servers {}, or an empty directory \
         for a new cluster",
        .found.numbers(), .expected.numbers(), .found.numbers()
    )]
    OtherMembers {
        /// The cluster.
        cluster: String,
        /// The servers in the directory.
        found: ServerSet,
        /// The servers in the cluster file.
        expected: ServerSet,
    },
    /// The directory was written for quorums of other sizes.
    #[error("the quorum sizes (prepare, accept) of its cluster are {found:?}, and this program uses {expected:?}")]
    OtherQuorums {
        /// The sizes in the directory.
        found: (usize, usize),
        /// The sizes of this program.
        expected: (usize, usize),
    },
    /// No incarnation numbers are left.
    #[error(
        "it counts {incarnations} incarnations of its server and {role_incarnations} of its roles, and no more numbers are left. An \
         incarnation without its own number could be taken for an earlier one. Make a backup of the cluster, and \
         restore it into new directories"
    )]
    UsedUp {
        /// Incarnations of the server started.
        incarnations: u32,
        /// Incarnation numbers reserved for roles.
        role_incarnations: u32,
    },
    /// A caller is not the recorded peer.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// An earlier write failed: the file is not used again in this process.
    #[error("an earlier write to {IDENTITY_FILE} failed: this process must stop")]
    AlreadyFailed,
}

impl IdentityError {
    /// Whether the only problem is that the disk is full: the file is unchanged.
    pub fn is_full(&self) -> bool {
        matches!(self, IdentityError::Io { source, .. } if is_full(source))
    }
}

/// The contents of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    format: u32,
    cluster: String,
    server: u8,
    /// The storage id, in hexadecimal.
    storage: String,
    created: String,
    /// Number of incarnations started on this directory.
    #[serde(rename = "life")]
    incarnation: u32,
    /// Role incarnations up to this number are reserved. They are reserved a few at a time, so that a role can restart
    /// on a full disk.
    #[serde(rename = "role_life")]
    role_incarnation: u32,
    /// Whether there was a journal.
    journal: bool,
    /// Whether there was a file of reserved rounds.
    rounds: bool,
    /// Whether the server is active: enough peers have recorded the directory.
    #[serde(rename = "takes_part")]
    is_active: bool,
    /// The numbers of all servers of the cluster. They cannot change once the server is active.
    members: Vec<u8>,
    /// The sizes of a quorum of phase 1 and of phase 2.
    quorums: [usize; 2],
    /// The command that is making the directory, until it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unfinished: Option<String>,
    /// The records of the peers, by server number.
    peers: BTreeMap<String, PeerRecord>,
}

impl IdentityFile {
    /// Whether numbers are left for another incarnation of the server and of its roles.
    fn check_incarnations_left(&self) -> Result<(), IdentityError> {
        let IdentityFile { incarnation: incarnations, role_incarnation: role_incarnations, .. } = *self;
        let has_space =
            incarnations < INCARNATIONS_MAX && role_incarnations <= INCARNATIONS_MAX - ROLE_INCARNATIONS_RESERVED;
        if has_space { Ok(()) } else { Err(IdentityError::UsedUp { incarnations, role_incarnations }) }
    }
}

/// The record of a peer: [`RecordedPeer`], as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerRecord {
    /// The storage id, in hexadecimal.
    storage: String,
    bound: bool,
    /// Highest incarnation met, and its process's random number, in hexadecimal.
    #[serde(rename = "life")]
    incarnation: u32,
    boot: String,
}

impl PeerRecord {
    fn new(known: RecordedPeer) -> PeerRecord {
        let RecordedPeer { storage, bound, incarnation, boot } = known;
        PeerRecord { storage: format!("{storage:016x}"), bound, incarnation, boot: format!("{boot:016x}") }
    }

    fn known(&self) -> Result<RecordedPeer, IdentityError> {
        let PeerRecord { bound, incarnation, .. } = *self;
        Ok(RecordedPeer { storage: parse_number(&self.storage)?, bound, incarnation, boot: parse_number(&self.boot)? })
    }
}

/// Marks the directories that a restore makes, until they are whole.
const RESTORE: &str = "restore";

/// The owner of a directory, according to the cluster file.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The name of the cluster.
    pub cluster: &'a str,
    /// All its servers and the quorum sizes.
    pub quorums: Quorums,
    /// The server.
    pub server: ServerId,
}

impl Cluster {
    /// The owner of the data directory of one of its servers.
    pub fn owner(&self, server: ServerId) -> Owner<'_> {
        Owner { cluster: &self.name, quorums: self.quorums(), server }
    }
}

impl Owner<'_> {
    fn members(&self) -> Vec<u8> {
        self.quorums.servers().iter().map(|server| server.0).collect()
    }

    fn sizes(&self) -> [usize; 2] {
        self.quorums.sizes().into()
    }
}

/// The result for a caller that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// The caller is the peer, and its record is durable.
    Yes,
    /// The claim is not proved: the server must call the peer back.
    CallBack,
}

/// The identity of a data directory. Any thread may use it.
#[derive(Debug)]
pub struct DirIdentity<F: Files> {
    files: F,
    storage: u64,
    state: Mutex<IdentityState>,
}

#[derive(Debug)]
struct IdentityState {
    contents: IdentityFile,
    /// Role incarnations that this process has reserved and not used.
    role_incarnations: Range<u32>,
    has_failed: bool,
}

impl IdentityState {
    fn new(contents: IdentityFile) -> IdentityState {
        IdentityState { contents, role_incarnations: 0..0, has_failed: false }
    }
}

impl<F: Files> DirIdentity<F> {
    /// Reads the identity of the directory, or None if it has none yet. Until its server is active, the directory takes
    /// over the servers and quorum sizes of the cluster file. An earlier start may have used a wrong file, and the
    /// directory holds nothing yet.
    pub fn read(files: F, owner: Owner<'_>) -> Result<Option<DirIdentity<F>>, IdentityError> {
        let Some(identity) = DirIdentity::look(files, owner)? else { return Ok(None) };
        let (members, quorums) = (owner.members(), owner.sizes());
        let is_as_before = {
            let contents = &identity.state().contents;
            (&contents.members, contents.quorums) == (&members, quorums)
        };
        if !is_as_before {
            identity.change(|contents| (contents.members, contents.quorums) = (members, quorums))?;
        }
        Ok(Some(identity))
    }

    /// Like [`read`](DirIdentity::read), but changes nothing.
    pub fn look(files: F, owner: Owner<'_>) -> Result<Option<DirIdentity<F>>, IdentityError> {
        let Some(identity) = DirIdentity::read_any(files)? else { return Ok(None) };
        let IdentityFile { cluster, server, members, quorums, is_active, unfinished, .. } =
            identity.state().contents.clone();
        if cluster != owner.cluster {
            return Err(IdentityError::OtherCluster { found: cluster, expected: owner.cluster.to_string() });
        }
        if server != owner.server.0 {
            return Err(IdentityError::OtherServer { found: ServerId(server), expected: owner.server });
        }
        if unfinished.is_some() {
            return Err(IdentityError::Unfinished);
        }
        let (expected_members, expected_quorums) = (owner.members(), owner.sizes());
        if is_active && members != expected_members {
            let found = members.into_iter().map(ServerId).collect();
            return Err(IdentityError::OtherMembers { cluster, found, expected: owner.quorums.servers() });
        }
        if is_active && quorums != expected_quorums {
            return Err(IdentityError::OtherQuorums { found: quorums.into(), expected: owner.quorums.sizes() });
        }
        Ok(Some(identity))
    }

    /// Reads the identity of a directory of any owner.
    pub fn read_any(files: F) -> Result<Option<DirIdentity<F>>, IdentityError> {
        let bytes = read_if_present(&files, IDENTITY_FILE).map_err(failed("read"))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let contents = parse(&bytes)?;
        let storage = parse_number(&contents.storage)?;
        // The previous process may have crashed between renaming the file and syncing its name.
        files.sync_dir().map_err(failed("sync"))?;
        Ok(Some(DirIdentity { files, storage, state: Mutex::new(IdentityState::new(contents)) }))
    }

    /// Gives a directory an identity, in place of any earlier one. `created` is a time, for people.
    pub fn create(files: F, owner: Owner<'_>, storage: u64, created: String) -> Result<DirIdentity<F>, IdentityError> {
        DirIdentity::make(files, owner, storage, created, None)
    }

    /// Like [`create`](DirIdentity::create), but no server starts on the directory before
    /// [`finish`](DirIdentity::finish).
    pub fn create_unfinished(
        files: F,
        owner: Owner<'_>,
        storage: u64,
        created: String,
    ) -> Result<DirIdentity<F>, IdentityError> {
        DirIdentity::make(files, owner, storage, created, Some(RESTORE.to_string()))
    }

    fn make(
        files: F,
        owner: Owner<'_>,
        storage: u64,
        created: String,
        unfinished: Option<String>,
    ) -> Result<DirIdentity<F>, IdentityError> {
        let contents = IdentityFile {
            format: FORMAT,
            cluster: owner.cluster.to_string(),
            server: owner.server.0,
            storage: format!("{storage:016x}"),
            created,
            incarnation: 0,
            role_incarnation: 0,
            journal: false,
            rounds: false,
            is_active: false,
            members: owner.members(),
            quorums: owner.sizes(),
            unfinished,
            peers: BTreeMap::new(),
        };
        let identity = DirIdentity { files, storage, state: Mutex::new(IdentityState::new(contents)) };
        identity.change(|_| {})?;
        Ok(identity)
    }

    /// Marks the directory as whole: from now on a server may start on it.
    pub fn finish(&self) -> Result<(), IdentityError> {
        if self.state().contents.unfinished.is_some() {
            self.change(|contents| contents.unfinished = None)?;
        }
        Ok(())
    }

    /// The random number that distinguishes this directory from every other one of the same server number.
    pub fn storage_id(&self) -> u64 {
        self.storage
    }

    /// The number of the last incarnation started.
    pub fn incarnation(&self) -> u32 {
        self.state().contents.incarnation
    }

    /// Starts an incarnation: durably takes the next number, which no other incarnation on this directory has.
    pub fn begin_incarnation(&self) -> Result<u32, IdentityError> {
        let mut state = self.state();
        let first = state.contents.role_incarnation;
        state.contents.check_incarnations_left()?;
        let next = |contents: &mut IdentityFile| {
            contents.incarnation += 1;
            contents.role_incarnation += ROLE_INCARNATIONS_RESERVED;
        };
        let put = |bytes: &[u8]| replace_with(&self.files, IDENTITY_FILE, RESERVE_FILE, bytes);
        let contents = self.change_by(&mut state, next, put)?;
        state.role_incarnations = first..contents.role_incarnation;
        // The old file is gone, so there should be disk space for a new spare. If not, the next incarnation may have to
        // wait for space.
        let _ = reserve(&self.files, RESERVE_FILE, RESERVE_BYTES);
        Ok(contents.incarnation)
    }

    /// Starts an incarnation of a role: takes a number that no other role incarnation on this directory has.
    pub fn next_role_incarnation(&self) -> Result<u32, IdentityError> {
        let mut state = self.state();
        if state.role_incarnations.is_empty() {
            let first = state.contents.role_incarnation;
            state.contents.check_incarnations_left()?;
            let contents =
                self.change_locked(&mut state, |contents| contents.role_incarnation += ROLE_INCARNATIONS_RESERVED)?;
            state.role_incarnations = first..contents.role_incarnation;
        }
        state.role_incarnations.start += 1;
        Ok(state.role_incarnations.start)
    }

    /// Whether the directory has a journal.
    pub fn has_journal(&self) -> bool {
        self.state().contents.journal
    }

    /// Records whether the directory has a journal.
    pub fn set_has_journal(&self, journal: bool) -> Result<(), IdentityError> {
        if self.has_journal() != journal {
            self.change(|contents| contents.journal = journal)?;
        }
        Ok(())
    }

    /// Whether the directory has a file of reserved rounds.
    pub fn has_rounds(&self) -> bool {
        self.state().contents.rounds
    }

    /// Records that the directory has a file of reserved rounds.
    pub fn set_has_rounds(&self) -> Result<(), IdentityError> {
        if !self.has_rounds() {
            self.change(|contents| contents.rounds = true)?;
        }
        Ok(())
    }

    /// Whether the server is active: enough peers have recorded the directory.
    pub fn is_active(&self) -> bool {
        self.state().contents.is_active
    }

    /// Records that the server is active from now on.
    pub fn set_active(&self) -> Result<(), IdentityError> {
        if !self.is_active() {
            self.change(|contents| contents.is_active = true)?;
        }
        Ok(())
    }

    /// The record of a peer, if this server ever met it.
    pub fn recorded_peer(&self, server: ServerId) -> Option<RecordedPeer> {
        known(&self.state().contents, server)
    }

    /// Decides on the claim of a caller; a changed record is durable before this returns.
    pub fn admit(&self, claim: &Claim) -> Result<Admitted, IdentityError> {
        let mut state = self.state();
        let known = known(&state.contents, claim.server);
        let new = match judge(self.storage, known, claim) {
            ClaimVerdict::Welcome => return Ok(Admitted::Yes),
            ClaimVerdict::CallBack => return Ok(Admitted::CallBack),
            ClaimVerdict::Refuse(why) => return Err(why.into()),
            ClaimVerdict::Record(new) => new,
        };
        let written = self.change_locked(&mut state, |contents| {
            contents.peers.insert(claim.server.to_string(), PeerRecord::new(new));
        });
        match written {
            // The directory is the recorded one in another incarnation. If the disk is full now, the next handshake
            // writes the record.
            Err(error) if error.is_full() && known.is_some_and(|known| known.storage == new.storage) => {
                Ok(Admitted::Yes)
            }
            written => written.map(|_| Admitted::Yes),
        }
    }

    /// Records the directory of a peer whose server is active. Used by a restore, which makes both directories.
    pub fn bind_peer(&self, server: ServerId, storage: u64) -> Result<(), IdentityError> {
        let known = RecordedPeer { storage, bound: true, incarnation: 0, boot: 0 };
        self.change(|contents| {
            contents.peers.insert(server.to_string(), PeerRecord::new(known));
        })?;
        Ok(())
    }

    /// Removes the record of a peer, its incarnation included; false if there was none.
    pub fn forget_peer(&self, server: ServerId) -> Result<bool, IdentityError> {
        let was_known = self.recorded_peer(server).is_some();
        if was_known {
            self.change(|contents| {
                contents.peers.remove(&server.to_string());
            })?;
        }
        Ok(was_known)
    }

    /// The owner, for a message: the cluster, its servers, and the server.
    pub fn owner(&self) -> (String, ServerSet, ServerId) {
        let state = self.state();
        let IdentityFile { cluster, members, server, .. } = &state.contents;
        (cluster.clone(), members.iter().copied().map(ServerId).collect(), ServerId(*server))
    }

    fn state(&self) -> MutexGuard<'_, IdentityState> {
        // The value in memory changes in one step, and only after the file did: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut IdentityFile)) -> Result<IdentityFile, IdentityError> {
        self.change_locked(&mut self.state(), change)
    }

    fn change_locked(
        &self,
        state: &mut IdentityState,
        change: impl FnOnce(&mut IdentityFile),
    ) -> Result<IdentityFile, IdentityError> {
        self.change_by(state, change, |bytes| replace(&self.files, IDENTITY_FILE, bytes))
    }

    fn change_by(
        &self,
        state: &mut IdentityState,
        change: impl FnOnce(&mut IdentityFile),
        put: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> Result<IdentityFile, IdentityError> {
        if state.has_failed {
            return Err(IdentityError::AlreadyFailed);
        }
        let mut contents = state.contents.clone();
        change(&mut contents);
        let written = put(print(&contents).as_bytes());
        // Without disk space the write did not start: the file is unchanged.
        state.has_failed = written.as_ref().is_err_and(|error| !is_full(error));
        written.map_err(failed("write"))?;
        state.contents = contents.clone();
        Ok(contents)
    }
}

/// A summary of an identity for people, and its storage id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitySummary {
    /// One sentence.
    pub text: String,
    /// The random number that distinguishes the directory from every other.
    pub storage: u64,
}

/// Reads the bytes of an identity file of any owner.
pub fn describe(bytes: &[u8]) -> Result<IdentitySummary, IdentityError> {
    let contents = parse(bytes)?;
    let storage = parse_number(&contents.storage)?;
    let IdentityFile { cluster, server, created, incarnation, peers, is_active, members, unfinished, .. } = contents;
    let members = members.into_iter().map(ServerId).collect::<ServerSet>().numbers();
    let met = if peers.is_empty() { "none".to_string() } else { peers.into_keys().collect::<Vec<_>>().join(", ") };
    let new = if is_active { "" } else { ", NOT ADMITTED: too few peers have recorded its disk" };
    let unfinished = unfinished.map_or("", |_| ", UNFINISHED: run the restore that makes it again");
    let text = format!(
        "server {server} of cluster \"{cluster}\" with servers {members}, disk {}, created {created}, incarnation \
         {incarnation}, recorded disks: {met}{new}{unfinished}",
        short_disk(storage)
    );
    Ok(IdentitySummary { text, storage })
}

/// The short name of a data directory in log lines and on the terminal. The storage id itself proves a peer's identity,
/// so only peers receive it.
pub fn short_disk(storage: u64) -> String {
    format!("{:04x}", xxhash_rust::xxh3::xxh3_64(&storage.to_le_bytes()) >> 48)
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> IdentityError {
    move |source| IdentityError::Io { action, source }
}

fn known(contents: &IdentityFile, server: ServerId) -> Option<RecordedPeer> {
    contents.peers.get(&server.to_string()).and_then(|peer| peer.known().ok())
}

/// The first line of a file that continues with this text.
pub fn checksum_line(text: &str) -> String {
    format!(
        "checksum = \"{:08x}\" # of all that follows; a server writes this file, people only read it\n",
        crc32c::crc32c(text.as_bytes())
    )
}

fn print(contents: &IdentityFile) -> String {
    let text = match toml::to_string(contents) {
        Ok(text) => text,
        Err(error) => panic!("numbers, strings and a table of strings cannot be written as TOML: {error}"),
    };
    checksum_line(&text) + &text
}

fn parse(bytes: &[u8]) -> Result<IdentityFile, IdentityError> {
    let corrupt = |why: &str| IdentityError::Corrupt { why: why.to_string() };
    let text = std::str::from_utf8(bytes).map_err(|_| corrupt("it is not text"))?;
    let Some((_, rest)) = text.split_once('\n') else { return Err(corrupt("it has no first line")) };
    if checksum_line(rest) + rest != text {
        return Err(corrupt("its checksum is wrong"));
    }
    let format = rest.lines().find_map(|line| line.strip_prefix("format = ")?.parse().ok());
    match format {
        Some(FORMAT) => {}
        Some(found) if found < FORMAT => return Err(IdentityError::Earlier { found }),
        Some(found) => return Err(IdentityError::Later { found }),
        None => return Err(corrupt("its format is missing")),
    }
    let contents: IdentityFile = toml::from_str(rest).map_err(|error| corrupt(error.message()))?;
    check(&contents)?;
    Ok(contents)
}

/// Checks what the fields' types cannot express.
fn check(contents: &IdentityFile) -> Result<(), IdentityError> {
    let corrupt = |why: String| Err(IdentityError::Corrupt { why });
    if contents.incarnation.max(contents.role_incarnation) > INCARNATIONS_MAX {
        return corrupt(format!("it counts more than {INCARNATIONS_MAX} incarnations"));
    }
    if let Some(number) = contents.members.iter().find(|number| **number > ServerId::MAX) {
        return corrupt(format!("server number {number} is above the largest one"));
    }
    contents.peers.values().try_for_each(|peer| peer.known().map(|_| ()))
}

fn parse_number(text: &str) -> Result<u64, IdentityError> {
    u64::from_str_radix(text, 16).map_err(|_| IdentityError::Corrupt {
        why: format!(
            "'{text}' is not a hexadecimal \
                                                                                     number"
        ),
    })
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
