//! A load on etcd: the loop and the report of `paxos-client bench`, over etcd's own protocol.
//!
//! `fill` writes every key once, `load` runs a closed loop, `gap` finds the longest time without an acknowledged write
//! while servers are killed, `first` waits for the first acknowledged write. Everything ends after the given time.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use etcd_client::{Client, ConnectOptions, Error};
use hdrhistogram::Histogram;
use tokio::task::{JoinSet, LocalSet};

/// Time limit of a try of the commands `gap` and `first`; then the next server is tried.
const TRY: Duration = Duration::from_millis(100);
const CONNECT: Duration = Duration::from_secs(2);

/// A closed-loop load on etcd.
#[derive(Debug, Parser)]
struct Cli {
    /// Client addresses of the servers, such as http://127.0.0.1:2379
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    /// Number of keys
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// Length of a value in bytes
    #[arg(long, default_value_t = 100)]
    value_size: usize,
    /// Number of clients
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Duration of the load in seconds
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write every key once
    Fill,
    /// Keep one request of each client in flight at the first endpoint
    Load(Load),
    /// Write, fail over to the next server after 100 ms, and print the longest time without a success
    Gap,
    /// Wait until any server acknowledges a write
    First,
}

#[derive(Clone, Debug, Args)]
struct Load {
    /// Percentage of linearizable reads
    #[arg(long, default_value_t = 50)]
    reads: u64,
    /// Number of connections that the clients share [default: one per client]
    #[arg(long)]
    connections: Option<usize>,
    /// Duration of the load in seconds before the measurement starts
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Process ids of the servers, whose CPU time is measured
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
}

fn main() -> Result<(), Error> {
    let cli = Cli::parse();
    // One thread, as the other generator has: what it costs is in the comparison.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        match &cli.what {
            What::Fill => fill(&cli).await,
            What::Load(load) => measure(&cli, load).await,
            What::Gap => gap(&cli).await,
            What::First => first(&cli).await,
        }
    })
}

async fn connect(endpoint: &str) -> Result<Client, Error> {
    Client::connect([endpoint], Some(ConnectOptions::new().with_connect_timeout(CONNECT))).await
}

/// The n-th key: 16 bytes.
fn key(n: u64) -> Vec<u8> {
    format!("key-{n:012}").into_bytes()
}

/// A small generator of numbers (xorshift): a load needs nothing better.
struct Numbers(u64);

impl Numbers {
    fn new(seed: u64) -> Numbers {
        Numbers(0x9e37_79b9_7f4a_7c15 ^ (seed + 1) << 20)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

async fn fill(cli: &Cli) -> Result<(), Error> {
    let client = connect(&cli.endpoints[0]).await?;
    let mut tasks = JoinSet::new();
    for n in 0..cli.keys {
        if tasks.len() >= cli.clients
            && let Some(done) = tasks.join_next().await
        {
            done.unwrap_or_else(|error| panic!("{error}"))?;
        }
        let (mut client, value) = (client.clone(), vec![b'v'; cli.value_size]);
        tasks.spawn_local(async move { client.put(key(n), value, None).await.map(drop) });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap_or_else(|error| panic!("{error}"))?;
    }
    Ok(())
}

/// What has been counted.
struct Tally {
    latencies: Histogram<u64>,
    errors: u64,
}

async fn measure(cli: &Cli, load: &Load) -> Result<(), Error> {
    let mut connections = Vec::new();
    for _ in 0..load.connections.unwrap_or(cli.clients).max(1) {
        connections.push(connect(&cli.endpoints[0]).await?);
    }
    let began = Instant::now() + Duration::from_secs_f64(load.warm_up);
    let ends = began + Duration::from_secs_f64(cli.seconds);
    let latencies = Histogram::new_with_max(60_000_000, 3).unwrap_or_else(|error| panic!("{error}"));
    let tally = Rc::new(RefCell::new(Tally { latencies, errors: 0 }));
    let mut tasks = JoinSet::new();
    for n in 0..cli.clients {
        let (mut client, tally) = (connections[n % connections.len()].clone(), tally.clone());
        let (mut numbers, keys, value_size) = (Numbers::new(n as u64), cli.keys, cli.value_size);
        let reads = load.reads;
        tasks.spawn_local(async move {
            loop {
                let (key, reads) = (key(numbers.below(keys)), numbers.below(100) < reads);
                let started = Instant::now();
                let end = match reads {
                    true => client.get(key, None).await.map(drop),
                    false => client.put(key, vec![b'v'; value_size], None).await.map(drop),
                };
                let now = Instant::now();
                if now >= ends {
                    return;
                }
                let mut tally = tally.borrow_mut();
                match end {
                    Ok(()) if now >= began => tally.latencies.saturating_record((now - started).as_micros() as u64),
                    Ok(()) => {}
                    Err(_) => tally.errors += 1,
                }
            }
        });
    }
    tokio::time::sleep_until(began.into()).await;
    let used = || (cpu_seconds("self"), load.pids.iter().map(|pid| cpu_seconds(&pid.to_string())).sum::<f64>());
    let before = used();
    tokio::time::sleep_until(ends.into()).await;
    let after = used();
    tasks.abort_all();
    let Tally { latencies, errors } = &*tally.borrow();
    let at = |percentile| latencies.value_at_percentile(percentile);
    println!(
        "{{\"ops_per_s\":{:.1},\"p50_us\":{},\"p90_us\":{},\"p99_us\":{},\"p999_us\":{},\"max_us\":{},\"errors\":{errors},\
         \"generator_cpu_us_per_op\":{:.1},\"server_cpu_us_per_op\":{:.1}}}",
        latencies.len() as f64 / cli.seconds,
        at(50.0),
        at(90.0),
        at(99.0),
        at(99.9),
        latencies.max(),
        (after.0 - before.0) * 1e6 / latencies.len().max(1) as f64,
        (after.1 - before.1) * 1e6 / latencies.len().max(1) as f64,
    );
    Ok(())
}

/// Seconds of CPU of a process.
fn cpu_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    // In ticks of a hundredth of a second.
    behind.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

async fn gap(cli: &Cli) -> Result<(), Error> {
    let started = Instant::now();
    let ends = started + Duration::from_secs_f64(cli.seconds);
    let successes = Rc::new(RefCell::new(vec![started]));
    let mut tasks = JoinSet::new();
    for n in 0..cli.clients {
        let (endpoints, successes) = (cli.endpoints.clone(), successes.clone());
        let (mut numbers, keys, value_size) = (Numbers::new(n as u64), cli.keys, cli.value_size);
        tasks.spawn_local(async move {
            let mut at = n;
            while Instant::now() < ends {
                at += 1;
                let Ok(mut client) = connect(&endpoints[at % endpoints.len()]).await else {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    continue;
                };
                while Instant::now() < ends {
                    let write = client.put(key(numbers.below(keys)), vec![b'v'; value_size], None);
                    match tokio::time::timeout(TRY, write).await {
                        Ok(Ok(_)) => successes.borrow_mut().push(Instant::now()),
                        _ => break,
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    let successes = successes.borrow();
    let longest = successes.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
    println!("{{\"writes\":{},\"longest_gap_ms\":{:.0}}}", successes.len() - 1, longest.as_secs_f64() * 1e3);
    Ok(())
}

async fn first(cli: &Cli) -> Result<(), Error> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs_f64(cli.seconds) {
        for endpoint in &cli.endpoints {
            let Ok(mut client) = connect(endpoint).await else { continue };
            if let Ok(Ok(_)) = tokio::time::timeout(30 * TRY, client.put(key(0), "v", None)).await {
                println!("{{\"first_ms\":{:.0}}}", started.elapsed().as_secs_f64() * 1e3);
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("{{\"first_ms\":null}}");
    Ok(())
}
