//! What the shells of two-phase commit's roles add to the common one.

use std::sync::Arc;

use super::house::House;
use super::mailbox::Mailbox;
use super::runner::Shell;
use crate::net::{Reply, WhyNotApplied};
use crate::paxos::Slot;
use crate::role::{Input, RoleName};
use crate::trace::{self, Context, Draft};
use crate::two_phase_commit::{
    Coordinator, CoordinatorFact, CoordinatorOutcome, Message, Participant, ParticipantFact, ParticipantOutcome,
};

/// The shell of a coordinator.
#[derive(Clone)]
pub struct CoordinatorShell(pub Arc<House>);

impl Shell<Coordinator> for CoordinatorShell {
    fn name(&self) -> RoleName {
        RoleName::Coordinator
    }

    fn house(&self) -> &House {
        &self.0
    }

    fn mailbox(&self) -> &Mailbox<Coordinator> {
        &self.0.coordinator
    }

    fn draft(&self, fact: &CoordinatorFact, context: &Context) -> Draft {
        trace::coordinator(fact, context)
    }

    fn outcome(&self, outcome: CoordinatorOutcome, context: Context) {
        match outcome {
            CoordinatorOutcome::Done { id, outcome } => self.0.pending.applied(id, outcome, &context),
            CoordinatorOutcome::NotApplied { id, why } => {
                self.0.pending.not_applied(id, WhyNotApplied::Coordinator(why), &context);
            }
        }
    }

    fn publish(&self, role: &Coordinator) {
        self.0.board.update(|shown| shown.accepted = role.unacknowledged() as u64);
    }

    fn tell_room(&self, has_room: bool) {
        tell_room(&self.0, RoleName::Coordinator, has_room);
    }
}

/// The shell of a participant.
#[derive(Clone)]
pub struct ParticipantShell(pub Arc<House>);

impl Shell<Participant> for ParticipantShell {
    fn name(&self) -> RoleName {
        RoleName::Participant
    }

    fn house(&self) -> &House {
        &self.0
    }

    fn mailbox(&self) -> &Mailbox<Participant> {
        &self.0.participant
    }

    fn draft(&self, fact: &ParticipantFact, context: &Context) -> Draft {
        trace::participant(fact, context)
    }

    fn outcome(&self, outcome: ParticipantOutcome, context: Context) {
        let (token, reply) = reply_of(outcome);
        self.0.pending.tell_read(token, reply, &context);
    }

    fn publish(&self, role: &Participant) {
        self.0.board.update(|shown| shown.set_participant(role));
    }

    /// A decision needs little, and without it the key would stay locked. A vote needs room for its command.
    fn needs_room(&self, input: &Input<Participant>) -> bool {
        matches!(input, Input::Message { message: Message::VoteRequest { .. }, .. })
    }

    fn tell_room(&self, has_room: bool) {
        tell_room(&self.0, RoleName::Participant, has_room);
    }
}

/// Both journals are on one disk: while either has no room, no command is taken.
fn tell_room(house: &House, role: RoleName, has_room: bool) {
    house.set_room(role, has_room);
    if !has_room {
        let why =
            "there is no room for the next file of a journal: no vote until there is, decisions go on. Free some space";
        house.tell_fault("disk", "full", why);
    }
}

/// What whoever asked for a read is told. There is no log: its place is how many transactions were committed before it.
pub fn reply_of(outcome: ParticipantOutcome) -> (u64, Reply) {
    match outcome {
        ParticipantOutcome::Answer { token, applied, answer } => {
            let value = answer.value.map(serde_bytes::ByteBuf::from);
            (token, Reply::Value { slot: Slot(applied), value, version: answer.version })
        }
        ParticipantOutcome::ReadFailed { token, by } => (token, Reply::NotApplied(WhyNotApplied::KeyLocked(by))),
    }
}
