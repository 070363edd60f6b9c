//! Inspection of a data directory or a backup: what it holds and whether it is healthy, as text. Nothing is changed:
//! the files are copied into memory, and the code that a server starts with runs on the copy.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::backup;
use super::ballot_store::{BallotStore, ROUNDS_FILE};
use super::checkpoint::{Checkpoint, CheckpointOptions};
use super::disk::{Files, MemoryFiles, RealFiles};
use super::identity::{IDENTITY_FILE, describe};
use super::journal::{Journal, JournalOptions};
use crate::kv::Kv;
use crate::paxos::{Acceptor, ProposerRecord};
use crate::role::Role;

/// The smallest segment length allowed; longer segments on disk keep their length.
const SEGMENT_BYTES: u64 = 2_048;

/// The result of an inspection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectReport {
    /// The report, for people.
    pub text: String,
    /// Whether a server could start from it and vote with everything that it had recorded.
    pub is_healthy: bool,
}

/// Inspects a data directory or a backup. An error if it is neither.
pub fn inspect(path: &Path) -> Result<InspectReport, String> {
    if path.is_file() {
        return inspect_backup(path);
    }
    let top = copy(path)?;
    let mut report = InspectReport { text: String::new(), is_healthy: true };
    let identity = top.read(IDENTITY_FILE).map_err(|_| {
        format!(
            "{} holds no {IDENTITY_FILE}: it is not a data directory. Give the directory that the server uses as \
             --data",
            path.display()
        )
    })?;
    let owner = match describe(&identity) {
        Ok(told) => {
            report.say("identity", &told.text);
            Some(told.storage)
        }
        Err(error) => {
            report.trouble("identity", &error.to_string());
            None
        }
    };
    let Some(owner) = owner else { return Ok(report) };
    report.journal(&path.join("journal"), owner);
    report.rounds(&top, owner);
    report.checkpoint(&path.join("checkpoint"), owner);
    let verdict = match report.is_healthy {
        true => "healthy: a server starts from it with all its records",
        false => "NOT healthy: see above",
    };
    report.say("verdict", verdict);
    Ok(report)
}

/// Reads a backup to its end.
fn inspect_backup(path: &Path) -> Result<InspectReport, String> {
    let opened = File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let (title, state) = backup::read(BufReader::new(opened))
        .map_err(|error| format!("{} is a file, but not a readable backup: {error}", path.display()))?;
    let mut report = InspectReport { text: String::new(), is_healthy: true };
    let (keys, sessions) = (state.store().len(), state.sessions().len());
    let (slot, digest) = (title.slot, title.digest);
    report.say("backup", &format!("of cluster \"{}\"", title.cluster));
    report.say("state", &format!("slot {slot}, digest {digest:016x}, {keys} keys, {sessions} sessions"));
    report.say("verdict", "complete: paxos-server restore makes a new cluster from it");
    Ok(report)
}

/// The files of a directory, in memory.
fn copy(path: &Path) -> Result<MemoryFiles, String> {
    let failed = |error| format!("cannot read {}: {error}", path.display());
    let files = RealFiles::open(path).map_err(failed)?;
    let mut image = BTreeMap::new();
    for name in files.list().map_err(failed)? {
        if path.join(&name).is_file() {
            image.insert(name.clone(), files.read(&name).map_err(failed)?);
        }
    }
    Ok(MemoryFiles::from_image(&image))
}

impl InspectReport {
    fn say(&mut self, part: &str, text: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{part:<10}  {text}");
    }

    fn trouble(&mut self, part: &str, text: &str) {
        self.is_healthy = false;
        self.say(part, &format!("CORRUPT: {text}"));
    }

    fn journal(&mut self, path: &Path, owner: u64) {
        let files = match copy(path) {
            Ok(files) => files,
            Err(error) => return self.trouble("journal", &error),
        };
        let image = files.image();
        let segments = image.keys().filter(|name| name.ends_with(".journal")).count();
        let bytes: usize = image.values().map(Vec::len).sum();
        self.say("journal", &format!("{segments} files, {} KiB including the spare file", bytes >> 10));
        let options = JournalOptions::alone(SEGMENT_BYTES, owner, true);
        match Journal::open(files, options) {
            Err(error) => self.trouble("journal", &error.to_string()),
            Ok((_, recovered)) => {
                let mut acceptor = Acceptor::new();
                let count = recovered.records.len();
                recovered.records.into_iter().for_each(|record| acceptor.replay(record));
                let last = acceptor.accepted().keys().next_back();
                let accepted = match (acceptor.accepted().keys().next(), last) {
                    (Some(first), Some(last)) => {
                        format!("{} slots accepted, from {first} to {last}", acceptor.accepted().len())
                    }
                    _ => "no slot accepted".to_string(),
                };
                let below = acceptor.truncated_below();
                let forgot = if below.0 > 1 { format!(", truncated below slot {below}") } else { String::new() };
                self.say("acceptor", &format!("{count} records: promised {}, {accepted}{forgot}", acceptor.promised()));
                if recovered.torn_tail_cut {
                    self.say("journal", "a crash cut its last group short; that group was never acknowledged");
                }
                for corruption in recovered.corruption {
                    self.trouble("journal", &format!("{corruption}; the server repairs it from the other servers"));
                }
                for range in acceptor.corrupt() {
                    self.trouble("acceptor", &format!("slots {} to {} are unreadable", range.first, range.last));
                }
            }
        }
    }

    fn rounds(&mut self, top: &MemoryFiles, owner: u64) {
        match BallotStore::open(top.clone(), owner, true).map(|rounds| rounds.record()) {
            Ok(ProposerRecord::RoundsReserved(below)) => self.say(
                ROUNDS_FILE,
                &format!(
                    "rounds below {below} are \
                                                                                         reserved"
                ),
            ),
            Err(error) => self.trouble(ROUNDS_FILE, &error.to_string()),
        }
    }

    fn checkpoint(&mut self, path: &Path, owner: u64) {
        let files = match copy(path) {
            Ok(files) => files,
            Err(error) => return self.trouble("checkpoint", &error),
        };
        match Checkpoint::open(files, CheckpointOptions::usual(owner), Kv::default()) {
            Err(error) => self.trouble("checkpoint", &format!("{error}; the other servers have the state")),
            Ok((checkpoint, state)) => {
                let (runs, bytes) = checkpoint.size();
                self.say("checkpoint", &format!("{runs} files, {} KiB", bytes >> 10));
                let slot = checkpoint.mark().slot;
                let (keys, sessions) = (state.store().len(), state.sessions().len());
                let digest = checkpoint.mark().digest;
                self.say("checkpoint", &format!("slot {slot}, digest {digest:016x}, {keys} keys, {sessions} sessions"));
            }
        }
    }
}
