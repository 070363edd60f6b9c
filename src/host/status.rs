//! The status of a server and its roles that others may see, for `status`.

use std::sync::{Mutex, PoisonError};

use super::core::ServerCore;
use super::env::Env;
use super::limits::ClientConnection;
use crate::kv::Kv;
use crate::net::{IN_DOUBT_SHOWN, InDoubtStatus, LeaderStatus, RoleStatus, ServerStatus};
use crate::paxos::{Ballot, LeaderEvidence, Learner, Slot, StateMachine};
use crate::role::{RoleKind, ServerSet};
use crate::time::Time;
use crate::two_phase_commit::{InDoubtTransaction, Participant};

/// The state last published by each role.
#[derive(Default)]
pub struct SharedStatus(Mutex<StatusSnapshot>);

/// See [`SharedStatus`].
#[derive(Clone, Debug)]
pub struct StatusSnapshot {
    /// The acceptor's promise.
    pub promised: Ballot,
    /// Number of slots with an accepted value.
    pub accepted: u64,
    /// The highest slot known to be chosen.
    pub known: Slot,
    /// The last slot applied.
    pub applied: Slot,
    /// The digest of the state after the last applied slot.
    pub digest: u64,
    /// The id of the log's history; 0 if it is not known yet.
    pub history: u64,
    /// A durable checkpoint holds every slot up to this one.
    pub checkpoint: Slot,
    /// The acceptor has truncated every slot below.
    pub truncated_below: Slot,
    /// Number of slots that the acceptor cannot read.
    pub corrupt: u64,
    /// The replica was found to be divergent after this slot.
    pub fenced: Option<Slot>,
    /// Keys of the store.
    pub keys: u64,
    /// Sessions of the store.
    pub sessions: u64,
    /// Number of transactions for which the participant is prepared.
    pub in_doubt: u64,
    /// The first of these transactions.
    pub doubts: Vec<InDoubtStatus>,
    /// The leader's ballot, its quorum of promises if this server leads (else None: heartbeats), and since when it is
    /// known.
    leader: Option<(Ballot, Option<ServerSet>, Time)>,
    /// Number of crashes by role.
    crashes: [u32; RoleKind::ALL.len()],
}

impl Default for StatusSnapshot {
    fn default() -> StatusSnapshot {
        StatusSnapshot {
            promised: Ballot::ZERO,
            accepted: 0,
            known: Slot(0),
            applied: Slot(0),
            digest: 0,
            history: 0,
            checkpoint: Slot(0),
            truncated_below: Slot(1),
            corrupt: 0,
            fenced: None,
            keys: 0,
            sessions: 0,
            leader: None,
            crashes: [0; RoleKind::ALL.len()],
            in_doubt: 0,
            doubts: Vec::new(),
        }
    }
}

impl StatusSnapshot {
    /// Number of crashes of a role.
    pub fn crashes(&self, role: RoleKind) -> u32 {
        self.crashes[role as usize]
    }

    /// Publishes the state of a participant.
    pub fn set_participant(&mut self, participant: &Participant) {
        self.applied = Slot(participant.applied());
        self.known = self.applied;
        self.digest = participant.kv().digest();
        self.keys = participant.kv().store().len() as u64;
        self.sessions = participant.kv().sessions().len() as u64;
        self.in_doubt = participant.in_doubt_count() as u64;
        let doubt = |one: InDoubtTransaction| InDoubtStatus {
            transaction: one.transaction,
            key: one.key.map(Into::into),
            waited_ms: one.waited_ms,
            is_blocked: one.is_blocked,
        };
        self.doubts = participant.in_doubt().take(IN_DOUBT_SHOWN).map(doubt).collect();
    }

    /// Publishes the state of a learner.
    pub fn set_learner(&mut self, learner: &Learner<Kv>) {
        self.applied = learner.applied();
        self.known = learner.highest_chosen();
        self.digest = learner.machine().digest();
        self.history = learner.machine().history();
        self.keys = learner.machine().store().len() as u64;
        self.sessions = learner.machine().sessions().len() as u64;
    }

    /// Publishes the leader, if there is one. A leader known only from a hint does not count: a candidate uses the same
    /// message to keep others from campaigning, before any acceptor has promised it anything.
    pub fn set_leader(&mut self, leader: Option<(Ballot, LeaderEvidence)>, now: impl FnOnce() -> Time) {
        let leader = leader.and_then(|(ballot, known)| match known {
            LeaderEvidence::Leads { quorum } => Some((ballot, Some(quorum))),
            LeaderEvidence::Heartbeat => Some((ballot, None)),
            LeaderEvidence::Hint => None,
        });
        self.leader = leader.map(|(ballot, quorum)| {
            let before = self.leader.filter(|(before, ..)| *before == ballot);
            (ballot, quorum, before.map_or_else(now, |(.., since)| since))
        });
    }

    /// The leader, as others may see it.
    fn leader(&self, now: Time) -> Option<LeaderStatus> {
        let (ballot, quorum, since) = self.leader?;
        let why = match quorum {
            Some(quorum) => format!("promised by {quorum}"),
            None => "heartbeats received".to_string(),
        };
        Some(LeaderStatus { ballot, for_ms: now.since(since).as_millis() as u64, why })
    }

    /// Counts one more crash of a role.
    pub fn add_crash(&mut self, role: RoleKind) {
        self.crashes[role as usize] += 1;
    }
}

impl SharedStatus {
    /// Changes the published status.
    pub fn update(&self, change: impl FnOnce(&mut StatusSnapshot)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The published status.
    pub fn read(&self) -> StatusSnapshot {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<C: ClientConnection> ServerCore<C> {
    /// The full status of the server.
    pub fn status<E: Env<Connection = C>>(&self, env: &E) -> ServerStatus {
        let (config, shown, now) = (&self.config, self.shared_status.read(), env.now());
        let role = |role: &RoleKind| RoleStatus { role: *role, up: self.is_up(*role), crashes: shown.crashes(*role) };
        ServerStatus {
            server: config.me,
            version: env!("CARGO_PKG_VERSION").to_string(),
            protocol: config.protocol.to_string(),
            restart: if config.forgets { "lost" } else { "disk" }.to_string(),
            incarnation: config.incarnation,
            pid: config.pid,
            roles: config.protocol.roles_as_named().iter().map(role).collect(),
            promised: shown.promised,
            accepted: shown.accepted,
            chosen: shown.known,
            applied: shown.applied,
            digest: shown.digest,
            history: shown.history,
            keys: shown.keys,
            sessions: shown.sessions,
            dropped: self.dropped(),
            disk_full: self.is_disk_full(),
            checkpoint_full: self.is_checkpoint_full(),
            checkpoint: shown.checkpoint,
            truncated_below: shown.truncated_below,
            corrupt_slots: shown.corrupt,
            fenced: shown.fenced,
            admission: self.admission.pending_status(),
            connected: self.linked.reached(),
            hears: self.linked.heard(now),
            refusals: self.linked.refusals(config.me),
            leader: shown.leader(now).filter(|_| self.proposer.is_open()),
            in_doubt: shown.in_doubt,
            in_doubt_transactions: shown.doubts,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::role::ServerId;

    #[test]
    fn candidate_known_only_from_hints_is_not_shown_as_leader() {
        let mut shown = StatusSnapshot::default();
        let (ballot, started) = (Ballot { round: 2, server: ServerId(3) }, Time(9_000_000));
        let mut leader_after = |known, ms| {
            let now = started + Duration::from_millis(ms);
            shown.set_leader(Some((ballot, known)), || now);
            shown.leader(now).map(|leader| (leader.ballot, leader.for_ms))
        };
        assert_eq!(leader_after(LeaderEvidence::Hint, 0), None);
        assert_eq!(leader_after(LeaderEvidence::Heartbeat, 50), Some((ballot, 0)), "it did not lead before");
        assert_eq!(leader_after(LeaderEvidence::Heartbeat, 80), Some((ballot, 30)));
        assert_eq!(leader_after(LeaderEvidence::Hint, 90), None);
        let quorum = ServerSet::first(3);
        assert_eq!(leader_after(LeaderEvidence::Leads { quorum }, 100), Some((ballot, 0)));
    }
}
