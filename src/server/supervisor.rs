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
use super::role_thread::run;
use crate::host::lifecycle::{DueAction, Lifecycle};
use crate::host::role_disk::RoleDisk;
use crate::host::role_host::{found_no_room, is_down};
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
    pub fn give(&self, order: LabRequest) -> Result<(), String> {
        self.0.try_send(order).map_err(|_| "too many crash and restart requests are queued; try again".to_string())
    }

    /// Makes the supervisor end the roles and itself. Waits for room in its queue; false if there is none in time.
    pub fn stop(&self, within: Duration) -> bool {
        self.0.send_timeout(LabRequest::Stop, within).is_ok()
    }
}

/// Starts and restarts the roles of one server.
pub struct Supervisor {
    ctx: Arc<ServerContext>,
    folder: Arc<DataDir>,
    seed: u64,
    orders: Receiver<LabRequest>,
    /// The roles whose thread has just ended.
    ended: Receiver<RoleKind>,
    farewell: Sender<RoleKind>,
    lifecycle: Lifecycle,
    slots: [RoleEntry; RoleKind::ALL.len()],
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
    pub fn new(ctx: Arc<ServerContext>, folder: Arc<DataDir>, seed: u64) -> (Supervisor, LabHandle) {
        let (sender, orders) = bounded(ORDERS_MAX);
        // Each role has one thread at a time, so there is always room for its end.
        let (farewell, ended) = bounded(RoleKind::ALL.len());
        let me = ctx.core.config.me.0;
        let slots =
            RoleKind::ALL.map(|role| RoleEntry { random: failures_of(me, role, seed), thread: None, incarnations: 0 });
        let lifecycle = Lifecycle::new(clock::now());
        (Supervisor { ctx, folder, seed, orders, ended, farewell, lifecycle, slots }, LabHandle(sender))
    }

    /// Starts the roles, one after the other. Roles with stable storage come first: no answer may show less than their
    /// disks hold.
    pub fn start(&mut self) -> Result<(), String> {
        for role in self.roles().iter().copied() {
            let (begun, begins) = bounded(1);
            self.start_role(role, None, begun).map_err(|error| no_thread(role, &error))?;
            begins.recv().unwrap_or_else(|_| Err(format!("the {} did not start", name_of(role))))?;
        }
        Ok(())
    }

    /// Waits for failures, restarts and lab requests until a request to stop.
    pub fn run(mut self) {
        let mut next_count = clock::now() + COUNT_EVERY;
        let (orders, ended) = (self.orders.clone(), self.ended.clone());
        loop {
            let due = self.lifecycle.next_due().map_or(next_count, |due| due.min(next_count));
            select! {
                recv(orders) -> order => match order {
                    Ok(LabRequest::Crash { role, down }) => {
                        let order = self.lifecycle.crash_by_hand(clock::now(), role, down);
                        order.into_iter().for_each(|order| give(&self.ctx, role, ControlMessage::Crash(order)));
                    }
                    Ok(LabRequest::Restart { role }) => self.lifecycle.restart_soon(clock::now(), role),
                    Ok(LabRequest::Stop) | Err(_) => return self.stop(),
                },
                recv(ended) -> role => role.iter().for_each(|role| self.reap(*role)),
                default(clock::instant(due).saturating_duration_since(Instant::now())) => {}
            }
            let now = clock::now();
            for role in self.roles().iter().copied() {
                match self.lifecycle.take_due(now, role) {
                    Some(DueAction::Crash(order)) => give(&self.ctx, role, ControlMessage::Crash(order)),
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
    fn reap(&mut self, role: RoleKind) {
        if self.slots[role as usize].thread.take().is_some_and(|thread| thread.join().is_err()) {
            self.ctx.fatal(&format!("the thread of the {} panicked", name_of(role)));
        }
        self.lifecycle.ended(clock::now(), role);
    }

    fn restart(&mut self, role: RoleKind, down: Duration) {
        // No thread waits for the result: an incarnation that cannot begin stops the process itself.
        let (begun, _) = bounded(1);
        if let Err(error) = self.start_role(role, Some(down), begun) {
            self.ctx.trace_fault(name_of(role), "no thread", &no_thread(role, &error));
            self.lifecycle.did_not_begin(clock::now(), role);
        }
    }

    /// Lets every role finish its queued items, and waits until all have ended or the grace period is over.
    fn stop(&mut self) {
        stop_roles(&self.ctx);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.slots.iter().any(|slot| slot.thread.is_some()) {
            let Ok(role) = self.ended.recv_deadline(deadline) else { return };
            self.reap(role);
        }
    }

    /// Starts the thread of a role. `down` is None at the start of the process.
    fn start_role(&mut self, role: RoleKind, down: Option<Duration>, begun: StartResult) -> std::io::Result<()> {
        let (ctx, folder) = (self.ctx.clone(), self.folder.clone());
        let thread = match role {
            RoleKind::Proposer => self.spawn(begun, down, move || recovery::proposer(&ctx.core, &folder, down))?,
            RoleKind::Acceptor => self.spawn(begun, down, move || {
                let (acceptor, journal) = recovery::acceptor(&ctx.core, &ctx.threads, &folder, down)?;
                Ok((acceptor, Slowed { disk: journal, by: ctx.options.sync_delay }))
            })?,
            RoleKind::Learner => self.spawn::<Learner<Kv>, _>(begun, down, move || {
                let learner = recovery::learner(&ctx.core, &ctx.threads, &folder, ctx.load(), down)?;
                Ok((learner, NoStableStore))
            })?,
            RoleKind::Coordinator => {
                self.spawn(begun, down, move || recovery::coordinator(&ctx.core, &ctx.threads, &folder, down))?
            }
            RoleKind::Participant => {
                self.spawn(begun, down, move || recovery::participant(&ctx.core, &ctx.threads, &folder, down))?
            }
        };
        let options = &self.ctx.options;
        let slot = &mut self.slots[role as usize];
        let fails = draw_failure(&mut slot.random, options, role).map(|(up, order)| (clock::now() + up, order));
        slot.incarnations += 1;
        slot.thread = Some(thread);
        self.lifecycle.begins(role, fails);
        Ok(())
    }

    /// Starts the thread of an incarnation: it recovers the role from its disk, runs it, and reports its end.
    fn spawn<R, D>(
        &self,
        begun: StartResult,
        down: Option<Duration>,
        revive: impl FnOnce() -> Result<(R, D), RecoveryError> + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>>
    where
        R: Hosted,
        D: RoleDisk<R::Record, Error: Display> + Send + 'static,
    {
        let lives = self.slots[R::NAME as usize].incarnations;
        let me = self.ctx.core.config.me.0;
        let random = Random::new(self.seed, u64::from(me) << 40 | (R::NAME as u64) << 32 | lives);
        let (ctx, ended) = (self.ctx.clone(), self.farewell.clone());
        // Mail that arrives while the role reads its disk stays in the mailbox.
        R::mailbox(&ctx.core).open();
        let life = move || {
            let _farewell = ExitGuard { name: R::NAME, ended };
            let core = &ctx.core;
            let (role, disk) = match revive() {
                Ok(revived) => revived,
                Err(RecoveryError::NoRoom(why)) => {
                    found_no_room::<R, _>(core, &ctx.threads, &why);
                    // The other roles need not wait for it.
                    return drop(begun.send(Ok(())));
                }
                // The thread that requested the first start waits for this, and ends the process.
                Err(RecoveryError::Failed(why) | RecoveryError::Broken(why)) if down.is_none() => {
                    R::mailbox(core).close();
                    return drop(begun.send(Err(why)));
                }
                Err(RecoveryError::Failed(why) | RecoveryError::Broken(why)) => ctx.fatal(&why),
            };
            let host = RoleHost::new(core, &ctx.threads, role, disk, random);
            let _ = begun.send(Ok(()));
            if let RunEnd::Fatal(fatal) = run(host, core, &ctx.threads) {
                ctx.fatal(&fatal.0);
            }
        };
        let spawned = self.ctx.threads.group.spawn(name_of(R::NAME), life);
        if spawned.is_err() {
            is_down::<R, _>(&self.ctx.core, &self.ctx.threads);
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
    let order = CrashRequest { point, cause: CrashCause::Timer, down: Some(down) };
    options.fail.includes(role).then_some((up, order))
}

/// Tells every role to finish its queued items and to end.
pub fn stop_roles(ctx: &ServerContext) {
    for role in ctx.core.config.protocol.roles().iter().rev().copied() {
        give(ctx, role, ControlMessage::Stop);
    }
}

/// A control message from the supervisor to a role.
#[derive(Clone, Copy)]
enum ControlMessage {
    Crash(CrashRequest),
    Stop,
}

/// Gives a role its control message. A role that is down does not need it; a role that cannot take it is about to end.
fn give(ctx: &ServerContext, role: RoleKind, word: ControlMessage) {
    let told = match role {
        RoleKind::Proposer => order::<Proposer>(ctx, word),
        RoleKind::Acceptor => order::<Acceptor>(ctx, word),
        RoleKind::Learner => order::<Learner<Kv>>(ctx, word),
        RoleKind::Coordinator => order::<Coordinator>(ctx, word),
        RoleKind::Participant => order::<Participant>(ctx, word),
    };
    let _: Result<(), SendError> = told;
}

fn order<R: Hosted>(ctx: &ServerContext, word: ControlMessage) -> Result<(), SendError> {
    ctx.core.enqueue_control::<R, _>(&ctx.threads, word.into())
}

impl<R: Role> From<ControlMessage> for MailboxItem<R> {
    fn from(word: ControlMessage) -> MailboxItem<R> {
        match word {
            ControlMessage::Crash(order) => MailboxItem::Crash(order),
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
