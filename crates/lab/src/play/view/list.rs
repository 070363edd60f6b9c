//! What a view lists: the messages under way, the choices, and the links.

use paxos_kv::role::RoleKind;
use paxos_kv::trace::CrashPoint;

use super::{ChoiceView, LinkView, MessageView, ends_of, kind_of};
use crate::play::choice::{Choice, MessageName};
use crate::play::exercise::Mode;
use crate::play::game::Game;
use crate::play::story;
use crate::play::table::{NamedFrame, Table};
use crate::sim::by_hand::Carried;
use crate::sim::network::Endpoint;

pub(super) fn message_view(table: &Table, NamedFrame { name, frame, text }: &NamedFrame) -> MessageView {
    let MessageName { from, to, .. } = *name;
    let is_between_servers = matches!((from, to), (Endpoint::Server(_), Endpoint::Server(_)));
    let is_cut = table.sim.sim_env.network.is_cut(from, to);
    MessageView {
        id: Choice::Deliver(*name).code(),
        drop: Choice::Drop(*name).code(),
        double: is_between_servers.then(|| Choice::Double(*name).code()),
        name: text.name,
        kind: text.kind,
        from: from.to_string(),
        to: to.to_string(),
        ballot: text.ballot.map(|ballot| ballot.to_string()),
        slot: text.slot.map(|slot| slot.0),
        value: text.value.clone(),
        at: text.at.map(|ballot| ballot.to_string()),
        promised: text.promised.map(|ballot| ballot.to_string()),
        says: text.says.clone(),
        text: format!("{}, from {from} to {to}", text.label()),
        doubled: frame.is_doubled,
        hollow: table.sim.loss_on_arrival(frame),
        off: is_cut.then(|| format!("the link between {from} and {to} is cut")),
        housekeeping: text.is_housekeeping,
    }
}

/// What can be done next, in the order of the list; housekeeping comes last.
pub fn choice_views(table: &Table) -> Vec<ChoiceView> {
    let frames = table.frames();
    let mut views: Vec<ChoiceView> = Vec::new();
    for possible in table.choices() {
        let choice = possible.choice;
        let (from, to) = ends_of(&choice);
        let (group, label, server, role) = match choice {
            Choice::Deliver(name) | Choice::Drop(name) | Choice::Double(name) => {
                let frame = frames.iter().find(|one| one.name == name);
                let is_housekeeping = frame.is_some_and(|one| one.text.is_housekeeping);
                let label = frame.map_or(name.name.to_string(), |one| one.text.label());
                let server = if let Endpoint::Server(server) = name.to { Some(server) } else { None };
                let role = frame.and_then(recipient);
                (if is_housekeeping { "housekeeping" } else { "messages" }, label, server, role)
            }
            Choice::Timer(server, role, name) => {
                let group = if story::is_housekeeping(name) { "housekeeping" } else { "timers" };
                (group, story::timer_words(role, name).to_string(), Some(server), Some(role))
            }
            Choice::Timeout(client) => {
                ("clients", format!("c{} waits no longer, and asks the next server", client + 1), None, None)
            }
            Choice::Ask(client) => ("clients", format!("c{} makes its next request", client + 1), None, None),
            Choice::Crash(server, role, point) => {
                let label = match point {
                    CrashPoint::BeforeStep => "crash now",
                    CrashPoint::BeforeSync => "crash in the next turn, before its sync",
                    CrashPoint::BeforeSend => "crash in the next turn, before it sends",
                };
                ("crashes", label.to_string(), Some(server), Some(role))
            }
            Choice::Restart(server, role) => {
                let label = if table.mode == Mode::Lost && role == RoleKind::Acceptor {
                    "restart with an EMPTY disk"
                } else {
                    "restart"
                };
                ("crashes", label.to_string(), Some(server), Some(role))
            }
            Choice::Kill(server) => ("crashes", "end the process".to_string(), Some(server), None),
            Choice::PowerCut(server) => ("crashes", "cut the power".to_string(), Some(server), None),
            Choice::Start(server) => ("crashes", "start the process".to_string(), Some(server), None),
            Choice::Cut(one, other) => ("links", format!("cut {one}-{other}"), None, None),
            Choice::Join(one, other) => ("links", format!("join {one}-{other}"), None, None),
        };
        let (server, role) = (server.map(|server| server.0), role.map(RoleKind::as_str));
        let (code, kind, off) = (choice.code(), kind_of(&choice), possible.off);
        views.push(ChoiceView { code, kind, group, label, from, to, server, role, off });
    }
    views.sort_by_key(|view| view.group == "housekeeping");
    views
}

fn recipient(frame: &NamedFrame) -> Option<RoleKind> {
    match &frame.frame.carried {
        Carried::Peer(envelope) => envelope.message.recipients().first().copied(),
        _ => None,
    }
}

pub(super) fn link_views(game: &Game) -> Vec<LinkView> {
    let cluster = game.table.cluster();
    let pairs = cluster.iter().flat_map(|one| cluster.iter().filter(move |other| one < *other).map(move |o| (one, o)));
    let links = pairs.map(|(one, other)| LinkView {
        a: one.0,
        b: other.0,
        cut: game.table.is_cut(one, other),
        lost: game.lost_on(one, other),
    });
    links.filter(|link| link.cut || link.lost > 0).collect()
}
