//! The servers of a view: what each role does and holds.

use std::collections::BTreeMap;

use paxos_kv::kv::Kv;
use paxos_kv::paxos::{ProposerPhase, Slot};
use paxos_kv::role::{RoleKind, ServerId};
use paxos_kv::trace::CrashPoint;

use super::{
    AcceptedView, AcceptorView, CoordinatorView, KnownView, LearnerView, ParticipantView, ProposerView, ServerView,
    numbers,
};
use crate::play::exercise::{ClientRequestLine, Exercise};
use crate::play::game::Game;
use crate::play::message::{text, value_text};
use crate::play::table::Table;

pub(super) fn server_view(game: &Game, server: ServerId) -> ServerView {
    let table = &game.table;
    let is_up = table.sim.is_up(server);
    let since = |role: Option<RoleKind>| match table.down_since.get(&(server, role)) {
        Some(0) | None => "down".to_string(),
        Some(step) => format!("down since step {step}"),
    };
    let down: Vec<&str> = table
        .sim
        .plan
        .protocol
        .roles_as_named()
        .iter()
        .filter(|role| !table.sim.is_role_up(server, **role))
        .map(|role| role.as_str())
        .collect();
    let note = match (is_up, down.as_slice()) {
        (false, _) => since(None),
        (true, []) => String::new(),
        (true, names) => format!("{} down", names.join(" and ")),
    };
    let is_paxos = table.sim.plan.protocol.is_paxos();
    ServerView {
        id: server.0,
        up: is_up,
        note,
        proposer: is_paxos.then(|| proposer_view(game, server, since(Some(RoleKind::Proposer)))),
        acceptor: is_paxos.then(|| acceptor_view(game, server, since(Some(RoleKind::Acceptor)))),
        learner: is_paxos.then(|| learner_view(game, server, since(Some(RoleKind::Learner)))),
        coordinator: (!is_paxos).then(|| coordinator_view(game, server, since(Some(RoleKind::Coordinator)))),
        participant: (!is_paxos).then(|| participant_view(game, server, since(Some(RoleKind::Participant)))),
    }
}

fn fuse(table: &Table, server: ServerId, role: RoleKind) -> Option<&'static str> {
    table.fuses.get(&(server, role)).map(|point| match point {
        CrashPoint::BeforeStep => "crashes at once",
        CrashPoint::BeforeSync => "crashes in its next turn, before its sync",
        CrashPoint::BeforeSend => "crashes in its next turn, before it sends",
    })
}

fn proposer_view(game: &Game, server: ServerId, down: String) -> ProposerView {
    let table = &game.table;
    let process = table.sim.servers[usize::from(server.0) - 1].process.as_ref();
    let role = process.and_then(|process| process.proposer.as_ref()).map(|proposer| proposer.role());
    let (prepare, accept) = table.sim.plan.quorums().sizes();
    let fuse = fuse(table, server, RoleKind::Proposer);
    let empty = ProposerView {
        up: role.is_some(),
        phase: "down",
        ballot: None,
        yes: Vec::new(),
        no: Vec::new(),
        needed: prepare,
        text: down,
        fuse,
    };
    let Some(role) = role else { return empty };
    let leads = role.leads().is_some();
    match role.phase() {
        ProposerPhase::Idle => {
            let follows = role.leader().map(|(ballot, _)| ballot);
            let (phase, text) = match follows {
                Some(ballot) => ("following", format!("follows {ballot}")),
                None => ("idle", "idle".to_string()),
            };
            ProposerView { phase, text, ballot: follows.map(|ballot| ballot.to_string()), ..empty }
        }
        ProposerPhase::BackingOff => {
            ProposerView { phase: "waiting", text: "waits before its next ballot".to_string(), ..empty }
        }
        ProposerPhase::CatchingUp => {
            ProposerView { phase: "catching up", text: "waits for its learner".to_string(), ..empty }
        }
        ProposerPhase::Preparing { ballot, promised, refused } => ProposerView {
            phase: "preparing",
            ballot: Some(ballot.to_string()),
            yes: numbers(promised),
            no: numbers(refused),
            text: format!("asks for promises at {ballot}: {} of {prepare}", promised.len()),
            ..empty
        },
        ProposerPhase::Proposing { ballot, refused, in_flight } => ProposerView {
            phase: if leads { "leading" } else { "proposing" },
            ballot: Some(ballot.to_string()),
            no: numbers(refused),
            needed: accept,
            text: match (leads, in_flight) {
                (true, 0) => format!("leads at {ballot}"),
                (true, count) => format!("leads at {ballot}, {count} in flight"),
                (false, _) => format!("proposes at {ballot}"),
            },
            ..empty
        },
    }
}

fn acceptor_view(game: &Game, server: ServerId, down: String) -> AcceptorView {
    let table = &game.table;
    let is_up = table.sim.is_role_up(server, RoleKind::Acceptor);
    let (promised, accepted) = table.acceptor(server);
    let shown = accepted.range(table.first..).map(|(slot, (ballot, value))| AcceptedView {
        slot: slot.0,
        ballot: ballot.to_string(),
        value: value_text(value),
    });
    let accepted: Vec<AcceptedView> = shown.collect();
    let promised = (promised.round > 0).then(|| promised.to_string());
    let mut parts =
        vec![promised.as_ref().map_or("has promised nothing".to_string(), |ballot| format!("promised {ballot}"))];
    parts.extend(accepted.iter().map(|one| format!("slot {} {} at {}", one.slot, one.value, one.ballot)));
    let forgot = table.forgot.iter().any(|(one, _)| *one == server);
    AcceptorView {
        up: is_up,
        disk: if forgot { "lost" } else { "kept" },
        text: if is_up { parts.join("; ") } else { format!("{down}; on its disk: {}", parts.join("; ")) },
        promised,
        accepted,
        fuse: fuse(table, server, RoleKind::Acceptor),
    }
}

/// The keys that the clients of an exercise use.
fn keys(exercise: &Exercise) -> Vec<&str> {
    let requests = exercise.clients.iter().flat_map(|client| &client.requests);
    let keys = requests.map(|request| match request {
        ClientRequestLine::Put(key, _) | ClientRequestLine::Get(key) => key.as_str(),
    });
    let mut keys: Vec<&str> = keys.collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn store_view(game: &Game, kv: &Kv) -> BTreeMap<String, String> {
    let held = keys(&game.exercise).into_iter().filter_map(|key| {
        let value = kv.store().get(key.as_bytes())?.value.as_ref()?;
        Some((key.to_string(), text(value)))
    });
    held.collect()
}

fn learner_view(game: &Game, server: ServerId, down: String) -> LearnerView {
    let table = &game.table;
    let process = table.sim.servers[usize::from(server.0) - 1].process.as_ref();
    let role = process.and_then(|process| process.learner.as_ref()).map(|learner| learner.role());
    let fuse = fuse(table, server, RoleKind::Learner);
    let Some(role) = role else {
        return LearnerView { up: false, applied: 0, known: Vec::new(), store: Default::default(), text: down, fuse };
    };
    let applied = role.applied();
    // Every learner applies what is chosen; which value that is, the votes say.
    let known = (table.first.0..=applied.0).map(Slot).filter_map(|slot| {
        let chosen = game.ballots.chosen(slot);
        let held = table.acceptor(server).1.get(&slot).map(|(_, value)| value.clone());
        let value = match chosen.as_slice() {
            [(only, ..)] => (*only).clone(),
            _ => held?,
        };
        Some(KnownView { slot: slot.0, value: value_text(&value) })
    });
    let known: Vec<KnownView> = known.collect();
    let words: Vec<String> = known.iter().map(|one| format!("slot {} {}", one.slot, one.value)).collect();
    LearnerView {
        up: true,
        applied: applied.0,
        text: if words.is_empty() {
            "knows of nothing chosen".to_string()
        } else {
            format!("applied {}", words.join(", "))
        },
        known,
        store: store_view(game, role.machine()),
        fuse,
    }
}

fn coordinator_view(game: &Game, server: ServerId, down: String) -> CoordinatorView {
    let process = game.table.sim.servers[usize::from(server.0) - 1].process.as_ref();
    let role = process.and_then(|process| process.coordinator.as_ref()).map(|one| one.role());
    let fuse = fuse(&game.table, server, RoleKind::Coordinator);
    match role {
        None => CoordinatorView { up: false, open: 0, text: down, fuse },
        Some(role) => {
            let open = role.unacknowledged();
            let text = match (role.is_idle(), open) {
                (true, 0) => "idle".to_string(),
                (_, 0) => "counts votes".to_string(),
                (_, open) => format!("{open} commits not acknowledged"),
            };
            CoordinatorView { up: true, open, text, fuse }
        }
    }
}

fn participant_view(game: &Game, server: ServerId, down: String) -> ParticipantView {
    let process = game.table.sim.servers[usize::from(server.0) - 1].process.as_ref();
    let role = process.and_then(|process| process.participant.as_ref()).map(|one| one.role());
    let fuse = fuse(&game.table, server, RoleKind::Participant);
    let Some(role) = role else {
        return ParticipantView {
            up: false,
            prepared: Vec::new(),
            locked: Vec::new(),
            store: Default::default(),
            text: down,
            fuse,
        };
    };
    let prepared: Vec<String> = role.in_doubt().map(|one| one.transaction.to_string()).collect();
    let text = match prepared.as_slice() {
        [] => "prepared for nothing".to_string(),
        names => format!("prepared, and in doubt: {}", names.join(", ")),
    };
    ParticipantView {
        up: true,
        prepared,
        locked: game.table.locks(server),
        store: store_view(game, role.kv()),
        text,
        fuse,
    }
}
