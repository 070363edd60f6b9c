//! `paxos-client bench sweep`: measurements over protocols, cluster sizes, numbers of clients and value sizes, one
//! after the other.
//!
//! The sweep starts the servers on free loopback ports, with data in a temporary directory, and removes both
//! afterwards. Each result is written to a CSV file at once, so an aborted sweep keeps the results so far.
//! `benches/chart.py` draws them.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{BenchError, BenchPlan, BenchReport, run as measure};
use crate::client::cluster_status::ClusterStatus;
use crate::cluster::Cluster;
use crate::role::ServerId;

/// Maximum time for the servers to start.
const READY: Duration = Duration::from_secs(20);
/// Maximum time for the servers to stop; then they are killed.
const STOP: Duration = Duration::from_secs(5);
const HEAD: &str = "protocol,servers,clients,pipeline,reads,value_size,ops_per_s,p50_us,p90_us,p99_us,p999_us,max_us,\
                    errors,unknown,busy,server_cpu_us_per_op,server_rss_mb";

/// The configuration of a sweep.
#[derive(Clone, Debug)]
pub struct SweepPlan {
    /// The protocols, as values of `paxos-server --protocol`.
    pub protocols: Vec<String>,
    /// The cluster sizes.
    pub servers: Vec<u8>,
    /// The numbers of clients.
    pub clients: Vec<u32>,
    /// Value sizes in bytes, in addition to that of `plan`. They are measured on the largest cluster of at most five
    /// servers, with the plan's number of clients.
    pub value_sizes: Vec<usize>,
    /// All other settings.
    pub plan: BenchPlan,
    /// The directory for `sweep.csv`.
    pub out: PathBuf,
    /// The server program.
    pub program: PathBuf,
}

/// Runs all measurements; `tell` gets one line for each.
pub fn run(sweep: &SweepPlan, tell: &(dyn Fn(String) + Sync)) -> Result<(), BenchError> {
    if !sweep.program.is_file() {
        return Err(BenchError::NoServer(sweep.program.clone()));
    }
    let csv = sweep.out.join("sweep.csv");
    let cannot_write = |path: &Path| BenchError::machine(format!("cannot write {}", path.display()));
    let opened = fs::create_dir_all(&sweep.out).and_then(|()| File::create(&csv));
    let mut file = opened.map_err(cannot_write(&csv))?;
    writeln!(file, "{HEAD}").map_err(cannot_write(&csv))?;
    for protocol in &sweep.protocols {
        for servers in &sweep.servers {
            let cluster = SweepCluster::start(&sweep.program, *servers, protocol)?;
            for plan in sweep.plans(*servers) {
                let report = measure(&cluster.cluster, &plan, &|_| ())?;
                writeln!(file, "{}", row(&report)).map_err(cannot_write(&csv))?;
                tell(line(&report));
            }
        }
    }
    tell(csv.display().to_string());
    Ok(())
}

impl SweepPlan {
    /// The measurements on a cluster of this size.
    fn plans(&self, servers: u8) -> Vec<BenchPlan> {
        let clients = self.clients.iter().map(|clients| BenchPlan { clients: *clients, ..self.plan.clone() });
        let mut plans: Vec<BenchPlan> = clients.collect();
        if servers == self.size_for_values() {
            let sizes = self.value_sizes.iter().filter(|size| **size != self.plan.value_size);
            plans.extend(sizes.map(|size| BenchPlan { value_size: *size, ..self.plan.clone() }));
        }
        plans
    }

    fn size_for_values(&self) -> u8 {
        let fitting = self.servers.iter().copied().filter(|servers| *servers <= 5).max();
        fitting.or(self.servers.iter().copied().min()).unwrap_or(5)
    }
}

/// A measurement as a row of the CSV file.
fn row(report: &BenchReport) -> String {
    let BenchReport { plan, tally, protocol, servers, .. } = report;
    let optional = |number: Option<f64>| number.map_or(String::new(), |number| format!("{number:.1}"));
    let BenchPlan { clients, pipeline, reads, value_size, .. } = plan;
    let mut row = format!("{protocol},{servers},{clients},{pipeline},{reads},{value_size},{:.1}", tally.per_second());
    for share in [0.5, 0.9, 0.99, 0.999] {
        row += &format!(",{}", tally.quantile_us(share));
    }
    row += &format!(",{},{},{},{}", tally.max_us(), tally.errors, tally.unknown, tally.busy);
    row + &format!(",{},{}", optional(report.server_cpu_us_per_op()), optional(report.server_rss_mb()))
}

/// A measurement as a line for people.
fn line(report: &BenchReport) -> String {
    let BenchReport { plan, tally, protocol, servers, .. } = report;
    format!(
        "{protocol:<12} {servers} servers  {:>5} clients  {:>7} B  {:>9.0} ops/s  p50 {:>8} us  p99 {:>8} us",
        plan.clients,
        plan.value_size,
        tally.per_second(),
        tally.quantile_us(0.5),
        tally.quantile_us(0.99)
    )
}

/// The servers of a sweep. Dropping this stops them and removes their directory.
struct SweepCluster {
    dir: PathBuf,
    cluster: Cluster,
    processes: Vec<(ServerId, Child)>,
}

impl SweepCluster {
    fn start(program: &Path, count: u8, protocol: &str) -> Result<SweepCluster, BenchError> {
        let dir = std::env::temp_dir().join(format!("paxos-bench-{}-{count}-{protocol}", std::process::id()));
        let cannot = |what: &str| BenchError::machine(format!("cannot {what} {}", dir.display()));
        let file = dir.join("cluster.toml");
        let text = cluster_file(count).map_err(BenchError::machine("cannot find free ports"))?;
        fs::create_dir_all(&dir).and_then(|()| fs::write(&file, text)).map_err(cannot("write into"))?;
        let cluster = Cluster::read(&file).map_err(|error| std::io::Error::other(error.to_string()));
        let cluster = cluster.map_err(cannot("read the cluster file in"))?;
        let mut servers = SweepCluster { dir: dir.clone(), cluster, processes: Vec::new() };
        for server in servers.cluster.servers().iter() {
            let stderr = File::create(dir.join(format!("server-{}.err", server.0))).map_err(cannot("write into"))?;
            let mut command = Command::new(program);
            command.arg("--id").arg(server.0.to_string()).arg("--cluster").arg(&file);
            command.arg("--data").arg(dir.join(format!("data-{}", server.0))).arg("--protocol").arg(protocol);
            command.args(["--steps", "off", "--quiet"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
            servers.processes.push((server, command.spawn().map_err(cannot("start a server for"))?));
        }
        servers.await_ready()?;
        Ok(servers)
    }

    fn await_ready(&mut self) -> Result<(), BenchError> {
        let deadline = Instant::now() + READY;
        while Instant::now() < deadline {
            for (server, process) in &mut self.processes {
                if let Ok(Some(status)) = process.try_wait() {
                    let stderr = fs::read_to_string(self.dir.join(format!("server-{}.err", server.0)));
                    let stderr = stderr.unwrap_or_default().trim().to_string();
                    return Err(BenchError::ServerEnded { server: *server, status, stderr });
                }
            }
            let cluster_status = ClusterStatus::query(&self.cluster, Duration::from_secs(1));
            let others = self.processes.len() - 1;
            if cluster_status.is_complete() && cluster_status.statuses().all(|status| status.connected.len() == others)
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(BenchError::NotUp(READY))
    }
}

impl Drop for SweepCluster {
    fn drop(&mut self) {
        for (_, process) in &self.processes {
            let pid = rustix::process::Pid::from_child(process);
            // This fails only if the server has ended already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + STOP;
        for (_, process) in &mut self.processes {
            while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        // Files left in the temporary directory do not invalidate a measurement.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A cluster file with ports that are free at the moment.
fn cluster_file(count: u8) -> std::io::Result<String> {
    // All ports are held until all are found, so that no port is found twice.
    let held: Vec<TcpListener> =
        (0..2 * count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    let addresses: Vec<SocketAddr> = held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    let mut text = "cluster = \"bench\"\n".to_string();
    for (id, pair) in (1..=count).zip(addresses.chunks(2)) {
        text += &format!("[[server]]\nid = {id}\npeer = \"{}\"\nclient = \"{}\"\n", pair[0], pair[1]);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep() -> SweepPlan {
        SweepPlan {
            protocols: vec!["basic-paxos".to_string()],
            servers: vec![1, 3, 5, 7],
            clients: vec![1, 64],
            value_sizes: vec![100, 10_000],
            plan: BenchPlan { reads: 0, ..BenchPlan::default() },
            out: PathBuf::new(),
            program: PathBuf::from("nowhere"),
        }
    }

    #[test]
    fn every_cluster_gets_all_client_counts_and_one_gets_all_value_sizes() {
        let plans = |servers| -> Vec<(u32, usize)> {
            sweep().plans(servers).iter().map(|plan| (plan.clients, plan.value_size)).collect()
        };
        assert_eq!(plans(3), [(1, 100), (64, 100)]);
        assert_eq!(plans(5), [(1, 100), (64, 100), (64, 10_000)]);
    }

    #[test]
    fn ports_are_free_and_different() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), cluster_file(7).unwrap()).unwrap();
        let cluster = Cluster::read(file.path()).unwrap();
        let ports: std::collections::BTreeSet<u16> =
            cluster.members().flat_map(|(_, member)| [member.peer.port(), member.client.port()]).collect();
        assert_eq!(ports.len(), 14);
    }

    #[test]
    fn sweep_without_a_server_program_reports_it() {
        let error = run(&sweep(), &|_| ()).unwrap_err();
        assert!(error.to_string().contains("server program not found: nowhere"), "{error}");
    }
}
