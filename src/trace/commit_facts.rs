//! The lines of two-phase commit: from what a coordinator or participant states to what a line says.

use std::time::Duration;

use super::event::Event;
use super::facts::{Shown, applied};
use super::line::{Context, RoleTag};
use super::text::Text;
use super::word::{Decided, Told, Voted};
use super::writer::Draft;
use crate::paxos::Value;
use crate::role::{Server, Servers};
use crate::two_phase_commit::{CoordinatorFact, Decision, Known, ParticipantFact, Refusal, TransactionId, Vote, Work};

/// The line of a coordinator's fact.
pub fn coordinator(fact: &CoordinatorFact, context: &Context) -> Draft {
    match fact {
        CoordinatorFact::Requested { transaction, work, to } => {
            let Shown { op, key, val: value, if_version, .. } = shown(work);
            let evict = work.evict;
            let event = Event::VoteReq { tx: *transaction, op, key, value, if_version, evict, to: *to };
            let draft = about(RoleTag::Coordinator, event, work, context);
            match evict {
                Some(_) => draft.why("the table of sessions is full: the one that was quiet for longest goes"),
                None => draft,
            }
        }
        CoordinatorFact::Decided { transaction, decision, work, yes, no, to } => {
            let told = Told::First;
            let (decision, no_of) = (decided(*decision), no.map(|(server, _)| server));
            let event = Event::Decide { tx: *transaction, decision, told, yes: *yes, no: no_of, to: *to };
            about(RoleTag::Coordinator, event, work, context).why(why_decided(decision, *yes, *no, *to))
        }
        CoordinatorFact::ToldAgain { transaction, decision, presumed, to } => {
            let told = if *presumed { Told::Presumed } else { Told::Again };
            let (decision, yes) = (decided(*decision), Servers::NONE);
            let event = Event::Decide { tx: *transaction, decision, told, yes, no: None, to: *to };
            Draft::about(RoleTag::Coordinator, event, context).why(match presumed {
                true => "it has no record of a commit: then there was none, and nobody may do it",
                false => "its record says so, and they have not acknowledged it",
            })
        }
        CoordinatorFact::Ended { transaction } => {
            let draft = Draft::about(RoleTag::Coordinator, Event::End { tx: *transaction }, context);
            draft.why("all have acknowledged: nobody can ask any more, so it may be forgotten")
        }
    }
}

/// The line of a participant's fact.
pub fn participant(fact: &ParticipantFact, context: &Context) -> Draft {
    match fact {
        ParticipantFact::Voted { transaction, work, vote, to } => {
            let (vote, cause, by, why) = voted(vote);
            let event = Event::Vote { tx: *transaction, vote, cause: cause.map(Text::new), by, to: *to };
            about(RoleTag::Participant, event, work, context).why(why)
        }
        ParticipantFact::Committed { transaction, work, outcome, applied: count, to } => {
            let Shown { op, key, val: value, if_version, .. } = shown(work);
            let (result, version, session) = applied(outcome);
            let id = Some(work.command.id.into());
            let (tx, applied, to) = (*transaction, *count, *to);
            let event = Event::Ack { tx, op, key, value, if_version, id, result, version, session, applied, to };
            about(RoleTag::Participant, event, work, context)
        }
        ParticipantFact::Aborted { transaction, work } => {
            let event = Event::Aborted { tx: *transaction };
            about(RoleTag::Participant, event, work, context).why("nothing has changed, and its key is free again")
        }
        ParticipantFact::GivenUp { transaction, to } => {
            let event = Event::GiveUp { tx: *transaction, to: *to };
            Draft::about(RoleTag::Participant, event, context)
                .why("it has not voted for it, so it is free to say no; that it said so is on its disk")
        }
        ParticipantFact::Inquired { transaction, work, to } => {
            let event = Event::Inquire { tx: *transaction, to: *to };
            about(RoleTag::Participant, event, work, context)
                .why("it has voted yes and hears no decision: whoever knows it, or has not voted, can help")
        }
        ParticipantFact::Answered { transaction, known, to } => {
            let known = match known {
                Known::Decided(decision) => decided(*decision),
                Known::Prepared => Decided::Prepared,
                Known::Voting => Decided::Voting,
            };
            Draft::about(RoleTag::Participant, Event::Answer { tx: *transaction, known, to: *to }, context)
        }
        ParticipantFact::ReadWaits { by, query } => {
            let event = Event::Wait { tx: *by, key: Text::new(&query.key) };
            Draft::about(RoleTag::Participant, event, context)
                .why("the key is locked: whether its write is done is not known here yet")
        }
        ParticipantFact::Blocked { transaction, work, prepared, silent, waited_ms } => {
            let coordinator = transaction.coordinator;
            let waited = Duration::from_millis(*waited_ms).into();
            let (prepared, silent, key) = (*prepared, *silent, shown(work).key);
            let event = Event::Blocked { tx: *transaction, key, coordinator, prepared, silent, waited };
            about(RoleTag::Participant, event, work, context).why(format!(
                "all who answer have voted yes, and the coordinator on {coordinator} is not heard: it may have committed \
                 or not, so nobody here may decide; the key stays locked until {coordinator} is back"
            ))
        }
    }
}

fn shown(work: &Work) -> Shown {
    Shown::new(&Value::Command(work.command.clone()))
}

/// A line about a transaction has the label of its command, whatever message led to it.
fn about(role: RoleTag, event: Event, work: &Work, context: &Context) -> Draft {
    let draft = Draft::about(role, event, context);
    Draft { req: shown(work).req.or(draft.req), ..draft }
}

fn decided(decision: Decision) -> Decided {
    match decision {
        Decision::Commit => Decided::Commit,
        Decision::Abort => Decided::Abort,
    }
}

fn voted(vote: &Vote) -> (Voted, Option<&'static str>, Option<TransactionId>, String) {
    let no = |cause, by, why: String| (Voted::No, Some(cause), by, why);
    match vote {
        Vote::Yes(_) => (Voted::Yes, None, None, "prepared, on its disk: from here on it does what it is told".into()),
        Vote::No(Refusal::Locked(by)) => {
            no("locked", Some(*by), format!("{by} holds what it needs and is not decided here"))
        }
        Vote::No(Refusal::Settled(_)) => {
            no("settled", None, "there is nothing to do any more: what the command came to is known".into())
        }
        Vote::No(Refusal::Full(oldest)) => {
            no("full", None, format!("the table of sessions is full; session {oldest} has been quiet for longest"))
        }
        Vote::No(Refusal::Late) => no("late", None, "it has given this transaction up, or forgotten its time".into()),
        Vote::No(Refusal::Busy) => no("busy", None, "too many transactions are not decided here".into()),
    }
}

fn why_decided(decision: Decided, yes: Servers, no: Option<(Server, Refusal)>, asked: Servers) -> String {
    match (decision, no) {
        (Decided::Commit, _) => "all have voted yes, and the decision is on its disk: now it is true".to_string(),
        (_, Some((server, _))) => format!("{server} has voted no, and all must say yes"),
        (_, None) => format!("no vote from {} in 300 ms, and all must say yes", asked.without(yes)),
    }
}
