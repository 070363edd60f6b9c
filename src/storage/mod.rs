//! Stable storage of one server: what survives when its power fails.
//!
//! | who | remembers | in |
//! |---|---|---|
//! | acceptor | what it promised and accepted | [`journal`]: append only, one write and one sync a group |
//! | learner | the state after some slot | [`checkpoint`]: a database of a library, one transaction each |
//! | proposer | which ballot_store are spent | [`ballot_store`]: one number, replaced as a whole |
//! | server | who it is, its lives, its peers' disks | [`identity`]: a small text, replaced as a whole |
//!
//! All four live in a [`data_dir`]. They reach the disk through [`disk`] alone, so that each of them can be run on a
//! disk in memory whose power fails at any step.
//!
//! Whom a server takes for its peer is judged in [`admission`]. [`backup`] is a state in a file of its own, [`restore`]
//! makes folders from it, and [`inspect`] tells people what a folder holds.
//!
//! What is assumed of the disk: a sector of 512 bytes is written whole or not at all; what was synced stays. Where the
//! second is broken (a bit flips, a file is lost or comes back old), it is found out and the server does not start:
//! damaged is never taken for "never written".

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
