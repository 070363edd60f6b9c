//! Five servers in one process, as a test of an application would run them: one is stopped, and starts again on its
//! data. `cargo run --release --example single_process_cluster`

use std::net::TcpListener;

use paxos_kv::role::ServerId;
use paxos_kv::{Client, ClientOptions, Cluster, Member, Server, ServerOptions};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    run()
}

/// Fails if a write is lost.
pub fn run() -> Result<(), Error> {
    let dir = tempfile::tempdir()?;
    let cluster = on_free_ports(5)?;
    let start = |id: u8| {
        let mut options = ServerOptions::new(id, cluster.clone());
        options.data = Some(dir.path().join(format!("server-{id}")));
        options.quiet = true;
        Server::start(options)
    };
    let mut servers = (1..=5).map(start).collect::<Result<Vec<Server>, _>>()?;
    println!("5 servers run in process {}", std::process::id());

    let client_of = |id: u8| {
        let mut options = ClientOptions::new(cluster.clone(), "me");
        options.first_server = Some(ServerId(id));
        Client::new(options)
    };
    let mut client = client_of(3)?;
    client.put("color", "blue")?;
    println!("wrote color = blue, by {}", client.server());

    servers.remove(2).stop()?;
    println!("server 3 is stopped: no thread of it is left");
    client.put("color", "red")?;
    println!("wrote color = red, by {}", client.server());

    servers.insert(2, start(3)?);
    let mut client = client_of(3)?;
    let value = client.get("color")?.value.unwrap_or_default();
    let value = String::from_utf8_lossy(&value);
    println!("server 3 runs again; {} read color = {value}", client.server());
    servers.into_iter().try_for_each(Server::stop)?;
    println!("all servers are stopped");
    if value == "red" { Ok(()) } else { Err(format!("color is {value}, expected red").into()) }
}

/// A cluster on ports that the system chose.
fn on_free_ports(servers: u8) -> Result<Cluster, Error> {
    // Each is held until all are chosen, so that all differ.
    let bind = || TcpListener::bind("127.0.0.1:0");
    let pairs = (1..=servers).map(|_| Ok((bind()?, bind()?))).collect::<std::io::Result<Vec<_>>>()?;
    let members = pairs.iter().map(|(peer, client)| Ok(Member::new(peer.local_addr()?, client.local_addr()?)));
    let members = members.collect::<std::io::Result<Vec<_>>>()?;
    Ok(Cluster::from_members("example", (1..).zip(members))?)
}
