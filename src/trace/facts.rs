//! From what a role states to what a line says: names a fact's fields, decodes its command, and gives the reason in a
//! sentence. Roles know nothing of lines.

use super::event::Event;
use super::field::{AcceptedSlots, MaybeBallot, Nacks, SlotFrom};
use super::line::{Context, RoleTag};
use super::text::Text;
use super::word::{Applied, Op};
use super::writer::Draft;
use crate::kv::{self, Command, Outcome, Saved, Written};
use crate::paxos::{self, AcceptorFact, Ballot, LearnerFact, ProposerFact, RetryReason, Value};
use crate::role::{Server, Servers};

/// The line of a proposer's fact.
pub fn proposer(fact: &ProposerFact, context: &Context) -> Draft {
    match fact {
        ProposerFact::Prepared { ballot, from, to, command } => {
            let event = Event::Prepare { slot: SlotFrom(*from), ballot: *ballot, to: *to };
            let draft = Draft::about(RoleTag::Proposer, event, context);
            match command {
                Some(command) => about_command(draft, command),
                None => draft.why("to finish slots that others left open; with no command of its own"),
            }
        }
        ProposerFact::Proposed { slot, ballot, value, adopted, quorum, to } => {
            let Shown { op, key, val, if_version, req } = Shown::new(value);
            let event = Event::Accept {
                slot: *slot,
                ballot: *ballot,
                op,
                key,
                value: val,
                if_version,
                adopted: MaybeBallot(*adopted),
                quorum: *quorum,
                to: *to,
            };
            let draft = Draft::about(RoleTag::Proposer, event, context);
            Draft { req: req.or(draft.req), ..draft }.why(why_propose(value, *adopted))
        }
        ProposerFact::Retried { ballot, from, nacks, answered, next, reason, command } => {
            let event = Event::Retry { slot: *from, ballot: *ballot, nack: Nacks(nacks.clone()), next: *next };
            let draft = Draft::about(RoleTag::Proposer, event, context);
            let draft = command.iter().fold(draft, about_command);
            draft.why(why_retry(*reason, nacks, *answered, *next))
        }
    }
}

/// The line of an acceptor's fact.
pub fn acceptor(fact: &AcceptorFact, context: &Context) -> Draft {
    match fact {
        AcceptorFact::Promised { to, ballot, from, accepted } => {
            let accepted = AcceptedSlots::new(accepted);
            let event = Event::Promise { slot: SlotFrom(*from), ballot: *ballot, accepted, to: *to };
            Draft::about(RoleTag::Acceptor, event, context)
        }
        AcceptorFact::Nacked { to, ballot, refused, promised } => {
            let event = Event::Nack { slot: *refused, ballot: *ballot, promised: *promised, to: *to };
            let draft = Draft::about(RoleTag::Acceptor, event, context);
            draft.why(format!("already promised {promised} > {ballot}"))
        }
        AcceptorFact::Accepted { to, ballot, slot } => {
            let event = Event::Accepted { slot: *slot, ballot: *ballot, to: *to };
            Draft::about(RoleTag::Acceptor, event, context)
        }
    }
}

/// The line of a learner's fact; `cluster` are all servers, whom it tells what is chosen.
pub fn learner(fact: &LearnerFact<kv::Outcome>, cluster: Servers, context: &Context) -> Draft {
    match fact {
        LearnerFact::Chosen { slot, ballot, quorum } => {
            let event = Event::Chosen { slot: *slot, ballot: *ballot, quorum: *quorum, to: cluster };
            Draft::about(RoleTag::Learner, event, context)
        }
        LearnerFact::Learned { slot, ballot, value, outcome } => {
            let Shown { op, key, val, if_version, req } = Shown::new(value);
            let (result, version, session) = applied(outcome);
            let event = Event::Learn {
                slot: *slot,
                ballot: *ballot,
                op,
                key,
                value: val,
                if_version,
                id: value.id(),
                result,
                version,
                session,
                applied: *slot,
            };
            let draft = Draft::about(RoleTag::Learner, event, context);
            // The context may be another request's: what is applied may have waited for a slot before it.
            let draft = Draft { req, ..draft };
            match why_applied(outcome) {
                Some(why) => draft.why(why),
                None => draft,
            }
        }
        LearnerFact::CaughtUp { from, to, known } => {
            let event = Event::Catchup { from: *from, known: *known, to: *to };
            let draft = Draft::about(RoleTag::Learner, event, context);
            draft.why(format!("slot {known} is known to be chosen, and {from} is the first that is missing here"))
        }
        LearnerFact::Filled { slot, to } => {
            let event = Event::Fill { slot: *slot, to: *to };
            let draft = Draft::about(RoleTag::Learner, event, context);
            draft.why("a read waits for this slot, and nobody seems to finish it")
        }
    }
}

/// A value of the log as lines show it.
struct Shown {
    op: Op,
    key: Option<Text>,
    val: Option<Text>,
    if_version: Option<u64>,
    req: Option<String>,
}

impl Shown {
    fn new(value: &Value) -> Shown {
        let nothing = |op| Shown { op, key: None, val: None, if_version: None, req: None };
        let Value::Command(command) = value else { return nothing(Op::Noop) };
        let Ok(command) = Command::from_paxos(command) else { return nothing(Op::Unreadable) };
        let req = Some(command.label().to_owned());
        match command {
            Command::Open { .. } => Shown { req, ..nothing(Op::Open) },
            Command::Write { op: kv::Op::Put { key, value, if_version }, .. } => {
                Shown { op: Op::Put, key: Some(Text::new(key)), val: Some(Text::new(value)), if_version, req }
            }
            Command::Write { op: kv::Op::Delete { key }, .. } => {
                Shown { key: Some(Text::new(key)), req, ..nothing(Op::Delete) }
            }
        }
    }
}

/// A line about a command has the command's label, whoever's message led to it.
fn about_command(draft: Draft, command: &paxos::Command) -> Draft {
    match Command::from_paxos(command) {
        Ok(command) => Draft { req: Some(command.label().to_owned()), ..draft },
        Err(_) => draft,
    }
}

fn why_propose(value: &Value, adopted: Option<Ballot>) -> String {
    match (adopted, value) {
        (Some(ballot), _) => format!("must propose the value accepted at {ballot}"),
        (None, Value::Noop) => "nobody in the quorum had accepted a value in this hole: fills it with nothing".into(),
        (None, Value::Command(_)) => "nobody in the quorum had accepted a value: free to propose its own".into(),
    }
}

fn why_retry(reason: RetryReason, nacks: &[(Server, Ballot)], answered: Servers, next: u64) -> String {
    let lost = match reason {
        RetryReason::Refused => "a majority has refused",
        RetryReason::Nacked => "not chosen 20 ms after the first NACK",
        RetryReason::Silence => "too few have answered in time",
    };
    match nacks.iter().map(|(_, promised)| *promised).max() {
        Some(rival) => format!("{lost}; a rival holds {rival}, so the next round is {next}"),
        None => format!("{lost}; heard from: {answered}"),
    }
}

fn applied(outcome: &Outcome) -> (Applied, Option<u64>, Option<u64>) {
    let version = |written: &Written| match *written {
        Written::Done { version } | Written::NotFound { version } | Written::Mismatch { version } => Some(version),
    };
    match outcome {
        Outcome::Noop => (Applied::Noop, None, None),
        Outcome::Opened { session } => (Applied::Opened, None, Some(*session)),
        Outcome::Applied(Saved { written, .. }) => {
            let result = match written {
                Written::Done { .. } => Applied::Ok,
                Written::NotFound { .. } => Applied::NotFound,
                Written::Mismatch { .. } => Applied::Mismatch,
            };
            (result, version(written), None)
        }
        Outcome::Duplicate(Saved { slot, written }) => (Applied::Duplicate { first: *slot }, version(written), None),
        Outcome::Superseded => (Applied::Superseded, None, None),
        Outcome::Expired => (Applied::Expired, None, None),
        Outcome::Unreadable => (Applied::Unreadable, None, None),
    }
}

fn why_applied(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Duplicate(Saved { slot, .. }) => {
            Some(format!("this write was applied in slot {slot} already: its result is kept, nothing changes"))
        }
        Outcome::Superseded => Some("its client no longer asks for this write: nothing changes".into()),
        Outcome::Expired => Some("its session is not known, or no longer: nothing changes".into()),
        Outcome::Unreadable => Some("these bytes are no command: nothing changes, on any server".into()),
        Outcome::Noop | Outcome::Opened { .. } | Outcome::Applied(_) => None,
    }
}
