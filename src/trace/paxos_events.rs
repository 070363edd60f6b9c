//! Paxos events: converts a role's trace events into log lines. It names the fields, decodes the command, and gives the
//! reason in a sentence. Roles know nothing of lines.

use super::event::Event;
use super::field::{AcceptedSlots, Digest, MaybeBallot, Nacks, SlotFrom, SlotSpan};
use super::line::{Speaker, TraceContext};
use super::quoted::QuotedText;
use super::values::{CommandName, LearnResult, OpKind};
use super::writer::PendingLine;
use crate::kv::{self, ApplyResult, KvCommand, SavedResult, WriteResult};
use crate::paxos::{
    self, AcceptorTraceEvent, Ballot, LearnerTraceEvent, ProposerTraceEvent, RetryReason, Slot, StepDownReason, Value,
};
use crate::role::{ServerId, ServerSet};

/// The line of a proposer's trace event.
pub fn proposer(fact: &ProposerTraceEvent, context: &TraceContext) -> PendingLine {
    match fact {
        ProposerTraceEvent::PrepareSent { ballot, from, to, to_lead, command } => {
            let event = Event::Prepare { slot: SlotFrom(*from), ballot: *ballot, to: *to };
            let draft = PendingLine::about(Speaker::Proposer, event, context);
            match command {
                Some(command) => about_command(draft, command),
                None if *to_lead => PendingLine { req: None, ..draft }
                    .reason("no leader is known: campaigns with one ballot for all later slots"),
                None => draft.reason("to finish slots that are not chosen yet; the proposer has no command of its own"),
            }
        }
        ProposerTraceEvent::Proposed { slot, ballot, value, adopted, quorum, to } => {
            let DisplayedValue { op, key, val, if_version, req } = DisplayedValue::new(value);
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
            let draft = PendingLine::about(Speaker::Proposer, event, context);
            PendingLine { req: req.or(draft.req), ..draft }.reason(proposal_reason(value, *adopted))
        }
        ProposerTraceEvent::Retried { ballot, from, nacks, answered, next, reason, command } => {
            let event = Event::Retry { slot: *from, ballot: *ballot, nack: Nacks(nacks.clone()), next_round: *next };
            let draft = PendingLine::about(Speaker::Proposer, event, context);
            let draft = command.iter().fold(draft, about_command);
            draft.reason(retry_reason(*reason, nacks, *answered, *next))
        }
        ProposerTraceEvent::Led { from, ballot, quorum } => {
            let event = Event::Lead { slot: SlotFrom(*from), ballot: *ballot, quorum: *quorum };
            let draft = PendingLine { req: None, ..PendingLine::about(Speaker::Proposer, event, context) };
            draft.reason(format!("a majority has promised {ballot}: phase 1 is done for all slots from {from} on"))
        }
        ProposerTraceEvent::SteppedDown { ballot, open, why } => {
            let promised = match why {
                StepDownReason::Nacked(rival) | StepDownReason::HigherBallot(rival) => Some(*rival),
                _ => None,
            };
            let event = Event::Stepdown { ballot: *ballot, promised };
            let draft = PendingLine { req: None, ..PendingLine::about(Speaker::Proposer, event, context) };
            draft.reason(step_down_reason(*why, *open))
        }
        ProposerTraceEvent::Forwarded { command, leader } => {
            let event = Event::Forward { ballot: *leader, to: leader.server };
            about_command(PendingLine::about(Speaker::Proposer, event, context), command)
        }
    }
}

/// The line of an acceptor's trace event.
pub fn acceptor(fact: &AcceptorTraceEvent, context: &TraceContext) -> PendingLine {
    match fact {
        AcceptorTraceEvent::Promised { to, ballot, from, last, accepted } => {
            let (accepted, slot) = (AcceptedSlots::new(accepted), SlotSpan { first: *from, last: *last });
            let event = Event::Promise { slot, ballot: *ballot, accepted, to: *to };
            PendingLine::about(Speaker::Acceptor, event, context)
        }
        AcceptorTraceEvent::Nacked { to, ballot, refused, promised } => {
            let event = Event::Nack { slot: *refused, ballot: *ballot, promised: *promised, to: *to };
            let draft = PendingLine::about(Speaker::Acceptor, event, context);
            draft.reason(format!("already promised {promised} > {ballot}"))
        }
        AcceptorTraceEvent::Accepted { to, ballot, slot, value } => {
            let event = Event::Accepted { slot: *slot, ballot: *ballot, to: *to };
            about_value(PendingLine::about(Speaker::Acceptor, event, context), value)
        }
        AcceptorTraceEvent::Truncated { below } => {
            let draft = PendingLine::about(Speaker::Acceptor, Event::Truncate { below: *below }, context);
            draft.reason("every slot below is chosen, and in the durable checkpoint of this server")
        }
        AcceptorTraceEvent::Corrupt { slots } => {
            let draft =
                PendingLine::about(Speaker::Acceptor, Event::Corrupt { slot: slots.first, to: slots.last }, context);
            draft.reason(
                "these accepted values are unreadable on disk; until they are repaired, PROMISE reports the slots as \
                 corrupt, never as empty",
            )
        }
        AcceptorTraceEvent::Repaired { slot, ballot } => {
            let event = Event::Repair { slot: *slot, ballot: *ballot };
            let draft = PendingLine::about(Speaker::Acceptor, event, context);
            draft.reason("this slot was corrupt on disk; the value chosen in it came from another server")
        }
    }
}

/// The line of a learner's trace event; `cluster` is the set of all servers, which a learner notifies of chosen slots.
pub fn learner(fact: &LearnerTraceEvent<kv::ApplyResult>, cluster: ServerSet, context: &TraceContext) -> PendingLine {
    match fact {
        LearnerTraceEvent::Chosen { slot, ballot, quorum, value } => {
            let event = Event::Chosen { slot: *slot, ballot: *ballot, quorum: *quorum, to: cluster };
            value.iter().fold(PendingLine::about(Speaker::Learner, event, context), about_value)
        }
        LearnerTraceEvent::Learned { slot, ballot, value, outcome } => {
            let DisplayedValue { op, key, val, if_version, req } = DisplayedValue::new(value);
            let (result, version, session) = applied(outcome);
            let event = Event::Learn {
                slot: *slot,
                ballot: *ballot,
                op,
                key,
                value: val,
                if_version,
                id: value.id().map(CommandName::from),
                result,
                version,
                session,
                applied: *slot,
            };
            let draft = PendingLine::about(Speaker::Learner, event, context);
            // The context may belong to another request: the applied slot may have waited for an earlier one.
            let draft = PendingLine { req, ..draft };
            match applied_reason(outcome) {
                Some(why) => draft.reason(why),
                None => draft,
            }
        }
        LearnerTraceEvent::CatchUpRequested { from, to, known } => {
            let event = Event::Catchup { from: *from, known: *known, to: *to };
            let draft = PendingLine::about(Speaker::Learner, event, context);
            draft.reason(format!("slot {known} is known to be chosen; slot {from} is the first that this server lacks"))
        }
        LearnerTraceEvent::FillRequested { slot, to } => {
            let event = Event::Fill { slot: *slot, to: *to };
            let draft = PendingLine::about(Speaker::Learner, event, context);
            draft.reason("a read waits for this slot, and no proposer seems to finish it")
        }
        LearnerTraceEvent::Installed { slot, digest, from } => {
            let event = Event::Snapshot { slot: *slot, digest: Digest(*digest), from: Some(*from) };
            let draft = PendingLine::about(Speaker::Learner, event, context);
            draft.reason(
                "the missing slots are no longer in the peer's log; the learner installed the peer's snapshot instead",
            )
        }
    }
}

/// A value of the log as lines show it.
pub(super) struct DisplayedValue {
    pub(super) op: OpKind,
    pub(super) key: Option<QuotedText>,
    pub(super) val: Option<QuotedText>,
    pub(super) if_version: Option<u64>,
    pub(super) req: Option<String>,
}

impl DisplayedValue {
    pub(super) fn new(value: &Value) -> DisplayedValue {
        let nothing = |op| DisplayedValue { op, key: None, val: None, if_version: None, req: None };
        let Value::Command(command) = value else { return nothing(OpKind::Noop) };
        let Ok(command) = KvCommand::from_paxos(command) else { return nothing(OpKind::Unreadable) };
        let req = Some(command.label().to_owned());
        match command {
            KvCommand::Open { .. } => DisplayedValue { req, ..nothing(OpKind::Open) },
            KvCommand::Write { op: kv::Op::Put { key, value, if_version }, .. } => DisplayedValue {
                op: OpKind::Put,
                key: Some(QuotedText::new(key)),
                val: Some(QuotedText::new(value)),
                if_version,
                req,
            },
            KvCommand::Write { op: kv::Op::Delete { key }, .. } => {
                DisplayedValue { key: Some(QuotedText::new(key)), req, ..nothing(OpKind::Delete) }
            }
        }
    }
}

/// A line about a slot has the label of its command, since a message may carry many commands.
fn about_value(draft: PendingLine, value: &Value) -> PendingLine {
    match value {
        Value::Command(command) => about_command(draft, command),
        Value::Noop => draft,
    }
}

fn step_down_reason(why: StepDownReason, open: usize) -> String {
    let reason = match why {
        StepDownReason::Nacked(rival) => format!("refused: an acceptor has promised {rival}"),
        StepDownReason::HigherBallot(rival) => format!("ballot {rival} leads"),
        StepDownReason::NoHeartbeatReplies => "no heartbeat replies from a majority for 300 ms".to_string(),
        StepDownReason::Stalled => {
            "slots are in flight, and none made progress for longer than rounds take here".to_string()
        }
        StepDownReason::LearnerDown => "the learner of this server is down".to_string(),
        StepDownReason::Truncated(slot) => {
            format!("slot {slot} must be chosen, but this ballot has already passed it: a new ballot is needed")
        }
    };
    match open {
        0 => reason,
        1 => format!("{reason}; 1 slot is in flight and may or may not be chosen"),
        open => format!("{reason}; {open} slots are in flight and may or may not be chosen"),
    }
}

/// A line about a command has the command's label, whichever message led to it.
fn about_command(draft: PendingLine, command: &paxos::Command) -> PendingLine {
    match KvCommand::from_paxos(command) {
        Ok(command) => PendingLine { req: Some(command.label().to_owned()), ..draft },
        Err(_) => draft,
    }
}

fn proposal_reason(value: &Value, adopted: Option<Ballot>) -> String {
    match (adopted, value) {
        (Some(ballot), _) => format!("must propose the value accepted at {ballot}"),
        (None, Value::Noop) => {
            "no acceptor in the quorum has accepted a value here: fills the hole with a no-op".into()
        }
        (None, Value::Command(_)) => {
            "no acceptor in the quorum has accepted a value, so the proposer may propose its own".into()
        }
    }
}

fn retry_reason(reason: RetryReason, nacks: &[(ServerId, Ballot)], answered: ServerSet, next: u64) -> String {
    let lost = match reason {
        RetryReason::Refused => "a majority has refused",
        RetryReason::Nacked => "not chosen 20 ms after the first NACK",
        RetryReason::TimedOut => "too few acceptors replied in time",
    };
    match nacks.iter().map(|(_, promised)| *promised).max() {
        Some(rival) => format!("{lost}; an acceptor has promised {rival}, so the next round is {next}"),
        None => format!("{lost}; replies from: {answered}"),
    }
}

/// The line of a server that has fenced itself.
pub fn fenced(slot: Slot, equal: Option<Slot>, against: ServerSet) -> PendingLine {
    let event = Event::Violation { rule: QuotedText::new("digest"), slot: Some(slot), ballot: None };
    let before = equal.map_or(String::new(), |equal| format!(" (still equal after slot {equal})"));
    PendingLine::new(Speaker::Learner, event).reason(format!(
        "after slot {slot} the replica of this server differs from {against}{before}: the server is fenced and answers \
         no request. Stop it, move its directory checkpoint away, and start it again: it then fetches a snapshot"
    ))
}

pub(super) fn applied(outcome: &ApplyResult) -> (LearnResult, Option<u64>, Option<u64>) {
    let version = |written: &WriteResult| match *written {
        WriteResult::Done { version } | WriteResult::NotFound { version } | WriteResult::Mismatch { version } => {
            Some(version)
        }
    };
    match outcome {
        ApplyResult::Noop => (LearnResult::Noop, None, None),
        ApplyResult::Opened { session, .. } => (LearnResult::Opened, None, Some(*session)),
        ApplyResult::Applied(SavedResult { written, .. }) => {
            let result = match written {
                WriteResult::Done { .. } => LearnResult::Ok,
                WriteResult::NotFound { .. } => LearnResult::NotFound,
                WriteResult::Mismatch { .. } => LearnResult::Mismatch,
            };
            (result, version(written), None)
        }
        ApplyResult::Duplicate(SavedResult { slot, written }) => {
            (LearnResult::Duplicate { first: *slot }, version(written), None)
        }
        ApplyResult::Superseded => (LearnResult::Superseded, None, None),
        ApplyResult::Expired => (LearnResult::Expired, None, None),
        ApplyResult::Unreadable => (LearnResult::Unreadable, None, None),
    }
}

fn applied_reason(outcome: &ApplyResult) -> Option<String> {
    match outcome {
        ApplyResult::Duplicate(SavedResult { slot, .. }) => {
            Some(format!("this write was already applied in slot {slot}: that result stands, and nothing changes"))
        }
        ApplyResult::Superseded => Some("the client no longer waits for this write: nothing changes".into()),
        ApplyResult::Expired => Some("its session is unknown or has expired: nothing changes".into()),
        ApplyResult::Unreadable => Some("these bytes are not a valid command: nothing changes on any server".into()),
        ApplyResult::Noop | ApplyResult::Opened { .. } | ApplyResult::Applied(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::CommandId;
    use crate::trace::{LineId, ProcessId, Trace};

    fn ballot(text: &str) -> Ballot {
        text.parse().unwrap()
    }

    fn put(label: &str) -> paxos::Command {
        let op = kv::Op::Put { key: b"color".to_vec(), value: b"deep blue".to_vec().into(), if_version: None };
        KvCommand::Write { session: 3, nonce: 7, sequence: 5, first_open: 1, label: label.into(), op }.to_paxos()
    }

    /// The handled message is about another request, as happens when one ballot carries the commands of two.
    fn context() -> TraceContext {
        let re = LineId { process: ProcessId::server(ServerId(5), 1), n: 90 };
        TraceContext { parent: Some(re), req: Some("c2-9".into()) }
    }

    /// The line from the role on.
    fn line(draft: PendingLine) -> String {
        let trace = Trace::to_memory(ProcessId::server(ServerId(1), 1));
        trace.line(draft);
        trace.text().trim_end()[42..].to_string()
    }

    #[test]
    fn line_of_a_command_has_its_label_and_decoded_bytes() {
        let (slot, ballot, to) = (Slot(7), ballot("5.1"), ServerSet::first(5));
        let quorum = ServerSet::first(3);
        let value = Value::Command(put("c1-5"));
        let fact = ProposerTraceEvent::Proposed { slot, ballot, value: value.clone(), adopted: None, quorum, to };
        assert_eq!(
            line(proposer(&fact, &context())),
            "proposer ACCEPT   req=c1-5 slot=7 ballot=5.1 op=PUT key=color value=\"deep blue\" adopted=none \
             quorum=s1,s2,s3 to=s1,s2,s3,s4,s5 re=s5.90 \
             -- no acceptor in the quorum has accepted a value, so the proposer may propose its own"
        );
        let outcome = ApplyResult::Applied(SavedResult { slot, written: WriteResult::Done { version: 1 } });
        let fact = LearnerTraceEvent::Learned { slot, ballot, value, outcome };
        assert_eq!(
            line(learner(&fact, to, &context())),
            "learner  LEARN    req=c1-5 slot=7 ballot=5.1 op=PUT key=color value=\"deep blue\" id=3-5 result=OK \
             version=1 applied=7 re=s5.90"
        );
    }

    #[test]
    fn invalid_command_bytes_are_shown_as_unreadable() {
        let value =
            Value::Command(paxos::Command { id: CommandId::new(9, 0, 9), payload: [0xff, 1, 2].as_slice().into() });
        let fact = LearnerTraceEvent::Learned {
            slot: Slot(7),
            ballot: ballot("5.1"),
            value,
            outcome: ApplyResult::Unreadable,
        };
        let shown = line(learner(&fact, ServerSet::first(5), &context()));
        assert!(
            shown.starts_with("learner  LEARN    slot=7 ballot=5.1 op=UNREADABLE id=9-9 result=UNREADABLE"),
            "{shown}"
        );
    }

    #[test]
    fn lines_give_reasons() {
        let retried = |nacks: Vec<(ServerId, Ballot)>, reason| ProposerTraceEvent::Retried {
            ballot: ballot("3.1"),
            from: Slot(7),
            nacks,
            answered: ServerSet::first(2),
            next: 5,
            reason,
            command: Some(put("c1-5")),
        };
        assert_eq!(
            line(proposer(&retried(vec![(ServerId(4), ballot("4.2"))], RetryReason::Nacked), &context())),
            "proposer RETRY    req=c1-5 slot=7 ballot=3.1 nack=s4(4.2) next_round=5 re=s5.90 \
             -- not chosen 20 ms after the first NACK; an acceptor has promised 4.2, so the next round is 5"
        );
        let silence = line(proposer(&retried(Vec::new(), RetryReason::TimedOut), &context()));
        assert!(
            silence
                .ends_with("nack=none next_round=5 re=s5.90 -- too few acceptors replied in time; replies from: s1,s2"),
            "{silence}"
        );
        let adopted = ProposerTraceEvent::Proposed {
            slot: Slot(7),
            ballot: ballot("5.1"),
            value: Value::Noop,
            adopted: Some(ballot("3.1")),
            quorum: ServerSet::first(3),
            to: ServerSet::first(5),
        };
        let adopted = line(proposer(&adopted, &context()));
        assert!(adopted.ends_with("-- must propose the value accepted at 3.1"), "{adopted}");
        let refused = paxos::NackedRequest::Prepare(Slot(7));
        let nack =
            AcceptorTraceEvent::Nacked { to: ServerId(1), ballot: ballot("3.1"), refused, promised: ballot("4.2") };
        assert_eq!(
            line(acceptor(&nack, &context())),
            "acceptor NACK     req=c2-9 slot=7+ ballot=3.1 promised=4.2 to=s1 re=s5.90 -- already promised 4.2 > 3.1"
        );
    }

    #[test]
    fn duplicate_result_names_the_slot_that_applied_it() {
        let saved = SavedResult { slot: Slot(6), written: WriteResult::NotFound { version: 4 } };
        assert_eq!(applied(&ApplyResult::Duplicate(saved)), (LearnResult::Duplicate { first: Slot(6) }, Some(4), None));
        assert_eq!(applied(&ApplyResult::Opened { session: 3, history: 1 }), (LearnResult::Opened, None, Some(3)));
        assert_eq!(applied(&ApplyResult::Noop), (LearnResult::Noop, None, None));
    }
}
