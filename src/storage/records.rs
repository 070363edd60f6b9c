//! A log of records of any kind, kept by the acceptor's journal.
//!
//! The journal is the one place of this project that knows how to write so that nothing is lost and damage is noticed. It
//! keeps numbered entries, and asks nothing of what is in them; so the n-th record of another role is its n-th entry. The
//! entries have a ballot that no server can have: an acceptor's journal is never taken for such a log, nor the other way.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::codec::{self, CodecError};
use crate::paxos::{AcceptorRecord, Ballot, Command, CommandId, Entry, Slot, Value};
use crate::role::{Disk, Server};
use crate::two_phase_commit::{CoordinatorRecord, ParticipantRecord};

/// What every entry of such a log says where an acceptor names its ballot.
const NOBODYS: Ballot = Ballot { round: 1, server: Server(0) };

/// A kind of record.
pub trait Kind: Serialize + DeserializeOwned {
    /// Its number: the log of one kind is never taken for that of another.
    const NUMBER: u64;
}

impl Kind for CoordinatorRecord {
    const NUMBER: u64 = 1;
}

impl Kind for ParticipantRecord {
    const NUMBER: u64 = 2;
}

/// Why a log cannot be read.
#[derive(Debug, Error)]
pub enum RecordsError {
    /// A part of it is lost. Unlike an acceptor's, nobody else can say what stood there.
    #[error(
        "records {first} to {last} are damaged, and nobody else knows them: what this server has promised and done is not \
         known any more. Put the folder back as it was"
    )]
    Damaged {
        /// The first of them.
        first: Slot,
        /// The last.
        last: Slot,
    },
    /// It is something else.
    #[error("it is the journal of another role, or of another protocol: use the data folder of this one (--data)")]
    OtherKind,
    /// Its bytes are whole and say nothing.
    #[error("record {number} is of another version: {cause}")]
    Unreadable {
        /// Which.
        number: Slot,
        /// Why.
        cause: CodecError,
    },
}

/// A log of records.
#[derive(Debug)]
pub struct Records<D, R> {
    journal: D,
    next: Slot,
    kind: PhantomData<R>,
}

impl<D, R: Kind> Records<D, R> {
    /// The log in a journal that has been opened, and the records in it.
    pub fn new(journal: D, found: Vec<AcceptorRecord>) -> Result<(Records<D, R>, Vec<R>), RecordsError> {
        let mut next = Slot(1);
        let mut records = Vec::new();
        for record in found {
            match record {
                AcceptorRecord::Accepted(Entry { slot, ballot: NOBODYS, value: Value::Command(command) })
                    if command.id == CommandId::new(R::NUMBER, 0, slot.0) && slot == next =>
                {
                    let decoded = codec::decode(&command.payload);
                    records.push(decoded.map_err(|cause| RecordsError::Unreadable { number: slot, cause })?);
                    next = slot.next();
                }
                AcceptorRecord::Damaged(range) => {
                    return Err(RecordsError::Damaged { first: range.first, last: range.last });
                }
                _ => return Err(RecordsError::OtherKind),
            }
        }
        Ok((Records { journal, next, kind: PhantomData }, records))
    }

    /// The journal that keeps it.
    pub fn journal(&self) -> &D {
        &self.journal
    }

    /// The journal that keeps it.
    pub fn journal_mut(&mut self) -> &mut D {
        &mut self.journal
    }
}

impl<D: Disk<AcceptorRecord>, R: Kind> Disk<R> for Records<D, R> {
    type Error = D::Error;

    fn commit(&mut self, records: &[R]) -> Result<(), D::Error> {
        let mut next = self.next;
        let entries: Vec<AcceptorRecord> = records
            .iter()
            .map(|record| {
                let command =
                    Command { id: CommandId::new(R::NUMBER, 0, next.0), payload: codec::encode(record).into() };
                let entry = Entry { slot: next, ballot: NOBODYS, value: Value::Command(command) };
                next = next.next();
                AcceptorRecord::Accepted(entry)
            })
            .collect();
        self.journal.commit(&entries)?;
        self.next = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Journal;
    use crate::storage::disk::MemoryFiles;
    use crate::storage::journal::Options;
    use crate::two_phase_commit::TransactionId;

    fn open(files: &MemoryFiles) -> (Journal<MemoryFiles>, Vec<AcceptorRecord>) {
        let options = Options { segment_bytes: 8_192, owner: 7, must_exist: false };
        let (journal, recovered) = Journal::open(files.clone(), options).unwrap();
        (journal, recovered.records)
    }

    fn id(number: u64) -> TransactionId {
        TransactionId { number, coordinator: Server(3) }
    }

    #[test]
    fn what_is_committed_comes_back_in_order_in_every_later_life() {
        let files = MemoryFiles::new();
        let mut all = Vec::new();
        for life in 0..4 {
            let (journal, found) = open(&files);
            let (mut log, records) = Records::<_, CoordinatorRecord>::new(journal, found).unwrap();
            assert_eq!(records, all);
            for n in 0..40 {
                let group = [CoordinatorRecord::Committed(id(life * 100 + n)), CoordinatorRecord::Ended(id(n))];
                log.commit(&group).unwrap();
                all.extend(group);
            }
            files.power_cut(life);
        }
    }

    #[test]
    fn the_log_of_another_kind_is_refused() {
        let files = MemoryFiles::new();
        let (journal, found) = open(&files);
        let (mut log, _) = Records::<_, CoordinatorRecord>::new(journal, found).unwrap();
        log.commit(&[CoordinatorRecord::Reserved(9)]).unwrap();
        let (journal, found) = open(&files);
        let other = Records::<_, ParticipantRecord>::new(journal, found);
        assert!(matches!(other, Err(RecordsError::OtherKind)));
        let files = MemoryFiles::new();
        let (mut journal, _) = open(&files);
        journal.commit(&[AcceptorRecord::Promised(Ballot { round: 3, server: Server(1) })]).unwrap();
        let (journal, found) = open(&files);
        let acceptors = Records::<_, ParticipantRecord>::new(journal, found);
        assert!(matches!(acceptors, Err(RecordsError::OtherKind)));
    }
}
