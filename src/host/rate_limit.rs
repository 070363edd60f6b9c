//! So many of something in a time, and the rest as a number: whoever sends nonsense as fast as it can must not fill the
//! disk, and whoever opens sessions without end must not keep others waiting.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::time::Time;

/// Lets some things through and counts the others.
#[derive(Debug)]
pub struct RateLimit {
    most: u32,
    period: Duration,
    state: Mutex<RateLimitState>,
}

#[derive(Debug)]
struct RateLimitState {
    begun: Time,
    through: u32,
    held_back: u64,
}

impl RateLimit {
    /// Lets so many through in any second that begins when the one before is over.
    pub fn new(per_second: u32) -> RateLimit {
        RateLimit::over(Duration::from_secs(1), per_second)
    }

    /// Lets so many through in any such period that begins when the one before is over.
    pub fn over(period: Duration, most: u32) -> RateLimit {
        RateLimit { most, period, state: Mutex::new(RateLimitState { begun: Time(0), through: 0, held_back: 0 }) }
    }

    /// Whether one more may pass now; if not, it is counted.
    pub fn allow(&self, now: Time) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(state.begun) >= self.period {
            (state.begun, state.through) = (now, 0);
        }
        let passes = state.through < self.most;
        if passes {
            state.through += 1;
        } else {
            state.held_back += 1;
        }
        passes
    }

    /// How many were held back since this was asked last.
    pub fn take_suppressed(&self) -> u64 {
        std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).held_back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_pass_in_a_second_and_the_others_are_counted() {
        let throttle = RateLimit::new(3);
        let begun = Time(7_000_000);
        let pass = |ms| (0..5).filter(|_| throttle.allow(begun + Duration::from_millis(ms))).count();
        assert_eq!((pass(0), throttle.take_suppressed()), (3, 2));
        assert_eq!((pass(900), throttle.take_suppressed()), (0, 5));
        assert_eq!((pass(1_500), throttle.take_suppressed()), (3, 2));
        assert_eq!(throttle.take_suppressed(), 0);
    }
}
