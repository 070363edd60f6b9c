//! A simulated server: its data directory and its process. The process makes its decisions with the real code; events
//! take the place of threads, sockets and clocks.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::coverage::CoveragePoint;
use super::data_dir::{CLUSTER, SimDataDir, StartRefusal};
use super::env::{Micros, SimEnv, SimEvent};
use super::leaders::WINDOW;
use super::plan::RunPlan;
use super::process_env::{ProcessEnv, ScheduledWork, SimClock, SimConnection};
use super::scheduler::{SimHosted, SimRole};
use paxos_kv::host::checkpoints::{Checkpointer, LoadedState};
use paxos_kv::host::connected_peers::KEEPALIVE_INTERVAL;
use paxos_kv::host::lifecycle::{DueAction, Lifecycle};
use paxos_kv::host::mailbox::Mailbox;
use paxos_kv::host::pending::OUTCOME_TIMEOUT;
use paxos_kv::host::role_host::on_no_space;
use paxos_kv::host::{
    Admission, Config, Env, LabRequest, RecoveryError, ReplyHandle, RoleHost, ServerCore, Sizes, recovery,
};
use paxos_kv::kv::Kv;
use paxos_kv::net::{CLIENT_FRAME_MAX_BYTES, ClientRequest, Envelope, PEER_FRAME_MAX_BYTES, PeerMessage, unframe};
use paxos_kv::paxos::{Acceptor, AcceptorRecord, Learner, Message, Proposer, Quorums, Retention, Slot, StateMachine};
use paxos_kv::protocol::Protocol;
use paxos_kv::random::Random;
use paxos_kv::role::{NoStableStore, Role, RoleKind, ServerId, ServerSet};
use paxos_kv::storage::DataDir;
use paxos_kv::storage::admission::Claim;
use paxos_kv::storage::checkpoint::{CHECKPOINT_FILE, Checkpoint};
use paxos_kv::storage::disk::{InjectedFailure, MemoryFiles};
use paxos_kv::storage::identity::{DirIdentity, Owner, short_disk};
use paxos_kv::storage::journal::LeftFree;
use paxos_kv::trace::{
    self, Digest, DiskName, Event as LineEvent, HistoryName, MaybeBallot, QuotedText, RestartMode, Speaker, Trace,
    TraceContext,
};
use paxos_kv::two_phase_commit::{Coordinator, Participant};

/// A server, whether its process runs or not.
pub struct SimServer {
    /// The server's number.
    pub me: ServerId,
    /// All servers of the cluster.
    pub cluster: ServerSet,
    /// The data directory, which outlives the process.
    pub dir: SimDataDir,
    /// The storage id that a new data directory gets.
    pub storage: u64,
    /// The process, if it runs.
    pub process: Option<SimProcess>,
    /// The boot number of its last process.
    boot: u64,
    /// The process is paused until this time.
    pub paused_until: Micros,
    /// How long a role waits for the processor.
    pub processor: RangeInclusive<Micros>,
    /// How long a sync takes.
    pub sync: RangeInclusive<Micros>,
    /// Speed of its clock, in percent.
    pub clock: u64,
    /// The clocks that drive the timers of each role.
    role_clocks: [SimClock; RoleKind::ALL.len()],
    /// Error of its wall clock, in microseconds. Only the time stamps of its log lines depend on it.
    pub wall_clock: Arc<AtomicI64>,
    /// The log lines of all its processes, if requested.
    pub lines: Option<String>,
    /// A fault has corrupted its checkpoint.
    pub is_checkpoint_corrupt: bool,
    /// The boot number of the process during which its disk was corrupted.
    pub corrupted_in: Option<u64>,
    /// When its learner makes checkpoints, and how much log it keeps.
    pub retention: Retention,
    /// Its data directory is a new one, although peers have recorded an older one.
    pub has_new_disk: bool,
    /// The storage id of the data directory with which the server was first admitted.
    pub(super) admitted_with: Option<u64>,
    /// What its last process told its peers about itself.
    last_claim: Option<Claim>,
    /// Its own data directory and storage id, while the server runs on another one.
    pub(super) own_dir: Option<(SimDataDir, u64)>,
    /// Its acceptor restarts without its stable storage: the lab's unsafe mode.
    pub loses_storage: bool,
    /// Its peers have recorded its data directory from the start.
    starts_admitted: bool,
    /// Messages that can wait do not wake a role.
    wake_hints: bool,
    pub(super) quorums: Quorums,
    pub(super) protocol: Protocol,
    /// Much smaller than in a real server, so that a run of a few commands meets every limit.
    pub(super) sizes: Sizes,
}

/// A process; it ends with a crash of the server.
pub struct SimProcess {
    /// Boot number, unique among all processes of the run.
    pub number: u64,
    /// Its data directory.
    pub dir: DataDir<SimDataDir>,
    /// The real server core, which makes the decisions.
    pub core: ServerCore<SimConnection>,
    /// The work that is scheduled for this process.
    pub agenda: Rc<ScheduledWork>,
    /// When roles crash and restart.
    pub lifecycle: Lifecycle,
    /// The proposer, if it is up.
    pub proposer: Option<Box<SimRole<Proposer>>>,
    /// The acceptor, if it is up.
    pub acceptor: Option<Box<SimRole<Acceptor>>>,
    /// The learner, if it is up.
    pub learner: Option<Box<SimRole<Learner<Kv>>>>,
    /// The coordinator of two-phase commit, if it is up.
    pub coordinator: Option<Box<SimRole<Coordinator>>>,
    /// The participant of two-phase commit, if it is up.
    pub participant: Option<Box<SimRole<Participant>>>,
    /// Writes checkpoints of the learner's state.
    pub checkpointer: Option<Checkpointer<MemoryFiles>>,
    /// Set while a learner waits for its initial state: how long it was down, or None for the first start.
    awaits_state: Option<Option<Duration>>,
    /// The incoming connections that it accepted, by peer.
    pub accepted_calls: BTreeMap<ServerId, Vec<u64>>,
    /// Why the process must stop.
    pub fatal: Option<String>,
}

impl SimProcess {
    /// The identity of the data directory that the process uses.
    pub fn identity(&self) -> &DirIdentity<MemoryFiles> {
        self.dir.identity()
    }

    /// Whether the process has accepted a connection from this peer.
    pub fn accepts(&self, peer: ServerId) -> bool {
        self.accepted_calls.get(&peer).is_some_and(|calls| !calls.is_empty())
    }

    /// Whether the process has accepted this connection from this peer.
    pub fn has_accepted_call(&self, peer: ServerId, call: u64) -> bool {
        self.accepted_calls.get(&peer).is_some_and(|calls| calls.contains(&call))
    }

    fn set_open(&self, role: RoleKind, is_open: bool) {
        fn set<R: Role>(mailbox: &Mailbox<R>, is_open: bool) {
            if is_open { mailbox.open() } else { mailbox.close() }
        }
        match role {
            RoleKind::Proposer => set(&self.core.proposer, is_open),
            RoleKind::Acceptor => set(&self.core.acceptor, is_open),
            RoleKind::Learner => set(&self.core.learner, is_open),
            RoleKind::Coordinator => set(&self.core.coordinator, is_open),
            RoleKind::Participant => set(&self.core.participant, is_open),
        }
    }
}

impl SimServer {
    /// A server of this plan that was never started.
    pub fn new(plan: &RunPlan, me: ServerId, storage: u64, lines: bool) -> SimServer {
        let clock = plan.clocks[usize::from(me.0) - 1];
        SimServer {
            me,
            cluster: plan.cluster(),
            dir: SimDataDir::default(),
            storage,
            process: None,
            boot: 0,
            paused_until: 0,
            processor: plan.processor.clone(),
            sync: plan.sync.clone(),
            clock,
            role_clocks: [SimClock::new(clock); RoleKind::ALL.len()],
            wall_clock: Arc::default(),
            lines: lines.then(String::new),
            is_checkpoint_corrupt: false,
            corrupted_in: None,
            retention: plan.retention,
            has_new_disk: false,
            admitted_with: None,
            last_claim: None,
            own_dir: None,
            loses_storage: false,
            starts_admitted: plan.starts_admitted,
            wake_hints: plan.wake_hints,
            quorums: plan.quorums(),
            protocol: plan.protocol,
            sizes: Sizes {
                mailbox: plan.mailbox,
                segment_bytes: plan.segment_bytes,
                left_free_bytes: plan.segment_bytes / 16,
                page_bytes: plan.part_bytes,
                snapshot_bytes: plan.snapshot_bytes,
                sessions: plan.sessions,
                in_flight_max_slots: WINDOW,
                in_flight_max_bytes: 64 * plan.part_bytes,
            },
        }
    }

    /// Replaces its data directory with an empty one. The process must not run.
    pub fn begin_new_history(&mut self, storage: u64) {
        (self.dir, self.storage) = (SimDataDir::default(), storage);
        (self.is_checkpoint_corrupt, self.corrupted_in, self.has_new_disk) = (false, None, false);
        (self.admitted_with, self.own_dir, self.last_claim) = (None, None, None);
    }

    /// The owner that its data directory must name.
    pub(super) fn owner(&self) -> Owner<'static> {
        Owner { cluster: CLUSTER, quorums: self.quorums, server: self.me }
    }

    /// The last slot that its learner applied, and the state's digest. Without a learner: what `settled` returns.
    /// None if the learner is fenced or the server is down.
    pub fn applied(&self) -> Option<(Slot, u64)> {
        let Some(learner) = &self.process.as_ref()?.learner else { return self.settled() };
        let learner = learner.role();
        if learner.fenced().is_some() {
            return None;
        }
        Some((learner.applied(), learner.machine().digest()))
    }

    /// Length of a journal file, in bytes.
    pub fn segment_bytes(&self) -> u64 {
        self.sizes.segment_bytes
    }

    /// The clock of the server.
    pub fn clock(&self) -> SimClock {
        SimClock::new(self.clock)
    }

    /// From now on the timers of a role run at this speed, in percent; None restores the server's speed.
    pub fn run_timers(&mut self, sim_env: &mut SimEnv, role: RoleKind, speed: Option<u64>) {
        if self.role_clocks[role as usize].run_at(speed.unwrap_or(self.clock), sim_env.now()) {
            // The scheduled wake-up time is no longer right.
            self.resume(sim_env, role);
        }
    }

    /// Whether the process runs and is not paused.
    pub fn is_awake(&self, now: Micros) -> bool {
        self.process.is_some() && self.paused_until <= now
    }

    /// The process and its environment, for the duration of one event.
    pub(super) fn env<'a>(&'a mut self, sim_env: &'a mut SimEnv) -> Option<(&'a mut SimProcess, ProcessEnv<'a>)> {
        let (me, clock, is_paused) = (self.me, self.clock(), self.paused_until > sim_env.now());
        let process = self.process.as_mut()?;
        let env = ProcessEnv {
            sim_env: sim_env.into(),
            me,
            process: process.number,
            clock,
            is_paused,
            processor: self.processor.clone(),
            sync: self.sync.clone(),
            agenda: process.agenda.clone(),
        };
        Some((process, env))
    }

    /// As [`Self::env`], for a turn of a role, whose timers may run on a clock of their own.
    pub(super) fn role_env<'a>(
        &'a mut self,
        sim_env: &'a mut SimEnv,
        role: RoleKind,
    ) -> Option<(&'a mut SimProcess, ProcessEnv<'a>)> {
        let clock = self.role_clocks[role as usize];
        let (process, env) = self.env(sim_env)?;
        Some((process, ProcessEnv { clock, ..env }))
    }

    /// Runs an event that concerns only the core.
    pub(super) fn with_core(
        &mut self,
        sim_env: &mut SimEnv,
        what: impl FnOnce(&ServerCore<SimConnection>, &ProcessEnv<'_>),
    ) {
        if let Some((process, env)) = self.env(sim_env) {
            what(&process.core, &env);
        }
    }

    /// Starts the process: the identity first, then the roles in the order of the protocol. `storages` are the storage
    /// ids of all servers, which a server of an already formed cluster needs.
    pub fn start(&mut self, sim_env: &mut SimEnv, storages: &[(ServerId, u64)]) -> Result<(), StartRefusal> {
        let identity = self.dir.identity(self.owner(), self.storage)?;
        let dir = DataDir::begin(self.dir.clone(), identity)?;
        if self.starts_admitted && !dir.is_active() {
            for (peer, storage) in storages.iter().filter(|(peer, _)| *peer != self.me) {
                dir.identity().bind_peer(*peer, *storage)?;
            }
            dir.set_active()?;
        }
        let trace = self.open_trace(sim_env, dir.incarnation());
        let admission = Admission::of(&dir, self.quorums)?;
        self.boot = sim_env.next_incarnation();
        let config = Config {
            name: CLUSTER.to_string(),
            boot: self.boot,
            me: self.me,
            cluster: self.cluster,
            quorums: self.quorums,
            protocol: self.protocol,
            incarnation: dir.incarnation(),
            pid: u32::from(self.me.0),
            forgets: self.loses_storage,
            lab: false,
            wake_hints: self.wake_hints,
            retention: self.retention,
            sizes: self.sizes,
        };
        self.process = Some(SimProcess {
            number: self.boot,
            dir,
            core: ServerCore::new(config, trace, admission),
            agenda: Rc::default(),
            lifecycle: Lifecycle::new(self.clock().at(sim_env.now())),
            proposer: None,
            acceptor: None,
            learner: None,
            coordinator: None,
            participant: None,
            checkpointer: None,
            awaits_state: None,
            accepted_calls: BTreeMap::new(),
            fatal: None,
        });
        if self.protocol.has(RoleKind::Learner) {
            self.open_checkpoint(sim_env)?;
        }
        for role in self.protocol.roles() {
            self.start_role(sim_env, *role, None)?;
        }
        self.log_boot();
        self.start_links(sim_env);
        sim_env.schedule(0, SimEvent::Announce { server: self.me, process: self.boot });
        Ok(())
    }

    fn open_trace(&self, sim_env: &SimEnv, incarnation: u32) -> Trace {
        match self.lines {
            // A server with a second disk writes no log lines: they would contradict those of its old disk.
            Some(_) if !self.has_new_disk => {
                let (clock, wrong_by) = (sim_env.clock(), self.wall_clock.clone());
                Trace::to_memory_at(trace::ProcessId::server(self.me, incarnation), move || {
                    let wrong_by = SignedDuration::from_micros(wrong_by.load(Ordering::Relaxed));
                    time_of(clock.load(Ordering::Relaxed)).saturating_add(wrong_by).unwrap_or(Timestamp::MAX)
                })
            }
            _ => Trace::disabled(),
        }
    }

    /// Opens the checkpoint. A corrupt one is quarantined.
    fn open_checkpoint(&mut self, sim_env: &mut SimEnv) -> Result<(), StartRefusal> {
        let (me, harmed) = (self.me, self.is_checkpoint_corrupt);
        let Some(process) = &mut self.process else { return Ok(()) };
        let (files, storage) = (self.dir.checkpoint.clone(), process.dir.storage_id());
        let opened = Checkpointer::open(&process.core, files, storage);
        if opened.is_err() && harmed && !self.dir.checkpoint.image().contains_key(CHECKPOINT_FILE) {
            // It was quarantined before the new one was made.
            sim_env.oracle.checkpoint_in_doubt(me, Slot(0));
        }
        let (checkpointer, is_rebuilt) = opened.map_err(RecoveryError::from)?;
        if harmed && !is_rebuilt {
            // One bit of the file selects which of its last two states is valid.
            sim_env.oracle.checkpoint_fell_back(me, checkpointer.mark().slot);
        }
        process.checkpointer = Some(checkpointer);
        if is_rebuilt {
            sim_env.oracle.require(20, harmed, || format!("{me} quarantined an intact checkpoint"));
            sim_env.reach(CoveragePoint::CheckpointRebuilt);
            sim_env.oracle.checkpoint_lost(me);
        }
        Ok(())
    }

    /// The slot of the checkpoint that a new process would find.
    pub fn checkpoint_slot(&self, identity: &DirIdentity<MemoryFiles>) -> Slot {
        let state = Kv::with_sessions_at_most(self.sizes.sessions);
        let files = self.dir.checkpoint.fork();
        let opened = Checkpoint::open(files, identity.storage_id(), self.sizes.snapshot_bytes, state);
        opened.map_or(Slot(0), |(checkpoint, _)| checkpoint.mark().slot)
    }

    /// The acceptor that a new process would recover, and whether part of its disk is corrupt. None if there is no
    /// journal yet.
    pub fn read_disk(&self) -> Result<Option<(Acceptor, bool)>, StartRefusal> {
        let identity = self.dir.identity(self.owner(), self.storage)?;
        if !identity.has_journal() {
            return Ok(None);
        }
        let checkpoint = self.checkpoint_slot(&identity);
        let dir = DataDir::begin(self.dir.clone(), identity)?;
        let (_, recovered) = dir.open_journal(self.segment_bytes())?;
        let mut acceptor = Acceptor::new();
        for record in recovered.records {
            acceptor.replay(record);
        }
        Ok(Some((acceptor.finish_recovery(checkpoint), !recovered.corruption.is_empty())))
    }

    /// Starts an incarnation of a role, or waits for disk space. `down` is None at the start of the process.
    fn start_role(&mut self, sim_env: &mut SimEnv, role: RoleKind, down: Option<Duration>) -> Result<(), StartRefusal> {
        if let Some(process) = &mut self.process {
            process.lifecycle.begins(role, None);
            process.agenda.incarnations[role as usize].set(sim_env.next_incarnation());
            // Inputs that arrive while the role reads its disk wait in the mailbox.
            process.set_open(role, true);
        }
        let begun = match role {
            RoleKind::Proposer => self.start_proposer(sim_env, down),
            RoleKind::Acceptor => self.start_acceptor(sim_env, down),
            RoleKind::Learner => self.start_learner(sim_env, down),
            RoleKind::Coordinator => self.start_coordinator(sim_env, down),
            RoleKind::Participant => self.start_participant(sim_env, down),
        };
        match begun {
            Err(RecoveryError::NoSpace(why)) => self.await_space(sim_env, role, &why),
            begun => begun?,
        }
        Ok(())
    }

    /// The disk has no room for the first write of an incarnation, so the start is retried.
    fn await_space(&mut self, sim_env: &mut SimEnv, role: RoleKind, why: &str) {
        sim_env.reach(CoveragePoint::WaitedForRoom);
        let now = self.clock().at(sim_env.now());
        let Some((process, env)) = self.env(sim_env) else { return };
        let core = &process.core;
        match role {
            RoleKind::Proposer => on_no_space::<Proposer, _>(core, &env, why),
            RoleKind::Acceptor => on_no_space::<Acceptor, _>(core, &env, why),
            RoleKind::Learner => on_no_space::<Learner<Kv>, _>(core, &env, why),
            RoleKind::Coordinator => on_no_space::<Coordinator, _>(core, &env, why),
            RoleKind::Participant => on_no_space::<Participant, _>(core, &env, why),
        }
        process.lifecycle.ended(now, role);
        self.plan_restart(sim_env);
    }

    fn start_proposer(&mut self, sim_env: &mut SimEnv, down: Option<Duration>) -> Result<(), RecoveryError> {
        sim_env.oracle.role_crashed(self.me, RoleKind::Proposer, 0);
        let Some(process) = &mut self.process else { return Ok(()) };
        let (proposer, rounds) = recovery::proposer(&process.core, &process.dir, down)?;
        self.begin(sim_env, proposer, rounds);
        Ok(())
    }

    fn start_acceptor(&mut self, sim_env: &mut SimEnv, down: Option<Duration>) -> Result<(), RecoveryError> {
        if sim_env.chance(300) {
            self.recover_twice(sim_env);
        }
        let Some((process, env)) = self.env(sim_env) else { return Ok(()) };
        let (acceptor, journal) = recovery::acceptor(&process.core, &env, &process.dir, down)?;
        self.begin(sim_env, acceptor, journal);
        Ok(())
    }

    /// Asks the checkpointer for the learner's initial state. At the start of the process the state is loaded at once,
    /// before any other work.
    fn start_learner(&mut self, sim_env: &mut SimEnv, down: Option<Duration>) -> Result<(), RecoveryError> {
        let Some((process, env)) = self.env(sim_env) else { return Ok(()) };
        process.core.checkpoints.load();
        process.awaits_state = Some(down);
        if down.is_some() {
            env.wake_checkpointer();
            return Ok(());
        }
        let Some(checkpointer) = &mut process.checkpointer else { return Ok(()) };
        let loaded = checkpointer.run_one(&process.core, &env);
        match loaded? {
            Some(loaded) => self.begin_learner(sim_env, loaded),
            None => Ok(()),
        }
    }

    /// Starts the learner that waited for this state.
    fn begin_learner(&mut self, sim_env: &mut SimEnv, loaded: LoadedState) -> Result<(), RecoveryError> {
        let Some((process, env)) = self.env(sim_env) else { return Ok(()) };
        let Some(down) = process.awaits_state.take() else { return Ok(()) };
        let learner = recovery::learner(&process.core, &env, &process.dir, loaded, down)?;
        self.begin(sim_env, learner, NoStableStore);
        Ok(())
    }

    fn start_coordinator(&mut self, sim_env: &mut SimEnv, down: Option<Duration>) -> Result<(), RecoveryError> {
        let Some((process, env)) = self.env(sim_env) else { return Ok(()) };
        let (coordinator, log) = recovery::coordinator(&process.core, &env, &process.dir, down)?;
        self.begin(sim_env, coordinator, log);
        Ok(())
    }

    fn start_participant(&mut self, sim_env: &mut SimEnv, down: Option<Duration>) -> Result<(), RecoveryError> {
        let Some((process, env)) = self.env(sim_env) else { return Ok(()) };
        let (participant, log) = recovery::participant(&process.core, &env, &process.dir, down)?;
        self.begin(sim_env, participant, log);
        Ok(())
    }

    /// Checks that recovery is repeatable: a second recovery of the same disk finds the same state.
    fn recover_twice(&self, sim_env: &mut SimEnv) {
        let Some(process) = &self.process else { return };
        if !process.identity().has_journal() {
            return;
        }
        let copy = self.dir.fork();
        for files in copy.all() {
            // The copy has no faults: room for another incarnation is not tested here, and a planned failure strikes
            // the real disk.
            files.set_capacity(None);
            files.fail_read(None);
            files.fail(u64::MAX / 2, InjectedFailure::Stop);
        }
        let durable = process.core.shared_status.read().checkpoint;
        let recover = || {
            let identity = copy.identity(self.owner(), self.storage).ok()?;
            let dir = DataDir::begin(copy.clone(), identity).ok()?;
            let opened = dir.open_journal_beside(self.segment_bytes(), Some(durable.next()), LeftFree::default());
            let (_, recovered) = opened.ok()?;
            Some(recovered.records)
        };
        // The first recovery may delete files that are no longer needed. So the recovered state is compared, not the
        // records that it was built from.
        let known = |records: Vec<AcceptorRecord>| {
            let mut acceptor = Acceptor::new();
            records.into_iter().for_each(|record| acceptor.replay(record));
            // The second recovery may have dropped what the checkpoint covers, and may also have kept it.
            acceptor.replay(AcceptorRecord::Truncated(durable.next()));
            acceptor.finish_recovery(durable)
        };
        let Some(first) = recover() else { return };
        let same = recover().is_some_and(|second| known(second) == known(first));
        let me = self.me;
        sim_env.oracle.require(22, same, || format!("{me} recovered its journal twice, with different results"));
    }

    fn begin<R: SimHosted>(&mut self, sim_env: &mut SimEnv, role: R, disk: R::Disk) {
        let seed = sim_env.random.next();
        let Some((process, env)) = self.role_env(sim_env, R::NAME) else { return };
        let host = RoleHost::new(&process.core, &env, role, disk, Random::new(seed, R::NAME as u64));
        *R::role_of(process) = Some(Box::new(SimRole::new(host)));
        env.schedule_turn(R::NAME);
    }

    /// Restarts a role that is down, or as soon as it is.
    pub fn restart_role(&mut self, sim_env: &mut SimEnv, role: RoleKind) {
        let now = self.clock().at(sim_env.now());
        if let Some(process) = &mut self.process {
            process.lifecycle.restart_soon(now, role);
        }
        self.plan_restart(sim_env);
    }

    /// Schedules an event for the next role restart.
    pub(super) fn plan_restart(&mut self, sim_env: &mut SimEnv) {
        let (now, clock, me) = (sim_env.now(), self.clock(), self.me);
        let Some(process) = &self.process else { return };
        let Some(due) = process.lifecycle.next_due() else { return };
        let at = clock.when(due).max(now);
        if process.agenda.restart_at.get().is_none_or(|planned| at < planned) {
            process.agenda.restart_at.set(Some(at));
            sim_env.schedule(at - now, SimEvent::Restart { server: me, process: process.number });
        }
    }

    /// Starts the roles whose restart is due.
    pub fn restart_due(&mut self, sim_env: &mut SimEnv, number: u64) -> Result<(), StartRefusal> {
        let now = self.clock().at(sim_env.now());
        if let Some(process) = &self.process {
            process.agenda.restart_at.set(None);
        }
        for role in self.protocol.roles() {
            let Some(process) = self.process.as_mut().filter(|process| process.number == number) else { return Ok(()) };
            if let Some(DueAction::Restart(down)) = process.lifecycle.take_due(now, *role) {
                self.start_role(sim_env, *role, Some(down))?;
            }
        }
        self.plan_restart(sim_env);
        Ok(())
    }

    /// Runs the checkpointer's next job, whose duration has passed.
    pub fn run_checkpointer(&mut self, sim_env: &mut SimEnv, number: u64) -> Result<(), StartRefusal> {
        let Some((process, env)) = self.env(sim_env).filter(|(process, _)| process.number == number) else {
            return Ok(());
        };
        let Some(checkpointer) = &mut process.checkpointer else { return Ok(()) };
        let done = checkpointer.run_one(&process.core, &env);
        env.agenda.is_checkpointing.set(false);
        if !process.core.checkpoints.is_empty() {
            env.wake_checkpointer();
        }
        match done {
            Ok(None) => {}
            Ok(Some(loaded)) => match self.begin_learner(sim_env, loaded) {
                Err(RecoveryError::NoSpace(why)) => self.await_space(sim_env, RoleKind::Learner, &why),
                begun => begun?,
            },
            Err(fatal) => process.fatal = Some(fatal.0),
        }
        Ok(())
    }

    /// The process crashes: a checkpoint in progress stops after some of its disk operations.
    pub(super) fn interrupt_checkpointer(&mut self, sim_env: &mut SimEnv) {
        let files = self.dir.checkpoint.clone();
        let Some((process, env)) = self.env(sim_env) else { return };
        let Some(checkpointer) = process.checkpointer.as_mut().filter(|_| process.core.checkpoints.awaits_write())
        else {
            return;
        };
        let operation = env.sim_env.borrow_mut().random.within(0..=12);
        files.fail(operation, InjectedFailure::Stop);
        env.sim_env.borrow_mut().reach(CoveragePoint::KilledInCheckpoint);
        // The result is dropped: no process is left to use it.
        drop(checkpointer.run_one(&process.core, &env));
    }

    /// Announces this server to every other one, and schedules the next announcement.
    pub fn announce(&mut self, sim_env: &mut SimEnv, number: u64) {
        let others = self.cluster.without(ServerSet::only(self.me));
        let Some((process, env)) = self.env(sim_env).filter(|(process, _)| process.number == number) else {
            return;
        };
        process.core.send(&env, others, PeerMessage::Keepalive, TraceContext::default());
        env.flush_peers();
        let (again, server) = (env.clock.duration(KEEPALIVE_INTERVAL), env.me);
        env.sim_env.borrow_mut().schedule(again, SimEvent::Announce { server, process: number });
    }

    /// Handles bytes from a client. Returns false, to close the connection, if they are not a request that an honest
    /// client sends.
    pub fn receive_from_client(&mut self, sim_env: &mut SimEnv, client: usize, bytes: &[u8]) -> bool {
        let Ok(request) = unframe::<ClientRequest>(bytes, CLIENT_FRAME_MAX_BYTES) else { return false };
        let Some((process, env)) = self.env(sim_env) else { return true };
        let connection = SimConnection::new(client, process.core.load.clone());
        let is_taken = process.core.request(&env, &connection, request, bytes.len()).is_ok();
        process.core.flush_replies(&env);
        if is_taken {
            let patience = env.clock.duration(OUTCOME_TIMEOUT);
            let event = SimEvent::ClientDeadline { server: env.me, process: process.number };
            env.sim_env.borrow_mut().schedule(patience, event);
        }
        self.handle_lab_requests(sim_env);
        is_taken
    }

    fn handle_lab_requests(&mut self, sim_env: &mut SimEnv) {
        let now = self.clock().at(sim_env.now());
        let orders = self.process.as_ref().map_or(Vec::new(), |process| process.agenda.lab_requests.take());
        for order in orders {
            let Some(process) = &mut self.process else { return };
            match order {
                LabRequest::Crash { role, down } => {
                    let order = process.lifecycle.on_crash_request(now, role, down);
                    order.into_iter().for_each(|order| self.enqueue_crash(sim_env, role, order));
                    self.plan_restart(sim_env);
                }
                LabRequest::Restart { role } => self.restart_role(sim_env, role),
                // Only the operator of a real process uses these requests. The simulated network cuts links itself.
                LabRequest::Cut { .. } | LabRequest::Join { .. } | LabRequest::Stop => {}
            }
        }
    }

    /// Ends client requests that have waited for their time limit.
    pub fn expire(&mut self, sim_env: &mut SimEnv, number: u64) {
        if self.process.as_ref().is_some_and(|process| process.number == number) {
            self.with_core(sim_env, |core, env| core.expire(env));
        }
    }

    /// Handles bytes from a peer. Returns false, to close the connection, if they are not a message.
    pub fn receive_from_peer(&mut self, sim_env: &mut SimEnv, from: ServerId, bytes: &[u8]) -> bool {
        let Ok(envelope) = unframe::<Envelope>(bytes, PEER_FRAME_MAX_BYTES) else { return false };
        sim_env.hash_event(&(from, self.me, &envelope.message));
        if let PeerMessage::Paxos(message) = &envelope.message {
            self.note_message(sim_env, message);
        }
        self.with_core(sim_env, |core, env| {
            core.linked.hears(from, paxos_kv::host::Env::now(env));
            core.deliver(env, from, envelope);
        });
        true
    }

    /// Records the coverage points that an arriving message reaches.
    fn note_message(&self, sim_env: &mut SimEnv, message: &Message) {
        match message {
            Message::Entries { entries, applied } => {
                let Some((mine, _)) = self.applied() else { return };
                if entries.iter().any(|entry| entry.slot == mine.next()) {
                    sim_env.reach(CoveragePoint::LearnedByEntries);
                    if entries.last().is_some_and(|last| last.slot < *applied) {
                        sim_env.reach(CoveragePoint::EntriesPartial);
                    }
                }
            }
            Message::Promise { page, .. } if page.end.is_some() => sim_env.reach(CoveragePoint::PromiseInPages),
            Message::Snapshot(part) if self.applied().is_some_and(|(applied, _)| part.slot <= applied) => {
                sim_env.reach(CoveragePoint::SnapshotOvertaken);
            }
            _ => {}
        }
    }

    /// Whether the server is admitted according to its disk, whether or not it runs.
    pub fn is_active(&self) -> bool {
        self.claim().is_some_and(|claim| claim.is_active)
    }

    /// What the server tells its peers about itself, or told them before it crashed, because those messages may still
    /// arrive. A process that crashed during its start has told no peer what is on its disk, and a power cut may remove
    /// it.
    pub fn claim(&self) -> Option<Claim> {
        let Some(process) = &self.process else {
            // The server may have another data directory by now, and has told no peer about that one.
            return self.last_claim.filter(|claim| claim.storage == self.storage);
        };
        let identity = process.dir.identity();
        let (storage, incarnation) = (identity.storage_id(), identity.incarnation());
        Some(Claim {
            server: self.me,
            storage,
            incarnation,
            boot: self.boot,
            is_active: identity.is_active(),
            knows: None,
        })
    }

    /// Writes the first log line: version, protocol, and what the process found on its disk.
    fn log_boot(&self) {
        let Some(process) = self.process.as_ref().filter(|process| process.core.trace.steps()) else { return };
        let acceptor = process.acceptor.as_ref().map(|sim_role| sim_role.role());
        let promised = acceptor.map(|role| role.promised()).filter(|ballot| ballot.round > 0);
        process.core.trace_line(
            Speaker::Server,
            &TraceContext::default(),
            LineEvent::Boot {
                version: QuotedText::new(env!("CARGO_PKG_VERSION")),
                lines: Some(paxos_kv::trace::FORMAT),
                cluster: self.cluster,
                protocol: Some(QuotedText::new(self.protocol.name())),
                seed: None,
                fail: Some(QuotedText::new("simulated")),
                mean_up: None,
                mean_down: None,
                restart: Some(if self.loses_storage { RestartMode::Lost } else { RestartMode::Disk }),
                data: None,
                steps: Some(QuotedText::new("on")),
                incarnation: Some(process.dir.incarnation()),
                applied: self.applied().map(|(slot, _)| slot),
                digest: self.applied().map(|(_, digest)| Digest(digest)),
                promised: Some(MaybeBallot(promised)),
                accepted: acceptor.map(|role| role.accepted().len() as u64),
                history: process.learner.as_ref().map(|learner| HistoryName::of(learner.role().machine().history())),
                disk: DiskName::new(&short_disk(process.dir.storage_id())),
            },
        );
    }

    /// Ends the process: its log lines are kept. Returns the reply handles of its pending requests, whose connections
    /// are lost.
    pub fn end_process(&mut self) -> Vec<ReplyHandle<SimConnection>> {
        self.last_claim = self.claim();
        let Some(process) = self.process.take() else { return Vec::new() };
        if let Some(lines) = &mut self.lines {
            lines.push_str(&process.core.trace.text());
        }
        self.paused_until = 0;
        process.core.pending.take_all()
    }
}

/// Wall-clock time of a moment: every run starts at 2026-01-01T00:00:00Z.
pub fn time_of(now: Micros) -> Timestamp {
    let begin = Timestamp::from_second(1_767_225_600).unwrap_or(Timestamp::UNIX_EPOCH);
    begin.saturating_add(SignedDuration::from_micros(now as i64)).unwrap_or(begin)
}
