//! What must hold for any bytes at all: the bodies of the fuzz targets.
//!
//! Whatever comes from outside the program is read here as an enemy would write it: frames, words of the handshake,
//! lines, journals, data folders, files of clusters and operations, histories. Each target says more than "does not
//! panic": what is read must be whole, the same in pieces as at once, the same the second time, and never more than a
//! checksum covers. Where random bytes would never get past a checksum, a target makes the checksums right and leaves
//! the rest wrong.
//!
//! `cargo fuzz run TARGET` searches for bytes that break one (`fuzz/`); `cargo test --lib fuzz::` runs the same
//! functions over all that was found worth keeping (`fuzz/corpus/`). This module is in no other build.

pub(crate) mod choices;
mod cluster;
mod data_dir;
mod frames;
mod handshake;
mod histories;
mod http;
mod journal;
mod lines;
mod messages;
mod operations;
mod record_log;
mod requests;
mod runs;
mod state;

#[cfg(test)]
mod corpus;

pub use cluster::cluster;
pub use data_dir::folder;
pub use frames::frames;
pub use handshake::handshake;
pub use histories::histories;
pub use http::http;
pub use journal::journal;
pub use lines::lines;
pub use messages::messages;
pub use operations::operations;
pub use record_log::records;
pub use requests::requests;
pub use runs::runs;
pub use state::state;
