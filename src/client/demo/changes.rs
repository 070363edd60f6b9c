//! The words for what has changed between two reports of the servers.

use std::collections::BTreeMap;

use crate::net::{RoleStatus, ServerStatus};
use crate::protocol::Protocol;
use crate::role::{RoleKind, ServerId, ServerSet};

/// Maximum number of characters of a printed change.
const WIDTH: usize = 88;

/// The servers and what they need to choose a value.
#[derive(Clone, Copy, Debug)]
pub struct Cluster {
    /// All servers.
    pub servers: ServerSet,
    /// Their protocol.
    pub protocol: Protocol,
}

impl Cluster {
    /// Whether these votes are enough.
    pub fn is_quorum(self, voters: ServerSet) -> bool {
        voters.len() >= self.protocol.votes_needed(self.servers.len())
    }

    /// That these voters are too few: a part of a sentence.
    pub fn no_quorum(self, up: ServerSet) -> String {
        let (all, voter) = (self.servers.len(), self.protocol.voter().as_str());
        let which = if up.is_empty() { String::new() } else { format!(" ({})", list(up)) };
        let some = format!("{} of {all} {voter}s up{which}", up.len());
        match self.protocol.is_paxos() {
            true => format!("no majority: {some}"),
            false => format!("two-phase commit needs all {all}: {some}"),
        }
    }
}

/// What one server has reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerView {
    /// Whether it answered.
    pub answers: bool,
    roles: Vec<RoleStatus>,
    leads: bool,
}

impl ServerView {
    /// The view of a report; None if the server did not answer.
    pub fn of(status: Option<&ServerStatus>) -> ServerView {
        let Some(status) = status else { return ServerView::default() };
        ServerView { answers: true, roles: status.roles.clone(), leads: status.leads().is_some() }
    }

    /// The state of a role; None if the server did not answer.
    pub fn role(&self, role: RoleKind) -> Option<RoleStatus> {
        self.roles.iter().find(|one| one.role == role).copied()
    }

    /// Whether this role is reported up.
    pub fn is_up(&self, role: RoleKind) -> bool {
        self.role(role).is_some_and(|one| one.up)
    }

    /// Whether this role is reported down; a server that does not answer reports nothing.
    pub fn is_down(&self, role: RoleKind) -> bool {
        self.role(role).is_some_and(|one| !one.up)
    }

    /// Number of crashes of this role.
    pub fn crashes(&self, role: RoleKind) -> u32 {
        self.role(role).map_or(0, |one| one.crashes)
    }
}

/// How a role has changed between two reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RoleChange {
    Down,
    UpAgain,
    DownAndUp,
    UpAndDown,
}

impl RoleChange {
    const ALL: [RoleChange; 4] = [RoleChange::Down, RoleChange::UpAndDown, RoleChange::UpAgain, RoleChange::DownAndUp];

    fn between(before: RoleStatus, now: RoleStatus) -> Option<RoleChange> {
        match (before.up, now.up) {
            (true, false) => Some(RoleChange::Down),
            (false, true) => Some(RoleChange::UpAgain),
            (true, true) => (before.crashes < now.crashes).then_some(RoleChange::DownAndUp),
            (false, false) => (before.crashes < now.crashes).then_some(RoleChange::UpAndDown),
        }
    }

    fn words(self, several: bool) -> &'static str {
        match (self, several) {
            (RoleChange::Down, false) => "is down",
            (RoleChange::Down, true) => "are down",
            (RoleChange::UpAgain, false) => "is up again",
            (RoleChange::UpAgain, true) => "are up again",
            (RoleChange::DownAndUp, _) => "crashed and restarted",
            (RoleChange::UpAndDown, _) => "restarted and crashed again",
        }
    }
}

/// One line, or more if one would be too wide, about what has changed; none if nothing has. The last part says which
/// voters remain.
pub fn changes(
    cluster: Cluster,
    before: &BTreeMap<ServerId, ServerView>,
    now: &BTreeMap<ServerId, ServerView>,
) -> Vec<String> {
    let mut parts = Vec::new();
    let servers = |are: &dyn Fn(&ServerView, &ServerView) -> bool| -> ServerSet {
        let both = now.iter().filter_map(|(server, now)| Some((*server, before.get(server)?, now)));
        both.filter(|(_, before, now)| are(before, now)).map(|(server, ..)| server).collect()
    };
    let silent = servers(&|before, now| before.answers && !now.answers);
    let heard = servers(&|before, now| !before.answers && now.answers);
    parts.extend(answer_words(silent, "does not answer", "do not answer"));
    parts.extend(answer_words(heard, "answers again", "answer again"));
    for role in cluster.protocol.roles_as_named() {
        for change in RoleChange::ALL {
            let changed = servers(&|before, now| match (before.role(*role), now.role(*role)) {
                (Some(before), Some(now)) => RoleChange::between(before, now) == Some(change),
                _ => false,
            });
            parts.extend(role_words(changed, *role, change));
        }
    }
    let leads = servers(&|before, now| !before.leads && now.leads);
    parts.extend((!leads.is_empty()).then(|| format!("{} leads now", list(leads))));
    if parts.is_empty() {
        return Vec::new();
    }
    let up = |views: &BTreeMap<ServerId, ServerView>| -> ServerSet {
        views.iter().filter(|(_, view)| view.is_up(cluster.protocol.voter())).map(|(server, _)| *server).collect()
    };
    let remain = (up(before) != up(now)).then(|| remaining(cluster, up(before), up(now)));
    fold(&parts, remain)
}

/// Which voters are up, and whether they are enough.
fn remaining(cluster: Cluster, before: ServerSet, now: ServerSet) -> String {
    let was_enough = cluster.is_quorum(before);
    if !cluster.is_quorum(now) {
        return format!("{}, requests wait", cluster.no_quorum(now));
    }
    match now == cluster.servers {
        true => format!("all {} are up", cluster.servers.len()),
        false if was_enough => format!("{} remain", list(now)),
        false => format!("{} are a majority again", list(now)),
    }
}

/// Joins the parts to one line if it is short enough; else the last part, and then each part, has a line of its own.
fn fold(parts: &[String], last: Option<String>) -> Vec<String> {
    let fits = |line: &String| line.chars().count() <= WIDTH;
    let all = parts.join(", ");
    let line = [Some(all.clone()), last.clone()].into_iter().flatten().collect::<Vec<_>>().join("; ");
    if fits(&line) {
        return vec![line];
    }
    let parts = if fits(&all) { vec![all] } else { parts.to_vec() };
    parts.into_iter().chain(last).collect()
}

fn answer_words(servers: ServerSet, one: &str, several: &str) -> Option<String> {
    match servers.len() {
        0 => None,
        1 => Some(format!("server {} {one}", list(servers).trim_start_matches('s'))),
        _ => Some(format!("{} {several}", list(servers))),
    }
}

/// `s3's acceptor is down`, `s3's and s5's acceptors are down`.
fn role_words(servers: ServerSet, role: RoleKind, change: RoleChange) -> Option<String> {
    (!servers.is_empty()).then(|| format!("{} {}", owners(servers, role.as_str()), change.words(servers.len() > 1)))
}

/// `s3's acceptor`, `s3's and s5's acceptors`.
pub fn owners(servers: ServerSet, role: &str) -> String {
    let owners: Vec<String> = servers.iter().map(|server| format!("{server}'s")).collect();
    let plural = if servers.len() > 1 { "s" } else { "" };
    format!("{} {role}{plural}", and(&owners))
}

/// `s1, s2, s5`.
pub fn list(servers: ServerSet) -> String {
    servers.iter().map(|server| server.to_string()).collect::<Vec<_>>().join(", ")
}

/// `s1, s2 and s5`.
pub fn and(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(ups: [bool; 3], crashes: u32) -> ServerView {
        let status =
            |(role, up)| RoleStatus { role, up, crashes: if role == RoleKind::Acceptor { crashes } else { 0 } };
        ServerView { answers: true, roles: RoleKind::PAXOS.into_iter().zip(ups).map(status).collect(), leads: false }
    }

    /// A server whose acceptor is up or down, after this number of crashes.
    fn acceptor(up: bool, crashes: u32) -> ServerView {
        view([true, up, true], crashes)
    }

    #[track_caller]
    fn assert_changes(before: [ServerView; 5], now: [ServerView; 5], expected: &[&str]) {
        let of = |views: [ServerView; 5]| (1..=5).map(ServerId).zip(views).collect();
        let cluster = Cluster { servers: ServerSet::first(5), protocol: Protocol::BasicPaxos };
        assert_eq!(changes(cluster, &of(before), &of(now)), expected);
    }

    #[test]
    fn crash_and_restart_are_told_with_the_voters_that_remain() {
        let up = || acceptor(true, 0);
        assert_changes([up(), up(), up(), up(), up()], [up(), up(), up(), up(), up()], &[]);
        assert_changes(
            [up(), up(), up(), up(), up()],
            [up(), up(), acceptor(false, 1), up(), up()],
            &["s3's acceptor is down; s1, s2, s4, s5 remain"],
        );
        assert_changes(
            [up(), up(), acceptor(false, 1), up(), up()],
            [up(), up(), acceptor(true, 1), up(), up()],
            &["s3's acceptor is up again; all 5 are up"],
        );
        assert_changes(
            [up(), acceptor(false, 1), up(), up(), acceptor(false, 1)],
            [acceptor(false, 1), acceptor(true, 1), up(), up(), acceptor(false, 2)],
            &[
                "s1's acceptor is down",
                "s5's acceptor restarted and crashed again",
                "s2's acceptor is up again",
                "s2, s3, s4 remain",
            ],
        );
    }

    #[test]
    fn outage_between_two_reports_is_known_from_the_crash_counter() {
        let up = || acceptor(true, 0);
        assert_changes(
            [up(), up(), up(), up(), up()],
            [up(), up(), up(), acceptor(true, 1), up()],
            &["s4's acceptor crashed and restarted"],
        );
    }

    #[test]
    fn lost_majority_and_its_return_are_told() {
        let (up, down) = (|| acceptor(true, 0), || acceptor(false, 1));
        assert_changes(
            [down(), down(), up(), up(), up()],
            [down(), down(), down(), up(), up()],
            &["s3's acceptor is down; no majority: 2 of 5 acceptors up (s4, s5), requests wait"],
        );
        assert_changes(
            [down(), down(), down(), up(), up()],
            [down(), acceptor(true, 1), down(), up(), up()],
            &["s2's acceptor is up again; s2, s4, s5 are a majority again"],
        );
    }

    #[test]
    fn silent_server_and_other_roles_are_told() {
        let up = || acceptor(true, 0);
        let silent = ServerView::default;
        assert_changes(
            [up(), up(), up(), up(), up()],
            [silent(), up(), view([false, true, true], 0), up(), up()],
            &["server 1 does not answer, s3's proposer is down; s2, s3, s4, s5 remain"],
        );
        assert_changes(
            [silent(), silent(), up(), up(), up()],
            [up(), up(), up(), up(), up()],
            &["s1, s2 answer again; all 5 are up"],
        );
    }

    #[test]
    fn two_phase_commit_needs_every_participant() {
        let cluster = Cluster { servers: ServerSet::first(5), protocol: Protocol::TwoPhaseCommit };
        assert!(!cluster.is_quorum(ServerSet::first(4)));
        assert_eq!(
            cluster.no_quorum(ServerSet::first(4)),
            "two-phase commit needs all 5: 4 of 5 participants up (s1, s2, s3, s4)"
        );
    }
}
