//! Results for other programs: one JSON object per result, each on its own line.

use serde_json::{Map, Value, json};

use super::cluster_status::ClusterStatus;
use super::operation::{CompletedOperation, Operation, OperationResult};
use super::outcome::{ClientError, GetResponse, WriteResponse};
use crate::net::Writes;

/// The result of an operation.
pub fn operation(action: &Operation, ended: &CompletedOperation) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| _ = object.insert(name.to_string(), value);
    put(
        "op",
        json!(match action {
            Operation::Put { .. } => "put",
            Operation::Get { .. } => "get",
            Operation::Delete { .. } => "delete",
        }),
    );
    put_bytes(&mut put, "key", action.key());
    let status = match &ended.end {
        Ok(OperationResult::Wrote(outcome)) => {
            put("version", json!(outcome.version()));
            put("slot", json!(outcome.slot().0));
            match outcome {
                WriteResponse::Written { .. } => "OK",
                WriteResponse::NotFound { .. } => "NOTFOUND",
                WriteResponse::Mismatch { .. } => "MISMATCH",
            }
        }
        Ok(OperationResult::Read(GetResponse { slot, value, version })) => {
            put("version", json!(version));
            put("slot", json!(slot.0));
            if let Some(value) = value {
                put_bytes(&mut put, "value", value);
            }
            if value.is_some() { "OK" } else { "NOTFOUND" }
        }
        Err(error) => {
            put("error", json!(error.to_string()));
            if matches!(error, ClientError::Unknown(_)) { "UNKNOWN" } else { "NOTAPPLIED" }
        }
    };
    put("status", json!(status));
    put("took_ms", json!((ended.took.as_secs_f64() * 1e6).round() / 1e3));
    Value::Object(object)
}

/// Adds bytes as a string; bytes that are not UTF-8 in hexadecimal, under the name with `_hex`.
fn put_bytes(put: &mut impl FnMut(&str, Value), name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => put(name, json!(text)),
        Err(_) => {
            put(&format!("{name}_hex"), json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
        }
    }
}

/// The status of the cluster.
pub fn cluster_status(cluster_status: &ClusterStatus) -> Value {
    let verdict = cluster_status.verdict();
    let servers: Vec<Value> = cluster_status
        .replies
        .iter()
        .map(|(server, answer)| match answer {
            Ok(status) => status.to_json(),
            Err(error) => json!({ "server": server.0, "error": error.to_string() }),
        })
        .collect();
    let spare = match verdict.writes {
        Writes::Ok { spare } => Some(spare),
        Writes::NoLeader | Writes::No => None,
    };
    json!({
        "writes": verdict.is_ok(), "verdict": verdict.word(), "reason": verdict.reason, "tolerates": spare,
        "troubles": verdict.problems, "message": verdict.to_string(), "agree": cluster_status.agreement().is_some(),
        "servers": servers,
    })
}

/// The error that ended the program.
pub fn stop(code: u8, sentence: &str) -> Value {
    json!({ "error": sentence, "exit_code": code })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::Slot;
    use crate::role::ServerSet;
    use std::time::Duration;

    #[test]
    fn bytes_that_are_not_utf8_are_hexadecimal() {
        let found = GetResponse { slot: Slot(7), value: Some(vec![0xff, 0]), version: 2 };
        let ended = CompletedOperation {
            end: Ok(OperationResult::Read(found)),
            took: Duration::from_micros(1_234),
            accepted_by: ServerSet::NONE,
        };
        let action = Operation::Get { key: b"a \"key\"".to_vec() };
        assert_eq!(
            operation(&action, &ended),
            json!({ "op": "get", "key": "a \"key\"", "status": "OK", "slot": 7, "version": 2, "value_hex": "ff00", "took_ms": 1.234 })
        );
    }
}
