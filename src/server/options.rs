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
    /// Number of this server in the cluster file
    #[arg(long, value_name = "N")]
    pub id: u8,
    /// Cluster file; the environment variable PAXOS_CLUSTER sets another default
    #[arg(long, value_name = "FILE", default_value_os_t = in_environment().unwrap_or("res/cluster.toml".into()))]
    pub cluster: PathBuf,
    /// Protocol by which the servers agree
    #[arg(long, value_enum, default_value_t = Protocol::MultiPaxos)]
    pub protocol: Protocol,
    /// Data directory with the durable state of this server [default: data/server-N]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Directory for the log file server-N.log [default: no file, log lines on the terminal only]
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// Maximum size of the log file in MiB; a full file is renamed to server-N.log.1, that one to .2, and so on
    /// [default: no limit]
    #[arg(long, value_name = "MIB", requires = "log_dir", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub log_max_mib: Option<u64>,
    /// Number of renamed log files to keep
    #[arg(long, value_name = "N", requires = "log_max_mib", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub log_keep: u32,
    /// Write a log line for each step of the protocol [default: off for multi-paxos, on for the others]
    #[arg(long, value_enum)]
    pub steps: Option<OnOff>,
    /// Roles that crash at random times and restart
    #[arg(long, value_enum, default_value_t = FailureMode::None)]
    pub fail: FailureMode,
    /// Mean time until a role crashes; each time is drawn from 0.5 to 1.5 times TIME
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "4s")]
    pub mean_up: Duration,
    /// Mean time until a crashed role restarts; drawn in the same way
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1.5s")]
    pub mean_down: Duration,
    /// Seed of the crash times and all other random choices [default: drawn, and shown in the BOOT line]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// State of an acceptor that restarts after a crash: `disk` what is on its disk; `lost` none, which is UNSAFE
    #[arg(long, value_enum, default_value_t = RecoveryMode::Disk)]
    pub restart: RecoveryMode,
    /// Allow clients and browsers to crash and restart roles
    #[arg(long)]
    pub lab: bool,
    /// Delay every disk sync of the acceptor by TIME, to measure the cost of a slow disk (requires --lab)
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "lab")]
    pub sync_delay: Option<Duration>,
    /// Allow addresses other than loopback, although the store has no encryption and no authentication
    #[arg(long)]
    pub insecure: bool,
    /// Length of the acceptor's journal files in KiB; longer files are created less often. Below 4096, the disk can run
    /// full in the middle of a large value, which stops the server
    #[arg(long, value_name = "KIB", default_value_t = 16 << 10, value_parser = clap::value_parser!(u64).range(64..=1 << 20))]
    pub segment_kib: u64,
    /// Write a checkpoint after every N slots, or after 32 MiB of values
    #[arg(long, value_name = "N", default_value_t = Retention::DEFAULT.checkpoint_slots, value_parser = clap::value_parser!(u64).range(1..))]
    pub checkpoint_slots: u64,
    /// Keep at most N slots in memory that the checkpoint already contains, for servers that are slightly behind (at
    /// most 16 MiB of values)
    #[arg(long, value_name = "N", default_value_t = Retention::DEFAULT.keep_slots)]
    pub retain_slots: u64,
    /// Address for browsers: http://ADDR/, with /status and /metrics [default: the http address in the cluster file, if
    /// any]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Enable this seeded bug in all threads of this server
    #[cfg(feature = "seeded-bugs")]
    #[arg(long, value_name = "BUG")]
    pub bug: Option<crate::seeded_bugs::Bug>,
    /// Print no log lines on the terminal
    #[arg(long)]
    pub quiet: bool,
}

/// Whether the steps of the protocol are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// One line for each step.
    On,
    /// Rare events only, such as starts, crashes and faults.
    Off,
}

/// Which roles fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailureMode {
    /// No role.
    None,
    /// Acceptor; under two-phase commit the participant.
    #[value(alias = "participants")]
    Acceptors,
    /// Proposer, acceptor and learner; under two-phase commit coordinator and participant.
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

/// The state of an acceptor that restarts after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RecoveryMode {
    /// The promises and accepted values on its disk.
    Disk,
    /// UNSAFE: no promises and no accepted values, so a chosen value can be lost.
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
    pub fn data_dir(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| format!("data/server-{}", self.id).into())
    }

    /// The log file, and its directory.
    pub fn log_file(&self) -> Option<(&Path, PathBuf)> {
        let dir = self.log_dir.as_deref()?;
        Some((dir, dir.join(format!("server-{}.log", self.id))))
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
            "{address} is not a loopback address, and this store has no encryption and no authentication. Use 127.0.0.1, \
             or pass --insecure on a private network"
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
