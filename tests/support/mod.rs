//! Real servers for tests: the built binary, on addresses of their own, in a folder that goes away.

#![allow(dead_code, clippy::unwrap_used)]

pub mod examples;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use paxos_kv::client::{Client, ClientOptions};
use paxos_kv::cluster;
use paxos_kv::net::ServerStatus;
use paxos_kv::role::ServerId;
use paxos_kv::trace::{ProcessId, Trace};

/// How long anything may take that should happen soon.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running cluster.
pub struct Cluster {
    /// Data, lines and the cluster file.
    pub dir: tempfile::TempDir,
    /// Its servers.
    pub cluster: cluster::Cluster,
    arguments: Vec<String>,
    processes: Vec<Option<Child>>,
}

impl Cluster {
    /// Starts `count` servers with these arguments, and waits until all of them answer.
    pub fn start(count: u8, arguments: &[&str]) -> Cluster {
        let mut cluster = Cluster::prepare(count, arguments);
        for id in 1..=count {
            cluster.start_server(id);
        }
        cluster.await_all();
        cluster
    }

    /// Starts servers that browsers can watch.
    pub fn start_with_page(count: u8, arguments: &[&str]) -> Cluster {
        let mut cluster = Cluster::prepare(count, arguments);
        std::fs::write(cluster.file(), cluster_file_with_page(count)).unwrap();
        cluster.cluster = cluster::Cluster::read(&cluster.file()).unwrap();
        for id in 1..=count {
            cluster.start_server(id);
        }
        cluster.await_all();
        cluster
    }

    /// Where browsers watch it.
    pub fn page_of(&self, id: u8) -> SocketAddr {
        self.cluster.member(ServerId(id)).and_then(|member| member.http).unwrap()
    }

    /// A cluster of which nothing runs yet.
    pub fn prepare(count: u8, arguments: &[&str]) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cluster.toml");
        std::fs::write(&file, cluster_file(count)).unwrap();
        let cluster = cluster::Cluster::read(&file).unwrap();
        let arguments = arguments.iter().map(|argument| argument.to_string()).collect();
        Cluster { dir, cluster, arguments, processes: (0..count).map(|_| None).collect() }
    }

    /// The cluster file.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("cluster.toml")
    }

    /// The folder of the lines.
    pub fn log_dir(&self) -> &Path {
        self.dir.path()
    }

    /// The lines of a server so far.
    pub fn log_text(&self, id: u8) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("server-{id}.log"))).unwrap_or_default()
    }

    /// The data folder of a server.
    pub fn data_dir(&self, id: u8) -> PathBuf {
        self.dir.path().join("data").join(format!("server-{id}"))
    }

    /// The command that starts a server.
    pub fn command(&self, id: u8) -> Command {
        let mut command = Command::new(program("paxos-server"));
        command.arg("--id").arg(id.to_string()).arg("--cluster").arg(self.file());
        command.arg("--data").arg(self.data_dir(id)).arg("--log-dir").arg(self.dir.path()).arg("--quiet");
        // What shows each step, unless a test says otherwise.
        if !self.arguments.iter().any(|argument| argument == "--protocol") {
            command.args(["--protocol", "basic-paxos"]);
        }
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Starts one server.
    pub fn start_server(&mut self, id: u8) {
        self.start_server_with(id, &[]);
    }

    /// Starts one server with some more arguments.
    pub fn start_server_with(&mut self, id: u8, arguments: &[&str]) {
        let errors = std::fs::File::create(self.dir.path().join(format!("server-{id}.err"))).unwrap();
        let child = self.command(id).args(arguments).stderr(errors).spawn().unwrap();
        self.processes[usize::from(id) - 1] = Some(child);
    }

    /// What a server has said on its terminal beside its lines.
    pub fn stderr_text(&self, id: u8) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("server-{id}.err"))).unwrap_or_default()
    }

    /// Kills servers as `kill -9` does, all before any of them is waited for.
    pub fn kill(&mut self, ids: &[u8]) {
        let mut killed: Vec<Child> = ids.iter().filter_map(|id| self.processes[usize::from(*id) - 1].take()).collect();
        for child in &mut killed {
            child.kill().unwrap();
        }
        for child in &mut killed {
            child.wait().unwrap();
        }
    }

    /// The process id of a server.
    pub fn pid(&self, id: u8) -> u32 {
        self.processes[usize::from(id) - 1].as_ref().unwrap().id()
    }

    /// Waits for a server to end by itself.
    pub fn await_exit(&mut self, id: u8) -> std::process::ExitStatus {
        let child = self.processes[usize::from(id) - 1].as_mut().unwrap();
        let status = await_value("the server ends", || child.try_wait().unwrap());
        self.processes[usize::from(id) - 1] = None;
        status
    }

    /// A client that asks this server first, without lines.
    pub fn client(&self, name: &str, server: u8) -> Client {
        let mut options = ClientOptions::new(self.cluster.clone(), name);
        options.first_server = Some(ServerId(server));
        Client::new(options).unwrap()
    }

    /// A client whose lines go beside the servers'.
    pub fn client_with_log(&self, name: &str, server: u8) -> Client {
        let mut options = ClientOptions::new(self.cluster.clone(), name);
        options.first_server = Some(ServerId(server));
        let path = self.dir.path().join(format!("client-{name}.log"));
        options.trace = Trace::to_file(ProcessId::named(name).unwrap(), &path, false).unwrap();
        Client::new(options).unwrap()
    }

    /// How a server is, if it answers.
    pub fn status(&self, id: u8) -> Option<ServerStatus> {
        self.client("probe", id).status(ServerId(id)).ok()
    }

    /// The server that leads, once all these servers know the same one.
    pub fn await_leader(&self, among: &[u8]) -> u8 {
        await_value("one leader is known", || {
            let leader = |id: &u8| Some(self.status(*id)?.leader?.ballot);
            let leaders: Option<Vec<_>> = among.iter().map(leader).collect();
            let first = *leaders.as_ref()?.first()?;
            leaders?.iter().all(|leader| *leader == first).then_some(first.server.0)
        })
    }

    /// Waits until every server answers and all are connected to each other.
    pub fn await_all(&mut self) {
        let others = self.cluster.servers().len() - 1;
        for ServerId(id) in self.cluster.servers().iter() {
            await_value("the server answers and is connected", || {
                if let Some(Ok(Some(status))) = self.processes[usize::from(id) - 1].as_mut().map(Child::try_wait) {
                    let why = std::fs::read_to_string(self.dir.path().join(format!("server-{id}.err")));
                    panic!("server {id} has ended ({status}): {}", why.unwrap_or_default());
                }
                self.status(id).filter(|status| status.connected.len() == others)
            });
        }
    }

    /// Waits until all servers have applied the same slots to the same effect.
    pub fn await_agreement(&self) -> ServerStatus {
        await_value("all replicas agree", || {
            let all: Option<Vec<_>> = self.cluster.members().map(|(server, _)| self.status(server.0)).collect();
            let all = all?;
            let same = |status: &ServerStatus| (status.applied, status.digest) == (all[0].applied, all[0].digest);
            all.iter().all(same).then(|| all[0].clone())
        })
    }

    /// Runs a tool of the project on the cluster.
    pub fn client_tool(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program("paxos-client"));
        command.arg("--cluster").arg(self.file()).args(arguments).stdin(Stdio::null());
        command.output().unwrap()
    }

    /// Proves the run from its log lines. Returns the exit code and the output.
    pub fn audit(&self) -> (i32, String) {
        proved(self.dir.path())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.processes.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let kept = std::env::temp_dir().join(format!("paxos-kv-failed-{}", std::process::id()));
            if std::fs::rename(self.dir.path(), &kept).is_ok() {
                eprintln!("the run is kept in {}", kept.display());
            }
        }
    }
}

/// The directory of the repository, for tests of either package.
pub fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().find(|directory| directory.join("run_server.sh").exists()).unwrap().to_path_buf()
}

/// A program of this build. Cargo builds those of both packages for `cargo test --workspace`, and only the server and
/// the client for the tests of the store alone.
pub fn program(name: &str) -> PathBuf {
    let mut directory = std::env::current_exe().unwrap();
    directory.pop();
    if directory.ends_with("deps") {
        directory.pop();
    }
    directory.join(name)
}

/// Audits a run, and asks the lab, if it is built, whether the results of the clients are linearizable: two proofs that
/// rest on different evidence. Returns the exit code and the output of the first one that fails, or of both. Log lines
/// that a crash took may leave the search undecided (exit code 6); that fails nothing.
pub fn proved(run: &Path) -> (i32, String) {
    let directory = run.to_string_lossy();
    let audited = run_program("paxos-server", &["audit", &directory]);
    if audited.0 != 0 || !program("paxos-lab").exists() {
        return audited;
    }
    let (code, searched) = run_program("paxos-lab", &["check", &directory]);
    (if code == 6 { 0 } else { code }, audited.1 + &searched)
}

/// Writes a script that can be executed. Another process writes it: a program that this process has open for writing is
/// "busy" if another test starts a process at the same moment.
pub fn write_script(path: &Path, text: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"printf '%s' "$1" > "$0" && chmod 755 "$0""#]).arg(path).arg(text);
    assert!(shell.status().unwrap().success());
}

/// Runs a program of this build. Returns the exit code and the output.
pub fn run_program(name: &str, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(program(name)).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code().unwrap_or(-1), text)
}

/// A cluster file whose addresses no other process uses.
pub fn cluster_file(count: u8) -> String {
    cluster_file_with(count, |_| String::new())
}

/// One whose servers can be watched.
pub fn cluster_file_with_page(count: u8) -> String {
    cluster_file_with(count, |address| format!("http = \"{address}\"\n"))
}

fn cluster_file_with(count: u8, page: impl Fn(SocketAddr) -> String) -> String {
    let mut file = "cluster = \"test\"\n".to_string();
    for id in 1..=count {
        let (peer, client) = (free_address(), free_address());
        file += &format!("[[server]]\nid = {id}\npeer = \"{peer}\"\nclient = \"{client}\"\n");
        file += &page(free_address());
    }
    file
}

/// A free port of a loopback address that belongs to this process: tests that run at once cannot meet.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let process = std::process::id();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let address = Ipv4Addr::new(127, (process >> 8 & 127) as u8 + 64, process as u8, (n % 250) as u8 + 1);
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap()
}

/// Waits until something is there.
pub fn await_value<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The memory of a process, in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    of_status(pid, "VmRSS:")
}

/// The most memory that a process has had so far, in KiB.
pub fn peak_kib(pid: u32) -> u64 {
    of_status(pid, "VmHWM:")
}

fn of_status(pid: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
