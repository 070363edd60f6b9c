//! Writes a key, and reads it from another server. Start a cluster first: `./run_server.sh`, then
//! `cargo run --release --example hello`. An argument names another cluster file than that of the latest run.

use paxos_kv::role::ServerId;
use paxos_kv::{Client, ClientOptions, Cluster};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "runs/latest/cluster.toml".to_string());
    run(Cluster::read(file.as_ref())?)
}

/// Any server may be asked, and each answers with the last value written: reads are linearizable.
pub fn run(cluster: Cluster) -> Result<(), Box<dyn std::error::Error>> {
    let last = cluster.servers().iter().last().unwrap_or(ServerId(1));
    let mut client = Client::new(ClientOptions::new(cluster, "hello"))?;
    println!("{:?}", client.put("greeting", "hello, world")?);
    client.set_server(last)?;
    let read = client.get("greeting")?;
    let value = String::from_utf8_lossy(read.value.as_deref().unwrap_or_default()).into_owned();
    println!("{value} (version {}, read from {})", read.version, client.server());
    Ok(())
}
