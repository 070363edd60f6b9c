//! Acceptors that do not keep what they have promised or accepted.

use super::Bug;
use super::wrapper::Wrapped;
use crate::paxos::{Acceptor, AcceptorRecord, AcceptorTraceEvent, Message, NackedRequest, Page};
use crate::role::{Action, Input, Output, ServerSet};

impl Wrapped for Acceptor {
    fn hears(&self, bug: Bug, input: Input<Self>, out: &mut Output<Self>) -> Vec<Input<Self>> {
        if bug == Bug::EqualBallotRefused
            && let Input::Message { from: to, message: Message::Accept { ballot, first, .. } } = input
            && ballot == self.promised()
        {
            let (refused, promised) = (NackedRequest::Accept(first), ballot);
            out.emit_step(|| AcceptorTraceEvent::Nacked { to, ballot, refused, promised });
            out.send(ServerSet::only(to), Message::Nack { ballot, refused, promised });
            return Vec::new();
        }
        vec![input]
    }

    fn remembers(bug: Bug, records: &mut Vec<AcceptorRecord>) {
        records.retain(|record| match record {
            AcceptorRecord::Promised(_) => bug != Bug::PromiseNotWritten,
            AcceptorRecord::Accepted(_) => bug != Bug::AcceptedNotWritten,
            _ => true,
        });
    }

    fn says(&self, bug: Bug, actions: &mut Vec<Action<Self>>) {
        for action in actions {
            let Action::Send { to, message } = action else { continue };
            match message {
                Message::Promise { ballot, page: Page { accepted, .. } } => match bug {
                    Bug::PromiseWithoutValue => accepted.clear(),
                    Bug::AcceptedIsCleared => drop(accepted.drain(..accepted.len().saturating_sub(1))),
                    // Before the promise, nothing was accepted at this ballot, so this clears everything.
                    Bug::PromiseClears => accepted.retain(|entry| entry.ballot == *ballot),
                    Bug::OneBallotVariable => accepted.iter_mut().for_each(|entry| entry.ballot = *ballot),
                    _ => {}
                },
                Message::Accepted { ballot, .. } if bug == Bug::AcceptedNamesLaterBallot => {
                    *ballot = self.promised();
                    *to = ServerSet::only(ballot.server);
                }
                _ => {}
            }
        }
    }
}
