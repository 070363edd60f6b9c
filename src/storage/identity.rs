//! The file that says whose a data folder is: which server of which cluster, and what it must never forget about itself.
//!
//! It is TOML, for people to read; its first line is a checksum of the rest, and it is replaced as a whole in one step.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::disk::{Files, is_full, read_if_present, replace, replace_with, reserve};
use crate::role::Server;

/// The file's name.
pub const IDENTITY_FILE: &str = "identity.toml";

/// So many numbers of the roles' lives are taken at a time.
const ROLE_LIVES: u32 = 64;

/// The last number of a life that is taken, of a server or of a role: a file that says more is not to be believed.
const LIVES_MAX: u32 = u32::MAX - (1 << 20);

/// The version of the data folder's layout.
const FORMAT: u32 = 2;

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
    /// A folder of another version.
    #[error("the folder is of format {found}, and this program knows {FORMAT}: use the program that wrote it")]
    Format {
        /// The version of the folder.
        found: u32,
    },
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
        found: Server,
        /// This server.
        expected: Server,
    },
    /// A peer is not the one that it was.
    #[error(
        "server {server} was known with storage {known:016x} and now comes with {offered:016x}: its disk was wiped or \
         swapped, and it may have forgotten what it promised"
    )]
    OtherPeer {
        /// The peer.
        server: Server,
        /// Its storage id when it was first met.
        known: u64,
        /// The storage id that it has now.
        offered: u64,
    },
    /// A peer's folder is older than what is known of it.
    #[error(
        "server {server} is in life {life} of its data folder, and life {known} was met before: the folder is an old copy, \
         and what it promised since is not in it. Bring the newest data folder back"
    )]
    OldLife {
        /// The peer.
        server: Server,
        /// The life that it says it is in.
        life: u32,
        /// The highest one known.
        known: u32,
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
    /// An earlier error ended the use of this file.
    #[error("writing {IDENTITY_FILE} has failed before: this process must stop")]
    Failed,
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
struct Contents {
    format: u32,
    cluster: String,
    server: u8,
    /// In hexadecimal.
    storage: String,
    created: String,
    /// How many lives were begun on this folder.
    life: u32,
    /// The numbers of the roles' lives up to this one are taken. They are taken a few at a time: a role can begin a life
    /// on a disk that is full.
    role_life: u32,
    /// Whether there was a journal.
    journal: bool,
    /// Whether there was a file of spent rounds.
    rounds: bool,
    /// Whether enough peers have come to know the folder for its server to take part.
    takes_part: bool,
    /// The storage ids of the peers, in hexadecimal, by server.
    peers: BTreeMap<String, String>,
    /// The highest life of each that was met, and what its process has drawn.
    lives: BTreeMap<String, Life>,
}

impl Contents {
    /// Whether there are numbers left for another life of the server, and for those of its roles.
    fn check_lives(&self) -> Result<(), IdentityError> {
        let Contents { life: lives, role_life: role_lives, .. } = *self;
        let has_room = lives < LIVES_MAX && role_lives <= LIVES_MAX - ROLE_LIVES;
        if has_room { Ok(()) } else { Err(IdentityError::UsedUp { lives, role_lives }) }
    }
}

/// A life of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Life {
    number: u32,
    /// In hexadecimal.
    boot: String,
}

/// The identity of a data folder. Any thread may use it.
#[derive(Debug)]
pub struct Identity<F: Files> {
    files: F,
    storage: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    contents: Contents,
    /// Numbers of the roles' lives that this process has taken and not used.
    role_lives: Range<u32>,
    has_failed: bool,
}

impl State {
    fn new(contents: Contents) -> State {
        State { contents, role_lives: 0..0, has_failed: false }
    }
}

impl<F: Files> Identity<F> {
    /// Reads the identity of the folder, or None if it has none yet.
    pub fn read(files: F, cluster: &str, server: Server) -> Result<Option<Identity<F>>, IdentityError> {
        let bytes = read_if_present(&files, IDENTITY_FILE).map_err(failed("read"))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let contents = parse(&bytes)?;
        let storage = parse_storage(&contents.storage)?;
        if contents.life.max(contents.role_life) > LIVES_MAX {
            return Err(IdentityError::Damaged { why: format!("it counts more than {LIVES_MAX} lives") });
        }
        for id in contents.peers.values() {
            parse_storage(id)?;
        }
        if contents.cluster != cluster {
            return Err(IdentityError::OtherCluster { found: contents.cluster, expected: cluster.to_string() });
        }
        if contents.server != server.0 {
            return Err(IdentityError::OtherServer { found: Server(contents.server), expected: server });
        }
        // The process before may have died between renaming the file and syncing its name.
        files.sync_folder().map_err(failed("sync"))?;
        Ok(Some(Identity { files, storage, state: Mutex::new(State::new(contents)) }))
    }

    /// Gives a folder an identity, in place of any that it had. `created` is a time, for people.
    pub fn create(
        files: F,
        cluster: &str,
        server: Server,
        storage: u64,
        created: String,
    ) -> Result<Identity<F>, IdentityError> {
        let contents = Contents {
            format: FORMAT,
            cluster: cluster.to_string(),
            server: server.0,
            storage: format!("{storage:016x}"),
            created,
            life: 0,
            role_life: 0,
            journal: false,
            rounds: false,
            takes_part: false,
            peers: BTreeMap::new(),
            lives: BTreeMap::new(),
        };
        let identity = Identity { files, storage, state: Mutex::new(State::new(contents.clone())) };
        identity.change(|_| {})?;
        Ok(identity)
    }

    /// The random number that tells this folder from any other that ever had its server's number.
    pub fn storage_id(&self) -> u64 {
        self.storage
    }

    /// The number of the last life begun.
    pub fn life(&self) -> u32 {
        self.state().contents.life
    }

    /// Begins a life: durably takes the next number, which no other life on this folder has.
    pub fn begin_life(&self) -> Result<u32, IdentityError> {
        let mut state = self.state();
        let first = state.contents.role_life;
        state.contents.check_lives()?;
        let next = |contents: &mut Contents| {
            contents.life += 1;
            contents.role_life += ROLE_LIVES;
        };
        let put = |bytes: &[u8]| replace_with(&self.files, IDENTITY_FILE, RESERVE_FILE, bytes);
        let contents = self.change_by(&mut state, next, put)?;
        state.role_lives = first..contents.role_life;
        // Now that the file before is gone there should be room for it. Without it the next life may have to wait for some.
        let _ = reserve(&self.files, RESERVE_FILE, RESERVE_BYTES);
        Ok(contents.life)
    }

    /// Begins a life of a role: takes a number which no other life of a role on this folder has.
    pub fn begin_role_life(&self) -> Result<u32, IdentityError> {
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
    pub fn takes_part(&self) -> bool {
        self.state().contents.takes_part
    }

    /// Remembers that its server takes part from now on.
    pub fn set_takes_part(&self) -> Result<(), IdentityError> {
        if !self.takes_part() {
            self.change(|contents| contents.takes_part = true)?;
        }
        Ok(())
    }

    /// The storage id of a peer, if it was ever met.
    pub fn known_peer(&self, server: Server) -> Option<u64> {
        known(&self.state().contents, server)
    }

    /// Remembers the storage id of a peer durably; an error if the peer was met with another.
    pub fn remember_peer(&self, server: Server, offered: u64) -> Result<(), IdentityError> {
        let mut state = self.state();
        match known(&state.contents, server) {
            Some(known) if known == offered => Ok(()),
            Some(known) => Err(IdentityError::OtherPeer { server, known, offered }),
            None => self
                .change_locked(&mut state, |contents| {
                    contents.peers.insert(server.to_string(), format!("{offered:016x}"));
                })
                .map(|_| ()),
        }
    }

    /// Remembers the life that a peer is in durably. An error if a later one was met before, or another process in the same
    /// life: then one of the two has an old copy of the folder.
    pub fn meet(&self, server: Server, life: u32, boot: u64) -> Result<(), IdentityError> {
        let mut state = self.state();
        let new = Life { number: life, boot: format!("{boot:016x}") };
        match state.contents.lives.get(&server.to_string()) {
            Some(known) if *known == new => return Ok(()),
            Some(known) if known.number >= life => {
                return Err(IdentityError::OldLife { server, life, known: known.number });
            }
            _ => {}
        }
        self.change_locked(&mut state, |contents| {
            contents.lives.insert(server.to_string(), new);
        })
        .map(|_| ())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What is in memory changes only after the file did, in one step: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Contents)) -> Result<Contents, IdentityError> {
        self.change_locked(&mut self.state(), change)
    }

    fn change_locked(&self, state: &mut State, change: impl FnOnce(&mut Contents)) -> Result<Contents, IdentityError> {
        self.change_by(state, change, |bytes| replace(&self.files, IDENTITY_FILE, bytes))
    }

    fn change_by(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut Contents),
        put: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> Result<Contents, IdentityError> {
        if state.has_failed {
            return Err(IdentityError::Failed);
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
pub struct Described {
    /// A sentence.
    pub text: String,
    /// The random number that tells the folder from any other.
    pub storage: u64,
}

/// Reads the bytes of an identity file, whoever's it is.
pub fn describe(bytes: &[u8]) -> Result<Described, IdentityError> {
    let contents = parse(bytes)?;
    let storage = parse_storage(&contents.storage)?;
    let Contents { cluster, server, created, life, peers, takes_part, .. } = contents;
    let met = if peers.is_empty() { "nobody".to_string() } else { peers.into_keys().collect::<Vec<_>>().join(", ") };
    let new = if takes_part { "" } else { ", NEW: too few of the others know it for its server to take part" };
    let text = format!(
        "server {server} of cluster \"{cluster}\", storage {storage:016x}, made {created}, {life} lives, knows the disks of \
         {met}{new}"
    );
    Ok(Described { text, storage })
}

/// A data folder's name in lines and on the terminal. The storage id itself is what a peer knows it by, and is told to
/// nobody else.
pub fn short_disk(storage: u64) -> String {
    format!("{:04x}", xxhash_rust::xxh3::xxh3_64(&storage.to_le_bytes()) >> 48)
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> IdentityError {
    move |source| IdentityError::Io { doing, source }
}

fn known(contents: &Contents, server: Server) -> Option<u64> {
    contents.peers.get(&server.to_string()).and_then(|id| parse_storage(id).ok())
}

/// The first line of a file that goes on with this text.
pub(crate) fn checksum_line(text: &str) -> String {
    format!(
        "checksum = \"{:08x}\" # of all that follows; a server writes this file, people only read it\n",
        crc32c::crc32c(text.as_bytes())
    )
}

fn print(contents: &Contents) -> String {
    let text = match toml::to_string(contents) {
        Ok(text) => text,
        Err(error) => panic!("numbers, strings and a table of strings cannot be written as TOML: {error}"),
    };
    checksum_line(&text) + &text
}

fn parse(bytes: &[u8]) -> Result<Contents, IdentityError> {
    let damaged = |why: &str| IdentityError::Damaged { why: why.to_string() };
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
    let Some((_, rest)) = text.split_once('\n') else { return Err(damaged("it has no first line")) };
    if checksum_line(rest) + rest != text {
        return Err(damaged("its checksum is wrong"));
    }
    let format = rest.lines().find_map(|line| line.strip_prefix("format = ")?.parse().ok());
    match format {
        Some(FORMAT) => toml::from_str(rest).map_err(|error| damaged(error.message())),
        Some(found) => Err(IdentityError::Format { found }),
        None => Err(damaged("it names no format")),
    }
}

fn parse_storage(text: &str) -> Result<u64, IdentityError> {
    u64::from_str_radix(text, 16).map_err(|_| IdentityError::Damaged { why: format!("'{text}' is no storage id") })
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
