//! One simulated server: its folder and its process. What a process decides is the real thing, in surroundings of
//! events.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::coverage::Mark;
use super::data_dir::{CLUSTER, SimDataDir, StartRefusal};
use super::env::{Micros, SimEnv, SimEvent};
use super::leaders::WINDOW;
use super::plan::RunPlan;
use super::process_env::{Agenda, ProcessEnv, SimClock, SimConnection};
use super::scheduler::{Seated, SimRole};
use crate::host::checkpoints::{Checkpointer, LoadedState};
use crate::host::connected_peers::SAYS_EVERY;
use crate::host::lifecycle::{DueAction, Lifecycle};
use crate::host::mailbox::Mailbox;
use crate::host::pending::PATIENCE;
use crate::host::role_host::found_no_room;
use crate::host::{
    Admission, Config, Env, LabRequest, RecoveryError, ReplyHandle, RoleHost, ServerCore, Sizes, recovery,
};
use crate::kv::Kv;
use crate::net::{CLIENT_FRAME_MAX_BYTES, ClientRequest, Envelope, PEER_FRAME_MAX_BYTES, PeerMessage, unframe};
use crate::paxos::{Acceptor, AcceptorRecord, Learner, Message, Proposer, Quorums, Retention, Slot, StateMachine};
use crate::protocol::Protocol;
use crate::random::Random;
use crate::role::{NoStableStore, Role, RoleKind, ServerId, ServerSet};
use crate::storage::DataDir;
use crate::storage::admission::Claim;
use crate::storage::checkpoint::{CHECKPOINT_FILE, Checkpoint};
use crate::storage::disk::{InjectedFailure, MemoryFiles};
use crate::storage::identity::{DirIdentity, Owner, short_disk};
use crate::storage::journal::LeftFree;
use crate::trace::{
    self, Digest, DiskName, Event as LineEvent, HistoryName, MaybeBallot, QuotedText, RestartMode, Speaker, Trace,
    TraceContext,
};
use crate::two_phase_commit::{Coordinator, Participant};

/// A server, whether its process runs or not.
pub struct SimServer {
    /// Which.
    pub me: ServerId,
    /// All servers.
    pub cluster: ServerSet,
    /// What outlives the process.
    pub folder: SimDataDir,
    /// The storage id that a new folder gets.
    pub storage: u64,
    /// The process, if it runs.
    pub process: Option<SimProcess>,
    /// What its last process has drawn.
    boot: u64,
    /// It does nothing until then.
    pub paused_until: Micros,
    /// How long a role takes to get the processor.
    pub processor: RangeInclusive<Micros>,
    /// How long a sync takes.
    pub sync: RangeInclusive<Micros>,
    /// How fast its clock runs, in percent.
    pub clock: u64,
    /// What the timers of each role run by.
    role_clocks: [SimClock; RoleKind::EVERY.len()],
    /// How far its wall clock is wrong, in microseconds. Nothing but the time stamps of its lines depends on it.
    pub wall_clock: Arc<AtomicI64>,
    /// The lines of all its processes, if somebody wants them.
    pub lines: Option<String>,
    /// Its checkpoint was damaged.
    pub is_checkpoint_harmed: bool,
    /// The process in whose time its disk was damaged.
    pub harmed_in: Option<u64>,
    /// How much of the past its learner keeps.
    pub retention: Retention,
    /// Its disk is a new one, and its peers know.
    pub is_stranger: bool,
    /// The storage id of the folder with which it has begun to take part.
    pub(super) takes_part_with: Option<u64>,
    /// What its last process has said of itself.
    last_claim: Option<Claim>,
    /// Its own folder and that one's storage id, while it has another one.
    pub(super) own: Option<(SimDataDir, u64)>,
    /// Its acceptor comes back without its memory: the lab's unsafe mode.
    pub forgets: bool,
    /// Its folder is known to the others from the start.
    is_acquainted: bool,
    /// Roles are not woken for what can wait.
    wake_hints: bool,
    pub(super) quorums: Quorums,
    pub(super) protocol: Protocol,
    /// Much smaller than in a real server, so that a run of a few commands meets every limit.
    pub(super) sizes: Sizes,
}

/// A process: what a kill ends.
pub struct SimProcess {
    /// Which of all processes.
    pub number: u64,
    /// Its data folder.
    pub folder: DataDir<SimDataDir>,
    /// What it decides.
    pub core: ServerCore<SimConnection>,
    /// What is to happen next.
    pub agenda: Rc<Agenda>,
    /// When roles die and come back.
    pub lifecycle: Lifecycle,
    /// The proposer, if it lives.
    pub proposer: Option<Box<SimRole<Proposer>>>,
    /// The acceptor.
    pub acceptor: Option<Box<SimRole<Acceptor>>>,
    /// The learner.
    pub learner: Option<Box<SimRole<Learner<Kv>>>>,
    /// The coordinator, under two-phase commit.
    pub coordinator: Option<Box<SimRole<Coordinator>>>,
    /// The participant, under two-phase commit.
    pub participant: Option<Box<SimRole<Participant>>>,
    /// What writes the state down.
    pub checkpointer: Option<Checkpointer<MemoryFiles>>,
    /// A learner waits for the state that it begins with: for how long it has been down, if it has lived before.
    awaits_state: Option<Option<Duration>>,
    /// Calls of its peers that it has let in.
    pub heard: BTreeMap<ServerId, Vec<u64>>,
    /// Why it must stop.
    pub fatal: Option<String>,
}

impl SimProcess {
    /// Whose folder it uses.
    pub fn identity(&self) -> &DirIdentity<MemoryFiles> {
        self.folder.identity()
    }

    /// Whether it has let a peer in.
    pub fn hears(&self, peer: ServerId) -> bool {
        self.heard.get(&peer).is_some_and(|calls| !calls.is_empty())
    }

    /// Whether it has let a peer in by this call.
    pub fn hears_on(&self, peer: ServerId, call: u64) -> bool {
        self.heard.get(&peer).is_some_and(|calls| calls.contains(&call))
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
            folder: SimDataDir::default(),
            storage,
            process: None,
            boot: 0,
            paused_until: 0,
            processor: plan.processor.clone(),
            sync: plan.sync.clone(),
            clock,
            role_clocks: [SimClock::new(clock); RoleKind::EVERY.len()],
            wall_clock: Arc::default(),
            lines: lines.then(String::new),
            is_checkpoint_harmed: false,
            harmed_in: None,
            retention: plan.retention,
            is_stranger: false,
            takes_part_with: None,
            last_claim: None,
            own: None,
            forgets: false,
            is_acquainted: plan.is_acquainted,
            wake_hints: plan.wake_hints,
            quorums: plan.quorums(),
            protocol: plan.protocol,
            sizes: Sizes {
                mailbox: plan.mailbox,
                segment_bytes: plan.segment_bytes,
                left_free_bytes: plan.segment_bytes / 16,
                part_bytes: plan.part_bytes,
                snapshot_bytes: plan.snapshot_bytes,
                sessions: plan.sessions,
                open_slots: WINDOW,
                open_bytes: 64 * plan.part_bytes,
            },
        }
    }

    /// It gets an empty folder, as on the first day. Its process does not run.
    pub fn begin_anew(&mut self, storage: u64) {
        (self.folder, self.storage) = (SimDataDir::default(), storage);
        (self.is_checkpoint_harmed, self.harmed_in, self.is_stranger) = (false, None, false);
        (self.takes_part_with, self.own, self.last_claim) = (None, None, None);
    }

    /// Whose its folder is.
    pub(super) fn owner(&self) -> Owner<'static> {
        Owner { cluster: CLUSTER, quorums: self.quorums, server: self.me }
    }

    /// The last slot that its learner has applied, or what stands for it where there is none; None if that is wrong or
    /// not there.
    pub fn applied(&self) -> Option<(Slot, u64)> {
        let Some(learner) = &self.process.as_ref()?.learner else { return self.settled() };
        let learner = learner.role();
        if learner.fenced().is_some() {
            return None;
        }
        Some((learner.applied(), learner.machine().digest()))
    }

    /// Length of the journal's files.
    pub fn segment_bytes(&self) -> u64 {
        self.sizes.segment_bytes
    }

    /// Its clock.
    pub fn clock(&self) -> SimClock {
        SimClock::new(self.clock)
    }

    /// The timers of a role run at this speed from now on, in percent; at the usual one if None.
    pub fn run_timers(&mut self, nature: &mut SimEnv, role: RoleKind, speed: Option<u64>) {
        if self.role_clocks[role as usize].run_at(speed.unwrap_or(self.clock), nature.now()) {
            // When it was to wake is no longer right.
            self.resumes(nature, role);
        }
    }

    /// Whether the process runs and is not paused.
    pub fn is_awake(&self, now: Micros) -> bool {
        self.process.is_some() && self.paused_until <= now
    }

    /// Its process, and what is around it for as long as one event takes.
    pub(super) fn around<'a>(&'a mut self, nature: &'a mut SimEnv) -> Option<(&'a mut SimProcess, ProcessEnv<'a>)> {
        let (me, clock, is_paused) = (self.me, self.clock(), self.paused_until > nature.now());
        let process = self.process.as_mut()?;
        let around = ProcessEnv {
            nature: nature.into(),
            me,
            process: process.number,
            clock,
            is_paused,
            processor: self.processor.clone(),
            sync: self.sync.clone(),
            agenda: process.agenda.clone(),
        };
        Some((process, around))
    }

    /// The same for a turn of a role, whose timers may run by a clock of their own.
    pub(super) fn around_role<'a>(
        &'a mut self,
        nature: &'a mut SimEnv,
        role: RoleKind,
    ) -> Option<(&'a mut SimProcess, ProcessEnv<'a>)> {
        let clock = self.role_clocks[role as usize];
        let (process, around) = self.around(nature)?;
        Some((process, ProcessEnv { clock, ..around }))
    }

    /// Something that the core alone has to do with.
    pub(super) fn with_core(
        &mut self,
        nature: &mut SimEnv,
        what: impl FnOnce(&ServerCore<SimConnection>, &ProcessEnv<'_>),
    ) {
        if let Some((process, around)) = self.around(nature) {
            what(&process.core, &around);
        }
    }

    /// Starts the process: the identity first, then the acceptor, the learner and the proposer. `storages` are the
    /// folders of all servers, for one whose cluster is an old one.
    pub fn start(&mut self, nature: &mut SimEnv, storages: &[(ServerId, u64)]) -> Result<(), StartRefusal> {
        let identity = self.folder.identity(self.owner(), self.storage)?;
        let folder = DataDir::begin(self.folder.clone(), identity)?;
        if self.is_acquainted && !folder.takes_part() {
            for (peer, storage) in storages.iter().filter(|(peer, _)| *peer != self.me) {
                folder.identity().bind_peer(*peer, *storage)?;
            }
            folder.set_takes_part()?;
        }
        let trace = self.open_trace(nature, folder.life());
        let admission = Admission::of(&folder, self.quorums)?;
        self.boot = nature.new_life();
        let config = Config {
            name: CLUSTER.to_string(),
            boot: self.boot,
            me: self.me,
            cluster: self.cluster,
            quorums: self.quorums,
            protocol: self.protocol,
            life: folder.life(),
            pid: u32::from(self.me.0),
            forgets: self.forgets,
            lab: false,
            wake_hints: self.wake_hints,
            retention: self.retention,
            sizes: self.sizes,
        };
        self.process = Some(SimProcess {
            number: self.boot,
            folder,
            core: ServerCore::new(config, trace, admission),
            agenda: Rc::default(),
            lifecycle: Lifecycle::new(self.clock().at(nature.now())),
            proposer: None,
            acceptor: None,
            learner: None,
            coordinator: None,
            participant: None,
            checkpointer: None,
            awaits_state: None,
            heard: BTreeMap::new(),
            fatal: None,
        });
        if self.protocol.has(RoleKind::Learner) {
            self.open_checkpoint(nature)?;
        }
        for role in self.protocol.roles() {
            self.start_role(nature, *role, None)?;
        }
        self.tell_boot();
        self.call_others(nature);
        nature.after(0, SimEvent::Here { server: self.me, process: self.boot });
        Ok(())
    }

    fn open_trace(&self, nature: &SimEnv, life: u32) -> Trace {
        match self.lines {
            // One that nobody believes tells nothing either: its lines would contradict those of its old disk.
            Some(_) if !self.is_stranger => {
                let (clock, wrong_by) = (nature.clock(), self.wall_clock.clone());
                Trace::to_memory_at(trace::ProcessId::server(self.me, life), move || {
                    let wrong_by = SignedDuration::from_micros(wrong_by.load(Ordering::Relaxed));
                    time_of(clock.load(Ordering::Relaxed)).saturating_add(wrong_by).unwrap_or(Timestamp::MAX)
                })
            }
            _ => Trace::disabled(),
        }
    }

    /// Opens the checkpoint. One that cannot be believed is put aside.
    fn open_checkpoint(&mut self, nature: &mut SimEnv) -> Result<(), StartRefusal> {
        let (me, harmed) = (self.me, self.is_checkpoint_harmed);
        let Some(process) = &mut self.process else { return Ok(()) };
        let (files, storage) = (self.folder.checkpoint.clone(), process.folder.storage_id());
        let opened = Checkpointer::open(&process.core, files, storage);
        if opened.is_err() && harmed && !self.folder.checkpoint.image().contains_key(CHECKPOINT_FILE) {
            // It was put aside before the new one could be made.
            nature.ghost.checkpoint_in_doubt(me, Slot(0));
        }
        let (checkpointer, is_rebuilt) = opened.map_err(RecoveryError::from)?;
        if harmed && !is_rebuilt {
            // One bit of the file says which of its last two states holds.
            nature.ghost.checkpoint_fell_back(me, checkpointer.mark().slot);
        }
        process.checkpointer = Some(checkpointer);
        if is_rebuilt {
            nature.ghost.require(20, harmed, || format!("{me} puts a checkpoint aside that nobody has harmed"));
            nature.mark(Mark::CheckpointRebuilt);
            nature.ghost.checkpoint_lost(me);
        }
        Ok(())
    }

    /// How far the checkpoint is that a new process would find.
    pub fn checkpoint_slot(&self, identity: &DirIdentity<MemoryFiles>) -> Slot {
        let state = Kv::with_sessions_at_most(self.sizes.sessions);
        let files = self.folder.checkpoint.fork();
        let opened = Checkpoint::open(files, identity.storage_id(), self.sizes.snapshot_bytes, state);
        opened.map_or(Slot(0), |(checkpoint, _)| checkpoint.mark().slot)
    }

    /// The acceptor that a new process would find, and whether something of its disk is lost; None if there never was
    /// one.
    pub fn read_disk(&self) -> Result<Option<(Acceptor, bool)>, StartRefusal> {
        let identity = self.folder.identity(self.owner(), self.storage)?;
        if !identity.has_journal() {
            return Ok(None);
        }
        let checkpoint = self.checkpoint_slot(&identity);
        let folder = DataDir::begin(self.folder.clone(), identity)?;
        let (_, recovered) = folder.open_journal(self.segment_bytes())?;
        let mut acceptor = Acceptor::new();
        for record in recovered.records {
            acceptor.replay(record);
        }
        Ok(Some((acceptor.with_checkpoint(checkpoint), !recovered.damage.is_empty())))
    }

    /// A life of a role begins, or waits for room. `down` is None at the start of the process.
    fn start_role(&mut self, nature: &mut SimEnv, role: RoleKind, down: Option<Duration>) -> Result<(), StartRefusal> {
        if let Some(process) = &mut self.process {
            process.lifecycle.begins(role, None);
            process.agenda.lives[role as usize].set(nature.new_life());
            // What comes while it reads its disk waits for it.
            process.set_open(role, true);
        }
        let begun = match role {
            RoleKind::Proposer => self.start_proposer(nature, down),
            RoleKind::Acceptor => self.start_acceptor(nature, down),
            RoleKind::Learner => self.start_learner(nature, down),
            RoleKind::Coordinator => self.start_coordinator(nature, down),
            RoleKind::Participant => self.start_participant(nature, down),
        };
        match begun {
            Err(RecoveryError::NoRoom(why)) => self.await_room(nature, role, &why),
            begun => begun?,
        }
        Ok(())
    }

    /// There is no room for what a life of a role begins with: it is tried again.
    fn await_room(&mut self, nature: &mut SimEnv, role: RoleKind, why: &str) {
        nature.mark(Mark::WaitedForRoom);
        let now = self.clock().at(nature.now());
        let Some((process, around)) = self.around(nature) else { return };
        let core = &process.core;
        match role {
            RoleKind::Proposer => found_no_room::<Proposer, _>(core, &around, why),
            RoleKind::Acceptor => found_no_room::<Acceptor, _>(core, &around, why),
            RoleKind::Learner => found_no_room::<Learner<Kv>, _>(core, &around, why),
            RoleKind::Coordinator => found_no_room::<Coordinator, _>(core, &around, why),
            RoleKind::Participant => found_no_room::<Participant, _>(core, &around, why),
        }
        process.lifecycle.ended(now, role);
        self.plan_restart(nature);
    }

    fn start_proposer(&mut self, nature: &mut SimEnv, down: Option<Duration>) -> Result<(), RecoveryError> {
        nature.ghost.died(self.me, RoleKind::Proposer, 0);
        let Some(process) = &mut self.process else { return Ok(()) };
        let (proposer, rounds) = recovery::proposer(&process.core, &process.folder, down)?;
        self.begin(nature, proposer, rounds);
        Ok(())
    }

    fn start_acceptor(&mut self, nature: &mut SimEnv, down: Option<Duration>) -> Result<(), RecoveryError> {
        if nature.chance(300) {
            self.recover_twice(nature);
        }
        let Some((process, around)) = self.around(nature) else { return Ok(()) };
        let (acceptor, journal) = recovery::acceptor(&process.core, &around, &process.folder, down)?;
        self.begin(nature, acceptor, journal);
        Ok(())
    }

    /// The checkpointer reads the state that it begins with. At the start of the process nobody does anything before.
    fn start_learner(&mut self, nature: &mut SimEnv, down: Option<Duration>) -> Result<(), RecoveryError> {
        let Some((process, around)) = self.around(nature) else { return Ok(()) };
        process.core.checkpoints.load();
        process.awaits_state = Some(down);
        if down.is_some() {
            around.wake_checkpointer();
            return Ok(());
        }
        let Some(checkpointer) = &mut process.checkpointer else { return Ok(()) };
        let loaded = checkpointer.run_one(&process.core, &around);
        match loaded? {
            Some(loaded) => self.begin_learner(nature, loaded),
            None => Ok(()),
        }
    }

    /// The state is there that a learner has waited for.
    fn begin_learner(&mut self, nature: &mut SimEnv, loaded: LoadedState) -> Result<(), RecoveryError> {
        let Some((process, around)) = self.around(nature) else { return Ok(()) };
        let Some(down) = process.awaits_state.take() else { return Ok(()) };
        let learner = recovery::learner(&process.core, &around, &process.folder, loaded, down)?;
        self.begin(nature, learner, NoStableStore);
        Ok(())
    }

    fn start_coordinator(&mut self, nature: &mut SimEnv, down: Option<Duration>) -> Result<(), RecoveryError> {
        let Some((process, around)) = self.around(nature) else { return Ok(()) };
        let (coordinator, log) = recovery::coordinator(&process.core, &around, &process.folder, down)?;
        self.begin(nature, coordinator, log);
        Ok(())
    }

    fn start_participant(&mut self, nature: &mut SimEnv, down: Option<Duration>) -> Result<(), RecoveryError> {
        let Some((process, around)) = self.around(nature) else { return Ok(()) };
        let (participant, log) = recovery::participant(&process.core, &around, &process.folder, down)?;
        self.begin(nature, participant, log);
        Ok(())
    }

    /// Recovery changes nothing that it finds: another one finds the same.
    fn recover_twice(&self, nature: &mut SimEnv) {
        let Some(process) = &self.process else { return };
        if !process.identity().has_journal() {
            return;
        }
        let copy = self.folder.fork();
        for files in copy.all() {
            // Whether there is room for another life is another matter, and a failure that was planned strikes the real
            // disk.
            files.set_capacity(None);
            files.fail_read(None);
            files.fail(u64::MAX / 2, InjectedFailure::Stop);
        }
        let durable = process.core.board.read().checkpoint;
        let recover = || {
            let identity = copy.identity(self.owner(), self.storage).ok()?;
            let folder = DataDir::begin(copy.clone(), identity).ok()?;
            let opened = folder.open_journal_beside(self.segment_bytes(), Some(durable.next()), LeftFree::default());
            let (_, recovered) = opened.ok()?;
            Some(recovered.records)
        };
        // Files that nobody needs may be gone by then, so what is known counts, and not what it was put together from.
        let known = |records: Vec<AcceptorRecord>| {
            let mut acceptor = Acceptor::new();
            records.into_iter().for_each(|record| acceptor.replay(record));
            // What the checkpoint has may be forgotten by then, and need not.
            acceptor.replay(AcceptorRecord::Truncated(durable.next()));
            acceptor.with_checkpoint(durable)
        };
        let Some(first) = recover() else { return };
        let same = recover().is_some_and(|second| known(second) == known(first));
        let me = self.me;
        nature.ghost.require(22, same, || format!("{me} recovers its journal twice, and differently"));
    }

    fn begin<R: Seated>(&mut self, nature: &mut SimEnv, role: R, disk: R::Disk) {
        let seed = nature.random.next();
        let Some((process, around)) = self.around_role(nature, R::NAME) else { return };
        let host = RoleHost::new(&process.core, &around, role, disk, Random::new(seed, R::NAME as u64));
        *R::place(process) = Some(Box::new(SimRole::new(host)));
        around.give_turn(R::NAME);
    }

    /// Brings a role back that is down, or as soon as it is.
    pub fn bring_back(&mut self, nature: &mut SimEnv, role: RoleKind) {
        let now = self.clock().at(nature.now());
        if let Some(process) = &mut self.process {
            process.lifecycle.restart_soon(now, role);
        }
        self.plan_restart(nature);
    }

    /// Somebody looks when the next role comes back.
    pub(super) fn plan_restart(&mut self, nature: &mut SimEnv) {
        let (now, clock, me) = (nature.now(), self.clock(), self.me);
        let Some(process) = &self.process else { return };
        let Some(due) = process.lifecycle.next_due() else { return };
        let at = clock.when(due).max(now);
        if process.agenda.restart_at.get().is_none_or(|planned| at < planned) {
            process.agenda.restart_at.set(Some(at));
            nature.after(at - now, SimEvent::Restart { server: me, process: process.number });
        }
    }

    /// Starts the roles that are to come back now.
    pub fn restart_due(&mut self, nature: &mut SimEnv, number: u64) -> Result<(), StartRefusal> {
        let now = self.clock().at(nature.now());
        if let Some(process) = &self.process {
            process.agenda.restart_at.set(None);
        }
        for role in self.protocol.roles() {
            let Some(process) = self.process.as_mut().filter(|process| process.number == number) else { return Ok(()) };
            if let Some(DueAction::Restart(down)) = process.lifecycle.take_due(now, *role) {
                self.start_role(nature, *role, Some(down))?;
            }
        }
        self.plan_restart(nature);
        Ok(())
    }

    /// The checkpointer has had the time that its next job takes.
    pub fn checkpointer_works(&mut self, nature: &mut SimEnv, number: u64) -> Result<(), StartRefusal> {
        let Some((process, around)) = self.around(nature).filter(|(process, _)| process.number == number) else {
            return Ok(());
        };
        let Some(checkpointer) = &mut process.checkpointer else { return Ok(()) };
        let done = checkpointer.run_one(&process.core, &around);
        around.agenda.is_checkpointing.set(false);
        if !process.core.checkpoints.is_empty() {
            around.wake_checkpointer();
        }
        match done {
            Ok(None) => {}
            Ok(Some(loaded)) => match self.begin_learner(nature, loaded) {
                Err(RecoveryError::NoRoom(why)) => self.await_room(nature, RoleKind::Learner, &why),
                begun => begun?,
            },
            Err(fatal) => process.fatal = Some(fatal.0),
        }
        Ok(())
    }

    /// The process dies: a checkpoint under way stops after some of its operations.
    pub(super) fn interrupt_checkpointer(&mut self, nature: &mut SimEnv) {
        let files = self.folder.checkpoint.clone();
        let Some((process, around)) = self.around(nature) else { return };
        let Some(checkpointer) = process.checkpointer.as_mut().filter(|_| process.core.checkpoints.awaits_write())
        else {
            return;
        };
        let operation = around.nature.borrow_mut().random.within(0..=12);
        files.fail(operation, InjectedFailure::Stop);
        around.nature.borrow_mut().mark(Mark::KilledInCheckpoint);
        // Whatever comes of it, nobody is there to hear.
        drop(checkpointer.run_one(&process.core, &around));
    }

    /// It says to every other server that it is there, again and again.
    pub fn says_that_it_is_there(&mut self, nature: &mut SimEnv, number: u64) {
        let others = self.cluster.without(ServerSet::only(self.me));
        let Some((process, around)) = self.around(nature).filter(|(process, _)| process.number == number) else {
            return;
        };
        process.core.send(&around, others, PeerMessage::Here, TraceContext::default());
        around.flush_peers();
        let (again, server) = (around.clock.takes(SAYS_EVERY), around.me);
        around.nature.borrow_mut().after(again, SimEvent::Here { server, process: number });
    }

    /// Bytes from a client. False if they are no request that an honest client sends: then the connection is closed.
    pub fn hear_client(&mut self, nature: &mut SimEnv, client: usize, bytes: &[u8]) -> bool {
        let Ok(request) = unframe::<ClientRequest>(bytes, CLIENT_FRAME_MAX_BYTES) else { return false };
        let Some((process, around)) = self.around(nature) else { return true };
        let connection = SimConnection::new(client, process.core.load.clone());
        let is_taken = process.core.request(&around, &connection, request, bytes.len()).is_ok();
        process.core.flush_replies(&around);
        if is_taken {
            let patience = around.clock.takes(PATIENCE);
            let event = SimEvent::Patience { server: around.me, process: process.number };
            around.nature.borrow_mut().after(patience, event);
        }
        self.take_orders(nature);
        is_taken
    }

    fn take_orders(&mut self, nature: &mut SimEnv) {
        let now = self.clock().at(nature.now());
        let orders = self.process.as_ref().map_or(Vec::new(), |process| process.agenda.orders.take());
        for order in orders {
            let Some(process) = &mut self.process else { return };
            match order {
                LabRequest::Crash { role, down } => {
                    let order = process.lifecycle.crash_by_hand(now, role, down);
                    order.into_iter().for_each(|order| self.give(nature, role, order));
                    self.plan_restart(nature);
                }
                LabRequest::Restart { role } => self.bring_back(nature, role),
                // Only the operator of a real process gives this one.
                LabRequest::Stop => {}
            }
        }
    }

    /// Some have waited long enough.
    pub fn lose_patience(&mut self, nature: &mut SimEnv, number: u64) {
        if self.process.as_ref().is_some_and(|process| process.number == number) {
            self.with_core(nature, |core, around| core.expire(around));
        }
    }

    /// Bytes from a peer. False if they are no message: then the connection is closed.
    pub fn hear_peer(&mut self, nature: &mut SimEnv, from: ServerId, bytes: &[u8]) -> bool {
        let Ok(envelope) = unframe::<Envelope>(bytes, PEER_FRAME_MAX_BYTES) else { return false };
        nature.note(&(from, self.me, &envelope.message));
        if let PeerMessage::Paxos(message) = &envelope.message {
            self.note_message(nature, message);
        }
        self.with_core(nature, |core, around| {
            core.linked.hears(from, crate::host::Env::now(around));
            core.deliver(around, from, envelope);
        });
        true
    }

    /// Leaves the marks of a message that arrives.
    fn note_message(&self, nature: &mut SimEnv, message: &Message) {
        match message {
            Message::Entries { entries, applied } => {
                let Some((mine, _)) = self.applied() else { return };
                if entries.iter().any(|entry| entry.slot == mine.next()) {
                    nature.mark(Mark::LearnedByEntries);
                    if entries.last().is_some_and(|last| last.slot < *applied) {
                        nature.mark(Mark::EntriesInParts);
                    }
                }
            }
            Message::Promise { page, .. } if page.to.is_some() => nature.mark(Mark::PromiseInPages),
            Message::Snapshot(part) if self.applied().is_some_and(|(applied, _)| part.slot <= applied) => {
                nature.mark(Mark::SnapshotOvertaken);
            }
            _ => {}
        }
    }

    /// Whether its server takes part by what is on its disk, whether or not it runs.
    pub fn takes_part(&self) -> bool {
        self.claim().is_some_and(|claim| claim.takes_part)
    }

    /// What it says of itself to a peer, or has said before it died: its words may still be on the way. What is on the
    /// disk of a process that died in the middle of its start nobody has said, and a power cut may take it away again.
    pub fn claim(&self) -> Option<Claim> {
        let Some(process) = &self.process else {
            // It may have another folder by now, and has said nothing of that.
            return self.last_claim.filter(|claim| claim.storage == self.storage);
        };
        let identity = process.folder.identity();
        let (storage, life) = (identity.storage_id(), identity.life());
        Some(Claim { server: self.me, storage, life, boot: self.boot, takes_part: identity.takes_part(), knows: None })
    }

    /// The first line: what this process is, and what it found on its disk.
    fn tell_boot(&self) {
        let Some(process) = self.process.as_ref().filter(|process| process.core.trace.steps()) else { return };
        let acceptor = process.acceptor.as_ref().map(|living| living.role());
        let promised = acceptor.map(|role| role.promised()).filter(|ballot| ballot.round > 0);
        process.core.line(
            Speaker::Server,
            &TraceContext::default(),
            LineEvent::Boot {
                version: QuotedText::new(env!("CARGO_PKG_VERSION")),
                cluster: self.cluster,
                protocol: Some(QuotedText::new(self.protocol.name())),
                seed: None,
                fail: Some(QuotedText::new("simulated")),
                mean_up: None,
                mean_down: None,
                restart: Some(if self.forgets { RestartMode::Lost } else { RestartMode::Disk }),
                data: None,
                steps: Some(QuotedText::new("on")),
                life: Some(process.folder.life()),
                applied: self.applied().map(|(slot, _)| slot),
                digest: self.applied().map(|(_, digest)| Digest(digest)),
                promised: Some(MaybeBallot(promised)),
                accepted: acceptor.map(|role| role.accepted().len() as u64),
                history: process.learner.as_ref().map(|learner| HistoryName::of(learner.role().machine().history())),
                disk: DiskName::new(&short_disk(process.folder.storage_id())),
            },
        );
    }

    /// The process is gone: its lines stay, and whoever waited has lost the connection.
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

/// The world begins on a day that is easy to remember.
pub fn time_of(now: Micros) -> Timestamp {
    let begin = Timestamp::from_second(1_767_225_600).unwrap_or(Timestamp::UNIX_EPOCH);
    begin.saturating_add(SignedDuration::from_micros(now as i64)).unwrap_or(begin)
}
