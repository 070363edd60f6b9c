//! Errors of a journal, with messages for the operator of the server.

use std::fmt::{self, Display};
use std::io;

use thiserror::Error;

use crate::paxos::SlotRange;
use crate::storage::identity::short_disk;

/// The corrupt part of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CorruptRegion {
    /// The first sector, which identifies the file.
    Header,
    /// The second sector, which tells where the segment ends.
    Seal,
    /// The records of the role.
    Groups,
}

/// A place in the journal that was written and is now unreadable. It may have held anything, so it never counts as
/// "nothing was accepted".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The name of the file.
    pub file: String,
    /// The first byte of the first bad sector.
    pub offset: u64,
    /// What the sector is for.
    pub part: CorruptRegion,
    /// The lowest and the highest slot known to be affected, from the sectors around it.
    pub slots: Option<SlotRange>,
    /// Whether `slots` covers everything that is lost; if not, any other slot may be affected too.
    pub slots_complete: bool,
}

impl Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Corruption { file, offset, part, slots, slots_complete } = self;
        write!(f, "journal file {file} is corrupt at byte {offset}: ")?;
        match part {
            CorruptRegion::Header => f.write_str("its header is unreadable, or it never was a journal file; ")?,
            CorruptRegion::Seal => f.write_str("the mark of its end is unreadable; ")?,
            CorruptRegion::Groups => {}
        }
        let others = if *slots_complete { "" } else { ", and perhaps other slots that no intact sector names" };
        match (slots, slots_complete) {
            (Some(SlotRange { first, last }), _) if first == last => write!(f, "it affects slot {first}{others}"),
            (Some(SlotRange { first, last }), _) => write!(f, "it affects slots {first} to {last}{others}"),
            (None, true) => f.write_str("it affects promises and no slot"),
            (None, false) => f.write_str("the affected slots are unknown"),
        }
    }
}

/// Why a journal cannot be opened. Opening never loses what the journal held.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A disk operation failed.
    #[error("cannot {action} {file} of the journal: {source}. Repair the disk or the permissions, then start again")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The name of the file.
        file: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// No space for the new segment that every start needs.
    #[error(
        "cannot start the journal: the disk has no space for a new segment of {bytes} bytes. Free disk space, then \
         start again"
    )]
    Full {
        /// Bytes needed.
        bytes: u64,
    },
    /// The journal existed before and is now missing.
    #[error(
        "the journal of this server is missing; without it the server could break its promises. Restore the data \
         directory. A server that lost its journal cannot return under its number"
    )]
    Missing,
    /// A segment in the middle is missing.
    #[error("journal file {file} is missing, and {before} refers to it. Put the original file back")]
    MissingSegment {
        /// The missing file.
        file: String,
        /// The file whose header names it.
        before: String,
    },
    /// The last segments are missing.
    #[error("the end of the journal is missing: {file} says that another file follows it. Put that file back")]
    EndMissing {
        /// The last file.
        file: String,
    },
    /// A file is shorter or longer than when it was made.
    #[error(
        "journal file {file} has {found} bytes instead of {expected}: it was truncated or overwritten. Put the \
             original file back"
    )]
    Length {
        /// The file.
        file: String,
        /// Its length, in bytes.
        found: u64,
        /// The length that its header names, in bytes.
        expected: u64,
    },
    /// The journal of another server.
    #[error(
        "journal file {file} belongs to disk {} and this is disk {}: it was copied from another data directory",
        short_disk(*.found), short_disk(*.expected)
    )]
    WrongStorage {
        /// The file.
        file: String,
        /// The storage id in the file.
        found: u64,
        /// The storage id of this data directory.
        expected: u64,
    },
    /// A file that was renamed.
    #[error(
        "journal file {file} is segment {segment} according to its header: it was renamed. Give it its old name \
             again"
    )]
    Misnamed {
        /// The file.
        file: String,
        /// The number in its header.
        segment: u32,
    },
    /// A journal of another format version.
    #[error(
        "journal file {file} has format {found}, and this program reads format {known}: use the program that wrote \
             it"
    )]
    Version {
        /// The file.
        file: String,
        /// The format version of the file.
        found: u32,
        /// The format version of this program.
        known: u32,
    },
    /// A file that does not belong to a journal.
    #[error("the directory of the journal holds {file}, which is not a journal file. Move it away, then start again")]
    UnknownFile {
        /// The file.
        file: String,
    },
    /// A segment that was replaced earlier is back.
    #[error("journal file {file} does not belong here: {next} replaced it earlier. Was an old copy put back?")]
    UnexpectedSegment {
        /// The file.
        file: String,
        /// The file that replaced it.
        next: String,
    },
    /// Segments that do not continue each other.
    #[error(
        "journal file {file} starts with group {found} instead of {expected}: the files are from different times. Put \
         the original files back"
    )]
    Gap {
        /// The file.
        file: String,
        /// The number of its first group.
        found: u64,
        /// The number after the last group of the earlier files.
        expected: u64,
    },
    /// Sectors are unreadable, and the slots that they affect are not all known.
    #[error(
        "{0}. The server does not start: what it accepted or promised there must not count as nothing. Keep the \
         directory as it is; the other servers continue while they are a majority"
    )]
    Corrupt(Corruption),
    /// Sectors are unreadable, and with them the last promise.
    #[error(
        "{0}. The server does not start: no later record repeats the promise made there. Keep the directory as it is; \
         the other servers continue while they are a majority"
    )]
    PromiseLost(Corruption),
    /// Sectors are unreadable, and no other server has what they held.
    #[error(
        "{0}. No other server has these records, so the votes and decisions of this server are unknown. Put the \
         original directory back"
    )]
    Lost(Corruption),
    /// Valid sectors hold bytes that this program cannot decode.
    #[error("journal file {file} holds data at byte {offset} that this program cannot read: {cause}")]
    Unreadable {
        /// The file.
        file: String,
        /// The first byte of the group.
        offset: u64,
        /// What is wrong with it.
        cause: String,
    },
}

/// Why records are not known to be durable.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A write or a sync failed. What the disk holds now is unknown until a new process reads it.
    #[error(
        "cannot {action} journal file {file}: {source}. The contents of the disk are now unknown: this process must \
             stop"
    )]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The file.
        file: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The journal is full, and there is no next segment.
    #[error("the journal is full, and its next file of {bytes} bytes cannot be created: {source}. Free disk space")]
    Full {
        /// Bytes needed.
        bytes: u64,
        /// The operating system's reason.
        source: io::Error,
    },
    /// An earlier write failed: this process uses the journal no more.
    #[error("an earlier write to the journal failed, so it accepts no more records: this process must stop")]
    AlreadyFailed,
}
