//! The clock of this process.

use std::sync::OnceLock;
use std::time::Instant;

use crate::host::Time;

static BEGUN: OnceLock<Instant> = OnceLock::new();

/// The time since the first look at this clock.
pub fn now() -> Time {
    Time(BEGUN.get_or_init(Instant::now).elapsed().as_micros() as u64)
}
