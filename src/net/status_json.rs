//! The status of a server as one JSON object, the same from `paxos-client status -o json` and over HTTP.

use serde_json::{Value, json};

use super::wire::{RoleStatus, ServerStatus};
use crate::role::ServerSet;
use crate::trace::Speaker;

impl ServerStatus {
    /// The status as JSON: every field under its name; ballots, digests and sets of servers in a form that people read.
    pub fn to_json(&self) -> Value {
        let numbers = |servers: ServerSet| json!(servers.iter().collect::<Vec<_>>());
        let role =
            |role: &RoleStatus| (Speaker::from(role.role).as_str(), json!({ "up": role.up, "crashes": role.crashes }));
        let mut json = json!(self);
        json["roles"] = self.roles.iter().map(role).collect();
        json["promised"] = json!(self.promised.to_string());
        json["digest"] = json!(format!("{:016x}", self.digest));
        json["history"] = json!(format!("{:016x}", self.history));
        json["connected"] = numbers(self.connected);
        json["hears"] = numbers(self.hears);
        if let Some(admission) = &self.admission {
            json["admission"]["witnesses"] = numbers(admission.witnesses);
        }
        if let Some(leader) = &self.leader {
            json["leader"]["server"] = json!(leader.ballot.server);
            json["leader"]["ballot"] = json!(leader.ballot.to_string());
        }
        for (n, one) in self.in_doubt_transactions.iter().enumerate() {
            let json = &mut json["in_doubt_transactions"][n];
            json["transaction"] = json!(one.transaction.to_string());
            json["key"] = json!(one.key.as_ref().map(|key| String::from_utf8_lossy(key)));
        }
        json
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
