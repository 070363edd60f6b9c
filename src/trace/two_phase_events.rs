//! Events of two-phase commit: converts trace events of coordinators and participants into log lines.

use std::time::Duration;

use super::event::Event;
use super::line::{Speaker, TraceContext};
use super::paxos_events::{DisplayedValue, applied};
use super::quoted::QuotedText;
use super::values::{DecisionReason, TransactionState, VoteValue};
use super::writer::PendingLine;
use crate::paxos::Value;
use crate::role::{ServerId, ServerSet};
use crate::two_phase_commit::{
    CoordinatorTraceEvent, Decision, InquiryReply, ParticipantTraceEvent, TransactionBody, TransactionId, Vote,
    VoteNoReason,
};

/// The line of a coordinator's trace event.
pub fn coordinator(fact: &CoordinatorTraceEvent, context: &TraceContext) -> PendingLine {
    match fact {
        CoordinatorTraceEvent::Requested { transaction, work, to } => {
            let DisplayedValue { op, key, val: value, if_version, .. } = shown(work);
            let evict = work.evict;
            let event = Event::VoteReq { tx: *transaction, op, key, value, if_version, evict, to: *to };
            let draft = about(Speaker::Coordinator, event, work, context);
            match evict {
                Some(_) => draft.reason("the session table is full: the session idle for longest is evicted"),
                None => draft,
            }
        }
        CoordinatorTraceEvent::Decided { transaction, decision, work, yes, no, to } => {
            let reason = DecisionReason::First;
            let (decision, no_of) = (decided(*decision), no.map(|(server, _)| server));
            let event = Event::Decide { tx: *transaction, decision, reason, yes: *yes, no: no_of, to: *to };
            about(Speaker::Coordinator, event, work, context).reason(decision_reason(decision, *yes, *no, *to))
        }
        CoordinatorTraceEvent::DecisionResent { transaction, decision, presumed, to } => {
            let reason = if *presumed { DecisionReason::Presumed } else { DecisionReason::Again };
            let (decision, yes) = (decided(*decision), ServerSet::NONE);
            let event = Event::Decide { tx: *transaction, decision, reason, yes, no: None, to: *to };
            PendingLine::about(Speaker::Coordinator, event, context).reason(match presumed {
                true => "the coordinator has no record of a commit, so the transaction is presumed aborted",
                false => "the commit is on its disk, and these participants have not acknowledged it",
            })
        }
        CoordinatorTraceEvent::Ended { transaction } => {
            let draft = PendingLine::about(Speaker::Coordinator, Event::End { tx: *transaction }, context);
            draft.reason("all participants have acknowledged and none will inquire: the record may be dropped")
        }
    }
}

/// The line of a participant's trace event.
pub fn participant(fact: &ParticipantTraceEvent, context: &TraceContext) -> PendingLine {
    match fact {
        ParticipantTraceEvent::Voted { transaction, work, vote, to } => {
            let (vote, cause, by, why) = voted(vote);
            let event = Event::Vote { tx: *transaction, vote, cause: cause.map(QuotedText::new), by, to: *to };
            about(Speaker::Participant, event, work, context).reason(why)
        }
        ParticipantTraceEvent::Committed { transaction, work, outcome, applied: count, to } => {
            let DisplayedValue { op, key, val: value, if_version, .. } = shown(work);
            let (result, version, session) = applied(outcome);
            let id = Some(work.command.id.into());
            let (tx, applied, to) = (*transaction, *count, *to);
            let event = Event::Ack { tx, op, key, value, if_version, id, result, version, session, applied, to };
            about(Speaker::Participant, event, work, context)
        }
        ParticipantTraceEvent::Aborted { transaction, work } => {
            let event = Event::Aborted { tx: *transaction };
            about(Speaker::Participant, event, work, context).reason("nothing changes, and the key is unlocked")
        }
        ParticipantTraceEvent::GivenUp { transaction, to } => {
            let event = Event::GiveUp { tx: *transaction, to: *to };
            PendingLine::about(Speaker::Participant, event, context)
                .reason("it has not voted yes, so it may refuse; the refusal is on its disk")
        }
        ParticipantTraceEvent::Inquired { transaction, work, to } => {
            let event = Event::Inquire { tx: *transaction, to: *to };
            about(Speaker::Participant, event, work, context).reason(
                "it has voted yes and has no decision: a server that knows it, or has not voted, can resolve it",
            )
        }
        ParticipantTraceEvent::Answered { transaction, known, to } => {
            let known = match known {
                InquiryReply::Decided(decision) => decided(*decision),
                InquiryReply::Prepared => TransactionState::Prepared,
                InquiryReply::Voting => TransactionState::Voting,
            };
            PendingLine::about(Speaker::Participant, Event::Answer { tx: *transaction, known, to: *to }, context)
        }
        ParticipantTraceEvent::ReadWaits { by, query } => {
            let event = Event::Wait { tx: *by, key: QuotedText::new(&query.key) };
            PendingLine::about(Speaker::Participant, event, context)
                .reason("the key is locked by a write whose decision is not known here yet")
        }
        ParticipantTraceEvent::Blocked { transaction, work, prepared, silent, waited_ms } => {
            let coordinator = transaction.coordinator;
            let waited = Duration::from_millis(*waited_ms).into();
            let (prepared, silent, key) = (*prepared, *silent, shown(work).key);
            let event = Event::Blocked { tx: *transaction, key, coordinator, prepared, silent, waited };
            about(Speaker::Participant, event, work, context).reason(format!(
                "all participants that reply have voted yes, and the coordinator on {coordinator} does not reply: it may \
                 have committed or not, so none of them may decide; the key stays locked until {coordinator} replies"
            ))
        }
    }
}

fn shown(work: &TransactionBody) -> DisplayedValue {
    DisplayedValue::new(&Value::Command(work.command.clone()))
}

/// A line about a transaction has the label of its command, whichever message led to it.
fn about(role: Speaker, event: Event, work: &TransactionBody, context: &TraceContext) -> PendingLine {
    let draft = PendingLine::about(role, event, context);
    PendingLine { req: shown(work).req.or(draft.req), ..draft }
}

fn decided(decision: Decision) -> TransactionState {
    match decision {
        Decision::Commit => TransactionState::Commit,
        Decision::Abort => TransactionState::Abort,
    }
}

fn voted(vote: &Vote) -> (VoteValue, Option<&'static str>, Option<TransactionId>, String) {
    let no = |cause, by, why: String| (VoteValue::No, Some(cause), by, why);
    match vote {
        Vote::Yes(_) => (
            VoteValue::Yes,
            None,
            None,
            "prepared on its disk: from now on it must follow the coordinator's decision".into(),
        ),
        Vote::No(VoteNoReason::Locked(by)) => {
            no("locked", Some(*by), format!("{by} holds the lock and is not decided here"))
        }
        Vote::No(VoteNoReason::Settled(_)) => {
            no("settled", None, "the result of this command is already known: there is nothing to do".into())
        }
        Vote::No(VoteNoReason::Full(oldest)) => {
            no("full", None, format!("the session table is full; session {oldest} has been idle for longest"))
        }
        Vote::No(VoteNoReason::Late) => {
            no("late", None, "too late: it has refused this transaction, or dropped its decision".into())
        }
        Vote::No(VoteNoReason::Busy) => no("busy", None, "too many transactions are undecided here".into()),
    }
}

fn decision_reason(
    decision: TransactionState,
    yes: ServerSet,
    no: Option<(ServerId, VoteNoReason)>,
    asked: ServerSet,
) -> String {
    match (decision, no) {
        (TransactionState::Commit, _) => {
            "all participants voted yes, and the decision is on its disk: the transaction is committed".to_string()
        }
        (_, Some((server, _))) => format!("{server} voted no, and a commit needs the votes of all"),
        (_, None) => format!("no vote from {} within 300 ms, and a commit needs the votes of all", asked.without(yes)),
    }
}
