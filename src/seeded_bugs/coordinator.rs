//! Coordinators that lose a decision, or a transaction number, on which others depend.

use super::Bug;
use super::wrapper::Wrapped;
use crate::role::{Input, Output, ServerId};
use crate::two_phase_commit::{CommitMessage, Coordinator, CoordinatorRecord};

impl Wrapped for Coordinator {
    fn hears(&self, bug: Bug, input: Input<Self>, _out: &mut Output<Self>) -> Vec<Input<Self>> {
        match input {
            // The first ACK counts as one from every server.
            Input::Message { message: CommitMessage::Ack { transaction }, .. } if bug == Bug::CommitForgottenEarly => {
                let ack = |from| Input::Message { from: ServerId(from), message: CommitMessage::Ack { transaction } };
                (1..=ServerId::MAX).map(ack).collect()
            }
            _ => vec![input],
        }
    }

    fn remembers(bug: Bug, records: &mut Vec<CoordinatorRecord>) {
        records.retain(|record| match record {
            CoordinatorRecord::Committed(_) => bug != Bug::DecisionBeforeDurable,
            CoordinatorRecord::Reserved(_) => bug != Bug::TransactionNumbersReused,
            CoordinatorRecord::Ended(_) => true,
        });
    }
}
