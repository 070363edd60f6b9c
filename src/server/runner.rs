//! The shell of one role: a thread that blocks for one input, takes what else is there, and runs one turn.
//!
//! While a group syncs, the next one gathers in the mailbox: group commit, without ever waiting for more to come.

use std::time::Duration;

use super::clock;
use super::disks::RoleDisk;
use super::house::{Cause, House};
use super::mailbox::{Inbox, Mailbox, Waited};
use crate::host::queue::GROUP_MAX;
use crate::host::{CrashOrder, Item, Mail, Time, Timers};
use crate::net::Said;
use crate::random::Random;
use crate::role::{Action, Actions, Input, Role, RoleName, Timed, step_all};
use crate::trace::{Context, CrashPoint, Draft, Re};

/// A crash inside a turn waits this long for a turn to hit.
pub const CRASH_PATIENCE: Duration = Duration::from_millis(200);

/// What the shell of a particular role adds.
pub trait Shell<R: Role> {
    /// Which role.
    fn name(&self) -> RoleName;
    /// The server.
    fn house(&self) -> &House;
    /// The role's mailbox.
    fn mailbox(&self) -> &Mailbox<R>;
    /// The line of a fact.
    fn draft(&self, fact: &R::Fact, context: &Context) -> Draft;
    /// The role tells its server something.
    fn outcome(&self, outcome: R::Outcome, context: Context);
    /// A turn is over: what of the role's state others may see.
    fn publish(&self, role: &R);
    /// Whether an input must be dropped when the disk has no room.
    fn needs_room(&self, _input: &Input<R>) -> bool {
        false
    }
    /// Whether another role of the server is about to write to the peers, and will write what this one has said too.
    fn leaves_flush(&self) -> bool {
        false
    }
    /// Whether the disk has room: told when a life begins, and when that changes.
    fn tell_room(&self, _has_room: bool) {}
}

/// How a life ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// The server stops.
    Stopped,
    /// It crashed, at this point of a turn.
    Crashed(CrashOrder),
    /// Its disk has no room for what it must remember: a later life may find some.
    NoRoom(String),
}

/// Runs a role until it is told to stop or to die.
pub fn run<R, D, S>(mut role: R, disk: &mut D, inbox: &Inbox<R>, shell: &S, random: Random) -> Ended
where
    R: Role<Message: Into<Said>>,
    D: RoleDisk<R::Record>,
    D::Error: std::fmt::Display,
    S: Shell<R>,
{
    let facts = shell.house().trace.steps();
    let mut intake = Intake::new(inbox, random);
    let mut group = vec![(Context::default(), Input::Start)];
    let mut doom: Option<Doom> = None;
    // How it was at the end of the life before says nothing.
    let mut had_room = disk.has_room();
    shell.tell_room(had_room);
    loop {
        if !group.is_empty() {
            let hit = doom.as_ref().map(|doom| doom.order);
            let stepped = step_all(&mut role, group.drain(..), facts);
            if let Some(order) = hit.filter(|order| order.point == CrashPoint::BeforeSync) {
                return Ended::Crashed(order);
            }
            let released = match stepped.commit(disk) {
                Ok(released) => released,
                Err(error) if D::is_full(&error) => return Ended::NoRoom(error.to_string()),
                Err(error) => shell.house().fatal(&format!("stable storage failed: {error}")),
            };
            if let Some(order) = hit {
                return Ended::Crashed(order);
            }
            shell.publish(&role);
            take(released.into_actions(), &mut intake, shell);
            if !shell.leaves_flush() {
                shell.house().flush();
            }
            // Behind the messages: disks and peers begin sooner, and all replies of the group leave together.
            shell.house().send_replies();
        }
        if intake.has_stopped {
            return Ended::Stopped;
        }
        if disk.next_ask().is_some_and(|at| at <= clock::now()) {
            disk.ask_for_room();
        }
        if disk.has_room() != had_room {
            had_room = !had_room;
            shell.tell_room(had_room);
        }
        if let Some(order) = intake.gather(&mut group, disk, doom.as_ref().map(|doom| doom.patience), shell) {
            doom = Some(Doom { order, patience: clock::now() + CRASH_PATIENCE });
        }
        if let Some(Doom { order, patience }) = &doom
            && (order.point == CrashPoint::BeforeStep || (group.is_empty() && clock::now() >= *patience))
        {
            for (context, input) in group {
                tell_lost(&input, Cause::Crashed, &context, shell);
            }
            return Ended::Crashed(CrashOrder { point: CrashPoint::BeforeStep, ..*order });
        }
    }
}

/// A crash that has been ordered.
struct Doom {
    order: CrashOrder,
    /// If no turn has come until then, it hits between two turns.
    patience: Time,
}

/// What comes to a role: mail and time-outs.
struct Intake<'a, R: Role> {
    inbox: &'a Inbox<R>,
    /// What was taken from it; empty between two groups, kept for its room.
    taken: Vec<Item<R>>,
    timers: Timers<R::Timer>,
    /// Draws how long timers run.
    random: Random,
    /// All mail that was there at this moment has been taken, or a full group of it.
    emptied: Time,
    /// The server stops.
    has_stopped: bool,
}

impl<'a, R: Role<Message: Into<Said>>> Intake<'a, R> {
    fn new(inbox: &'a Inbox<R>, random: Random) -> Intake<'a, R> {
        let (taken, timers) = (Vec::new(), Timers::default());
        Intake { inbox, taken, timers, random, emptied: clock::now(), has_stopped: false }
    }

    /// Starts a timer, which runs for a time of its range.
    fn arm(&mut self, timer: R::Timer, context: Context) {
        let runs = Duration::from_millis(self.random.within(timer.delay_ms()));
        self.timers.arm(timer, clock::now() + runs, context);
    }

    /// Waits for an input or a timer until `patience`, then takes all that is there; gives the order to crash if it is
    /// among them. Comes back with nothing when a timer has just run out.
    ///
    /// A timer fires only once all mail that was there when it ran out has been stepped through and has not put it off: a
    /// thread that was held up for a while must not take its own delay for the silence of others.
    fn gather<D, S>(
        &mut self,
        group: &mut Vec<(Context, Input<R>)>,
        disk: &D,
        patience: Option<Time>,
        shell: &S,
    ) -> Option<CrashOrder>
    where
        D: RoleDisk<R::Record>,
        S: Shell<R>,
    {
        for (context, timer) in self.timers.take_due(self.emptied) {
            group.push((context, Input::Timeout(timer)));
        }
        let deadline = [self.timers.next_due(), patience, disk.next_ask()].into_iter().flatten().min();
        if group.is_empty() {
            self.has_stopped |= self.inbox.wait(deadline.map(clock::instant)) == Waited::Alone;
            // Where there are more threads than processors, those who are about to hand something over go first: one group
            // costs less than two.
            std::thread::yield_now();
        }
        self.emptied = clock::now();
        self.inbox.take(GROUP_MAX - group.len().min(GROUP_MAX), disk.group_max_bytes(), &mut self.taken);
        for item in self.taken.drain(..) {
            match item {
                Item::Mail(Mail { context, input, .. }) => {
                    if shell.needs_room(&input) && !disk.has_room() {
                        tell_lost(&input, Cause::DiskFull, &context, shell);
                    } else {
                        group.push((context, input));
                    }
                }
                Item::Crash(order) => return Some(order),
                // What came before is still done.
                Item::Stop => self.has_stopped = true,
            }
        }
        None
    }
}

/// Writes the lines of a group with one write, and then does what it wants done: no message leaves before its line.
fn take<R, S>(actions: Actions<Context, R>, intake: &mut Intake<'_, R>, shell: &S)
where
    R: Role<Message: Into<Said>>,
    S: Shell<R>,
{
    let house = shell.house();
    let is_fact = |action: &Action<R>| matches!(action, Action::Fact(_));
    if !actions.iter().flat_map(|(_, actions)| actions).any(is_fact) {
        // Nothing to write, nothing to sort.
        for (context, actions) in actions {
            actions.into_iter().for_each(|action| act(action, context.clone(), intake, shell));
        }
        return;
    }
    let (drafts, todo) = sort(actions, |fact, context| shell.draft(fact, context));
    let ids = house.trace.write_group(&drafts);
    for (line, context, action) in todo {
        let context = match line.and_then(|line| Some((ids.get(line)?.clone()?, &drafts[line]))) {
            Some((id, draft)) => Context { re: Some(id), req: draft.req.clone() },
            None => context,
        };
        act(action, context, intake, shell);
    }
}

/// Does what a role wants done.
fn act<R, S>(action: Action<R>, context: Context, intake: &mut Intake<'_, R>, shell: &S)
where
    R: Role<Message: Into<Said>>,
    S: Shell<R>,
{
    match action {
        Action::Send { to, message } => shell.house().send(to, message.into(), context),
        Action::Arm(timer) => intake.arm(timer, context),
        Action::Outcome(outcome) => shell.outcome(outcome, context),
        Action::Fact(_) => {}
    }
}

/// An action that is not a line, with the line of its step that it belongs to, if there is one.
pub type Todo<R> = (Option<usize>, Context, Action<R>);

/// Parts the lines of a group from what is to be done.
pub fn sort<R: Role>(
    actions: Actions<Context, R>,
    draft: impl Fn(&R::Fact, &Context) -> Draft,
) -> (Vec<Draft>, Vec<Todo<R>>) {
    let mut drafts: Vec<Draft> = Vec::new();
    let mut todo = Vec::new();
    for (context, actions) in actions {
        // The line of this step that the next action belongs to.
        let mut line: Option<usize> = None;
        for action in actions {
            match action {
                Action::Fact(fact) => {
                    let mut told = draft(&fact, &context);
                    told.re = cause(&drafts, line, &told, &context);
                    line = Some(drafts.len());
                    drafts.push(told);
                }
                Action::Send { .. } | Action::Arm(_) | Action::Outcome(_) => {
                    todo.push((line, context.clone(), action));
                }
            }
        }
    }
    (drafts, todo)
}

/// What a line comes from: an earlier line of another kind in the same step (LEARN from CHOSEN), else the input.
fn cause(drafts: &[Draft], line: Option<usize>, draft: &Draft, context: &Context) -> Re {
    match line {
        Some(before) if drafts[before].event.name() == draft.event.name() => drafts[before].re.clone(),
        Some(before) => Re::Earlier(before),
        None => context.re.clone().map_or(Re::None, Re::Line),
    }
}

/// Tells of a message that the role will not see. What its own server asked is told to whoever waits for it.
pub fn tell_lost<R: Role<Message: Into<Said>>>(
    input: &Input<R>,
    cause: Cause,
    context: &Context,
    shell: &impl Shell<R>,
) {
    match input {
        Input::Message { from, message } => {
            let said: Said = message.clone().into();
            shell.house().tell_drop(shell.name(), said.kind(), *from, cause, context);
        }
        Input::Start | Input::Timeout(_) | Input::Request(_) => {}
    }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
