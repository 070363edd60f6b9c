//! The check of a start: the resources that a start needs, and whether they are available. It starts and changes
//! nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::options::ServerOptions;
use crate::cluster::Cluster;
use crate::net::check_free;
use crate::role::ServerId;
use crate::storage::DataDir;

/// The site of a server: its place in a cluster, and the addresses that it may use.
#[derive(Clone, Debug)]
pub struct ServerAddresses {
    /// The cluster.
    pub cluster: Cluster,
    /// The number of the server.
    pub me: ServerId,
    /// The address for the other servers.
    pub peer: SocketAddr,
    /// The address for clients.
    pub client: SocketAddr,
    /// The address for browsers, if there is one.
    pub http: Option<SocketAddr>,
}

impl ServerAddresses {
    /// Reads the cluster, and refuses options that do not fit it or each other.
    pub fn of(options: &ServerOptions) -> Result<ServerAddresses, String> {
        let cluster = options.cluster.read().map_err(|error| error.to_string())?;
        let me = ServerId(options.id);
        let member = cluster.member(me).ok_or_else(|| {
            let known = cluster.servers();
            format!("{} has no server {} (it has {known}). Choose one with --id", options.cluster, options.id)
        })?;
        let server_addresses = ServerAddresses {
            me,
            peer: member.peer,
            client: member.client,
            http: options.http.or(member.http),
            cluster,
        };
        for (address, _) in server_addresses.addresses() {
            options.check_address(address)?;
        }
        options.check_failures()?;
        options.check_sizes()?;
        Ok(server_addresses)
    }

    /// Every address, and its name.
    pub fn addresses(&self) -> impl Iterator<Item = (SocketAddr, &'static str)> {
        let http = self.http.map(|address| (address, "http"));
        [(self.peer, "peer"), (self.client, "client")].into_iter().chain(http)
    }
}

/// Checks whether a server would start; returns a sentence about it.
pub fn check(options: &ServerOptions) -> Result<String, String> {
    let server_addresses = ServerAddresses::of(options)?;
    for (address, what) in server_addresses.addresses() {
        check_free(address, what).map_err(|error| error.to_string())?;
    }
    let data = options.data_dir();
    let checked = DataDir::check(&data, server_addresses.cluster.owner(server_addresses.me), options.protocol.family());
    checked.map_err(|error| error.to_string())?;
    if let Some((dir, file)) = options.log_file() {
        check_writable(dir, &file)?;
    }
    let (server, cluster) = (server_addresses.me.0, &server_addresses.cluster.name);
    Ok(format!("server {server} of cluster \"{cluster}\" can start with data directory {}", data.display()))
}

/// Whether a log file can be written, or created.
fn check_writable(dir: &Path, file: &Path) -> Result<(), String> {
    let there = [file, dir].into_iter().chain(dir.ancestors()).find(|path| path.exists());
    // No ancestor exists: the path is relative, and the directory will be created in the current one.
    let there = there.map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    let wrong = |why: &dyn std::fmt::Display| super::server::no_log(file, why);
    match there == file {
        true if there.is_dir() => return Err(wrong(&"it is a directory")),
        false if !there.is_dir() => return Err(wrong(&format!("{} is not a directory", there.display()))),
        _ => {}
    }
    access(&there, Access::WRITE_OK).map_err(|error| wrong(&std::io::Error::from(error)))
}
