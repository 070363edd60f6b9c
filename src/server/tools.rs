//! The tools of `paxos-server`: inspect a data directory, create data directories from a backup, make a server forget a
//! peer's data directory, and read the log lines of a run.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use super::check::check;
use super::options::ServerOptions;
use crate::cluster::Cluster;
use crate::role::ServerId;
use crate::storage::journal::SEGMENT_BYTES;
use crate::storage::restore::Restore;
use crate::storage::{DataDir, backup, inspect};
use crate::trace::read_command::ReadCommand;

/// The tools, by the first word behind `paxos-server`.
#[derive(Parser)]
#[command(name = "paxos-server", version)]
pub enum Tool {
    /// Check whether a server with these options would start; start and change nothing
    #[command(args_override_self = true)]
    Check {
        /// The options of a start.
        #[command(flatten)]
        options: Box<ServerOptions>,
    },
    /// Show what a data directory or a backup contains and whether it is healthy; change nothing
    Inspect {
        /// Data directory of one server, or a backup file
        #[arg(value_name = "PATH")]
        dir: PathBuf,
    },
    /// Create the data directories of a new cluster from a backup (see `paxos-client backup`)
    Restore {
        /// Backup file
        file: PathBuf,
        /// Cluster file of the new cluster; the cluster's name must differ from the old one
        #[arg(long, value_name = "FILE")]
        cluster: PathBuf,
        /// Directory in which server-1, server-2 ... are created; each of them must be missing or empty
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Make a stopped server forget a peer's data directory, so that the peer can return with a new one
    ///
    /// A server refuses a peer whose data directory is not the recorded one, or is an old copy of it: the peer's
    /// promises are not in there. Use this only if the recorded directory is lost forever or was never admitted, and on
    /// every server that refuses the peer.
    Forget {
        /// Data directory of the stopped server
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Number of the peer
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(ServerId::MAX)))]
        peer: u8,
    },
    /// A command that reads log lines.
    #[command(flatten)]
    Read(ReadCommand),
}

impl Tool {
    /// Whether these arguments name a tool.
    pub fn is_named(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
        const TOOLS: [&str; 4] = ["check", "inspect", "restore", "forget"];
        arguments.nth(1).is_some_and(|word| TOOLS.iter().chain(&ReadCommand::NAMES).any(|tool| word == *tool))
    }

    /// Runs the tool. The exit code is 1 if a data directory is not healthy.
    pub fn run(self) -> Result<ExitCode, String> {
        match self {
            Tool::Check { options } => {
                println!("{}", check(&options)?);
                Ok(ExitCode::SUCCESS)
            }
            Tool::Inspect { dir } => {
                let report = inspect::inspect(&dir)?;
                print!("{}", report.text);
                Ok(if report.is_healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
            Tool::Restore { file, cluster, data } => {
                println!("{}", restore(&file, &cluster, &data)?);
                Ok(ExitCode::SUCCESS)
            }
            Tool::Forget { dir, peer } => {
                println!("{}", forget(&dir, peer)?);
                Ok(ExitCode::SUCCESS)
            }
            Tool::Read(command) => {
                let (text, code) = command.run()?;
                print_all(&text)?;
                Ok(ExitCode::from(code))
            }
        }
    }
}

/// Prints a long text. A reader may close the pipe early, as `head` does.
fn print_all(text: &str) -> Result<(), String> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("cannot write the result: {error}")),
        _ => Ok(()),
    }
}

/// Creates a data directory for each server of a new cluster, each with the state of the backup.
pub fn restore(file: &Path, cluster: &Path, data: &Path) -> Result<String, String> {
    let cluster = Cluster::read(cluster).map_err(|error| error.to_string())?;
    let wrong = |error: &dyn std::fmt::Display| format!("backup {}: {error}", file.display());
    let opened = File::open(file).map_err(|error| wrong(&error))?;
    let (title, state) = backup::read(BufReader::new(opened)).map_err(|error| wrong(&error))?;
    if title.cluster == cluster.name {
        return Err(format!(
            "the backup and the new cluster have the same name \"{0}\", so servers and clients of the two clusters \
             could connect to each other. Choose another name in the new cluster file",
            title.cluster
        ));
    }
    let keys = state.store().len();
    Restore { title: &title, cluster: &cluster, data, segment_bytes: SEGMENT_BYTES }.run(state)?;
    Ok(format!(
        "created {} data directories of cluster \"{}\" in {}: {keys} keys, as of slot {} of cluster \"{}\"",
        cluster.servers().len(),
        cluster.name,
        data.display(),
        title.slot,
        title.cluster
    ))
}

/// Makes a stopped server forget the data directory of a peer.
fn forget(dir: &Path, peer: u8) -> Result<String, String> {
    let (identity, _lock) = DataDir::read_identity(dir).map_err(|error| error.to_string())?;
    let (cluster, members, ServerId(me)) = identity.owner();
    if peer == me {
        return Err(format!("{} is the data directory of server {me} itself. Choose one of its peers", dir.display()));
    }
    let at = dir.display();
    let forgotten = identity.forget_peer(ServerId(peer)).map_err(|error| format!("data directory {at}: {error}"))?;
    if !forgotten {
        let members = members.numbers();
        return Err(format!(
            "server {me} has recorded no data directory of server {peer}: there is nothing to forget. Cluster \
             \"{cluster}\" has servers {members}"
        ));
    }
    Ok(format!(
        "server {me} has forgotten the data directory of server {peer} and its incarnation, and will record the next \
         one of server {peer}. This is safe only if the old directory is lost forever or was never admitted: two data \
         directories of one server that both vote can make the cluster lose acknowledged writes"
    ))
}
