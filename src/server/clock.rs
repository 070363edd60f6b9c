//! The clock of this process.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::time::Time;

static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The time since the first call.
pub fn now() -> Time {
    Time(BEGUN.elapsed().as_micros() as u64)
}

/// The instant of a time; a wait until it does not end earlier.
pub fn instant(time: Time) -> Instant {
    *BEGUN + Duration::from_micros(time.0)
}
