//! What the shell of each role adds to the common one: its lines, its outcomes, and what it shows of itself.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::house::House;
use super::mailbox::Mailbox;
use super::runner::Shell;
use crate::host::queue::Mail;
use crate::kv::{Get, Kv};
use crate::net::{Reply, WhyNotApplied};
use crate::paxos::{
    Acceptor, AcceptorFact, AcceptorOutcome, AcceptorRequest, Learner, LearnerFact, LearnerOutcome, LearnerRequest,
    Message, Proposer, ProposerFact, ProposerOutcome, ProposerRequest, StateMachine,
};
use crate::role::{Input, RoleName};
use crate::storage::checkpoint::Mark;
use crate::trace::{self, Context, Digest, Draft, Event, RoleTag};

/// The shell of a proposer.
#[derive(Clone)]
pub struct ProposerShell(pub Arc<House>);

impl Shell<Proposer> for ProposerShell {
    fn name(&self) -> RoleName {
        RoleName::Proposer
    }

    fn house(&self) -> &House {
        &self.0
    }

    fn mailbox(&self) -> &Mailbox<Proposer> {
        &self.0.proposer
    }

    fn draft(&self, fact: &ProposerFact, context: &Context) -> Draft {
        trace::proposer(fact, context)
    }

    fn outcome(&self, outcome: ProposerOutcome, context: Context) {
        let ProposerOutcome::NotApplied { id, why } = outcome;
        self.0.pending.not_applied(id, WhyNotApplied::Proposer(why), &context);
    }

    fn publish(&self, role: &Proposer) {
        let demand = &self.0.demand;
        demand.wants_applied.store(role.wants_applied(), Ordering::Relaxed);
        demand.worth.store(role.worth(), Ordering::Relaxed);
        self.0.board.update(|shown| shown.set_leader(role.leader()));
    }
}

/// The shell of an acceptor.
#[derive(Clone)]
pub struct AcceptorShell(pub Arc<House>);

impl Shell<Acceptor> for AcceptorShell {
    fn name(&self) -> RoleName {
        RoleName::Acceptor
    }

    fn house(&self) -> &House {
        &self.0
    }

    fn mailbox(&self) -> &Mailbox<Acceptor> {
        &self.0.acceptor
    }

    fn draft(&self, fact: &AcceptorFact, context: &Context) -> Draft {
        trace::acceptor(fact, context)
    }

    fn outcome(&self, outcome: AcceptorOutcome, context: Context) {
        match outcome {
            AcceptorOutcome::Damaged { slots } => {
                let input = Input::Request(LearnerRequest::Mend(slots));
                // Lost if the learner is down or busy: it hears again with the next checkpoint.
                let _ = self.0.learner.post(Mail { context, input, size: 0 });
            }
        }
    }

    fn publish(&self, role: &Acceptor) {
        self.0.board.update(|shown| {
            shown.promised = role.promised();
            shown.accepted = role.accepted().len() as u64;
            shown.truncated_below = role.truncated_below();
            shown.damaged = role.damaged().iter().map(|range| range.last.ahead_of(range.first) + 1).sum();
        });
    }

    /// A promise needs little, and a server that could not promise would be as good as dead. A value needs room.
    fn needs_room(&self, input: &Input<Acceptor>) -> bool {
        matches!(input, Input::Message { message: Message::Accept { .. }, .. })
    }

    fn tell_room(&self, has_room: bool) {
        self.0.set_room(RoleName::Acceptor, has_room);
        if !has_room {
            let why = "there is no room for the next file of the journal: new values are refused until there is, promises \
                       go on. Free some space";
            self.0.tell_fault("disk", "full", why);
        }
    }
}

/// The shell of a learner, and whether the proposer is about to write to the peers.
#[derive(Clone)]
pub struct LearnerShell(Arc<House>, Cell<bool>);

impl LearnerShell {
    /// The shell of this server's learner.
    pub fn new(house: Arc<House>) -> LearnerShell {
        LearnerShell(house, Cell::new(false))
    }

    /// Says something to the learner whose shell this is.
    fn tell_learner(&self, request: LearnerRequest<Get>) {
        let mail = Mail { context: Context::default(), input: Input::Request(request), size: 0 };
        let _ = self.0.learner.post_reserved(mail);
    }
}

impl Shell<Learner<Kv>> for LearnerShell {
    fn name(&self) -> RoleName {
        RoleName::Learner
    }

    fn house(&self) -> &House {
        &self.0
    }

    fn mailbox(&self) -> &Mailbox<Learner<Kv>> {
        &self.0.learner
    }

    fn draft(&self, fact: &LearnerFact<crate::kv::Outcome>, context: &Context) -> Draft {
        trace::learner(fact, self.0.cluster, context)
    }

    fn outcome(&self, outcome: LearnerOutcome<Kv>, context: Context) {
        match outcome {
            LearnerOutcome::Applied { id, outcome, .. } => {
                if let Some(id) = id {
                    self.0.pending.applied(id, outcome, &context);
                }
            }
            LearnerOutcome::Advanced { applied, ids } => {
                let input = Input::Request(ProposerRequest::Applied { slot: applied, ids });
                let mail = Mail { context, input, size: 0 };
                let wants = || self.0.demand.wants_applied.load(Ordering::Relaxed);
                // Lost if the proposer is down or busy: the learner's next beat tells it the same slot.
                let is_told = self.0.proposer.leave(mail, |_| !wants()).is_ok();
                // It goes on at once, and what it writes to the peers takes along what was said here.
                self.1.set(is_told && wants());
            }
            LearnerOutcome::Answer { token, slot, answer } => {
                let value = answer.value.map(serde_bytes::ByteBuf::from);
                self.0.pending.tell_read(token, Reply::Value { slot, value, version: answer.version }, &context);
            }
            LearnerOutcome::ReadFailed { token, answered } => {
                let reply = Reply::NotApplied(WhyNotApplied::NoReadQuorum(answered));
                self.0.pending.tell_read(token, reply, &context);
            }
            LearnerOutcome::Checkpoint { slot, digest, changes } => {
                let is_taken = self.0.keeper.get().is_some_and(|keeper| keeper.write(Mark { slot, digest }, changes));
                if !is_taken {
                    self.tell_learner(LearnerRequest::CheckpointEnded { slot, is_durable: false });
                }
            }
            LearnerOutcome::Durable { slot } => {
                let input = Input::Request(AcceptorRequest::Truncate { below: slot.next() });
                // Lost if the acceptor is down: the next checkpoint comes, and one below it is none too many.
                let _ = self.0.acceptor.post_reserved(Mail { context, input, size: 0 });
            }
            LearnerOutcome::SnapshotAsked { to, part } => {
                self.0.keeper.get().into_iter().for_each(|keeper| keeper.send_part(to, part.clone()));
            }
            LearnerOutcome::Installed { slot, digest, from } => {
                if !self.0.trace.steps() {
                    // With steps it is one of them, and stands among them.
                    let event = Event::Snapshot { slot, digest: Digest(digest), from: Some(from) };
                    self.0.line(RoleTag::Learner, &context, event);
                }
                self.0.pending.snapshot_installed();
                // What was applied in between was said by nobody here.
                self.tell_learner(LearnerRequest::Recall(self.0.pending.waiting()));
                let input = Input::Request(ProposerRequest::Applied { slot, ids: Vec::new() });
                let _ = self.0.proposer.post(Mail { context, input, size: 0 });
            }
            LearnerOutcome::Recalled { slot, id, outcome } => {
                self.0.pending.applied(id, outcome, &context);
                let input = Input::Request(ProposerRequest::Applied { slot, ids: vec![id] });
                let _ = self.0.proposer.post(Mail { context, input, size: 0 });
            }
            LearnerOutcome::Mended { entries } => {
                let size = entries.iter().map(|entry| entry.value.size()).sum();
                let input = Input::Request(AcceptorRequest::Mend { entries });
                let _ = self.0.acceptor.post(Mail { context, input, size });
            }
            LearnerOutcome::Fenced { slot, equal, against } => {
                self.0.fence(trace::fenced(slot, equal, against), slot);
            }
        }
    }

    fn leaves_flush(&self) -> bool {
        self.1.take()
    }

    fn publish(&self, role: &Learner<Kv>) {
        let demand = &self.0.demand;
        demand.applied.store(role.applied().0, Ordering::Relaxed);
        demand.round.store(role.round().unwrap_or_default() as u64, Ordering::Relaxed);
        demand.is_learner_behind.store(role.known() > role.applied(), Ordering::Relaxed);
        self.0.board.update(|shown| {
            shown.applied = role.applied();
            shown.known = role.known();
            shown.digest = role.machine().digest();
            shown.history = role.machine().history();
            shown.keys = role.machine().store().len() as u64;
            shown.sessions = role.machine().sessions().len() as u64;
        });
    }
}
