//! One life of a role: it takes what is there, steps through it, makes it durable, and only then lets it go.
//!
//! A group is everything that has come to the role while the group before was made durable: group commit, without ever
//! waiting for more to come. Whoever runs the role waits for its mailbox until [`RoleHost::due`], and calls
//! [`RoleHost::begin`], [`RoleHost::commit`] and [`RoleHost::release`], in this order.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use super::core::{Fatal, ServerCore};
use super::delivery::DropReason;
use super::env::{Env, Observation, RoleObservation};
use super::limits::ClientConnection;
use super::mail_queue::{BATCH_MAX, CrashRequest, Delivery, MailboxItem};
use super::mailbox::Mailbox;
use super::role_disk::{ROOM_RETRY, RoleDisk};
use super::roles::Hosted;
use super::time::Time;
use super::timers::Timers;
use super::trace_lines;
use crate::net::PeerMessage;
use crate::random::Random;
use crate::role::{Action, Actions, Input, Released, Role, Stepped, TimerSpec, step_batch};
use crate::trace::{CrashPoint, Parent, PendingLine, Speaker, TraceContext};

/// A crash inside a turn waits this long for a turn to hit.
pub const CRASH_TIMEOUT: Duration = Duration::from_millis(200);

/// How a life ended.
#[derive(Clone, Debug)]
pub enum RunEnd {
    /// The server stops.
    Stopped,
    /// It crashed, at this point of a turn.
    Crashed(CrashRequest),
    /// Its disk has no room for what it must remember: a later life may find some.
    NoRoom(String),
    /// Its disk has failed.
    Fatal(Fatal),
}

/// What a role has to do.
pub enum TurnStart<R: Role> {
    /// Nothing, until something comes or [`RoleHost::due`].
    Idle,
    /// This group is to be made durable.
    Group(Stepped<TraceContext, R>),
    /// Nothing ever again.
    Ended(RunEnd),
}

/// One life of a role, with its disk.
pub struct RoleHost<R: Hosted, D> {
    role: R,
    disk: D,
    mailbox: Arc<Mailbox<R>>,
    timers: Timers<R::Timer>,
    /// Draws how long timers run.
    random: Random,
    since: Time,
    has_started: bool,
    /// All mail that was there at this moment has been taken, or a full group of it.
    emptied: Time,
    /// The server stops.
    has_stopped: bool,
    had_room: bool,
    /// When a full disk is asked again whether there is room.
    next_space_check: Option<Time>,
    crash: Option<PendingCrash>,
    /// The group is empty between two turns, and kept for its room.
    group: Vec<(TraceContext, Input<R>)>,
    taken: Vec<MailboxItem<R>>,
}

/// A crash that has been ordered.
#[derive(Clone, Copy, Debug)]
struct PendingCrash {
    order: CrashRequest,
    /// If no turn has come until then, it hits between two turns.
    patience: Time,
}

impl<R, D> RoleHost<R, D>
where
    R: Hosted,
    D: RoleDisk<R::Record, Error: Display>,
{
    /// A life begins, whose mailbox is open. It says at once whether its disk has room: how it was at the end of the
    /// life before says nothing.
    pub fn new<E: Env>(core: &ServerCore<E::Connection>, env: &E, role: R, disk: D, random: Random) -> RoleHost<R, D> {
        let (now, had_room) = (env.now(), disk.has_room());
        let host = RoleHost {
            role,
            disk,
            mailbox: R::mailbox(core).clone(),
            timers: Timers::default(),
            random,
            since: now,
            has_started: false,
            emptied: now,
            has_stopped: false,
            had_room,
            next_space_check: None,
            crash: None,
            group: Vec::new(),
            taken: Vec::new(),
        };
        host.tell_room(core);
        host
    }

    /// The role.
    pub fn role(&self) -> &R {
        &self.role
    }

    /// Its disk.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// When [`RoleHost::begin`] must be called again, though no mail comes.
    pub fn due(&self) -> Option<Time> {
        if !self.has_started || self.has_stopped {
            return Some(self.since);
        }
        let patience = self.crash.map(|crash| crash.patience);
        [self.timers.next_due(), patience, self.next_space_check].into_iter().flatten().min()
    }

    /// Takes what is there and steps through it.
    ///
    /// A timer fires only once all mail that was there when it ran out has been stepped through and has not put it off:
    /// a role that was held up for a while must not take its own delay for the silence of others.
    pub fn begin<E: Env>(&mut self, core: &ServerCore<E::Connection>, env: &E) -> TurnStart<R> {
        if self.has_stopped {
            return TurnStart::Ended(RunEnd::Stopped);
        }
        let now = env.now();
        self.look_for_room(core, env);
        if self.has_started {
            self.take_due(self.emptied);
            self.emptied = now;
            self.take_mail(core, env);
            if self.group.is_empty() {
                // Nothing was there that could have put them off.
                self.take_due(now);
            }
        } else {
            self.has_started = true;
            self.group.push((TraceContext::default(), Input::Start));
        }
        if let Some(PendingCrash { order, patience }) = self.crash
            && (order.point == CrashPoint::BeforeStep || (self.group.is_empty() && now >= patience))
        {
            for (context, input) in self.group.drain(..) {
                trace_lost(core, now, &input, DropReason::Crashed, &context);
            }
            return TurnStart::Ended(RunEnd::Crashed(CrashRequest { point: CrashPoint::BeforeStep, ..order }));
        }
        if self.group.is_empty() {
            return if self.has_stopped { TurnStart::Ended(RunEnd::Stopped) } else { TurnStart::Idle };
        }
        env.observe(R::seen(RoleObservation::Hears(&self.group)));
        let stepped = step_batch(&mut self.role, self.group.drain(..), core.trace.steps() || E::IS_WATCHED);
        match self.hit(CrashPoint::BeforeSync) {
            Some(order) => TurnStart::Ended(RunEnd::Crashed(order)),
            None => TurnStart::Group(stepped),
        }
    }

    fn hit(&self, point: CrashPoint) -> Option<CrashRequest> {
        self.crash.map(|crash| crash.order).filter(|order| order.point == point)
    }

    fn take_due(&mut self, now: Time) {
        let due = self.timers.take_due(now);
        self.group.extend(due.into_iter().map(|(context, timer)| (context, Input::Timeout(timer))));
    }

    /// Takes the mail that is there, without what the disk has no room for. An order to crash is the last that is
    /// taken.
    fn take_mail<E: Env>(&mut self, core: &ServerCore<E::Connection>, env: &E) {
        let most = BATCH_MAX.saturating_sub(self.group.len());
        // Nobody is left who could ever say anything.
        self.has_stopped |= !self.mailbox.take(most, self.disk.group_max_bytes(), &mut self.taken);
        for item in self.taken.drain(..) {
            match item {
                MailboxItem::Mail(Delivery { context, input, .. })
                    if R::needs_space(&input) && !self.disk.has_room() =>
                {
                    env.observe(Observation::Shed);
                    trace_lost(core, self.emptied, &input, DropReason::DiskFull, &context);
                }
                MailboxItem::Mail(Delivery { context, input, .. }) => self.group.push((context, input)),
                MailboxItem::Crash(order) => {
                    // A second order changes only for how long the role is down.
                    let first =
                        self.crash.get_or_insert(PendingCrash { order, patience: self.emptied + CRASH_TIMEOUT });
                    first.order.down = order.down;
                }
                // What came before is still done.
                MailboxItem::Stop => self.has_stopped = true,
            }
        }
    }

    /// A full disk is asked now and then whether there is room again. The others of this server are asked at once: for
    /// as long as they do not know, nothing is done about it.
    fn look_for_room<E: Env>(&mut self, core: &ServerCore<E::Connection>, env: &E) {
        let now = env.now();
        let is_due = self.next_space_check.is_some_and(|at| at <= now);
        if is_due {
            self.next_space_check = None;
            self.disk.retry_space();
        }
        let (has_room, could_shed_more) = (self.disk.has_room(), self.disk.could_shed_more());
        if !has_room && (is_due || self.had_room || could_shed_more) {
            R::wants_room(core, env);
        }
        self.next_space_check = if has_room { None } else { Some(self.next_space_check.unwrap_or(now + ROOM_RETRY)) };
        if has_room != self.had_room {
            self.had_room = has_room;
            self.tell_room(core);
        }
    }

    fn tell_room<C: ClientConnection>(&self, core: &ServerCore<C>) {
        let Some(why) = R::without_room() else { return };
        core.set_room(R::NAME, self.had_room);
        if !self.had_room {
            core.trace_fault("disk", "full", why);
        }
    }

    /// Makes a group durable. The only step that may wait.
    pub fn commit(&mut self, group: Stepped<TraceContext, R>) -> Result<Released<TraceContext, R>, RunEnd> {
        let released = group.commit(&mut self.disk).map_err(|error| match error.to_string() {
            why if D::is_full(&error) => RunEnd::NoRoom(why),
            why => RunEnd::Fatal(Fatal(format!("stable storage failed: {why}"))),
        })?;
        match self.hit(CrashPoint::BeforeSend) {
            Some(order) => Err(RunEnd::Crashed(order)),
            None => Ok(released),
        }
    }

    /// Lets the actions of a durable group go.
    pub fn release<E: Env>(&mut self, core: &ServerCore<E::Connection>, env: &E, group: Released<TraceContext, R>) {
        let actions = group.into_actions();
        env.observe(R::seen(RoleObservation::Says(&actions)));
        self.role.publish(core, env);
        self.act_all(core, env, actions);
        if !R::defers_flush(core) {
            env.flush_peers();
        }
        // Behind the messages: disks and peers begin sooner, and all replies of the group leave together.
        core.flush_replies(env);
        // The group may have taken the last room, or not made enough. The role may now sleep for long, so this is told
        // at once.
        if !self.disk.has_room() || !self.had_room {
            self.look_for_room(core, env);
        }
    }

    /// Writes the lines of a group with one write, and then does what it wants done: no message leaves before its line.
    fn act_all<E: Env>(&mut self, core: &ServerCore<E::Connection>, env: &E, actions: Actions<TraceContext, R>) {
        let is_fact = |action: &Action<R>| matches!(action, Action::Trace(_));
        if !actions.iter().flat_map(|(_, actions)| actions).any(is_fact) {
            // Nothing to write, nothing to sort.
            for (context, actions) in actions {
                actions.into_iter().for_each(|action| self.perform(core, env, action, context.clone()));
            }
            return;
        }
        let (drafts, todo) = split_trace_events(actions, |fact, context| R::draft(fact, core.config.cluster, context));
        let ids = core.trace.write_group(&drafts);
        for (line, context, action) in todo {
            let context = match line.and_then(|line| Some((ids.get(line)?.clone()?, &drafts[line]))) {
                Some((id, draft)) => TraceContext { parent: Some(id), req: draft.req.clone() },
                None => context,
            };
            self.perform(core, env, action, context);
        }
    }

    fn perform<E: Env>(&mut self, core: &ServerCore<E::Connection>, env: &E, action: Action<R>, context: TraceContext) {
        match action {
            Action::Send { to, message } => core.send(env, to, message.into(), context),
            Action::Arm(timer) => {
                let runs = Duration::from_millis(self.random.within(timer.delay_ms()));
                self.timers.arm(timer, env.now() + runs, context);
            }
            Action::Notify(outcome) => self.role.notify(core, env, outcome, context),
            Action::Trace(_) => {}
        }
    }

    /// The life is over: its mailbox is closed, and those who wait for the role are told.
    pub fn on_crash<E: Env>(&mut self, core: &ServerCore<E::Connection>, env: &E, ended: &RunEnd) {
        match ended {
            RunEnd::Stopped | RunEnd::Fatal(_) => return self.mailbox.close(),
            RunEnd::Crashed(order) => {
                core.board.update(|shown| shown.add_crash(R::NAME));
                let event = trace_lines::crash(*order, env.now().since(self.since));
                let why = R::epitaph(core.config.forgets).to_string();
                core.trace_with_reason(R::NAME.into(), &TraceContext::default(), event, Some(why));
            }
            RunEnd::NoRoom(why) => trace_no_space::<R, _>(core, why),
        }
        is_down::<R, E>(core, env);
    }
}

/// A life that could not begin, as there is no room on its disk. It is tried again each second.
pub fn found_no_room<R: Hosted, E: Env>(core: &ServerCore<E::Connection>, env: &E, why: &str) {
    trace_no_space::<R, _>(core, why);
    is_down::<R, E>(core, env);
    R::wants_room(core, env);
}

/// Closes the mailbox of a role that does not go on. All who wait for the role are told, also those whose mail came
/// while its next life read its disk.
pub fn is_down<R: Hosted, E: Env>(core: &ServerCore<E::Connection>, env: &E) {
    let (mailbox, now) = (R::mailbox(core), env.now());
    mailbox.close();
    while let Some(item) = mailbox.take_one() {
        if let MailboxItem::Mail(mail) = item {
            trace_lost(core, now, &mail.input, DropReason::Crashed, &mail.context);
        }
    }
    R::mourn(core, env);
    core.flush_replies(env);
}

/// A life does not begin, or not go on, before there is room on its disk.
fn trace_no_space<R: Hosted, C: ClientConnection>(core: &ServerCore<C>, why: &str) {
    let name = Speaker::from(R::NAME).as_str();
    let why = format!("the {name} says nothing until there is room on its disk, and looks each second. {why}");
    core.trace_fault("disk", "full", &why);
}

/// An action that is not a line, with the line of its step that it belongs to, if there is one.
pub type PendingAction<R> = (Option<usize>, TraceContext, Action<R>);

/// Parts the lines of a group from what is to be done.
pub fn split_trace_events<R: Role>(
    actions: Actions<TraceContext, R>,
    draft: impl Fn(&R::TraceEvent, &TraceContext) -> PendingLine,
) -> (Vec<PendingLine>, Vec<PendingAction<R>>) {
    let mut drafts: Vec<PendingLine> = Vec::new();
    let mut todo = Vec::new();
    for (context, actions) in actions {
        // The line of this step that the next action belongs to.
        let mut line: Option<usize> = None;
        for action in actions {
            match action {
                Action::Trace(fact) => {
                    let mut told = draft(&fact, &context);
                    told.parent = cause(&drafts, line, &told, &context);
                    line = Some(drafts.len());
                    drafts.push(told);
                }
                Action::Send { .. } | Action::Arm(_) | Action::Notify(_) => {
                    todo.push((line, context.clone(), action));
                }
            }
        }
    }
    (drafts, todo)
}

/// What a line comes from: an earlier line of another kind in the same step (LEARN from CHOSEN), else the input.
fn cause(drafts: &[PendingLine], line: Option<usize>, draft: &PendingLine, context: &TraceContext) -> Parent {
    match line {
        Some(before) if drafts[before].event.name() == draft.event.name() => drafts[before].parent.clone(),
        Some(before) => Parent::Earlier(before),
        None => context.parent.clone().map_or(Parent::None, Parent::Line),
    }
}

/// Tells of a message that the role will not see. Those who wait for what its own server asked are told by `mourn`.
fn trace_lost<R: Hosted, C: ClientConnection>(
    core: &ServerCore<C>,
    now: Time,
    input: &Input<R>,
    cause: DropReason,
    context: &TraceContext,
) {
    if let Input::Message { from, message } = input {
        let said: PeerMessage = message.clone().into();
        core.trace_drop(now, R::NAME, said.kind(), *from, cause, context);
    }
}
