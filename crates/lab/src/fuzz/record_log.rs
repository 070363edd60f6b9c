//! Records read back from a journal: a list of one kind of record must never be accepted as another kind.

use std::fmt::Debug;

use paxos_kv::choices::Choices;
use paxos_kv::codec;
use paxos_kv::paxos::{AcceptorRecord, Ballot, Command, CommandId, Entry, Slot, Value};
use paxos_kv::role::ServerId;
use paxos_kv::storage::journal::Record;
use paxos_kv::two_phase_commit::{CoordinatorRecord, ParticipantRecord};

/// Decodes recovered records as those of a coordinator and of a participant.
pub fn records(bytes: &[u8]) {
    let mut source = Choices::new(bytes);
    let mode = source.below(4);
    let mut found: Vec<AcceptorRecord> =
        if mode == 0 { codec::decode(source.rest()).unwrap_or_default() } else { Vec::new() };
    while !source.is_empty() {
        let next = found.len() as u64 + 1;
        found.push(if mode == 1 { source.record() } else { entry(u64::from(mode) - 1, next, &mut source) });
    }
    let found: Vec<Vec<u8>> = found.iter().map(codec::encode).collect();
    let coordinators = hold::<CoordinatorRecord>(&found);
    let participants = hold::<ParticipantRecord>(&found);
    assert!(found.is_empty() || !(coordinators && participants), "one list is two");
}

/// A record as in a list of this kind, sometimes with a wrong field. It has the form of an accepted entry.
fn entry(kind: u64, number: u64, source: &mut Choices<'_>) -> AcceptorRecord {
    let id = CommandId::new(source.twist(kind), 0, source.twist(number));
    let ballot = Ballot { round: source.twist(1), server: ServerId(0) };
    let command = Command { id, payload: source.bytes().into() };
    AcceptorRecord::Accepted(Entry {
        slot: Slot(source.twist(number) & Slot::LAST.0),
        ballot,
        value: Value::Command(command),
    })
}

/// Whether this is a valid list of these records. If it is, writing and reading the records again must give the same
/// list.
fn hold<R: Record + Debug + PartialEq>(found: &[Vec<u8>]) -> bool {
    let read =
        |bytes: &[Vec<u8>]| (1..).zip(bytes).map(|(n, bytes)| R::decode(bytes, n)).collect::<Result<Vec<R>, _>>();
    let Ok(records) = read(found) else { return false };
    let anew = (1..).zip(&records).map(|(number, record)| {
        let mut bytes = Vec::new();
        record.encode(number, &mut bytes);
        bytes
    });
    assert_eq!(read(&anew.collect::<Vec<_>>()).as_ref(), Ok(&records), "what was written is read otherwise");
    true
}
