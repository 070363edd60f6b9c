//! The file that says whose a data folder is: which server of which cluster, and what it must never forget about
//! itself.
//!
//! It is TOML, for people to read; its first line is a checksum of the rest, and it is replaced as a whole in one step.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::admission::{Claim, ClaimVerdict, NotAdmitted, RecordedPeer, judge};
use super::disk::{Files, is_full, read_if_present, replace, replace_with, reserve};
use crate::paxos::Quorums;
use crate::role::{ServerId, ServerSet};

/// The file's name.
pub const IDENTITY_FILE: &str = "identity.toml";

/// So many numbers of the roles' lives are taken at a time.
const ROLE_LIVES: u32 = 64;

/// The last number of a life that is taken, of a server or of a role: a file that says more is not to be believed.
const LIVES_MAX: u32 = u32::MAX - (1 << 20);

/// The version of the data folder's layout.
const FORMAT: u32 = 3;

/// Stands ready to become the next identity file, so that a life can begin on a disk that is full.
const RESERVE_FILE: &str = "identity.reserve";
/// An identity file that names a whole cluster is shorter.
const RESERVE_BYTES: u64 = 16 << 10;

/// Why the identity cannot be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The disk refused.
    #[error("cannot {doing} {IDENTITY_FILE}: {source}. Is the folder writable, and is there room on the disk?")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The file does not hold what was written.
    #[error(
        "{IDENTITY_FILE} is damaged or was edited ({why}), so nobody can say whose folder this is. Put it back as it was"
    )]
    Damaged {
        /// What is wrong with it.
        why: String,
    },
    /// A folder of an earlier version.
    #[error(
        "an earlier version of this program has written it (format {found}; this version writes {FORMAT}). Start it with that \
         version, or name an empty folder to begin anew"
    )]
    Earlier {
        /// The version of the folder.
        found: u32,
    },
    /// A folder of a later version.
    #[error(
        "a later version of this program has written it (format {found}; this version knows {FORMAT}): use that one"
    )]
    Later {
        /// The version of the folder.
        found: u32,
    },
    /// It was made by a restore that has not ended.
    #[error("it is of a restore that did not finish. Run the restore again: it goes on where it was")]
    Unfinished,
    /// The folder of another cluster.
    #[error(
        "it belongs to cluster \"{found}\" and this is cluster \"{expected}\". Give this server a folder of its own"
    )]
    OtherCluster {
        /// The cluster in the file.
        found: String,
        /// This cluster.
        expected: String,
    },
    /// The folder of another server.
    #[error("it belongs to server {found} and this is server {expected}. Give each server a folder of its own")]
    OtherServer {
        /// The server in the file.
        found: ServerId,
        /// This server.
        expected: ServerId,
    },
    /// The folder of a cluster of other servers.
    #[error(
        "it is of cluster \"{cluster}\" with servers {}, and the cluster file lists {}. The servers of a cluster cannot be \
         changed by editing the file (their addresses can). Use the file with servers {}, or an empty folder for a new \
         cluster",
        .found.numbers(), .expected.numbers(), .found.numbers()
    )]
    OtherMembers {
        /// The cluster.
        cluster: String,
        /// The servers in the folder.
        found: ServerSet,
        /// The servers in the cluster file.
        expected: ServerSet,
    },
    /// The folder counts on quorums of another size.
    #[error("its cluster needs {found:?} servers to prepare and to accept, and this program would take {expected:?}")]
    OtherQuorums {
        /// The sizes in the folder.
        found: (usize, usize),
        /// The sizes of this program.
        expected: (usize, usize),
    },
    /// The numbers of the lives end.
    #[error(
        "it counts {lives} lives of its server and {role_lives} of its roles, and cannot count more: a life without a \
         number of its own could be taken for an earlier one. Take a backup of the cluster, and restore it into new folders"
    )]
    UsedUp {
        /// Lives begun.
        lives: u32,
        /// Numbers of the roles' lives taken.
        role_lives: u32,
    },
    /// A caller is not the peer that is known.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// An earlier error ended the use of this file.
    #[error("writing {IDENTITY_FILE} has failed before: this process must stop")]
    AlreadyFailed,
}

impl IdentityError {
    /// The disk has no room, and nothing else is wrong: the file is as it was.
    pub fn is_full(&self) -> bool {
        matches!(self, IdentityError::Io { source, .. } if is_full(source))
    }
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    format: u32,
    cluster: String,
    server: u8,
    /// In hexadecimal.
    storage: String,
    created: String,
    /// How many lives were begun on this folder.
    life: u32,
    /// The numbers of the roles' lives up to this one are taken. They are taken a few at a time: a role can begin a
    /// life on a disk that is full.
    role_life: u32,
    /// Whether there was a journal.
    journal: bool,
    /// Whether there was a file of spent rounds.
    rounds: bool,
    /// Whether enough peers have come to know the folder for its server to take part.
    takes_part: bool,
    /// The numbers of all servers of the cluster. They hold from the moment its server takes part.
    members: Vec<u8>,
    /// How many make a quorum of phase 1, and of phase 2.
    quorums: [usize; 2],
    /// What makes the folder, until it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unfinished: Option<String>,
    /// The folders of the peers, by server.
    peers: BTreeMap<String, PeerRecord>,
}

impl IdentityFile {
    /// Whether there are numbers left for another life of the server, and for those of its roles.
    fn check_lives(&self) -> Result<(), IdentityError> {
        let IdentityFile { life: lives, role_life: role_lives, .. } = *self;
        let has_room = lives < LIVES_MAX && role_lives <= LIVES_MAX - ROLE_LIVES;
        if has_room { Ok(()) } else { Err(IdentityError::UsedUp { lives, role_lives }) }
    }
}

/// What is remembered of a peer's folder: [`RecordedPeer`], as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerRecord {
    /// In hexadecimal.
    storage: String,
    bound: bool,
    /// The highest start of it that was met, and what its process has drawn, in hexadecimal.
    life: u32,
    boot: String,
}

impl PeerRecord {
    fn new(known: RecordedPeer) -> PeerRecord {
        let RecordedPeer { storage, bound, life, boot } = known;
        PeerRecord { storage: format!("{storage:016x}"), bound, life, boot: format!("{boot:016x}") }
    }

    fn known(&self) -> Result<RecordedPeer, IdentityError> {
        let PeerRecord { bound, life, .. } = *self;
        Ok(RecordedPeer { storage: parse_number(&self.storage)?, bound, life, boot: parse_number(&self.boot)? })
    }
}

/// What a restore writes into the folders that it makes, until they are whole.
const RESTORE: &str = "restore";

/// Whose a folder is, by the cluster file.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The name of the cluster.
    pub cluster: &'a str,
    /// All its servers, and how many of them make a quorum.
    pub quorums: Quorums,
    /// The server.
    pub server: ServerId,
}

impl Owner<'_> {
    fn members(&self) -> Vec<u8> {
        self.quorums.servers().iter().map(|server| server.0).collect()
    }

    fn sizes(&self) -> [usize; 2] {
        self.quorums.sizes().into()
    }
}

/// What became of a caller that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It is the peer, and this is remembered.
    Yes,
    /// It may be anybody: the peer is to be called back.
    CallBack,
}

/// The identity of a data folder. Any thread may use it.
#[derive(Debug)]
pub struct DirIdentity<F: Files> {
    files: F,
    storage: u64,
    state: Mutex<IdentityState>,
}

#[derive(Debug)]
struct IdentityState {
    contents: IdentityFile,
    /// Numbers of the roles' lives that this process has taken and not used.
    role_lives: Range<u32>,
    has_failed: bool,
}

impl IdentityState {
    fn new(contents: IdentityFile) -> IdentityState {
        IdentityState { contents, role_lives: 0..0, has_failed: false }
    }
}

impl<F: Files> DirIdentity<F> {
    /// Reads the identity of the folder, or None if it has none yet. A folder whose server does not take part yet
    /// becomes one of the servers that the cluster file lists now: it may have been started with a wrong one, and
    /// nothing is in it.
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

    /// As [`read`](DirIdentity::read), for somebody who changes nothing.
    pub fn look(files: F, owner: Owner<'_>) -> Result<Option<DirIdentity<F>>, IdentityError> {
        let Some(identity) = DirIdentity::read_any(files)? else { return Ok(None) };
        let IdentityFile { cluster, server, members, quorums, takes_part, unfinished, .. } =
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
        if takes_part && members != expected_members {
            let found = members.into_iter().map(ServerId).collect();
            return Err(IdentityError::OtherMembers { cluster, found, expected: owner.quorums.servers() });
        }
        if takes_part && quorums != expected_quorums {
            return Err(IdentityError::OtherQuorums { found: quorums.into(), expected: owner.quorums.sizes() });
        }
        Ok(Some(identity))
    }

    /// Reads the identity of a folder, whoever's it is.
    pub fn read_any(files: F) -> Result<Option<DirIdentity<F>>, IdentityError> {
        let bytes = read_if_present(&files, IDENTITY_FILE).map_err(failed("read"))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let contents = parse(&bytes)?;
        let storage = parse_number(&contents.storage)?;
        // The process before may have died between renaming the file and syncing its name.
        files.sync_folder().map_err(failed("sync"))?;
        Ok(Some(DirIdentity { files, storage, state: Mutex::new(IdentityState::new(contents)) }))
    }

    /// Gives a folder an identity, in place of any that it had. `created` is a time, for people.
    pub fn create(files: F, owner: Owner<'_>, storage: u64, created: String) -> Result<DirIdentity<F>, IdentityError> {
        DirIdentity::make(files, owner, storage, created, None)
    }

    /// As [`create`](DirIdentity::create), but no server starts on the folder before [`finish`](DirIdentity::finish).
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
            life: 0,
            role_life: 0,
            journal: false,
            rounds: false,
            takes_part: false,
            members: owner.members(),
            quorums: owner.sizes(),
            unfinished,
            peers: BTreeMap::new(),
        };
        let identity = DirIdentity { files, storage, state: Mutex::new(IdentityState::new(contents)) };
        identity.change(|_| {})?;
        Ok(identity)
    }

    /// The folder is whole: from now on a server may start on it.
    pub fn finish(&self) -> Result<(), IdentityError> {
        if self.state().contents.unfinished.is_some() {
            self.change(|contents| contents.unfinished = None)?;
        }
        Ok(())
    }

    /// The random number that tells this folder from any other that ever had its server's number.
    pub fn storage_id(&self) -> u64 {
        self.storage
    }

    /// The number of the last life begun.
    pub fn incarnation(&self) -> u32 {
        self.state().contents.life
    }

    /// Begins a life: durably takes the next number, which no other life on this folder has.
    pub fn begin_life(&self) -> Result<u32, IdentityError> {
        let mut state = self.state();
        let first = state.contents.role_life;
        state.contents.check_lives()?;
        let next = |contents: &mut IdentityFile| {
            contents.life += 1;
            contents.role_life += ROLE_LIVES;
        };
        let put = |bytes: &[u8]| replace_with(&self.files, IDENTITY_FILE, RESERVE_FILE, bytes);
        let contents = self.change_by(&mut state, next, put)?;
        state.role_lives = first..contents.role_life;
        // Now that the file before is gone there should be room for it. Without it the next life may have to wait for
        // some.
        let _ = reserve(&self.files, RESERVE_FILE, RESERVE_BYTES);
        Ok(contents.life)
    }

    /// Begins a life of a role: takes a number which no other life of a role on this folder has.
    pub fn next_role_incarnation(&self) -> Result<u32, IdentityError> {
        let mut state = self.state();
        if state.role_lives.is_empty() {
            let first = state.contents.role_life;
            state.contents.check_lives()?;
            let contents = self.change_locked(&mut state, |contents| contents.role_life += ROLE_LIVES)?;
            state.role_lives = first..contents.role_life;
        }
        state.role_lives.start += 1;
        Ok(state.role_lives.start)
    }

    /// Whether the folder has a journal.
    pub fn has_journal(&self) -> bool {
        self.state().contents.journal
    }

    /// Remembers whether the folder has a journal.
    pub fn set_has_journal(&self, journal: bool) -> Result<(), IdentityError> {
        if self.has_journal() != journal {
            self.change(|contents| contents.journal = journal)?;
        }
        Ok(())
    }

    /// Whether the folder has a file of spent rounds.
    pub fn has_rounds(&self) -> bool {
        self.state().contents.rounds
    }

    /// Remembers that the folder has a file of spent rounds.
    pub fn set_has_rounds(&self) -> Result<(), IdentityError> {
        if !self.has_rounds() {
            self.change(|contents| contents.rounds = true)?;
        }
        Ok(())
    }

    /// Whether its server may take part: enough peers know the folder.
    pub fn is_active(&self) -> bool {
        self.state().contents.takes_part
    }

    /// Remembers that its server takes part from now on.
    pub fn set_takes_part(&self) -> Result<(), IdentityError> {
        if !self.is_active() {
            self.change(|contents| contents.takes_part = true)?;
        }
        Ok(())
    }

    /// What is remembered of a peer's folder, if it was ever met.
    pub fn recorded_peer(&self, server: ServerId) -> Option<RecordedPeer> {
        known(&self.state().contents, server)
    }

    /// Judges the claim of a caller; what is to be remembered of it is durable before this returns.
    pub fn admit(&self, claim: &Claim) -> Result<Admitted, IdentityError> {
        let mut state = self.state();
        let known = known(&state.contents, claim.server);
        let new = match judge(self.storage, known, claim) {
            ClaimVerdict::Welcome => return Ok(Admitted::Yes),
            ClaimVerdict::CallBack => return Ok(Admitted::CallBack),
            ClaimVerdict::Refuse(why) => return Err(why.into()),
            ClaimVerdict::Remember(new) => new,
        };
        let written = self.change_locked(&mut state, |contents| {
            contents.peers.insert(claim.server.to_string(), PeerRecord::new(new));
        });
        match written {
            // Another start of a folder that is known: what finds no room now is remembered at the next greeting.
            Err(error) if error.is_full() && known.is_some_and(|known| known.storage == new.storage) => {
                Ok(Admitted::Yes)
            }
            written => written.map(|_| Admitted::Yes),
        }
    }

    /// Remembers the folder of a peer whose server takes part. For whoever makes both folders.
    pub fn bind_peer(&self, server: ServerId, storage: u64) -> Result<(), IdentityError> {
        let known = RecordedPeer { storage, bound: true, life: 0, boot: 0 };
        self.change(|contents| {
            contents.peers.insert(server.to_string(), PeerRecord::new(known));
        })?;
        Ok(())
    }

    /// Forgets the folder of a peer and how often it was started; false if it was not known.
    pub fn forget_peer(&self, server: ServerId) -> Result<bool, IdentityError> {
        let was_known = self.recorded_peer(server).is_some();
        if was_known {
            self.change(|contents| {
                contents.peers.remove(&server.to_string());
            })?;
        }
        Ok(was_known)
    }

    /// Whose folder it is, for a sentence: the cluster and its servers, and the server.
    pub fn owner(&self) -> (String, ServerSet, ServerId) {
        let state = self.state();
        let IdentityFile { cluster, members, server, .. } = &state.contents;
        (cluster.clone(), members.iter().copied().map(ServerId).collect(), ServerId(*server))
    }

    fn state(&self) -> MutexGuard<'_, IdentityState> {
        // What is in memory changes only after the file did, in one step: a panic elsewhere leaves it whole.
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
        // Without room nothing was begun: the file is as it was.
        state.has_failed = written.as_ref().is_err_and(|error| !is_full(error));
        written.map_err(failed("write"))?;
        state.contents = contents.clone();
        Ok(contents)
    }
}

/// What an identity says, for people, and the storage id in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitySummary {
    /// A sentence.
    pub text: String,
    /// The random number that tells the folder from any other.
    pub storage: u64,
}

/// Reads the bytes of an identity file, whoever's it is.
pub fn describe(bytes: &[u8]) -> Result<IdentitySummary, IdentityError> {
    let contents = parse(bytes)?;
    let storage = parse_number(&contents.storage)?;
    let IdentityFile { cluster, server, created, life, peers, takes_part, members, unfinished, .. } = contents;
    let members = members.into_iter().map(ServerId).collect::<ServerSet>().numbers();
    let met = if peers.is_empty() { "nobody".to_string() } else { peers.into_keys().collect::<Vec<_>>().join(", ") };
    let new = if takes_part { "" } else { ", NEW: too few of the others know it for its server to take part" };
    let unfinished = unfinished.map_or("", |_| ", UNFINISHED: the restore that makes it must be run again");
    let text = format!(
        "server {server} of cluster \"{cluster}\" with servers {members}, disk {}, made {created}, {life} lives, knows the \
         disks of {met}{new}{unfinished}",
        short_disk(storage)
    );
    Ok(IdentitySummary { text, storage })
}

/// A data folder's name in lines and on the terminal. The storage id itself is what a peer knows it by, and is told to
/// nobody else.
pub fn short_disk(storage: u64) -> String {
    format!("{:04x}", xxhash_rust::xxh3::xxh3_64(&storage.to_le_bytes()) >> 48)
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> IdentityError {
    move |source| IdentityError::Io { doing, source }
}

fn known(contents: &IdentityFile, server: ServerId) -> Option<RecordedPeer> {
    contents.peers.get(&server.to_string()).and_then(|peer| peer.known().ok())
}

/// The first line of a file that goes on with this text.
pub(crate) fn checksum_line(text: &str) -> String {
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
    let damaged = |why: &str| IdentityError::Damaged { why: why.to_string() };
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
    let Some((_, rest)) = text.split_once('\n') else { return Err(damaged("it has no first line")) };
    if checksum_line(rest) + rest != text {
        return Err(damaged("its checksum is wrong"));
    }
    let format = rest.lines().find_map(|line| line.strip_prefix("format = ")?.parse().ok());
    match format {
        Some(FORMAT) => {}
        Some(found) if found < FORMAT => return Err(IdentityError::Earlier { found }),
        Some(found) => return Err(IdentityError::Later { found }),
        None => return Err(damaged("it names no format")),
    }
    let contents: IdentityFile = toml::from_str(rest).map_err(|error| damaged(error.message()))?;
    check(&contents)?;
    Ok(contents)
}

/// What the type of a field does not say.
fn check(contents: &IdentityFile) -> Result<(), IdentityError> {
    let damaged = |why: String| Err(IdentityError::Damaged { why });
    if contents.life.max(contents.role_life) > LIVES_MAX {
        return damaged(format!("it counts more than {LIVES_MAX} lives"));
    }
    if let Some(number) = contents.members.iter().find(|number| **number > ServerId::MAX) {
        return damaged(format!("there is no server {number}"));
    }
    contents.peers.values().try_for_each(|peer| peer.known().map(|_| ()))
}

fn parse_number(text: &str) -> Result<u64, IdentityError> {
    u64::from_str_radix(text, 16).map_err(|_| IdentityError::Damaged { why: format!("'{text}' is no such number") })
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
