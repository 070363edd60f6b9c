//! How much a request met, so that a summary can name the most telling one.

use std::time::Duration;

/// What a request met. A greater one is more telling: it waited without a quorum, or more voters were down, or a voter
/// crashed while it ran, or it took longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hardship {
    /// For a time, too few voters were up.
    pub is_without_quorum: bool,
    /// Number of voters that were down at some time while it ran.
    pub down: usize,
    /// A voter crashed while it ran.
    pub is_crash_inside: bool,
    /// Time from beginning to end.
    pub took: Duration,
}

impl Hardship {
    /// Whether the request met any failure.
    pub fn has_failure(&self) -> bool {
        self.is_without_quorum || self.down > 0
    }
}
