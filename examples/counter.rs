//! Several threads increment one key with compare-and-set: no increment is lost, even while roles fail. Start a cluster
//! first: `./run_server.sh`, then `cargo run --release --example counter`. An argument names another cluster file than
//! that of the latest run.

use std::thread;

use paxos_kv::{Client, ClientError, ClientOptions, Cluster, WriteResponse};

const THREADS: u64 = 3;
const TIMES: u64 = 5;
const KEY: &str = "counter";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "runs/latest/cluster.toml".to_string());
    run(Cluster::read(file.as_ref())?)
}

/// Fails if a count was lost or made twice.
pub fn run(cluster: Cluster) -> Result<(), Box<dyn std::error::Error>> {
    let mut client = Client::new(ClientOptions::new(cluster.clone(), "counter"))?;
    let before = read(&mut client)?.0;
    let results: Vec<Result<(), ClientError>> = thread::scope(|scope| {
        let threads: Vec<_> = (1..=THREADS)
            .map(|n| {
                let options = ClientOptions::new(cluster.clone(), format!("counter-{n}"));
                scope.spawn(move || {
                    let mut client = Client::new(options)?;
                    (0..TIMES).try_for_each(|_| increment(&mut client))
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    results.into_iter().collect::<Result<Vec<()>, _>>()?;
    let after = read(&mut client)?.0;
    println!("{THREADS} threads incremented {TIMES} times each: from {before} to {after}");
    if after == before + THREADS * TIMES {
        Ok(())
    } else {
        Err(format!("the counter is {after}, expected {}", before + THREADS * TIMES).into())
    }
}

/// The count and the key's version.
fn read(client: &mut Client) -> Result<(u64, u64), ClientError> {
    let read = client.get(KEY)?;
    let count = read.value.and_then(|value| String::from_utf8(value).ok()?.parse().ok()).unwrap_or(0);
    Ok((count, read.version))
}

/// Writes only if no other thread has written since the read; else it reads again.
fn increment(client: &mut Client) -> Result<(), ClientError> {
    loop {
        let (count, version) = read(client)?;
        let write = client.put_if_version(KEY, (count + 1).to_string(), version)?;
        if !matches!(write, WriteResponse::Mismatch { .. }) {
            return Ok(());
        }
    }
}
