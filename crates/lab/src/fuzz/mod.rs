//! The fuzz targets: what must hold for any input bytes.
//!
//! All input from outside the program is treated here as hostile: frames, handshakes, log lines, journals, data
//! directories, cluster files, scripts, histories. Each target checks more than the absence of a panic. What is read
//! must be complete, the same in pieces as at once, the same when read again, and never more than a checksum covers.
//! Where random bytes would never pass a checksum, the target makes the checksums right and leaves the rest wrong.
//!
//! `cargo fuzz run TARGET` searches for failing inputs (`fuzz/`). `cargo test --lib fuzz::` runs the same functions on
//! all inputs kept from earlier fuzzing (`fuzz/corpus/`). This module is part of no other build.

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
mod play;
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
pub use play::{choices, exercises};
pub use record_log::records;
pub use requests::requests;
pub use runs::runs;
pub use state::state;
