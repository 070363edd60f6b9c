//! Which roles serve the clients of a server, and how they are asked: by the family of its protocol, chosen at the start.

use std::sync::atomic::Ordering;

use super::core::ServerCore;
use super::env::Env;
use super::limits::Connection;
use super::queue::{Lost, Mail};
use crate::kv::{Get, Kv};
use crate::net::WhyNotApplied;
use crate::paxos::{Command, Learner, LearnerRequest, Proposer, ProposerRequest};
use crate::protocol::Family;
use crate::role::{Input, RoleName};
use crate::trace::Context;
use crate::two_phase_commit::{Coordinator, CoordinatorRequest, Participant, ParticipantRequest};

impl<C: Connection> ServerCore<C> {
    /// Hands a command to the role that gets it through. An error is certain.
    pub(super) fn hand_over<E: Env<Connection = C>>(
        &self,
        env: &E,
        command: Command,
        context: Context,
    ) -> Result<(), WhyNotApplied> {
        let size = command.payload.len();
        match self.family {
            Family::Paxos => {
                let input = Input::Request(ProposerRequest::Propose(command));
                // A leader that has something under way does not begin anything small before that is done.
                let is_little = |waiting| waiting < self.hints.worth.load(Ordering::Relaxed);
                let posted = self.leave::<Proposer, E>(env, Mail::from_within(context, input, size), is_little);
                posted.map_err(|lost| not_taken(RoleName::Proposer, lost))
            }
            Family::TwoPhaseCommit => {
                let input = Input::Request(CoordinatorRequest::Propose(command));
                let posted = self.post::<Coordinator, E>(env, Mail::from_within(context, input, size));
                posted.map_err(|lost| not_taken(RoleName::Coordinator, lost))
            }
        }
    }

    /// Asks the role that knows what was written. An error is certain.
    pub(super) fn look_up<E: Env<Connection = C>>(
        &self,
        env: &E,
        token: u64,
        query: Get,
        context: Context,
    ) -> Result<(), WhyNotApplied> {
        match self.family {
            Family::Paxos => {
                let input = Input::Request(LearnerRequest::Read { token, query });
                // It is for the next round of questions: the end of the one under way wakes the learner.
                let is_early = |_| self.hints.round.load(Ordering::Relaxed) != 0;
                let posted = self.leave::<Learner<Kv>, E>(env, Mail::from_within(context, input, 0), is_early);
                posted.map_err(|lost| not_taken(RoleName::Learner, lost))
            }
            Family::TwoPhaseCommit => {
                let input = Input::Request(ParticipantRequest::Read { token, query });
                let posted = self.post::<Participant, E>(env, Mail::from_within(context, input, 0));
                posted.map_err(|lost| not_taken(RoleName::Participant, lost))
            }
        }
    }
}

/// The role has not even seen the request.
fn not_taken(role: RoleName, lost: Lost) -> WhyNotApplied {
    match lost {
        Lost::Down => WhyNotApplied::RoleDown(role),
        Lost::Full => WhyNotApplied::Busy,
    }
}
