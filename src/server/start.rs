//! The start of a server: from the command line to a running server, and to its end.

use std::fs::DirBuilder;
use std::io::IsTerminal;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_shutdown;
use signal_hook::iterator::Signals;

use super::check::ServerAddresses;
use super::client_listener::{self, ClientListener};
use super::context::ServerContext;
use super::options::{FailureMode, RecoveryMode, ServerOptions};
use super::peers::Peers;
use super::supervisor::Supervisor;
use super::{checkpoint_thread, http};
use crate::cluster::Cluster;
use crate::host::{Admission, Env, LabRequest, RecoveryError};
use crate::net::{BindError, allow_many_sockets, bind};
use crate::random::Random;
use crate::role::{RoleKind, ServerId};
use crate::storage::DataDir;
use crate::storage::identity::short_disk;
use crate::trace::{Digest, DiskName, Event, HistoryName, MaybeBallot, ProcessId, QuotedText, RestartMode, Trace};

/// How long the last lines may take to reach the terminal.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// A server that cannot start because its disk is full tries again after this time.
const SPACE_RETRY: Duration = Duration::from_secs(1);
/// How long a start waits for an address in use to become free.
const BIND_PATIENCE: Duration = Duration::from_secs(2);
/// How often a waiting start looks for a signal to stop.
const SIGNAL_LOOK: Duration = Duration::from_millis(50);

/// Runs a server until Ctrl-C or SIGTERM. The error is one sentence for the terminal.
pub fn run(mut options: ServerOptions) -> Result<(), String> {
    let server_addresses = ServerAddresses::of(&options)?;
    let (me, cluster) = (server_addresses.me, server_addresses.cluster.clone());
    #[cfg(feature = "seeded-bugs")]
    if let Some(bug) = options.bug {
        crate::seeded_bugs::switch_everywhere(bug);
    }
    allow_many_sockets();
    let (mut signals, is_stopping) = signals().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let ends_on_hangup = options.log_dir.is_none() && std::io::stderr().is_terminal();
    // Ports first: a server that is started twice must not touch the data of the running one.
    let Some(Ports { peer: peer_port, client: client_port, http: http_port }) =
        Ports::bind(&server_addresses, &mut signals)?
    else {
        return Ok(());
    };
    let data = options.data_dir();
    options.data = Some(data.clone());
    let open = || DataDir::open(&data, cluster.owner(me)).map_err(RecoveryError::from);
    let Some(data_dir) = await_space(me, &mut signals, open)? else { return Ok(()) };
    data_dir.claim_protocol(options.protocol.family()).map_err(|error| error.to_string())?;
    let data_dir = Arc::new(data_dir);
    let trace = open_trace(&options, me, data_dir.incarnation())?;
    let seed = *options.seed.get_or_insert_with(|| Random::unseeded().next() % 1_000_000);
    let decide = || Admission::of(&data_dir, cluster.quorums()).map_err(RecoveryError::from);
    let Some(admission) = await_space(me, &mut signals, decide)? else { return Ok(()) };
    let ctx = Arc::new(ServerContext::new(cluster.owner(me), options, data_dir.incarnation(), trace, admission));

    let has_checkpoint = ctx.options.protocol.has(RoleKind::Learner);
    if has_checkpoint && await_space(me, &mut signals, || checkpoint_thread::start(&ctx, &data_dir))?.is_none() {
        return Ok(());
    }
    let (mut supervisor, orders) = Supervisor::new(ctx.clone(), data_dir.clone(), seed);
    let _ = ctx.threads.lab_handle.set(orders);
    let listener = || ClientListener { ctx: ctx.clone(), cluster: cluster.clone() };
    // Before the first line, so that viewers get it too.
    if let Some(port) = http_port {
        http::serve(listener(), port).map_err(|error| format!("cannot start a thread: {error}"))?;
    }
    supervisor.start()?;
    trace_boot(&ctx, &cluster, &data_dir, seed);
    let peers = Peers::new(ctx.clone(), cluster.clone(), data_dir.clone());
    peers.dial()?;
    let spawned = peers.serve(peer_port).and_then(|()| client_listener::serve(listener(), client_port));
    spawned.map_err(|error| format!("cannot start a thread: {error}"))?;
    let supervising = std::thread::Builder::new().name("supervisor".to_string()).spawn(move || supervisor.run());
    let supervising = supervising.map_err(|error| format!("cannot start a thread: {error}"))?;

    let signal = loop {
        match signals.forever().next() {
            Some(SIGHUP) if !ends_on_hangup => reopen_log(&ctx),
            signal => break signal.unwrap_or(SIGTERM),
        }
    };
    is_stopping.store(true, Ordering::Relaxed);
    // If the supervisor's queue is full, the process ends all the same: a crash loses nothing either.
    if ctx.threads.lab_request(LabRequest::Stop).is_ok() {
        let _ = supervising.join();
    }
    let cause = match signal {
        SIGINT => "SIGINT",
        SIGHUP => "SIGHUP",
        _ => "SIGTERM",
    };
    trace_stop(&ctx, cause);
    ctx.core.trace.flush(FLUSH_TIMEOUT);
    Ok(())
}

/// Handles Ctrl-C, SIGTERM and SIGHUP. Once the flag is set, the next Ctrl-C or SIGTERM ends the process at once: an
/// operator who asks twice does not want to wait for a disk that hangs.
fn signals() -> std::io::Result<(Signals, Arc<AtomicBool>)> {
    let is_stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        register_conditional_shutdown(signal, 128 + signal, is_stopping.clone())?;
    }
    Ok((Signals::new([SIGINT, SIGTERM, SIGHUP])?, is_stopping))
}

/// Waits for `within`; true, and earlier, if a signal to stop arrives.
fn is_told_to_stop(signals: &mut Signals, within: Duration) -> bool {
    let end = Instant::now() + within;
    loop {
        if signals.pending().any(|signal| signal != SIGHUP) {
            return true;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(left.min(SIGNAL_LOOK));
    }
}

/// The addresses of a server, bound.
struct Ports {
    peer: TcpListener,
    client: TcpListener,
    http: Option<TcpListener>,
}

impl Ports {
    /// Binds the addresses. An address in use is tried again for a while, since its holder may be about to end, like a
    /// process that was just killed. None if a signal to stop arrives meanwhile.
    fn bind(server_addresses: &ServerAddresses, signals: &mut Signals) -> Result<Option<Ports>, String> {
        let deadline = Instant::now() + BIND_PATIENCE;
        let mut bound = Vec::new();
        for (address, what) in server_addresses.addresses() {
            let port = loop {
                match bind(address, what) {
                    Ok(port) => break port,
                    Err(BindError::Taken { .. }) if Instant::now() < deadline => {}
                    Err(error) => return Err(error.to_string()),
                }
                if is_told_to_stop(signals, SIGNAL_LOOK) {
                    return Ok(None);
                }
            };
            bound.push(port);
        }
        let mut bound = bound.into_iter();
        Ok(bound.next().zip(bound.next()).map(|(peer, client)| Ports { peer, client, http: bound.next() }))
    }
}

/// Runs an attempt that needs disk space until there is some. None if a signal to stop arrives meanwhile.
fn await_space<T>(
    me: ServerId,
    signals: &mut Signals,
    mut attempt: impl FnMut() -> Result<T, RecoveryError>,
) -> Result<Option<T>, String> {
    let mut is_reported = false;
    loop {
        match attempt() {
            Ok(done) => return Ok(Some(done)),
            Err(RecoveryError::Failed(why) | RecoveryError::Broken(why)) => return Err(why),
            Err(RecoveryError::NoSpace(why)) => {
                if !std::mem::replace(&mut is_reported, true) {
                    eprintln!("server {} waits for disk space and tries again every second: {why}", me.0);
                }
            }
        }
        if is_told_to_stop(signals, SPACE_RETRY) {
            return Ok(None);
        }
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

/// Reopens the log file after SIGHUP: log rotation has moved the old file away, and expects new lines under its name.
fn reopen_log(ctx: &ServerContext) {
    let Some((_, path)) = ctx.options.log_file() else { return };
    match ctx.core.trace.reopen() {
        Ok(()) => {
            ctx.trace_line(Event::Reopen { cause: QuotedText::new("SIGHUP") }, None);
        }
        Err(error) => {
            let why = format!("cannot open {}: {error}. Log lines still go to the old file", path.display());
            ctx.trace_fault("log", "reopen", &why);
        }
    }
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
