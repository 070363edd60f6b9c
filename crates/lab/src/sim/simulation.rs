//! A simulation: servers, clients and injected faults, from the first event to the verdict.
//!
//! A run has two phases. In the first, faults strike: no message and no disk may break an invariant, but progress is
//! not required. In the second the faults are over and a majority is healthy. Now the cluster must make progress, the
//! servers must agree, and new writes must complete, all within a stated time.

use std::collections::VecDeque;
use std::fmt;

use super::client::{ClientStep, ROGUE_REQUEST, SimClient};
use super::client_history::ClientRecord;
use super::coverage::{Coverage, CoveragePoint};
use super::data_dir::{SPACE_RETRY, StartRefusal};
use super::env::{FrameKind, MS, Micros, SECOND, SimEnv, SimEvent};
use super::faults::ActiveFault;
use super::network::Endpoint;
use super::oracle::Violation;
use super::plan::RunPlan;
use super::server::SimServer;
use paxos_kv::client::NoReply;
use paxos_kv::kv::Op;
use paxos_kv::net::{ClientRequest, frame};
use paxos_kv::paxos::Slot;
use paxos_kv::role::{ServerId, ServerSet};
use paxos_kv::storage::disk::{Files, InjectedFailure};
use paxos_kv::trace::TraceContext;

/// Time limit of the phase without faults, in virtual time, for requests to complete and servers to agree.
pub const LIVENESS: Micros = 30 * SECOND;
/// The limit grows by twice the time in which a link carries this number of the largest values.
const VALUES_PER_DEADLINE: usize = 20;
/// Maximum number of events in a run; a run with more is taken as endless and ends.
const EVENTS_MAX: u64 = 5_000_000;

/// Maximum number of histories after the first one: each needs enough time to be a useful test.
const HISTORIES_MAX: u32 = 2;

/// How a process crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashKind {
    /// Only the process ends: nothing that was written is lost.
    Process,
    /// The machine loses power: any part of the unsynced data may be lost.
    Power,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunVerdict {
    /// No invariant was broken, and the cluster made progress.
    Clean,
    /// An invariant was broken.
    Unsafe(Violation),
    /// No invariant was broken, but the cluster made too little progress; says what is stuck.
    Stuck(String),
}

impl RunVerdict {
    /// The exit code of the `simulate` command for this verdict.
    pub fn exit_code(&self) -> u8 {
        match self {
            RunVerdict::Clean => 0,
            RunVerdict::Unsafe(_) => 7,
            RunVerdict::Stuck(_) => 8,
        }
    }
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// The seed of the run.
    pub seed: u64,
    /// How the run ended.
    pub verdict: RunVerdict,
    /// The hash of all events: the same seed and program give the same hash.
    pub trace: u64,
    /// The coverage points that were reached.
    pub coverage: Coverage,
    /// Number of events.
    pub events: u64,
    /// Virtual time of the whole run.
    pub virtual_time: Micros,
    /// Number of client requests that ended with a result.
    pub answered: usize,
    /// Number of all client requests.
    pub requested: usize,
    /// The highest slot that any learner applied.
    pub applied: Slot,
    /// The text of each log file, with its name; empty unless requested.
    pub lines: Vec<(String, String)>,
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = self.virtual_time as f64 / SECOND as f64;
        writeln!(
            f,
            "{} of {} requests have a result, {} slots applied, {} events in {took:.1} virtual seconds",
            self.answered, self.requested, self.applied, self.events
        )?;
        fmt::Display::fmt(&self.verdict, f)
    }
}

impl fmt::Display for RunVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunVerdict::Clean => f.write_str("clean"),
            RunVerdict::Unsafe(violation) => write!(f, "VIOLATION of {violation}"),
            RunVerdict::Stuck(why) => write!(f, "NO PROGRESS: {why}"),
        }
    }
}

/// A whole simulated cluster with its clients, and the state of the run.
pub struct Simulation {
    /// What the seed decided before the run.
    pub plan: RunPlan,
    /// Time, randomness, links and observers.
    pub sim_env: SimEnv,
    /// The servers; number 1 is at index 0.
    pub servers: Vec<SimServer>,
    /// The clients, by their number from 0.
    pub clients: Vec<SimClient>,
    /// Servers whose data a fault has lost or corrupted, until it is repaired.
    pub lost: ServerSet,
    /// Servers that were started at least once on another data directory than their own.
    pub(super) on_wrong_dir: ServerSet,
    /// All servers have been admitted.
    has_begun: bool,
    faults_are_over: bool,
    /// Number of histories that began after the first one.
    histories: u32,
    events: u64,
}

impl Simulation {
    /// A simulation of this plan, before its first event. With `lines`, its servers and clients write log lines.
    pub fn new(plan: RunPlan, lines: bool) -> Simulation {
        let mut sim_env = SimEnv::new(&plan);
        let new_server = |me| SimServer::new(&plan, me, sim_env.random.next(), lines);
        let servers = plan.cluster().iter().map(new_server).collect();
        let mut sim = Simulation {
            sim_env,
            servers,
            clients: Vec::new(),
            lost: ServerSet::NONE,
            on_wrong_dir: ServerSet::NONE,
            has_begun: false,
            faults_are_over: false,
            histories: 0,
            events: 0,
            plan,
        };
        if sim.plan.by_hand {
            sim.sim_env.oracle.check_user_visible_only();
        }
        for server in sim.plan.cluster().iter() {
            let delay = sim.sim_env.random_time(&(0..=5 * MS));
            sim.sim_env.schedule(delay, SimEvent::Start { server });
        }
        for client in 0..sim.plan.clients {
            sim.add_client(client, lines);
        }
        if let Some((one, other, lasts)) = sim.plan.initial_cut {
            // The two exchange storage ids late; one of them perhaps only after it got a new disk.
            let (one, other) = (Endpoint::Server(one), Endpoint::Server(other));
            let links = vec![(one, other), (other, one)];
            links.iter().for_each(|(from, to)| sim.sim_env.network.cut(*from, *to, true));
            sim.sim_env.schedule(lasts, SimEvent::Heal(ActiveFault::Cut(links)));
        }
        if sim.plan.faults.count() > 0 {
            sim.sim_env.schedule(20 * MS, SimEvent::Chaos);
        }
        sim
    }

    /// Runs both phases to the end.
    pub fn run(&mut self) -> RunReport {
        let verdict = self.run_phases();
        self.report(verdict)
    }

    /// The result up to now, with this verdict.
    pub fn report(&mut self, verdict: RunVerdict) -> RunReport {
        let last_choice = self.sim_env.random.next();
        self.sim_env.hash_event(&(last_choice, verdict.exit_code(), self.sim_env.oracle.applied()));
        let answered = self.sim_env.history.operations().iter().filter(|one| one.has_result()).count();
        let lines = self.take_lines();
        RunReport {
            seed: self.plan.seed,
            verdict,
            trace: self.sim_env.trace_hash(),
            events: self.events,
            virtual_time: self.sim_env.now(),
            answered,
            requested: self.sim_env.history.operations().len(),
            applied: self.sim_env.oracle.applied(),
            coverage: self.sim_env.coverage.clone(),
            lines,
        }
    }

    /// Runs events until `end` or until `enough` holds, and ignores the oracle: for scenes that show what goes wrong.
    pub fn run_unchecked_until(&mut self, end: Micros, enough: impl Fn(&Simulation) -> bool) {
        while !enough(self)
            && let Some(event) = self.sim_env.next(end)
        {
            self.handle_event(event);
            self.trace_losses();
        }
    }

    fn run_phases(&mut self) -> RunVerdict {
        let end = self.plan.fault_phase_end;
        if let Err(violation) = self.run_until(end, |sim| sim.clients.iter().all(SimClient::is_done)) {
            return RunVerdict::Unsafe(violation);
        }
        self.finish()
    }

    /// The second phase: faults end, and in the end all healthy servers must agree.
    pub fn finish(&mut self) -> RunVerdict {
        let stuck = match self.recovery_phase() {
            Ok(stuck) => stuck,
            Err(violation) => return RunVerdict::Unsafe(violation),
        };
        let history = &self.sim_env.history;
        // Without a log there is no order of all writes, so only the search can check the history.
        let by_slots = if self.plan.protocol.is_paxos() { history.check_slots() } else { Ok(()) };
        if let Err(violation) = by_slots.and_then(|()| history.check_search()) {
            return RunVerdict::Unsafe(violation);
        }
        self.cut_all_power();
        if let Some(violation) = self.sim_env.oracle.violation() {
            return RunVerdict::Unsafe(violation.clone());
        }
        stuck.map_or(RunVerdict::Clean, RunVerdict::Stuck)
    }

    /// Runs events until `end`, a violation, or until `enough` holds; returns whether it holds.
    pub fn run_until(&mut self, end: Micros, enough: impl Fn(&Simulation) -> bool) -> Result<bool, Violation> {
        while let Some(event) = self.sim_env.next(end) {
            self.events += 1;
            self.handle_event(event);
            if let Some(violation) = self.sim_env.oracle.violation() {
                return Err(violation.clone());
            }
            if self.events.is_multiple_of(32) && enough(self) {
                return Ok(true);
            }
            if self.events > EVENTS_MAX {
                return Ok(false);
            }
        }
        Ok(enough(self))
    }

    /// Runs without faults, with a healthy majority and new writes at each of its servers. Returns what is stuck, if
    /// anything is.
    fn recovery_phase(&mut self) -> Result<Option<String>, Violation> {
        self.end_faults();
        self.find_recovered();
        let healthy = self.plan.healthy.without(self.lost);
        // More than a majority of peers must first record a new disk.
        let enough = self.plan.quorums().is_phase1_quorum(healthy) && self.has_begun();
        let healthy = if enough { healthy } else { self.plan.cluster().without(self.lost) };
        self.plan.healthy = healthy;
        for server in self.plan.cluster().iter() {
            if !healthy.contains(server) {
                self.kill(server, CrashKind::Process);
            }
        }
        let first = self.clients.len();
        // Frames already on the links arrive first; what is useful of them is then sent on to others. After them every
        // request takes its rounds, each with a value of the largest size.
        let largest = VALUES_PER_DEADLINE * self.plan.value_bytes as usize;
        let patience = LIVENESS + 2 * self.sim_env.network.time_for(largest);
        for server in healthy.iter() {
            let put =
                Op::Put { key: b"last".to_vec(), value: server.to_string().into_bytes().into(), if_version: None };
            let client_steps = VecDeque::from([ClientStep::Write(put), ClientStep::Read(b"last".to_vec())]);
            let pace = (0..=100 * MS, patience);
            let lines = self.servers[0].lines.is_some();
            let number = self.clients.len();
            let client =
                SimClient::new(&mut self.sim_env, number, self.plan.cluster(), client_steps, server, pace, lines);
            self.clients.push(client);
        }
        self.sim_env.schedule(200 * MS, SimEvent::Chaos);
        let end = self.sim_env.now() + patience;
        let done =
            self.run_until(end, |sim| sim.clients.iter().all(SimClient::is_done) && sim.is_converged(healthy))?;
        if done {
            // More clients than the session table holds make each other's sessions expire.
            let may_expire = self.plan.sessions < self.clients.len();
            let operations = self.sim_env.history.operations().iter().filter(|one| one.client >= first);
            let is_excused = |one: &&ClientRecord| may_expire && one.has_expired;
            let failed = operations.filter(|one| !one.has_result()).filter(|one| !is_excused(one)).count();
            return Ok((failed > 0).then(|| format!("{failed} requests failed without any fault")));
        }
        Ok(Some(self.describe_stuck(healthy, patience)))
    }

    fn is_converged(&self, healthy: ServerSet) -> bool {
        let mut states = healthy.iter().map(|server| self.servers[usize::from(server.0) - 1].applied());
        let Some(Some(first)) = states.next() else { return false };
        first.0 >= self.sim_env.oracle.applied() && states.all(|state| state == Some(first))
    }

    fn describe_stuck(&self, healthy: ServerSet, patience: Micros) -> String {
        let waiting = self.clients.iter().filter(|client| !client.is_done()).map(|client| client.name.clone());
        let waiting: Vec<String> = waiting.collect();
        let applied = healthy.iter().map(|server| {
            let state = self.servers[usize::from(server.0) - 1].applied();
            format!("{server} {}", state.map_or("down".to_string(), |(slot, digest)| format!("{slot} ({digest:016x})")))
        });
        format!(
            "{} s after the last fault, with {healthy} healthy: clients waiting: {}; applied: {}; highest chosen slot: {}",
            patience / SECOND,
            if waiting.is_empty() { "none".to_string() } else { waiting.join(", ") },
            applied.collect::<Vec<_>>().join(", "),
            self.sim_env.oracle.highest_chosen()
        )
    }

    fn end_faults(&mut self) {
        self.faults_are_over = true;
        self.sim_env.network.end_faults();
        for at in 0..self.servers.len() {
            let server = &mut self.servers[at];
            // A slow processor is a fault, too: dueling proposers make progress only if a ballot takes no longer than
            // their pauses.
            let slowest = (*self.plan.processor.end()).min(MS);
            (server.processor, server.sync) = (*self.plan.processor.start()..=slowest, self.plan.sync.clone());
            let elsewhere = server.own_dir.iter().flat_map(|(dir, _)| dir.all());
            server.dir.limit_space(None);
            server.own_dir.iter().for_each(|(dir, _)| dir.limit_space(None));
            for files in server.dir.all().chain(elsewhere) {
                files.set_capacity(None);
                // Moves a planned failure that has not struck beyond the end of the run.
                files.fail(u64::MAX / 2, InjectedFailure::Stop);
                files.fail_read(None);
            }
            let me = server.me;
            self.restore_own_dir(me);
            self.restore_timers(me);
            self.resume(me);
        }
        for client in &mut self.clients {
            client.stop();
        }
    }

    /// Remaining pause of the process at which this event happens; None if it is not paused.
    fn paused_for(&self, event: &SimEvent) -> Option<Micros> {
        let server = match event {
            SimEvent::Synced { role } => role.server,
            SimEvent::Restart { server, .. }
            | SimEvent::ClientDeadline { server, .. }
            | SimEvent::Checkpointer { server, .. }
            | SimEvent::Announce { server, .. }
            | SimEvent::Dial { server, .. } => *server,
            // A turn that comes due in a pause is taken when the pause ends: see SimServer::resumes. Frames wait by
            // themselves.
            SimEvent::Wake { .. } | SimEvent::Turn { .. } | SimEvent::Frame { .. } => return None,
            SimEvent::Start { .. } | SimEvent::Client { .. } | SimEvent::Chaos | SimEvent::Heal(_) => return None,
        };
        let until = self.servers[usize::from(server.0) - 1].paused_until;
        until.checked_sub(self.sim_env.now()).filter(|rest| *rest > 0)
    }

    /// Handles one event.
    pub(super) fn handle_event(&mut self, event: SimEvent) {
        if let Some(rest) = self.paused_for(&event) {
            return self.sim_env.schedule(rest, event);
        }
        match event {
            SimEvent::Frame { from, to, bytes, mode: way, piece } => self.frame(from, to, &bytes, way, piece),
            SimEvent::Dial { server, process, peer, stamp } => {
                self.at_server(server, |server, sim_env| server.dial_due(sim_env, process, peer, stamp));
            }
            SimEvent::Wake { role } => self.at_server(role.server, |server, sim_env| server.wake(sim_env, role)),
            SimEvent::Turn { role } => self.at_server(role.server, |server, sim_env| server.has_turn(sim_env, role)),
            SimEvent::Synced { role } => {
                self.at_server(role.server, |server, sim_env| server.has_synced(sim_env, role))
            }
            SimEvent::Checkpointer { server, process } => {
                self.at_server_that_may_start(server, |server, sim_env| server.run_checkpointer(sim_env, process));
            }
            SimEvent::Announce { server, process } => {
                self.at_server(server, |server, sim_env| server.announce(sim_env, process));
            }
            SimEvent::Restart { server, process } => {
                self.at_server_that_may_start(server, |server, sim_env| server.restart_due(sim_env, process));
            }
            SimEvent::ClientDeadline { server, process } => {
                self.at_server(server, |server, sim_env| server.expire(sim_env, process));
            }
            SimEvent::Start { server } => self.start(server),
            SimEvent::Client { client, stamp } => self.clients[client].wake(&mut self.sim_env, stamp),
            SimEvent::Chaos if self.faults_are_over => self.restart_healthy(),
            SimEvent::Chaos => self.inject_random_fault(),
            SimEvent::Heal(trouble) => {
                if !self.faults_are_over {
                    self.heal(trouble);
                }
            }
        }
    }

    /// Whether all servers that are not lost have been admitted. Until then some may need others to be admitted, and no
    /// server may be lost.
    pub(super) fn has_begun(&mut self) -> bool {
        let lost = self.lost;
        self.has_begun |= self.servers.iter().all(|server| lost.contains(server.me) || server.is_active());
        self.has_begun
    }

    /// The server with this number.
    pub fn server(&mut self, server: ServerId) -> &mut SimServer {
        &mut self.servers[usize::from(server.0) - 1]
    }

    /// Runs `happens` at a server, then ends its process if the process must stop.
    pub fn at_server(&mut self, server: ServerId, happens: impl FnOnce(&mut SimServer, &mut SimEnv)) {
        let one = &mut self.servers[usize::from(server.0) - 1];
        happens(one, &mut self.sim_env);
        let Some(process) = &one.process else { return };
        if let Some(why) = &process.fatal {
            let is_explained = one.dir.has_failed();
            self.sim_env.oracle.require(43, is_explained, || format!("{server} ended its process: {why}"));
        }
        // A machine that stops takes the process with it, even where the process would have continued.
        if process.fatal.is_some() || one.dir.has_stopped() {
            self.sim_env.reach(CoveragePoint::DiskFailed);
            let how = if self.sim_env.chance(500) { CrashKind::Power } else { CrashKind::Process };
            self.kill(server, how);
        }
    }

    /// As [`at_server`](Simulation::at_server), for an event with which an incarnation of a role may begin.
    fn at_server_that_may_start(
        &mut self,
        server: ServerId,
        happens: impl FnOnce(&mut SimServer, &mut SimEnv) -> Result<(), StartRefusal>,
    ) {
        let mut done = Ok(());
        self.at_server(server, |one, sim_env| done = happens(one, sim_env));
        if let Err(refusal) = done {
            self.refused(server, refusal);
        }
    }

    /// Starts the process of a server that is down.
    pub(super) fn start(&mut self, server: ServerId) {
        let healthy = self.plan.healthy.contains(server) || !self.faults_are_over;
        let storages: Vec<_> = self.servers.iter().map(|one| (one.me, one.storage)).collect();
        let one = &mut self.servers[usize::from(server.0) - 1];
        if one.process.is_some() || !healthy {
            return;
        }
        if let Err(refusal) = one.start(&mut self.sim_env, &storages) {
            self.refused(server, refusal);
        }
    }

    /// A server or one of its roles refuses to start, so the process ends. That is allowed only for an injected fault.
    fn refused(&mut self, server: ServerId, refusal: StartRefusal) {
        match refusal {
            StartRefusal::Corrupt(why) => {
                let lost = self.lost.contains(server);
                self.sim_env.oracle.require(31, lost, || format!("{server} refused an intact disk: {why}"));
                let is_gone = self.server(server).dir.journal.list().is_ok_and(|names| names.is_empty());
                self.sim_env.reach(if is_gone {
                    CoveragePoint::DataDirLost
                } else {
                    CoveragePoint::RefusedCorruptDisk
                });
                self.end(server);
            }
            StartRefusal::NoSpace(_) => {
                // The server retries on the same directory; it has started nothing yet.
                self.sim_env.reach(CoveragePoint::WaitedForRoom);
                self.server(server).dir.restart();
                self.end(server);
                self.sim_env.schedule(SPACE_RETRY, SimEvent::Start { server });
            }
            StartRefusal::Disk(_) => {
                let could_not_read = self.server(server).dir.has_failed_to_read();
                self.sim_env.reach(if could_not_read {
                    CoveragePoint::FileUnreadable
                } else {
                    CoveragePoint::KilledInRecovery
                });
                let how = if self.sim_env.chance(500) { CrashKind::Power } else { CrashKind::Process };
                self.kill(server, how);
            }
        }
    }

    /// Crashes a process, which starts again after a random time.
    pub fn kill(&mut self, server: ServerId, how: CrashKind) {
        self.stop(server, how);
        let longest = if self.faults_are_over { 100 * MS } else { self.plan.fault_duration_max };
        let down = self.sim_env.random_time(&(MS..=longest));
        self.sim_env.schedule(down, SimEvent::Start { server });
    }

    /// Crashes a process, which stays down until it is started explicitly.
    pub fn stop(&mut self, server: ServerId, how: CrashKind) {
        let one = &mut self.servers[usize::from(server.0) - 1];
        one.interrupt(&mut self.sim_env);
        match how {
            CrashKind::Process => one.dir.restart(),
            CrashKind::Power => {
                let seed = self.sim_env.random.next();
                one.dir.power_cut(seed);
            }
        }
        if one.process.is_some() {
            self.sim_env.reach(if how == CrashKind::Power { CoveragePoint::PowerLost } else { CoveragePoint::Killed });
        }
        self.end(server);
    }

    /// Crashes all processes at once.
    pub fn kill_all(&mut self, how: CrashKind) {
        self.sim_env.reach(if how == CrashKind::Power {
            CoveragePoint::AllPowerLost
        } else {
            CoveragePoint::AllKilled
        });
        for server in self.plan.cluster().iter() {
            self.kill(server, how);
        }
    }

    fn end(&mut self, server: ServerId) {
        self.end_calls(server);
        let reply_handles = self.servers[usize::from(server.0) - 1].end_process();
        for reply_handle in reply_handles {
            // Some connections end at once; others only go silent.
            if self.sim_env.chance(700) {
                let client = &mut self.clients[reply_handle.connection.client];
                let why = NoReply::Broken { why: "connection reset".to_string() };
                client.lose_connection(&mut self.sim_env, server, reply_handle.number, why);
            }
        }
    }

    /// Stops the cluster and starts a new history on empty data directories. The clients keep running and are not
    /// notified.
    pub fn begin_new_history(&mut self) {
        if self.histories >= HISTORIES_MAX || !self.has_begun() {
            return;
        }
        self.histories += 1;
        self.sim_env.reach(CoveragePoint::NewHistory);
        for server in self.plan.cluster().iter() {
            self.stop(server, CrashKind::Process);
        }
        self.sim_env.begin_new_history(&self.plan);
        (self.lost, self.on_wrong_dir, self.has_begun) = (ServerSet::NONE, ServerSet::NONE, false);
        for server in self.plan.cluster().iter() {
            let storage = self.sim_env.random.next();
            self.server(server).begin_new_history(storage);
            let delay = self.sim_env.random_time(&(0..=5 * MS));
            self.sim_env.schedule(delay, SimEvent::Start { server });
        }
    }

    /// An unknown client opens sessions, and writes in the session of another client, whose id is easy to guess.
    pub fn send_rogue_requests(&mut self, server: ServerId) {
        let (victim, speaker) = (self.sim_env.random.within(0..=self.clients.len() as u64 - 1) as usize, 0);
        for request in self.clients[victim].rogue_requests(&mut self.sim_env) {
            let request = ClientRequest { number: ROGUE_REQUEST, context: TraceContext::default(), request };
            self.sim_env.send(
                Endpoint::Client(speaker),
                Endpoint::Server(server),
                frame(&request).into(),
                FrameKind::Client,
            );
        }
    }

    /// Ends the pause of a process.
    pub fn resume(&mut self, server: ServerId) {
        let one = &mut self.servers[usize::from(server.0) - 1];
        one.paused_until = 0;
        for role in self.plan.protocol.roles_as_named() {
            one.resume(&mut self.sim_env, *role);
        }
    }

    /// Cuts the power of all servers at the end of the run, and checks what their disks hold.
    fn cut_all_power(&mut self) {
        if !self.plan.protocol.is_paxos() {
            return self.cut_all_power_and_count_votes();
        }
        let mut disks = std::collections::BTreeMap::new();
        for server in self.plan.cluster().iter() {
            self.server(server).end_process();
            let seed = self.sim_env.random.next();
            let dir = self.server(server).dir.clone();
            dir.power_cut(seed);
            if self.lost.contains(server) {
                continue;
            }
            match self.server(server).read_disk() {
                Ok(Some((acceptor, is_corrupt))) => {
                    self.sim_env.oracle.recovered(server, &acceptor, is_corrupt, &mut self.sim_env.coverage);
                    disks.insert(server, acceptor);
                }
                // The server was never started.
                Ok(None) => {}
                Err(refusal) => self
                    .sim_env
                    .oracle
                    .require(31, false, || format!("the disk of {server} cannot be read: {refusal:?}")),
            }
        }
        self.sim_env.oracle.check_disks(&disks);
    }

    /// Starts every healthy server that is down, and repeats every 500 ms.
    fn restart_healthy(&mut self) {
        for server in self.plan.cluster().iter() {
            self.start(server);
        }
        self.sim_env.schedule(500 * MS, SimEvent::Chaos);
    }

    fn add_client(&mut self, number: usize, lines: bool) {
        let plan = &self.plan;
        let count = plan.requests / plan.clients + usize::from(number < plan.requests % plan.clients);
        let client_steps = (0..count).map(|n| client_step(&mut self.sim_env, plan, number, n)).collect();
        let servers: Vec<ServerId> = plan.cluster().iter().collect();
        let server = self.sim_env.random_choice(&servers).unwrap_or(ServerId(1));
        let pace = (plan.think.clone(), plan.timeout);
        let cluster = plan.cluster();
        let client = SimClient::new(&mut self.sim_env, number, cluster, client_steps, server, pace, lines);
        client.allow_in_flight(&mut self.sim_env, plan.in_flight);
        self.clients.push(client);
    }

    /// The log text of all servers and clients, by file name. Ends all processes.
    pub fn take_lines(&mut self) -> Vec<(String, String)> {
        if self.servers.iter().all(|server| server.lines.is_none()) {
            return Vec::new();
        }
        let mut files = Vec::new();
        for server in &mut self.servers {
            server.end_process();
            files.push((format!("server-{}.log", server.me.0), server.lines.take().unwrap_or_default()));
        }
        for client in &self.clients {
            files.push((format!("client-{}.log", client.name.trim_start_matches('c')), client.lines()));
        }
        files
    }
}

/// The n-th request of a client.
fn client_step(sim_env: &mut SimEnv, plan: &RunPlan, client: usize, n: usize) -> ClientStep {
    let key = format!("k{}", sim_env.random.within(1..=plan.keys)).into_bytes();
    let of_hundred = |sim_env: &mut SimEnv| sim_env.random.within(0..=99);
    if of_hundred(sim_env) < plan.reads {
        return ClientStep::Read(key);
    }
    if of_hundred(sim_env) < plan.deletes {
        return ClientStep::Write(Op::Delete { key });
    }
    // No two puts write the same value.
    let mut value = format!("v{}-{n}-", client + 1).into_bytes();
    let length = sim_env.random.within(0..=plan.value_bytes) as usize;
    value.resize(value.len().max(length), b'.');
    let if_version = (of_hundred(sim_env) < plan.conditional).then(|| sim_env.random.within(0..=6));
    ClientStep::Write(Op::Put { key, value: value.into(), if_version })
}
