//! How each kind of record is stored in the journal.
//!
//! An acceptor's records name their slots, and the other servers have the values chosen in them. The records of
//! two-phase commit are a plain list, and no other server has them.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::{ByteBuf, Bytes};

use super::journal::{PromiseFloor, Record};
use crate::codec;
use crate::paxos::{AcceptorRecord, Ballot, Slot, SlotRange};
use crate::role::ServerId;
use crate::two_phase_commit::{CoordinatorRecord, ParticipantRecord};

impl Record for AcceptorRecord {
    fn encode(&self, _number: u64, bytes: &mut Vec<u8>) {
        codec::encode_into(self, bytes);
    }

    fn decode(bytes: &[u8], _number: u64) -> Result<AcceptorRecord, String> {
        match codec::decode(bytes).map_err(|error| error.to_string())? {
            AcceptorRecord::Corrupt(_) => {
                Err("it is a record of corrupt slots, and such records are never written".to_string())
            }
            record => Ok(record),
        }
    }

    fn slot(&self, _number: u64) -> Option<Slot> {
        match self {
            AcceptorRecord::Accepted(entry) | AcceptorRecord::Repaired(entry) => Some(entry.slot),
            AcceptorRecord::Promised(_) | AcceptorRecord::Truncated(_) | AcceptorRecord::Corrupt(_) => None,
        }
    }

    fn bound(&self) -> PromiseFloor {
        match self {
            AcceptorRecord::Promised(ballot) => PromiseFloor { promised: *ballot, ..PromiseFloor::NONE },
            AcceptorRecord::Accepted(entry) => PromiseFloor { promised: entry.ballot, ..PromiseFloor::NONE },
            AcceptorRecord::Truncated(slot) => PromiseFloor { below: *slot, ..PromiseFloor::NONE },
            AcceptorRecord::Repaired(_) | AcceptorRecord::Corrupt(_) => PromiseFloor::NONE,
        }
    }

    fn corrupt(slots: SlotRange) -> Option<AcceptorRecord> {
        Some(AcceptorRecord::Corrupt(slots))
    }

    fn restate(removed: PromiseFloor, others: PromiseFloor) -> Vec<AcceptorRecord> {
        let promised = (removed.promised > others.promised).then_some(AcceptorRecord::Promised(removed.promised));
        let below = (removed.below > others.below).then_some(AcceptorRecord::Truncated(removed.below));
        promised.into_iter().chain(below).collect()
    }
}

/// A record that is identified by its position in the list.
trait Listed: Serialize + DeserializeOwned {
    /// Distinguishes the lists, so that the list of one kind is never read as that of another.
    const KIND: u64;
}

impl Listed for CoordinatorRecord {
    const KIND: u64 = 1;
}

impl Listed for ParticipantRecord {
    const KIND: u64 = 2;
}

/// The prefix of a record in the list: its number and its kind. No acceptor's record begins so; an acceptor would read
/// it as a value at the ballot below.
fn head<R: Listed>(number: u64) -> Vec<u8> {
    codec::encode(&(1u8, number, LIST, 1u8, R::KIND, 0u8, number))
}

/// A ballot that no server can have: in the header of a segment it marks a list.
const LIST: Ballot = Ballot { round: 1, server: ServerId(0) };

impl<R: Listed> Record for R {
    fn encode(&self, number: u64, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&head::<R>(number));
        codec::encode_into(&Bytes::new(&codec::encode(self)), bytes);
    }

    fn decode(bytes: &[u8], number: u64) -> Result<R, String> {
        let Some(record) = bytes.strip_prefix(&head::<R>(number)[..]) else {
            return Err("it is the journal of another role or another protocol: use the right data directory (--data)"
                .to_string());
        };
        let record = codec::decode::<ByteBuf>(record).and_then(|record| codec::decode(&record));
        record.map_err(|cause| format!("record {number} has another format: {cause}"))
    }

    fn slot(&self, number: u64) -> Option<Slot> {
        Some(Slot(number))
    }

    fn bound(&self) -> PromiseFloor {
        PromiseFloor { promised: LIST, ..PromiseFloor::NONE }
    }

    fn corrupt(_slots: SlotRange) -> Option<R> {
        None
    }

    /// No segment of a list is ever removed.
    fn restate(_removed: PromiseFloor, _others: PromiseFloor) -> Vec<R> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::{Command, CommandId, Entry, Value};
    use crate::role::StableStore;
    use crate::storage::disk::MemoryFiles;
    use crate::storage::journal::{Journal, JournalOptions, OpenError, RecoveredJournal};
    use crate::two_phase_commit::TransactionId;

    type Opened<R> = (Journal<MemoryFiles, R>, RecoveredJournal<R>);

    fn open<R: Record>(files: &MemoryFiles) -> Result<Opened<R>, OpenError> {
        let options = JournalOptions::alone(8_192, 7, false);
        Journal::open(files.clone(), options)
    }

    fn id(number: u64) -> TransactionId {
        TransactionId { number, coordinator: ServerId(3) }
    }

    fn promise(round: u64) -> AcceptorRecord {
        AcceptorRecord::Promised(Ballot { round, server: ServerId(2) })
    }

    fn accept(slot: u64) -> AcceptorRecord {
        let value = Value::Command(Command { id: CommandId::new(7, 0, slot), payload: vec![slot as u8; 100].into() });
        AcceptorRecord::Accepted(Entry { slot: Slot(slot), ballot: Ballot { round: slot, server: ServerId(2) }, value })
    }

    /// The checksums of the files, ordered by name.
    fn sums(files: &MemoryFiles) -> Vec<u32> {
        files.image().values().map(|bytes| crc32c::crc32c(bytes)).collect()
    }

    #[test]
    fn committed_records_are_recovered_in_order_by_every_later_incarnation() {
        let files = MemoryFiles::new();
        let mut all = Vec::new();
        for incarnation in 0..4 {
            let (mut log, found) = open(&files).unwrap();
            assert_eq!(found.records, all);
            for n in 0..40 {
                let group = [CoordinatorRecord::Committed(id(incarnation * 100 + n)), CoordinatorRecord::Ended(id(n))];
                log.commit(&group).unwrap();
                all.extend(group);
            }
            drop(log);
            files.power_cut(incarnation);
        }
    }

    /// A change of these numbers is a change of the format: data directories of the previous version could not be read.
    #[test]
    fn the_bytes_are_those_of_every_version_so_far() {
        let files = MemoryFiles::new();
        let (mut log, _) = open(&files).unwrap();
        for n in 0..200 {
            log.commit(&[CoordinatorRecord::Committed(id(n)), CoordinatorRecord::Ended(id(n))]).unwrap();
        }
        let (mut log, _) = open(&files).unwrap();
        log.commit(&[CoordinatorRecord::Reserved(1_024)]).unwrap();
        let expected = [
            0x7129_bc98,
            0x3682_731b,
            0x9bd1_ce4e,
            0x5350_a33d,
            0x8ea2_5117,
            0x7de3_6519,
            0xee56_f1d7,
            0x65a8_9b8c,
            0xcb50_ab99,
            0x8d49_d7e5,
            0x8209_a5a1,
            0x4956_0d2d,
            0xbcd8_2709,
            0x39d8_b6f3,
            0xc5cb_130a,
            0x9044_4623,
        ];
        assert_eq!(sums(&files), expected);

        let files = MemoryFiles::new();
        let (mut log, _) = open(&files).unwrap();
        (0..300).for_each(|n| log.commit(&[ParticipantRecord::Aborted(id(n))]).unwrap());
        let expected = [0x2e34_bc71, 0xc12b_9b8e, 0x60ad_2293, 0xa6a4_381b, 0xa650_982e, 0xcebb_ca0f, 0x9044_4623];
        assert_eq!(sums(&files)[16..], expected);

        let files = MemoryFiles::new();
        let (mut journal, _) = open(&files).unwrap();
        for n in 1..=100 {
            journal.commit(&[promise(n)]).unwrap();
            journal.commit(&[accept(n)]).unwrap();
            if n % 30 == 0 {
                journal.commit(&[AcceptorRecord::Truncated(Slot(n - 20))]).unwrap();
            }
        }
        let expected = [0x88f3_851d, 0x2253_c04e, 0xa735_ea4f, 0x9d9f_dd59, 0xe76c_3b9a, 0x9044_4623];
        assert_eq!(sums(&files), expected);
    }

    #[test]
    fn record_log_of_another_kind_is_refused() {
        let is_other = |error| matches!(error, OpenError::Unreadable { cause, .. } if cause.contains("another role"));
        let files = MemoryFiles::new();
        open(&files).unwrap().0.commit(&[CoordinatorRecord::Reserved(9)]).unwrap();
        assert!(is_other(open::<ParticipantRecord>(&files).unwrap_err()));
        let files = MemoryFiles::new();
        open(&files).unwrap().0.commit(&[promise(3)]).unwrap();
        assert!(is_other(open::<ParticipantRecord>(&files).unwrap_err()));
    }

    #[test]
    fn corrupt_record_log_is_refused_and_left_unchanged() {
        let files = MemoryFiles::new();
        let (mut log, _) = open(&files).unwrap();
        (0..40).for_each(|n| log.commit(&[ParticipantRecord::Aborted(id(n))]).unwrap());
        drop(log);
        files.flip_bit("0000000001.journal", 1_024 * 8 + 5_000);
        let before = files.image();
        let error = open::<ParticipantRecord>(&files).unwrap_err();
        assert!(matches!(error, OpenError::Lost(_)), "{error}");
        assert!(error.to_string().contains("No other server has these records"), "{error}");
        assert_eq!(files.image(), before);
    }
}
