//! A clock's time, as the cores of servers and clients receive it.

use std::ops::Add;
use std::time::Duration;

/// Microseconds of the clock of a process, since a moment before it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The time since `earlier`; zero if `earlier` is in the future.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Rounds up: a part of a microsecond counts as a whole one.
    fn add(self, duration: Duration) -> Time {
        let micros = duration.as_nanos().div_ceil(1_000);
        Time(self.0.saturating_add(u64::try_from(micros).unwrap_or(u64::MAX)))
    }
}
