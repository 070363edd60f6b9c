//! The status of a server as one JSON object, the same from `paxos-client status -o json` and over HTTP.

use serde_json::{Value, json};

use super::wire::ServerStatus;
use crate::role::ServerSet;
use crate::trace::Speaker;

impl ServerStatus {
    /// The status as JSON; ballots and digests in the form of log lines.
    pub fn to_json(&self) -> Value {
        let role = |role: &super::wire::RoleStatus| {
            (Speaker::from(role.role).as_str().to_string(), json!({ "up": role.up, "crashes": role.crashes }))
        };
        let roles: serde_json::Map<String, Value> = self.roles.iter().map(role).collect();
        let numbers = |servers: ServerSet| servers.iter().map(|server| server.0).collect::<Vec<u8>>();
        let refusal = |one: &super::wire::Refusal| json!({ "server": one.server.0, "why": one.why });
        let refusals: Vec<Value> = self.refusals.iter().map(refusal).collect();
        let leader = self.leader.as_ref().map(|leader| {
            let (server, ballot) = (leader.ballot.server.0, leader.ballot.to_string());
            json!({ "server": server, "ballot": ballot, "for_ms": leader.for_ms, "why": leader.why })
        });
        let doubt = |one: &super::wire::InDoubtStatus| {
            let key = one.key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned());
            let transaction = one.transaction.to_string();
            json!({ "transaction": transaction, "key": key, "waited_ms": one.waited_ms, "blocked": one.is_blocked })
        };
        let doubts: Vec<Value> = self.in_doubt_transactions.iter().map(doubt).collect();
        let admission = self.admission.map(|new| json!({ "witnesses": numbers(new.witnesses), "needed": new.needed }));
        json!({
            "server": self.server.0, "version": self.version, "protocol": self.protocol, "restart": self.restart,
            "incarnation": self.incarnation, "pid": self.pid, "roles": roles, "promised": self.promised.to_string(),
            "accepted": self.accepted, "chosen": self.chosen.0, "applied": self.applied.0,
            "digest": format!("{:016x}", self.digest), "history": format!("{:016x}", self.history), "keys": self.keys, "sessions": self.sessions,
            "dropped_messages": self.dropped, "disk_full": self.disk_full, "checkpoint_full": self.checkpoint_full,
            "connected": numbers(self.connected), "hears": numbers(self.hears), "refusals": refusals, "leader": leader,
            "in_doubt": self.in_doubt, "in_doubt_transactions": doubts,
            "checkpoint": self.checkpoint.0, "truncated_below": self.truncated_below.0, "corrupt_slots": self.corrupt_slots,
            "fenced": self.fenced.map(|slot| slot.0), "admission": admission,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Protocol;
    use crate::role::ServerId;

    /// Programs read these documents. What a field is called and how it is written must not change by accident.
    #[test]
    fn documents_are_those_of_the_golden_file() {
        let statuses = [ServerStatus::filled(), ServerStatus::healthy(ServerId(1), Protocol::TwoPhaseCommit)];
        let lines: String = statuses.iter().map(|status| format!("{}\n", status.to_json())).collect();
        assert_eq!(lines, include_str!("testdata/status.jsonl"), "{lines}");
    }
}
