//! The command line of a server.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cluster::in_environment;
use crate::duration::parse_duration;
use crate::paxos::Retention;
pub use crate::protocol::Protocol;
use crate::role::RoleKind;
use crate::trace::LogLimits;

/// The command line of a server.
#[derive(Clone, Debug, Args)]
pub struct ServerOptions {
    /// Which server of the cluster file this is
    #[arg(long, value_name = "N")]
    pub id: u8,
    /// The cluster file; the environment variable PAXOS_CLUSTER names another default
    #[arg(long, value_name = "FILE", default_value_os_t = in_environment().unwrap_or("res/cluster.toml".into()))]
    pub cluster: PathBuf,
    /// How the servers agree
    #[arg(long, value_enum, default_value_t = Protocol::MultiPaxos)]
    pub protocol: Protocol,
    /// The data folder: what this server must never forget [default: data/server-N]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where server-N.log goes [default: no file, lines on the terminal only]
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// A log file that would grow beyond this is renamed to server-N.log.1, that one to .2 and so on [default: no
    /// bound]
    #[arg(long, value_name = "MIB", requires = "log_dir", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub log_max_mib: Option<u64>,
    /// How many renamed log files are kept
    #[arg(long, value_name = "FILES", requires = "log_max_mib", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub log_keep: u32,
    /// Whether the steps of the protocol are shown, a line each [default: off for multi-paxos, else on]
    #[arg(long, value_enum)]
    pub steps: Option<OnOff>,
    /// Which roles fail at random times and come back
    #[arg(long, value_enum, default_value_t = FailureMode::None)]
    pub fail: FailureMode,
    /// How long a failing role lives, on average (drawn from 0.5 to 1.5 times that)
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "4s")]
    pub mean_up: Duration,
    /// How long it is down, on average
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1.5s")]
    pub mean_down: Duration,
    /// Fixes the times of failures and all other random choices [default: drawn, and told in the BOOT line]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// What a restarted acceptor remembers: `disk` all that its disk holds; `lost` nothing, which is UNSAFE
    #[arg(long, value_enum, default_value_t = RecoveryMode::Disk)]
    pub restart: RecoveryMode,
    /// Lets clients crash and restart roles
    #[arg(long)]
    pub lab: bool,
    /// Each sync of the acceptor's disk takes so much longer, to see what a slow disk costs; with --lab only
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "lab")]
    pub sync_delay: Option<Duration>,
    /// Allows addresses that are not loopback: everything is sent in the clear, and nobody is asked who they are
    #[arg(long)]
    pub insecure: bool,
    /// The length of the acceptor's journal files in KiB; longer ones are made less often, and below 4096 a large value
    /// can meet a full disk in the middle, which stops the server
    #[arg(long, value_name = "KIB", default_value_t = 16 << 10, value_parser = clap::value_parser!(u64).range(64..=1 << 20))]
    pub segment_kib: u64,
    /// After how many slots the state is written to the checkpoint (or after 32 MiB of values)
    #[arg(long, value_name = "SLOTS", default_value_t = Retention::DEFAULT.checkpoint_slots, value_parser = clap::value_parser!(u64).range(1..))]
    pub checkpoint_slots: u64,
    /// How many slots that the checkpoint holds stay in memory, for servers that are a little behind (up to 16 MiB of
    /// values)
    #[arg(long, value_name = "SLOTS", default_value_t = Retention::DEFAULT.keep_slots)]
    pub retain_slots: u64,
    /// Where browsers can watch: http://ADDR/, with /status and /metrics [default: what the cluster file says, or
    /// nowhere]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// A seeded bug, in all threads of this server
    #[cfg(feature = "seeded-bugs")]
    #[arg(long, value_name = "BUG")]
    pub bug: Option<crate::seeded_bugs::Bug>,
    /// No copy of the lines on the terminal
    #[arg(long)]
    pub quiet: bool,
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// Yes.
    On,
    /// No.
    Off,
}

/// Which roles fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailureMode {
    /// None.
    None,
    /// The acceptor; the participant of two-phase commit.
    #[value(alias = "participants")]
    Acceptors,
    /// Proposer, acceptor and learner; coordinator and participant.
    All,
}

impl FailureMode {
    /// Whether a role fails.
    pub fn includes(self, role: RoleKind) -> bool {
        match self {
            FailureMode::None => false,
            FailureMode::Acceptors => matches!(role, RoleKind::Acceptor | RoleKind::Participant),
            FailureMode::All => true,
        }
    }
}

/// What a restarted acceptor remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RecoveryMode {
    /// What its disk holds.
    Disk,
    /// Nothing: a chosen value can be un-chosen.
    Lost,
}

macro_rules! named_as_on_the_command_line {
    ($($kind:ty),+) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
            }
        }
    )+};
}
named_as_on_the_command_line!(Protocol, OnOff, FailureMode, RecoveryMode);

impl ServerOptions {
    /// Whether the protocol steps are traced. By default MultiPaxos omits them: it runs for speed, and a write has
    /// about a dozen lines.
    pub fn shows_steps(&self) -> bool {
        self.steps.map_or(self.protocol != Protocol::MultiPaxos, |steps| steps == OnOff::On)
    }

    /// The data directory.
    pub fn data_folder(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| format!("data/server-{}", self.id).into())
    }

    /// The log file, and its directory.
    pub fn log_file(&self) -> Option<(&Path, PathBuf)> {
        let folder = self.log_dir.as_deref()?;
        Some((folder, folder.join(format!("server-{}.log", self.id))))
    }

    /// The limits of the log files, if there are any.
    pub fn log_bound(&self) -> Option<LogLimits> {
        self.log_max_mib.map(|mib| LogLimits { file_bytes: mib << 20, keep: self.log_keep })
    }

    /// The length of the acceptor's journal files, in bytes.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_kib << 10
    }

    /// How much of the log is kept.
    pub fn retention(&self) -> Retention {
        Retention { checkpoint_slots: self.checkpoint_slots, keep_slots: self.retain_slots, ..Retention::DEFAULT }
    }

    /// Refuses an address at which unencrypted data would reach another machine.
    pub fn check_address(&self, address: SocketAddr) -> Result<(), String> {
        if address.ip().is_loopback() || self.insecure {
            return Ok(());
        }
        Err(format!(
            "the address {address} is not a loopback address, and this store has neither encryption nor passwords. Use \
             127.0.0.1, or say --insecure if the network is yours alone"
        ))
    }

    /// Refuses failure times that make no sense.
    pub fn check_failures(&self) -> Result<(), String> {
        let shortest = Duration::from_millis(10);
        if self.fail != FailureMode::None && (self.mean_up < shortest || self.mean_down < shortest) {
            return Err("--mean-up and --mean-down must be at least 10ms".to_string());
        }
        Ok(())
    }
}

#[cfg(any(test, fuzzing, feature = "test-support"))]
impl ServerOptions {
    /// The options of server 1 with these arguments.
    pub fn of(arguments: &[&str]) -> ServerOptions {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            options: ServerOptions,
        }
        <Cli as clap::Parser>::parse_from([&["paxos-server", "--id", "1"], arguments].concat()).options
    }
}
