//! The supervisor: starts the roles, lets them fail at seeded random times, and starts them again.
//!
//! A failure is real: the role's thread ends, with its memory and its mailbox. The supervisor joins it before a new
//! thread opens the same disk, and the new one knows what the disk knows.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::disks::{AcceptorJournal, open_rounds};
use super::house::{self, House};
use super::lines;
use super::mailbox::{Cause, CrashOrder, CrashPoint, Inbox, Item, Mail};
use super::options::Restart;
use super::runner::{Ended, Shell, run};
use super::shells::{AcceptorShell, LearnerShell, ProposerShell};
use crate::kv::Kv;
use crate::net::{Unknown, WhyNotApplied};
use crate::paxos::{
    Acceptor, Learner, Life, Message, Proposer, ProposerRequest, Quorums, RoleName, Slot, StateMachine,
};
use crate::random::Random;
use crate::role::{Disk, Input, NoDisk, Role};
use crate::storage::DataFolder;
use crate::trace::{Context, Event, RoleTag};

/// Orders wait here; one too many is refused.
const ORDERS_MAX: usize = 64;

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
    /// Gives an order; the supervisor takes it when it has dealt with those before.
    pub fn give(&self, order: Order) -> Result<(), String> {
        self.0.try_send(order).map_err(|_| "too many orders wait already".to_string())
    }
}

/// Starts and restarts the roles of one server.
pub struct Supervisor {
    house: Arc<House>,
    folder: Arc<DataFolder>,
    quorums: Quorums,
    seed: u64,
    orders: Receiver<Order>,
    posts: [Post; 3],
}

/// One role's place.
struct Post {
    /// Draws the failures of this role.
    random: Random,
    state: State,
    lives: u64,
}

/// A role's thread; it ends with the order that killed it, if one did.
type RoleThread = JoinHandle<Option<CrashOrder>>;

enum State {
    Up { thread: RoleThread, fails: Option<(Instant, CrashOrder)> },
    Down { since: Instant, until: Option<Instant> },
}

impl Supervisor {
    /// A supervisor whose roles have not started yet.
    pub fn new(house: Arc<House>, folder: Arc<DataFolder>, quorums: Quorums, seed: u64) -> (Supervisor, Orders) {
        let (sender, orders) = bounded(ORDERS_MAX);
        let me = u64::from(house.me.0);
        let posts = RoleName::ALL.map(|role| Post {
            random: Random::new(seed, me << 8 | role as u64),
            state: State::Down { since: Instant::now(), until: None },
            lives: 0,
        });
        (Supervisor { house, folder, quorums, seed, orders, posts }, Orders(sender))
    }

    /// Starts the three roles. The acceptor comes first: nobody may be told less than it knows.
    pub fn start(&mut self) -> Result<(), String> {
        for role in [RoleName::Acceptor, RoleName::Learner, RoleName::Proposer] {
            self.start_role(role, None)?;
        }
        Ok(())
    }

    /// Waits for failures, restarts and orders until it is told to stop.
    pub fn run(mut self) {
        let mut next_count = Instant::now() + Duration::from_secs(1);
        loop {
            let due = self.posts.iter().filter_map(Post::due).chain([next_count]).min();
            match self.orders.recv_deadline(due.unwrap_or(next_count)) {
                Ok(Order::Stop) => return self.stop(),
                Ok(Order::Crash { role, down }) => {
                    let point = CrashPoint::BeforeStep;
                    self.crash(role, CrashOrder { point, cause: Cause::Admin, down });
                }
                Ok(Order::Restart { role }) => self.restart(role),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            for role in RoleName::ALL {
                match self.posts[role as usize].due_state(now) {
                    Some(Due::Fail(order)) => self.crash(role, order),
                    Some(Due::Restart) => self.restart(role),
                    None => {}
                }
            }
            if now >= next_count {
                self.house.tell_untold_drops();
                next_count = now + Duration::from_secs(1);
            }
        }
    }

    /// Ends a role's thread and waits until it has ended.
    fn crash(&mut self, role: RoleName, order: CrashOrder) {
        let post = &mut self.posts[role as usize];
        let until = order.down.map(|down| Instant::now() + down);
        match &mut post.state {
            // Down already: an order may still change for how long.
            State::Down { until: before, .. } => *before = until,
            State::Up { .. } => {
                order_role(&self.house, role, order);
                let down = State::Down { since: Instant::now(), until: None };
                let State::Up { thread, .. } = std::mem::replace(&mut post.state, down) else { return };
                let crashed = thread.join().unwrap_or_default();
                let until = crashed.and_then(|order| order.down).map(|down| Instant::now() + down);
                post.state = State::Down { since: Instant::now(), until };
            }
        }
    }

    fn restart(&mut self, role: RoleName) {
        if let State::Down { since, .. } = self.posts[role as usize].state
            && let Err(error) = self.start_role(role, Some(since.elapsed()))
        {
            self.house.fatal(&error);
        }
    }

    fn stop(&mut self) {
        self.house.proposer.order(Item::Stop);
        self.house.learner.order(Item::Stop);
        self.house.acceptor.order(Item::Stop);
        for post in &mut self.posts {
            let down = State::Down { since: Instant::now(), until: None };
            if let State::Up { thread, .. } = std::mem::replace(&mut post.state, down) {
                // A thread that panicked has ended the process already.
                let _ = thread.join();
            }
        }
    }

    /// Gives a role its memory back and a thread of its own. `down` is None at the start of the process.
    fn start_role(&mut self, role: RoleName, down: Option<Duration>) -> Result<(), String> {
        let lives = self.posts[role as usize].lives;
        let random = Random::new(self.seed, u64::from(self.house.me.0) << 40 | (role as u64) << 32 | lives);
        let fails = self.draw_failure(role);
        let thread = match role {
            RoleName::Proposer => self.start_proposer(down, random)?,
            RoleName::Acceptor => self.start_acceptor(down, random)?,
            RoleName::Learner => self.start_learner(down, random)?,
        };
        let post = &mut self.posts[role as usize];
        post.lives += 1;
        post.state = State::Up { thread, fails };
        Ok(())
    }

    /// Draws when and how the next failure of a role hits, if it fails at all.
    fn draw_failure(&mut self, role: RoleName) -> Option<(Instant, CrashOrder)> {
        let options = &self.house.options;
        let random = &mut self.posts[role as usize].random;
        let (up, down) = (random.around(options.mean_up), random.around(options.mean_down));
        let points = [CrashPoint::BeforeStep, CrashPoint::BeforeSync, CrashPoint::BeforeSend];
        let point = points[random.within(0..=2) as usize];
        let order = CrashOrder { point, cause: Cause::Timer, down: Some(down) };
        options.fail.includes(role).then(|| (Instant::now() + up, order))
    }

    fn start_proposer(&mut self, down: Option<Duration>, random: Random) -> Result<RoleThread, String> {
        let (rounds, record) = open_rounds(&self.folder).map_err(|error| error.to_string())?;
        let mut proposer = Proposer::new(self.house.me, self.quorums, self.house.options.protocol.policy());
        proposer.replay(record);
        if let Some(down) = down {
            self.tell_restart(RoleName::Proposer, lines::restarted_proposer(down, proposer.next_round()), None);
        }
        let inbox = self.house.proposer.open();
        self.spawn(RoleName::Proposer, proposer, rounds, inbox, random, ProposerShell(self.house.clone()))
    }

    fn start_acceptor(&mut self, down: Option<Duration>, random: Random) -> Result<RoleThread, String> {
        let lost = self.house.options.restart == Restart::Lost && down.is_some();
        if lost {
            self.folder.discard_journal().map_err(|error| error.to_string())?;
        }
        let opened = AcceptorJournal::open(&self.folder, self.house.options.segment_bytes());
        let (journal, recovered) = opened.map_err(|error| error.to_string())?;
        let mut acceptor = Acceptor::new(self.next_life()?);
        for record in recovered {
            acceptor.replay(record);
        }
        if let Some(down) = down {
            let event = lines::restarted_acceptor(down, lost, acceptor.promised(), acceptor.accepted().len() as u64);
            let why = lost.then(|| {
                "UNSAFE: it has forgotten what it promised and accepted, so a chosen value can be un-chosen".to_string()
            });
            self.tell_restart(RoleName::Acceptor, event, why);
        }
        let house = self.house.clone();
        house.board.update(|shown| {
            shown.promised = acceptor.promised();
            shown.accepted = acceptor.accepted().len() as u64;
        });
        let shell = AcceptorShell { has_room: journal.has_room(), house };
        let inbox = self.house.acceptor.open();
        self.spawn(RoleName::Acceptor, acceptor, journal, inbox, random, shell)
    }

    fn start_learner(&mut self, down: Option<Duration>, random: Random) -> Result<RoleThread, String> {
        // Until checkpoints exist a learner begins with nothing, and gets it all from its peers and the acceptors.
        let learner = Learner::new(self.house.me, self.quorums, self.next_life()?, Slot(0), Kv::default());
        if let Some(down) = down {
            self.tell_restart(
                RoleName::Learner,
                lines::restarted_learner(down, learner.applied(), learner.machine().digest()),
                None,
            );
        }
        let inbox = self.house.learner.open();
        self.spawn(RoleName::Learner, learner, NoDisk, inbox, random, LearnerShell(self.house.clone()))
    }

    fn next_life(&self) -> Result<Life, String> {
        self.folder.begin_role_life().map(Life).map_err(|error| error.to_string())
    }

    fn tell_restart(&self, role: RoleName, event: Event, why: Option<String>) {
        self.house.line_because(role.into(), &Context::default(), event, why);
    }

    fn spawn<R, D, S>(
        &self,
        name: RoleName,
        role: R,
        mut disk: D,
        inbox: Inbox<R>,
        random: Random,
        shell: S,
    ) -> Result<RoleThread, String>
    where
        R: Role<Message = Message> + Send + 'static,
        R::Message: Send,
        R::Timer: Send,
        R::Request: Send,
        D: Disk<R::Record> + Send + 'static,
        D::Error: std::fmt::Display,
        S: Shell<R> + Send + 'static,
    {
        let thread = std::thread::Builder::new().name(RoleTag::from(name).as_str().to_string());
        let life = move || {
            let since = Instant::now();
            match run(role, &mut disk, &inbox, &shell, random) {
                Ended::Stopped => {
                    shell.mailbox().close();
                    None
                }
                Ended::Crashed(order) => {
                    die(name, order, since.elapsed(), &inbox, &shell);
                    Some(order)
                }
            }
        };
        thread.spawn(life).map_err(|error| format!("cannot start the thread of the {name:?}: {error}"))
    }
}

impl Post {
    /// When something is to be done.
    fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Up { fails, .. } => fails.map(|(at, _)| at),
            State::Down { until, .. } => *until,
        }
    }

    /// What is to be done now.
    fn due_state(&self, now: Instant) -> Option<Due> {
        self.due().filter(|due| *due <= now)?;
        match &self.state {
            State::Up { fails, .. } => fails.map(|(_, order)| Due::Fail(order)),
            State::Down { .. } => Some(Due::Restart),
        }
    }
}

enum Due {
    Fail(CrashOrder),
    Restart,
}

/// Tells a role to die.
fn order_role(house: &House, role: RoleName, order: CrashOrder) {
    match role {
        RoleName::Proposer => house.proposer.order(Item::Crash(order)),
        RoleName::Acceptor => house.acceptor.order(Item::Crash(order)),
        RoleName::Learner => house.learner.order(Item::Crash(order)),
    };
}

/// The last act of a role's thread: the mailbox is gone, and everybody who waits for the role is told.
fn die<R: Role<Message = Message>, S: Shell<R>>(
    name: RoleName,
    order: CrashOrder,
    up: Duration,
    inbox: &Inbox<R>,
    shell: &S,
) {
    shell.mailbox().close();
    let house = shell.house();
    house.board.update(|shown| shown.add_crash(name));
    let why = match name {
        RoleName::Acceptor => {
            "its promises and accepted values are on disk; messages to it are dropped until it is back"
        }
        RoleName::Proposer => "its commands are forgotten; whoever waits for one is told that the outcome is unknown",
        RoleName::Learner => "what it applied is gone with its memory; its peers have it",
    };
    house.line_because(name.into(), &Context::default(), lines::crash(order, up), Some(why.to_string()));
    for item in inbox.items.try_iter() {
        if let Item::Mail(mail) = item {
            let (message, from) = match &mail.input {
                Input::Message { from, message } => (message.name(), Some(*from)),
                Input::Start | Input::Timeout(_) | Input::Request(_) => ("REQUEST", None),
            };
            house.tell_drop(name, message, from, house::Cause::Crashed, &mail.context);
        }
    }
    match name {
        RoleName::Acceptor => {}
        RoleName::Proposer => house.desk.role_died(Unknown::RoleDied(name), None),
        RoleName::Learner => {
            house.desk.role_died(Unknown::RoleDied(name), Some(WhyNotApplied::RoleDown(name)));
            let input = Input::Request(ProposerRequest::LearnerDown);
            // If the proposer is down too it begins its next life without a learner anyway.
            let _ = house.proposer.post(Mail { context: Context::default(), input, size: 0 });
        }
    }
}
