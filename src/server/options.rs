//! The command line of a server.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, ValueEnum, ValueHint};

use crate::cluster::{Cluster, ClusterError, in_environment};
use crate::duration::parse_duration;
use crate::paxos::Retention;
pub use crate::protocol::Protocol;
use crate::role::RoleKind;
use crate::trace::LogLimits;

/// The allowed values of the options that are sizes.
const LOG_MAX_MIB: RangeInclusive<u64> = 1..=1 << 20;
const LOG_KEEP: RangeInclusive<i64> = 1..=1_000;
const SEGMENT_KIB: RangeInclusive<u64> = 64..=1 << 20;

/// The defaults of the command line. (Times stand there as text, and a test compares them.)
static DEFAULTS: LazyLock<ServerOptions> = LazyLock::new(|| ServerOptions::new(0, ""));
/// The cluster file, if the command line names none.
static CLUSTER_FILE: LazyLock<OsString> =
    LazyLock::new(|| in_environment().unwrap_or("res/cluster.toml".into()).into_os_string());

/// The options of a server: its command line, and the argument of [`Server::start`](super::Server::start).
///
/// A library user begins with [`ServerOptions::new`] and changes fields.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ServerOptions {
    /// Number of this server in the cluster file
    #[arg(long, value_name = "N")]
    pub id: u8,
    /// Cluster file; the environment variable PAXOS_CLUSTER sets another default
    #[arg(long, value_name = "FILE", default_value_os = CLUSTER_FILE.as_os_str(), value_hint = ValueHint::AnyPath,
        value_parser = PathBufValueParser::new().map(ClusterSource::File))]
    pub cluster: ClusterSource,
    /// Protocol by which the servers agree
    #[arg(long, value_enum, default_value_t = DEFAULTS.protocol)]
    pub protocol: Protocol,
    /// Data directory with the durable state of this server [default: data/server-N]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Directory for the log file server-N.log [default: no file, log lines on the terminal only]
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// Maximum size of the log file in MiB; a full file is renamed to server-N.log.1, that one to .2, and so on
    /// [default: no limit]
    #[arg(long, value_name = "MIB", requires = "log_dir", value_parser = clap::value_parser!(u64).range(LOG_MAX_MIB))]
    pub log_max_mib: Option<u64>,
    /// Number of renamed log files to keep
    #[arg(long, value_name = "N", requires = "log_max_mib", default_value_t = DEFAULTS.log_keep, value_parser = clap::value_parser!(u32).range(LOG_KEEP))]
    pub log_keep: u32,
    /// Write a log line for each step of the protocol [default: off for multi-paxos, on for the others]
    #[arg(long, value_enum)]
    pub steps: Option<OnOff>,
    /// Roles that crash at random times and restart
    #[arg(long, value_enum, default_value_t = DEFAULTS.fail)]
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
    #[arg(long, value_enum, default_value_t = DEFAULTS.restart)]
    pub restart: RecoveryMode,
    /// Allow clients and browsers to crash and restart roles and to cut links; the page gets a form for requests
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
    #[arg(long, value_name = "KIB", default_value_t = DEFAULTS.segment_kib, value_parser = clap::value_parser!(u64).range(SEGMENT_KIB))]
    pub segment_kib: u64,
    /// Write a checkpoint after every N slots, or after 32 MiB of values
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.checkpoint_slots, value_parser = clap::value_parser!(u64).range(1..))]
    pub checkpoint_slots: u64,
    /// Keep at most N slots in memory that the checkpoint already contains, for servers that are slightly behind (at
    /// most 16 MiB of values)
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.retain_slots)]
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

/// Where a server takes its cluster from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterSource {
    /// A cluster file, read at the start.
    File(PathBuf),
    /// A cluster made from values, as by [`Cluster::from_members`].
    Value(Cluster),
}

impl ClusterSource {
    /// The cluster.
    pub fn read(&self) -> Result<Cluster, ClusterError> {
        match self {
            ClusterSource::File(path) => Cluster::read(path),
            ClusterSource::Value(cluster) => Ok(cluster.clone()),
        }
    }
}

impl fmt::Display for ClusterSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClusterSource::File(path) => path.display().fmt(f),
            ClusterSource::Value(cluster) => write!(f, "cluster \"{}\"", cluster.name),
        }
    }
}

impl<P: AsRef<OsStr> + ?Sized> From<&P> for ClusterSource {
    fn from(path: &P) -> ClusterSource {
        ClusterSource::File(path.as_ref().into())
    }
}

impl From<PathBuf> for ClusterSource {
    fn from(path: PathBuf) -> ClusterSource {
        ClusterSource::File(path)
    }
}

impl From<Cluster> for ClusterSource {
    fn from(cluster: Cluster) -> ClusterSource {
        ClusterSource::Value(cluster)
    }
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
    /// The options of server `id` of this cluster: everything else is as on the command line without more arguments.
    pub fn new(id: u8, cluster: impl Into<ClusterSource>) -> ServerOptions {
        ServerOptions {
            id,
            cluster: cluster.into(),
            protocol: Protocol::MultiPaxos,
            data: None,
            log_dir: None,
            log_max_mib: None,
            log_keep: 5,
            steps: None,
            fail: FailureMode::None,
            mean_up: Duration::from_secs(4),
            mean_down: Duration::from_millis(1_500),
            seed: None,
            restart: RecoveryMode::Disk,
            lab: false,
            sync_delay: None,
            insecure: false,
            segment_kib: 16 << 10,
            checkpoint_slots: Retention::DEFAULT.checkpoint_slots,
            retain_slots: Retention::DEFAULT.keep_slots,
            http: None,
            #[cfg(feature = "seeded-bugs")]
            bug: None,
            quiet: false,
        }
    }

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

    /// Refuses sizes that the command line does not accept.
    pub fn check_sizes(&self) -> Result<(), String> {
        let keep = *LOG_KEEP.start() as u64..=*LOG_KEEP.end() as u64;
        let sizes = [
            ("log_max_mib", self.log_max_mib.unwrap_or(*LOG_MAX_MIB.start()), LOG_MAX_MIB),
            ("log_keep", self.log_keep.into(), keep),
            ("segment_kib", self.segment_kib, SEGMENT_KIB),
            ("checkpoint_slots", self.checkpoint_slots, 1..=u64::MAX),
        ];
        match sizes.into_iter().find(|(_, size, allowed)| !allowed.contains(size)) {
            Some((option, size, allowed)) => {
                Err(format!("{option} = {size} is not between {} and {}", allowed.start(), allowed.end()))
            }
            None => Ok(()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_library_user_are_those_of_an_empty_command_line() {
        let parsed = ServerOptions::of(&["--cluster", "c.toml"]);
        assert_eq!(ServerOptions::new(1, "c.toml"), parsed);
    }

    #[test]
    fn sizes_that_the_command_line_refuses_are_refused() {
        let wrong = |change: fn(&mut ServerOptions)| {
            let mut options = ServerOptions::new(1, "c.toml");
            assert_eq!(options.check_sizes(), Ok(()));
            change(&mut options);
            options.check_sizes().unwrap_err()
        };
        assert!(wrong(|options| options.segment_kib = 63).contains("segment_kib = 63 is not between 64 and"));
        assert!(wrong(|options| options.checkpoint_slots = 0).contains("checkpoint_slots"));
        assert!(wrong(|options| options.log_keep = 1_001).contains("log_keep"));
        assert!(wrong(|options| options.log_max_mib = Some(0)).contains("log_max_mib"));
    }
}
