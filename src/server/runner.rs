//! The shell of one role: a thread that blocks for one input, takes what else is there, and runs one turn.
//!
//! While a group syncs, the next one gathers in the mailbox: group commit, without ever waiting for more to come.

use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use super::house::House;
use super::mailbox::{CrashOrder, CrashPoint, Inbox, Item, Mail, Mailbox};
use super::timers::Timers;
use crate::paxos;
use crate::random::Random;
use crate::role::{Action, Disk, Input, Role, step_all};
use crate::trace::{Context, Draft, Re};

/// One group has at most so many inputs.
const GROUP_MAX: usize = 1_024;
/// One group has values of at most so many bytes, and then whatever comes next: it must fit into half a journal segment.
const GROUP_MAX_BYTES: usize = 4 << 20;
/// A crash inside a turn waits this long for a turn to hit.
const CRASH_PATIENCE: Duration = Duration::from_millis(200);

/// What the shell of a particular role adds.
pub trait Shell<R: Role> {
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
    /// Whether an input must be dropped because the disk is full.
    fn must_shed(&self, _input: &Input<R>) -> bool {
        false
    }
}

/// How a life ended.
#[derive(Clone, Copy, Debug)]
pub enum Ended {
    /// The server stops.
    Stopped,
    /// It crashed, at this point of a turn.
    Crashed(CrashOrder),
}

/// Runs a role until it is told to stop or to die. Inputs that are in its hands then are gone.
pub fn run<R, D, S>(mut role: R, disk: &mut D, inbox: &Inbox<R>, shell: &S, random: Random) -> Ended
where
    R: Role<Message = paxos::Message>,
    D: Disk<R::Record>,
    D::Error: std::fmt::Display,
    S: Shell<R>,
{
    let facts = shell.house().trace.steps();
    let mut timers = Timers::new(random);
    let mut group = vec![(Context::default(), Input::Start)];
    let mut doom: Option<(CrashOrder, Instant)> = None;
    loop {
        let hit = doom.filter(|_| !group.is_empty()).map(|(order, _)| order);
        let stepped = step_all(&mut role, group.drain(..), facts);
        if let Some(order) = hit.filter(|order| order.point == CrashPoint::BeforeSync) {
            return Ended::Crashed(order);
        }
        let released = match stepped.commit(disk) {
            Ok(released) => released,
            Err(error) => shell.house().fatal(&format!("stable storage failed: {error}")),
        };
        if let Some(order) = hit {
            return Ended::Crashed(order);
        }
        shell.publish(&role);
        take(released.into_actions(), &mut timers, shell);
        match gather(&mut group, inbox, &mut timers, doom.map(|(_, patience)| patience), shell) {
            Gathered::Group => {}
            Gathered::Stop => return Ended::Stopped,
            Gathered::Crash(order) if order.point == CrashPoint::BeforeStep => return Ended::Crashed(order),
            Gathered::Crash(order) => doom = Some((order, Instant::now() + CRASH_PATIENCE)),
        }
        if let Some((order, patience)) = doom
            && group.is_empty()
            && Instant::now() >= patience
        {
            return Ended::Crashed(CrashOrder { point: CrashPoint::BeforeStep, ..order });
        }
    }
}

/// What there was to do.
enum Gathered {
    /// Inputs, or nothing until the patience ran out.
    Group,
    Stop,
    Crash(CrashOrder),
}

/// Waits for an input or a timer, then takes all that is there.
fn gather<R: Role, S: Shell<R>>(
    group: &mut Vec<(Context, Input<R>)>,
    inbox: &Inbox<R>,
    timers: &mut Timers<R::Timer>,
    patience: Option<Instant>,
    shell: &S,
) -> Gathered {
    let deadline = [timers.next_due(), patience].into_iter().flatten().min();
    let first = match deadline {
        None => inbox.items.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(deadline) => inbox.items.recv_deadline(deadline),
    };
    let mut bytes = 0;
    let items = first.into_iter().chain(inbox.items.try_iter());
    for item in items {
        match item {
            Item::Mail(mail) => {
                inbox.taken(&mail);
                let Mail { context, input, size } = mail;
                bytes += size;
                if shell.must_shed(&input) {
                    shell.house().tell_shed(&context);
                } else {
                    group.push((context, input));
                }
            }
            Item::Crash(order) => return Gathered::Crash(order),
            Item::Stop => return Gathered::Stop,
        }
        if group.len() >= GROUP_MAX || bytes >= GROUP_MAX_BYTES {
            break;
        }
    }
    for (context, timer) in timers.take_due(Instant::now()) {
        group.push((context, Input::Timeout(timer)));
    }
    Gathered::Group
}

/// Writes the lines of a group with one write, and then does what it wants done: no message leaves before its line.
fn take<R, S>(actions: Vec<(Context, Vec<Action<R>>)>, timers: &mut Timers<R::Timer>, shell: &S)
where
    R: Role<Message = paxos::Message>,
    S: Shell<R>,
{
    let mut drafts: Vec<Draft> = Vec::new();
    let mut todo = Vec::new();
    for (context, actions) in actions {
        // The line of this step that the next action belongs to.
        let mut line: Option<usize> = None;
        for action in actions {
            match action {
                Action::Fact(fact) => {
                    let mut draft = shell.draft(&fact, &context);
                    draft.re = cause(&drafts, line, &draft, &context);
                    line = Some(drafts.len());
                    drafts.push(draft);
                }
                Action::Send { .. } | Action::Arm(_) | Action::Outcome(_) => {
                    todo.push((line, context.clone(), action));
                }
            }
        }
    }
    let house = shell.house();
    let ids = house.trace.write_group(&drafts);
    for (line, context, action) in todo {
        let context = match line.and_then(|line| Some((ids.get(line)?.clone()?, &drafts[line]))) {
            Some((id, draft)) => Context { re: Some(id), req: draft.req.clone() },
            None => context,
        };
        match action {
            Action::Send { to, message } => house.send(to, message, context),
            Action::Arm(timer) => timers.arm(timer, context),
            Action::Outcome(outcome) => shell.outcome(outcome, context),
            Action::Fact(_) => {}
        }
    }
}

/// What a line comes from: an earlier line of another kind in the same step (LEARN from CHOSEN), else the input.
fn cause(drafts: &[Draft], line: Option<usize>, draft: &Draft, context: &Context) -> Re {
    match line {
        Some(before) if drafts[before].event.name() == draft.event.name() => drafts[before].re.clone(),
        Some(before) => Re::Earlier(before),
        None => context.re.clone().map_or(Re::None, Re::Line),
    }
}
