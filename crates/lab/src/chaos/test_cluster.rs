//! A test cluster of real processes, with control over their disks and links.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::capabilities::Capabilities;
use super::fault::Capability;
use super::plan::{RoundPlan, SERVERS};
use super::process::ServerProcess;
use super::proxy::{ProxyEnd, ProxyNetwork};
use super::verify::RoundFailure;
use super::volume::Volume;
use paxos_kv::client::cluster_status::ClusterStatus;
use paxos_kv::cluster::Cluster;
use paxos_kv::net::ServerStatus;
use paxos_kv::role::ServerId;

/// Time limit for anything that must happen once all faults have ended.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The servers, their disks and the network.
pub struct ChaosCluster {
    /// Directory of all files of the round.
    pub dir: PathBuf,
    /// The servers, by number.
    pub processes: BTreeMap<ServerId, ServerProcess>,
    /// The proxies between them. It is closed after the servers are killed.
    pub proxies: Option<ProxyNetwork>,
    /// The addresses at which the servers listen.
    pub server_addresses: Cluster,
    /// The proxy addresses that clients use.
    pub client_addresses: Cluster,
}

impl ChaosCluster {
    /// Prepares all files and proxies; no server runs yet.
    pub fn prepare(
        plan: &RoundPlan,
        dir: &Path,
        program: &Path,
        capabilities: &Capabilities,
    ) -> Result<ChaosCluster, String> {
        let failed = |error: std::io::Error| format!("cannot prepare {}: {error}", dir.display());
        fs::create_dir_all(dir).map_err(failed)?;
        let dir = dir.canonicalize().map_err(failed)?;
        let servers: Vec<ServerId> = (1..=SERVERS).map(ServerId).collect();
        let mut targets = BTreeMap::new();
        for server in &servers {
            let free = || free_address().and_then(|listener| listener.local_addr());
            targets.insert(*server, (free().map_err(failed)?, free().map_err(failed)?));
        }
        let net = ProxyNetwork::open(&targets, plan.seed, plan.repeats, free_address).map_err(failed)?;
        let direct = cluster_file(&dir, "direct", |server| targets.get(&server).copied())?;
        let client_address = |server| net.address((ProxyEnd::Clients, ProxyEnd::Server(server)));
        let outside = cluster_file(&dir, "clients", |server| Some((targets.get(&server)?.0, client_address(server)?)))?;
        let mut processes = BTreeMap::new();
        for me in servers {
            let name = format!("cluster-{}", me.0);
            cluster_file(&dir, &name, |other| match other == me {
                true => targets.get(&me).copied(),
                false => {
                    let address = net.address((ProxyEnd::Server(me), ProxyEnd::Server(other)))?;
                    Some((address, targets.get(&other)?.1))
                }
            })?;
            let volume = match capabilities.has(Capability::Mounts) {
                true => Volume::with_disk(&dir, me.0)?,
                false => Volume::plain(&dir, me.0)?,
            };
            let arguments = arguments(plan, &dir, me, true);
            processes.insert(me, ServerProcess::new(me, volume, dir.clone(), program.to_path_buf(), arguments));
        }
        Ok(ChaosCluster { dir, processes, proxies: Some(net), server_addresses: direct, client_addresses: outside })
    }

    /// The server with this number.
    pub fn server_process(&mut self, server: ServerId) -> &mut ServerProcess {
        self.processes.get_mut(&server).unwrap_or_else(|| unreachable!("there is no server {server}"))
    }

    /// The status of a server, queried directly and not through the proxies; None if it does not answer within 500 ms.
    pub fn status(&self, server: ServerId) -> Option<ServerStatus> {
        let survey = self.query_status();
        survey.replies.into_iter().find(|(one, _)| *one == server)?.1.ok()
    }

    /// The status of all servers that answer within 500 ms.
    pub fn query_status(&self) -> ClusterStatus {
        ClusterStatus::query(&self.server_addresses, Duration::from_millis(500))
    }

    /// Fails if a server has exited by itself that may not.
    pub fn check_processes(&mut self) -> Result<(), RoundFailure> {
        for server_process in self.processes.values_mut() {
            let Some(status) = server_process.poll_exit() else { continue };
            if !server_process.may_exit {
                let words: Vec<String> = server_process.errors().lines().rev().take(3).map(str::to_string).collect();
                let words = words.into_iter().rev().collect::<Vec<_>>().join("\n  ");
                let what = format!("server {} ended by itself ({status}):\n  {words}", server_process.server.0);
                return Err(RoundFailure::Violation(what));
            }
        }
        Ok(())
    }

    /// Waits until a condition holds, and checks the servers' processes meanwhile.
    pub fn await_status(
        &mut self,
        what: &str,
        condition: impl Fn(&ClusterStatus) -> bool,
    ) -> Result<ClusterStatus, RoundFailure> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            self.check_processes()?;
            let survey = self.query_status();
            if condition(&survey) {
                return Ok(survey);
            }
            if Instant::now() >= deadline {
                let what = format!("not within {} s: {what}\n{}", START_TIMEOUT.as_secs(), survey.render());
                return Err(RoundFailure::Stuck(what));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for ChaosCluster {
    fn drop(&mut self) {
        // Kill the servers first: otherwise they would treat the end of the network as a fault.
        for server_process in self.processes.values_mut() {
            server_process.kill();
        }
        self.proxies = None;
    }
}

/// The command line of a server.
pub fn arguments(plan: &RoundPlan, dir: &Path, server: ServerId, failing: bool) -> Vec<String> {
    let cluster = dir.join(format!("cluster-{}.toml", server.0)).to_string_lossy().into_owned();
    let steps = if plan.steps { "on" } else { "off" };
    let seed = (plan.seed % 1_000_000).to_string();
    let named = ["--cluster", &cluster, "--protocol", plan.protocol.name(), "--steps", steps, "--seed", &seed];
    let mut arguments: Vec<String> = named.iter().map(|word| word.to_string()).collect();
    arguments.extend(plan.server_options.iter().cloned());
    if failing {
        arguments.extend(plan.role_crash_options.iter().cloned());
    }
    arguments
}

/// Whether all servers answer, are connected to each other and active, and the cluster reports that a write would
/// succeed. Callers write at once, so a verdict that is too optimistic is found.
pub fn is_connected(survey: &ClusterStatus) -> bool {
    let others = usize::from(SERVERS) - 1;
    let is_well = |status: &ServerStatus| {
        status.connected.len() == others && status.admission.is_none() && status.roles.iter().all(|role| role.up)
    };
    survey.is_complete() && survey.statuses().all(is_well) && survey.verdict().is_ok()
}

/// Whether the cluster is whole and no effect of a fault is left.
pub fn is_converged(survey: &ClusterStatus) -> bool {
    let is_well = |status: &ServerStatus| {
        status.corrupt_slots == 0 && !status.disk_full && status.fenced.is_none() && status.in_doubt == 0
    };
    is_connected(survey) && survey.statuses().all(is_well) && survey.agreement().is_some()
}

fn cluster_file(
    dir: &Path,
    name: &str,
    addresses: impl Fn(ServerId) -> Option<(SocketAddr, SocketAddr)>,
) -> Result<Cluster, String> {
    let mut text = "cluster = \"chaos\"\n".to_string();
    for server in (1..=SERVERS).map(ServerId) {
        let (peer, client) = addresses(server).ok_or("a server has no address")?;
        // Writing to a string does not fail.
        let _ = writeln!(text, "[[server]]\nid = {}\npeer = \"{peer}\"\nclient = \"{client}\"", server.0);
    }
    let path = dir.join(format!("{name}.toml"));
    fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Cluster::read(&path).map_err(|error| error.to_string())
}

/// A free port at a loopback address derived from the process id, so that concurrent runs cannot meet.
fn free_address() -> std::io::Result<TcpListener> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let process = std::process::id();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    TcpListener::bind((Ipv4Addr::new(127, (process >> 8 & 63) as u8 + 192, process as u8, (n % 250) as u8 + 1), 0))
}
