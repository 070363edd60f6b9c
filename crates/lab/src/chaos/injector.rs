//! Fault injector: begins each fault, and ends it so that the cluster can recover.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::capabilities::Capabilities;
use super::corruption::corrupt;
use super::fault::ChaosFault;
use super::plan::SERVERS;
use super::test_cluster::ChaosCluster;
use super::verify::RoundFailure;
use super::volume;
use paxos_kv::net::{Caller, Hello, frame, greeting, preamble};
use paxos_kv::random::Random;
use paxos_kv::role::{ServerId, ServerSet};

/// Length of one stop-and-continue period of a starved server.
const STOP_CONTINUE_PERIOD: Duration = Duration::from_millis(60);
/// Number of connections that one fault of unknown callers opens.
const UNKNOWN_CALLERS: u64 = 40;
/// Time limit for a server with corrupt files to answer or exit, and for a server that must exit to do so.
const REACTION_TIMEOUT: Duration = Duration::from_secs(3);

/// Counts of injected faults and their effects.
#[derive(Clone, Debug, Default)]
pub struct FaultCounts {
    /// Injected faults, by kind.
    pub injected: BTreeMap<&'static str, u64>,
    /// Processes that were killed, including those whose power was cut.
    pub kills: u64,
    /// Disks whose power was cut.
    pub power_cuts: u64,
    /// Reactions of servers, where more than one is allowed.
    pub reactions: BTreeMap<&'static str, u64>,
    /// Faults that were skipped, by kind and reason.
    pub skipped: BTreeMap<String, u64>,
}

/// Injects faults into a cluster.
pub struct FaultInjector<'a> {
    cluster: &'a mut ChaosCluster,
    capabilities: &'a mut Capabilities,
    random: Random,
    active: BTreeMap<usize, RunningFault>,
    /// Servers whose files were corrupted. Another server's files are corrupted only after all of these have repaired
    /// theirs.
    corrupted: ServerSet,
    started: Instant,
    /// Counts of injected faults.
    pub counts: FaultCounts,
    log: String,
}

/// A fault that has begun and not ended.
struct RunningFault {
    fault: ChaosFault,
    servers: ServerSet,
    undo_step: UndoStep,
}

/// What must be undone when a fault ends.
enum UndoStep {
    Nothing,
    Starving(Arc<AtomicBool>, JoinHandle<()>),
    /// The copy of the data directory from before the corruption, and the length of the server's log file then. A start
    /// that is refused may have written to both, and no other server has received a message from it.
    RestoreFiles(PathBuf, u64),
    /// Where the server's own directory is kept meanwhile.
    RestoreDir(PathBuf),
    /// The open connections; dropping them closes them.
    CloseConnections(Vec<TcpStream>),
}

impl<'a> FaultInjector<'a> {
    /// An injector without a running fault.
    pub fn new(cluster: &'a mut ChaosCluster, capabilities: &'a mut Capabilities, seed: u64) -> FaultInjector<'a> {
        let (active, done) = (BTreeMap::new(), FaultCounts::default());
        let (random, started) = (Random::new(seed, 1), Instant::now());
        FaultInjector {
            cluster,
            capabilities,
            random,
            active,
            corrupted: ServerSet::NONE,
            started,
            counts: done,
            log: String::new(),
        }
    }

    /// The cluster under test.
    pub fn cluster(&mut self) -> &mut ChaosCluster {
        self.cluster
    }

    /// A readable log of the faults, with times.
    pub fn log(&self) -> &str {
        &self.log
    }

    fn record(&mut self, what: &str) {
        let now = jiff::Timestamp::now();
        let at = self.started.elapsed().as_secs_f64();
        // Writing to a string does not fail.
        let _ = writeln!(self.log, "{now:.6} {at:7.3} s  {what}");
    }

    fn count_reaction(&mut self, what: &'static str) {
        self.record(what);
        *self.counts.reactions.entry(what).or_default() += 1;
    }

    fn skip(&mut self, fault: &ChaosFault, why: &str) {
        self.record(&format!("skipped: {fault}: {why}"));
        *self.counts.skipped.entry(format!("{}: {why}", fault.kind())).or_default() += 1;
    }

    /// Begins a fault.
    pub fn begin(&mut self, fault_number: usize, fault: &ChaosFault) -> Result<(), RoundFailure> {
        if let Some(need) = fault.required_capability()
            && !self.capabilities.has(need)
        {
            self.skip(fault, "not possible for this user or on this machine");
            return Ok(());
        }
        let servers = match fault {
            ChaosFault::KillLeader | ChaosFault::PauseLeader => [self.leader(fault_number)].into_iter().collect(),
            other => other.servers(),
        };
        let is_of_all = servers.len() > 2;
        for server in servers.iter() {
            match self.cluster.server_process(server).active_fault {
                Some(other) if is_of_all => self.end(other)?,
                Some(_) => {
                    self.skip(fault, "the server already has another fault");
                    return Ok(());
                }
                None => {}
            }
        }
        if matches!(fault, ChaosFault::CorruptFiles(..)) && !self.have_repaired_all(self.corrupted) {
            self.skip(fault, "another server has not repaired its corrupt files yet");
            return Ok(());
        }
        self.record(&format!(
            "{fault}{}",
            if servers == fault.servers() { String::new() } else { format!(": {servers}") }
        ));
        servers.iter().for_each(|server| self.cluster.server_process(server).active_fault = Some(fault_number));
        self.active.insert(fault_number, RunningFault { fault: fault.clone(), servers, undo_step: UndoStep::Nothing });
        match self.inject(fault_number, fault, servers)? {
            Some(rest) => {
                *self.counts.injected.entry(fault.kind()).or_default() += 1;
                if let Some(active) = self.active.get_mut(&fault_number) {
                    active.undo_step = rest;
                }
            }
            None => self.skip(fault, "not possible at that moment"),
        }
        Ok(())
    }

    /// Injects the fault; None if the present state of the cluster does not allow it.
    fn inject(
        &mut self,
        fault_number: usize,
        fault: &ChaosFault,
        servers: ServerSet,
    ) -> Result<Option<UndoStep>, RoundFailure> {
        match fault {
            ChaosFault::Kill(_) | ChaosFault::KillLeader => self.kill(servers),
            ChaosFault::RepeatedKill(server, after) => {
                for after in after {
                    self.kill(servers);
                    self.start(*server)?;
                    std::thread::sleep(*after);
                }
                self.kill(servers);
            }
            ChaosFault::Stop(server) => self.cluster.server_process(*server).stop().map_err(RoundFailure::Stuck)?,
            ChaosFault::Pause(_) | ChaosFault::PauseLeader => {
                servers.iter().for_each(|server| self.cluster.server_process(server).signal(Signal::STOP));
            }
            ChaosFault::Starve(server, percent) => {
                let Some(pid) = self.cluster.server_process(*server).pid() else { return Ok(None) };
                let (flag, thread) = starve(pid, *percent);
                return Ok(Some(UndoStep::Starving(flag, thread)));
            }
            ChaosFault::FewFiles(server, more) => {
                self.cluster.server_process(*server).limit_files(Some(*more)).map_err(RoundFailure::NotRun)?;
            }
            ChaosFault::PowerCut(_) => self.cut(servers)?,
            ChaosFault::DeadDisk(server) => {
                self.cluster.server_process(*server).may_exit = true;
                let path = self.cluster.server_process(*server).volume.path();
                self.capabilities.cut(&[&path]).map_err(RoundFailure::NotRun)?;
            }
            ChaosFault::FailSync(server, nth) => {
                self.cluster.server_process(*server).may_exit = true;
                self.cluster
                    .server_process(*server)
                    .trace(&format!("error=EIO:when={nth}"))
                    .map_err(RoundFailure::NotRun)?;
            }
            ChaosFault::SlowSync(server, by) => {
                let how = format!("delay_enter={}", by.as_micros());
                self.cluster.server_process(*server).trace(&how).map_err(RoundFailure::NotRun)?;
            }
            ChaosFault::Freeze(server) => {
                self.cluster.server_process(*server).volume.freeze().map_err(RoundFailure::NotRun)?
            }
            ChaosFault::FullDisk(server, is_killed) => {
                self.cluster.server_process(*server).volume.fill().map_err(RoundFailure::NotRun)?;
                if *is_killed {
                    self.kill(servers);
                    self.start(*server)?;
                }
            }
            ChaosFault::ReadOnly(server) => return self.start_read_only(*server),
            ChaosFault::CorruptFiles(server, part) => {
                self.kill(servers);
                let data = self.cluster.server_process(*server).data_dir();
                let intact_copy = data.with_extension("whole");
                let unplayed = |error| RoundFailure::NotRun(format!("cannot corrupt files: {error}"));
                volume::copy(&data, &intact_copy).map_err(unplayed)?;
                let lines = complete_lines_bytes(&self.log_path(*server)).map_err(unplayed)?;
                let wounds = corrupt(&data, *part, &mut self.random).map_err(unplayed)?;
                self.start(*server)?;
                self.cluster.server_process(*server).may_exit = true;
                self.corrupted.insert(*server);
                self.await_reply_or_exit(*server);
                if wounds.is_empty() {
                    let _ = fs::remove_dir_all(&intact_copy);
                    return Ok(None);
                }
                return Ok(Some(UndoStep::RestoreFiles(intact_copy, lines)));
            }
            ChaosFault::Wipe(server) => {
                self.kill(servers);
                let kept = self.move_data_dir_away(*server)?;
                self.start_impostor(*server, fault_number)?;
                return Ok(Some(UndoStep::RestoreDir(kept)));
            }
            ChaosFault::RollBack(server) => return self.replace_by_old_copy(*server, fault_number),
            ChaosFault::UnknownCallers(server) => {
                let streams = open_unknown_connections(self.cluster, *server, &mut self.random);
                return Ok(Some(UndoStep::CloseConnections(streams)));
            }
            ChaosFault::Link(ways, effect) => {
                if let Some(net) = &self.cluster.proxies {
                    net.begin(fault_number, &ways.directions(), *effect);
                }
            }
        }
        Ok(Some(UndoStep::Nothing))
    }

    /// Ends a fault and undoes its effects.
    pub fn end(&mut self, fault_number: usize) -> Result<(), RoundFailure> {
        let Some(RunningFault { fault, servers, undo_step: rest }) = self.active.remove(&fault_number) else {
            return Ok(());
        };
        self.record(&format!("end of fault: {fault}"));
        let undone = self.undo(fault_number, &fault, servers, rest);
        servers.iter().for_each(|server| self.cluster.server_process(server).active_fault = None);
        undone
    }

    fn undo(
        &mut self,
        strike: usize,
        fault: &ChaosFault,
        servers: ServerSet,
        rest: UndoStep,
    ) -> Result<(), RoundFailure> {
        match (fault, rest) {
            (ChaosFault::Pause(_) | ChaosFault::PauseLeader, _) => {
                servers.iter().for_each(|server| self.cluster.server_process(server).signal(Signal::CONT));
            }
            (_, UndoStep::Starving(flag, thread)) => {
                flag.store(true, Ordering::Relaxed);
                let _ = thread.join();
            }
            (ChaosFault::FewFiles(server, _), _) => {
                self.cluster.server_process(*server).limit_files(None).map_err(RoundFailure::NotRun)?
            }
            (ChaosFault::DeadDisk(server), _) => {
                self.await_exit_after_disk_failure(*server)?;
                self.cluster.server_process(*server).volume.remount().map_err(RoundFailure::NotRun)?;
            }
            (ChaosFault::FailSync(server, _), _) => self.await_exit_after_disk_failure(*server)?,
            (ChaosFault::SlowSync(server, _), _) => self.cluster.server_process(*server).untrace(),
            (ChaosFault::Freeze(server), _) => {
                self.cluster.server_process(*server).volume.thaw().map_err(RoundFailure::NotRun)?
            }
            (ChaosFault::FullDisk(server, _), _) => {
                self.cluster.server_process(*server).volume.empty().map_err(RoundFailure::NotRun)?
            }
            (ChaosFault::ReadOnly(server), _) => {
                self.kill(servers);
                self.cluster.server_process(*server).volume.set_read_only(false).map_err(RoundFailure::NotRun)?;
            }
            (ChaosFault::CorruptFiles(server, _), UndoStep::RestoreFiles(whole, lines)) => {
                let server_process = self.cluster.server_process(*server);
                if let Some(status) = server_process.exit_status() {
                    // The server must report why it cannot start, and must not crash.
                    if status.code() != Some(1) {
                        let why = format!(
                            "server {} started with corrupt files and ended with {status} instead of exit code 1",
                            server.0
                        );
                        return Err(RoundFailure::Violation(why));
                    }
                    let file = self.log_path(*server);
                    let text = fs::read(&file).unwrap_or_default();
                    if text[text.len().min(lines as usize)..].windows(6).any(|word| word == b" BOOT ") {
                        // The server has run since and may have sent messages, so its directory must not be rolled
                        // back.
                        let why = format!("server {} started with corrupt files and ended later by itself", server.0);
                        return Err(RoundFailure::Violation(why));
                    }
                    self.restore_data_dir(*server, &whole)?;
                    // The directory counts the server's incarnations. Two incarnations with the same number would look
                    // like lines of two histories, so the lines of the failed start are removed.
                    let file = fs::OpenOptions::new().write(true).open(&file);
                    let cut = file.and_then(|file| file.set_len(lines));
                    cut.map_err(|error| RoundFailure::NotRun(format!("cannot truncate the log of a server: {error}")))?;
                    self.count_reaction("refused to start with corrupt files, whose original bytes were then restored");
                } else {
                    let _ = fs::remove_dir_all(&whole);
                    self.count_reaction("started with corrupt files and repaired them");
                }
                self.cluster.server_process(*server).may_exit = false;
            }
            (ChaosFault::Wipe(server) | ChaosFault::RollBack(server), UndoStep::RestoreDir(kept)) => {
                self.check_impostor_refused(*server, fault)?;
                self.kill(servers);
                self.restore_data_dir(*server, &kept)?;
            }
            (_, UndoStep::CloseConnections(streams)) => drop(streams),
            (ChaosFault::Link(ways, _), _) => {
                if let Some(net) = &self.cluster.proxies {
                    net.end(strike, &ways.directions());
                }
            }
            _ => {}
        }
        for server in servers.iter() {
            self.start(server)?;
        }
        Ok(())
    }

    /// Ends all running faults.
    pub fn end_all(&mut self) -> Result<(), RoundFailure> {
        while let Some(strike) = self.active.keys().next().copied() {
            self.end(strike)?;
        }
        Ok(())
    }

    fn start(&mut self, server: ServerId) -> Result<(), RoundFailure> {
        self.cluster.server_process(server).start().map_err(RoundFailure::NotRun)
    }

    /// Kills servers; all are signaled before the first is waited for.
    fn kill(&mut self, servers: ServerSet) {
        for server in servers.iter() {
            self.counts.kills += u64::from(self.cluster.server_process(server).kill());
        }
        servers.iter().for_each(|server| self.cluster.server_process(server).reap());
    }

    fn cut(&mut self, servers: ServerSet) -> Result<(), RoundFailure> {
        let paths: Vec<PathBuf> =
            servers.iter().map(|server| self.cluster.server_process(server).volume.path()).collect();
        let paths: Vec<_> = paths.iter().map(PathBuf::as_path).collect();
        // A disk without power returns EIO, so a server may exit before it is killed.
        servers.iter().for_each(|server| self.cluster.server_process(server).may_exit = true);
        self.capabilities.cut(&paths).map_err(RoundFailure::NotRun)?;
        self.kill(servers);
        self.counts.power_cuts += servers.len() as u64;
        for server in servers.iter() {
            self.cluster.server_process(server).volume.remount().map_err(RoundFailure::NotRun)?;
        }
        Ok(())
    }

    /// The current leader; a server chosen by the fault's number if no leader is known.
    fn leader(&self, fault_number: usize) -> ServerId {
        self.cluster.query_status().leader_id().unwrap_or(ServerId((fault_number % usize::from(SERVERS)) as u8 + 1))
    }

    fn have_repaired_all(&self, servers: ServerSet) -> bool {
        servers.iter().all(|server| self.cluster.status(server).is_some_and(|status| status.corrupt_slots == 0))
    }

    /// Waits until a server answers or exits.
    fn await_reply_or_exit(&mut self, server: ServerId) {
        let deadline = Instant::now() + REACTION_TIMEOUT;
        while Instant::now() < deadline {
            let server_process = self.cluster.server_process(server);
            if server_process.await_exit(Duration::from_millis(50)).is_some() || self.cluster.status(server).is_some() {
                return;
            }
        }
    }

    /// A server whose disk has failed must exit by itself with code 1. A server that had nothing to write does not
    /// notice the failure.
    fn await_exit_after_disk_failure(&mut self, server: ServerId) -> Result<(), RoundFailure> {
        let server_process = self.cluster.server_process(server);
        match server_process.await_exit(REACTION_TIMEOUT) {
            Some(status) if status.code() == Some(1) => self.count_reaction("ended by itself after its disk failed"),
            Some(status) => {
                let why = format!(
                    "the disk of server {} failed, and the server ended with {status} instead of exit code 1",
                    server.0
                );
                return Err(RoundFailure::Violation(why));
            }
            None => {
                self.count_reaction("had nothing to write while its disk failed");
                self.kill([server].into_iter().collect());
            }
        }
        Ok(())
    }

    fn start_read_only(&mut self, server: ServerId) -> Result<Option<UndoStep>, RoundFailure> {
        self.kill([server].into_iter().collect());
        let server_process = self.cluster.server_process(server);
        server_process.volume.set_read_only(true).map_err(RoundFailure::NotRun)?;
        server_process.start().map_err(RoundFailure::NotRun)?;
        server_process.may_exit = true;
        match server_process.await_exit(REACTION_TIMEOUT) {
            Some(status) if status.code() == Some(1) => Ok(Some(UndoStep::Nothing)),
            Some(status) => {
                let why = format!(
                    "server {} was started on a read-only disk and ended with {status} instead of exit code 1",
                    server.0
                );
                Err(RoundFailure::Violation(why))
            }
            None => Err(RoundFailure::Violation(format!("server {} runs on a read-only disk", server.0))),
        }
    }

    /// Moves the data directory of a server away.
    fn move_data_dir_away(&mut self, server: ServerId) -> Result<PathBuf, RoundFailure> {
        let data = self.cluster.server_process(server).data_dir();
        let kept = data.with_extension("kept");
        volume::move_durably(&data, &kept)
            .map_err(|error| RoundFailure::NotRun(format!("cannot move a data directory: {error}")))?;
        Ok(kept)
    }

    fn restore_data_dir(&mut self, server: ServerId, kept: &Path) -> Result<(), RoundFailure> {
        let data = self.cluster.server_process(server).data_dir();
        let moved = match fs::remove_dir_all(&data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => volume::move_durably(kept, &data),
        };
        moved.map_err(|error| RoundFailure::NotRun(format!("cannot restore a data directory: {error}")))
    }

    fn log_path(&self, server: ServerId) -> PathBuf {
        self.cluster.dir.join(format!("server-{}.log", server.0))
    }

    /// Starts a process with the server's number, but without its stable storage.
    fn start_impostor(&mut self, server: ServerId, fault_number: usize) -> Result<(), RoundFailure> {
        let lines = self.cluster.dir.join(format!("impostor-{}-{fault_number}", server.0));
        let server_process = self.cluster.server_process(server);
        server_process.start_with_log_dir(&lines).map_err(RoundFailure::NotRun)?;
        server_process.may_exit = true;
        Ok(())
    }

    /// Copies the data directory, lets the server run on, and then replaces the directory by the copy. Peers can detect
    /// this only if the server connected to them in between.
    fn replace_by_old_copy(&mut self, server: ServerId, fault_number: usize) -> Result<Option<UndoStep>, RoundFailure> {
        let one: ServerSet = [server].into_iter().collect();
        self.kill(one);
        let data = self.cluster.server_process(server).data_dir();
        let old = data.with_extension("old");
        volume::copy(&data, &old)
            .map_err(|error| RoundFailure::NotRun(format!("cannot copy a data directory: {error}")))?;
        self.start(server)?;
        let deadline = Instant::now() + REACTION_TIMEOUT;
        let others = usize::from(SERVERS) - 1;
        let has_met_all =
            |cluster: &ChaosCluster| cluster.status(server).is_some_and(|status| status.connected.len() == others);
        while !has_met_all(self.cluster) {
            if Instant::now() >= deadline {
                let _ = fs::remove_dir_all(&old);
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill(one);
        let kept = self.move_data_dir_away(server)?;
        volume::move_durably(&old, &data)
            .map_err(|error| RoundFailure::NotRun(format!("cannot move a data directory: {error}")))?;
        self.start_impostor(server, fault_number)?;
        Ok(Some(UndoStep::RestoreDir(kept)))
    }

    fn check_impostor_refused(&mut self, server: ServerId, fault: &ChaosFault) -> Result<(), RoundFailure> {
        let Some(status) = self.cluster.status(server) else { return Ok(()) };
        let is_believed = match fault {
            ChaosFault::Wipe(_) => status.admission.is_none(),
            _ => !status.connected.is_empty(),
        };
        if is_believed {
            let what = format!("after \"{fault}\" other servers accept it: it is connected to {}", status.connected);
            return Err(RoundFailure::Violation(what));
        }
        Ok(())
    }
}

/// A false introduction in the name of another server; the called server must record nothing of it.
fn false_hello(cluster: &ChaosCluster, to: ServerId, random: &mut Random) -> Hello {
    let others = cluster.server_addresses.servers().without(ServerSet::only(to));
    let name = random.within(0..=others.len() as u64 - 1) as usize;
    let who = Caller::Peer {
        server: others.iter().nth(name).unwrap_or(to),
        storage: random.next(),
        incarnation: u32::MAX - random.within(0..=1_000_000) as u32,
        boot: random.next(),
        is_active: random.within(0..=1) == 0,
        knows: (random.within(0..=1) == 0).then(|| random.next()),
    };
    Hello { cluster: cluster.server_addresses.name.clone(), to, members: cluster.server_addresses.servers(), who }
}

/// Connects to both ports of a server, and sends nothing, noise, half of a valid greeting, or a false identity.
fn open_unknown_connections(cluster: &ChaosCluster, server: ServerId, random: &mut Random) -> Vec<TcpStream> {
    let Some(member) = cluster.server_addresses.member(server) else { return Vec::new() };
    let mut streams = Vec::new();
    for number in 0..UNKNOWN_CALLERS {
        let address = if number % 2 == 0 { member.peer } else { member.client };
        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) else { continue };
        let noise: Vec<u8> = (0..random.within(0..=600)).map(|_| random.next() as u8).collect();
        let bytes = match random.within(0..=4) {
            0 => Vec::new(),
            1 => noise,
            2 => greeting(&false_hello(cluster, server, random)),
            // A valid preamble, then a false length or half a frame.
            3 => [&preamble()[..], &u32::MAX.to_le_bytes(), &noise].concat(),
            _ => [&preamble()[..], &frame(&vec![0u8; 40])[..20]].concat(),
        };
        // Errors are ignored: the server may already have closed the connection.
        let _ = stream.set_write_timeout(Some(Duration::from_millis(100)));
        let _ = stream.write_all(&bytes);
        streams.push(stream);
    }
    streams
}

/// Stops and continues a process, so that it runs only this percentage of the time.
fn starve(pid: Pid, percent: u64) -> (Arc<AtomicBool>, JoinHandle<()>) {
    let is_over = Arc::new(AtomicBool::new(false));
    let flag = is_over.clone();
    let thread = std::thread::spawn(move || {
        while !flag.load(Ordering::Relaxed) {
            let _ = kill_process(pid, Signal::STOP);
            std::thread::sleep(STOP_CONTINUE_PERIOD.mul_f64(1.0 - percent as f64 / 100.0));
            let _ = kill_process(pid, Signal::CONT);
            std::thread::sleep(STOP_CONTINUE_PERIOD.mul_f64(percent as f64 / 100.0));
        }
    });
    (is_over, thread)
}

/// Length in bytes of the whole lines of a file, without a last line that a kill has torn.
fn complete_lines_bytes(file: &Path) -> std::io::Result<u64> {
    let text = fs::read(file)?;
    Ok(text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::super::fault::Capability;
    use super::*;

    #[test]
    fn only_disk_faults_and_tracing_need_privileges() {
        let server = ServerId(1);
        assert_eq!(ChaosFault::Kill(ServerSet::first(5)).required_capability(), None);
        assert_eq!(ChaosFault::PowerCut(ServerSet::first(5)).required_capability(), Some(Capability::PowerCuts));
        assert_eq!(ChaosFault::SlowSync(server, STOP_CONTINUE_PERIOD).required_capability(), Some(Capability::Tracing));
        assert_eq!(ChaosFault::Wipe(server).required_capability(), None);
    }
}
