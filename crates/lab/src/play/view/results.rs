//! The results in a view: the vote table, what clients were told, and what is broken.

use paxos_kv::role::ServerSet;

use super::{BrokenView, ClientView, ForgotView, ResultView, RowView, SLOTS_SHOWN_MAX, SideView, SlotView, numbers};
use crate::play::facts::told_of;
use crate::play::game::Game;
use crate::play::message::{op_text, text, value_text};
use crate::play::predicate::Told;
use crate::play::story::listed;
use crate::play::votes::{Cell, RowState};
use crate::sim::client_history::{ClientRecord, ObservedResult, RequestedOperation};

pub(super) fn vote_views(game: &Game) -> Vec<SlotView> {
    if !game.table.sim.plan.protocol.is_paxos() {
        return Vec::new();
    }
    let ballots = &game.ballots;
    let slots = ballots.slots(game.table.first);
    let shown = slots.len().saturating_sub(SLOTS_SHOWN_MAX);
    let views = slots.into_iter().skip(shown).map(|slot| {
        let rows = ballots.rows(slot).into_iter().map(|row| RowView {
            ballot: row.ballot.to_string(),
            value: row.value.as_ref().map(value_text),
            cells: row
                .cells
                .iter()
                .map(|cell| match cell {
                    Cell::Accepted => "accepted",
                    Cell::May => "may",
                    Cell::Never => "never",
                })
                .collect(),
            accepted: row.count(Cell::Accepted),
            may: row.count(Cell::May),
            state: match row.state {
                RowState::Chosen => "chosen",
                RowState::May => "may",
                RowState::Never => "never",
                RowState::Open => "open",
            },
            sentence: ballots.row_sentence(&row),
        });
        SlotView {
            slot: slot.0,
            needed: ballots.quorums.sizes().1,
            chosen: ballots.chosen(slot).into_iter().map(|(value, ..)| value_text(value)).collect(),
            sentence: ballots.slot_sentence(slot),
            rows: rows.collect(),
        }
    });
    views.collect()
}

pub(super) fn client_views(game: &Game) -> Vec<ClientView> {
    let clients = game.exercise.clients.iter().enumerate().map(|(number, line)| {
        let id = format!("c{}", number + 1);
        let records: Vec<&ClientRecord> = game.table.results(number).collect();
        let open = records.iter().find(|record| record.ended.is_none());
        let left = game.table.sim.clients.get(number).map_or(0, |client| client.left());
        let request = open.map(|record| requested(record));
        let server = game.table.sim.clients.get(number).map_or(line.server, |client| client.server());
        let (state, text) = match (&request, left) {
            (Some(request), _) => ("waits", format!("{id}: {request}, waits for {server}")),
            (None, 0) => ("done", format!("{id}: done")),
            (None, _) => ("idle", format!("{id}: idle")),
        };
        let results = records.iter().filter(|record| record.ended.is_some()).map(|record| result_view(game, record));
        ClientView { id, server: server.0, request, state, text, results: results.collect(), left }
    });
    clients.collect()
}

fn requested(record: &ClientRecord) -> String {
    match &record.what {
        RequestedOperation::Write(op) => op_text(op),
        RequestedOperation::Get { key } => format!("get {}", text(key)),
    }
}

fn result_view(game: &Game, record: &ClientRecord) -> ResultView {
    let request = requested(record);
    let step = record.at.map(|at| game.table.step_at(at));
    let (status, words) = match (&record.result, told_of(record)) {
        (ObservedResult::Read(_, Some(value), _), _) => ("value", format!("read {}", text(value))),
        (ObservedResult::Read(..), _) => ("notfound", "no value".to_string()),
        (ObservedResult::Wrote(slot, _), _) => ("ok", format!("OK in slot {slot}")),
        (_, Some(Told::NotApplied)) => ("notapplied", "certainly not applied".to_string()),
        _ => ("unknown", "outcome unknown".to_string()),
    };
    ResultView { text: format!("{request}: {words}"), request, status, step }
}

pub(super) fn broken_view(game: &Game) -> Option<BrokenView> {
    let (step, broken) = game.broken.as_ref()?;
    let sides = broken.sides.iter().map(|side| SideView {
        value: side.value.clone(),
        ballot: side.ballot.to_string(),
        quorum: numbers(side.quorum),
    });
    let both = match broken.sides.as_slice() {
        [one, other, ..] => one.quorum.and(other.quorum),
        _ => ServerSet::NONE,
    };
    let forgot = broken.forgot.map(|(server, step)| ForgotView {
        server: server.0,
        step,
        sentence: format!("{server}'s acceptor restarted with an empty disk at step {step}, and forgot its vote."),
    });
    let explained = match (broken.sides.as_slice(), &forgot) {
        ([one, other, ..], None) if both.is_empty() => {
            format!(" {} and {} have no server in common.", listed(one.quorum), listed(other.quorum))
        }
        _ => String::new(),
    };
    Some(BrokenView {
        rule: broken.rule,
        sentence: format!("{}{explained}", broken.sentence),
        step: *step,
        sides: sides.collect(),
        both: numbers(both),
        forgot,
        file: broken.file,
    })
}
