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
  4  certainly not applied (failed reads and version mismatches too)
  5  outcome unknown: the write may be applied, now or later
  130, 143  interrupted by Ctrl-C or SIGTERM, whatever is known of the outcome

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

A request that a server does not answer within 1 s goes on to the next server, under the same number, so that it is
applied once. Data goes to stdout, everything else to stderr.";

const BENCH_HELP: &str = "\
Examples:
  paxos-client bench --clients 64 --reads 0           (writes, each client with one request under way)
  paxos-client bench --clients 4 --pipeline 16 -o json
  paxos-client bench --rate 2000 --duration 30s       (an open loop: times count from when a request was due)
  paxos-client bench --servers 1,2 --reads 0               (basic-paxos: two servers' proposers duel)
  paxos-client bench sweep --out charts               (starts its own servers; sweep.csv and sweep.svg)

A closed loop measures what the cluster can do; an open loop what somebody waits who does not wait for others. The
generator shares this machine with the servers, so their CPU a request stands beside the throughput.";

/// Talks to a Paxos key-value store.
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
    /// The cluster file [default: what the environment variable PAXOS_CLUSTER names, else res/cluster.toml, here or
    /// beside the program's sources]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) cluster: Option<PathBuf>,
    /// The server to ask first [default: any]
    #[arg(long, global = true, value_name = "N", value_parser = parse_server)]
    pub(super) server: Option<ServerId>,
    /// How long a whole request may take, all tries together
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    pub(super) timeout: Duration,
    /// The client's name in lines and labels [default: the first of c1, c2 ... that is free in the log folder]
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// What stdout gets: words for people, or one JSON object a result, errors too
    #[arg(short, long, global = true, value_name = "FORM", value_enum, default_value_t = OutputFormat::Text)]
    pub(super) output: OutputFormat,
    /// Where the lines go: client.log, which commands share, or a client-N.log of a demo, a shell or a --name
    /// [default: runs/latest if it is a run of this cluster, else no file]
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
    /// Words for people.
    Text,
    /// One object a result.
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Fill the store, work on it through all servers, and check what is left: it writes and deletes keys
    Demo(DemoArgs),
    /// Set a key's value
    Put {
        /// The key, at most 4 KiB; any bytes, and none at all is a key as well
        key: OsString,
        /// The value, at most 1 MiB; `-`: read it from standard input, as it is
        value: Option<OsString>,
        /// Only if the key is at this version (0: never written)
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
    },
    /// Print a key's value
    Get {
        /// The key
        key: OsString,
        /// Print the value's bytes and nothing else: no line break behind them
        #[arg(long)]
        raw: bool,
    },
    /// Remove a key's value
    Delete {
        /// The key
        key: OsString,
    },
    /// Do the operations of a file, one a line: put KEY VALUE | get KEY | delete KEY, perhaps behind @SERVER
    Run {
        /// The file; `-`: standard input
        file: PathBuf,
    },
    /// Show whether writes are possible now, and how every server is; exit code 1 if they are not
    Status {
        /// Wait so long until every server answers and writes are possible, and fail if that does not come
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        wait: Option<Duration>,
        /// Show it again and again, until Ctrl-C
        #[arg(long, conflicts_with = "wait")]
        watch: bool,
        /// With --watch: how often
        #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1s", requires = "watch")]
        interval: Duration,
        /// With --watch: how many looks before it ends
        #[arg(long, value_name = "N", requires = "watch")]
        count: Option<u64>,
    },
    /// Write the whole store to a file, as of one slot, while the cluster goes on (see `paxos-server restore`)
    Backup {
        /// The file, which only its owner may read; `-`: standard output
        file: PathBuf,
        /// Replace a file that is there, once the new one is whole
        #[arg(long)]
        force: bool,
    },
    /// Do one operation after the other, as they are typed: with a history, and Tab completes
    Shell,
    /// Measure how many requests the cluster does, and how long each takes
    #[command(after_help = BENCH_HELP, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Bench(BenchArgs),
    /// Print the cluster's servers, one a line: number, address for peers, for clients, and for browsers if there is
    /// one
    Servers,
    /// Print what makes a shell complete this program's words: source <(paxos-client completions bash)
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// End the thread of a role, or of all three (servers must run with --lab)
    Crash {
        /// The server, or one of its roles: 3 or 3.acceptor
        #[arg(value_parser = parse_target)]
        target: RoleTarget,
        /// How long it stays down [default: until `restart`]
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        r#for: Option<Duration>,
    },
    /// Start a crashed role again, or all three (servers must run with --lab)
    Restart {
        /// The server, or one of its roles: 3 or 3.acceptor
        #[arg(value_parser = parse_target)]
        target: RoleTarget,
    },
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Between two operations of a client
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "750ms")]
    pub(super) pace: Duration,
    /// How many clients do the operations, all at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(CLIENTS_MAX)))]
    pub(super) clients: u8,
    /// `all` adds malformed bytes, two clients on one key, and a majority outage (which needs servers with --lab)
    #[arg(long, value_enum, default_value_t = SceneSet::Basic)]
    pub(super) scenes: SceneSet,
    /// What the store holds at first, as a file of operations [default: res/prepopulate.txt, built in]
    #[arg(long, value_name = "FILE")]
    pub(super) prepopulate: Option<PathBuf>,
    /// What each client does, as a file of operations [default: res/operations.txt, built in]
    #[arg(long, value_name = "FILE")]
    pub(super) operations: Option<PathBuf>,
    /// How long the servers may take to come to the same state at the end
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    pub(super) settle: Duration,
}

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    pub(super) load: LoadArgs,
    /// How many clients there are, each with a connection and a session of its own
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clients())]
    pub(super) clients: u32,
    /// The length of a value, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = value_size)]
    pub(super) value_size: usize,
    /// Requests a second, all clients together, each begun when it is due (an open loop) [default: as many as it takes]
    #[arg(long, value_name = "N", value_parser = up_to(10_000_000))]
    pub(super) rate: Option<u32>,
    /// The servers that the clients ask first, in turn, as in 1,2 [default: --server, or the one that leads]
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = parse_server)]
    pub(super) servers: Vec<ServerId>,
    #[command(subcommand)]
    pub(super) sweep: Option<BenchCommand>,
}

/// What a bench and a sweep have in common.
#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// How many requests each client has under way
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = up_to(IN_FLIGHT_MAX as i64))]
    pub(super) pipeline: u32,
    /// How long to measure
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    pub(super) duration: Duration,
    /// How long the load runs before that
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1s")]
    pub(super) warm_up: Duration,
    /// How many of a hundred requests are reads; linearizable ones
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(super) reads: u8,
    /// How many keys there are
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = up_to(100_000_000))]
    pub(super) keys: u32,
    /// How many threads the clients share
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = up_to(bench::THREADS_MAX))]
    pub(super) threads: u32,
}

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Measure one cluster after the other, started for it: a CSV file and a picture
    Sweep(SweepArgs),
}

#[derive(Debug, Args)]
pub(super) struct SweepArgs {
    #[command(flatten)]
    pub(super) load: LoadArgs,
    /// How the servers agree
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',', default_value = "basic-paxos,multi-paxos")]
    pub(super) protocols: Vec<String>,
    /// How many servers there are
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,3,5,7", value_parser = servers())]
    pub(super) servers: Vec<u8>,
    /// How many clients there are
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,16,64,256", value_parser = clients())]
    pub(super) clients: Vec<u32>,
    /// The lengths of values in bytes; the first with all clients, all of them with 64
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "100,1000,10000", value_parser = value_size)]
    pub(super) value_sizes: Vec<usize>,
    /// Where sweep.csv and sweep.svg go
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) out: PathBuf,
    /// The program that serves [default: the paxos-server beside this program]
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
    size.ok_or_else(|| format!("'{text}' is no length of a value (0 to {VALUE_MAX_BYTES} bytes)"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SceneSet {
    /// Pre-population, five PUT, five GET, five DELETE, the check.
    Basic,
    /// Malformed bytes, two clients on one key and a majority outage as well.
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
    let wrong = || format!("'{text}' is no server or role (write 3 or 3.acceptor)");
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
    number.map(ServerId).ok_or_else(|| format!("it is not a server number (1 to {})", ServerId::MAX))
}
