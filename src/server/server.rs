//! A server as a value: its start, and its end.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::DirBuilder;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::check::ServerAddresses;
use super::client_listener::{self, ClientListener};
use super::context::{ServerContext, Threads};
use super::options::{FailureMode, RecoveryMode, ServerOptions};
use super::peers::Peers;
use super::supervisor::{STOP_TIMEOUT, Supervisor, stop_roles};
use super::{checkpoint_thread, http};
use crate::cluster::Cluster;
use crate::host::{Admission, RecoveryError};
use crate::net::{BindError, Link, bind};
use crate::random::Random;
use crate::role::{RoleKind, ServerId};
use crate::storage::DataDir;
use crate::storage::identity::short_disk;
use crate::trace::{Digest, DiskName, Event, HistoryName, MaybeBallot, ProcessId, QuotedText, RestartMode, Trace};

/// How long the last lines may take to reach the terminal.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the supervisor has to take the order to stop, and the other threads at least to end after the roles.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// A running server: a proposer, an acceptor and a learner, with their connections.
///
/// Several servers can run in one program, each with a data directory and addresses of its own. [`Server::stop`], or
/// dropping the value, ends every thread and connection of the server. Its addresses and its data directory are then
/// free, and another start finds all that was acknowledged.
///
/// If the disk fails, or what it returns contradicts itself, the server **ends the whole process** with exit code 1: no
/// part of the server can be trusted then, and acknowledged writes are safe. A role's thread that panics does the same.
///
/// ```no_run
/// use paxos_kv::{Cluster, Server, ServerOptions};
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let cluster = Cluster::read("res/cluster.toml".as_ref())?;
///     let mut options = ServerOptions::new(1, cluster);
///     options.data = Some("data/server-1".into());
///     options.quiet = true;
///     let server = Server::start(options)?;
///     server.stop()?;
///     Ok(())
/// }
/// ```
pub struct Server {
    ctx: Arc<ServerContext>,
    /// The thread of the supervisor; None before and after it runs.
    supervisor: Option<JoinHandle<()>>,
}

/// Why a server cannot start. Each is one sentence for an operator.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StartError {
    /// An address is in use.
    #[error("{0}")]
    AddressInUse(String),
    /// The disk has too little space.
    #[error("{0}")]
    DiskFull(String),
    /// Any other reason.
    #[error("{0}")]
    Failed(String),
}

/// Threads of a server have not ended in time, because a system call does not return: usually of a disk that hangs. The
/// data directory stays locked until they end, so that nothing else writes to it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("these threads of the server have not ended yet: {}", threads.join(", "))]
pub struct StopError {
    /// Their names.
    pub threads: Vec<String>,
}

/// Whether to try again what has failed for this reason. It may wait before it answers.
pub(super) type TryAgain<'a> = dyn FnMut(&StartError) -> bool + 'a;

impl From<String> for StartError {
    fn from(why: String) -> StartError {
        StartError::Failed(why)
    }
}

impl From<BindError> for StartError {
    fn from(error: BindError) -> StartError {
        match error {
            BindError::Taken { .. } => StartError::AddressInUse(error.to_string()),
            error => StartError::Failed(error.to_string()),
        }
    }
}

impl From<RecoveryError> for StartError {
    fn from(error: RecoveryError) -> StartError {
        match error {
            RecoveryError::NoSpace(why) => StartError::DiskFull(why),
            RecoveryError::Failed(why) | RecoveryError::Broken(why) => StartError::Failed(why),
        }
    }
}

impl Server {
    /// Starts a server. When this returns, its roles have read their disks and its addresses are open. Nothing of a
    /// server that cannot start is left.
    pub fn start(options: ServerOptions) -> Result<Server, StartError> {
        Server::start_with(options, &mut |_| false)
    }

    /// Like [`Server::start`]; asks what to do while an address is in use or the disk is full.
    pub(super) fn start_with(mut options: ServerOptions, again: &mut TryAgain<'_>) -> Result<Server, StartError> {
        let server_addresses = ServerAddresses::of(&options)?;
        // Ports first: a server that is started twice must not touch the data of the running one.
        let ports = Ports::bind(&server_addresses, again)?;
        let owner = server_addresses.cluster.owner(server_addresses.me);
        let data = options.data.insert(options.data_dir()).clone();
        let data_dir = insist(again, || Ok(DataDir::open(&data, owner).map_err(RecoveryError::from)?))?;
        data_dir.claim_protocol(options.protocol.family()).map_err(|error| error.to_string())?;
        let trace = open_trace(&options, server_addresses.me, data_dir.incarnation())?;
        let seed = *options.seed.get_or_insert_with(|| Random::unseeded().next() % 1_000_000);
        let admission = insist(again, || {
            Ok(Admission::of(&data_dir, server_addresses.cluster.quorums()).map_err(RecoveryError::from)?)
        })?;
        let ctx = Arc::new(ServerContext::new(owner, options, data_dir.incarnation(), trace, admission));
        Server::start_threads(ctx, &server_addresses.cluster, Arc::new(data_dir), ports, seed, again)
    }

    fn start_threads(
        ctx: Arc<ServerContext>,
        cluster: &Cluster,
        data_dir: Arc<DataDir>,
        ports: Ports,
        seed: u64,
        again: &mut TryAgain<'_>,
    ) -> Result<Server, StartError> {
        // From here on, dropping it ends what has started.
        let mut server = Server { ctx: ctx.clone(), supervisor: None };
        if ctx.options.protocol.has(RoleKind::Learner) {
            insist(again, || Ok(checkpoint_thread::start(&ctx, &data_dir)?))?;
        }
        let (mut supervisor, orders) = Supervisor::new(ctx.clone(), data_dir.clone(), seed);
        let _ = ctx.threads.lab_handle.set(orders);
        let listener = || ClientListener { ctx: ctx.clone(), cluster: cluster.clone() };
        // Before the first line, so that viewers get it too.
        if let Some(port) = ports.http {
            http::serve(listener(), port).map_err(no_thread)?;
        }
        supervisor.start()?;
        trace_boot(&ctx, cluster, &data_dir, seed);
        let peers = Peers::new(ctx.clone(), cluster.clone(), data_dir);
        peers.dial()?;
        peers.serve(ports.peer).map_err(no_thread)?;
        client_listener::serve(listener(), ports.client).map_err(no_thread)?;
        let supervisor = ctx.threads.group.spawn("supervisor", move || supervisor.run()).map_err(no_thread)?;
        server.supervisor = Some(supervisor);
        Ok(server)
    }

    /// Stops the server, and returns when all its threads have ended: usually after some milliseconds, with a viewer
    /// after one second. A thread that waits for a disk may delay that, by six seconds at most. Requests under way may
    /// stay without an answer, as in a crash.
    ///
    /// One thread may outlive this call: that of a terminal which accepts nothing. It ends with the last line shown.
    pub fn stop(mut self) -> Result<(), StopError> {
        self.end()
    }

    /// Reopens the log file after SIGHUP: log rotation has moved the old file away, and expects new lines under its
    /// name.
    pub(super) fn reopen_log(&self) {
        let Some((_, path)) = self.ctx.options.log_file() else { return };
        match self.ctx.core.trace.reopen() {
            Ok(()) => self.ctx.trace_line(Event::Reopen { cause: QuotedText::new("SIGHUP") }, None),
            Err(error) => {
                let why = format!("cannot open {}: {error}. Log lines still go to the old file", path.display());
                self.ctx.trace_fault("log", "reopen", &why);
            }
        }
    }

    /// Ends the roles of a server whose process is about to end. The end of the process closes the rest.
    pub(super) fn end_with_process(mut self, cause: &str) {
        self.end_roles();
        trace_stop(&self.ctx, cause);
        self.ctx.core.trace.flush(FLUSH_TIMEOUT);
        std::mem::forget(self);
    }

    fn end(&mut self) -> Result<(), StopError> {
        let deadline = Instant::now() + STOP_TIMEOUT;
        let was_up = self.supervisor.is_some();
        self.end_roles();
        let Threads { group, links, .. } = &self.ctx.threads;
        links.get().into_iter().flat_map(BTreeMap::values).for_each(Link::close);
        group.stop();
        let threads = group.join(deadline.max(Instant::now() + LAST_MOMENT));
        if was_up {
            trace_stop(&self.ctx, "stop");
        }
        self.ctx.core.trace.flush(FLUSH_TIMEOUT);
        if threads.is_empty() { Ok(()) } else { Err(StopError { threads }) }
    }

    /// Lets the roles finish their queued items, and ends them.
    fn end_roles(&mut self) {
        let Some(supervisor) = self.supervisor.take() else { return stop_roles(&self.ctx) };
        // If the supervisor takes no order, it hangs; a crash loses nothing either.
        if self.ctx.threads.lab_handle.get().is_some_and(|handle| handle.stop(LAST_MOMENT)) {
            let _ = supervisor.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.ctx.threads.group.is_stopping() {
            // A drop has no caller to report the remaining threads to.
            let _ = self.end();
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("options", &self.ctx.options).finish_non_exhaustive()
    }
}

/// Tries until it succeeds, or until nothing can be hoped for.
fn insist<T>(again: &mut TryAgain<'_>, mut attempt: impl FnMut() -> Result<T, StartError>) -> Result<T, StartError> {
    loop {
        match attempt() {
            Err(obstacle) if again(&obstacle) => {}
            done => return done,
        }
    }
}

fn no_thread(error: std::io::Error) -> StartError {
    StartError::Failed(format!("cannot start a thread: {error}"))
}

/// The addresses of a server, bound.
struct Ports {
    peer: TcpListener,
    client: TcpListener,
    http: Option<TcpListener>,
}

impl Ports {
    fn bind(server_addresses: &ServerAddresses, again: &mut TryAgain<'_>) -> Result<Ports, StartError> {
        let mut bind = |address, what| insist(again, || Ok(bind(address, what)?));
        let (peer, client) = (bind(server_addresses.peer, "peer")?, bind(server_addresses.client, "client")?);
        let http = server_addresses.http.map(|address| bind(address, "http")).transpose()?;
        Ok(Ports { peer, client, http })
    }
}

fn open_trace(options: &ServerOptions, me: ServerId, incarnation: u32) -> Result<Trace, String> {
    let process = ProcessId::server(me, incarnation);
    let trace = match options.log_file() {
        Some((data_dir, path)) => {
            let opened = DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
            let opened =
                opened.and_then(|()| Trace::to_bounded_file(process, &path, options.log_bound(), !options.quiet));
            opened.map_err(|error| no_log(&path, &error))?
        }
        None if options.quiet => Trace::disabled(),
        None => {
            Trace::to_terminal(process).map_err(|error| format!("cannot write log lines to the terminal: {error}"))?
        }
    };
    trace.show_steps(options.shows_steps());
    Ok(trace)
}

/// The error of a server whose log file cannot be written.
pub fn no_log(path: &Path, why: &dyn std::fmt::Display) -> String {
    format!("cannot write the log file {}: {why}. Choose another directory with --log-dir", path.display())
}

/// The first line: what this process is, and what it found on its disk.
fn trace_boot(ctx: &ServerContext, cluster: &Cluster, data_dir: &DataDir, seed: u64) {
    let options = &ctx.options;
    let shown = ctx.core.shared_status.read();
    let fails = options.fail != FailureMode::None;
    let knows = ctx.core.acceptor.is_open();
    let restart = if options.restart == RecoveryMode::Lost { RestartMode::Lost } else { RestartMode::Disk };
    let event = Event::Boot {
        version: QuotedText::new(env!("CARGO_PKG_VERSION")),
        lines: Some(crate::trace::FORMAT),
        cluster: cluster.servers(),
        protocol: Some(QuotedText::new(options.protocol.to_string())),
        seed: Some(seed),
        fail: Some(QuotedText::new(options.fail.to_string())),
        mean_up: fails.then(|| options.mean_up.into()),
        mean_down: fails.then(|| options.mean_down.into()),
        restart: Some(restart),
        data: options.data.as_ref().map(|path| QuotedText::new(path.to_string_lossy().as_bytes())),
        // A filter may hide the steps that the option requests; an audit of the run must know.
        steps: Some(QuotedText::from(if ctx.core.trace.is_complete() { "on" } else { "off" })),
        incarnation: Some(data_dir.incarnation()),
        applied: ctx.core.learner.is_open().then_some(shown.applied),
        digest: ctx.core.learner.is_open().then_some(Digest(shown.digest)),
        // An acceptor that waits for disk space has not read its disk yet.
        promised: knows.then(|| MaybeBallot((shown.promised.round > 0).then_some(shown.promised))),
        accepted: knows.then_some(shown.accepted),
        history: ctx.core.learner.is_open().then(|| HistoryName::of(shown.history)),
        disk: DiskName::new(&short_disk(data_dir.storage_id())),
    };
    let why = (restart == RestartMode::Lost).then(|| {
        "UNSAFE: a restarted acceptor loses its promises and accepted values; for demonstration only".to_string()
    });
    if let Some(why) = &why {
        eprintln!("warning: server {}: {why}", ctx.core.config.me.0);
    }
    ctx.trace_line(event, why);
}

fn trace_stop(ctx: &ServerContext, cause: &str) {
    let shown = ctx.core.shared_status.read();
    let (applied, digest) = (Some(shown.applied), Some(Digest(shown.digest)));
    let event = Event::Stop { applied, digest, cause: QuotedText::new(cause) };
    ctx.trace_line(event, None);
}
