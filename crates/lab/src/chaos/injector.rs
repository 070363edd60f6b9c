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
use super::corruption::damage;
use super::fault::ChaosFault;
use super::plan::SERVERS;
use super::test_cluster::ChaosCluster;
use super::verify::RoundFailure;
use super::volume;
use paxos_kv::net::{Caller, Hello, frame, greeting, preamble};
use paxos_kv::random::Random;
use paxos_kv::role::{ServerId, ServerSet};

/// Length of one stop-and-continue period of a starved server.
const SLICE: Duration = Duration::from_millis(60);
/// Number of connections that one fault of unknown callers opens.
const STRANGERS: u64 = 40;
/// Time limit for a server with corrupt files to answer or exit, and for a server that must exit to do so.
const SAYS_WITHIN: Duration = Duration::from_secs(3);

/// Counts of injected faults and their effects.
#[derive(Clone, Debug, Default)]
pub struct FaultCounts {
    /// Injected faults, by kind.
    pub strikes: BTreeMap<&'static str, u64>,
    /// Processes that were killed, including those whose power was cut.
    pub kills: u64,
    /// Disks whose power was cut.
    pub power_cuts: u64,
    /// Reactions of servers, where more than one is allowed.
    pub met: BTreeMap<&'static str, u64>,
    /// Faults that were skipped, by kind and reason.
    pub skipped: BTreeMap<String, u64>,
}

/// Injects faults into a cluster.
pub struct FaultInjector<'a> {
    cluster: &'a mut ChaosCluster,
    tools: &'a mut Capabilities,
    random: Random,
    active: BTreeMap<usize, RunningFault>,
    /// Servers whose files were corrupted. Another server's files are corrupted only after all of these have repaired
    /// theirs.
    wounded: ServerSet,
    begun: Instant,
    /// Counts of injected faults.
    pub done: FaultCounts,
    story: String,
}

/// A fault that has begun and not ended.
struct RunningFault {
    fault: ChaosFault,
    servers: ServerSet,
    rest: UndoStep,
}

/// What must be undone when a fault ends.
enum UndoStep {
    Nothing,
    Starving(Arc<AtomicBool>, JoinHandle<()>),
    /// The copy of the data directory from before the corruption, and the length of the server's log file then. A start
    /// that is refused may have written to both, and no other server has received a message from it.
    Whole(PathBuf, u64),
    /// Where the server's own directory is kept meanwhile.
    Folder(PathBuf),
    /// The open connections; dropping them closes them.
    Strangers(Vec<TcpStream>),
}

impl<'a> FaultInjector<'a> {
    /// An injector without a running fault.
    pub fn new(cluster: &'a mut ChaosCluster, tools: &'a mut Capabilities, seed: u64) -> FaultInjector<'a> {
        let (active, done) = (BTreeMap::new(), FaultCounts::default());
        let (random, begun) = (Random::new(seed, 1), Instant::now());
        FaultInjector { cluster, tools, random, active, wounded: ServerSet::NONE, begun, done, story: String::new() }
    }

    /// The cluster under test.
    pub fn cluster(&mut self) -> &mut ChaosCluster {
        self.cluster
    }

    /// A readable log of the faults, with times.
    pub fn story(&self) -> &str {
        &self.story
    }

    fn tell(&mut self, what: &str) {
        let now = jiff::Timestamp::now();
        let at = self.begun.elapsed().as_secs_f64();
        // Writing to a string does not fail.
        let _ = writeln!(self.story, "{now:.6} {at:7.3} s  {what}");
    }

    fn meet(&mut self, what: &'static str) {
        self.tell(what);
        *self.done.met.entry(what).or_default() += 1;
    }

    fn skip(&mut self, fault: &ChaosFault, why: &str) {
        self.tell(&format!("skipped: {fault}: {why}"));
        *self.done.skipped.entry(format!("{}: {why}", fault.kind())).or_default() += 1;
    }

    /// Begins a fault.
    pub fn begin(&mut self, strike: usize, fault: &ChaosFault) -> Result<(), RoundFailure> {
        if let Some(need) = fault.needs()
            && !self.tools.can(need)
        {
            self.skip(fault, "not possible here");
            return Ok(());
        }
        let servers = match fault {
            ChaosFault::KillLeader | ChaosFault::PauseLeader => [self.leader(strike)].into_iter().collect(),
            other => other.servers(),
        };
        let is_of_all = servers.len() > 2;
        for server in servers.iter() {
            match self.cluster.server_process(server).engaged {
                Some(other) if is_of_all => self.end(other)?,
                Some(_) => {
                    self.skip(fault, "the server is under another strike");
                    return Ok(());
                }
                None => {}
            }
        }
        if matches!(fault, ChaosFault::Damage(..)) && !self.are_well(self.wounded) {
            self.skip(fault, "another server has not repaired its files yet");
            return Ok(());
        }
        self.tell(&format!(
            "{fault}{}",
            if servers == fault.servers() { String::new() } else { format!(": {servers}") }
        ));
        servers.iter().for_each(|server| self.cluster.server_process(server).engaged = Some(strike));
        self.active.insert(strike, RunningFault { fault: fault.clone(), servers, rest: UndoStep::Nothing });
        match self.strike(strike, fault, servers)? {
            Some(rest) => {
                *self.done.strikes.entry(fault.kind()).or_default() += 1;
                if let Some(active) = self.active.get_mut(&strike) {
                    active.rest = rest;
                }
            }
            None => self.skip(fault, "not possible at that moment"),
        }
        Ok(())
    }

    /// Injects the fault; None if the present state of the cluster does not allow it.
    fn strike(
        &mut self,
        strike: usize,
        fault: &ChaosFault,
        servers: ServerSet,
    ) -> Result<Option<UndoStep>, RoundFailure> {
        match fault {
            ChaosFault::Kill(_) | ChaosFault::KillLeader => self.kill(servers),
            ChaosFault::Stumble(server, after) => {
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
                self.cluster.server_process(*server).limit_files(Some(*more)).map_err(RoundFailure::Unplayed)?;
            }
            ChaosFault::PowerCut(_) => self.cut(servers)?,
            ChaosFault::DeadDisk(server) => {
                self.cluster.server_process(*server).may_end = true;
                let path = self.cluster.server_process(*server).ground.path();
                self.tools.cut(&[&path]).map_err(RoundFailure::Unplayed)?;
            }
            ChaosFault::FailSync(server, nth) => {
                self.cluster.server_process(*server).may_end = true;
                self.cluster
                    .server_process(*server)
                    .trace(&format!("error=EIO:when={nth}"))
                    .map_err(RoundFailure::Unplayed)?;
            }
            ChaosFault::SlowSync(server, by) => {
                let how = format!("delay_enter={}", by.as_micros());
                self.cluster.server_process(*server).trace(&how).map_err(RoundFailure::Unplayed)?;
            }
            ChaosFault::Freeze(server) => {
                self.cluster.server_process(*server).ground.freeze().map_err(RoundFailure::Unplayed)?
            }
            ChaosFault::FullDisk(server, is_killed) => {
                self.cluster.server_process(*server).ground.fill().map_err(RoundFailure::Unplayed)?;
                if *is_killed {
                    self.kill(servers);
                    self.start(*server)?;
                }
            }
            ChaosFault::ReadOnly(server) => return self.start_read_only(*server),
            ChaosFault::Damage(server, part) => {
                self.kill(servers);
                let data = self.cluster.server_process(*server).data();
                let whole = data.with_extension("whole");
                let unplayed = |error| RoundFailure::Unplayed(format!("cannot damage files: {error}"));
                volume::copy(&data, &whole).map_err(unplayed)?;
                let lines = whole_lines(&self.lines_of(*server)).map_err(unplayed)?;
                let wounds = damage(&data, *part, &mut self.random).map_err(unplayed)?;
                self.start(*server)?;
                self.cluster.server_process(*server).may_end = true;
                self.wounded.insert(*server);
                self.await_answer(*server);
                if wounds.is_empty() {
                    let _ = fs::remove_dir_all(&whole);
                    return Ok(None);
                }
                return Ok(Some(UndoStep::Whole(whole, lines)));
            }
            ChaosFault::Wipe(server) => {
                self.kill(servers);
                let kept = self.put_aside(*server)?;
                self.start_impostor(*server, strike)?;
                return Ok(Some(UndoStep::Folder(kept)));
            }
            ChaosFault::RollBack(server) => return self.roll_back(*server, strike),
            ChaosFault::Strangers(server) => {
                let streams = strangers(self.cluster, *server, &mut self.random);
                return Ok(Some(UndoStep::Strangers(streams)));
            }
            ChaosFault::Net(ways, effect) => {
                if let Some(net) = &self.cluster.net {
                    net.begin(strike, &ways.all(), *effect);
                }
            }
        }
        Ok(Some(UndoStep::Nothing))
    }

    /// Ends a fault and undoes its effects.
    pub fn end(&mut self, strike: usize) -> Result<(), RoundFailure> {
        let Some(RunningFault { fault, servers, rest }) = self.active.remove(&strike) else { return Ok(()) };
        self.tell(&format!("end of: {fault}"));
        let undone = self.undo(strike, &fault, servers, rest);
        servers.iter().for_each(|server| self.cluster.server_process(server).engaged = None);
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
                self.cluster.server_process(*server).limit_files(None).map_err(RoundFailure::Unplayed)?
            }
            (ChaosFault::DeadDisk(server), _) => {
                self.await_good_end(*server)?;
                self.cluster.server_process(*server).ground.mount_again().map_err(RoundFailure::Unplayed)?;
            }
            (ChaosFault::FailSync(server, _), _) => self.await_good_end(*server)?,
            (ChaosFault::SlowSync(server, _), _) => self.cluster.server_process(*server).untrace(),
            (ChaosFault::Freeze(server), _) => {
                self.cluster.server_process(*server).ground.thaw().map_err(RoundFailure::Unplayed)?
            }
            (ChaosFault::FullDisk(server, _), _) => {
                self.cluster.server_process(*server).ground.empty().map_err(RoundFailure::Unplayed)?
            }
            (ChaosFault::ReadOnly(server), _) => {
                self.kill(servers);
                self.cluster.server_process(*server).ground.set_read_only(false).map_err(RoundFailure::Unplayed)?;
            }
            (ChaosFault::Damage(server, _), UndoStep::Whole(whole, lines)) => {
                let server_process = self.cluster.server_process(*server);
                if let Some(status) = server_process.ended() {
                    // The server must report why it cannot start, and must not crash.
                    if status.code() != Some(1) {
                        let why = format!("server {} met damaged files and ended with {status}", server.0);
                        return Err(RoundFailure::Broken(why));
                    }
                    let file = self.lines_of(*server);
                    let text = fs::read(&file).unwrap_or_default();
                    if text[text.len().min(lines as usize)..].windows(6).any(|word| word == b" BOOT ") {
                        // The server has run since and may have sent messages, so its directory must not be rolled
                        // back.
                        let why = format!("server {} started with damaged files and ended later", server.0);
                        return Err(RoundFailure::Broken(why));
                    }
                    self.put_back(*server, &whole)?;
                    // The directory counts the server's incarnations. Two incarnations with the same number would look
                    // like lines of two histories, so the lines of the failed start are removed.
                    let file = fs::OpenOptions::new().write(true).open(&file);
                    let cut = file.and_then(|file| file.set_len(lines));
                    cut.map_err(|error| RoundFailure::Unplayed(format!("cannot take lines back: {error}")))?;
                    self.meet("refused to start with damaged files, and got the right bytes back");
                } else {
                    let _ = fs::remove_dir_all(&whole);
                    self.meet("started with damaged files, and repaired them");
                }
                self.cluster.server_process(*server).may_end = false;
            }
            (ChaosFault::Wipe(server) | ChaosFault::RollBack(server), UndoStep::Folder(kept)) => {
                self.judge_impostor(*server, fault)?;
                self.kill(servers);
                self.put_back(*server, &kept)?;
            }
            (_, UndoStep::Strangers(streams)) => drop(streams),
            (ChaosFault::Net(ways, _), _) => {
                if let Some(net) = &self.cluster.net {
                    net.end(strike, &ways.all());
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
        self.cluster.server_process(server).start().map_err(RoundFailure::Unplayed)
    }

    /// Kills servers; all are signaled before the first is waited for.
    fn kill(&mut self, servers: ServerSet) {
        for server in servers.iter() {
            self.done.kills += u64::from(self.cluster.server_process(server).kill());
        }
        servers.iter().for_each(|server| self.cluster.server_process(server).bury());
    }

    fn cut(&mut self, servers: ServerSet) -> Result<(), RoundFailure> {
        let paths: Vec<PathBuf> =
            servers.iter().map(|server| self.cluster.server_process(server).ground.path()).collect();
        let paths: Vec<_> = paths.iter().map(PathBuf::as_path).collect();
        // A disk without power returns EIO, so a server may exit before it is killed.
        servers.iter().for_each(|server| self.cluster.server_process(server).may_end = true);
        self.tools.cut(&paths).map_err(RoundFailure::Unplayed)?;
        self.kill(servers);
        self.done.power_cuts += servers.len() as u64;
        for server in servers.iter() {
            self.cluster.server_process(server).ground.mount_again().map_err(RoundFailure::Unplayed)?;
        }
        Ok(())
    }

    /// The current leader; a server chosen by the fault's number if no leader is known.
    fn leader(&self, strike: usize) -> ServerId {
        self.cluster.survey().leader_id().unwrap_or(ServerId((strike % usize::from(SERVERS)) as u8 + 1))
    }

    fn are_well(&self, servers: ServerSet) -> bool {
        servers.iter().all(|server| self.cluster.status(server).is_some_and(|status| status.corrupt_slots == 0))
    }

    /// Waits until a server answers or exits.
    fn await_answer(&mut self, server: ServerId) {
        let deadline = Instant::now() + SAYS_WITHIN;
        while Instant::now() < deadline {
            let server_process = self.cluster.server_process(server);
            if server_process.await_end(Duration::from_millis(50)).is_some() || self.cluster.status(server).is_some() {
                return;
            }
        }
    }

    /// A server whose disk has failed must exit by itself with code 1. A server that had nothing to write does not
    /// notice the failure.
    fn await_good_end(&mut self, server: ServerId) -> Result<(), RoundFailure> {
        let server_process = self.cluster.server_process(server);
        match server_process.await_end(SAYS_WITHIN) {
            Some(status) if status.code() == Some(1) => self.meet("ended by itself when its disk failed"),
            Some(status) => {
                let why = format!("server {} met a disk that fails and ended with {status}", server.0);
                return Err(RoundFailure::Broken(why));
            }
            None => {
                self.meet("had nothing to write when its disk failed");
                self.kill([server].into_iter().collect());
            }
        }
        Ok(())
    }

    fn start_read_only(&mut self, server: ServerId) -> Result<Option<UndoStep>, RoundFailure> {
        self.kill([server].into_iter().collect());
        let server_process = self.cluster.server_process(server);
        server_process.ground.set_read_only(true).map_err(RoundFailure::Unplayed)?;
        server_process.start().map_err(RoundFailure::Unplayed)?;
        server_process.may_end = true;
        match server_process.await_end(SAYS_WITHIN) {
            Some(status) if status.code() == Some(1) => Ok(Some(UndoStep::Nothing)),
            Some(status) => {
                let why = format!("server {} was started on a read-only disk and ended with {status}", server.0);
                Err(RoundFailure::Broken(why))
            }
            None => Err(RoundFailure::Broken(format!("server {} works on a disk that is read-only", server.0))),
        }
    }

    /// Moves the data directory of a server away.
    fn put_aside(&mut self, server: ServerId) -> Result<PathBuf, RoundFailure> {
        let data = self.cluster.server_process(server).data();
        let kept = data.with_extension("kept");
        volume::move_durably(&data, &kept)
            .map_err(|error| RoundFailure::Unplayed(format!("cannot move a data folder: {error}")))?;
        Ok(kept)
    }

    fn put_back(&mut self, server: ServerId, kept: &Path) -> Result<(), RoundFailure> {
        let data = self.cluster.server_process(server).data();
        let moved = match fs::remove_dir_all(&data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => volume::move_durably(kept, &data),
        };
        moved.map_err(|error| RoundFailure::Unplayed(format!("cannot bring a data folder back: {error}")))
    }

    fn lines_of(&self, server: ServerId) -> PathBuf {
        self.cluster.folder.join(format!("server-{}.log", server.0))
    }

    /// Starts a process with the server's number, but without its stable storage.
    fn start_impostor(&mut self, server: ServerId, strike: usize) -> Result<(), RoundFailure> {
        let lines = self.cluster.folder.join(format!("impostor-{}-{strike}", server.0));
        let server_process = self.cluster.server_process(server);
        server_process.start_into(&lines).map_err(RoundFailure::Unplayed)?;
        server_process.may_end = true;
        Ok(())
    }

    /// Copies the data directory, lets the server run on, and then replaces the directory by the copy. Peers can detect
    /// this only if the server connected to them in between.
    fn roll_back(&mut self, server: ServerId, strike: usize) -> Result<Option<UndoStep>, RoundFailure> {
        let one: ServerSet = [server].into_iter().collect();
        self.kill(one);
        let data = self.cluster.server_process(server).data();
        let old = data.with_extension("old");
        volume::copy(&data, &old)
            .map_err(|error| RoundFailure::Unplayed(format!("cannot copy a data folder: {error}")))?;
        self.start(server)?;
        let deadline = Instant::now() + SAYS_WITHIN;
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
        let kept = self.put_aside(server)?;
        volume::move_durably(&old, &data)
            .map_err(|error| RoundFailure::Unplayed(format!("cannot move a data folder: {error}")))?;
        self.start_impostor(server, strike)?;
        Ok(Some(UndoStep::Folder(kept)))
    }

    fn judge_impostor(&mut self, server: ServerId, fault: &ChaosFault) -> Result<(), RoundFailure> {
        let Some(status) = self.cluster.status(server) else { return Ok(()) };
        let is_believed = match fault {
            ChaosFault::Wipe(_) => status.newcomer.is_none(),
            _ => !status.connected.is_empty(),
        };
        if is_believed {
            let what = format!("after \"{fault}\" the others believe it: it is connected to {}", status.connected);
            return Err(RoundFailure::Broken(what));
        }
        Ok(())
    }
}

/// A false introduction in the name of another server; the called server must record nothing of it.
fn lie(cluster: &ChaosCluster, to: ServerId, random: &mut Random) -> Hello {
    let others = cluster.direct.servers().without(ServerSet::only(to));
    let name = random.within(0..=others.len() as u64 - 1) as usize;
    let who = Caller::Peer {
        server: others.iter().nth(name).unwrap_or(to),
        storage: random.next(),
        life: u32::MAX - random.within(0..=1_000_000) as u32,
        boot: random.next(),
        takes_part: random.within(0..=1) == 0,
        knows: (random.within(0..=1) == 0).then(|| random.next()),
    };
    Hello { cluster: cluster.direct.name.clone(), to, members: cluster.direct.servers(), who }
}

/// Connects to both ports of a server, and sends nothing, noise, half of a valid greeting, or a false identity.
fn strangers(cluster: &ChaosCluster, server: ServerId, random: &mut Random) -> Vec<TcpStream> {
    let Some(member) = cluster.direct.member(server) else { return Vec::new() };
    let mut streams = Vec::new();
    for number in 0..STRANGERS {
        let address = if number % 2 == 0 { member.peer } else { member.client };
        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) else { continue };
        let noise: Vec<u8> = (0..random.within(0..=600)).map(|_| random.next() as u8).collect();
        let said = match random.within(0..=4) {
            0 => Vec::new(),
            1 => noise,
            2 => greeting(&lie(cluster, server, random)),
            // A valid preamble, then a false length or half a frame.
            3 => [&preamble()[..], &u32::MAX.to_le_bytes(), &noise].concat(),
            _ => [&preamble()[..], &frame(&vec![0u8; 40])[..20]].concat(),
        };
        // Errors are ignored: the server may already have closed the connection.
        let _ = stream.set_write_timeout(Some(Duration::from_millis(100)));
        let _ = stream.write_all(&said);
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
            std::thread::sleep(SLICE.mul_f64(1.0 - percent as f64 / 100.0));
            let _ = kill_process(pid, Signal::CONT);
            std::thread::sleep(SLICE.mul_f64(percent as f64 / 100.0));
        }
    });
    (is_over, thread)
}

/// Length in bytes of the whole lines of a file, without a last line that a kill has torn.
fn whole_lines(file: &Path) -> std::io::Result<u64> {
    let text = fs::read(file)?;
    Ok(text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::super::fault::Capability;
    use super::*;

    #[test]
    fn only_disks_and_tracing_need_more_than_a_user_has() {
        let server = ServerId(1);
        assert_eq!(ChaosFault::Kill(ServerSet::first(5)).needs(), None);
        assert_eq!(ChaosFault::PowerCut(ServerSet::first(5)).needs(), Some(Capability::PowerCuts));
        assert_eq!(ChaosFault::SlowSync(server, SLICE).needs(), Some(Capability::Tracing));
        assert_eq!(ChaosFault::Wipe(server).needs(), None);
    }
}
