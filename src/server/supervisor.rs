//! The supervisor: starts the roles, lets them fail at seeded random times, and starts them again.
//!
//! A failure is real: the role's thread ends, with its memory and its mailbox. The supervisor joins it before a new
//! thread opens the same disk, and the new one knows what the disk knows.
//!
//! The supervisor itself waits for nobody: a role that takes its time to die, or to read its disk, holds up neither the
//! other roles nor the end of the server.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::disks::RoleDisk;
use super::house::House;
use super::lives::{Cradle, Unborn, die};
use super::options::Options;
use super::runner::{Ended, Shell, run};
use super::shells::{AcceptorShell, LearnerShell, ProposerShell};
use super::two_phase::{CoordinatorShell, ParticipantShell};
use crate::host::queue::{CrashOrder, Item, Lost};
use crate::net::Said;
use crate::paxos::Quorums;
use crate::random::Random;
use crate::role::{Role, RoleName};
use crate::storage::DataFolder;
use crate::trace::{CrashCause, CrashPoint, RoleTag};

/// Orders wait here; one too many is refused.
const ORDERS_MAX: usize = 64;
/// If there is no thread to be had for a role, or no room on its disk, it is tried again after so long.
const THREAD_RETRY: Duration = Duration::from_secs(1);
/// So long the roles have to finish what they are at when the server stops. One that hangs, in a disk that does not answer
/// say, ends with the process: a crash loses nothing either.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// What an operator may ask in lab mode.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// End a role's thread.
    Crash {
        /// Which.
        role: RoleName,
        /// For how long; until RESTART if None.
        down: Option<Duration>,
    },
    /// Start it again.
    Restart {
        /// Which.
        role: RoleName,
    },
    /// End all roles for good.
    Stop,
}

/// Where orders are given.
#[derive(Clone)]
pub struct Orders(Sender<Order>);

impl Orders {
    /// Nobody takes them.
    #[cfg(any(test, fuzzing))]
    pub fn unheard() -> Orders {
        Orders(bounded(1).0)
    }

    /// Gives an order; the supervisor takes it when it has dealt with those before.
    pub fn give(&self, order: Order) -> Result<(), String> {
        self.0.try_send(order).map_err(|_| "too many orders wait already".to_string())
    }
}

/// Starts and restarts the roles of one server.
pub struct Supervisor {
    cradle: Cradle,
    seed: u64,
    orders: Receiver<Order>,
    /// The roles whose thread has just ended.
    ended: Receiver<RoleName>,
    farewell: Sender<RoleName>,
    posts: [Post; RoleName::EVERY.len()],
}

/// One role's place.
struct Post {
    /// Draws the failures of this role.
    random: Random,
    state: State,
    lives: u64,
}

enum State {
    /// Its thread runs; when and how it is to fail.
    Up { thread: JoinHandle<()>, fails: Option<(Instant, CrashOrder)> },
    /// It is told to end, and its thread still runs. Then it is to be down for so long; until somebody restarts it if None.
    Ending { thread: JoinHandle<()>, down: Option<Duration> },
    /// It has no thread until then; until somebody restarts it if None.
    Down { since: Instant, until: Option<Instant> },
}

/// How the first life of a role in this process has begun, or that it waits for room: an error is a reason not to start.
type Begun = Sender<Result<(), String>>;

impl Supervisor {
    /// A supervisor whose roles have not started yet.
    pub fn new(house: Arc<House>, folder: Arc<DataFolder>, quorums: Quorums, seed: u64) -> (Supervisor, Orders) {
        let (sender, orders) = bounded(ORDERS_MAX);
        // Each role has one thread at a time, so there is always room for its farewell.
        let (farewell, ended) = bounded(RoleName::EVERY.len());
        let posts = RoleName::EVERY.map(|role| Post {
            random: failures_of(house.me.0, role, seed),
            state: State::Down { since: Instant::now(), until: None },
            lives: 0,
        });
        let cradle = Cradle { house, folder, quorums };
        (Supervisor { cradle, seed, orders, ended, farewell, posts }, Orders(sender))
    }

    /// Starts the roles, one after the other. Those that remember come first: nobody may be told less than they know.
    pub fn start(&mut self) -> Result<(), String> {
        for role in self.roles().iter().copied() {
            let (begun, begins) = bounded(1);
            self.start_role(role, None, begun).map_err(|error| no_thread(role, &error))?;
            begins.recv().unwrap_or_else(|_| Err(format!("the {} has not started", name_of(role))))?;
        }
        Ok(())
    }

    /// Waits for failures, restarts and orders until it is told to stop.
    pub fn run(mut self) {
        let mut next_count = Instant::now() + Duration::from_secs(1);
        let (orders, ended) = (self.orders.clone(), self.ended.clone());
        loop {
            let due = self.posts.iter().filter_map(Post::due).chain([next_count]).min().unwrap_or(next_count);
            select! {
                recv(orders) -> order => match order {
                    Ok(Order::Crash { role, down }) => {
                        self.crash(role, CrashOrder { point: CrashPoint::BeforeStep, cause: CrashCause::Admin, down });
                    }
                    Ok(Order::Restart { role }) => self.restart_soon(role),
                    Ok(Order::Stop) | Err(_) => return self.stop(),
                },
                recv(ended) -> role => role.iter().for_each(|role| self.bury(*role)),
                default(due.saturating_duration_since(Instant::now())) => {}
            }
            let now = Instant::now();
            for role in self.roles().iter().copied() {
                match self.posts[role as usize].due_state(now) {
                    Some(Due::Fail(order)) => self.crash(role, order),
                    Some(Due::Restart) => self.restart(role),
                    None => {}
                }
            }
            if now >= next_count {
                self.house().tell_counts();
                next_count = now + Duration::from_secs(1);
            }
        }
    }

    fn house(&self) -> &House {
        &self.cradle.house
    }

    fn roles(&self) -> &'static [RoleName] {
        self.house().options.protocol.roles()
    }

    /// Tells a role to die. One that is dying or down already may still get another time to come back.
    fn crash(&mut self, role: RoleName, order: CrashOrder) {
        let state = &mut self.posts[role as usize].state;
        match state {
            State::Ending { down, .. } => *down = order.down,
            State::Down { until, .. } => *until = order.down.map(|down| Instant::now() + down),
            State::Up { .. } => {
                let gone = State::Down { since: Instant::now(), until: None };
                if let State::Up { thread, .. } = std::mem::replace(state, gone) {
                    *state = State::Ending { thread, down: order.down };
                }
                // If it cannot take the order it is about to end.
                let _ = give(&self.cradle.house, role, Word::Crash(order));
            }
        }
    }

    /// A role's thread has ended.
    fn bury(&mut self, role: RoleName) {
        let state = &mut self.posts[role as usize].state;
        let since = Instant::now();
        let (thread, down) = match std::mem::replace(state, State::Down { since, until: None }) {
            State::Ending { thread, down } => (thread, down),
            // It could not begin, or go on: there may be room for it soon.
            State::Up { thread, .. } => (thread, Some(THREAD_RETRY)),
            down @ State::Down { .. } => {
                *state = down;
                return;
            }
        };
        if thread.join().is_err() {
            self.house().fatal(&format!("the {} has panicked", name_of(role)));
        }
        self.posts[role as usize].state = State::Down { since, until: down.map(|down| since + down) };
    }

    /// Brings a role back that is down, or as soon as it is.
    fn restart_soon(&mut self, role: RoleName) {
        match &mut self.posts[role as usize].state {
            State::Up { .. } => {}
            State::Ending { down, .. } => *down = Some(Duration::ZERO),
            State::Down { until, .. } => *until = Some(Instant::now()),
        }
    }

    fn restart(&mut self, role: RoleName) {
        let State::Down { since, .. } = self.posts[role as usize].state else { return };
        // Nobody waits: a life that cannot begin stops the process by itself.
        let (begun, _) = bounded(1);
        if let Err(error) = self.start_role(role, Some(since.elapsed()), begun) {
            self.house().tell_fault(name_of(role), "no thread", &no_thread(role, &error));
            let until = Some(Instant::now() + THREAD_RETRY);
            self.posts[role as usize].state = State::Down { since, until };
        }
    }

    /// Lets every role finish what it has, and waits until all have ended, or for too long.
    fn stop(&mut self) {
        let house = self.cradle.house.clone();
        for role in self.roles().iter().rev().copied() {
            // A role that is down need not be told.
            let _ = give(&house, role, Word::Stop);
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        while self.posts.iter().any(|post| !matches!(post.state, State::Down { .. })) {
            let Ok(role) = self.ended.recv_deadline(deadline) else { return };
            self.bury(role);
        }
    }

    /// Gives a role a thread of its own. `down` is None at the start of the process.
    fn start_role(&mut self, role: RoleName, down: Option<Duration>, begun: Begun) -> std::io::Result<()> {
        let cradle = self.cradle.clone();
        let house = cradle.house.clone();
        let thread = match role {
            RoleName::Proposer => self.spawn(ProposerShell(house), begun, down, move || cradle.proposer(down))?,
            RoleName::Acceptor => self.spawn(AcceptorShell(house), begun, down, move || cradle.acceptor(down))?,
            RoleName::Learner => self.spawn(LearnerShell::new(house), begun, down, move || cradle.learner(down))?,
            RoleName::Coordinator => {
                self.spawn(CoordinatorShell(house), begun, down, move || cradle.coordinator(down))?
            }
            RoleName::Participant => {
                self.spawn(ParticipantShell(house), begun, down, move || cradle.participant(down))?
            }
        };
        let options = &self.cradle.house.options;
        let post = &mut self.posts[role as usize];
        let fails = draw_failure(&mut post.random, options, role).map(|(up, order)| (Instant::now() + up, order));
        post.lives += 1;
        post.state = State::Up { thread, fails };
        Ok(())
    }

    /// Starts the thread of a life: it gets back what it must not have forgotten, runs, and says farewell.
    fn spawn<R, D, S>(
        &self,
        shell: S,
        begun: Begun,
        down: Option<Duration>,
        revive: impl FnOnce() -> Result<(R, D), Unborn> + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>>
    where
        R: Role<Message: Into<Said>> + Send + 'static,
        R::Message: Send,
        R::Timer: Send,
        R::Request: Send,
        D: RoleDisk<R::Record> + Send + 'static,
        D::Error: std::fmt::Display,
        S: Shell<R> + Clone + Send + 'static,
    {
        let name = shell.name();
        let lives = self.posts[name as usize].lives;
        let random = Random::new(self.seed, u64::from(self.house().me.0) << 40 | (name as u64) << 32 | lives);
        let ended = self.farewell.clone();
        // What comes while the role reads its disk waits for it.
        let inbox = shell.mailbox().open();
        let closing = shell.clone();
        let life = move || {
            let _farewell = Farewell { name, ended };
            let (role, mut disk) = match revive() {
                Ok(revived) => revived,
                Err(error) => {
                    shell.mailbox().close();
                    match error {
                        Unborn::NoRoom(why) => {
                            tell_no_room(&shell, &why);
                            // The others need not wait for it.
                            let _ = begun.send(Ok(()));
                        }
                        // Who asked for the start is there, and ends it.
                        Unborn::Broken(why) if down.is_none() => drop(begun.send(Err(why))),
                        Unborn::Broken(why) => shell.house().fatal(&why),
                    }
                    return;
                }
            };
            let _ = begun.send(Ok(()));
            let since = Instant::now();
            match run(role, &mut disk, &inbox, &shell, random) {
                Ended::Stopped => shell.mailbox().close(),
                Ended::Crashed(order) => die(order, since.elapsed(), &inbox, &shell),
                Ended::NoRoom(why) => {
                    shell.mailbox().close();
                    tell_no_room(&shell, &why);
                }
            }
        };
        let spawned = std::thread::Builder::new().name(name_of(name).to_string()).spawn(life);
        if spawned.is_err() {
            closing.mailbox().close();
        }
        spawned
    }
}

fn tell_no_room<R: Role>(shell: &impl Shell<R>, why: &str) {
    let name = name_of(shell.name());
    let why = format!("the {name} says nothing until there is room on its disk, and looks each second. {why}");
    shell.house().tell_fault("disk", "full", &why);
}

/// Says that a role's thread ends, however it ends.
struct Farewell {
    name: RoleName,
    ended: Sender<RoleName>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        // Nobody hears it if the supervisor has gone.
        let _ = self.ended.send(self.name);
    }
}

impl Post {
    /// When something is to be done.
    fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Up { fails, .. } => fails.map(|(at, _)| at),
            State::Ending { .. } => None,
            State::Down { until, .. } => *until,
        }
    }

    /// What is to be done now.
    fn due_state(&self, now: Instant) -> Option<Due> {
        self.due().filter(|due| *due <= now)?;
        match &self.state {
            State::Up { fails, .. } => fails.map(|(_, order)| Due::Fail(order)),
            State::Ending { .. } => None,
            State::Down { .. } => Some(Due::Restart),
        }
    }
}

enum Due {
    Fail(CrashOrder),
    Restart,
}

/// The stream of a role's failures: it depends on seed, server and role, and on nothing that happens.
fn failures_of(server: u8, role: RoleName, seed: u64) -> Random {
    Random::new(seed, u64::from(server) << 8 | role as u64)
}

/// Draws after how long the next life of a role fails, and how, if it fails at all.
fn draw_failure(random: &mut Random, options: &Options, role: RoleName) -> Option<(Duration, CrashOrder)> {
    let (up, down) = (random.around(options.mean_up), random.around(options.mean_down));
    let points = [CrashPoint::BeforeStep, CrashPoint::BeforeSync, CrashPoint::BeforeSend];
    let point = points[random.within(0..=2) as usize];
    let order = CrashOrder { point, cause: CrashCause::Timer, down: Some(down) };
    options.fail.includes(role).then_some((up, order))
}

/// What the supervisor says to a role.
enum Word {
    Crash(CrashOrder),
    Stop,
}

fn give(house: &House, role: RoleName, word: Word) -> Result<(), Lost> {
    match role {
        RoleName::Proposer => house.proposer.order(word.into()),
        RoleName::Acceptor => house.acceptor.order(word.into()),
        RoleName::Learner => house.learner.order(word.into()),
        RoleName::Coordinator => house.coordinator.order(word.into()),
        RoleName::Participant => house.participant.order(word.into()),
    }
}

impl<R: Role> From<Word> for Item<R> {
    fn from(word: Word) -> Item<R> {
        match word {
            Word::Crash(order) => Item::Crash(order),
            Word::Stop => Item::Stop,
        }
    }
}

fn name_of(role: RoleName) -> &'static str {
    RoleTag::from(role).as_str()
}

fn no_thread(role: RoleName, error: &std::io::Error) -> String {
    format!("cannot start the thread of the {}: {error}", name_of(role))
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
