//! What the shell of each role adds to the common one: its lines, its outcomes, and what it shows of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::house::House;
use super::mailbox::{Mail, Mailbox};
use super::runner::Shell;
use crate::kv::Kv;
use crate::net::{Reply, WhyNotApplied};
use crate::paxos::{
    Acceptor, AcceptorFact, AcceptorOutcome, Learner, LearnerFact, LearnerOutcome, Message, Proposer, ProposerFact,
    ProposerOutcome, ProposerRequest, StateMachine,
};
use crate::role::Input;
use crate::trace::{self, Context, Draft};

/// The shell of a proposer.
pub struct ProposerShell(pub Arc<House>);

impl Shell<Proposer> for ProposerShell {
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
        self.0.desk.not_applied(id, WhyNotApplied::Proposer(why), &context);
    }

    fn publish(&self, _role: &Proposer) {}
}

/// The shell of an acceptor.
pub struct AcceptorShell {
    /// The server.
    pub house: Arc<House>,
    /// The disk has room for another value.
    pub has_room: Arc<AtomicBool>,
}

impl Shell<Acceptor> for AcceptorShell {
    fn house(&self) -> &House {
        &self.house
    }

    fn mailbox(&self) -> &Mailbox<Acceptor> {
        &self.house.acceptor
    }

    fn draft(&self, fact: &AcceptorFact, context: &Context) -> Draft {
        trace::acceptor(fact, context)
    }

    fn outcome(&self, outcome: AcceptorOutcome, _context: Context) {
        match outcome {}
    }

    fn publish(&self, role: &Acceptor) {
        self.house.board.update(|shown| {
            shown.promised = role.promised();
            shown.accepted = role.accepted().len() as u64;
        });
    }

    fn must_shed(&self, input: &Input<Acceptor>) -> bool {
        matches!(input, Input::Message { message: Message::Accept { .. }, .. })
            && !self.has_room.load(Ordering::Relaxed)
    }
}

/// The shell of a learner.
pub struct LearnerShell(pub Arc<House>);

impl Shell<Learner<Kv>> for LearnerShell {
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
            LearnerOutcome::Applied { slot, id, outcome } => {
                if let Some(id) = id {
                    self.0.desk.applied(id, outcome, &context);
                }
                let input = Input::Request(ProposerRequest::Applied { slot, id });
                // Lost if the proposer is down or busy: the learner's next beat tells it the same slot.
                let _ = self.0.proposer.post(Mail { context, input, size: 0 });
            }
            LearnerOutcome::Answer { token, slot, answer } => {
                let value = answer.value.map(serde_bytes::ByteBuf::from);
                self.0.desk.tell_read(token, Reply::Value { slot, value, version: answer.version }, &context);
            }
            LearnerOutcome::ReadFailed { token, answered } => {
                let reply = Reply::NotApplied(WhyNotApplied::NoReadQuorum(answered));
                self.0.desk.tell_read(token, reply, &context);
            }
        }
    }

    fn publish(&self, role: &Learner<Kv>) {
        self.0.board.update(|shown| {
            shown.applied = role.applied();
            shown.known = role.known();
            shown.digest = role.machine().digest();
            shown.keys = role.machine().store().len() as u64;
            shown.sessions = role.machine().sessions().len() as u64;
        });
    }
}
