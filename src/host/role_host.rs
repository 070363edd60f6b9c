//! The host of one incarnation of a role: it takes the queued inputs, steps through them, makes the records durable,
//! and only then releases the actions.
//!
//! A batch is every input that arrived while the previous batch was made durable: group commit, without ever waiting
//! for more input. The caller waits for the role's mailbox until [`RoleHost::due`]. It then calls [`RoleHost::begin`],
//! [`RoleHost::commit`] and [`RoleHost::release`], in this order.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use super::core::{Fatal, ServerCore};
use super::delivery::DropReason;
use super::env::{Env, Observation, RoleObservation};
use super::limits::ClientConnection;
use super::mail_queue::{BATCH_MAX, CrashRequest, Delivery, MailboxItem};
use super::mailbox::Mailbox;
use super::role_disk::{RoleDisk, SPACE_RETRY};
use super::roles::Hosted;
use super::timers::Timers;
use super::trace_lines;
use crate::net::PeerMessage;
use crate::random::Random;
use crate::role::{Action, Actions, Input, Released, Role, Stepped, TimerSpec, step_batch};
use crate::time::Time;
use crate::trace::{CrashPoint, Parent, PendingLine, Speaker, TraceContext};

/// A crash at a point inside a turn waits this long for a turn to begin.
pub const CRASH_TIMEOUT: Duration = Duration::from_millis(200);

/// How an incarnation ended.
#[derive(Clone, Debug)]
pub enum RunEnd {
    /// The server stops.
    Stopped,
    /// The role crashed, at this point of a turn.
    Crashed(CrashRequest),
    /// The role's disk has no room for a record that it must persist. A later incarnation may find room.
    NoSpace(String),
    /// The role's disk has failed.
    Fatal(Fatal),
}

/// What a role does next.
pub enum TurnStart<R: Role> {
    /// Nothing, until an input arrives or [`RoleHost::due`].
    Idle,
    /// Make this batch durable.
    Group(Stepped<TraceContext, R>),
    /// Nothing: the incarnation has ended.
    Ended(RunEnd),
}

/// One incarnation of a role, with its disk.
pub struct RoleHost<R: Hosted, D> {
    role: R,
    disk: D,
    mailbox: Arc<Mailbox<R>>,
    timers: Timers<R::Timer>,
    /// Draws the duration of each timer.
    random: Random,
    since: Time,
    has_started: bool,
    /// All mail that was queued at this time has been taken, or a full batch of it.
    emptied: Time,
    /// The server stops.
    has_stopped: bool,
    had_space: bool,
    /// When to check a full disk for free space again.
    next_space_check: Option<Time>,
    crash: Option<PendingCrash>,
    /// Empty between two turns; kept for its capacity.
    group: Vec<(TraceContext, Input<R>)>,
    taken: Vec<MailboxItem<R>>,
}

/// A crash that has been requested.
#[derive(Clone, Copy, Debug)]
struct PendingCrash {
    request: CrashRequest,
    /// If no turn has begun by this time, the role crashes between two turns.
    patience: Time,
}

impl<R, D> RoleHost<R, D>
where
    R: Hosted,
    D: RoleDisk<R::Record, Error: Display>,
{
    /// Begins an incarnation; its mailbox is open. It reports at once whether its disk has room, since the report of
    /// the previous incarnation may be out of date.
    pub fn new<E: Env>(core: &ServerCore<E::Connection>, env: &E, role: R, disk: D, random: Random) -> RoleHost<R, D> {
        let (now, had_space) = (env.now(), disk.has_space());
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
            had_space,
            next_space_check: None,
            crash: None,
            group: Vec::new(),
            taken: Vec::new(),
        };
        host.publish_space(core);
        host
    }

    /// The hosted role.
    pub fn role(&self) -> &R {
        &self.role
    }

    /// The role's disk.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// The armed timers of the role.
    pub fn armed(&self) -> impl Iterator<Item = &R::Timer> {
        self.timers.armed()
    }

    /// Lets an armed timer run out now, whatever its time; returns whether there is one that `is_meant` names.
    pub fn run_out(&mut self, is_meant: impl Fn(&R::Timer) -> bool) -> bool {
        self.timers.run_out(is_meant)
    }

    /// When [`RoleHost::begin`] must be called again, even if no mail arrives.
    pub fn due(&self) -> Option<Time> {
        if !self.has_started || self.has_stopped {
            return Some(self.since);
        }
        let patience = self.crash.map(|crash| crash.patience);
        [self.timers.next_due(), patience, self.next_space_check].into_iter().flatten().min()
    }

    /// Takes the queued inputs and steps through them.
    ///
    /// A timer fires only after the role has stepped through all mail that was queued when the timer ran out, and no
    /// input has re-armed the timer. A role that was delayed must not mistake its own delay for the silence of its
    /// peers.
    pub fn begin<E: Env>(&mut self, core: &ServerCore<E::Connection>, env: &E) -> TurnStart<R> {
        if self.has_stopped {
            return TurnStart::Ended(RunEnd::Stopped);
        }
        let now = env.now();
        self.check_space(core, env);
        if self.has_started {
            self.take_due(self.emptied);
            self.emptied = now;
            self.take_mail(core, env);
            if self.group.is_empty() {
                // No queued input could have re-armed these timers.
                self.take_due(now);
            }
        } else {
            self.has_started = true;
            self.group.push((TraceContext::default(), Input::Start));
        }
        if let Some(PendingCrash { request, patience }) = self.crash
            && (request.point == CrashPoint::BeforeStep || (self.group.is_empty() && now >= patience))
        {
            for (context, input) in self.group.drain(..) {
                trace_lost(core, now, &input, DropReason::Crashed, &context);
            }
            return TurnStart::Ended(RunEnd::Crashed(CrashRequest { point: CrashPoint::BeforeStep, ..request }));
        }
        if self.group.is_empty() {
            return if self.has_stopped { TurnStart::Ended(RunEnd::Stopped) } else { TurnStart::Idle };
        }
        env.observe(R::seen(RoleObservation::Hears(&self.group)));
        let stepped = step_batch(&mut self.role, self.group.drain(..), core.trace.steps() || E::IS_WATCHED);
        match self.hit(CrashPoint::BeforeSync) {
            Some(request) => TurnStart::Ended(RunEnd::Crashed(request)),
            None => TurnStart::Group(stepped),
        }
    }

    fn hit(&self, point: CrashPoint) -> Option<CrashRequest> {
        self.crash.map(|crash| crash.request).filter(|request| request.point == point)
    }

    fn take_due(&mut self, now: Time) {
        let due = self.timers.take_due(now);
        self.group.extend(due.into_iter().map(|(context, timer)| (context, Input::Timeout(timer))));
    }

    /// Takes the queued mail, and drops inputs for which the disk has no room. A crash request is the last item taken.
    fn take_mail<E: Env>(&mut self, core: &ServerCore<E::Connection>, env: &E) {
        let most = BATCH_MAX.saturating_sub(self.group.len());
        // All senders are gone.
        self.has_stopped |= !self.mailbox.take(most, self.disk.group_max_bytes(), &mut self.taken);
        for item in self.taken.drain(..) {
            match item {
                MailboxItem::Mail(Delivery { context, input, .. })
                    if R::needs_space(&input) && !self.disk.has_space() =>
                {
                    env.observe(Observation::Shed);
                    trace_lost(core, self.emptied, &input, DropReason::DiskFull, &context);
                }
                MailboxItem::Mail(Delivery { context, input, .. }) => self.group.push((context, input)),
                MailboxItem::Crash(request) => {
                    // A second crash request changes only how long the role is down.
                    let first =
                        self.crash.get_or_insert(PendingCrash { request, patience: self.emptied + CRASH_TIMEOUT });
                    first.request.down = request.down;
                }
                // The role still handles the items queued before the stop.
                MailboxItem::Stop => self.has_stopped = true,
            }
        }
    }

    /// Checks a full disk for free space from time to time. It notifies the server's other roles at once: they can free
    /// space only after they know.
    fn check_space<E: Env>(&mut self, core: &ServerCore<E::Connection>, env: &E) {
        let now = env.now();
        let is_due = self.next_space_check.is_some_and(|at| at <= now);
        if is_due {
            self.next_space_check = None;
            self.disk.retry_space();
        }
        let (has_space, could_shed_more) = (self.disk.has_space(), self.disk.could_shed_more());
        if !has_space && (is_due || self.had_space || could_shed_more) {
            R::request_space(core, env);
        }
        self.next_space_check = if has_space { None } else { Some(self.next_space_check.unwrap_or(now + SPACE_RETRY)) };
        if has_space != self.had_space {
            self.had_space = has_space;
            self.publish_space(core);
        }
    }

    fn publish_space<C: ClientConnection>(&self, core: &ServerCore<C>) {
        let Some(why) = R::full_disk_effect() else { return };
        core.set_has_space(R::NAME, self.had_space);
        if !self.had_space {
            core.trace_fault("disk", "full", why);
        }
    }

    /// Makes a batch durable. This is the only step that may wait.
    pub fn commit(&mut self, group: Stepped<TraceContext, R>) -> Result<Released<TraceContext, R>, RunEnd> {
        let released = group.commit(&mut self.disk).map_err(|error| match error.to_string() {
            why if D::is_full(&error) => RunEnd::NoSpace(why),
            why => RunEnd::Fatal(Fatal(format!("stable storage failed: {why}"))),
        })?;
        match self.hit(CrashPoint::BeforeSend) {
            Some(request) => Err(RunEnd::Crashed(request)),
            None => Ok(released),
        }
    }

    /// Performs the actions of a durable batch.
    pub fn release<E: Env>(&mut self, core: &ServerCore<E::Connection>, env: &E, group: Released<TraceContext, R>) {
        let actions = group.into_actions();
        env.observe(R::seen(RoleObservation::Says(&actions)));
        self.role.publish(core, env);
        self.act_all(core, env, actions);
        if !R::defers_flush(core) {
            env.flush_peers();
        }
        // After the messages: disks and peers begin sooner, and all replies of the batch leave together.
        core.flush_replies(env);
        // The batch may have used the last free space, or not freed enough. The role may now sleep for a long time, so
        // this is reported at once.
        if !self.disk.has_space() || !self.had_space {
            self.check_space(core, env);
        }
    }

    /// Writes the log lines of a batch with one write, and then performs the actions: no message leaves before its
    /// line.
    fn act_all<E: Env>(&mut self, core: &ServerCore<E::Connection>, env: &E, actions: Actions<TraceContext, R>) {
        let is_fact = |action: &Action<R>| matches!(action, Action::Trace(_));
        if !actions.iter().flat_map(|(_, actions)| actions).any(is_fact) {
            // No line to write, so no action needs the id of one.
            for (context, actions) in actions {
                actions.into_iter().for_each(|action| self.perform(core, env, action, context.clone()));
            }
            return;
        }
        let (drafts, todo) =
            split_trace_events(actions, |trace_event, context| R::draft(trace_event, core.config.cluster, context));
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
                self.timers.arm(timer, env.due_after(runs), context);
            }
            Action::Notify(outcome) => self.role.notify(core, env, outcome, context),
            Action::Trace(_) => {}
        }
    }

    /// Ends the incarnation: closes its mailbox, and answers the requests that wait for the role.
    pub fn on_crash<E: Env>(&mut self, core: &ServerCore<E::Connection>, env: &E, ended: &RunEnd) {
        match ended {
            RunEnd::Stopped | RunEnd::Fatal(_) => return self.mailbox.close(),
            RunEnd::Crashed(request) => {
                core.shared_status.update(|shown| shown.add_crash(R::NAME));
                let event = trace_lines::crash(*request, env.now().since(self.since));
                let why = R::crash_reason(core.config.forgets).to_string();
                core.trace_with_reason(R::NAME.into(), &TraceContext::default(), event, Some(why));
            }
            RunEnd::NoSpace(why) => trace_no_space::<R, _>(core, why),
        }
        close_role::<R, E>(core, env);
    }
}

/// The incarnation could not begin, since its disk has no room. The server tries again each second.
pub fn on_no_space<R: Hosted, E: Env>(core: &ServerCore<E::Connection>, env: &E, why: &str) {
    trace_no_space::<R, _>(core, why);
    close_role::<R, E>(core, env);
    R::request_space(core, env);
}

/// Closes the mailbox of a role that does not continue. It answers all requests that wait for the role, also those
/// whose mail arrived while the next incarnation read its disk.
pub fn close_role<R: Hosted, E: Env>(core: &ServerCore<E::Connection>, env: &E) {
    let (mailbox, now) = (R::mailbox(core), env.now());
    mailbox.close();
    while let Some(item) = mailbox.take_one() {
        if let MailboxItem::Mail(mail) = item {
            trace_lost(core, now, &mail.input, DropReason::Crashed, &mail.context);
        }
    }
    R::on_down(core, env);
    core.flush_replies(env);
}

/// Reports that an incarnation cannot begin or continue before its disk has room.
fn trace_no_space<R: Hosted, C: ClientConnection>(core: &ServerCore<C>, why: &str) {
    let name = Speaker::from(R::NAME).as_str();
    let why = format!("the {name} is down until its disk has space; the server checks every second. {why}");
    core.trace_fault("disk", "full", &why);
}

/// An action other than a trace event, with the index of its step's log line, if there is one.
pub type PendingAction<R> = (Option<usize>, TraceContext, Action<R>);

/// Separates the log lines of a batch from the actions to perform.
pub fn split_trace_events<R: Role>(
    actions: Actions<TraceContext, R>,
    draft: impl Fn(&R::TraceEvent, &TraceContext) -> PendingLine,
) -> (Vec<PendingLine>, Vec<PendingAction<R>>) {
    let mut drafts: Vec<PendingLine> = Vec::new();
    let mut todo = Vec::new();
    for (context, actions) in actions {
        // The line of this step to which the next action belongs.
        let mut line: Option<usize> = None;
        for action in actions {
            match action {
                Action::Trace(trace_event) => {
                    let mut told = draft(&trace_event, &context);
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

/// The parent of a line: an earlier line of another kind in the same step (LEARN from CHOSEN), else the input's line.
fn cause(drafts: &[PendingLine], line: Option<usize>, draft: &PendingLine, context: &TraceContext) -> Parent {
    match line {
        Some(before) if drafts[before].event.name() == draft.event.name() => drafts[before].parent.clone(),
        Some(before) => Parent::Earlier(before),
        None => context.parent.clone().map_or(Parent::None, Parent::Line),
    }
}

/// Traces a message that the role will not receive. `on_down` answers the requests of the server's own clients.
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
