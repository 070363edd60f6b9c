//! The availability verdict: whether the cluster accepts writes, judged from the status of its servers.
//!
//! A server that answers may still be of no use. It may not be active, its acceptor may be corrupt, or the others may
//! not reach it. So a server counts only if it is known to help. Its vote must be available, and it and the proposing
//! server must report that they reach and receive each other. The state of a server that does not answer is unknown,
//! and never assumed to be good.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use super::wire::ServerStatus;
use crate::protocol::Protocol;
use crate::role::{ServerId, ServerSet};

/// A message names at most this number of problems.
const PROBLEMS_SHOWN_MAX: usize = 4;

/// The verdict on writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvailabilityVerdict {
    /// Whether writes are possible.
    pub writes: Writes,
    /// The reason; empty if writes are possible.
    pub reason: String,
    /// All problems, whether or not they matter now.
    pub problems: Vec<String>,
    /// Whether all servers that answered are linked with each other, except those that need no link.
    pub is_linked: bool,
    protocol: Protocol,
}

/// Whether writes are possible now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// A write started now succeeds, also after any `spare` more servers have failed.
    Ok {
        /// Number of further failures tolerated.
        spare: usize,
    },
    /// Enough servers can vote and are linked, but none can propose to them now.
    NoLeader,
    /// Too few servers can vote, or they are not linked.
    No,
}

impl AvailabilityVerdict {
    /// Judges a cluster of these servers by the status of those that answered.
    pub fn of<'a>(members: ServerSet, answers: impl IntoIterator<Item = &'a ServerStatus>) -> AvailabilityVerdict {
        ClusterView::new(members, answers).verdict()
    }

    /// Whether a write started now succeeds.
    pub fn is_ok(&self) -> bool {
        matches!(self.writes, Writes::Ok { .. })
    }

    /// The verdict without its reason.
    pub fn word(&self) -> &'static str {
        match (self.writes, self.protocol) {
            (Writes::Ok { .. }, _) => "writes OK",
            (Writes::NoLeader, Protocol::MultiPaxos) => "no leader at the moment",
            (Writes::NoLeader, Protocol::BasicPaxos) => "no proposer at the moment",
            (Writes::NoLeader, Protocol::TwoPhaseCommit) => "no coordinator at the moment",
            (Writes::No, _) => "no writes",
        }
    }

    /// The first problems, as a part of a sentence; None if there are none.
    pub fn problem(&self) -> Option<String> {
        let mut named = self.problems.iter().take(PROBLEMS_SHOWN_MAX).cloned().collect::<Vec<_>>();
        if self.problems.len() > PROBLEMS_SHOWN_MAX {
            named.push(format!("and {} more", self.problems.len() - PROBLEMS_SHOWN_MAX));
        }
        (!named.is_empty()).then(|| named.join("; "))
    }
}

impl Display for AvailabilityVerdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self.writes {
            Writes::Ok { .. } if !self.protocol.is_paxos() => f.write_str("; two-phase commit tolerates no failure"),
            Writes::Ok { spare: 0 } => f.write_str("; if one more server fails, writes may stop"),
            Writes::Ok { spare: 1 } => f.write_str("; 1 more server may fail"),
            Writes::Ok { spare } => write!(f, "; {spare} more servers may fail"),
            Writes::NoLeader | Writes::No => write!(f, ": {}", self.reason),
        }
    }
}

/// The members of a cluster and the status of those that answered.
struct ClusterView<'a> {
    members: ServerSet,
    protocol: Protocol,
    answers: BTreeMap<ServerId, &'a ServerStatus>,
}

impl<'a> ClusterView<'a> {
    fn new(members: ServerSet, answers: impl IntoIterator<Item = &'a ServerStatus>) -> ClusterView<'a> {
        let answers: BTreeMap<ServerId, _> = answers.into_iter().map(|status| (status.server, status)).collect();
        let protocol = answers.values().find_map(|status| status.protocol()).unwrap_or(Protocol::BasicPaxos);
        ClusterView { members, protocol, answers }
    }

    fn verdict(&self) -> AvailabilityVerdict {
        let voters = self.those(|status| self.can_vote(status));
        let needed = self.protocol.votes_needed(self.members.len());
        let reaches = |server: &ServerId| self.linked_with(*server, voters).len() >= needed;
        let voter = self.protocol.voter().as_str();
        let (writes, reason) = if voters.len() < needed {
            let (some, all) = (voters.len(), self.members.len());
            let reason = match self.protocol {
                Protocol::TwoPhaseCommit => {
                    format!("{some} of {all} {voter}s can vote, two-phase commit needs all {needed}")
                }
                Protocol::BasicPaxos | Protocol::MultiPaxos => {
                    format!("no quorum, {some} of {all} {voter}s can vote and {needed} are needed")
                }
            };
            (Writes::No, reason)
        } else if !self.those(ServerStatus::is_active).iter().any(|server| reaches(&server)) {
            (Writes::No, format!("no server is linked with the {needed} {voter}s that a write needs"))
        } else if let Err(why) = self.find_proposer(voters, needed) {
            (Writes::NoLeader, why)
        } else {
            (Writes::Ok { spare: self.spare(voters, needed) }, String::new())
        };
        let mut verdict = AvailabilityVerdict {
            writes,
            reason,
            problems: self.problems(),
            is_linked: self.link_troubles().is_empty(),
            protocol: self.protocol,
        };
        if !verdict.is_ok()
            && let Some(trouble) = verdict.problem()
        {
            verdict.reason = format!("{}; {trouble}", verdict.reason);
        }
        verdict
    }

    /// The servers that answered and satisfy this condition.
    fn those(&self, are: impl Fn(&ServerStatus) -> bool) -> ServerSet {
        self.answers.values().filter(|status| are(status)).map(|status| status.server).collect()
    }

    /// Whether its vote on a new value is available to a server that is linked with it.
    fn can_vote(&self, status: &ServerStatus) -> bool {
        self.is_of_kind(status)
            && status.is_active()
            && status.is_up(self.protocol.voter())
            && !status.disk_full
            && status.corrupt_slots == 0
    }

    /// Whether it has the roles to complete a write.
    fn has_roles(&self, status: &ServerStatus) -> bool {
        self.is_of_kind(status)
            && status.is_active()
            && self.protocol.roles_of_writes().iter().all(|role| status.is_up(*role))
    }

    /// Whether it accepts writes from clients.
    fn takes_writes(&self, status: &ServerStatus) -> bool {
        self.has_roles(status) && !status.disk_full && !status.checkpoint_full
    }

    /// Whether its protocol is of the cluster's family: Basic Paxos and Multi-Paxos understand each other.
    fn is_of_kind(&self, status: &ServerStatus) -> bool {
        status.protocol().is_some_and(|protocol| protocol.is_paxos() == self.protocol.is_paxos())
    }

    /// Whether two servers, which may be the same, each report that they reach and receive the other.
    fn are_linked(&self, one: ServerId, other: ServerId) -> bool {
        let says = |one, other| {
            let status: Option<&&ServerStatus> = self.answers.get(&one);
            status.is_some_and(|status| status.connected.contains(other) && status.hears.contains(other))
        };
        one == other || (says(one, other) && says(other, one))
    }

    fn linked_with(&self, server: ServerId, others: ServerSet) -> ServerSet {
        others.iter().filter(|other| self.are_linked(server, *other)).collect()
    }

    /// Whether a server can propose to a quorum now, and a client can reach it; the error is the reason.
    fn find_proposer(&self, voters: ServerSet, needed: usize) -> Result<(), String> {
        let writables = self.those(|status| self.takes_writes(status));
        if self.protocol == Protocol::MultiPaxos {
            return self.find_leader(writables, voters, needed);
        }
        if writables.iter().any(|writable| self.linked_with(writable, voters).len() >= needed) {
            return Ok(());
        }
        let voter = self.protocol.voter().as_str();
        Err(format!("no server that is linked with {needed} {voter}s takes writes"))
    }

    /// Whether one of the servers leads, and can reach a quorum.
    fn find_leader(&self, writables: ServerSet, voters: ServerSet, needed: usize) -> Result<(), String> {
        let claims = self.answers.values().filter_map(|status| Some((*status, status.leads()?)));
        let Some((leader, ballot)) = claims.max_by_key(|(_, ballot)| *ballot) else {
            return Err(
                "enough servers are up and linked, but none of them leads; writes wait for an election".to_string()
            );
        };
        let obeys = |server: &ServerId| self.answers.get(server).is_some_and(|status| status.promised <= ballot);
        let obeying = self.linked_with(leader.server, voters).iter().filter(obeys).count();
        let name = format!("server {} reports that it leads", leader.server.0);
        if obeying < needed {
            let some = format!("{obeying} of the {needed} acceptors it needs");
            Err(format!("{name}, but only {some} are linked with it and have promised no higher ballot"))
        } else if !self.has_roles(leader) {
            Err(format!("{name}, but it cannot complete writes"))
        } else if self.linked_with(leader.server, writables).is_empty() {
            Err(format!("{name}, but no server that takes writes is linked with it"))
        } else {
            Ok(())
        }
    }

    /// Number of servers that may fail, whichever they are. A server survives n failures of voters if it reaches n
    /// voters more than needed; with more than n such servers, one remains.
    fn spare(&self, voters: ServerSet, needed: usize) -> usize {
        let reach = |writable: ServerId| self.linked_with(writable, voters).len();
        let reaches: Vec<usize> = self.those(|status| self.takes_writes(status)).iter().map(reach).collect();
        let can_spare = |n: &usize| reaches.iter().filter(|reach| **reach >= needed + n).count() > *n;
        (1..=voters.len()).take_while(can_spare).count()
    }

    /// All problems: first of servers, then of links.
    fn problems(&self) -> Vec<String> {
        let silent = self.members.without(self.answers.keys().copied().collect());
        let silent = (!silent.is_empty()).then(|| format!("no reply from {silent}"));
        let servers = self.answers.values().filter_map(|status| self.trouble_of(status));
        silent.into_iter().chain(servers).chain(self.link_troubles()).collect()
    }

    fn trouble_of(&self, status: &ServerStatus) -> Option<String> {
        let mut parts = Vec::new();
        if !self.is_of_kind(status) {
            parts.push(format!("runs {}", status.protocol));
        }
        if status.admission.is_some() {
            parts.push("not admitted yet, its data directory is new".to_string());
        } else if status.fenced.is_some() {
            parts.push("FENCED, its replica diverged".to_string());
        }
        parts.extend(status.roles.iter().filter(|role| !role.up).map(|role| format!("{} down", role.role.as_str())));
        if status.disk_full {
            parts.push("disk full".to_string());
        }
        if status.checkpoint_full {
            parts.push("takes no writes until its checkpoint, which is far behind, is written".to_string());
        }
        if status.corrupt_slots > 0 {
            parts.push(format!("acceptor CORRUPT, unreadable slots: {}", status.corrupt_slots));
        }
        (!parts.is_empty()).then(|| format!("server {}: {}", status.server.0, parts.join(", ")))
    }

    /// The pairs of servers that answered and are not linked. A server that is linked with no other is named once.
    fn link_troubles(&self) -> Vec<String> {
        let answering: ServerSet = self.answers.keys().copied().collect();
        let troubles_of = |one: ServerId| -> Vec<String> {
            answering.iter().filter(|other| *other != one).filter_map(|other| self.link_trouble(one, other)).collect()
        };
        let others = answering.len().saturating_sub(1);
        let is_alone = |one: &ServerId| others > 1 && troubles_of(*one).len() == others;
        let alone: ServerSet = answering.iter().filter(is_alone).collect();
        if alone.len() > 1 && alone == answering {
            let why = alone.iter().find_map(|one| troubles_of(one).into_iter().next());
            return why.into_iter().map(|why| format!("no two servers are linked: {why}")).collect();
        }
        let mut troubles = Vec::new();
        for one in alone.iter() {
            let first = troubles_of(one).into_iter().next().unwrap_or_default();
            troubles.push(format!("server {} is linked with no other server: {first}", one.0));
        }
        let rest = answering.without(alone);
        for one in rest.iter() {
            for other in rest.iter().filter(|other| *other > one) {
                let trouble = self.link_trouble(one, other);
                let named = |why| format!("server {} and server {} are not linked: {why}", one.0, other.0);
                troubles.extend(trouble.map(named));
            }
        }
        troubles
    }

    /// Why two servers that answered are not linked; None if they are, or need not be.
    fn link_trouble(&self, one: ServerId, other: ServerId) -> Option<String> {
        let both = [(one, other), (other, one)];
        let sides = both.map(|(here, there)| (here, there, self.answers.get(&here)));
        for (here, there, status) in sides {
            if let Some(refusal) = status?.refusals.iter().find(|refusal| refusal.server == there) {
                return Some(format!("server {} reports: {}", here.0, refusal.why));
            }
        }
        if !sides.iter().all(|(.., status)| status.is_some_and(|status| status.is_active())) {
            // A server that is not active or is fenced sends nothing, so its link has no problem.
            return None;
        }
        let unreached = sides.iter().find(|(_, there, status)| status.is_some_and(|s| !s.connected.contains(*there)));
        let unheard = sides.iter().find(|(_, there, status)| status.is_some_and(|s| !s.hears.contains(*there)));
        let reach = unreached.map(|(here, there, _)| format!("server {} does not reach server {}", here.0, there.0));
        reach.or_else(|| {
            unheard.map(|(here, there, _)| format!("server {} receives nothing from server {}", here.0, there.0))
        })
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
