//! The status of the cluster: the answers of all servers, a verdict, and a table.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::thread;
use std::time::Duration;

use super::client::{Client, ClientOptions};
use super::outcome::{ClientError, role_word};
use super::printer::table;
use crate::cluster::Cluster;
use crate::net::{AdmissionStatus, AvailabilityVerdict, InDoubtStatus, LeaderStatus, ServerStatus, Writes};
use crate::paxos::Slot;
use crate::protocol::Protocol;
use crate::role::{RoleKind, ServerId, ServerSet};
use crate::trace::QuotedText;
use crate::two_phase_commit::TransactionId;

/// The status of each server, or why there is none.
#[derive(Debug)]
pub struct ClusterStatus {
    /// By server, lowest number first.
    pub replies: Vec<(ServerId, Result<ServerStatus, ClientError>)>,
}

impl ClusterStatus {
    /// Asks all servers at the same time; each has `patience` to answer.
    pub fn query(cluster: &Cluster, patience: Duration) -> ClusterStatus {
        let ask = |server| {
            let options = ClientOptions {
                first_server: Some(server),
                timeout: patience,
                try_timeout: patience,
                ..ClientOptions::new(cluster.clone(), "status")
            };
            (server, Client::new(options).and_then(|mut client| client.status(server)))
        };
        let answers = thread::scope(|scope| {
            let asked: Vec<_> = cluster.servers().iter().map(|server| scope.spawn(move || ask(server))).collect();
            // A panic in a query's thread is passed on.
            asked
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        ClusterStatus { replies: answers }
    }

    /// The status of each server that has answered.
    pub fn statuses(&self) -> impl Iterator<Item = &ServerStatus> {
        self.replies.iter().filter_map(|(_, answer)| answer.as_ref().ok())
    }

    /// Whether every server has answered.
    pub fn is_complete(&self) -> bool {
        self.replies.iter().all(|(_, answer)| answer.is_ok())
    }

    /// The applied slot and digest that all servers have in common; None if they differ or a server did not answer.
    pub fn agreement(&self) -> Option<(u64, u64)> {
        let mut states = self.statuses().map(|status| (status.applied.0, status.digest));
        let first = states.next()?;
        (self.is_complete() && states.all(|state| state == first)).then_some(first)
    }

    /// Size of the largest group of servers with the same slot and digest.
    pub fn largest_agreement(&self) -> usize {
        let state = |status: &ServerStatus| (status.applied, status.digest);
        self.statuses().map(|one| self.statuses().filter(|other| state(other) == state(one)).count()).max().unwrap_or(0)
    }

    /// Number of crashes of this role, all servers together.
    pub fn crashes(&self, role: RoleKind) -> u64 {
        self.statuses().flat_map(|status| &status.roles).filter(|r| r.role == role).map(|r| u64::from(r.crashes)).sum()
    }

    /// Whether writes are possible now.
    pub fn verdict(&self) -> AvailabilityVerdict {
        AvailabilityVerdict::of(self.replies.iter().map(|(server, _)| *server).collect(), self.statuses())
    }

    /// The protocol that the first answering server reports; Basic Paxos if none answers.
    pub fn protocol(&self) -> Protocol {
        self.statuses().find_map(ServerStatus::protocol).unwrap_or(Protocol::BasicPaxos)
    }

    /// Whether the servers run two-phase commit, which needs all of them.
    fn is_two_phase_commit(&self) -> bool {
        !self.protocol().is_paxos()
    }

    /// The transactions in doubt, one line each, with the servers that are in doubt about it.
    fn doubts(&self) -> String {
        let mut doubts: BTreeMap<TransactionId, (ServerSet, &InDoubtStatus)> = BTreeMap::new();
        for (server, one) in self.statuses().flat_map(|s| s.in_doubt_transactions.iter().map(|one| (s.server, one))) {
            let (servers, longest) = doubts.entry(one.transaction).or_insert((ServerSet::NONE, one));
            servers.insert(server);
            if one.waited_ms > longest.waited_ms {
                *longest = one;
            }
        }
        let mut text = String::new();
        for (transaction, (servers, one)) in doubts {
            let key =
                one.key.as_ref().map_or("a new session".to_string(), |key| format!("key {}", QuotedText::new(key)));
            let blocked = self
                .statuses()
                .flat_map(|s| &s.in_doubt_transactions)
                .any(|d| d.transaction == transaction && d.is_blocked);
            let word = if blocked { "BLOCKED" } else { "in doubt" };
            let waited = one.waited_ms as f64 / 1e3;
            let _ = writeln!(
                text,
                "{word}: transaction {transaction} ({key} is locked) on {servers} for {waited:.1} s; its coordinator is on {}",
                transaction.coordinator
            );
        }
        let shown: u64 = self.statuses().map(|s| s.in_doubt_transactions.len() as u64).sum();
        let all: u64 = self.statuses().map(|s| s.in_doubt).sum();
        if all > shown {
            let _ = writeln!(text, "and {} more in doubt, all servers together", all - shown);
        }
        text
    }

    /// The servers whose roles lose their promises when they restart.
    fn unsafe_servers(&self) -> Vec<String> {
        self.statuses().filter(|s| s.restart != "disk").map(|s| s.server.0.to_string()).collect()
    }

    /// The leader; None if no server reports one.
    pub fn leader_id(&self) -> Option<ServerId> {
        self.latest_leader().map(|leader| leader.ballot.server)
    }

    fn latest_leader(&self) -> Option<&LeaderStatus> {
        let known = self.statuses().filter_map(|status| Some((status.server, status.leader.as_ref()?)));
        // The highest ballot is the latest; of equals, prefer the report of the ballot's own server.
        Some(known.max_by_key(|(server, leader)| (leader.ballot, leader.ballot.server == *server))?.1)
    }

    /// A sentence about the leader, the length of its tenure and the reason; None if no server reports one.
    pub fn leader(&self) -> Option<String> {
        let leader = self.latest_leader()?;
        let for_s = leader.for_ms as f64 / 1e3;
        Some(format!(
            "leader: server {}, ballot {}, for {for_s:.1} s ({})",
            leader.ballot.server.0, leader.ballot, leader.why
        ))
    }

    /// The verdict and the table as text.
    pub fn render(&self) -> String {
        // How roles restart is a column of Paxos only if it is unusual: a screen has a hundred columns.
        let columns = if self.is_two_phase_commit() {
            &TWO_PHASE_COMMIT_COLUMNS[..]
        } else if self.unsafe_servers().is_empty() {
            &PAXOS_COLUMNS[..PAXOS_COLUMNS.len() - 1]
        } else {
            &PAXOS_COLUMNS[..]
        };
        self.summary() + &self.table(columns)
    }

    /// The verdict, and what needs attention.
    pub fn summary(&self) -> String {
        let verdict = self.verdict();
        let mut text = format!("{verdict}\n");
        if let Some(trouble) = verdict.problem().filter(|_| verdict.is_ok()) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "problems: {trouble}");
        }
        if let Some(leader) = self.leader() {
            let _ = writeln!(text, "{leader}");
        } else if verdict.writes == Writes::No && self.protocol() == Protocol::MultiPaxos {
            text.push_str("no leader known; writes wait for an election\n");
        }
        let forgetful = self.unsafe_servers();
        if !forgetful.is_empty() {
            let servers = forgetful.join(", ");
            let _ = writeln!(
                text,
                "UNSAFE: acceptors of server {servers} lose their promises at each restart (--restart lost); a chosen \
                 value can be lost"
            );
        }
        for status in self.statuses() {
            if let Some(slot) = status.fenced {
                let _ = writeln!(
                    text,
                    "VIOLATION: the replica of server {} diverged after slot {slot}; it is fenced and answers no \
                     request. See docs/storage.md",
                    status.server.0
                );
            }
        }
        for status in self.statuses() {
            if let Some(AdmissionStatus { witnesses: known_to, needed }) = status.admission {
                let _ = writeln!(
                    text,
                    "server {} is not admitted: its data directory is new. It joins when {needed} peers have recorded it \
                     (so far {known_to}): start those that are down. If it had another directory before, restore that one",
                    status.server.0
                );
            }
        }
        if self.is_two_phase_commit() {
            text.push_str(&self.doubts());
        }
        text
    }

    fn table(&self, columns: &[Column]) -> String {
        let known = self.statuses().map(|status| status.chosen.max(status.applied)).max().unwrap_or_default();
        let head: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
        let row = |status| columns.iter().map(|(_, cell)| cell(status, known)).collect();
        let rows: Vec<Vec<String>> = self.statuses().map(row).collect();
        // A server that has not answered has a message instead of cells: it must not widen a column.
        let silent = self.replies.iter().filter_map(|(server, answer)| Some((server, answer.as_ref().err()?)));
        let silent: String = silent.map(|(server, error)| format!("{server}      {}\n", short(error))).collect();
        table(&head, &rows) + &silent
    }
}

/// A column of the table: its title, and the cell of a server, given the highest slot that any server knows.
type Column = (&'static str, fn(&ServerStatus, Slot) -> String);

const PAXOS_COLUMNS: [Column; 12] = [
    ("server", |status, _| status.server.to_string()),
    ("proposer", |status, _| state(status, RoleKind::Proposer)),
    ("acceptor", |status, _| match status.is_up(RoleKind::Acceptor) {
        true if status.admission.is_some() => "PENDING".to_string(),
        true if status.fenced.is_some() => "FENCED".to_string(),
        true if status.disk_full => "DISK FULL".to_string(),
        true if status.corrupt_slots > 0 => "CORRUPT".to_string(),
        _ => state(status, RoleKind::Acceptor),
    }),
    ("learner", |status, _| match status.fenced {
        Some(_) => "FENCED".to_string(),
        None => state(status, RoleKind::Learner),
    }),
    ("promised", |status, _| status.promised.to_string()),
    ("chosen", |status, _| status.chosen.to_string()),
    ("applied", |status, _| status.applied.to_string()),
    ("lag", |status, known| known.ahead_of(status.applied).to_string()),
    ("digest", |status, _| format!("{:016x}", status.digest)),
    ("keys", |status, _| status.keys.to_string()),
    ("crashes", |status, _| crashes(status)),
    ("restart", |status, _| match status.restart.as_str() {
        "disk" => "disk".to_string(),
        restart => format!("{restart} UNSAFE"),
    }),
];

const TWO_PHASE_COMMIT_COLUMNS: [Column; 9] = [
    ("server", |status, _| status.server.to_string()),
    ("coordinator", |status, _| state(status, RoleKind::Coordinator)),
    ("participant", |status, _| match status.disk_full {
        true => "DISK FULL".to_string(),
        false => state(status, RoleKind::Participant),
    }),
    ("committed", |status, _| status.applied.to_string()),
    ("in doubt", |status, _| status.in_doubt.to_string()),
    ("digest", |status, _| format!("{:016x}", status.digest)),
    ("keys", |status, _| status.keys.to_string()),
    ("crashes", |status, _| crashes(status)),
    ("restart", |status, _| status.restart.clone()),
];

fn state(status: &ServerStatus, role: RoleKind) -> String {
    if status.is_up(role) { "up" } else { "DOWN" }.to_string()
}

fn crashes(status: &ServerStatus) -> String {
    status.roles.iter().map(|role| role.crashes).sum::<u32>().to_string()
}

/// Why a server has not answered, without its name and without the consequence for a request.
fn short(error: &ClientError) -> String {
    match error {
        ClientError::NotApplied(tries) | ClientError::Unknown(tries) => {
            let Some(last) = tries.last.last() else { return "was not asked: there was no time".to_string() };
            let sentence = last.to_string();
            sentence.strip_prefix(&format!("server {} ", last.server.0)).unwrap_or(&sentence).to_string()
        }
        ClientError::Refused { .. } | ClientError::TooLarge(_) | ClientError::NoSuchServer { .. } => error.to_string(),
    }
}

/// The names of the roles that are down; None if all are up.
pub fn roles_down(status: &ServerStatus) -> Option<String> {
    let down: Vec<&str> = status.roles.iter().filter(|role| !role.up).map(|role| role_word(role.role)).collect();
    (!down.is_empty()).then(|| down.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::RoleStatus;
    use crate::paxos::Ballot;
    use crate::role::ServerSet;

    fn status(server: u8, down: &[RoleKind], applied: u64) -> (ServerId, Result<ServerStatus, ClientError>) {
        let roles = RoleKind::PAXOS.map(|role| RoleStatus { role, up: !down.contains(&role), crashes: 2 }).to_vec();
        let others = ServerSet::first(5).without(ServerSet::only(ServerId(server)));
        let status = ServerStatus {
            roles,
            promised: Ballot { round: 3, server: ServerId(1) },
            chosen: Slot(7),
            applied: Slot(applied),
            digest: 0xab,
            connected: others,
            hears: others,
            ..ServerStatus::healthy(ServerId(server), Protocol::BasicPaxos)
        };
        (ServerId(server), Ok(status))
    }

    fn full(server: u8) -> (ServerId, Result<ServerStatus, ClientError>) {
        let (server, status) = status(server, &[], 7);
        (server, status.map(|status| ServerStatus { disk_full: true, ..status }))
    }

    #[test]
    fn full_disk_is_shown() {
        let cluster_status = ClusterStatus { replies: vec![full(1), status(2, &[], 7), status(3, &[], 7)] };
        assert!(cluster_status.render().contains(" FULL "), "{}", cluster_status.render());
    }

    #[test]
    fn pending_server_is_shown() {
        let new = |server| {
            let (server, status) = status(server, &[], 0);
            let newcomer = Some(AdmissionStatus { witnesses: ServerSet::first(1), needed: 2 });
            (server, status.map(|status| ServerStatus { admission: newcomer, ..status }))
        };
        let cluster_status = ClusterStatus { replies: vec![status(1, &[], 7), new(2), new(3)] };
        let text = cluster_status.render();
        assert!(text.contains(
            "server 2 is not admitted: its data directory is new. It joins when 2 peers have recorded it (so far s1)"
        ));
        assert_eq!(text.matches(" PENDING ").count(), 2, "{text}");
    }

    #[test]
    fn fenced_server_is_shown() {
        let (server, fenced) = status(3, &[], 7);
        let fenced = (server, fenced.map(|status| ServerStatus { fenced: Some(Slot(5)), ..status }));
        let cluster_status = ClusterStatus { replies: vec![status(1, &[], 7), status(2, &[], 7), fenced] };
        let text = cluster_status.render();
        assert!(text.contains("VIOLATION: the replica of server 3 diverged after slot 5"), "{text}");
        assert_eq!(text.matches(" FENCED ").count(), 2, "{text}");
    }

    fn silent(server: u8) -> (ServerId, Result<ServerStatus, ClientError>) {
        let tries = super::super::outcome::Tries::new(ServerSet::first(5), super::super::outcome::RequestKind::Read);
        (ServerId(server), Err(ClientError::NotApplied(tries)))
    }

    #[test]
    fn verdict_comes_first_and_then_the_problems() {
        let text = |answers: Vec<_>| ClusterStatus { replies: answers }.render();
        let three = || vec![status(1, &[], 7), status(2, &[], 7), status(3, &[], 7)];
        assert!(text(three()).starts_with("writes OK; 1 more server may fail\nserver"), "{}", text(three()));
        let mut one_down = three();
        one_down[2] = status(3, &[RoleKind::Acceptor], 7);
        let told = "writes OK; if one more server fails, writes may stop\nproblems: server 3: acceptor down\nserver";
        assert!(text(one_down).starts_with(told));
        let alone = vec![status(1, &[], 7), silent(2), silent(3)];
        let told = "no writes: no quorum, 1 of 3 acceptors can vote and 2 are needed; no reply from s2,s3\nserver";
        assert!(text(alone).starts_with(told));
    }

    #[test]
    fn table_shows_lag_missing_replies_and_unsafe_restarts() {
        let mut forgetful = status(2, &[RoleKind::Acceptor], 5);
        forgetful.1.as_mut().unwrap().restart = "lost".to_string();
        let cluster_status = ClusterStatus { replies: vec![status(1, &[], 7), forgetful, silent(3)] };
        let text = cluster_status.render();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("UNSAFE: acceptors of server 2 lose their promises"), "{text}");
        let cells = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        assert_eq!(cells(lines[3])[..8], ["s1", "up", "up", "up", "3.1", "7", "7", "0"]);
        assert_eq!(cells(lines[4])[..8], ["s2", "up", "DOWN", "up", "3.1", "7", "5", "2"]);
        assert!(lines[4].ends_with("lost UNSAFE"), "{text}");
        assert_eq!(lines[5], "s3      was not asked: there was no time");
        assert_eq!(cluster_status.agreement(), None);
        assert_eq!(cluster_status.crashes(RoleKind::Acceptor), 4);
    }

    /// Both tables as they look, with a server that has not answered.
    #[test]
    fn tables_are_those_of_the_golden_file() {
        let status = |status: ServerStatus| (status.server, Ok(status));
        let filled = ServerStatus::filled;
        let admitted = || ServerStatus { admission: None, ..filled() };
        let unfenced = || ServerStatus { fenced: None, ..admitted() };
        let up = |status: ServerStatus| ServerStatus {
            roles: RoleKind::PAXOS.map(|role| RoleStatus { role, up: true, crashes: 12 }).to_vec(),
            ..status
        };
        let usual = |status| ServerStatus { restart: "disk".to_string(), ..up(status) };
        let healthy = |server, protocol| status(ServerStatus::healthy(ServerId(server), protocol));
        let two_phase = |status: ServerStatus, number| ServerStatus {
            server: ServerId(number),
            roles: Protocol::TwoPhaseCommit
                .roles_as_named()
                .iter()
                .map(|role| RoleStatus { role: *role, up: number > 2, crashes: 12 })
                .collect(),
            protocol: "two-phase-commit".to_string(),
            ..status
        };
        let clusters = [
            vec![healthy(1, Protocol::MultiPaxos), status(usual(filled())), status(usual(admitted())), silent(3)],
            vec![
                status(filled()),
                status(up(filled())),
                status(up(admitted())),
                status(up(unfenced())),
                status(up(ServerStatus { disk_full: false, ..unfenced() })),
                silent(12),
            ],
            vec![
                healthy(1, Protocol::TwoPhaseCommit),
                status(two_phase(unfenced(), 2)),
                status(two_phase(ServerStatus { disk_full: false, ..unfenced() }, 3)),
                silent(4),
                status(two_phase(ServerStatus { disk_full: false, ..unfenced() }, 2)),
            ],
        ];
        let text: Vec<String> = clusters.map(|replies| ClusterStatus { replies }.render()).into();
        let text = text.join("\n");
        assert_eq!(text, include_str!("testdata/status_tables.txt"), "{text}");
    }

    #[test]
    fn agreement_needs_every_server_at_one_slot_with_one_digest() {
        let agreed = || vec![status(1, &[], 7), status(2, &[], 7)];
        assert_eq!(ClusterStatus { replies: agreed() }.agreement(), Some((7, 0xab)));
        let mut behind = agreed();
        behind.push(status(3, &[], 6));
        let behind = ClusterStatus { replies: behind };
        assert_eq!((behind.agreement(), behind.largest_agreement()), (None, 2));
        let mut missing = agreed();
        missing.push(silent(3));
        assert_eq!(ClusterStatus { replies: missing }.agreement(), None);
        let mut other = agreed();
        other[1].1.as_mut().unwrap().digest = 1;
        assert_eq!(ClusterStatus { replies: other }.agreement(), None);
    }
}
