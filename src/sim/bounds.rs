//! What a server holds is bounded, whatever others do: looked at after every turn of a role.

use super::nature::{Micros, Nature};
use super::server::SimServer;
use super::surroundings::SimConnection;
use super::turns::{Living, Seated};
use crate::host::ServerCore;
use crate::host::checkpoints::PARTS_MAX;
use crate::host::queue::RESERVED;
use crate::paxos::{HARD_FACTOR, LEARNER_WINDOW};
use crate::role::RoleName;

/// The checkpointer's own jobs: a checkpoint at a time, and what a life begins with.
const OWN_JOBS: usize = 4;

impl SimServer {
    /// Whether all that it holds is within its limits.
    pub fn check_bounds(&self, nature: &mut Nature) {
        let (me, Some(process)) = (self.me, &self.process) else { return };
        let mut within = |what: &str, has: u64, most: u64| {
            nature.ghost.require(24, has <= most, || format!("{me} holds {has} {what}, and the limit is {most}"));
        };
        let (core, mailbox) = (&process.core, (self.sizes.mailbox + RESERVED) as u64);
        within("inputs of its proposer", core.proposer.lock().len() as u64, mailbox);
        within("inputs of its acceptor", core.acceptor.lock().len() as u64, mailbox);
        within("inputs of its learner", core.learner.lock().len() as u64, mailbox);
        if let Some(learner) = process.learner.as_ref().map(|living| living.role()) {
            within("bytes in its log", learner.log_bytes(), HARD_FACTOR * self.retention.keep_bytes);
            within("slots that are not applied", learner.open_slots() as u64, LEARNER_WINDOW);
            within("sessions", learner.machine().sessions().len() as u64, self.sizes.sessions as u64);
        }
        within("jobs of its checkpointer", core.checkpoints.len() as u64, (PARTS_MAX + OWN_JOBS) as u64);
        self.check_mail(nature);
    }

    /// Mail for which no role is woken lies until the role's next timer, and no longer.
    fn check_mail(&self, nature: &mut Nature) {
        fn lies_for_ever<R: Seated>(core: &ServerCore<SimConnection>, living: Option<&Living<R>>, now: Micros) -> bool {
            let Some(living) = living else { return false };
            let queue = R::mailbox(core).lock();
            queue.sleeps && !queue.is_empty() && !living.wakes_after(now)
        }
        let (me, Some(process)) = (self.me, &self.process) else { return };
        let (core, now) = (&process.core, nature.now());
        let roles = [
            (RoleName::Proposer, lies_for_ever(core, process.proposer.as_deref(), now)),
            (RoleName::Acceptor, lies_for_ever(core, process.acceptor.as_deref(), now)),
            (RoleName::Learner, lies_for_ever(core, process.learner.as_deref(), now)),
            (RoleName::Coordinator, lies_for_ever(core, process.coordinator.as_deref(), now)),
            (RoleName::Participant, lies_for_ever(core, process.participant.as_deref(), now)),
        ];
        for (role, lies) in roles {
            nature.ghost.require(44, !lies, || format!("the {role:?} of {me} sleeps over its mail, and has no timer"));
        }
    }
}
