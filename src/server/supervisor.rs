//! The supervisor: starts the roles, crashes them at seeded random times, and restarts them.
//!
//! A crash is real: the role's thread ends, with its memory and its mailbox. The supervisor joins that thread before a
//! new thread opens the same disk, and the new thread has only the state on the disk. [`Lifecycle`] makes the
//! decisions; this module runs the threads.
//!
//! The supervisor itself never waits for a role. A role that is slow to end, or to read its disk, delays neither the
//! other roles nor the end of the server.

use std::fmt::Display;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::clock;
use super::context::ServerContext;
use super::delayed_disk::Slowed;
use super::options::ServerOptions;
use super::peers::set_cut;
use super::role_thread::run;
use crate::host::lifecycle::{DueAction, Lifecycle};
use crate::host::role_disk::RoleDisk;
use crate::host::role_host::{close_role, on_no_space};
use crate::host::{
    CrashRequest, Hosted, LabRequest, MailboxItem, RecoveryError, RoleHost, RunEnd, SendError, recovery,
};
use crate::kv::Kv;
use crate::paxos::{Acceptor, Learner, Proposer};
use crate::random::Random;
use crate::role::{NoStableStore, Role, RoleKind};
use crate::storage::DataDir;
use crate::trace::{CrashCause, CrashPoint, Speaker};
use crate::two_phase_commit::{Coordinator, Participant};

/// Maximum number of queued lab requests; more are refused.
const ORDERS_MAX: usize = 64;
/// Grace period on shutdown, in which the roles finish their queued items. A role may hang, for example in a disk that
/// does not answer; it ends with the process, and a crash loses nothing either.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Period of the lines about counted events.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// A handle to give lab requests to the supervisor.
#[derive(Clone)]
pub struct LabHandle(Sender<LabRequest>);

impl LabHandle {
    /// Gives a request; the supervisor handles it after the earlier ones.
    pub fn send(&self, request: LabRequest) -> Result<(), String> {
        self.0.try_send(request).map_err(|_| "too many lab requests are queued; try again".to_string())
    }

    /// Makes the supervisor end the roles and itself. Waits for room in its queue; false if there is none in time.
    pub fn stop(&self, within: Duration) -> bool {
        self.0.send_timeout(LabRequest::Stop, within).is_ok()
    }
}

/// Starts and restarts the roles of one server.
pub struct Supervisor {
    ctx: Arc<ServerContext>,
    data_dir: Arc<DataDir>,
    seed: u64,
    lab_requests: Receiver<LabRequest>,
    /// The roles whose thread has just ended.
    ended: Receiver<RoleKind>,
    ended_sender: Sender<RoleKind>,
    lifecycle: Lifecycle,
    entries: [RoleEntry; RoleKind::ALL.len()],
}

/// The supervisor's data about one role.
struct RoleEntry {
    /// Draws the failures of this role.
    random: Random,
    thread: Option<JoinHandle<()>>,
    incarnations: u64,
}

/// The result of a role's first start in this process. Waiting for disk space is not an error; an error is a reason not
/// to start the server.
type StartResult = Sender<Result<(), String>>;

impl Supervisor {
    /// A supervisor whose roles have not started yet.
    pub fn new(ctx: Arc<ServerContext>, data_dir: Arc<DataDir>, seed: u64) -> (Supervisor, LabHandle) {
        let (sender, orders) = bounded(ORDERS_MAX);
        // Each role has one thread at a time, so there is always room for its end.
        let (farewell, ended) = bounded(RoleKind::ALL.len());
        let me = ctx.core.config.me.0;
        let entries =
            RoleKind::ALL.map(|role| RoleEntry { random: failures_of(me, role, seed), thread: None, incarnations: 0 });
        let lifecycle = Lifecycle::new(clock::now());
        (
            Supervisor { ctx, data_dir, seed, lab_requests: orders, ended, ended_sender: farewell, lifecycle, entries },
            LabHandle(sender),
        )
    }

    /// Starts the roles, one after the other. Roles with stable storage come first: no answer may show less than their
    /// disks hold.
    pub fn start(&mut self) -> Result<(), String> {
        for role in self.roles().iter().copied() {
            let (started, begins) = bounded(1);
            self.start_role(role, None, started).map_err(|error| no_thread(role, &error))?;
            begins.recv().unwrap_or_else(|_| Err(format!("the {} did not start", name_of(role))))?;
        }
        Ok(())
    }

    /// Waits for failures, restarts and lab requests until a request to stop.
    pub fn run(mut self) {
        let mut next_count = clock::now() + COUNT_EVERY;
        let (orders, ended) = (self.lab_requests.clone(), self.ended.clone());
        loop {
            let due = self.lifecycle.next_due().map_or(next_count, |due| due.min(next_count));
            select! {
                recv(orders) -> request => match request {
                    Ok(LabRequest::Crash { role, down }) => {
                        let request = self.lifecycle.on_crash_request(clock::now(), role, down);
                        request.into_iter().for_each(|request| send_control(&self.ctx, role, ControlMessage::Crash(request)));
                    }
                    Ok(LabRequest::Restart { role }) => self.lifecycle.restart_soon(clock::now(), role),
                    Ok(LabRequest::Cut { peer }) => set_cut(&self.ctx, peer, true),
                    Ok(LabRequest::Join { peer }) => set_cut(&self.ctx, peer, false),
                    Ok(LabRequest::Stop) | Err(_) => return self.stop(),
                },
                recv(ended) -> role => role.iter().for_each(|role| self.join_role(*role)),
                default(clock::instant(due).saturating_duration_since(Instant::now())) => {}
            }
            let now = clock::now();
            for role in self.roles().iter().copied() {
                match self.lifecycle.take_due(now, role) {
                    Some(DueAction::Crash(request)) => send_control(&self.ctx, role, ControlMessage::Crash(request)),
                    Some(DueAction::Restart(down)) => self.restart(role, down),
                    None => {}
                }
            }
            if now >= next_count {
                self.ctx.core.report_counts();
                next_count = now + COUNT_EVERY;
            }
        }
    }

    fn roles(&self) -> &'static [RoleKind] {
        self.ctx.core.config.protocol.roles()
    }

    /// A role's thread has ended.
    fn join_role(&mut self, role: RoleKind) {
        if self.entries[role as usize].thread.take().is_some_and(|thread| thread.join().is_err()) {
            self.ctx.fatal(&format!("the thread of the {} panicked", name_of(role)));
        }
        self.lifecycle.ended(clock::now(), role);
    }

    fn restart(&mut self, role: RoleKind, down: Duration) {
        // No thread waits for the result: an incarnation that cannot begin stops the process itself.
        let (started, _) = bounded(1);
        if let Err(error) = self.start_role(role, Some(down), started) {
            self.ctx.trace_fault(name_of(role), "no thread", &no_thread(role, &error));
            self.lifecycle.did_not_begin(clock::now(), role);
        }
    }

    /// Lets every role finish its queued items, and waits until all have ended or the grace period is over.
    fn stop(&mut self) {
        stop_roles(&self.ctx);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.entries.iter().any(|entry| entry.thread.is_some()) {
            let Ok(role) = self.ended.recv_deadline(deadline) else { return };
            self.join_role(role);
        }
    }

    /// Starts the thread of a role. `down` is None at the start of the process.
    fn start_role(&mut self, role: RoleKind, down: Option<Duration>, started: StartResult) -> std::io::Result<()> {
        let (ctx, data_dir) = (self.ctx.clone(), self.data_dir.clone());
        let thread = match role {
            RoleKind::Proposer => self.spawn(started, down, move || recovery::proposer(&ctx.core, &data_dir, down))?,
            RoleKind::Acceptor => self.spawn(started, down, move || {
                let (acceptor, journal) = recovery::acceptor(&ctx.core, &ctx.threads, &data_dir, down)?;
                Ok((acceptor, Slowed { disk: journal, by: ctx.options.sync_delay }))
            })?,
            RoleKind::Learner => self.spawn::<Learner<Kv>, _>(started, down, move || {
                let learner = recovery::learner(&ctx.core, &ctx.threads, &data_dir, ctx.load(), down)?;
                Ok((learner, NoStableStore))
            })?,
            RoleKind::Coordinator => {
                self.spawn(started, down, move || recovery::coordinator(&ctx.core, &ctx.threads, &data_dir, down))?
            }
            RoleKind::Participant => {
                self.spawn(started, down, move || recovery::participant(&ctx.core, &ctx.threads, &data_dir, down))?
            }
        };
        let options = &self.ctx.options;
        let entry = &mut self.entries[role as usize];
        let fails = draw_failure(&mut entry.random, options, role).map(|(up, request)| (clock::now() + up, request));
        entry.incarnations += 1;
        entry.thread = Some(thread);
        self.lifecycle.begins(role, fails);
        Ok(())
    }

    /// Starts the thread of an incarnation: it recovers the role from its disk, runs it, and reports its end.
    fn spawn<R, D>(
        &self,
        started: StartResult,
        down: Option<Duration>,
        recover: impl FnOnce() -> Result<(R, D), RecoveryError> + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>>
    where
        R: Hosted,
        D: RoleDisk<R::Record, Error: Display> + Send + 'static,
    {
        let incarnations = self.entries[R::NAME as usize].incarnations;
        let me = self.ctx.core.config.me.0;
        let random = Random::new(self.seed, u64::from(me) << 40 | (R::NAME as u64) << 32 | incarnations);
        let (ctx, ended) = (self.ctx.clone(), self.ended_sender.clone());
        // Mail that arrives while the role reads its disk stays in the mailbox.
        R::mailbox(&ctx.core).open();
        let incarnation = move || {
            let _farewell = ExitGuard { name: R::NAME, ended };
            let core = &ctx.core;
            let (role, disk) = match recover() {
                Ok(revived) => revived,
                Err(RecoveryError::NoSpace(why)) => {
                    on_no_space::<R, _>(core, &ctx.threads, &why);
                    // The other roles need not wait for it.
                    return drop(started.send(Ok(())));
                }
                // The thread that requested the first start waits for this, and ends the process.
                Err(RecoveryError::Failed(why) | RecoveryError::Broken(why)) if down.is_none() => {
                    R::mailbox(core).close();
                    return drop(started.send(Err(why)));
                }
                Err(RecoveryError::Failed(why) | RecoveryError::Broken(why)) => ctx.fatal(&why),
            };
            let host = RoleHost::new(core, &ctx.threads, role, disk, random);
            let _ = started.send(Ok(()));
            if let RunEnd::Fatal(fatal) = run(host, core, &ctx.threads) {
                ctx.fatal(&fatal.0);
            }
        };
        let spawned = self.ctx.threads.group.spawn(name_of(R::NAME), incarnation);
        if spawned.is_err() {
            close_role::<R, _>(&self.ctx.core, &self.ctx.threads);
        }
        spawned
    }
}

/// Reports the end of a role's thread, however it ends.
struct ExitGuard {
    name: RoleKind,
    ended: Sender<RoleKind>,
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        // There is no receiver if the supervisor has ended.
        let _ = self.ended.send(self.name);
    }
}

/// The random stream of a role's failures: it depends only on the seed, the server and the role.
fn failures_of(server: u8, role: RoleKind, seed: u64) -> Random {
    Random::new(seed, u64::from(server) << 8 | role as u64)
}

/// Draws when and how the next incarnation of a role fails, if it fails at all.
fn draw_failure(random: &mut Random, options: &ServerOptions, role: RoleKind) -> Option<(Duration, CrashRequest)> {
    let (up, down) = (random.around(options.mean_up), random.around(options.mean_down));
    let points = [CrashPoint::BeforeStep, CrashPoint::BeforeSync, CrashPoint::BeforeSend];
    let point = points[random.within(0..=2) as usize];
    let request = CrashRequest { point, cause: CrashCause::Timer, down: Some(down) };
    options.fail.includes(role).then_some((up, request))
}

/// Tells every role to finish its queued items and to end.
pub fn stop_roles(ctx: &ServerContext) {
    for role in ctx.core.config.protocol.roles().iter().rev().copied() {
        send_control(ctx, role, ControlMessage::Stop);
    }
}

/// A control message from the supervisor to a role.
#[derive(Clone, Copy)]
enum ControlMessage {
    Crash(CrashRequest),
    Stop,
}

/// Gives a role its control message. A role that is down does not need it; a role that cannot take it is about to end.
fn send_control(ctx: &ServerContext, role: RoleKind, message: ControlMessage) {
    let told = match role {
        RoleKind::Proposer => request::<Proposer>(ctx, message),
        RoleKind::Acceptor => request::<Acceptor>(ctx, message),
        RoleKind::Learner => request::<Learner<Kv>>(ctx, message),
        RoleKind::Coordinator => request::<Coordinator>(ctx, message),
        RoleKind::Participant => request::<Participant>(ctx, message),
    };
    let _: Result<(), SendError> = told;
}

fn request<R: Hosted>(ctx: &ServerContext, message: ControlMessage) -> Result<(), SendError> {
    ctx.core.enqueue_control::<R, _>(&ctx.threads, message.into())
}

impl<R: Role> From<ControlMessage> for MailboxItem<R> {
    fn from(message: ControlMessage) -> MailboxItem<R> {
        match message {
            ControlMessage::Crash(request) => MailboxItem::Crash(request),
            ControlMessage::Stop => MailboxItem::Stop,
        }
    }
}

fn name_of(role: RoleKind) -> &'static str {
    Speaker::from(role).as_str()
}

fn no_thread(role: RoleKind, error: &std::io::Error) -> String {
    format!("cannot start the thread of the {}: {error}", name_of(role))
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
