//! The scheduler of a simulated server: runs its roles in turns, as threads do in a real server.
//!
//! A turn takes no virtual time except for its sync, which ends with an event of its own. The work of a turn is done by
//! the real [`RoleHost`].

use std::fmt::{Debug, Display};

use super::coverage::CoveragePoint;
use super::data_dir::SimDirPart;
use super::env::{Micros, RoleInstance, SimEnv, SimEvent};
use super::process_env::ProcessEnv;
use super::server::{SimProcess, SimServer};
use paxos_kv::host::role_disk::{RoleDisk, RoleJournal};
use paxos_kv::host::{CrashRequest, Hosted, MailboxItem, RoleHost, RunEnd, TurnStart};
use paxos_kv::kv::Kv;
use paxos_kv::paxos::{Acceptor, AcceptorRecord, Learner, Proposer};
use paxos_kv::role::{NoStableStore, Released, RoleKind, ServerId, Stepped};
use paxos_kv::storage::BallotStore;
use paxos_kv::storage::disk::{InjectedFailure, MemoryFiles};
use paxos_kv::trace::{CrashPoint, TraceContext};
use paxos_kv::two_phase_commit::{Coordinator, CoordinatorRecord, Participant, ParticipantRecord};

/// One incarnation of a role.
pub struct SimRole<R: SimHosted> {
    /// The real host that runs the role.
    pub host: RoleHost<R, R::Disk>,
    /// The batch that waits for its sync.
    pub syncing: Option<Stepped<TraceContext, R>>,
    /// The last moment for which a wake-up was scheduled.
    wakes_at: Option<Micros>,
}

impl<R: SimHosted> SimRole<R> {
    /// Starts an incarnation.
    pub fn new(host: RoleHost<R, R::Disk>) -> SimRole<R> {
        SimRole { host, syncing: None, wakes_at: None }
    }

    /// Whether a wake-up by timer is certain.
    pub fn wakes_after(&self, now: Micros) -> bool {
        self.wakes_at.is_some_and(|at| at >= now)
    }

    /// The state of the role.
    pub fn role(&self) -> &R {
        self.host.role()
    }
}

/// A role that a simulated server can run.
pub trait SimHosted: Hosted {
    /// The type of its stable storage.
    type Disk: RoleDisk<Self::Record, Error: Display>;
    /// The part of the data directory that its stable storage uses.
    const PART: SimDirPart;

    /// Where the process keeps the role.
    fn role_of(process: &mut SimProcess) -> &mut Option<Box<SimRole<Self>>>;

    /// Reports to the oracle that a batch is durable.
    fn durable(_sim_env: &mut SimEnv, _server: ServerId, _records: &[Self::Record]) {}

    /// Reports to the oracle that a crash hit while a batch was being written.
    fn in_doubt(_sim_env: &mut SimEnv, _server: ServerId, _records: Vec<Self::Record>) {}
}

impl SimHosted for Proposer {
    type Disk = BallotStore<MemoryFiles>;
    const PART: SimDirPart = SimDirPart::Top;

    fn role_of(process: &mut SimProcess) -> &mut Option<Box<SimRole<Proposer>>> {
        &mut process.proposer
    }
}

impl SimHosted for Acceptor {
    type Disk = RoleJournal<MemoryFiles, AcceptorRecord>;
    const PART: SimDirPart = SimDirPart::Journal;

    fn role_of(process: &mut SimProcess) -> &mut Option<Box<SimRole<Acceptor>>> {
        &mut process.acceptor
    }

    fn durable(sim_env: &mut SimEnv, server: ServerId, records: &[AcceptorRecord]) {
        sim_env.oracle.durable(server, records, &mut sim_env.coverage);
    }

    fn in_doubt(sim_env: &mut SimEnv, server: ServerId, records: Vec<AcceptorRecord>) {
        sim_env.oracle.in_doubt(server, records);
    }
}

impl SimHosted for Learner<Kv> {
    type Disk = NoStableStore;
    const PART: SimDirPart = SimDirPart::Checkpoint;

    fn role_of(process: &mut SimProcess) -> &mut Option<Box<SimRole<Learner<Kv>>>> {
        &mut process.learner
    }
}

impl SimHosted for Coordinator {
    type Disk = RoleJournal<MemoryFiles, CoordinatorRecord>;
    const PART: SimDirPart = SimDirPart::Coordinator;

    fn role_of(process: &mut SimProcess) -> &mut Option<Box<SimRole<Coordinator>>> {
        &mut process.coordinator
    }

    fn durable(sim_env: &mut SimEnv, server: ServerId, records: &[CoordinatorRecord]) {
        sim_env.oracle.coordinator_durable(server, records);
    }
}

impl SimHosted for Participant {
    type Disk = RoleJournal<MemoryFiles, ParticipantRecord>;
    const PART: SimDirPart = SimDirPart::Journal;

    fn role_of(process: &mut SimProcess) -> &mut Option<Box<SimRole<Participant>>> {
        &mut process.participant
    }

    fn durable(sim_env: &mut SimEnv, server: ServerId, records: &[ParticipantRecord]) {
        sim_env.oracle.participant_durable(server, records);
    }

    fn in_doubt(sim_env: &mut SimEnv, server: ServerId, records: Vec<ParticipantRecord>) {
        sim_env.oracle.participant_in_doubt(server, records);
    }
}

/// Calls a generic function for a role that is only known at run time.
macro_rules! of_role {
    ($role:expr, $server:ident . $function:ident ( $($argument:expr),* )) => {
        match $role {
            RoleKind::Proposer => $server.$function::<Proposer>($($argument),*),
            RoleKind::Acceptor => $server.$function::<Acceptor>($($argument),*),
            RoleKind::Learner => $server.$function::<Learner<Kv>>($($argument),*),
            RoleKind::Coordinator => $server.$function::<Coordinator>($($argument),*),
            RoleKind::Participant => $server.$function::<Participant>($($argument),*),
        }
    };
}

impl SimServer {
    /// One of a role's timers may have run out.
    pub fn wake(&mut self, sim_env: &mut SimEnv, instance: RoleInstance) {
        of_role!(instance.role, self.wake_role(sim_env, instance));
    }

    /// Gives a turn to a role that does not wait for its disk, after a pause or a change of its clock.
    pub fn resume(&mut self, sim_env: &mut SimEnv, role: RoleKind) {
        of_role!(role, self.resume_role(sim_env));
    }

    /// A role has the processor.
    pub fn has_turn(&mut self, sim_env: &mut SimEnv, instance: RoleInstance) {
        of_role!(instance.role, self.turn(sim_env, instance));
    }

    /// The sync of a role has ended.
    pub fn has_synced(&mut self, sim_env: &mut SimEnv, instance: RoleInstance) {
        of_role!(instance.role, self.synced(sim_env, instance));
    }

    /// The names of a role's armed timers.
    pub fn armed(&self, role: RoleKind) -> Vec<String> {
        fn names<R: SimHosted>(sim_role: &Option<Box<SimRole<R>>>) -> Vec<String> {
            sim_role.iter().flat_map(|one| one.host.armed().map(timer_name)).collect()
        }
        let Some(process) = &self.process else { return Vec::new() };
        match role {
            RoleKind::Proposer => names(&process.proposer),
            RoleKind::Acceptor => names(&process.acceptor),
            RoleKind::Learner => names(&process.learner),
            RoleKind::Coordinator => names(&process.coordinator),
            RoleKind::Participant => names(&process.participant),
        }
    }

    /// Lets a role's timer with this name run out now; returns whether it was armed.
    pub fn run_out(&mut self, sim_env: &mut SimEnv, role: RoleKind, name: &str) -> bool {
        of_role!(role, self.run_out_role(sim_env, name))
    }

    fn run_out_role<R: SimHosted>(&mut self, sim_env: &mut SimEnv, name: &str) -> bool {
        let Some((process, env)) = self.env(sim_env) else { return false };
        let Some(sim_role) = R::role_of(process) else { return false };
        if !sim_role.host.run_out(|timer| timer_name(timer) == name) {
            return false;
        }
        R::mailbox(&process.core).lock().is_waiting = false;
        env.schedule_turn(R::NAME);
        true
    }

    /// Crashes a role, now or at a point of its next turn. For a role that is already down, changes the time of its
    /// restart.
    pub fn crash(&mut self, sim_env: &mut SimEnv, role: RoleKind, request: CrashRequest) {
        let now = self.clock().at(sim_env.now());
        let order = self.process.as_mut().and_then(|process| process.lifecycle.crash(now, role, request));
        order.into_iter().for_each(|order| self.enqueue_crash(sim_env, role, order));
        self.plan_restart(sim_env);
    }

    /// Gives a role its request to crash.
    pub(super) fn enqueue_crash(&mut self, sim_env: &mut SimEnv, role: RoleKind, request: CrashRequest) {
        of_role!(role, self.order(sim_env, request));
    }

    fn order<R: SimHosted>(&mut self, sim_env: &mut SimEnv, order: CrashRequest) {
        self.with_core(sim_env, |core, env| {
            // A role that cannot take the request is about to end anyway.
            let _ = core.enqueue_control::<R, _>(env, MailboxItem::Crash(order));
        });
    }

    fn wake_role<R: SimHosted>(&mut self, sim_env: &mut SimEnv, instance: RoleInstance) {
        let Some((process, env)) = self.env(sim_env) else { return };
        if env.role_instance(R::NAME) != instance || R::role_of(process).is_none() || env.is_paused {
            return;
        }
        // If its mailbox woke the role meanwhile, a turn is scheduled already.
        if std::mem::replace(&mut R::mailbox(&process.core).lock().is_waiting, false) {
            env.schedule_turn(R::NAME);
        }
    }

    fn resume_role<R: SimHosted>(&mut self, sim_env: &mut SimEnv) {
        let Some((process, env)) = self.env(sim_env) else { return };
        if R::role_of(process).as_ref().is_some_and(|sim_role| sim_role.syncing.is_none()) {
            R::mailbox(&process.core).lock().is_waiting = false;
            env.schedule_turn(R::NAME);
        }
    }

    fn turn<R: SimHosted>(&mut self, sim_env: &mut SimEnv, instance: RoleInstance) {
        let Some((process, env)) = self.role_env(sim_env, R::NAME) else { return };
        let awaits = &env.agenda.awaits_turn[R::NAME as usize];
        if env.is_paused || env.role_instance(R::NAME) != instance || !awaits.get() {
            return;
        }
        let Some(mut sim_role) = R::role_of(process).take().filter(|sim_role| sim_role.syncing.is_none()) else {
            return;
        };
        awaits.set(false);
        match sim_role.host.begin(&process.core, &env) {
            TurnStart::Idle => schedule_next(process, &env, sim_role),
            TurnStart::Ended(ended) => {
                *R::role_of(process) = Some(sim_role);
                self.end_incarnation::<R>(sim_env, &ended);
            }
            TurnStart::Group(group) if group.records().is_empty() => self.finish(sim_env, sim_role, group),
            TurnStart::Group(group) => {
                sim_role.syncing = Some(group);
                let mut sim_env = env.sim_env.borrow_mut();
                sim_env.counts.syncs += 1;
                let delay = sim_env.random_time(&env.sync);
                sim_env.schedule(delay, SimEvent::Synced { role: instance });
                *R::role_of(process) = Some(sim_role);
            }
        }
    }

    fn synced<R: SimHosted>(&mut self, sim_env: &mut SimEnv, instance: RoleInstance) {
        let Some((process, env)) = self.env(sim_env) else { return };
        if env.role_instance(R::NAME) != instance {
            return;
        }
        let Some(mut sim_role) = R::role_of(process).take() else { return };
        match sim_role.syncing.take() {
            Some(group) => self.finish(sim_env, sim_role, group),
            None => *R::role_of(process) = Some(sim_role),
        }
    }

    /// Makes a batch durable, and then releases its actions.
    fn finish<R: SimHosted>(
        &mut self,
        sim_env: &mut SimEnv,
        mut sim_role: Box<SimRole<R>>,
        group: Stepped<TraceContext, R>,
    ) {
        let committed = commit(sim_env, self.me, &mut sim_role, group);
        let Some((process, env)) = self.role_env(sim_env, R::NAME) else { return };
        match committed {
            Ok(released) => {
                sim_role.host.release(&process.core, &env, released);
                schedule_next(process, &env, sim_role);
                self.check_bounds(sim_env);
            }
            Err(ended) => {
                *R::role_of(process) = Some(sim_role);
                self.end_incarnation::<R>(sim_env, &ended);
            }
        }
    }

    /// Ends an incarnation of a role.
    fn end_incarnation<R: SimHosted>(&mut self, sim_env: &mut SimEnv, ended: &RunEnd) {
        let me = self.me;
        let Some((process, env)) = self.env(sim_env) else { return };
        let Some(mut sim_role) = R::role_of(process).take() else { return };
        if let RunEnd::Fatal(fatal) = ended {
            process.fatal = Some(fatal.0.clone());
            *R::role_of(process) = Some(sim_role);
            return;
        }
        sim_role.host.on_crash(&process.core, &env, ended);
        let (now, place) = (env.clock.at(env.sim_env.borrow().now()), env.role_instance(R::NAME));
        process.lifecycle.ended(now, R::NAME);
        drop(env);
        sim_env.oracle.role_crashed(me, R::NAME, place.incarnation);
        sim_env.reach(match ended {
            RunEnd::NoSpace(_) => CoveragePoint::JournalFull,
            RunEnd::Crashed(order) if order.point == CrashPoint::BeforeSync => CoveragePoint::CrashBeforeSync,
            RunEnd::Crashed(order) if order.point == CrashPoint::BeforeSend => CoveragePoint::CrashBeforeSend,
            _ => CoveragePoint::CrashBeforeStep,
        });
        sim_env.reach(match R::NAME {
            RoleKind::Acceptor => CoveragePoint::AcceptorCrashed,
            RoleKind::Proposer => CoveragePoint::ProposerCrashed,
            RoleKind::Learner => CoveragePoint::LearnerCrashed,
            RoleKind::Coordinator => CoveragePoint::CoordinatorCrashed,
            RoleKind::Participant => CoveragePoint::ParticipantCrashed,
        });
        self.plan_restart(sim_env);
    }

    /// The process crashes during its work: a commit in progress stops after some of its disk operations.
    pub fn interrupt(&mut self, sim_env: &mut SimEnv) {
        self.interrupt_role::<Proposer>(sim_env);
        self.interrupt_role::<Acceptor>(sim_env);
        self.interrupt_role::<Participant>(sim_env);
        self.interrupt_role::<Coordinator>(sim_env);
        self.interrupt_checkpointer(sim_env);
    }

    fn interrupt_role<R: SimHosted>(&mut self, sim_env: &mut SimEnv) {
        let (me, dir) = (self.me, self.dir.clone());
        let Some((process, env)) = self.env(sim_env) else { return };
        let Some(mut sim_role) = R::role_of(process).take() else { return };
        let Some(group) = sim_role.syncing.take() else { return };
        let mut sim_env = env.sim_env.borrow_mut();
        dir.fail(R::PART, sim_env.random.within(0..=2), InjectedFailure::Stop);
        sim_env.reach(CoveragePoint::KilledInCommit);
        let Ok(mut released) = commit(*sim_env, me, &mut sim_role, group) else { return };
        // Some of the actions may have left before the crash.
        let left = sim_env.random.within(0..=released.len() as u64) as usize;
        drop(sim_env);
        if left > 0 {
            env.sim_env.borrow_mut().reach(CoveragePoint::PartOfASend);
            released.keep_first(left);
            sim_role.host.release(&process.core, &env, released);
        }
    }
}

/// The name of a timer without its fields: `Attempt`.
fn timer_name(timer: &impl Debug) -> String {
    let shown = format!("{timer:?}");
    shown.split([' ', '(', '{']).next().unwrap_or_default().to_string()
}

/// Makes a batch durable, and reports the result to the oracle.
fn commit<R: SimHosted>(
    sim_env: &mut SimEnv,
    me: ServerId,
    sim_role: &mut SimRole<R>,
    group: Stepped<TraceContext, R>,
) -> Result<Released<TraceContext, R>, RunEnd> {
    let records = group.records().to_vec();
    let committed = sim_role.host.commit(group);
    match &committed {
        // A role that crashes before it sends has made its records durable already.
        Ok(_) | Err(RunEnd::Crashed(_)) => R::durable(sim_env, me, &records),
        Err(_) => R::in_doubt(sim_env, me, records),
    }
    committed
}

/// Lets a role that has finished its work sleep until the next input or timer.
fn schedule_next<R: SimHosted>(process: &mut SimProcess, env: &ProcessEnv<'_>, mut sim_role: Box<SimRole<R>>) {
    let now = env.sim_env.borrow().now();
    let due = sim_role.host.due().map(|due| env.clock.when(due));
    let has_mail = {
        let mut queue = R::mailbox(&process.core).lock();
        let has_mail = !queue.is_empty() || due.is_some_and(|due| due <= now);
        queue.is_waiting = !has_mail;
        has_mail
    };
    if has_mail {
        env.schedule_turn(R::NAME);
    } else if let Some(due) = due.filter(|due| sim_role.wakes_at.is_none_or(|at| at <= now || *due < at)) {
        sim_role.wakes_at = Some(due);
        env.sim_env.borrow_mut().schedule(due - now, SimEvent::Wake { role: env.role_instance(R::NAME) });
    }
    *R::role_of(process) = Some(sim_role);
}
