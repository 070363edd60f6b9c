//! A cluster of real processes with everything between them and under them in our hands.

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
use crate::client::cluster_status::ClusterStatus;
use crate::cluster::Cluster;
use crate::net::ServerStatus;
use crate::role::ServerId;

/// How long anything may take that must happen once all faults are over.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The servers, their disks and the network.
pub struct ChaosCluster {
    /// Everything of the round is in here.
    pub folder: PathBuf,
    /// By number, from 1.
    pub seats: BTreeMap<ServerId, ServerProcess>,
    /// Between them. It goes before they do.
    pub net: Option<ProxyNetwork>,
    /// Where the servers really listen.
    pub direct: Cluster,
    /// Where clients find them.
    pub outside: Cluster,
}

impl ChaosCluster {
    /// Prepares everything; nothing runs yet.
    pub fn prepare(
        plan: &RoundPlan,
        folder: &Path,
        program: &Path,
        tools: &Capabilities,
    ) -> Result<ChaosCluster, String> {
        let failed = |error: std::io::Error| format!("cannot prepare {}: {error}", folder.display());
        fs::create_dir_all(folder).map_err(failed)?;
        let folder = folder.canonicalize().map_err(failed)?;
        let servers: Vec<ServerId> = (1..=SERVERS).map(ServerId).collect();
        let mut targets = BTreeMap::new();
        for server in &servers {
            let free = || free_address().and_then(|listener| listener.local_addr());
            targets.insert(*server, (free().map_err(failed)?, free().map_err(failed)?));
        }
        let net = ProxyNetwork::open(&targets, plan.seed, plan.repeats, free_address).map_err(failed)?;
        let direct = cluster_file(&folder, "direct", |server| targets.get(&server).copied())?;
        let client_door = |server| net.address((ProxyEnd::Clients, ProxyEnd::Server(server)));
        let outside = cluster_file(&folder, "clients", |server| Some((targets.get(&server)?.0, client_door(server)?)))?;
        let mut seats = BTreeMap::new();
        for me in servers {
            let name = format!("cluster-{}", me.0);
            cluster_file(&folder, &name, |other| match other == me {
                true => targets.get(&me).copied(),
                false => {
                    let door = net.address((ProxyEnd::Server(me), ProxyEnd::Server(other)))?;
                    Some((door, targets.get(&other)?.1))
                }
            })?;
            let ground = match tools.can(Capability::Mounts) {
                true => Volume::with_disk(&folder, me.0)?,
                false => Volume::plain(&folder, me.0)?,
            };
            let arguments = arguments(plan, &folder, me, true);
            seats.insert(me, ServerProcess::new(me, ground, folder.clone(), program.to_path_buf(), arguments));
        }
        Ok(ChaosCluster { folder, seats, net: Some(net), direct, outside })
    }

    /// The server of this number.
    pub fn server_process(&mut self, server: ServerId) -> &mut ServerProcess {
        self.seats.get_mut(&server).unwrap_or_else(|| unreachable!("there is no server {server}"))
    }

    /// How a server is, if it answers soon; nothing of the network's weather is between.
    pub fn status(&self, server: ServerId) -> Option<ServerStatus> {
        let survey = self.survey();
        survey.answers.into_iter().find(|(one, _)| *one == server)?.1.ok()
    }

    /// How all are, of those that answer soon.
    pub fn survey(&self) -> ClusterStatus {
        ClusterStatus::query(&self.direct, Duration::from_millis(500))
    }

    /// Nobody may have ended by itself who was not made to.
    pub fn look(&mut self) -> Result<(), RoundFailure> {
        for server_process in self.seats.values_mut() {
            let Some(status) = server_process.news_of_end() else { continue };
            if !server_process.may_end {
                let words: Vec<String> = server_process.errors().lines().rev().take(3).map(str::to_string).collect();
                let words = words.into_iter().rev().collect::<Vec<_>>().join("\n  ");
                let what = format!("server {} has ended by itself ({status}):\n  {words}", server_process.server.0);
                return Err(RoundFailure::Broken(what));
            }
        }
        Ok(())
    }

    /// Waits until something is so, and looks after the servers meanwhile.
    pub fn await_that(
        &mut self,
        what: &str,
        is_so: impl Fn(&ClusterStatus) -> bool,
    ) -> Result<ClusterStatus, RoundFailure> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            self.look()?;
            let survey = self.survey();
            if is_so(&survey) {
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
        // First the network: nobody shall take its end for a strike.
        for server_process in self.seats.values_mut() {
            server_process.kill();
        }
        self.net = None;
    }
}

/// The command line of a server.
pub fn arguments(plan: &RoundPlan, folder: &Path, server: ServerId, failing: bool) -> Vec<String> {
    let cluster = folder.join(format!("cluster-{}.toml", server.0)).to_string_lossy().into_owned();
    let steps = if plan.steps { "on" } else { "off" };
    let seed = (plan.seed % 1_000_000).to_string();
    let named = ["--cluster", &cluster, "--protocol", plan.protocol.name(), "--steps", steps, "--seed", &seed];
    let mut arguments: Vec<String> = named.iter().map(|word| word.to_string()).collect();
    arguments.extend(plan.options.iter().cloned());
    if failing {
        arguments.extend(plan.failing.iter().cloned());
    }
    arguments
}

/// All servers answer, are connected to each other and take part, and say together that a write would succeed. Whoever
/// waits for this writes at once, so that a verdict that is too good is found.
pub fn is_whole(survey: &ClusterStatus) -> bool {
    let others = usize::from(SERVERS) - 1;
    let is_well = |status: &ServerStatus| {
        status.connected.len() == others && status.newcomer.is_none() && status.roles.iter().all(|role| role.up)
    };
    survey.is_complete() && survey.statuses().all(is_well) && survey.verdict().is_ok()
}

/// And nothing is left of what was done to them.
pub fn is_healed(survey: &ClusterStatus) -> bool {
    let is_well = |status: &ServerStatus| {
        status.corrupt_slots == 0 && !status.disk_full && status.fenced.is_none() && status.in_doubt == 0
    };
    is_whole(survey) && survey.statuses().all(is_well) && survey.agreement().is_some()
}

fn cluster_file(
    folder: &Path,
    name: &str,
    addresses: impl Fn(ServerId) -> Option<(SocketAddr, SocketAddr)>,
) -> Result<Cluster, String> {
    let mut text = "cluster = \"chaos\"\n".to_string();
    for server in (1..=SERVERS).map(ServerId) {
        let (peer, client) = addresses(server).ok_or("a server has no address")?;
        // Writing to a string does not fail.
        let _ = writeln!(text, "[[server]]\nid = {}\npeer = \"{peer}\"\nclient = \"{client}\"", server.0);
    }
    let path = folder.join(format!("{name}.toml"));
    fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Cluster::read(&path).map_err(|error| error.to_string())
}

/// A free port of a loopback address that belongs to this process: runs side by side cannot meet.
fn free_address() -> std::io::Result<TcpListener> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let process = std::process::id();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    TcpListener::bind((Ipv4Addr::new(127, (process >> 8 & 63) as u8 + 192, process as u8, (n % 250) as u8 + 1), 0))
}
