//! The command line arguments of `paxos-client`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::IN_FLIGHT_MAX;
use super::bench;
use super::interrupt::Interrupt;
use crate::duration::parse_duration;
use crate::kv::VALUE_MAX_BYTES;
use crate::role::{RoleKind, ServerId};

/// Maximum number of clients in a demo.
const CLIENTS_MAX: u8 = 64;
const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  failure
  2  usage
  3  key not found
  4  certainly not applied (also: failed reads, version mismatches)
  5  outcome unknown: the write may have been applied, or may be applied later
  130, 143  interrupted by Ctrl-C or SIGTERM; the last message says what is known of the outcome

Examples:
  paxos-client put color \"deep blue\"
  paxos-client get color
  paxos-client put color red --if-version 1
  printf '\\000\\001' | paxos-client put blob -
  paxos-client run res/operations.txt
  paxos-client status --watch
  paxos-client shell
  paxos-client get color -o json
  paxos-client status
  paxos-client bench --clients 64 --reads 50
  paxos-client crash 3.acceptor --for 2s        (servers must run with --lab)
  paxos-client demo --clients 3 --scenes all    (fills the store and works on it)

If a server does not reply within 1 s, the client sends the request to the next server under the same session and
sequence number, so a write is applied at most once. Data goes to stdout, all messages go to stderr.";

const BENCH_HELP: &str = "\
Examples:
  paxos-client bench --clients 64 --reads 0           (writes, one request in flight per client)
  paxos-client bench --clients 4 --pipeline 16 -o json
  paxos-client bench --rate 2000 --duration 30s       (open loop: latency counts from the due time)
  paxos-client bench --servers 1,2 --reads 0          (basic-paxos: the proposers of two servers compete)
  paxos-client bench sweep --out charts               (starts its own servers; writes charts/sweep.csv)

A closed loop measures the maximum throughput. An open loop measures the latency of users that do not wait for each
other. If the servers run on this machine, the report also shows their CPU time per request.";

/// Client of a Paxos key-value store.
#[derive(Debug, Parser)]
#[command(name = "paxos-client", version, about, after_help = AFTER_HELP, args_override_self = true)]
pub(super) struct ClientCli {
    #[command(flatten)]
    pub(super) common: GlobalArgs,
    #[command(subcommand)]
    pub(super) command: ClientCommand,
}

#[derive(Debug, Args)]
pub(super) struct GlobalArgs {
    /// Cluster file [default: the value of PAXOS_CLUSTER, else res/cluster.toml in this directory or in a directory
    /// above the program]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) cluster: Option<PathBuf>,
    /// Server to send requests to first [default: any]
    #[arg(long, global = true, value_name = "N", value_parser = parse_server)]
    pub(super) server: Option<ServerId>,
    /// Maximum time for a whole request, all tries together
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    pub(super) timeout: Duration,
    /// Client name in log lines and request labels [default: the first free one of c1, c2 ... in the log directory]
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Output format of stdout: text, or one JSON object per result, also for errors
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum, default_value_t = OutputFormat::Text)]
    pub(super) output: OutputFormat,
    /// Directory for log lines. Commands share client.log; demo, shell and --name write client-N.log [default:
    /// runs/latest if it is a run of this cluster, else no log]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) log_dir: Option<PathBuf>,
    /// Handles Ctrl-C; set by the program, not by an argument.
    #[arg(skip)]
    pub(super) interrupt: Interrupt,
}

impl GlobalArgs {
    /// The cluster as the user named it, for messages.
    pub(super) fn cluster_name(&self) -> String {
        self.cluster.as_ref().map_or("the cluster".to_string(), |file| file.display().to_string())
    }
}

/// What stdout gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// Text for people.
    Text,
    /// One JSON object per result.
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Run the scripted demo: fill the store, use all servers, check the final state (writes and deletes keys)
    Demo(DemoArgs),
    /// Set the value of a key
    Put {
        /// Key: 0 to 4 KiB of any bytes (an empty key is valid)
        key: OsString,
        /// Value: at most 1 MiB; `-` reads it from standard input, unchanged
        value: Option<OsString>,
        /// Write only if the key is at version N (0: never written)
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
    },
    /// Print the value of a key
    Get {
        /// Key to read
        key: OsString,
        /// Print only the bytes of the value, without a line break after them
        #[arg(long)]
        raw: bool,
    },
    /// Delete the value of a key
    Delete {
        /// Key to delete
        key: OsString,
    },
    /// Execute the operations of a file, one per line: put KEY VALUE, get KEY, delete KEY, each after @SERVER if wanted
    Run {
        /// File with operations; `-` reads standard input
        file: PathBuf,
    },
    /// Show whether writes are possible now, and the state of every server; exit 1 if writes are not possible
    Status {
        /// Wait up to TIME until every server replies and writes are possible; exit 1 if that does not happen
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        wait: Option<Duration>,
        /// Repeat until Ctrl-C
        #[arg(long, conflicts_with = "wait")]
        watch: bool,
        /// With --watch: time between two queries
        #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1s", requires = "watch")]
        interval: Duration,
        /// With --watch: stop after N queries
        #[arg(long, value_name = "N", requires = "watch")]
        count: Option<u64>,
    },
    /// Write the whole store, as of one slot, to a file while the cluster runs (see `paxos-server restore`)
    Backup {
        /// Target file, readable only by its owner; `-` writes to standard output
        file: PathBuf,
        /// Replace an existing file, once the new one is complete
        #[arg(long)]
        force: bool,
    },
    /// Start an interactive prompt with history and Tab completion
    Shell,
    /// Measure throughput and latency
    #[command(after_help = BENCH_HELP, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Bench(BenchArgs),
    /// Print the servers, one per line: number, peer address, client address, and HTTP address if there is one
    Servers,
    /// Print a shell completion script
    Completions {
        /// Shell of the script; load it in bash with: source <(paxos-client completions bash)
        shell: clap_complete::Shell,
    },
    /// Crash one role of a server, or all of its roles (the server must run with --lab)
    Crash {
        /// Server, or one of its roles: 3 or 3.acceptor
        #[arg(value_parser = parse_target)]
        target: RoleTarget,
        /// Restart automatically after TIME [default: stay down until `restart`]
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        r#for: Option<Duration>,
    },
    /// Restart one crashed role of a server, or all of its roles (the server must run with --lab)
    Restart {
        /// Server, or one of its roles: 3 or 3.acceptor
        #[arg(value_parser = parse_target)]
        target: RoleTarget,
    },
    /// Cut the links between two servers, or between one server and all others (the servers must run with --lab)
    Cut(LinkArgs),
    /// Join the links between two servers that were cut, or between one server and all others
    Join(LinkArgs),
}

/// The links between two servers, or between one server and all others.
#[derive(Debug, Args)]
pub(super) struct LinkArgs {
    /// Server
    #[arg(value_name = "SERVER", value_parser = parse_server)]
    pub(super) one: ServerId,
    /// The other server [default: every other server]
    #[arg(value_name = "PEER", value_parser = parse_server)]
    pub(super) other: Option<ServerId>,
}

impl LinkArgs {
    /// A command for the same links.
    pub(super) fn command(&self, verb: &str) -> String {
        let other = self.other.map_or(String::new(), |other| format!(" {}", other.0));
        format!("{verb} {}{other}", self.one.0)
    }
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Pause between two operations of a client
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "750ms")]
    pub(super) pace: Duration,
    /// Number of clients; all execute the operations at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(CLIENTS_MAX)))]
    pub(super) clients: u8,
    /// Scenes to play; the scenes in which clients crash roles need servers with --lab
    #[arg(long, value_enum, default_value_t = SceneSet::Basic)]
    pub(super) scenes: SceneSet,
    /// Operations that fill the store first [default: res/prepopulate.txt, built in]
    #[arg(long, value_name = "FILE")]
    pub(super) prepopulate: Option<PathBuf>,
    /// Operations of each client [default: res/operations.txt, built in]
    #[arg(long, value_name = "FILE")]
    pub(super) operations: Option<PathBuf>,
    /// Maximum time for all replicas to reach the same state at the end
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    pub(super) settle: Duration,
}

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    pub(super) load: LoadArgs,
    /// Number of clients, each with its own connection and session
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clients())]
    pub(super) clients: u32,
    /// Length of a value in bytes
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_size)]
    pub(super) value_size: usize,
    /// Open loop: start N requests per second, all clients together [default: closed loop, as fast as possible]
    #[arg(long, value_name = "N", value_parser = up_to(10_000_000))]
    pub(super) rate: Option<u32>,
    /// Servers that the clients use first, in turn, as in 1,2 [default: --server, else the leader, else any]
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = parse_server)]
    pub(super) servers: Vec<ServerId>,
    #[command(subcommand)]
    pub(super) sweep: Option<BenchCommand>,
}

/// What a bench and a sweep have in common.
#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// Number of requests in flight per client
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = up_to(IN_FLIGHT_MAX as i64))]
    pub(super) pipeline: u32,
    /// Time to measure
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    pub(super) duration: Duration,
    /// Time to run the load before the measurement
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1s")]
    pub(super) warm_up: Duration,
    /// Share of requests that are (linearizable) reads, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(super) reads: u8,
    /// Number of keys
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = up_to(100_000_000))]
    pub(super) keys: u32,
    /// Number of threads of the load generator
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = up_to(bench::THREADS_MAX))]
    pub(super) threads: u32,
}

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Start one cluster after the other, measure each, and write a CSV file
    Sweep(SweepArgs),
}

#[derive(Debug, Args)]
pub(super) struct SweepArgs {
    #[command(flatten)]
    pub(super) load: LoadArgs,
    /// Protocols to measure
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',', default_value = "basic-paxos,multi-paxos")]
    pub(super) protocols: Vec<String>,
    /// Cluster sizes to measure
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,3,5,7", value_parser = servers())]
    pub(super) servers: Vec<u8>,
    /// Numbers of clients to measure
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,16,64,256", value_parser = clients())]
    pub(super) clients: Vec<u32>,
    /// Value lengths in bytes: the first one with each number of clients, the others with 64 clients
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "100,1000,10000", value_parser = value_size)]
    pub(super) value_sizes: Vec<usize>,
    /// Directory for sweep.csv, which benches/chart.py draws
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) out: PathBuf,
    /// Server program [default: paxos-server in the directory of this program]
    #[arg(long, value_name = "FILE")]
    pub(super) program: Option<PathBuf>,
}

/// Parses a number from 1 to `limit`.
fn up_to(limit: impl Into<i64>) -> impl TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(1..=limit.into())
}

fn clients() -> impl TypedValueParser<Value = u32> {
    up_to(bench::CLIENTS_MAX)
}

fn servers() -> impl TypedValueParser<Value = u8> {
    clap::value_parser!(u8).range(1..=31)
}

fn value_size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| *size <= VALUE_MAX_BYTES);
    size.ok_or_else(|| format!("'{text}' is not a value length (0 to {VALUE_MAX_BYTES} bytes)"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SceneSet {
    /// Pre-population, five PUT, five GET, five DELETE, and the check.
    Basic,
    /// Also malformed bytes, two clients on one key, a majority outage, and a leader crash.
    All,
}

/// A server, or one of its roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RoleTarget {
    pub(super) server: ServerId,
    pub(super) role: Option<RoleKind>,
}

impl RoleTarget {
    /// The target as the subject of a sentence, with the verb in singular or plural.
    pub(super) fn with_verb(&self, one: &str, more: &str) -> String {
        let server = self.server.0;
        match self.role {
            Some(role) => format!("the {} of server {server} {one}", role.as_str()),
            None => format!("all roles of server {server} {more}"),
        }
    }
}

/// Parses `3` or `3.acceptor`.
fn parse_target(text: &str) -> Result<RoleTarget, String> {
    let wrong = || format!("'{text}' is not a server or role (examples: 3, 3.acceptor)");
    let (number, role) = text.split_once('.').map_or((text, None), |(number, role)| (number, Some(role)));
    let role = match role {
        None => None,
        Some(role) => Some(RoleKind::named(role).ok_or_else(wrong)?),
    };
    Ok(RoleTarget { server: parse_server(number).map_err(|_| wrong())?, role })
}

/// Parses `3`, or `s3` as in log lines.
fn parse_server(text: &str) -> Result<ServerId, String> {
    let number = text.trim_start_matches('s').parse().ok().filter(|number| (1..=ServerId::MAX).contains(number));
    number.map(ServerId).ok_or_else(|| format!("not a server number (1 to {})", ServerId::MAX))
}
