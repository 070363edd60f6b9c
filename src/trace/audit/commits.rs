//! Two-phase commit check: all servers commit or none, with the votes of all, and each write takes effect once.
//!
//! A coordinator sends a decision, and a participant its vote and its acknowledgement, only after the line is in the
//! file. So a commit whose votes have no lines is false. A decision may be durable without its line, if the coordinator
//! was killed in between. It is then repeated in the next incarnation.

use std::collections::BTreeMap;

use super::super::event::Event;
use super::super::quoted::QuotedText;
use super::super::request_spans::{RequestSpan, request_spans};
use super::super::values::{
    CommandName, DecisionReason, LearnResult, OpKind, RequestStatus, TransactionState, VoteValue,
};
use super::{CommitCounts, Rule, RunIndex};
use crate::role::{ServerId, ServerSet};
use crate::two_phase_commit::TransactionId;

/// The lines about one transaction. Lines are named by their index in the run.
#[derive(Default)]
struct Transaction {
    yes: BTreeMap<ServerId, usize>,
    /// Lines that state a commit: DECIDE, ACK, ANSWER.
    commits: Vec<usize>,
    /// Lines that state an abort. A presumed abort is left out: a coordinator without a record sends it for any
    /// transaction.
    aborts: Vec<usize>,
    /// Lines that state a decision which a participant may have received.
    decisions: Vec<(usize, TransactionState)>,
    acks: BTreeMap<ServerId, usize>,
    dropped: BTreeMap<ServerId, usize>,
    /// The coordinator has received all acknowledgements.
    is_ended: bool,
}

/// Audits a run of two-phase commit.
pub(super) fn check(index: &mut RunIndex<'_>) {
    let transactions = collect(index);
    for (id, transaction) in &transactions {
        check_atomic(index, *id, transaction);
        check_votes(index, *id, transaction);
        check_abort_is_shared(index, *id, transaction);
        check_same(index, *id, transaction);
    }
    check_once(index, &transactions);
    check_versions(index);
    check_clients(index, &transactions);
    let is_open = |one: &&Transaction| {
        !one.is_ended
            && one.yes.keys().any(|server| !one.acks.contains_key(server) && !one.dropped.contains_key(server))
    };
    index.counts.commits = Some(CommitCounts {
        transactions: transactions.len(),
        committed: transactions.values().filter(|one| !one.commits.is_empty()).count(),
        votes: transactions.values().map(|one| one.yes.len()).sum(),
        open: transactions.values().filter(is_open).count(),
    });
}

fn collect(index: &mut RunIndex<'_>) -> BTreeMap<TransactionId, Transaction> {
    let mut all: BTreeMap<TransactionId, Transaction> = BTreeMap::new();
    for (server, lines) in index.by_server.clone() {
        for at in lines {
            match &index.run.line(at).event {
                Event::VoteReq { tx, .. } => {
                    all.entry(*tx).or_default();
                }
                Event::Vote { tx, vote: VoteValue::Yes, .. } => {
                    all.entry(*tx).or_default().yes.entry(server).or_insert(at);
                    index.counts.answers += 1;
                }
                Event::Vote { .. } => index.counts.answers += 1,
                Event::Decide { tx, decision, reason, .. } => {
                    let one = all.entry(*tx).or_default();
                    one.decisions.push((at, *decision));
                    match (decision, reason) {
                        (TransactionState::Commit, _) => one.commits.push(at),
                        (_, DecisionReason::First) => one.aborts.push(at),
                        _ => {}
                    }
                }
                Event::Ack { tx, .. } => {
                    let one = all.entry(*tx).or_default();
                    one.commits.push(at);
                    one.acks.entry(server).or_insert(at);
                    index.counts.applied += 1;
                }
                Event::Answer { tx, known: known @ (TransactionState::Commit | TransactionState::Abort), .. } => {
                    let one = all.entry(*tx).or_default();
                    one.decisions.push((at, *known));
                    if *known == TransactionState::Commit { one.commits.push(at) } else { one.aborts.push(at) }
                }
                Event::End { tx } => all.entry(*tx).or_default().is_ended = true,
                Event::GiveUp { tx, .. } => all.entry(*tx).or_default().aborts.push(at),
                Event::Aborted { tx } => {
                    let one = all.entry(*tx).or_default();
                    one.aborts.push(at);
                    one.dropped.entry(server).or_insert(at);
                }
                Event::Crash { .. } => index.counts.crashes += 1,
                _ => {}
            }
        }
    }
    all
}

/// No server commits what another aborts.
fn check_atomic(index: &mut RunIndex<'_>, id: TransactionId, one: &Transaction) {
    if let (Some(commit), Some(abort)) = (one.commits.first(), one.aborts.first()) {
        let message = format!("transaction {id} is committed on one server and aborted on another");
        index.violated(Rule::Atomic, &[*commit, *abort], message);
    }
}

/// A commit has the votes of all servers.
fn check_votes(index: &mut RunIndex<'_>, id: TransactionId, one: &Transaction) {
    let Some(commit) = one.commits.iter().copied().find(|at| index.is_claim(*at)) else { return };
    let voted: ServerSet = one.yes.keys().copied().collect();
    let silent = index.cluster.without(voted);
    if !silent.is_empty() {
        let message = format!("transaction {id} is committed without a vote of {silent}");
        index.missing(Rule::Votes, silent, &[commit], message);
    }
}

/// A participant that has voted yes follows a decision that it received, and decides nothing itself.
fn check_abort_is_shared(index: &mut RunIndex<'_>, id: TransactionId, one: &Transaction) {
    let done = one.acks.iter().map(|(server, at)| (*server, *at, TransactionState::Commit));
    let dropped = one.dropped.iter().map(|(server, at)| (*server, *at, TransactionState::Abort));
    for (server, at, decision) in done.chain(dropped) {
        if !index.is_claim(at) {
            continue;
        }
        let is_told = one.decisions.iter().any(|(word, said)| *said == decision && *word != at);
        if !is_told {
            let message = format!(
                "server {} decides {} for {id}, but no server has notified it of that decision",
                server.0,
                decision.as_str()
            );
            index.missing_anywhere(Rule::Votes, &[at], message);
        }
    }
}

/// All servers commit the same command with the same result.
fn check_same(index: &mut RunIndex<'_>, id: TransactionId, one: &Transaction) {
    let effect = |at: usize| match &index.run.line(at).event {
        Event::Ack { op, key, value, if_version, id, result, version, session, .. } => {
            Some((*op, key.as_ref(), value.as_ref(), *if_version, *id, *result, *version, *session))
        }
        _ => None,
    };
    let mut acks = one.acks.values().copied();
    let Some(first) = acks.next() else { return };
    if let Some(other) = acks.find(|at| effect(*at) != effect(first)) {
        let message = format!("two servers commit transaction {id} with different effects");
        index.violated(Rule::Agreement, &[first, other], message);
    }
}

/// The first ACK line of a transaction.
fn effect<'a>(index: &RunIndex<'a>, one: &Transaction) -> Option<(usize, &'a Event)> {
    let at = *one.acks.values().next()?;
    Some((at, &index.run.line(at).event))
}

/// Each write takes effect in one transaction.
fn check_once(index: &mut RunIndex<'_>, transactions: &BTreeMap<TransactionId, Transaction>) {
    let mut effects: BTreeMap<CommandName, (TransactionId, usize)> = BTreeMap::new();
    for (transaction, one) in transactions {
        let Some((at, Event::Ack { id: Some(id), op, .. })) = effect(index, one) else { continue };
        // A client whose session is forgotten may open another one.
        if *op == OpKind::Open {
            continue;
        }
        if let Some((first, before)) = effects.insert(*id, (*transaction, at)) {
            let message = format!("one write takes effect twice: in transaction {first} and in {transaction}");
            index.violated(Rule::Once, &[before, at], message);
        }
    }
}

/// The versions of a key count its writes: no two writes have the same version, versions only grow on each server, and
/// a condition on a version holds. A participant killed between its sync and its line has applied a write without a
/// line.
fn check_versions(index: &mut RunIndex<'_>) {
    let mut written: BTreeMap<(QuotedText, u64), (TransactionId, usize)> = BTreeMap::new();
    for (server, lines) in index.by_server.clone() {
        let mut versions: BTreeMap<QuotedText, (u64, usize)> = BTreeMap::new();
        for at in lines {
            let Event::Ack { tx, key: Some(key), result, version: Some(version), if_version, .. } =
                &index.run.line(at).event
            else {
                continue;
            };
            let (tx, key, version) = (*tx, key.clone(), *version);
            let (before, line) = versions.insert(key.clone(), (version, at)).unwrap_or((0, at));
            let is_write = *result == LearnResult::Ok;
            let holds = match result {
                LearnResult::Ok => if_version.is_none_or(|wanted| wanted + 1 == version),
                LearnResult::Mismatch => if_version.is_some_and(|wanted| wanted != version),
                _ => true,
            };
            let grows = if is_write { version > before } else { version >= before };
            if !holds || !grows {
                let message =
                    format!("on server {} the key was at version {before}, but the result contradicts that", server.0);
                index.violated(Rule::Apply, &[line, at], message);
            }
            if !is_write {
                continue;
            }
            let (first, before) = *written.entry((key, version)).or_insert((tx, at));
            if first != tx {
                let message = format!("two transactions, {first} and {tx}, made the same version of one key");
                index.violated(Rule::Apply, &[before, at], message);
            }
        }
    }
}

/// Clients received the right results of their writes. Reads are left to the linearizability check, since there is no
/// log.
fn check_clients(index: &mut RunIndex<'_>, transactions: &BTreeMap<TransactionId, Transaction>) {
    let run = index.run;
    for span in &request_spans(run) {
        let Some(reply) = span.reply.filter(|reply| index.is_claim(*reply)) else { continue };
        let Event::Response { status, slot, version, .. } = &run.line(reply).event else { continue };
        index.counts.replies += 1;
        if !matches!(span.op, OpKind::Put | OpKind::Delete) {
            continue;
        }
        let lines = [span.request, reply];
        match status {
            RequestStatus::NotApplied => check_not_applied(index, span, reply, transactions),
            RequestStatus::Ok | RequestStatus::NotFound | RequestStatus::Mismatch => {
                let transaction = slot.map(TransactionId::of_slot);
                let found = transaction.and_then(|id| transactions.get(&id)).filter(|one| !one.commits.is_empty());
                let Some(one) = found else {
                    let message = "a write is acknowledged, but no transaction has committed it".to_string();
                    index.missing_anywhere(Rule::Once, &lines, message);
                    continue;
                };
                let Some((at, Event::Ack { op, key, value, id, result, version: came, .. })) = effect(index, one)
                else {
                    continue;
                };
                let same = (*op, key.as_ref(), value.as_ref()) == (span.op, span.key, span.value)
                    && (span.id.is_none() || span.id == *id);
                if !same {
                    let message = "a write is acknowledged with a transaction that has another command".to_string();
                    index.violated(Rule::Once, &[span.request, at, reply], message);
                } else if (status_of(*result), came) != (Some(*status), version) {
                    let message = "the reply differs from the result of the transaction".to_string();
                    index.violated(Rule::Reply, &[span.request, at, reply], message);
                }
            }
            _ => {}
        }
    }
}

fn status_of(result: LearnResult) -> Option<RequestStatus> {
    match result {
        LearnResult::Ok => Some(RequestStatus::Ok),
        LearnResult::NotFound => Some(RequestStatus::NotFound),
        LearnResult::Mismatch => Some(RequestStatus::Mismatch),
        _ => None,
    }
}

/// A write with the reply "not applied" has no effect.
fn check_not_applied(
    index: &mut RunIndex<'_>,
    span: &RequestSpan<'_>,
    reply: usize,
    transactions: &BTreeMap<TransactionId, Transaction>,
) {
    let (Some(wanted), req) = (span.id, &index.run.line(span.request).req) else { return };
    let mut done = transactions.values().filter_map(|one| effect(index, one));
    // A client that continues from an earlier history may have used the same session and sequence as another one's
    // write.
    let is_it = |at: usize, id| id == Some(wanted) && index.run.line(at).req == *req;
    let done = done.find(|(at, event)| matches!(event, Event::Ack { id, .. } if is_it(*at, *id)));
    if let Some(at) = done.map(|(at, _)| at) {
        let message = "a write that was reported as not applied was committed".to_string();
        index.violated(Rule::Reply, &[span.request, reply, at], message);
    }
}
