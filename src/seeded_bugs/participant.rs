//! Participants that lose what they have promised, or do not wait for the decision.

use super::Bug;
use super::wrapper::Wrapped;
use crate::paxos::StateMachine;
use crate::role::{Input, Output, ServerSet};
use crate::two_phase_commit::{
    CommitMessage, Decision, InquiryReply, Participant, ParticipantNotification, ParticipantRecord, ParticipantRequest,
    ParticipantTimer, ParticipantTraceEvent, TransactionId,
};

/// Milliseconds that a participant with bug PreparedAbortsAlone waits for the decision; it aborts at the next look.
const PATIENCE_MS: u64 = 200;

impl Wrapped for Participant {
    fn hears(&self, bug: Bug, input: Input<Self>, out: &mut Output<Self>) -> Vec<Input<Self>> {
        match input {
            Input::Timeout(ParticipantTimer::Look) if bug == Bug::PreparedAbortsAlone => {
                let late = self.in_doubt().filter(|one| one.waited_ms >= PATIENCE_MS).map(|one| one.transaction);
                late.map(aborted).chain([input]).collect()
            }
            Input::Message { from, message: CommitMessage::Inquire { transaction } }
                if bug == Bug::GivenUpNotWritten && has_never_heard_of(self, transaction) =>
            {
                let known = InquiryReply::Decided(Decision::Abort);
                out.emit_step(|| ParticipantTraceEvent::GivenUp { transaction, to: from });
                out.emit_step(|| ParticipantTraceEvent::Answered { transaction, known, to: from });
                out.send(ServerSet::only(from), CommitMessage::Answer { transaction, known });
                Vec::new()
            }
            Input::Request(ParticipantRequest::Read { token, query }) if bug == Bug::ReadIgnoresLocks => {
                let (applied, answer) = (self.applied(), self.kv().query(&query));
                out.notify(ParticipantNotification::Answer { token, applied, answer });
                Vec::new()
            }
            _ => vec![input],
        }
    }

    fn remembers(bug: Bug, records: &mut Vec<ParticipantRecord>) {
        if bug == Bug::VoteNotWritten {
            records.retain(|record| !matches!(record, ParticipantRecord::Prepared { .. }));
        }
    }
}

/// An abort, as if the coordinator had sent it.
fn aborted(transaction: TransactionId) -> Input<Participant> {
    let message = CommitMessage::Decide { transaction, decision: Decision::Abort };
    Input::Message { from: transaction.coordinator, message }
}

/// Whether the participant has never heard of this transaction: not prepared, no known decision, and too new to be
/// forgotten.
fn has_never_heard_of(participant: &Participant, transaction: TransactionId) -> bool {
    let is_prepared = participant.in_doubt().any(|one| one.transaction == transaction);
    !is_prepared && participant.decision(transaction).is_none() && !participant.may_have_done(transaction)
}
