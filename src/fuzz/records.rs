//! The log of another role's records, kept by a journal: only what such a log wrote is taken for one.

use std::convert::Infallible;
use std::fmt::Debug;

use super::source::Source;
use crate::codec;
use crate::paxos::{AcceptorRecord, Ballot, Command, CommandId, Entry, Slot, Value};
use crate::role::{Disk, Server};
use crate::storage::records::{Kind, Records};
use crate::two_phase_commit::{CoordinatorRecord, ParticipantRecord};

/// What a journal has given back, read as the log of a coordinator and of a participant.
pub fn records(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let mode = source.below(4);
    let mut found = if mode == 0 { codec::decode(source.rest()).unwrap_or_default() } else { Vec::new() };
    while !source.is_empty() {
        let next = found.len() as u64 + 1;
        found.push(if mode == 1 { source.record() } else { entry(u64::from(mode) - 1, next, &mut source) });
    }
    let coordinators = hold::<CoordinatorRecord>(&found);
    let participants = hold::<ParticipantRecord>(&found);
    assert!(found.is_empty() || !(coordinators && participants), "one log is two");
}

/// An entry of the log of this kind, but for a field now and then.
fn entry(kind: u64, number: u64, source: &mut Source<'_>) -> AcceptorRecord {
    let id = CommandId::new(source.twist(kind), 0, source.twist(number));
    let ballot = Ballot { round: source.twist(1), server: Server(0) };
    let command = Command { id, payload: source.bytes().into() };
    AcceptorRecord::Accepted(Entry {
        slot: Slot(source.twist(number) & Slot::LAST.0),
        ballot,
        value: Value::Command(command),
    })
}

/// A journal that takes everything.
struct Kept(Vec<AcceptorRecord>);

impl Disk<AcceptorRecord> for Kept {
    type Error = Infallible;

    fn commit(&mut self, records: &[AcceptorRecord]) -> Result<(), Infallible> {
        self.0.extend_from_slice(records);
        Ok(())
    }
}

/// Whether this is a log of these records. If it is, it goes on as one, and the same records written anew are read alike.
fn hold<R: Kind + Debug + PartialEq + Clone>(found: &[AcceptorRecord]) -> bool {
    let Ok((mut log, records)) = Records::<Kept, R>::new(Kept(found.to_vec()), found.to_vec()) else { return false };
    assert_eq!(records.len(), found.len());
    let (mut anew, _) = Records::<Kept, R>::new(Kept(Vec::new()), Vec::new()).expect("nothing is a log");
    anew.commit(&records).unwrap_or_else(|never| match never {});
    let (_, again) = Records::<(), R>::new((), anew.journal().0.clone()).expect("a log reads what it wrote");
    assert_eq!(again, records);
    log.commit(&records).unwrap_or_else(|never| match never {});
    let (_, twice) = Records::<(), R>::new((), log.journal().0.clone()).expect("a log goes on");
    assert_eq!(twice, [&records[..], &records[..]].concat());
    true
}
