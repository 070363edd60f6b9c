//! `paxos-client backup`: writes the state of a running cluster as of one slot to a file or to standard output.
//!
//! The file is written under a temporary name beside its target, and renamed once it is complete and synced. If the
//! process is killed before, the previous file is still there.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::client::Client;
use super::outcome::ClientError;
use crate::kv::Kv;
use crate::paxos::{ChunkRequest, SnapshotChunk, StateMachine};
use crate::random::Random;
use crate::storage::backup::{BackupError, BackupHeader, BackupWriter};

/// Maximum time for a server to write a snapshot of its state.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two requests for the snapshot.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupFailed {
    /// A request failed.
    #[error("{0}")]
    Request(#[from] ClientError),
    /// The file cannot be written.
    #[error("cannot write the backup: {0}. Choose a file that this user may write, on a disk with free space")]
    File(#[from] BackupError),
    /// The received data are inconsistent, or the target changed meanwhile.
    #[error("{0}")]
    Wrong(String),
}

impl From<io::Error> for BackupFailed {
    fn from(error: io::Error) -> BackupFailed {
        BackupFailed::File(error.into())
    }
}

/// The target of a backup: no file, or a file that may be replaced.
pub struct Target {
    path: PathBuf,
    replace: bool,
}

impl Target {
    /// Checks the target; an error says why no backup can be written there.
    pub fn new(path: &Path, replace: bool) -> Result<Target, String> {
        let target = Target { path: path.to_path_buf(), replace };
        target.look().map(|()| target)
    }

    fn look(&self) -> Result<(), String> {
        let name = self.path.display();
        match fs::symlink_metadata(&self.path) {
            Ok(there) if !there.is_file() => Err(format!(
                "{name} is {}, but a backup replaces only files. Choose a file, or - for standard output",
                kind(there.file_type())
            )),
            Ok(_) if !self.replace => {
                Err(format!("{name} exists already. Choose another file, or use --force to replace it"))
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(format!("cannot inspect {name}: {error}")),
        }
    }
}

fn kind(of: FileType) -> &'static str {
    match of {
        _ if of.is_dir() => "a directory",
        _ if of.is_symlink() => "a symbolic link",
        _ if of.is_fifo() => "a named pipe",
        _ => "a device or a socket",
    }
}

/// A temporary file that becomes the backup; it is removed if the backup fails.
struct InMaking {
    path: PathBuf,
}

impl InMaking {
    /// Creates a temporary file beside the target, and removes those of killed backups.
    fn begin(target: &Path) -> io::Result<(InMaking, File)> {
        let mut stem = target.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
        stem.push(".part-");
        let dir = parent_dir(target);
        for entry in fs::read_dir(dir)?.flatten() {
            let (name, stem) = (entry.file_name(), stem.as_encoded_bytes());
            let is_regular = entry.file_type().is_ok_and(|kind| kind.is_file());
            if is_regular && is_in_making(name.as_encoded_bytes(), stem) && is_abandoned(&entry.path()) {
                // A file that cannot be removed does no harm.
                let _ = fs::remove_file(entry.path());
            }
        }
        stem.push(format!("{:016x}", Random::unseeded().next()));
        let path = dir.join(stem);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let in_making = InMaking { path };
        // While the file is locked, another backup does not treat it as abandoned.
        file.lock()?;
        Ok((in_making, file))
    }

    /// Renames the file to its target, and makes it durable against a power failure.
    fn end(self, file: &File, target: &Target) -> Result<(), BackupFailed> {
        file.sync_all()?;
        // Another program may have created a file there meanwhile.
        target.look().map_err(BackupFailed::Wrong)?;
        fs::rename(&self.path, &target.path)?;
        File::open(parent_dir(&target.path))?.sync_all()?;
        Ok(())
    }
}

impl Drop for InMaking {
    fn drop(&mut self) {
        // After a successful rename this file no longer exists.
        let _ = fs::remove_file(&self.path);
    }
}

fn parent_dir(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a file name is one that `InMaking` creates.
fn is_in_making(name: &[u8], stem: &[u8]) -> bool {
    name.strip_prefix(stem).is_some_and(|rest| rest.len() == 16 && rest.iter().all(u8::is_ascii_hexdigit))
}

fn is_abandoned(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

/// Writes a backup to a file, which appears only when it is complete.
pub fn write(client: &mut Client, cluster: &str, target: Target) -> Result<BackupHeader, BackupFailed> {
    let (in_making, file) = InMaking::begin(&target.path)?;
    let (title, written) = stream(client, cluster, BufWriter::new(file))?;
    let file = written.into_inner().map_err(io::IntoInnerError::into_error)?;
    in_making.end(&file, &target)?;
    Ok(title)
}

/// Writes a backup that contains everything acknowledged before it began. A backup without its end record is invalid,
/// so an interrupted one cannot be mistaken for a complete one.
pub fn stream<W: Write>(client: &mut Client, cluster: &str, to: W) -> Result<(BackupHeader, W), BackupFailed> {
    // Every write acknowledged so far is at or below this slot.
    let at_least = client.get(b"")?.slot;
    let until = Instant::now() + PATIENCE;
    let mut part = loop {
        match client.state_part(None, at_least)? {
            Some(part) => break part,
            None if Instant::now() < until => thread::sleep(POLL_INTERVAL),
            None => {
                let what = format!(
                    "server {} did not finish a snapshot of its state within 60 s. Next: paxos-client status",
                    client.server().0
                );
                return Err(BackupFailed::Wrong(what));
            }
        }
    };
    let title = BackupHeader {
        cluster: cluster.to_string(),
        history: client.history().unwrap_or_default(),
        slot: part.part.slot,
        digest: part.part.digest,
    };
    let mut writer = BackupWriter::begin(to, &title)?;
    let (mut state, mut left_out) = (Kv::default(), 0u64);
    loop {
        let SnapshotChunk { slot, digest, index, bytes, next } = part.part;
        left_out = left_out.wrapping_add(part.left_out);
        if (slot, digest) != (title.slot, title.digest) {
            return Err(BackupFailed::Wrong(
                "the server dropped this snapshot while it was read. Next: run the backup again".to_string(),
            ));
        }
        state.load_chunk(&bytes).map_err(BackupFailed::Wrong)?;
        writer.chunk(&bytes)?;
        let Some(token) = next else { break };
        let index = index.saturating_add(1);
        let name = ChunkRequest { slot, index, token };
        part = client.state_part(Some(name), at_least)?.ok_or_else(|| {
            BackupFailed::Wrong(
                "the server dropped this snapshot while it was read. Next: run the backup again".to_string(),
            )
        })?;
    }
    // The digest covers the entries that are not sent to clients too.
    let whole = state.digest().wrapping_add(left_out);
    if whole != title.digest {
        return Err(BackupFailed::Wrong(format!(
            "the received data are corrupt: their digest is {whole:016x}, but the server reported {:016x}. Next: run \
             the backup again",
            title.digest
        )));
    }
    Ok((title, writer.end(state.store().digest())?))
}
