//! What `paxos-server` does beside serving: to look into a data folder, and to make new ones from a backup.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use super::check::check;
use super::options::Options;
use crate::cluster::Cluster;
use crate::kv::Kv;
use crate::paxos::{AcceptorRecord, StateMachine};
use crate::role::Disk;
use crate::storage::checkpoint::{Checkpoint, PART_BYTES};
use crate::storage::journal::SEGMENT_BYTES;
use crate::storage::{DataFolder, backup, inspect};

/// The tools, by the first word behind `paxos-server`.
#[derive(Parser)]
#[command(name = "paxos-server", version)]
pub enum Tool {
    /// Look whether a server with these options would start; starts and changes nothing
    #[command(args_override_self = true)]
    Check {
        /// As of a start.
        #[command(flatten)]
        options: Box<Options>,
    },
    /// Show what a data folder holds and how healthy it is; changes nothing
    Inspect {
        /// The data folder of one server
        folder: PathBuf,
    },
    /// Make the data folders of a new cluster from a backup (see `paxos-client backup`)
    Restore {
        /// The backup
        file: PathBuf,
        /// The new cluster's file; its name must be another than the old cluster's
        #[arg(long, value_name = "FILE")]
        cluster: PathBuf,
        /// Where the folders server-1, server-2 ... are made; they must not exist, or be empty
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
}

impl Tool {
    /// Whether these arguments name a tool.
    pub fn is_named(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
        arguments.nth(1).is_some_and(|word| word == "check" || word == "inspect" || word == "restore")
    }

    /// Runs it. The exit code is 1 if a folder is not healthy.
    pub fn run(self) -> Result<ExitCode, String> {
        match self {
            Tool::Check { options } => {
                println!("{}", check(&options)?);
                Ok(ExitCode::SUCCESS)
            }
            Tool::Inspect { folder } => {
                let report = inspect::inspect(&folder)?;
                print!("{}", report.text);
                Ok(if report.is_healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
            Tool::Restore { file, cluster, data } => {
                println!("{}", restore(&file, &cluster, &data)?);
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// Makes a fresh data folder for each server of a new cluster, each with the state of the backup.
pub fn restore(file: &Path, cluster: &Path, data: &Path) -> Result<String, String> {
    let cluster = Cluster::read(cluster).map_err(|error| error.to_string())?;
    let wrong = |error: &dyn std::fmt::Display| format!("backup {}: {error}", file.display());
    let opened = File::open(file).map_err(|error| wrong(&error))?;
    let (title, mut state) = backup::read(BufReader::new(opened)).map_err(|error| wrong(&error))?;
    if title.cluster == cluster.name {
        return Err(format!(
            "the backup is of cluster \"{0}\", and the new cluster is called \"{0}\" too: servers and clients of both could \
             meet. Give the new one another name in its file",
            title.cluster
        ));
    }
    let path = |server: crate::role::Server| data.join(format!("server-{}", server.0));
    for server in cluster.servers().iter() {
        let path = path(server);
        let is_empty = std::fs::read_dir(&path).map_or(!path.exists(), |mut entries| entries.next().is_none());
        if !is_empty {
            return Err(format!("{} is not empty: name another folder, or move it away", path.display()));
        }
    }
    let changes = state.take_changes();
    let mut folders = Vec::new();
    for server in cluster.servers().iter() {
        let folder = DataFolder::open(&path(server), &cluster.name, server).map_err(|error| error.to_string())?;
        let failed = |error: &dyn std::fmt::Display| format!("data folder {}: {error}", folder.path().display());
        let files = folder.checkpoint_files().map_err(|error| failed(&error))?;
        let opened = Checkpoint::open(files, folder.storage_id(), PART_BYTES, Kv::default());
        let (mut checkpoint, _) = opened.map_err(|error| failed(&error))?;
        checkpoint.write(title.mark(), &changes).map_err(|error| failed(&error))?;
        // Only now that the state is durable: the log begins behind it.
        let (mut journal, _) = folder.open_journal(SEGMENT_BYTES).map_err(|error| failed(&error))?;
        journal.commit(&[AcceptorRecord::Truncated(title.slot.next())]).map_err(|error| failed(&error))?;
        folder.open_rounds().map_err(|error| failed(&error))?;
        folders.push((server, folder));
    }
    // They know each other from the start: no other disk will be taken for one of these.
    for (server, folder) in &folders {
        for (other, theirs) in folders.iter().filter(|(other, _)| other != server) {
            folder.remember_peer(*other, theirs.storage_id()).map_err(|error| error.to_string())?;
        }
        folder.set_takes_part().map_err(|error| error.to_string())?;
    }
    Ok(format!(
        "{} data folders of cluster \"{}\" in {}, with {} keys, as of slot {} of cluster \"{}\"",
        folders.len(),
        cluster.name,
        data.display(),
        state.store().len(),
        title.slot,
        title.cluster
    ))
}
