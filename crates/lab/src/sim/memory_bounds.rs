//! Limits on what a server holds in memory and on disk, whatever its peers and clients do. They are checked after every
//! turn of a role.

use super::env::{Micros, SimEnv};
use super::process_env::SimConnection;
use super::scheduler::{SimHosted, SimRole};
use super::server::SimServer;
use paxos_kv::host::ServerCore;
use paxos_kv::host::checkpoints::{PARTS_MAX, WRITES_MAX};
use paxos_kv::host::mail_queue::RESERVED;
use paxos_kv::host::role_disk::RoleDisk;
use paxos_kv::kv::{KEY_MAX_BYTES, Kv, VALUE_MAX_BYTES};
use paxos_kv::paxos::{LEARNER_WINDOW, Learner, PAGE_BYTES, StateMachine, most_pinned_bytes};
use paxos_kv::role::RoleKind;

/// Maximum number of the checkpointer's own jobs: writes, and the loads of initial states.
const OWN_JOBS: usize = WRITES_MAX + 3;

/// Size of the largest command with its key, in bytes.
const LARGEST_BYTES: usize = VALUE_MAX_BYTES + KEY_MAX_BYTES + 256;

impl SimServer {
    /// Checks that everything the server holds is within its limits.
    pub fn check_bounds(&self, sim_env: &mut SimEnv) {
        let (me, Some(process)) = (self.me, &self.process) else { return };
        let mut within = |what: &str, has: u64, most: u64| {
            sim_env.oracle.require(24, has <= most, || format!("{me} holds {has} {what}; the limit is {most}"));
        };
        let (core, mailbox) = (&process.core, (2 * self.sizes.mailbox + RESERVED) as u64);
        within("inputs of its proposer", core.proposer.lock().len() as u64, mailbox);
        within("inputs of its acceptor", core.acceptor.lock().len() as u64, mailbox);
        within("inputs of its learner", core.learner.lock().len() as u64, mailbox);
        if let Some(learner) = process.learner.as_ref().map(|sim_role| sim_role.role()) {
            let keep_bytes = self.retention.keep_bytes;
            let pinned = learner.log_pinned_from().map(|_| most_pinned_bytes(keep_bytes, learner.machine().size()));
            let hard = self.retention.log_max_bytes(learner.machine().size()).max(pinned.unwrap_or_default());
            within("bytes in its log", learner.log_bytes(), hard);
            if learner.log_begins() <= learner.durable() {
                // The start of the log is in the checkpoint too, and is kept only for peers that are behind.
                let most = pinned.unwrap_or(keep_bytes);
                within("bytes in its log that it could trim", learner.log_bytes(), most);
            }
            within("slots that are not applied", learner.unapplied_slots() as u64, LEARNER_WINDOW);
            within("sessions", learner.machine().sessions().len() as u64, self.sizes.sessions as u64);
        }
        within("jobs of its checkpointer", core.checkpoints.len() as u64, (PARTS_MAX + OWN_JOBS) as u64);
        if let Some(proposer) = process.proposer.as_ref().map(|sim_role| sim_role.role()) {
            let ((open, ahead), most) = (proposer.held_bytes(), self.sizes.in_flight_max_bytes + LARGEST_BYTES);
            within("bytes of values in flight", open as u64, most as u64);
            // In addition, a page from each acceptor may be in flight when the limit is reached.
            let pages = core.config.cluster.len() * (PAGE_BYTES + LARGEST_BYTES);
            within("bytes of values read ahead", ahead as u64, (self.sizes.in_flight_max_bytes + pages) as u64);
        }
        self.check_pins(sim_env);
        self.check_journal(sim_env);
        self.check_mail(sim_env);
    }

    /// Checks that the log holds what a peer needs after it has fetched the snapshot.
    fn check_pins(&self, sim_env: &mut SimEnv) {
        let learner = self.process.as_ref().and_then(|process| process.learner.as_ref());
        let learner: Option<&Learner<Kv>> = learner.map(|sim_role| sim_role.role());
        let Some((learner, from)) = learner.and_then(|learner| Some((learner, learner.log_pinned_from()?))) else {
            return;
        };
        let (me, begins) = (self.me, learner.log_begins());
        sim_env.oracle.require(45, begins <= from, || {
            format!("{me} must keep slot {from} for a peer, but its log begins at {begins}")
        });
    }

    /// Checks that a journal that waits for disk space holds no file that it does not need.
    fn check_journal(&self, sim_env: &mut SimEnv) {
        let Some(acceptor) = self.process.as_ref().and_then(|process| process.acceptor.as_ref()) else { return };
        let (me, disk) = (self.me, acceptor.host.disk());
        let is_shed = disk.has_space() || disk.unneeded() == 0;
        sim_env
            .oracle
            .require(46, is_shed, || format!("{me} waits for disk space, but has {} unneeded files", disk.unneeded()));
    }

    /// Checks that inputs for which no role is woken wait only until the role's next timer.
    fn check_mail(&self, sim_env: &mut SimEnv) {
        fn lies_for_ever<R: SimHosted>(
            core: &ServerCore<SimConnection>,
            sim_role: Option<&SimRole<R>>,
            now: Micros,
        ) -> bool {
            let Some(sim_role) = sim_role else { return false };
            let queue = R::mailbox(core).lock();
            queue.is_waiting && !queue.is_empty() && !sim_role.wakes_after(now)
        }
        let (me, Some(process)) = (self.me, &self.process) else { return };
        let (core, now) = (&process.core, sim_env.now());
        let roles = [
            (RoleKind::Proposer, lies_for_ever(core, process.proposer.as_deref(), now)),
            (RoleKind::Acceptor, lies_for_ever(core, process.acceptor.as_deref(), now)),
            (RoleKind::Learner, lies_for_ever(core, process.learner.as_deref(), now)),
            (RoleKind::Coordinator, lies_for_ever(core, process.coordinator.as_deref(), now)),
            (RoleKind::Participant, lies_for_ever(core, process.participant.as_deref(), now)),
        ];
        for (role, lies) in roles {
            sim_env
                .oracle
                .require(44, !lies, || format!("the {role:?} of {me} sleeps with mail in its mailbox and no timer"));
        }
    }
}
