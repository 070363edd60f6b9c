//! Stable storage of one server: what survives a power failure.
//!
//! | owner | record | module |
//! |---|---|---|
//! | acceptor | what it promised and accepted | [`journal`]: append only, one write and one sync a group |
//! | learner | the state after a slot | [`checkpoint`]: sorted files of what has changed, one sync each |
//! | proposer | which rounds are reserved | [`ballot_store`]: one number, replaced as a whole |
//! | server | its identity, its incarnations, peers' storage ids | [`identity`]: a small text, replaced as a whole |
//!
//! All four are in a [`data_dir`]. They reach the disk only through [`disk`], so each of them can run on a disk in
//! memory whose power fails at any step.
//!
//! [`admission`] decides which callers are peers. [`backup`] is a state in a file of its own, [`restore`] makes data
//! directories from it, and [`inspect`] shows what a data directory holds.
//!
//! Two assumptions about the disk: a sector of 512 bytes is written whole or not at all, and synced data stays. If the
//! second fails (a bit flips, a file is lost or comes back old), the server detects it. It restores the data from its
//! peers if it can, and otherwise does not start: corrupt data is never read as "never written".

pub mod admission;
pub mod backup;
pub mod ballot_store;
pub mod checkpoint;
pub mod data_dir;
pub mod disk;
pub mod identity;
pub mod inspect;
pub mod journal;
mod record_log;
pub mod restore;
mod rules;

pub use ballot_store::{BallotStore, BallotStoreError};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use data_dir::{DataDir, DataDirError};
pub use journal::{Journal, JournalError, RecoveredJournal};
