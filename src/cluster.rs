//! The cluster file: the servers of a cluster and their addresses.

use std::collections::BTreeMap;
use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::paxos::Quorums;
use crate::role::{ServerId, ServerSet};

/// The largest cluster file that is read, in bytes.
const FILE_MAX_BYTES: u64 = 64 << 10;
/// The longest name of a cluster, in bytes.
const NAME_MAX_BYTES: usize = 64;

/// A cluster: its name and its servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The name; servers of differently named clusters never exchange messages.
    pub name: String,
    members: BTreeMap<ServerId, Member>,
}

/// The addresses of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// For the other servers.
    pub peer: SocketAddr,
    /// For clients.
    pub client: SocketAddr,
    /// For browsers, if the server offers HTTP.
    pub http: Option<SocketAddr>,
}

impl Member {
    /// A server with these addresses, without HTTP.
    pub fn new(peer: SocketAddr, client: SocketAddr) -> Member {
        Member { peer, client, http: None }
    }
}

/// Why a cluster, or its file, cannot be used.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The file cannot be read.
    #[error("cannot read the cluster file {path}: {cause}. Choose one with --cluster FILE (example: res/cluster.toml)")]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// The operating system's reason.
        cause: std::io::Error,
    },
    /// The file is not TOML of the expected form.
    #[error("cannot parse the cluster file {path}: {cause}")]
    Syntax {
        /// Its path.
        path: PathBuf,
        /// The parser's reason.
        cause: Box<toml::de::Error>,
    },
    /// These servers are no cluster.
    #[error("invalid cluster: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// A value in the file is not allowed.
    #[error("invalid cluster file {path}: {reason}")]
    Senseless {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterFile {
    cluster: String,
    server: Vec<ClusterFileServer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterFileServer {
    id: u8,
    peer: SocketAddr,
    client: SocketAddr,
    http: Option<SocketAddr>,
}

/// The cluster file that the environment names. (Not read by clap: its usage lines would show `--cluster` as required
/// whenever the variable is set.)
pub fn in_environment() -> Option<PathBuf> {
    env::var_os("PAXOS_CLUSTER").filter(|name| !name.is_empty()).map(PathBuf::from)
}

impl Cluster {
    /// The quorums of the cluster: majorities.
    pub fn quorums(&self) -> Quorums {
        Quorums::majority(self.servers())
    }

    /// Reads and checks a cluster file.
    pub fn read(path: &Path) -> Result<Cluster, ClusterError> {
        let unreadable = |cause| ClusterError::Unreadable { path: path.to_path_buf(), cause };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > FILE_MAX_BYTES {
            let reason = format!("it has {size} bytes; the maximum is {FILE_MAX_BYTES}");
            return Err(ClusterError::Senseless { path: path.to_path_buf(), reason });
        }
        Cluster::parse(path, &std::fs::read_to_string(path).map_err(unreadable)?)
    }

    /// Checks the text of a cluster file.
    pub fn parse(path: &Path, text: &str) -> Result<Cluster, ClusterError> {
        let file: ClusterFile = toml::from_str(text)
            .map_err(|cause| ClusterError::Syntax { path: path.to_path_buf(), cause: Box::new(cause) })?;
        let members = file.server.into_iter().map(|one| {
            let ClusterFileServer { id, peer, client, http } = one;
            (id, Member { peer, client, http })
        });
        Cluster::check(file.cluster, members)
            .map_err(|reason| ClusterError::Senseless { path: path.to_path_buf(), reason })
    }

    /// A cluster of these servers, by their ids, which are 1 to 32. What holds for a cluster file holds here.
    pub fn from_members(
        name: impl Into<String>,
        members: impl IntoIterator<Item = (u8, Member)>,
    ) -> Result<Cluster, ClusterError> {
        Cluster::check(name.into(), members).map_err(|reason| ClusterError::Invalid { reason })
    }

    fn check(name: String, all: impl IntoIterator<Item = (u8, Member)>) -> Result<Cluster, String> {
        let name_is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > NAME_MAX_BYTES || !name.chars().all(name_is_plain) {
            return Err(format!(
                "cluster = {name:?} is not a valid name (1 to {NAME_MAX_BYTES} letters, digits, '-', '_' and '.')"
            ));
        }
        let mut members = BTreeMap::new();
        let mut addresses = Vec::new();
        for (id, member) in all {
            let Member { peer, client, http } = member;
            if id == 0 || id > ServerId::MAX {
                return Err(format!("server id {id} is not between 1 and {}", ServerId::MAX));
            }
            for address in [Some(peer), Some(client), http].into_iter().flatten() {
                if address.port() == 0 {
                    return Err(format!("server {id}: port 0 of {address} cannot be dialed"));
                }
                if addresses.contains(&address) {
                    return Err(format!("the address {address} is given twice"));
                }
                addresses.push(address);
            }
            if members.insert(ServerId(id), member).is_some() {
                return Err(format!("server id {id} is given twice"));
            }
        }
        if members.is_empty() {
            return Err("it has no [[server]] entry".to_string());
        }
        Ok(Cluster { name, members })
    }

    /// All servers.
    pub fn servers(&self) -> ServerSet {
        self.members.keys().copied().collect()
    }

    /// The addresses of a server, if it is in the cluster.
    pub fn member(&self, server: ServerId) -> Option<Member> {
        self.members.get(&server).copied()
    }

    /// All servers and their addresses, lowest number first.
    pub fn members(&self) -> impl Iterator<Item = (ServerId, Member)> + '_ {
        self.members.iter().map(|(server, member)| (*server, *member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_from_values_equals_cluster_from_a_file_and_is_as_strict() {
        let member = |n: u16| Member::new(([127, 0, 0, 1], 7100 + n).into(), ([127, 0, 0, 1], 7200 + n).into());
        let cluster = Cluster::from_members("c", [(1, member(1)), (2, member(2))]).unwrap();
        let text = format!("cluster = \"c\"\n{}{}", server(1, 7101, 7201), server(2, 7102, 7202));
        assert_eq!(read(&text), Ok(cluster));
        let refused = |members: &[(u8, Member)]| match Cluster::from_members("c", members.iter().copied()) {
            Err(ClusterError::Invalid { reason }) => reason,
            other => panic!("{other:?}"),
        };
        assert!(refused(&[]).contains("[[server]]"));
        assert!(refused(&[(0, member(1))]).contains("between 1 and"));
        assert!(refused(&[(1, member(1)), (2, member(1))]).contains("given twice"));
    }

    fn read(text: &str) -> Result<Cluster, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.toml");
        std::fs::write(&path, text).unwrap();
        Cluster::read(&path).map_err(|error| error.to_string())
    }

    fn server(id: u8, peer: u16, client: u16) -> String {
        format!("[[server]]\nid = {id}\npeer = \"127.0.0.1:{peer}\"\nclient = \"127.0.0.1:{client}\"\n")
    }

    #[test]
    fn the_shipped_file_has_five_servers() {
        let cluster = Cluster::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/res/cluster.toml"))).unwrap();
        assert_eq!(cluster.servers(), ServerSet::first(5));
    }

    #[test]
    fn invalid_cluster_file_is_refused_with_a_reason() {
        let cases = [
            ("cluster = \"c\"\nserver = []".to_string(), "no [[server]]"),
            (format!("cluster = \"\"\n{}", server(1, 1, 2)), "is not a valid name"),
            (format!("cluster = \"c\"\n{}{}", server(1, 1, 2), server(1, 3, 4)), "id 1 is given twice"),
            (format!("cluster = \"c\"\n{}{}", server(1, 1, 2), server(2, 1, 4)), "127.0.0.1:1 is given twice"),
            (format!("cluster = \"c\"\n{}", server(0, 1, 2)), "server id 0"),
            (format!("cluster = \"c\"\n{}", server(64, 1, 2)), "server id 64"),
            (format!("cluster = \"c\"\n{}", server(1, 0, 2)), "port 0"),
            (format!("cluster = \"c\"\ncolor = 1\n{}", server(1, 1, 2)), "color"),
            ("cluster = ".to_string(), "cannot parse"),
        ];
        for (text, reason) in cases {
            let error = read(&text).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert!(Cluster::read(Path::new("/nowhere/cluster.toml")).unwrap_err().to_string().contains("--cluster"));
    }
}
