//! A rate limit: at most N events per period pass, and the others are counted. A client that sends malformed requests
//! as fast as it can must not fill the disk, and one that opens sessions endlessly must not delay others.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::time::Time;

/// Lets at most `most` events per period pass, and counts the others.
#[derive(Debug)]
pub struct RateLimit {
    most: u32,
    period: Duration,
    state: Mutex<RateLimitState>,
}

#[derive(Debug)]
struct RateLimitState {
    started: Time,
    through: u32,
    held_back: u64,
}

impl RateLimit {
    /// Lets at most `per_second` events pass in each second. A second begins with the first event after the previous
    /// one.
    pub fn new(per_second: u32) -> RateLimit {
        RateLimit::over(Duration::from_secs(1), per_second)
    }

    /// Lets at most `most` events pass in each period. A period begins with the first event after the previous one.
    pub fn over(period: Duration, most: u32) -> RateLimit {
        RateLimit { most, period, state: Mutex::new(RateLimitState { started: Time(0), through: 0, held_back: 0 }) }
    }

    /// Whether one more event may pass now; if not, the event is counted.
    pub fn allow(&self, now: Time) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(state.started) >= self.period {
            (state.started, state.through) = (now, 0);
        }
        let passes = state.through < self.most;
        if passes {
            state.through += 1;
        } else {
            state.held_back += 1;
        }
        passes
    }

    /// Number of events held back since the last call.
    pub fn take_suppressed(&self) -> u64 {
        std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).held_back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limit_passes_its_number_per_second_and_counts_the_rest() {
        let throttle = RateLimit::new(3);
        let started = Time(7_000_000);
        let pass = |ms| (0..5).filter(|_| throttle.allow(started + Duration::from_millis(ms))).count();
        assert_eq!((pass(0), throttle.take_suppressed()), (3, 2));
        assert_eq!((pass(900), throttle.take_suppressed()), (0, 5));
        assert_eq!((pass(1_500), throttle.take_suppressed()), (3, 2));
        assert_eq!(throttle.take_suppressed(), 0);
    }
}
