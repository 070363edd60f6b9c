//! What a start asks for, and a look whether it would get that: nothing is started, made or changed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::options::ServerOptions;
use crate::cluster::Cluster;
use crate::net::check_free;
use crate::role::ServerId;
use crate::storage::DataDir;

/// What a server is by its options: one of a cluster, at addresses that it may use.
#[derive(Clone, Debug)]
pub struct Site {
    /// The cluster.
    pub cluster: Cluster,
    /// The server.
    pub me: ServerId,
    /// Where it listens to the other servers.
    pub peer: SocketAddr,
    /// Where it listens to clients.
    pub client: SocketAddr,
    /// Where it listens to browsers, if it does.
    pub http: Option<SocketAddr>,
}

impl Site {
    /// Reads the cluster file, and refuses options that do not fit it or each other.
    pub fn of(options: &ServerOptions) -> Result<Site, String> {
        let cluster = Cluster::read(&options.cluster).map_err(|error| error.to_string())?;
        let me = ServerId(options.id);
        let member = cluster.member(me).ok_or_else(|| {
            let known = cluster.servers();
            format!("{} has no server {} (it has {known}). Choose one with --id", options.cluster.display(), options.id)
        })?;
        let site = Site { me, peer: member.peer, client: member.client, http: options.http.or(member.http), cluster };
        for (address, _) in site.addresses() {
            options.check_address(address)?;
        }
        options.check_failures()?;
        Ok(site)
    }

    /// Every address, and what it is called.
    pub fn addresses(&self) -> impl Iterator<Item = (SocketAddr, &'static str)> {
        let http = self.http.map(|address| (address, "http"));
        [(self.peer, "peer"), (self.client, "client")].into_iter().chain(http)
    }
}

/// Looks whether a server would start; says so in a sentence.
pub fn check(options: &ServerOptions) -> Result<String, String> {
    let site = Site::of(options)?;
    for (address, what) in site.addresses() {
        check_free(address, what).map_err(|error| error.to_string())?;
    }
    let data = options.data_folder();
    let checked = DataDir::check(&data, site.cluster.owner(site.me), options.protocol.family());
    checked.map_err(|error| error.to_string())?;
    if let Some((folder, file)) = options.log_file() {
        check_writable(folder, &file)?;
    }
    Ok(format!("server {} of cluster \"{}\" can start on {}", site.me.0, site.cluster.name, data.display()))
}

/// Whether a log file can be written, or made.
fn check_writable(folder: &Path, file: &Path) -> Result<(), String> {
    let there = [file, folder].into_iter().chain(folder.ancestors()).find(|path| path.exists());
    // No ancestor is there: the path is relative, and the folder will be made here.
    let there = there.map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    let wrong = |why: &dyn std::fmt::Display| super::start::no_log(file, why);
    match there == file {
        true if there.is_dir() => return Err(wrong(&"it is a folder")),
        false if !there.is_dir() => return Err(wrong(&format!("{} is no folder", there.display()))),
        _ => {}
    }
    access(&there, Access::WRITE_OK).map_err(|error| wrong(&std::io::Error::from(error)))
}
