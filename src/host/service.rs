//! The service of a server's clients: which roles serve them, and how. The family of the protocol decides it at the
//! start.

use std::sync::atomic::Ordering;

use super::core::ServerCore;
use super::env::Env;
use super::limits::ClientConnection;
use super::mail_queue::{Delivery, SendError};
use crate::kv::{Kv, ReadQuery};
use crate::net::WhyNotApplied;
use crate::paxos::{Command, Learner, LearnerRequest, Proposer, ProposerRequest};
use crate::protocol::Family;
use crate::role::{Input, RoleKind};
use crate::trace::TraceContext;
use crate::two_phase_commit::{Coordinator, CoordinatorRequest, Participant, ParticipantRequest};

impl<C: ClientConnection> ServerCore<C> {
    /// Gives a command to the role that gets it applied. An error means certainly not applied.
    pub(super) fn submit<E: Env<Connection = C>>(
        &self,
        env: &E,
        command: Command,
        context: TraceContext,
    ) -> Result<(), WhyNotApplied> {
        let size = command.payload.len();
        match self.family {
            Family::Paxos => {
                let promised_round = self.hints.promised_round.load(Ordering::Relaxed);
                let input = Input::Request(ProposerRequest::Propose { command, promised_round });
                // A leader with slots in flight begins nothing small before they are done.
                let is_little = |waiting| waiting < self.hints.batch_threshold.load(Ordering::Relaxed);
                let posted = self.enqueue_without_wake::<Proposer, E>(
                    env,
                    Delivery::from_within(context, input, size),
                    is_little,
                );
                posted.map_err(|lost| busy_or_down(RoleKind::Proposer, lost))
            }
            Family::TwoPhaseCommit => {
                let input = Input::Request(CoordinatorRequest::Propose(command));
                let posted = self.enqueue::<Coordinator, E>(env, Delivery::from_within(context, input, size));
                posted.map_err(|lost| busy_or_down(RoleKind::Coordinator, lost))
            }
        }
    }

    /// Gives a read to the role that knows the written values. An error means that the read has failed.
    pub(super) fn look_up<E: Env<Connection = C>>(
        &self,
        env: &E,
        token: u64,
        query: ReadQuery,
        context: TraceContext,
    ) -> Result<(), WhyNotApplied> {
        match self.family {
            Family::Paxos => {
                let input = Input::Request(LearnerRequest::Read { token, query });
                // The read is for the next read round: the end of the round in flight wakes the learner.
                let is_early = |_| self.hints.round.load(Ordering::Relaxed) != 0;
                let posted = self.enqueue_without_wake::<Learner<Kv>, E>(
                    env,
                    Delivery::from_within(context, input, 0),
                    is_early,
                );
                posted.map_err(|lost| busy_or_down(RoleKind::Learner, lost))
            }
            Family::TwoPhaseCommit => {
                let input = Input::Request(ParticipantRequest::Read { token, query });
                let posted = self.enqueue::<Participant, E>(env, Delivery::from_within(context, input, 0));
                posted.map_err(|lost| busy_or_down(RoleKind::Participant, lost))
            }
        }
    }
}

/// The role has not received the request.
fn busy_or_down(role: RoleKind, lost: SendError) -> WhyNotApplied {
    match lost {
        SendError::Down => WhyNotApplied::RoleDown(role),
        SendError::Full => WhyNotApplied::Busy,
    }
}
