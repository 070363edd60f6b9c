//! From the command line to a running server, and to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_shutdown;
use signal_hook::iterator::Signals;

use super::clients::{self, FrontDesk};
use super::house::House;
use super::http;
use super::keeper::Keeper;
use super::lives::Unborn;
use super::options::{Fail, Options, Restart};
use super::peers::{Linked, Peers};
use super::standing::Standing;
use super::supervisor::{Order, Supervisor};
use crate::cluster::Cluster;
use crate::net::{allow_many_sockets, bind};
use crate::paxos::Quorums;
use crate::random::Random;
use crate::role::Server;
use crate::storage::{DataFolder, FolderError};
use crate::trace::{Context, Digest, Event, MaybeBallot, Process, RestartMode, RoleTag, Text, Trace};

/// How long the last lines may take to reach the terminal.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A server that cannot start for want of room tries again after so long.
const ROOM_RETRY: Duration = Duration::from_secs(1);
/// And looks so often whether it was told to stop.
const SIGNAL_LOOK: Duration = Duration::from_millis(50);

/// Runs a server until Ctrl-C or SIGTERM. The error is one sentence for the terminal.
pub fn run(mut options: Options) -> Result<(), String> {
    let cluster = Cluster::read(&options.cluster).map_err(|error| error.to_string())?;
    let me = Server(options.id);
    let member = cluster.member(me).ok_or_else(|| {
        let known = cluster.servers();
        format!("{} has no server {} (it has {known}). Choose one with --id", options.cluster.display(), options.id)
    })?;
    for address in [member.peer, member.client] {
        options.check_address(address)?;
    }
    options.check_failures()?;
    #[cfg(feature = "museum")]
    if let Some(bug) = options.bug {
        crate::museum::switch_everywhere(bug);
    }
    allow_many_sockets();
    let (mut signals, is_stopping) = signals().map_err(|error| format!("cannot listen for signals: {error}"))?;
    // Ports before anything else: a server that is started twice must not touch the running one's data.
    let peer_port = bind(member.peer, "peer")?;
    let client_port = bind(member.client, "client")?;
    let http = options.http.or(member.http);
    let http_port =
        http.map(|address| options.check_address(address).and_then(|()| bind(address, "http"))).transpose()?;
    let data = options.data.get_or_insert_with(|| format!("data/server-{}", me.0).into()).clone();
    let open = || DataFolder::open(&data, cluster.owner(me)).map_err(Unborn::from);
    let Some(folder) = await_room(me, &mut signals, open)? else { return Ok(()) };
    folder.take_side(options.protocol.is_paxos()).map_err(|error| error.to_string())?;
    let folder = Arc::new(folder);
    let trace = open_trace(&options, me, folder.life())?;
    let seed = *options.seed.get_or_insert_with(|| Random::unseeded().next() % 1_000_000);
    let quorums = cluster.quorums();
    let decide = || standing_of(&folder, quorums).map_err(Unborn::from);
    let Some(standing) = await_room(me, &mut signals, decide)? else { return Ok(()) };
    let house = Arc::new(House::new(me, cluster.servers(), options, trace, standing));

    let has_keeper = house.options.protocol.is_paxos();
    if has_keeper && await_room(me, &mut signals, || Keeper::start(&house, &folder))?.is_none() {
        return Ok(());
    }
    let (mut supervisor, orders) = Supervisor::new(house.clone(), folder.clone(), quorums, seed);
    let linked = Linked::default();
    let desk = || FrontDesk {
        house: house.clone(),
        cluster: cluster.clone(),
        life: folder.life(),
        linked: linked.clone(),
        orders: orders.clone(),
    };
    // Before the first line: viewers shall have that too.
    if let Some(port) = http_port {
        http::serve(desk(), port).map_err(|error| format!("cannot start a thread: {error}"))?;
    }
    supervisor.start()?;
    tell_boot(&house, &cluster, &folder, seed);
    let peers = Peers::new(house.clone(), cluster.clone(), folder.clone(), linked.clone());
    peers.dial()?;
    let spawned = peers.serve(peer_port).and_then(|()| clients::serve(desk(), client_port));
    spawned.map_err(|error| format!("cannot start a thread: {error}"))?;
    let supervising = std::thread::Builder::new().name("supervisor".to_string()).spawn(move || supervisor.run());
    let supervising = supervising.map_err(|error| format!("cannot start a thread: {error}"))?;

    let signal = signals.forever().next().unwrap_or(SIGTERM);
    is_stopping.store(true, Ordering::Relaxed);
    // If the supervisor has too much to do, the process ends all the same: a crash loses nothing either.
    if orders.give(Order::Stop).is_ok() {
        let _ = supervising.join();
    }
    tell_stop(&house, if signal == SIGINT { "SIGINT" } else { "SIGTERM" });
    house.trace.flush(LAST_WORDS);
    Ok(())
}

/// Ctrl-C and SIGTERM. Once the flag is set, the next one ends the process at once: whoever asks twice does not want to
/// wait for a disk that hangs.
fn signals() -> std::io::Result<(Signals, Arc<AtomicBool>)> {
    let is_stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        register_conditional_shutdown(signal, 128 + signal, is_stopping.clone())?;
    }
    Ok((Signals::new([SIGINT, SIGTERM])?, is_stopping))
}

/// Does what needs room on the disk, and tries again until there is some. None if it was told to stop meanwhile.
fn await_room<T>(
    me: Server,
    signals: &mut Signals,
    mut attempt: impl FnMut() -> Result<T, Unborn>,
) -> Result<Option<T>, String> {
    let mut has_told = false;
    loop {
        match attempt() {
            Ok(done) => return Ok(Some(done)),
            Err(Unborn::Broken(why)) => return Err(why),
            Err(Unborn::NoRoom(why)) => {
                if !std::mem::replace(&mut has_told, true) {
                    eprintln!("server {} waits for room on its disk, and looks each second. {why}", me.0);
                }
            }
        }
        let next = Instant::now() + ROOM_RETRY;
        while Instant::now() < next {
            if signals.pending().next().is_some() {
                return Ok(None);
            }
            std::thread::sleep(SIGNAL_LOOK);
        }
    }
}

/// Who has taken part goes on to; a server whose folder is new waits until enough of the others know it.
fn standing_of(folder: &DataFolder, quorums: Quorums) -> Result<Standing, FolderError> {
    if quorums.witnesses() == 0 {
        folder.set_takes_part()?;
    }
    Ok(if folder.takes_part() { Standing::member() } else { Standing::newcomer(quorums.witnesses()) })
}

fn open_trace(options: &Options, me: Server, life: u32) -> Result<Trace, String> {
    let process = Process::server(me, life);
    let trace = match &options.log_dir {
        Some(folder) => {
            let path = folder.join(format!("server-{}.log", me.0));
            let opened = std::fs::create_dir_all(folder).and_then(|()| Trace::to_file(process, &path, !options.quiet));
            opened.map_err(|error| {
                format!("cannot write the log file {}: {error}. Choose another --log-dir", path.display())
            })?
        }
        None if options.quiet => Trace::disabled(),
        None => Trace::to_terminal(process).map_err(|error| format!("cannot show lines on the terminal: {error}"))?,
    };
    trace.show_steps(options.shows_steps());
    Ok(trace)
}

/// The first line: what this process is, and what it found on its disk.
fn tell_boot(house: &House, cluster: &Cluster, folder: &DataFolder, seed: u64) {
    let options = &house.options;
    let shown = house.board.read();
    let fails = options.fail != Fail::None;
    let knows = house.acceptor.is_open();
    let restart = if options.restart == Restart::Lost { RestartMode::Lost } else { RestartMode::Disk };
    let event = Event::Boot {
        version: Text::new(env!("CARGO_PKG_VERSION")),
        cluster: cluster.servers(),
        protocol: Some(Text::new(options.protocol.to_string())),
        seed: Some(seed),
        fail: Some(Text::new(options.fail.to_string())),
        mean_up: fails.then(|| options.mean_up.into()),
        mean_down: fails.then(|| options.mean_down.into()),
        restart: Some(restart),
        data: options.data.as_ref().map(|path| Text::new(path.to_string_lossy().as_bytes())),
        // A filter may hide what the option asks for; who audits the run must know.
        steps: Some(Text::from(if house.trace.is_complete() { "on" } else { "off" })),
        life: Some(folder.life()),
        applied: house.learner.is_open().then_some(shown.applied),
        digest: house.learner.is_open().then_some(Digest(shown.digest)),
        // One that waits for room on its disk has not read it yet.
        promised: knows.then(|| MaybeBallot((shown.promised.round > 0).then_some(shown.promised))),
        accepted: knows.then_some(shown.accepted),
    };
    let why = (restart == RestartMode::Lost).then(|| {
        "UNSAFE: a restarted acceptor forgets what it promised and accepted; for demonstration only".to_string()
    });
    if let Some(why) = &why {
        eprintln!("warning: server {}: {why}", house.me.0);
    }
    house.line_because(RoleTag::Server, &Context::default(), event, why);
}

fn tell_stop(house: &House, cause: &str) {
    let shown = house.board.read();
    let (applied, digest) = (Some(shown.applied), Some(Digest(shown.digest)));
    let event = Event::Stop { applied, digest, cause: Text::new(cause) };
    house.line(RoleTag::Server, &Context::default(), event);
}
