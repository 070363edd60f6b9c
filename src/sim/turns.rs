//! Turns of the roles of a simulated server, and how they die.

use std::time::Duration;

use super::folder::{Part, ROOM_RETRY};
use super::living::{Doing, Housed, by_clock};
use super::marks::Mark;
use super::nature::{Event, MS, Nature, Place};
use super::server::SimServer;
use crate::host::queue::{CrashOrder, Mail};
use crate::kv::Kv;
use crate::net::{Unknown, WhyNotApplied};
use crate::paxos::{Acceptor, Learner, Proposer, ProposerRequest, Slot};
use crate::role::{Action, Actions, Input, Role, RoleName, Servers, step_all};
use crate::server::lines;
use crate::server::runner::{CRASH_PATIENCE, sort};
use crate::storage::disk::Failure;
use crate::trace::{self, Context, CrashCause, CrashPoint};
use crate::two_phase_commit::{Coordinator, Participant};

/// Calls a function of a role whose name is only known now.
macro_rules! of_role {
    ($role:expr, $server:ident . $function:ident ( $($argument:expr),* )) => {
        match $role {
            RoleName::Proposer => $server.$function::<Proposer>($($argument),*),
            RoleName::Acceptor => $server.$function::<Acceptor>($($argument),*),
            RoleName::Learner => $server.$function::<Learner<Kv>>($($argument),*),
            RoleName::Coordinator => $server.$function::<Coordinator>($($argument),*),
            RoleName::Participant => $server.$function::<Participant>($($argument),*),
        }
    };
}

impl SimServer {
    /// A role has something to do.
    pub fn wakes(&mut self, nature: &mut Nature, role: RoleName) {
        of_role!(role, self.wake(nature));
    }

    /// The process goes on after a pause: a turn that came due meanwhile comes now.
    pub fn resumes(&mut self, nature: &mut Nature, role: RoleName) {
        of_role!(role, self.resume_role(nature));
    }

    fn resume_role<R: Housed>(&mut self, nature: &mut Nature) {
        let Some(process) = &mut self.process else { return };
        let Some(living) = R::place(process) else { return };
        if matches!(living.doing, Doing::Waiting) {
            living.doing = Doing::Nothing;
        }
        self.wake::<R>(nature);
    }

    /// A role has the processor.
    pub fn has_turn(&mut self, nature: &mut Nature, place: Place) {
        of_role!(place.role, self.turn(nature, place));
    }

    /// The disk has answered.
    pub fn has_synced(&mut self, nature: &mut Nature, place: Place) {
        of_role!(place.role, self.synced(nature, place));
    }

    /// A role must die, now or at a point of its next turn.
    pub fn crash(&mut self, nature: &mut Nature, role: RoleName, order: CrashOrder) {
        of_role!(role, self.crash_role(nature, order));
    }

    /// A role that was told to die inside a turn dies between two.
    pub fn dooms(&mut self, nature: &mut Nature, place: Place) {
        of_role!(place.role, self.doom(nature, place));
    }

    fn turn<R: Housed>(&mut self, nature: &mut Nature, place: Place) {
        let now = nature.now();
        if self.paused_until > now {
            return;
        }
        // Half a journal segment takes any group; see runner::GROUP_MAX_BYTES.
        let bytes_max = self.group_bytes_max();
        let Some(process) = &mut self.process else { return };
        let Some(living) = R::place(process).as_mut().filter(|living| living.number == place.life) else { return };
        if !matches!(living.doing, Doing::Waiting) {
            return;
        }
        living.doing = Doing::Nothing;
        let mut group = living.gather(now, bytes_max);
        let before = group.len();
        group.retain(|(_, input)| !R::must_shed(living, input, now));
        if group.len() < before {
            nature.mark(Mark::DiskFull);
        }
        R::hears(nature, place.server, &group);
        let stepped = step_all(&mut living.role, group, true);
        match living.doom {
            Some(order) if order.point == CrashPoint::BeforeSync => {
                nature.mark(Mark::CrashBeforeSync);
                return self.die::<R>(nature, order);
            }
            _ => {}
        }
        living.doing = Doing::Syncing(stepped);
        let Doing::Syncing(stepped) = &living.doing else { return };
        if stepped.records().is_empty() {
            self.synced::<R>(nature, place);
        } else {
            nature.counts.syncs += 1;
            let delay = nature.time(&self.sync);
            nature.after(delay, Event::Synced { role: place });
        }
    }

    fn synced<R: Housed>(&mut self, nature: &mut Nature, place: Place) {
        let me = self.me;
        let Some(process) = &mut self.process else { return };
        let Some(living) = R::place(process).as_mut().filter(|living| living.number == place.life) else { return };
        let Doing::Syncing(stepped) = std::mem::replace(&mut living.doing, Doing::Nothing) else { return };
        let records = stepped.records().to_vec();
        let released = match stepped.commit(&mut living.disk) {
            Ok(released) => released,
            Err(error) if R::is_full(&error) => {
                // What it has promised it cannot write down: it forgets that, and waits for room.
                R::in_doubt(nature, me, records);
                nature.mark(Mark::JournalFull);
                let down = Some(Duration::from_micros(ROOM_RETRY));
                let order = CrashOrder { point: CrashPoint::BeforeSync, cause: CrashCause::Timer, down };
                return self.die::<R>(nature, order);
            }
            Err(error) => {
                R::in_doubt(nature, me, records);
                process.fatal = Some(format!("stable storage failed: {error}"));
                return;
            }
        };
        R::durable(nature, me, &records);
        let doom = living.doom;
        let mut actions = released.into_actions();
        if let Some(order) = doom.filter(|order| order.point == CrashPoint::BeforeSend) {
            nature.mark(Mark::CrashBeforeSend);
            // Some of it may have left already.
            let left = nature.random.within(0..=actions.iter().map(|(_, all)| all.len() as u64).sum()) as usize;
            keep_first(&mut actions, left);
            if left > 0 {
                nature.mark(Mark::PartOfASend);
                self.act::<R>(nature, place, actions);
            }
            return self.die::<R>(nature, order);
        }
        self.act::<R>(nature, place, actions);
        self.check_bounds(nature);
        match doom.filter(|order| order.point == CrashPoint::BeforeStep) {
            Some(order) => self.die::<R>(nature, order),
            None => self.wake::<R>(nature),
        }
    }

    /// Writes the lines of a group, and then does what it wants done.
    fn act<R: Housed>(&mut self, nature: &mut Nature, place: Place, actions: Actions<Context, R>) {
        for (_, actions) in &actions {
            R::says(nature, self.me, place.life, actions);
        }
        let Some(process) = &self.process else { return };
        if !process.trace.steps() {
            for (context, actions) in actions {
                for action in actions {
                    self.do_one::<R>(nature, place, &context, action);
                }
            }
            return;
        }
        let cluster = self.cluster;
        let (drafts, todo) = sort(actions, |fact, context| R::draft(fact, cluster, context));
        let ids = process.trace.write_group(&drafts);
        for (line, context, action) in todo {
            let context = match line.and_then(|line| Some((ids.get(line)?.clone()?, &drafts[line]))) {
                Some((id, draft)) => Context { re: Some(id), req: draft.req.clone() },
                None => context,
            };
            self.do_one::<R>(nature, place, &context, action);
        }
    }

    fn do_one<R: Housed>(&mut self, nature: &mut Nature, place: Place, context: &Context, action: Action<R>) {
        match action {
            Action::Send { to, message } => self.send(nature, to, &message.into(), context),
            Action::Arm(timer) => {
                let delay = by_clock(nature, &timer, self.clock);
                let due = nature.now() + delay;
                if let Some(living) = self.process.as_mut().and_then(|process| R::place(process).as_mut()) {
                    living.arm(timer, due, context.clone());
                    nature.after(delay, Event::Wake { role: place });
                }
            }
            Action::Outcome(outcome) => R::tell(self, nature, outcome, context.clone()),
            Action::Fact(_) => {}
        }
    }

    fn crash_role<R: Housed>(&mut self, nature: &mut Nature, order: CrashOrder) {
        let me = self.me;
        let Some(process) = &mut self.process else { return };
        let Some(living) = R::place(process).as_mut().filter(|living| living.doom.is_none()) else { return };
        if order.point == CrashPoint::BeforeStep && !matches!(living.doing, Doing::Syncing(_)) {
            nature.mark(Mark::CrashBeforeStep);
            return self.die::<R>(nature, order);
        }
        living.doom = Some(order);
        let role = Place { server: me, role: R::NAME, life: living.number };
        nature.after(CRASH_PATIENCE.as_micros() as u64, Event::Doom { role });
    }

    fn doom<R: Housed>(&mut self, nature: &mut Nature, place: Place) {
        let Some(process) = &mut self.process else { return };
        let Some(living) = R::place(process).as_mut().filter(|living| living.number == place.life) else { return };
        match living.doom {
            Some(_) if matches!(living.doing, Doing::Syncing(_)) => {
                nature.after(10 * MS, Event::Doom { role: place });
            }
            Some(order) => self.die::<R>(nature, order),
            None => {}
        }
    }

    /// The end of a role's life: its mailbox is gone, and everybody who waits for it is told.
    fn die<R: Housed>(&mut self, nature: &mut Nature, order: CrashOrder) {
        let (me, now) = (self.me, nature.now());
        let Some(process) = &mut self.process else { return };
        let number = process.number;
        let Some(living) = R::place(process).take() else { return };
        nature.ghost.died(me, R::NAME, living.number);
        let up = Duration::from_micros(now - living.since);
        self.line(R::NAME.into(), lines::crash(order, up));
        // Otherwise somebody has to ask for it.
        if let Some(down) = order.down {
            nature.after(down.as_micros() as u64, Event::Restart { role: R::NAME, server: me, process: number });
        }
        match R::NAME {
            RoleName::Acceptor => nature.mark(Mark::AcceptorCrashed),
            RoleName::Proposer => {
                nature.mark(Mark::ProposerCrashed);
                self.tell_all(nature, Unknown::RoleDied(R::NAME), None);
            }
            RoleName::Learner => {
                nature.mark(Mark::LearnerCrashed);
                let why = WhyNotApplied::RoleDown(R::NAME);
                self.tell_all(nature, Unknown::RoleDied(R::NAME), Some(why));
                let input = Input::Request(ProposerRequest::LearnerDown);
                self.post_reserved::<Proposer>(nature, Mail { context: Context::default(), input, size: 0 });
            }
            RoleName::Coordinator => {
                nature.mark(Mark::CoordinatorCrashed);
                self.tell_all(nature, Unknown::RoleDied(R::NAME), None);
            }
            RoleName::Participant => {
                nature.mark(Mark::ParticipantCrashed);
                self.say(nature, |pending| pending.reads_died(WhyNotApplied::RoleDown(R::NAME)));
            }
        }
    }

    fn tell_all(&mut self, nature: &mut Nature, unknown: Unknown, reads_too: Option<WhyNotApplied>) {
        self.say(nature, |pending| pending.role_died(unknown, reads_too));
    }

    /// The process dies in the middle of whatever it does: a commit under way stops after some of its operations.
    pub fn interrupt(&mut self, nature: &mut Nature) {
        self.interrupt_role::<Proposer>(nature, Part::Top);
        self.interrupt_role::<Acceptor>(nature, Part::Journal);
        self.interrupt_role::<Participant>(nature, Part::Journal);
        self.interrupt_role::<Coordinator>(nature, Part::Coordinator);
        self.interrupt_keeper(nature);
    }

    fn interrupt_role<R: Housed>(&mut self, nature: &mut Nature, part: Part) {
        let me = self.me;
        let Some(process) = &mut self.process else { return };
        let Some(living) = R::place(process) else { return };
        let Doing::Syncing(stepped) = std::mem::replace(&mut living.doing, Doing::Nothing) else { return };
        let records = stepped.records().to_vec();
        self.folder.fail(part, nature.random.within(0..=2), Failure::Stop);
        nature.mark(Mark::KilledInCommit);
        match stepped.commit(&mut living.disk) {
            Ok(_never_sent) => R::durable(nature, me, &records),
            Err(_) => R::in_doubt(nature, me, records),
        }
    }

    /// The state here is not that of the others: nobody gets it any more.
    pub fn fence(&mut self, nature: &mut Nature, slot: Slot, equal: Option<Slot>, against: Servers) {
        let Some(process) = &mut self.process else { return };
        process.is_fenced = true;
        process.trace.line(trace::fenced(slot, equal, against));
        nature.ghost.fenced(self.me, slot, against);
        self.tell_all(nature, Unknown::RoleDied(RoleName::Learner), Some(WhyNotApplied::Fenced));
        let input = Input::Request(ProposerRequest::LearnerDown);
        self.post_reserved::<Proposer>(nature, Mail { context: Context::default(), input, size: 0 });
    }

    /// Groups of values take at most so many bytes.
    fn group_bytes_max(&self) -> usize {
        self.segment_bytes() as usize / 8
    }
}

/// Cuts a group after so many actions.
fn keep_first<R: Role>(actions: &mut Actions<Context, R>, mut left: usize) {
    for (_, all) in actions {
        all.truncate(left);
        left -= all.len();
    }
}
