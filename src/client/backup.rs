//! `paxos-client backup`: the state of a running cluster after one slot, in a file.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::outcome::ClientError;
use super::stub::Client;
use crate::kv::Kv;
use crate::paxos::{PartName, SnapshotPart, StateMachine};
use crate::storage::backup::{BackupError, Title, Writer};

/// So long a server may take to write its state down.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum NoBackup {
    /// A request has brought nothing.
    #[error("{0}")]
    Request(#[from] ClientError),
    /// The file cannot be written.
    #[error("cannot write the backup: {0}. Name a file that this user may write to")]
    File(#[from] BackupError),
    /// What came is not what was sent.
    #[error("{0}")]
    Wrong(String),
}

/// Writes a backup that holds everything that was acknowledged before it began. The file is there when it is whole.
pub fn write(client: &mut Client, cluster: &str, to: &Path) -> Result<Title, NoBackup> {
    // Whatever was acknowledged by now stands at or below this slot.
    let at_least = client.get(b"")?.slot;
    let until = Instant::now() + PATIENCE;
    let mut part = loop {
        match client.state_part(None, at_least)? {
            Some(part) => break part,
            None if Instant::now() < until => thread::sleep(LOOK_AGAIN),
            None => {
                let what = format!("server {} has not written its state down within 60 s", client.server().0);
                return Err(NoBackup::Wrong(what));
            }
        }
    };
    let title = Title { cluster: cluster.to_string(), history: 0, slot: part.part.slot, digest: part.part.digest };
    let mut in_making = to.as_os_str().to_owned();
    in_making.push(".part");
    let file = File::create(&in_making).map_err(BackupError::from)?;
    let mut writer = Writer::begin(BufWriter::new(file), &title)?;
    let (mut state, mut left_out) = (Kv::default(), 0u64);
    loop {
        let SnapshotPart { slot, digest, index, bytes, next } = part.part;
        left_out = left_out.wrapping_add(part.left_out);
        if (slot, digest) != (title.slot, title.digest) {
            return Err(NoBackup::Wrong("the server let this state go while it was read: try again".to_string()));
        }
        state.load(&bytes).map_err(NoBackup::Wrong)?;
        writer.part(&bytes)?;
        let Some(token) = next else { break };
        let name = PartName { slot, index: index + 1, token };
        part = client
            .state_part(Some(name), at_least)?
            .ok_or_else(|| NoBackup::Wrong("the server let this state go while it was read: try again".to_string()))?;
    }
    // What a client does not get counts all the same.
    let whole = state.digest().wrapping_add(left_out);
    if whole != title.digest {
        return Err(NoBackup::Wrong(format!("the entries make {whole:016x} and not {:016x}", title.digest)));
    }
    let file =
        writer.end(state.store().digest())?.into_inner().map_err(|error| BackupError::from(error.into_error()))?;
    file.sync_all().and_then(|()| fs::rename(&in_making, to)).map_err(BackupError::from)?;
    Ok(title)
}
