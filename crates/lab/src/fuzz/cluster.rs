//! Cluster files: every accepted file must describe a valid cluster.

use std::collections::BTreeSet;
use std::path::Path;

use paxos_kv::cluster::{Cluster, Member};
use paxos_kv::role::ServerId;

/// Reads bytes as a cluster file.
pub fn cluster(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let path = Path::new("cluster.toml");
    match Cluster::parse(path, text) {
        Err(error) => assert!(error.to_string().contains("cluster file cluster.toml: "), "{error}"),
        Ok(cluster) => {
            let members: Vec<(ServerId, Member)> = cluster.members().collect();
            let addresses: Vec<_> =
                members.iter().flat_map(|(_, m)| [Some(m.peer), Some(m.client), m.http]).flatten().collect();
            assert!(!members.is_empty() && addresses.iter().all(|address| address.port() > 0));
            assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len(), "one address is given twice");
            assert!(members.iter().all(|(server, _)| (1..=ServerId::MAX).contains(&server.0)));
            assert_eq!(
                members.iter().map(|(server, _)| *server).collect::<paxos_kv::role::ServerSet>(),
                cluster.servers()
            );
            assert_eq!(Cluster::parse(path, &print(&cluster)).expect("a cluster can be written down"), cluster);
        }
    }
}

/// The cluster in the format of the shipped file.
fn print(cluster: &Cluster) -> String {
    let mut text = format!("cluster = {:?}\n", cluster.name);
    for (server, Member { peer, client, http }) in cluster.members() {
        text += &format!("[[server]]\nid = {}\npeer = \"{peer}\"\nclient = \"{client}\"\n", server.0);
        if let Some(http) = http {
            text += &format!("http = \"{http}\"\n");
        }
    }
    text
}
